/* AMX bf16 kernels: see amx_tmpl.h. All else that the table asks for is that of AVX-512. */
#if defined(__x86_64__)

#include "kernels.h"

#include <immintrin.h>
#include <string.h>

#define STEP 32
#define PANEL_MORE 0
#define SUM float
#define SCORES __m512
#define PRODUCTS(d, a, b) _tile_dpbf16ps(d, a, b)

typedef struct terms {
    const float *half; /* h~ of each centroid */
} terms;

static inline terms terms_of(
    const fkm_row_block *b, const fkm_tiles *t, int32_t panel, int32_t tile, int h)
{
    (void)b;
    (void)panel;
    (void)h; /* alike for all rows */
    return (terms){t->half + (int64_t)tile * t->tile};
}

static inline SCORES scores_of(const terms *e, const SUM *sum, int j)
{
    return _mm512_sub_ps(_mm512_load_ps(sum), _mm512_set1_ps(e->half[j]));
}

static inline __m512 scores_of_row(const terms *e, __m512i sums, int j, int r)
{
    (void)r;
    return _mm512_sub_ps(_mm512_castsi512_ps(sums), _mm512_loadu_ps(e->half + j));
}

static inline SCORES max_scores(SCORES a, SCORES b)
{
    return _mm512_max_ps(a, b);
}

static inline __m512 to_float(const terms *e, SCORES v)
{
    (void)e;
    return v;
}

static inline __m512 part_of(const terms *e, const SUM *sum, int j)
{
    (void)e;
    (void)j;
    return _mm512_load_ps(sum);
}

static inline __m512 weight_of(const terms *e, __m512 by)
{
    (void)e;
    return by;
}

#define WITHOUT_HALF true

#include "amx_tmpl.h"

#include "avx512_tmpl.h"

static inline __m512 from_bf16_bits(__m512i low_halves)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(low_halves, 16));
}

/* Rounds 32 values to bf16 (nearest even, subnormals to zero); adds up squares and squared
 * residuals. */
static inline __m512i round_step(const float *x, int64_t live, const float *shift, __m512 scale,
    __m512 *square, __m512 *residual)
{
    __m512 v[2];
    for (int h = 0; h < 2; h++) {
        __mmask16 m = first_lanes(live - 16 * h);
        v[h] = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + 16 * h), scale);
        if (shift)
            v[h] = _mm512_sub_ps(v[h], _mm512_maskz_loadu_ps(m, shift + 16 * h));
        *square = _mm512_fmadd_ps(v[h], v[h], *square);
    }
    __m512i both = (__m512i)_mm512_cvtne2ps_pbh(v[1], v[0]);
    __m512 r0 =
        _mm512_sub_ps(v[0], from_bf16_bits(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(both))));
    __m512 r1 = _mm512_sub_ps(
        v[1], from_bf16_bits(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(both, 1))));
    *residual = _mm512_fmadd_ps(r0, r0, _mm512_fmadd_ps(r1, r1, *residual));
    return both;
}

static void pack(void *panel, float *square, float *residual, const void *const *x, int32_t rows,
    int32_t dims, const float *shift, float scale, const void *const *ahead, const uint16_t *kept)
{
    (void)kept;
    const __m512 s = _mm512_set1_ps(scale);
    for (int half = 0; half < 2; half++) {
        __m512 squares[16], residuals[16];
        for (int r = 0; r < 16; r++)
            squares[r] = residuals[r] = _mm512_setzero_ps();
        for (int32_t t = 0; t < dims; t += STEP) {
            __m512i m[16];
            for (int r = 0; r < 16; r++) {
                int32_t row = 16 * half + r;
                m[r] = _mm512_setzero_si512();
                if (ahead) {
                    __builtin_prefetch((const float *)ahead[row] + t);
                    __builtin_prefetch((const float *)ahead[row] + t + 16);
                }
                if (row < rows)
                    m[r] = round_step((const float *)x[row] + t, dims - t, shift + t, s,
                        &squares[r], &residuals[r]);
            }
            transpose(m);
            char *out = (char *)panel + (size_t)(t / STEP * 2 + half) * PART;
            for (int r = 0; r < 16; r++)
                _mm512_store_si512(out + 64 * r, m[r]);
        }
        for (int r = 0; r < 16; r++) {
            square[16 * half + r] = _mm512_reduce_add_ps(squares[r]);
            residual[16 * half + r] = _mm512_reduce_add_ps(residuals[r]);
        }
    }
}

static void pack_tile(fkm_tiles *t, int64_t first, const float *c)
{
    const __m512 one = _mm512_set1_ps(1);
    const int32_t dims = t->screened;
    char *out = t->packed + (size_t)(first / TILE) * t->tile_bytes;
    for (int j = 0; j < TILE; j++) {
        __m512 square = _mm512_setzero_ps(), rest = square;
        for (int32_t d = 0; d < dims; d += STEP) {
            __m512i v = round_step(c + (int64_t)j * dims + d, dims - d, NULL, one, &square, &rest);
            char *part = out + (size_t)(d / STEP * 2 + j / 16) * PART;
            _mm512_storeu_si512(part + 64 * (j % 16), v);
        }
        t->residual[first + j] = _mm512_reduce_add_ps(rest);
    }
}

#define BASE fkm_kernels_avx512
#include "calls_tmpl.h"

const fkm_kernels fkm_kernels_amx_bf16 = {
    .isa = "amx",
    .panel = PANEL,
    .tile = TILE,
    .item = 2,
    .dim_step = STEP,
    .low = true,
    .picks = true,
    .rate = 350,
    .coarse = &fkm_kernels_amx_s8,
    .finer = &fkm_kernels_avx512,
    .pack = pack,
    .pack_tile = pack_tile,
    .screen = screen,
    CALLS,
};

#else
typedef int fkm_kernels_amx_needs_x86_64;
#endif
