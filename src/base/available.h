/* base/available.h: how much memory there is to take, and was taken. */
#ifndef BASE_AVAILABLE_H
#define BASE_AVAILABLE_H

#include <stddef.h>

/* Bytes that this process may still take: what the system calls available, within the limits of the
 * control group. 0: unknown. */
size_t memory_available(void);

/* The most bytes of memory that this process has had at a time. 0: unknown. */
size_t memory_peak(void);

#endif
