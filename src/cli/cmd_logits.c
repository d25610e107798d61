/* cli/cmd_logits.c: what comes out of a model before anything is sampled, as a safetensors file. */
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "cli/command.h"
#include "cli/logits_batch.h"
#include "cli/output.h"
#include "cli/prompt_cache.h"
#include "format/safetensors.h"

struct logits_args {
    struct model_options model;
    struct ids tokens, decode;
    int prefill_step_size;
    const char *cache_file, *save_cache;
    const char *batch;
    const char *out;
};

/* Append n tokens and put the logits after each into rows [n, vocab_size]. */
static int evaluate(float *rows, struct session *s, kv_seq *seq, const int32_t *tokens, int n,
                    int step, clm_error *err)
{
    size_t vocab_size = (size_t)s->model->spec->vocab_size;

    for (int i = 0; i < n; i += step) {
        int count = n - i < step ? n - i : step;
        struct engine_input input = {
            .seq = seq, .tokens = tokens + i, .n_tokens = count, .n_logits = count};
        const float *logits;

        if (engine_step(s->engine, &input, 1, &logits, err))
            return -1;
        memcpy(rows + (size_t)i * vocab_size, logits, (size_t)count * vocab_size * sizeof *rows);
    }
    return 0;
}

/* NULL: standard output */
static const char *out_path(const struct logits_args *a)
{
    return strcmp(a->out, "-") == 0 ? NULL : a->out;
}

static int write_logits(const struct logits_args *a, const float *rows, int vocab_size,
                        clm_error *err)
{
    const float *decode = rows + (size_t)a->tokens.n * (size_t)vocab_size;
    struct checkpoint_tensor tensors[] = {
        logits_tensor("decode_logits", decode, a->decode.n, vocab_size),
        logits_tensor("prompt_logits", rows, a->tokens.n, vocab_size),
    };

    return safetensors_write(out_path(a), tensors, COUNT(tensors), NULL, 0, err);
}

static int run_tokens(const struct logits_args *a, struct session *s, clm_error *err)
{
    int vocab_size = s->model->spec->vocab_size;
    int step = engine_max_rows(s->engine);
    size_t count, size;
    float *rows = NULL;
    kv_seq *seq = prompt_cache_open(s, a->cache_file, NULL, err);
    int rc = -1;

    if (!seq)
        return -1;
    if (a->prefill_step_size > 0 && a->prefill_step_size < step)
        step = a->prefill_step_size;
    if (size_add((size_t)a->tokens.n, (size_t)a->decode.n, &count) &&
        size_mul(count, (size_t)vocab_size, &count) && size_mul(count, sizeof *rows, &size))
        rows = mem_alloc(size);
    if (!rows) {
        fail(err, CLM_ERR_NOMEM, "no memory for the logits of %d tokens",
             a->tokens.n + a->decode.n);
        goto cleanup;
    }
    session_warn_length(s, (size_t)kv_seq_length(seq) + (size_t)a->tokens.n + (size_t)a->decode.n);
    if (evaluate(rows, s, seq, a->tokens.items, a->tokens.n, step, err) ||
        evaluate(rows + (size_t)a->tokens.n * (size_t)vocab_size, s, seq, a->decode.items,
                 a->decode.n, 1, err))
        goto cleanup;
    if (a->save_cache && cache_file_save(s->engine, seq, a->save_cache, NULL, err))
        goto cleanup;
    rc = write_logits(a, rows, vocab_size, err);

cleanup:
    mem_free(rows);
    kv_seq_close(seq);
    return rc;
}

static int check_args(const struct logits_args *a, clm_error *err)
{
    if (a->batch && (a->tokens.n || a->decode.n || a->cache_file || a->save_cache))
        return fail(err, CLM_ERR_ARG,
                    "--batch takes the place of --tokens, --decode and prompt caches");
    if (!a->batch && a->tokens.n == 0 && !(a->cache_file && a->decode.n))
        return fail(err, CLM_ERR_ARG, "--tokens is missing: --tokens 1,2,3");
    return a->out ? 0 : fail(err, CLM_ERR_ARG, "--out is missing: --out FILE.safetensors");
}

static int logits_run(const void *args, clm_error *err)
{
    const struct logits_args *a = args;
    struct model_options model = a->model;
    struct session s = {0};
    int rc = -1;

    if (check_args(a, err) || (out_path(a) && file_writer_try(a->out, err)) ||
        (a->save_cache && output_try_file("save-prompt-cache", a->save_cache, err)))
        return -1;
    model.like = a->cache_file;
    if (session_open(&s, &model, a->prefill_step_size, err) == 0)
        rc = a->batch ? logits_batch(&s, a->batch, out_path(a), err) : run_tokens(a, &s, err);
    session_close(&s);
    return rc;
}

static const struct option logits_options[] = {
    {TABLE_OPTION(struct logits_args, model, options_running)},
    {IDS_OPTION("tokens", 0, struct logits_args, tokens, "the prompt")},
    {IDS_OPTION("decode", 0, struct logits_args, decode,
                "tokens to follow it, given to the model one at a time")},
    {INT_OPTION(
        "prefill-step-size", 0, struct logits_args, prefill_step_size, 0, 65536,
        "how many tokens of the prompt to process at a time (default: 512, on a GPU 2048)")},
    {STRING_OPTION("prompt-cache-file", 0, struct logits_args, cache_file, "FILE",
                   "a prompt cache that the tokens follow, of clm cache-prompt or mlx-lm")},
    {STRING_OPTION("save-prompt-cache", 0, struct logits_args, save_cache, "FILE",
                   "where to keep what the model remembers after the last token, as such a cache")},
    {STRING_OPTION("batch", 0, struct logits_args, batch, "FILE",
                   "lines of {\"ids\": [...]}, as clm tokenize writes them, in place of --tokens; "
                   "- is standard input")},
    {STRING_OPTION("out", 'o', struct logits_args, out, "FILE",
                   "the safetensors file to write; - is standard output")},
    {0},
};

const struct command command_logits = {
    .name = "logits",
    .summary = "a model's logits for given tokens, written to a file",
    .details =
        "Writes float32 tensors prompt_logits [tokens, vocabulary] and decode_logits [tokens of "
        "--decode, vocabulary]: row i is what the model says after token i. With --batch the lists "
        "are evaluated together, and tensors logits.0, logits.1, ... are those of the lines.",
    .options = logits_options,
    .args_size = sizeof(struct logits_args),
    .run = logits_run,
};
