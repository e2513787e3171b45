/* Float32 multiply-adds of AVX2: see ceilings.h. Twelve chains cover two units of latency 4 and
 * leave registers for the factors. */
#if defined(__x86_64__)

#include "ceilings.h"

#include <immintrin.h>

enum { CHAINS = 12 };

static float run(int64_t rounds, const char *scratch)
{
    const __m256 factor = _mm256_set1_ps(0.999f), term = _mm256_set1_ps((float)scratch[0]);
    __m256 sum[CHAINS];
    for (int i = 0; i < CHAINS; i++)
        sum[i] = _mm256_set1_ps((float)i);
    for (int64_t r = 0; r < rounds; r++)
        for (int i = 0; i < CHAINS; i++)
            sum[i] = _mm256_fmadd_ps(sum[i], factor, term);
    for (int i = 1; i < CHAINS; i++)
        sum[0] = _mm256_add_ps(sum[0], sum[i]);
    return _mm256_cvtss_f32(sum[0]);
}

const fkm_rate_kernel fkm_rate_avx2 = {.flop = 2 * 8 * CHAINS, .run = run};

#else
typedef int fkm_ceilings_avx2_needs_x86_64;
#endif
