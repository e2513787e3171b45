/* Where the rows of a pass come from: see source.h. */
#include "source.h"

#include "base/checked.h"
#include "base/clock.h"
#include "base/direct.h"
#include "base/mem.h"
#include "base/sysinfo.h"
#include "base/thread.h"
#include "scan.h"

#include <pthread.h>
#include <string.h>

#define LOAD_CHUNK_BYTES (8 << 20) /* of a resident load: scanned while the next one is read */
#define SCAN_CHUNKS 8 /* at a time, if reading is ahead: then signals are listened for */

/* One buffer of the ring. Filled by the reading thread; then used by the consumer and held to its
 * checksums: by the consumer's threads before, or by the checking thread side by side; free again
 * when both are done with it. */
typedef struct slot {
    char *memory; /* room for a chunk, wherever it begins in its first FKM_DIRECT_ALIGNMENT bytes */
    char *data;   /* where it does */
    int64_t pass, row0, count;
    bool full, used, checked, pinned;
    fkm_status status; /* of reading it */
    fkm_err error;
} slot;

struct fkm_source {
    fkm_reader *in;
    bool resident;
    int64_t rows, chunk_rows; /* of one problem; of one chunk */
    int64_t base;             /* first row of the problem in the data set */
    int32_t dims;
    fkm_dtype dtype;
    size_t row_bytes;
    char *memory;               /* resident: room for the rows */
    char *data;                 /* [rows][dims], in its first page */
    fkm_checksums *checksums;   /* the caller's; NULL: none */
    fkm_checksum_cursor cursor; /* of whoever holds rows to them */
    fkm_pool *pool;             /* of the consumer's threads; NULL: none */
    bool check_apart;           /* there is a checking thread */
    const fkm_backend_ops *ops; /* that memory is pinned with; NULL: it is not */
    size_t pin_slice;           /* of resident rows, bytes that are pinned at once */
    int64_t pinned_slices;      /* from the first on */
    bool pinning;               /* more are to be */

    int64_t at;   /* consumer: next row of this pass */
    int64_t turn; /* consumer: chunks taken since the thread started */
    bool holding; /* consumer: slot (turn - 1) % slots is in use */
    double wait_s;

    slot *ring;
    int64_t slots;
    pthread_t thread, checker;
    bool running, checking;
    bool *skip;           /* [chunks]: not wanted in this pass; set by the consumer */
    pthread_mutex_t lock; /* guards skip and what follows, and full, used and checked of the ring */
    pthread_cond_t filled, freed; /* filled: or checked */
    bool closing, last_pass;
    int64_t chunks_checked; /* since the thread started */
    fkm_status check_status;
    fkm_err check_error;
    int64_t bytes_read;
    int64_t pass_begun; /* passes that the consumer has begun, since the thread started */
};

static fkm_status read_rows(fkm_source *s, int64_t row, int64_t count, void *dst, fkm_err *e)
{
    fkm_status st = fkm_reader_read(s->in, s->base + row, count, dst, e);
    pthread_mutex_lock(&s->lock);
    s->bytes_read += count * fkm_reader_row_bytes(s->in);
    pthread_mutex_unlock(&s->lock);
    return st;
}

/* Holds rows that come in their order to their checksums. pool: of the caller, or NULL. */
static fkm_status check_rows(
    fkm_source *s, int64_t row, int64_t count, const char *x, fkm_pool *pool, fkm_err *e)
{
    if (!s->checksums)
        return FKM_OK;
    return fkm_checksums_add(s->checksums, &s->cursor, s->base + row, count, x, pool, e);
}

typedef enum todo { STOP, SKIP, FILL } todo;

