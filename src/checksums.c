/* Checksums of the rows: see checksums.h. */
#include "checksums.h"

#include "base/checked.h"
#include "base/crc32c.h"
#include "base/mem.h"

#include <inttypes.h>
#include <string.h>

/* Small beside the memory of the sums, and exact enough as a place to look at. */
#define BLOCK_BYTES ((int64_t)1 << 20)

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

int64_t fkm_checksums_to_end(const fkm_checksums *c, int64_t row)
{
    int64_t own = row % c->rows;
    return fkm_min_i64(c->block_rows - own % c->block_rows, c->rows - own);
}

/* sum: of the block as it is now. */
static fkm_status changed(const fkm_checksums *c, int64_t block, uint32_t sum, fkm_err *e)
{
    char name[300];
    int64_t row = block / c->blocks * c->rows + block % c->blocks * c->block_rows;
    bool restored = block % c->blocks < c->restored[block / c->blocks];
    fkm_reader_row_name(c->in, row, name, sizeof name);
    fkm_fail(e, FKM_EDATA,
        "%s and the %" PRId64 " rows after it changed since %s (CRC32C %08" PRIx32
        ", now %08" PRIx32 ")",
        name, fkm_checksums_to_end(c, row) - 1,
        restored ? "the checkpoint was written" : "they were first read", c->crc[block], sum);
    return fkm_hint(e, restored ? "--fresh starts anew, with the data as it is now"
                                : "the result would mix two states of the data; run again when "
                                  "nothing writes to it");
}

fkm_status fkm_checksums_add(
    fkm_checksums *c, fkm_checksum_cursor *t, int64_t row, int64_t count, const void *x, fkm_err *e)
{
    int64_t problem = row / c->rows, own = row % c->rows, at = own / c->block_rows;
    int64_t block = problem * c->blocks + at;
    if (own % c->block_rows == 0) {
        t->sum = 0;
        t->sum_of = block;
    } else if (row != t->at || block != t->sum_of) {
        return fkm_fail(e, FKM_EBUG, "row %" PRId64 " was read out of turn", row);
    }
    t->sum = fkm_crc32c(t->sum, x, (size_t)count * c->row_bytes);
    t->at = row + count;
    if (count < fkm_checksums_to_end(c, row))
        return FKM_OK; /* the block goes on in the next chunk */
    int64_t known = atomic_load_explicit(&c->known[problem], memory_order_relaxed);
    if (at < known)
        return c->crc[block] == t->sum ? FKM_OK : changed(c, block, t->sum, e);
    if (at > known)
        return fkm_fail(e, FKM_EBUG, "block %" PRId64 " of rows was read out of turn", block);
    c->crc[block] = t->sum;
    atomic_store_explicit(&c->known[problem], known + 1, memory_order_release);
    return FKM_OK;
}
