/* The margin of screening: large enough on rows made to break it, and not larger than twice that.
 *
 * The row x = (1024, 1, 1, ...) meets two centroids. Both scores begin at about 512, where a
 * float32 has steps of 2^-14. The true best, GOOD, then adds 499 times 0.49 of a step: each
 * addition is rounded away. The other, BAD, adds 499 times 0.51 of a step: each addition is rounded
 * up to a whole one. So BAD's computed score ends 486 steps above GOOD's, although its true score
 * is below. Two margins of the proved size (about 257 steps each) keep GOOD as a candidate; two of
 * half that size drop it.
 *
 * Low precision has a case of its own: a row whose rounding to bf16 loses the same amount in each
 * of 64 coordinates, along a centroid that points that way, loses all that Cauchy-Schwarz allows.
 * So have rows of 8-bit integers, which meet centroids rounded to integers.
 */
#include "each_isa.h"

#include "../../src/cpu/assign.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

/* So many clusters that the three largest, which are not at the origin, share a tile of any size,
 * and its quantum. */
enum { DIMS = 500, CLUSTERS = 11, GOOD = 5, BAD = 2, HEAD = 32 };

static void make_case(float *x, float *c)
{
    const float step = 0x1p-14f, start = 0.5f * (1 + 0x1p-10f);
    memset(
        c, 0, CLUSTERS * DIMS * sizeof *c); /* the others sit at zero, and keep the shift there */
    x[0] = 1024;
    c[GOOD * DIMS] = start + 13 * 0x1p-24f;
    c[BAD * DIMS] = start;
    for (int t = 1; t < DIMS; t++) {
        x[t] = 1;
        c[GOOD * DIMS + t] = 0.49f * step;
        c[BAD * DIMS + t] = 0.51f * step;
    }
}

/* Score of GOOD: 8 * 1.00383 - 0.5; its bf16 score is 0.0306 less. BAD lies 0.005 below, and is
 * exact. */
static void make_low_case(float *x, float *c)
{
    memset(c, 0, CLUSTERS * DIMS * sizeof *c);
    memset(x, 0, DIMS * sizeof *x);
    x[0] = 16;
    for (int t = 1; t <= 64; t++) {
        x[t] = 1 + 0.49f * 0x1p-7f;
        c[GOOD * DIMS + t] = 0.125f;
    }
    double want = 64 * 0.125 * (double)x[1] - 0.5 - 0.005; /* 16 b - b^2 / 2 */
    c[BAD * DIMS] = (float)(16 - sqrt(256 - 2 * want));
}

/* By the first HEAD coordinates along axes, if there are any; by groups of dims, likewise. */
static int32_t label_by(const fkm_kernels *k, const float *x, const float *c, const float *axes,
    const uint16_t *kept, double factor)
{
    fkm_err e = {0};
    fkm_tiles tiles;
    fkm_assign_scratch scratch;
    uint8_t bytes[DIMS];
    fkm_dtype dtype;
    const void *row = test_rows(k, x, DIMS, bytes, &dtype);
    int32_t label = BAD; /* a warm start: the floor is BAD's score from the first tile on */
    assert_int_equal(fkm_tiles_open(&tiles, k, CLUSTERS, DIMS, &e), FKM_OK);
    assert_int_equal(
        fkm_assign_scratch_open(&scratch, k, k->panel, CLUSTERS, DIMS, dtype, 1, &e), FKM_OK);
    if (axes)
        fkm_tiles_turn(&tiles, axes, HEAD, 0x1p-40f);
    fkm_tiles_set(&tiles, c, factor, NULL);
    if (kept) {
        fkm_tiles_keep(&tiles, kept);
        fkm_tiles_set(&tiles, c, factor, NULL);
    }
    fkm_assign_job job = {
        .tiles = &tiles,
        .centroids = c,
        .dtype = dtype,
        .x = row,
        .count = 1,
        .labels = &label,
    };
    fkm_assign_block(&job, &scratch, 0, 1);
    fkm_assign_scratch_close(&scratch);
    fkm_tiles_close(&tiles);
    return label;
}

static int32_t label_with(const fkm_kernels *k, const float *x, const float *c, double factor)
{
    return label_by(k, x, c, NULL, NULL, factor);
}

static void margin_is_needed(void **state)
{
    (void)state;
    static float x[DIMS], c[CLUSTERS * DIMS];
    make_case(x, c);
    double good = fkm_kernels_scalar.canonical(x, c + GOOD * DIMS, DIMS);
    double bad = fkm_kernels_scalar.canonical(x, c + BAD * DIMS, DIMS);
    assert_true(good < bad);
    FOR_EACH_ISA(k)
    {
        assert_int_equal(label_with(k, x, c, 1), GOOD);
        if (!k->low)
            assert_int_equal(label_with(k, x, c, 0.5), BAD);
    }
}

