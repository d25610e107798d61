/* cli/cmd_generate.c: text from a prompt, streamed, with speeds and peak memory at the end. */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/resource.h>

#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/prompt.h"
#include "cli/session.h"
#include "generate/end_tokens.h"
#include "generate/generate.h"

/* A prompt this long may take a while. */
#define LONG_PROMPT 128

struct generate_args {
    struct model_options model;
    struct prompt_options prompt;
    struct sampler_options sampling;
    struct seed seed;
    struct strings extra_end_tokens;
    int max_tokens;
    int prefill_step_size;
    bool json;
    bool verbose;
};

/* What the callbacks of one run share. */
struct run {
    const struct generate_args *args;
    struct progress progress;
    struct strbuf line;
    bool begun; /* the text's first line is written */
    size_t text_size;
    clm_error *err; /* of writing */
};

static void show_progress(void *ctx, int done, int total)
{
    struct run *r = ctx;

    if (total >= LONG_PROMPT)
        progress_show(&r->progress, done, total);
}

static bool was_interrupted(void *ctx)
{
    (void)ctx;
    return interrupt_seen();
}

static void add_json_token(struct strbuf *b, const struct generated *g)
{
    strbuf_addf(b, "{\"token\": %d, \"text\": ", (int)g->token);
    strbuf_add_json(b, g->text, g->size);
    /* JSON has no infinity: a probability of 0 is null. */
    if (isfinite(g->logprob))
        strbuf_addf(b, ", \"logprob\": %.6g}\n", (double)g->logprob);
    else
        strbuf_add_str(b, ", \"logprob\": null}\n");
}

/* mlx_lm.generate's line above the text; late, so that a failing start leaves standard output
 * empty. */
static void begin_text(struct run *r)
{
    if (!r->begun && r->args->verbose && !r->args->json)
        strbuf_add_str(&r->line, "==========\n");
    r->begun = true;
}

static bool write_token(void *ctx, const struct generated *g)
{
    struct run *r = ctx;

    progress_erase(&r->progress);
    begin_text(r);
    r->text_size += g->size;
    if (r->args->json)
        add_json_token(&r->line, g);
    else
        strbuf_add(&r->line, g->text, g->size);
    return output_buffer(&r->line, r->err) == 0;
}

static double peak_gigabytes(void)
{
    struct rusage usage;

    if (getrusage(RUSAGE_SELF, &usage))
        return 0;
    return (double)usage.ru_maxrss * 1024 / 1e9;
}

/* The first token belongs to the prompt's time, so it is left out of the speed. */
static double generation_speed(const struct generate_result *r)
{
    return r->generation_seconds > 0 ? (r->generated_tokens - 1) / r->generation_seconds : 0;
}

static double prompt_speed(const struct generate_result *r)
{
    return r->prompt_seconds > 0 ? r->prompt_tokens / r->prompt_seconds : 0;
}

/* As mlx_lm.generate has it. */
static void add_statistics(struct run *run, const struct generate_result *r)
{
    struct strbuf *b = &run->line;

    begin_text(run);
    strbuf_add_char(b, '\n');
    if (!run->args->verbose)
        return;
    strbuf_add_str(b, "==========\n");
    if (run->text_size == 0) {
        strbuf_add_str(b, "No text generated for this prompt\n");
        return;
    }
    strbuf_addf(b, "Prompt: %d tokens, %.3f tokens-per-sec\n", r->prompt_tokens, prompt_speed(r));
    strbuf_addf(b, "Generation: %d tokens, %.3f tokens-per-sec\n", r->generated_tokens,
                generation_speed(r));
    strbuf_addf(b, "Peak memory: %.3f GB\n", peak_gigabytes());
}

static void add_json_statistics(struct strbuf *b, const struct generate_result *r, uint64_t seed)
{
    strbuf_addf(b,
                "{\"finish_reason\": \"%s\", \"prompt_tokens\": %d, \"prompt_tps\": %.3f, "
                "\"generation_tokens\": %d, \"generation_tps\": %.3f, \"peak_memory\": %.3f, "
                "\"seed\": %llu}\n",
                finish_reason_name(r->finish), r->prompt_tokens, prompt_speed(r),
                r->generated_tokens, generation_speed(r), peak_gigabytes(),
                (unsigned long long)seed);
}

