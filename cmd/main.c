/* fkm: finds the command, runs it, prints its error once, and makes sure that stdout arrived. */
#include "cmd.h"

#include "../src/base/log.h"
#include "../src/base/mem.h"
#include "../src/base/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const cmd *const commands[] = {&cmd_fit, &cmd_predict, &cmd_info, &cmd_bench};
#define EXIT_RESUMABLE 75 /* the time limit is over; EX_TEMPFAIL of sysexits.h */
#define COMMANDS ((int)(sizeof commands / sizeof commands[0]))

/* Names of the manual that this version does not have. */
static const char *const later_commands[] = {"report", "convert"};

/* A closed descriptor would be handed to the next file that is opened, and messages would end up in
 * somebody's data. */
static void reopen_standard_streams(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", O_RDWR) < 0)
            _exit(4);
}

static bool use_color(void)
{
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
    return isatty(STDERR_FILENO) && !(no_color && *no_color) && term && strcmp(term, "dumb") != 0;
}

static void print_error(const fkm_err *e)
{
    bool color = use_color();
    fprintf(stderr, "%sfkm:%s %s\n", color ? "\033[1;31m" : "", color ? "\033[0m" : "", e->msg);
    if (e->hint[0])
        fprintf(stderr, "%shint:%s %s\n", color ? "\033[1m" : "", color ? "\033[0m" : "", e->hint);
}

/* ---- help ---- */

static void print_overview(void)
{
    printf("fkm - exact k-means on data of any size\n\nExamples:\n"
           "  fkm fit -k 1000 data.fvecs                       cluster; writes data.k1000.*\n"
           "  fkm predict -c data.k1000 new.npy                nearest centroid of every row\n"
           "  fkm info data.fvecs                              shape, type and layout\n"
           "\nUsage: fkm COMMAND [options] ...\n\nCommands:\n");
    for (int i = 0; i < COMMANDS; i++)
        printf("  %-9s %s\n", commands[i]->name, commands[i]->about);
    printf("  %-9s %s\n", "help", "help [COMMAND | formats | isa]");
    printf("\n'fkm COMMAND --help' lists the options. --version prints the version.\n");
}

static void print_formats(void)
{
    printf("Formats that fkm reads, by content first and suffix second:\n\n");
    for (int i = 0; fkm_formats[i]; i++)
        printf("  %-12s %-34s %s\n", fkm_formats[i]->name, fkm_formats[i]->suffixes,
            fkm_formats[i]->about);
    printf("\nThe manual: man 5 fkm-formats\n");
}

static void print_isa(void)
{
    bool usable;
    printf(
        "CPU paths for --isa, best first; the last ones round all rows to 8-bit integers, which\n"
        "amx, avx512vnni and avx2 do where it pays:\n\n");
    for (int i = 0; fkm_isa_name(i, &usable); i++) {
        const char *name = fkm_isa_name(i, &usable);
        printf("  %-12s %s\n", name, usable ? "yes" : "not on this CPU");
    }
    for (int i = 0; fkm_gpu_isa_name(i); i++)
        printf("%s%s", i ? ", " : "\nElement types of screening on GPUs: ", fkm_gpu_isa_name(i));
    if (fkm_gpu_isa_name(0))
        printf("\n");
}

static const cmd *find_command(const char *name)
{
    for (int i = 0; i < COMMANDS; i++)
        if (!strcmp(commands[i]->name, name))
            return commands[i];
    return NULL;
}

static fkm_status unknown_command(const char *name, fkm_err *e)
{
    const char *names[COMMANDS + 1];
    for (size_t i = 0; i < sizeof later_commands / sizeof later_commands[0]; i++)
        if (!strcmp(name, later_commands[i])) {
            fkm_fail(e, FKM_EUSAGE, "command %s is not in this version of fkm", name);
            return fkm_hint(e, "'fkm help' lists the commands");
        }
    for (int i = 0; i < COMMANDS; i++)
        names[i] = commands[i]->name;
    names[COMMANDS] = "help";
    const char *near = opt_nearest(name, names, COMMANDS + 1);
    fkm_fail(e, FKM_EUSAGE, "unknown command '%s'", name);
    if (near)
        return fkm_hint(e, "did you mean 'fkm %s'?", near);
    return fkm_hint(e, "'fkm help' lists the commands");
}

