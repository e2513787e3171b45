/* A look at a few panels: see probe.h. */
#include "probe.h"

#include "kernels.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

/* It pays when so few centroids are in reach of a panel as make so few picked tiles, beside that of
 * its own: these take two to three times as long as whole ones, and to fill distances takes a third
 * of a pass. */
#define MOST_PICKED 0.16 /* of the tiles */
#define PROBED 8         /* panels */
#define PROBE_STRIDE 16  /* of centroids */
#define MOST_ROWS 64     /* of a panel */

/* A panel, and how far its rows and their centroids are from where they were. */
typedef struct look {
    const fkm_probe *probe;
    float square[MOST_ROWS], own[MOST_ROWS]; /* of rows: |X|^2, distances to their centroids */
    int32_t rows;
    double moved; /* most that one of those has */
    atomic_int near;
} look;

/* In the frame; float32 will do. */
static float distance(const look *l, int32_t row, int32_t position)
{
    const fkm_tiles *t = l->probe->tiles;
    const float *x = l->probe->x + (int64_t)row * t->dims;
    const float *c = t->rows + (int64_t)position * t->dims;
    const float score = t->kernels->dot(x, t->shift, t->scale, c, t->dims) - t->half[position];
    return sqrtf(fmaxf(0, l->square[row] - 2 * score));
}

/* Will this centroid be in reach? */
static void look_at_centroid(void *arg, int64_t block, int index)
{
    (void)index;
    const int64_t position = block * PROBE_STRIDE;
    look *l = arg;
    const fkm_tiles *t = l->probe->tiles;
    float gap = INFINITY;
    for (int32_t r = 0; r < l->rows; r++)
        gap = fminf(gap, distance(l, r, (int32_t)position) - l->own[r]);
    const double moved = l->probe->shift[t->index[position]] + l->moved;
    const double shift = l->probe->ahead * moved * (double)t->scale;
    atomic_fetch_add_explicit(&l->near, (double)gap <= shift, memory_order_relaxed);
}

/* At the panel at position `first` of the store. */
static void start(look *l, const fkm_probe *p, int64_t first)
{
    const fkm_tiles *t = p->tiles;
    const int32_t dims = t->dims;
    const size_t row_bytes = (size_t)dims * fkm_dtype_size(p->dtype);
    *l = (look){.probe = p};
    for (int64_t at = first; at < first + t->kernels->panel && at < p->rows->count; at++) {
        float *x = p->x + (int64_t)l->rows * dims;
        const char *from = (const char *)p->rows->x + (size_t)p->store->order[at] * row_bytes;
        const int32_t label = p->store->label[at];
        if (p->dtype == FKM_F32)
            memcpy(x, from, row_bytes);
        else
            t->kernels->widen(x, from, p->dtype, dims);
        float square = 0;
        for (int32_t d = 0; d < dims; d++) {
            const float v = x[d] * t->scale - t->shift[d];
            square += v * v;
        }
        if (label < 0 || !isfinite(square))
            continue;
        l->square[l->rows] = square;
        l->own[l->rows] = distance(l, l->rows, t->position[label]);
        l->moved = fmax(l->moved, p->shift[label]);
        l->rows++;
    }
}

bool fkm_probe_pays(const fkm_probe *p, fkm_pool *pool)
{
    const fkm_tiles *t = p->tiles;
    const int32_t panel = t->kernels->panel;
    const int32_t sample = (t->clusters + PROBE_STRIDE - 1) / PROBE_STRIDE;
    int64_t near = 0;
    for (int64_t i = 0; i < PROBED; i++) {
        look l;
        const int64_t panels = p->rows->count / panel;
        start(&l, p, panels * (2 * i + 1) / (2 * PROBED) * panel);
        fkm_pool_for(pool, sample, look_at_centroid, &l);
        near += l.near;
    }
    const double share = (double)near / (PROBED * sample); /* of centroids, and of tiles, but one */
    return share * t->count + 1 <= MOST_PICKED * t->count;
}
