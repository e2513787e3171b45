/* AMX kernels that screen rows of any kind rounded to 8-bit integers: half the time of bf16, and a
 * quarter of its digits. See amx_tmpl.h and screen.h.
 *
 * A row has a quantum of its own, q_i = its largest coordinate / 127, so have the 32 centroids of a
 * tile, which are alike in norm: q_j. The sum of products fits 32 bits (FKM_COARSE_MOST_DIMS), and
 * the score (q_i q_j) sum - h~ is a float once, in the epilogue: three roundings.
 *
 *   panel   as in amx_tmpl.h, then the quanta of its rows: [32] float32 */
#if defined(__x86_64__)

#include "kernels.h"

#include <immintrin.h>
#include <string.h>

#define STEP 64
#define PANEL_MORE 128
#define SUM int32_t
#define STARTED 0
#define SCORES __m512
#define PRODUCTS(d, a, b) _tile_dpbssd(d, a, b)

static inline SCORES max_scores(SCORES a, SCORES b)
{
    return _mm512_max_ps(a, b);
}

static inline __m512 to_float(SCORES v, float unit)
{
    (void)unit; /* it is in them already */
    return v;
}

#include "amx_tmpl.h"

static inline void prepare(scores *s, const fkm_row_block *b, const fkm_tiles *t)
{
    const size_t elements = (size_t)((t->screened + STEP - 1) / STEP) * 2 * PART;
    const char *quanta = b->panels + (size_t)s->panel * (elements + PANEL_MORE) + elements;
    const __m512 quantum = _mm512_set1_ps(t->tile_quantum[s->tile]);
    s->unit[0] = _mm512_mul_ps(_mm512_load_ps(quanta), quantum);
    s->unit[1] = _mm512_mul_ps(_mm512_load_ps(quanta + 64), quantum);
    s->half = t->half + (int64_t)s->tile * TILE;
}

static inline SCORES scores_of(const scores *s, int h, int j)
{
    const __m512 sum = _mm512_cvtepi32_ps(_mm512_load_si512(s->of[h][j]));
    return _mm512_fmsub_ps(sum, s->unit[h], _mm512_set1_ps(s->half[j]));
}

#define TOP 127
#define LEAST_TOP 0x1p-100f /* of a row or a tile: below it all is zero */

static __mmask16 first_lanes(int64_t n)
{
    unsigned mask = n >= 16 ? 0xffff : n <= 0 ? 0 : (1u << n) - 1;
    return (__mmask16)mask;
}

/* 16 coordinates in the frame; shift NULL: as they are. */
static inline __m512 framed(const float *x, __mmask16 m, const float *shift, __m512 scale)
{
    const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x), scale);
    return shift ? _mm512_sub_ps(v, _mm512_maskz_loadu_ps(m, shift)) : v;
}

/* The largest magnitude of a row's coordinates; adds up their squares. */
static inline float measure(
    const float *x, int32_t dims, const float *shift, __m512 scale, __m512 *square)
{
    __m512 top = _mm512_setzero_ps();
    for (int32_t t = 0; t < dims; t += 16) {
        const __m512 v = framed(x + t, first_lanes(dims - t), shift ? shift + t : NULL, scale);
        *square = _mm512_fmadd_ps(v, v, *square);
        top = _mm512_max_ps(top, _mm512_abs_ps(v));
    }
    return _mm512_reduce_max_ps(top);
}

/* A quantum and its inverse. Rounded products with the inverse are at most 127 (1 + 2^-22): 127 as
 * integers. */
typedef struct quantum {
    float size, share;
} quantum;

static inline quantum quantum_of(float top)
{
    quantum q = {1, 0};
    if (top > LEAST_TOP) {
        q.size = top / TOP;
        q.share = TOP / top;
    }
    return q;
}

