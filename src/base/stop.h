/* The flag that asks work to end early. */
#ifndef FKM_STOP_H
#define FKM_STOP_H

#include <stdbool.h>

/* flag: an atomic_int, which C++ has no name for; NULL: never. Cheap enough for every tenth of a
 * millisecond of work, on any thread. */
bool fkm_is_stopped(const void *flag);

#endif
