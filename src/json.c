/* JSON output over cJSON: see json.h. */
#include "json.h"

#include "base/mem.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Bytes of the valid UTF-8 sequence at s, or 0. Overlong forms, surrogates and values above
 * U+10FFFF are not valid. */
static size_t utf8_length(const unsigned char *s)
{
    if (s[0] < 0x80)
        return 1;
    size_t len = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    bool overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    bool outside = (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf4 && s[1] > 0x8f);
    return overlong || outside ? 0 : len;
}

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
        size_t len = utf8_length((const unsigned char *)text);
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

/* Prints and frees a value. */
static void put_value(fkm_json *j, cJSON *value)
{
    char *text = value ? cJSON_PrintUnformatted(value) : NULL;
    if (text)
        put(j, text);
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
