/* Runs: the plan, problems side by side, their state on disk, and what came of them. What is done
 * to one problem is lloyd.c's. */
#include "engine.h"

#include "backend.h"
#include "base/checked.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "checkpoint.h"
#include "lloyd.h"
#include "plan.h"
#include "seed.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- the state on disk ---- */

static bool is_new(const fkm_run *r)
{
    for (int64_t b = 0; b < r->shape.batch; b++) {
        const fkm_problem_state *s = &r->state.problems[b];
        if (s->stage == FKM_DONE || (s->stage == FKM_AT_WORK && s->restart + s->iteration > 0))
            return false;
    }
    return true;
}

/* Saves the state, while all lanes stand still or are gone. What is on disk from before stays when
 * that fails, and as long as there is nothing new. */
static void save_state(void *arg)
{
    fkm_run *r = arg;
    fkm_saving *s = r->o->saving;
    fkm_err e = {0};
    double begin = fkm_now();
    fkm_lanes_set_due(&r->lanes, begin + s->every_s);
    if (r->frozen || is_new(r))
        return;
    r->state.resumes = s->resumes;
    r->state.elapsed_s = s->earlier_s + begin - r->begin_s;
    if (fkm_state_save(&r->state, r->o, &r->shape, s->path, r->key, &e) == FKM_OK) {
        s->kept = true;
        s->saves++;
        for (int32_t i = 0; i < r->lanes.count; i++)
            if (r->lane[i].problem)
                fkm_problem_is_saved(r->lane[i].problem);
        fkm_verbose("saved %s in %.0f ms", s->path, (fkm_now() - begin) * 1e3);
    } else if (!s->failed) {
        s->failed = true;
        fkm_warn("the state was not saved: %s%s", e.msg, s->kept ? "; the one before is kept" : "");
    }
    s->save_s += fkm_now() - begin;
    fkm_lanes_set_due(&r->lanes, fkm_now() + s->every_s);
}

static void count_rows(fkm_run *r)
{
    const fkm_result *out = r->out;
    memset(out->counts, 0, (size_t)out->batch * (size_t)out->clusters * sizeof *out->counts);
    for (int64_t b = 0; b < out->batch; b++)
        for (int64_t i = b * out->rows;
             r->state.problems[b].stage == FKM_DONE && i < (b + 1) * out->rows; i++)
            if (out->labels[i] >= 0)
                out->counts[b * out->clusters + out->labels[i]]++;
}

/* The inputs of the state had other modification times: files that were copied, or others. Rows
 * that are read again are held to their checksums then; here are those that are not. A problem
 * whose first pass was not complete has hardly begun, and does so anew. */
static fkm_status prove_inputs(fkm_run *r, fkm_err *e)
{
    fkm_checksums *c = &r->checksums;
    const fkm_saving *s = r->o->saving;
    fkm_verbose("an input has another modification time than it had when %s was written: its rows "
                "are compared",
        s->path);
    for (int64_t b = 0; b < r->shape.batch; b++) {
        fkm_problem_state *p = &r->state.problems[b];
        bool whole = c->known[b] == c->blocks;
        if (p->stage == FKM_DONE && !whole) {
            fkm_fail(e, FKM_EFILE,
                "%s: an input has another modification time than it had, and there are no "
                "checksums of its rows",
                s->path);
            return fkm_hint(e, "--fresh starts anew and removes it; another -o PREFIX keeps it");
        }
        if (p->stage == FKM_DONE)
            FKM_TRY(fkm_checksums_verify(c, r->in, b, r->w ? r->w->stop : NULL, e));
        if (p->stage != FKM_DONE && !whole) {
            fkm_state_forget(p);
            fkm_checksums_forget(c, b);
        }
    }
    return FKM_OK;
}

/* e: why it is of no use. */
static fkm_status discard(fkm_saving *s, fkm_err *e)
{
    fkm_err why = *e;
    FKM_TRY(fkm_state_remove(s->path, e));
    fkm_warn("%s; it was removed, the run begins anew", why.msg);
    s->kept = s->refused = false;
    memset(e, 0, sizeof *e);
    return FKM_OK;
}

