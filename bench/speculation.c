/* Times text with guesses beside text without.
 *
 *     bench_speculation MODEL lookup|wrong|DRAFT_MODEL [PROMPT [ANSWER]] [-n TOKENS] [-r ROUNDS]
 *     bench_speculation MODEL lookup|wrong|DRAFT_MODEL PROMPTS -c N [-n TOKENS] [-r ROUNDS]
 *
 * PROMPT and ANSWER are files. With an answer the model's logits are replaced, so that it says just
 * that: an edited text, say, from a model of any shape, whatever its weights. Without, greedily
 * what the model says. "wrong" guesses at random, wherever it may: what useless guesses cost. Shown
 * are tokens a second, the median and the best of all rounds, in which both take turns.
 *
 * With -c each line of PROMPTS is a text of its own, N at a time, of TOKENS to twice as many, and
 * the time is that of all: prompts, and what the drafter reads of them, included.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "generate/rng.h"
#include "generate/scheduler.h"

#define MAX_ROUNDS 100

struct bench {
    device *dev;
    struct model *model, *small;
    engine *engine, *small_engine;
    tokenizer *tokenizer;
    struct token_list prompt, answer;
    struct token_list *lines; /* [n_lines] prompts of many texts */
    int n_lines, n_at_once;
    int n_tokens, n_rounds;
};

static void check(bool ok, const clm_error *err)
{
    if (ok)
        return;
    fprintf(stderr, "bench_speculation: %s\n", err->message);
    exit(1);
}

static draft_text *open_text(drafter *d, const sampler *s, clm_error *err)
{
    (void)d;
    (void)s;
    (void)err;
    return mem_alloc(1);
}

static void close_text(drafter *d, draft_text *t)
{
    (void)d;
    mem_free(t);
}

static void look(drafter *d, struct draft_job *job)
{
    (void)d;
    job->possible = MAX_DRAFT_TOKENS;
}

static void propose_wrong(drafter *d, struct draft_job *const *jobs, int n)
{
    (void)d;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < jobs[i]->n_drafts; k++)
            jobs[i]->drafts[k] = 17 + k;
}

static void close_wrong(drafter *d)
{
    mem_free(d);
}

static drafter *open_drafter(const struct bench *b, const char *kind, clm_error *err)
{
    drafter *d;

    if (!strcmp(kind, "lookup"))
        return drafter_open_lookup(err);
    if (strcmp(kind, "wrong") != 0)
        return drafter_open_model(b->small_engine, b->model->spec->vocab_size, err);
    d = mem_alloc(sizeof *d);
    if (d)
        *d = (drafter){open_text, close_text, look, propose_wrong, close_wrong};
    return d;
}

/* The next token of the answer, after the prompt and what has been said of it. */
static int say_answer(void *ctx, float *logits, int vocab_size, const int32_t *history, size_t n,
                      clm_error *err)
{
    const struct bench *b = ctx;
    size_t at = n - b->prompt.count;

    (void)history;
    (void)err;
    memset(logits, 0, (size_t)vocab_size * sizeof *logits);
    logits[at < b->answer.count ? b->answer.ids[at] : 0] = 1;
    return 0;
}

static sampler *open_greedy(const struct bench *b)
{
    struct sampler_options greedy = sampler_defaults();
    clm_error err = {0};
    sampler *s = sampler_open(&greedy, b->model->spec->vocab_size, &err);

    check(s, &err);
    return s;
}

/* NULL for kind NULL. */
static speculation *open_speculation(const struct bench *b, const char *kind)
{
    clm_error err = {0};
    drafter *d = kind ? open_drafter(b, kind, &err) : NULL;
    speculation *s = d ? speculation_open(d, NULL, &err) : NULL;

    check(s || !kind, &err);
    return s;
}

