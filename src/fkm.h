/* fkm for its commands: cluster a data set, label rows, scan a file.
 *
 * What cmd/ sees of src/. Units: rows, dims, bytes, seconds (names say which). Nothing here prints
 * to stdout, exits, or reads argv or the environment. */
#ifndef FKM_H
#define FKM_H

#include "../formats/reader.h"
#include "base/status.h"
#include "base/sysinfo.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define FKM_VERSION "0.1.0"

#define FKM_MAX_CLUSTERS INT32_C(0x7ffffff0) /* labels are int32 */
#define FKM_MAX_DIMS (1 << 20)               /* the screening bounds assume dims * 2^-24 < 1/8 */
#define FKM_MAX_TOP 1024                     /* predict --top */

/* ---- options ---- */

/* Where to run; zero values mean "choose". */
typedef struct fkm_machine {
    const char *device;       /* "auto" (or NULL), "cpu", "cuda", "cuda:0,2" */
    int32_t threads;          /* 0: what affinity and cgroup allow */
    int64_t memory_bytes;     /* promise for the peak resident set; 0: half of what is available */
    const char *isa;          /* NULL: the best of this CPU, or of this GPU */
    int64_t gpu_memory_bytes; /* most memory of each GPU; 0: nearly all that is free */
} fkm_machine;

typedef enum fkm_empty_policy {
    FKM_EMPTY_FARTHEST,
    FKM_EMPTY_KEEP,
    FKM_EMPTY_ERROR
} fkm_empty_policy;

/* How the first centroids are drawn: see seed.h. */
typedef enum fkm_init_method {
    FKM_INIT_RANDOM,
    FKM_INIT_PLUSPLUS,
    FKM_INIT_PARALLEL
} fkm_init_method;

/* Keeping the state of a run on disk, so that a later run with the same options goes on from it and
 * gives the same bits. */
typedef struct fkm_saving {
    const char *path; /* of the checkpoint; the run resumes when it is there */
    double every_s;   /* saved between two iterations, as soon as so much time has passed */
    bool fresh;       /* a checkpoint that is there is removed instead */
    bool discard; /* one of other data, options or version is removed, and the run begins anew */

    /* What came of it; filled by fkm_fit, also when it fails. */
    bool kept;       /* a later run can go on from what is at path */
    bool refused;    /* it could not be gone on from: of another run, or damaged */
    int32_t resumes; /* how often the run has been resumed, this time included */
    int32_t problem, restart, iteration; /* where it was resumed */
    int32_t advanced;                    /* iterations that were completed since */
    int32_t saves;                       /* states written */
    bool failed;                         /* one was not written; said in a warning */
    double save_s;                       /* spent on it */
    double earlier_s;                    /* what the run had taken before it was resumed */
} fkm_saving;

typedef struct fkm_fit_options {
    int32_t clusters; /* k */
    int32_t max_iter; /* >= 1 */
    double tol;       /* stop when the relative decrease of inertia is below; 0: fixpoint only */
    uint64_t seed;
    int32_t restarts; /* >= 1: solved with seed, seed + 1, ...; the best is kept */
    fkm_init_method method;
    const float *init; /* [k][dims], or [batch][k][dims] when init_batch; NULL: by the method */
    bool init_batch;
    void (*init_read)(void *init_arg); /* init will not be read again, and may be freed: called at
                                          most once, from any thread; NULL: no need to know */
    void *init_arg;
    fkm_empty_policy empty;
    bool skip_nan;      /* rows with NaN or Inf get label -1 and take no part; else FKM_EDATA */
    bool no_labels;     /* the caller does not want labels (memory is needed all the same) */
    fkm_saving *saving; /* NULL: the state is not kept */
    fkm_machine machine;
} fkm_fit_options;

/* Defaults: k 0 (required), max_iter 100, tol 1e-4, seed 0, one start, random, farthest. */
void fkm_fit_options_default(fkm_fit_options *o);

/* ---- what is told while it runs ---- */

#define FKM_USUAL_ITERATIONS 4096 /* no problem is planned to need more */

typedef struct fkm_iteration {
    int32_t restart;  /* from 0 */
    int32_t problem;  /* which of a batch */
    int32_t i;        /* from 1 */
    double inertia;   /* of this assignment, against the centroids it was made with */
    int64_t moved;    /* rows whose label changed; all rows in iteration 1 */
    double max_shift; /* largest Euclidean movement of a centroid afterwards; 0 when not moved */
    double seconds, read_wait_s;
    int32_t empty;    /* clusters without rows in this assignment */
    int32_t reseeded; /* of these, given a row (policy farthest) */
} fkm_iteration;

