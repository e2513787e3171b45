/* Template of the AMX kernels: 32 rows x 32 centroids at a time in four 16 x 16 tiles of sums.
 *
 * Rows lie along the columns of a tile, so that the maximum over centroids is a vertical max. Per
 * step of 64 bytes of dims two tiles of centroids and two of rows are loaded for four products (16
 * cycles each). All else is to be done while the unit multiplies: the sums of one pair of panel and
 * tile are stored between the first products of the next, each just before its register is needed
 * again (stores in a row would fill the store queue, and the unit would wait for them), and their
 * maxima are taken in quarters between the steps that follow.
 *
 * Layouts, dims padded with zeros to a step:
 *
 *   panel   [steps][2][16 groups of dims][16 rows][4 bytes], then PANEL_MORE bytes
 *   tile    [steps][2][16 centroids][64 bytes of dims]
 *
 * Included once per element type, after defining
 *   STEP              dims in 64 bytes
 *   PANEL_MORE        see above
 *   SUM               a tile's sum
 *   PRODUCTS(d, a, b) the tile instruction
 *   terms             what turns sums of 16 rows and a tile into scores
 *   terms_of          finds it
 *   SCORES            a vector of what the maximum is taken over, 16 rows
 *   scores_of         of the sums of a centroid
 *   scores_of_row     as floats, of the sums of a row and 16 centroids; the same bits
 *   max_scores, to_float
 *   part_of, weight_of   scores as products of a part, of the sums of a centroid, and a weight of
 * 16 rows, times `by`; WITHOUT_HALF: but for -h~ */
#include "amx_tiles_tmpl.h"
#include "avx512_tmpl.h"
#include "transpose_tmpl.h"

enum { FEW_ROWS = 2, WHOLE_SHARE = 3 }; /* of centroids that are near, for picking to pay */
enum { PANEL = 32, TILE = 32, PART = 16 * 64, GROUP_BYTES = 16 << 10, QUARTER = TILE / 2 };

#include "apart_tmpl.h"
#include "bytes.h"
#include "picks.h"

/* A panel and a tile. */
typedef struct pair {
    int32_t panel, tile;
} pair;

/* Their sums, as the tile registers leave them. */
typedef struct sums {
    SUM of[2][TILE][16] __attribute__((aligned(64))); /* [half of the rows][centroid][row] */
} sums;

/* Where in fkm_tiles the centroid at a position is; -1: padding of picked ones. */
static inline int32_t real_of(const fkm_tiles *t, int32_t position)
{
    return t->real ? t->real[position] : position;
}

static inline __m512i real_of_some(const fkm_tiles *t, __mmask16 some, __m512i position)
{
    if (!t->real)
        return position;
    return _mm512_mask_i32gather_epi32(position, some, position, t->real, 4);
}

/* fkm_block_candidate for some of 16 rows at once, each with a position of its own, all in the tile
 * whose margins these are. Returns which it has taken: not those whose lists are full. */
static inline __mmask16 add_candidates(fkm_row_block *b, int32_t row0, const fkm_tiles *t,
    __mmask16 rows, __m512i position, __m512 score, __m512 margin)
{
    const __m512i count = _mm512_load_si512(b->count + row0);
    const __mmask16 taken =
        _mm512_mask_cmplt_epi32_mask(rows, count, _mm512_set1_epi32(FKM_CANDIDATES));
    position = real_of_some(t, taken, position);
    const __mmask16 real = /* not padding, which may be -1 */
        _mm512_mask_cmplt_epu32_mask(taken, position, _mm512_set1_epi32(t->clusters));
    const __m512 upper = _mm512_add_ps(score, margin);
    __mmask16 left = real;
    for (int32_t slot = 0; left; slot++) {
        const __mmask16 here = _mm512_cmpeq_epi32_mask(count, _mm512_set1_epi32(slot));
        const int64_t at = row0 + (int64_t)slot * b->stride;
        _mm512_mask_store_epi32(b->position + at, left & here, position);
        _mm512_mask_store_ps(b->upper + at, left & here, upper);
        left &= ~here;
    }
    _mm512_mask_store_epi32(b->count + row0, real, _mm512_add_epi32(count, _mm512_set1_epi32(1)));
    return taken;
}

/* Hands on what passes the threshold of a row, after the tile's own best has raised the floor.
 * Mostly that best is all there is. */
