/* Assignment of blocks of rows: screen, then decide what is left by the canonical distance. */
#ifndef FKM_ASSIGN_H
#define FKM_ASSIGN_H

#include "kernels.h"

/* Rows of a chunk laid out for screening, kept from pass to pass: rounded copies in an order of
 * their own, by label, so that a panel's rows have few centroids between them. Low kernels only. */
typedef struct fkm_row_store {
    uint32_t frame; /* of the tiles that the rows were packed with; 0: not packed */
    bool ordered;   /* by label */
    int64_t strays; /* labels that have changed since */
    int32_t *order; /* [rows rounded up to panels]: which row of the chunk */
    char *panels;
    float *norm;     /* see fkm_row_block */
    float *residual; /* negative: the row cannot be screened */
} fkm_row_store;

int64_t fkm_row_store_bytes(const fkm_kernels *k, int64_t rows, int32_t dims);
fkm_status fkm_row_store_open(
    fkm_row_store *s, const fkm_kernels *k, int64_t rows, int32_t dims, fkm_err *e) FKM_MUST_USE;
void fkm_row_store_close(fkm_row_store *s); /* safe on zeroed structs */

/* What all blocks of a chunk share. */
typedef struct fkm_assign_job {
    const fkm_kernels *kernels;
    const fkm_tiles *tiles;
    const float *centroids; /* [clusters][dims], the master copy */
    fkm_dtype dtype;
    const void *x;        /* [count][dims] of dtype */
    fkm_row_store *store; /* NULL: rows are packed as they come */
    const int32_t *list;  /* [count]: which rows, when not all; x, labels, distances and bounds are
                             those of the whole chunk. NULL: rows [0, count). Not with a store */
    float *upper, *lower; /* bounds to fill, see bounds.h; NULL: not wanted. Low kernels only */
    int64_t count;
    int32_t *labels;   /* [count]; see fkm_backend_ops.feed */
    double *distances; /* [count] or NULL */
    int32_t top;       /* fkm_assign_nearest: labels and distances are [count][top] */
} fkm_assign_job;

typedef struct fkm_assign_counts {
    int64_t rows, skipped, moved, in_doubt, candidates, rescans;
} fkm_assign_counts;

/* One worker's scratch. */
typedef struct fkm_assign_scratch {
    fkm_row_block block;
    float *rows;  /* [block_rows][dims]: rows widened or gathered; NULL when neither is needed */
    char *panels; /* of a block that is packed as it comes */
    float *norm, *residual, *square; /* [block_rows] */
    float *lower, *upper;            /* [clusters], for fkm_assign_nearest; NULL when top is 1 */
    float *heap;                     /* [top] */
    fkm_assign_counts counts;
} fkm_assign_scratch;

/* Rows of a block: as many panels as suit the cache. */
int32_t fkm_assign_block_rows(const fkm_kernels *k, int32_t dims);

int64_t fkm_assign_scratch_bytes(
    const fkm_kernels *k, int32_t clusters, int32_t dims, fkm_dtype dtype, int32_t top);
fkm_status fkm_assign_scratch_open(fkm_assign_scratch *s, const fkm_kernels *k, int32_t clusters,
    int32_t dims, fkm_dtype dtype, int32_t top, fkm_err *e) FKM_MUST_USE;
void fkm_assign_scratch_close(fkm_assign_scratch *s); /* safe on zeroed structs */

/* Packs rows [first, first + rows) of the store's order anew, in the frame of job->tiles; rows <=
 * block_rows, first a multiple of the panel. The caller sets frame and order. */
void fkm_assign_pack(const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t rows);

/* Labels rows [first, first + rows) of the job, in the order of its store if it has one; rows <=
 * block_rows, first a multiple of it. Adds to s->counts. */
void fkm_assign_block(
    const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t rows);

/* The job->top nearest centroids of the same rows. */
void fkm_assign_nearest(
    const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t rows);

/* job->distances[i] = canonical distance to job->labels[i] (NaN for -1), same rows. */
void fkm_assign_distances(
    const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t rows);

#endif
