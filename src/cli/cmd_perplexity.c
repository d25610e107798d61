/* cli/cmd_perplexity.c: how well a model foretells a text. */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "cli/command.h"
#include "cli/describe.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/prompt.h"
#include "cli/session.h"
#include "generate/logprob_file.h"
#include "generate/perplexity.h"

#define MAX_TEXT ((size_t)1 << 30)

struct perplexity_args {
    struct model_options model;
    struct strings file;
    int window, stride, context;
    int max_tokens;
    const char *save, *base;
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

/* The token that the tokenizer begins texts with, or -1. */
static int begin_token(const tokenizer *t, int32_t *out, clm_error *err)
{
    struct token_list tokens = {0};
    int rc = tokenizer_encode(t, "", 0, true, &tokens, err);

    *out = tokens.count > 0 && tokens.ids[0] == tokenizer_role(t, TOKEN_BOS) ? tokens.ids[0] : -1;
    token_list_release(&tokens);
    return rc;
}

/* --ctx-size as llama.cpp has it, else --window and --stride. */
static int choose_windows(struct perplexity_windows *w, const struct perplexity_args *a,
                          const tokenizer *t, clm_error *err)
{
    *w = (struct perplexity_windows){.window = a->window ? a->window : 512, .begin_token = -1};
    w->stride = a->stride ? a->stride : w->window;
    if (!a->context)
        return 0;
    if (a->window || a->stride)
        return fail(err, CLM_ERR_ARG, "--ctx-size says all that --window and --stride do");
    w->window = a->context - 1;
    w->stride = a->context;
    w->skip = a->context / 2;
    w->whole_only = true;
    return begin_token(t, &w->begin_token, err);
}

static void add_divergence(struct fields *f, const struct divergence *d)
{
    field_real(f, "base_nll", d->base_nll);
    field_real(f, "log_ratio", d->log_ratio);
    field_real(f, "log_ratio_error", d->log_ratio_error);
    field_open(f, "kl", '{');
    field_real(f, "mean", d->mean);
    field_real(f, "standard_error", d->standard_error);
    field_real(f, "median", d->median);
    field_real(f, "p99", d->p99);
    field_real(f, "max", d->max);
    field_close(f, '}');
    field_real(f, "same_top", d->same_top);
    field_real(f, "same_top_error", d->same_top_error);
}

static int write_json(const struct perplexity_args *a, const struct perplexity *p,
                      const struct perplexity_windows *w, double seconds, clm_error *err)
{
    struct strbuf out = {0};
    struct fields f = {.out = &out, .json = true};
    int rc;

    field_open(&f, NULL, '{');
    field_real(&f, "perplexity", p->perplexity);
    field_real(&f, "standard_error", p->standard_error);
    field_real(&f, "nll", p->nll);
    field_count(&f, "tokens", (double)p->predictions);
    field_count(&f, "window", w->window);
    field_count(&f, "stride", w->stride);
    field_real(&f, "seconds", seconds);
    field_real(&f, "tokens_per_second", (double)p->predictions / seconds);
    if (a->base)
        add_divergence(&f, &p->unlike);
    field_close(&f, '}');
    strbuf_add_char(&out, '\n');
    rc = output_buffer(&out, err);
    strbuf_release(&out);
    return rc;
}

static int write_text(const struct perplexity_args *a, const struct perplexity *p,
                      const struct perplexity_windows *w, double seconds, clm_error *err)
{
    const struct divergence *d = &p->unlike;

    printf("Perplexity: %.4f +- %.4f\n"
           "Tokens: %lld, in windows of %d; %.5f nats a token\n",
           p->perplexity, p->standard_error, p->predictions, w->window, p->nll);
    if (a->base)
        printf("Perplexity of the base: %.4f; ratio %.5f +- %.5f\n"
               "KL divergence: mean %.6f +- %.6f, median %.6f, 99%% %.6f, most %.6f nats\n"
               "Same most probable token: %.3f%% +- %.3f%%\n",
               exp(d->base_nll), exp(d->log_ratio), exp(d->log_ratio) * d->log_ratio_error, d->mean,
               d->standard_error, d->median, d->p99, d->max, 100 * d->same_top,
               100 * d->same_top_error);
    printf("Time: %.2f s, %.1f tokens-per-sec\n", seconds, (double)p->predictions / seconds);
    return output_flush(err);
}

/* What is measured, with the text at hand and the base open where there is one. */
static int measure(const struct perplexity_args *a, struct session *s,
                   const struct token_list *tokens, const struct logprob_file *base, clm_error *err)
{
    struct progress progress = progress_open("Text", "tokens");
    struct perplexity_options o = {
        .save = a->save, .base = base, .progress = show_progress, .ctx = &progress};
    struct perplexity p;
    clm_error inner = {0};
    size_t n = tokens->count;
    double begin;

    if (choose_windows(&o.windows, a, s->tokenizer, err))
        return -1;
    if (a->max_tokens > 0 && n > (size_t)a->max_tokens)
        n = (size_t)a->max_tokens;
    interrupt_watch(); /* not before: while the text is read, Ctrl-C ends at once */
    begin = clock_seconds();
    if (perplexity_measure(&p, s->engine, tokens->ids, n, &o, &inner)) {
        progress_erase(&progress);
        if (inner.code == CLM_ERR_CANCELLED)
            return STATUS_INTERRUPTED;
        return fail(err, inner.code, "%s", inner.message);
    }
    progress_erase(&progress);
    return (a->json ? write_json : write_text)(a, &p, &o.windows, clock_seconds() - begin, err);
}

static int measure_file(const struct perplexity_args *a, struct session *s, clm_error *err)
{
    struct token_list tokens = {0};
    struct logprob_file base = {0};
    int rc = -1;

    if ((!a->base || !logprob_file_open(&base, a->base, err)) &&
        !read_tokens(&tokens, a, s->tokenizer, err) && !session_check_tokens(s, &tokens, err))
        rc = measure(a, s, &tokens, a->base ? &base : NULL, err);
    token_list_release(&tokens);
    logprob_file_close(&base);
    return rc;
}

static int perplexity_run(const void *args, clm_error *err)
{
    const struct perplexity_args *a = args;
    struct session s = {0};
    int rc = -1;

    if (a->save && output_try_file("save-logits", a->save, err))
        return -1;
    if (session_open_text(&s, &a->model, 0, err) == 0)
        rc = measure_file(a, &s, err);
    session_close(&s);
    return rc;
}

static const struct option perplexity_options[] = {
    {TABLE_OPTION(struct perplexity_args, model, options_running)},
    {INT_OPTION("window", 'w', struct perplexity_args, window, 1, INT_MAX - 1,
                "predictions of one window at most (default: 512)")},
    {INT_OPTION("stride", 0, struct perplexity_args, stride, 1, INT_MAX,
                "tokens from the beginning of one window to that of the next; what a window has in "
                "common with the one before is context alone (default: the window)")},
    {INT_OPTION("ctx-size", 'c', struct perplexity_args, context, 4, INT_MAX,
                "windows as llama.cpp has them: of N tokens, whole ones only, the first replaced "
                "by the begin token if the tokenizer has one; the second half counts")},
    {INT_OR_ALL_OPTION("max-tokens", 'n', struct perplexity_args, max_tokens, 0,
                       "use only this many tokens of the text (default: all, or 0)")},
    {STRING_OPTION("save-logits", 0, struct perplexity_args, save, "FILE",
                   "keep what the model says of each token, for --kl-divergence; 2 bytes for each "
                   "of the vocabulary and each prediction")},
    {STRING_OPTION("kl-divergence", 0, struct perplexity_args, base, "FILE",
                   "compare with such a file of another run on the same text: the divergence of "
                   "this run's predictions from its, and how often the most probable is the same")},
    {FLAG_OPTION("json", 0, struct perplexity_args, json, "write one JSON object")},
    {0},
};

const struct command command_perplexity = {
    .name = "perplexity",
    .summary = "perplexity of a text",
    .details =
        "Reads a text file, or standard input for -, and gives exp of the mean of -log p over "
        "all its tokens but the first, with the standard error. See docs/scoring.md.",
    .options = perplexity_options,
    .operands = {"FILE", 1, 1, offsetof(struct perplexity_args, file)},
    .args_size = sizeof(struct perplexity_args),
    .run = perplexity_run,
};
