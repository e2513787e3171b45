/* The state of a run on disk: see checkpoint.h. */
#include "checkpoint.h"

#include "base/checked.h"
#include "base/crc32c.h"
#include "base/file.h"
#include "base/mem.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAGIC "fkm run\n"
#define ORDER UINT32_C(0x01020304)
#define VERSION 4      /* 4: centroids of clusters that ran empty are by another rule than in 3 */
#define LEAST_BYTES 64 /* of any checkpoint */
#define KEY_MAX_BYTES ((int64_t)1 << 26)
#define PIECE_BYTES 16384
#define TIME_OF_INPUT "modification time of input "

/* ---- the key: lines of "name<TAB>value" ---- */

struct text {
    char *at;
    size_t cap, used;
};

static void add_line(struct text *t, const char *name, const char *fmt, ...) FKM_PRINTF(3, 4);

/* Room has been made for all lines: see fkm_state_key. Names of datasets may hold anything. */
static void add_line(struct text *t, const char *name, const char *fmt, ...)
{
    va_list ap;
    int n = snprintf(t->at + t->used, t->cap - t->used, "%s\t", name);
    t->used += (size_t)n;
    va_start(ap, fmt);
    n = vsnprintf(t->at + t->used, t->cap - t->used, fmt, ap);
    va_end(ap);
    for (int i = 0; i < n; i++)
        if ((unsigned char)t->at[t->used + (size_t)i] < ' ')
            t->at[t->used + (size_t)i] = '?';
    t->used += (size_t)n;
    t->at[t->used++] = '\n';
    t->at[t->used] = '\0';
}

static_assert(FKM_INIT_RANDOM == 0 && FKM_INIT_PLUSPLUS == 1 && FKM_INIT_PARALLEL == 2 &&
                  FKM_EMPTY_FARTHEST == 0 && FKM_EMPTY_KEEP == 1 && FKM_EMPTY_ERROR == 2,
    "the order of names in the key");

static void add_init(struct text *t, const fkm_fit_options *o, const fkm_shape *shape)
{
    static const char *const names[] = {"random", "k-means++", "k-means||"};
    size_t values = (size_t)o->clusters * (size_t)shape->dims *
                    (size_t)(o->init && o->init_batch ? shape->batch : 1);
    if (o->init)
        add_line(t, "--init", "a file with CRC32C %08" PRIx32,
            fkm_crc32c(0, o->init, values * sizeof *o->init));
    else
        add_line(t, "--init", "%s", names[o->method]);
}

static void add_input(struct text *t, const fkm_input *in, int i)
{
    char name[64], when[40];
    time_t s = (time_t)(in->id.mtime_ns / 1000000000);
    struct tm tm;
    snprintf(name, sizeof name, "size of input %d", i + 1);
    add_line(t, name, "%" PRId64 " bytes", in->id.bytes);
    snprintf(name, sizeof name, "dataset of input %d", i + 1);
    add_line(t, name, "%s", in->dataset ? in->dataset : "the only one");
    snprintf(name, sizeof name, "type of input %d", i + 1);
    add_line(t, name, "%s", fkm_dtype_name(in->dtype));
    if (!gmtime_r(&s, &tm) || strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm) == 0)
        when[0] = '\0';
    snprintf(name, sizeof name, TIME_OF_INPUT "%d", i + 1);
    add_line(t, name, "%s.%09dZ", when, (int)(in->id.mtime_ns % 1000000000));
}

