/* Lloyd's algorithm: the loop, the stopping rule, empty clusters, progress and interruption.
 *
 * Knows no instruction set, device or file format. What makes two runs give the same bits lives in
 * the backend (exact labels, integer sums); the engine adds no arithmetic of its own. */
#include "engine.h"

#include "backend.h"
#include "base/checked.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "checkpoint.h"
#include "farthest.h"
#include "plan.h"
#include "scan.h"
#include "seed.h"
#include "source.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FAR_ROOM 4096  /* farthest rows that a streaming pass collects by the way */
#define SAFE_SHARE 100 /* one in so much time may go into copies of centroids off the device */

/* One run of fkm_fit. */
typedef struct run {
    const fkm_fit_options *o;
    const fkm_observer *w;
    fkm_reader *in;
    fkm_shape shape;
    const fkm_backend_ops *ops;
    fkm_plan plan;
    fkm_backend *backend;
    fkm_source *source;
    fkm_result *out;
    double *distances; /* [chunk_rows]: of the search for farthest rows */
    float *best;       /* [clusters][dims]: of the best start so far; NULL for a single start */
    int64_t iteration_room;
    int32_t at; /* the problem at work */
    double begin_s;
    fkm_checksums checksums; /* of the rows; open when they may be read again */
    char *key;               /* of the state on disk; NULL: none is kept */
    fkm_state state;         /* as it was loaded, in use while */
    bool resuming;
    double next_save_s; /* on the clock */
    float *safe; /* [clusters][dims]: centroids that cannot be lost with the device, nor by an
                    error while they move; NULL: no state is kept */
    double next_safe_s; /* on the clock */
} run;

/* One problem of the batch within it. */
typedef struct problem {
    run *r;
    int32_t index;
    int32_t restart;         /* from 0; its seed is the option's plus this */
    int32_t first_iteration; /* of this start, in the result's list */
    float *centroids;        /* [clusters][dims], in the result */
    int32_t *labels;         /* [rows], in the result */
    fkm_scan scan;   /* of all rows: complete after a resident load or the first streaming pass */
    bool scanned;    /* or needs no scan: 8-bit types have no NaN, and one scale fits all */
    fkm_scale scale; /* in use; a guess until */
    bool scale_known;
    bool guessed;       /* by the state that was loaded */
    bool squares_known; /* the backend has the constant of inertia for this scale */
    int32_t reseeded;   /* clusters that ran empty in the pass before */
    fkm_farthest far;   /* farthest rows of the pass at hand, should a cluster run empty */
    int32_t iteration;
    int64_t moved;       /* rows that this iteration has moved, should it be broken off */
    int64_t known_moved; /* what moved of a pass that is made again for its labels; else -1 */
    int32_t
        safe_iteration; /* the one that run.safe is of; 0: of none, or what is on disk is newer */
    int64_t safe_moved; /* by its pass; -1: it was not complete */
    bool adrift; /* what the backend holds is of no iteration: lost, or half on the way to the next
                  */
    int32_t best_start, best_iterations; /* so far */
    bool restoring;                      /* all starts have ended, the best one is set up again */
    fkm_problem_result *result;
} problem;

static bool stopped(const run *r)
{
    return r->w && r->w->stop && *r->w->stop;
}

static bool is_eight_bit(const run *r)
{
    return r->shape.dtype == FKM_U8 || r->shape.dtype == FKM_I8;
}

static uint64_t seed_of(const problem *p)
{
    return p->r->o->seed + (uint64_t)p->restart;
}

/* Of one problem. */
static size_t centroids_bytes(const run *r)
{
    return (size_t)r->o->clusters * (size_t)r->shape.dims * sizeof(float);
}

static int64_t base_row(const problem *p)
{
    return p->index * p->r->shape.rows;
}

static void report_progress(const problem *p, int64_t rows_done)
{
    const run *r = p->r;
    if (!r->w || !r->w->progress)
        return;
    const fkm_iteration *its = r->out->iterations;
    int32_t n = r->out->iteration_count;
    fkm_progress progress = {
        .problem = p->index,
        .restart = p->restart,
        .iteration = p->iteration,
        .max_iter = r->o->max_iter,
        .rows_done = rows_done,
        .rows_total = r->shape.rows,
        .bytes_read = fkm_source_bytes_read(r->source),
        .elapsed_s = fkm_now() - r->begin_s,
        .last = n > p->first_iteration ? &its[n - 1] : NULL,
        .before = n > p->first_iteration + 1 ? &its[n - 2] : NULL,
    };
    r->w->progress(r->w->arg, &progress);
}

/* Room for one more, before the centroids move: what is not recorded could not be gone on from. */
static fkm_status make_room_for_record(run *r, fkm_err *e)
{
    fkm_result *out = r->out;
    if (out->iteration_count < r->iteration_room)
        return FKM_OK;
    fkm_iteration *more = NULL;
    int64_t room = r->iteration_room ? 2 * r->iteration_room : 64;
    FKM_TRY(fkm_alloc(&more, room, sizeof *more, "iteration statistics", e));
    if (out->iteration_count)
        memcpy(more, out->iterations, (size_t)out->iteration_count * sizeof *more);
    fkm_free(out->iterations);
    out->iterations = more;
    r->iteration_room = room;
    return FKM_OK;
}

static void record_iteration(run *r, const fkm_iteration *it)
{
    fkm_result *out = r->out;
    out->iterations[out->iteration_count++] = *it;
    if (r->o->saving)
        r->o->saving->advanced++;
}

