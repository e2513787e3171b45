/* Assignment of blocks of rows: see assign.h; the proof is in screen.h. */
#include "assign.h"

#include "../base/checked.h"
#include "../base/clock.h"
#include "../base/mem.h"
#include "../base/stop.h"
#include "apart.h"
#include "bounds.h"
#include "pack.h"
#include "picks.h"

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

#define PREFETCH_ROWS 3

void fkm_assign_counts_add(fkm_assign_counts *to, const fkm_assign_counts *c)
{
    to->rows += c->rows;
    to->skipped += c->skipped;
    to->moved += c->moved;
    to->in_doubt += c->in_doubt;
    to->candidates += c->candidates;
    to->rescans += c->rescans;
    to->apart += c->apart;
    to->rested += c->rested;
    to->sums_s += c->sums_s;
}

int32_t fkm_assign_block_rows(const fkm_kernels *k, int32_t dims)
{
    const int64_t bytes = k->rate >= MATRIX_RATE ? MATRIX_BLOCK_BYTES : BLOCK_BYTES;
    int64_t panels = bytes / (int64_t)fkm_panel_bytes(k, dims);
    panels = fkm_max_i64(1, fkm_min_i64(panels, MAX_PANELS));
    return (int32_t)panels * k->panel;
}

/* Of packed panels: as many as k has, one of finer kernels at least. */
static int64_t panels_bytes(const fkm_kernels *k, int32_t rows, int32_t dims)
{
    const int64_t bytes = rows / k->panel * (int64_t)fkm_panel_bytes(k, dims);
    return k->finer ? fkm_max_i64(bytes, (int64_t)fkm_panel_bytes(k->finer, dims)) : bytes;
}

int32_t fkm_assign_rows_by(const fkm_kernels *now, const fkm_kernels *k, int32_t rows, int32_t dims)
{
    const int64_t fit = panels_bytes(k, rows, dims) / (int64_t)fkm_panel_bytes(now, dims);
    return (int32_t)fkm_min_i64(rows, fit * k->panel);
}

