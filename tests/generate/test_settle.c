/* Tokens drawn on a device are those that the sampler draws from the logits: of rows of all kinds,
 * on the CPU or what CLM_DEVICE names, and in texts of a model whose logits do not come here. */
#include "testing.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "generate/bundled.h"
#include "generate/generate.h"
#include "generate/scheduler.h"
#include "generate/settle.h"

/* Rows */

enum { MAX_COLS = 128256, N_ROWS = 6 };

/* What a row looks like. */
enum shape { FLAT, STEEP, TIED, HOLED, EQUAL, SHAPES };

/* About normal. */
static float random_logit(void)
{
    float x[6], sum = 0;

    random_floats(x, COUNT(x));
    for (size_t i = 0; i < COUNT(x); i++)
        sum += x[i];
    return sum / 1.41421356f;
}

static void fill_row(float *x, int n, enum shape shape)
{
    float offset = random_logit() * 20;

    for (int i = 0; i < n; i++) {
        x[i] = random_logit() * (shape == STEEP ? 6 : 1.5f) + offset;
        if (shape == STEEP && random_below(8) == 0)
            x[i] += 6;
        if (shape == TIED)
            x[i] = roundf(x[i] * 4) / 4;
        if (shape == HOLED && random_below(3) == 0)
            x[i] = -INFINITY;
        if (shape == EQUAL)
            x[i] = offset;
    }
    x[random_below((size_t)n)] = offset + 1;
}

static struct sampler_options random_options(int n_cols)
{
    static const double temps[] = {0.05, 0.3, 0.8, 1, 1, 1.7, 6};
    static const double top_ps[] = {0, 0, 0.1, 0.5, 0.9, 0.95}, min_ps[] = {0, 0, 0.01, 0.05, 0.3};
    static const int top_ks[] = {0, 0, 1, 5, 40, 1000};
    struct sampler_options o = sampler_defaults();

    o.temp = temps[random_below(COUNT(temps))];
    o.top_p = top_ps[random_below(COUNT(top_ps))];
    o.min_p = min_ps[random_below(COUNT(min_ps))];
    o.top_k = top_ks[random_below(COUNT(top_ks))];
    o.top_k = o.top_k < n_cols ? o.top_k : 0;
    o.seed = random_u64();
    return o;
}

/* What came of all rows. */
struct tally {
    int rows, unsettled;
};

static void *on_device(device *d, const void *data, size_t size)
{
    clm_error err = {0};
    void *p = d->ops->alloc(d, size, &err);

    CHECK(p, "%s", err.message);
    d->ops->upload(d, p, data, size);
    return p;
}

static void draw(device *d, struct drawn *out, const float *x, int n_cols,
                 const struct draw_rule *rules, bool filtered)
{
    size_t size = N_ROWS * (size_t)n_cols * sizeof *x;
    tensor t = {on_device(d, x, size), DTYPE_F32, N_ROWS, n_cols, n_cols};
    void *on_rules = on_device(d, rules, N_ROWS * sizeof *rules);
    int32_t *ids = on_device(d, x, N_ROWS * sizeof *ids);
    struct drawn *found = on_device(d, out, N_ROWS * sizeof *found);
    clm_error err = {0};

    d->ops->argmax(d, ids, &t);
    d->ops->draw(d, found, &t, ids, on_rules, filtered);
    d->ops->download(d, out, found, N_ROWS * sizeof *found);
    CHECK(!d->ops->sync(d, &err), "%s", err.message);
    d->ops->free(d, t.data);
    d->ops->free(d, on_rules);
    d->ops->free(d, ids);
    d->ops->free(d, found);
}

