/* AVX-512 kernels: 32 rows x 12 centroids of float32 in registers (24 of 32 hold sums). */
#if defined(__x86_64__)

#include "kernels.h"

#include "avx512_tmpl.h"

#define TILE 12
#include "screen_tmpl.h"

#include "transpose_tmpl.h"

static void widen(float *out, const void *x, fkm_dtype t, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = first_lanes(n - i);
        __m512 v = _mm512_setzero_ps();
        if (t == FKM_U8) {
            __m128i b = _mm_maskz_loadu_epi8(m, (const uint8_t *)x + i);
            v = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(b));
        } else if (t == FKM_I8) {
            __m128i b = _mm_maskz_loadu_epi8(m, (const int8_t *)x + i);
            v = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(b));
        } else {
            __m256i h = _mm256_maskz_loadu_epi16(m, (const uint16_t *)x + i);
            v = t == FKM_F16 ? _mm512_cvtph_ps(h)
                             : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
        }
        _mm512_mask_storeu_ps(out + i, m, v);
    }
}

static void pack(void *panel, float *square, float *residual, const void *const *x, int32_t rows,
    int32_t dims, const float *shift, float scale, const void *const *ahead, const uint16_t *kept)
{
    (void)kept;
    float *out = panel;
    (void)residual; /* nothing is rounded */
    const __m512 s = _mm512_set1_ps(scale);
    for (int half = 0; half < 2; half++) {
        int32_t row0 = half * 16;
        __m512 sum = _mm512_setzero_ps();
        for (int32_t t = 0; t < dims; t += 16) {
            const __mmask16 live = first_lanes(dims - t);
            const __m512 mu = _mm512_maskz_loadu_ps(live, shift + t);
            __m512i m[16];
            for (int r = 0; r < 16; r++) {
                m[r] = _mm512_setzero_si512();
                if (ahead)
                    __builtin_prefetch((const float *)ahead[row0 + r] + t);
                if (row0 + r < rows) {
                    __m512 v = _mm512_maskz_loadu_ps(live, (const float *)x[row0 + r] + t);
                    m[r] = _mm512_castps_si512(_mm512_sub_ps(_mm512_mul_ps(v, s), mu));
                }
            }
            transpose(m);
            int32_t columns = dims - t < 16 ? dims - t : 16;
            for (int c = 0; c < columns; c++) {
                const __m512 column = _mm512_castsi512_ps(m[c]);
                sum = _mm512_fmadd_ps(column, column, sum);
                _mm512_store_ps(out + (int64_t)(t + c) * PANEL + row0, column);
            }
        }
        _mm512_storeu_ps(square + row0, sum);
    }
}

/* Products of `rows` <= 6 rows with `heads` <= 4 axes: 24 sums in registers. */
static inline void rotate_block(float *out, int64_t stride, const float *x, int rows, int32_t dims,
    const float *axes, int heads)
{
    __m512 sum[6][4];
    for (int r = 0; r < 6; r++)
        for (int h = 0; h < 4; h++)
            sum[r][h] = _mm512_setzero_ps();
    for (int32_t t = 0; t < dims; t += 16) {
        const __mmask16 m = first_lanes(dims - t);
        __m512 a[4];
        for (int h = 0; h < heads; h++)
            a[h] = _mm512_maskz_loadu_ps(m, axes + (int64_t)h * dims + t);
        for (int r = 0; r < rows; r++) {
            const __m512 v = _mm512_maskz_loadu_ps(m, x + (int64_t)r * dims + t);
            for (int h = 0; h < heads; h++)
                sum[r][h] = _mm512_fmadd_ps(v, a[h], sum[r][h]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int h = 0; h < heads; h++)
            out[r * stride + h] = _mm512_reduce_add_ps(sum[r][h]);
}

static void rotate(
    float *out, const float *x, int32_t rows, int32_t dims, const float *axes, int32_t heads)
{
    for (int32_t r = 0; r < rows; r += 6) {
        int nr = rows - r < 6 ? rows - r : 6;
        for (int32_t h = 0; h < heads; h += 4) {
            int nh = heads - h < 4 ? heads - h : 4;
            float *to = out + (int64_t)r * heads + h;
            const float *from = x + (int64_t)r * dims, *a = axes + (int64_t)h * dims;
            if (nr == 6 && nh == 4)
                rotate_block(to, heads, from, 6, dims, a, 4);
            else
                rotate_block(to, heads, from, nr, dims, a, nh);
        }
    }
}

/* 16 rows at a time, slot by slot of their lists. */
static int32_t settle(const fkm_row_block *b, const int32_t *index, int32_t *label, int32_t *others)
{
    const __m512i one = _mm512_set1_epi32(1), most = _mm512_set1_epi32(FKM_CANDIDATES);
    __m512i row = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    int32_t n = 0;
    for (int32_t r = 0; r < b->rows; r += 16) {
        const __mmask16 live = first_lanes(b->rows - r);
        const __m512 floor = _mm512_maskz_loadu_ps(live, b->floor + r);
        const __m512 residual = _mm512_maskz_loadu_ps(live, b->residual + r);
        const __m512i count = _mm512_maskz_loadu_epi32(live, b->count + r);
        __m512i left = _mm512_setzero_si512(), position = left, slot = left;
        __mmask16 more = _mm512_cmple_epi32_mask(count, most);
        for (int64_t at = r; (more &= _mm512_cmplt_epi32_mask(slot, count)) != 0; at += b->stride) {
            const __m512 upper = _mm512_maskz_loadu_ps(more, b->upper + at);
            const __mmask16 stands = _mm512_mask_cmp_ps_mask(more, upper, floor, _CMP_GE_OQ);
            position = _mm512_mask_loadu_epi32(position, stands, b->position + at);
            left = _mm512_mask_add_epi32(left, stands, left, one);
            slot = _mm512_add_epi32(slot, one);
        }
        const __mmask16 screened =
            _mm512_mask_cmp_ps_mask(live, residual, _mm512_setzero_ps(), _CMP_GE_OQ);
        const __mmask16 single = _mm512_mask_cmpeq_epi32_mask(screened, left, one);
        const __m512i found =
            _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), single, position, index, 4);
        const __mmask16 other = live & ~single;
        _mm512_mask_storeu_epi32(label + r, live, found);
        _mm512_mask_compressstoreu_epi32(others + n, other, row);
        n += __builtin_popcount(other);
        row = _mm512_add_epi32(row, _mm512_set1_epi32(16));
    }
    return n;
}

