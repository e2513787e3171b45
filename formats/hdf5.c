/* HDF5, through the library (1.10), for files that nobody vouches for.
 *
 * The library opens the file and describes the dataset; what it says is checked before a row is
 * read: no storage outside the file (external storage, virtual datasets, external links), no filter
 * but those of h5filter.h, no plugin, no dataset that is larger than what was stored of it.
 * Contiguous data are then read without the library, chunks with filters by h5chunk.c, which takes
 * no more of the library than the bytes as they are stored. The rest goes through it, in the type
 * that it is stored in and in pieces that bound what the library allocates for them. */
#include "../src/base/checked.h"
#include "../src/base/mem.h"
#include "elements.h"
#include "h5chunk.h"
#include "h5file.h"
#include "h5filter.h"
#include "h5find.h"

#include <stdio.h>
#include <string.h>

#define MAX_CHUNK_BYTES ((int64_t)256 << 20)
/* Touched by one call of H5Dread, which allocates 6.6 KB for each. */
#define CHUNKS_AT_ONCE 64
#define BOX_BYTES ((int64_t)256 << 10)
#define BOX_RUN_BYTES 4096
/* What the library keeps of a file: its cache of metadata (fkm_h5_access), whose entries are up to
 * fourteen times as large in memory as in the file, with an index of so many chunks; free lists;
 * and what a call allocates. */
#define LIBRARY_BYTES ((int64_t)512 << 10)
#define INDEX_ENTRY_BYTES 1024
#define MAX_INDEX_BYTES ((int64_t)7 << 19)

typedef struct h5 {
    hid_t file, data, type; /* 0: not open; type: of elements as stored */
    char *name;             /* of the dataset */
    bool dense;             /* read without the library */
    fkm_dense array;        /* offset: only when dense */
    fkm_h5_layout layout;
    fkm_h5_chunks *chunks; /* NULL: it has no filters */
    char *box;             /* [BOX_BYTES], for parts of chunks; NULL: not needed yet */
} h5;

/* ---- checking the dataset ---- */

/* What is known of a dataset while it is being opened. */
typedef struct facts {
    const char *path;
    const char *full_name;
    char name[160]; /* the same, printable */
    hid_t type, space, props;
    int64_t rows, dims, bytes; /* bytes: of all elements */
    fkm_dtype dtype;
    bool big;
    fkm_h5_layout layout;
} facts;

static fkm_status check_shape(facts *k, fkm_dtype wanted, fkm_err *e)
{
    char text[40];
    hsize_t dim[2];
    int ndim = H5Sget_simple_extent_ndims(k->space);
    if (ndim != 2) {
        fkm_fail(e, FKM_EDATA, "%s: dataset '%s' is %d-D, expected 2-D: rows x dimensions", k->path,
            k->name, ndim);
        return fkm_hint(e, ndim == 1 ? "store it as one row or one column of a 2-D dataset"
                                     : "choose another one with --dataset, or reshape it");
    }
    if (H5Sget_simple_extent_dims(k->space, dim, NULL) != 2)
        return fkm_h5_failed(k->path, "cannot read the extent of the dataset", e);
    k->dtype = fkm_h5_recognise(k->type, wanted, &k->big);
    if (k->dtype == FKM_DTYPE_NONE) {
        fkm_fail(e, FKM_EDATA, "%s: dataset '%s' holds %s, which fkm does not read", k->path,
            k->name, fkm_h5_describe_type(text, sizeof text, k->type));
        return fkm_hint(e, "it reads floats of 16, 32 and 64 bits, integers, and h5py's bool");
    }
    FKM_TRY(fkm_check_wanted(k->path, k->dtype, wanted, e));
    if (dim[0] > INT64_MAX || dim[1] > INT64_MAX)
        return fkm_fail(e, FKM_EDATA, "%s: dataset '%s' is %llu x %llu, beyond 63 bits", k->path,
            k->name, (unsigned long long)dim[0], (unsigned long long)dim[1]);
    k->rows = (int64_t)dim[0];
    k->dims = (int64_t)dim[1];
    return fkm_array_bytes(&k->bytes, k->path, k->rows, k->dims, k->dtype, e);
}

