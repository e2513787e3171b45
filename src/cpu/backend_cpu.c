/* The CPU backend: see backend.h for the contract, assign.h and update.h for the two halves of a
 * pass. */
#include "backend_cpu.h"

#include "../base/checked.h"
#include "../base/clock.h"
#include "../base/log.h"
#include "../base/mem.h"
#include "../base/pool.h"
#include "../base/populate.h"
#include "../base/stop.h"
#include "apart.h"
#include "assign.h"
#include "bounds.h"
#include "ceilings.h"
#include "doubt.h"
#include "head.h"
#include "keep.h"
#include "kernels.h"
#include "probe.h"
#include "update.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* A chunk is laid out anew when more than 1 / STRAY_SHARE of its rows have moved, or when strays
 * have cost about as much since as that will: RELAYOUT_STRAYS each row. Its rows are packed one by
 * one when bounds leave fewer than 1 / LIST_SHARE of them. */
#define STRAY_SHARE 5
#define STRAY_SHARE_TURNED 2 /* or rows of LONG_ROW dims */
#define RELAYOUT_STRAYS 1
#define RELAYOUT_STRAYS_TURNED 4
#define LONG_ROW 512
#define LIST_SHARE 2
#define LIST_SHARE_TURNED 16 /* with a head, packing is dearer and screening cheaper */

/* Distances of panels and tiles are kept when fewer than 1 / CALM_SHARE of the rows moved in the
 * last pass: else centroids move too far for them to last. */
#define CALM_SHARE 5

/* Least share of pairs of panels and lots that distances must spare: keeping those to tiles costs
 * half of that; picking is work, too. */
#define LEAST_APART 0.06
#define LEAST_PICKED 0.2

/* Where distances to single centroids spare more than this share, rows are laid out anew for debts
 * so many times as large: all distances are to be found anew, too. */
#define GOOD_PICKED 0.75
#define GOOD_PICKED_DEBT 2

/* Most memory of a store that is got while the file is read: more may never be used, see
 * worth_keeping, and hold up the reading. */
#define POPULATE_BYTES ((int64_t)64 << 20)

/* Bounds spare no row worth the name while more than 1 / RESTLESS_SHARE of them move. */
#define RESTLESS_SHARE 200

/* A quicker way of screening that sends more than 1 / LEAST_RESCANS of the rows to a rescan is
 * given up. */
#define LEAST_RESCANS 50

/* Rows in no order are added to sums that take more than this, a thread's, in label order: beyond
 * the caches a row of sums is dearer than a row. */
#define NEAR_SUMS_BYTES ((int64_t)1 << 20)

/* Blocks of a chunk for each thread, at least. */
#define LEAST_BLOCKS 8

/* One worker's scratch, on cache lines of its own. */
typedef struct worker {
    fkm_assign_scratch scratch;
    char apart[64];
} worker;

struct fkm_backend {
    fkm_plan plan;
    const fkm_kernels *kernels;
    const char *isa; /* the path they belong to, as --isa names it */
    fkm_pool *pool;
    int32_t block_rows;
    float *centroids; /* [clusters][dims]: the master copy */
    fkm_tiles tiles;
    worker *workers;       /* [threads] */
    fkm_update update;     /* open when plan.update */
    fkm_row_store *stores; /* [store_count], one a chunk: kept copies of rows; NULL: none */
    int64_t store_count;
    fkm_row_store passing; /* rows that are not kept: the order of the chunk at hand */
    fkm_populate populate; /* of the store, when there is one that is small */
    fkm_bounds bounds;     /* open when rows are kept, or plan.bounds */
    fkm_apart apart;       /* of panels and lots */
    fkm_head head;         /* open when there is a choice */
    fkm_doubt doubt;
    int32_t *list;  /* [chunk_rows]: positions that bounds do not spare; scratch. NULL: rows
                       are taken as they come */
    int64_t *start; /* [sort_parts][clusters + 1]: scratch */
    double *shift;  /* [clusters] */
    float *probe;   /* scratch of fkm_probe_pays; NULL: no lots of one */
    int64_t passes, next_probe, probe_patience; /* when to look whether those pay */
    bool *changed;     /* [clusters]: centroids that have moved since the last pass */
    bool *changed_lot; /* [lots]: those that hold any */
    bool labelled;     /* the last pass found the nearest of what they were then */
    fkm_pass_options pass;
    bool sums_hold;  /* sums are those of the labels that the next pass is handed */
    bool change;     /* this pass changes the sums instead of rebuilding them */
    int64_t spared;  /* rows of this pass that bounds settled */
    int64_t moved;   /* rows that the last pass with update moved */
    double assign_s; /* of this pass: spent on labels, not on sums */
};

/* Several kernels share a name: those for 8-bit rows, and those for all. */
static bool named_before(int i)
{
    bool usable;
    const char *isa = fkm_kernels_at(i, &usable)->isa;
    for (int before = 0; before < i; before++)
        if (!strcmp(isa, fkm_kernels_at(before, &usable)->isa))
            return true;
    return false;
}

