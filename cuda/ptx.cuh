/* The PTX that the portable kernels use, as functions: asynchronous copies to shared memory,
 * ldmatrix and mma.sync, all of sm_80. The layer of the tests has its own version of each. */
#ifndef FKM_PTX_CUH
#define FKM_PTX_CUH

#include "device.cuh"

#ifdef FKM_CUDA_ON_CPU

static inline void fkm_copy16(void *s, const void *g, unsigned valid)
{
    cuo_cp_async16(s, g, valid);
}
static inline void fkm_copy_commit()
{
    cuo_cp_async_commit();
}
template <int N> static inline void fkm_copy_wait()
{
    cuo_cp_async_wait<N>();
}
static inline void fkm_ldmatrix_x4(uint32_t r[4], const void *row)
{
    cuo_ldmatrix_x4(r, row);
}

#define FKM_MMA_ROW(name, type, layer)                                                             \
    template <int N>                                                                               \
    static inline void name(type(*d)[4], const uint32_t a[4], const uint32_t(*b)[2])               \
    {                                                                                              \
        layer(d, a, b, N);                                                                         \
    }
#define FKM_MMA_ROW_FROM(name, type, layer)                                                        \
    template <int N>                                                                               \
    static inline void name(                                                                       \
        type(*d)[4], const uint32_t a[4], const uint32_t(*b)[2], const type(*start)[2])            \
    {                                                                                              \
        for (int j = 0; j < N; j++)                                                                \
            for (int i = 0; i < 4; i++)                                                            \
                d[j][i] = start[j][i & 1];                                                         \
        layer(d, a, b, N);                                                                         \
    }
FKM_MMA_ROW(fkm_mma_row_f16, float, cuo_mma_f16_row)
FKM_MMA_ROW(fkm_mma_row_bf16, float, cuo_mma_bf16_row)
FKM_MMA_ROW(fkm_mma_row_s8, int, cuo_mma_s8s8_row)
FKM_MMA_ROW_FROM(fkm_mma_row_from_f16, float, cuo_mma_f16_row)
FKM_MMA_ROW_FROM(fkm_mma_row_from_bf16, float, cuo_mma_bf16_row)
FKM_MMA_ROW_FROM(fkm_mma_row_from_s8, int, cuo_mma_s8s8_row)

#else

/* Copies `valid` bytes (<= 16) of g to s and zeros the rest of 16; both aligned to 16. Complete
 * after fkm_copy_wait<N>, which leaves at most N committed groups of this thread on their way, and
 * visible to other threads after a barrier. */
static __device__ __forceinline__ void fkm_copy16(void *s, const void *g, unsigned valid)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(s)),
                 "l"(g), "r"(valid)
                 : "memory");
}
static __device__ __forceinline__ void fkm_copy_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int N> static __device__ __forceinline__ void fkm_copy_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* Four 8 x 16-byte matrices; lane l names row l % 8 of matrix l / 8. */
static __device__ __forceinline__ void fkm_ldmatrix_x4(uint32_t r[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
}

/* d[j] += a b[j] for j < N: a row of N tiles of 16 x 8, 32 bytes of each row and column deep. */
#define FKM_MMA_ROW(name, type, constraint, instruction)                                           \
    template <int N>                                                                               \
    static __device__ __forceinline__ void name(                                                   \
        type(*d)[4], const uint32_t a[4], const uint32_t(*b)[2])                                   \
    {                                                                                              \
        _Pragma("unroll") for (int j = 0; j < N; j++) asm volatile(instruction                     \
            " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};" : "+" constraint(d[j][0]),    \
            "+" constraint(d[j][1]), "+" constraint(d[j][2]), "+" constraint(d[j][3]) : "r"(a[0]), \
            "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[j][0]), "r"(b[j][1]));                          \
    }

/* d[j] = start + a b[j]: start[j] holds what each of the thread's two columns begins with. The
 * first step of a sum takes it as an operand of its own, so that no register is set for it. */
#define FKM_MMA_ROW_FROM(name, type, constraint, instruction)                                      \
    template <int N>                                                                               \
    static __device__ __forceinline__ void name(                                                   \
        type(*d)[4], const uint32_t a[4], const uint32_t(*b)[2], const type(*start)[2])            \
    {                                                                                              \
        _Pragma("unroll") for (int j = 0; j < N; j++) asm volatile(                                \
            instruction " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%10,%11};" :             \
            "=" constraint(d[j][0]), "=" constraint(d[j][1]), "=" constraint(d[j][2]),             \
            "=" constraint(d[j][3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[j][0]),    \
            "r"(b[j][1]), constraint(start[j][0]), constraint(start[j][1]));                       \
    }

#define FKM_MMA_F16 "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"
#define FKM_MMA_BF16 "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"
#define FKM_MMA_S8 "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32"
FKM_MMA_ROW(fkm_mma_row_f16, float, "f", FKM_MMA_F16)
FKM_MMA_ROW(fkm_mma_row_bf16, float, "f", FKM_MMA_BF16)
FKM_MMA_ROW(fkm_mma_row_s8, int, "r", FKM_MMA_S8)
FKM_MMA_ROW_FROM(fkm_mma_row_from_f16, float, "f", FKM_MMA_F16)
FKM_MMA_ROW_FROM(fkm_mma_row_from_bf16, float, "f", FKM_MMA_BF16)
FKM_MMA_ROW_FROM(fkm_mma_row_from_s8, int, "r", FKM_MMA_S8)

#endif
#endif
