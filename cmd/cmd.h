/* Subcommands: one table row, one file each. They parse, call src/, print; no numerics. */
#ifndef FKM_CMD_H
#define FKM_CMD_H

#include "../src/fkm.h"
#include "opt.h"
#include "print.h"
#include <signal.h>

typedef struct cmd cmd;

struct cmd {
    const char *name;     /* "fit" */
    const char *about;    /* one line, also the NAME of its man page */
    const char *usage;    /* what follows "fkm fit " */
    const char *examples; /* lines, indented by two */
    const opt_group *groups;
    /* argv[0] is the command's name; `line` is the whole command line, quoted for a shell. */
    fkm_status (*run)(const cmd *self, int argc, char **argv, const char *line, fkm_err *e);
};

extern const cmd cmd_fit, cmd_predict, cmd_info, cmd_bench;

/* ---- options that several commands share: one spelling, one meaning ---- */

enum { PROGRESS_AUTO, PROGRESS_ALWAYS, PROGRESS_NEVER };

typedef struct common_args {
    fkm_machine machine;
    const char *dataset;
    opt_rows rows;
    fkm_dtype dtype;
    bool json, quiet, verbose, help;
    bool one_dim, may_be_empty; /* not options: what the command takes, see fkm_format_options */
    int progress;
} common_args;

extern const opt common_machine_rows[]; /* -d -j -m --isa, into common_args */
extern const opt common_input_rows[];   /* --dataset --rows --dtype */
extern const opt common_talk_rows[];    /* --json -q -v --progress -h */

void common_args_default(common_args *a);

/* Parses a command's options, prints --help when it is asked for (*done: nothing more to do), sets
 * the log level. *first: index of the first operand. */
fkm_status cmd_parse(const cmd *self, void *const *bases, const common_args *common, int argc,
    char **argv, int *first, bool *done, fkm_err *e) FKM_MUST_USE;

/* Opens the operands as one data set, with the common input options. */
fkm_status cmd_open_input(
    fkm_reader **out, const common_args *a, char **paths, int count, fkm_err *e) FKM_MUST_USE;

/* FKM_EUSAGE when outputs cannot be named after this operand; option: what names them. */
fkm_status cmd_check_name(const char *path, const char *option, fkm_err *e) FKM_MUST_USE;

/* How a batch becomes one data set: "a.reshape(100, 784) or a.reshape(2800, 28)". Returns out. */
const char *cmd_batch_advice(char *out, size_t cap, const fkm_reader *in);

/* ---- signals ---- */

/* From here on SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2 and SIGXCPU ask to stop; a second
 * one quits at once, unless it is the same within two seconds, or SIGXCPU. Called when there is
 * something to clean up; signals that were ignored (nohup) stay ignored. */
void cmd_catch_signals(void);
const atomic_int *cmd_stop_flag(void); /* number of the signal, or 0 */

/* Sets the stop flag to SIGALRM after so many seconds, unless a signal did before. A signal that
 * comes later takes its place. */
void cmd_limit_time(double seconds);

/* ---- centroids from a file or a previous run ---- */

typedef struct centroids {
    float *values; /* [batch][clusters][dims], finite */
    bool is_batch; /* the file has three dimensions */
    int64_t batch; /* 1 unless is_batch */
    int32_t clusters, dims;
    char *path; /* of the file */
    fkm_file_id id;
} centroids;

/* `name` is a file, or the PREFIX of a run (its stats.json is there and vouches for the file). */
fkm_status centroids_load(centroids *out, const char *name, fkm_err *e) FKM_MUST_USE;
void centroids_free(centroids *c); /* fields only; safe on zeroed ones */

#endif
