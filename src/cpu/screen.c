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
#define LOW_NORM (1 + 0x1p-7)      /* |X^| |C^| / (|X~| |C~|) at most, bf16: (1 + 2^-8)^2 */
#define LOW_TINY 0x1p-100f         /* matrix units flush subnormals: dims * 2^-126, rounded up */
#define STEP_GROUPS 16             /* groups of dims in a step of byte kernels */

/* Dims are left out if that widens margins by this share of what rounding does to them, for rows
 * like the centroids, which are judged by so many. MNIST, 784 dims: 512 are left, and 2 % more of
 * the rows in doubt; with a share of 1.4 it were 448, and 8 %; 5.2: 384, and 30 %. */
#define FAINT_SHARE 0.5
#define FAINT_SAMPLE 256
#define FAINT_CLUSTERS 32 /* with fewer there is little to win, and little to go by */

#define TWINS_SOUGHT 8 /* different centroids of equal norm to compare with */

/* How far the largest tile may exceed the middle one, for all to share a quantum. */
#define MOST_UNLIKE 1.5f

static int32_t group_count(int32_t dims)
{
    return (dims + FKM_GROUP - 1) / FKM_GROUP;
}

static int32_t step_count(int32_t dims)
{
    return (group_count(dims) + STEP_GROUPS - 1) / STEP_GROUPS;
}

static int64_t positions(const fkm_tiles *t)
{
    return (int64_t)t->count * t->tile;
}

/* What k, and what is finer to it, need: tiles, positions in them, and the bytes of all. */
typedef struct tiles_room {
    int64_t count, positions, packed;
} tiles_room;

static tiles_room room_for(const fkm_kernels *k, int32_t clusters, int32_t dims)
{
    tiles_room r = {0};
    for (; k; k = k->finer) {
        const int64_t padded = fkm_round_up(clusters, k->tile), count = padded / k->tile;
        r.count = fkm_max_i64(r.count, count);
        r.positions = fkm_max_i64(r.positions, padded);
        r.packed = fkm_max_i64(r.packed, fkm_mul_sat(count, (int64_t)fkm_tile_bytes(k, dims)));
    }
    return r;
}