static fkm_status other_filter(const facts *k, H5Z_filter_t id, const char *name, fkm_err *e)
{
    char safe[64];
    fkm_fail(e, FKM_EDATA,
        "%s: dataset '%s' is filtered by '%s' (filter %d), which fkm does not read", k->path,
        k->name, fkm_printable(safe, sizeof safe, name), (int)id);
    return fkm_h5_hint_h5py("it reads gzip, lzf, shuffle and fletcher32", k->path, k->full_name,
        id > H5Z_FILTER_RESERVED, e);
}

static fkm_status check_filters(facts *k, fkm_err *e)
{
    int count = H5Pget_nfilters(k->props);
    if (count < 0 || count > FKM_H5_FILTERS)
        return fkm_h5_failed(k->path, "cannot read the filters of the dataset", e);
    for (int i = 0; i < count; i++) {
        unsigned flags, config, value[1] = {0};
        size_t values = 1;
        char name[64] = "";
        H5Z_filter_t id = H5Pget_filter2(
            k->props, (unsigned)i, &flags, &values, value, sizeof name - 1, name, &config);
        if (id != H5Z_FILTER_SHUFFLE && id != H5Z_FILTER_FLETCHER32 && id != H5Z_FILTER_DEFLATE &&
            id != FKM_H5_LZF)
            return other_filter(k, id, name, e);
        if (id == H5Z_FILTER_SHUFFLE && value[0] < 1)
            return fkm_fail(e, FKM_EDATA, "%s: dataset '%s' is shuffled by elements of 0 bytes",
                k->path, k->name);
        k->layout.filters[i] = (fkm_h5_filter){id, value[0]};
    }
    k->layout.filter_count = count;
    return FKM_OK;
}

static fkm_status only_partly(const facts *k, fkm_err *e)
{
    fkm_fail(e, FKM_EDATA, "%s: dataset '%s' is %lld x %lld %s, but only partly written", k->path,
        k->name, (long long)k->rows, (long long)k->dims, fkm_dtype_name(k->dtype));
    return fkm_hint(
        e, "the missing rows would read as zeros; was the program that wrote it stopped?");
}

static fkm_status check_chunks(facts *k, hid_t data, fkm_err *e)
{
    hsize_t chunk[2], stored;
    if (H5Pget_chunk(k->props, 2, chunk) != 2 || chunk[0] < 1 || chunk[1] < 1 ||
        H5Dget_num_chunks(data, k->space, &stored) < 0)
        return fkm_h5_failed(k->path, "cannot read the chunks of the dataset", e);
    int64_t size = (int64_t)fkm_dtype_size(k->dtype), bytes;
    if (chunk[0] > (hsize_t)MAX_CHUNK_BYTES || chunk[1] > (hsize_t)MAX_CHUNK_BYTES ||
        !fkm_mul_i64(&bytes, (int64_t)chunk[0], (int64_t)chunk[1]) ||
        !fkm_mul_i64(&bytes, bytes, size) || bytes > MAX_CHUNK_BYTES) {
        fkm_fail(e, FKM_EDATA, "%s: dataset '%s' has chunks of %llu x %llu %s, the most is 256 MiB",
            k->path, k->name, (unsigned long long)chunk[0], (unsigned long long)chunk[1],
            fkm_dtype_name(k->dtype));
        int64_t columns = fkm_min_i64(k->dims, 1 << 20);
        int64_t rows = fkm_min_i64(k->rows, fkm_max_i64(1, (1 << 20) / columns));
        return fkm_hint(e, "h5repack -l CHUNK=%lldx%lld IN OUT makes smaller ones", (long long)rows,
            (long long)columns);
    }
    k->layout = (fkm_h5_layout){.rows = k->rows,
        .dims = k->dims,
        .chunk_rows = (int64_t)chunk[0],
        .chunk_dims = (int64_t)chunk[1],
        .element = (size_t)size};
    int64_t down = (k->rows - 1) / k->layout.chunk_rows + 1;
    int64_t across = (k->dims - 1) / k->layout.chunk_dims + 1;
    if (stored != (hsize_t)fkm_mul_sat(down, across))
        return only_partly(k, e);
    return check_filters(k, e);
}

