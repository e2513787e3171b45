/* One GPU: see gpu.cuh. */
#include "gpu.cuh"

#include "check.cuh"
#include "head.cuh"
#include "margin.cuh"
#include "usage.cuh"

extern "C" {
#include "../src/base/checked.h"
#include "../src/base/mem.h"
}

#include <stdio.h>
#include <string.h>

/* Left to the driver and to other processes when nothing was said about memory. */
#define RESERVE_SHARE 16
#define NEAREST_BLOCKS 64
#define GRAIN 512 /* cudaMalloc rounds up to this */

#define CU(call) FKM_CUDA(g->name, call)

fkm_status fkm_gpu_use(fkm_gpu *g, fkm_err *e)
{
    CU(cudaSetDevice(g->device));
    return FKM_OK;
}

/* ---- memory ---- */

static fkm_status remember_block(fkm_gpu *g, void *p, fkm_err *e)
{
    if (g->block_count == g->block_room) {
        void **more = NULL;
        int32_t room = g->block_room ? 2 * g->block_room : 64;
        FKM_TRY(fkm_alloc(&more, room, sizeof *more, "a list of device memory", e));
        if (g->block_count)
            memcpy(more, g->blocks, (size_t)g->block_count * sizeof *more);
        fkm_free(g->blocks);
        g->blocks = more;
        g->block_room = room;
    }
    g->blocks[g->block_count++] = p;
    return FKM_OK;
}

static fkm_status no_room(fkm_gpu *g, int64_t bytes, const char *what, fkm_err *e)
{
    char need[32], have[32];
    fkm_fail(e, FKM_ENOMEM, "%s: no room for %s: %s, of %s that fkm may use", g->name, what,
        fkm_bytes_text(need, sizeof need, bytes), fkm_bytes_text(have, sizeof have, g->budget));
    return fkm_hint(e, "give more --gpu-memory, fewer clusters, or --device cpu");
}

/* *out = count * size bytes of device memory, within the budget. */
template <class T>
static fkm_status device_alloc(
    fkm_gpu *g, T **out, int64_t count, int64_t size, const char *what, fkm_err *e)
{
    int64_t bytes = fkm_mul_sat(count > 0 ? count : 1, size);
    bytes = fkm_add_sat(bytes, GRAIN - 1) / GRAIN * GRAIN;
    void *p = NULL;
    *out = NULL;
    if (bytes > g->budget - g->used)
        return no_room(g, bytes, what, e);
    if (g->counting) {
        g->used += bytes;
        return FKM_OK;
    }
    CU(cudaMalloc(&p, (size_t)bytes));
    g->used += bytes;
    fkm_usage_add(g->device, bytes);
    *out = (T *)p;
    fkm_status st = remember_block(g, p, e);
    if (st != FKM_OK)
        (void)cudaFree(p);
    return st;
}

static fkm_status open_centroids(fkm_gpu *g, fkm_err *e)
{
    static const char what[] = "centroids";
    const fkm_plan *p = &g->plan;
    fkm_centroid_tables *c = &g->c;
    c->clusters = p->clusters;
    c->dims = p->dims;
    c->tiles = (int32_t)(((int64_t)p->clusters + FKM_TILE - 1) / FKM_TILE);
    int64_t k = p->clusters, cells = fkm_mul_sat(k, p->dims), n = (int64_t)c->tiles * FKM_TILE;
    FKM_TRY(device_alloc(g, &c->master, cells, sizeof(float), what, e));
    FKM_TRY(device_alloc(g, &c->rows, fkm_mul_sat(n, p->dims), sizeof(float), what, e));
    FKM_TRY(device_alloc(g, &c->packed, n, g->most_stride, what, e));
    FKM_TRY(device_alloc(g, &c->start, n, 4, what, e));
    float **columns[] = {
        &c->half, &c->fine_slope, &c->fine_offset, &c->slope, &c->rival, &c->tail, &c->offset};
    for (float **column : columns)
        FKM_TRY(device_alloc(g, column, n, sizeof(float), what, e));
    float **tile_columns[] = {&c->tile_slope, &c->tile_rival, &c->tile_tail, &c->tile_offset};
    for (float **column : tile_columns)
        FKM_TRY(device_alloc(g, column, c->tiles, sizeof(float), what, e));
    FKM_TRY(device_alloc(g, &c->norm2, k, sizeof(double), what, e));
    FKM_TRY(device_alloc(g, &c->key, k, sizeof(uint32_t), what, e));
    FKM_TRY(device_alloc(g, &c->sorted_key, k, sizeof(uint32_t), what, e));
    FKM_TRY(device_alloc(g, &c->identity, k, sizeof(int32_t), what, e));
    FKM_TRY(device_alloc(g, &c->index, n, sizeof(int32_t), what, e));
    FKM_TRY(device_alloc(g, &c->position, k, sizeof(int32_t), what, e));
    CU(fkm_sort_bytes(&c->sort_scratch_bytes, k));
    FKM_TRY(device_alloc(g, &c->sort_scratch, (int64_t)c->sort_scratch_bytes, 1, what, e));
    return device_alloc(g, &g->frame_shift, p->dims, sizeof(float), what, e);
}

static fkm_status open_sums(fkm_gpu *g, fkm_sums *s, fkm_err *e)
{
    const fkm_plan *p = &g->plan;
    int64_t cells = fkm_mul_sat(p->clusters, p->dims), words = p->wide ? FKM_WIDE_WORDS : 1;
    s->clusters = p->clusters;
    s->dims = p->dims;
    s->words = 1;
    s->scale_a = s->scale_b = 1;
    FKM_TRY(device_alloc(g, &s->sum, cells, words * (int64_t)sizeof(fkm_u64), "cluster sums", e));
    return device_alloc(g, &s->count, p->clusters, sizeof(fkm_u64), "cluster sizes", e);
}

