/* cli/cmd_perplexity.c: how well a model foretells a text. */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/prompt.h"
#include "cli/session.h"
#include "generate/clock.h"
#include "generate/perplexity.h"

#define MAX_TEXT ((size_t)1 << 30)

struct perplexity_args {
    struct model_options model;
    struct strings file;
    int window;
    int max_tokens;
    bool json;
};

static bool show_progress(void *ctx, int done, int total)
{
    progress_show(ctx, done, total);
    return !interrupt_seen();
}

static int read_tokens(struct token_list *out, const struct perplexity_args *a, const tokenizer *t,
                       clm_error *err)
{
    struct strbuf input = {0};
    const char *name = a->file.items[0];
    char *text = NULL;
    size_t size = 0;
    int rc = -1;

    if (strcmp(name, "-") == 0) {
        if (prompt_read(&input, name, err))
            goto cleanup;
        size = input.size;
    } else {
        text = file_read(name, MAX_TEXT, &size, err);
        if (!text)
            goto cleanup;
    }
    rc = tokenizer_encode(t, text ? text : input.data ? input.data : "", size, true, out, err);
    if (rc == 0 && out->failed)
        rc = fail(err, CLM_ERR_NOMEM, "no memory for the tokens of %s", name);

cleanup:
    mem_free(text);
    strbuf_release(&input);
    return rc;
}

static int write_result(const struct perplexity_args *a, const struct perplexity *p, double seconds,
                        clm_error *err)
{
    if (a->json)
        printf("{\"perplexity\": %.6g, \"standard_error\": %.6g, \"nll\": %.6g, \"tokens\": %lld, "
               "\"window\": %d, \"seconds\": %.3f, \"tokens_per_second\": %.3f}\n",
               p->perplexity, p->standard_error, p->nll, p->predictions, a->window, seconds,
               (double)p->predictions / seconds);
    else
        printf("Perplexity: %.4f +- %.4f\n"
               "Tokens: %lld, in windows of %d; %.5f nats a token\n"
               "Time: %.2f s, %.1f tokens-per-sec\n",
               p->perplexity, p->standard_error, p->predictions, a->window, p->nll, seconds,
               (double)p->predictions / seconds);
    return output_flush(err);
}

static int measure(const struct perplexity_args *a, struct session *s, clm_error *err)
{
    struct token_list tokens = {0};
    struct progress progress = progress_open("Text", "tokens");
    struct perplexity p;
    clm_error inner = {0};
    double begin;
    int rc = -1;

    if (read_tokens(&tokens, a, s->tokenizer, err))
        goto cleanup;
    if (a->max_tokens > 0 && tokens.count > (size_t)a->max_tokens)
        tokens.count = (size_t)a->max_tokens;
    interrupt_watch(); /* not before: while the text is read, Ctrl-C ends at once */
    begin = clock_seconds();
    rc = perplexity_measure(&p, s->engine, tokens.ids, tokens.count, a->window, show_progress,
                            &progress, &inner);
    progress_erase(&progress);
    if (rc == 0)
        rc = write_result(a, &p, clock_seconds() - begin, err);
    else if (inner.code == CLM_ERR_CANCELLED)
        rc = STATUS_INTERRUPTED;
    else
        fail(err, inner.code, "%s", inner.message);

cleanup:
    token_list_release(&tokens);
    return rc;
}

static int perplexity_run(const void *args, clm_error *err)
{
    const struct perplexity_args *a = args;
    struct session s = {0};
    int rc = -1;

    if (session_open_tokenizer(&s, &a->model, err) == 0 && session_open(&s, &a->model, 0, err) == 0)
        rc = measure(a, &s, err);
    session_close(&s);
    return rc;
}

static void perplexity_defaults(void *args)
{
    struct perplexity_args *a = args;

    a->window = 512;
}

static const struct option perplexity_options[] = {
    {TABLE_OPTION(struct perplexity_args, model, options_running)},
    {INT_OPTION("window", 'w', struct perplexity_args, window, 1, INT_MAX,
                "predictions of one window; windows do not overlap (default: 512)")},
    {INT_OPTION("max-tokens", 'n', struct perplexity_args, max_tokens, 0, INT_MAX,
                "use only this many tokens of the text (default: 0, all)")},
    {FLAG_OPTION("json", 0, struct perplexity_args, json, "write one JSON object")},
    {0},
};

const struct command command_perplexity = {
    .name = "perplexity",
    .summary = "perplexity of a text",
    .details =
        "Reads a text file, or standard input for -, and gives exp of the mean of -log p over "
        "all its tokens but the first, with the standard error.",
    .options = perplexity_options,
    .operands = {"FILE", 1, 1, offsetof(struct perplexity_args, file)},
    .args_size = sizeof(struct perplexity_args),
    .defaults = perplexity_defaults,
    .run = perplexity_run,
};
