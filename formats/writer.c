/* Arrays into files: see writer.h. */
#include "writer.h"

#include "../src/base/checked.h"
#include "../src/base/file.h"
#include "../src/base/mem.h"
#if FKM_HAVE_HDF5
#include "h5write.h"
#endif

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* ---- the formats that can be written ---- */

struct fkm_writer {
    const struct output_format *format;
    fkm_outfile *file;
    int arrays;
    int64_t rows, row_elements; /* the array as a matrix */
    int64_t elements, done;     /* done: elements written so far */
    size_t element_bytes;
    struct fkm_h5_out *h5;
    int64_t offset; /* h5: of the current array's first byte */
};

typedef struct output_format {
    const char *name;
    fkm_dtype dtype;           /* the only one it holds; NONE: any */
    int64_t max_rows, max_row; /* what its header has room for: rows, elements of a row */
    int64_t (*bytes)(int64_t rows, int64_t row_elements, size_t size); /* for predictions */
    fkm_status (*begin)(fkm_writer *w, const fkm_array_spec *spec, fkm_err *e);
    fkm_status (*write)(fkm_writer *w, const char *elements, int64_t count, fkm_err *e);
} output_format;

/* ---- npy ---- */

#define NPY_MAX_HEADER 256

static int64_t npy_bytes(int64_t rows, int64_t row_elements, size_t size)
{
    return fkm_add_sat(128, fkm_mul_sat(fkm_mul_sat(rows, row_elements), (int64_t)size));
}

static const char *npy_descr(fkm_dtype t)
{
    switch (t) {
    case FKM_F32:
        return "<f4";
    case FKM_F64:
        return "<f8";
    case FKM_F16:
        return "<f2";
    case FKM_BF16:
        return "<V2"; /* NumPy has no such type; ml_dtypes writes it so */
    case FKM_U8:
        return "|u1";
    case FKM_I8:
        return "|i1";
    case FKM_U16:
        return "<u2";
    case FKM_I16:
        return "<i2";
    case FKM_U32:
        return "<u4";
    case FKM_I32:
        return "<i4";
    case FKM_U64:
        return "<u8";
    case FKM_I64:
        return "<i8";
    case FKM_BOOL:
        return "|b1";
    case FKM_DTYPE_NONE:
        break;
    }
    return "";
}

/* Version 1.0, padded to 64 bytes as numpy.save does. */
static fkm_status npy_begin(fkm_writer *w, const fkm_array_spec *spec, fkm_err *e)
{
    char head[NPY_MAX_HEADER], shape[80];
    size_t used = 0;
    for (int i = 0; i < spec->ndim; i++)
        used += (size_t)snprintf(
            shape + used, sizeof shape - used, "%s%lld", i ? ", " : "", (long long)spec->dim[i]);
    int text = snprintf(head + 10, sizeof head - 10,
        "{'descr': '%s', 'fortran_order': False, 'shape': (%s%s), }", npy_descr(spec->dtype), shape,
        spec->ndim == 1 ? "," : "");
    size_t total = (size_t)fkm_round_up(10 + text + 1, 64);
    memset(head + 10 + text, ' ', total - 10 - (size_t)text);
    head[total - 1] = '\n';
    memcpy(head, "\x93NUMPY\x01", 8); /* the terminating zero is the minor version */
    head[8] = (char)(total - 10);
    head[9] = (char)((total - 10) >> 8);
    return fkm_outfile_write(w->file, head, total, e);
}

static fkm_status plain_write(fkm_writer *w, const char *elements, int64_t count, fkm_err *e)
{
    return fkm_outfile_write(w->file, elements, (size_t)count * w->element_bytes, e);
}

/* ---- fvecs, ivecs, bvecs ---- */

static int64_t vecs_bytes(int64_t rows, int64_t row_elements, size_t size)
{
    return fkm_mul_sat(rows, fkm_add_sat(4, fkm_mul_sat(row_elements, (int64_t)size)));
}

