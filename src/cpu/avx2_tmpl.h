/* Vectors of AVX2 as finish_tmpl.h wants them. For inclusion by files that are compiled for it. */
#ifndef FKM_AVX2_TMPL_H
#define FKM_AVX2_TMPL_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define V __m256
#define LANES 8
#define V_LOAD(p) _mm256_load_ps(p)
#define V_STORE(p, v) _mm256_store_ps(p, v)
#define V_SET1(f) _mm256_set1_ps(f)
#define V_ADD(a, b) _mm256_add_ps(a, b)
#define V_SUB(a, b) _mm256_sub_ps(a, b)
#define V_MUL(a, b) _mm256_mul_ps(a, b)
#define V_MAX(a, b) _mm256_max_ps(a, b)
#define V_MIN(a, b) _mm256_min_ps(a, b)
#define V_ROOT(a) _mm256_sqrt_ps(a)
#define V_LEAST(v) least_lane(v)
#define V_FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define V_GE(a, b) (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GE_OQ))
#define V_EQUAL(p, i)                                                                              \
    (unsigned)_mm256_movemask_ps(                                                                  \
        _mm256_castsi256_ps(_mm256_cmpeq_epi32(load_integers(p), _mm256_set1_epi32(i))))
#define V_STORE_SOME(p, mask, v) _mm256_maskstore_ps(p, lanes_in(mask), v)
#define V_FILL_SOME(p, mask, i) _mm256_maskstore_epi32(p, lanes_in(mask), _mm256_set1_epi32(i))
#define V_COUNT(p, mask) count_lanes(p, lanes_in(mask))

static inline __m256i load_integers(const int32_t *p)
{
    return _mm256_load_si256((const __m256i *)(const void *)p);
}

/* All bits of the lanes in a mask. */
static inline __m256i lanes_in(unsigned mask)
{
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)mask), bit), bit);
}

/* One store of all lanes: what is loaded next need not wait for it. lanes: -1 in those to count. */
static inline void count_lanes(int32_t *p, __m256i lanes)
{
    _mm256_store_si256((__m256i *)(void *)p, _mm256_sub_epi32(load_integers(p), lanes));
}

static inline float least_lane(__m256 v)
{
    __m128 m = _mm_min_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_min_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_min_ss(m, _mm_shuffle_ps(m, m, 1)));
}

static inline float sum_lanes(__m256 v)
{
    float part[8], sum = 0;
    _mm256_storeu_ps(part, v);
    for (int i = 0; i < 8; i++)
        sum += part[i];
    return sum;
}

/* Lane i of what is returned is OP over the lanes of v[i]; v: [8], lost. */
#define OVER_LANES(OP, v)                                                                          \
    do {                                                                                           \
        for (int i = 0; i < 4; i++)                                                                \
            v[i] = OP(_mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]),                                  \
                _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]));                                       \
        for (int i = 0; i < 2; i++)                                                                \
            v[i] = OP(_mm256_shuffle_ps(v[2 * i], v[2 * i + 1], 0x44),                             \
                _mm256_shuffle_ps(v[2 * i], v[2 * i + 1], 0xee));                                  \
        v[0] = OP(                                                                                 \
            _mm256_permute2f128_ps(v[0], v[1], 0x20), _mm256_permute2f128_ps(v[0], v[1], 0x31));   \
    } while (0)

static inline __m256 sums_of_lanes(__m256 v[8])
{
    OVER_LANES(_mm256_add_ps, v);
    return v[0];
}

static inline __m256 tops_of_lanes(__m256 v[8])
{
    OVER_LANES(_mm256_max_ps, v);
    return v[0];
}

/* Up to 8 floats; the rest are zero. */
static inline __m256 load_some(const float *p, int64_t live)
{
    float part[8] = {0};
    if (live >= 8)
        return _mm256_loadu_ps(p);
    for (int64_t i = 0; i < live; i++)
        part[i] = p[i];
    return _mm256_loadu_ps(part);
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

#endif
