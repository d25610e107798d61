/* base/log.h: what the library has to say, given to whoever opened it. It never prints. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

/* LOG_PROGRESS: how far something long is, in place of the last such; empty when it is done. */
enum log_level { LOG_DEBUG, LOG_INFO, LOG_PROGRESS, LOG_WARNING };

/* Where messages go; a NULL pointer to it, or a NULL fn, drops them. */
struct log {
    void (*fn)(void *ctx, enum log_level level, const char *message);
    void *ctx;
};

void log_say(const struct log *log, enum log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
