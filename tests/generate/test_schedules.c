/* Whatever comes when, whatever is cancelled, however small the cache, whatever is kept of earlier
 * texts, and whatever is drafted: each request gives what it gives alone. Thousands of random
 * schedules over small models of each kind. */
#include "testing.h"

#include <string.h>

#include "engine/rig.h"
#include "generate/oracle.h"
#include "generate/scheduler.h"

#define N_KINDS 64 /* each once, where all are there at once */
#define MAX_PROMPT 70
#define MAX_TOKENS 12
#define MAX_AT_ONCE N_KINDS
#define SCHEDULES (TEST_IS_SLOW ? 20 : 1000)
#define MAX_SCHEDULES 1000
#define OFTEN (1 + SCHEDULES / 50)

/* What is asked, and what comes of it alone. */
struct kind {
    int32_t prompt[MAX_PROMPT];
    int n_prompt;
    struct sampler_options sampling;
    struct generate_options generate;
    struct token_list end;
    int32_t alone[MAX_TOKENS];
    enum finish_reason finish;
    int n_alone;
};

/* One request on its way. */
struct flight {
    const struct kind *kind;
    sampler *sampler;
    request *request; /* NULL when it is done */
    int comes_at;     /* step */
    int cancel_after; /* tokens; -1: never */
    int n_tokens;
    int32_t tokens[MAX_TOKENS];
    bool done, cancelled;
    enum finish_reason finish;
    size_t *largest; /* bytes that a step needs, when it is alone */
    engine *engine;
    speculation *speculation; /* NULL: none */
};

static long long n_cached;          /* tokens of prompts */
static long long foreseen;          /* tokens that were drafts */
static long long beside;            /* steps that gave some of those, and read prompts */
static bool has_foreseen, has_read; /* the step at hand */
static struct oracle oracle;

/* What a step needs: a block of each pool more than is in use after it, when windows have let go of
 * one and the state before has become a snapshot. */
static size_t step_bytes(const kv_cache *c)
{
    size_t bytes = kv_cache_bytes_used(c);

    for (int i = 0; i < kv_cache_pools(c); i++)
        bytes += kv_cache_block_bytes(c, i);
    return bytes;
}

static bool take_token(void *ctx, const struct generated *g)
{
    struct flight *f = ctx;

    CHECK(f->n_tokens < f->kind->generate.max_tokens && !f->done, "too many tokens");
    f->tokens[f->n_tokens++] = g->token;
    foreseen += g->from_draft;
    has_foreseen |= g->from_draft;
    if (f->largest && step_bytes(engine_cache(f->engine)) > *f->largest)
        *f->largest = step_bytes(engine_cache(f->engine));
    if (f->n_tokens == f->cancel_after) {
        request_cancel(f->request);
        f->cancelled = true;
    }
    return true;
}

static void take_progress(void *ctx, int done, int total)
{
    (void)ctx;
    CHECK(done > 0 && done <= total, "%d of %d", done, total);
    has_read = true;
}

static void take_done(void *ctx, const struct generate_result *r, const clm_error *err)
{
    struct flight *f = ctx;

    CHECK(r->finish != FINISH_ERROR && !err, "%s", err->message);
    CHECK(!f->done && r->generated_tokens == f->n_tokens, "%d tokens", f->n_tokens);
    CHECK(r->cached_tokens < r->prompt_tokens, "%d of %d", r->cached_tokens, r->prompt_tokens);
    n_cached += r->cached_tokens;
    f->done = true;
    f->request = NULL;
    f->finish = r->finish;
    sampler_close(f->sampler);
}

static void submit(struct flight *f, scheduler *s, int vocab_size)
{
    clm_error err = {0};
    struct request_options o = {
        .prompt = f->kind->prompt,
        .n_prompt = (size_t)f->kind->n_prompt,
        .generate = f->kind->generate,
        .ctx = f,
        .done = take_done,
    };

    f->sampler = sampler_open(&f->kind->sampling, vocab_size, &err);
    CHECK(f->sampler, "%s", err.message);
    o.sampler = f->sampler;
    o.generate.ctx = f;
    o.generate.token = take_token;
    o.generate.progress = take_progress;
    o.generate.speculation = f->speculation;
    f->request = scheduler_submit(s, &o, &err);
    CHECK(f->request, "%s", err.message);
}