static float dot(const float *x, const float *shift, float scale, const float *c, int32_t dims)
{
    const __m512 s = _mm512_set1_ps(scale);
    __m512 sum = _mm512_setzero_ps();
    for (int32_t t = 0; t < dims; t += 16) {
        const __mmask16 live = first_lanes(dims - t);
        __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(live, x + t), s);
        v = _mm512_sub_ps(v, _mm512_maskz_loadu_ps(live, shift + t));
        sum = _mm512_fmadd_ps(v, _mm512_maskz_loadu_ps(live, c + t), sum);
    }
    return _mm512_reduce_add_ps(sum);
}

static double norm2(const float *c, const float *shift, float scale, int32_t dims, float *top)
{
    const __m256 s = _mm256_set1_ps(scale);
    const __m512d wide = _mm512_set1_pd(scale);
    __m512d sum[2] = {_mm512_setzero_pd(), _mm512_setzero_pd()};
    __m256 most = _mm256_setzero_ps();
    for (int32_t t = 0, i = 0; t < dims; t += 8, i ^= 1) {
        const __mmask8 live = (__mmask8)first_lanes(dims - t);
        const __m256 x = _mm256_maskz_loadu_ps(live, c + t);
        const __m256 mu = _mm256_maskz_loadu_ps(live, shift + t);
        const __m256 image = _mm256_sub_ps(_mm256_mul_ps(x, s), mu);
        const __m512d v = _mm512_fmsub_pd(_mm512_cvtps_pd(x), wide, _mm512_cvtps_pd(mu));
        most = _mm256_max_ps(most, _mm256_andnot_ps(_mm256_set1_ps(-0.0f), image));
        sum[i] = _mm512_fmadd_pd(v, v, sum[i]);
    }
    *top = _mm512_reduce_max_ps(_mm512_zextps256_ps512(most));
    return _mm512_reduce_add_pd(_mm512_add_pd(sum[0], sum[1]));
}

/* The eight lanes of the definition are the eight doubles of a register. */
static double canonical(const float *x, const float *c, int32_t dims)
{
    __m512d a = _mm512_setzero_pd();
    for (int32_t t = 0; t < dims; t += 8) {
        const __mmask8 live = (__mmask8)first_lanes(dims - t);
        __m512d v = _mm512_cvtps_pd(_mm256_maskz_loadu_ps(live, x + t));
        __m512d e = _mm512_sub_pd(v, _mm512_cvtps_pd(_mm256_maskz_loadu_ps(live, c + t)));
        a = _mm512_add_pd(a, _mm512_mul_pd(e, e));
    }
    __m256d b = _mm256_add_pd(_mm512_castpd512_pd256(a), _mm512_extractf64x4_pd(a, 1));
    __m128d f = _mm_add_pd(_mm256_castpd256_pd128(b), _mm256_extractf128_pd(b, 1));
    return _mm_cvtsd_f64(f) + _mm_cvtsd_f64(_mm_unpackhi_pd(f, f));
}