static void count_screening(run *r, const fkm_pass *pass)
{
    fkm_screening *s = &r->out->run.screening;
    s->rows_screened += pass->rows;
    s->rows_in_doubt += pass->in_doubt;
    s->candidates += pass->candidates;
    s->rescans += pass->rescans;
    s->rows_skipped_by_bounds += pass->skipped_by_bounds;
    r->out->run.distances += pass->rows * r->o->clusters;
}

/* ---- the state on disk ---- */

/* A start has centroids, which are not those of the best one. */
static bool has_started(const problem *p)
{
    return p->iteration > 0 && !p->restoring;
}

static fkm_status write_state(problem *p, fkm_err *e)
{
    run *r = p->r;
    const fkm_fit_options *o = r->o;
    bool started = has_started(p), relabel = started && p->known_moved >= 0;
    fkm_state state = {
        .problem = p->index,
        .restart = p->restoring ? o->restarts : p->restart,
        .iteration = started ? p->iteration : 0,
        .best_start = p->best_start,
        .best_iterations = p->best_iterations,
        .moved = relabel   ? p->known_moved
                 : started ? p->moved
                           : 0,
        .relabel = relabel,
        .scanned = p->scanned,
        .scale = p->scale,
        .resumes = o->saving->resumes,
        .elapsed_s = o->saving->earlier_s + fkm_now() - r->begin_s,
        .result = r->out,
        .best = r->best,
        .checksums = &r->checksums,
    };
    return fkm_state_save(&state, o, &r->shape, o->saving->path, r->key, e);
}

/* What the state needs of the backend. */
static fkm_status fetch_state(problem *p, fkm_err *e)
{
    run *r = p->r;
    if (!has_started(p))
        return FKM_OK;
    FKM_TRY(r->ops->labels(r->backend, p->labels, e));
    return r->ops->get_centroids(r->backend, p->centroids, NULL, e);
}

/* Saves the state, which was fetched. What is on disk from before stays when that fails, and as
 * long as there is nothing new. */
static void save_state(problem *p)
{
    run *r = p->r;
    fkm_saving *s = r->o->saving;
    bool nothing = p->index == 0 && p->restart == 0 && p->iteration == 0;
    fkm_err e = {0};
    if (nothing)
        return;
    double begin = fkm_now();
    if (write_state(p, &e) == FKM_OK) {
        s->kept = true;
        s->saves++;
        p->safe_iteration = 0;
        fkm_verbose("saved %s in %.0f ms", s->path, (fkm_now() - begin) * 1e3);
    } else if (!s->failed) {
        s->failed = true;
        fkm_warn("the state was not saved: %s%s", e.msg, s->kept ? "; the one before is kept" : "");
    }
    s->save_s += fkm_now() - begin;
    r->next_save_s = fkm_now() + s->every_s;
}

static fkm_status save_if_due(problem *p, fkm_err *e)
{
    double begin = fkm_now();
    if (!p->r->o->saving || begin < p->r->next_save_s)
        return FKM_OK;
    FKM_TRY(fetch_state(p, e));
    p->r->o->saving->save_s += fkm_now() - begin;
    save_state(p);
    return FKM_OK;
}

/* Copies the centroids of a pass that is complete to where they outlast the device: what else the
 * state needs follows from them. As often as costs next to nothing, or when `needed`. */
static fkm_status keep_safe(problem *p, const fkm_pass *pass, bool needed, fkm_err *e)
{
    run *r = p->r;
    double begin = fkm_now();
    if (!r->safe || !(needed || (r->ops->may_be_lost && begin >= r->next_safe_s)))
        return FKM_OK;
    FKM_TRY(r->ops->get_centroids(r->backend, p->centroids, NULL, e));
    memcpy(r->safe, p->centroids, centroids_bytes(r));
    p->safe_iteration = p->iteration;
    p->safe_moved = pass->moved;
    r->next_safe_s = fkm_now() + SAFE_SHARE * (fkm_now() - begin);
    return FKM_OK;
}

/* The problem as it was when its centroids were last kept safe, without labels. */
static void go_back_to_safe(problem *p)
{
    run *r = p->r;
    memcpy(p->centroids, r->safe, centroids_bytes(r));
    memset(p->labels, -1, (size_t)r->shape.rows * sizeof *p->labels);
    p->iteration = p->safe_iteration;
    p->known_moved = p->safe_moved;
    p->moved = 0;
    r->out->iteration_count = p->first_iteration + p->iteration - 1;
}

/* Whether a run that ends so can go on from the state that it leaves. */
static bool is_resumable(fkm_status st)
{
    return st == FKM_ESTOPPED || st == FKM_EFILE || st == FKM_EDEVICE || st == FKM_ENOMEM;
}

/* Saves the state of a run that ends with st: of a pass that was broken off, or, if the backend
 * has it no longer, the last that is safe. */
static void save_at_end(problem *p, fkm_status st)
{
    run *r = p->r;
    fkm_err e = {0};
    if (!r->o->saving || r->resuming || !is_resumable(st))
        return;
    if (has_started(p) && (p->adrift || st == FKM_EDEVICE || fetch_state(p, &e) != FKM_OK)) {
        if (p->safe_iteration == 0)
            return; /* what is on disk is newer, if there is any */
        go_back_to_safe(p);
    }
    save_state(p);
}

