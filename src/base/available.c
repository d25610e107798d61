#include "base/available.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/file.h"
#include "base/memory.h"

/* The number behind a key of a file of lines, "MemAvailable: 123 kB", or of a file that holds
 * nothing but a number (key ""); -1 without. */
static double number_in(const char *path, const char *key)
{
    size_t size;
    char *text = file_read(path, 65536, &size, NULL), *at = text ? strstr(text, key) : NULL, *end;
    double value = -1;

    if (at) {
        at += strlen(key);
        value = strtod(at, &end);
        if (end == at)
            value = -1;
    }
    mem_free(text);
    return value;
}

/* A control group's limit, what it uses, and what of that is cached files that can be let go. */
struct group {
    const char *limit, *used, *statistics, *cached;
};

/* What a control group leaves; -1 when it sets no limit (its file then says "max"). */
static double group_leaves(const struct group *g)
{
    double limit = number_in(g->limit, ""), used = number_in(g->used, "");
    double cached = number_in(g->statistics, g->cached);

    if (limit < 0 || used < 0 || limit >= 9e18)
        return -1;
    used -= cached > 0 ? cached : 0;
    return limit > used ? limit - used : 0;
}

size_t memory_available(void)
{
    static const struct group groups[] = {
        {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat",
         "\nfile "},
        {"/sys/fs/cgroup/memory/memory.limit_in_bytes",
         "/sys/fs/cgroup/memory/memory.usage_in_bytes", "/sys/fs/cgroup/memory/memory.stat",
         "\ntotal_cache "},
    };
    double bytes = number_in("/proc/meminfo", "MemAvailable:") * 1024;

    for (size_t i = 0; i < COUNT(groups); i++) {
        double left = group_leaves(&groups[i]);

        if (left >= 0 && (bytes < 0 || left < bytes))
            bytes = left;
    }
    return bytes > 0 ? (size_t)bytes : 0;
}

size_t memory_peak(void)
{
    /* What getrusage tells is, on Linux, at least what the process that started this one had. */
    double kib = number_in("/proc/self/status", "VmHWM:");
    struct rusage usage;

    if (kib < 0 && getrusage(RUSAGE_SELF, &usage) == 0)
        kib = (double)usage.ru_maxrss;
    return kib > 0 ? (size_t)kib * 1024 : 0;
}
