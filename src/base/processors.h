/* base/processors.h: the machine's CPUs: how many threads are worth having, and where they run. */
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

/* The CPU that the calling thread is on, or -1 where that is not to be known. */
int processors_here(void);

/**
 * Moves the calling thread to one of its allowed CPUs that is none of taken [n]. It stays free to
 * go to all that it was allowed. Returns false where there is none, or no way to ask for it.
 */
bool processors_leave(const int *taken, int n);

#endif
