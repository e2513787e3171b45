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

enum what { COPY, READ, UPLOAD, DOWNLOAD, MULTIPLY, MULTIPLY_SM90A };

struct ceiling_row {
    const char *name;
    const char *isa; /* NULL: memory */
    what is;
    fkm_unit unit;
    double flop; /* of a warp and round, or of a block and round; a multiply-add counts two */
};

#define TILE (2.0 * 16 * 8 * 16 * ROW)
#define SM90A_ROUND (2.0 * (double)FKM_MULTIPLY_BYTES)
const ceiling_row table[] = {
    {"device memory copy", nullptr, COPY, FKM_UNIT_F16, 0},
    {"device memory read", nullptr, READ, FKM_UNIT_F16, 0},
    {"host to device", nullptr, UPLOAD, FKM_UNIT_F16, 0},
    {"device to host", nullptr, DOWNLOAD, FKM_UNIT_F16, 0},
    {"matrix unit, mma.sync", "f16", MULTIPLY, FKM_UNIT_F16, TILE},
    {"matrix unit, mma.sync", "bf16", MULTIPLY, FKM_UNIT_BF16, TILE},
    {"matrix unit, mma.sync", "s8", MULTIPLY, FKM_UNIT_S8, 2 * TILE},
#if FKM_HAVE_SM90A /* for 9.0 alone: last */
    {"matrix unit, wgmma", "f16", MULTIPLY_SM90A, FKM_UNIT_F16, SM90A_ROUND / 2},
    {"matrix unit, wgmma", "bf16", MULTIPLY_SM90A, FKM_UNIT_BF16, SM90A_ROUND / 2},
    {"matrix unit, wgmma", "s8", MULTIPLY_SM90A, FKM_UNIT_S8, SM90A_ROUND},
#endif
};
const int ROWS = (int)(sizeof table / sizeof table[0]);

/* Everything that a measurement holds. */
struct rig {
    char name[256];
    bool hopper;
    unsigned processors;
    cudaStream_t stream;
    cudaEvent_t from, to;
    char *device[2], *host; /* of `bytes`; which of them depends on the row */
    int64_t bytes;
    unsigned blocks;
};

/* Each thread reads 16 bytes at a time. The sum is stored where it is what it never is, so that it
 * has to be made. */
__global__ void read_all(unsigned *out, const uint4 *from, int64_t count)
{
    const int64_t step = (int64_t)gridDim.x * blockDim.x;
    unsigned sum = 0;
#pragma unroll 8
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        const uint4 v = from[i];
        sum |= v.x | v.y | v.z | v.w;
    }
    if (sum == 1)
        *out = sum;
}

template <fkm_unit KIND, class T> __global__ void multiply(T *out, int64_t rounds)
{
    unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
    uint32_t a[4], b[ROW][2];
    T d[ROW][4], sum = 0;
    for (unsigned i = 0; i < 4; i++)
        a[i] = fkm_operand(thread * 4 + i, KIND);
    for (unsigned j = 0; j < ROW; j++) {
        for (unsigned i = 0; i < 2; i++)
            b[j][i] = fkm_operand((thread * ROW + j) * 2 + i + 77, KIND);
        for (int i = 0; i < 4; i++)
            d[j][i] = 0;
    }
    for (int64_t r = 0; r < rounds; r++) {
        if constexpr (KIND == FKM_UNIT_F16)
            fkm_mma_row_f16<ROW>(d, a, b);
        else if constexpr (KIND == FKM_UNIT_BF16)
            fkm_mma_row_bf16<ROW>(d, a, b);
        else
            fkm_mma_row_s8<ROW>(d, a, b);
    }
    for (int j = 0; j < ROW; j++)
        for (int i = 0; i < 4; i++)
            sum += d[j][i];
    out[thread] = sum;
}

cudaError_t launch_rounds(const rig &r, const ceiling_row &row, int64_t rounds)
{
#if FKM_HAVE_SM90A
    if (row.is == MULTIPLY_SM90A)
        return fkm_multiply_sm90a(r.device[0], row.unit, r.processors, rounds, r.stream);
#endif
    if (row.unit == FKM_UNIT_F16)
        FKM_LAUNCH((multiply<FKM_UNIT_F16, float>), r.blocks, THREADS, 0, r.stream,
            (float *)r.device[0], rounds);
    else if (row.unit == FKM_UNIT_BF16)
        FKM_LAUNCH((multiply<FKM_UNIT_BF16, float>), r.blocks, THREADS, 0, r.stream,
            (float *)r.device[0], rounds);
    else
        FKM_LAUNCH((multiply<FKM_UNIT_S8, int>), r.blocks, THREADS, 0, r.stream, (int *)r.device[0],
            rounds);
    return cudaGetLastError();
}