const char *fkm_backend_cpu_isa(int i, bool *usable)
{
    for (int at = 0, seen = 0, named = 0;; at++) {
        const fkm_kernels *k = fkm_kernels_at(at, usable);
        if (!k && named++)
            return NULL;
        if (!k)
            at = -1; /* once more, for those that are never the default */
        else if (k->named == (named > 0) && !named_before(at) && seen++ == i)
            return k->isa;
    }
}

/* The best kernels that take such rows, from those of the name given on: the path avx512vnni, say,
 * has its own for 8-bit rows, and screens others as avx512 does. *isa: the path's name. */
static fkm_status choose_kernels(
    const fkm_kernels **out, const char **isa, const fkm_plan *p, fkm_err *e)
{
    char known[160] = "";
    bool usable, named = false, runs = !p->isa;
    for (int i = 0;; i++) {
        const fkm_kernels *k = fkm_kernels_at(i, &usable);
        if (!k)
            break;
        if (p->isa && !strcmp(p->isa, k->isa)) {
            named = true;
            runs = runs || usable;
            *isa = k->isa;
        }
        if (runs && usable && (p->isa || !k->named) && fkm_kernels_take(k, p->dtype, p->dims)) {
            *out = k;
            if (!p->isa)
                *isa = k->isa;
            return FKM_OK;
        }
        size_t used = strlen(known);
        if (usable && !named_before(i))
            (void)snprintf(known + used, sizeof known - used, " %s", k->isa);
    }
    if (named)
        return fkm_fail(e, FKM_EUSAGE, "--isa %s: this CPU cannot run it", p->isa);
    fkm_fail(e, FKM_EUSAGE, "--isa %s: no such CPU path", p->isa);
    return fkm_hint(e, "this CPU can run:%s", known);
}

static fkm_status probe(const char *devices, fkm_err *e)
{
    (void)devices;
    (void)e;
    return FKM_OK;
}

static fkm_keep keep_of(const fkm_plan *p, const fkm_kernels *k)
{
    return fkm_keep_of(k, p->rows, p->clusters, p->dims, p->dtype);
}

static int64_t chunk_count(const fkm_plan *p)
{
    return (p->rows + p->chunk_rows - 1) / p->chunk_rows;
}

static int32_t sort_parts(const fkm_plan *p, int64_t count)
{
    return fkm_row_store_parts(count, p->clusters, p->threads);
}

/* Of all parts of a sort. */
static int64_t segment_count(const fkm_plan *p)
{
    return sort_parts(p, p->chunk_rows) * ((int64_t)p->clusters + 1);
}

/* As many as suit the caches, but such that there is something for all threads to do. */
static int32_t block_rows(const fkm_kernels *k, const fkm_plan *p)
{
    const int64_t blocks = (int64_t)p->threads * LEAST_BLOCKS;
    const int64_t share = fkm_round_up(fkm_min_i64(p->rows, p->chunk_rows) / blocks, k->panel);
    return (int32_t)fkm_max_i64(k->panel, fkm_min_i64(share, fkm_assign_block_rows(k, p->dims)));
}

/* Are rows taken in label order, once they have labels? */
static bool orders(const fkm_plan *p)
{
    return p->keep || p->update;
}

/* For planning: plain kernels, should the name be unknown. */
static int64_t bytes(const fkm_plan *p)
{
    fkm_err ignored = {0};
    const fkm_kernels *k = NULL;
    const char *isa;
    if (choose_kernels(&k, &isa, p, &ignored) != FKM_OK)
        k = &fkm_kernels_scalar;
    int64_t total = fkm_mul_sat(fkm_mul_sat(p->clusters, p->dims), sizeof(float));
    total = fkm_add_sat(total, fkm_tiles_bytes(k, p->clusters, p->dims));
    int64_t each =
        fkm_assign_scratch_bytes(k, block_rows(k, p), p->clusters, p->dims, p->dtype, p->top);
    total = fkm_add_sat(total, fkm_mul_sat(p->threads, each + (int64_t)sizeof(worker)));
    const fkm_keep keep = keep_of(p, k);
    const fkm_store_shape passing = {.panel = k->panel};
    if (p->keep) {
        int64_t store =
            fkm_row_store_bytes(&keep.store, p->chunk_rows) + (int64_t)sizeof(fkm_row_store);
        total = fkm_add_sat(total, fkm_mul_sat(chunk_count(p), store));
        total = fkm_add_sat(total, fkm_mul_sat(k->panel * sizeof(float), p->dims));
    } else if (orders(p)) {
        total = fkm_add_sat(total, fkm_row_store_bytes(&passing, p->chunk_rows));
    }
    if (p->keep || p->bounds)
        total = fkm_add_sat(total, fkm_bounds_bytes(p->rows, p->clusters));
    const bool heads = p->keep && keep.heads;
    if (fkm_head_suits(k, p->dims, heads))
        total = fkm_add_sat(total, fkm_head_bytes(k, p->dims, heads));
    if (orders(p)) {
        total = fkm_add_sat(total, fkm_mul_sat(p->chunk_rows, sizeof(int32_t)));
        total = fkm_add_sat(total, 8 * segment_count(p));
    }
    if (p->update)
        total = fkm_add_sat(fkm_add_sat(total, 10 * (int64_t)p->clusters),
            fkm_update_bytes(p->clusters, p->dims, p->wide, p->threads));
    return total;
}

