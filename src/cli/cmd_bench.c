/* cli/cmd_bench.c: how fast a model runs, and what part of the machine's best that is: every
 * combination of what the options list. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "cli/bench.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/locate.h"
#include "cli/memory_need.h"
#include "cli/shapes.h"

enum { MAX_TESTS = 10000 };

struct bench_args {
    struct model_options running; /* but for what is listed below */
    struct strings models, shapes;
    struct ids bits, group_sizes; /* of random weights */
    int layers;
    struct ids threads, cache_types, kv_bits, steps;
    struct ids prompts, generate, depths, texts;
    struct strings both; /* "P,N" */
    int repetitions;
    bool no_limits;
    int format; /* enum bench_format */
    bool json;
};

/* What is being run, and on what. */
struct run {
    const struct bench_args *a;
    const struct bench_test *tests; /* [n_tests], of each setup */
    int n_tests;
    int done, total; /* tests of all setups */
    struct bench_setup setup;
    struct session session;
    int n_threads;          /* that the limits were measured with; -1: they were not yet */
    double measured;        /* when, in seconds */
    struct bench_row *rows; /* [n_tests] */
    int32_t *tokens;
    struct bench_writer writer;
    clm_error *err;
};

/* --- what to run -------------------------------------------------------------------------------
 */

static int check_shapes(const struct bench_args *a, clm_error *err)
{
    char names[256] = "";

    for (int i = 0; shapes[i].name; i++) {
        strncat(names, i ? ", " : "", sizeof names - strlen(names) - 1);
        strncat(names, shapes[i].name, sizeof names - strlen(names) - 1);
    }
    for (int i = 0; i < a->shapes.n; i++)
        if (!shape_find(a->shapes.items[i]))
            return fail(err, CLM_ERR_ARG, "unknown shape %.60s; there are %s", a->shapes.items[i],
                        names);
    return 0;
}

static bool has_no_groups(const struct ids *bits)
{
    for (int i = 0; i < bits->n; i++)
        if (bits->items[i] != 16)
            return false;
    return bits->n > 0;
}

/* What random weights alone have. */
static int check_weights(const struct bench_args *a, clm_error *err)
{
    bool any = a->shapes.n > 0;

    if (any && a->models.n)
        return fail(err, CLM_ERR_ARG, "--shape and --model exclude each other");
    if (any && a->running.adapter_path)
        return fail(err, CLM_ERR_ARG, "--shape and --adapter-path exclude each other");
    if (!any && a->layers)
        return fail(err, CLM_ERR_ARG, "--layers goes with --shape");
    if (!any && (a->bits.n || a->group_sizes.n))
        return fail(err, CLM_ERR_ARG,
                    "--%s goes with --shape: a checkpoint has been quantised already",
                    a->bits.n ? "bits" : "group-size");
    for (int i = 0; i < a->bits.n; i++) {
        int bits = a->bits.items[i];

        if (bits == 7 || (bits > 8 && bits < 16))
            return fail(err, CLM_ERR_ARG, "--bits must be 2, 3, 4, 5, 6, 8 or 16, not %d", bits);
    }
    if (a->group_sizes.n && has_no_groups(&a->bits))
        return fail(err, CLM_ERR_ARG, "--group-size changes nothing of --bits 16, which is bf16");
    for (int i = 0; i < a->group_sizes.n; i++) {
        int size = a->group_sizes.items[i];

        if (size != 32 && size != 64 && size != 128)
            return fail(err, CLM_ERR_ARG, "--group-size must be 32, 64 or 128, not %d", size);
    }
    return check_shapes(a, err);
}

static int check_args(const struct bench_args *a, clm_error *err)
{
    if (check_weights(a, err))
        return -1;
    if (a->threads.n > 1 && a->running.tensor_parallel > 1)
        return fail(err, CLM_ERR_ARG,
                    "--threads takes one number only beside --tensor-parallel, which shares them");
    if (a->json && a->format != BENCH_TABLE && a->format != BENCH_JSON)
        return fail(err, CLM_ERR_ARG, "--json and --output %s exclude each other",
                    bench_formats[a->format]);
    return 0;
}

