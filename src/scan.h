/* The fixed-point scale of the sums, from a scan of the data. */
#ifndef FKM_SCAN_H
#define FKM_SCAN_H

#include "backend.h"
#include "base/pool.h"
#include "fkm.h"

/* The rule of CONTRIBUTING.md, "The contract", for data that s describes, of which `rows` rows are
 * used. FKM_EDATA when even 128-bit sums are too coarse, naming the outlier in `in`, whose problem
 * begins at row `base`. */
fkm_status fkm_scale_choose(fkm_scale *out, const fkm_scan *s, int64_t rows, const fkm_reader *in,
    int64_t base, fkm_err *e) FKM_MUST_USE;

/* fkm_scan_add by the threads of `pool`; NULL: by the caller. */
void fkm_scan_add_by(fkm_pool *pool, fkm_scan *s, const void *x, fkm_dtype dtype, int64_t row0,
    int64_t count, int32_t dims);

/* True while sums of `rows` rows with values as in s cannot overflow at scale v. */
bool fkm_scale_holds(fkm_scale v, const fkm_scan *s, int64_t rows);

/* FKM_EDATA naming the first NaN or Inf that s found, and how many rows have one. */
fkm_status fkm_scan_not_finite(const fkm_scan *s, const fkm_reader *in, int64_t base, fkm_err *e);

#endif