static double run_text(const struct bench *b, const char *kind, struct generate_result *r)
{
    struct generate_options o = {.max_tokens = b->n_tokens};
    clm_error err = {0};
    sampler *s = open_greedy(b);

    o.speculation = open_speculation(b, kind);
    if (b->answer.count > 0) {
        o.ctx = (void *)b;
        o.process = say_answer;
    }
    check(generate(b->engine, NULL, s, b->tokenizer, b->prompt.ids, b->prompt.count, &o, r, &err) ==
              0,
          &err);
    speculation_close(o.speculation);
    sampler_close(s);
    return (r->generated_tokens - 1) / r->generation_seconds;
}

static void add_result(void *ctx, const struct generate_result *r, const clm_error *err)
{
    struct generate_result *sum = ctx;

    check(!err, err);
    sum->prompt_tokens += r->prompt_tokens;
    sum->generated_tokens += r->generated_tokens;
    sum->drafted_tokens += r->drafted_tokens;
    sum->draft_tokens += r->draft_tokens;
}

static void submit(const struct bench *b, scheduler *loop, int i, sampler *s, speculation *drafts,
                   struct generate_result *r)
{
    struct request_options o = {
        .prompt = b->lines[i].ids,
        .n_prompt = b->lines[i].count,
        .sampler = s,
        .tokenizer = b->tokenizer,
        .generate = {.max_tokens = b->n_tokens + b->n_tokens * (i % 8) / 8, .speculation = drafts},
        .ctx = r,
        .done = add_result,
    };
    clm_error err = {0};

    check(scheduler_submit(loop, &o, &err), &err);
}

static double run_lines(const struct bench *b, const char *kind, struct generate_result *r)
{
    struct scheduler_options o = {.max_running = b->n_at_once};
    sampler **samplers = mem_zeroed((size_t)b->n_lines, sizeof *samplers);
    speculation *drafts = open_speculation(b, kind);
    clm_error err = {0};
    scheduler *loop = scheduler_open(b->engine, &o, &err);
    double begin = clock_seconds(), seconds;

    check(samplers && loop, &err);
    *r = (struct generate_result){0};
    for (int i = 0; i < b->n_lines; i++) {
        samplers[i] = open_greedy(b);
        submit(b, loop, i, samplers[i], drafts, r);
    }
    while (scheduler_step(loop))
        ;
    seconds = clock_seconds() - begin;
    scheduler_close(loop);
    speculation_close(drafts);
    for (int i = 0; i < b->n_lines; i++)
        sampler_close(samplers[i]);
    mem_free(samplers);
    return r->generated_tokens / seconds;
}

static double run(const struct bench *b, const char *kind, struct generate_result *r)
{
    return b->n_lines > 0 ? run_lines(b, kind, r) : run_text(b, kind, r);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, compare);
    return x[n / 2];
}

static void open_models(struct bench *b, const char *path, const char *kind)
{
    clm_error err = {0};

    b->dev = device_cpu_open(0, &err);
    check(b->dev, &err);
    b->model = model_open(path, b->dev, NULL, &err);
    check(b->model, &err);
    b->engine = engine_open(b->model, NULL, &err);
    b->tokenizer = b->engine ? tokenizer_open(path, NULL, &err) : NULL;
    check(b->tokenizer, &err);
    if (!strcmp(kind, "lookup") || !strcmp(kind, "wrong"))
        return;
    b->small = model_open(kind, b->dev, NULL, &err);
    check(b->small, &err);
    b->small_engine = engine_open(b->small, NULL, &err);
    check(b->small_engine, &err);
}

static void read_text(const struct bench *b, const char *path, bool begin, struct token_list *out)
{
    struct file_map map = {0};
    clm_error err = {0};

    check(file_map(&map, path, &err) == 0, &err);
    check(tokenizer_encode(b->tokenizer, (const char *)map.data, map.size, begin, out, &err) == 0,
          &err);
    file_unmap(&map);
}

