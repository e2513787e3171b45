/* fkm predict: the nearest centroids of every row, in one pass. */
#include "cmd.h"
#include "progress.h"

#include "../src/base/checked.h"
#include "../src/base/clock.h"
#include "../src/base/file.h"
#include "../src/base/mem.h"
#include "../src/base/sysinfo.h"
#include "../src/output.h"
#include "../src/stats.h"

#include <inttypes.h>
#include <string.h>

#define CONVERT_ELEMENTS 4096 /* distances rounded to float32 at a time */

struct predict_args {
    const char *centroids, *output, *distances;
    int format; /* 0: by suffix */
    int32_t top;
    int nan;
    bool force;
    common_args common;
};

enum { NAN_ERROR, NAN_SKIP };

#define AT(field) offsetof(struct predict_args, field)

/* clang-format off */
static const opt predict_rows[] = {
    {.kind = OPT_TEXT, .letter = 'c', .name = "centroids", .offset = AT(centroids),
        .metavar = "FILE|PREFIX",
        .help = "file of centroids, or the PREFIX of a run of fit (required)"},
    {.kind = OPT_TEXT, .letter = 'o', .name = "output", .offset = AT(output), .metavar = "FILE",
        .help = "write labels (int32) to FILE; its suffix .npy, .ivecs, .ibin or .h5 decides the format "
            "(default: base name of the input + .labels.npy, in the working directory)"},
    {.kind = OPT_CHOICE, .name = "format", .offset = AT(format), .metavar = "auto|npy|fvecs|fbin|h5",
        .choices = "auto|npy|fvecs|fbin|h5", .show_default = true,
        .help = "format of the outputs, whatever their suffixes: npy, ivecs + fvecs, ibin + fbin, or h5"},
    {.kind = OPT_TEXT, .name = "distances", .offset = AT(distances), .metavar = "FILE",
        .help = "write the squared distances too (float32)"},
    {.kind = OPT_COUNT, .name = "top", .offset = AT(top), .metavar = "M", .min = 1, .max = FKM_MAX_TOP,
        .help = "the M nearest centroids of every row, nearest first: labels and distances get a second "
            "dimension (default: the nearest alone, in one dimension)"},
    {.kind = OPT_CHOICE, .name = "nan", .offset = AT(nan), .metavar = "error|skip",
        .choices = "error|skip", .show_default = true,
        .help = "rows with NaN or infinity end the run, or get label -1 and distance NaN"},
    {.kind = OPT_FLAG, .letter = 'f', .name = "force", .offset = AT(force),
        .help = "replace existing outputs"},
    {.kind = OPT_LATER, .name = "metric"},
    {.kind = OPT_END},
};

static const opt_group predict_groups[] = {
    {"Labelling", predict_rows},
    {"Input", common_input_rows},
    {"Machine", common_machine_rows},
    {"Talk", common_talk_rows},
    {NULL, NULL},
};

/* Row f is --format's choice f; row 0 stands for "by suffix" and holds the defaults. */
static const struct {
    const char *labels, *labels_suffix, *distances;
} kinds[] = {
    {"npy", ".labels.npy", "npy"},
    {"npy", ".labels.npy", "npy"},
    {"ivecs", ".labels.ivecs", "fvecs"},
    {"ibin", ".labels.ibin", "fbin"},
    {"h5", ".labels.h5", "h5"},
};

static const struct {
    const char *suffix, *labels, *distances; /* formats; NULL: the format has no such element type */
} suffixes[] = {
    {".npy", "npy", "npy"},
    {".ivecs", "ivecs", NULL},
    {".fvecs", NULL, "fvecs"},
    {".ibin", "ibin", NULL},
    {".fbin", NULL, "fbin"},
    {".h5", "h5", "h5"},
    {".hdf5", "h5", "h5"},
};
/* clang-format on */