static void count_rows(run *r)
{
    const fkm_result *out = r->out;
    memset(out->counts, 0, (size_t)out->batch * (size_t)out->clusters * sizeof *out->counts);
    for (int32_t b = 0; b < r->state.problem; b++)
        for (int64_t i = b * out->rows; i < (b + 1) * out->rows; i++)
            if (out->labels[i] >= 0)
                out->counts[(int64_t)b * out->clusters + out->labels[i]]++;
}

/* Goes on from the state on disk, if there is one. */
static fkm_status load_state(run *r, fkm_err *e)
{
    fkm_saving *s = r->o->saving;
    if (!s)
        return FKM_OK;
    FKM_TRY(fkm_state_key(&r->key, r->o, r->in, e));
    r->next_save_s = r->begin_s + s->every_s;
    if (s->fresh)
        return fkm_state_remove(s->path, e);
    if (!fkm_path_exists(s->path))
        return FKM_OK;
    r->state = (fkm_state){.result = r->out, .best = r->best, .checksums = &r->checksums};
    s->refused = true;
    FKM_TRY(fkm_state_load(&r->state, &r->iteration_room, s->path, r->key, r->o, r->in, e));
    s->refused = false;
    count_rows(r);
    r->resuming = r->state.problem < r->out->batch;
    s->kept = true;
    s->resumes = r->state.resumes + 1;
    s->problem = r->state.problem;
    s->restart = r->state.restart;
    s->iteration = r->state.iteration;
    s->earlier_s = r->state.elapsed_s;
    if (r->w && r->w->resumed)
        r->w->resumed(r->w->arg, s);
    return FKM_OK;
}

/* ---- one pass over the rows ---- */

/* NaN or Inf turned up while streaming: reads on, only to count, and says where and how many. */
static fkm_status fail_not_finite(problem *p, fkm_err *e)
{
    run *r = p->r;
    FKM_TRY(fkm_source_scan_rest(r->source, &p->scan, r->w, e));
    return fkm_scan_not_finite(&p->scan, r->in, base_row(p), e);
}

/* A stream is not read again for clusters that run empty, if that could be foreseen: they do so in
 * the first passes, or again. Starts to collect the farthest rows as they go by. */
static bool collect_farthest(problem *p)
{
    const run *r = p->r;
    p->far.size = 0;
    p->far.complete = false;
    return p->far.room > 0 && (p->iteration <= 2 || p->reseeded > 0) &&
           p->iteration <= r->o->max_iter;
}

/* Hands all rows to the backend. The first pass of a stream also scans them: should they disprove
 * the scale that was guessed, the sums are given up (*scale_failed). */
static fkm_status feed_rows(problem *p, double *distances, bool *scale_failed, fkm_err *e)
{
    run *r = p->r;
    fkm_rows rows;
    int64_t done = 0;
    for (;;) {
        if (stopped(r))
            return fkm_fail(e, FKM_ESTOPPED, "stopped by a signal");
        FKM_TRY(fkm_source_next(r->source, &rows, e));
        if (rows.count == 0)
            return FKM_OK;
        if (!p->scanned) {
            fkm_scan_add(&p->scan, rows.x, r->shape.dtype, rows.row0, rows.count, r->shape.dims);
            if (p->scan.rows_not_finite && !r->o->skip_nan)
                return fail_not_finite(p, e);
            if (!*scale_failed && !fkm_scale_holds(p->scale, &p->scan, r->shape.rows)) {
                *scale_failed = true; /* finish the scan; the pass is repeated */
                fkm_verbose("the sample missed the largest value: the first pass is repeated");
            }
        }
        int32_t *labels = p->labels + rows.row0;
        if (!*scale_failed)
            FKM_TRY(r->ops->feed(r->backend, &rows, labels, distances, e));
        if (!*scale_failed && distances) {
            FKM_TRY(r->ops->wait(r->backend, e));
            fkm_farthest_offer(&p->far, &rows, labels, distances);
        }
        done += rows.count;
        report_progress(p, done);
    }
}

/* Labels all rows, with sums and inertia. pass->moved is of the iteration: what of it was moved
 * before the run was resumed is in p->moved. */
static fkm_status label_rows(problem *p, fkm_pass *pass, bool *scale_failed, fkm_err *e)
{
    run *r = p->r;
    bool collecting = collect_farthest(p);
    fkm_pass_options options = {
        .update = true, .squares = !p->squares_known, .labels_later = !collecting};
    *scale_failed = false;
    FKM_TRY(r->ops->begin(r->backend, &options, e));
    fkm_status st = feed_rows(p, collecting ? r->distances : NULL, scale_failed, e);
    if (st != FKM_OK) {
        fkm_err ignored = {0};
        if (st != FKM_EDEVICE && is_resumable(st) &&
            r->ops->end(r->backend, pass, &ignored) == FKM_OK)
            p->moved += pass->moved;
        else
            p->adrift = true;
        return st;
    }
    FKM_TRY(r->ops->end(r->backend, pass, e));
    p->scanned = true;
    p->far.complete = collecting && !*scale_failed;
    p->squares_known = p->squares_known || options.squares;
    count_screening(r, pass);
    pass->moved = p->known_moved >= 0 ? p->known_moved : pass->moved + p->moved;
    p->moved = pass->moved;
    return FKM_OK;
}

static fkm_status open_backend(run *r, fkm_err *e)
{
    fkm_run_stats *s = &r->out->run;
    FKM_TRY(r->ops->open(&r->backend, &r->plan, e));
    s->device_bytes = fkm_max_i64(s->device_bytes, r->ops->device_bytes(r->backend));
    return FKM_OK;
}

