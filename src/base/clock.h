/* Time: seconds for measuring, UTC text for reports. */
#ifndef FKM_CLOCK_H
#define FKM_CLOCK_H

#include <stddef.h>

double fkm_now(void);                            /* monotonic seconds, arbitrary origin */
const char *fkm_utc_text(char *out, size_t cap); /* "2026-11-21T03:14:15Z"; returns out */

#endif
