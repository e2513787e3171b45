/* Whatever the backend has learnt in earlier passes, labels are the nearest centroids' and sums
 * those of the labels: random problems, with centroids set and passes without update in between,
 * held against the definition after every pass. FKM_BACKEND_RUNS: how many problems a path. */
#include "each_isa.h"

#include "../short_form.h"

#include "../../src/cpu/backend_cpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_ROWS = 700, MOST_CLUSTERS = 170, MOST_DIMS = 200, PASSES = 30 };

static const fkm_backend_ops *const ops = &fkm_backend_cpu;

typedef struct problem {
    fkm_plan plan;
    fkm_backend *b;
    uint64_t random;
    float x[MOST_ROWS * MOST_DIMS];
    uint8_t bytes[MOST_ROWS * MOST_DIMS]; /* x again, if rows are bytes */
    float c[MOST_CLUSTERS * MOST_DIMS];
    int32_t labels[MOST_ROWS];
} problem;

static int32_t below(problem *p, int32_t n)
{
    return (int32_t)(test_random(&p->random) >> 33) % n;
}

/* Crowds of rows round some centres, in whole sixteenths: sums are exact. */
static void make_rows(problem *p)
{
    const int32_t dims = p->plan.dims, centers = 1 + below(p, 40);
    const float noise[] = {0.05f, 0.3f, 1}, offset = below(p, 4) ? 0 : 60;
    const float spread = noise[below(p, 3)];
    static float center[40 * MOST_DIMS];
    for (int32_t i = 0; i < centers * dims; i++)
        center[i] = 2 * test_uniform(&p->random);
    for (int32_t r = 0; r < p->plan.rows; r++) {
        const float *from = center + (int64_t)below(p, centers) * dims;
        for (int32_t d = 0; d < dims; d++) {
            float v = from[d] + spread * test_uniform(&p->random);
            const int64_t at = (int64_t)r * dims + d;
            if (p->plan.dtype == FKM_F32) {
                p->x[at] = rintf((v + offset) * 16) / 16;
                continue;
            }
            v = rintf(128 + 40 * v);
            p->x[at] = v < 0 ? 0 : v > 255 ? 255 : v;
            p->bytes[at] = (uint8_t)(int)p->x[at];
        }
    }
}

static void take_rows(problem *p, int32_t first, int32_t end)
{
    const int32_t dims = p->plan.dims;
    for (int32_t j = first; j < end; j++)
        memcpy(p->c + (int64_t)j * dims, p->x + (int64_t)below(p, (int32_t)p->plan.rows) * dims,
            (size_t)dims * sizeof *p->c);
}

static void set(problem *p)
{
    fkm_err e = {0};
    assert_int_equal(ops->set_centroids(p->b, p->c, &e), FKM_OK);
}

static void open_problem(problem *p, const char *isa, fkm_dtype t, uint64_t seed)
{
    const int32_t dims[] = {3, 8, 40, 100, MOST_DIMS};
    fkm_err e = {0};
    p->random = seed * 2 + 1;
    for (int i = 0; i < 8; i++)
        (void)test_random(&p->random);
    p->plan = (fkm_plan){.rows = 200 + below(p, MOST_ROWS - 200),
        .dims = dims[below(p, 5)],
        .clusters = 2 + below(p, MOST_CLUSTERS - 2),
        .dtype = t,
        .keep = below(p, 5) > 0,
        .bounds = true,
        .update = true,
        .top = 1,
        .threads = 1 + below(p, 2),
        .isa = isa};
    p->plan.chunk_rows = below(p, 3) ? p->plan.rows : (p->plan.rows / 2 + 31) / 32 * 32;
    make_rows(p);
    memset(p->labels, -1, sizeof p->labels);
    assert_int_equal(ops->open(&p->b, &p->plan, &e), FKM_OK);
    ops->reset(p->b);
    take_rows(p, 0, p->plan.clusters);
    set(p);
    assert_int_equal(ops->set_scale(p->b, (fkm_scale){20, false, 40}, &e), FKM_OK);
}

/* As an empty cluster is given a row, or all are somewhat elsewhere. */
static void disturb(problem *p)
{
    const int32_t k = p->plan.clusters;
    if (below(p, 12) == 0) {
        const int32_t first = below(p, k), end = first + 1 + below(p, 3);
        take_rows(p, first, end < k ? end : k);
    } else if (below(p, 12) == 0) {
        for (int32_t i = 0; i < k * p->plan.dims; i++)
            p->c[i] += below(p, 3) ? 0 : 0.01f * test_uniform(&p->random);
    } else {
        return;
    }
    set(p);
}

/* By the definition. */
static int32_t nearest_to(const problem *p, int32_t row)
{
    const int32_t dims = p->plan.dims;
    int32_t best = -1;
    double least = INFINITY;
    for (int32_t j = 0; j < p->plan.clusters; j++) {
        const double d = fkm_kernels_scalar.canonical(
            p->x + (int64_t)row * dims, p->c + (int64_t)j * dims, dims);
        if (d < least) {
            least = d;
            best = j;
        }
    }
    return best;
}

static void check_labels(const problem *p)
{
    for (int32_t r = 0; r < p->plan.rows; r++)
        assert_int_equal(p->labels[r], nearest_to(p, r));
}

