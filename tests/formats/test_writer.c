/* Every writer: NumPy and h5py must read back what was meant, and so must our reader. */
#include "interop.h"

#include "../../formats/reader.h"
#include "../../formats/writer.h"
#include "../../src/base/crc32c.h"

#include <sys/stat.h>
#include <unistd.h>

/* Element i of every test array, as interop.py's meant(). */
static void fill(void *out, fkm_dtype t, int64_t i)
{
    float f = (float)((double)i * 0.37 - 100);
    double d = (double)i * 0.37 - 100;
    int32_t whole = (int32_t)i;
    uint16_t half = (uint16_t)i, value = (uint16_t)(i % 2048);
    int exponent = 0;
    switch (t) {
    case FKM_F32:
        memcpy(out, &f, 4);
        break;
    case FKM_F64:
        memcpy(out, &d, 8);
        break;
    case FKM_I32:
    case FKM_U32:
        memcpy(out, &whole, 4);
        break;
    case FKM_I64:
    case FKM_U64:
        memcpy(out, &i, 8);
        break;
    case FKM_BF16:
    case FKM_U16:
    case FKM_I16:
        memcpy(out, &half, 2);
        break;
    case FKM_F16: /* an integer below 2048 */
        half = value;
        while (half >> exponent > 1)
            exponent++;
        half = (uint16_t)(value ? (exponent + 15) << 10 | ((value << (10 - exponent)) & 0x3ff) : 0);
        memcpy(out, &half, 2);
        break;
    case FKM_U8:
    case FKM_I8:
        *(uint8_t *)out = (uint8_t)i;
        break;
    case FKM_BOOL:
        *(uint8_t *)out = (uint8_t)(i % 2);
        break;
    case FKM_DTYPE_NONE:
        break;
    }
}

static char *make_array(const fkm_array_spec *spec, int64_t *elements)
{
    size_t size = fkm_dtype_size(spec->dtype);
    *elements = 1;
    for (int i = 0; i < spec->ndim; i++)
        *elements *= spec->dim[i];
    char *x = malloc((size_t)*elements * size + 1);
    for (int64_t i = 0; i < *elements; i++)
        fill(x + (size_t)i * size, spec->dtype, i);
    return x;
}

/* Writes in pieces of `step` elements. */
static void write_array(fkm_writer *w, const fkm_array_spec *spec, int64_t step)
{
    fkm_err e = {0};
    int64_t elements;
    char *x = make_array(spec, &elements);
    assert_ok(fkm_writer_array(w, spec, &e), &e);
    for (int64_t i = 0; i < elements; i += step) {
        int64_t some = elements - i < step ? elements - i : step;
        assert_ok(fkm_writer_write(w, x + (size_t)i * fkm_dtype_size(spec->dtype), some, &e), &e);
    }
    free(x);
}

/* Size and CRC that the writer tells are those of the file. */
static void check_published(const char *path, const fkm_writer *w)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    char bytes[4096];
    size_t got;
    uint32_t crc = 0;
    int64_t total = 0;
    while ((got = fread(bytes, 1, sizeof bytes, f)) > 0) {
        crc = fkm_crc32c(crc, bytes, got);
        total += (int64_t)got;
    }
    fclose(f);
    assert_int_equal(fkm_writer_bytes(w), total);
    assert_int_equal(fkm_writer_crc32c(w), crc);
}

static const int64_t shapes[][3] = {{23}, {5000, 7}, {2, 30000}, {3, 4, 5}, {1, 1}};
static const int ndims[] = {1, 2, 2, 3, 2};
#define SHAPES 5

static void write_file(const char *format, fkm_dtype dtype, int shape, FILE *table)
{
    fkm_err e = {0};
    fkm_writer *w = NULL;
    char path[100], name[60];
    snprintf(path, sizeof path, "w_%d_%s.%s", shape, fkm_dtype_name(dtype), format);
    snprintf(name, sizeof name, "/a_%s_%d", fkm_dtype_name(dtype), ndims[shape]);
    fkm_array_spec spec = {.name = name, .dtype = dtype, .ndim = ndims[shape]};
    memcpy(spec.dim, shapes[shape], sizeof spec.dim);
    assert_ok(fkm_writer_open(&w, path, format, &e), &e);
    assert_int_not_equal(access(path, F_OK), 0);
    write_array(w, &spec, shape % 2 ? 13 : 60000);
    assert_ok(fkm_writer_finish(w, &e), &e);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_ok(fkm_writer_publish(w, &e), &e);
    check_published(path, w);
    int64_t predicted = fkm_writer_predict_bytes(format, &spec, 1);
    assert_true(predicted >= fkm_writer_bytes(w) && predicted <= fkm_writer_bytes(w) + 4096);
    fkm_writer_close(w);
    fprintf(table, "%s\t%s\t%s", path, format, fkm_dtype_name(dtype));
    for (int i = 0; i < spec.ndim; i++)
        fprintf(table, "\t%lld", (long long)spec.dim[i]);
    fprintf(table, "\n");
}

