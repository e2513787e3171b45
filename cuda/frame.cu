/* The frame of screening: see frame.cuh. The same choices as on the CPU (src/cpu/screen.c). */
#include "frame.cuh"

#include <math.h>
#include <stdlib.h>

enum { SHIFT_SAMPLE = 63 }; /* centroids whose median is the shift */

float fkm_frame_scale(float largest)
{
    int exponent = 0;
    if (largest > 0)
        (void)frexpf(largest, &exponent);
    exponent = exponent > 126 ? 126 : exponent < -120 ? -120 : exponent;
    return ldexpf(1, -exponent);
}

bool fkm_frame_suits(float scale, float wanted)
{
    return wanted >= scale / 4 && wanted <= scale * 4;
}

float fkm_frame_largest(const float *c, int64_t n)
{
    float top = 0;
    for (int64_t i = 0; i < n; i++)
        top = fmaxf(top, fabsf(c[i]));
    return top;
}

static int compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* A mean would follow an outlier and cost all other rows their digits. */
void fkm_frame_shift(float *shift, float scale, const float *c, int32_t clusters, int32_t dims)
{
    int32_t sample = clusters < SHIFT_SAMPLE ? clusters : SHIFT_SAMPLE;
    float value[SHIFT_SAMPLE];
    for (int32_t d = 0; d < dims; d++) {
        for (int32_t i = 0; i < sample; i++)
            value[i] = c[(int64_t)i * clusters / sample * dims + d];
        qsort(value, (size_t)sample, sizeof value[0], compare_floats);
        shift[d] = value[sample / 2] * scale;
    }
}

float fkm_frame_quant(float most)
{
    int exponent = 0;
    (void)frexpf(127 / most, &exponent); /* 127 / most = m 2^exponent, m < 1 */
    exponent = exponent - 1 > 40 ? 40 : exponent - 1 < -40 ? -40 : exponent - 1;
    return ldexpf(1, exponent);
}

float fkm_frame_quantile(float *v, int64_t n, double share)
{
    for (int64_t i = 0; i < n; i++)
        v[i] = isfinite(v[i]) ? fabsf(v[i]) : 0;
    qsort(v, (size_t)n, sizeof *v, compare_floats);
    float most = v[(int64_t)((double)(n - 1) * share)];
    return most > 0x1p-30f ? most : 0x1p-30f;
}
