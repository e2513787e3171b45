/* What a device must do for k-means: the interface that the CPU and the CUDA backend implement.
 *
 * Calls are coarse (a few per chunk of rows), so an indirect call costs nothing. The order of a
 * run:
 *
 *   bytes -> open -> for each problem: reset, set_centroids, { set_scale } ->
 *     each pass: begin -> feed (every chunk, in any order, each row once) -> end -> [move]
 *   -> get_centroids -> close
 *
 * The contract (CONTRIBUTING.md): labels are the argmin of the canonical distance, ties to the
 * lowest index; sums are integers; therefore every implementation gives the same bits for labels,
 * counts, sums, centroids and inertia, for every split into chunks and threads. How a backend gets
 * there (screening type, tiles, bounds) is its own business, as long as it is proved.
 *
 * One thread per backend. After FKM_EDEVICE a backend can only be closed. */
#ifndef FKM_BACKEND_H
#define FKM_BACKEND_H

#include "base/dtype.h"
#include "base/status.h"
#include "base/sysinfo.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Everything that fixes allocations. All values resolved, no "auto" left. */
typedef struct fkm_plan {
    int64_t rows;       /* rows of one problem */
    int64_t chunk_rows; /* most rows in one feed */
    int32_t dims, clusters;
    fkm_dtype dtype; /* in-memory type of the rows */
    bool keep;       /* the rows of a problem are fed every pass from the same memory, in the same
                        chunks, and there is room for the backend's own copies beside them. They
                        stay as they are from their first feed until reset or close, so that a
                        backend may read them at any time, ahead of the next pass too */
    bool bounds;     /* there is room for what tells which rows keep their labels, see `settles` */
    bool update;     /* fit: sums are needed; predict: not */
    bool wide;       /* room for 128-bit sums (set when set_scale may ask for them) */
    int32_t top;     /* most nearest centroids a row that `nearest` is asked for; 1: none */
    int32_t threads;
    const char *isa;      /* CPU path, or the GPU's type of screening; NULL: best */
    const char *devices;  /* cuda: "0,2", NULL: all; cpu ignores it */
    int64_t device_bytes; /* cuda: most memory of each GPU; 0: nearly all that is free */
    bool leave_room;      /* another one, for seeding, is opened beside it: leaves a share of the
                             device's memory to it */
    const void *stop;     /* polled, see base/stop.h: once it is set feed, distances and nearest may
                             end early with FKM_ESTOPPED, some of their rows done and others not */
} fkm_plan;

/* How problems of a batch are worked on side by side, each by a backend of its own. */
typedef struct fkm_sharing {
    int32_t lanes;        /* at a time; 1: one after the other, each with all there is */
    int32_t threads;      /* of each */
    bool one_device_each; /* the i-th has the i-th of the devices, in turn; else each has all */
    int64_t device_bytes; /* of each, on each of its devices; 0: as planned */
} fkm_sharing;

/* Rows in host memory, [count][dims] of plan.dtype, tightly packed. Borrowed until the feed
 * returns; with plan.keep until reset or close. A row index means the same row until reset: a
 * backend may keep what it was fed. */
typedef struct fkm_rows {
    const void *x;
    int64_t row0, count; /* row0: index within the problem */
} fkm_rows;

/* Fixed point of the sums: coordinates are added as rint(x * 2^exponent). */
typedef struct fkm_scale {
    int32_t exponent;
    bool wide;    /* 128-bit integers instead of 64-bit ones */
    int32_t bits; /* no such integer is above 2^bits in magnitude; 0: not known. 64-bit ones only */
} fkm_scale;

typedef struct fkm_pass_options {
    bool update;  /* accumulate sums and counts; move() and inertia need it */
    bool squares; /* also accumulate the constant sum of squares that inertia needs: in the first
                     pass with a new scale; kept until reset or the next such pass */
    bool labels_later; /* labels may stay with the backend until `labels` or `wait` is called */
    bool unlabelled;   /* all labels handed in are -1: a backend need not fetch them. In the first
                          pass after set_scale only */
} fkm_pass_options;

/* What a pass brings back: a few scalars. */
typedef struct fkm_pass {
    int64_t rows;    /* labelled */
    int64_t skipped; /* rows with NaN or Inf: label -1, in no sum */
    int64_t moved;   /* labels that differ from those handed in */
    int32_t empty;   /* clusters without rows (passes with update) */
    double inertia;  /* passes with update: see inertia.h; else 0 */
    int64_t in_doubt, candidates, rescans, skipped_by_bounds; /* see fkm_screening */
    bool as_graph; /* its calls were not made one by one, but launched as a graph of earlier ones */
    double assign_s; /* wall time of labelling, without the update; 0: not known apart */
    double sums_s;   /* likewise of adding rows to sums, and nothing else of the update */
} fkm_pass;

