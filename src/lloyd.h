/* One problem: Lloyd's iteration, its starts, its stopping rule and its empty clusters. And what
 * problems of a batch that are at work side by side share (run), and what each has for itself
 * (lane).
 *
 * Internal to the engine: engine.c opens runs and lanes, lloyd.c works on problems. */
#ifndef FKM_LLOYD_H
#define FKM_LLOYD_H

#include "backend.h"
#include "checkpoint.h"
#include "checksums.h"
#include "fkm.h"
#include "lanes.h"
#include "source.h"

#include <pthread.h>

struct fkm_problem; /* of lloyd.c */

/* What a problem is worked on with, one after the other. */
typedef struct fkm_lane {
    struct fkm_run *r;
    fkm_plan plan;   /* of the backend */
    char device[16]; /* in plan.devices, if the lane has one of its own */
    fkm_backend *backend;
    fkm_source *source;
    double *distances; /* [chunk_rows]: of the search for farthest rows */
    float *safe;       /* [clusters][dims]: centroids that cannot be lost with the device, nor by an
                          error while they move; NULL: no state is kept */
    double next_safe_s;          /* on the clock */
    fkm_run_stats stats;         /* the lane's part: counts, and time to begin; no plan */
    struct fkm_problem *problem; /* at work; NULL: none */
} fkm_lane;

/* One run of fkm_fit. Lanes read what is here, but for what they have of their own: the state, the
 * centroids, labels and results of their problems. */
typedef struct fkm_run {
    const fkm_fit_options *o;
    const fkm_observer *w;
    fkm_reader *in;
    fkm_shape shape;
    const fkm_backend_ops *ops;
    fkm_result *out;
    double begin_s;
    fkm_checksums checksums; /* of the rows; open when they may be read again */
    char *key;               /* of the state on disk; NULL: none is kept */
    fkm_state state;         /* of problems at work as they were when they last stood still */
    atomic_bool frozen;      /* what is on disk is newer than what is left of some problem */
    pthread_mutex_t talk;    /* one callback of the observer at a time */
    fkm_lanes lanes;
    fkm_lane *lane; /* [lanes.count] */
} fkm_run;

/* Solves a problem, from its state on, which is as it was loaded, or untouched. On return the state
 * is done, or where the problem can be gone on from; on an error from which that makes no sense
 * (FKM_EDATA ...) untouched. Statuses as fkm_fit. */
fkm_status fkm_solve(fkm_lane *l, int64_t index, fkm_err *e) FKM_MUST_USE;

/* Whether a run that ends so can go on from the state that it leaves. */
bool fkm_is_resumable(fkm_status st);

/* A save has just put the state of a problem at work on disk. */
void fkm_problem_is_saved(struct fkm_problem *p);

/* k clusters are more than there are `what`. */
fkm_status fkm_too_many_clusters(int32_t k, int64_t rows, const char *what, fkm_err *e);

#endif
