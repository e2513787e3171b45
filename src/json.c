/* JSON output over cJSON: see json.h. */
#include "json.h"

#include "base/mem.h"
#include "base/text.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

cJSON *fkm_json_text(const char *text)
{
    static const char replacement[] = "\xef\xbf\xbd";
    if (!text)
        return cJSON_CreateNull();
    fkm_err e = {0};
    char *clean = NULL;
    if (fkm_calloc(&clean, 3 * (int64_t)strlen(text) + 1, 1, "a text", &e) != FKM_OK)
        return NULL;
    size_t used = 0;
    while (*text) {
        size_t len = fkm_utf8_length(text);
        memcpy(clean + used, len ? text : replacement, len ? len : 3);
        used += len ? len : 3;
        text += len ? len : 1;
    }
    cJSON *value = cJSON_CreateString(clean);
    fkm_free(clean);
    return value;
}

cJSON *fkm_json_i64(int64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%" PRId64, value);
    return cJSON_CreateRaw(text);
}

cJSON *fkm_json_u64(uint64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%" PRIu64, value);
    return cJSON_CreateRaw(text);
}

cJSON *fkm_json_real(double value)
{
    char text[40];
    if (!isfinite(value))
        return cJSON_CreateNull();
    snprintf(text, sizeof text, "%.17g", value);
    return cJSON_CreateRaw(text);
}

static void latch_no_memory(fkm_json *j)
{
    if (j->st == FKM_OK)
        j->st = fkm_fail(j->e, FKM_ENOMEM, "no memory for the statistics");
}

void fkm_json_add(fkm_json *j, cJSON *object, const char *name, cJSON *value)
{
    if (object && value && cJSON_AddItemToObject(object, name, value))
        return;
    cJSON_Delete(value);
    latch_no_memory(j);
}

static void put(fkm_json *j, const char *text)
{
    if (j->st == FKM_OK)
        j->st = j->sink(j->arg, text, strlen(text), j->e);
}

/* Valid UTF-8, with characters that must not be shown escaped: cJSON leaves all but C0 as it is. In
 * JSON they can only be within strings. */
static void put_shown(fkm_json *j, char *text)
{
    char escape[16], *from = text;
    while (*text) {
        size_t shown = fkm_shown_length(text), len = fkm_utf8_length(text);
        if (shown || len == 0) {
            text += shown ? shown : 1;
            continue;
        }
        snprintf(escape, sizeof escape, "\\u%04" PRIx32, fkm_utf8_decode(text));
        *text = '\0';
        put(j, from);
        put(j, escape);
        from = text += len;
    }
    put(j, from);
}

/* Prints and frees a value. */
static void put_value(fkm_json *j, cJSON *value)
{
    char *text = value ? cJSON_PrintUnformatted(value) : NULL;
    if (text)
        put_shown(j, text);
    else
        latch_no_memory(j);
    cJSON_free(text);
    cJSON_Delete(value);
}

static void put_name(fkm_json *j, const char *name)
{
    put(j, j->more ? ",\n  \"" : "\n  \"");
    put(j, name);
    put(j, "\": ");
    j->more = true;
}

/* "path" -> "path_encoded". */
static const char *encoded_name(char out[64], const char *name)
{
    snprintf(out, 64, "%s_encoded", name);
    return out;
}

/* NULL when there is no memory. */
static cJSON *encoded(const char *text)
{
    fkm_err e = {0};
    char *code = NULL;
    if (fkm_alloc(&code, 3 * (int64_t)strlen(text) + 1, 1, "a name", &e) != FKM_OK)
        return NULL;
    fkm_percent_encode(code, text);
    cJSON *value = cJSON_CreateString(code);
    fkm_free(code);
    return value;
}

void fkm_json_add_name(fkm_json *j, cJSON *object, const char *name, const char *text)
{
    char code[64];
    fkm_json_add(j, object, name, fkm_json_text(text));
    if (text && !fkm_is_utf8(text))
        fkm_json_add(j, object, encoded_name(code, name), encoded(text));
}

void fkm_json_begin(fkm_json *j, fkm_text_sink sink, void *arg, fkm_err *e)
{
    *j = (fkm_json){sink, arg, FKM_OK, e, false, false};
    put(j, "{");
}

void fkm_json_field(fkm_json *j, const char *name, cJSON *value)
{
    put_name(j, name);
    put_value(j, value);
}

void fkm_json_field_name(fkm_json *j, const char *name, const char *text)
{
    char code[64];
    fkm_json_field(j, name, fkm_json_text(text));
    if (text && !fkm_is_utf8(text))
        fkm_json_field(j, encoded_name(code, name), encoded(text));
}

void fkm_json_list_begin(fkm_json *j, const char *name)
{
    put_name(j, name);
    put(j, "[");
    j->more_items = false;
}

void fkm_json_list_item(fkm_json *j, cJSON *value)
{
    put(j, j->more_items ? ",\n    " : "\n    ");
    j->more_items = true;
    put_value(j, value);
}

void fkm_json_list_end(fkm_json *j)
{
    put(j, j->more_items ? "\n  ]" : "]");
}

fkm_status fkm_json_end(fkm_json *j)
{
    put(j, "\n}\n");
    return j->st;
}
