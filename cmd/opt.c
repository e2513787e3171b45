/* Option tables: see opt.h. */
#include "opt.h"

#include "../src/base/mem.h"
#include "../src/base/sysinfo.h"
#include "../src/fkm.h"

#include "print.h"

#include <ctype.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_OPTIONS 64   /* of one command */
#define LONG_VALUE 0x200 /* getopt's value of row i is LONG_VALUE + i: no letter is that large */
#define HELP_COLUMN 30
#define HELP_WIDTH 96

/* ---- texts to values ---- */

bool opt_to_seed(const char *text, uint64_t *out)
{
    uint64_t value = 0;
    if (!isdigit((unsigned char)*text))
        return false;
    for (; isdigit((unsigned char)*text); text++)
        if (__builtin_mul_overflow(value, UINT64_C(10), &value) ||
            __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value))
            return false;
    *out = value;
    return *text == '\0';
}

bool opt_to_count(const char *text, int64_t *out)
{
    char digits[24];
    size_t len = strspn(text, "0123456789");
    int64_t unit = 1;
    if (!strcmp(text + len, "k"))
        unit = 1000;
    else if (!strcmp(text + len, "M"))
        unit = 1000000;
    else if (text[len] != '\0')
        return false;
    uint64_t value;
    if (len == 0 || len >= sizeof digits)
        return false;
    memcpy(digits, text, len);
    digits[len] = '\0';
    int64_t result;
    if (!opt_to_seed(digits, &value) || value > INT64_MAX ||
        __builtin_mul_overflow((int64_t)value, unit, &result))
        return false;
    *out = result;
    return true;
}

/* Decimal only: strtod would also take "inf", "nan" and hexadecimal. *end: what follows. */
static bool leading_real(const char *text, double *out, const char **end)
{
    if (!isdigit((unsigned char)*text) && *text != '.' && *text != '-' && *text != '+')
        return false;
    size_t sign = *text == '-' || *text == '+';
    if (!isdigit((unsigned char)text[sign]) && text[sign] != '.')
        return false;
    if (text[sign] == '0' && (text[sign + 1] == 'x' || text[sign + 1] == 'X'))
        return false;
    char *stop;
    double value = strtod(text, &stop);
    if (stop == text || !isfinite(value))
        return false;
    *out = value;
    *end = stop;
    return true;
}

bool opt_to_real(const char *text, double *out)
{
    const char *end;
    double value;
    if (!leading_real(text, &value, &end) || *end != '\0')
        return false;
    *out = value;
    return true;
}

bool opt_to_rows(const char *text, opt_rows *out)
{
    char left[32];
    const char *colon = strchr(text, ':');
    opt_rows rows = {0, -1};
    if (!colon || (size_t)(colon - text) >= sizeof left || (colon == text && colon[1] == '\0'))
        return false;
    memcpy(left, text, (size_t)(colon - text));
    left[colon - text] = '\0';
    if (left[0] != '\0' && !opt_to_count(left, &rows.begin))
        return false;
    if (colon[1] != '\0' && (!opt_to_count(colon + 1, &rows.end) || rows.end <= rows.begin))
        return false;
    *out = rows;
    return true;
}

/* Factor of a size suffix, 0 when it is none. */
static double size_unit(const char *suffix)
{
    static const char letters[] = "KMGT";
    if (suffix[0] == '\0' || !strcmp(suffix, "B"))
        return 1;
    const char *at = strchr(letters, toupper((unsigned char)suffix[0]));
    if (!at)
        return 0;
    int power = (int)(at - letters) + 1;
    if (suffix[1] == '\0' || !strcmp(suffix + 1, "iB"))
        return pow(1024, power);
    return !strcmp(suffix + 1, "B") ? pow(1000, power) : 0;
}

bool opt_to_size(const char *text, int64_t whole, int64_t *out)
{
    const char *end;
    double value;
    if (!leading_real(text, &value, &end) || value < 0)
        return false;
    double unit = size_unit(end);
    if (!strcmp(end, "%")) {
        if (whole <= 0 || value > 100)
            return false;
        unit = (double)whole / 100;
    }
    double bytes = floor(value * unit);
    if (unit == 0 || bytes >= 0x1p63)
        return false;
    *out = (int64_t)bytes;
    return true;
}

static const struct {
    const char *name;
    double seconds;
} time_units[] = {{"d", 86400}, {"h", 3600}, {"m", 60}, {"s", 1}, {"ms", 1e-3}};
#define TIME_UNITS (sizeof time_units / sizeof time_units[0])

