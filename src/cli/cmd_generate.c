/* cli/cmd_generate.c: text from a prompt, streamed, with speeds and peak memory at the end. */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/memory.h"
#include "cli/batch.h"
#include "cli/command.h"
#include "cli/draft.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/prefix_args.h"
#include "cli/progress.h"
#include "cli/prompt.h"
#include "cli/prompt_cache.h"
#include "cli/reply_lines.h"
#include "cli/sampling.h"

static const char default_prompt[] = "Once upon a time";

/* A prompt this long may take a while. */
#define LONG_PROMPT 128

struct generate_args {
    struct model_options model;
    struct prompt_options prompt;
    struct sampling_args sampling;
    struct draft_args draft;
    int max_tokens;
    int prefill_step_size;
    const char *cache_file;
    struct prefix_args kept;
    struct batch_args batch;
    bool json, parse;
    bool verbose;
};

/* What the callbacks of one run share. */
struct run {
    const struct generate_args *args;
    const device *dev;
    speculation *speculation; /* NULL: none */
    struct progress progress;
    struct strbuf line;
    bool begun;    /* the text's first line is written */
    bool terminal; /* is what it is written to */
    size_t text_size;
    const tokenizer *tokenizer;
    struct strbuf token; /* the text of a token among the most likely */
    struct reply reply;  /* with --parse, in place of both */
    struct reply_lines lines;
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

/* JSON has no infinity: a probability of 0 is null. */
static void add_logprob(struct strbuf *b, float logprob)
{
    if (isfinite(logprob))
        strbuf_addf(b, ", \"logprob\": %.6g", (double)logprob);
    else
        strbuf_add_str(b, ", \"logprob\": null");
}

/* The most likely tokens, each with its text alone. */
static void add_top(struct run *r, const struct generated *g)
{
    struct strbuf *b = &r->line;

    strbuf_add_str(b, ", \"top_logprobs\": [");
    for (int i = 0; i < g->n_top; i++) {
        strbuf_addf(b, "%s{\"token\": %d, \"text\": ", i ? ", " : "", (int)g->top[i].token);
        strbuf_clear(&r->token);
        tokenizer_decode(r->tokenizer, &g->top[i].token, 1, false, &r->token, r->err);
        strbuf_add_json(b, r->token.data ? r->token.data : "", r->token.size);
        add_logprob(b, g->top[i].logprob);
        strbuf_add_char(b, '}');
    }
    strbuf_add_char(b, ']');
}

static void add_json_token(struct run *r, const struct generated *g)
{
    struct strbuf *b = &r->line;

    strbuf_addf(b, "{\"token\": %d, \"text\": ", (int)g->token);
    strbuf_add_json(b, g->text, g->size);
    add_logprob(b, g->logprob);
    if (r->speculation)
        strbuf_addf(b, ", \"from_draft\": %s", g->from_draft ? "true" : "false");
    if (g->n_top > 0)
        add_top(r, g);
    strbuf_add_str(b, "}\n");
}

/* mlx_lm.generate's line above the text; late, so that a failing start leaves standard output
 * empty. */
static void begin_text(struct run *r)
{
    if (!r->begun && r->args->verbose)
        strbuf_add_str(&r->line, "==========\n");
    r->begun = true;
}

static int parse_text(struct run *r, const char *text, size_t size, bool last)
{
    if (reply_feed(&r->reply, text, size) || (last && reply_finish(&r->reply)) ||
        r->lines.calls.failed)
        return fail(r->err, CLM_ERR_NOMEM, "no memory for the reply");
    return output_buffer(&r->line, r->err);
}

static bool write_token(void *ctx, const struct generated *g)
{
    struct run *r = ctx;

    progress_erase(&r->progress);
    if (r->args->parse)
        return parse_text(r, g->text, g->size, g->last) == 0;
    if (!r->args->json)
        begin_text(r);
    r->text_size += g->size;
    if (r->args->json)
        add_json_token(r, g);
    else if (r->terminal)
        output_add_safely(&r->line, g->text, g->size);
    else
        strbuf_add(&r->line, g->text, g->size);
    return output_buffer(&r->line, r->err) == 0;
}

/* As mlx_lm.generate has it; the speed is of what was not kept of earlier texts. */
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
    strbuf_addf(b, "Prompt: %d tokens, ", r->prompt_tokens);
    if (r->cached_tokens > 0)
        strbuf_addf(b, "%d of them kept, ", r->cached_tokens);
    strbuf_addf(b, "%.3f tokens-per-sec\n", prompt_speed(r));
    strbuf_addf(b, "Generation: %d tokens, %.3f tokens-per-sec\n", r->generated_tokens,
                generation_speed(r));
    if (run->speculation) {
        draft_add_statistics(b, r);
        strbuf_add_char(b, '\n');
    }
    strbuf_addf(b, "Peak memory: %.3f GB\n", peak_gigabytes());
    if (strcmp(run->dev->ops->name, "cpu")) {
        char what[100];

        run->dev->ops->describe(run->dev, what, sizeof what);
        strbuf_addf(b, "Device: %s, %s\n", run->dev->ops->name, what);
    }
}

