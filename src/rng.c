/* Seeded randomness: see rng.h. */
#include "rng.h"

/* The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection that mixes all bits. */
static uint64_t mix(uint64_t z)
{
    z += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* A Feistel network over 2 * half bits is a bijection whatever its round function. */
static uint64_t feistel(uint64_t seed, int half, uint64_t v)
{
    const uint64_t mask = ((uint64_t)1 << half) - 1;
    uint64_t left = v >> half, right = v & mask;
    for (uint64_t round = 0; round < 6; round++) {
        uint64_t next = left ^ (mix(right ^ mix(seed + round)) & mask);
        left = right;
        right = next;
    }
    return left << half | right;
}

int64_t fkm_permute(uint64_t seed, int64_t n, int64_t i)
{
    int half = 1;
    while ((uint64_t)1 << (2 * half) < (uint64_t)n)
        half++;
    uint64_t v = (uint64_t)i;
    do /* walk the cycle until it is back in range: at most 4 steps on average */
        v = feistel(seed, half, v);
    while (v >= (uint64_t)n);
    return (int64_t)v;
}

/* SplitMix64 with the key as its state, jumped ahead to `index`. */
uint64_t fkm_random(uint64_t seed, unsigned purpose, uint64_t index)
{
    uint64_t key = mix(purpose + mix(seed));
    return mix(key + index * 0x9e3779b97f4a7c15u);
}

double fkm_uniform(uint64_t seed, unsigned purpose, uint64_t index)
{
    return (double)(fkm_random(seed, purpose, index) >> 11) * 0x1p-53;
}
