/* What only Hopper has, as functions: boxes copied by TMA through mbarriers, wgmma on shared
 * memory, barriers of some warps, registers that move between warps. For *_sm90a.cu; ptx.cuh is the
 * portable part. The layer of the tests has its own version of each
 * (tests/cuda_on_cpu/include/cuo_hopper.h).
 *
 * Operands in shared memory. A box is FKM_BOX_ROWS rows of FKM_BOX_BYTES = 128 bytes, row r at
 * 128 r, with 16-byte chunks exchanged by r % 8: fkm_box_at. TMA writes it so with SWIZZLE_128B,
 * and wgmma reads it so, given a descriptor of layout 1. Boxes are aligned to 1024 bytes, as the
 * exchange is by bits of the address. */
#ifndef FKM_HOPPER_CUH
#define FKM_HOPPER_CUH

#include "device.cuh"

enum {
    FKM_BOX_BYTES = 128, /* of a row: what the exchange of chunks spans */
    FKM_BOX_ROWS = 128,
    FKM_BOX = FKM_BOX_BYTES * FKM_BOX_ROWS,
    FKM_WGMMA_BYTES = 32, /* of each row and column that one wgmma takes */
    FKM_WGMMA_ROWS = 64,
    FKM_WGMMA_COLUMNS = 128,
};

/* Where byte b < 128 of row r lies in a box. */
static inline __host__ __device__ int fkm_box_at(int r, int b)
{
    return r * FKM_BOX_BYTES + ((((b >> 4) ^ r) & 7) << 4) + (b & 15);
}

/* The descriptor of rows (or columns) that lie in a box, from the one at `address` on: a multiple
 * of 1024, plus 32 for each step of FKM_WGMMA_BYTES. Fields, all but the last in units of 16 bytes:
 * bits 0-13 the address; 16-29 the stride between chunks, of no meaning in this layout, 1; 32-45
 * the stride from 8 rows to the next 8, 1024 bytes; 49-51 the phase of the exchange, 0 as boxes are
 * aligned; 62-63 the layout, 1: chunks exchanged within 128 bytes. */
static inline __host__ __device__ uint64_t fkm_box_descriptor(uint32_t address)
{
    return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)1 << 16 |
           (uint64_t)(8 * FKM_BOX_BYTES >> 4) << 32 | (uint64_t)1 << 62;
}

/* What `bytes` further adds to a descriptor. */
static inline __host__ __device__ constexpr uint64_t fkm_descriptor_step(int bytes)
{
    return (uint64_t)(bytes >> 4);
}

/* Where accumulator i < 64 of thread t < 128 of a warpgroup stands in its 64 x 128 tile. */
static inline __host__ __device__ int fkm_wgmma_row(int t, int i)
{
    return (t >> 5) * 16 + ((i >> 1) & 1) * 8 + ((t & 31) >> 2);
}
static inline __host__ __device__ int fkm_wgmma_column(int t, int i)
{
    return (i >> 2) * 8 + (t & 3) * 2 + (i & 1);
}

/* Drivers up to CUDA 13.1 mark the maps of tensors below 128 KiB in a way that lets some of their
 * boxes come wrong; without the mark they come right, as far as is known on every chip. */
static inline bool fkm_tensor_map_is_marked(int driver, int64_t tensor_bytes)
{
    return driver <= 13010 && tensor_bytes < 128 << 10;
}

/* Takes the mark off a map, of 16 words: bit 85. */
static inline void fkm_tensor_map_unmark(uint64_t *words)
{
    words[1] &= ~(UINT64_C(1) << 21);
}

#ifdef FKM_CUDA_ON_CPU

#include <cuo_hopper.h>

#else

#include <cuda.h> /* types only: nothing of libcuda is linked */

/* ---- tensor maps ---- */

typedef CUtensorMap fkm_tensor_map;

