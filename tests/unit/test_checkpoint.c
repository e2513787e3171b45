/* The file of a checkpoint: what is saved is what is loaded; a file that is damaged anywhere, cut
 * anywhere or too long is refused. With "DIRECTORY" as argument it writes seeds for the fuzzer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../src/base/mem.h"
#include "../../src/checkpoint.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { BATCH = 2, ROWS = 6, DIMS = 3, K = 2, STARTS = 2, MAX_ITER = 4 };

static fkm_reader *in;
static fkm_fit_options o;
static char *key;

static int set_up(void **state)
{
    (void)state;
    char head[128];
    float x[BATCH * ROWS * DIMS];
    const char *path = "data.npy";
    fkm_err e = {0};
    memset(head, ' ', sizeof head);
    memcpy(head, "\x93NUMPY\x01\x00\x76\x00", 10);
    int n =
        snprintf(head + 10, 117, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 6, 3)}");
    head[10 + n] = ' ';
    head[127] = '\n';
    for (int i = 0; i < BATCH * ROWS * DIMS; i++)
        x[i] = (float)(i * i % 17);
    FILE *f = fopen(path, "wb");
    fwrite(head, 1, sizeof head, f);
    fwrite(x, 1, sizeof x, f);
    fclose(f);
    fkm_reader_spec spec = {.paths = &path, .path_count = 1, .row_end = -1};
    fkm_fit_options_default(&o);
    o.clusters = K;
    o.restarts = STARTS;
    o.max_iter = MAX_ITER;
    if (fkm_reader_open(&in, &spec, &e) != FKM_OK)
        return -1;
    return fkm_state_key(&key, &o, in, &e) == FKM_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    fkm_free(key);
    fkm_reader_close(in);
    return 0;
}

/* A state with all its arrays. */
typedef struct whole {
    fkm_state s;
    fkm_result r;
    fkm_checksums sums;
    float centroids[BATCH * K * DIMS];
    int32_t labels[BATCH * ROWS];
    fkm_problem_result problems[BATCH];
    fkm_restart restarts[BATCH * STARTS];
} whole;

static void make_whole(whole *w)
{
    fkm_err e = {0};
    memset(w, 0, sizeof *w);
    assert_int_equal(fkm_checksums_open(&w->sums, in, &e), FKM_OK);
    w->r = (fkm_result){.batch = BATCH,
        .rows = ROWS,
        .clusters = K,
        .dims = DIMS,
        .centroids = w->centroids,
        .labels = w->labels,
        .problems = w->problems,
        .restarts = w->restarts,
        .restart_count = STARTS};
    w->s = (fkm_state){.result = &w->r, .checksums = &w->sums};
    assert_int_equal(fkm_state_open(&w->s, BATCH, &e), FKM_OK);
}

static void free_whole(whole *w)
{
    fkm_checksums_close(&w->sums);
    fkm_state_close(&w->s, BATCH);
}

static void add_iterations(whole *w, int problem, int count)
{
    fkm_err e = {0};
    fkm_problem_state *p = &w->s.problems[problem];
    p->iteration_count = count;
    assert_int_equal(fkm_calloc(&p->iterations, 8, sizeof *p->iterations, "", &e), FKM_OK);
    for (int i = 0; i < count; i++)
        p->iterations[i] = (fkm_iteration){
            i / 2, problem, i + 1, 1e9 / (i + 1), 6 - i, 0.5 * i, 1.5, 0.25, i == 2, i == 3};
}

static void add_best(whole *w, int problem)
{
    fkm_err e = {0};
    float **best = &w->s.problems[problem].best;
    assert_int_equal(fkm_calloc(best, K * DIMS, sizeof **best, "", &e), FKM_OK);
    for (int i = 0; i < K * DIMS; i++)
        (*best)[i] = -(float)i;
}

/* `work`: in its second start, after two iterations of it. The other problem is done; which comes
 * first does not matter. */
static void fill(whole *w, int work)
{
    make_whole(w);
    w->s.problems[1 - work].stage = FKM_DONE;
    fkm_problem_state *p = &w->s.problems[work];
    p->stage = FKM_AT_WORK;
    p->restart = 1;
    p->iteration = 3;
    p->best_iterations = 2;
    p->moved = 4;
    p->scanned = true;
    p->scale = (fkm_scale){.exponent = 41, .wide = true};
    w->s.resumes = 3;
    w->s.elapsed_s = 12.5;
    for (int i = 0; i < BATCH * K * DIMS; i++)
        w->centroids[i] = (float)i / 3;
    for (int i = 0; i < BATCH * ROWS; i++)
        w->labels[i] = i % 3 - 1;
    for (int i = 0; i < BATCH; i++)
        w->problems[i] = (fkm_problem_result){.iterations = 2 + i,
            .converged = i == 0,
            .inertia = 1.0 / (i + 3),
            .rows_used = 5,
            .rows_skipped = 1,
            .moved_last = 2,
            .empty = 1,
            .reseeded = 7,
            .size_min = 1,
            .size_median = 2,
            .size_max = 3,
            .imbalance = 1.25};
    for (int i = 0; i < BATCH * STARTS; i++)
        if (i != work * STARTS + 1) /* which has not ended */
            w->restarts[i] = (fkm_restart){UINT64_MAX - (uint64_t)i, 0.1 * i, i + 1, i == 1};
    add_iterations(w, 1 - work, 2);
    add_iterations(w, work, 4);
    add_best(w, work);
    for (int i = 0; i < BATCH; i++)
        w->sums.crc[i] = 0x12345678 + (uint32_t)i;
    w->sums.known[1 - work] = 1;
}

