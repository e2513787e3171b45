/* Bounds: never tighter than the truth, and what they spare keeps its label. */
#include "each_isa.h"

#include "../short_form.h"

#include "../../src/cpu/apart.h"
#include "../../src/cpu/assign.h"
#include "../../src/cpu/bounds.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 200, CLUSTERS = 130 };

typedef struct setting {
    const fkm_kernels *kernels;
    int32_t dims;
    float *x, *c;
    uint8_t *bytes; /* x again, for byte kernels */
    const void *rows;
    fkm_dtype dtype;
    int32_t labels[ROWS];
    fkm_tiles tiles;
    fkm_assign_scratch scratch;
    fkm_bounds bounds;
    double far[ROWS][CLUSTERS]; /* for panels: as centroids are now */
} setting;

static double distance(const setting *s, int32_t i, int32_t j)
{
    return sqrt(fkm_kernels_scalar.canonical(
        s->x + (int64_t)i * s->dims, s->c + (int64_t)j * s->dims, s->dims));
}

static void label_rows(setting *s, const int32_t *list, int64_t count, bool bounds)
{
    fkm_assign_job job = {
        .tiles = &s->tiles,
        .centroids = s->c,
        .dtype = s->dtype,
        .x = s->rows,
        .list = list,
        .count = count,
        .labels = s->labels,
        .upper = bounds ? s->bounds.upper : NULL,
        .lower = bounds ? s->bounds.lower : NULL,
    };
    int32_t block = fkm_assign_block_rows(s->kernels, s->dims);
    for (int32_t first = 0; first < count; first += block)
        fkm_assign_block(
            &job, &s->scratch, first, count - first < block ? (int32_t)count - first : block);
}

/* Blobs of a spread, round centres that may be far from the origin. */
static void open_setting(setting *s, const fkm_kernels *k, int32_t dims, float offset, float spread)
{
    fkm_err e = {0};
    uint64_t random = 1 + (uint64_t)dims;
    memset(s, 0, sizeof *s);
    s->kernels = k;
    s->dims = dims;
    s->x = malloc(sizeof(float) * (size_t)(ROWS * dims));
    s->c = malloc(sizeof(float) * (size_t)(CLUSTERS * dims));
    s->bytes = malloc((size_t)(ROWS * dims));
    for (int32_t i = 0; i < CLUSTERS * dims; i++)
        s->c[i] = test_uniform(&random) + offset;
    for (int32_t i = 0; i < ROWS * dims; i++)
        s->x[i] = s->c[i / dims % CLUSTERS * dims + i % dims] + spread * test_uniform(&random);
    for (int32_t i = 0; k->bytes && i < CLUSTERS * dims; i++)
        s->c[i] *= 50;
    for (int32_t i = 0; k->bytes && i < ROWS * dims; i++)
        s->x[i] = test_byte(k, s->x[i] * 50);
    s->rows = test_rows(k, s->x, (int64_t)ROWS * dims, s->bytes, &s->dtype);
    memset(s->labels, -1, sizeof s->labels);
    assert_int_equal(fkm_tiles_open(&s->tiles, k, CLUSTERS, dims, &e), FKM_OK);
    assert_int_equal(fkm_assign_scratch_open(&s->scratch, k, fkm_assign_block_rows(k, dims),
                         CLUSTERS, dims, s->dtype, 1, &e),
        FKM_OK);
    assert_int_equal(fkm_bounds_open(&s->bounds, ROWS, CLUSTERS, &e), FKM_OK);
    fkm_tiles_set(&s->tiles, s->c, 1, NULL);
    label_rows(s, NULL, ROWS, false);
}

static void close_setting(setting *s)
{
    fkm_bounds_close(&s->bounds);
    fkm_assign_scratch_close(&s->scratch);
    fkm_tiles_close(&s->tiles);
    free(s->x);
    free(s->bytes);
    free(s->c);
}

