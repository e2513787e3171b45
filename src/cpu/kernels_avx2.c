/* AVX2 + FMA kernels: 16 rows x 6 centroids of float32 in registers (12 of 16 hold sums). */
#if defined(__x86_64__)

#include "kernels.h"

#include <immintrin.h>
#include <string.h>

#define TILE 6
#include "avx2_tmpl.h"
#define V_ZERO() _mm256_setzero_ps()
#include "screen_tmpl.h"

static void widen(float *out, const void *x, fkm_dtype t, int64_t n)
{
    size_t size = fkm_dtype_size(t);
    const char *from = x;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 v;
        if (t == FKM_U8) {
            v = _mm256_cvtepi32_ps(
                _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(from + i))));
        } else if (t == FKM_I8) {
            v = _mm256_cvtepi32_ps(
                _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(from + i))));
        } else {
            __m128i h = _mm_loadu_si128((const __m128i *)(const void *)(from + 2 * i));
            v = t == FKM_F16 ? _mm256_cvtph_ps(h)
                             : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
        }
        _mm256_storeu_ps(out + i, v);
    }
    for (; i < n; i++)
        out[i] = fkm_dtype_to_float(t, from + (size_t)i * size);
}

static void pack(void *panel, float *square, float *residual, const void *const *x, int32_t rows,
    int32_t dims, const float *shift, float scale, const void *const *ahead, const uint16_t *kept)
{
    (void)kept;
    float *out = panel;
    (void)residual; /* nothing is rounded */
    const __m256 s = _mm256_set1_ps(scale);
    memset(square, 0, PANEL * sizeof *square);
    for (int32_t row0 = 0; row0 < PANEL; row0 += 8) {
        __m256 sum = _mm256_setzero_ps();
        int32_t t = 0;
        for (; t + 8 <= dims; t += 8) {
            const __m256 mu = _mm256_loadu_ps(shift + t);
            __m256 m[8];
            for (int r = 0; r < 8; r++) {
                m[r] = _mm256_setzero_ps();
                if (ahead && t % 16 == 0)
                    __builtin_prefetch((const float *)ahead[row0 + r] + t);
                if (row0 + r < rows) {
                    __m256 v = _mm256_loadu_ps((const float *)x[row0 + r] + t);
                    m[r] = _mm256_sub_ps(_mm256_mul_ps(v, s), mu);
                }
            }
            transpose(m);
            for (int c = 0; c < 8; c++) {
                sum = _mm256_fmadd_ps(m[c], m[c], sum);
                _mm256_store_ps(out + (int64_t)(t + c) * PANEL + row0, m[c]);
            }
        }
        _mm256_storeu_ps(square + row0, sum);
        for (; t < dims; t++) {
            for (int r = 0; r < 8; r++) {
                bool live = row0 + r < rows;
                float v = live ? ((const float *)x[row0 + r])[t] * scale - shift[t] : 0;
                out[(int64_t)t * PANEL + row0 + r] = v;
                square[row0 + r] += v * v;
            }
        }
    }
}

/* Products of `rows` <= 3 rows with `heads` <= 2 axes, two sums each, so that chains are short. */
static inline void rotate_block(float *out, int64_t stride, const float *x, int rows, int32_t dims,
    const float *axes, int heads)
{
    __m256 sum[3][2][2];
    int32_t t = 0;
    for (int r = 0; r < 3; r++)
        for (int h = 0; h < 2; h++)
            sum[r][h][0] = sum[r][h][1] = _mm256_setzero_ps();
    for (; t + 16 <= dims; t += 16)
        for (int half = 0; half < 2; half++) {
            __m256 a[2];
            for (int h = 0; h < heads; h++)
                a[h] = _mm256_loadu_ps(axes + (int64_t)h * dims + t + 8 * half);
            for (int r = 0; r < rows; r++) {
                const __m256 v = _mm256_loadu_ps(x + (int64_t)r * dims + t + 8 * half);
                for (int h = 0; h < heads; h++)
                    sum[r][h][half] = _mm256_fmadd_ps(v, a[h], sum[r][h][half]);
            }
        }
    for (int r = 0; r < rows; r++)
        for (int h = 0; h < heads; h++) {
            float rest = 0;
            for (int32_t i = t; i < dims; i++)
                rest += x[(int64_t)r * dims + i] * axes[(int64_t)h * dims + i];
            out[r * stride + h] = sum_lanes(_mm256_add_ps(sum[r][h][0], sum[r][h][1])) + rest;
        }
}

