/* Multiply-adds of AVX2, float32 and 8-bit: see ceilings.h. Twelve chains cover two units of
 * latency 4 and leave registers for the factors. */
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

/* Pairs of bytes, pairs of pairs, and the addition: three instructions for 32 multiply-adds. Each
 * round loads one operand, lest all but the addition be done once. */
static float run_int8(int64_t rounds, const char *scratch)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sum[CHAINS / 2], factor[CHAINS / 2];
    for (int i = 0; i < CHAINS / 2; i++) {
        sum[i] = _mm256_setzero_si256();
        factor[i] = _mm256_set1_epi8((char)(i + 1));
    }
    for (int64_t r = 0; r < rounds; r++) {
        const size_t at = (size_t)r * sizeof(__m256i) % FKM_RATE_NEAR;
        const __m256i x = _mm256_load_si256((const __m256i *)(const void *)(scratch + at));
        for (int i = 0; i < CHAINS / 2; i++) {
            const __m256i pairs = _mm256_maddubs_epi16(x, factor[i]);
            sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(pairs, ones));
        }
    }
    for (int i = 1; i < CHAINS / 2; i++)
        sum[0] = _mm256_add_epi32(sum[0], sum[i]);
    return (float)_mm_cvtsi128_si32(_mm256_castsi256_si128(sum[0]));
}

const fkm_rate_kernel fkm_rate_avx2_int8 = {.flop = 2.0 * 32 * CHAINS / 2, .run = run_int8};
const fkm_rate_kernel fkm_rate_avx2 = {.flop = 2 * 8 * CHAINS, .run = run};

#else
typedef int fkm_ceilings_avx2_needs_x86_64;
#endif