static fkm_status check_contiguous(h5 *h, const facts *k, fkm_file *f, fkm_err *e)
{
    haddr_t offset = H5Dget_offset(h->data);
    if (offset == HADDR_UNDEF || H5Dget_storage_size(h->data) < (hsize_t)k->bytes)
        return only_partly(k, e);
    int64_t have = fkm_file_bytes(f);
    if (k->bytes > have || offset > (haddr_t)(have - k->bytes)) {
        fkm_fail(e, FKM_EDATA, "%s: dataset '%s' must end at byte %llu, the file ends at byte %lld",
            k->path, k->name, (unsigned long long)offset + (unsigned long long)k->bytes,
            (long long)have);
        return fkm_hint(e, "the file may be truncated");
    }
    h->array.offset = (int64_t)offset;
    h->dense = true;
    return FKM_OK;
}

static fkm_status check_storage(h5 *h, facts *k, fkm_file *f, fkm_err *e)
{
    H5D_layout_t layout = H5Pget_layout(k->props);
    if (H5Pget_external_count(k->props) > 0) {
        fkm_fail(e, FKM_EDATA, "%s: the values of dataset '%s' are kept in another file", k->path,
            k->name);
        return fkm_hint(e, "fkm reads only the file that is named: h5repack -l CONTI IN OUT");
    }
    switch (layout) {
    case H5D_CONTIGUOUS:
        return check_contiguous(h, k, f, e);
    case H5D_CHUNKED:
        return check_chunks(k, h->data, e);
    case H5D_COMPACT:
        return H5Dget_storage_size(h->data) < (hsize_t)k->bytes ? only_partly(k, e) : FKM_OK;
    case H5D_LAYOUT_ERROR:
    case H5D_VIRTUAL:
    case H5D_NLAYOUTS:
        break;
    }
    fkm_fail(e, FKM_EDATA,
        "%s: dataset '%s' is a view of other datasets (virtual), which fkm does not "
        "read",
        k->path, k->name);
    return fkm_hint(e, "name the files that hold the data; several files can be one data set");
}

/* ---- opening ---- */

static int probe_h5(const uint8_t *head, size_t len, int64_t bytes, const char *suffix)
{
    (void)bytes;
    (void)suffix;
    /* The signature is at 0, or after a user block at 512, 1024, 2048 ... */
    for (size_t at = 0; at + 8 <= len; at = at ? 2 * at : 512)
        if (!memcmp(head + at, "\x89HDF\r\n\x1a\n", 8))
            return at == 0 ? 100 : 80;
    return 0;
}

static fkm_status open_named(h5 *h, facts *k, fkm_err *e)
{
    H5O_info_t info;
    if (H5Oget_info_by_name2(h->file, h->name, &info, H5O_INFO_BASIC, H5P_DEFAULT) < 0 ||
        info.type != H5O_TYPE_DATASET)
        return fkm_h5_no_dataset(h->file, k->path, h->name, e);
    h->data = H5Dopen2(h->file, h->name, H5P_DEFAULT);
    if (h->data < 0) {
        h->data = 0;
        return fkm_h5_not_opened(k->path, h->name, e);
    }
    k->type = H5Dget_type(h->data);
    k->space = H5Dget_space(h->data);
    k->props = H5Dget_create_plist(h->data);
    if (k->type < 0 || k->space < 0 || k->props < 0)
        return fkm_h5_failed(k->path, "cannot describe the dataset", e);
    return FKM_OK;
}

/* Opens the dataset anew without a chunk cache: chunks without filters are then read from the file
 * to where they are wanted. Those with filters are not read through the library. */