/* Goes on from the state on disk, if there is one. */
static fkm_status load_state(fkm_run *r, fkm_err *e)
{
    fkm_saving *s = r->o->saving;
    fkm_status st;
    if (!s)
        return FKM_OK;
    FKM_TRY(fkm_state_key(&r->key, r->o, r->in, e));
    fkm_lanes_set_due(&r->lanes, r->begin_s + s->every_s);
    if (s->fresh)
        return fkm_state_remove(s->path, e);
    if (!fkm_path_exists(s->path))
        return FKM_OK;
    s->refused = true;
    st = fkm_state_load(&r->state, s->path, r->key, r->o, r->in, e);
    if (st != FKM_OK)
        return r->state.outdated && s->discard ? discard(s, e) : st;
    s->kept = true;
    if (r->state.redated)
        FKM_TRY(prove_inputs(r, e));
    s->refused = false;
    count_rows(r);
    int64_t first = fkm_state_first(&r->state, r->out->batch);
    s->resumes = r->state.resumes + 1;
    s->problem = (int32_t)first;
    s->restart = first < r->out->batch ? r->state.problems[first].restart : 0;
    s->iteration = first < r->out->batch ? r->state.problems[first].iteration : 0;
    s->earlier_s = r->state.elapsed_s;
    if (r->w && r->w->resumed)
        r->w->resumed(r->w->arg, s);
    return FKM_OK;
}

/* ---- the plan, and what is allocated by it ---- */

static fkm_status allocate_result(fkm_run *r, fkm_err *e)
{
    fkm_result *out = r->out;
    int64_t clusters, cells, rows;
    out->batch = r->shape.batch;
    out->rows = r->shape.rows;
    out->clusters = r->o->clusters;
    out->dims = r->shape.dims;
    if (!fkm_mul_i64(&clusters, out->batch, out->clusters) ||
        !fkm_mul_i64(&cells, clusters, out->dims) || !fkm_mul_i64(&rows, out->batch, out->rows))
        return fkm_fail(e, FKM_ENOMEM, "%lld problems of %d clusters and %d dims are too large",
            (long long)out->batch, out->clusters, out->dims);
    FKM_TRY(fkm_alloc(&out->centroids, cells, sizeof(float), "the centroids", e));
    FKM_TRY(fkm_alloc(&out->labels, rows, sizeof(int32_t), "the labels", e));
    FKM_TRY(fkm_alloc(&out->counts, clusters, sizeof(int64_t), "cluster sizes", e));
    if (!fkm_mul_i64(&rows, out->batch, r->o->restarts))
        return fkm_fail(e, FKM_ENOMEM, "%lld problems with %d starts each are too many",
            (long long)out->batch, r->o->restarts);
    out->restart_count = r->o->restarts;
    FKM_TRY(fkm_calloc(&out->restarts, rows, sizeof *out->restarts, "results", e));
    FKM_TRY(fkm_state_open(&r->state, out->batch, e));
    r->state.result = out;
    r->state.checksums = r->checksums.crc ? &r->checksums : NULL;
    return fkm_calloc(&out->problems, out->batch, sizeof *out->problems, "results", e);
}

fkm_status fkm_fit_check(const fkm_fit_options *o, const fkm_shape *shape, fkm_err *e)
{
    if (o->clusters < 1 || o->clusters > FKM_MAX_CLUSTERS)
        return fkm_fail(
            e, FKM_EUSAGE, "%d clusters: expected 1 to %d", o->clusters, FKM_MAX_CLUSTERS);
    if (shape->dims < 1 || shape->dims > FKM_MAX_DIMS)
        return fkm_fail(e, FKM_EDATA, "%d dims: expected 1 to %d", shape->dims, FKM_MAX_DIMS);
    if (o->clusters > shape->rows)
        return fkm_too_many_clusters(o->clusters, shape->rows, "rows", e);
    if (o->max_iter < 1 || !(o->tol >= 0))
        return fkm_fail(e, FKM_EUSAGE, "max_iter must be at least 1, tol at least 0");
    if (o->restarts < 1)
        return fkm_fail(e, FKM_EUSAGE, "%d restarts: expected at least 1", o->restarts);
    return FKM_OK;
}

