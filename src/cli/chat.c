#include "cli/chat.h"

#include <string.h>

/* What the callbacks of one turn share. */
struct turn {
    struct chat *chat;
    const struct chat_options *o;
    bool stopped; /* by a text */
    bool failed;
};

static int open_rules(struct chat *c, const struct template_args *args, clm_error *err)
{
    struct reply_format format;

    if (conversation_reply_format(&format, args, &c->format, c->session->tokenizer, err))
        return -1;
    if (!c->format.tools && !args->parser)
        format.syntax = NULL; /* there is nothing to call */
    return reply_rules_init(&c->rules, &format, &c->sampling->stops, err);
}

int chat_open(struct chat *c, const struct session *session, const struct sampling *sampling,
              const struct template_args *args, const struct prefix_args *kept, clm_error *err)
{
    *c = (struct chat){.session = session, .sampling = sampling};
    if (chat_template_open(&c->format, session->dir, args, err))
        return -1;
    if (!c->format.template)
        return fail(err, CLM_ERR_UNSUPPORTED,
                    "%s has no chat template; give one with --chat-template-file, or continue "
                    "texts with clm generate",
                    session->dir);
    if (args->system)
        strbuf_add_str(&c->system, args->system);
    c->prefixes = prefix_args_open(kept, session->engine, err);
    return c->prefixes ? open_rules(c, args, err) : -1;
}

void chat_close(struct chat *c)
{
    chat_template_close(&c->format);
    reply_release(&c->reply);
    reply_rules_release(&c->rules);
    kv_seq_close(c->seq);
    if (c->prefixes)
        prefix_index_write(c->prefixes);
    prefix_index_close(c->prefixes);
    token_list_release(&c->text);
    strbuf_release(&c->system);
    strbuf_release(&c->messages);
    said_release(&c->said);
    tool_calls_release(&c->calls);
    *c = (struct chat){0};
}

void chat_clear(struct chat *c)
{
    kv_seq_close(c->seq); /* what it shares with what comes the index has */
    c->seq = NULL;
    strbuf_clear(&c->messages);
    c->asked = 0;
    tool_calls_release(&c->calls);
    c->n_results = 0;
}

bool chat_can_retry(const struct chat *c)
{
    return c->asked > 0;
}

size_t chat_open_calls(const struct chat *c)
{
    return c->calls.count - c->n_results;
}

const struct tool_call *chat_next_call(const struct chat *c)
{
    return chat_open_calls(c) ? &c->calls.calls[c->n_results] : NULL;
}

void chat_give_result(struct chat *c, const char *text, size_t size)
{
    conversation_add_result(&c->messages, chat_next_call(c), text, size);
    c->n_results++;
}

int chat_length(const struct chat *c)
{
    return c->seq ? kv_seq_length(c->seq) : 0;
}

int chat_context(const struct chat *c)
{
    int context = engine_context(c->session->engine);

    return context < INT32_MAX ? context : 0;
}

static void take_event(void *ctx, const struct parse_event *e)
{
    struct turn *t = ctx;

    said_take(&t->chat->said, e);
    if (t->o->sink)
        t->o->sink(t->o->ctx, e);
}

static bool take_token(void *ctx, const struct generated *g)
{
    struct turn *t = ctx;
    int rc;

    token_list_add(&t->chat->text, g->token);
    rc = reply_feed(&t->chat->reply, g->text, g->size);
    if (rc >= 0 && (rc || g->last) && reply_finish(&t->chat->reply))
        rc = -1;
    t->failed = rc < 0;
    t->stopped = rc > 0;
    return rc == 0 && (!t->o->go_on || t->o->go_on(t->o->ctx));
}

static void take_progress(void *ctx, int done, int total)
{
    struct turn *t = ctx;

    if (t->o->progress)
        t->o->progress(t->o->ctx, done, total);
}

static bool was_interrupted(void *ctx)
{
    struct turn *t = ctx;

    return t->o->interrupted && t->o->interrupted(t->o->ctx);
}

/* The tokens of the conversation are the turn's text; *thinking says whether the reply begins
 * inside of a section. */
static int render(struct chat *c, bool *thinking, clm_error *err)
{
    struct strbuf all = {0}, text = {0};
    int rc = -1;

    if (c->system.size)
        conversation_add(&all, "system", c->system.data, c->system.size);
    strbuf_add_str(&all, all.size && c->messages.size ? ", " : "");
    strbuf_add(&all, c->messages.data ? c->messages.data : "", c->messages.size);
    if (c->messages.failed || c->system.failed) {
        fail(err, CLM_ERR_NOMEM, "no memory for the conversation");
        goto cleanup;
    }
    if (conversation_render(&all, &c->format, false, &text, err))
        goto cleanup;
    token_list_clear(&c->text);
    *thinking = thinking_is_open(&c->rules.format.thinking, &c->rules.format.ends,
                                 text.data ? text.data : "", text.size);
    rc = tokenizer_encode(c->session->tokenizer, text.data ? text.data : "", text.size, false,
                          &c->text, err);
    if (rc == 0 && c->text.failed)
        rc = fail(err, CLM_ERR_NOMEM, "no memory for the conversation");

cleanup:
    strbuf_release(&all);
    strbuf_release(&text);
    return rc;
}

