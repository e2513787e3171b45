/* The CUDA backend: see src/backend.h for the contract, gpu.cuh for what one GPU does. This file
 * deals pieces of rows to GPUs, adds up what they bring back, and moves the centroids. */
#include "fkm_cuda.h"

#include "ceilings.cuh"
#include "check.cuh"
#include "devices.cuh"
#include "frame.cuh"
#include "gpu.cuh"
#include "head.cuh"
#include "replay.cuh"
#include "usage.cuh"

extern "C" {
#include "../src/base/checked.h"
#include "../src/base/inertia.h"
#include "../src/base/log.h"
#include "../src/base/mem.h"
#include "../src/base/pool.h"
}

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Pieces shrink to this share of a chunk at most when device memory is short. */
#define LEAST_PIECE_SHARE 64
#define LEAST_PIECE_ROWS 128

/* Sums are changed instead of rebuilt when the last pass moved fewer than 1 / CHANGE_SHARE of the
 * rows: each costs 4 dims atomics, which must beat reading all rows. Not measured on a GPU yet. */
#define CHANGE_SHARE 16

/* Bounds that spare fewer rows than this are left alone for a while, LONGEST_PAUSE passes at most.
 */
#define LEAST_SPARED 0.1
#define LONGEST_PAUSE 64

/* Problems of fewer products a pass than this, a matter of milliseconds, leave a GPU idle between
 * passes and in the last wave of each: up to SHARE_MOST of them run side by side. Larger ones get a
 * GPU each, unless GPUs would wait at the batch's end for more than this. Not measured on a GPU
 * yet.
 */
#define SHARE_MOST_PRODUCTS 1e12
#define SHARE_MOST 8
#define SHARE_MOST_IDLE 1.25

#define UNIT_SAMPLE 1024 /* rows that int8 is tried on */
#define S8_RATE 2.0      /* products of int8 a product of fp16, by data sheets */

#define SAMPLE (1 << 18)       /* coordinates that the quantum of rows is chosen from */
#define S8_MOST_DIMS (1 << 16) /* 127^2 dims < 2^30 */

struct fkm_backend {
    fkm_plan plan;
    int32_t gpu_count;
    fkm_gpu gpu[FKM_MOST_GPUS];
    fkm_pool *pool; /* a thread a GPU: each copies and computes for itself */
    int32_t piece_rows;
    int32_t chunk_pieces; /* pieces a chunk */
    int64_t piece_count;
    fkm_piece *pieces;
    float *shift;                           /* [dims]: of the frame */
    float scale, row_quant, centroid_quant; /* quanta: of int8 */
    bool quantised; /* row_quant has been chosen from rows of this problem */
    fkm_unit_choice unit;
    bool unit_decided; /* whether int8 pays, of this problem */
    bool unit_fails;   /* int8 left too much in doubt in the last pass */
    bool framed;       /* there is a frame */
    uint32_t frame;    /* its number, from 1 */
    int32_t exponent;
    bool head_decided; /* whether to screen by a head, of this problem */
    bool labelled;     /* a pass with update is complete: clusters have some shape */
    fkm_pass_options pass;
    int64_t fed;               /* rows, in this pass */
    bool sums_hold;            /* sums are those of the labels that the next pass is handed */
    bool change;               /* this pass changes the sums instead of rebuilding them */
    int64_t moved;             /* rows that the last pass with update moved */
    int32_t pause, patience;   /* passes to go without bounds; doubled when they do not pay */
    bool use_bounds;           /* in this pass */
    fkm_replay passes, tables; /* as graphs; of one piece on one GPU: small problems */
    int known_ahead;           /* pieces of the next pass that the first GPU has been told of */
    bool deferred;             /* nothing of this pass is queued yet: end will */
    fkm_feed feed;             /* of the deferred pass, when fed */
};

/* Host state that the work of a pass, and of the tables, follows from and changes. Rows are packed
 * in the frame of the pass; which number that has is left out, as it means nothing to the GPU. */
struct pass_state {
    fkm_gpu gpu;
    fkm_piece piece;
    fkm_feed feed;
    fkm_pass_options pass;
    bool change;
    int32_t exponent;
};

/* ---- units ---- */

static const struct {
    const char *name;
    fkm_unit unit;
    bool portable; /* never an architecture's own kernel: to compare with it */
} units[] = {
    {"f16", FKM_UNIT_F16, false},
    {"bf16", FKM_UNIT_BF16, false},
    {"s8", FKM_UNIT_S8, false},
    {"f16-portable", FKM_UNIT_F16, true},
    {"bf16-portable", FKM_UNIT_BF16, true},
    {"s8-portable", FKM_UNIT_S8, true},
};

extern "C" const char *fkm_backend_cuda_isa(int i)
{
    return i >= 0 && (size_t)i < sizeof units / sizeof units[0] ? units[i].name : NULL;
}

/* What was asked for; else fp16, and int8 for rows of 8 bits where that pays. */
static fkm_status choose_unit(fkm_unit_choice *out, const fkm_plan *p, fkm_err *e)
{
    const char *isa = p->isa;
    const int32_t dims = p->dims;
    const bool eight_bit = p->dtype == FKM_U8 || p->dtype == FKM_I8;
    *out = {FKM_UNIT_F16, false, !eight_bit || dims > S8_MOST_DIMS};
    if (!isa)
        return FKM_OK;
    for (auto &u : units) {
        *out = {u.unit, u.portable, true};
        if (strcmp(isa, u.name) != 0)
            continue;
        if (u.unit == FKM_UNIT_S8 && dims > S8_MOST_DIMS)
            return fkm_fail(e, FKM_EUSAGE, "--isa %s takes at most %d dims, the data has %d", isa,
                S8_MOST_DIMS, dims);
        return FKM_OK;
    }
    fkm_fail(e, FKM_EUSAGE, "--isa %s: no such element type of screening on a GPU", isa);
    return fkm_hint(e, "'fkm help isa' lists them; use --device cpu for a CPU path");
}

/* ---- before it is open ---- */

static fkm_status probe(const char *devices, fkm_err *e)
{
    int32_t list[FKM_MOST_GPUS], count;
    return fkm_devices(list, &count, devices, e);
}

static int64_t chunk_count(const fkm_plan *p)
{
    return (p->rows + p->chunk_rows - 1) / p->chunk_rows;
}

static int64_t host_bytes(const fkm_plan *p)
{
    int64_t pieces = fkm_mul_sat(chunk_count(p), 2 * LEAST_PIECE_SHARE);
    int64_t total = fkm_mul_sat(pieces, sizeof(fkm_piece)) + (int64_t)sizeof(fkm_backend);
    total = fkm_add_sat(total, FKM_MOST_GPUS * (int64_t)sizeof(fkm_tally));
    int64_t head = p->update && fkm_head_suits(p->dims)
                       ? 4 * (int64_t)p->dims * (2 * FKM_HEAD_SAMPLE + 2 * FKM_HEAD_MOST) +
                             4 * FKM_HEAD_SAMPLE * FKM_HEAD_MOST
                       : 0;
    const int64_t rows = fkm_min_i64(p->chunk_rows, p->rows) + FKM_MOST_GPUS; /* dealt to GPUs */
    total = fkm_add_sat(total, fkm_gpu_host_bytes(rows));
    const int64_t replays = 2 * fkm_replay_bytes(sizeof(pass_state));
    return fkm_add_sat(total, fkm_mul_sat(p->dims, sizeof(float)) + head + replays + (64 << 10));
}