/* Above so many products a pass, threads that meet within a problem lose little, and the rows of
 * several problems would take memory for it. */
#define SHARE_MOST_PRODUCTS 0x1p28
/* The part of a small problem that no second thread makes quicker. Measured with two threads: 0.69
 * at 2000 x 32, K=16 down to 0.2 at 20000 x 32, K=64, and 0.2 at 74256 x 64, K=256. */
#define SERIAL_PART 0.15

/* Time of a batch by so many lanes, in that of a problem on one thread. */
static double batch_time(int64_t batch, int32_t lanes, int32_t threads)
{
    int64_t rounds = (batch + lanes - 1) / lanes;
    return (double)rounds * (SERIAL_PART + (1 - SERIAL_PART) / (threads / lanes));
}

static fkm_status share(fkm_sharing *out, const fkm_plan *p, const fkm_plan *seed, int64_t batch,
    int32_t most, fkm_err *e)
{
    (void)seed;
    (void)e;
    *out = (fkm_sharing){.lanes = 1, .threads = p->threads};
    if ((double)p->rows * p->clusters * p->dims > SHARE_MOST_PRODUCTS)
        return FKM_OK;
    double least = batch_time(batch, 1, p->threads);
    for (int32_t lanes = 2; lanes <= most && lanes <= p->threads && lanes <= batch; lanes++)
        if (batch_time(batch, lanes, p->threads) < least) {
            least = batch_time(batch, lanes, p->threads);
            *out = (fkm_sharing){.lanes = lanes, .threads = p->threads / lanes};
        }
    return FKM_OK;
}

static void close_backend(fkm_backend *b)
{
    if (!b)
        return;
    for (int32_t i = 0; b->workers && i < b->plan.threads; i++)
        fkm_assign_scratch_close(&b->workers[i].scratch);
    fkm_free(b->workers);
    fkm_populate_close(&b->populate);
    for (int64_t i = 0; i < b->store_count; i++)
        fkm_row_store_close(&b->stores[i]);
    fkm_free(b->stores);
    fkm_row_store_close(&b->passing);
    fkm_bounds_close(&b->bounds);
    fkm_head_close(&b->head);
    fkm_free(b->list);
    fkm_free(b->start);
    fkm_free(b->shift);
    fkm_free(b->probe);
    fkm_free(b->changed);
    fkm_free(b->changed_lot);
    fkm_update_close(&b->update);
    fkm_tiles_close(&b->tiles);
    fkm_free(b->centroids);
    fkm_pool_close(b->pool);
    fkm_free(b);
}

static fkm_status open_stores(fkm_backend *b, fkm_err *e)
{
    const fkm_plan *p = &b->plan;
    int64_t n = chunk_count(p);
    const fkm_keep keep = keep_of(p, b->kernels);
    int64_t cells = p->dims * (int64_t)b->kernels->panel;
    b->apart = (fkm_apart){.possible = keep.lot > 0, .patience = 1, .least = LEAST_APART};
    b->probe_patience = 1;
    if (keep.each)
        FKM_TRY(fkm_alloc(&b->probe, cells, sizeof *b->probe, "a panel", e));
    FKM_TRY(fkm_calloc(&b->stores, n, sizeof *b->stores, "rows laid out for screening", e));
    for (int64_t i = 0; i < n; i++) {
        int64_t rows = fkm_min_i64(p->chunk_rows, p->rows - i * p->chunk_rows);
        FKM_TRY(fkm_row_store_open(&b->stores[i], &keep.store, rows, e));
        b->store_count = i + 1;
    }
    int64_t bytes = fkm_row_store_bytes(&keep.store, fkm_min_i64(p->chunk_rows, p->rows));
    if (n == 1 && bytes <= POPULATE_BYTES)
        fkm_populate_start(&b->populate, b->stores[0].memory, bytes);
    return FKM_OK;
}

/* What it takes to have the rows of a chunk in label order. */
static fkm_status open_order(fkm_backend *b, fkm_err *e)
{
    const fkm_plan *p = &b->plan;
    FKM_TRY(fkm_alloc(&b->list, p->chunk_rows, sizeof *b->list, "rows to look at", e));
    FKM_TRY(fkm_alloc(&b->start, segment_count(p), sizeof *b->start, "segments", e));
    if (p->keep)
        return FKM_OK;
    const fkm_store_shape shape = {.panel = b->kernels->panel};
    return fkm_row_store_open(&b->passing, &shape, p->chunk_rows, e);
}

