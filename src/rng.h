/* Seeded randomness: the same stream on every machine and backend. */
#ifndef FKM_RNG_H
#define FKM_RNG_H

#include <stdint.h>

/* A random bijection of [0, n), n >= 1: where `seed` sends i. Drawing i = 0, 1, 2 ... gives
 * distinct numbers without remembering which were drawn. */
int64_t fkm_permute(uint64_t seed, int64_t n, int64_t i);

/* What a random number is for. Streams of different purposes have nothing to do with each other.
 * The values are part of what a seed means: they must never change. */
typedef enum fkm_purpose {
    FKM_DRAW_PROPOSAL = 1,          /* k-means++: which row is proposed */
    FKM_DRAW_VERDICT = 2,           /* and whether it is taken */
    FKM_DRAW_CANDIDATE_FIRST = 3,   /* k-means||: the first of the candidates, */
    FKM_DRAW_CANDIDATE = 4,         /* proposals, */
    FKM_DRAW_CANDIDATE_VERDICT = 5, /* and verdicts among them */
    FKM_DRAW_ROUND = 16,            /* k-means||: + round; index: row */
} fkm_purpose;

/* Number `index` of the stream of `seed` and `purpose`: 64 random bits, a function of the three, so
 * that it does not matter who asks, when, or in which order. */
uint64_t fkm_random(uint64_t seed, unsigned purpose, uint64_t index);

/* The same as a multiple of 2^-53 in [0, 1). */
double fkm_uniform(uint64_t seed, unsigned purpose, uint64_t index);

#endif
