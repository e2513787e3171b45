/* Template of the AMX kernels: 32 rows x 32 centroids at a time in four 16 x 16 tiles of sums.
 *
 * Rows lie along the columns of a tile, so that the maximum over centroids is a vertical max. Per
 * step of 64 bytes of dims two tiles of centroids and two of rows are loaded for four products (16
 * cycles each); the sums are stored to the first-level cache, where the max is taken while the next
 * products run.
 *
 * Layouts, dims padded with zeros to a step:
 *
 *   panel   [steps][2][16 groups of dims][16 rows][4 bytes], then PANEL_MORE bytes
 *   tile    [steps][2][16 centroids][64 bytes of dims]
 *
 * Included once per element type, after defining
 *   STEP              dims in 64 bytes
 *   PANEL_MORE        see above
 *   SUM, STARTED      a tile's sum, and whether it starts at t->start or at 0
 *   SCORES            a vector of what the maximum is taken over, 16 rows
 *   PRODUCTS(d, a, b) the tile instruction
 * and the functions max_scores and to_float(scores, unit); after it
 *   prepare           completes `scores`, of a panel and a tile
 *   scores_of         of 16 rows and a centroid of the tile */
#include "amx_tiles_tmpl.h"
#include "transpose_tmpl.h"

enum { PANEL = 32, TILE = 32, PART = 16 * 64, GROUP_BYTES = 32 << 10 };

/* Sums of a tile and a panel, as the tile registers leave them. */
typedef struct scores {
    SUM of[2][TILE][16] __attribute__((aligned(64))); /* [half of the rows][centroid][row] */
    int32_t panel, tile;
    __m512 unit[2]; /* of the sums of each row, and h~ of each centroid, when they start at 0 */
    const float *half;
} scores;

static inline void prepare(scores *s, const fkm_row_block *b, const fkm_tiles *t);
static inline SCORES scores_of(const scores *s, int h, int j);

/* fkm_block_candidate for some of 16 rows at once, each with a position of its own. Returns which
 * it has taken: not those whose lists are full. */
static inline __mmask16 add_candidates(fkm_row_block *b, int32_t row0, const fkm_tiles *t,
    __mmask16 rows, __m512i position, __m512 score)
{
    const __m512i count = _mm512_load_si512(b->count + row0);
    const __mmask16 taken =
        _mm512_mask_cmplt_epi32_mask(rows, count, _mm512_set1_epi32(FKM_CANDIDATES));
    const __mmask16 real =
        _mm512_mask_cmplt_epi32_mask(taken, position, _mm512_set1_epi32(t->clusters));
    const __m512 zero = _mm512_setzero_ps();
    __m512 m = _mm512_load_ps(b->slack + row0);
    m = _mm512_add_ps(m, _mm512_mask_i32gather_ps(zero, real, position, t->offset, 4));
    m = _mm512_fmadd_ps(_mm512_load_ps(b->norm + row0),
        _mm512_mask_i32gather_ps(zero, real, position, t->slope, 4), m);
    m = _mm512_fmadd_ps(_mm512_load_ps(b->residual + row0),
        _mm512_mask_i32gather_ps(zero, real, position, t->residual, 4), m);
    m = _mm512_fmadd_ps(_mm512_load_ps(b->tail + row0),
        _mm512_mask_i32gather_ps(zero, real, position, t->tail, 4), m);
    const __m512 upper = _mm512_add_ps(score, m), floor = _mm512_load_ps(b->floor + row0);
    const __mmask16 stand = _mm512_mask_cmp_ps_mask(real, upper, floor, _CMP_GE_OQ);
    const __m512i each = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i slot =
        _mm512_add_epi32(_mm512_mullo_epi32(each, _mm512_set1_epi32(FKM_CANDIDATES)), count);
    const int64_t first = (int64_t)row0 * FKM_CANDIDATES;
    _mm512_mask_store_ps(b->floor + row0, stand, _mm512_max_ps(floor, _mm512_sub_ps(score, m)));
    _mm512_mask_i32scatter_epi32(b->position + first, stand, slot, position, 4);
    _mm512_mask_i32scatter_ps(b->upper + first, stand, slot, upper, 4);
    _mm512_mask_store_epi32(b->count + row0, stand, _mm512_add_epi32(count, _mm512_set1_epi32(1)));
    return taken;
}

