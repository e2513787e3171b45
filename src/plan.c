/* One plan before the work: see plan.h. Every large allocation of a run is counted here. */
#include "plan.h"

#include "base/checked.h"
#include "base/direct.h"
#include "base/mem.h"
#include "base/sysinfo.h"
#include "checksums.h"

#include <stdio.h>
#include <string.h>

#define RING_CHUNKS 3 /* one computed, one ready, one being read */
#define RING_CHUNK_BYTES ((int64_t)64 << 20)
#define RING_CHUNK_MIN_BYTES ((int64_t)64 << 10)
/* Smaller chunks are dearer than bounds are worth. */
#define RING_CHUNK_FAIR_BYTES ((int64_t)4 << 20)
/* Code, stacks, page tables and small change that the plan does not count. */
#define UNPLANNED_BYTES ((int64_t)16 << 20)

/* Of the backend that passes of seeding go through: over the rows, or over candidates in memory. */
static fkm_plan seed_plan(const fkm_plan *backend, const fkm_plan_request *r, bool candidates)
{
    fkm_plan plan = *backend;
    plan.clusters = r->seed_clusters;
    plan.update = plan.wide = plan.keep = plan.bounds = false;
    if (candidates)
        plan.dtype = FKM_F32;
    return plan;
}

static int64_t seed_backend_bytes(const fkm_plan *backend, const fkm_plan_request *r)
{
    if (r->seed_clusters == 0)
        return 0;
    fkm_plan rows = seed_plan(backend, r, false), candidates = seed_plan(backend, r, true);
    return fkm_max_i64(r->ops->bytes(&rows), r->ops->bytes(&candidates));
}

/* Bytes of the whole run with chunks of so many rows; fills the plans' parts. */
static int64_t total_bytes(
    fkm_run_plan *run, fkm_plan *backend, const fkm_plan_request *r, bool resident, int64_t chunk)
{
    const fkm_shape *shape = r->shape;
    run->resident = resident;
    run->ring_chunks = resident ? 0 : RING_CHUNKS;
    run->chunk_rows = backend->chunk_rows = chunk;
    int64_t row = fkm_mul_sat(shape->dims, (int64_t)fkm_dtype_size(shape->dtype));
    int64_t slot = fkm_add_sat(fkm_mul_sat(row, chunk), FKM_DIRECT_ALIGNMENT);
    int64_t rows = resident ? fkm_mul_sat(row, shape->rows) : fkm_mul_sat(RING_CHUNKS, slot);
    int64_t of_backend = fkm_add_sat(r->ops->bytes(backend), seed_backend_bytes(backend, r));
    int64_t of_lane = fkm_add_sat(r->lane_bytes, fkm_mul_sat(chunk, r->bytes_per_row));
    run->rows_bytes = fkm_mul_sat(run->lanes, rows);
    run->backend_bytes = fkm_mul_sat(run->lanes, of_backend);
    run->result_bytes = fkm_add_sat(r->result_bytes, fkm_mul_sat(run->lanes, of_lane));
    run->labels_bytes = r->labels_bytes;
    int64_t total = fkm_add_sat(run->rows_bytes, run->backend_bytes);
    total = fkm_add_sat(total, fkm_add_sat(run->result_bytes, run->labels_bytes));
    return run->planned_bytes = total;
}

/* One problem at a time, with all there is. */
static void take_all(fkm_run_plan *run, fkm_plan *backend, const fkm_plan_request *r)
{
    run->lanes = 1;
    run->lane_gpus = false;
    run->lane_threads = backend->threads = run->threads;
    backend->device_bytes = r->machine->gpu_memory_bytes;
}

/* Problems side by side, as many as are worth it and have room; false: not even one has. Rows stay,
 * as does what `backend` keeps. */
static fkm_status fit_lanes(bool *fits, fkm_run_plan *run, fkm_plan *backend,
    const fkm_plan_request *r, int64_t limit, int64_t chunk, fkm_err *e)
{
    fkm_sharing sharing;
    for (int32_t most = r->most_lanes; most > 1; most = sharing.lanes - 1) {
        take_all(run, backend, r);
        backend->chunk_rows = chunk;
        fkm_plan seed = seed_plan(backend, r, true); /* longer than rows ever are */
        FKM_TRY(r->ops->share(
            &sharing, backend, r->seed_clusters > 0 ? &seed : NULL, r->shape->batch, most, e));
        if (sharing.lanes == 1)
            break;
        run->lanes = sharing.lanes;
        run->lane_gpus = sharing.one_device_each;
        run->lane_threads = backend->threads = sharing.threads;
        if (sharing.device_bytes > 0)
            backend->device_bytes = sharing.device_bytes;
        *fits = total_bytes(run, backend, r, true, chunk) <= limit;
        if (*fits)
            return FKM_OK;
    }
    take_all(run, backend, r);
    *fits = total_bytes(run, backend, r, true, chunk) <= limit;
    return FKM_OK;
}

