/* Drawing rows without replacement. */
#include "../../src/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>

static void permute_is_a_bijection(void **state)
{
    (void)state;
    const int64_t sizes[] = {1, 2, 3, 4, 5, 15, 16, 17, 100, 1023, 1024, 1025, 65537};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        int64_t n = sizes[s];
        char *seen = calloc((size_t)n, 1);
        for (int64_t i = 0; i < n; i++) {
            int64_t v = fkm_permute(42, n, i);
            assert_in_range(v, 0, n - 1);
            assert_int_equal(seen[v], 0);
            seen[v] = 1;
        }
        free(seen);
    }
}

static void permute_handles_large_n(void **state)
{
    (void)state;
    const int64_t n = (int64_t)1 << 40;
    int64_t above = 0;
    for (int64_t i = 0; i < 1000; i++) {
        int64_t v = fkm_permute(7, n, i);
        assert_true(v >= 0 && v < n);
        above += v >= n / 2;
    }
    assert_in_range(above, 400, 600);
}

/* The first centroids of every user depend on these numbers: they must never change. */
static void permute_is_stable(void **state)
{
    (void)state;
    assert_true(fkm_permute(0, 50000, 0) != fkm_permute(1, 50000, 0));
    assert_int_equal(fkm_permute(0, 50000, 0), 18557);
    assert_int_equal(fkm_permute(0, 50000, 1), 19569);
    assert_int_equal(fkm_permute(12345, 1000000007, 99), 352728420);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(permute_is_a_bijection),
        cmocka_unit_test(permute_handles_large_n),
        cmocka_unit_test(permute_is_stable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
