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

static void add_alone(fkm_exact *acc, float c, int64_t sum, int64_t rows, int32_t exponent)
{
    int e;
    int64_t m = fkm_float_parts(c, &e);
    fkm_exact_add(acc, (fkm_i128)(m * m) * rows, 2 * e);
    fkm_exact_add(acc, -(fkm_i128)m * sum, e + 1 - exponent);
}

/* Coordinates below the window of their piece. */
static void add_small(fkm_exact *acc, const float *c, const int64_t *sum, int64_t rows,
    int32_t dims, int32_t exponent, int32_t base)
{
    for (int32_t t = 0; t < dims; t++)
        if (fkm_inertia_size(c[t]) < fkm_inertia_least(base))
            add_alone(acc, c[t], sum[t], rows, exponent);
}

static void add_piece(fkm_exact *acc, const float *c, const int64_t *sum, int64_t rows,
    int32_t dims, int32_t exponent, fkm_inertia_piece *piece)
{
    const fkm_inertia_sums s = piece(c, sum, dims);
    const int e = s.window.base - 150;
    fkm_exact_add(acc, (fkm_i128)(uint64_t)s.square * rows, 2 * e);
    fkm_exact_add(acc, (s.square >> 64) * rows, 2 * e + 64);
    fkm_exact_add(acc, -s.product, e + 1 - exponent);
    if (s.window.left)
        add_small(acc, c, sum, rows, dims, exponent, s.window.base);
}

/* A 128-bit sum goes in as two words, so that products fit. */
static void add_wide(fkm_exact *acc, const float *c, const fkm_i128 *sum, int64_t rows,
    int32_t dims, int32_t exponent)
{
    for (int32_t t = 0; t < dims; t++) {
        int e;
        int64_t m = fkm_float_parts(c[t], &e);
        int64_t high = (int64_t)(sum[t] >> 64);
        uint64_t low = (uint64_t)sum[t];
        fkm_exact_add(acc, (fkm_i128)(m * m) * rows, 2 * e);
        fkm_exact_add(acc, -(fkm_i128)m * high, e + 1 + 64 - exponent);
        fkm_exact_add(acc, -(fkm_i128)m * (fkm_i128)low, e + 1 - exponent);
    }
}

void fkm_inertia_add(fkm_exact *acc, const float *c, const void *sum, bool wide, int64_t rows,
    int32_t dims, int32_t exponent, fkm_inertia_piece *piece)
{
    if (wide) {
        add_wide(acc, c, sum, rows, dims, exponent);
        return;
    }
    for (int32_t t = 0; t < dims; t += FKM_INERTIA_PIECE) {
        int32_t n = dims - t < FKM_INERTIA_PIECE ? dims - t : FKM_INERTIA_PIECE;
        add_piece(acc, c + t, (const int64_t *)sum + t, rows, n, exponent, piece);
    }
}