static fkm_status open_backend(fkm_backend **out, const fkm_plan *p, fkm_err *e)
{
    fkm_status st = FKM_OK;
    fkm_backend *b = NULL;
    FKM_TRY(fkm_calloc(&b, 1, sizeof *b, "the CPU backend", e));
    b->plan = *p;
    int64_t cells;
    FKM_GO(choose_kernels(&b->kernels, &b->isa, p, e));
    if (!fkm_mul_i64(&cells, p->clusters, p->dims)) {
        st = fkm_fail(e, FKM_ENOMEM, "%d clusters of %d dims are too large", p->clusters, p->dims);
        goto out;
    }
    b->block_rows = block_rows(b->kernels, p);
    FKM_GO(fkm_pool_open(&b->pool, p->threads, e));
    FKM_GO(fkm_alloc(&b->centroids, cells, sizeof(float), "centroids", e));
    FKM_GO(fkm_tiles_open(&b->tiles, b->kernels, p->clusters, p->dims, e));
    FKM_GO(fkm_calloc(&b->workers, p->threads, sizeof(worker), "threads", e));
    for (int32_t i = 0; i < p->threads; i++) {
        FKM_GO(fkm_assign_scratch_open(&b->workers[i].scratch, b->kernels, b->block_rows,
            p->clusters, p->dims, p->dtype, p->top, e));
        b->workers[i].scratch.worker = i;
    }
    const fkm_keep keep = p->keep ? keep_of(p, b->kernels) : (fkm_keep){0};
    if (fkm_head_suits(b->kernels, p->dims, keep.heads))
        FKM_GO(fkm_head_open(
            &b->head, b->kernels, p->dims, keep.heads, keep.coarse, b->block_rows, e));
    if (orders(p))
        FKM_GO(open_order(b, e));
    if (p->keep || p->bounds)
        FKM_GO(fkm_bounds_open(&b->bounds, p->rows, p->clusters, e));
    if (p->keep)
        FKM_GO(open_stores(b, e));
    if (p->update) {
        FKM_GO(fkm_alloc(&b->shift, p->clusters, sizeof *b->shift, "movements", e));
        FKM_GO(fkm_calloc(&b->changed, p->clusters, sizeof *b->changed, "movements", e));
        FKM_GO(fkm_alloc(&b->changed_lot, b->tiles.count * (int64_t)b->tiles.tile, sizeof(bool),
            "movements", e));
        FKM_GO(fkm_update_open(&b->update, b->kernels, b->pool, p->clusters, p->dims, p->wide, e));
    }
    *out = b;
    return FKM_OK;
out:
    close_backend(b);
    return st;
}

static void forget_labels(fkm_backend *b)
{
    b->labelled = false;
    for (int64_t i = 0; i < b->store_count; i++) {
        b->stores[i].known = false;
        b->stores[i].apart_order = 0;
    }
}

/* By all dims, with the kernels of the plan. */
static void screen_as_planned(fkm_backend *b)
{
    fkm_tiles_turn(&b->tiles, NULL, 0, 0);
    fkm_tiles_use(&b->tiles, b->kernels);
}

static void reset(fkm_backend *b)
{
    fkm_update_scale(&b->update, (fkm_scale){0, false, 0});
    memset(&b->pass, 0, sizeof b->pass);
    b->sums_hold = false;
    forget_labels(b);
    b->bounds.valid = false;
    b->bounds.pause = 0;
    b->apart.pause = 0;
    b->apart.patience = 1;
    b->passes = b->next_probe = 0;
    b->probe_patience = 1;
    b->head.begun = b->head.decided = false;
    b->doubt = (fkm_doubt){0};
    screen_as_planned(b);
    fkm_tiles_renew(&b->tiles);
}

/* Are there distances that hold as long as centroids stay in their tiles? */
static bool keeps_distances(const fkm_backend *b)
{
    bool any = false;
    for (int64_t i = 0; i < b->store_count; i++)
        any = any || (b->stores[i].apart_order && b->stores[i].apart_order == b->tiles.order);
    return any;
}

/* Makes tiles of the centroids, which have moved by b->shift. */
static void tile_moved(fkm_backend *b)
{
    for (int32_t j = 0; b->labelled && j < b->plan.clusters; j++)
        b->changed[j] = b->changed[j] || b->shift[j] != 0;
    if (b->shift && keeps_distances(b))
        fkm_tiles_follow(&b->tiles, b->centroids, b->shift, b->pool);
    else
        fkm_tiles_set(&b->tiles, b->centroids, 1, b->pool);
}

/* How far centroids are from where they go. */
static void measure_shift(fkm_backend *b, const float *c)
{
    const int32_t dims = b->plan.dims;
    for (int32_t j = 0; j < b->plan.clusters; j++) {
        const float *from = b->centroids + (int64_t)j * dims, *to = c + (int64_t)j * dims;
        bool same = memcmp(from, to, (size_t)dims * sizeof *c) == 0;
        b->shift[j] = same ? 0 : sqrt(b->kernels->canonical(from, to, dims));
    }
}

/* Within a problem few differ: those of clusters that were empty. Their tiles alone may come nearer
 * to panels; bounds of rows are lost, as so long a step would leave none. */
static fkm_status set_centroids(fkm_backend *b, const float *c, fkm_err *e)
{
    (void)e;
    if (b->labelled)
        measure_shift(b, c);
    memcpy(b->centroids, c, (size_t)b->plan.clusters * (size_t)b->plan.dims * sizeof *c);
    tile_moved(b);
    if (b->plan.update)
        fkm_update_replaced(&b->update);
    b->bounds.valid = false;
    return FKM_OK;
}

static fkm_status set_scale(fkm_backend *b, fkm_scale s, fkm_err *e)
{
    if (s.wide && !b->plan.wide)
        return fkm_fail(e, FKM_EBUG, "128-bit sums were not planned");
    fkm_update_scale(&b->update, s);
    b->sums_hold = false;
    forget_labels(b); /* the next ones handed in are -1 */
    return FKM_OK;
}

