/* Checksums of the rows: those of their blocks, whatever chunks rows come in and whoever sums them;
 * what changed is found and named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../src/base/crc32c.h"
#include "../../src/base/mem.h"
#include "../../src/checksums.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Blocks of 3495 rows; more of them in a problem than are summed side by side. */
enum {
    BATCH = 2,
    DIMS = 300,
    BLOCK = (1 << 20) / DIMS,
    BLOCKS = 67,
    ROWS = (BLOCKS - 1) * BLOCK + 123
};

static fkm_reader *in;
static uint8_t *x; /* [ROWS][DIMS] */

static int set_up(void **state)
{
    (void)state;
    char head[128];
    const char *path = "checksums.npy";
    fkm_err e = {0};
    memset(head, ' ', sizeof head);
    memcpy(head, "\x93NUMPY\x01\x00\x76\x00", 10);
    int n = snprintf(head + 10, 117,
        "{'descr': '|u1', 'fortran_order': False, 'shape': (%d, %d, %d)}", BATCH, ROWS, DIMS);
    head[10 + n] = ' ';
    head[127] = '\n';
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(head, 1, sizeof head, f) != sizeof head || fclose(f) != 0)
        return -1;
    if (truncate(path, (off_t)sizeof head + (off_t)BATCH * ROWS * DIMS) != 0) /* rows come from x */
        return -1;
    if (fkm_alloc(&x, ROWS, DIMS, "rows", &e) != FKM_OK)
        return -1;
    for (int64_t i = 0; i < (int64_t)ROWS * DIMS; i++)
        x[i] = (uint8_t)(i * 2654435761u >> 24);
    fkm_reader_spec spec = {.paths = &path, .path_count = 1, .row_end = -1};
    return fkm_reader_open(&in, &spec, &e) == FKM_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    fkm_reader_close(in);
    fkm_free(x);
    return unlink("checksums.npy");
}

/* All rows of a problem, in chunks of so many, but for those of the chunk that is left out (-1:
 * none). */
static fkm_status pass(
    fkm_checksums *c, int64_t problem, int64_t chunk, int64_t out, fkm_pool *pool, fkm_err *e)
{
    fkm_checksum_cursor t = {0};
    for (int64_t row = 0; row < ROWS; row += chunk) {
        const int64_t count = ROWS - row < chunk ? ROWS - row : chunk;
        if (row / chunk == out)
            continue;
        FKM_TRY(fkm_checksums_add(c, &t, problem * ROWS + row, count, x + row * DIMS, pool, e));
    }
    return FKM_OK;
}

static void check_sums(const fkm_checksums *c)
{
    assert_int_equal(c->block_rows, BLOCK);
    assert_int_equal(c->blocks, BLOCKS);
    for (int64_t problem = 0; problem < BATCH; problem++) {
        assert_int_equal(c->known[problem], BLOCKS);
        for (int64_t i = 0; i < BLOCKS; i++) {
            const int64_t rows = i < BLOCKS - 1 ? BLOCK : ROWS - i * BLOCK;
            const uint32_t sum = fkm_crc32c(0, x + i * BLOCK * DIMS, (size_t)(rows * DIMS));
            assert_int_equal(c->crc[problem * BLOCKS + i], sum);
        }
    }
}

static void sums_are_those_of_blocks(void **state)
{
    (void)state;
    static const int64_t chunks[] = {ROWS, 3 * BLOCK, 1000};
    static const int threads[] = {0, 3};
    for (size_t p = 0; p < sizeof threads / sizeof *threads; p++)
        for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
            fkm_err e = {0};
            fkm_checksums c;
            fkm_pool *pool = NULL;
            if (threads[p] > 0)
                assert_int_equal(fkm_pool_open(&pool, threads[p], &e), FKM_OK);
            assert_int_equal(fkm_checksums_open(&c, in, &e), FKM_OK);
            for (int64_t problem = 0; problem < BATCH; problem++)
                assert_int_equal(pass(&c, problem, chunks[i], -1, pool, &e), FKM_OK);
            check_sums(&c);
            assert_int_equal(
                pass(&c, 1, 7000, -1, pool, &e), FKM_OK); /* in other chunks, the same */
            fkm_checksums_close(&c);
            fkm_pool_close(pool);
        }
}

static void changes_are_found_and_named(void **state)
{
    (void)state;
    static const int64_t rows[] = {0, BLOCK - 1, 64 * BLOCK, ROWS - 1};
    fkm_checksums c;
    fkm_pool *pool;
    fkm_err e = {0};
    assert_int_equal(fkm_pool_open(&pool, 3, &e), FKM_OK);
    assert_int_equal(fkm_checksums_open(&c, in, &e), FKM_OK);
    assert_int_equal(pass(&c, 0, ROWS, -1, pool, &e), FKM_OK);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int64_t chunk = 900; chunk <= ROWS; chunk += ROWS - 900) {
            char name[32];
            snprintf(name, sizeof name, "row %lld ", (long long)(rows[i] / BLOCK * BLOCK));
            x[rows[i] * DIMS + 7] ^= 1;
            assert_int_equal(pass(&c, 0, chunk, -1, pool, &e), FKM_EDATA);
            assert_non_null(strstr(e.msg, name));
            x[rows[i] * DIMS + 7] ^= 1;
        }
    assert_int_equal(pass(&c, 0, ROWS, -1, pool, &e), FKM_OK);
    fkm_checksums_close(&c);
    fkm_pool_close(pool);
}

static void whole_blocks_may_be_left_out(void **state)
{
    (void)state;
    fkm_checksums c;
    fkm_err e = {0};
    assert_int_equal(fkm_checksums_open(&c, in, &e), FKM_OK);
    assert_int_equal(pass(&c, 0, 2 * BLOCK, 1, NULL, &e), FKM_EBUG); /* not in the first pass */
    assert_int_equal(c.known[0], 2);
    assert_int_equal(pass(&c, 0, BLOCK, -1, NULL, &e), FKM_OK);
    assert_int_equal(pass(&c, 0, 2 * BLOCK, 1, NULL, &e), FKM_OK);
    assert_int_equal(
        pass(&c, 0, 2 * BLOCK + 1, 1, NULL, &e), FKM_EBUG); /* what follows begins within one */
    fkm_checksums_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_those_of_blocks),
        cmocka_unit_test(changes_are_found_and_named),
        cmocka_unit_test(whole_blocks_may_be_left_out),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
