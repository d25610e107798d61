#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/utf8.h"

int fail(clm_error *err, int code, const char *format, ...)
{
    va_list args;

    if (!err || err->code)
        return -1;
    err->code = code;
    va_start(args, format);
    vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    utf8_make_printable(err->message);
    return -1;
}
