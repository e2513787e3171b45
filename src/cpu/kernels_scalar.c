/* The readable kernels: plain C, any machine. The others are held against these. */
#include "kernels.h"

#include <math.h>
#include <string.h>

enum { PANEL = 16, TILE = 4 };

static void widen(float *out, const void *x, fkm_dtype t, int64_t n)
{
    size_t size = fkm_dtype_size(t);
    const char *from = x;
    for (int64_t i = 0; i < n; i++)
        out[i] = fkm_dtype_to_float(t, from + (size_t)i * size);
}

static void pack(void *panel, float *square, float *residual, const void *const *x, int32_t rows,
    int32_t dims, const float *shift, float scale, const void *const *ahead, const uint16_t *kept)
{
    (void)kept;
    float *out = panel;
    (void)residual; /* nothing is rounded */
    (void)ahead;    /* nothing is so quick here as to wait for memory */
    memset(square, 0, PANEL * sizeof *square);
    for (int32_t t = 0; t < dims; t++) {
        for (int32_t r = 0; r < PANEL; r++) {
            float v = r < rows ? ((const float *)x[r])[t] * scale - shift[t] : 0;
            out[(int64_t)t * PANEL + r] = v;
            square[r] += v * v;
        }
    }
}

/* score[j][r] = -half[j] + sum over t of panel[t][r] * tile[t][j], summed by segments. */
static void score_tile(float score[TILE][PANEL], const float *panel, const float *tile,
    const float *half, int32_t dims)
{
    for (int32_t j = 0; j < TILE; j++)
        for (int32_t r = 0; r < PANEL; r++)
            score[j][r] = -half[j];
    for (int32_t begin = 0; begin < dims; begin += FKM_SEGMENT) {
        int32_t end = begin + FKM_SEGMENT < dims ? begin + FKM_SEGMENT : dims;
        float part[TILE][PANEL] = {{0}};
        for (int32_t t = begin; t < end; t++)
            for (int32_t j = 0; j < TILE; j++)
                for (int32_t r = 0; r < PANEL; r++)
                    part[j][r] += panel[(int64_t)t * PANEL + r] * tile[(int64_t)t * TILE + j];
        for (int32_t j = 0; j < TILE; j++)
            for (int32_t r = 0; r < PANEL; r++)
                score[j][r] += part[j][r];
    }
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

/* Margin of a row's scores within a tile: see screen.h. */
static float margin_of(const fkm_row_block *b, int32_t row, const fkm_tiles *t, int32_t tile)
{
    return b->norm[row] * t->tile_slope[tile] + b->residual[row] * t->tile_residual[tile] +
           b->tail[row] * t->tile_tail[tile] + t->tile_offset[tile] + b->slack[row];
}

#define V float
#define LANES 1
#define V_LOAD(p) (*(p))
#define V_STORE(p, v) (*(p) = (v))
#define V_SET1(f) (f)
#define V_ADD(a, b) ((a) + (b))
#define V_SUB(a, b) ((a) - (b))
#define V_MUL(a, b) ((a) * (b))
#define V_MAX(a, b) ((a) > (b) ? (a) : (b))
#define V_MIN(a, b) ((a) < (b) ? (a) : (b))
#define V_FMA(a, b, c) ((a) * (b) + (c))
#define V_ROOT(a) sqrtf(a)
#define V_LEAST(v) (v)
#include "apart_tmpl.h"

/* Keeps what the scores of a tile tell of its distance: see apart.h. */
static void keep_apart(
    fkm_row_block *b, int32_t panel, const fkm_tiles *t, int32_t tile, const float (*score)[PANEL])
{
    float least = INFINITY;
    for (int32_t r = 0; r < PANEL; r++) {
        int32_t row = panel * PANEL + r;
        float top = score[0][r];
        for (int32_t j = 1; j < TILE; j++)
            top = V_MAX(score[j][r], top);
        float nearness = b->base[row] + margin_of(b, row, t, tile) + top;
        least = V_MIN(distances_less_ref(nearness, b->ref + row), least);
    }
    fkm_keep_apart(b, t, panel, tile, least);
}

static void screen_tile(fkm_row_block *b, int32_t panel, const fkm_tiles *t, int32_t tile)
{
    const float *packed = (const float *)(const void *)t->packed;
    const float *x = (const float *)(const void *)b->panels + (int64_t)panel * PANEL * t->screened;
    float score[TILE][PANEL];
    int32_t first = tile * TILE;
    score_tile(score, x, packed + (int64_t)first * t->screened, t->half + first, t->screened);
    if (b->apart)
        keep_apart(b, panel, t, tile, (const float(*)[PANEL])score);
    for (int32_t r = 0; r < PANEL; r++) {
        int32_t row = panel * PANEL + r;
        float margin = margin_of(b, row, t, tile);
        for (int32_t j = 0; j < TILE; j++) {
            bool old = b->rivals && b->old_tile[row] == tile && b->old_slot[row] == j;
            if (b->rivals && !old && score[j][r] + margin > b->second[row])
                b->second[row] = score[j][r] + margin;
            if (score[j][r] >= b->floor[row] - margin)
                fkm_block_candidate(b, row, t, first + j, score[j][r]);
        }
    }
}

#include "tiles_loop_tmpl.h"

static void rotate(
    float *out, const float *x, int32_t rows, int32_t dims, const float *axes, int32_t heads)
{
    for (int32_t r = 0; r < rows; r++)
        for (int32_t h = 0; h < heads; h++) {
            float part[16] = {0}, sum = 0;
            for (int32_t t = 0; t < dims; t++)
                part[t % 16] += x[(int64_t)r * dims + t] * axes[(int64_t)h * dims + t];
            for (int i = 0; i < 16; i++)
                sum += part[i];
            out[(int64_t)r * heads + h] = sum;
        }
}

static float dot(const float *x, const float *shift, float scale, const float *c, int32_t dims)
{
    float part[16] = {0};
    for (int32_t t = 0; t < dims; t++)
        part[t % 16] += (x[t] * scale - shift[t]) * c[t];
    float sum = 0;
    for (int i = 0; i < 16; i++)
        sum += part[i];
    return sum;
}

static double norm2(const float *c, const float *shift, float scale, int32_t dims, float *top)
{
    double sum[4] = {0}; /* they do not wait for each other */
    *top = 0;
    for (int32_t t = 0; t < dims; t++) {
        double v = (double)c[t] * (double)scale - (double)shift[t];
        sum[t % 4] += v * v;
        *top = fmaxf(*top, fabsf(c[t] * scale - shift[t]));
    }
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

static double canonical(const float *x, const float *c, int32_t dims)
{
    double a[8] = {0};
    for (int32_t t = 0; t < dims; t++) {
        double e = (double)x[t] - (double)c[t];
        a[t % 8] += e * e;
    }
    return ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]));
}

