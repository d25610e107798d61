/* base/available.h: how much memory there is to take. */
#ifndef BASE_AVAILABLE_H
#define BASE_AVAILABLE_H

#include <stddef.h>

/* Bytes that this process may still take: what the system calls available, within the limits of the
 * control group. 0: unknown. */
size_t memory_available(void);

#endif
