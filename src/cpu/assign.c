/* Assignment of blocks of rows: see assign.h; the proof is in screen.h. */
#include "assign.h"

#include "../base/checked.h"
#include "../base/mem.h"
#include "bounds.h"
#include "head.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* A block's panels and a range of tiles should share the second-level cache, so that each centroid
 * is fetched from beyond it once a block, and each panel once a range of tiles. */
#define BLOCK_BYTES (256 << 10)
#define TILE_RANGE_BYTES (384 << 10)
#define MAX_PANELS 16

int32_t fkm_assign_block_rows(const fkm_kernels *k, int32_t dims)
{
    int64_t panels = BLOCK_BYTES / (int64_t)fkm_panel_bytes(k, dims);
    panels = fkm_max_i64(1, fkm_min_i64(panels, MAX_PANELS));
    return (int32_t)panels * k->panel;
}

int64_t fkm_row_store_bytes(const fkm_kernels *k, int64_t rows, int32_t dims)
{
    int64_t padded = fkm_round_up(rows, k->panel);
    int64_t panels = fkm_mul_sat(padded / k->panel, (int64_t)fkm_panel_bytes(k, dims));
    return fkm_add_sat(panels, fkm_mul_sat(padded, sizeof(int32_t) + 3 * sizeof(float)));
}

fkm_status fkm_row_store_open(
    fkm_row_store *s, const fkm_kernels *k, int64_t rows, int32_t dims, fkm_err *e)
{
    static const char what[] = "rows laid out for screening";
    fkm_status st = FKM_OK;
    int64_t padded = fkm_round_up(rows, k->panel);
    memset(s, 0, sizeof *s);
    FKM_GO(fkm_alloc(&s->panels, padded / k->panel, fkm_panel_bytes(k, dims), what, e));
    FKM_GO(fkm_alloc(&s->order, padded, sizeof *s->order, what, e));
    FKM_GO(fkm_alloc(&s->norm, padded, sizeof *s->norm, what, e));
    FKM_GO(fkm_alloc(&s->residual, padded, sizeof *s->residual, what, e));
    FKM_GO(fkm_alloc(&s->tail, padded, sizeof *s->tail, what, e));
    return FKM_OK;
out:
    fkm_row_store_close(s);
    return st;
}

void fkm_row_store_close(fkm_row_store *s)
{
    fkm_free(s->panels);
    fkm_free(s->order);
    fkm_free(s->norm);
    fkm_free(s->residual);
    fkm_free(s->tail);
    memset(s, 0, sizeof *s);
}

int64_t fkm_assign_scratch_bytes(
    const fkm_kernels *k, int32_t clusters, int32_t dims, fkm_dtype dtype, int32_t top)
{
    int64_t rows = fkm_assign_block_rows(k, dims);
    int64_t per_row = 11 * (int64_t)sizeof(float) + FKM_OWN_TILES * (int64_t)sizeof(int32_t) +
                      FKM_CANDIDATES * (int64_t)(sizeof(int32_t) + sizeof(float)) +
                      (int64_t)fkm_panel_bytes(k, dims) / k->panel;
    if (dtype != FKM_F32 || k->low)
        per_row += 4 * (int64_t)dims;
    int64_t turning = fkm_head_suits(k, dims) ? 4 * (2 * (int64_t)k->panel + 1) * dims : 0;
    int64_t nearest = top > 1 ? 2 * (int64_t)sizeof(float) * clusters + 4 * (int64_t)top : 0;
    return rows * per_row + turning + nearest + 4096;
}

