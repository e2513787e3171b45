/* AVX-512 VNNI kernels for rows of any kind, rounded to 16-bit integers: twice as many products as
 * float32 has, and nearly its digits. See coarse_tmpl.h and screen.h. 32 rows x 12 centroids of
 * 32-bit sums in registers.
 *
 *   tile    [words of 2 dims][12 centroids][4 bytes] */
#if defined(__x86_64__)

#include "kernels.h"

#include <immintrin.h>
#include <string.h>

#define COARSE_BITS 16
#include "coarse_tmpl.h"
#include "vnni_tmpl.h"

#define TILE 12
#include "finish_tmpl.h"

static void screen_tile(fkm_row_block *b, int32_t panel, const fkm_tiles *t, int32_t tile)
{
    const int32_t words = (t->screened + 1) / 2;
    const size_t elements =
        (size_t)((t->screened + COARSE_STEP - 1) / COARSE_STEP) * 2 * COARSE_PART;
    const char *x = b->panels + (size_t)panel * (elements + COARSE_QUANTA);
    const char *c = t->packed + (size_t)tile * t->tile_bytes;
    const float *half = t->half + (int64_t)tile * TILE;
    const float *of_centroid = t->centroid_quantum + (int64_t)tile * TILE;
    const __m512 of_rows0 = _mm512_load_ps(x + elements);
    const __m512 of_rows1 = _mm512_load_ps(x + elements + 64);
    __m512i low[TILE], high[TILE];
    UNROLL
    for (int j = 0; j < TILE; j++)
        low[j] = high[j] = _mm512_setzero_si512();
    for (int32_t w = 0; w < words; w++, c += 4 * TILE) {
        const char *at = x + (size_t)(w / 16) * 2 * COARSE_PART + (size_t)(w % 16) * 64;
        const __m512i x0 = _mm512_load_si512(at), x1 = _mm512_load_si512(at + COARSE_PART);
        UNROLL
        for (int j = 0; j < TILE; j++) {
            int32_t two;
            memcpy(&two, c + 4 * j, sizeof two);
            const __m512i cj = _mm512_set1_epi32(two);
            low[j] = add_words_products(low[j], x0, cj);
            high[j] = add_words_products(high[j], x1, cj);
        }
    }
    __m512 acc0[TILE], acc1[TILE];
    UNROLL
    for (int j = 0; j < TILE; j++) {
        const __m512 h = _mm512_set1_ps(half[j]), q = _mm512_set1_ps(of_centroid[j]);
        acc0[j] = _mm512_fmsub_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(low[j]), q), of_rows0, h);
        acc1[j] = _mm512_fmsub_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(high[j]), q), of_rows1, h);
    }
    finish(b, panel * PANEL, t, tile, acc0, acc1);
}

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
    for (int j = 0; j < TILE; j++) {
        const float *row = c + (int64_t)j * dims;
        const quantum q = centroid_quantum(t, first + j, row);
        __m512 rest = _mm512_setzero_ps();
        for (int32_t d = 0; d < dims; d += COARSE_STEP) {
            char step[64];
            _mm512_storeu_si512(step, round_step(row + d, dims - d, NULL, one, q, 0, &rest));
            for (int32_t at = 0; at < 64; at += 4)
                memcpy(out + (size_t)(d * 2 + at) * TILE + 4 * j, step + at, 4);
        }
        t->residual[first + j] = _mm512_reduce_add_ps(rest);
    }
}

#define BASE fkm_kernels_avx512
#include "calls_tmpl.h"

const fkm_kernels fkm_kernels_vnni_s16 = {
    .isa = "avx512vnni",
    .panel = PANEL,
    .tile = TILE,
    .item = 2,
    .dim_step = COARSE_STEP,
    .panel_more = COARSE_QUANTA,
    .rate = 56,
    .low = true,
    .coarse = &fkm_kernels_vnni_s8,
    .finer = &fkm_kernels_avx512,
    .pack = pack,
    .pack_tile = pack_tile,
    .screen = screen,
    CALLS,
};

#else
typedef int fkm_kernels_vnni_s16_needs_x86_64;
#endif