/* Waits until the slot may be filled with the chunk at `row` in pass `pass`. */
static todo wait_for_turn(fkm_source *s, const slot *b, int64_t pass, int64_t row)
{
    pthread_mutex_lock(&s->lock);
    while (!s->closing && (b->full || (s->last_pass && pass > s->pass_begun)))
        pthread_cond_wait(&s->freed, &s->lock);
    /* The consumer may be passes ahead: it waits for nothing of those that it has left out chunks
     * of. */
    const bool wanted =
        pass > s->pass_begun || (pass == s->pass_begun && !s->skip[row / s->chunk_rows]);
    const todo what = s->closing ? STOP : wanted ? FILL : SKIP;
    pthread_mutex_unlock(&s->lock);
    return what;
}

/* Where in `memory` a chunk goes that begins with such a row: as it lies in its file, so that it
 * can be read without a copy, unless its elements are not aligned there. */
static char *place_for(const fkm_source *s, char *memory, int64_t row)
{
    const int64_t offset = fkm_reader_offset(s->in, s->base + row);
    if (offset < 0 || offset % (int64_t)fkm_dtype_size(s->dtype) != 0)
        return memory;
    return memory + (uintptr_t)(offset - (int64_t)(uintptr_t)memory) % FKM_DIRECT_ALIGNMENT;
}

static void *thread_main(void *arg)
{
    fkm_source *s = arg;
    int64_t filled = 0;
    for (int64_t pass = 1;; pass++) {
        for (int64_t row = 0; row < s->rows; row += s->chunk_rows) {
            slot *b = &s->ring[filled % s->slots];
            const todo what = wait_for_turn(s, b, pass, row);
            if (what == STOP)
                return NULL;
            if (what == SKIP)
                continue;
            filled++;
            b->pass = pass;
            b->row0 = row;
            b->count = fkm_min_i64(s->chunk_rows, s->rows - row);
            b->data = place_for(s, b->memory, row);
            b->status = read_rows(s, row, b->count, b->data, &b->error);
            pthread_mutex_lock(&s->lock);
            b->used = false;
            b->checked = !s->check_apart;
            b->full = true;
            pthread_cond_broadcast(&s->filled);
            pthread_mutex_unlock(&s->lock);
            if (b->status != FKM_OK)
                return NULL; /* the consumer finds the error in its turn */
        }
    }
}

/* The slot is free when both have done with it. Called with the lock held. */
static void free_if_done(fkm_source *s, slot *b)
{
    if (!b->used || !b->checked)
        return;
    b->full = false;
    pthread_cond_signal(&s->freed);
}

/* Where CPUs have nothing else to do. Reading is kept free of it: a checksum takes a tenth of the
 * time of a read from the page cache. */
static void *checker_main(void *arg)
{
    fkm_source *s = arg;
    for (int64_t turn = 0;; turn++) {
        slot *b = &s->ring[turn % s->slots];
        fkm_err e = {0};
        pthread_mutex_lock(&s->lock);
        while (!s->closing && (!b->full || b->checked))
            pthread_cond_wait(&s->filled, &s->lock);
        bool stop = s->closing || b->status != FKM_OK;
        pthread_mutex_unlock(&s->lock);
        if (stop)
            return NULL;
        fkm_status st = check_rows(s, b->row0, b->count, b->data, NULL, &e);
        pthread_mutex_lock(&s->lock);
        b->checked = true;
        s->chunks_checked = turn + 1;
        s->check_status = st;
        s->check_error = e;
        free_if_done(s, b);
        pthread_cond_broadcast(&s->filled);
        pthread_mutex_unlock(&s->lock);
        if (st != FKM_OK)
            return NULL;
    }
}

static int64_t chunk_count(const fkm_source *s)
{
    return (s->rows + s->chunk_rows - 1) / s->chunk_rows;
}

static void stop_thread(fkm_source *s)
{
    pthread_mutex_lock(&s->lock);
    s->closing = true;
    pthread_cond_broadcast(&s->freed);
    pthread_cond_broadcast(&s->filled);
    pthread_mutex_unlock(&s->lock);
    if (s->running)
        pthread_join(s->thread, NULL);
    if (s->checking)
        pthread_join(s->checker, NULL);
    s->running = s->checking = false;
}

