/* What is kept of rows in memory, beside the rows, from pass to pass: rounded copies laid out for
 * screening, their figures, and distances of panels to lots of centroids. All of it makes passes
 * quicker and none is needed, so that it is what fits: of much data, into a share of it. */
#ifndef FKM_KEEP_H
#define FKM_KEEP_H

#include "store.h"

typedef struct fkm_keep {
    fkm_store_shape store;
    int32_t lot; /* centroids that share a distance: a tile's, or one; 0: none are kept */
    bool each;   /* distances to single centroids have room with some kernels' panels */
    bool heads;  /* there is room for heads (head.h) */
    bool coarse; /* and for panels of coarse kernels */
} fkm_keep;

/* For so many rows in all, of type t. */
fkm_keep fkm_keep_of(
    const fkm_kernels *k, int64_t rows, int32_t clusters, int32_t dims, fkm_dtype t);

#endif
