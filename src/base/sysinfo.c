/* What this process may use of the machine: affinity, cgroup v2 and v1 limits, rlimits. */
#include "sysinfo.h"

#include "checked.h"
#include "crc32c.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* First line of a small text file, "" when there is none. */
static void read_line(const char *path, char *out, size_t cap)
{
    out[0] = '\0';
    FILE *f = fopen(path, "re");
    if (!f)
        return;
    if (!fgets(out, (int)cap, f))
        out[0] = '\0';
    fclose(f);
}

/* A number in /proc/meminfo or /proc/self/status, given in kB there; -1 when absent. */
static int64_t read_kilobytes(const char *path, const char *key)
{
    char line[256];
    int64_t found = -1;
    FILE *f = fopen(path, "re");
    if (!f)
        return -1;
    while (found < 0 && fgets(line, sizeof line, f))
        if (!strncmp(line, key, strlen(key)))
            found = strtoll(line + strlen(key), NULL, 10) * 1024;
    fclose(f);
    return found;
}

/* ---- control groups ---- */

/* The path of this process in the tree of a version 1 controller, or of version 2 (controller "").
 * "" when unknown. Lines are NUMBER:CONTROLLER,CONTROLLER:PATH. */
static void cgroup_path(char *out, size_t cap, const char *root, const char *controller)
{
    char line[512], wanted[32], name[300];
    out[0] = '\0';
    snprintf(wanted, sizeof wanted, ",%s,", controller);
    snprintf(name, sizeof name, "%s/proc/self/cgroup", root);
    FILE *f = fopen(name, "re");
    if (!f)
        return;
    while (fgets(line, sizeof line, f)) {
        char list[300];
        char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;
        if (!path || path - names > 256)
            continue;
        *path++ = '\0';
        path[strcspn(path, "\n")] = '\0';
        snprintf(list, sizeof list, ",%s,", names + 1);
        if (*controller ? strstr(list, wanted) != NULL : names[1] == '\0')
            snprintf(out, cap, "%s", path);
    }
    fclose(f);
}

/* First line of a file in a directory. */
static void read_setting(const char *dir, const char *name, char *out, size_t cap)
{
    char path[900];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    read_line(path, out, cap);
}

/* Page cache that belongs to the group can be dropped, so it does not count as used. */
static int64_t cgroup_cache(const char *dir)
{
    char path[900], line[256];
    int64_t cache = 0;
    snprintf(path, sizeof path, "%s/memory.stat", dir);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f)) {
        size_t name = strcspn(line, " ");
        if (!strncmp(line, "inactive_file ", name + 1) || !strncmp(line, "active_file ", name + 1))
            cache += strtoll(line + name, NULL, 10);
    }
    if (f)
        fclose(f);
    return cache;
}

/* Room below one directory's limit; INT64_MAX without a limit. */
static int64_t memory_room(const char *dir, const char *limit_name, const char *used_name)
{
    char text[64];
    read_setting(dir, limit_name, text, sizeof text);
    if (text[0] < '0' || text[0] > '9')
        return INT64_MAX;
    int64_t limit = strtoll(text, NULL, 10);
    if (limit >= INT64_MAX / 2)
        return INT64_MAX;
    read_setting(dir, used_name, text, sizeof text);
    int64_t used = strtoll(text, NULL, 10) - cgroup_cache(dir);
    return fkm_max_i64(0, limit - fkm_max_i64(0, used));
}

static int64_t memory_v1(const char *dir)
{
    return memory_room(dir, "memory.limit_in_bytes", "memory.usage_in_bytes");
}

static int64_t memory_v2(const char *dir)
{
    return memory_room(dir, "memory.max", "memory.current");
}

/* CPUs that so much time a period pays for, rounded up; INT64_MAX: no quota. */
static int64_t quota_cpus(double quota, double period)
{
    if (!(quota > 0 && period > 0 && quota < 1e6 * period))
        return INT64_MAX;
    return (int64_t)((quota + period - 1) / period); /* both are whole numbers */
}

static int64_t cpus_v1(const char *dir)
{
    char quota[64], period[64];
    read_setting(dir, "cpu.cfs_quota_us", quota, sizeof quota);
    read_setting(dir, "cpu.cfs_period_us", period, sizeof period);
    return quota_cpus(strtod(quota, NULL), strtod(period, NULL));
}

/* "QUOTA PERIOD", or "max PERIOD". */
static int64_t cpus_v2(const char *dir)
{
    char text[64], *end = text;
    read_setting(dir, "cpu.max", text, sizeof text);
    double quota = text[0] >= '0' && text[0] <= '9' ? strtod(text, &end) : 0;
    return quota_cpus(quota, quota > 0 ? strtod(end, NULL) : 0);
}