static void check_rows(device *d, int n_cols, enum shape shape, struct tally *tally)
{
    float *x = mem_alloc(N_ROWS * (size_t)n_cols * sizeof *x);
    struct draw_rule rules[N_ROWS];
    struct drawn out[N_ROWS] = {{0}};
    sampler *s[N_ROWS];
    clm_error err = {0};
    bool filtered = false;

    assert_non_null(x);
    for (int i = 0; i < N_ROWS; i++) {
        struct sampler_options o = random_options(n_cols);

        fill_row(x + (size_t)i * (size_t)n_cols, n_cols, shape);
        s[i] = sampler_open(&o, n_cols, &err);
        CHECK(s[i], "%s", err.message);
        CHECK(sampler_rules(s[i], &rules[i], 1), "no rule");
        filtered |= o.top_p > 0 || o.top_k > 0 || o.min_p > 0;
    }
    draw(d, out, x, n_cols, rules, filtered);
    for (int i = 0; i < N_ROWS; i++) {
        int32_t token = settle(&out[i], &rules[i]);
        struct sample want;

        CHECK(!sampler_next(s[i], x + (size_t)i * (size_t)n_cols, NULL, 0, &want, &err), "%s",
              err.message);
        CHECK(token < 0 || token == want.token,
              "%d columns, shape %d, top_p %g, top_k %d, floor %g, 1/temp %g: %d, not %d", n_cols,
              (int)shape, (double)rules[i].top_p, rules[i].top_k, (double)rules[i].floor,
              (double)rules[i].per_temp, token, want.token);
        tally->rows++;
        tally->unsettled += token < 0;
        sampler_close(s[i]);
    }
    mem_free(x);
}

static void test_rows(void **state)
{
    static const int cols[] = {1, 2, 7, 48, 1000, 4097, 32000, MAX_COLS};
    const int n_tries = test_is_slow() ? 60 : 600;
    struct tally tally[SHAPES] = {{0}};
    clm_error err = {0};
    device *d = device_open(getenv("CLM_DEVICE") ? NULL : "cpu", 2, &err);

    (void)state;
    CHECK(d, "%s", err.message);
    for (int i = 0; i < n_tries; i++) {
        if (!next_case())
            continue;
        /* Long rows take long: fewer of them. */
        int n = cols[random_below(i % 8 ? 6 : COUNT(cols))];
        enum shape shape = (enum shape)random_below(SHAPES);

        check_rows(d, n, shape, &tally[shape]);
    }
    for (int i = 0; i < SHAPES; i++)
        print_message("shape %d: %d of %d rows are not settled\n", i, tally[i].unsettled,
                      tally[i].rows);
    d->ops->close(d);
    if (getenv("CLM_TEST_PART"))
        return; /* too few rows to tell */
    /* Ties at the edge of a filter are left to the sampler; else hardly anything. */
    CHECK(tally[FLAT].unsettled * 30 < tally[FLAT].rows, "flat rows");
    CHECK(tally[STEEP].unsettled * 30 < tally[STEEP].rows, "steep rows");
    CHECK(tally[HOLED].unsettled * 30 < tally[HOLED].rows, "rows with holes");
}

/* Rows without a largest number are never settled. */
static void test_not_finite(void **state)
{
    static const float bad[] = {NAN, INFINITY};
    enum { COLS = 50 };
    float x[N_ROWS * COLS];
    struct draw_rule rules[N_ROWS];
    struct drawn out[N_ROWS] = {{0}};
    struct sampler_options o = sampler_defaults();
    clm_error err = {0};
    device *d = device_open(getenv("CLM_DEVICE") ? NULL : "cpu", 2, &err);
    sampler *s;

    (void)state;
    CHECK(d, "%s", err.message);
    o.temp = 1;
    o.top_p = 0.9;
    s = sampler_open(&o, COLS, &err);
    CHECK(s && sampler_rules(s, rules, N_ROWS), "no rules");
    for (int i = 0; i < N_ROWS * COLS; i++)
        x[i] = i < COLS ? -INFINITY : random_logit();
    for (int i = 1; i < N_ROWS; i++)
        x[i * COLS + (int)random_below(COLS)] = bad[i % 2];
    for (int filtered = 0; filtered < 2; filtered++) {
        draw(d, out, x, COLS, rules, filtered);
        for (int i = 0; i < N_ROWS; i++)
            CHECK(settle(&out[i], &rules[i]) < 0, "row %d is settled", i);
    }
    sampler_close(s);
    d->ops->close(d);
}

