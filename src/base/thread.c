/* Starting threads: see thread.h. */
#include "thread.h"

#include <signal.h>
#include <string.h>

fkm_status fkm_thread_start(
    pthread_t *out, void *(*fn)(void *), void *arg, const char *what, fkm_err *e)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(out, NULL, fn, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0)
        return FKM_OK;
    fkm_fail(e, FKM_ENOMEM, "cannot start %s: %s", what, strerror(rc));
    return fkm_hint(e, "use a smaller --threads, or raise the limit on processes (ulimit -u)");
}
