/* Certified screening: centroids made ready, and the bookkeeping of candidates. See screen.h. */
#include "kernels.h"

#include "../base/checked.h"
#include "../base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define U 0x1p-24                  /* float32 unit roundoff */
#define HIGHER_ORDER (1 + 0x1p-10) /* second-order terms, and the rounding of the bound itself */
#define SHIFT_SAMPLE 63            /* centroids whose median is the shift */
#define START_WIDTH 16             /* columns of a matrix unit's tile */
#define LOW_NORM (1 + 0x1p-7)      /* |X^| / |X~| at most, bf16: 1 + 2^-8, rounded up */
#define LOW_TINY 0x1p-100f         /* matrix units flush subnormals: dims * 2^-126, rounded up */

static int64_t positions(const fkm_tiles *t)
{
    return (int64_t)t->count * t->tile;
}

int64_t fkm_tiles_bytes(const fkm_kernels *k, int32_t clusters, int32_t dims)
{
    int64_t count = (clusters + (int64_t)k->tile - 1) / k->tile, padded = count * k->tile;
    int64_t rows = fkm_mul_sat(padded, (int64_t)sizeof(float) * dims);
    int64_t packed = fkm_mul_sat(count, (int64_t)fkm_tile_bytes(k, dims));
    int64_t flat = 6 * sizeof(float) + 2 * sizeof(int32_t) + sizeof(double);
    if (k->low)
        flat += START_WIDTH * (int64_t)sizeof(float);
    int64_t total = fkm_add_sat(fkm_add_sat(rows, packed), fkm_mul_sat(padded, flat));
    return fkm_add_sat(
        total, count * 3 * (int64_t)sizeof(float) + (int64_t)sizeof(float) * dims + 4096);
}

fkm_status fkm_tiles_open(
    fkm_tiles *t, const fkm_kernels *k, int32_t clusters, int32_t dims, fkm_err *e)
{
    static const char margins[] = "centroid margins", order[] = "the centroid order";
    fkm_status st = FKM_OK;
    memset(t, 0, sizeof *t);
    t->kernels = k;
    t->dims = dims;
    t->clusters = clusters;
    t->tile = k->tile;
    t->count = (int32_t)(fkm_round_up(clusters, k->tile) / k->tile);
    t->tile_bytes = fkm_tile_bytes(k, dims);
    int64_t n = positions(t), nd;
    if (!fkm_mul_i64(&nd, n, dims))
        return fkm_fail(e, FKM_ENOMEM, "%d clusters of %d dims are too large", clusters, dims);
    FKM_GO(fkm_alloc(&t->shift, dims, sizeof(float), "the shift", e));
    FKM_GO(fkm_alloc(&t->packed, t->count, t->tile_bytes, "packed centroids", e));
    FKM_GO(fkm_alloc(&t->rows, nd, sizeof(float), "shifted centroids", e));
    FKM_GO(fkm_alloc(&t->half, n, sizeof(float), "centroid norms", e));
    FKM_GO(fkm_alloc(&t->slope, n, sizeof(float), margins, e));
    FKM_GO(fkm_alloc(&t->residual, n, sizeof(float), margins, e));
    FKM_GO(fkm_alloc(&t->offset, n, sizeof(float), margins, e));
    FKM_GO(fkm_alloc(&t->fine_slope, n, sizeof(float), margins, e));
    FKM_GO(fkm_alloc(&t->fine_offset, n, sizeof(float), margins, e));
    FKM_GO(fkm_alloc(&t->tile_slope, t->count, sizeof(float), margins, e));
    FKM_GO(fkm_alloc(&t->tile_residual, t->count, sizeof(float), margins, e));
    FKM_GO(fkm_alloc(&t->tile_offset, t->count, sizeof(float), margins, e));
    FKM_GO(fkm_alloc(&t->index, n, sizeof(int32_t), order, e));
    FKM_GO(fkm_alloc(&t->position, n, sizeof(int32_t), order, e));
    FKM_GO(fkm_alloc(&t->order_key, n, sizeof(double), order, e));
    if (k->low)
        FKM_GO(fkm_alloc(&t->start, n, START_WIDTH * sizeof(float), "centroid norms", e));
    return FKM_OK;
out:
    fkm_tiles_close(t);
    return st;
}

