#include "cli/prompt.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "cli/output.h"
#include "cli/session.h"
#include "template/characters.h"

#define MAX_PROMPT ((size_t)1 << 30)

/* All of a file; more than MAX_PROMPT bytes are refused. Its end is asked for once: a terminal goes
 * on behind it. */
static int read_stream(struct strbuf *out, FILE *f, const char *name, clm_error *err)
{
    char piece[65536];

    do {
        strbuf_add(out, piece, fread(piece, 1, sizeof piece, f));
        if (out->size > MAX_PROMPT)
            return fail(err, CLM_ERR_ARG, "%s is larger than a prompt may be, %zu bytes", name,
                        MAX_PROMPT);
    } while (!feof(f) && !ferror(f));
    if (ferror(f))
        return fail(err, CLM_ERR_IO, "cannot read %s: %s", name, strerror(errno));
    return 0;
}

void prompt_unescape(struct strbuf *out, const char *text)
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
    if (strcmp(text, "-") != 0) {
        prompt_unescape(out, text);
    } else {
        output_tell_reading();
        if (read_stream(out, stdin, "standard input", err))
            return -1;
    }
    return out->failed ? fail(err, CLM_ERR_NOMEM, "no memory for the prompt") : 0;
}

static void warn_unused(const struct prompt_options *o)
{
    if (o->chat.system || o->chat.file || o->chat.variables || o->chat.tools || o->prefill)
        log_say(&cli_log, LOG_WARNING,
                "no chat template is used; --system-prompt, --prefill-response, --tools, "
                "--chat-template-file and --chat-template-config change nothing");
}

/* Append the conversation in which the user says this. */
static int render(struct strbuf *out, const char *said, size_t size, const struct prompt_options *o,
                  const struct chat_template *c, clm_error *err)
{
    struct strbuf messages = {0};
    int rc;

    if (o->chat.system)
        conversation_add(&messages, "system", o->chat.system, strlen(o->chat.system));
    conversation_add(&messages, "user", said, size);
    if (o->prefill)
        conversation_add(&messages, "assistant", o->prefill, strlen(o->prefill));
    rc = conversation_render(&messages, c, o->prefill || o->part == PROMPT_PREFIX, out, err);
    strbuf_release(&messages);
    return rc;
}

/* How much two conversations have in common before the user's words; -1: they do not part there. */
static ptrdiff_t common_before(const struct strbuf *text, const char *word,
                               const struct strbuf *other)
{
    size_t n = 0, size = strlen(word);

    while (n < text->size && n < other->size && text->data[n] == other->data[n])
        n++;
    return n + size <= text->size && memcmp(text->data + n, word, size) == 0 ? (ptrdiff_t)n : -1;
}

/* Drop what stands before the user's words. These are found by others in their place, two that
 * differ from their first letters on, wherever else in the text these may occur. */
static int cut_before(struct strbuf *text, const struct prompt_options *o,
                      const struct chat_template *c, clm_error *err)
{
    static const char one[] = "query", two[] = "words";
    struct strbuf a = {0}, b = {0};
    int rc = -1;

    if (render(&a, one, strlen(one), o, c, err) == 0 &&
        render(&b, two, strlen(two), o, c, err) == 0) {
        ptrdiff_t n = common_before(&a, one, &b);

        if (n < 0 || (size_t)n > text->size || memcmp(a.data, text->data, (size_t)n) != 0) {
            fail(err, CLM_ERR_UNSUPPORTED,
                 "the chat template changes what the user says, so that it cannot go on from a "
                 "cache; try --ignore-chat-template");
        } else {
            memmove(text->data, text->data + n, text->size - (size_t)n + 1);
            text->size -= (size_t)n;
            rc = 0;
        }
    }
    strbuf_release(&a);
    strbuf_release(&b);
    return rc;
}

/* Of a message in two parts the template trims each, but the space where they meet is within the
 * message: what the words [size] have there and the text lacks is put back. */
static int restore_space(struct strbuf *text, const struct strbuf *words, enum prompt_part part,
                         clm_error *err)
{
    const char *begin = words->data ? words->data : "", *end = begin + words->size;
    const char *first = character_skip_space(begin, end);
    const char *last = character_strip_end(first, end);
    size_t n = (size_t)(last - first), before = (size_t)(first - begin);
    struct strbuf with = {0};

    if (n == 0 || n > text->size)
        return 0;
    if (part == PROMPT_PREFIX && memcmp(text->data + text->size - n, first, n) == 0) {
        strbuf_add(text, last, (size_t)(end - last));
    } else if (part == PROMPT_SUFFIX && before && memcmp(text->data, first, n) == 0) {
        strbuf_add(&with, begin, before);
        strbuf_add(&with, text->data, text->size);
        strbuf_release(text);
        *text = with;
    }
    return text->failed ? fail(err, CLM_ERR_NOMEM, "no memory for the prompt") : 0;
}

/* text, as what the user says, becomes a conversation, or the part of it that is wanted. */
static int wrap(struct strbuf *text, const struct prompt_options *o, const struct chat_template *c,
                clm_error *err)
{
    struct strbuf all = {0};
    int rc = render(&all, text->data, text->size, o, c, err);

    if (rc == 0 && o->part == PROMPT_SUFFIX)
        rc = cut_before(&all, o, c, err);
    if (rc == 0)
        rc = restore_space(&all, text, o->part, err);
    strbuf_release(text);
    *text = all;
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
    else if (o->part == PROMPT_SUFFIX && o->chat.system)
        log_say(&cli_log, LOG_WARNING,
                "--system-prompt changes nothing: what comes before the prompt is in the cache");
    if (prompt_read(text, o->text, err) || (chat && wrap(text, o, &p->format, err)))
        return -1;
    p->reply_at = reply_begins(text, chat ? o->prefill : NULL);
    if (tokenizer_encode(t, text->data ? text->data : "", text->size,
                         !chat && o->part != PROMPT_SUFFIX, &p->tokens, err))
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
