/* Stopping by signal: see cmd.h. */
#include "cmd.h"

#include <string.h>

static volatile sig_atomic_t g_stop;

/* The first signal asks; a second one of any kind gets its default action as soon as the handler
 * returns, which ends the process. */
static void on_signal(int number)
{
    if (g_stop) {
        signal(number, SIG_DFL);
        raise(number);
    }
    g_stop = number;
}

void cmd_catch_signals(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        struct sigaction old, action;
        if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler == SIG_IGN)
            continue;
        memset(&action, 0, sizeof action);
        sigemptyset(&action.sa_mask);
        action.sa_handler = on_signal;
        action.sa_flags = SA_RESTART;
        sigaction(numbers[i], &action, NULL);
    }
}

const volatile sig_atomic_t *cmd_stop_flag(void)
{
    return &g_stop;
}
