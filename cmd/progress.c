/* Progress on stderr: see progress.h. */
#include "progress.h"

#include "../src/base/clock.h"
#include "../src/base/log.h"
#include "../src/base/mem.h"
#include "../src/base/thread.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define LIVE_EVERY_S 0.1
#define LIVE_GRACE_S 0.3 /* shorter than this is not worth a flicker */
#define LOG_GRACE_S 2.0
#define LOG_EVERY_S 600.0
#define RATE_S 1.0 /* reading is measured over so long */
#define TICK_NS 250000000
#define BAR 16

static progress_mode choose_mode(const common_args *a)
{
    const char *term = getenv("TERM");
    bool terminal = isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0;
    if (a->quiet || a->progress == PROGRESS_NEVER)
        return PROGRESS_SILENT;
    return terminal ? PROGRESS_LIVE : PROGRESS_LOG;
}

static void describe_data(progress *p, const fkm_reader *in)
{
    const fkm_shape *shape = fkm_reader_shape(in);
    const fkm_input *first = fkm_reader_input(in, 0);
    char size[32], batch[40] = "";
    int64_t bytes = 0;
    for (int i = 0; i < fkm_reader_input_count(in); i++)
        bytes += fkm_reader_input(in, i)->id.bytes;
    if (shape->ndim == 3)
        snprintf(batch, sizeof batch, "%" PRId64 " problems of ", shape->batch);
    int used = snprintf(p->data, sizeof p->data, "%.250s%s  %s%" PRId64 " x %" PRId32 " %s  %s",
        first->path, fkm_reader_input_count(in) > 1 ? " ..." : "", batch, shape->rows, shape->dims,
        fkm_dtype_name(first->dtype), fkm_bytes_text(size, sizeof size, bytes));
    if (p->clusters > 0)
        snprintf(p->data + used, sizeof p->data - (size_t)used, "   k=%" PRId32, p->clusters);
}

static void show_header(progress *p)
{
    if (!p->header_shown)
        print_err("%s%s%s\n", p->data, p->machine[0] ? "   " : "", p->machine);
    p->header_shown = true;
}

/* "problem 2/3  start 1/10  ": which of several is running; empty for the only one. */
static const char *describe_which(
    char *out, size_t cap, const progress *p, int32_t problem, int32_t restart)
{
    int used = 0;
    out[0] = '\0';
    if (p->batch > 1)
        used = snprintf(out, cap, "problem %" PRId32 "/%" PRId64 "  ", problem + 1, p->batch);
    if (p->restarts > 1)
        snprintf(out + used, cap - (size_t)used, "start %" PRId32 "/%" PRId32 "  ", restart + 1,
            p->restarts);
    return out;
}

/* "iter 12/100  inertia 1.2345e+09 (-0.31%)  moved 4.1%" */
static int describe_iteration(char *out, size_t cap, const progress *p, const fkm_iteration *it,
    double previous, int32_t max_iter)
{
    char change[32] = "", which[80];
    if (previous > 0)
        snprintf(change, sizeof change, " (%+.2f%%)", (it->inertia - previous) / previous * 100);
    describe_which(which, sizeof which, p, it->problem, it->restart);
    char of[16] = "";
    if (max_iter > 0)
        snprintf(of, sizeof of, "/%" PRId32, max_iter);
    return snprintf(out, cap, "%siter %" PRId32 "%s  inertia %.5g%s  moved %.1f%%", which, it->i,
        of, it->inertia, change, p->rows > 0 ? 100.0 * (double)it->moved / (double)p->rows : 0.0);
}

static double fraction(const fkm_progress *now)
{
    return now->rows_total > 0 ? (double)now->rows_done / (double)now->rows_total : 0;
}

/* Stages at the beginning, in their order; a scan has only the last one. */
enum { STAGE_NONE, STAGE_READING, STAGE_SEEDING, STAGE_PASSES };

