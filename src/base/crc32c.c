/* CRC32C: by carry-less multiplication on long inputs, by the SSE4.2 instruction on short ones, by
 * table where neither is there.
 *
 * Folding: 16 bytes of the message are a polynomial a x^64 + b over GF(2), which takes part in the
 * remainder at some distance from the end. Modulo P, moving it T bits further on is multiplying by
 * x^T: (a x^64 + b) x^T = a (x^(T+64) mod P) + b (x^T mod P), two products of 64 by 33 bits that
 * fit 128 again. So a register is moved on by its loop's stride and added to the bytes that are
 * there. With bits reflected, the product of two 64-bit words stands one bit lower than 128 bits
 * have it and a 33-bit constant 31 bits higher: hence the exponents T+32 and T-32 and the shift by
 * one. */
#include "crc32c.h"

#include <pthread.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define POLYNOMIAL 0x82f63b78u /* Castagnoli, bits reversed */

static uint32_t table[256];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void fill_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++)
            c = c & 1 ? c >> 1 ^ POLYNOMIAL : c >> 1;
        table[i] = c;
    }
}

static uint32_t crc_by_table(uint32_t c, const unsigned char *p, size_t len)
{
    pthread_once(&table_once, fill_table);
    for (; len > 0; len--)
        c = c >> 8 ^ table[(c ^ *p++) & 255];
    return c;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc_by_sse42(
    uint32_t c, const unsigned char *p, size_t len)
{
    uint64_t wide = c;
    for (; len >= 8; len -= 8, p += 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        wide = __builtin_ia32_crc32di(wide, word);
    }
    c = (uint32_t)wide;
    for (; len > 0; len--)
        c = __builtin_ia32_crc32qi(c, *p++);
    return c;
}

/* ---- folding ---- */

#define SHORT 256 /* bytes from which on folding is worth its beginning and end */
#define XMM __attribute__((target("pclmul,sse4.2")))
#define ZMM __attribute__((target("avx512f,vpclmulqdq,pclmul,sse4.2")))

enum { BY_128, BY_512, BY_2048, STRIDES }; /* bits */

static int64_t fold_by[STRIDES][2]; /* factors of the low and of the high word */
static pthread_once_t fold_once = PTHREAD_ONCE_INIT;

/* x^n mod P, reflected, one bit up. */
static int64_t power_of_x(int n)
{
    uint32_t c = 0x80000000u;
    for (; n > 0; n--)
        c = c & 1 ? c >> 1 ^ POLYNOMIAL : c >> 1;
    return (int64_t)c << 1;
}

static void fill_factors(void)
{
    static const int bits[STRIDES] = {128, 512, 2048};
    for (int i = 0; i < STRIDES; i++) {
        fold_by[i][0] = power_of_x(bits[i] + 32);
        fold_by[i][1] = power_of_x(bits[i] - 32);
    }
}

XMM static inline __m128i fold(__m128i x, __m128i by, __m128i next)
{
    __m128i low = _mm_clmulepi64_si128(x, by, 0x00), high = _mm_clmulepi64_si128(x, by, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

XMM static inline __m128i factors(int stride)
{
    return _mm_set_epi64x(fold_by[stride][1], fold_by[stride][0]);
}

/* x[4]: the 64 bytes before p, the checksum so far added to them; p: `len` bytes more. */
XMM static uint32_t finish_fold(__m128i x[4], const unsigned char *p, size_t len)
{
    const __m128i far = factors(BY_512), near = factors(BY_128);
    for (; len >= 64; len -= 64, p += 64)
        for (int i = 0; i < 4; i++)
            x[i] = fold(x[i], far, _mm_loadu_si128((const __m128i *)(const void *)(p + 16 * i)));
    for (int i = 1; i < 4; i++)
        x[i] = fold(x[i - 1], near, x[i]);
    unsigned char last[16];
    memcpy(last, &x[3], sizeof last);
    return crc_by_sse42(crc_by_sse42(0, last, sizeof last), p, len);
}

XMM static uint32_t crc_by_xmm(uint32_t c, const unsigned char *p, size_t len)
{
    __m128i x[4];
    memcpy(x, p, sizeof x);
    x[0] = _mm_xor_si128(x[0], _mm_cvtsi32_si128((int)c));
    return finish_fold(x, p + 64, len - 64);
}

ZMM static inline __m512i fold_zmm(__m512i x, __m512i by, __m512i next)
{
    return _mm512_ternarylogic_epi64(
        _mm512_clmulepi64_epi128(x, by, 0x00), _mm512_clmulepi64_epi128(x, by, 0x11), next, 0x96);
}

/* len >= 256. */
ZMM static uint32_t crc_by_zmm(uint32_t c, const unsigned char *p, size_t len)
{
    const __m512i far = _mm512_broadcast_i32x4(factors(BY_2048));
    const __m512i near = _mm512_broadcast_i32x4(factors(BY_512));
    __m512i a = _mm512_loadu_si512(p), b = _mm512_loadu_si512(p + 64),
            d = _mm512_loadu_si512(p + 128), f = _mm512_loadu_si512(p + 192);
    a = _mm512_xor_si512(a, _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)c)));
    for (len -= 256, p += 256; len >= 256; len -= 256, p += 256) {
        a = fold_zmm(a, far, _mm512_loadu_si512(p));
        b = fold_zmm(b, far, _mm512_loadu_si512(p + 64));
        d = fold_zmm(d, far, _mm512_loadu_si512(p + 128));
        f = fold_zmm(f, far, _mm512_loadu_si512(p + 192));
    }
    f = fold_zmm(fold_zmm(fold_zmm(a, near, b), near, d), near, f);
    __m128i x[4];
    memcpy(x, &f, sizeof x);
    return finish_fold(x, p, len);
}

static uint32_t crc_by_instruction(uint32_t c, const unsigned char *p, size_t len)
{
    if (len < SHORT || !__builtin_cpu_supports("pclmul"))
        return crc_by_sse42(c, p, len);
    pthread_once(&fold_once, fill_factors);
    if (__builtin_cpu_supports("vpclmulqdq") && __builtin_cpu_supports("avx512f"))
        return crc_by_zmm(c, p, len);
    return crc_by_xmm(c, p, len);
}
#endif

uint32_t fkm_crc32c(uint32_t crc, const void *data, size_t len)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2"))
        return ~crc_by_instruction(~crc, data, len);
#endif
    return ~crc_by_table(~crc, data, len);
}