static fkm_status open_update(fkm_gpu *g, bool first, bool several, fkm_err *e)
{
    const fkm_plan *p = &g->plan;
    const int64_t rows = g->piece_rows;
    FKM_TRY(open_sums(g, &g->sums, e));
    g->total = g->sums;
    if (first && several) {
        FKM_TRY(open_sums(g, &g->total, e));
        FKM_TRY(open_sums(g, &g->incoming, e));
    }
    int64_t cells = fkm_mul_sat(p->clusters, p->dims);
    FKM_TRY(device_alloc(g, &g->mean, cells, sizeof(float), "centroids", e));
    FKM_TRY(device_alloc(g, &g->shift, p->clusters, sizeof(double), "movements", e));
    FKM_TRY(device_alloc(g, &g->drop, p->clusters, sizeof(float), "movements", e));
    FKM_TRY(device_alloc(g, &g->top_twos, FKM_TOP_TWOS, sizeof(fkm_top_two), "movements", e));
    FKM_TRY(device_alloc(g, &g->reach, rows, sizeof(float), "bounds", e));
    FKM_TRY(device_alloc(g, &g->second, rows, sizeof(float), "bounds", e));
    FKM_TRY(device_alloc(g, &g->row, rows, sizeof(int32_t), "bounds", e));
    FKM_TRY(device_alloc(g, &g->sort.key, rows, sizeof(uint32_t), "sorting", e));
    FKM_TRY(device_alloc(g, &g->sort.sorted_key, rows, sizeof(uint32_t), "sorting", e));
    FKM_TRY(device_alloc(g, &g->sort.row, rows, sizeof(int32_t), "sorting", e));
    FKM_TRY(device_alloc(g, &g->sort.sorted_row, rows, sizeof(int32_t), "sorting", e));
    CU(fkm_sort_bytes(&g->sort.scratch_bytes, rows));
    return device_alloc(g, &g->sort.scratch, (int64_t)g->sort.scratch_bytes, 1, "sorting", e);
}

static fkm_status open_scratch(fkm_gpu *g, fkm_err *e)
{
    static const char what[] = "rows in flight";
    const fkm_plan *p = &g->plan;
    const int64_t rows = g->piece_rows;
    for (int i = 0; i < FKM_GPU_BUFFERS; i++)
        FKM_TRY(device_alloc(
            g, &g->raw[i], rows, fkm_mul_sat(p->dims, (int64_t)fkm_dtype_size(p->dtype)), what, e));
    FKM_TRY(device_alloc(g, &g->packed, rows, g->most_stride, what, e));
    FKM_TRY(device_alloc(g, &g->norm, rows, sizeof(float), what, e));
    FKM_TRY(device_alloc(g, &g->residual, rows, sizeof(float), what, e));
    FKM_TRY(device_alloc(g, &g->tail, rows, sizeof(float), what, e));
    FKM_TRY(device_alloc(g, &g->floor, rows, sizeof(float), what, e));
    FKM_TRY(device_alloc(g, &g->old, rows, sizeof(int32_t), what, e));
    FKM_TRY(device_alloc(g, &g->labels, fkm_mul_sat(rows, p->top), sizeof(int32_t), what, e));
    FKM_TRY(device_alloc(g, &g->distances, fkm_mul_sat(rows, p->top), sizeof(double), what, e));
    FKM_TRY(device_alloc(g, &g->list_counts, 3, sizeof(unsigned), what, e));
    FKM_TRY(device_alloc(g, &g->doubt_row, rows, sizeof(int32_t), what, e));
    FKM_TRY(device_alloc(g, &g->doubt_size, rows, sizeof(int32_t), what, e));
    FKM_TRY(device_alloc(g, &g->doubt_position, rows * FKM_CANDIDATES, sizeof(int32_t), what, e));
    FKM_TRY(device_alloc(g, &g->rescan_row, rows, sizeof(int32_t), what, e));
    return FKM_OK;
}

/* Rows that blocks share: as many as keep the device busy, each with two tiles or more. */
static fkm_status open_parts(fkm_gpu *g, fkm_err *e)
{
    static const char what[] = "parts of rows";
    const int64_t most = fkm_mul_sat(g->piece_rows, g->c.tiles / FKM_LEAST_TILES);
    const int64_t room = fkm_min_i64(most, (int64_t)FKM_PART_ROWS * g->chip.processors);
    fkm_parts *p = &g->parts;
    if (g->c.tiles < 2 * FKM_LEAST_TILES)
        return FKM_OK;
    p->room = (int32_t)room;
    FKM_TRY(device_alloc(g, &p->floor, room, sizeof(float), what, e));
    FKM_TRY(device_alloc(g, &p->second, room, sizeof(float), what, e));
    FKM_TRY(device_alloc(g, &p->count, room, sizeof(int32_t), what, e));
    FKM_TRY(device_alloc(g, &p->position, room * FKM_CANDIDATES, sizeof(int32_t), what, e));
    return device_alloc(g, &p->upper, room * FKM_CANDIDATES, sizeof(float), what, e);
}

static fkm_status open_nearest(fkm_gpu *g, fkm_err *e)
{
    static const char what[] = "nearest lists";
    int64_t cells = fkm_mul_sat(g->plan.clusters, NEAREST_BLOCKS);
    g->nearest.blocks = NEAREST_BLOCKS;
    FKM_TRY(device_alloc(g, &g->nearest.lower, cells, sizeof(float), what, e));
    FKM_TRY(device_alloc(g, &g->nearest.survivor, cells, sizeof(int32_t), what, e));
    return device_alloc(g, &g->nearest.survivor_distance, cells, sizeof(double), what, e);
}

static fkm_status open_head(fkm_gpu *g, fkm_err *e)
{
    static const char what[] = "principal axes";
    const int64_t dims = g->plan.dims, rows = fkm_min_i64(FKM_TURN_ROWS, g->piece_rows);
    FKM_TRY(device_alloc(g, &g->axes, FKM_HEAD_MOST * dims, sizeof(float), what, e));
    FKM_TRY(device_alloc(
        g, &g->turned, fkm_max_i64(rows, FKM_HEAD_SAMPLE) * FKM_HEAD_MOST, sizeof(float), what, e));
    return device_alloc(
        g, &g->c.head, (int64_t)g->plan.clusters * FKM_HEAD_MOST, sizeof(float), what, e);
}

