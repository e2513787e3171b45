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

/* shift: [dims] = scale times the median of some centroids; c: [clusters][dims] in host memory. */
void fkm_frame_shift(float *shift, float scale, const float *c, int32_t clusters, int32_t dims);

#endif