static inline void report_row(fkm_row_block *b, const fkm_tiles *t, const sums *s, pair of, int h,
    int r, float top, float margin)
{
    const __m512i column =
        _mm512_set_epi32(240, 224, 208, 192, 176, 160, 144, 128, 112, 96, 80, 64, 48, 32, 16, 0);
    const int32_t row = of.panel * PANEL + 16 * h + r, first = of.tile * TILE;
    const float floor = top - margin > b->floor[row] ? top - margin : b->floor[row];
    const terms e = terms_of(b, t, of.panel, of.tile, h);
    const __m512 limit = _mm512_set1_ps(floor - margin);
    float score[TILE];
    uint32_t hits = 0;
    b->floor[row] = floor;
    for (int j = 0; j < TILE; j += 16) {
        const __m512i sum = _mm512_i32gather_epi32(column, s->of[h][j] + r, 4);
        const __m512 v = scores_of_row(&e, sum, j, r);
        _mm512_storeu_ps(score + j, v);
        hits |= (uint32_t)_mm512_cmp_ps_mask(v, limit, _CMP_GE_OQ) << j;
    }
    /* there is one: the best has the same bits as in `top` */
    if ((hits & (hits - 1)) == 0 && b->count[row] < FKM_CANDIDATES) {
        const int j = __builtin_ctz(hits);
        const int64_t at = row + (int64_t)b->count[row] * b->stride;
        const int32_t position = real_of(t, first + j);
        b->position[at] = position;
        b->upper[at] = score[j] + margin;
        b->count[row] += position >= 0 && position < t->clusters;
        return;
    }
    for (; hits; hits &= hits - 1) {
        const int j = __builtin_ctz(hits);
        fkm_block_candidate(b, row, t, real_of(t, first + j), score[j]);
    }
}

/* The same of 16 rows at once. */
static void report_rows(
    fkm_row_block *b, const fkm_tiles *t, const sums *s, pair of, int h, __m512 top, __m512 margin)
{
    const int32_t row0 = of.panel * PANEL + 16 * h, first = of.tile * TILE;
    const __m512 floor = _mm512_max_ps(_mm512_load_ps(b->floor + row0), _mm512_sub_ps(top, margin));
    const __m512 limit = _mm512_sub_ps(floor, margin);
    const terms e = terms_of(b, t, of.panel, of.tile, h);
    const __m512i one = _mm512_set1_epi32(1);
    __m512i which = _mm512_setzero_si512(), count = which, position = _mm512_set1_epi32(first);
    __mmask16 hits[TILE];
    _mm512_store_ps(b->floor + row0, floor);
    for (int j = 0; j < TILE; j++) {
        const __m512 score = to_float(&e, scores_of(&e, s->of[h][j], j));
        hits[j] = _mm512_cmp_ps_mask(score, limit, _CMP_GE_OQ);
        which = _mm512_mask_mov_epi32(which, hits[j], position);
        count = _mm512_mask_add_epi32(count, hits[j], count, one);
        position = _mm512_add_epi32(position, one);
    }
    const __mmask16 any = _mm512_test_epi32_mask(count, count);
    const __mmask16 single = _mm512_cmpeq_epi32_mask(count, one);
    const __mmask16 left = any & ~add_candidates(b, row0, t, single, which, top, margin);
    for (int j = 0; left && j < TILE; j++) {
        if (!(hits[j] & left))
            continue;
        float row[16];
        _mm512_storeu_ps(row, to_float(&e, scores_of(&e, s->of[h][j], j)));
        for (unsigned some = hits[j] & left; some; some &= some - 1) {
            int r = __builtin_ctz(some);
            fkm_block_candidate(b, row0 + r, t, real_of(t, first + j), row[r]);
        }
    }
}

/* rows: those whose best score passes. Where few do, one by one is quicker. */
static void __attribute__((noinline)) report(fkm_row_block *b, const fkm_tiles *t, const sums *s,
    pair of, int h, __m512 top, __m512 margin, unsigned rows)
{
    if (__builtin_popcount(rows) > FEW_ROWS) {
        report_rows(b, t, s, of, h, top, margin);
        return;
    }
    float tops[16], margins[16];
    _mm512_storeu_ps(tops, top);
    _mm512_storeu_ps(margins, margin);
    for (; rows; rows &= rows - 1) {
        const int r = __builtin_ctz(rows);
        report_row(b, t, s, of, h, r, tops[r], margins[r]);
    }
}