static fkm_status reopen_without_cache(h5 *h, const facts *k, fkm_err *e)
{
    hid_t p = H5Pcreate(H5P_DATASET_ACCESS);
    if (p < 0)
        return fkm_h5_failed(k->path, "cannot set the chunk cache", e);
    (void)H5Pset_chunk_cache(p, 1, 0, 1.0);
    H5Dclose(h->data);
    h->data = H5Dopen2(h->file, h->name, p);
    H5Pclose(p);
    if (h->data >= 0)
        return FKM_OK;
    h->data = 0;
    return fkm_h5_failed(k->path, "cannot open the dataset", e);
}

static fkm_status open_dataset(
    h5 *h, facts *k, fkm_file *f, const fkm_format_options *o, fkm_err *e)
{
    k->full_name = h->name;
    fkm_printable(k->name, sizeof k->name, h->name);
    FKM_TRY(open_named(h, k, e));
    FKM_TRY(check_shape(k, o->dtype, e));
    FKM_TRY(check_storage(h, k, f, e));
    h->type = H5Tcopy(k->type);
    if (h->type < 0) {
        h->type = 0;
        return fkm_h5_failed(k->path, "cannot make an element type", e);
    }
    h->array.dims = (int32_t)k->dims;
    h->array.dtype = k->dtype;
    h->array.swap = k->big;
    h->layout = k->layout;
    if (h->layout.filter_count > 0)
        FKM_TRY(fkm_h5_chunks_open(&h->chunks, &h->layout, e));
    return h->layout.chunk_rows > 0 ? reopen_without_cache(h, k, e) : FKM_OK;
}

static int64_t heap_bytes(const h5 *h)
{
    const fkm_h5_layout *l = &h->layout;
    if (l->chunk_rows == 0)
        return LIBRARY_BYTES;
    int64_t across = (l->dims - 1) / l->chunk_dims + 1, down = (l->rows - 1) / l->chunk_rows + 1;
    int64_t index = fkm_mul_sat(INDEX_ENTRY_BYTES, fkm_mul_sat(across, down));
    return LIBRARY_BYTES + fkm_min_i64(index, MAX_INDEX_BYTES) +
           (h->chunks ? fkm_h5_chunks_bytes(h->chunks) : BOX_BYTES);
}

static fkm_status open_locked(
    h5 *h, fkm_file *f, const fkm_format_options *o, fkm_shape *shape, fkm_err *e)
{
    facts k = {.path = fkm_file_path(f), .type = -1, .space = -1, .props = -1};
    FKM_TRY(fkm_h5_open(&h->file, f, e));
    if (o->dataset)
        FKM_TRY(fkm_h5_resolve(&h->name, h->file, k.path, o->dataset, e));
    else
        FKM_TRY(fkm_h5_find_only(&h->name, h->file, k.path, e));
    fkm_status st = open_dataset(h, &k, f, o, e);
    if (st == FKM_OK) {
        int64_t row = k.dims * (int64_t)fkm_dtype_size(k.dtype);
        if (k.layout.chunk_rows > 0)
            row = (int64_t)(H5Dget_storage_size(h->data) / (hsize_t)k.rows);
        *shape = (fkm_shape){.batch = 1,
            .rows = k.rows,
            .dims = (int32_t)k.dims,
            .ndim = 2,
            .dtype = k.dtype,
            .row_bytes = row,
            .heap_bytes = heap_bytes(h)};
    }
    if (k.props >= 0)
        H5Pclose(k.props);
    if (k.space >= 0)
        H5Sclose(k.space);
    if (k.type >= 0)
        H5Tclose(k.type);
    return st;
}

static fkm_status open_h5(
    void *priv, fkm_file *f, const fkm_format_options *o, fkm_shape *shape, fkm_err *e)
{
    if (fkm_h5_first_enter(e) != FKM_OK)
        return fkm_wrap(e, "%s", fkm_file_path(f));
    fkm_status st = open_locked(priv, f, o, shape, e);
    fkm_h5_leave();
    return st;
}