static void check_bounds(const setting *s)
{
    const double scale = s->tiles.scale;
    for (int32_t i = 0; i < ROWS; i++) {
        double far[CLUSTERS], rest = INFINITY;
        int32_t own = s->labels[i], best = 0;
        for (int32_t j = 0; j < CLUSTERS; j++) {
            far[j] = distance(s, i, j);
            best = far[j] < far[best] ? j : best;
        }
        for (int32_t j = 0; j < CLUSTERS; j++)
            if (j != best)
                rest = fmin(rest, far[j]);
        assert_int_equal(own, best);
        assert_true(s->bounds.upper[i] >= far[own] * scale);
        assert_true(s->bounds.lower[i] <= rest * scale);
    }
}

/* Moves centroids a little and a few of them more, as an iteration does. shift: how far. */
static void move_centroids(setting *s, float step, uint64_t *random, double *shift)
{
    for (int32_t j = 0; j < CLUSTERS; j++) {
        double square = 0;
        for (int32_t t = 0; t < s->dims; t++) {
            float *v = s->c + j * s->dims + t, old = *v;
            *v += step * (j % 7 ? 0.1f : 1) * test_uniform(random);
            square += ((double)*v - old) * ((double)*v - old);
        }
        shift[j] = sqrt(square);
    }
    fkm_bounds_move(&s->bounds, shift, s->tiles.scale);
}

/* Rows that are settled at once are those that the list leaves out, with the same bounds; of others
 * nothing is changed. */
static void check_settle(setting *s, int round)
{
    float upper[ROWS], lower[ROWS];
    int32_t list[ROWS];
    const int step = 1 + 7 * round;
    for (int32_t first = 0; first + step <= ROWS; first += step) {
        const size_t bytes = (size_t)step * sizeof(float);
        float *up = s->bounds.upper + first, *down = s->bounds.lower + first;
        float was[2][ROWS];
        memcpy(was[0], up, bytes);
        memcpy(was[1], down, bytes);
        const int64_t left = fkm_bounds_list(&s->bounds, list, first, s->labels + first, step);
        memcpy(upper, up, bytes);
        memcpy(lower, down, bytes);
        memcpy(up, was[0], bytes);
        memcpy(down, was[1], bytes);
        const bool settled = fkm_bounds_settle(&s->bounds, first, s->labels + first, step);
        assert_int_equal(settled, left == 0);
        assert_memory_equal(up, settled ? upper : was[0], bytes);
        assert_memory_equal(down, settled ? lower : was[1], bytes);
        memcpy(up, was[0], bytes);
        memcpy(down, was[1], bytes);
    }
    s->bounds.seen = s->bounds.settled = 0;
}

/* Returns how many rows were spared. */
static int64_t check_kernels(const fkm_kernels *k)
{
    const int32_t dims[] = {1, 3, 20, 64, 100, 520};
    const float offsets[] = {0, 100}, spreads[] = {0.01f, 0.3f, 2};
    const float step = k->bytes ? 50 : 1;
    int64_t spared = 0;
    uint64_t random = 5;
    for (int d = 0; d < 6; d++)
        for (int v = d % 3; v < 6; v += short_form() ? 3 : 1) {
            setting s;
            int32_t list[ROWS];
            open_setting(
                &s, k, dims[d], k->bytes ? offsets[v % 2] / 50 : offsets[v % 2], spreads[v / 2]);
            fkm_bounds_begin(&s.bounds, s.tiles.frame, true);
            assert_true(s.bounds.collect);
            label_rows(&s, NULL, ROWS, true);
            fkm_bounds_end(&s.bounds);
            check_bounds(&s);
            for (int round = 0; round < 4; round++) {
                for (int moves = 0; moves < round; moves++) { /* none, one, several */
                    double shift[CLUSTERS];
                    move_centroids(&s, round == 3 ? step : 0.02f * step, &random, shift);
                    fkm_tiles_set(&s.tiles, s.c, 1, NULL);
                }
                fkm_bounds_begin(&s.bounds, s.tiles.frame, true);
                if (!s.bounds.collect || !s.bounds.valid)
                    break;
                check_settle(&s, round);
                int64_t n = fkm_bounds_list(&s.bounds, list, 0, s.labels, ROWS);
                spared += ROWS - n;
                label_rows(&s, list, n, true);
                fkm_bounds_end(&s.bounds);
                check_bounds(&s);
            }
            close_setting(&s);
        }
    return spared;
}

