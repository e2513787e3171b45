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

/* Every seeded choice depends on these numbers: they must never change. */
static void random_is_stable(void **state)
{
    (void)state;
    assert_true(fkm_random(0, FKM_DRAW_PROPOSAL, 0) == UINT64_C(0x94926c2e801cb6f9));
    assert_true(fkm_random(0, FKM_DRAW_PROPOSAL, 1) == UINT64_C(0x2a1558757df60dc2));
    assert_true(fkm_random(UINT64_MAX, FKM_DRAW_ROUND, UINT64_C(1000000000000)) ==
                UINT64_C(0x7fa12234e7b4b0ec));
    assert_true(fkm_uniform(0, FKM_DRAW_PROPOSAL, 0) ==
                (double)(UINT64_C(0x94926c2e801cb6f9) >> 11) * 0x1p-53);
}

/* Streams that differ in seed, purpose or index only by one: uniform, and unrelated to each other.
 * Bounds are five standard deviations. */
static void streams_are_uniform_and_independent(void **state)
{
    (void)state;
    enum { COUNT = 100000 };
    const uint64_t step[3][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}; /* seed, purpose, index */
    for (int s = 0; s < 3; s++) {
        double sum = 0, product = 0;
        int64_t bits[64] = {0}, equal = 0;
        for (uint64_t i = 0; i < COUNT; i++) {
            uint64_t v = fkm_random(5, 2, i);
            uint64_t w = fkm_random(5 + step[s][0], (unsigned)(2 + step[s][1]), i + step[s][2]);
            double u = fkm_uniform(5, 2, i);
            assert_true(u >= 0 && u < 1);
            sum += u;
            product += (u - 0.5) * ((double)(w >> 11) * 0x1p-53 - 0.5);
            for (int b = 0; b < 64; b++)
                bits[b] += (int64_t)((v ^ w) >> b & 1);
            equal += v == w;
        }
        assert_int_equal(equal, 0);
        assert_true(sum / COUNT > 0.5 - 0.0046 && sum / COUNT < 0.5 + 0.0046);
        assert_true(product / COUNT > -0.0014 && product / COUNT < 0.0014);
        for (int b = 0; b < 64; b++)
            assert_in_range(bits[b], COUNT / 2 - 800, COUNT / 2 + 800);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(permute_is_a_bijection),
        cmocka_unit_test(permute_handles_large_n),
        cmocka_unit_test(permute_is_stable),
        cmocka_unit_test(random_is_stable),
        cmocka_unit_test(streams_are_uniform_and_independent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
