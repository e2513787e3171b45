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

/* The frame, and of 64 dims those that are left out. */
typedef struct bytes_frame {
    const float *shift;
    __m512 scale;
    __mmask64 faint;
} bytes_frame;

/* The dims of the groups of a step. */
static inline __mmask64 dims_of(uint16_t groups)
{
    return _mm512_movepi8_mask(_mm512_movm_epi32(groups));
}

/* Up to 64 bytes of a row, raised by SIGNED_BIAS when they are signed; adds up (x scale - shift)^2,
 * also of what is left out. */
static inline __attribute__((always_inline)) __m512i bytes_step(
    const char *x, int64_t live, const bytes_frame *f, int32_t bias, __m512 *square, __m512 *faint)
{
    const __mmask64 all = live >= BYTES_STEP ? ~0ull : (1ull << live) - 1;
    for (int h = 0; h < 4; h++) {
        const __mmask16 m = first_lanes(live - 16 * h);
        const __m128i part = _mm_maskz_loadu_epi8(m, x + 16 * h);
        const __m512i whole = bias ? _mm512_cvtepi8_epi32(part) : _mm512_cvtepu8_epi32(part);
        const __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(whole), f->scale);
        const __m512 framed = _mm512_sub_ps(v, _mm512_maskz_loadu_ps(m, f->shift + 16 * h));
        const __mmask16 out = (__mmask16)(f->faint >> 16 * h);
        *square = _mm512_fmadd_ps(framed, framed, *square);
        *faint = _mm512_mask3_fmadd_ps(framed, framed, *faint, out);
    }
    return _mm512_xor_si512(_mm512_maskz_loadu_epi8(all, x), _mm512_set1_epi8((char)bias));
}

static inline void pack_bytes(void *panel, float *square, float *residual, const void *const *x,
    int32_t rows, int32_t dims, const float *shift, float scale, int32_t bias,
    const void *const *ahead, const uint16_t *kept)
{
    for (int half = 0; half < 2; half++) {
        __m512 squares[16], faint[16];
        int32_t place = 0; /* of the next group that is kept */
        for (int r = 0; r < 16; r++)
            squares[r] = faint[r] = _mm512_setzero_ps();
        for (int32_t t = 0; t < dims; t += BYTES_STEP) {
            const int64_t live = dims - t;
            const uint16_t groups = kept[t / BYTES_STEP];
            const bytes_frame f = {shift + t, _mm512_set1_ps(scale), ~dims_of(groups)};
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
                           ? bytes_step(at, live, &f, bias, &squares[r], &faint[r])
                           : bytes_step(at, BYTES_STEP, &f, bias, &squares[r], &faint[r]);
            }
            transpose(m);
            for (unsigned left = groups; left; left &= left - 1, place++) {
                char *out = (char *)panel + (size_t)(place / 16 * 2 + half) * BYTES_PART;
                _mm512_store_si512(out + place % 16 * 64, m[__builtin_ctz(left)]);
            }
        }
        for (int r = 0; r < 16; r++) {
            square[16 * half + r] = _mm512_reduce_add_ps(squares[r]);
            residual[16 * half + r] = _mm512_reduce_add_ps(faint[r]);
        }
    }
}

/* Rounds centroid c: [dims] of a position to integers g: [t->screened padded to a step], of the
 * dims that are kept; returns -H, or what stands for it, and fills t->residual and t->tail. The
 * largest coordinate may come out a rounding above FKM_BYTES_TOP before it is rounded to an
 * integer: as an integer it is not. */
static inline int32_t round_centroid(
    int8_t *g, fkm_tiles *t, int64_t position, const float *c, int32_t bias)
{
    const float quantum_of_tile = t->quantum[position / t->tile];
    const double unit = t->unit[position / t->tile];
    const __m512 share = _mm512_set1_ps(1 / quantum_of_tile);
    const __m512 quantum = _mm512_set1_ps(quantum_of_tile);
    __m512 residual = _mm512_setzero_ps(), faint = residual;
    __m512d along = _mm512_setzero_pd();
    __m512i sum = _mm512_setzero_si512();
    const int32_t padded = (t->dims + BYTES_STEP - 1) / BYTES_STEP * BYTES_STEP;
    const int32_t padded_seen = (t->screened + BYTES_STEP - 1) / BYTES_STEP * BYTES_STEP;
    int8_t *end = g;
    for (int32_t d = 0; d < padded; d += 16) {
        const __mmask16 m = first_lanes(t->dims - d);
        const uint8_t groups = t->kept[d / BYTES_STEP] >> d % BYTES_STEP / FKM_GROUP & 15;
        const __mmask16 kept = (__mmask16)dims_of(groups);
        const __m512 all = _mm512_maskz_loadu_ps(m, c + d), v = _mm512_maskz_mov_ps(kept, all);
        const __m512 mu = _mm512_maskz_loadu_ps(m, t->shift + d);
        const __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(v, share));
        const __m512 whole = _mm512_cvtepi32_ps(q), rest = _mm512_fnmadd_ps(whole, quantum, v);
        _mm_mask_compressstoreu_epi32(end, groups, _mm512_cvtepi32_epi8(q));
        end += FKM_GROUP * __builtin_popcount(groups);
        faint = _mm512_mask3_fmadd_ps(all, all, faint, (__mmask16)~kept);
        residual = _mm512_fmadd_ps(rest, rest, residual);
        sum = _mm512_add_epi32(sum, q);
        along = _mm512_fmadd_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(whole)),
            _mm512_cvtps_pd(_mm512_castps512_ps256(mu)), along);
        along = _mm512_fmadd_pd(_mm512_cvtps_pd(_mm512_extractf32x8_ps(whole, 1)),
            _mm512_cvtps_pd(_mm512_extractf32x8_ps(mu, 1)), along);
    }
    t->residual[position] = _mm512_reduce_add_ps(residual);
    t->tail[position] = _mm512_reduce_add_ps(faint);
    if (position >= t->clusters)
        return PAD_SCORE;
    double h = rint((_mm512_reduce_add_pd(along) * quantum_of_tile + t->half[position]) / unit);
    if (fabs(h) <= MOST_H)
        return (int32_t)(-h) - bias * _mm512_reduce_add_epi32(sum);
    t->residual[position] = FKM_UNSCORED;
    memset(g, 0, (size_t)padded_seen);
    return 0;
}

#endif
