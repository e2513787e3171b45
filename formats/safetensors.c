/* safetensors: a JSON table of named arrays, then their bytes. */
#include "../src/base/checked.h"
#include "../src/base/mem.h"
#include "../src/base/parse_json.h"
#include "elements.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_HEADER_BYTES 100000000 /* the limit of the format's own library */
#define LENGTH_BYTES 8

typedef struct safetensors {
    fkm_dense data;
    char *name; /* of the chosen tensor */
} safetensors;

static int probe_safetensors(const uint8_t *head, size_t len, int64_t bytes, const char *suffix)
{
    (void)suffix;
    if (len < LENGTH_BYTES + 2 || head[LENGTH_BYTES] != '{')
        return 0;
    uint64_t length = fkm_get_u64(head);
    return length >= 2 && length <= (uint64_t)bytes - LENGTH_BYTES ? 90 : 0;
}

/* ---- the header ---- */

static fkm_status damaged(const char *path, const char *what, fkm_err *e)
{
    fkm_fail(e, FKM_EDATA, "%s: safetensors header: %s", path, what);
    return fkm_hint(e, "the file is damaged or was not written by safetensors");
}

/* *begin, *end = the table in the file. */
static fkm_status find_table(int64_t *begin, int64_t *end, fkm_file *f, fkm_err *e)
{
    const char *path = fkm_file_path(f);
    int64_t bytes = fkm_file_bytes(f);
    uint8_t head[LENGTH_BYTES];
    if (bytes < LENGTH_BYTES + 2)
        return damaged(path, "the file is too short for one", e);
    FKM_TRY(fkm_file_read(f, 0, head, sizeof head, e));
    uint64_t length = fkm_get_u64(head);
    if (length > MAX_HEADER_BYTES || length > (uint64_t)(bytes - LENGTH_BYTES)) {
        fkm_fail(e, FKM_EDATA,
            "%s: safetensors header of %llu bytes, the most is %d and the file has %lld (byte 0)",
            path, (unsigned long long)length, MAX_HEADER_BYTES, (long long)bytes);
        return fkm_hint(e, "the file may be truncated or of another format");
    }
    *begin = LENGTH_BYTES;
    *end = LENGTH_BYTES + (int64_t)length;
    return FKM_OK;
}

/* JSON numbers arrive as doubles: exact only up to 2^53. */
static bool whole_number(const cJSON *n, int64_t *out)
{
    if (!cJSON_IsNumber(n) || !(n->valuedouble >= 0) || n->valuedouble > 0x1p53 ||
        n->valuedouble != floor(n->valuedouble))
        return false;
    *out = (int64_t)n->valuedouble;
    return true;
}

static fkm_dtype parse_type(const char *name)
{
    static const struct {
        const char *name;
        fkm_dtype dtype;
    } types[] = {
        {"F64", FKM_F64},
        {"F32", FKM_F32},
        {"F16", FKM_F16},
        {"BF16", FKM_BF16},
        {"U8", FKM_U8},
        {"I8", FKM_I8},
        {"U16", FKM_U16},
        {"I16", FKM_I16},
        {"U32", FKM_U32},
        {"I32", FKM_I32},
        {"U64", FKM_U64},
        {"I64", FKM_I64},
        {"BOOL", FKM_BOOL},
    };
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (!strcmp(types[i].name, name))
            return types[i].dtype;
    return FKM_DTYPE_NONE;
}

/* What the table says of one array; lengths and offsets are whole numbers, nothing more is known.
 */
typedef struct tensor {
    const char *name;
    char type[32];   /* printable */
    fkm_dtype dtype; /* NONE: one that fkm does not read */
    int ndim;
    int64_t rows, dims; /* of 2-D arrays; of larger ones the last two lengths */
    int64_t begin, end; /* relative to the arrays' first byte */
} tensor;

static bool parse_shape(const cJSON *shape, tensor *out)
{
    if (!cJSON_IsArray(shape))
        return false;
    const cJSON *length;
    cJSON_ArrayForEach(length, shape)
    {
        int64_t value;
        if (!whole_number(length, &value))
            return false;
        out->rows = out->dims;
        out->dims = value;
        out->ndim++;
    }
    return true;
}

