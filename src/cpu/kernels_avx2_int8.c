/* AVX2 kernels for rows of 8-bit integers: see bytes.h. 16 rows x 6 centroids of 32-bit sums in
 * registers; rows lie along the lanes, four dims are multiplied at a time.
 *
 * vpmaddubsw adds two products of an unsigned byte and a signed one in 16 bits, and saturates:
 * coordinates of centroids are 63 quanta at most, 2 * 255 * 63 < 2^15. To widen each pair takes two
 * more instructions, so where their integers allow it, which is looked up tile by tile, four pairs
 * are added in 16 bits first, over a set of 8 of 16 dims: |sum| <= 255 * 128 < 2^15 if neither the
 * positive nor the negative integers of a centroid add up to more than 128 in any set. (In 16 bits
 * modulo 2^16, so that only the whole sum must fit.)
 *
 *   panel   [groups of 4 dims][16 rows][4]       bytes, dims padded with zeros to 64
 *   tile    [groups of 4 dims][6 centroids][4]   bytes */
#if defined(__x86_64__)

#include "bytes.h"
#include "kernels.h"

#include <math.h>

#define TILE 6
#include "avx2_tmpl.h"

#include "finish_tmpl.h"

#define RATE 36
#define QUANTA 63
#define GROUP FKM_GROUP
#define SET 16       /* dims whose pairs are added in 16 bits: two sets */
#define MOST_SUM 128 /* of a set's integers of one sign */

static inline __m256 to_float(__m256i v, __m256 unit)
{
    return _mm256_mul_ps(_mm256_cvtepi32_ps(v), unit);
}

/* Adds the products of `groups` groups of dims. */
static inline __attribute__((always_inline)) void add_products(
    __m256i low[TILE], __m256i high[TILE], const char *x, const char *c, int groups)
{
    const __m256i ones = _mm256_set1_epi16(1);
    UNROLL
    for (int j = 0; j < TILE; j++) {
        __m256i sum0 = _mm256_setzero_si256(), sum1 = sum0;
        UNROLL
        for (int g = 0; g < groups; g++) {
            const char *at = x + GROUP * PANEL * g;
            const __m256i x0 = _mm256_load_si256((const __m256i *)(const void *)at);
            const __m256i x1 = _mm256_load_si256((const __m256i *)(const void *)(at + 32));
            int32_t four;
            memcpy(&four, c + GROUP * (TILE * g + j), sizeof four);
            const __m256i cj = _mm256_set1_epi32(four);
            sum0 = _mm256_add_epi16(sum0, _mm256_maddubs_epi16(x0, cj));
            sum1 = _mm256_add_epi16(sum1, _mm256_maddubs_epi16(x1, cj));
        }
        low[j] = _mm256_add_epi32(low[j], _mm256_madd_epi16(sum0, ones));
        high[j] = _mm256_add_epi32(high[j], _mm256_madd_epi16(sum1, ones));
    }
}

static void screen_tile(fkm_row_block *b, int32_t panel, const fkm_tiles *t, int32_t tile)
{
    const char *x = b->panels + (size_t)panel * fkm_panel_bytes(&fkm_kernels_avx2_u8, t->screened);
    const char *c = t->packed + (size_t)tile * t->tile_bytes;
    const int32_t *start = t->start + (int64_t)tile * TILE;
    __m256i low[TILE], high[TILE];
    UNROLL
    for (int j = 0; j < TILE; j++)
        low[j] = high[j] = _mm256_set1_epi32(start[j]);
    if (t->narrow[tile])
        for (int32_t d = 0; d < t->screened; d += SET, x += SET * PANEL, c += SET * TILE)
            add_products(low, high, x, c, SET / GROUP);
    else
        for (int32_t d = 0; d < t->screened; d += GROUP, x += GROUP * PANEL, c += GROUP * TILE)
            add_products(low, high, x, c, 1);
    const __m256 unit = _mm256_set1_ps(t->unit[tile]);
    V acc0[TILE], acc1[TILE];
    UNROLL
    for (int j = 0; j < TILE; j++) {
        acc0[j] = to_float(low[j], unit);
        acc1[j] = to_float(high[j], unit);
    }
    finish(b, panel * PANEL, t, tile, acc0, acc1);
}

enum { ROW_STEP = 32 };

/* The frame, and of the groups of a step those that are left out. */
typedef struct bytes_frame {
    const float *shift;
    __m256 scale;
    unsigned faint;
} bytes_frame;

