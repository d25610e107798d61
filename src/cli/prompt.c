#include "cli/prompt.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/session.h"

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

static void warn_unused(const struct prompt_options *o)
{
    if (o->chat.system || o->chat.variables || o->chat.tools || o->prefill)
        log_say(&cli_log, LOG_WARNING,
                "no chat template is used; --system-prompt, --prefill-response, --tools and "
                "--chat-template-config change nothing");
}

/* text, as what the user says, becomes the whole conversation. */
static int wrap(struct strbuf *text, const struct prompt_options *o, const struct chat_template *c,
                clm_error *err)
{
    struct strbuf messages = {0};
    int rc;

    if (o->chat.system)
        conversation_add(&messages, "system", o->chat.system, strlen(o->chat.system));
    conversation_add(&messages, "user", text->data, text->size);
    if (o->prefill)
        conversation_add(&messages, "assistant", o->prefill, strlen(o->prefill));
    strbuf_clear(text);
    rc = conversation_render(&messages, c, o->prefill != NULL, text, err);
    strbuf_release(&messages);
    return rc;
}

static size_t reply_begins(const struct strbuf *text, const char *prefill)
{
    size_t n = prefill ? strlen(prefill) : 0;

    if (n > text->size || (n && memcmp(text->data + text->size - n, prefill, n) != 0))
        return text->size;
    return text->size - n;
}

int prompt_open(struct prompt *p, const struct prompt_options *o, const char *dir,
                const tokenizer *t, clm_error *err)
{
    struct strbuf *text = &p->text;
    clm_error problem = {0};
    bool chat;

    /* One that is ignored still tells how replies are to be read. */
    if (chat_template_open(&p->format, dir, &o->chat, &problem) && !o->ignore_chat_template)
        return fail(err, problem.code, "%s", problem.message);
    chat = p->format.template && !o->ignore_chat_template;
    if (!chat)
        warn_unused(o);
    if (prompt_read(text, o->text, err) || (chat && wrap(text, o, &p->format, err)))
        return -1;
    p->reply_at = reply_begins(text, chat ? o->prefill : NULL);
    if (tokenizer_encode(t, text->data ? text->data : "", text->size, !chat, &p->tokens, err))
        return -1;
    return p->tokens.failed ? fail(err, CLM_ERR_NOMEM, "no memory for the tokens of the prompt")
                            : 0;
}

void prompt_close(struct prompt *p)
{
    chat_template_close(&p->format);
    strbuf_release(&p->text);
    token_list_release(&p->tokens);
}
