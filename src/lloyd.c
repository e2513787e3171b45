/* Lloyd's algorithm on one problem: the loop, the stopping rule, starts and empty clusters.
 *
 * Knows no instruction set, device or file format, and hardly that there are other problems. What
 * makes two runs give the same bits lives in the backend (exact labels, integer sums); the engine
 * adds no arithmetic of its own. */
#include "lloyd.h"

#include "base/checked.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "farthest.h"
#include "scan.h"
#include "seed.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FAR_ROOM 4096  /* farthest rows that a streaming pass collects by the way */
#define SAFE_SHARE 100 /* one in so much time may go into copies of centroids off the device */

typedef struct fkm_problem {
    fkm_run *r;
    fkm_lane *l;
    fkm_problem_state *s; /* in the run's; its list of iterations and best centroids are in use */
    bool resuming;        /* it is still as it was loaded */
    int32_t index;
    int32_t restart;         /* from 0; its seed is the option's plus this */
    int32_t first_iteration; /* of this start, in the list */
    float *centroids;        /* [clusters][dims], in the result */
    int32_t *labels;         /* [rows], in the result */
    fkm_scan scan;   /* of all rows: complete after a resident load or the first streaming pass */
    bool scanned;    /* or needs no scan: 8-bit types have no NaN, and one scale fits all */
    fkm_scale scale; /* in use; a guess until */
    bool scale_known;
    bool guessed;       /* by the state that was loaded */
    bool squares_known; /* the backend has the constant of inertia for this scale */
    bool unlabelled;    /* all labels are -1 */
    int32_t reseeded;   /* clusters that ran empty in the pass before */
    bool still; /* the pass before moved no label: what empty clusters were given won nothing */
    fkm_farthest far;     /* farthest rows of the pass at hand, should a cluster run empty */
    fkm_farthest found;   /* by a pass of their own, where those are too few */
    fkm_farthest *donors; /* one of the two: rows for empty clusters, farthest first. NULL: none */
    int32_t iteration;
    int64_t moved;       /* rows that this iteration has moved, should it be broken off */
    int64_t known_moved; /* what moved of a pass that is made again for its labels; else -1 */
    int32_t
        safe_iteration; /* the one that lane.safe is of; 0: of none, or what is on disk is newer */
    int64_t safe_moved; /* by its pass; -1: it was not complete */
    bool adrift; /* what the backend holds is of no iteration: lost, or half on the way to the next
                  */
    int32_t best_start, best_iterations; /* so far */
    bool restoring;                      /* all starts have ended, the best one is set up again */
    fkm_problem_result *result;
} problem;

/* A signal came, or a problem before this one has failed. */
static fkm_status check_stop(const problem *p, fkm_err *e)
{
    const fkm_observer *w = p->r->w;
    if (w && w->stop && *w->stop)
        return fkm_fail(e, FKM_ESTOPPED, "stopped by a signal");
    if (fkm_lanes_is_over(&p->r->lanes, p->index))
        return fkm_fail(e, FKM_ESTOPPED, "a problem before this one has failed");
    return FKM_OK;
}

static bool is_eight_bit(const fkm_run *r)
{
    return r->shape.dtype == FKM_U8 || r->shape.dtype == FKM_I8;
}

static uint64_t seed_of(const problem *p)
{
    return p->r->o->seed + (uint64_t)p->restart;
}

/* Of one problem. */
static size_t centroids_bytes(const fkm_run *r)
{
    return (size_t)r->o->clusters * (size_t)r->shape.dims * sizeof(float);
}

static int64_t base_row(const problem *p)
{
    return p->index * p->r->shape.rows;
}

static int64_t bytes_read(const fkm_run *r)
{
    int64_t bytes = 0;
    for (int32_t i = 0; i < r->lanes.count; i++)
        bytes += fkm_source_bytes_read(r->lane[i].source);
    return bytes;
}

/* Of several problems at work the first one speaks. iteration: as fkm_progress has it. */
static void report(const problem *p, int32_t iteration, int64_t rows_done)
{
    fkm_run *r = p->r;
    if (!r->w || !r->w->progress || !fkm_lanes_is_first(&r->lanes, p->index))
        return;
    const fkm_iteration *its = p->s->iterations;
    int32_t n = p->s->iteration_count;
    fkm_progress progress = {
        .problem = p->index,
        .restart = p->restart,
        .iteration = iteration,
        .max_iter = r->o->max_iter,
        .rows_done = rows_done,
        .rows_total = r->shape.rows,
        .bytes_read = bytes_read(r),
        .elapsed_s = fkm_now() - r->begin_s,
        .last = n > p->first_iteration ? &its[n - 1] : NULL,
        .before = n > p->first_iteration + 1 ? &its[n - 2] : NULL,
    };
    pthread_mutex_lock(&r->talk);
    r->w->progress(r->w->arg, &progress);
    pthread_mutex_unlock(&r->talk);
}