/* A GPU may still be copying from another when both are closed. */
static void close_gpus(fkm_backend *b)
{
    fkm_err ignored;
    for (int32_t i = 0; i < b->gpu_count; i++)
        if (b->gpu[i].compute)
            (void)fkm_gpu_collect(&b->gpu[i], &ignored);
    fkm_replay_close(&b->passes);
    fkm_replay_close(&b->tables);
    for (int32_t i = 0; i < b->gpu_count; i++)
        fkm_gpu_close(&b->gpu[i]);
}

static void close_backend(fkm_backend *b)
{
    if (!b)
        return;
    close_gpus(b);
    fkm_pool_close(b->pool);
    fkm_free(b->pieces);
    fkm_free(b->shift);
    fkm_free(b);
}

/* ---- all GPUs at once ---- */

template <class F> struct gpu_job {
    fkm_backend *b;
    F *f;
    fkm_status st[FKM_MOST_GPUS];
    fkm_err e[FKM_MOST_GPUS];
};

template <class F> static void run_gpu_job(void *arg, int64_t i, int)
{
    gpu_job<F> *job = (gpu_job<F> *)arg;
    job->st[i] = (*job->f)(&job->b->gpu[i], &job->e[i]);
}

/* Calls `f` for every GPU, each on a thread of its own, and waits for all. When some fail, the
 * first in the order of the list is told of: they mostly fail of one cause. */
template <class F> static fkm_status each_gpu(fkm_backend *b, fkm_err *e, F f)
{
    gpu_job<F> job;
    job.b = b;
    job.f = &f;
    memset(job.e, 0, (size_t)b->gpu_count * sizeof job.e[0]);
    fkm_pool_for(b->pool, b->gpu_count, run_gpu_job<F>, &job);
    for (int32_t i = 0; i < b->gpu_count; i++) {
        if (job.st[i] == FKM_OK)
            continue;
        *e = job.e[i];
        return job.st[i];
    }
    return FKM_OK;
}

/* ---- life ---- */

/* Opens all GPUs with the largest pieces that their memory allows: in a chunk there is at least one
 * for each. */
static fkm_status open_gpus(fkm_backend *b, const int32_t *devices, fkm_err *e)
{
    const fkm_plan *p = &b->plan;
    int64_t most = (fkm_min_i64(p->chunk_rows, p->rows) + b->gpu_count - 1) / b->gpu_count;
    int64_t least = fkm_max_i64(p->chunk_rows / LEAST_PIECE_SHARE, LEAST_PIECE_ROWS);
    for (int64_t rows = fkm_max_i64(1, most);; rows = fkm_max_i64(least, rows / 2)) {
        fkm_status st = FKM_OK;
        for (int32_t i = 0; i < b->gpu_count && st == FKM_OK; i++)
            st = fkm_gpu_open(
                &b->gpu[i], devices[i], p, &b->unit, (int32_t)rows, i == 0, b->gpu_count > 1, e);
        b->piece_rows = (int32_t)rows;
        if (st != FKM_ENOMEM || rows <= least)
            return st;
        fkm_verbose("%s; trying smaller pieces of rows", e->msg);
        close_gpus(b);
    }
}

static fkm_gpu *gpu_of(fkm_backend *b, const fkm_piece *p)
{
    return &b->gpu[(p - b->pieces) % b->gpu_count];
}

/* Calls `keep` for piece after piece until a GPU has no room; *kept: how many got it. */
static fkm_status keep_pieces(fkm_backend *b,
    fkm_status (*keep)(fkm_gpu *g, fkm_piece *p, fkm_err *e), int64_t *kept, fkm_err *e)
{
    bool full[FKM_MOST_GPUS] = {false};
    for (int64_t i = 0; i < b->piece_count; i++) {
        if (full[i % b->gpu_count])
            continue;
        fkm_status st = keep(gpu_of(b, &b->pieces[i]), &b->pieces[i], e);
        if (st != FKM_OK && st != FKM_ENOMEM)
            return st;
        full[i % b->gpu_count] = st == FKM_ENOMEM;
        *kept += st == FKM_OK;
    }
    memset(e, 0, sizeof *e);
    return FKM_OK;
}

/* Bounds serve pieces whose labels and packed rows stay: those before the first that do not. */
static fkm_status keep_bounds(fkm_gpu *g, fkm_piece *p, fkm_err *e)
{
    return p->labels && p->packed ? fkm_gpu_keep_bounds(g, p, e) : FKM_ENOMEM;
}

static fkm_status open_pieces(fkm_backend *b, fkm_err *e)
{
    const fkm_plan *p = &b->plan;
    int64_t labels = 0, raw = 0, packed = 0, bounds = 0;
    b->chunk_pieces = (int32_t)((p->chunk_rows + b->piece_rows - 1) / b->piece_rows);
    if (!fkm_mul_i64(&b->piece_count, chunk_count(p), b->chunk_pieces))
        return fkm_fail(e, FKM_ENOMEM, "too many pieces of rows");
    FKM_TRY(fkm_calloc(&b->pieces, b->piece_count, sizeof *b->pieces, "pieces of rows", e));
    for (int64_t i = 0; i < b->piece_count; i++) {
        int64_t chunk = i / b->chunk_pieces, at = i % b->chunk_pieces * b->piece_rows;
        int64_t end = fkm_min_i64((chunk + 1) * p->chunk_rows, p->rows);
        b->pieces[i].row0 = chunk * p->chunk_rows + at;
        b->pieces[i].count =
            (int32_t)fkm_max_i64(0, fkm_min_i64(b->piece_rows, end - b->pieces[i].row0));
    }
    if (!p->update) /* one pass: nothing would be used again */
        return FKM_OK;
    FKM_TRY(keep_pieces(b, fkm_gpu_keep_labels, &labels, e));
    FKM_TRY(keep_pieces(b, fkm_gpu_keep_rows, &raw, e));
    FKM_TRY(keep_pieces(b, fkm_gpu_keep_packed, &packed, e));
    FKM_TRY(keep_pieces(b, keep_bounds, &bounds, e));
    fkm_verbose("%s and %d more: %lld pieces of %d rows, on the device: labels of %lld, rows of "
                "%lld, packed rows of %lld, bounds of %lld",
        b->gpu[0].name, b->gpu_count - 1, (long long)b->piece_count, b->piece_rows,
        (long long)labels, (long long)raw, (long long)packed, (long long)bounds);
    return FKM_OK;
}

static fkm_status open_replays(fkm_backend *b, fkm_err *e)
{
    const fkm_piece *p = &b->pieces[0];
    if (b->gpu_count > 1 || b->piece_count > 1 || !p->raw || !p->packed || !p->labels)
        return FKM_OK;
    FKM_TRY(fkm_replay_open(&b->passes, sizeof(pass_state), e));
    return fkm_replay_open(&b->tables, sizeof(pass_state), e);
}

