/* fkm fit: cluster a data set and write centroids, labels and statistics. */
#include "cmd.h"
#include "print.h"
#include "progress.h"

#include "../src/base/checked.h"
#include "../src/base/clock.h"
#include "../src/base/file.h"
#include "../src/base/log.h"
#include "../src/base/mem.h"
#include "../src/base/sysinfo.h"
#include "../src/output.h"
#include "../src/stats.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define WRITE_ELEMENTS ((int64_t)1 << 20) /* between two looks at the stop flag */

struct fit_args {
    fkm_fit_options fit;
    const char *output, *init, *warm;
    int format, empty, nan, outdated;
    double checkpoint_s, time_limit_s; /* 0: off, none */
    bool force, fresh, dry_run;
    bool named_init; /* --init is not a file */
    common_args common;
};

enum { NAN_ERROR, NAN_SKIP };
enum { OUTDATED_STOP, OUTDATED_DISCARD };

#define AT(field) offsetof(struct fit_args, field)

/* clang-format off */
static const opt fit_rows[] = {
    {.kind = OPT_COUNT, .letter = 'k', .name = "clusters", .offset = AT(fit.clusters), .metavar = "N",
        .min = 1, .max = FKM_MAX_CLUSTERS, .help = "number of clusters (required); 32k = 32000, 1M = 1000000"},
    {.kind = OPT_TEXT, .letter = 'o', .name = "output", .offset = AT(output), .metavar = "PREFIX",
        .help = "write PREFIX.centroids.EXT, PREFIX.labels.EXT and PREFIX.stats.json (default: base name "
            "of the input + .kK, in the working directory)"},
    {.kind = OPT_CHOICE, .name = "format", .offset = AT(format), .metavar = "npy|fvecs|fbin|h5",
        .choices = "npy|fvecs|fbin|h5", .show_default = true,
        .help = "format of the outputs: npy (float32, int32), fvecs + ivecs, fbin + ibin, or one PREFIX.h5 "
            "with /centroids and /labels"},
    {.kind = OPT_TEXT, .letter = 'i', .name = "init", .offset = AT(init), .metavar = "NAME|FILE|PREFIX",
        .show_default = true,
        .help = "first centroids: random (distinct rows), k-means++ or k-means|| (rows far from each "
            "other), a file of K centroids, or those of an earlier run"},
    {.kind = OPT_TEXT, .name = "warm", .offset = AT(warm), .metavar = "PREFIX",
        .help = "start from the centroids of that run if it is there, else by --init; cluster ids stay"},
    {.kind = OPT_COUNT, .letter = 'n', .name = "max-iter", .offset = AT(fit.max_iter), .metavar = "N",
        .min = 1, .max = 1000000000, .show_default = true, .help = "most iterations"},
    {.kind = OPT_REAL, .letter = 't', .name = "tol", .offset = AT(fit.tol), .metavar = "X",
        .min = 0, .max = 1, .show_default = true,
        .help = "stop when the relative decrease of inertia falls below X; 0: run until no label changes"},
    {.kind = OPT_SEED, .letter = 's', .name = "seed", .offset = AT(fit.seed), .metavar = "N",
        .show_default = true, .help = "seed of all random choices; the same seed gives the same bits"},
    {.kind = OPT_COUNT, .name = "restarts", .offset = AT(fit.restarts), .metavar = "N",
        .min = 1, .max = 1000000, .show_default = true,
        .help = "starts from N seeds (the seed, the seed + 1 and so on); the one of least inertia is kept"},
    {.kind = OPT_CHOICE, .name = "empty", .offset = AT(empty), .metavar = "farthest|keep|error",
        .choices = "farthest|keep|error", .later = "split", .show_default = true,
        .help = "a cluster that loses all its rows takes the row farthest from its own centroid, keeps "
            "its centroid, or ends the run"},
    {.kind = OPT_CHOICE, .name = "nan", .offset = AT(nan), .metavar = "error|skip",
        .choices = "error|skip", .show_default = true,
        .help = "rows with NaN or infinity end the run, or get label -1 and are counted"},
    {.kind = OPT_FLAG, .name = "no-labels", .offset = AT(fit.no_labels), .help = "do not write labels"},
    {.kind = OPT_FLAG, .letter = 'f', .name = "force", .offset = AT(force),
        .help = "replace existing outputs"},
    {.kind = OPT_FLAG, .name = "dry-run", .offset = AT(dry_run),
        .help = "make all checks and print the plan: reading, memory, predicted time, sizes of outputs"},
    {.kind = OPT_LATER, .name = "metric"},
    {.kind = OPT_LATER, .name = "weights"},
    {.kind = OPT_LATER, .name = "sample"},
    {.kind = OPT_END},
};