static void bounds_hold(void **state)
{
    (void)state;
    FOR_EACH_ISA(k)
    {
        assert_true(check_kernels(k) > 1000); /* else nothing was tested */
    }
}

static void bounds_of_bytes_hold(void **state)
{
    (void)state;
    FOR_EACH_BYTE_ISA(k)
    {
        assert_true(check_kernels(k) > 1000);
    }
}

/* ---- of panels and tiles ---- */

/* Two rows that cannot be screened: one is too long, one has no distance. */
static bool beyond_screening(const setting *s, int32_t row)
{
    return !s->kernels->bytes && row < 2;
}

static void measure_all(setting *s)
{
    for (int32_t i = 0; i < ROWS; i++)
        for (int32_t j = 0; j < CLUSTERS; j++)
            s->far[i][j] = distance(s, i, j);
}

/* Screens the store, in label order, with the distances of its panels. */
static void label_store(setting *s, fkm_row_store *store, bool known)
{
    int32_t block = fkm_assign_block_rows(s->kernels, s->dims);
    fkm_assign_job job = {
        .tiles = &s->tiles,
        .centroids = s->c,
        .dtype = s->dtype,
        .x = s->rows,
        .store = store,
        .pack = true,
        .keep = true,
        .apart = true,
        .apart_known = known,
        .upper = s->bounds.upper,
        .lower = s->bounds.lower,
        .count = ROWS,
        .labels = s->labels,
    };
    s->scratch.counts.apart = 0;
    for (int32_t first = 0; first < ROWS; first += block)
        fkm_assign_block(&job, &s->scratch, first, ROWS - first < block ? ROWS - first : block);
}

/* How many pairs of panels and lots claim to be farther apart than they are, when lots had drifted
 * by so much less than they have. */
static int64_t false_claims(const setting *s, const fkm_row_store *store, float drift)
{
    const int32_t panel = s->kernels->panel, lot = s->tiles.lot;
    int64_t claims = 0;
    for (int32_t p = 0; p * panel < ROWS; p++)
        for (int32_t i = 0; i < s->tiles.lots; i++) {
            double least = INFINITY;
            for (int32_t r = p * panel; r < (p + 1) * panel && r < ROWS; r++)
                for (int32_t j = i * lot; j < (i + 1) * lot; j++)
                    if (s->tiles.index[j] >= 0 && !beyond_screening(s, store->order[r]))
                        least = fmin(
                            least, s->far[store->order[r]][s->tiles.index[j]] * s->tiles.scale -
                                       store->ref[r]);
            double kept = (double)store->apart[p * s->tiles.lots + i] - store->slip[p];
            claims += kept - (double)s->tiles.drift[i] * drift > least;
        }
    return claims;
}

static void check_labels(const setting *s)
{
    for (int32_t i = 0; i < ROWS; i++) {
        int32_t best = -1;
        double least = INFINITY;
        for (int32_t j = 0; j < CLUSTERS; j++)
            if (s->far[i][j] < least) {
                least = s->far[i][j];
                best = j;
            }
        assert_int_equal(s->labels[i], best);
    }
}