int64_t fkm_tiles_bytes(const fkm_kernels *k, int32_t clusters, int32_t dims)
{
    const tiles_room room = room_for(k, clusters, dims);
    const int64_t count = room.count, padded = room.positions, packed = room.packed;
    int64_t rows = fkm_mul_sat(padded, (int64_t)sizeof(float) * dims);
    int64_t flat = 11 * sizeof(float) + 5 * sizeof(int32_t) + 2 * sizeof(double) + sizeof(bool);
    int64_t total = fkm_add_sat(fkm_add_sat(rows, packed), fkm_mul_sat(padded, flat));
    return fkm_add_sat(total, count * (9 * (int64_t)sizeof(float) + (int64_t)sizeof(bool)) +
                                  (int64_t)sizeof(float) * dims * (1 + k->tile) +
                                  (int64_t)sizeof(uint16_t) * step_count(dims) + 4096);
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
    t->screened = dims;
    const tiles_room room = room_for(k, clusters, dims);
    const int64_t n = room.positions, count = room.count;
    int64_t nd;
    if (!fkm_mul_i64(&nd, n, dims))
        return fkm_fail(e, FKM_ENOMEM, "%d clusters of %d dims are too large", clusters, dims);
    FKM_GO(fkm_calloc(&t->shift, dims, sizeof(float), "the shift", e));
    FKM_GO(fkm_alloc(&t->kept, step_count(dims), sizeof *t->kept, "the dims in use", e));
    FKM_GO(fkm_alloc(&t->packed, room.packed, 1, "packed centroids", e));
    FKM_GO(fkm_alloc(&t->rows, nd, sizeof(float), "shifted centroids", e));
    FKM_GO(fkm_alloc(&t->half, n, sizeof(float), "centroid norms", e));
    FKM_GO(fkm_alloc(&t->slope, n, sizeof(float), margins, e));
    FKM_GO(fkm_alloc(&t->residual, n, sizeof(float), margins, e));
    FKM_GO(fkm_alloc(&t->offset, n, sizeof(float), margins, e));
    FKM_GO(fkm_calloc(&t->tail, n, sizeof(float), margins, e));
    FKM_GO(fkm_calloc(&t->tile_tail, count, sizeof(float), margins, e));
    FKM_GO(fkm_alloc(&t->norm2, clusters, sizeof(double), "centroid norms", e));
    FKM_GO(fkm_alloc(&t->size, clusters, sizeof(float), "centroid sizes", e));
    FKM_GO(fkm_alloc(&t->top, clusters, sizeof(float), "centroid sizes", e));
    FKM_GO(fkm_alloc(&t->turned, (int64_t)k->tile * dims, sizeof(float), "a tile", e));
    FKM_GO(fkm_alloc(&t->fine_slope, n, sizeof(float), margins, e));
    FKM_GO(fkm_alloc(&t->fine_offset, n, sizeof(float), margins, e));
    FKM_GO(fkm_alloc(&t->tile_slope, count, sizeof(float), margins, e));
    FKM_GO(fkm_alloc(&t->tile_residual, count, sizeof(float), margins, e));
    FKM_GO(fkm_alloc(&t->tile_offset, count, sizeof(float), margins, e));
    FKM_GO(fkm_alloc(&t->tile_half, count, sizeof(float), margins, e));
    FKM_GO(fkm_calloc(&t->quantum, count, sizeof(float), margins, e));
    FKM_GO(fkm_calloc(&t->unit, count, sizeof(float), margins, e));
    FKM_GO(fkm_calloc(&t->narrow, count, sizeof(bool), margins, e));
    FKM_GO(fkm_calloc(&t->centroid_quantum, n, sizeof(float), margins, e));
    FKM_GO(fkm_alloc(&t->index, n, sizeof(int32_t), order, e));
    FKM_GO(fkm_calloc(&t->twin, n, sizeof(bool), order, e));
    FKM_GO(fkm_alloc(&t->position, n, sizeof(int32_t), order, e));
    FKM_GO(fkm_alloc(&t->place, n, sizeof *t->place, order, e));
    FKM_GO(fkm_alloc(&t->order_key, n, sizeof(double), order, e));
    FKM_GO(fkm_alloc(&t->start, n, sizeof(int32_t), "centroid norms", e));
    FKM_GO(fkm_calloc(&t->drift, n, sizeof(float), "movements", e));
    fkm_tiles_lots(t, t->tile);
    return FKM_OK;
out:
    fkm_tiles_close(t);
    return st;
}

void fkm_tiles_close(fkm_tiles *t)
{
    fkm_free(t->shift);
    fkm_free(t->kept);
    fkm_free(t->drift);
    fkm_free(t->packed);
    fkm_free(t->rows);
    fkm_free(t->half);
    fkm_free(t->slope);
    fkm_free(t->residual);
    fkm_free(t->offset);
    fkm_free(t->tail);
    fkm_free(t->tile_tail);
    fkm_free(t->norm2);
    fkm_free(t->size);
    fkm_free(t->top);
    fkm_free(t->turned);
    fkm_free(t->fine_slope);
    fkm_free(t->fine_offset);
    fkm_free(t->tile_slope);
    fkm_free(t->tile_residual);
    fkm_free(t->tile_offset);
    fkm_free(t->tile_half);
    fkm_free(t->centroid_quantum);
    fkm_free(t->quantum);
    fkm_free(t->unit);
    fkm_free(t->narrow);
    fkm_free(t->start);
    fkm_free(t->index);
    fkm_free(t->twin);
    fkm_free(t->position);
    fkm_free(t->place);
    fkm_free(t->order_key);
    memset(t, 0, sizeof *t);
}

/* The bits of |v|, which have the order of the values. */
static inline int32_t magnitude_bits(float v)
{
    int32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits & 0x7fffffff;
}

static float from_bits(int32_t bits)
{
    float out;
    memcpy(&out, &bits, sizeof out);
    return out;
}

static float largest_magnitude(const float *c, int64_t count)
{
    int32_t top = 0;
    for (int64_t i = 0; i < count; i++) {
        int32_t bits = magnitude_bits(c[i]);
        top = bits > top ? bits : top;
    }
    return from_bits(top);
}

/* A power of two that brings the largest coordinate below 1 (4 at the end of the float range). */
static float choose_scale(float top)
{
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
    t->far = 0;
    for (int32_t d = 0; d < t->dims; d++) {
        for (int32_t i = 0; i < sample; i++) {
            int64_t j = (int64_t)i * t->clusters / sample;
            value[i] = c[j * t->dims + d];
        }
        qsort(value, (size_t)sample, sizeof value[0], compare_floats);
        t->shift[d] = value[sample / 2] * t->scale;
        t->far += fabs((double)t->shift[d]);
    }
}