bool opt_to_time(const char *text, double *out)
{
    const char *end;
    double value;
    if (!leading_real(text, &value, &end))
        return false;
    for (size_t i = 0; i < TIME_UNITS; i++)
        if (!strcmp(end, time_units[i].name)) {
            value *= time_units[i].seconds;
            if (!(value > 0 && value < 0x1p31))
                return false;
            *out = value;
            return true;
        }
    return false;
}

const char *opt_time_text(char *out, size_t cap, double seconds)
{
    size_t i = 0;
    while (i < TIME_UNITS - 1 &&
           (seconds < time_units[i].seconds || fmod(seconds, time_units[i].seconds) != 0))
        i++;
    snprintf(out, cap, "%.12g%s", seconds / time_units[i].seconds, time_units[i].name);
    return out;
}

/* ---- did you mean ---- */

/* Edits (insert, delete, replace, swap neighbours) that turn a into b; large when a text is long.
 */
static int edit_distance(const char *a, const char *b)
{
    enum { CAP = 40 };
    int rows[3][CAP + 1];
    size_t na = strlen(a), nb = strlen(b);
    if (na > CAP || nb > CAP)
        return CAP;
    for (size_t j = 0; j <= nb; j++)
        rows[0][j] = (int)j;
    for (size_t i = 1; i <= na; i++) {
        int *now = rows[i % 3], *last = rows[(i - 1) % 3], *before = rows[(i + 1) % 3];
        now[0] = (int)i;
        for (size_t j = 1; j <= nb; j++) {
            int best = last[j - 1] + (a[i - 1] != b[j - 1]);
            if (last[j] + 1 < best)
                best = last[j] + 1;
            if (now[j - 1] + 1 < best)
                best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            now[j] = best;
        }
    }
    return rows[na % 3][nb];
}

const char *opt_nearest(const char *text, const char *const *names, int count)
{
    const char *best = NULL;
    int best_distance = (int)strlen(text) / 3 + 2; /* further off than this is another word */
    for (int i = 0; i < count; i++) {
        int distance = edit_distance(text, names[i]);
        if (distance < best_distance && distance < (int)strlen(names[i])) {
            best = names[i];
            best_distance = distance;
        }
    }
    return best;
}

/* ---- one option ---- */

static fkm_status bad_value(const char *source, const char *expected, const char *text, fkm_err *e)
{
    return fkm_fail(e, FKM_EUSAGE, "%s: expected %s, found '%s'", source, expected, text);
}

/* Index of text among "a|b|c", or -1. */
static int choice_index(const char *choices, const char *text)
{
    size_t len = strlen(text);
    for (int i = 0; choices; i++) {
        const char *bar = strchr(choices, '|');
        size_t this_len = bar ? (size_t)(bar - choices) : strlen(choices);
        if (this_len == len && !strncmp(choices, text, len))
            return i;
        choices = bar ? bar + 1 : NULL;
    }
    return -1;
}

static fkm_status set_choice(
    const opt *o, int *out, const char *text, const char *source, fkm_err *e)
{
    int index = choice_index(o->choices, text);
    if (index < 0 && choice_index(o->later, text) >= 0) {
        fkm_fail(e, FKM_EUSAGE, "%s %s is not in this version of fkm", source, text);
        return fkm_hint(e, "this version knows %s", o->choices);
    }
    if (index < 0)
        return bad_value(source, o->choices, text, e);
    *out = index;
    return FKM_OK;
}

static fkm_status set_count(
    const opt *o, int32_t *out, const char *text, const char *source, fkm_err *e)
{
    char expected[80];
    int64_t value;
    snprintf(expected, sizeof expected, "a whole number from %.0f to %.0f", o->min, o->max);
    if (!opt_to_count(text, &value)) {
        bad_value(source, expected, text, e);
        return fkm_hint(e, "counts take the suffixes k (1000) and M (1000000)");
    }
    if ((double)value < o->min || (double)value > o->max)
        return bad_value(source, expected, text, e);
    *out = (int32_t)value; /* o->max is within int32_t */
    return FKM_OK;
}

static fkm_status set_real(
    const opt *o, double *out, const char *text, const char *source, fkm_err *e)
{
    char expected[80];
    double value;
    snprintf(expected, sizeof expected, "a number from %g to %g", o->min, o->max);
    if (!opt_to_real(text, &value) || value < o->min || value > o->max)
        return bad_value(source, expected, text, e);
    *out = value;
    return FKM_OK;
}