/* One text's tokens and those of its prompt, from "512,128". */
static int parse_both(const char *text, struct bench_test *t, clm_error *err)
{
    char *end;
    long prompt = strtol(text, &end, 10), generate = *end == ',' ? strtol(end + 1, &end, 10) : 0;

    if (*end || prompt < 1 || generate < 1 || prompt > 1 << 24 || generate > 1 << 24)
        return fail(err, CLM_ERR_ARG,
                    "--prompt-generate must be tokens of a prompt, a comma and tokens to generate, "
                    "such as 512,128, not %.40s",
                    text);
    *t = (struct bench_test){
        .kind = BENCH_BOTH, .prompt = (int)prompt, .generate = (int)generate, .texts = 1};
    return 0;
}

/* A list that grows to its bound. */
struct tests {
    struct bench_test *items; /* [MAX_TESTS] */
    int n;
};

static int too_many(clm_error *err)
{
    return fail(err, CLM_ERR_ARG, "these lists make more than %d tests: shorten one", MAX_TESTS);
}

static int add_test(struct tests *t, struct bench_test one, clm_error *err)
{
    if (t->n == MAX_TESTS)
        return too_many(err);
    t->items[t->n++] = one;
    return 0;
}

static int add_plain(struct tests *t, const struct bench_args *a, int depth, clm_error *err)
{
    for (int i = 0; i < a->prompts.n; i++) {
        struct bench_test one = {BENCH_PROMPT, a->prompts.items[i], 0, depth, 1};

        if (one.prompt > 0 && add_test(t, one, err))
            return -1;
    }
    for (int i = 0; i < a->generate.n; i++) {
        struct bench_test one = {BENCH_GENERATION, 0, a->generate.items[i], depth, 1};

        if (one.generate > 0 && add_test(t, one, err))
            return -1;
    }
    for (int i = 0; i < a->both.n; i++) {
        struct bench_test one = {0};

        if (parse_both(a->both.items[i], &one, err))
            return -1;
        one.depth = depth;
        if (add_test(t, one, err))
            return -1;
    }
    return 0;
}

/* Each text has a token before it at least. */
static int add_texts(struct tests *t, const struct bench_args *a, int depth, clm_error *err)
{
    for (int i = 0; i < a->texts.n; i++)
        for (int p = 0; p < a->prompts.n; p++)
            for (int g = 0; g < a->generate.n; g++) {
                int prompt = a->prompts.items[p];
                struct bench_test one = {BENCH_TEXTS, prompt > 0 ? prompt : 1, a->generate.items[g],
                                         depth, a->texts.items[i]};

                if (one.generate > 0 && add_test(t, one, err))
                    return -1;
            }
    return 0;
}

static int list_tests(struct tests *t, const struct bench_args *a, clm_error *err)
{
    for (int i = 0; i < a->depths.n; i++)
        if (add_plain(t, a, a->depths.items[i], err) || add_texts(t, a, a->depths.items[i], err))
            return -1;
    if (t->n == 0)
        return fail(err, CLM_ERR_ARG,
                    "nothing to measure: --prompt and --generate are both 0, and there is no "
                    "--prompt-generate");
    return 0;
}

/* --- running it --------------------------------------------------------------------------------
 */

/* The tokens that are appended at a time, and those in the cache, at most. */
static int longest_input(const struct run *r)
{
    int n = 1;

    for (int i = 0; i < r->n_tests; i++) {
        const struct bench_test *t = &r->tests[i];

        n = t->prompt > n ? t->prompt : n;
        n = t->depth > n ? t->depth : n;
    }
    return n;
}

static size_t longest_text(const struct run *r)
{
    size_t most = 0;

    for (int i = 0; i < r->n_tests; i++) {
        const struct bench_test *t = &r->tests[i];
        size_t n = (size_t)t->depth + (size_t)t->prompt + (size_t)t->generate;

        most = n > most ? n : most;
    }
    return most;
}

static int tokens_held(const struct run *r)
{
    double most = 0;

    for (int i = 0; i < r->n_tests; i++) {
        const struct bench_test *t = &r->tests[i];
        double n = ((double)t->depth + t->prompt + t->generate) * t->texts;

        most = n > most ? n : most;
    }
    return most < INT_MAX ? (int)most : INT_MAX;
}

/* Again where others have had time to stand in the way, or to go. */
static int measure_limits(struct run *r, int n_threads)
{
    if (r->a->no_limits || (n_threads == r->n_threads && clock_seconds() - r->measured < 2))
        return 0;
    if (n_threads != r->n_threads)
        r->setup.limits = (struct device_limits){0};
    if (bench_measure_limits(&r->setup, r->err))
        return -1;
    r->n_threads = n_threads;
    r->measured = clock_seconds();
    return 0;
}

