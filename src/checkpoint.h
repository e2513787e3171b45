/* The state of a run between two passes, on disk, so that a later run can go on from it.
 *
 * What has to be kept for the same bits as without the interruption: the centroids that the pass at
 * hand is made with; the labels, which say what "moved" is counted against; the record of what is
 * past (its last entry decides the stopping rule); the scale, once it is known. Sums follow from
 * the pass and are not kept. A pass that was broken off is made again from its beginning: labels of
 * it are final for the rows that it had reached, and how many of those moved is kept beside them.
 * Labels that were lost with a device follow from the centroids of their pass (relabel). All this
 * is kept of every problem of a batch that is at work: several may be, and may end in any order.
 *
 * A file is: magic, byte order, version; the key, which is text; numbers of 8 bytes; arrays; CRC32C
 * of all before it. It appears whole or not at all (fkm_outfile). Reading it checks everything: the
 * file may be anything. */
#ifndef FKM_CHECKPOINT_H
#define FKM_CHECKPOINT_H

#include "backend.h"
#include "checksums.h"
#include "fkm.h"

typedef enum fkm_stage { FKM_UNTOUCHED, FKM_AT_WORK, FKM_DONE } fkm_stage;

/* How far one problem of the batch has come. What follows `stage` is of a problem at work. */
typedef struct fkm_problem_state {
    fkm_stage stage;
    int32_t restart;   /* its start; restarts: all have ended, the best one is not yet restored */
    int32_t iteration; /* 0: its first centroids are not chosen; max_iter + 1: final labels */
    int32_t best_start, best_iterations;
    int64_t moved; /* rows that this iteration's pass has moved, as far as it got */
    bool relabel;  /* that pass was complete, and its labels are lost: it is made again, from any
                      labels, and has moved so many rows all the same */
    bool scanned;  /* the scale is that of all rows */
    fkm_scale scale;
    /* Of the best start so far, then of the start at work; owned, unless the stage is untouched. */
    fkm_iteration *iterations;
    int32_t iteration_count;
    int64_t iteration_room;
    float *best; /* [clusters][dims]: of the best start, if restart > 0; owned */
} fkm_problem_state;

typedef struct fkm_state {
    fkm_problem_state *problems; /* [batch] */
    int32_t resumes;             /* how often the run has been resumed so far */
    double elapsed_s;            /* that it has taken so far */
    /* Results of what is done; of problems at work the centroids and labels if iteration > 0, and
     * problems[] of the best start if restart > 0. Its iterations are not looked at. */
    fkm_result *result;
    fkm_checksums *checksums; /* NULL: none */
    bool outdated;            /* could not be loaded: of other data, options or version of fkm */
    bool redated; /* loaded with inputs of other times, which are to be proved the same */
} fkm_state;

/* problems: [batch], untouched, and freed with what they own. */
fkm_status fkm_state_open(fkm_state *s, int64_t batch, fkm_err *e) FKM_MUST_USE;
void fkm_state_close(fkm_state *s, int64_t batch); /* safe on zeroed structs */

/* Makes a problem untouched: nothing of it is of use. */
void fkm_state_forget(fkm_problem_state *p);

/* The first problem that is not done, batch if there is none. */
int64_t fkm_state_first(const fkm_state *s, int64_t batch);

/* What must be the same for the state to be of use: everything that decides bits. fkm_free. */
fkm_status fkm_state_key(
    char **out, const fkm_fit_options *o, const fkm_reader *in, fkm_err *e) FKM_MUST_USE;

/* Bytes of the file, at most, for checks of space. */
int64_t fkm_state_bytes(const fkm_fit_options *o, const fkm_shape *shape);

/* Replaces the file at path. FKM_EFILE: the earlier one is intact. */
fkm_status fkm_state_save(const fkm_state *s, const fkm_fit_options *o, const fkm_shape *shape,
    const char *path, const char *key, fkm_err *e) FKM_MUST_USE;

/* Fills *s, which is open, and whose pointers lead to arrays of the run's sizes. FKM_EFILE: of
 * another run, with the difference named; or not a checkpoint. FKM_EDATA: damaged. Arrays may be
 * overwritten then. FKM_ENOMEM. Modification times alone are no difference (redated). */
fkm_status fkm_state_load(fkm_state *s, const char *path, const char *key, const fkm_fit_options *o,
    const fkm_reader *in, fkm_err *e) FKM_MUST_USE;

/* The scalars of *s only, which is open, of a file that is whole and fits. Statuses as
 * fkm_state_load. */
fkm_status fkm_state_peek(fkm_state *s, const char *path, const char *key, const fkm_fit_options *o,
    const fkm_reader *in, fkm_err *e) FKM_MUST_USE;

/* Removes the file, if it is there and a checkpoint of any version. FKM_EFILE. */
fkm_status fkm_state_remove(const char *path, fkm_err *e) FKM_MUST_USE;

#endif
