#include "cli/lost_pages.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "cli/command.h"

/* What is called here may be called by a handler of signals. */

static uintptr_t hex(const char **at)
{
    static const char digits[] = "0123456789abcdef";
    uintptr_t n = 0;

    for (const char *d; **at && (d = strchr(digits, **at)); ++*at)
        n = n * 16 + (uintptr_t)(d - digits);
    return n;
}

/* The path in a line of /proc/self/maps, "begin-end rights offset device inode path", where the
 * address lies between its ends and in a file; else NULL. */
static const char *path_in(const char *line, uintptr_t address)
{
    uintptr_t begin = hex(&line), end;

    if (*line++ != '-')
        return NULL;
    end = hex(&line);
    return begin <= address && address < end ? strchr(line, '/') : NULL;
}

/* Writes the line that names the file at an address; false: it lies in none. */
static bool tell(uintptr_t address)
{
    static const char before[] = "clm: ", after[] = " has lost what was to be read: it was cut "
                                                    "off while it was in use, or its disk fails\n";
    static char buffer[4096], line[PATH_MAX + 128];
    size_t n_line = 0;
    int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);

    for (ssize_t n; maps >= 0 && (n = read(maps, buffer, sizeof buffer)) > 0;)
        for (ssize_t i = 0; i < n; i++) {
            const char *path;

            if (buffer[i] != '\n') {
                line[n_line] = buffer[i];
                n_line += n_line < sizeof line - 1;
                continue;
            }
            line[n_line] = '\0';
            n_line = 0;
            path = path_in(line, address);
            if (path)
                return write(STDERR_FILENO, before, sizeof before - 1) >= 0 &&
                       write(STDERR_FILENO, path, strlen(path)) >= 0 &&
                       write(STDERR_FILENO, after, sizeof after - 1) >= 0;
        }
    return false;
}

static void end(int number, siginfo_t *info, void *context)
{
    static atomic_flag taken = ATOMIC_FLAG_INIT;

    (void)context;
    while (atomic_flag_test_and_set(&taken)) /* another thread tells it, and ends this one too */
        pause();
    if (tell((uintptr_t)info->si_addr))
        _exit(STATUS_FAILED);
    signal(number, SIG_DFL);
    raise(number); /* deadly now, when this returns */
}

void lost_pages_watch(void)
{
    struct sigaction action = {.sa_sigaction = end, .sa_flags = SA_SIGINFO};

    sigfillset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
}