static fkm_status start_thread(fkm_source *s, bool once, fkm_err *e)
{
    stop_thread(s);
    for (int64_t i = 0; i < s->slots; i++)
        s->ring[i].full = s->ring[i].used = s->ring[i].checked = false;
    s->closing = s->holding = false;
    s->last_pass = once; /* before the thread starts: it may be quick */
    s->at = s->turn = s->chunks_checked = 0;
    s->check_status = FKM_OK;
    s->pass_begun = 1;
    s->check_apart = s->checksums && (!s->pool || fkm_pool_threads(s->pool) < fkm_cpu_count());
    memset(s->skip, 0, (size_t)chunk_count(s) * sizeof *s->skip);
    FKM_TRY(fkm_thread_start(&s->thread, thread_main, s, "the reading thread", e));
    s->running = true;
    if (!s->check_apart)
        return FKM_OK;
    FKM_TRY(fkm_thread_start(&s->checker, checker_main, s, "the checking thread", e));
    s->checking = true;
    return FKM_OK;
}

static int64_t slot_bytes(const fkm_source *s)
{
    return fkm_add_sat(fkm_mul_sat(s->chunk_rows, (int64_t)s->row_bytes), FKM_DIRECT_ALIGNMENT);
}

fkm_status fkm_source_open(fkm_source **out, fkm_reader *in, const fkm_run_plan *plan,
    fkm_checksums *checksums, fkm_err *e)
{
    fkm_status st = FKM_OK;
    fkm_source *s = NULL;
    const fkm_shape *shape = fkm_reader_shape(in);
    FKM_TRY(fkm_calloc(&s, 1, sizeof *s, "the source of rows", e));
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->filled, NULL);
    pthread_cond_init(&s->freed, NULL);
    s->in = in;
    s->checksums = checksums;
    s->resident = plan->resident;
    s->rows = shape->rows;
    s->chunk_rows = plan->chunk_rows;
    s->dims = shape->dims;
    s->dtype = shape->dtype;
    s->row_bytes = (size_t)shape->dims * fkm_dtype_size(shape->dtype);
    if (s->resident) {
        const int64_t bytes = fkm_mul_sat(s->rows, (int64_t)s->row_bytes);
        FKM_GO(fkm_alloc(&s->memory, fkm_add_sat(bytes, FKM_DIRECT_ALIGNMENT), 1, "the rows", e));
        s->data = s->memory + (-(uintptr_t)s->memory & (uintptr_t)(FKM_DIRECT_ALIGNMENT - 1));
    } else {
        FKM_GO(fkm_calloc(&s->ring, plan->ring_chunks, sizeof *s->ring, "the ring", e));
        FKM_GO(fkm_calloc(&s->skip, chunk_count(s), sizeof *s->skip, "the ring", e));
        s->slots = plan->ring_chunks;
        for (int64_t i = 0; i < s->slots; i++)
            FKM_GO(fkm_alloc(&s->ring[i].memory, slot_bytes(s), 1, "a chunk of rows", e));
    }
    *out = s;
    return FKM_OK;
out:
    fkm_source_close(s);
    return st;
}

/* As many chunks as end with a page: then no page is in two slices, and no chunk either, which is
 * copied as a whole. */
static size_t slice_bytes(const fkm_source *s)
{
    const size_t page = (size_t)FKM_DIRECT_ALIGNMENT, all = (size_t)s->rows * s->row_bytes;
    const size_t chunk = (size_t)s->chunk_rows * s->row_bytes;
    size_t chunks = page; /* over the largest power of two that divides a chunk, in whole pages */
    while (chunks > 1 && chunks / 2 * chunk % page == 0)
        chunks /= 2;
    return chunk >= all / chunks ? all : chunks * chunk;
}

/* Pins resident rows before `end` that are not. To pin takes seconds for each ten gigabytes: slice
 * by slice, as they are wanted first, the device computes meanwhile. */
