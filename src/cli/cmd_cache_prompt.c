/* cli/cmd_cache_prompt.c: a prompt processed once and kept in a file. */
#include "base/clock.h"
#include "base/file.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/prompt.h"
#include "cli/prompt_cache.h"
#include "cli/sampling.h"

struct cache_prompt_args {
    struct model_options model;
    struct prompt_options prompt;
    int prefill_step_size;
    const char *file;
};

static bool show_progress(void *ctx, int done, int total)
{
    progress_show(ctx, done, total);
    return !interrupt_seen();
}

/* The sequence with all of the prompt; *seconds is what that took. */
static kv_seq *process(const struct cache_prompt_args *a, struct session *s,
                       const struct token_list *prompt, double *seconds, clm_error *err)
{
    struct progress progress = progress_open("Prompt", "tokens");
    kv_seq *seq = prompt_cache_open(s, NULL, NULL, err);
    double begin = clock_seconds();

    if (seq && engine_prefill(s->engine, seq, prompt->ids, (int)prompt->count, a->prefill_step_size,
                              show_progress, &progress, NULL, err)) {
        kv_seq_close(seq);
        seq = NULL;
    }
    progress_erase(&progress);
    *seconds = clock_seconds() - begin;
    return seq;
}

static int report(const struct token_list *prompt, double seconds, clm_error *err)
{
    struct strbuf line = {0};
    int rc;

    strbuf_addf(&line, "Prompt: %zu tokens, %.3f tokens-per-sec\n", prompt->count,
                seconds > 0 ? (double)prompt->count / seconds : 0);
    strbuf_addf(&line, "Peak memory: %.3f GB\n", peak_gigabytes());
    rc = output_buffer(&line, err);
    strbuf_release(&line);
    return rc;
}

static int keep(const struct cache_prompt_args *a, struct session *s, const struct prompt *prompt,
                clm_error *err)
{
    const struct token_list *tokens = &prompt->tokens;
    struct text_identity identity;
    struct cache_origin origin = prompt_cache_origin(&identity, s, &prompt->format, a->model.model);
    double seconds;
    clm_error problem = {0};
    kv_seq *seq;
    int rc;

    if (tokens->count == 0 || tokens->count > INT32_MAX)
        return fail(err, CLM_ERR_ARG, "a prompt of %zu tokens cannot be kept", tokens->count);
    seq = process(a, s, tokens, &seconds, &problem);
    if (!seq && problem.code == CLM_ERR_CANCELLED)
        return STATUS_INTERRUPTED;
    if (!seq)
        return fail(err, problem.code, "%s", problem.message);
    rc = cache_file_save(s->engine, seq, a->file, &origin, err);
    kv_seq_close(seq);
    return rc ? -1 : report(tokens, seconds, err);
}

static int cache_prompt_run(const void *args, clm_error *err)
{
    const struct cache_prompt_args *a = args;
    struct session s = {0};
    struct prompt prompt = {0};
    int rc = -1;

    if (!a->prompt.text)
        return fail(err, CLM_ERR_ARG, "--prompt is missing: --prompt TEXT");
    if (!a->file)
        return fail(err, CLM_ERR_ARG,
                    "--prompt-cache-file is missing: --prompt-cache-file FILE.safetensors");
    if (output_try_file("prompt-cache-file", a->file, err) == 0 &&
        session_open_text(&s, &a->model, a->prefill_step_size, err) == 0 &&
        prompt_open(&prompt, &a->prompt, s.dir, s.tokenizer, err) == 0 &&
        session_check_tokens(&s, &prompt.tokens, err) == 0) {
        session_warn_length(&s, prompt.tokens.count);
        interrupt_watch();
        rc = keep(a, &s, &prompt, err);
    }
    prompt_close(&prompt);
    session_close(&s);
    return rc;
}

static void cache_prompt_defaults(void *args)
{
    struct cache_prompt_args *a = args;

    a->model.quantized_kv_start = QUANTIZED_KV_START;
    a->prompt.part = PROMPT_PREFIX;
}

#define A struct cache_prompt_args

static const struct option cache_prompt_options[] = {
    {TABLE_OPTION(A, model, options_running)},
    {STRING_OPTION("prompt", 'p', A, prompt.text, "TEXT",
                   "what to keep; - reads it from standard input; \\n and \\t in it stand for line "
                   "ends and tabs")},
    {STRING_OPTION("prompt-cache-file", 0, A, file, "FILE", "the safetensors file to write")},
    {TABLE_OPTION(A, prompt.chat, options_template)},
    {FLAG_OPTION("ignore-chat-template", 0, A, prompt.ignore_chat_template,
                 "give the prompt to the model as it is, without the model's chat template")},
    {INT_OPTION("prefill-step-size", 0, A, prefill_step_size, 0, 65536,
                "how many tokens of the prompt to process at a time; fewer take less memory "
                "(default: 512, on a GPU 2048)")},
    {0},
};

#undef A

const struct command command_cache_prompt = {
    .name = "cache-prompt",
    .summary = "process a prompt once and keep it in a file",
    .details =
        "Writes what the model remembers of the prompt, in mlx-lm's format, for clm generate "
        "--prompt-cache-file to go on from: what is said there follows the prompt within the same "
        "message of the user. The file appears when it is complete; a model, tokenizer or chat "
        "template other than the one that it was made with is refused.",
    .options = cache_prompt_options,
    .args_size = sizeof(struct cache_prompt_args),
    .defaults = cache_prompt_defaults,
    .run = cache_prompt_run,
};
