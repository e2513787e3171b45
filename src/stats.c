/* What a run did, as JSON and as text: see stats.h. */
#include "stats.h"

#include "base/checked.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sysinfo.h"
#include "base/text.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- JSON ---- */

static void add_i64(fkm_json *j, cJSON *object, const char *name, int64_t value)
{
    fkm_json_add(j, object, name, fkm_json_i64(value));
}

static void add_real(fkm_json *j, cJSON *object, const char *name, double value)
{
    fkm_json_add(j, object, name, fkm_json_real(value));
}

static void add_text(fkm_json *j, cJSON *object, const char *name, const char *value)
{
    fkm_json_add(j, object, name, fkm_json_text(value));
}

/* part / whole, null when whole is zero. */
static double ratio(double part, double whole)
{
    return whole > 0 ? part / whole : NAN;
}

static void put_input(fkm_json *j, const fkm_reader *in)
{
    fkm_json_list_begin(j, "input");
    for (int i = 0; i < fkm_reader_input_count(in); i++) {
        const fkm_input *file = fkm_reader_input(in, i);
        cJSON *o = cJSON_CreateObject();
        fkm_json_add_name(j, o, "path", file->path);
        add_text(j, o, "format", file->format);
        fkm_json_add_name(j, o, "dataset", file->dataset);
        add_i64(j, o, "rows", file->rows);
        add_i64(j, o, "dims", file->dims);
        add_text(j, o, "dtype", fkm_dtype_name(file->dtype));
        add_i64(j, o, "bytes", file->id.bytes);
        fkm_json_list_item(j, o);
    }
    fkm_json_list_end(j);
}

cJSON *fkm_gpu_list(fkm_json *j, const fkm_gpu_info *gpus, int32_t count)
{
    cJSON *list = cJSON_CreateArray();
    for (int32_t i = 0; i < count; i++) {
        char capability[32];
        cJSON *o = cJSON_CreateObject();
        snprintf(
            capability, sizeof capability, "%" PRId32 ".%" PRId32, gpus[i].major, gpus[i].minor);
        add_i64(j, o, "device", gpus[i].device);
        add_text(j, o, "name", gpus[i].name);
        add_text(j, o, "compute_capability", capability);
        add_i64(j, o, "memory_bytes", gpus[i].memory_bytes);
        if (!list || !o || !cJSON_AddItemToArray(list, o)) {
            cJSON_Delete(o);
            cJSON_Delete(list);
            return NULL;
        }
    }
    return list;
}

static void put_machine(fkm_json *j, const fkm_run_plan *plan)
{
    cJSON *o = cJSON_CreateObject();
    add_text(j, o, "cpu", fkm_cpu_model());
    add_text(j, o, "backend", plan->backend);
    add_text(j, o, "isa", plan->isa);
    add_i64(j, o, "threads", plan->threads);
    add_i64(j, o, "side_by_side", plan->lanes);
    fkm_json_add(j, o, "gpus", fkm_gpu_list(j, plan->gpus, plan->gpu_count));
    fkm_json_field(j, "machine", o);
}

static void put_outputs(fkm_json *j, const fkm_report *r)
{
    fkm_json_list_begin(j, "outputs");
    for (int i = 0; i < r->output_count; i++) {
        char crc[16];
        cJSON *o = cJSON_CreateObject();
        snprintf(crc, sizeof crc, "%08" PRIx32, r->outputs[i].crc32c);
        fkm_json_add_name(j, o, "path", r->outputs[i].path);
        add_i64(j, o, "bytes", r->outputs[i].bytes);
        add_text(j, o, "crc32c", crc);
        fkm_json_list_item(j, o);
    }
    fkm_json_list_end(j);
}

static void put_time(fkm_json *j, const fkm_report *r)
{
    const fkm_run_stats *run = r->run;
    cJSON *o = cJSON_CreateObject();
    add_real(j, o, "total_s", r->total_s);
    add_real(j, o, "init_s", run->init_s);
    add_real(j, o, "read_wait_s", run->read_wait_s);
    add_real(j, o, "compute_s", run->compute_s);
    add_real(j, o, "write_s", r->write_s);
    fkm_json_field(j, "time", o);
    o = cJSON_CreateObject();
    add_real(j, o, "read_bytes_per_s", ratio((double)run->bytes_read, run->total_s));
    add_real(j, o, "distances_per_s", ratio((double)run->distances, run->compute_s));
    add_real(j, o, "flop_per_s", ratio((double)run->flop, run->compute_s));
    fkm_json_field(j, "throughput", o);
}

