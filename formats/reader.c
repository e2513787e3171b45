/* Rows of vectors from files: see reader.h. */
#include "reader.h"

#include "../src/base/checked.h"
#include "../src/base/log.h"
#include "../src/base/mem.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* One file of the data set. */
typedef struct source {
    fkm_file *file;
    const fkm_format *format;
    void *priv;
    fkm_shape shape;
    int64_t begin, end; /* its rows in the whole data set, before --rows */
} source;

struct fkm_reader {
    source *sources;
    fkm_input *inputs; /* [count], what fkm_reader_input hands out */
    int count;
    int64_t skip; /* rows of the whole data set before the range of --rows */
    fkm_shape shape;
    void *scratch;           /* [FKM_SCRATCH_BYTES] */
    pthread_mutex_t reading; /* guards scratch, and what the formats keep */
};

/* ---- opening ---- */

static int64_t flat_rows(const fkm_shape *s)
{
    return s->batch * s->rows;
}

/* The options that only files with several arrays or without types understand must not be ignored
 * silently by the others. */
static fkm_status check_dataset_option(const source *s, const fkm_reader_spec *spec, fkm_err *e)
{
    if (!spec->dataset || s->format->dataset)
        return FKM_OK;
    fkm_fail(e, FKM_EUSAGE,
        "%s: is %s, which holds one array without a name; --dataset is for .h5 and "
        ".safetensors",
        fkm_file_path(s->file), s->format->name);
    return fkm_hint(e, "leave out --dataset");
}

static fkm_status open_source(source *s, const char *path, const fkm_reader_spec *spec, fkm_err *e)
{
    fkm_format_options o = {.dataset = spec->dataset,
        .dtype = spec->dtype,
        .partial = spec->row_end >= 0,
        .rows_end = fkm_max_i64(0, spec->row_end - s->begin),
        .one_dim = spec->one_dim,
        .may_be_empty = spec->may_be_empty};
    FKM_TRY(fkm_file_open(&s->file, path, e));
    if (fkm_file_bytes(s->file) == 0) {
        fkm_fail(e, FKM_EDATA, "%s: is empty", fkm_file_path(s->file));
        return fkm_hint(e, "did the program that writes it fail?");
    }
    FKM_TRY(fkm_format_probe(&s->format, s->file, e));
    FKM_TRY(check_dataset_option(s, spec, e));
    FKM_TRY(fkm_calloc(&s->priv, 1, s->format->priv_size, "an open file", e));
    return s->format->open(s->priv, s->file, &o, &s->shape, e);
}

/* dims and in-memory type against those of the first file; a batch stands alone. */
static fkm_status check_agreement(const source *first, const source *s, int count, fkm_err *e)
{
    const char *path = fkm_file_path(s->file), *other = fkm_file_path(first->file);
    fkm_dtype have = fkm_dtype_in_memory(s->shape.dtype);
    fkm_dtype want = fkm_dtype_in_memory(first->shape.dtype);
    if (s->shape.ndim == 3 && count > 1) {
        fkm_fail(e, FKM_EDATA, "%s: is a batch of %lld problems, one of %d files", path,
            (long long)s->shape.batch, count);
        return fkm_hint(e, "a 3-D array must be the only input");
    }
    if (s->shape.dims != first->shape.dims) {
        fkm_fail(e, FKM_EDATA, "%s: has rows of dimension %ld, %s of %ld", path,
            (long)s->shape.dims, other, (long)first->shape.dims);
        return fkm_hint(e, "several files are one data set: their rows must have one dimension");
    }
    if (have != want) {
        fkm_fail(e, FKM_EDATA, "%s: holds %s, %s holds %s", path, fkm_dtype_name(s->shape.dtype),
            other, fkm_dtype_name(first->shape.dtype));
        return fkm_hint(e, "several files are one data set: convert them to one type");
    }
    return FKM_OK;
}

/* Said once a file, with -v: the only place where a value may change on its way in, and types that
 * may not be what they say. */