static void rotate(
    float *out, const float *x, int32_t rows, int32_t dims, const float *axes, int32_t heads)
{
    for (int32_t r = 0; r < rows; r += 3) {
        int nr = rows - r < 3 ? rows - r : 3;
        for (int32_t h = 0; h < heads; h += 2) {
            int nh = heads - h < 2 ? heads - h : 2;
            float *to = out + (int64_t)r * heads + h;
            const float *from = x + (int64_t)r * dims, *a = axes + (int64_t)h * dims;
            if (nr == 3 && nh == 2)
                rotate_block(to, heads, from, 3, dims, a, 2);
            else
                rotate_block(to, heads, from, nr, dims, a, nh);
        }
    }
}

static float dot(const float *x, const float *shift, float scale, const float *c, int32_t dims)
{
    const __m256 s = _mm256_set1_ps(scale);
    __m256 sum0 = _mm256_setzero_ps(), sum1 = sum0;
    int32_t t = 0;
    for (; t + 16 <= dims; t += 16) {
        __m256 v0 = _mm256_mul_ps(_mm256_loadu_ps(x + t), s);
        __m256 v1 = _mm256_mul_ps(_mm256_loadu_ps(x + t + 8), s);
        v0 = _mm256_sub_ps(v0, _mm256_loadu_ps(shift + t));
        v1 = _mm256_sub_ps(v1, _mm256_loadu_ps(shift + t + 8));
        sum0 = _mm256_fmadd_ps(v0, _mm256_loadu_ps(c + t), sum0);
        sum1 = _mm256_fmadd_ps(v1, _mm256_loadu_ps(c + t + 8), sum1);
    }
    float sum = sum_lanes(_mm256_add_ps(sum0, sum1)), rest = 0;
    for (; t < dims; t++)
        rest += (x[t] * scale - shift[t]) * c[t];
    return sum + rest;
}

static double norm2(const float *c, const float *shift, float scale, int32_t dims, float *top)
{
    const __m128 s = _mm_set1_ps(scale);
    const __m256d wide = _mm256_set1_pd(scale);
    __m256d sum[2] = {_mm256_setzero_pd(), _mm256_setzero_pd()};
    __m128 most = _mm_setzero_ps();
    int32_t t = 0;
    for (int i = 0; t + 4 <= dims; t += 4, i ^= 1) {
        const __m128 x = _mm_loadu_ps(c + t), mu = _mm_loadu_ps(shift + t);
        const __m128 image = _mm_sub_ps(_mm_mul_ps(x, s), mu);
        const __m256d v = _mm256_fmsub_pd(_mm256_cvtps_pd(x), wide, _mm256_cvtps_pd(mu));
        most = _mm_max_ps(most, _mm_andnot_ps(_mm_set1_ps(-0.0f), image));
        sum[i] = _mm256_fmadd_pd(v, v, sum[i]);
    }
    double lane[4], total;
    float of_lane[4];
    _mm256_storeu_pd(lane, _mm256_add_pd(sum[0], sum[1]));
    _mm_storeu_ps(of_lane, most);
    total = fkm_kernels_scalar.norm2(c + t, shift + t, scale, dims - t, top);
    for (int i = 0; i < 4; i++) {
        total += lane[i];
        *top = fmaxf(*top, of_lane[i]);
    }
    return total;
}

