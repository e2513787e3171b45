/* fkm bench: this machine's ceilings, and how close fkm comes. */
#include "cmd.h"

#include "../src/base/clock.h"
#include "../src/base/log.h"
#include "../src/base/mem.h"
#include "../src/base/sysinfo.h"
#include "../src/json.h"
#include "../src/measure.h"
#include "../src/stats.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST_RATES 32
#define MOST_SHAPES 16
#define MOST_BATCH 1000000
#define QUICK_DIVISOR 64 /* --quick: so many times fewer rows */

struct bench_args {
    const char *grid;
    bool quick;
    uint64_t seed;
    common_args common;
};

#define AT(field) offsetof(struct bench_args, field)

/* clang-format off */
static const opt bench_rows[] = {
    {.kind = OPT_TEXT, .letter = 0, .name = "grid", .offset = AT(grid), .show_default = true,
        .metavar = "default|peers|linear|NxDxK[,...]",
        .help = "shapes to measure: a mixture, those of scripts/bench-peers, rows, clusters and "
            "dimensions each over a factor of 64, or those of N rows, D dimensions, K clusters, in "
            "another type when xu8, xf16 or xbf16 follows, with a decaying spectrum when xdecay does, a "
            "batch of B such problems when xbB does"},
    {.kind = OPT_FLAG, .name = "quick", .offset = AT(quick),
        .help = "64 times fewer rows, short samples, small memory and files: a first look, in seconds"},
    {.kind = OPT_SEED, .letter = 's', .name = "seed", .offset = AT(seed), .metavar = "N",
        .show_default = true, .help = "seed of data and centroids"},
    {.kind = OPT_END},
};
/* clang-format on */

static const opt_group bench_groups[] = {
    {"What to measure", bench_rows},
    {"Machine", common_machine_rows},
    {"Talk", common_talk_rows},
    {NULL, NULL},
};

/* ---- shapes ---- */

/* Large enough that caches and threads matter as in real runs, small enough that a path without
 * vectors is through in minutes. */
static const fkm_bench_shape default_grid[] = {
    {262144, 32, 256, FKM_F32, false, 1},
    {131072, 128, 1000, FKM_F32, false, 1},
    {131072, 128, 4096, FKM_F32, false, 1},
    {131072, 100, 1000, FKM_F32, false, 1},
    {32768, 768, 1000, FKM_F32, false, 1},
    {32768, 768, 4096, FKM_F32, false, 1},
    {65536, 784, 256, FKM_U8, false, 1},
    {0},
};

static const fkm_bench_shape peers_grid[] = {
    {1000000, 128, 1000, FKM_F32, false, 1},
    {1000000, 128, 4096, FKM_F32, false, 1},
    {200000, 768, 1000, FKM_F32, false, 1},
    {200000, 768, 4096, FKM_F32, false, 1},
    {50000, 100, 1000, FKM_F32, false, 1},
    {60000, 784, 256, FKM_U8, false, 1},
    {1000000, 32, 256, FKM_F32, false, 1},
    {0},
};

/* Three sweeps of LINEAR_STEPS shapes, each four times the one before along one axis. */
enum { LINEAR_STEPS = 4 };

static const fkm_bench_shape linear_grid[] = {
    {8192, 128, 1024, FKM_F32, false, 1},
    {32768, 128, 1024, FKM_F32, false, 1},
    {131072, 128, 1024, FKM_F32, false, 1},
    {524288, 128, 1024, FKM_F32, false, 1},
    {65536, 128, 64, FKM_F32, false, 1},
    {65536, 128, 256, FKM_F32, false, 1},
    {65536, 128, 1024, FKM_F32, false, 1},
    {65536, 128, 4096, FKM_F32, false, 1},
    {65536, 32, 1024, FKM_F32, false, 1},
    {65536, 128, 1024, FKM_F32, false, 1},
    {65536, 512, 1024, FKM_F32, false, 1},
    {65536, 2048, 1024, FKM_F32, false, 1},
    {0},
};

static const char *const axis_names[] = {"rows", "clusters", "dims"};

static double along(const fkm_bench_shape *s, int axis)
{
    return axis == 0 ? (double)s->rows : axis == 1 ? s->clusters : s->dims;
}

