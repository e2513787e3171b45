/* k-means||: see seed.h. */
#include "seed_parts.h"

#include "base/checked.h"
#include "base/mem.h"
#include "base/stop.h"
#include "mass.h"
#include "plusplus.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS 5
#define OVERSAMPLING 2        /* candidates expected in a round, in multiples of k */
#define LISTEN_ROWS (1 << 20) /* that draw before the stop flag is looked at */

/* Rows that may become centroids. */
typedef struct candidates {
    const fkm_seed_job *job;
    fkm_cover *cover; /* of all rows, by the candidates */
    fkm_mass mass;    /* of all rows: their distances */
    float *values;    /* [limit][dims] */
    int64_t *row;     /* [limit] */
    int32_t *order;   /* [of a round] */
    uint64_t *digest; /* [of a round]: of the values */
    int64_t *weight;  /* [limit]: rows of which it is the nearest */
    int64_t *chosen;  /* [k]: which candidates become centroids */
    int32_t *nearest; /* [limit] */
    int32_t count;
} candidates;

/* Each row decides on its own, so the number varies: by no more than 8 standard deviations, for
 * then the rows of higher index are out of luck. */
int32_t fkm_seed_round_limit(int32_t k, int64_t rows)
{
    double mean = (double)OVERSAMPLING * k;
    int64_t limit = (int64_t)(mean + 8 * sqrt(mean)) + 32;
    return (int32_t)fkm_min_i64(fkm_min_i64(limit, rows), FKM_MAX_CLUSTERS);
}

int64_t fkm_seed_candidate_limit(int32_t k, int64_t rows)
{
    int64_t limit = 1 + ROUNDS * (int64_t)fkm_seed_round_limit(k, rows);
    return fkm_min_i64(fkm_min_i64(limit, rows), FKM_MAX_CLUSTERS);
}

int64_t fkm_seed_candidate_bytes(int32_t k, const fkm_shape *shape)
{
    int64_t n = fkm_seed_candidate_limit(k, shape->rows);
    int64_t each = (int64_t)sizeof(float) * shape->dims + 2 * (int64_t)sizeof(int64_t) +
                   (int64_t)sizeof(int32_t);
    int64_t total = fkm_add_sat(fkm_mul_sat(n, each), fkm_cover_bytes(n));
    total = fkm_add_sat(total, 2 * fkm_mass_bytes(n) + fkm_mass_bytes(shape->rows));
    total = fkm_add_sat(total, fkm_mul_sat(k, sizeof(int64_t)));
    const int64_t each_round = (int64_t)(sizeof(int32_t) + sizeof(uint64_t));
    return fkm_add_sat(total, each_round * fkm_seed_round_limit(k, shape->rows));
}

static void close_candidates(candidates *s)
{
    fkm_mass_close(&s->mass);
    fkm_free(s->values);
    fkm_free(s->row);
    fkm_free(s->order);
    fkm_free(s->digest);
    fkm_free(s->weight);
    fkm_free(s->chosen);
    fkm_free(s->nearest);
}

static fkm_status open_candidates(candidates *s, fkm_err *e)
{
    static const char what[] = "candidates of k-means||";
    int32_t k = s->job->clusters;
    int64_t rows = s->job->shape->rows, n = fkm_seed_candidate_limit(k, rows), cells;
    if (!fkm_mul_i64(&cells, n, s->job->shape->dims))
        return fkm_fail(e, FKM_ENOMEM, "%lld candidates of %d dims are too large", (long long)n,
            s->job->shape->dims);
    FKM_TRY(fkm_mass_open(&s->mass, s->cover->distance, NULL, rows, e));
    FKM_TRY(fkm_alloc(&s->values, cells, sizeof(float), what, e));
    FKM_TRY(fkm_alloc(&s->row, n, sizeof *s->row, what, e));
    FKM_TRY(fkm_alloc(&s->order, fkm_seed_round_limit(k, rows), sizeof *s->order, what, e));
    FKM_TRY(fkm_alloc(&s->digest, fkm_seed_round_limit(k, rows), sizeof *s->digest, what, e));
    FKM_TRY(fkm_calloc(&s->weight, n, sizeof *s->weight, what, e));
    FKM_TRY(fkm_alloc(&s->chosen, k, sizeof *s->chosen, what, e));
    return fkm_alloc(&s->nearest, n, sizeof *s->nearest, what, e);
}

