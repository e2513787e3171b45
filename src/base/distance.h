/* The canonical squared distance, in plain C, for code that is not a kernel. */
#ifndef FKM_DISTANCE_H
#define FKM_DISTANCE_H

#include <stdint.h>

/* Bit for bit that of every backend: eight lanes of float64, multiply, then add,
 * folded in a fixed order. x, c: [dims]. Not finite exactly when x or c is not. */
double fkm_distance(const float *x, const float *c, int32_t dims);

#endif
