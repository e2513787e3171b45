/* What a run did, for machines (JSON, schema fkm-stats/1) and for people (a few aligned lines).
 *
 * Both go to a sink; nothing here opens a file. tests/stats.schema.json is the schema. */
#ifndef FKM_STATS_H
#define FKM_STATS_H

#include "fkm.h"
#include "json.h"
#include "preview.h"

/* A file that the run wrote. */
typedef struct fkm_output_info {
    const char *path;
    int64_t bytes;
    uint32_t crc32c;
} fkm_output_info;

/* Of any run. All pointers are borrowed for the call. */
typedef struct fkm_report {
    const char *command;     /* as typed, quoted for a shell */
    const char *started_utc; /* see fkm_utc_text */
    const fkm_reader *in;
    const fkm_run_stats *run;
    const fkm_output_info *outputs;
    int output_count;
    double total_s, write_s; /* of the whole command; of the outputs */
    int64_t peak_bytes;      /* see fkm_peak_memory; taken once, so that all texts agree */
} fkm_report;

typedef struct fkm_fit_report {
    fkm_report common;
    const fkm_fit_options *options;
    const char *init; /* name of the method, or the file of initial centroids */
    const fkm_result *result;
    bool stopped; /* by the time limit: the result tells how far the run got */
} fkm_fit_report;

/* Of a run that was only planned. common.run is NULL; outputs have no checksums. */
typedef struct fkm_preview_report {
    fkm_report common;
    const fkm_fit_options *options;
    const char *init;
    const fkm_preview *preview;
} fkm_preview_report;

typedef struct fkm_predict_report {
    fkm_report common;
    const char *centroids; /* file */
    int32_t clusters, top;
    int64_t rows;
} fkm_predict_report;

/* stats.json of a fit, fkm-plan/1 of a plan, fkm-predict/1 of a predict. FKM_ENOMEM, or what the
 * sink returns. */
fkm_status fkm_fit_json(
    const fkm_fit_report *r, fkm_text_sink sink, void *arg, fkm_err *e) FKM_MUST_USE;
fkm_status fkm_preview_json(
    const fkm_preview_report *r, fkm_text_sink sink, void *arg, fkm_err *e) FKM_MUST_USE;
fkm_status fkm_predict_json(
    const fkm_predict_report *r, fkm_text_sink sink, void *arg, fkm_err *e) FKM_MUST_USE;

/* Bytes of stats.json, at most unless names are odd, for checks of space. */
int64_t fkm_fit_json_bytes(const fkm_fit_options *o, const fkm_reader *in);

/* The summary for people. The marker (stats.json) is named after the outputs when not NULL. */
fkm_status fkm_fit_summary(const fkm_fit_report *r, const char *marker, fkm_text_sink sink,
    void *arg, fkm_err *e) FKM_MUST_USE;
fkm_status fkm_preview_summary(const fkm_preview_report *r, const char *marker, fkm_text_sink sink,
    void *arg, fkm_err *e) FKM_MUST_USE;
fkm_status fkm_predict_summary(
    const fkm_predict_report *r, fkm_text_sink sink, void *arg, fkm_err *e) FKM_MUST_USE;

/* The list machine.gpus; NULL when there is no memory. */
cJSON *fkm_gpu_list(fkm_json *j, const fkm_gpu_info *gpus, int32_t count);

/* "41.2 ms", "3.21 s", "1h02m": writes at most cap bytes into out and returns out. */
const char *fkm_seconds_text(char *out, size_t cap, double seconds);

#endif