static fkm_status open_streams(fkm_gpu *g, fkm_err *e)
{
    CU(cudaStreamCreateWithFlags(&g->copy, cudaStreamNonBlocking));
    CU(cudaStreamCreateWithFlags(&g->compute, cudaStreamNonBlocking));
    CU(cudaEventCreateWithFlags(&g->done, cudaEventDisableTiming));
    for (int i = 0; i < FKM_GPU_BUFFERS; i++) {
        CU(cudaEventCreateWithFlags(&g->copied[i], cudaEventDisableTiming));
        CU(cudaEventCreateWithFlags(&g->freed[i], cudaEventDisableTiming));
    }
    CU(cudaHostAlloc((void **)&g->tally_host, sizeof *g->tally_host, cudaHostAllocDefault));
    FKM_TRY(fkm_stopwatch_open(&g->assign, g->name, e));
    return fkm_stopwatch_open(&g->adding, g->name, e);
}

int64_t fkm_gpu_host_bytes(int64_t piece_rows)
{
    return fkm_mul_sat(piece_rows, FKM_STAGES * 2 * (int64_t)sizeof(int32_t));
}

static fkm_status open_stages(fkm_gpu *g, fkm_err *e)
{
    const size_t bytes = (size_t)g->piece_rows * sizeof(int32_t);
    for (fkm_stage &s : g->stage) {
        CU(cudaHostAlloc((void **)&s.in, bytes, cudaHostAllocDefault));
        CU(cudaHostAlloc((void **)&s.out, bytes, cudaHostAllocDefault));
        CU(cudaEventCreateWithFlags(&s.taken, cudaEventDisableTiming));
        CU(cudaEventCreateWithFlags(&s.delivered, cudaEventDisableTiming));
    }
    return FKM_OK;
}

static void close_stages(fkm_gpu *g)
{
    for (fkm_stage &s : g->stage) {
        if (s.in)
            (void)cudaFreeHost(s.in);
        if (s.out)
            (void)cudaFreeHost(s.out);
        if (s.taken)
            (void)cudaEventDestroy(s.taken);
        if (s.delivered)
            (void)cudaEventDestroy(s.delivered);
    }
}

/* The kernel for the length of packed rows. */
static void choose_kernel(fkm_gpu *g)
{
    g->packing.stride = fkm_pack_stride(g->packing.unit, g->packing.screened);
    g->kernel = fkm_assign_choose(&g->chip, g->packing.unit, g->packing.stride);
}

void fkm_gpu_set_unit(fkm_gpu *g, fkm_unit unit, float row_quant, float centroid_quant)
{
    const bool quantised = unit == FKM_UNIT_S8;
    g->packing.unit = unit;
    g->packing.axes = NULL;
    g->packing.turned = NULL;
    g->packing.screened = g->plan.dims;
    g->packing.gram = 0;
    g->packing.row_quant = quantised ? row_quant : 1;
    g->packing.centroid_quant = quantised ? centroid_quant : 1;
    choose_kernel(g);
}

static fkm_status describe(fkm_gpu *g, const fkm_unit_choice *unit, fkm_err *e)
{
    cudaDeviceProp prop;
    (void)snprintf(g->name, sizeof g->name, "cuda:%d", g->device);
    CU(cudaGetDeviceProperties(&prop, g->device));
    (void)snprintf(g->name, sizeof g->name, "cuda:%d (%.64s)", g->device, prop.name);
    g->chip.compute = 10 * prop.major + prop.minor;
    g->chip.shared_bytes = (int32_t)prop.sharedMemPerBlockOptin;
    g->chip.processors = prop.multiProcessorCount;
    g->chip.portable = unit->portable;
    g->packing.dims = g->packing.screened = g->plan.dims;
    fkm_gpu_set_unit(g, unit->unit, 1, 1);
    g->most_stride = g->packing.stride;
    if (g->kernel)
        return FKM_OK;
    fkm_fail(e, FKM_EDEVICE, "%s has compute capability %d.%d: fkm needs 8.0 or later", g->name,
        prop.major, prop.minor);
    return fkm_hint(e, "use --device cpu: the results are the same bits");
}

static fkm_status set_budget(fkm_gpu *g, fkm_err *e)
{
    size_t free_bytes = 0, total_bytes = 0;
    CU(cudaMemGetInfo(&free_bytes, &total_bytes));
    int64_t most = (int64_t)(free_bytes - free_bytes / RESERVE_SHARE);
    g->budget = g->plan.device_bytes > 0 ? fkm_min_i64(g->plan.device_bytes, most) : most;
    if (g->plan.leave_room)
        g->budget -= g->budget / FKM_SEEDING_SHARE;
    return FKM_OK;
}

/* What is there before any memory. */
static fkm_status begin_gpu(fkm_gpu *g, int device, const fkm_plan *p, const fkm_unit_choice *unit,
    int32_t piece_rows, fkm_err *e)
{
    memset(g, 0, sizeof *g);
    g->device = device;
    g->plan = *p;
    g->piece_rows = piece_rows;
    (void)snprintf(g->name, sizeof g->name, "cuda:%d", device);
    FKM_TRY(fkm_gpu_use(g, e));
    FKM_TRY(describe(g, unit, e));
    return set_budget(g, e);
}

static fkm_status open_memory(fkm_gpu *g, bool first, bool several, fkm_err *e)
{
    const fkm_plan *p = &g->plan;
    FKM_TRY(device_alloc(g, &g->tally, 1, sizeof *g->tally, "counters", e));
    FKM_TRY(open_centroids(g, e));
    FKM_TRY(open_scratch(g, e));
    FKM_TRY(open_parts(g, e));
    if (p->update)
        FKM_TRY(open_update(g, first, several, e));
    if (p->update && fkm_head_suits(p->dims) && g->piece_rows >= FKM_HEAD_SAMPLE)
        FKM_TRY(open_head(g, e));
    return p->top > 1 ? open_nearest(g, e) : FKM_OK;
}