/* One predict, from open files to published ones. */
struct job {
    struct predict_args *args;
    const char *line, *first; /* command line, first operand */
    fkm_reader *in;
    centroids centroids;
    fkm_array_spec labels_spec, distances_spec;
    const char *labels_format, *distances_format;
    char *labels_path;
    fkm_outputs *outputs; /* distances (if wanted), then labels */
    fkm_writer *labels, *distances;
    int64_t rows;
    fkm_run_stats run;
    progress progress;
    double start, write_s;
    char started_utc[32];
};

/* ---- before the work ---- */

static fkm_status check_args(const struct predict_args *a, int operands, fkm_err *e)
{
    if (!a->centroids) {
        fkm_fail(e, FKM_EUSAGE, "the centroids are missing");
        return fkm_hint(e, "give them with -c: fkm predict -c data.k1000 new.npy");
    }
    if (operands == 0) {
        fkm_fail(e, FKM_EUSAGE, "no input file given");
        return fkm_hint(e, "'-' reads standard input");
    }
    return FKM_OK;
}

static fkm_status check_shapes(const struct job *job, fkm_err *e)
{
    const fkm_shape *s = fkm_reader_shape(job->in);
    const centroids *c = &job->centroids;
    if (c->dims != s->dims) {
        fkm_fail(e, FKM_EDATA, "%s has %" PRId32 " dimensions, the data %" PRId32, c->path, c->dims,
            s->dims);
        return fkm_hint(e, "centroids and data must come from the same kind of vectors");
    }
    if (c->is_batch && c->batch != s->batch)
        return fkm_fail(e, FKM_EDATA, "%s is a batch of %" PRId64 ", the data of %" PRId64, c->path,
            c->batch, s->batch);
    if (job->args->top > c->clusters)
        return fkm_fail(e, FKM_EUSAGE, "--top %" PRId32 ": there are %" PRId32 " centroids",
            job->args->top, c->clusters);
    return FKM_OK;
}

/* *out = the writer's name for `path`, by --format or by suffix. */
static fkm_status choose_format(
    const char **out, const struct predict_args *a, const char *path, bool labels, fkm_err *e)
{
    const char *suffix = fkm_path_suffix(path);
    *out = labels ? kinds[a->format].labels : kinds[a->format].distances;
    if (a->format != 0)
        return FKM_OK;
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++)
        if (!strcmp(suffix, suffixes[i].suffix)) {
            *out = labels ? suffixes[i].labels : suffixes[i].distances;
            if (*out)
                return FKM_OK;
        }
    fkm_fail(e, FKM_EUSAGE, "%s: the suffix names no format for %s", path,
        labels ? "labels" : "distances");
    return fkm_hint(e, labels ? "use .npy, .ivecs, .ibin or .h5, or give --format"
                              : "use .npy, .fvecs, .fbin or .h5, or give --format");
}

static fkm_status choose_names(struct job *job, fkm_err *e)
{
    const struct predict_args *a = job->args;
    char *base;
    if (a->output) {
        FKM_TRY(fkm_strdup(&job->labels_path, a->output, e));
    } else {
        FKM_TRY(fkm_path_base(&base, strcmp(job->first, "-") != 0 ? job->first : "stdin", e));
        fkm_status st =
            fkm_asprintf(&job->labels_path, e, "%s%s", base, kinds[a->format].labels_suffix);
        fkm_free(base);
        FKM_TRY(st);
    }
    FKM_TRY(choose_format(&job->labels_format, a, job->labels_path, true, e));
    if (a->distances)
        FKM_TRY(choose_format(&job->distances_format, a, a->distances, false, e));
    return FKM_OK;
}

/* [batch][rows][top], without the dimensions that were not asked for. */
static fkm_array_spec spec_of(const struct job *job, const char *name, fkm_dtype dtype)
{
    const fkm_shape *s = fkm_reader_shape(job->in);
    fkm_array_spec spec = {.name = name, .dtype = dtype};
    if (s->ndim == 3)
        spec.dim[spec.ndim++] = s->batch;
    spec.dim[spec.ndim++] = s->rows;
    if (job->args->top > 0)
        spec.dim[spec.ndim++] = job->args->top;
    return spec;
}