static void add_row(int64_t *sum, const float *x, int32_t dims, double scale)
{
    const __m512d s = _mm512_set1_pd(scale);
    for (int32_t t = 0; t < dims; t += 8) {
        const __mmask8 live = (__mmask8)first_lanes(dims - t);
        __m512d v = _mm512_mul_pd(_mm512_cvtps_pd(_mm256_maskz_loadu_ps(live, x + t)), s);
        __m512i q = _mm512_cvtpd_epi64(v); /* rounds to nearest, ties to even */
        __m512i old = _mm512_maskz_loadu_epi64(live, sum + t);
        _mm512_mask_storeu_epi64(sum + t, live, _mm512_add_epi64(old, q));
    }
}

/* Up to 8 sums. */
static inline __attribute__((always_inline)) void add_eight(
    int64_t *sum, __m128i bytes, __mmask8 live, fkm_dtype t, __m512i shift, bool leaves)
{
    const __m512i v = t == FKM_U8 ? _mm512_cvtepu8_epi64(bytes) : _mm512_cvtepi8_epi64(bytes);
    const __m512i q = _mm512_sllv_epi64(v, shift), old = _mm512_maskz_loadu_epi64(live, sum);
    _mm512_mask_storeu_epi64(
        sum, live, leaves ? _mm512_sub_epi64(old, q) : _mm512_add_epi64(old, q));
}

static void add_bytes(
    int64_t *sum, const void *x, fkm_dtype t, int32_t dims, int32_t shift, bool leaves)
{
    const __m512i by = _mm512_set1_epi64(shift);
    const char *at = x;
    int32_t d = 0;
    for (; d + 8 <= dims; d += 8)
        add_eight(sum + d, _mm_loadl_epi64((const void *)(at + d)), 0xff, t, by, leaves);
    const __mmask8 rest = (__mmask8)first_lanes(dims - d);
    if (rest)
        add_eight(sum + d, _mm_maskz_loadu_epi8(rest, at + d), rest, t, by, leaves);
}

enum { SQUARES_AT_ONCE = 1 << 18 }; /* pairs of them are below 2^17, and 32-bit lanes take 2^14 */

static int64_t squares_of_bytes(const void *x, fkm_dtype t, int32_t dims)
{
    int64_t total = 0;
    for (int32_t first = 0; first < dims; first += SQUARES_AT_ONCE) {
        const int32_t end = dims - first < SQUARES_AT_ONCE ? dims : first + SQUARES_AT_ONCE;
        __m512i sum = _mm512_setzero_si512();
        for (int32_t d = first; d < end; d += 32) {
            const __mmask32 live = end - d < 32 ? (1u << (end - d)) - 1 : ~0u;
            const __m256i v = _mm256_maskz_loadu_epi8(live, (const char *)x + d);
            const __m512i w = t == FKM_U8 ? _mm512_cvtepu8_epi16(v) : _mm512_cvtepi8_epi16(v);
            sum = _mm512_add_epi32(sum, _mm512_madd_epi16(w, w));
        }
        sum = _mm512_add_epi64(
            _mm512_and_si512(sum, _mm512_set1_epi64(0xffffffff)), _mm512_srli_epi64(sum, 32));
        total += _mm512_reduce_add_epi64(sum);
    }
    return total;
}

/* a / n to the last bit by share = 1 / n, rounded, without a division (Markstein 1990): where q is
 * within an ulp of the quotient, a - q n is exact, and q + (a - q n) share, rounded once, is the
 * quotient rounded. The first q is within two, and the next, for that reason, within one. */
static inline __m512d divide(__m512d a, __m512d n, __m512d share)
{
    __m512d q = _mm512_mul_pd(a, share);
    q = _mm512_fmadd_pd(_mm512_fnmadd_pd(q, n, a), share, q);
    return _mm512_fmadd_pd(_mm512_fnmadd_pd(q, n, a), share, q);
}

static void mean_row(float *mean, const int64_t *sum, int32_t dims, double count, double scale)
{
    const __m512d n = _mm512_set1_pd(count), s = _mm512_set1_pd(scale);
    const __m512d share = _mm512_set1_pd(1 / count);
    for (int32_t t = 0; t < dims; t += 8) {
        const __mmask8 live = (__mmask8)first_lanes(dims - t);
        __m512d v = _mm512_cvtepi64_pd(_mm512_maskz_loadu_epi64(live, sum + t));
        __m256 m = _mm512_cvtpd_ps(_mm512_mul_pd(divide(v, n, share), s));
        _mm256_mask_storeu_ps(mean + t, live, m);
    }
}

