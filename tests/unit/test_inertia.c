/* Inertia from sums: against the plain sum over rows, where that is exact in 128-bit integers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../src/cpu/kernels.h"

#include <float.h>
#include <math.h>
#include <string.h>

static uint64_t g_random = 0x2545f4914f6cdd1du;

static int32_t random_in(int32_t low, int32_t high) /* [low, high) */
{
    g_random = g_random * 6364136223846793005u + 1442695040888963407u;
    return low + (int32_t)((g_random >> 33) % (uint64_t)(high - low));
}

static void add(fkm_exact *acc, const float *c, const void *sum, bool wide, int64_t rows,
    int32_t dims, int32_t exponent)
{
    fkm_inertia_piece *piece = wide ? NULL : fkm_kernels_scalar.inertia_piece;
    fkm_inertia_add(acc, c, sum, wide, rows, dims, exponent, piece);
}

static void floats_come_apart_exactly(void **state)
{
    (void)state;
    static const float values[] = {0.0f, 1.0f, -1.0f, 0.1f, -3.75f, 16777215.0f, FLT_MAX, -FLT_MAX,
        FLT_MIN, FLT_TRUE_MIN, -FLT_TRUE_MIN, 1e-40f, 1e30f, 1e-30f};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        int exponent = 12345;
        int32_t m = fkm_float_parts(values[i], &exponent);
        assert_true(m > -(1 << 24) && m < 1 << 24);
        assert_true(ldexp(m, exponent) == (double)values[i]);
    }
}

/* Rows q 2^-e and a centroid on a grid of 2^-10: all of it fits in 128 bits, so the sum over rows
 * can be made plainly, in units of 2^-2(e + 10). */
static void check_cluster(int32_t dims, int64_t rows, int e, bool wide)
{
    enum { MAX_DIMS = 40, GRID = 10 };
    float c[MAX_DIMS];
    int64_t sum[MAX_DIMS] = {0};
    fkm_i128 sum_wide[MAX_DIMS] = {0};
    fkm_i128 plain = 0;
    fkm_exact acc = {{0}};
    for (int32_t t = 0; t < dims; t++)
        c[t] = ldexpf((float)random_in(-4000000, 4000000), -GRID - e);
    for (int64_t i = 0; i < rows; i++)
        for (int32_t t = 0; t < dims; t++) {
            int64_t q = random_in(-100000, 100000);
            sum[t] += q;
            sum_wide[t] += q;
            fkm_exact_add(&acc, (fkm_i128)q * q, -2 * e);
            int64_t difference = q * (1 << GRID) - (int64_t)ldexp(c[t], e + GRID);
            plain += (fkm_i128)difference * difference;
        }
    const void *sums = wide ? (const void *)sum_wide : (const void *)sum;
    add(&acc, c, sums, wide, rows, dims, e);
    assert_true(fkm_exact_round(&acc) == ldexp((double)plain, -2 * (e + GRID)));
}

static void equals_the_sum_over_rows(void **state)
{
    (void)state;
    for (int round = 0; round < 200; round++)
        check_cluster(random_in(1, 40), random_in(1, 60), random_in(-90, 130), round & 1);
}

static void sums_that_need_128_bits(void **state)
{
    (void)state;
    const fkm_i128 q = ((fkm_i128)1 << 100) + 12345; /* one row, one dimension */
    fkm_exact acc = {{0}};
    /* |q|^2 2^-2e - 2 q 2^-e c + c^2 with e = 100 and c = 1 + 2^-20: (12345 2^-100 - 2^-20)^2. */
    fkm_i128 high = q >> 60, low = q & (((fkm_i128)1 << 60) - 1);
    fkm_exact_add(&acc, high * high, 120 - 200);
    fkm_exact_add(&acc, 2 * high * low, 60 - 200);
    fkm_exact_add(&acc, low * low, -200);
    float c = 1 + 0x1p-20f;
    add(&acc, &c, &q, true, 1, 1, 100);
    double d = ldexp(12345, -100) - 0x1p-20;
    assert_true(fabs(fkm_exact_round(&acc) - d * d) <= 0x1p-52 * d * d);
}

/* Coordinates of all sizes, subnormal ones and zeros among them, and sums up to 63 bits. */
static void sums_of_64_bits_give_what_those_of_128_give(void **state)
{
    (void)state;
    enum { DIMS = 50 };
    for (int round = 0; round < 500; round++) {
        float c[DIMS];
        int64_t sum[DIMS];
        fkm_i128 wide[DIMS];
        fkm_exact a = {{0}}, b = {{0}};
        const int spread = round % 2 ? 250 : 30;
        for (int t = 0; t < DIMS; t++) {
            c[t] = ldexpf((float)random_in(-(1 << 24), 1 << 24), random_in(0, spread) - 150);
            c[t] = random_in(0, 5) ? c[t] : 0;
            sum[t] = (int64_t)(((uint64_t)random_in(0, INT32_MAX) << 33) |
                               (uint32_t)random_in(0, INT32_MAX));
            sum[t] >>= random_in(1, 60);
            wide[t] = sum[t];
        }
        add(&a, c, sum, false, 1 + round, DIMS, round % 60);
        add(&b, c, wide, true, 1 + round, DIMS, round % 60);
        assert_memory_equal(&a, &b, sizeof a);
    }
}

static void a_cluster_without_rows_adds_nothing(void **state)
{
    (void)state;
    fkm_exact acc = {{0}}, zero = {{0}};
    float c[3] = {1.5f, -1e30f, 3e-30f};
    int64_t sum[3] = {0};
    add(&acc, c, sum, false, 0, 3, 40);
    assert_memory_equal(&acc, &zero, sizeof acc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(floats_come_apart_exactly),
        cmocka_unit_test(equals_the_sum_over_rows),
        cmocka_unit_test(sums_that_need_128_bits),
        cmocka_unit_test(sums_of_64_bits_give_what_those_of_128_give),
        cmocka_unit_test(a_cluster_without_rows_adds_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