/* The tests that have been run are written, whatever comes of those that follow. */
static int run_tests(struct run *r)
{
    struct bench_runner b = {.setup = &r->setup, .tokens = r->tokens};
    int n = 0, rc = 0;

    rng_seed(&b.rng, 1);
    for (; rc == 0 && n < r->n_tests; n += rc == 0) {
        char what[40];
        struct progress progress = progress_open(what, "runs");

        snprintf(what, sizeof what, "Test %d of %d", ++r->done, r->total);
        r->rows[n].test = r->tests[n];
        rc = bench_measure(&b, &r->rows[n], &progress, r->err);
    }
    bench_runner_close(&b);
    if (rc == 0)
        rc = measure_limits(r, r->n_threads);
    return bench_write(&r->writer, &r->setup, r->rows, n, r->err) || rc ? -1 : 0;
}

/* One engine. */
static int run_setup(struct run *r, int cache_type, int kv_bits, int step)
{
    struct model_options o = r->a->running;
    struct engine_options options;
    int rc;

    o.cache_type = cache_type;
    o.kv_bits = kv_bits;
    options = model_options_engine(&o, step);
    if (cache_type == 0)
        r->setup.cache_type = o.exact ? "f32" : "f16";
    else
        r->setup.cache_type = model_cache_types[cache_type];
    r->setup.kv_bits = options.kv_bits;
    r->setup.chunk = step;
    r->session.engine = engine_open(r->session.model, &options, r->err);
    rc = r->session.engine ? run_tests(r) : -1;
    engine_close(r->session.engine);
    r->session.engine = NULL;
    return rc;
}

static int run_engines(struct run *r)
{
    const struct bench_args *a = r->a;

    for (int c = 0; c < a->cache_types.n; c++)
        for (int k = 0; k < a->kv_bits.n; k++)
            for (int s = 0; s < a->steps.n; s++)
                if (run_setup(r, a->cache_types.items[c], a->kv_bits.items[k], a->steps.items[s]))
                    return -1;
    return 0;
}

/* The first number of threads is that which the device was opened with. */
static int run_threads(struct run *r)
{
    struct model_devices *d = &r->session.devices;
    device *cpu = d->dev->ops->reads_host ? d->dev : d->rest;

    for (int i = 0; i < r->a->threads.n; i++) {
        if (i > 0 && cpu && device_cpu_set_threads(cpu, r->a->threads.items[i], r->err))
            return -1;
        if (measure_limits(r, r->a->threads.items[i]) || run_engines(r))
            return -1;
    }
    return 0;
}

static bool go_on(void *ctx)
{
    (void)ctx;
    return !interrupt_seen();
}

static int open_shape(struct run *r, const char *shape)
{
    struct bench_setup *s = &r->setup;
    struct model_format format = {WEIGHT_AFFINE, s->bits, s->group_size};
    struct strbuf text = {0};

    if (s->bits == 16)
        format = (struct model_format){.format = WEIGHT_BF16};
    r->session.devices.read_ahead = go_on;
    shape_config(&text, shape_find(shape), r->a->layers);
    if (text.failed)
        fail(r->err, CLM_ERR_NOMEM, "no memory for the shape");
    else if (memory_need_check(text.data, shape, format, &r->session.devices, tokens_held(r),
                               r->err) == 0)
        r->session.model =
            model_random_over(text.data, shape, format, &r->session.devices, &cli_log, r->err);
    strbuf_release(&text);
    return r->session.model ? 0 : -1;
}

/* One model, opened once: of random weights where it is a shape. */
static int run_model(struct run *r, const char *model, bool is_shape)
{
    struct model_options o = r->a->running;
    int rc;

    o.model = model;
    o.threads = r->a->threads.items[0];
    rc = is_shape ? session_open_devices(&r->session, &o, r->err) || open_shape(r, model)
                  : session_open_model(&r->session, &o, r->err);
    r->setup.model = is_shape ? model : r->session.dir;
    if (rc == 0) {
        session_warn_length(&r->session, longest_text(r));
        rc = run_threads(r);
    }
    session_close(&r->session);
    return rc ? -1 : 0;
}

