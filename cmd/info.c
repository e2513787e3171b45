/* fkm info: what a file holds, what is in its numbers, and whether a run's files are still its own.
 */
#include "cmd.h"
#include "labels.h"
#include "progress.h"
#include "verify.h"

#include "../src/base/checked.h"
#include "../src/base/file.h"
#include "../src/base/log.h"
#include "../src/base/mem.h"
#include "../src/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define BAD_ROWS_SHOWN 20
#define SEARCH_BYTES ((int64_t)1 << 20) /* read at once while looking for bad rows */

struct info_args {
    bool full;
    common_args common;
};

#define AT(field) offsetof(struct info_args, field)

static const opt info_rows[] = {
    {.kind = OPT_FLAG,
        .name = "full",
        .offset = AT(full),
        .help = "read all rows: smallest, largest and mean value, zeros, NaN and infinity, and the "
                "damaged rows of a file"},
    {.kind = OPT_END},
};

static const opt_group info_groups[] = {
    {"What to show", info_rows},
    {"Input", common_input_rows},
    {"Talk", common_talk_rows},
    {NULL, NULL},
};

/* Rows that cannot be read. */
struct bad_rows {
    int64_t count;
    char *message[BAD_ROWS_SHOWN];
};

static void bad_rows_free(struct bad_rows *bad)
{
    for (int i = 0; i < BAD_ROWS_SHOWN; i++)
        fkm_free(bad->message[i]);
}

/* What reading all of a file tells. */
struct found {
    bool scanned, counted;
    fkm_scan scan;
    label_facts labels;
    struct bad_rows bad;
};

/* ---- a file ---- */

static void print_shape(const fkm_reader *in)
{
    const fkm_shape *s = fkm_reader_shape(in);
    char size[32], advice[120];
    for (int i = 0; i < fkm_reader_input_count(in); i++) {
        const fkm_input *f = fkm_reader_input(in, i);
        print_out("%-12s%s\n", "file", f->path);
        print_out("%-12s%s\n", "format", f->format);
        if (f->dataset)
            print_out("%-12s%s\n", "dataset", f->dataset);
        print_out("%-12s%" PRId64 " bytes (%s)\n", "size", f->id.bytes,
            fkm_bytes_text(size, sizeof size, f->id.bytes));
        print_out("%-12s%s\n", "type", fkm_dtype_name(f->dtype));
        if (f->dtype == FKM_U16 || f->dtype == FKM_I16)
            fkm_note("%s: read as integers; if they are the bits of bfloat16 numbers, say --dtype "
                     "bf16, or save a.astype('float32')",
                f->path);
    }
    if (s->ndim == 3)
        print_out("%-12s%" PRId64 " x %" PRId64 " x %" PRId32 " (a batch of %" PRId64
                  " independent problems); as one data set: %s\n",
            "shape", s->batch, s->rows, s->dims, s->batch,
            cmd_batch_advice(advice, sizeof advice, in));
    else if (s->ndim == 1 && labels_are(in))
        print_out("%-12s%" PRId64 " labels\n", "shape", s->rows);
    else if (s->ndim == 1)
        print_out("%-12s%" PRId64 " numbers; for fit, rows of one number are a[:, None]\n", "shape",
            s->rows);
    else
        print_out("%-12s%" PRId64 " rows x %" PRId32 " dimensions\n", "shape", s->rows, s->dims);
}

static void print_labels(const label_facts *l)
{
    if (l->clusters > 0)
        print_out("%-12s%" PRId64 " to %" PRId64 ", %" PRId64 " clusters; %" PRId64
                  " rows without one (-1)\n",
            "labels", l->least, l->most, l->clusters, l->unlabelled);
    else
        print_out("%-12snone; %" PRId64 " rows without one (-1)\n", "labels", l->unlabelled);
}

static void print_scan(const fkm_scan *s)
{
    if (s->rows == 0)
        return;
    if (s->values > 0)
        print_out(
            "%-12s%.9g to %.9g, mean %.9g\n", "values", (double)s->min, (double)s->max, s->mean);
    print_out("%-12s%" PRId64 " of %" PRId64 "\n", "zeros", s->zeros, s->values);
    print_out("%-12s%" PRId64 " NaN, %" PRId64 " infinite, in %" PRId64 " rows\n", "not finite",
        s->nans, s->infinities, s->rows_not_finite);
    if (s->bad_row >= 0)
        print_out("%-12srow %" PRId64 ", column %" PRId32 " (%g)\n", "first", s->bad_row,
            s->bad_column, (double)s->bad_value);
    if (s->values > 0)
        print_out(
            "%-12srow %" PRId64 ", column %" PRId32 "\n", "largest", s->top_row, s->top_column);
}

