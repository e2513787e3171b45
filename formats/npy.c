/* npy: NumPy's array file, versions 1 to 3.
 *
 * The header is a Python dict literal with exactly three keys. The parser below takes that and
 * nothing else: no evaluation, no pickles, no allocation. */
#include "../src/base/checked.h"
#include "../src/base/log.h"
#include "elements.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MAX_HEADER_BYTES 10000 /* NumPy's own limit for files that are not trusted */
#define MAX_NDIM 32
#define PREFIX_BYTES 12 /* magic, version, length of the header in its long form */

typedef struct npy {
    fkm_dense data;
    bool fortran;
    int64_t rows;
} npy;

static int probe_npy(const uint8_t *head, size_t len, int64_t bytes, const char *suffix)
{
    (void)bytes;
    (void)suffix;
    return len >= 6 && !memcmp(head, "\x93NUMPY", 6) ? 100 : 0;
}

/* ---- the header's text ---- */

typedef struct header {
    char descr[64];
    bool has_descr, has_order, has_shape, fortran;
    int ndim;
    int64_t shape[MAX_NDIM];
} header;

typedef struct cursor {
    const char *path;
    const char *text; /* the header */
    size_t at, len;
    int64_t base; /* of text[0] in the file */
} cursor;

static fkm_status malformed(const cursor *c, fkm_err *e, const char *fmt, ...) FKM_PRINTF(3, 4);

static fkm_status malformed(const cursor *c, fkm_err *e, const char *fmt, ...)
{
    char what[160];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    fkm_fail(e, FKM_EDATA, "%s: npy header: %s (byte %lld)", c->path, what,
        (long long)(c->base + (int64_t)c->at));
    return fkm_hint(e, "the file is damaged or was not written by numpy.save");
}

static char peek(const cursor *c)
{
    return c->at < c->len ? c->text[c->at] : '\0';
}

static void skip_space(cursor *c)
{
    while (c->at < c->len && (peek(c) == ' ' || peek(c) == '\n' || peek(c) == '\t'))
        c->at++;
}

/* Takes ch when it is next, after spaces. */
static bool take(cursor *c, char ch)
{
    skip_space(c);
    if (peek(c) != ch || c->at >= c->len)
        return false;
    c->at++;
    return true;
}

static fkm_status expect(cursor *c, char ch, fkm_err *e)
{
    return take(c, ch) ? FKM_OK : malformed(c, e, "expected '%c'", ch);
}

/* A quoted string without escapes, into out. */
static fkm_status parse_string(cursor *c, char *out, size_t cap, fkm_err *e)
{
    skip_space(c);
    char quote = peek(c);
    if (quote != '\'' && quote != '"')
        return malformed(c, e, "expected a quoted string");
    size_t start = ++c->at;
    while (c->at < c->len && c->text[c->at] != quote) {
        if (c->text[c->at] == '\\' || (unsigned char)c->text[c->at] < ' ')
            return malformed(c, e, "unexpected character in a string");
        c->at++;
    }
    if (c->at >= c->len)
        return malformed(c, e, "a string does not end");
    size_t length = c->at - start;
    if (length >= cap)
        return malformed(c, e, "a string of %zu characters", length);
    memcpy(out, c->text + start, length);
    out[length] = '\0';
    c->at++;
    return FKM_OK;
}

static bool take_word(cursor *c, const char *word)
{
    skip_space(c);
    size_t length = strlen(word);
    if (c->len - c->at < length || memcmp(c->text + c->at, word, length) != 0)
        return false;
    c->at += length;
    return true;
}

static fkm_status parse_order(cursor *c, header *h, fkm_err *e)
{
    if (take_word(c, "True"))
        h->fortran = true;
    else if (!take_word(c, "False"))
        return malformed(c, e, "fortran_order is neither True nor False");
    return FKM_OK;
}

