/* Sort-inverse update: rows of a chunk are brought into label order (their indices are, by a
 * counting sort), then each cluster's segment is summed in registers and cache and added to its sum
 * once.
 *
 * When few rows change their label, only those are touched: they leave the sum of the old cluster
 * and join the new one's. Sums are integers, so neither the order of rows, nor the split over
 * threads, nor a sum having been changed instead of rebuilt makes a difference of a bit. */
#ifndef FKM_UPDATE_H
#define FKM_UPDATE_H

#include "../base/pool.h"
#include "kernels.h"

typedef struct fkm_update_task {
    void *sum;  /* [4][dims] of the sum's type: the segment at hand, the partial first and last, a
                   row in fixed point */
    float *row; /* [dims]: a row widened to float32; NULL when rows are float32 */
    int32_t first, last;              /* clusters of the partial segments; -1: none */
    fkm_u128 square_low, square_high; /* sum of squares, by halves of each square */
    fkm_exact square_wide;
} fkm_update_task;

typedef struct fkm_update {
    const fkm_kernels *kernels;
    fkm_pool *pool;
    int32_t clusters, dims;
    fkm_dtype dtype;
    bool wide_room;   /* sum holds 128-bit integers */
    bool wide;        /* they are used: elements are fkm_i128, else int64_t */
    int32_t exponent; /* coordinates are added as rint(x 2^exponent) */
    void *sum;        /* [clusters][dims] */
    int64_t *count;   /* [clusters] */
    int64_t *start;   /* [clusters + 1]: segments of the chunk at hand */
    int32_t
        *order; /* [2 chunk_rows]: entries by label: row * 2, + 1 when the row leaves the cluster */
    int32_t task_count;
    fkm_update_task *tasks;
    fkm_exact squares; /* sum over all rows of |q|^2 2^-2exponent */
} fkm_update;

int64_t fkm_update_bytes(int32_t clusters, int32_t dims, int64_t chunk_rows, fkm_dtype dtype,
    bool wide, int32_t threads);
fkm_status fkm_update_open(fkm_update *u, const fkm_kernels *k, fkm_pool *pool, int32_t clusters,
    int32_t dims, int64_t chunk_rows, fkm_dtype dtype, bool wide, fkm_err *e) FKM_MUST_USE;
void fkm_update_close(fkm_update *u); /* safe on zeroed structs */

/* Zeroes sums and counts, and the squares when they are to be collected again. */
void fkm_update_clear(fkm_update *u, bool squares);

/* order: [count] = row indices by label, rows without one last. Uses scratch of u. */
void fkm_update_order(fkm_update *u, int32_t *order, const int32_t *labels, int64_t count);

/* Adds rows x: [count][dims] of dtype by labels: [count], -1 for none. */
void fkm_update_add(
    fkm_update *u, const void *x, const int32_t *labels, int64_t count, bool squares);

/* The same for rows that the sums already hold by the labels `old`: only what differs is moved. */
void fkm_update_change(
    fkm_update *u, const void *x, const int32_t *old, const int32_t *labels, int64_t count);

/* The inertia against centroids c: [clusters][dims]; see base/inertia.h. */
double fkm_update_inertia(fkm_update *u, const float *c);

/* c: the mean of each cluster that has rows, in place; shift: [clusters], how far each has moved.
 * Returns the largest. */
double fkm_update_move(const fkm_update *u, float *c, double *shift);

#endif
