/* Scans: extremes, NaN, exponents; and the scale of the sums that follows from them. */
#include "../../src/scan.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

enum { D = 5 };

static void finds_extremes_and_bad_rows(void **state)
{
    (void)state;
    float x[6 * D];
    for (int i = 0; i < 6 * D; i++)
        x[i] = (float)(i % 7) - 3; /* -3 .. 3, zeros among them */
    x[1 * D + 2] = -9;
    x[3 * D + 4] = NAN;
    x[3 * D + 0] = 100; /* in a row with NaN: takes no part */
    x[4 * D + 1] = INFINITY;
    x[5 * D + 3] = 0x1p-140f;
    fkm_scan all, part;
    fkm_scan_init(&all);
    fkm_scan_add(&all, x, FKM_F32, 0, 6, D);
    assert_int_equal(all.rows, 6);
    assert_int_equal(all.values, 4 * D);
    assert_int_equal(all.rows_not_finite, 2);
    assert_int_equal(all.nans, 1);
    assert_int_equal(all.infinities, 1);
    assert_int_equal(all.bad_row, 3);
    assert_int_equal(all.bad_column, 4);
    assert_true(all.min == -9 && all.max == 3);
    assert_int_equal(all.top_row, 1);
    assert_int_equal(all.top_column, 2);
    assert_int_equal(all.exponents[-139 + 160], 1);
    assert_int_equal(all.tops[4 + 160], 1); /* -9 */
    assert_int_equal(all.tops[2 + 160], 3); /* 2, 3 and -3 */
    int64_t zeros = 0, counted = 0;
    for (int i = 0; i < 6 * D; i++)
        zeros += x[i] == 0 && i / D != 3 && i / D != 4;
    for (int i = 0; i < 320; i++)
        counted += all.exponents[i];
    assert_int_equal(all.zeros, zeros);
    assert_int_equal(counted, all.values - zeros);

    fkm_scan_init(&part); /* in two parts, merged: the same */
    fkm_scan second;
    fkm_scan_init(&second);
    fkm_scan_add(&part, x, FKM_F32, 0, 2, D);
    fkm_scan_add(&second, x + 2 * D, FKM_F32, 2, 4, D);
    fkm_scan_merge(&part, &second);
    assert_true(fabs(part.mean - all.mean) < 1e-12);
    part.mean = all.mean;
    assert_memory_equal(&part, &all, sizeof all);
}

/* Of values that add up to the same mean in any order. */
static void threads_find_the_same(void **state)
{
    (void)state;
    enum { ROWS = 1003 };
    static float x[ROWS * D];
    for (int i = 0; i < ROWS * D; i++)
        x[i] = (float)(i * 37 % 101) - 50;
    x[300 * D + 1] = x[700 * D + 2] = -64; /* the first of two is the top row */
    x[500 * D] = INFINITY;
    x[400 * D + 4] = NAN;
    static const int64_t counts[] = {ROWS, 301, 20, 3, 0};
    for (int threads = 0; threads <= 3; threads++)
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            fkm_err e = {0};
            fkm_pool *pool = NULL;
            fkm_scan whole, by;
            if (threads > 0)
                assert_int_equal(fkm_pool_open(&pool, threads, &e), FKM_OK);
            fkm_scan_init(&whole);
            fkm_scan_init(&by);
            fkm_scan_add(&whole, x, FKM_F32, 7, counts[i], D);
            fkm_scan_add_by(pool, &by, x, FKM_F32, 7, counts[i], D);
            assert_true(fabs(by.mean - whole.mean) < 1e-12);
            by.mean = whole.mean;
            assert_memory_equal(&by, &whole, sizeof by);
            fkm_pool_close(pool);
        }
}