static const opt state_rows[] = {
    {.kind = OPT_TIME, .name = "checkpoint", .offset = AT(checkpoint_s), .metavar = "TIME|off",
        .choices = "off", .show_default = true,
        .help = "save the state in PREFIX.checkpoint every so often, and when a signal or the time limit "
            "ends the run; the same command resumes from it"},
    {.kind = OPT_FLAG, .name = "fresh", .offset = AT(fresh),
        .help = "start anew; a checkpoint that is there is removed"},
    {.kind = OPT_CHOICE, .name = "outdated", .offset = AT(outdated), .metavar = "stop|discard",
        .choices = "stop|discard", .show_default = true,
        .help = "a checkpoint of other data, options or version of fkm ends the run, or is removed and the "
            "run starts anew"},
    {.kind = OPT_TIME, .name = "time-limit", .offset = AT(time_limit_s), .metavar = "TIME",
        .help = "save the state and exit with status 75 after so long: 90s, 10m, 3h (default: none)"},
    {.kind = OPT_END},
};

static const opt_group fit_groups[] = {
    {"Clustering", fit_rows},
    {"Interruption", state_rows},
    {"Input", common_input_rows},
    {"Machine", common_machine_rows},
    {"Talk", common_talk_rows},
    {NULL, NULL},
};

/* Row f is --format's choice f. */
static const struct {
    const char *centroids, *labels;               /* formats */
    const char *centroids_suffix, *labels_suffix; /* labels NULL: in the same file */
} kinds[] = {
    {"npy", "npy", ".centroids.npy", ".labels.npy"},
    {"fvecs", "ivecs", ".centroids.fvecs", ".labels.ivecs"},
    {"fbin", "ibin", ".centroids.fbin", ".labels.ibin"},
    {"h5", NULL, ".h5", NULL},
};
/* clang-format on */

static_assert(FKM_EMPTY_FARTHEST == 0 && FKM_EMPTY_KEEP == 1 && FKM_EMPTY_ERROR == 2,
    "the order of --empty's choices");
static_assert(FKM_INIT_RANDOM == 0 && FKM_INIT_PLUSPLUS == 1 && FKM_INIT_PARALLEL == 2,
    "the order of init_names");

/* One fit, from open files to published ones. */
struct job {
    struct fit_args *args;
    const char *line; /* command line, quoted */
    fkm_reader *in;
    centroids init;
    char *prefix, *state_path, *key;
    fkm_saving saving;
    char *paths[3];   /* labels (unless in one file, or not wanted), centroids, stats */
    int64_t bytes[3]; /* expected */
    int count;        /* of paths; the last two are always centroids and stats */
    fkm_outputs *outputs;
    fkm_result result;
    progress progress;
    double start, write_s;
    char started_utc[32];
};

/* ---- before the work ---- */

/* Row m is fkm_init_method m. */
static const char *const init_names[] = {"random", "k-means++", "k-means||"};
enum { INITS = sizeof init_names / sizeof init_names[0] };

static bool find_init(const char *name, fkm_init_method *out)
{
    for (int m = 0; m < INITS; m++)
        if (!strcmp(name, init_names[m])) {
            *out = (fkm_init_method)m;
            return true;
        }
    return false;
}

