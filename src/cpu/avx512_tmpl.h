/* Vectors of AVX-512 as finish_tmpl.h and screen_tmpl.h want them. For inclusion by files that are
 * compiled for it. */
#ifndef FKM_AVX512_TMPL_H
#define FKM_AVX512_TMPL_H

#include <immintrin.h>
#include <stdint.h>

#define V __m512
#define LANES 16
#define V_LOAD(p) _mm512_load_ps(p)
#define V_STORE(p, v) _mm512_store_ps(p, v)
#define V_SET1(f) _mm512_set1_ps(f)
#define V_ZERO() _mm512_setzero_ps()
#define V_ADD(a, b) _mm512_add_ps(a, b)
#define V_SUB(a, b) _mm512_sub_ps(a, b)
#define V_MUL(a, b) _mm512_mul_ps(a, b)
#define V_MAX(a, b) _mm512_max_ps(a, b)
#define V_MIN(a, b) _mm512_min_ps(a, b)
#define V_ROOT(a) _mm512_mul_ps(a, _mm512_rsqrt14_ps(a))
#define V_LEAST(v) _mm512_reduce_min_ps(v)
#define V_FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define V_GE(a, b) _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ)
#define V_EQUAL(p, i) _mm512_cmpeq_epi32_mask(_mm512_load_si512(p), _mm512_set1_epi32(i))
#define V_STORE_SOME(p, mask, v) _mm512_mask_store_ps(p, (__mmask16)(mask), v)
#define V_FILL_SOME(p, mask, i) _mm512_mask_store_epi32(p, (__mmask16)(mask), _mm512_set1_epi32(i))
#define V_COUNT(p, mask) count_lanes(p, (__mmask16)(mask))

/* One store of all lanes: what is loaded next need not wait for it. */
static inline void count_lanes(int32_t *p, __mmask16 mask)
{
    const __m512i n = _mm512_load_si512(p);
    _mm512_store_si512(p, _mm512_mask_add_epi32(n, mask, n, _mm512_set1_epi32(1)));
}

/* The first n of 16 lanes; n may be beyond either end. */
static inline __mmask16 first_lanes(int64_t n)
{
    unsigned mask = n >= 16 ? 0xffff : n <= 0 ? 0 : (1u << n) - 1;
    return (__mmask16)mask;
}

#endif