static fkm_status guard_inputs(struct job *job, fkm_outputs_spec *spec, fkm_err *e)
{
    int inputs = fkm_reader_input_count(job->in);
    fkm_output_guard *guards;
    FKM_TRY(fkm_calloc(&guards, inputs + 1, sizeof *guards, "the list of inputs", e));
    for (int i = 0; i < inputs; i++)
        guards[i] = (fkm_output_guard){
            fkm_reader_input(job->in, i)->path, fkm_reader_input(job->in, i)->id};
    guards[inputs] = (fkm_output_guard){job->centroids.path, job->centroids.id};
    spec->guards = guards;
    spec->guard_count = inputs + 1;
    fkm_status st = fkm_outputs_open(&job->outputs, spec, e);
    fkm_free(guards);
    return st;
}

static fkm_status open_outputs(struct job *job, fkm_err *e)
{
    const struct predict_args *a = job->args;
    FKM_TRY(choose_names(job, e));
    job->labels_spec = spec_of(job, "labels", FKM_I32);
    job->distances_spec = spec_of(job, "distances", FKM_F32);
    fkm_outputs_spec spec = {.lock_name = job->labels_path, .force = a->force};
    if (a->distances) {
        spec.paths[spec.count] = a->distances;
        spec.bytes[spec.count++] =
            fkm_writer_predict_bytes(job->distances_format, &job->distances_spec, 1);
    }
    spec.paths[spec.count] = job->labels_path;
    spec.bytes[spec.count++] = fkm_writer_predict_bytes(job->labels_format, &job->labels_spec, 1);
    FKM_TRY(guard_inputs(job, &spec, e));
    if (a->distances) {
        FKM_TRY(fkm_outputs_writer(job->outputs, 0, job->distances_format, &job->distances, e));
        FKM_TRY(fkm_writer_array(job->distances, &job->distances_spec, e));
    }
    FKM_TRY(fkm_outputs_writer(job->outputs, spec.count - 1, job->labels_format, &job->labels, e));
    return fkm_writer_array(job->labels, &job->labels_spec, e);
}

/* ---- the pass ---- */

static fkm_status write_distances(fkm_writer *w, const double *distances, int64_t count, fkm_err *e)
{
    float rounded[CONVERT_ELEMENTS];
    for (int64_t at = 0, now; at < count; at += now) {
        now = fkm_min_i64(CONVERT_ELEMENTS, count - at);
        for (int64_t i = 0; i < now; i++)
            rounded[i] = (float)distances[at + i];
        FKM_TRY(fkm_writer_write(w, rounded, now, e));
    }
    return FKM_OK;
}

/* An fkm_label_sink. */
static fkm_status take_labels(void *arg, int64_t row0, int64_t count, const int32_t *labels,
    const double *distances, fkm_err *e)
{
    struct job *job = arg;
    int64_t top = job->args->top > 0 ? job->args->top : 1;
    double begin = fkm_now();
    (void)row0; /* rows come in order */
    job->rows += count;
    fkm_status st = fkm_writer_write(job->labels, labels, count * top, e);
    if (st == FKM_OK && job->distances)
        st = write_distances(job->distances, distances, count * top, e);
    job->write_s += fkm_now() - begin;
    return st;
}

/* ---- after it ---- */

