/* What a fit will take: see preview.h. */
#include "preview.h"

#include "base/checked.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/file.h"
#include "base/mem.h"
#include "checkpoint.h"
#include "engine.h"
#include "plan.h"

#include <math.h>
#include <string.h>

#define RUNS 64                       /* the sample is read in so many places */
#define READ_BYTES ((int64_t)1 << 20) /* at a time, as the engine does */
#define READ_MOST_BYTES ((int64_t)64 << 20)
#define READ_S 0.2
#define FEED_S 0.3
#define FEW_ROWS 1024       /* to find out how many rows take FEED_S, */
#define FEW_PRODUCTS 0x1p25 /* or less, if they take long with so many centroids */
#define MOST_ROUNDS 4
#define MOST_GROWTH 64 /* of rows from one to the next: times of few are no guide for many */

/* Distances of choosing the first centroids, in those of an iteration, and its passes over the
 * file: see seed.h. */
static const struct {
    double iterations, passes;
} seeding[] = {
    [FKM_INIT_RANDOM] = {0, 0},
    [FKM_INIT_PLUSPLUS] = {1, 1},
    [FKM_INIT_PARALLEL] = {10, 6},
};

typedef struct trial {
    const fkm_fit_options *o;
    const fkm_observer *w;
    fkm_reader *in;
    fkm_shape shape;
    const fkm_backend_ops *ops;
    fkm_plan plan;   /* of a lane */
    char device[16]; /* in it */
    fkm_backend *backend;
    size_t row_bytes;
    int64_t rows; /* room of x and labels */
    char *x;
    int32_t *labels;
    float *centroids;
    double first_s, next_s; /* a row; the first time, and with labels */
    double fixed_s;         /* a pass, whatever its rows */
} trial;

static fkm_status check_stop(const trial *t, fkm_err *e)
{
    if (t->w && t->w->stop && *t->w->stop)
        return fkm_fail(e, FKM_ESTOPPED, "stopped by a signal");
    return FKM_OK;
}

/* x = n rows, in runs that are spread over the first problem; shift: of a run's distance to the
 * next, in [0, 1). */
static fkm_status read_spread(trial *t, char *x, int64_t n, double shift, fkm_err *e)
{
    int64_t runs = fkm_min_i64(RUNS, n);
    for (int64_t i = 0; i < runs; i++) {
        int64_t begin = n * i / runs, count = n * (i + 1) / runs - begin;
        int64_t at =
            (int64_t)((double)(t->shape.rows - count) * ((double)i + shift) / (double)runs);
        FKM_TRY(check_stop(t, e));
        FKM_TRY(fkm_reader_read(t->in, at, count, x + (size_t)begin * t->row_bytes, e));
    }
    return FKM_OK;
}

/* Rows become centroids; NaN and infinity, which cannot be any, become zeros. */
static void to_centroids(const trial *t, float *c, const char *x, int64_t count)
{
    size_t item = fkm_dtype_size(t->shape.dtype);
    for (int64_t i = 0; i < count * t->shape.dims; i++) {
        float v = fkm_dtype_to_float(t->shape.dtype, x + (size_t)i * item);
        c[i] = isfinite(v) ? v : 0;
    }
}

static fkm_status read_centroids(trial *t, fkm_err *e)
{
    int64_t k = t->o->clusters;
    if (t->o->init) {
        memcpy(t->centroids, t->o->init, (size_t)k * (size_t)t->shape.dims * sizeof *t->centroids);
        return FKM_OK;
    }
    for (int64_t done = 0; done < k;) {
        int64_t n = fkm_min_i64(t->rows, k - done);
        FKM_TRY(read_spread(t, t->x, n, (double)done / (double)k, e));
        to_centroids(t, t->centroids + done * t->shape.dims, t->x, n);
        done += n;
    }
    return FKM_OK;
}

