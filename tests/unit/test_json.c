/* JSON: numbers keep their bits, odd names stay readable, failures latch. */
#include "../../src/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct text {
    char bytes[2000];
    size_t len;
    int calls_left; /* then the sink fails; < 0: never */
};

static fkm_status take(void *arg, const char *s, size_t len, fkm_err *e)
{
    struct text *t = arg;
    if (t->calls_left == 0)
        return fkm_fail(e, FKM_EFILE, "full");
    t->calls_left--;
    memcpy(t->bytes + t->len, s, len + 1);
    t->len += len;
    return FKM_OK;
}

static void check_value(cJSON *value, const char *expected)
{
    char *printed = cJSON_PrintUnformatted(value);
    assert_string_equal(printed, expected);
    cJSON_free(printed);
    cJSON_Delete(value);
}

static void test_values(void **state)
{
    (void)state;
    check_value(fkm_json_i64(INT64_MIN), "-9223372036854775808");
    check_value(fkm_json_i64((INT64_C(1) << 53) + 1), "9007199254740993");
    check_value(fkm_json_u64(UINT64_MAX), "18446744073709551615");
    check_value(fkm_json_real(0.1), "0.10000000000000001");
    check_value(fkm_json_real(5e-324), "4.9406564584124654e-324");
    check_value(fkm_json_real(1.0 / 0.0), "null");
    check_value(fkm_json_real(0.0 / 0.0), "null");
    check_value(fkm_json_text(NULL), "null");
}

static void test_texts(void **state)
{
    (void)state;
    check_value(fkm_json_text("a\"b\\c\n"), "\"a\\\"b\\\\c\\n\"");
    check_value(fkm_json_text("gr\xc3\xbc\xc3\x9f"), "\"gr\xc3\xbc\xc3\x9f\"");
    check_value(fkm_json_text("\xf0\x9f\x98\x80"), "\"\xf0\x9f\x98\x80\"");
    /* latin-1, a cut sequence, an overlong form, a surrogate, beyond U+10FFFF */
    check_value(fkm_json_text("gr\xfc"), "\"gr\xef\xbf\xbd\"");
    check_value(fkm_json_text("\xe2\x82"), "\"\xef\xbf\xbd\xef\xbf\xbd\"");
    check_value(fkm_json_text("\xc0\xaf"), "\"\xef\xbf\xbd\xef\xbf\xbd\"");
    check_value(fkm_json_text("\xed\xa0\x80"), "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
    check_value(
        fkm_json_text("\xf4\x90\x80\x80"), "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
}

static fkm_status write_document(struct text *t, fkm_err *e)
{
    fkm_json j;
    fkm_json_begin(&j, take, t, e);
    fkm_json_field(&j, "a", fkm_json_i64(1));
    fkm_json_list_begin(&j, "none");
    fkm_json_list_end(&j);
    fkm_json_list_begin(&j, "two");
    fkm_json_list_item(&j, fkm_json_i64(2));
    cJSON *o = cJSON_CreateObject();
    fkm_json_add(&j, o, "b", fkm_json_real(0.5));
    fkm_json_list_item(&j, o);
    fkm_json_list_end(&j);
    return fkm_json_end(&j);
}

static void test_document(void **state)
{
    (void)state;
    struct text t = {.calls_left = -1};
    fkm_err e = {0};
    assert_int_equal(write_document(&t, &e), FKM_OK);
    assert_string_equal(t.bytes, "{\n  \"a\": 1,\n  \"none\": [],\n  \"two\": [\n    2,\n"
                                 "    {\"b\":0.5}\n  ]\n}\n");
}

static void test_failures_latch(void **state)
{
    (void)state;
    int calls = 0;
    fkm_status st = FKM_EFILE;
    for (; st != FKM_OK; calls++) {
        struct text t = {.calls_left = calls};
        fkm_err e = {0};
        st = write_document(&t, &e);
        assert_true(st == FKM_OK || (st == FKM_EFILE && !strcmp(e.msg, "full")));
        assert_true(calls < 100);
    }
    assert_true(calls > 10);
}

static void test_no_memory_latches(void **state)
{
    (void)state;
    struct text t = {.calls_left = -1};
    fkm_err e = {0};
    fkm_json j;
    fkm_json_begin(&j, take, &t, &e);
    fkm_json_field(&j, "a", NULL); /* what a failed constructor hands over */
    fkm_json_field(&j, "b", fkm_json_i64(1));
    assert_int_equal(fkm_json_end(&j), FKM_ENOMEM);
    fkm_json_begin(&j, take, &t, &e);
    fkm_json_add(&j, NULL, "a", fkm_json_i64(1));
    assert_int_equal(fkm_json_end(&j), FKM_ENOMEM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_document),
        cmocka_unit_test(test_failures_latch),
        cmocka_unit_test(test_no_memory_latches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
