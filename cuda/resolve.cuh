/* What screening leaves: rows in doubt and rows to rescan; and distances and nearest lists asked
 * for by the caller. Everything here ends in the canonical distance. */
#ifndef FKM_RESOLVE_CUH
#define FKM_RESOLVE_CUH

#include "pack.cuh"

struct fkm_resolve_args {
    fkm_device_rows rows;
    fkm_frame frame;
    fkm_centroid_tables c;
    const float *norm, *residual; /* [rows]: of the packed rows */
    float *floor;      /* [rows]: of rows in doubt and to rescan, in units of the score; out: with
                          `second`, of rows in doubt, what candidates have shown in float32 */
    float *second;     /* [rows] as in fkm_assign_args; NULL: not wanted */
    float floor_scale; /* brings them to the frame: 1, or a quantum of int8 */
    float kappa;       /* in the frame */
    const int32_t *old;
    int32_t *labels;
    fkm_screen_counts *counts;
    /* lists as in fkm_assign_args */
    const unsigned *doubt_count;
    const int32_t *doubt_row, *doubt_size, *doubt_position;
    const unsigned *rescan_count;
    const int32_t *rescan_row;
};

/* Labels the rows of both lists. blocks: to launch; the lists are worked off in strides. */
cudaError_t fkm_resolve(const fkm_resolve_args *a, unsigned blocks, cudaStream_t stream);

/* out[i] = canonical squared distance to centroid labels[i], NaN for -1. c: [clusters][dims]. */
cudaError_t fkm_distances_to(double *out, const fkm_device_rows *rows, const int32_t *labels,
    const float *c, cudaStream_t stream);

struct fkm_nearest_args {
    fkm_device_rows rows;
    fkm_frame frame;
    fkm_centroid_tables c;
    const float *norm, *residual; /* [rows] */
    float kappa;
    int32_t top;
    int32_t *labels;   /* [rows][top]; -1 for rows that are not finite */
    double *distances; /* [rows][top]; NaN for them */
    fkm_screen_counts *counts;
    /* scratch of each block: lower bounds, survivors, their distances: [blocks][clusters] */
    float *lower;
    int32_t *survivor;
    double *survivor_distance;
    int32_t blocks;
};

/* The `top` nearest centroids of each row, nearest first, ties to the lowest index. */
cudaError_t fkm_nearest(const fkm_nearest_args *a, cudaStream_t stream);

#endif