static fkm_status open_block(fkm_row_block *b, int64_t rows, int64_t panels, fkm_err *e)
{
    static const char what[] = "assignment scratch";
    FKM_TRY(fkm_alloc(&b->slack, rows, sizeof(float), what, e));
    FKM_TRY(fkm_alloc(&b->floor, rows, sizeof(float), what, e));
    FKM_TRY(fkm_alloc(&b->second, rows, sizeof(float), what, e));
    FKM_TRY(fkm_alloc(&b->old_tile, rows, sizeof(int32_t), what, e));
    FKM_TRY(fkm_alloc(&b->old_slot, rows, sizeof(int32_t), what, e));
    FKM_TRY(fkm_alloc(&b->count, rows, sizeof(int32_t), what, e));
    FKM_TRY(fkm_alloc(&b->position, rows * FKM_CANDIDATES, sizeof(int32_t), what, e));
    FKM_TRY(fkm_alloc(&b->upper, rows * FKM_CANDIDATES, sizeof(float), what, e));
    return fkm_alloc(&b->own, panels * FKM_OWN_TILES, sizeof(int32_t), what, e);
}

fkm_status fkm_assign_scratch_open(fkm_assign_scratch *s, const fkm_kernels *k, int32_t clusters,
    int32_t dims, fkm_dtype dtype, int32_t top, fkm_err *e)
{
    static const char what[] = "assignment scratch";
    fkm_status st = FKM_OK;
    int64_t rows = fkm_assign_block_rows(k, dims), panels = rows / k->panel;
    memset(s, 0, sizeof *s);
    FKM_GO(open_block(&s->block, rows, panels, e));
    FKM_GO(fkm_alloc(&s->panels, panels, fkm_panel_bytes(k, dims), what, e));
    FKM_GO(fkm_alloc(&s->norm, rows, sizeof(float), what, e));
    FKM_GO(fkm_alloc(&s->residual, rows, sizeof(float), what, e));
    FKM_GO(fkm_alloc(&s->square, rows, sizeof(float), what, e));
    FKM_GO(fkm_calloc(&s->tail, rows, sizeof(float), what, e));
    if (fkm_head_suits(k, dims)) {
        FKM_GO(fkm_alloc(&s->framed, (int64_t)k->panel * dims, sizeof(float), what, e));
        FKM_GO(fkm_alloc(&s->turned, (int64_t)k->panel * dims, sizeof(float), what, e));
        FKM_GO(fkm_calloc(&s->zero, dims, sizeof(float), what, e));
    }
    if (dtype != FKM_F32 || k->low)
        FKM_GO(fkm_alloc(&s->rows, rows * dims, sizeof(float), what, e));
    if (top > 1) {
        FKM_GO(fkm_alloc(&s->lower, clusters, sizeof(float), what, e));
        FKM_GO(fkm_alloc(&s->upper, clusters, sizeof(float), what, e));
        FKM_GO(fkm_alloc(&s->heap, top, sizeof(float), what, e));
    }
    return FKM_OK;
out:
    fkm_assign_scratch_close(s);
    return st;
}

void fkm_assign_scratch_close(fkm_assign_scratch *s)
{
    fkm_free(s->block.slack);
    fkm_free(s->block.floor);
    fkm_free(s->block.count);
    fkm_free(s->block.position);
    fkm_free(s->block.upper);
    fkm_free(s->block.own);
    fkm_free(s->block.second);
    fkm_free(s->block.old_tile);
    fkm_free(s->block.old_slot);
    fkm_free(s->panels);
    fkm_free(s->norm);
    fkm_free(s->residual);
    fkm_free(s->square);
    fkm_free(s->tail);
    fkm_free(s->framed);
    fkm_free(s->turned);
    fkm_free(s->zero);
    fkm_free(s->rows);
    fkm_free(s->lower);
    fkm_free(s->upper);
    fkm_free(s->heap);
    memset(s, 0, sizeof *s);
}

/* ---- rows ---- */

/* Which row of the job is row r of a block that begins at `first`. */
static int64_t row_index(const fkm_assign_job *job, int64_t first, int32_t r)
{
    return job->store ? job->store->order[first + r] : job->list ? job->list[first + r] : first + r;
}

