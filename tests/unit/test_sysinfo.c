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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cpus_follow_affinity),
        cmocka_unit_test(memory_is_what_is_there),
        cmocka_unit_test(memory_follows_the_address_space_limit),
        cmocka_unit_test(peak_grows_and_stays),
        cmocka_unit_test(the_cpu_has_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