/* Whatever may follow the three numbers. */
static bool parse_suffix(fkm_bench_shape *out, const char *part)
{
    fkm_dtype dtype = fkm_dtype_parse(part);
    bool type = dtype == FKM_F32 || dtype == FKM_F16 || dtype == FKM_BF16 || dtype == FKM_U8;
    if (!strcmp(part, "decay") && !out->decaying) {
        out->decaying = true;
        return true;
    }
    int64_t batch;
    if (part[0] == 'b' && opt_to_count(part + 1, &batch) && out->batch == 0) {
        out->batch = (int32_t)batch;
        return batch > 1 && batch <= MOST_BATCH;
    }
    if (!type || out->dtype != FKM_DTYPE_NONE)
        return false;
    out->dtype = dtype;
    return true;
}

/* "1Mx128x1000", "60000x784x256xu8", "1Mx768x4096xf16xdecay", "74256x128x1000xb32". */
static bool parse_shape(fkm_bench_shape *out, const char *text, size_t length)
{
    char copy[80], *save = NULL;
    int64_t number[3] = {0};
    if (length >= sizeof copy)
        return false;
    memcpy(copy, text, length);
    copy[length] = 0;
    char *part = strtok_r(copy, "x", &save);
    for (int i = 0; i < 3; i++, part = strtok_r(NULL, "x", &save))
        if (!part || !opt_to_count(part, &number[i]) || number[i] < 1)
            return false;
    if (number[1] > FKM_MAX_DIMS || number[2] > FKM_MAX_CLUSTERS || number[2] > number[0])
        return false;
    *out = (fkm_bench_shape){
        .rows = number[0], .dims = (int32_t)number[1], .clusters = (int32_t)number[2]};
    for (; part; part = strtok_r(NULL, "x", &save))
        if (!parse_suffix(out, part))
            return false;
    out->dtype = out->dtype == FKM_DTYPE_NONE ? FKM_F32 : out->dtype;
    out->batch = out->batch == 0 ? 1 : out->batch;
    return true;
}

/* Shapes with commas between them; shapes: [MOST_SHAPES + 1]. */
static bool parse_shapes(fkm_bench_shape *shapes, const char *text)
{
    for (int i = 0; i < MOST_SHAPES; i++) {
        size_t length = strcspn(text, ",");
        if (!parse_shape(&shapes[i], text, length))
            return false;
        if (!text[length])
            return true;
        text += length + 1;
    }
    return false;
}

/* shapes: [MOST_SHAPES + 1], ends with rows == 0. */
static fkm_status choose_shapes(fkm_bench_shape *shapes, const struct bench_args *a, fkm_err *e)
{
    const fkm_bench_shape *grid = !strcmp(a->grid, "default")  ? default_grid
                                  : !strcmp(a->grid, "peers")  ? peers_grid
                                  : !strcmp(a->grid, "linear") ? linear_grid
                                                               : NULL;
    memset(shapes, 0, (MOST_SHAPES + 1) * sizeof *shapes);
    if (!grid && parse_shapes(shapes, a->grid))
        return FKM_OK;
    if (!grid) {
        fkm_fail(e, FKM_EUSAGE,
            "--grid: expected default, peers, linear or up to %d shapes NxDxK, found '%s'",
            MOST_SHAPES, a->grid);
        return fkm_hint(e, "200kx768x1000 is 200000 rows of 768 dimensions in 1000 clusters, which "
                           "must not be more than the rows");
    }
    for (int i = 0; grid[i].rows; i++) {
        shapes[i] = grid[i];
        if (a->quick) {
            int64_t fewer = grid[i].rows / QUICK_DIVISOR;
            shapes[i].rows = fewer > grid[i].clusters ? fewer : grid[i].clusters;
        }
    }
    return FKM_OK;
}

/* ---- results ---- */

typedef struct results {
    const struct bench_args *args;
    fkm_measure measure;
    fkm_rate rates[MOST_RATES];
    int rate_count;
    const char *file; /* that was read; NULL: a temporary one */
    int64_t file_bytes;
    fkm_speed speeds[MOST_SHAPES];
    int speed_count;
    bool linear; /* the speeds are those of linear_grid */
} results;

/* How an axis was swept: the cost of a factor, and the slope of log(cost) over log(size). */
typedef struct growth {
    bool known;
    double factor, cost, exponent;
} growth;

