/* Sort-inverse update: see update.h. */
#include "update.h"

#include "../base/checked.h"
#include "../base/inertia.h"
#include "../base/mem.h"

#include <math.h>
#include <string.h>

#define TASKS_PER_THREAD 4
#define PREFETCH_ROWS 3 /* rows are in no order in memory: fetch ahead */

static size_t sum_size(bool wide)
{
    return wide ? sizeof(fkm_i128) : sizeof(int64_t);
}

int64_t fkm_update_bytes(
    int32_t clusters, int32_t dims, int64_t chunk_rows, fkm_dtype dtype, bool wide, int32_t threads)
{
    int64_t item = (int64_t)sum_size(wide), tasks = (int64_t)threads * TASKS_PER_THREAD;
    int64_t sums = fkm_mul_sat(fkm_mul_sat(clusters, dims), item);
    int64_t per_task = 4 * item * dims + (dtype == FKM_F32 ? 0 : 4 * (int64_t)dims) +
                       (int64_t)sizeof(fkm_update_task) + 256;
    int64_t flat = 16 * ((int64_t)clusters + 1) + fkm_mul_sat(chunk_rows, 2 * sizeof(int32_t));
    return fkm_add_sat(fkm_add_sat(sums, flat), tasks * per_task + 4096);
}

fkm_status fkm_update_open(fkm_update *u, const fkm_kernels *k, fkm_pool *pool, int32_t clusters,
    int32_t dims, int64_t chunk_rows, fkm_dtype dtype, bool wide, fkm_err *e)
{
    fkm_status st = FKM_OK;
    memset(u, 0, sizeof *u);
    u->kernels = k;
    u->pool = pool;
    u->clusters = clusters;
    u->dims = dims;
    u->dtype = dtype;
    u->wide_room = wide;
    int64_t cells;
    if (!fkm_mul_i64(&cells, clusters, dims))
        return fkm_fail(e, FKM_ENOMEM, "%d clusters of %d dims are too large", clusters, dims);
    FKM_GO(fkm_alloc(&u->sum, cells, sum_size(wide), "cluster sums", e));
    FKM_GO(fkm_calloc(&u->count, clusters, sizeof(int64_t), "cluster sizes", e));
    FKM_GO(fkm_alloc(&u->start, (int64_t)clusters + 1, sizeof(int64_t), "cluster segments", e));
    FKM_GO(fkm_alloc(&u->order, 2 * chunk_rows, sizeof(int32_t), "rows in label order", e));
    int32_t tasks = fkm_pool_threads(pool) * TASKS_PER_THREAD;
    FKM_GO(fkm_calloc(&u->tasks, tasks, sizeof *u->tasks, "update tasks", e));
    u->task_count = tasks;
    for (int32_t i = 0; i < tasks; i++) {
        FKM_GO(fkm_alloc(&u->tasks[i].sum, 4 * (int64_t)dims, sum_size(wide), "partial sums", e));
        if (dtype != FKM_F32)
            FKM_GO(fkm_alloc(&u->tasks[i].row, dims, sizeof(float), "a widened row", e));
    }
    return FKM_OK;
out:
    fkm_update_close(u);
    return st;
}

void fkm_update_close(fkm_update *u)
{
    for (int32_t i = 0; i < u->task_count; i++) {
        fkm_free(u->tasks[i].sum);
        fkm_free(u->tasks[i].row);
    }
    fkm_free(u->tasks);
    fkm_free(u->sum);
    fkm_free(u->count);
    fkm_free(u->start);
    fkm_free(u->order);
    memset(u, 0, sizeof *u);
}

void fkm_update_clear(fkm_update *u, bool squares)
{
    memset(u->sum, 0, (size_t)u->clusters * (size_t)u->dims * sum_size(u->wide));
    memset(u->count, 0, (size_t)u->clusters * sizeof *u->count);
    if (squares)
        memset(&u->squares, 0, sizeof u->squares);
}