/* Row r of the block as float32: in place, or widened into its place in scratch. */
static const float *row_at(
    const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t r)
{
    int64_t dims = job->tiles->dims, at = row_index(job, first, r) * dims;
    if (job->dtype == FKM_F32)
        return (const float *)job->x + at;
    const char *x = (const char *)job->x + (size_t)at * fkm_dtype_size(job->dtype);
    job->kernels->widen(s->rows + r * dims, x, job->dtype, dims);
    return s->rows + r * dims;
}

/* Row r of the block as float32 in its place in scratch. */
static void gather_row(const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t r)
{
    int64_t dims = job->tiles->dims;
    const float *x = row_at(job, s, first, r);
    if (x != s->rows + r * dims)
        memcpy(s->rows + r * dims, x, (size_t)dims * sizeof *x);
}

/* The block's rows as float32, when they are needed all: in place, or widened into scratch. */
static const float *block_rows(
    const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t rows)
{
    int64_t at = first * job->tiles->dims;
    if (job->list) {
        for (int32_t r = 0; r < rows; r++)
            gather_row(job, s, first, r);
        return s->rows;
    }
    if (job->dtype == FKM_F32)
        return (const float *)job->x + at;
    const char *x = (const char *)job->x + (size_t)at * fkm_dtype_size(job->dtype);
    job->kernels->widen(s->rows, x, job->dtype, (int64_t)rows * job->tiles->dims);
    return s->rows;
}

/* An upper bound of |X~| from its float32 sum of squares (see screen.h). Not below FKM_NORM_MAX,
 * NaN included, means that the row cannot be screened. */
static float norm_bound(float square, int32_t dims)
{
    return sqrtf(square) * (1 + (float)(dims + 8) * 0x1p-24f) + FKM_NORM_TINY;
}

/* An upper bound of |X - X^| from the float32 sum of (X~ - X^)^2: X~ itself is one rounding off X.
 */
static float residual_bound(float square, float norm, int32_t dims)
{
    return norm_bound(square, dims) + norm * 0x1p-22f;
}

static bool screenable(float norm)
{
    return norm < FKM_NORM_MAX;
}

/* An upper bound of the length beyond the head, see head.h: `bound` is that of the whole row. */
static float tail_bound(const fkm_tiles *t, float bound, float square)
{
    double error = fkm_turn_error(t->screened, t->dims) * bound;
    double head = fmax(0, sqrt(square) * (1 - (t->screened + 8) * 0x1p-24) - error);
    double rest = (double)bound * bound - head * head * (1 - t->gram);
    return (float)(sqrt(fmax(0, rest)) * (1 + 0x1p-20)) + FKM_NORM_TINY;
}

/* Where a packed panel and the figures of its rows go. */
typedef struct panel_rows {
    char *panel;
    float *norm, *residual, *tail; /* residual is negative where the row cannot be screened */
} panel_rows;

/* Packs the heads of one panel of rows x: [live][dims]. */
static void pack_heads(const fkm_assign_job *job, fkm_assign_scratch *s, const panel_rows *at,
    const float *x, int32_t live)
{
    const fkm_kernels *k = job->kernels;
    const fkm_tiles *t = job->tiles;
    const double error = fkm_turn_error(t->screened, t->dims);
    for (int32_t r = 0; r < live; r++) {
        float *v = s->framed + (int64_t)r * t->dims;
        for (int32_t d = 0; d < t->dims; d++)
            v[d] = x[(int64_t)r * t->dims + d] * t->scale - t->shift[d];
        at->norm[r] = norm_bound(k->dot(v, s->zero, 1, v, t->dims), t->dims);
    }
    k->rotate(s->turned, s->framed, live, t->dims, t->axes, t->screened);
    k->pack(at->panel, s->square, at->residual, s->turned, live, t->screened, s->zero, 1);
    for (int32_t r = 0; r < k->panel; r++) {
        float bound = r < live ? at->norm[r] : 0;
        bool good = r < live && screenable(bound);
        at->norm[r] = good ? bound : 0;
        at->tail[r] = good ? tail_bound(t, bound, s->square[r]) : 0;
        at->residual[r] = !good ? -1
                                : residual_bound(at->residual[r], bound, t->dims) +
                                      (float)(error * bound * (1 + 0x1p-20));
    }
}