/* Upper bounds of the scores of all centroids in a tile but, in some lanes, the row's old one. */
static __m512 __attribute__((noinline)) rivals(const fkm_row_block *b, const fkm_tiles *t,
    const sums *s, pair of, int h, __m512 top, __mmask16 old)
{
    const __m512i slot = _mm512_load_si512(b->old_slot + of.panel * PANEL + 16 * h);
    const terms e = terms_of(b, t, of.panel, of.tile, h);
    __m512 others = _mm512_set1_ps(-FKM_HALF_PAD);
    for (int j = 0; j < TILE; j++) {
        __mmask16 other = _mm512_cmpneq_epi32_mask(slot, _mm512_set1_epi32(j));
        const __m512 score = to_float(&e, scores_of(&e, s->of[h][j], j));
        others = _mm512_mask_max_ps(others, other, others, score);
    }
    return _mm512_mask_blend_ps(old, top, others);
}

/* The best of half a tile, from centroid `first` on, of 16 rows. */
static inline SCORES best_of(const terms *e, const sums *s, int h, int first)
{
    SCORES best[2];
    best[0] = scores_of(e, s->of[h][first], first);
    best[1] = scores_of(e, s->of[h][first + 1], first + 1);
#pragma GCC unroll 16
    for (int j = first + 2; j < first + QUARTER; j++)
        best[j & 1] = max_scores(best[j & 1], scores_of(e, s->of[h][j], j));
    return max_scores(best[0], best[1]);
}

/* Margins of 16 rows of a panel for all of a tile. */
static inline __m512 margins_of(const fkm_row_block *b, const fkm_tiles *t, pair of, int h)
{
    const int32_t row = of.panel * PANEL + 16 * h;
    const __m512 slope = _mm512_set1_ps(t->tile_slope[of.tile]);
    const __m512 residual = _mm512_set1_ps(t->tile_residual[of.tile]);
    const __m512 tail = _mm512_set1_ps(t->tile_tail[of.tile]);
    __m512 margin =
        _mm512_add_ps(_mm512_load_ps(b->slack + row), _mm512_set1_ps(t->tile_offset[of.tile]));
    margin = _mm512_fmadd_ps(_mm512_load_ps(b->norm + row), slope, margin);
    margin = _mm512_fmadd_ps(_mm512_load_ps(b->residual + row), residual, margin);
    return _mm512_fmadd_ps(_mm512_load_ps(b->tail + row), tail, margin);
}

/* Compares the best scores of 16 rows in a tile with what they have. Returns the distances of rows
 * to the tile less ref, when they are to be kept: see apart.h. */
static inline __m512 finish(
    fkm_row_block *b, const fkm_tiles *t, const sums *s, pair of, int h, __m512 top)
{
    const int32_t row = of.panel * PANEL + 16 * h;
    const __m512 margin = margins_of(b, t, of, h);
    if (b->rivals) {
        __m512i tile = _mm512_load_si512(b->old_tile + row);
        __mmask16 old = _mm512_cmpeq_epi32_mask(tile, _mm512_set1_epi32(of.tile));
        __m512 others = __builtin_expect(old, 0) ? rivals(b, t, s, of, h, top, old) : top;
        __m512 second = _mm512_load_ps(b->second + row);
        second = _mm512_max_ps(second, _mm512_add_ps(others, margin));
        _mm512_store_ps(b->second + row, second);
    }
    __m512 limit = _mm512_sub_ps(_mm512_load_ps(b->floor + row), margin);
    const __mmask16 hits = _mm512_cmp_ps_mask(top, limit, _CMP_GE_OQ);
    if (__builtin_expect(hits, 0))
        report(b, t, s, of, h, top, margin, hits);
    if (!b->apart || t->lot == 1)
        return top;
    const __m512 v = _mm512_add_ps(top, _mm512_add_ps(margin, _mm512_load_ps(b->base + row)));
    return distances_less_ref(v, b->ref + row);
}

/* The least of each of 16 vectors. */
static inline __m512 least_of_each(const __m512 v[16])
{
    __m512 four[4];
    for (int i = 0; i < 4; i++) { /* of each quarter, then of four vectors */
        const __m512 *q = v + 4 * i;
        const __m512 a =
            _mm512_min_ps(_mm512_unpacklo_ps(q[0], q[1]), _mm512_unpackhi_ps(q[0], q[1]));
        const __m512 c =
            _mm512_min_ps(_mm512_unpacklo_ps(q[2], q[3]), _mm512_unpackhi_ps(q[2], q[3]));
        const __m512d p = _mm512_castps_pd(a), r = _mm512_castps_pd(c);
        four[i] = _mm512_min_ps(
            _mm512_castpd_ps(_mm512_unpacklo_pd(p, r)), _mm512_castpd_ps(_mm512_unpackhi_pd(p, r)));
    }
    const __m512 a = _mm512_min_ps(
        _mm512_shuffle_f32x4(four[0], four[1], 0x44), _mm512_shuffle_f32x4(four[0], four[1], 0xee));
    const __m512 c = _mm512_min_ps(
        _mm512_shuffle_f32x4(four[2], four[3], 0x44), _mm512_shuffle_f32x4(four[2], four[3], 0xee));
    return _mm512_min_ps(_mm512_shuffle_f32x4(a, c, 0x88), _mm512_shuffle_f32x4(a, c, 0xdd));
}

