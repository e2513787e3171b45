/* Medians of rates and of Lloyd's iteration: see measure.h. */
#include "measure.h"

#include "base/checked.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/sysinfo.h"
#include "lanes.h"
#include "plan.h"
#include "rng.h"
#include "scan.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WARM_UP 2
#define COLD_SAMPLES 3
#define BATCH_ROUNDS 5            /* iterations of each problem in a sample of a batch */
#define MADE_ROWS ((int64_t)4096) /* at a time, by a thread */
#define CHECKED_ROWS 64
#define NOISY 0.75 /* of the best */
#define FILE_BUFFER ((int64_t)4 << 20)

static_assert(FKM_MEASURE_SAMPLES <= FKM_CEILING_SAMPLES, "samples of a ceiling");

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

fkm_spread fkm_spread_of(const double *samples, int32_t count)
{
    double sorted[FKM_CEILING_SAMPLES];
    assert(count >= 1 && count <= FKM_CEILING_SAMPLES);
    memcpy(sorted, samples, (size_t)count * sizeof *samples);
    qsort(sorted, (size_t)count, sizeof *sorted, compare);
    double median = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2;
    return (fkm_spread){median, sorted[0], sorted[count - 1]};
}

fkm_status fkm_measure_begin(fkm_measure *out, const fkm_measure_options *o, fkm_err *e)
{
    memset(out, 0, sizeof *out);
    FKM_TRY(fkm_backend_choose(&out->ops, &out->devices, &o->machine, e));
    int64_t available = fkm_memory_available();
    if (out->ops->gpus)
        FKM_TRY(out->ops->gpus(out->gpus, &out->gpu_count, out->devices, e));
    out->o = *o;
    out->threads = o->machine.threads > 0 ? o->machine.threads : fkm_cpu_count();
    out->memory_bytes = available / 2;
    if (o->machine.memory_bytes > 0)
        out->memory_bytes = fkm_min_i64(o->machine.memory_bytes, available);
    return FKM_OK;
}

/* ---- the machine ---- */

static fkm_spread rates_of(double work, const double *seconds, int32_t count)
{
    double rate[FKM_CEILING_SAMPLES];
    for (int32_t i = 0; i < count; i++)
        rate[i] = work / fmax(seconds[i], 1e-9);
    return fkm_spread_of(rate, count);
}

/* Whatever disturbs a sample makes it slower: the best one is nearest to the truth. The ceiling
 * with all threads comes after that with one, which they can do as well. */
static void judge(fkm_rate *r, fkm_measure *m)
{
    r->best = r->per_second.high;
    r->noisy = r->per_second.median < NOISY * r->best;
    if (r->threads == 1) {
        m->one_thread = r->best;
        m->one_thread_name = r->name;
    } else if (r->name == m->one_thread_name && r->best < m->one_thread) {
        r->best = m->one_thread;
        r->noisy = true;
    }
}

fkm_status fkm_measure_ceiling(fkm_rate *out, fkm_measure *m, int i, fkm_err *e)
{
    fkm_ceiling c;
    const fkm_ceiling_options o = {
        .isa = m->o.machine.isa,
        .threads = m->threads,
        .bytes = fkm_min_i64(m->memory_bytes / 2, m->o.quick ? (int64_t)32 << 20 : INT64_MAX),
        .seconds = m->o.quick ? 0.005 : 0.1,
        .samples = FKM_MEASURE_SAMPLES,
    };
    memset(out, 0, sizeof *out);
    FKM_TRY(m->ops->ceiling(&c, i, &o, e));
    if (!c.name)
        return FKM_OK;
    *out = (fkm_rate){.name = c.name,
        .isa = c.isa,
        .threads = c.threads,
        .in_bytes = c.in_bytes,
        .per_second = rates_of(c.work, c.seconds, c.samples)};
    judge(out, m);
    if (c.over == FKM_OVER_ASSIGN)
        m->assign_ceiling = out->best;
    if (c.over == FKM_OVER_ASSIGN_BYTES)
        m->assign_bytes_ceiling = out->best;
    if (c.over == FKM_OVER_UPDATE)
        m->update_ceiling = out->best;
    return FKM_OK;
}

