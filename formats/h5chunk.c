/* Filtered chunks: see h5chunk.h. */
#include "h5chunk.h"

#include "../src/base/checked.h"
#include "../src/base/mem.h"
#include "h5file.h"
#include "h5filter.h"

#include <string.h>

/* For inflated chunks that are kept: a row of them, so that a read that ends inside one does not
 * cost its inflating twice. */
#define MAX_KEPT_BYTES ((int64_t)64 << 20)

struct fkm_h5_chunks {
    fkm_h5_layout layout;
    int64_t across;     /* chunks beside each other */
    int64_t bytes, cap; /* of a chunk; the most that may be stored of it, or be between filters */
    int64_t slots;
    int transforms;   /* filters that write to another place */
    uint8_t *kept;    /* [slots][bytes], inflated chunks */
    int64_t *tag;     /* [slots], which one: row of chunks * across + column; -1: none */
    uint8_t *work[2]; /* [cap] */
    z_stream z;
    bool inflating; /* z is in use */
};

static bool writes_elsewhere(const fkm_h5_filter *f)
{
    return f->id != H5Z_FILTER_FLETCHER32;
}

fkm_status fkm_h5_chunks_open(fkm_h5_chunks **out, const fkm_h5_layout *layout, fkm_err *e)
{
    fkm_h5_chunks *c;
    FKM_TRY(fkm_calloc(&c, 1, sizeof *c, "the chunks of HDF5", e));
    c->layout = *layout;
    c->across = (layout->dims - 1) / layout->chunk_dims + 1;
    c->bytes = layout->chunk_rows * layout->chunk_dims * (int64_t)layout->element;
    /* What cannot be compressed grows by less than a thousandth, and by a few bytes. */
    c->cap = c->bytes + c->bytes / 256 + 4096;
    c->slots = fkm_max_i64(1, fkm_min_i64(c->across, MAX_KEPT_BYTES / c->bytes));
    for (int i = 0; i < layout->filter_count; i++)
        c->transforms += writes_elsewhere(&layout->filters[i]);
    *out = c;
    return FKM_OK;
}

void fkm_h5_chunks_close(fkm_h5_chunks *c)
{
    if (!c)
        return;
    if (c->inflating)
        (void)inflateEnd(&c->z);
    fkm_free(c->kept);
    fkm_free(c->tag);
    fkm_free(c->work[0]);
    fkm_free(c->work[1]);
    fkm_free(c);
}

int64_t fkm_h5_chunks_bytes(const fkm_h5_chunks *c)
{
    const int64_t of_zlib = 64 << 10;
    int64_t kept = c->slots * (c->bytes + (int64_t)sizeof *c->tag);
    return kept + (c->transforms > 1 ? 2 : 1) * c->cap + of_zlib;
}

static fkm_status allocate(fkm_h5_chunks *c, fkm_err *e)
{
    static const char what[] = "chunks of HDF5";
    if (!c->tag) {
        FKM_TRY(fkm_alloc(&c->tag, c->slots, sizeof *c->tag, what, e));
        for (int64_t i = 0; i < c->slots; i++)
            c->tag[i] = -1;
    }
    if (!c->kept)
        FKM_TRY(fkm_alloc(&c->kept, c->slots, (size_t)c->bytes, what, e));
    for (int i = 0; i < (c->transforms > 1 ? 2 : 1); i++)
        if (!c->work[i])
            FKM_TRY(fkm_alloc(&c->work[i], c->cap, 1, what, e));
    if (!c->inflating && inflateInit(&c->z) != Z_OK)
        return fkm_fail(e, FKM_ENOMEM, "no memory for zlib");
    c->inflating = true;
    return FKM_OK;
}

/* The chunk as stored. The library looks its place up once: its size and its bytes are of one
 * entry of the index. */
static fkm_status read_stored(fkm_h5_chunks *c, size_t *len, uint32_t *skipped, hid_t data,
    const hsize_t *at, const char *path, fkm_err *e)
{
    hsize_t stored = 0;
    if (H5Dget_chunk_storage_size(data, at, &stored) < 0)
        return fkm_h5_failed(path, "cannot find its bytes", e);
    if (stored < 1 || stored > (hsize_t)c->cap)
        return fkm_fail(e, FKM_EDATA, "it has %llu bytes in the file, expected at most %lld",
            (unsigned long long)stored, (long long)c->cap);
    if (H5Dread_chunk(data, H5P_DEFAULT, at, skipped, c->work[0]) < 0)
        return fkm_h5_failed(path, "cannot read its bytes", e);
    *len = (size_t)stored;
    return FKM_OK;
}