/* Is the row the same as before? Rows that the sums do not hold yet have no old label. */
static bool unchanged(const int32_t *old, const int32_t *labels, int64_t i)
{
    return old && old[i] == labels[i];
}

/* order = entries by label, start = where each label begins; counts follow. A counting sort:
 * stable, linear. old: NULL when all rows are new to the sums. */
static void sort_rows(fkm_update *u, const int32_t *old, const int32_t *labels, int64_t count)
{
    int64_t *start = u->start;
    memset(start, 0, ((size_t)u->clusters + 1) * sizeof *start);
    for (int64_t i = 0; i < count; i++) {
        if (unchanged(old, labels, i))
            continue;
        if (labels[i] >= 0) {
            start[labels[i] + 1]++;
            u->count[labels[i]]++;
        }
        if (old && old[i] >= 0) {
            start[old[i] + 1]++;
            u->count[old[i]]--;
        }
    }
    for (int32_t j = 0; j < u->clusters; j++)
        start[j + 1] += start[j];
    for (int64_t i = 0; i < count; i++) {
        if (unchanged(old, labels, i))
            continue;
        if (labels[i] >= 0)
            u->order[start[labels[i]]++] = (int32_t)(2 * i);
        if (old && old[i] >= 0)
            u->order[start[old[i]]++] = (int32_t)(2 * i + 1);
    }
    /* start[j] ran to the end of its segment, which is the next one's beginning: shift back */
    memmove(start + 1, start, (size_t)u->clusters * sizeof *start);
    start[0] = 0;
}

void fkm_update_order(fkm_update *u, int32_t *order, const int32_t *labels, int64_t count)
{
    int64_t *start = u->start, next = 0;
    memset(start, 0, ((size_t)u->clusters + 1) * sizeof *start);
    for (int64_t i = 0; i < count; i++)
        start[labels[i] < 0 ? u->clusters : labels[i]]++;
    for (int32_t j = 0; j <= u->clusters; j++) {
        int64_t n = start[j];
        start[j] = next;
        next += n;
    }
    for (int64_t i = 0; i < count; i++)
        order[start[labels[i] < 0 ? u->clusters : labels[i]]++] = (int32_t)i;
}

typedef struct add_job {
    fkm_update *u;
    const char *x;
    size_t row_bytes;
    int64_t entries; /* of u->order */
    int32_t tasks;
    bool squares;
} add_job;

/* q: the row's fixed-point coordinates. */
static void add_squares(fkm_update_task *task, const int64_t *q, int32_t dims)
{
    fkm_u128 low = 0, high = 0;
    for (int32_t t = 0; t < dims; t++) {
        fkm_u128 p = (fkm_u128)((fkm_i128)q[t] * q[t]);
        low += (uint64_t)p;
        high += (uint64_t)(p >> 64);
    }
    task->square_low += low;
    task->square_high += high;
}

static void add_squares_wide(
    const fkm_update *u, fkm_update_task *task, const float *x, double scale)
{
    for (int32_t t = 0; t < u->dims; t++) { /* 24 significant bits, below 2^126: exact as float */
        int e;
        int64_t m = fkm_float_parts((float)rint(x[t] * scale), &e);
        fkm_exact_add(&task->square_wide, m * m, 2 * (e - u->exponent));
    }
}

static void add_row_wide(fkm_i128 *sum, const float *x, int32_t dims, double scale)
{
    for (int32_t t = 0; t < dims; t++)
        sum[t] += (fkm_i128)rint(x[t] * scale);
}

static const float *row_at(const add_job *job, fkm_update_task *task, int64_t at)
{
    const fkm_update *u = job->u;
    const char *x = job->x + (size_t)(u->order[at] >> 1) * job->row_bytes;
    if (u->dtype == FKM_F32)
        return (const float *)(const void *)x;
    u->kernels->widen(task->row, x, u->dtype, u->dims);
    return task->row;
}