/* Larger ones are for the scalar kernel: integers up to SQUARES_SPLIT are rounded by adding ROUND,
 * and sums of a few times as many parts of squares are exact in float64. */
#define SQUARES_SPLIT 0x1p47
#define ROUND 0x1.8p52

/* Multiples of split in squares, and what is left of them. */
typedef struct squares {
    __m512d high, low;
} squares;

/* q has the 24 bits of a float32: its square is exact, and so is what is left of it beside the
 * nearest multiple of split. carry: split * ROUND. */
static inline void add_eight_squares(squares *sum, __m256 x, __m512d scale, __m512d carry)
{
    const __m512d round = _mm512_set1_pd(ROUND);
    const __m512d q = _mm512_sub_pd(_mm512_fmadd_pd(_mm512_cvtps_pd(x), scale, round), round);
    const __m512d h = _mm512_sub_pd(_mm512_fmadd_pd(q, q, carry), carry);
    sum->high = _mm512_add_pd(sum->high, h);
    sum->low = _mm512_add_pd(sum->low, _mm512_fmsub_pd(q, q, h));
}

static int64_t integer_of(__m512d a, __m512d b)
{
    return _mm512_reduce_add_epi64(_mm512_add_epi64(_mm512_cvtpd_epi64(a), _mm512_cvtpd_epi64(b)));
}

static void add_squares(int64_t sum[2], const float *x, int32_t dims, double scale, double split)
{
    if (split > SQUARES_SPLIT) {
        fkm_kernels_scalar.add_squares(sum, x, dims, scale, split);
        return;
    }
    const __m512d s = _mm512_set1_pd(scale), carry = _mm512_set1_pd(split * ROUND);
    const __m512d share = _mm512_set1_pd(1 / split);
    const int32_t most = (int32_t)fmin(0x1p24, 0x1p52 / split) * 16;
    for (int32_t begin = 0; begin < dims; begin += most) {
        const int32_t end = dims - begin < most ? dims : begin + most;
        squares a = {_mm512_setzero_pd(), _mm512_setzero_pd()}, b = a;
        for (int32_t t = begin; t < end; t += 16) {
            const __mmask16 live = first_lanes(end - t);
            add_eight_squares(&a, _mm256_maskz_loadu_ps((__mmask8)live, x + t), s, carry);
            add_eight_squares(
                &b, _mm256_maskz_loadu_ps((__mmask8)(live >> 8), x + t + 8), s, carry);
        }
        sum[0] += integer_of(_mm512_mul_pd(a.high, share), _mm512_mul_pd(b.high, share));
        sum[1] += integer_of(a.low, b.low);
    }
}

/* ---- inertia ---- */

#define D __m512d
#define D_LANES 8
#define D_SET1(d) _mm512_set1_pd(d)
#define D_ADD(a, b) _mm512_add_pd(a, b)
#define D_SUB(a, b) _mm512_sub_pd(a, b)
#define D_FMA(a, b, c) _mm512_fmadd_pd(a, b, c)
#define D_MOVED(v, from)                                                                           \
    _mm512_reduce_add_epi64(                                                                       \
        _mm512_sub_epi64(_mm512_castpd_si512(v), _mm512_set1_epi64((int64_t)(from))))

static inline __m512d coordinates(const float *c, int32_t n, float least)
{
    const __m256 v =
        n >= 8 ? _mm256_loadu_ps(c) : _mm256_maskz_loadu_ps((__mmask8)first_lanes(n), c);
    if (least == 0)
        return _mm512_cvtps_pd(v);
    const __m256 size = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v);
    const __mmask8 live = _mm256_cmp_ps_mask(size, _mm256_set1_ps(least), _CMP_GE_OQ);
    return _mm512_maskz_cvtps_pd(live, v);
}

static inline void sums(__m512d *high, __m512d *low, const int64_t *sum, int32_t n)
{
    const __m512i s =
        n >= 8 ? _mm512_loadu_si512(sum) : _mm512_maskz_loadu_epi64((__mmask8)first_lanes(n), sum);
    const __m512i half = _mm512_set1_epi64(UINT32_MAX);
    *high = _mm512_cvtepi64_pd(_mm512_andnot_si512(half, s));
    *low = _mm512_cvtepi64_pd(_mm512_and_si512(half, s));
}
#include "inertia_tmpl.h"

const fkm_kernels fkm_kernels_avx512 = {
    .isa = "avx512",
    .panel = PANEL,
    .tile = TILE,
    .item = sizeof(float),
    .dim_step = 1,
    .rate = 28,
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
typedef int fkm_kernels_avx512_needs_x86_64;
#endif
