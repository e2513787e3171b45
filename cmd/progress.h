/* Progress on stderr: a live line on a terminal, sparse lines in a log, nothing for short runs. */
#ifndef FKM_CMD_PROGRESS_H
#define FKM_CMD_PROGRESS_H

#include "cmd.h"

typedef enum progress_mode { PROGRESS_SILENT, PROGRESS_LIVE, PROGRESS_LOG } progress_mode;

typedef struct progress {
    progress_mode mode;
    double grace_s;          /* nothing is shown before */
    double start, last_line; /* fkm_now() */
    int32_t clusters;        /* 0: not a fit */
    int32_t restarts;        /* told when above 1; the caller's to set */
    int64_t batch, rows;
    char data[400];   /* "data.fvecs  1000 x 128 float32  0.5 MiB" */
    char machine[80]; /* "cpu: avx512, 2 threads" */
    bool header_shown;
} progress;

/* `clusters` is 0 for scans. */
void progress_begin(progress *p, const common_args *a, const fkm_reader *in, int32_t clusters);

/* Callbacks into p, and the stop flag. */
fkm_observer progress_observer(progress *p);

/* Clears the live line. */
void progress_end(progress *p);

#endif