/* Hands on what passes the threshold of its row, after the tile's own best has raised the floor.
 * Mostly that best is all there is. */
static void __attribute__((noinline))
report(fkm_row_block *b, const fkm_tiles *t, const scores *s, int h, __m512 top, __m512 margin)
{
    const int32_t row0 = s->panel * PANEL + 16 * h, first = s->tile * TILE;
    const __m512 floor = _mm512_max_ps(_mm512_load_ps(b->floor + row0), _mm512_sub_ps(top, margin));
    const __m512 limit = _mm512_sub_ps(floor, margin);
    __m512i which = _mm512_setzero_si512();
    __mmask16 hits[TILE], any = 0, several = 0;
    _mm512_store_ps(b->floor + row0, floor);
    for (int j = 0; j < TILE; j++) {
        hits[j] = _mm512_cmp_ps_mask(to_float(scores_of(s, h, j), t->unit), limit, _CMP_GE_OQ);
        several |= any & hits[j];
        any |= hits[j];
        which = _mm512_mask_set1_epi32(which, hits[j], first + j);
    }
    __mmask16 left = any & ~add_candidates(b, row0, t, any & ~several, which, top);
    for (int j = 0; left && j < TILE; j++) {
        if (!(hits[j] & left))
            continue;
        float row[16];
        _mm512_storeu_ps(row, to_float(scores_of(s, h, j), t->unit));
        for (unsigned some = hits[j] & left; some; some &= some - 1) {
            int r = __builtin_ctz(some);
            fkm_block_candidate(b, row0 + r, t, first + j, row[r]);
        }
    }
}

/* Upper bounds of the scores of all centroids in a tile but, in some lanes, the row's old one. */
static __m512 rivals(
    const fkm_row_block *b, const fkm_tiles *t, const scores *s, int h, __m512 top, __mmask16 old)
{
    const __m512i slot = _mm512_load_si512(b->old_slot + s->panel * PANEL + 16 * h);
    __m512 others = _mm512_set1_ps(-FKM_HALF_PAD);
    for (int j = 0; j < TILE; j++) {
        __mmask16 other = _mm512_cmpneq_epi32_mask(slot, _mm512_set1_epi32(j));
        const __m512 score = to_float(scores_of(s, h, j), t->unit);
        others = _mm512_mask_max_ps(others, other, others, score);
    }
    return _mm512_mask_blend_ps(old, top, others);
}

static inline void finish(fkm_row_block *b, const fkm_tiles *t, const scores *s)
{
    const __m512 slope = _mm512_set1_ps(t->tile_slope[s->tile]);
    const __m512 residual = _mm512_set1_ps(t->tile_residual[s->tile]);
    const __m512 offset = _mm512_set1_ps(t->tile_offset[s->tile]);
    const __m512 tail = _mm512_set1_ps(t->tile_tail[s->tile]);
    for (int h = 0; h < 2; h++) {
        SCORES top0 = scores_of(s, h, 0), top1 = scores_of(s, h, 1);
        for (int j = 2; j < TILE; j += 2) {
            top0 = max_scores(top0, scores_of(s, h, j));
            top1 = max_scores(top1, scores_of(s, h, j + 1));
        }
        const __m512 top = to_float(max_scores(top0, top1), t->unit);
        const int32_t row = s->panel * PANEL + 16 * h;
        __m512 margin = _mm512_add_ps(_mm512_load_ps(b->slack + row), offset);
        margin = _mm512_fmadd_ps(_mm512_load_ps(b->norm + row), slope, margin);
        margin = _mm512_fmadd_ps(_mm512_load_ps(b->residual + row), residual, margin);
        margin = _mm512_fmadd_ps(_mm512_load_ps(b->tail + row), tail, margin);
        if (b->rivals) {
            __m512i tile = _mm512_load_si512(b->old_tile + row);
            __mmask16 old = _mm512_cmpeq_epi32_mask(tile, _mm512_set1_epi32(s->tile));
            __m512 others = old ? rivals(b, t, s, h, top, old) : top;
            __m512 second = _mm512_load_ps(b->second + row);
            second = _mm512_max_ps(second, _mm512_add_ps(others, margin));
            _mm512_store_ps(b->second + row, second);
        }
        __m512 limit = _mm512_sub_ps(_mm512_load_ps(b->floor + row), margin);
        if (_mm512_cmp_ps_mask(top, limit, _CMP_GE_OQ))
            report(b, t, s, h, top, margin);
    }
}

