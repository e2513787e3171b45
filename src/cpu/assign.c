/* Assignment of blocks of rows: see assign.h; the proof is in screen.h. */
#include "assign.h"

#include "../base/checked.h"
#include "../base/clock.h"
#include "../base/mem.h"
#include "apart.h"
#include "bounds.h"
#include "head.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* A block's panels and a range of tiles should share the second-level cache, so that each centroid
 * is fetched from beyond it once a block, and each panel once a range of tiles. Beyond it, tiles
 * come four times as slowly as matrix units take them: those have large blocks, and CPUs that have
 * them 2 MiB of it. */
#define BLOCK_BYTES (256 << 10)
#define TILE_RANGE_BYTES (384 << 10)
#define MATRIX_BLOCK_BYTES (768 << 10)
#define MATRIX_RATE 200
#define MAX_PANELS 16
#define MAX_PANEL 32 /* rows of a panel */

#define PREFETCH_BYTES 1024 /* of a row; hardware sees the rest coming */
#define PREFETCH_ROWS 3

int32_t fkm_assign_block_rows(const fkm_kernels *k, int32_t dims)
{
    const int64_t bytes = k->rate >= MATRIX_RATE ? MATRIX_BLOCK_BYTES : BLOCK_BYTES;
    int64_t panels = bytes / (int64_t)fkm_panel_bytes(k, dims);
    panels = fkm_max_i64(1, fkm_min_i64(panels, MAX_PANELS));
    return (int32_t)panels * k->panel;
}

/* Room for so many: rows of a panel are packed from there, but for bytes. */
static int32_t widened_rows(const fkm_kernels *k)
{
    return k->bytes ? 1 : k->panel;
}

int64_t fkm_assign_scratch_bytes(const fkm_kernels *k, int32_t rows, int32_t clusters, int32_t dims,
    fkm_dtype dtype, int32_t top)
{
    int64_t per_row = 18 * (int64_t)sizeof(float) + FKM_OWN_TILES * (int64_t)sizeof(int32_t) +
                      FKM_CANDIDATES * (int64_t)(sizeof(int32_t) + sizeof(float)) +
                      (int64_t)fkm_panel_bytes(k, dims) / k->panel;
    int64_t widened = dtype != FKM_F32 ? (int64_t)sizeof(float) * widened_rows(k) * dims : 0;
    int64_t turning = fkm_head_most(k, dims) > 0 ? 4 * (2 * (int64_t)k->panel + 1) * dims : 0;
    int64_t nearest = top > 1 ? 2 * (int64_t)sizeof(float) * clusters + 4 * (int64_t)top : 0;
    return rows * per_row + widened + turning + nearest + 4096;
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
    b->stride = (int32_t)rows;
    FKM_TRY(fkm_alloc(&b->base, rows, sizeof(float), what, e));
    FKM_TRY(fkm_alloc(&b->unmoved, panels, sizeof(bool), what, e));
    FKM_TRY(fkm_alloc(&b->beyond, panels, sizeof(float), what, e));
    return fkm_alloc(&b->own, panels * FKM_OWN_TILES, sizeof(int32_t), what, e);
}