/* sum = the entries at [begin, end) of the order; rows that leave count negative. */
static void add_segment(
    const add_job *job, fkm_update_task *task, void *sum, int64_t begin, int64_t end)
{
    const fkm_update *u = job->u;
    const double factor = ldexp(1, u->exponent);
    int64_t *q = (int64_t *)task->sum + 3 * (int64_t)u->dims;
    memset(sum, 0, (size_t)u->dims * sum_size(u->wide));
    for (int64_t at = begin; at < end; at++) {
        if (at + PREFETCH_ROWS < job->entries) {
            const char *next =
                job->x + (size_t)(u->order[at + PREFETCH_ROWS] >> 1) * job->row_bytes;
            for (size_t b = 0; b < job->row_bytes && b < 1024; b += 64)
                __builtin_prefetch(next + b);
        }
        const float *x = row_at(job, task, at);
        const double scale = u->order[at] & 1 ? -factor : factor; /* rint is odd */
        if (u->wide) {
            add_row_wide(sum, x, u->dims, scale);
            if (job->squares)
                add_squares_wide(u, task, x, scale);
            continue;
        }
        u->kernels->add_row(sum, x, u->dims, scale);
        if (job->squares) {
            memset(q, 0, (size_t)u->dims * sizeof *q);
            u->kernels->add_row(q, x, u->dims, scale);
            add_squares(task, q, u->dims);
        }
    }
}

static void add_sums(const fkm_update *u, int32_t cluster, const void *sum)
{
    int64_t at = (int64_t)cluster * u->dims;
    for (int32_t t = 0; t < u->dims; t++) {
        if (u->wide)
            ((fkm_i128 *)u->sum)[at + t] += ((const fkm_i128 *)sum)[t];
        else
            ((int64_t *)u->sum)[at + t] += ((const int64_t *)sum)[t];
    }
}

/* The last cluster whose segment begins at or before `at`, and is not empty there. */
static int32_t cluster_at(const fkm_update *u, int64_t at)
{
    int32_t low = 0, high = u->clusters;
    while (high - low > 1) {
        int32_t mid = low + (high - low) / 2;
        if (u->start[mid] <= at)
            low = mid;
        else
            high = mid;
    }
    return low;
}

/* A task takes an equal share of the ordered rows. Clusters that lie within it are added at once;
 * those cut by its ends are left as partial sums, because a neighbour holds the rest. */
static void add_task(void *arg, int64_t index, int worker)
{
    (void)worker;
    const add_job *job = arg;
    fkm_update *u = job->u;
    fkm_update_task *task = &u->tasks[index];
    int64_t begin = job->entries * index / job->tasks,
            end = job->entries * (index + 1) / job->tasks;
    char *sum = task->sum;
    size_t bytes = (size_t)u->dims * sum_size(u->wide);
    task->first = task->last = -1;
    if (begin == end)
        return;
    for (int32_t j = cluster_at(u, begin); j < u->clusters && u->start[j] < end; j++) {
        int64_t from = fkm_max_i64(begin, u->start[j]), to = fkm_min_i64(end, u->start[j + 1]);
        if (from >= to)
            continue;
        if (u->start[j] < begin) {
            task->first = j;
            add_segment(job, task, sum + bytes, from, to);
        } else if (u->start[j + 1] > end) {
            task->last = j;
            add_segment(job, task, sum + 2 * bytes, from, to);
        } else {
            add_segment(job, task, sum, from, to);
            add_sums(u, j, sum);
        }
    }
}

static void add_entries(fkm_update *u, const void *x, bool squares)
{
    add_job job = {
        .u = u,
        .x = x,
        .row_bytes = (size_t)u->dims * fkm_dtype_size(u->dtype),
        .entries = u->start[u->clusters],
        .squares = squares,
    };
    job.tasks = (int32_t)fkm_min_i64(u->task_count, job.entries / 64 + 1);
    for (int32_t i = 0; i < job.tasks; i++) {
        u->tasks[i].square_low = u->tasks[i].square_high = 0;
        memset(&u->tasks[i].square_wide, 0, sizeof u->tasks[i].square_wide);
    }
    fkm_pool_for(u->pool, job.tasks, add_task, &job);
    size_t bytes = (size_t)u->dims * sum_size(u->wide);
    for (int32_t i = 0; i < job.tasks; i++) {
        fkm_update_task *task = &u->tasks[i];
        if (task->first >= 0)
            add_sums(u, task->first, (char *)task->sum + bytes);
        if (task->last >= 0)
            add_sums(u, task->last, (char *)task->sum + 2 * bytes);
        if (!squares)
            continue;
        fkm_exact_merge(&u->squares, &task->square_wide);
        fkm_exact_add(&u->squares, (fkm_i128)task->square_low, -2 * u->exponent);
        fkm_exact_add(&u->squares, (fkm_i128)task->square_high, 64 - 2 * u->exponent);
    }
}