static fkm_status begin(fkm_backend *b, const fkm_pass_options *o, fkm_err *e)
{
    (void)e;
    fkm_populate_stop(&b->populate); /* threads have better things to do */
    b->pass = *o;
    b->assign_s = 0;
    b->spared = 0;
    for (int32_t i = 0; i < b->plan.threads; i++)
        memset(&b->workers[i].scratch.counts, 0, sizeof b->workers[i].scratch.counts);
    bool restless = b->moved > b->plan.rows / RESTLESS_SHARE;
    fkm_bounds_begin(&b->bounds, b->tiles.frame, o->update && b->sums_hold && !restless);
    fkm_apart_begin(&b->apart);
    b->passes++;
    if (!o->update)
        return FKM_OK;
    /* A row that moves costs two additions, but about half as many move as in the last pass. */
    b->change = b->sums_hold && !o->squares && b->moved < b->plan.rows / 4 * 3;
    b->sums_hold = false; /* until this pass is complete */
    if (!b->change)
        fkm_update_clear(&b->update, o->squares);
    return FKM_OK;
}

typedef struct chunk {
    fkm_backend *b;
    fkm_assign_job job;
    int32_t block_rows;
    void (*run)(const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t rows);
} chunk;

static void run_block(void *arg, int64_t block, int index)
{
    const chunk *c = arg;
    if (fkm_is_stopped(c->job.stop))
        return;
    int64_t first = block * c->block_rows;
    int32_t rows = (int32_t)fkm_min_i64(c->block_rows, c->job.count - first);
    c->run(&c->job, &c->b->workers[index].scratch, first, rows);
}

static void run_chunk(
    chunk *c, fkm_backend *b, const fkm_rows *r, int32_t *labels, double *distances)
{
    c->b = b;
    c->job.tiles = &b->tiles;
    c->job.centroids = b->centroids;
    c->job.moved = b->labelled ? b->changed : NULL;
    c->job.moved_lot = b->changed_lot;
    c->job.dtype = b->plan.dtype;
    c->job.x = r->x;
    c->job.count = r->count;
    c->job.labels = labels;
    c->job.distances = distances;
    c->job.stop = b->plan.stop;
    c->block_rows = fkm_assign_rows_by(b->tiles.kernels, b->kernels, b->block_rows, b->plan.dims);
    fkm_pool_for(b->pool, (r->count + c->block_rows - 1) / c->block_rows, run_block, c);
}

static bool any_label(const int32_t *labels, int64_t count)
{
    int64_t i = 0;
    while (i < count && labels[i] < 0)
        i++;
    return i < count;
}

/* Will panels that are packed now be good for as many passes as pay for writing them to memory, two
 * more, or one where packing is dear? Rows move on in a share that falls as it did last, but by
 * half at most: the first ones always fall far. */
static bool worth_keeping(const fkm_row_store *store, int64_t most, bool dear)
{
    double share = fmax(0.5, (double)store->moved / (double)fkm_max_i64(1, store->moved_before));
    double strays = (double)store->moved * share;
    return strays * (dear ? 1 : 1 + share) <= (double)most;
}

static void sort_rows(fkm_backend *b, fkm_row_store *store, int64_t count)
{
    const fkm_label_order by = {b->plan.clusters, b->tiles.position, b->tiles.index};
    fkm_row_store_sort(store, count, &by, sort_parts(&b->plan, count), b->pool, b->start, b->list);
}

/* Are distances to single centroids kept that spare most of them? */
static bool spares_most(const fkm_backend *b, const fkm_row_store *store)
{
    const bool known = store->apart_order == b->tiles.order && b->tiles.lot == 1;
    return known && b->apart.share >= GOOD_PICKED;
}

/* Whether the rows of a chunk must be packed: for a new frame, or because too many have moved
 * since, or as they were not kept. Then they are brought into label order, if they are not in it
 * but for a few. *keep: panels go to the store, where the next pass will find them. */
static bool lay_out(fkm_backend *b, fkm_row_store *store, int64_t count, bool *keep)
{
    bool dear = b->tiles.axes || b->plan.dims >= LONG_ROW;
    int64_t most = count / (dear ? STRAY_SHARE_TURNED : STRAY_SHARE);
    int64_t debt = count * (dear ? RELAYOUT_STRAYS_TURNED : RELAYOUT_STRAYS);
    *keep = false;
    if (!store->ordered && !any_label(store->label, count))
        return true;
    store->debt += store->strays;
    bool stale = store->frame != b->tiles.frame, astray;
    if (spares_most(b, store))
        astray = store->debt > GOOD_PICKED_DEBT * debt;
    else
        astray = store->strays > (stale ? most / 4 : most) || store->debt > debt;
    if (!store->ordered || astray) {
        sort_rows(b, store, count);
        stale = true;
    }
    *keep = !stale || worth_keeping(store, most, dear);
    store->frame = *keep ? b->tiles.frame : 0;
    return stale;
}

/* Of this pass, by all threads. */
static fkm_assign_counts counts_so_far(const fkm_backend *b)
{
    fkm_assign_counts c = {0};
    for (int32_t i = 0; i < b->plan.threads; i++)
        fkm_assign_counts_add(&c, &b->workers[i].scratch.counts);
    return c;
}