static int stage_of(const progress *p)
{
    const fkm_progress *now = &p->heard.now;
    if (p->clusters == 0 || now->iteration > 0)
        return STAGE_PASSES;
    return now->iteration < 0 ? STAGE_READING : STAGE_SEEDING;
}

/* What is running, when no iteration has ended yet or none is meant to. */
static int describe_stage(char *out, size_t cap, const progress *p)
{
    const fkm_progress *now = &p->heard.now;
    char which[80];
    describe_which(which, sizeof which, p, now->problem, now->restart);
    if (stage_of(p) == STAGE_READING)
        return snprintf(out, cap, "%sreading rows", which);
    if (stage_of(p) == STAGE_SEEDING)
        return snprintf(out, cap, "%schoosing the first centroids", which);
    if (p->clusters > 0 && now->max_iter > 0 && now->iteration > now->max_iter)
        return snprintf(out, cap, "%sfinal labels", which);
    if (p->clusters > 0 && now->max_iter > 0)
        return snprintf(
            out, cap, "%siter %" PRId32 "/%" PRId32, which, now->iteration, now->max_iter);
    return snprintf(out, cap, "row %" PRId64 "/%" PRId64, now->rows_done, now->rows_total);
}

/* How far the pass is, as a bar where there is room for it: nothing when passes come in one piece,
 * which has no parts to tell of. */
static void append_part(char *line, size_t cap, const progress *p, bool roomy)
{
    char bar[BAR + 1];
    double part = fraction(&p->heard.now);
    size_t used = strlen(line);
    if (!p->in_parts)
        return;
    for (int i = 0; i < BAR; i++)
        bar[i] = i < (int)(part * BAR) ? '#' : '-';
    bar[BAR] = '\0';
    if (roomy)
        snprintf(line + used, cap - used, "  [%s] %.0f%%", bar, part * 100);
    else
        snprintf(line + used, cap - used, "  %.0f%%", part * 100);
}

/* Seconds that are left, at most: a fit may converge earlier. Negative: not known. */
static double seconds_left(const progress *p)
{
    const fkm_progress *now = &p->heard.now;
    double part = p->in_parts && fraction(now) < 1 ? fraction(now) : 0;
    double since = fkm_now() - p->heard.at;
    double left = -1;
    if (now->last && now->max_iter > 0)
        left = now->last->seconds * ((double)now->max_iter + 1 - now->iteration + (1 - part));
    else if (!now->last && now->max_iter <= 1 && part > 0)
        left = now->elapsed_s * (1 - part) / part;
    return left < 0 ? left : left > since ? left - since : 0;
}

static void append_rates(char *line, size_t cap, const progress *p)
{
    size_t used = strlen(line);
    if (p->rate >= 5e7)
        snprintf(line + used, cap - used, "  %.1f GB/s", p->rate * 1e-9);
    else if (p->rate > 0)
        snprintf(line + used, cap - used, "  %.2g MB/s", p->rate * 1e-6);
    used = strlen(line);
    double left = seconds_left(p);
    if (left < 0)
        return;
    int s = left < 3.6e8 ? (int)left : 360000000;
    if (s >= 3600)
        snprintf(line + used, cap - used, "  eta %dh%02dm", s / 3600, s / 60 % 60);
    else if (s >= 60)
        snprintf(line + used, cap - used, "  eta %dm%02ds", s / 60, s % 60);
    else
        snprintf(line + used, cap - used, "  eta %ds", s);
}

static size_t terminal_columns(void)
{
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1)
        return size.ws_col;
    return 80;
}

static void live_line(char *line, size_t cap, const progress *p, bool roomy)
{
    const fkm_progress *now = &p->heard.now;
    if (now->last && now->iteration <= now->max_iter)
        describe_iteration(
            line, cap, p, now->last, now->before ? now->before->inertia : 0, now->max_iter);
    else
        describe_stage(line, cap, p);
    append_part(line, cap, p, roomy);
    append_rates(line, cap, p);
}

