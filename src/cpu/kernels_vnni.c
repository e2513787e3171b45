/* AVX-512 VNNI kernels, for rows of 8-bit integers: see bytes_tmpl.h. 32 rows x 12 centroids of
 * 32-bit sums in registers; rows lie along the lanes, four dims are multiplied at a time.
 *
 *   tile    [groups of 4 dims][12 centroids][4]   bytes */
#if defined(__x86_64__)

#include "kernels.h"

#include <immintrin.h>
#include <string.h>

#include "avx512_tmpl.h"
#include "transpose_tmpl.h"

#include "bytes_tmpl.h"
#include "vnni_tmpl.h"

enum { PANEL = BYTES_PANEL, TILE = 12 };

#include "apart_tmpl.h"

#define UNROLL _Pragma("GCC unroll 32")

/* Scores of a tile and a panel: [centroid][row]. */
typedef struct scores {
    int32_t of[TILE][PANEL] __attribute__((aligned(64)));
} scores;

static inline __m512 to_float(__m512i v, float unit)
{
    return _mm512_mul_ps(_mm512_cvtepi32_ps(v), _mm512_set1_ps(unit));
}

/* Hands on what passes the threshold of its row, after the tile's own best has raised the floor. */
static void __attribute__((noinline)) report(fkm_row_block *b, int32_t row0, const fkm_tiles *t,
    int32_t tile, const scores *s, int h, __m512 top, __m512 margin)
{
    const __m512 floor = _mm512_max_ps(_mm512_load_ps(b->floor + row0), _mm512_sub_ps(top, margin));
    const __m512 limit = _mm512_sub_ps(floor, margin);
    _mm512_store_ps(b->floor + row0, floor);
    for (int j = 0; j < TILE; j++) {
        const int32_t *row = s->of[j] + 16 * h;
        const __m512 score = to_float(_mm512_load_si512(row), t->unit[tile]);
        unsigned hits = _mm512_cmp_ps_mask(score, limit, _CMP_GE_OQ);
        for (; hits; hits &= hits - 1) {
            int r = __builtin_ctz(hits);
            fkm_block_candidate(b, row0 + r, t, tile * TILE + j, (float)row[r] * t->unit[tile]);
        }
    }
}

/* The best scores of a tile but for, in some lanes, the row's old centroid. */
static __m512 rivals(const fkm_row_block *b, int32_t row0, float unit, const scores *s, int h,
    __m512 top, __mmask16 old)
{
    const __m512i slot = _mm512_load_si512(b->old_slot + row0);
    __m512 others = _mm512_set1_ps(-FKM_HALF_PAD);
    for (int j = 0; j < TILE; j++) {
        __mmask16 other = _mm512_cmpneq_epi32_mask(slot, _mm512_set1_epi32(j));
        const __m512 score = to_float(_mm512_load_si512(s->of[j] + 16 * h), unit);
        others = _mm512_mask_max_ps(others, other, others, score);
    }
    return _mm512_mask_blend_ps(old, top, others);
}

/* Compares the best scores of 16 rows in a tile with what they have. Returns the distances of rows
 * to the tile less ref, when they are to be kept: see apart.h. */
