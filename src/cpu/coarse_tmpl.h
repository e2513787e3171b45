/* Rows and centroids of any kind rounded to integers times a quantum: one of the row, q_i, and one
 * of the centroid, q_j. The score is a float once, in the epilogue, sum q_i q_j - h~ in any order:
 * three roundings. The sum of products, in 32 bits, is exact:
 *
 *   8 bits    |g| <= 127 a coordinate, and dims at most FKM_COARSE_MOST_DIMS
 *   16 bits   |g| <= 32767 a coordinate and, by length, 45000 before it is rounded, which adds
 *             sqrt(dims) / 2 <= 512; float32 arithmetic less than 1 %. Any part of a sum is at most
 *             the product of lengths, by Cauchy-Schwarz, and 46000^2 < 2^31.
 *
 * For inclusion by files that are compiled for AVX-512, after defining COARSE_BITS, 8 or 16.
 *
 *   panel   [steps][2][16 words of dims][16 rows][4 bytes], then the quanta: [32] float32 */
#ifndef FKM_COARSE_TMPL_H
#define FKM_COARSE_TMPL_H

#include "kernels.h"

#include "avx512_tmpl.h"
#include "transpose_tmpl.h"

#include <float.h>
#include <string.h>

enum { COARSE_STEP = 64 * 8 / COARSE_BITS, COARSE_PART = 16 * 64, COARSE_QUANTA = 32 * 4 };

#if COARSE_BITS == 8
#define TOP 127
#define LENGTH FLT_MAX
#else
#define TOP 32767
#define LENGTH 45000
#endif
/* Of a row or a centroid: below it all is zero. Squares of coordinates that matter do not
 * underflow; a product of quanta may, and then is off by 2^-150, which is less than 2^-119 in a
 * score: margins are not below nx rc >= LEAST_TOP * FKM_NORM_TINY. */
#define LEAST_TOP 0x1p-50f

/* 16 coordinates in the frame; shift NULL: as they are. */
static inline __m512 framed(const float *x, __mmask16 m, const float *shift, __m512 scale)
{
    const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x), scale);
    return shift ? _mm512_sub_ps(v, _mm512_maskz_loadu_ps(m, shift)) : v;
}

/* Of a row: sums of squares and largest magnitudes of its coordinates, 16 of each. ahead: a row to
 * fetch meanwhile, or NULL. */
static inline void measure(const float *x, int32_t dims, const float *shift, __m512 scale,
    __m512 *squares, __m512 *tops, const float *ahead)
{
    __m512 square = _mm512_setzero_ps(), top = square;
    for (int32_t t = 0; t < dims; t += 16) {
        if (ahead)
            __builtin_prefetch(ahead + t);
        const __m512 v = framed(x + t, first_lanes(dims - t), shift ? shift + t : NULL, scale);
        square = _mm512_fmadd_ps(v, v, square);
        top = _mm512_max_ps(top, _mm512_abs_ps(v));
    }
    *squares = square;
    *tops = top;
}

/* Lane i of what is returned is OP over the lanes of v[i]; v: [16], lost. */
#define OVER_LANES(OP, v)                                                                          \
    do {                                                                                           \
        for (int i = 0; i < 8; i++)                                                                \
            v[i] = OP(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]),                                  \
                _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));                                       \
        for (int i = 0; i < 4; i++)                                                                \
            v[i] = OP(_mm512_castpd_ps(_mm512_unpacklo_pd(                                         \
                          _mm512_castps_pd(v[2 * i]), _mm512_castps_pd(v[2 * i + 1]))),            \
                _mm512_castpd_ps(_mm512_unpackhi_pd(                                               \
                    _mm512_castps_pd(v[2 * i]), _mm512_castps_pd(v[2 * i + 1]))));                 \
        for (int n = 2; n > 0; n /= 2)                                                             \
            for (int i = 0; i < n; i++)                                                            \
                v[i] = OP(_mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0x88),                      \
                    _mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0xdd));                           \
    } while (0)

static inline __m512 sums_of_lanes(__m512 v[16])
{
    OVER_LANES(_mm512_add_ps, v);
    return v[0];
}

static inline __m512 tops_of_lanes(__m512 v[16])
{
    OVER_LANES(_mm512_max_ps, v);
    return v[0];
}

/* Quanta and their inverses, of 16 rows. Rounded products with the inverse exceed TOP by 2^-22 of
 * it at most: they are TOP as integers. */
typedef struct quanta {
    float size[16], share[16];
} quanta;

static inline void set_quanta(quanta *q, __m512 top, __m512 square)
{
    const __m512 one = _mm512_set1_ps(1);
    const __mmask16 some = _mm512_cmp_ps_mask(top, _mm512_set1_ps(LEAST_TOP), _CMP_GT_OQ);
    const __m512 of_top = _mm512_div_ps(top, _mm512_set1_ps(TOP));
    const __m512 of_length = _mm512_div_ps(_mm512_sqrt_ps(square), _mm512_set1_ps(LENGTH));
    const __m512 size = _mm512_mask_max_ps(one, some, of_length, of_top);
    _mm512_storeu_ps(q->size, size);
    _mm512_storeu_ps(q->share, _mm512_maskz_div_ps(some, one, size));
}

