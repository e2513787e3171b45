/* Problems of a batch side by side: lanes, each a thread that takes one problem after the other.
 *
 * The order of problems shows in nothing but time. A problem that fails ends those after it; those
 * before it go on, so that the failure that is told of is the one that they would have come to one
 * after the other.
 *
 * The state of a run is saved while all lanes stand still: at a meeting, which each comes to
 * between two iterations once a save is due, in work whose state does not change (still, move), or
 * gone. */
#ifndef FKM_LANES_H
#define FKM_LANES_H

#include "base/status.h"
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define FKM_MOST_LANES 64

typedef struct fkm_lanes {
    /* The caller's. */
    int32_t count; /* 1 to FKM_MOST_LANES; with 1 all happens on the caller's thread */
    int64_t problems;
    void *arg;
    bool (*is_done)(void *arg, int64_t problem); /* already: it is passed over */
    fkm_status (*solve)(void *arg, int32_t lane, int64_t problem, fkm_err *e);
    void (*save)(void *arg); /* all stand still; no call of this file from within */

    /* Own. */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int64_t at[FKM_MOST_LANES]; /* the problem of each; `problems`: none */
    int64_t next;               /* problem to hand out */
    int32_t moving;             /* lanes that do not stand still */
    bool due;                   /* a lane waits for the others, to save */
    double due_s;               /* on the clock: when the next save is */
    uint64_t saves;
    int64_t failed; /* the first problem that did, in their order; `problems`: none */
    fkm_status status;
    fkm_err error;
} fkm_lanes;

void fkm_lanes_open(fkm_lanes *l); /* the caller's fields are set */
void fkm_lanes_close(fkm_lanes *l);

/* Solves all problems. The status of the first that failed, in their order; FKM_ENOMEM when a
 * thread cannot be started. All lanes are gone when this returns. */
fkm_status fkm_lanes_run(fkm_lanes *l, fkm_err *e) FKM_MUST_USE;

/* ---- by `solve`, and what it calls ---- */

/* A problem before this one has failed. */
bool fkm_lanes_is_over(fkm_lanes *l, int64_t problem);

/* Of the problems at work this is the first. */
bool fkm_lanes_is_first(fkm_lanes *l, int64_t problem);

/* When to save next: seconds on the clock (fkm_now). */
void fkm_lanes_set_due(fkm_lanes *l, double due_s);
/* It is time: the lane is to make its problem ready for it, and to meet the others. */
bool fkm_lanes_is_due(fkm_lanes *l);
void fkm_lanes_meet(fkm_lanes *l); /* returns after the save */

/* From still to move nothing of the problem changes that a state has. move waits for a save. */
void fkm_lanes_still(fkm_lanes *l);
void fkm_lanes_move(fkm_lanes *l);

#endif
