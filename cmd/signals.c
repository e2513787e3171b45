/* Stopping by signal: see cmd.h. */
#include "cmd.h"

#include <assert.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>

/* Atomic, not volatile: problems of a batch look at it from threads of their own. */
static_assert(ATOMIC_INT_LOCK_FREE == 2, "a handler may touch it");
static atomic_int g_stop;

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
    int none = 0;
    atomic_compare_exchange_strong(&g_stop, &none, number);
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

const atomic_int *cmd_stop_flag(void)
{
    return &g_stop;
}
