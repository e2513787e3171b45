/* fbin, f16bin, u8bin, i8bin, ibin: the numbers of rows and dimensions, then the elements
 * (big-ann-benchmarks, DiskANN). There is no magic and no type in the file: the suffix says it, or,
 * of .bin, --dtype. Both numbers are uint32, or uint64 where rows may be more (cuVS). */
#include "../src/base/checked.h"
#include "elements.h"

#include <string.h>
#include <strings.h>

enum { NARROW_BYTES = 8, WIDE_BYTES = 16 }; /* of headers */

/* ---- headers ---- */

typedef struct header {
    int64_t rows, dims;
    int bytes;
} header;

/* Whether the file ends where so many elements do. */
static bool ends_with(const header *h, int64_t size, int64_t file_bytes)
{
    int64_t data;
    return h->rows > 0 && h->dims > 0 && fkm_mul_i64(&data, h->rows, h->dims) &&
           fkm_mul_i64(&data, data, size) && data == file_bytes - h->bytes;
}

/* Only the size tells the headers apart. In a file of another size a wide one shows, up to 2^32 - 1
 * rows, by what would be 0 dimensions. size: of an element; 0: not known. */
static header read_head(const uint8_t *head, size_t len, int64_t size, int64_t file_bytes)
{
    const header narrow = {fkm_get_u32(head), fkm_get_u32(head + 4), NARROW_BYTES};
    if (len < WIDE_BYTES)
        return narrow;
    const uint64_t rows = fkm_get_u64(head), dims = fkm_get_u64(head + 8);
    if (rows > INT64_MAX || dims > INT32_MAX)
        return narrow;
    const header wide = {(int64_t)rows, (int64_t)dims, WIDE_BYTES};
    for (int64_t s = size ? size : 1; s <= (size ? size : 8); s *= 2) {
        if (ends_with(&narrow, s, file_bytes))
            return narrow;
        if (ends_with(&wide, s, file_bytes))
            return wide;
    }
    return narrow.dims == 0 && wide.rows > 0 && wide.dims > 0 ? wide : narrow;
}

/* The size of element that makes the file end where it does; 0: none. */
static int64_t fitting_size(const header *h, int64_t file_bytes)
{
    for (int64_t size = 1; size <= 8; size *= 2)
        if (ends_with(h, size, file_bytes))
            return size;
    return 0;
}

/* ---- probing ---- */

/* Without its suffix such a file is not recognised, for its element type would be a guess. dtype
 * NONE: any size will do. */
static int probe_bin(const uint8_t *head, size_t len, int64_t bytes, const char *suffix,
    const char *own, fkm_dtype dtype)
{
    if (strcasecmp(suffix, own) != 0 || len < NARROW_BYTES)
        return 0;
    int64_t size = (int64_t)fkm_dtype_size(dtype);
    header h = read_head(head, len, size, bytes);
    return (size ? ends_with(&h, size, bytes) : fitting_size(&h, bytes) > 0) ? 60 : 5;
}

#define PROBE(name)                                                                                \
    static int probe_##name(const uint8_t *head, size_t len, int64_t bytes, const char *suffix)

PROBE(fbin)
{
    return probe_bin(head, len, bytes, suffix, ".fbin", FKM_F32);
}

PROBE(f16bin)
{
    return probe_bin(head, len, bytes, suffix, ".f16bin", FKM_F16);
}

PROBE(u8bin)
{
    return probe_bin(head, len, bytes, suffix, ".u8bin", FKM_U8);
}

PROBE(i8bin)
{
    return probe_bin(head, len, bytes, suffix, ".i8bin", FKM_I8);
}

PROBE(ibin)
{
    return probe_bin(head, len, bytes, suffix, ".ibin", FKM_I32);
}

PROBE(bin_untyped)
{
    return probe_bin(head, len, bytes, suffix, ".bin", FKM_DTYPE_NONE);
}

/* ---- opening ---- */

static const char *types_of(int64_t size)
{
    return size == 1 ? "u8 or i8" : size == 2 ? "f16 or bf16" : size == 4 ? "f32 or i32" : "f64";
}

/* A .bin without --dtype. */
static fkm_status ask_for_type(const char *path, const header *h, int64_t bytes, fkm_err *e)
{
    int64_t size = fitting_size(h, bytes);
    if (size == 0) {
        fkm_fail(e, FKM_EDATA,
            "%s: begins with %lld and %lld, which are not the rows and dimensions of a .bin of "
            "%lld bytes",
            path, (long long)h->rows, (long long)h->dims, (long long)bytes);
        return fkm_hint(e, "if it is a part of such a file, give --dtype and --rows; else see 'fkm "
                           "help formats'");
    }
    fkm_fail(e, FKM_EUSAGE, "%s: a .bin file does not say what its elements are", path);
    return fkm_hint(e, "say it: --dtype %s (%lld rows of %lld fit), or name it .fbin, .u8bin ...",
        types_of(size), (long long)h->rows, (long long)h->dims);
}

/* Rows that are cut from a file of another type would be nonsense. */
static fkm_status check_size(const char *path, const header *h, const fkm_dense *a, fkm_file *f,
    const fkm_format_options *o, fkm_err *e)
{
    int64_t size = fitting_size(h, fkm_file_bytes(f));
    if (size == 0 || size == (int64_t)fkm_dtype_size(a->dtype) || h->rows == 0)
        return fkm_check_end(f, a, h->rows, o, e);
    fkm_fail(e, FKM_EDATA,
        "%s: its size is that of %lld rows of %lld elements of %lld bytes, %s has %zu", path,
        (long long)h->rows, (long long)h->dims, (long long)size, fkm_dtype_name(a->dtype),
        fkm_dtype_size(a->dtype));
    return fkm_hint(e, "name it .bin and give its type: --dtype %s", types_of(size));
}