/* -2 v (1 - 2 ETA) - ref^2 (1 + ETA) of apart.h, but for the score, of 16 rows; of those that
 * cannot be screened: far. *live: the others. */
static inline __m512 squares_less_ref(
    const fkm_row_block *b, const fkm_tiles *t, pair of, int h, __mmask16 *live)
{
    const int32_t row = of.panel * PANEL + 16 * h;
    const __m512 ref = _mm512_load_ps(b->ref + row), zero = _mm512_setzero_ps();
    const __m512 part = _mm512_add_ps(_mm512_load_ps(b->base + row), margins_of(b, t, of, h));
    const __m512 away = _mm512_mul_ps(part, _mm512_set1_ps(-2 * (1 - 2 * FKM_APART_ETA)));
    const __m512 taken = _mm512_mul_ps(ref, _mm512_set1_ps(1 + FKM_APART_ETA));
    *live = _mm512_cmp_ps_mask(_mm512_load_ps(b->residual + row), zero, _CMP_GE_OQ);
    return _mm512_mask_mov_ps(
        _mm512_set1_ps(FKM_APART_FAR), *live, _mm512_fnmadd_ps(taken, ref, away));
}

/* apart of 16 centroids from w and R. */
static inline __m512 to_apart(__m512 least, __m512 most_ref, __m512 drift, __m512 slip)
{
    const __m512 eta = _mm512_set1_ps(FKM_APART_ETA), far = _mm512_set1_ps(FKM_APART_FAR);
    const __m512 root = _mm512_sqrt_ps(_mm512_fmadd_ps(most_ref, most_ref, least));
    const __m512 gap =
        _mm512_fnmadd_ps(_mm512_add_ps(root, most_ref), eta, _mm512_sub_ps(root, most_ref));
    const __m512 size =
        _mm512_add_ps(_mm512_add_ps(_mm512_abs_ps(gap), drift), _mm512_abs_ps(slip));
    const __m512 kept = _mm512_fnmadd_ps(size, eta, _mm512_add_ps(gap, _mm512_add_ps(drift, slip)));
    const __mmask16 beyond = _mm512_cmp_ps_mask(least, _mm512_setzero_ps(), _CMP_GE_OQ);
    return _mm512_mask_sub_ps(
        _mm512_sub_ps(_mm512_setzero_ps(), far), beyond, kept, _mm512_set1_ps(FKM_APART_LEAST));
}

/* w of apart.h for 16 centroids of a panel's tile, from `first` on. */
static inline __m512 least_squares(const sums *s, const terms e[2], int first, const __m512 rest[2],
    const __mmask16 live[2], const float *half)
{
    const float two = 2 * (1 - 2 * FKM_APART_ETA);
    const __m512 w0 = weight_of(&e[0], _mm512_set1_ps(-two));
    const __m512 w1 = weight_of(&e[1], _mm512_set1_ps(-two));
    __m512 v[16];
    for (int j = 0; j < 16; j++) {
        const __m512 p0 = part_of(&e[0], s->of[0][first + j], first + j);
        const __m512 p1 = part_of(&e[1], s->of[1][first + j], first + j);
        v[j] = _mm512_min_ps(_mm512_mask3_fmadd_ps(p0, w0, rest[0], live[0]),
            _mm512_mask3_fmadd_ps(p1, w1, rest[1], live[1]));
    }
    const __m512 least = least_of_each(v);
    if (!WITHOUT_HALF) /* the same for all rows */
        return least;
    return _mm512_fmadd_ps(_mm512_loadu_ps(half + first), _mm512_set1_ps(two), least);
}