static fkm_status vecs_begin(fkm_writer *w, const fkm_array_spec *spec, fkm_err *e)
{
    if (w->row_elements > 0)
        return FKM_OK;
    fkm_fail(e, FKM_EUSAGE, "%s: %s cannot hold rows of no elements", fkm_outfile_path(w->file),
        w->format->name);
    (void)spec;
    return fkm_hint(e, "npy can");
}

/* Rows are put together here: most are too short to be worth a call each. */
typedef struct block {
    size_t used;
    char bytes[16384];
} block;

static fkm_status put(fkm_writer *w, block *b, const void *data, size_t len, fkm_err *e)
{
    if (b->used + len > sizeof b->bytes) {
        FKM_TRY(fkm_outfile_write(w->file, b->bytes, b->used, e));
        b->used = 0;
    }
    if (len > sizeof b->bytes)
        return fkm_outfile_write(w->file, data, len, e);
    memcpy(b->bytes + b->used, data, len);
    b->used += len;
    return FKM_OK;
}

static fkm_status vecs_write(fkm_writer *w, const char *elements, int64_t count, fkm_err *e)
{
    block b;
    b.used = 0;
    const uint32_t dims = (uint32_t)w->row_elements;
    int64_t column = w->done % w->row_elements;
    while (count > 0) {
        int64_t some = fkm_min_i64(count, w->row_elements - column);
        size_t len = (size_t)some * w->element_bytes;
        if (column == 0)
            FKM_TRY(put(w, &b, &dims, sizeof dims, e));
        FKM_TRY(put(w, &b, elements, len, e));
        elements += len;
        count -= some;
        column = 0;
    }
    return fkm_outfile_write(w->file, b.bytes, b.used, e);
}

/* ---- fbin and its kin ---- */

static int64_t bin_bytes(int64_t rows, int64_t row_elements, size_t size)
{
    return fkm_add_sat(8, fkm_mul_sat(fkm_mul_sat(rows, row_elements), (int64_t)size));
}

static fkm_status bin_begin(fkm_writer *w, const fkm_array_spec *spec, fkm_err *e)
{
    (void)spec;
    const uint32_t head[2] = {(uint32_t)w->rows, (uint32_t)w->row_elements};
    return fkm_outfile_write(w->file, head, sizeof head, e);
}

/* ---- h5 ---- */

#if FKM_HAVE_HDF5
static int64_t h5_bytes(int64_t rows, int64_t row_elements, size_t size)
{
    return fkm_add_sat(4096, fkm_mul_sat(fkm_mul_sat(rows, row_elements), (int64_t)size));
}

static fkm_status h5_begin(fkm_writer *w, const fkm_array_spec *spec, fkm_err *e)
{
    if (!w->h5)
        FKM_TRY(
            fkm_h5_create(&w->h5, fkm_outfile_temporary(w->file), fkm_outfile_path(w->file), e));
    FKM_TRY(fkm_h5_array(w->h5, spec, &w->offset, e));
    return fkm_outfile_adopt(w->file, e);
}

static fkm_status h5_write(fkm_writer *w, const char *elements, int64_t count, fkm_err *e)
{
    int64_t size = (int64_t)w->element_bytes;
    return fkm_outfile_patch(
        w->file, w->offset + w->done * size, elements, (size_t)(count * size), e);
}
#endif

/* ---- the table ---- */

