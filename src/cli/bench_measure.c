#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/available.h"
#include "base/memory.h"
#include "cli/bench.h"
#include "cli/bench_concurrent.h"
#include "cli/interrupt.h"
#include "device/weight.h"

#define PAGE 4096

static double larger(double a, double b)
{
    return a > b ? a : b;
}

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

static bool is_wanted(void *ctx)
{
    (void)ctx;
    return !interrupt_seen();
}

int bench_measure_limits(struct bench_setup *setup, clm_error *err)
{
    device *d = setup->session->devices.dev;
    struct device_limits now, *best = &setup->limits;

    d->ops->measure(d, &now, is_wanted, NULL);
    best->read_bytes_per_second = larger(best->read_bytes_per_second, now.read_bytes_per_second);
    best->f32_flops_per_second = larger(best->f32_flops_per_second, now.f32_flops_per_second);
    best->int8_ops_per_second = larger(best->int8_ops_per_second, now.int8_ops_per_second);
    best->bf16_flops_per_second = larger(best->bf16_flops_per_second, now.bf16_flops_per_second);
    return interrupt_seen() ? fail(err, CLM_ERR_CANCELLED, "stopped") : 0;
}

/* --- time --------------------------------------------------------------------------------------
 */

/* Random tokens: experts are chosen as for text, and no cache gains from repetition. */
static void random_tokens(struct bench_runner *b, int n)
{
    uint64_t vocab_size = (uint64_t)b->setup->session->model->spec->vocab_size;

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

static int append(struct bench_runner *b, kv_seq *seq, int n, clm_error *err)
{
    const float *logits;

    if (n == 0)
        return 0;
    random_tokens(b, n);
    return engine_prefill(b->setup->session->engine, seq, b->tokens, n, b->setup->chunk, go_on,
                          NULL, &logits, err);
}

/* As a greedy text is made, where the device can go on with the token that it has chosen; else the
 * tokens are random ones. */
static int generate(struct bench_runner *b, kv_seq *seq, int n, clm_error *err)
{
    engine *e = b->setup->session->engine;

    random_tokens(b, 1);
    for (int i = 0; i < n; i++) {
        struct engine_input input = {seq,           b->tokens,    1,
                                     .n_logits = 1, .best = true, .goes_on = i + 1 < n};
        const float *logits;

        if (engine_step(e, &input, 1, &logits, err))
            return -1;
        if (engine_keeps_logits(e) && engine_best(e)[0] >= 0)
            b->tokens[0] = engine_best(e)[0];
        else
            random_tokens(b, 1);
        bench_meter_step(&b->meter);
        if (!interrupt_seen())
            continue;
        engine_drop(e);
        return fail(err, CLM_ERR_CANCELLED, "stopped");
    }
    return 0;
}

/* The prompt, what is generated, or both. */
static int run_one(struct bench_runner *b, const struct bench_test *t, clm_error *err)
{
    kv_seq *seq = kv_seq_fork(b->base, err);
    int rc = seq ? 0 : -1;

    bench_meter_begin(&b->meter);
    if (rc == 0 && t->kind != BENCH_GENERATION)
        rc = append(b, seq, t->prompt, err);
    if (rc == 0 && t->kind != BENCH_PROMPT)
        rc = generate(b, seq, t->generate, err);
    bench_meter_end(&b->meter);
    kv_seq_close(seq);
    return rc;
}

/* The texts that go on at a time, each behind a prompt of its own. */
static int run_texts(struct bench_runner *b, const struct bench_test *t, clm_error *err)
{
    int done = 0, rc = -1;
    kv_seq **seqs = mem_zeroed((size_t)t->texts, sizeof *seqs);

    if (!seqs)
        return fail(err, CLM_ERR_NOMEM, "no memory for %d texts", t->texts);
    for (; done < t->texts; done++) {
        seqs[done] = kv_seq_fork(b->base, err);
        if (!seqs[done] || append(b, seqs[done], t->prompt, err))
            break;
    }
    if (done == t->texts)
        rc = bench_concurrent(b->setup->session->engine, seqs, t->texts, t->generate, &b->meter,
                              err);
    for (int i = 0; i < t->texts; i++)
        kv_seq_close(seqs[i]);
    mem_free(seqs);
    return rc;
}

static void touch(const void *data, size_t size)
{
    const volatile uint8_t *p = data;

    for (size_t at = 0; p && at < size; at += PAGE)
        (void)p[at];
}

/* Every page, of experts too that the tokens of a short test do not choose: the first use of one
 * costs a fault, on a virtual machine in the host too, that says nothing of the uses after it. */
static int touch_weights(void *ctx, const struct nn_slot *slot)
{
    struct bench_runner *b = ctx;
    const struct nn_model *nn = b->setup->session->model->nn;
    int n = slot->n_in == 0 ? 0 : slot->n_experts ? slot->n_experts : 1;

    if (!nn_part_of(nn, slot->layer, slot->role)->dev->ops->reads_host)
        return 0;
    for (int e = 0; e < n && slot->weight[e].data && !interrupt_seen(); e++) {
        const struct weight *w = &slot->weight[e];
        size_t scales = weight_scale_row_bytes(w) * weight_scale_rows(w);

        touch(w->data, weight_row_bytes(w) * (size_t)w->n_out);
        touch(w->scales, scales);
        touch(w->biases, scales);
    }
    return 0;
}

/* Random weights are in memory; those of a file may be more than fits. */
static bool lies_in_memory(const struct model *m)
{
    return m->n_shares == 0 &&
           (!m->weights || 1.1 * (double)m->weight_bytes < (double)memory_available());
}

/* What it takes is in b->meter then. */
static int run_test(struct bench_runner *b, const struct bench_test *t, clm_error *err)
{
    const struct model *m = b->setup->session->model;

    if (lies_in_memory(m))
        nn_slots(m->nn, touch_weights, b);
    return t->kind == BENCH_TEXTS ? run_texts(b, t, err) : run_one(b, t, err);
}

/* The tokens that a test's time is for. */
static double tokens_of(const struct bench_test *t)
{
    switch (t->kind) {
    case BENCH_PROMPT:
        return t->prompt;
    case BENCH_GENERATION:
        return t->generate;
    case BENCH_BOTH:
        return (double)t->prompt + t->generate;
    case BENCH_TEXTS:
        return (double)t->generate * t->texts;
    }
    return 0;
}

/* The base holds as many tokens as the test has before it: what it holds already counts. */
static int reach_depth(struct bench_runner *b, int depth, clm_error *err)
{
    if (b->base && kv_seq_length(b->base) > depth) {
        kv_seq_close(b->base);
        b->base = NULL;
    }
    if (!b->base)
        b->base = kv_seq_open(engine_cache(b->setup->session->engine), err);
    return b->base ? append(b, b->base, depth - kv_seq_length(b->base), err) : -1;
}

/* The tokens of a prompt that are processed at a time. */
static int step_of(const struct bench_setup *s, int prompt)
{
    int step = smaller(prompt, engine_max_rows(s->session->engine));

    return s->chunk > 0 ? smaller(step, s->chunk) : step;
}

/* Once without the clock: pages of the weights are touched, buffers grow, a GPU's libraries are
 * loaded and choose their kernels for a step of this size. */
static int warm_up(struct bench_runner *b, struct bench_test t, clm_error *err)
{
    if (t.kind != BENCH_TEXTS)
        t.prompt = step_of(b->setup, t.prompt);
    t.generate = smaller(t.generate, 8);
    return run_test(b, &t, err);
}

/* --- cost --------------------------------------------------------------------------------------
 */

/* Bytes of weights that a step of n tokens reads: each matrix once, of stacked experts as many as
 * they can choose, of the embedding a row for each. of_asked: not among the others, what only the
 * n_asked tokens need whose logits are asked for. */
struct reading {
    const struct model *m;
    int n, n_asked;
    double bytes, of_asked;
};

/* What n tokens read of stacked matrices, of the size of one. */
static double stacked_read(const struct spec *spec, const struct nn_slot *slot, int n)
{
    const struct branch_spec *b =
        slot->layer < 0 ? NULL : &spec->layers[slot->layer].branches[slot->branch];
    double chosen =
        b && b->op == OP_MOE ? (double)n * b->moe.router.n_experts_per_token : slot->n_experts;

    return chosen < slot->n_experts ? chosen : slot->n_experts;
}

static int add_reading(void *ctx, const struct nn_slot *slot)
{
    struct reading *r = ctx;
    const struct spec *spec = r->m->spec;
    double bytes = slot->n_in > 0 ? (double)weight_bytes(slot->weight) : 0;
    bool of_asked = nn_meets_asked(r->m->nn, slot);

    if (slot->role == ROLE_EMBED_TOKENS && !spec->tie_word_embeddings)
        bytes *= (double)r->n / slot->n_out;
    else if (slot->n_experts > 0)
        bytes *= stacked_read(spec, slot, of_asked ? r->n_asked : r->n);
    *(of_asked ? &r->of_asked : &r->bytes) += bytes;
    return 0;
}

static struct reading weights_read(const struct model *m, int n, int n_asked)
{
    struct reading r = {.m = m, .n = n, .n_asked = n_asked};

    nn_slots(m->nn, add_reading, &r);
    return r;
}

/* Of a prompt only the last token's logits are asked for, so that the head and most of the last
 * layer are used once. */
static void prompt_costs(const struct bench_setup *s, struct bench_row *row)
{
    const struct model *m = s->session->model;
    double of_asked = model_flops_of_asked(m);
    int prompt = row->test.prompt, step = step_of(s, prompt);
    struct reading r = weights_read(m, step, 1);

    row->bytes = r.bytes / step + r.of_asked / prompt;
    row->flops = model_flops_per_token(m) - of_asked + of_asked / prompt;
}

/* The keys and values before a generated token are on average those of half the way. */
static void generation_costs(const struct bench_setup *s, struct bench_row *row)
{
    const struct bench_test *t = &row->test;
    const struct model *m = s->session->model;
    int before = t->depth + (t->kind == BENCH_GENERATION ? 0 : t->prompt) + t->generate / 2;
    struct reading r = weights_read(m, t->texts, t->texts);
    double weights = t->kind == BENCH_TEXTS ? (r.bytes + r.of_asked) / t->texts
                                            : (double)model_bytes_per_token(m);

    row->bytes = weights + kv_cache_bytes_of(engine_cache(s->session->engine), before);
    row->flops = model_flops_per_token(m);
}

/* What one token reads and computes. */
static void count_costs(const struct bench_setup *s, struct bench_row *row)
{
    const struct bench_test *t = &row->test;
    struct bench_row prompt = *row;

    if (t->kind != BENCH_PROMPT)
        generation_costs(s, row);
    if (t->kind != BENCH_PROMPT && t->kind != BENCH_BOTH)
        return;
    prompt_costs(s, &prompt);
    double part = t->kind == BENCH_PROMPT ? 1 : t->prompt / tokens_of(t);

    row->bytes = part * prompt.bytes + (1 - part) * row->bytes;
    row->flops = part * prompt.flops + (1 - part) * row->flops;
}

/* --- repetitions
 * -------------------------------------------------------------------------------- */

struct repetition {
    double speed; /* tokens per second */
    double read;  /* bytes per second that could have been read meanwhile */
};

static int by_speed(const void *a, const void *b)
{
    double x = ((const struct repetition *)a)->speed, y = ((const struct repetition *)b)->speed;

    return (x > y) - (x < y);
}

static int repeat(struct bench_runner *b, struct bench_row *row, struct repetition *done,
                  struct progress *progress, clm_error *err)
{
    const struct bench_meter *m = &b->meter;

    for (row->n = 0; row->n < b->setup->repetitions; row->n++) {
        if (run_test(b, &row->test, err))
            return -1;
        if (interrupt_seen())
            return fail(err, CLM_ERR_CANCELLED, "stopped");
        done[row->n] =
            (struct repetition){tokens_of(&row->test) / m->seconds, m->readable / m->seconds};
        progress_show(progress, row->n + 1, b->setup->repetitions);
    }
    qsort(done, (size_t)row->n, sizeof *done, by_speed);
    for (int i = 0; i < row->n; i++)
        row->speeds[i] = done[i].speed;
    row->read = (done[(row->n - 1) / 2].read + done[row->n / 2].read) / 2;
    return 0;
}

int bench_measure(struct bench_runner *b, struct bench_row *row, struct progress *progress,
                  clm_error *err)
{
    struct repetition *done = mem_zeroed((size_t)b->setup->repetitions, sizeof *done);
    int rc;

    if (!done)
        return fail(err, CLM_ERR_NOMEM, "no memory for %d repetitions", b->setup->repetitions);
    if (!b->setup->no_limits)
        bench_meter_init(&b->meter, b->setup->session->devices.dev,
                         b->setup->limits.read_bytes_per_second,
                         b->setup->session->model->weight_bytes);
    progress_show(progress, 0, b->setup->repetitions);
    rc = reach_depth(b, row->test.depth, err) || warm_up(b, row->test, err) ||
                 repeat(b, row, done, progress, err)
             ? -1
             : 0;
    progress_erase(progress);
    mem_free(done);
    if (rc)
        return -1;
    count_costs(b->setup, row);
    return 0;
}

void bench_runner_close(struct bench_runner *b)
{
    kv_seq_close(b->base);
    bench_meter_close(&b->meter);
}
