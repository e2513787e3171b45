/* Donors for empty clusters: which rows are, and when those at hand are enough. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../src/farthest.h"

#include <math.h>

#define ROWS 8

/* Row 3 has no label, row 5 lies on its centroid, rows 0 and 6 are alone. */
static const int32_t labels[ROWS] = {0, 1, 1, -1, 2, 2, 3, 2};
static const double distances[ROWS] = {9, 1, 4, NAN, 2, 0, 8, 4};
static const int64_t counts[5] = {1, 2, 3, 1, 0};
static const fkm_rows rows = {NULL, 0, ROWS};

static void check(fkm_farthest *f, const int64_t *want, int32_t n)
{
    fkm_farthest_sort(f);
    assert_int_equal(f->size, n);
    for (int32_t i = 0; i < n; i++)
        assert_int_equal(f->rows[i].row, want[i]);
}

static void counts_are_known(void **state)
{
    (void)state;
    fkm_far_row room[ROWS];
    fkm_farthest all = {room, 0, ROWS, false}, two = {room, 0, 2, false};
    fkm_farthest_offer(&all, &rows, labels, distances, counts);
    check(&all, (const int64_t[]){2, 7, 4, 1}, 4);
    fkm_farthest_offer(&two, &rows, labels, distances, counts);
    check(&two, (const int64_t[]){2, 7}, 2);
}

static void counts_come_later(void **state)
{
    (void)state;
    fkm_far_row room[ROWS];
    fkm_farthest all = {room, 0, ROWS, false}, four = {room, 0, 4, false};
    fkm_farthest_offer(&all, &rows, labels, distances, NULL);
    assert_int_equal(all.size, 6);
    assert_true(fkm_farthest_settle(&all, labels, counts, 5)); /* there are no more */
    check(&all, (const int64_t[]){2, 7, 4, 1}, 4);
    fkm_farthest_offer(&four, &rows, labels, distances, NULL);
    assert_true(fkm_farthest_settle(&four, labels, counts, 2));
    check(&four, (const int64_t[]){2, 7}, 2);
}

static void too_few_are_left(void **state)
{
    (void)state;
    fkm_far_row room[3];
    fkm_farthest three = {room, 0, 3, false};
    fkm_farthest_offer(&three, &rows, labels, distances, NULL);
    assert_false(fkm_farthest_settle(&three, labels, counts, 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_are_known),
        cmocka_unit_test(counts_come_later),
        cmocka_unit_test(too_few_are_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
