/* Rates of the first GPU, measured: see ceilings.cuh. Times are those of events on the device. */
#include "ceilings.cuh"

#include "check.cuh"
#include "devices.cuh"
#include "ptx.cuh"

#include <string.h>

extern "C" {
#include "../src/base/checked.h"
}

namespace
{

enum {
    THREADS = 256,
    BLOCKS_PER_SM = 2,
    ROW = 8, /* tiles that share one operand: enough of them in flight to hide the latency */
    MOST_DOUBLINGS = 30,
};
const int64_t MOST_BYTES = (int64_t)1 << 30;

enum what { COPY, UPLOAD, DOWNLOAD, F16, BF16, S8 };

struct ceiling_row {
    const char *name;
    const char *isa; /* NULL: memory */
    what is;
    double flop; /* of a tile; a multiply-add counts two */
};

const ceiling_row table[] = {
    {"device memory copy", nullptr, COPY, 0},
    {"host to device", nullptr, UPLOAD, 0},
    {"device to host", nullptr, DOWNLOAD, 0},
    {"matrix unit, mma.sync", "f16", F16, 2.0 * 16 * 8 * 16},
    {"matrix unit, mma.sync", "bf16", BF16, 2.0 * 16 * 8 * 16},
    {"matrix unit, mma.sync", "s8", S8, 2.0 * 16 * 8 * 32},
};
const int ROWS = (int)(sizeof table / sizeof table[0]);

/* Everything that a measurement holds. */
struct rig {
    char name[256];
    cudaStream_t stream;
    cudaEvent_t from, to;
    char *device[2], *host; /* of `bytes`; which of them depends on the row */
    int64_t bytes;
    unsigned blocks;
};

/* Small numbers that are not zero and not alike: zeros draw less power, and run faster. */
__device__ uint32_t operand(unsigned i, what is)
{
    uint32_t noise = (i + 1) * 2654435761u;
    if (is == F16)
        return 0x34003400u | (noise & 0x83ff83ffu); /* 0.25 to 0.5, of either sign */
    if (is == BF16)
        return 0x3e803e80u | (noise & 0x807f807fu);
    return noise & 0x8f8f8f8fu;
}

template <what KIND, class T> __global__ void multiply(T *out, int64_t rounds)
{
    unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
    uint32_t a[4], b[ROW][2];
    T d[ROW][4], sum = 0;
    for (unsigned i = 0; i < 4; i++)
        a[i] = operand(thread * 4 + i, KIND);
    for (unsigned j = 0; j < ROW; j++) {
        for (unsigned i = 0; i < 2; i++)
            b[j][i] = operand((thread * ROW + j) * 2 + i + 77, KIND);
        for (int i = 0; i < 4; i++)
            d[j][i] = 0;
    }
    for (int64_t r = 0; r < rounds; r++) {
        if constexpr (KIND == F16)
            fkm_mma_row_f16<ROW>(d, a, b);
        else if constexpr (KIND == BF16)
            fkm_mma_row_bf16<ROW>(d, a, b);
        else
            fkm_mma_row_s8<ROW>(d, a, b);
    }
    for (int j = 0; j < ROW; j++)
        for (int i = 0; i < 4; i++)
            sum += d[j][i];
    out[thread] = sum;
}

cudaError_t launch_rounds(const rig &r, what is, int64_t rounds)
{
    if (is == F16)
        FKM_LAUNCH(
            (multiply<F16, float>), r.blocks, THREADS, 0, r.stream, (float *)r.device[0], rounds);
    else if (is == BF16)
        FKM_LAUNCH(
            (multiply<BF16, float>), r.blocks, THREADS, 0, r.stream, (float *)r.device[0], rounds);
    else
        FKM_LAUNCH((multiply<S8, int>), r.blocks, THREADS, 0, r.stream, (int *)r.device[0], rounds);
    return cudaGetLastError();
}

cudaError_t copy_once(const rig &r, what is)
{
    size_t bytes = (size_t)r.bytes;
    if (is == COPY)
        return cudaMemcpyAsync(r.device[1], r.device[0], bytes, cudaMemcpyDeviceToDevice, r.stream);
    if (is == UPLOAD)
        return cudaMemcpyAsync(r.device[0], r.host, bytes, cudaMemcpyHostToDevice, r.stream);
    return cudaMemcpyAsync(r.host, r.device[0], bytes, cudaMemcpyDeviceToHost, r.stream);
}

fkm_status run_rounds(double *seconds, const rig &r, what is, int64_t rounds, fkm_err *e)
{
    float ms;
    FKM_CUDA(r.name, cudaEventRecord(r.from, r.stream));
    if (is >= F16)
        FKM_CUDA(r.name, launch_rounds(r, is, rounds));
    for (int64_t i = 0; is < F16 && i < rounds; i++)
        FKM_CUDA(r.name, copy_once(r, is));
    FKM_CUDA(r.name, cudaEventRecord(r.to, r.stream));
    FKM_CUDA(r.name, cudaEventSynchronize(r.to));
    FKM_CUDA(r.name, cudaEventElapsedTime(&ms, r.from, r.to));
    *seconds = ms > 0 ? ms * 1e-3 : 1e-9;
    return FKM_OK;
}

fkm_status measure(fkm_ceiling *out, const rig &r, const ceiling_row &row,
    const fkm_ceiling_options *o, fkm_err *e)
{
    int64_t rounds = 1;
    double s;
    FKM_TRY(run_rounds(&s, r, row.is, rounds, e)); /* warm-up */
    for (int i = 0; i < MOST_DOUBLINGS; i++, rounds *= 2) {
        FKM_TRY(run_rounds(&s, r, row.is, rounds, e));
        if (s >= o->seconds / 2)
            break;
    }
    if (row.is >= F16)
        out->work = row.flop * ROW * (double)rounds * r.blocks * (THREADS / 32);
    else
        out->work = (double)r.bytes * (double)rounds * (row.is == COPY ? 2 : 1);
    out->samples = o->samples;
    for (int32_t i = 0; i < o->samples; i++)
        FKM_TRY(run_rounds(&out->seconds[i], r, row.is, rounds, e));
    return FKM_OK;
}

fkm_status prepare(rig *r, const ceiling_row &row, const fkm_ceiling_options *o, fkm_err *e)
{
    int32_t list[FKM_MOST_GPUS], count;
    cudaDeviceProp p;
    size_t free_bytes, total;
    FKM_TRY(fkm_devices(list, &count, nullptr, e));
    FKM_CUDA("cuda", cudaSetDevice(list[0]));
    FKM_CUDA("cuda", cudaGetDeviceProperties(&p, list[0]));
    memcpy(r->name, p.name, sizeof r->name);
    FKM_CUDA(r->name, cudaMemGetInfo(&free_bytes, &total));
    r->blocks = (unsigned)(p.multiProcessorCount * BLOCKS_PER_SM);
    r->bytes = (int64_t)r->blocks * THREADS * 4;
    if (row.is < F16)
        r->bytes = fkm_max_i64(
            r->bytes, fkm_min_i64(MOST_BYTES, fkm_min_i64(o->bytes, (int64_t)(free_bytes / 4))));
    FKM_CUDA(r->name, cudaStreamCreateWithFlags(&r->stream, cudaStreamNonBlocking));
    FKM_CUDA(r->name, cudaEventCreate(&r->from));
    FKM_CUDA(r->name, cudaEventCreate(&r->to));
    FKM_CUDA(r->name, cudaMalloc(&r->device[0], (size_t)r->bytes));
    FKM_CUDA(r->name, cudaMemsetAsync(r->device[0], 0x3c, (size_t)r->bytes, r->stream));
    if (row.is == COPY)
        FKM_CUDA(r->name, cudaMalloc(&r->device[1], (size_t)r->bytes));
    if (row.is == UPLOAD || row.is == DOWNLOAD) {
        FKM_CUDA(r->name, cudaHostAlloc(&r->host, (size_t)r->bytes, cudaHostAllocDefault));
        memset(r->host, 0x3c, (size_t)r->bytes);
    }
    return FKM_OK;
}

void release(rig *r)
{
    if (r->stream)
        (void)cudaStreamSynchronize(r->stream);
    (void)cudaFree(r->device[0]);
    (void)cudaFree(r->device[1]);
    (void)cudaFreeHost(r->host);
    if (r->from)
        (void)cudaEventDestroy(r->from);
    if (r->to)
        (void)cudaEventDestroy(r->to);
    if (r->stream)
        (void)cudaStreamDestroy(r->stream);
}

} // namespace

fkm_status fkm_cuda_ceiling(fkm_ceiling *out, int i, const fkm_ceiling_options *o, fkm_err *e)
{
    memset(out, 0, sizeof *out);
    if (i >= ROWS)
        return FKM_OK;
    const ceiling_row &row = table[i];
    const char *own = o->isa ? o->isa : "f16";
    rig r = {};
    fkm_status st = prepare(&r, row, o, e);
    if (st == FKM_OK)
        st = measure(out, r, row, o, e);
    release(&r);
    out->name = row.name;
    out->isa = row.isa;
    out->threads = 1;
    out->in_bytes = !row.isa;
    if (row.is == COPY)
        out->over = FKM_OVER_UPDATE;
    else if (row.isa && !strcmp(row.isa, own))
        out->over = FKM_OVER_ASSIGN;
    return st;
}
