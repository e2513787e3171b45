/* AVX2 kernels that screen rows of any kind rounded to 8-bit integers times a quantum, one of each
 * row and one of each centroid: two and a half times as many products as float32 has. See screen.h;
 * as in coarse_tmpl.h, the sum of products is exact, and the score a float once, in the epilogue:
 * three roundings. 16 rows x 6 centroids of 32-bit sums in registers.
 *
 * vpmaddubsw adds two products of an unsigned byte and a signed one in 16 bits. To widen each such
 * pair takes two more of the three vector instructions that a cycle begins; so four pairs are first
 * added in 16 bits, over a `set` of 8 of 16 dims. Rows are integers g in [-102, 102], centroids h
 * in [-80, 80], raised by 80 to be unsigned, which the sums of a row start without:
 *
 *   a pair    |sum (h + 80) g| <= 2 * 160 * 102 < 2^15, so that vpmaddubsw never saturates;
 *   a set     |sum (h + 80) g| <= 80 |sum g| + |h| |g| by Cauchy-Schwarz. Additions of 16 bits are
 *             modulo 2^16, so that only the whole sum must fit. Quanta see to it: they are so
 *             coarse that |h| <= 140, and 80 |sum g| + 140 |g| < 2^15, for every set.
 *
 * To be safe from any rows and centroids alike, integers could not exceed 45. Tried, in products of
 * float32's rate (100 to 768 dims): each pair widened, 1.8; two pairs, 2.2; four, 2.4 to 2.5;
 * eight, 2.6, but coarser still; 16-bit integers, 1.4.
 *
 *   panel   [groups of 4 dims][16 rows][4] bytes, then the quanta: [16] float32, then what sums
 *           start at: [16] int32
 *   tile    [groups of 4 dims][6 centroids][4] bytes */
#if defined(__x86_64__)

#include "kernels.h"

#include <immintrin.h>
#include <string.h>

#define TILE 6
#include "avx2_tmpl.h"

#include "finish_tmpl.h"

enum { GROUP = 4, STEP = 32, PANEL_MORE = 2 * PANEL * 4 };

#define SET_GROUPS 4 /* of dims, whose pairs are added in 16 bits: two sets */
#define ROW_TOP 102.0f
#define TILE_TOP 80.0f
#define RAISE 80
#define TILE_SET 140.0f    /* |h| of a set at most: rounding adds sqrt(8) / 2 to */
#define ROUNDED_SET 138.5f /* this */
/* 80 |sum v| + 140 |v| at most: rounding adds 80 * 4 + 140 * sqrt(8) / 2 < 518, and float32
 * arithmetic less than the 49 that are left. */
#define ROUNDED_SUM 32200.0f
/* Of a row or a centroid: below it all is zero, see coarse_tmpl.h. */
#define LEAST_TOP 0x1p-50f

static inline __m256i load_bytes(const char *p)
{
    return _mm256_load_si256((const __m256i *)(const void *)p);
}

/* Adds the products of `groups` <= SET_GROUPS groups of dims. */
static inline __attribute__((always_inline)) void add_products(
    __m256i low[TILE], __m256i high[TILE], const char *x, const char *c, int groups)
{
    const __m256i ones = _mm256_set1_epi16(1);
    UNROLL
    for (int j = 0; j < TILE; j++) {
        __asm__("" : "+r"(x)); /* else GCC keeps rows in registers, and sums out of them */
        __m256i sum0 = _mm256_setzero_si256(), sum1 = sum0;
        UNROLL
        for (int g = 0; g < groups; g++) {
            int32_t four;
            memcpy(&four, c + GROUP * (TILE * g + j), sizeof four);
            const __m256i cj = _mm256_set1_epi32(four);
            const char *at = x + GROUP * PANEL * g;
            sum0 = _mm256_add_epi16(sum0, _mm256_maddubs_epi16(cj, load_bytes(at)));
            sum1 = _mm256_add_epi16(sum1, _mm256_maddubs_epi16(cj, load_bytes(at + 32)));
        }
        low[j] = _mm256_add_epi32(low[j], _mm256_madd_epi16(sum0, ones));
        high[j] = _mm256_add_epi32(high[j], _mm256_madd_epi16(sum1, ones));
    }
}