static void put_screening(fkm_json *j, const fkm_screening *s)
{
    cJSON *o = cJSON_CreateObject();
    add_i64(j, o, "rows_screened", s->rows_screened);
    add_i64(j, o, "rows_in_doubt", s->rows_in_doubt);
    add_i64(j, o, "candidates", s->candidates);
    add_i64(j, o, "rescans", s->rescans);
    add_i64(j, o, "rows_skipped_by_bounds", s->rows_skipped_by_bounds);
    fkm_json_field(j, "screening", o);
}

/* Of fit: whether passes were launched as graphs, which only figures tell. */
static void put_gpu(fkm_json *j, const fkm_run_stats *run)
{
    cJSON *o = run->plan.gpu_count > 0 ? cJSON_CreateObject() : cJSON_CreateNull();
    if (run->plan.gpu_count > 0) {
        add_i64(j, o, "passes", run->passes);
        add_i64(j, o, "graph_launches", run->graph_launches);
    }
    fkm_json_field(j, "gpu", o);
}

static void put_peak(fkm_json *j, const fkm_report *r)
{
    cJSON *o = cJSON_CreateObject();
    add_i64(j, o, "host_bytes", r->peak_bytes);
    if (r->run->gpu_peak_bytes > 0)
        add_i64(j, o, "gpu_bytes", r->run->gpu_peak_bytes);
    else
        fkm_json_add(j, o, "gpu_bytes", cJSON_CreateNull());
    fkm_json_field(j, "peak", o);
}

/* null: the state was not kept. */
static void put_checkpoint(fkm_json *j, const fkm_saving *s)
{
    if (!s) {
        fkm_json_field(j, "checkpoint", cJSON_CreateNull());
        return;
    }
    cJSON *o = cJSON_CreateObject();
    add_i64(j, o, "saves", s->saves);
    add_real(j, o, "save_s", s->save_s);
    add_i64(j, o, "resumes", s->resumes);
    if (s->resumes > 0)
        add_i64(j, o, "resumed_at", s->iteration);
    else
        fkm_json_add(j, o, "resumed_at", cJSON_CreateNull());
    add_real(j, o, "earlier_s", s->earlier_s);
    fkm_json_field(j, "checkpoint", o);
}

static void put_warnings(fkm_json *j)
{
    const char *const *list;
    int count = fkm_log_warnings(&list);
    fkm_json_list_begin(j, "warnings");
    for (int i = 0; i < count; i++)
        fkm_json_list_item(j, fkm_json_text(list[i]));
    fkm_json_list_end(j);
}

static const char *empty_name(fkm_empty_policy policy)
{
    switch (policy) {
    case FKM_EMPTY_FARTHEST:
        return "farthest";
    case FKM_EMPTY_KEEP:
        return "keep";
    case FKM_EMPTY_ERROR:
        return "error";
    }
    return "unknown";
}

static void put_params(fkm_json *j, const fkm_fit_options *p, const char *init)
{
    cJSON *o = cJSON_CreateObject();
    add_i64(j, o, "k", p->clusters);
    fkm_json_add(j, o, "seed", fkm_json_u64(p->seed));
    add_i64(j, o, "restarts", p->restarts);
    fkm_json_add_name(j, o, "init", init);
    add_text(j, o, "metric", "l2");
    add_real(j, o, "tol", p->tol);
    add_i64(j, o, "max_iter", p->max_iter);
    add_text(j, o, "empty", empty_name(p->empty));
    add_text(j, o, "nan", p->skip_nan ? "skip" : "error");
    fkm_json_field(j, "params", o);
}

/* Adds what is known of both. */
static int64_t sum_known(int64_t a, int64_t b)
{
    return a < 0 || b < 0 ? -1 : a + b;
}

/* All problems of a batch as one: sums and extremes; what has no meaning for several is NaN or -1.
 */