static fkm_status load(whole *w, const char *path, fkm_err *e)
{
    make_whole(w);
    return fkm_state_load(&w->s, path, key, &o, in, e);
}

static void same_iteration(const fkm_iteration *a, const fkm_iteration *b)
{
    assert_int_equal(a->restart, b->restart);
    assert_int_equal(a->problem, b->problem);
    assert_int_equal(a->i, b->i);
    assert_true(a->inertia == b->inertia && a->max_shift == b->max_shift);
    assert_true(a->seconds == b->seconds && a->read_wait_s == b->read_wait_s);
    assert_int_equal(a->moved, b->moved);
    assert_int_equal(a->empty, b->empty);
    assert_int_equal(a->reseeded, b->reseeded);
}

static void same_position(const fkm_problem_state *x, const fkm_problem_state *y)
{
    assert_int_equal(x->stage, y->stage);
    assert_int_equal(x->restart, y->restart);
    assert_int_equal(x->iteration, y->iteration);
    assert_int_equal(x->best_start, y->best_start);
    assert_int_equal(x->best_iterations, y->best_iterations);
    assert_int_equal(x->moved, y->moved);
    assert_int_equal(x->relabel, y->relabel);
    assert_int_equal(x->scanned, y->scanned);
    assert_int_equal(x->scale.exponent, y->scale.exponent);
    assert_int_equal(x->scale.wide, y->scale.wide);
    assert_int_equal(x->iteration_count, y->iteration_count);
    for (int i = 0; i < x->iteration_count; i++)
        same_iteration(&x->iterations[i], &y->iterations[i]);
}

static void check_return(int work, bool relabel)
{
    fkm_err e = {0};
    whole a, b;
    fill(&a, work);
    a.s.problems[work].relabel = relabel;
    assert_int_equal(fkm_state_save(&a.s, &o, fkm_reader_shape(in), "s", key, &e), FKM_OK);
    assert_int_equal(load(&b, "s", &e), FKM_OK);
    for (int i = 0; i < BATCH; i++)
        same_position(&a.s.problems[i], &b.s.problems[i]);
    assert_int_equal(fkm_state_first(&b.s, BATCH), work);
    assert_int_equal(b.s.resumes, 3);
    assert_true(b.s.elapsed_s == 12.5);
    assert_memory_equal(a.centroids, b.centroids, sizeof a.centroids);
    assert_memory_equal(a.s.problems[work].best, b.s.problems[work].best, K * DIMS * sizeof(float));
    assert_null(b.s.problems[1 - work].best);
    assert_memory_equal(a.labels, b.labels, sizeof a.labels);
    assert_memory_equal(a.problems, b.problems, sizeof a.problems);
    assert_memory_equal(a.restarts, b.restarts, sizeof a.restarts);
    assert_int_equal(b.sums.known[1 - work], 1);
    assert_int_equal(b.sums.known[work], 0);
    assert_int_equal(b.sums.restored[1 - work], 1);
    assert_int_equal(b.sums.crc[1 - work], a.sums.crc[1 - work]);
    free_whole(&a);
    free_whole(&b);
}

static void comes_back(void **state)
{
    (void)state;
    for (int work = 0; work < BATCH; work++) {
        check_return(work, false);
        check_return(work, true);
    }
}

/* Several problems are at work, at places of their own. */
static void all_at_work(void **state)
{
    (void)state;
    fkm_err e = {0};
    whole a, b;
    fill(&a, 1);
    a.s.problems[0].stage = FKM_AT_WORK;
    a.s.problems[0].iteration = 3;
    a.s.problems[0].moved = 1;
    assert_int_equal(fkm_state_save(&a.s, &o, fkm_reader_shape(in), "s", key, &e), FKM_OK);
    assert_int_equal(load(&b, "s", &e), FKM_OK);
    for (int i = 0; i < BATCH; i++)
        same_position(&a.s.problems[i], &b.s.problems[i]);
    assert_memory_equal(a.centroids, b.centroids, sizeof a.centroids);
    assert_memory_equal(a.labels, b.labels, sizeof a.labels);
    free_whole(&a);
    free_whole(&b);
}

