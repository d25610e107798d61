/* cli/cmd_bench.c: how fast a model runs, and what part of the machine's best that is. */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "cli/bench_concurrent.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/memory_need.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/session.h"
#include "cli/shapes.h"
#include "device/weight.h"
#include "generate/rng.h"

struct bench_args {
    struct model_options model;
    const char *shape;
    int bits, group_size, layers;
    int prompt, generate, depth, repetitions;
    int concurrent; /* texts; 0: not measured */
    int prefill_step_size;
    bool json;
};

/* Tokens per second of each repetition, and what one token costs. */
struct series {
    const char *name; /* "prompt", "generation", "concurrent" */
    double *speeds;
    int n;
    double bytes; /* read per token: weights and cache */
    double flops; /* per token */
};

struct bench {
    const struct bench_args *args;
    struct session session;
    struct device_limits limits;
    struct series prompt, generation, concurrent;
    struct rng rng;
    int32_t *tokens; /* [the longest of prompt and depth] */
};

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(const struct series *s)
{
    return s->n % 2 ? s->speeds[s->n / 2] : (s->speeds[s->n / 2 - 1] + s->speeds[s->n / 2]) / 2;
}

static double deviation(const struct series *s)
{
    double mean = 0, squares = 0;

    for (int i = 0; i < s->n; i++)
        mean += s->speeds[i] / s->n;
    for (int i = 0; i < s->n; i++)
        squares += (s->speeds[i] - mean) * (s->speeds[i] - mean);
    return s->n > 1 ? sqrt(squares / (s->n - 1)) : 0;
}

/* Random tokens: experts are chosen as for text, and no cache gains from repetition. */
static void random_tokens(struct bench *b, int n)
{
    uint64_t vocab_size = (uint64_t)b->session.model->spec->vocab_size;

    for (int i = 0; i < n; i++)
        b->tokens[i] = (int32_t)(rng_next(&b->rng) % vocab_size);
}

static bool go_on(void *ctx, int done, int total)
{
    (void)ctx;
    (void)done;
    (void)total;
    return !interrupt_seen();
}

static int append(struct bench *b, kv_seq *seq, int n, clm_error *err)
{
    const float *logits;

    if (n == 0)
        return 0;
    random_tokens(b, n);
    return engine_prefill(b->session.engine, seq, b->tokens, n, b->args->prefill_step_size, go_on,
                          NULL, &logits, err);
}

/* Seconds for the prompt behind what the base sequence holds; negative with *err. */
static double time_prompt(struct bench *b, const kv_seq *base, int n, clm_error *err)
{
    kv_seq *seq = kv_seq_fork(base, err);
    double begin = clock_seconds();
    int rc = seq ? append(b, seq, n, err) : -1;

    begin = clock_seconds() - begin;
    kv_seq_close(seq);
    return rc ? -1 : begin;
}

static double time_generation(struct bench *b, const kv_seq *base, int n, clm_error *err)
{
    kv_seq *seq = kv_seq_fork(base, err);
    double begin = clock_seconds();
    int rc = seq ? 0 : -1;

    for (int i = 0; rc == 0 && i < n; i++) {
        struct engine_input input = {seq, b->tokens, 1, .n_logits = 1, .best = true};
        const float *logits;

        random_tokens(b, 1);
        rc = engine_step(b->session.engine, &input, 1, &logits, err);
        if (rc == 0 && interrupt_seen())
            rc = fail(err, CLM_ERR_CANCELLED, "stopped");
    }
    begin = clock_seconds() - begin;
    kv_seq_close(seq);
    return rc ? -1 : begin;
}

/* Seconds for n tokens of any of the texts that go on at a time, each behind a prompt of its own.
 */
static double time_concurrent(struct bench *b, const kv_seq *base, int n, clm_error *err)
{
    int n_seqs = b->args->concurrent, done = 0;
    kv_seq **seqs = mem_zeroed((size_t)n_seqs, sizeof *seqs);
    double seconds = -1;

    if (!seqs)
        return fail(err, CLM_ERR_NOMEM, "no memory for %d texts", n_seqs);
    for (; done < n_seqs; done++) {
        seqs[done] = kv_seq_fork(base, err);
        if (!seqs[done] || append(b, seqs[done], b->args->prompt > 0 ? b->args->prompt : 1, err))
            break;
    }
    if (done == n_seqs)
        seconds = bench_concurrent(b->session.engine, seqs, n_seqs, n, err) / n_seqs;
    for (int i = 0; i < n_seqs; i++)
        kv_seq_close(seqs[i]);
    mem_free(seqs);
    return seconds;
}

