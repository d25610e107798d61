#include "cli/interrupt.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t seen;

static void note(int signal_number)
{
    (void)signal_number;
    seen = 1;
}

static void watch(int flags)
{
    /* Restarting keeps a write to the terminal whole. */
    struct sigaction action = {.sa_handler = note, .sa_flags = SA_RESTART | flags}, before;

    if (sigaction(SIGINT, NULL, &before) == 0 && before.sa_handler == SIG_IGN)
        return;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
}

void interrupt_watch(void)
{
    watch((int)SA_RESETHAND); /* makes the second one deadly */
}

void interrupt_catch(void)
{
    watch(0);
}

bool interrupt_seen(void)
{
    return seen != 0;
}

void interrupt_forget(void)
{
    seen = 0;
}