static void keep_all(fkm_tiles *t)
{
    memset(t->kept, 0xff, (size_t)step_count(t->dims) * sizeof *t->kept);
    t->screened = t->dims;
}

void fkm_tiles_keep(fkm_tiles *t, const uint16_t *kept)
{
    keep_all(t);
    if (kept) {
        memcpy(t->kept, kept, (size_t)step_count(t->dims) * sizeof *t->kept);
        t->screened = 0;
        for (int32_t i = 0; i < step_count(t->dims); i++)
            for (unsigned left = t->kept[i]; left; left &= left - 1)
                t->screened += FKM_GROUP;
    }
    t->tile_bytes = fkm_tile_bytes(t->kernels, t->screened);
    t->frame++;
}

/* energy[g]: sum of squares in group g, of some centroids in the frame. Returns the largest
 * coordinate. */
static float measure_groups(const fkm_tiles *t, const float *c, int32_t sample, float *energy)
{
    float top = 0;
    memset(energy, 0, (size_t)group_count(t->dims) * sizeof *energy);
    for (int32_t i = 0; i < sample; i++) {
        const float *row = c + (int64_t)i * t->clusters / sample * t->dims;
        for (int32_t d = 0; d < t->dims; d++) {
            const float v = fabsf(row[d] * t->scale - t->shift[d]);
            energy[d / FKM_GROUP] += v * v;
            top = v > top ? v : top;
        }
    }
    return top;
}

/* The most groups, sorted by energy, that may be left out so that a multiple of a step is kept.
 * sample, top: as above. */
static int32_t count_faint(const fkm_tiles *t, const float *sorted, int32_t sample, double top)
{
    const int32_t groups = group_count(t->dims);
    double total = 0, faint = 0;
    int32_t out = 0;
    for (int32_t g = 0; g < groups; g++)
        total += (double)sorted[g] / sample;
    for (int32_t left = (groups - 1) / STEP_GROUPS * STEP_GROUPS, g = 0; left > 0;
         left -= STEP_GROUPS) {
        for (; g < groups - left; g++)
            faint += (double)sorted[g] / sample;
        const double lost = sqrt(left * FKM_GROUP / 12.0) * top / (double)t->kernels->most_quanta;
        if (faint > FAINT_SHARE * sqrt(total) * lost)
            break;
        out = groups - left;
    }
    return out;
}

/* What byte kernels see: all but the groups along which centroids hardly extend. */
static void choose_groups(fkm_tiles *t, const float *c)
{
    const int32_t groups = group_count(t->dims);
    const int32_t sample = t->clusters < FAINT_SAMPLE ? t->clusters : FAINT_SAMPLE;
    float *energy = t->turned, *sorted = energy + groups; /* scratch, as in choose_keys */
    if (!t->kernels->bytes)
        return;
    fkm_tiles_keep(t, NULL);
    if (t->clusters < FAINT_CLUSTERS)
        return;
    const float top = measure_groups(t, c, sample, energy);
    memcpy(sorted, energy, (size_t)groups * sizeof *sorted);
    qsort(sorted, (size_t)groups, sizeof *sorted, compare_floats);
    const int32_t faint = count_faint(t, sorted, sample, (double)top);
    if (faint == 0)
        return;
    const float least = sorted[faint]; /* of what is kept; of its equals, the first are left out */
    int32_t equals = 0;
    for (int32_t g = 0; g < faint; g++)
        equals += sorted[g] == least;
    uint16_t kept[(FKM_BYTES_MOST_DIMS + 63) / 64] = {0};
    for (int32_t g = 0; g < groups; g++) {
        if (energy[g] < least || (energy[g] == least && equals-- > 0))
            continue;
        kept[g / STEP_GROUPS] |= (uint16_t)(1u << g % STEP_GROUPS);
    }
    fkm_tiles_keep(t, kept);
}

static int compare_keys(const void *a, const void *b, void *keys)
{
    int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    double x = ((const double *)keys)[i], y = ((const double *)keys)[j];
    if (x != y)
        return x < y ? -1 : 1;
    return (i > j) - (i < j);
}

