/* Files of other programs, which fkm does not read: what they are, and what makes them readable. */
#ifndef FKM_FOREIGN_H
#define FKM_FOREIGN_H

#include "../src/base/status.h"
#include <stdbool.h>
#include <stddef.h>

/* Whether such a file is recognised, by its first bytes or its suffix; FKM_EDATA is then in *e,
 * with a hint that is a command. head: [len + 1], zero-terminated. */
bool fkm_foreign(const char *path, const char *suffix, const char *head, size_t len, fkm_err *e);

#endif