/* p->c: before the move. */
static void check_means(problem *p)
{
    static double sum[MOST_CLUSTERS * MOST_DIMS];
    static float now[MOST_CLUSTERS * MOST_DIMS];
    int64_t counts[MOST_CLUSTERS], want[MOST_CLUSTERS] = {0};
    const int32_t dims = p->plan.dims, cells = p->plan.clusters * dims;
    fkm_err e = {0};
    memset(sum, 0, sizeof sum);
    for (int32_t r = 0; r < p->plan.rows; r++) {
        want[p->labels[r]]++;
        for (int32_t d = 0; d < dims; d++)
            sum[p->labels[r] * dims + d] += (double)p->x[(int64_t)r * dims + d];
    }
    assert_int_equal(ops->get_centroids(p->b, now, counts, &e), FKM_OK);
    assert_memory_equal(counts, want, (size_t)p->plan.clusters * sizeof *want);
    for (int32_t i = 0; i < cells; i++) {
        const int64_t n = want[i / dims];
        assert_true(now[i] == (n ? (float)(sum[i] / (double)n) : p->c[i]));
    }
    memcpy(p->c, now, (size_t)cells * sizeof *now);
}

static int64_t run_pass(problem *p, bool first)
{
    fkm_err e = {0};
    fkm_pass pass;
    double shift;
    const fkm_pass_options o = {.update = first || below(p, 10) > 0, .squares = first};
    const size_t row = (size_t)p->plan.dims * fkm_dtype_size(p->plan.dtype);
    const char *x = p->plan.dtype == FKM_F32 ? (const char *)p->x : (const char *)p->bytes;
    assert_int_equal(ops->begin(p->b, &o, &e), FKM_OK);
    for (int64_t at = 0; at < p->plan.rows; at += p->plan.chunk_rows) {
        const int64_t left = p->plan.rows - at;
        const int64_t n = left < p->plan.chunk_rows ? left : p->plan.chunk_rows;
        const fkm_rows rows = {x + (size_t)at * row, at, n};
        if (!ops->settles(p->b, at, n, p->labels + at))
            assert_int_equal(ops->feed(p->b, &rows, p->labels + at, NULL, &e), FKM_OK);
    }
    assert_int_equal(ops->end(p->b, &pass, &e), FKM_OK);
    check_labels(p);
    if (o.update) {
        assert_int_equal(ops->move(p->b, &shift, &e), FKM_OK);
        check_means(p);
    }
    return pass.skipped_by_bounds;
}

static int runs(void)
{
    const char *asked = getenv("FKM_BACKEND_RUNS");
    return asked ? atoi(asked) : short_form() ? 1 : 6;
}

static void check_path(const fkm_kernels *k)
{
    static problem p;
    int64_t spared = 0;
    const char *seed = getenv("FKM_BACKEND_SEED");
    const uint64_t first = seed ? (uint64_t)atoll(seed) : 1;
    for (int i = 0; i < runs(); i++) {
        open_problem(&p, k->isa, k->bytes ? k->takes : FKM_F32, first + (uint64_t)i);
        for (int pass = 0; pass < PASSES; pass++) {
            if (pass > 0)
                disturb(&p);
            spared += run_pass(&p, pass == 0);
        }
        ops->close(p.b);
    }
    assert_true(spared > 0 || runs() < 6); /* else nothing was tested */
}

static void floats_have_the_nearest(void **state)
{
    (void)state;
    FOR_EACH_ISA(k)
    {
        check_path(k);
    }
}

static void bytes_have_the_nearest(void **state)
{
    (void)state;
    FOR_EACH_BYTE_ISA(k)
    {
        if (k->takes == FKM_U8)
            check_path(k);
    }
}

static void *set_soon(void *flag)
{
    usleep(300);
    atomic_store((atomic_int *)flag, 1);
    return NULL;
}

/* A pass over rows without labels, and with a flag that is set before it, or somewhere within: rows
 * have the nearest centroid or still none, and as many have moved as the pass says. */
static void check_stop(problem *p, bool within)
{
    atomic_int flag = !within;
    const fkm_pass_options o = {.update = true, .squares = true};
    const fkm_rows rows = {p->x, 0, p->plan.rows};
    fkm_err e = {0};
    fkm_pass pass;
    pthread_t thread;
    int64_t moved = 0;
    p->plan.stop = &flag;
    assert_int_equal(ops->open(&p->b, &p->plan, &e), FKM_OK);
    ops->reset(p->b);
    set(p);
    assert_int_equal(ops->set_scale(p->b, (fkm_scale){20, false, 40}, &e), FKM_OK);
    memset(p->labels, -1, sizeof p->labels);
    assert_int_equal(ops->begin(p->b, &o, &e), FKM_OK);
    assert_int_equal(pthread_create(&thread, NULL, set_soon, &flag), 0);
    const fkm_status st = ops->feed(p->b, &rows, p->labels, NULL, &e);
    pthread_join(thread, NULL);
    assert_true(st == FKM_ESTOPPED || (within && st == FKM_OK));
    assert_int_equal(ops->end(p->b, &pass, &e), FKM_OK);
    for (int32_t r = 0; r < p->plan.rows; r++) {
        moved += p->labels[r] >= 0;
        assert_true(p->labels[r] == -1 || p->labels[r] == nearest_to(p, r));
    }
    assert_int_equal(pass.moved, moved);
    assert_true(within || moved == 0);
    ops->close(p->b);
}

static void stops_within_a_chunk(void **state)
{
    (void)state;
    static problem p;
    FOR_EACH_ISA(k)
    {
        for (uint64_t seed = 1; seed < 4; seed++) {
            open_problem(&p, k->isa, FKM_F32, seed);
            ops->close(p.b);
            p.plan.chunk_rows = p.plan.rows;
            check_stop(&p, false);
            check_stop(&p, true);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(floats_have_the_nearest),
        cmocka_unit_test(bytes_have_the_nearest),
        cmocka_unit_test(stops_within_a_chunk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