/* Sets the scale; for 128-bit sums the backend is opened anew with room for them, which is in the
 * plan. It then has the problem's first centroids again. */
static fkm_status use_scale(problem *p, fkm_scale scale, fkm_err *e)
{
    run *r = p->r;
    p->scale = scale;
    p->squares_known = false;
    if (scale.wide && !r->plan.wide) {
        fkm_verbose("sums take 128-bit integers: the largest value is far above the typical one");
        p->adrift = true;
        r->ops->close(r->backend);
        r->backend = NULL;
        r->plan.wide = true;
        FKM_TRY(open_backend(r, e));
        FKM_TRY(r->ops->set_centroids(r->backend, p->centroids, e));
        p->adrift = false;
    }
    return r->ops->set_scale(r->backend, scale, e);
}

/* ---- empty clusters ---- */

/* far: the `room` rows farthest from their own centroids, by a pass of its own. */
static fkm_status find_farthest(problem *p, fkm_farthest *far, fkm_err *e)
{
    run *r = p->r;
    fkm_rows rows;
    FKM_TRY(r->ops->labels(r->backend, p->labels, e));
    for (;;) {
        if (stopped(r))
            return fkm_fail(e, FKM_ESTOPPED, "stopped by a signal");
        FKM_TRY(fkm_source_next(r->source, &rows, e));
        if (rows.count == 0)
            return FKM_OK;
        const int32_t *labels = p->labels + rows.row0;
        FKM_TRY(r->ops->distances(r->backend, &rows, labels, r->distances, e));
        fkm_farthest_offer(far, &rows, labels, r->distances);
    }
}

/* Gives the farthest rows, farthest first, to the empty clusters in increasing order of their
 * index. reference.py: farthest. */
static fkm_status hand_out(problem *p, fkm_farthest *far, fkm_iteration *it, fkm_err *e)
{
    run *r = p->r;
    int32_t k = r->o->clusters;
    int64_t *counts = r->out->counts + (int64_t)p->index * k;
    fkm_farthest_sort(far);
    FKM_TRY(r->ops->get_centroids(r->backend, p->centroids, counts, e));
    for (int32_t j = 0; j < k && it->reseeded < far->size; j++) {
        if (counts[j] > 0)
            continue;
        float *c = p->centroids + (int64_t)j * r->shape.dims;
        FKM_TRY(fkm_source_rows(r->source, far->rows[it->reseeded++].row, 1, c, e));
    }
    return r->ops->set_centroids(r->backend, p->centroids, e);
}

/* Between the two there are centroids of no iteration. */
static fkm_status move_and_hand_out(problem *p, fkm_farthest *far, fkm_iteration *it, fkm_err *e)
{
    p->adrift = true;
    FKM_TRY(p->r->ops->move(p->r->backend, &it->max_shift, e));
    FKM_TRY(hand_out(p, far, it, e));
    p->adrift = false;
    return FKM_OK;
}

/* Moves the centroids to the means; empty clusters take the rows farthest from their own (old)
 * centroid. */
static fkm_status move_centroids(problem *p, const fkm_pass *pass, fkm_iteration *it, fkm_err *e)
{
    run *r = p->r;
    fkm_status st = FKM_OK;
    fkm_farthest found = {NULL, 0, pass->empty, true};
    bool reseeds = pass->empty > 0 && r->o->empty == FKM_EMPTY_FARTHEST;
    FKM_TRY(keep_safe(p, pass, reseeds, e));
    if (!reseeds)
        return r->ops->move(r->backend, &it->max_shift, e);
    if (p->far.complete && pass->empty <= p->far.room)
        return move_and_hand_out(p, &p->far, it, e);
    FKM_TRY(fkm_alloc(&found.rows, found.room, sizeof *found.rows, "farthest rows", e));
    FKM_GO(find_farthest(p, &found, e)); /* by the centroids before they move */
    FKM_GO(move_and_hand_out(p, &found, it, e));
out:
    fkm_free(found.rows);
    return st;
}

/* ---- one problem ---- */

/* The first pass: in a stream it may find that its scale was wrong, then it is done again. */
static fkm_status assign_rows(problem *p, fkm_pass *pass, fkm_err *e)
{
    bool first = !p->scanned, failed = false;
    FKM_TRY(label_rows(p, pass, &failed, e));
    if (!first)
        return FKM_OK;
    fkm_scale scale;
    int64_t used = p->r->shape.rows - p->scan.rows_not_finite;
    FKM_TRY(fkm_scale_choose(&scale, &p->scan, used, p->r->in, base_row(p), e));
    p->scale_known = true;
    if (!failed && scale.exponent == p->scale.exponent && scale.wide == p->scale.wide)
        return FKM_OK;
    FKM_TRY(use_scale(p, scale, e));
    memset(p->labels, -1, (size_t)p->r->shape.rows * sizeof *p->labels);
    p->moved = 0;
    return label_rows(p, pass, &failed, e);
}

static fkm_status check_empty(const problem *p, const fkm_pass *pass, fkm_err *e)
{
    if (pass->empty == 0 || p->r->o->empty != FKM_EMPTY_ERROR)
        return FKM_OK;
    fkm_fail(e, FKM_EDATA, "%d of %d clusters have no rows in iteration %d (--empty error)",
        pass->empty, p->r->o->clusters, p->iteration);
    return fkm_hint(e, "use fewer clusters, another --seed, or --empty farthest");
}

/* Iterates from p->iteration on, until the labels repeat, the inertia settles, or max_iter; *pass
 * is the last pass, whose labels belong to the backend's centroids unless *moved. before: the
 * inertia of the last iteration. */