/* Lots of one: keeps the distances of the panel to each centroid of the tile. */
static void __attribute__((noinline))
keep_each(fkm_row_block *b, const fkm_tiles *t, const sums *s, pair of)
{
    const terms e[2] = {terms_of(b, t, of.panel, of.tile, 0), terms_of(b, t, of.panel, of.tile, 1)};
    const float *ref = b->ref + of.panel * PANEL, *half = t->half + (int64_t)of.tile * TILE;
    const __m512 most_ref = _mm512_set1_ps(
        _mm512_reduce_max_ps(_mm512_max_ps(_mm512_load_ps(ref), _mm512_load_ps(ref + 16))));
    const __m512 slip = _mm512_set1_ps(b->slip[of.panel]);
    float *to = b->apart + (int64_t)of.panel * t->lots;
    __mmask16 live[2];
    const __m512 rest[2] = {
        squares_less_ref(b, t, of, 0, &live[0]), squares_less_ref(b, t, of, 1, &live[1])};
    for (int first = 0; first < TILE; first += 16) {
        const __m512 least = least_squares(s, e, first, rest, live, half);
        const int32_t at = of.tile * TILE + first;
        if (!t->real) {
            const __m512 drift = _mm512_loadu_ps(t->drift + at);
            _mm512_storeu_ps(to + at, to_apart(least, most_ref, drift, slip));
            continue;
        }
        const __m512i real = _mm512_loadu_si512(t->real + at);
        const __mmask16 some = _mm512_cmpge_epi32_mask(real, _mm512_setzero_si512());
        const __m512 drift = _mm512_mask_i32gather_ps(_mm512_setzero_ps(), some, real, t->drift, 4);
        _mm512_mask_i32scatter_ps(to, some, real, to_apart(least, most_ref, drift, slip), 4);
    }
}

/* By the distances of both halves of the rows. */
static inline void keep_apart(
    fkm_row_block *b, const fkm_tiles *t, const sums *s, pair of, __m512 first, __m512 second)
{
    if (!b->apart)
        return;
    if (t->lot == 1)
        keep_each(b, t, s, of);
    else
        fkm_keep_apart(b, t, of.panel, of.tile, _mm512_reduce_min_ps(_mm512_min_ps(first, second)));
}

/* Centroids come from the second-level cache and are not to drive panels from the first. */
static inline void multiply(const char *panel, const char *tile, int32_t step)
{
    panel += (size_t)step * 2 * PART;
    tile += (size_t)step * 2 * PART;
    _tile_stream_loadd(4, tile, 64);
    _tile_loadd(6, panel, 64);
    PRODUCTS(0, 4, 6);
    _tile_loadd(7, panel + PART, 64);
    PRODUCTS(1, 4, 7);
    _tile_stream_loadd(5, tile + PART, 64);
    PRODUCTS(2, 5, 6);
    PRODUCTS(3, 5, 7);
}

/* The first step, and between its products what the registers held before. */
static inline void store_and_multiply(sums *s, const char *panel, const char *tile)
{
    _tile_stream_loadd(4, tile, 64);
    _tile_loadd(6, panel, 64);
    _tile_stored(0, s->of[0][0], 64);
    _tile_zero(0);
    PRODUCTS(0, 4, 6);
    _tile_loadd(7, panel + PART, 64);
    _tile_stored(1, s->of[1][0], 64);
    _tile_zero(1);
    PRODUCTS(1, 4, 7);
    _tile_stream_loadd(5, tile + PART, 64);
    _tile_stored(2, s->of[0][QUARTER], 64);
    _tile_zero(2);
    PRODUCTS(2, 5, 6);
    _tile_stored(3, s->of[1][QUARTER], 64);
    _tile_zero(3);
    PRODUCTS(3, 5, 7);
}

/* Multiplies the panel and tile `now`, and sees to `last`, whose sums the registers hold. */
static inline void step(
    sums *s, fkm_row_block *b, const fkm_tiles *t, size_t panel_bytes, pair last, pair now)
{
    const char *x = b->panels + (size_t)now.panel * panel_bytes;
    const char *c = t->packed + (size_t)now.tile * t->tile_bytes;
    const int32_t steps = (t->screened + STEP - 1) / STEP;
    const terms e0 = terms_of(b, t, last.panel, last.tile, 0);
    const terms e1 = terms_of(b, t, last.panel, last.tile, 1);
    store_and_multiply(s, x, c);
    if (steps > 1)
        multiply(x, c, 1);
    const SCORES top0 = max_scores(best_of(&e0, s, 0, 0), best_of(&e0, s, 0, QUARTER));
    if (steps > 2)
        multiply(x, c, 2);
    SCORES top1 = best_of(&e1, s, 1, 0);
    if (steps > 3)
        multiply(x, c, 3);
    top1 = max_scores(top1, best_of(&e1, s, 1, QUARTER));
    const __m512 near0 = finish(b, t, s, last, 0, to_float(&e0, top0));
    const __m512 near1 = finish(b, t, s, last, 1, to_float(&e1, top1));
    keep_apart(b, t, s, last, near0, near1);
    for (int32_t k = 4; k < steps; k++)
        multiply(x, c, k);
}

