/* The first centroids, by any method: see seed.h. */
#include "seed_parts.h"

#include "base/checked.h"
#include "base/mem.h"
#include "mass.h"
#include "plusplus.h"

#define CHOSEN (-2) /* in cover.nearest, once distances are of no use any more */

/* All rows coincide with centroids: any rows that are not among them will do. */
static fkm_status add_duplicates(fkm_plusplus *p, const fkm_seed_job *job, fkm_err *e)
{
    int32_t *state = p->cover->nearest, dims = job->shape->dims;
    int64_t rows = job->shape->rows;
    for (int32_t j = 0; j < p->have; j++)
        state[p->chosen[j]] = CHOSEN;
    for (int64_t i = 0; i < rows && p->have < p->want; i++) {
        int64_t row = fkm_permute(job->seed, rows, i);
        if (state[row] < 0)
            continue;
        FKM_TRY(fkm_seed_stop(job, e));
        FKM_TRY(fkm_cover_row(p->cover, row, p->centroids + (int64_t)p->have * dims, e));
        p->chosen[p->have++] = row;
    }
    return p->have == p->want ? FKM_OK : fkm_seed_too_few(p->want, e);
}

/* Chooses what begins the work of k-means++: one row, or what k-means|| finds. */
static fkm_status begin_choice(
    fkm_plusplus *p, const fkm_seed_job *job, bool *not_finite, fkm_err *e)
{
    if (job->method == FKM_INIT_PARALLEL)
        return fkm_seed_parallel(p->centroids, p->chosen, &p->have, p->cover, job, not_finite, e);
    FKM_TRY(fkm_seed_first(p->centroids, p->chosen, job, not_finite, e));
    p->have = 1;
    return p->want > 1 ? fkm_cover_add(p->cover, p->centroids, 1, e) : FKM_OK;
}

static fkm_status seed_by_distance(
    float *centroids, const fkm_seed_job *job, bool *not_finite, fkm_err *e)
{
    fkm_status st = FKM_OK;
    fkm_cover cover = {0};
    fkm_plusplus p = {
        .cover = &cover,
        .seed = job->seed,
        .proposal = FKM_DRAW_PROPOSAL,
        .verdict = FKM_DRAW_VERDICT,
        .centroids = centroids,
        .want = job->clusters,
    };
    fkm_cover_rows of = {
        .source = job->source,
        .rows = job->shape->rows,
        .chunk_rows = job->env->plan->chunk_rows,
        .dims = job->shape->dims,
        .dtype = job->shape->dtype,
    };
    FKM_GO(fkm_cover_open(&cover, &of, job->labels, job->env, e));
    FKM_GO(fkm_alloc(&p.chosen, p.want, sizeof *p.chosen, "chosen rows", e));
    FKM_GO(begin_choice(&p, job, not_finite, e));
    FKM_GO(fkm_plusplus_run(&p, e));
    if (p.have < p.want)
        FKM_GO(add_duplicates(&p, job, e));
out:
    *not_finite = *not_finite || (st == FKM_EDATA && cover.not_finite && !job->env->skip_nan);
    fkm_free(p.chosen);
    fkm_cover_close(&cover);
    return st;
}

fkm_status fkm_seed(float *centroids, const fkm_seed_job *job, bool *not_finite, fkm_err *e)
{
    *not_finite = false;
    if (job->method == FKM_INIT_RANDOM)
        return fkm_seed_random(centroids, job, not_finite, e);
    return seed_by_distance(centroids, job, not_finite, e);
}

int32_t fkm_seed_clusters(fkm_init_method method, int32_t k, int64_t rows)
{
    switch (method) {
    case FKM_INIT_RANDOM:
        return 0;
    case FKM_INIT_PLUSPLUS:
        return fkm_plusplus_batch_limit(k, rows);
    case FKM_INIT_PARALLEL:
        return fkm_seed_round_limit(k, rows);
    }
    return 0;
}

int64_t fkm_seed_bytes_per_row(fkm_init_method method)
{
    switch (method) {
    case FKM_INIT_RANDOM:
        return 0;
    case FKM_INIT_PLUSPLUS:
        return FKM_COVER_BYTES_PER_ROW;
    case FKM_INIT_PARALLEL: /* of the rows, and of the candidates */
        return 2 * FKM_COVER_BYTES_PER_ROW;
    }
    return 0;
}

int64_t fkm_seed_bytes(fkm_init_method method, int32_t k, const fkm_shape *shape)
{
    if (method == FKM_INIT_RANDOM)
        return 0;
    int64_t total = fkm_add_sat(fkm_cover_bytes(shape->rows), fkm_mass_bytes(shape->rows));
    total = fkm_add_sat(total, fkm_mul_sat(k, sizeof(int64_t)));
    if (method == FKM_INIT_PARALLEL)
        total = fkm_add_sat(total, fkm_seed_candidate_bytes(k, shape));
    return total;
}
