/* The rows farthest from their own centroids: donors for clusters that run empty.
 *
 * A row that lies on its centroid is none, nor is one that is alone in its cluster: that moves onto
 * it anyway, so another cluster would win nothing there. */
#ifndef FKM_FARTHEST_H
#define FKM_FARTHEST_H

#include "backend.h"

typedef struct fkm_far_row {
    double distance;
    int64_t row;
} fkm_far_row;

/* The farthest `room` of the rows offered so far, ties to the lowest row. Begins with size 0 and an
 * array that the owner allocates. */
typedef struct fkm_farthest {
    fkm_far_row *rows; /* [room]: a heap with the least far on top, once it is full */
    int32_t size, room;
    bool complete; /* all rows of the last pass were offered */
} fkm_farthest;

/* Offers the rows of a chunk that have a label; distances: [rows->count], to their own centroid.
 * counts: rows of each cluster, or NULL while they are not known. */
void fkm_farthest_offer(fkm_farthest *f, const fkm_rows *rows, const int32_t *labels,
    const double *distances, const int64_t *counts);

/* Once counts are known: drops rows that are alone in their clusters. labels: of all rows. True
 * when what is left are all donors that there are, or at least `wanted` of them, the farthest ones.
 */
bool fkm_farthest_settle(
    fkm_farthest *f, const int32_t *labels, const int64_t *counts, int32_t wanted);

/* Sorts f->rows, farthest first: the last thing that is done with it. */
void fkm_farthest_sort(fkm_farthest *f);

#endif