static void tell_conversion(const source *s)
{
    const fkm_dtype stored = s->shape.dtype;
    if (stored == FKM_F64)
        fkm_verbose("%s: float64 values are rounded to float32", fkm_file_path(s->file));
    if (stored == FKM_U16 || stored == FKM_I16)
        fkm_verbose("%s: %s values are read as integers; bfloat16 that is kept in them needs "
                    "--dtype bf16",
            fkm_file_path(s->file), fkm_dtype_name(stored));
}

static fkm_status add_source(
    fkm_reader *r, const char *path, const fkm_reader_spec *spec, fkm_err *e)
{
    source *s = &r->sources[r->count++]; /* counted first: close must see a half-open one */
    s->begin = r->count > 1 ? s[-1].end : 0;
    FKM_TRY(open_source(s, path, spec, e));
    FKM_TRY(check_agreement(&r->sources[0], s, spec->path_count, e));
    tell_conversion(s);
    if (!fkm_add_i64(&s->end, s->begin, flat_rows(&s->shape)))
        return fkm_fail(e, FKM_EDATA, "%s: the rows of all files are beyond 64 bits", path);
    r->inputs[r->count - 1] = (fkm_input){
        .path = fkm_file_path(s->file),
        .format = s->format->name,
        .dataset = s->format->dataset ? s->format->dataset(s->priv) : NULL,
        .rows = flat_rows(&s->shape),
        .dims = s->shape.dims,
        .dtype = s->shape.dtype,
        .id = *fkm_file_identity(s->file),
        .piped = fkm_file_was_pipe(s->file),
    };
    return FKM_OK;
}

/* The shape of what is read: all files, cut by --rows. */
static fkm_status set_range(fkm_reader *r, const fkm_reader_spec *spec, fkm_err *e)
{
    int64_t total = r->sources[r->count - 1].end;
    int64_t begin = spec->row_begin, end = spec->row_end < 0 ? total : spec->row_end;
    r->shape = r->sources[0].shape;
    r->shape.dtype = fkm_dtype_in_memory(r->shape.dtype);
    if (r->shape.ndim == 3) {
        if (begin == 0 && end == total)
            return FKM_OK;
        fkm_fail(e, FKM_EUSAGE, "%s: is a batch of %lld problems; --rows is for a single one",
            fkm_file_path(r->sources[0].file), (long long)r->shape.batch);
        return fkm_hint(e, "cut the array before saving it");
    }
    bool all = begin == 0 && end == total; /* of a data set without rows, too */
    if (!all && (begin < 0 || begin >= end || end > total)) {
        fkm_fail(e, FKM_EUSAGE, "--rows %lld:%lld: the data has rows 0:%lld", (long long)begin,
            (long long)end, (long long)total);
        return fkm_hint(e, "a range A:B is half-open: A to B - 1, counted from 0");
    }
    r->skip = begin;
    r->shape.rows = end - begin;
    return FKM_OK;
}

fkm_status fkm_reader_open(fkm_reader **out, const fkm_reader_spec *spec, fkm_err *e)
{
    fkm_status st = FKM_OK;
    fkm_reader *r = NULL;
    if (spec->path_count < 1)
        return fkm_fail(e, FKM_EBUG, "a reader of no files");
    FKM_TRY(fkm_calloc(&r, 1, sizeof *r, "a reader", e));
    pthread_mutex_init(&r->reading, NULL);
    fkm_file_expect(spec->path_count);
    FKM_GO(fkm_calloc(&r->sources, spec->path_count, sizeof *r->sources, "a reader", e));
    FKM_GO(fkm_calloc(&r->inputs, spec->path_count, sizeof *r->inputs, "a reader", e));
    FKM_GO(fkm_alloc(&r->scratch, (int64_t)FKM_SCRATCH_BYTES, 1, "a read buffer", e));
    for (int i = 0; i < spec->path_count; i++)
        FKM_GO(add_source(r, spec->paths[i], spec, e));
    FKM_GO(set_range(r, spec, e));
    *out = r;
    return FKM_OK;
out:
    fkm_reader_close(r);
    return st;
}