fkm_status fkm_gpu_open(fkm_gpu *g, int device, const fkm_plan *p, const fkm_unit_choice *unit,
    int32_t piece_rows, bool first, bool several, fkm_err *e)
{
    FKM_TRY(begin_gpu(g, device, p, unit, piece_rows, e));
    FKM_TRY(open_streams(g, e));
    FKM_TRY(open_memory(g, first, several, e));
    FKM_TRY(open_stages(g, e));
    CU(cudaMemsetAsync(g->tally, 0, sizeof *g->tally, g->compute));
    /* of listed rows it is read to the end of a block */
    CU(cudaMemsetAsync(g->packed, 0, (size_t)piece_rows * (size_t)g->most_stride, g->compute));
    return FKM_OK;
}

fkm_status fkm_gpu_count(int64_t *need, int64_t *room, int device, const fkm_plan *p,
    const fkm_unit_choice *unit, fkm_err *e)
{
    fkm_gpu g;
    const int64_t chunks = (p->rows + p->chunk_rows - 1) / p->chunk_rows;
    FKM_TRY(begin_gpu(&g, device, p, unit, (int32_t)fkm_min_i64(p->chunk_rows, p->rows), e));
    *room = g.budget;
    g.budget = INT64_MAX;
    g.counting = true;
    FKM_TRY(open_memory(&g, true, false, e));
    for (int64_t i = 0; p->update && i < chunks; i++) {
        fkm_piece piece;
        memset(&piece, 0, sizeof piece);
        piece.count = (int32_t)fkm_min_i64(p->chunk_rows, p->rows - i * p->chunk_rows);
        FKM_TRY(fkm_gpu_keep_labels(&g, &piece, e));
        FKM_TRY(fkm_gpu_keep_rows(&g, &piece, e));
        FKM_TRY(fkm_gpu_keep_packed(&g, &piece, e));
        FKM_TRY(fkm_gpu_keep_bounds(&g, &piece, e));
    }
    *need = g.used;
    return FKM_OK;
}

void fkm_gpu_close(fkm_gpu *g)
{
    if (g->name[0] == '\0')
        return;
    (void)cudaSetDevice(g->device);
    if (g->compute)
        (void)cudaStreamSynchronize(g->compute);
    if (g->copy)
        (void)cudaStreamSynchronize(g->copy);
    for (int32_t i = 0; i < g->block_count; i++)
        (void)cudaFree(g->blocks[i]);
    fkm_usage_add(g->device, -g->used);
    fkm_free(g->blocks);
    for (int i = 0; i < FKM_GPU_BUFFERS; i++) {
        if (g->copied[i])
            (void)cudaEventDestroy(g->copied[i]);
        if (g->freed[i])
            (void)cudaEventDestroy(g->freed[i]);
    }
    if (g->done)
        (void)cudaEventDestroy(g->done);
    fkm_stopwatch_close(&g->assign);
    fkm_stopwatch_close(&g->adding);
    close_stages(g);
    if (g->tally_host)
        (void)cudaFreeHost(g->tally_host);
    if (g->compute)
        (void)cudaStreamDestroy(g->compute);
    if (g->copy)
        (void)cudaStreamDestroy(g->copy);
    (void)cudaGetLastError();
    memset(g, 0, sizeof *g);
}

static size_t row_bytes(const fkm_gpu *g)
{
    return (size_t)g->plan.dims * fkm_dtype_size(g->plan.dtype);
}

fkm_status fkm_gpu_keep_labels(fkm_gpu *g, fkm_piece *p, fkm_err *e)
{
    FKM_TRY(fkm_gpu_use(g, e));
    return device_alloc(g, &p->labels, p->count, sizeof(int32_t), "labels", e);
}

fkm_status fkm_gpu_keep_rows(fkm_gpu *g, fkm_piece *p, fkm_err *e)
{
    FKM_TRY(fkm_gpu_use(g, e));
    return device_alloc(g, &p->raw, p->count, (int64_t)row_bytes(g), "rows", e);
}

fkm_status fkm_gpu_keep_packed(fkm_gpu *g, fkm_piece *p, fkm_err *e)
{
    float *norm, *residual, *tail;
    FKM_TRY(fkm_gpu_use(g, e));
    FKM_TRY(device_alloc(g, &norm, p->count, sizeof(float), "packed rows", e));
    FKM_TRY(device_alloc(g, &residual, p->count, sizeof(float), "packed rows", e));
    FKM_TRY(device_alloc(g, &tail, p->count, sizeof(float), "packed rows", e));
    FKM_TRY(device_alloc(g, &p->packed, p->count, g->most_stride, "packed rows", e));
    p->norm = norm;
    p->residual = residual;
    p->tail = tail;
    return FKM_OK;
}

fkm_status fkm_gpu_keep_bounds(fkm_gpu *g, fkm_piece *p, fkm_err *e)
{
    FKM_TRY(fkm_gpu_use(g, e));
    return device_alloc(g, &p->slack, p->count, sizeof(float), "bounds", e);
}

/* ---- centroids ---- */

fkm_status fkm_gpu_set_frame(fkm_gpu *g, float scale, const float *shift, fkm_err *e)
{
    FKM_TRY(fkm_gpu_use(g, e));
    CU(cudaMemcpyAsync(g->frame_shift, shift, (size_t)g->plan.dims * sizeof *shift,
        cudaMemcpyHostToDevice, g->compute));
    CU(cudaStreamSynchronize(g->compute)); /* shift is the caller's */
    g->frame.scale = scale;
    g->frame.shift = g->frame_shift;
    return FKM_OK;
}

fkm_status fkm_gpu_set_axes(fkm_gpu *g, const float *axes, int32_t screened, float gram, fkm_err *e)
{
    FKM_TRY(fkm_gpu_use(g, e));
    g->packing.axes = g->axes;
    g->packing.turned = g->turned;
    g->packing.screened = screened;
    g->packing.gram = gram;
    choose_kernel(g);
    CU(cudaMemcpyAsync(g->axes, axes, (size_t)screened * (size_t)g->plan.dims * sizeof *axes,
        cudaMemcpyHostToDevice, g->compute));
    CU(cudaStreamSynchronize(g->compute)); /* axes are the caller's */
    return FKM_OK;
}