#if COARSE_BITS == 8
/* Integers, a quarter of a step each, side by side. */
static inline __m512i join(const __m512i g[4])
{
    __m512i out = _mm512_castsi128_si512(_mm512_cvtepi32_epi8(g[0]));
    out = _mm512_inserti32x4(out, _mm512_cvtepi32_epi8(g[1]), 1);
    out = _mm512_inserti32x4(out, _mm512_cvtepi32_epi8(g[2]), 2);
    return _mm512_inserti32x4(out, _mm512_cvtepi32_epi8(g[3]), 3);
}
#else
/* Half a step each. */
static inline __m512i join(const __m512i g[2])
{
    const __m512i low = _mm512_castsi256_si512(_mm512_cvtepi32_epi16(g[0]));
    return _mm512_inserti64x4(low, _mm512_cvtepi32_epi16(g[1]), 1);
}
#endif

/* Rounds COARSE_STEP coordinates to integers, raised by `bias`, in quanta q of row r; adds up
 * squared residuals. */
static inline __m512i round_step(const float *x, int64_t live, const float *shift, __m512 scale,
    const quanta *q, int r, int32_t bias, __m512 *residual)
{
    const __m512i raise = _mm512_set1_epi32(bias);
    const __m512 share = _mm512_set1_ps(q->share[r]), size = _mm512_set1_ps(q->size[r]);
    __m512i part[COARSE_STEP / 16];
    for (int h = 0; h < COARSE_STEP / 16; h++) {
        const float *mu = shift ? shift + 16 * h : NULL;
        const __m512 v = framed(x + 16 * h, first_lanes(live - 16 * h), mu, scale);
        const __m512i g = _mm512_cvtps_epi32(_mm512_mul_ps(v, share));
        const __m512 rest = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(g), size, v);
        *residual = _mm512_fmadd_ps(rest, rest, *residual);
        part[h] = _mm512_add_epi32(g, raise);
    }
    return join(part);
}

static inline void pack_coarse(void *panel, float *square, float *residual, const void *const *x,
    int32_t rows, int32_t dims, const float *shift, float scale, int32_t bias,
    const void *const *ahead)
{
    const __m512 s = _mm512_set1_ps(scale);
    const int32_t steps = (dims + COARSE_STEP - 1) / COARSE_STEP;
    float *sizes = (float *)(void *)((char *)panel + (size_t)steps * 2 * COARSE_PART);
    for (int half = 0; half < 2; half++) {
        __m512 residuals[16], squares[16], tops[16];
        quanta q;
        for (int r = 0; r < 16; r++) {
            const int32_t row = 16 * half + r;
            residuals[r] = squares[r] = tops[r] = _mm512_setzero_ps();
            if (row < rows)
                measure(x[row], dims, shift, s, &squares[r], &tops[r], ahead ? ahead[row] : NULL);
        }
        const __m512 sum = sums_of_lanes(squares);
        set_quanta(&q, tops_of_lanes(tops), sum);
        _mm512_storeu_ps(square + 16 * half, sum);
        memcpy(sizes + 16 * half, q.size, sizeof q.size);
        for (int32_t t = 0; t < dims; t += COARSE_STEP) {
            __m512i m[16];
            for (int r = 0; r < 16; r++) {
                const int32_t row = 16 * half + r;
                m[r] = _mm512_setzero_si512();
                if (row < rows)
                    m[r] = round_step((const float *)x[row] + t, dims - t, shift + t, s, &q, r,
                        bias, &residuals[r]);
            }
            transpose(m);
            char *out = (char *)panel + (size_t)(t / COARSE_STEP * 2 + half) * COARSE_PART;
            for (int r = 0; r < 16; r++)
                _mm512_store_si512(out + 64 * r, m[r]);
        }
        _mm512_storeu_ps(residual + 16 * half, sums_of_lanes(residuals));
    }
}

/* Those of `count` <= 16 centroids, c: [count][dims]; shared: the largest for each. */
static inline void set_centroid_quanta(
    quanta *q, const float *c, int count, int32_t dims, bool shared)
{
    __m512 squares[16], tops[16];
    for (int j = 0; j < 16; j++) {
        squares[j] = tops[j] = _mm512_setzero_ps();
        if (j < count)
            measure(
                c + (int64_t)j * dims, dims, NULL, _mm512_set1_ps(1), &squares[j], &tops[j], NULL);
    }
    __m512 top = tops_of_lanes(tops), square = sums_of_lanes(squares);
    if (shared) {
        top = _mm512_set1_ps(_mm512_reduce_max_ps(top));
        square = _mm512_set1_ps(_mm512_reduce_max_ps(square));
    }
    set_quanta(q, top, square);
}

#endif