/* ---- files ---- */

static fkm_status write_noise(int fd, const char *name, char *buffer, int64_t bytes, fkm_err *e)
{
    for (int64_t i = 0; i < FILE_BUFFER; i++)
        buffer[i] = (char)fkm_permute(1, 256, i & 255);
    for (int64_t done = 0; done < bytes;) {
        ssize_t n = write(fd, buffer, (size_t)fkm_min_i64(FILE_BUFFER, bytes - done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return fkm_fail(e, FKM_EFILE, "%s: cannot write: %s", name, strerror(errno));
        done += n;
    }
    if (fdatasync(fd) != 0)
        return fkm_fail(e, FKM_EFILE, "%s: cannot write: %s", name, strerror(errno));
    return FKM_OK;
}

/* *out = a new file, open for reading, that has no name any more. */
static fkm_status open_temporary(
    fkm_file **out, const char *directory, char *buffer, int64_t bytes, fkm_err *e)
{
    char *name = NULL;
    fkm_status st = FKM_OK;
    FKM_TRY(fkm_asprintf(&name, e, "%s/fkm-bench-XXXXXX", directory));
    int fd = mkstemp(name);
    if (fd < 0) {
        fkm_fail(e, FKM_EFILE, "%s: cannot create a file: %s", directory, strerror(errno));
        st = fkm_hint(e, "name another directory by TMPDIR, or a file to read: fkm bench FILE");
        goto out;
    }
    st = write_noise(fd, name, buffer, bytes, e);
    close(fd);
    if (st == FKM_OK)
        st = fkm_file_open(out, name, e);
    unlink(name);
out:
    fkm_free(name);
    return st;
}

static fkm_status read_file(double *seconds, fkm_file *f, char *buffer, int64_t bytes, fkm_err *e)
{
    double start = fkm_now();
    for (int64_t at = 0; at < bytes; at += FILE_BUFFER)
        FKM_TRY(fkm_file_read(f, at, buffer, (size_t)fkm_min_i64(FILE_BUFFER, bytes - at), e));
    *seconds = fkm_now() - start;
    return FKM_OK;
}

fkm_status fkm_measure_file(fkm_rate out[2], int64_t *bytes, const fkm_measure *m, const char *path,
    const char *directory, fkm_err *e)
{
    static const char *const names[2] = {"file read, from storage", "file read, from cache"};
    double seconds[FKM_MEASURE_SAMPLES];
    char *buffer = NULL;
    fkm_file *f = NULL;
    fkm_status st = FKM_OK;
    FKM_TRY(fkm_alloc(&buffer, FILE_BUFFER, 1, "a buffer for reading", e));
    if (path) {
        FKM_GO(fkm_file_open(&f, path, e));
        if (fkm_file_bytes(f) == 0) {
            st = fkm_fail(e, FKM_EDATA, "%s: is empty, there is nothing to read", path);
            goto out;
        }
        *bytes = fkm_min_i64(fkm_file_bytes(f), m->o.quick ? (int64_t)64 << 20 : (int64_t)1 << 30);
    } else {
        int64_t room = fkm_free_space(directory);
        *bytes = m->o.quick ? (int64_t)8 << 20 : (int64_t)256 << 20;
        *bytes = room < 0 ? *bytes : fkm_max_i64(1, fkm_min_i64(*bytes, room / 4));
        FKM_GO(open_temporary(&f, directory, buffer, *bytes, e));
    }
    for (int cached = 0; cached < 2; cached++) {
        for (int i = 0; i < FKM_MEASURE_SAMPLES; i++) {
            if (!cached) /* advice: what comes of it shows in the figures */
                (void)posix_fadvise(fkm_file_descriptor(f), 0, 0, POSIX_FADV_DONTNEED);
            FKM_GO(read_file(&seconds[i], f, buffer, *bytes, e));
        }
        out[cached] = (fkm_rate){.name = names[cached],
            .threads = 1,
            .in_bytes = true,
            .per_second = rates_of((double)*bytes, seconds, FKM_MEASURE_SAMPLES)};
        out[cached].best =
            out[cached].per_second.median; /* no ceiling: what storage usually does */
    }
out:
    fkm_file_close(f);
    fkm_free(buffer);
    return st;
}

/* ---- made-up data ---- */

static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* Nearly normal with variance 1: the sum of four uniform numbers, 16 bits each. */
static float normal(uint64_t bits)
{
    int32_t sum = (int32_t)(bits & 0xffff) + (int32_t)(bits >> 16 & 0xffff) +
                  (int32_t)(bits >> 32 & 0xffff) + (int32_t)(bits >> 48);
    return (float)(sum - 2 * 0xffff) * (1.7320508f / 65536);
}

/* To nearest even; finite and below 65520 in magnitude. */
static uint16_t to_half(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    uint32_t sign = u >> 16 & 0x8000, rest = u & 0x7fffffff;
    if (rest < 0x38800000) /* subnormal: in units of 2^-24 */
        return (uint16_t)(sign | (uint32_t)lrintf(fabsf(f) * 0x1p24f));
    return (uint16_t)(sign | (rest - 0x38000000 + 0xfff + (rest >> 13 & 1)) >> 13);
}

static uint16_t to_bfloat(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static void put(void *x, fkm_dtype dtype, int64_t at, float v)
{
    switch (dtype) {
    case FKM_U8:
        ((uint8_t *)x)[at] = (uint8_t)fminf(fmaxf(128 + 30 * v, 0), 255);
        break;
    case FKM_F16:
        ((uint16_t *)x)[at] = to_half(v);
        break;
    case FKM_BF16:
        ((uint16_t *)x)[at] = to_bfloat(v);
        break;
    default:
        ((float *)x)[at] = v;
    }
}

/* Blobs of variance 1 a coordinate whose centres are about 5.7 apart, whatever the dimension: they
 * touch, so that rows go on moving for some iterations. */
void fkm_make_blobs(void *x, const fkm_bench_shape *s, int64_t row0, int64_t rows, uint64_t seed)
{
    const uint64_t step = UINT64_C(0x9e3779b97f4a7c15);
    const float apart = 4 / sqrtf((float)s->dims);
    for (int64_t i = 0; i < rows; i++) {
        uint64_t noise = mix(seed ^ mix((uint64_t)(row0 + i) + 1));
        uint64_t center = mix(seed + step * (1 + noise % (uint64_t)s->clusters));
        for (int32_t t = 0; t < s->dims; t++) {
            float v = normal(mix(noise += step)) + apart * normal(mix(center += step));
            put(x, s->dtype, i * s->dims + t, s->decaying ? v / sqrtf(1 + (float)t / 8) : v);
        }
    }
}

typedef struct making {
    char *x;
    const fkm_bench_shape *shape;
    uint64_t seed;
} making;

static void make_block(void *arg, int64_t block, int worker)
{
    const making *m = arg;
    const fkm_bench_shape *s = m->shape;
    int64_t row0 = block * MADE_ROWS;
    (void)worker;
    fkm_make_blobs(m->x + (size_t)(row0 * s->dims) * fkm_dtype_size(s->dtype), s, row0,
        fkm_min_i64(MADE_ROWS, s->rows - row0), m->seed);
}

static fkm_status make_rows(
    void *x, const fkm_bench_shape *s, uint64_t seed, int threads, fkm_err *e)
{
    fkm_pool *pool;
    making m = {x, s, seed};
    FKM_TRY(fkm_pool_open(&pool, threads, e));
    fkm_pool_for(pool, (s->rows + MADE_ROWS - 1) / MADE_ROWS, make_block, &m);
    fkm_pool_close(pool);
    return FKM_OK;
}

static void take_rows(float *c, const fkm_bench_shape *s, const void *x, uint64_t seed)
{
    size_t size = fkm_dtype_size(s->dtype);
    for (int32_t j = 0; j < s->clusters; j++) {
        int64_t row = fkm_permute(seed, s->rows, j);
        const char *from = (const char *)x + (size_t)(row * s->dims) * size;
        for (int32_t t = 0; t < s->dims; t++)
            c[(int64_t)j * s->dims + t] = fkm_dtype_to_float(s->dtype, from + (size_t)t * size);
    }
}

/* ---- the definition ---- */

/* Written down once more, apart from the kernels that are being measured. */
static double canonical(const double *x, const float *c, int32_t dims)
{
    double a[8] = {0};
    for (int32_t t = 0; t < dims; t++) {
        double v = x[t] - (double)c[t];
        a[t % 8] += v * v;
    }
    return ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]));
}

