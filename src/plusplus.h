/* k-means++ over the rows of a cover: what both k-means++ and k-means|| are made of. See seed.h. */
#ifndef FKM_PLUSPLUS_H
#define FKM_PLUSPLUS_H

#include "cover.h"
#include "rng.h"

typedef struct fkm_plusplus {
    fkm_cover *cover;      /* holds the centroids chosen before; in the end not the last batch */
    const int64_t *weight; /* [rows], or NULL: 1 each */
    uint64_t seed;
    fkm_purpose proposal, verdict;
    float *centroids;   /* [want][dims] */
    int64_t *chosen;    /* [want]: rows */
    int32_t have, want; /* centroids chosen; to be chosen */
} fkm_plusplus;

/* Goes from have >= 1 to want centroids; stops short when all rows of positive weight coincide with
 * centroids. FKM_ESTOPPED, and what the cover returns. */
fkm_status fkm_plusplus_run(fkm_plusplus *p, fkm_err *e) FKM_MUST_USE;

/* The most centroids that one of its passes adds. */
int32_t fkm_plusplus_batch_limit(int32_t want, int64_t rows);

#endif
