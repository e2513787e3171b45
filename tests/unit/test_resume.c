/* Runs that are stopped at every place where they listen, and resumed until they are done, with
 * other threads and memory each time: the bits of a run that was never stopped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../short_form.h"

#include "../../src/base/log.h"
#include "../../src/base/mem.h"
#include "../../src/fkm.h"
#include "../../src/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STATE "state.checkpoint"

/* ---- data ---- */

/* float32 .npy; batch 0: two dimensions. */
static void save(const char *path, const float *x, int batch, int64_t rows, int dims)
{
    char head[128], shape[64];
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    if (batch)
        snprintf(shape, sizeof shape, "(%d, %d, %d)", batch, (int)rows, dims);
    else
        snprintf(shape, sizeof shape, "(%d, %d)", (int)rows, dims);
    memset(head, ' ', sizeof head);
    memcpy(head, "\x93NUMPY\x01\x00\x76\x00", 10);
    int n =
        snprintf(head + 10, 117, "{'descr': '<f4', 'fortran_order': False, 'shape': %s}", shape);
    head[10 + n] = ' ';
    head[127] = '\n';
    assert_int_equal(fwrite(head, 1, sizeof head, f), sizeof head);
    size_t values = (size_t)(batch ? batch : 1) * (size_t)rows * (size_t)dims;
    assert_int_equal(fwrite(x, sizeof *x, values, f), values);
    assert_int_equal(fclose(f), 0);
}

/* Rows that take four values at each of `groups` places, so that clusters run empty; or, with
 * groups = 0, rows without structure. */
static float *make_rows(int64_t rows, int dims, int groups)
{
    float *x = malloc((size_t)rows * (size_t)dims * sizeof *x);
    for (int64_t i = 0; i < rows; i++)
        for (int t = 0; t < dims; t++) {
            double u = fkm_uniform(7, 1, (uint64_t)(i * dims + t));
            x[i * dims + t] =
                (float)(groups ? 100.0 * (double)(i % groups) + (double)(i / groups % 4) : u);
        }
    return x;
}

/* ---- runs ---- */

typedef struct watch {
    atomic_int stop;
    int calls, stop_at; /* progress calls; 0: never */
} watch;

static void on_progress(void *arg, const fkm_progress *p)
{
    watch *w = arg;
    (void)p;
    if (++w->calls == w->stop_at)
        w->stop = 1;
}

static fkm_status fit(fkm_result *out, const char *path, const fkm_fit_options *o, watch *w)
{
    fkm_err e = {0};
    fkm_reader *in;
    fkm_reader_spec spec = {.paths = &path, .path_count = 1, .row_end = -1};
    assert_int_equal(fkm_reader_open(&in, &spec, &e), FKM_OK);
    fkm_observer observer = {.arg = w, .progress = on_progress, .stop = &w->stop};
    fkm_status st = fkm_fit(out, in, o, &observer, &e);
    if (st != FKM_OK && st != FKM_ESTOPPED)
        print_message("%s\n", e.msg);
    fkm_reader_close(in);
    return st;
}

static void same_iterations(const fkm_result *a, const fkm_result *b)
{
    assert_int_equal(a->iteration_count, b->iteration_count);
    for (int32_t i = 0; i < a->iteration_count; i++) {
        const fkm_iteration *x = &a->iterations[i], *y = &b->iterations[i];
        assert_int_equal(x->restart, y->restart);
        assert_int_equal(x->problem, y->problem);
        assert_int_equal(x->i, y->i);
        assert_memory_equal(&x->inertia, &y->inertia, sizeof x->inertia);
        assert_int_equal(x->moved, y->moved);
        assert_memory_equal(&x->max_shift, &y->max_shift, sizeof x->max_shift);
        assert_int_equal(x->empty, y->empty);
        assert_int_equal(x->reseeded, y->reseeded);
    }
}