static void add_row(int64_t *sum, const float *x, int32_t dims, double scale)
{
    for (int32_t t = 0; t < dims; t++)
        sum[t] += (int64_t)rint(x[t] * scale);
}

static void add_bytes(
    int64_t *sum, const void *x, fkm_dtype t, int32_t dims, int32_t shift, bool leaves)
{
    const int64_t unit = (leaves ? -1 : 1) * ((int64_t)1 << shift);
    const uint8_t *u = x;
    const int8_t *i = x;
    for (int32_t d = 0; d < dims; d++)
        sum[d] += (t == FKM_U8 ? u[d] : i[d]) * unit;
}

static int64_t squares_of_bytes(const void *x, fkm_dtype t, int32_t dims)
{
    const uint8_t *u = x;
    const int8_t *i = x;
    int64_t sum = 0;
    for (int32_t d = 0; d < dims; d++)
        sum += t == FKM_U8 ? u[d] * u[d] : i[d] * i[d];
    return sum;
}

static void mean_row(float *mean, const int64_t *sum, int32_t dims, double count, double scale)
{
    for (int32_t t = 0; t < dims; t++)
        mean[t] = (float)((double)sum[t] / count * scale);
}

/* q has the 24 bits of a float32, so its square is exact in double. */
static void add_squares(int64_t sum[2], const float *x, int32_t dims, double scale, double split)
{
    const double share = 1 / split;
    for (int32_t t = 0; t < dims; t++) {
        double q = rint(x[t] * scale), square = q * q;
        int64_t high = (int64_t)(square * share);
        sum[0] += high;
        sum[1] += (int64_t)(square - (double)high * split);
    }
}

static fkm_inertia_sums inertia_piece(const float *c, const int64_t *sum, int32_t dims)
{
    fkm_inertia_sums out = {.window = fkm_inertia_window_of(c, dims)};
    for (int32_t t = 0; t < dims; t++) {
        uint32_t bits;
        memcpy(&bits, c + t, sizeof bits);
        const int32_t above = (int32_t)(bits >> 23 & 255) - out.window.base;
        if (above < 0)
            continue; /* zero, or to be added alone */
        const int64_t v = (int64_t)((bits & 0x7fffff) | 0x800000) << above;
        const int64_t sign = -(int64_t)(bits >> 31);
        out.product += (fkm_i128)((v ^ sign) - sign) * sum[t];
        out.square += (fkm_i128)v * v;
    }
    return out;
}

/* How many of a row's candidates reach its floor; *position: one of them. */
static int32_t candidates_left(const fkm_row_block *b, int32_t row, int32_t *position)
{
    int32_t left = 0;
    for (int64_t i = 0, at = row; i < b->count[row]; i++, at += b->stride)
        if (b->upper[at] >= b->floor[row]) {
            *position = b->position[at];
            left++;
        }
    return left;
}

static int32_t settle(const fkm_row_block *b, const int32_t *index, int32_t *label, int32_t *others)
{
    int32_t n = 0;
    for (int32_t r = 0; r < b->rows; r++) {
        int32_t position = 0;
        const bool screened = b->residual[r] >= 0 && b->count[r] <= FKM_CANDIDATES;
        const bool single = screened && candidates_left(b, r, &position) == 1;
        label[r] = index[position];
        others[n] = r;
        n += !single;
    }
    return n;
}

const fkm_kernels fkm_kernels_scalar = {
    .isa = "scalar",
    .panel = PANEL,
    .tile = TILE,
    .item = sizeof(float),
    .dim_step = 1,
    .rate = 4,
    .widen = widen,
    .pack = pack,
    .pack_tile = pack_tile,
    .screen = screen,
    .settle = settle,
    .rotate = rotate,
    .dot = dot,
    .norm2 = norm2,
    .canonical = canonical,
    .add_row = add_row,
    .add_bytes = add_bytes,
    .squares_of_bytes = squares_of_bytes,
    .mean_row = mean_row,
    .add_squares = add_squares,
    .inertia_piece = inertia_piece,
};
