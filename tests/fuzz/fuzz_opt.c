/* Options: the texts of sizes, counts, ranges and numbers, and whole command lines. The input is
 * words that end with zero bytes. */
#include "../../cmd/cmd.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_WORDS 30
#define FUZZ_CHECK(condition)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The kinds that the common options lack. */
typedef struct more {
    int32_t count;
    double real;
    uint64_t seed;
    int choice;
    const char *text;
} more;

// clang-format off
static const opt more_rows[] = {
    {.kind = OPT_COUNT, .letter = 'n', .name = "count", .offset = offsetof(more, count),
        .metavar = "N", .help = "a count", .min = 3, .max = 2000000},
    {.kind = OPT_REAL, .name = "real", .offset = offsetof(more, real), .metavar = "X",
        .help = "a number", .min = -1, .max = 1e9},
    {.kind = OPT_SEED, .name = "seed", .offset = offsetof(more, seed), .metavar = "N",
        .help = "a seed"},
    {.kind = OPT_CHOICE, .name = "choice", .offset = offsetof(more, choice), .metavar = "NAME",
        .help = "a choice", .choices = "alpha|beta|gamma", .later = "later"},
    {.kind = OPT_TEXT, .name = "text", .offset = offsetof(more, text), .metavar = "TEXT",
        .help = "a text"},
    {.kind = OPT_LATER, .name = "later"},
    {.kind = OPT_END},
};
// clang-format on

static void try_texts(const char *text)
{
    int64_t count = -1, bytes = -1;
    uint64_t seed;
    double real = NAN;
    opt_rows rows = {-1, -1};
    FUZZ_CHECK(!opt_to_time(text, &real) || (real > 0 && real < 0x1p31));
    FUZZ_CHECK(!opt_to_count(text, &count) || count >= 0);
    FUZZ_CHECK(!opt_to_seed(text, &seed) || strtoull(text, NULL, 10) == seed);
    FUZZ_CHECK(!opt_to_real(text, &real) || isfinite(real));
    FUZZ_CHECK(!opt_to_size(text, 1000, &bytes) || bytes >= 0);
    FUZZ_CHECK(!opt_to_size(text, 0, &bytes) || !strchr(text, '%'));
    FUZZ_CHECK(
        !opt_to_rows(text, &rows) || (rows.begin >= 0 && (rows.end < 0 || rows.end > rows.begin)));
    static const char *const names[] = {"fit", "predict", "memory", "threads"};
    const char *near = opt_nearest(text, names, 4);
    FUZZ_CHECK(!near || strlen(near) > 2);
}

static void try_command_line(int argc, char **argv)
{
    const opt_group groups[] = {
        {"More", more_rows},
        {"Machine", common_machine_rows},
        {"Input", common_input_rows},
        {"Talk", common_talk_rows},
        {NULL, NULL},
    };
    more m = {.count = 3};
    common_args a;
    common_args_default(&a);
    void *const bases[] = {&m, &a, &a, &a};
    int first = -1;
    fkm_err e = {0};
    fkm_status st = opt_parse(groups, bases, argc, argv, &first, &e);
    FUZZ_CHECK(st == FKM_OK || (st == FKM_EUSAGE && e.code == st && e.msg[0] != '\0'));
    if (st != FKM_OK)
        return;
    FUZZ_CHECK(first >= 1 && first <= argc);
    FUZZ_CHECK(m.count >= 3 && m.count <= 2000000 && m.real >= -1 && m.real <= 1e9);
    FUZZ_CHECK(m.choice >= 0 && m.choice <= 2 && (!m.text || *m.text));
    FUZZ_CHECK(a.machine.memory_bytes >= 0 && a.machine.threads >= 0);
    FUZZ_CHECK(a.rows.begin >= 0 && (a.rows.end < 0 || a.rows.end > a.rows.begin));
    FUZZ_CHECK(!strncmp(a.machine.device, "auto", 4) || !strncmp(a.machine.device, "c", 1));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char program[] = "fkm";
    char *argv[MAX_WORDS + 2] = {program};
    int argc = 1;
    char *text = malloc(size + 1);
    FUZZ_CHECK(text);
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    for (char *p = text; p < text + size && argc <= MAX_WORDS; p += strlen(p) + 1) {
        try_texts(p);
        argv[argc++] = p;
    }
    try_command_line(argc, argv);
    free(text);
    return 0;
}