/* Packs one panel of rows x: [live][dims]. */
static void pack_panel(const fkm_assign_job *job, fkm_assign_scratch *s, const panel_rows *at,
    const float *x, int32_t live)
{
    const fkm_kernels *k = job->kernels;
    const fkm_tiles *t = job->tiles;
    if (t->axes) {
        pack_heads(job, s, at, x, live);
        return;
    }
    k->pack(at->panel, s->square, at->residual, x, live, t->dims, t->shift, t->scale);
    for (int32_t r = 0; r < k->panel; r++) {
        float bound = norm_bound(s->square[r], t->dims);
        bool good = r < live && screenable(bound);
        at->norm[r] = good ? bound : 0;
        at->tail[r] = 0;
        at->residual[r] = !good ? -1 : k->low ? residual_bound(at->residual[r], bound, t->dims) : 0;
    }
}

void fkm_assign_pack(const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t rows)
{
    const fkm_kernels *k = job->kernels;
    fkm_row_store *store = job->store;
    int64_t dims = job->tiles->dims,
            panel_bytes = (int64_t)fkm_panel_bytes(k, job->tiles->screened);
    for (int32_t r = 0; r < rows; r += k->panel) {
        int32_t live = rows - r < k->panel ? rows - r : k->panel;
        for (int32_t i = 0; i < live; i++)
            gather_row(job, s, first, r + i);
        panel_rows at = {
            .panel = store->panels + (first + r) / k->panel * panel_bytes,
            .norm = store->norm + first + r,
            .residual = store->residual + first + r,
            .tail = store->tail + first + r,
        };
        pack_panel(job, s, &at, s->rows + r * dims, live);
    }
}

/* ---- a block ---- */

/* Scores the centroid that the row had, in float32: the search starts from there. */
static float warm_floor(
    const fkm_assign_job *job, const fkm_row_block *b, int32_t row, const float *x, int32_t label)
{
    const fkm_tiles *t = job->tiles;
    if (label < 0 || label >= t->clusters)
        return FKM_FLOOR_NONE;
    int64_t p = t->position[label];
    float score = job->kernels->dot(x, t->shift, t->scale, t->rows + p * t->dims, t->dims);
    float e = b->norm[row] * t->fine_slope[p] + t->fine_offset[p] + b->slack[row];
    return score - t->half[p] - e;
}

/* Lists the tiles that hold the centroids of a panel's rows: screened first, they set the floors.
 */
static void list_own_tiles(
    const fkm_assign_job *job, fkm_row_block *b, int64_t first, int32_t begin, int32_t end)
{
    const fkm_tiles *t = job->tiles;
    int32_t *own = b->own + begin / job->kernels->panel * FKM_OWN_TILES, n = 0;
    for (int32_t r = begin; r < end && n < FKM_OWN_TILES; r++) {
        int32_t label = job->labels[row_index(job, first, r)], i = 0;
        if (label < 0)
            continue;
        int32_t tile = t->position[label] / t->tile;
        while (i < n && own[i] != tile)
            i++;
        if (i == n)
            own[n++] = tile;
    }
}

/* For bounds: where each row's old centroid is, so that its score can be left out. */
static void start_rivals(const fkm_assign_job *job, fkm_row_block *b, int64_t first, int32_t padded)
{
    const fkm_tiles *t = job->tiles;
    b->rivals = job->upper != NULL;
    for (int32_t r = 0; b->rivals && r < padded; r++) {
        int32_t label = r < b->rows ? job->labels[row_index(job, first, r)] : -1;
        int32_t p = label < 0 ? -1 : t->position[label];
        b->second[r] = -FKM_HALF_PAD;
        b->old_tile[r] = p < 0 ? -1 : p / t->tile;
        b->old_slot[r] = p < 0 ? -1 : p % t->tile;
    }
}