static fkm_status set_size(int64_t *out, const char *text, const char *source, fkm_err *e)
{
    int64_t value;
    if (!opt_to_size(text, fkm_memory_available(), &value) || value == 0) {
        bad_value(source, "a size", text, e);
        return fkm_hint(e, "examples: 8G, 512M (powers of 1024), 8GB (powers of 1000), 50%%");
    }
    *out = value;
    return FKM_OK;
}

static fkm_status set_time(
    const opt *o, double *out, const char *text, const char *source, fkm_err *e)
{
    if (o->choices && !strcmp(text, o->choices)) {
        *out = 0;
        return FKM_OK;
    }
    if (!opt_to_time(text, out)) {
        bad_value(source, o->choices ? "a time or off" : "a time", text, e);
        return fkm_hint(e, "examples: 90s, 10m, 1.5h, 2d");
    }
    return FKM_OK;
}

static fkm_status set_bytes(int64_t *out, const char *text, const char *source, fkm_err *e)
{
    int64_t value;
    if (!opt_to_size(text, 0, &value) || value == 0) {
        bad_value(source, "a size", text, e);
        return fkm_hint(e, "examples: 8G, 512M (powers of 1024), 8GB (powers of 1000)");
    }
    *out = value;
    return FKM_OK;
}

static fkm_status set_dtype(fkm_dtype *out, const char *text, const char *source, fkm_err *e)
{
    fkm_dtype type = fkm_dtype_parse(text);
    if (type == FKM_DTYPE_NONE) {
        bad_value(source, "an element type", text, e);
        return fkm_hint(e, "types are f32 f64 f16 bf16 u8 i8 u16 i16 u32 i32 u64 i64 bool");
    }
    *out = type;
    return FKM_OK;
}

/* Only the spelling: whether there is such a device is for the backend to say. */
static fkm_status set_device(const char **out, const char *text, const char *source, fkm_err *e)
{
    bool ok = !strcmp(text, "auto") || !strcmp(text, "cpu") || !strcmp(text, "cuda");
    if (!strncmp(text, "cuda:", 5)) { /* numbers with single commas between them */
        const char *list = text + 5;
        size_t len = strlen(list);
        ok = len > 0 && strspn(list, "0123456789,") == len && list[0] != ',' &&
             list[len - 1] != ',' && !strstr(list, ",,");
    }
    if (!ok)
        return bad_value(source, "auto, cpu, cuda or cuda:LIST", text, e);
    *out = text;
    return FKM_OK;
}

static fkm_status set_isa(const char **out, const char *text, const char *source, fkm_err *e)
{
    char known[160] = "";
    bool usable = false;
    for (int i = 0; fkm_isa_name(i, &usable); i++) {
        const char *name = fkm_isa_name(i, &usable);
        if (usable) {
            size_t used = strlen(known);
            snprintf(known + used, sizeof known - used, "%s%s", used ? " " : "", name);
        }
        if (strcmp(name, text) != 0)
            continue;
        if (usable) {
            *out = name;
            return FKM_OK;
        }
        fkm_fail(e, FKM_EUSAGE, "%s: this CPU cannot run %s", source, text);
        return fkm_hint(e, "'fkm help isa' lists the CPU paths and which of them can run here");
    }
    for (int i = 0; fkm_gpu_isa_name(i); i++) {
        if (strcmp(fkm_gpu_isa_name(i), text) != 0)
            continue;
        *out = fkm_gpu_isa_name(i);
        return FKM_OK;
    }
    bad_value(source, "a CPU path", text, e);
    return fkm_hint(e, "this CPU can run: %s", known);
}

