/* Stopping by signal: see cmd.h. */
#include "cmd.h"

#include "../src/base/clock.h"
#include "../src/base/sysinfo.h"

#include <assert.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>

#define REPEAT_S 2.0 /* one key press may arrive twice: from the terminal and from a launcher */

/* Atomic, not volatile: problems of a batch look at it from threads of their own. */
static_assert(ATOMIC_INT_LOCK_FREE == 2, "a handler may touch it");
static atomic_int g_stop;
static _Atomic double g_stop_s; /* on the clock, of the first one */
static_assert(
    ATOMIC_LLONG_LOCK_FREE == 2 && sizeof(double) == sizeof(long long), "a handler may touch it");

/* The same signal soon after the first is that one again: mpirun and srun forward what the terminal
 * has sent to the whole group of processes. The kernel repeats SIGXCPU every second. */
static bool is_repeated(int number)
{
    return number == g_stop && (number == SIGXCPU || fkm_now() - g_stop_s < REPEAT_S);
}

/* The first signal asks; a second one of any kind gets its default action as soon as the handler
 * returns, which ends the process. The end of the time limit is no signal in that sense. */
static void on_signal(int number)
{
    if (is_repeated(number))
        return;
    if (g_stop && g_stop != SIGALRM) {
        signal(number, SIG_DFL);
        raise(number);
    }
    g_stop_s = fkm_now();
    g_stop = number;
}

static void on_alarm(int number)
{
    int none = 0;
    atomic_compare_exchange_strong(&g_stop, &none, number);
}

/* One handler at a time: two signals that arrive together are told apart. */
static void handle(int number, void (*handler)(int))
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    sigfillset(&action.sa_mask);
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    sigaction(number, &action, NULL);
}

void cmd_catch_signals(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGXCPU};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        struct sigaction old;
        if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler == SIG_IGN)
            continue;
        handle(numbers[i], on_signal);
    }
    fkm_leave_cpu_time();
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
