/* What the formats share: see elements.h. */
#include "elements.h"

#include "../src/base/checked.h"
#include "../src/base/text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* ---- elements ---- */

uint32_t fkm_get_u32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

uint64_t fkm_get_u64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

void fkm_swap_elements(void *p, int64_t count, size_t size)
{
    char *at = p;
    for (int64_t i = 0; i < count; i++, at += size) {
        uint16_t u16;
        uint32_t u32;
        uint64_t u64;
        switch (size) {
        case 2:
            memcpy(&u16, at, 2);
            u16 = __builtin_bswap16(u16);
            memcpy(at, &u16, 2);
            break;
        case 4:
            memcpy(&u32, at, 4);
            u32 = __builtin_bswap32(u32);
            memcpy(at, &u32, 4);
            break;
        case 8:
            memcpy(&u64, at, 8);
            u64 = __builtin_bswap64(u64);
            memcpy(at, &u64, 8);
            break;
        default:
            return;
        }
    }
}

static long long place_row(const fkm_place *p, int64_t i)
{
    return (long long)(p->row0 + (p->down ? i : (p->column0 + i) / p->dims));
}

static long long place_column(const fkm_place *p, int64_t i)
{
    return (long long)(p->down ? p->column0 : (p->column0 + i) % p->dims);
}

bool fkm_is_converted(fkm_dtype stored)
{
    return fkm_dtype_in_memory(stored) != stored;
}

bool fkm_is_resized(fkm_dtype stored)
{
    return fkm_dtype_size(fkm_dtype_in_memory(stored)) != fkm_dtype_size(stored);
}

/* float32 holds integers whose bits lie within 24. */
static bool is_exact(uint64_t magnitude)
{
    const uint64_t most = (uint64_t)1 << 24;
    return magnitude <= most || magnitude >> __builtin_ctzll(magnitude) < most;
}

static uint64_t magnitude(int64_t whole)
{
    return whole < 0 ? -(uint64_t)whole : (uint64_t)whole;
}

/* Each returns how many elements it has converted: less than count when the next one cannot be. The
 * loops go up, so that an element is read before its place is written. */
#define CONVERT(name, type, out, good)                                                             \
    static int64_t name(char *to, const char *from, int64_t count)                                 \
    {                                                                                              \
        for (int64_t i = 0; i < count; i++) {                                                      \
            type wide;                                                                             \
            memcpy(&wide, from + i * (int64_t)sizeof wide, sizeof wide);                           \
            out narrow = (out)wide;                                                                \
            if (!(good))                                                                           \
                return i;                                                                          \
            memcpy(to + i * (int64_t)sizeof narrow, &narrow, sizeof narrow);                       \
        }                                                                                          \
        return count;                                                                              \
    }

CONVERT(convert_f64, double, float, !isinf(narrow) || isinf(wide))
CONVERT(convert_u16, uint16_t, float, true)
CONVERT(convert_i16, int16_t, float, true)
CONVERT(convert_u32, uint32_t, float, is_exact(wide))
CONVERT(convert_i32, int32_t, float, is_exact(magnitude(wide)))
CONVERT(convert_u64, uint64_t, float, is_exact(wide))
CONVERT(convert_i64, int64_t, float, is_exact(magnitude(wide)))
CONVERT(convert_bool, uint8_t, uint8_t, narrow <= 1)

typedef int64_t convert_fn(char *to, const char *from, int64_t count);

static convert_fn *const converters[] = {
    [FKM_F64] = convert_f64,
    [FKM_U16] = convert_u16,
    [FKM_I16] = convert_i16,
    [FKM_U32] = convert_u32,
    [FKM_I32] = convert_i32,
    [FKM_U64] = convert_u64,
    [FKM_I64] = convert_i64,
    [FKM_BOOL] = convert_bool,
};

/* An integer as text; false when it is none. */
static bool whole_text(char *out, size_t cap, fkm_dtype stored, const void *element)
{
    uint32_t u32 = 0;
    uint64_t u64 = 0;
    memcpy(fkm_dtype_size(stored) == 8 ? (void *)&u64 : &u32, element, fkm_dtype_size(stored));
    if (stored == FKM_I32)
        snprintf(out, cap, "%ld", (long)(int32_t)u32);
    else if (stored == FKM_U32)
        snprintf(out, cap, "%lu", (unsigned long)u32);
    else if (stored == FKM_I64)
        snprintf(out, cap, "%lld", (long long)u64);
    else if (stored == FKM_U64)
        snprintf(out, cap, "%llu", (unsigned long long)u64);
    else
        return false;
    return true;
}

