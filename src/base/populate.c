/* Getting pages ahead of time: see populate.h. */
#include "populate.h"

#include "log.h"
#include "thread.h"

#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define PAGE ((int64_t)64 << 10)         /* a multiple of any page's size */
#define BYTES_AT_ONCE ((int64_t)4 << 20) /* a millisecond or a few */

static void *populate_main(void *arg)
{
    fkm_populate *p = arg;
    const int64_t skip = (PAGE - (int64_t)((uintptr_t)p->memory % PAGE)) % PAGE;
    const int64_t end = p->bytes - (p->bytes - skip) % PAGE;
    for (int64_t at = skip; at < end && !atomic_load(&p->stop); at += BYTES_AT_ONCE) {
        int64_t n = end - at < BYTES_AT_ONCE ? end - at : BYTES_AT_ONCE;
        if (madvise(p->memory + at, (size_t)n, MADV_POPULATE_WRITE) != 0)
            break;
    }
    return NULL;
}

void fkm_populate_start(fkm_populate *p, void *memory, int64_t bytes)
{
    fkm_err e = {0};
    p->memory = memory;
    p->bytes = bytes;
    atomic_init(&p->stop, false);
    p->started =
        fkm_thread_start(&p->thread, populate_main, p, "the thread that gets pages", &e) == FKM_OK;
    if (!p->started)
        fkm_verbose("%s: pages will come when they are touched", e.msg);
}

void fkm_populate_stop(fkm_populate *p)
{
    atomic_store(&p->stop, true);
}

void fkm_populate_close(fkm_populate *p)
{
    if (!p->started)
        return;
    fkm_populate_stop(p);
    pthread_join(p->thread, NULL);
    p->started = false;
}
