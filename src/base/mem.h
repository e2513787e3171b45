/* Heap memory: cache-line aligned, sizes checked, failures named. */
#ifndef FKM_MEM_H
#define FKM_MEM_H

#include "status.h"
#include <stddef.h>
#include <stdint.h>

/* *out = a 64-byte aligned array of count * size bytes, not zeroed (never NULL on success, even for
 * no bytes). `what` names it in the message: "no memory for <what>: 12.0 GiB". FKM_ENOMEM.
 * Free with fkm_free. */
fkm_status fkm_alloc(
    void *out, int64_t count, size_t size, const char *what, fkm_err *e) FKM_MUST_USE;

/* The same, zeroed. */
fkm_status fkm_calloc(
    void *out, int64_t count, size_t size, const char *what, fkm_err *e) FKM_MUST_USE;

/* *out = a heap copy of text, FKM_ENOMEM. Free with fkm_free. */
fkm_status fkm_strdup(char **out, const char *text, fkm_err *e) FKM_MUST_USE;

/* *out = formatted text on the heap, FKM_ENOMEM. Free with fkm_free. */
fkm_status fkm_asprintf(char **out, fkm_err *e, const char *fmt, ...) FKM_PRINTF(3, 4) FKM_MUST_USE;

/* NULL is fine. */
void fkm_free(void *p);

/* "1.5 GiB": writes at most cap bytes into out and returns out. */
const char *fkm_bytes_text(char *out, size_t cap, int64_t bytes);

#endif
