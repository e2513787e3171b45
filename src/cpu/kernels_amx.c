/* AMX bf16 kernels: 32 rows x 32 centroids at a time in four 16 x 16 tiles of float32 sums.
 *
 * Rows lie along the columns of a tile, so that the maximum over centroids is a vertical max. Per
 * step of 32 dims two tiles of centroids and two of rows are loaded for four products (16 cycles
 * each); the sums start at -h~ and are stored to the first-level cache, where the max is taken
 * while the next products run.
 *
 * Layouts, dims padded with zeros to 32:
 *
 *   panel   [steps][2][16 pairs of dims][16 rows][2]   bf16
 *   tile    [steps][2][16 centroids][32 dims]          bf16
 *
 * All else that the table asks for is that of AVX-512. */
#if defined(__x86_64__)

#include "kernels.h"

#include <immintrin.h>
#include <string.h>

_Static_assert(FKM_OWN_TILES == 4, "see is_own");

enum { PANEL = 32, TILE = 32, STEP = 32, PART = 16 * 64, GROUP_BYTES = 32 << 10 };

static __mmask16 first_lanes(int64_t n)
{
    unsigned mask = n >= 16 ? 0xffff : n <= 0 ? 0 : (1u << n) - 1;
    return (__mmask16)mask;
}

static inline __m512 from_bf16_bits(__m512i low_halves)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(low_halves, 16));
}

/* Rounds 32 values to bf16 (nearest even, subnormals to zero); adds up squares and squared
 * residuals. */
static inline __m512i round_step(const float *x, int64_t live, const float *shift, __m512 scale,
    __m512 *square, __m512 *residual)
{
    __m512 v[2];
    for (int h = 0; h < 2; h++) {
        __mmask16 m = first_lanes(live - 16 * h);
        v[h] = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + 16 * h), scale);
        if (shift)
            v[h] = _mm512_sub_ps(v[h], _mm512_maskz_loadu_ps(m, shift + 16 * h));
        *square = _mm512_fmadd_ps(v[h], v[h], *square);
    }
    __m512i both = (__m512i)_mm512_cvtne2ps_pbh(v[1], v[0]);
    __m512 r0 =
        _mm512_sub_ps(v[0], from_bf16_bits(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(both))));
    __m512 r1 = _mm512_sub_ps(
        v[1], from_bf16_bits(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(both, 1))));
    *residual = _mm512_fmadd_ps(r0, r0, _mm512_fmadd_ps(r1, r1, *residual));
    return both;
}