static float *value_of(const candidates *s, int32_t i)
{
    return s->values + (int64_t)i * s->job->shape->dims;
}

/* Lets every row decide; those that become candidates are noted behind the others. Ends early when
 * the run is to end. */
static int32_t draw_round(candidates *s, int round, double total)
{
    const fkm_seed_job *job = s->job;
    const double *distance = s->cover->distance, expected = (double)OVERSAMPLING * job->clusters;
    int64_t room = fkm_seed_candidate_limit(job->clusters, job->shape->rows) - s->count;
    int64_t limit = fkm_min_i64(room, fkm_seed_round_limit(job->clusters, job->shape->rows));
    int32_t n = 0;
    for (int64_t i = 0; i < job->shape->rows && n < limit; i++) {
        if (i % LISTEN_ROWS == 0 && job->env->w && fkm_is_stopped(job->env->w->stop))
            break;
        if (distance[i] == 0) /* a candidate already, its double, or not finite */
            continue;
        double u = fkm_uniform(job->seed, FKM_DRAW_ROUND + (unsigned)round, (uint64_t)i);
        if (u * total < expected * distance[i])
            s->row[s->count + n++] = i;
    }
    return n;
}

/* The same for equal values: -0 and 0 are. */
static uint64_t digest_of(const float *x, int32_t dims)
{
    uint64_t h = 0;
    for (int32_t t = 0; t < dims; t++) {
        const float v = x[t] + 0.0f;
        uint32_t bits;
        memcpy(&bits, &v, sizeof bits);
        h = (h ^ bits) * 0x9e3779b97f4a7c15u;
        h ^= h >> 32;
    }
    return h;
}

/* Orders candidates of a round by digest, then by index. */
static int compare_candidates(const void *a, const void *b, void *arg)
{
    const candidates *s = arg;
    int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    uint64_t x = s->digest[i - s->count], y = s->digest[j - s->count];
    return x != y ? (x > y ? 1 : -1) : (i > j) - (i < j);
}

static bool same_value(const candidates *s, int32_t i, int32_t j)
{
    const float *x = value_of(s, i), *y = value_of(s, j);
    for (int32_t t = 0; t < s->job->shape->dims; t++)
        if (x[t] != y[t])
            return false;
    return true;
}

/* Takes the row from candidates whose value a lower one of the round has. Sorting by value would
 * compare equal rows to their ends n log n times. */
static void mark_doubles(candidates *s, int32_t n)
{
    int32_t first = 0, kept = 0; /* of those with one digest */
    for (int32_t i = 0; i < n; i++) {
        const int32_t c = s->order[i];
        bool is_double = false;
        if (s->digest[c - s->count] != s->digest[s->order[first] - s->count]) {
            first = i;
            kept = 0;
        }
        for (int32_t j = first; j < first + kept && !is_double; j++)
            is_double = same_value(s, s->order[j], c);
        if (is_double)
            s->row[c] = -1;
        else
            s->order[first + kept++] = c;
    }
}

/* Of candidates of one round with the same value, the first stays: equals would make every row near
 * them a tie, and the others have no weight. Returns how many are left of n. */
static int32_t drop_doubles(candidates *s, int32_t n)
{
    int32_t kept = 0;
    for (int32_t i = 0; i < n; i++) {
        s->order[i] = s->count + i;
        s->digest[i] = digest_of(value_of(s, s->count + i), s->job->shape->dims);
    }
    qsort_r(s->order, (size_t)n, sizeof *s->order, compare_candidates, s);
    mark_doubles(s, n);
    for (int32_t i = s->count; i < s->count + n; i++) {
        if (s->row[i] < 0)
            continue;
        int32_t to = s->count + kept++;
        s->row[to] = s->row[i];
        memmove(value_of(s, to), value_of(s, i), (size_t)s->job->shape->dims * sizeof(float));
    }
    return kept;
}

