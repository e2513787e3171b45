/* Getting pages of memory before they are needed, while the file is read: clearing them costs as
 * much as using them once, several times that on a virtual machine whose host has to find them
 * first. */
#ifndef FKM_POPULATE_H
#define FKM_POPULATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct fkm_populate {
    char *memory;
    int64_t bytes;
    pthread_t thread;
    bool started;
    atomic_bool stop;
} fkm_populate;

/* Starts a thread that asks for the pages of an array, from the first on. What it holds is left as
 * it is; it may be used meanwhile. Where that is not possible (Linux before 5.14, no thread to be
 * had), pages come when they are touched. */
void fkm_populate_start(fkm_populate *p, void *memory, int64_t bytes);

/* Pages not got by now come when they are touched. Does not wait. */
void fkm_populate_stop(fkm_populate *p);

/* Before the array is freed: stops, and waits. Safe on zeroed structs. */
void fkm_populate_close(fkm_populate *p);

#endif