static fkm_status parse_length(cursor *c, int64_t *out, fkm_err *e)
{
    skip_space(c);
    if (peek(c) < '0' || peek(c) > '9')
        return malformed(c, e, "a length in shape is not a number of at least 0");
    int64_t value = 0;
    for (; peek(c) >= '0' && peek(c) <= '9'; c->at++)
        if (!fkm_mul_i64(&value, value, 10) || !fkm_add_i64(&value, value, peek(c) - '0'))
            return malformed(c, e, "a length in shape is beyond 64 bits");
    if (peek(c) == 'L') /* Python 2 on Windows wrote its long integers so */
        c->at++;
    *out = value;
    return FKM_OK;
}

static fkm_status parse_shape(cursor *c, header *h, fkm_err *e)
{
    FKM_TRY(expect(c, '(', e));
    while (!take(c, ')')) {
        if (h->ndim == MAX_NDIM)
            return malformed(c, e, "shape has more than %d lengths", MAX_NDIM);
        FKM_TRY(parse_length(c, &h->shape[h->ndim++], e));
        if (!take(c, ',')) {
            FKM_TRY(expect(c, ')', e));
            return h->ndim > 1 ? FKM_OK : malformed(c, e, "shape is not a tuple");
        }
    }
    return FKM_OK;
}

static fkm_status parse_descr(cursor *c, header *h, fkm_err *e)
{
    skip_space(c);
    if (peek(c) == '[' || peek(c) == '{' || peek(c) == '(') {
        fkm_fail(e, FKM_EDATA, "%s: holds a structured array, expected plain numbers", c->path);
        return fkm_hint(
            e, "save one field, or numpy.lib.recfunctions.structured_to_unstructured(a)");
    }
    return parse_string(c, h->descr, sizeof h->descr, e);
}

static fkm_status parse_item(cursor *c, header *h, fkm_err *e)
{
    char key[32], safe[32];
    FKM_TRY(parse_string(c, key, sizeof key, e));
    bool *seen = NULL;
    if (!strcmp(key, "descr"))
        seen = &h->has_descr;
    else if (!strcmp(key, "fortran_order"))
        seen = &h->has_order;
    else if (!strcmp(key, "shape"))
        seen = &h->has_shape;
    if (!seen)
        return malformed(c, e, "unknown key '%s'", fkm_printable(safe, sizeof safe, key));
    if (*seen)
        return malformed(c, e, "key '%s' appears twice", key);
    *seen = true;
    FKM_TRY(expect(c, ':', e));
    if (seen == &h->has_descr)
        return parse_descr(c, h, e);
    return seen == &h->has_order ? parse_order(c, h, e) : parse_shape(c, h, e);
}

static fkm_status parse_header(cursor *c, header *h, fkm_err *e)
{
    FKM_TRY(expect(c, '{', e));
    while (!take(c, '}')) {
        FKM_TRY(parse_item(c, h, e));
        if (!take(c, ',')) {
            FKM_TRY(expect(c, '}', e));
            break;
        }
    }
    if (!h->has_descr || !h->has_order || !h->has_shape)
        return malformed(c, e, "key '%s' is missing",
            !h->has_descr   ? "descr"
            : !h->has_order ? "fortran_order"
                            : "shape");
    skip_space(c);
    if (c->at != c->len)
        return malformed(c, e, "something follows the dictionary");
    if (c->text[c->len - 1] != '\n')
        return malformed(c, e, "does not end in a newline");
    return FKM_OK;
}