/* The problems of a state, their iterations and best centroids, where writing ends the test. */
typedef struct locked {
    whole w;
    fkm_problem_state problems[BATCH];
    fkm_iteration iterations[BATCH][8];
    float best[BATCH][K * DIMS];
} locked;

static locked *lock(const whole *w)
{
    locked *l = mmap(NULL, sizeof *l, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(l, MAP_FAILED);
    l->w = *w;
    l->w.s.problems = l->problems;
    for (int i = 0; i < BATCH; i++) {
        l->problems[i] = w->s.problems[i];
        memcpy(l->iterations[i], l->problems[i].iterations, sizeof l->iterations[i]);
        l->problems[i].iterations = l->iterations[i];
        if (l->problems[i].best) {
            memcpy(l->best[i], l->problems[i].best, sizeof l->best[i]);
            l->problems[i].best = l->best[i];
        }
    }
    l->w.s.result = &l->w.r;
    l->w.r.centroids = l->w.centroids;
    l->w.r.labels = l->w.labels;
    l->w.r.problems = l->w.problems;
    l->w.r.restarts = l->w.restarts;
    assert_int_equal(mprotect(l, sizeof *l, PROT_READ), 0);
    return l;
}

/* Threads that choose centroids read the state while it is saved. */
static void saving_writes_nothing_to_it(void **state)
{
    (void)state;
    fkm_err e = {0};
    whole w;
    fill(&w, 1);
    locked *l = lock(&w);
    assert_int_equal(fkm_state_save(&l->w.s, &o, fkm_reader_shape(in), "locked", key, &e), FKM_OK);
    assert_int_equal(munmap(l, sizeof *l), 0);
    free_whole(&w);
    unlink("locked");
}

static void write_file(const char *path, const char *data, size_t size)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, size, f), size);
    fclose(f);
}

static size_t read_file(const char *path, char *data, size_t cap)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t size = fread(data, 1, cap, f);
    fclose(f);
    return size;
}

static void refused(const char *data, size_t size, size_t at)
{
    fkm_err e = {0};
    whole w;
    write_file("damaged", data, size);
    fkm_status st = load(&w, "damaged", &e);
    if (st != FKM_EDATA && st != FKM_EFILE)
        fail_msg("byte %zu of %zu: %d", at, size, st);
    assert_true(e.msg[0] && e.hint[0]);
    free_whole(&w);
}

static void damage(void **state)
{
    (void)state;
    fkm_err e = {0};
    whole w;
    char data[8192];
    fill(&w, 1);
    assert_int_equal(fkm_state_save(&w.s, &o, fkm_reader_shape(in), "s", key, &e), FKM_OK);
    assert_true(fkm_state_bytes(&o, fkm_reader_shape(in)) >= (int64_t)read_file("s", data, 8192));
    free_whole(&w);
    size_t size = read_file("s", data, sizeof data);
    assert_true(size > 500 && size < sizeof data);
    for (size_t i = 0; i < size; i++) {
        data[i] ^= 0x10;
        refused(data, size, i);
        data[i] ^= 0x10;
        refused(data, i, i);
    }
    data[size] = 0;
    refused(data, size + 1, size);
}

/* Makes a state that could not be of a run; false: there are no more lies. */
static bool lie(whole *w, int number)
{
    fkm_problem_state *p = &w->s.problems[1];
    switch (number) {
    case 0:
        p->restart = STARTS;
        return true;
    case 1:
        p->iteration = MAX_ITER + 2;
        return true;
    case 2:
        p->best_start = 1;
        return true;
    case 3:
        p->best_iterations = 5;
        return true;
    case 4:
        p->moved = ROWS + 1;
        return true;
    case 5:
        p->moved = -1;
        return true;
    case 6:
        w->centroids[7] = NAN;
        return true;
    case 7:
        w->labels[3] = K;
        return true;
    case 8:
        w->labels[3] = -2;
        return true;
    case 9:
        p->iteration_count = 3;
        return true;
    case 10:
        w->s.elapsed_s = NAN;
        return true;
    case 11:
        w->sums.known[0] = 0;
        return true;
    case 12: /* the pass that labels rows for good has no other after it */
        p->relabel = true;
        p->iteration = MAX_ITER + 1;
        return true;
    case 13:
        p->relabel = true;
        p->iteration = 0;
        return true;
    case 14:
        p->iterations[1].problem = 0;
        return true;
    case 15:
        p->stage = (fkm_stage)3;
        return true;
    case 16: /* iterations of a best start that has not been made */
        p->restart = 0;
        return true;
    case 17:
        p->best[1] = INFINITY;
        return true;
    default:
        return false;
    }
}

