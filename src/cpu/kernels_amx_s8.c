/* AMX kernels that screen rows of any kind rounded to 8-bit integers: half the time of bf16, and a
 * quarter of its digits. See amx_tmpl.h, coarse_tmpl.h and screen.h. */
#if defined(__x86_64__)

#include "kernels.h"

#include <immintrin.h>
#include <string.h>

#define COARSE_BITS 8
#include "coarse_tmpl.h"

#define STEP COARSE_STEP
#define PANEL_MORE COARSE_QUANTA
#define SUM int32_t
#define SCORES __m512
#define PRODUCTS(d, a, b) _tile_dpbssd(d, a, b)

typedef struct terms {
    __m512 of_rows;       /* their quanta */
    const float *quantum; /* of each centroid */
    const float *half;    /* h~ of each centroid */
} terms;

static inline terms terms_of(
    const fkm_row_block *b, const fkm_tiles *t, int32_t panel, int32_t tile, int h)
{
    const size_t elements = (size_t)((t->screened + STEP - 1) / STEP) * 2 * COARSE_PART;
    const char *sizes = b->panels + (size_t)panel * (elements + PANEL_MORE) + elements;
    const int64_t first = (int64_t)tile * t->tile;
    return (terms){_mm512_load_ps(sizes + 64 * h), t->centroid_quantum + first, t->half + first};
}

static inline SCORES scores_of(const terms *e, const SUM *sum, int j)
{
    const __m512 whole = _mm512_cvtepi32_ps(_mm512_load_si512(sum));
    const __m512 of_rows = _mm512_mul_ps(whole, _mm512_set1_ps(e->quantum[j]));
    return _mm512_fmsub_ps(of_rows, e->of_rows, _mm512_set1_ps(e->half[j]));
}

static inline __m512 scores_of_row(const terms *e, __m512i sums, int j, int r)
{
    const __m512 of_row = _mm512_permutexvar_ps(_mm512_set1_epi32(r), e->of_rows);
    const __m512 part = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), _mm512_loadu_ps(e->quantum + j));
    return _mm512_fmsub_ps(part, of_row, _mm512_loadu_ps(e->half + j));
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
    return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sum)), _mm512_set1_ps(e->quantum[j]));
}

static inline __m512 weight_of(const terms *e, __m512 by)
{
    return _mm512_mul_ps(by, e->of_rows);
}

#define WITHOUT_HALF true

#include "amx_tmpl.h"

static void pack(void *panel, float *square, float *residual, const void *const *x, int32_t rows,
    int32_t dims, const float *shift, float scale, const void *const *ahead, const uint16_t *kept)
{
    (void)kept;
    pack_coarse(panel, square, residual, x, rows, dims, shift, scale, 0, ahead);
}

static void pack_tile(fkm_tiles *t, int64_t first, const float *c)
{
    const __m512 one = _mm512_set1_ps(1);
    const int32_t dims = t->screened;
    char *out = t->packed + (size_t)(first / TILE) * t->tile_bytes;
    quanta q;
    for (int j = 0; j < TILE; j++) {
        const float *row = c + (int64_t)j * dims;
        if (j % 16 == 0)
            set_centroid_quanta(&q, row, 16, dims, false);
        t->centroid_quantum[first + j] = q.size[j % 16];
        __m512 rest = _mm512_setzero_ps();
        for (int32_t d = 0; d < dims; d += STEP) {
            __m512i v = round_step(row + d, dims - d, NULL, one, &q, j % 16, 0, &rest);
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
    .picks = true,
    .named = true,
    .pack = pack,
    .pack_tile = pack_tile,
    .screen = screen,
    CALLS,
};

#else
typedef int fkm_kernels_amx_s8_needs_x86_64;
#endif
