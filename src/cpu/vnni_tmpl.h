/* Sums of products of AVX-512 VNNI. For inclusion by files that are compiled for it. Not by their
 * intrinsics: GCC 12 copies the sums before and after them, through memory when there are many. */
#ifndef FKM_VNNI_TMPL_H
#define FKM_VNNI_TMPL_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

/* In each lane sum + that of four products of an unsigned byte of a and a signed one of b. */
static inline __m512i add_bytes_products(__m512i sum, __m512i a, __m512i b)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
}

/* Of two products of signed 16-bit integers. */
static inline __m512i add_words_products(__m512i sum, __m512i a, __m512i b)
{
    __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
}

/* Adds, by `add`, the products of a panel and `tile` centroids to their sums: rows 0 to 15 to low,
 * 16 to 31 to high. Both in words of 4 bytes; x: [words / 16][2][16 words][16 rows], c:
 * [words][tile]. */
static inline __attribute__((always_inline)) void add_tile(__m512i *low, __m512i *high,
    const char *x, const char *c, int32_t words, int tile,
    __m512i (*add)(__m512i sum, __m512i a, __m512i b))
{
    const int32_t part = 16 * 64;
    for (int32_t w = 0; w < words; w++, c += 4 * tile) {
        const char *at = x + (size_t)(w / 16) * 2 * part + (size_t)(w % 16) * 64;
        const __m512i x0 = _mm512_load_si512(at), x1 = _mm512_load_si512(at + part);
        _Pragma("GCC unroll 32") for (int j = 0; j < tile; j++)
        {
            int32_t word;
            memcpy(&word, c + 4 * j, sizeof word);
            const __m512i cj = _mm512_set1_epi32(word);
            low[j] = add(low[j], x0, cj);
            high[j] = add(high[j], x1, cj);
        }
    }
}

#endif
