/* Template of the AVX-512 VNNI kernels that screen rows of any kind rounded to integers. 32 rows x
 * 12 centroids of 32-bit sums in registers. Included after defining COARSE_BITS; see coarse_tmpl.h.
 *
 *   tile    [words of dims][12 centroids][4 bytes] */
#include "kernels.h"

#include <immintrin.h>
#include <string.h>

#include "coarse_tmpl.h"
#include "vnni_tmpl.h"

#define TILE 12
#include "finish_tmpl.h"

#define WORD (32 / COARSE_BITS) /* dims in a word */

/* The instruction for bytes takes unsigned rows: raised by BIAS; sums start without it. */
#if COARSE_BITS == 8
#define BIAS 128
#define ADD_PRODUCTS add_bytes_products
#else
#define BIAS 0
#define ADD_PRODUCTS add_words_products
#endif

/* 16 bits are plenty: one quantum does for all centroids of a tile. Then the largest sum and the
 * smallest h~ bound all scores, as they are computed: conversion, product and difference are
 * monotonous. Mostly that is all there is to know. */
#define SHARED_QUANTUM (COARSE_BITS == 16)

static inline __m512i largest(const __m512i sum[TILE])
{
    __m512i most = sum[0];
    UNROLL
    for (int j = 1; j < TILE; j++)
        most = _mm512_max_epi32(most, sum[j]);
    return most;
}

static void screen_tile(fkm_row_block *b, int32_t panel, const fkm_tiles *t, int32_t tile)
{
    const size_t elements =
        (size_t)((t->screened + COARSE_STEP - 1) / COARSE_STEP) * 2 * COARSE_PART;
    const char *x = b->panels + (size_t)panel * (elements + COARSE_QUANTA);
    const char *c = t->packed + (size_t)tile * t->tile_bytes;
    const int32_t *start = t->start + (int64_t)tile * TILE;
    const float *half = t->half + (int64_t)tile * TILE;
    const float *of_centroid = t->centroid_quantum + (int64_t)tile * TILE;
    const int32_t words = (t->screened + WORD - 1) / WORD;
    __m512i low[TILE], high[TILE];
    UNROLL
    for (int j = 0; j < TILE; j++)
        low[j] = high[j] = _mm512_set1_epi32(start[j]);
    add_tile(low, high, x, c, words, TILE, ADD_PRODUCTS);
    const __m512 of_rows0 = _mm512_load_ps(x + elements);
    const __m512 of_rows1 = _mm512_load_ps(x + elements + 64);
    __m512 acc0[TILE], acc1[TILE];
    __m512 unit0 = _mm512_mul_ps(of_rows0, _mm512_set1_ps(of_centroid[0]));
    __m512 unit1 = _mm512_mul_ps(of_rows1, _mm512_set1_ps(of_centroid[0]));
    if (SHARED_QUANTUM) {
        const __m512 least = _mm512_set1_ps(t->tile_half[tile]);
        const __m512 top0 = _mm512_fmsub_ps(_mm512_cvtepi32_ps(largest(low)), unit0, least);
        const __m512 top1 = _mm512_fmsub_ps(_mm512_cvtepi32_ps(largest(high)), unit1, least);
        if (!matters(b, panel * PANEL, t, tile, top0, top1))
            return;
    }
    UNROLL
    for (int j = 0; j < TILE; j++) {
        if (!SHARED_QUANTUM) {
            unit0 = _mm512_mul_ps(of_rows0, _mm512_set1_ps(of_centroid[j]));
            unit1 = _mm512_mul_ps(of_rows1, _mm512_set1_ps(of_centroid[j]));
        }
        const __m512 h = _mm512_set1_ps(half[j]);
        acc0[j] = _mm512_fmsub_ps(_mm512_cvtepi32_ps(low[j]), unit0, h);
        acc1[j] = _mm512_fmsub_ps(_mm512_cvtepi32_ps(high[j]), unit1, h);
    }
    finish(b, panel * PANEL, t, tile, acc0, acc1);
}

static void pack(void *panel, float *square, float *residual, const void *const *x, int32_t rows,
    int32_t dims, const float *shift, float scale, const void *const *ahead, const uint16_t *kept)
{
    (void)kept;
    pack_coarse(panel, square, residual, x, rows, dims, shift, scale, BIAS, ahead);
}

/* Of bytes. */
static inline int32_t sum_of(__m512i bytes)
{
    const __m512i ones = _mm512_set1_epi8(1);
    return _mm512_reduce_add_epi32(_mm512_dpbusd_epi32(_mm512_setzero_si512(), ones, bytes));
}

static void pack_tile(fkm_tiles *t, int64_t first, const float *c)
{
    const __m512 one = _mm512_set1_ps(1);
    const int32_t dims = t->screened;
    char *out = t->packed + (size_t)(first / TILE) * t->tile_bytes;
    quanta q;
    set_centroid_quanta(&q, c, TILE, dims, SHARED_QUANTUM);
    for (int j = 0; j < TILE; j++) {
        const float *row = c + (int64_t)j * dims;
        t->centroid_quantum[first + j] = q.size[j];
        __m512 rest = _mm512_setzero_ps();
        int32_t sum = 0;
        for (int32_t d = 0; d < dims; d += COARSE_STEP) {
            char step[64];
            __m512i v = round_step(row + d, dims - d, NULL, one, &q, j, 0, &rest);
            sum += BIAS ? sum_of(v) : 0;
            _mm512_storeu_si512(step, v);
            for (int32_t at = 0; at < 64; at += 4)
                memcpy(out + (size_t)(d / COARSE_STEP * 64 + at) * TILE + 4 * j, step + at, 4);
        }
        t->start[first + j] = -BIAS * sum;
        t->residual[first + j] = _mm512_reduce_add_ps(rest);
    }
}

#define BASE fkm_kernels_avx512
#include "calls_tmpl.h"