/* Bytes of the result, and of what is allocated beside it. */
static int64_t result_bytes(const fkm_fit_options *o, const fkm_shape *shape)
{
    int64_t batch = shape->batch, k = o->clusters;
    int64_t result = fkm_mul_sat(batch, fkm_mul_sat(k, 4 * (int64_t)shape->dims + 8));
    result = fkm_add_sat(result, fkm_mul_sat(batch, sizeof(fkm_problem_result)));
    result = fkm_add_sat(result, fkm_mul_sat(batch, fkm_mul_sat(o->restarts, sizeof(fkm_restart))));
    result = fkm_add_sat(result, fkm_mul_sat(batch, sizeof(fkm_problem_state)));
    if (o->restarts > 1) /* best centroids, of problems that are at work, or were in a state */
        result = fkm_add_sat(result, fkm_mul_sat(fkm_min_i64(batch, FKM_MOST_LANES),
                                         fkm_mul_sat(k, 4 * (int64_t)shape->dims)));
    if (o->init) /* the caller's */
        result = fkm_add_sat(result, fkm_mul_sat(o->init_batch ? batch : 1, 4 * k * shape->dims));
    /* Iterations: lists of those at work, of two starts and while they grow; of those that are
     * done, and when all are gathered. */
    int64_t lists = 6 * fkm_min_i64(batch, FKM_MOST_LANES) + 2 * fkm_problems_listed(o, batch);
    result = fkm_add_sat(result, fkm_mul_sat(lists, fkm_min_i64(o->max_iter, FKM_USUAL_ITERATIONS) *
                                                        (int64_t)sizeof(fkm_iteration)));
    result = fkm_add_sat(result, fkm_checksums_bytes(shape));
    return result;
}

fkm_status fkm_fit_plan(fkm_run_plan *run_plan, fkm_plan *backend, const fkm_backend_ops **ops,
    const fkm_fit_options *o, const fkm_reader *in, fkm_err *e)
{
    const fkm_shape *shape = fkm_reader_shape(in);
    FKM_TRY(fkm_fit_check(o, shape, e));
    int64_t labels = fkm_mul_sat(fkm_mul_sat(shape->batch, shape->rows), sizeof(int32_t));
    fkm_init_method method = o->init ? FKM_INIT_RANDOM : o->method;
    int64_t result = fkm_add_sat(result_bytes(o, shape), fkm_reader_heap_bytes(in));
    int64_t lane =
        (int64_t)o->clusters * 24; /* draws, farthest rows, sorted sizes: one at a time */
    lane = fkm_add_sat(lane, fkm_seed_bytes(method, o->clusters, shape));
    if (o->saving) /* safe centroids */
        lane = fkm_add_sat(lane, fkm_mul_sat(o->clusters, 4 * (int64_t)shape->dims));
    fkm_plan_request request = {
        .machine = &o->machine,
        .shape = shape,
        .row_read_bytes = fkm_reader_row_bytes(in),
        .clusters = o->clusters,
        .top = 1,
        .seed_clusters = fkm_seed_clusters(method, o->clusters, shape->rows),
        .update = true,
        .wide = true, /* counted, allocated when the data asks for it */
        .may_stay = true,
        .labels_bytes = labels,
        .result_bytes = result,
        .lane_bytes = fkm_add_sat(lane, sizeof(fkm_lane)),
        .most_lanes = (int32_t)fkm_min_i64(shape->batch, FKM_MOST_LANES),
        .bytes_per_row = (int64_t)sizeof(double) + fkm_seed_bytes_per_row(method),
    };
    FKM_TRY(fkm_backend_choose(ops, &request.devices, &o->machine, e));
    request.ops = *ops;
    FKM_TRY(fkm_plan_make(run_plan, backend, &request, e));
    backend->wide = false;
    return FKM_OK;
}