/* Rounds 64 coordinates to integers; adds up squared residuals. */
static inline __m512i round_step(
    const float *x, int64_t live, const float *shift, __m512 scale, quantum q, __m512 *residual)
{
    const __m512 share = _mm512_set1_ps(q.share), size = _mm512_set1_ps(q.size);
    __m128i part[4];
    for (int h = 0; h < 4; h++) {
        const float *mu = shift ? shift + 16 * h : NULL;
        const __m512 v = framed(x + 16 * h, first_lanes(live - 16 * h), mu, scale);
        const __m512i g = _mm512_cvtps_epi32(_mm512_mul_ps(v, share));
        const __m512 rest = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(g), size, v);
        *residual = _mm512_fmadd_ps(rest, rest, *residual);
        part[h] = _mm512_cvtepi32_epi8(g);
    }
    __m512i out = _mm512_castsi128_si512(part[0]);
    out = _mm512_inserti32x4(out, part[1], 1);
    out = _mm512_inserti32x4(out, part[2], 2);
    return _mm512_inserti32x4(out, part[3], 3);
}

static void pack(void *panel, float *square, float *residual, const float *const *x, int32_t rows,
    int32_t dims, const float *shift, float scale)
{
    const __m512 s = _mm512_set1_ps(scale);
    const int32_t steps = (dims + STEP - 1) / STEP;
    float *quanta = (float *)(void *)((char *)panel + (size_t)steps * 2 * PART);
    for (int half = 0; half < 2; half++) {
        __m512 residuals[16];
        quantum q[16];
        for (int r = 0; r < 16; r++) {
            const int32_t row = 16 * half + r;
            __m512 squares = residuals[r] = _mm512_setzero_ps();
            q[r] = quantum_of(row < rows ? measure(x[row], dims, shift, s, &squares) : 0);
            square[row] = _mm512_reduce_add_ps(squares);
            quanta[row] = q[r].size;
        }
        for (int32_t t = 0; t < dims; t += STEP) {
            __m512i m[16];
            for (int r = 0; r < 16; r++) {
                const int32_t row = 16 * half + r;
                m[r] = _mm512_setzero_si512();
                if (row < rows)
                    m[r] = round_step(x[row] + t, dims - t, shift + t, s, q[r], &residuals[r]);
            }
            transpose(m);
            char *out = (char *)panel + (size_t)(t / STEP * 2 + half) * PART;
            for (int r = 0; r < 16; r++)
                _mm512_store_si512(out + 64 * r, m[r]);
        }
        for (int r = 0; r < 16; r++)
            residual[16 * half + r] = _mm512_reduce_add_ps(residuals[r]);
    }
}

static void pack_tile(fkm_tiles *t, int64_t first, const float *c)
{
    const __m512 one = _mm512_set1_ps(1);
    const int32_t dims = t->screened;
    char *out = t->packed + (size_t)(first / TILE) * t->tile_bytes;
    float top = 0;
    for (int j = 0; j < TILE; j++) {
        __m512 square = _mm512_setzero_ps();
        const float most = measure(c + (int64_t)j * dims, dims, NULL, one, &square);
        top = most > top ? most : top;
    }
    const quantum q = quantum_of(top);
    t->tile_quantum[first / TILE] = q.size;
    for (int j = 0; j < TILE; j++) {
        __m512 rest = _mm512_setzero_ps();
        for (int32_t d = 0; d < dims; d += STEP) {
            __m512i v = round_step(c + (int64_t)j * dims + d, dims - d, NULL, one, q, &rest);
            char *part = out + (size_t)(d / STEP * 2 + j / 16) * PART;
            _mm512_storeu_si512(part + 64 * (j % 16), v);
        }
        t->residual[first + j] = _mm512_reduce_add_ps(rest);
    }
}

#define BASE fkm_kernels_avx512
#include "calls_tmpl.h"

const fkm_kernels fkm_kernels_amx_s8 = {
    .isa = "amxint8",
    .panel = PANEL,
    .tile = TILE,
    .item = 1,
    .dim_step = STEP,
    .panel_more = PANEL_MORE,
    .rate = 700,
    .low = true,
    .named = true,
    .widen = widen,
    .pack = pack,
    .pack_tile = pack_tile,
    .screen = screen,
    .rotate = rotate,
    .dot = dot,
    .canonical = canonical,
    .add_row = add_row,
    .mean_row = mean_row,
    .add_squares = add_squares,
};

#else
typedef int fkm_kernels_amx_s8_needs_x86_64;
#endif
