/* __half: storage and conversion only. */
#ifndef CUO_CUDA_FP16_H
#define CUO_CUDA_FP16_H

#include "cuo.h"

struct __half {
    uint16_t bits;
};
struct __half_raw {
    unsigned short x;
};
typedef __half half;
struct alignas(4) __half2 {
    __half x, y;
};
typedef __half2 half2;

namespace cuo
{
float half_to_float(uint16_t h);
uint16_t float_to_half(float f); /* to nearest even */
} // namespace cuo

static inline __half __ushort_as_half(unsigned short x)
{
    return __half{x};
}
static inline unsigned short __half_as_ushort(__half h)
{
    return h.bits;
}
static inline float __half2float(__half h)
{
    return cuo::half_to_float(h.bits);
}
static inline __half __float2half_rn(float f)
{
    return __half{cuo::float_to_half(f)};
}
static inline __half __float2half(float f)
{
    return __float2half_rn(f);
}
static inline __half2 __halves2half2(__half x, __half y)
{
    return __half2{x, y};
}
static inline __half2 __floats2half2_rn(float x, float y)
{
    return __half2{__float2half_rn(x), __float2half_rn(y)};
}
static inline __half __low2half(__half2 h)
{
    return h.x;
}
static inline __half __high2half(__half2 h)
{
    return h.y;
}
static inline float __low2float(__half2 h)
{
    return __half2float(h.x);
}
static inline float __high2float(__half2 h)
{
    return __half2float(h.y);
}

#endif
