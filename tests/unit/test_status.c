/* Errors: message, hint, context, exit codes, forwarding. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../src/base/status.h"

#include <string.h>

static void message_hint_context(void **state)
{
    (void)state;
    fkm_err e = {0};
    assert_int_equal(fkm_fail(&e, FKM_EDATA, "row %d starts with dimension %d", 12, 64), FKM_EDATA);
    assert_int_equal(e.code, FKM_EDATA);
    assert_string_equal(e.msg, "row 12 starts with dimension 64");
    assert_string_equal(e.hint, "");
    assert_int_equal(fkm_hint(&e, "look at %s", "it"), FKM_EDATA);
    assert_string_equal(e.hint, "look at it");
    assert_int_equal(fkm_wrap(&e, "%s", "data.fvecs"), FKM_EDATA);
    assert_int_equal(fkm_wrap(&e, "fit %d%%", 7), FKM_EDATA);
    assert_string_equal(e.msg, "fit 7%: data.fvecs: row 12 starts with dimension 64");
    assert_string_equal(e.hint, "look at it");
    assert_int_equal(fkm_fail(&e, FKM_EFILE, "another"), FKM_EFILE);
    assert_string_equal(e.msg, "another");
    assert_string_equal(e.hint, "");
}

static void long_text_is_cut_not_overrun(void **state)
{
    (void)state;
    static char text[5000];
    memset(text, 'x', sizeof text - 1);
    struct {
        fkm_err e;
        char guard[64];
    } s;
    memset(&s, 0, sizeof s);
    memset(s.guard, 0x5a, sizeof s.guard);
    fkm_fail(&s.e, FKM_EBUG, "%s", text);
    assert_int_equal(strlen(s.e.msg), sizeof s.e.msg - 1);
    fkm_hint(&s.e, "%s", text);
    assert_int_equal(strlen(s.e.hint), sizeof s.e.hint - 1);
    fkm_wrap(&s.e, "context");
    assert_int_equal(strlen(s.e.msg), sizeof s.e.msg - 1);
    assert_memory_equal(s.e.msg, "context: xxx", 12);
    fkm_wrap(&s.e, "%s", text);
    assert_int_equal(strlen(s.e.msg), sizeof s.e.msg - 1);
    fkm_fail(&s.e, FKM_EBUG, "short");
    fkm_hint(&s.e, "a hint");
    text[sizeof s.e.msg + 5] = '\0'; /* a context that is just too long must not reach the hint */
    fkm_wrap(&s.e, "%s", text);
    assert_int_equal(strlen(s.e.msg), sizeof s.e.msg - 1);
    assert_string_equal(s.e.hint, "a hint");
    for (size_t i = 0; i < sizeof s.guard; i++)
        assert_int_equal(s.guard[i], 0x5a);
}

static void exit_codes_are_those_of_the_manual(void **state)
{
    (void)state;
    assert_int_equal(fkm_exit_code(FKM_OK), 0);
    assert_int_equal(fkm_exit_code(FKM_EBUG), 1);
    assert_int_equal(fkm_exit_code(FKM_EUSAGE), 2);
    assert_int_equal(fkm_exit_code(FKM_EDATA), 3);
    assert_int_equal(fkm_exit_code(FKM_EFILE), 4);
    assert_int_equal(fkm_exit_code(FKM_ENOMEM), 5);
    assert_int_equal(fkm_exit_code(FKM_EDEVICE), 6);
    assert_int_equal(fkm_exit_code(FKM_ESTOPPED), 75);
}

static fkm_status forward(fkm_status s, int *reached)
{
    FKM_TRY(s);
    *reached = 1;
    return FKM_OK;
}

static fkm_status forward_to_out(fkm_status s, int *reached)
{
    fkm_status st = FKM_OK;
    FKM_GO(s);
    *reached = 1;
out:
    return st;
}

static void macros_forward(void **state)
{
    (void)state;
    int reached = 0;
    assert_int_equal(forward(FKM_EFILE, &reached), FKM_EFILE);
    assert_int_equal(forward_to_out(FKM_ENOMEM, &reached), FKM_ENOMEM);
    assert_int_equal(reached, 0);
    assert_int_equal(forward(FKM_OK, &reached), FKM_OK);
    assert_int_equal(reached, 1);
    reached = 0;
    assert_int_equal(forward_to_out(FKM_OK, &reached), FKM_OK);
    assert_int_equal(reached, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(message_hint_context),
        cmocka_unit_test(long_text_is_cut_not_overrun),
        cmocka_unit_test(exit_codes_are_those_of_the_manual),
        cmocka_unit_test(macros_forward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
