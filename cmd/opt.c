/* Option tables: see opt.h. */
#include "opt.h"

#include "../src/base/sysinfo.h"
#include "../src/base/text.h"
#include "../src/fkm.h"
#include "print.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MAX_OPTIONS 64 /* of one command */
#define HELP_COLUMN 26
#define LEAST_BARE_SIZE ((int64_t)1 << 20) /* fewer bytes than this want a unit */

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

/* whole: what percentages are of; 0: there are none. */
static fkm_status set_size(
    int64_t *out, const char *text, int64_t whole, const char *source, fkm_err *e)
{
    int64_t value;
    if (!opt_to_size(text, whole, &value) || value == 0) {
        bad_value(source, "a size", text, e);
        return fkm_hint(e, "examples: 8G, 512M (powers of 1024), 8GB (powers of 1000)%s",
            whole > 0 ? ", 50%" : "");
    }
    bool bare = strspn(text, "0123456789.") == strlen(text);
    if (bare && value < LEAST_BARE_SIZE) { /* -m 8 */
        fkm_fail(e, FKM_EUSAGE, "%s: %s without a unit is %" PRId64 " byte%s", source, text, value,
            value == 1 ? "" : "s");
        return fkm_hint(e, "give the unit: %sG, %sM; %sB if it is bytes", text, text, text);
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
        return set_size(dst, text, fkm_memory_available(), source, e);
    case OPT_TIME:
        return set_time(o, dst, text, source, e);
    case OPT_BYTES:
        return set_size(dst, text, 0, source, e);
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
        return fkm_hint(e, "%s", opt_word_note(o->name));
    case OPT_END:
        break;
    }
    return fkm_fail(e, FKM_EBUG, "%s: a row of the option table has no kind", source);
}

/* ---- a command's options ---- */

/* The groups, flattened. */
struct table {
    const opt *rows[MAX_OPTIONS];
    void *bases[MAX_OPTIONS];
    bool given[MAX_OPTIONS];
    int count;
};

static fkm_status flatten(struct table *t, const opt_group *groups, void *const *bases, fkm_err *e)
{
    memset(t, 0, sizeof *t);
    for (int g = 0; groups[g].rows; g++)
        for (const opt *o = groups[g].rows; o->kind != OPT_END; o++) {
            if (t->count == MAX_OPTIONS)
                return fkm_fail(e, FKM_EBUG, "more than %d options", MAX_OPTIONS);
            t->rows[t->count] = o;
            t->bases[t->count++] = bases[g];
        }
    return FKM_OK;
}

/* Row of a long form, or -1. Names are exact: an abbreviation may mean another option tomorrow. */
static int find_name(const struct table *t, const char *name, size_t len)
{
    for (int i = 0; i < t->count; i++)
        if (strlen(t->rows[i]->name) == len && !strncmp(t->rows[i]->name, name, len))
            return i;
    return -1;
}

static int find_letter(const struct table *t, char letter)
{
    for (int i = 0; i < t->count; i++)
        if (t->rows[i]->letter && t->rows[i]->letter == letter)
            return i;
    return -1;
}

/* "--restarts, --rows": the options that begin with `start`; *count: how many. */
static void list_starting(
    char *list, size_t cap, int *count, const struct table *t, const char *start)
{
    size_t used = 0;
    list[0] = '\0';
    *count = 0;
    for (int i = 0; i < t->count; i++)
        if (t->rows[i]->kind != OPT_LATER && !strncmp(t->rows[i]->name, start, strlen(start))) {
            int len =
                snprintf(list + used, cap - used, "%s--%s", *count ? ", " : "", t->rows[i]->name);
            used = used + (size_t)len < cap ? used + (size_t)len : cap - 1;
            ++*count;
        }
}

/* What a word that is no option may have been meant to be: another program's word first, then what
 * it begins, then what is spelt nearly so. */
