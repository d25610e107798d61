#include "cli/lines.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/output.h"

static int answer_line(int (*fn)(void *, const json *, struct strbuf *, clm_error *), void *ctx,
                       const char *text, size_t size, const char *name, struct strbuf *out,
                       clm_error *err)
{
    clm_error inner = {0};
    json *line = json_parse(text, size, name, err);
    int rc = -1;

    if (!line)
        return -1;
    if (json_kind(line) != JSON_OBJECT)
        fail(err, CLM_ERR_FORMAT, "%s: expected a JSON object", name);
    else if (fn(ctx, line, out, &inner))
        fail(err, inner.code == CLM_ERR_ARG ? CLM_ERR_FORMAT : inner.code, "%s: %s", name,
             inner.message);
    else
        rc = 0;
    json_free(line);
    if (rc)
        return -1;
    strbuf_add_char(out, '\n');
    return output_buffer(out, err);
}

int lines_answer(int (*fn)(void *ctx, const json *line, struct strbuf *out, clm_error *err),
                 void *ctx, clm_error *err)
{
    struct strbuf out = {0};
    char *text = NULL, name[64];
    size_t capacity = 0;
    ssize_t n;
    int rc = 0;

    for (long number = 1; rc == 0 && (n = getline(&text, &capacity, stdin)) >= 0; number++) {
        if (strspn(text, " \t\r\n") == (size_t)n)
            continue;
        snprintf(name, sizeof name, "standard input, line %ld", number);
        rc = answer_line(fn, ctx, text, (size_t)n, name, &out, err);
    }
    if (rc == 0 && !feof(stdin))
        rc = fail(err, CLM_ERR_IO, "cannot read standard input: %s", strerror(errno));
    free(text);
    strbuf_release(&out);
    return rc;
}
