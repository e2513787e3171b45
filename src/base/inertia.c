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

/* Coordinates of a cluster are brought to one exponent, that of the largest less WINDOW, and so
 * become integers of 24 + WINDOW bits: PIECE products with sums of 63 bits fit 128, and so do their
 * squares. What is smaller yet is added on its own. */
enum { WINDOW = 20, PIECE = 1 << 15 };

static void add_alone(fkm_exact *acc, float c, int64_t sum, int64_t rows, int32_t exponent)
{
    int e;
    int64_t m = fkm_float_parts(c, &e);
    fkm_exact_add(acc, (fkm_i128)(m * m) * rows, 2 * e);
    fkm_exact_add(acc, -(fkm_i128)m * sum, e + 1 - exponent);
}

static uint32_t bits_of(float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

/* The exponent field of the largest coordinate. */
static int largest_field(const float *c, int32_t dims)
{
    uint32_t most = 0;
    for (int32_t t = 0; t < dims; t++) {
        uint32_t bits = bits_of(c[t]) & 0x7fffffff;
        most = bits > most ? bits : most;
    }
    return (int)(most >> 23);
}

static void add_narrow(fkm_exact *acc, const float *c, const int64_t *sum, int64_t rows,
    int32_t dims, int32_t exponent)
{
    const int high = largest_field(c, dims), base = high > WINDOW ? high - WINDOW : 1;
    fkm_i128 product = 0;
    fkm_u128 square = 0;
    for (int32_t t = 0; t < dims; t++) {
        const uint32_t bits = bits_of(c[t]);
        const int field = (int)(bits >> 23 & 255);
        if (field < base) {
            if (bits << 1)
                add_alone(acc, c[t], sum[t], rows, exponent);
            continue;
        }
        const int64_t v = (int64_t)((bits & 0x7fffff) | 0x800000) << (field - base);
        const int64_t sign = -(int64_t)(bits >> 31);
        product += (fkm_i128)((v ^ sign) - sign) * sum[t];
        square += (fkm_u128)v * (uint64_t)v;
    }
    const int e = base - 150;
    fkm_exact_add(acc, (fkm_i128)(uint64_t)square * rows, 2 * e);
    fkm_exact_add(acc, (fkm_i128)(uint64_t)(square >> 64) * rows, 2 * e + 64);
    fkm_exact_add(acc, -product, e + 1 - exponent);
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
    int32_t dims, int32_t exponent)
{
    if (wide) {
        add_wide(acc, c, sum, rows, dims, exponent);
        return;
    }
    for (int32_t t = 0; t < dims; t += PIECE) {
        int32_t n = dims - t < PIECE ? dims - t : PIECE;
        add_narrow(acc, c + t, (const int64_t *)sum + t, rows, n, exponent);
    }
}
