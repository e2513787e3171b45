/* The frame that screening sees rows and centroids in: v = x scale - shift. Any frame is right; a
 * good one keeps packed values in range and norms, hence margins, small. */
#ifndef FKM_FRAME_CUH
#define FKM_FRAME_CUH

#include <stdint.h>

/* A power of two that brings `largest` below 1 (4 at the end of the float range). */
float fkm_frame_scale(float largest);

/* Should centroids whose largest coordinate asks for `wanted` go on in a frame of `scale`? */
bool fkm_frame_suits(float scale, float wanted);

/* The largest |c| of n values, finite. */
float fkm_frame_largest(const float *c, int64_t n);

/* Elements a unit of the frame for int8: the largest power of two that keeps values up to `most`
 * within 127. most > 0. */
float fkm_frame_quant(float most);

/* The share-th quantile of |v|, of n values, at least 2^-30; not finite counts as 0. Changes v. */
float fkm_frame_quantile(float *v, int64_t n, double share);

/* shift: [dims] = scale times the median of some centroids; c: [clusters][dims] in host memory. */
void fkm_frame_shift(float *shift, float scale, const float *c, int32_t clusters, int32_t dims);

#endif
