/* Time that a stream spends between two places, lap after lap, by events. Nothing waits for it:
 * laps are added up when the stream has been waited for anyway, or when there are more than
 * FKM_LAPS, the oldest of which a queue that is so long has done. */
#ifndef FKM_STOPWATCH_CUH
#define FKM_STOPWATCH_CUH

#include <cuda_runtime.h>
#include <stdint.h>

extern "C" {
#include "../src/base/status.h"
}

#define FKM_LAPS 16

struct fkm_stopwatch {
    cudaEvent_t from[FKM_LAPS], to[FKM_LAPS];
    int64_t laps, added; /* since it was cleared; added: of these, in seconds */
    double seconds;
};

/* device: its name in messages. On failure *w can be closed. */
fkm_status fkm_stopwatch_open(fkm_stopwatch *w, const char *device, fkm_err *e);
void fkm_stopwatch_close(fkm_stopwatch *w); /* safe on zeroed structs; the stream is idle */

void fkm_stopwatch_clear(fkm_stopwatch *w);
fkm_status fkm_stopwatch_start(
    fkm_stopwatch *w, cudaStream_t stream, const char *device, fkm_err *e);
fkm_status fkm_stopwatch_stop(
    fkm_stopwatch *w, cudaStream_t stream, const char *device, fkm_err *e);

/* All laps; the stream has been waited for. */
fkm_status fkm_stopwatch_read(fkm_stopwatch *w, double *seconds, const char *device, fkm_err *e);

#endif
