/* Sums of clusters: see update.h. */
#include "update.h"

#include "../base/checked.h"
#include "../base/inertia.h"
#include "../base/mem.h"

#include <math.h>
#include <string.h>

#define COPIES_BYTES ((int64_t)16 << 20) /* of sums, beyond the first copy */

static size_t sum_size(bool wide)
{
    return wide ? sizeof(fkm_i128) : sizeof(int64_t);
}

static int32_t copies_for(int32_t clusters, int32_t dims, bool wide, int32_t threads)
{
    int64_t each = fkm_mul_sat(fkm_mul_sat(clusters, dims), (int64_t)sum_size(wide));
    return (int32_t)fkm_max_i64(1, fkm_min_i64(threads, 1 + COPIES_BYTES / each));
}

int64_t fkm_update_bytes(int32_t clusters, int32_t dims, bool wide, int32_t threads)
{
    int64_t slots = fkm_mul_sat(clusters, copies_for(clusters, dims, wide, threads));
    int64_t sums = fkm_mul_sat(fkm_mul_sat(slots, dims), (int64_t)sum_size(wide));
    int64_t parts = (int64_t)threads * (4 * (int64_t)sizeof(fkm_update_part) + 4 * (int64_t)dims);
    return fkm_add_sat(fkm_add_sat(sums, fkm_mul_sat(slots, 10)), parts + 4096);
}

fkm_status fkm_update_open(fkm_update *u, const fkm_kernels *k, fkm_pool *pool, int32_t clusters,
    int32_t dims, bool wide, fkm_err *e)
{
    fkm_status st = FKM_OK;
    memset(u, 0, sizeof *u);
    u->kernels = k;
    u->pool = pool;
    u->clusters = clusters;
    u->dims = dims;
    u->wide_room = wide;
    u->copies = copies_for(clusters, dims, wide, fkm_pool_threads(pool));
    u->shared = u->copies < fkm_pool_threads(pool);
    u->part_count = 4 * fkm_pool_threads(pool);
    int64_t slots, cells;
    if (!fkm_mul_i64(&slots, clusters, u->copies) || !fkm_mul_i64(&cells, slots, dims))
        return fkm_fail(e, FKM_ENOMEM, "%d clusters of %d dims are too large", clusters, dims);
    FKM_GO(fkm_calloc(&u->sum, cells, sum_size(wide), "cluster sums", e));
    FKM_GO(fkm_calloc(&u->count, slots, sizeof(int64_t), "cluster sizes", e));
    FKM_GO(fkm_calloc(&u->lock, slots, sizeof *u->lock, "locks", e));
    FKM_GO(fkm_calloc(&u->touched, slots, sizeof *u->touched, "locks", e));
    FKM_GO(fkm_alloc(&u->means, (int64_t)fkm_pool_threads(pool) * dims, sizeof(float), "means", e));
    FKM_GO(fkm_calloc(&u->parts, u->part_count, sizeof *u->parts, "partial sums", e));
    return FKM_OK;
out:
    fkm_update_close(u);
    return st;
}

void fkm_update_close(fkm_update *u)
{
    fkm_free(u->sum);
    fkm_free(u->count);
    fkm_free(u->lock);
    fkm_free(u->touched);
    fkm_free(u->parts);
    fkm_free(u->means);
    memset(u, 0, sizeof *u);
}

void fkm_update_scale(fkm_update *u, fkm_scale s)
{
    u->scale = s;
    u->unit = ldexp(1, s.exponent);
    if (s.bits == 0) /* not known: as large as it can be */
        u->scale.bits = 62;
}

/* From the sums of a cluster to those of the next, whatever the width in use: copies that a merge
 * has left clear stay so when it changes. */
static size_t row_bytes(const fkm_update *u)
{
    return (size_t)u->dims * sum_size(u->wide_room);
}

void fkm_update_replaced(fkm_update *u)
{
    memset(u->touched, 1, (size_t)u->clusters * sizeof *u->touched);
}

void fkm_update_clear(fkm_update *u, bool squares)
{
    memset(u->sum, 0, (size_t)u->clusters * row_bytes(u));
    memset(u->count, 0, (size_t)u->clusters * sizeof *u->count);
    fkm_update_replaced(u);
    if (!squares)
        return;
    memset(&u->squares, 0, sizeof u->squares);
    memset(u->parts, 0, (size_t)u->part_count * sizeof *u->parts);
}

