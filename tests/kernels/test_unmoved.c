/* Centroids that have not moved: rows that are not looked at for that keep the right labels. */
#include "each_isa.h"

#include "../short_form.h"

#include "../../src/cpu/assign.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 420, CLUSTERS = 300, MOST_LOTS = 320, MOST_DIMS = 40, PASSES = 5 };

/* Rows round centroids, some of which lie in pairs so close that screening leaves rows in doubt. */
typedef struct setting {
    const fkm_kernels *kernels;
    int32_t dims;
    float x[ROWS * MOST_DIMS], c[CLUSTERS * MOST_DIMS];
    uint8_t bytes[ROWS * MOST_DIMS]; /* x again, for byte kernels */
    const void *rows;
    fkm_dtype dtype;
    int32_t labels[ROWS];
    bool moved[CLUSTERS], moved_lot[MOST_LOTS];
    fkm_tiles tiles;
    fkm_row_store store;
    fkm_assign_scratch scratch;
} setting;

/* What was left undone. */
typedef struct savings {
    int64_t rested, pairs, doubts;
} savings;

static void fill(setting *s, uint64_t *random)
{
    const float size = s->kernels->bytes ? 60 : 1, middle = s->kernels->takes == FKM_U8 ? 128 : 0;
    for (int32_t i = 0; i < CLUSTERS * s->dims; i++)
        s->c[i] = middle + size * test_uniform(random);
    for (int32_t j = 0; j + 1 < CLUSTERS; j += 10)
        for (int32_t t = 0; t < s->dims; t++)
            s->c[(j + 1) * s->dims + t] =
                s->c[j * s->dims + t] + 1e-3f * size * test_uniform(random);
    for (int32_t i = 0; i < ROWS * s->dims; i++) {
        int32_t near = i / s->dims * 7 % CLUSTERS; /* neighbours have centroids in other tiles */
        s->x[i] = s->c[near * s->dims + i % s->dims] + 0.2f * size * test_uniform(random);
        if (s->kernels->bytes)
            s->x[i] = test_byte(s->kernels, s->x[i]);
    }
    s->rows = test_rows(s->kernels, s->x, (int64_t)ROWS * s->dims, s->bytes, &s->dtype);
}

static void open_setting(
    setting *s, const fkm_kernels *k, int32_t dims, int32_t lot, uint64_t *random)
{
    fkm_err e = {0};
    memset(s, 0, sizeof *s);
    s->kernels = k;
    s->dims = dims;
    fill(s, random);
    memset(s->labels, -1, sizeof s->labels);
    assert_int_equal(fkm_tiles_open(&s->tiles, k, CLUSTERS, dims, &e), FKM_OK);
    fkm_tiles_lots(&s->tiles, lot);
    assert_int_equal(fkm_assign_scratch_open(&s->scratch, k, fkm_assign_block_rows(k, dims),
                         CLUSTERS, dims, s->dtype, 1, &e),
        FKM_OK);
    const fkm_store_shape shape = {
        .panel = k->panel,
        .panel_bytes = fkm_panel_bytes(k, dims),
        .lots = s->tiles.lots,
        .tails = k->bytes,
    };
    assert_int_equal(fkm_row_store_open(&s->store, &shape, ROWS, &e), FKM_OK);
    fkm_tiles_set(&s->tiles, s->c, 1, NULL);
}

static void close_setting(setting *s)
{
    fkm_row_store_close(&s->store);
    fkm_assign_scratch_close(&s->scratch);
    fkm_tiles_close(&s->tiles);
}

/* store: with the distances of its panels to lots, when apart; known: of an earlier pass. */
static void label_rows(setting *s, bool store, bool apart, bool known)
{
    const int32_t block = fkm_assign_block_rows(s->kernels, s->dims);
    const fkm_assign_job job = {
        .tiles = &s->tiles,
        .centroids = s->c,
        .dtype = s->dtype,
        .x = s->rows,
        .store = store ? &s->store : NULL,
        .pack = true,
        .keep = true,
        .moved = store ? s->moved : NULL,
        .moved_lot = s->moved_lot,
        .apart = apart,
        .apart_known = apart && known,
        .reach_known = apart && known,
        .count = ROWS,
        .labels = s->labels,
    };
    for (int32_t first = 0; first < ROWS; first += block)
        fkm_assign_block(&job, &s->scratch, first, ROWS - first < block ? ROWS - first : block);
}

