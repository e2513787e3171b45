/* Problems of a batch side by side: see lanes.h. */
#include "lanes.h"

#include "base/clock.h"
#include "base/thread.h"

#include <math.h>
#include <string.h>

void fkm_lanes_open(fkm_lanes *l)
{
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->changed, NULL);
    for (int32_t i = 0; i < l->count; i++)
        l->at[i] = l->problems;
    l->next = 0;
    l->moving = 0;
    l->due = false;
    l->due_s = INFINITY;
    l->saves = 0;
    l->failed = l->problems;
}

void fkm_lanes_close(fkm_lanes *l)
{
    pthread_cond_destroy(&l->changed);
    pthread_mutex_destroy(&l->lock);
}

/* ---- with the lock held ---- */

static void stand_still(fkm_lanes *l)
{
    l->moving--;
    if (l->moving > 0 || !l->due)
        return;
    l->save(l->arg);
    l->due = false;
    l->saves++;
    pthread_cond_broadcast(&l->changed);
}

/* The next problem that is left, `problems` if there is none. */
static int64_t take_problem(fkm_lanes *l)
{
    while (l->next < l->failed && l->is_done(l->arg, l->next))
        l->next++;
    return l->next < l->failed ? l->next++ : l->problems;
}

static void note_failure(fkm_lanes *l, int64_t problem, fkm_status st, const fkm_err *e)
{
    if (problem >= l->failed)
        return;
    l->failed = problem;
    l->status = st;
    l->error = *e;
}

/* ---- running ---- */

typedef struct lane {
    fkm_lanes *lanes;
    int32_t index;
    pthread_t thread;
} lane;

static void run_lane(fkm_lanes *l, int32_t index)
{
    pthread_mutex_lock(&l->lock);
    l->moving++;
    while ((l->at[index] = take_problem(l)) < l->problems) {
        fkm_err e;
        memset(&e, 0, sizeof e);
        pthread_mutex_unlock(&l->lock);
        fkm_status st = l->solve(l->arg, index, l->at[index], &e);
        pthread_mutex_lock(&l->lock);
        if (st != FKM_OK)
            note_failure(l, l->at[index], st, &e);
    }
    stand_still(l);
    pthread_mutex_unlock(&l->lock);
}

static void *lane_main(void *arg)
{
    lane *a = arg;
    run_lane(a->lanes, a->index);
    return NULL;
}

fkm_status fkm_lanes_run(fkm_lanes *l, fkm_err *e)
{
    lane lanes[FKM_MOST_LANES];
    int32_t started = 1;
    fkm_status st = FKM_OK;
    for (; started < l->count && st == FKM_OK; started += st == FKM_OK) {
        lanes[started] = (lane){.lanes = l, .index = started};
        st = fkm_thread_start(
            &lanes[started].thread, lane_main, &lanes[started], "a thread for a problem", e);
    }
    if (st == FKM_OK) {
        run_lane(l, 0);
    } else {
        pthread_mutex_lock(&l->lock);
        note_failure(l, -1, st, e); /* ends all others */
        pthread_mutex_unlock(&l->lock);
    }
    for (int32_t i = 1; i < started; i++)
        pthread_join(lanes[i].thread, NULL);
    if (l->failed == l->problems)
        return FKM_OK;
    *e = l->error;
    return l->status;
}

/* ---- by `solve` ---- */

bool fkm_lanes_is_over(fkm_lanes *l, int64_t problem)
{
    pthread_mutex_lock(&l->lock);
    bool over = l->failed < problem;
    pthread_mutex_unlock(&l->lock);
    return over;
}

bool fkm_lanes_is_first(fkm_lanes *l, int64_t problem)
{
    bool first = true;
    pthread_mutex_lock(&l->lock);
    for (int32_t i = 0; i < l->count; i++)
        first = first && l->at[i] >= problem;
    pthread_mutex_unlock(&l->lock);
    return first;
}

void fkm_lanes_set_due(fkm_lanes *l, double due_s)
{
    l->due_s = due_s;
}

bool fkm_lanes_is_due(fkm_lanes *l)
{
    pthread_mutex_lock(&l->lock);
    l->due = l->due || fkm_now() >= l->due_s;
    bool due = l->due;
    pthread_mutex_unlock(&l->lock);
    return due;
}

void fkm_lanes_meet(fkm_lanes *l)
{
    pthread_mutex_lock(&l->lock);
    uint64_t saves = l->saves;
    bool due = l->due; /* else it was saved between this lane's look and its coming */
    stand_still(l);
    while (due && l->saves == saves)
        pthread_cond_wait(&l->changed, &l->lock);
    l->moving++;
    pthread_mutex_unlock(&l->lock);
}

void fkm_lanes_still(fkm_lanes *l)
{
    pthread_mutex_lock(&l->lock);
    stand_still(l);
    pthread_mutex_unlock(&l->lock);
}

void fkm_lanes_move(fkm_lanes *l)
{
    pthread_mutex_lock(&l->lock);
    l->moving++;
    pthread_mutex_unlock(&l->lock);
}
