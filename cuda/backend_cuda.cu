/* The CUDA backend: see src/backend.h for the contract, gpu.cuh for what one GPU does. This file
 * deals pieces of rows to GPUs, adds up what they bring back, and moves the centroids. */
#include "fkm_cuda.h"

#include "ceilings.cuh"
#include "check.cuh"
#include "devices.cuh"
#include "frame.cuh"
#include "gpu.cuh"
#include "head.cuh"

extern "C" {
#include "../src/base/checked.h"
#include "../src/base/inertia.h"
#include "../src/base/log.h"
#include "../src/base/mem.h"
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

#define SAMPLE (1 << 18)       /* coordinates that the quantum of rows is chosen from */
#define S8_MOST_DIMS (1 << 16) /* 127^2 dims < 2^30 */

struct fkm_backend {
    fkm_plan plan;
    int32_t gpu_count;
    fkm_gpu gpu[FKM_MOST_DEVICES];
    int32_t piece_rows;
    int32_t chunk_pieces; /* pieces a chunk */
    int64_t piece_count;
    fkm_piece *pieces;
    float *shift; /* [dims]: of the frame */
    float scale, row_quant, centroid_quant;
    bool quantised; /* row_quant has been chosen from rows of this problem */
    bool framed;    /* there is a frame */
    uint32_t frame; /* its number, from 1 */
    int32_t exponent;
    bool head_decided; /* whether to screen by a head, of this problem */
    bool head_used;
    bool labelled; /* a pass with update is complete: clusters have some shape */
    fkm_pass_options pass;
    bool sums_hold; /* sums are those of the labels that the next pass is handed */
    bool change;    /* this pass changes the sums instead of rebuilding them */
    int64_t moved;  /* rows that the last pass with update moved */
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

static fkm_status choose_unit(
    fkm_unit *out, bool *portable, const char *isa, int32_t dims, fkm_err *e)
{
    *out = FKM_UNIT_F16;
    *portable = false;
    if (!isa)
        return FKM_OK;
    for (auto &u : units) {
        *out = u.unit;
        *portable = u.portable;
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

/* ---- life ---- */

static fkm_status probe(const char *devices, fkm_err *e)
{
    int32_t list[FKM_MOST_DEVICES], count;
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
    total = fkm_add_sat(total, FKM_MOST_DEVICES * (int64_t)sizeof(fkm_tally));
    int64_t head = p->update && fkm_head_suits(p->dims)
                       ? 4 * (int64_t)p->dims * (2 * FKM_HEAD_SAMPLE + 2 * FKM_HEAD_MOST) +
                             4 * FKM_HEAD_SAMPLE * FKM_HEAD_MOST
                       : 0;
    return fkm_add_sat(total, fkm_mul_sat(p->dims, sizeof(float)) + head + (64 << 10));
}

static void close_gpus(fkm_backend *b)
{
    for (int32_t i = 0; i < b->gpu_count; i++)
        fkm_gpu_close(&b->gpu[i]);
}

static void close_backend(fkm_backend *b)
{
    if (!b)
        return;
    close_gpus(b);
    fkm_free(b->pieces);
    fkm_free(b->shift);
    fkm_free(b);
}

/* Opens all GPUs with the largest pieces that their memory allows. */
static fkm_status open_gpus(
    fkm_backend *b, const int32_t *devices, fkm_unit unit, bool portable, fkm_err *e)
{
    const fkm_plan *p = &b->plan;
    int64_t most = fkm_min_i64(p->chunk_rows, (p->rows + b->gpu_count - 1) / b->gpu_count);
    int64_t least = fkm_max_i64(p->chunk_rows / LEAST_PIECE_SHARE, LEAST_PIECE_ROWS);
    for (int64_t rows = fkm_max_i64(1, most);; rows = fkm_max_i64(least, rows / 2)) {
        fkm_status st = FKM_OK;
        for (int32_t i = 0; i < b->gpu_count && st == FKM_OK; i++)
            st = fkm_gpu_open(&b->gpu[i], devices[i], p, unit, portable, (int32_t)rows, i == 0,
                b->gpu_count > 1, e);
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
    bool full[FKM_MOST_DEVICES] = {false};
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

static fkm_status open_pieces(fkm_backend *b, fkm_err *e)
{
    const fkm_plan *p = &b->plan;
    int64_t labels = 0, raw = 0, packed = 0;
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
    fkm_verbose("%s and %d more: %lld pieces of %d rows, on the device: labels of %lld, rows of "
                "%lld, packed rows of %lld",
        b->gpu[0].name, b->gpu_count - 1, (long long)b->piece_count, b->piece_rows,
        (long long)labels, (long long)raw, (long long)packed);
    return FKM_OK;
}

static fkm_status open_backend(fkm_backend **out, const fkm_plan *p, fkm_err *e)
{
    fkm_status st = FKM_OK;
    fkm_backend *b = NULL;
    fkm_unit unit;
    bool portable;
    int32_t devices[FKM_MOST_DEVICES];
    FKM_TRY(choose_unit(&unit, &portable, p->isa, p->dims, e));
    FKM_TRY(fkm_calloc(&b, 1, sizeof *b, "the CUDA backend", e));
    b->plan = *p;
    FKM_GO(fkm_devices(devices, &b->gpu_count, p->devices, e));
    FKM_GO(fkm_alloc(&b->shift, p->dims, sizeof *b->shift, "the shift", e));
    FKM_GO(open_gpus(b, devices, unit, portable, e));
    FKM_GO(open_pieces(b, e));
    *out = b;
    return FKM_OK;
out:
    close_backend(b);
    return st;
}

static void forget_labels(fkm_backend *b)
{
    for (int64_t i = 0; i < b->piece_count; i++) {
        b->pieces[i].labelled = false;
        b->pieces[i].wanted = NULL;
    }
}

static void reset(fkm_backend *b)
{
    fkm_err ignored;
    for (int32_t i = 0; i < b->gpu_count; i++)
        (void)fkm_gpu_collect(&b->gpu[i], &ignored); /* a fault shows in the next call */
    for (int64_t i = 0; i < b->piece_count; i++) {
        b->pieces[i].raw_valid = false;
        b->pieces[i].frame = 0;
    }
    forget_labels(b);
    b->sums_hold = false;
    b->framed = false; /* the next centroids choose a frame */
    b->head_decided = b->labelled = false;
    if (b->head_used)
        for (int32_t i = 0; i < b->gpu_count; i++)
            (void)fkm_gpu_set_axes(&b->gpu[i], NULL, 0, 0, &ignored); /* cannot fail */
    b->head_used = false;
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
    for (int32_t i = 0; i < b->gpu_count; i++)
        FKM_TRY(
            fkm_gpu_set_frame(&b->gpu[i], b->scale, b->shift, b->row_quant, b->centroid_quant, e));
    return FKM_OK;
}

/* int8: centroids to 127 at most. 8-bit rows less a shift of whole numbers are exact, where they
 * fit; for others see quantise_rows. */
static void quantise(fkm_backend *b, const float *c)
{
    const int64_t dims = b->plan.dims;
    float most = 0x1p-30f;
    for (int64_t t = 0; t < dims && is_eight_bit(b); t++)
        b->shift[t] = rintf(b->shift[t] / b->scale) * b->scale;
    for (int64_t i = 0; i < b->plan.clusters * dims; i++)
        most = fmaxf(most, fabsf(c[i] * b->scale - b->shift[i % dims]));
    b->centroid_quant = fkm_frame_quant(most);
    b->row_quant = is_eight_bit(b) ? 1 / b->scale : b->centroid_quant / 4;
}

static fkm_status new_frame(fkm_backend *b, float scale, const float *c, fkm_err *e)
{
    b->scale = scale;
    b->row_quant = b->centroid_quant = 1;
    fkm_frame_shift(b->shift, scale, c, b->plan.clusters, b->plan.dims);
    if (is_int8(b))
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

static fkm_status prepare(fkm_backend *b, fkm_err *e)
{
    for (int32_t i = 0; i < b->gpu_count; i++)
        FKM_TRY(fkm_gpu_prepare(&b->gpu[i], e));
    return FKM_OK;
}

static fkm_status set_centroids(fkm_backend *b, const float *c, fkm_err *e)
{
    float scale = fkm_frame_scale(fkm_frame_largest(c, (int64_t)b->plan.clusters * b->plan.dims));
    if (!b->framed || !fkm_frame_suits(b->scale, scale))
        FKM_TRY(new_frame(b, scale, c, e));
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

/* All GPUs get the centroids of the first. */
static fkm_status spread_centroids(fkm_backend *b, fkm_err *e)
{
    fkm_gpu *first = &b->gpu[0];
    size_t bytes = (size_t)b->plan.clusters * (size_t)b->plan.dims * sizeof(float);
    FKM_TRY(fkm_gpu_use(first, e));
    FKM_CUDA(first->name, cudaEventRecord(first->done, first->compute));
    for (int32_t i = 1; i < b->gpu_count; i++) {
        fkm_gpu *g = &b->gpu[i];
        FKM_TRY(fkm_gpu_use(g, e));
        FKM_CUDA(g->name, cudaStreamWaitEvent(g->compute, first->done, 0));
        FKM_CUDA(g->name, cudaMemcpyPeerAsync(g->c.master, g->device, first->c.master,
                              first->device, bytes, g->compute));
    }
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

static fkm_status begin(fkm_backend *b, const fkm_pass_options *o, fkm_err *e)
{
    b->pass = *o;
    /* the words of wide sums have room for 2^32 additions: never changed for long */
    b->change = o->update && b->sums_hold && !o->squares && b->gpu[0].sums.words == 1 &&
                b->moved < b->plan.rows / CHANGE_SHARE;
    if (o->update)
        b->sums_hold = false; /* until this pass is complete */
    for (int32_t i = 0; i < b->gpu_count; i++)
        FKM_TRY(fkm_gpu_begin(&b->gpu[i], o->update && !b->change, o->update && o->squares, e));
    return FKM_OK;
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

/* Screens the sample on the first GPU by `screened` coordinates along the axes, NULL: by all. */
static fkm_status try_head(fkm_backend *b, double *cost, const char *sample, const float *axes,
    int32_t screened, float gram, fkm_err *e)
{
    fkm_gpu *g = &b->gpu[0];
    fkm_screen_counts c;
    FKM_TRY(fkm_gpu_set_axes(g, axes, screened, gram, e));
    FKM_TRY(fkm_gpu_prepare(g, e));
    FKM_TRY(fkm_gpu_try(g, sample, FKM_HEAD_SAMPLE, &c, e));
    fkm_head_trial trial = {
        (int64_t)c.rows, (int64_t)c.in_doubt, (int64_t)c.candidates, (int64_t)c.rescans};
    *cost = fkm_head_cost(&trial, axes ? screened : b->plan.dims, b->plan.dims,
        b->plan.dims * (int32_t)fkm_dtype_size(b->plan.dtype), b->plan.clusters);
    return FKM_OK;
}

/* *best: the length that the model likes most, 0: all dims. */
static fkm_status choose_length(fkm_backend *b, int32_t *best, const char *sample,
    const float *axes, const float *gram, fkm_err *e)
{
    double least, cost;
    *best = 0;
    FKM_TRY(try_head(b, &least, sample, NULL, 0, 0, e));
    least *= FKM_HEAD_LEAST_GAIN;
    for (int i = 0; fkm_head_length(i) && fkm_head_length(i) <= FKM_HEAD_MOST; i++) {
        int32_t length = fkm_head_length(i);
        if (gram[length - 1] > FKM_HEAD_MOST_GRAM)
            break;
        FKM_TRY(try_head(b, &cost, sample, axes, length, gram[length - 1], e));
        if (cost < least) {
            least = cost;
            *best = length;
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
    int32_t best;
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
    fkm_verbose("head screening: %d of %d dims", best ? best : p->dims, p->dims);
    for (int32_t i = 0; i < b->gpu_count; i++)
        FKM_GO(
            fkm_gpu_set_axes(&b->gpu[i], best ? axes : NULL, best, best ? gram[best - 1] : 0, e));
    b->frame += best != 0; /* what is packed is no longer good */
    b->head_used = best != 0;
    FKM_GO(prepare(b, e));
out:
    fkm_free(sample);
    fkm_free(framed);
    fkm_free(axes);
    return st;
}

/* Calls `f` for each piece of the chunk; at: its first row within the chunk. */
template <class F> static fkm_status each_piece(fkm_backend *b, const fkm_rows *r, fkm_err *e, F f)
{
    int64_t chunk = r->row0 / b->plan.chunk_rows;
    if (r->row0 % b->plan.chunk_rows != 0 || r->row0 + r->count > b->plan.rows ||
        r->count > b->plan.chunk_rows)
        return fkm_fail(e, FKM_EBUG, "rows %lld to %lld are not a chunk of the plan",
            (long long)r->row0, (long long)(r->row0 + r->count));
    size_t row_bytes = (size_t)b->plan.dims * fkm_dtype_size(b->plan.dtype);
    for (int64_t i = 0; i < b->chunk_pieces; i++) {
        fkm_piece *p = &b->pieces[chunk * b->chunk_pieces + i];
        int64_t at = p->row0 - r->row0;
        if (p->count == 0 || at >= r->count)
            break;
        if (at + p->count > r->count)
            return fkm_fail(
                e, FKM_EBUG, "a chunk of %lld rows, expected more", (long long)r->count);
        FKM_TRY(f(gpu_of(b, p), p, (const char *)r->x + (size_t)at * row_bytes, at));
    }
    return FKM_OK;
}

static fkm_status feed(
    fkm_backend *b, const fkm_rows *r, int32_t *labels, double *distances, fkm_err *e)
{
    if (!b->quantised && r->count > 0) {
        FKM_TRY(quantise_rows(b, r, e));
        FKM_TRY(prepare(b, e));
    }
    if (b->labelled && !b->head_decided && !is_int8(b))
        FKM_TRY(decide_head(b, r, e));
    return each_piece(b, r, e, [&](fkm_gpu *g, fkm_piece *p, const void *x, int64_t at) {
        fkm_feed f;
        f.x = x;
        f.labels = labels + at;
        f.later = b->pass.labels_later;
        f.distances = distances ? distances + at : NULL;
        f.update = b->pass.update;
        f.change = b->change;
        f.squares = b->pass.squares;
        f.frame = b->frame;
        return fkm_gpu_feed(g, p, &f, e);
    });
}

static fkm_status wait_for_feeds(fkm_backend *b, fkm_err *e)
{
    for (int32_t i = 0; i < b->gpu_count; i++)
        FKM_TRY(fkm_gpu_drain(&b->gpu[i], e));
    for (int64_t i = 0; i < b->piece_count; i++) {
        fkm_piece *p = &b->pieces[i];
        if (p->wanted)
            FKM_TRY(fkm_gpu_write_labels(gpu_of(b, p), p, p->wanted, e));
    }
    return FKM_OK;
}

static fkm_status write_labels(fkm_backend *b, int32_t *labels, fkm_err *e)
{
    for (int64_t i = 0; i < b->piece_count; i++) {
        fkm_piece *p = &b->pieces[i];
        if (p->labels && p->labelled)
            FKM_TRY(fkm_gpu_write_labels(gpu_of(b, p), p, labels + p->row0, e));
    }
    return FKM_OK;
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

static fkm_status end(fkm_backend *b, fkm_pass *out, fkm_err *e)
{
    memset(out, 0, sizeof *out);
    if (b->pass.update)
        FKM_TRY(finalise(b, e));
    for (int32_t i = 0; i < b->gpu_count; i++)
        FKM_TRY(fkm_gpu_tally(&b->gpu[i], e));
    FKM_TRY(wait_for_feeds(b, e));
    for (int32_t i = 0; i < b->gpu_count; i++) {
        const fkm_screen_counts *c = &b->gpu[i].tally_host->counts;
        FKM_TRY(fkm_gpu_collect(&b->gpu[i], e));
        out->rows += (int64_t)c->rows;
        out->skipped += (int64_t)c->skipped;
        out->moved += (int64_t)c->moved;
        out->in_doubt += (int64_t)c->in_doubt;
        out->candidates += (int64_t)c->candidates;
        out->rescans += (int64_t)c->rescans;
    }
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
    return each_piece(b, r, e, [&](fkm_gpu *g, fkm_piece *p, const void *x, int64_t at) {
        return fkm_gpu_distances(g, p, x, labels + at, out + at, e);
    });
}

static fkm_status nearest_of(
    fkm_backend *b, const fkm_rows *r, int32_t top, int32_t *labels, double *distances, fkm_err *e)
{
    if (top > b->plan.top)
        return fkm_fail(e, FKM_EBUG, "%d nearest centroids were not planned", top);
    return each_piece(b, r, e, [&](fkm_gpu *g, fkm_piece *p, const void *x, int64_t at) {
        return fkm_gpu_nearest(g, p, b->frame, x, top, labels + at * top, distances + at * top, e);
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

static bool streams(const fkm_backend *b)
{
    for (int64_t i = 0; i < b->piece_count; i++)
        if (b->pieces[i].count > 0 && !b->pieces[i].raw)
            return true;
    return false;
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
    host_bytes,
    open_backend,
    reset,
    set_centroids,
    set_scale,
    begin,
    feed,
    wait_for_feeds,
    write_labels,
    end,
    move,
    distances_of,
    nearest_of,
    get_centroids,
    isa,
    pin,
    unpin,
    streams,
    true,
    device_bytes,
    1 << 20,
    fkm_cuda_ceiling,
    close_backend,
};
