/* k-means++ by rejection: see seed.h and plusplus.h. */
#include "plusplus.h"

#include "base/checked.h"
#include "base/distance.h"
#include "mass.h"

#include <math.h>

/* Distances to compute for proposals before a pass over `rows` rows pays: a pass computes one
 * distance a row at least, on all threads, proposals are judged on one. Part of the definition of
 * the result, so it must not depend on the machine. */
static int64_t budget_of(int64_t rows)
{
    return fkm_max_i64(16384, rows / 4);
}

/* The m-th centroid of a batch was proposed within the budget, and each of those before it had been
 * compared with those before them: (m - 1) (m - 2) / 2 <= budget. */
int32_t fkm_plusplus_batch_limit(int32_t want, int64_t rows)
{
    int64_t limit = (int64_t)sqrt(2.0 * (double)budget_of(rows)) + 4;
    return (int32_t)fkm_min_i64(limit, want);
}

/* To find and fetch a row somewhere in the data, in distances. It bounds what rejections may cost
 * when few rows are left at a distance. */
#define PROPOSAL_COST 32

/* True when the row at x, with distance d after the last pass, is as near as u * d to a centroid
 * since. */
static bool rejects(
    const fkm_plusplus *p, const float *x, double limit, int32_t from, int64_t *cost)
{
    int32_t dims = p->cover->of.dims;
    for (int32_t j = from; j < p->have; j++) {
        ++*cost;
        if (fkm_distance(x, p->centroids + (int64_t)j * dims, dims) <= limit)
            return true;
    }
    return false;
}

/* Proposes rows until the batch is worth a pass, or all centroids are there. *draws: proposals so
 * far. */
static fkm_status choose_batch(fkm_plusplus *p, const fkm_mass *mass, uint64_t *draws, fkm_err *e)
{
    int32_t before = p->have, dims = p->cover->of.dims;
    int64_t cost = 0, budget = budget_of(p->cover->of.rows);
    while (p->have < p->want && cost <= budget) { /* the first proposal is never rejected */
        FKM_TRY(fkm_cover_stop(p->cover, e));
        uint64_t draw = (*draws)++;
        int64_t row = fkm_mass_find(mass, fkm_uniform(p->seed, p->proposal, draw));
        double limit = fkm_uniform(p->seed, p->verdict, draw) * p->cover->distance[row];
        float *x = p->centroids + (int64_t)p->have * dims;
        FKM_TRY(fkm_cover_row(p->cover, row, x, e));
        cost += PROPOSAL_COST;
        if (!rejects(p, x, limit, before, &cost))
            p->chosen[p->have++] = row;
    }
    return FKM_OK;
}

fkm_status fkm_plusplus_run(fkm_plusplus *p, fkm_err *e)
{
    fkm_mass mass;
    uint64_t draws = 0;
    fkm_status st = FKM_OK;
    int32_t dims = p->cover->of.dims;
    FKM_TRY(fkm_mass_open(&mass, p->cover->distance, p->weight, p->cover->of.rows, e));
    while (p->have < p->want) {
        int32_t before = p->have;
        if (fkm_mass_sum(&mass) == 0)
            break;
        FKM_GO(choose_batch(p, &mass, &draws, e));
        if (p->have < p->want)
            FKM_GO(fkm_cover_add(
                p->cover, p->centroids + (int64_t)before * dims, p->have - before, e));
    }
out:
    fkm_mass_close(&mass);
    return st;
}