static fkm_status unknown_long(const struct table *t, const char *name, fkm_err *e)
{
    const char *names[MAX_OPTIONS];
    char list[160];
    int count = 0, starting = 0;
    for (int i = 0; i < t->count; i++)
        if (t->rows[i]->kind != OPT_LATER)
            names[count++] = t->rows[i]->name;
    fkm_fail(e, FKM_EUSAGE, "unknown option --%s", name);
    const opt_word *word = opt_find_word(name, names, count);
    if (word && word->ours && find_name(t, word->ours, strlen(word->ours)) >= 0) {
        const opt *o = t->rows[find_name(t, word->ours, strlen(word->ours))];
        return fkm_hint(e, "here it is --%s%s%s: %s", o->name, o->metavar ? " " : "",
            o->metavar ? o->metavar : "", word->note ? word->note : o->help);
    }
    if (word && word->note)
        return fkm_hint(e, "%s", word->note);
    if (*name)
        list_starting(list, sizeof list, &starting, t, name);
    if (starting > 0)
        return fkm_hint(e, "options are not abbreviated; there is %s", list);
    if (word)
        return fkm_hint(e, "--%s is an option of another command: see 'fkm help'", word->ours);
    const char *near = opt_nearest(name, names, count);
    if (near)
        return fkm_hint(e, "did you mean --%s?", near);
    return fkm_hint(e, "--help lists the options");
}

/* A command line, taken word by word from `at` on. */
struct words {
    int argc, at;
    char **argv;
};

static fkm_status set_row(struct table *t, int row, const char *text, fkm_err *e)
{
    char source[64];
    snprintf(source, sizeof source, "--%s", t->rows[row]->name);
    t->given[row] = true;
    return set_value(t->rows[row], t->bases[row], text, source, e);
}

/* The value of a row: what is attached (NULL: nothing), or the next word. */
static fkm_status take_value(
    struct table *t, int row, struct words *w, const char *attached, fkm_err *e)
{
    const opt *o = t->rows[row];
    if (!attached && o->kind != OPT_FLAG && o->kind != OPT_LATER) {
        if (w->at == w->argc) {
            fkm_fail(e, FKM_EUSAGE, "option --%s needs a value", o->name);
            return fkm_hint(e, "--%s %s: %s", o->name, o->metavar, o->help);
        }
        attached = w->argv[w->at++];
    }
    return set_row(t, row, attached, e);
}

/* "name" or "name=value". */
static fkm_status take_long(struct table *t, struct words *w, const char *word, fkm_err *e)
{
    char name[80];
    size_t len = strcspn(word, "=");
    int row = find_name(t, word, len);
    if (row < 0) {
        snprintf(name, sizeof name, "%.*s", (int)(len < sizeof name ? len : sizeof name), word);
        return unknown_long(t, name, e);
    }
    if (t->rows[row]->kind == OPT_FLAG && word[len])
        return fkm_fail(e, FKM_EUSAGE, "option --%s takes no value", t->rows[row]->name);
    return take_value(t, row, w, word[len] ? word + len + 1 : NULL, e);
}

/* "k5", "vf", "vk" before "5". */
static fkm_status take_letters(struct table *t, struct words *w, const char *word, fkm_err *e)
{
    for (; *word; word++) {
        int row = find_letter(t, *word);
        if (row < 0) {
            size_t len = fkm_utf8_length(word);
            fkm_fail(e, FKM_EUSAGE, "unknown option -%.*s", len ? (int)len : 1, word);
            return fkm_hint(e, "--help lists the options");
        }
        if (t->rows[row]->kind != OPT_FLAG)
            return take_value(t, row, w, word[1] ? word + 1 : NULL, e);
        FKM_TRY(set_row(t, row, NULL, e));
    }
    return FKM_OK;
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
    struct words w = {argc, 1, argv};
    int operands = 0; /* found so far, in argv[1..operands]: those words have been read */
    bool over = false;
    FKM_TRY(flatten(&t, groups, bases, e));
    while (w.at < argc) {
        char *word = argv[w.at++];
        if (over || word[0] != '-' || word[1] == '\0')
            argv[1 + operands++] = word;
        else if (!strcmp(word, "--"))
            over = true;
        else if (word[1] == '-')
            FKM_TRY(take_long(&t, &w, word + 2, e));
        else
            FKM_TRY(take_letters(&t, &w, word + 1, e));
    }
    memmove(argv + argc - operands, argv + 1, (size_t)operands * sizeof *argv);
    *first_operand = argc - operands;
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
    print_wrapped(out, text, (int)strlen(left), HELP_COLUMN);
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
