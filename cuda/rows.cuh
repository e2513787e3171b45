/* Rows on the device as the data has them, and the frame that screening sees them in. */
#ifndef FKM_ROWS_CUH
#define FKM_ROWS_CUH

#include "device.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <math.h>

extern "C" {
#include "../src/base/dtype.h"
}

/* Rows of one chunk: [count][dims] of dtype, tightly packed, in device memory. */
struct fkm_device_rows {
    const void *x;
    int32_t count, dims;
    fkm_dtype dtype; /* f32 f16 bf16 u8 i8 */
};

/* v = x scale - shift: scale a power of two, shift [dims] in device memory. */
struct fkm_frame {
    const float *shift;
    float scale;
};

/* Elements as stored; fkm_element(p, i) is the float32 with that value, exactly. */
struct fkm_bits_f16 {
    uint16_t bits;
};
struct fkm_bits_bf16 {
    uint16_t bits;
};
static __device__ __forceinline__ float fkm_element(const float *x, int64_t i)
{
    return x[i];
}
static __device__ __forceinline__ float fkm_element(const fkm_bits_f16 *x, int64_t i)
{
    return __half2float(__ushort_as_half(x[i].bits));
}
static __device__ __forceinline__ float fkm_element(const fkm_bits_bf16 *x, int64_t i)
{
    return __uint_as_float((uint32_t)x[i].bits << 16);
}
static __device__ __forceinline__ float fkm_element(const uint8_t *x, int64_t i)
{
    return (float)x[i];
}
static __device__ __forceinline__ float fkm_element(const int8_t *x, int64_t i)
{
    return (float)x[i];
}

/* Runs `call` with `T` the type of the elements. */
#define FKM_BY_DTYPE(type, call)                                                                   \
    switch (type) {                                                                                \
    case FKM_F16: {                                                                                \
        typedef fkm_bits_f16 T;                                                                    \
        call;                                                                                      \
        break;                                                                                     \
    }                                                                                              \
    case FKM_BF16: {                                                                               \
        typedef fkm_bits_bf16 T;                                                                   \
        call;                                                                                      \
        break;                                                                                     \
    }                                                                                              \
    case FKM_U8: {                                                                                 \
        typedef uint8_t T;                                                                         \
        call;                                                                                      \
        break;                                                                                     \
    }                                                                                              \
    case FKM_I8: {                                                                                 \
        typedef int8_t T;                                                                          \
        call;                                                                                      \
        break;                                                                                     \
    }                                                                                              \
    default: {                                                                                     \
        typedef float T;                                                                           \
        call;                                                                                      \
        break;                                                                                     \
    }                                                                                              \
    }

/* One rounding, of the subtraction: the product is by a power of two. */
static __device__ __forceinline__ float fkm_framed(float x, const fkm_frame &f, int32_t t)
{
    return __fsub_rn(__fmul_rn(x, f.scale), f.shift[t]);
}

/* The canonical squared distance of x to c, by eight neighbouring lanes (l = lane % 8), in all of
 * them: lane l has the sum that begins at t = l; folded as ((a0+a4)+(a2+a6)) + ((a1+a5)+(a3+a7)).
 * The bits of src/base/distance.h. All lanes of the warp call it. */
template <class T>
static __device__ __forceinline__ double fkm_canonical(const T *x, const float *c, int32_t dims)
{
    double a = 0;
    for (int32_t t = (int32_t)(threadIdx.x & 7); t < dims; t += 8) {
        double e = __dsub_rn((double)fkm_element(x, t), (double)c[t]);
        a = __dadd_rn(a, __dmul_rn(e, e));
    }
    a = __dadd_rn(a, __shfl_xor_sync(FKM_ALL_LANES, a, 4));
    a = __dadd_rn(a, __shfl_xor_sync(FKM_ALL_LANES, a, 2));
    return __dadd_rn(a, __shfl_xor_sync(FKM_ALL_LANES, a, 1));
}

#endif
