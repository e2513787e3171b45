/* Seeded randomness: the same stream on every machine and backend. */
#ifndef FKM_RNG_H
#define FKM_RNG_H

#include <stdint.h>

/* A random bijection of [0, n), n >= 1: where `seed` sends i. Drawing i = 0, 1, 2 ... gives
 * distinct numbers without remembering which were drawn. */
int64_t fkm_permute(uint64_t seed, int64_t n, int64_t i);

#endif
