/* Exact accumulation against 128-bit integers, hand-made ties and cancellation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../src/base/exact.h"

#include <math.h>
#include <string.h>

static uint64_t g_random = 0x9e3779b97f4a7c15u;

static uint64_t random_u64(void)
{
    g_random ^= g_random << 13;
    g_random ^= g_random >> 7;
    g_random ^= g_random << 17;
    return g_random;
}

/* Of random length up to `bits` <= 126 bits, so that the sums of the test stay in range. */
static fkm_i128 random_i128(int bits)
{
    fkm_u128 u = (fkm_u128)random_u64() << 64 | random_u64();
    u >>= 128 - 1 - random_u64() % (uint64_t)bits;
    return random_u64() & 1 ? -(fkm_i128)u : (fkm_i128)u;
}

static void assert_same(const fkm_exact *a, const fkm_exact *b)
{
    assert_memory_equal(a, b, sizeof *a);
}

/* The compiler's own conversion of a 128-bit integer rounds to nearest even. */
static void single_values_round_like_int128(void **state)
{
    (void)state;
    for (int i = 0; i < 20000; i++) {
        fkm_i128 v = random_i128(126);
        int exponent = FKM_EXACT_LOW + (int)(random_u64() % 900);
        fkm_exact a = {{0}};
        fkm_exact_add(&a, v, exponent);
        assert_true(fkm_exact_round(&a) == ldexp((double)v, exponent));
    }
}

static void sums_are_exact(void **state)
{
    (void)state;
    for (int round = 0; round < 300; round++) {
        fkm_i128 sum = 0;
        int exponent = FKM_EXACT_LOW + (int)(random_u64() % 900);
        fkm_exact a = {{0}};
        for (int i = 0; i < 100; i++) {
            fkm_i128 v = random_i128(118);
            sum += v;
            fkm_exact_add(&a, v, exponent);
        }
        assert_true(fkm_exact_round(&a) == ldexp((double)sum, exponent));
        fkm_exact whole = {{0}};
        fkm_exact_add(&whole, sum, exponent);
        assert_same(&a, &whole);
    }
}

static void order_and_split_do_not_matter(void **state)
{
    (void)state;
    enum { COUNT = 400 };
    fkm_i128 v[COUNT];
    int exponent[COUNT];
    fkm_exact forward = {{0}}, backward = {{0}}, part[3] = {{{0}}};
    for (int i = 0; i < COUNT; i++) {
        v[i] = random_i128(126);
        exponent[i] = FKM_EXACT_LOW + (int)(random_u64() % 900);
        fkm_exact_add(&forward, v[i], exponent[i]);
        fkm_exact_add(&part[i % 3], v[i], exponent[i]);
    }
    for (int i = COUNT - 1; i >= 0; i--)
        fkm_exact_add(&backward, v[i], exponent[i]);
    fkm_exact_merge(&part[2], &part[0]);
    fkm_exact_merge(&part[2], &part[1]);
    assert_same(&forward, &backward);
    assert_same(&forward, &part[2]);
    for (int i = 0; i < COUNT; i++)
        fkm_exact_add(&forward, -v[i], exponent[i]);
    fkm_exact zero = {{0}};
    assert_same(&forward, &zero);
    assert_true(fkm_exact_round(&forward) == 0);
}

static double round_of(fkm_i128 v, int exponent, fkm_i128 w, int exponent2)
{
    fkm_exact a = {{0}};
    fkm_exact_add(&a, v, exponent);
    fkm_exact_add(&a, w, exponent2);
    return fkm_exact_round(&a);
}

static void ties_go_to_even_unless_a_far_bit_breaks_them(void **state)
{
    (void)state;
    const fkm_i128 big = (fkm_i128)1 << 53; /* spacing of doubles from here: 2 */
    assert_true(round_of(big + 1, 0, 0, 0) == 0x1p53);
    assert_true(round_of(big + 3, 0, 0, 0) == 0x1p53 + 4);
    assert_true(round_of(big + 1, 0, 1, FKM_EXACT_LOW) == 0x1p53 + 2);
    assert_true(round_of(big + 1, 0, -1, FKM_EXACT_LOW) == 0x1p53);
    assert_true(round_of(big + 3, 0, -1, FKM_EXACT_LOW) == 0x1p53 + 2);
    assert_true(round_of(-big - 1, 0, 0, 0) == -0x1p53);
    assert_true(round_of(-big - 1, 0, -1, FKM_EXACT_LOW) == -(0x1p53 + 2));
    assert_true(round_of(2 * big - 1, 0, 0, 0) == 0x1p54 - 1);
    assert_true(round_of(4 * big - 1, 0, 0, 0) == 0x1p55); /* rounding carries into a new bit */
}

static void the_ends_of_the_range(void **state)
{
    (void)state;
    assert_true(round_of(1, FKM_EXACT_LOW, 0, 0) == ldexp(1, FKM_EXACT_LOW));
    assert_true(round_of(-1, FKM_EXACT_LOW, 0, 0) == -ldexp(1, FKM_EXACT_LOW));
    assert_true(round_of(1, FKM_EXACT_HIGH - 1, -1, FKM_EXACT_LOW) == ldexp(1, FKM_EXACT_HIGH - 1));
    fkm_exact a = {{0}};
    fkm_exact_add(&a, 1, FKM_EXACT_HIGH - 1);
    fkm_exact_add(&a, 1, FKM_EXACT_LOW);
    fkm_exact_add(&a, -1, FKM_EXACT_HIGH - 1);
    assert_true(fkm_exact_round(&a) == ldexp(1, FKM_EXACT_LOW));

    /* The headroom that the header promises: 2^62 additions of the largest value, by doubling. */
    fkm_exact sum = {{0}};
    fkm_exact_add(&sum, 1, FKM_EXACT_HIGH - 1);
    for (int i = 0; i < 62; i++) {
        fkm_exact same = sum;
        fkm_exact_merge(&sum, &same);
    }
    assert_true(fkm_exact_round(&sum) == ldexp(1, FKM_EXACT_HIGH - 1 + 62));

    const fkm_i128 lowest = (fkm_i128)((fkm_u128)1 << 127);
    assert_true(round_of(lowest, 100, 0, 0) == -ldexp(1, 227));
    assert_true(round_of(lowest, 37, lowest, 37) == -ldexp(1, 165));
}

static void carries_run_through_all_limbs(void **state)
{
    (void)state;
    fkm_exact a = {{0}}, zero = {{0}};
    fkm_exact_add(&a, -1, FKM_EXACT_LOW);
    for (int i = 0; i < FKM_EXACT_LIMBS; i++)
        assert_true(a.limb[i] == UINT64_MAX);
    fkm_exact_add(&a, 1, FKM_EXACT_LOW);
    assert_same(&a, &zero);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(single_values_round_like_int128),
        cmocka_unit_test(sums_are_exact),
        cmocka_unit_test(order_and_split_do_not_matter),
        cmocka_unit_test(ties_go_to_even_unless_a_far_bit_breaks_them),
        cmocka_unit_test(the_ends_of_the_range),
        cmocka_unit_test(carries_run_through_all_limbs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