cudaError_t copy_once(const rig &r, what is)
{
    size_t bytes = (size_t)r.bytes;
    if (is == READ) {
        FKM_LAUNCH(read_all, 8 * r.processors, THREADS, 0, r.stream, (unsigned *)r.device[0],
            (const uint4 *)r.device[0], r.bytes / 16);
        return cudaGetLastError();
    }
    if (is == COPY)
        return cudaMemcpyAsync(r.device[1], r.device[0], bytes, cudaMemcpyDeviceToDevice, r.stream);
    if (is == UPLOAD)
        return cudaMemcpyAsync(r.device[0], r.host, bytes, cudaMemcpyHostToDevice, r.stream);
    return cudaMemcpyAsync(r.host, r.device[0], bytes, cudaMemcpyDeviceToHost, r.stream);
}

fkm_status run_rounds(
    double *seconds, const rig &r, const ceiling_row &row, int64_t rounds, fkm_err *e)
{
    float ms;
    FKM_CUDA(r.name, cudaEventRecord(r.from, r.stream));
    if (row.isa)
        FKM_CUDA(r.name, launch_rounds(r, row, rounds));
    for (int64_t i = 0; !row.isa && i < rounds; i++)
        FKM_CUDA(r.name, copy_once(r, row.is));
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
    FKM_TRY(run_rounds(&s, r, row, rounds, e)); /* warm-up */
    for (int i = 0; i < MOST_DOUBLINGS; i++, rounds *= 2) {
        FKM_TRY(run_rounds(&s, r, row, rounds, e));
        if (s >= o->seconds / 2)
            break;
    }
    if (row.is == MULTIPLY)
        out->work = row.flop * (double)rounds * r.blocks * (THREADS / 32);
    else if (row.is == MULTIPLY_SM90A)
        out->work = row.flop * (double)rounds * r.processors;
    else
        out->work = (double)r.bytes * (double)rounds * (row.is == COPY ? 2 : 1);
    out->samples = o->samples;
    for (int32_t i = 0; i < o->samples; i++)
        FKM_TRY(run_rounds(&out->seconds[i], r, row, rounds, e));
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
    r->hopper = p.major == 9 && p.minor == 0;
    if (row.is == MULTIPLY_SM90A && !r->hopper)
        return FKM_OK;
    r->processors = (unsigned)p.multiProcessorCount;
    r->blocks = r->processors * BLOCKS_PER_SM;
    r->bytes = (int64_t)r->blocks * THREADS * 4;
    if (!row.isa)
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

/* What the row is over, for who asks for `isa`: a unit, "-portable" or not. */
static fkm_ceiling_over over(const ceiling_row &row, const char *isa, bool hopper)
{
    const char *end = isa ? strchr(isa, '-') : nullptr;
    const bool own = FKM_HAVE_SM90A && hopper && !end;
    if (row.is == READ)
        return FKM_OVER_UPDATE;
    if (!row.isa || own != (row.is == MULTIPLY_SM90A))
        return FKM_OVER_NOTHING;
    if (!isa)
        return row.unit == FKM_UNIT_F16  ? FKM_OVER_ASSIGN
               : row.unit == FKM_UNIT_S8 ? FKM_OVER_ASSIGN_BYTES
                                         : FKM_OVER_NOTHING;
    const size_t length = end ? (size_t)(end - isa) : strlen(isa);
    return strlen(row.isa) == length && strncmp(row.isa, isa, length) == 0 ? FKM_OVER_ASSIGN
                                                                           : FKM_OVER_NOTHING;
}

fkm_status fkm_cuda_ceiling(fkm_ceiling *out, int i, const fkm_ceiling_options *o, fkm_err *e)
{
    memset(out, 0, sizeof *out);
    if (i >= ROWS)
        return FKM_OK;
    const ceiling_row &row = table[i];
    rig r = {};
    fkm_status st = prepare(&r, row, o, e);
    const bool applies = row.is != MULTIPLY_SM90A || r.hopper;
    if (st == FKM_OK && applies)
        st = measure(out, r, row, o, e);
    release(&r);
    if (!applies)
        return st;
    out->name = row.name;
    out->isa = row.isa;
    out->threads = 1;
    out->in_bytes = !row.isa;
    out->over = over(row, o->isa, r.hopper);
    return st;
}