static growth growth_along(const results *r, int axis)
{
    const fkm_speed *s = r->speeds + axis * LINEAR_STEPS;
    growth g = {false, NAN, NAN, NAN};
    double x = 0, y = 0, xx = 0, xy = 0;
    for (int i = 0; i < LINEAR_STEPS; i++) {
        if (s[i].skipped)
            return g;
        double a = log(along(&s[i].shape, axis)), b = log(s[i].warm[FKM_ITERATION].median);
        x += a / LINEAR_STEPS;
        y += b / LINEAR_STEPS;
        xx += a * a / LINEAR_STEPS;
        xy += a * b / LINEAR_STEPS;
    }
    const fkm_speed *last = &s[LINEAR_STEPS - 1];
    g.factor = along(&last->shape, axis) / along(&s->shape, axis);
    g.known = true;
    g.cost = last->warm[FKM_ITERATION].median / s->warm[FKM_ITERATION].median;
    g.exponent = (xy - x * y) / (xx - x * x);
    return g;
}

/* Of labelling such rows, flop/s. A GPU that may screen 8-bit integers as such may find that it
 * does not pay: its path says so. */
static double assign_ceiling(const fkm_speed *s, const fkm_measure *m)
{
    bool bytes = s->shape.dtype == FKM_U8 && m->assign_bytes_ceiling > 0 &&
                 (m->gpu_count == 0 || !strncmp(s->isa, "s8", 2));
    return bytes ? m->assign_bytes_ceiling : m->assign_ceiling;
}

/* NaN when the part was not measured apart, or has no ceiling. */
static double part_of(double amount, double seconds, double ceiling)
{
    return seconds > 0 && ceiling > 0 ? amount / seconds / ceiling : NAN;
}

/* ---- what is being measured, on stderr ---- */

static bool is_live(const common_args *a)
{
    return !a->quiet && a->progress != PROGRESS_NEVER && isatty(STDERR_FILENO);
}

static void say_now(const common_args *a, const char *what)
{
    char text[120];
    snprintf(text, sizeof text, "measuring %s", what);
    if (is_live(a))
        print_live(text);
    else if (!a->quiet && a->progress == PROGRESS_ALWAYS)
        print_err("fkm: %s\n", text);
}

static void shape_text(char *out, size_t cap, const fkm_bench_shape *s)
{
    const char *type = s->dtype == FKM_U8     ? " u8"
                       : s->dtype == FKM_F16  ? " f16"
                       : s->dtype == FKM_BF16 ? " bf16"
                                              : "";
    char batch[24] = "";
    if (s->batch > 1)
        snprintf(batch, sizeof batch, "%" PRId32 " x ", s->batch);
    snprintf(out, cap, "%s%" PRId64 " x %" PRId32 "%s k=%" PRId32 "%s", batch, s->rows, s->dims,
        type, s->clusters, s->decaying ? " decay" : "");
}

/* ---- text ---- */

static void print_rate_value(double per_second, bool in_bytes)
{
    if (in_bytes)
        print_out("%10.2f GB/s    ", per_second / 1e9);
    else
        print_out("%10.1f GFLOP/s ", per_second / 1e9);
}

static double spread_percent(const fkm_spread *s)
{
    return s->median > 0 ? 100 * (s->high - s->low) / s->median : 0;
}

static void print_rate(const fkm_rate *r)
{
    print_out("%-30s%-10s%3" PRId32 " thread%s ", r->name, r->isa ? r->isa : "", r->threads,
        r->threads == 1 ? " " : "s");
    print_rate_value(r->best, r->in_bytes);
    print_out("%4.0f%%%s\n", spread_percent(&r->per_second), r->noisy ? " noisy" : "");
    print_flush();
}

static void print_part(
    const char *name, const fkm_spread *seconds, double amount, bool in_bytes, double ceiling)
{
    char text[32];
    double part = part_of(amount, seconds->median, ceiling);
    print_out("%-11s%10s %5.0f%% ", name, fkm_seconds_text(text, sizeof text, seconds->median),
        spread_percent(seconds));
    print_rate_value(seconds->median > 0 ? amount / seconds->median : 0, in_bytes);
    if (isnan(part))
        print_out("%9s\n", "-");
    else
        print_out("%8.1f%%\n", 100 * part);
}

