/* Template of the vector kernels: the tile of scores and its epilogue. Included once per
 * instruction set, after defining V                 vector of floats             LANES     floats
 * in it TILE              centroids in a tile; 2 * TILE + 3 registers are in use V_LOAD(p)
 * V_STORE(p, v) V_SET1(f) V_ZERO() V_ADD V_SUB V_MUL V_MAX(a, b) V_FMA(a, b, c) = a * b + c V_GE(a,
 * b)        bit mask of lanes where a >= b A panel is two vectors of rows. TILE x 2 accumulators
 * stay in registers over all dims: per step two loads of rows, TILE broadcasts of centroids, 2 *
 * TILE multiply-adds. */

enum { PANEL = 2 * LANES };

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

/* Hands every score at or above its row's threshold on. Rare: once in a few tiles and row. */
static void __attribute__((noinline)) report(fkm_row_block *b, int32_t row0, const fkm_tiles *t,
    int32_t first, const float (*score)[PANEL], const float *threshold)
{
    for (int32_t j = 0; j < TILE; j++) {
        for (int32_t h = 0; h < 2; h++) {
            unsigned hits = V_GE(V_LOAD(score[j] + h * LANES), V_LOAD(threshold + h * LANES));
            for (; hits; hits &= hits - 1) {
                int32_t r = h * LANES + __builtin_ctz(hits);
                fkm_block_candidate(b, row0 + r, t, first + j, score[j][r]);
            }
        }
    }
}

static void screen_panel(
    fkm_row_block *b, int32_t panel, const fkm_tiles *t, int32_t begin, int32_t end)
{
    const float *x = (const float *)(const void *)b->panels + (int64_t)panel * PANEL * t->dims;
    const int32_t row0 = panel * PANEL, dims = t->dims;
    const V norm0 = V_LOAD(b->norm + row0), norm1 = V_LOAD(b->norm + row0 + LANES);
    const V slack0 = V_LOAD(b->slack + row0), slack1 = V_LOAD(b->slack + row0 + LANES);

    for (int32_t i = begin; i < end; i++) {
        const int32_t first = i * TILE;
        const float *c = (const float *)(const void *)t->packed + (int64_t)first * dims;
        const float *p = x;
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
        V top0 = acc0[0], top1 = acc1[0];
        UNROLL
        for (int j = 1; j < TILE; j++) {
            top0 = V_MAX(top0, acc0[j]);
            top1 = V_MAX(top1, acc1[j]);
        }
        const V slope = V_SET1(t->tile_slope[i]), offset = V_SET1(t->tile_offset[i]);
        const V margin0 = V_FMA(norm0, slope, V_ADD(slack0, offset));
        const V margin1 = V_FMA(norm1, slope, V_ADD(slack1, offset));
        V floor0 = V_LOAD(b->floor + row0), floor1 = V_LOAD(b->floor + row0 + LANES);
        if (V_GE(top0, V_SUB(floor0, margin0)) | V_GE(top1, V_SUB(floor1, margin1))) {
            /* the tile's own best raises the floor before the others are looked at */
            floor0 = V_MAX(floor0, V_SUB(top0, margin0));
            floor1 = V_MAX(floor1, V_SUB(top1, margin1));
            V_STORE(b->floor + row0, floor0);
            V_STORE(b->floor + row0 + LANES, floor1);
            float score[TILE][PANEL] __attribute__((aligned(64)));
            float threshold[PANEL] __attribute__((aligned(64)));
            UNROLL
            for (int j = 0; j < TILE; j++) {
                V_STORE(score[j], acc0[j]);
                V_STORE(score[j] + LANES, acc1[j]);
            }
            V_STORE(threshold, V_SUB(floor0, margin0));
            V_STORE(threshold + LANES, V_SUB(floor1, margin1));
            report(b, row0, t, first, (const float(*)[PANEL])score, threshold);
        }
    }
}

static void screen(
    fkm_row_block *b, int32_t panel, int32_t panels, const fkm_tiles *t, int32_t begin, int32_t end)
{
    for (int32_t p = panel; p < panel + panels; p++)
        screen_panel(b, p, t, begin, end);
}

static void pack_tile(fkm_tiles *t, int64_t first, const float *c)
{
    const int32_t dims = t->dims;
    float *packed = (float *)(void *)t->packed + first * dims;
    for (int32_t j = 0; j < TILE; j++) {
        t->residual[first + j] = 0;
        for (int32_t d = 0; d < dims; d++)
            packed[(int64_t)d * TILE + j] = c[(int64_t)j * dims + d];
    }
}
