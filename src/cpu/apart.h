/* Bounds that spare panels centroids: after Ding et al. 2015, "Yinyang k-means", which bounds a
 * row's distance to groups of centroids; here rows are grouped, too, so that what is spared is a
 * product of matrices. The groups, lots, are tiles, or single centroids where kernels can pick
 * those that are left (picks.h).
 *
 * In the units of the frame (distances times s), each row r keeps a ref_r, near the distance to its
 * centroid when its panel was last screened, and each panel p and lot i, with x standing for
 * the distance of r to any centroid of i, and y for that to some centroid, for all rows r of p
 *
 *   apart[p][i] - drift[i] - slip[p] <= x - ref_r,    reach[p] - slip[p] >= y - ref_r.
 *
 * Centroids stay in their lots while this is in use, and drift[i] grows by the largest movement in
 * lot i. A panel's own centroids are screened first, with their tiles or by themselves: they set
 * the floors, these ref_r and reach[p], and slip[p] grows by the most that a ref_r of the panel has
 * grown by. Where reach[p] < apart[p][i] - drift[i], no row of the panel has its centroid in the
 * lot: of every row some other centroid is nearer by a factor of at least 1 + 2^-20, see bounds.h.
 * Without ref_r, the row that is farthest from its centroid and the one nearest to a foreign one,
 * mostly two, would speak for the panel; were they not to follow, the row that has gone farthest
 * from its centroid since would.
 *
 * From a screen: |X - C|^2 = |X|^2 - 2 S, S at most the score plus its margin m. `base` of a row is
 * ETA nx^2 - |X|^2 / 2, |X|^2 rounded down as in bounds.h; with v = base + m + S~, S~ the tile's
 * best score, -2 v (1 - 2 ETA) is at most the square of the distance: sum and margin err by a few
 * 2^-24 of nx^2 and of S + m, which is at most (nx^2 + |2 v|) / 2, and both ETAs take off more.
 * Roots are approximate, within 2^-14, and give way by 2^-13. Differences with ref_r err by 2^-24
 * of their terms: reach pays with 3 ETA (distance + ref_r), which is the factor of bounds.h, too,
 * and apart, reach and slip with ETA of their other terms.
 *
 * To single centroids there are as many distances as scores: one root a panel is to do. With
 * w = min over r of -2 v_r (1 - 2 ETA) - ref_r^2 (1 + ETA), S~ now that of the centroid, and
 * R = max ref_r, x^2 >= w + ref_r^2 for all r (the roundings are of terms that the ETAs are parts
 * of), and if w >= 0
 *
 *   x - ref_r >= sqrt(w + ref_r^2) - ref_r >= sqrt(w + R^2) - R,
 *
 * which falls with ref_r; as computed it errs by a few 2^-24 of root and R, and pays with ETA of
 * them. If w < 0, some row may be nearer than it was to its own: that centroid is not apart. Rows
 * that cannot be screened have no say.
 *
 * What else such rows, and padding, seem to be only makes reach larger and apart smaller. A row
 * without a centroid yet has a floor that puts it out of any reach. */
#ifndef FKM_APART_H
#define FKM_APART_H

#include "screen.h"

#include <math.h>

#define FKM_APART_ETA 0x1p-20f
#define FKM_APART_ROOT 0x1p-13f  /* how much approximate roots give way */
#define FKM_APART_LEAST 0x1p-62f /* distances kept are too large by less than this */
#define FKM_APART_UP (1 + 0x1p-22f)
#define FKM_APART_FAR 1e30f /* farther than any row that can be screened */

/* `base` of a row, as a part of nx^2 (rounded up). */
static inline float fkm_apart_share(int32_t dims)
{
    return FKM_APART_ETA - (1 - (float)(3 * (int64_t)dims + 64) * 0x1p-24f) / 2;
}