static void report_progress(const problem *p, int64_t rows_done)
{
    report(p, p->iteration, rows_done);
}

/* An fkm_observer's progress, while rows are read into memory. */
static void report_reading(void *arg, const fkm_progress *now)
{
    report(arg, -1, now->rows_done);
}

/* Room for one more, before the centroids move: what is not recorded could not be gone on from. */
static fkm_status make_room_for_record(fkm_problem_state *s, fkm_err *e)
{
    if (s->iteration_count < s->iteration_room)
        return FKM_OK;
    fkm_iteration *more = NULL;
    int64_t room = s->iteration_room ? 2 * s->iteration_room : 64;
    FKM_TRY(fkm_alloc(&more, room, sizeof *more, "iteration statistics", e));
    if (s->iteration_count)
        memcpy(more, s->iterations, (size_t)s->iteration_count * sizeof *more);
    fkm_free(s->iterations);
    s->iterations = more;
    s->iteration_room = room;
    return FKM_OK;
}

static void record_iteration(problem *p, const fkm_iteration *it)
{
    fkm_run *r = p->r;
    p->s->iterations[p->s->iteration_count++] = *it;
    int32_t n = p->s->iteration_count;
    pthread_mutex_lock(&r->talk);
    if (r->o->saving)
        r->o->saving->advanced++;
    if (r->w && r->w->iterated)
        r->w->iterated(r->w->arg, it, it->i > 1 ? &p->s->iterations[n - 2] : NULL);
    pthread_mutex_unlock(&r->talk);
}

static void count_screening(problem *p, const fkm_pass *pass)
{
    fkm_screening *s = &p->l->stats.screening;
    s->rows_screened += pass->rows;
    s->rows_in_doubt += pass->in_doubt;
    s->candidates += pass->candidates;
    s->rescans += pass->rescans;
    s->rows_skipped_by_bounds += pass->skipped_by_bounds;
    p->l->stats.distances += pass->rows * p->r->o->clusters;
    p->l->stats.passes++;
    p->l->stats.graph_launches += pass->as_graph;
}

/* ---- the state on disk ---- */

/* A start has centroids, which are not those of the best one. */
static bool has_started(const problem *p)
{
    return p->iteration > 0 && !p->restoring;
}

/* What a state needs beside the result, which was fetched. */
static void note_position(problem *p)
{
    fkm_problem_state *s = p->s;
    bool started = has_started(p);
    s->stage = FKM_AT_WORK;
    s->restart = p->restoring ? p->r->o->restarts : p->restart;
    s->iteration = started ? p->iteration : 0;
    s->best_start = p->best_start;
    s->best_iterations = p->best_iterations;
    s->relabel = started && p->known_moved >= 0;
    s->moved = s->relabel ? p->known_moved : started ? p->moved : 0;
    s->scanned = p->scanned;
    s->scale = p->scale;
}

/* What the state needs of the backend. */
static fkm_status fetch_state(problem *p, fkm_err *e)
{
    fkm_run *r = p->r;
    if (!has_started(p))
        return FKM_OK;
    FKM_TRY(r->ops->labels(p->l->backend, p->labels, e));
    return r->ops->get_centroids(p->l->backend, p->centroids, NULL, e);
}

/* While others are at work the state is saved when all are as far as this. */
static fkm_status save_if_due(problem *p, fkm_err *e)
{
    fkm_run *r = p->r;
    if (!r->o->saving || !fkm_lanes_is_due(&r->lanes))
        return FKM_OK;
    FKM_TRY(fetch_state(p, e));
    note_position(p);
    fkm_lanes_meet(&r->lanes);
    return FKM_OK;
}

void fkm_problem_is_saved(problem *p)
{
    p->safe_iteration = 0;
}

/* Copies the centroids of a pass that is complete to where they outlast the device: what else the
 * state needs follows from them. As often as costs next to nothing, or when `needed`. */
