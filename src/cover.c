/* Distances to the centroids chosen so far: see cover.h. */
#include "cover.h"

#include "base/checked.h"
#include "base/mem.h"

#include <math.h>
#include <string.h>

int64_t fkm_cover_bytes(int64_t rows)
{
    return fkm_mul_sat(rows, sizeof(double));
}

fkm_status fkm_cover_open(
    fkm_cover *v, const fkm_cover_rows *of, int32_t *nearest, const fkm_cover_env *env, fkm_err *e)
{
    static const char what[] = "distances to the first centroids";
    fkm_status st = FKM_OK;
    *v = (fkm_cover){.of = *of, .env = env, .nearest = nearest};
    v->of.chunk_rows = fkm_min_i64(of->rows, of->chunk_rows);
    FKM_GO(fkm_alloc(&v->distance, of->rows, sizeof *v->distance, what, e));
    FKM_GO(fkm_alloc(&v->chunk_distance, v->of.chunk_rows, sizeof *v->chunk_distance, what, e));
    FKM_GO(fkm_alloc(&v->chunk_label, v->of.chunk_rows, sizeof *v->chunk_label, what, e));
    for (int64_t i = 0; i < of->rows; i++) {
        v->distance[i] = INFINITY;
        v->nearest[i] = 0;
    }
    return FKM_OK;
out:
    fkm_cover_close(v);
    return st;
}

void fkm_cover_close(fkm_cover *v)
{
    fkm_free(v->distance);
    fkm_free(v->chunk_distance);
    fkm_free(v->chunk_label);
    memset(v, 0, sizeof *v);
}

fkm_status fkm_cover_stop(const fkm_cover *v, fkm_err *e)
{
    const fkm_observer *w = v->env->w;
    return w && w->stop && *w->stop ? fkm_fail(e, FKM_ESTOPPED, "stopped by a signal") : FKM_OK;
}

fkm_status fkm_cover_row(fkm_cover *v, int64_t row, float *out, fkm_err *e)
{
    if (v->of.source)
        return fkm_source_rows(v->of.source, row, 1, out, e);
    size_t dims = (size_t)v->of.dims;
    memcpy(out, v->of.values + (size_t)row * dims, dims * sizeof *out);
    return FKM_OK;
}

/* The next chunk from `row` on; none at the end. */
static fkm_status next_chunk(fkm_cover *v, int64_t row, fkm_rows *rows, fkm_err *e)
{
    if (v->of.source)
        return fkm_source_next(v->of.source, rows, e);
    int64_t count = fkm_min_i64(v->of.chunk_rows, v->of.rows - row);
    *rows = (fkm_rows){v->of.values + row * v->of.dims, row, count};
    return FKM_OK;
}

/* Keeps what is nearer. A row without a label is not finite. */
static void merge(fkm_cover *v, const fkm_rows *rows)
{
    double *distance = v->distance + rows->row0;
    int32_t *nearest = v->nearest + rows->row0;
    for (int64_t i = 0; i < rows->count; i++) {
        if (v->chunk_label[i] < 0) {
            v->not_finite = true;
            distance[i] = 0;
            nearest[i] = -1;
        } else if (v->chunk_distance[i] < distance[i]) {
            distance[i] = v->chunk_distance[i];
            nearest[i] = v->count + v->chunk_label[i];
        }
    }
}

static fkm_status pass_over_rows(fkm_cover *v, fkm_backend *b, fkm_err *e)
{
    const fkm_cover_env *env = v->env;
    const fkm_pass_options options = {.update = false};
    fkm_pass pass;
    fkm_rows rows;
    FKM_TRY(env->ops->begin(b, &options, e));
    for (int64_t row = 0;; row += rows.count) {
        FKM_TRY(fkm_cover_stop(v, e));
        FKM_TRY(next_chunk(v, row, &rows, e));
        if (rows.count == 0)
            break;
        memset(v->chunk_label, -1, (size_t)rows.count * sizeof *v->chunk_label);
        FKM_TRY(env->ops->feed(b, &rows, v->chunk_label, v->chunk_distance, e));
        FKM_TRY(env->ops->wait(b, e));
        merge(v, &rows);
        if (env->progress)
            env->progress(env->arg, row + rows.count);
    }
    FKM_TRY(env->ops->end(b, &pass, e));
    fkm_screening *s = &env->run->screening;
    s->rows_screened += pass.rows;
    s->rows_in_doubt += pass.in_doubt;
    s->candidates += pass.candidates;
    s->rescans += pass.rescans;
    return FKM_OK;
}

/* A backend for just so many centroids is opened for each pass: a matter of milliseconds, and no
 * tile is screened for nothing. */
fkm_status fkm_cover_add(fkm_cover *v, const float *c, int32_t count, fkm_err *e)
{
    const fkm_cover_env *env = v->env;
    fkm_status st = FKM_OK;
    fkm_backend *b = NULL;
    fkm_plan plan = *env->plan;
    plan.clusters = count;
    plan.rows = v->of.rows;
    plan.chunk_rows = v->of.chunk_rows;
    plan.dtype = v->of.source ? v->of.dtype : FKM_F32;
    plan.update = plan.wide = false;
    plan.keep = false; /* for one pass */
    plan.top = 1;
    if (plan.device_bytes > 0) /* 1: so little that it says so */
        plan.device_bytes = fkm_max_i64(1, plan.device_bytes - env->device_bytes);
    FKM_GO(env->ops->open(&b, &plan, e));
    env->run->device_bytes =
        fkm_max_i64(env->run->device_bytes, env->device_bytes + env->ops->device_bytes(b));
    FKM_GO(env->ops->set_centroids(b, c, e));
    FKM_GO(pass_over_rows(v, b, e));
    v->count += count;
    env->run->distances = fkm_add_sat(env->run->distances, fkm_mul_sat(v->of.rows, count));
    if (v->not_finite && !env->skip_nan)
        st = fkm_fail(e, FKM_EDATA, "rows have NaN or Inf");
out:
    if (b)
        env->ops->close(b);
    return st;
}
