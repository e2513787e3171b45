/* Reading JSON: see parse_json.h. */
#include "parse_json.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

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

fkm_status fkm_json_parse(cJSON **out, const char *text, size_t len, fkm_err *e)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install);
    out_of_memory = false;
    cJSON *value = cJSON_ParseWithLength(text, len);
    if (!value && out_of_memory)
        return fkm_fail(e, FKM_ENOMEM, "no memory for JSON: %zu bytes of text", len);
    *out = value;
    return FKM_OK;
}
