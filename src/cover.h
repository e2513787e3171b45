/* How well the centroids chosen so far cover the rows: each row's distance to the nearest of them.
 *
 * What k-means++ and k-means|| draw from. Distances are canonical, so they are the same bits on
 * every machine, and each pass over the rows goes through a backend: the new centroids only are
 * screened on the matrix units, a row's canonical distance is taken to the nearest of these, and
 * the minimum is kept. */
#ifndef FKM_COVER_H
#define FKM_COVER_H

#include "source.h"

/* What a cover is told. All pointers are borrowed for its life. */
typedef struct fkm_cover_rows {
    fkm_source *source;  /* the rows; or NULL, and */
    const float *values; /* [rows][dims] in memory, finite */
    int64_t rows, chunk_rows;
    int32_t dims;
    fkm_dtype dtype; /* of the source */
} fkm_cover_rows;

typedef struct fkm_cover_env {
    const fkm_backend_ops *ops;
    const fkm_plan *plan;                           /* of the run: threads, isa, devices */
    const fkm_observer *w;                          /* may be NULL; its stop flag is polled */
    void (*progress)(void *arg, int64_t rows_done); /* may be NULL */
    void *arg;
    fkm_run_stats *run; /* distances and screening are added up here */
    bool skip_nan;
    int64_t device_bytes; /* that the run holds meanwhile; see fkm_backend_ops */
} fkm_cover_env;

typedef struct fkm_cover {
    fkm_cover_rows of;
    const fkm_cover_env *env;
    double *distance; /* [rows]: to the nearest centroid; 0 for rows that are not finite */
    int32_t
        *nearest;  /* [rows]: which centroid, ties to the lowest; -1 for rows that are not finite */
    int32_t count; /* centroids added so far */
    bool not_finite;        /* a pass ended because of NaN or Inf */
    double *chunk_distance; /* [chunk_rows] */
    int32_t *chunk_label;
} fkm_cover;

/* Bytes that open allocates: these, and so many for each row of a chunk. */
#define FKM_COVER_BYTES_PER_ROW ((int64_t)(sizeof(double) + sizeof(int32_t)))
int64_t fkm_cover_bytes(int64_t rows);

/* nearest: [rows], the caller's, in use until close. No centroid yet: all distances infinite. */
fkm_status fkm_cover_open(fkm_cover *v, const fkm_cover_rows *of, int32_t *nearest,
    const fkm_cover_env *env, fkm_err *e) FKM_MUST_USE;
void fkm_cover_close(fkm_cover *v); /* safe on zeroed structs */

/* Adds c: [count][dims], count >= 1, in one pass over the rows. Rows with NaN or Inf: FKM_EDATA
 * with not_finite set, at the end of the pass, unless skip_nan. What the backend returns;
 * FKM_ESTOPPED. */
fkm_status fkm_cover_add(fkm_cover *v, const float *c, int32_t count, fkm_err *e) FKM_MUST_USE;

/* Copies row `row` as float32. */
fkm_status fkm_cover_row(fkm_cover *v, int64_t row, float *out, fkm_err *e) FKM_MUST_USE;

/* FKM_ESTOPPED when the run is to end. */
fkm_status fkm_cover_stop(const fkm_cover *v, fkm_err *e) FKM_MUST_USE;

#endif