static void close_h5(void *priv)
{
    h5 *h = priv;
    if (h->file <= 0)
        return; /* the library may not even be there */
    fkm_h5_enter();
    if (h->type > 0)
        H5Tclose(h->type);
    if (h->data > 0)
        H5Dclose(h->data);
    H5Fclose(h->file);
    fkm_h5_leave();
    fkm_h5_chunks_close(h->chunks);
    fkm_free(h->box);
    fkm_free(h->name);
}

/* ---- reading ---- */

/* Whether chunks are narrower than the dataset, and worth a call of the library each. */
static bool wants_box(const fkm_h5_layout *l)
{
    return l->chunk_dims < l->dims && l->chunk_rows >= 8 &&
           l->chunk_dims * (int64_t)l->element <= BOX_RUN_BYTES;
}

/* Elements as stored, through the library: row i of the region at dst + i * dims elements. */
static fkm_status read_piece(
    const h5 *h, const char *path, const fkm_h5_region *r, char *dst, int64_t dims, fkm_err *e)
{
    const hsize_t start[2] = {(hsize_t)r->row0, (hsize_t)r->column0};
    const hsize_t count[2] = {(hsize_t)r->rows, (hsize_t)r->columns};
    const hsize_t room[2] = {count[0], (hsize_t)dims}, origin[2] = {0, 0};
    hid_t from = H5Dget_space(h->data), to = H5Screate_simple(2, room, NULL);
    bool good = from >= 0 && to >= 0 &&
                H5Sselect_hyperslab(from, H5S_SELECT_SET, start, NULL, count, NULL) >= 0 &&
                H5Sselect_hyperslab(to, H5S_SELECT_SET, origin, NULL, count, NULL) >= 0 &&
                H5Dread(h->data, h->type, to, from, H5P_DEFAULT, dst) >= 0;
    fkm_status st = FKM_OK;
    if (!good) {
        char what[80];
        snprintf(what, sizeof what, "cannot read rows %lld to %lld", (long long)r->row0,
            (long long)(r->row0 + r->rows - 1));
        st = fkm_h5_failed(path, what, e);
    }
    if (to >= 0)
        H5Sclose(to);
    if (from >= 0)
        H5Sclose(from);
    return st;
}

/* So many of `size` parts of a dataset, from `at` on, that at most `most` of them are touched. */
static int64_t extent_of(int64_t at, int64_t size, int64_t most, int64_t end)
{
    return fkm_min_i64(end, fkm_mul_sat(at / size + most, size)) - at;
}

/* A piece that lies in one chunk, by way of the box: what is far apart in dst is in one piece in
 * the file, and the library takes a microsecond for each run of bytes. */
static fkm_status read_box(
    const h5 *h, const char *path, const fkm_h5_region *r, char *dst, int64_t dims, fkm_err *e)
{
    const size_t size = h->layout.element, run = (size_t)r->columns * size;
    fkm_h5_region p = *r;
    for (; p.row0 < r->row0 + r->rows; p.row0 += p.rows) {
        p.rows = fkm_min_i64(BOX_BYTES / (int64_t)run, r->row0 + r->rows - p.row0);
        FKM_TRY(read_piece(h, path, &p, h->box, p.columns, e));
        for (int64_t i = 0; i < p.rows; i++, dst += (size_t)dims * size)
            memcpy(dst, h->box + (size_t)i * run, run);
    }
    return FKM_OK;
}

/* As above, in pieces that touch few chunks. */
static fkm_status read_pieces(
    h5 *h, const char *path, const fkm_h5_region *r, char *dst, int64_t dims, fkm_err *e)
{
    const fkm_h5_layout *l = &h->layout;
    if (l->chunk_rows == 0)
        return read_piece(h, path, r, dst, dims, e);
    const bool boxed = wants_box(l);
    if (boxed && !h->box)
        FKM_TRY(fkm_alloc(&h->box, BOX_BYTES, 1, "chunks of HDF5", e));
    const int64_t row_end = r->row0 + r->rows, column_end = r->column0 + r->columns;
    const int64_t across = boxed ? 1 : CHUNKS_AT_ONCE;
    const int64_t down =
        boxed ? 1 : fkm_max_i64(1, across / ((r->columns - 1) / l->chunk_dims + 2));
    fkm_h5_region p = {.row0 = r->row0};
    for (; p.row0 < row_end; p.row0 += p.rows) {
        p.rows = extent_of(p.row0, l->chunk_rows, down, row_end);
        for (p.column0 = r->column0; p.column0 < column_end; p.column0 += p.columns) {
            p.columns = extent_of(p.column0, l->chunk_dims, across, column_end);
            int64_t at = (p.row0 - r->row0) * dims + p.column0 - r->column0;
            char *to = dst + at * (int64_t)l->element;
            FKM_TRY((boxed ? read_box : read_piece)(h, path, &p, to, dims, e));
        }
    }
    return FKM_OK;
}