/* Reads and parses; *data = where the elements begin. */
static fkm_status read_header(fkm_file *f, header *h, int64_t *data, fkm_err *e)
{
    const char *path = fkm_file_path(f);
    int64_t bytes = fkm_file_bytes(f);
    uint8_t prefix[PREFIX_BYTES];
    char text[MAX_HEADER_BYTES];
    if (bytes < PREFIX_BYTES)
        return fkm_fail(
            e, FKM_EDATA, "%s: has %lld bytes, too few for an npy header", path, (long long)bytes);
    FKM_TRY(fkm_file_read(f, 0, prefix, sizeof prefix, e));
    if (memcmp(prefix, "\x93NUMPY", 6) != 0) {
        fkm_fail(e, FKM_EDATA, "%s: does not start with the npy signature (byte 0)", path);
        return fkm_hint(e, "the suffix promises npy; name the file by what it is");
    }
    if (prefix[6] < 1 || prefix[6] > 3)
        return fkm_fail(e, FKM_EDATA, "%s: npy version %d.%d, expected 1, 2 or 3 (byte 6)", path,
            prefix[6], prefix[7]);
    int64_t start = prefix[6] == 1 ? 10 : 12;
    int64_t length = prefix[6] == 1 ? prefix[8] | prefix[9] << 8 : (int64_t)fkm_get_u32(prefix + 8);
    if (length > MAX_HEADER_BYTES) {
        fkm_fail(e, FKM_EDATA, "%s: npy header of %lld bytes, the most is %d (byte 8)", path,
            (long long)length, MAX_HEADER_BYTES);
        return fkm_hint(e, "arrays of plain numbers need about 100 bytes; the file is damaged");
    }
    if (length < 1 || length > bytes - start)
        return fkm_fail(e, FKM_EDATA,
            "%s: npy header of %lld bytes, the file has %lld after byte %lld", path,
            (long long)length, (long long)(bytes - start), (long long)start);
    FKM_TRY(fkm_file_read(f, start, text, (size_t)length, e));
    cursor c = {path, text, 0, (size_t)length, start};
    *data = start + length;
    return parse_header(&c, h, e);
}

/* ---- types ---- */

static const struct {
    const char *code; /* without the byte order */
    fkm_dtype dtype;
} codes[] = {
    {"f4", FKM_F32},
    {"f2", FKM_F16},
    {"f8", FKM_F64},
    {"u1", FKM_U8},
    {"i1", FKM_I8},
    {"u2", FKM_U16},
    {"i2", FKM_I16},
    {"u4", FKM_U32},
    {"i4", FKM_I32},
    {"u8", FKM_U64},
    {"i8", FKM_I64},
    {"b1", FKM_BOOL},
};

/* Bytes without a meaning of their own: void of the right size, or the 16-bit integers that
 * programs without two-byte floats keep them in. */
static bool is_raw(const char *descr, fkm_dtype wanted)
{
    char code[16];
    snprintf(code, sizeof code, "V%zu", fkm_dtype_size(wanted));
    bool half = wanted == FKM_BF16 || wanted == FKM_F16;
    return (!strcmp(descr + 1, code) && descr[0] != '>') ||
           (half && (!strcmp(descr + 1, "u2") || !strcmp(descr + 1, "i2")));
}

static fkm_status unknown_type(const char *path, const char *descr, fkm_err *e)
{
    char safe[64];
    if (!strcmp(descr + 1, "O") || !strncmp(descr, "O", 1)) {
        fkm_fail(e, FKM_EDATA, "%s: holds Python objects, expected plain numbers", path);
        return fkm_hint(e, "fkm never unpickles; save numpy.array(a.tolist(), dtype='float32')");
    }
    fkm_fail(e, FKM_EDATA, "%s: holds elements of type '%s', which fkm does not read", path,
        fkm_printable(safe, sizeof safe, descr));
    if (!strcmp(descr + 1, "V2"))
        return fkm_hint(e, "if these are bfloat16 numbers, say so: --dtype bf16");
    return fkm_hint(e, "it reads floats, integers and bool; convert with a.astype('float32')");
}

static fkm_status parse_type(
    fkm_dense *a, const char *path, const char *descr, fkm_dtype wanted, fkm_err *e)
{
    if (!descr[0] || !strchr("<>|=", descr[0]))
        return unknown_type(path, descr, e);
    a->swap = descr[0] == '>';
    if (wanted != FKM_DTYPE_NONE && is_raw(descr, wanted)) {
        if (!strchr(descr, 'V'))
            fkm_warn(
                "%s: the bits of its 16-bit integers are taken for %s numbers, as --dtype says",
                path, fkm_dtype_name(wanted));
        a->dtype = wanted;
        return FKM_OK;
    }
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (!strcmp(descr + 1, codes[i].code))
            a->dtype = codes[i].dtype;
    if (a->dtype == FKM_DTYPE_NONE)
        return unknown_type(path, descr, e);
    return fkm_check_wanted(path, a->dtype, wanted, e);
}

