/* generate/api_chat.c: the public interface to conversations. */
#include <string.h>

#include "base/memory.h"
#include "generate/api.h"
#include "generate/chat_format.h"

struct clm_chat {
    chat_templates *templates;
    struct reply_rules rules;
};

struct clm_reply {
    struct reply reply;
    json *tools;
    void (*event)(void *ctx, const clm_reply_event *e);
    void *ctx;
};

clm_chat *clm_chat_open(const clm_model *m, clm_error *err)
{
    clm_chat *c = mem_zeroed(1, sizeof *c);
    struct reply_format format;

    if (!c)
        return fail_null(err, CLM_ERR_NOMEM, "no memory for chat templates");
    c->templates = chat_templates_open(m->path, NULL, err);
    if (c->templates) {
        format = chat_format_replies(c->templates, m->tokenizer, NULL);
        if (reply_rules_init(&c->rules, &format, NULL, err) == 0)
            return c;
    }
    clm_chat_close(c);
    return NULL;
}

void clm_chat_close(clm_chat *c)
{
    if (!c)
        return;
    reply_rules_release(&c->rules);
    chat_templates_close(c->templates);
    mem_free(c);
}

/* A text of JSON of one kind, or NULL where there is none. */
static int read_json(json **out, const char *text, enum json_kind kind, const char *name,
                     clm_error *err)
{
    *out = NULL;
    if (!text)
        return 0;
    *out = json_parse(text, strlen(text), name, err);
    if (!*out)
        return -1;
    if (json_kind(*out) == kind)
        return 0;
    json_free(*out);
    *out = NULL;
    return fail(err, CLM_ERR_FORMAT, "%s must be %s in JSON", name,
                kind == JSON_ARRAY ? "a list" : "an object");
}

static int render(const clm_chat *c, const char *messages, const clm_chat_options *o,
                  struct strbuf *out, clm_error *err)
{
    json *list = NULL, *tools = NULL, *variables = NULL;
    int rc = -1;

    if (read_json(&list, messages, JSON_ARRAY, "messages", err) == 0 &&
        read_json(&tools, o->tools, JSON_ARRAY, "tools", err) == 0 &&
        read_json(&variables, o->variables, JSON_OBJECT, "variables", err) == 0 &&
        chat_format_check(variables, "variables", err) == 0) {
        struct chat_values v = {list, tools, {variables}, o->continue_last};

        rc = chat_format_render(c->templates, o->name, &v, out, err);
    }
    json_free(list);
    json_free(tools);
    json_free(variables);
    return rc;
}

char *clm_chat_render(const clm_chat *c, const char *messages, const clm_chat_options *options,
                      size_t *size, clm_error *err)
{
    clm_chat_options o = options ? *options : (clm_chat_options){0};
    struct strbuf text = {0};

    if (!messages)
        return fail_null(err, CLM_ERR_ARG, "there are no messages");
    strbuf_add(&text, "", 0);
    if (render(c, messages, &o, &text, err) == 0) {
        if (!text.failed) {
            if (size)
                *size = text.size;
            return text.data;
        }
        fail(err, CLM_ERR_NOMEM, "no memory for the text of a conversation");
    }
    strbuf_release(&text);
    return NULL;
}

void clm_text_free(char *text)
{
    mem_free(text);
}

static void pass_event(void *reply, const struct parse_event *e)
{
    static const clm_reply_part parts[] = {
        [PARSE_CONTENT] = CLM_REPLY_CONTENT,
        [PARSE_REASONING] = CLM_REPLY_REASONING,
        [PARSE_CALL_BEGIN] = CLM_REPLY_CALL_BEGIN,
        [PARSE_CALL_ARGUMENTS] = CLM_REPLY_CALL_ARGUMENTS,
        [PARSE_CALL_END] = CLM_REPLY_CALL_END,
        [PARSE_CALL_FAILED] = CLM_REPLY_CALL_FAILED,
    };
    const clm_reply *r = reply;
    clm_reply_event out = {
        .part = parts[e->kind],
        .text = e->text,
        .size = e->size,
        .call = e->call,
        .id = e->id,
        .id_size = e->id_size,
        .raw = e->raw,
        .raw_size = e->raw_size,
    };

    r->event(r->ctx, &out);
}

clm_reply *clm_reply_open(const clm_chat *c, const char *prompt, size_t size,
                          const clm_chat_options *options,
                          void (*event)(void *ctx, const clm_reply_event *e), void *ctx,
                          clm_error *err)
{
    clm_reply *r;

    if (!event)
        return fail_null(err, CLM_ERR_ARG, "no one is told of the reply: event is NULL");
    r = mem_zeroed(1, sizeof *r);
    if (!r)
        return fail_null(err, CLM_ERR_NOMEM, "no memory for a reply");
    if (read_json(&r->tools, options ? options->tools : NULL, JSON_ARRAY, "tools", err)) {
        clm_reply_close(r);
        return NULL;
    }
    r->event = event;
    r->ctx = ctx;
    reply_start(&r->reply, &c->rules, r->tools,
                thinking_is_open(&c->rules.format.thinking, &c->rules.format.ends,
                                 prompt ? prompt : "", size),
                pass_event, r);
    return r;
}

void clm_reply_close(clm_reply *r)
{
    if (!r)
        return;
    reply_release(&r->reply);
    json_free(r->tools);
    mem_free(r);
}

static int tell(int rc, clm_error *err)
{
    return rc < 0 ? fail(err, CLM_ERR_NOMEM, "no memory for a reply") : 0;
}

int clm_reply_add(clm_reply *r, const char *text, size_t size, clm_error *err)
{
    return tell(reply_feed(&r->reply, text, size), err);
}

int clm_reply_finish(clm_reply *r, clm_error *err)
{
    return tell(reply_finish(&r->reply), err);
}
