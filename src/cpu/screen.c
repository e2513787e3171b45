/* Certified screening: centroids made ready, and the bookkeeping of candidates. See screen.h. */
#include "screen.h"

#include "../base/checked.h"
#include "../base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define U 0x1p-24              /* float32 unit roundoff */
#define HIGHER_ORDER (1 + 0x1p-10) /* second-order terms, and the rounding of the bound itself */
#define SHIFT_SAMPLE 63        /* centroids whose median is the shift */

static int64_t positions(const fkm_tiles *t)
{
    return (int64_t)t->count * t->tile;
}

int64_t fkm_tiles_bytes(int32_t clusters, int32_t dims, int32_t tile)
{
    int64_t padded = fkm_round_up(clusters, tile), count = padded / tile;
    int64_t per_dim = fkm_mul_sat(padded, 2 * (int64_t)sizeof(float) * dims);
    int64_t flat = fkm_mul_sat(padded, 3 * sizeof(float) + 2 * sizeof(int32_t) + sizeof(double));
    return fkm_add_sat(fkm_add_sat(per_dim, flat),
        fkm_mul_sat(count, 2 * sizeof(float)) + (int64_t)sizeof(float) * dims + 4096);
}

fkm_status fkm_tiles_open(fkm_tiles *t, int32_t clusters, int32_t dims, int32_t tile, fkm_err *e)
{
    fkm_status st = FKM_OK;
    memset(t, 0, sizeof *t);
    t->dims = dims;
    t->clusters = clusters;
    t->tile = tile;
    t->count = (int32_t)(fkm_round_up(clusters, tile) / tile);
    int64_t n = positions(t), nd;
    if (!fkm_mul_i64(&nd, n, dims))
        return fkm_fail(e, FKM_ENOMEM, "%d clusters of %d dims are too large", clusters, dims);
    FKM_GO(fkm_alloc(&t->shift, dims, sizeof(float), "the shift", e));
    FKM_GO(fkm_alloc(&t->packed, nd, sizeof(float), "packed centroids", e));
    FKM_GO(fkm_alloc(&t->rows, nd, sizeof(float), "shifted centroids", e));
    FKM_GO(fkm_alloc(&t->half, n, sizeof(float), "centroid norms", e));
    FKM_GO(fkm_alloc(&t->slope, n, sizeof(float), "centroid margins", e));
    FKM_GO(fkm_alloc(&t->offset, n, sizeof(float), "centroid margins", e));
    FKM_GO(fkm_alloc(&t->tile_slope, t->count, sizeof(float), "tile margins", e));
    FKM_GO(fkm_alloc(&t->tile_offset, t->count, sizeof(float), "tile margins", e));
    FKM_GO(fkm_alloc(&t->index, n, sizeof(int32_t), "the centroid order", e));
    FKM_GO(fkm_alloc(&t->position, n, sizeof(int32_t), "the centroid order", e));
    FKM_GO(fkm_alloc(&t->order_key, n, sizeof(double), "the centroid order", e));
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
    fkm_free(t->offset);
    fkm_free(t->tile_slope);
    fkm_free(t->tile_offset);
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

/* The shift: per coordinate the median of some centroids. A mean would follow an outlier and cost all
 * other rows their digits. Any value is right; a central one makes norms, hence margins, small. */
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

static void set_margins(fkm_tiles *t, double margin_factor)
{
    double chain = chain_of(t->dims), gamma = chain * U / (1 - chain * U);
    double a = gamma + 9 * U, kappa = (t->dims / 8.0 + 8) * 0x1p-53 / 2 * HIGHER_ORDER;
    double f = HIGHER_ORDER * margin_factor;
    t->kappa = (float)(kappa * margin_factor * (1 + 0x1p-20));
    for (int64_t p = 0; p < positions(t); p++) {
        t->slope[p] = t->offset[p] = 0; /* padding: never a candidate */
        if (p >= t->clusters)
            continue;
        double square = t->order_key[t->index[p]], nc = sqrt(square) * (1 + 0x1p-20);
        t->slope[p] = (float)((a + 2 * kappa) * nc * f) + FKM_TINY;
        t->offset[p] = (float)((a * t->half[p] + kappa * nc * nc) * f) + FKM_TINY;
    }
    for (int32_t i = 0; i < t->count; i++) {
        float slope = 0, offset = 0;
        for (int32_t r = 0; r < t->tile; r++) {
            slope = fmaxf(slope, t->slope[(int64_t)i * t->tile + r]);
            offset = fmaxf(offset, t->offset[(int64_t)i * t->tile + r]);
        }
        t->tile_slope[i] = slope;
        t->tile_offset[i] = offset;
    }
}

void fkm_tiles_set(fkm_tiles *t, const float *c, double margin_factor)
{
    t->scale = choose_scale(c, (int64_t)t->clusters * t->dims);
    choose_shift(t, c);
    sort_by_norm(t, c);
    for (int64_t p = 0; p < positions(t); p++) {
        float *row = t->rows + p * t->dims;
        float *packed = t->packed + p / t->tile * t->tile * t->dims + p % t->tile;
        bool real = p < t->clusters;
        const float *from = real ? c + (int64_t)t->index[p] * t->dims : NULL;
        for (int32_t d = 0; d < t->dims; d++) {
            row[d] = real ? from[d] * t->scale - t->shift[d] : 0;
            packed[(int64_t)d * t->tile] = row[d];
        }
        t->half[p] = real ? (float)(t->order_key[t->index[p]] / 2) : FKM_HALF_PAD;
    }
    set_margins(t, margin_factor);
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
    float e = b->norm[row] * t->slope[position] + t->offset[position] + b->slack[row];
    float lower = score - e, upper = score + e;
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
