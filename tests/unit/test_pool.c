/* The thread pool: every block once, workers exclusive, real concurrency, failure to start. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../src/base/pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define MAX_BLOCKS 5000
#define MAX_WORKERS 64

struct job {
    int threads;
    int runs[MAX_BLOCKS];            /* plain: a block belongs to one callback */
    int64_t worker_sum[MAX_WORKERS]; /* plain: a worker belongs to one running thread */
    atomic_int busy[MAX_WORKERS];
    atomic_int bad;
};

static void count_block(void *arg, int64_t block, int worker)
{
    struct job *j = arg;
    if (worker < 0 || worker >= j->threads) {
        atomic_fetch_add(&j->bad, 1);
        return;
    }
    if (atomic_exchange(&j->busy[worker], 1) != 0)
        atomic_fetch_add(&j->bad, 1);
    j->runs[block]++;
    j->worker_sum[worker] += block;
    atomic_store(&j->busy[worker], 0);
}

static void check_all_once(fkm_pool *pool, int64_t blocks)
{
    static struct job j;
    memset(&j, 0, sizeof j);
    j.threads = fkm_pool_threads(pool);
    fkm_pool_for(pool, blocks, count_block, &j);
    assert_int_equal(atomic_load(&j.bad), 0);
    int64_t sum = 0;
    for (int w = 0; w < j.threads; w++)
        sum += j.worker_sum[w];
    assert_int_equal(sum, blocks * (blocks - 1) / 2);
    for (int64_t b = 0; b < MAX_BLOCKS; b++)
        assert_int_equal(j.runs[b], b < blocks);
}

static void every_block_runs_once(void **state)
{
    (void)state;
    static const int threads[] = {1, 2, 3, 7, 33};
    static const int64_t blocks[] = {0, 1, 2, 3, 7, 64, MAX_BLOCKS};
    for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
        fkm_err e = {0};
        fkm_pool *pool = NULL;
        assert_int_equal(fkm_pool_open(&pool, threads[t], &e), FKM_OK);
        assert_int_equal(fkm_pool_threads(pool), threads[t]);
        for (size_t b = 0; b < sizeof blocks / sizeof *blocks; b++)
            check_all_once(pool, blocks[b]);
        fkm_pool_close(pool);
    }
}

/* Rounds in quick succession: a helper that is late for one round must not run the next one twice,
 * nor miss it. */
static void rounds_do_not_mix(void **state)
{
    (void)state;
    fkm_err e = {0};
    fkm_pool *pool = NULL;
    assert_int_equal(fkm_pool_open(&pool, 4, &e), FKM_OK);
    for (int round = 0; round < 2000; round++) {
        static struct job j;
        memset(&j, 0, sizeof j);
        j.threads = 4;
        fkm_pool_for(pool, 2 + round % 7, count_block, &j);
        assert_int_equal(atomic_load(&j.bad), 0);
        for (int b = 0; b < 9; b++)
            assert_int_equal(j.runs[b], b < 2 + round % 7);
    }
    fkm_pool_close(pool);
}

static void meet(void *arg, int64_t block, int worker)
{
    (void)block, (void)worker;
    pthread_barrier_wait(arg);
}

/* As many blocks as threads, none of which can end before all have begun. */
static void threads_run_together(void **state)
{
    (void)state;
    fkm_err e = {0};
    fkm_pool *pool = NULL;
    pthread_barrier_t barrier;
    assert_int_equal(pthread_barrier_init(&barrier, NULL, 5), 0);
    assert_int_equal(fkm_pool_open(&pool, 5, &e), FKM_OK);
    for (int round = 0; round < 20; round++)
        fkm_pool_for(pool, 5, meet, &barrier);
    fkm_pool_close(pool);
    pthread_barrier_destroy(&barrier);
}

struct mask_job {
    pthread_barrier_t barrier;
    pthread_t caller;
    atomic_int helpers_open, caller_open;
};

static void look_at_mask(void *arg, int64_t block, int worker)
{
    (void)block, (void)worker;
    struct mask_job *j = arg;
    sigset_t now;
    pthread_sigmask(SIG_SETMASK, NULL, &now);
    if (!sigismember(&now, SIGINT) || !sigismember(&now, SIGTERM))
        atomic_fetch_add(
            pthread_equal(pthread_self(), j->caller) ? &j->caller_open : &j->helpers_open, 1);
    pthread_barrier_wait(&j->barrier);
}

static void signals_are_for_the_caller(void **state)
{
    (void)state;
    fkm_err e = {0};
    fkm_pool *pool = NULL;
    struct mask_job j = {.caller = pthread_self()};
    assert_int_equal(pthread_barrier_init(&j.barrier, NULL, 3), 0);
    assert_int_equal(fkm_pool_open(&pool, 3, &e), FKM_OK);
    fkm_pool_for(pool, 3, look_at_mask, &j);
    assert_int_equal(atomic_load(&j.helpers_open), 0);
    assert_int_equal(atomic_load(&j.caller_open), 1);
    fkm_pool_close(pool);
    pthread_barrier_destroy(&j.barrier);
}

static void in_order(void *arg, int64_t block, int worker)
{
    int64_t *next = arg;
    assert_int_equal(worker, 0);
    assert_int_equal(block, *next);
    ++*next;
}

static void one_thread_is_a_plain_loop(void **state)
{
    (void)state;
    fkm_err e = {0};
    fkm_pool *pool = NULL;
    int64_t next = 0;
    assert_int_equal(fkm_pool_open(&pool, 1, &e), FKM_OK);
    fkm_pool_for(pool, 100, in_order, &next);
    assert_int_equal(next, 100);
    fkm_pool_close(pool);
    fkm_pool_close(NULL);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

static void too_many_threads_is_an_error(void **state)
{
    (void)state;
#ifdef SANITIZED
    skip(); /* shadow memory does not fit under an address space limit */
#else
    struct rlimit before, tight;
    assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%ld", &pages), 1);
    fclose(f);
    tight = before;
    tight.rlim_cur = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + ((rlim_t)100 << 20);
    assert_int_equal(setrlimit(RLIMIT_AS, &tight), 0);
    fkm_err e = {0};
    fkm_pool *pool = NULL;
    fkm_status st = fkm_pool_open(&pool, 1000, &e);
    assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
    assert_int_equal(st, FKM_ENOMEM);
    assert_null(pool);
    assert_non_null(strstr(e.msg, "cannot start"));
    assert_non_null(strstr(e.hint, "--threads"));
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_block_runs_once),
        cmocka_unit_test(rounds_do_not_mix),
        cmocka_unit_test(threads_run_together),
        cmocka_unit_test(signals_are_for_the_caller),
        cmocka_unit_test(one_thread_is_a_plain_loop),
        cmocka_unit_test(too_many_threads_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