static fkm_status iterate(problem *p, double before, fkm_pass *pass, bool *moved, fkm_err *e)
{
    run *r = p->r;
    *moved = true;
    for (; p->iteration <= r->o->max_iter; p->iteration++) {
        FKM_TRY(save_if_due(p, e));
        FKM_TRY(make_room_for_record(r, e));
        double begin = fkm_now(), wait = fkm_source_wait(r->source);
        FKM_TRY(assign_rows(p, pass, e));
        FKM_TRY(check_empty(p, pass, e));
        fkm_iteration it = {
            .problem = p->index,
            .restart = p->restart,
            .i = p->iteration,
            .inertia = pass->inertia,
            .moved = pass->moved,
            .empty = pass->empty,
        };
        bool fixpoint = p->iteration > 1 && pass->moved == 0;
        bool settled = r->o->tol > 0 && p->iteration > 1 && p->reseeded == 0 &&
                       before - pass->inertia < r->o->tol * before;
        p->result->converged = fixpoint || settled;
        *moved = !p->result->converged;
        if (*moved)
            FKM_TRY(move_centroids(p, pass, &it, e));
        p->result->iterations = p->iteration;
        p->result->reseeded += it.reseeded;
        it.seconds = fkm_now() - begin;
        it.read_wait_s = fkm_source_wait(r->source) - wait;
        record_iteration(r, &it);
        if (r->w && r->w->iterated)
            r->w->iterated(r->w->arg, &it);
        if (!*moved)
            return FKM_OK;
        before = pass->inertia;
        p->reseeded = it.reseeded;
        p->moved = 0;
        p->known_moved = -1;
    }
    return FKM_OK;
}

