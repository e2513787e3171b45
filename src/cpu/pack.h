/* Rows of a block as screening wants them: found, as float32, and packed into panels with bounds of
 * their norms, see screen.h. */
#ifndef FKM_PACK_H
#define FKM_PACK_H

#include "assign.h"

#include <math.h>

#define FKM_PREFETCH_BYTES 1024 /* of a row; hardware sees the rest coming */

/* Finds out which rows the positions [first, first + rows) are, and their labels so far. */
void fkm_name_rows(const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t rows);

static inline const char *fkm_row_bytes(
    const fkm_assign_job *job, const fkm_assign_scratch *s, int32_t r)
{
    return (const char *)job->x +
           (size_t)s->index[r] * (size_t)job->tiles->dims * fkm_dtype_size(job->dtype);
}

/* Row r of the block as float32: in place, or widened, and there until a panel of rows later. */
static inline const float *fkm_row_at(const fkm_assign_job *job, fkm_assign_scratch *s, int32_t r)
{
    int64_t dims = job->tiles->dims;
    const char *x = fkm_row_bytes(job, s, r);
    if (job->dtype == FKM_F32)
        return (const float *)(const void *)x;
    float *out = s->rows + r % job->tiles->kernels->panel * dims;
    job->tiles->kernels->widen(out, x, job->dtype, dims);
    return out;
}

/* Row r of the block as kernels pack it. */
static inline const void *fkm_row_to_pack(
    const fkm_assign_job *job, fkm_assign_scratch *s, int32_t r)
{
    if (job->tiles->kernels->bytes)
        return fkm_row_bytes(job, s, r);
    return fkm_row_at(job, s, r);
}

/* Rows are in no order in memory: what will be read soon is fetched ahead. */
static inline void fkm_prefetch_row(
    const fkm_assign_job *job, const fkm_assign_scratch *s, int32_t r)
{
    const char *x = fkm_row_bytes(job, s, r);
    size_t bytes = (size_t)job->tiles->dims * fkm_dtype_size(job->dtype);
    for (size_t b = 0; b < bytes && b < FKM_PREFETCH_BYTES; b += 64)
        __builtin_prefetch(x + b);
    __asm__ volatile("" : : "r"(x)); /* else GCC holds this to have no effect, and calls it never */
}

/* An upper bound of |X~| from its float32 sum of squares (see screen.h). Not below FKM_NORM_MAX,
 * NaN included, means that the row cannot be screened. */
static inline float fkm_norm_bound(float square, int32_t dims)
{
    return sqrtf(square) * (1 + (float)(dims + 8) * 0x1p-24f) + FKM_NORM_TINY;
}

static inline bool fkm_screenable(float norm)
{
    return norm < FKM_NORM_MAX;
}

/* The longest head that may be chosen; 0: too few dims to save on, or too many to look for axes. */
int32_t fkm_head_most(const fkm_kernels *k, int32_t dims);

/* x: [dims] */
bool fkm_row_is_finite(const float *x, int32_t dims);

/* Packs the block's panels, and sets the norms, residuals and tails of their rows. */
void fkm_pack_block(const fkm_assign_job *job, fkm_assign_scratch *s, int32_t rows);

#endif
