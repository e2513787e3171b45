/* fbin, f16bin, u8bin, i8bin, ibin: uint32 rows, uint32 dimensions, then the elements
 * (big-ann-benchmarks, DiskANN). There is no magic and no type in the file: the suffix says it. */
#include "../src/base/checked.h"
#include "elements.h"

#include <string.h>
#include <strings.h>

#define BIN_HEADER_BYTES 8

/* ---- probing ---- */

/* Without its suffix such a file is not recognised, for its element type would be a guess. */
static int probe_bin(const uint8_t *head, size_t len, int64_t bytes, const char *suffix,
    const char *own, fkm_dtype dtype)
{
    if (strcasecmp(suffix, own) != 0 || len < BIN_HEADER_BYTES)
        return 0;
    int64_t elements = (int64_t)fkm_get_u32(head), size = (int64_t)fkm_dtype_size(dtype), data;
    bool exact = fkm_mul_i64(&elements, elements, (int64_t)fkm_get_u32(head + 4)) &&
                 fkm_mul_i64(&data, elements, size) && data == bytes - BIN_HEADER_BYTES;
    return exact ? 60 : 20;
}

static int probe_fbin(const uint8_t *head, size_t len, int64_t bytes, const char *suffix)
{
    return probe_bin(head, len, bytes, suffix, ".fbin", FKM_F32);
}

static int probe_f16bin(const uint8_t *head, size_t len, int64_t bytes, const char *suffix)
{
    return probe_bin(head, len, bytes, suffix, ".f16bin", FKM_F16);
}

static int probe_u8bin(const uint8_t *head, size_t len, int64_t bytes, const char *suffix)
{
    return probe_bin(head, len, bytes, suffix, ".u8bin", FKM_U8);
}

static int probe_i8bin(const uint8_t *head, size_t len, int64_t bytes, const char *suffix)
{
    return probe_bin(head, len, bytes, suffix, ".i8bin", FKM_I8);
}

static int probe_ibin(const uint8_t *head, size_t len, int64_t bytes, const char *suffix)
{
    return probe_bin(head, len, bytes, suffix, ".ibin", FKM_I32);
}

/* ---- opening ---- */

static fkm_status open_bin(fkm_dense *a, fkm_file *f, fkm_dtype dtype, const fkm_format_options *o,
    fkm_shape *shape, fkm_err *e)
{
    const char *path = fkm_file_path(f);
    int64_t bytes = fkm_file_bytes(f), data;
    uint8_t head[BIN_HEADER_BYTES];
    FKM_TRY(fkm_check_wanted(path, dtype, o->dtype, e));
    if (bytes < BIN_HEADER_BYTES)
        return fkm_fail(e, FKM_EDATA, "%s: has %lld bytes, the header alone needs %d", path,
            (long long)bytes, BIN_HEADER_BYTES);
    FKM_TRY(fkm_file_read(f, 0, head, sizeof head, e));
    int64_t rows = fkm_get_u32(head), dims = fkm_get_u32(head + 4);
    FKM_TRY(fkm_array_bytes(&data, path, rows, dims, dtype, e));
    if (bytes - BIN_HEADER_BYTES != data) {
        fkm_fail(e, FKM_EDATA,
            "%s: header says %lld rows of %lld %s, so it must end at byte %llu, but ends at byte "
            "%lld",
            path, (long long)rows, (long long)dims, fkm_dtype_name(dtype),
            (unsigned long long)data + BIN_HEADER_BYTES, (long long)bytes);
        return fkm_hint(e, "the file may be truncated, or its suffix names another element type");
    }
    *a = (fkm_dense){.offset = BIN_HEADER_BYTES, .dims = (int32_t)dims, .dtype = dtype};
    *shape = (fkm_shape){.batch = 1,
        .rows = rows,
        .dims = (int32_t)dims,
        .ndim = 2,
        .dtype = dtype,
        .row_bytes = dims * (int64_t)fkm_dtype_size(dtype)};
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