static fkm_problem_result combine(const fkm_result *r)
{
    fkm_problem_result all = r->problems[0];
    for (int64_t b = 1; b < r->batch; b++) {
        const fkm_problem_result *p = &r->problems[b];
        all.iterations = p->iterations > all.iterations ? p->iterations : all.iterations;
        all.converged = all.converged && p->converged;
        all.inertia += p->inertia;
        all.rows_used = sum_known(all.rows_used, p->rows_used);
        all.rows_skipped = sum_known(all.rows_skipped, p->rows_skipped);
        all.moved_last = sum_known(all.moved_last, p->moved_last);
        all.empty += p->empty;
        all.reseeded += p->reseeded;
        all.size_min = p->size_min < all.size_min ? p->size_min : all.size_min;
        all.size_max = p->size_max > all.size_max ? p->size_max : all.size_max;
        all.size_median = -1;
        all.imbalance = NAN;
    }
    return all;
}

/* null when it is not known. */
static void add_known(fkm_json *j, cJSON *object, const char *name, int64_t value)
{
    if (value >= 0)
        add_i64(j, object, name, value);
    else
        fkm_json_add(j, object, name, cJSON_CreateNull());
}

static cJSON *result_object(fkm_json *j, const fkm_problem_result *p)
{
    cJSON *o = cJSON_CreateObject(), *clusters = cJSON_CreateObject();
    add_i64(j, o, "iterations", p->iterations);
    add_real(j, o, "inertia", p->inertia);
    add_known(j, o, "rows_used", p->rows_used);
    add_known(j, o, "rows_skipped", p->rows_skipped);
    add_known(j, o, "moved_last", p->moved_last);
    add_i64(j, clusters, "empty", p->empty);
    add_known(j, clusters, "min", p->size_min);
    add_known(j, clusters, "median", p->size_median);
    add_known(j, clusters, "max", p->size_max);
    add_real(j, clusters, "imbalance", p->imbalance);
    add_i64(j, clusters, "reseeded", p->reseeded);
    fkm_json_add(j, o, "clusters", clusters);
    return o;
}

/* The starts of one problem, in the order of their seeds. */
static cJSON *restarts_array(const fkm_result *r, int64_t problem, fkm_json *j)
{
    cJSON *list = cJSON_CreateArray();
    for (int32_t i = 0; i < r->restart_count; i++) {
        const fkm_restart *s = &r->restarts[problem * r->restart_count + i];
        if (s->iterations == 0) /* has not ended */
            continue;
        cJSON *o = cJSON_CreateObject();
        fkm_json_add(j, o, "seed", fkm_json_u64(s->seed));
        add_real(j, o, "inertia", s->inertia);
        add_i64(j, o, "iterations", s->iterations);
        if (!list || !o || !cJSON_AddItemToArray(list, o)) {
            cJSON_Delete(o);
            cJSON_Delete(list);
            return NULL;
        }
    }
    return list;
}

static void put_problems(fkm_json *j, const fkm_result *r)
{
    fkm_json_list_begin(j, "problems");
    for (int64_t b = 0; b < r->batch; b++) {
        cJSON *o = result_object(j, &r->problems[b]);
        if (r->problems[b].rows_used < 0)
            add_text(j, o, "status", "time_limit");
        else
            add_text(j, o, "status", r->problems[b].converged ? "converged" : "max_iter");
        fkm_json_add(j, o, "restarts", restarts_array(r, b, j));
        fkm_json_list_item(j, o);
    }
    fkm_json_list_end(j);
}

static void put_iterations(fkm_json *j, const fkm_result *r)
{
    fkm_json_list_begin(j, "iterations");
    for (int32_t i = 0; i < r->iteration_count; i++) {
        const fkm_iteration *it = &r->iterations[i];
        cJSON *o = cJSON_CreateObject();
        if (r->batch > 1)
            add_i64(j, o, "problem", it->problem);
        add_i64(j, o, "i", it->i);
        add_real(j, o, "inertia", it->inertia);
        add_i64(j, o, "moved_rows", it->moved);
        add_real(j, o, "max_shift", it->max_shift);
        add_real(j, o, "s", it->seconds);
        add_real(j, o, "read_wait_s", it->read_wait_s);
        add_i64(j, o, "empty", it->empty);
        add_i64(j, o, "reseeded", it->reseeded);
        fkm_json_list_item(j, o);
    }
    fkm_json_list_end(j);
}

static void put_head(fkm_json *j, const char *schema, const char *status, const fkm_report *r)
{
    fkm_json_field(j, "schema", fkm_json_text(schema));
    fkm_json_field(j, "fkm_version", fkm_json_text(FKM_VERSION));
    fkm_json_field(j, "status", fkm_json_text(status));
    fkm_json_field(j, "started_utc", fkm_json_text(r->started_utc));
    fkm_json_field(j, "command", fkm_json_text(r->command));
    put_input(j, r->in);
}

