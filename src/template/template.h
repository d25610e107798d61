/* template/template.h: chat templates: Jinja as transformers' apply_chat_template provides it.
 *
 * A template is parsed once and rendered as often as wanted, from any number of threads at once.
 * Output equals that of Jinja2 in transformers' sandbox to the byte; docs/templates.md names the
 * few things that are refused. Rendering reads nothing but its arguments and the clock.
 */
#ifndef TEMPLATE_TEMPLATE_H
#define TEMPLATE_TEMPLATE_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/error.h"
#include "base/strbuf.h"
#include "format/json.h"

typedef struct template template;

/* Bounds on one rendering; 0 stands for the default beside it. */
struct template_limits {
    size_t output_bytes; /* 256 MiB: text made, also such that is thrown away */
    size_t memory_bytes; /* 1 GiB: values made */
    uint64_t steps;      /* 100 million: about as many nodes evaluated or items walked */
    unsigned depth;      /* 1500: of calls and nesting, counted together */
};

struct template_options {
    const struct tm *now; /* what strftime_now shows; NULL: the present, local time */
    struct template_limits limits;
    struct strbuf
        *raised; /* NULL, or gets the whole message, uncut, when raise_exception ends it */
};

/* A variable of the template. */
struct template_variable {
    const char *name;
    const json *value;
};

/**
 * Parse a template. name stands for it in messages, which begin with "NAME:LINE: ".
 *
 * Errors: CLM_ERR_FORMAT (not well formed, not UTF-8, too long or too deep), CLM_ERR_NOMEM.
 * Returns NULL with *err filled; else a template to be closed.
 */
template *template_parse(const char *text, size_t size, const char *name, clm_error *err);
void template_close(template *t); /* NULL is fine */

/**
 * Render into out, behind what is there already.
 *
 * variables  [n]; where a name comes twice the later one counts. A value of NULL (JSON_ABSENT) is
 *            left out: the variable is undefined.
 * options    NULL for the defaults.
 *
 * Errors: CLM_ERR_FORMAT (the template raised an error, or did what Python does not allow),
 * CLM_ERR_FULL (a limit was reached), CLM_ERR_NOMEM; out is then as it was.
 * Returns 0, or -1 with *err filled.
 */
int template_render(const template *t, const struct template_variable *variables, size_t n,
                    const struct template_options *options, struct strbuf *out, clm_error *err);

#endif