fkm_status fkm_state_key(char **out, const fkm_fit_options *o, const fkm_reader *in, fkm_err *e)
{
    static const char *const empty[] = {"farthest", "keep", "error"};
    const fkm_shape *shape = fkm_reader_shape(in);
    int inputs = fkm_reader_input_count(in);
    struct text t = {.cap = 2048 + 512 * (size_t)inputs};
    for (int i = 0; i < inputs; i++) {
        const char *dataset = fkm_reader_input(in, i)->dataset;
        t.cap += dataset ? strlen(dataset) : 0;
    }
    FKM_TRY(fkm_alloc(&t.at, (int64_t)t.cap, 1, "the key of a checkpoint", e));
    add_line(&t, "the version of fkm", "%s", FKM_VERSION);
    add_line(&t, "--clusters", "%" PRId32, o->clusters);
    add_init(&t, o, shape);
    add_line(&t, "--seed", "%" PRIu64, o->seed);
    add_line(&t, "--restarts", "%" PRId32, o->restarts);
    add_line(&t, "--max-iter", "%" PRId32, o->max_iter);
    add_line(&t, "--tol", "%.17g", o->tol);
    add_line(&t, "--empty", "%s", empty[o->empty]);
    add_line(&t, "--nan", "%s", o->skip_nan ? "skip" : "error");
    add_line(&t, "the number of inputs", "%d", inputs);
    for (int i = 0; i < inputs; i++)
        add_input(&t, fkm_reader_input(in, i), i);
    add_line(&t, "the first row", "%" PRId64, fkm_reader_first_row(in));
    add_line(&t, "the shape of the data", "%" PRId64 " x %" PRId64 " x %" PRId32, shape->batch,
        shape->rows, shape->dims);
    *out = t.at;
    return FKM_OK;
}

