/* Rows and centroids of any kind rounded to integers times a quantum: one of the row, q_i, and one
 * of the centroid, q_j. The score (sum q_j) q_i - h~ is a float once, in the epilogue: three
 * roundings. The sum of products, in 32 bits, is exact:
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
#include <math.h>

enum { COARSE_STEP = 64 * 8 / COARSE_BITS, COARSE_PART = 16 * 64, COARSE_QUANTA = 32 * 4 };

#if COARSE_BITS == 8
#define TOP 127
#define LENGTH FLT_MAX
#else
#define TOP 32767
#define LENGTH 45000
#endif
/* Of a row or a centroid: below it all is zero. Squares of coordinates that matter do not
 * underflow. */
#define LEAST_TOP 0x1p-60f

/* 16 coordinates in the frame; shift NULL: as they are. */
static inline __m512 framed(const float *x, __mmask16 m, const float *shift, __m512 scale)
{
    const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x), scale);
    return shift ? _mm512_sub_ps(v, _mm512_maskz_loadu_ps(m, shift)) : v;
}

/* The largest magnitude of a row's coordinates; adds up their squares. ahead: a row to fetch
 * meanwhile, or NULL. */
static inline float measure(const float *x, int32_t dims, const float *shift, __m512 scale,
    __m512 *square, const float *ahead)
{
    __m512 top = _mm512_setzero_ps();
    for (int32_t t = 0; t < dims; t += 16) {
        if (ahead)
            __builtin_prefetch(ahead + t);
        const __m512 v = framed(x + t, first_lanes(dims - t), shift ? shift + t : NULL, scale);
        *square = _mm512_fmadd_ps(v, v, *square);
        top = _mm512_max_ps(top, _mm512_abs_ps(v));
    }
    return _mm512_reduce_max_ps(top);
}

/* A quantum and its inverse. Rounded products with the inverse exceed TOP by 2^-22 of it at most:
 * they are TOP as integers. */
typedef struct quantum {
    float size, share;
} quantum;

static inline quantum quantum_of(float top, __m512 square)
{
    quantum q = {1, 0};
    if (top > LEAST_TOP) {
        q.size = fmaxf(top / TOP, sqrtf(_mm512_reduce_add_ps(square)) / LENGTH);
        q.share = 1 / q.size;
    }
    return q;
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

/* Rounds COARSE_STEP coordinates to integers, raised by `bias`; adds up squared residuals. */
static inline __m512i round_step(const float *x, int64_t live, const float *shift, __m512 scale,
    quantum q, int32_t bias, __m512 *residual)
{
    const __m512i raise = _mm512_set1_epi32(bias);
    const __m512 share = _mm512_set1_ps(q.share), size = _mm512_set1_ps(q.size);
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
    float *quanta = (float *)(void *)((char *)panel + (size_t)steps * 2 * COARSE_PART);
    for (int half = 0; half < 2; half++) {
        __m512 residuals[16];
        quantum q[16];
        for (int r = 0; r < 16; r++) {
            const int32_t row = 16 * half + r;
            __m512 squares = residuals[r] = _mm512_setzero_ps();
            const float *next = ahead ? ahead[row] : NULL;
            const float top = row < rows ? measure(x[row], dims, shift, s, &squares, next) : 0;
            q[r] = quantum_of(top, squares);
            square[row] = _mm512_reduce_add_ps(squares);
            quanta[row] = q[r].size;
        }
        for (int32_t t = 0; t < dims; t += COARSE_STEP) {
            __m512i m[16];
            for (int r = 0; r < 16; r++) {
                const int32_t row = 16 * half + r;
                m[r] = _mm512_setzero_si512();
                if (row < rows)
                    m[r] = round_step((const float *)x[row] + t, dims - t, shift + t, s, q[r], bias,
                        &residuals[r]);
            }
            transpose(m);
            char *out = (char *)panel + (size_t)(t / COARSE_STEP * 2 + half) * COARSE_PART;
            for (int r = 0; r < 16; r++)
                _mm512_store_si512(out + 64 * r, m[r]);
        }
        for (int r = 0; r < 16; r++)
            residual[16 * half + r] = _mm512_reduce_add_ps(residuals[r]);
    }
}

/* That of the centroid at a position, c: [t->screened]. */
static inline quantum centroid_quantum(fkm_tiles *t, int64_t position, const float *c)
{
    __m512 square = _mm512_setzero_ps();
    const float top = measure(c, t->screened, NULL, _mm512_set1_ps(1), &square, NULL);
    const quantum q = quantum_of(top, square);
    t->centroid_quantum[position] = q.size;
    return q;
}

#endif