static void run_alone(struct kind *k, engine *e, int vocab_size, size_t *largest)
{
    struct flight f = {.kind = k, .cancel_after = -1, .largest = largest, .engine = e};
    clm_error err = {0};
    scheduler *s = scheduler_open(e, NULL, &err);

    CHECK(s, "%s", err.message);
    submit(&f, s, vocab_size);
    while (scheduler_step(s))
        ;
    scheduler_close(s);
    k->n_alone = f.n_tokens;
    k->finish = f.finish;
    memcpy(k->alone, f.tokens, sizeof f.tokens);
}

/* Greedy ones and seeded ones, with penalties whose windows reach into the prompt. Half of them
 * begin as the one before does. */
static void make_kind(struct kind *k, int i, int vocab_size)
{
    *k = (struct kind){.n_prompt = 1 + (int)random_below(i % 4 ? 20 : MAX_PROMPT),
                       .sampling = sampler_defaults()};
    for (int t = 0; t < k->n_prompt; t++)
        k->prompt[t] = (int32_t)random_below((size_t)vocab_size);
    if (i % 2)
        memcpy(k->prompt, k[-1].prompt, (size_t)k[-1].n_prompt / 2 * sizeof *k->prompt);
    if (i % 2 && k->n_prompt < k[-1].n_prompt / 2)
        k->n_prompt = k[-1].n_prompt / 2;
    k->generate.max_tokens = 1 + (int)random_below(MAX_TOKENS);
    k->generate.prefill_step_size = i % 3 ? 0 : 5;
    k->sampling.seed = random_u64();
    if (i % 2) {
        k->sampling.temp = 0.5 + (double)(i % 5) / 4;
        k->sampling.top_p = i % 3 ? 0.9 : 0;
        k->sampling.top_k = i % 7 ? 0 : 40;
        k->sampling.xtc_probability = i % 5 ? 0 : 0.5;
    }
    if (i == 13) {
        k->sampling = sampler_defaults();
        k->sampling.temp = 1;
        k->sampling.mirostat = 2;
    }
    if (i % 3 == 1)
        k->sampling.repetition = (struct penalty){1.3, i % 2 ? 8 : 0};
    if (i % 4 == 2)
        k->sampling.dry.multiplier = 0.8;
}

static void make_kinds(struct kind *kinds, engine *e, int vocab_size, size_t *largest)
{
    for (int i = 0; i < N_KINDS; i++) {
        struct kind *k = &kinds[i];

        make_kind(k, i, vocab_size);
        run_alone(k, e, vocab_size, largest);
        CHECK(k->finish == FINISH_LENGTH && k->n_alone == k->generate.max_tokens, "%d tokens",
              k->n_alone);
        if (i % 5 == 0) { /* one of its tokens ends it */
            token_list_add(&k->end, k->alone[k->n_alone / 2]);
            k->generate.end_tokens = &k->end;
            run_alone(k, e, vocab_size, largest);
            CHECK(k->finish == FINISH_STOP, "no end");
        }
    }
}

static void check_flight(const struct flight *f)
{
    const struct kind *k = f->kind;

    CHECK(f->done, "never done");
    CHECK(f->n_tokens <= k->n_alone &&
              !memcmp(f->tokens, k->alone, (size_t)f->n_tokens * sizeof *f->tokens),
          "other tokens than alone, after %d", f->n_tokens);
    if (f->finish == FINISH_CANCELLED)
        CHECK(f->cancelled, "cancelled by no one");
    else
        CHECK(f->finish == k->finish && f->n_tokens == k->n_alone, "%s after %d, alone %d",
              finish_reason_name(f->finish), f->n_tokens, k->n_alone);
}

static void fly(scheduler *s, struct flight *all, int n, int vocab_size)
{
    bool more = true;
    int started = 0;

    for (int step = 0; more || started < n; step++) {
        for (int i = 0; i < n; i++)
            if (all[i].comes_at == step) {
                submit(&all[i], s, vocab_size);
                started++;
            }
        for (int i = 0; i < n; i++)
            if (all[i].request && all[i].cancel_after == 0 && random_below(4) == 0) {
                request_cancel(all[i].request);
                all[i].cancelled = true;
            }
        has_foreseen = has_read = false;
        more = scheduler_step(s);
        beside += has_foreseen && has_read;
        CHECK(step < 10000, "it does not end");
    }
}

