/* A conversation: chat MODEL-FOLDER MESSAGE... What was said before stays in the cache. */
#include <clm/clm.h>
#include <stdio.h>
#include <string.h>

/* Messages as JSON, the list still open. */
struct talk {
    char text[1 << 16];
    size_t size;
};

static void put(struct talk *t, const char *text)
{
    size_t n = strlen(text);

    if (n < sizeof t->text - t->size) {
        memcpy(t->text + t->size, text, n + 1);
        t->size += n;
    }
}

static void quote(struct talk *t, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char out[8] = {text[i]};

        if ((unsigned char)text[i] < 0x20 || text[i] == '"' || text[i] == '\\')
            snprintf(out, sizeof out, "\\u%04x", (unsigned)text[i]);
        put(t, out);
    }
}

static void begin(struct talk *t, const char *role)
{
    put(t, t->size ? ", {\"role\": \"" : "[{\"role\": \"");
    put(t, role);
    put(t, "\", \"content\": \"");
}

static void show(void *ctx, const clm_reply_event *e)
{
    if (e->part != CLM_REPLY_CONTENT)
        return;
    fwrite(e->text, 1, e->size, stdout);
    fflush(stdout);
    quote(ctx, e->text, e->size);
}

static bool hear(void *ctx, const clm_token *t)
{
    clm_error err = {0};

    return clm_reply_add(ctx, t->text, t->size, &err) == 0;
}

static void answer(const clm_model *m, const clm_chat *chat, clm_scheduler *s, struct talk *talk,
                   clm_error *err)
{
    static int32_t tokens[8192];
    clm_request_options o = clm_request_defaults();
    struct talk asked = *talk;
    size_t size = 0;
    char *prompt;
    int n;

    put(&asked, "]");
    prompt = clm_chat_render(chat, asked.text, NULL, &size, err);
    if (!prompt)
        return;
    n = clm_model_tokenize(m, prompt, size, false, tokens, 8192, err);
    o.prompt = tokens;
    o.n_prompt = n > 8192 || n < 0 ? 0 : (size_t)n;
    o.max_tokens = 60;
    begin(talk, "assistant");
    o.ctx = clm_reply_open(chat, prompt, size, NULL, show, talk, err);
    o.token = hear;
    if (o.ctx && clm_scheduler_submit(s, &o, err))
        while (clm_scheduler_step(s))
            ;
    if (o.ctx)
        clm_reply_finish(o.ctx, err);
    put(talk, "\"}");
    puts("");
    clm_reply_close(o.ctx);
    clm_text_free(prompt);
}

int main(int argc, char **argv)
{
    static struct talk talk;
    clm_error err = {0};
    clm_model *model = clm_model_open(argc > 1 ? argv[1] : ".", NULL, &err);
    clm_chat *chat = model ? clm_chat_open(model, &err) : NULL;
    clm_engine *engine = chat ? clm_engine_open(model, NULL, &err) : NULL;
    clm_prefix_index *prefixes = engine ? clm_prefix_index_open(engine, NULL, &err) : NULL;
    clm_scheduler_options options = {.prefixes = prefixes};
    clm_scheduler *scheduler = prefixes ? clm_scheduler_open(engine, &options, &err) : NULL;

    for (int i = 2; scheduler && !err.code && i < argc; i++) {
        begin(&talk, "user");
        quote(&talk, argv[i], strlen(argv[i]));
        put(&talk, "\"}");
        answer(model, chat, scheduler, &talk, &err);
    }
    if (err.code)
        fprintf(stderr, "chat: %s\n", err.message);
    clm_scheduler_close(scheduler);
    clm_prefix_index_close(prefixes);
    clm_engine_close(engine);
    clm_chat_close(chat);
    clm_model_close(model);
    return err.code != 0;
}