/* bf16 has no groups. */
static int run_shape(struct run *r, const char *shape, const struct ids *bits,
                     const struct ids *group_sizes)
{
    for (int i = 0; i < bits->n; i++)
        for (int g = 0; g < (bits->items[i] == 16 ? 1 : group_sizes->n); g++) {
            r->setup.bits = bits->items[i];
            r->setup.group_size = bits->items[i] == 16 ? 0 : group_sizes->items[g];
            if (run_model(r, shape, true))
                return -1;
        }
    return 0;
}

static int32_t four[] = {4}, sixty_four[] = {64};

/* How many tests there are in all; false: more than can be. */
static bool count_tests(struct run *r, const struct ids *bits, const struct ids *group_sizes)
{
    const struct bench_args *a = r->a;
    double n = a->models.n ? a->models.n : 1, formats = 0;

    for (int i = 0; i < bits->n; i++)
        formats += bits->items[i] == 16 ? 1 : group_sizes->n;
    if (a->shapes.n)
        n = a->shapes.n * formats;
    n *= (double)a->threads.n * a->cache_types.n * a->kv_bits.n * a->steps.n * r->n_tests;
    r->total = n <= MAX_TESTS ? (int)n : 0;
    return n <= MAX_TESTS;
}

static int run_models(struct run *r)
{
    const struct bench_args *a = r->a;
    struct ids bits = a->bits.n ? a->bits : (struct ids){four, 1};
    struct ids group_sizes = a->group_sizes.n ? a->group_sizes : (struct ids){sixty_four, 1};

    if (!count_tests(r, &bits, &group_sizes))
        return too_many(r->err);
    for (int i = 0; i < a->shapes.n; i++)
        if (run_shape(r, a->shapes.items[i], &bits, &group_sizes))
            return -1;
    for (int i = 0; i < a->models.n; i++)
        if (run_model(r, a->models.items[i], false))
            return -1;
    return a->shapes.n || a->models.n ? 0 : run_model(r, NULL, false);
}

static int allocate(struct run *r, arena *memory)
{
    r->rows = arena_array(memory, struct bench_row, r->n_tests);
    r->tokens = arena_array(memory, int32_t, longest_input(r) + 1);
    for (int i = 0; r->rows && i < r->n_tests; i++) {
        r->rows[i].speeds = arena_array(memory, double, r->a->repetitions);
        if (!r->rows[i].speeds)
            return -1;
    }
    return r->rows && r->tokens ? 0 : -1;
}

static int bench_run(const void *args, clm_error *err)
{
    const struct bench_args *a = args;
    clm_error inner = {0};
    struct run r = {.a = a, .err = &inner, .n_threads = -1};
    arena *memory = arena_open(0);
    struct tests tests = {memory ? arena_array(memory, struct bench_test, MAX_TESTS) : NULL, 0};
    int rc = -1;

    r.setup = (struct bench_setup){.session = &r.session,
                                   .exact = a->running.exact,
                                   .repetitions = a->repetitions,
                                   .no_limits = a->no_limits};
    r.writer.format = a->json ? BENCH_JSON : (enum bench_format)a->format;
    if (!tests.items) {
        fail(&inner, CLM_ERR_NOMEM, "no memory for a list of tests");
        goto cleanup;
    }
    if (check_args(a, &inner) || list_tests(&tests, a, &inner))
        goto cleanup;
    r.tests = tests.items;
    r.n_tests = tests.n;
    if (allocate(&r, memory)) {
        fail(&inner, CLM_ERR_NOMEM, "no memory for %d repetitions", a->repetitions);
        goto cleanup;
    }
    interrupt_watch();
    rc = run_models(&r);
    if (bench_write_end(&r.writer, &inner))
        rc = -1;

cleanup:
    arena_close(memory);
    if (rc && inner.code == CLM_ERR_CANCELLED)
        return STATUS_INTERRUPTED;
    return rc ? fail(err, inner.code, "%s", inner.message) : 0;
}

static void bench_defaults(void *args)
{
    static int32_t prompt[] = {512}, zero[] = {0};
    struct bench_args *a = args;

    a->prompts = (struct ids){prompt, 1};
    a->generate = (struct ids){sixty_four, 1};
    a->depths = a->threads = a->cache_types = a->kv_bits = a->steps = (struct ids){zero, 1};
    a->repetitions = 5;
}

