/* Damaged and evil files: each is refused with its status, its words and, where it says so, its
 * hint. */
#include "interop.h"

#include "../../formats/reader.h"

#include <unistd.h>

/* Opens and reads everything; the status is that of the first failure. */
static fkm_status read_through(const char *path, const char *dataset, const char *dtype, fkm_err *e)
{
    fkm_reader *r = NULL;
    fkm_reader_spec spec = {.paths = &path,
        .path_count = 1,
        .dataset = strcmp(dataset, "-") ? dataset : NULL,
        .dtype = fkm_dtype_parse(dtype),
        .row_end = -1};
    fkm_status st = fkm_reader_open(&r, &spec, e);
    if (st != FKM_OK)
        return st;
    const fkm_shape *s = fkm_reader_shape(r);
    int64_t rows = s->batch * s->rows;
    size_t bytes = (size_t)rows * (size_t)s->dims * fkm_dtype_size(s->dtype);
    assert_true(bytes < 100u << 20);
    void *x = malloc(bytes);
    st = fkm_reader_read(r, 0, rows, x, e);
    free(x);
    fkm_reader_close(r);
    return st;
}

static void test_hostile_files(void **state)
{
    (void)state;
    char line[2000], *column[INTEROP_COLUMNS];
    FILE *table = fopen("hostile.tsv", "r");
    assert_non_null(table);
    int rows = 0, wrong = 0;
    while (interop_row(table, line, sizeof line, column)) {
        rows++;
        if (!interop_readable(column[0]))
            continue;
        fkm_err e = {0};
        fkm_status want = !strcmp(column[3], "usage") ? FKM_EUSAGE : FKM_EDATA;
        fkm_status st = read_through(column[0], column[1], column[2], &e);
        bool named = !strncmp(e.msg, column[0], strlen(column[0]));
        bool hinted = !strcmp(column[5], "-") || strstr(e.hint, column[5]);
        if (st == want && e.code == st && strstr(e.msg, column[4]) && named && hinted &&
            e.msg[strlen(e.msg) - 1] != '.')
            continue;
        wrong++;
        printf("%s: status %d, '%s', hint '%s'; expected %d, '%s', hint '%s'\n", column[0], st,
            e.msg, e.hint, want, column[4], column[5]);
    }
    fclose(table);
    assert_true(rows > 80);
    assert_int_equal(wrong, 0);
}

static void test_hdf5_by_name(void **state)
{
    (void)state;
    fkm_err e = {0};
    FILE *f = fopen("signature.xyz", "wb");
    fwrite("\x89HDF\r\n\x1a\nmore", 1, 12, f);
    fclose(f);
    fkm_status want = FKM_HAVE_HDF5 ? FKM_EDATA : FKM_EUSAGE;
    assert_int_equal(read_through("signature.xyz", "-", "-", &e), want);
    assert_non_null(strstr(e.msg, FKM_HAVE_HDF5 ? "cannot open as HDF5" : "built without HDF5"));
    f = fopen("text.h5", "wb");
    fwrite("no signature", 1, 12, f);
    fclose(f);
    assert_int_equal(read_through("text.h5", "-", "-", &e), want);
    f = fopen("row.h5", "wb"); /* content that is certain goes before the suffix */
    fwrite("\2\0\0\0abcdefgh\2\0\0\0abcdefgh", 1, 24, f);
    fclose(f);
    assert_int_equal(read_through("row.h5", "-", "-", &e), FKM_OK);
}

#if FKM_HAVE_HDF5
static void test_hdf5_from_a_pipe(void **state)
{
    (void)state;
    fkm_err e = {0};
    if (!interop_h5py)
        skip(); /* target.h5 is not there */
    assert_int_equal(system("mkfifo pipe && (cat target.h5 > pipe &)"), 0);
    assert_int_equal(read_through("pipe", "-", "-", &e), FKM_EUSAGE);
    assert_non_null(strstr(e.msg, "pipe: HDF5 cannot be read from a pipe"));
}
#endif

/* A file that loses its end while it is being read. */
static void test_truncated_later(void **state)
{
    (void)state;
    fkm_err e = {0};
    FILE *f = fopen("later.fbin", "wb");
    uint32_t head[2] = {100, 10};
    float zero[1000] = {0};
    fwrite(head, 4, 2, f);
    fwrite(zero, 4, 1000, f);
    fclose(f);
    const char *path = "later.fbin";
    fkm_reader *r = NULL;
    fkm_reader_spec spec = {.paths = &path, .path_count = 1, .row_end = -1};
    assert_ok(fkm_reader_open(&r, &spec, &e), &e);
    assert_int_equal(truncate(path, 2000), 0);
    assert_int_equal(fkm_reader_read(r, 0, 100, zero, &e), FKM_EDATA);
    assert_non_null(strstr(e.msg, "shorter than when it was opened: ends at byte 2000"));
    assert_int_equal(fkm_reader_unchanged(r, &e), FKM_EDATA);
    assert_non_null(strstr(e.msg, "it had 4008 bytes, now 2000"));
    fkm_reader_close(r);
}

int main(void)
{
    if (!interop_available())
        return INTEROP_SKIP;
    if (!interop_run("hostile"))
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hostile_files),
        cmocka_unit_test(test_hdf5_by_name),
        cmocka_unit_test(test_truncated_later),
#if FKM_HAVE_HDF5
        cmocka_unit_test(test_hdf5_from_a_pipe),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
