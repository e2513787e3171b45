/* Work that a stream is given again and again, as a graph: one launch in place of some thirty.
 *
 * What is queued follows from host state alone. Work says what that state is, as bytes; when the
 * same bytes come for the second time, the calls are captured on the way, and from the third time
 * on the graph is launched and the state becomes what it became then. A state that never comes
 * again is queued call by call, as if there were no graphs. So are all of them when a capture
 * fails. */
#ifndef FKM_REPLAY_CUH
#define FKM_REPLAY_CUH

#include <cuda_runtime.h>
#include <stdint.h>

extern "C" {
#include "../src/base/status.h"
}

#define FKM_REPLAYS                                                                                \
    4 /* states: centroids lie in one of two places, sums are made anew or changed */

struct fkm_replay_slot {
    unsigned char *before, *after; /* [bytes] of the replay */
    cudaGraphExec_t graph;         /* NULL: not captured yet */
    int64_t used;                  /* the run that came last; 0: never */
};

struct fkm_replay {
    int64_t bytes; /* of a state; 0: closed */
    int64_t runs, launches;
    bool off; /* a capture has failed */
    unsigned char *state;
    fkm_replay_slot slot[FKM_REPLAYS];
};

/* bytes: of a state. FKM_ENOMEM. On failure *r can be closed. */
fkm_status fkm_replay_open(fkm_replay *r, int64_t bytes, fkm_err *e);
void fkm_replay_close(fkm_replay *r); /* safe on zeroed structs; the stream is idle */
int64_t fkm_replay_bytes(int64_t bytes);

struct fkm_work {
    void *arg;
    cudaStream_t stream; /* of all that is queued */
    const char *device;  /* its name in messages */
    /* Writes the state, `bytes` of it, the same for the same state, and takes it back. */
    void (*save)(void *arg, void *state);
    void (*load)(void *arg, const void *state);
    fkm_status (*queue)(void *arg, fkm_err *e);
};

/* Queues the work. */
fkm_status fkm_replay_run(fkm_replay *r, const fkm_work *w, fkm_err *e);

#endif