/* Bounds of rows that were screened with tiles left out. */
static void check_rows(const setting *s, const fkm_row_store *store)
{
    for (int32_t at = 0; at < ROWS; at++) {
        int32_t i = store->order[at], own = s->labels[i];
        if (beyond_screening(s, i))
            continue;
        assert_true(s->bounds.upper[at] >= s->far[i][own] * s->tiles.scale);
        for (int32_t j = 0; j < CLUSTERS; j++)
            if (j != own)
                assert_true(s->bounds.lower[at] <= s->far[i][j] * s->tiles.scale);
    }
}

typedef struct findings {
    int64_t spared;
    int64_t halved; /* false claims if tiles had drifted by half as much */
} findings;

static void follow_panels(setting *s, float step, findings *f)
{
    fkm_err e = {0};
    fkm_row_store store;
    double shift[CLUSTERS];
    int64_t start[CLUSTERS + 1];
    int32_t other[ROWS];
    uint64_t random = 9;
    if (!s->kernels->bytes)
        for (int32_t t = 0; t < s->dims; t++) {
            s->x[t] = 1e30f;
            s->x[s->dims + t] = NAN;
        }
    const fkm_store_shape shape = {
        .panel = s->kernels->panel,
        .panel_bytes = fkm_panel_bytes(s->kernels, s->dims),
        .lots = s->tiles.lots,
        .tails = s->kernels->bytes,
    };
    assert_int_equal(fkm_row_store_open(&store, &shape, ROWS, &e), FKM_OK);
    label_rows(s, NULL, ROWS, false);
    fkm_row_store_start(&store, s->labels, ROWS);
    const fkm_label_order by = {.clusters = CLUSTERS};
    fkm_row_store_sort(&store, ROWS, &by, 1, NULL, start, other);
    fkm_tiles_set(&s->tiles, s->c, 1, NULL);
    label_store(s, &store, false);
    const uint32_t order = s->tiles.order;
    for (int round = 0; round < 6; round++) {
        move_centroids(s, round == 4 ? step : 0.01f * step, &random, shift);
        measure_all(s);
        fkm_tiles_follow(&s->tiles, s->c, shift, NULL);
        bool known = s->tiles.order == order; /* else they have outgrown the frame */
        f->halved += known ? false_claims(s, &store, 0.5f) : 0;
        assert_true(!known || false_claims(s, &store, 1) == 0);
        label_store(s, &store, known);
        assert_int_equal(false_claims(s, &store, 1), 0);
        check_labels(s);
        check_rows(s, &store);
        f->spared += s->scratch.counts.apart;
        if (!known)
            break;
    }
    fkm_row_store_close(&store);
}

static void check_panels(const fkm_kernels *k, int32_t lot)
{
    const int32_t dims[] = {1, 3, 20, 64, 100, 520};
    const float offsets[] = {0, 100}, spreads[] = {0.01f, 0.3f};
    findings f = {0};
    for (int d = 0; d < 6; d++)
        for (int v = d % 4; v < 4; v += short_form() ? 4 : 1) {
            setting s;
            float offset = k->bytes ? offsets[v % 2] / 50 : offsets[v % 2];
            open_setting(&s, k, dims[d], offset, spreads[(v / 2 + d) % 2]);
            fkm_tiles_lots(&s.tiles, lot);
            follow_panels(&s, k->bytes ? 50 : 1, &f);
            close_setting(&s);
        }
    assert_true(f.spared > 20);
    assert_true(f.halved > 5);
}

static void panels_hold(void **state)
{
    (void)state;
    FOR_EACH_ISA(k)
    {
        check_panels(k, k->tile);
        if (k->picks)
            check_panels(k, 1);
    }
}

static void panels_of_bytes_hold(void **state)
{
    (void)state;
    FOR_EACH_BYTE_ISA(k)
    {
        check_panels(k, k->tile);
        if (k->picks)
            check_panels(k, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bounds_hold),
        cmocka_unit_test(bounds_of_bytes_hold),
        cmocka_unit_test(panels_hold),
        cmocka_unit_test(panels_of_bytes_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
