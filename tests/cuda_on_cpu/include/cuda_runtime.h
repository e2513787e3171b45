/* The parts of the CUDA runtime and of CUDA C++ that fkm uses, run on the CPU. See ../README.md. */
#ifndef CUO_CUDA_RUNTIME_H
#define CUO_CUDA_RUNTIME_H

#include "cuo.h"
#include "cuo_vectors.h"
#include "cuo_api.h"
#include <math.h>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ static_assert(false, "shared memory goes through FKM_SHARED of cuda/device.cuh");
#define __constant__ static const
#define __builtin_assume(condition) ((void)0)

#define threadIdx (cuo::cur->tid)
#define blockIdx (cuo::block_index)
#define blockDim (cuo::block_dim)
#define gridDim (cuo::grid_dim)
static const int warpSize = 32;

/* ---- block and warp ---- */

static inline void __syncthreads(CUO_SITE)
{
    cuo::barrier(0, cuo::VOTE_NONE, file, line);
}
static inline int __syncthreads_or(int p, CUO_SITE)
{
    return cuo::barrier(p, cuo::VOTE_OR, file, line);
}
static inline int __syncthreads_and(int p, CUO_SITE)
{
    return cuo::barrier(p, cuo::VOTE_AND, file, line);
}
static inline int __syncthreads_count(int p, CUO_SITE)
{
    return cuo::barrier(p, cuo::VOTE_COUNT, file, line);
}
static inline void __syncwarp(unsigned mask = ~0u, CUO_SITE)
{
    cuo::collect("__syncwarp", mask, nullptr, cuo::warp_sync, file, line);
}
template <class T>
static inline T __shfl_sync(unsigned mask, T v, int source, int width = 32, CUO_SITE)
{
    return cuo::shuffle("__shfl_sync", cuo::warp_shuffle, mask, v, source, width, file, line);
}
template <class T>
static inline T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32, CUO_SITE)
{
    return cuo::shuffle(
        "__shfl_up_sync", cuo::warp_shuffle_up, mask, v, (int)delta, width, file, line);
}
template <class T>
static inline T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32, CUO_SITE)
{
    return cuo::shuffle(
        "__shfl_down_sync", cuo::warp_shuffle_down, mask, v, (int)delta, width, file, line);
}
template <class T>
static inline T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32, CUO_SITE)
{
    return cuo::shuffle("__shfl_xor_sync", cuo::warp_shuffle_xor, mask, v, bits, width, file, line);
}
static inline unsigned __ballot_sync(unsigned mask, int p, CUO_SITE)
{
    return cuo::ballot<unsigned>("__ballot_sync", cuo::warp_ballot, mask, p != 0, file, line);
}
static inline int __any_sync(unsigned mask, int p, CUO_SITE)
{
    return __ballot_sync(mask, p, file, line) != 0;
}
static inline int __all_sync(unsigned mask, int p, CUO_SITE)
{
    return __ballot_sync(mask, p, file, line) == mask;
}
template <class T> static inline unsigned __match_any_sync(unsigned mask, T v, CUO_SITE)
{
    return cuo::ballot<unsigned>(
        "__match_any_sync", cuo::warp_match, mask, cuo::to_bits(v), file, line);
}
#define CUO_REDUCE(name, type, f)                                                                  \
    static inline type name(unsigned mask, type v, CUO_SITE)                                       \
    {                                                                                              \
        return cuo::ballot<type>(#name, cuo::f, mask, cuo::to_bits(v), file, line);                \
    }
CUO_REDUCE(__reduce_add_sync, unsigned, warp_add)
CUO_REDUCE(__reduce_add_sync, int, warp_add)
CUO_REDUCE(__reduce_min_sync, unsigned, warp_min_unsigned)
CUO_REDUCE(__reduce_min_sync, int, warp_min_int)
CUO_REDUCE(__reduce_max_sync, unsigned, warp_max_unsigned)
CUO_REDUCE(__reduce_max_sync, int, warp_max_int)
CUO_REDUCE(__reduce_and_sync, unsigned, warp_and)
CUO_REDUCE(__reduce_or_sync, unsigned, warp_or)
CUO_REDUCE(__reduce_xor_sync, unsigned, warp_xor)
#undef CUO_REDUCE

static inline void __threadfence()
{
    cuo::fence();
}
static inline void __threadfence_block()
{
    cuo::fence();
}
static inline void __threadfence_system()
{
    cuo::fence();
}

/* ---- memory ---- */

namespace cuo
{
template <class T> struct Same { /* no deduction from the second argument */
    typedef T type;
};
} // namespace cuo

#define CUO_LOAD(name)                                                                             \
    template <class T> static inline T name(const T *p)                                            \
    {                                                                                              \
        return *p;                                                                                 \
    }
CUO_LOAD(__ldg)
CUO_LOAD(__ldcg)
CUO_LOAD(__ldca)
CUO_LOAD(__ldcs)
CUO_LOAD(__ldlu)
CUO_LOAD(__ldcv)
#undef CUO_LOAD
#define CUO_STORE(name)                                                                            \
    template <class T> static inline void name(T *p, typename cuo::Same<T>::type v)                \
    {                                                                                              \
        *p = v;                                                                                    \
    }
CUO_STORE(__stcg)
CUO_STORE(__stcs)
CUO_STORE(__stwb)
CUO_STORE(__stwt)
#undef CUO_STORE

namespace cuo
{
template <size_t bytes> struct Word;
template <> struct Word<4> {
    typedef uint32_t type;
};
template <> struct Word<8> {
    typedef uint64_t type;
};

/* Real relaxed atomics, so that ThreadSanitizer sees them as such. */
template <class T, class F> inline T modify(T *p, F f)
{
    typedef typename Word<sizeof(T)>::type U;
    if ((uintptr_t)p % sizeof(T))
        die("an atomic's address is not aligned to its %zu bytes", sizeof(T));
    U old = __atomic_load_n((U *)p, __ATOMIC_RELAXED), next;
    do
        next = bit_cast<U>((T)f(bit_cast<T>(old)));
    while (!__atomic_compare_exchange_n(
        (U *)p, &old, next, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return bit_cast<T>(old);
}
} // namespace cuo

#define CUO_ATOMIC_SCOPE(name, expression)                                                         \
    template <class T> static inline T name(T *p, typename cuo::Same<T>::type v)                   \
    {                                                                                              \
        return cuo::modify(p, [&](T o) { return expression; });                                    \
    }
#define CUO_ATOMIC(name, expression)                                                               \
    CUO_ATOMIC_SCOPE(name, expression)                                                             \
    CUO_ATOMIC_SCOPE(name##_block, expression)                                                     \
    CUO_ATOMIC_SCOPE(name##_system, expression)
CUO_ATOMIC(atomicAdd, (T)(o + v))
CUO_ATOMIC(atomicSub, (T)(o - v))
CUO_ATOMIC(atomicMin, v < o ? v : o)
CUO_ATOMIC(atomicMax, o < v ? v : o)
CUO_ATOMIC(atomicAnd, (T)(o &v))
CUO_ATOMIC(atomicOr, (T)(o | v))
CUO_ATOMIC(atomicXor, (T)(o ^ v))
CUO_ATOMIC(atomicExch, ((void)o, v))
#undef CUO_ATOMIC
#undef CUO_ATOMIC_SCOPE
template <class T>
static inline T atomicCAS(T *p, typename cuo::Same<T>::type expected, typename cuo::Same<T>::type v)
{
    return cuo::modify(p, [&](T o) { return o == expected ? v : o; });
}

/* ---- integers ---- */

static inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
static inline int __popcll(unsigned long long x)
{
    return __builtin_popcountll(x);
}
static inline int __ffs(int x)
{
    return __builtin_ffs(x);
}
static inline int __ffsll(long long x)
{
    return __builtin_ffsll(x);
}
static inline int __clz(int x)
{
    return x ? __builtin_clz((unsigned)x) : 32;
}
static inline int __clzll(long long x)
{
    return x ? __builtin_clzll((unsigned long long)x) : 64;
}
static inline unsigned __brev(unsigned x)
{
    unsigned r = 0;
    for (int i = 0; i < 32; i++)
        r |= (x >> i & 1u) << (31 - i);
    return r;
}
static inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)((uint64_t)a * b >> 32);
}
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b)
{
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector)
{
    uint64_t v = (uint64_t)y << 32 | x;
    unsigned r = 0;
    for (int i = 0; i < 4; i++) {
        unsigned s = selector >> 4 * i & 15, byte = (unsigned)(v >> 8 * (s & 7)) & 255;
        r |= (s & 8 ? byte & 128 ? 255u : 0u : byte) << 8 * i;
    }
    return r;
}
static inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned shift)
{
    return (unsigned)(((uint64_t)hi << 32 | lo) << (shift & 31) >> 32);
}
static inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned shift)
{
    return (unsigned)(((uint64_t)hi << 32 | lo) >> (shift & 31));
}
static inline int __dp4a(int a, int b, int c)
{
    for (int i = 0; i < 4; i++)
        c += (int8_t)(a >> 8 * i) * (int8_t)(b >> 8 * i);
    return c;
}
static inline unsigned __dp4a(unsigned a, unsigned b, unsigned c)
{
    for (int i = 0; i < 4; i++)
        c += (a >> 8 * i & 255) * (b >> 8 * i & 255);
    return c;
}
template <class T> static inline constexpr T min(T a, T b)
{
    return b < a ? b : a;
}
template <class T> static inline constexpr T max(T a, T b)
{
    return a < b ? b : a;
}
/* As CUDA's: a NaN loses. */
template <> inline float min(float a, float b)
{
    return fminf(a, b);
}
template <> inline float max(float a, float b)
{
    return fmaxf(a, b);
}
template <> inline double min(double a, double b)
{
    return fmin(a, b);
}
template <> inline double max(double a, double b)
{
    return fmax(a, b);
}
static inline int __vimax3_s32(int a, int b, int c)
{
    return max(max(a, b), c);
}
static inline int __vimin3_s32(int a, int b, int c)
{
    return min(min(a, b), c);
}
static inline unsigned __vimax3_u32(unsigned a, unsigned b, unsigned c)
{
    return max(max(a, b), c);
}
static inline unsigned __vimin3_u32(unsigned a, unsigned b, unsigned c)
{
    return min(min(a, b), c);
}