static fkm_status keep_safe(problem *p, const fkm_pass *pass, bool needed, fkm_err *e)
{
    fkm_run *r = p->r;
    double begin = fkm_now();
    if (!p->l->safe || !(needed || (r->ops->may_be_lost && begin >= p->l->next_safe_s)))
        return FKM_OK;
    if (p->iteration > r->o->max_iter) /* final labels, which are made again from any */
        return FKM_OK;
    FKM_TRY(r->ops->get_centroids(p->l->backend, p->centroids, NULL, e));
    memcpy(p->l->safe, p->centroids, centroids_bytes(r));
    p->safe_iteration = p->iteration;
    p->safe_moved = pass->moved;
    p->l->next_safe_s = fkm_now() + SAFE_SHARE * (fkm_now() - begin);
    return FKM_OK;
}

/* The problem as it was when its centroids were last kept safe, without labels. */
static void go_back_to_safe(problem *p)
{
    fkm_run *r = p->r;
    memcpy(p->centroids, p->l->safe, centroids_bytes(r));
    memset(p->labels, -1, (size_t)r->shape.rows * sizeof *p->labels);
    p->iteration = p->safe_iteration;
    p->known_moved = p->safe_moved;
    p->moved = 0;
    p->s->iteration_count = p->first_iteration + p->iteration - 1;
}

bool fkm_is_resumable(fkm_status st)
{
    return st == FKM_ESTOPPED || st == FKM_EFILE || st == FKM_EDEVICE || st == FKM_ENOMEM;
}

/* Notes the state of a problem that ends with st: of a pass that was broken off, or, if the backend
 * has it no longer, the last that is safe. */
static void note_end(problem *p, fkm_status st)
{
    fkm_err e = {0};
    if (!fkm_is_resumable(st)) {
        fkm_state_forget(p->s); /* what follows would fail again */
        return;
    }
    if (!p->r->o->saving || p->resuming)
        return;
    if (has_started(p) && (p->adrift || st == FKM_EDEVICE || fetch_state(p, &e) != FKM_OK)) {
        if (p->safe_iteration == 0) {
            p->r->frozen = true; /* what is on disk is newer, if there is any */
            return;
        }
        go_back_to_safe(p);
    }
    note_position(p);
}

/* ---- one pass over the rows ---- */

/* NaN or Inf turned up while streaming: reads on, only to count, and says where and how many. */
static fkm_status fail_not_finite(problem *p, fkm_err *e)
{
    fkm_run *r = p->r;
    FKM_TRY(fkm_source_scan_rest(p->l->source, &p->scan, r->w, e));
    return fkm_scan_not_finite(&p->scan, r->in, base_row(p), e);
}

/* A stream is not read again for clusters that run empty, if that could be foreseen: they do so in
 * the first passes, or again. Starts to collect the farthest rows as they go by. */
static bool collect_farthest(problem *p)
{
    const fkm_run *r = p->r;
    p->far.size = 0;
    p->far.complete = false;
    return p->far.room > 0 && (p->iteration <= 2 || p->reseeded > 0) &&
           p->iteration <= r->o->max_iter;
}

/* Chunks of a stream whose rows all keep their labels are not read. */
static void skip_settled(problem *p)
{
    const fkm_run *r = p->r;
    const int64_t rows = r->shape.rows, chunk = p->l->plan.chunk_rows;
    if (r->out->run.plan.resident || !p->scanned || !r->ops->settles)
        return;
    for (int64_t row = 0; row < rows; row += chunk) {
        const int64_t count = rows - row < chunk ? rows - row : chunk;
        if (r->ops->settles(p->l->backend, row, count, p->labels + row))
            fkm_source_skip(p->l->source, row);
    }
}

/* Hands all rows to the backend. The first pass of a stream also scans them: should they disprove
 * the scale that was guessed, the sums are given up (*scale_failed). */