/* Multiplies the first pair of a screen: the registers hold nothing yet. */
static void __attribute__((noinline))
start(const fkm_row_block *b, const fkm_tiles *t, size_t panel_bytes, pair now)
{
    const int32_t steps = (t->screened + STEP - 1) / STEP;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int32_t k = 0; k < steps; k++)
        multiply(b->panels + (size_t)now.panel * panel_bytes,
            t->packed + (size_t)now.tile * t->tile_bytes, k);
}

/* Sees to the last pair of a screen. */
static void __attribute__((noinline))
conclude(sums *s, fkm_row_block *b, const fkm_tiles *t, pair last)
{
    _tile_stored(0, s->of[0][0], 64);
    _tile_stored(1, s->of[1][0], 64);
    _tile_stored(2, s->of[0][QUARTER], 64);
    _tile_stored(3, s->of[1][QUARTER], 64);
    __m512 near[2];
    for (int h = 0; h < 2; h++) {
        const terms e = terms_of(b, t, last.panel, last.tile, h);
        const SCORES top = max_scores(best_of(&e, s, h, 0), best_of(&e, s, h, QUARTER));
        near[h] = finish(b, t, s, last, h, to_float(&e, top));
    }
    keep_apart(b, t, s, last, near[0], near[1]);
}

/* The pairs as they go by: one is in the registers. */
typedef struct parade {
    sums s;
    pair last; /* panel -1: none */
    size_t panel_bytes;
} parade;

static inline void next(
    parade *q, fkm_row_block *b, const fkm_tiles *t, int32_t panel, int32_t tile)
{
    const pair now = {panel, tile};
    if (q->last.panel < 0)
        start(b, t, q->panel_bytes, now);
    else
        step(&q->s, b, t, q->panel_bytes, q->last, now);
    q->last = now;
}

/* The tiles of the rows' own centroids: the floors that they set tell which others to look at. */
static void screen_own(
    parade *q, fkm_row_block *b, int32_t panel, int32_t panels, const fkm_tiles *t)
{
    float *apart = b->apart;
    b->apart = NULL;
    for (int32_t p = panel; p < panel + panels; p++)
        for (int i = 0; i < FKM_OWN_TILES; i++)
            if (b->own[p * FKM_OWN_TILES + i] >= 0)
                next(q, b, t, p, b->own[p * FKM_OWN_TILES + i]);
    b->apart = apart;
    if (!apart)
        return;
    if (q->last.panel >= 0)
        conclude(&q->s, b, t, q->last);
    q->last.panel = -1;
    for (int32_t p = panel; p < panel + panels; p++)
        start_panel(b, t, p);
}

/* ---- picked centroids: see picks.h ---- */

/* The largest of a margin's parts over the tiles that centroids are from. */
static inline float most_of(const float *margin, __m512i tile0, __m512i tile1)
{
    const __m512 a = _mm512_i32gather_ps(tile0, margin, 4),
                 c = _mm512_i32gather_ps(tile1, margin, 4);
    return _mm512_reduce_max_ps(_mm512_max_ps(a, c));
}

/* What goes with 16 centroids of picked tiles, from place `first` on; position -1: padding. */
static inline void pick_terms(fkm_picks *k, int64_t first, const fkm_tiles *t, __m512i position)
{
    const __mmask16 real = _mm512_cmpge_epi32_mask(position, _mm512_setzero_si512());
    const __m512i low = _mm512_set1_epi32(PAD_SCORE);
    const __m512 pad = _mm512_set1_ps(FKM_HALF_PAD), zero = _mm512_setzero_ps();
    _mm512_storeu_si512(k->real + first, position);
    _mm512_storeu_ps(k->half + first, _mm512_mask_i32gather_ps(pad, real, position, t->half, 4));
    _mm512_storeu_ps(k->centroid_quantum + first,
        _mm512_mask_i32gather_ps(zero, real, position, t->centroid_quantum, 4));
    _mm512_storeu_si512(
        k->start + first, _mm512_mask_i32gather_epi32(low, real, position, t->start, 4));
}