static void *sum_at(const fkm_update *u, int64_t slot)
{
    return (char *)u->sum + (size_t)slot * row_bytes(u);
}

static void add_row_wide(fkm_i128 *sum, const float *x, int32_t dims, double scale)
{
    for (int32_t t = 0; t < dims; t++)
        sum[t] += (fkm_i128)rint(x[t] * scale);
}

/* Held for the length of one row, and mostly by the thread that has it in its cache. */
static void lock(atomic_uchar *l)
{
    while (atomic_exchange_explicit(l, 1, memory_order_acquire))
        while (atomic_load_explicit(l, memory_order_relaxed))
            ;
}

static void unlock(atomic_uchar *l)
{
    atomic_store_explicit(l, 0, memory_order_release);
}

bool fkm_update_takes(const fkm_update *u, fkm_dtype t)
{
    bool bytes = (t == FKM_U8 || t == FKM_I8) && !u->scale.wide && u->scale.exponent >= 0;
    return t == FKM_F32 || bytes;
}

void fkm_update_row(
    fkm_update *u, int worker, const void *x, fkm_dtype t, int32_t cluster, bool leaves)
{
    int64_t slot = (int64_t)(worker % u->copies) * u->clusters + cluster;
    double unit = leaves ? -u->unit : u->unit; /* rint is odd */
    if (u->shared)
        lock(&u->lock[slot]);
    u->touched[slot] = 1;
    u->count[slot] += leaves ? -1 : 1;
    if (u->scale.wide)
        add_row_wide(sum_at(u, slot), x, u->dims, unit);
    else if (t == FKM_F32)
        u->kernels->add_row(sum_at(u, slot), x, u->dims, unit);
    else
        u->kernels->add_bytes(sum_at(u, slot), x, t, u->dims, u->scale.exponent, leaves);
    if (u->shared)
        unlock(&u->lock[slot]);
}

static void add_square_wide(const fkm_update *u, fkm_exact *sum, const float *x)
{
    double scale = u->unit;
    for (int32_t t = 0; t < u->dims; t++) { /* 24 significant bits, below 2^126: exact as float */
        int e;
        int64_t m = fkm_float_parts((float)rint(x[t] * scale), &e);
        fkm_exact_add(sum, m * m, 2 * (e - u->scale.exponent));
    }
}

/* |q| <= 2^bits: both parts of a square, split at 2^bits, are at most 2^bits, and 2^(62 - bits) of
 * them fit 64 bits. */
static void add_square(const fkm_update *u, fkm_update_part *part, const float *x)
{
    const double split = ldexp(1, u->scale.bits);
    const int32_t room = 62 - u->scale.bits, most = room > 20 ? 1 << 20 : 1 << room;
    for (int32_t t = 0; t < u->dims; t += most) {
        int64_t sum[2] = {0, 0};
        int32_t n = u->dims - t < most ? u->dims - t : most;
        u->kernels->add_squares(sum, x + t, n, u->unit, split);
        part->square_high += sum[0];
        part->square_low += sum[1];
    }
}

void fkm_update_square(fkm_update *u, int worker, const void *x, fkm_dtype t)
{
    fkm_update_part *part = &u->parts[worker];
    if (u->scale.wide)
        add_square_wide(u, &part->exact, x);
    else if (t == FKM_F32)
        add_square(u, part, x);
    else
        part->square_bytes += (fkm_u128)u->kernels->squares_of_bytes(x, t, u->dims);
}

/* Adds what other copies hold of a cluster to the first, and clears it there. */
static void merge_copies(fkm_update *u, int32_t j)
{
    for (int32_t copy = 1; copy < u->copies; copy++) {
        int64_t slot = (int64_t)copy * u->clusters + j;
        if (!u->touched[slot])
            continue;
        void *to = sum_at(u, j), *from = sum_at(u, slot);
        for (int32_t t = 0; t < u->dims; t++) {
            if (u->scale.wide)
                ((fkm_i128 *)to)[t] += ((const fkm_i128 *)from)[t];
            else
                ((int64_t *)to)[t] += ((const int64_t *)from)[t];
        }
        memset(from, 0, (size_t)u->dims * sum_size(u->scale.wide));
        u->count[j] += u->count[slot];
        u->count[slot] = 0;
        u->touched[slot] = 0;
        u->touched[j] = 1;
    }
}