/* ---- the run ---- */

static fkm_status open_lane(fkm_run *r, int32_t index, const fkm_plan *plan, fkm_err *e)
{
    const fkm_run_plan *run = &r->out->run.plan;
    fkm_lane *l = &r->lane[index];
    int64_t cells = (int64_t)r->o->clusters * r->shape.dims;
    l->r = r;
    l->plan = *plan;
    fkm_plan_of_lane(&l->plan, l->device, run, index);
    l->plan.stop = r->w ? r->w->stop : NULL;
    FKM_TRY(r->ops->open(&l->backend, &l->plan, e));
    FKM_TRY(fkm_source_open(&l->source, r->in, run, r->checksums.crc ? &r->checksums : NULL, e));
    fkm_source_pin(l->source, r->ops, l->backend);
    fkm_source_use(l->source, r->ops, l->backend);
    if (r->o->saving)
        FKM_TRY(fkm_alloc(&l->safe, cells, sizeof *l->safe, "safe centroids", e));
    return fkm_alloc(&l->distances, run->chunk_rows, sizeof(double), "distances", e);
}

static void close_lane(fkm_run *r, fkm_lane *l)
{
    fkm_free(l->distances);
    fkm_free(l->safe);
    if (l->backend) /* before the rows that it may be reading */
        r->ops->close(l->backend);
    fkm_source_close(l->source);
}

static bool is_done(void *arg, int64_t index)
{
    return ((fkm_run *)arg)->state.problems[index].stage == FKM_DONE;
}

static fkm_status solve(void *arg, int32_t lane, int64_t index, fkm_err *e)
{
    return fkm_solve(&((fkm_run *)arg)->lane[lane], index, e);
}

static fkm_status open_run(fkm_run *r, fkm_err *e)
{
    const fkm_fit_options *o = r->o;
    fkm_run_plan *plan = &r->out->run.plan;
    fkm_plan backend;
    FKM_TRY(fkm_fit_plan(plan, &backend, &r->ops, o, r->in, e));
    if (o->saving || !plan->resident) /* rows that are read once need no checksums */
        FKM_TRY(fkm_checksums_open(&r->checksums, r->in, e));
    FKM_TRY(fkm_calloc(&r->lane, plan->lanes, sizeof *r->lane, "problems side by side", e));
    r->lanes = (fkm_lanes){.count = plan->lanes,
        .problems = r->shape.batch,
        .arg = r,
        .is_done = is_done,
        .solve = solve,
        .save = save_state};
    fkm_lanes_open(&r->lanes);
    for (int32_t i = 0; i < plan->lanes; i++)
        FKM_TRY(open_lane(r, i, &backend, e));
    plan->isa = r->ops->isa(r->lane[0].backend);
    if (r->w && r->w->planned)
        r->w->planned(r->w->arg, plan);
    return allocate_result(r, e);
}

/* Ends what still reads ahead, too. */
static void close_lanes(fkm_run *r)
{
    for (int32_t i = 0; r->lane && i < r->lanes.count; i++)
        close_lane(r, &r->lane[i]);
    if (r->lane)
        fkm_lanes_close(&r->lanes);
    fkm_free(r->lane);
    r->lane = NULL;
}

static void close_run(fkm_run *r)
{
    close_lanes(r);
    fkm_free(r->key);
    fkm_state_close(&r->state, r->shape.batch);
    fkm_checksums_close(&r->checksums);
    pthread_mutex_destroy(&r->talk);
}

/* ---- what came of it ---- */