static void screen_tile(fkm_row_block *b, int32_t panel, const fkm_tiles *t, int32_t tile)
{
    int32_t groups = (t->screened + GROUP - 1) / GROUP;
    const size_t elements = (size_t)groups * GROUP * PANEL;
    const char *x = b->panels + (size_t)panel * (elements + PANEL_MORE);
    const char *c = t->packed + (size_t)tile * t->tile_bytes;
    const char *quanta = x + elements, *start = quanta + PANEL * 4;
    const float *half = t->half + (int64_t)tile * TILE;
    __m256i low[TILE], high[TILE];
    UNROLL
    for (int j = 0; j < TILE; j++) {
        low[j] = load_bytes(start);
        high[j] = load_bytes(start + 32);
    }
    for (; groups >= SET_GROUPS; groups -= SET_GROUPS) {
        add_products(low, high, x, c, SET_GROUPS);
        x += SET_GROUPS * GROUP * PANEL;
        c += SET_GROUPS * GROUP * TILE;
    }
    for (; groups > 0; groups--, x += GROUP * PANEL, c += GROUP * TILE)
        add_products(low, high, x, c, 1);
    const float *quantum = t->centroid_quantum + (int64_t)tile * TILE;
    const __m256 unit0 = V_LOAD((const float *)(const void *)quanta);
    const __m256 unit1 = V_LOAD((const float *)(const void *)quanta + 8);
    V acc0[TILE], acc1[TILE];
    UNROLL
    for (int j = 0; j < TILE; j++) {
        const __m256 h = _mm256_set1_ps(half[j]), q = _mm256_set1_ps(quantum[j]);
        acc0[j] = _mm256_fmsub_ps(_mm256_cvtepi32_ps(low[j]), _mm256_mul_ps(unit0, q), h);
        acc1[j] = _mm256_fmsub_ps(_mm256_cvtepi32_ps(high[j]), _mm256_mul_ps(unit1, q), h);
    }
    finish(b, panel * PANEL, t, tile, acc0, acc1);
}

/* ---- rounding ---- */

/* 8 coordinates in the frame; shift NULL: as they are. */
static inline __m256 framed(const float *x, int64_t live, const float *shift, __m256 scale)
{
    const __m256 v = _mm256_mul_ps(load_some(x, live), scale);
    return shift ? _mm256_sub_ps(v, load_some(shift, live)) : v;
}

/* Sums over the two sets of a vector that holds dims 0-7 of 16, added to dims 8-15: in lanes 0 and
 * 1, and in lanes 2 and 3. */
static inline __m256 over_sets(__m256 v)
{
    v = _mm256_add_ps(v, _mm256_permute2f128_ps(v, v, 1));
    return _mm256_add_ps(v, _mm256_permute_ps(v, 0xb1));
}

static inline __m256 magnitude(__m256 v)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v);
}

/* Of 8 rows, 8 lanes of each: sums of squares, the largest magnitudes of a coordinate, and the
 * largest along |sum| + across |v| over the sets. */
typedef struct extents {
    __m256 square[8], top[8], set[8];
} extents;

static inline void measure(extents *e, int r, const float *x, int32_t dims, const float *shift,
    __m256 scale, float along, float across)
{
    const __m256 a = _mm256_set1_ps(along), b = _mm256_set1_ps(across);
    __m256 square = _mm256_setzero_ps(), top = square, most = square;
    for (int32_t t = 0; t < dims; t += 16) {
        const __m256 v = framed(x + t, dims - t, shift ? shift + t : NULL, scale);
        const __m256 w = framed(x + t + 8, dims - t - 8, shift ? shift + t + 8 : NULL, scale);
        const __m256 squares = _mm256_fmadd_ps(w, w, _mm256_mul_ps(v, v));
        const __m256 length = _mm256_mul_ps(_mm256_sqrt_ps(over_sets(squares)), b);
        const __m256 sum = magnitude(over_sets(_mm256_add_ps(v, w)));
        square = _mm256_add_ps(square, squares);
        most = _mm256_max_ps(most, _mm256_fmadd_ps(sum, a, length));
        top = _mm256_max_ps(top, _mm256_max_ps(magnitude(v), magnitude(w)));
    }
    e->square[r] = square;
    e->top[r] = top;
    e->set[r] = most;
}