static fkm_status feed_rows(problem *p, double *distances, bool *scale_failed, fkm_err *e)
{
    fkm_run *r = p->r;
    fkm_rows rows;
    if (!distances)
        skip_settled(p);
    for (;;) {
        FKM_TRY(check_stop(p, e));
        FKM_TRY(fkm_source_next(p->l->source, &rows, e));
        if (rows.count == 0)
            return FKM_OK;
        if (!p->scanned) {
            fkm_source_scan(p->l->source, &p->scan, &rows);
            if (p->scan.rows_not_finite && !r->o->skip_nan)
                return fail_not_finite(p, e);
            if (!*scale_failed && !fkm_scale_holds(p->scale, &p->scan, r->shape.rows)) {
                *scale_failed = true; /* finish the scan; the pass is repeated */
                fkm_verbose("the sample missed the largest value: the first pass is repeated");
            }
        }
        int32_t *labels = p->labels + rows.row0;
        if (!*scale_failed)
            FKM_TRY(r->ops->feed(p->l->backend, &rows, labels, distances, e));
        if (!*scale_failed && distances) {
            FKM_TRY(r->ops->wait(p->l->backend, e));
            fkm_farthest_offer(&p->far, &rows, labels, distances, NULL);
        }
        report_progress(p, rows.row0 + rows.count);
    }
}

/* What has been read for the next pass, to a backend that has use for it before this one ends. */
static void hand_ahead(problem *p)
{
    const fkm_run *r = p->r;
    fkm_rows rows;
    for (int64_t i = 0; r->ops->ahead && fkm_source_ahead(p->l->source, i, &rows); i++)
        if (!r->ops->ahead(p->l->backend, &rows))
            return;
}

/* Labels all rows, with sums and inertia. pass->moved is of the iteration: what of it was moved
 * before the run was resumed is in p->moved. */
static fkm_status label_rows(problem *p, fkm_pass *pass, bool *scale_failed, fkm_err *e)
{
    fkm_run *r = p->r;
    bool collecting = collect_farthest(p);
    fkm_pass_options options = {.update = true,
        .squares = !p->squares_known,
        .labels_later = !collecting,
        .unlabelled = p->unlabelled};
    *scale_failed = false;
    report_progress(p, 0);
    p->unlabelled = false;
    FKM_TRY(r->ops->begin(p->l->backend, &options, e));
    fkm_status st = feed_rows(p, collecting ? p->l->distances : NULL, scale_failed, e);
    if (st != FKM_OK) {
        fkm_err ignored = {0};
        if (st != FKM_EDEVICE && fkm_is_resumable(st) &&
            r->ops->end(p->l->backend, pass, &ignored) == FKM_OK)
            p->moved += pass->moved;
        else
            p->adrift = true;
        return st;
    }
    if (!*scale_failed)
        hand_ahead(p);
    FKM_TRY(r->ops->end(p->l->backend, pass, e));
    p->scanned = true;
    p->far.complete = collecting && !*scale_failed;
    p->squares_known = p->squares_known || options.squares;
    count_screening(p, pass);
    pass->moved = p->known_moved >= 0 ? p->known_moved : pass->moved + p->moved;
    p->moved = pass->moved;
    return FKM_OK;
}

/* Sets the scale; for 128-bit sums the backend is opened anew with room for them, which is in the
 * plan. It then has the problem's first centroids again. */
static fkm_status use_scale(problem *p, fkm_scale scale, fkm_err *e)
{
    fkm_run *r = p->r;
    p->scale = scale;
    p->squares_known = false;
    if (scale.wide && !p->l->plan.wide) {
        fkm_verbose("sums take 128-bit integers: the largest value is far above the typical one");
        p->adrift = true;
        r->ops->close(p->l->backend);
        p->l->backend = NULL;
        p->l->plan.wide = true;
        FKM_TRY(r->ops->open(&p->l->backend, &p->l->plan, e));
        fkm_source_use(p->l->source, r->ops, p->l->backend);
        FKM_TRY(r->ops->set_centroids(p->l->backend, p->centroids, e));
        p->adrift = false;
    }
    return r->ops->set_scale(p->l->backend, scale, e);
}

/* ---- empty clusters ---- */

/* far: the `room` farthest donors, by a pass of its own. */
static fkm_status find_farthest(problem *p, fkm_farthest *far, const int64_t *counts, fkm_err *e)
{
    fkm_run *r = p->r;
    fkm_rows rows;
    FKM_TRY(r->ops->labels(p->l->backend, p->labels, e));
    for (;;) {
        FKM_TRY(check_stop(p, e));
        FKM_TRY(fkm_source_next(p->l->source, &rows, e));
        if (rows.count == 0)
            return FKM_OK;
        const int32_t *labels = p->labels + rows.row0;
        FKM_TRY(r->ops->distances(p->l->backend, &rows, labels, p->l->distances, e));
        fkm_farthest_offer(far, &rows, labels, p->l->distances, counts);
    }
}

