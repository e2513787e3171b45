/* The first centroids, drawn by chance, and a sample that tells the scale of the data.
 *
 * What is drawn depends on the seed and the values of the rows only: numbers come from fkm_random,
 * where the index says what they are for, distances are canonical, and sums of distances have one
 * order (mass.h). tests/contract/seeding.py is all of this again in slow, plain NumPy.
 *
 * random: k distinct rows, without replacement.
 *
 * k-means++ (Arthur and Vassilvitskii 2007): the first centroid is a random row, each further one a
 * row drawn with a probability in proportion to D, its squared distance to the nearest centroid
 * before it. Taken literally that costs k passes over the data. Here a row is proposed in
 * proportion to D as it was after the last pass, and taken with probability (D now) / (D then): the
 * product is the distribution that is asked for, and the rows proposed are the only ones whose
 * distances to centroids since then are computed. A pass brings D up to date when the proposals of
 * the batch have cost as much as a fraction of a pass. All passes together compute as many
 * distances as one Lloyd iteration does.
 *
 * k-means|| (Bahmani et al. 2012): from one random row on, five rounds; in each every row becomes a
 * candidate with probability min(1, 2k D / sum of D), on its own. Then k-means++ picks k of the
 * candidates, weighted by how many rows each is the nearest of. Six passes, whatever k. */
#ifndef FKM_SEED_H
#define FKM_SEED_H

#include "cover.h"

typedef struct fkm_seed_job {
    fkm_init_method method;
    uint64_t seed;
    int32_t clusters; /* k <= rows */
    fkm_source *source;
    const fkm_shape *shape;
    int32_t *labels; /* [rows]: scratch */
    const fkm_cover_env *env;
} fkm_seed_job;

/* centroids: [k][dims] = k distinct rows of the problem, of distinct values as long as there are
 * such, and never one with NaN or Inf. Unless env->skip_nan, such a row that is met sets
 * *not_finite, and FKM_EDATA. FKM_EDATA too when fewer than k others exist. FKM_ESTOPPED, and what
 * source and backend return. Between passes of the source, before and after. */
fkm_status fkm_seed(
    float *centroids, const fkm_seed_job *job, bool *not_finite, fkm_err *e) FKM_MUST_USE;

/* For the plan: the most centroids in a pass that fkm_seed makes (0: none), and the bytes that it
 * allocates beside such a backend: these, and so many for each row of a chunk. */
int32_t fkm_seed_clusters(fkm_init_method method, int32_t k, int64_t rows);
int64_t fkm_seed_bytes(fkm_init_method method, int32_t k, const fkm_shape *shape);
int64_t fkm_seed_bytes_per_row(fkm_init_method method);

/* *out describes up to 4096 rows, drawn from `seed` in runs of 32. */
fkm_status fkm_seed_sample(fkm_scan *out, fkm_source *s, int64_t rows, int32_t dims, uint64_t seed,
    fkm_err *e) FKM_MUST_USE;

#endif