static void add_json_statistics(struct run *run, const struct generate_result *r, uint64_t seed)
{
    struct strbuf *b = &run->line;
    bool calls = r->finish == FINISH_STOP && run->lines.calls.count > 0;

    strbuf_addf(b,
                "{%s\"finish_reason\": \"%s\", \"prompt_tokens\": %d, \"prompt_tps\": %.3f, "
                "\"cached_tokens\": %d, \"generation_tokens\": %d, \"generation_tps\": %.3f, ",
                run->args->parse ? "\"type\": \"end\", " : "",
                calls ? "tool_calls" : finish_reason_name(r->finish), r->prompt_tokens,
                prompt_speed(r), r->cached_tokens, r->generated_tokens, generation_speed(r));
    if (run->speculation)
        strbuf_addf(b, "\"draft_n\": %d, \"draft_n_accepted\": %d, ", r->drafted_tokens,
                    r->draft_tokens);
    strbuf_addf(b, "\"peak_memory\": %.3f, \"seed\": %llu}\n", peak_gigabytes(),
                (unsigned long long)seed);
}

/* What was given of the reply is parsed along with what the model adds. */
static int begin_reply(struct run *run, const struct reply_rules *rules, const struct prompt *p)
{
    const char *text = p->text.data ? p->text.data : "";
    bool thinking =
        thinking_is_open(&rules->format.thinking, &rules->format.ends, text, p->reply_at);

    if (!run->args->parse)
        return 0;
    reply_start(&run->reply, rules, p->format.tools, thinking, reply_lines_take, &run->lines);
    return parse_text(run, text + p->reply_at, p->text.size - p->reply_at, false);
}

/* What the prompt follows: a file's sequence, or what the index has. Without the chat template it
 * does not matter which one that is. */
static int open_past(const struct generate_args *a, const struct session *s,
                     const struct prompt *prompt, kv_seq **seq, prefix_index **prefixes,
                     clm_error *err)
{
    struct text_identity identity;
    struct cache_origin origin;

    if (!a->cache_file) {
        *prefixes = prefix_args_open(&a->kept, s->engine, err);
        return *prefixes ? 0 : -1;
    }
    origin = prompt_cache_origin(&identity, s, &prompt->format, a->model.model);
    if (a->prompt.ignore_chat_template)
        origin.chat_template = NULL;
    *seq = prompt_cache_open(s, a->cache_file, &origin, err);
    return *seq ? 0 : -1;
}

