/* Rows and centroids as byte kernels want them (bytes.h). For inclusion by files that are compiled
 * for AVX-512.
 *
 * Panels, dims padded with zeros to 64:  [steps][2][16 groups of 4 dims][16 rows][4]   bytes */
#ifndef FKM_BYTES_TMPL_H
#define FKM_BYTES_TMPL_H

#include "avx512_tmpl.h"
#include "bytes.h"
#include "kernels.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

enum { BYTES_PART = 16 * 64, BYTES_PANEL = 32 };

/* Up to 64 bytes of a row, raised by SIGNED_BIAS when they are signed; adds up (x scale - shift)^2.
 */
static inline __attribute__((always_inline)) __m512i bytes_step(
    const char *x, int64_t live, const float *shift, __m512 scale, int32_t bias, __m512 *square)
{
    const __mmask64 all = live >= BYTES_STEP ? ~0ull : (1ull << live) - 1;
    for (int h = 0; h < 4; h++) {
        const __mmask16 m = first_lanes(live - 16 * h);
        const __m128i part = _mm_maskz_loadu_epi8(m, x + 16 * h);
        const __m512i whole = bias ? _mm512_cvtepi8_epi32(part) : _mm512_cvtepu8_epi32(part);
        const __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(whole), scale);
        const __m512 framed = _mm512_sub_ps(v, _mm512_maskz_loadu_ps(m, shift + 16 * h));
        *square = _mm512_fmadd_ps(framed, framed, *square);
    }
    return _mm512_xor_si512(_mm512_maskz_loadu_epi8(all, x), _mm512_set1_epi8((char)bias));
}

static inline void pack_bytes(void *panel, float *square, float *residual, const void *const *x,
    int32_t rows, int32_t dims, const float *shift, float scale, int32_t bias,
    const void *const *ahead)
{
    const __m512 s = _mm512_set1_ps(scale);
    for (int half = 0; half < 2; half++) {
        __m512 squares[16];
        for (int r = 0; r < 16; r++)
            squares[r] = _mm512_setzero_ps();
        for (int32_t t = 0; t < dims; t += BYTES_STEP) {
            const int64_t live = dims - t;
            __m512i m[16];
            for (int r = 0; r < 16; r++) {
                const int32_t row = 16 * half + r;
                m[r] = _mm512_setzero_si512();
                if (ahead)
                    __builtin_prefetch((const char *)ahead[row] + t);
                if (row >= rows)
                    continue;
                const char *at = (const char *)x[row] + t;
                m[r] = live < BYTES_STEP
                           ? bytes_step(at, live, shift + t, s, bias, &squares[r])
                           : bytes_step(at, BYTES_STEP, shift + t, s, bias, &squares[r]);
            }
            transpose(m);
            char *out = (char *)panel + (size_t)(t / BYTES_STEP * 2 + half) * BYTES_PART;
            for (int r = 0; r < 16; r++)
                _mm512_store_si512(out + 64 * r, m[r]);
        }
        for (int r = 0; r < 16; r++) {
            square[16 * half + r] = _mm512_reduce_add_ps(squares[r]);
            residual[16 * half + r] = 0;
        }
    }
}

/* Rounds centroid c: [dims] of a position to integers g: [dims padded to a step]; returns -H, or
 * what stands for it, and fills t->residual. The largest coordinate may come out a rounding above
 * FKM_BYTES_TOP before it is rounded to an integer: as an integer it is not. */
static inline int32_t round_centroid(
    int8_t *g, fkm_tiles *t, int64_t position, const float *c, int32_t bias)
{
    const __m512 share = _mm512_set1_ps(1 / t->quantum), quantum = _mm512_set1_ps(t->quantum);
    __m512 residual = _mm512_setzero_ps();
    __m512d along = _mm512_setzero_pd();
    __m512i sum = _mm512_setzero_si512();
    const int32_t padded = (t->dims + BYTES_STEP - 1) / BYTES_STEP * BYTES_STEP;
    for (int32_t d = 0; d < padded; d += 16) {
        const __mmask16 m = first_lanes(t->dims - d);
        const __m512 v = _mm512_maskz_loadu_ps(m, c + d),
                     mu = _mm512_maskz_loadu_ps(m, t->shift + d);
        const __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(v, share));
        const __m512 whole = _mm512_cvtepi32_ps(q), rest = _mm512_fnmadd_ps(whole, quantum, v);
        _mm_storeu_si128((__m128i *)(void *)(g + d), _mm512_cvtepi32_epi8(q));
        residual = _mm512_fmadd_ps(rest, rest, residual);
        sum = _mm512_add_epi32(sum, q);
        along = _mm512_fmadd_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(whole)),
            _mm512_cvtps_pd(_mm512_castps512_ps256(mu)), along);
        along = _mm512_fmadd_pd(_mm512_cvtps_pd(_mm512_extractf32x8_ps(whole, 1)),
            _mm512_cvtps_pd(_mm512_extractf32x8_ps(mu, 1)), along);
    }
    t->residual[position] = _mm512_reduce_add_ps(residual);
    if (position >= t->clusters)
        return PAD_SCORE;
    double h = rint((_mm512_reduce_add_pd(along) * t->quantum + t->half[position]) / t->unit);
    if (fabs(h) <= MOST_H)
        return (int32_t)(-h) - bias * _mm512_reduce_add_epi32(sum);
    t->residual[position] = FKM_UNSCORED;
    memset(g, 0, (size_t)padded);
    return 0;
}

#endif