static void test_read_back(void **state)
{
    (void)state;
    static const struct {
        const char *format;
        fkm_dtype dtype[14];
    } all[] = {
        {"npy", {FKM_F32, FKM_F64, FKM_F16, FKM_BF16, FKM_U8, FKM_I8, FKM_I32, FKM_U16, FKM_I16,
                    FKM_U32, FKM_U64, FKM_I64, FKM_BOOL}},
        {"fvecs", {FKM_F32}},
        {"ivecs", {FKM_I32}},
        {"bvecs", {FKM_U8}},
        {"fbin", {FKM_F32}},
        {"ibin", {FKM_I32}},
        {"u8bin", {FKM_U8}},
        {"i8bin", {FKM_I8}},
        {"f16bin", {FKM_F16}},
#if FKM_HAVE_HDF5
        {"h5", {FKM_F32, FKM_F64, FKM_F16, FKM_U8, FKM_I8, FKM_I32, FKM_U16, FKM_I16, FKM_U32,
                   FKM_U64, FKM_I64}},
#endif
    };
    FILE *table = fopen("written.tsv", "w");
    assert_non_null(table);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        for (int t = 0; all[i].dtype[t] != FKM_DTYPE_NONE; t++)
            for (int shape = 0; shape < SHAPES; shape++)
                write_file(all[i].format, all[i].dtype[t], shape, table);
    fclose(table);
    assert_true(interop_run("check"));
}

/* What we write we read: the types that stay as they are in memory, 2-D. */
static void test_own_reader(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        fkm_dtype dtype;
    } all[] = {
        {"w_1_float32.npy", FKM_F32},
        {"w_1_uint8.npy", FKM_U8},
        {"w_1_bfloat16.npy", FKM_BF16},
        {"w_1_float32.fvecs", FKM_F32},
        {"w_2_uint8.bvecs", FKM_U8},
        {"w_2_float32.fbin", FKM_F32},
        {"w_1_int8.i8bin", FKM_I8},
        {"w_1_float16.f16bin", FKM_F16},
#if FKM_HAVE_HDF5
        {"w_1_float32.h5", FKM_F32},
        {"w_2_float16.h5", FKM_F16},
#endif
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        fkm_err e = {0};
        fkm_reader *r = NULL;
        fkm_reader_spec spec = {
            .paths = &all[i].path, .path_count = 1, .row_end = -1, .dtype = all[i].dtype};
        assert_ok(fkm_reader_open(&r, &spec, &e), &e);
        const fkm_shape *s = fkm_reader_shape(r);
        fkm_array_spec array = {.dtype = all[i].dtype, .ndim = 2, .dim = {s->rows, s->dims}};
        int64_t elements;
        char *want = make_array(&array, &elements);
        size_t bytes = (size_t)elements * fkm_dtype_size(all[i].dtype);
        char *got = malloc(bytes);
        assert_ok(fkm_reader_read(r, 0, s->rows, got, &e), &e);
        assert_memory_equal(got, want, bytes);
        free(got);
        free(want);
        fkm_reader_close(r);
    }
}

#if FKM_HAVE_HDF5
/* One .h5 with /centroids and /labels, and the same bytes for the same arrays. */
static void write_two(const char *path, fkm_err *e)
{
    fkm_writer *w = NULL;
    fkm_array_spec centroids = {.name = "/centroids", .dtype = FKM_F32, .ndim = 2, .dim = {10, 4}};
    fkm_array_spec labels = {.name = "/labels", .dtype = FKM_I32, .ndim = 1, .dim = {1000}};
    assert_ok(fkm_writer_open(&w, path, "h5", e), e);
    write_array(w, &centroids, 7);
    write_array(w, &labels, 333);
    assert_ok(fkm_writer_finish(w, e), e);
    assert_ok(fkm_writer_publish(w, e), e);
    check_published(path, w);
    fkm_writer_close(w);
}