/* Quanta and their inverses, of 8 rows. Rounded products with the inverse exceed the largest
 * integer by 2^-21 of it at most: they are it as integers. */
typedef struct quanta {
    float size[8], share[8];
} quanta;

static inline void set_quanta(quanta *q, extents *e, float most_top, float most_set)
{
    const __m256 one = _mm256_set1_ps(1), top = tops_of_lanes(e->top);
    const __m256 of_top = _mm256_div_ps(top, _mm256_set1_ps(most_top));
    const __m256 of_set = _mm256_div_ps(tops_of_lanes(e->set), _mm256_set1_ps(most_set));
    const __m256 some = _mm256_cmp_ps(top, _mm256_set1_ps(LEAST_TOP), _CMP_GT_OQ);
    const __m256 size = _mm256_blendv_ps(one, _mm256_max_ps(of_set, of_top), some);
    _mm256_storeu_ps(q->size, size);
    _mm256_storeu_ps(q->share, _mm256_and_ps(_mm256_div_ps(one, size), some));
}

/* What rounding takes away, and sums of integers. */
typedef struct rounding {
    __m256 residual;
    __m256i sum;
} rounding;

/* Rounds STEP coordinates to integers, in quanta q of row i. */
static inline __m256i round_step(const float *x, int64_t live, const float *shift, __m256 scale,
    const quanta *q, int i, rounding *r)
{
    const __m256 share = _mm256_set1_ps(q->share[i]), size = _mm256_set1_ps(q->size[i]);
    __m256i part[4];
    for (int h = 0; h < 4; h++) {
        const __m256 v = framed(x + 8 * h, live - 8 * h, shift ? shift + 8 * h : NULL, scale);
        const __m256i g = _mm256_cvtps_epi32(_mm256_mul_ps(v, share));
        const __m256 rest = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(g), size, v);
        r->residual = _mm256_fmadd_ps(rest, rest, r->residual);
        r->sum = _mm256_add_epi32(r->sum, g);
        part[h] = g;
    }
    const __m256i bytes = _mm256_packs_epi16(
        _mm256_packs_epi32(part[0], part[1]), _mm256_packs_epi32(part[2], part[3]));
    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/* Packs rows [row0, row0 + 8) of a panel. */
