/* JSON output over cJSON, with numbers as they are.
 *
 * cJSON prints doubles with 15 digits and mangles integers above 2^53, so numbers go in as raw
 * text:
 * %.17g and PRId64. Values that JSON does not know (NaN, infinity) and unknown ones become null;
 * bytes that are not UTF-8 become U+FFFD. File names may be anything: those have functions of their
 * own, which add the very bytes. No control character is in the text, but in strings as \u007f.
 *
 * A document is one object, written field by field, so that a list of a million iterations never
 * exists in memory. The first failure latches; everything after it is a no-op that frees what it is
 * given; fkm_json_end tells. */
#ifndef FKM_JSON_H
#define FKM_JSON_H

#include "base/status.h"
#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where text goes: a file, stdout, a buffer. */
typedef fkm_status (*fkm_text_sink)(void *arg, const char *text, size_t len, fkm_err *e);

typedef struct fkm_json {
    fkm_text_sink sink;
    void *arg;
    fkm_status st;
    fkm_err *e;
    bool more;       /* a field has been written */
    bool more_items; /* of the open list */
} fkm_json;

/* Opens the document. The error goes to *e whenever it happens. */
void fkm_json_begin(fkm_json *j, fkm_text_sink sink, void *arg, fkm_err *e);

/* One field on a line of its own; takes the value (NULL: out of memory). */
void fkm_json_field(fkm_json *j, const char *name, cJSON *value);

/* A name of a file or of what is in one; when that is not UTF-8, also a field "NAME_encoded" with
 * all its bytes, as in a URL (fkm_percent_encode). NULL: null. */
void fkm_json_field_name(fkm_json *j, const char *name, const char *text);
void fkm_json_add_name(fkm_json *j, cJSON *object, const char *name, const char *text);

/* A field that is a list, one item a line. Each item is taken. */
void fkm_json_list_begin(fkm_json *j, const char *name);
void fkm_json_list_item(fkm_json *j, cJSON *value);
void fkm_json_list_end(fkm_json *j);

/* Closes the document; the status of all of it. */
fkm_status fkm_json_end(fkm_json *j) FKM_MUST_USE;

/* ---- values; NULL when there is no memory ---- */

cJSON *fkm_json_text(const char *text); /* NULL: null */
cJSON *fkm_json_i64(int64_t value);
cJSON *fkm_json_u64(uint64_t value);
cJSON *fkm_json_real(double value);

/* Adds to an object and takes the value; object and value may be NULL (latched). */
void fkm_json_add(fkm_json *j, cJSON *object, const char *name, cJSON *value);

#endif
