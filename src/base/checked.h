/* Arithmetic on sizes that come from files and command lines: every product is checked. */
#ifndef FKM_CHECKED_H
#define FKM_CHECKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* True and *out = the product or sum; false, *out unspecified, when it does not fit. */
static inline bool fkm_mul_size(size_t *out, size_t a, size_t b)
{
    return !__builtin_mul_overflow(a, b, out);
}

static inline bool fkm_mul_i64(int64_t *out, int64_t a, int64_t b)
{
    return !__builtin_mul_overflow(a, b, out);
}

static inline bool fkm_add_i64(int64_t *out, int64_t a, int64_t b)
{
    return !__builtin_add_overflow(a, b, out);
}

/* a * b for a plan of memory, where "too much" is answer enough: saturates at INT64_MAX.
 * Needs a, b >= 0. */
static inline int64_t fkm_mul_sat(int64_t a, int64_t b)
{
    int64_t out;
    return __builtin_mul_overflow(a, b, &out) ? INT64_MAX : out;
}

static inline int64_t fkm_add_sat(int64_t a, int64_t b)
{
    int64_t out;
    return __builtin_add_overflow(a, b, &out) ? INT64_MAX : out;
}

static inline int64_t fkm_min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t fkm_max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Smallest multiple of `step` that is >= a; a >= 0, step > 0, no overflow for planned sizes. */
static inline int64_t fkm_round_up(int64_t a, int64_t step)
{
    return (a + step - 1) / step * step;
}

#endif
