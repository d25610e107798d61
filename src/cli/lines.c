#include "cli/lines.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/output.h"

bool line_is_blank(const char *text, size_t size)
{
    while (size > 0 && *text && strchr(" \t\r\n", *text)) {
        text++;
        size--;
    }
    return size == 0;
}

/* The object in a line of text; NULL with *err. */
static json *parse_line(const char *text, size_t size, const char *name, clm_error *err)
{
    json *line = json_parse(text, size, name, err);

    if (!line || json_kind(line) == JSON_OBJECT)
        return line;
    json_free(line);
    return fail_null(err, CLM_ERR_FORMAT, "%s: expected a JSON object", name);
}

static int answer_line(int (*fn)(void *, const json *, struct strbuf *, clm_error *), void *ctx,
                       const char *text, size_t size, const char *name, struct strbuf *out,
                       clm_error *err)
{
    clm_error inner = {0};
    json *line = parse_line(text, size, name, err);
    int rc = -1;

    if (!line)
        return -1;
    if (fn(ctx, line, out, &inner))
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

    output_tell_reading();
    for (long number = 1; rc == 0 && (n = getline(&text, &capacity, stdin)) >= 0; number++) {
        if (line_is_blank(text, (size_t)n))
            continue;
        snprintf(name, sizeof name, "standard input, line %ld", number);
        n -= text[n - 1] == '\n'; /* else what is missing would be missing in line 2 */
        rc = answer_line(fn, ctx, text, (size_t)n, name, &out, err);
    }
    if (rc == 0 && !feof(stdin))
        rc = fail(err, CLM_ERR_IO, "cannot read standard input: %s", strerror(errno));
    free(text);
    strbuf_release(&out);
    return rc;
}

int line_ids(struct token_list *out, const json *line, const char *key, clm_error *err)
{
    const json *ids = json_get(line, key);

    if (json_kind(ids) != JSON_ARRAY)
        return fail(err, CLM_ERR_FORMAT, "expected {\"%s\": [...]}", key);
    for (size_t i = 0; i < json_size(ids); i++) {
        int64_t id = json_int(json_at(ids, i), -1);

        if (id < 0 || id > INT32_MAX)
            return fail(err, CLM_ERR_FORMAT, "%s[%zu] is no token id", key, i);
        token_list_add(out, (int32_t)id);
    }
    return out->failed ? fail(err, CLM_ERR_NOMEM, "no memory for %zu ids", json_size(ids)) : 0;
}

/* Standard input, read as it comes. */
struct input {
    struct strbuf text; /* from at on not yet taken */
    size_t at;
    long number; /* of the last line */
    bool ended;
};

static int read_more(struct input *in, clm_error *err)
{
    char piece[1 << 16];
    ssize_t n;

    do
        n = read(STDIN_FILENO, piece, sizeof piece);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return fail(err, CLM_ERR_IO, "cannot read standard input: %s", strerror(errno));
    in->ended = n == 0;
    if (in->at) {
        in->text.size -= in->at;
        memmove(in->text.data, in->text.data + in->at, in->text.size + 1);
        in->at = 0;
    }
    strbuf_add(&in->text, piece, (size_t)n);
    return in->text.failed ? fail(err, CLM_ERR_NOMEM, "no memory for standard input") : 0;
}

/* The next whole line that has been read, or NULL. */
static const char *next_line(struct input *in, size_t *size)
{
    const char *begin = in->text.data ? in->text.data + in->at : NULL;
    size_t left = in->text.size - in->at;
    const char *end = left ? memchr(begin, '\n', left) : NULL;

    if (!end && !(in->ended && left))
        return NULL;
    *size = end ? (size_t)(end - begin) : left;
    in->at += *size + (end != NULL);
    in->number++;
    return begin;
}

/* Takes lines up to LINES_MOST of what has been read. */
static int take_lines(struct input *in, struct line *lines, size_t *n, clm_error *err)
{
    const char *text;
    size_t size;

    *n = 0;
    while (*n < LINES_MOST && (text = next_line(in, &size))) {
        struct line *l = &lines[*n];

        if (line_is_blank(text, size))
            continue;
        snprintf(l->name, sizeof l->name, "standard input, line %ld", in->number);
        l->value = parse_line(text, size, l->name, err);
        if (!l->value)
            return -1;
        ++*n;
    }
    return 0;
}

int lines_answer_together(int (*fn)(void *ctx, const struct line *lines, size_t n,
                                    struct strbuf *out, clm_error *err),
                          void *ctx, clm_error *err)
{
    struct input in = {0};
    struct strbuf out = {0};
    struct line lines[LINES_MOST];
    clm_error bad = {0}; /* of a line; those before it are answered */
    bool more = true;
    size_t n;
    int rc = 0;

    output_tell_reading();
    while (rc == 0 && more) {
        more = take_lines(&in, lines, &n, &bad) == 0 && (n > 0 || !in.ended);
        if (n > 0)
            rc = fn(ctx, lines, n, &out, err);
        else if (more)
            rc = read_more(&in, err);
        if (output_buffer(&out, err))
            rc = -1;
        for (size_t i = 0; i < n; i++)
            json_free((json *)(uintptr_t)lines[i].value);
    }
    if (rc == 0 && bad.code)
        rc = fail(err, bad.code, "%s", bad.message);
    strbuf_release(&out);
    strbuf_release(&in.text);
    return rc;
}
