/* What a fit will take, before it is run: the plan that it would follow, and times that follow from
 * a short measurement on a sample of its rows. */
#ifndef FKM_PREVIEW_H
#define FKM_PREVIEW_H

#include "fkm.h"

typedef struct fkm_preview {
    fkm_run_plan plan;
    int64_t sampled_rows;    /* that were labelled to measure */
    double read_bytes_per_s; /* from where the data is now: a disk, or memory that caches it */
    double before_s;     /* reading what is kept, and choosing the first centroids, of one start */
    double first_s;      /* the first iteration of a problem */
    double iteration_s;  /* each further one, at first; most get quicker later */
    double most_s;       /* the whole run, should it take max_iter iterations */
    int64_t passes_most; /* over the file, should it take max_iter iterations; 1: kept */
    int64_t state_bytes; /* of a checkpoint; 0: off */
    int32_t resumes;     /* 0: a new run; else so many times already, this one included */
    int32_t iteration;   /* where it would be resumed, */
    double earlier_s;    /* after so much time */
} fkm_preview;

/* Takes about a second. Statuses as fkm_fit; what fkm_fit would refuse before its work is refused,
 * with a checkpoint of another run, too. Nothing is written. */
fkm_status fkm_fit_preview(fkm_preview *out, fkm_reader *in, const fkm_fit_options *o,
    const fkm_observer *w, fkm_err *e) FKM_MUST_USE;

#endif
