/* Element types: of files, and of rows in memory. */
#ifndef FKM_DTYPE_H
#define FKM_DTYPE_H

#include <stdbool.h>
#include <stddef.h>

typedef enum fkm_dtype {
    FKM_DTYPE_NONE = 0, /* "take it from the file" */
    FKM_F32,
    FKM_F64, /* files only: rounded to float32 when read */
    FKM_F16, /* IEEE binary16 */
    FKM_BF16,
    FKM_U8,
    FKM_I8,
    FKM_I32, /* files only, as all below: must be exact in float32 */
    FKM_U16,
    FKM_I16,
    FKM_U32,
    FKM_U64,
    FKM_I64,
    FKM_BOOL, /* one byte: 0 or 1 */
} fkm_dtype;

/* Bytes of one element; 0 for NONE. */
static inline size_t fkm_dtype_size(fkm_dtype t)
{
    switch (t) {
    case FKM_F64:
    case FKM_U64:
    case FKM_I64:
        return 8;
    case FKM_F32:
    case FKM_U32:
    case FKM_I32:
        return 4;
    case FKM_F16:
    case FKM_BF16:
    case FKM_U16:
    case FKM_I16:
        return 2;
    case FKM_U8:
    case FKM_I8:
    case FKM_BOOL:
        return 1;
    case FKM_DTYPE_NONE:
        break;
    }
    return 0;
}

const char *fkm_dtype_name(fkm_dtype t);     /* "float32", "bfloat16", "uint8" ... */
fkm_dtype fkm_dtype_parse(const char *name); /* also "f32" "bf16" "u8" ...; NONE when unknown */

/* The type that rows of such a file have in memory: float64 and integers of more than 8 bits arrive
 * as float32, bool as uint8, others as they are. */
fkm_dtype fkm_dtype_in_memory(fkm_dtype file);

/* One element as float32, exactly. t is an in-memory type. For seeds, messages and references; the
 * hot paths have their own conversions. */
float fkm_dtype_to_float(fkm_dtype t, const void *element);

#endif