/* What the length of the text comes from, or leads to, where that is not what was asked for. */
static void say_length(const struct generate_args *a, const struct session *s, size_t prompt,
                       const struct generate_result *r)
{
    size_t n = prompt + (size_t)r->generated_tokens;

    if (n > 0 && session_warn_length(s, n - 1)) /* the last token is not evaluated */
        return;
    if (r->finish == FINISH_LENGTH && r->generated_tokens < a->max_tokens &&
        a->max_tokens != INT_MAX && !a->json && !a->parse)
        log_say(&cli_log, LOG_WARNING, "the text ends where the model's context of %d is full",
                engine_context(s->engine));
}

/* Who pipes a text in means it for the prompt, but without one on the command line it is not read.
 * Said at the end, as it may come late. */
static void say_unread(const struct generate_args *a)
{
    int n = 0;

    if (a->prompt.text == default_prompt && !isatty(STDIN_FILENO) &&
        ioctl(STDIN_FILENO, FIONREAD, &n) == 0 && n > 0)
        log_say(&cli_log, LOG_WARNING,
                "standard input was not read: --prompt - takes the prompt from there");
}

static int write_all(struct run *run, struct session *s, const struct sampling *sampling,
                     const struct prompt *given, uint64_t seed, clm_error *err)
{
    const struct token_list *prompt = &given->tokens;
    const struct generate_args *a = run->args;
    struct generate_options o = {
        .max_tokens = a->max_tokens,
        .prefill_step_size = a->prefill_step_size,
        .end_tokens = &sampling->end_tokens,
        .stops = &sampling->stops,
        .speculation = run->speculation,
        .ctx = run,
        .progress = show_progress,
        .interrupted = was_interrupted,
        .token = write_token,
    };
    struct generate_result r;
    kv_seq *seq = NULL;
    size_t length;
    bool warned;
    int rc;

    if (open_past(a, s, given, &seq, &o.prefixes, err))
        return -1;
    length = (size_t)(seq ? kv_seq_length(seq) : 0) + prompt->count;
    warned = a->model.max_kv_size && session_warn_length(s, length); /* else it is an error */
    if (prompt->count >= LONG_PROMPT)
        progress_show(&run->progress, 0, (int)prompt->count);
    run->tokenizer = s->tokenizer;
    rc = generate(s->engine, seq, sampling->sampler, s->tokenizer, prompt->ids, prompt->count, &o,
                  &r, err);
    progress_erase(&run->progress);
    kv_seq_close(seq);
    if (rc == 0 && !run->err->code) {
        if (a->json || a->parse)
            add_json_statistics(run, &r, seed);
        else
            add_statistics(run, &r);
        rc = output_buffer(&run->line, err);
    }
    /* Warnings begin a line of their own, behind the text's. */
    if (o.prefixes && rc == 0)
        prefix_index_write(o.prefixes);
    prefix_index_close(o.prefixes);
    if (rc || run->err->code)
        return -1;
    if (!warned)
        say_length(a, s, length, &r);
    say_unread(a);
    return r.finish == FINISH_CANCELLED ? STATUS_INTERRUPTED : STATUS_DONE;
}

static int run_session(struct run *run, struct session *s, clm_error *err)
{
    const struct generate_args *a = run->args;
    struct prompt prompt = {0};
    struct sampling sampling = {0};
    struct reply_format format;
    struct reply_rules rules = {0};
    struct prompt_options options = a->prompt;
    uint64_t seed = sampling_seed(&a->sampling);
    int rc = -1;

    run->dev = s->devices.dev;
    options.part = a->cache_file ? PROMPT_SUFFIX : PROMPT_WHOLE;

    if (sampling_open(&sampling, &a->sampling, s, seed, a->json, err) ||
        prompt_open(&prompt, &options, s->dir, s->tokenizer, err) ||
        session_check_tokens(s, &prompt.tokens, err) ||
        conversation_reply_format(&format, &a->prompt.chat, &prompt.format, s->tokenizer, err) ||
        reply_rules_init(&rules, &format, NULL, err))
        goto cleanup;
    sampling_warn_unused(&a->sampling);
    interrupt_watch(); /* not before: while the prompt is read, Ctrl-C ends at once */
    if (begin_reply(run, &rules, &prompt) == 0)
        rc = write_all(run, s, &sampling, &prompt, seed, err);

cleanup:
    reply_release(&run->reply);
    reply_lines_release(&run->lines);
    reply_rules_release(&rules);
    sampling_close(&sampling);
    prompt_close(&prompt);
    return rc;
}