/* Fills picked tile i with the n centroids at positions[], which have room for a tile. */
static void pick(fkm_picks *k, int32_t i, const fkm_tiles *t, const int32_t *positions, int32_t n)
{
    const int32_t steps = (t->screened + STEP - 1) / STEP;
    char *to = k->packed + (size_t)i * t->tile_bytes;
    for (int32_t j = 0; j < n; j++) {
        const int32_t at = positions[j];
        const char *from =
            t->packed + (size_t)(at / TILE) * t->tile_bytes + (size_t)(at % TILE) * 64;
        for (int32_t step = 0; step < steps; step++) {
            const size_t by = (size_t)step * 2 * PART;
            _mm512_storeu_si512(to + by + (size_t)j * 64, _mm512_loadu_si512(from + by));
        }
    }
    for (int32_t j = n; j < TILE; j++)
        for (int32_t step = 0; step < steps; step++)
            _mm512_storeu_si512(
                to + (size_t)step * 2 * PART + (size_t)j * 64, _mm512_setzero_si512());
    const __m512i none = _mm512_set1_epi32(-1);
    const __m512i p0 = _mm512_mask_loadu_epi32(none, first_lanes(n), positions);
    const __m512i p1 = _mm512_mask_loadu_epi32(none, first_lanes(n - 16), positions + 16);
    pick_terms(k, (int64_t)i * TILE, t, p0);
    pick_terms(k, (int64_t)i * TILE + 16, t, p1);
    const __m512i first = _mm512_set1_epi32(n > 0 ? positions[0] / TILE : 0);
    const __m512i t0 = _mm512_mask_srai_epi32(first, first_lanes(n), p0, 5);
    const __m512i t1 = _mm512_mask_srai_epi32(first, first_lanes(n - 16), p1, 5);
    k->slope[i] = most_of(t->tile_slope, t0, t1);
    k->residual[i] = most_of(t->tile_residual, t0, t1);
    k->offset[i] = most_of(t->tile_offset, t0, t1);
    k->tail[i] = most_of(t->tile_tail, t0, t1);
}

/* Lists the positions of tiles [begin, end) that are not out of the panel's reach. *least: the
 * nearest of those that are. Returns how many. */
static int32_t list_near(const fkm_row_block *b, const fkm_tiles *t, int32_t panel, int32_t begin,
    int32_t end, int32_t *near, float *least)
{
    const float *apart = b->apart + (int64_t)panel * t->lots;
    const __m512 reach = _mm512_set1_ps(b->reach[panel]), far = _mm512_set1_ps(FKM_APART_FAR);
    const bool unmoved = b->unmoved[panel] && !b->rivals;
    const __m512i ascending =
        _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    __m512 beyond = far;
    int32_t n = 0;
    for (int32_t at = begin * TILE; at < end * TILE; at += 16) {
        const __m512 left =
            _mm512_sub_ps(_mm512_loadu_ps(apart + at), _mm512_loadu_ps(t->drift + at));
        const __mmask16 out = _mm512_cmp_ps_mask(left, reach, _CMP_GT_OQ);
        __mmask16 some = (__mmask16)~out;
        beyond = _mm512_mask_min_ps(beyond, out, beyond, left);
        if (unmoved) {
            const __m128i moved =
                _mm_loadu_si128((const __m128i *)(const void *)(b->moved_lot + at));
            some &= _mm_test_epi8_mask(moved, moved);
        }
        const __m512i position = _mm512_add_epi32(_mm512_set1_epi32(at), ascending);
        some &= _mm512_cmplt_epi32_mask(position, _mm512_set1_epi32(t->clusters));
        _mm512_mask_compressstoreu_epi32(near + n, some, position);
        n += __builtin_popcount(some);
    }
    *least = _mm512_reduce_min_ps(beyond);
    return n;
}

/* Multiplies the panel and picked tile before, and leaves these for later: tiles are loaded only
 * once what is stored there has left the store queue. */
static inline void next_picked(
    parade *q, pair *ahead, fkm_row_block *b, const fkm_tiles *t, pair now)
{
    if (ahead->panel >= 0)
        next(q, b, t, ahead->panel, ahead->tile);
    *ahead = now;
}

static void conclude_picked(parade *q, pair *ahead, fkm_row_block *b, const fkm_tiles *t)
{
    next_picked(q, ahead, b, t, (pair){-1, -1});
    if (q->last.panel >= 0)
        conclude(&q->s, b, t, q->last);
    q->last.panel = -1;
}

/* Which panels have so many centroids in reach that picking does not pay? What they have found by
 * their own will be found again, in the tiles. */
static void choose_whole(fkm_row_block *b, int32_t panel, int32_t panels, const fkm_tiles *t)
{
    for (int32_t p = panel; p < panel + panels; p++) {
        float least;
        const int32_t n =
            b->apart_known ? list_near(b, t, p, 0, t->count, b->picks->near, &least) : t->clusters;
        b->picks->whole[p] = n > t->clusters / WHOLE_SHARE;
        if (b->picks->whole[p])
            memset(b->count + p * PANEL, 0, PANEL * sizeof *b->count);
    }
}

