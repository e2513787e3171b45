/* Time: see clock.h. */
#include "clock.h"

#include <time.h>

double fkm_now(void)
{
    struct timespec t = {0, 0};
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

const char *fkm_utc_text(char *out, size_t cap)
{
    time_t t = time(NULL);
    struct tm utc;
    gmtime_r(&t, &utc);
    strftime(out, cap, "%Y-%m-%dT%H:%M:%SZ", &utc);
    return out;
}
