/* When rows in doubt make it worth while to screen in float32, and when not. */
#include "../../src/cpu/doubt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static const fkm_kernels fine = {.panel = 32, .tile = 12, .item = 4, .dim_step = 1, .rate = 28};
static const fkm_kernels quick = {
    .panel = 32, .tile = 32, .item = 2, .dim_step = 32, .rate = 350, .low = true, .finer = &fine};

enum { ROWS = 10000, CLUSTERS = 1000, DIMS = 128 };

/* So many candidates for each row in doubt, of which there is a share. */
static const fkm_kernels *judge(
    fkm_doubt *d, const fkm_kernels *now, double share, int64_t candidates, double rescans)
{
    const fkm_tiles t = {.kernels = now, .dims = DIMS, .screened = DIMS, .clusters = CLUSTERS};
    const int64_t doubts = (int64_t)(ROWS * share);
    const fkm_assign_counts c = {.rows = ROWS,
        .in_doubt = doubts,
        .candidates = ROWS - doubts + candidates * doubts,
        .rescans = (int64_t)(ROWS * rescans)};
    return fkm_doubt_judge(d, &t, &quick, &c);
}

static void few_doubts_are_judged_one_by_one(void **state)
{
    (void)state;
    fkm_doubt d = {0};
    assert_ptr_equal(judge(&d, &quick, 0.3, 3, 0), &quick);
    assert_ptr_equal(judge(&d, &quick, 1, 10, 0), &quick);
    assert_true(d.rounded == 0);
}

static void many_are_screened_finely(void **state)
{
    (void)state;
    fkm_doubt d = {0};
    assert_ptr_equal(judge(&d, &quick, 0.7, 30, 0.2), &fine);
    assert_ptr_equal(judge(&d, &fine, 0.01, 2, 0), &fine);
    assert_ptr_equal(judge(&d, &fine, 0.02, 2, 0), &fine);
}

static void ties_are_not_screened_finely_for_long(void **state)
{
    (void)state;
    fkm_doubt d = {0};
    assert_ptr_equal(judge(&d, &quick, 0.7, 30, 0.2), &fine);
    assert_ptr_equal(judge(&d, &fine, 0.7, 30, 0.2), &quick);
    assert_ptr_equal(judge(&d, &quick, 0.7, 30, 0.2), &quick); /* nor tried again */
}

static void few_rows_say_little(void **state)
{
    (void)state;
    fkm_doubt d = {0};
    const fkm_tiles t = {.kernels = &quick, .dims = DIMS, .screened = DIMS, .clusters = CLUSTERS};
    const fkm_assign_counts c = {.rows = 100, .in_doubt = 100, .candidates = 0, .rescans = 100};
    assert_ptr_equal(fkm_doubt_judge(&d, &t, &quick, &c), &quick);
    const fkm_assign_counts none = {0};
    assert_ptr_equal(fkm_doubt_judge(&d, &t, &quick, &none), &quick);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(few_doubts_are_judged_one_by_one),
        cmocka_unit_test(many_are_screened_finely),
        cmocka_unit_test(ties_are_not_screened_finely_for_long),
        cmocka_unit_test(few_rows_say_little),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