/* Points the block at its rows' panels (packing them, unless they are in a store) and sets floors.
 */
static void start_block(
    const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t rows)
{
    const fkm_kernels *k = job->kernels;
    const fkm_tiles *t = job->tiles;
    fkm_row_store *store = job->store;
    fkm_row_block *b = &s->block;
    int64_t panel_bytes = (int64_t)fkm_panel_bytes(k, t->screened);
    int32_t padded = (int32_t)fkm_round_up(rows, k->panel);
    const float *x = store ? NULL : block_rows(job, s, first, rows);
    b->rows = rows;
    b->panels = store ? store->panels + first / k->panel * panel_bytes : s->panels;
    b->norm = store ? store->norm + first : s->norm;
    b->residual = store ? store->residual + first : s->residual;
    b->tail = store ? store->tail + first : s->tail;
    memset(b->own, -1, (size_t)(padded / k->panel * FKM_OWN_TILES) * sizeof *b->own);
    for (int32_t r = 0; r < padded; r += k->panel) {
        int32_t live = rows - r < k->panel ? rows - r : k->panel;
        panel_rows at = {
            b->panels + r / k->panel * panel_bytes, b->norm + r, b->residual + r, b->tail + r};
        if (store)
            list_own_tiles(job, b, first, r, r + live);
        else
            pack_panel(job, s, &at, x + (int64_t)r * t->dims, live);
    }
    for (int32_t r = 0; r < padded; r++) {
        b->count[r] = 0;
        b->slack[r] = t->kappa * b->norm[r] * b->norm[r];
        b->floor[r] = FKM_FLOOR_NONE; /* a store's own tiles raise it */
        if (b->residual[r] < 0)
            b->floor[r] = -FKM_FLOOR_NONE; /* nothing reaches it */
        else if (!store)
            b->floor[r] = warm_floor(
                job, b, r, x + (int64_t)r * t->dims, job->labels[row_index(job, first, r)]);
    }
    start_rivals(job, b, first, padded);
}

static void screen_block(const fkm_assign_job *job, fkm_assign_scratch *s)
{
    const fkm_kernels *k = job->kernels;
    const fkm_tiles *t = job->tiles;
    int32_t panels = (s->block.rows + k->panel - 1) / k->panel;
    int32_t range = (int32_t)fkm_max_i64(1, TILE_RANGE_BYTES / (int64_t)t->tile_bytes);
    for (int32_t begin = 0; begin < t->count; begin += range) {
        int32_t end = t->count - begin < range ? t->count : begin + range;
        k->screen(&s->block, 0, panels, t, begin, end);
    }
}

/* The nearest centroid found so far, by canonical distance, ties to the lowest index. */
typedef struct nearest {
    double distance;
    int32_t label;
    bool known; /* distance has been computed */
} nearest;

static void consider(const fkm_assign_job *job, nearest *best, const float *x, int32_t label)
{
    int32_t dims = job->tiles->dims;
    double d = job->kernels->canonical(x, job->centroids + (int64_t)label * dims, dims);
    if (best->label < 0 || d < best->distance || (d == best->distance && label < best->label))
        *best = (nearest){d, label, true};
}

static bool finite_row(const float *x, int32_t dims)
{
    for (int32_t t = 0; t < dims; t++)
        if (!isfinite(x[t]))
            return false;
    return true;
}

static nearest decide_against_all(const fkm_assign_job *job, const float *x)
{
    nearest best = {0, -1, true};
    for (int32_t j = 0; j < job->tiles->clusters; j++)
        consider(job, &best, x, j);
    return best;
}

static float fine_score(const fkm_assign_job *job, const float *x, int32_t position)
{
    const fkm_tiles *t = job->tiles;
    const float *c = t->rows + (int64_t)position * t->dims;
    return job->kernels->dot(x, t->shift, t->scale, c, t->dims) - t->half[position];
}