static void same_problems(const fkm_result *a, const fkm_result *b)
{
    for (int64_t i = 0; i < a->batch; i++) {
        const fkm_problem_result *x = &a->problems[i], *y = &b->problems[i];
        assert_int_equal(x->iterations, y->iterations);
        assert_int_equal(x->converged, y->converged);
        assert_memory_equal(&x->inertia, &y->inertia, sizeof x->inertia);
        assert_int_equal(x->rows_used, y->rows_used);
        assert_int_equal(x->rows_skipped, y->rows_skipped);
        assert_int_equal(x->moved_last, y->moved_last);
        assert_int_equal(x->empty, y->empty);
        assert_int_equal(x->reseeded, y->reseeded);
        assert_int_equal(x->size_min, y->size_min);
        assert_int_equal(x->size_median, y->size_median);
        assert_int_equal(x->size_max, y->size_max);
    }
    for (int64_t i = 0; i < a->batch * a->restart_count; i++) {
        assert_int_equal(a->restarts[i].seed, b->restarts[i].seed);
        assert_memory_equal(&a->restarts[i].inertia, &b->restarts[i].inertia, sizeof(double));
        assert_int_equal(a->restarts[i].iterations, b->restarts[i].iterations);
        assert_int_equal(a->restarts[i].converged, b->restarts[i].converged);
    }
}

static void same_result(const fkm_result *a, const fkm_result *b)
{
    size_t problems = (size_t)a->batch, clusters = problems * (size_t)a->clusters;
    assert_memory_equal(
        a->centroids, b->centroids, clusters * (size_t)a->dims * sizeof *a->centroids);
    assert_memory_equal(a->labels, b->labels, problems * (size_t)a->rows * sizeof *a->labels);
    assert_memory_equal(a->counts, b->counts, clusters * sizeof *a->counts);
    same_problems(a, b);
    same_iterations(a, b);
}

/* ---- one case ---- */

typedef struct plan_case {
    const char *name;
    int batch, groups, dims;
    int threads; /* most; 0: 2 */
    int64_t rows;
    int bad_rows; /* with NaN */
    fkm_fit_options o;
} plan_case;

/* The least memory that a run takes: what it says when it is given too little. */
static int64_t least_memory(const char *path, fkm_fit_options o, int threads)
{
    fkm_err e = {0};
    fkm_reader *in;
    fkm_result out;
    fkm_reader_spec spec = {.paths = &path, .path_count = 1, .row_end = -1};
    o.machine.memory_bytes = 1;
    o.machine.threads = threads;
    assert_int_equal(fkm_reader_open(&in, &spec, &e), FKM_OK);
    assert_int_equal(fkm_fit(&out, in, &o, NULL, &e), FKM_ENOMEM);
    fkm_reader_close(in);
    long long m = 0;
    assert_int_equal(sscanf(e.hint, "give --memory %lldM", &m), 1);
    return m << 20;
}

/* Alternates what must not matter. */
static void set_machine(fkm_fit_options *o, int run, int threads, int64_t small)
{
    o->machine.threads = threads ? 1 + run % threads : 1 + (run & 1);
    o->machine.memory_bytes = run & 2 ? small : INT64_C(1) << 30;
}

/* The rest of a run, each of whose parts is stopped after `calls` calls of progress. Each goes on
 * from the one before, the first one if there is a state. Returns the number of parts. */
static int run_in_parts(fkm_result *out, const plan_case *c, int calls, int machine, int64_t small)
{
    fkm_fit_options o = c->o;
    int resumes = access(STATE, F_OK) == 0;
    for (int part = 0; part < 400; part++) {
        fkm_saving saving = {.path = STATE, .every_s = part & 1 ? 1e-9 : 1e9};
        watch w = {.stop_at = calls};
        o.saving = &saving;
        set_machine(&o, machine + part, c->threads, small);
        fkm_status st = fit(out, "x.npy", &o, &w);
        assert_int_equal(saving.resumes, resumes);
        resumes += resumes > 0 || saving.kept;
        if (st == FKM_OK)
            return part + 1;
        assert_int_equal(st, FKM_ESTOPPED);
        assert_true(saving.kept || resumes == 0); /* a part may end before the first centroids */
        fkm_result_free(out);
    }
    fail_msg("with %d calls a part there is no progress", calls);
    return 0;
}

