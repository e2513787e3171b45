/* Work as graphs: see replay.cuh. */
#include "replay.cuh"

#include "check.cuh"
#include "device.cuh"

extern "C" {
#include "../src/base/log.h"
#include "../src/base/mem.h"
}

#include <string.h>

#define CU(call) FKM_CUDA(w->device, call)

fkm_status fkm_replay_open(fkm_replay *r, int64_t bytes, fkm_err *e)
{
    static const char what[] = "states of a pass";
    memset(r, 0, sizeof *r);
    r->bytes = bytes;
    FKM_TRY(fkm_calloc(&r->state, bytes, 1, what, e));
    for (auto &s : r->slot) {
        FKM_TRY(fkm_calloc(&s.before, bytes, 1, what, e));
        FKM_TRY(fkm_calloc(&s.after, bytes, 1, what, e));
    }
    return FKM_OK;
}

int64_t fkm_replay_bytes(int64_t bytes)
{
    return (2 * FKM_REPLAYS + 1) * bytes;
}

static void drop_graph(fkm_replay_slot *s)
{
    if (s->graph)
        (void)cudaGraphExecDestroy(s->graph);
    s->graph = NULL;
}

void fkm_replay_close(fkm_replay *r)
{
    for (auto &s : r->slot) {
        drop_graph(&s);
        fkm_free(s.before);
        fkm_free(s.after);
    }
    fkm_free(r->state);
    memset(r, 0, sizeof *r);
}

/* The slot of r->state; *seen: it was there, else it takes the place of the one that is oldest. */
static fkm_replay_slot *find_slot(fkm_replay *r, bool *seen)
{
    fkm_replay_slot *oldest = &r->slot[0];
    *seen = false;
    for (auto &s : r->slot) {
        *seen = s.used > 0 &&
                (memcmp(s.before, r->state, (size_t)r->bytes) == 0 || (FKM_PLANT(11) && s.graph));
        if (*seen)
            return &s;
        if (s.used < oldest->used)
            oldest = &s;
    }
    drop_graph(oldest);
    memcpy(oldest->before, r->state, (size_t)r->bytes);
    return oldest;
}

/* *graph = what `queue` does, none of which is done. The capture has ended, whatever happens. */
static fkm_status capture(cudaGraph_t *graph, const fkm_work *w, fkm_err *e)
{
    *graph = NULL;
    CU(cudaStreamBeginCapture(w->stream, cudaStreamCaptureModeThreadLocal));
    fkm_status st = w->queue(w->arg, e);
    cudaError_t ended = cudaStreamEndCapture(w->stream, graph);
    if (st != FKM_OK) {
        (void)cudaGetLastError();
        return st;
    }
    CU(ended);
    return FKM_OK;
}

static fkm_status make_graph(fkm_replay_slot *s, const fkm_work *w, fkm_err *e)
{
    cudaGraph_t graph = NULL;
    fkm_status st = capture(&graph, w, e);
    if (st == FKM_OK)
        st = fkm_cuda_check(cudaGraphInstantiate(&s->graph, graph, 0), "cudaGraphInstantiate()",
            __FILE__, __LINE__, w->device, e);
    if (st != FKM_OK)
        s->graph = NULL;
    if (graph)
        (void)cudaGraphDestroy(graph);
    return st;
}

fkm_status fkm_replay_run(fkm_replay *r, const fkm_work *w, fkm_err *e)
{
    bool seen;
    if (r->bytes == 0 || r->off)
        return w->queue(w->arg, e);
    w->save(w->arg, r->state);
    fkm_replay_slot *s = find_slot(r, &seen);
    s->used = ++r->runs;
    if (!seen)
        return w->queue(w->arg, e);
    if (!s->graph) {
        fkm_err why;
        memset(&why, 0, sizeof why);
        if (make_graph(s, w, &why) != FKM_OK) { /* if the device is lost, the next call says so */
            fkm_verbose("passes are queued call by call, not as graphs: %s", why.msg);
            r->off = true;
            w->load(w->arg, r->state);
            return w->queue(w->arg, e);
        }
        w->save(w->arg, s->after);
    }
    CU(cudaGraphLaunch(s->graph, w->stream));
    w->load(w->arg, s->after);
    r->launches++;
    return FKM_OK;
}
