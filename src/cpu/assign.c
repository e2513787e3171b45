/* Assignment of blocks of rows: see assign.h; the proof is in screen.h. */
#include "assign.h"

#include "../base/checked.h"
#include "../base/mem.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* A block's panels and a range of tiles should share the second-level cache, so that each centroid
 * is fetched from beyond it once a block, and each panel once a range of tiles. */
#define BLOCK_BYTES (256 << 10)
#define TILE_RANGE_BYTES (384 << 10)
#define MAX_PANELS 16

int32_t fkm_assign_block_rows(const fkm_kernels *k, int32_t dims)
{
    int64_t panels = BLOCK_BYTES / (int64_t)fkm_panel_bytes(k, dims);
    panels = fkm_max_i64(1, fkm_min_i64(panels, MAX_PANELS));
    return (int32_t)panels * k->panel;
}

int64_t fkm_assign_scratch_bytes(
    const fkm_kernels *k, int32_t clusters, int32_t dims, fkm_dtype dtype, int32_t top)
{
    int64_t rows = fkm_assign_block_rows(k, dims);
    int64_t per_row =
        9 * (int64_t)sizeof(float) + FKM_CANDIDATES * (int64_t)(sizeof(int32_t) + sizeof(float)) +
        (int64_t)fkm_panel_bytes(k, dims) / k->panel + (dtype == FKM_F32 ? 0 : 4 * (int64_t)dims);
    int64_t nearest = top > 1 ? 2 * (int64_t)sizeof(float) * clusters + 4 * (int64_t)top : 0;
    return rows * per_row + nearest + 4096;
}

fkm_status fkm_assign_scratch_open(fkm_assign_scratch *s, const fkm_kernels *k, int32_t clusters,
    int32_t dims, fkm_dtype dtype, int32_t top, fkm_err *e)
{
    static const char what[] = "assignment scratch";
    fkm_status st = FKM_OK;
    int64_t rows = fkm_assign_block_rows(k, dims);
    memset(s, 0, sizeof *s);
    FKM_GO(fkm_alloc(&s->block.panels, rows / k->panel, fkm_panel_bytes(k, dims), what, e));
    FKM_GO(fkm_alloc(&s->block.norm, rows, sizeof(float), what, e));
    FKM_GO(fkm_alloc(&s->block.slack, rows, sizeof(float), what, e));
    FKM_GO(fkm_alloc(&s->block.floor, rows, sizeof(float), what, e));
    FKM_GO(fkm_alloc(&s->block.residual, rows, sizeof(float), what, e));
    FKM_GO(fkm_alloc(&s->block.own, rows, sizeof(int32_t), what, e));
    FKM_GO(fkm_alloc(&s->block.own_score, rows, sizeof(float), what, e));
    FKM_GO(fkm_alloc(&s->block.count, rows, sizeof(int32_t), what, e));
    FKM_GO(fkm_alloc(&s->block.position, rows * FKM_CANDIDATES, sizeof(int32_t), what, e));
    FKM_GO(fkm_alloc(&s->block.upper, rows * FKM_CANDIDATES, sizeof(float), what, e));
    FKM_GO(fkm_alloc(&s->square, rows, sizeof(float), what, e));
    if (dtype != FKM_F32)
        FKM_GO(fkm_alloc(&s->rows, rows * dims, sizeof(float), what, e));
    if (top > 1) {
        FKM_GO(fkm_alloc(&s->lower, clusters, sizeof(float), what, e));
        FKM_GO(fkm_alloc(&s->upper, clusters, sizeof(float), what, e));
        FKM_GO(fkm_alloc(&s->heap, top, sizeof(float), what, e));
    }
    return FKM_OK;
out:
    fkm_assign_scratch_close(s);
    return st;
}