static void check_case(const plan_case *c)
{
    fkm_result whole, parts;
    watch w = {0};
    float *x = make_rows(c->rows * (c->batch ? c->batch : 1), c->dims, c->groups);
    for (int i = 0; i < c->bad_rows; i++)
        x[(i * 37 + 5) * c->dims] = NAN;
    save("x.npy", x, c->batch, c->rows, c->dims);
    free(x);
    int64_t small = least_memory("x.npy", c->o, c->threads ? c->threads : 2);
    fkm_fit_options o = c->o;
    set_machine(&o, 2, 0, small);
    assert_int_equal(fit(&whole, "x.npy", &o, &w), FKM_OK);
    assert_false(whole.run.plan.resident);
    if (c->groups)
        assert_true(whole.problems[0].reseeded > 0);
    if (c->threads) { /* places of such a run, which has fewer */
        w.calls = 0;
        o.machine = (fkm_machine){.threads = c->threads};
        assert_int_equal(fit(&parts, "x.npy", &o, &w), FKM_OK);
        assert_int_equal(parts.run.plan.lanes, c->threads);
        same_result(&parts, &whole);
        fkm_result_free(&parts);
    }
    int least = c->threads ? 15 : 40; /* calls a part */
    int total = w.calls, parts_run = 0, stopped = 0, resumed = 0,
        places = short_form_of("tsan") ? 3
                 : short_form()        ? 6
                                       : 25;
    /* A part must get through the seeding and one pass. Stops all over the first part, later ones
     * where they fall. */
    for (int calls = 1, step = 1; calls <= total; calls += step) {
        unlink(STATE);
        fkm_saving saving = {.path = STATE, .every_s = 1e9};
        watch first = {.stop_at = calls};
        o.saving = &saving;
        set_machine(&o, 2 + calls % 2, 0, small); /* streams: more places to stop */
        if (c->threads)                           /* side by side, which streams never are */
            o.machine = (fkm_machine){.threads = 2 + calls % (c->threads - 1)};
        fkm_status st = fit(&parts, "x.npy", &o, &first);
        assert_true(!c->threads || !saving.kept || parts.run.plan.lanes > 1);
        if (st == FKM_OK) { /* stopped after the last look at the flag */
            same_result(&parts, &whole);
            fkm_result_free(&parts);
            continue;
        }
        assert_int_equal(st, FKM_ESTOPPED);
        fkm_result_free(&parts);
        stopped++;
        resumed += saving.kept;
        assert_int_equal(saving.kept, access(STATE, F_OK) == 0);
        parts_run += run_in_parts(&parts, c, total / 3 > least ? total / 3 : least, calls, small);
        same_result(&parts, &whole);
        fkm_result_free(&parts);
        step = 1 + total / places; /* a sample of long runs */
    }
    unlink(STATE);
    print_message("%s: %d places, %d stopped at, %d gone on from, %d parts\n", c->name, total,
        stopped, resumed, parts_run);
    /* All places are gone on from but those before the first centroids; see there that many are not
     * of that kind. */
    assert_true(3 * resumed >= stopped);
    fkm_result_free(&whole);
    unlink("x.npy");
}

static plan_case standard(const char *name)
{
    plan_case c = {.name = name, .dims = 16, .rows = 24000};
    fkm_fit_options_default(&c.o);
    c.o.clusters = 20;
    c.o.max_iter = 8;
    c.o.tol = 0;
    return c;
}

static void random_to_max_iter(void **state)
{
    (void)state;
    plan_case c = standard("random, stopped by max_iter");
    check_case(&c);
}

static void until_tolerance(void **state)
{
    (void)state;
    plan_case c = standard("tolerance, NaN skipped");
    c.o.tol = 3e-3;
    c.o.max_iter = 100;
    c.o.skip_nan = true;
    c.bad_rows = 11;
    check_case(&c);
}

static void until_fixpoint(void **state)
{
    (void)state;
    plan_case c = standard("fixpoint");
    c.o.clusters = 3;
    c.dims = 2;
    c.rows = 90000;
    c.o.max_iter = 200;
    check_case(&c);
}

static void clusters_that_run_empty(void **state)
{
    (void)state;
    plan_case c = standard("empty clusters");
    c.groups = 9;
    c.o.clusters = 30;
    c.o.method = FKM_INIT_RANDOM;
    check_case(&c);
}

