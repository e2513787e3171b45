/* Time on a stream: see stopwatch.cuh. */
#include "stopwatch.cuh"

#include "check.cuh"

#include <string.h>

#define CU(call) FKM_CUDA(device, call)

fkm_status fkm_stopwatch_open(fkm_stopwatch *w, const char *device, fkm_err *e)
{
    memset(w, 0, sizeof *w);
    for (int i = 0; i < FKM_LAPS; i++) {
        CU(cudaEventCreateWithFlags(&w->from[i], cudaEventDefault));
        CU(cudaEventCreateWithFlags(&w->to[i], cudaEventDefault));
    }
    return FKM_OK;
}

void fkm_stopwatch_close(fkm_stopwatch *w)
{
    for (int i = 0; i < FKM_LAPS; i++) {
        if (w->from[i])
            (void)cudaEventDestroy(w->from[i]);
        if (w->to[i])
            (void)cudaEventDestroy(w->to[i]);
    }
    memset(w, 0, sizeof *w);
}

void fkm_stopwatch_clear(fkm_stopwatch *w)
{
    w->laps = w->added = 0;
    w->seconds = 0;
}

static fkm_status add_lap(fkm_stopwatch *w, const char *device, fkm_err *e)
{
    float ms = 0;
    const int64_t i = w->added % FKM_LAPS;
    CU(cudaEventElapsedTime(&ms, w->from[i], w->to[i]));
    w->seconds += ms * 1e-3;
    w->added++;
    return FKM_OK;
}

/* In a capture, each launch of the graph records. */
static fkm_status record(cudaEvent_t event, cudaStream_t stream, const char *device, fkm_err *e)
{
    cudaStreamCaptureStatus status;
    CU(cudaStreamIsCapturing(stream, &status));
    CU(cudaEventRecordWithFlags(event, stream,
        status == cudaStreamCaptureStatusActive ? cudaEventRecordExternal
                                                : cudaEventRecordDefault));
    return FKM_OK;
}

fkm_status fkm_stopwatch_start(
    fkm_stopwatch *w, cudaStream_t stream, const char *device, fkm_err *e)
{
    const int64_t i = w->laps % FKM_LAPS;
    if (w->laps - w->added == FKM_LAPS) {
        CU(cudaEventSynchronize(w->to[i]));
        FKM_TRY(add_lap(w, device, e));
    }
    return record(w->from[i], stream, device, e);
}

fkm_status fkm_stopwatch_stop(fkm_stopwatch *w, cudaStream_t stream, const char *device, fkm_err *e)
{
    FKM_TRY(record(w->to[w->laps % FKM_LAPS], stream, device, e));
    w->laps++;
    return FKM_OK;
}

fkm_status fkm_stopwatch_read(fkm_stopwatch *w, double *seconds, const char *device, fkm_err *e)
{
    while (w->added < w->laps)
        FKM_TRY(add_lap(w, device, e));
    *seconds = w->seconds;
    return FKM_OK;
}
