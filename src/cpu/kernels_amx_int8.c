/* AMX int8 kernels, for rows of 8-bit integers: see amx_tmpl.h and bytes_tmpl.h. All else that
 * the table asks for is that of AVX-512. */
#if defined(__x86_64__)

#include "kernels.h"

#include <immintrin.h>
#include <string.h>

#define STEP 64
#define PANEL_MORE 0
#define SUM int32_t
#define SCORES __m512i
#define PRODUCTS(d, a, b) _tile_dpbsud(d, a, b) /* centroids are signed, rows are not */

typedef struct terms {
    const int32_t *start; /* -H of each centroid */
    __m512 unit;          /* of the sums */
} terms;

static inline terms terms_of(
    const fkm_row_block *b, const fkm_tiles *t, int32_t panel, int32_t tile, int h)
{
    (void)b;
    (void)panel;
    (void)h; /* alike for all rows */
    return (terms){t->start + (int64_t)tile * t->tile, _mm512_set1_ps(t->unit[tile])};
}

static inline SCORES scores_of(const terms *e, const SUM *sum, int j)
{
    return _mm512_add_epi32(_mm512_load_si512(sum), _mm512_set1_epi32(e->start[j]));
}

static inline __m512 scores_of_row(const terms *e, __m512i sums, int j, int r)
{
    (void)r;
    const __m512i v = _mm512_add_epi32(sums, _mm512_loadu_si512(e->start + j));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(v), e->unit);
}

static inline SCORES max_scores(SCORES a, SCORES b)
{
    return _mm512_max_epi32(a, b);
}

static inline __m512 to_float(const terms *e, SCORES v)
{
    return _mm512_mul_ps(_mm512_cvtepi32_ps(v), e->unit);
}

static inline __m512 part_of(const terms *e, const SUM *sum, int j)
{
    return _mm512_cvtepi32_ps(scores_of(e, sum, j));
}

static inline __m512 weight_of(const terms *e, __m512 by)
{
    return _mm512_mul_ps(by, e->unit);
}

#define WITHOUT_HALF false

#include "amx_tmpl.h"

#include "bytes_tmpl.h"

static void pack_tile(fkm_tiles *t, int64_t first, const float *c, int32_t bias)
{
    char *out = t->packed + (size_t)(first / TILE) * t->tile_bytes;
    int32_t padded = (t->screened + STEP - 1) / STEP * STEP;
    int8_t g[FKM_BYTES_MOST_DIMS];
    for (int j = 0; j < TILE; j++) {
        t->start[first + j] = round_centroid(g, t, first + j, c + (int64_t)j * t->dims, bias);
        for (int32_t d = 0; d < padded; d += STEP)
            memcpy(out + (size_t)(d / STEP * 2 + j / 16) * PART + 64 * (j % 16), g + d, STEP);
    }
}

#define BASE fkm_kernels_avx512
#include "calls_tmpl.h"

#define RATE 700
#define QUANTA FKM_BYTES_TOP

#define PICKS true

#define BIAS 0
#define NAME(f) f##_u8
#define TABLE fkm_kernels_amx_u8
#define ISA "amx"
#define TAKES FKM_U8
#include "int8_tmpl.h"

#define BIAS SIGNED_BIAS
#define NAME(f) f##_i8
#define TABLE fkm_kernels_amx_i8
#define ISA "amx"
#define TAKES FKM_I8
#include "int8_tmpl.h"

#else
typedef int fkm_kernels_amx_int8_needs_x86_64;
#endif
