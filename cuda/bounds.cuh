/* Bounds that spare rows the search (after Hamerly 2010, with all rounding accounted for), in one
 * float a row.
 *
 * In the units of the frame (distances times s), let a be the distance of a row to the centroid of
 * its label, b the least distance to any other. The row keeps
 *
 *   slack <= b - (1 + ETA) a,     ETA = 2^-20.
 *
 * When centroid j moves by delta_j, a grows by at most delta of the row's own, b shrinks by at most
 * the largest delta of another. So slack - drop of its label holds afterwards:
 *
 *   drop_j = (1 + ETA) delta_j + max over i != j of delta_i.
 *
 * While slack > 0 the label is what it was: true squared distances differ by a factor above 1 + 2
 * ETA, canonical ones are within (dims / 8 + 8) 2^-53 < 2^-35 of them. delta is known to 2^-35 of
 * itself (finalise.cu), and gets 2^-20. Every rounding is upward in drop, downward in slack.
 *
 * From a screen. With f its floor and s = max(second, floor - reach) of assign.cuh, in the frame:
 * every centroid but the label has a true score S <= s, and the label's is at least f, less what
 * canonical distances may differ (a centroid of score f is not nearer in them than the label: a
 * grows by 2^-35 of itself at most). With N = |X|^2, squared distances are N - 2 S, so
 *
 *   b - (1 + ETA) a >= sqrt(N - 2 s) - (1 + ETA + 2^-30) sqrt(N - 2 f).
 *
 * For s < f this falls as N grows. So N <= nx^2 (1 + 2^-21) may stand for it, and how far nx is
 * above |X| costs nearly nothing:
 *
 *   = 2 (f - s) / (sqrt(N - 2 s) + sqrt(N - 2 f)) - (ETA + 2^-30) sqrt(N - 2 f),
 *
 * in float64, less 2^-40 of the roots. In the kernels f and s have gone through a few additions in
 * float32 beside those that margin.cuh has paid for (floor - reach, top + margin): ETA of |f| +
 * |s|, 16 u of each, is taken off f and added to s.
 *
 * `reach` decides how much slack a row can get: rivals farther below the floor are not looked at
 * one by one. It is chosen so that a row is spared for some passes if centroids go on as they do;
 * any value is right.
 *
 * tests/cuda/test_cuda_bounds: rows for which half of drop is too little. */
#ifndef FKM_BOUNDS_CUH
#define FKM_BOUNDS_CUH

#include "assign.cuh"
#include "pack.cuh"

/* The largest of some movements, where it is, and the largest of the others. */
struct fkm_top_two {
    float most, next;
    int32_t at;
};
#define FKM_TOP_TWOS 256 /* parts that clusters are looked through in, at most */

/* drop: [clusters], what rows of a label lose by the movement `shift` of all centroids, [clusters]
 * in data units; scale: of the frame. add: to what is there already. part: [FKM_TOP_TWOS] scratch.
 */
cudaError_t fkm_bounds_move(float *drop, fkm_top_two *part, const double *shift, int32_t clusters,
    float scale, bool add, cudaStream_t stream);

/* Takes drop (NULL: nothing has moved) off the slack of rows, and lists those with none left: row
 * [*listed], in no particular order. labels: [rows]; *listed is zero before. spared += the others.
 */
cudaError_t fkm_bounds_list(int32_t *row, unsigned *listed, unsigned long long *spared,
    float *slack, const int32_t *labels, const float *drop, int32_t rows, cudaStream_t stream);

/* Of rows that have been screened and resolved. */
struct fkm_bounds_args {
    float *slack; /* [rows] out */
    const int32_t *labels;
    const float *norm;           /* [rows]: of the packed rows */
    const float *floor, *second; /* [rows], in units of the score */
    float score_unit;            /* brings them to the frame */
    const int32_t *row;          /* as in fkm_assign_args */
    const unsigned *listed;
    int32_t rows;
};
cudaError_t fkm_bounds_set(const fkm_bounds_args *a, cudaStream_t stream);

#endif