/* A batch has its prompts in a file, and a form of its own. */
static int check_batch(const struct generate_args *a, clm_error *err)
{
    const char *name = NULL;

    if (a->prompt.text != default_prompt)
        name = "prompt";
    else if (a->prompt.prefill)
        name = "prefill-response";
    else if (a->prompt.chat.system)
        name = "system-prompt";
    else if (a->cache_file)
        name = "prompt-cache-file";
    else if (a->json || a->parse)
        name = a->json ? "json" : "parse";
    return name ? fail(err, CLM_ERR_ARG, "--batch and --%s exclude each other", name) : 0;
}

/* What there is of it in memory does not matter to one text. */
static bool bounds_kept(const struct generate_args *a)
{
    struct prefix_args usual = {0};

    prefix_defaults(&usual);
    return a->kept.entries != usual.entries || a->kept.bytes != usual.bytes;
}

/* Options of a batch say nothing of a single text, and a folder of caches nothing of one that
 * follows a file. */
static int check_single(const struct generate_args *a, clm_error *err)
{
    const char *name = NULL;

    if (a->batch.file)
        return 0;
    if (a->cache_file && a->kept.folder)
        return fail(err, CLM_ERR_ARG,
                    "--prompt-cache-file and --prompt-cache-dir exclude each other");
    if (a->prompt.chat.parser && !a->parse)
        return fail(err, CLM_ERR_ARG, "--tool-parser changes nothing without --parse or --batch");
    if (a->batch.size || a->batch.in_order)
        name = a->batch.size ? "batch-size" : "in-order";
    else if (bounds_kept(a))
        name = a->kept.bytes ? "prompt-cache-bytes" : "prompt-cache-size";
    return name ? fail(err, CLM_ERR_ARG,
                       "--%s is for the requests of --batch; give it a file of them", name)
                : 0;
}

static int run_batch(const struct generate_args *a, struct session *s, speculation *drafts,
                     clm_error *err)
{
    struct batch_rules rules = {
        .session = s,
        .sampling = &a->sampling,
        .max_tokens = a->max_tokens,
        .prefill_step_size = a->prefill_step_size,
        .speculation = drafts,
        .seed = sampling_seed(&a->sampling),
    };
    struct chat_template format = {0};
    struct sampling sampling = {0};
    struct reply_format reply;
    struct reply_rules replies = {0};
    int rc = -1;

    rules.prefixes = prefix_args_open(&a->kept, s->engine, err);
    if (!rules.prefixes || check_batch(a, err) ||
        sampling_open(&sampling, &a->sampling, s, 0, false, err) ||
        (!a->prompt.ignore_chat_template &&
         chat_template_open(&format, s->dir, &a->prompt.chat, err)) ||
        conversation_reply_format(&reply, &a->prompt.chat, &format, s->tokenizer, err) ||
        reply_rules_init(&replies, &reply, NULL, err))
        goto cleanup;
    rules.stops = &sampling.stops;
    rules.end_tokens = &sampling.end_tokens;
    rules.extra_end_tokens = &sampling.extra_end_tokens;
    rules.format = &format;
    rules.replies = &replies;
    interrupt_watch();
    rc = batch_run(&a->batch, &rules, err);
    prefix_index_write(rules.prefixes);

cleanup:
    prefix_index_close(rules.prefixes);
    reply_rules_release(&replies);
    chat_template_close(&format);
    sampling_close(&sampling);
    return rc;
}