/* The least that a group on the way from this process's up to the root allows. In a container the
 * path may be one that only the host sees; its own limit is then at the root. */
static int64_t least_of_groups(const char *root, const char *mount, const char *controller,
    int64_t (*allowed)(const char *dir))
{
    char rel[512], dir[900];
    int64_t least = INT64_MAX;
    cgroup_path(rel, sizeof rel, root, controller);
    for (;;) {
        snprintf(dir, sizeof dir, "%s/sys/fs/cgroup%s%s", root, mount, rel);
        least = fkm_min_i64(least, allowed(dir));
        char *slash = strrchr(rel, '/');
        if (!slash)
            return least;
        *slash = '\0';
    }
}

int64_t fkm_cgroup_memory(const char *root)
{
    return fkm_min_i64(least_of_groups(root, "/memory", "memory", memory_v1),
        least_of_groups(root, "", "", memory_v2));
}

int64_t fkm_cgroup_cpus(const char *root)
{
    return fkm_min_i64(
        least_of_groups(root, "/cpu", "cpu", cpus_v1), least_of_groups(root, "", "", cpus_v2));
}

/* ---- memory and CPUs ---- */

static int64_t address_space_room(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
        return INT64_MAX;
    int64_t used = read_kilobytes("/proc/self/status", "VmSize:");
    return fkm_max_i64(0, (int64_t)limit.rlim_cur - fkm_max_i64(0, used));
}

int64_t fkm_memory_available(void)
{
    int64_t room = read_kilobytes("/proc/meminfo", "MemAvailable:");
    if (room < 0)
        room = (int64_t)sysconf(_SC_AVPHYS_PAGES) * sysconf(_SC_PAGESIZE);
    room = fkm_min_i64(room, fkm_cgroup_memory(""));
    return fkm_min_i64(room, address_space_room());
}

int64_t fkm_peak_memory(void)
{
    int64_t peak = read_kilobytes("/proc/self/status", "VmHWM:");
    if (peak >= 0)
        return peak;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (int64_t)usage.ru_maxrss * 1024;
}

int fkm_cpu_count(void)
{
    int n = 0;
    cpu_set_t *set = NULL;
    for (int cpus = 1024; cpus <= 1 << 17 && n == 0;
         cpus *= 2) { /* the kernel's mask may be wide */
        set = CPU_ALLOC((size_t)cpus);
        if (!set)
            break;
        if (sched_getaffinity(0, CPU_ALLOC_SIZE((size_t)cpus), set) == 0)
            n = CPU_COUNT_S(CPU_ALLOC_SIZE((size_t)cpus), set);
        CPU_FREE(set);
    }
    if (n == 0)
        n = (int)sysconf(_SC_NPROCESSORS_ONLN);
    int64_t quota = fkm_cgroup_cpus("");
    n = n < quota ? n : (int)quota;
    return n > 0 ? n : 1;
}

void fkm_leave_cpu_time(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_CPU, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
        limit.rlim_cur < limit.rlim_max || limit.rlim_max < 2)
        return;
    int64_t margin = fkm_min_i64(30, fkm_max_i64(1, (int64_t)limit.rlim_max / 20));
    limit.rlim_cur = limit.rlim_max - (rlim_t)margin;
    (void)setrlimit(RLIMIT_CPU, &limit);
}

const char *fkm_host_name(void)
{
    static char name[256];
    if (name[0])
        return name;
    if (gethostname(name, sizeof name - 1) != 0 || !name[0])
        snprintf(name, sizeof name, "unknown");
    for (char *c = name; *c; c++)
        if (*c <= ' ' || *c > '~')
            *c = '?';
    return name;
}

uint32_t fkm_system_id(void)
{
    static uint32_t id;
    char text[128];
    if (id)
        return id;
    read_line("/proc/sys/kernel/random/boot_id", text, sizeof text);
    id = fkm_crc32c(0, text, strlen(text));
    if (!text[0])
        id = fkm_crc32c(id, fkm_host_name(), strlen(fkm_host_name()));
    ssize_t len = readlink("/proc/self/ns/pid", text, sizeof text);
    if (len > 0)
        id = fkm_crc32c(id, text, (size_t)len);
    id += id == 0;
    return id;
}

const char *fkm_cpu_model(void)
{
    static char model[128];
    if (model[0])
        return model;
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "re");
    while (f && !model[0] && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon)
            continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(model, sizeof model, "%s", colon + 2);
    }
    if (f)
        fclose(f);
    if (!model[0])
        snprintf(model, sizeof model, "unknown");
    return model;
}