/* A mask of 8 dims, from the lowest bits: of their groups. */
static inline __m256 dims_of(unsigned groups)
{
    const int low = -(int)(groups & 1), high = -(int)(groups >> 1 & 1);
    return _mm256_castsi256_ps(_mm256_setr_epi32(low, low, low, low, high, high, high, high));
}

/* 32 bytes of a row, raised by SIGNED_BIAS when they are signed; adds up (x scale - shift)^2, also
 * of what is left out. */
static inline __m256i bytes_step(
    const char *x, const bytes_frame *f, int32_t bias, __m256 *square, __m256 *faint)
{
    for (int h = 0; h < 4; h++) {
        const __m128i part = _mm_loadl_epi64((const __m128i *)(const void *)(x + 8 * h));
        const __m256i whole = bias ? _mm256_cvtepi8_epi32(part) : _mm256_cvtepu8_epi32(part);
        const __m256 v = _mm256_mul_ps(_mm256_cvtepi32_ps(whole), f->scale);
        const __m256 framed = _mm256_sub_ps(v, _mm256_loadu_ps(f->shift + 8 * h));
        *square = _mm256_fmadd_ps(framed, framed, *square);
        if (f->faint) {
            const __m256 out = _mm256_and_ps(framed, dims_of(f->faint >> 2 * h));
            *faint = _mm256_fmadd_ps(out, out, *faint);
        }
    }
    const __m256i bytes = _mm256_loadu_si256((const __m256i *)(const void *)x);
    return _mm256_xor_si256(bytes, _mm256_set1_epi8((char)bias));
}

/* The last bytes of a row, fewer than a step: the others are 0, as is their shift. */
static __m256i last_bytes(
    const char *x, int32_t live, const bytes_frame *f, int32_t bias, __m256 *square, __m256 *faint)
{
    char bytes[ROW_STEP] = {0};
    float mu[ROW_STEP] = {0};
    memcpy(bytes, x, (size_t)live);
    memcpy(mu, f->shift, (size_t)live * sizeof *mu);
    const bytes_frame part = {mu, f->scale, f->faint};
    return bytes_step(bytes, &part, bias, square, faint);
}

static void pack_bytes(void *panel, float *square, float *residual, const void *const *x,
    int32_t rows, int32_t dims, const float *shift, float scale, int32_t bias,
    const void *const *ahead, const uint16_t *kept)
{
    for (int half = 0; half < 2; half++) {
        __m256 squares[8], faint[8];
        char *out = (char *)panel + (size_t)(32 * half);
        for (int r = 0; r < 8; r++)
            squares[r] = faint[r] = _mm256_setzero_ps();
        for (int32_t t = 0; t < dims; t += ROW_STEP) {
            const int32_t live = dims - t;
            const unsigned groups = kept[t / BYTES_STEP] >> t % BYTES_STEP / GROUP & 255;
            const bytes_frame f = {shift + t, _mm256_set1_ps(scale), groups ^ 255};
            __m256 m[8];
            for (int r = 0; r < 8; r++) {
                const int32_t row = 8 * half + r;
                m[r] = _mm256_setzero_ps();
                if (ahead && t % 64 == 0)
                    __builtin_prefetch((const char *)ahead[row] + t);
                if (row >= rows)
                    continue;
                const char *at = (const char *)x[row] + t;
                m[r] = _mm256_castsi256_ps(
                    live < ROW_STEP ? last_bytes(at, live, &f, bias, &squares[r], &faint[r])
                                    : bytes_step(at, &f, bias, &squares[r], &faint[r]));
            }
            transpose(m);
            for (unsigned left = groups; left; left &= left - 1, out += GROUP * PANEL)
                _mm256_store_ps((float *)(void *)out, m[__builtin_ctz(left)]);
        }
        for (int r = 0; r < 8; r++) {
            square[8 * half + r] = sum_lanes(squares[r]);
            residual[8 * half + r] = sum_lanes(faint[r]);
        }
    }
}

/* What rounding a centroid leaves. */
typedef struct rounding {
    float residual; /* sum of squares of what is lost */
    float faint;    /* and of the dims left out */
    double along;   /* sum of integers times shift */
    int32_t sum;    /* of integers */
} rounding;

/* Rounds c: [dims] in quanta q to integers g: [t->screened padded to a step], of the dims that are
 * kept. */
