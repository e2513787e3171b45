/* Quicker ways of screening, found by trial: coarser kernels, and screening by fewer coordinates,
 * the first few along the principal axes of the rows.
 *
 * Let A be [h][dims] with rows nearly orthonormal, |A A' - 1| <= gram. For vectors v, w write y = A
 * v, z = A w and v_t = v - A' y, w_t = w - A' z. Then, exactly,
 *
 *   v.w = y.z - y'(A A' - 1) z + v_t.w_t,     |v_t|^2 = |v|^2 - |y|^2 + y'(A A' - 1) y,
 *
 * so | v.w - y.z | <= gram |y| |z| + |v_t| |w_t| with |v_t|^2 <= |v|^2 - |y|^2 (1 - gram). Scores
 * of the heads y.z - |C|^2 / 2 are therefore screened with the margin of screen.h, for which X^ and
 * C^ are roundings of y and z, plus  tail_i tail_j,  tail = |v_t| rounded up. The computed heads
 * are off by fkm_turn_error of the length; that is in the residuals and in the tails. No property
 * of the data is assumed: axes that do not suit it only leave more candidates.
 *
 * Whether coarse kernels pay, or a head, and how long it is, is found by screening a sample of rows
 * each way and counting candidates (a cost model in cycles, so the choice is repeatable; results
 * never depend on it). */
#ifndef FKM_HEAD_H
#define FKM_HEAD_H

#include "assign.h"

typedef struct fkm_head {
    int32_t dims, most;       /* longest head that is tried; 0: none is */
    bool kept;                /* panels of coarse kernels are, once they have been packed */
    int32_t block_rows;       /* that scratch is made for, see assign.h */
    bool begun, decided;      /* fkm_head_begin, fkm_head_decide */
    const fkm_kernels *fine;  /* those of the plan */
    float *axes;              /* [most][dims]: orthonormal to rounding, largest variance first */
    float *sample;            /* [SAMPLE][dims]: rows in the frame */
    float *across;            /* [dims][SAMPLE]: the same, transposed */
    float *products, *turned; /* [SAMPLE][most], [most][SAMPLE] */
    float *zero, *gram;       /* [dims] zeros; [most]: error of the first axes, see above */
    int32_t *list, *saved;    /* [SAMPLE]: rows of the sample, and their labels */
} fkm_head;

/* Is there anything to try for such rows? heads: they are kept; they are too dear to make for one
 * pass. */
bool fkm_head_suits(const fkm_kernels *k, int32_t dims, bool heads);

int64_t fkm_head_bytes(const fkm_kernels *k, int32_t dims, bool heads);
fkm_status fkm_head_open(fkm_head *h, const fkm_kernels *k, int32_t dims, bool heads, bool kept,
    int32_t block_rows, fkm_err *e) FKM_MUST_USE;
void fkm_head_close(fkm_head *h); /* safe on zeroed structs */

/* Before rows have labels: chooses kernels alone. As below. */
void fkm_head_begin(fkm_head *h, fkm_tiles *t, const fkm_assign_job *job, int64_t rows,
    fkm_assign_scratch *s, fkm_pool *pool);

/* Chooses kernels, axes from the rows of `job` (a chunk with labels, without a store; the problem
 * has `rows` in all) and the length of the head, and turns *t accordingly; t was set from
 * job->centroids and is set again. s: scratch, whose counts are left as they were. */
void fkm_head_decide(fkm_head *h, fkm_tiles *t, const fkm_assign_job *job, int64_t rows,
    fkm_assign_scratch *s, fkm_pool *pool);

#endif
