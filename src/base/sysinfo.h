/* What this process may use of the machine. */
#ifndef FKM_SYSINFO_H
#define FKM_SYSINFO_H

#include <stddef.h>
#include <stdint.h>

int fkm_cpu_count(void);            /* by affinity and cgroup quota; >= 1 */
int64_t fkm_memory_available(void); /* bytes: the least of MemAvailable, cgroup, RLIMIT_AS room */
int64_t fkm_peak_memory(void);      /* bytes: peak resident set of this process so far */
const char *fkm_cpu_model(void);    /* "Intel(R) Xeon(R) ..."; static storage */

#endif