static cJSON *scan_object(fkm_json *j, const fkm_scan *s)
{
    cJSON *o = cJSON_CreateObject();
    bool any = s->values > s->nans + s->infinities;
    fkm_json_add(j, o, "rows", fkm_json_i64(s->rows));
    fkm_json_add(j, o, "values", fkm_json_i64(s->values));
    fkm_json_add(j, o, "min", any ? fkm_json_real((double)s->min) : cJSON_CreateNull());
    fkm_json_add(j, o, "max", any ? fkm_json_real((double)s->max) : cJSON_CreateNull());
    fkm_json_add(j, o, "mean", any ? fkm_json_real(s->mean) : cJSON_CreateNull());
    fkm_json_add(j, o, "zeros", fkm_json_i64(s->zeros));
    fkm_json_add(j, o, "nans", fkm_json_i64(s->nans));
    fkm_json_add(j, o, "infinities", fkm_json_i64(s->infinities));
    fkm_json_add(j, o, "rows_not_finite", fkm_json_i64(s->rows_not_finite));
    fkm_json_add(
        j, o, "first_bad_row", s->bad_row >= 0 ? fkm_json_i64(s->bad_row) : cJSON_CreateNull());
    fkm_json_add(j, o, "first_bad_column",
        s->bad_row >= 0 ? fkm_json_i64(s->bad_column) : cJSON_CreateNull());
    return o;
}

static cJSON *labels_object(fkm_json *j, const label_facts *l)
{
    cJSON *o = cJSON_CreateObject();
    bool any = l->clusters > 0;
    fkm_json_add(j, o, "min", any ? fkm_json_i64(l->least) : cJSON_CreateNull());
    fkm_json_add(j, o, "max", any ? fkm_json_i64(l->most) : cJSON_CreateNull());
    fkm_json_add(j, o, "clusters", fkm_json_i64(l->clusters));
    fkm_json_add(j, o, "unlabelled", fkm_json_i64(l->unlabelled));
    return o;
}

static fkm_status print_file_json(const fkm_reader *in, const struct found *found, fkm_err *e)
{
    const fkm_shape *s = fkm_reader_shape(in);
    const fkm_input *f = fkm_reader_input(in, 0);
    fkm_json j;
    fkm_json_begin(&j, cmd_stdout_sink, NULL, e);
    fkm_json_field(&j, "schema", fkm_json_text("fkm-info/1"));
    fkm_json_field(&j, "fkm_version", fkm_json_text(FKM_VERSION));
    fkm_json_field_name(&j, "path", f->path);
    fkm_json_field(&j, "format", fkm_json_text(f->format));
    fkm_json_field_name(&j, "dataset", f->dataset);
    fkm_json_field(&j, "batch", s->ndim == 3 ? fkm_json_i64(s->batch) : cJSON_CreateNull());
    fkm_json_field(&j, "rows", fkm_json_i64(s->rows));
    fkm_json_field(&j, "dims", fkm_json_i64(s->dims));
    fkm_json_field(&j, "dtype", fkm_json_text(fkm_dtype_name(f->dtype)));
    fkm_json_field(&j, "bytes", fkm_json_i64(f->id.bytes));
    fkm_json_field(&j, "scan", found->scanned ? scan_object(&j, &found->scan) : cJSON_CreateNull());
    fkm_json_field(
        &j, "labels", found->counted ? labels_object(&j, &found->labels) : cJSON_CreateNull());
    fkm_json_list_begin(&j, "bad_rows");
    for (int i = 0; i < BAD_ROWS_SHOWN && found->bad.message[i]; i++)
        fkm_json_list_item(&j, fkm_json_text(found->bad.message[i]));
    fkm_json_list_end(&j);
    fkm_json_field(&j, "bad_row_count", fkm_json_i64(found->bad.count));
    return fkm_json_end(&j);
}

static void print_bad_rows(const struct bad_rows *bad)
{
    for (int i = 0; i < BAD_ROWS_SHOWN && bad->message[i]; i++)
        print_out("%-12s%s\n", "bad row", bad->message[i]);
    if (bad->count > BAD_ROWS_SHOWN)
        print_out("%-12sand %" PRId64 " more\n", "bad row", bad->count - BAD_ROWS_SHOWN);
}

/* Notes the row behind a failed read of it alone; other failures than bad data go up. */
static fkm_status note_bad_row(struct bad_rows *bad, fkm_status st, const fkm_err *why, fkm_err *e)
{
    if (st != FKM_EDATA) {
        *e = *why;
        return st;
    }
    if (bad->count < BAD_ROWS_SHOWN)
        FKM_TRY(fkm_strdup(&bad->message[bad->count], why->msg, e));
    bad->count++;
    return FKM_OK;
}

