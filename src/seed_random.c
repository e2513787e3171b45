/* Rows drawn without replacement: see seed.h. */
#include "seed_parts.h"

#include "base/checked.h"
#include "base/mem.h"
#include "base/stop.h"
#include "rng.h"

#include <math.h>
#include <stdlib.h>

#define SAMPLE_RUN 32 /* rows that are read together: a seek costs more than they do */
#define SAMPLE_RUNS 128

/* Which row becomes which centroid; sorted by row, so that a file is read forwards. */
typedef struct draw {
    int64_t row;
    int32_t centroid;
} draw;

static int by_row(const void *a, const void *b)
{
    int64_t x = ((const draw *)a)->row, y = ((const draw *)b)->row;
    return (x > y) - (x < y);
}

fkm_status fkm_seed_too_few(int32_t k, fkm_err *e)
{
    return fkm_fail(
        e, FKM_EDATA, "fewer than %d rows without NaN or Inf: not enough for %d clusters", k, k);
}

fkm_status fkm_seed_stop(const fkm_seed_job *job, fkm_err *e)
{
    const fkm_observer *w = job->env->w;
    return w && fkm_is_stopped(w->stop) ? fkm_fail(e, FKM_ESTOPPED, "stopped by a signal") : FKM_OK;
}

bool fkm_seed_finite(const float *x, int32_t dims)
{
    int32_t t = 0;
    while (t < dims && isfinite(x[t]))
        t++;
    return t == dims;
}

/* Draws on from *next until a finite row is found. */
static fkm_status redraw(float *out, int64_t *next, const fkm_seed_job *job, fkm_err *e)
{
    const int64_t rows = job->shape->rows;
    while (*next < rows) {
        FKM_TRY(fkm_seed_stop(job, e));
        FKM_TRY(fkm_source_rows(job->source, fkm_permute(job->seed, rows, (*next)++), 1, out, e));
        if (fkm_seed_finite(out, job->shape->dims))
            return FKM_OK;
    }
    return fkm_seed_too_few(job->clusters, e);
}

/* n distinct rows, sorted; fkm_free. */
static fkm_status draw_rows(draw **out, int64_t rows, int32_t n, uint64_t seed, fkm_err *e)
{
    draw *draws = NULL;
    FKM_TRY(fkm_alloc(&draws, n, sizeof *draws, "random rows", e));
    for (int32_t j = 0; j < n; j++)
        draws[j] = (draw){fkm_permute(seed, rows, j), j};
    qsort(draws, (size_t)n, sizeof *draws, by_row);
    *out = draws;
    return FKM_OK;
}

fkm_status fkm_seed_random(float *centroids, const fkm_seed_job *job, bool *not_finite, fkm_err *e)
{
    const int32_t k = job->clusters, dims = job->shape->dims;
    fkm_status st = FKM_OK;
    draw *draws = NULL;
    int64_t next = k;
    FKM_TRY(draw_rows(&draws, job->shape->rows, k, job->seed, e));
    for (int32_t i = 0; i < k; i++) {
        float *c = centroids + (int64_t)draws[i].centroid * dims;
        FKM_GO(fkm_seed_stop(job, e));
        FKM_GO(fkm_source_rows(job->source, draws[i].row, 1, c, e));
        if (fkm_seed_finite(c, dims))
            continue;
        if (!job->env->skip_nan) {
            *not_finite = true;
            st = fkm_fail(e, FKM_EDATA, "row %lld has NaN or Inf", (long long)draws[i].row);
            goto out;
        }
        FKM_GO(redraw(c, &next, job, e));
    }
out:
    fkm_free(draws);
    return st;
}

fkm_status fkm_seed_sample(
    fkm_scan *out, fkm_source *s, int64_t rows, int32_t dims, uint64_t seed, fkm_err *e)
{
    fkm_status st = FKM_OK;
    draw *draws = NULL;
    float *run = NULL;
    int64_t length = fkm_min_i64(SAMPLE_RUN, rows), runs = rows / length;
    int32_t n = (int32_t)fkm_min_i64(SAMPLE_RUNS, runs);
    fkm_scan_init(out);
    FKM_GO(draw_rows(&draws, runs, n, ~seed, e));
    FKM_GO(fkm_alloc(&run, length, (size_t)dims * sizeof *run, "a sample", e));
    for (int32_t i = 0; i < n; i++) {
        FKM_GO(fkm_source_rows(s, draws[i].row * length, length, run, e));
        fkm_scan_add(out, run, FKM_F32, draws[i].row * length, length, dims);
    }
out:
    fkm_free(draws);
    fkm_free(run);
    return st;
}

fkm_status fkm_seed_first(
    float *x, int64_t *row, const fkm_seed_job *job, bool *not_finite, fkm_err *e)
{
    for (int64_t i = 0; i < job->shape->rows; i++) {
        *row = fkm_permute(job->seed, job->shape->rows, i);
        FKM_TRY(fkm_seed_stop(job, e));
        FKM_TRY(fkm_source_rows(job->source, *row, 1, x, e));
        if (fkm_seed_finite(x, job->shape->dims))
            return FKM_OK;
        if (!job->env->skip_nan) {
            *not_finite = true;
            return fkm_fail(e, FKM_EDATA, "row %lld has NaN or Inf", (long long)*row);
        }
    }
    return fkm_seed_too_few(job->clusters, e);
}
