/* Several nearest centroids of each row: see assign.h; the bounds are those of screen.h. */
#include "../base/stop.h"
#include "pack.h"

#include "kernels.h"

#include <math.h>

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
    float norm = fkm_norm_bound(s->square[0], t->dims), slack = t->kappa * norm * norm;
    int32_t size = 0;
    for (int32_t p = 0; p < t->clusters; p++) {
        const float *c = t->rows + (int64_t)p * t->dims;
        float score = job->tiles->kernels->dot(x, t->shift, t->scale, c, t->dims) - t->half[p];
        float e = norm * t->fine_slope[p] + t->fine_offset[p] + slack;
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

static void nearest_of_row(
    const fkm_assign_job *job, fkm_assign_scratch *s, int32_t r, int32_t *label, double *distance)
{
    const fkm_tiles *t = job->tiles;
    const float *x = fkm_row_at(job, s, r);
    const void *packed = fkm_row_to_pack(job, s, r);
    int32_t size = 0;
    for (int32_t i = 0; i < job->top; i++) {
        label[i] = -1;
        distance[i] = NAN;
    }
    job->tiles->kernels->pack(
        s->panels, s->square, s->residual, &packed, 1, t->dims, t->shift, t->scale, NULL, t->kept);
    bool bounded = job->top > 1 && fkm_screenable(fkm_norm_bound(s->square[0], t->dims));
    if (!bounded && !fkm_row_is_finite(x, t->dims)) {
        s->counts.skipped++;
        return;
    }
    float floor = bounded ? bound_all(job, s, x) : 0;
    for (int32_t p = 0; p < t->clusters; p++) {
        if (bounded && s->upper[p] < floor)
            continue;
        int32_t j = t->index[p];
        double d =
            job->tiles->kernels->canonical(x, job->centroids + (int64_t)j * t->dims, t->dims);
        insert(label, distance, &size, job->top, d, j);
        s->counts.candidates++;
    }
    s->counts.rows++;
}

void fkm_assign_nearest(
    const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t rows)
{
    for (int32_t r = 0; r < rows && !fkm_is_stopped(job->stop); r++) {
        s->index[r] = first + r;
        nearest_of_row(job, s, r, job->labels + (first + r) * job->top,
            job->distances + (first + r) * job->top);
    }
}