fkm_status fkm_gpu_set_centroids(fkm_gpu *g, const float *c, fkm_err *e)
{
    FKM_TRY(fkm_gpu_use(g, e));
    CU(cudaMemcpyAsync(g->c.master, c, (size_t)g->plan.clusters * (size_t)g->plan.dims * sizeof *c,
        cudaMemcpyHostToDevice, g->compute));
    CU(cudaStreamSynchronize(g->compute)); /* c is the caller's */
    return FKM_OK;
}

fkm_status fkm_gpu_prepare(fkm_gpu *g, fkm_err *e)
{
    FKM_TRY(fkm_gpu_use(g, e));
    CU(fkm_prepare_centroids(&g->c, &g->frame, &g->packing, g->compute));
    return FKM_OK;
}

fkm_status fkm_gpu_moved(fkm_gpu *g, fkm_err *e)
{
    FKM_TRY(fkm_gpu_use(g, e));
    CU(fkm_bounds_move(
        g->drop, g->top_twos, g->shift, g->plan.clusters, g->frame.scale, g->moved, g->compute));
    g->moved = true;
    return FKM_OK;
}

/* ---- a pass ---- */

fkm_status fkm_gpu_begin(fkm_gpu *g, bool sums, bool squares, fkm_err *e)
{
    FKM_TRY(fkm_gpu_use(g, e));
    g->dropping = g->moved;
    g->moved = false;
    g->looked_at = 0;
    for (fkm_stage &s : g->stage)
        memset(&s.pending, 0, sizeof s.pending); /* of a pass that was given up */
    fkm_stopwatch_clear(&g->assign);
    fkm_stopwatch_clear(&g->adding);
    CU(cudaMemsetAsync(&g->tally->counts, 0, sizeof g->tally->counts, g->compute));
    CU(cudaMemsetAsync(&g->tally->moments, 0, sizeof g->tally->moments, g->compute));
    if (squares)
        CU(cudaMemsetAsync(&g->tally->squares, 0, sizeof g->tally->squares, g->compute));
    if (!sums)
        return FKM_OK;
    const fkm_sums *s = &g->sums;
    CU(cudaMemsetAsync(s->sum, 0,
        (size_t)s->clusters * (size_t)s->dims * (size_t)s->words * sizeof *s->sum, g->compute));
    CU(cudaMemsetAsync(s->count, 0, (size_t)s->clusters * sizeof *s->count, g->compute));
    return FKM_OK;
}

/* The event of copy n, from 0, or, when FKM_GPU_BUFFERS or more followed it, of a later one. */
static cudaEvent_t copied(const fkm_gpu *g, int64_t n)
{
    return g->copied[n % FKM_GPU_BUFFERS];
}

static fkm_status copy_rows(fkm_gpu *g, const fkm_piece *p, void *to, const void *x, fkm_err *e)
{
    CU(cudaMemcpyAsync(to, x, (size_t)p->count * row_bytes(g), cudaMemcpyHostToDevice, g->copy));
    CU(cudaEventRecord(copied(g, g->copies), g->copy));
    g->copies++;
    return FKM_OK;
}

static int buffer_of(const fkm_gpu *g, const fkm_piece *p)
{
    for (int i = 0; i < FKM_GPU_BUFFERS; i++)
        if (g->held[i] == p)
            return i;
    return -1;
}

/* Queues the copy of a piece's rows to the buffer whose turn it is, after its last use. */
static fkm_status fill_buffer(
    fkm_gpu *g, const fkm_piece *p, const void *x, int *buffer, fkm_err *e)
{
    *buffer = g->turn;
    g->turn = (g->turn + 1) % FKM_GPU_BUFFERS;
    g->held[*buffer] = NULL;
    if (!FKM_PLANT(3))
        CU(cudaStreamWaitEvent(g->copy, g->freed[*buffer], 0));
    FKM_TRY(copy_rows(g, p, g->raw[*buffer], x, e));
    g->filled[*buffer] = g->copies - 1;
    g->held[*buffer] = p;
    return FKM_OK;
}

/* Brings the rows of a piece to the device, unless they are there; *buffer: the one they lie in, -1
 * for their own place. The compute stream waits for them. */
static fkm_status bring_rows(
    fkm_gpu *g, fkm_piece *p, const void *x, fkm_device_rows *rows, int *buffer, fkm_err *e)
{
    int64_t copy = -1; /* that the rows come by; -1: they are there */
    *buffer = -1;
    if (p->raw && !p->raw_valid) {
        FKM_TRY(copy_rows(g, p, p->raw, x, e));
        p->raw_valid = true;
        copy = g->copies - 1;
    } else if (!p->raw) {
        *buffer = buffer_of(g, p);
        if (*buffer < 0)
            FKM_TRY(fill_buffer(g, p, x, buffer, e));
        g->turn = (*buffer + 1) % FKM_GPU_BUFFERS;
        copy = g->filled[*buffer];
    }
    if (copy >= 0 && !FKM_PLANT(9))
        CU(cudaStreamWaitEvent(g->compute, copied(g, copy), 0));
    rows->x = p->raw ? p->raw : g->raw[*buffer];
    rows->count = p->count;
    rows->dims = g->plan.dims;
    rows->dtype = g->plan.dtype;
    return FKM_OK;
}

fkm_status fkm_gpu_fetch(fkm_gpu *g, fkm_piece *p, fkm_err *e)
{
    int buffer;
    if (p->raw || !p->x || buffer_of(g, p) >= 0)
        return FKM_OK;
    FKM_TRY(fkm_gpu_use(g, e));
    return fill_buffer(g, p, p->x, &buffer, e);
}

fkm_status fkm_gpu_let_go(fkm_gpu *g, fkm_err *e)
{
    if (!FKM_PLANT(10))
        memset(g->held, 0, sizeof g->held);
    FKM_TRY(fkm_gpu_collect(g, e));
    CU(cudaStreamSynchronize(g->copy));
    return FKM_OK;
}

/* x is free again when its copy is done: the last one, if it was queued by this feed, or that of
 * the buffer, which was filled ahead; the compute stream goes on. Rows that stay in host memory
 * only hold back the queue. */