/* Values that a sound file could not have, under a good checksum. */
static void lies(void **state)
{
    (void)state;
    bool more = true;
    for (int number = 0; more; number++) {
        fkm_err e = {0};
        whole w, b;
        fill(&w, 1);
        more = lie(&w, number);
        /* What can be told at once is not even written. */
        fkm_status st = fkm_state_save(&w.s, &o, fkm_reader_shape(in), "s", key, &e);
        if (st == FKM_OK) {
            st = load(&b, "s", &e);
            free_whole(&b);
        }
        if (st != (more ? FKM_EDATA : FKM_OK))
            fail_msg("lie %d was believed", number);
        free_whole(&w);
    }
}

/* A directory is no file to replace, and a full device tells: the one before stays. */
static void cannot_be_written(void **state)
{
    (void)state;
    fkm_err e = {0};
    whole w;
    fill(&w, 1);
    assert_int_equal(
        fkm_state_save(&w.s, &o, fkm_reader_shape(in), "no/such/place", key, &e), FKM_EFILE);
    assert_int_equal(
        fkm_state_save(&w.s, &o, fkm_reader_shape(in), "/dev/full", key, &e), FKM_EFILE);
    free_whole(&w);
}

static void is_removed_if_it_is_one(void **state)
{
    (void)state;
    fkm_err e = {0};
    whole w;
    fill(&w, 1);
    assert_int_equal(fkm_state_save(&w.s, &o, fkm_reader_shape(in), "s", key, &e), FKM_OK);
    free_whole(&w);
    assert_int_equal(fkm_state_remove("s", &e), FKM_OK);
    assert_int_equal(access("s", F_OK), -1);
    assert_int_equal(fkm_state_remove("s", &e), FKM_OK); /* there is none */
    assert_int_equal(fkm_state_remove("data.npy", &e), FKM_EFILE);
    assert_int_equal(access("data.npy", F_OK), 0);
}

/* Bodies, as fuzz_checkpoint takes them: what is between key and CRC. */
static int write_seeds(const char *directory)
{
    static const struct {
        const char *name;
        fkm_stage first, second;
        int restart, iteration; /* of the second */
    } seeds[] = {{"working", FKM_DONE, FKM_AT_WORK, 1, 3},
        {"first", FKM_UNTOUCHED, FKM_AT_WORK, 0, 1}, {"between", FKM_DONE, FKM_AT_WORK, 0, 0},
        {"seeding", FKM_DONE, FKM_AT_WORK, 1, 0}, {"restoring", FKM_DONE, FKM_AT_WORK, 2, 0},
        {"last", FKM_DONE, FKM_AT_WORK, 0, MAX_ITER + 1}, {"complete", FKM_DONE, FKM_DONE, 0, 0},
        {"relabel", FKM_DONE, FKM_AT_WORK, 1, 3}, {"side-by-side", FKM_AT_WORK, FKM_AT_WORK, 1, 3},
        {"out-of-order", FKM_UNTOUCHED, FKM_DONE, 0, 0}};
    char path[4096], data[8192];
    fkm_err e = {0};
    set_up(NULL);
    for (size_t i = 0; i < sizeof seeds / sizeof seeds[0]; i++) {
        whole w;
        fill(&w, 1);
        fkm_problem_state *p = w.s.problems;
        p[0].stage = seeds[i].first;
        p[0].iteration = 3;
        p[1].stage = seeds[i].second;
        p[1].restart = seeds[i].restart;
        p[1].iteration = seeds[i].iteration;
        p[1].best_iterations = seeds[i].restart ? 2 : 0;
        p[1].iteration_count = p[1].best_iterations + (p[1].iteration ? p[1].iteration - 1 : 0);
        p[1].scale.wide = false;
        p[1].relabel = !strcmp(seeds[i].name, "relabel");
        w.sums.known[0] = p[0].stage == FKM_DONE;
        w.sums.known[1] = p[1].stage == FKM_DONE;
        if (fkm_state_save(&w.s, &o, fkm_reader_shape(in), "s", key, &e) != FKM_OK)
            return 1;
        size_t size = read_file("s", data, sizeof data), head = 24 + strlen(key);
        snprintf(path, sizeof path, "%s/%s", directory, seeds[i].name);
        write_file(path, data + head, size - head - 4);
        if (i == 0) {
            snprintf(path, sizeof path, "%s/whole", directory);
            write_file(path, data, size);
        }
        free_whole(&w);
    }
    return tear_down(NULL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back),
        cmocka_unit_test(all_at_work),
        cmocka_unit_test(saving_writes_nothing_to_it),
        cmocka_unit_test(damage),
        cmocka_unit_test(lies),
        cmocka_unit_test(cannot_be_written),
        cmocka_unit_test(is_removed_if_it_is_one),
    };
    if (argc > 1)
        return write_seeds(argv[1]);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
