/* Talk on stderr. Results never go through here; errors are printed once, by main.
 *
 * One process-wide level, set once by cmd/ before any thread starts. */
#ifndef FKM_LOG_H
#define FKM_LOG_H

#include "status.h"

typedef enum fkm_log_level {
    FKM_LOG_QUIET,  /* -q: errors only */
    FKM_LOG_NORMAL, /* warnings and notes */
    FKM_LOG_VERBOSE /* -v: choices that fkm made, with their reasons */
} fkm_log_level;

void fkm_log_set_level(fkm_log_level level);
fkm_log_level fkm_log_get_level(void);

/* "fkm: warning: ..." unless quiet. Any thread. Also kept for stats.json: see fkm_log_warnings. */
void fkm_warn(const char *fmt, ...) FKM_PRINTF(1, 2);

/* "fkm: ..." unless quiet: what may not be what the user takes it for. Any thread. */
void fkm_note(const char *fmt, ...) FKM_PRINTF(1, 2);

/* "fkm: ..." only when verbose. Any thread. */
void fkm_verbose(const char *fmt, ...) FKM_PRINTF(1, 2);

/* The warnings so far, first to last (at most 64 are kept). Borrowed, process-wide. */
int fkm_log_warnings(const char *const **list);

/* Called before a line is written, so that a live progress line can clear itself; NULL: none. */
void fkm_log_on_line(void (*before)(void));

#endif
