/* Checksums of the rows: see checksums.h. */
#include "checksums.h"

#include "base/checked.h"
#include "base/crc32c.h"
#include "base/mem.h"

#include <inttypes.h>
#include <string.h>

/* Small beside the memory of the sums, and exact enough as a place to look at. */
#define BLOCK_BYTES ((int64_t)1 << 20)
#define PIECES 64 /* summed side by side */

static void lay_out(fkm_checksums *c, const fkm_shape *shape)
{
    c->rows = shape->rows;
    c->batch = shape->batch;
    c->row_bytes = (size_t)shape->dims * fkm_dtype_size(fkm_dtype_in_memory(shape->dtype));
    c->block_rows = fkm_max_i64(1, BLOCK_BYTES / (int64_t)c->row_bytes);
    c->blocks = (c->rows + c->block_rows - 1) / c->block_rows;
}

int64_t fkm_checksums_block_rows(const fkm_shape *shape)
{
    fkm_checksums c = {0};
    lay_out(&c, shape);
    return c.block_rows;
}

int64_t fkm_checksums_bytes(const fkm_shape *shape)
{
    fkm_checksums c = {0};
    lay_out(&c, shape);
    int64_t counts = fkm_mul_sat(c.batch, sizeof *c.known + sizeof *c.restored);
    return fkm_add_sat(fkm_mul_sat(fkm_mul_sat(c.batch, c.blocks), sizeof *c.crc), counts);
}

fkm_status fkm_checksums_open(fkm_checksums *c, const fkm_reader *in, fkm_err *e)
{
    static const char what[] = "checksums of the rows";
    fkm_status st = FKM_OK;
    memset(c, 0, sizeof *c);
    lay_out(c, fkm_reader_shape(in));
    c->in = in;
    FKM_GO(fkm_alloc(&c->crc, c->batch * c->blocks, sizeof *c->crc, what, e));
    FKM_GO(fkm_calloc(&c->known, c->batch, sizeof *c->known, what, e));
    FKM_GO(fkm_calloc(&c->restored, c->batch, sizeof *c->restored, what, e));
    return FKM_OK;
out:
    fkm_checksums_close(c);
    return st;
}

void fkm_checksums_close(fkm_checksums *c)
{
    fkm_free(c->crc);
    fkm_free(c->known);
    fkm_free(c->restored);
    memset(c, 0, sizeof *c);
}

/* From row `row` of the data set, how many rows there are to the end of its block. */
static int64_t to_end(const fkm_checksums *c, int64_t row)
{
    int64_t own = row % c->rows;
    return fkm_min_i64(c->block_rows - own % c->block_rows, c->rows - own);
}

/* sum: of the block as it is now. */
static fkm_status changed(fkm_checksums *c, int64_t block, uint32_t sum, fkm_err *e)
{
    char name[300];
    int64_t row = block / c->blocks * c->rows + block % c->blocks * c->block_rows;
    bool restored = block % c->blocks < c->restored[block / c->blocks];
    fkm_reader_row_name(c->in, row, name, sizeof name);
    if (restored)
        c->outdated = true;
    fkm_fail(e, FKM_EDATA,
        "%s and the %" PRId64 " rows after it changed since %s (CRC32C %08" PRIx32
        ", now %08" PRIx32 ")",
        name, to_end(c, row) - 1, restored ? "the checkpoint was written" : "they were first read",
        c->crc[block], sum);
    return fkm_hint(e, restored
                           ? "the run can go on with the data that it began with; --fresh starts "
                             "anew, with the data as it is now"
                           : "the result would mix two states of the data; run again when "
                             "nothing writes to it");
}

/* Rows, cut where blocks end, and the sums of some of the pieces. */
typedef struct pieces {
    const fkm_checksums *c;
    const char *x;
    int64_t rows, first; /* first: to the end of the block that they begin in */
    int64_t at;          /* the first piece of those whose sums these are */
    uint32_t begun;      /* sum of the rows of that block that came before */
    uint32_t sum[PIECES];
} pieces;

