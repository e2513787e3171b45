/* Runs a test body for every CPU path that this machine has. */
#ifndef FKM_EACH_ISA_H
#define FKM_EACH_ISA_H

#include "../../src/cpu/kernels.h"

#include <math.h>
#include <stdio.h>

#define FOR_EACH_ISA_(k, eight_bit)                                                                \
    bool usable_;                                                                                  \
    const fkm_kernels *k;                                                                          \
    for (int i_ = 0; (k = fkm_kernels_at(i_, &usable_)) != NULL; i_++)                             \
        if (k->bytes != (eight_bit))                                                               \
            continue;                                                                              \
        else if (!usable_)                                                                         \
            printf("%s: not on this CPU\n", k->isa);                                               \
        else

#define FOR_EACH_ISA(k) FOR_EACH_ISA_(k, false)

/* Those that take rows of 8-bit integers only. */
#define FOR_EACH_BYTE_ISA(k) FOR_EACH_ISA_(k, true)

/* The integer nearest to v that rows of byte kernels may hold. */
static inline float test_byte(const fkm_kernels *k, float v)
{
    float low = k->takes == FKM_I8 ? -128 : 0;
    return v < low ? low : v > low + 255 ? low + 255 : rintf(v);
}

/* Rows as k takes them: x: [n] as they are, or, for byte kernels, into bytes: [n]. *t: their type.
 */
static inline const void *test_rows(
    const fkm_kernels *k, const float *x, int64_t n, uint8_t *bytes, fkm_dtype *t)
{
    *t = k->bytes ? k->takes : FKM_F32;
    for (int64_t i = 0; k->bytes && i < n; i++)
        bytes[i] = (uint8_t)(int)x[i];
    return k->bytes ? (const void *)bytes : x;
}

/* xorshift64*: the same data on every run. */
static inline uint64_t test_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1du;
}

/* In [-1, 1). */
static inline float test_uniform(uint64_t *state)
{
    return (float)((double)(test_random(state) >> 11) * 0x1p-52 - 1);
}

#endif
