/* base/error.h: one error, filled where the fact is known, kept on the way up. */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include "clm/clm.h"

/**
 * Fill *err, if it is there and holds no error yet, and return -1.
 *
 * The message is one line: what was looked at, what was found, what was expected, what to do.
 * Control characters that come in through arguments are replaced by '?'.
 */
int fail(clm_error *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The same for pointer-returning functions: NULL instead of -1. */
#define fail_null(...) (fail(__VA_ARGS__), NULL)

#endif
