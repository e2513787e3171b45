/* predict: nearest centroids of every row, in one pass. */
#include "fkm.h"

#include "backend.h"
#include "base/checked.h"
#include "base/clock.h"
#include "base/mem.h"
#include "plan.h"
#include "scan.h"
#include "source.h"

#include <string.h>

typedef struct run {
    const fkm_predict_options *o;
    const fkm_observer *w;
    fkm_reader *in;
    fkm_shape shape;
    const fkm_backend_ops *ops;
    fkm_backend *backend;
    fkm_source *source;
    fkm_run_stats stats;
    int32_t *labels;   /* [chunk_rows][top] */
    double *distances; /* [chunk_rows][top], or NULL */
    double begin_s;
} run;

static fkm_status open_run(run *r, fkm_err *e)
{
    const fkm_predict_options *o = r->o;
    const char *devices;
    bool distances = o->distances || o->top > 1;
    fkm_plan plan;
    FKM_TRY(fkm_backend_choose(&r->ops, &devices, &o->machine, e));
    fkm_plan_request request = {
        .ops = r->ops,
        .devices = devices,
        .machine = &o->machine,
        .shape = &r->shape,
        .row_read_bytes = fkm_reader_row_bytes(r->in),
        .clusters = o->clusters,
        .top = o->top,
        .result_bytes = fkm_add_sat(fkm_reader_heap_bytes(r->in),
            fkm_mul_sat(fkm_mul_sat(o->clusters, sizeof(float)),
                fkm_mul_sat(o->dims, o->centroids_batch ? r->shape.batch : 1))),
        .bytes_per_row = (int64_t)o->top * (int64_t)(sizeof(int32_t) + 2 * sizeof(double)),
    };
    FKM_TRY(fkm_plan_make(&r->stats.plan, &plan, &request, e));
    plan.stop = r->w ? r->w->stop : NULL;
    FKM_TRY(r->ops->open(&r->backend, &plan, e));
    r->stats.plan.isa = r->ops->isa(r->backend);
    if (r->w && r->w->planned)
        r->w->planned(r->w->arg, &r->stats.plan);
    FKM_TRY(fkm_source_open(&r->source, r->in, &r->stats.plan, NULL, e));
    fkm_source_pin(r->source, r->ops, r->backend);
    fkm_source_use(r->source, r->ops, r->backend);
    int64_t cells = plan.chunk_rows * o->top;
    FKM_TRY(fkm_alloc(&r->labels, cells, sizeof *r->labels, "labels", e));
    return distances ? fkm_alloc(&r->distances, cells, sizeof *r->distances, "distances", e)
                     : FKM_OK;
}

/* A row without a nearest centroid has NaN or Inf: says where. */
static fkm_status check_labels(run *r, const fkm_rows *rows, int64_t base, fkm_err *e)
{
    for (int64_t i = 0; i < rows->count; i++) {
        if (r->labels[i * r->o->top] >= 0)
            continue;
        fkm_scan scan;
        fkm_scan_init(&scan);
        scan.rows = rows->row0; /* all of them were good */
        fkm_source_scan(r->source, &scan, rows);
        FKM_TRY(fkm_source_scan_rest(r->source, &scan, r->w, e));
        fkm_scan_not_finite(&scan, r->in, base, e);
        return fkm_hint(e, "clean the data, or use --nan skip: such rows get label -1");
    }
    return FKM_OK;
}

static fkm_status label_chunk(run *r, const fkm_rows *rows, fkm_err *e)
{
    const fkm_predict_options *o = r->o;
    if (o->top > 1)
        return r->ops->nearest(r->backend, rows, o->top, r->labels, r->distances, e);
    memset(r->labels, -1, (size_t)rows->count * sizeof *r->labels);
    FKM_TRY(r->ops->feed(r->backend, rows, r->labels, r->distances, e));
    return r->ops->wait(r->backend, e);
}

static void report_progress(run *r, int64_t done)
{
    if (!r->w || !r->w->progress)
        return;
    fkm_progress p = {
        .iteration = 1,
        .max_iter = 1,
        .rows_done = done,
        .rows_total = r->shape.batch * r->shape.rows,
        .bytes_read = fkm_source_bytes_read(r->source),
        .elapsed_s = fkm_now() - r->begin_s,
    };
    r->w->progress(r->w->arg, &p);
}