/* The iterations of all problems, in their order. */
static fkm_status gather_iterations(fkm_run *r, fkm_err *e)
{
    fkm_result *out = r->out;
    int64_t total = 0;
    for (int64_t b = 0; b < out->batch; b++)
        total += r->state.problems[b].iteration_count;
    if (total > INT32_MAX)
        return fkm_fail(e, FKM_ENOMEM, "%lld iterations are too many", (long long)total);
    FKM_TRY(fkm_alloc(&out->iterations, total, sizeof *out->iterations, "iteration statistics", e));
    for (int64_t b = 0; b < out->batch; b++) {
        fkm_problem_state *s = &r->state.problems[b];
        if (s->iteration_count > 0)
            memcpy(out->iterations + out->iteration_count, s->iterations,
                (size_t)s->iteration_count * sizeof *s->iterations);
        out->iteration_count += s->iteration_count;
        fkm_free(s->iterations);
        s->iterations = NULL;
    }
    return FKM_OK;
}

static void add_lane(fkm_run_stats *to, const fkm_lane *l)
{
    const fkm_screening *s = &l->stats.screening;
    to->screening.rows_screened += s->rows_screened;
    to->screening.rows_in_doubt += s->rows_in_doubt;
    to->screening.candidates += s->candidates;
    to->screening.rescans += s->rescans;
    to->screening.rows_skipped_by_bounds += s->rows_skipped_by_bounds;
    to->passes += l->stats.passes;
    to->graph_launches += l->stats.graph_launches;
    to->distances = fkm_add_sat(to->distances, l->stats.distances);
    to->init_s += l->stats.init_s / to->plan.lanes;
    to->read_wait_s += fkm_source_wait(l->source) / to->plan.lanes;
    to->bytes_read += fkm_source_bytes_read(l->source);
}

/* Times of lanes are on the average. */
static void finish_stats(fkm_run *r)
{
    fkm_run_stats *s = &r->out->run;
    s->plan.isa = r->ops->isa(r->lane[0].backend); /* a backend may have found a better one */
    for (int32_t i = 0; i < r->lanes.count; i++)
        add_lane(s, &r->lane[i]);
    s->total_s = fkm_now() - r->begin_s;
    s->compute_s = s->total_s - s->read_wait_s;
    s->flop = fkm_mul_sat(s->distances, 2 * (int64_t)r->shape.dims);
    s->gpu_peak_bytes = r->ops->device_peak ? r->ops->device_peak() : 0;
}

/* Converged with farthest: there is no row left that an empty cluster could take, so all rows of
 * the others are equal, or each is alone. */
static void warn_of_empty(const fkm_run *r)
{
    for (int64_t i = 0; i < r->out->batch; i++) {
        const fkm_problem_result *p = &r->out->problems[i];
        const char *why = "--max-iter came before they were given any";
        if (r->o->empty == FKM_EMPTY_KEEP)
            why = "--empty keep leaves them so";
        else if (p->converged)
            why = "the data has fewer distinct rows than clusters";
        if (p->empty > 0)
            fkm_warn("%d of %d clusters have no rows: %s", p->empty, r->o->clusters, why);
    }
}

/* What is known of a problem that was stopped: the last iteration of the start at work. */
static void describe_stopped(fkm_problem_result *p, const fkm_problem_state *s)
{
    const fkm_iteration *its = s->iterations;
    int32_t n = s->iteration_count;
    *p = (fkm_problem_result){.inertia = NAN,
        .imbalance = NAN,
        .rows_used = -1,
        .rows_skipped = -1,
        .moved_last = -1,
        .size_min = -1,
        .size_median = -1,
        .size_max = -1};
    for (int32_t i = 0; i < n; i++)
        if (its[i].restart == its[n - 1].restart) {
            p->iterations = its[i].i;
            p->inertia = its[i].inertia;
            p->moved_last = its[i].moved;
            p->empty = its[i].empty;
            p->reseeded += its[i].reseeded;
        }
}

/* A run that was stopped tells how far it got. */
static void finish_stopped(fkm_run *r)
{
    fkm_err ignored = {0}; /* without memory the list of iterations stays empty */
    for (int64_t b = 0; b < r->out->batch; b++)
        if (r->state.problems[b].stage != FKM_DONE)
            describe_stopped(&r->out->problems[b], &r->state.problems[b]);
    (void)gather_iterations(r, &ignored);
    finish_stats(r);
}

