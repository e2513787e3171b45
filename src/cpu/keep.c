/* What is kept of rows: see keep.h. */
#include "keep.h"

#include "../base/checked.h"
#include "pack.h"

/* Of more data than this, what is kept takes at most MOST_KEPT as much memory. */
#define MUCH_DATA ((int64_t)256 << 20)
#define MOST_KEPT 0.6

/* Bytes a row: labels and bounds, which the store does not hold; order, labels by position, ref. */
#define OTHER_BYTES 12
#define ORDER_BYTES 12

/* Share of the rows' bytes that distances to single centroids may take, and the least bytes of a
 * packed centroid for picking to be quicker than multiplying. */
#define PICKS_SHARE 3
#define PICKS_LEAST_BYTES 192

/* Distances to tiles that are worth their memory whatever the rows take. */
#define FEW_DISTANCES ((int64_t)64 << 20)

/* What a panel of rows may take, and takes so far. */
typedef struct budget {
    int64_t most, used;
} budget;

static bool take(budget *b, int64_t bytes)
{
    if (b->used + bytes > b->most)
        return false;
    b->used += bytes;
    return true;
}

/* With the figures of its rows. */
static int64_t with_figures(const fkm_kernels *k, size_t panel_bytes)
{
    return (int64_t)panel_bytes + k->panel * 3 * (int64_t)sizeof(float);
}

/* The largest panels that the store may have to hold (keeps_panels in assign.c) and that fit. Where
 * those of all dims do not, there is no room for coarse ones instead, which are rarely taken:
 * distances are worth more. */
static size_t choose_panels(budget *b, const fkm_kernels *k, int32_t dims)
{
    const fkm_kernels *coarse = k->low ? NULL : fkm_kernels_coarse(k, dims);
    const int32_t most = fkm_head_most(k, dims);
    const size_t head = most > 0 ? fkm_panel_bytes(k, most) : 0;
    const size_t lower = coarse ? fkm_panel_bytes(coarse, dims) : 0;
    const size_t sizes[] = {
        k->low ? fkm_panel_bytes(k, dims) : 0, head > lower ? head : lower, lower, head};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i] > 0 && take(b, with_figures(k, sizes[i])))
            return sizes[i];
    return 0;
}

/* Distances of a panel to lots of so many centroids, or the tiles of finer kernels, whichever are
 * more. */
static int32_t lots_of(const fkm_kernels *k, int32_t clusters, int32_t lot)
{
    const int32_t tile = k->finer ? k->finer->tile : k->tile;
    return (int32_t)fkm_max_i64(
        fkm_round_up(clusters, k->tile) / lot, fkm_round_up(clusters, tile) / tile);
}

/* What those take: with slip and reach. */
static int64_t distance_bytes(const fkm_kernels *k, int32_t clusters, int32_t lot)
{
    return (lots_of(k, clusters, lot) + 2) * (int64_t)sizeof(float);
}

/* Centroids that panels keep a distance to in common: one where kernels can pick single ones, and
 * that takes a fair part of the rows; else those of a tile, where that takes no more than the rows
 * do, or little at all. (They save time in any case: a distance is read in a fraction of what a
 * tile takes.) rows: bytes of a panel's. */
static int32_t choose_lot(
    budget *b, const fkm_kernels *k, int64_t rows, int64_t panels, int32_t clusters, int32_t dims)
{
    const int64_t each = distance_bytes(k, clusters, 1);
    const int64_t bytes = distance_bytes(k, clusters, k->tile);
    const bool worth = k->picks && dims * k->item >= PICKS_LEAST_BYTES;
    if (worth && each <= rows / PICKS_SHARE && take(b, each))
        return 1;
    const bool few = fkm_mul_sat(panels, bytes) <= FEW_DISTANCES;
    return (few || bytes <= rows) && take(b, bytes) ? k->tile : 0;
}

/* Are distances to single centroids worth it, and is there room for them where coarse panels take
 * less than those there is room for? */
static bool each_beside_coarse(
    const fkm_keep *keep, const fkm_kernels *k, int64_t rows, int32_t clusters, int32_t dims)
{
    const fkm_kernels *coarse = fkm_kernels_coarse(k, dims);
    if (keep->lot == 0 || !coarse || !coarse->picks || dims * coarse->item < PICKS_LEAST_BYTES)
        return false;
    const int64_t each = distance_bytes(coarse, clusters, 1);
    const int64_t room = (int64_t)keep->store.panel_bytes + 4 * (int64_t)keep->store.lots;
    return each <= rows / PICKS_SHARE && (int64_t)fkm_panel_bytes(coarse, dims) + each <= room;
}

fkm_keep fkm_keep_of(
    const fkm_kernels *k, int64_t rows, int32_t clusters, int32_t dims, fkm_dtype t)
{
    const int64_t row = dims * (int64_t)fkm_dtype_size(t), panel = row * k->panel;
    const bool much = fkm_mul_sat(rows, row) > MUCH_DATA;
    budget b = {.most = much ? (int64_t)((double)panel * MOST_KEPT) : INT64_MAX};
    fkm_keep out = {.store = {.panel = k->panel}};
    b.used = (int64_t)k->panel * (OTHER_BYTES + ORDER_BYTES);
    out.store.panel_bytes = choose_panels(&b, k, dims);
    out.heads = fkm_head_most(k, dims) > 0 &&
                out.store.panel_bytes >= fkm_panel_bytes(k, fkm_head_most(k, dims));
    out.coarse = fkm_kernels_coarse(k, dims) &&
                 out.store.panel_bytes >= fkm_panel_bytes(fkm_kernels_coarse(k, dims), dims);
    out.store.tails = out.store.panel_bytes > 0 && (k->bytes || out.heads);
    out.lot = choose_lot(&b, k, panel, rows / k->panel, clusters, dims);
    out.store.lots = out.lot ? lots_of(k, clusters, out.lot) : 0;
    out.each = out.lot == 1 || each_beside_coarse(&out, k, panel, clusters, dims);
    return out;
}