static int32_t nearest_to(const double *x, const float *c, int32_t clusters, int32_t dims)
{
    int32_t best = 0;
    double least = INFINITY;
    for (int32_t j = 0; j < clusters; j++) {
        double distance = canonical(x, c + (int64_t)j * dims, dims);
        if (distance < least) {
            least = distance;
            best = j;
        }
    }
    return best;
}

int64_t fkm_find_wrong_label(int32_t *nearest, const fkm_bench_shape *s, const void *x,
    const float *c, const int32_t *labels, int64_t sample, double *row)
{
    int64_t wrong = -1;
    size_t size = fkm_dtype_size(s->dtype);
    *nearest = -1;
    for (int64_t i = 0; i < sample && wrong < 0; i++) {
        int64_t at = i * s->rows / sample;
        const char *from = (const char *)x + (size_t)(at * s->dims) * size;
        for (int32_t t = 0; t < s->dims; t++)
            row[t] = fkm_dtype_to_float(s->dtype, from + (size_t)t * size);
        *nearest = nearest_to(row, c, s->clusters, s->dims);
        if (labels[at] != *nearest)
            wrong = at;
    }
    return wrong;
}

/* ---- a shape ---- */

typedef struct bench {
    const fkm_measure *m;
    fkm_bench_shape shape;
    fkm_plan plan;
    fkm_backend *backend;
    void *x;
    int32_t *labels;
    float *centroids;
    double *row; /* [dims] */
    fkm_scale scale;
} bench;