/* An iteration that follows reseeding must not be taken for one that settles. */
static void settling_after_reseeding(void **state)
{
    (void)state;
    plan_case c = standard("empty clusters, large tolerance");
    c.groups = 9;
    c.o.clusters = 30;
    c.o.tol = 0.9;
    check_case(&c);
}

static void several_starts(void **state)
{
    (void)state;
    plan_case c = standard("restarts, k-means||");
    c.o.restarts = 3;
    c.o.max_iter = 3;
    c.o.method = FKM_INIT_PARALLEL;
    check_case(&c);
}

static void batches(void **state)
{
    (void)state;
    plan_case c = standard("batch, restarts");
    c.batch = 3;
    c.o.restarts = 2;
    c.o.max_iter = 3;
    check_case(&c);
}

/* Several are at work, and end in any order, whenever the run stops; what goes on has other
 * threads, or streams one after the other. */
static void side_by_side(void **state)
{
    (void)state;
    plan_case c = standard("batch side by side");
    c.batch = 8;
    c.rows = 24000;
    c.threads = 4;
    c.o.clusters = 10;
    c.o.max_iter = 6;
    check_case(&c);
    c.o.restarts = 2;
    c.o.max_iter = 3;
    c.o.method = FKM_INIT_PLUSPLUS;
    check_case(&c);
}

static void give(const plan_case *c, const float *x)
{
    if (c->o.init_arg)
        memcpy(c->o.init_arg, x, (size_t)c->o.clusters * 4 * sizeof *x);
}

/* The result itself is kept when it could not be written; the same run then has it. */
static void check_kept(plan_case *c, const float *x)
{
    fkm_err e = {0};
    fkm_result a, b;
    watch w = {0};
    const char *path = "x.npy";
    fkm_saving saving = {.path = STATE, .every_s = 1e9};
    c->o.saving = &saving;
    give(c, x);
    assert_int_equal(fit(&a, path, &c->o, &w), FKM_OK);
    assert_false(saving.kept);
    fkm_reader *in;
    fkm_reader_spec spec = {.paths = &path, .path_count = 1, .row_end = -1};
    assert_int_equal(fkm_reader_open(&in, &spec, &e), FKM_OK);
    assert_int_equal(fkm_fit_keep(&a, in, &c->o, &e), FKM_OK);
    fkm_reader_close(in);
    assert_true(saving.kept);
    w.calls = 0;
    give(c, x);
    assert_int_equal(fit(&b, path, &c->o, &w), FKM_OK);
    assert_int_equal(w.calls, 0);
    assert_int_equal(saving.resumes, 1);
    same_result(&a, &b);
    fkm_result_free(&a);
    fkm_result_free(&b);
    unlink(STATE);
}

static void complete_result(void **state)
{
    (void)state;
    plan_case c = standard("complete");
    float *x = make_rows(3000, 4, 0);
    save("x.npy", x, 3, 1000, 4);
    check_kept(&c, x);
    free(x);
}

/* Centroids that are given, and overwritten as soon as the run has read them. */
static void overwrite(void *init)
{
    memset(init, 0xff, 6 * 4 * sizeof(float));
}

static void result_from_given_centroids(void **state)
{
    (void)state;
    plan_case c = standard("complete, from given centroids");
    float *x = make_rows(1000, 4, 0), init[6 * 4];
    save("x.npy", x, 0, 1000, 4);
    c.o.clusters = 6;
    c.o.init = init;
    c.o.init_read = overwrite;
    c.o.init_arg = init;
    check_kept(&c, x);
    free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_to_max_iter),
        cmocka_unit_test(until_tolerance),
        cmocka_unit_test(until_fixpoint),
        cmocka_unit_test(clusters_that_run_empty),
        cmocka_unit_test(settling_after_reseeding),
        cmocka_unit_test(several_starts),
        cmocka_unit_test(batches),
        cmocka_unit_test(side_by_side),
        cmocka_unit_test(complete_result),
        cmocka_unit_test(result_from_given_centroids),
    };
    fkm_log_set_level(FKM_LOG_QUIET);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