int64_t fkm_assign_scratch_bytes(const fkm_kernels *k, int32_t rows, int32_t clusters, int32_t dims,
    fkm_dtype dtype, int32_t top)
{
    int64_t per_row = 18 * (int64_t)sizeof(float) + FKM_OWN_TILES * (int64_t)sizeof(int32_t) +
                      FKM_CANDIDATES * (int64_t)(sizeof(int32_t) + sizeof(float));
    int64_t widened = dtype != FKM_F32 ? (int64_t)sizeof(float) * k->panel * dims : 0;
    int64_t turning = fkm_head_most(k, dims) > 0 ? 4 * (2 * (int64_t)k->panel + 1) * dims : 0;
    int64_t nearest = top > 1 ? 2 * (int64_t)sizeof(float) * clusters + 4 * (int64_t)top : 0;
    return rows * per_row + panels_bytes(k, rows, dims) + widened + turning + nearest +
           fkm_picks_bytes(k, rows, clusters, dims) + 4096;
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
    FKM_GO(fkm_picks_open(&s->block.picks, k, rows, clusters, dims, e));
    FKM_GO(fkm_alloc(&s->panels, panels_bytes(k, rows, dims), 1, what, e));
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
        FKM_GO(fkm_alloc(&s->rows, (int64_t)k->panel * dims, sizeof(float), what, e));
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
    fkm_picks_close(s->block.picks);
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
        fkm_prefetch_row(job, s, s->some[i]);
    for (int32_t i = 0; i < strays; i++) {
        int32_t r = s->some[i];
        if (b->residual[r] >= 0)
            b->floor[r] = warm_floor(job, b, r, fkm_row_at(job, s, r), s->old[r]);
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
        b->floor[r] = warm_floor(job, b, r, fkm_row_at(job, s, r), s->old[r]);
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
    if (!job->store || job->list || !job->keep)
        return false;
    return fkm_row_store_packs(job->store, job->tiles) > 0;
}

/* Points the block at the distances of its panels to tiles. */
static void find_apart(const fkm_assign_job *job, fkm_row_block *b, int64_t first, int32_t padded)
{
    const int32_t panel = job->tiles->kernels->panel;
    b->apart = job->apart ? job->store->apart + first / panel * job->tiles->lots : NULL;
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
    b->moved_lot = job->moved_lot;
    for (int32_t begin = 0, p = 0; begin < rows; begin += panel, p++) {
        const int32_t end = rows - begin < panel ? rows : begin + panel;
        int32_t r = begin;
        while (usable && r < end && s->old[r] >= 0 && !job->moved[s->old[r]] && b->residual[r] >= 0)
            r++;
        b->unmoved[p] = r == end;
        s->rests[p] = may_rest && b->unmoved[p] && fkm_apart_rests(b, job->tiles, p);
        if (s->rests[p]) {
            rested += end - begin;
            s->counts.apart += job->tiles->lots;
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
    fkm_name_rows(job, s, first, rows);
    b->rows = rows;
    b->panels = store ? store->panels + first / k->panel * panel_bytes : s->panels;
    b->norm = store ? store->norm + first : s->norm;
    b->residual = store ? store->residual + first : s->residual;
    b->tail = store && store->tail ? store->tail + first : s->tail;
    if (!store || job->pack)
        fkm_pack_block(job, s, rows);
    find_apart(job, b, first, padded);
    const int32_t rested = find_rest(job, s, rows);
    if (rested == rows)
        return rested;
    find_old(job, s, rows, padded);
    memset(b->own, -1, (size_t)(padded / k->panel * FKM_OWN_TILES) * sizeof *b->own);
    reset_rows(b, t->kappa, padded);
    if (b->apart && t->lot == 1)
        return rested; /* their own centroids will set the floors: see picks.h */
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

/* False: stopped. */
static bool screen_block(const fkm_assign_job *job, fkm_assign_scratch *s)
{
    const fkm_kernels *k = job->tiles->kernels;
    const fkm_tiles *t = job->tiles;
    int32_t panels = (s->block.rows + k->panel - 1) / k->panel;
    int32_t range = (int32_t)fkm_max_i64(1, TILE_RANGE_BYTES / (int64_t)t->tile_bytes);
    for (int32_t begin = 0; begin < t->count; begin += range) {
        int32_t end = t->count - begin < range ? t->count : begin + range;
        if (fkm_is_stopped(job->stop))
            return false;
        screen_tiles(job, s, panels, begin, end);
    }
    s->counts.apart += s->block.spared;
    return true;
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
        if (t->twin[p] || fine_score(job, x, p) + fine_margin(t, b, row, p) < b->floor[row])
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
    const float *x = fkm_row_at(job, s, row);
    int32_t n = 0;
    candidate c[FKM_CANDIDATES];
    if (b->residual[row] < 0 && !fkm_row_is_finite(x, t->dims))
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
 * are looked at. False: stopped, as each of them may have all centroids for candidates. */
static bool decide(const fkm_assign_job *job, fkm_assign_scratch *s, int32_t rows)
{
    const fkm_tiles *t = job->tiles;
    int32_t doubts = t->kernels->settle(&s->block, t->index, s->label, s->some);
    if (job->moved)
        doubts = let_stand(job, s, doubts);
    s->counts.candidates += rows - doubts;
    for (int32_t i = 0; i < doubts; i++)
        fkm_prefetch_row(job, s, s->some[i]);
    for (int32_t i = 0; i < doubts; i++) {
        if (fkm_is_stopped(job->stop))
            return false;
        s->label[s->some[i]] = resolve(job, s, s->some[i]);
    }
    return true;
}

static void hand_on_bounds(
    const fkm_assign_job *job, const fkm_assign_scratch *s, int64_t first, int32_t rows)
{
    const fkm_row_block *b = &s->block;
    int32_t dims = job->tiles->dims, panel = job->tiles->kernels->panel;
    for (int32_t r = 0; r < rows; r++) {
        if (s->rests[r / panel])
            continue;
        int64_t at = job->list ? job->list[first + r] : first + r;
        at = job->by_row ? s->index[r] : at;
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
            fkm_prefetch_row(job, s, r);
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
        job->distances[s->index[r]] = label < 0
                                          ? NAN
                                          : job->tiles->kernels->canonical(fkm_row_at(job, s, r),
                                                job->centroids + label * dims, dims);
    }
}

/* Row r as the sums take it, of type *t. */
static const void *row_to_add(
    const fkm_assign_job *job, fkm_assign_scratch *s, int32_t r, fkm_dtype *t)
{
    *t = fkm_update_takes(job->update, job->dtype) ? job->dtype : FKM_F32;
    return *t == job->dtype ? (const void *)fkm_row_bytes(job, s, r) : fkm_row_at(job, s, r);
}

static void add_all(const fkm_assign_job *job, fkm_assign_scratch *s, int32_t rows)
{
    fkm_dtype t;
    for (int32_t r = 0; r < rows; r++) {
        if (r + PREFETCH_ROWS < rows)
            fkm_prefetch_row(job, s, r + PREFETCH_ROWS);
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
    if (!screen_block(job, s) || !decide(job, s, rows))
        return;
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
    fkm_name_rows(job, s, first, rows);
    memcpy(s->label, s->old, (size_t)rows * sizeof *s->label);
    add_all(job, s, rows);
    s->counts.sums_s += fkm_now() - start;
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
