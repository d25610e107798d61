#include "base/processors.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/thread.h"

#ifdef __linux__
#include <sched.h>
#endif
#ifdef __APPLE__
#include <sys/sysctl.h>
#endif

#define MAX_CPUS 8192
#define CPU_BITS (8 * (int)sizeof(unsigned long)) /* of a word of a set of them */
#define MAX_PATH 1024
#define MAX_TEXT (64 * 1024)

/* The text of a small file, or NULL where there is none; mem_free. */
static char *read_text(const char *path)
{
    size_t size;

    return file_read(path, MAX_TEXT, &size, NULL);
}

/* The lowest allowed CPU in a list such as "0-1,64-65\n", or -1. */
static int lowest_allowed(const char *list, const bool *allowed, int n)
{
    const char *p = list;
    char *end;

    for (;;) {
        long first = strtol(p, &end, 10);
        long last = first;

        if (end == p || first < 0)
            return -1;
        if (*end == '-') {
            p = end + 1;
            last = strtol(p, &end, 10);
            if (end == p)
                return -1;
        }
        for (long i = first; i <= last && i < n; i++)
            if (allowed[i])
                return (int)i;
        if (*end != ',')
            return -1;
        p = end + 1;
    }
}

static int count_cores(const char *root, const bool *allowed, int n)
{
    int cores = 0;

    for (int i = 0; i < n; i++) {
        char path[MAX_PATH];
        char *siblings;

        if (!allowed[i])
            continue;
        snprintf(path, sizeof path, "%s/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list",
                 root, i);
        siblings = read_text(path);
        /* A core is counted at the first of its allowed threads; unknown ones stand for
         * themselves. */
        if (!siblings || lowest_allowed(siblings, allowed, i) < 0)
            cores++;
        mem_free(siblings);
    }
    return cores;
}

/* CPUs that quota microseconds in each period allow, rounded up; INT32_MAX where unlimited. */
static int quota_cpus(long long quota, long long period)
{
    long long cpus;

    if (quota <= 0 || period <= 0)
        return INT32_MAX;
    cpus = (quota - 1) / period + 1;
    return cpus < INT32_MAX ? (int)cpus : INT32_MAX;
}

/* cgroup v2: cpu.max holds "quota period" or "max period". */
static int quota_v2(const char *folder)
{
    char path[MAX_PATH + 16];
    long long quota, period;
    int cpus = INT32_MAX;
    char *text;

    snprintf(path, sizeof path, "%s/cpu.max", folder);
    text = read_text(path);
    if (text && sscanf(text, "%lld %lld", &quota, &period) == 2)
        cpus = quota_cpus(quota, period);
    mem_free(text);
    return cpus;
}

/* cgroup v1: two files of one number each; a quota of -1 is none. */
static int quota_v1(const char *folder)
{
    static const char *const names[] = {"cpu.cfs_quota_us", "cpu.cfs_period_us"};
    long long values[2] = {-1, -1};

    for (int i = 0; i < 2; i++) {
        char path[MAX_PATH + 32];
        char *text;

        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        text = read_text(path);
        if (text)
            values[i] = strtoll(text, NULL, 10);
        mem_free(text);
    }
    return quota_cpus(values[0], values[1]);
}

/* The least quota of a group and all groups around it. A container may show paths of the host,
 * which do not exist inside: the walk up ends at the mount point, which does. */
static int least_quota(const char *mount, const char *group, int (*quota)(const char *folder))
{
    char folder[MAX_PATH];
    size_t mount_length = strlen(mount);
    int least = INT32_MAX;

    if (snprintf(folder, sizeof folder, "%s%s", mount, group) >= (int)sizeof folder)
        return least;
    for (;;) {
        int cpus = quota(folder);
        char *slash;

        if (cpus < least)
            least = cpus;
        slash = strrchr(folder, '/');
        if (!slash || (size_t)(slash - folder) < mount_length)
            return least;
        *slash = '\0';
    }
}

/* Whether a comma-separated list of cgroup controllers has "cpu". */
static bool has_cpu_controller(const char *list)
{
    size_t n;

    for (;; list += n + 1) {
        n = strcspn(list, ",");
        if (n == 3 && strncmp(list, "cpu", 3) == 0)
            return true;
        if (!list[n])
            return false;
    }
}