static void forget_donors(problem *p)
{
    p->donors = NULL;
    fkm_free(p->found.rows);
    p->found = (fkm_farthest){0};
}

/* p->donors: the rows farthest from their own centroids that empty clusters of the pass may take,
 * by the centroids before they move; at most as many as there are such clusters, NULL if there are
 * none. reference.py: donors, farthest. */
static fkm_status find_donors(problem *p, const fkm_pass *pass, fkm_err *e)
{
    fkm_run *r = p->r;
    int64_t *counts = r->out->counts + (int64_t)p->index * r->o->clusters;
    forget_donors(p);
    if (pass->empty == 0 || r->o->empty != FKM_EMPTY_FARTHEST)
        return FKM_OK;
    FKM_TRY(keep_safe(p, pass, true, e));
    FKM_TRY(r->ops->get_centroids(p->l->backend, NULL, counts, e));
    p->donors = &p->far;
    if (!p->far.complete || !fkm_farthest_settle(&p->far, p->labels, counts, pass->empty)) {
        fkm_farthest *found = &p->found;
        found->room = pass->empty;
        FKM_TRY(fkm_alloc(&found->rows, found->room, sizeof *found->rows, "farthest rows", e));
        FKM_TRY(find_farthest(p, found, counts, e));
        p->donors = found;
    }
    fkm_farthest_sort(p->donors);
    if (p->donors->size == 0)
        forget_donors(p);
    return FKM_OK;
}

/* Gives the donors, farthest first, to the empty clusters in increasing order of their index. */
static fkm_status hand_out(problem *p, fkm_iteration *it, fkm_err *e)
{
    fkm_run *r = p->r;
    int32_t k = r->o->clusters;
    int64_t *counts = r->out->counts + (int64_t)p->index * k;
    FKM_TRY(r->ops->get_centroids(p->l->backend, p->centroids, counts, e));
    for (int32_t j = 0; j < k && it->reseeded < p->donors->size; j++) {
        if (counts[j] > 0)
            continue;
        float *c = p->centroids + (int64_t)j * r->shape.dims;
        FKM_TRY(fkm_source_rows(p->l->source, p->donors->rows[it->reseeded++].row, 1, c, e));
    }
    return r->ops->set_centroids(p->l->backend, p->centroids, e);
}

/* Moves the centroids to the means, and those of empty clusters to the donors. Between the two
 * there are centroids of no iteration. */
static fkm_status move_centroids(problem *p, const fkm_pass *pass, fkm_iteration *it, fkm_err *e)
{
    FKM_TRY(keep_safe(p, pass, false, e));
    if (!p->donors)
        return p->r->ops->move(p->l->backend, &it->max_shift, e);
    p->adrift = true;
    FKM_TRY(p->r->ops->move(p->l->backend, &it->max_shift, e));
    FKM_TRY(hand_out(p, it, e));
    p->adrift = false;
    forget_donors(p);
    return FKM_OK;
}

/* ---- one problem ---- */

/* Before the first pass with a scale. */
static void take_labels_away(problem *p)
{
    memset(p->labels, -1, (size_t)p->r->shape.rows * sizeof *p->labels);
    p->unlabelled = true;
}

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
    take_labels_away(p);
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

/* Is the pass, which may have settled, the last? Not while a row can be given to an empty cluster:
 * then centroids would still change. Two passes in a row that move no label are, though, or a gift
 * that wins nothing would be made for ever. reference.py: lloyd. */
static fkm_status judge(problem *p, const fkm_pass *pass, bool settled, bool *last, fkm_err *e)
{
    const bool still = p->iteration > 1 && pass->moved == 0;
    *last = still && p->still;
    p->still = still;
    if (*last)
        return FKM_OK;
    FKM_TRY(find_donors(p, pass, e));
    *last = (still || settled) && !p->donors;
    return FKM_OK;
}

/* Iterates from p->iteration on, until the labels repeat, the inertia settles, or max_iter; *pass
 * is the last pass, whose labels belong to the backend's centroids unless *moved. before: the
 * inertia of the last iteration. */
