/* AVX-512 VNNI kernels, for rows of 8-bit integers: see bytes_tmpl.h. 32 rows x 12 centroids of
 * 32-bit sums in registers; rows lie along the lanes, four dims are multiplied at a time.
 *
 *   tile    [groups of 4 dims][12 centroids][4]   bytes */
#if defined(__x86_64__)

#include "kernels.h"

#include <immintrin.h>
#include <string.h>

#include "avx512_tmpl.h"
#include "transpose_tmpl.h"

#include "bytes_tmpl.h"
#include "vnni_tmpl.h"

#define TILE 12
#include "finish_tmpl.h"

static inline __m512 to_float(__m512i v, __m512 unit)
{
    return _mm512_mul_ps(_mm512_cvtepi32_ps(v), unit);
}

static void screen_tile(fkm_row_block *b, int32_t panel, const fkm_tiles *t, int32_t tile)
{
    const char *x = b->panels + (size_t)panel * fkm_panel_bytes(&fkm_kernels_vnni_u8, t->screened);
    const char *c = t->packed + (size_t)tile * t->tile_bytes;
    const int32_t *start = t->start + (int64_t)tile * TILE;
    const int32_t groups = (t->screened + FKM_GROUP - 1) / FKM_GROUP;
    __m512i low[TILE], high[TILE];
    UNROLL
    for (int j = 0; j < TILE; j++)
        low[j] = high[j] = _mm512_set1_epi32(start[j]);
    add_tile(low, high, x, c, groups, TILE, add_bytes_products);
    const __m512 unit = _mm512_set1_ps(t->unit[tile]);
    __m512 acc0[TILE], acc1[TILE];
    UNROLL
    for (int j = 0; j < TILE; j++) {
        acc0[j] = to_float(low[j], unit);
        acc1[j] = to_float(high[j], unit);
    }
    finish(b, panel * PANEL, t, tile, acc0, acc1);
}

static void pack_tile(fkm_tiles *t, int64_t first, const float *c, int32_t bias)
{
    char *out = t->packed + (size_t)(first / TILE) * t->tile_bytes;
    int32_t padded = (t->screened + BYTES_STEP - 1) / BYTES_STEP * BYTES_STEP;
    int8_t g[FKM_BYTES_MOST_DIMS];
    for (int j = 0; j < TILE; j++) {
        t->start[first + j] = round_centroid(g, t, first + j, c + (int64_t)j * t->dims, bias);
        for (int32_t d = 0; d < padded; d += 4)
            memcpy(out + (size_t)d * TILE + 4 * j, g + d, 4);
    }
}

#define BASE fkm_kernels_avx512
#include "calls_tmpl.h"

#define RATE 100
#define QUANTA FKM_BYTES_TOP

#define PICKS false

#define BIAS 0
#define NAME(f) f##_u8
#define TABLE fkm_kernels_vnni_u8
#define ISA "avx512vnni"
#define TAKES FKM_U8
#include "int8_tmpl.h"

#define BIAS SIGNED_BIAS
#define NAME(f) f##_i8
#define TABLE fkm_kernels_vnni_i8
#define ISA "avx512vnni"
#define TAKES FKM_I8
#include "int8_tmpl.h"

#else
typedef int fkm_kernels_vnni_needs_x86_64;
#endif
