/* Screening by fewer coordinates: the first few along the principal axes of a sample of rows.
 *
 * Let A be [h][dims] with rows nearly orthonormal, |A A' - 1| <= gram. For vectors v, w write y = A
 * v, z = A w and v_t = v - A' y, w_t = w - A' z. Then, exactly,
 *
 *   v.w = y.z - y'(A A' - 1) z + v_t.w_t,     |v_t|^2 = |v|^2 - |y|^2 + y'(A A' - 1) y,
 *
 * from which margin.cuh takes its bounds. No property of the data is assumed: axes that do not suit
 * it leave more candidates. Whether a head pays, and how long it is, is found by screening the
 * sample with a few lengths and counting what is left; results never depend on it. */
#ifndef FKM_HEAD_CUH
#define FKM_HEAD_CUH

#include <stdint.h>

extern "C" {
#include "../src/base/status.h"
}

#define FKM_HEAD_SAMPLE 1024

/* Are heads worth trying with so many dims? Then FKM_HEAD_MOST axes are found. */
bool fkm_head_suits(int32_t dims);

/* axes: [FKM_HEAD_MOST][dims], orthonormal to rounding, largest variance first; gram[n - 1]: at
 * least |A A' - 1| of the first n. sample: [FKM_HEAD_SAMPLE][dims]. FKM_ENOMEM. */
fkm_status fkm_head_axes(
    float *axes, float *gram, const float *sample, int32_t dims, int32_t threads, fkm_err *e);

/* What screening left of a sample. */
struct fkm_head_trial {
    int64_t rows, in_doubt, candidates, rescans;
};

/* Nanoseconds a row that screening `screened` coordinates takes with such results, by a unit of
 * `rate` times the products of fp16. A model. */
double fkm_head_cost(const fkm_head_trial *t, int32_t screened, double rate, int32_t dims,
    int32_t row_bytes, int32_t clusters);

/* The i-th length to try, 0 at the end. */
int32_t fkm_head_length(int i);

/* Multiply-adds of a pass below which heads are not tried. Tests lower it. */
extern double fkm_head_least_products;

/* Likewise for int8, which is tried on rows of 8 bits. */
extern double fkm_int8_least_products;

#define FKM_HEAD_LEAST_GAIN 0.7 /* rows are packed anew for a head, which must win clearly */
#define FKM_HEAD_MOST_GRAM 0.01f

#endif