int64_t fkm_fit_json_bytes(const fkm_fit_options *o, const fkm_reader *in)
{
    const int64_t head = 64 << 10, file = 300, problem = 420, restart = 110, iteration = 240;
    int64_t batch = fkm_reader_shape(in)->batch, bytes = head;
    for (int i = 0; i < fkm_reader_input_count(in); i++)
        bytes = fkm_add_sat(bytes, file + 2 * (int64_t)strlen(fkm_reader_input(in, i)->path));
    int64_t iterations = fkm_mul_sat(
        fkm_problems_listed(o, batch), fkm_min_i64(o->max_iter, FKM_USUAL_ITERATIONS) * iteration);
    int64_t problems = fkm_mul_sat(batch, problem + restart * o->restarts);
    return fkm_add_sat(bytes, fkm_add_sat(problems, iterations));
}

fkm_status fkm_fit_json(const fkm_fit_report *r, fkm_text_sink sink, void *arg, fkm_err *e)
{
    fkm_json j;
    fkm_problem_result all = combine(r->result);
    fkm_json_begin(&j, sink, arg, e);
    const char *status = r->stopped ? "time_limit" : all.converged ? "converged" : "max_iter";
    put_head(&j, "fkm-stats/1", status, &r->common);
    put_params(&j, r->options, r->init);
    put_machine(&j, &r->common.run->plan);
    cJSON *result = result_object(&j, &all);
    if (r->result->batch == 1)
        fkm_json_add(&j, result, "restarts", restarts_array(r->result, 0, &j));
    fkm_json_field(&j, "result", result);
    put_outputs(&j, &r->common);
    put_time(&j, &r->common);
    put_screening(&j, &r->common.run->screening);
    put_peak(&j, &r->common);
    put_gpu(&j, r->common.run);
    put_checkpoint(&j, r->options->saving);
    if (r->result->batch > 1) {
        put_problems(&j, r->result);
        fkm_json_field(&j, "problems_with_iterations",
            fkm_json_i64(fkm_problems_listed(r->options, r->result->batch)));
    }
    put_iterations(&j, r->result);
    put_warnings(&j);
    return fkm_json_end(&j);
}

static void put_memory(fkm_json *j, const fkm_run_plan *plan)
{
    cJSON *o = cJSON_CreateObject();
    add_i64(j, o, "limit_bytes", plan->memory_limit_bytes);
    add_i64(j, o, "planned_bytes", plan->planned_bytes);
    add_i64(j, o, "rows_bytes", plan->rows_bytes);
    add_i64(j, o, "labels_bytes", plan->labels_bytes);
    add_i64(j, o, "backend_bytes", plan->backend_bytes);
    add_i64(j, o, "result_bytes", plan->result_bytes);
    fkm_json_field(j, "memory", o);
}

static void put_predicted(fkm_json *j, const fkm_preview *p)
{
    cJSON *o = cJSON_CreateObject();
    add_i64(j, o, "sampled_rows", p->sampled_rows);
    add_real(j, o, "read_bytes_per_s", p->read_bytes_per_s);
    add_real(j, o, "before_s", p->before_s);
    add_real(j, o, "first_s", p->first_s);
    add_real(j, o, "iteration_s", p->iteration_s);
    add_real(j, o, "most_s", p->most_s);
    fkm_json_field(j, "predicted", o);
}

static void put_planned_outputs(fkm_json *j, const fkm_report *r)
{
    fkm_json_list_begin(j, "outputs");
    for (int i = 0; i < r->output_count; i++) {
        cJSON *o = cJSON_CreateObject();
        fkm_json_add_name(j, o, "path", r->outputs[i].path);
        add_i64(j, o, "bytes", r->outputs[i].bytes);
        fkm_json_list_item(j, o);
    }
    fkm_json_list_end(j);
}

static void put_planned_checkpoint(fkm_json *j, const fkm_preview *p, const fkm_saving *s)
{
    if (!s) {
        fkm_json_field(j, "checkpoint", cJSON_CreateNull());
        return;
    }
    cJSON *o = cJSON_CreateObject();
    fkm_json_add_name(j, o, "path", s->path);
    add_i64(j, o, "bytes", p->state_bytes);
    add_real(j, o, "every_s", s->every_s);
    if (p->resumes > 0)
        add_i64(j, o, "resumes_at", p->iteration);
    else
        fkm_json_add(j, o, "resumes_at", cJSON_CreateNull());
    add_real(j, o, "earlier_s", p->earlier_s);
    fkm_json_field(j, "checkpoint", o);
}

