/* Rows with headers between them: the same rows, and the same complaints, by either way of reading.
 */
#include "../../formats/elements.h"

#include "../../src/base/direct.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DIMS = 37, ROWS = 90000, PAGE = FKM_DIRECT_ALIGNMENT }; /* 13 MB: three reads in place */

typedef struct setting {
    float *x; /* [ROWS][DIMS] */
    char *memory, scratch[FKM_SCRATCH_BYTES];
    int64_t vecs[8]; /* the format's state */
    fkm_file *file;
} setting;

/* bad: a row whose header is wrong; -1: none. */
static void write_rows(const setting *s, int64_t bad)
{
    FILE *out = fopen("rows.fvecs", "wb");
    assert_non_null(out);
    for (int64_t i = 0; i < ROWS; i++) {
        const int32_t dims = i == bad ? DIMS + 1 : DIMS;
        assert_int_equal(fwrite(&dims, sizeof dims, 1, out), 1);
        assert_int_equal(fwrite(s->x + i * DIMS, sizeof *s->x, DIMS, out), DIMS);
    }
    assert_int_equal(fclose(out), 0);
}

static void open_rows(setting *s, bool uncached)
{
    fkm_err e = {0};
    fkm_shape shape;
    const fkm_format_options o = {0};
    assert_true(fkm_format_fvecs.priv_size <= sizeof s->vecs);
    assert_int_equal(fkm_file_open(&s->file, "rows.fvecs", &e), FKM_OK);
    if (uncached)
        fkm_file_uncached(s->file);
    assert_int_equal(fkm_format_fvecs.open(s->vecs, s->file, &o, &shape, &e), FKM_OK);
    assert_int_equal(shape.rows, ROWS);
}

static fkm_status read_rows(setting *s, int64_t row0, int64_t count, float *to, fkm_err *e)
{
    return fkm_format_fvecs.read(s->vecs, s->file, row0, count, to, s->scratch, e);
}

static void check_rows(setting *s, int64_t row0, int64_t count)
{
    fkm_err e = {0};
    const int64_t place = fkm_format_fvecs.offset(s->vecs, row0) % PAGE;
    for (int other = 0; other < 2; other++) {
        float *to = (float *)(void *)(s->memory + place + 4 * other);
        const size_t bytes = (size_t)(count * DIMS) * sizeof *to;
        memset(to, 0, bytes + sizeof *to);
        assert_int_equal(read_rows(s, row0, count, to, &e), FKM_OK);
        assert_memory_equal(to, s->x + row0 * DIMS, bytes);
        assert_true(to[count * DIMS] == 0);
    }
}

static void same_rows(void **state)
{
    setting *s = *state;
    write_rows(s, -1);
    for (int uncached = 0; uncached < 2; uncached++) {
        open_rows(s, uncached);
        check_rows(s, 0, ROWS);
        check_rows(s, 1, ROWS - 1);
        check_rows(s, 77, 30001);
        check_rows(s, ROWS - 5, 5);
        fkm_file_close(s->file);
    }
}

static void same_complaints(void **state)
{
    setting *s = *state;
    const int64_t bad[] = {1, 87999, ROWS - 1};
    for (int i = 0; i < 3; i++) {
        fkm_err e[2] = {{0}, {0}};
        write_rows(s, bad[i]);
        for (int uncached = 0; uncached < 2; uncached++) {
            open_rows(s, uncached);
            assert_int_equal(
                read_rows(s, 0, ROWS, (float *)(void *)s->memory, &e[uncached]), FKM_EDATA);
            fkm_file_close(s->file);
        }
        char row[40];
        (void)snprintf(row, sizeof row, "row %lld ", (long long)bad[i]);
        assert_non_null(strstr(e[0].msg, row));
        assert_string_equal(e[0].msg, e[1].msg);
    }
}

static int open_setting(void **state)
{
    setting *s = calloc(1, sizeof *s);
    s->x = malloc(sizeof(float) * ROWS * DIMS);
    s->memory = aligned_alloc(PAGE, (sizeof(float) * ROWS * DIMS / PAGE + 3) * PAGE);
    for (int64_t i = 0; i < (int64_t)ROWS * DIMS; i++)
        s->x[i] = (float)(i % 1000003);
    *state = s;
    return 0;
}

static int close_setting(void **state)
{
    setting *s = *state;
    free(s->x);
    free(s->memory);
    free(s);
    return unlink("rows.fvecs");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_rows),
        cmocka_unit_test(same_complaints),
    };
    return cmocka_run_group_tests(tests, open_setting, close_setting);
}