static int compare_sizes(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static fkm_status describe_clusters(problem *p, fkm_err *e)
{
    int32_t k = p->r->o->clusters;
    const int64_t *counts = p->r->out->counts + (int64_t)p->index * k;
    fkm_problem_result *out = p->result;
    int64_t *sorted = NULL;
    double squares = 0, n = (double)out->rows_used;
    FKM_TRY(fkm_alloc(&sorted, k, sizeof *sorted, "cluster sizes", e));
    memcpy(sorted, counts, (size_t)k * sizeof *sorted);
    qsort(sorted, (size_t)k, sizeof *sorted, compare_sizes);
    out->empty = 0;
    for (int32_t j = 0; j < k; j++) {
        out->empty += counts[j] == 0;
        squares += (double)counts[j] * (double)counts[j];
    }
    out->size_min = sorted[0];
    out->size_median = sorted[(k - 1) / 2];
    out->size_max = sorted[k - 1];
    out->imbalance = n > 0 ? k * squares / (n * n) : 0;
    fkm_free(sorted);
    return FKM_OK;
}

static fkm_status too_many_clusters(int32_t k, int64_t rows, const char *what, fkm_err *e)
{
    fkm_fail(e, FKM_EDATA, "%d clusters were asked for, but the data has only %lld %s", k,
        (long long)rows, what);
    return fkm_hint(e, "use -k %lld or less", (long long)rows);
}

static void report_seeding(void *arg, int64_t rows_done)
{
    report_progress(arg, rows_done);
}

/* The first centroids: given, or drawn. Uses the labels as scratch. */
static fkm_status choose_centroids(problem *p, fkm_err *e)
{
    run *r = p->r;
    const fkm_fit_options *o = r->o;
    int64_t cells = (int64_t)o->clusters * r->shape.dims;
    if (o->init) {
        memcpy(p->centroids, o->init + (o->init_batch ? p->index * cells : 0),
            (size_t)cells * sizeof(float));
        return FKM_OK;
    }
    bool not_finite = false;
    fkm_cover_env env = {
        .ops = r->ops,
        .plan = &r->plan,
        .w = r->w,
        .progress = report_seeding,
        .arg = p,
        .run = &r->out->run,
        .skip_nan = o->skip_nan,
        .device_bytes = r->ops->device_bytes(r->backend),
    };
    fkm_seed_job job = {
        .method = o->method,
        .seed = seed_of(p),
        .clusters = o->clusters,
        .source = r->source,
        .shape = &r->shape,
        .labels = p->labels,
        .env = &env,
    };
    fkm_status st = fkm_seed(p->centroids, &job, &not_finite, e);
    return not_finite ? fail_not_finite(p, e) : st;
}

/* The scale of the sums: known after a resident load; in a stream guessed from a sample of rows, or
 * what a run that was resumed had found, and checked by the first pass. 8-bit values are summed
 * exactly at any scale that cannot overflow.
 */
static fkm_status choose_scale(problem *p, fkm_err *e)
{
    run *r = p->r;
    int64_t rows = r->shape.rows;
    fkm_scale scale = {.exponent = 0, .bits = 8};
    if (p->scale_known)
        return use_scale(p, p->scale, e);
    if (is_eight_bit(r))
        return use_scale(p, scale, e);
    if (p->scanned) {
        FKM_TRY(fkm_scale_choose(
            &scale, &p->scan, rows - p->scan.rows_not_finite, r->in, base_row(p), e));
        p->scale_known = true;
        return use_scale(p, scale, e);
    }
    if (p->guessed)
        return use_scale(p, p->scale, e);
    fkm_scan sample;
    FKM_TRY(fkm_seed_sample(&sample, r->source, rows, r->shape.dims, seed_of(p), e));
    if (fkm_scale_choose(&scale, &sample, rows, r->in, base_row(p), e) != FKM_OK)
        scale = (fkm_scale){0, false, 0};
    return use_scale(p, scale, e);
}

/* Loads the rows (resident) or starts to read them (stream). */
static fkm_status load_problem(problem *p, fkm_err *e)
{
    run *r = p->r;
    int32_t k = r->o->clusters;
    report_progress(p, 0);
    fkm_scan_init(&p->scan);
    bool eight_bit = is_eight_bit(r);
    FKM_TRY(fkm_source_start(r->source, p->index, false, eight_bit ? NULL : &p->scan, r->w, e));
    p->scanned = r->out->run.plan.resident || eight_bit;
    if (p->scan.rows_not_finite && !r->o->skip_nan)
        return fkm_scan_not_finite(&p->scan, r->in, base_row(p), e);
    int64_t usable = r->shape.rows - p->scan.rows_not_finite;
    return k > usable ? too_many_clusters(k, usable, "rows without NaN or Inf", e) : FKM_OK;
}

/* Gives the backend the centroids and the scale, and takes all labels away. */
static fkm_status hand_over(problem *p, fkm_err *e)
{
    run *r = p->r;
    r->ops->reset(r->backend);
    FKM_TRY(r->ops->set_centroids(r->backend, p->centroids, e));
    memset(p->labels, -1, (size_t)r->shape.rows * sizeof *p->labels);
    return choose_scale(p, e);
}

static fkm_status begin_start(problem *p, fkm_err *e)
{
    p->iteration = p->reseeded = p->safe_iteration = 0;
    p->moved = 0;
    p->known_moved = -1;
    p->first_iteration = p->r->out->iteration_count;
    p->r->resuming = false;
    report_progress(p, 0);
    FKM_TRY(choose_centroids(p, e));
    if (p->r->safe)
        memcpy(p->r->safe, p->centroids, centroids_bytes(p->r));
    p->safe_moved = -1;
    p->safe_iteration = p->iteration = 1;
    p->adrift = true;
    FKM_TRY(hand_over(p, e));
    p->adrift = false;
    return FKM_OK;
}

/* The same from the state that was loaded: centroids and labels are in place. */
static fkm_status resume_start(problem *p, double *before, fkm_err *e)
{
    run *r = p->r;
    const fkm_state *s = &r->state;
    p->first_iteration = r->out->iteration_count - (s->iteration - 1);
    const fkm_iteration *its = r->out->iterations + p->first_iteration;
    r->ops->reset(r->backend);
    FKM_TRY(r->ops->set_centroids(r->backend, p->centroids, e));
    FKM_TRY(choose_scale(p, e));
    p->result->iterations = s->iteration - 1;
    for (int32_t i = 0; i < s->iteration - 1; i++)
        p->result->reseeded += its[i].reseeded;
    if (s->iteration > 1) {
        p->reseeded = its[s->iteration - 2].reseeded;
        *before = its[s->iteration - 2].inertia;
    }
    p->moved = s->relabel ? 0 : s->moved;
    p->known_moved = s->relabel ? s->moved : -1;
    p->iteration = s->iteration;
    r->resuming = false;
    return FKM_OK;
}

/* One start, to its end: p->result, p->centroids and p->labels. */
static fkm_status run_start(problem *p, fkm_err *e)
{
    run *r = p->r;
    double begin = fkm_now(), before = INFINITY;
    fkm_pass pass = {0};
    bool moved, failed;
    if (r->resuming && r->state.iteration > 0)
        FKM_TRY(resume_start(p, &before, e));
    else
        FKM_TRY(begin_start(p, e));
    r->out->run.init_s += fkm_now() - begin;
    FKM_TRY(iterate(p, before, &pass, &moved, e));
    if (moved) { /* labels must belong to the centroids that are returned */
        FKM_TRY(save_if_due(p, e));
        if (r->o->restarts == 1)
            fkm_source_last_pass(r->source);
        FKM_TRY(label_rows(p, &pass, &failed, e));
        p->result->converged = pass.moved == 0;
    }
    FKM_TRY(r->ops->labels(r->backend, p->labels, e));
    p->result->inertia = pass.inertia;
    p->result->rows_used = pass.rows;
    p->result->rows_skipped = pass.skipped;
    p->result->moved_last = pass.moved;
    return r->ops->get_centroids(
        r->backend, p->centroids, r->out->counts + (int64_t)p->index * r->o->clusters, e);
}

/* The start that just ended is the best: what it leaves takes the place of the one before. */
static void keep_start(problem *p, fkm_problem_result *best)
{
    run *r = p->r;
    fkm_iteration *all = r->out->iterations;
    int32_t first = p->first_iteration - p->best_iterations;
    int32_t count = r->out->iteration_count - p->first_iteration;
    memmove(all + first, all + p->first_iteration, (size_t)count * sizeof *all);
    r->out->iteration_count = first + count;
    p->best_iterations = count;
    p->best_start = p->restart;
    *best = *p->result;
    if (r->best)
        memcpy(r->best, p->centroids, centroids_bytes(r));
}

/* The best start was not the last: its labels and counts follow from its centroids, by one pass. */
static fkm_status restore_best(problem *p, fkm_err *e)
{
    run *r = p->r;
    fkm_pass pass;
    bool failed;
    p->restoring = true;
    p->moved = 0;
    p->known_moved = -1;
    r->resuming = false;
    memcpy(p->centroids, r->best, centroids_bytes(r));
    FKM_TRY(hand_over(p, e));
    p->iteration = r->o->max_iter + 1;
    fkm_source_last_pass(r->source);
    FKM_TRY(label_rows(p, &pass, &failed, e));
    FKM_TRY(r->ops->labels(r->backend, p->labels, e));
    if (pass.inertia != p->result->inertia)
        return fkm_fail(e, r->o->saving && r->o->saving->resumes ? FKM_EDATA : FKM_EBUG,
            "the best start had inertia %.17g, now it is %.17g", p->result->inertia, pass.inertia);
    return r->ops->get_centroids(
        r->backend, NULL, r->out->counts + (int64_t)p->index * r->o->clusters, e);
}

/* All starts, the best of which ends up in the result. */
static fkm_status run_starts(problem *p, fkm_problem_result *best, fkm_err *e)
{
    run *r = p->r;
    int32_t starts = r->o->restarts;
    if (r->resuming) {
        p->restart = r->state.restart;
        p->best_start = r->state.best_start;
        p->best_iterations = r->state.best_iterations;
    }
    for (; p->restart < starts; p->restart++) {
        fkm_problem_result start = {0};
        p->result = &start;
        FKM_TRY(run_start(p, e));
        r->out->restarts[(int64_t)p->index * starts + p->restart] =
            (fkm_restart){seed_of(p), start.inertia, start.iterations, start.converged};
        if (p->restart == 0 || start.inertia < best->inertia)
            keep_start(p, best);
        else
            r->out->iteration_count = p->first_iteration;
    }
    p->restart = p->best_start;
    p->result = best;
    return p->best_start == starts - 1 ? FKM_OK : restore_best(p, e);
}

static fkm_status run_problem(problem *p, fkm_err *e)
{
    run *r = p->r;
    double begin = fkm_now();
    if (!r->out->run.plan.resident && r->o->empty == FKM_EMPTY_FARTHEST) {
        p->far.room = (int32_t)fkm_min_i64(FAR_ROOM, r->o->clusters);
        FKM_TRY(fkm_alloc(&p->far.rows, p->far.room, sizeof *p->far.rows, "farthest rows", e));
    }
    FKM_TRY(load_problem(p, e));
    if (r->resuming && r->state.scanned &&
        !p->scanned) { /* checked by the first pass, as any guess */
        p->scale = r->state.scale;
        p->guessed = true;
    }
    r->out->run.init_s += fkm_now() - begin;
    FKM_TRY(run_starts(p, &r->out->problems[p->index], e));
    return describe_clusters(p, e);
}

static fkm_status fit_problem(run *r, int32_t index, fkm_err *e)
{
    const fkm_fit_options *o = r->o;
    fkm_result *out = r->out;
    problem p = {
        .r = r,
        .index = index,
        .first_iteration = out->iteration_count,
        .centroids = out->centroids + (int64_t)index * o->clusters * r->shape.dims,
        .labels = out->labels + index * r->shape.rows,
        .known_moved = -1,
    };
    r->at = index;
    fkm_status st = run_problem(&p, e);
    save_at_end(&p, st);
    fkm_free(p.far.rows);
    return st;
}

/* ---- the run ---- */

static fkm_status allocate_result(run *r, fkm_err *e)
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
    if (r->o->saving)
        FKM_TRY(fkm_alloc(&r->safe, cells / out->batch, sizeof *r->safe, "safe centroids", e));
    if (r->o->restarts > 1)
        FKM_TRY(fkm_alloc(&r->best, cells / out->batch, sizeof *r->best, "the best centroids", e));
    return fkm_calloc(&out->problems, out->batch, sizeof *out->problems, "results", e);
}

