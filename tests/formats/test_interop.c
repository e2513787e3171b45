/* Every format as others write it: rows must be in memory what interop.py says. */
#include "interop.h"

#include "../../formats/reader.h"
#include "../../src/base/mem.h"

static void *slurp(const char *path, size_t *bytes)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("%s is not there", path);
    fseek(f, 0, SEEK_END);
    *bytes = (size_t)ftell(f);
    rewind(f);
    void *p = malloc(*bytes + 1);
    assert_int_equal(fread(p, 1, *bytes, f), *bytes);
    fclose(f);
    return p;
}

static const char *or_null(const char *column)
{
    return strcmp(column, "-") ? column : NULL;
}

static fkm_reader *open_one(const char *name, const char *dataset, const char *dtype)
{
    fkm_err e = {0};
    fkm_reader *r = NULL;
    fkm_reader_spec spec = {.paths = &name,
        .path_count = 1,
        .dataset = or_null(dataset),
        .dtype = fkm_dtype_parse(dtype),
        .row_end = -1};
    assert_ok(fkm_reader_open(&r, &spec, &e), &e);
    return r;
}

/* Reads everything in pieces of `step` rows, into a buffer with guard bytes. */
static void compare(fkm_reader *r, const char *what, const char *want, size_t bytes, int64_t step)
{
    fkm_err e = {0};
    const fkm_shape *s = fkm_reader_shape(r);
    size_t row = (size_t)s->dims * fkm_dtype_size(s->dtype);
    int64_t rows = s->batch * s->rows;
    assert_int_equal((size_t)rows * row, bytes);
    char *got = malloc(bytes + 16);
    memset(got, 0x5a, bytes + 16);
    for (int64_t i = 0; i < rows; i += step) {
        int64_t some = rows - i < step ? rows - i : step;
        assert_ok(fkm_reader_read(r, i, some, got + (size_t)i * row, &e), &e);
    }
    for (size_t i = 0; i < bytes; i++)
        if (got[i] != want[i])
            fail_msg("%s: byte %zu of row %zu is %d, not %d (pieces of %lld rows)", what, i % row,
                i / row, got[i], want[i], (long long)step);
    for (size_t i = 0; i < 16; i++)
        assert_int_equal(got[bytes + i], 0x5a);
    free(got);
}

static void check_row(char *column[INTEROP_COLUMNS])
{
    char raw[300], flat[100];
    snprintf(flat, sizeof flat, "%s", column[1]);
    for (char *c = flat; *c; c++)
        *c = *c == '/' ? '_' : *c;
    snprintf(raw, sizeof raw, "%s.%s.raw", column[0], flat);
    size_t bytes;
    char *want = slurp(raw, &bytes);
    fkm_reader *r = open_one(column[0], column[1], column[2]);
    const fkm_input *in = fkm_reader_input(r, 0);
    const fkm_shape *s = fkm_reader_shape(r);
    assert_string_equal(in->format, column[3]);
    assert_string_equal(in->dataset ? in->dataset : "-", column[4]);
    assert_string_equal(fkm_dtype_name(in->dtype), column[5]);
    assert_string_equal(fkm_dtype_name(s->dtype), column[6]);
    assert_int_equal(s->ndim, atoi(column[7]));
    assert_int_equal(s->batch, atoll(column[8]));
    assert_int_equal(s->rows, atoll(column[9]));
    assert_int_equal(s->dims, atoll(column[10]));
    assert_int_equal(in->rows, s->batch * s->rows);
    compare(r, column[0], want, bytes, INT64_MAX / 2);
    compare(r, column[0], want, bytes, s->rows > 1000 ? 997 : 7);
    if (s->rows <= 300)
        compare(r, column[0], want, bytes, 1);
    fkm_reader_close(r);
    free(want);
}

static void test_read_all(void **state)
{
    (void)state;
    char line[2000], *column[INTEROP_COLUMNS];
    FILE *table = fopen("read.tsv", "r");
    assert_non_null(table);
    int rows = 0;
    while (interop_row(table, line, sizeof line, column)) {
        rows++;
        if (interop_readable(column[0]))
            check_row(column);
    }
    fclose(table);
    assert_true(rows > 70);
}

