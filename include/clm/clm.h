/* clm.h: the public interface. Open a model, keep sequences on it, evaluate tokens, sample, make text. */
#ifndef CLM_CLM_H
#define CLM_CLM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define CLM_API __attribute__((visibility("default")))
#else
#define CLM_API
#endif

enum clm_error_code {
    CLM_OK = 0,
    CLM_ERR_ARG,         /* a value given by the caller is out of range */
    CLM_ERR_NOMEM,       /* no memory */
    CLM_ERR_IO,          /* a file cannot be opened, read or written */
    CLM_ERR_FORMAT,      /* a file does not say what its format demands */
    CLM_ERR_UNSUPPORTED, /* well formed, but not something clm can do */
    CLM_ERR_FULL,        /* no room left for more tokens */
    CLM_ERR_DEVICE,      /* the device failed */
    CLM_ERR_CANCELLED    /* stopped on request */
};

/* What went wrong: a code and one line that says what, where and what to do. Start from {0}. */
typedef struct clm_error {
    int code;
    char message[500];
} clm_error;

#ifdef __cplusplus
}
#endif

#endif