/* What a state is made of, beside the result: for fkm_fit_keep. Nothing reads rows any more that
 * would be held to the checksums. */
static void hand_over(fkm_run *r)
{
    fkm_err ignored = {0}; /* then there are none in the state, and times must be the same */
    close_lanes(r);
    r->out->key = r->key;
    r->key = NULL;
    if (!r->o->saving || fkm_calloc(&r->out->checksums, 1, sizeof *r->out->checksums, "checksums",
                             &ignored) != FKM_OK)
        return;
    *r->out->checksums = r->checksums;
    memset(&r->checksums, 0, sizeof r->checksums);
}

static fkm_status run_lanes(fkm_run *r, fkm_err *e)
{
    FKM_TRY(load_state(r, e));
    fkm_status st = fkm_lanes_run(&r->lanes, e);
    if (st != FKM_OK && r->o->saving && fkm_is_resumable(st))
        save_state(r);
    return st;
}

/* *outdated: rows are not what they were when the checkpoint was written. */
static fkm_status fit(fkm_result *out, bool *outdated, fkm_reader *in, const fkm_fit_options *o,
    const fkm_observer *w, fkm_err *e)
{
    fkm_status st = FKM_OK;
    fkm_run r = {.o = o, .w = w, .in = in, .out = out, .shape = *fkm_reader_shape(in)};
    bool kept;
    memset(out, 0, sizeof *out);
    pthread_mutex_init(&r.talk, NULL);
    r.begin_s = fkm_now();
    FKM_GO(open_run(&r, e));
    FKM_GO(run_lanes(&r, e));
    FKM_GO(gather_iterations(&r, e));
    finish_stats(&r);
    warn_of_empty(&r);
    hand_over(&r);
out:
    kept = st == FKM_ESTOPPED && o->saving && o->saving->kept;
    if (kept)
        finish_stopped(&r);
    *outdated = st == FKM_EDATA && r.checksums.outdated;
    close_run(&r);
    if (st != FKM_OK && !kept)
        fkm_result_free(out);
    return st;
}

fkm_status fkm_fit(
    fkm_result *out, fkm_reader *in, const fkm_fit_options *o, const fkm_observer *w, fkm_err *e)
{
    fkm_saving *s = o->saving;
    bool outdated;
    fkm_status st = fit(out, &outdated, in, o, w, e);
    if (!outdated || !s->discard)
        return st;
    FKM_TRY(discard(s, e));
    *s = (fkm_saving){.path = s->path, .every_s = s->every_s};
    return fit(out, &outdated, in, o, w, e);
}

fkm_status fkm_fit_key(char **out, const fkm_fit_options *o, const fkm_reader *in, fkm_err *e)
{
    return fkm_state_key(out, o, in, e);
}

int64_t fkm_fit_state_bytes(const fkm_fit_options *o, const fkm_shape *shape)
{
    return fkm_state_bytes(o, shape);
}

fkm_status fkm_fit_keep(fkm_result *r, fkm_reader *in, const fkm_fit_options *o, fkm_err *e)
{
    fkm_status st = FKM_OK;
    fkm_state state = {
        .resumes = o->saving->resumes,
        .elapsed_s = o->saving->earlier_s + r->run.total_s,
        .result = r,
        .checksums = r->checksums,
    };
    FKM_GO(fkm_state_open(&state, r->batch, e));
    for (int32_t i = 0; i < r->iteration_count; i++) {
        fkm_problem_state *s = &state.problems[r->iterations[i].problem];
        if (s->iteration_count++ == 0)
            s->iterations = &r->iterations[i];
    }
    for (int64_t b = 0; b < r->batch; b++)
        state.problems[b].stage = FKM_DONE;
    st = fkm_state_save(&state, o, fkm_reader_shape(in), o->saving->path, r->key, e);
    o->saving->kept = o->saving->kept || st == FKM_OK;
out:
    for (int64_t b = 0; state.problems && b < r->batch; b++)
        state.problems[b].iterations = NULL; /* the result's */
    fkm_state_close(&state, r->batch);
    return st;
}
