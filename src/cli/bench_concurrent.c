#include "cli/bench_concurrent.h"

#include "cli/interrupt.h"
#include "generate/scheduler.h"

struct work {
    clm_error *err;
    bool failed;
};

static bool go_on(void *ctx, const struct generated *g)
{
    (void)ctx;
    (void)g;
    return !interrupt_seen();
}

static void take_end(void *ctx, const struct generate_result *r, const clm_error *err)
{
    struct work *w = ctx;

    w->failed |= r->finish != FINISH_LENGTH;
    if (err)
        fail(w->err, err->code, "%s", err->message);
    else if (r->finish == FINISH_CANCELLED)
        fail(w->err, CLM_ERR_CANCELLED, "stopped");
}

static int submit(scheduler *s, struct work *w, kv_seq *seq, sampler *greedy, int n)
{
    int32_t last = kv_seq_tokens(seq)[kv_seq_length(seq) - 1];
    struct request_options o = {
        .prompt = &last,
        .n_prompt = 1,
        .seq = seq,
        .sampler = greedy,
        .generate = {.max_tokens = n, .token = go_on},
        .ctx = w,
        .done = take_end,
    };

    return scheduler_submit(s, &o, w->err) ? 0 : -1;
}

int bench_concurrent(engine *e, kv_seq *const *seqs, int n_seqs, int n, struct bench_meter *m,
                     clm_error *err)
{
    struct sampler_options greedy = sampler_defaults();
    struct scheduler_options o = {.max_running = n_seqs};
    struct work w = {.err = err};
    /* Greedy sampling keeps nothing, so that one will do for all. */
    sampler *chooser = sampler_open(&greedy, engine_model(e)->spec->vocab_size, err);
    scheduler *s = chooser ? scheduler_open(e, &o, err) : NULL;

    w.failed = !s;
    bench_meter_begin(m);
    for (int i = 0; i < n_seqs && !w.failed; i++)
        w.failed = submit(s, &w, seqs[i], chooser, n) != 0;
    while (!w.failed && scheduler_step(s))
        bench_meter_step(m);
    bench_meter_end(m);
    scheduler_close(s);
    sampler_close(chooser);
    return w.failed ? -1 : 0;
}