#define A struct bench_args

static const struct option bench_options[] = {
    {STRINGS_OPTION(
        "model", 'm', A, models, "MODEL",
        "folders of models, or org/model[@revision] from the local Hugging Face cache; without it "
        "what CLM_MODEL in the environment names, else the small model that comes with clm")},
    {NAMES_OPTION(
        "shape", 's', A, shapes,
        "random weights in the shape of a known model instead of a checkpoint: "
        "llama-3.2-1b, llama-3.1-8b, qwen3-0.6b, qwen3-30b-a3b, gemma-3-4b, "
        "tinyllama-1.1b, deepseek-v2-lite, mamba2-1.3b, falcon-h1-1.5b, qwen3-next-80b-a3b "
        "or storyteller")},
    {INTS_OPTION("bits", 'b', A, bits, 2, 16,
                 "of the random weights: 16 for bf16; 2, 3, 4, 5, 6 or 8 in groups (default: 4)")},
    {INTS_OPTION("group-size", 0, A, group_sizes, 32, 128,
                 "weights that share a scale: 32, 64 or 128 (default: 64)")},
    {INT_OPTION("layers", 0, A, layers, 1, 1024, "cut the shape to this many layers")},
    {INTS_OPTION("prompt", 'p', A, prompts, 0, 1 << 24, "tokens of the prompt (default: 512)")},
    {INTS_OPTION("generate", 'n', A, generate, 0, 1 << 24, "tokens to generate (default: 64)")},
    {STRINGS_OPTION("prompt-generate", 0, A, both, "P,N",
                    "also measure a prompt of P tokens and N generated behind it, together")},
    {INTS_OPTION("depth", 'd', A, depths, 0, 1 << 24,
                 "tokens that the sequence holds already (default: 0)")},
    {INTS_OPTION("concurrent", 0, A, texts, 1, 1024,
                 "also measure what this many texts get together when they are generated at a "
                 "time, each behind a prompt of its own")},
    {INT_OPTION("repetitions", 'r', A, repetitions, 1, 10000, "of each measurement (default: 5)")},
    {FLAG_OPTION("no-limits", 0, A, no_limits,
                 "do not measure what the machine can do, which takes two seconds")},
    {INTS_OPTION("threads", 't', A, threads, 0, 1024,
                 "threads of the CPU to compute with (default: 0, one for each physical core)")},
    {CHOICES_OPTION("cache-type", 0, A, cache_types, model_cache_types,
                    "how keys and values are kept: auto (the default: f16, with --exact f32), f32, "
                    "f16 or bf16")},
    {CHOICES_OPTION("kv-bits", 0, A, kv_bits, model_kv_bits,
                    "keys and values quantised to 4 or 8 bits; none (the default): as they are")},
    {INTS_OPTION(
        "prefill-step-size", 0, A, steps, 0, 65536,
        "how many tokens of the prompt to process at a time (default: 0: 512, on a GPU 2048)")},
    {CHOICE_OPTION("output", 'o', A, format, bench_formats,
                   "how rows are written: table (the default), csv, json, jsonl or markdown")},
    {FLAG_OPTION("json", 0, A, json, "the same as --output json")},
    {TABLE_OPTION(A, running, options_running)},
    {0},
};

#undef A

const struct command command_bench = {
    .name = "bench",
    .summary = "speed at a model's shape, beside what the machine can do",
    .details =
        "Measures prompt processing and generation, the memory's read bandwidth and the peak "
        "of the arithmetic units, in one run. MB/token is what is read of weights and cache "
        "for a token; read, f32, int8 and bf16 are the parts of bandwidth and peaks that were "
        "used: of the bandwidth that a loop had between the steps of the repetition that is the "
        "median, measured off the clock every 10 ms, as others may share it; before and after it "
        "for models of less than 256 MB, which caches may hold.\n"
        "Options that take lists, N,N,..., ranges, 1-4, 1-9+2 or 64-512*2, or names are gone "
        "through in every combination, of which each makes a row. A model is loaded once. After "
        "Ctrl-C the rows that were done are written.\n"
        "bench/compare.py and bench/batch.py hold the figures beside llama.cpp's.",
    .options = bench_options,
    .args_size = sizeof(struct bench_args),
    .defaults = bench_defaults,
    .run = bench_run,
};
