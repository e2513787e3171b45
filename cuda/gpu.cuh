/* One GPU: its memory, its streams, and the work of a pass on the pieces of rows that it is given.
 *
 * Rows come in chunks (backend.h) that are cut into pieces of at most piece_rows. Each piece
 * belongs to one GPU for good, so that what the GPU keeps of it stays useful: the rows as they are
 * and packed for screening, as far as memory goes, and their labels. Rows that do not stay go
 * through two buffers, filled on the copy stream while the compute stream works on the other. A
 * buffer that still holds, or already holds, the rows of a piece is not filled again: that is how
 * the first pieces of the next pass are brought ahead of it.
 *
 * Nothing but `gpu_collect` and what is asked of it waits for the GPU; gpu_feed waits for its copy,
 * or, when the rows stay in host memory, for the copy before it, so that one is always queued. */
#ifndef FKM_GPU_CUH
#define FKM_GPU_CUH

#include "assign.cuh"
#include "bounds.cuh"
#include "pack.cuh"
#include "resolve.cuh"
#include "stopwatch.cuh"
#include "update.cuh"

extern "C" {
#include "../src/backend.h"
}

#define FKM_GPU_BUFFERS 2
/* Of the budget this part is left to the backend that chooses first centroids. */
#define FKM_SEEDING_SHARE 8

/* Rows [row0, row0 + count) of the problem, and what their GPU has of them. */
struct fkm_piece {
    int64_t row0;
    int32_t count;
    const void *x; /* host rows, to be read ahead of their next feed; NULL: not now */
    void *raw;     /* NULL: rows do not stay */
    void *packed;  /* NULL: packed anew each pass */
    float *norm, *residual, *tail;
    int32_t *labels; /* on the device; NULL: they come and go with the rows */
    float *slack;    /* of bounds.cuh; NULL: none. Needs labels and packed rows that stay */
    bool raw_valid;  /* raw holds the rows */
    bool labelled;   /* labels hold those of the last pass, else the caller's are taken */
    bool bounded;    /* slack is that of these labels, but for what centroids have moved since */
    int32_t *wanted; /* the caller's labels, to be written from `labels`; NULL: not now */
    uint32_t frame;  /* that packed is in; 0: none */
};

/* What a pass brings back, of one GPU. */
struct fkm_tally {
    fkm_screen_counts counts;
    fkm_squares squares; /* kept from the pass that collected them */
    fkm_moments moments;
};

/* Labels and distances that the caller still waits for. */
struct fkm_pending {
    int32_t *labels;   /* of the caller; NULL: they stay in their piece */
    double *distances; /* of the caller, in scratch; NULL: not wanted */
    int32_t count;
};

/* Pinned memory that labels of the caller, which is not, come and go through: else each copy would
 * wait for the stream, and take turns with those of other problems' threads. */
struct fkm_stage {
    int32_t *in, *out;            /* [piece_rows] */
    cudaEvent_t taken, delivered; /* when `in` has been read, `out` written */
    fkm_pending pending;          /* at most one of all stages has distances */
};
#define FKM_STAGES 2 /* one is written to the caller while another piece is worked on */

struct fkm_gpu {
    int device;
    char name[96]; /* "cuda:0 (NVIDIA H200)" */
    fkm_chip chip;
    fkm_plan plan;
    const fkm_assign_kernel *kernel;
    fkm_packing packing;
    int32_t piece_rows;
    int32_t most_stride;  /* of packed rows: what there is room for */
    int64_t budget, used; /* device bytes */
    bool counting;        /* nothing is allocated, `used` tells how much it would be */
    cudaStream_t copy, compute;

