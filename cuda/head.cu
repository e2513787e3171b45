/* Screening by fewer coordinates: see head.cuh. Host code: axes take 2 GFLOP, once a problem. */
#include "head.cuh"

#include "pack.cuh"

extern "C" {
#include "../src/base/mem.h"
#include "../src/base/pool.h"
}

#include <math.h>
#include <string.h>

enum { LEAST_DIMS = 2 * FKM_HEAD_MOST, MOST_DIMS = 4096, ROUNDS = 3, BLOCK = 16 };

/* The model: multiply-adds of the matrix unit, and bytes of rows and of centroids, a nanosecond.
 * From data sheets of Hopper, not measured. */
#define PRODUCTS_PER_NS 2.5e5
#define ROW_BYTES_PER_NS 3e3
#define CENTROID_BYTES_PER_NS 5e3

double fkm_head_least_products = 1e12, fkm_int8_least_products = 1e11;

static const int32_t lengths[] = {64, 96, 128, 192, 0};

int32_t fkm_head_length(int i)
{
    return lengths[i];
}

bool fkm_head_suits(int32_t dims)
{
    return dims >= LEAST_DIMS && dims <= MOST_DIMS;
}

double fkm_head_cost(const fkm_head_trial *t, int32_t screened, double rate, int32_t dims,
    int32_t row_bytes, int32_t clusters)
{
    const double rows = fmax(1, (double)t->rows), k = clusters, d = dims;
    const double settled = rows - (double)t->in_doubt;
    double further = fmax(0, (double)t->candidates - settled) / rows;
    return (screened + 15) / 16 * 16.0 * k / (rate * PRODUCTS_PER_NS) +
           (double)(t->in_doubt + t->rescans) / rows * row_bytes / ROW_BYTES_PER_NS +
           (further + (double)t->rescans / rows * k) * 4 * d / CENTROID_BYTES_PER_NS;
}

/* The work of one round: P = S A', then A = P' S, by columns of A. */
struct axes_job {
    const float *sample; /* [FKM_HEAD_SAMPLE][dims] */
    float *axes;         /* [FKM_HEAD_MOST][dims] */
    float *across;       /* [dims][FKM_HEAD_MOST]: axes, transposed */
    float *products;     /* [FKM_HEAD_SAMPLE][FKM_HEAD_MOST] */
    int32_t dims;
};

static void multiply_rows(void *arg, int64_t block, int)
{
    const axes_job *j = (const axes_job *)arg;
    for (int64_t i = block * BLOCK; i < (block + 1) * BLOCK; i++) {
        float *p = j->products + i * FKM_HEAD_MOST;
        memset(p, 0, FKM_HEAD_MOST * sizeof *p);
        for (int32_t t = 0; t < j->dims; t++) {
            const float s = j->sample[i * j->dims + t];
            const float *a = j->across + (int64_t)t * FKM_HEAD_MOST;
            for (int32_t k = 0; k < FKM_HEAD_MOST; k++)
                p[k] += s * a[k];
        }
    }
}

static void multiply_axes(void *arg, int64_t block, int)
{
    const axes_job *j = (const axes_job *)arg;
    for (int64_t k = block * BLOCK; k < (block + 1) * BLOCK; k++) {
        float *a = j->axes + k * j->dims;
        memset(a, 0, (size_t)j->dims * sizeof *a);
        for (int64_t i = 0; i < FKM_HEAD_SAMPLE; i++) {
            const float p = j->products[i * FKM_HEAD_MOST + k];
            const float *s = j->sample + i * j->dims;
            for (int32_t t = 0; t < j->dims; t++)
                a[t] += p * s[t];
        }
    }
}

static double dot(const float *a, const float *b, int32_t n)
{
    double part[4] = {0, 0, 0, 0}, rest = 0;
    int32_t t = 0;
    for (; t + 4 <= n; t += 4)
        for (int k = 0; k < 4; k++)
            part[k] += (double)a[t + k] * b[t + k];
    for (; t < n; t++)
        rest += (double)a[t] * b[t];
    return part[0] + part[1] + part[2] + part[3] + rest;
}

/* Twice over, against rounding; an axis that vanishes becomes zero. */
static void orthonormalise(float *axes, int32_t dims)
{
    for (int32_t a = 0; a < FKM_HEAD_MOST; a++) {
        float *v = axes + (int64_t)a * dims;
        for (int round = 0; round < 2; round++) {
            for (int32_t b = 0; b < a; b++) {
                const float *w = axes + (int64_t)b * dims;
                const float along = (float)dot(v, w, dims);
                for (int32_t t = 0; t < dims; t++)
                    v[t] -= along * w[t];
            }
            double length = sqrt(dot(v, v, dims));
            const float scale = length > 1e-12 ? (float)(1 / length) : 0;
            for (int32_t t = 0; t < dims; t++)
                v[t] *= scale;
        }
    }
}

/* The Frobenius norm of A A' - 1. Zero axes, of data that is flat in so many directions, count as
 * errors of 1: a head with them is of no use. */
static void measure_gram(float *gram, const float *axes, int32_t dims)
{
    double sum = 0;
    for (int32_t a = 0; a < FKM_HEAD_MOST; a++) {
        for (int32_t b = 0; b <= a; b++) {
            double g = dot(axes + (int64_t)a * dims, axes + (int64_t)b * dims, dims);
            double error = a == b ? g - 1 : g;
            sum += (a == b ? 1 : 2) * error * error;
        }
        gram[a] = (float)(sqrt(sum) * (1 + 0x1p-20)) + 0x1p-40f;
    }
}

/* Simultaneous iteration: the span turns towards the directions of largest variance, and
 * Gram-Schmidt in order keeps them roughly sorted. Nothing rests on how well it converges. */
static void iterate(const axes_job *j, fkm_pool *pool)
{
    memcpy(j->axes, j->sample, (size_t)FKM_HEAD_MOST * (size_t)j->dims * sizeof(float));
    orthonormalise(j->axes, j->dims);
    for (int round = 0; round < ROUNDS; round++) {
        for (int32_t t = 0; t < j->dims; t++)
            for (int32_t a = 0; a < FKM_HEAD_MOST; a++)
                j->across[(int64_t)t * FKM_HEAD_MOST + a] = j->axes[(int64_t)a * j->dims + t];
        fkm_pool_for(pool, FKM_HEAD_SAMPLE / BLOCK, multiply_rows, (void *)j);
        fkm_pool_for(pool, FKM_HEAD_MOST / BLOCK, multiply_axes, (void *)j);
        orthonormalise(j->axes, j->dims);
    }
}

fkm_status fkm_head_axes(
    float *axes, float *gram, const float *sample, int32_t dims, int32_t threads, fkm_err *e)
{
    static const char what[] = "principal axes";
    fkm_status st = FKM_OK;
    fkm_pool *pool = NULL;
    axes_job j = {sample, axes, NULL, NULL, dims};
    FKM_GO(fkm_alloc(&j.across, (int64_t)dims * FKM_HEAD_MOST, sizeof(float), what, e));
    FKM_GO(
        fkm_alloc(&j.products, (int64_t)FKM_HEAD_SAMPLE * FKM_HEAD_MOST, sizeof(float), what, e));
    FKM_GO(fkm_pool_open(&pool, threads, e));
    iterate(&j, pool);
    measure_gram(gram, axes, dims);
out:
    fkm_pool_close(pool);
    fkm_free(j.across);
    fkm_free(j.products);
    return st;
}
