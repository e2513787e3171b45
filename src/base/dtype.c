/* Element types: see dtype.h. */
#include "dtype.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

static const struct {
    fkm_dtype type;
    const char *name, *alias;
} table[] = {
    {FKM_F32, "float32", "f32"},
    {FKM_F64, "float64", "f64"},
    {FKM_F16, "float16", "f16"},
    {FKM_BF16, "bfloat16", "bf16"},
    {FKM_U8, "uint8", "u8"},
    {FKM_I8, "int8", "i8"},
    {FKM_U16, "uint16", "u16"},
    {FKM_I16, "int16", "i16"},
    {FKM_U32, "uint32", "u32"},
    {FKM_I32, "int32", "i32"},
    {FKM_U64, "uint64", "u64"},
    {FKM_I64, "int64", "i64"},
    {FKM_BOOL, "bool", "b1"},
};
#define TABLE_ROWS (sizeof table / sizeof table[0])

const char *fkm_dtype_name(fkm_dtype t)
{
    for (size_t i = 0; i < TABLE_ROWS; i++)
        if (table[i].type == t)
            return table[i].name;
    return "unknown";
}

fkm_dtype fkm_dtype_parse(const char *name)
{
    for (size_t i = 0; i < TABLE_ROWS; i++)
        if (!strcmp(name, table[i].name) || !strcmp(name, table[i].alias))
            return table[i].type;
    return FKM_DTYPE_NONE;
}

fkm_dtype fkm_dtype_in_memory(fkm_dtype file)
{
    switch (file) {
    case FKM_F64:
    case FKM_U16:
    case FKM_I16:
    case FKM_U32:
    case FKM_I32:
    case FKM_U64:
    case FKM_I64:
        return FKM_F32;
    case FKM_BOOL:
        return FKM_U8;
    case FKM_F32:
    case FKM_F16:
    case FKM_BF16:
    case FKM_U8:
    case FKM_I8:
    case FKM_DTYPE_NONE:
        break;
    }
    return file;
}

static float from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static float from_half(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 31, mantissa = h & 0x3ff;
    if (exponent == 31) /* infinity, NaN */
        return from_bits(sign | 0x7f800000 | mantissa << 13);
    if (exponent == 0) { /* zero, subnormal: mantissa * 2^-24 */
        float f = ldexpf((float)mantissa, -24);
        return sign ? -f : f;
    }
    return from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

float fkm_dtype_to_float(fkm_dtype t, const void *element)
{
    uint16_t half;
    float f = 0;
    switch (t) {
    case FKM_F32:
        memcpy(&f, element, 4);
        return f;
    case FKM_F16:
        memcpy(&half, element, 2);
        return from_half(half);
    case FKM_BF16:
        memcpy(&half, element, 2);
        return from_bits((uint32_t)half << 16);
    case FKM_U8:
        return *(const uint8_t *)element;
    case FKM_I8:
        return *(const int8_t *)element;
    case FKM_F64:
    case FKM_U16:
    case FKM_I16:
    case FKM_U32:
    case FKM_I32:
    case FKM_U64:
    case FKM_I64:
    case FKM_BOOL:
    case FKM_DTYPE_NONE:
        break;
    }
    return f;
}
