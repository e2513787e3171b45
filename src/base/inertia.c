/* Inertia from sums: see inertia.h. */
#include "inertia.h"

#include <string.h>

int32_t fkm_float_parts(float v, int *exponent)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    int32_t mantissa = (int32_t)(bits & 0x7fffff), field = (int32_t)(bits >> 23 & 255);
    if (field)
        mantissa |= 0x800000;
    *exponent = (field ? field : 1) - 150;
    return bits >> 31 ? -mantissa : mantissa;
}

/* acc -= 2 m 2^e S 2^-exponent. A 128-bit sum goes in as two words, so that products fit. */
static void subtract_product(
    fkm_exact *acc, int64_t m, int e, const void *sum, bool wide, int32_t t)
{
    if (!wide) {
        fkm_exact_add(acc, -(fkm_i128)m * ((const int64_t *)sum)[t], e + 1);
        return;
    }
    fkm_i128 s = ((const fkm_i128 *)sum)[t];
    int64_t high = (int64_t)(s >> 64);
    uint64_t low = (uint64_t)s;
    fkm_exact_add(acc, -(fkm_i128)m * high, e + 1 + 64);
    fkm_exact_add(acc, -(fkm_i128)m * (fkm_i128)low, e + 1);
}

void fkm_inertia_add(fkm_exact *acc, const float *c, const void *sum, bool wide, int64_t rows,
    int32_t dims, int32_t exponent)
{
    for (int32_t t = 0; t < dims; t++) {
        int e;
        int64_t m = fkm_float_parts(c[t], &e);
        if (m == 0)
            continue;
        fkm_exact_add(acc, (fkm_i128)(m * m) * rows, 2 * e);
        subtract_product(acc, m, e - exponent, sum, wide, t);
    }
}