static fkm_status open_backend(fkm_backend **out, const fkm_plan *p, fkm_err *e)
{
    fkm_status st = FKM_OK;
    fkm_backend *b = NULL;
    fkm_unit_choice unit;
    int32_t devices[FKM_MOST_GPUS];
    FKM_TRY(choose_unit(&unit, p, e));
    FKM_TRY(fkm_calloc(&b, 1, sizeof *b, "the CUDA backend", e));
    b->plan = *p;
    b->patience = 1;
    b->unit = unit;
    FKM_GO(fkm_devices(devices, &b->gpu_count, p->devices, e));
    FKM_GO(fkm_pool_open(&b->pool, b->gpu_count, e));
    FKM_GO(fkm_alloc(&b->shift, p->dims, sizeof *b->shift, "the shift", e));
    FKM_GO(open_gpus(b, devices, e));
    FKM_GO(open_pieces(b, e));
    FKM_GO(open_replays(b, e));
    *out = b;
    return FKM_OK;
out:
    close_backend(b);
    return st;
}

/* ---- problems side by side ---- */

/* Least budget with so much left beside what is for seeding: see set_budget. */
static int64_t before_seeding(int64_t bytes)
{
    return bytes + bytes / (FKM_SEEDING_SHARE - 1) + FKM_SEEDING_SHARE;
}

/* Budget that a problem takes on a device to stay there with all that is its own; *room: for all.
 */
static fkm_status count_need(int64_t *need, int64_t *room, int32_t device, const fkm_plan *p,
    const fkm_plan *seed, fkm_err *e)
{
    fkm_unit_choice unit;
    int64_t of_seed, ignored;
    fkm_plan alone = *p;
    alone.leave_room = false;
    FKM_TRY(choose_unit(&unit, &alone, e));
    FKM_TRY(fkm_gpu_count(need, room, device, &alone, &unit, e));
    if (!seed)
        return FKM_OK;
    FKM_TRY(fkm_gpu_count(&of_seed, &ignored, device, seed, &unit, e));
    *need = fkm_max_i64(before_seeding(*need), *need + before_seeding(of_seed));
    return FKM_OK;
}

/* How many problems a GPU gets at a time, if memory allows. */
static int32_t problems_wanted(const fkm_plan *p, int32_t gpus, int64_t batch)
{
    const bool small = (double)p->rows * p->clusters * p->dims < SHARE_MOST_PRODUCTS;
    const int64_t rounds = (batch + gpus - 1) / gpus;
    if (small)
        return (int32_t)fkm_max_i64(1, fkm_min_i64(SHARE_MOST, p->threads / gpus));
    return (double)(rounds * gpus) <= SHARE_MOST_IDLE * (double)batch ? 1 : 0;
}

/* Whole problems to each GPU, small ones several at a time, each with an equal share of its memory
 * that holds all of it. What does not fit so runs alone, on all GPUs. */
static fkm_status share(fkm_sharing *out, const fkm_plan *p, const fkm_plan *seed, int64_t batch,
    int32_t most, fkm_err *e)
{
    int32_t devices[FKM_MOST_GPUS], gpus;
    *out = {1, p->threads, false, 0};
    FKM_TRY(fkm_devices(devices, &gpus, p->devices, e));
    if (batch < gpus || most < gpus)
        return FKM_OK;
    const int64_t lanes =
        fkm_min_i64(fkm_min_i64(most, batch), gpus * problems_wanted(p, gpus, batch));
    int64_t each = (lanes + gpus - 1) / gpus, least = INT64_MAX;
    if (lanes < 2)
        return FKM_OK;
    for (int32_t i = 0; i < gpus; i++) {
        int64_t need, room;
        FKM_TRY(count_need(&need, &room, devices[i], p, seed, e));
        each = fkm_min_i64(each, room / need);
        least = fkm_min_i64(least, room);
    }
    if (each * gpus < 2)
        return FKM_OK;
    out->lanes = (int32_t)fkm_min_i64(lanes, each * gpus);
    out->threads = (int32_t)fkm_max_i64(1, p->threads / out->lanes);
    out->one_device_each = true;
    out->device_bytes = least / each;
    return FKM_OK;
}

/* Bounds hold for centroids that have moved as fkm_gpu_moved was told, in the same frame. */
static void forget_bounds(fkm_backend *b)
{
    for (int64_t i = 0; i < b->piece_count; i++)
        b->pieces[i].bounded = false;
    for (int32_t i = 0; i < b->gpu_count; i++)
        b->gpu[i].moved = false;
}

static void forget_labels(fkm_backend *b)
{
    forget_bounds(b);
    for (int64_t i = 0; i < b->piece_count; i++) {
        b->pieces[i].labelled = false;
        b->pieces[i].wanted = NULL;
    }
}

static void reset(fkm_backend *b)
{
    fkm_err ignored;
    for (int32_t i = 0; i < b->gpu_count; i++)
        (void)fkm_gpu_let_go(&b->gpu[i], &ignored); /* a fault shows in the next call */
    for (int64_t i = 0; i < b->piece_count; i++) {
        b->pieces[i].raw_valid = false;
        b->pieces[i].x = NULL;
        b->pieces[i].frame = 0;
    }
    b->known_ahead = 0;
    forget_labels(b);
    b->deferred = false;
    b->sums_hold = false;
    b->pause = 0;
    b->patience = 1;
    b->framed = false; /* the next centroids choose a frame */
    b->head_decided = b->labelled = b->unit_decided = b->unit_fails = false;
    for (int32_t i = 0; i < b->gpu_count; i++)
        fkm_gpu_set_unit(&b->gpu[i], b->unit.unit, 1, 1);
    memset(&b->pass, 0, sizeof b->pass);
}

/* ---- centroids ---- */

static bool is_eight_bit(const fkm_backend *b)
{
    return b->plan.dtype == FKM_U8 || b->plan.dtype == FKM_I8;
}

static bool is_int8(const fkm_backend *b)
{
    return b->gpu[0].packing.unit == FKM_UNIT_S8;
}

static fkm_status use_frame(fkm_backend *b, fkm_err *e)
{
    b->frame++;
    b->framed = true;
    forget_bounds(b);
    for (int32_t i = 0; i < b->gpu_count; i++) {
        fkm_gpu *g = &b->gpu[i];
        FKM_TRY(fkm_gpu_set_frame(g, b->scale, b->shift, e));
        if (is_int8(b)) /* else there are none, and there may be a head */
            fkm_gpu_set_unit(g, FKM_UNIT_S8, b->row_quant, b->centroid_quant);
    }
    return FKM_OK;
}

/* 8-bit rows less whole numbers are exact: in fp16 all, in int8 those that fit. */
static void make_shift_whole(fkm_backend *b)
{
    for (int64_t t = 0; t < b->plan.dims; t++)
        b->shift[t] = rintf(b->shift[t] / b->scale) * b->scale;
}

/* int8: centroids to 127 at most, 8-bit rows as they are; for others see quantise_rows. */
static void quantise(fkm_backend *b, const float *c)
{
    const int64_t dims = b->plan.dims;
    float most = 0x1p-30f;
    for (int64_t i = 0; i < b->plan.clusters * dims; i++)
        most = fmaxf(most, fabsf(c[i] * b->scale - b->shift[i % dims]));
    b->centroid_quant = fkm_frame_quant(most);
    b->row_quant = is_eight_bit(b) ? 1 / b->scale : b->centroid_quant / 4;
}

