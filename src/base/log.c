#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/utf8.h"

void log_say(const struct log *log, enum log_level level, const char *format, ...)
{
    char message[1024];
    va_list args;

    if (!log || !log->fn)
        return;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    utf8_make_printable(message);
    log->fn(log->ctx, level, message);
}