static void show_live(progress *p)
{
    char line[300];
    size_t columns = terminal_columns();
    live_line(line, sizeof line, p, true);
    if (strlen(line) >= columns)
        live_line(line, sizeof line, p, false);
    if (columns - 1 < sizeof line)
        line[columns - 1] = '\0'; /* a wrapped line could not be cleared */
    show_header(p);
    print_live(line);
}

/* A line of a log: the first time in each stage that lasts, and then what goes on. */
static void show_stage(progress *p)
{
    char stage[120], part[40] = "";
    double done = fraction(&p->heard.now);
    describe_stage(stage, sizeof stage, p);
    if (done > 0 && done < 1)
        snprintf(part, sizeof part, "  %.0f%% of this pass", done * 100);
    show_header(p);
    print_err("%s%s\n", stage, part);
}

/* Shows what was heard last, if it is time to. Called with the lock. */
static void show(progress *p, double t)
{
    bool early = stage_of(p) > p->stage_told && !p->heard.now.last && t - p->start >= LOG_GRACE_S;
    if (p->mode == PROGRESS_SILENT || t - p->start < p->grace_s)
        return;
    if (p->mode == PROGRESS_LIVE && t - p->last_line >= LIVE_EVERY_S)
        show_live(p);
    else if (p->mode == PROGRESS_LOG && (early || t - p->last_line >= LOG_EVERY_S))
        show_stage(p);
    else
        return;
    p->stage_told = stage_of(p);
    p->last_line = t;
}

/* ---- what is heard ---- */

static void note_iterations(heard *h, const fkm_iteration *last, const fkm_iteration *before)
{
    h->now.last = last ? &h->last : NULL;
    h->now.before = before ? &h->before : NULL;
    if (last)
        h->last = *last;
    if (before)
        h->before = *before;
}

/* Of the last second or two, so that an end of reading shows. */
static void note_rate(progress *p, const fkm_progress *now)
{
    double seconds = now->elapsed_s - p->rate_at;
    if (seconds < RATE_S)
        return;
    p->rate = (double)(now->bytes_read - p->rate_bytes) / seconds;
    p->rate_at = now->elapsed_s;
    p->rate_bytes = now->bytes_read;
}

static void on_progress(void *arg, const fkm_progress *now)
{
    progress *p = arg;
    pthread_mutex_lock(&p->lock);
    double t = fkm_now();
    int stage = stage_of(p);
    p->heard.now = *now;
    p->heard.at = t;
    note_iterations(&p->heard, now->last, now->before);
    p->in_parts = (p->in_parts && stage_of(p) == stage) ||
                  (now->rows_done > 0 && now->rows_done < now->rows_total);
    note_rate(p, now);
    show(p, t);
    pthread_mutex_unlock(&p->lock);
}

static bool is_power_of_two(int32_t i)
{
    return i > 0 && (i & (i - 1)) == 0;
}

static void show_iteration(progress *p, const fkm_iteration *it, double previous)
{
    char line[240];
    describe_iteration(line, sizeof line, p, it, previous, 0);
    show_header(p);
    print_err("%s  %.3g s\n", line, it->seconds);
}

static void on_iterated(void *arg, const fkm_iteration *it, const fkm_iteration *before)
{
    progress *p = arg;
    pthread_mutex_lock(&p->lock);
    double t = fkm_now();
    bool due = is_power_of_two(it->i) || t - p->last_line >= LOG_EVERY_S;
    note_iterations(&p->heard, it, before);
    p->stage_told = STAGE_PASSES;
    if (p->mode == PROGRESS_LOG && t - p->start >= p->grace_s && due) {
        show_iteration(p, it, before ? before->inertia : 0);
        p->last_line = t;
    }
    pthread_mutex_unlock(&p->lock);
}

