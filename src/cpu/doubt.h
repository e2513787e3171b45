/* What rows in doubt cost, and when to screen more finely: rounding widens margins by a part of the
 * rows' distance from the shift, so that where many centroids share a dense, distant cluster it
 * leaves rows with dozens of candidates, to be judged one by one. Screening in float32 then takes
 * less time in all, though it multiplies more slowly. */
#ifndef FKM_DOUBT_H
#define FKM_DOUBT_H

#include "assign.h"

typedef struct fkm_doubt {
    double rounded; /* cycles a row when finer kernels were taken; 0: they have not been */
    bool settled;   /* they were no better: what is left in doubt are ties */
    bool tried;     /* by a sample */
} fkm_doubt;

/* What it took to judge what screening had left, in cycles a row, by a model; c: of a row at least.
 */
double fkm_doubt_cycles(const fkm_tiles *t, const fkm_assign_counts *c);

/* After so many rows: the kernels to go on with, t->kernels or others. usual: those of the plan. */
const fkm_kernels *fkm_doubt_judge(
    fkm_doubt *d, const fkm_tiles *t, const fkm_kernels *usual, const fkm_assign_counts *c);

/* The same by a sample of rows without labels, before a pass of which job is a part; they have none
 * afterwards. s: scratch of block_rows. */
const fkm_kernels *fkm_doubt_try(fkm_doubt *d, const fkm_assign_job *job, const fkm_kernels *usual,
    fkm_assign_scratch *s, int32_t block_rows);

#endif