static float fine_margin(const fkm_tiles *t, const fkm_row_block *b, int32_t row, int32_t position)
{
    return b->norm[row] * t->fine_slope[position] + t->fine_offset[position] + b->slack[row];
}

/* Too many candidates to keep: with the floor now at its final height, go through all again. */
static nearest rescan(const fkm_assign_job *job, fkm_assign_scratch *s, int32_t row, const float *x)
{
    const fkm_tiles *t = job->tiles;
    const fkm_row_block *b = &s->block;
    nearest best = {0, -1, true};
    s->counts.rescans++;
    for (int32_t p = 0; p < t->clusters; p++) {
        if (fine_score(job, x, p) + fine_margin(t, b, row, p) < b->floor[row])
            continue;
        s->counts.candidates++;
        consider(job, &best, x, t->index[p]);
    }
    return best;
}

/* Candidates of a low-precision screen, judged again in float32: drops the hopeless in place and
 * returns how many are left. */
static int32_t refine(
    const fkm_assign_job *job, fkm_row_block *b, int32_t row, const float *x, int32_t n)
{
    const fkm_tiles *t = job->tiles;
    int32_t *position = b->position + (int64_t)row * FKM_CANDIDATES, kept = 0;
    float *upper = b->upper + (int64_t)row * FKM_CANDIDATES;
    for (int32_t i = 0; i < n; i++) {
        float score = fine_score(job, x, position[i]);
        float e = fine_margin(t, b, row, position[i]);
        upper[i] = score + e;
        b->floor[row] = fmaxf(b->floor[row], score - e);
    }
    for (int32_t i = 0; i < n; i++)
        if (upper[i] >= b->floor[row])
            position[kept++] = position[i];
    return kept;
}

static nearest decide(const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t row)
{
    const fkm_tiles *t = job->tiles;
    fkm_row_block *b = &s->block;
    const int32_t *position = b->position + (int64_t)row * FKM_CANDIDATES;
    if (b->residual[row] < 0) {
        const float *x = row_at(job, s, first, row);
        if (!finite_row(x, t->dims))
            return (nearest){NAN, -1, true};
        s->counts.in_doubt++;
        s->counts.candidates += t->clusters;
        return decide_against_all(job, x);
    }
    int32_t n = fkm_block_settle(b, row);
    assert(n != 0);
    if (n == 1) {
        s->counts.candidates++;
        return (nearest){0, t->index[position[0]], false};
    }
    const float *x = row_at(job, s, first, row);
    s->counts.in_doubt++;
    if (n < 0)
        return rescan(job, s, row, x);
    s->counts.candidates += n;
    if (job->kernels->low)
        n = refine(job, b, row, x, n);
    assert(n != 0);
    if (n == 1)
        return (nearest){0, t->index[position[0]], false};
    nearest best = {0, -1, true};
    for (int32_t i = 0; i < n; i++)
        consider(job, &best, x, t->index[position[i]]);
    return best;
}

void fkm_assign_block(const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t rows)
{
    const fkm_row_block *b = &s->block;
    int32_t dims = job->tiles->dims;
    start_block(job, s, first, rows);
    screen_block(job, s);
    for (int32_t r = 0; r < rows; r++) {
        int64_t i = row_index(job, first, r);
        nearest best = decide(job, s, first, r);
        s->counts.rows += best.label >= 0;
        s->counts.skipped += best.label < 0;
        s->counts.moved += best.label != job->labels[i];
        if (job->upper)
            fkm_bounds_set(
                &job->upper[i], &job->lower[i], b, r, dims, best.label == job->labels[i]);
        job->labels[i] = best.label;
        if (!job->distances)
            continue;
        if (!best.known)
            best.distance = job->kernels->canonical(
                row_at(job, s, first, r), job->centroids + (int64_t)best.label * dims, dims);
        job->distances[i] = best.distance;
    }
}

/* ---- several nearest centroids a row ---- */

