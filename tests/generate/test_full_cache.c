/* Requests alone in a cache that just has room for them: what others have left there does not
 * matter, and what only serves going back goes first. */
#include <string.h>

#include "engine/copy.h"
#include "engine/rig.h"
#include "generate/scheduler.h"

/* One request and what became of it. */
struct text {
    request *request;
    sampler *sampler;
    int n_tokens;
    int32_t last;
    struct generate_result result;
    clm_error err;
};

static bool on_token(void *ctx, const struct generated *g)
{
    struct text *t = ctx;

    t->n_tokens++;
    t->last = g->token;
    return true;
}

static void on_done(void *ctx, const struct generate_result *r, const clm_error *err)
{
    struct text *t = ctx;

    t->result = *r;
    if (err)
        t->err = *err;
}

static void submit(struct text *t, scheduler *s, const struct rig *r, const int32_t *prompt, int n,
                   int max_tokens)
{
    struct sampler_options greedy = sampler_defaults();
    struct request_options o = {.prompt = prompt,
                                .n_prompt = (size_t)n,
                                .generate = {.max_tokens = max_tokens, .ctx = t, .token = on_token},
                                .ctx = t,
                                .done = on_done};
    clm_error err = {0};

    t->sampler = sampler_open(&greedy, r->vocab_size, &err);
    CHECK(t->sampler, "%s", err.message);
    o.sampler = t->sampler;
    t->request = scheduler_submit(s, &o, &err);
    CHECK(t->request, "%s", err.message);
}

static scheduler *open_scheduler(engine *e)
{
    clm_error err = {0};
    scheduler *s = scheduler_open(e, NULL, &err);

    CHECK(s, "%s", err.message);
    return s;
}

/* Another engine of a rig's model. */
static void open_engine(struct rig *r, size_t cache_bytes)
{
    struct engine_options o = {.exact = true, .cache_bytes = cache_bytes, .max_rows = 64};
    clm_error err = {0};

    engine_close(r->engine);
    r->engine = engine_open(r->model, &o, &err);
    CHECK(r->engine, "%s", err.message);
}

static void run(scheduler *s)
{
    for (int i = 0; scheduler_step(s); i++)
        CHECK(i < 100000, "it does not end");
}

static void fill(int32_t *tokens, int n, int vocab_size)
{
    for (int i = 0; i < n; i++)
        tokens[i] = (int32_t)random_below((size_t)vocab_size);
}

/* The model of a fixture with a window as long as a text. */
static void open_windowed(struct rig *r)
{
    const char *from = shared_path("goldens/models/gemma3_long");
    char *text = copy_text(from, "config.json");
    char *wide = copy_replace(text, "\"sliding_window\": 24", "\"sliding_window\": 480");
    char *longer = copy_replace(wide, "\"max_position_embeddings\": 512",
                                "\"max_position_embeddings\": 32768");
    clm_error err = {0};

    temporary_write("windowed/config.json", longer);
    copy_link(from, "windowed", "model.safetensors");
    CHECK(rig_open(r, temporary_path("windowed"), 2, true, &err) == 0, "%s", err.message);
    free(wide);
    free(longer);
    mem_free(text);
}

/* The longest prompt, in steps of a block, that a request with one answer has room for alone. */
static int longest_alone(struct rig *r, const int32_t *tokens, int most, size_t bytes)
{
    for (int n = most; n > 0; n -= KV_BLOCK_TOKENS) {
        struct text t = {0};
        scheduler *s;

        open_engine(r, bytes);
        s = open_scheduler(r->engine);
        submit(&t, s, r, tokens, n, 1);
        run(s);
        scheduler_close(s);
        sampler_close(t.sampler);
        if (t.result.finish == FINISH_LENGTH)
            return n;
        CHECK(t.err.code == CLM_ERR_FULL, "%s", t.err.message);
    }
    CHECK(false, "nothing fits");
    return 0;
}

/* Two requests take blocks by turns, so that each has half of many slabs; the one that stays then
 * needs nearly all of the cache. */
static void test_scattered(void **state)
{
    enum { EACH = 600, MOST = 4200 };
    static int32_t tokens[2][MOST];
    struct text texts[2] = {0};
    struct rig r;
    scheduler *s;
    size_t bytes;
    int n;

    (void)state;
    SKIP_IF_NO_SHARED();
    open_windowed(&r);
    /* A slab has at most a 64th of the bound: two blocks. */
    bytes = 128 * kv_cache_block_bytes(engine_cache(r.engine), 0);
    for (int i = 0; i < 2; i++)
        fill(tokens[i], MOST, r.vocab_size);
    n = longest_alone(&r, tokens[0], MOST, bytes);
    open_engine(&r, bytes);
    s = open_scheduler(r.engine);
    submit(&texts[0], s, &r, tokens[0], n, 1);
    submit(&texts[1], s, &r, tokens[1], EACH, 1);
    run(s);
    for (int i = 0; i < 2; i++)
        CHECK(texts[i].result.finish == FINISH_LENGTH, "%d: %s", i, texts[i].err.message);
    print_message("%d tokens, %lld times given up\n", n, scheduler_load(s).preemptions);
    scheduler_close(s);
    CHECK(kv_cache_bytes_used(engine_cache(r.engine)) == 0, "bytes are still in use");
    for (int i = 0; i < 2; i++)
        sampler_close(texts[i].sampler);
    rig_close(&r);
}

/* Room for the states that a step needs, and for no earlier ones. */
static void test_states(void **state)
{
    static const char *const names[] = {"mamba2", "qwen3_next", "falcon_h1"};
    int32_t prompt[40];

    (void)state;
    SKIP_IF_NO_SHARED();
    for (size_t i = 0; i < COUNT(names); i++) {
        struct text t[2] = {0};
        char path[100];
        clm_error err = {0};
        struct rig r;

        snprintf(path, sizeof path, "goldens/models/%s", names[i]);
        CHECK(rig_open(&r, shared_path(path), 1, true, &err) == 0, "%s", err.message);
        fill(prompt, (int)COUNT(prompt), r.vocab_size);
        for (int small = 0; small < 2; small++) {
            kv_cache *c = engine_cache(r.engine);
            size_t bytes = 2 * kv_cache_state_bytes(c) + 64 * kv_cache_bytes_per_token(c);
            scheduler *s;

            open_engine(&r, small ? bytes : 0);
            s = open_scheduler(r.engine);
            submit(&t[small], s, &r, prompt, (int)COUNT(prompt), 20);
            run(s);
            CHECK(t[small].result.finish == FINISH_LENGTH && t[small].n_tokens == 20, "%s: %s",
                  names[i], t[small].err.message);
            CHECK(scheduler_load(s).preemptions == 0, "%s: evaluated again", names[i]);
            scheduler_close(s);
            sampler_close(t[small].sampler);
        }
        CHECK(t[0].last == t[1].last, "%s: other tokens", names[i]);
        rig_close(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scattered),
        cmocka_unit_test(test_states),
    };

    return cmocka_run_group_tests(tests, temporary_setup, temporary_teardown);
}