void fkm_assign_scratch_close(fkm_assign_scratch *s)
{
    fkm_free(s->block.panels);
    fkm_free(s->block.norm);
    fkm_free(s->block.slack);
    fkm_free(s->block.floor);
    fkm_free(s->block.residual);
    fkm_free(s->block.own);
    fkm_free(s->block.own_score);
    fkm_free(s->block.count);
    fkm_free(s->block.position);
    fkm_free(s->block.upper);
    fkm_free(s->square);
    fkm_free(s->rows);
    fkm_free(s->lower);
    fkm_free(s->upper);
    fkm_free(s->heap);
    memset(s, 0, sizeof *s);
}

/* The block's rows as float32: in place, or widened into scratch. */
static const float *block_rows(
    const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t rows)
{
    int64_t at = first * job->tiles->dims;
    if (job->dtype == FKM_F32)
        return (const float *)job->x + at;
    const char *x = (const char *)job->x + (size_t)at * fkm_dtype_size(job->dtype);
    job->kernels->widen(s->rows, x, job->dtype, (int64_t)rows * job->tiles->dims);
    return s->rows;
}

/* An upper bound of |X~| from its float32 sum of squares (see screen.h). Not below FKM_NORM_MAX,
 * NaN included, means that the row cannot be screened. */
static float norm_bound(float square, int32_t dims)
{
    return sqrtf(square) * (1 + (float)(dims + 8) * 0x1p-24f) + FKM_NORM_TINY;
}

/* An upper bound of |X - X^| from the float32 sum of (X~ - X^)^2: X~ itself is one rounding off X.
 */
static float residual_bound(float square, float norm, int32_t dims)
{
    return norm_bound(square, dims) + norm * 0x1p-22f;
}

static bool screenable(float norm)
{
    return norm < FKM_NORM_MAX;
}

/* Scores the centroid that the row had: the search starts from there. */
static void warm_start(const fkm_assign_job *job, fkm_row_block *b, int32_t row, int32_t label)
{
    const fkm_tiles *t = job->tiles;
    b->own[row] = -1;
    b->floor[row] = FKM_FLOOR_NONE;
    if (label < 0 || label >= t->clusters)
        return;
    int32_t p = t->position[label];
    const float *x = b->x + (int64_t)row * t->dims, *c = t->rows + (int64_t)p * t->dims;
    float score = job->kernels->dot(x, t->shift, t->scale, c, t->dims) - t->half[p];
    b->own[row] = p;
    b->own_score[row] = score;
    b->floor[row] = score - (b->norm[row] * t->slope[p] + t->offset[p] + b->slack[row]);
}

static void start_block(
    const fkm_assign_job *job, fkm_assign_scratch *s, const float *x, int64_t first, int32_t rows)
{
    const fkm_kernels *k = job->kernels;
    const fkm_tiles *t = job->tiles;
    fkm_row_block *b = &s->block;
    b->rows = rows;
    b->x = x;
    int32_t padded = (int32_t)fkm_round_up(rows, k->panel);
    for (int32_t r = 0; r < padded; r += k->panel) {
        int32_t live = rows - r < k->panel ? rows - r : k->panel;
        k->pack(b->panels + (size_t)(r / k->panel) * fkm_panel_bytes(k, t->dims), s->square + r,
            b->residual + r, x + (int64_t)r * t->dims, live, t->dims, t->shift, t->scale);
    }
    for (int32_t r = 0; r < padded; r++) {
        float norm = norm_bound(s->square[r], t->dims);
        bool live = r < rows && screenable(norm);
        b->count[r] = 0;
        b->norm[r] = live ? norm : 0;
        b->slack[r] = live ? t->kappa * norm * norm : 0;
        b->residual[r] = live && k->low ? residual_bound(b->residual[r], norm, t->dims) : 0;
        if (live)
            warm_start(job, b, r, job->labels[first + r]);
        else
            b->floor[r] = -FKM_FLOOR_NONE; /* nothing reaches it */
    }
}