typedef CUresult fkm_tensor_map_encode(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
    const cuuint64_t *, const cuuint64_t *, const cuuint32_t *, const cuuint32_t *,
    CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/* The driver's maker of maps, NULL where it is too old, and the CUDA version that it is of. */
struct fkm_tensor_map_maker {
    fkm_tensor_map_encode *encode;
    int driver;
};

static inline fkm_tensor_map_maker fkm_tensor_map_find_maker()
{
    fkm_tensor_map_maker m = {NULL, 0};
    void *entry = NULL;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
    cudaError_t st = cudaGetDriverEntryPointByVersion(
        "cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &found);
#else
    cudaError_t st =
        cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &entry, cudaEnableDefault, &found);
#endif
    if (st == cudaSuccess && found == cudaDriverEntryPointSuccess &&
        cudaDriverGetVersion(&m.driver) == cudaSuccess)
        m.encode = (fkm_tensor_map_encode *)entry;
    (void)cudaGetLastError();
    return m;
}

/* A map of [rows][row_bytes], both > 0, from which fkm_load_box takes boxes; base and row_bytes are
 * multiples of 16. Fails where the driver is too old. */
static inline cudaError_t fkm_tensor_map_make(
    fkm_tensor_map *map, const void *base, int64_t row_bytes, int64_t rows)
{
    static const fkm_tensor_map_maker maker = fkm_tensor_map_find_maker(); /* once a process */
    if (!maker.encode)
        return cudaErrorNotSupported;
    const cuuint64_t size[2] = {(cuuint64_t)row_bytes, (cuuint64_t)rows};
    const cuuint64_t stride[1] = {(cuuint64_t)row_bytes};
    const cuuint32_t box[2] = {FKM_BOX_BYTES, FKM_BOX_ROWS}, each[2] = {1, 1};
    CUresult result = maker.encode(map, CU_TENSOR_MAP_DATA_TYPE_UINT8, 2, (void *)base, size,
        stride, box, each, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
        CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result != CUDA_SUCCESS)
        return cudaErrorNotSupported;
    if (fkm_tensor_map_is_marked(maker.driver, row_bytes * rows))
        fkm_tensor_map_unmark(map->opaque);
    return cudaSuccess;
}

/* ---- mbarriers, and copies that complete on them ---- */

typedef uint64_t fkm_mbarrier;

static __device__ __forceinline__ uint32_t fkm_shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* By one thread, before fkm_mbarriers_ready and a barrier of the block. */
static __device__ __forceinline__ void fkm_mbarrier_init(fkm_mbarrier *b, unsigned arrivals)
{
    asm volatile(
        "mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(fkm_shared_address(b)), "r"(arrivals)
        : "memory");
}
static __device__ __forceinline__ void fkm_mbarriers_ready()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

static __device__ __forceinline__ void fkm_mbarrier_arrive(fkm_mbarrier *b)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(fkm_shared_address(b))
                 : "memory");
}

/* Arrives, and has the phase wait for so many bytes of copies. */
static __device__ __forceinline__ void fkm_mbarrier_expect(fkm_mbarrier *b, unsigned bytes)
{
    asm volatile(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(fkm_shared_address(b)),
        "r"(bytes)
        : "memory");
}

/* Has the phase of this parity ended? A no may take as long as the device likes. */
static __device__ __forceinline__ bool fkm_mbarrier_try(fkm_mbarrier *b, unsigned parity)
{
    uint32_t done;
    asm volatile("{\n\t"
                 ".reg .pred p;\n\t"
                 "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n\t"
                 "selp.u32 %0, 1, 0, p;\n\t"
                 "}"
                 : "=r"(done)
                 : "r"(fkm_shared_address(b)), "r"(parity)
                 : "memory");
    return done;
}

#ifdef FKM_WATCHDOG
#include "watchdog.cuh" /* a wait that ends, in place of: */
#else
/* Waits for the end of the phase of this parity: 0, 1, 0 ... from the beginning. A new barrier
 * counts as one whose phase of parity 1 has just ended. */
static __device__ __forceinline__ void fkm_mbarrier_wait(fkm_mbarrier *b, unsigned parity)
{
    while (!fkm_mbarrier_try(b, parity))
        ;
}
#endif

/* Queues the copy of a box from byte `byte` of row `row` on; what is outside the map becomes zero
 * and counts like the rest. Completes FKM_BOX bytes of b. By one thread. */
static __device__ __forceinline__ void fkm_load_box(
    void *to, const fkm_tensor_map *map, int32_t byte, int32_t row, fkm_mbarrier *b)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3}], [%4];" ::"r"(fkm_shared_address(to)),
                 "l"(map), "r"(byte), "r"(row), "r"(fkm_shared_address(b))
                 : "memory");
}

/* Queues the copy of `bytes` bytes, a multiple of 16 as both addresses are. */
static __device__ __forceinline__ void fkm_load_bytes(
    void *to, const void *from, unsigned bytes, fkm_mbarrier *b)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1], %2, [%3];" ::"r"(fkm_shared_address(to)),
                 "l"(from), "r"(bytes), "r"(fkm_shared_address(b))
                 : "memory");
}

