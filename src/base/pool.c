/* A fixed pool of threads: see pool.h. */
#include "pool.h"

#include "mem.h"
#include "thread.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#define SPINS 2000 /* about as long as it takes to wake a thread */

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
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    atomic_ullong round; /* number of the current job; helpers sleep until it changes */
    atomic_int running;  /* helpers that have not finished the current job */
    bool closing;
    fkm_pool_fn fn;
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

/* Jobs follow each other within microseconds, and waking a thread takes some fifty: look out for
 * the next one for as long before going to sleep. */
static void look_out(atomic_ullong *at, unsigned long long until_not)
{
    for (int i = 0; i < SPINS && atomic_load_explicit(at, memory_order_acquire) == until_not; i++)
        relax();
}

static void *helper_main(void *p)
{
    struct worker_arg *a = p;
    fkm_pool *pool = a->pool;
    unsigned long long seen = 0;
    for (;;) {
        look_out(&pool->round, seen);
        pthread_mutex_lock(&pool->lock);
        while (atomic_load(&pool->round) == seen && !pool->closing)
            pthread_cond_wait(&pool->wake, &pool->lock);
        seen = atomic_load(&pool->round);
        bool closing = pool->closing;
        pthread_mutex_unlock(&pool->lock);
        if (closing)
            return NULL;
        run_blocks(pool, a->worker);
        pthread_mutex_lock(&pool->lock);
        if (atomic_fetch_sub(&pool->running, 1) == 1)
            pthread_cond_signal(&pool->done);
        pthread_mutex_unlock(&pool->lock);
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
    pthread_mutex_lock(&pool->lock);
    pool->closing = true;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
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
    if (pool->threads == 1 || blocks <= 1) {
        for (int64_t block = 0; block < blocks; block++)
            fn(arg, block, 0);
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->fn = fn;
    pool->arg = arg;
    pool->blocks = blocks;
    atomic_store(&pool->next, 0);
    atomic_store(&pool->running, pool->threads - 1);
    atomic_fetch_add(&pool->round, 1);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    run_blocks(pool, 0);
    for (int i = 0; i < SPINS && atomic_load(&pool->running) > 0; i++)
        relax();
    pthread_mutex_lock(&pool->lock);
    while (atomic_load(&pool->running) > 0)
        pthread_cond_wait(&pool->done, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}
