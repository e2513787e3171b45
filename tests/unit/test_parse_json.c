/* JSON objects, member by member, from files. */
#include "../../src/base/parse_json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What the visitor has met, as "name=value;" of what it wants: names that begin with "w". */
static char met[4096];

static fkm_status judge(void *arg, const char *name, char first, bool *wanted, fkm_err *e)
{
    const char *refused = arg;
    *wanted = name[0] == 'w';
    if (refused && first == refused[0])
        return fkm_fail(e, FKM_EUSAGE, "refused");
    return FKM_OK;
}

static fkm_status take(void *arg, const char *name, const cJSON *value, fkm_err *e)
{
    (void)arg, (void)e;
    char *text = cJSON_PrintUnformatted(value);
    size_t used = strlen(met);
    snprintf(met + used, sizeof met - used, "%s=%s;", name, text);
    cJSON_free(text);
    return FKM_OK;
}

static fkm_status visit(const char *text, size_t len, const char *refused, fkm_err *e)
{
    fkm_file *f = NULL;
    FILE *out = fopen("object.json", "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(text, 1, len, out), len);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(fkm_file_open(&f, "object.json", e), FKM_OK);
    const fkm_json_visitor v = {(void *)(uintptr_t)refused, judge, take};
    met[0] = '\0';
    fkm_status st = fkm_json_members(f, 0, (int64_t)len, &v, e);
    fkm_file_close(f);
    return st;
}

static void test_members(void **state)
{
    (void)state;
    static const struct {
        const char *text, *met;
    } good[] = {
        {"{}", ""},
        {" { } \n", ""},
        {"{\"w\":1}", "w=1;"},
        {"{\"a\":[{}, \"]\", \"\\\"}\"], \"w\\u0041\" :\t{\"b\": [1,null]} , \"w2\":-2.5e3 }\n",
            "wA={\"b\":[1,null]};w2=-2500;"},
        {"{\"\":true,\"x\":null,\"w\":\"a\\\\\",\"w\":false}", "w=\"a\\\\\";w=false;"},
    };
    fkm_err e = {0};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(visit(good[i].text, strlen(good[i].text), NULL, &e), FKM_OK);
        assert_string_equal(met, good[i].met);
    }
    assert_int_equal(visit("{\"a\":[0]}", 9, "[", &e), FKM_EUSAGE);
}

static void test_not_json(void **state)
{
    (void)state;
    static const char *const bad[] = {" ", "[]", "{", "{\"w\"", "{\"w\":", "{\"w\":}", "{\"a\":}",
        "{\"w\":1", "{\"w\":1,}", "{\"w\":1 2}", "{\"w\":1}}", "{w:1}", "{\"w\":[1}", "{\"w\":[1]",
        "{\"a\":[1", "{\"a\":\"1}", "{\"a\\", "{\"w\":tru}", "{\"w\":01x}", "{\"a\":,\"b\":1}",
        "{\"w\\x\":1}", "{,}", "{\"w\":\"\\q\"}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        fkm_err e = {0};
        if (visit(bad[i], strlen(bad[i]), NULL, &e) != FKM_EDATA ||
            strncmp(e.msg, "not a JSON object (byte ", 24) != 0)
            fail_msg("%s: status %d, '%s'", bad[i], e.code, e.msg);
    }
}

/* Values that lie across the pieces in which the text is read, and one that is too long. */
static void test_long_text(void **state)
{
    (void)state;
    fkm_err e = {0};
    const size_t most = (size_t)FKM_JSON_MOST_BYTES, piece = 64 << 10;
    char *text = malloc(2 * most);
    for (size_t pad = piece - 12; pad < piece + 2; pad++) {
        int len =
            snprintf(text, 2 * most, "{\"a\":\"%0*d\",\"w\\n\":[1,{\"b\":\"\\\"\"}]}", (int)pad, 0);
        assert_int_equal(visit(text, (size_t)len, NULL, &e), FKM_OK);
        assert_string_equal(met, "w\n=[1,{\"b\":\"\\\"\"}];");
    }
    int len = snprintf(text, 2 * most, "{\"w\":[%0*d]}", (int)most, 0);
    assert_int_equal(visit(text, (size_t)len, NULL, &e), FKM_EDATA);
    assert_non_null(strstr(e.msg, "a JSON value of more than 262144 bytes"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_members),
        cmocka_unit_test(test_not_json),
        cmocka_unit_test(test_long_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
