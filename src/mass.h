/* Drawing rows with probabilities in proportion to float64 masses.
 *
 * The sums that this takes have one order, which depends on nothing but the number of rows: masses
 * are added from left to right within blocks of FKM_MASS_BLOCK rows, and the sums of the blocks
 * from left to right. So the same masses give the same draw, however they came about, in one piece
 * or in chunks, on one thread or on many. Floating point suffices: a mass is a squared distance of
 * float32 rows (zero, or between 2^-298 and 2^278) times a count, so sums neither overflow nor lose
 * a row to underflow, whatever the scale of the data; and rounding moves the probability of a row
 * by 2^-40 of itself at most, while rows of mass zero are never drawn. */
#ifndef FKM_MASS_H
#define FKM_MASS_H

#include "base/status.h"
#include <stdint.h>

#define FKM_MASS_BLOCK 1024

/* Row i has the mass distance[i] * weight[i]; either factor may be left out. */
typedef struct fkm_mass {
    const double *distance; /* [count], finite, >= 0, or NULL. Borrowed, like weight */
    const int64_t *weight;  /* [count], >= 0, or NULL */
    int64_t count, blocks;
    double *up_to; /* [blocks]: sum of blocks 0 to b, from the last fkm_mass_sum */
} fkm_mass;

int64_t fkm_mass_bytes(int64_t count); /* that open allocates */
fkm_status fkm_mass_open(fkm_mass *m, const double *distance, const int64_t *weight, int64_t count,
    fkm_err *e) FKM_MUST_USE;
void fkm_mass_close(fkm_mass *m); /* safe on zeroed structs */

/* Takes the masses as they are now; returns their sum. */
double fkm_mass_sum(fkm_mass *m);

/* The row at fraction u in [0, 1) of the sum, which must be > 0; always one of positive mass.
 * Masses must be as they were at fkm_mass_sum. */
int64_t fkm_mass_find(const fkm_mass *m, double u);

#endif