static fkm_status iterate(problem *p, double before, fkm_pass *pass, bool *moved, fkm_err *e)
{
    fkm_run *r = p->r;
    *moved = true;
    for (; p->iteration <= r->o->max_iter; p->iteration++) {
        FKM_TRY(save_if_due(p, e));
        FKM_TRY(make_room_for_record(p->s, e));
        double begin = fkm_now(), wait = fkm_source_wait(p->l->source);
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
        bool settled = r->o->tol > 0 && p->iteration > 1 && p->reseeded == 0 &&
                       before - pass->inertia < r->o->tol * before;
        FKM_TRY(judge(p, pass, settled, &p->result->converged, e));
        *moved = !p->result->converged;
        if (*moved)
            FKM_TRY(move_centroids(p, pass, &it, e));
        p->result->iterations = p->iteration;
        p->result->reseeded += it.reseeded;
        it.seconds = fkm_now() - begin;
        it.read_wait_s = fkm_source_wait(p->l->source) - wait;
        record_iteration(p, &it);
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

fkm_status fkm_too_many_clusters(int32_t k, int64_t rows, const char *what, fkm_err *e)
{
    fkm_fail(e, FKM_EDATA, "%d clusters were asked for, but the data has only %lld %s", k,
        (long long)rows, what);
    if (rows < 1)
        return fkm_hint(e, "there is nothing to cluster");
    return fkm_hint(e, "use -k %lld or less", (long long)rows);
}

static void report_seeding(void *arg, int64_t rows_done)
{
    report_progress(arg, rows_done);
}

/* The first centroids: given, or drawn. Uses the labels as scratch. */
static fkm_status choose_centroids(problem *p, fkm_err *e)
{
    fkm_run *r = p->r;
    const fkm_fit_options *o = r->o;
    int64_t cells = (int64_t)o->clusters * r->shape.dims;
    if (o->init) {
        memcpy(p->centroids, o->init + (o->init_batch ? p->index * cells : 0),
            (size_t)cells * sizeof(float));
        if (o->init_read && r->shape.batch == 1 && o->restarts == 1)
            o->init_read(o->init_arg);
        return FKM_OK;
    }
    bool not_finite = false;
    fkm_cover_env env = {
        .ops = r->ops,
        .plan = &p->l->plan,
        .w = r->w,
        .progress = report_seeding,
        .arg = p,
        .run = &p->l->stats,
        .skip_nan = o->skip_nan,
        .device_bytes = r->ops->device_bytes(p->l->backend),
    };
    fkm_seed_job job = {
        .method = o->method,
        .seed = seed_of(p),
        .clusters = o->clusters,
        .source = p->l->source,
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
    fkm_run *r = p->r;
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
    FKM_TRY(fkm_seed_sample(&sample, p->l->source, rows, r->shape.dims, seed_of(p), e));
    if (fkm_scale_choose(&scale, &sample, rows, r->in, base_row(p), e) != FKM_OK)
        scale = (fkm_scale){0, false, 0};
    return use_scale(p, scale, e);
}

/* Loads the rows (resident) or starts to read them (stream). */
static fkm_status load_problem(problem *p, fkm_err *e)
{
    fkm_run *r = p->r;
    int32_t k = r->o->clusters;
    const fkm_observer reading = {
        .arg = p, .progress = report_reading, .stop = r->w ? r->w->stop : NULL};
    report(p, r->out->run.plan.resident ? -1 : 0, 0);
    fkm_scan_init(&p->scan);
    bool eight_bit = is_eight_bit(r);
    r->ops->reset(p->l->backend); /* it may read the rows of the problem before */
    FKM_TRY(
        fkm_source_start(p->l->source, p->index, false, eight_bit ? NULL : &p->scan, &reading, e));
    p->scanned = r->out->run.plan.resident || eight_bit;
    if (p->scan.rows_not_finite && !r->o->skip_nan)
        return fkm_scan_not_finite(&p->scan, r->in, base_row(p), e);
    int64_t usable = r->shape.rows - p->scan.rows_not_finite;
    return k > usable ? fkm_too_many_clusters(k, usable, "rows without NaN or Inf", e) : FKM_OK;
}

/* Gives the backend the centroids and the scale, and takes all labels away. */
static fkm_status hand_over(problem *p, fkm_err *e)
{
    fkm_run *r = p->r;
    r->ops->reset(p->l->backend);
    FKM_TRY(r->ops->set_centroids(p->l->backend, p->centroids, e));
    take_labels_away(p);
    return choose_scale(p, e);
}

static fkm_status begin_start(problem *p, fkm_err *e)
{
    p->iteration = p->reseeded = p->safe_iteration = 0;
    p->still = false;
    p->moved = 0;
    p->known_moved = -1;
    p->first_iteration = p->s->iteration_count;
    p->resuming = false;
    note_position(p);
    report_progress(p, 0);
    fkm_lanes_still(&p->r->lanes);
    fkm_status st = choose_centroids(p, e);
    fkm_lanes_move(&p->r->lanes);
    FKM_TRY(st);
    if (p->l->safe)
        memcpy(p->l->safe, p->centroids, centroids_bytes(p->r));
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
    fkm_run *r = p->r;
    const fkm_problem_state *s = p->s;
    p->first_iteration = p->s->iteration_count - (s->iteration - 1);
    const fkm_iteration *its = p->s->iterations + p->first_iteration;
    r->ops->reset(p->l->backend);
    FKM_TRY(r->ops->set_centroids(p->l->backend, p->centroids, e));
    FKM_TRY(choose_scale(p, e));
    p->result->iterations = s->iteration - 1;
    for (int32_t i = 0; i < s->iteration - 1; i++)
        p->result->reseeded += its[i].reseeded;
    p->still = false;
    if (s->iteration > 1) {
        const fkm_iteration *last = &its[s->iteration - 2];
        p->reseeded = last->reseeded;
        p->still = last->i > 1 && last->moved == 0;
        *before = last->inertia;
    }
    p->moved = s->relabel ? 0 : s->moved;
    p->known_moved = s->relabel ? s->moved : -1;
    p->iteration = s->iteration;
    p->resuming = false;
    return FKM_OK;
}

/* May the pass after the last iteration, should it move no label, leave clusters empty for which
 * donors are to be looked for? Those are of the iteration's. */
static bool may_find_donors(const problem *p)
{
    int32_t n = p->s->iteration_count;
    return p->r->o->empty == FKM_EMPTY_FARTHEST && n > 0 && p->s->iterations[n - 1].empty > 0;
}

/* One start, to its end: p->result, p->centroids and p->labels. */
static fkm_status run_start(problem *p, fkm_err *e)
{
    fkm_run *r = p->r;
    double begin = fkm_now(), before = INFINITY;
    fkm_pass pass = {0};
    bool moved, failed;
    if (p->resuming && p->s->iteration > 0)
        FKM_TRY(resume_start(p, &before, e));
    else
        FKM_TRY(begin_start(p, e));
    p->l->stats.init_s += fkm_now() - begin;
    FKM_TRY(iterate(p, before, &pass, &moved, e));
    if (moved) { /* labels must belong to the centroids that are returned */
        FKM_TRY(save_if_due(p, e));
        if (r->o->restarts == 1 && !may_find_donors(p))
            fkm_source_last_pass(p->l->source);
        FKM_TRY(label_rows(p, &pass, &failed, e));
        p->result->converged = false;
        if (pass.moved == 0)
            FKM_TRY(judge(p, &pass, false, &p->result->converged, e));
        forget_donors(p);
    }
    FKM_TRY(r->ops->labels(p->l->backend, p->labels, e));
    p->result->inertia = pass.inertia;
    p->result->rows_used = pass.rows;
    p->result->rows_skipped = pass.skipped;
    p->result->moved_last = pass.moved;
    return r->ops->get_centroids(
        p->l->backend, p->centroids, r->out->counts + (int64_t)p->index * r->o->clusters, e);
}

/* The start that just ended is the best: what it leaves takes the place of the one before. */
static void keep_start(problem *p, fkm_problem_result *best)
{
    fkm_run *r = p->r;
    fkm_iteration *all = p->s->iterations;
    int32_t first = p->first_iteration - p->best_iterations;
    int32_t count = p->s->iteration_count - p->first_iteration;
    memmove(all + first, all + p->first_iteration, (size_t)count * sizeof *all);
    p->s->iteration_count = first + count;
    p->best_iterations = count;
    p->best_start = p->restart;
    *best = *p->result;
    if (p->s->best)
        memcpy(p->s->best, p->centroids, centroids_bytes(r));
}

/* The best start was not the last: its labels and counts follow from its centroids, by one pass. */
static fkm_status restore_best(problem *p, fkm_err *e)
{
    fkm_run *r = p->r;
    fkm_pass pass;
    bool failed;
    p->restoring = true;
    p->moved = 0;
    p->known_moved = -1;
    p->resuming = false;
    memcpy(p->centroids, p->s->best, centroids_bytes(r));
    FKM_TRY(hand_over(p, e));
    p->iteration = r->o->max_iter + 1;
    fkm_source_last_pass(p->l->source);
    FKM_TRY(label_rows(p, &pass, &failed, e));
    FKM_TRY(r->ops->labels(p->l->backend, p->labels, e));
    if (pass.inertia != p->result->inertia)
        return fkm_fail(e, r->o->saving && r->o->saving->resumes ? FKM_EDATA : FKM_EBUG,
            "the best start had inertia %.17g, now it is %.17g", p->result->inertia, pass.inertia);
    return r->ops->get_centroids(
        p->l->backend, NULL, r->out->counts + (int64_t)p->index * r->o->clusters, e);
}

/* All starts, the best of which ends up in the result. */
static fkm_status run_starts(problem *p, fkm_problem_result *best, fkm_err *e)
{
    fkm_run *r = p->r;
    int32_t starts = r->o->restarts;
    if (p->resuming) {
        p->restart = p->s->restart;
        p->best_start = p->s->best_start;
        p->best_iterations = p->s->best_iterations;
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
            p->s->iteration_count = p->first_iteration;
    }
    p->restart = p->best_start;
    p->result = best;
    return p->best_start == starts - 1 ? FKM_OK : restore_best(p, e);
}

/* The rows, and what the state of the problem tells beside its position. */
static fkm_status begin_problem(problem *p, fkm_err *e)
{
    fkm_run *r = p->r;
    int64_t cells = (int64_t)r->o->clusters * r->shape.dims;
    if (!r->out->run.plan.resident && r->o->empty == FKM_EMPTY_FARTHEST) {
        p->far.room = (int32_t)fkm_min_i64(FAR_ROOM, r->o->clusters);
        FKM_TRY(fkm_alloc(&p->far.rows, p->far.room, sizeof *p->far.rows, "farthest rows", e));
    }
    if (r->o->restarts > 1 && !p->s->best)
        FKM_TRY(fkm_alloc(&p->s->best, cells, sizeof *p->s->best, "the best centroids", e));
    fkm_lanes_still(&r->lanes);
    fkm_status st = load_problem(p, e);
    fkm_lanes_move(&r->lanes);
    if (st == FKM_OK && p->resuming && p->s->scanned && !p->scanned) {
        p->scale = p->s->scale; /* checked by the first pass, as any guess */
        p->guessed = true;
    }
    return st;
}

static fkm_status run_problem(problem *p, fkm_err *e)
{
    double begin = fkm_now();
    FKM_TRY(check_stop(p, e));
    FKM_TRY(begin_problem(p, e));
    p->l->stats.init_s += fkm_now() - begin;
    FKM_TRY(run_starts(p, &p->r->out->problems[p->index], e));
    return describe_clusters(p, e);
}

/* Of a problem that is done: its iterations without room for more, if they are told of at all. */
static void keep_listed(const fkm_run *r, fkm_problem_state *s, int64_t index)
{
    fkm_err ignored = {0};
    fkm_iteration *few = NULL;
    int32_t count = index < fkm_problems_listed(r->o, r->out->batch) ? s->iteration_count : 0;
    if (count > 0) {
        if (fkm_alloc(&few, count, sizeof *few, "iteration statistics", &ignored) != FKM_OK)
            return; /* it stays as it is */
        memcpy(few, s->iterations, (size_t)count * sizeof *few);
    }
    fkm_free(s->iterations);
    s->iterations = few;
    s->iteration_count = count;
    s->iteration_room = count;
}

fkm_status fkm_solve(fkm_lane *l, int64_t index, fkm_err *e)
{
    fkm_run *r = l->r;
    fkm_result *out = r->out;
    fkm_problem_state *s = &r->state.problems[index];
    problem p = {
        .r = r,
        .l = l,
        .s = s,
        .resuming = s->stage == FKM_AT_WORK,
        .index = (int32_t)index,
        .first_iteration = s->iteration_count,
        .centroids = out->centroids + index * r->o->clusters * r->shape.dims,
        .labels = out->labels + index * r->shape.rows,
        .known_moved = -1,
    };
    l->problem = &p;
    fkm_status st = run_problem(&p, e);
    if (st == FKM_OK) {
        s->stage = FKM_DONE;
        keep_listed(r, s, index);
        fkm_free(s->best);
        s->best = NULL;
    } else {
        note_end(&p, st);
    }
    l->problem = NULL;
    forget_donors(&p);
    fkm_free(p.far.rows);
    return st;
}
