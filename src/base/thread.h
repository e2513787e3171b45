/* Starting threads that leave signals to the main thread. */
#ifndef FKM_THREAD_H
#define FKM_THREAD_H

#include "status.h"
#include <pthread.h>

/* Runs fn(arg) in a new thread with all signals blocked. FKM_ENOMEM, naming `what`. */
fkm_status fkm_thread_start(
    pthread_t *out, void *(*fn)(void *), void *arg, const char *what, fkm_err *e) FKM_MUST_USE;

#endif