static fkm_status wait_for_copy(fkm_gpu *g, bool queued, int buffer, fkm_err *e)
{
    int64_t copy = queued ? g->copies - 1 - g->plan.keep : -1;
    if (!queued && !g->plan.keep && buffer >= 0 && !FKM_PLANT(13))
        copy = g->filled[buffer];
    if (copy >= 0)
        CU(cudaEventSynchronize(copied(g, copy)));
    return FKM_OK;
}

/* After the last use of the rows on the compute stream. */
static fkm_status free_buffer(fkm_gpu *g, int buffer, fkm_err *e)
{
    if (buffer >= 0)
        CU(cudaEventRecord(g->freed[buffer], g->compute));
    return FKM_OK;
}

/* The packed rows of a piece, packed if need be. */
static fkm_status pack_piece(fkm_gpu *g, fkm_piece *p, const fkm_device_rows *rows, uint32_t frame,
    fkm_packed_rows *out, fkm_err *e)
{
    bool own = p->packed != NULL;
    void *packed = own ? p->packed : g->packed;
    float *norm = own ? p->norm : g->norm, *residual = own ? p->residual : g->residual;
    float *tail = own ? p->tail : g->tail;
    if (!own || p->frame != frame)
        CU(fkm_pack_rows(packed, norm, residual, tail, rows, &g->frame, &g->packing, g->compute));
    if (own)
        p->frame = frame;
    out->x = packed;
    out->norm = norm;
    out->residual = residual;
    out->tail = tail;
    return FKM_OK;
}

/* Waits for what the caller is owed of a stage, and writes it. */
static fkm_status deliver(fkm_gpu *g, fkm_stage *s, fkm_err *e)
{
    const fkm_pending p = s->pending;
    memset(&s->pending, 0, sizeof s->pending);
    if (p.labels) {
        CU(cudaEventSynchronize(s->delivered));
        memcpy(p.labels, s->out, (size_t)p.count * sizeof *p.labels);
    }
    if (p.distances) {
        CU(cudaMemcpyAsync(p.distances, g->distances, (size_t)p.count * sizeof *p.distances,
            cudaMemcpyDeviceToHost, g->compute));
        CU(cudaStreamSynchronize(g->compute));
    }
    return FKM_OK;
}

/* *stage: what labels, or distances, of this feed go through; NULL: nothing does. Then the state of
 * the GPU stays as it is, which graphs of passes need. */
static fkm_status take_stage(
    fkm_gpu *g, const fkm_piece *p, const fkm_feed *f, fkm_stage **stage, fkm_err *e)
{
    bool distances = false;
    *stage = NULL;
    for (const fkm_stage &s : g->stage)
        distances = distances || s.pending.distances; /* they share scratch: these go first */
    if (distances)
        FKM_TRY(fkm_gpu_drain(g, e));
    if (p->labels && p->labelled && !f->distances)
        return FKM_OK;
    *stage = &g->stage[g->stage_turn];
    g->stage_turn = (g->stage_turn + 1) % FKM_STAGES;
    return deliver(g, *stage, e);
}

/* Labels before the pass, in g->old; returns where the new ones go. */
static fkm_status start_labels(
    fkm_gpu *g, fkm_piece *p, const fkm_feed *f, fkm_stage *s, int32_t **labels, fkm_err *e)
{
    size_t bytes = (size_t)p->count * sizeof(int32_t);
    *labels = p->labels ? p->labels : g->labels;
    if (p->labels && p->labelled) {
        CU(cudaMemcpyAsync(g->old, p->labels, bytes, cudaMemcpyDeviceToDevice, g->compute));
        return FKM_OK;
    }
    if (f->unlabelled) {
        CU(cudaMemsetAsync(g->old, 0xff, bytes, g->compute));
        return FKM_OK;
    }
    if (!FKM_PLANT(14))
        CU(cudaEventSynchronize(s->taken));
    memcpy(s->in, f->labels, bytes);
    CU(cudaMemcpyAsync(g->old, s->in, bytes, cudaMemcpyHostToDevice, g->compute));
    CU(cudaEventRecord(s->taken, g->compute));
    return FKM_OK;
}

/* Sends what the caller waits for on its way. */
static fkm_status finish_labels(
    fkm_gpu *g, const fkm_piece *p, const fkm_feed *f, fkm_stage *s, fkm_err *e)
{
    if (!s)
        return FKM_OK;
    s->pending.count = p->count;
    s->pending.distances = f->distances;
    s->pending.labels = p->labels ? NULL : f->labels;
    if (!s->pending.labels)
        return FKM_OK;
    CU(cudaMemcpyAsync(
        s->out, g->labels, (size_t)p->count * sizeof *s->out, cudaMemcpyDeviceToHost, g->compute));
    CU(cudaEventRecord(s->delivered, g->compute));
    return FKM_OK;
}

/* How a piece is gone about in this pass. */
struct work {
    fkm_device_rows rows;
    fkm_packed_rows packed;
    int32_t *labels; /* out */
    bool listed;     /* only the rows that bounds do not spare: g->row */
    bool bounds;     /* new ones are made */
};

/* Where the search of rows begins; listed rows are gathered, *x is what to screen. */
static fkm_status start_rows(
    fkm_gpu *g, const work *w, const fkm_packed_centroids *c, fkm_packed_rows *x, fkm_err *e)
{
    fkm_warm_args a;
    memset(&a, 0, sizeof a);
    a.x = *x = w->packed;
    a.rows = w->rows.count;
    a.labels = g->old;
    a.c = *c;
    a.clusters = g->plan.clusters;
    a.floor = g->floor;
    a.reach = w->bounds ? g->reach : NULL;
    a.drop = g->dropping ? g->drop : NULL;
    if (w->listed) {
        a.row = g->row;
        a.listed = &g->list_counts[2];
        a.gathered = g->packed;
        x->x = g->packed;
    }
    CU(fkm_warm_floors(&a, &g->packing, g->compute));
    return FKM_OK;
}

