/* Option tables: values, ranges, errors, suggestions, the environment. */
#include "../../cmd/opt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- values ---- */

/* clang-format off */
static void test_counts(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t value; /* -1: not a count */
    } cases[] = {
        {"0", 0}, {"12", 12}, {"32k", 32000}, {"2M", 2000000}, {"007", 7},
        {"9223372036854775807", INT64_MAX}, {"9223372036854775808", -1}, {"", -1}, {"k", -1},
        {"-1", -1}, {"+1", -1}, {" 1", -1}, {"1 ", -1}, {"1.5k", -1}, {"1K", -1}, {"1kk", -1},
        {"0x10", -1}, {"9223372036854775807k", -1}, {"99999999999999999999999999", -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t value = -7;
        bool ok = opt_to_count(cases[i].text, &value);
        assert_int_equal(ok, cases[i].value >= 0);
        assert_true(value == (ok ? cases[i].value : -7));
    }
}

static void test_sizes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t value;
    } cases[] = {
        {"1500", 1500}, {"0", 0}, {"1B", 1}, {"64K", 65536}, {"512M", INT64_C(512) << 20},
        {"8G", INT64_C(8) << 30}, {"8g", INT64_C(8) << 30}, {"1T", INT64_C(1) << 40},
        {"8GiB", INT64_C(8) << 30}, {"500KB", 500000}, {"8GB", INT64_C(8000000000)},
        {"2TB", INT64_C(2000000000000)}, {"1.5G", INT64_C(3) << 29}, {"50%", 500}, {"100%", 1000},
        {"12.5%", 125}, {"101%", -1}, {"-1", -1}, {"-5%", -1}, {"", -1}, {"G", -1}, {"8X", -1},
        {"8Gb", -1}, {"8 G", -1}, {"inf", -1}, {"nan", -1}, {"0x10", -1}, {"1e400", -1},
        {"9000000T", -1}, {"8GiBs", -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t value = -7;
        bool ok = opt_to_size(cases[i].text, 1000, &value);
        if (ok != (cases[i].value >= 0) || (ok && value != cases[i].value))
            fail_msg("size '%s' gave %d, %lld", cases[i].text, ok, (long long)value);
    }
    int64_t value;
    assert_false(opt_to_size("50%", 0, &value)); /* half of nothing known */
}