static int measure_series(struct bench *b, struct series *s, const kv_seq *base, int n,
                          double (*time)(struct bench *, const kv_seq *, int, clm_error *),
                          struct progress *progress, clm_error *err)
{
    /* Once without the clock: pages of the weights are touched, buffers grow. */
    if (n == 0 || time(b, base, n < 8 ? n : 8, err) < 0)
        return n == 0 ? 0 : -1;
    for (s->n = 0; s->n < b->args->repetitions; s->n++) {
        double seconds = time(b, base, n, err);

        if (seconds < 0)
            return -1;
        if (interrupt_seen())
            return fail(err, CLM_ERR_CANCELLED, "stopped");
        s->speeds[s->n] = n / seconds;
        progress_show(progress, s->n + 1, b->args->repetitions);
    }
    qsort(s->speeds, (size_t)s->n, sizeof *s->speeds, compare);
    return 0;
}

/* Bytes of weights that a step of n tokens of one sequence reads: each matrix once, of stacked
 * experts as many as n tokens can choose, of the embedding a row for each. */
struct reading {
    const struct spec *spec;
    int n;
    double bytes;
};

static int add_reading(void *ctx, const struct nn_slot *slot)
{
    struct reading *r = ctx;
    double bytes = slot->n_in > 0 ? (double)weight_bytes(slot->weight) : 0;

    if (slot->role == ROLE_EMBED_TOKENS && !r->spec->tie_word_embeddings) {
        bytes *= (double)r->n / slot->n_out;
    } else if (slot->n_experts > 0) {
        const struct moe_spec *moe = &r->spec->layers[slot->layer].branches[slot->branch].moe;
        double chosen = (double)r->n * moe->router.n_experts_per_token;

        bytes *= chosen < slot->n_experts ? chosen : slot->n_experts;
    }
    r->bytes += bytes;
    return 0;
}

static double weights_read(const struct model *m, int n)
{
    struct reading r = {.spec = m->spec, .n = n};

    nn_slots(m->nn, add_reading, &r);
    return r.bytes;
}

/* What one token reads and computes. Of a prompt only the last token's logits are asked for, so
 * that the head is used once; the keys and values before a generated token are on average those of
 * half the way. */