/* ---- bits ---- */

#define CUO_BITS(name, to, from)                                                                   \
    static inline to name(from x)                                                                  \
    {                                                                                              \
        return cuo::bit_cast<to>(x);                                                               \
    }
CUO_BITS(__float_as_uint, unsigned, float)
CUO_BITS(__float_as_int, int, float)
CUO_BITS(__uint_as_float, float, unsigned)
CUO_BITS(__int_as_float, float, int)
CUO_BITS(__double_as_longlong, long long, double)
CUO_BITS(__longlong_as_double, double, long long)
#undef CUO_BITS
static inline int __double2hiint(double x)
{
    return (int)(cuo::bit_cast<uint64_t>(x) >> 32);
}
static inline int __double2loint(double x)
{
    return (int)cuo::bit_cast<uint64_t>(x);
}
static inline double __hiloint2double(int hi, int lo)
{
    return cuo::bit_cast<double>((uint64_t)(uint32_t)hi << 32 | (uint32_t)lo);
}

/* ---- arithmetic with a direction of rounding (fibers.cpp; no contraction) ---- */

namespace cuo
{
enum Round { RN, RZ, RU, RD };
namespace directed
{
double d_add(double, double, Round);
double d_mul(double, double, Round);
double d_div(double, double, Round);
double d_fma(double, double, double, Round);
double d_sqrt(double, Round);
double d_from_ll(long long, Round);
double d_from_ull(unsigned long long, Round);
float f_add(float, float, Round);
float f_mul(float, float, Round);
float f_div(float, float, Round);
float f_fma(float, float, float, Round);
float f_sqrt(float, Round);
float f_from_d(double, Round);
float f_from_ll(long long, Round);
float f_from_ull(unsigned long long, Round);
double to_integer(double, Round);
} // namespace directed

/* To nearest is what the compiler does anyway. */
#define CUO_OPERATION(type, name, parameters, nearest, arguments)                                  \
    inline type name parameters                                                                    \
    {                                                                                              \
        return r == RN ? (nearest) : directed::name arguments;                                     \
    }
CUO_OPERATION(double, d_add, (double a, double b, Round r), a + b, (a, b, r))
CUO_OPERATION(double, d_mul, (double a, double b, Round r), a *b, (a, b, r))
CUO_OPERATION(double, d_div, (double a, double b, Round r), a / b, (a, b, r))
CUO_OPERATION(
    double, d_fma, (double a, double b, double c, Round r), __builtin_fma(a, b, c), (a, b, c, r))
CUO_OPERATION(double, d_sqrt, (double a, Round r), __builtin_sqrt(a), (a, r))
CUO_OPERATION(double, d_from_ll, (long long a, Round r), (double)a, (a, r))
CUO_OPERATION(double, d_from_ull, (unsigned long long a, Round r), (double)a, (a, r))
CUO_OPERATION(float, f_add, (float a, float b, Round r), a + b, (a, b, r))
CUO_OPERATION(float, f_mul, (float a, float b, Round r), a *b, (a, b, r))
CUO_OPERATION(float, f_div, (float a, float b, Round r), a / b, (a, b, r))
CUO_OPERATION(
    float, f_fma, (float a, float b, float c, Round r), __builtin_fmaf(a, b, c), (a, b, c, r))
CUO_OPERATION(float, f_sqrt, (float a, Round r), __builtin_sqrtf(a), (a, r))
CUO_OPERATION(float, f_from_d, (double a, Round r), (float)a, (a, r))
CUO_OPERATION(float, f_from_ll, (long long a, Round r), (float)a, (a, r))
CUO_OPERATION(float, f_from_ull, (unsigned long long a, Round r), (float)a, (a, r))
CUO_OPERATION(double, to_integer, (double a, Round r), __builtin_nearbyint(a), (a, r))
#undef CUO_OPERATION

/* As the hardware converts: saturating, NaN to 0 (to 1 << 63 in 64 bits). */
template <class T> inline T saturate(double x, Round r)
{
    constexpr bool wide = sizeof(T) == 8;
    constexpr T low = std::is_signed<T>::value ? (T)1 << (sizeof(T) * 8 - 1) : 0;
    if (x != x)
        return wide ? (T)1 << 63 % (sizeof(T) * 8) : 0;
    x = to_integer(x, r);
    const double top = std::is_signed<T>::value ? -(double)low : ldexp(1, sizeof(T) * 8);
    return x >= top ? (T)~low : x < (double)low ? low : (T)x;
}
} // namespace cuo

