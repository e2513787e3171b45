/* CUDA's vector types, with their sizes and alignments. */
#ifndef CUO_VECTORS_H
#define CUO_VECTORS_H

#define CUO_VECTORS(type, base, align2, align4)                                                    \
    struct base##1                                                                                 \
    {                                                                                              \
        type x;                                                                                    \
    };                                                                                             \
    struct alignas(align2) base##2                                                                 \
    {                                                                                              \
        type x, y;                                                                                 \
    };                                                                                             \
    CUO_VECTOR_3(type, base)                                                                       \
    struct alignas(align4) base##4                                                                 \
    {                                                                                              \
        type x, y, z, w;                                                                           \
    };                                                                                             \
    static inline constexpr base##2 make_##base##2(type x, type y)                                 \
    {                                                                                              \
        return base##2 {x, y};                                                                     \
    }                                                                                              \
    static inline constexpr base##3 make_##base##3(type x, type y, type z)                         \
    {                                                                                              \
        return base##3 {x, y, z};                                                                  \
    }                                                                                              \
    static inline constexpr base##4 make_##base##4(type x, type y, type z, type w)                 \
    {                                                                                              \
        return base##4 {x, y, z, w};                                                               \
    }
#define CUO_VECTOR_3(type, base)                                                                   \
    struct base##3                                                                                 \
    {                                                                                              \
        type x, y, z;                                                                              \
    };

CUO_VECTORS(signed char, char, 2, 4)
CUO_VECTORS(unsigned char, uchar, 2, 4)
CUO_VECTORS(short, short, 4, 8)
CUO_VECTORS(unsigned short, ushort, 4, 8)
CUO_VECTORS(int, int, 8, 16)
CUO_VECTORS(float, float, 8, 16)
CUO_VECTORS(long long, longlong, 16, 16)
CUO_VECTORS(unsigned long long, ulonglong, 16, 16)
CUO_VECTORS(double, double, 16, 16)
#undef CUO_VECTOR_3
#define CUO_VECTOR_3(type, base) /* uint3: in cuo.h */
CUO_VECTORS(unsigned, uint, 8, 16)

#undef CUO_VECTOR_3
#undef CUO_VECTORS

#endif
