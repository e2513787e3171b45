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
 * coordinate above 2^-38 n of the largest, and at most 2^-25 of a typical coordinate otherwise. */
#ifndef FKM_INERTIA_H
#define FKM_INERTIA_H

#include "exact.h"
#include <stdbool.h>
#include <stdint.h>

/* acc += n |c|^2 - 2 2^-exponent c . S for one cluster. c: [dims]; sum: [dims] of fkm_i128 when
 * wide, else of int64_t; rows: n. */
void fkm_inertia_add(fkm_exact *acc, const float *c, const void *sum, bool wide, int64_t rows,
    int32_t dims, int32_t exponent);

/* v = mantissa * 2^*exponent exactly, with |mantissa| < 2^24. v finite. */
int32_t fkm_float_parts(float v, int *exponent);

#endif