    fkm_centroid_tables c;
    float *mean;              /* [clusters][dims]: the next centroids, after a pass with update */
    double *shift;            /* [clusters]: how far they are */
    float *drop;              /* [clusters], of bounds.cuh: of the last movement */
    fkm_top_two *top_twos;    /* scratch of bounds.cuh */
    bool moved;               /* since the last pass began */
    bool dropping;            /* this pass takes drop off the bounds */
    int64_t looked_at;        /* rows of this pass whose bounds were */
    fkm_sums sums;            /* of the rows of this GPU */
    fkm_sums total, incoming; /* of all GPUs, on the first when there are several */
    fkm_frame frame;
    float *frame_shift; /* [dims] */
    float *axes;        /* [FKM_HEAD_MOST][dims]: room for them; NULL: heads do not suit */
    float *turned;

    fkm_tally *tally;      /* on the device */
    fkm_tally *tally_host; /* pinned */

    /* scratch of a piece */
    void *raw[FKM_GPU_BUFFERS];
    const fkm_piece *held[FKM_GPU_BUFFERS]; /* whose rows are, or will be, there; NULL: nobody's */
    int64_t filled[FKM_GPU_BUFFERS];        /* by which copy, from 0 */
    cudaEvent_t copied[FKM_GPU_BUFFERS], freed[FKM_GPU_BUFFERS]; /* copied: of copies in turn */
    int turn;                                                    /* buffer that is filled next */
    int64_t copies;                                              /* of rows, so far */
    void *packed;
    float *norm, *residual, *tail, *floor, *reach, *second;
    int32_t *old, *labels, *row;
    double *distances;
    unsigned *list_counts; /* [3]: doubt, rescan, rows that are left to search */
    int32_t *doubt_row, *doubt_size, *doubt_position, *rescan_row;
    fkm_parts parts;
    fkm_sort_room sort;
    fkm_nearest_args nearest; /* its scratch */

    fkm_stage stage[FKM_STAGES];
    int stage_turn;       /* used next */
    cudaEvent_t done;     /* of a pass, for other GPUs */
    fkm_stopwatch assign; /* of this pass: from the rows' arrival to their labels */
    fkm_stopwatch adding; /* of this pass: adding rows to sums */

    void **blocks; /* everything allocated */
    int32_t block_count, block_room;
};

/* How rows may be screened. */
struct fkm_unit_choice {
    fkm_unit unit; /* to begin with; no other takes longer packed rows */
    bool portable; /* no kernel that is one architecture's own */
    bool fixed;    /* the unit stays: it was asked for, or there is no choice */
};

/* Opens the device for such a plan, with pieces of piece_rows; all scratch is allocated.
 * FKM_ENOMEM: try smaller pieces. On failure *g can be closed. first: this GPU adds up what all
 * have. */
fkm_status fkm_gpu_open(fkm_gpu *g, int device, const fkm_plan *p, const fkm_unit_choice *unit,
    int32_t piece_rows, bool first, bool several, fkm_err *e);
void fkm_gpu_close(fkm_gpu *g); /* safe on zeroed structs */

/* Pinned host memory that it takes, but for a constant. */
int64_t fkm_gpu_host_bytes(int64_t piece_rows);

/* What such a plan takes on the device alone if all of it stays there, and what it may take. */
fkm_status fkm_gpu_count(int64_t *need, int64_t *room, int device, const fkm_plan *p,
    const fkm_unit_choice *unit, fkm_err *e);

/* Gives a piece room of its own: labels, rows, packed rows, bounds, in this order, while the budget
 * lasts. */
fkm_status fkm_gpu_keep_labels(fkm_gpu *g, fkm_piece *p, fkm_err *e);
fkm_status fkm_gpu_keep_rows(fkm_gpu *g, fkm_piece *p, fkm_err *e);
fkm_status fkm_gpu_keep_packed(fkm_gpu *g, fkm_piece *p, fkm_err *e);
fkm_status fkm_gpu_keep_bounds(fkm_gpu *g, fkm_piece *p, fkm_err *e);

/* The frame of screening: scale, shift [dims] in host memory. */
fkm_status fkm_gpu_set_frame(fkm_gpu *g, float scale, const float *shift, fkm_err *e);

