/* Starting threads: see thread.h. */
#include "thread.h"

#include <signal.h>
#include <string.h>
#include <sys/resource.h>

/* Largest frames: 64 KiB to look at a file's head, 84 KiB to scan rows; libraries have their own.
 */
#define STACK_BYTES (1 << 20)
#define LEAST_STACK_BYTES (256 << 10)

fkm_status fkm_stack_check(fkm_err *e)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_STACK, &limit) != 0 || limit.rlim_cur >= LEAST_STACK_BYTES)
        return FKM_OK;
    fkm_fail(e, FKM_ENOMEM, "the stack is limited to %llu KiB: at least %d KiB are needed",
        (unsigned long long)limit.rlim_cur >> 10, LEAST_STACK_BYTES >> 10);
    return fkm_hint(e, "raise the limit: ulimit -s %d", STACK_BYTES >> 10);
}

fkm_status fkm_thread_start(
    pthread_t *out, void *(*fn)(void *), void *arg, const char *what, fkm_err *e)
{
    sigset_t all, before;
    pthread_attr_t attributes; /* by default stacks are as large as the limit says, or as small */
    int rc = pthread_attr_init(&attributes);
    if (rc == 0) {
        (void)pthread_attr_setstacksize(&attributes, STACK_BYTES);
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        rc = pthread_create(out, &attributes, fn, arg);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        (void)pthread_attr_destroy(&attributes);
    }
    if (rc == 0)
        return FKM_OK;
    fkm_fail(e, FKM_ENOMEM, "cannot start %s: %s", what, strerror(rc));
    return fkm_hint(e, "use a smaller --threads, or raise the limit on processes (ulimit -u)");
}
