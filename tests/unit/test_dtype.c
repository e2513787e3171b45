/* Element types: names, sizes, and every 16-bit and 8-bit value as float32. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../src/base/dtype.h"

#include <math.h>
#include <string.h>

static const struct {
    fkm_dtype type, in_memory;
    size_t size;
    const char *name, *alias;
} expected[] = {
    {FKM_F32, FKM_F32, 4, "float32", "f32"},
    {FKM_F64, FKM_F32, 8, "float64", "f64"},
    {FKM_F16, FKM_F16, 2, "float16", "f16"},
    {FKM_BF16, FKM_BF16, 2, "bfloat16", "bf16"},
    {FKM_U8, FKM_U8, 1, "uint8", "u8"},
    {FKM_I8, FKM_I8, 1, "int8", "i8"},
    {FKM_U16, FKM_F32, 2, "uint16", "u16"},
    {FKM_I16, FKM_F32, 2, "int16", "i16"},
    {FKM_U32, FKM_F32, 4, "uint32", "u32"},
    {FKM_I32, FKM_F32, 4, "int32", "i32"},
    {FKM_U64, FKM_F32, 8, "uint64", "u64"},
    {FKM_I64, FKM_F32, 8, "int64", "i64"},
    {FKM_BOOL, FKM_U8, 1, "bool", "b1"},
};

static void names_and_sizes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        assert_int_equal(fkm_dtype_size(expected[i].type), expected[i].size);
        assert_string_equal(fkm_dtype_name(expected[i].type), expected[i].name);
        assert_int_equal(fkm_dtype_parse(expected[i].name), expected[i].type);
        assert_int_equal(fkm_dtype_parse(expected[i].alias), expected[i].type);
        assert_int_equal(fkm_dtype_in_memory(expected[i].type), expected[i].in_memory);
    }
    assert_int_equal(fkm_dtype_size(FKM_DTYPE_NONE), 0);
    assert_string_equal(fkm_dtype_name(FKM_DTYPE_NONE), "unknown");
    static const char *const unknown[] = {"", "float", "f33", "F32", "float32 ", "unknown", "u24"};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++)
        assert_int_equal(fkm_dtype_parse(unknown[i]), FKM_DTYPE_NONE);
}

static double half_value(unsigned h)
{
    int exponent = (int)(h >> 10 & 31), mantissa = (int)(h & 1023);
    double v = exponent == 0 ? ldexp(mantissa, -24) : ldexp(1024 + mantissa, exponent - 25);
    if (exponent == 31)
        v = mantissa ? (double)NAN : (double)INFINITY;
    return h & 0x8000 ? -v : v;
}

static void every_float16(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 65536; h++) {
        uint16_t bits = (uint16_t)h;
        float f = fkm_dtype_to_float(FKM_F16, &bits);
        double want = half_value(h);
        if (isnan(want)) {
            assert_true(isnan(f));
            continue;
        }
        assert_true((double)f == want);
        assert_int_equal(!!signbit(f), h >> 15);
    }
}

static void every_bfloat16(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 65536; h++) {
        uint16_t bits = (uint16_t)h;
        float f = fkm_dtype_to_float(FKM_BF16, &bits);
        uint32_t got;
        memcpy(&got, &f, 4);
        if (isnan(f)) {
            assert_true((h & 0x7f80) == 0x7f80 && (h & 0x7f) != 0);
            continue;
        }
        assert_int_equal(got, h << 16);
    }
}

static void bytes_and_floats(void **state)
{
    (void)state;
    for (int v = 0; v < 256; v++) {
        uint8_t u = (uint8_t)v;
        int8_t i = (int8_t)(v - 128);
        assert_true(fkm_dtype_to_float(FKM_U8, &u) == (float)v);
        assert_true(fkm_dtype_to_float(FKM_I8, &i) == (float)(v - 128));
    }
    unsigned char raw[5] = {0};
    float f = -1.2345678e-39f; /* a subnormal, at an odd address */
    memcpy(raw + 1, &f, 4);
    assert_true(fkm_dtype_to_float(FKM_F32, raw + 1) == f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_sizes),
        cmocka_unit_test(every_float16),
        cmocka_unit_test(every_bfloat16),
        cmocka_unit_test(bytes_and_floats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