static void pin_before(fkm_source *s, int64_t end)
{
    const size_t all = (size_t)s->rows * s->row_bytes, wanted = (size_t)end * s->row_bytes;
    while (s->pinning && (size_t)s->pinned_slices * s->pin_slice < wanted) {
        const size_t at = (size_t)s->pinned_slices * s->pin_slice, left = all - at;
        s->pinning = s->ops->pin(s->data + at, left < s->pin_slice ? left : s->pin_slice);
        s->pinned_slices += s->pinning;
    }
}

void fkm_source_pin(fkm_source *s, const fkm_backend_ops *ops, const fkm_backend *b)
{
    if (!ops->pin)
        return;
    s->ops = ops;
    s->pinning = s->resident && s->rows > 0 && ops->streams(b);
    s->pin_slice = s->pinning ? slice_bytes(s) : 0;
    for (int64_t i = 0; i < s->slots; i++)
        s->ring[i].pinned = ops->pin(s->ring[i].memory, (size_t)slot_bytes(s));
}

void fkm_source_use(fkm_source *s, const fkm_backend_ops *ops, const fkm_backend *b)
{
    s->pool = ops->pool ? ops->pool(b) : NULL;
}

void fkm_source_close(fkm_source *s)
{
    if (!s)
        return;
    stop_thread(s);
    for (int64_t i = 0; i < s->pinned_slices; i++)
        s->ops->unpin(s->data + (size_t)i * s->pin_slice);
    for (int64_t i = 0; i < s->slots; i++)
        if (s->ring[i].pinned)
            s->ops->unpin(s->ring[i].memory);
    for (int64_t i = 0; i < s->slots; i++)
        fkm_free(s->ring[i].memory);
    fkm_free(s->ring);
    fkm_free(s->skip);
    fkm_free(s->memory);
    pthread_cond_destroy(&s->filled);
    pthread_cond_destroy(&s->freed);
    pthread_mutex_destroy(&s->lock);
    fkm_free(s);
}

/* ---- a resident load: one thread reads, this one scans behind it ---- */

typedef struct load {
    fkm_source *s;
    int64_t chunk, done; /* done: rows read, guarded by s->lock */
    bool stop;
    fkm_status status;
    fkm_err error;
} load;

static void *load_main(void *arg)
{
    load *l = arg;
    fkm_source *s = l->s;
    for (int64_t row = 0; row < s->rows; row += l->chunk) {
        int64_t n = fkm_min_i64(l->chunk, s->rows - row);
        char *x = s->data + (size_t)row * s->row_bytes;
        fkm_status st = read_rows(s, row, n, x, &l->error);
        if (st == FKM_OK)
            st = check_rows(s, row, n, x, NULL, &l->error);
        pthread_mutex_lock(&s->lock);
        l->status = st;
        l->done = row + n;
        bool stop = l->stop || st != FKM_OK;
        pthread_cond_signal(&s->filled);
        pthread_mutex_unlock(&s->lock);
        if (stop)
            break;
    }
    return NULL;
}

static fkm_status scan_behind(load *l, fkm_scan *scan, const fkm_observer *w, fkm_err *e)
{
    fkm_source *s = l->s;
    if (scan)
        fkm_scan_init(scan);
    for (int64_t seen = 0; seen < s->rows;) {
        double begin = fkm_now();
        pthread_mutex_lock(&s->lock);
        while (l->done == seen)
            pthread_cond_wait(&s->filled, &s->lock);
        int64_t done = fkm_min_i64(l->done, seen + SCAN_CHUNKS * l->chunk);
        fkm_status st = l->status;
        pthread_mutex_unlock(&s->lock);
        s->wait_s += fkm_now() - begin;
        if (st != FKM_OK)
            return st;
        if (w && w->stop && *w->stop)
            return fkm_fail(e, FKM_ESTOPPED, "stopped by a signal");
        const fkm_rows rows = {s->data + (size_t)seen * s->row_bytes, seen, done - seen};
        if (scan)
            fkm_source_scan(s, scan, &rows);
        seen = done;
        if (w && w->progress)
            w->progress(w->arg, &(fkm_progress){.rows_done = seen, .rows_total = s->rows});
    }
    return FKM_OK;
}