static bool parse_tensor(const char *name, const cJSON *item, tensor *out)
{
    *out = (tensor){.name = name};
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(item, "dtype");
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(item, "shape");
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(item, "data_offsets");
    if (!cJSON_IsObject(item) || cJSON_GetArraySize(item) != 3 || !cJSON_IsString(type) ||
        !cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 || !parse_shape(shape, out))
        return false;
    fkm_printable(out->type, sizeof out->type, type->valuestring);
    out->dtype = parse_type(type->valuestring);
    return whole_number(offsets->child, &out->begin) &&
           whole_number(offsets->child->next, &out->end) && out->begin <= out->end;
}

/* ---- choosing ---- */

typedef struct choice {
    const char *path, *wanted; /* wanted: NULL for the only 2-D one */
    tensor picked;
    char *name;        /* its own */
    tensor larger;     /* the first of more than two dimensions, should none have two */
    char *larger_name; /* its own; NULL: there is none */
    int matches;       /* arrays that fit the question */
    int64_t end;       /* of the last array */
    char list[400];    /* of the 2-D arrays, for messages */
    size_t used;
} choice;

static fkm_status judge_tensor(void *arg, const char *name, char first, bool *wanted, fkm_err *e)
{
    const choice *c = arg;
    *wanted = strcmp(name, "__metadata__") != 0;
    if (!*wanted && first != '{')
        return damaged(c->path, "__metadata__ is not an object", e);
    return FKM_OK;
}

static fkm_status take_tensor(void *arg, const char *name, const cJSON *value, fkm_err *e)
{
    choice *c = arg;
    tensor t;
    char safe[80], what[120];
    if (!parse_tensor(name, value, &t)) {
        snprintf(what, sizeof what, "tensor '%s' needs exactly dtype, shape and data_offsets",
            fkm_printable(safe, sizeof safe, name));
        return damaged(c->path, what, e);
    }
    c->end = fkm_max_i64(c->end, t.end);
    if (t.ndim == 2)
        fkm_list_array(c->list, sizeof c->list, &c->used, name, t.rows, t.dims, t.type);
    if (t.ndim > 2 && !c->larger_name) {
        FKM_TRY(fkm_strdup(&c->larger_name, name, e));
        c->larger = t;
        c->larger.name = c->larger_name;
    }
    if (c->wanted ? strcmp(c->wanted, name) != 0 : t.ndim != 2)
        return FKM_OK;
    if (c->matches++ == 0)
        FKM_TRY(fkm_strdup(&c->name, name, e));
    c->picked = t;
    c->picked.name = c->name;
    return FKM_OK;
}

static fkm_status hint_reshape(const tensor *t, fkm_err *e)
{
    char safe[80];
    fkm_printable(safe, sizeof safe, t->name);
    if (t->ndim < 2)
        return fkm_hint(e, "for rows of one number save t.reshape(-1, 1) as '%s'", safe);
    return fkm_hint(e,
        "save t.reshape(-1, %lld) as '%s', or t.reshape(len(t), -1); a batch of problems is a 3-D "
        ".npy",
        (long long)t->dims, safe);
}

static fkm_status pick(choice *c, fkm_file *f, int64_t begin, int64_t end, fkm_err *e)
{
    const fkm_json_visitor v = {c, judge_tensor, take_tensor};
    char safe[160];
    fkm_status st = fkm_json_members(f, begin, end, &v, e);
    if (st == FKM_EDATA && !e->hint[0]) {
        fkm_wrap(e, "%s: safetensors header", c->path);
        return fkm_hint(e, "the file is damaged or was not written by safetensors");
    }
    if (st != FKM_OK)
        return st;
    if (c->matches == 1)
        return FKM_OK;
    if (c->wanted && c->matches > 1)
        return damaged(c->path, "the chosen tensor appears twice", e);
    if (c->wanted) {
        fkm_fail(e, FKM_EDATA, "%s: has no tensor '%s'", c->path,
            fkm_printable(safe, sizeof safe, c->wanted));
        return fkm_hint(e, "2-D tensors: %s", c->used ? c->list : "none");
    }
    if (c->matches == 0) {
        fkm_fail(e, FKM_EDATA, "%s: has no 2-D tensor", c->path);
        return c->larger_name ? hint_reshape(&c->larger, e)
                              : fkm_hint(e, "fkm clusters the rows of a 2-D tensor");
    }
    fkm_fail(e, FKM_EDATA, "%s: has %d 2-D tensors: %s", c->path, c->matches, c->list);
    return fkm_hint(e, "choose one with --dataset NAME");
}

/* ---- opening ---- */