/* lanes: problems with the same rows. */
static int64_t needed_bytes(const bench *b, int32_t lanes)
{
    const fkm_bench_shape *s = &b->shape;
    int64_t rows = fkm_mul_sat(s->rows, s->dims * (int64_t)fkm_dtype_size(s->dtype));
    int64_t lane = fkm_mul_sat(fkm_mul_sat(s->clusters, s->dims), sizeof *b->centroids);
    lane = fkm_add_sat(lane, fkm_mul_sat(s->rows, sizeof *b->labels));
    lane = fkm_add_sat(lane, b->m->ops->bytes(&b->plan));
    return fkm_add_sat(rows, fkm_mul_sat(lanes, lane));
}

static fkm_status feed_rows(bench *b, const fkm_pass_options *o, fkm_pass *pass, fkm_err *e)
{
    const fkm_bench_shape *s = &b->shape;
    const fkm_backend_ops *ops = b->m->ops;
    size_t row = (size_t)s->dims * fkm_dtype_size(s->dtype);
    FKM_TRY(ops->begin(b->backend, o, e));
    for (int64_t at = 0; at < s->rows; at += b->plan.chunk_rows) {
        fkm_rows rows = {(const char *)b->x + (size_t)at * row, at,
            fkm_min_i64(b->plan.chunk_rows, s->rows - at)};
        FKM_TRY(ops->feed(b->backend, &rows, b->labels + at, NULL, e));
    }
    return ops->end(b->backend, pass, e);
}

