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
    float centroids[BATCH * K * DIMS], best[K * DIMS];
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
    w->s = (fkm_state){.result = &w->r, .best = w->best, .checksums = &w->sums};
}

static void free_whole(whole *w)
{
    fkm_checksums_close(&w->sums);
    fkm_free(w->r.iterations);
}

/* In the second start of the second problem, after two iterations of it. */
static void fill(whole *w)
{
    fkm_err e = {0};
    make_whole(w);
    w->s.problem = w->s.restart = 1;
    w->s.iteration = 3;
    w->s.best_iterations = 2;
    w->s.moved = 4;
    w->s.scanned = true;
    w->s.scale = (fkm_scale){.exponent = 41, .wide = true};
    w->s.resumes = 3;
    w->s.elapsed_s = 12.5;
    for (int i = 0; i < BATCH * K * DIMS; i++)
        w->centroids[i] = (float)i / 3;
    for (int i = 0; i < K * DIMS; i++)
        w->best[i] = -(float)i;
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
    for (int i = 0; i < 3; i++)
        w->restarts[i] = (fkm_restart){UINT64_MAX - (uint64_t)i, 0.1 * i, i + 1, i == 1};
    w->r.iteration_count = 6;
    assert_int_equal(fkm_calloc(&w->r.iterations, 6, sizeof *w->r.iterations, "", &e), FKM_OK);
    for (int i = 0; i < 6; i++)
        w->r.iterations[i] = (fkm_iteration){
            i / 4, i / 2, i + 1, 1e9 / (i + 1), 6 - i, 0.5 * i, 1.5, 0.25, i == 2, i == 3};
    w->sums.crc[0] = 0x12345678;
    w->sums.known = 1;
}

static fkm_status load(whole *w, const char *path, fkm_err *e)
{
    int64_t room = 0;
    make_whole(w);
    return fkm_state_load(&w->s, &room, path, key, &o, in, e);
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

static void check_return(bool relabel)
{
    fkm_err e = {0};
    whole a, b;
    fill(&a);
    a.s.relabel = relabel;
    assert_int_equal(fkm_state_save(&a.s, &o, fkm_reader_shape(in), "s", key, &e), FKM_OK);
    assert_int_equal(load(&b, "s", &e), FKM_OK);
    fkm_state x = a.s, y = b.s;
    assert_int_equal(x.problem, y.problem);
    assert_int_equal(x.restart, y.restart);
    assert_int_equal(x.iteration, y.iteration);
    assert_int_equal(x.best_start, y.best_start);
    assert_int_equal(x.best_iterations, y.best_iterations);
    assert_int_equal(x.moved, y.moved);
    assert_int_equal(x.relabel, y.relabel);
    assert_true(y.scanned && y.scale.exponent == 41 && y.scale.wide);
    assert_int_equal(y.resumes, 3);
    assert_true(y.elapsed_s == 12.5);
    assert_memory_equal(a.centroids, b.centroids, sizeof a.centroids);
    assert_memory_equal(a.best, b.best, sizeof a.best);
    assert_memory_equal(a.labels, b.labels, sizeof a.labels);
    assert_memory_equal(a.problems, b.problems, sizeof a.problems);
    assert_memory_equal(a.restarts, b.restarts, 3 * sizeof a.restarts[0]);
    assert_int_equal(b.r.iteration_count, 6);
    for (int i = 0; i < 6; i++)
        same_iteration(&a.r.iterations[i], &b.r.iterations[i]);
    assert_int_equal(b.sums.known, 1);
    assert_int_equal(b.sums.restored, 1);
    assert_int_equal(b.sums.crc[0], 0x12345678);
    free_whole(&a);
    free_whole(&b);
}

static void comes_back(void **state)
{
    (void)state;
    check_return(false);
    check_return(true);
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
    fill(&w);
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

/* Values that a sound file could not have, under a good checksum. */
static void lies(void **state)
{
    (void)state;
    for (int lie = 0; lie < 15; lie++) {
        fkm_err e = {0};
        whole w, b;
        fill(&w);
        switch (lie) {
        case 0:
            w.s.problem = BATCH;
            break;
        case 1:
            w.s.restart = STARTS;
            break;
        case 2:
            w.s.iteration = MAX_ITER + 2;
            break;
        case 3:
            w.s.best_start = 1;
            break;
        case 4:
            w.s.best_iterations = 5;
            break;
        case 5:
            w.s.moved = ROWS + 1;
            break;
        case 6:
            w.s.moved = -1;
            break;
        case 7:
            w.centroids[7] = NAN;
            break;
        case 8:
            w.labels[3] = K;
            break;
        case 9:
            w.labels[3] = -2;
            break;
        case 10:
            w.r.iteration_count = 3;
            break;
        case 11:
            w.s.elapsed_s = NAN;
            break;
        case 12:
            w.sums.known = 0;
            break;
        case 13: /* the pass that labels rows for good has no other after it */
            w.s.relabel = true;
            w.s.iteration = MAX_ITER + 1;
            break;
        case 14:
            w.s.relabel = true;
            w.s.iteration = 0;
            break;
        }
        /* What can be told at once is not even written. */
        fkm_status st = fkm_state_save(&w.s, &o, fkm_reader_shape(in), "s", key, &e);
        if (st == FKM_OK) {
            st = load(&b, "s", &e);
            free_whole(&b);
        }
        if (st != FKM_EDATA)
            fail_msg("lie %d was believed", lie);
        free_whole(&w);
    }
}

/* A directory is no file to replace, and a full device tells: the one before stays. */
static void cannot_be_written(void **state)
{
    (void)state;
    fkm_err e = {0};
    whole w;
    fill(&w);
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
    fill(&w);
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
        int problem, restart, iteration;
    } seeds[] = {{"working", 1, 1, 3}, {"first", 0, 0, 1}, {"between", 1, 0, 0},
        {"seeding", 1, 1, 0}, {"restoring", 1, 2, 0}, {"last", 0, 0, MAX_ITER + 1},
        {"complete", BATCH, 0, 0}, {"relabel", 1, 1, 3}};
    char path[4096], data[8192];
    fkm_err e = {0};
    set_up(NULL);
    for (size_t i = 0; i < sizeof seeds / sizeof seeds[0]; i++) {
        whole w;
        fill(&w);
        w.s.problem = seeds[i].problem;
        w.s.restart = seeds[i].restart;
        w.s.iteration = seeds[i].iteration;
        w.sums.known = seeds[i].problem < BATCH ? seeds[i].problem : 0;
        w.s.scale.wide = false;
        w.s.relabel = !strcmp(seeds[i].name, "relabel");
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
        cmocka_unit_test(damage),
        cmocka_unit_test(lies),
        cmocka_unit_test(cannot_be_written),
        cmocka_unit_test(is_removed_if_it_is_one),
    };
    if (argc > 1)
        return write_seeds(argv[1]);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
