/* Template of the float32 vector kernels: the tile of scores. Included once per instruction set,
 * after defining what finish_tmpl.h asks for and V_ZERO(); 2 * TILE + 3 registers are in use.
 *
 * Panels are [screened][PANEL]. TILE x 2 accumulators stay in registers over all dims: per step two
 * loads of rows, TILE broadcasts of centroids, 2 * TILE multiply-adds. */
#include "finish_tmpl.h"

static void screen_tile(fkm_row_block *b, int32_t panel, const fkm_tiles *t, int32_t tile)
{
    const int32_t dims = t->screened, first = tile * TILE;
    const float *p = (const float *)(const void *)b->panels + (int64_t)panel * PANEL * dims;
    const float *c = (const float *)(const void *)t->packed + (int64_t)first * dims;
    V acc0[TILE], acc1[TILE];
    UNROLL
    for (int j = 0; j < TILE; j++)
        acc0[j] = acc1[j] = V_SET1(-t->half[first + j]);
    for (int32_t left = dims; left > 0;) {
        int32_t steps = left < FKM_SEGMENT ? left : FKM_SEGMENT;
        V sum0[TILE], sum1[TILE];
        const int split = left < dims; /* earlier segments wait outside the registers */
        if (split) {
            UNROLL
            for (int j = 0; j < TILE; j++) {
                sum0[j] = acc0[j];
                sum1[j] = acc1[j];
                acc0[j] = acc1[j] = V_ZERO();
            }
        }
        left -= steps;
        for (; steps > 0; steps--, p += PANEL, c += TILE) {
            const V x0 = V_LOAD(p), x1 = V_LOAD(p + LANES);
            UNROLL
            for (int j = 0; j < TILE; j++) {
                const V cj = V_SET1(c[j]);
                acc0[j] = V_FMA(x0, cj, acc0[j]);
                acc1[j] = V_FMA(x1, cj, acc1[j]);
            }
        }
        if (split) {
            UNROLL
            for (int j = 0; j < TILE; j++) {
                acc0[j] = V_ADD(acc0[j], sum0[j]);
                acc1[j] = V_ADD(acc1[j], sum1[j]);
            }
        }
    }
    finish(b, panel * PANEL, t, tile, acc0, acc1);
}

static void pack_tile(fkm_tiles *t, int64_t first, const float *c)
{
    const int32_t dims = t->screened;
    float *packed = (float *)(void *)t->packed + first * dims;
    for (int32_t j = 0; j < TILE; j++) {
        t->residual[first + j] = 0;
        for (int32_t d = 0; d < dims; d++)
            packed[(int64_t)d * TILE + j] = c[(int64_t)j * dims + d];
    }
}