/* Reads in blocks, and row by row where a block fails. */
static fkm_status find_bad_rows(struct bad_rows *bad, fkm_reader *in, fkm_err *e)
{
    const fkm_shape *s = fkm_reader_shape(in);
    int64_t rows = s->batch * s->rows, row_bytes = s->dims * (int64_t)fkm_dtype_size(s->dtype);
    int64_t step = fkm_max_i64(1, SEARCH_BYTES / fkm_max_i64(1, row_bytes));
    char *buffer = NULL;
    fkm_status st = FKM_OK;
    FKM_TRY(fkm_alloc(&buffer, step, (size_t)row_bytes, "a buffer for reading", e));
    for (int64_t row = 0; row < rows; row += step) {
        int64_t count = fkm_min_i64(step, rows - row);
        fkm_err why = {0};
        if (fkm_reader_read(in, row, count, buffer, &why) == FKM_OK)
            continue;
        for (int64_t i = row; i < row + count; i++) {
            fkm_status one = fkm_reader_read(in, i, 1, buffer, &why);
            if (one != FKM_OK)
                FKM_GO(note_bad_row(bad, one, &why, e));
        }
    }
out:
    fkm_free(buffer);
    return st;
}

static fkm_status scan(fkm_scan *out, fkm_reader *in, const common_args *a, fkm_err *e)
{
    progress p;
    progress_begin(&p, a, in, 0);
    fkm_observer observer = progress_observer(&p);
    fkm_status st = fkm_scan_file(out, in, &observer, e);
    progress_end(&p);
    return st;
}

/* Reads all rows; bad data that no single row shows is an error. */
static fkm_status read_all(struct found *found, fkm_reader *in, const common_args *a, fkm_err *e)
{
    fkm_status st = scan(&found->scan, in, a, e);
    found->scanned = st == FKM_OK;
    if (st == FKM_EDATA)
        st = find_bad_rows(&found->bad, in, e);
    if (st == FKM_OK && !found->scanned && found->bad.count == 0)
        st = e->code; /* the scan's own message stands */
    found->counted = found->scanned && labels_are(in) && labels_can_be(&found->scan);
    return found->counted ? labels_count(&found->labels, in, &found->scan, e) : st;
}

/* Damaged rows are what info is for: they are listed, and then they are an error. */
static fkm_status show_file(fkm_reader *in, const struct info_args *a, fkm_err *e)
{
    struct found found = {0};
    fkm_status st = a->full ? read_all(&found, in, &a->common, e) : FKM_OK;
    if (st == FKM_OK && a->common.json)
        st = print_file_json(in, &found, e);
    else if (st == FKM_OK && !a->common.quiet) {
        print_shape(in);
        if (found.counted)
            print_labels(&found.labels);
        else if (found.scanned)
            print_scan(&found.scan);
        print_bad_rows(&found.bad);
    }
    if (st == FKM_OK && found.bad.count > 0)
        st = fkm_fail(e, FKM_EDATA, "%s: %" PRId64 " of %" PRId64 " rows cannot be read",
            fkm_reader_input(in, 0)->path, found.bad.count,
            fkm_reader_shape(in)->batch * fkm_reader_shape(in)->rows);
    bad_rows_free(&found.bad);
    return st;
}

/* ---- a run ---- */

/* A file's verdict: "ok", or what differs. */
static const char *verdict(const fkm_err *e)
{
    return e->code == FKM_OK ? "ok" : e->msg;
}

static fkm_status print_run_json(
    const verified_run *run, const fkm_err *checks, bool ok, fkm_err *e)
{
    fkm_json j;
    fkm_json_begin(&j, cmd_stdout_sink, NULL, e);
    fkm_json_field(&j, "schema", fkm_json_text("fkm-info/1"));
    fkm_json_field(&j, "fkm_version", fkm_json_text(FKM_VERSION));
    fkm_json_field_name(&j, "stats", run->stats_path);
    fkm_json_field(&j, "verified", cJSON_CreateBool(ok));
    fkm_json_field(&j, "started_utc", fkm_json_text(run->started_utc));
    fkm_json_field(&j, "status", fkm_json_text(run->status));
    fkm_json_field(&j, "k", fkm_json_i64(run->clusters));
    fkm_json_field(&j, "inertia", fkm_json_real(run->inertia));
    fkm_json_list_begin(&j, "outputs");
    for (int i = 0; i < run->file_count; i++) {
        char crc[16];
        cJSON *o = cJSON_CreateObject();
        snprintf(crc, sizeof crc, "%08" PRIx32, run->files[i].crc32c);
        fkm_json_add_name(&j, o, "path", run->files[i].path);
        fkm_json_add(&j, o, "bytes", fkm_json_i64(run->files[i].bytes));
        fkm_json_add(&j, o, "crc32c", fkm_json_text(crc));
        fkm_json_add(&j, o, "verdict", fkm_json_text(verdict(&checks[i])));
        fkm_json_list_item(&j, o);
    }
    fkm_json_list_end(&j);
    return fkm_json_end(&j);
}