static void count_costs(struct bench *b)
{
    const struct bench_args *a = b->args;
    const struct model *m = b->session.model;
    double head = (double)weight_bytes(&m->nn->lm_head.w);
    double head_flops = 2.0 * m->nn->lm_head.w.n_out * m->nn->lm_head.w.n_in;
    int step = engine_max_rows(b->session.engine), prompt = a->prompt > 0 ? a->prompt : 1;

    if (a->prefill_step_size > 0 && a->prefill_step_size < step)
        step = a->prefill_step_size;
    if (prompt < step)
        step = prompt;
    b->prompt.bytes = (weights_read(m, step) - head) / step + head / prompt;
    b->prompt.flops = model_flops_per_token(m) - head_flops + head_flops / prompt;
    b->generation.bytes =
        (double)model_bytes_per_token(m) +
        kv_cache_bytes_of(engine_cache(b->session.engine), a->depth + a->generate / 2);
    b->generation.flops = model_flops_per_token(m);
    if (a->concurrent) {
        b->concurrent.bytes =
            weights_read(m, a->concurrent) / a->concurrent +
            kv_cache_bytes_of(engine_cache(b->session.engine), a->depth + prompt + a->generate / 2);
        b->concurrent.flops = model_flops_per_token(m);
    }
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

/* The machine's best: what another program takes away for a moment is not part of it. */
static void measure_limits(struct bench *b)
{
    struct device_limits now;

    b->session.devices.dev->ops->measure(b->session.devices.dev, &now);
    b->limits.read_bytes_per_second =
        larger(b->limits.read_bytes_per_second, now.read_bytes_per_second);
    b->limits.f32_flops_per_second =
        larger(b->limits.f32_flops_per_second, now.f32_flops_per_second);
    b->limits.int8_ops_per_second = larger(b->limits.int8_ops_per_second, now.int8_ops_per_second);
}

/* The part of a limit that was used; 0 where the limit is not known. */
static double fraction(double used, double limit)
{
    return limit > 0 ? used / limit : 0;
}

static double read_fraction(const struct bench *b, const struct series *s)
{
    return fraction(median(s) * s->bytes, b->limits.read_bytes_per_second);
}

static double f32_fraction(const struct bench *b, const struct series *s)
{
    return fraction(median(s) * s->flops, b->limits.f32_flops_per_second);
}

static double int8_fraction(const struct bench *b, const struct series *s)
{
    return fraction(median(s) * s->flops, b->limits.int8_ops_per_second);
}

static void add_json_series(struct strbuf *out, const struct bench *b, const struct series *s,
                            int tokens)
{
    strbuf_addf(out, "\"%s\": ", s->name);
    if (s->n == 0) {
        strbuf_add_str(out, "null");
        return;
    }
    strbuf_addf(out,
                "{\"tokens\": %d, \"tokens_per_second\": %.6g, \"deviation\": %.6g, "
                "\"bytes_per_token\": %.0f, \"flops_per_token\": %.0f, \"read_fraction\": %.4f, "
                "\"f32_fraction\": %.4f, \"int8_fraction\": %.4f}",
                tokens, median(s), deviation(s), s->bytes, s->flops, read_fraction(b, s),
                f32_fraction(b, s), int8_fraction(b, s));
}

static const char *model_name(const struct bench *b)
{
    return b->args->shape ? b->args->shape : b->session.dir;
}

static void add_json(struct strbuf *out, const struct bench *b)
{
    const struct bench_args *a = b->args;
    const struct session *s = &b->session;
    char what[100];
    bool on_cpu = !strcmp(s->devices.dev->ops->name, "cpu");

    strbuf_add_str(out, "{\"model\": ");
    strbuf_add_json(out, model_name(b), strlen(model_name(b)));
    strbuf_addf(out, ", \"bits\": %d, \"group_size\": %d, \"layers\": %d, ", a->shape ? a->bits : 0,
                a->shape && a->bits != 16 ? a->group_size : 0, s->model->spec->n_layers);
    strbuf_addf(out, "\"weight_bytes\": %zu, \"activation_bytes\": %zu, \"device\": \"%s\", ",
                s->model->weight_bytes, engine_activation_peak(s->engine),
                s->devices.dev->ops->name);
    s->devices.dev->ops->describe(s->devices.dev, what, sizeof what);
    strbuf_addf(out, "\"isa\": \"%s\", \"threads\": %d, \"exact\": %s, \"depth\": %d, ", what,
                on_cpu ? device_cpu_threads(s->devices.dev) : 0, a->model.exact ? "true" : "false",
                a->depth);
    strbuf_addf(out,
                "\"limits\": {\"read_bytes_per_second\": %.6g, \"f32_flops_per_second\": %.6g, "
                "\"int8_ops_per_second\": %.6g}, ",
                b->limits.read_bytes_per_second, b->limits.f32_flops_per_second,
                b->limits.int8_ops_per_second);
    add_json_series(out, b, &b->prompt, a->prompt);
    strbuf_add_str(out, ", ");
    add_json_series(out, b, &b->generation, a->generate);
    strbuf_addf(out, ", \"texts\": %d, ", a->concurrent);
    add_json_series(out, b, &b->concurrent, a->generate);
    strbuf_add_str(out, "}\n");
}

static void add_row(struct strbuf *out, const struct bench *b, const struct series *s, int tokens)
{
    if (s->n == 0)
        return;
    strbuf_addf(out, "%-10s %6d  %10.2f +- %-8.2f %10.2f %6.0f%% %6.0f%%", s->name, tokens,
                median(s), deviation(s), s->bytes / 1e6, 100 * read_fraction(b, s),
                100 * f32_fraction(b, s));
    if (b->limits.int8_ops_per_second > 0)
        strbuf_addf(out, " %6.0f%%\n", 100 * int8_fraction(b, s));
    else
        strbuf_add_str(out, "       -\n");
}

static void add_table(struct strbuf *out, const struct bench *b)
{
    const struct bench_args *a = b->args;
    const struct session *s = &b->session;
    char what[100];

    strbuf_addf(out, "%s, %d layers", model_name(b), s->model->spec->n_layers);
    if (a->shape && a->bits == 16)
        strbuf_add_str(out, ", bf16");
    else if (a->shape)
        strbuf_addf(out, ", %d bits in groups of %d", a->bits, a->group_size);
    strbuf_addf(out, ", %.3f GB of weights%s\n", (double)s->model->weight_bytes / 1e9,
                a->model.exact ? ", exact" : "");
    s->devices.dev->ops->describe(s->devices.dev, what, sizeof what);
    strbuf_addf(out, "%s (%s): reads %.1f GB/s, computes %.0f GFLOP/s in f32",
                s->devices.dev->ops->name, what, b->limits.read_bytes_per_second / 1e9,
                b->limits.f32_flops_per_second / 1e9);
    if (b->limits.int8_ops_per_second > 0)
        strbuf_addf(out, ", %.0f Gop/s in int8", b->limits.int8_ops_per_second / 1e9);
    strbuf_addf(out, "\n%d repetitions behind %d tokens\n\n", a->repetitions, a->depth);
    strbuf_add_str(out, "test       tokens    tokens/s (median)       MB/token    read     f32    "
                        "int8\n");
    add_row(out, b, &b->prompt, a->prompt);
    add_row(out, b, &b->generation, a->generate);
    add_row(out, b, &b->concurrent, a->generate);
}

static struct model_format format_of(const struct bench_args *a)
{
    if (a->bits == 16)
        return (struct model_format){.format = WEIGHT_BF16};
    return (struct model_format){WEIGHT_AFFINE, a->bits, a->group_size};
}

static int check_args(const struct bench_args *a, clm_error *err)
{
    char names[256] = "";

    if (a->shape && a->model.model)
        return fail(err, CLM_ERR_ARG, "--shape and --model exclude each other");
    if (a->shape && a->model.adapter_path)
        return fail(err, CLM_ERR_ARG, "--shape and --adapter-path exclude each other");
    if (!a->shape && a->layers)
        return fail(err, CLM_ERR_ARG, "--layers goes with --shape");
    if (a->prompt == 0 && a->generate == 0)
        return fail(err, CLM_ERR_ARG, "nothing to measure: --prompt and --generate are both 0");
    if (a->bits == 7 || (a->bits > 8 && a->bits < 16))
        return fail(err, CLM_ERR_ARG, "--bits must be 2, 3, 4, 5, 6, 8 or 16, not %d", a->bits);
    if (a->group_size != 32 && a->group_size != 64 && a->group_size != 128)
        return fail(err, CLM_ERR_ARG, "--group-size must be 32, 64 or 128, not %d", a->group_size);
    if (!a->shape || shape_find(a->shape))
        return 0;
    for (int i = 0; shapes[i].name; i++) {
        strncat(names, i ? ", " : "", sizeof names - strlen(names) - 1);
        strncat(names, shapes[i].name, sizeof names - strlen(names) - 1);
    }
    return fail(err, CLM_ERR_ARG, "unknown shape %.60s; there are %s", a->shape, names);
}

/* In the cache at a time, at most. */
static int tokens_held(const struct bench_args *a)
{
    double n = (double)a->depth + a->prompt + a->generate;

    n *= a->concurrent > 1 ? a->concurrent : 1;
    return n < INT_MAX ? (int)n : INT_MAX;
}

static int open_shape(struct bench *b, clm_error *err)
{
    const struct bench_args *a = b->args;
    struct session *s = &b->session;
    struct engine_options options = model_options_engine(&a->model, a->prefill_step_size);
    struct strbuf text = {0};

    shape_config(&text, shape_find(a->shape), a->layers);
    if (text.failed)
        fail(err, CLM_ERR_NOMEM, "no memory for the shape");
    else if (session_open_devices(s, &a->model, err) == 0 &&
             memory_need_check(text.data, a->shape, format_of(a), &s->devices, tokens_held(a),
                               err) == 0)
        s->model = model_random_over(text.data, a->shape, format_of(a), &s->devices, &cli_log, err);
    strbuf_release(&text);
    if (s->model)
        s->engine = engine_open(s->model, &options, err);
    return s->engine ? 0 : -1;
}

static int allocate(struct bench *b, clm_error *err)
{
    const struct bench_args *a = b->args;
    int longest = a->depth > a->prompt ? a->depth : a->prompt;

    b->prompt.speeds = mem_zeroed((size_t)a->repetitions, sizeof(double));
    b->generation.speeds = mem_zeroed((size_t)a->repetitions, sizeof(double));
    b->concurrent.speeds = mem_zeroed((size_t)a->repetitions, sizeof(double));
    b->tokens = mem_zeroed((size_t)longest + 1, sizeof *b->tokens);
    if (!b->prompt.speeds || !b->generation.speeds || !b->concurrent.speeds || !b->tokens)
        return fail(err, CLM_ERR_NOMEM, "no memory for %d repetitions", a->repetitions);
    return 0;
}

static int measure(struct bench *b, clm_error *err)
{
    const struct bench_args *a = b->args;
    struct progress prompt = progress_open("Prompt", "runs");
    struct progress generation = progress_open("Generation", "runs");
    struct progress concurrent = progress_open("Texts at once", "runs");
    kv_seq *base = kv_seq_open(engine_cache(b->session.engine), err);
    int rc = -1;

    measure_limits(b);
    if (base && append(b, base, a->depth, err) == 0 &&
        measure_series(b, &b->prompt, base, a->prompt, time_prompt, &prompt, err) == 0 &&
        measure_series(b, &b->generation, base, a->generate, time_generation, &generation, err) ==
            0 &&
        measure_series(b, &b->concurrent, base, a->concurrent ? a->generate : 0, time_concurrent,
                       &concurrent, err) == 0)
        rc = 0;
    progress_erase(&prompt);
    progress_erase(&generation);
    progress_erase(&concurrent);
    kv_seq_close(base);
    if (rc)
        return -1;
    measure_limits(b);
    count_costs(b);
    return 0;
}

static int bench_run(const void *args, clm_error *err)
{
    const struct bench_args *a = args;
    struct bench b = {.args = a,
                      .prompt.name = "prompt",
                      .generation.name = "generation",
                      .concurrent.name = "concurrent"};
    struct strbuf out = {0};
    clm_error inner = {0};
    int rc;

    rng_seed(&b.rng, 1);
    if (check_args(a, err))
        return -1;
    interrupt_watch();
    rc = a->shape ? open_shape(&b, &inner)
                  : session_open(&b.session, &a->model, a->prefill_step_size, &inner);
    if (rc == 0 && allocate(&b, &inner))
        rc = -1;
    if (rc == 0)
        rc = measure(&b, &inner);
    if (rc == 0) {
        if (a->json)
            add_json(&out, &b);
        else
            add_table(&out, &b);
        rc = output_buffer(&out, &inner);
    }
    strbuf_release(&out);
    mem_free(b.prompt.speeds);
    mem_free(b.generation.speeds);
    mem_free(b.concurrent.speeds);
    mem_free(b.tokens);
    session_close(&b.session);
    if (rc && inner.code == CLM_ERR_CANCELLED)
        return STATUS_INTERRUPTED;
    return rc ? fail(err, inner.code, "%s", inner.message) : 0;
}

static void bench_defaults(void *args)
{
    struct bench_args *a = args;

    a->bits = 4;
    a->group_size = 64;
    a->prompt = 512;
    a->generate = 64;
    a->repetitions = 5;
}

#define A struct bench_args

static const struct option bench_options[] = {
    {TABLE_OPTION(A, model, options_running)},
    {STRING_OPTION(
        "shape", 's', A, shape, "NAME",
        "random weights in the shape of a known model instead of a checkpoint: "
        "llama-3.2-1b, llama-3.1-8b, qwen3-0.6b, qwen3-30b-a3b, gemma-3-4b, "
        "tinyllama-1.1b, deepseek-v2-lite, mamba2-1.3b, falcon-h1-1.5b, qwen3-next-80b-a3b "
        "or storyteller")},
    {INT_OPTION("bits", 'b', A, bits, 2, 16,
                "of the random weights: 16 for bf16; 2, 3, 4, 5, 6 or 8 in groups (default: 4)")},
    {INT_OPTION("group-size", 0, A, group_size, 32, 128,
                "weights that share a scale: 32, 64 or 128 (default: 64)")},
    {INT_OPTION("layers", 0, A, layers, 1, 1024, "cut the shape to this many layers")},
    {INT_OPTION("prompt", 'p', A, prompt, 0, 1 << 24, "tokens of the prompt (default: 512)")},
    {INT_OPTION("generate", 'n', A, generate, 0, 1 << 24, "tokens to generate (default: 64)")},
    {INT_OPTION("depth", 'd', A, depth, 0, 1 << 24,
                "tokens that the sequence holds already (default: 0)")},
    {INT_OPTION("concurrent", 0, A, concurrent, 1, 1024,
                "also measure what this many texts get together when they are generated at a "
                "time, each behind a prompt of its own")},
    {INT_OPTION("repetitions", 'r', A, repetitions, 1, 10000, "of each measurement (default: 5)")},
    {INT_OPTION("prefill-step-size", 0, A, prefill_step_size, 0, 65536,
                "how many tokens of the prompt to process at a time (default: 512)")},
    {FLAG_OPTION("json", 0, A, json, "write one JSON object")},
    {0},
};

#undef A

const struct command command_bench = {
    .name = "bench",
    .summary = "speed at a model's shape, beside what the machine can do",
    .details =
        "Measures prompt processing and generation, the memory's read bandwidth and the peak "
        "of the arithmetic units, in one run. MB/token is what is read of weights and cache "
        "for a token; read, f32 and int8 are the parts of bandwidth and peak that were used. "
        "bench/compare.py and bench/batch.py hold the figures beside llama.cpp's.",
    .options = bench_options,
    .args_size = sizeof(struct bench_args),
    .defaults = bench_defaults,
    .run = bench_run,
};