static fkm_status set_value(
    const opt *o, void *base, const char *text, const char *source, fkm_err *e)
{
    void *dst = (char *)base + o->offset;
    switch (o->kind) {
    case OPT_FLAG:
        *(bool *)dst = true;
        return FKM_OK;
    case OPT_COUNT:
        return set_count(o, dst, text, source, e);
    case OPT_SEED:
        if (!opt_to_seed(text, dst))
            return bad_value(source, "a whole number below 2^64", text, e);
        return FKM_OK;
    case OPT_REAL:
        return set_real(o, dst, text, source, e);
    case OPT_SIZE:
        return set_size(dst, text, source, e);
    case OPT_TIME:
        return set_time(o, dst, text, source, e);
    case OPT_BYTES:
        return set_bytes(dst, text, source, e);
    case OPT_ROWS:
        if (!opt_to_rows(text, dst)) {
            bad_value(source, "a range of rows A:B with A < B", text, e);
            return fkm_hint(e, "rows count from 0; B is not included; 1M: means from row 1000000");
        }
        return FKM_OK;
    case OPT_TEXT:
        if (*text == '\0')
            return fkm_fail(e, FKM_EUSAGE, "%s: expected %s, found nothing", source, o->metavar);
        *(const char **)dst = text;
        return FKM_OK;
    case OPT_CHOICE:
        return set_choice(o, dst, text, source, e);
    case OPT_DTYPE:
        return set_dtype(dst, text, source, e);
    case OPT_DEVICE:
        return set_device(dst, text, source, e);
    case OPT_ISA:
        return set_isa(dst, text, source, e);
    case OPT_LATER:
        fkm_fail(e, FKM_EUSAGE, "%s is not in this version of fkm", source);
        return fkm_hint(e, "'fkm help' lists the commands; each has --help");
    case OPT_END:
        break;
    }
    return fkm_fail(e, FKM_EBUG, "%s: a row of the option table has no kind", source);
}

/* ---- a command's options ---- */

/* The groups, flattened, as getopt wants them. */
struct table {
    const opt *rows[MAX_OPTIONS];
    void *bases[MAX_OPTIONS];
    bool given[MAX_OPTIONS];
    int count;
    struct option longs[MAX_OPTIONS + 1];
    char shorts[2 * MAX_OPTIONS + 2];
};

static fkm_status flatten(struct table *t, const opt_group *groups, void *const *bases, fkm_err *e)
{
    size_t used = 0;
    memset(t, 0, sizeof *t);
    t->shorts[used++] = ':'; /* tell a missing value from an unknown option */
    for (int g = 0; groups[g].rows; g++)
        for (const opt *o = groups[g].rows; o->kind != OPT_END; o++) {
            int i = t->count;
            if (i == MAX_OPTIONS)
                return fkm_fail(e, FKM_EBUG, "more than %d options", MAX_OPTIONS);
            /* OPT_LATER swallows a value if there is one: the message is the same. */
            int has = o->kind == OPT_FLAG    ? no_argument
                      : o->kind == OPT_LATER ? optional_argument
                                             : required_argument;
            t->longs[i] = (struct option){o->name, has, NULL, LONG_VALUE + i};
            t->rows[i] = o;
            t->bases[i] = bases[g];
            if (o->letter) {
                t->shorts[used++] = (char)o->letter;
                if (has == required_argument)
                    t->shorts[used++] = ':';
            }
            t->count++;
        }
    return FKM_OK;
}

/* Row of what getopt returned, or -1. */
static int find_row(const struct table *t, int value)
{
    if (value >= LONG_VALUE && value < LONG_VALUE + t->count)
        return value - LONG_VALUE;
    for (int i = 0; i < t->count; i++)
        if (value != 0 && t->rows[i]->letter == value)
            return i;
    return -1;
}

static fkm_status unknown_long(const struct table *t, const char *word, fkm_err *e)
{
    const char *names[MAX_OPTIONS];
    char text[80], list[200] = "";
    int count = 0, starts = 0;
    snprintf(text, sizeof text, "%.*s", (int)strcspn(word, "="), word);
    for (int i = 0; i < t->count; i++) {
        if (t->rows[i]->kind != OPT_LATER)
            names[count++] = t->rows[i]->name;
        if (!strncmp(t->rows[i]->name, text + 2, strlen(text + 2))) {
            size_t used = strlen(list);
            snprintf(list + used, sizeof list - used, " --%s", t->rows[i]->name);
            starts++;
        }
    }
    if (starts > 1) {
        fkm_fail(e, FKM_EUSAGE, "option %s is ambiguous", text);
        return fkm_hint(e, "it could be%s", list);
    }
    const char *near = opt_nearest(text + 2, names, count);
    fkm_fail(e, FKM_EUSAGE, "unknown option %s", text);
    if (near)
        return fkm_hint(e, "did you mean --%s?", near);
    return fkm_hint(e, "--help lists the options");
}

static fkm_status refused(const struct table *t, int value, char **argv, fkm_err *e)
{
    int row = find_row(t, optopt);
    if (value == ':') {
        fkm_fail(e, FKM_EUSAGE, "option --%s needs a value", t->rows[row]->name);
        return fkm_hint(
            e, "--%s %s: %s", t->rows[row]->name, t->rows[row]->metavar, t->rows[row]->help);
    }
    if (row >= 0)
        return fkm_fail(e, FKM_EUSAGE, "option --%s takes no value", t->rows[row]->name);
    if (optopt == 0)
        return unknown_long(t, argv[optind - 1], e);
    fkm_fail(e, FKM_EUSAGE, "unknown option -%c", optopt);
    return fkm_hint(e, "--help lists the options");
}