/* The region, tightly packed, with the bytes of an element in our order. */
static fkm_status read_region(
    h5 *h, const char *path, const fkm_h5_region *r, void *dst, fkm_err *e)
{
    const size_t size = fkm_dtype_size(h->array.dtype);
    if (h->chunks)
        FKM_TRY(fkm_h5_chunks_read(h->chunks, h->data, path, r, dst, (size_t)r->columns * size, e));
    else
        FKM_TRY(read_pieces(h, path, r, dst, r->columns, e));
    if (h->array.swap)
        fkm_swap_elements(dst, r->rows * r->columns, size);
    return FKM_OK;
}

/* Elements that have another size in memory: pieces that fit in the scratch, whole rows if they do,
 * else parts of one. */
static fkm_status read_resized(
    h5 *h, const char *path, int64_t row0, int64_t count, float *dst, void *scratch, fkm_err *e)
{
    const int64_t most = (int64_t)(FKM_SCRATCH_BYTES / fkm_dtype_size(h->array.dtype));
    int32_t dims = h->array.dims;
    fkm_h5_region r = {.columns = fkm_min_i64(dims, most), .row0 = row0};
    const int64_t rows = fkm_max_i64(1, most / dims), end = row0 + count;
    for (; r.row0 < end; r.row0 += r.rows) {
        r.rows = fkm_min_i64(rows, end - r.row0);
        for (r.column0 = 0; r.column0 < dims; r.column0 += most) {
            r.columns = fkm_min_i64(most, dims - r.column0);
            FKM_TRY(read_region(h, path, &r, scratch, e));
            fkm_place place = {path, r.row0, (int32_t)r.column0, dims, false};
            FKM_TRY(fkm_convert(h->array.dtype, dst, scratch, r.rows * r.columns, &place, e));
            dst += r.rows * r.columns;
        }
    }
    return FKM_OK;
}

static fkm_status read_locked(
    h5 *h, const char *path, int64_t row0, int64_t count, void *dst, void *scratch, fkm_err *e)
{
    if (fkm_is_resized(h->array.dtype))
        return read_resized(h, path, row0, count, dst, scratch, e);
    fkm_h5_region r = {row0, count, 0, h->array.dims};
    FKM_TRY(read_region(h, path, &r, dst, e));
    fkm_place place = {path, row0, 0, h->array.dims, false};
    return fkm_convert(h->array.dtype, dst, dst, count * h->array.dims, &place, e);
}

static fkm_status read_h5(
    void *priv, fkm_file *f, int64_t row0, int64_t count, void *dst, void *scratch, fkm_err *e)
{
    h5 *h = priv;
    if (h->dense)
        return fkm_dense_read(&h->array, f, row0, count, dst, scratch, e);
    fkm_h5_enter();
    fkm_status st = read_locked(h, fkm_file_path(f), row0, count, dst, scratch, e);
    fkm_h5_leave();
    return st;
}

static const char *dataset(const void *priv)
{
    const h5 *h = priv;
    return h->name;
}

const fkm_format fkm_format_hdf5 = {
    .name = "hdf5",
    .suffixes = ".h5 .hdf5",
    .about = "HDF5; a 2-D dataset, by --dataset if there are several",
    .priv_size = sizeof(h5),
    .probe = probe_h5,
    .open = open_h5,
    .read = read_h5,
    .dataset = dataset,
    .close = close_h5,
};