static fkm_status new_frame(fkm_backend *b, float scale, const float *c, fkm_err *e)
{
    b->scale = scale;
    fkm_frame_shift(b->shift, scale, c, b->plan.clusters, b->plan.dims);
    if (is_eight_bit(b))
        make_shift_whole(b);
    if (is_int8(b) || !b->unit.fixed)
        quantise(b, c);
    b->quantised = !is_int8(b) || is_eight_bit(b);
    return use_frame(b, e);
}

/* int8: the quantum of rows that are not 8-bit, from a sample: all but one in 10000 coordinates
 * fit. */
static fkm_status quantise_rows(fkm_backend *b, const fkm_rows *r, fkm_err *e)
{
    const int64_t dims = b->plan.dims, rows = fkm_min_i64(r->count, 1 + SAMPLE / dims);
    const size_t size = fkm_dtype_size(b->plan.dtype);
    float *v = NULL;
    b->quantised = true;
    FKM_TRY(fkm_alloc(&v, rows * dims, sizeof *v, "a sample of rows", e));
    for (int64_t i = 0; i < rows * dims; i++) {
        int64_t at = i / dims * (r->count / rows) * dims + i % dims;
        float x = fkm_dtype_to_float(b->plan.dtype, (const char *)r->x + (size_t)at * size);
        v[i] = x * b->scale - b->shift[i % dims];
    }
    b->row_quant = fkm_frame_quant(fkm_frame_quantile(v, rows * dims, 0.9999));
    fkm_free(v);
    return use_frame(b, e);
}

/* Of one GPU alone: fkm_gpu_prepare changes none of it. */
static void save_tables(void *arg, void *state)
{
    pass_state *s = (pass_state *)state;
    memset(s, 0, sizeof *s);
    memcpy(&s->gpu, &((const fkm_backend *)arg)->gpu[0], sizeof s->gpu);
    fkm_stopwatch_clear(&s->gpu.assign);
    fkm_stopwatch_clear(&s->gpu.adding);
}

static void load_tables(void *, const void *)
{
}

static fkm_status queue_tables(void *arg, fkm_err *e)
{
    return fkm_gpu_prepare(&((fkm_backend *)arg)->gpu[0], e);
}

static fkm_status prepare(fkm_backend *b, fkm_err *e)
{
    fkm_gpu *g = &b->gpu[0];
    const fkm_work w = {b, g->compute, g->name, save_tables, load_tables, queue_tables};
    if (b->gpu_count == 1)
        return fkm_replay_run(&b->tables, &w, e);
    return each_gpu(b, e, [](fkm_gpu *g, fkm_err *ge) { return fkm_gpu_prepare(g, ge); });
}

static fkm_status set_centroids(fkm_backend *b, const float *c, fkm_err *e)
{
    float scale = fkm_frame_scale(fkm_frame_largest(c, (int64_t)b->plan.clusters * b->plan.dims));
    if (!b->framed || !fkm_frame_suits(b->scale, scale))
        FKM_TRY(new_frame(b, scale, c, e));
    if (!FKM_PLANT(8))
        forget_bounds(b); /* nobody said how far they have moved */
    for (int32_t i = 0; i < b->gpu_count; i++)
        FKM_TRY(fkm_gpu_set_centroids(&b->gpu[i], c, e));
    return prepare(b, e);
}

static fkm_status get_centroids(fkm_backend *b, float *c, int64_t *counts, fkm_err *e)
{
    fkm_gpu *g = &b->gpu[0];
    size_t k = (size_t)b->plan.clusters;
    FKM_TRY(fkm_gpu_use(g, e));
    if (c)
        FKM_CUDA(g->name, cudaMemcpyAsync(c, g->c.master, k * (size_t)b->plan.dims * sizeof *c,
                              cudaMemcpyDeviceToHost, g->compute));
    if (counts)
        FKM_CUDA(g->name, cudaMemcpyAsync(counts, g->total.count, k * sizeof *counts,
                              cudaMemcpyDeviceToHost, g->compute));
    return fkm_gpu_collect(g, e);
}

/* The centroids have left the frame: finds another one, for which they are fetched. */
static fkm_status follow_centroids(fkm_backend *b, fkm_err *e)
{
    fkm_status st = FKM_OK;
    float *c = NULL, largest, scale;
    uint32_t bits = (uint32_t)b->gpu[0].tally_host->moments.max_value;
    memcpy(&largest, &bits, sizeof largest);
    scale = fkm_frame_scale(largest);
    if (fkm_frame_suits(b->scale, scale))
        return FKM_OK;
    FKM_TRY(fkm_alloc(&c, (int64_t)b->plan.clusters * b->plan.dims, sizeof *c, "centroids", e));
    FKM_GO(get_centroids(b, c, NULL, e));
    FKM_GO(new_frame(b, scale, c, e));
out:
    fkm_free(c);
    return st;
}

/* All GPUs get the centroids of the first, and how far they have moved. */
static fkm_status spread_centroids(fkm_backend *b, fkm_err *e)
{
    fkm_gpu *first = &b->gpu[0];
    size_t bytes = (size_t)b->plan.clusters * (size_t)b->plan.dims * sizeof(float);
    size_t shift_bytes = (size_t)b->plan.clusters * sizeof(double);
    FKM_TRY(fkm_gpu_use(first, e));
    FKM_CUDA(first->name, cudaEventRecord(first->done, first->compute));
    for (int32_t i = 1; i < b->gpu_count; i++) {
        fkm_gpu *g = &b->gpu[i];
        FKM_TRY(fkm_gpu_use(g, e));
        FKM_CUDA(g->name, cudaStreamWaitEvent(g->compute, first->done, 0));
        FKM_CUDA(g->name, cudaMemcpyPeerAsync(g->c.master, g->device, first->c.master,
                              first->device, bytes, g->compute));
        FKM_CUDA(g->name, cudaMemcpyPeerAsync(g->shift, g->device, first->shift, first->device,
                              shift_bytes, g->compute));
    }
    for (int32_t i = 0; i < b->gpu_count; i++)
        FKM_TRY(fkm_gpu_moved(&b->gpu[i], e));
    return FKM_OK;
}

static fkm_status move(fkm_backend *b, double *max_shift, fkm_err *e)
{
    fkm_gpu *g = &b->gpu[0];
    float *mean = g->mean;
    if (!b->pass.update)
        return fkm_fail(e, FKM_EBUG, "centroids move after a pass with update only");
    g->mean = g->c.master;
    g->c.master = mean;
    memcpy(max_shift, &g->tally_host->moments.max_shift, sizeof *max_shift);
    FKM_TRY(spread_centroids(b, e));
    FKM_TRY(follow_centroids(b, e));
    return prepare(b, e);
}

/* ---- a pass ---- */

static void scale_sums(fkm_sums *s, fkm_scale scale)
{
    s->words = scale.wide ? FKM_WIDE_WORDS : 1;
    s->scale_a = ldexpf(1, scale.exponent / 2);
    s->scale_b = ldexpf(1, scale.exponent - scale.exponent / 2);
}