/* Work on all clusters or tiles, spread over the pool if there is one. */
typedef struct tiles_job {
    fkm_tiles *t;
    const float *c;
    double margin_factor;
} tiles_job;

static void run(fkm_pool *pool, int64_t count, fkm_pool_fn fn, tiles_job *job)
{
    if (pool)
        fkm_pool_for(pool, count, fn, job);
    for (int64_t i = 0; !pool && i < count; i++)
        fn(job, i, 0);
}

void fkm_tiles_measure(fkm_tiles *t, int32_t j, const float *c)
{
    t->size[j] = largest_magnitude(c, t->dims);
    t->norm2[j] = t->kernels->norm2(c, t->shift, t->scale, t->dims, &t->top[j]);
}

#define MEASURED_AT_ONCE 64
static void measure_some(void *arg, int64_t block, int worker)
{
    (void)worker;
    const tiles_job *job = arg;
    int64_t end = fkm_min_i64(job->t->clusters, (block + 1) * MEASURED_AT_ONCE);
    for (int64_t j = block * MEASURED_AT_ONCE; j < end; j++)
        fkm_tiles_measure(job->t, (int32_t)j, job->c + j * job->t->dims);
}

static void measure_all(tiles_job *job, fkm_pool *pool)
{
    run(pool, (job->t->clusters + MEASURED_AT_ONCE - 1) / MEASURED_AT_ONCE, measure_some, job);
}

/* What the margins depend on most: the norm, or with a head the length beyond it. */
static void choose_keys(fkm_tiles *t, const float *c)
{
    for (int32_t j = 0; j < t->clusters; j++) {
        t->order_key[j] = t->norm2[j];
        if (!t->axes)
            continue;
        float *row = t->turned, *head = t->rows; /* rows are filled later */
        for (int32_t d = 0; d < t->dims; d++)
            row[d] = c[(int64_t)j * t->dims + d] * t->scale - t->shift[d];
        t->kernels->rotate(head, row, 1, t->dims, t->axes, t->screened);
        for (int32_t h = 0; h < t->screened; h++)
            t->order_key[j] -= (double)head[h] * head[h];
    }
}

static void put_at(fkm_tiles *t, int32_t centroid, int32_t position)
{
    t->position[centroid] = position;
    t->place[centroid] = (fkm_place){position / t->tile, position % t->tile};
}