void fkm_reader_close(fkm_reader *r)
{
    if (!r)
        return;
    for (int i = 0; i < r->count; i++) {
        source *s = &r->sources[i];
        if (s->priv && s->format->close)
            s->format->close(s->priv);
        fkm_free(s->priv);
        fkm_file_close(s->file);
    }
    fkm_free(r->sources);
    fkm_free(r->inputs);
    fkm_free(r->scratch);
    pthread_mutex_destroy(&r->reading);
    fkm_free(r);
}

/* ---- questions ---- */

const fkm_shape *fkm_reader_shape(const fkm_reader *r)
{
    return &r->shape;
}

int64_t fkm_reader_first_row(const fkm_reader *r)
{
    return r->skip;
}

int fkm_reader_input_count(const fkm_reader *r)
{
    return r->count;
}

const fkm_input *fkm_reader_input(const fkm_reader *r, int i)
{
    return &r->inputs[i];
}

/* The file that holds a row of the whole data set. */
static source *find_source(const fkm_reader *r, int64_t row)
{
    int low = 0, high = r->count - 1;
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (row < r->sources[middle].end)
            high = middle;
        else
            low = middle + 1;
    }
    return &r->sources[low];
}

const char *fkm_reader_row_name(const fkm_reader *r, int64_t row, char *out, size_t cap)
{
    const source *s = find_source(r, row + r->skip);
    long long own = (long long)(row + r->skip - s->begin);
    const char *path = fkm_file_path(s->file);
    if (s->shape.ndim == 3)
        snprintf(out, cap, "%s: problem %lld, row %lld", path, own / (long long)s->shape.rows,
            own % (long long)s->shape.rows);
    else
        snprintf(out, cap, "%s: row %lld", path, own);
    return out;
}

int64_t fkm_reader_row_bytes(const fkm_reader *r)
{
    double bytes = 0, rows = 0;
    for (int i = 0; i < r->count; i++) {
        bytes += (double)r->sources[i].shape.row_bytes * (double)flat_rows(&r->sources[i].shape);
        rows += (double)flat_rows(&r->sources[i].shape);
    }
    return rows > 0 ? (int64_t)(bytes / rows + 0.5) : 0;
}

int64_t fkm_reader_heap_bytes(const fkm_reader *r)
{
    int64_t bytes = (int64_t)FKM_SCRATCH_BYTES;
    for (int i = 0; i < r->count; i++)
        bytes = fkm_add_sat(bytes, r->sources[i].shape.heap_bytes);
    return bytes;
}

/* ---- reading ---- */

static fkm_status read_rows(fkm_reader *r, int64_t row0, int64_t count, char *to, fkm_err *e)
{
    const size_t row_size = (size_t)r->shape.dims * fkm_dtype_size(r->shape.dtype);
    if (row0 < 0 || count < 0 || row0 > flat_rows(&r->shape) || count > flat_rows(&r->shape) - row0)
        return fkm_fail(e, FKM_EBUG, "rows %lld and %lld more asked of a reader of %lld",
            (long long)row0, (long long)count, (long long)flat_rows(&r->shape));
    for (int64_t row = row0 + r->skip; count > 0;) {
        source *s = find_source(r, row);
        int64_t some = fkm_min_i64(count, s->end - row);
        FKM_TRY(s->format->read(s->priv, s->file, row - s->begin, some, to, r->scratch, e));
        to += (size_t)some * row_size;
        row += some;
        count -= some;
    }
    return FKM_OK;
}

fkm_status fkm_reader_read(fkm_reader *r, int64_t row0, int64_t count, void *dst, fkm_err *e)
{
    pthread_mutex_lock(&r->reading);
    fkm_status st = read_rows(r, row0, count, dst, e);
    pthread_mutex_unlock(&r->reading);
    return st;
}

int64_t fkm_reader_offset(const fkm_reader *r, int64_t row0)
{
    const source *s = find_source(r, row0 + r->skip);
    return s->format->offset ? s->format->offset(s->priv, row0 + r->skip - s->begin) : -1;
}

fkm_status fkm_reader_unchanged(fkm_reader *r, fkm_err *e)
{
    for (int i = 0; i < r->count; i++)
        FKM_TRY(fkm_file_unchanged(r->sources[i].file, e));
    return FKM_OK;
}
