/* Several texts at once, each written when it is done: batch MODEL-FOLDER PROMPT... */
#include <clm/clm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct text {
    const char *prompt;
    char words[4096];
    size_t size;
};

static bool add(void *ctx, const clm_token *t)
{
    struct text *text = ctx;
    size_t room = sizeof text->words - text->size, n = t->size < room ? t->size : room;

    memcpy(text->words + text->size, t->text, n);
    text->size += n;
    return n == t->size; /* no more than fits */
}

static void show(void *ctx, const clm_result *result, const clm_error *err)
{
    struct text *text = ctx;

    printf("%s%.*s\n[%d tokens%s%s]\n\n", text->prompt, (int)text->size, text->words,
           result->generated_tokens, err ? ": " : "", err ? err->message : "");
}

static void submit(clm_scheduler *s, const clm_model *m, struct text *text, clm_error *err)
{
    clm_request_options o = clm_request_defaults();
    int32_t tokens[1024];
    int n = clm_model_tokenize(m, text->prompt, strlen(text->prompt), true, tokens, 1024, err);
    static const char *const stops[] = {"The end"};

    o.prompt = tokens;
    o.n_prompt = n > 1024 ? 1024 : n < 0 ? 0 : (size_t)n;
    o.max_tokens = 60;
    o.stops = stops;
    o.n_stops = 1;
    o.sampler.temp = 0.7;
    o.ctx = text;
    o.token = add;
    o.done = show;
    clm_scheduler_submit(s, &o, err);
}

int main(int argc, char **argv)
{
    clm_error err = {0};
    clm_model *model = clm_model_open(argc > 1 ? argv[1] : ".", NULL, &err);
    clm_engine *engine = model ? clm_engine_open(model, NULL, &err) : NULL;
    clm_scheduler *scheduler = engine ? clm_scheduler_open(engine, NULL, &err) : NULL;
    struct text *texts = calloc((size_t)argc, sizeof *texts);

    for (int i = 2; scheduler && texts && !err.code && i < argc; i++) {
        texts[i].prompt = argv[i];
        submit(scheduler, model, &texts[i], &err);
    }
    while (!err.code && clm_scheduler_step(scheduler))
        ;
    if (err.code)
        fprintf(stderr, "batch: %s\n", err.message);
    clm_scheduler_close(scheduler);
    clm_engine_close(engine);
    clm_model_close(model);
    free(texts);
    return err.code != 0;
}