static fkm_status check_tensor(
    const tensor *t, const char *path, const fkm_format_options *o, fkm_err *e)
{
    char safe[80];
    int64_t bytes;
    fkm_printable(safe, sizeof safe, t->name);
    if (t->ndim != 2) {
        fkm_fail(e, FKM_EDATA, "%s: tensor '%s' is %d-D, expected 2-D: rows x dimensions", path,
            safe, t->ndim);
        return hint_reshape(t, e);
    }
    if (t->dtype == FKM_DTYPE_NONE) {
        fkm_fail(
            e, FKM_EDATA, "%s: tensor '%s' holds %s, which fkm does not read", path, safe, t->type);
        return fkm_hint(e, "it reads F64 F32 F16 BF16, integers and BOOL; convert before saving");
    }
    FKM_TRY(fkm_check_wanted(path, t->dtype, o->dtype, e));
    FKM_TRY(fkm_rows_bytes(&bytes, path, t->rows, t->dims, t->dtype, o, e));
    if (t->end - t->begin == bytes)
        return FKM_OK;
    fkm_fail(e, FKM_EDATA, "%s: tensor '%s' is %lld x %lld %s (%lld bytes), its offsets span %lld",
        path, safe, (long long)t->rows, (long long)t->dims, t->type, (long long)bytes,
        (long long)(t->end - t->begin));
    return fkm_hint(e, "the file is damaged or was not written by safetensors");
}

static fkm_status check_end(const safetensors *s, const choice *c, int64_t data, fkm_file *f,
    const fkm_format_options *o, fkm_err *e)
{
    const int64_t bytes = fkm_file_bytes(f), there = fkm_max_i64(0, bytes - s->data.offset);
    const int64_t row_bytes = s->data.dims * (int64_t)fkm_dtype_size(s->data.dtype);
    const int64_t whole = fkm_min_i64(c->picked.rows, there / row_bytes);
    if (bytes - data == c->end || (o->partial && o->rows_end <= whole))
        return FKM_OK;
    fkm_fail(e, FKM_EDATA, "%s: its tensors end at byte %lld, the file at byte %lld",
        fkm_file_path(f), (long long)(data + c->end), (long long)bytes);
    return fkm_hint_rows(e, whole, "the file may be truncated, or something was appended to it");
}

static fkm_status open_safetensors(
    void *priv, fkm_file *f, const fkm_format_options *o, fkm_shape *shape, fkm_err *e)
{
    safetensors *s = priv;
    fkm_status st = FKM_OK;
    choice c = {.path = fkm_file_path(f), .wanted = o->dataset};
    const tensor *t = &c.picked;
    int64_t begin = 0, data = 0;
    FKM_GO(find_table(&begin, &data, f, e));
    FKM_GO(pick(&c, f, begin, data, e));
    FKM_GO(check_tensor(t, c.path, o, e));
    s->data = (fkm_dense){.offset = data + t->begin, .dims = (int32_t)t->dims, .dtype = t->dtype};
    FKM_GO(check_end(s, &c, data, f, o, e));
    s->name = c.name;
    c.name = NULL;
    *shape = (fkm_shape){.batch = 1,
        .rows = t->rows,
        .dims = (int32_t)t->dims,
        .ndim = 2,
        .dtype = t->dtype,
        .row_bytes = t->dims * (int64_t)fkm_dtype_size(t->dtype)};
out:
    fkm_free(c.name);
    fkm_free(c.larger_name);
    return st;
}

static fkm_status read_safetensors(
    void *priv, fkm_file *f, int64_t row0, int64_t count, void *dst, void *scratch, fkm_err *e)
{
    const safetensors *s = priv;
    return fkm_dense_read(&s->data, f, row0, count, dst, scratch, e);
}

static int64_t offset_in_safetensors(const void *priv, int64_t row)
{
    const safetensors *s = priv;
    return fkm_dense_offset(&s->data, row);
}

static const char *dataset(const void *priv)
{
    const safetensors *s = priv;
    return s->name;
}

static void close_safetensors(void *priv)
{
    safetensors *s = priv;
    fkm_free(s->name);
}

const fkm_format fkm_format_safetensors = {
    .name = "safetensors",
    .suffixes = ".safetensors",
    .about = "named tensors; a 2-D one, by --dataset if there are several",
    .priv_size = sizeof(safetensors),
    .probe = probe_safetensors,
    .open = open_safetensors,
    .read = read_safetensors,
    .offset = offset_in_safetensors,
    .dataset = dataset,
    .close = close_safetensors,
};
