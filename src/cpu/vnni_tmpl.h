/* Sums of products of AVX-512 VNNI. For inclusion by files that are compiled for it. Not by their
 * intrinsics: GCC 12 copies the sums before and after them, through memory when there are many. */
#ifndef FKM_VNNI_TMPL_H
#define FKM_VNNI_TMPL_H

#include <immintrin.h>

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

#endif