/* A file that is not there may be a name that was mistyped. */
static fkm_status hint_init(fkm_status st, const char *name, fkm_err *e)
{
    const char *nearest = opt_nearest(name, init_names, INITS);
    return st == FKM_EFILE && nearest ? fkm_hint(e, "did you mean --init '%s'?", nearest) : st;
}

static fkm_status check_args(struct fit_args *a, int operands, char **paths, fkm_err *e)
{
    if (a->fit.clusters == 0) {
        fkm_fail(e, FKM_EUSAGE, "the number of clusters is missing");
        return fkm_hint(e, "give it with -k: fkm fit -k 1000 %s", operands ? paths[0] : "data.npy");
    }
    if (operands == 0) {
        fkm_fail(e, FKM_EUSAGE, "no input file given");
        return fkm_hint(e, "fkm fit -k %" PRId32 " data.npy", a->fit.clusters);
    }
    if (!a->output)
        FKM_TRY(cmd_check_name(paths[0], "-o PREFIX", e));
    a->named_init = find_init(a->init, &a->fit.method);
    if ((a->warm || !a->named_init) && a->fit.restarts > 1) {
        fkm_fail(e, FKM_EUSAGE, "--restarts %" PRId32 " with --%s %s: all starts would be the same",
            a->fit.restarts, a->warm ? "warm" : "init", a->warm ? a->warm : a->init);
        return fkm_hint(e, "leave one of them out, or use random, k-means++ or k-means||");
    }
    if (a->checkpoint_s == 0 && (a->time_limit_s > 0 || a->fresh)) {
        fkm_fail(e, FKM_EUSAGE, "%s and --checkpoint off exclude each other",
            a->fresh ? "--fresh" : "--time-limit");
        return fkm_hint(e, "leave out --checkpoint off");
    }
    a->fit.empty = (fkm_empty_policy)a->empty;
    a->fit.skip_nan = a->nan == NAN_SKIP;
    return FKM_OK;
}

/* A seventh of the memory that many centroids take, beside the rows. */
static void free_init(void *init)
{
    centroids *c = init;
    fkm_free(c->values);
    c->values = NULL;
}

/* The run of --warm, once there is one. */
static fkm_status find_warm(struct fit_args *a, fkm_err *e)
{
    char *stats;
    if (!a->warm)
        return FKM_OK;
    FKM_TRY(fkm_asprintf(&stats, e, "%s.stats.json", a->warm));
    if (fkm_path_exists(stats)) {
        a->init = a->warm;
        a->named_init = false;
    }
    fkm_free(stats);
    return FKM_OK;
}

static fkm_status load_init(struct job *job, fkm_err *e)
{
    FKM_TRY(find_warm(job->args, e));
    const char *name = job->args->init;
    const fkm_shape *shape = fkm_reader_shape(job->in);
    fkm_fit_options *fit = &job->args->fit;
    if (job->args->named_init)
        return FKM_OK;
    fkm_status st = centroids_load(&job->init, name, e);
    if (st != FKM_OK)
        return hint_init(st, name, e);
    const centroids *c = &job->init;
    if (c->clusters != fit->clusters) {
        fkm_fail(e, FKM_EDATA, "%s holds %" PRId32 " centroids, expected %" PRId32, c->path,
            c->clusters, fit->clusters);
        return fkm_hint(e, "cluster with -k %" PRId32 ", or start from another file", c->clusters);
    }
    if (c->dims != shape->dims)
        return fkm_fail(e, FKM_EDATA, "%s has %" PRId32 " dimensions, the data %" PRId32, c->path,
            c->dims, shape->dims);
    if (c->is_batch && c->batch != shape->batch)
        return fkm_fail(e, FKM_EDATA, "%s is a batch of %" PRId64 ", the data of %" PRId64, c->path,
            c->batch, shape->batch);
    fit->init = c->values;
    fit->init_batch = c->is_batch;
    fit->init_read = free_init;
    fit->init_arg = &job->init;
    return FKM_OK;
}