/* Lanes 0-3 and 4-7 of the definition in two registers. */
static double canonical(const float *x, const float *c, int32_t dims)
{
    __m256d a = _mm256_setzero_pd(), b = a;
    int32_t t = 0;
    for (; t + 8 <= dims; t += 8) {
        __m256d e = _mm256_sub_pd(
            _mm256_cvtps_pd(_mm_loadu_ps(x + t)), _mm256_cvtps_pd(_mm_loadu_ps(c + t)));
        __m256d f = _mm256_sub_pd(
            _mm256_cvtps_pd(_mm_loadu_ps(x + t + 4)), _mm256_cvtps_pd(_mm_loadu_ps(c + t + 4)));
        a = _mm256_add_pd(a, _mm256_mul_pd(e, e));
        b = _mm256_add_pd(b, _mm256_mul_pd(f, f));
    }
    double lane[8];
    _mm256_storeu_pd(lane, a);
    _mm256_storeu_pd(lane + 4, b);
    for (; t < dims; t++) {
        double e = (double)x[t] - (double)c[t];
        lane[t % 8] += e * e;
    }
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
           ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

/* Doubles below 2^51 in magnitude become integers by adding 1.5 2^52, which rounds to nearest, ties
 * to even, and leaves the integer in the low bits. */
#define MAGIC 0x1.8p52
#define MAGIC_MOST 0x1p51

static inline __m256i to_integers(__m256d v)
{
    const __m256d magic = _mm256_set1_pd(MAGIC);
    return _mm256_sub_epi64(
        _mm256_castpd_si256(_mm256_add_pd(v, magic)), _mm256_castpd_si256(magic));
}

/* Are all below `most` in magnitude? */
static inline bool all_below(__m256d v, double most)
{
    const __m256d size = _mm256_andnot_pd(_mm256_set1_pd(-0.0), v);
    return _mm256_movemask_pd(_mm256_cmp_pd(size, _mm256_set1_pd(most), _CMP_LT_OQ)) == 0xf;
}

static void add_row(int64_t *sum, const float *x, int32_t dims, double scale)
{
    const __m256d s = _mm256_set1_pd(scale);
    int32_t t = 0;
    for (; t + 4 <= dims; t += 4) {
        const __m256d v = _mm256_mul_pd(_mm256_cvtps_pd(_mm_loadu_ps(x + t)), s);
        if (!all_below(v, MAGIC_MOST)) {
            fkm_kernels_scalar.add_row(sum + t, x + t, 4, scale);
            continue;
        }
        __m256i *at = (__m256i *)(void *)(sum + t);
        _mm256_storeu_si256(at, _mm256_add_epi64(_mm256_loadu_si256(at), to_integers(v)));
    }
    for (; t < dims; t++) /* cvtsd2si: nearest, ties to even */
        sum[t] += _mm_cvtsd_si64(_mm_set_sd((double)x[t] * scale));
}

static void mean_row(float *mean, const int64_t *sum, int32_t dims, double count, double scale)
{
    fkm_kernels_scalar.mean_row(mean, sum, dims, count, scale);
}

static void add_bytes(
    int64_t *sum, const void *x, fkm_dtype t, int32_t dims, int32_t shift, bool leaves)
{
    const __m256i by = _mm256_set1_epi64x(shift);
    const char *at = x;
    int32_t d = 0;
    for (; d + 4 <= dims; d += 4) {
        int32_t four;
        memcpy(&four, at + d, sizeof four);
        const __m128i bytes = _mm_cvtsi32_si128(four);
        const __m256i v = t == FKM_U8 ? _mm256_cvtepu8_epi64(bytes) : _mm256_cvtepi8_epi64(bytes);
        const __m256i q = _mm256_sllv_epi64(v, by);
        __m256i *to = (__m256i *)(void *)(sum + d);
        const __m256i old = _mm256_loadu_si256(to);
        _mm256_storeu_si256(to, leaves ? _mm256_sub_epi64(old, q) : _mm256_add_epi64(old, q));
    }
    fkm_kernels_scalar.add_bytes(sum + d, at + d, t, dims - d, shift, leaves);
}

enum { SQUARES_AT_ONCE = 1 << 17 }; /* pairs of them are below 2^17, and 32-bit lanes take 2^14 */

static int64_t squares_of_bytes(const void *x, fkm_dtype t, int32_t dims)
{
    const char *at = x;
    int64_t total = 0;
    int32_t d = 0;
    while (d + 16 <= dims) {
        const int32_t end = dims - d < SQUARES_AT_ONCE ? dims : d + SQUARES_AT_ONCE;
        __m256i sum = _mm256_setzero_si256();
        for (; d + 16 <= end; d += 16) {
            const __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(at + d));
            const __m256i w = t == FKM_U8 ? _mm256_cvtepu8_epi16(v) : _mm256_cvtepi8_epi16(v);
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(w, w));
        }
        uint32_t part[8];
        _mm256_storeu_si256((__m256i *)(void *)part, sum);
        for (int i = 0; i < 8; i++)
            total += part[i];
    }
    return total + fkm_kernels_scalar.squares_of_bytes(at + d, t, dims - d);
}

