/* base/processors.h: how many threads are worth having on this machine. */
#ifndef BASE_PROCESSORS_H
#define BASE_PROCESSORS_H

#include <stdbool.h>

/**
 * Physical cores among the allowed CPUs, limited by the cgroup's CPU quota rounded up; at least 1.
 *
 * root     what stands before "/sys" and "/proc": "" but in tests.
 * allowed  [n] whether this process may run on the CPU of that number.
 */
int processors_usable(const char *root, const bool *allowed, int n);

/* CPUs (hardware threads) that this process may run on, at least 1. */
int processors_allowed(void);

#endif