/* Screens by `unit`, by all coordinates, from the next fkm_gpu_prepare on; quanta as in
 * fkm_packing, of int8 alone. Cannot fail for a unit whose packed rows there is room for. */
void fkm_gpu_set_unit(fkm_gpu *g, fkm_unit unit, float row_quant, float centroid_quant);

/* Screens by the first coordinates along axes [screened][dims], in host memory, from the next
 * fkm_gpu_prepare on, until fkm_gpu_set_unit. Needs fkm_head_suits(dims) and a plan with update. */
fkm_status fkm_gpu_set_axes(
    fkm_gpu *g, const float *axes, int32_t screened, float gram, fkm_err *e);

/* What screening leaves of `count` rows x, in host memory, that have their labels. Before anything
 * is fed in a pass; waits. */
fkm_status fkm_gpu_try(
    fkm_gpu *g, const void *x, int32_t count, fkm_screen_counts *out, fkm_err *e);

/* c: [clusters][dims] in host memory. The tables follow by fkm_gpu_prepare. */
fkm_status fkm_gpu_set_centroids(fkm_gpu *g, const float *c, fkm_err *e);
fkm_status fkm_gpu_prepare(fkm_gpu *g, fkm_err *e);

/* After the centroids have moved by g->shift, in the frame that bounds were made in. */
fkm_status fkm_gpu_moved(fkm_gpu *g, fkm_err *e);

/* Zeroes the counters; with sums: the sums; with squares: those. */
fkm_status fkm_gpu_begin(fkm_gpu *g, bool sums, bool squares, fkm_err *e);

/* What to do with a piece. */
struct fkm_feed {
    const void *x;     /* host rows of the piece */
    int32_t *labels;   /* of the caller: in and out */
    bool later;        /* labels of pieces that keep them need not be written to the caller */
    double *distances; /* or NULL */
    bool update, change, squares;
    bool unlabelled; /* the caller's labels are all -1, and not looked at */
    bool bounds;     /* spare rows by bounds where there are any, and make new ones */
    uint32_t frame;  /* number of the frame in use */
};

/* Queues all work of a pass on a piece. x is free when this returns; distances, and labels of
 * pieces that do not keep them, are written by the next fkm_gpu_drain at the latest, others by
 * fkm_gpu_write_labels. */
fkm_status fkm_gpu_feed(fkm_gpu *g, fkm_piece *p, const fkm_feed *f, fkm_err *e);
bool fkm_gpu_owes(const fkm_gpu *g); /* is there anything to drain? */
fkm_status fkm_gpu_drain(fkm_gpu *g, fkm_err *e);
fkm_status fkm_gpu_write_labels(fkm_gpu *g, fkm_piece *p, int32_t *labels, fkm_err *e); /* waits */

/* Between passes: copies the rows of a piece, if it is known where they are and they do not stay on
 * the device, to a buffer. At most FKM_GPU_BUFFERS pieces, in the order in which they will be fed.
 */
fkm_status fkm_gpu_fetch(fkm_gpu *g, fkm_piece *p, fkm_err *e);

/* Waits for everything, and lets go of the rows in the buffers: host rows are no longer read. */
fkm_status fkm_gpu_let_go(fkm_gpu *g, fkm_err *e);

/* Queues the readback of the tally, after everything fed; fkm_gpu_collect waits for it. */
fkm_status fkm_gpu_tally(fkm_gpu *g, fkm_err *e);
fkm_status fkm_gpu_collect(fkm_gpu *g, fkm_err *e);

/* Outside passes, each waits: see backend.h. labels: [count] in host memory. */
fkm_status fkm_gpu_distances(
    fkm_gpu *g, fkm_piece *p, const void *x, const int32_t *labels, double *out, fkm_err *e);
fkm_status fkm_gpu_nearest(fkm_gpu *g, fkm_piece *p, uint32_t frame, const void *x, int32_t top,
    int32_t *labels, double *distances, fkm_err *e);

fkm_status fkm_gpu_use(fkm_gpu *g, fkm_err *e); /* makes it the current device of this thread */

#endif