static void check_labels(const setting *s)
{
    for (int32_t i = 0; i < ROWS; i++) {
        int32_t best = 0;
        double least = INFINITY;
        for (int32_t j = 0; j < CLUSTERS; j++) {
            double d = fkm_kernels_scalar.canonical(
                s->x + (int64_t)i * s->dims, s->c + (int64_t)j * s->dims, s->dims);
            best = d < least ? j : best;
            least = fmin(d, least);
        }
        assert_int_equal(s->labels[i], best);
    }
}

/* Moves a few centroids, some onto a row of another. */
static void move_some(setting *s, int count, uint64_t *random)
{
    double shift[CLUSTERS] = {0};
    memset(s->moved, 0, sizeof s->moved);
    memset(s->moved_lot, 0, sizeof s->moved_lot);
    for (int i = 0; i < count; i++) {
        const int32_t j = (int32_t)(test_random(random) % CLUSTERS);
        const float *to = s->x + test_random(random) % ROWS * (uint64_t)s->dims;
        float *c = s->c + j * s->dims;
        double square = 0;
        for (int32_t t = 0; t < s->dims; t++) {
            const float old = c[t];
            c[t] = i % 2 ? to[t] : 0.99f * old + 0.01f * to[t];
            square += ((double)c[t] - old) * ((double)c[t] - old);
        }
        s->moved[j] = true;
        shift[j] += sqrt(square);
    }
    fkm_tiles_follow(&s->tiles, s->c, shift, NULL);
    for (int32_t j = 0; j < CLUSTERS; j++)
        s->moved_lot[s->tiles.position[j] / s->tiles.lot] |= s->moved[j];
}

/* sorted: panels' rows are of few clusters; else of more than have tiles of their own. */
static void follow(setting *s, bool sorted, bool apart, savings *f, uint64_t *random)
{
    int64_t start[CLUSTERS + 1];
    int32_t other[ROWS];
    const fkm_label_order by = {.clusters = CLUSTERS};
    label_rows(s, false, false, false);
    check_labels(s);
    fkm_row_store_start(&s->store, s->labels, ROWS);
    if (sorted)
        fkm_row_store_sort(&s->store, ROWS, &by, 1, NULL, start, other);
    memset(s->moved, 1, sizeof s->moved);
    memset(s->moved_lot, 1, sizeof s->moved_lot);
    fkm_tiles_set(&s->tiles, s->c, 1, NULL);
    label_rows(s, true, apart, false);
    for (int pass = 0; pass < PASSES; pass++) {
        const uint32_t order = s->tiles.order;
        move_some(s, pass, random);
        memset(&s->scratch.counts, 0, sizeof s->scratch.counts);
        label_rows(s, true, apart, s->tiles.order == order);
        check_labels(s);
        f->rested += s->scratch.counts.rested;
        f->pairs += s->scratch.counts.apart;
        f->doubts += pass == 0 ? s->scratch.counts.in_doubt : 0;
    }
}

static void check_kernels(const fkm_kernels *k, int32_t lot)
{
    static setting s;
    const int32_t dims[] = {3, MOST_DIMS};
    savings with = {0}, without = {0};
    uint64_t random = 7;
    for (int d = short_form() ? 1 : 0; d < 2; d++)
        for (int sorted = 0; sorted < 2; sorted++) {
            open_setting(&s, k, dims[d], lot, &random);
            follow(&s, sorted, true, &with, &random);
            close_setting(&s);
            open_setting(&s, k, dims[d], lot, &random);
            follow(&s, sorted, false, &without, &random);
            close_setting(&s);
        }
    assert_true(with.rested > ROWS); /* at least when nothing moves */
    assert_true(without.pairs > 20);
    assert_int_equal(without.rested, 0);
    assert_int_equal(with.doubts + without.doubts, 0); /* nothing has moved in these passes */
}

static void unmoved(void **state)
{
    (void)state;
    FOR_EACH_ISA(k)
    {
        check_kernels(k, k->tile);
        if (k->picks)
            check_kernels(k, 1);
    }
}

static void unmoved_bytes(void **state)
{
    (void)state;
    FOR_EACH_BYTE_ISA(k)
    {
        check_kernels(k, k->tile);
        if (k->picks)
            check_kernels(k, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unmoved),
        cmocka_unit_test(unmoved_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