static void low_margin_is_needed(void **state)
{
    (void)state;
    static float x[DIMS], c[CLUSTERS * DIMS];
    make_low_case(x, c);
    double good = fkm_kernels_scalar.canonical(x, c + GOOD * DIMS, DIMS);
    double bad = fkm_kernels_scalar.canonical(x, c + BAD * DIMS, DIMS);
    assert_true(good < bad);
    FOR_EACH_ISA(k)
    {
        assert_int_equal(label_with(k, x, c, 1), GOOD);
        if (!k->low || !strcmp(k->isa, "amx"))
            assert_int_equal(label_with(k, x, c, 0.5), k->low ? BAD : GOOD);
    }
}

/* The same of rows rounded to 16-bit integers: their quantum is 1, so that 0.49 is lost in each of
 * 399 coordinates where GOOD is 2: 391 of its score of 7577. Its own coordinates are 2250 quanta,
 * as it is 45000 long. BAD has 7572.8, along the row's first coordinate, where it is 260 of the
 * same quanta, so that its margin is small. */
static void words_margin_is_needed(void **state)
{
    (void)state;
    static float x[DIMS], c[CLUSTERS * DIMS];
    x[0] = 32767;
    c[BAD * DIMS] = 260 * (40.0f / 45000);
    for (int t = 1; t <= 400; t++) {
        x[t] = t < 400 ? 10.49f : 3;
        c[GOOD * DIMS + t] = 2;
    }
    double good = fkm_kernels_scalar.canonical(x, c + GOOD * DIMS, DIMS);
    double bad = fkm_kernels_scalar.canonical(x, c + BAD * DIMS, DIMS);
    assert_true(good < bad);
    FOR_EACH_ISA(k)
    {
        assert_int_equal(label_with(k, x, c, 1), GOOD);
        if (!strcmp(k->isa, "avx512vnni"))
            assert_int_equal(label_with(k, x, c, 0.5), BAD);
    }
}

/* Rows rounded to integers: all quanta are 1 here. The row loses 0.49 in each of 64 coordinates
 * where GOOD is 2: 62.7 of its score of 1214.7, all that Cauchy-Schwarz allows. BAD has 1211.5,
 * exactly. */
static void coarse_margin_is_needed(void **state)
{
    (void)state;
    static float x[DIMS], c[CLUSTERS * DIMS];
    for (int t = 1; t <= 64; t++) {
        x[t] = 10.49f;
        c[GOOD * DIMS + t] = 2;
    }
    for (int t = 200; t < 360; t += 40) { /* 4 * 60 * 5 - 4 * 5^2 / 2 */
        x[t] = 60;
        c[BAD * DIMS + t] = 5;
    }
    x[66] = 20;
    c[BAD * DIMS + 66] = 3; /* 20 * 3 - 3^2 / 2 */
    x[67] = 4;
    c[BAD * DIMS + 67] = 2; /* 4 * 2 - 2^2 / 2 */
    FOR_EACH_ISA(k)
    {
        const bool sets = !strcmp(k->isa, "avx2int8"); /* whose integers end earlier */
        x[DIMS - 2] = sets ? 102 : 127;                /* no centroid has this coordinate, */
        c[DIMS - 1] = sets ? 80 : 127;                 /* and no row that one */
        double good = fkm_kernels_scalar.canonical(x, c + GOOD * DIMS, DIMS);
        double bad = fkm_kernels_scalar.canonical(x, c + BAD * DIMS, DIMS);
        assert_true(good < bad);
        assert_int_equal(label_with(k, x, c, 1), GOOD);
        if (k->named)
            assert_int_equal(label_with(k, x, c, 0.5), BAD);
    }
}