/* first: nothing was said before */
static int check_size(const struct chat *c, bool first, clm_error *err)
{
    int context = chat_context(c);

    if (context > 0 && c->text.count > (size_t)context)
        return fail(err, CLM_ERR_FULL,
                    "this makes the conversation %zu tokens long, the model's context holds %d; "
                    "%s",
                    c->text.count, context, first ? "shorten it" : "/clear starts a new one");
    return 0;
}

/* All of the turn's text that has been evaluated: of an answer the last token was not, nor may all
 * be of a prompt that was interrupted. */
static int remember(struct chat *c, clm_error *err)
{
    kv_seq_close(c->seq);
    c->seq = prefix_index_lookup(c->prefixes, c->text.ids, (int)c->text.count, NULL, err);
    return c->seq ? 0 : -1;
}

static enum chat_end end_of(const struct chat *c, const struct turn *t, enum finish_reason finish)
{
    int context = chat_context(c);

    if (finish == FINISH_STOP || t->stopped)
        return CHAT_DONE;
    if (finish == FINISH_CANCELLED)
        return CHAT_STOPPED;
    return context > 0 && c->text.count > (size_t)context ? CHAT_FULL : CHAT_LENGTH;
}

static int answer(struct chat *c, bool thinking, const struct chat_options *o,
                  struct chat_turn *turn, clm_error *err)
{
    struct turn t = {.chat = c, .o = o};
    struct generate_options options = {
        .max_tokens = o->max_tokens,
        .prefill_step_size = o->prefill_step_size,
        .end_tokens = &c->sampling->end_tokens,
        .prefixes = c->prefixes,
        .speculation = o->speculation,
        .ctx = &t,
        .progress = take_progress,
        .interrupted = was_interrupted,
        .token = take_token,
    };
    const struct session *s = c->session;
    int rc;

    reply_start(&c->reply, &c->rules, c->format.tools, thinking, take_event, &t);
    rc = generate(s->engine, NULL, c->sampling->sampler, s->tokenizer, c->text.ids, c->text.count,
                  &options, &turn->figures, err);
    if (t.failed || said_failed(&c->said) || c->text.failed)
        rc = fail(err, CLM_ERR_NOMEM, "no memory for the answer");
    if (rc || remember(c, err))
        return -1;
    turn->end = end_of(c, &t, turn->figures.finish);
    return 0;
}

static void cut(struct strbuf *b, size_t size)
{
    b->size = size;
    if (b->data)
        b->data[size] = '\0';
}

static void add_message(struct chat *c, enum chat_input kind, const char *text, size_t size)
{
    if (kind == CHAT_RESULT)
        chat_give_result(c, text, size);
    else if (kind == CHAT_USER)
        conversation_add(&c->messages, "user", text, size);
    else
        cut(&c->messages, c->asked);
}

static void take_reply(struct chat *c)
{
    c->asked = c->messages.size;
    conversation_add_reply(&c->messages, &c->said);
    tool_calls_release(&c->calls);
    c->calls = c->said.calls;
    c->said.calls = (struct tool_calls){0};
    c->n_results = 0;
}

int chat_say(struct chat *c, enum chat_input kind, const char *text, size_t size,
             const struct chat_options *o, struct chat_turn *turn, clm_error *err)
{
    size_t before = c->messages.size;
    struct strbuf dropped = {0};
    bool thinking = false;
    int rc = -1;

    *turn = (struct chat_turn){0};
    said_clear(&c->said);
    if (kind == CHAT_AGAIN)
        strbuf_add(&dropped, c->messages.data + c->asked, before - c->asked);
    if (dropped.failed)
        return fail(err, CLM_ERR_NOMEM, "no memory for the conversation");
    add_message(c, kind, text, size);
    if (!render(c, &thinking, err) && !check_size(c, before == 0, err))
        rc = answer(c, thinking, o, turn, err);
    if (rc == 0 && turn->figures.generated_tokens > 0) {
        take_reply(c);
        turn->same = dropped.size > 0 && dropped.size == c->messages.size - c->asked &&
                     memcmp(dropped.data, c->messages.data + c->asked, dropped.size) == 0;
    } else {
        cut(&c->messages, before - dropped.size);
        strbuf_add(&c->messages, dropped.data ? dropped.data : "", dropped.size);
        c->n_results -= kind == CHAT_RESULT;
    }
    strbuf_release(&dropped);
    return rc;
}
