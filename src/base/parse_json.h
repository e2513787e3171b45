/* Reading JSON: cJSON's parser, which by itself does not tell bad text from lack of memory. */
#ifndef FKM_PARSE_JSON_H
#define FKM_PARSE_JSON_H

#include "status.h"
#include <cjson/cJSON.h>
#include <stddef.h>

/* *out = the value that text[0..len) holds, NULL when it is not JSON. cJSON_Delete. FKM_ENOMEM. */
fkm_status fkm_json_parse(cJSON **out, const char *text, size_t len, fkm_err *e) FKM_MUST_USE;

#endif