static __m512 finish(
    fkm_row_block *b, int32_t row0, const fkm_tiles *t, int32_t tile, const scores *s, int h)
{
    __m512i best = _mm512_load_si512(s->of[0] + 16 * h);
    for (int j = 1; j < TILE; j++)
        best = _mm512_max_epi32(best, _mm512_load_si512(s->of[j] + 16 * h));
    const __m512 top = to_float(best, t->unit[tile]);
    __m512 margin =
        _mm512_add_ps(_mm512_load_ps(b->slack + row0), _mm512_set1_ps(t->tile_offset[tile]));
    margin = _mm512_fmadd_ps(
        _mm512_load_ps(b->norm + row0), _mm512_set1_ps(t->tile_slope[tile]), margin);
    margin = _mm512_fmadd_ps(
        _mm512_load_ps(b->residual + row0), _mm512_set1_ps(t->tile_residual[tile]), margin);
    margin =
        _mm512_fmadd_ps(_mm512_load_ps(b->tail + row0), _mm512_set1_ps(t->tile_tail[tile]), margin);
    if (b->rivals) {
        __m512i at = _mm512_load_si512(b->old_tile + row0);
        __mmask16 old = _mm512_cmpeq_epi32_mask(at, _mm512_set1_epi32(tile));
        __m512 others = old ? rivals(b, row0, t->unit[tile], s, h, top, old) : top;
        __m512 second = _mm512_load_ps(b->second + row0);
        _mm512_store_ps(b->second + row0, _mm512_max_ps(second, _mm512_add_ps(others, margin)));
    }
    __m512 limit = _mm512_sub_ps(_mm512_load_ps(b->floor + row0), margin);
    if (_mm512_cmp_ps_mask(top, limit, _CMP_GE_OQ))
        report(b, row0, t, tile, s, h, top, margin);
    if (!b->apart)
        return top;
    const __m512 v = _mm512_add_ps(top, _mm512_add_ps(margin, _mm512_load_ps(b->base + row0)));
    return distances_less_ref(v, b->ref + row0);
}

static inline void screen_tile(fkm_row_block *b, int32_t panel, const fkm_tiles *t, int32_t tile)
{
    const char *x = b->panels + (size_t)panel * fkm_panel_bytes(&fkm_kernels_vnni_u8, t->screened);
    const char *c = t->packed + (size_t)tile * t->tile_bytes;
    const int32_t *start = t->start + (int64_t)tile * TILE;
    const int32_t groups = (t->screened + FKM_GROUP - 1) / FKM_GROUP;
    __m512i low[TILE], high[TILE];
    UNROLL
    for (int j = 0; j < TILE; j++)
        low[j] = high[j] = _mm512_set1_epi32(start[j]);
    add_tile(low, high, x, c, groups, TILE, add_bytes_products);
    scores s;
    UNROLL
    for (int j = 0; j < TILE; j++) {
        _mm512_store_si512(s.of[j], low[j]);
        _mm512_store_si512(s.of[j] + 16, high[j]);
    }
    const __m512 d0 = finish(b, panel * PANEL, t, tile, &s, 0);
    const __m512 d1 = finish(b, panel * PANEL + 16, t, tile, &s, 1);
    if (b->apart)
        fkm_keep_apart(b, t, panel, tile, _mm512_reduce_min_ps(_mm512_min_ps(d0, d1)));
}

#include "tiles_loop_tmpl.h"

static void pack_tile(fkm_tiles *t, int64_t first, const float *c, int32_t bias)
{
    char *out = t->packed + (size_t)(first / TILE) * t->tile_bytes;
    int32_t padded = (t->screened + BYTES_STEP - 1) / BYTES_STEP * BYTES_STEP;
    int8_t g[FKM_BYTES_MOST_DIMS];
    for (int j = 0; j < TILE; j++) {
        t->start[first + j] = round_centroid(g, t, first + j, c + (int64_t)j * t->dims, bias);
        for (int32_t d = 0; d < padded; d += 4)
            memcpy(out + (size_t)d * TILE + 4 * j, g + d, 4);
    }
}

#define BASE fkm_kernels_avx512
#include "calls_tmpl.h"

#define RATE 100
#define QUANTA FKM_BYTES_TOP

#define PICKS false

#define BIAS 0
#define NAME(f) f##_u8
#define TABLE fkm_kernels_vnni_u8
#define ISA "avx512vnni"
#define TAKES FKM_U8
#include "int8_tmpl.h"

#define BIAS SIGNED_BIAS
#define NAME(f) f##_i8
#define TABLE fkm_kernels_vnni_i8
#define ISA "avx512vnni"
#define TAKES FKM_I8
#include "int8_tmpl.h"

#else
typedef int fkm_kernels_vnni_needs_x86_64;
#endif