static fkm_status set_scale(fkm_backend *b, fkm_scale s, fkm_err *e)
{
    if (s.wide && !b->plan.wide)
        return fkm_fail(e, FKM_EBUG, "128-bit sums were not planned");
    if (s.wide && b->plan.rows >= (int64_t)1 << 32) {
        fkm_fail(e, FKM_EUSAGE, "128-bit sums on a GPU take fewer than 2^32 rows");
        return fkm_hint(e, "use --device cpu: the results are the same bits");
    }
    b->exponent = s.exponent;
    for (int32_t i = 0; i < b->gpu_count; i++) {
        fkm_gpu *g = &b->gpu[i];
        scale_sums(&g->sums, s);
        scale_sums(&g->total, s);
        scale_sums(&g->incoming, s);
    }
    b->sums_hold = false;
    forget_labels(b);
    return FKM_OK;
}

/* Screens by `unit` from now on: rows are packed anew. */
static fkm_status use_unit(fkm_backend *b, fkm_unit unit, fkm_err *e)
{
    for (int32_t i = 0; i < b->gpu_count; i++)
        fkm_gpu_set_unit(&b->gpu[i], unit, b->row_quant, b->centroid_quant);
    b->frame++; /* what is packed is no longer good; bounds are */
    return prepare(b, e);
}

static fkm_status begin_now(fkm_backend *b, fkm_err *e)
{
    const fkm_pass_options *o = &b->pass;
    for (int32_t i = 0; i < b->gpu_count; i++)
        FKM_TRY(fkm_gpu_begin(&b->gpu[i], o->update && !b->change, o->update && o->squares, e));
    return FKM_OK;
}

/* A pass like others before it: over rows that are on the device and packed, and whose labels stay
 * there. */
static bool is_replayable(const fkm_backend *b)
{
    const fkm_piece *p = &b->pieces[0];
    return b->passes.bytes > 0 && b->pass.update && !b->pass.squares && b->pass.labels_later &&
           p->raw_valid && p->labelled && p->frame == b->frame;
}

/* Queues what was put off. */
static fkm_status undefer(fkm_backend *b, fkm_err *e)
{
    if (!b->deferred)
        return FKM_OK;
    b->deferred = false;
    FKM_TRY(begin_now(b, e));
    return b->fed > 0 ? fkm_gpu_feed(&b->gpu[0], &b->pieces[0], &b->feed, e) : FKM_OK;
}

static fkm_status begin(fkm_backend *b, const fkm_pass_options *o, fkm_err *e)
{
    if (b->unit_fails)
        FKM_TRY(use_unit(b, b->unit.unit, e));
    b->unit_fails = false;
    b->pass = *o;
    b->use_bounds = b->pause == 0;
    b->pause -= b->pause > 0;
    b->fed = 0;
    /* the words of wide sums have room for 2^32 additions: never changed for long */
    b->change = o->update && b->sums_hold && !o->squares && b->gpu[0].sums.words == 1 &&
                b->moved < b->plan.rows / CHANGE_SHARE;
    if (o->update)
        b->sums_hold = false; /* until this pass is complete */
    b->deferred = is_replayable(b);
    return b->deferred ? FKM_OK : begin_now(b, e);
}

/* ---- heads ---- */

/* sample: [FKM_HEAD_SAMPLE][dims] rows of the chunk as they are; framed: the same in the frame. */
static void take_sample(const fkm_backend *b, const fkm_rows *r, char *sample, float *framed)
{
    const size_t dims = (size_t)b->plan.dims, size = fkm_dtype_size(b->plan.dtype);
    for (int64_t i = 0; i < FKM_HEAD_SAMPLE; i++) {
        const char *row =
            (const char *)r->x + (size_t)(r->count * i / FKM_HEAD_SAMPLE) * dims * size;
        float *v = framed + (size_t)i * dims;
        bool good = true;
        memcpy(sample + (size_t)i * dims * size, row, dims * size);
        for (size_t t = 0; t < dims; t++) {
            v[t] = fkm_dtype_to_float(b->plan.dtype, row + t * size) * b->scale - b->shift[t];
            good = good && fabsf(v[t]) < 1e6f;
        }
        if (!good) /* NaN, or far outside: no guide */
            memset(v, 0, dims * sizeof *v);
    }
}

/* A way of screening. */
struct way {
    fkm_unit unit;
    const float *axes; /* NULL: all dims */
    int32_t screened;
    float gram;
};

static double cost_of(const fkm_backend *b, const fkm_screen_counts *c, const way *w)
{
    const fkm_plan *p = &b->plan;
    fkm_head_trial trial = {
        (int64_t)c->rows, (int64_t)c->in_doubt, (int64_t)c->candidates, (int64_t)c->rescans};
    return fkm_head_cost(&trial, w->axes ? w->screened : p->dims,
        w->unit == FKM_UNIT_S8 ? S8_RATE : 1, p->dims, p->dims * (int32_t)fkm_dtype_size(p->dtype),
        p->clusters);
}

/* What screening rows on the first GPU would cost. */
static fkm_status try_way(
    fkm_backend *b, double *cost, const void *x, int32_t rows, const way *w, fkm_err *e)
{
    fkm_gpu *g = &b->gpu[0];
    fkm_screen_counts c;
    fkm_gpu_set_unit(g, w->unit, b->row_quant, b->centroid_quant);
    if (w->axes)
        FKM_TRY(fkm_gpu_set_axes(g, w->axes, w->screened, w->gram, e));
    FKM_TRY(fkm_gpu_prepare(g, e));
    FKM_TRY(fkm_gpu_try(g, x, rows, &c, e));
    *cost = cost_of(b, &c, w);
    return FKM_OK;
}

/* Rows of 8 bits, in the first pass: by int8, if the first of them say so. */
static fkm_status decide_unit(fkm_backend *b, const fkm_rows *r, fkm_err *e)
{
    const fkm_plan *p = &b->plan;
    const int32_t rows = (int32_t)fkm_min_i64(fkm_min_i64(r->count, UNIT_SAMPLE), b->piece_rows);
    const way usual = {b->unit.unit, NULL, 0, 0}, quick = {FKM_UNIT_S8, NULL, 0, 0};
    double cost = 0, least = 0;
    if (b->unit.fixed || rows == 0)
        return FKM_OK;
    b->unit_decided = true;
    if ((double)p->rows * p->clusters * p->dims < fkm_int8_least_products)
        return FKM_OK;
    FKM_TRY(try_way(b, &least, r->x, rows, &usual, e));
    FKM_TRY(try_way(b, &cost, r->x, rows, &quick, e));
    fkm_verbose(
        "screening by %s", cost < least ? "int8" : "fp16: int8 would leave too much in doubt");
    return use_unit(b, cost < least ? FKM_UNIT_S8 : b->unit.unit, e);
}