static fkm_status check_options(const fkm_fit_options *o, const fkm_shape *shape, fkm_err *e)
{
    if (o->clusters < 1 || o->clusters > FKM_MAX_CLUSTERS)
        return fkm_fail(
            e, FKM_EUSAGE, "%d clusters: expected 1 to %d", o->clusters, FKM_MAX_CLUSTERS);
    if (shape->dims < 1 || shape->dims > FKM_MAX_DIMS)
        return fkm_fail(e, FKM_EDATA, "%d dims: expected 1 to %d", shape->dims, FKM_MAX_DIMS);
    if (o->clusters > shape->rows)
        return too_many_clusters(o->clusters, shape->rows, "rows", e);
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
    int copies = (o->restarts > 1) + (o->saving != NULL); /* best, safe */
    result = fkm_add_sat(result, fkm_mul_sat(k * copies, 4 * (int64_t)shape->dims));
    if (o->init) /* the caller's */
        result = fkm_add_sat(result, fkm_mul_sat(o->init_batch ? batch : 1, 4 * k * shape->dims));
    result = fkm_add_sat(result, k * 24); /* draws, farthest rows, sorted sizes: one at a time */
    result = fkm_add_sat(result,
        2 * (int64_t)sizeof(fkm_iteration) * fkm_mul_sat(fkm_min_i64(o->max_iter, 4096), batch));
    result = fkm_add_sat(result, fkm_checksums_bytes(shape));
    return result;
}