static void types_agree(void **state)
{
    (void)state;
    uint8_t bytes[4 * D];
    float floats[4 * D];
    for (int i = 0; i < 4 * D; i++)
        floats[i] = bytes[i] = (uint8_t)(i * 37);
    fkm_scan a, b;
    fkm_scan_init(&a);
    fkm_scan_init(&b);
    fkm_scan_add(&a, bytes, FKM_U8, 0, 4, D);
    fkm_scan_add(&b, floats, FKM_F32, 0, 4, D);
    assert_memory_equal(&a, &b, sizeof a);
}

static fkm_scale scale_of(const float *x, int64_t rows, int32_t dims)
{
    fkm_scan s;
    fkm_scale scale = {-1000, false, 0};
    fkm_err e = {0};
    fkm_scan_init(&s);
    fkm_scan_add(&s, x, FKM_F32, 0, rows, dims);
    assert_int_equal(fkm_scale_choose(&scale, &s, rows, NULL, 0, &e), FKM_OK);
    assert_true(fkm_scale_holds(scale, &s, rows));
    scale.exponent++;
    assert_true(s.values == s.zeros || !fkm_scale_holds(scale, &s, rows));
    scale.exponent--;
    return scale;
}

static void scale_follows_the_rule(void **state)
{
    (void)state;
    const float ones[4] = {1, 1, 1, 1};
    fkm_scale s = scale_of(ones, 4, 1); /* bits 3, top 1 */
    assert_int_equal(s.exponent, 62 - 3 - 1);
    assert_false(s.wide);
    const float mixed[4] = {1, 1, 1, 0x1p40f}; /* top 41, typical 1: 62 - 3 - 41 = 18 < 23 */
    s = scale_of(mixed, 4, 1);
    assert_true(s.wide);
    assert_int_equal(s.exponent, 126 - 3 - 41);
    const float border[4] = {1, 1, 1, 0x1p35f}; /* top 36: 23 is not below 23 */
    s = scale_of(border, 4, 1);
    assert_false(s.wide);
    assert_int_equal(s.exponent, 23);
    const float zeros[4] = {0, 0, 0, 0};
    s = scale_of(zeros, 4, 1);
    assert_int_equal(s.exponent, 0);
    assert_false(s.wide);
    const float even[4] = {1, 2, 4, 8}; /* lower median exponent: of 2 */
    s = scale_of(even, 2, 2);
    assert_int_equal(s.exponent, 62 - 2 - 4);
}

/* Most values are next to nothing: the largest of each row tell what is typical. */
static void a_long_tail_of_next_to_nothing(void **state)
{
    (void)state;
    const float tail[8] = {0x1p-120f, 1, 0x1p-130f, 0x1p-149f, 0, 0, 0x1p-100f, 0.5f};
    fkm_scan all;
    fkm_scan_init(&all);
    fkm_scan_add(&all, tail, FKM_F32, 0, 4, 2);
    assert_int_equal(all.tops[1 + 160], 1); /* 1; the row of zeros is in none */
    assert_int_equal(all.tops[0 + 160], 1);
    assert_int_equal(all.tops[-129 + 160], 1); /* a subnormal */
    fkm_scale s = scale_of(tail, 4, 2);
    assert_int_equal(s.exponent, 62 - 3 - 1);
    assert_false(s.wide);
    const float uneven[6] = {0x1p-140f, 0x1p40f, 0x1p-140f, 2, 0x1p-140f, 1};
    s = scale_of(uneven, 3, 2); /* the largest of rows: 2^40, 2, 1 */
    assert_int_equal(s.exponent, 126 - 2 - 41);
    assert_true(s.wide);
    const float kept[6] = {0x1p-50f, 1, 0x1p-50f, 1, 0x1p-50f, 1};
    s = scale_of(kept, 3, 2); /* 128 bits hold the tail: as ever */
    assert_int_equal(s.exponent, 126 - 2 - 1);
    assert_true(s.wide);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_extremes_and_bad_rows),
        cmocka_unit_test(threads_find_the_same),
        cmocka_unit_test(types_agree),
        cmocka_unit_test(scale_follows_the_rule),
        cmocka_unit_test(a_long_tail_of_next_to_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
