/* Pages that are got ahead: they come, and what they hold stays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../src/base/mem.h"
#include "../../src/base/populate.h"

#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

enum { BYTES = 9 << 20, PAGES = BYTES / 4096 };

static bool possible(void)
{
    long page = sysconf(_SC_PAGESIZE);
    void *p = mmap(NULL, (size_t)page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED);
    bool yes = madvise(p, (size_t)page, MADV_POPULATE_WRITE) == 0;
    assert_int_equal(munmap(p, (size_t)page), 0);
    return yes;
}

static int64_t resident(void *p)
{
    long page = sysconf(_SC_PAGESIZE);
    unsigned char in[PAGES];
    int64_t n = 0;
    assert_int_equal(mincore(p, BYTES, in), 0);
    for (int64_t i = 0; i < BYTES / page; i++)
        n += in[i] & 1;
    return n;
}

static void pages_come(void **state)
{
    (void)state;
    if (!possible())
        skip();
    fkm_populate populate = {0};
    char *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const int64_t pages = BYTES / sysconf(_SC_PAGESIZE),
                  edges = 2 * (64 << 10) / sysconf(_SC_PAGESIZE);
    assert_true(p != MAP_FAILED);
    p[0] = 'a';
    p[BYTES - 1] = 'z';
    fkm_populate_start(&populate, p + 100, BYTES - 100);
    for (int i = 0; i < 1000 && resident(p) < pages - edges; i++)
        (void)nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    fkm_populate_close(&populate);
    assert_true(resident(p) >= pages - edges);
    assert_true(p[0] == 'a' && p[BYTES - 1] == 'z');
    assert_int_equal(munmap(p, BYTES), 0);
}

static void contents_stay(void **state)
{
    (void)state;
    fkm_err e = {0};
    static const int64_t sizes[] = {0, 1, 100, 4096, 10000, BYTES};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        fkm_populate populate = {0};
        unsigned char *p;
        assert_int_equal(fkm_alloc(&p, sizes[s], 1, "bytes", &e), FKM_OK);
        fkm_populate_start(&populate, p, sizes[s]);
        for (int64_t i = 0; i < sizes[s]; i++)
            p[i] = (unsigned char)(i % 251);
        fkm_populate_close(&populate);
        int64_t same = 0;
        while (same < sizes[s] && p[same] == same % 251)
            same++;
        assert_int_equal(same, sizes[s]);
        fkm_free(p);
    }
}

static void closing_is_safe(void **state)
{
    (void)state;
    fkm_populate populate = {0};
    fkm_populate_stop(&populate);
    fkm_populate_close(&populate);
    char *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED);
    fkm_populate_start(&populate, p, BYTES);
    fkm_populate_close(&populate);
    fkm_populate_close(&populate);
    assert_int_equal(munmap(p, BYTES), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_come),
        cmocka_unit_test(contents_stay),
        cmocka_unit_test(closing_is_safe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
