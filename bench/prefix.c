/* bench/prefix.c: what a shared beginning saves, on random weights of 4 bits.
 *
 *     bench_prefix [-s shape] [-n shared] [-o own] [-t threads] [-f file] [-k tokens]
 *
 * Two requests that begin with the same tokens, one after the other: the time to the first token of
 * each, as it passed and as the processor spent it on all threads (which is what to compare on a
 * machine with other work), and by how much the cache has grown. With -f FILE also how long a
 * prompt cache of -k tokens takes to be written there, which needs no evaluation, to be opened, and
 * to give tokens then: the first one, and one after it, beside those of the sequence that was
 * written.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "cli/shapes.h"
#include "engine/cache_file.h"
#include "generate/scheduler.h"

struct setting {
    const char *shape, *file;
    int shared, own, threads, stored;
};

struct world {
    struct setting set;
    device *dev;
    struct model *model;
    engine *engine;
    prefix_index *prefixes;
    clm_error err;
};

static double seconds(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int open_world(struct world *w)
{
    struct model_format format = {.format = WEIGHT_AFFINE, .bits = 4, .group_size = 64};
    const struct shape *shape = shape_find(w->set.shape);
    struct strbuf text = {0};

    if (!shape)
        return fail(&w->err, CLM_ERR_ARG, "no shape %s", w->set.shape);
    shape_config(&text, shape, 0);
    w->dev = device_cpu_open(w->set.threads, &w->err);
    if (w->dev && !text.failed)
        w->model = model_random(text.data, shape->name, format, w->dev, NULL, &w->err);
    strbuf_release(&text);
    if (w->model)
        w->engine = engine_open(w->model, NULL, &w->err);
    if (w->engine)
        w->prefixes = prefix_index_open(w->engine, NULL, &w->err);
    return w->prefixes ? 0 : -1;
}

static void close_world(struct world *w)
{
    prefix_index_close(w->prefixes);
    engine_close(w->engine);
    model_close(w->model);
    if (w->dev)
        w->dev->ops->close(w->dev);
}

/* Any ids do, as long as they differ from one another now and then. */
static void fill_tokens(int32_t *tokens, int n, unsigned salt)
{
    for (int i = 0; i < n; i++)
        tokens[i] = (int32_t)(((unsigned)i * 2654435761u + salt * 40503u) % 1000u);
}

static void take_result(void *ctx, const struct generate_result *r, const clm_error *err)
{
    struct generate_result *out = ctx;

    *out = *r;
    if (err)
        fprintf(stderr, "%s\n", err->message);
}

/* A request for one token; the processor's seconds. */
static double ask(struct world *w, const int32_t *prompt, int n, struct generate_result *r)
{
    struct sampler_options greedy = sampler_defaults();
    struct scheduler_options so = {.prefixes = w->prefixes};
    sampler *choice = sampler_open(&greedy, w->model->spec->vocab_size, &w->err);
    scheduler *s = choice ? scheduler_open(w->engine, &so, &w->err) : NULL;
    struct request_options o = {.prompt = prompt,
                                .n_prompt = (size_t)n,
                                .sampler = choice,
                                .generate = {.max_tokens = 1},
                                .ctx = r,
                                .done = take_result};
    double begin = seconds(CLOCK_PROCESS_CPUTIME_ID);

    if (s && scheduler_submit(s, &o, &w->err))
        while (scheduler_step(s))
            continue;
    begin = seconds(CLOCK_PROCESS_CPUTIME_ID) - begin;
    scheduler_close(s);
    sampler_close(choice);
    return begin;
}

