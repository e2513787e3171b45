/* What kernel sources share: one spelling for nvcc and for the CUDA-on-CPU layer of the tests, and
 * a few device functions.
 *
 * FKM_LAUNCH(kernel, grid, block, shared_bytes, stream, arguments...)   a template in parentheses
 * FKM_SHARED(type, name, [N])    a __shared__ variable; FKM_SHARED_DYNAMIC(type, name) the dynamic
 * one FKM_PLANT(n)                   fault n is planted: always false on a GPU (tests/cuda_on_cpu)
 */
#ifndef FKM_DEVICE_CUH
#define FKM_DEVICE_CUH

#include <cuda_runtime.h>
#include <stdint.h>

#ifdef FKM_CUDA_ON_CPU
#define FKM_LAUNCH(kernel, grid, block, bytes, stream, ...)                                        \
    cuo::launch(#kernel, kernel, grid, block, bytes, stream, __VA_ARGS__)
#define FKM_SHARED(type, name, ...) CUO_SHARED(type, name, __VA_ARGS__)
#define FKM_SHARED_DYNAMIC(type, name) CUO_SHARED_DYNAMIC(type, name)
#define FKM_PLANT(n) CUO_PLANT(n)
#else
#define FKM_LAUNCH(kernel, grid, block, bytes, stream, ...)                                        \
    (kernel)<<<(grid), (block), (bytes), (stream)>>>(__VA_ARGS__)
#define FKM_SHARED(type, name, ...) __shared__ type name __VA_ARGS__
#define FKM_SHARED_DYNAMIC(type, name)                                                             \
    extern __shared__ __align__(1024) unsigned char fkm_dynamic[];                                 \
    type *const name = (type *)fkm_dynamic
#define FKM_PLANT(n) false
#endif

#define FKM_ALL_LANES 0xffffffffu

typedef unsigned long long fkm_u64; /* what atomicAdd takes */

static __device__ __forceinline__ int fkm_lane()
{
    return (int)(threadIdx.x & 31);
}

/* Floats as integers of the same order, so that atomicMax works on them. Not for NaN. */
static __device__ __forceinline__ int fkm_ordered(float v)
{
    int i = __float_as_int(v);
    return i ^ ((i >> 31) & 0x7fffffff);
}

static __device__ __forceinline__ float fkm_unordered(int i)
{
    return __int_as_float(i ^ ((i >> 31) & 0x7fffffff));
}

/* The sum over the lanes of a warp, in all of them; a fixed order, 5 roundings a chain. */
static __device__ __forceinline__ float fkm_warp_sum(float v)
{
#pragma unroll
    for (int step = 16; step > 0; step >>= 1)
        v = __fadd_rn(v, __shfl_xor_sync(FKM_ALL_LANES, v, step));
    return v;
}

static __device__ __forceinline__ double fkm_warp_sum(double v)
{
#pragma unroll
    for (int step = 16; step > 0; step >>= 1)
        v = __dadd_rn(v, __shfl_xor_sync(FKM_ALL_LANES, v, step));
    return v;
}

/* Blocks for `items` of which each takes `each`: at least one, at most `most`; kernels stride. */
static inline unsigned fkm_blocks(int64_t items, int64_t each, int64_t most)
{
    int64_t n = (items + each - 1) / each;
    return (unsigned)(n < 1 ? 1 : n > most ? most : n);
}

#endif
