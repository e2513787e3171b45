/* Would distances of panels to single centroids spare enough for picked tiles (picks.h) to pay? A
 * few panels are looked at, by distances in float32: how many centroids will be in reach of them,
 * if all go on as they just have, or are slowing down? */
#ifndef FKM_PROBE_H
#define FKM_PROBE_H

#include "../backend.h"
#include "store.h"

typedef struct fkm_probe {
    const fkm_tiles *tiles;
    const fkm_row_store *store; /* rows laid out in label order */
    const fkm_rows *rows;       /* the chunk that they are of */
    fkm_dtype dtype;
    const double *shift; /* [clusters]: how far centroids moved last */
    double ahead;        /* as often they will move as far again */
    float *x;            /* [panel][dims]: scratch */
} fkm_probe;

bool fkm_probe_pays(const fkm_probe *p, fkm_pool *pool);

#endif
