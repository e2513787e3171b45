/* Update: the sums of clusters, as integers, to which rows are added while they are at hand.
 *
 * A pass that knows no sums adds every row; later ones move the rows whose label has changed, out
 * of the old cluster's sum and into the new one's. Sums are integers, so neither the order of rows,
 * nor the split over threads, nor a sum having been changed instead of rebuilt makes a difference
 * of a bit.
 *
 * Threads add to copies of the sums, one each while copies are small, else shared; each cluster of
 * a copy has a lock, held for one row. Rows come from the block that has just been labelled: in the
 * cache, and mostly of few clusters. */
#ifndef FKM_UPDATE_H
#define FKM_UPDATE_H

#include "../backend.h"
#include "../base/pool.h"
#include "kernels.h"
#include <stdatomic.h>

/* What one worker adds up by itself. */
typedef struct fkm_update_part {
    fkm_i128 square_low, square_high; /* sum of squares, by parts of each square */
    fkm_u128 square_bytes;            /* the same of 8-bit integers, not scaled */
    fkm_exact exact;                  /* the same of 128-bit sums; scratch of the inertia */
    char apart[64];
} fkm_update_part;

typedef struct fkm_update {
    const fkm_kernels *kernels;
    fkm_pool *pool;
    int32_t clusters, dims;
    bool wide_room;     /* there is room for 128-bit integers */
    fkm_scale scale;    /* of the sums; wide: elements are fkm_i128, else int64_t */
    double unit;        /* 2^scale.exponent */
    bool shared;        /* two workers may add to one copy */
    int32_t copies;     /* worker w adds to copy w mod copies */
    void *sum;          /* [copies][clusters], each of [dims] and with room for the widest; copy 0
                         * is the sum between passes */
    int64_t *count;     /* [copies][clusters] */
    atomic_uchar *lock; /* [copies][clusters] */
    uint8_t *touched;   /* [copies][clusters]: since copies were merged, under the lock; copy 0:
                         * since centroids moved */
    int32_t part_count;
    fkm_update_part *parts; /* [part_count], one a worker at least */
    float *means;           /* [threads][dims]: scratch of the move */
    fkm_exact squares;      /* sum over all rows of |q|^2 2^-2exponent */
} fkm_update;

int64_t fkm_update_bytes(int32_t clusters, int32_t dims, bool wide, int32_t threads);
fkm_status fkm_update_open(fkm_update *u, const fkm_kernels *k, fkm_pool *pool, int32_t clusters,
    int32_t dims, bool wide, fkm_err *e) FKM_MUST_USE;
void fkm_update_close(fkm_update *u); /* safe on zeroed structs */

/* Fixed point of the sums from now on; what they hold is void. */
void fkm_update_scale(fkm_update *u, fkm_scale s);

/* Clears sums and counts, and the squares when they are to be collected again. */
void fkm_update_clear(fkm_update *u, bool squares);

/* Can rows of type t be added as they are? Others are to be made FKM_F32. */
bool fkm_update_takes(const fkm_update *u, fkm_dtype t);

/* Adds row x: [dims] of type t to a cluster, or takes it out. From any thread of the pool. */
void fkm_update_row(
    fkm_update *u, int worker, const void *x, fkm_dtype t, int32_t cluster, bool leaves);

/* Adds its square to what the inertia is made of. */
void fkm_update_square(fkm_update *u, int worker, const void *x, fkm_dtype t);

/* After the last row of a pass; squares: it collected them. Returns the inertia against centroids
 * c: [clusters][dims]; see base/inertia.h. */
double fkm_update_end(fkm_update *u, bool squares, const float *c);

/* Centroids are not, or no longer, where a move has left them. */
void fkm_update_replaced(fkm_update *u);

/* What is to be done with centroid j, c: [dims], that has moved, while it is in the caches. */
typedef void fkm_update_moved(void *arg, int32_t j, const float *c);

/* c: the mean of each cluster that has rows, in place, of the sums that fkm_update_end left; those
 * of clusters whose rows are the same as at the last move are left alone. shift: [clusters], how
 * far each has moved (the root of the canonical distance). Returns the largest. moved: called for
 * those that did, from any thread of the pool; NULL: nothing is to be done. */
double fkm_update_move(fkm_update *u, float *c, double *shift, fkm_update_moved *moved, void *arg);

#endif
