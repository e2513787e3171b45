/* One plan before the work: what stays in memory, how large a chunk is, and whether it fits. */
#ifndef FKM_PLAN_H
#define FKM_PLAN_H

#include "backend.h"
#include "fkm.h"

typedef struct fkm_plan_request {
    const fkm_backend_ops *ops;
    const char *devices;
    const fkm_machine *machine;
    const fkm_shape *shape;
    int64_t row_read_bytes; /* fkm_reader_row_bytes */
    int32_t clusters, top;
    int32_t seed_clusters; /* of a second backend while first centroids are chosen; 0: none */
    bool update, wide;     /* see fkm_plan in backend.h */
    bool may_stay;         /* rows are used more than once, so keeping them helps */
    int64_t labels_bytes, result_bytes; /* of the whole run */
    int64_t lane_bytes;                 /* of each problem at work, beside the rows */
    int32_t most_lanes;                 /* problems that may be at work side by side, >= 1 */
    int64_t bytes_per_row;              /* buffers beside the rows of a chunk */
} fkm_plan_request;

/* Fills both plans; `backend` is of one lane, but for its device: see fkm_plan_of_lane. FKM_ENOMEM:
 * does not fit --memory; says what needs how much. */
fkm_status fkm_plan_make(
    fkm_run_plan *run, fkm_plan *backend, const fkm_plan_request *r, fkm_err *e) FKM_MUST_USE;

/* Makes *backend, which fkm_plan_make has filled, that of lane `lane`. device: room for the name of
 * its GPU; in use as long as the plan is. */
void fkm_plan_of_lane(fkm_plan *backend, char device[16], const fkm_run_plan *run, int32_t lane);

#endif