static fkm_status choose_prefix(struct job *job, fkm_err *e)
{
    char *base;
    if (job->args->output)
        return fkm_strdup(&job->prefix, job->args->output, e);
    FKM_TRY(fkm_path_base(&base, fkm_reader_input(job->in, 0)->path, e));
    fkm_status st = fkm_asprintf(&job->prefix, e, "%s.k%" PRId32, base, job->args->fit.clusters);
    fkm_free(base);
    return st;
}

static fkm_status add_path(struct job *job, const char *suffix, fkm_err *e)
{
    FKM_TRY(fkm_asprintf(&job->paths[job->count], e, "%s%s", job->prefix, suffix));
    job->count++;
    return FKM_OK;
}

/* Labels as a file of their own? */
static bool separate_labels(const struct job *job)
{
    return kinds[job->args->format].labels_suffix && !job->args->fit.no_labels;
}

static fkm_array_spec centroids_spec(const struct job *job)
{
    const fkm_shape *s = fkm_reader_shape(job->in);
    int32_t k = job->args->fit.clusters;
    if (s->ndim == 3)
        return (fkm_array_spec){"centroids", FKM_F32, 3, {s->batch, k, s->dims}};
    return (fkm_array_spec){"centroids", FKM_F32, 2, {k, s->dims, 0}};
}

static fkm_array_spec labels_spec(const struct job *job)
{
    const fkm_shape *s = fkm_reader_shape(job->in);
    if (s->ndim == 3)
        return (fkm_array_spec){"labels", FKM_I32, 2, {s->batch, s->rows, 0}};
    return (fkm_array_spec){"labels", FKM_I32, 1, {s->rows, 0, 0}};
}

/* A file that -f --no-labels leaves behind would look as if it belonged to the new centroids. */
static void warn_of_old_labels(const struct job *job)
{
    const char *suffix = kinds[job->args->format].labels_suffix;
    char *path;
    fkm_err ignored = {0};
    if (!job->args->fit.no_labels || !suffix ||
        fkm_asprintf(&path, &ignored, "%s%s", job->prefix, suffix) != FKM_OK)
        return;
    if (fkm_path_exists(path))
        fkm_warn("%s is of an earlier run and will not fit the new centroids", path);
    fkm_free(path);
}

/* The checkpoint, unless it is off. */
static fkm_status set_up_saving(struct job *job, fkm_outputs_spec *spec, fkm_err *e)
{
    struct fit_args *a = job->args;
    FKM_TRY(fkm_asprintf(&job->state_path, e, "%s.checkpoint", job->prefix));
    if (a->checkpoint_s == 0) {
        if (fkm_path_exists(job->state_path))
            fkm_warn("%s is left alone (--checkpoint off)", job->state_path);
        return FKM_OK;
    }
    job->saving = (fkm_saving){.path = job->state_path,
        .every_s = a->checkpoint_s,
        .fresh = a->fresh,
        .discard = a->outdated == OUTDATED_DISCARD};
    a->fit.saving = &job->saving;
    spec->state = job->state_path;
    spec->state_bytes = fkm_fit_state_bytes(&a->fit, fkm_reader_shape(job->in));
    return FKM_OK;
}

/* Centroids of an earlier run may be those that the new ones replace: read when no other run can be
 * at it any more, and what one that was killed had set aside is back. */
static fkm_status prepare(void *arg, const char **key, fkm_err *e)
{
    struct job *job = arg;
    FKM_TRY(load_init(job, e));
    if (job->args->fresh)
        return FKM_OK;
    FKM_TRY(fkm_fit_key(&job->key, &job->args->fit, job->in, e));
    *key = job->key;
    return FKM_OK;
}