/* What a rule does not say is left to the sampler. */
static void test_no_rules(void **state)
{
    static const clm_logit_bias bias = {3, 1};
    struct sampler_options o[14];
    struct draw_rule rule;
    clm_error err = {0};

    (void)state;
    for (size_t i = 0; i < COUNT(o); i++) {
        o[i] = sampler_defaults();
        o[i].temp = 1;
    }
    o[0].temp = 0;
    o[1].temp = 0.04;
    o[2].dynatemp_range = 0.5;
    o[3].top_n_sigma = 1;
    o[4].typical_p = 0.9;
    o[5].xtc_probability = 0.5;
    o[6].mirostat = 2;
    o[7].min_p = 0.1;
    o[7].min_tokens_to_keep = 2;
    o[8].logprobs = true;
    o[9].top_logprobs = 2;
    o[10].repetition.value = 1.1;
    o[11].presence.value = 0.1;
    o[12].logit_bias = &bias;
    o[12].n_logit_bias = 1;
    o[13].dry.multiplier = 0.8;
    for (size_t i = 0; i < COUNT(o); i++) {
        sampler *s = sampler_open(&o[i], 100, &err);

        CHECK(s, "%s", err.message);
        CHECK(!sampler_rules(s, &rule, 1), "options %zu have a rule", i);
        sampler_close(s);
    }
}

/* Texts */

enum { N_TEXTS = 8 };

static int n_tokens(void)
{
    return test_is_slow() ? 4 : 40;
}

static int no_process(void *ctx, float *logits, int vocab_size, const int32_t *history, size_t n,
                      clm_error *err)
{
    (void)ctx, (void)logits, (void)vocab_size, (void)history, (void)n, (void)err;
    return 0;
}

static bool keep_token(void *ctx, const struct generated *g)
{
    token_list_add(ctx, g->token);
    return true;
}

static struct sampler_options text_options(int i)
{
    struct sampler_options o = sampler_defaults();

    o.temp = i == 0 ? 0 : 0.5 + 0.2 * i;
    o.top_p = i % 2 ? 0.9 : 0;
    o.top_k = i % 3 == 1 ? 20 : 0;
    o.min_p = i == 5 ? 0.1 : 0;
    o.logprobs = i == 4;
    o.seed = (uint64_t)i;
    return o;
}

/* Texts of many kinds in the same steps; on_host: a processor that does nothing asks for logits. */
static void make_texts(struct bundled *b, const struct token_list *prompt, bool on_host,
                       struct token_list texts[N_TEXTS])
{
    clm_error err = {0};
    scheduler *all = scheduler_open(b->engine, NULL, &err);
    sampler *s[N_TEXTS];

    CHECK(all, "%s", err.message);
    for (int i = 0; i < N_TEXTS; i++) {
        struct sampler_options options = text_options(i);
        struct request_options o = {
            .prompt = prompt->ids,
            .n_prompt = prompt->count - (size_t)(i % 3),
            .generate = {.max_tokens = n_tokens(), .ctx = &texts[i], .token = keep_token},
        };

        o.sampler = s[i] = sampler_open(&options, b->model->spec->vocab_size, &err);
        CHECK(s[i], "%s", err.message);
        o.generate.process = on_host ? no_process : NULL;
        CHECK(scheduler_submit(all, &o, &err), "%s", err.message);
    }
    while (scheduler_step(all))
        ;
    scheduler_close(all);
    for (int i = 0; i < N_TEXTS; i++)
        sampler_close(s[i]);
}

static void test_texts(void **state)
{
    struct token_list prompt = {0}, host[N_TEXTS] = {{0}}, drawn[N_TEXTS] = {{0}};
    bool apart = !getenv("CLM_DEVICE") && !getenv("CLM_TEST_SPLIT");
    struct bundled b;
    clm_error err = {0};

    (void)state;
    if (!next_case())
        return;
    if (apart)
        setenv("CLM_TEST_SPLIT", "2", 1);
    b = bundled_open(BUNDLED_MODEL);
    if (apart)
        unsetenv("CLM_TEST_SPLIT");
    CHECK(engine_keeps_logits(b.engine), "logits come to the host");
    CHECK(!tokenizer_encode(b.tokenizer, "Once upon a time there was", 26, 0, &prompt, &err), "%s",
          err.message);
    make_texts(&b, &prompt, true, host);
    make_texts(&b, &prompt, false, drawn);
    for (int i = 0; i < N_TEXTS; i++) {
        CHECK(host[i].count == (size_t)n_tokens() && drawn[i].count == host[i].count,
              "text %d: %zu tokens", i, drawn[i].count);
        for (int j = 0; j < n_tokens(); j++)
            CHECK(host[i].ids[j] == drawn[i].ids[j], "text %d: token %d is %d, not %d", i, j,
                  drawn[i].ids[j], host[i].ids[j]);
        token_list_release(&host[i]);
        token_list_release(&drawn[i]);
    }
    token_list_release(&prompt);
    bundled_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_no_rules),
        cmocka_unit_test(test_texts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
