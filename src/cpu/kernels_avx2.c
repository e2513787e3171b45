/* AVX2 + FMA kernels: 16 rows x 6 centroids of float32 in registers (12 of 16 hold sums). */
#if defined(__x86_64__)

#include "kernels.h"

#include <immintrin.h>
#include <string.h>

#define V __m256
#define LANES 8
#define TILE 6
#define V_LOAD(p) _mm256_load_ps(p)
#define V_STORE(p, v) _mm256_store_ps(p, v)
#define V_SET1(f) _mm256_set1_ps(f)
#define V_ZERO() _mm256_setzero_ps()
#define V_ADD(a, b) _mm256_add_ps(a, b)
#define V_SUB(a, b) _mm256_sub_ps(a, b)
#define V_MAX(a, b) _mm256_max_ps(a, b)
#define V_FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define V_GE(a, b) (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GE_OQ))
#define V_HAS(p, i)                                                                                \
    (_mm256_movemask_epi8(_mm256_cmpeq_epi32(                                                      \
         _mm256_load_si256((const __m256i *)(const void *)(p)), _mm256_set1_epi32(i))) != 0)
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

/* 8 x 8 transpose: m[r] holds row r on entry, column r on return. */
static inline void transpose(__m256 m[8])
{
    __m256 t[8];
    for (int i = 0; i < 4; i++) {
        t[2 * i] = _mm256_unpacklo_ps(m[2 * i], m[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(m[2 * i], m[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        m[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
        m[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
        m[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
        m[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm256_permute2f128_ps(m[i], m[i + 4], 0x20);
        t[i + 4] = _mm256_permute2f128_ps(m[i], m[i + 4], 0x31);
    }
    memcpy(m, t, sizeof t);
}

static void pack(void *panel, float *square, float *residual, const float *const *x, int32_t rows,
    int32_t dims, const float *shift, float scale)
{
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
                if (row0 + r < rows) {
                    __m256 v = _mm256_loadu_ps(x[row0 + r] + t);
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
                float v = live ? x[row0 + r][t] * scale - shift[t] : 0;
                out[(int64_t)t * PANEL + row0 + r] = v;
                square[row0 + r] += v * v;
            }
        }
    }
}

static float sum_lanes(__m256 v)
{
    float part[8], sum = 0;
    _mm256_storeu_ps(part, v);
    for (int i = 0; i < 8; i++)
        sum += part[i];
    return sum;
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

static void add_row(int64_t *sum, const float *x, int32_t dims, double scale)
{
    for (int32_t t = 0; t < dims; t++) /* cvtsd2si: nearest, ties to even */
        sum[t] += _mm_cvtsd_si64(_mm_set_sd((double)x[t] * scale));
}

static void mean_row(float *mean, const int64_t *sum, int32_t dims, double count, double scale)
{
    fkm_kernels_scalar.mean_row(mean, sum, dims, count, scale);
}

static void add_squares(int64_t sum[2], const float *x, int32_t dims, double scale, double split)
{
    fkm_kernels_scalar.add_squares(sum, x, dims, scale, split);
}

const fkm_kernels fkm_kernels_avx2 = {
    .isa = "avx2",
    .panel = PANEL,
    .tile = TILE,
    .item = sizeof(float),
    .dim_step = 1,
    .rate = 15,
    .widen = widen,
    .pack = pack,
    .pack_tile = pack_tile,
    .screen = screen,
    .rotate = rotate,
    .dot = dot,
    .canonical = canonical,
    .add_row = add_row,
    .mean_row = mean_row,
    .add_squares = add_squares,
};

#else
typedef int fkm_kernels_avx2_needs_x86_64;
#endif