/* ---- barriers of some warps; id 0 is __syncthreads ---- */

static __device__ __forceinline__ void fkm_bar_sync(int id, int threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
static __device__ __forceinline__ void fkm_bar_arrive(int id, int threads)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* ---- registers a thread; by all warps of a warpgroup, at the beginning of their branch ---- */

template <int N> static __device__ __forceinline__ void fkm_registers_down_to()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> static __device__ __forceinline__ void fkm_registers_up_to()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

/* ---- wgmma ---- */

/* Accumulators between the functions below belong to the unit: the compiler must not move accesses
 * to them across these. */
static __device__ __forceinline__ void fkm_wgmma_hold(float (&d)[64])
{
#pragma unroll
    for (int i = 0; i < 64; i++)
        asm volatile("" : "+f"(d[i])::"memory");
}
static __device__ __forceinline__ void fkm_wgmma_hold(int (&d)[64])
{
#pragma unroll
    for (int i = 0; i < 64; i++)
        asm volatile("" : "+r"(d[i])::"memory");
}

/* Before the first of a sequence, after accumulators were written. */
static __device__ __forceinline__ void fkm_wgmma_begin()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
static __device__ __forceinline__ void fkm_wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/* Until at most N committed groups are on their way. */
template <int N> static __device__ __forceinline__ void fkm_wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

#define FKM_8(c, i)                                                                                \
    c(d[i]), c(d[i + 1]), c(d[i + 2]), c(d[i + 3]), c(d[i + 4]), c(d[i + 5]), c(d[i + 6]),         \
        c(d[i + 7])
#define FKM_64(c)                                                                                  \
    FKM_8(c, 0), FKM_8(c, 8), FKM_8(c, 16), FKM_8(c, 24), FKM_8(c, 32), FKM_8(c, 40),              \
        FKM_8(c, 48), FKM_8(c, 56)
#define FKM_WGMMA_D                                                                                \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, "  \
    "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, "   \
    "%38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, "   \
    "%56, %57, %58, %59, %60, %61, %62, %63}, %64, %65, p"

/* d += a b, 64 x 128, 32 bytes of each row and column deep; a, b: descriptors. `end`: both factors
 * as they are (not negated) and not transposed; int8 has no such operands. */
#define FKM_WGMMA(name, type, constraint, instruction, end)                                        \
    static __device__ __forceinline__ void name(type(&d)[64], uint64_t a, uint64_t b)              \
    {                                                                                              \
        asm volatile("{\n\t"                                                                       \
                     ".reg .pred p;\n\t"                                                           \
                     "setp.ne.b32 p, %66, 0;\n\t" instruction " " FKM_WGMMA_D end ";\n\t"          \
                     "}"                                                                           \
                     : FKM_64(constraint)                                                          \
                     : "l"(a), "l"(b), "r"(1)                                                      \
                     : "memory");                                                                  \
    }
#define FKM_FLOAT(v) "+f"(v)
#define FKM_INT(v) "+r"(v)
FKM_WGMMA(fkm_wgmma_f16, float, FKM_FLOAT, "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16",
    ", 1, 1, 0, 0")
FKM_WGMMA(fkm_wgmma_bf16, float, FKM_FLOAT, "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16",
    ", 1, 1, 0, 0")
FKM_WGMMA(fkm_wgmma_s8, int, FKM_INT, "wgmma.mma_async.sync.aligned.m64n128k32.s32.s8.s8", "")
#undef FKM_8
#undef FKM_64
#undef FKM_FLOAT
#undef FKM_INT

#endif

/* ---- waits that end: make WATCHDOG=1 ---- */

#ifdef FKM_WATCHDOG
/* bar.sync cannot be bounded so; but whoever is missing there waits for an mbarrier, or another
 * warp of its block soon will. */
static __device__ __forceinline__ void fkm_mbarrier_wait(fkm_mbarrier *b, unsigned parity)
{
    const uint32_t begin = (uint32_t)clock64();
    while (!fkm_mbarrier_try(b, parity))
        if ((uint32_t)clock64() - begin > FKM_WATCHDOG_CLOCKS)
            fkm_watchdog_bites(b, parity);
}
#else
static inline cudaError_t fkm_watchdog_arm()
{
    return cudaSuccess;
}
#endif

#endif