/* ---- for `fkm bench`: what the device can sustain at best ---- */

#define FKM_CEILING_SAMPLES 15

/* The part of fkm that a ceiling is over. */
typedef enum fkm_ceiling_over {
    FKM_OVER_NOTHING,
    FKM_OVER_ASSIGN,
    FKM_OVER_ASSIGN_BYTES, /* of rows of 8-bit integers; without it they are under the former */
    FKM_OVER_UPDATE
} fkm_ceiling_over;

typedef struct fkm_ceiling_options {
    const char *isa; /* as in fkm_plan */
    int32_t threads; /* >= 1 */
    int64_t bytes;   /* memory that may be used */
    double seconds;  /* about so long a sample */
    int32_t samples; /* <= FKM_CEILING_SAMPLES */
} fkm_ceiling_options;

typedef struct fkm_ceiling {
    const char *name; /* "memory read", static; NULL: there is no such ceiling */
    const char *isa;  /* of arithmetic; NULL: memory */
    int32_t threads;
    bool in_bytes;         /* work counts bytes, else floating-point operations */
    fkm_ceiling_over over; /* with all threads only */
    double work;           /* of a sample */
    int32_t samples;
    double seconds[FKM_CEILING_SAMPLES];
} fkm_ceiling;

typedef struct fkm_backend fkm_backend; /* opaque; defined by each implementation */

