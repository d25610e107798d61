/* A text goes on, and then after each of several questions; it is evaluated once: prefix
 * MODEL-FOLDER TEXT QUESTION... In the folder CLM_PREFIXES, if that is set in the environment, a
 * later run finds it. */
#include <clm/clm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 4096 };

static bool show(void *ctx, const clm_token *t)
{
    (void)ctx;
    fwrite(t->text, 1, t->size, stdout);
    return true;
}

static void end(void *ctx, const clm_result *result, const clm_error *err)
{
    (void)ctx;
    printf("\n[%d of %d tokens of the prompt were there%s%s]\n\n", result->cached_tokens,
           result->prompt_tokens, err ? ": " : "", err ? err->message : "");
}

/* One after the other, so that each can go on from what the one before has left. */
static void ask(clm_scheduler *s, const clm_model *m, const char *text, const char *question,
                clm_error *err)
{
    static char prompt[4 * MOST];
    static int32_t tokens[MOST];
    clm_request_options o = clm_request_defaults();
    int size = snprintf(prompt, sizeof prompt, "%s %s", text, question), n;

    if (size < 0 || size >= (int)sizeof prompt)
        return;
    n = clm_model_tokenize(m, prompt, (size_t)size, true, tokens, MOST, err);
    o.prompt = tokens;
    o.n_prompt = n > MOST ? MOST : n < 0 ? 0 : (size_t)n;
    o.max_tokens = 30;
    o.token = show;
    o.done = end;
    printf("%s", question);
    if (clm_scheduler_submit(s, &o, err))
        while (clm_scheduler_step(s))
            ;
}

int main(int argc, char **argv)
{
    clm_error err = {0};
    clm_prefix_options limits = {.folder = getenv("CLM_PREFIXES"), .folder_bytes = 1u << 30};
    clm_model *model = clm_model_open(argc > 1 ? argv[1] : ".", NULL, &err);
    clm_engine *engine = model ? clm_engine_open(model, NULL, &err) : NULL;
    clm_prefix_index *prefixes = engine ? clm_prefix_index_open(engine, &limits, &err) : NULL;
    clm_scheduler_options options = {.prefixes = prefixes};
    clm_scheduler *scheduler = prefixes ? clm_scheduler_open(engine, &options, &err) : NULL;

    for (int i = 2; scheduler && !err.code && i < argc; i++)
        ask(scheduler, model, argv[2], i > 2 ? argv[i] : "", &err);
    if (err.code)
        fprintf(stderr, "prefix: %s\n", err.message);
    clm_scheduler_close(scheduler);
    if (prefixes)
        clm_prefix_index_write(prefixes);
    clm_prefix_index_close(prefixes);
    clm_engine_close(engine);
    clm_model_close(model);
    return err.code != 0;
}
