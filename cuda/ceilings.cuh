/* What a GPU can sustain at best: copies and reads, and products of the matrix unit. */
#ifndef FKM_CEILINGS_CUH
#define FKM_CEILINGS_CUH

#include "pack.cuh"

extern "C" {
#include "../src/backend.h"
}

/* See fkm_backend_ops.ceiling; of the first device that fkm can use. */
fkm_status fkm_cuda_ceiling(fkm_ceiling *out, int i, const fkm_ceiling_options *o, fkm_err *e);

/* ---- for 9.0 alone: ceilings_sm90a.cu ---- */

#define FKM_MULTIPLY_THREADS 256 /* a block; a block takes a processor */
/* Multiply-adds of a block and round, by the bytes of an element. */
#define FKM_MULTIPLY_BYTES ((int64_t)1 << 23)

/* Multiplies by wgmma, from shared memory, `rounds` times. out: [blocks][FKM_MULTIPLY_THREADS] of
 * float32, or int32 for int8: the sum of what each thread has. */
cudaError_t fkm_multiply_sm90a(
    void *out, fkm_unit unit, unsigned blocks, int64_t rounds, cudaStream_t stream);

/* Small numbers that are not zero and not alike, four bytes of them: zeros draw less power, and run
 * faster. */
static inline __host__ __device__ uint32_t fkm_operand(unsigned i, fkm_unit unit)
{
    uint32_t noise = (i + 1) * 2654435761u;
    if (unit == FKM_UNIT_F16)
        return 0x34003400u | (noise & 0x83ff83ffu); /* 0.25 to 0.5, of either sign */
    if (unit == FKM_UNIT_BF16)
        return 0x3e803e80u | (noise & 0x807f807fu);
    return noise & 0x8f8f8f8fu;
}

#endif