static rounding round_to_quanta(int8_t *g, const fkm_tiles *t, const float *c, float q)
{
    const __m256 share = _mm256_set1_ps(1 / q), quantum = _mm256_set1_ps(q);
    const int32_t padded = (t->dims + BYTES_STEP - 1) / BYTES_STEP * BYTES_STEP;
    rounding out = {0};
    for (int32_t d = 0; d < padded; d += 8) {
        int32_t integer[8];
        float lost[8], mu[8], beside[8];
        const unsigned groups = t->kept[d / BYTES_STEP] >> d % BYTES_STEP / GROUP;
        const __m256 all = load_some(c + d, t->dims - d), v = _mm256_and_ps(all, dims_of(groups));
        const __m256i whole = _mm256_cvtps_epi32(_mm256_mul_ps(v, share));
        _mm256_storeu_si256((__m256i *)(void *)integer, whole);
        _mm256_storeu_ps(lost, _mm256_fnmadd_ps(_mm256_cvtepi32_ps(whole), quantum, v));
        _mm256_storeu_ps(mu, load_some(t->shift + d, t->dims - d));
        _mm256_storeu_ps(beside, _mm256_sub_ps(all, v));
        for (int i = 0; i < 8; i++) {
            if (groups >> i / GROUP & 1)
                *g++ = (int8_t)integer[i];
            out.faint += beside[i] * beside[i];
            out.sum += integer[i];
            out.residual += lost[i] * lost[i];
            out.along += (double)integer[i] * (double)mu[i];
        }
    }
    return out;
}

/* Fills g, t->residual and t->tail; returns -H of the position, or what stands for it (screen.h).
 */
static int32_t round_centroid(
    int8_t *g, fkm_tiles *t, int64_t position, const float *c, int32_t bias)
{
    const int64_t tile = position / TILE;
    rounding r = round_to_quanta(g, t, c, t->quantum[tile]);
    t->residual[position] = r.residual;
    t->tail[position] = r.faint;
    if (position >= t->clusters)
        return PAD_SCORE;
    const double along = r.along * (double)t->quantum[tile];
    double h = rint((along + (double)t->half[position]) / (double)t->unit[tile]);
    if (fabs(h) <= MOST_H)
        return (int32_t)(-h) - bias * r.sum;
    t->residual[position] = FKM_UNSCORED;
    memset(g, 0, (size_t)((t->screened + BYTES_STEP - 1) / BYTES_STEP * BYTES_STEP));
    return 0;
}

/* May products with g: [padded] be added in 16 bits by sets? */
static bool is_narrow(const int8_t *g, int32_t padded)
{
    bool narrow = true;
    for (int32_t d = 0; d < padded; d += SET) {
        int32_t sum[2][2] = {{0}}; /* [set][sign] */
        for (int32_t i = 0; i < SET; i++)
            sum[i / 2 % 2][g[d + i] < 0] += g[d + i];
        for (int set = 0; set < 2; set++)
            narrow = narrow && sum[set][0] <= MOST_SUM && sum[set][1] >= -MOST_SUM;
    }
    return narrow;
}

static void pack_tile(fkm_tiles *t, int64_t first, const float *c, int32_t bias)
{
    char *out = t->packed + (size_t)(first / TILE) * t->tile_bytes;
    int32_t padded = (t->screened + BYTES_STEP - 1) / BYTES_STEP * BYTES_STEP;
    int8_t g[FKM_BYTES_MOST_DIMS];
    bool narrow = true;
    for (int j = 0; j < TILE; j++) {
        t->start[first + j] = round_centroid(g, t, first + j, c + (int64_t)j * t->dims, bias);
        narrow = narrow && is_narrow(g, padded);
        for (int32_t d = 0; d < padded; d += GROUP)
            memcpy(out + (size_t)d * TILE + GROUP * j, g + d, GROUP);
    }
    t->narrow[first / TILE] = narrow;
}

#define BASE fkm_kernels_avx2
#include "calls_tmpl.h"

#define PICKS false

#define BIAS 0
#define NAME(f) f##_u8
#define TABLE fkm_kernels_avx2_u8
#define ISA "avx2"
#define TAKES FKM_U8
#include "int8_tmpl.h"

#define BIAS SIGNED_BIAS
#define NAME(f) f##_i8
#define TABLE fkm_kernels_avx2_i8
#define ISA "avx2"
#define TAKES FKM_I8
#include "int8_tmpl.h"

#else
typedef int fkm_kernels_avx2_int8_needs_x86_64;
#endif