void fkm_tiles_close(fkm_tiles *t)
{
    fkm_free(t->shift);
    fkm_free(t->packed);
    fkm_free(t->rows);
    fkm_free(t->half);
    fkm_free(t->slope);
    fkm_free(t->residual);
    fkm_free(t->offset);
    fkm_free(t->fine_slope);
    fkm_free(t->fine_offset);
    fkm_free(t->tile_slope);
    fkm_free(t->tile_residual);
    fkm_free(t->tile_offset);
    fkm_free(t->start);
    fkm_free(t->index);
    fkm_free(t->position);
    fkm_free(t->order_key);
    memset(t, 0, sizeof *t);
}

/* A power of two that brings the largest coordinate below 1 (4 at the end of the float range). */
static float choose_scale(const float *c, int64_t count)
{
    float top = 0;
    for (int64_t i = 0; i < count; i++)
        top = fmaxf(top, fabsf(c[i]));
    int exponent = 0;
    if (top > 0)
        (void)frexpf(top, &exponent);
    exponent = exponent > 126 ? 126 : exponent < -120 ? -120 : exponent;
    return ldexpf(1, -exponent);
}

static int compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The shift: per coordinate the median of some centroids. A mean would follow an outlier and cost
 * all other rows their digits. Any value is right; a central one makes norms, hence margins, small.
 */
static void choose_shift(fkm_tiles *t, const float *c)
{
    int32_t sample = t->clusters < SHIFT_SAMPLE ? t->clusters : SHIFT_SAMPLE;
    float value[SHIFT_SAMPLE];
    for (int32_t d = 0; d < t->dims; d++) {
        for (int32_t i = 0; i < sample; i++) {
            int64_t j = (int64_t)i * t->clusters / sample;
            value[i] = c[j * t->dims + d];
        }
        qsort(value, (size_t)sample, sizeof value[0], compare_floats);
        t->shift[d] = value[sample / 2] * t->scale;
    }
}

static int compare_keys(const void *a, const void *b, void *keys)
{
    int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    double x = ((const double *)keys)[i], y = ((const double *)keys)[j];
    if (x != y)
        return x < y ? -1 : 1;
    return (i > j) - (i < j);
}

/* Positions by increasing norm, so that the margins within a tile are alike. */
static void sort_by_norm(fkm_tiles *t, const float *c)
{
    for (int32_t j = 0; j < t->clusters; j++) {
        double sum = 0;
        for (int32_t d = 0; d < t->dims; d++) {
            double v = (double)c[(int64_t)j * t->dims + d] * t->scale - t->shift[d];
            sum += v * v;
        }
        t->order_key[j] = sum;
        t->index[j] = j;
    }
    qsort_r(t->index, (size_t)t->clusters, sizeof t->index[0], compare_keys, t->order_key);
    for (int64_t p = 0; p < positions(t); p++) {
        if (p < t->clusters)
            t->position[t->index[p]] = (int32_t)p;
        else
            t->index[p] = -1;
    }
}

static double chain_of(int32_t dims)
{
    int32_t tile = (dims < FKM_SEGMENT ? dims : FKM_SEGMENT + dims / FKM_SEGMENT + 1) + 3;
    int32_t dot = FKM_DOT_CHAIN(dims);
    return tile > dot ? tile : dot;
}

/* Margins of e(i, j); padding has none and is never a candidate. */
static void set_fine_margins(fkm_tiles *t, double factor)
{
    double chain = chain_of(t->dims), gamma = chain * U / (1 - chain * U);
    double a = gamma + 9 * U, kappa = (t->dims / 8.0 + 8) * 0x1p-53 / 2 * HIGHER_ORDER;
    double f = HIGHER_ORDER * factor;
    t->kappa = (float)(kappa * factor * (1 + 0x1p-20));
    for (int64_t p = 0; p < positions(t); p++) {
        t->fine_slope[p] = t->fine_offset[p] = 0;
        if (p >= t->clusters)
            continue;
        double nc = sqrt(t->order_key[t->index[p]]) * (1 + 0x1p-20);
        t->fine_slope[p] = (float)((a + 2 * kappa) * nc * f) + FKM_TINY;
        t->fine_offset[p] = (float)((a * t->half[p] + kappa * nc * nc) * f) + FKM_TINY;
    }
}