/* What is left of apart: a tile is out of reach while it is above reach. */
static inline float fkm_apart_left(
    const fkm_row_block *b, const fkm_tiles *t, int32_t panel, int32_t lot)
{
    return b->apart[(int64_t)panel * t->lots + lot] - t->drift[lot];
}

/* Have none of the centroids at positions [first, end) moved? */
static inline bool fkm_all_unmoved(
    const fkm_row_block *b, const fkm_tiles *t, int32_t first, int32_t end)
{
    for (int32_t i = first / t->lot; i < end / t->lot; i++)
        if (b->moved_lot[i])
            return false;
    return true;
}

/* Can no row of the panel have its centroid in the tile? It is left out then: it is out of reach,
 * or nothing has changed between them. */
static inline bool fkm_is_apart(fkm_row_block *b, const fkm_tiles *t, int32_t panel, int32_t tile)
{
    if (b->unmoved[panel] && !b->rivals &&
        fkm_all_unmoved(b, t, tile * t->tile, (tile + 1) * t->tile)) {
        b->spared += t->tile / t->lot;
        return true;
    }
    if (!b->apart_known || t->lot < t->tile)
        return false;
    const float left = fkm_apart_left(b, t, panel, tile);
    if (!(left > b->reach[panel]))
        return false;
    b->spared++;
    b->beyond[panel] = left < b->beyond[panel] ? left : b->beyond[panel];
    return true;
}

/* Keeps what a screen tells of a panel and a tile. least: of the distances less ref, over its rows.
 */
static inline void fkm_keep_apart(
    fkm_row_block *b, const fkm_tiles *t, int32_t panel, int32_t tile, float least)
{
    float drift = t->drift[tile], slip = b->slip[panel];
    b->apart[(int64_t)panel * t->lots + tile] =
        least + drift + slip - FKM_APART_ETA * (fabsf(least) + drift + fabsf(slip)) -
        FKM_APART_LEAST;
}

/* A panel's own tiles are not apart from it. (Of single centroids, see picks.h.) */
static inline void fkm_apart_own(fkm_row_block *b, const fkm_tiles *t, int32_t panel)
{
    const int32_t *own = b->own + (int64_t)panel * FKM_OWN_TILES;
    for (int i = 0; i < FKM_OWN_TILES; i++)
        if (own[i] >= 0)
            b->apart[(int64_t)panel * t->lots + own[i]] = -FKM_APART_FAR;
}

/* Are all lots with a centroid that moved out of the reach that an unmoved panel had in the last
 * pass? It has it still: what was the nearest then is no farther than what set the floors. Then its
 * rows keep their labels, without being screened. */
bool fkm_apart_rests(const fkm_row_block *b, const fkm_tiles *t, int32_t panel);

/* Sets slip and reach of a panel. rise: the most that a ref of its rows has grown by; near: of
 * their distances to some centroid, less ref. */
static inline void fkm_apart_start(fkm_row_block *b, int32_t panel, float rise, float near)
{
    float slip = b->slip[panel];
    slip = b->apart_known ? slip + rise + FKM_APART_ETA * (fabsf(slip) + fabsf(rise)) : 0;
    b->slip[panel] = slip;
    b->reach[panel] = near + slip + FKM_APART_ETA * (fabsf(near) + fabsf(slip));
}

/* At most the distance of a row to any centroid that it was not screened against; rows: of a panel.
 */
float fkm_apart_beyond(const fkm_row_block *b, int32_t row, int32_t rows);

/* When to keep distances: while they spare enough. */
typedef struct fkm_apart {
    bool possible, collect;  /* this pass */
    int64_t spared, seen;    /* pairs of a panel and a lot in this pass that much was known of */
    double least;            /* share of them to be spared */
    double share;            /* that was, in the last pass that knew any */
    int32_t pause, patience; /* passes to go without; doubled when it does not pay */
} fkm_apart;

void fkm_apart_begin(fkm_apart *a);
void fkm_apart_end(fkm_apart *a);
#endif