/* A pass as the engine makes it in an iteration. The first with a scale that is new (`squares`)
 * collects what inertia needs of the rows alone; `cold`: no row has a label. */
static fkm_status make_pass(bench *b, bool squares, bool cold, fkm_pass *pass, fkm_err *e)
{
    const fkm_pass_options o = {
        .update = true, .squares = squares, .labels_later = true, .unlabelled = cold};
    return feed_rows(b, &o, pass, e);
}

/* One iteration as the engine does it: label, sum, move. */
static fkm_status iterate(
    bench *b, bool squares, bool cold, double *seconds, fkm_pass *pass, fkm_err *e)
{
    double start = fkm_now(), shift;
    FKM_TRY(make_pass(b, squares, cold, pass, e));
    FKM_TRY(b->m->ops->move(b->backend, &shift, e));
    *seconds = fkm_now() - start;
    return FKM_OK;
}

/* Before a pass that knows nothing of earlier ones. */
static fkm_status cool_down(bench *b, uint64_t seed, fkm_err *e)
{
    take_rows(b->centroids, &b->shape, b->x, seed);
    memset(b->labels, -1, (size_t)b->shape.rows * sizeof *b->labels);
    FKM_TRY(b->m->ops->set_centroids(b->backend, b->centroids, e));
    return b->m->ops->set_scale(b->backend, b->scale, e);
}

/* The start given by `seed`, and its first iterations. */
static fkm_status warm_up(bench *b, uint64_t seed, fkm_speed *out, fkm_err *e)
{
    fkm_pass pass;
    double s;
    b->m->ops->reset(b->backend);
    FKM_TRY(cool_down(b, seed, e));
    for (int32_t i = 0; i < WARM_UP; i++) {
        FKM_TRY(iterate(b, i == 0, i == 0, &s, &pass, e));
        out->first_s = i == 0 ? s : out->first_s;
    }
    return FKM_OK;
}

/* What the last pass of a problem has shown. */
static void note_pass(fkm_speed *out, const bench *b, const fkm_pass *pass)
{
    out->candidates_per_row = (double)pass->candidates / (double)b->shape.rows;
    out->settled_by_bounds = (double)pass->skipped_by_bounds / (double)b->shape.rows;
}

typedef struct samples {
    int32_t count;
    double of[FKM_PARTS][FKM_MEASURE_SAMPLES];
} samples;

static void add_sample(samples *to, double seconds, const fkm_pass *pass)
{
    to->of[FKM_ITERATION][to->count] = seconds;
    to->of[FKM_ASSIGN][to->count] = pass->assign_s;
    to->of[FKM_UPDATE][to->count] = pass->assign_s > 0 ? seconds - pass->assign_s : 0;
    to->of[FKM_SUMS][to->count] = pass->sums_s;
    to->count++;
}

static void spread_samples(fkm_spread out[FKM_PARTS], const samples *s)
{
    for (int part = 0; part < FKM_PARTS; part++)
        out[part] = fkm_spread_of(s->of[part], s->count);
}

/* From the start given by `seed`: warm-up, then samples as long as rows move. */
static fkm_status run_lloyd(bench *b, uint64_t seed, fkm_speed *out, samples *to, fkm_err *e)
{
    fkm_pass pass;
    double s;
    FKM_TRY(warm_up(b, seed, out, e));
    /* A start that is near its fixpoint is measured once: there is nothing else. */
    do {
        FKM_TRY(iterate(b, false, false, &s, &pass, e));
        add_sample(to, s, &pass);
    } while (to->count < FKM_MEASURE_SAMPLES && pass.moved > 0);
    note_pass(out, b, &pass);
    return FKM_OK;
}

/* The first pass again and again, on rows that are where they were. Their squares are known: the
 * scale is the same. */
