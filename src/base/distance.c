/* The canonical squared distance: see distance.h. */
#include "distance.h"

double fkm_distance(const float *x, const float *c, int32_t dims)
{
    double a[8] = {0};
    int32_t whole = dims / 8 * 8;
    for (int32_t t = 0; t < whole; t += 8)
        for (int32_t l = 0; l < 8; l++) {
            double e = (double)x[t + l] - (double)c[t + l];
            a[l] += e * e;
        }
    for (int32_t t = whole; t < dims; t++) {
        double e = (double)x[t] - (double)c[t];
        a[t - whole] += e * e;
    }
    return ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]));
}