static int bench_shared(struct world *w)
{
    int n = w->set.shared + w->set.own;
    int32_t *prompt = malloc((size_t)n * sizeof *prompt);
    double cpu[2], passed[2];

    if (!prompt)
        return fail(&w->err, CLM_ERR_NOMEM, "no memory");
    fill_tokens(prompt, n, 0);
    for (unsigned i = 0; i < 2; i++) {
        struct generate_result r = {0};
        size_t before = kv_cache_bytes_used(engine_cache(w->engine));

        fill_tokens(prompt + w->set.shared, w->set.own, i + 1);
        cpu[i] = ask(w, prompt, n, &r);
        passed[i] = r.prompt_seconds;
        printf("request %u: %d tokens, %d of them there; first token after %.4f s, %.4f s of "
               "processor; cache + %.2f MB\n",
               i + 1, n, r.cached_tokens, r.prompt_seconds, cpu[i],
               (double)(kv_cache_bytes_used(engine_cache(w->engine)) - before) / 1e6);
        fflush(stdout);
    }
    printf("shorter by %.0f, processor %.0f\n", passed[0] / passed[1], cpu[0] / cpu[1]);
    free(prompt);
    return 0;
}

/* Blocks that hold whatever memory held. */
static kv_seq *long_sequence(struct world *w, int n)
{
    int32_t *tokens = malloc((size_t)n * sizeof *tokens);
    kv_seq *s = kv_seq_open(engine_cache(w->engine), &w->err);

    if (tokens && s && !kv_seq_reserve(s, n, &w->err)) {
        fill_tokens(tokens, n, 7);
        kv_seq_commit(s, tokens, n);
    }
    free(tokens);
    return s;
}

/* Two tokens of a sequence, one after the other. */
static int give_tokens(struct world *w, kv_seq *s)
{
    const int32_t token = 1;
    struct engine_input in = {.seq = s, .tokens = &token, .n_tokens = 1, .n_logits = 1};
    const float *logits;

    for (int i = 0; i < 2; i++) {
        double begin = seconds(CLOCK_MONOTONIC);

        if (engine_step(w->engine, &in, 1, &logits, &w->err))
            return -1;
        printf(", %s token %.4f s", i ? "next" : "first", seconds(CLOCK_MONOTONIC) - begin);
    }
    printf("\n");
    return 0;
}

static int open_file(struct world *w)
{
    double begin = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    kv_seq *s = cache_file_load(w->engine, w->set.file, NULL, &w->err);
    int rc = -1;

    if (s) {
        printf("opened in %.5f s, %.5f s of processor", seconds(CLOCK_MONOTONIC) - begin,
               seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu);
        rc = give_tokens(w, s);
    }
    kv_seq_close(s);
    return rc;
}

static int bench_file(struct world *w)
{
    kv_seq *s = long_sequence(w, w->set.stored);
    double begin = seconds(CLOCK_MONOTONIC);
    int rc = s ? cache_file_save(w->engine, s, w->set.file, NULL, &w->err) : -1;

    if (rc == 0) {
        printf("%d tokens written in %.3f s", w->set.stored, seconds(CLOCK_MONOTONIC) - begin);
        rc = give_tokens(w, s);
    }
    kv_seq_close(s);
    for (int i = 0; rc == 0 && i < 3; i++)
        rc = open_file(w);
    return rc;
}

int main(int argc, char **argv)
{
    struct world w = {.set = {"llama-3.2-1b", NULL, 8192, 8, 0, 100000}};
    int option, rc;

    while ((option = getopt(argc, argv, "s:n:o:t:f:k:")) != -1) {
        switch (option) {
        case 's':
            w.set.shape = optarg;
            break;
        case 'n':
            w.set.shared = atoi(optarg);
            break;
        case 'o':
            w.set.own = atoi(optarg);
            break;
        case 't':
            w.set.threads = atoi(optarg);
            break;
        case 'f':
            w.set.file = optarg;
            break;
        case 'k':
            w.set.stored = atoi(optarg);
            break;
        default:
            return 2;
        }
    }
    rc = open_world(&w);
    if (rc == 0 && w.set.shared > 0)
        rc = bench_shared(&w);
    if (rc == 0 && w.set.file)
        rc = bench_file(&w);
    if (rc)
        fprintf(stderr, "%s\n", w.err.message);
    close_world(&w);
    return rc ? 1 : 0;
}