static fkm_status run_cold(bench *b, fkm_speed *out, fkm_err *e)
{
    samples of = {0};
    fkm_pass pass;
    double s;
    while (of.count < COLD_SAMPLES) {
        FKM_TRY(cool_down(b, b->m->o.seed, e));
        FKM_TRY(iterate(b, false, true, &s, &pass, e));
        add_sample(&of, s, &pass);
    }
    spread_samples(out->cold, &of);
    return FKM_OK;
}

/* The labels of one more pass, of the same kind as those that were timed, held against the
 * definition. */
static fkm_status check(bench *b, fkm_speed *out, fkm_err *e)
{
    fkm_pass pass;
    const fkm_bench_shape *s = &b->shape;
    int32_t nearest;
    FKM_TRY(make_pass(b, false, false, &pass, e));
    FKM_TRY(b->m->ops->labels(b->backend, b->labels, e));
    FKM_TRY(b->m->ops->get_centroids(b->backend, b->centroids, NULL, e));
    out->isa = b->m->ops->isa(b->backend); /* it may have chosen another one on the way */
    out->checked_rows = fkm_min_i64(CHECKED_ROWS, s->rows);
    int64_t wrong =
        fkm_find_wrong_label(&nearest, s, b->x, b->centroids, b->labels, out->checked_rows, b->row);
    if (wrong < 0)
        return FKM_OK;
    fkm_fail(e, FKM_EBUG, "%lld x %d, k=%d, isa %s: row %lld has label %d, its nearest is %d",
        (long long)s->rows, s->dims, s->clusters, out->isa, (long long)wrong, b->labels[wrong],
        nearest);
    return fkm_hint(e, "no figures are given for wrong answers; please report this");
}

/* The rows, and the scale of their sums. */
static fkm_status make_data(bench *b, fkm_err *e)
{
    const fkm_bench_shape *s = &b->shape;
    fkm_scan scan;
    FKM_TRY(make_rows(b->x, s, b->m->o.seed, b->m->threads, e));
    if (s->dtype == FKM_U8) /* 8-bit values are summed exactly as they are */
        return FKM_OK;
    fkm_scan_init(&scan);
    fkm_scan_add(&scan, b->x, s->dtype, 0, s->rows, s->dims);
    return fkm_scale_choose(&b->scale, &scan, s->rows, NULL, 0, e);
}

static fkm_status run_bench(bench *b, fkm_speed *out, fkm_err *e)
{
    samples of = {0};
    for (uint64_t seed = b->m->o.seed; of.count < FKM_MEASURE_SAMPLES; seed++)
        FKM_TRY(run_lloyd(b, seed, out, &of, e));
    spread_samples(out->warm, &of);
    FKM_TRY(check(b, out, e));
    return run_cold(b, out, e);
}

/* ---- a batch ---- */

typedef struct batch_bench {
    bench *lane;
    fkm_lanes lanes;
    int32_t rounds; /* iterations of a sample */
    bool cold;
    atomic_int ready;
    double begin_s[FKM_MOST_LANES], end_s[FKM_MOST_LANES];
    fkm_pass pass[FKM_MOST_LANES]; /* the last one of each */
} batch_bench;

/* A lane's part of a sample: all begin at once. */
static fkm_status run_part(void *arg, int32_t lane, int64_t problem, fkm_err *e)
{
    batch_bench *bb = arg;
    double s;
    (void)lane;
    atomic_fetch_add(&bb->ready, 1);
    while (bb->ready < bb->lanes.count && !fkm_lanes_is_over(&bb->lanes, problem))
        sched_yield();
    bb->begin_s[problem] = fkm_now();
    for (int32_t i = 0; i < bb->rounds; i++)
        FKM_TRY(iterate(&bb->lane[problem], false, bb->cold, &s, &bb->pass[problem], e));
    bb->end_s[problem] = fkm_now();
    return FKM_OK;
}