static fkm_status open_outputs(struct job *job, fkm_err *e)
{
    int format = job->args->format, inputs = fkm_reader_input_count(job->in);
    fkm_array_spec center = centroids_spec(job), labels = labels_spec(job);
    fkm_output_guard *guards = NULL;
    FKM_TRY(choose_prefix(job, e));
    if (separate_labels(job))
        FKM_TRY(add_path(job, kinds[format].labels_suffix, e));
    FKM_TRY(add_path(job, kinds[format].centroids_suffix, e));
    FKM_TRY(add_path(job, ".stats.json", e));
    FKM_TRY(fkm_calloc(&guards, inputs, sizeof *guards, "the list of inputs", e));
    fkm_outputs_spec spec = {.lock_name = job->prefix,
        .count = job->count,
        .force = job->args->force,
        .look_only = job->args->dry_run,
        .prepare = prepare,
        .arg = job,
        .guards = guards,
        .guard_count = inputs};
    for (int i = 0; i < inputs; i++)
        guards[i] = (fkm_output_guard){
            fkm_reader_input(job->in, i)->path, fkm_reader_input(job->in, i)->id};
    for (int i = 0; i < job->count; i++)
        spec.paths[i] = job->paths[i];
    int c = job->count - 2;
    fkm_array_spec both[2] = {center, labels};
    bool one_file = !kinds[format].labels_suffix && !job->args->fit.no_labels;
    spec.bytes[c] = fkm_writer_predict_bytes(kinds[format].centroids, both, one_file ? 2 : 1);
    spec.bytes[c + 1] = fkm_fit_json_bytes(&job->args->fit, job->in);
    if (c > 0)
        spec.bytes[0] = fkm_writer_predict_bytes(kinds[format].labels, &labels, 1);
    memcpy(job->bytes, spec.bytes, sizeof job->bytes);
    fkm_status st = set_up_saving(job, &spec, e);
    if (st == FKM_OK)
        st = fkm_outputs_open(&job->outputs, &spec, e);
    fkm_free(guards);
    FKM_TRY(st);
    if (fkm_outputs_are_complete(job->outputs))
        return FKM_OK;
    warn_of_old_labels(job);
    if (c > 0)
        FKM_TRY(fkm_outputs_rehearse(job->outputs, 0, kinds[format].labels, &labels, e));
    return fkm_outputs_rehearse(job->outputs, c, kinds[format].centroids, &center, e);
}

/* ---- after the work ---- */

/* One array in pieces, so that a signal is heard. */
static fkm_status write_array(
    fkm_writer *w, const fkm_array_spec *spec, const void *data, fkm_err *e)
{
    int64_t total = 1, size = (int64_t)fkm_dtype_size(spec->dtype);
    for (int i = 0; i < spec->ndim; i++)
        total *= spec->dim[i]; /* the array is in memory: it fits */
    FKM_TRY(fkm_writer_array(w, spec, e));
    for (int64_t at = 0, now; at < total; at += now) {
        if (*cmd_stop_flag() && *cmd_stop_flag() != SIGALRM) /* for that it is too late */
            return fkm_fail(e, FKM_ESTOPPED, "stopped while writing");
        now = fkm_min_i64(WRITE_ELEMENTS, total - at);
        FKM_TRY(fkm_writer_write(w, (const char *)data + at * size, now, e));
    }
    return FKM_OK;
}

static fkm_status write_arrays(struct job *job, fkm_output_info *info, fkm_err *e)
{
    int format = job->args->format, c = job->count - 2;
    fkm_array_spec center = centroids_spec(job), labels = labels_spec(job);
    fkm_writer *w[2] = {NULL, NULL};
    if (c > 0) {
        FKM_TRY(fkm_outputs_writer(job->outputs, 0, kinds[format].labels, &w[0], e));
        FKM_TRY(write_array(w[0], &labels, job->result.labels, e));
        FKM_TRY(fkm_writer_finish(w[0], e));
    }
    FKM_TRY(fkm_outputs_writer(job->outputs, c, kinds[format].centroids, &w[c], e));
    FKM_TRY(write_array(w[c], &center, job->result.centroids, e));
    if (!kinds[format].labels_suffix && !job->args->fit.no_labels)
        FKM_TRY(write_array(w[c], &labels, job->result.labels, e));
    FKM_TRY(fkm_writer_finish(w[c], e));
    for (int i = 0; i <= c; i++)
        info[i] = (fkm_output_info){job->paths[i], fkm_writer_bytes(w[i]), fkm_writer_crc32c(w[i])};
    return FKM_OK;
}

