/* Text from outside: what may be shown, what is escaped, names in percent code. */
#include "../../src/base/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void check_escape(const char *text, const char *expected)
{
    char out[200], again[200];
    assert_string_equal(fkm_text_escape(out, sizeof out, text), expected);
    assert_string_equal(fkm_text_escape(again, sizeof again, out), expected);
}

static void test_escape(void **state)
{
    (void)state;
    check_escape("", "");
    check_escape("plain text, a\\b ~", "plain text, a\\b ~");
    check_escape("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80",
        "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80");
    check_escape("\x1b[31m\a\n\t\r\x7f", "\\x1b[31m\\x07\\x0a\\x09\\x0d\\x7f");
    check_escape(
        "\xc2\x80\xc2\x9b\xc2\x9f\xc2\xa0", "\\xc2\\x80\\xc2\\x9b\\xc2\\x9f\xc2\xa0"); /* C1 */
    check_escape("\x9b\xe9", "\\x9b\\xe9"); /* not UTF-8 */
    check_escape(
        "\xe2\x80\xae\xe2\x81\xa6\xe2\x80\xa8", "\\xe2\\x80\\xae\\xe2\\x81\\xa6\\xe2\\x80\\xa8");
    check_escape("\xe2\x82", "\\xe2\\x82");                            /* cut */
    check_escape("\xc0\xaf\xed\xa0\x80", "\\xc0\\xaf\\xed\\xa0\\x80"); /* no characters */
}

/* Every byte, and every pair of a lead byte and another one: nothing gets through. */
static void test_all_bytes(void **state)
{
    (void)state;
    for (int a = 1; a < 256; a++)
        for (int b = 0; b < 256; b++) {
            const char text[3] = {(char)a, (char)b, 0};
            char out[16];
            fkm_text_escape(out, sizeof out, text);
            for (const char *s = out; *s; s += fkm_utf8_length(s)) {
                assert_true(fkm_utf8_length(s) > 0);
                uint32_t c = fkm_utf8_decode(s);
                assert_true(c >= 0x20 && (c < 0x7f || c > 0x9f));
            }
        }
}

/* However little room there is: an end, and no half of anything. */
static void test_room(void **state)
{
    (void)state;
    static const char text[] = "ab\x1b\xe2\x82\xac"
                               "c\n";
    for (size_t cap = 1; cap < 20; cap++) {
        char out[20];
        memset(out, 'X', sizeof out);
        fkm_text_escape(out, cap, text);
        assert_true(strlen(out) < cap);
        if (cap >= 15)
            assert_string_equal(out, "ab\\x1b\xe2\x82\xac"
                                     "c\\x0a");
        else if (cap >= 4)
            assert_string_equal(out + strlen(out) - 3, "...");
        for (const char *s = out; *s; s += fkm_utf8_length(s))
            assert_true(fkm_utf8_length(s) > 0);
    }
}

static void test_percent(void **state)
{
    (void)state;
    char code[800], back[800], all[256];
    for (int i = 1; i < 256; i++)
        all[i - 1] = (char)i;
    all[255] = '\0';
    fkm_percent_encode(code, all);
    assert_true(fkm_percent_decode(back, code));
    assert_string_equal(back, all);
    fkm_percent_encode(code, "a/b-c_d.e~f %\xe9");
    assert_string_equal(code, "a/b-c_d.e~f%20%25%E9");
    static const char *const bad[] = {"%", "%4", "%G0", "%0G", "a%00b", "%%41"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(fkm_percent_decode(back, bad[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_escape),
        cmocka_unit_test(test_all_bytes),
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_percent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