/* Of a batch a step holds many texts, whatever of one prompt it may take. */
static int open_session(struct session *s, const struct generate_args *a, clm_error *err)
{
    int rows = a->batch.file ? 0 : a->prefill_step_size;

    return session_open_text(s, &a->model, rows, err);
}

static int generate_run(const void *args, clm_error *err)
{
    struct generate_args a = *(const struct generate_args *)args;
    struct run run = {.args = &a, .progress = progress_open("Prompt", "tokens"), .err = err};
    struct session s = {0};
    struct draft_session draft = {0};
    char *cached = a.cache_file && !a.model.model ? prompt_cache_model(a.cache_file, err) : NULL;
    int rc = -1;

    run.lines.out = &run.line;
    run.terminal = isatty(STDOUT_FILENO);
    if (cached)
        a.model.model = cached;
    a.model.like = a.cache_file;
    if (err->code)
        goto cleanup;
    if (a.json && a.parse)
        fail(err, CLM_ERR_ARG, "--json and --parse write different lines; give one of them");
    else if (a.sampling.sampler.top_logprobs > 0 && !a.json)
        fail(err, CLM_ERR_ARG, "--logprobs is for --json; %s",
             a.batch.file ? "of a batch each line asks for \"logprobs\"" : "give both");
    else if (check_single(&a, err) == 0 && sampling_read(&a.sampling, err) == 0 &&
             open_session(&s, &a, err) == 0 &&
             draft_session_open(&draft, &a.draft, &a.model, &s, err) == 0) {
        run.speculation = draft.speculation;
        rc = a.batch.file ? run_batch(&a, &s, draft.speculation, err) : run_session(&run, &s, err);
    }

cleanup:
    mem_free(cached);
    sampling_release(&a.sampling);
    strbuf_release(&run.line);
    strbuf_release(&run.token);
    draft_session_close(&draft);
    session_close(&s);
    return rc;
}

static void generate_defaults(void *args)
{
    struct generate_args *a = args;

    a->model.quantized_kv_start = QUANTIZED_KV_START;
    a->prompt.text = default_prompt;
    prefix_defaults(&a->kept);
    sampling_defaults(&a->sampling);
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
    {TABLE_OPTION(A, prompt.chat, options_replies)},
    {STRING_OPTION("prefill-response", 0, A, prompt.prefill, "TEXT",
                   "how the model's reply begins; it goes on from there")},
    {FLAG_OPTION("ignore-chat-template", 0, A, prompt.ignore_chat_template,
                 "give the prompt to the model as it is, without the model's chat template")},
    {STRING_OPTION("prompt-cache-file", 0, A, cache_file, "FILE",
                   "a prompt that was kept by clm cache-prompt or mlx-lm; what is said follows it "
                   "in the same message; without --model the model that it was made with is "
                   "used")},
    {INT_OR_ALL_OPTION("max-tokens", 'n', A, max_tokens, 1,
                       "how many tokens to generate at most; all: until the text or the model's "
                       "context ends (default: 100)")},
    {TABLE_OPTION(A, sampling, options_sampling)},
    {TABLE_OPTION(A, draft, options_draft)},
    {INT_OPTION("prefill-step-size", 0, A, prefill_step_size, 0, 65536,
                "how many tokens of the prompt to process at a time; fewer take less memory "
                "(default: 512, on a GPU 2048)")},
    {TABLE_OPTION(A, batch, options_batch)},
    {TABLE_OPTION(A, kept, options_prefix)},
    {FLAG_OPTION("json", 0, A, json,
                 "write a JSON object for each token, and a last one with statistics")},
    {INT_OPTION("logprobs", 0, A, sampling.sampler.top_logprobs, 0, MAX_TOP_LOGPROBS,
                "with --json: say for each token the log-probabilities of this many of the most "
                "likely ones, before filters and temperature (default: 0)")},
    {FLAG_OPTION("parse", 0, A, parse,
                 "write a JSON object for each piece of content, reasoning and calls of tools, and "
                 "a last one with statistics")},
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