/* Keeps the `top` largest values seen in a min-heap. */
static void heap_offer(float *heap, int32_t *size, int32_t top, float v)
{
    int32_t i;
    if (*size < top) {
        for (i = (*size)++; i > 0 && heap[(i - 1) / 2] > v; i = (i - 1) / 2)
            heap[i] = heap[(i - 1) / 2];
        heap[i] = v;
        return;
    }
    if (v <= heap[0])
        return;
    for (i = 0;;) {
        int32_t child = 2 * i + 1;
        if (child >= top)
            break;
        if (child + 1 < top && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= v)
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = v;
}

/* Score bounds of every centroid for one row; returns the `top`-th largest lower bound. */
static float bound_all(const fkm_assign_job *job, fkm_assign_scratch *s, const float *x)
{
    const fkm_tiles *t = job->tiles;
    float norm = norm_bound(s->square[0], t->dims), slack = t->kappa * norm * norm;
    int32_t size = 0;
    for (int32_t p = 0; p < t->clusters; p++) {
        const float *c = t->rows + (int64_t)p * t->dims;
        float score = job->kernels->dot(x, t->shift, t->scale, c, t->dims) - t->half[p];
        float e = norm * t->fine_slope[p] + t->fine_offset[p] + slack;
        s->lower[p] = score - e;
        s->upper[p] = score + e;
        heap_offer(s->heap, &size, job->top, s->lower[p]);
    }
    return s->heap[0];
}

/* Inserts (d, label) into a list of `size` sorted entries, at most `top`. */
static void insert(
    int32_t *label, double *distance, int32_t *size, int32_t top, double d, int32_t j)
{
    int32_t i = *size;
    if (i == top) {
        if (d > distance[top - 1] || (d == distance[top - 1] && j > label[top - 1]))
            return;
        i--;
    } else {
        (*size)++;
    }
    for (; i > 0 && (distance[i - 1] > d || (distance[i - 1] == d && label[i - 1] > j)); i--) {
        distance[i] = distance[i - 1];
        label[i] = label[i - 1];
    }
    distance[i] = d;
    label[i] = j;
}

static void nearest_of_row(const fkm_assign_job *job, fkm_assign_scratch *s, const float *x,
    int32_t *label, double *distance)
{
    const fkm_tiles *t = job->tiles;
    int32_t size = 0;
    for (int32_t i = 0; i < job->top; i++) {
        label[i] = -1;
        distance[i] = NAN;
    }
    job->kernels->pack(s->panels, s->square, s->residual, x, 1, t->dims, t->shift, t->scale);
    bool bounded = job->top > 1 && screenable(norm_bound(s->square[0], t->dims));
    if (!bounded && !finite_row(x, t->dims)) {
        s->counts.skipped++;
        return;
    }
    float floor = bounded ? bound_all(job, s, x) : 0;
    for (int32_t p = 0; p < t->clusters; p++) {
        if (bounded && s->upper[p] < floor)
            continue;
        int32_t j = t->index[p];
        double d = job->kernels->canonical(x, job->centroids + (int64_t)j * t->dims, t->dims);
        insert(label, distance, &size, job->top, d, j);
        s->counts.candidates++;
    }
    s->counts.rows++;
}

void fkm_assign_nearest(
    const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t rows)
{
    const float *x = block_rows(job, s, first, rows);
    for (int32_t r = 0; r < rows; r++)
        nearest_of_row(job, s, x + (int64_t)r * job->tiles->dims,
            job->labels + (first + r) * job->top, job->distances + (first + r) * job->top);
}

void fkm_assign_distances(
    const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t rows)
{
    int32_t dims = job->tiles->dims;
    const float *x = block_rows(job, s, first, rows);
    for (int32_t r = 0; r < rows; r++) {
        int64_t label = job->labels[first + r];
        job->distances[first + r] = label < 0 ? NAN
                                              : job->kernels->canonical(x + (int64_t)r * dims,
                                                    job->centroids + label * dims, dims);
    }
}
