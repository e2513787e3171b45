/* Stopping by signal: see cmd.h. */
#include "cmd.h"

#include <string.h>
#include <sys/time.h>

static volatile sig_atomic_t g_stop;

/* The first signal asks; a second one of any kind gets its default action as soon as the handler
 * returns, which ends the process. The end of the time limit is no signal in that sense. */
static void on_signal(int number)
{
    if (g_stop && g_stop != SIGALRM) {
        signal(number, SIG_DFL);
        raise(number);
    }
    g_stop = number;
}

static void on_alarm(int number)
{
    if (!g_stop)
        g_stop = number;
}

static void handle(int number, void (*handler)(int))
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    sigemptyset(&action.sa_mask);
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    sigaction(number, &action, NULL);
}

void cmd_catch_signals(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        struct sigaction old;
        if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler == SIG_IGN)
            continue;
        handle(numbers[i], on_signal);
    }
}

void cmd_limit_time(double seconds)
{
    double least = seconds > 1e-6 ? seconds : 1e-6; /* 0 would be never */
    struct itimerval timer = {.it_value.tv_sec = (time_t)least};
    timer.it_value.tv_usec = (suseconds_t)((least - (double)timer.it_value.tv_sec) * 1e6);
    handle(SIGALRM, on_alarm);
    setitimer(ITIMER_REAL, &timer, NULL);
}

const volatile sig_atomic_t *cmd_stop_flag(void)
{
    return &g_stop;
}
