/* __nv_bfloat16: storage and conversion only. */
#ifndef CUO_CUDA_BF16_H
#define CUO_CUDA_BF16_H

#include "cuo.h"

struct __nv_bfloat16 {
    uint16_t bits;
};
struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};

static inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short x)
{
    return __nv_bfloat16{x};
}
static inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 h)
{
    return h.bits;
}
static inline float __bfloat162float(__nv_bfloat16 h)
{
    return cuo::bit_cast<float>((uint32_t)h.bits << 16);
}
static inline __nv_bfloat16 __float2bfloat16_rn(float f)
{
    uint32_t u = cuo::bit_cast<uint32_t>(f);
    if (f != f)
        return __nv_bfloat16{0x7fff};
    return __nv_bfloat16{(uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16)};
}
static inline __nv_bfloat16 __float2bfloat16(float f)
{
    return __float2bfloat16_rn(f);
}
static inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y)
{
    return __nv_bfloat162{__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}
static inline float __low2float(__nv_bfloat162 h)
{
    return __bfloat162float(h.x);
}
static inline float __high2float(__nv_bfloat162 h)
{
    return __bfloat162float(h.y);
}

#endif