/* Positions by increasing key, so that the margins within a tile are alike. */
static void sort_by_key(fkm_tiles *t)
{
    for (int32_t j = 0; j < t->clusters; j++)
        t->index[j] = j;
    qsort_r(t->index, (size_t)t->clusters, sizeof t->index[0], compare_keys, t->order_key);
    for (int64_t p = 0; p < positions(t); p++) {
        if (p < t->clusters)
            put_at(t, t->index[p], (int32_t)p);
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

static double kappa_of(const fkm_tiles *t)
{
    return (t->dims / 8.0 + 8) * 0x1p-53 / 2 * HIGHER_ORDER;
}

/* Margins of e(i, j) of positions [first, end); padding has none and is never a candidate. */
static void set_fine_margins(fkm_tiles *t, int64_t first, int64_t end, double factor)
{
    double chain = chain_of(t->dims), gamma = chain * U / (1 - chain * U);
    double a = gamma + 9 * U, kappa = kappa_of(t);
    double f = HIGHER_ORDER * factor;
    for (int64_t p = first; p < end; p++) {
        t->fine_slope[p] = t->fine_offset[p] = 0;
        if (p >= t->clusters)
            continue;
        double nc = sqrt(t->norm2[t->index[p]]) * (1 + 0x1p-20);
        t->fine_slope[p] = (float)((a + 2 * kappa) * nc * f) + FKM_TINY;
        t->fine_offset[p] = (float)((a * t->half[p] + kappa * nc * nc) * f) + FKM_TINY;
    }
}

double fkm_turn_error(int32_t screened, int32_t dims)
{
    double chain = FKM_DOT_CHAIN(dims);
    return chain * U / (1 - chain * U) * sqrt(screened) * HIGHER_ORDER;
}

/* Length beyond the head of a vector of length `norm` (rounded up), whose computed head has length
 * `head`; see head.h. */
static double tail_of(const fkm_tiles *t, double norm, double head)
{
    double least = fmax(0, head - fkm_turn_error(t->screened, t->dims) * norm);
    double rest = norm * norm * (1 + 0x1p-40) - least * least * (1 - t->gram);
    return sqrt(fmax(0, rest)) * (1 + 0x1p-20);
}

/* Length of a centroid of length nc in the dims that are left out, from its square. */
static double faint_of(const fkm_tiles *t, double nc, double square)
{
    return sqrt(square) * (1 + t->dims * U) + 2 * U * nc + FKM_NORM_TINY;
}

/* Margins of m(i, j). On entry residual holds the square of what rounding lost, tail the square of
 * the head's length, or byte kernels': of that of what they leave out. Without rounding and without
 * a head, m is e. */
static void set_margins(fkm_tiles *t, int64_t first, int64_t end, double factor)
{
    double chain = t->screened + 64.0, gamma = chain * U / (1 - chain * U); /* any order */
    double f = HIGHER_ORDER * factor;
    for (int64_t p = first; p < end; p++) {
        double measured = sqrt(t->residual[p]) * (1 + t->dims * U);
        double beside = t->tail[p];
        t->slope[p] = t->fine_slope[p];
        t->offset[p] = t->fine_offset[p];
        t->residual[p] = t->tail[p] = 0;
        if (p >= t->clusters || !(t->kernels->low || t->axes))
            continue;
        double nc = sqrt(t->norm2[t->index[p]]) * (1 + 0x1p-20);
        double rc = measured + 2 * U * nc + FKM_NORM_TINY;
        if (t->axes) {
            const double head = sqrt(beside);
            rc += fkm_turn_error(t->screened, t->dims) * nc;
            t->tail[p] = (float)(tail_of(t, nc, head * (1 - t->screened * U)) * f) + LOW_TINY;
        } else if (t->screened < t->dims) {
            t->tail[p] = (float)(faint_of(t, nc, beside) * f) + LOW_TINY;
        }
        t->residual[p] = (float)((nc * (1 + t->gram) + rc) * f) + LOW_TINY;
        double slope = rc * (1 + t->gram) + LOW_NORM * (gamma + 9 * U + t->gram) * nc;
        t->slope[p] += (float)(slope * f) + LOW_TINY;
        t->offset[p] += (float)((gamma + 9 * U) * t->half[p] * f) + LOW_TINY;
        if (t->kernels->bytes && measured * measured > FKM_UNSCORED / 2)
            t->offset[p] = FKM_UNSCORED; /* a candidate always */
        else if (t->kernels->bytes)      /* H: a rounding to an integer, and a sum in float64 */
            t->offset[p] +=
                (float)((t->unit[p / t->tile] * 0.51 + t->dims * 0x1p-50 * t->far * nc) * f);
    }
}

static float largest(const float *v, int32_t n)
{
    float top = 0;
    for (int32_t i = 0; i < n; i++)
        top = v[i] > top ? v[i] : top;
    return top;
}

static void set_tile_margins(fkm_tiles *t, int64_t tile)
{
    const int64_t first = tile * t->tile;
    t->tile_slope[tile] = largest(t->slope + first, t->tile);
    t->tile_offset[tile] = largest(t->offset + first, t->tile);
    t->tile_tail[tile] = largest(t->tail + first, t->tile);
    t->tile_residual[tile] = largest(t->residual + first, t->tile);
    t->tile_half[tile] = t->half[first];
    for (int64_t p = first + 1; p < first + t->tile; p++)
        t->tile_half[tile] = fminf(t->tile_half[tile], t->half[p]);
}

/* The frame is fixed by the first centroids, and again when they have outgrown or left its scale,
 * or others have taken their place. Has it changed? */
static bool choose_frame(fkm_tiles *t, const float *c)
{
    float scale = choose_scale(largest(t->size, t->clusters));
    if (t->frame && scale >= t->scale / 4 && scale <= t->scale * 4)
        return false;
    t->scale = scale;
    t->frame++;
    choose_shift(t, c);
    choose_groups(t, c);
    return true;
}

void fkm_tiles_renew(fkm_tiles *t)
{
    t->scale = 0; /* which suits nothing */
}

/* The largest coordinate of the centroids in tile i. */
static float top_of_tile(const fkm_tiles *t, int32_t i)
{
    float top = 0;
    for (int64_t p = (int64_t)i * t->tile; p < ((int64_t)i + 1) * t->tile; p++)
        if (t->index[p] >= 0 && t->top[t->index[p]] > top)
            top = t->top[t->index[p]];
    return top;
}

/* One quantum for all coordinates of a tile, so that scores are integers alike. Where centroids are
 * picked from several tiles, it is one for all: too coarse for most when some are far larger than
 * others, as those of a single row are among means of many. */
static void choose_quanta(fkm_tiles *t)
{
    t->alike = true;
    if (!t->kernels->bytes)
        return;
    for (int32_t i = 0; i < t->count; i++)
        t->quantum[i] = t->unit[i] = top_of_tile(t, i);
    qsort(t->unit, (size_t)t->count, sizeof *t->unit, compare_floats);
    const float top = t->unit[t->count - 1];
    t->alike = top <= MOST_UNLIKE * t->unit[t->count / 2];
    for (int32_t i = 0; i < t->count; i++) {
        const float most = t->lot == 1 ? top : t->quantum[i];
        t->quantum[i] = most > 0x1p-100f ? most / t->kernels->most_quanta : 1;
        t->unit[i] = t->quantum[i] * t->scale;
    }
}

void fkm_tiles_turn(fkm_tiles *t, const float *axes, int32_t screened, float gram)
{
    keep_all(t);
    t->axes = axes;
    t->screened = axes ? screened : t->dims;
    t->gram = axes ? gram : 0;
    t->tile_bytes = fkm_tile_bytes(t->kernels, t->screened);
    t->frame++;
}

void fkm_tiles_lots(fkm_tiles *t, int32_t lot)
{
    t->lot = lot;
    t->lots = (int32_t)(positions(t) / lot);
    memset(t->drift, 0, (size_t)positions(t) * sizeof *t->drift);
}

void fkm_tiles_use(fkm_tiles *t, const fkm_kernels *k)
{
    t->kernels = k;
    t->tile = k->tile;
    t->count = (int32_t)(fkm_round_up(t->clusters, k->tile) / k->tile);
    t->tile_bytes = fkm_tile_bytes(k, t->screened);
    t->frame++;
    fkm_tiles_lots(t, t->tile);
}

/* The rows of tile i in the frame, and what goes with each position. */
static void fill_tile(fkm_tiles *t, const float *c, int32_t i)
{
    for (int64_t p = (int64_t)i * t->tile; p < ((int64_t)i + 1) * t->tile; p++) {
        float *row = t->rows + p * t->dims;
        if (p >= t->clusters) {
            memset(row, 0, (size_t)t->dims * sizeof *row);
            t->half[p] = FKM_HALF_PAD;
            continue;
        }
        const float *from = c + (int64_t)t->index[p] * t->dims;
        for (int32_t d = 0; d < t->dims; d++)
            row[d] = from[d] * t->scale - t->shift[d];
        t->half[p] = (float)(t->norm2[t->index[p]] / 2);
    }
}

/* Fills tile i and lays it out in the kernel's way, through the axes if there are any. */
static void lay_out_tile(fkm_tiles *t, const float *c, int64_t i)
{
    int64_t first = i * t->tile;
    const float *rows = t->rows + first * t->dims;
    fill_tile(t, c, (int32_t)i);
    if (t->axes) {
        t->kernels->rotate(t->turned, rows, t->tile, t->dims, t->axes, t->screened);
        rows = t->turned;
        for (int32_t r = 0; r < t->tile; r++) {
            double square = 0;
            for (int32_t h = 0; h < t->screened; h++)
                square += (double)rows[r * t->screened + h] * rows[r * t->screened + h];
            t->tail[first + r] = (float)square;
        }
    }
    t->kernels->pack_tile(t, first, rows);
}

static void make_tile(void *arg, int64_t i, int worker)
{
    (void)worker;
    const tiles_job *job = arg;
    const int64_t first = i * job->t->tile, end = first + job->t->tile;
    lay_out_tile(job->t, job->c, i);
    set_fine_margins(job->t, first, end, job->margin_factor);
    set_margins(job->t, first, end, job->margin_factor);
    set_tile_margins(job->t, i);
}

/* Initial centroids may be the same row many times over, and each row near those would have them
 * all for candidates. Equals have equal keys, and lie side by side by index. */
static void find_twins(fkm_tiles *t, const float *c)
{
    const size_t bytes = (size_t)t->dims * sizeof *c;
    int32_t others[TWINS_SOUGHT]; /* the last ones with this key that are no twins, in turn */
    int64_t count = 0;
    for (int32_t p = 0; p < t->clusters; p++) {
        const int32_t j = t->index[p];
        if (p > 0 && t->order_key[t->index[p - 1]] != t->order_key[j])
            count = 0;
        for (int64_t i = 0; i < count && i < TWINS_SOUGHT && !t->twin[p]; i++)
            t->twin[p] = !memcmp(c + (int64_t)others[i] * t->dims, c + (int64_t)j * t->dims, bytes);
        if (!t->twin[p])
            others[count++ % TWINS_SOUGHT] = j;
    }
}

static void choose_order(fkm_tiles *t, const float *c)
{
    choose_keys(t, c);
    sort_by_key(t);
    find_twins(t, c);
    t->order++;
    t->order_frame = t->frame;
    memset(t->drift, 0, (size_t)t->lots * sizeof *t->drift);
}

static void add_to_drift(fkm_tiles *t, const double *shift)
{
    for (int32_t i = 0; i < t->lots; i++) {
        double most = 0;
        for (int64_t p = (int64_t)i * t->lot; p < ((int64_t)i + 1) * t->lot; p++)
            if (t->index[p] >= 0)
                most = fmax(most, shift[t->index[p]]);
        t->drift[i] = (t->drift[i] + (float)(most * t->scale * (1 + 0x1p-20))) * (1 + 0x1p-22f);
    }
}

/* shift NULL: in a new order. */
static void set_tiles(
    fkm_tiles *t, const float *c, const double *shift, double margin_factor, fkm_pool *pool)
{
    tiles_job job = {t, c, margin_factor};
    if (!t->measured)
        measure_all(&job, pool);
    t->measured = false;
    if (choose_frame(t, c))
        measure_all(&job, pool);
    memset(t->twin, 0, (size_t)positions(t) * sizeof *t->twin);
    if (shift && t->order_frame == t->frame)
        add_to_drift(t, shift);
    else
        choose_order(t, c);
    choose_quanta(t);
    t->kappa = (float)(kappa_of(t) * margin_factor * (1 + 0x1p-20));
    run(t->axes ? NULL : pool, t->count, make_tile, &job); /* heads share t->turned */
}

void fkm_tiles_set(fkm_tiles *t, const float *c, double margin_factor, fkm_pool *pool)
{
    set_tiles(t, c, NULL, margin_factor, pool);
}

void fkm_tiles_follow(fkm_tiles *t, const float *c, const double *shift, fkm_pool *pool)
{
    set_tiles(t, c, shift, 1, pool);
}

/* Drops candidates that the floor has overtaken. */
static void drop_overtaken(fkm_row_block *b, int32_t row)
{
    int32_t kept = 0;
    for (int64_t at = row, i = 0; i < b->count[row]; i++, at += b->stride) {
        if (b->upper[at] < b->floor[row])
            continue;
        b->position[row + (int64_t)kept * b->stride] = b->position[at];
        b->upper[row + (int64_t)kept * b->stride] = b->upper[at];
        kept++;
    }
    b->count[row] = kept;
}

float fkm_block_margin(const fkm_row_block *b, int32_t row, const fkm_tiles *t, int32_t position)
{
    return b->norm[row] * t->slope[position] + b->residual[row] * t->residual[position] +
           b->tail[row] * t->tail[position] + t->offset[position] + b->slack[row];
}

void fkm_block_candidate(
    fkm_row_block *b, int32_t row, const fkm_tiles *t, int32_t position, float score)
{
    if (position < 0 || t->index[position] < 0 || t->twin[position])
        return; /* padding, which a wide margin may reach, or never the nearest */
    float m = fkm_block_margin(b, row, t, position);
    float lower = score - m, upper = score + m;
    if (upper < b->floor[row])
        return;
    if (lower > b->floor[row])
        b->floor[row] = lower;
    if (b->count[row] == FKM_CANDIDATES)
        drop_overtaken(b, row);
    if (b->count[row] >= FKM_CANDIDATES) {
        b->count[row] = FKM_CANDIDATES + 1;
        return;
    }
    int64_t at = row + (int64_t)b->count[row]++ * b->stride;
    b->position[at] = position;
    b->upper[at] = upper;
}