static int collect_end_tokens(struct token_list *out, const struct session *s,
                              const struct strings *extra, clm_error *err)
{
    if (end_tokens_load(out, s->dir, s->tokenizer, err))
        return -1;
    for (int i = 0; i < extra->n; i++)
        if (end_tokens_add(out, s->tokenizer, extra->items[i], err))
            return -1;
    return 0;
}

/* What XTC must not remove: line ends and end tokens, as mlx_lm.generate says. */
static int xtc_special(struct token_list *out, const tokenizer *t,
                       const struct token_list *end_tokens, clm_error *err)
{
    if (tokenizer_encode(t, "\n", 1, true, out, err))
        return -1;
    for (size_t i = 0; i < end_tokens->count; i++)
        token_list_add(out, end_tokens->ids[i]);
    return out->failed ? fail(err, CLM_ERR_NOMEM, "no memory for the end tokens") : 0;
}

static sampler *open_sampler(const struct generate_args *a, const struct session *s,
                             const struct token_list *end_tokens, uint64_t seed, clm_error *err)
{
    struct sampler_options o = a->sampling;
    struct token_list special = {0};
    sampler *opened = NULL;

    o.seed = seed;
    o.logprobs = a->json;
    if (xtc_special(&special, s->tokenizer, end_tokens, err) == 0) {
        o.xtc_special = special.ids;
        o.n_xtc_special = (int)special.count;
        opened = sampler_open(&o, s->model->spec->vocab_size, err);
    }
    token_list_release(&special);
    return opened;
}

static uint64_t choose_seed(const struct generate_args *a)
{
    uint64_t seed = 0;

    if (a->seed.given)
        return a->seed.value;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != sizeof seed)
        seed = (uint64_t)(uintptr_t)&seed;
    return seed >> 11; /* below 2^53, so that every reader of JSON gets it right */
}

static int write_all(struct run *run, struct session *s, sampler *sampling,
                     const struct token_list *prompt, const struct token_list *end_tokens,
                     uint64_t seed, clm_error *err)
{
    const struct generate_args *a = run->args;
    struct generate_options o = {
        .max_tokens = a->max_tokens,
        .prefill_step_size = a->prefill_step_size,
        .end_tokens = end_tokens,
        .ctx = run,
        .progress = show_progress,
        .interrupted = was_interrupted,
        .token = write_token,
    };
    struct generate_result r;
    kv_seq *seq = kv_seq_open(engine_cache(s->engine), err);
    int rc;

    if (!seq)
        return -1;
    if (prompt->count >= LONG_PROMPT)
        progress_show(&run->progress, 0, (int)prompt->count);
    rc = generate(s->engine, seq, sampling, s->tokenizer, prompt->ids, prompt->count, &o, &r, err);
    progress_erase(&run->progress);
    kv_seq_close(seq);
    if (rc || run->err->code)
        return -1;
    if (a->json)
        add_json_statistics(&run->line, &r, seed);
    else
        add_statistics(run, &r);
    if (output_buffer(&run->line, err))
        return -1;
    return r.finish == FINISH_CANCELLED ? STATUS_INTERRUPTED : STATUS_DONE;
}

static int run_session(struct run *run, struct session *s, clm_error *err)
{
    const struct generate_args *a = run->args;
    struct token_list end_tokens = {0}, prompt = {0};
    sampler *sampling = NULL;
    uint64_t seed = choose_seed(a);
    int rc = -1;

    if (collect_end_tokens(&end_tokens, s, &a->extra_end_tokens, err))
        goto cleanup;
    sampling = open_sampler(a, s, &end_tokens, seed, err);
    if (!sampling || prompt_tokens(&prompt, &a->prompt, s->dir, s->tokenizer, err))
        goto cleanup;
    rc = write_all(run, s, sampling, &prompt, &end_tokens, seed, err);

cleanup:
    sampler_close(sampling);
    token_list_release(&end_tokens);
    token_list_release(&prompt);
    return rc;
}

static int generate_run(const void *args, clm_error *err)
{
    const struct generate_args *a = args;
    struct run run = {.args = a, .progress = progress_open("Prompt", "tokens"), .err = err};
    struct session s = {0};
    int rc = -1;

    interrupt_watch();
    if (session_open_tokenizer(&s, &a->model, err) == 0 &&
        session_open(&s, &a->model, a->prefill_step_size, err) == 0)
        rc = run_session(&run, &s, err);
    strbuf_release(&run.line);
    session_close(&s);
    return rc;
}

