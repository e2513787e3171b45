/* Sums of clusters by several workers: the same when the integers change their width, as they do
 * from one problem of a batch to the next, and whoever adds which rows. */
#include "../../src/cpu/update.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

enum { CLUSTERS = 5, DIMS = 7, ROWS = 40, THREADS = 3 };

static const fkm_scale narrow = {20, false, 40}, wide = {60, true, 0};

/* Coordinate d of row i of a problem: whole sixteenths, so that sums are exact in either width. */
static float coordinate(int problem, int i, int d)
{
    return (float)((i * 31 + d * 7 + problem * 13) % 97 - 48) / 16;
}

static void solve(fkm_update *u, int problem, fkm_scale scale, double *inertia, float *mean)
{
    static const float zeros[CLUSTERS * DIMS];
    double shift[CLUSTERS];
    fkm_update_scale(u, scale);
    fkm_update_clear(u, true);
    for (int i = 0; i < ROWS; i++) {
        float x[DIMS];
        for (int d = 0; d < DIMS; d++)
            x[d] = coordinate(problem, i, d);
        fkm_update_row(u, i % THREADS, x, FKM_F32, i % CLUSTERS, false);
        fkm_update_square(u, i % THREADS, x, FKM_F32);
    }
    *inertia = fkm_update_end(u, true, zeros);
    (void)fkm_update_move(u, mean, shift, NULL, NULL);
}

static void check(fkm_update *u, int problem, fkm_scale scale)
{
    double inertia, want = 0, sum[CLUSTERS][DIMS] = {{0}};
    float mean[CLUSTERS * DIMS] = {0};
    for (int i = 0; i < ROWS; i++)
        for (int d = 0; d < DIMS; d++) {
            const double v = coordinate(problem, i, d);
            want += v * v;
            sum[i % CLUSTERS][d] += v;
        }
    solve(u, problem, scale, &inertia, mean);
    assert_true(inertia == want);
    for (int c = 0; c < CLUSTERS; c++)
        for (int d = 0; d < DIMS; d++)
            assert_true(mean[c * DIMS + d] == (float)(sum[c][d] / ((double)ROWS / CLUSTERS)));
}

static void problems_of_either_width_follow_each_other(void **state)
{
    (void)state;
    fkm_err e = {0};
    fkm_pool *pool;
    fkm_update u;
    assert_int_equal(fkm_pool_open(&pool, THREADS, &e), FKM_OK);
    assert_int_equal(
        fkm_update_open(&u, &fkm_kernels_scalar, pool, CLUSTERS, DIMS, true, &e), FKM_OK);
    assert_int_equal(u.copies, THREADS);
    for (int problem = 0; problem < 8; problem++)
        check(&u, problem, problem % 4 < 2 ? narrow : wide);
    fkm_update_close(&u);
    fkm_pool_close(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(problems_of_either_width_follow_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
