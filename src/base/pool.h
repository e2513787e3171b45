/* A fixed pool of threads, created once.
 *
 * fkm_pool_for runs fn(arg, block, worker) for every block in [0, blocks), in any order, and
 * returns when all are done. The caller takes part. Blocks are handed out dynamically; `worker` in
 * [0, threads) names scratch that belongs to one running thread. Callbacks write only what belongs
 * to their block or worker. One fkm_pool_for at a time per pool. Without a pool (NULL) the caller
 * does it all, in order, as worker 0. */
#ifndef FKM_POOL_H
#define FKM_POOL_H

#include "status.h"
#include <stdint.h>

typedef struct fkm_pool fkm_pool;
typedef void (*fkm_pool_fn)(void *arg, int64_t block, int worker);

fkm_status fkm_pool_open(fkm_pool **out, int threads, fkm_err *e) FKM_MUST_USE; /* threads >= 1 */
void fkm_pool_close(fkm_pool *pool);                                            /* NULL is fine */
int fkm_pool_threads(const fkm_pool *pool);
void fkm_pool_for(fkm_pool *pool, int64_t blocks, fkm_pool_fn fn, void *arg);

#endif
