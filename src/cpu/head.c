/* Quicker ways of screening: see head.h. */
#include "head.h"

#include "../base/checked.h"
#include "../base/log.h"
#include "../base/mem.h"
#include "doubt.h"
#include "pack.h"

#include <math.h>
#include <string.h>

enum { SAMPLE = 1024, PROBE = 128, KERNEL_SAMPLE = 256, ROUNDS = 3 };

/* Cycles of a pass, at least: to try coarse kernels costs a hundredth of that; to look for axes, a
 * few tenths of a second. */
#define LEAST_CYCLES 5e7
#define LEAST_HEAD_CYCLES 1.4e8

/* What is quicker must win by so much. Where packing costs more, clearly: rows are turned for a
 * head; they are rounded, for a pass alone, where others are taken as they are. */
#define LEAST_GAIN 0.6
#define LEAST_COARSE 0.9
#define LEAST_COARSE_COLD 0.7
#define PROBE_SLACK 1.5

/* Axes are looked for when variance lies in few directions (of a sample's every 8th row). */
#define SPREAD_STRIDE 8
#define MOST_SPREAD 64

/* Longest first: a length that does not pay is not made better by leaving more out. */
static const int32_t lengths[] = {192, 128, 96, 64};
#define LENGTHS (int)(sizeof lengths / sizeof lengths[0])

static int32_t most_of(const fkm_kernels *k, int32_t dims, bool heads)
{
    return heads ? fkm_head_most(k, dims) : 0;
}

bool fkm_head_suits(const fkm_kernels *k, int32_t dims, bool heads)
{
    return fkm_kernels_coarse(k, dims) || most_of(k, dims, heads) > 0;
}

int64_t fkm_head_bytes(const fkm_kernels *k, int32_t dims, bool heads)
{
    int64_t most = most_of(k, dims, heads), lists = 8 * (int64_t)SAMPLE + 4096;
    if (most == 0)
        return lists;
    return 4 * (most * dims + dims + most + 2 * (int64_t)SAMPLE * dims + 2 * SAMPLE * most) + lists;
}

static fkm_status open_axes(fkm_head *h, fkm_err *e)
{
    static const char what[] = "principal axes";
    const int64_t dims = h->dims;
    FKM_TRY(fkm_alloc(&h->axes, h->most * dims, sizeof(float), what, e));
    FKM_TRY(fkm_alloc(&h->sample, SAMPLE * dims, sizeof(float), what, e));
    FKM_TRY(fkm_alloc(&h->across, SAMPLE * dims, sizeof(float), what, e));
    FKM_TRY(fkm_alloc(&h->products, (int64_t)SAMPLE * h->most, sizeof(float), what, e));
    FKM_TRY(fkm_alloc(&h->turned, (int64_t)SAMPLE * h->most, sizeof(float), what, e));
    FKM_TRY(fkm_calloc(&h->zero, dims, sizeof(float), what, e));
    return fkm_alloc(&h->gram, h->most, sizeof(float), what, e);
}

fkm_status fkm_head_open(fkm_head *h, const fkm_kernels *k, int32_t dims, bool heads, bool kept,
    int32_t block_rows, fkm_err *e)
{
    static const char what[] = "a sample of rows";
    fkm_status st = FKM_OK;
    memset(h, 0, sizeof *h);
    h->dims = dims;
    h->fine = k;
    h->block_rows = block_rows;
    h->kept = kept;
    h->most = most_of(k, dims, heads);
    if (h->most > 0)
        FKM_GO(open_axes(h, e));
    FKM_GO(fkm_alloc(&h->list, SAMPLE, sizeof *h->list, what, e));
    FKM_GO(fkm_alloc(&h->saved, SAMPLE, sizeof *h->saved, what, e));
    return FKM_OK;
out:
    fkm_head_close(h);
    return st;
}

void fkm_head_close(fkm_head *h)
{
    fkm_free(h->axes);
    fkm_free(h->sample);
    fkm_free(h->across);
    fkm_free(h->products);
    fkm_free(h->turned);
    fkm_free(h->zero);
    fkm_free(h->gram);
    fkm_free(h->list);
    fkm_free(h->saved);
    memset(h, 0, sizeof *h);
}

/* ---- axes ---- */

static double dot(const float *a, const float *b, int32_t n)
{
    double part[4] = {0};
    for (int32_t t = 0; t < n; t++)
        part[t & 3] += (double)a[t] * b[t];
    return part[0] + part[1] + part[2] + part[3];
}

/* Makes the axes orthonormal, twice over against rounding; an axis that vanishes becomes zero. */
static void orthonormalise(fkm_head *h, const fkm_kernels *k)
{
    for (int32_t a = 0; a < h->most; a++) {
        float *v = h->axes + (int64_t)a * h->dims;
        for (int round = 0; round < 2; round++) {
            for (int32_t b = 0; b < a; b++) {
                const float *w = h->axes + (int64_t)b * h->dims;
                float along = k->dot(v, h->zero, 1, w, h->dims);
                for (int32_t t = 0; t < h->dims; t++)
                    v[t] -= along * w[t];
            }
            double length = sqrt(dot(v, v, h->dims));
            float scale = length > 1e-12 ? (float)(1 / length) : 0;
            for (int32_t t = 0; t < h->dims; t++)
                v[t] *= scale;
        }
    }
}

