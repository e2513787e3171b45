/* fkm: finds the command, runs it, prints its error once, and makes sure that stdout arrived. */
#include "cmd.h"

#include "../src/base/log.h"
#include "../src/base/mem.h"
#include "../src/base/text.h"
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
static const char *const later_commands[] = {
    "report", "explain", "convert", "export", "compare", "score", "step", "merge"};

/* A closed descriptor would be handed to the next file that is opened, and messages would end up in
 * somebody's data. */
static void reopen_standard_streams(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", O_RDWR) < 0)
            _exit(4);
}

/* ---- help ---- */

static void print_overview(void)
{
    print_lines("fkm - exact k-means on data of any size\n\nExamples:\n"
                "  fkm fit -k 1000 data.fvecs           cluster; writes data.k1000.*\n"
                "  fkm predict -c data.k1000 new.npy    nearest centroid of every row\n"
                "  fkm info data.fvecs                  shape, type and size\n"
                "\nUsage: fkm COMMAND [options] ...\n\nCommands:\n");
    for (int i = 0; i < COMMANDS; i++)
        print_out("  %-9s %s\n", commands[i]->name, commands[i]->about);
    print_out("  %-9s %s\n", "help", "help [COMMAND | formats | isa]");
    print_out("\n'fkm COMMAND --help' lists the options. --version prints the version.\n");
}

static void print_formats(void)
{
    print_out("Formats that fkm reads, by content first and suffix second:\n\n");
    for (int i = 0; fkm_formats[i]; i++) {
        print_out("  %-11s %-12s", fkm_formats[i]->name, fkm_formats[i]->suffixes);
        print_wrapped(stdout, fkm_formats[i]->about, 26, 28);
    }
    print_out("\nThe manual: man 5 fkm-formats\n");
}

static void print_isa(void)
{
    bool usable;
    print_lines("CPU paths for --isa, best first; the last ones round all rows to 8-bit\n"
                "integers, which amx, avx512vnni and avx2 do where it pays:\n\n");
    for (int i = 0; fkm_isa_name(i, &usable); i++) {
        const char *name = fkm_isa_name(i, &usable);
        print_out("  %-12s %s\n", name, usable ? "yes" : "not on this CPU");
    }
    if (fkm_gpu_isa_name(0))
        print_out("\nElement types of screening on GPUs:\n");
    for (int i = 0; fkm_gpu_isa_name(i); i++)
        print_out("%s%s", i > 0 ? ", " : "  ", fkm_gpu_isa_name(i));
    if (fkm_gpu_isa_name(0))
        print_out("\n");
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
    const opt_word *word = opt_find_command_word(name);
    fkm_fail(e, FKM_EUSAGE, "unknown command '%s'", name);
    if (word && word->note)
        return fkm_hint(e, "%s", word->note);
    const cmd *ours = word ? find_command(word->ours) : NULL;
    if (ours)
        return fkm_hint(e, "here it is 'fkm %s': %s", ours->name, ours->about);
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

/* Can all of it be shown? A quoted word that cannot is $'...', as bash and POSIX 2024 have it. */
static bool is_shown(const char *word)
{
    while (*word && fkm_shown_length(word) > 0)
        word += fkm_shown_length(word);
    return *word == '\0';
}

/* `word` as a shell would read it back; returns the end. out: 4 bytes a byte, and 4 more. */
static char *quote_word(char *out, const char *word)
{
    bool shown = is_shown(word);
    if (is_plain(word)) {
        strcpy(out, word);
        return out + strlen(out);
    }
    out += snprintf(out, 8, shown ? "'" : "$'");
    for (; *word; word++)
        if (shown && *word == '\'')
            out += snprintf(out, 8, "'\\''");
        else if (!shown && (*word == '\'' || *word == '\\'))
            out += snprintf(out, 8, "\\%c", *word);
        else if (!shown && (*word < ' ' || *word > '~'))
            out += snprintf(out, 8, "\\%03o", (unsigned char)*word);
        else
            *out++ = *word;
    return out + snprintf(out, 8, "'");
}

/* *out = argv as a shell would read it back. fkm_free. */
static fkm_status quote_command(char **out, int argc, char **argv, fkm_err *e)
{
    int64_t cap = 1;
    for (int i = 0; i < argc; i++)
        cap += 4 * (int64_t)strlen(argv[i]) + 5;
    FKM_TRY(fkm_alloc(out, cap, 1, "the command line", e));
    char *p = *out;
    for (int i = 0; i < argc; i++) {
        if (i > 0)
            *p++ = ' ';
        p = quote_word(p, argv[i]);
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
        print_out("fkm %s\n", FKM_VERSION);
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
    bool told = st == FKM_ESTOPPED && fkm_log_get_level() == FKM_LOG_QUIET; /* by the exit status */
    if (st != FKM_OK && !told)
        print_failure(&e);
    fkm_status out_st = print_close(&out_e);
    if (st == FKM_OK && out_st != FKM_OK) {
        print_failure(&out_e);
        st = out_st;
    }
    if (stopped_by)
        return stopped_by == SIGALRM ? EXIT_RESUMABLE : 128 + stopped_by;
    return fkm_exit_code(st);
}