fkm_status fkm_fit_plan(fkm_run_plan *run_plan, fkm_plan *backend, const fkm_backend_ops **ops,
    const fkm_fit_options *o, const fkm_reader *in, fkm_err *e)
{
    const fkm_shape *shape = fkm_reader_shape(in);
    FKM_TRY(check_options(o, shape, e));
    int64_t labels = fkm_mul_sat(fkm_mul_sat(shape->batch, shape->rows), sizeof(int32_t));
    fkm_init_method method = o->init ? FKM_INIT_RANDOM : o->method;
    int64_t result = fkm_add_sat(result_bytes(o, shape), fkm_reader_heap_bytes(in));
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
        .result_bytes = fkm_add_sat(result, fkm_seed_bytes(method, o->clusters, shape)),
        .bytes_per_row = (int64_t)sizeof(double) + fkm_seed_bytes_per_row(method),
    };
    FKM_TRY(fkm_backend_choose(ops, &request.devices, &o->machine, e));
    request.ops = *ops;
    FKM_TRY(fkm_plan_make(run_plan, backend, &request, e));
    backend->wide = false;
    return FKM_OK;
}

static fkm_status open_run(run *r, fkm_err *e)
{
    const fkm_fit_options *o = r->o;
    fkm_run_plan *plan = &r->out->run.plan;
    FKM_TRY(fkm_fit_plan(plan, &r->plan, &r->ops, o, r->in, e));
    FKM_TRY(open_backend(r, e));
    plan->isa = r->ops->isa(r->backend);
    if (r->w && r->w->planned)
        r->w->planned(r->w->arg, plan);
    bool checked = o->saving || !plan->resident; /* rows that are read once need no checksums */
    if (checked)
        FKM_TRY(fkm_checksums_open(&r->checksums, r->in, e));
    FKM_TRY(fkm_source_open(&r->source, r->in, plan, checked ? &r->checksums : NULL, e));
    fkm_source_pin(r->source, r->ops, r->backend);
    FKM_TRY(fkm_alloc(&r->distances, plan->chunk_rows, sizeof(double), "distances", e));
    return allocate_result(r, e);
}

static void finish_stats(run *r)
{
    fkm_run_stats *s = &r->out->run;
    s->total_s = fkm_now() - r->begin_s;
    s->read_wait_s = fkm_source_wait(r->source);
    s->compute_s = s->total_s - s->read_wait_s;
    s->bytes_read = fkm_source_bytes_read(r->source);
    s->flop = fkm_mul_sat(s->distances, 2 * (int64_t)r->shape.dims);
}

static void warn_of_empty(const run *r)
{
    for (int64_t i = 0; i < r->out->batch; i++) {
        const fkm_problem_result *p = &r->out->problems[i];
        if (p->empty > 0)
            fkm_warn("%d of %d clusters have no rows%s", p->empty, r->o->clusters,
                r->o->empty == FKM_EMPTY_KEEP ? "" : ": fewer distinct rows than clusters?");
    }
}

/* What is known of a run that was stopped: the last iteration of the start at work. */
static void describe_stopped(run *r)
{
    const fkm_iteration *its = r->out->iterations;
    int32_t n = r->out->iteration_count;
    for (int64_t b = r->at; b < r->out->batch; b++)
        r->out->problems[b] = (fkm_problem_result){.inertia = NAN,
            .imbalance = NAN,
            .rows_used = -1,
            .rows_skipped = -1,
            .moved_last = -1,
            .size_min = -1,
            .size_median = -1,
            .size_max = -1};
    fkm_problem_result *p = &r->out->problems[r->at];
    for (int32_t i = 0; i < n; i++)
        if (its[i].problem == r->at && its[i].restart == its[n - 1].restart) {
            p->iterations = its[i].i;
            p->inertia = its[i].inertia;
            p->moved_last = its[i].moved;
            p->empty = its[i].empty;
            p->reseeded += its[i].reseeded;
        }
}

fkm_status fkm_fit(
    fkm_result *out, fkm_reader *in, const fkm_fit_options *o, const fkm_observer *w, fkm_err *e)
{
    fkm_status st = FKM_OK;
    run r = {.o = o, .w = w, .in = in, .out = out, .shape = *fkm_reader_shape(in)};
    memset(out, 0, sizeof *out);
    r.begin_s = fkm_now();
    FKM_GO(open_run(&r, e));
    FKM_GO(load_state(&r, e));
    for (int32_t i = r.state.problem; i < out->batch; i++)
        FKM_GO(fit_problem(&r, i, e));
    finish_stats(&r);
    warn_of_empty(&r);
out:
    if (st == FKM_ESTOPPED && o->saving && o->saving->kept) {
        finish_stats(&r);
        describe_stopped(&r);
    }
    fkm_free(r.distances);
    fkm_free(r.best);
    fkm_free(r.safe);
    fkm_free(r.key);
    fkm_source_close(r.source);
    fkm_checksums_close(&r.checksums);
    if (r.backend)
        r.ops->close(r.backend);
    if (st != FKM_OK && !(st == FKM_ESTOPPED && o->saving && o->saving->kept))
        fkm_result_free(out);
    return st;
}

int64_t fkm_fit_state_bytes(const fkm_fit_options *o, const fkm_shape *shape)
{
    return fkm_state_bytes(o, shape);
}

fkm_status fkm_fit_keep(fkm_result *r, fkm_reader *in, const fkm_fit_options *o, fkm_err *e)
{
    char *key;
    fkm_state state = {
        .problem = (int32_t)r->batch,
        .resumes = o->saving->resumes,
        .elapsed_s = o->saving->earlier_s + r->run.total_s,
        .result = r,
    };
    FKM_TRY(fkm_state_key(&key, o, in, e));
    fkm_status st = fkm_state_save(&state, o, fkm_reader_shape(in), o->saving->path, key, e);
    o->saving->kept = o->saving->kept || st == FKM_OK;
    fkm_free(key);
    return st;
}
