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
    FKM_I32, /* files only: must be exact in float32 */
} fkm_dtype;

/* Bytes of one element; 0 for NONE. */
static inline size_t fkm_dtype_size(fkm_dtype t)
{
    /* In the order of the enum: C++ takes this header too, and has no designators for arrays. */
    static const unsigned char size[] = {0, 4, 8, 2, 2, 1, 1, 4};
    return (size_t)t < sizeof size ? size[t] : 0;
}

const char *fkm_dtype_name(fkm_dtype t);     /* "float32", "bfloat16", "uint8" ... */
fkm_dtype fkm_dtype_parse(const char *name); /* also "f32" "bf16" "u8" ...; NONE when unknown */

/* The type that rows of such a file have in memory: f64 and i32 arrive as f32, others as they are.
 */
fkm_dtype fkm_dtype_in_memory(fkm_dtype file);

/* One element as float32, exactly. t is an in-memory type. For seeds, messages and references; the
 * hot paths have their own conversions. */
float fkm_dtype_to_float(fkm_dtype t, const void *element);

#endif