static fkm_status file_sink(void *arg, const char *text, size_t len, fkm_err *e)
{
    return fkm_outfile_write(arg, text, len, e);
}

static fkm_fit_report report_of(const struct job *job, const fkm_output_info *info)
{
    return (fkm_fit_report){
        .common =
            {
                .command = job->line,
                .started_utc = job->started_utc,
                .in = job->in,
                .run = &job->result.run,
                .outputs = info,
                .output_count = job->count - 1,
                .total_s = fkm_now() - job->start,
                .write_s = job->write_s,
                .peak_bytes = fkm_peak_memory(),
            },
        .options = &job->args->fit,
        .init = job->init.path ? job->init.path : job->args->init,
        .result = &job->result,
    };
}

static fkm_status write_outputs(struct job *job, fkm_err *e)
{
    fkm_output_info info[2];
    fkm_outfile *stats = NULL;
    double begin = fkm_now();
    FKM_TRY(write_arrays(job, info, e));
    job->write_s = fkm_now() - begin;
    fkm_fit_report report = report_of(job, info);
    FKM_TRY(fkm_outputs_file(job->outputs, job->count - 1, &stats, e));
    FKM_TRY(fkm_fit_json(&report, file_sink, stats, e));
    FKM_TRY(fkm_outfile_finish(stats, e));
    FKM_TRY(fkm_outputs_publish(job->outputs, e));
    if (job->args->common.json)
        return fkm_fit_json(&report, cmd_stdout_sink, NULL, e);
    if (job->args->common.quiet)
        return FKM_OK;
    return fkm_fit_summary(&report, job->paths[job->count - 1], cmd_stdout_sink, NULL, e);
}

/* ---- instead of the work ---- */

/* Prints a file that may be larger than what is worth holding. */
static fkm_status print_file(const char *path, fkm_err *e)
{
    char piece[1 << 14];
    fkm_file *f = NULL;
    fkm_status st = FKM_OK;
    FKM_GO(fkm_file_open(&f, path, e));
    for (int64_t at = 0, end = fkm_file_bytes(f), n; at < end; at += n) {
        n = fkm_min_i64((int64_t)sizeof piece, end - at);
        FKM_GO(fkm_file_read(f, at, piece, (size_t)n, e));
        FKM_GO(cmd_stdout_sink(NULL, piece, (size_t)n, e));
    }
out:
    fkm_file_close(f);
    return st;
}

/* The run that made the outputs was killed before it could say so. */
static fkm_status tell_complete(const struct job *job, fkm_err *e)
{
    const char *stats = job->paths[job->count - 1];
    if (!job->args->common.quiet)
        print_err("fkm: %s is already complete: the run that wrote it was killed before it ended\n",
            stats);
    return job->args->common.json ? print_file(stats, e) : FKM_OK;
}

/* All checks have passed; the lock is given back, so that a run may begin meanwhile. */
static fkm_status print_plan(struct job *job, fkm_err *e)
{
    const struct fit_args *a = job->args;
    fkm_preview preview;
    fkm_output_info info[2];
    fkm_observer observer = {.stop = cmd_stop_flag()};
    fkm_outputs_close(job->outputs);
    job->outputs = NULL;
    FKM_TRY(fkm_fit_preview(&preview, job->in, &a->fit, &observer, e));
    for (int i = 0; i < job->count - 1; i++)
        info[i] = (fkm_output_info){job->paths[i], job->bytes[i], 0};
    fkm_preview_report report = {
        .common =
            {
                .command = job->line,
                .started_utc = job->started_utc,
                .in = job->in,
                .outputs = info,
                .output_count = job->count - 1,
            },
        .options = &a->fit,
        .init = job->init.path ? job->init.path : a->init,
        .preview = &preview,
    };
    if (a->common.json)
        return fkm_preview_json(&report, cmd_stdout_sink, NULL, e);
    if (a->common.quiet)
        return FKM_OK;
    return fkm_preview_summary(&report, job->paths[job->count - 1], cmd_stdout_sink, NULL, e);
}

