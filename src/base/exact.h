/* Exact accumulation: a fixed-point number wide enough for every sum that inertia is made of.
 *
 * Adding is exact, so the result has no order: any split over threads, chunks or devices gives the
 * same value, which is rounded to double once, at the end. */
#ifndef FKM_EXACT_H
#define FKM_EXACT_H

#include <stdint.h>

__extension__ typedef __int128 fkm_i128;
__extension__ typedef unsigned __int128 fkm_u128;

/* Two's complement, little-endian limbs; bit 0 of limb 0 weighs 2^FKM_EXACT_LOW. Room for
 * 2^FKM_EXACT_HIGH in magnitude with headroom for 2^62 additions. */
#define FKM_EXACT_LIMBS 18
#define FKM_EXACT_LOW (-640)
#define FKM_EXACT_HIGH 448

typedef struct fkm_exact {
    uint64_t limb[FKM_EXACT_LIMBS];
} fkm_exact;

/* a += v * 2^exponent; needs FKM_EXACT_LOW <= exponent and |v| * 2^exponent < 2^FKM_EXACT_HIGH. */
void fkm_exact_add(fkm_exact *a, fkm_i128 v, int exponent);

/* a += b. */
void fkm_exact_merge(fkm_exact *a, const fkm_exact *b);

/* The double nearest to a, ties to even; +-infinity beyond the range of double. */
double fkm_exact_round(const fkm_exact *a);

#endif