/* Bytes of storage a second, in the order of the file from its middle on, checksums included. */
static fkm_status measure_reading(trial *t, double *rate, fkm_err *e)
{
    int64_t total = t->shape.batch * t->shape.rows, bytes = 0;
    int64_t n = fkm_max_i64(1, fkm_min_i64(t->rows, READ_BYTES / (int64_t)t->row_bytes));
    double begin = fkm_now(), took = 0;
    uint32_t crc = 0;
    for (int64_t row = total / 2; bytes < READ_MOST_BYTES && took < READ_S; row += n) {
        if (row + n > total)
            row = 0;
        n = fkm_min_i64(n, total);
        FKM_TRY(check_stop(t, e));
        FKM_TRY(fkm_reader_read(t->in, row, n, t->x, e));
        crc = fkm_crc32c(crc, t->x, (size_t)n * t->row_bytes);
        bytes += n * fkm_reader_row_bytes(t->in);
        took = fkm_now() - begin;
    }
    *rate = (double)bytes / fmax(took, 1e-9);
    return FKM_OK;
}

/* A backend for the first n rows of the sample, which are one chunk. */
static fkm_status open_backend(trial *t, int64_t n, fkm_err *e)
{
    if (t->backend)
        t->ops->close(t->backend);
    t->backend = NULL;
    t->plan.rows = t->plan.chunk_rows = n;
    return t->ops->open(&t->backend, &t->plan, e);
}

/* One pass over the first n rows of the sample; seconds of feeding them, and of the rest. */
static fkm_status pass(trial *t, int64_t n, bool move, double *feed_s, double *rest_s, fkm_err *e)
{
    const fkm_pass_options options = {.update = true, .squares = !move};
    fkm_rows rows = {t->x, 0, n};
    fkm_pass out;
    double shift, begin = fkm_now();
    FKM_TRY(check_stop(t, e));
    FKM_TRY(t->ops->begin(t->backend, &options, e));
    double middle = fkm_now();
    FKM_TRY(t->ops->feed(t->backend, &rows, t->labels, NULL, e));
    FKM_TRY(t->ops->wait(t->backend, e));
    *feed_s = fkm_now() - middle;
    FKM_TRY(t->ops->end(t->backend, &out, e));
    if (move)
        FKM_TRY(t->ops->move(t->backend, &shift, e));
    *rest_s = fkm_now() - begin - *feed_s;
    return FKM_OK;
}

/* Two iterations on as many rows as take a while. A scale of 0 is exact for no data, and costs what
 * any other does. */
static fkm_status measure_passes(trial *t, int64_t *sampled, fkm_err *e)
{
    const fkm_scale scale = {0, false, 0};
    const double each = (double)t->o->clusters * t->shape.dims;
    int64_t n = fkm_min_i64(t->rows, (int64_t)fmin(FEW_ROWS, fmax(1, FEW_PRODUCTS / each)));
    double feed, rest;
    FKM_TRY(read_spread(t, t->x, t->rows, 0.5, e));
    for (int round = 0;; round++) {
        memset(t->labels, -1, (size_t)t->rows * sizeof *t->labels);
        FKM_TRY(open_backend(t, n, e));
        t->ops->reset(t->backend);
        FKM_TRY(t->ops->set_centroids(t->backend, t->centroids, e));
        FKM_TRY(t->ops->set_scale(t->backend, scale, e));
        FKM_TRY(pass(t, n, false, &feed, &rest, e));
        t->first_s = feed / (double)n;
        const double more = fmin(MOST_GROWTH, FEED_S / fmax(feed, 1e-12));
        if (more < 2 || n == t->rows || round == MOST_ROUNDS)
            break;
        n = (int64_t)fmin((double)t->rows, (double)n * more);
    }
    double shift;
    FKM_TRY(t->ops->move(t->backend, &shift, e));
    FKM_TRY(pass(t, n, true, &feed, &rest, e));
    t->next_s = feed / (double)n;
    t->fixed_s = rest;
    *sampled = n;
    return FKM_OK;
}

static fkm_status open_trial(trial *t, const fkm_run_plan *run, fkm_err *e)
{
    t->row_bytes = (size_t)t->shape.dims * fkm_dtype_size(t->shape.dtype);
    t->rows = fkm_min_i64(t->shape.rows, run->chunk_rows);
    int64_t cells = (int64_t)t->o->clusters * t->shape.dims;
    FKM_TRY(fkm_alloc(&t->x, t->rows, t->row_bytes, "a sample of rows", e));
    FKM_TRY(fkm_alloc(&t->labels, t->rows, sizeof *t->labels, "labels of a sample", e));
    return fkm_alloc(&t->centroids, cells, sizeof *t->centroids, "centroids", e);
}