/* Three files of three formats and three element types that are float32 in memory. */
static const char *const several[] = {
    "a_f4_le_c.npy", "v_237_19.ivecs", "b_237_19.fbin", "a_f8_be_f.npy"};

static char *join_raw(size_t *bytes)
{
    char *all = NULL;
    *bytes = 0;
    for (int i = 0; i < 4; i++) {
        char raw[100];
        size_t some;
        snprintf(raw, sizeof raw, "%s.-.raw", several[i]);
        char *part = slurp(raw, &some);
        all = realloc(all, *bytes + some);
        memcpy(all + *bytes, part, some);
        *bytes += some;
        free(part);
    }
    return all;
}

static void test_several_files(void **state)
{
    (void)state;
    fkm_err e = {0};
    fkm_reader *r = NULL;
    fkm_reader_spec spec = {.paths = several, .path_count = 4, .row_end = -1};
    assert_ok(fkm_reader_open(&r, &spec, &e), &e);
    size_t bytes;
    char *want = join_raw(&bytes), name[100];
    assert_int_equal(fkm_reader_shape(r)->rows, 4 * 237);
    assert_int_equal(fkm_reader_input_count(r), 4);
    compare(r, "several", want, bytes, INT64_MAX / 2);
    compare(r, "several", want, bytes, 100);
    compare(r, "several", want, bytes, 1);
    assert_string_equal(fkm_reader_row_name(r, 236, name, sizeof name), "a_f4_le_c.npy: row 236");
    assert_string_equal(fkm_reader_row_name(r, 237, name, sizeof name), "v_237_19.ivecs: row 0");
    assert_string_equal(fkm_reader_row_name(r, 947, name, sizeof name), "a_f8_be_f.npy: row 236");
    assert_ok(fkm_reader_unchanged(r, &e), &e);
    fkm_reader_close(r);

    spec.row_begin = 200;
    spec.row_end = 700;
    assert_ok(fkm_reader_open(&r, &spec, &e), &e);
    assert_int_equal(fkm_reader_shape(r)->rows, 500);
    compare(r, "range", want + 200 * 19 * 4, 500 * 19 * 4, 90);
    assert_string_equal(fkm_reader_row_name(r, 0, name, sizeof name), "a_f4_le_c.npy: row 200");
    assert_string_equal(fkm_reader_row_name(r, 37, name, sizeof name), "v_237_19.ivecs: row 0");
    fkm_reader_close(r);
    free(want);
}

static void test_batch(void **state)
{
    (void)state;
    fkm_err e = {0};
    char name[100];
    fkm_reader *r = open_one("batch.npy", "-", "-");
    assert_int_equal(fkm_reader_shape(r)->batch, 3);
    assert_int_equal(fkm_reader_shape(r)->rows, 4);
    assert_string_equal(
        fkm_reader_row_name(r, 9, name, sizeof name), "batch.npy: problem 2, row 1");
    fkm_reader_close(r);
    const char *path = "batch.npy";
    fkm_reader_spec spec = {.paths = &path, .path_count = 1, .row_begin = 1, .row_end = 3};
    assert_int_equal(fkm_reader_open(&r, &spec, &e), FKM_EUSAGE);
    assert_non_null(strstr(e.msg, "batch of 3 problems"));
}

static void refused(const char *const *paths, int count, int64_t begin, int64_t end,
    fkm_status want, const char *words)
{
    fkm_err e = {0};
    fkm_reader *r = NULL;
    fkm_reader_spec spec = {
        .paths = paths, .path_count = count, .row_begin = begin, .row_end = end};
    assert_int_equal(fkm_reader_open(&r, &spec, &e), want);
    if (!strstr(e.msg, words))
        fail_msg("'%s' lacks '%s'", e.msg, words);
    assert_true(e.hint[0] != '\0');
}

