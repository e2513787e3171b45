/* Template of what follows the products of a tile and a panel in float vectors, and of the loop
 * over tiles. A panel is two vectors of rows, so that sums lie in acc0 and acc1: [TILE]. Included
 * after defining
 *   V                                   vector of floats
 *   LANES                               floats in it
 *   TILE                                centroids in a tile
 *   V_LOAD(p) V_STORE(p, v) V_SET1(f)
 *   V_ADD V_SUB V_MUL V_MAX V_MIN(a, b)
 *   V_FMA(a, b, c)                      a * b + c
 *   V_GE(a, b)                          bit mask of lanes where a >= b
 *   V_HAS(p, i)                         is one of the LANES integers at p equal to i?
 *   V_ROOT V_LEAST                      see apart_tmpl.h
 * and before the function screen_tile. */

enum { PANEL = 2 * LANES };

#include "apart_tmpl.h"

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

/* Hands every score at or above its row's threshold on. Rare: once in a few tiles and row. */
static void __attribute__((noinline)) report(fkm_row_block *b, int32_t row0, const fkm_tiles *t,
    int32_t first, const float (*score)[PANEL], const float *threshold)
{
    for (int32_t j = 0; j < TILE; j++) {
        for (int32_t h = 0; h < 2; h++) {
            unsigned hits = V_GE(V_LOAD(score[j] + h * LANES), V_LOAD(threshold + h * LANES));
            for (; hits; hits &= hits - 1) {
                int32_t r = h * LANES + __builtin_ctz(hits);
                fkm_block_candidate(b, row0 + r, t, first + j, score[j][r]);
            }
        }
    }
}

/* For rows whose old centroid is in this tile: the best of the others. best: [PANEL], in place. */
static void __attribute__((noinline)) leave_out_old(
    float *best, const fkm_row_block *b, int32_t row0, int32_t tile, const float (*score)[PANEL])
{
    for (int32_t r = 0; r < PANEL; r++) {
        if (b->old_tile[row0 + r] != tile)
            continue;
        best[r] = -FKM_HALF_PAD;
        for (int32_t j = 0; j < TILE; j++)
            if (j != b->old_slot[row0 + r] && score[j][r] > best[r])
                best[r] = score[j][r];
    }
}

/* Keeps what the best scores of a tile tell of its distance, see apart.h; near0, near1: they and
 * their margins. */
static inline void keep_apart(
    fkm_row_block *b, int32_t row0, const fkm_tiles *t, int32_t tile, V near0, V near1)
{
    near0 = V_ADD(near0, V_LOAD(b->base + row0));
    near1 = V_ADD(near1, V_LOAD(b->base + row0 + LANES));
    const V d0 = distances_less_ref(near0, b->ref + row0);
    const V d1 = distances_less_ref(near1, b->ref + row0 + LANES);
    fkm_keep_apart(b, t, row0 / PANEL, tile, V_LEAST(V_MIN(d0, d1)));
}

/* What the scores of a tile are to its panel's rows. */
static inline void finish(
    fkm_row_block *b, int32_t row0, const fkm_tiles *t, int32_t tile, const V *acc0, const V *acc1)
{
    V top0 = acc0[0], top1 = acc1[0];
    UNROLL
    for (int j = 1; j < TILE; j++) {
        top0 = V_MAX(top0, acc0[j]);
        top1 = V_MAX(top1, acc1[j]);
    }
    const V slope = V_SET1(t->tile_slope[tile]), residual = V_SET1(t->tile_residual[tile]);
    const V offset = V_SET1(t->tile_offset[tile]), tail = V_SET1(t->tile_tail[tile]);
    V margin0 = V_ADD(V_LOAD(b->slack + row0), offset);
    V margin1 = V_ADD(V_LOAD(b->slack + row0 + LANES), offset);
    margin0 = V_FMA(V_LOAD(b->norm + row0), slope, margin0);
    margin1 = V_FMA(V_LOAD(b->norm + row0 + LANES), slope, margin1);
    margin0 = V_FMA(V_LOAD(b->residual + row0), residual, margin0);
    margin1 = V_FMA(V_LOAD(b->residual + row0 + LANES), residual, margin1);
    margin0 = V_FMA(V_LOAD(b->tail + row0), tail, margin0);
    margin1 = V_FMA(V_LOAD(b->tail + row0 + LANES), tail, margin1);
    if (b->apart)
        keep_apart(b, row0, t, tile, V_ADD(top0, margin0), V_ADD(top1, margin1));
    V floor0 = V_LOAD(b->floor + row0), floor1 = V_LOAD(b->floor + row0 + LANES);
    const bool hit = V_GE(top0, V_SUB(floor0, margin0)) | V_GE(top1, V_SUB(floor1, margin1));
    const bool old =
        b->rivals && (V_HAS(b->old_tile + row0, tile) || V_HAS(b->old_tile + row0 + LANES, tile));
    float score[TILE][PANEL] __attribute__((aligned(64)));
    float of_row[PANEL] __attribute__((aligned(64)));
    if (hit || old) {
        UNROLL
        for (int j = 0; j < TILE; j++) {
            V_STORE(score[j], acc0[j]);
            V_STORE(score[j] + LANES, acc1[j]);
        }
    }
    if (b->rivals) {
        V others0 = top0, others1 = top1;
        if (old) {
            V_STORE(of_row, top0);
            V_STORE(of_row + LANES, top1);
            leave_out_old(of_row, b, row0, tile, (const float(*)[PANEL])score);
            others0 = V_LOAD(of_row);
            others1 = V_LOAD(of_row + LANES);
        }
        float *second = b->second + row0;
        V_STORE(second, V_MAX(V_LOAD(second), V_ADD(others0, margin0)));
        second += LANES;
        V_STORE(second, V_MAX(V_LOAD(second), V_ADD(others1, margin1)));
    }
    if (hit) {
        /* the tile's own best raises the floor before the others are looked at */
        floor0 = V_MAX(floor0, V_SUB(top0, margin0));
        floor1 = V_MAX(floor1, V_SUB(top1, margin1));
        V_STORE(b->floor + row0, floor0);
        V_STORE(b->floor + row0 + LANES, floor1);
        V_STORE(of_row, V_SUB(floor0, margin0));
        V_STORE(of_row + LANES, V_SUB(floor1, margin1));
        report(b, row0, t, tile * TILE, (const float(*)[PANEL])score, of_row);
    }
}

/* Scores of a panel and a tile, and what comes of them. */
static void screen_tile(fkm_row_block *b, int32_t panel, const fkm_tiles *t, int32_t tile);

#include "tiles_loop_tmpl.h"