static fkm_status not_convertible(
    fkm_dtype stored, const char *element, const fkm_place *place, int64_t i, fkm_err *e)
{
    char text[24];
    if (whole_text(text, sizeof text, stored, element)) {
        fkm_fail(e, FKM_EDATA, "%s: row %lld, column %lld: %s is not exact in float32", place->path,
            place_row(place, i), place_column(place, i), text);
        return fkm_hint(e, "fkm computes on float32 rows: integers are exact up to 16777216; to "
                           "have them rounded, save a.astype('float32')");
    }
    if (stored == FKM_BOOL) {
        fkm_fail(e, FKM_EDATA, "%s: row %lld, column %lld: a bool is %d, expected 0 or 1",
            place->path, place_row(place, i), place_column(place, i), *(const uint8_t *)element);
        return fkm_hint(e, "if these are numbers, save a.view('uint8')");
    }
    double wide;
    memcpy(&wide, element, sizeof wide);
    fkm_fail(e, FKM_EDATA, "%s: row %lld, column %lld: %.17g does not fit in float32", place->path,
        place_row(place, i), place_column(place, i), wide);
    return fkm_hint(e, "fkm computes on float32 rows (largest: 3.4e38); scale the data");
}

fkm_status fkm_convert(
    fkm_dtype stored, void *dst, const void *src, int64_t count, const fkm_place *place, fkm_err *e)
{
    if (!fkm_is_converted(stored))
        return FKM_OK;
    int64_t done = converters[stored](dst, src, count);
    if (done == count)
        return FKM_OK;
    const char *element = (const char *)src + done * (int64_t)fkm_dtype_size(stored);
    return not_convertible(stored, element, place, done, e);
}

/* ---- dense arrays ---- */

/* By way of the scratch, a piece at a time. */
static fkm_status read_resized(const fkm_dense *a, fkm_file *f, int64_t row0, int64_t count,
    char *dst, void *scratch, fkm_err *e)
{
    const int64_t stored = (int64_t)fkm_dtype_size(a->dtype);
    const int64_t size = (int64_t)fkm_dtype_size(fkm_dtype_in_memory(a->dtype));
    const int64_t first = row0 * a->dims, total = count * a->dims;
    const int64_t most = (int64_t)FKM_SCRATCH_BYTES / stored;
    for (int64_t done = 0; done < total;) {
        int64_t some = fkm_min_i64(most, total - done), at = first + done;
        FKM_TRY(fkm_file_read(f, a->offset + at * stored, scratch, (size_t)(some * stored), e));
        if (a->swap)
            fkm_swap_elements(scratch, some, (size_t)stored);
        fkm_place place = {fkm_file_path(f), at / a->dims, (int32_t)(at % a->dims), a->dims, false};
        FKM_TRY(fkm_convert(a->dtype, dst + done * size, scratch, some, &place, e));
        done += some;
    }
    return FKM_OK;
}

fkm_status fkm_dense_read(const fkm_dense *a, fkm_file *f, int64_t row0, int64_t count, void *dst,
    void *scratch, fkm_err *e)
{
    if (fkm_is_resized(a->dtype))
        return read_resized(a, f, row0, count, dst, scratch, e);
    int64_t size = (int64_t)fkm_dtype_size(a->dtype), elements = count * a->dims;
    FKM_TRY(fkm_file_read(f, a->offset + row0 * a->dims * size, dst, (size_t)(elements * size), e));
    if (a->swap)
        fkm_swap_elements(dst, elements, (size_t)size);
    fkm_place place = {fkm_file_path(f), row0, 0, a->dims, false};
    return fkm_convert(a->dtype, dst, dst, elements, &place, e);
}

int64_t fkm_dense_offset(const fkm_dense *a, int64_t row)
{
    if (fkm_is_resized(a->dtype))
        return -1;
    return a->offset + row * a->dims * (int64_t)fkm_dtype_size(a->dtype);
}

