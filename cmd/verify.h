/* A finished run, read back from its stats.json and compared with the files beside it. */
#ifndef FKM_CMD_VERIFY_H
#define FKM_CMD_VERIFY_H

#include "../src/base/status.h"
#include <stdbool.h>
#include <stdint.h>

typedef struct verified_file {
    char *path; /* beside stats.json, wherever that is now, and under its PREFIX if it is there */
    int64_t bytes;
    uint32_t crc32c;
} verified_file;

typedef struct verified_run {
    char *stats_path;
    char *started_utc, *status;
    int64_t clusters;
    double inertia;
    verified_file *files;
    int file_count;
} verified_run;

/* Reads `prefix`.stats.json. FKM_EFILE: cannot be read; FKM_EDATA: is not fkm-stats/1. */
fkm_status verified_run_load(verified_run *out, const char *prefix, fkm_err *e) FKM_MUST_USE;
void verified_run_free(verified_run *run); /* fields only; safe on zeroed ones */

/* The output that holds the centroids, or NULL. */
const verified_file *verified_run_centroids(const verified_run *run);

/* FKM_EDATA when size or checksum are not those of stats.json, or the file is not there. */
fkm_status verified_file_check(
    const verified_file *f, const char *stats_path, fkm_err *e) FKM_MUST_USE;

#endif
