/* Starting threads that leave signals to the main thread; and the room that they and it have. */
#ifndef FKM_THREAD_H
#define FKM_THREAD_H

#include "status.h"
#include <pthread.h>

/* FKM_ENOMEM when the stack of the main thread is limited to less than fkm may use of it. */
fkm_status fkm_stack_check(fkm_err *e) FKM_MUST_USE;

/* Runs fn(arg) in a new thread with all signals blocked, and with a stack of 1 MiB whatever that
 * limit. FKM_ENOMEM, naming `what`. */
fkm_status fkm_thread_start(
    pthread_t *out, void *(*fn)(void *), void *arg, const char *what, fkm_err *e) FKM_MUST_USE;

#endif
