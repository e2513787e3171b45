/* Float32 multiply-adds of AVX-512: see ceilings.h. Sixteen chains cover two units of latency 4. */
#if defined(__x86_64__)

#include "ceilings.h"

#include <immintrin.h>

enum { CHAINS = 16 };

static float run(int64_t rounds, const char *scratch)
{
    const __m512 factor = _mm512_set1_ps(0.999f), term = _mm512_set1_ps((float)scratch[0]);
    __m512 sum[CHAINS];
    for (int i = 0; i < CHAINS; i++)
        sum[i] = _mm512_set1_ps((float)i);
    for (int64_t r = 0; r < rounds; r++)
        for (int i = 0; i < CHAINS; i++)
            sum[i] = _mm512_fmadd_ps(sum[i], factor, term);
    for (int i = 1; i < CHAINS; i++)
        sum[0] = _mm512_add_ps(sum[0], sum[i]);
    return _mm512_cvtss_f32(sum[0]);
}

const fkm_rate_kernel fkm_rate_avx512 = {.flop = 2 * 16 * CHAINS, .run = run};

#else
typedef int fkm_ceilings_avx512_needs_x86_64;
#endif
