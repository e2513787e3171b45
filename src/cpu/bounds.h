/* Bounds that spare rows the search (after Hamerly 2010, with all rounding accounted for).
 *
 * In the units of the frame (distances times s), each row keeps
 *   upper >= its distance to its own centroid,    lower <= its distance to every other centroid.
 * When centroids move, upper grows by the movement of the own one, lower shrinks by the largest
 * movement of another. While upper (1 + 2^-20) < lower, the label cannot have changed: true
 * distances differ by a factor above 1 + 2^-20, canonical ones are within (dims / 8 + 8) 2^-53 <
 * 2^-35 of them.
 *
 * From a screen: |X - C|^2 = |X|^2 - 2 S. The own centroid is the best, so its true score is at
 * least `floor` less the canonical slack; the others' are at most `second`. The float32 arithmetic
 * below errs by a few 2^-24 of the terms, which ETA covers. nx is above |X| by at most the factor
 * (1 + dims 2^-24)^(1/2), of its sum of squares, times (1 + (dims + 12) 2^-24), of norm_bound:
 * (1 + a)^-3 >= 1 - 3a gives |X|^2 >= nx^2 (1 - (3 dims + 64) 2^-24). */
#ifndef FKM_BOUNDS_H
#define FKM_BOUNDS_H

#include "screen.h"

typedef struct fkm_bounds {
    float *upper, *lower; /* [rows] of the problem */
    bool valid;           /* hold for the centroids before they moved by `shift` */
    bool collect;         /* the pass at hand fills them */
    uint32_t frame;       /* whose units they are in */
    int32_t clusters;
    float *shift;                 /* [clusters]: how far centroids have moved since; rounded up */
    float shift_most, shift_next; /* the largest, and the largest but for that one's */
    int32_t shift_most_at;
    int64_t settled, seen;   /* rows spared of rows looked at, in this pass */
    int32_t pause, patience; /* passes to go without bounds; doubled when they do not pay */
} fkm_bounds;

int64_t fkm_bounds_bytes(int64_t rows, int32_t clusters);
fkm_status fkm_bounds_open(fkm_bounds *b, int64_t rows, int32_t clusters, fkm_err *e) FKM_MUST_USE;
void fkm_bounds_close(fkm_bounds *b); /* safe on zeroed structs */

/* Before a pass over rows screened in `frame`: decides whether bounds are used and filled. `known`:
 * rows have labels already, and another pass may follow. */
void fkm_bounds_begin(fkm_bounds *b, uint32_t frame, bool known);

/* After a pass: what it filled is valid. Bounds that spare few rows are left alone for a while. */
void fkm_bounds_end(fkm_bounds *b);

/* After centroids moved by shift[j] (in data units, float64): [clusters], as often as they do
 * before the next pass; none is no movement. scale: of the frame. */
void fkm_bounds_move(fkm_bounds *b, const double *shift, float scale);

/* Brings the bounds of rows [row0, row0 + count) up to date and lists those that are not settled:
 * list: [count], indices from 0. Returns how many; count when bounds are not in use. */
int64_t fkm_bounds_list(
    fkm_bounds *b, int32_t *list, int64_t row0, const int32_t *labels, int64_t count);

/* The same for rows that need not be at hand: true when all are settled; else nothing is changed.
 */
bool fkm_bounds_settle(fkm_bounds *b, int64_t row0, const int32_t *labels, int64_t count);

/* The bounds of row r of a block that has been screened with rivals; `same`: its label has not
 * changed. beyond: at most its distance to any centroid that it was not screened against. */
void fkm_bounds_set(float *upper, float *lower, const fkm_row_block *b, int32_t r, int32_t dims,
    float beyond, bool same);

#endif
