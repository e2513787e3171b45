/* Runs a test body for every CPU path that this machine has. */
#ifndef FKM_EACH_ISA_H
#define FKM_EACH_ISA_H

#include "../../src/cpu/kernels.h"

#include <stdio.h>

#define FOR_EACH_ISA(k)                                                                            \
    bool usable_;                                                                                  \
    const fkm_kernels *k;                                                                          \
    for (int i_ = 0; (k = fkm_kernels_at(i_, &usable_)) != NULL; i_++)                             \
        if (!usable_)                                                                              \
            printf("%s: not on this CPU\n", k->isa);                                               \
        else

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