/* After a pass by int8 that was not asked for: is more in doubt than its rate makes good? */
static void judge_unit(fkm_backend *b, const fkm_pass *o)
{
    const fkm_unit unit = b->gpu[0].packing.unit;
    if (unit == b->unit.unit || b->gpu[0].packing.axes)
        return;
    fkm_screen_counts c, clean;
    memset(&c, 0, sizeof c);
    c.rows = (fkm_u64)(o->rows - o->skipped_by_bounds);
    clean = c;
    clean.candidates = c.rows;
    c.in_doubt = (fkm_u64)o->in_doubt;
    c.candidates = (fkm_u64)o->candidates;
    c.rescans = (fkm_u64)o->rescans;
    const way usual = {b->unit.unit, NULL, 0, 0}, quick = {unit, NULL, 0, 0};
    b->unit_fails = cost_of(b, &c, &quick) > cost_of(b, &clean, &usual);
    if (b->unit_fails)
        fkm_verbose("screening by fp16 from now on: int8 left %lld of %lld rows in doubt",
            (long long)o->in_doubt, (long long)c.rows);
}

/* *best: the length that the model likes most; axes is NULL: all dims, by the unit as it is. */
static fkm_status choose_length(
    fkm_backend *b, way *best, const char *sample, const float *axes, const float *gram, fkm_err *e)
{
    double least, cost;
    *best = {b->gpu[0].packing.unit, NULL, 0, 0};
    FKM_TRY(try_way(b, &least, sample, FKM_HEAD_SAMPLE, best, e));
    least *= FKM_HEAD_LEAST_GAIN;
    for (int i = 0; fkm_head_length(i) && fkm_head_length(i) <= FKM_HEAD_MOST; i++) {
        const int32_t length = fkm_head_length(i);
        const way head = {b->unit.unit, axes, length, gram[length - 1]};
        if (head.gram > FKM_HEAD_MOST_GRAM)
            break;
        FKM_TRY(try_way(b, &cost, sample, FKM_HEAD_SAMPLE, &head, e));
        if (cost < least) {
            least = cost;
            *best = head;
        }
    }
    return FKM_OK;
}

/* In the second pass, when clusters have some shape; all rows are then packed anew. */
static fkm_status decide_head(fkm_backend *b, const fkm_rows *r, fkm_err *e)
{
    static const char what[] = "principal axes";
    fkm_status st = FKM_OK;
    const fkm_plan *p = &b->plan;
    char *sample = NULL;
    float *framed = NULL, *axes = NULL, gram[FKM_HEAD_MOST];
    way best;
    b->head_decided = true;
    if (!b->gpu[0].axes || r->count < 4 * FKM_HEAD_SAMPLE ||
        (double)p->rows * p->clusters * p->dims < fkm_head_least_products)
        return FKM_OK;
    FKM_GO(
        fkm_alloc(&sample, FKM_HEAD_SAMPLE * (int64_t)p->dims, fkm_dtype_size(p->dtype), what, e));
    FKM_GO(fkm_alloc(&framed, FKM_HEAD_SAMPLE * (int64_t)p->dims, sizeof(float), what, e));
    FKM_GO(fkm_alloc(&axes, FKM_HEAD_MOST * (int64_t)p->dims, sizeof(float), what, e));
    take_sample(b, r, sample, framed);
    FKM_GO(fkm_head_axes(axes, gram, framed, p->dims, p->threads, e));
    FKM_GO(choose_length(b, &best, sample, axes, gram, e));
    fkm_verbose("head screening: %d of %d dims", best.axes ? best.screened : p->dims, p->dims);
    for (int32_t i = 0; i < b->gpu_count; i++) {
        fkm_gpu_set_unit(&b->gpu[i], best.unit, b->row_quant, b->centroid_quant);
        if (best.axes)
            FKM_GO(fkm_gpu_set_axes(&b->gpu[i], best.axes, best.screened, best.gram, e));
    }
    b->frame += best.axes != NULL; /* what is packed is no longer good */
    FKM_GO(prepare(b, e));
out:
    fkm_free(sample);
    fkm_free(framed);
    fkm_free(axes);
    return st;
}

static fkm_status check_chunk(const fkm_backend *b, const fkm_rows *r, fkm_err *e)
{
    const fkm_plan *p = &b->plan;
    if (r->row0 % p->chunk_rows == 0 && r->row0 < p->rows &&
        r->count == fkm_min_i64(p->chunk_rows, p->rows - r->row0))
        return FKM_OK;
    return fkm_fail(e, FKM_EBUG, "rows %lld to %lld are not a chunk of the plan",
        (long long)r->row0, (long long)(r->row0 + r->count));
}

/* Calls `f` for each piece of the chunk, on the thread of its GPU; at: its first row within the
 * chunk.
 */
template <class F> static fkm_status each_piece(fkm_backend *b, const fkm_rows *r, fkm_err *e, F f)
{
    const size_t row_bytes = (size_t)b->plan.dims * fkm_dtype_size(b->plan.dtype);
    FKM_TRY(check_chunk(b, r, e));
    return each_gpu(b, e, [&](fkm_gpu *g, fkm_err *ge) {
        fkm_piece *first = &b->pieces[r->row0 / b->plan.chunk_rows * b->chunk_pieces];
        for (fkm_piece *p = first; p < first + b->chunk_pieces; p++) {
            int64_t at = p->row0 - r->row0;
            if (gpu_of(b, p) == g && p->count > 0)
                FKM_TRY(f(g, p, (const char *)r->x + (size_t)at * row_bytes, at, ge));
        }
        return FKM_OK;
    });
}

static fkm_status feed(
    fkm_backend *b, const fkm_rows *r, int32_t *labels, double *distances, fkm_err *e)
{
    if (!b->quantised && r->count > 0) {
        FKM_TRY(quantise_rows(b, r, e));
        FKM_TRY(prepare(b, e));
    }
    if (!b->unit_decided)
        FKM_TRY(decide_unit(b, r, e));
    if (b->labelled && !b->head_decided && b->unit.unit != FKM_UNIT_S8)
        FKM_TRY(decide_head(b, r, e));
    if (distances || b->pieces[0].frame != b->frame)
        FKM_TRY(undefer(b, e));
    b->fed += r->count;
    return each_piece(
        b, r, e, [&](fkm_gpu *g, fkm_piece *p, const void *x, int64_t at, fkm_err *ge) {
            fkm_feed f;
            memset(&f, 0, sizeof f);
            f.x = x;
            f.labels = labels + at;
            f.later = b->pass.labels_later;
            f.distances = distances ? distances + at : NULL;
            f.update = b->pass.update;
            f.change = b->change;
            f.squares = b->pass.squares;
            f.unlabelled = b->pass.unlabelled;
            f.bounds = b->use_bounds;
            f.frame = b->frame;
            if (b->deferred) {
                b->feed = f;
                return FKM_OK;
            }
            return fkm_gpu_feed(g, p, &f, ge);
        });
}

/* Whether the caller waits for labels or distances. */
static bool owes(const fkm_backend *b)
{
    for (int32_t i = 0; i < b->gpu_count; i++)
        if (fkm_gpu_owes(&b->gpu[i]))
            return true;
    for (int64_t i = 0; i < b->piece_count; i++)
        if (b->pieces[i].wanted)
            return true;
    return false;
}