/* ---- */

/* --json tells how far the run got; there are no outputs yet. */
static fkm_status print_progress(const struct job *job, fkm_err *e)
{
    fkm_fit_report report = report_of(job, NULL);
    report.common.output_count = 0;
    report.stopped = true;
    return fkm_fit_json(&report, cmd_stdout_sink, NULL, e);
}

/* What the same command needs besides. */
static const char *if_piped(const struct job *job)
{
    for (int i = 0; i < fkm_reader_input_count(job->in); i++)
        if (fkm_reader_input(job->in, i)->piped)
            return ", given the same rows through the pipe again";
    return "";
}

/* The end of the time limit. Without a state, the same command would end in the same place. */
static fkm_status time_is_over(const struct job *job, fkm_err *e)
{
    const fkm_saving *s = &job->saving;
    char limit[40];
    opt_time_text(limit, sizeof limit, job->args->time_limit_s);
    if (!s->kept && s->failed)
        return fkm_fail(
            e, FKM_EFILE, "--time-limit %s is over, and the state was not saved", limit);
    if (!s->kept) {
        fkm_fail(e, FKM_EUSAGE,
            "--time-limit %s is over before the first centroids were chosen: nothing was saved",
            limit);
        return fkm_hint(e, "give it more time");
    }
    if (s->resumes > 0 && s->advanced == 0)
        fkm_warn("no iteration was completed since the run was resumed: give it more time than "
                 "--time-limit %s",
            limit);
    if (job->args->common.json)
        FKM_TRY(print_progress(job, e));
    fkm_fail(e, FKM_ESTOPPED, "--time-limit %s is over; the state is in %s", limit, s->path);
    return fkm_hint(e, "the same command goes on from there%s", if_piped(job));
}

/* Says where the state is, after an end that it survives. */
static fkm_status explain_end(const struct job *job, fkm_status st, fkm_err *e)
{
    const fkm_saving *s = &job->saving;
    int number = *cmd_stop_flag();
    if (st == FKM_ESTOPPED && number == SIGALRM)
        return time_is_over(job, e);
    if (!s->kept)
        return st;
    if (st == FKM_ESTOPPED) {
        fkm_fail(e, st, "stopped by signal %d (%s); the state is in %s", number, strsignal(number),
            s->path);
        return fkm_hint(
            e, "the same command goes on from there%s; --fresh starts anew", if_piped(job));
    }
    if (st == FKM_EDEVICE)
        return fkm_hint(e,
            "the same command goes on from %.120s, also with --device cpu: the results are the "
            "same bits%s",
            s->path, if_piped(job));
    if ((st == FKM_EFILE || st == FKM_ENOMEM) && !s->refused) {
        char advice[sizeof e->hint];
        snprintf(advice, sizeof advice, "%s", e->hint);
        return fkm_hint(e, "%.150s%sthe same command goes on from %.120s%s", advice,
            advice[0] ? "; " : "", s->path, if_piped(job));
    }
    return st;
}

static fkm_status compute(struct job *job, fkm_err *e)
{
    struct fit_args *a = job->args;
    progress_begin(&job->progress, &a->common, job->in, a->fit.clusters);
    job->progress.restarts = a->fit.restarts;
    fkm_observer observer = progress_observer(&job->progress);
    fkm_status st = fkm_fit(&job->result, job->in, &a->fit, &observer, e);
    progress_end(&job->progress);
    return st;
}

/* The result is there, and its files are not: keeps it for the next run. */
static void keep_result(struct job *job, fkm_status st)
{
    fkm_err e = {0};
    if (!job->args->fit.saving || (st != FKM_ESTOPPED && st != FKM_EFILE))
        return;
    if (fkm_fit_keep(&job->result, job->in, &job->args->fit, &e) != FKM_OK)
        fkm_warn("the result was not saved either: %s", e.msg);
}