/* Margins of m(i, j). On entry residual holds |C~ - C^|^2, when low. */
static void set_margins(fkm_tiles *t, double factor)
{
    double chain = t->dims + 64.0, gamma = chain * U / (1 - chain * U); /* any order in the unit */
    double f = HIGHER_ORDER * factor;
    for (int64_t p = 0; p < positions(t); p++) {
        float measured = t->residual[p];
        t->slope[p] = t->fine_slope[p];
        t->offset[p] = t->fine_offset[p];
        t->residual[p] = 0;
        if (p >= t->clusters || !t->kernels->low)
            continue;
        double nc = sqrt(t->order_key[t->index[p]]) * (1 + 0x1p-20);
        double rc = sqrt(measured) * (1 + t->dims * U) + 2 * U * nc + FKM_NORM_TINY;
        t->residual[p] = (float)(nc * f) + LOW_TINY;
        t->slope[p] += (float)(LOW_NORM * (rc + (gamma + 9 * U) * nc) * f) + LOW_TINY;
        t->offset[p] += (float)((gamma + 9 * U) * t->half[p] * f) + LOW_TINY;
    }
}

static float largest(const float *v, int32_t n)
{
    float top = 0;
    for (int32_t i = 0; i < n; i++)
        top = fmaxf(top, v[i]);
    return top;
}

static void set_tile_margins(fkm_tiles *t)
{
    for (int32_t i = 0; i < t->count; i++) {
        int64_t first = (int64_t)i * t->tile;
        t->tile_slope[i] = largest(t->slope + first, t->tile);
        t->tile_offset[i] = largest(t->offset + first, t->tile);
        t->tile_residual[i] = largest(t->residual + first, t->tile);
    }
}

/* The frame is fixed by the first centroids, and again when they have outgrown or left its scale.
 */
static void choose_frame(fkm_tiles *t, const float *c)
{
    float scale = choose_scale(c, (int64_t)t->clusters * t->dims);
    if (t->frame && scale >= t->scale / 4 && scale <= t->scale * 4)
        return;
    t->scale = scale;
    t->frame++;
    choose_shift(t, c);
}

void fkm_tiles_set(fkm_tiles *t, const float *c, double margin_factor)
{
    choose_frame(t, c);
    sort_by_norm(t, c);
    for (int64_t p = 0; p < positions(t); p++) {
        float *row = t->rows + p * t->dims;
        bool real = p < t->clusters;
        const float *from = real ? c + (int64_t)t->index[p] * t->dims : NULL;
        for (int32_t d = 0; d < t->dims; d++)
            row[d] = real ? from[d] * t->scale - t->shift[d] : 0;
        t->half[p] = real ? (float)(t->order_key[t->index[p]] / 2) : FKM_HALF_PAD;
        for (int i = 0; t->start && i < START_WIDTH; i++)
            t->start[p * START_WIDTH + i] = -t->half[p];
    }
    for (int32_t i = 0; i < t->count; i++) {
        int64_t first = (int64_t)i * t->tile;
        t->kernels->pack_tile(t->packed + (size_t)i * t->tile_bytes, t->residual + first,
            t->rows + first * t->dims, t->dims);
    }
    set_fine_margins(t, margin_factor);
    set_margins(t, margin_factor);
    set_tile_margins(t);
}

int32_t fkm_block_settle(fkm_row_block *b, int32_t row)
{
    if (b->count[row] > FKM_CANDIDATES)
        return -1;
    int32_t *position = b->position + (int64_t)row * FKM_CANDIDATES, kept = 0;
    float *upper = b->upper + (int64_t)row * FKM_CANDIDATES;
    for (int32_t i = 0; i < b->count[row]; i++) {
        if (upper[i] < b->floor[row])
            continue;
        position[kept] = position[i];
        upper[kept] = upper[i];
        kept++;
    }
    return b->count[row] = kept;
}

void fkm_block_candidate(
    fkm_row_block *b, int32_t row, const fkm_tiles *t, int32_t position, float score)
{
    float m = b->norm[row] * t->slope[position] + b->residual[row] * t->residual[position] +
              t->offset[position] + b->slack[row];
    float lower = score - m, upper = score + m;
    if (upper < b->floor[row])
        return;
    if (lower > b->floor[row])
        b->floor[row] = lower;
    if (b->count[row] == FKM_CANDIDATES)
        (void)fkm_block_settle(b, row);
    if (b->count[row] >= FKM_CANDIDATES) {
        b->count[row] = FKM_CANDIDATES + 1;
        return;
    }
    int64_t slot = (int64_t)row * FKM_CANDIDATES + b->count[row]++;
    b->position[slot] = position;
    b->upper[slot] = upper;
}