static fkm_status wait_for_feeds(fkm_backend *b, fkm_err *e)
{
    FKM_TRY(undefer(b, e));
    if (!owes(b)) /* threads need not wake up for it */
        return FKM_OK;
    return each_gpu(b, e, [&](fkm_gpu *g, fkm_err *ge) {
        FKM_TRY(fkm_gpu_drain(g, ge));
        for (int64_t i = g - b->gpu; i < b->piece_count; i += b->gpu_count) {
            fkm_piece *p = &b->pieces[i];
            if (p->wanted)
                FKM_TRY(fkm_gpu_write_labels(g, p, p->wanted, ge));
        }
        return FKM_OK;
    });
}

static fkm_status write_labels(fkm_backend *b, int32_t *labels, fkm_err *e)
{
    return each_gpu(b, e, [&](fkm_gpu *g, fkm_err *ge) {
        for (int64_t i = g - b->gpu; i < b->piece_count; i += b->gpu_count) {
            fkm_piece *p = &b->pieces[i];
            if (p->labels && p->labelled)
                FKM_TRY(fkm_gpu_write_labels(g, p, labels + p->row0, ge));
        }
        return FKM_OK;
    });
}

/* total = the sums of all GPUs, on the first. */
static fkm_status add_up(fkm_backend *b, fkm_err *e)
{
    fkm_gpu *first = &b->gpu[0];
    const size_t count_bytes = (size_t)b->plan.clusters * sizeof(fkm_u64);
    const size_t bytes = count_bytes * (size_t)b->plan.dims * (size_t)first->sums.words;
    for (int32_t i = 1; i < b->gpu_count; i++) {
        fkm_gpu *g = &b->gpu[i];
        FKM_TRY(fkm_gpu_use(g, e));
        FKM_CUDA(g->name, cudaEventRecord(g->done, g->compute));
    }
    FKM_TRY(fkm_gpu_use(first, e));
    for (int32_t i = 0; i < b->gpu_count; i++) {
        const fkm_gpu *g = &b->gpu[i];
        const fkm_sums *to = i == 0 ? &first->total : &first->incoming;
        if (i > 0)
            FKM_CUDA(first->name, cudaStreamWaitEvent(first->compute, g->done, 0));
        FKM_CUDA(first->name, cudaMemcpyPeerAsync(to->sum, first->device, g->sums.sum, g->device,
                                  bytes, first->compute));
        FKM_CUDA(first->name, cudaMemcpyPeerAsync(to->count, first->device, g->sums.count,
                                  g->device, count_bytes, first->compute));
        if (i > 0)
            FKM_CUDA(first->name, fkm_sums_merge(&first->total, &first->incoming, first->compute));
    }
    return FKM_OK;
}

/* Means and moments, ahead of time: what end() reads back includes how far the centroids will move.
 */
static fkm_status finalise(fkm_backend *b, fkm_err *e)
{
    fkm_gpu *g = &b->gpu[0];
    if (b->gpu_count > 1)
        FKM_TRY(add_up(b, e));
    FKM_TRY(fkm_gpu_use(g, e));
    FKM_CUDA(g->name, fkm_finalise(&g->tally->moments, g->mean, g->shift, &g->total, g->c.master,
                          ldexp(1, -b->exponent),
                          fkm_blocks(b->plan.clusters, 1, 8 * g->chip.processors), g->compute));
    return FKM_OK;
}

static void add_bins(fkm_exact *to, const fkm_bins bins, int factor, int exponent, bool negative)
{
    for (int g = 0; g < FKM_BINS; g++)
        for (int l = 0; l < FKM_BIN_WORDS; l++)
            if (bins[g][l])
                fkm_exact_add(to, negative ? -(fkm_i128)bins[g][l] : (fkm_i128)bins[g][l],
                    factor * 16 * g + exponent + 32 * l);
}

/* See src/base/inertia.h; the exponents are those of update.cuh. */
static double inertia_of(const fkm_backend *b)
{
    fkm_exact sum;
    memset(&sum, 0, sizeof sum);
    for (int32_t i = 0; i < b->gpu_count; i++)
        add_bins(&sum, b->gpu[i].tally_host->squares.bin, 2, -46 - 2 * b->exponent, false);
    const fkm_moments *m = &b->gpu[0].tally_host->moments;
    add_bins(&sum, m->square, 2, -300, false);
    add_bins(&sum, m->product, 1, -149 - b->exponent, true);
    add_bins(&sum, m->product_high, 1, -149 - b->exponent + 64, true);
    return fkm_exact_round(&sum);
}

/* Bounds that spare few rows pause. */
static void judge_bounds(fkm_backend *b, int64_t spared)
{
    int64_t looked_at = 0;
    for (int32_t i = 0; i < b->gpu_count; i++) {
        fkm_gpu *g = &b->gpu[i];
        looked_at += g->looked_at;
        g->looked_at = 0; /* between passes the state is the same, whatever the last one did */
        g->dropping = false;
    }
    if (looked_at == 0)
        return;
    if ((double)spared >= LEAST_SPARED * (double)looked_at) {
        b->patience = 1;
        return;
    }
    b->pause = b->patience;
    b->patience = b->patience < LONGEST_PAUSE ? 2 * b->patience : LONGEST_PAUSE;
}

static bool travels(const fkm_piece *p)
{
    return p->count > 0 && !p->raw;
}

static bool streams(const fkm_backend *b)
{
    for (int64_t i = 0; i < b->piece_count; i++)
        if (travels(&b->pieces[i]))
            return true;
    return false;
}

/* Rows that stay in host memory need not be told of; others are known from here to the end of the
 * pass. No more than there are buffers for are of use, on the first GPU as on any. */
static bool ahead(fkm_backend *b, const fkm_rows *r)
{
    const size_t row_bytes = (size_t)b->plan.dims * fkm_dtype_size(b->plan.dtype);
    const int64_t first = r->row0 / b->plan.chunk_rows * b->chunk_pieces;
    if (b->plan.keep)
        return false;
    for (int64_t i = first; i < first + b->chunk_pieces; i++) {
        fkm_piece *p = &b->pieces[i];
        if (!travels(p))
            continue;
        p->x = (const char *)r->x + (size_t)(p->row0 - r->row0) * row_bytes;
        b->known_ahead += i % b->gpu_count == 0;
    }
    return b->known_ahead < FKM_GPU_BUFFERS;
}

/* Host rows that are not kept are no longer known: the next feed tells where they are. */
static void forget_ahead(fkm_backend *b)
{
    b->known_ahead = 0;
    for (int64_t i = 0; i < b->piece_count && !b->plan.keep; i++)
        b->pieces[i].x = NULL;
}

/* While the last pieces of a pass are worked on, the first that travel come for the next one.
 * Should there be none, their copies were for nothing. */
static fkm_status fetch_ahead(fkm_backend *b, fkm_err *e)
{
    if (!b->pass.update || b->fed < b->plan.rows || !streams(b))
        return FKM_OK;
    return each_gpu(b, e, [&](fkm_gpu *g, fkm_err *ge) {
        int fetched = 0;
        for (int64_t i = g - b->gpu; i < b->piece_count && fetched < FKM_GPU_BUFFERS;
             i += b->gpu_count) {
            if (!travels(&b->pieces[i]))
                continue;
            if (!b->pieces[i].x)
                break;
            FKM_TRY(fkm_gpu_fetch(g, &b->pieces[i], ge));
            fetched++;
        }
        return FKM_OK;
    });
}

