#include "cli/prompt.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define MAX_PROMPT ((size_t)1 << 30)

/* All of a file; more than MAX_PROMPT bytes are refused. */
static int read_stream(struct strbuf *out, FILE *f, const char *name, clm_error *err)
{
    char piece[65536];
    size_t n;

    while ((n = fread(piece, 1, sizeof piece, f)) > 0) {
        strbuf_add(out, piece, n);
        if (out->size > MAX_PROMPT)
            return fail(err, CLM_ERR_ARG, "%s is larger than a prompt may be, %zu bytes", name,
                        MAX_PROMPT);
    }
    if (ferror(f))
        return fail(err, CLM_ERR_IO, "cannot read %s: %s", name, strerror(errno));
    return 0;
}

static void add_unescaped(struct strbuf *out, const char *text)
{
    while (*text) {
        size_t plain = strcspn(text, "\\");
        char next = text[plain] ? text[plain + 1] : '\0';

        strbuf_add(out, text, plain);
        text += plain;
        if (next == 'n' || next == 't')
            strbuf_add_char(out, next == 'n' ? '\n' : '\t');
        else if (*text)
            strbuf_add_char(out, '\\');
        text += next == 'n' || next == 't' ? 2 : *text != '\0';
    }
}

int prompt_read(struct strbuf *out, const char *text, clm_error *err)
{
    if (strcmp(text, "-") == 0 && read_stream(out, stdin, "standard input", err))
        return -1;
    if (strcmp(text, "-") != 0)
        add_unescaped(out, text);
    return out->failed ? fail(err, CLM_ERR_NOMEM, "no memory for the prompt") : 0;
}

int prompt_tokens(struct token_list *out, const struct prompt_options *o, const tokenizer *t,
                  clm_error *err)
{
    struct strbuf text = {0};
    int rc = prompt_read(&text, o->text, err);

    if (rc == 0)
        rc = tokenizer_encode(t, text.data ? text.data : "", text.size, true, out, err);
    if (rc == 0 && out->failed)
        rc = fail(err, CLM_ERR_NOMEM, "no memory for the tokens of the prompt");
    strbuf_release(&text);
    return rc;
}
