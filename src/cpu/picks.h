/* Centroids picked for a panel: those that its rows may be nearest to, of whatever tiles, side by
 * side in tiles of their own. With a distance of each panel to each centroid (apart.h, lots of one)
 * few are left; whole tiles would hardly ever be spared, as one centroid of 32 is always near.
 *
 * First come the centroids of the panel's own rows: their floors tell who else is near. Picked
 * tiles stand for fkm_tiles to kernels; `real` names the positions that their centroids are from.
 */
#ifndef FKM_PICKS_H
#define FKM_PICKS_H

#include "kernels.h"

enum {
    FKM_OWN_PICKS = 3, /* tiles in turn for panels' own centroids: scored, multiplied and filled */
    FKM_PICK_TILES = 6 /* and as many for others */
};

/* One worker's scratch. */
typedef struct fkm_picks {
    char *packed;                   /* [FKM_PICK_TILES] tiles */
    float *half, *centroid_quantum; /* [FKM_PICK_TILES][tile]: as in fkm_tiles */
    int32_t *start, *real;          /* the same; real -1: padding */
    float unit[FKM_PICK_TILES];     /* as all tiles have it */
    float slope[FKM_PICK_TILES], tail[FKM_PICK_TILES];
    float residual[FKM_PICK_TILES], offset[FKM_PICK_TILES]; /* margins: maxima over a tile */
    int32_t *tile, *slot; /* [rows]: where in FKM_OWN_PICKS tiles its own centroid is; -1: it has
                             none */
    int32_t *near;        /* [positions]: scratch */
    bool *whole;          /* [panels]: too many are near: tiles are taken as they are */
} fkm_picks;

int64_t fkm_picks_bytes(const fkm_kernels *k, int32_t rows, int32_t clusters, int32_t dims);

/* *out: NULL for kernels that do not pick. */
fkm_status fkm_picks_open(fkm_picks **out, const fkm_kernels *k, int32_t rows, int32_t clusters,
    int32_t dims, fkm_err *e) FKM_MUST_USE;
void fkm_picks_close(fkm_picks *p); /* NULL is fine */

/* The picked tiles as kernels want them; good until *t changes. */
fkm_tiles fkm_picked_tiles(fkm_picks *p, const fkm_tiles *t);

/* The positions of the own centroids of a panel's rows, each once; p->tile and p->slot of its rows,
 * for when they are in picked tile i. positions: [rows]. Returns how many. */
int32_t fkm_pick_own(fkm_picks *p, int32_t i, const fkm_row_block *b, const fkm_tiles *t,
    int32_t panel, int32_t *positions);

/* Sets the distances of a panel to its own centroids. */
void fkm_mark_own(fkm_row_block *b, const fkm_tiles *t, int32_t panel, float apart);

#endif
