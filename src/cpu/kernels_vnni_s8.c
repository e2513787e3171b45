/* AVX-512 VNNI kernels that screen rows of any kind rounded to 8-bit integers: four times as many
 * products as float32 has. See coarse_tmpl.h and screen.h. 32 rows x 12 centroids of 32-bit sums in
 * registers. The instruction takes unsigned rows: they are raised by BIAS, which sums start
 * without.
 *
 *   tile    [groups of 4 dims][12 centroids][4]   bytes */
#if defined(__x86_64__)

#include "kernels.h"

#include <immintrin.h>
#include <string.h>

#define COARSE_BITS 8
#include "coarse_tmpl.h"
#include "vnni_tmpl.h"

#define TILE 12
#include "finish_tmpl.h"

#define BIAS 128

static void screen_tile(fkm_row_block *b, int32_t panel, const fkm_tiles *t, int32_t tile)
{
    const size_t elements =
        (size_t)((t->screened + COARSE_STEP - 1) / COARSE_STEP) * 2 * COARSE_PART;
    const char *x = b->panels + (size_t)panel * (elements + COARSE_QUANTA);
    const char *c = t->packed + (size_t)tile * t->tile_bytes;
    const int32_t *start = t->start + (int64_t)tile * TILE;
    const float *half = t->half + (int64_t)tile * TILE;
    const float *of_centroid = t->centroid_quantum + (int64_t)tile * TILE;
    const __m512 of_rows0 = _mm512_load_ps(x + elements);
    const __m512 of_rows1 = _mm512_load_ps(x + elements + 64);
    const int32_t groups = (t->screened + 3) / 4;
    __m512i low[TILE], high[TILE];
    UNROLL
    for (int j = 0; j < TILE; j++)
        low[j] = high[j] = _mm512_set1_epi32(start[j]);
    for (int32_t g = 0; g < groups; g++, c += 4 * TILE) {
        const char *at = x + (size_t)(g / 16) * 2 * COARSE_PART + (size_t)(g % 16) * 64;
        const __m512i x0 = _mm512_load_si512(at), x1 = _mm512_load_si512(at + COARSE_PART);
        UNROLL
        for (int j = 0; j < TILE; j++) {
            int32_t four;
            memcpy(&four, c + 4 * j, sizeof four);
            const __m512i cj = _mm512_set1_epi32(four);
            low[j] = add_bytes_products(low[j], x0, cj);
            high[j] = add_bytes_products(high[j], x1, cj);
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
    pack_coarse(panel, square, residual, x, rows, dims, shift, scale, BIAS, ahead);
}

static int32_t sum_of(__m512i bytes)
{
    const __m512i ones = _mm512_set1_epi8(1);
    return _mm512_reduce_add_epi32(_mm512_dpbusd_epi32(_mm512_setzero_si512(), ones, bytes));
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
        int32_t sum = 0;
        for (int32_t d = 0; d < dims; d += COARSE_STEP) {
            char bytes[COARSE_STEP];
            __m512i v = round_step(row + d, dims - d, NULL, one, q, 0, &rest);
            sum += sum_of(v);
            _mm512_storeu_si512(bytes, v);
            for (int32_t g = 0; g < COARSE_STEP; g += 4)
                memcpy(out + (size_t)(d + g) * TILE + 4 * j, bytes + g, 4);
        }
        t->start[first + j] = -BIAS * sum;
        t->residual[first + j] = _mm512_reduce_add_ps(rest);
    }
}

#define BASE fkm_kernels_avx512
#include "calls_tmpl.h"

const fkm_kernels fkm_kernels_vnni_s8 = {
    .isa = "vnniint8",
    .panel = PANEL,
    .tile = TILE,
    .item = 1,
    .dim_step = COARSE_STEP,
    .panel_more = COARSE_QUANTA,
    .rate = 112,
    .low = true,
    .named = true,
    .pack = pack,
    .pack_tile = pack_tile,
    .screen = screen,
    CALLS,
};

#else
typedef int fkm_kernels_vnni_s8_needs_x86_64;
#endif
