/* Rows drawn by chance: the first centroids, and a sample that tells the scale of the data. */
#ifndef FKM_SEED_H
#define FKM_SEED_H

#include "source.h"

/* centroids: [k][dims] = k distinct rows of the problem, drawn without replacement from `seed`; k
 * <= rows. With not_finite: a row with NaN or Inf sets it, and FKM_EDATA. Without: such rows are
 * passed over, FKM_EDATA when fewer than k others exist. */
fkm_status fkm_seed_random(float *centroids, fkm_source *s, int64_t rows, int32_t dims, int32_t k,
    uint64_t seed, bool *not_finite, fkm_err *e) FKM_MUST_USE;

/* *out describes up to 4096 rows, drawn from `seed` in runs of 32. */
fkm_status fkm_seed_sample(fkm_scan *out, fkm_source *s, int64_t rows, int32_t dims, uint64_t seed,
    fkm_err *e) FKM_MUST_USE;

#endif