/* Undoes the filters, the last one first; those whose bit is set in `skipped` were left out. */
static fkm_status unfilter(fkm_h5_chunks *c, uint8_t *dst, size_t len, uint32_t skipped, fkm_err *e)
{
    uint8_t *now = c->work[0];
    int left = 0;
    for (int i = 0; i < c->layout.filter_count; i++)
        left += writes_elsewhere(&c->layout.filters[i]) && !(skipped >> i & 1);
    for (int i = c->layout.filter_count - 1; i >= 0; i--) {
        const fkm_h5_filter *f = &c->layout.filters[i];
        if (skipped >> i & 1)
            continue;
        if (!writes_elsewhere(f)) {
            FKM_TRY(fkm_h5_check_sum(now, &len, e));
            continue;
        }
        bool last = --left == 0;
        uint8_t *next = last ? dst : now == c->work[0] ? c->work[1] : c->work[0];
        size_t cap = (size_t)(last ? c->bytes : c->cap);
        if (f->id == H5Z_FILTER_DEFLATE)
            FKM_TRY(fkm_h5_inflate(&c->z, next, &len, cap, now, len, e));
        else if (f->id == FKM_H5_LZF)
            FKM_TRY(fkm_h5_lzf(next, &len, cap, now, len, e));
        else if (len <= cap)
            fkm_h5_unshuffle(next, now, len, f->element);
        else
            break;
        now = next;
    }
    if (len != (size_t)c->bytes)
        return fkm_fail(
            e, FKM_EDATA, "it holds %zu bytes, expected %lld", len, (long long)c->bytes);
    if (now != dst)
        memcpy(dst, now, len);
    return FKM_OK;
}

/* *out = the chunk in a row and column of chunks, kept until its slot is needed. */
static fkm_status get_chunk(const uint8_t **out, fkm_h5_chunks *c, hid_t data, const char *path,
    int64_t row, int64_t column, fkm_err *e)
{
    const fkm_h5_layout *l = &c->layout;
    int64_t slot = fkm_min_i64(column, c->slots - 1), tag = row * c->across + column;
    uint8_t *dst = c->kept + slot * c->bytes;
    *out = dst;
    if (c->tag[slot] == tag)
        return FKM_OK;
    c->tag[slot] = -1;
    size_t len = 0;
    uint32_t skipped = 0;
    const hsize_t at[2] = {(hsize_t)(row * l->chunk_rows), (hsize_t)(column * l->chunk_dims)};
    fkm_status st = read_stored(c, &len, &skipped, data, at, path, e);
    if (st == FKM_OK)
        st = unfilter(c, dst, len, skipped, e);
    if (st == FKM_OK) {
        c->tag[slot] = tag;
        return FKM_OK;
    }
    int64_t row_end = fkm_min_i64(l->rows, (row + 1) * l->chunk_rows);
    int64_t column_end = fkm_min_i64(l->dims, (column + 1) * l->chunk_dims);
    if (st == FKM_EDATA && !e->hint[0])
        fkm_hint(e, "the file is damaged; 'fkm info --full' lists the rows that cannot be read");
    return fkm_wrap(e, "%s: the chunk of rows %lld to %lld, columns %lld to %lld", path,
        (long long)at[0], (long long)row_end - 1, (long long)at[1], (long long)column_end - 1);
}

static int64_t overlap(int64_t *from, int64_t begin, int64_t end, int64_t at, int64_t size)
{
    *from = fkm_max_i64(begin, at);
    return fkm_min_i64(end, at + size) - *from;
}

fkm_status fkm_h5_chunks_read(fkm_h5_chunks *c, hid_t data, const char *path,
    const fkm_h5_region *r, char *dst, size_t stride, fkm_err *e)
{
    const fkm_h5_layout *l = &c->layout;
    const size_t size = l->element, chunk_stride = (size_t)l->chunk_dims * size;
    const int64_t row_end = r->row0 + r->rows, column_end = r->column0 + r->columns;
    FKM_TRY(allocate(c, e));
    for (int64_t i = r->row0 / l->chunk_rows; i * l->chunk_rows < row_end; i++) {
        int64_t row, at_row = i * l->chunk_rows;
        int64_t rows = overlap(&row, r->row0, row_end, at_row, l->chunk_rows);
        for (int64_t j = r->column0 / l->chunk_dims; j * l->chunk_dims < column_end; j++) {
            int64_t column, at_column = j * l->chunk_dims;
            int64_t columns = overlap(&column, r->column0, column_end, at_column, l->chunk_dims);
            const uint8_t *from;
            FKM_TRY(get_chunk(&from, c, data, path, i, j, e));
            from += (size_t)(row - at_row) * chunk_stride + (size_t)(column - at_column) * size;
            char *to =
                dst + (size_t)(row - r->row0) * stride + (size_t)(column - r->column0) * size;
            if (stride == chunk_stride && (size_t)columns * size == stride)
                memcpy(to, from, (size_t)rows * stride);
            else
                for (int64_t n = 0; n < rows; n++)
                    memcpy(to + (size_t)n * stride, from + (size_t)n * chunk_stride,
                        (size_t)columns * size);
        }
    }
    return FKM_OK;
}