static fkm_status screen(fkm_gpu *g, const work *w, fkm_err *e)
{
    const fkm_packed_centroids c = fkm_packed_view(&g->c, &g->packing);
    fkm_assign_args a;
    memset(&a, 0, sizeof a);
    FKM_TRY(start_rows(g, w, &c, &a.x, e));
    a.rows = w->rows.count;
    a.tiles = g->c.tiles;
    a.clusters = g->c.clusters;
    a.stride = g->packing.stride;
    a.c = c;
    a.row = w->listed ? g->row : NULL;
    a.listed = &g->list_counts[2];
    a.floor = g->floor;
    a.reach = w->bounds ? g->reach : NULL;
    a.second = w->bounds ? g->second : NULL;
    a.old = g->old;
    a.labels = w->labels;
    a.counts = &g->tally->counts;
    a.chip = g->chip;
    a.parts = g->parts;
    a.doubt_count = &g->list_counts[0];
    a.doubt_row = g->doubt_row;
    a.doubt_size = g->doubt_size;
    a.doubt_position = g->doubt_position;
    a.rescan_count = &g->list_counts[1];
    a.rescan_row = g->rescan_row;
    CU(g->kernel->run(&a, g->compute));
    return FKM_OK;
}

/* Brings scores to the frame. */
static float score_unit(const fkm_gpu *g)
{
    return 1 / (g->packing.row_quant * g->packing.centroid_quant);
}

static fkm_status resolve(fkm_gpu *g, const work *w, fkm_err *e)
{
    fkm_resolve_args r;
    memset(&r, 0, sizeof r);
    r.rows = w->rows;
    r.frame = g->frame;
    r.c = g->c;
    r.norm = w->packed.norm;
    r.residual = w->packed.residual;
    r.floor = g->floor;
    r.second = w->bounds ? g->second : NULL;
    r.floor_scale = score_unit(g);
    r.kappa = (float)(fkm_kappa(g->plan.dims) * FKM_HIGHER_ORDER);
    r.old = g->old;
    r.labels = w->labels;
    r.counts = &g->tally->counts;
    r.doubt_count = &g->list_counts[0];
    r.doubt_row = g->doubt_row;
    r.doubt_size = g->doubt_size;
    r.doubt_position = g->doubt_position;
    r.rescan_count = &g->list_counts[1];
    r.rescan_row = g->rescan_row;
    CU(fkm_resolve(&r, (unsigned)g->chip.processors * 8, g->compute));
    return FKM_OK;
}

/* Lists the rows of a piece that have to be searched, if bounds can tell. */
static fkm_status list_rows(fkm_gpu *g, const fkm_piece *p, work *w, const fkm_feed *f, fkm_err *e)
{
    w->bounds = f->bounds && p->slack && p->labelled;
    w->listed = w->bounds && p->bounded;
    CU(cudaMemsetAsync(g->list_counts, 0, 3 * sizeof *g->list_counts, g->compute));
    if (!w->listed)
        return FKM_OK;
    g->looked_at += p->count;
    CU(fkm_bounds_list(g->row, &g->list_counts[2], &g->tally->counts.spared, p->slack, g->old,
        g->dropping ? g->drop : NULL, p->count, g->compute));
    return FKM_OK;
}

static fkm_status make_bounds(fkm_gpu *g, const fkm_piece *p, const work *w, fkm_err *e)
{
    fkm_bounds_args a;
    if (!w->bounds)
        return FKM_OK;
    memset(&a, 0, sizeof a);
    a.slack = p->slack;
    a.labels = w->labels;
    a.norm = w->packed.norm;
    a.floor = g->floor;
    a.second = g->second;
    a.score_unit = score_unit(g);
    a.row = w->listed ? g->row : NULL;
    a.listed = &g->list_counts[2];
    a.rows = p->count;
    CU(fkm_bounds_set(&a, g->compute));
    return FKM_OK;
}

static fkm_status update(
    fkm_gpu *g, const fkm_device_rows *rows, const int32_t *labels, const fkm_feed *f, fkm_err *e)
{
    FKM_TRY(fkm_stopwatch_start(&g->adding, g->compute, g->name, e));
    if (f->change)
        CU(fkm_sums_change(&g->sums, rows, g->old, labels, g->compute));
    else
        CU(fkm_sums_add(&g->sums, rows, labels, &g->sort, g->compute));
    FKM_TRY(fkm_stopwatch_stop(&g->adding, g->compute, g->name, e));
    if (f->squares)
        CU(fkm_squares_add(&g->tally->squares, &g->sums, rows, labels, g->compute));
    return FKM_OK;
}

fkm_status fkm_gpu_feed(fkm_gpu *g, fkm_piece *p, const fkm_feed *f, fkm_err *e)
{
    work w;
    int buffer;
    fkm_stage *stage;
    FKM_TRY(fkm_gpu_use(g, e));
    FKM_TRY(take_stage(g, p, f, &stage, e));
    const int64_t copies = g->copies;
    FKM_TRY(bring_rows(g, p, f->x, &w.rows, &buffer, e));
    FKM_TRY(fkm_stopwatch_start(&g->assign, g->compute, g->name, e));
    FKM_TRY(pack_piece(g, p, &w.rows, f->frame, &w.packed, e));
    FKM_TRY(start_labels(g, p, f, stage, &w.labels, e));
    FKM_TRY(list_rows(g, p, &w, f, e));
    FKM_TRY(screen(g, &w, e));
    FKM_TRY(resolve(g, &w, e));
    FKM_TRY(make_bounds(g, p, &w, e));
    FKM_TRY(fkm_stopwatch_stop(&g->assign, g->compute, g->name, e));
    if (f->update)
        FKM_TRY(update(g, &w.rows, w.labels, f, e));
    if (f->distances)
        CU(fkm_distances_to(g->distances, &w.rows, w.labels, g->c.master, g->compute));
    FKM_TRY(free_buffer(g, buffer, e));
    FKM_TRY(finish_labels(g, p, f, stage, e));
    p->wanted = p->labels && !f->later ? f->labels : NULL;
    p->labelled = p->labels != NULL;
    p->bounded = w.bounds;
    p->x = g->plan.keep ? f->x : NULL;
    return wait_for_copy(g, g->copies > copies, buffer, e);
}