static void screen_block(const fkm_assign_job *job, fkm_assign_scratch *s)
{
    const fkm_kernels *k = job->kernels;
    const fkm_tiles *t = job->tiles;
    int32_t panels = (s->block.rows + k->panel - 1) / k->panel;
    int32_t range = (int32_t)fkm_max_i64(1, TILE_RANGE_BYTES / (int64_t)t->tile_bytes);
    for (int32_t begin = 0; begin < t->count; begin += range) {
        int32_t end = t->count - begin < range ? t->count : begin + range;
        k->screen(&s->block, 0, panels, t, begin, end);
    }
}

/* The nearest centroid found so far, by canonical distance, ties to the lowest index. */
typedef struct nearest {
    double distance;
    int32_t label;
    bool known; /* distance has been computed */
} nearest;

static void consider(const fkm_assign_job *job, nearest *best, const float *x, int32_t label)
{
    int32_t dims = job->tiles->dims;
    double d = job->kernels->canonical(x, job->centroids + (int64_t)label * dims, dims);
    if (best->label < 0 || d < best->distance || (d == best->distance && label < best->label))
        *best = (nearest){d, label, true};
}

static bool finite_row(const float *x, int32_t dims)
{
    for (int32_t t = 0; t < dims; t++)
        if (!isfinite(x[t]))
            return false;
    return true;
}

static nearest decide_against_all(const fkm_assign_job *job, const float *x)
{
    nearest best = {0, -1, true};
    for (int32_t j = 0; j < job->tiles->clusters; j++)
        consider(job, &best, x, j);
    return best;
}

/* Too many candidates to keep: with the floor now at its final height, go through all again. */
static nearest rescan(const fkm_assign_job *job, fkm_assign_scratch *s, int32_t row, const float *x)
{
    const fkm_tiles *t = job->tiles;
    const fkm_row_block *b = &s->block;
    nearest best = {0, -1, true};
    s->counts.rescans++;
    for (int32_t p = 0; p < t->clusters; p++) {
        const float *c = t->rows + (int64_t)p * t->dims;
        float score = job->kernels->dot(x, t->shift, t->scale, c, t->dims) - t->half[p];
        float e = b->norm[row] * t->slope[p] + t->offset[p] + b->slack[row];
        if (score + e < b->floor[row])
            continue;
        s->counts.candidates++;
        consider(job, &best, x, t->index[p]);
    }
    return best;
}

static nearest decide(const fkm_assign_job *job, fkm_assign_scratch *s, int32_t row, const float *x)
{
    const fkm_tiles *t = job->tiles;
    fkm_row_block *b = &s->block;
    if (!screenable(norm_bound(s->square[row], t->dims))) {
        if (!finite_row(x, t->dims))
            return (nearest){NAN, -1, true};
        s->counts.in_doubt++;
        s->counts.candidates += t->clusters;
        return decide_against_all(job, x);
    }
    int32_t n = fkm_block_settle(b, row);
    const int32_t *position = b->position + (int64_t)row * FKM_CANDIDATES;
    assert(n != 0);
    if (n == 1) {
        s->counts.candidates++;
        return (nearest){0, t->index[position[0]], false};
    }
    s->counts.in_doubt++;
    if (n < 0)
        return rescan(job, s, row, x);
    s->counts.candidates += n;
    nearest best = {0, -1, true};
    for (int32_t i = 0; i < n; i++)
        consider(job, &best, x, t->index[position[i]]);
    return best;
}

void fkm_assign_block(const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t rows)
{
    int32_t dims = job->tiles->dims;
    const float *x = block_rows(job, s, first, rows);
    start_block(job, s, x, first, rows);
    screen_block(job, s);
    for (int32_t r = 0; r < rows; r++) {
        const float *row = x + (int64_t)r * dims;
        nearest best = decide(job, s, r, row);
        s->counts.rows += best.label >= 0;
        s->counts.skipped += best.label < 0;
        s->counts.moved += best.label != job->labels[first + r];
        job->labels[first + r] = best.label;
        if (!job->distances)
            continue;
        if (!best.known)
            best.distance =
                job->kernels->canonical(row, job->centroids + (int64_t)best.label * dims, dims);
        job->distances[first + r] = best.distance;
    }
}

/* ---- several nearest centroids a row ---- */