/* Of 20 rows 7 are there, and a part of the next: --rows takes what is there, and no more. */
static void test_partial(void **state)
{
    (void)state;
    static const char *const names[] = {
        "part_p.npy", "part_p.fvecs", "part_p.fbin", "part_p.safetensors"};
    for (int i = 0; i < 4; i++) {
        char raw[100];
        size_t bytes;
        fkm_err e = {0};
        fkm_reader *r = NULL;
        snprintf(raw, sizeof raw, "%s.-.raw", names[i] + strlen("part_"));
        char *want = slurp(raw, &bytes);
        refused(&names[i], 1, 0, -1, FKM_EDATA, names[i]);
        refused(&names[i], 1, 2, 8, FKM_EDATA, names[i]);
        const char *two[] = {"p.fbin", names[i]};
        fkm_reader_spec spec = {.paths = &names[i], .path_count = 1, .row_begin = 2, .row_end = 7};
        assert_ok(fkm_reader_open(&r, &spec, &e), &e);
        compare(r, names[i], want + (size_t)2 * 5 * 4, (size_t)5 * 5 * 4, 2);
        fkm_reader_close(r);
        spec = (fkm_reader_spec){.paths = two, .path_count = 2, .row_begin = 18, .row_end = 27};
        assert_ok(fkm_reader_open(&r, &spec, &e), &e);
        assert_int_equal(fkm_reader_shape(r)->rows, 9);
        fkm_reader_close(r);
        refused(two, 2, 18, 28, FKM_EDATA, names[i]);
        free(want);
    }
}

static void test_disagreement(void **state)
{
    (void)state;
    const char *dims[] = {"a_f4_le_c.npy", "version1.npy"};
    refused(
        dims, 2, 0, -1, FKM_EDATA, "version1.npy: has rows of dimension 3, a_f4_le_c.npy of 19");
    const char *types[] = {"a_f4_le_c.npy", "a_u1_le_c.npy"};
    refused(types, 2, 0, -1, FKM_EDATA, "a_u1_le_c.npy: holds uint8, a_f4_le_c.npy holds float32");
    const char *batch[] = {"batch.npy", "shape_5_1_f8_1.npy"};
    refused(batch, 2, 0, -1, FKM_EDATA, "batch.npy: is a batch of 3 problems, one of 2 files");
    const char *late[] = {"shape_5_1_f8_1.npy", "batch.npy"};
    refused(late, 2, 0, -1, FKM_EDATA, "batch.npy: is a batch");
    refused(several, 4, 0, 949, FKM_EUSAGE, "--rows 0:949: the data has rows 0:948");
    refused(several, 4, 5, 5, FKM_EUSAGE, "--rows 5:5");
    refused(several, 4, 948, -1, FKM_EUSAGE, "--rows 948:948");
    refused(several, 4, -1, 5, FKM_EUSAGE, "--rows -1:5");
}

static void test_outside(void **state)
{
    (void)state;
    fkm_err e = {0};
    float row[19];
    fkm_reader *r = open_one("a_f4_le_c.npy", "-", "-");
    assert_int_equal(fkm_reader_read(r, 237, 1, row, &e), FKM_EBUG);
    assert_int_equal(fkm_reader_read(r, -1, 1, row, &e), FKM_EBUG);
    assert_int_equal(fkm_reader_read(r, 236, INT64_MAX, row, &e), FKM_EBUG);
    assert_ok(fkm_reader_read(r, 237, 0, row, &e), &e);
    fkm_reader_close(r);
}

static void test_costs(void **state)
{
    (void)state;
    fkm_reader *r = open_one("v_237_19.fvecs", "-", "-");
    assert_int_equal(fkm_reader_row_bytes(r), 4 + 19 * 4);
    assert_int_equal(fkm_reader_heap_bytes(r), FKM_SCRATCH_BYTES);
    fkm_reader_close(r);
    r = open_one("a_f8_le_c.npy", "-", "-");
    assert_int_equal(fkm_reader_row_bytes(r), 19 * 8);
    fkm_reader_close(r);
}

int main(void)
{
    if (!interop_available())
        return INTEROP_SKIP;
    if (!interop_run("write"))
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_all),
        cmocka_unit_test(test_several_files),
        cmocka_unit_test(test_batch),
        cmocka_unit_test(test_partial),
        cmocka_unit_test(test_disagreement),
        cmocka_unit_test(test_outside),
        cmocka_unit_test(test_costs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