static void print_speed(const fkm_speed *s, const fkm_measure *m)
{
    char shape[80], size[2][32];
    shape_text(shape, sizeof shape, &s->shape);
    print_out("%-32s", shape);
    if (s->skipped) {
        print_out("skipped: needs %s, allowed are %s (--memory)\n",
            fkm_bytes_text(size[0], 32, s->needed_bytes),
            fkm_bytes_text(size[1], 32, m->memory_bytes));
        return;
    }
    double ceiling = assign_ceiling(s, m);
    print_part("iteration", &s->warm[FKM_ITERATION], s->flop, false, ceiling);
    if (s->warm[FKM_ASSIGN].median > 0) {
        print_out("%32s", "");
        print_part("assignment", &s->warm[FKM_ASSIGN], s->flop, false, ceiling);
        print_out("%32s", "");
        print_part("update", &s->warm[FKM_UPDATE], (double)s->bytes, true, m->update_ceiling);
    }
    print_out("%32s", "");
    print_part("from cold", &s->cold[FKM_ITERATION], s->flop, false, ceiling);
    print_flush();
}

static void print_growth(const results *r)
{
    print_out("\n%-12s%10s%10s%10s\n", "growth of", "factor", "cost", "exponent");
    for (int axis = 0; axis < 3; axis++) {
        growth g = growth_along(r, axis);
        if (g.known)
            print_out("%-12s%10.0f%10.1f%10.2f\n", axis_names[axis], g.factor, g.cost, g.exponent);
        else
            print_out("%-12s%10s%10s%10s\n", axis_names[axis], "-", "-", "-");
    }
}

/* ---- JSON ---- */

static void add_real(fkm_json *j, cJSON *o, const char *name, double v)
{
    fkm_json_add(j, o, name, fkm_json_real(v));
}

static void add_i64(fkm_json *j, cJSON *o, const char *name, int64_t v)
{
    fkm_json_add(j, o, name, fkm_json_i64(v));
}

static void add_text(fkm_json *j, cJSON *o, const char *name, const char *v)
{
    fkm_json_add(j, o, name, fkm_json_text(v));
}

static cJSON *rate_object(fkm_json *j, const fkm_rate *r)
{
    cJSON *o = cJSON_CreateObject();
    add_text(j, o, "name", r->name);
    add_text(j, o, "isa", r->isa);
    add_i64(j, o, "threads", r->threads);
    add_text(j, o, "unit", r->in_bytes ? "bytes/s" : "flop/s");
    add_real(j, o, "median", r->per_second.median);
    add_real(j, o, "low", r->per_second.low);
    add_real(j, o, "high", r->per_second.high);
    add_real(j, o, "best", r->best);
    fkm_json_add(j, o, "noisy", cJSON_CreateBool(r->noisy));
    return o;
}

/* `rate` is called flop_per_s or bytes_per_s. */
static cJSON *part_object(
    fkm_json *j, const fkm_spread *s, const char *rate, double amount, double ceiling)
{
    if (s->median <= 0)
        return cJSON_CreateNull();
    cJSON *o = cJSON_CreateObject();
    add_real(j, o, "median_s", s->median);
    add_real(j, o, "low_s", s->low);
    add_real(j, o, "high_s", s->high);
    add_real(j, o, rate, amount / s->median);
    add_real(j, o, "of_ceiling", part_of(amount, s->median, ceiling));
    return o;
}

static void put_parts(fkm_json *j, cJSON *o, const fkm_speed *s, const fkm_measure *m,
    const fkm_spread parts[FKM_PARTS])
{
    static const char *const names[FKM_PARTS] = {"iteration", "assign", "update", "sums"};
    for (int i = 0; i < FKM_PARTS; i++) {
        const bool flop = i == FKM_ITERATION || i == FKM_ASSIGN;
        fkm_json_add(j, o, names[i],
            part_object(j, &parts[i], flop ? "flop_per_s" : "bytes_per_s",
                flop ? s->flop : (double)s->bytes,
                flop ? assign_ceiling(s, m) : m->update_ceiling));
    }
}

static cJSON *speed_object(fkm_json *j, const fkm_speed *s, const fkm_measure *m)
{
    cJSON *o = cJSON_CreateObject();
    add_i64(j, o, "rows", s->shape.rows);
    add_i64(j, o, "dims", s->shape.dims);
    add_i64(j, o, "clusters", s->shape.clusters);
    add_text(j, o, "dtype", fkm_dtype_name(s->shape.dtype));
    add_text(j, o, "spectrum", s->shape.decaying ? "decaying" : "flat");
    add_i64(j, o, "batch", s->shape.batch);
    add_i64(j, o, "side_by_side", s->side_by_side);
    add_i64(j, o, "needed_bytes", s->needed_bytes);
    fkm_json_add(j, o, "skipped", cJSON_CreateBool(s->skipped));
    if (s->skipped)
        return o;
    add_text(j, o, "isa", s->isa);
    add_i64(j, o, "checked_rows", s->checked_rows);
    add_real(j, o, "flop", s->flop);
    add_real(j, o, "first_s", s->first_s);
    add_real(j, o, "candidates_per_row", s->candidates_per_row);
    add_real(j, o, "settled_by_bounds", s->settled_by_bounds);
    put_parts(j, o, s, m, s->warm);
    cJSON *cold = cJSON_CreateObject();
    put_parts(j, cold, s, m, s->cold);
    fkm_json_add(j, o, "cold", cold);
    return o;
}