static fkm_status load_rows(fkm_source *s, fkm_scan *scan, const fkm_observer *w, fkm_err *e)
{
    load l = {.s = s};
    l.chunk = fkm_max_i64(1, LOAD_CHUNK_BYTES / (int64_t)s->row_bytes);
    pthread_t thread;
    FKM_TRY(fkm_thread_start(&thread, load_main, &l, "the reading thread", e));
    fkm_status st = scan_behind(&l, scan, w, e);
    pthread_mutex_lock(&s->lock);
    l.stop = true;
    pthread_mutex_unlock(&s->lock);
    pthread_join(thread, NULL);
    if (st != FKM_OK && st != FKM_ESTOPPED)
        *e = l.error;
    return st == FKM_OK ? fkm_reader_unchanged(s->in, e) : st;
}

fkm_status fkm_source_start(
    fkm_source *s, int64_t problem, bool once, fkm_scan *scan, const fkm_observer *w, fkm_err *e)
{
    stop_thread(s);
    s->base = problem * s->rows;
    s->at = 0;
    return s->resident ? load_rows(s, scan, w, e) : start_thread(s, once, e);
}

/* The next slot that the thread has filled. */
static fkm_status take_slot(fkm_source *s, slot **out, fkm_err *e)
{
    slot *b = &s->ring[s->turn % s->slots];
    double begin = fkm_now();
    pthread_mutex_lock(&s->lock);
    while ((!b->full || b->used) && s->check_status == FKM_OK)
        pthread_cond_wait(&s->filled, &s->lock);
    fkm_status checked = s->check_status;
    pthread_mutex_unlock(&s->lock);
    s->wait_s += fkm_now() - begin;
    if (checked != FKM_OK || b->status != FKM_OK) {
        *e = checked != FKM_OK ? s->check_error : b->error;
        return checked != FKM_OK ? checked : b->status;
    }
    s->turn++;
    s->holding = true;
    *out = b;
    return FKM_OK;
}

static void release_slot(fkm_source *s)
{
    if (!s->holding)
        return;
    s->holding = false;
    pthread_mutex_lock(&s->lock);
    slot *b = &s->ring[(s->turn - 1) % s->slots];
    b->used = true;
    free_if_done(s, b);
    pthread_mutex_unlock(&s->lock);
}

/* What had been read before it was known that it is not wanted is passed over. */
static fkm_status next_in_ring(fkm_source *s, fkm_rows *rows, fkm_err *e)
{
    slot *b;
    for (;;) {
        FKM_TRY(take_slot(s, &b, e));
        if (b->pass == s->pass_begun && b->row0 == s->at)
            break;
        release_slot(s);
    }
    *rows = (fkm_rows){b->data, b->row0, b->count};
    return s->check_apart ? FKM_OK : check_rows(s, b->row0, b->count, b->data, s->pool, e);
}

static void pass_over_skipped(fkm_source *s)
{
    while (s->at < s->rows && s->skip[s->at / s->chunk_rows])
        s->at += fkm_min_i64(s->chunk_rows, s->rows - s->at);
}

static void begin_pass(fkm_source *s)
{
    s->at = 0;
    pthread_mutex_lock(&s->lock);
    if (s->skip)
        memset(s->skip, 0, (size_t)chunk_count(s) * sizeof *s->skip);
    if (!s->last_pass)
        s->pass_begun++;
    pthread_cond_signal(&s->freed);
    pthread_mutex_unlock(&s->lock);
}

/* All rows of the pass must have been those of the first one before its result is used. */
static fkm_status wait_for_checks(fkm_source *s, fkm_err *e)
{
    double begin = fkm_now();
    pthread_mutex_lock(&s->lock);
    while (s->checking && s->chunks_checked < s->turn && s->check_status == FKM_OK)
        pthread_cond_wait(&s->filled, &s->lock);
    fkm_status st = s->check_status;
    if (st != FKM_OK)
        *e = s->check_error;
    pthread_mutex_unlock(&s->lock);
    s->wait_s += fkm_now() - begin;
    return st;
}

