/* What the process may use: affinity, limits, peak memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../src/base/sysinfo.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static void cpus_follow_affinity(void **state)
{
    (void)state;
    cpu_set_t before, one;
    int all = fkm_cpu_count();
    assert_in_range(all, 1, sysconf(_SC_NPROCESSORS_CONF));
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    int first = 0;
    while (!CPU_ISSET(first, &before))
        first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    int restricted = fkm_cpu_count();
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    assert_int_equal(restricted, 1);
    assert_int_equal(fkm_cpu_count(), all);
}

static void memory_is_what_is_there(void **state)
{
    (void)state;
    int64_t total = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    assert_true(fkm_memory_available() > 0);
    assert_true(fkm_memory_available() <= total);
}

static void memory_follows_the_address_space_limit(void **state)
{
    (void)state;
    struct rlimit before, tight;
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%ld", &pages), 1);
    fclose(f);
    int64_t used = (int64_t)pages * sysconf(_SC_PAGESIZE);
    assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
    tight = before;
    tight.rlim_cur = (rlim_t)used + ((rlim_t)50 << 20);
    assert_int_equal(setrlimit(RLIMIT_AS, &tight), 0);
    int64_t room = fkm_memory_available();
    assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
    assert_true(room <= (int64_t)51 << 20);
    assert_true(room >= (int64_t)40 << 20);
}

static void peak_grows_and_stays(void **state)
{
    (void)state;
    const size_t bytes = (size_t)96 << 20;
    int64_t before = fkm_peak_memory();
    assert_true(before > 0);
    volatile char *p = malloc(bytes);
    assert_non_null(p);
    for (size_t i = 0; i < bytes; i += 1024)
        p[i] = (char)i;
    int64_t during = fkm_peak_memory();
    free((void *)p);
    assert_true(during >= before + (int64_t)(bytes / 2));
    /* The kernel's counters are per CPU and the mark is taken from their estimate. */
    assert_true(fkm_peak_memory() >= during - (4 << 20));
}

static void the_cpu_has_a_name(void **state)
{
    (void)state;
    const char *name = fkm_cpu_model();
    assert_true(strlen(name) > 0);
    assert_null(strchr(name, '\n'));
    assert_ptr_equal(fkm_cpu_model(), name);
}

/* ---- control groups: trees as the kernel shows them ---- */

static void put(const char *path, const char *text)
{
    char dir[256];
    snprintf(dir, sizeof dir, "tree/%s", path);
    for (char *p = dir + 1; *p; p++)
        if (*p == '/') {
            *p = '\0';
            mkdir(dir, 0777);
            *p = '/';
        }
    FILE *f = fopen(dir, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void clear(void)
{
    assert_int_equal(system("rm -rf tree"), 0);
}

static void check_groups(int64_t memory, int64_t cpus)
{
    assert_int_equal(fkm_cgroup_memory("tree"), memory);
    assert_int_equal(fkm_cgroup_cpus("tree"), cpus);
}

static void groups_of_version_2(void **state)
{
    (void)state;
    clear();
    check_groups(INT64_MAX, INT64_MAX); /* no files at all */
    put("proc/self/cgroup", "0::/user.slice/job.scope\n");
    check_groups(INT64_MAX, INT64_MAX);
    put("sys/fs/cgroup/user.slice/job.scope/memory.max", "max\n");
    put("sys/fs/cgroup/user.slice/job.scope/cpu.max", "max 100000\n");
    check_groups(INT64_MAX, INT64_MAX);
    put("sys/fs/cgroup/user.slice/job.scope/memory.max", "1000000\n");
    put("sys/fs/cgroup/user.slice/job.scope/memory.current", "400000\n");
    put("sys/fs/cgroup/user.slice/job.scope/cpu.max", "350000 100000\n");
    check_groups(600000, 4);
    /* the page cache can be dropped, what is not of files cannot */
    put("sys/fs/cgroup/user.slice/job.scope/memory.stat",
        "anon 5000\ninactive_anon 7\ninactive_file 100000\nactive_file 50000\nslab 9\n");
    check_groups(750000, 4);
    put("sys/fs/cgroup/user.slice/memory.max", "500000\n"); /* a parent is tighter */
    put("sys/fs/cgroup/user.slice/memory.current", "450000\n");
    put("sys/fs/cgroup/user.slice/cpu.max", "50000 100000\n");
    check_groups(50000, 1);
    put("sys/fs/cgroup/user.slice/memory.current", "700000\n"); /* above a limit that was lowered */
    check_groups(0, 1);
}

/* In a container: the path is the host's, the limits are at the root of what is mounted. */
static void groups_of_a_container(void **state)
{
    (void)state;
    clear();
    put("proc/self/cgroup", "0::/../../docker/0123456789abcdef\n");
    put("sys/fs/cgroup/memory.max", "2000000\n");
    put("sys/fs/cgroup/memory.current", "500000\n");
    put("sys/fs/cgroup/cpu.max", "200000 100000\n");
    check_groups(1500000, 2);
    put("proc/self/cgroup", "0::/\n");
    check_groups(1500000, 2);
}

/* Both versions side by side; controllers that are mounted together share a path. */
static void groups_of_version_1(void **state)
{
    (void)state;
    clear();
    put("proc/self/cgroup",
        "12:cpu,cpuacct:/job\n5:memory:/job/step\n1:name=systemd:/x\n0::/init.scope\n");
    put("sys/fs/cgroup/memory/job/step/memory.limit_in_bytes", "9223372036854771712\n"); /* none */
    put("sys/fs/cgroup/memory/job/step/memory.usage_in_bytes", "300\n");
    put("sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", "-1\n");
    put("sys/fs/cgroup/cpu/job/cpu.cfs_period_us", "100000\n");
    check_groups(INT64_MAX, INT64_MAX);
    put("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "1000\n");
    put("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "300\n");
    put("sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", "250000\n");
    check_groups(700, 3);
}

/* Whatever is there instead of numbers is no limit. */
static void groups_of_nonsense(void **state)
{
    (void)state;
    clear();
    put("proc/self/cgroup", "no colons\n0:\n::\n0::/a\n");
    put("sys/fs/cgroup/a/memory.max", "much\n");
    put("sys/fs/cgroup/a/cpu.max", "1 0\n");
    check_groups(INT64_MAX, INT64_MAX);
    put("sys/fs/cgroup/a/cpu.max", "100000\n");
    check_groups(INT64_MAX, INT64_MAX);
    put("sys/fs/cgroup/a/cpu.max", "");
    put("sys/fs/cgroup/a/memory.max", "");
    check_groups(INT64_MAX, INT64_MAX);
    clear();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cpus_follow_affinity),
        cmocka_unit_test(memory_is_what_is_there),
        cmocka_unit_test(memory_follows_the_address_space_limit),
        cmocka_unit_test(peak_grows_and_stays),
        cmocka_unit_test(the_cpu_has_a_name),
        cmocka_unit_test(groups_of_version_2),
        cmocka_unit_test(groups_of_a_container),
        cmocka_unit_test(groups_of_version_1),
        cmocka_unit_test(groups_of_nonsense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