static const char *isa_of(const results *r)
{
    for (int i = 0; i < r->speed_count; i++)
        if (!r->speeds[i].skipped)
            return r->speeds[i].isa;
    return r->measure.o.machine.isa;
}

static void put_settings(fkm_json *j, const results *r, const char *line, const char *started)
{
    fkm_json_field(j, "schema", fkm_json_text("fkm-bench/1"));
    fkm_json_field(j, "fkm_version", fkm_json_text(FKM_VERSION));
    fkm_json_field(j, "started_utc", fkm_json_text(started));
    fkm_json_field(j, "command", fkm_json_text(line));
    cJSON *o = cJSON_CreateObject();
    add_text(j, o, "cpu", fkm_cpu_model());
    add_text(j, o, "backend", r->measure.ops->name);
    add_text(j, o, "isa", isa_of(r));
    add_i64(j, o, "threads", r->measure.threads);
    fkm_json_add(j, o, "gpus", fkm_gpu_list(j, r->measure.gpus, r->measure.gpu_count));
    fkm_json_field(j, "machine", o);
    o = cJSON_CreateObject();
    add_text(j, o, "grid", r->args->grid);
    fkm_json_add(j, o, "quick", cJSON_CreateBool(r->args->quick));
    fkm_json_add(j, o, "seed", fkm_json_u64(r->args->seed));
    add_i64(j, o, "samples", FKM_MEASURE_SAMPLES);
    add_i64(j, o, "memory_bytes", r->measure.memory_bytes);
    fkm_json_field(j, "params", o);
}

static fkm_status print_json(const results *r, const char *line, const char *started, fkm_err *e)
{
    fkm_json j;
    fkm_json_begin(&j, cmd_stdout_sink, NULL, e);
    put_settings(&j, r, line, started);
    cJSON *o = cJSON_CreateObject();
    fkm_json_add_name(&j, o, "path", r->file);
    add_i64(&j, o, "bytes", r->file_bytes);
    fkm_json_field(&j, "file", o);
    fkm_json_list_begin(&j, "ceilings");
    for (int i = 0; i < r->rate_count; i++)
        fkm_json_list_item(&j, rate_object(&j, &r->rates[i]));
    fkm_json_list_end(&j);
    fkm_json_list_begin(&j, "shapes");
    for (int i = 0; i < r->speed_count; i++)
        fkm_json_list_item(&j, speed_object(&j, &r->speeds[i], &r->measure));
    fkm_json_list_end(&j);
    fkm_json_list_begin(&j, "growth");
    for (int axis = 0; r->linear && axis < 3; axis++) {
        growth g = growth_along(r, axis);
        if (!g.known)
            continue;
        o = cJSON_CreateObject();
        add_text(&j, o, "axis", axis_names[axis]);
        add_real(&j, o, "factor", g.factor);
        add_real(&j, o, "cost", g.cost);
        add_real(&j, o, "exponent", g.exponent);
        fkm_json_list_item(&j, o);
    }
    fkm_json_list_end(&j);
    return fkm_json_end(&j);
}

/* ---- the command ---- */

static fkm_status measure_machine(results *r, bool talk, fkm_err *e)
{
    const char *directory = getenv("TMPDIR");
    const common_args *common = &r->args->common;
    fkm_rate rate;
    if (talk)
        print_out("%s, %s, %" PRId32 " thread%s\n\n", fkm_cpu_model(), r->measure.ops->name,
            r->measure.threads, r->measure.threads == 1 ? "" : "s");
    for (int i = 0; r->rate_count < MOST_RATES - 2 && !print_is_unread(); i++) {
        say_now(common, "memory and arithmetic");
        fkm_status st = fkm_measure_ceiling(&rate, &r->measure, i, e);
        print_live_clear();
        FKM_TRY(st);
        if (!rate.name)
            break;
        r->rates[r->rate_count++] = rate;
        if (talk)
            print_rate(&rate);
    }
    fkm_rate *files = &r->rates[r->rate_count];
    say_now(common, "file reads");
    fkm_status st = fkm_measure_file(files, &r->file_bytes, &r->measure, r->file,
        directory && *directory ? directory : "/tmp", e);
    print_live_clear();
    FKM_TRY(st);
    r->rate_count += 2;
    if (talk) {
        print_rate(&files[0]);
        print_rate(&files[1]);
    }
    return FKM_OK;
}