/* A value of a file that may hold anything, for a message. */
static const char *printable(char *out, size_t cap, const char *text, size_t len)
{
    size_t n = len < cap - 1 ? len : cap - 1;
    for (size_t i = 0; i < n; i++)
        out[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
    out[n] = '\0';
    return out;
}

/* "size of input 2" -> its path, or NULL. */
static const char *input_path(const char *name, const fkm_reader *in)
{
    const char *number = strstr(name, " of input ");
    int i = number ? atoi(number + 10) : 0;
    return i > 0 && i <= fkm_reader_input_count(in) ? fkm_reader_input(in, i - 1)->path : NULL;
}

/* Files are copied, and a time says nothing of what is in them: checksums do. */
static bool is_time(const char *line)
{
    return !strncmp(line, TIME_OF_INPUT, sizeof TIME_OF_INPUT - 1);
}

/* Goes to the first lines that differ, but for times of inputs; false: there are none. */
static bool find_difference(const char **found, const char **key, bool *redated)
{
    while (**found && **key) {
        size_t was = strcspn(*found, "\n"), is = strcspn(*key, "\n");
        bool same = was == is && !memcmp(*found, *key, was);
        if (!same && !(is_time(*found) && is_time(*key)))
            return true;
        *redated = *redated || !same;
        *found += was + ((*found)[was] != '\0');
        *key += is + ((*key)[is] != '\0');
    }
    return **found || **key;
}

/* found and key: the first lines that differ. */
static fkm_status of_another_run(
    const char *path, const char *found, const char *key, const fkm_reader *in, fkm_err *e)
{
    size_t name = strcspn(key, "\t"), was = strcspn(found, "\n"), is = strcspn(key, "\n");
    char what[64], old[120], now[120];
    if (key[name] != '\t' || was < name || strncmp(found, key, name + 1) != 0)
        return fkm_fail(e, FKM_EDATA, "%s: is damaged: its key has lines that are not known", path);
    printable(what, sizeof what, key, name);
    const char *input = input_path(what, in);
    fkm_fail(e, FKM_EFILE, "%s is of another run: %s%s%s%s was %s, now it is %s", path, what,
        input ? " (" : "", input ? input : "", input ? ")" : "",
        printable(old, sizeof old, found + name + 1, was - name - 1),
        printable(now, sizeof now, key + name + 1, is - name - 1));
    return fkm_hint(e, "--fresh starts anew and removes it; another -o PREFIX keeps it");
}

/* ---- one description of the file, for writing and for reading ---- */

/* Either out or in is set. The first failure latches. To write changes nothing of the state, not
 * even to what it was: lanes that stand still may read it. */
struct archive {
    fkm_outfile *out;
    fkm_file *in;
    int64_t at, end; /* in: next byte; end of what may be read */
    const char *path;
    fkm_status st;
    fkm_err *e;
};

static void damaged(struct archive *a, const char *what)
{
    if (a->st != FKM_OK)
        return;
    fkm_fail(a->e, FKM_EDATA, "%s: is damaged: %s", a->path, what);
    a->st = fkm_hint(a->e, "--fresh starts anew and removes it");
}

static void xfer(struct archive *a, void *p, size_t len)
{
    if (a->st != FKM_OK)
        return;
    if (a->out) {
        a->st = fkm_outfile_write(a->out, p, len, a->e);
        return;
    }
    if ((int64_t)len > a->end - a->at) {
        damaged(a, "it ends early");
        return;
    }
    a->st = fkm_file_read(a->in, a->at, p, len, a->e);
    a->at += (int64_t)len;
}

static void xfer_i64(struct archive *a, int64_t *v, int64_t min, int64_t max, const char *what)
{
    xfer(a, v, sizeof *v);
    if (a->in && a->st == FKM_OK && (*v < min || *v > max))
        damaged(a, what);
    if (a->in && a->st != FKM_OK)
        *v = min; /* counts loops on the way out */
}

static void xfer_i32(struct archive *a, int32_t *v, int32_t min, int32_t max, const char *what)
{
    int64_t wide = a->out ? *v : 0;
    xfer_i64(a, &wide, min, max, what);
    if (a->in)
        *v = (int32_t)wide;
}

static void xfer_bool(struct archive *a, bool *v)
{
    int64_t wide = a->out ? *v : 0;
    xfer_i64(a, &wide, 0, 1, "a yes or no is neither");
    if (a->in)
        *v = wide == 1;
}

static void xfer_real(struct archive *a, double *v)
{
    xfer(a, v, sizeof *v);
    if (a->in && a->st == FKM_OK && isnan(*v))
        damaged(a, "a number is none");
}

static void xfer_iteration(struct archive *a, fkm_iteration *it)
{
    xfer_i32(a, &it->restart, 0, INT32_MAX, "an iteration has no start");
    xfer_i32(a, &it->problem, 0, INT32_MAX, "an iteration has no problem");
    xfer_i32(a, &it->i, 1, INT32_MAX, "an iteration has no number");
    xfer_real(a, &it->inertia);
    xfer_i64(a, &it->moved, 0, INT64_MAX, "rows moved");
    xfer_real(a, &it->max_shift);
    xfer_real(a, &it->seconds);
    xfer_real(a, &it->read_wait_s);
    xfer_i32(a, &it->empty, 0, INT32_MAX, "empty clusters");
    xfer_i32(a, &it->reseeded, 0, INT32_MAX, "reseeded clusters");
}

static void xfer_problem(struct archive *a, fkm_problem_result *p)
{
    xfer_i32(a, &p->iterations, 0, INT32_MAX, "iterations");
    xfer_bool(a, &p->converged);
    xfer_real(a, &p->inertia);
    xfer_i64(a, &p->rows_used, 0, INT64_MAX, "rows used");
    xfer_i64(a, &p->rows_skipped, 0, INT64_MAX, "rows skipped");
    xfer_i64(a, &p->moved_last, 0, INT64_MAX, "rows moved");
    xfer_i32(a, &p->empty, 0, INT32_MAX, "empty clusters");
    xfer_i64(a, &p->reseeded, 0, INT64_MAX, "reseeded clusters");
    xfer_i64(a, &p->size_min, 0, INT64_MAX, "the smallest cluster");
    xfer_i64(a, &p->size_median, 0, INT64_MAX, "the median cluster");
    xfer_i64(a, &p->size_max, 0, INT64_MAX, "the largest cluster");
    xfer_real(a, &p->imbalance);
}

static void xfer_restart(struct archive *a, fkm_restart *r)
{
    xfer(a, &r->seed, sizeof r->seed);
    xfer_real(a, &r->inertia);
    xfer_i32(a, &r->iterations, 0, INT32_MAX, "iterations");
    xfer_bool(a, &r->converged);
}

#define ITERATION_BYTES 80 /* of xfer_iteration */

static void xfer_centroids(struct archive *a, float *c, int64_t cells)
{
    const int64_t piece = PIECE_BYTES / (int64_t)sizeof *c;
    for (int64_t i = 0; i < cells && a->st == FKM_OK; i += piece) {
        int64_t n = fkm_min_i64(piece, cells - i);
        xfer(a, c + i, (size_t)n * sizeof *c);
        for (int64_t j = i; a->in && a->st == FKM_OK && j < i + n; j++)
            if (!isfinite(c[j]))
                damaged(a, "a centroid is not finite");
    }
}

/* Bytes of a label: it is stored as label + 1, in as few as hold the number of clusters. */
static int label_bytes(int32_t clusters)
{
    int n = 1;
    while (n < 4 && (uint32_t)clusters >> (8 * n))
        n++;
    return n;
}

static void pack_labels(unsigned char *to, const int32_t *label, int64_t count, int width)
{
    for (int64_t i = 0; i < count; i++) {
        uint32_t v = (uint32_t)label[i] + 1;
        for (int b = 0; b < width; b++)
            *to++ = (unsigned char)(v >> (8 * b));
    }
}

/* False: a label is not one of `clusters`. */
static bool unpack_labels(
    int32_t *label, const unsigned char *from, int64_t count, int width, int32_t clusters)
{
    bool good = true;
    for (int64_t i = 0; i < count; i++) {
        uint32_t v = 0;
        for (int b = 0; b < width; b++)
            v |= (uint32_t)*from++ << (8 * b);
        good = good && v <= (uint32_t)clusters;
        label[i] = good ? (int32_t)v - 1 : -1;
    }
    return good;
}

static void xfer_labels(struct archive *a, int32_t *label, int64_t count, int32_t clusters)
{
    unsigned char piece[PIECE_BYTES];
    const int width = label_bytes(clusters);
    for (int64_t i = 0; i < count && a->st == FKM_OK;) {
        int64_t n = fkm_min_i64(PIECE_BYTES / width, count - i);
        if (a->out)
            pack_labels(piece, label + i, n, width);
        xfer(a, piece, (size_t)(n * width));
        if (a->in && a->st == FKM_OK && !unpack_labels(label + i, piece, n, width, clusters))
            damaged(a, "a label is not of a cluster");
        i += n;
    }
}

/* Where a problem at work is. */
static void xfer_position(
    struct archive *a, fkm_problem_state *p, const fkm_fit_options *o, const fkm_shape *shape)
{
    xfer_i32(a, &p->restart, 0, o->restarts, "there is no such start");
    xfer_i32(a, &p->iteration, 0, o->max_iter + 1, "there is no such iteration");
    xfer_i32(a, &p->best_start, 0, o->restarts, "there is no such best start");
    xfer_i32(a, &p->best_iterations, 0, o->max_iter, "the best start has too many iterations");
    xfer_i64(a, &p->moved, 0, shape->rows, "more rows moved than there are");
    xfer_bool(a, &p->relabel);
    xfer_bool(a, &p->scanned);
    xfer_i32(a, &p->scale.exponent, -512, 512, "the scale");
    xfer_bool(a, &p->scale.wide);
    if (p->relabel && (p->iteration == 0 || p->iteration > o->max_iter))
        damaged(a, "labels are lost of a pass that was not made");
    if (p->restart > 0 && p->best_start >= p->restart)
        damaged(a, "the best start has not been made");
    if (p->restart == 0 && p->best_iterations > 0)
        damaged(a, "the best start has not been made");
    if (p->restart == o->restarts && (p->iteration > 0 || p->best_start == o->restarts - 1))
        damaged(a, "there is nothing to restore");
}

/* Where the run is. */
static void xfer_positions(
    struct archive *a, fkm_state *s, const fkm_fit_options *o, const fkm_shape *shape)
{
    xfer_i32(a, &s->resumes, 0, INT32_MAX - 1, "the count of resumed runs");
    xfer_real(a, &s->elapsed_s);
    for (int64_t b = 0; b < shape->batch && a->st == FKM_OK; b++) {
        int32_t stage = (int32_t)s->problems[b].stage;
        xfer_i32(a, &stage, FKM_UNTOUCHED, FKM_DONE, "a problem has no stage");
        if (a->in)
            s->problems[b].stage = (fkm_stage)stage;
        if (stage == FKM_AT_WORK)
            xfer_position(a, &s->problems[b], o, shape);
    }
}

/* In file, the iterations of a problem are those of its best start, or at work, and no others. */
static void xfer_iterations(struct archive *a, fkm_problem_state *p, int64_t problem)
{
    int32_t ended = p->iteration > 0 ? p->iteration - 1 : 0;
    xfer_i32(a, &p->iteration_count, 0, INT32_MAX, "the number of iterations");
    if (a->in && a->st == FKM_OK && p->iteration_count > (a->end - a->at) / ITERATION_BYTES)
        damaged(a, "more iterations than it has room for");
    if (a->st == FKM_OK && p->stage == FKM_AT_WORK &&
        p->iteration_count != ended + (int64_t)p->best_iterations)
        damaged(a, "iterations are missing, or too many");
    if (a->in && a->st == FKM_OK) {
        p->iteration_room = fkm_max_i64(p->stage == FKM_DONE ? 1 : 64, p->iteration_count);
        a->st = fkm_alloc(
            &p->iterations, p->iteration_room, sizeof *p->iterations, "iteration statistics", a->e);
    }
    for (int32_t i = 0; i < p->iteration_count && a->st == FKM_OK; i++) {
        xfer_iteration(a, &p->iterations[i]);
        if (a->st == FKM_OK && p->iterations[i].problem != problem)
            damaged(a, "an iteration is of another problem");
    }
}

static void xfer_best(struct archive *a, fkm_problem_state *p, int64_t cells)
{
    if (a->in && a->st == FKM_OK)
        a->st = fkm_alloc(&p->best, cells, sizeof *p->best, "the best centroids", a->e);
    if (a->st == FKM_OK)
        xfer_centroids(a, p->best, cells);
}

static void xfer_checksums(struct archive *a, const fkm_state *s, int64_t problem)
{
    fkm_checksums *c = s->checksums;
    int64_t rows = c ? c->block_rows : 0, known = 0;
    if (c && a->out)
        known = atomic_load_explicit(&c->known[problem], memory_order_acquire);
    xfer_i64(a, &rows, 0, INT64_MAX, "blocks of rows");
    xfer_i64(a, &known, 0, c ? c->blocks : 0, "more checksums than blocks of rows");
    if (known > 0 && rows != c->block_rows)
        damaged(a, "blocks of rows have another size");
    if (known > 0)
        xfer(a, c->crc + problem * c->blocks, (size_t)known * sizeof *c->crc);
    if (a->in && a->st == FKM_OK && c) {
        c->restored[problem] = known;
        atomic_store_explicit(&c->known[problem], known, memory_order_release);
    }
}

/* What there is of a problem, beside its position. */
static void xfer_problem_data(
    struct archive *a, fkm_state *s, int64_t b, const fkm_fit_options *o, const fkm_shape *shape)
{
    fkm_result *r = s->result;
    fkm_problem_state *p = &s->problems[b];
    int64_t cells = (int64_t)o->clusters * shape->dims;
    bool done = p->stage == FKM_DONE, started = p->stage == FKM_AT_WORK && p->restart > 0;
    bool centroids = done || (p->stage == FKM_AT_WORK && p->iteration > 0);
    if (done || started)
        xfer_problem(a, &r->problems[b]);
    for (int32_t i = 0; i < (done ? o->restarts : started ? p->restart : 0); i++)
        xfer_restart(a, &r->restarts[b * o->restarts + i]);
    if (p->stage != FKM_UNTOUCHED)
        xfer_iterations(a, p, b);
    if (centroids)
        xfer_centroids(a, r->centroids + b * cells, cells);
    if (started)
        xfer_best(a, p, cells);
    if (centroids)
        xfer_labels(a, r->labels + b * shape->rows, shape->rows, o->clusters);
    xfer_checksums(a, s, b);
}

/* Rows that are not read again need no checksums. */
static void check_checksums(struct archive *a, const fkm_state *s, int64_t batch)
{
    const fkm_checksums *c = s->checksums;
    if (!c || fkm_state_first(s, batch) == batch)
        return;
    for (int64_t b = 0; b < batch && a->st == FKM_OK; b++)
        if (s->problems[b].stage == FKM_DONE && c->known[b] < c->blocks)
            damaged(a, "checksums are missing");
}

/* Everything between the key and the CRC. */
static void xfer_state(
    struct archive *a, fkm_state *s, const fkm_fit_options *o, const fkm_shape *shape)
{
    xfer_positions(a, s, o, shape);
    for (int64_t b = 0; b < shape->batch && a->st == FKM_OK; b++)
        xfer_problem_data(a, s, b, o, shape);
    if (a->in)
        check_checksums(a, s, shape->batch);
}

/* ---- in memory ---- */

fkm_status fkm_state_open(fkm_state *s, int64_t batch, fkm_err *e)
{
    return fkm_calloc(&s->problems, batch, sizeof *s->problems, "the state of all problems", e);
}

void fkm_state_close(fkm_state *s, int64_t batch)
{
    for (int64_t b = 0; s->problems && b < batch; b++) {
        fkm_free(s->problems[b].iterations);
        fkm_free(s->problems[b].best);
    }
    fkm_free(s->problems);
    s->problems = NULL;
}

void fkm_state_forget(fkm_problem_state *p)
{
    fkm_free(p->iterations);
    fkm_free(p->best);
    *p = (fkm_problem_state){.stage = FKM_UNTOUCHED};
}

int64_t fkm_state_first(const fkm_state *s, int64_t batch)
{
    int64_t b = 0;
    while (b < batch && s->problems[b].stage == FKM_DONE)
        b++;
    return b;
}

/* ---- saving ---- */

fkm_status fkm_state_save(const fkm_state *s, const fkm_fit_options *o, const fkm_shape *shape,
    const char *path, const char *key, fkm_err *e)
{
    fkm_outfile *f;
    fkm_state copy = *s; /* xfer_* changes nothing of it here */
    uint32_t head[2] = {ORDER, VERSION};
    int64_t key_bytes = (int64_t)strlen(key);
    FKM_TRY(fkm_outfile_create(&f, path, e));
    struct archive a = {.out = f, .path = path, .e = e};
    xfer(&a, MAGIC, 8);
    xfer(&a, head, sizeof head);
    xfer(&a, &key_bytes, sizeof key_bytes);
    xfer(&a, (char *)(uintptr_t)key, (size_t)key_bytes);
    xfer_state(&a, &copy, o, shape);
    uint32_t crc = fkm_outfile_crc32c(f);
    xfer(&a, &crc, sizeof crc);
    if (a.st == FKM_OK)
        a.st = fkm_outfile_finish(f, e);
    if (a.st == FKM_OK)
        a.st = fkm_outfile_publish(f, e);
    fkm_outfile_close(f);
    return a.st;
}

int64_t fkm_state_bytes(const fkm_fit_options *o, const fkm_shape *shape)
{
    int64_t cells = fkm_mul_sat(o->clusters, shape->dims);
    int64_t centroids = fkm_mul_sat(fkm_mul_sat(shape->batch, o->restarts > 1 ? 2 : 1), cells);
    int64_t labels = fkm_mul_sat(fkm_mul_sat(shape->batch, shape->rows), label_bytes(o->clusters));
    int64_t more = fkm_mul_sat(shape->batch, 200 + fkm_mul_sat(o->restarts, 32));
    /* Of problems that are told of and of those at work, which may have those of a best start. */
    int64_t lists = fkm_min_i64(shape->batch, fkm_problems_listed(o, shape->batch) + 64);
    lists += o->restarts > 1 ? fkm_min_i64(shape->batch, 64) : 0;
    int64_t iterations = fkm_mul_sat(
        lists, fkm_min_i64(o->max_iter, FKM_USUAL_ITERATIONS) * (int64_t)ITERATION_BYTES);
    int64_t total = fkm_add_sat(fkm_mul_sat(centroids, sizeof(float)), labels);
    total = fkm_add_sat(total, fkm_add_sat(more, iterations));
    return fkm_add_sat(total, fkm_add_sat(fkm_checksums_bytes(shape), 8192));
}

/* ---- loading ---- */

static fkm_status check_magic(struct archive *a)
{
    char magic[8] = "";
    if (a->end >= LEAST_BYTES)
        xfer(a, magic, sizeof magic);
    if (a->st != FKM_OK || !memcmp(magic, MAGIC, sizeof magic))
        return a->st;
    fkm_fail(a->e, FKM_EFILE, "%s exists and is not a checkpoint of fkm", a->path);
    return a->st = fkm_hint(a->e, "move it away, or choose another name with -o");
}

static fkm_status check_head(struct archive *a, fkm_state *s)
{
    uint32_t head[2] = {0, 0};
    FKM_TRY(check_magic(a));
    xfer(a, head, sizeof head);
    if (a->st != FKM_OK || (head[0] == ORDER && head[1] == VERSION))
        return a->st;
    s->outdated = head[0] == ORDER;
    if (head[0] != ORDER)
        fkm_fail(a->e, FKM_EFILE, "%s was written on a machine of another byte order", a->path);
    else
        fkm_fail(a->e, FKM_EFILE,
            "%s was written by another version of fkm (format %" PRIu32 ", expected %d)", a->path,
            head[1], VERSION);
    return fkm_hint(a->e, "resume there, or start anew with --fresh, which removes it");
}

/* CRC32C over everything before the last 4 bytes. */
static fkm_status check_crc(struct archive *a)
{
    uint32_t crc = 0, stored;
    char *buffer;
    const int64_t room = (int64_t)1 << 18;
    FKM_TRY(fkm_alloc(&buffer, room, 1, "a reading buffer", a->e));
    for (int64_t at = 0; at < a->end && a->st == FKM_OK;) {
        size_t n = (size_t)fkm_min_i64(room, a->end - at);
        a->st = fkm_file_read(a->in, at, buffer, n, a->e);
        crc = fkm_crc32c(crc, buffer, n);
        at += (int64_t)n;
    }
    fkm_free(buffer);
    if (a->st == FKM_OK)
        a->st = fkm_file_read(a->in, a->end, &stored, sizeof stored, a->e);
    if (a->st == FKM_OK && crc != stored)
        damaged(a, "its checksum is another one");
    return a->st;
}

static fkm_status check_key(struct archive *a, fkm_state *s, const char *key, const fkm_reader *in)
{
    int64_t bytes = 0;
    char *found;
    xfer_i64(a, &bytes, 1, fkm_min_i64(KEY_MAX_BYTES, a->end - a->at), "its key is too long");
    if (a->st != FKM_OK)
        return a->st;
    FKM_TRY(fkm_calloc(&found, bytes + 1, 1, "the key of a checkpoint", a->e));
    xfer(a, found, (size_t)bytes);
    const char *was = found, *is = key;
    s->redated = false;
    if (a->st == FKM_OK && (size_t)bytes != strlen(found))
        damaged(a, "its key is no text");
    if (a->st == FKM_OK && find_difference(&was, &is, &s->redated)) {
        a->st = of_another_run(a->path, was, is, in, a->e);
        s->outdated = a->st == FKM_EFILE;
    }
    fkm_free(found);
    return a->st;
}

/* Everything that stands before the state itself, and the sum over all of the file. */
static fkm_status check(struct archive *a, fkm_state *s, const char *key, const fkm_reader *in)
{
    FKM_TRY(check_head(a, s));
    FKM_TRY(check_crc(a));
    return check_key(a, s, key, in);
}

fkm_status fkm_state_load(fkm_state *s, const char *path, const char *key, const fkm_fit_options *o,
    const fkm_reader *in, fkm_err *e)
{
    fkm_file *f;
    FKM_TRY(fkm_file_open(&f, path, e));
    struct archive a = {.in = f, .end = fkm_file_bytes(f) - 4, .path = path, .e = e};
    fkm_status st = FKM_OK;
    FKM_GO(check(&a, s, key, in));
    xfer_state(&a, s, o, fkm_reader_shape(in));
    if (a.st == FKM_OK && a.at != a.end)
        damaged(&a, "it has more bytes than it should");
    st = a.st;
out:
    fkm_file_close(f);
    return st;
}

fkm_status fkm_state_peek(fkm_state *s, const char *path, const char *key, const fkm_fit_options *o,
    const fkm_reader *in, fkm_err *e)
{
    fkm_file *f;
    FKM_TRY(fkm_file_open(&f, path, e));
    struct archive a = {.in = f, .end = fkm_file_bytes(f) - 4, .path = path, .e = e};
    fkm_status st = FKM_OK;
    FKM_GO(check(&a, s, key, in));
    xfer_positions(&a, s, o, fkm_reader_shape(in));
    st = a.st;
out:
    fkm_file_close(f);
    return st;
}

fkm_status fkm_state_remove(const char *path, fkm_err *e)
{
    fkm_file *f;
    if (!fkm_path_exists(path))
        return FKM_OK;
    FKM_TRY(fkm_file_open(&f, path, e));
    struct archive a = {.in = f, .end = fkm_file_bytes(f), .path = path, .e = e};
    fkm_status st = check_magic(&a);
    fkm_file_close(f);
    if (st == FKM_OK && unlink(path) != 0)
        st = fkm_fail(e, FKM_EFILE, "cannot remove %s: %s", path, strerror(errno));
    return st;
}