bool fkm_gpu_owes(const fkm_gpu *g)
{
    for (const fkm_stage &s : g->stage)
        if (s.pending.labels || s.pending.distances)
            return true;
    return false;
}

/* From the piece that has waited longest. */
fkm_status fkm_gpu_drain(fkm_gpu *g, fkm_err *e)
{
    FKM_TRY(fkm_gpu_use(g, e));
    for (int i = 0; i < FKM_STAGES; i++)
        FKM_TRY(deliver(g, &g->stage[(g->stage_turn + i) % FKM_STAGES], e));
    return FKM_OK;
}

fkm_status fkm_gpu_write_labels(fkm_gpu *g, fkm_piece *p, int32_t *labels, fkm_err *e)
{
    const size_t bytes = (size_t)p->count * sizeof *labels;
    fkm_stage *s = &g->stage[g->stage_turn]; /* as it was, and free, when this returns */
    FKM_TRY(fkm_gpu_use(g, e));
    FKM_TRY(deliver(g, s, e));
    CU(cudaMemcpyAsync(s->out, p->labels, bytes, cudaMemcpyDeviceToHost, g->compute));
    CU(cudaStreamSynchronize(g->compute));
    memcpy(labels, s->out, bytes);
    p->wanted = NULL;
    return FKM_OK;
}

fkm_status fkm_gpu_tally(fkm_gpu *g, fkm_err *e)
{
    FKM_TRY(fkm_gpu_use(g, e));
    CU(cudaMemcpyAsync(
        g->tally_host, g->tally, sizeof *g->tally, cudaMemcpyDeviceToHost, g->compute));
    return FKM_OK;
}

fkm_status fkm_gpu_collect(fkm_gpu *g, fkm_err *e)
{
    FKM_TRY(fkm_gpu_use(g, e));
    CU(cudaStreamSynchronize(g->compute));
    return FKM_OK;
}

fkm_status fkm_gpu_try(fkm_gpu *g, const void *x, int32_t count, fkm_screen_counts *out, fkm_err *e)
{
    work w;
    fkm_feed all;
    fkm_piece piece;
    int buffer;
    memset(&piece, 0, sizeof piece);
    memset(&all, 0, sizeof all);
    piece.count = count;
    w.labels = g->labels;
    FKM_TRY(fkm_gpu_use(g, e));
    FKM_TRY(bring_rows(g, &piece, x, &w.rows, &buffer, e));
    FKM_TRY(pack_piece(g, &piece, &w.rows, 0, &w.packed, e));
    CU(cudaMemsetAsync(g->labels, 0xff, (size_t)count * sizeof *g->labels, g->compute));
    for (int warm = 0; warm < 2; warm++) {
        CU(cudaMemsetAsync(&g->tally->counts, 0, sizeof g->tally->counts, g->compute));
        CU(cudaMemcpyAsync(g->old, g->labels, (size_t)count * sizeof *g->old,
            cudaMemcpyDeviceToDevice, g->compute));
        FKM_TRY(list_rows(g, &piece, &w, &all, e));
        FKM_TRY(screen(g, &w, e));
        FKM_TRY(resolve(g, &w, e));
    }
    FKM_TRY(free_buffer(g, buffer, e));
    g->held[buffer] = NULL; /* of a piece that ends here */
    FKM_TRY(fkm_gpu_tally(g, e));
    CU(cudaMemsetAsync(&g->tally->counts, 0, sizeof g->tally->counts, g->compute));
    FKM_TRY(fkm_gpu_collect(g, e));
    *out = g->tally_host->counts;
    return FKM_OK;
}

/* ---- outside passes ---- */

fkm_status fkm_gpu_distances(
    fkm_gpu *g, fkm_piece *p, const void *x, const int32_t *labels, double *out, fkm_err *e)
{
    fkm_device_rows rows;
    int buffer;
    FKM_TRY(fkm_gpu_use(g, e));
    FKM_TRY(bring_rows(g, p, x, &rows, &buffer, e));
    CU(cudaMemcpyAsync(
        g->old, labels, (size_t)p->count * sizeof *labels, cudaMemcpyHostToDevice, g->compute));
    CU(fkm_distances_to(g->distances, &rows, g->old, g->c.master, g->compute));
    FKM_TRY(free_buffer(g, buffer, e));
    CU(cudaMemcpyAsync(
        out, g->distances, (size_t)p->count * sizeof *out, cudaMemcpyDeviceToHost, g->compute));
    CU(cudaStreamSynchronize(g->compute));
    return FKM_OK;
}

fkm_status fkm_gpu_nearest(fkm_gpu *g, fkm_piece *p, uint32_t frame, const void *x, int32_t top,
    int32_t *labels, double *distances, fkm_err *e)
{
    fkm_nearest_args a = g->nearest;
    fkm_packed_rows packed;
    int buffer;
    FKM_TRY(fkm_gpu_use(g, e));
    FKM_TRY(bring_rows(g, p, x, &a.rows, &buffer, e));
    FKM_TRY(pack_piece(g, p, &a.rows, frame, &packed, e));
    a.frame = g->frame;
    a.c = g->c;
    a.norm = packed.norm;
    a.residual = packed.residual;
    a.kappa = (float)(fkm_kappa(g->plan.dims) * FKM_HIGHER_ORDER);
    a.top = top;
    a.labels = g->labels;
    a.distances = g->distances;
    a.counts = &g->tally->counts;
    CU(fkm_nearest(&a, g->compute));
    FKM_TRY(free_buffer(g, buffer, e));
    size_t cells = (size_t)p->count * (size_t)top;
    CU(cudaMemcpyAsync(
        labels, g->labels, cells * sizeof *labels, cudaMemcpyDeviceToHost, g->compute));
    CU(cudaMemcpyAsync(
        distances, g->distances, cells * sizeof *distances, cudaMemcpyDeviceToHost, g->compute));
    CU(cudaStreamSynchronize(g->compute));
    return FKM_OK;
}
