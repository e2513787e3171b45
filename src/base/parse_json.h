/* Reading a JSON object of any size, member by member. The text is read in pieces; values that
 * nobody wants are passed over, and only the others become a tree (of cJSON, which takes up to 40
 * times the memory of the text), one at a time. */
#ifndef FKM_PARSE_JSON_H
#define FKM_PARSE_JSON_H

#include "file.h"
#include "status.h"
#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

/* A name, or the text of a value that is wanted, may be as long as this: trees of at most 10 MiB.
 */
#define FKM_JSON_MOST_BYTES ((int64_t)256 << 10)

typedef struct fkm_json_visitor {
    void *arg;
    /* *wanted = whether take() gets the member's value, which begins with the character `first`.
     * What is not FKM_OK ends the reading. */
    fkm_status (*judge)(void *arg, const char *name, char first, bool *wanted, fkm_err *e);
    /* value: borrowed for the call. */
    fkm_status (*take)(void *arg, const char *name, const cJSON *value, fkm_err *e);
} fkm_json_visitor;

/* The object that bytes [begin, end) of the file hold, with white space around it. Of values that
 * are not wanted only strings and brackets are looked at. FKM_EDATA: "not a JSON object (byte
 * 17)", without the file's name and a hint, or what the visitor returns; FKM_EFILE, FKM_ENOMEM. */
fkm_status fkm_json_members(
    fkm_file *f, int64_t begin, int64_t end, const fkm_json_visitor *v, fkm_err *e) FKM_MUST_USE;

#endif