static void close_trial(trial *t)
{
    if (t->backend)
        t->ops->close(t->backend);
    fkm_free(t->x);
    fkm_free(t->labels);
    fkm_free(t->centroids);
}

/* Times of the run from those of the sample. Reading a stream goes on beside the computation. */
static void predict(fkm_preview *p, const trial *t)
{
    const fkm_fit_options *o = t->o;
    double rows = (double)t->shape.rows, problems = (double)t->shape.batch;
    double read = (double)p->plan.read_bytes_per_pass / p->read_bytes_per_s;
    double load = p->plan.resident ? read : 0, pass_read = p->plan.resident ? 0 : read;
    fkm_init_method method = o->init ? FKM_INIT_RANDOM : o->method;
    double seed =
        fmax(seeding[method].iterations * rows * t->first_s, seeding[method].passes * pass_read);
    p->before_s = load + seed;
    p->first_s = fmax(rows * t->first_s + t->fixed_s, pass_read);
    p->iteration_s = fmax(rows * t->next_s + t->fixed_s, pass_read);
    double start = seed + p->first_s + (double)o->max_iter * p->iteration_s; /* with final labels */
    double restore = o->restarts > 1 ? p->first_s : 0;
    double rounds = ceil(problems / p->plan.lanes);
    p->most_s = rounds * (load * p->plan.lanes + o->restarts * start + restore);
    double passes = o->restarts * ((double)o->max_iter + 1 + seeding[method].passes) +
                    (o->restarts > 1 ? 1 : 0);
    p->passes_most = p->plan.resident ? 1 : (int64_t)fmin(passes, 0x1p62);
}

static fkm_status look_at_state(
    fkm_preview *p, const fkm_fit_options *o, const fkm_reader *in, fkm_err *e)
{
    const int64_t batch = fkm_reader_shape(in)->batch;
    fkm_status st = FKM_OK;
    fkm_state s = {0};
    char *key = NULL;
    if (!o->saving)
        return FKM_OK;
    p->state_bytes = fkm_state_bytes(o, fkm_reader_shape(in));
    if (o->saving->fresh || !fkm_path_exists(o->saving->path))
        return FKM_OK;
    FKM_GO(fkm_state_key(&key, o, in, e));
    FKM_GO(fkm_state_open(&s, batch, e));
    FKM_GO(fkm_state_peek(&s, o->saving->path, key, o, in, e));
    int64_t first = fkm_state_first(&s, batch);
    p->resumes = s.resumes + 1;
    p->iteration = first < batch ? s.problems[first].iteration : 0;
    p->earlier_s = s.elapsed_s;
out:
    fkm_state_close(&s, batch);
    fkm_free(key);
    return st;
}

fkm_status fkm_fit_preview(
    fkm_preview *out, fkm_reader *in, const fkm_fit_options *o, const fkm_observer *w, fkm_err *e)
{
    fkm_status st = FKM_OK;
    trial t = {.o = o, .w = w, .in = in, .shape = *fkm_reader_shape(in)};
    memset(out, 0, sizeof *out);
    FKM_TRY(fkm_fit_plan(&out->plan, &t.plan, &t.ops, o, in, e));
    FKM_TRY(look_at_state(out, o, in, e));
    fkm_plan_of_lane(&t.plan, t.device, &out->plan, 0);
    t.plan.stop = w ? w->stop : NULL;
    FKM_GO(open_trial(&t, &out->plan, e));
    FKM_GO(measure_reading(&t, &out->read_bytes_per_s, e));
    FKM_GO(read_centroids(&t, e));
    FKM_GO(measure_passes(&t, &out->sampled_rows, e));
    out->plan.isa = t.ops->isa(t.backend);
    predict(out, &t);
out:
    close_trial(&t);
    return st;
}
