/* Reading JSON: see parse_json.h. */
#include "parse_json.h"

#include "checked.h"
#include "mem.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES (64 << 10)

/* ---- trees: cJSON by itself does not tell bad text from lack of memory ---- */

static _Thread_local bool out_of_memory;

static void *allocate(size_t size)
{
    void *p = malloc(size);
    out_of_memory = out_of_memory || !p;
    return p;
}

static void install(void)
{
    cJSON_Hooks hooks = {allocate, free};
    cJSON_InitHooks(&hooks);
}

/* *out = the value that text[0..len) holds and nothing else, NULL when it is not JSON.
 * cJSON_Delete. */
static fkm_status parse(cJSON **out, const char *text, size_t len, fkm_err *e)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    const char *end = NULL;
    pthread_once(&once, install);
    out_of_memory = false;
    cJSON *value = cJSON_ParseWithLengthOpts(text, len, &end, false);
    if (!value && out_of_memory)
        return fkm_fail(e, FKM_ENOMEM, "no memory for JSON: %zu bytes of text", len);
    if (value && end != text + len) {
        cJSON_Delete(value);
        value = NULL;
    }
    *out = value;
    return FKM_OK;
}

/* ---- text ---- */

/* The text from a place on, and a token of it that is kept. */
typedef struct stream {
    fkm_file *file;
    int64_t at, end; /* the next byte to read, the end of the text */
    size_t next, have;
    char *block; /* [BLOCK_BYTES], [next, have) is to come */
    char *kept;  /* [FKM_JSON_MOST_BYTES] */
    size_t kept_len;
    fkm_status st; /* of reading; latched */
    fkm_err *e;
} stream;

static fkm_status not_json(const stream *s)
{
    if (s->st != FKM_OK)
        return s->st;
    return fkm_fail(s->e, FKM_EDATA, "not a JSON object (byte %lld)",
        (long long)(s->at - (int64_t)(s->have - s->next)));
}

/* The next byte, which stays; -1 at the end, or when it cannot be read. */
static inline int peek(stream *s)
{
    if (s->next < s->have)
        return (unsigned char)s->block[s->next];
    size_t len = (size_t)fkm_min_i64(BLOCK_BYTES, s->end - s->at);
    if (len == 0 || s->st != FKM_OK)
        return -1;
    s->st = fkm_file_read(s->file, s->at, s->block, len, s->e);
    if (s->st != FKM_OK)
        return -1;
    s->at += (int64_t)len;
    s->next = 0;
    s->have = len;
    return (unsigned char)s->block[0];
}

static int skip_space(stream *s)
{
    int c;
    while ((c = peek(s)) == ' ' || c == '\n' || c == '\r' || c == '\t')
        s->next++;
    return c;
}

static bool skip_char(stream *s, int wanted)
{
    bool found = skip_space(s) == wanted;
    s->next += found;
    return found;
}

/* Goes on by one byte, which is kept if `keep`; false: it is too long to be kept. */
static inline bool advance(stream *s, bool keep)
{
    if (keep) {
        if (s->kept_len == (size_t)FKM_JSON_MOST_BYTES)
            return false;
        s->kept[s->kept_len++] = s->block[s->next];
    }
    s->next++;
    return true;
}

/* Over a string; false: it does not end, or is too long. */
static bool scan_string(stream *s, bool keep)
{
    int c = peek(s);
    if (c != '"' || !advance(s, keep))
        return false;
    while ((c = peek(s)) >= 0 && c != '"') {
        if (!advance(s, keep))
            return false;
        if (c == '\\' && (peek(s) < 0 || !advance(s, keep)))
            return false;
    }
    return c == '"' && advance(s, keep);
}

static bool ends_scalar(int c)
{
    return c < 0 || c == ',' || c == '}' || c == ']' || c == ' ' || c == '\n' || c == '\r' ||
           c == '\t';
}

/* Over a value; of its insides only strings and brackets are looked at. */
static bool scan_value(stream *s, bool keep)
{
    int64_t depth = 0;
    do {
        int c = peek(s);
        if (c < 0)
            return false;
        if (c == '"') {
            if (!scan_string(s, keep))
                return false;
        } else if (depth == 0 && c != '{' && c != '[') {
            if (ends_scalar(c))
                return false;
            while (!ends_scalar(peek(s)))
                if (!advance(s, keep))
                    return false;
        } else {
            depth += (c == '{' || c == '[') - (c == '}' || c == ']');
            if (!advance(s, keep))
                return false;
        }
    } while (depth > 0);
    return true;
}

/* ---- members ---- */

static fkm_status parse_kept(cJSON **out, stream *s)
{
    FKM_TRY(parse(out, s->kept, s->kept_len, s->e));
    return *out ? FKM_OK : not_json(s);
}

static fkm_status read_kept(cJSON **out, stream *s, bool (*scan)(stream *s, bool keep))
{
    s->kept_len = 0;
    if (scan(s, true))
        return parse_kept(out, s);
    if (s->kept_len < (size_t)FKM_JSON_MOST_BYTES)
        return not_json(s);
    return fkm_fail(s->e, FKM_EDATA, "a JSON value of more than %lld bytes before byte %lld",
        (long long)FKM_JSON_MOST_BYTES, (long long)(s->at - (int64_t)(s->have - s->next)));
}

static fkm_status read_member(stream *s, const fkm_json_visitor *v)
{
    cJSON *name = NULL, *value = NULL;
    bool wanted = false;
    (void)skip_space(s);
    fkm_status st = read_kept(&name, s, scan_string);
    if (st != FKM_OK)
        return st;
    int first = skip_char(s, ':') ? skip_space(s) : -1;
    if (first < 0) {
        st = not_json(s);
        goto out;
    }
    FKM_GO(v->judge(v->arg, name->valuestring, (char)first, &wanted, s->e));
    if (wanted) {
        FKM_GO(read_kept(&value, s, scan_value));
        FKM_GO(v->take(v->arg, name->valuestring, value, s->e));
    } else if (!scan_value(s, false)) {
        st = not_json(s);
    }
out:
    cJSON_Delete(value);
    cJSON_Delete(name);
    return st;
}

static fkm_status read_object(stream *s, const fkm_json_visitor *v)
{
    if (!skip_char(s, '{'))
        return not_json(s);
    if (!skip_char(s, '}')) {
        do {
            FKM_TRY(read_member(s, v));
        } while (skip_char(s, ','));
        if (!skip_char(s, '}'))
            return not_json(s);
    }
    return skip_space(s) < 0 && s->st == FKM_OK ? FKM_OK : not_json(s);
}

fkm_status fkm_json_members(
    fkm_file *f, int64_t begin, int64_t end, const fkm_json_visitor *v, fkm_err *e)
{
    stream s = {.file = f, .at = begin, .end = end, .e = e};
    fkm_status st = FKM_OK;
    FKM_GO(fkm_alloc(&s.block, BLOCK_BYTES, 1, "JSON", e));
    FKM_GO(fkm_alloc(&s.kept, FKM_JSON_MOST_BYTES, 1, "JSON", e));
    st = read_object(&s, v);
out:
    fkm_free(s.block);
    fkm_free(s.kept);
    return st;
}
