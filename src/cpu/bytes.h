/* What the byte kernels share: rows of 8-bit integers as they are, centroids rounded to integers.
 *
 * Rows are unsigned bytes: signed ones are raised by `bias` = 128, which H gives back. With at most
 * FKM_BYTES_MOST_DIMS dims, |sum x_t g_t| <= 5.4e8, the bias is worth 2.7e8 at most, and centroids
 * with |H| above 1.1e9 (far outside the range of the data) are not scored: so no 32-bit sum
 * overflows, and padding at PAD_SCORE lies below all scores. */
#ifndef FKM_BYTES_H
#define FKM_BYTES_H

enum { BYTES_STEP = 64, SIGNED_BIAS = 128 };

#define PAD_SCORE (-2000000000)
#define MOST_H 1.07e9

#endif