/* All values resolved, no "auto" left. */
typedef struct fkm_run_plan {
    const char *backend, *isa; /* static strings: "cpu", "avx512" */
    int32_t threads;
    int32_t lanes;        /* problems of a batch that are at work side by side; 1: one at a time */
    int32_t lane_threads; /* of each */
    bool lane_gpus;       /* each has one of the GPUs, in turn; else all have all */
    bool resident;        /* rows are read once and kept */
    int64_t chunk_rows, ring_chunks;
    int64_t memory_limit_bytes, planned_bytes;                     /* of the whole process */
    int64_t rows_bytes, labels_bytes, backend_bytes, result_bytes; /* its parts */
    int64_t read_bytes_per_pass;                                   /* from storage */
    fkm_gpu_info gpus[FKM_MOST_GPUS];                              /* in use */
    int32_t gpu_count;
} fkm_run_plan;

typedef struct fkm_progress {
    int32_t restart;                      /* from 0 */
    int32_t problem, iteration, max_iter; /* iteration -1: reading rows into memory; 0: seeding;
                                           * max_iter + 1: final labels */
    int64_t rows_done, rows_total;        /* of this pass */
    int64_t bytes_read;                   /* from storage so far, all passes */
    double elapsed_s;
    const fkm_iteration *last;   /* the last complete one of this start, or NULL */
    const fkm_iteration *before; /* the one before it, or NULL */
} fkm_progress;

/* Callbacks may be NULL; never two at once, on any thread. *stop is polled between chunks, and on
 * CPUs within them: when it is nonzero the run ends with FKM_ESTOPPED. stop may be NULL. */
typedef struct fkm_observer {
    void *arg;
    void (*planned)(void *arg, const fkm_run_plan *plan);
    void (*progress)(void *arg, const fkm_progress *p);
    void (*iterated)(void *arg, const fkm_iteration *it, const fkm_iteration *before); /* or NULL */
    void (*resumed)(void *arg, const fkm_saving *s);
    const atomic_int *stop;
} fkm_observer;

/* ---- results ---- */

typedef struct fkm_problem_result {
    int32_t iterations;
    bool converged; /* by tol or fixpoint; false: max_iter was reached */
    double inertia; /* of the labels returned, against the centroids returned */
    int64_t rows_used, rows_skipped, moved_last;
    int32_t empty;    /* clusters without rows at the end */
    int64_t reseeded; /* clusters that were given a row, over all iterations */
    int64_t size_min, size_median, size_max; /* rows a cluster (lower median) */
    double imbalance;                        /* k * sum(n_j^2) / n^2 */
} fkm_problem_result;

/* One start of a problem. */
typedef struct fkm_restart {
    uint64_t seed;
    double inertia; /* at its end */
    int32_t iterations;
    bool converged;
} fkm_restart;

typedef struct fkm_screening {
    int64_t rows_screened; /* row passes */
    int64_t rows_in_doubt; /* of these, with more than one candidate */
    int64_t candidates;    /* candidates over all row passes */
    int64_t rescans;       /* candidate list overflowed: the row was screened again */
    int64_t rows_skipped_by_bounds;
} fkm_screening;

typedef struct fkm_run_stats {
    fkm_run_plan plan;
    fkm_screening screening;
    double total_s, init_s, read_wait_s, compute_s;
    int64_t bytes_read;             /* from storage */
    int64_t distances;              /* row x centroid pairs that were decided */
    int64_t flop;                   /* 2 * dims per pair */
    int64_t passes, graph_launches; /* of fit: all passes; those that were launched as graphs */
    int64_t gpu_peak_bytes;         /* most device memory at once on any one GPU; 0: without GPUs */
} fkm_run_stats;

typedef struct fkm_result {
    int64_t batch, rows; /* rows of each problem */
    int32_t clusters, dims;
    float *centroids;             /* [batch][clusters][dims] */
    int32_t *labels;              /* [batch][rows]; -1: skipped */
    int64_t *counts;              /* [batch][clusters] */
    fkm_problem_result *problems; /* [batch]: of the best start: least inertia, then lowest seed */
    fkm_restart *restarts;        /* [batch][restart_count] */
    int32_t restart_count;
    fkm_iteration *iterations; /* [iteration_count], all problems in order, best starts only */
    int32_t iteration_count;
    fkm_run_stats run;
    char *key; /* what the run was of, for fkm_fit_keep; NULL without saving, as is the next */
    struct fkm_checksums *checksums; /* of the rows */
} fkm_result;

/* Frees the fields; safe on zeroed and half-built results. */
void fkm_result_free(fkm_result *r);

/* Clusters all rows of `in`. The same input and options give the same bits of centroids, labels and
 * inertia for every machine setting. FKM_EDATA (k > rows, NaN, an outlier beyond 128-bit sums),
 * FKM_ENOMEM (the plan does not fit: sizes are named, nothing was computed), FKM_EFILE,
 * FKM_EDEVICE, FKM_ESTOPPED. With o->saving the state is kept on disk: from time to time, and when
 * the run ends by FKM_ESTOPPED, FKM_EFILE, FKM_EDEVICE or FKM_ENOMEM. Removing it after success is
 * the caller's affair. After FKM_ESTOPPED with a state that is kept, *out tells how far the run
 * got, for reports: iterations, and of problems what is known, with -1 and NaN for the rest; the
 * caller frees it. */
