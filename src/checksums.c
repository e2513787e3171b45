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

int64_t fkm_checksums_bytes(const fkm_shape *shape)
{
    fkm_checksums c = {0};
    lay_out(&c, shape);
    return fkm_mul_sat(fkm_mul_sat(c.batch, c.blocks), sizeof *c.crc);
}

fkm_status fkm_checksums_open(fkm_checksums *c, const fkm_reader *in, fkm_err *e)
{
    memset(c, 0, sizeof *c);
    lay_out(c, fkm_reader_shape(in));
    c->in = in;
    return fkm_alloc(&c->crc, c->batch * c->blocks, sizeof *c->crc, "checksums of the rows", e);
}

void fkm_checksums_close(fkm_checksums *c)
{
    fkm_free(c->crc);
    c->crc = NULL;
}

int64_t fkm_checksums_to_end(const fkm_checksums *c, int64_t row)
{
    int64_t own = row % c->rows;
    return fkm_min_i64(c->block_rows - own % c->block_rows, c->rows - own);
}

static fkm_status changed(const fkm_checksums *c, int64_t block, fkm_err *e)
{
    char name[300];
    int64_t row = block / c->blocks * c->rows + block % c->blocks * c->block_rows;
    bool restored = block < c->restored;
    fkm_reader_row_name(c->in, row, name, sizeof name);
    fkm_fail(e, FKM_EDATA,
        "%s and the %" PRId64 " rows after it changed since %s (CRC32C %08" PRIx32
        ", now %08" PRIx32 ")",
        name, fkm_checksums_to_end(c, row) - 1,
        restored ? "the checkpoint was written" : "they were first read", c->crc[block], c->sum);
    return fkm_hint(e, restored ? "--fresh starts anew, with the data as it is now"
                                : "the result would mix two states of the data; run again when "
                                  "nothing writes to it");
}

fkm_status fkm_checksums_add(
    fkm_checksums *c, int64_t row, int64_t count, const void *x, fkm_err *e)
{
    int64_t own = row % c->rows, block = row / c->rows * c->blocks + own / c->block_rows;
    if (own % c->block_rows == 0) {
        c->sum = 0;
        c->sum_of = block;
    } else if (row != c->at || block != c->sum_of) {
        return fkm_fail(e, FKM_EBUG, "row %" PRId64 " was read out of turn", row);
    }
    c->sum = fkm_crc32c(c->sum, x, (size_t)count * c->row_bytes);
    c->at = row + count;
    if (count < fkm_checksums_to_end(c, row))
        return FKM_OK; /* the block goes on in the next chunk */
    int64_t known = atomic_load_explicit(&c->known, memory_order_relaxed);
    if (block < known)
        return c->crc[block] == c->sum ? FKM_OK : changed(c, block, e);
    if (block > known)
        return fkm_fail(e, FKM_EBUG, "block %" PRId64 " of rows was read out of turn", block);
    c->crc[block] = c->sum;
    atomic_store_explicit(&c->known, known + 1, memory_order_release);
    return FKM_OK;
}