/* The parts of a square are at most |q| and split: as integers they take to_integers, too. */
static void add_squares(int64_t sum[2], const float *x, int32_t dims, double scale, double split)
{
    const __m256d s = _mm256_set1_pd(scale), b = _mm256_set1_pd(split);
    const __m256d share = _mm256_set1_pd(1 / split);
    __m256i high = _mm256_setzero_si256(), low = high;
    int32_t t = 0;
    for (; t + 4 <= dims && split < MAGIC_MOST; t += 4) {
        __m256d q = _mm256_mul_pd(_mm256_cvtps_pd(_mm_loadu_ps(x + t)), s);
        q = _mm256_round_pd(q, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        const __m256d square = _mm256_mul_pd(q, q); /* exact: q has the 24 bits of a float32 */
        const __m256d h =
            _mm256_round_pd(_mm256_mul_pd(square, share), _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
        high = _mm256_add_epi64(high, to_integers(h));
        low = _mm256_add_epi64(low, to_integers(_mm256_fnmadd_pd(h, b, square)));
    }
    int64_t part[2][4];
    _mm256_storeu_si256((__m256i *)(void *)part[0], high);
    _mm256_storeu_si256((__m256i *)(void *)part[1], low);
    for (int i = 0; i < 4; i++) {
        sum[0] += part[0][i];
        sum[1] += part[1][i];
    }
    fkm_kernels_scalar.add_squares(sum, x + t, dims - t, scale, split);
}

/* ---- inertia ---- */

#define D __m256d
#define D_LANES 4
#define D_SET1(d) _mm256_set1_pd(d)
#define D_ADD(a, b) _mm256_add_pd(a, b)
#define D_SUB(a, b) _mm256_sub_pd(a, b)
#define D_FMA(a, b, c) _mm256_fmadd_pd(a, b, c)
#define D_MOVED(v, from) moved(v, from)

static inline int64_t moved(__m256d v, uint64_t from)
{
    uint64_t part[4];
    _mm256_storeu_pd((double *)(void *)part, v);
    return (int64_t)(part[0] + part[1] + part[2] + part[3] - 4 * from);
}

static inline __m256i first_four(int32_t n)
{
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}

static inline __m256d coordinates(const float *c, int32_t n, float least)
{
    const __m128i live = _mm_cmpgt_epi32(_mm_set1_epi32(n), _mm_setr_epi32(0, 1, 2, 3));
    const __m128 v = n >= 4 ? _mm_loadu_ps(c) : _mm_maskload_ps(c, live);
    if (least == 0)
        return _mm256_cvtps_pd(v);
    const __m128 size = _mm_andnot_ps(_mm_set1_ps(-0.0f), v);
    return _mm256_cvtps_pd(_mm_and_ps(v, _mm_cmpge_ps(size, _mm_set1_ps(least))));
}

/* Halves become doubles by their bits: the lower one is a count of quanta of 2^52, which are 1, the
 * higher one, plus 2^31, of those of 2^84, which are 2^32. */
static inline void sums(__m256d *high, __m256d *low, const int64_t *sum, int32_t n)
{
    const __m256i s =
        n >= 4 ? _mm256_loadu_si256((const __m256i *)(const void *)sum)
               : _mm256_maskload_epi64((const long long *)(const void *)sum, first_four(n));
    const __m256d low0 = _mm256_set1_pd(0x1p52), high0 = _mm256_set1_pd(0x1p84 + 0x1p63);
    *low = _mm256_sub_pd(
        _mm256_castsi256_pd(_mm256_blend_epi32(s, _mm256_castpd_si256(low0), 0xaa)), low0);
    *high = _mm256_sub_pd(
        _mm256_castsi256_pd(_mm256_xor_si256(_mm256_srli_epi64(s, 32), _mm256_castpd_si256(high0))),
        high0);
}
#include "inertia_tmpl.h"

static int32_t settle(const fkm_row_block *b, const int32_t *index, int32_t *label, int32_t *others)
{
    return fkm_kernels_scalar.settle(b, index, label, others);
}

const fkm_kernels fkm_kernels_avx2 = {
    .isa = "avx2",
    .panel = PANEL,
    .tile = TILE,
    .item = sizeof(float),
    .dim_step = 1,
    .rate = 15,
    .coarse = &fkm_kernels_avx2_s8,
    .widen = widen,
    .pack = pack,
    .pack_tile = pack_tile,
    .screen = screen,
    .settle = settle,
    .rotate = rotate,
    .dot = dot,
    .norm2 = norm2,
    .canonical = canonical,
    .add_row = add_row,
    .add_bytes = add_bytes,
    .squares_of_bytes = squares_of_bytes,
    .mean_row = mean_row,
    .add_squares = add_squares,
    .inertia_piece = inertia_piece,
};

#else
typedef int fkm_kernels_avx2_needs_x86_64;
#endif