fkm_status fkm_preview_json(const fkm_preview_report *r, fkm_text_sink sink, void *arg, fkm_err *e)
{
    fkm_json j;
    const fkm_preview *p = r->preview;
    fkm_json_begin(&j, sink, arg, e);
    put_head(&j, "fkm-plan/1", "planned", &r->common);
    put_params(&j, r->options, r->init);
    put_machine(&j, &p->plan);
    cJSON *o = cJSON_CreateObject();
    fkm_json_add(&j, o, "kept", cJSON_CreateBool(p->plan.resident));
    add_i64(&j, o, "chunk_rows", p->plan.chunk_rows);
    add_i64(&j, o, "bytes_a_pass", p->plan.read_bytes_per_pass);
    add_i64(&j, o, "passes_most", p->passes_most);
    fkm_json_field(&j, "reading", o);
    put_memory(&j, &p->plan);
    put_predicted(&j, p);
    put_planned_outputs(&j, &r->common);
    put_planned_checkpoint(&j, p, r->options->saving);
    put_warnings(&j);
    return fkm_json_end(&j);
}

fkm_status fkm_predict_json(const fkm_predict_report *r, fkm_text_sink sink, void *arg, fkm_err *e)
{
    fkm_json j;
    fkm_json_begin(&j, sink, arg, e);
    put_head(&j, "fkm-predict/1", "done", &r->common);
    cJSON *o = cJSON_CreateObject();
    add_i64(&j, o, "k", r->clusters);
    fkm_json_add_name(&j, o, "centroids", r->centroids);
    add_text(&j, o, "metric", "l2");
    add_i64(&j, o, "top", r->top);
    fkm_json_field(&j, "params", o);
    put_machine(&j, &r->common.run->plan);
    o = cJSON_CreateObject();
    add_i64(&j, o, "rows", r->rows);
    fkm_json_field(&j, "result", o);
    put_outputs(&j, &r->common);
    put_time(&j, &r->common);
    put_screening(&j, &r->common.run->screening);
    put_peak(&j, &r->common);
    put_warnings(&j);
    return fkm_json_end(&j);
}

/* ---- text ---- */

const char *fkm_seconds_text(char *out, size_t cap, double seconds)
{
    if (seconds < 0.0995)
        snprintf(out, cap, "%.1f ms", seconds * 1e3);
    else if (seconds < 99.5)
        snprintf(out, cap, "%.2f s", seconds);
    else if (seconds < 3599.5)
        snprintf(out, cap, "%dm%02ds", (int)(seconds + 0.5) / 60, (int)(seconds + 0.5) % 60);
    else if (seconds < 1e8)
        snprintf(out, cap, "%dh%02dm", (int)(seconds / 3600), (int)(seconds / 60) % 60);
    else
        snprintf(out, cap, "years");
    return out;
}

/* Lines of a summary, to a sink; the first failure latches. */
struct lines {
    fkm_text_sink sink;
    void *arg;
    fkm_status st;
    fkm_err *e;
};

static void put_line(struct lines *l, const char *label, const char *fmt, ...) FKM_PRINTF(3, 4);

/* Names in it may hold anything: a line is what can be shown. */
static void put_line(struct lines *l, const char *label, const char *fmt, ...)
{
    char text[5000], line[4 * sizeof text];
    int used = snprintf(text, sizeof text, "%-12s", label);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text + used, sizeof text - (size_t)used, fmt, ap);
    va_end(ap);
    fkm_text_escape(line, sizeof line - 1, text);
    strcat(line, "\n");
    if (l->st == FKM_OK)
        l->st = l->sink(l->arg, line, strlen(line), l->e);
}

static void put_data(struct lines *l, const fkm_reader *in)
{
    const fkm_shape *shape = fkm_reader_shape(in);
    int count = fkm_reader_input_count(in);
    int64_t bytes = 0;
    char size[32], more[48] = "", batch[40] = "";
    for (int i = 0; i < count; i++)
        bytes += fkm_reader_input(in, i)->id.bytes;
    if (count > 1)
        snprintf(more, sizeof more, " and %d more", count - 1);
    if (shape->ndim == 3)
        snprintf(batch, sizeof batch, "%" PRId64 " problems of ", shape->batch);
    put_line(l, "data", "%s%s: %s%" PRId64 " x %" PRId32 " %s, %s", fkm_reader_input(in, 0)->path,
        more, batch, shape->rows, shape->dims, fkm_dtype_name(fkm_reader_input(in, 0)->dtype),
        fkm_bytes_text(size, sizeof size, bytes));
}

