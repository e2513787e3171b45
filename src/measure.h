/* Measuring, for `fkm bench`: what the machine can do at best, and what fkm does on made-up data.
 *
 * Every figure is a median of at least five samples after a warm-up, with its range. The labels of
 * a shape are checked against the definition before any figure of it is returned. */
#ifndef FKM_MEASURE_H
#define FKM_MEASURE_H

#include "backend.h"
#include "fkm.h"

#define FKM_MEASURE_SAMPLES 5

typedef struct fkm_spread {
    double median, low, high;
} fkm_spread;

typedef struct fkm_measure_options {
    fkm_machine machine;
    bool quick;    /* shorter samples, smaller memory and files: for a first look, and for tests */
    uint64_t seed; /* of data and centroids */
} fkm_measure_options;

/* What the options came to, and the ceilings that speeds are compared with. */
typedef struct fkm_measure {
    const fkm_backend_ops *ops;
    const char *devices;
    fkm_measure_options o;
    int32_t threads;
    int64_t memory_bytes;
    fkm_gpu_info gpus[FKM_MOST_GPUS]; /* in use */
    int32_t gpu_count;
    double assign_ceiling, update_ceiling; /* flop/s, bytes/s; 0: not measured (yet) */
    double assign_bytes_ceiling;           /* flop/s, of rows of 8-bit integers; 0: as others */
    double one_thread;                     /* best of the last ceiling with one thread, */
    const char *one_thread_name;           /* and its name */
} fkm_measure;

/* FKM_EUSAGE, FKM_EDEVICE. Holds nothing. */
fkm_status fkm_measure_begin(
    fkm_measure *out, const fkm_measure_options *o, fkm_err *e) FKM_MUST_USE;

/* ---- the machine ---- */

typedef struct fkm_rate {
    const char *name; /* static; NULL: there is no such rate */
    const char *isa;  /* of arithmetic; NULL: memory and files */
    int32_t threads;
    bool in_bytes; /* bytes per second, else flop per second */
    fkm_spread per_second;
    double
        best;   /* what the machine can do: the highest sample, and never less than of one thread */
    bool noisy; /* samples are far from the best: other work was running */
} fkm_rate;

/* The i-th ceiling of the device, from 0; out->name is NULL after the last. Those that bound a part
 * of fkm are noted in m. FKM_ENOMEM. */
fkm_status fkm_measure_ceiling(fkm_rate *out, fkm_measure *m, int i, fkm_err *e) FKM_MUST_USE;

/* Reading a file from its beginning, at most 1 GiB of it: out[0] after the kernel was asked to drop
 * it from its cache (it may refuse), out[1] from the cache. path NULL: a temporary file of at most
 * 256 MiB in `directory`, which no longer has a name while it is read. *bytes: read in a sample.
 * FKM_EFILE; FKM_EDATA: the file is empty. */
fkm_status fkm_measure_file(fkm_rate out[2], int64_t *bytes, const fkm_measure *m, const char *path,
    const char *directory, fkm_err *e) FKM_MUST_USE;

/* ---- fkm ---- */

typedef struct fkm_bench_shape {
    int64_t rows;
    int32_t dims, clusters; /* clusters <= rows */
    fkm_dtype dtype;        /* FKM_F32, FKM_F16, FKM_BF16 or FKM_U8 */
    bool decaying;          /* coordinate t is scaled by 1 / sqrt(1 + t / 8), else all are alike */
    int32_t batch;          /* problems of this shape, side by side as a fit has them; 1: one */
} fkm_bench_shape;

/* Of a pass that the clock is read at: the whole iteration, labelling, all that is not labelling,
 * and of that adding rows to sums alone. */
typedef enum fkm_part { FKM_ITERATION, FKM_ASSIGN, FKM_UPDATE, FKM_SUMS, FKM_PARTS } fkm_part;

typedef struct fkm_speed {
    fkm_bench_shape shape;
    const char *isa;
    int64_t needed_bytes;
    bool skipped;         /* needed_bytes are more than the memory allowed: nothing below is set */
    int64_t checked_rows; /* labels held against the definition; all of them right */
    int32_t side_by_side; /* problems; 1 unless it is a batch */
    double flop;          /* 2 rows dims clusters: of the definition, whatever was computed */
    int64_t bytes;        /* of all rows */
    double first_s;       /* the first iteration, without labels to start from */
    fkm_spread warm[FKM_PARTS]; /* seconds; zeros: not known apart */
    /* Likewise of passes that know nothing of earlier ones: no labels to start from, no bounds, all
     * rows summed. Rows and whatever is derived from them alone are where they were. */
    fkm_spread cold[FKM_PARTS];
    double candidates_per_row; /* in the last iteration */
    double settled_by_bounds;  /* part of the rows, in the last iteration */
} fkm_speed;

/* Lloyd's iteration on overlapping blobs, in memory, fed to the backend as a fit feeds it: chunks,
 * pinned memory and labels that stay with the backend as there. Two iterations to warm up, then one
 * a sample; then cold ones. Of a batch an iteration is one of every problem: as many as run side by
 * side make some each, which is scaled to all; they have the same rows and other first centroids.
 * FKM_EBUG when a label is wrong; FKM_ENOMEM. */
fkm_status fkm_measure_shape(
    fkm_speed *out, const fkm_measure *m, const fkm_bench_shape *shape, fkm_err *e) FKM_MUST_USE;

/* ---- parts, for tests ---- */

fkm_spread fkm_spread_of(const double *samples, int32_t count); /* count >= 1 */

/* Rows [row0, row0 + rows) of the made-up data of a shape, as many blobs as clusters; x:
 * [rows][dims]. */
void fkm_make_blobs(
    void *x, const fkm_bench_shape *shape, int64_t row0, int64_t rows, uint64_t seed);

/* Holds the labels of `sample` rows, evenly spread, against the argmin of the canonical distance to
 * c: [clusters][dims]. Returns the first row whose label is another, or -1; *nearest: what it
 * should be. row: [dims], room to work in. */
int64_t fkm_find_wrong_label(int32_t *nearest, const fkm_bench_shape *shape, const void *x,
    const float *c, const int32_t *labels, int64_t sample, double *row);

#endif
