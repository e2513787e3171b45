/* Memory: alignment, sizes that overflow, messages, text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../src/base/checked.h"
#include "../../src/base/mem.h"

#include <string.h>

static void aligned_and_writable(void **state)
{
    (void)state;
    static const int64_t count[] = {0, 1, 63, 64, 65, 100000, 6 << 20};
    for (size_t i = 0; i < sizeof count / sizeof *count; i++) {
        fkm_err e = {0};
        unsigned char *p = NULL;
        assert_int_equal(fkm_alloc(&p, count[i], 1, "a test", &e), FKM_OK);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        memset(p, 0xa5, (size_t)count[i]);
        fkm_free(p);
    }
    fkm_free(NULL);
}

static void large_arrays_start_on_a_huge_page(void **state)
{
    (void)state;
    fkm_err e = {0};
    char *p = NULL;
    assert_int_equal(fkm_alloc(&p, 9 << 20, 1, "a test", &e), FKM_OK);
    assert_int_equal((uintptr_t)p % (2 << 20), 0);
    fkm_free(p);
}

static void calloc_gives_zeros(void **state)
{
    (void)state;
    fkm_err e = {0};
    for (int round = 0; round < 3; round++) { /* the second one reuses what the first one dirtied */
        unsigned char *p = NULL;
        assert_int_equal(fkm_calloc(&p, 1000, 3, "a test", &e), FKM_OK);
        for (int i = 0; i < 3000; i++)
            assert_int_equal(p[i], 0);
        memset(p, 0xff, 3000);
        fkm_free(p);
    }
}

static void impossible_sizes_are_refused(void **state)
{
    (void)state;
    static const struct {
        int64_t count;
        size_t size;
    } bad[] = {
        {-1, 4}, {INT64_MIN, 1}, {INT64_MAX, 1}, {INT64_MAX, 8},
        {(int64_t)1 << 61, 8},                               /* the product wraps to 0 in 64 bits */
        {((int64_t)1 << 61) + 1, 8}, {(int64_t)1 << 55, 64}, /* does not wrap, and is not there */
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        fkm_err e = {0};
        int untouched;
        void *p = &untouched;
        assert_int_equal(fkm_alloc(&p, bad[i].count, bad[i].size, "the sums", &e), FKM_ENOMEM);
        assert_ptr_equal(p, &untouched);
        assert_int_equal(e.code, FKM_ENOMEM);
        assert_non_null(strstr(e.msg, "no memory for the sums"));
        assert_non_null(strstr(e.hint, "--memory"));
        assert_int_equal(fkm_calloc(&p, bad[i].count, bad[i].size, "the sums", &e), FKM_ENOMEM);
        assert_ptr_equal(p, &untouched);
    }
}

static void text_on_the_heap(void **state)
{
    (void)state;
    fkm_err e = {0};
    char *a = NULL, *b = NULL, *empty = NULL;
    assert_int_equal(fkm_asprintf(&a, &e, "%s.k%d.%05.1f", "data", 100, 2.5), FKM_OK);
    assert_string_equal(a, "data.k100.002.5");
    assert_int_equal(fkm_strdup(&b, "100% %s %n plain", &e), FKM_OK);
    assert_string_equal(b, "100% %s %n plain");
    assert_int_equal(fkm_strdup(&empty, "", &e), FKM_OK);
    assert_string_equal(empty, "");
    fkm_free(a);
    fkm_free(b);
    fkm_free(empty);
}

static void sizes_as_text(void **state)
{
    (void)state;
    static const struct {
        int64_t bytes;
        const char *text;
    } expected[] = {
        {0, "0 bytes"},
        {1023, "1023 bytes"},
        {1024, "1.0 KiB"},
        {1536, "1.5 KiB"},
        {(int64_t)512 << 20, "512.0 MiB"},
        {(int64_t)1 << 30, "1.0 GiB"},
        {(int64_t)3 << 40, "3.0 TiB"},
        {(int64_t)1 << 50, "1.0 PiB"},
        {INT64_MAX, "8.0 EiB"},
    };
    char out[32];
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        assert_string_equal(fkm_bytes_text(out, sizeof out, expected[i].bytes), expected[i].text);
    char tiny[4];
    assert_string_equal(fkm_bytes_text(tiny, sizeof tiny, 1023), "102");
}

static void checked_arithmetic(void **state)
{
    (void)state;
    size_t s;
    int64_t v;
    assert_true(fkm_mul_size(&s, SIZE_MAX / 3, 3) && s == SIZE_MAX / 3 * 3);
    assert_false(fkm_mul_size(&s, SIZE_MAX / 3 + 1, 3));
    assert_true(fkm_mul_i64(&v, INT64_C(3037000499), INT64_C(3037000499)));
    assert_true(v == INT64_C(9223372030926249001));
    assert_false(fkm_mul_i64(&v, INT64_C(3037000500), INT64_C(3037000500)));
    assert_true(fkm_add_i64(&v, INT64_MAX - 1, 1) && v == INT64_MAX);
    assert_false(fkm_add_i64(&v, INT64_MAX, 1));
    assert_true(fkm_mul_sat((int64_t)1 << 40, (int64_t)1 << 40) == INT64_MAX);
    assert_true(fkm_mul_sat(1 << 20, 1 << 20) == (int64_t)1 << 40);
    assert_true(fkm_add_sat(INT64_MAX, INT64_MAX) == INT64_MAX);
    assert_true(fkm_add_sat(40, 2) == 42);
    assert_int_equal(fkm_round_up(0, 4096), 0);
    assert_int_equal(fkm_round_up(1, 4096), 4096);
    assert_int_equal(fkm_round_up(4096, 4096), 4096);
    assert_int_equal(fkm_min_i64(-1, 1), -1);
    assert_int_equal(fkm_max_i64(-1, 1), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(aligned_and_writable),
        cmocka_unit_test(large_arrays_start_on_a_huge_page),
        cmocka_unit_test(calloc_gives_zeros),
        cmocka_unit_test(impossible_sizes_are_refused),
        cmocka_unit_test(text_on_the_heap),
        cmocka_unit_test(sizes_as_text),
        cmocka_unit_test(checked_arithmetic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