static void pack_half(void *panel, float *square, float *residual, const void *const *x,
    int32_t rows, int32_t dims, const float *shift, float scale, int32_t row0)
{
    const __m256 s = _mm256_set1_ps(scale);
    const int32_t groups = (dims + GROUP - 1) / GROUP;
    char *out = (char *)panel + (size_t)(GROUP * row0), *end = out + (size_t)groups * GROUP * PANEL;
    quanta q;
    extents e;
    rounding rest[8];
    for (int r = 0; r < 8; r++) {
        e.square[r] = e.top[r] = e.set[r] = _mm256_setzero_ps();
        if (row0 + r < rows)
            measure(&e, r, x[row0 + r], dims, shift, s, RAISE, TILE_SET);
        rest[r] = (rounding){_mm256_setzero_ps(), _mm256_setzero_si256()};
    }
    set_quanta(&q, &e, ROW_TOP, ROUNDED_SUM);
    _mm256_storeu_ps(square + row0, sums_of_lanes(e.square));
    for (int32_t t = 0; t < dims; t += STEP) {
        __m256 m[8];
        for (int r = 0; r < 8; r++) {
            m[r] = _mm256_setzero_ps();
            if (row0 + r < rows)
                m[r] = _mm256_castsi256_ps(round_step(
                    (const float *)x[row0 + r] + t, dims - t, shift + t, s, &q, r, &rest[r]));
        }
        transpose(m);
        for (int32_t g = t / GROUP; g < groups && g < (t + STEP) / GROUP; g++)
            V_STORE((float *)(void *)(out + (size_t)g * GROUP * PANEL), m[g - t / GROUP]);
    }
    V_STORE((float *)(void *)end, _mm256_loadu_ps(q.size));
    __m256 residuals[8], sums[8];
    for (int r = 0; r < 8; r++) {
        residuals[r] = rest[r].residual;
        sums[r] = _mm256_castsi256_ps(rest[r].sum);
    }
    _mm256_storeu_ps(residual + row0, sums_of_lanes(residuals));
    transpose(sums);
    __m256i sum = _mm256_setzero_si256();
    for (int i = 0; i < 8; i++)
        sum = _mm256_add_epi32(sum, _mm256_castps_si256(sums[i]));
    sum = _mm256_mullo_epi32(sum, _mm256_set1_epi32(-RAISE));
    V_STORE((float *)(void *)(end + PANEL * 4), _mm256_castsi256_ps(sum));
}

static void pack(void *panel, float *square, float *residual, const void *const *x, int32_t rows,
    int32_t dims, const float *shift, float scale, const void *const *ahead, const uint16_t *kept)
{
    (void)kept;
    for (int r = 0; ahead && r < PANEL; r++)
        for (int32_t t = 0; t < dims; t += 16)
            __builtin_prefetch((const float *)ahead[r] + t);
    pack_half(panel, square, residual, x, rows, dims, shift, scale, 0);
    pack_half(panel, square, residual, x, rows, dims, shift, scale, 8);
}

/* Lays out centroid j of a tile, c: [t->screened]. */
static void pack_centroid(fkm_tiles *t, int64_t first, int j, const float *c)
{
    const __m256 one = _mm256_set1_ps(1);
    const int32_t dims = t->screened;
    char *out = t->packed + (size_t)(first / TILE) * t->tile_bytes + GROUP * j;
    rounding rest = {_mm256_setzero_ps(), _mm256_setzero_si256()};
    extents e;
    quanta q;
    for (int r = 0; r < 8; r++)
        e.square[r] = e.top[r] = e.set[r] = _mm256_setzero_ps();
    measure(&e, 0, c, dims, NULL, one, 0, 1);
    set_quanta(&q, &e, TILE_TOP, ROUNDED_SET);
    for (int32_t d = 0; d < dims; d += STEP) {
        char bytes[STEP];
        const __m256i h = round_step(c + d, dims - d, NULL, one, &q, 0, &rest);
        const __m256i raised = _mm256_add_epi8(h, _mm256_set1_epi8(RAISE));
        _mm256_storeu_si256((__m256i *)(void *)bytes, raised);
        for (int32_t g = 0; g < STEP && d + g < dims; g += GROUP)
            memcpy(out + (size_t)(d + g) * TILE, bytes + g, GROUP);
    }
    t->centroid_quantum[first + j] = q.size[0];
    t->residual[first + j] = sum_lanes(rest.residual);
}

static void pack_tile(fkm_tiles *t, int64_t first, const float *c)
{
    for (int j = 0; j < TILE; j++)
        pack_centroid(t, first, j, c + (int64_t)j * t->screened);
}

#define BASE fkm_kernels_avx2
#include "calls_tmpl.h"

const fkm_kernels fkm_kernels_avx2_s8 = {
    .isa = "avx2int8",
    .panel = PANEL,
    .tile = TILE,
    .item = 1,
    .dim_step = GROUP,
    .panel_more = PANEL_MORE,
    .rate = 36,
    .low = true,
    .named = true,
    .pack = pack,
    .pack_tile = pack_tile,
    .screen = screen,
    CALLS,
};

#else
typedef int fkm_kernels_avx2_s8_needs_x86_64;
#endif
