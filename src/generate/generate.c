#include "generate/generate.h"

#include "generate/scheduler.h"

struct outcome {
    struct generate_result *result;
    clm_error *err;
    int rc;
};

static void take_outcome(void *ctx, const struct generate_result *r, const clm_error *err)
{
    struct outcome *o = ctx;

    *o->result = *r;
    if (err)
        o->rc = fail(o->err, err->code, "%s", err->message);
}

int generate(engine *e, kv_seq *seq, sampler *s, const tokenizer *t, const int32_t *prompt,
             size_t n, const struct generate_options *o, struct generate_result *r, clm_error *err)
{
    struct outcome outcome = {.result = r, .err = err};
    struct request_options options = {
        .prompt = prompt,
        .n_prompt = n,
        .seq = seq,
        .sampler = s,
        .tokenizer = t,
        .generate = *o,
        .ctx = &outcome,
        .done = take_outcome,
    };
    struct scheduler_options alone = {.max_running = 1, .prefixes = o->prefixes};
    scheduler *loop = scheduler_open(e, &alone, err);

    *r = (struct generate_result){0};
    if (!loop)
        return -1;
    if (!scheduler_submit(loop, &options, err))
        outcome.rc = -1;
    while (scheduler_step(loop))
        ;
    scheduler_close(loop);
    return outcome.rc;
}

const char *finish_reason_name(enum finish_reason reason)
{
    static const char *const names[] = {"stop", "length", "cancelled", "timeout", "error"};

    return names[reason];
}