static void merge_squares(fkm_update *u)
{
    int e = -2 * u->scale.exponent;
    for (int32_t i = 0; i < u->part_count; i++) {
        fkm_update_part *part = &u->parts[i];
        fkm_exact_merge(&u->squares, &part->exact);
        if (u->scale.wide)
            continue; /* that was all */
        fkm_exact_add(&u->squares, (fkm_i128)part->square_bytes, 0);
        fkm_exact_add(&u->squares, part->square_low, e);
        fkm_exact_add(&u->squares, part->square_high, e + u->scale.bits);
    }
}

/* A share of the clusters, for one task of u->part_count. */
typedef struct clusters_range {
    int32_t begin, end;
} clusters_range;

static clusters_range range_of(const fkm_update *u, int64_t index)
{
    const int64_t n = u->clusters;
    return (clusters_range){
        (int32_t)(n * index / u->part_count), (int32_t)(n * (index + 1) / u->part_count)};
}

typedef struct end_job {
    fkm_update *u;
    const float *c;
} end_job;

/* Sums of clusters, and what they are to the inertia. */
static void end_task(void *arg, int64_t index, int worker)
{
    (void)worker;
    const end_job *job = arg;
    fkm_update *u = job->u;
    fkm_exact *part = &u->parts[index].exact;
    const clusters_range some = range_of(u, index);
    memset(part, 0, sizeof *part);
    for (int32_t j = some.begin; j < some.end; j++) {
        merge_copies(u, j);
        if (u->count[j])
            fkm_inertia_add(part, job->c + (int64_t)j * u->dims, sum_at(u, j), u->scale.wide,
                u->count[j], u->dims, u->scale.exponent, u->kernels->inertia_piece);
    }
}

double fkm_update_end(fkm_update *u, bool squares, const float *c)
{
    end_job job = {u, c};
    if (squares)
        merge_squares(u); /* before tasks use the parts */
    fkm_pool_for(u->pool, u->part_count, end_task, &job);
    fkm_exact total = u->squares;
    for (int32_t i = 0; i < u->part_count; i++)
        fkm_exact_merge(&total, &u->parts[i].exact);
    return fkm_exact_round(&total);
}

typedef struct move_job {
    fkm_update *u;
    float *c;
    double *shift;
    fkm_update_moved *moved;
    void *arg;
} move_job;

static void mean_row_wide(float *mean, const fkm_i128 *sum, int32_t dims, double n, double scale)
{
    for (int32_t t = 0; t < dims; t++)
        mean[t] = (float)((double)sum[t] / n * scale); /* by a power of two: rounded once */
}

/* Moves centroid j; mean: scratch. Returns how far. */
static double move_one(const move_job *job, int32_t j, float *mean)
{
    const fkm_update *u = job->u;
    const double scale = ldexp(1, -u->scale.exponent), n = (double)u->count[j];
    float *c = job->c + (int64_t)j * u->dims;
    if (u->scale.wide)
        mean_row_wide(mean, sum_at(u, j), u->dims, n, scale);
    else
        u->kernels->mean_row(mean, sum_at(u, j), u->dims, n, scale);
    const double shift = sqrt(u->kernels->canonical(mean, c, u->dims));
    memcpy(c, mean, (size_t)u->dims * sizeof *c);
    if (job->moved)
        job->moved(job->arg, j, c);
    return shift;
}

static void move_task(void *arg, int64_t index, int worker)
{
    const move_job *job = arg;
    fkm_update *u = job->u;
    float *mean = u->means + (int64_t)worker * u->dims;
    const clusters_range some = range_of(u, index);
    for (int32_t j = some.begin; j < some.end; j++) {
        job->shift[j] = u->touched[j] && u->count[j] ? move_one(job, j, mean) : 0;
        u->touched[j] = 0;
    }
}

double fkm_update_move(fkm_update *u, float *c, double *shift, fkm_update_moved *moved, void *arg)
{
    move_job job = {u, c, shift, moved, arg};
    double largest = 0;
    fkm_pool_for(u->pool, u->part_count, move_task, &job);
    for (int32_t j = 0; j < u->clusters; j++)
        largest = fmax(largest, shift[j]);
    return largest;
}