static void test_two_arrays(void **state)
{
    (void)state;
    fkm_err e = {0};
    write_two("two.h5", &e);
    write_two("same.h5", &e);
    assert_int_equal(system("cmp two.h5 same.h5"), 0);
    if (!interop_h5py)
        skip();
    const char *python = getenv("PYTHON");
    char line[1000];
    snprintf(line, sizeof line,
        "'%s' -c \"import h5py, numpy as np; f = h5py.File('two.h5'); "
        "assert (f['labels'][()] == np.arange(1000)).all() and f['labels'].dtype == '<i4'; "
        "assert h5py.h5g.get_objinfo(f.id, b'labels').mtime == 0; "
        "assert (f['centroids'][()] == (np.arange(40) * .37 - 100).astype('f4').reshape(10, 4))"
        ".all()\"",
        python ? python : "/usr/bin/python3");
    assert_int_equal(system(line), 0);
}
#endif

static void refused(fkm_writer *w, const fkm_array_spec *spec, fkm_status want, const char *words)
{
    fkm_err e = {0};
    assert_int_equal(fkm_writer_array(w, spec, &e), want);
    if (!strstr(e.msg, words))
        fail_msg("'%s' lacks '%s'", e.msg, words);
}

static void test_refusals(void **state)
{
    (void)state;
    fkm_err e = {0};
    fkm_writer *w = NULL;
    assert_int_equal(fkm_writer_open(&w, "x.abc", "abc", &e), FKM_EUSAGE);
    assert_non_null(strstr(e.msg, "no output format 'abc'"));
    assert_non_null(strstr(e.hint, "npy"));
    assert_int_equal(fkm_writer_open(&w, "missing/x.npy", "npy", &e), FKM_EFILE);
    assert_non_null(strstr(e.msg, "missing/x.npy: cannot write in missing"));

    assert_ok(fkm_writer_open(&w, "x.fvecs", "fvecs", &e), &e);
    fkm_array_spec spec = {.dtype = FKM_I32, .ndim = 2, .dim = {2, 2}};
    refused(w, &spec, FKM_EUSAGE, "x.fvecs: fvecs holds float32, not int32");
    spec = (fkm_array_spec){.dtype = FKM_F32, .ndim = 2, .dim = {1, INT64_C(1) << 31}};
    refused(w, &spec, FKM_EUSAGE, "fvecs cannot hold 1 x 2147483648 x 1 elements");
    spec = (fkm_array_spec){.dtype = FKM_F32, .ndim = 2, .dim = {5, 0}};
    refused(w, &spec, FKM_EUSAGE, "rows of no elements");
    fkm_writer_close(w);

    assert_ok(fkm_writer_open(&w, "x.fbin", "fbin", &e), &e);
    spec = (fkm_array_spec){.dtype = FKM_F32, .ndim = 2, .dim = {INT64_C(1) << 32, 1}};
    refused(w, &spec, FKM_EUSAGE, "fbin cannot hold");
    fkm_writer_close(w);

    assert_ok(fkm_writer_open(&w, "x.npy", "npy", &e), &e);
    spec = (fkm_array_spec){.dtype = FKM_F32, .ndim = 2, .dim = {INT64_C(1) << 40, 1 << 30}};
    refused(w, &spec, FKM_EUSAGE, "npy cannot hold");
    spec = (fkm_array_spec){.dtype = FKM_F32, .ndim = 1, .dim = {3}};
    float x[4] = {1, 2, 3, 4};
    assert_ok(fkm_writer_array(w, &spec, &e), &e);
    refused(w, &spec, FKM_EBUG, "before the last one is complete");
    assert_int_equal(fkm_writer_write(w, x, 4, &e), FKM_EBUG);
    assert_int_equal(fkm_writer_finish(w, &e), FKM_EBUG);
    assert_int_equal(fkm_writer_publish(w, &e), FKM_EBUG);
    assert_ok(fkm_writer_write(w, x, 3, &e), &e);
    refused(w, &spec, FKM_EUSAGE, "npy holds one array, not several");
    fkm_writer_close(w);
    assert_int_not_equal(access("x.npy", F_OK), 0);
    assert_int_equal(system("test -z \"$(find . -name '.*.tmp.*')\""), 0);
}

#if !FKM_HAVE_HDF5
static void test_without_hdf5(void **state)
{
    (void)state;
    fkm_err e = {0};
    fkm_writer *w = NULL;
    assert_int_equal(fkm_writer_open(&w, "x.h5", "h5", &e), FKM_EUSAGE);
    assert_non_null(strstr(e.msg, "built without HDF5"));
}
#endif

int main(void)
{
    if (!interop_available())
        return INTEROP_SKIP;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_back),
        cmocka_unit_test(test_own_reader),
        cmocka_unit_test(test_refusals),
#if FKM_HAVE_HDF5
        cmocka_unit_test(test_two_arrays),
#else
        cmocka_unit_test(test_without_hdf5),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