static bool none_is_done(void *arg, int64_t problem)
{
    (void)arg;
    (void)problem;
    return false;
}

/* *seconds: an iteration of all problems. Each lane has been warmed up, or cooled down. */
static fkm_status sample_batch(batch_bench *bb, int32_t lanes, double *seconds, fkm_err *e)
{
    bb->lanes = (fkm_lanes){
        .count = lanes, .problems = lanes, .arg = bb, .is_done = none_is_done, .solve = run_part};
    bb->ready = 0;
    fkm_lanes_open(&bb->lanes);
    fkm_status st = fkm_lanes_run(&bb->lanes, e);
    fkm_lanes_close(&bb->lanes);
    double begin = INFINITY, end = 0;
    for (int32_t i = 0; i < lanes; i++) {
        begin = fmin(begin, bb->begin_s[i]);
        end = fmax(end, bb->end_s[i]);
    }
    *seconds = (end - begin) / bb->rounds * bb->lane[0].shape.batch / lanes;
    return st;
}

static fkm_status run_batch(batch_bench *bb, fkm_speed *out, fkm_err *e)
{
    double warm[FKM_MEASURE_SAMPLES], cold[COLD_SAMPLES];
    int32_t lanes = out->side_by_side;
    uint64_t seed = bb->lane[0].m->o.seed;
    bb->rounds = BATCH_ROUNDS;
    for (int32_t i = 0; i < FKM_MEASURE_SAMPLES; i++) {
        for (int32_t l = 0; l < lanes; l++)
            FKM_TRY(warm_up(&bb->lane[l], seed++, out, e));
        FKM_TRY(sample_batch(bb, lanes, &warm[i], e));
    }
    note_pass(out, &bb->lane[0], &bb->pass[0]);
    for (int32_t l = 0; l < lanes; l++)
        FKM_TRY(check(&bb->lane[l], out, e));
    bb->rounds = 1;
    bb->cold = true;
    for (int32_t i = 0; i < COLD_SAMPLES; i++) {
        for (int32_t l = 0; l < lanes; l++)
            FKM_TRY(cool_down(&bb->lane[l], seed + (uint64_t)l, e));
        FKM_TRY(sample_batch(bb, lanes, &cold[i], e));
    }
    out->warm[FKM_ITERATION] = fkm_spread_of(warm, FKM_MEASURE_SAMPLES);
    out->cold[FKM_ITERATION] = fkm_spread_of(cold, COLD_SAMPLES);
    return FKM_OK;
}

/* ---- a shape, or a batch of it ---- */

/* Allocates what a lane has of its own; x: the rows, of all. */
static fkm_status open_bench(bench *b, void *x, fkm_err *e)
{
    const fkm_bench_shape *s = &b->shape;
    b->x = x;
    FKM_TRY(b->m->ops->open(&b->backend, &b->plan, e));
    FKM_TRY(fkm_alloc(&b->labels, s->rows, sizeof *b->labels, "labels", e));
    FKM_TRY(
        fkm_alloc(&b->centroids, (int64_t)s->clusters * s->dims, sizeof(float), "centroids", e));
    return fkm_alloc(&b->row, s->dims, sizeof *b->row, "a row", e);
}

static void close_bench(bench *b)
{
    if (b->backend)
        b->m->ops->close(b->backend);
    fkm_free(b->labels);
    fkm_free(b->centroids);
    fkm_free(b->row);
}

/* As the engine plans a problem whose rows stay in memory: with copies of the rows and bounds where
 * there is room for them. */
