/* The CPU backend: see backend.h for the contract, assign.h and update.h for the two halves of a
 * pass. */
#include "backend_cpu.h"

#include "../base/checked.h"
#include "../base/clock.h"
#include "../base/mem.h"
#include "../base/pool.h"
#include "assign.h"
#include "ceilings.h"
#include "kernels.h"
#include "update.h"

#include <stdio.h>
#include <string.h>

/* One worker's scratch, on cache lines of its own. */
typedef struct worker {
    fkm_assign_scratch scratch;
    char apart[64];
} worker;

struct fkm_backend {
    fkm_plan plan;
    const fkm_kernels *kernels;
    fkm_pool *pool;
    int32_t block_rows;
    float *centroids; /* [clusters][dims]: the master copy */
    fkm_tiles tiles;
    worker *workers;   /* [threads] */
    fkm_update update; /* open when plan.update */
    fkm_pass_options pass;
    bool sums_hold; /* sums are those of the labels that the next pass is handed */
    bool change;    /* this pass changes the sums instead of rebuilding them */
    int64_t moved;  /* rows that the last pass with update moved */
    int32_t *old;   /* [chunk_rows]: labels handed in, while sums change */
    double assign_s;
};

const char *fkm_backend_cpu_isa(int i, bool *usable)
{
    const fkm_kernels *k = fkm_kernels_at(i, usable);
    return k ? k->isa : NULL;
}

/* The kernels of that name, or the best usable ones. */
static fkm_status choose_kernels(const fkm_kernels **out, const char *isa, fkm_err *e)
{
    char known[160] = "";
    bool usable;
    for (int i = 0;; i++) {
        const fkm_kernels *k = fkm_kernels_at(i, &usable);
        if (!k)
            break;
        if (usable && (!isa || !strcmp(isa, k->isa))) {
            *out = k;
            return FKM_OK;
        }
        if (isa && !strcmp(isa, k->isa))
            return fkm_fail(e, FKM_EUSAGE, "--isa %s: this CPU cannot run it", isa);
        size_t used = strlen(known);
        if (usable)
            (void)snprintf(known + used, sizeof known - used, " %s", k->isa);
    }
    fkm_fail(e, FKM_EUSAGE, "--isa %s: no such CPU path", isa);
    return fkm_hint(e, "this CPU can run:%s", known);
}

static fkm_status probe(const char *devices, fkm_err *e)
{
    (void)devices;
    (void)e;
    return FKM_OK;
}

/* For planning: the kernels whose blocks are largest, should the name be unknown. */
static int64_t bytes(const fkm_plan *p)
{
    fkm_err ignored = {0};
    const fkm_kernels *k = NULL;
    if (choose_kernels(&k, p->isa, &ignored) != FKM_OK)
        k = &fkm_kernels_scalar;
    int64_t total = fkm_mul_sat(fkm_mul_sat(p->clusters, p->dims), sizeof(float));
    total = fkm_add_sat(total, fkm_tiles_bytes(k, p->clusters, p->dims));
    int64_t each = fkm_assign_scratch_bytes(k, p->clusters, p->dims, p->dtype, p->top);
    total = fkm_add_sat(total, fkm_mul_sat(p->threads, each + (int64_t)sizeof(worker)));
    if (p->update)
        total = fkm_add_sat(fkm_add_sat(total, fkm_mul_sat(p->chunk_rows, sizeof(int32_t))),
            fkm_update_bytes(p->clusters, p->dims, p->chunk_rows, p->dtype, p->wide, p->threads));
    return total;
}

static void close_backend(fkm_backend *b)
{
    if (!b)
        return;
    for (int32_t i = 0; b->workers && i < b->plan.threads; i++)
        fkm_assign_scratch_close(&b->workers[i].scratch);
    fkm_free(b->workers);
    fkm_update_close(&b->update);
    fkm_tiles_close(&b->tiles);
    fkm_free(b->centroids);
    fkm_free(b->old);
    fkm_pool_close(b->pool);
    fkm_free(b);
}

