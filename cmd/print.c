/* Standard output and standard error: see print.h. */
#include "print.h"

#include "../src/base/text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST 5000 /* bytes of a piece: a path of the longest kind, and some words */

#define WIDTH 80 /* of help */

static int g_out_errno;          /* of the first write to stdout that failed */
static atomic_bool g_live_shown; /* log.h calls back without an argument, on any thread */

static void write_bytes(FILE *to, const char *text, size_t len)
{
    errno = 0;
    if (fwrite(text, 1, len, to) != len && to == stdout && !g_out_errno)
        g_out_errno = errno ? errno : EIO;
}

/* `text` made safe, and what surrounds it as it is: in one write, so that lines stay whole. */
static void write_safe(FILE *to, const char *before, const char *text, const char *after)
{
    char safe[4 * MOST + 64];
    size_t head = strlen(before), tail = strlen(after);
    memcpy(safe, before, head);
    fkm_text_escape(safe + head, sizeof safe - head - tail, text);
    size_t used = strlen(safe);
    memcpy(safe + used, after, tail);
    write_bytes(to, safe, used + tail);
}

static void print_list(FILE *to, const char *fmt, va_list ap)
{
    char text[MOST], before[8] = "", after[8] = "";
    size_t first = strspn(fmt, "\n"), last = 0, len = strlen(fmt);
    while (last < len - first && fmt[len - 1 - last] == '\n')
        last++;
    memset(before, '\n', first < sizeof before - 1 ? first : sizeof before - 1);
    memset(after, '\n', last < sizeof after - 1 ? last : sizeof after - 1);
    int used = vsnprintf(text, sizeof text, fmt, ap);
    if (used < 0)
        return;
    if ((size_t)used >= sizeof text)
        strcpy(text + sizeof text - 4, "...");
    else
        text[(size_t)used - last] = '\0';
    write_safe(to, before, text + first, after);
}

void print_to(FILE *to, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    print_list(to, fmt, ap);
    va_end(ap);
}

void print_out(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    print_list(stdout, fmt, ap);
    va_end(ap);
}

void print_err(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    print_list(stderr, fmt, ap);
    va_end(ap);
}

/* Everything but newlines made safe. */
static void write_lines(FILE *to, const char *text, size_t len)
{
    for (const char *end = text + len; text < end;) {
        size_t run = 0;
        while (text + run < end && (text[run] == '\n' || fkm_shown_length(text + run) > 0))
            run += text[run] == '\n' ? 1 : fkm_shown_length(text + run);
        write_bytes(to, text, run);
        text += run;
        if (text < end) {
            char hex[8];
            write_bytes(
                to, hex, (size_t)snprintf(hex, sizeof hex, "\\x%02x", (unsigned char)*text));
            text++;
        }
    }
}

void print_wrapped(FILE *to, const char *text, int column, int indent)
{
    print_to(to, column > indent - 2 ? "\n%*s" : "%*s",
        column > indent - 2 ? indent : indent - column, "");
    column = indent;
    while (*text) {
        int len = (int)strcspn(text, " ");
        if (column > indent && column + 1 + len > WIDTH) {
            print_to(to, "\n%*s", indent, "");
            column = indent;
        }
        print_to(to, "%s%.*s", column > indent ? " " : "", len, text);
        column += (column > indent) + len;
        text += len;
        text += strspn(text, " ");
    }
    print_to(to, "\n");
}

void print_lines(const char *text)
{
    write_lines(stdout, text, strlen(text));
}

void print_flush(void)
{
    errno = 0;
    if (fflush(stdout) != 0 && !g_out_errno)
        g_out_errno = errno ? errno : EIO;
}

fkm_status cmd_stdout_sink(void *arg, const char *text, size_t len, fkm_err *e)
{
    (void)arg;
    (void)e;
    write_lines(stdout, text, len);
    return FKM_OK;
}

void print_live(const char *line)
{
    write_safe(stderr, "\r", line, "\033[K");
    g_live_shown = true;
}

void print_live_clear(void)
{
    static const char clear[] = "\r\033[K";
    if (atomic_exchange(&g_live_shown, false))
        write_bytes(stderr, clear, sizeof clear - 1);
}

static bool use_color(void)
{
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
    return isatty(STDERR_FILENO) && !(no_color && *no_color) && term && strcmp(term, "dumb") != 0;
}

void print_failure(const fkm_err *e)
{
    bool color = use_color();
    write_safe(stderr, color ? "\033[1;31mfkm:\033[0m " : "fkm: ", e->msg, "\n");
    if (e->hint[0])
        write_safe(stderr, color ? "\033[1mhint:\033[0m " : "hint: ", e->hint, "\n");
}

bool print_is_unread(void)
{
    return g_out_errno == EPIPE;
}

fkm_status print_close(fkm_err *e)
{
    errno = 0;
    if (fclose(stdout) != 0 && !g_out_errno)
        g_out_errno = errno ? errno : EIO;
    if (g_out_errno == 0 || g_out_errno == EPIPE)
        return FKM_OK;
    return fkm_fail(e, FKM_EFILE, "cannot write to standard output: %s", strerror(g_out_errno));
}
