/* Inertia from sums, exactly.
 *
 * Definition: inertia is the double nearest to  sum over rows i of |q_i 2^-e - c_label(i)|^2  in
 * exact arithmetic, where q_i = rint(x_i 2^e) are the fixed-point coordinates that the cluster sums
 * are made of (fkm_scale) and c are the float32 centroids that the rows were assigned with.
 * Expanded:
 *
 *     2^-2e sum_i |q_i|^2  +  sum_j ( n_j |c_j|^2 - 2 2^-e c_j . S_j ),      S_j = sum of q over
 * cluster j
 *
 * The first term is a constant of the data; the second takes k * dims steps and no row. Every term
 * is an integer times a power of two, so it is added without rounding (exact.h): cancellation
 * cannot hurt and no order, device or update strategy can change a bit. Against the inertia of the
 * unrounded rows the only error is |x - q 2^-e|, which is zero for integer data and for every
 * coordinate above 2^-38 n of the largest, and at most 2^-25 of a typical one (fkm_scale_choose) or
 * the coordinate itself otherwise. */
#ifndef FKM_INERTIA_H
#define FKM_INERTIA_H

#include "exact.h"
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Coordinates of a cluster are brought to one exponent, FKM_INERTIA_PIECE of them at a time: those
 * of at least 2^(base - 127), where base is the exponent field of the largest less 20, but at least
 * 1, are integers v of 44 bits times 2^(base - 150). Smaller ones are few, and added alone. */
#define FKM_INERTIA_PIECE 1024

typedef struct fkm_inertia_window {
    int32_t base;
    bool left; /* some are smaller, and not zero */
} fkm_inertia_window;

typedef struct fkm_inertia_sums {
    fkm_i128 product; /* of v S: below 2^(44 + 63 + 10) in magnitude */
    fkm_i128 square;  /* of v^2: below 2^(88 + 10) */
    fkm_inertia_window window;
} fkm_inertia_sums;

/* Adds up what is in the window of a piece, exactly; a slot of the kernels (src/cpu/kernels.h).
 * c, sum: [dims], dims in 1..FKM_INERTIA_PIECE. */
typedef fkm_inertia_sums fkm_inertia_piece(const float *c, const int64_t *sum, int32_t dims);

/* Grows with the magnitude of c, but for zero, which is largest. */
static inline uint32_t fkm_inertia_size(float c)
{
    uint32_t bits;
    memcpy(&bits, &c, sizeof bits);
    return (bits << 1) - 1;
}

/* The size of 2^(base - 127), that of the least in a window. */
static inline uint32_t fkm_inertia_least(int32_t base)
{
    return ((uint32_t)base << 24) - 1;
}

/* The window of a piece, for its kernels: with their flags, the loop becomes one of vectors. */
static inline fkm_inertia_window fkm_inertia_window_of(const float *c, int32_t dims)
{
    uint32_t most = 0, least = UINT32_MAX;
    for (int32_t t = 0; t < dims; t++) {
        const uint32_t size = fkm_inertia_size(c[t]);
        most = size + 1 > most ? size + 1 : most; /* of zero: 0 */
        least = size < least ? size : least;
    }
    const int32_t field = (int32_t)(most >> 24), base = field > 21 ? field - 20 : 1;
    const fkm_inertia_window w = {base, least < fkm_inertia_least(base)};
    return w;
}

/* acc += n |c|^2 - 2 2^-exponent c . S for one cluster. c: [dims]; sum: [dims] of fkm_i128 when
 * wide, else of int64_t; rows: n; piece: not used when wide. */
void fkm_inertia_add(fkm_exact *acc, const float *c, const void *sum, bool wide, int64_t rows,
    int32_t dims, int32_t exponent, fkm_inertia_piece *piece);

/* v = mantissa * 2^*exponent exactly, with |mantissa| < 2^24. v finite. */
int32_t fkm_float_parts(float v, int *exponent);

#endif
