/* Drawing rows in proportion to masses. */
#include "../../src/mass.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

enum { ROWS = 5000 };

static fkm_mass opened(const double *distance, const int64_t *weight, int64_t count)
{
    fkm_err e = {0};
    fkm_mass m;
    assert_int_equal(fkm_mass_open(&m, distance, weight, count, &e), FKM_OK);
    return m;
}

/* Where [0, 1) is cut: with integer masses every sum is exact. */
static void find_goes_by_the_cumulated_mass(void **state)
{
    (void)state;
    static double distance[ROWS];
    static int64_t weight[ROWS];
    double total = 0;
    for (int i = 0; i < ROWS; i++) {
        distance[i] = i % 7;
        weight[i] = i % 3;
        total += distance[i] * (double)weight[i];
    }
    fkm_mass m = opened(distance, weight, ROWS);
    assert_true(fkm_mass_sum(&m) == total);
    double before = 0;
    for (int i = 0; i < ROWS; i++) {
        double mass = distance[i] * (double)weight[i];
        if (mass > 0) {
            assert_int_equal(fkm_mass_find(&m, (before + 0.25) / total), i);
            assert_int_equal(fkm_mass_find(&m, (before + mass - 0.25) / total), i);
        }
        before += mass;
    }
    fkm_mass_close(&m);
}

static void one_factor_is_enough(void **state)
{
    (void)state;
    const double distance[3] = {0, 0.5, 0.5};
    const int64_t weight[3] = {3, 0, 1};
    fkm_mass m = opened(distance, NULL, 3);
    assert_true(fkm_mass_sum(&m) == 1);
    assert_int_equal(fkm_mass_find(&m, 0), 1);
    assert_int_equal(fkm_mass_find(&m, 0.5), 2);
    fkm_mass_close(&m);
    m = opened(NULL, weight, 3);
    assert_true(fkm_mass_sum(&m) == 4);
    assert_int_equal(fkm_mass_find(&m, 0.7), 0);
    assert_int_equal(fkm_mass_find(&m, 0.75), 2);
    fkm_mass_close(&m);
}

/* Rows of no mass are never found, whatever rounding does at the ends, and at any scale. */
static void only_rows_with_mass_are_found(void **state)
{
    (void)state;
    static double distance[ROWS];
    const double scales[] = {0x1p-298, 1e-40, 1, 0.1, 1e80};
    for (size_t s = 0; s < sizeof scales / sizeof scales[0]; s++) {
        for (int i = 0; i < ROWS; i++)
            distance[i] = i > 1100 && i < 4000 && i % 5 == 0 ? scales[s] * (1 + i % 9) : 0;
        fkm_mass m = opened(distance, NULL, ROWS);
        assert_true(fkm_mass_sum(&m) > 0 && isfinite(fkm_mass_sum(&m)));
        for (double u = 0; u < 1; u += 0.0007)
            assert_true(distance[fkm_mass_find(&m, u)] > 0);
        assert_int_equal(fkm_mass_find(&m, 0), 1105);
        assert_int_equal(fkm_mass_find(&m, 1 - 0x1p-53), 3995);
        fkm_mass_close(&m);
    }
}

/* The sum is by blocks, each from left to right: it is part of what a seed means. */
static void the_order_of_the_sum_is_fixed(void **state)
{
    (void)state;
    static double distance[3 * FKM_MASS_BLOCK];
    double expected = 0;
    for (int b = 0; b < 3; b++) {
        double sum = 0;
        for (int i = b * FKM_MASS_BLOCK; i < (b + 1) * FKM_MASS_BLOCK; i++) {
            distance[i] = i % 2 ? 1e16 : 0.7 * i;
            sum += distance[i];
        }
        expected += sum;
    }
    fkm_mass m = opened(distance, NULL, 3 * FKM_MASS_BLOCK);
    assert_true(fkm_mass_sum(&m) == expected);
    fkm_mass_close(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(find_goes_by_the_cumulated_mass),
        cmocka_unit_test(one_factor_is_enough),
        cmocka_unit_test(only_rows_with_mass_are_found),
        cmocka_unit_test(the_order_of_the_sum_is_fixed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
