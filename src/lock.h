/* The lock of a set of outputs: a file ".NAME.lock" that is there while a run is going on, and held
 * by flock. It goes away with the process, however that ends; what is left is an empty hull. */
#ifndef FKM_LOCK_H
#define FKM_LOCK_H

#include "base/status.h"
#include <stdbool.h>

typedef struct fkm_lock {
    char *path; /* NULL: not taken */
    int fd;
    bool effective; /* the file system has locks: nobody else holds this one */
} fkm_lock;

/* Takes dir/.name.lock; `shown` names it in messages. Never opens what is not a lock: not the
 * target of a link, a file with several names, of other content, or of a stranger. FKM_EFILE: in
 * use, by whom, on which machine; or one of those. */
fkm_status fkm_lock_take(
    fkm_lock *l, const char *dir, const char *name, const char *shown, fkm_err *e) FKM_MUST_USE;

/* Removes the file and lets go. Safe on zeroed structs. */
void fkm_lock_release(fkm_lock *l);

#endif
