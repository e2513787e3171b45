/* When to screen more finely: see doubt.h. */
#include "doubt.h"

#include "../base/checked.h"

#include <string.h>

/* Cycles, measured: of a row that is fetched, of a score by itself, of what else a candidate takes,
 * of a packed coordinate. */
#define ROW_CYCLES 300.0
#define SCORE_CYCLES(dims) (50 + (dims) / 6.0)
#define CANDIDATE_CYCLES 60.0
#define PACK_CYCLES 1.0

#define LEAST_GAIN 1.5

enum {
    SAMPLE = 512,     /* rows that say something */
    SAMPLE_SHARE = 64 /* of all, at most: one thread looks at them */
};

/* Of screening a row by all centroids. */
static double screen_cycles(const fkm_tiles *t, const fkm_kernels *k)
{
    const double pack = k->low ? 0 : PACK_CYCLES * t->dims;
    return (double)fkm_round_up(t->screened, k->dim_step) * t->clusters / (double)k->rate + pack;
}

double fkm_doubt_cycles(const fkm_tiles *t, const fkm_assign_counts *c)
{
    const double again = (double)c->rescans, doubts = (double)c->in_doubt;
    const double candidates = (double)(c->candidates - (c->rows - c->in_doubt));
    const double score = SCORE_CYCLES(t->dims);
    const double cycles =
        doubts * ROW_CYCLES + candidates * (CANDIDATE_CYCLES + score) + again * t->clusters * score;
    return cycles / (double)c->rows;
}

const fkm_kernels *fkm_doubt_judge(
    fkm_doubt *d, const fkm_tiles *t, const fkm_kernels *usual, const fkm_assign_counts *c)
{
    const fkm_kernels *finer = usual->finer;
    const bool finely = t->kernels == finer;
    if (!finer || d->settled || t->axes || c->rows < SAMPLE || (!finely && t->kernels != usual))
        return t->kernels;
    const double now = screen_cycles(t, t->kernels) + fkm_doubt_cycles(t, c);
    if (!finely) {
        if (now < LEAST_GAIN * screen_cycles(t, finer))
            return usual;
        d->rounded = now;
        return finer;
    }
    if (now < d->rounded)
        return finer;
    d->settled = true;
    return usual;
}

const fkm_kernels *fkm_doubt_try(fkm_doubt *d, const fkm_assign_job *job, const fkm_kernels *usual,
    fkm_assign_scratch *s, int32_t block_rows)
{
    const fkm_kernels *now = job->tiles->kernels;
    if (d->tried || !usual->finer || job->count < (int64_t)SAMPLE * SAMPLE_SHARE)
        return now;
    int32_t list[SAMPLE];
    fkm_assign_job trial = *job;
    const fkm_assign_counts before = s->counts;
    d->tried = true;
    for (int32_t i = 0; i < SAMPLE; i++)
        list[i] = (int32_t)(job->count * i / SAMPLE);
    trial.list = list;
    trial.count = SAMPLE;
    memset(&s->counts, 0, sizeof s->counts);
    for (int32_t first = 0; first < SAMPLE; first += block_rows)
        fkm_assign_block(&trial, s, first, (int32_t)fkm_min_i64(SAMPLE - first, block_rows));
    for (int32_t i = 0; i < SAMPLE; i++)
        job->labels[list[i]] = -1;
    now = fkm_doubt_judge(d, job->tiles, usual, &s->counts);
    s->counts = before;
    return now;
}
