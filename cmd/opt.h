/* Option tables.
 *
 * One row says everything about one option. The parser, --help and (through --help) the test of the
 * man pages read the same rows, so they cannot disagree. Rows write into structs that the command
 * owns; defaults are what those structs hold before parsing, and --help prints them from there. */
#ifndef FKM_OPT_H
#define FKM_OPT_H

#include "../src/base/dtype.h"
#include "../src/base/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* What the destination is, and how its text reads. */
typedef enum opt_kind {
    OPT_END = 0,
    OPT_FLAG,   /* bool; becomes true */
    OPT_COUNT,  /* int32_t; suffixes k (1000) and M (1000000); min..max */
    OPT_SEED,   /* uint64_t */
    OPT_REAL,   /* double; min..max */
    OPT_SIZE,   /* int64_t bytes; see opt_to_size */
    OPT_TIME,   /* double seconds > 0; see opt_to_time. With choices "off", which is 0 */
    OPT_BYTES,  /* the same without percentages, which are of host memory */
    OPT_ROWS,   /* opt_rows */
    OPT_TEXT,   /* const char *, borrowed from argv or the environment */
    OPT_CHOICE, /* int; index into the choices */
    OPT_DTYPE,  /* fkm_dtype */
    OPT_DEVICE, /* const char *; auto, cpu, cuda, cuda:0,2 */
    OPT_ISA,    /* const char *; a name of fkm_isa_name that this CPU can run */
    OPT_LATER,  /* a name of the manual that this version does not have: no destination, not listed
                 */
} opt_kind;

/* Half-open range of rows; end < 0: to the last. */
typedef struct opt_rows {
    int64_t begin, end;
} opt_rows;

typedef struct opt {
    opt_kind kind;
    int letter;          /* short form, or 0 */
    const char *name;    /* long form, without dashes */
    size_t offset;       /* of the destination in its group's struct */
    const char *metavar; /* NULL for flags */
    const char *help;    /* one sentence, wrapped by opt_help */
    double min, max;     /* COUNT, REAL */
    const char *choices; /* CHOICE: "keep|farthest|error" */
    const char *later;   /* CHOICE: values that only a later version has, or NULL */
    const char *env;     /* variable that stands in when the option is not given, or NULL */
    bool show_default;   /* --help adds "(default ...)" */
} opt;

/* Rows that write into one struct. An array of groups ends with rows == NULL. */
typedef struct opt_group {
    const char *title; /* heading in --help */
    const opt *rows;   /* ends with OPT_END */
} opt_group;

/* Parses argv[1..argc), with long names in full. bases[g] is the struct of groups[g]. Operands are
 * moved to the end of argv; *first_operand is their index. Then the environment fills what no
 * option gave. FKM_EUSAGE names the option or variable, what was expected and found; unknown names
 * get the nearest suggested. */
fkm_status opt_parse(const opt_group *groups, void *const *bases, int argc, char **argv,
    int *first_operand, fkm_err *e) FKM_MUST_USE;

/* The options as --help shows them, with defaults taken from bases (which hold them). */
void opt_help(FILE *out, const opt_group *groups, void *const *bases);

/* ---- texts to values; false when the text is not one ---- */

bool opt_to_count(const char *text, int64_t *out); /* >= 0; 12, 5k, 2M */
bool opt_to_seed(const char *text, uint64_t *out); /* decimal */
bool opt_to_real(const char *text, double *out);   /* finite, decimal */
bool opt_to_rows(const char *text, opt_rows *out); /* A:B, A:, :B with A < B */

/* Bytes: 1500, 64K 512M 8G 1T (powers of 1024, also KiB...), 500KB 8GB (powers of 1000), fractions
 * such as 1.5G; "50%" is of `whole` (which must be > 0 then). */
bool opt_to_size(const char *text, int64_t whole, int64_t *out);

/* Seconds: 90s, 10m, 3h, 2d, 250ms, fractions such as 1.5h; > 0, and below 2^31. */
bool opt_to_time(const char *text, double *out);

/* "10m": as opt_to_time reads it; writes at most cap bytes into out and returns out. */
const char *opt_time_text(char *out, size_t cap, double seconds);

/* ---- words that are not ours ---- */

/* Words of other programs, and what they are here. */
typedef struct opt_word {
    const char *words; /* with blanks between them; lower case, with - and not _ */
    const char *ours;  /* an option, or a command; NULL: there is none, and note says what to do */
    const char *note;  /* a hint; NULL: what --help says of `ours` */
} opt_word;

/* The row of an option's name, in whatever case, with _ or -: first one whose `ours` is among
 * names[0..count), then any; NULL: not known. Of a command: `ours` is a command of ours. */
const opt_word *opt_find_word(const char *text, const char *const *names, int count);
const opt_word *opt_find_command_word(const char *text);

/* The hint for an option that only a later version has. */
const char *opt_word_note(const char *name);

/* The name in names[0..count) that `text` probably meant, or NULL when none is near. */
const char *opt_nearest(const char *text, const char *const *names, int count);

#endif
