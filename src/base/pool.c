/* A fixed pool of threads: see pool.h. */
#include "pool.h"

#include "clock.h"
#include "mem.h"
#include "sysinfo.h"
#include "thread.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

/* How long threads look out for each other before they sleep. Waking one takes some fifty
 * microseconds, and on a virtual machine, where a sleeping CPU may seem taken, the one that is
 * woken can be put behind the one that wakes it, for milliseconds. */
#define LOOK_OUT_S 0.5e-3
#define LOOKS_AT_ONCE 64

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

struct worker_arg {
    struct fkm_pool *pool;
    int worker;
};

struct fkm_pool {
    int threads; /* including the caller, which is worker 0 */
    int started; /* helper threads that exist */
    pthread_t *helpers;
    struct worker_arg *args;
    bool looks_out; /* there is a CPU for each thread */
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    atomic_ullong round; /* number of the current job; helpers sleep until it changes */
    atomic_int running;  /* helpers that have not finished the current job */
    atomic_int asleep;   /* helpers that wait for `wake`, or are about to */
    atomic_bool waiting; /* for `done`, or about to */
    atomic_bool closing;
    fkm_pool_fn fn; /* the job: written before round changes, read after */
    void *arg;
    int64_t blocks;
    atomic_llong next; /* next block to hand out */
};

static void run_blocks(fkm_pool *pool, int worker)
{
    for (;;) {
        int64_t block = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (block >= pool->blocks)
            return;
        pool->fn(pool->arg, block, worker);
    }
}

typedef bool (*condition)(const fkm_pool *pool, unsigned long long seen);

static bool is_new(const fkm_pool *pool, unsigned long long seen)
{
    return atomic_load(&pool->round) != seen || atomic_load(&pool->closing);
}

static bool is_done(const fkm_pool *pool, unsigned long long seen)
{
    (void)seen;
    return atomic_load(&pool->running) == 0;
}

/* Is it true within a while? */
static bool look_out(const fkm_pool *pool, condition c, unsigned long long seen)
{
    if (c(pool, seen) || !pool->looks_out)
        return c(pool, seen);
    for (double end = fkm_now() + LOOK_OUT_S; fkm_now() < end;)
        for (int i = 0; i < LOOKS_AT_ONCE; i++) {
            if (c(pool, seen))
                return true;
            relax();
        }
    return false;
}

/* Who sleeps says so before looking a last time, and who has news looks for sleepers after. */
static void sleep_until_new(fkm_pool *pool, unsigned long long seen)
{
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->asleep, 1);
    while (!is_new(pool, seen))
        pthread_cond_wait(&pool->wake, &pool->lock);
    atomic_fetch_sub(&pool->asleep, 1);
    pthread_mutex_unlock(&pool->lock);
}

static void wake_helpers(fkm_pool *pool)
{
    if (atomic_load(&pool->asleep) == 0)
        return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
}

static void sleep_until_done(fkm_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->waiting, true);
    while (!is_done(pool, 0))
        pthread_cond_wait(&pool->done, &pool->lock);
    atomic_store(&pool->waiting, false);
    pthread_mutex_unlock(&pool->lock);
}

static void finish_job(fkm_pool *pool)
{
    if (atomic_fetch_sub(&pool->running, 1) > 1 || !atomic_load(&pool->waiting))
        return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_signal(&pool->done);
    pthread_mutex_unlock(&pool->lock);
}

static void *helper_main(void *p)
{
    struct worker_arg *a = p;
    fkm_pool *pool = a->pool;
    for (unsigned long long seen = 0;;) {
        if (!look_out(pool, is_new, seen))
            sleep_until_new(pool, seen);
        if (atomic_load(&pool->closing))
            return NULL;
        seen = atomic_load(&pool->round);
        run_blocks(pool, a->worker);
        finish_job(pool);
    }
}

fkm_status fkm_pool_open(fkm_pool **out, int threads, fkm_err *e)
{
    fkm_pool *pool = NULL;
    FKM_TRY(fkm_calloc(&pool, 1, sizeof *pool, "the thread pool", e));
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->done, NULL);
    pool->threads = threads;
    pool->looks_out = threads <= fkm_cpu_count();
    fkm_status st = FKM_OK;
    FKM_GO(fkm_calloc(&pool->helpers, threads, sizeof *pool->helpers, "the thread pool", e));
    FKM_GO(fkm_calloc(&pool->args, threads, sizeof *pool->args, "the thread pool", e));
    for (int i = 0; i < threads - 1; i++) {
        pool->args[i] = (struct worker_arg){pool, i + 1};
        FKM_GO(fkm_thread_start(&pool->helpers[i], helper_main, &pool->args[i], "a thread", e));
        pool->started++;
    }
    *out = pool;
    return FKM_OK;
out:
    fkm_pool_close(pool);
    return st;
}

void fkm_pool_close(fkm_pool *pool)
{
    if (!pool)
        return;
    atomic_store(&pool->closing, true);
    wake_helpers(pool);
    for (int i = 0; i < pool->started; i++)
        pthread_join(pool->helpers[i], NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_cond_destroy(&pool->done);
    pthread_mutex_destroy(&pool->lock);
    fkm_free(pool->helpers);
    fkm_free(pool->args);
    fkm_free(pool);
}

int fkm_pool_threads(const fkm_pool *pool)
{
    return pool->threads;
}

void fkm_pool_for(fkm_pool *pool, int64_t blocks, fkm_pool_fn fn, void *arg)
{
    if (!pool || pool->threads == 1 || blocks <= 1) {
        for (int64_t block = 0; block < blocks; block++)
            fn(arg, block, 0);
        return;
    }
    pool->fn = fn;
    pool->arg = arg;
    pool->blocks = blocks;
    atomic_store(&pool->next, 0);
    atomic_store(&pool->running, pool->threads - 1);
    atomic_fetch_add(&pool->round, 1);
    wake_helpers(pool);
    run_blocks(pool, 0);
    if (!look_out(pool, is_done, 0))
        sleep_until_done(pool);
}
