/* Centroids from a file or a previous run: see cmd.h. */
#include "cmd.h"
#include "verify.h"

#include "../src/base/checked.h"
#include "../src/base/file.h"
#include "../src/base/mem.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define READ_ROWS_BYTES ((int64_t)1 << 20)

/* The file of centroids that `prefix`.stats.json vouches for. */
static fkm_status path_of_run(char **out, const char *prefix, fkm_err *e)
{
    verified_run run;
    FKM_TRY(verified_run_load(&run, prefix, e));
    fkm_status st = FKM_OK;
    const verified_file *file = verified_run_centroids(&run);
    if (!file)
        st = fkm_fail(e, FKM_EDATA, "%s names no file of centroids", run.stats_path);
    else
        st = verified_file_check(file, run.stats_path, e);
    if (st == FKM_OK)
        st = fkm_strdup(out, file->path, e);
    verified_run_free(&run);
    return st;
}

static fkm_status resolve(char **path, const char *name, fkm_err *e)
{
    char *stats;
    *path = NULL;
    if (!strcmp(name, "-")) {
        fkm_fail(e, FKM_EUSAGE, "centroids cannot come from standard input");
        return fkm_hint(e, "save them to a file first");
    }
    if (fkm_path_exists(name))
        return fkm_strdup(path, name, e);
    FKM_TRY(fkm_asprintf(&stats, e, "%s.stats.json", name));
    bool is_run = fkm_path_exists(stats);
    fkm_free(stats);
    if (is_run)
        return path_of_run(path, name, e);
    fkm_fail(e, FKM_EFILE, "%s: no such file, and no %s.stats.json of a run", name, name);
    return fkm_hint(e, "give a file of centroids, or the PREFIX that 'fkm fit -o PREFIX' wrote");
}

/* Rows arrive in their type; centroids are float32. */
static fkm_status convert(float *dst, const unsigned char *src, int64_t row0, int64_t rows,
    const fkm_shape *shape, const char *path, fkm_err *e)
{
    size_t size = fkm_dtype_size(shape->dtype);
    for (int64_t i = 0; i < rows; i++)
        for (int32_t t = 0; t < shape->dims; t++) {
            float value = fkm_dtype_to_float(shape->dtype, src);
            if (!isfinite(value)) {
                fkm_fail(e, FKM_EDATA, "%s: centroid %" PRId64 " has %g in column %" PRId32, path,
                    row0 + i, (double)value, t);
                return fkm_hint(e, "centroids must be finite numbers");
            }
            *dst++ = value;
            src += size;
        }
    return FKM_OK;
}

static fkm_status read_all(centroids *c, fkm_reader *r, fkm_err *e)
{
    const fkm_shape *shape = fkm_reader_shape(r);
    int64_t rows = shape->batch * shape->rows, step = READ_ROWS_BYTES / shape->dims, count = 0;
    unsigned char *buffer = NULL;
    step = fkm_max_i64(1, fkm_min_i64(step, rows));
    FKM_TRY(fkm_mul_i64(&count, rows, shape->dims)
                ? FKM_OK
                : fkm_fail(e, FKM_ENOMEM, "%s: too many centroids", c->path));
    fkm_status st = FKM_OK;
    FKM_GO(fkm_alloc(&c->values, count, sizeof *c->values, "the centroids", e));
    FKM_GO(
        fkm_alloc(&buffer, step * shape->dims, fkm_dtype_size(shape->dtype), "the centroids", e));
    for (int64_t row = 0; row < rows; row += step) {
        int64_t now = fkm_min_i64(step, rows - row);
        FKM_GO(fkm_reader_read(r, row, now, buffer, e));
        FKM_GO(convert(c->values + row * shape->dims, buffer, row, now, shape, c->path, e));
    }
out:
    fkm_free(buffer);
    return st;
}

static fkm_status check_shape(centroids *c, const fkm_shape *shape, fkm_err *e)
{
    if (shape->rows < 1 || shape->dims < 1)
        return fkm_fail(e, FKM_EDATA, "%s holds no centroids (%" PRId64 " x %" PRId32 ")", c->path,
            shape->rows, shape->dims);
    if (shape->rows > FKM_MAX_CLUSTERS)
        return fkm_fail(e, FKM_EDATA, "%s holds %" PRId64 " centroids, more than %" PRId32, c->path,
            shape->rows, FKM_MAX_CLUSTERS);
    c->is_batch = shape->ndim == 3;
    c->batch = shape->batch;
    c->clusters = (int32_t)shape->rows;
    c->dims = shape->dims;
    return FKM_OK;
}

fkm_status centroids_load(centroids *out, const char *name, fkm_err *e)
{
    fkm_status st = FKM_OK;
    fkm_reader *r = NULL;
    centroids c = {0};
    FKM_TRY(resolve(&c.path, name, e));
    const char *suffix = fkm_path_suffix(c.path);
    bool is_h5 = !strcmp(suffix, ".h5") || !strcmp(suffix, ".hdf5");
    fkm_reader_spec spec = {
        .paths = (const char *const *)&c.path,
        .path_count = 1,
        .dataset = is_h5 && strcmp(c.path, name) != 0 ? "centroids" : NULL,
        .row_end = -1,
    };
    FKM_GO(fkm_reader_open(&r, &spec, e));
    FKM_GO(check_shape(&c, fkm_reader_shape(r), e));
    c.id = fkm_reader_input(r, 0)->id;
    FKM_GO(read_all(&c, r, e));
    *out = c;
    fkm_reader_close(r);
    return FKM_OK;
out:
    fkm_reader_close(r);
    centroids_free(&c);
    return st;
}

void centroids_free(centroids *c)
{
    fkm_free(c->values);
    fkm_free(c->path);
    memset(c, 0, sizeof *c);
}