/* Guesses of all texts, good and bad, as many as can be had or as many as seem worth it. */
static speculation *open_speculation(const struct kind *kinds, int vocab_size)
{
    struct speculation_options o = {.max_drafts = 1 + (int)random_below(6),
                                    .always = random_below(3) > 0};
    clm_error err = {0};
    speculation *s;

    oracle_init(&oracle, vocab_size, (int)random_below(9));
    for (int i = 0; i < N_KINDS; i++)
        oracle_add(&oracle, kinds[i].prompt, kinds[i].n_prompt, kinds[i].alone, kinds[i].n_alone);
    s = speculation_open(&oracle.drafter, &o, &err);
    CHECK(s, "%s", err.message);
    return s;
}

static long long run_schedule(const struct rig *r, const struct kind *kinds, size_t largest, int n)
{
    static struct flight all[MAX_AT_ONCE];
    struct engine_options eo = {.exact = true,
                                .cache_bytes = largest * (9 + random_below(8)) / 8,
                                .max_rows = 4 + (int)random_below(60)};
    struct scheduler_options so = {.max_running = (int)random_below(9),
                                   .prompt_share = (int)random_below(20)};
    struct prefix_limits limits = {.max_entries = (int)random_below(9),
                                   .max_bytes = random_below(2) ? largest * 2 : 0};
    clm_error err = {0};
    engine *e = engine_open(r->model, &eo, &err);
    scheduler *s;
    speculation *drafts = random_below(2) ? open_speculation(kinds, r->vocab_size) : NULL;
    long long preemptions;

    CHECK(e, "%s", err.message);
    if (random_below(2)) {
        so.prefixes = prefix_index_open(e, &limits, &err);
        CHECK(so.prefixes, "%s", err.message);
    }
    s = scheduler_open(e, &so, &err);
    CHECK(s, "%s", err.message);
    for (int i = 0; i < n; i++)
        all[i] = (struct flight){
            .kind = &kinds[n == MAX_AT_ONCE ? (size_t)i : random_below(N_KINDS)],
            .speculation = random_below(4) ? drafts : NULL,
            .comes_at = random_below(3) ? 0 : (int)random_below(20),
            .cancel_after = random_below(5) ? -1 : (int)random_below(4),
        };
    fly(s, all, n, r->vocab_size);
    preemptions = scheduler_load(s).preemptions;
    for (int i = 0; i < n; i++)
        check_flight(&all[i]);
    scheduler_close(s);
    prefix_index_close(so.prefixes);
    CHECK(!drafts || oracle.open_texts == 0, "%d texts of the drafter left", oracle.open_texts);
    speculation_close(drafts);
    CHECK(kv_cache_bytes_used(engine_cache(e)) == 0, "%zu bytes are still in use",
          kv_cache_bytes_used(engine_cache(e)));
    engine_close(e);
    return preemptions;
}

/* Whether each remedy was at work; how often depends on measured times, which choose the drafts. */
static bool all_at_work(long long preemptions)
{
    return preemptions >= OFTEN && n_cached >= OFTEN && foreseen >= OFTEN && beside >= OFTEN;
}

static void test_schedules(void **state)
{
    static const char *const names[] = {"llama_tied",  "mixtral", "llama_sliding",
                                        "deepseek_v3", "mamba2",  "qwen3_next"};
    static struct kind kinds[N_KINDS];

    (void)state;
    SKIP_IF_NO_SHARED();
    for (size_t m = 0; m < COUNT(names); m++) {
        char path[100];
        clm_error err = {0};
        long long preemptions = 0;
        size_t largest = 0;
        struct rig r;

        snprintf(path, sizeof path, "goldens/models/%s", names[m]);
        CHECK(!rig_open(&r, shared_path(path), 1, true, &err), "%s", err.message);
        make_kinds(kinds, r.engine, r.vocab_size, &largest);
        for (int i = 0; i < 5; i++)
            preemptions += run_schedule(&r, kinds, largest, MAX_AT_ONCE);
        for (int i = 0; i < SCHEDULES || (i < MAX_SCHEDULES && !all_at_work(preemptions)); i++)
            preemptions += run_schedule(&r, kinds, largest, 1 + (int)random_below(8));
        CHECK(all_at_work(preemptions),
              "%s: %lld preemptions, %lld tokens cached, %lld right drafts, beside prompts in %lld "
              "steps",
              names[m], preemptions, n_cached, foreseen, beside);
        n_cached = foreseen = beside = 0;
        for (int i = 0; i < N_KINDS; i++)
            token_list_release(&kinds[i].end);
        rig_close(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_schedules)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