fkm_status fkm_assign_scratch_open(fkm_assign_scratch *s, const fkm_kernels *k, int32_t rows,
    int32_t clusters, int32_t dims, fkm_dtype dtype, int32_t top, fkm_err *e)
{
    static const char what[] = "assignment scratch";
    fkm_status st = FKM_OK;
    const int64_t panels = rows / k->panel;
    memset(s, 0, sizeof *s);
    FKM_GO(open_block(&s->block, rows, panels, e));
    FKM_GO(fkm_alloc(&s->panels, panels, fkm_panel_bytes(k, dims), what, e));
    FKM_GO(fkm_alloc(&s->index, rows, sizeof *s->index, what, e));
    FKM_GO(fkm_alloc(&s->old, rows, sizeof *s->old, what, e));
    FKM_GO(fkm_alloc(&s->label, rows, sizeof *s->label, what, e));
    FKM_GO(fkm_alloc(&s->some, rows, sizeof *s->some, what, e));
    FKM_GO(fkm_alloc(&s->rests, panels, sizeof *s->rests, what, e));
    FKM_GO(fkm_alloc(&s->norm, rows, sizeof(float), what, e));
    FKM_GO(fkm_alloc(&s->residual, rows, sizeof(float), what, e));
    FKM_GO(fkm_alloc(&s->square, rows, sizeof(float), what, e));
    FKM_GO(fkm_calloc(&s->tail, rows, sizeof(float), what, e));
    if (fkm_head_most(k, dims) > 0) {
        FKM_GO(fkm_alloc(&s->framed, (int64_t)k->panel * dims, sizeof(float), what, e));
        FKM_GO(fkm_alloc(&s->turned, (int64_t)k->panel * dims, sizeof(float), what, e));
        FKM_GO(fkm_calloc(&s->zero, dims, sizeof(float), what, e));
    }
    if (dtype != FKM_F32)
        FKM_GO(fkm_alloc(&s->rows, (int64_t)widened_rows(k) * dims, sizeof(float), what, e));
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
    fkm_free(s->block.base);
    fkm_free(s->block.unmoved);
    fkm_free(s->block.beyond);
    fkm_free(s->block.second);
    fkm_free(s->block.old_tile);
    fkm_free(s->block.old_slot);
    fkm_free(s->panels);
    fkm_free(s->index);
    fkm_free(s->old);
    fkm_free(s->label);
    fkm_free(s->some);
    fkm_free(s->rests);
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

/* Finds out which rows the positions [first, first + rows) are, and their labels so far. */
static void name_rows(const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t rows)
{
    const fkm_row_store *store = job->store;
    int64_t *restrict index = s->index;
    int32_t *restrict old = s->old;
    if (store && !job->list) {
        const int32_t *order = store->order + first, *label = store->label + first;
        for (int32_t r = 0; r < rows; r++) {
            index[r] = order[r];
            old[r] = label[r];
        }
        return;
    }
    for (int32_t r = 0; r < rows; r++) {
        int64_t at = job->list ? job->list[first + r] : first + r;
        index[r] = store ? store->order[at] : at;
        old[r] = store ? store->label[at] : job->labels[index[r]];
    }
}

static const char *row_bytes(const fkm_assign_job *job, const fkm_assign_scratch *s, int32_t r)
{
    return (const char *)job->x +
           (size_t)s->index[r] * (size_t)job->tiles->dims * fkm_dtype_size(job->dtype);
}

/* Row r of the block as float32: in place, or widened, and there until a panel of rows later
 * (bytes: until the next). */
static const float *row_at(const fkm_assign_job *job, fkm_assign_scratch *s, int32_t r)
{
    int64_t dims = job->tiles->dims;
    const char *x = row_bytes(job, s, r);
    if (job->dtype == FKM_F32)
        return (const float *)(const void *)x;
    float *out = s->rows + r % widened_rows(job->tiles->kernels) * dims;
    job->tiles->kernels->widen(out, x, job->dtype, dims);
    return out;
}

/* Row r of the block as kernels pack it. */
static const void *row_to_pack(const fkm_assign_job *job, fkm_assign_scratch *s, int32_t r)
{
    if (job->tiles->kernels->bytes)
        return row_bytes(job, s, r);
    return row_at(job, s, r);
}

/* Rows are in no order in memory: what will be read soon is fetched ahead. */
static void prefetch_row(const fkm_assign_job *job, const fkm_assign_scratch *s, int32_t r)
{
    const char *x = row_bytes(job, s, r);
    size_t bytes = (size_t)job->tiles->dims * fkm_dtype_size(job->dtype);
    for (size_t b = 0; b < bytes && b < PREFETCH_BYTES; b += 64)
        __builtin_prefetch(x + b);
    __asm__ volatile("" : : "r"(x)); /* else GCC holds this to have no effect, and calls it never */
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

/* Packs the heads of one panel of rows x: [live] of [dims]. */
static void pack_heads(const fkm_assign_job *job, fkm_assign_scratch *s, const panel_rows *at,
    const void *const *x, int32_t live)
{
    const fkm_kernels *k = job->tiles->kernels;
    const fkm_tiles *t = job->tiles;
    const double error = fkm_turn_error(t->screened, t->dims);
    for (int32_t r = 0; r < live; r++) {
        const float *row = x[r];
        float *v = s->framed + (int64_t)r * t->dims;
        for (int32_t d = 0; d < t->dims; d++)
            v[d] = row[d] * t->scale - t->shift[d];
        at->norm[r] = norm_bound(k->dot(v, s->zero, 1, v, t->dims), t->dims);
    }
    const void *heads[MAX_PANEL];
    for (int32_t r = 0; r < live; r++)
        heads[r] = s->turned + (int64_t)r * t->screened;
    k->rotate(s->turned, s->framed, live, t->dims, t->axes, t->screened);
    k->pack(at->panel, s->square, at->residual, heads, live, t->screened, s->zero, 1, NULL);
    for (int32_t r = 0; r < k->panel; r++) {
        float bound = r < live ? at->norm[r] : 0;
        bool good = r < live && screenable(bound);
        at->norm[r] = good ? bound : 0;
        at->tail[r] = good ? tail_bound(t, bound, s->square[r]) : 0;
        float lost = k->low ? at->residual[r] : 0;
        at->residual[r] =
            !good ? -1
                  : residual_bound(lost, bound, t->dims) + (float)(error * bound * (1 + 0x1p-20));
    }
}

/* Packs rows [begin, begin + live) of the block as one panel. */
static void pack_panel(const fkm_assign_job *job, fkm_assign_scratch *s, const panel_rows *at,
    int32_t begin, int32_t live, const void *const *ahead)
{
    const fkm_kernels *k = job->tiles->kernels;
    const fkm_tiles *t = job->tiles;
    const void *x[MAX_PANEL];
    for (int32_t r = 0; r < live; r++)
        x[r] = row_to_pack(job, s, begin + r);
    if (t->axes) {
        pack_heads(job, s, at, x, live);
        return;
    }
    k->pack(at->panel, s->square, at->residual, x, live, t->dims, t->shift, t->scale, ahead);
    for (int32_t r = 0; r < k->panel; r++) {
        float bound = norm_bound(s->square[r], t->dims);
        bool good = r < live && screenable(bound);
        at->norm[r] = good ? bound : 0;
        at->tail[r] = 0;
        at->residual[r] = !good ? -1 : k->low ? residual_bound(at->residual[r], bound, t->dims) : 0;
    }
}

/* The rows of the panel that begins at row `begin` of the block, for packing to fetch while it is
 * at the panel before: *ahead points at them. Rows that are widened are fetched at once. */
static const void *const *look_ahead(const fkm_assign_job *job, const fkm_assign_scratch *s,
    int32_t begin, int32_t rows, const void **ahead)
{
    int32_t panel = job->tiles->kernels->panel;
    bool direct = (job->dtype == FKM_F32 || job->tiles->kernels->bytes) && !job->tiles->axes;
    if (begin >= rows)
        return NULL;
    for (int32_t i = 0; i < panel; i++) {
        int32_t r = begin + i < rows ? begin + i : rows - 1;
        if (direct)
            ahead[i] = row_bytes(job, s, r);
        else
            prefetch_row(job, s, r);
    }
    return direct ? ahead : NULL;
}

/* Packs the block's panels, a panel ahead of the memory. */
static void pack_block(const fkm_assign_job *job, fkm_assign_scratch *s, int32_t rows)
{
    const fkm_row_block *b = &s->block;
    const void *ahead[MAX_PANEL];
    int32_t panel = job->tiles->kernels->panel;
    int64_t panel_bytes = (int64_t)fkm_panel_bytes(job->tiles->kernels, job->tiles->screened);
    for (int32_t r = 0; r < panel && r < rows; r++)
        prefetch_row(job, s, r);
    for (int32_t begin = 0; begin < rows; begin += panel) {
        int32_t live = rows - begin < panel ? rows - begin : panel;
        panel_rows at = {b->panels + begin / panel * panel_bytes, b->norm + begin,
            b->residual + begin, b->tail + begin};
        pack_panel(job, s, &at, begin, live, look_ahead(job, s, begin + panel, rows, ahead));
    }
}

/* ---- floors ---- */

/* Scores the centroid that the row had, in float32: the search starts from there. */
static float warm_floor(
    const fkm_assign_job *job, const fkm_row_block *b, int32_t row, const float *x, int32_t label)
{
    const fkm_tiles *t = job->tiles;
    if (label < 0 || label >= t->clusters)
        return FKM_FLOOR_NONE;
    int64_t p = t->position[label];
    float score = job->tiles->kernels->dot(x, t->shift, t->scale, t->rows + p * t->dims, t->dims);
    float e = b->norm[row] * t->fine_slope[p] + t->fine_offset[p] + b->slack[row];
    return score - t->half[p] - e;
}

/* Lists the tiles that hold the centroids of a panel's rows: screened first, they set the floors.
 * When they are too many, rows of the others are strays: their floors come one by one. Returns how
 * many those are. */
static int32_t list_own_tiles(
    const fkm_assign_job *job, fkm_assign_scratch *s, int32_t begin, int32_t live, int32_t *stray)
{
    int32_t *own = s->block.own + begin / job->tiles->kernels->panel * FKM_OWN_TILES;
    int32_t count = 0, strays = 0, last = -1;
    for (int32_t r = begin; r < begin + live; r++) {
        int32_t tile = s->block.old_tile[r], n = 0;
        if (tile == last || tile < 0)
            continue;
        last = tile;
        while (n < count && own[n] != tile)
            n++;
        if (n == FKM_OWN_TILES) {
            stray[strays++] = r;
            last = -1; /* the next row is one, too */
        } else if (n == count) {
            own[count++] = tile;
        }
    }
    return strays;
}

/* Floors of rows in label order: their own tiles will set most of them. Heads make poor floors,
 * their lower bounds being what they lack; but matrix units would be done before full rows are
 * fetched. */
static void start_from_tiles(const fkm_assign_job *job, fkm_assign_scratch *s, int32_t rows)
{
    fkm_row_block *b = &s->block;
    int32_t panel = job->tiles->kernels->panel, strays = 0;
    for (int32_t begin = 0; begin < rows; begin += panel) {
        int32_t live = rows - begin < panel ? rows - begin : panel;
        if (s->rests[begin / panel])
            continue;
        const int32_t more = list_own_tiles(job, s, begin, live, s->some + strays);
        b->unmoved[begin / panel] &= more == 0;
        strays += more;
    }
    for (int32_t i = 0; i < strays; i++)
        prefetch_row(job, s, s->some[i]);
    for (int32_t i = 0; i < strays; i++) {
        int32_t r = s->some[i];
        if (b->residual[r] >= 0)
            b->floor[r] = warm_floor(job, b, r, row_at(job, s, r), s->old[r]);
    }
}

/* Floors of rows at hand. */
static void start_from_rows(const fkm_assign_job *job, fkm_assign_scratch *s, int32_t rows)
{
    fkm_row_block *b = &s->block;
    const int32_t panels = (rows + job->tiles->kernels->panel - 1) / job->tiles->kernels->panel;
    memset(b->unmoved, 0, (size_t)panels * sizeof *b->unmoved);
    for (int32_t r = 0; r < rows; r++) {
        if (b->residual[r] < 0 || s->rests[r / job->tiles->kernels->panel])
            continue;
        b->floor[r] = warm_floor(job, b, r, row_at(job, s, r), s->old[r]);
        if (job->trial && job->tiles->kernels->low && s->old[r] >= 0)
            b->floor[r] -= fkm_block_margin(b, r, job->tiles, job->tiles->position[s->old[r]]);
    }
}

/* Where each row's old centroid is: its tile may be screened first, and bounds leave its score out.
 */
static void find_old(const fkm_assign_job *job, fkm_assign_scratch *s, int32_t rows, int32_t padded)
{
    static const fkm_place nowhere = {-1, -1};
    fkm_row_block *b = &s->block;
    const fkm_place *place = job->tiles->place;
    const int32_t *old = s->old;
    int32_t *restrict tile = b->old_tile, *restrict slot = b->old_slot;
    b->rivals = job->upper != NULL;
    for (int32_t r = 0; r < padded; r++) {
        int32_t label = r < rows ? old[r] : -1;
        fkm_place p = label < 0 ? nowhere : place[label];
        tile[r] = p.tile;
        slot[r] = p.slot;
    }
}

/* Of rows that no centroid has been held against. */
static void reset_rows(fkm_row_block *b, float kappa, int32_t padded)
{
    const float *restrict norm = b->norm, *restrict residual = b->residual;
    float *restrict slack = b->slack, *restrict floor = b->floor, *restrict second = b->second;
    for (int32_t r = 0; r < padded; r++) {
        slack[r] = kappa * norm[r] * norm[r];
        floor[r] = residual[r] < 0 ? -FKM_FLOOR_NONE /* nothing reaches it */ : FKM_FLOOR_NONE;
        second[r] = -FKM_HALF_PAD;
    }
    memset(b->count, 0, (size_t)padded * sizeof *b->count);
}

/* ---- a block ---- */

/* Are panels kept? Those of float32 rows are laid out as fast as they could be read, so only their
 * order is, but for heads. */
static bool keeps_panels(const fkm_assign_job *job)
{
    return job->store && !job->list && job->keep && (job->tiles->kernels->low || job->tiles->axes);
}

/* Points the block at the distances of its panels to tiles. */
static void find_apart(const fkm_assign_job *job, fkm_row_block *b, int64_t first, int32_t padded)
{
    const int32_t panel = job->tiles->kernels->panel;
    b->apart = job->apart ? job->store->apart + first / panel * job->tiles->count : NULL;
    b->apart_known = job->apart && job->apart_known;
    b->ref = job->apart ? job->store->ref + first : NULL;
    b->slip = job->apart ? job->store->slip + first / panel : NULL;
    b->reach = job->apart ? job->store->reach + first / panel : NULL;
    for (int32_t p = 0; p < padded / panel; p++)
        b->beyond[p] = FKM_APART_FAR;
    b->spared = 0;
}

/* Finds panels of rows with unmoved labels, and which of these rest. Returns how many of their rows
 * do. */
static int32_t find_rest(const fkm_assign_job *job, fkm_assign_scratch *s, int32_t rows)
{
    fkm_row_block *b = &s->block;
    const int32_t panel = job->tiles->kernels->panel;
    const bool usable = job->moved && (!b->apart || b->apart_known);
    const bool for_labels = !job->distances && !(job->update && job->rebuild);
    const bool may_rest =
        usable && for_labels && job->reach_known && (!job->upper || job->bounds_hold);
    int32_t rested = 0;
    b->moved_tile = job->moved_tile;
    for (int32_t begin = 0, p = 0; begin < rows; begin += panel, p++) {
        const int32_t end = rows - begin < panel ? rows : begin + panel;
        int32_t r = begin;
        while (usable && r < end && s->old[r] >= 0 && !job->moved[s->old[r]] && b->residual[r] >= 0)
            r++;
        b->unmoved[p] = r == end;
        s->rests[p] = may_rest && b->unmoved[p] && fkm_apart_rests(b, job->tiles, p);
        if (s->rests[p]) {
            rested += end - begin;
            s->counts.apart += job->tiles->count;
        }
    }
    s->counts.rested += rested;
    return rested;
}

/* Points the block at its rows' panels, packing them if need be, and sets floors. Returns how many
 * rows are in panels that rest. */
static int32_t start_block(
    const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t rows)
{
    const fkm_kernels *k = job->tiles->kernels;
    const fkm_tiles *t = job->tiles;
    fkm_row_block *b = &s->block;
    const fkm_row_store *store = keeps_panels(job) ? job->store : NULL;
    int64_t panel_bytes = (int64_t)fkm_panel_bytes(k, t->screened);
    int32_t padded = (int32_t)fkm_round_up(rows, k->panel);
    name_rows(job, s, first, rows);
    b->rows = rows;
    b->panels = store ? store->panels + first / k->panel * panel_bytes : s->panels;
    b->norm = store ? store->norm + first : s->norm;
    b->residual = store ? store->residual + first : s->residual;
    b->tail = store ? store->tail + first : s->tail;
    if (!store || job->pack)
        pack_block(job, s, rows);
    find_apart(job, b, first, padded);
    const int32_t rested = find_rest(job, s, rows);
    if (rested == rows)
        return rested;
    find_old(job, s, rows, padded);
    memset(b->own, -1, (size_t)(padded / k->panel * FKM_OWN_TILES) * sizeof *b->own);
    reset_rows(b, t->kappa, padded);
    if (job->store && !job->list && (k->low || !t->axes))
        start_from_tiles(job, s, rows);
    else
        start_from_rows(job, s, rows);
    return rested;
}

/* Screens the panels that do not rest against tiles [begin, end). */
static void screen_tiles(
    const fkm_assign_job *job, fkm_assign_scratch *s, int32_t panels, int32_t begin, int32_t end)
{
    for (int32_t p = 0, first; p < panels; p++) {
        for (first = p; p < panels && !s->rests[p]; p++)
            ;
        if (p > first)
            job->tiles->kernels->screen(&s->block, first, p - first, job->tiles, begin, end);
    }
}

static void screen_block(const fkm_assign_job *job, fkm_assign_scratch *s)
{
    const fkm_kernels *k = job->tiles->kernels;
    const fkm_tiles *t = job->tiles;
    int32_t panels = (s->block.rows + k->panel - 1) / k->panel;
    int32_t range = (int32_t)fkm_max_i64(1, TILE_RANGE_BYTES / (int64_t)t->tile_bytes);
    for (int32_t begin = 0; begin < t->count; begin += range) {
        int32_t end = t->count - begin < range ? t->count : begin + range;
        screen_tiles(job, s, panels, begin, end);
    }
    s->counts.apart += s->block.spared;
}

/* The nearest centroid found so far, by canonical distance, ties to the lowest index. */
typedef struct nearest {
    double distance;
    int32_t label;
} nearest;

static void consider(const fkm_assign_job *job, nearest *best, const float *x, int32_t label)
{
    int32_t dims = job->tiles->dims;
    double d = job->tiles->kernels->canonical(x, job->centroids + (int64_t)label * dims, dims);
    if (best->label < 0 || d < best->distance || (d == best->distance && label < best->label))
        *best = (nearest){d, label};
}

static bool finite_row(const float *x, int32_t dims)
{
    for (int32_t t = 0; t < dims; t++)
        if (!isfinite(x[t]))
            return false;
    return true;
}

static int32_t decide_against_all(const fkm_assign_job *job, const float *x)
{
    nearest best = {0, -1};
    for (int32_t j = 0; j < job->tiles->clusters; j++)
        consider(job, &best, x, j);
    return best.label;
}

static float fine_score(const fkm_assign_job *job, const float *x, int32_t position)
{
    const fkm_tiles *t = job->tiles;
    const float *c = t->rows + (int64_t)position * t->dims;
    return job->tiles->kernels->dot(x, t->shift, t->scale, c, t->dims) - t->half[position];
}

static float fine_margin(const fkm_tiles *t, const fkm_row_block *b, int32_t row, int32_t position)
{
    return b->norm[row] * t->fine_slope[position] + t->fine_offset[position] + b->slack[row];
}

/* Too many candidates to keep: with the floor now at its final height, go through all again. */
static int32_t rescan(const fkm_assign_job *job, fkm_assign_scratch *s, int32_t row, const float *x)
{
    const fkm_tiles *t = job->tiles;
    const fkm_row_block *b = &s->block;
    nearest best = {0, -1};
    s->counts.rescans++;
    for (int32_t p = 0; p < t->clusters; p++) {
        if (fine_score(job, x, p) + fine_margin(t, b, row, p) < b->floor[row])
            continue;
        s->counts.candidates++;
        consider(job, &best, x, t->index[p]);
    }
    return best.label;
}

/* A candidate: the upper bound of its score so far. */
typedef struct candidate {
    float upper;
    int32_t position;
} candidate;

/* Candidates of a screen of rounded copies or heads, judged again in float32: drops the hopeless in
 * place and returns how many are left. The most likely comes first: the floor that it sets spares
 * others the judgement. */
static int32_t refine(const fkm_assign_job *job, fkm_row_block *b, int32_t row, const float *x,
    candidate *c, int32_t n)
{
    float floor = b->floor[row];
    int32_t best = 0, judged = 0, kept = 0;
    for (int32_t i = 1; i < n; i++)
        best = c[i].upper > c[best].upper ? i : best;
    const candidate first = c[best];
    c[best] = c[0];
    c[0] = first;
    for (int32_t i = 0; i < n; i++) {
        if (c[i].upper < floor)
            continue;
        float score = fine_score(job, x, c[i].position);
        float e = fine_margin(job->tiles, b, row, c[i].position);
        floor = fmaxf(floor, score - e);
        c[judged++] = (candidate){score + e, c[i].position};
    }
    for (int32_t i = 0; i < judged; i++)
        if (c[i].upper >= floor)
            c[kept++] = c[i];
    b->floor[row] = floor;
    return kept;
}

/* The label of a row that screening alone does not settle. */
static int32_t resolve(const fkm_assign_job *job, fkm_assign_scratch *s, int32_t row)
{
    const fkm_tiles *t = job->tiles;
    fkm_row_block *b = &s->block;
    const float *x = row_at(job, s, row);
    int32_t n = 0;
    candidate c[FKM_CANDIDATES];
    if (b->residual[row] < 0 && !finite_row(x, t->dims))
        return -1;
    s->counts.in_doubt++;
    if (b->residual[row] < 0) {
        s->counts.candidates += t->clusters;
        return decide_against_all(job, x);
    }
    if (b->count[row] > FKM_CANDIDATES)
        return rescan(job, s, row, x);
    for (int64_t i = 0, at = row; i < b->count[row]; i++, at += b->stride)
        if (b->upper[at] >= b->floor[row])
            c[n++] = (candidate){b->upper[at], b->position[at]};
    s->counts.candidates += n;
    assert(n > 0);
    if (job->tiles->kernels->low || t->axes)
        n = refine(job, b, row, x, c, n);
    assert(n > 0);
    if (n == 1)
        return t->index[c[0].position];
    nearest best = {0, -1};
    for (int32_t i = 0; i < n; i++)
        consider(job, &best, x, t->index[c[i].position]);
    return best.label;
}

/* The nearest centroid of a row is among its candidates. If neither they nor the row's own have
 * moved, it is the one that was the nearest of all. */
static bool stands(const fkm_assign_job *job, const fkm_assign_scratch *s, int32_t row)
{
    const fkm_row_block *b = &s->block;
    const int32_t own = s->old[row];
    if (own < 0 || job->moved[own] || b->residual[row] < 0 || b->count[row] > FKM_CANDIDATES)
        return false;
    for (int64_t i = 0, at = row; i < b->count[row]; i++, at += b->stride)
        if (b->upper[at] >= b->floor[row] && job->moved[job->tiles->index[b->position[at]]])
            return false;
    return true;
}

/* Gives rows in doubt that stand their labels; returns how many others there are, in s->some. */
static int32_t let_stand(const fkm_assign_job *job, fkm_assign_scratch *s, int32_t doubts)
{
    int32_t left = 0;
    for (int32_t i = 0; i < doubts; i++) {
        const int32_t row = s->some[i];
        if (stands(job, s, row))
            s->label[row] = s->old[row];
        else
            s->some[left++] = row;
    }
    return left;
}

/* Labels of the block's rows: most are settled; the memory of those in doubt is fetched before they
 * are looked at. */
static void decide(const fkm_assign_job *job, fkm_assign_scratch *s, int32_t rows)
{
    const fkm_tiles *t = job->tiles;
    int32_t doubts = t->kernels->settle(&s->block, t->index, s->label, s->some);
    if (job->moved)
        doubts = let_stand(job, s, doubts);
    s->counts.candidates += rows - doubts;
    for (int32_t i = 0; i < doubts; i++)
        prefetch_row(job, s, s->some[i]);
    for (int32_t i = 0; i < doubts; i++)
        s->label[s->some[i]] = resolve(job, s, s->some[i]);
}

static void hand_on_bounds(
    const fkm_assign_job *job, const fkm_assign_scratch *s, int64_t first, int32_t rows)
{
    const fkm_row_block *b = &s->block;
    int32_t dims = job->tiles->dims, panel = job->tiles->kernels->panel;
    for (int32_t r = 0; r < rows; r++) {
        int64_t at = job->list ? job->list[first + r] : first + r;
        if (s->rests[r / panel])
            continue;
        float beyond = b->apart ? fkm_apart_beyond(b, r, panel) : INFINITY;
        fkm_bounds_set(
            &job->upper[at], &job->lower[at], b, r, dims, beyond, s->label[r] == s->old[r]);
    }
}

/* Hands labels and bounds on; s->some lists the rows that move. Returns how many. */
static int32_t hand_on(
    const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t rows)
{
    const int32_t *label = s->label, *old = s->old;
    int32_t *restrict mover = s->some, moved = 0, skipped = 0;
    for (int32_t r = 0; r < rows; r++) {
        mover[moved] = r;
        moved += label[r] != old[r];
        skipped += label[r] < 0;
    }
    if (job->upper)
        hand_on_bounds(job, s, first, rows);
    for (int32_t i = 0; i < moved; i++) {
        int32_t r = mover[i];
        job->labels[s->index[r]] = label[r];
        if (job->store)
            job->store->label[job->list ? job->list[first + r] : first + r] = label[r];
        if (job->update)
            prefetch_row(job, s, r);
    }
    s->counts.rows += rows - skipped;
    s->counts.skipped += skipped;
    s->counts.moved += moved;
    return moved;
}

static void measure_distances(const fkm_assign_job *job, fkm_assign_scratch *s, int32_t rows)
{
    int32_t dims = job->tiles->dims;
    for (int32_t r = 0; r < rows; r++) {
        int64_t label = s->label[r];
        job->distances[s->index[r]] = label < 0 ? NAN
                                                : job->tiles->kernels->canonical(row_at(job, s, r),
                                                      job->centroids + label * dims, dims);
    }
}

/* Row r as the sums take it, of type *t. */
static const void *row_to_add(
    const fkm_assign_job *job, fkm_assign_scratch *s, int32_t r, fkm_dtype *t)
{
    *t = fkm_update_takes(job->update, job->dtype) ? job->dtype : FKM_F32;
    return *t == job->dtype ? (const void *)row_bytes(job, s, r) : row_at(job, s, r);
}

static void add_all(const fkm_assign_job *job, fkm_assign_scratch *s, int32_t rows)
{
    fkm_dtype t;
    for (int32_t r = 0; r < rows; r++) {
        if (r + PREFETCH_ROWS < rows)
            prefetch_row(job, s, r + PREFETCH_ROWS);
        if (s->label[r] < 0)
            continue;
        const void *x = row_to_add(job, s, r, &t);
        fkm_update_row(job->update, s->worker, x, t, s->label[r], false);
        if (job->squares)
            fkm_update_square(job->update, s->worker, x, t);
    }
}

static void add_moved(const fkm_assign_job *job, fkm_assign_scratch *s, int32_t moved)
{
    fkm_dtype t;
    for (int32_t i = 0; i < moved; i++) {
        int32_t r = s->some[i];
        const void *x = row_to_add(job, s, r, &t);
        if (s->old[r] >= 0)
            fkm_update_row(job->update, s->worker, x, t, s->old[r], true);
        if (s->label[r] >= 0)
            fkm_update_row(job->update, s->worker, x, t, s->label[r], false);
    }
}

void fkm_assign_block(const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t rows)
{
    if (start_block(job, s, first, rows) == rows) { /* all rest */
        s->counts.rows += rows;
        return;
    }
    screen_block(job, s);
    decide(job, s, rows);
    int32_t moved = hand_on(job, s, first, rows);
    if (job->distances)
        measure_distances(job, s, rows);
    if (!job->update)
        return;
    double start = fkm_now();
    if (job->rebuild)
        add_all(job, s, rows);
    else
        add_moved(job, s, moved);
    s->counts.sums_s += fkm_now() - start;
}

void fkm_assign_sums(const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t rows)
{
    const double start = fkm_now();
    name_rows(job, s, first, rows);
    memcpy(s->label, s->old, (size_t)rows * sizeof *s->label);
    add_all(job, s, rows);
    s->counts.sums_s += fkm_now() - start;
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
        float score = job->tiles->kernels->dot(x, t->shift, t->scale, c, t->dims) - t->half[p];
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

static void nearest_of_row(
    const fkm_assign_job *job, fkm_assign_scratch *s, int32_t r, int32_t *label, double *distance)
{
    const fkm_tiles *t = job->tiles;
    const float *x = row_at(job, s, r);
    const void *packed = row_to_pack(job, s, r);
    int32_t size = 0;
    for (int32_t i = 0; i < job->top; i++) {
        label[i] = -1;
        distance[i] = NAN;
    }
    job->tiles->kernels->pack(
        s->panels, s->square, s->residual, &packed, 1, t->dims, t->shift, t->scale, NULL);
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
        double d =
            job->tiles->kernels->canonical(x, job->centroids + (int64_t)j * t->dims, t->dims);
        insert(label, distance, &size, job->top, d, j);
        s->counts.candidates++;
    }
    s->counts.rows++;
}

void fkm_assign_nearest(
    const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t rows)
{
    for (int32_t r = 0; r < rows; r++) {
        s->index[r] = first + r;
        nearest_of_row(job, s, r, job->labels + (first + r) * job->top,
            job->distances + (first + r) * job->top);
    }
}

void fkm_assign_distances(
    const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t rows)
{
    for (int32_t r = 0; r < rows; r++) {
        s->index[r] = first + r;
        s->label[r] = job->labels[first + r];
    }
    measure_distances(job, s, rows);
}