/* gram[n - 1] >= |A A' - 1| for the first n axes: the Frobenius norm. Zero axes, of data that is
 * flat in so many directions, count as errors of 1: a head with them is of no use. */
static void measure_gram(fkm_head *h)
{
    double sum = 0;
    for (int32_t a = 0; a < h->most; a++) {
        const float *v = h->axes + (int64_t)a * h->dims;
        for (int32_t b = 0; b <= a; b++) {
            double g = dot(v, h->axes + (int64_t)b * h->dims, h->dims);
            double error = a == b ? g - 1 : g;
            sum += (a == b ? 1 : 2) * error * error;
        }
        h->gram[a] = (float)(sqrt(sum) * (1 + 0x1p-20)) + 0x1p-40f;
    }
}

static void transpose(float *out, const float *x, int32_t rows, int32_t columns)
{
    for (int32_t r = 0; r < rows; r++)
        for (int32_t c = 0; c < columns; c++)
            out[(int64_t)c * rows + r] = x[(int64_t)r * columns + c];
}

/* Simultaneous iteration: the span turns towards the directions of largest variance, and
 * Gram-Schmidt in order keeps them roughly sorted. Nothing rests on how well it converges. */
static void find_axes(fkm_head *h, const fkm_kernels *k)
{
    transpose(h->across, h->sample, SAMPLE, h->dims);
    memcpy(h->axes, h->sample, (size_t)h->most * (size_t)h->dims * sizeof(float));
    orthonormalise(h, k);
    for (int round = 0; round < ROUNDS; round++) {
        k->rotate(h->products, h->sample, SAMPLE, h->dims, h->axes, h->most);
        transpose(h->turned, h->products, SAMPLE, h->most);
        k->rotate(h->axes, h->turned, h->most, SAMPLE, h->across, h->dims);
        orthonormalise(h, k);
    }
    measure_gram(h);
}

/* ---- choice ---- */

static int64_t sample_row(const fkm_assign_job *job, int32_t i)
{
    return job->count * i / SAMPLE;
}

/* Every stride-th row of the sample. */
static void take_sample(fkm_head *h, const fkm_tiles *t, const fkm_assign_job *job, int32_t stride)
{
    size_t item = fkm_dtype_size(job->dtype);
    for (int32_t i = 0; i < SAMPLE; i += stride) {
        const char *row =
            (const char *)job->x + (size_t)sample_row(job, i) * (size_t)h->dims * item;
        bool good = true;
        for (int32_t d = 0; d < h->dims; d++) {
            float v =
                fkm_dtype_to_float(job->dtype, row + (size_t)d * item) * t->scale - t->shift[d];
            h->sample[(int64_t)i * h->dims + d] = v;
            good = good && fabsf(v) < 1e6f;
        }
        if (!good) /* NaN, or far outside: no guide */
            memset(h->sample + (int64_t)i * h->dims, 0, (size_t)h->dims * sizeof(float));
    }
}

/* How many directions the sample's variance is spread over: (sum of variances)^2 / sum of their
 * squares, the latter from products of pairs of rows. */
static double spread(const fkm_head *h, const fkm_kernels *k)
{
    double square = 0, product = 0;
    for (int32_t i = 0; i < SAMPLE; i += SPREAD_STRIDE) {
        const float *x = h->sample + (int64_t)i * h->dims;
        square += k->dot(x, h->zero, 1, x, h->dims);
        for (int32_t j = 0; j < i; j += SPREAD_STRIDE) {
            double p = k->dot(x, h->zero, 1, h->sample + (int64_t)j * h->dims, h->dims);
            product += p * p;
        }
    }
    const double n = SAMPLE / SPREAD_STRIDE;
    double mean = square / n, pair = product / (n * (n - 1) / 2);
    return pair > 0 ? mean * mean / pair : 0;
}

/* Cycles a row of screening in the present frame, from what it does to `sampled` rows of the
 * sample: multiply-adds at the kernel's rate, and doubts. */
static double cost(fkm_head *h, const fkm_tiles *t, const fkm_assign_job *job,
    fkm_assign_scratch *s, int32_t sampled)
{
    fkm_assign_job trial = *job;
    const int32_t block = h->block_rows;
    const fkm_assign_counts before = s->counts;
    memset(&s->counts, 0, sizeof s->counts);
    for (int32_t i = 0; i < sampled; i++) {
        h->list[i] = (int32_t)sample_row(job, i * (SAMPLE / sampled));
        h->saved[i] = job->labels[h->list[i]];
    }
    trial.list = h->list;
    trial.count = sampled;
    trial.upper = trial.lower = NULL;
    trial.distances = NULL;
    trial.trial = true;
    for (int32_t first = 0; first < sampled; first += block)
        fkm_assign_block(&trial, s, first, sampled - first < block ? sampled - first : block);
    for (int32_t i = 0; i < sampled; i++)
        job->labels[h->list[i]] = h->saved[i];
    double steps = (double)fkm_round_up(t->screened, t->kernels->dim_step) * t->clusters;
    double doubts = s->counts.rows > 0 ? fkm_doubt_cycles(t, &s->counts) : 0;
    s->counts = before;
    return steps / t->kernels->rate + doubts;
}