static void test_seeds_and_reals(void **state)
{
    (void)state;
    uint64_t seed = 0;
    double real = 0;
    assert_true(opt_to_seed("18446744073709551615", &seed));
    assert_true(seed == UINT64_MAX);
    assert_false(opt_to_seed("18446744073709551616", &seed));
    assert_false(opt_to_seed("-1", &seed));
    assert_false(opt_to_seed("1k", &seed));
    assert_false(opt_to_seed("", &seed));
    assert_true(opt_to_real("1e-4", &real));
    assert_true(real == 1e-4);
    assert_true(opt_to_real("-.5", &real));
    assert_true(real == -0.5);
    static const char *const bad[] = {"", "x", "1x", "nan", "inf", "-inf", "0x1p3", "1e999", " 1", "-"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(opt_to_real(bad[i], &real));
}

static void test_rows(void **state)
{
    (void)state;
    opt_rows rows;
    assert_true(opt_to_rows("10:20", &rows));
    assert_true(rows.begin == 10 && rows.end == 20);
    assert_true(opt_to_rows(":5k", &rows));
    assert_true(rows.begin == 0 && rows.end == 5000);
    assert_true(opt_to_rows("1M:", &rows));
    assert_true(rows.begin == 1000000 && rows.end == -1);
    static const char *const bad[] = {"", ":", "5", "20:10", "5:5", ":0", "a:b", "1:2:3", "-1:5", "1:-5",
        "1000000000000000000000000000000000000:"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(opt_to_rows(bad[i], &rows));
}

static void test_times(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double seconds;
    } cases[] = {{"90s", 90}, {"10m", 600}, {"1.5h", 5400}, {"2d", 172800}, {"250ms", 0.25}, {".5s", 0.5}};
    double value;
    char text[40];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_true(opt_to_time(cases[i].text, &value));
        assert_true(value == cases[i].seconds);
        double again; /* what is printed reads back */
        assert_true(opt_to_time(opt_time_text(text, sizeof text, value), &again));
        assert_true(again == value);
    }
    assert_string_equal(opt_time_text(text, sizeof text, 600), "10m");
    assert_string_equal(opt_time_text(text, sizeof text, 5400), "90m");
    static const char *const bad[] = {"", "10", "m", "10 m", "-1s", "0s", "1e99s", "nanh", "off", "10mm", "1w"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(opt_to_time(bad[i], &value));
}

static void test_nearest(void **state)
{
    (void)state;
    static const char *const names[] = {"fit", "predict", "info", "clusters", "max-iter"};
    static const struct {
        const char *text, *meant;
    } cases[] = {
        {"fti", "fit"}, {"predit", "predict"}, {"inof", "info"}, {"cluster", "clusters"},
        {"maxiter", "max-iter"}, {"max_iter", "max-iter"}, {"zzzz", NULL}, {"xyz", NULL}, {"", NULL},
        {"an-option-that-is-longer-than-all-others-there-are", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *near = opt_nearest(cases[i].text, names, 5);
        if (cases[i].meant)
            assert_string_equal(near, cases[i].meant);
        else
            assert_null(near);
    }
}

/* clang-format on */

/* ---- parsing ---- */

struct target {
    bool flag;
    int32_t count;
    uint64_t seed;
    double tol;
    int64_t memory;
    opt_rows rows;
    const char *text;
    int choice;
    fkm_dtype dtype;
};

#define AT(field) offsetof(struct target, field)

static const opt rows_a[] = {
    {.kind = OPT_COUNT,
        .letter = 'k',
        .name = "clusters",
        .offset = AT(count),
        .metavar = "N",
        .min = 1,
        .max = 2e9,
        .help = "how many",
        .env = "FKM_TEST_COUNT",
        .show_default = true},
    {.kind = OPT_FLAG, .letter = 'f', .name = "force", .offset = AT(flag), .help = "force it"},
    {.kind = OPT_TEXT,
        .letter = 'o',
        .name = "output",
        .offset = AT(text),
        .metavar = "PREFIX",
        .help = "where"},
    {.kind = OPT_LATER, .name = "restarts"},
    {.kind = OPT_END},
};

static const opt rows_b[] = {
    {.kind = OPT_SEED, .letter = 's', .name = "seed", .offset = AT(seed), .metavar = "N"},
    {.kind = OPT_REAL,
        .letter = 't',
        .name = "tol",
        .offset = AT(tol),
        .metavar = "X",
        .min = 0,
        .max = 1},
    {.kind = OPT_SIZE, .letter = 'm', .name = "memory", .offset = AT(memory), .metavar = "SIZE"},
    {.kind = OPT_ROWS, .name = "rows", .offset = AT(rows), .metavar = "A:B"},
    {.kind = OPT_CHOICE,
        .name = "empty",
        .offset = AT(choice),
        .metavar = "keep|error",
        .choices = "keep|error",
        .later = "split|merge"},
    {.kind = OPT_DTYPE, .name = "dtype", .offset = AT(dtype), .metavar = "TYPE"},
    {.kind = OPT_END},
};

static const opt_group groups[] = {{"A", rows_a}, {"B", rows_b}, {NULL, NULL}};

/* Parses "fit" + words (ending with NULL) into t. */
static fkm_status parse(struct target *t, char **operands, fkm_err *e, const char *const *words)
{
    char *argv[16] = {(char *)"fit"};
    int argc = 1, first = 0;
    void *const bases[] = {t, t};
    for (; words[argc - 1]; argc++)
        argv[argc] = (char *)words[argc - 1];
    *e = (fkm_err){0};
    fkm_status st = opt_parse(groups, bases, argc, argv, &first, e);
    for (int i = first; st == FKM_OK && i < argc; i++)
        operands[i - first] = argv[i];
    return st;
}

#define WORDS(...)                                                                                 \
    (const char *const[])                                                                          \
    {                                                                                              \
        __VA_ARGS__, NULL                                                                          \
    }

static void test_all_kinds(void **state)
{
    (void)state;
    struct target t = {0};
    char *operands[16] = {0};
    fkm_err e;
    assert_int_equal(
        parse(&t, operands, &e,
            WORDS("a.npy", "-k5k", "--force", "-o", "-x", "--seed=9", "-t", "1e-3", "-m", "2K")),
        FKM_OK);
    assert_int_equal(t.count, 5000);
    assert_true(t.flag);
    assert_string_equal(t.text, "-x");
    assert_true(t.seed == 9 && t.tol == 1e-3 && t.memory == 2048);
    assert_string_equal(operands[0], "a.npy");
    assert_int_equal(parse(&t, operands, &e,
                         WORDS("--rows", "3:", "--empty", "error", "--dtype", "bf16", "--", "-k")),
        FKM_OK);
    assert_true(t.rows.begin == 3 && t.rows.end == -1);
    assert_int_equal(t.choice, 1);
    assert_int_equal(t.dtype, FKM_BF16);
    assert_string_equal(operands[0], "-k");
    assert_int_equal(parse(&t, operands, &e, WORDS("-k", "3", "-k", "4")), FKM_OK);
    assert_int_equal(
        parse(&t, operands, &e, WORDS("a", "-fk", "4", "b", "-", "-m8B", "--", "--force")), FKM_OK);
    for (int i = 0; i < 4; i++) /* in their order, wherever they stood */
        assert_string_equal(operands[i], ((const char *const[]){"a", "b", "-", "--force"})[i]);
    assert_true(t.memory == 8);
    assert_int_equal(t.count, 4); /* the last one wins */
}

static void expect(const char *msg, const char *hint, const char *const *words)
{
    struct target t = {.count = 77};
    char *operands[16];
    fkm_err e;
    assert_int_equal(parse(&t, operands, &e, words), FKM_EUSAGE);
    assert_string_equal(e.msg, msg);
    if (hint)
        assert_string_equal(e.hint, hint);
    assert_int_equal(t.count, 77);
}

static void test_errors(void **state)
{
    (void)state;
    expect("--clusters: expected a whole number from 1 to 2000000000, found '0'", NULL,
        WORDS("-k", "0"));
    expect("--clusters: expected a whole number from 1 to 2000000000, found 'x'",
        "counts take the suffixes k (1000) and M (1000000)", WORDS("--clusters=x"));
    expect("--clusters: expected a whole number from 1 to 2000000000, found '3000M'", NULL,
        WORDS("-k", "3000M"));
    expect("--tol: expected a number from 0 to 1, found '-1'", NULL, WORDS("-t", "-1"));
    expect("--tol: expected a number from 0 to 1, found 'nan'", NULL, WORDS("-t", "nan"));
    expect("--memory: expected a size, found '0'", NULL, WORDS("-m", "0"));
    expect("--empty: expected keep|error, found 'kee'", NULL, WORDS("--empty", "kee"));
    expect("--empty split is not in this version of fkm", "this version knows keep|error",
        WORDS("--empty", "split"));
    expect("--dtype: expected an element type, found 'f31'", NULL, WORDS("--dtype", "f31"));
    expect(
        "--rows: expected a range of rows A:B with A < B, found '5'", NULL, WORDS("--rows", "5"));
    expect("--output: expected PREFIX, found nothing", NULL, WORDS("-o", ""));
    expect("--restarts is not in this version of fkm", NULL, WORDS("--restarts", "5"));
    expect("--restarts is not in this version of fkm", NULL, WORDS("--restarts=5"));
    expect("option --clusters needs a value", NULL, WORDS("-k"));
    expect("option --force takes no value", NULL, WORDS("--force=1"));
    expect("unknown option --cluster5", "did you mean --clusters?", WORDS("--cluster5"));
    expect("unknown option --zzzzzz", "--help lists the options", WORDS("--zzzzzz"));
    expect("unknown option -x", "--help lists the options", WORDS("-x"));
    expect("unknown option --r", "options are not abbreviated; there is --rows", WORDS("--r", "5"));
    expect("unknown option --em", "options are not abbreviated; there is --empty",
        WORDS("--em", "keep"));
    expect("unknown option -\xc3\xa9", "--help lists the options", WORDS("-\xc3\xa9"));
    expect("--memory: 8 without a unit is 8 bytes", "give the unit: 8G, 8M; 8B if it is bytes",
        WORDS("-m", "8"));
    expect("--memory: 1048575 without a unit is 1048575 bytes", NULL, WORDS("--memory=1048575"));
}

static void test_environment(void **state)
{
    (void)state;
    struct target t = {0};
    char *operands[16];
    fkm_err e;
    setenv("FKM_TEST_COUNT", "12", 1);
    assert_int_equal(parse(&t, operands, &e, WORDS("x")), FKM_OK);
    assert_int_equal(t.count, 12);
    setenv("FKM_TEST_COUNT", "bad", 1);
    assert_int_equal(parse(&t, operands, &e, WORDS("-k", "3")), FKM_OK); /* a flag wins */
    assert_int_equal(t.count, 3);
    assert_int_equal(parse(&t, operands, &e, WORDS("x")), FKM_EUSAGE);
    assert_string_equal(
        e.msg, "FKM_TEST_COUNT: expected a whole number from 1 to 2000000000, found 'bad'");
    setenv("FKM_TEST_COUNT", "", 1);
    t.count = 5;
    assert_int_equal(parse(&t, operands, &e, WORDS("x")), FKM_OK);
    assert_int_equal(t.count, 5);
    unsetenv("FKM_TEST_COUNT");
}

static void test_help(void **state)
{
    (void)state;
    struct target t = {.count = 8};
    void *const bases[] = {&t, &t};
    static const opt_group just_a[] = {{"A", rows_a}, {NULL, NULL}};
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    assert_non_null(f);
    opt_help(f, just_a, bases);
    fclose(f);
    assert_string_equal(text, "\nA:\n"
                              "  -k, --clusters N        how many (default 8)\n"
                              "  -f, --force             force it\n"
                              "  -o, --output PREFIX     where\n");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_seeds_and_reals),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_nearest),
        cmocka_unit_test(test_all_kinds),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_environment),
        cmocka_unit_test(test_help),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