static void plan_alone(bench *b)
{
    const fkm_measure *m = b->m;
    const fkm_bench_shape *s = &b->shape;
    b->plan = (fkm_plan){
        .rows = s->rows,
        .chunk_rows = fkm_min_i64(s->rows, m->ops->chunk_rows),
        .dims = s->dims,
        .clusters = s->clusters,
        .dtype = s->dtype,
        .keep = true,
        .bounds = true,
        .update = true,
        .top = 1,
        .threads = m->threads,
        .isa = m->o.machine.isa,
        .devices = m->devices,
        .device_bytes = m->o.machine.gpu_memory_bytes,
    };
    if (needed_bytes(b, 1) > m->memory_bytes)
        b->plan.keep = false;
    if (needed_bytes(b, 1) > m->memory_bytes)
        b->plan.bounds = false;
}

/* How many problems are at work at a time, within the memory. *b: as alone, in; of a lane, out. */
static fkm_status choose_lanes(fkm_run_plan *run, bench *b, fkm_err *e)
{
    const fkm_measure *m = b->m;
    const fkm_plan alone = b->plan;
    *run = (fkm_run_plan){.lanes = 1, .gpu_count = m->gpu_count};
    memcpy(run->gpus, m->gpus, sizeof run->gpus);
    fkm_sharing sharing = {.lanes = FKM_MOST_LANES + 1};
    while (b->shape.batch > 1 && sharing.lanes > 2) {
        FKM_TRY(m->ops->share(&sharing, &alone, NULL, b->shape.batch, sharing.lanes - 1, e));
        if (sharing.lanes == 1)
            break;
        b->plan.threads = sharing.threads;
        if (sharing.device_bytes > 0)
            b->plan.device_bytes = sharing.device_bytes;
        run->lanes = sharing.lanes;
        run->lane_gpus = sharing.one_device_each;
        if (needed_bytes(b, run->lanes) <= m->memory_bytes)
            return FKM_OK;
    }
    b->plan = alone;
    run->lanes = 1;
    run->lane_gpus = false;
    return FKM_OK;
}

fkm_status fkm_measure_shape(
    fkm_speed *out, const fkm_measure *m, const fkm_bench_shape *shape, fkm_err *e)
{
    bench b = {.m = m, .shape = *shape};
    batch_bench bb = {.lane = NULL};
    fkm_run_plan run;
    fkm_status st = FKM_OK;
    void *x = NULL;
    bool pinned = false;
    char device[FKM_MOST_LANES][16];
    memset(out, 0, sizeof *out);
    out->shape = *shape;
    out->flop = 2.0 * (double)shape->rows * shape->dims * shape->clusters * shape->batch;
    plan_alone(&b);
    FKM_TRY(choose_lanes(&run, &b, e));
    out->side_by_side = run.lanes;
    out->needed_bytes = needed_bytes(&b, run.lanes);
    out->skipped = out->needed_bytes > m->memory_bytes;
    if (out->skipped)
        return FKM_OK;
    out->bytes = shape->rows * shape->dims * (int64_t)fkm_dtype_size(shape->dtype);
    FKM_GO(fkm_alloc(&x, out->bytes, 1, "rows", e));
    FKM_GO(fkm_calloc(&bb.lane, run.lanes, sizeof *bb.lane, "problems side by side", e));
    for (int32_t i = 0; i < run.lanes; i++) {
        bb.lane[i] = b;
        fkm_plan_of_lane(&bb.lane[i].plan, device[i], &run, i);
        FKM_GO(open_bench(&bb.lane[i], x, e));
    }
    FKM_GO(make_data(&bb.lane[0], e));
    if (m->ops->pin && m->ops->streams(bb.lane[0].backend))
        pinned = m->ops->pin(x, (size_t)out->bytes);
    for (int32_t i = 1; i < run.lanes; i++)
        bb.lane[i].scale = bb.lane[0].scale;
    st = shape->batch > 1 ? run_batch(&bb, out, e) : run_bench(&bb.lane[0], out, e);
out:
    for (int32_t i = 0; bb.lane && i < run.lanes; i++)
        close_bench(&bb.lane[i]);
    if (pinned)
        m->ops->unpin(x);
    fkm_free(bb.lane);
    fkm_free(x);
    return st;
}