static fkm_status help_on(const char *topic, fkm_err *e)
{
    char help[] = "--help";
    const cmd *c = find_command(topic);
    if (c) {
        char *argv[] = {(char *)c->name, help, NULL};
        return c->run(c, 2, argv, "", e);
    }
    if (!strcmp(topic, "formats"))
        print_formats();
    else if (!strcmp(topic, "isa"))
        print_isa();
    else if (!strcmp(topic, "help"))
        print_overview();
    else
        return unknown_command(topic, e);
    return FKM_OK;
}

/* ---- running ---- */

static bool is_plain(const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_-./:=+,@%";
    return *word != '\0' && strspn(word, plain) == strlen(word);
}

/* *out = argv as a shell would read it back. fkm_free. */
static fkm_status quote_command(char **out, int argc, char **argv, fkm_err *e)
{
    int64_t cap = 1;
    for (int i = 0; i < argc; i++)
        cap += 4 * (int64_t)strlen(argv[i]) + 3; /* each ' becomes '\'' */
    FKM_TRY(fkm_alloc(out, cap, 1, "the command line", e));
    char *p = *out;
    for (int i = 0; i < argc; i++) {
        bool plain = is_plain(argv[i]);
        if (i > 0)
            *p++ = ' ';
        if (!plain)
            *p++ = '\'';
        for (const char *c = argv[i]; *c; c++)
            if (*c == '\'') {
                memcpy(p, "'\\''", 4);
                p += 4;
            } else {
                *p++ = *c;
            }
        if (!plain)
            *p++ = '\'';
    }
    *p = '\0';
    return FKM_OK;
}

static fkm_status run(int argc, char **argv, fkm_err *e)
{
    if (argc < 2) {
        fkm_fail(e, FKM_EUSAGE, "no command given");
        return fkm_hint(e, "'fkm help' lists the commands; a first one: fkm fit -k 100 data.npy");
    }
    const char *word = argv[1];
    if (!strcmp(word, "--version") || !strcmp(word, "-V")) {
        printf("fkm %s\n", FKM_VERSION);
        return FKM_OK;
    }
    if (!strcmp(word, "--help") || !strcmp(word, "-h") || (!strcmp(word, "help") && argc == 2)) {
        print_overview();
        return FKM_OK;
    }
    if (!strcmp(word, "help"))
        return help_on(argv[2], e);
    const cmd *c = find_command(word);
    if (!c && word[0] == '-') {
        fkm_fail(e, FKM_EUSAGE, "unknown option %s before a command", word);
        return fkm_hint(e, "options follow the command: fkm fit %s ...", word);
    }
    if (!c)
        return unknown_command(word, e);
    char *line;
    FKM_TRY(fkm_stack_check(e));
    FKM_TRY(quote_command(&line, argc, argv, e));
    fkm_status st = c->run(c, argc - 1, argv + 1, line, e);
    fkm_free(line);
    return st;
}

/* Results that did not arrive are no results: a full disk must not look like success. */
static fkm_status close_stdout(fkm_err *e)
{
    bool failed = ferror(stdout) != 0;
    errno = 0;
    if (fclose(stdout) == 0 && !failed)
        return FKM_OK;
    return fkm_fail(e, FKM_EFILE, "cannot write to standard output: %s",
        errno ? strerror(errno) : "an earlier write failed");
}

int main(int argc, char **argv)
{
    fkm_err e = {0}, out_e = {0};
    reopen_standard_streams();
    signal(SIGPIPE, SIG_IGN); /* a reader that goes away shows as EPIPE */
    signal(SIGXFSZ, SIG_IGN); /* a file size limit shows as EFBIG */
    fkm_status st = run(argc, argv, &e);
    int stopped_by = st == FKM_ESTOPPED ? (int)*cmd_stop_flag() : 0;
    if (stopped_by && !e.hint[0]) /* a command that has more to say leaves a hint */
        fkm_fail(&e, FKM_ESTOPPED, "stopped by signal %d (%s); nothing was written", stopped_by,
            strsignal(stopped_by));
    if (st != FKM_OK)
        print_error(&e);
    fkm_status out_st = close_stdout(&out_e);
    if (st == FKM_OK && out_st != FKM_OK) {
        print_error(&out_e);
        st = out_st;
    }
    if (stopped_by)
        return stopped_by == SIGALRM ? EXIT_RESUMABLE : 128 + stopped_by;
    return fkm_exit_code(st);
}
