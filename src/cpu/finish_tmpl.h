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
 *   V_EQUAL(p, i)                       bit mask of those of the LANES integers at p that are i
 *   V_STORE_SOME(p, mask, v)            floats in the mask
 *   V_FILL_SOME(p, mask, i)             integers in the mask become i
 *   V_COUNT(p, mask)                    integers in the mask become larger by one
 *   V_ROOT V_LEAST                      see apart_tmpl.h
 * and before the function screen_tile. */

enum { PANEL = 2 * LANES };

#include "apart_tmpl.h"

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

/* m of LANES rows from parts of a centroid, or of all of a tile's: see screen.h. */
static inline V margins(const fkm_row_block *b, int32_t row, const float *slope,
    const float *residual, const float *tail, const float *offset)
{
    V m = V_ADD(V_LOAD(b->slack + row), V_SET1(*offset));
    m = V_FMA(V_LOAD(b->norm + row), V_SET1(*slope), m);
    m = V_FMA(V_LOAD(b->residual + row), V_SET1(*residual), m);
    return V_FMA(V_LOAD(b->tail + row), V_SET1(*tail), m);
}

/* The scores of a panel and a tile. */
typedef struct scores {
    float of[TILE][PANEL] __attribute__((aligned(64)));
} scores;

/* Appends a centroid to the lists of LANES rows, those in `rows`; upper: the bounds of its scores.
 * Lists are mostly of equal length. */
static inline void append(fkm_row_block *b, int32_t row0, const fkm_tiles *t, int32_t position,
    unsigned rows, const float *score, V upper)
{
    int32_t *count = b->count + row0;
    while (rows) {
        const int32_t n = count[__builtin_ctz(rows)];
        const int64_t at = row0 + (int64_t)n * b->stride;
        const unsigned same = rows & V_EQUAL(count, n);
        rows &= ~same;
        if (n < FKM_CANDIDATES) {
            V_FILL_SOME(b->position + at, same, position);
            V_STORE_SOME(b->upper + at, same, upper);
            V_COUNT(count, same);
            continue;
        }
        for (unsigned full = same; full; full &= full - 1) {
            const int32_t r = __builtin_ctz(full);
            fkm_block_candidate(b, row0 + r, t, position, score[r]);
        }
    }
}

/* Keeps every score at or above its row's limit, as fkm_block_candidate does. Rare: once in a few
 * tiles and row. */
static void __attribute__((noinline)) report(fkm_row_block *b, int32_t row0, const fkm_tiles *t,
    int32_t tile, const scores *s, const float *limits)
{
    for (int32_t h = 0; h < 2; h++, row0 += LANES) {
        const V limit = V_LOAD(limits + h * LANES);
        for (int32_t j = 0, p = tile * TILE; j < TILE; j++, p++) {
            const V score = V_LOAD(s->of[j] + h * LANES);
            unsigned hits = V_GE(score, limit);
            if (!hits || t->index[p] < 0 || t->twin[p])
                continue;
            const V m = margins(b, row0, &t->slope[p], &t->residual[p], &t->tail[p], &t->offset[p]);
            const V upper = V_ADD(score, m), floor = V_LOAD(b->floor + row0);
            hits &= V_GE(upper, floor);
            V_STORE(b->floor + row0, V_MAX(floor, V_SUB(score, m)));
            append(b, row0, t, p, hits, s->of[j] + h * LANES, upper);
        }
    }
}

/* For rows whose old centroid is in this tile: the best of the others. best: [PANEL], in place. */
static void __attribute__((noinline))
leave_out_old(float *best, const fkm_row_block *b, int32_t row0, int32_t tile, const scores *s)
{
    for (int32_t r = 0; r < PANEL; r++) {
        if (b->old_tile[row0 + r] != tile)
            continue;
        best[r] = -FKM_HALF_PAD;
        for (int32_t j = 0; j < TILE; j++)
            if (j != b->old_slot[row0 + r] && s->of[j][r] > best[r])
                best[r] = s->of[j][r];
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

static inline V tile_margins(const fkm_row_block *b, int32_t row, const fkm_tiles *t, int32_t tile)
{
    return margins(b, row, &t->tile_slope[tile], &t->tile_residual[tile], &t->tile_tail[tile],
        &t->tile_offset[tile]);
}

/* Can a tile with scores up to top0 and top1 have a candidate, or is there anything else to be
 * known of them? */
static inline bool matters(
    const fkm_row_block *b, int32_t row0, const fkm_tiles *t, int32_t tile, V top0, V top1)
{
    const int32_t row1 = row0 + LANES;
    const V limit0 = V_SUB(V_LOAD(b->floor + row0), tile_margins(b, row0, t, tile));
    const V limit1 = V_SUB(V_LOAD(b->floor + row1), tile_margins(b, row1, t, tile));
    return b->apart || b->rivals || (V_GE(top0, limit0) | V_GE(top1, limit1));
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
    const V margin0 = tile_margins(b, row0, t, tile);
    const V margin1 = tile_margins(b, row0 + LANES, t, tile);
    if (b->apart)
        keep_apart(b, row0, t, tile, V_ADD(top0, margin0), V_ADD(top1, margin1));
    V floor0 = V_LOAD(b->floor + row0), floor1 = V_LOAD(b->floor + row0 + LANES);
    const bool hit = V_GE(top0, V_SUB(floor0, margin0)) | V_GE(top1, V_SUB(floor1, margin1));
    const bool old = b->rivals && (V_EQUAL(b->old_tile + row0, tile) |
                                      V_EQUAL(b->old_tile + row0 + LANES, tile));
    scores s;
    float of_row[PANEL] __attribute__((aligned(64)));
    if (hit || old) {
        UNROLL
        for (int j = 0; j < TILE; j++) {
            V_STORE(s.of[j], acc0[j]);
            V_STORE(s.of[j] + LANES, acc1[j]);
        }
    }
    if (b->rivals) {
        V others0 = top0, others1 = top1;
        if (old) {
            V_STORE(of_row, top0);
            V_STORE(of_row + LANES, top1);
            leave_out_old(of_row, b, row0, tile, &s);
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
        report(b, row0, t, tile, &s, of_row);
    }
}

/* Scores of a panel and a tile, and what comes of them. */
static void screen_tile(fkm_row_block *b, int32_t panel, const fkm_tiles *t, int32_t tile);

#include "tiles_loop_tmpl.h"
