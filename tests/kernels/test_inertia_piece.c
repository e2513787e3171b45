/* Inertia from sums of 64 bits, in every kernel: the same as from sums of 128 bits, which are added
 * one coordinate at a time, without a window and without vectors. */
#include "each_isa.h"

#include <float.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>

/* Coordinates: the largest of all in a window, with one sign and with both; anywhere in the
 * exponent range; at the lower edge of the window, and below; tiny; huge; zeros. */
enum { MOST, MOST_BOTH, ANYWHERE, EDGE, TINY, HUGE_ONES, ZEROS, KINDS };

static float with_field(uint64_t random, uint32_t field)
{
    const uint32_t bits = (uint32_t)(random >> 32 & 0x807fffff) | field << 23;
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

/* Of a window whose largest has field 140: 120 is in it, 119 is not. Mantissas end where it does.
 */
static float at_edge(uint64_t random)
{
    const uint64_t sign = (uint64_t)1 << 63, some = random % 1021;
    const uint64_t bits[] = {random, random & sign, random | ~sign};
    return with_field(bits[some % 3], 118 + (uint32_t)(some % 5));
}

static float coordinate(int kind, int32_t t, uint64_t *state)
{
    const uint64_t random = test_random(state);
    const uint32_t some = (uint32_t)(random % 1021);
    switch (kind) {
    case MOST:
        return 16777215;
    case MOST_BOTH:
        return random & 1 << 20 ? 16777215 : -16777215;
    case ANYWHERE:
        return some % 7 ? with_field(random, some % 255) : -0.0f;
    case EDGE:
        return t == 0 ? with_field(random, 140) : at_edge(random);
    case TINY: /* subnormal ones, and those that share their exponent and the next */
        return with_field(random, some % 3);
    case HUGE_ONES:
        return with_field(random, 254 - some % 22);
    default:
        return random & 1 << 20 ? 0.0f : -0.0f;
    }
}

/* Sums: either end of the range; near both; zero and its neighbours; either half all ones; of all
 * sizes. */
enum { LOWEST, HIGHEST, ENDS, SMALL, HALVES, SIZES, SUMS };

static int64_t sum_of(int kind, uint64_t *state)
{
    const uint64_t random = test_random(state);
    const int64_t some = (int64_t)(random % 5);
    switch (kind) {
    case LOWEST:
        return INT64_MIN;
    case HIGHEST:
        return INT64_MAX;
    case ENDS:
        return random & 1 << 20 ? INT64_MAX - some : INT64_MIN + some;
    case SMALL:
        return some - 2;
    case HALVES:
        return random & 1 << 20 ? (int64_t)(random | UINT32_MAX) : (int64_t)(random >> 32 << 32);
    default:
        return (int64_t)test_random(state) >> (random >> 20) % 64;
    }
}

static void check_kernel(const fkm_kernels *k, const fkm_exact *want, const float *c,
    const int64_t *sum, int64_t rows, int32_t dims, int32_t exponent)
{
    fkm_exact got = {{0}};
    fkm_inertia_add(&got, c, sum, false, rows, dims, exponent, k->inertia_piece);
    if (memcmp(&got, want, sizeof got) != 0)
        fail_msg("%s: not the same, of %d dims", k->isa, dims);
}

static void check_case(int coordinates, int sums, int32_t dims)
{
    uint64_t state = (uint64_t)(dims * 100 + coordinates * 10 + sums) * 2654435761u + 1;
    float *c = malloc((size_t)dims * sizeof *c); /* no element more: it would be seen */
    int64_t *sum = malloc((size_t)dims * sizeof *sum);
    fkm_i128 *wide = malloc((size_t)dims * sizeof *wide);
    const int64_t rows = 1 + (int64_t)(test_random(&state) >> 20);
    const int32_t exponent = (int32_t)(test_random(&state) % 200) - 100;
    fkm_exact want = {{0}};
    for (int32_t t = 0; t < dims; t++) {
        c[t] = coordinate(coordinates, t, &state);
        wide[t] = sum[t] = sum_of(sums, &state);
    }
    fkm_inertia_add(&want, c, wide, true, rows, dims, exponent, NULL);
    FOR_EACH_ISA(k)
    {
        check_kernel(k, &want, c, sum, rows, dims, exponent);
    }
    free(c);
    free(sum);
    free(wide);
}

static void each_kind_with_each(void **state)
{
    (void)state;
    for (int coordinates = 0; coordinates < KINDS; coordinates++)
        for (int sums = 0; sums < SUMS; sums++)
            for (int32_t dims = 1; dims <= 3 * FKM_INERTIA_PIECE + 9; dims += 1 + dims / 8)
                check_case(coordinates, sums, dims);
}

/* The kernels for rows of 8-bit integers take it from others: they must take it. */
static void byte_kernels_have_it(void **state)
{
    (void)state;
    enum { DIMS = 100 };
    float c[DIMS];
    int64_t sum[DIMS];
    fkm_exact want = {{0}};
    for (int t = 0; t < DIMS; t++) {
        c[t] = 0.1f * (float)t;
        sum[t] = (int64_t)t * t << 40;
    }
    fkm_inertia_add(&want, c, sum, false, 77, DIMS, 30, fkm_kernels_scalar.inertia_piece);
    FOR_EACH_BYTE_ISA(k)
    {
        check_kernel(k, &want, c, sum, 77, DIMS, 30);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_kind_with_each),
        cmocka_unit_test(byte_kernels_have_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