static fkm_status label_problem(
    run *r, int64_t problem, fkm_label_sink sink, void *sink_arg, fkm_err *e)
{
    const fkm_predict_options *o = r->o;
    const fkm_pass_options options = {.update = false};
    int64_t base = problem * r->shape.rows;
    fkm_scan unused;
    fkm_pass pass;
    fkm_rows rows;
    r->ops->reset(r->backend);
    FKM_TRY(r->ops->set_centroids(
        r->backend, o->centroids + (o->centroids_batch ? problem * o->clusters * o->dims : 0), e));
    FKM_TRY(fkm_source_start(r->source, problem, true, &unused, r->w, e));
    FKM_TRY(r->ops->begin(r->backend, &options, e));
    for (;;) {
        if (r->w && r->w->stop && *r->w->stop)
            return fkm_fail(e, FKM_ESTOPPED, "stopped by a signal");
        FKM_TRY(fkm_source_next(r->source, &rows, e));
        if (rows.count == 0)
            break;
        FKM_TRY(label_chunk(r, &rows, e));
        if (!o->skip_nan)
            FKM_TRY(check_labels(r, &rows, base, e));
        FKM_TRY(sink(sink_arg, base + rows.row0, rows.count, r->labels,
            o->distances ? r->distances : NULL, e));
        report_progress(r, base + rows.row0 + rows.count);
    }
    FKM_TRY(r->ops->end(r->backend, &pass, e));
    r->stats.screening.rows_screened += pass.rows;
    r->stats.screening.rows_in_doubt += pass.in_doubt;
    r->stats.screening.candidates += pass.candidates;
    r->stats.screening.rescans += pass.rescans;
    r->stats.distances += r->shape.rows * o->clusters;
    return FKM_OK;
}

static fkm_status check_options(const fkm_predict_options *o, const fkm_shape *shape, fkm_err *e)
{
    if (o->dims != shape->dims)
        return fkm_fail(
            e, FKM_EDATA, "the centroids have %d dims, the data has %d", o->dims, shape->dims);
    if (shape->dims > FKM_MAX_DIMS)
        return fkm_fail(e, FKM_EDATA, "%d dims: expected 1 to %d", shape->dims, FKM_MAX_DIMS);
    if (o->top < 1 || o->top > FKM_MAX_TOP || o->top > o->clusters)
        return fkm_fail(e, FKM_EUSAGE, "--top %d: expected 1 to %d (of %d centroids)", o->top,
            o->clusters < FKM_MAX_TOP ? o->clusters : FKM_MAX_TOP, o->clusters);
    return FKM_OK;
}

fkm_status fkm_predict(fkm_reader *in, const fkm_predict_options *o, fkm_label_sink sink,
    void *sink_arg, const fkm_observer *w, fkm_run_stats *stats, fkm_err *e)
{
    fkm_status st = FKM_OK;
    run r = {.o = o, .w = w, .in = in, .shape = *fkm_reader_shape(in)};
    r.begin_s = fkm_now();
    FKM_TRY(check_options(o, &r.shape, e));
    FKM_GO(open_run(&r, e));
    for (int64_t i = 0; i < r.shape.batch && r.shape.rows > 0; i++)
        FKM_GO(label_problem(&r, i, sink, sink_arg, e));
    r.stats.total_s = fkm_now() - r.begin_s;
    r.stats.read_wait_s = fkm_source_wait(r.source);
    r.stats.compute_s = r.stats.total_s - r.stats.read_wait_s;
    r.stats.bytes_read = fkm_source_bytes_read(r.source);
    r.stats.flop = fkm_mul_sat(r.stats.distances, 2 * (int64_t)r.shape.dims);
    r.stats.gpu_peak_bytes = r.ops->device_peak ? r.ops->device_peak() : 0;
    if (stats)
        *stats = r.stats;
out:
    fkm_source_close(r.source);
    if (r.backend)
        r.ops->close(r.backend);
    fkm_free(r.labels);
    fkm_free(r.distances);
    return st;
}