/* Rows to be tried, before any are labelled for good. */
static fkm_assign_job trial_of(const fkm_backend *b, const fkm_rows *r, int32_t *labels)
{
    return (fkm_assign_job){
        .tiles = &b->tiles,
        .centroids = b->centroids,
        .dtype = b->plan.dtype,
        .x = r->x,
        .count = r->count,
        .labels = labels,
        .stop = b->plan.stop,
    };
}

/* By kernels alone before there are labels; in all ways in the second pass, when clusters have some
 * shape, and rows are laid out anew in any case. */
static void decide_head(fkm_backend *b, const fkm_rows *r, int32_t *labels)
{
    const bool warm = any_label(labels, r->count);
    if (warm ? b->head.decided : b->head.begun)
        return;
    const fkm_assign_job job = trial_of(b, r, labels);
    (warm ? fkm_head_decide : fkm_head_begin)(
        &b->head, &b->tiles, &job, b->plan.rows, &b->workers[0].scratch, b->pool);
}

/* Screens with kernels of fkm_doubt's choice. */
static void screen_by(fkm_backend *b, const fkm_kernels *k)
{
    if (k == b->tiles.kernels)
        return;
    fkm_verbose("screening: %s", k == b->kernels ? "rounded again, as ties remain"
                                                 : "in float32, as many candidates are close");
    fkm_tiles_turn(&b->tiles, NULL, 0, 0);
    fkm_tiles_use(&b->tiles, k);
    fkm_tiles_set(&b->tiles, b->centroids, 1, b->pool);
    b->head.begun = b->head.decided = true; /* quicker ways leave more doubts */
}

/* A first look at rows without labels: will they be left in much doubt? */
static void try_screening(fkm_backend *b, const fkm_rows *r, int32_t *labels)
{
    if (b->doubt.tried || any_label(labels, r->count))
        return;
    const fkm_assign_job job = trial_of(b, r, labels);
    screen_by(b, fkm_doubt_try(&b->doubt, &job, b->kernels, &b->workers[0].scratch, b->block_rows));
}

/* Is every row of a pass needed, whether its label changes or not? */
static bool looks_at_all(const fkm_backend *b, const double *distances)
{
    return distances || (b->pass.update && !b->change);
}

/* Rows that are not kept: in label order, if they have labels; those alone that bounds do not
 * spare, if they are few. Returns how many. */
static int64_t choose_passing(fkm_backend *b, fkm_assign_job *job, const fkm_rows *r,
    int32_t *labels, const double *distances)
{
    int64_t n = r->count;
    job->store = &b->passing;
    job->pack = job->by_row = true;
    fkm_row_store_start(job->store, labels, r->count);
    if (b->bounds.collect) {
        job->upper = b->bounds.upper + r->row0;
        job->lower = b->bounds.lower + r->row0;
        n = fkm_bounds_list(&b->bounds, b->list, r->row0, labels, r->count);
    }
    if (!looks_at_all(b, distances) && n < r->count / LIST_SHARE) {
        job->list = b->list;
        b->spared += r->count - n;
        return n;
    }
    if (any_label(labels, r->count))
        sort_rows(b, job->store, r->count);
    return r->count;
}

/* Makes room for distances to lots of so many, behind panels as they are packed now. */
static bool place_distances(fkm_backend *b, int32_t lot)
{
    const int32_t lots = b->tiles.count * b->tiles.tile / lot;
    bool room = true;
    for (int64_t i = 0; i < b->store_count; i++) {
        fkm_row_store *s = &b->stores[i];
        room = fkm_row_store_place(s, fkm_row_store_packs(s, &b->tiles), lots) && room;
    }
    return room;
}

/* Before distances are kept anew: to single centroids, if that pays, else to tiles. */
static void choose_lots(fkm_backend *b, const fkm_row_store *store, const fkm_rows *r)
{
    if (!b->probe || !b->shift)
        return;
    const bool due = b->passes >= b->next_probe;
    const bool may = due && b->tiles.kernels->picks && b->tiles.alike;
    const double slowing = (double)store->moved / (double)fkm_max_i64(1, store->moved_before);
    const fkm_probe probe = {.tiles = &b->tiles,
        .store = store,
        .rows = r,
        .dtype = b->plan.dtype,
        .shift = b->shift,
        .ahead = slowing < 0.5 ? slowing / (1 - slowing) : 1, /* the sum of the series */
        .x = b->probe};
    const bool picks = may && place_distances(b, 1) && fkm_probe_pays(&probe, b->pool);
    if (picks) {
        b->probe_patience = 1;
    } else if (due) {
        b->next_probe = b->passes + b->probe_patience;
        b->probe_patience *= 2;
    }
    fkm_tiles_lots(&b->tiles, picks ? 1 : b->tiles.tile);
    if (!picks) /* for which there always is room */
        (void)place_distances(b, b->tiles.tile);
    b->apart.least = picks ? LEAST_PICKED : LEAST_APART;
    if (picks && b->tiles.kernels->bytes) /* picked tiles have one quantum */
        fkm_tiles_set(&b->tiles, b->centroids, 1, b->pool);
}