/* The rows' own centroids set the floors. */
static void screen_own_picks(
    parade *q, fkm_row_block *b, int32_t panel, int32_t panels, const fkm_tiles *t)
{
    const fkm_tiles picked = fkm_picked_tiles(b->picks, t);
    fkm_row_block own = *b;
    pair ahead = {-1, -1};
    own.apart = NULL;
    own.old_tile = b->picks->tile;
    own.old_slot = b->picks->slot;
    for (int32_t p = panel; p < panel + panels; p++) {
        const int32_t i = p % FKM_OWN_PICKS;
        const int32_t n = fkm_pick_own(b->picks, i, b, t, p, b->picks->near);
        pick(b->picks, i, t, b->picks->near, n);
        next_picked(q, &ahead, &own, &picked, (pair){p, i});
    }
    conclude_picked(q, &ahead, &own, &picked);
    for (int32_t p = panel; p < panel + panels; p++)
        start_panel(b, t, p);
    choose_whole(b, panel, panels, t);
}

/* Screens panels by the centroids in their reach but their own, whose distances are made far for
 * that. Those are in picked tiles of their own: no place in these is one of theirs. */
static void screen_near(parade *q, fkm_row_block *b, int32_t panel, int32_t panels,
    const fkm_tiles *t, int32_t begin, int32_t end)
{
    const fkm_tiles picked = fkm_picked_tiles(b->picks, t);
    fkm_row_block near = *b;
    pair ahead = {-1, -1};
    int32_t i = FKM_OWN_PICKS;
    near.old_tile = b->picks->tile;
    near.old_slot = b->picks->slot;
    for (int32_t p = panel; p < panel + panels; p++) {
        if (b->picks->whole[p])
            continue;
        float least;
        fkm_mark_own(b, t, p, FKM_APART_FAR);
        const int32_t n = list_near(b, t, p, begin, end, b->picks->near, &least);
        fkm_mark_own(b, t, p, -FKM_APART_FAR);
        b->beyond[p] = least < b->beyond[p] ? least : b->beyond[p];
        b->spared += (end - begin) * TILE - n;
        for (int32_t first = 0; first < n; first += TILE) {
            pick(b->picks, i, t, b->picks->near + first, n - first < TILE ? n - first : TILE);
            next_picked(q, &ahead, &near, &picked, (pair){p, i});
            i = i == FKM_PICK_TILES - 1 ? FKM_OWN_PICKS : i + 1;
        }
    }
    conclude_picked(q, &ahead, &near, &picked);
}

static inline bool is_left_out(fkm_row_block *b, const fkm_tiles *t, int32_t panel, int32_t tile)
{
    if (b->apart && t->lot == 1)
        return !b->picks->whole[panel];
    return fkm_is_own(b->own + panel * FKM_OWN_TILES, tile) || fkm_is_apart(b, t, panel, tile);
}

/* Panels in groups that stay in the first-level cache while the tiles go by. */
static void screen_groups(parade *q, fkm_row_block *b, int32_t panel, int32_t panels,
    const fkm_tiles *t, int32_t begin, int32_t end)
{
    const int32_t fit = (int32_t)(GROUP_BYTES / q->panel_bytes), group = fit > 0 ? fit : 1;
    for (int32_t g = panel; g < panel + panels; g += group) {
        int32_t g_end = panel + panels - g < group ? panel + panels : g + group;
        for (int32_t i = begin; i < end; i++)
            for (int32_t p = g; p < g_end; p++)
                if (!is_left_out(b, t, p, i))
                    next(q, b, t, p, i);
    }
    if (q->last.panel >= 0)
        conclude(&q->s, b, t, q->last);
    q->last.panel = -1;
}

static void screen(
    fkm_row_block *b, int32_t panel, int32_t panels, const fkm_tiles *t, int32_t begin, int32_t end)
{
    const bool picks = b->apart && t->lot == 1;
    parade q;
    q.last.panel = -1;
    q.panel_bytes = (size_t)((t->screened + STEP - 1) / STEP) * 2 * PART + PANEL_MORE;
    configure();
    if (begin == 0)
        (picks ? screen_own_picks : screen_own)(&q, b, panel, panels, t);
    screen_groups(&q, b, panel, panels, t, begin, end);
    if (picks)
        screen_near(&q, b, panel, panels, t, begin, end);
    _tile_release();
}
