/* Time: see clock.h. */
#include "clock.h"

#include <time.h>

static double read_clock(clockid_t id)
{
    struct timespec t = {0, 0};
    clock_gettime(id, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double fkm_now(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

double fkm_cpu_seconds(void)
{
    return read_clock(CLOCK_PROCESS_CPUTIME_ID);
}

const char *fkm_utc_text(char *out, size_t cap)
{
    time_t t = time(NULL);
    struct tm utc;
    gmtime_r(&t, &utc);
    strftime(out, cap, "%Y-%m-%dT%H:%M:%SZ", &utc);
    return out;
}