/* Which rows of a chunk to look at, and how: by the kept copy, or, when bounds spare most of them,
 * by packing the others as they are. Returns how many. */
static int64_t choose_rows(fkm_backend *b, fkm_assign_job *job, const fkm_rows *r, int32_t *labels,
    const double *distances)
{
    if (b->head.list)
        decide_head(b, r, labels);
    try_screening(b, r, labels);
    if (!b->list)
        return r->count;
    if (!b->stores)
        return choose_passing(b, job, r, labels, distances);
    fkm_row_store *store = &b->stores[r->row0 / b->plan.chunk_rows];
    int64_t n = r->count;
    job->store = store;
    if (!store->known)
        fkm_row_store_start(store, labels, r->count);
    if (b->bounds.collect) {
        job->upper = b->bounds.upper + r->row0;
        job->lower = b->bounds.lower + r->row0;
        job->bounds_hold = b->bounds.valid;
        n = fkm_bounds_list(&b->bounds, b->list, r->row0, store->label, r->count);
    }
    if (!looks_at_all(b, distances) &&
        n < r->count / (b->tiles.axes ? LIST_SHARE_TURNED : LIST_SHARE)) {
        job->list = b->list;
        store->reach_holds = false;
        b->spared += r->count - n;
        return n;
    }
    job->pack = lay_out(b, store, r->count, &job->keep);
    const bool known = store->apart_order == b->tiles.order;
    const bool calm = store->moved < r->count / CALM_SHARE;
    if (b->apart.collect && job->keep && calm && !keeps_distances(b))
        choose_lots(b, store, r);
    job->apart = b->apart.collect && job->keep && (calm || known);
    job->apart_known = job->apart && known;
    job->reach_known = job->apart_known && store->reach_holds;
    store->apart_order = job->apart ? b->tiles.order : 0;
    store->reach_holds = job->apart;
    if (job->apart_known)
        b->apart.seen += (r->count + b->kernels->panel - 1) / b->kernels->panel * b->tiles.lots;
    return r->count;
}

static void find_changed_lots(fkm_backend *b)
{
    memset(b->changed_lot, 0, (size_t)b->tiles.lots * sizeof *b->changed_lot);
    for (int32_t j = 0; j < b->plan.clusters; j++)
        if (b->changed[j])
            b->changed_lot[b->tiles.position[j] / b->tiles.lot] = true;
}

/* Are sums left until all rows of the chunk have labels, and can be taken in their order? */
static bool adds_later(const fkm_backend *b, const fkm_row_store *store)
{
    int64_t bytes = fkm_mul_sat(fkm_mul_sat(b->plan.clusters, b->plan.dims), sizeof(int64_t));
    return b->pass.update && !b->change && store && !store->ordered && bytes > NEAR_SUMS_BYTES;
}

static void add_in_order(fkm_backend *b, chunk *c, const fkm_rows *r, int32_t *labels)
{
    sort_rows(b, c->job.store, r->count);
    c->job.update = &b->update;
    c->run = fkm_assign_sums;
    run_chunk(c, b, r, labels, NULL);
}

/* After work that may have been left. */
static fkm_status check_stop(const fkm_backend *b, fkm_err *e)
{
    return fkm_is_stopped(b->plan.stop) ? fkm_fail(e, FKM_ESTOPPED, "stopped by a signal") : FKM_OK;
}

static fkm_status feed(
    fkm_backend *b, const fkm_rows *r, int32_t *labels, double *distances, fkm_err *e)
{
    chunk c = {.run = fkm_assign_block};
    const double start = fkm_now();
    const fkm_assign_counts before = counts_so_far(b);
    fkm_rows rows = *r;
    rows.count = choose_rows(b, &c.job, r, labels, distances);
    if (b->labelled)
        find_changed_lots(b);
    const bool later = adds_later(b, c.job.store);
    if (b->pass.update) {
        c.job.update = later ? NULL : &b->update;
        c.job.rebuild = !b->change;
        c.job.squares = b->pass.squares;
    }
    run_chunk(&c, b, &rows, labels, distances);
    if (c.job.store) {
        c.job.store->moved_before = c.job.store->moved;
        c.job.store->moved = counts_so_far(b).moved - before.moved;
        c.job.store->strays += c.job.store->moved;
    }
    if (later)
        add_in_order(b, &c, r, labels);
    const double sums_s = counts_so_far(b).sums_s - before.sums_s;
    b->assign_s += fkm_now() - start - sums_s / b->plan.threads;
    return check_stop(b, e);
}

static bool settles(fkm_backend *b, int64_t row0, int64_t count, const int32_t *labels)
{
    if (b->stores || !b->bounds.collect || looks_at_all(b, NULL))
        return false;
    if (!fkm_bounds_settle(&b->bounds, row0, labels, count))
        return false;
    b->spared += count;
    return true;
}

/* Labels are written as rows are fed. */
static fkm_status wait_for_feeds(fkm_backend *b, fkm_err *e)
{
    (void)b;
    (void)e;
    return FKM_OK;
}

static fkm_status write_labels(fkm_backend *b, int32_t *labels, fkm_err *e)
{
    (void)b;
    (void)labels;
    (void)e;
    return FKM_OK;
}