fkm_status fkm_source_next(fkm_source *s, fkm_rows *rows, fkm_err *e)
{
    release_slot(s);
    if (s->skip)
        pass_over_skipped(s);
    if (s->at == s->rows) {
        if (!s->resident) { /* what was read must have been one state of the file */
            FKM_TRY(wait_for_checks(s, e));
            FKM_TRY(fkm_reader_unchanged(s->in, e));
        }
        *rows = (fkm_rows){NULL, s->rows, 0};
        begin_pass(s);
        return FKM_OK;
    }
    if (s->resident) {
        int64_t n = fkm_min_i64(s->chunk_rows, s->rows - s->at);
        pin_before(s, s->at + n);
        *rows = (fkm_rows){s->data + (size_t)s->at * s->row_bytes, s->at, n};
    } else {
        FKM_TRY(next_in_ring(s, rows, e));
    }
    s->at += rows->count;
    return FKM_OK;
}

bool fkm_source_ahead(fkm_source *s, int64_t n, fkm_rows *rows)
{
    bool there = false;
    if (s->resident || s->at > 0 || n >= fkm_min_i64(s->slots, chunk_count(s)))
        return false;
    const slot *b = &s->ring[(s->turn + n) % s->slots];
    pthread_mutex_lock(&s->lock);
    if (b->full && !b->used && b->status == FKM_OK)
        there = b->pass == s->pass_begun && b->row0 == n * s->chunk_rows;
    pthread_mutex_unlock(&s->lock);
    if (there)
        *rows = (fkm_rows){b->data, b->row0, b->count};
    return there;
}

void fkm_source_scan(const fkm_source *s, fkm_scan *scan, const fkm_rows *rows)
{
    fkm_scan_add_by(s->pool, scan, rows->x, s->dtype, rows->row0, rows->count, s->dims);
}

void fkm_source_skip(fkm_source *s, int64_t row0)
{
    pthread_mutex_lock(&s->lock);
    s->skip[row0 / s->chunk_rows] = true;
    pthread_mutex_unlock(&s->lock);
}

fkm_status fkm_source_scan_rest(fkm_source *s, fkm_scan *scan, const fkm_observer *w, fkm_err *e)
{
    fkm_rows rows;
    for (;;) {
        if (w && w->stop && *w->stop)
            return fkm_fail(e, FKM_ESTOPPED, "stopped by a signal");
        FKM_TRY(fkm_source_next(s, &rows, e));
        if (rows.count == 0)
            return FKM_OK;
        fkm_source_scan(s, scan, &rows);
    }
}

void fkm_source_last_pass(fkm_source *s)
{
    pthread_mutex_lock(&s->lock);
    s->last_pass = true;
    pthread_mutex_unlock(&s->lock);
}

fkm_status fkm_source_rows(fkm_source *s, int64_t row, int64_t count, float *out, fkm_err *e)
{
    const char *x;
    char *copy = NULL;
    if (s->resident) {
        x = s->data + (size_t)row * s->row_bytes;
    } else {
        FKM_TRY(fkm_alloc(&copy, count, s->row_bytes, "some rows", e));
        fkm_status st = read_rows(s, row, count, copy, e);
        if (st != FKM_OK) {
            fkm_free(copy);
            return st;
        }
        x = copy;
    }
    size_t item = fkm_dtype_size(s->dtype);
    for (int64_t i = 0; i < count * s->dims; i++)
        out[i] = fkm_dtype_to_float(s->dtype, x + (size_t)i * item);
    fkm_free(copy);
    return FKM_OK;
}

double fkm_source_wait(const fkm_source *s)
{
    return s->wait_s;
}

int64_t fkm_source_bytes_read(fkm_source *s)
{
    pthread_mutex_lock(&s->lock);
    int64_t bytes = s->bytes_read;
    pthread_mutex_unlock(&s->lock);
    return bytes;
}