fkm_status fkm_array_bytes(
    int64_t *bytes, const char *path, int64_t rows, int64_t dims, fkm_dtype dtype, fkm_err *e)
{
    int64_t out;
    if (rows < 1 || dims < 1) {
        fkm_fail(e, FKM_EDATA, "%s: holds %lld rows of %lld dimensions", path, (long long)rows,
            (long long)dims);
        return fkm_hint(
            e, "there is nothing to cluster: at least one row of one dimension is needed");
    }
    if (dims > INT32_MAX)
        return fkm_fail(e, FKM_EDATA, "%s: rows of %lld dimensions, the most is %d", path,
            (long long)dims, INT32_MAX);
    if (!fkm_mul_i64(&out, rows, dims) || !fkm_mul_i64(&out, out, (int64_t)fkm_dtype_size(dtype)))
        return fkm_fail(e, FKM_EDATA,
            "%s: %lld rows of %lld %s are more bytes than a file can have", path, (long long)rows,
            (long long)dims, fkm_dtype_name(dtype));
    *bytes = out;
    return FKM_OK;
}

fkm_status fkm_hint_rows(fkm_err *e, int64_t rows, const char *otherwise)
{
    if (rows < 1)
        return fkm_hint(e, "%s", otherwise);
    return fkm_hint(e, "%s; its first %lld rows are there: read alone, --rows 0:%lld takes them",
        otherwise, (long long)rows, (long long)rows);
}

fkm_status fkm_check_end(
    fkm_file *f, const fkm_dense *a, int64_t rows, const fkm_format_options *o, fkm_err *e)
{
    const int64_t row_bytes = a->dims * (int64_t)fkm_dtype_size(a->dtype), bytes = rows * row_bytes;
    const int64_t found = fkm_file_bytes(f) - a->offset;
    const int64_t whole = fkm_min_i64(rows, found / row_bytes);
    if (found == bytes || (o->partial && o->rows_end <= whole))
        return FKM_OK;
    fkm_fail(e, FKM_EDATA,
        "%s: header says %lld rows of %ld %s, so it must end at byte %llu, but ends at byte %lld",
        fkm_file_path(f), (long long)rows, (long)a->dims, fkm_dtype_name(a->dtype),
        (unsigned long long)a->offset + (unsigned long long)bytes, (long long)fkm_file_bytes(f));
    return fkm_hint_rows(e, whole,
        found < bytes ? "the file may be truncated" : "something may have been appended to it");
}

fkm_status fkm_rows_bytes(int64_t *bytes, const char *path, int64_t rows, int64_t dims,
    fkm_dtype dtype, const fkm_format_options *o, fkm_err *e)
{
    if (rows != 0 || !o->may_be_empty)
        return fkm_array_bytes(bytes, path, rows, dims, dtype, e);
    FKM_TRY(fkm_array_bytes(bytes, path, 1, dims, dtype, e));
    *bytes = 0;
    return FKM_OK;
}

fkm_status fkm_check_wanted(const char *path, fkm_dtype stored, fkm_dtype wanted, fkm_err *e)
{
    if (wanted == FKM_DTYPE_NONE || wanted == stored)
        return FKM_OK;
    fkm_fail(e, FKM_EUSAGE, "%s: holds %s, --dtype asks for %s", path, fkm_dtype_name(stored),
        fkm_dtype_name(wanted));
    return fkm_hint(e, "--dtype is for data without a type of its own; leave it out here");
}

/* ---- text ---- */

bool fkm_suffix_in(const char *list, const char *suffix)
{
    size_t length = strlen(suffix);
    for (const char *p = list; length > 0 && *p;) {
        size_t word = strcspn(p, " ");
        if (word == length && !strncasecmp(p, suffix, length))
            return true;
        p += word + strspn(p + word, " ");
    }
    return false;
}

const char *fkm_printable(char *out, size_t cap, const char *text)
{
    return fkm_text_escape(out, cap, text);
}

void fkm_list_array(char *list, size_t cap, size_t *used, const char *name, int64_t rows,
    int64_t dims, const char *type)
{
    char safe[80], entry[200];
    int length = snprintf(entry, sizeof entry, "%s%s (%lld x %lld %s)", *used ? ", " : "",
        fkm_printable(safe, sizeof safe, name), (long long)rows, (long long)dims, type);
    if (*used + (size_t)length + sizeof ", ..." > cap) {
        if (*used < 5 || strcmp(list + *used - 3, "...") != 0)
            *used += (size_t)snprintf(list + *used, cap - *used, ", ...");
        return;
    }
    memcpy(list + *used, entry, (size_t)length + 1);
    *used += (size_t)length;
}
