/* What this process may use of the machine. */
#ifndef FKM_SYSINFO_H
#define FKM_SYSINFO_H

#include <stddef.h>
#include <stdint.h>

int fkm_cpu_count(void); /* by affinity and cgroup quota; >= 1 */
/* Where the limit on CPU time would kill without a word (its soft and hard values are one, as
 * `ulimit -t` sets them), SIGXCPU comes a little earlier from now on. */
void fkm_leave_cpu_time(void);

int64_t fkm_memory_available(void); /* bytes: the least of MemAvailable, cgroup, RLIMIT_AS room */
int64_t fkm_peak_memory(void);      /* bytes: peak resident set of this process so far */

/* What the control groups of this process allow, of both versions: bytes that are left, and CPUs by
 * quota, rounded up; INT64_MAX: no limit. root: what /proc and /sys are looked for in, "" but in
 * tests. */
int64_t fkm_cgroup_memory(const char *root);
int64_t fkm_cgroup_cpus(const char *root);

/* A number of this boot of this machine, and of this container: process numbers mean something only
 * where it is the same. */
uint32_t fkm_system_id(void);
const char *fkm_host_name(void); /* printable, without blanks; static */

const char *fkm_cpu_model(void); /* "Intel(R) Xeon(R) ..."; static storage */

/* What a GPU is. Filled by the backend that uses it. */
#define FKM_MOST_GPUS 16
typedef struct fkm_gpu_info {
    int32_t device; /* its number, as in --device cuda:0 */
    char name[64];
    int32_t major, minor; /* compute capability */
    int64_t memory_bytes; /* all that it has */
} fkm_gpu_info;

#endif