typedef struct fkm_backend_ops {
    const char *name; /* spelling used by --device */

    /* FKM_OK when the device can be used; else FKM_EDEVICE with the reason, and with a hint if
     * there is one that cannot be used, not none. Cheap. */
    fkm_status (*probe)(const char *devices, fkm_err *e);

    /* The GPUs that open will use: list has room for FKM_MOST_GPUS. FKM_EDEVICE, FKM_EUSAGE, as
     * probe. NULL: uses none. */
    fkm_status (*gpus)(fkm_gpu_info *list, int32_t *count, const char *devices, fkm_err *e);

    /* Most device memory that the process has had allocated at once on any one GPU, so far. NULL:
     * uses none. */
    int64_t (*device_peak)(void);

    /* Host bytes that open will allocate for such a plan (device bytes are the backend's own
     * affair); saturates instead of overflowing. Must not underestimate: it is a promise. */
    int64_t (*bytes)(const fkm_plan *p);

    /* What is quickest for a batch of `batch` >= 2 such problems, at most `most` of them at a time,
     * which all stay in host memory. p: of one alone; seed: of another backend that is open beside
     * it meanwhile; NULL: none. Side by side only what has the room that it would take alone.
     * FKM_EDEVICE. */
    fkm_status (*share)(fkm_sharing *out, const fkm_plan *p, const fkm_plan *seed, int64_t batch,
        int32_t most, fkm_err *e);

    /* Makes every allocation of its life. FKM_ENOMEM, FKM_EDEVICE, FKM_EUSAGE (isa). */
    fkm_status (*open)(fkm_backend **out, const fkm_plan *p, fkm_err *e);

    /* Forgets everything about the previous problem; its rows are no longer read. */
    void (*reset)(fkm_backend *b);

    /* c: [clusters][dims], finite, copied. */
    fkm_status (*set_centroids)(fkm_backend *b, const float *c, fkm_err *e);

    /* Before a pass with update. A new scale needs a pass with `squares`. FKM_EBUG: wide without
     * plan.wide. */
    fkm_status (*set_scale)(fkm_backend *b, fkm_scale s, fkm_err *e);

    fkm_status (*begin)(fkm_backend *b, const fkm_pass_options *o, fkm_err *e);

    /* Labels rows. labels: [count], in: exactly the labels of the previous pass, or, in the first
     * pass after set_scale, any labels of clusters, or -1 (they warm-start the search, are compared
     * for `moved`, and tell a backend that keeps its sums what to change); out: the nearest
     * centroid, -1 for rows that are not finite. distances: [count] canonical squared distances to
     * it, or NULL; NaN for rows that are not finite. Both may complete as late as wait() or end().
     */
    fkm_status (*feed)(
        fkm_backend *b, const fkm_rows *r, int32_t *labels, double *distances, fkm_err *e);

    /* In a pass, instead of feeding a chunk: true when it is certain that all its rows keep their
     * labels. They are counted as done then, and are not to be fed. labels: as for feed. NULL:
     * never certain of that. */
    bool (*settles)(fkm_backend *b, int64_t row0, int64_t count, const int32_t *labels);

    /* Completes labels and distances of all rows fed so far in this pass. */
    fkm_status (*wait)(fkm_backend *b, fkm_err *e);

    /* After a pass with labels_later, broken off or not: writes the labels of all its rows. labels:
     * [rows] of the problem, the array that the chunks fed were parts of. */
    fkm_status (*labels)(fkm_backend *b, int32_t *labels, fkm_err *e);

    /* In a pass with update that all rows were fed to, before end: rows that the next pass begins
     * with, chunk after chunk from its first on. They stay as they are until they are fed, in their
     * turn, or until reset or close; from now on they may be read, while the sums are finished.
     * False: more are of no use. NULL: none are. */
    bool (*ahead)(fkm_backend *b, const fkm_rows *r);

    /* Waits for the pass and fills *out. Before all rows were fed it breaks the pass off: labels of
     * the rows that were, and out->moved, are right; what follows is get_centroids or close, or, if
     * plan.stop is not set, set_scale and the pass anew. */
    fkm_status (*end)(fkm_backend *b, fkm_pass *out, fkm_err *e);

    /* After a pass with update: replaces each centroid that has rows by their mean, rounded once;
     * the others stay. *max_shift: the largest Euclidean movement. */
    fkm_status (*move)(fkm_backend *b, double *max_shift, fkm_err *e);

    /* Outside passes: canonical squared distance of each row to the centroid labels[i]; NaN for a
     * label of -1. */
    fkm_status (*distances)(
        fkm_backend *b, const fkm_rows *r, const int32_t *labels, double *out, fkm_err *e);

    /* Outside passes: the `top` nearest centroids of each row, nearest first, ties to the lowest
     * index. labels, distances: [count][top]; rows that are not finite get -1 and NaN. */
    fkm_status (*nearest)(fkm_backend *b, const fkm_rows *r, int32_t top, int32_t *labels,
        double *distances, fkm_err *e);

    /* c: [clusters][dims]; counts: [clusters], of the last pass with update. Either may be NULL. */
    fkm_status (*get_centroids)(fkm_backend *b, float *c, int64_t *counts, fkm_err *e);

    const char *(*isa)(const fkm_backend *b); /* the path in use, static text for stats.json */

    /* Makes host memory that chunks are fed from quick to copy, until unpin; that it cannot be is
     * no error. NULL: nothing to gain. */
    bool (*pin)(void *p, size_t bytes);
    void (*unpin)(void *p);

    /* Are rows copied from host memory in every pass, for want of room on the device? */
    bool (*streams)(const fkm_backend *b);

    /* The host's threads that it computes by: who feeds it may use them between its calls. Others
     * beside them would take turns with them, and hold up whole passes. NULL: it has none. */
    struct fkm_pool *(*pool)(const fkm_backend *b);

    /* It has memory of its own that may be lost in the middle of a run (FKM_EDEVICE). */
    bool may_be_lost;

    /* Bytes of such memory that it holds; of several devices, on the one where it holds most. 0: it
     * has none. */
    int64_t (*device_bytes)(const fkm_backend *b);

    /* Most rows a chunk of data that stays in host memory: enough to keep the device busy, few
     * enough for the stop flag to be looked at in between. */
    int64_t chunk_rows;

    /* Measures the i-th ceiling of the device, from 0; out->name is NULL after the last. Needs no
     * open backend. FKM_ENOMEM. */
    fkm_status (*ceiling)(fkm_ceiling *out, int i, const fkm_ceiling_options *o, fkm_err *e);
    void (*close)(fkm_backend *b); /* NULL is fine */
} fkm_backend_ops;

struct fkm_machine; /* fkm.h */

/* Picks by --device: "auto" (NULL), "cpu", "cuda", "cuda:LIST". auto takes CUDA when it can be
 * used, unless --isa names a CPU path. *devices: the list after "cuda:", or NULL. FKM_EUSAGE:
 * unknown; FKM_EDEVICE: an explicit device that is not there. */
fkm_status fkm_backend_choose(const fkm_backend_ops **out, const char **devices,
    const struct fkm_machine *machine, fkm_err *e) FKM_MUST_USE;

#endif