/* One line of /proc/self/cgroup: "id:controllers:group", controllers empty for v2. */
static int line_quota(const char *root, char *line)
{
    char mount[MAX_PATH];
    char *controllers = strchr(line, ':');
    char *group = controllers ? strchr(controllers + 1, ':') : NULL;

    if (!group)
        return INT32_MAX;
    *group++ = '\0';
    controllers++;
    if (!*controllers) {
        snprintf(mount, sizeof mount, "%s/sys/fs/cgroup", root);
        return least_quota(mount, group, quota_v2);
    }
    if (!has_cpu_controller(controllers))
        return INT32_MAX;
    snprintf(mount, sizeof mount, "%s/sys/fs/cgroup/%s", root, controllers);
    return least_quota(mount, group, quota_v1);
}

static int cgroup_quota(const char *root)
{
    char path[MAX_PATH];
    int least = INT32_MAX;
    char *text, *line, *rest = NULL;

    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    text = read_text(path);
    for (line = text ? strtok_r(text, "\n", &rest) : NULL; line;
         line = strtok_r(NULL, "\n", &rest)) {
        int cpus = line_quota(root, line);

        if (cpus < least)
            least = cpus;
    }
    mem_free(text);
    return least;
}

int processors_usable(const char *root, const bool *allowed, int n)
{
    int cores = count_cores(root, allowed, n);
    int quota = cgroup_quota(root);

    if (quota < cores)
        cores = quota;
    return cores > 1 ? cores : 1;
}

#ifdef __linux__
/* Fills allowed[0..MAX_CPUS) from the affinity mask; false where it cannot be read. */
static bool read_affinity(bool *allowed)
{
    size_t size = CPU_ALLOC_SIZE(MAX_CPUS);
    cpu_set_t *set = mem_alloc(size);
    bool ok = set && sched_getaffinity(0, size, set) == 0;

    for (int i = 0; ok && i < MAX_CPUS; i++)
        allowed[i] = CPU_ISSET_S((size_t)i, size, set);
    mem_free(set);
    return ok;
}

int processors_allowed(void)
{
    bool allowed[MAX_CPUS];
    int n = 0;

    if (!read_affinity(allowed))
        return 1;
    for (int i = 0; i < MAX_CPUS; i++)
        n += allowed[i];
    return n > 1 ? n : 1;
}

int processors_here(void)
{
    return sched_getcpu();
}

bool processors_leave(const int *taken, int n)
{
    unsigned long allowed[MAX_CPUS / CPU_BITS], others[COUNT(allowed)];
    size_t size = sizeof allowed;
    bool any = false;

    memset(allowed, 0, size);
    if (sched_getaffinity(0, size, (void *)allowed))
        return false;
    memcpy(others, allowed, size);
    for (int i = 0; i < n; i++)
        if (taken[i] >= 0 && taken[i] < MAX_CPUS)
            others[taken[i] / CPU_BITS] &= ~(1ul << taken[i] % CPU_BITS);
    for (size_t i = 0; i < COUNT(others); i++)
        any = any || others[i];
    if (!any || sched_setaffinity(0, size, (void *)others))
        return false;
    /* It has moved; that it may go back, too, fails only where it is no longer allowed to. */
    sched_setaffinity(0, size, (void *)allowed);
    return true;
}

int thread_count_default(void)
{
    bool allowed[MAX_CPUS];

    return read_affinity(allowed) ? processors_usable("", allowed, MAX_CPUS) : 1;
}
#else
int processors_here(void)
{
    return -1;
}

bool processors_leave(const int *taken, int n)
{
    (void)taken;
    (void)n;
    return false;
}

int processors_allowed(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);

    return n > 1 ? (int)n : 1;
}

int thread_count_default(void)
{
#ifdef __APPLE__
    int n = 0;
    size_t size = sizeof n;

    if (sysctlbyname("hw.physicalcpu", &n, &size, NULL, 0) == 0 && n > 0)
        return n;
#endif
    return processors_allowed();
}
#endif
