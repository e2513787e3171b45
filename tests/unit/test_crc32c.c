/* CRC32C: published values, a bitwise reference, every split. The source is included, so that the
 * table path is tested on machines that have the instruction. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../src/base/crc32c.c"

static uint32_t bitwise(uint32_t crc, const unsigned char *p, size_t len)
{
    crc = ~crc;
    for (size_t i = 0; i < len; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0x82f63b78u : crc >> 1;
    }
    return ~crc;
}

static void published_values(void **state)
{
    (void)state;
    unsigned char b[32];
    assert_int_equal(fkm_crc32c(0, "", 0), 0);
    assert_int_equal(fkm_crc32c(0, "123456789", 9), 0xe3069283u);
    memset(b, 0, sizeof b);
    assert_int_equal(fkm_crc32c(0, b, sizeof b), 0x8a9136aau); /* RFC 3720, B.4 */
    memset(b, 0xff, sizeof b);
    assert_int_equal(fkm_crc32c(0, b, sizeof b), 0x62a8ab43u);
    for (unsigned i = 0; i < 32; i++)
        b[i] = (unsigned char)i;
    assert_int_equal(fkm_crc32c(0, b, sizeof b), 0x46dd794eu);
    for (unsigned i = 0; i < 32; i++)
        b[i] = (unsigned char)(31 - i);
    assert_int_equal(fkm_crc32c(0, b, sizeof b), 0x113fdb5cu);
}

static void all_paths_lengths_and_alignments(void **state)
{
    (void)state;
    unsigned char b[200];
    for (size_t i = 0; i < sizeof b; i++)
        b[i] = (unsigned char)(i * i * 31 + 7);
    for (size_t from = 0; from < 9; from++)
        for (size_t len = 0; len < 180; len++) {
            uint32_t want = bitwise(0x1234, b + from, len);
            assert_int_equal(fkm_crc32c(0x1234, b + from, len), want);
            assert_int_equal(~crc_by_table(~0x1234u, b + from, len), want);
        }
}

/* Every folding path that this machine has, over its loops, seams and remainders. */
static void folding(void **state)
{
    (void)state;
#if defined(__x86_64__)
    static unsigned char b[2000];
    bool xmm = __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.2");
    bool zmm = xmm && __builtin_cpu_supports("vpclmulqdq") && __builtin_cpu_supports("avx512f");
    for (size_t i = 0; i < sizeof b; i++)
        b[i] = (unsigned char)(i * i * 31 + 7);
    pthread_once(&fold_once, fill_factors);
    for (size_t from = 0; from < 3; from++)
        for (size_t len = SHORT; len + from <= sizeof b; len += len < 700 ? 1 : 37) {
            uint32_t want = bitwise(0x1234, b + from, len);
            assert_int_equal(fkm_crc32c(0x1234, b + from, len), want);
            if (xmm)
                assert_int_equal(~crc_by_xmm(~0x1234u, b + from, len), want);
            if (zmm)
                assert_int_equal(~crc_by_zmm(~0x1234u, b + from, len), want);
        }
#endif
}

static void continues_over_every_split(void **state)
{
    (void)state;
    unsigned char b[97];
    for (size_t i = 0; i < sizeof b; i++)
        b[i] = (unsigned char)(i * 167 + 1);
    uint32_t whole = fkm_crc32c(0, b, sizeof b);
    for (size_t cut = 0; cut <= sizeof b; cut++)
        assert_int_equal(fkm_crc32c(fkm_crc32c(0, b, cut), b + cut, sizeof b - cut), whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_values),
        cmocka_unit_test(all_paths_lengths_and_alignments),
        cmocka_unit_test(folding),
        cmocka_unit_test(continues_over_every_split),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