static fkm_status report(struct job *job, fkm_err *e)
{
    fkm_output_info info[2];
    int count = 0;
    info[count++] = (fkm_output_info){
        job->labels_path, fkm_writer_bytes(job->labels), fkm_writer_crc32c(job->labels)};
    if (job->distances)
        info[count++] = (fkm_output_info){job->args->distances, fkm_writer_bytes(job->distances),
            fkm_writer_crc32c(job->distances)};
    fkm_predict_report r = {
        .common =
            {
                .command = job->line,
                .started_utc = job->started_utc,
                .in = job->in,
                .run = &job->run,
                .outputs = info,
                .output_count = count,
                .total_s = fkm_now() - job->start,
                .write_s = job->write_s,
                .peak_bytes = fkm_peak_memory(),
            },
        .centroids = job->centroids.path,
        .clusters = job->centroids.clusters,
        .top = job->args->top > 0 ? job->args->top : 1,
        .rows = job->rows,
    };
    if (job->args->common.json)
        return fkm_predict_json(&r, cmd_stdout_sink, NULL, e);
    return job->args->common.quiet ? FKM_OK : fkm_predict_summary(&r, cmd_stdout_sink, NULL, e);
}

static fkm_status predict_and_write(struct job *job, fkm_err *e)
{
    const centroids *c = &job->centroids;
    fkm_predict_options o = {
        .centroids = c->values,
        .centroids_batch = c->is_batch,
        .clusters = c->clusters,
        .dims = c->dims,
        .top = job->args->top > 0 ? job->args->top : 1,
        .distances = job->args->distances != NULL,
        .skip_nan = job->args->nan == NAN_SKIP,
        .machine = job->args->common.machine,
    };
    cmd_catch_signals();
    FKM_TRY(open_outputs(job, e));
    progress_begin(&job->progress, &job->args->common, job->in, 0);
    fkm_observer observer = progress_observer(&job->progress);
    fkm_status st = fkm_predict(job->in, &o, take_labels, job, &observer, &job->run, e);
    progress_end(&job->progress);
    FKM_TRY(st);
    double begin = fkm_now();
    if (job->distances)
        FKM_TRY(fkm_writer_finish(job->distances, e));
    FKM_TRY(fkm_writer_finish(job->labels, e));
    FKM_TRY(fkm_outputs_publish(job->outputs, e));
    job->write_s += fkm_now() - begin;
    return report(job, e);
}

static void close_job(struct job *job)
{
    fkm_outputs_close(job->outputs);
    centroids_free(&job->centroids);
    fkm_reader_close(job->in);
    fkm_free(job->labels_path);
}

static fkm_status run_predict(const cmd *self, int argc, char **argv, const char *line, fkm_err *e)
{
    struct predict_args a = {0};
    struct job job = {.args = &a, .line = line, .start = fkm_now()};
    int first;
    bool done;
    fkm_utc_text(job.started_utc, sizeof job.started_utc);
    common_args_default(&a.common);
    a.common.may_be_empty = true; /* the last part of a pipeline may have found nothing */
    void *const bases[] = {&a, &a.common, &a.common, &a.common};
    FKM_TRY(cmd_parse(self, bases, &a.common, argc, argv, &first, &done, e));
    if (done)
        return FKM_OK;
    FKM_TRY(check_args(&a, argc - first, e));
    job.first = argv[first];
    if (!a.output && strcmp(job.first, "-") != 0)
        FKM_TRY(cmd_check_name(job.first, "-o FILE", e));
    /* Centroids first: a mistake there should not cost the spooling of a pipe. */
    FKM_TRY(centroids_load(&job.centroids, a.centroids, e));
    fkm_status st = cmd_open_input(&job.in, &a.common, argv + first, argc - first, e);
    if (st == FKM_OK)
        st = check_shapes(&job, e);
    if (st == FKM_OK)
        st = predict_and_write(&job, e);
    close_job(&job);
    return st;
}

const cmd cmd_predict = {
    .name = "predict",
    .about = "label vectors with their nearest centroids",
    .usage = "-c FILE|PREFIX [options] DATA...",
    .examples = "  fkm predict -c data.k1000 new.npy                  write new.labels.npy\n"
                "  fkm predict -c cent.fvecs --top 5 --distances d.npy new.fvecs\n"
                "                                                     the 5 nearest\n"
                "  producer | fkm predict -c data.k1000 -o out.npy -  .npy or .fvecs from a pipe\n",
    .groups = predict_groups,
    .run = run_predict,
};
