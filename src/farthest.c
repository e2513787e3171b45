/* The rows farthest from their own centroids: see farthest.h. */
#include "farthest.h"

#include <stdlib.h>

/* a is a worse donor than b: nearer, or as far but a higher row. */
static bool nearer(fkm_far_row a, fkm_far_row b)
{
    return a.distance < b.distance || (a.distance == b.distance && a.row > b.row);
}

static void sift_down(fkm_far_row *heap, int32_t size, int32_t i)
{
    fkm_far_row v = heap[i];
    for (;;) {
        int32_t child = 2 * i + 1;
        if (child >= size)
            break;
        if (child + 1 < size && nearer(heap[child + 1], heap[child]))
            child++;
        if (!nearer(heap[child], v))
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = v;
}

static void offer(fkm_farthest *f, fkm_far_row v)
{
    if (f->size < f->room) {
        f->rows[f->size++] = v;
        if (f->size == f->room)
            for (int32_t i = f->room / 2; i-- > 0;)
                sift_down(f->rows, f->room, i);
    } else if (nearer(f->rows[0], v)) {
        f->rows[0] = v;
        sift_down(f->rows, f->room, 0);
    }
}

void fkm_farthest_offer(fkm_farthest *f, const fkm_rows *rows, const int32_t *labels,
    const double *distances, const int64_t *counts)
{
    for (int64_t i = 0; i < rows->count; i++)
        if (labels[i] >= 0 && distances[i] > 0 && (!counts || counts[labels[i]] > 1))
            offer(f, (fkm_far_row){distances[i], rows->row0 + i});
}

bool fkm_farthest_settle(
    fkm_farthest *f, const int32_t *labels, const int64_t *counts, int32_t wanted)
{
    const bool all = f->size < f->room;
    int32_t kept = 0;
    for (int32_t i = 0; i < f->size; i++)
        if (counts[labels[f->rows[i].row]] > 1)
            f->rows[kept++] = f->rows[i];
    f->size = kept;
    return all || kept >= wanted;
}

static int farthest_first(const void *a, const void *b)
{
    return nearer(*(const fkm_far_row *)a, *(const fkm_far_row *)b) ? 1 : -1;
}

void fkm_farthest_sort(fkm_farthest *f)
{
    qsort(f->rows, (size_t)f->size, sizeof *f->rows, farthest_first);
}