// clang-format off
static const output_format formats[] = {
    {"npy",    FKM_DTYPE_NONE, INT64_MAX,  INT64_MAX,  npy_bytes,  npy_begin,  plain_write},
    {"fvecs",  FKM_F32,        INT64_MAX,  INT32_MAX,  vecs_bytes, vecs_begin, vecs_write},
    {"ivecs",  FKM_I32,        INT64_MAX,  INT32_MAX,  vecs_bytes, vecs_begin, vecs_write},
    {"bvecs",  FKM_U8,         INT64_MAX,  INT32_MAX,  vecs_bytes, vecs_begin, vecs_write},
    {"fbin",   FKM_F32,        UINT32_MAX, UINT32_MAX, bin_bytes,  bin_begin,  plain_write},
    {"ibin",   FKM_I32,        UINT32_MAX, UINT32_MAX, bin_bytes,  bin_begin,  plain_write},
    {"u8bin",  FKM_U8,         UINT32_MAX, UINT32_MAX, bin_bytes,  bin_begin,  plain_write},
    {"i8bin",  FKM_I8,         UINT32_MAX, UINT32_MAX, bin_bytes,  bin_begin,  plain_write},
    {"f16bin", FKM_F16,        UINT32_MAX, UINT32_MAX, bin_bytes,  bin_begin,  plain_write},
#if FKM_HAVE_HDF5
    {"h5",     FKM_DTYPE_NONE, INT64_MAX,  INT64_MAX,  h5_bytes,   h5_begin,   h5_write},
#endif
};
// clang-format on

#define FORMAT_COUNT (sizeof formats / sizeof formats[0])

static const output_format *find_format(const char *name)
{
    for (size_t i = 0; i < FORMAT_COUNT; i++)
        if (!strcmp(formats[i].name, name))
            return &formats[i];
    return NULL;
}

static fkm_status unknown_format(const char *name, fkm_err *e)
{
    if (!strcmp(name, "h5")) {
        fkm_fail(e, FKM_EUSAGE, "cannot write h5: this fkm was built without HDF5");
        return fkm_hint(e, "install libhdf5-dev and zlib1g-dev and build again, or choose npy");
    }
    char list[120] = "";
    size_t used = 0;
    for (size_t i = 0; i < FORMAT_COUNT; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, " %s", formats[i].name);
    fkm_fail(e, FKM_EUSAGE, "there is no output format '%s'", name);
    return fkm_hint(e, "known:%s", list);
}

/* ---- the steps ---- */

fkm_status fkm_writer_open(fkm_writer **out, const char *path, const char *format, fkm_err *e)
{
    const output_format *kind = find_format(format);
    if (!kind)
        return unknown_format(format, e);
    fkm_writer *w = NULL;
    FKM_TRY(fkm_calloc(&w, 1, sizeof *w, "a writer", e));
    w->format = kind;
    fkm_status st = fkm_outfile_create(&w->file, path, e);
    if (st == FKM_OK)
        *out = w;
    else
        fkm_writer_close(w);
    return st;
}

/* The array as a matrix: ndim 1 is rows of one element, ndim 3 its flattened rows. False: too
 * large. */
static bool flatten(const fkm_array_spec *spec, int64_t *rows, int64_t *row_elements)
{
    *rows = spec->dim[0];
    *row_elements = spec->ndim == 1 ? 1 : spec->dim[spec->ndim - 1];
    int64_t elements, bytes;
    return (spec->ndim < 3 || fkm_mul_i64(rows, *rows, spec->dim[1])) &&
           fkm_mul_i64(&elements, *rows, *row_elements) &&
           fkm_mul_i64(&bytes, elements, (int64_t)fkm_dtype_size(spec->dtype));
}

