/* The parts that fkm_seed is made of: see seed.h. */
#ifndef FKM_SEED_PARTS_H
#define FKM_SEED_PARTS_H

#include "seed.h"

/* As fkm_seed: rows drawn without replacement. */
fkm_status fkm_seed_random(
    float *centroids, const fkm_seed_job *job, bool *not_finite, fkm_err *e) FKM_MUST_USE;

/* One random finite row: x[dims], and its index. FKM_EDATA as fkm_seed. */
fkm_status fkm_seed_first(
    float *x, int64_t *row, const fkm_seed_job *job, bool *not_finite, fkm_err *e) FKM_MUST_USE;

/* Candidates of k-means||, and k-means++ among them: chosen[0 .. *have) and their values in
 * centroids. cover: open, without centroids; on return it holds all candidates. */
fkm_status fkm_seed_parallel(float *centroids, int64_t *chosen, int32_t *have, fkm_cover *cover,
    const fkm_seed_job *job, bool *not_finite, fkm_err *e) FKM_MUST_USE;

/* Most candidates of a round; of all rounds; bytes for them beside the cover of the rows. */
int32_t fkm_seed_round_limit(int32_t k, int64_t rows);
int64_t fkm_seed_candidate_limit(int32_t k, int64_t rows);
int64_t fkm_seed_candidate_bytes(int32_t k, const fkm_shape *shape);

/* FKM_ESTOPPED when the run is to end: rows of a file may come one by one. */
fkm_status fkm_seed_stop(const fkm_seed_job *job, fkm_err *e) FKM_MUST_USE;

bool fkm_seed_finite(const float *x, int32_t dims);
fkm_status fkm_seed_too_few(int32_t k, fkm_err *e);

#endif