static fkm_status open_backend(fkm_backend **out, const fkm_plan *p, fkm_err *e)
{
    fkm_status st = FKM_OK;
    fkm_backend *b = NULL;
    FKM_TRY(fkm_calloc(&b, 1, sizeof *b, "the CPU backend", e));
    b->plan = *p;
    int64_t cells;
    FKM_GO(choose_kernels(&b->kernels, p->isa, e));
    if (!fkm_mul_i64(&cells, p->clusters, p->dims)) {
        st = fkm_fail(e, FKM_ENOMEM, "%d clusters of %d dims are too large", p->clusters, p->dims);
        goto out;
    }
    b->block_rows = fkm_assign_block_rows(b->kernels, p->dims);
    FKM_GO(fkm_pool_open(&b->pool, p->threads, e));
    FKM_GO(fkm_alloc(&b->centroids, cells, sizeof(float), "centroids", e));
    FKM_GO(fkm_tiles_open(&b->tiles, b->kernels, p->clusters, p->dims, e));
    FKM_GO(fkm_calloc(&b->workers, p->threads, sizeof(worker), "threads", e));
    for (int32_t i = 0; i < p->threads; i++)
        FKM_GO(fkm_assign_scratch_open(
            &b->workers[i].scratch, b->kernels, p->clusters, p->dims, p->dtype, p->top, e));
    if (p->update) {
        FKM_GO(fkm_alloc(&b->old, p->chunk_rows, sizeof *b->old, "labels", e));
        FKM_GO(fkm_update_open(&b->update, b->kernels, b->pool, p->clusters, p->dims, p->chunk_rows,
            p->dtype, p->wide, e));
    }
    *out = b;
    return FKM_OK;
out:
    close_backend(b);
    return st;
}

static void reset(fkm_backend *b)
{
    b->update.exponent = 0;
    b->update.wide = false;
    b->pass = (fkm_pass_options){false, false};
    b->sums_hold = false;
}

static fkm_status set_centroids(fkm_backend *b, const float *c, fkm_err *e)
{
    (void)e;
    memcpy(b->centroids, c, (size_t)b->plan.clusters * (size_t)b->plan.dims * sizeof *c);
    fkm_tiles_set(&b->tiles, b->centroids, 1);
    return FKM_OK;
}

static fkm_status set_scale(fkm_backend *b, fkm_scale s, fkm_err *e)
{
    if (s.wide && !b->plan.wide)
        return fkm_fail(e, FKM_EBUG, "128-bit sums were not planned");
    b->update.exponent = s.exponent;
    b->update.wide = s.wide;
    b->sums_hold = false;
    return FKM_OK;
}

static fkm_status begin(fkm_backend *b, const fkm_pass_options *o, fkm_err *e)
{
    (void)e;
    b->pass = *o;
    b->assign_s = 0;
    for (int32_t i = 0; i < b->plan.threads; i++)
        memset(&b->workers[i].scratch.counts, 0, sizeof b->workers[i].scratch.counts);
    if (!o->update)
        return FKM_OK;
    /* A row that moves costs two additions. Fewer move from pass to pass, so the last one's count
     * tells. */
    b->change = b->sums_hold && !o->squares && b->moved < b->plan.rows / 3;
    b->sums_hold = false; /* until this pass is complete */
    if (!b->change)
        fkm_update_clear(&b->update, o->squares);
    return FKM_OK;
}

typedef struct chunk {
    fkm_backend *b;
    fkm_assign_job job;
    void (*run)(const fkm_assign_job *job, fkm_assign_scratch *s, int64_t first, int32_t rows);
} chunk;

static void run_block(void *arg, int64_t block, int index)
{
    const chunk *c = arg;
    int64_t first = block * c->b->block_rows;
    int32_t rows = (int32_t)fkm_min_i64(c->b->block_rows, c->job.count - first);
    c->run(&c->job, &c->b->workers[index].scratch, first, rows);
}