static void print_run(const verified_run *run, const fkm_err *checks)
{
    char size[32];
    print_out("%-12s%s\n", "run", run->stats_path);
    print_out("%-12s%s\n", "started", run->started_utc);
    print_out("%-12s%" PRId64 ", %s, inertia %.10g\n", "clusters", run->clusters, run->status,
        run->inertia);
    for (int i = 0; i < run->file_count; i++)
        print_out("%-12s%s  %s  %s\n", i == 0 ? "outputs" : "", run->files[i].path,
            fkm_bytes_text(size, sizeof size, run->files[i].bytes), verdict(&checks[i]));
}

/* All files are checked before the first difference is reported. */
static fkm_status show_run(const char *prefix, const common_args *a, fkm_err *e)
{
    verified_run run;
    fkm_err *checks = NULL;
    const fkm_err *worst = NULL;
    FKM_TRY(verified_run_load(&run, prefix, e));
    fkm_status st = FKM_OK;
    FKM_GO(fkm_calloc(&checks, run.file_count, sizeof *checks, "the verdicts", e));
    for (int i = 0; i < run.file_count; i++)
        if (verified_file_check(&run.files[i], run.stats_path, &checks[i]) != FKM_OK && !worst)
            worst = &checks[i];
    if (a->json)
        FKM_GO(print_run_json(&run, checks, worst == NULL, e));
    else if (!a->quiet)
        print_run(&run, checks);
    if (worst) {
        *e = *worst;
        st = worst->code;
    }
out:
    fkm_free(checks);
    verified_run_free(&run);
    return st;
}

/* *prefix = what precedes ".stats.json" when `name` means a run, else NULL. */
static fkm_status run_prefix(char **prefix, const char *name, fkm_err *e)
{
    static const char suffix[] = ".stats.json";
    size_t len = strlen(name), suffix_len = sizeof suffix - 1;
    char *stats;
    *prefix = NULL;
    if (len > suffix_len && !strcmp(name + len - suffix_len, suffix))
        return fkm_asprintf(prefix, e, "%.*s", (int)(len - suffix_len), name);
    if (!strcmp(name, "-") || fkm_path_exists(name))
        return FKM_OK;
    FKM_TRY(fkm_asprintf(&stats, e, "%s%s", name, suffix));
    bool is_run = fkm_path_exists(stats);
    fkm_free(stats);
    return is_run ? fkm_strdup(prefix, name, e) : FKM_OK;
}

static fkm_status run_info(const cmd *self, int argc, char **argv, const char *line, fkm_err *e)
{
    struct info_args a = {0};
    int first;
    bool done;
    char *prefix;
    (void)line;
    common_args_default(&a.common);
    a.common.one_dim = a.common.may_be_empty = true; /* labels, and those of no rows */
    void *const bases[] = {&a, &a.common, &a.common};
    FKM_TRY(cmd_parse(self, bases, &a.common, argc, argv, &first, &done, e));
    if (done)
        return FKM_OK;
    if (argc - first != 1) {
        fkm_fail(e, FKM_EUSAGE, "info takes one file or PREFIX, found %d", argc - first);
        return fkm_hint(e, "fkm info data.npy");
    }
    FKM_TRY(run_prefix(&prefix, argv[first], e));
    if (prefix) {
        fkm_status st = show_run(prefix, &a.common, e);
        fkm_free(prefix);
        return st;
    }
    fkm_reader *in;
    FKM_TRY(cmd_open_input(&in, &a.common, argv + first, 1, e));
    fkm_status st = show_file(in, &a, e);
    fkm_reader_close(in);
    return st;
}

const cmd cmd_info = {
    .name = "info",
    .about = "show what a file holds, or verify the files of a run",
    .usage = "[options] FILE|PREFIX",
    .examples = "  fkm info data.fvecs                  shape, type and size\n"
                "  fkm info --full data.npy             smallest, largest, NaN, damaged rows\n"
                "  fkm info data.k1000                  are its files still those of the run?\n",
    .groups = info_groups,
    .run = run_info,
};
