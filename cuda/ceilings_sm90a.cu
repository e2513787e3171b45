/* Products of Hopper's matrix unit, as assign_sm90a.cu has them multiplied: see ceilings.cuh. */
#include "ceilings.cuh"

#include "hopper.cuh"

namespace
{

enum {
    GROUPS = 2, /* warpgroups a block, one block a processor */
    GROUP = 128,
    HALVES = 2, /* of the 128 rows of each: two accumulators' worth */
    SLABS = 2,
    BOXES = GROUPS * SLABS + SLABS, /* rows of each, centroids for both */
    ALIGNMENT = 1024,
    SHARED = BOXES * FKM_BOX + ALIGNMENT,
    STEPS = FKM_BOX_BYTES / FKM_WGMMA_BYTES,
};
static_assert((int)FKM_MULTIPLY_THREADS == GROUPS * GROUP, "threads of a block");
static_assert(FKM_MULTIPLY_BYTES == (int64_t)GROUPS * HALVES * FKM_WGMMA_ROWS * FKM_WGMMA_COLUMNS *
                                        SLABS * FKM_BOX_BYTES,
    "products of a round");

template <fkm_unit UNIT> struct product;
template <> struct product<FKM_UNIT_F16> {
    typedef float sum;
    static __device__ __forceinline__ void add(float (&d)[64], uint64_t a, uint64_t b)
    {
        fkm_wgmma_f16(d, a, b);
    }
};
template <> struct product<FKM_UNIT_BF16> {
    typedef float sum;
    static __device__ __forceinline__ void add(float (&d)[64], uint64_t a, uint64_t b)
    {
        fkm_wgmma_bf16(d, a, b);
    }
};
template <> struct product<FKM_UNIT_S8> {
    typedef int sum;
    static __device__ __forceinline__ void add(int (&d)[64], uint64_t a, uint64_t b)
    {
        fkm_wgmma_s8(d, a, b);
    }
};

template <fkm_unit UNIT>
__global__ void __launch_bounds__(FKM_MULTIPLY_THREADS, 1)
    multiply(typename product<UNIT>::sum *out, int64_t rounds)
{
    FKM_SHARED_DYNAMIC(unsigned char, dynamic);
    unsigned char *base = dynamic + (-fkm_shared_address(dynamic) & (ALIGNMENT - 1));
    for (unsigned i = threadIdx.x; i < BOXES * FKM_BOX / 4; i += blockDim.x)
        ((uint32_t *)base)[i] = fkm_operand(i, UNIT);
    fkm_mbarriers_ready(); /* what was stored is seen by the matrix unit, too */
    __syncthreads();
    const int group = __shfl_sync(FKM_ALL_LANES, (int)threadIdx.x / GROUP, 0);
    const uint64_t rows = fkm_box_descriptor(fkm_shared_address(base + group * SLABS * FKM_BOX));
    const uint64_t columns =
        fkm_box_descriptor(fkm_shared_address(base + GROUPS * SLABS * FKM_BOX));
    typename product<UNIT>::sum d[HALVES][64], sum = 0;
    for (auto &half : d)
        for (auto &v : half)
            v = 0;
    for (auto &half : d)
        fkm_wgmma_hold(half);
    for (int64_t r = 0; r < rounds; r++) {
        fkm_wgmma_begin();
#pragma unroll
        for (int i = 0; i < SLABS * STEPS; i++) {
            const uint64_t at = (uint64_t)(i / STEPS) * fkm_descriptor_step(FKM_BOX) +
                                (uint64_t)(i % STEPS) * fkm_descriptor_step(FKM_WGMMA_BYTES);
#pragma unroll
            for (int h = 0; h < HALVES; h++)
                product<UNIT>::add(d[h],
                    rows + at + (uint64_t)h * fkm_descriptor_step(FKM_WGMMA_ROWS * FKM_BOX_BYTES),
                    columns + at);
        }
        fkm_wgmma_commit();
        fkm_wgmma_wait<1>();
    }
    fkm_wgmma_wait<0>();
    for (auto &half : d)
        fkm_wgmma_hold(half);
    for (auto &half : d)
        for (auto v : half)
            sum += v;
    out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

template <fkm_unit UNIT>
cudaError_t launch(void *out, unsigned blocks, int64_t rounds, cudaStream_t stream)
{
    auto kernel = multiply<UNIT>;
    cudaError_t st =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, SHARED);
    if (st != cudaSuccess)
        return st;
    FKM_LAUNCH(kernel, blocks, FKM_MULTIPLY_THREADS, SHARED, stream,
        (typename product<UNIT>::sum *)out, rounds);
    return cudaGetLastError();
}

} // namespace

cudaError_t fkm_multiply_sm90a(
    void *out, fkm_unit unit, unsigned blocks, int64_t rounds, cudaStream_t stream)
{
    return unit == FKM_UNIT_F16    ? launch<FKM_UNIT_F16>(out, blocks, rounds, stream)
           : unit == FKM_UNIT_BF16 ? launch<FKM_UNIT_BF16>(out, blocks, rounds, stream)
                                   : launch<FKM_UNIT_S8>(out, blocks, rounds, stream);
}