static fkm_status check_spec(fkm_writer *w, const fkm_array_spec *spec, fkm_err *e)
{
    const char *path = fkm_outfile_path(w->file);
    for (int i = 0; i < spec->ndim; i++)
        if (spec->dim[i] < 0)
            return fkm_fail(e, FKM_EBUG, "%s: length %d of an array is negative", path, i);
    if (spec->ndim < 1 || spec->ndim > 3 || fkm_dtype_size(spec->dtype) == 0)
        return fkm_fail(e, FKM_EBUG, "%s: an array of %d dimensions of %s", path, spec->ndim,
            fkm_dtype_name(spec->dtype));
    if (!flatten(spec, &w->rows, &w->row_elements) || w->rows > w->format->max_rows ||
        w->row_elements > w->format->max_row) {
        fkm_fail(e, FKM_EUSAGE, "%s: %s cannot hold %lld x %lld x %lld elements", path,
            w->format->name, (long long)spec->dim[0],
            spec->ndim > 1 ? (long long)spec->dim[1] : 1LL,
            spec->ndim > 2 ? (long long)spec->dim[2] : 1LL);
        return fkm_hint(e, "npy can");
    }
    if (w->format->dtype != FKM_DTYPE_NONE && w->format->dtype != spec->dtype) {
        fkm_fail(e, FKM_EUSAGE, "%s: %s holds %s, not %s", path, w->format->name,
            fkm_dtype_name(w->format->dtype), fkm_dtype_name(spec->dtype));
        return fkm_hint(e, "npy holds every type");
    }
    return FKM_OK;
}

fkm_status fkm_writer_array(fkm_writer *w, const fkm_array_spec *spec, fkm_err *e)
{
    if (w->done != w->elements)
        return fkm_fail(e, FKM_EBUG, "%s: a new array before the last one is complete",
            fkm_outfile_path(w->file));
    if (w->arrays > 0 && strcmp(w->format->name, "h5") != 0) {
        fkm_fail(e, FKM_EUSAGE, "%s: %s holds one array, not several", fkm_outfile_path(w->file),
            w->format->name);
        return fkm_hint(e, "h5 holds several");
    }
    FKM_TRY(check_spec(w, spec, e));
    w->arrays++;
    w->element_bytes = fkm_dtype_size(spec->dtype);
    w->elements = w->rows * w->row_elements;
    w->done = 0;
    return w->format->begin(w, spec, e);
}

fkm_status fkm_writer_write(fkm_writer *w, const void *elements, int64_t count, fkm_err *e)
{
    if (count < 0 || count > w->elements - w->done)
        return fkm_fail(e, FKM_EBUG, "%s: %lld elements more, after %lld of %lld",
            fkm_outfile_path(w->file), (long long)count, (long long)w->done,
            (long long)w->elements);
    if (count == 0)
        return FKM_OK;
    FKM_TRY(w->format->write(w, elements, count, e));
    w->done += count;
    return FKM_OK;
}

fkm_status fkm_writer_finish(fkm_writer *w, fkm_err *e)
{
    if (w->arrays == 0 || w->done != w->elements)
        return fkm_fail(e, FKM_EBUG, "%s: finished after %lld of %lld elements",
            fkm_outfile_path(w->file), (long long)w->done, (long long)w->elements);
#if FKM_HAVE_HDF5
    if (w->h5) {
        FKM_TRY(fkm_h5_finish(w->h5, e));
        FKM_TRY(fkm_outfile_adopt(w->file, e));
    }
#endif
    return fkm_outfile_finish(w->file, e);
}

fkm_status fkm_writer_publish(fkm_writer *w, fkm_err *e)
{
    return fkm_outfile_publish(w->file, e);
}

int64_t fkm_writer_bytes(const fkm_writer *w)
{
    return fkm_outfile_bytes(w->file);
}

uint32_t fkm_writer_crc32c(const fkm_writer *w)
{
    return fkm_outfile_crc32c(w->file);
}

int64_t fkm_writer_predict_bytes(const char *format, const fkm_array_spec *specs, int count)
{
    const output_format *kind = find_format(format);
    int64_t total = 0;
    for (int i = 0; kind && i < count; i++) {
        int64_t rows, row_elements;
        if (!flatten(&specs[i], &rows, &row_elements))
            return INT64_MAX;
        total = fkm_add_sat(total, kind->bytes(rows, row_elements, fkm_dtype_size(specs[i].dtype)));
    }
    return total;
}

void fkm_writer_close(fkm_writer *w)
{
    if (!w)
        return;
#if FKM_HAVE_HDF5
    fkm_h5_close(w->h5);
#endif
    fkm_outfile_close(w->file);
    fkm_free(w);
}