void fkm_update_add(
    fkm_update *u, const void *x, const int32_t *labels, int64_t count, bool squares)
{
    sort_rows(u, NULL, labels, count);
    add_entries(u, x, squares);
}

void fkm_update_change(
    fkm_update *u, const void *x, const int32_t *old, const int32_t *labels, int64_t count)
{
    sort_rows(u, old, labels, count);
    add_entries(u, x, false);
}

typedef struct inertia_job {
    const fkm_update *u;
    const float *c;
    int32_t tasks;
} inertia_job;

static const void *sum_of(const fkm_update *u, int32_t j)
{
    return (const char *)u->sum + (size_t)j * (size_t)u->dims * sum_size(u->wide);
}

static void inertia_task(void *arg, int64_t index, int worker)
{
    (void)worker;
    const inertia_job *job = arg;
    const fkm_update *u = job->u;
    fkm_exact *part = &u->tasks[index].square_wide;
    memset(part, 0, sizeof *part);
    int32_t begin = (int32_t)((int64_t)u->clusters * index / job->tasks);
    int32_t end = (int32_t)((int64_t)u->clusters * (index + 1) / job->tasks);
    for (int32_t j = begin; j < end; j++)
        if (u->count[j])
            fkm_inertia_add(part, job->c + (int64_t)j * u->dims, sum_of(u, j), u->wide, u->count[j],
                u->dims, u->exponent);
}

double fkm_update_inertia(fkm_update *u, const float *c)
{
    inertia_job job = {.u = u, .c = c, .tasks = u->task_count};
    fkm_pool_for(u->pool, job.tasks, inertia_task, &job);
    fkm_exact total = u->squares;
    for (int32_t i = 0; i < job.tasks; i++)
        fkm_exact_merge(&total, &u->tasks[i].square_wide);
    return fkm_exact_round(&total);
}

typedef struct move_job {
    const fkm_update *u;
    float *c;
    double *shift;
} move_job;

static void move_task(void *arg, int64_t index, int worker)
{
    (void)worker;
    const move_job *job = arg;
    const fkm_update *u = job->u;
    int32_t begin = (int32_t)((int64_t)u->clusters * index / u->task_count);
    int32_t end = (int32_t)((int64_t)u->clusters * (index + 1) / u->task_count);
    for (int32_t j = begin; j < end; j++) {
        job->shift[j] = 0;
        if (u->count[j] == 0)
            continue;
        double n = (double)u->count[j], scale = ldexp(1, -u->exponent), square = 0;
        const void *sum = sum_of(u, j);
        float *row = job->c + (int64_t)j * u->dims;
        for (int32_t t = 0; t < u->dims; t++) {
            double s =
                u->wide ? (double)((const fkm_i128 *)sum)[t] : (double)((const int64_t *)sum)[t];
            float mean = (float)(s / n * scale); /* by a power of two: rounded once */
            double moved = (double)mean - (double)row[t];
            square += moved * moved;
            row[t] = mean;
        }
        job->shift[j] = sqrt(square);
    }
}

double fkm_update_move(const fkm_update *u, float *c, double *shift)
{
    move_job job = {u, c, shift};
    double largest = 0;
    fkm_pool_for(u->pool, u->task_count, move_task, &job);
    for (int32_t j = 0; j < u->clusters; j++)
        largest = fmax(largest, shift[j]);
    return largest;
}