/* Keeps the `top` largest values seen in a min-heap. */
static void heap_offer(float *heap, int32_t *size, int32_t top, float v)
{
    int32_t i;
    if (*size < top) {
        for (i = (*size)++; i > 0 && heap[(i - 1) / 2] > v; i = (i - 1) / 2)
            heap[i] = heap[(i - 1) / 2];
        heap[i] = v;
        return;
    }
    if (v <= heap[0])
        return;
    for (i = 0;;) {
        int32_t child = 2 * i + 1;
        if (child >= top)
            break;
        if (child + 1 < top && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= v)
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = v;
}

/* Score bounds of every centroid for one row; returns the `top`-th largest lower bound. */
static float bound_all(const fkm_assign_job *job, fkm_assign_scratch *s, const float *x)
{
    const fkm_tiles *t = job->tiles;
    float norm = norm_bound(s->square[0], t->dims), slack = t->kappa * norm * norm;
    int32_t size = 0;
    for (int32_t p = 0; p < t->clusters; p++) {
        const float *c = t->rows + (int64_t)p * t->dims;
        float score = job->kernels->dot(x, t->shift, t->scale, c, t->dims) - t->half[p];
        float e = norm * t->slope[p] + t->offset[p] + slack;
        s->lower[p] = score - e;
        s->upper[p] = score + e;
        heap_offer(s->heap, &size, job->top, s->lower[p]);
    }
    return s->heap[0];
}

/* Inserts (d, label) into a list of `size` sorted entries, at most `top`. */
static void insert(
    int32_t *label, double *distance, int32_t *size, int32_t top, double d, int32_t j)
{
    int32_t i = *size;
    if (i == top) {
        if (d > distance[top - 1] || (d == distance[top - 1] && j > label[top - 1]))
            return;
        i--;
    } else {
        (*size)++;
    }
    for (; i > 0 && (distance[i - 1] > d || (distance[i - 1] == d && label[i - 1] > j)); i--) {
        distance[i] = distance[i - 1];
        label[i] = label[i - 1];
    }
    distance[i] = d;
    label[i] = j;
}

static void nearest_of_row(const fkm_assign_job *job, fkm_assign_scratch *s, const float *x,
    int32_t *label, double *distance)
{
    const fkm_tiles *t = job->tiles;
    int32_t size = 0;
    for (int32_t i = 0; i < job->top; i++) {
        label[i] = -1;
        distance[i] = NAN;
    }
    job->kernels->pack(
        s->block.panels, s->square, s->block.residual, x, 1, t->dims, t->shift, t->scale);
    bool bounded = job->top > 1 && screenable(norm_bound(s->square[0], t->dims));
    if (!bounded && !finite_row(x, t->dims)) {
        s->counts.skipped++;
        return;
    }
    float floor = bounded ? bound_all(job, s, x) : 0;
    for (int32_t p = 0; p < t->clusters; p++) {
        if (bounded && s->upper[p] < floor)
            continue;
        int32_t j = t->index[p];
        double d = job->kernels->canonical(x, job->centroids + (int64_t)j * t->dims, t->dims);
        insert(label, distance, &size, job->top, d, j);
        s->counts.candidates++;
    }
    s->counts.rows++;
}

void fkm_assign_nearest(
    const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t rows)
{
    const float *x = block_rows(job, s, first, rows);
    for (int32_t r = 0; r < rows; r++)
        nearest_of_row(job, s, x + (int64_t)r * job->tiles->dims,
            job->labels + (first + r) * job->top, job->distances + (first + r) * job->top);
}

void fkm_assign_distances(
    const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t rows)
{
    int32_t dims = job->tiles->dims;
    const float *x = block_rows(job, s, first, rows);
    for (int32_t r = 0; r < rows; r++) {
        int64_t label = job->labels[first + r];
        job->distances[first + r] = label < 0 ? NAN
                                              : job->kernels->canonical(x + (int64_t)r * dims,
                                                    job->centroids + label * dims, dims);
    }
}