static void generate_defaults(void *args)
{
    struct generate_args *a = args;

    a->prompt.text = "Once upon a time";
    a->sampling = sampler_defaults();
    a->sampling.top_p = 1;
    a->max_tokens = 100;
    a->verbose = true;
}

#define A struct generate_args

static const struct option generate_options_table[] = {
    {TABLE_OPTION(A, model, options_running)},
    {STRING_OPTION(
        "prompt", 'p', A, prompt.text, "TEXT",
        "what to begin with; - reads it from standard input; \\n and \\t in it stand for "
        "line ends and tabs (default: Once upon a time)")},
    {TABLE_OPTION(A, prompt.chat, options_template)},
    {STRING_OPTION("prefill-response", 0, A, prompt.prefill, "TEXT",
                   "how the model's reply begins; it goes on from there")},
    {FLAG_OPTION("ignore-chat-template", 0, A, prompt.ignore_chat_template,
                 "give the prompt to the model as it is, without the model's chat template")},
    {INT_OPTION("max-tokens", 'n', A, max_tokens, 1, INT_MAX,
                "how many tokens to generate at most (default: 100)")},
    {REAL_OPTION("temp", 0, A, sampling.temp, 0, 1000,
                 "temperature; 0, the default, takes the most likely token each time")},
    {REAL_OPTION(
        "top-p", 0, A, sampling.top_p, 0, 1,
        "draw from the most likely tokens that together are this probable (default: 1, all)")},
    {REAL_OPTION("min-p", 0, A, sampling.min_p, 0, 1,
                 "draw from tokens at least this probable, as a part of the most likely one's "
                 "probability (default: 0, all)")},
    {INT_OPTION("min-tokens-to-keep", 0, A, sampling.min_tokens_to_keep, 1, INT_MAX,
                "how many tokens --min-p leaves at least (default: 1)")},
    {INT_OPTION("top-k", 0, A, sampling.top_k, 0, INT_MAX,
                "draw from this many of the most likely tokens (default: 0, all)")},
    {REAL_OPTION("xtc-probability", 0, A, sampling.xtc_probability, 0, 1,
                 "how often XTC leaves out the top choices (default: 0)")},
    {REAL_OPTION("xtc-threshold", 0, A, sampling.xtc_threshold, 0, 0.5,
                 "how probable XTC's top choices are at least (default: 0.1)")},
    {REAL_OPTION(
        "repetition-penalty", 0, A, sampling.repetition.value, 0, 1000,
        "makes tokens that occurred lately less likely: logits are divided by it, negative "
        "ones multiplied (default: 0, off)")},
    {INT_OPTION("repetition-context-size", 0, A, sampling.repetition.context, 0, INT_MAX,
                "how many tokens the repetition penalty looks back; 0: all (default: 20)")},
    {REAL_OPTION("presence-penalty", 0, A, sampling.presence.value, -1000, 1000,
                 "subtracted from the logits of tokens among the last 20 (default: 0)")},
    {REAL_OPTION("frequency-penalty", 0, A, sampling.frequency.value, -1000, 1000,
                 "the same for every time that they occur (default: 0)")},
    {SEED_OPTION("seed", 0, A, seed, "of the random numbers (default: another one each time)")},
    {STRINGS_OPTION("extra-eos-token", 0, A, extra_end_tokens, "TOKEN",
                    "tokens, or their ids, that end the text too")},
    {INT_OPTION("prefill-step-size", 0, A, prefill_step_size, 0, 65536,
                "how many tokens of the prompt to process at a time; fewer take less memory "
                "(default: 512)")},
    {FLAG_OPTION("json", 0, A, json,
                 "write a JSON object for each token, and a last one with statistics")},
    {BOOL_OPTION("verbose", 0, A, verbose, "false: write nothing but the text (default: true)")},
    {0},
};

#undef A

const struct command command_generate = {
    .name = "generate",
    .summary = "text from a prompt, streamed",
    .details = "Writes the text to standard output as it is made, then speeds and peak memory. "
               "Ctrl-C ends "
               "the text where it is, with exit status 130; a second one kills.",
    .options = generate_options_table,
    .args_size = sizeof(struct generate_args),
    .defaults = generate_defaults,
    .run = generate_run,
};