static void read_lines(struct bench *b, const char *path)
{
    struct file_map map = {0};
    clm_error err = {0};
    const char *at, *end;

    check(file_map(&map, path, &err) == 0, &err);
    at = (const char *)map.data;
    end = at + map.size;
    b->lines = mem_zeroed(map.size, sizeof *b->lines);
    check(b->lines, &err);
    while (at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t size = (size_t)((stop ? stop : end) - at);
        struct token_list *line = &b->lines[b->n_lines];

        check(tokenizer_encode(b->tokenizer, at, size, true, line, &err) == 0, &err);
        b->n_lines += line->count > 0;
        at += size + 1;
    }
    file_unmap(&map);
}

static void read_prompt(struct bench *b)
{
    static const char text[] = "Once upon a time";
    clm_error err = {0};

    check(tokenizer_encode(b->tokenizer, text, strlen(text), true, &b->prompt, &err) == 0, &err);
}

static void measure(const struct bench *b, const char *kind)
{
    double plain[MAX_ROUNDS], guessed[MAX_ROUNDS], part[MAX_ROUNDS];
    struct generate_result r;

    for (int i = 0; i < b->n_rounds; i++) {
        /* Whoever is first takes turns too. */
        if (i % 2)
            plain[i] = run(b, NULL, &r);
        guessed[i] = run(b, kind, &r);
        if (i % 2 == 0) {
            struct generate_result ignored;

            plain[i] = run(b, NULL, &ignored);
        }
        part[i] = guessed[i] / plain[i];
    }
    printf("%d tokens after %d; %d guessed, %d right\n", r.generated_tokens, r.prompt_tokens,
           r.drafted_tokens, r.draft_tokens);
    printf("without %.1f tokens/s, with %.1f; median of the rounds %.3f times\n",
           median(plain, b->n_rounds), median(guessed, b->n_rounds), median(part, b->n_rounds));
    printf("at best %.1f and %.1f, %.3f times\n", plain[b->n_rounds - 1], guessed[b->n_rounds - 1],
           guessed[b->n_rounds - 1] / plain[b->n_rounds - 1]);
}

int main(int argc, char **argv)
{
    struct bench b = {.n_tokens = 128, .n_rounds = 5};
    const char *args[4] = {NULL};
    int n = 0;

    for (int i = 1; i < argc; i++) {
        int *number = !strcmp(argv[i], "-n")   ? &b.n_tokens
                      : !strcmp(argv[i], "-r") ? &b.n_rounds
                      : !strcmp(argv[i], "-c") ? &b.n_at_once
                                               : NULL;

        if (number && i + 1 < argc)
            *number = atoi(argv[++i]);
        else if (n < 4)
            args[n++] = argv[i];
    }
    if (n < 2 || b.n_tokens < 2 || b.n_rounds < 1 || b.n_rounds > MAX_ROUNDS ||
        (b.n_at_once > 0 && n != 3)) {
        fprintf(stderr, "usage: bench_speculation MODEL lookup|wrong|DRAFT_MODEL "
                        "[PROMPT [ANSWER]] [-n TOKENS] [-r ROUNDS]\n"
                        "       bench_speculation MODEL lookup|wrong|DRAFT_MODEL PROMPTS -c N "
                        "[-n TOKENS] [-r ROUNDS]\n");
        return 2;
    }
    open_models(&b, args[0], args[1]);
    if (b.n_at_once > 0)
        read_lines(&b, args[2]);
    else if (n > 2)
        read_text(&b, args[2], true, &b.prompt);
    else
        read_prompt(&b);
    if (n > 3)
        read_text(&b, args[3], false, &b.answer);
    if (b.answer.count > 0 && (size_t)b.n_tokens > b.answer.count)
        b.n_tokens = (int)b.answer.count;
    measure(&b, args[1]);
    for (int i = 0; i < b.n_lines; i++)
        token_list_release(&b.lines[i]);
    mem_free(b.lines);
    token_list_release(&b.prompt);
    token_list_release(&b.answer);
    tokenizer_close(b.tokenizer);
    engine_close(b.small_engine);
    model_close(b.small);
    engine_close(b.engine);
    model_close(b.model);
    b.dev->ops->close(b.dev);
    return 0;
}