/* Patterns that repeat every 16 dims: what makes sums of a few products large. */
static const float patterns[][16] = {
    {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
    {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1},
    {1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
    {3, 3, 0, 0, -1, -1, 0, 0, -1, -1, 0, 0, -1, -1, 0, 0},
    {0, 0, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
    {1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1},
    {0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1},
    {8, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
    {8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
};
#define PATTERNS (int)(sizeof patterns / sizeof patterns[0])

/* GOOD lies along its pattern, so far that it is only just nearer than zero, where BAD and all
 * others are: a sum of integers that wraps or saturates would leave it below. */
static void sums_of_integers_fit(void **state)
{
    (void)state;
    static float x[DIMS], c[CLUSTERS * DIMS];
    for (int p = 0; p < PATTERNS; p++)
        for (int q = 0; q < PATTERNS; q++) {
            float along = 0, square = 0;
            for (int t = 0; t < 16; t++) {
                along += patterns[p][t] * patterns[q][t];
                square += patterns[q][t] * patterns[q][t];
            }
            if (along <= 0)
                continue;
            for (int t = 0; t < DIMS / 16 * 16; t++) {
                x[t] = patterns[p][t % 16];
                c[GOOD * DIMS + t] = patterns[q][t % 16] * 1.8f * along / square;
            }
            FOR_EACH_ISA(k)
            {
                assert_int_equal(label_with(k, x, c, 1), GOOD);
            }
        }
}

/* Screening by the first 32 coordinates: GOOD shares a coordinate with the row that the head does
 * not see, worth 0.25 of score, all that the tails allow. BAD lies 0.005 below it, in the head. */
static void tail_margin_is_needed(void **state)
{
    (void)state;
    static float x[DIMS], c[CLUSTERS * DIMS], axes[HEAD * DIMS];
    x[0] = 1;
    x[100] = 0.5f;
    c[GOOD * DIMS + 100] = 0.5f;
    c[BAD * DIMS] = 0.1282f; /* b - b^2 / 2 = 0.12 */
    for (int h = 0; h < HEAD; h++)
        axes[h * DIMS + h] = 1;
    FOR_EACH_ISA(k)
    {
        assert_int_equal(label_by(k, x, c, axes, NULL, 1), GOOD);
        assert_int_equal(label_by(k, x, c, axes, NULL, 0.5), BAD);
    }
}

/* Rows of 8-bit integers: GOOD's coordinates lie 0.49 of a quantum above an integer, all of which
 * counts, because the row is the same in all of them: 314 of its score of 1395 are lost. BAD is
 * exact, and 45 below. */
static void byte_margin_is_needed(void **state)
{
    (void)state;
    static float x[DIMS], c[CLUSTERS * DIMS];
    for (int t = 1; t <= 64; t++) {
        x[t] = 10;
        c[GOOD * DIMS + t] = 2.49f;
    }
    x[0] = 52;
    c[BAD * DIMS] = 50;
    double good = fkm_kernels_scalar.canonical(x, c + GOOD * DIMS, DIMS);
    double bad = fkm_kernels_scalar.canonical(x, c + BAD * DIMS, DIMS);
    assert_true(good < bad);
    FOR_EACH_BYTE_ISA(k)
    {
        c[DIMS - 1] = k->most_quanta; /* so that the quantum is 1; no row has this coordinate */
        assert_int_equal(label_with(k, x, c, 1), GOOD);
        assert_int_equal(label_with(k, x, c, 0.5), BAD);
    }
}

/* Screening by the first 64 dims: GOOD shares a coordinate with the row beyond them, worth 1500 of
 * score, all that the lengths there allow, and so has 1387. BAD has 1350, within them. */
static void faint_margin_is_needed(void **state)
{
    (void)state;
    static float x[DIMS], c[CLUSTERS * DIMS];
    const uint16_t kept[(DIMS + 63) / 64] = {0xffff};
    x[0] = 52;
    c[BAD * DIMS] = 50;
    x[100] = 100;
    c[GOOD * DIMS + 100] = 15;
    FOR_EACH_BYTE_ISA(k)
    {
        c[DIMS - 1] = k->most_quanta; /* so that the quantum is 1; no row has this coordinate */
        assert_int_equal(label_by(k, x, c, NULL, kept, 1), GOOD);
        assert_int_equal(label_by(k, x, c, NULL, kept, 0.5), BAD);
    }
}

/* The largest bytes meet integers of one sign, of which 8 add up to 128 and to more. At the origin,
 * where all other centroids are, is the first of them. */
static void sums_of_bytes_fit(void **state)
{
    (void)state;
    static float x[DIMS], c[CLUSTERS * DIMS];
    FOR_EACH_BYTE_ISA(k)
    {
        for (int integer = -63; integer <= 63; integer++) {
            c[DIMS - 1] = k->most_quanta; /* so that the quantum is 1; no row has this coordinate */
            for (int t = 0; t < DIMS - 1; t++) {
                x[t] = test_byte(k, 255);
                c[GOOD * DIMS + t] = (float)integer;
            }
            assert_int_equal(label_with(k, x, c, 1), integer > 0 ? GOOD : 1);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(margin_is_needed),
        cmocka_unit_test(low_margin_is_needed),
        cmocka_unit_test(words_margin_is_needed),
        cmocka_unit_test(coarse_margin_is_needed),
        cmocka_unit_test(sums_of_integers_fit),
        cmocka_unit_test(tail_margin_is_needed),
        cmocka_unit_test(byte_margin_is_needed),
        cmocka_unit_test(faint_margin_is_needed),
        cmocka_unit_test(sums_of_bytes_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