/* One round. *done: every row coincides with a candidate. */
static fkm_status add_round(candidates *s, int round, bool *done, fkm_err *e)
{
    double total = fkm_mass_sum(&s->mass);
    *done = total == 0;
    if (*done)
        return FKM_OK;
    int32_t n = draw_round(s, round, total);
    FKM_TRY(fkm_cover_stop(s->cover, e));
    for (int32_t i = 0; i < n; i++) {
        FKM_TRY(fkm_cover_stop(s->cover, e));
        FKM_TRY(fkm_cover_row(s->cover, s->row[s->count + i], value_of(s, s->count + i), e));
    }
    n = drop_doubles(s, n);
    if (n == 0)
        return FKM_OK;
    FKM_TRY(fkm_cover_add(s->cover, value_of(s, s->count), n, e));
    s->count += n;
    return FKM_OK;
}

static void weigh(candidates *s)
{
    for (int64_t i = 0; i < s->job->shape->rows; i++)
        if (s->cover->nearest[i] >= 0)
            s->weight[s->cover->nearest[i]]++;
}

/* The first of the centroids, drawn by weight. */
static fkm_status choose_first(candidates *s, float *centroid, fkm_err *e)
{
    fkm_mass weights;
    FKM_TRY(fkm_mass_open(&weights, NULL, s->weight, s->count, e));
    (void)fkm_mass_sum(&weights);
    int64_t first = fkm_mass_find(&weights, fkm_uniform(s->job->seed, FKM_DRAW_CANDIDATE_FIRST, 0));
    fkm_mass_close(&weights);
    s->chosen[0] = first;
    memcpy(centroid, value_of(s, (int32_t)first), (size_t)s->job->shape->dims * sizeof(float));
    return FKM_OK;
}

/* k-means++ among the candidates. */
static fkm_status reduce(candidates *s, float *centroids, int32_t *have, fkm_err *e)
{
    fkm_cover_env quiet = *s->job->env; /* progress is of the rows */
    quiet.progress = NULL;
    fkm_status st = FKM_OK;
    fkm_cover cover = {0};
    fkm_plusplus p = {
        .cover = &cover,
        .weight = s->weight,
        .seed = s->job->seed,
        .proposal = FKM_DRAW_CANDIDATE,
        .verdict = FKM_DRAW_CANDIDATE_VERDICT,
        .centroids = centroids,
        .chosen = s->chosen,
        .have = 1,
        .want = (int32_t)fkm_min_i64(s->count, s->job->clusters),
    };
    fkm_cover_rows of = {
        .values = s->values,
        .rows = s->count,
        .chunk_rows = s->job->env->plan->chunk_rows,
        .dims = s->job->shape->dims,
    };
    FKM_TRY(fkm_cover_open(&cover, &of, s->nearest, &quiet, e));
    FKM_GO(choose_first(s, centroids, e));
    FKM_GO(fkm_cover_add(&cover, centroids, 1, e));
    FKM_GO(fkm_plusplus_run(&p, e));
    *have = p.have;
out:
    fkm_cover_close(&cover);
    return st;
}

fkm_status fkm_seed_parallel(float *centroids, int64_t *chosen, int32_t *have, fkm_cover *cover,
    const fkm_seed_job *job, bool *not_finite, fkm_err *e)
{
    candidates s = {.job = job, .cover = cover};
    fkm_status st = FKM_OK;
    bool done = false;
    FKM_GO(open_candidates(&s, e));
    FKM_GO(fkm_seed_first(s.values, s.row, job, not_finite, e));
    FKM_GO(fkm_cover_add(cover, s.values, 1, e));
    s.count = 1;
    for (int round = 0; round < ROUNDS && !done; round++)
        FKM_GO(add_round(&s, round, &done, e));
    weigh(&s);
    FKM_GO(reduce(&s, centroids, have, e));
    for (int32_t j = 0; j < *have; j++)
        chosen[j] = s.row[s.chosen[j]];
out:
    close_candidates(&s);
    return st;
}