static fkm_status fit_and_write(struct job *job, fkm_err *e)
{
    const struct fit_args *a = job->args;
    cmd_catch_signals();
    FKM_TRY(fkm_fit_check(&job->args->fit, fkm_reader_shape(job->in), e));
    FKM_TRY(open_outputs(job, e));
    if (fkm_outputs_are_complete(job->outputs))
        return tell_complete(job, e);
    if (a->dry_run)
        return print_plan(job, e);
    if (a->time_limit_s > 0)
        cmd_limit_time(a->time_limit_s - (fkm_now() - job->start));
    fkm_status st = compute(job, e);
    if (st == FKM_OK) {
        st = write_outputs(job, e);
        if (st != FKM_OK)
            keep_result(job, st);
    }
    return explain_end(job, st, e);
}

/* Pictures are often kept in three dimensions by those who want them clustered together. */
static void tell_batch(const struct job *job)
{
    const fkm_shape *s = fkm_reader_shape(job->in);
    char advice[120];
    if (s->ndim == 3)
        fkm_note("%s: 3-D, so %" PRId64 " independent problems of %" PRId64 " rows each; for one "
                 "data set save %s",
            fkm_reader_input(job->in, 0)->path, s->batch, s->rows,
            cmd_batch_advice(advice, sizeof advice, job->in));
}

static void tell_pipes(const struct job *job)
{
    for (int i = 0; i < fkm_reader_input_count(job->in); i++)
        if (fkm_reader_input(job->in, i)->piped)
            fkm_note("%s: a pipe, which was copied to a temporary file: fit reads its data many "
                     "times",
                fkm_reader_input(job->in, i)->path);
}

static void close_job(struct job *job)
{
    fkm_result_free(&job->result);
    centroids_free(&job->init);
    fkm_reader_close(job->in);
    fkm_outputs_close(job->outputs); /* last: as long as it is open, a kill is noticed */
    for (int i = 0; i < job->count; i++)
        fkm_free(job->paths[i]);
    fkm_free(job->prefix);
    fkm_free(job->state_path);
    fkm_free(job->key);
}

static fkm_status run_fit(const cmd *self, int argc, char **argv, const char *line, fkm_err *e)
{
    struct fit_args a = {.init = "random", .checkpoint_s = 600};
    struct job job = {.args = &a, .line = line, .start = fkm_now()};
    int first;
    bool done;
    fkm_utc_text(job.started_utc, sizeof job.started_utc);
    fkm_fit_options_default(&a.fit);
    common_args_default(&a.common);
    void *const bases[] = {&a, &a, &a.common, &a.common, &a.common};
    FKM_TRY(cmd_parse(self, bases, &a.common, argc, argv, &first, &done, e));
    if (done)
        return FKM_OK;
    FKM_TRY(check_args(&a, argc - first, argv + first, e));
    a.fit.machine = a.common.machine;
    fkm_status st = cmd_open_input(&job.in, &a.common, argv + first, argc - first, e);
    if (st == FKM_OK) {
        tell_pipes(&job);
        tell_batch(&job);
    }
    if (st == FKM_OK)
        st = fit_and_write(&job, e);
    close_job(&job);
    return st;
}

const cmd cmd_fit = {
    .name = "fit",
    .about = "cluster vectors by exact k-means",
    .usage = "-k K [options] DATA...",
    .examples =
        "  fkm fit -k 1000 data.fvecs            write data.k1000.centroids.npy and so on\n"
        "  fkm fit -k 32k -o out/run *.npy       several files, in this order, as one\n"
        "  fkm fit -k 1000 -i old.k1000 new.npy  start from an earlier run's centroids\n"
        "  fkm fit -k 64 -i k-means++ --restarts 10 data.npy  the best of ten starts\n"
        "  fkm fit -k 256 -t 0 -m 8G big.u8bin  to the exact fixpoint, in 8 GiB of memory\n",
    .groups = fit_groups,
    .run = run_fit,
};