/* In pieces before this one. */
static int64_t rows_before(const pieces *p, int64_t piece)
{
    return piece == 0 ? 0 : fkm_min_i64(p->rows, p->first + (piece - 1) * p->c->block_rows);
}

static void sum_piece(void *arg, int64_t i, int worker)
{
    (void)worker;
    pieces *p = arg;
    const int64_t from = rows_before(p, p->at + i), to = rows_before(p, p->at + i + 1);
    const size_t bytes = p->c->row_bytes;
    p->sum[i] = fkm_crc32c(
        p->at + i == 0 ? p->begun : 0, p->x + (size_t)from * bytes, (size_t)(to - from) * bytes);
}

/* sum: of the block, up to the last of these rows. */
static fkm_status take(
    fkm_checksums *c, fkm_checksum_cursor *t, int64_t row, int64_t count, uint32_t sum, fkm_err *e)
{
    int64_t problem = row / c->rows, at = row % c->rows / c->block_rows;
    int64_t block = problem * c->blocks + at;
    t->sum = sum;
    t->at = row + count;
    if (count < to_end(c, row))
        return FKM_OK; /* the block goes on in the next chunk */
    int64_t known = atomic_load_explicit(&c->known[problem], memory_order_relaxed);
    if (at < known)
        return c->crc[block] == sum ? FKM_OK : changed(c, block, sum, e);
    if (at > known)
        return fkm_fail(e, FKM_EBUG, "block %" PRId64 " of rows was read out of turn", block);
    c->crc[block] = sum;
    atomic_store_explicit(&c->known[problem], known + 1, memory_order_release);
    return FKM_OK;
}

fkm_status fkm_checksums_add(fkm_checksums *c, fkm_checksum_cursor *t, int64_t row, int64_t count,
    const void *x, fkm_pool *pool, fkm_err *e)
{
    const bool begins = row % c->rows % c->block_rows == 0;
    if (!begins && row != t->at)
        return fkm_fail(e, FKM_EBUG, "row %" PRId64 " was read out of turn", row);
    pieces p = {
        .c = c, .x = x, .rows = count, .first = to_end(c, row), .begun = begins ? 0 : t->sum};
    while (rows_before(&p, p.at) < count) {
        int64_t n = 1;
        while (n < PIECES && rows_before(&p, p.at + n) < count)
            n++;
        fkm_pool_for(pool, n, sum_piece, &p);
        for (int64_t i = 0; i < n; i++) {
            int64_t from = rows_before(&p, p.at + i), to = rows_before(&p, p.at + i + 1);
            FKM_TRY(take(c, t, row + from, to - from, p.sum[i], e));
        }
        p.at += n;
    }
    return FKM_OK;
}

fkm_status fkm_checksums_verify(
    fkm_checksums *c, fkm_reader *in, int64_t problem, const atomic_int *stop, fkm_err *e)
{
    fkm_status st = FKM_OK;
    fkm_checksum_cursor t = {0};
    char *x;
    FKM_TRY(fkm_alloc(&x, c->block_rows, c->row_bytes, "a block of rows", e));
    for (int64_t row = 0, count; row < c->rows && st == FKM_OK; row += count) {
        int64_t first = problem * c->rows + row;
        count = fkm_min_i64(c->block_rows, c->rows - row);
        st = stop && *stop ? fkm_fail(e, FKM_ESTOPPED, "stopped by a signal")
                           : fkm_reader_read(in, first, count, x, e);
        if (st == FKM_OK)
            st = fkm_checksums_add(c, &t, first, count, x, NULL, e);
    }
    fkm_free(x);
    return st;
}

void fkm_checksums_forget(fkm_checksums *c, int64_t problem)
{
    c->restored[problem] = 0;
    atomic_store_explicit(&c->known[problem], 0, memory_order_release);
}
