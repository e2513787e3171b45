/* Options and steps that several commands share: see cmd.h. */
#include "cmd.h"

#include "../src/base/file.h"
#include "../src/base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define AT(field) offsetof(common_args, field)

/* clang-format off */
const opt common_machine_rows[] = {
    {.kind = OPT_DEVICE, .letter = 'd', .name = "device", .offset = AT(machine.device),
        .metavar = "auto|cpu|cuda[:LIST]", .env = "FKM_DEVICE", .show_default = true,
        .help = "where to compute; auto takes GPUs if there are any, an explicit cuda without a GPU is "
            "an error"},
    {.kind = OPT_COUNT, .letter = 'j', .name = "threads", .offset = AT(machine.threads),
        .metavar = "N", .min = 1, .max = 4096, .env = "FKM_THREADS",
        .help = "number of threads (default: the CPUs that affinity and cgroup allow)"},
    {.kind = OPT_SIZE, .letter = 'm', .name = "memory", .offset = AT(machine.memory_bytes),
        .metavar = "SIZE", .env = "FKM_MEMORY",
        .help = "most memory to use: 8G, 512M (powers of 1024), 8GB (powers of 1000) or 50% of what is "
            "available (default: half of what is available)"},
    {.kind = OPT_ISA, .name = "isa", .offset = AT(machine.isa), .metavar = "NAME", .env = "FKM_ISA",
        .help = "force a CPU path or a GPU's element type, for tests and bug reports; 'fkm help isa' lists them (default: the "
            "best)"},
    {.kind = OPT_BYTES, .name = "gpu-memory", .offset = AT(machine.gpu_memory_bytes),
        .metavar = "SIZE",
        .help = "most memory to use on each GPU: 8G, 512M, 8GB (default: nearly all that is free)"},
    {.kind = OPT_END},
};

const opt common_input_rows[] = {
    {.kind = OPT_TEXT, .name = "dataset", .offset = AT(dataset), .metavar = "NAME",
        .help = "dataset inside .h5, tensor inside .safetensors (default: the only 2-D numeric one)"},
    {.kind = OPT_ROWS, .name = "rows", .offset = AT(rows), .metavar = "A:B",
        .help = "use rows A to B-1 only, counted from 0; A: and :B work too (default: all)"},
    {.kind = OPT_DTYPE, .name = "dtype", .offset = AT(dtype), .metavar = "TYPE",
        .help = "element type where a file has none, or holds bf16 as 2-byte void or 16-bit integers in .npy "
            "(default: from the file)"},
    {.kind = OPT_END},
};

const opt common_talk_rows[] = {
    {.kind = OPT_FLAG, .name = "json", .offset = AT(json),
        .help = "print the result as one JSON object on stdout"},
    {.kind = OPT_FLAG, .letter = 'q', .name = "quiet", .offset = AT(quiet),
        .help = "print errors only"},
    {.kind = OPT_FLAG, .letter = 'v', .name = "verbose", .offset = AT(verbose),
        .help = "say on stderr what is chosen, and why"},
    {.kind = OPT_CHOICE, .name = "progress", .offset = AT(progress), .metavar = "auto|always|never",
        .choices = "auto|always|never", .show_default = true,
        .help = "progress on stderr: a live line on a terminal, sparse lines in a log"},
    {.kind = OPT_FLAG, .letter = 'h', .name = "help", .offset = AT(help),
        .help = "print this help"},
    {.kind = OPT_END},
};
/* clang-format on */

void common_args_default(common_args *a)
{
    *a = (common_args){.machine.device = "auto", .rows = {0, -1}};
}

static void print_help(const cmd *self, void *const *bases)
{
    print_out("fkm %s - %s\n\n", self->name, self->about);
    print_out("Examples:\n");
    print_lines(self->examples);
    print_out("\nUsage: fkm %s %s\n", self->name, self->usage);
    opt_help(stdout, self->groups, bases);
    print_out("\nThe manual: man fkm-%s\n", self->name);
}

fkm_status cmd_parse(const cmd *self, void *const *bases, const common_args *common, int argc,
    char **argv, int *first, bool *done, fkm_err *e)
{
    *done = false;
    /* --help shows the defaults, so they are printed before parsing overwrites them. */
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (!strcmp(argv[i], "-h") || !strcmp(argv[i], "--help")) {
            print_help(self, bases);
            *done = true;
            return FKM_OK;
        }
    FKM_TRY(opt_parse(self->groups, bases, argc, argv, first, e));
    if (common->help) { /* among other letters, as in -vh: defaults may show what was given */
        print_help(self, bases);
        *done = true;
        return FKM_OK;
    }
    if (common->quiet && common->verbose)
        return fkm_fail(e, FKM_EUSAGE, "--quiet and --verbose exclude each other");
    fkm_log_set_level(common->quiet     ? FKM_LOG_QUIET
                      : common->verbose ? FKM_LOG_VERBOSE
                                        : FKM_LOG_NORMAL);
    return FKM_OK;
}

fkm_status cmd_open_input(
    fkm_reader **out, const common_args *a, char **paths, int count, fkm_err *e)
{
    fkm_reader_spec spec = {
        .paths = (const char *const *)paths,
        .path_count = count,
        .dataset = a->dataset,
        .dtype = a->dtype,
        .one_dim = a->one_dim,
        .may_be_empty = a->may_be_empty,
        .row_begin = a->rows.begin,
        .row_end = a->rows.end,
    };
    return fkm_reader_open(out, &spec, e);
}

fkm_status cmd_check_name(const char *path, const char *option, fkm_err *e)
{
    if (fkm_path_is_name(path))
        return FKM_OK;
    fkm_fail(e, FKM_EUSAGE, "%s has no name that the outputs could be given",
        strcmp(path, "-") != 0 ? path : "standard input");
    return fkm_hint(e, "name them: %s", option);
}

const char *cmd_batch_advice(char *out, size_t cap, const fkm_reader *in)
{
    const fkm_shape *s = fkm_reader_shape(in);
    snprintf(out, cap, "a.reshape(%" PRId64 ", %" PRId64 ") or a.reshape(%" PRId64 ", %" PRId32 ")",
        s->batch, s->rows * s->dims, s->batch * s->rows, s->dims);
    return out;
}
