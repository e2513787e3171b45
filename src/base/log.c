/* Talk on stderr: see log.h. */
#include "log.h"

#include "text.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_WARNINGS 64

static fkm_log_level g_level = FKM_LOG_NORMAL;
static pthread_mutex_t g_lock = PTHREAD_MUTEX_INITIALIZER;
static const char *g_warnings[MAX_WARNINGS];
static int g_warning_count;
static void (*g_before)(void);

void fkm_log_set_level(fkm_log_level level)
{
    g_level = level;
}

fkm_log_level fkm_log_get_level(void)
{
    return g_level;
}

void fkm_log_on_line(void (*before)(void))
{
    g_before = before;
}

static void print_line(const char *prefix, const char *text)
{
    char safe[3300]; /* of 800 bytes, each as four */
    if (g_before)
        g_before();
    fprintf(stderr, "%s%s\n", prefix, fkm_text_escape(safe, sizeof safe, text));
}

void fkm_warn(const char *fmt, ...)
{
    char text[800];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    pthread_mutex_lock(&g_lock);
    if (g_warning_count < MAX_WARNINGS) {
        char *copy = strdup(text);
        if (copy)
            g_warnings[g_warning_count++] = copy;
    }
    if (g_level > FKM_LOG_QUIET)
        print_line("fkm: warning: ", text);
    pthread_mutex_unlock(&g_lock);
}

static void say(fkm_log_level level, const char *fmt, va_list ap)
{
    char text[800];
    if (g_level < level)
        return;
    vsnprintf(text, sizeof text, fmt, ap);
    pthread_mutex_lock(&g_lock);
    print_line("fkm: ", text);
    pthread_mutex_unlock(&g_lock);
}

void fkm_note(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say(FKM_LOG_NORMAL, fmt, ap);
    va_end(ap);
}

void fkm_verbose(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say(FKM_LOG_VERBOSE, fmt, ap);
    va_end(ap);
}

int fkm_log_warnings(const char *const **list)
{
    *list = g_warnings;
    return g_warning_count;
}