static void put_written(struct lines *l, const fkm_report *r, const char *marker)
{
    char size[32];
    const char *label = "written";
    for (int i = 0; i < r->output_count; i++) {
        put_line(l, label, "%s  %s", r->outputs[i].path,
            fkm_bytes_text(size, sizeof size, r->outputs[i].bytes));
        label = "";
    }
    if (marker)
        put_line(l, label, "%s", marker);
}

/* Which of several starts was the best. */
static void put_starts(struct lines *l, const fkm_result *r)
{
    int32_t best = 0;
    for (int32_t i = 1; i < r->restart_count; i++)
        if (r->restarts[i].inertia < r->restarts[best].inertia)
            best = i;
    if (r->batch > 1)
        put_line(l, "starts", "best of %" PRId32 " for each problem", r->restart_count);
    else
        put_line(l, "starts", "best of %" PRId32 ": seed %" PRIu64, r->restart_count,
            r->restarts[best].seed);
}

static void put_resumed(struct lines *l, const fkm_saving *s)
{
    char earlier[32];
    fkm_seconds_text(earlier, sizeof earlier, s->earlier_s);
    if (s->iteration == 0 && s->advanced == 0) /* its outputs could not be written */
        put_line(l, "resumed", "with the complete result, after %s", earlier);
    else
        put_line(l, "resumed", "at iteration %" PRId32 ", after %s%s", s->iteration, earlier,
            s->resumes > 1 ? " in several runs" : "");
}

static void put_clusters(struct lines *l, const fkm_fit_report *r, const fkm_problem_result *all)
{
    char median[48] = "", reseeded[48] = "";
    if (all->size_median >= 0)
        snprintf(median, sizeof median, "median %" PRId64 ", ", all->size_median);
    if (all->reseeded > 0)
        snprintf(reseeded, sizeof reseeded, ", %" PRId64 " reseeded", all->reseeded);
    put_line(l, "clusters",
        "%" PRId32 " of %" PRId64 " to %" PRId64 " rows (%s%" PRId32 " empty%s)",
        r->options->clusters, all->size_min, all->size_max, median, all->empty, reseeded);
}

/* ", 8 problems side by side", or nothing. */
static const char *describe_lanes(char *out, size_t cap, const fkm_run_plan *plan)
{
    out[0] = '\0';
    if (plan->lanes > 1)
        snprintf(out, cap, ", %" PRId32 " problems side by side", plan->lanes);
    return out;
}

static void put_time_line(struct lines *l, const fkm_report *r)
{
    char total[32], wait[32], peak[32], gpu[32], of_gpu[64] = "", lanes[48];
    const fkm_run_plan *plan = &r->run->plan;
    if (r->run->gpu_peak_bytes > 0)
        snprintf(of_gpu, sizeof of_gpu, ", of a GPU %s",
            fkm_bytes_text(gpu, sizeof gpu, r->run->gpu_peak_bytes));
    put_line(l, "time", "%s (%s waiting for data), %s %s, %" PRId32 " thread%s%s, peak memory %s%s",
        fkm_seconds_text(total, sizeof total, r->total_s),
        fkm_seconds_text(wait, sizeof wait, r->run->read_wait_s), plan->backend, plan->isa,
        plan->threads, plan->threads == 1 ? "" : "s", describe_lanes(lanes, sizeof lanes, plan),
        fkm_bytes_text(peak, sizeof peak, r->peak_bytes), of_gpu);
}

fkm_status fkm_fit_summary(
    const fkm_fit_report *r, const char *marker, fkm_text_sink sink, void *arg, fkm_err *e)
{
    struct lines l = {sink, arg, FKM_OK, e};
    fkm_problem_result all = combine(r->result);
    put_data(&l, r->common.in);
    if (all.rows_skipped > 0)
        put_line(
            &l, "skipped", "%" PRId64 " rows with NaN or infinity (label -1)", all.rows_skipped);
    if (r->options->saving && r->options->saving->resumes > 0)
        put_resumed(&l, r->options->saving);
    if (r->result->restart_count > 1)
        put_starts(&l, r->result);
    put_clusters(&l, r, &all);
    put_line(&l, "iterations", "%" PRId32 ", %s", all.iterations,
        all.converged ? "converged" : "stopped by --max-iter before it converged");
    put_line(&l, "inertia", "%.10g", all.inertia);
    put_time_line(&l, &r->common);
    put_written(&l, &r->common, marker);
    return l.st;
}

