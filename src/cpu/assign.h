/* Assignment of blocks of rows: screen, then decide what is left by the canonical distance. */
#ifndef FKM_ASSIGN_H
#define FKM_ASSIGN_H

#include "store.h"
#include "update.h"

/* What all blocks of a chunk share. Blocks are cut from the positions [0, count): of the list when
 * there is one, else of the store, else the rows as they come. */
typedef struct fkm_assign_job {
    const fkm_tiles *tiles; /* with their kernels */
    const float *centroids; /* [clusters][dims], the master copy */
    fkm_dtype dtype;
    const void *x;        /* [rows][dims] of dtype */
    fkm_row_store *store; /* NULL: rows are packed as they come */
    bool pack;            /* the store's panels are stale: lay its rows out again */
    bool keep;            /* in the store; else in scratch */
    const bool *moved;    /* [clusters]: since rows were given the labels that they have, each the
                             nearest then; NULL: not known */
    const int32_t *list;  /* [count]: which positions (of the store, or rows), when not all */
    float *upper, *lower; /* bounds to fill, see bounds.h; NULL: not wanted */
    bool by_row;          /* they are in the order of rows, not of positions */
    bool apart, apart_known; /* keep the store's distances; they hold */
    bool reach_known;        /* and so does what panels reached in the last pass */
    bool bounds_hold;        /* upper and lower do, of rows that are not looked at */
    const bool *moved_lot;   /* [lots]: does it hold any that have? when moved is known */
    int64_t count;
    int32_t *labels;    /* [rows]; see fkm_backend_ops.feed */
    double *distances;  /* [rows] or NULL */
    fkm_update *update; /* sums to keep; NULL: none */
    bool rebuild;       /* add every row, not only those that move */
    bool squares;       /* of every row, too */
    bool trial;         /* floors as low as those of kept rows: of rounded scores */
    int32_t top;        /* fkm_assign_nearest: labels and distances are [count][top] */
    const void *stop; /* see fkm_plan: a block that is begun may then be left, as if it were not */
} fkm_assign_job;

typedef struct fkm_assign_counts {
    int64_t rows, skipped, moved, in_doubt, candidates, rescans;
    int64_t apart;  /* pairs of a panel and a lot left out */
    int64_t rested; /* rows of panels that were not screened */
    double sums_s;  /* time spent on sums */
} fkm_assign_counts;

void fkm_assign_counts_add(fkm_assign_counts *to, const fkm_assign_counts *c);

/* One worker's scratch. */
typedef struct fkm_assign_scratch {
    int worker; /* as the pool numbers it */
    fkm_row_block block;
    int64_t *index;                         /* [block_rows]: which row of x */
    int32_t *old, *label;                   /* [block_rows]: before and after */
    int32_t *some;                          /* [block_rows]: rows in doubt, then rows that move */
    bool *rests;                            /* [panels of a block]: is it not screened? */
    float *rows;                            /* [panel][dims]: rows widened; NULL for float32 */
    char *panels;                           /* of a block that is packed as it comes */
    float *norm, *residual, *tail, *square; /* [block_rows] */
    float *framed, *turned; /* [panel][dims]: a panel's rows in the frame, and their heads */
    float *zero;            /* [dims] */
    float *lower, *upper;   /* [clusters], for fkm_assign_nearest; NULL when top is 1 */
    float *heap;            /* [top] */
    fkm_assign_counts counts;
} fkm_assign_scratch;

/* Most rows of a block: as many panels as suit the cache. */
int32_t fkm_assign_block_rows(const fkm_kernels *k, int32_t dims);

/* Of `rows`, a block as k packs them, how many fit when `now` packs: k, or what is finer. */
int32_t fkm_assign_rows_by(
    const fkm_kernels *now, const fkm_kernels *k, int32_t rows, int32_t dims);

/* rows: of a block, whole panels, at most fkm_assign_block_rows. */
int64_t fkm_assign_scratch_bytes(const fkm_kernels *k, int32_t rows, int32_t clusters, int32_t dims,
    fkm_dtype dtype, int32_t top);
fkm_status fkm_assign_scratch_open(fkm_assign_scratch *s, const fkm_kernels *k, int32_t rows,
    int32_t clusters, int32_t dims, fkm_dtype dtype, int32_t top, fkm_err *e) FKM_MUST_USE;
void fkm_assign_scratch_close(fkm_assign_scratch *s); /* safe on zeroed structs */

/* Labels the rows at positions [first, first + rows) and brings the sums up to date; rows <=
 * those of a block, first a multiple of it. Adds to s->counts. */
void fkm_assign_block(
    const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t rows);

/* Adds all rows at the same positions of the store to the sums, by the labels that it has. */
void fkm_assign_sums(const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t rows);

/* The job->top nearest centroids of the same rows. */
void fkm_assign_nearest(
    const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t rows);

/* job->distances[i] = canonical distance to job->labels[i] (NaN for -1), same rows. */
void fkm_assign_distances(
    const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t rows);

#endif