fkm_status fkm_fit(fkm_result *out, fkm_reader *in, const fkm_fit_options *o, const fkm_observer *w,
    fkm_err *e) FKM_MUST_USE;

/* Can there be such a fit of such data? fkm_fit asks, too; to be told before outputs are looked at.
 * FKM_EUSAGE, FKM_EDATA. */
fkm_status fkm_fit_check(const fkm_fit_options *o, const fkm_shape *shape, fkm_err *e) FKM_MUST_USE;

/* *out = everything that decides the bits of a fit, as text: the same text, the same result.
 * fkm_free. */
fkm_status fkm_fit_key(
    char **out, const fkm_fit_options *o, const fkm_reader *in, fkm_err *e) FKM_MUST_USE;

/* Iterations are kept of so many problems of a batch, the first ones: of all, in a batch where they
 * cannot be more than a quarter of a million. */
int64_t fkm_problems_listed(const fkm_fit_options *o, int64_t batch);

/* Bytes of the file at o->saving->path, at most, for checks of space. */
int64_t fkm_fit_state_bytes(const fkm_fit_options *o, const fkm_shape *shape);

/* Keeps the result of fkm_fit at o->saving->path, when it could not be written: the same fkm_fit
 * then returns it at once. o->init is not read. FKM_EFILE. */
fkm_status fkm_fit_keep(
    fkm_result *r, fkm_reader *in, const fkm_fit_options *o, fkm_err *e) FKM_MUST_USE;

/* ---- predict ---- */

typedef struct fkm_predict_options {
    const float *centroids; /* [clusters][dims], or [batch][clusters][dims] when centroids_batch */
    bool centroids_batch;
    int32_t clusters, dims;
    int32_t top;    /* nearest centroids a row, >= 1, <= clusters */
    bool distances; /* wanted: canonical squared distances */
    bool skip_nan;  /* rows with NaN or Inf get label -1, distance NaN; else FKM_EDATA */
    fkm_machine machine;
} fkm_predict_options;

/* Takes labels[count][top] (nearest first, ties to the lowest index) and distances[count][top]
 * (NULL unless wanted), for rows in increasing order. Borrowed for the call. */
typedef fkm_status (*fkm_label_sink)(void *arg, int64_t row0, int64_t count, const int32_t *labels,
    const double *distances, fkm_err *e);

/* Labels all rows of `in` in one pass. Statuses as fkm_fit; *run may be NULL. */
fkm_status fkm_predict(fkm_reader *in, const fkm_predict_options *o, fkm_label_sink sink,
    void *sink_arg, const fkm_observer *w, fkm_run_stats *run, fkm_err *e) FKM_MUST_USE;

/* ---- scan: what is in the data ---- */

typedef struct fkm_scan {
    int64_t rows;
    int64_t values; /* in rows without NaN or Inf; what follows is about these */
    float min, max; /* +inf and -inf when there are none */
    double mean;    /* rounded, for people */
    int64_t zeros;
    int64_t nans, infinities, rows_not_finite; /* of the other rows */
    int64_t bad_row;                           /* first row with NaN or Inf; -1: none */
    int32_t bad_column;
    float bad_value;
    int64_t top_row; /* where |value| is largest */
    int32_t top_column;
    int64_t exponents[320]; /* nonzero finite values by frexp exponent + 160 */
    int64_t tops[320];      /* rows, likewise by their largest |value|, unless that is zero */
} fkm_scan;

void fkm_scan_init(fkm_scan *s);

/* Adds rows [row0, row0 + count) at x: [count][dims] of an in-memory type. */
void fkm_scan_add(
    fkm_scan *s, const void *x, fkm_dtype dtype, int64_t row0, int64_t count, int32_t dims);
void fkm_scan_merge(fkm_scan *s, const fkm_scan *other);

/* Scans the whole data set in bounded memory. FKM_EDATA and FKM_EFILE from the reader,
 * FKM_ESTOPPED. NaN and Inf are counted, not errors. */
fkm_status fkm_scan_file(
    fkm_scan *out, fkm_reader *in, const fkm_observer *w, fkm_err *e) FKM_MUST_USE;

/* ---- CPU paths ---- */

/* The i-th name that --isa takes, best first, what is only taken by name last, with whether this
 * CPU can run it; NULL at the end. */
const char *fkm_isa_name(int i, bool *usable);

/* The i-th name that --isa takes for a GPU (an element type of screening); NULL at the end, or when
 * built without CUDA. */
const char *fkm_gpu_isa_name(int i);

#endif
