/* 8-bit multiply-adds of AVX-512 VNNI: see ceilings.h. Sixteen chains, as in ceilings_avx512.c. */
#if defined(__x86_64__)

#include "ceilings.h"

#include <immintrin.h>

enum { CHAINS = 16 };

static float run(int64_t rounds, const char *scratch)
{
    const __m512i factor = _mm512_load_si512(scratch);
    __m512i sum[CHAINS];
    for (int i = 0; i < CHAINS; i++)
        sum[i] = _mm512_set1_epi32(i);
    for (int64_t r = 0; r < rounds; r++)
        for (int i = 0; i < CHAINS; i++)
            sum[i] = _mm512_dpbusd_epi32(sum[i], factor, factor);
    for (int i = 1; i < CHAINS; i++)
        sum[0] = _mm512_add_epi32(sum[0], sum[i]);
    return (float)_mm_cvtsi128_si32(_mm512_castsi512_si128(sum[0]));
}

const fkm_rate_kernel fkm_rate_vnni = {.flop = 2 * 64 * CHAINS, .run = run};

#else
typedef int fkm_ceilings_vnni_needs_x86_64;
#endif