static inline void start_sums(const fkm_tiles *t, int32_t tile)
{
    if (!STARTED) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        return;
    }
    const SUM *start = (const SUM *)t->start + (int64_t)tile * TILE * 16;
    _tile_loadd(0, start, 64);
    _tile_loadd(1, start, 64);
    _tile_loadd(2, start + 256, 64);
    _tile_loadd(3, start + 256, 64);
}

static inline void multiply(const char *panel, const char *tile, int32_t steps)
{
    for (int32_t k = 0; k < steps; k++, panel += 2 * PART, tile += 2 * PART) {
        _tile_loadd(4, tile, 64);
        _tile_loadd(6, panel, 64);
        PRODUCTS(0, 4, 6);
        _tile_loadd(7, panel + PART, 64);
        PRODUCTS(1, 4, 7);
        _tile_loadd(5, tile + PART, 64);
        PRODUCTS(2, 5, 6);
        PRODUCTS(3, 5, 7);
    }
}

/* The products under way: the max of one is taken after the next has been issued, so that it hides
 * behind it. */
typedef struct products {
    scores buffer[2];
    int turn, waiting;
} products;

static inline void step(
    products *q, fkm_row_block *b, const fkm_tiles *t, int32_t panel, int32_t tile)
{
    const int32_t steps = (t->screened + STEP - 1) / STEP;
    scores *s = &q->buffer[q->turn];
    s->panel = panel;
    s->tile = tile;
    start_sums(t, tile);
    multiply(b->panels + (size_t)panel * ((size_t)steps * 2 * PART + PANEL_MORE),
        t->packed + (size_t)tile * t->tile_bytes, steps);
    prepare(s, b, t);
    if (q->waiting)
        finish(b, t, &q->buffer[q->turn ^ 1]);
    _tile_stored(0, s->of[0][0], 64);
    _tile_stored(1, s->of[1][0], 64);
    _tile_stored(2, s->of[0][16], 64);
    _tile_stored(3, s->of[1][16], 64);
    q->waiting = 1;
    q->turn ^= 1;
}

/* Panels in groups that stay in the first-level cache while the tiles go by. */
static void screen(
    fkm_row_block *b, int32_t panel, int32_t panels, const fkm_tiles *t, int32_t begin, int32_t end)
{
    const size_t panel_bytes = (size_t)((t->screened + STEP - 1) / STEP) * 2 * PART + PANEL_MORE;
    const int32_t fit = (int32_t)(GROUP_BYTES / panel_bytes), group = fit > 0 ? fit : 1;
    products q;
    q.turn = q.waiting = 0;
    configure();
    for (int32_t p = panel; begin == 0 && p < panel + panels; p++)
        for (int i = 0; i < FKM_OWN_TILES; i++)
            if (b->own[p * FKM_OWN_TILES + i] >= 0)
                step(&q, b, t, p, b->own[p * FKM_OWN_TILES + i]);
    for (int32_t g = panel; g < panel + panels; g += group) {
        int32_t g_end = panel + panels - g < group ? panel + panels : g + group;
        for (int32_t i = begin; i < end; i++)
            for (int32_t p = g; p < g_end; p++)
                if (!fkm_is_own(b->own + p * FKM_OWN_TILES, i))
                    step(&q, b, t, p, i);
    }
    if (q.waiting)
        finish(b, t, &q.buffer[q.turn ^ 1]);
    _tile_release();
}