/* What follows the feeds of a pass. */
static fkm_status queue_end(fkm_backend *b, fkm_err *e)
{
    if (b->pass.update)
        FKM_TRY(finalise(b, e));
    for (int32_t i = 0; i < b->gpu_count; i++)
        FKM_TRY(fkm_gpu_tally(&b->gpu[i], e));
    return FKM_OK;
}

/* Of a deferred pass. Where the caller's rows and labels are matters to no call that is queued. */
static void save_pass(void *arg, void *state)
{
    const fkm_backend *b = (const fkm_backend *)arg;
    pass_state *s = (pass_state *)state;
    memset(s, 0, sizeof *s);
    memcpy(&s->gpu, &b->gpu[0], sizeof s->gpu);
    memcpy(&s->piece, &b->pieces[0], sizeof s->piece);
    memcpy(&s->feed, &b->feed, sizeof s->feed);
    s->piece.x = s->feed.x = NULL;
    s->feed.labels = NULL;
    s->piece.frame = s->feed.frame = 0;
    s->pass.update = b->pass.update;
    s->pass.labels_later = b->pass.labels_later;
    s->change = b->change;
    s->exponent = b->exponent;
}

static void load_pass(void *arg, const void *state)
{
    fkm_backend *b = (fkm_backend *)arg;
    const pass_state *s = (const pass_state *)state;
    memcpy(&b->gpu[0], &s->gpu, sizeof s->gpu);
    memcpy(&b->pieces[0], &s->piece, sizeof s->piece);
    b->pieces[0].frame = b->frame;
}

static fkm_status queue_pass(void *arg, fkm_err *e)
{
    fkm_backend *b = (fkm_backend *)arg;
    FKM_TRY(begin_now(b, e));
    FKM_TRY(fkm_gpu_feed(&b->gpu[0], &b->pieces[0], &b->feed, e));
    return queue_end(b, e);
}

/* All that a pass has not queued yet; *as_graph: it was launched as one. */
static fkm_status queue_rest(fkm_backend *b, bool *as_graph, fkm_err *e)
{
    fkm_gpu *g = &b->gpu[0];
    const fkm_work w = {b, g->compute, g->name, save_pass, load_pass, queue_pass};
    if (b->deferred && b->fed == b->plan.rows) {
        const int64_t before = b->passes.launches;
        b->deferred = false;
        fkm_stopwatch_clear(&g->assign);
        fkm_stopwatch_clear(&g->adding);
        FKM_TRY(fkm_replay_run(&b->passes, &w, e));
        *as_graph = b->passes.launches > before;
        return FKM_OK;
    }
    FKM_TRY(undefer(b, e));
    return queue_end(b, e);
}

static fkm_status end(fkm_backend *b, fkm_pass *out, fkm_err *e)
{
    memset(out, 0, sizeof *out);
    FKM_TRY(queue_rest(b, &out->as_graph, e));
    const fkm_status fetched = fetch_ahead(b, e);
    forget_ahead(b);
    FKM_TRY(fetched);
    FKM_TRY(wait_for_feeds(b, e));
    for (int32_t i = 0; i < b->gpu_count; i++) {
        const fkm_screen_counts *c = &b->gpu[i].tally_host->counts;
        double assign_s, sums_s;
        FKM_TRY(fkm_gpu_collect(&b->gpu[i], e));
        FKM_TRY(fkm_stopwatch_read(&b->gpu[i].assign, &assign_s, b->gpu[i].name, e));
        FKM_TRY(fkm_stopwatch_read(&b->gpu[i].adding, &sums_s, b->gpu[i].name, e));
        out->assign_s = fmax(out->assign_s, assign_s); /* side by side */
        out->sums_s = fmax(out->sums_s, sums_s);
        out->rows += (int64_t)(c->rows + c->spared);
        out->skipped_by_bounds += (int64_t)c->spared;
        out->skipped += (int64_t)c->skipped;
        out->moved += (int64_t)c->moved;
        out->in_doubt += (int64_t)c->in_doubt;
        out->candidates += (int64_t)c->candidates;
        out->rescans += (int64_t)c->rescans;
    }
    judge_bounds(b, out->skipped_by_bounds);
    if (b->labelled) /* rows began warm */
        judge_unit(b, out);
    if (b->pass.update) {
        out->empty = (int32_t)b->gpu[0].tally_host->moments.empty;
        out->inertia = inertia_of(b);
        b->sums_hold = b->labelled = true;
        b->moved = out->moved;
    } else if (out->moved > 0) {
        b->sums_hold = false; /* they are of other labels than the next pass is handed */
    }
    return FKM_OK;
}

/* ---- outside passes ---- */

static fkm_status distances_of(
    fkm_backend *b, const fkm_rows *r, const int32_t *labels, double *out, fkm_err *e)
{
    return each_piece(
        b, r, e, [&](fkm_gpu *g, fkm_piece *p, const void *x, int64_t at, fkm_err *ge) {
            return fkm_gpu_distances(g, p, x, labels + at, out + at, ge);
        });
}

static fkm_status nearest_of(
    fkm_backend *b, const fkm_rows *r, int32_t top, int32_t *labels, double *distances, fkm_err *e)
{
    if (top > b->plan.top)
        return fkm_fail(e, FKM_EBUG, "%d nearest centroids were not planned", top);
    return each_piece(
        b, r, e, [&](fkm_gpu *g, fkm_piece *p, const void *x, int64_t at, fkm_err *ge) {
            return fkm_gpu_nearest(
                g, p, b->frame, x, top, labels + at * top, distances + at * top, ge);
        });
}

static const char *isa(const fkm_backend *b)
{
    return b->gpu[0].kernel->name;
}

/* Portable: for all devices. */
static bool pin(void *p, size_t bytes)
{
    cudaError_t st = cudaHostRegister(p, bytes, cudaHostRegisterPortable);
    if (st == cudaSuccess)
        return true;
    fkm_verbose("memory stays pageable, copies are slower: %s", cudaGetErrorString(st));
    (void)cudaGetLastError();
    return false;
}

static void unpin(void *p)
{
    if (cudaHostUnregister(p) != cudaSuccess)
        (void)cudaGetLastError();
}

static int64_t device_bytes(const fkm_backend *b)
{
    int64_t most = 0;
    for (int32_t i = 0; i < b->gpu_count; i++)
        most = fkm_max_i64(most, b->gpu[i].used);
    return most;
}

/* In the order of src/backend.h: C++17 has no designated initialisers. */
extern "C" const fkm_backend_ops fkm_backend_cuda = {
    "cuda",
    probe,
    fkm_devices_describe,
    fkm_usage_peak,
    host_bytes,
    share,
    open_backend,
    reset,
    set_centroids,
    set_scale,
    begin,
    feed,
    NULL, /* settles: rows that are not kept have no bounds here */
    wait_for_feeds,
    write_labels,
    ahead,
    end,
    move,
    distances_of,
    nearest_of,
    get_centroids,
    isa,
    pin,
    unpin,
    streams,
    NULL, /* pool: it computes by no threads of the host */
    true,
    device_bytes,
    1 << 20,
    fkm_cuda_ceiling,
    close_backend,
};
