/* Progress on stderr: a live line on a terminal, sparse lines in a log, nothing for short runs. */
#ifndef FKM_CMD_PROGRESS_H
#define FKM_CMD_PROGRESS_H

#include "cmd.h"
#include <pthread.h>

typedef enum progress_mode { PROGRESS_SILENT, PROGRESS_LIVE, PROGRESS_LOG } progress_mode;

/* What was heard last. */
typedef struct heard {
    fkm_progress now; /* its pointers are NULL, or to the two below */
    fkm_iteration last, before;
    double at; /* fkm_now() */
} heard;

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
    int stage_told; /* of those at the beginning, in a log */
    heard heard;
    bool in_parts;        /* passes tell of parts, not only of their end */
    double rate;          /* of reading, bytes/s, lately; 0: nothing is read */
    double rate_at;       /* elapsed seconds and */
    int64_t rate_bytes;   /* bytes, when it was measured */
    pthread_mutex_t lock; /* guards all of this from the ticker, which shows what lasts */
    pthread_cond_t over;
    pthread_t ticker;
    bool ticks, is_over;
} progress;

/* `clusters` is 0 for scans. progress_end must follow. */
void progress_begin(progress *p, const common_args *a, const fkm_reader *in, int32_t clusters);

/* Callbacks into p, and the stop flag. */
fkm_observer progress_observer(progress *p);

/* Clears the live line, and ends the ticker. */
void progress_end(progress *p);

#endif
