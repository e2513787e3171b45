/* What a table of kernels takes from another, BASE, as it is. A table is constant, so it cannot
 * hold another table's functions: calls of them, for inclusion by its file. */
#include "kernels.h"

static void widen(float *out, const void *x, fkm_dtype t, int64_t n)
{
    BASE.widen(out, x, t, n);
}

static int32_t settle(const fkm_row_block *b, const int32_t *index, int32_t *label, int32_t *others)
{
    return BASE.settle(b, index, label, others);
}

static void rotate(
    float *out, const float *x, int32_t rows, int32_t dims, const float *axes, int32_t heads)
{
    BASE.rotate(out, x, rows, dims, axes, heads);
}

static float dot(const float *x, const float *shift, float scale, const float *c, int32_t dims)
{
    return BASE.dot(x, shift, scale, c, dims);
}

static double norm2(const float *c, const float *shift, float scale, int32_t dims, float *top)
{
    return BASE.norm2(c, shift, scale, dims, top);
}

static double canonical(const float *x, const float *c, int32_t dims)
{
    return BASE.canonical(x, c, dims);
}

static void add_row(int64_t *sum, const float *x, int32_t dims, double scale)
{
    BASE.add_row(sum, x, dims, scale);
}

static void add_bytes(
    int64_t *sum, const void *x, fkm_dtype t, int32_t dims, int32_t shift, bool leaves)
{
    BASE.add_bytes(sum, x, t, dims, shift, leaves);
}

static int64_t squares_of_bytes(const void *x, fkm_dtype t, int32_t dims)
{
    return BASE.squares_of_bytes(x, t, dims);
}

static void mean_row(float *mean, const int64_t *sum, int32_t dims, double count, double scale)
{
    BASE.mean_row(mean, sum, dims, count, scale);
}

static void add_squares(int64_t sum[2], const float *x, int32_t dims, double scale, double split)
{
    BASE.add_squares(sum, x, dims, scale, split);
}

static fkm_inertia_sums inertia_piece(const float *c, const int64_t *sum, int32_t dims)
{
    return BASE.inertia_piece(c, sum, dims);
}

/* Their place in the table. */
#define CALLS                                                                                      \
    .widen = widen, .settle = settle, .rotate = rotate, .dot = dot, .norm2 = norm2,                \
    .canonical = canonical, .add_row = add_row, .add_bytes = add_bytes,                            \
    .squares_of_bytes = squares_of_bytes, .mean_row = mean_row, .add_squares = add_squares,        \
    .inertia_piece = inertia_piece