static fkm_status from_environment(struct table *t, fkm_err *e)
{
    for (int i = 0; i < t->count; i++) {
        const opt *o = t->rows[i];
        const char *text = o->env && !t->given[i] ? getenv(o->env) : NULL;
        if (text && *text)
            FKM_TRY(set_value(o, t->bases[i], text, o->env, e));
    }
    return FKM_OK;
}

fkm_status opt_parse(const opt_group *groups, void *const *bases, int argc, char **argv,
    int *first_operand, fkm_err *e)
{
    struct table t;
    int value;
    FKM_TRY(flatten(&t, groups, bases, e));
    optind = 0; /* glibc: start afresh */
    opterr = 0;
    while ((value = getopt_long(argc, argv, t.shorts, t.longs, NULL)) != -1) {
        if (value == '?' || value == ':')
            return refused(&t, value, argv, e);
        int row = find_row(&t, value);
        char source[64];
        snprintf(source, sizeof source, "--%s", t.rows[row]->name);
        t.given[row] = true;
        FKM_TRY(set_value(t.rows[row], t.bases[row], optarg, source, e));
    }
    *first_operand = optind;
    return from_environment(&t, e);
}

/* ---- --help ---- */

/* The current value of o's destination; "" when it has none to show. */
static void default_text(char *out, size_t cap, const opt *o, const void *base)
{
    const void *src = (const char *)base + o->offset;
    const char *choice = o->choices;
    out[0] = '\0';
    switch (o->kind) {
    case OPT_COUNT:
        snprintf(out, cap, "%" PRId32, *(const int32_t *)src);
        break;
    case OPT_SEED:
        snprintf(out, cap, "%" PRIu64, *(const uint64_t *)src);
        break;
    case OPT_REAL:
        snprintf(out, cap, "%g", *(const double *)src);
        break;
    case OPT_TIME:
        opt_time_text(out, cap, *(const double *)src);
        break;
    case OPT_TEXT:
    case OPT_DEVICE:
        snprintf(out, cap, "%s", *(const char *const *)src);
        break;
    case OPT_CHOICE:
        for (int i = *(const int *)src; i > 0; i--)
            choice = strchr(choice, '|') + 1;
        snprintf(out, cap, "%.*s", (int)strcspn(choice, "|"), choice);
        break;
    default:
        break;
    }
}

/* Prints text from column HELP_COLUMN on, broken at spaces; the cursor is at `column`. */
static void wrap_text(FILE *out, const char *text, int column)
{
    if (column > HELP_COLUMN - 2) {
        print_to(out, "\n");
        column = 0;
    }
    print_to(out, "%*s", HELP_COLUMN - column, "");
    column = HELP_COLUMN;
    while (*text) {
        int len = (int)strcspn(text, " ");
        if (column > HELP_COLUMN && column + 1 + len > HELP_WIDTH) {
            print_to(out, "\n%*s", HELP_COLUMN, "");
            column = HELP_COLUMN;
        } else if (column > HELP_COLUMN) {
            print_to(out, " ");
            column++;
        }
        print_to(out, "%.*s", len, text);
        column += len;
        text += len;
        text += strspn(text, " ");
    }
    print_to(out, "\n");
}

static void print_option(FILE *out, const opt *o, const void *base)
{
    char left[120], value[64], text[400];
    char letter[8] = "    ";
    if (o->letter)
        snprintf(letter, sizeof letter, "-%c, ", o->letter);
    snprintf(left, sizeof left, "  %s--%s%s%s", letter, o->name, o->metavar ? " " : "",
        o->metavar ? o->metavar : "");
    default_text(value, sizeof value, o, base);
    if (o->show_default)
        snprintf(text, sizeof text, "%s (default %s)", o->help, value);
    else
        snprintf(text, sizeof text, "%s", o->help);
    print_to(out, "%s", left);
    wrap_text(out, text, (int)strlen(left));
}

void opt_help(FILE *out, const opt_group *groups, void *const *bases)
{
    for (int g = 0; groups[g].rows; g++) {
        print_to(out, "\n%s:\n", groups[g].title);
        for (const opt *o = groups[g].rows; o->kind != OPT_END; o++)
            if (o->kind != OPT_LATER)
                print_option(out, o, bases[g]);
    }
}