/* ---- opening ---- */

static fkm_status check_ndim(const header *h, const char *path, fkm_err *e)
{
    if (h->ndim == 2 || (h->ndim == 3 && !h->fortran))
        return FKM_OK;
    if (h->ndim == 3) {
        fkm_fail(e, FKM_EDATA, "%s: a 3-D array in Fortran order, which fkm does not read", path);
        return fkm_hint(e, "save numpy.ascontiguousarray(a)");
    }
    if (h->ndim == 1) {
        fkm_fail(e, FKM_EDATA, "%s: a 1-D array of %lld, expected 2-D: rows x dimensions", path,
            (long long)h->shape[0]);
        return fkm_hint(
            e, "save a[:, None] for rows of one number, or a.reshape(rows, dimensions)");
    }
    fkm_fail(e, FKM_EDATA, "%s: a %d-D array, expected 2-D (rows x dimensions) or 3-D (a batch)",
        path, h->ndim);
    int64_t last = h->ndim > 0 ? h->shape[h->ndim - 1] : 1, first = 1, rest = 1;
    for (int i = 1; i < h->ndim; i++) {
        rest = fkm_mul_sat(rest, h->shape[i]);
        first = fkm_mul_sat(first, h->shape[i - 1]);
    }
    if (h->ndim == 0)
        return fkm_hint(e, "there is nothing to cluster");
    return fkm_hint(e, "save a.reshape(%lld, %lld) or a.reshape(%lld, %lld)",
        (long long)h->shape[0], (long long)rest, (long long)first, (long long)last);
}

/* In Fortran order no row is whole before the file is. */
static fkm_status check_end(
    const npy *p, fkm_file *f, int64_t rows, const fkm_format_options *o, fkm_err *e)
{
    static const fkm_format_options all = {0};
    fkm_status st = fkm_check_end(f, &p->data, rows, p->fortran ? &all : o, e);
    return st != FKM_OK && p->fortran ? fkm_hint(e, "the file may be truncated, or something was "
                                                    "appended to it")
                                      : st;
}

static fkm_status open_npy(
    void *priv, fkm_file *f, const fkm_format_options *o, fkm_shape *shape, fkm_err *e)
{
    npy *p = priv;
    const char *path = fkm_file_path(f);
    header h = {0};
    FKM_TRY(read_header(f, &h, &p->data.offset, e));
    FKM_TRY(parse_type(&p->data, path, h.descr, o->dtype, e));
    const int ndim = h.ndim;
    if (ndim == 1 && o->one_dim) {
        h.shape[1] = 1;
        h.ndim = 2;
    }
    FKM_TRY(check_ndim(&h, path, e));
    int64_t batch = h.ndim == 3 ? h.shape[0] : 1, rows = h.shape[h.ndim - 2];
    int64_t dims = h.shape[h.ndim - 1], flat, bytes;
    if (batch < 1)
        return fkm_fail(e, FKM_EDATA, "%s: a batch of 0 problems of %lld rows of %lld dimensions",
            path, (long long)rows, (long long)dims);
    if (!fkm_mul_i64(&flat, batch, rows))
        return fkm_fail(e, FKM_EDATA, "%s: %lld x %lld rows are beyond 64 bits", path,
            (long long)batch, (long long)rows);
    FKM_TRY(fkm_rows_bytes(&bytes, path, flat, dims, p->data.dtype, o, e));
    p->data.dims = (int32_t)dims;
    p->fortran = h.fortran;
    FKM_TRY(check_end(p, f, flat, o, e));
    p->rows = rows;
    *shape = (fkm_shape){.batch = batch,
        .rows = rows,
        .dims = (int32_t)dims,
        .ndim = ndim,
        .dtype = p->data.dtype,
        .row_bytes = dims * (int64_t)fkm_dtype_size(p->data.dtype)};
    return FKM_OK;
}