fkm_status fkm_predict_summary(
    const fkm_predict_report *r, fkm_text_sink sink, void *arg, fkm_err *e)
{
    struct lines l = {sink, arg, FKM_OK, e};
    put_data(&l, r->common.in);
    put_line(&l, "centroids", "%s: %" PRId32, r->centroids, r->clusters);
    put_time_line(&l, &r->common);
    put_written(&l, &r->common, NULL);
    return l.st;
}

static void put_reading(struct lines *l, const fkm_preview *p)
{
    char bytes[32];
    fkm_bytes_text(bytes, sizeof bytes, p->plan.read_bytes_per_pass);
    double rate = p->read_bytes_per_s * 1e-9;
    if (p->plan.resident)
        put_line(l, "reading", "%s once, at %.2f GB/s: rows are kept in memory", bytes, rate);
    else
        put_line(l, "reading",
            "%s a pass, at %.2f GB/s, at most %" PRId64 " passes, in chunks of %" PRId64 " rows",
            bytes, rate, p->passes_most, p->plan.chunk_rows);
}

static void put_memory_line(struct lines *l, const fkm_run_plan *plan)
{
    char text[6][32];
    put_line(l, "memory", "%s of %s: rows %s, labels %s, centroids and sums %s, results %s",
        fkm_bytes_text(text[0], 32, plan->planned_bytes),
        fkm_bytes_text(text[1], 32, plan->memory_limit_bytes),
        fkm_bytes_text(text[2], 32, plan->rows_bytes),
        fkm_bytes_text(text[3], 32, plan->labels_bytes),
        fkm_bytes_text(text[4], 32, plan->backend_bytes),
        fkm_bytes_text(text[5], 32, plan->result_bytes));
}

static void put_predicted_line(struct lines *l, const fkm_preview *p, const fkm_fit_options *o)
{
    char before[32], iteration[32], most[32];
    put_line(l, "time", "about %s an iteration after %s, at most %s for %" PRId32 " iterations",
        fkm_seconds_text(iteration, sizeof iteration, p->iteration_s),
        fkm_seconds_text(before, sizeof before, p->before_s),
        fkm_seconds_text(most, sizeof most, p->most_s), o->max_iter);
}

static void put_state_line(struct lines *l, const fkm_preview *p, const fkm_saving *s)
{
    char size[32], text[32];
    if (!s) {
        put_line(l, "checkpoint", "off");
        return;
    }
    put_line(l, "checkpoint", "%s  %s, every %s", s->path,
        fkm_bytes_text(size, sizeof size, p->state_bytes),
        fkm_seconds_text(text, sizeof text, s->every_s));
    if (p->resumes > 0)
        put_line(l, "resumes", "at iteration %" PRId32 ", after %s", p->iteration,
            fkm_seconds_text(text, sizeof text, p->earlier_s));
}

fkm_status fkm_preview_summary(
    const fkm_preview_report *r, const char *marker, fkm_text_sink sink, void *arg, fkm_err *e)
{
    struct lines l = {sink, arg, FKM_OK, e};
    const fkm_preview *p = r->preview;
    char size[32], lanes[48];
    put_data(&l, r->common.in);
    put_line(&l, "plan", "%" PRId32 " clusters, %s %s, %" PRId32 " thread%s%s",
        r->options->clusters, p->plan.backend, p->plan.isa, p->plan.threads,
        p->plan.threads == 1 ? "" : "s", describe_lanes(lanes, sizeof lanes, &p->plan));
    put_reading(&l, p);
    put_memory_line(&l, &p->plan);
    put_predicted_line(&l, p, r->options);
    put_state_line(&l, p, r->options->saving);
    for (int i = 0; i < r->common.output_count; i++)
        put_line(&l, i ? "" : "to write", "%s  %s", r->common.outputs[i].path,
            fkm_bytes_text(size, sizeof size, r->common.outputs[i].bytes));
    put_line(&l, "", "%s", marker);
    return l.st;
}