/* Chunks of more than a block of checksums are of whole ones: each may be left out of a pass. */
static int64_t in_blocks(const fkm_shape *shape, int64_t chunk)
{
    const int64_t block = fkm_checksums_block_rows(shape);
    return block < chunk && chunk < shape->rows ? chunk - chunk % block : chunk;
}

/* A ring of chunks as large as they may be; false: not even those of `least` bytes fit. */
static bool fit_ring(
    fkm_run_plan *run, fkm_plan *backend, const fkm_plan_request *r, int64_t limit, int64_t least)
{
    const fkm_shape *shape = r->shape;
    int64_t row = fkm_max_i64(1, (int64_t)shape->dims * (int64_t)fkm_dtype_size(shape->dtype));
    least = fkm_max_i64(1, fkm_min_i64(shape->rows, least / row));
    int64_t chunk = fkm_max_i64(least, fkm_min_i64(shape->rows, RING_CHUNK_BYTES / row));
    chunk = in_blocks(shape, fkm_min_i64(chunk, INT32_MAX / 2)); /* row indices are int32 */
    while (total_bytes(run, backend, r, false, chunk) > limit && chunk > least)
        chunk = in_blocks(shape, fkm_max_i64(least, chunk / 2));
    return run->planned_bytes <= limit;
}

/* limit: bytes that the plan may take; room: those that the machine or the group has for it. */
static fkm_status does_not_fit(
    const fkm_run_plan *run, const fkm_plan_request *r, int64_t limit, int64_t room, fkm_err *e)
{
    char text[6][32];
    const char *who = limit == room              ? "what is available, less 16 MiB, is"
                      : r->machine->memory_bytes ? "--memory allows"
                                                 : "half of the available memory is";
    fkm_fail(e, FKM_ENOMEM,
        "needs at least %s, %s %s (rows in flight %s, labels %s, centroids and sums %s, results "
        "and "
        "buffers %s)",
        fkm_bytes_text(text[0], 32, run->planned_bytes), who, fkm_bytes_text(text[1], 32, limit),
        fkm_bytes_text(text[2], 32, run->rows_bytes),
        fkm_bytes_text(text[3], 32, run->labels_bytes),
        fkm_bytes_text(text[4], 32, run->backend_bytes),
        fkm_bytes_text(text[5], 32, run->result_bytes));
    if (limit == room)
        return fkm_hint(e, "raise the limit of the process or its cgroup, end other programs, or "
                           "use fewer clusters or fewer --threads");
    return fkm_hint(e, "give --memory %lldM or more, fewer clusters, or fewer --threads",
        (long long)(run->planned_bytes / (1 << 20) + 1));
}

fkm_status fkm_plan_make(
    fkm_run_plan *run, fkm_plan *backend, const fkm_plan_request *r, fkm_err *e)
{
    const fkm_shape *shape = r->shape;
    int64_t available = fkm_memory_available();
    memset(run, 0, sizeof *run);
    run->backend = r->ops->name;
    if (r->ops->gpus)
        FKM_TRY(r->ops->gpus(run->gpus, &run->gpu_count, r->devices, e));
    run->threads = r->machine->threads > 0 ? r->machine->threads : fkm_cpu_count();
    run->memory_limit_bytes =
        r->machine->memory_bytes > 0 ? r->machine->memory_bytes : available / 2;
    run->read_bytes_per_pass = fkm_mul_sat(shape->rows, r->row_read_bytes);
    *backend = (fkm_plan){
        .rows = shape->rows,
        .dims = shape->dims,
        .clusters = r->clusters,
        .dtype = shape->dtype,
        .update = r->update,
        .wide = r->wide,
        .top = r->top,
        .threads = run->threads,
        .isa = r->machine->isa,
        .devices = r->devices,
        .device_bytes = r->machine->gpu_memory_bytes,
        .leave_room = r->seed_clusters > 0,
    };
    int64_t room = fkm_max_i64(0, available - UNPLANNED_BYTES);
    int64_t limit = fkm_min_i64(run->memory_limit_bytes, room);
    int64_t chunk = fkm_min_i64(shape->rows, r->ops->chunk_rows);
    bool fits = false;
    for (int extras = 2; extras >= 0 && r->may_stay && !fits; extras--) {
        backend->keep = extras == 2;
        backend->bounds = extras > 0 && r->update;
        FKM_TRY(fit_lanes(&fits, run, backend, r, limit, chunk, e));
    }
    if (fits)
        return FKM_OK;
    take_all(run, backend, r);
    backend->bounds = r->may_stay && r->update;
    if (backend->bounds && !fit_ring(run, backend, r, limit, RING_CHUNK_FAIR_BYTES))
        backend->bounds = false;
    if (!backend->bounds)
        (void)fit_ring(run, backend, r, limit, RING_CHUNK_MIN_BYTES);
    return run->planned_bytes <= limit ? FKM_OK : does_not_fit(run, r, limit, room, e);
}

void fkm_plan_of_lane(fkm_plan *backend, char device[16], const fkm_run_plan *run, int32_t lane)
{
    if (!run->lane_gpus)
        return;
    snprintf(device, 16, "%d", (int)run->gpus[lane % run->gpu_count].device);
    backend->devices = device;
}