static void on_planned(void *arg, const fkm_run_plan *plan)
{
    progress *p = arg;
    char planned[32], limit[32], pass[32], lanes[80] = "";
    if (plan->lanes > 1)
        snprintf(lanes, sizeof lanes, ", %" PRId32 " problems side by side of %" PRId32 " each%s",
            plan->lanes, plan->lane_threads, plan->lane_gpus ? ", on one GPU each" : "");
    fkm_verbose("plan: %s %s, %" PRId32 " threads%s; %s in chunks of %" PRId64
                " rows; memory %s of %s; "
                "%s read a pass",
        plan->backend, plan->isa, plan->threads, lanes,
        plan->resident ? "rows are kept in memory," : "rows are streamed,", plan->chunk_rows,
        fkm_bytes_text(planned, sizeof planned, plan->planned_bytes),
        fkm_bytes_text(limit, sizeof limit, plan->memory_limit_bytes),
        fkm_bytes_text(pass, sizeof pass, plan->read_bytes_per_pass));
    snprintf(p->machine, sizeof p->machine, "%s: %s, %" PRId32 " thread%s", plan->backend,
        plan->isa, plan->threads, plan->threads == 1 ? "" : "s");
}

static void show_resumed(progress *p, const fkm_saving *s)
{
    char which[80];
    print_live_clear();
    show_header(p);
    if (s->problem >= p->batch) {
        print_err("resumed from %s: the result is complete\n", s->path);
        return;
    }
    describe_which(which, sizeof which, p, s->problem, s->restart);
    print_err("resumed from %s: %siter %" PRId32 "\n", s->path, which, s->iteration);
}

static void on_resumed(void *arg, const fkm_saving *s)
{
    progress *p = arg;
    pthread_mutex_lock(&p->lock);
    if (p->mode != PROGRESS_SILENT)
        show_resumed(p, s);
    pthread_mutex_unlock(&p->lock);
}

fkm_observer progress_observer(progress *p)
{
    return (fkm_observer){p, on_planned, on_progress, on_iterated, on_resumed, cmd_stop_flag()};
}

/* ---- from beginning to end ---- */

/* A pass over rows in memory may take minutes without a word: what lasts is shown all the same. */
static void *tick(void *arg)
{
    progress *p = arg;
    pthread_mutex_lock(&p->lock);
    while (!p->is_over) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += TICK_NS;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&p->over, &p->lock, &until);
        if (!p->is_over && p->heard.at > 0)
            show(p, fkm_now());
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

void progress_begin(progress *p, const common_args *a, const fkm_reader *in, int32_t clusters)
{
    fkm_err ignored = {0};
    memset(p, 0, sizeof *p);
    p->mode = choose_mode(a);
    p->grace_s = p->mode == PROGRESS_LIVE ? LIVE_GRACE_S : LOG_GRACE_S;
    if (a->progress == PROGRESS_ALWAYS)
        p->grace_s = 0;
    p->start = p->last_line = fkm_now();
    p->clusters = clusters;
    p->batch = fkm_reader_shape(in)->batch;
    p->rows = fkm_reader_shape(in)->rows;
    describe_data(p, in);
    fkm_log_on_line(print_live_clear);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->over, NULL);
    /* Without it, what is heard is shown when it is heard. */
    p->ticks = p->mode != PROGRESS_SILENT &&
               fkm_thread_start(&p->ticker, tick, p, "the clock of progress", &ignored) == FKM_OK;
}

void progress_end(progress *p)
{
    pthread_mutex_lock(&p->lock);
    p->is_over = true;
    p->mode = PROGRESS_SILENT;
    pthread_cond_signal(&p->over);
    pthread_mutex_unlock(&p->lock);
    if (p->ticks)
        pthread_join(p->ticker, NULL);
    pthread_cond_destroy(&p->over);
    pthread_mutex_destroy(&p->lock);
    print_live_clear();
    fkm_log_on_line(NULL);
}