static void use_kernels(
    fkm_tiles *t, const fkm_kernels *k, const fkm_assign_job *job, fkm_pool *pool)
{
    if (t->kernels == k)
        return;
    fkm_tiles_use(t, k);
    fkm_tiles_set(t, job->centroids, 1, pool);
}

/* Takes the coarse kernels if they cost less than `share` of what the others do; keeps them if they
 * still cost less at all: first centroids, of random rows, are farther apart than means are.
 * Returns what screening by all dims costs then. */
static double choose_kernels(fkm_head *h, fkm_tiles *t, const fkm_assign_job *job, double share,
    fkm_assign_scratch *s, fkm_pool *pool)
{
    const fkm_kernels *coarse = fkm_kernels_coarse(h->fine, t->dims);
    const double most = t->kernels == coarse ? 1 : share;
    use_kernels(t, h->fine, job, pool);
    const double fine = cost(h, t, job, s, KERNEL_SAMPLE);
    if (!coarse)
        return fine;
    use_kernels(t, coarse, job, pool);
    const double rounded = cost(h, t, job, s, KERNEL_SAMPLE);
    if (rounded < most * fine)
        return rounded;
    use_kernels(t, h->fine, job, pool);
    return fine;
}

/* The length of the head that costs least, 0: none is below `least`. */
static int32_t choose_length(
    fkm_head *h, fkm_tiles *t, const fkm_assign_job *job, fkm_assign_scratch *s, double least)
{
    int32_t best = 0;
    for (int i = 0; i < LENGTHS; i++) {
        if (lengths[i] > h->most || h->gram[lengths[i] - 1] > 0.01f)
            continue;
        fkm_tiles_turn(t, h->axes, lengths[i], h->gram[lengths[i] - 1]);
        fkm_tiles_set(t, job->centroids, 1, NULL);
        if (cost(h, t, job, s, PROBE) > PROBE_SLACK * least)
            break; /* rows to rescan are what a trial spends its time on: a few will tell */
        double now = cost(h, t, job, s, SAMPLE);
        if (now >= least)
            break;
        least = now;
        best = lengths[i];
    }
    return best;
}

/* Enough rows to learn from, and to make up for it? cycles: of a pass, at least. */
static bool worth_trying(const fkm_head *h, const fkm_assign_job *job, int64_t rows, double cycles)
{
    const fkm_tiles *t = job->tiles;
    return job->count >= 4 * SAMPLE &&
           (double)rows * t->clusters * t->dims >= cycles * (double)h->fine->rate;
}

/* What coarse kernels may cost, at most, of what the others do. */
static double least_coarse(const fkm_head *h, bool kept)
{
    return kept || h->fine->low ? LEAST_COARSE : LEAST_COARSE_COLD;
}

void fkm_head_begin(fkm_head *h, fkm_tiles *t, const fkm_assign_job *job, int64_t rows,
    fkm_assign_scratch *s, fkm_pool *pool)
{
    h->begun = true;
    if (fkm_kernels_coarse(h->fine, t->dims) && worth_trying(h, job, rows, LEAST_CYCLES))
        (void)choose_kernels(h, t, job, least_coarse(h, false), s, pool);
}

void fkm_head_decide(fkm_head *h, fkm_tiles *t, const fkm_assign_job *job, int64_t rows,
    fkm_assign_scratch *s, fkm_pool *pool)
{
    int32_t best = 0;
    h->decided = true;
    if (!worth_trying(h, job, rows, LEAST_CYCLES))
        return;
    double all = choose_kernels(h, t, job, least_coarse(h, h->kept), s, pool);
    const fkm_kernels *chosen = t->kernels;
    const bool heads = h->most > 0 && worth_trying(h, job, rows, LEAST_HEAD_CYCLES);
    if (heads)
        take_sample(h, t, job, SPREAD_STRIDE);
    if (heads && spread(h, t->kernels) < MOST_SPREAD) {
        take_sample(h, t, job, 1);
        find_axes(h, t->kernels);
        fkm_tiles_use(t, h->fine);
        best = choose_length(h, t, job, s, LEAST_GAIN * all);
        if (best) {
            fkm_tiles_turn(t, h->axes, best, h->gram[best - 1]);
        } else {
            fkm_tiles_turn(t, NULL, 0, 0);
            fkm_tiles_use(t, chosen);
        }
        fkm_tiles_set(t, job->centroids, 1, pool);
    }
    fkm_verbose("screening: %d of %d dims, %s", t->screened, t->dims,
        t->kernels == h->fine ? "as the instruction set has it" : "rounded to 8-bit integers");
}