/* Gives up a quicker way of screening that leaves too much to be done one by one. */
static void judge_screening(fkm_backend *b, fkm_assign_counts c)
{
    c.rows -= c.rested; /* they were not screened */
    const fkm_kernels *now = b->tiles.kernels;
    const bool quicker = b->tiles.screened < b->plan.dims || now == b->kernels->coarse;
    if (!quicker || c.rescans <= c.rows / LEAST_RESCANS) {
        screen_by(b, fkm_doubt_judge(&b->doubt, &b->tiles, b->kernels, &c));
        return;
    }
    fkm_verbose("screening left too many candidates: finer again");
    screen_as_planned(b);
    fkm_tiles_set(&b->tiles, b->centroids, 1, b->pool);
}

static fkm_status end(fkm_backend *b, fkm_pass *out, fkm_err *e)
{
    (void)e;
    memset(out, 0, sizeof *out);
    out->assign_s = b->assign_s;
    fkm_bounds_end(&b->bounds);
    const fkm_assign_counts c = counts_so_far(b);
    b->apart.spared += c.apart;
    fkm_apart_end(&b->apart);
    b->labelled = b->changed != NULL;
    if (b->labelled)
        memset(b->changed, 0, (size_t)b->plan.clusters * sizeof *b->changed);
    out->rows = b->spared + c.rows;
    out->skipped = c.skipped;
    out->moved = c.moved;
    out->skipped_by_bounds = b->spared + c.rested;
    out->in_doubt = c.in_doubt;
    out->candidates = c.candidates;
    out->rescans = c.rescans;
    if (fkm_is_stopped(b->plan.stop)) /* inertia, and what is best for the next pass, take time */
        return FKM_OK;
    judge_screening(b, c);
    if (b->pass.update) {
        out->inertia = fkm_update_end(&b->update, b->pass.squares, b->centroids);
        for (int32_t j = 0; j < b->plan.clusters; j++)
            out->empty += b->update.count[j] == 0;
        b->sums_hold = true;
        b->moved = b->pass.squares ? b->plan.rows / 2 : out->moved; /* in the first pass, all do */
    } else if (out->moved > 0) {
        b->sums_hold = false; /* they are of other labels than the next pass is handed */
    }
    return FKM_OK;
}

static void measure_moved(void *arg, int32_t j, const float *c)
{
    fkm_tiles_measure(arg, j, c);
}

static fkm_status move(fkm_backend *b, double *max_shift, fkm_err *e)
{
    (void)e;
    *max_shift = fkm_update_move(&b->update, b->centroids, b->shift, measure_moved, &b->tiles);
    b->tiles.measured = true;
    if (b->bounds.valid)
        fkm_bounds_move(&b->bounds, b->shift, b->tiles.scale);
    tile_moved(b);
    return FKM_OK;
}

static fkm_status distances_of(
    fkm_backend *b, const fkm_rows *r, const int32_t *labels, double *out, fkm_err *e)
{
    chunk c = {.run = fkm_assign_distances};
    /* labels are only read by fkm_assign_distances */
    run_chunk(&c, b, r, (int32_t *)(uintptr_t)labels, out);
    return check_stop(b, e);
}

static fkm_status nearest_of(
    fkm_backend *b, const fkm_rows *r, int32_t top, int32_t *labels, double *distances, fkm_err *e)
{
    if (top > b->plan.top)
        return fkm_fail(e, FKM_EBUG, "%d nearest centroids were not planned", top);
    chunk c = {.run = fkm_assign_nearest, .job.top = top};
    run_chunk(&c, b, r, labels, distances);
    return check_stop(b, e);
}

static fkm_status get_centroids(fkm_backend *b, float *c, int64_t *counts, fkm_err *e)
{
    (void)e;
    if (c)
        memcpy(c, b->centroids, (size_t)b->plan.clusters * (size_t)b->plan.dims * sizeof *c);
    if (counts)
        memcpy(counts, b->update.count, (size_t)b->plan.clusters * sizeof *counts);
    return FKM_OK;
}

static const char *isa(const fkm_backend *b)
{
    return b->isa;
}

static bool streams(const fkm_backend *b)
{
    (void)b;
    return false;
}

static fkm_pool *pool(const fkm_backend *b)
{
    return b->pool;
}

static int64_t device_bytes(const fkm_backend *b)
{
    (void)b;
    return 0;
}

const fkm_backend_ops fkm_backend_cpu = {
    .name = "cpu",
    .probe = probe,
    .gpus = NULL,
    .device_peak = NULL,
    .bytes = bytes,
    .share = share,
    .open = open_backend,
    .reset = reset,
    .set_centroids = set_centroids,
    .set_scale = set_scale,
    .begin = begin,
    .feed = feed,
    .settles = settles,
    .wait = wait_for_feeds,
    .labels = write_labels,
    .end = end,
    .move = move,
    .distances = distances_of,
    .nearest = nearest_of,
    .get_centroids = get_centroids,
    .isa = isa,
    .pin = NULL,
    .unpin = NULL,
    .streams = streams,
    .pool = pool,
    .may_be_lost = false,
    .device_bytes = device_bytes,
    .chunk_rows = 256 << 10,
    .ceiling = fkm_cpu_ceiling,
    .close = close_backend,
};