/* 16 x 16 transpose of 32-bit words: m[r] holds row r on entry, column r on return. */
static inline void transpose(__m512i m[16])
{
    __m512i t[16];
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_epi32(m[2 * i], m[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(m[2 * i], m[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++) {
        m[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        m[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        m[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        m[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(m[i], m[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(m[i], m[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(m[i + 8], m[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(m[i + 8], m[i + 12], 0xdd);
    }
    for (int i = 0; i < 8; i++) {
        m[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        m[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    }
}

static void pack(void *panel, float *square, float *residual, const float *const *x, int32_t rows,
    int32_t dims, const float *shift, float scale)
{
    const __m512 s = _mm512_set1_ps(scale);
    for (int half = 0; half < 2; half++) {
        __m512 squares[16], residuals[16];
        for (int r = 0; r < 16; r++)
            squares[r] = residuals[r] = _mm512_setzero_ps();
        for (int32_t t = 0; t < dims; t += STEP) {
            __m512i m[16];
            for (int r = 0; r < 16; r++) {
                int32_t row = 16 * half + r;
                m[r] = _mm512_setzero_si512();
                if (row < rows)
                    m[r] =
                        round_step(x[row] + t, dims - t, shift + t, s, &squares[r], &residuals[r]);
            }
            transpose(m);
            char *out = (char *)panel + (size_t)(t / STEP * 2 + half) * PART;
            for (int r = 0; r < 16; r++)
                _mm512_store_si512(out + 64 * r, m[r]);
        }
        for (int r = 0; r < 16; r++) {
            square[16 * half + r] = _mm512_reduce_add_ps(squares[r]);
            residual[16 * half + r] = _mm512_reduce_add_ps(residuals[r]);
        }
    }
}

static void pack_tile(void *out, float *residual, const float *c, int32_t dims)
{
    const __m512 one = _mm512_set1_ps(1);
    for (int j = 0; j < TILE; j++) {
        __m512 square = _mm512_setzero_ps(), rest = square;
        for (int32_t t = 0; t < dims; t += STEP) {
            __m512i v = round_step(c + (int64_t)j * dims + t, dims - t, NULL, one, &square, &rest);
            char *part = (char *)out + (size_t)(t / STEP * 2 + j / 16) * PART;
            _mm512_storeu_si512(part + 64 * (j % 16), v);
        }
        residual[j] = _mm512_reduce_add_ps(rest);
    }
}

/* Scores of a tile and a panel, as the tile registers leave them. */
typedef struct scores {
    float of[2][2][16][16]
        __attribute__((aligned(64))); /* [half of the rows][half of the tile][centroid][row] */
    int32_t panel, tile;
} scores;

/* Hands on what passes the threshold of its row, after the tile's own best has raised the floor. */
static void __attribute__((noinline))
report(fkm_row_block *b, const fkm_tiles *t, const scores *s, int h, __m512 top, __m512 margin)
{
    const int32_t row0 = s->panel * PANEL + 16 * h;
    const __m512 floor = _mm512_max_ps(_mm512_load_ps(b->floor + row0), _mm512_sub_ps(top, margin));
    const __m512 limit = _mm512_sub_ps(floor, margin);
    _mm512_store_ps(b->floor + row0, floor);
    for (int j = 0; j < TILE; j++) {
        const float *row = s->of[h][j / 16][j % 16];
        unsigned hits = _mm512_cmp_ps_mask(_mm512_load_ps(row), limit, _CMP_GE_OQ);
        for (; hits; hits &= hits - 1) {
            int r = __builtin_ctz(hits);
            fkm_block_candidate(b, row0 + r, t, s->tile * TILE + j, row[r]);
        }
    }
}

/* Upper bounds of the scores of all centroids in a tile but, in some lanes, the row's old one. */
static __m512 rivals(const fkm_row_block *b, const scores *s, int h, __m512 top, __mmask16 old)
{
    const __m512i slot = _mm512_load_si512(b->old_slot + s->panel * PANEL + 16 * h);
    const float(*of)[16] = s->of[h][0];
    __m512 others = _mm512_set1_ps(-FKM_HALF_PAD);
    for (int j = 0; j < TILE; j++) {
        __mmask16 other = _mm512_cmpneq_epi32_mask(slot, _mm512_set1_epi32(j));
        others = _mm512_mask_max_ps(others, other, others, _mm512_load_ps(of[j]));
    }
    return _mm512_mask_blend_ps(old, top, others);
}

static inline void finish(fkm_row_block *b, const fkm_tiles *t, const scores *s)
{
    const __m512 slope = _mm512_set1_ps(t->tile_slope[s->tile]);
    const __m512 residual = _mm512_set1_ps(t->tile_residual[s->tile]);
    const __m512 offset = _mm512_set1_ps(t->tile_offset[s->tile]);
    const __m512 tail = _mm512_set1_ps(t->tile_tail[s->tile]);
    for (int h = 0; h < 2; h++) {
        const float(*of)[16] = s->of[h][0];
        __m512 top0 = _mm512_load_ps(of[0]), top1 = _mm512_load_ps(of[1]);
        for (int j = 2; j < TILE; j += 2) {
            top0 = _mm512_max_ps(top0, _mm512_load_ps(of[j]));
            top1 = _mm512_max_ps(top1, _mm512_load_ps(of[j + 1]));
        }
        const __m512 top = _mm512_max_ps(top0, top1);
        const int32_t row = s->panel * PANEL + 16 * h;
        __m512 margin = _mm512_add_ps(_mm512_load_ps(b->slack + row), offset);
        margin = _mm512_fmadd_ps(_mm512_load_ps(b->norm + row), slope, margin);
        margin = _mm512_fmadd_ps(_mm512_load_ps(b->residual + row), residual, margin);
        margin = _mm512_fmadd_ps(_mm512_load_ps(b->tail + row), tail, margin);
        if (b->rivals) {
            __m512i tile = _mm512_load_si512(b->old_tile + row);
            __mmask16 old = _mm512_cmpeq_epi32_mask(tile, _mm512_set1_epi32(s->tile));
            __m512 others = old ? rivals(b, s, h, top, old) : top;
            __m512 second = _mm512_load_ps(b->second + row);
            second = _mm512_max_ps(second, _mm512_add_ps(others, margin));
            _mm512_store_ps(b->second + row, second);
        }
        __m512 limit = _mm512_sub_ps(_mm512_load_ps(b->floor + row), margin);
        if (_mm512_cmp_ps_mask(top, limit, _CMP_GE_OQ))
            report(b, t, s, h, top, margin);
    }
}

static inline void multiply(const char *panel, const char *tile, const float *start, int32_t steps)
{
    _tile_loadd(0, start, 64);
    _tile_loadd(1, start, 64);
    _tile_loadd(2, start + 256, 64);
    _tile_loadd(3, start + 256, 64);
    for (int32_t k = 0; k < steps; k++, panel += 2 * PART, tile += 2 * PART) {
        _tile_loadd(4, tile, 64);
        _tile_loadd(6, panel, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, panel + PART, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, tile + PART, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
}

static void configure(void)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes_per_row[16];
        uint8_t rows[16];
    } c;
    memset(&c, 0, sizeof c);
    c.palette = 1;
    for (int i = 0; i < 8; i++) {
        c.bytes_per_row[i] = 64;
        c.rows[i] = 16;
    }
    _tile_loadconfig(&c);
}

/* The products under way: the max of one is taken after the next has been issued, so that it hides
 * behind it. */
typedef struct products {
    scores buffer[2];
    int turn, waiting;
} products;

static inline void step(
    products *q, fkm_row_block *b, const fkm_tiles *t, int32_t panel, int32_t tile)
{
    const int32_t steps = (t->screened + STEP - 1) / STEP;
    scores *s = &q->buffer[q->turn];
    s->panel = panel;
    s->tile = tile;
    multiply(b->panels + (size_t)panel * (size_t)steps * 2 * PART,
        t->packed + (size_t)tile * t->tile_bytes, t->start + (int64_t)tile * TILE * 16, steps);
    if (q->waiting)
        finish(b, t, &q->buffer[q->turn ^ 1]);
    _tile_stored(0, s->of[0][0], 64);
    _tile_stored(1, s->of[1][0], 64);
    _tile_stored(2, s->of[0][1], 64);
    _tile_stored(3, s->of[1][1], 64);
    q->waiting = 1;
    q->turn ^= 1;
}

static inline bool is_own(const int32_t *own, int32_t tile)
{
    return own[0] == tile || own[1] == tile || own[2] == tile || own[3] == tile;
}

/* Panels in groups that stay in the first-level cache while the tiles go by. */
static void screen(
    fkm_row_block *b, int32_t panel, int32_t panels, const fkm_tiles *t, int32_t begin, int32_t end)
{
    const size_t panel_bytes = (size_t)((t->screened + STEP - 1) / STEP) * 2 * PART;
    const int32_t fit = (int32_t)(GROUP_BYTES / panel_bytes), group = fit > 0 ? fit : 1;
    products q;
    q.turn = q.waiting = 0;
    configure();
    for (int32_t p = panel; begin == 0 && p < panel + panels; p++)
        for (int i = 0; i < FKM_OWN_TILES; i++)
            if (b->own[p * FKM_OWN_TILES + i] >= 0)
                step(&q, b, t, p, b->own[p * FKM_OWN_TILES + i]);
    for (int32_t g = panel; g < panel + panels; g += group) {
        int32_t g_end = panel + panels - g < group ? panel + panels : g + group;
        for (int32_t i = begin; i < end; i++)
            for (int32_t p = g; p < g_end; p++)
                if (!is_own(b->own + p * FKM_OWN_TILES, i))
                    step(&q, b, t, p, i);
    }
    if (q.waiting)
        finish(b, t, &q.buffer[q.turn ^ 1]);
    _tile_release();
}

/* Products of `rows` <= 6 rows with `heads` <= 4 axes: 24 sums in registers. */
static inline void rotate_block(float *out, int64_t stride, const float *x, int rows, int32_t dims,
    const float *axes, int heads)
{
    __m512 sum[6][4];
    for (int r = 0; r < 6; r++)
        for (int h = 0; h < 4; h++)
            sum[r][h] = _mm512_setzero_ps();
    for (int32_t t = 0; t < dims; t += 16) {
        const __mmask16 m = first_lanes(dims - t);
        __m512 a[4];
        for (int h = 0; h < heads; h++)
            a[h] = _mm512_maskz_loadu_ps(m, axes + (int64_t)h * dims + t);
        for (int r = 0; r < rows; r++) {
            const __m512 v = _mm512_maskz_loadu_ps(m, x + (int64_t)r * dims + t);
            for (int h = 0; h < heads; h++)
                sum[r][h] = _mm512_fmadd_ps(v, a[h], sum[r][h]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int h = 0; h < heads; h++)
            out[r * stride + h] = _mm512_reduce_add_ps(sum[r][h]);
}

static void rotate(
    float *out, const float *x, int32_t rows, int32_t dims, const float *axes, int32_t heads)
{
    for (int32_t r = 0; r < rows; r += 6) {
        int nr = rows - r < 6 ? rows - r : 6;
        for (int32_t h = 0; h < heads; h += 4) {
            int nh = heads - h < 4 ? heads - h : 4;
            float *to = out + (int64_t)r * heads + h;
            const float *from = x + (int64_t)r * dims, *a = axes + (int64_t)h * dims;
            if (nr == 6 && nh == 4)
                rotate_block(to, heads, from, 6, dims, a, 4);
            else
                rotate_block(to, heads, from, nr, dims, a, nh);
        }
    }
}

static void widen(float *out, const void *x, fkm_dtype t, int64_t n)
{
    fkm_kernels_avx512.widen(out, x, t, n);
}

static float dot(const float *x, const float *shift, float scale, const float *c, int32_t dims)
{
    return fkm_kernels_avx512.dot(x, shift, scale, c, dims);
}

static double canonical(const float *x, const float *c, int32_t dims)
{
    return fkm_kernels_avx512.canonical(x, c, dims);
}

static void add_row(int64_t *sum, const float *x, int32_t dims, double scale)
{
    fkm_kernels_avx512.add_row(sum, x, dims, scale);
}

static void mean_row(float *mean, const int64_t *sum, int32_t dims, double count, double scale)
{
    fkm_kernels_avx512.mean_row(mean, sum, dims, count, scale);
}

static void add_squares(int64_t sum[2], const float *x, int32_t dims, double scale, double split)
{
    fkm_kernels_avx512.add_squares(sum, x, dims, scale, split);
}

const fkm_kernels fkm_kernels_amx_bf16 = {
    .isa = "amx",
    .panel = PANEL,
    .tile = TILE,
    .item = 2,
    .dim_step = STEP,
    .low = true,
    .widen = widen,
    .pack = pack,
    .pack_tile = pack_tile,
    .screen = screen,
    .rotate = rotate,
    .dot = dot,
    .canonical = canonical,
    .add_row = add_row,
    .mean_row = mean_row,
    .add_squares = add_squares,
};

#else
typedef int fkm_kernels_amx_needs_x86_64;
#endif