static void run_chunk(
    chunk *c, fkm_backend *b, const fkm_rows *r, int32_t *labels, double *distances)
{
    c->b = b;
    c->job.kernels = b->kernels;
    c->job.tiles = &b->tiles;
    c->job.centroids = b->centroids;
    c->job.dtype = b->plan.dtype;
    c->job.x = r->x;
    c->job.count = r->count;
    c->job.labels = labels;
    c->job.distances = distances;
    fkm_pool_for(b->pool, (r->count + b->block_rows - 1) / b->block_rows, run_block, c);
}

static fkm_status feed(
    fkm_backend *b, const fkm_rows *r, int32_t *labels, double *distances, fkm_err *e)
{
    (void)e;
    chunk c = {.run = fkm_assign_block};
    bool change = b->pass.update && b->change;
    if (change)
        memcpy(b->old, labels, (size_t)r->count * sizeof *labels);
    double start = fkm_now();
    run_chunk(&c, b, r, labels, distances);
    b->assign_s += fkm_now() - start;
    if (change)
        fkm_update_change(&b->update, r->x, b->old, labels, r->count);
    else if (b->pass.update)
        fkm_update_add(&b->update, r->x, labels, r->count, b->pass.squares);
    return FKM_OK;
}

static fkm_status end(fkm_backend *b, fkm_pass *out, fkm_err *e)
{
    (void)e;
    memset(out, 0, sizeof *out);
    out->assign_s = b->assign_s;
    for (int32_t i = 0; i < b->plan.threads; i++) {
        const fkm_assign_counts *c = &b->workers[i].scratch.counts;
        out->rows += c->rows;
        out->skipped += c->skipped;
        out->moved += c->moved;
        out->in_doubt += c->in_doubt;
        out->candidates += c->candidates;
        out->rescans += c->rescans;
    }
    if (b->pass.update) {
        for (int32_t j = 0; j < b->plan.clusters; j++)
            out->empty += b->update.count[j] == 0;
        out->inertia = fkm_update_inertia(&b->update, b->centroids);
        b->sums_hold = true;
        b->moved = out->moved;
    }
    return FKM_OK;
}

static fkm_status move(fkm_backend *b, double *max_shift, fkm_err *e)
{
    (void)e;
    *max_shift = fkm_update_move(&b->update, b->centroids);
    fkm_tiles_set(&b->tiles, b->centroids, 1);
    return FKM_OK;
}

static fkm_status distances_of(
    fkm_backend *b, const fkm_rows *r, const int32_t *labels, double *out, fkm_err *e)
{
    (void)e;
    chunk c = {.run = fkm_assign_distances};
    /* labels are only read by fkm_assign_distances */
    run_chunk(&c, b, r, (int32_t *)(uintptr_t)labels, out);
    return FKM_OK;
}

static fkm_status nearest_of(
    fkm_backend *b, const fkm_rows *r, int32_t top, int32_t *labels, double *distances, fkm_err *e)
{
    if (top > b->plan.top)
        return fkm_fail(e, FKM_EBUG, "%d nearest centroids were not planned", top);
    chunk c = {.run = fkm_assign_nearest, .job.top = top};
    run_chunk(&c, b, r, labels, distances);
    return FKM_OK;
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
    return b->kernels->isa;
}

const fkm_backend_ops fkm_backend_cpu = {
    .name = "cpu",
    .probe = probe,
    .bytes = bytes,
    .open = open_backend,
    .reset = reset,
    .set_centroids = set_centroids,
    .set_scale = set_scale,
    .begin = begin,
    .feed = feed,
    .end = end,
    .move = move,
    .distances = distances_of,
    .nearest = nearest_of,
    .get_centroids = get_centroids,
    .isa = isa,
    .ceiling = fkm_cpu_ceiling,
    .close = close_backend,
};