static fkm_status open_bin(fkm_dense *a, fkm_file *f, fkm_dtype dtype, const fkm_format_options *o,
    fkm_shape *shape, fkm_err *e)
{
    const char *path = fkm_file_path(f);
    int64_t bytes = fkm_file_bytes(f), data;
    uint8_t head[WIDE_BYTES] = {0};
    if (bytes < NARROW_BYTES)
        return fkm_fail(e, FKM_EDATA, "%s: has %lld bytes, the header alone needs %d", path,
            (long long)bytes, NARROW_BYTES);
    size_t len = (size_t)fkm_min_i64(bytes, WIDE_BYTES);
    FKM_TRY(fkm_file_read(f, 0, head, len, e));
    header h = read_head(head, len, (int64_t)fkm_dtype_size(dtype), bytes);
    if (dtype == FKM_DTYPE_NONE)
        return ask_for_type(path, &h, bytes, e);
    FKM_TRY(fkm_check_wanted(path, dtype, o->dtype, e));
    FKM_TRY(fkm_rows_bytes(&data, path, h.rows, h.dims, dtype, o, e));
    *a = (fkm_dense){.offset = h.bytes, .dims = (int32_t)h.dims, .dtype = dtype};
    FKM_TRY(check_size(path, &h, a, f, o, e));
    *shape = (fkm_shape){.batch = 1,
        .rows = h.rows,
        .dims = a->dims,
        .ndim = 2,
        .dtype = dtype,
        .row_bytes = h.dims * (int64_t)fkm_dtype_size(dtype)};
    return FKM_OK;
}

static fkm_status open_fbin(
    void *priv, fkm_file *f, const fkm_format_options *o, fkm_shape *shape, fkm_err *e)
{
    return open_bin(priv, f, FKM_F32, o, shape, e);
}

static fkm_status open_f16bin(
    void *priv, fkm_file *f, const fkm_format_options *o, fkm_shape *shape, fkm_err *e)
{
    return open_bin(priv, f, FKM_F16, o, shape, e);
}

static fkm_status open_u8bin(
    void *priv, fkm_file *f, const fkm_format_options *o, fkm_shape *shape, fkm_err *e)
{
    return open_bin(priv, f, FKM_U8, o, shape, e);
}

static fkm_status open_i8bin(
    void *priv, fkm_file *f, const fkm_format_options *o, fkm_shape *shape, fkm_err *e)
{
    return open_bin(priv, f, FKM_I8, o, shape, e);
}

static fkm_status open_ibin(
    void *priv, fkm_file *f, const fkm_format_options *o, fkm_shape *shape, fkm_err *e)
{
    return open_bin(priv, f, FKM_I32, o, shape, e);
}

static fkm_status open_untyped(
    void *priv, fkm_file *f, const fkm_format_options *o, fkm_shape *shape, fkm_err *e)
{
    return open_bin(priv, f, o->dtype, o, shape, e);
}

static fkm_status read_bin(
    void *priv, fkm_file *f, int64_t row0, int64_t count, void *dst, void *scratch, fkm_err *e)
{
    return fkm_dense_read(priv, f, row0, count, dst, scratch, e);
}

static int64_t offset_in_bin(const void *priv, int64_t row)
{
    return fkm_dense_offset(priv, row);
}

const fkm_format fkm_format_fbin = {
    .name = "fbin",
    .suffixes = ".fbin",
    .about = "float32 matrix after its rows and dimensions (big-ann)",
    .priv_size = sizeof(fkm_dense),
    .probe = probe_fbin,
    .open = open_fbin,
    .read = read_bin,
    .offset = offset_in_bin,
};

const fkm_format fkm_format_f16bin = {
    .name = "f16bin",
    .suffixes = ".f16bin",
    .about = "float16 matrix after its rows and dimensions",
    .priv_size = sizeof(fkm_dense),
    .probe = probe_f16bin,
    .open = open_f16bin,
    .read = read_bin,
    .offset = offset_in_bin,
};

const fkm_format fkm_format_u8bin = {
    .name = "u8bin",
    .suffixes = ".u8bin",
    .about = "uint8 matrix after its rows and dimensions (big-ann)",
    .priv_size = sizeof(fkm_dense),
    .probe = probe_u8bin,
    .open = open_u8bin,
    .read = read_bin,
    .offset = offset_in_bin,
};

const fkm_format fkm_format_i8bin = {
    .name = "i8bin",
    .suffixes = ".i8bin",
    .about = "int8 matrix after its rows and dimensions (big-ann)",
    .priv_size = sizeof(fkm_dense),
    .probe = probe_i8bin,
    .open = open_i8bin,
    .read = read_bin,
    .offset = offset_in_bin,
};

const fkm_format fkm_format_ibin = {
    .name = "ibin",
    .suffixes = ".ibin",
    .about = "int32 matrix after its rows and dimensions (DiskANN)",
    .priv_size = sizeof(fkm_dense),
    .probe = probe_ibin,
    .open = open_ibin,
    .read = read_bin,
    .offset = offset_in_bin,
};

const fkm_format fkm_format_bin = {
    .name = "bin",
    .suffixes = ".bin",
    .about = "the same with elements that --dtype names (DiskANN)",
    .priv_size = sizeof(fkm_dense),
    .probe = probe_bin_untyped,
    .open = open_untyped,
    .read = read_bin,
    .offset = offset_in_bin,
};