/* Shares of a ceiling are as good as the ceiling. */
static void print_doubt(const results *r)
{
    int noisy = 0;
    for (int i = 0; i < r->rate_count; i++)
        noisy += r->rates[i].noisy;
    if (noisy > 0)
        print_out("\nnoisy: other work was running; shares of those ceilings are too high\n");
}

static fkm_status measure_shapes(results *r, const fkm_bench_shape *shapes, bool talk, fkm_err *e)
{
    if (talk)
        print_out("\n%-32s%-11s%10s %6s %18s %9s\n", "shape", "part", "median", "spread", "rate  ",
            "ceiling");
    bool any = false;
    int64_t least = INT64_MAX;
    for (int i = 0; shapes[i].rows && !print_is_unread(); i++) {
        fkm_speed *s = &r->speeds[r->speed_count++];
        char text[80];
        shape_text(text, sizeof text, &shapes[i]);
        say_now(&r->args->common, text);
        fkm_status st = fkm_measure_shape(s, &r->measure, &shapes[i], e);
        print_live_clear();
        FKM_TRY(st);
        any = any || !s->skipped;
        least = s->needed_bytes < least ? s->needed_bytes : least;
        if (talk)
            print_speed(s, &r->measure);
    }
    if (any || print_is_unread())
        return FKM_OK;
    char size[2][32];
    fkm_fail(e, FKM_ENOMEM, "no shape fits: the smallest needs %s, allowed are %s",
        fkm_bytes_text(size[0], 32, least), fkm_bytes_text(size[1], 32, r->measure.memory_bytes));
    return fkm_hint(e, "give a larger --memory, or measure less: --quick");
}

static fkm_status run_bench(const cmd *self, int argc, char **argv, const char *line, fkm_err *e)
{
    struct bench_args a = {.grid = "default"};
    fkm_bench_shape shapes[MOST_SHAPES + 1];
    results r = {.args = &a};
    char started[32];
    int first;
    bool done;
    common_args_default(&a.common);
    void *const bases[] = {&a, &a.common, &a.common};
    FKM_TRY(cmd_parse(self, bases, &a.common, argc, argv, &first, &done, e));
    if (done)
        return FKM_OK;
    if (argc - first > 1) {
        fkm_fail(e, FKM_EUSAGE, "bench takes at most one file, found %d", argc - first);
        return fkm_hint(e, "a file is only read: its rate tells what storage can do");
    }
    FKM_TRY(choose_shapes(shapes, &a, e));
    fkm_measure_options o = {a.common.machine, a.quick, a.seed};
    FKM_TRY(fkm_measure_begin(&r.measure, &o, e));
    fkm_utc_text(started, sizeof started);
    r.file = first < argc ? argv[first] : NULL;
    r.linear = !strcmp(a.grid, "linear");
    bool talk = !a.common.json && !a.common.quiet;
    FKM_TRY(measure_machine(&r, talk, e));
    FKM_TRY(measure_shapes(&r, shapes, talk, e));
    if (talk && r.linear)
        print_growth(&r);
    if (talk)
        print_doubt(&r);
    return a.common.json ? print_json(&r, line, started, e) : FKM_OK;
}

const cmd cmd_bench = {
    .name = "bench",
    .about = "measure this machine's ceilings and how close fkm comes",
    .usage = "[options] [FILE]",
    .examples = "  fkm bench                            a few minutes at most\n"
                "  fkm bench --quick                    a first look\n"
                "  fkm bench --grid 1Mx128x1000 -j 1    one shape, one thread\n"
                "  fkm bench -d cuda --grid 1Mx128x4096xf16,1Mx768x4096xdecay\n"
                "  fkm bench --grid linear              does the cost grow as it should?\n"
                "  fkm bench --json /data/big.fvecs     how fast is that disk?\n",
    .groups = bench_groups,
    .run = run_bench,
};