/* ---- Fortran order ---- */

#define TILE_COLUMNS 16 /* a cache line of float32 in each row of dst */

/* `count` elements of column t, as they are in memory. Narrow ones are read to where they end when
 * they are wide, and widened from there. */
static fkm_status read_column(
    const npy *p, fkm_file *f, char *column, int64_t row0, int64_t count, int32_t t, fkm_err *e)
{
    const int64_t stored = (int64_t)fkm_dtype_size(p->data.dtype);
    const int64_t size = (int64_t)fkm_dtype_size(fkm_dtype_in_memory(p->data.dtype));
    char *raw = column + (size > stored ? count * (size - stored) : 0);
    int64_t at = p->data.offset + ((int64_t)t * p->rows + row0) * stored;
    FKM_TRY(fkm_file_read(f, at, raw, (size_t)(count * stored), e));
    if (p->data.swap)
        fkm_swap_elements(raw, count, (size_t)stored);
    fkm_place place = {fkm_file_path(f), row0, t, p->data.dims, true};
    return fkm_convert(p->data.dtype, column, raw, count, &place, e);
}

/* columns[c * step] holds `count` elements of size bytes of column c; they go to dst, a matrix
 * whose rows are `stride` bytes apart. */
static void scatter(char *dst, size_t stride, const char *columns, size_t step, int64_t count,
    int32_t width, size_t size)
{
    for (int64_t i = 0; i < count; i++, dst += stride) {
        const char *from = columns + (size_t)i * size;
        for (int32_t c = 0; c < width; c++, from += step) {
            if (size == 4)
                memcpy(dst + c * 4, from, 4);
            else if (size == 2)
                memcpy(dst + c * 2, from, 2);
            else
                dst[c] = *from;
        }
    }
}

/* A tile of rows and columns at a time: each column is contiguous in the file, each row in dst. */
static fkm_status read_fortran(
    const npy *p, fkm_file *f, int64_t row0, int64_t count, char *dst, char *scratch, fkm_err *e)
{
    const size_t stored = fkm_dtype_size(p->data.dtype);
    const size_t size = fkm_dtype_size(fkm_dtype_in_memory(p->data.dtype));
    const size_t room = stored > size ? stored : size; /* of an element in the scratch */
    const int32_t dims = p->data.dims;
    const int64_t most = (int64_t)(FKM_SCRATCH_BYTES / (TILE_COLUMNS * room));
    for (int64_t i = 0; i < count; i += most) {
        int64_t some = fkm_min_i64(most, count - i);
        for (int32_t t = 0; t < dims; t += TILE_COLUMNS) {
            int32_t width = dims - t < TILE_COLUMNS ? dims - t : TILE_COLUMNS;
            for (int32_t c = 0; c < width; c++)
                FKM_TRY(read_column(
                    p, f, scratch + (size_t)(c * most) * room, row0 + i, some, t + c, e));
            scatter(dst + ((size_t)i * (size_t)dims + (size_t)t) * size, (size_t)dims * size,
                scratch, (size_t)most * room, some, width, size);
        }
    }
    return FKM_OK;
}

static fkm_status read_npy(
    void *priv, fkm_file *f, int64_t row0, int64_t count, void *dst, void *scratch, fkm_err *e)
{
    const npy *p = priv;
    if (p->fortran)
        return read_fortran(p, f, row0, count, dst, scratch, e);
    return fkm_dense_read(&p->data, f, row0, count, dst, scratch, e);
}

static int64_t offset_in_npy(const void *priv, int64_t row)
{
    const npy *p = priv;
    return p->fortran ? -1 : fkm_dense_offset(&p->data, row);
}

const fkm_format fkm_format_npy = {
    .name = "npy",
    .suffixes = ".npy",
    .about = "NumPy array, 2-D, or 3-D as a batch",
    .priv_size = sizeof(npy),
    .probe = probe_npy,
    .open = open_npy,
    .read = read_npy,
    .offset = offset_in_npy,
};