#define CUO_ROUNDED(r, R)                                                                          \
    static inline double __dadd_##r(double a, double b)                                            \
    {                                                                                              \
        return cuo::d_add(a, b, cuo::R);                                                           \
    }                                                                                              \
    static inline double __dsub_##r(double a, double b)                                            \
    {                                                                                              \
        return cuo::d_add(a, -b, cuo::R);                                                          \
    }                                                                                              \
    static inline double __dmul_##r(double a, double b)                                            \
    {                                                                                              \
        return cuo::d_mul(a, b, cuo::R);                                                           \
    }                                                                                              \
    static inline double __ddiv_##r(double a, double b)                                            \
    {                                                                                              \
        return cuo::d_div(a, b, cuo::R);                                                           \
    }                                                                                              \
    static inline double __fma_##r(double a, double b, double c)                                   \
    {                                                                                              \
        return cuo::d_fma(a, b, c, cuo::R);                                                        \
    }                                                                                              \
    static inline double __dsqrt_##r(double a)                                                     \
    {                                                                                              \
        return cuo::d_sqrt(a, cuo::R);                                                             \
    }                                                                                              \
    static inline float __fadd_##r(float a, float b)                                               \
    {                                                                                              \
        return cuo::f_add(a, b, cuo::R);                                                           \
    }                                                                                              \
    static inline float __fsub_##r(float a, float b)                                               \
    {                                                                                              \
        return cuo::f_add(a, -b, cuo::R);                                                          \
    }                                                                                              \
    static inline float __fmul_##r(float a, float b)                                               \
    {                                                                                              \
        return cuo::f_mul(a, b, cuo::R);                                                           \
    }                                                                                              \
    static inline float __fdiv_##r(float a, float b)                                               \
    {                                                                                              \
        return cuo::f_div(a, b, cuo::R);                                                           \
    }                                                                                              \
    static inline float __fmaf_##r(float a, float b, float c)                                      \
    {                                                                                              \
        return cuo::f_fma(a, b, c, cuo::R);                                                        \
    }                                                                                              \
    static inline float __fsqrt_##r(float a)                                                       \
    {                                                                                              \
        return cuo::f_sqrt(a, cuo::R);                                                             \
    }                                                                                              \
    static inline float __double2float_##r(double a)                                               \
    {                                                                                              \
        return cuo::f_from_d(a, cuo::R);                                                           \
    }                                                                                              \
    static inline float __int2float_##r(int a)                                                     \
    {                                                                                              \
        return cuo::f_from_ll(a, cuo::R);                                                          \
    }                                                                                              \
    static inline float __uint2float_##r(unsigned a)                                               \
    {                                                                                              \
        return cuo::f_from_ll((long long)a, cuo::R);                                               \
    }                                                                                              \
    static inline float __ll2float_##r(long long a)                                                \
    {                                                                                              \
        return cuo::f_from_ll(a, cuo::R);                                                          \
    }                                                                                              \
    static inline float __ull2float_##r(unsigned long long a)                                      \
    {                                                                                              \
        return cuo::f_from_ull(a, cuo::R);                                                         \
    }                                                                                              \
    static inline double __ll2double_##r(long long a)                                              \
    {                                                                                              \
        return cuo::d_from_ll(a, cuo::R);                                                          \
    }                                                                                              \
    static inline double __ull2double_##r(unsigned long long a)                                    \
    {                                                                                              \
        return cuo::d_from_ull(a, cuo::R);                                                         \
    }                                                                                              \
    static inline int __float2int_##r(float a)                                                     \
    {                                                                                              \
        return cuo::saturate<int>(a, cuo::R);                                                      \
    }                                                                                              \
    static inline unsigned __float2uint_##r(float a)                                               \
    {                                                                                              \
        return cuo::saturate<unsigned>(a, cuo::R);                                                 \
    }                                                                                              \
    static inline long long __float2ll_##r(float a)                                                \
    {                                                                                              \
        return cuo::saturate<long long>(a, cuo::R);                                                \
    }                                                                                              \
    static inline unsigned long long __float2ull_##r(float a)                                      \
    {                                                                                              \
        return cuo::saturate<unsigned long long>(a, cuo::R);                                       \
    }                                                                                              \
    static inline int __double2int_##r(double a)                                                   \
    {                                                                                              \
        return cuo::saturate<int>(a, cuo::R);                                                      \
    }                                                                                              \
    static inline unsigned __double2uint_##r(double a)                                             \
    {                                                                                              \
        return cuo::saturate<unsigned>(a, cuo::R);                                                 \
    }                                                                                              \
    static inline long long __double2ll_##r(double a)                                              \
    {                                                                                              \
        return cuo::saturate<long long>(a, cuo::R);                                                \
    }                                                                                              \
    static inline unsigned long long __double2ull_##r(double a)                                    \
    {                                                                                              \
        return cuo::saturate<unsigned long long>(a, cuo::R);                                       \
    }
CUO_ROUNDED(rn, RN)
CUO_ROUNDED(rz, RZ)
CUO_ROUNDED(ru, RU)
CUO_ROUNDED(rd, RD)
#undef CUO_ROUNDED

static inline double __int2double_rn(int a)
{
    return a;
}
static inline double __uint2double_rn(unsigned a)
{
    return a;
}
static inline float __saturatef(float a)
{
    return a > 0 ? a < 1 ? a : 1 : 0;
}
static inline float rsqrtf(float a)
{
    return 1 / sqrtf(a);
}

/* ---- other ---- */

static inline long long clock64()
{
    return cuo::ticks();
}
static inline void __nanosleep(unsigned)
{
}
static inline void __trap(CUO_SITE)
{
    cuo::trap(file, line);
}

#endif
