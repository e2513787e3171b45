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

/* Terms of one cluster, gathered by the exponent field of the coordinate (1 to 254) before they are
 * added in full width: a coordinate has 24 bits and a sum 63, so that 2^20 products fit 128 bits,
 * and PIECE squares 64. */
enum { PIECE = 1 << 15 };

typedef struct terms {
    fkm_i128 product[256]; /* m S */
    uint64_t square[256];  /* m^2 */
    int low, high;         /* fields in use */
} terms;

static void add_narrow(terms *g, const float *c, const int64_t *sum, int32_t dims)
{
    int low = 255, high = 0;
    for (int32_t t = 0; t < dims; t++) {
        int e;
        int64_t m = fkm_float_parts(c[t], &e);
        int field = e + 150;
        g->square[field] += (uint64_t)(m * m);
        g->product[field] += (fkm_i128)m * sum[t];
        low = field < low ? field : low;
        high = field > high ? field : high;
    }
    g->low = low;
    g->high = high;
}

static void flush(fkm_exact *acc, const terms *g, int64_t rows, int32_t exponent)
{
    for (int field = g->low; field <= g->high; field++) {
        int e = field - 150;
        if (g->square[field])
            fkm_exact_add(acc, (fkm_i128)g->square[field] * rows, 2 * e);
        if (g->product[field])
            fkm_exact_add(acc, -g->product[field], e + 1 - exponent);
    }
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
        terms g;
        memset(&g, 0, sizeof g);
        int32_t n = dims - t < PIECE ? dims - t : PIECE;
        add_narrow(&g, c + t, (const int64_t *)sum + t, n);
        flush(acc, &g, rows, exponent);
    }
}
