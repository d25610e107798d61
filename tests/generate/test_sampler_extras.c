/* The samplers that llama.cpp has and mlx-lm has not, against tests/data/samplers.json (see
 * samplers.py beside it), and what must hold of all samplers. */
#include "testing.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/memory.h"
#include "format/json.h"
#include "generate/filter.h"
#include "generate/logits.h"
#include "generate/sampler.h"
#include "generate/select.h"

#define MAX_VECTOR 2000
#define LARGE 150000

static json *data;

static const json *table(const char *name)
{
    const json *rows = json_get(data, name);

    CHECK(json_size(rows) > 50, "only %zu rows of %s", json_size(rows), name);
    return rows;
}

static double real(const json *row, const char *key)
{
    double value = json_real(json_get(row, key), (double)NAN);

    CHECK(isfinite(value), "no %s", key);
    return value;
}

static int integer(const json *row, const char *key)
{
    return (int)json_int(json_get(row, key), INT32_MIN);
}

/* The logits of a row; [*n], valid until the next call. */
static const float *vector_of(const json *row, int *n)
{
    static float x[MAX_VECTOR];
    const json *v = json_at(json_get(data, "vectors"), (size_t)integer(row, "vector"));

    *n = (int)json_size(v);
    CHECK(*n >= 1 && *n <= MAX_VECTOR, "%d numbers", *n);
    for (int i = 0; i < *n; i++)
        x[i] = (float)json_real(json_at(v, (size_t)i), -(double)INFINITY);
    return x;
}

/* The candidates of logits [n]; what they hold is valid until the next call. */
static struct candidates candidates_of(const float *logits, int n)
{
    static float logprobs[LARGE], weights[LARGE], keys[LARGE];
    static struct weighted scratch[LARGE];
    static int32_t ids[LARGE];
    struct candidates c = {ids, logprobs, weights, .scratch = scratch, .keys = keys};

    candidates_begin(&c, logits, n, logits_max(logits, n), NULL);
    return c;
}

static struct candidates candidates_of_row(const json *row)
{
    int n;
    const float *logits = vector_of(row, &n);

    return candidates_of(logits, n);
}

static void check_kept(const json *row, const struct candidates *c, const char *what)
{
    const json *kept = json_get(row, "kept");

    CHECK(c->n == (int)json_size(kept), "%s of vector %d: %d left, not %zu", what,
          integer(row, "vector"), c->n, json_size(kept));
    for (int i = 0; i < c->n; i++)
        CHECK(c->ids[i] == json_int(json_at(kept, (size_t)i), -1), "%s of vector %d: id %d", what,
              integer(row, "vector"), c->ids[i]);
}

static void test_top_n_sigma(void **state)
{
    const json *rows = table("top_n_sigma");

    (void)state;
    for (size_t i = 0; i < json_size(rows); i++) {
        const json *row = json_at(rows, i);
        struct candidates c = candidates_of_row(row);

        filter_top_n_sigma(&c, real(row, "n"));
        check_kept(row, &c, "top_n_sigma");
    }
}

static void test_typical(void **state)
{
    const json *rows = table("typical");

    (void)state;
    for (size_t i = 0; i < json_size(rows); i++) {
        const json *row = json_at(rows, i);
        struct candidates c = candidates_of_row(row);

        filter_typical(&c, real(row, "p"));
        check_kept(row, &c, "typical");
    }
}

static void test_dynamic_temperature(void **state)
{
    const json *rows = table("dynatemp");

    (void)state;
    for (size_t i = 0; i < json_size(rows); i++) {
        const json *row = json_at(rows, i);
        struct candidates c = candidates_of_row(row);
        struct sampler_options o = sampler_defaults();
        double want = real(row, "temperature"), got;

        o.temp = real(row, "temp");
        o.dynatemp_range = real(row, "range");
        o.dynatemp_exponent = real(row, "exponent");
        got = sampler_temperature(&o, &c);
        /* The entropy is a sum of f32 products: a few of their roundings. */
        CHECK(fabs(got - want) <= 4e-6, "row %zu: %.9g, not %.9g", i, got, want);
    }
}

static void test_mirostat(void **state)
{
    const json *rows = table("mirostat");

    (void)state;
    for (size_t i = 0; i < json_size(rows); i++) {
        const json *row = json_at(rows, i), *surprises = json_get(row, "surprise");
        struct candidates c = candidates_of_row(row);

        candidates_weigh(&c, real(row, "temp"));
        filter_surprise(&c, real(row, "mu"));
        check_kept(row, &c, "mirostat");
        for (int k = 0; k < c.n; k++) {
            double want = json_real(json_at(surprises, (size_t)k), (double)NAN);
            double got = candidates_surprise(&c, k);

            CHECK(fabs(got - want) <= 1e-5 * (1 + want), "row %zu, %d: %g, not %g", i, k, got,
                  want);
        }
    }
}

static int compare_heads(const void *a, const void *b)
{
    return ((const struct dry_breaker *)a)->head - ((const struct dry_breaker *)b)->head;
}

/* The breakers of a row; to be released. */
static struct dry_breakers breakers_of(const json *row)
{
    const json *texts = json_get(row, "breakers");
    struct dry_breakers b = {.items = mem_zeroed(4, sizeof *b.items)};

    CHECK(b.items && json_size(texts) <= 4, "%zu breakers", json_size(texts));
    for (; b.n < (int)json_size(texts); b.n++) {
        const json *ids = json_at(texts, (size_t)b.n);
        int tail = (int)b.tails.count;

        for (size_t k = 1; k < json_size(ids); k++)
            token_list_add(&b.tails, (int32_t)json_int(json_at(ids, k), -1));
        b.items[b.n] = (struct dry_breaker){(int32_t)json_int(json_at(ids, 0), -1), tail,
                                            (int)json_size(ids) - 1};
    }
    if (b.n > 0)
        qsort(b.items, (size_t)b.n, sizeof *b.items, compare_heads);
    return b;
}

static void test_dry(void **state)
{
    const json *rows = table("dry");
    int penalised = 0;

    (void)state;
    for (size_t i = 0; i < json_size(rows); i++) {
        const json *row = json_at(rows, i), *tokens = json_get(row, "history");
        struct dry_options o = {real(row, "multiplier"), real(row, "base"),
                                integer(row, "allowed_length"), integer(row, "last_n"),
                                breakers_of(row)};
        int32_t history[64];
        clm_error err = {0};
        struct dry d;

        CHECK(json_size(tokens) <= COUNT(history), "%zu tokens", json_size(tokens));
        for (size_t k = 0; k < json_size(tokens); k++)
            history[k] = (int32_t)json_int(json_at(tokens, k), -1);
        CHECK(!dry_init(&d, &o, 8, &err), "%s", err.message);
        for (int round = 0; round < 2; round++) {
            float logits[8] = {0};

            CHECK(!dry_apply(&d, logits, history, json_size(tokens), &err), "%s", err.message);
            for (int t = 0; t < 8; t++) {
                char key[4];
                double want;

                snprintf(key, sizeof key, "%d", t);
                want = json_real(json_get(json_get(row, "penalties"), key), 0);
                CHECK(fabs(-(double)logits[t] - want) <= 1e-6 * want,
                      "row %zu, token %d: %g not %g", i, t, -(double)logits[t], want);
                penalised += want > 0;
            }
        }
        dry_release(&d);
        dry_breakers_release(&o.breakers);
    }
    CHECK(penalised > 100, "only %d penalties", penalised);
}

/* Tokens outside of the vocabulary, as a caller may have, are no reason to write anywhere. */
static void test_dry_foreign_tokens(void **state)
{
    static const int32_t history[] = {-1, 9, 1, -1, 9, 1, INT32_MAX, INT32_MIN, -1, 9};
    struct dry_options o = {1, 2, 1, -1, {0}};
    float logits[3] = {0};
    clm_error err = {0};
    struct dry d;

    (void)state;
    CHECK(!dry_init(&d, &o, 3, &err), "%s", err.message);
    CHECK(!dry_apply(&d, logits, history, COUNT(history), &err), "%s", err.message);
    CHECK(logits[0] == 0 && logits[1] == -2 && logits[2] == 0, "%g", (double)logits[1]);
    dry_release(&d);
}

static void test_exp(void **state)
{
    enum { N = 100003 };
    static float x[N], y[N];
    double sum = 0, got;

    (void)state;
    for (int i = 0; i < N; i++)
        x[i] = 5 - 92 * (float)i / N;
    x[7] = -INFINITY;
    got = logits_exp(y, x, N, 5, 1);
    for (int i = 0; i < N; i++) {
        double d = (double)(x[i] - 5), want = exp(d);

        sum += (double)y[i];
        if (d < -87)
            CHECK(y[i] == 0, "exp(%g) is %g", d, (double)y[i]);
        else
            CHECK(fabs((double)y[i] - want) <= want * 2 * 0x1p-23, "exp(%.9g) is %.9g", d,
                  (double)y[i]);
    }
    CHECK(fabs(got - sum) <= 1e-6 * sum, "sum %g, not %g", got, sum);
    CHECK(y[0] == 1, "exp(0) is %.9g", (double)y[0]);
}

static int compare_down(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return (x < y) - (x > y);
}

/* At the size of a real vocabulary, flat and peaked, and with an outlier. */
static void test_large_vocabulary(void **state)
{
    static float x[LARGE], sorted[LARGE];
    static const int ks[] = {1, 40, 1000, 30000, LARGE - 1};

    (void)state;
    for (int round = 0; round < 3; round++) {
        struct candidates c;
        double mass = 0, total = 0;
        int kept = 0;

        random_floats(x, LARGE);
        for (int i = 0; i < LARGE; i++)
            x[i] *= round == 1 ? 20 : 3;
        if (round == 2)
            x[77] = -1e30f;
        memcpy(sorted, x, sizeof x);
        qsort(sorted, LARGE, sizeof *sorted, compare_down);
        for (size_t k = 0; k < COUNT(ks); k++) {
            c = candidates_of(x, LARGE);
            filter_top_k(&c, ks[k]);
            CHECK(c.n == ks[k], "top %d: %d left", ks[k], c.n);
            for (int i = 0; i < c.n; i++)
                CHECK(x[c.ids[i]] >= sorted[ks[k] - 1], "top %d kept a lower one", ks[k]);
        }
        for (int i = 0; i < LARGE; i++)
            total += exp((double)(sorted[i] - sorted[0]));
        while (mass < 0.8 * total)
            mass += exp((double)(sorted[kept++] - sorted[0]));
        c = candidates_of(x, LARGE);
        filter_top_p(&c, 0.8);
        /* Sums of so many rounded numbers may differ by a few of the least. */
        CHECK(abs(c.n - kept) <= 2 + kept / 10000, "top_p: %d left, not %d", c.n, kept);
    }
}

static sampler *open_sampler(const struct sampler_options *o, int vocab_size)
{
    clm_error err = {0};
    sampler *s = sampler_open(o, vocab_size, &err);

    CHECK(s, "%s", err.message);
    return s;
}

static struct sample next(sampler *s, const float *logits, const int32_t *history, size_t n)
{
    struct sample got;
    clm_error err = {0};

    CHECK(!sampler_next(s, logits, history, n, &got, &err), "%s", err.message);
    return got;
}

/* One of each that draws. */
#define N_KINDS 8
static struct sampler_options kind_of(int i)
{
    struct sampler_options o = sampler_defaults();

    o.temp = i == 1 ? 0 : 0.9;
    o.dynatemp_range = i == 1 ? 0.8 : 0;
    o.typical_p = i == 2 ? 0.7 : 0;
    o.top_n_sigma = i == 3 ? 1 : 0;
    o.mirostat = i == 4 ? 2 : 0;
    o.mirostat_tau = 3;
    o.dry.multiplier = i == 5 ? 1 : 0;
    o.xtc_probability = i == 6 ? 0.5 : 0;
    o.top_p = i == 7 ? 0.8 : 0;
    o.top_k = i == 7 ? 20 : 0;
    o.seed = (uint64_t)i;
    o.top_logprobs = 5;
    return o;
}

/* What one request draws does not depend on others that are sampled between its steps. */
static void test_state_is_per_request(void **state)
{
    enum { STEPS = 60, V = 300 };
    static int32_t alone[N_KINDS][STEPS], together[N_KINDS][STEPS];
    static float x[STEPS * V];
    sampler *samplers[N_KINDS];

    (void)state;
    random_floats(x, STEPS * V);
    for (int i = 0; i < STEPS * V; i++)
        x[i] *= 4;
    for (int k = 0; k < N_KINDS; k++) {
        struct sampler_options o = kind_of(k);
        sampler *s = open_sampler(&o, V);

        for (int i = 0; i < STEPS; i++)
            alone[k][i] = next(s, x + i * V, alone[k], (size_t)i).token;
        sampler_close(s);
        samplers[k] = open_sampler(&o, V);
    }
    for (int i = 0; i < STEPS; i++)
        for (int k = (i & 1) ? N_KINDS - 1 : 0; k >= 0 && k < N_KINDS; k += (i & 1) ? -1 : 1)
            together[k][i] = next(samplers[k], x + i * V, together[k], (size_t)i).token;
    for (int k = 0; k < N_KINDS; k++) {
        CHECK(memcmp(alone[k], together[k], sizeof alone[k]) == 0, "sampler %d", k);
        sampler_close(samplers[k]);
    }
}

/* Mirostat's mu, followed from outside: what it draws never surprises more than it allows, and in
 * the long run by tau. */
static void test_mirostat_state(void **state)
{
    enum { STEPS = 4000, V = 500 };
    struct sampler_options o = kind_of(4);
    sampler *s = open_sampler(&o, V);
    double mu = 2 * o.mirostat_tau, mean = 0;
    static float x[V];

    (void)state;
    random_floats(x, V);
    for (int i = 0; i < V; i++)
        x[i] *= 5;
    for (int step = 0; step < STEPS; step++) {
        struct sample got = next(s, x, NULL, 0);
        struct candidates c = candidates_of(x, V);
        double surprise = (double)NAN;

        candidates_weigh(&c, o.temp);
        filter_surprise(&c, mu);
        for (int i = 0; i < c.n; i++)
            if (c.ids[i] == got.token)
                surprise = log2(logits_sum(c.weights, c.n) / (double)c.weights[i]);
        CHECK(isfinite(surprise), "step %d: token %d should not have been drawn", step, got.token);
        mu -= o.mirostat_eta * (surprise - o.mirostat_tau);
        mean += surprise / STEPS;
    }
    CHECK(fabs(mean - o.mirostat_tau) < 0.05, "a surprise of %g on average", mean);
    sampler_close(s);
}

/* Draws through a filter have the probabilities of what it leaves. */
static void test_chi_squared(void **state)
{
    enum { V = 10, DRAWS = 100000 };
    static const float x[V] = {1, 0.5f, -1, 2, -0.25f, 0.1f, 1.5f, -2, 0, 0.75f};

    (void)state;
    for (int k = 0; k < 4; k++) {
        struct sampler_options o = kind_of(k);
        struct candidates c = candidates_of(x, V);
        int counts[V] = {0}, drawn = 0;
        double statistic = 0, sum;
        sampler *s = open_sampler(&o, V);

        sampler_filter(&o, &c, false);
        candidates_weigh(&c, sampler_temperature(&o, &c));
        sum = logits_sum(c.weights, c.n);
        for (int i = 0; i < DRAWS; i++)
            counts[next(s, x, NULL, 0).token]++;
        for (int i = 0; i < c.n; i++) {
            double expected = (double)c.weights[i] / sum * DRAWS, d = counts[c.ids[i]] - expected;

            statistic += d * d / expected;
            drawn += counts[c.ids[i]];
        }
        CHECK(drawn == DRAWS, "sampler %d drew what was filtered", k);
        /* At most 9 degrees of freedom: above 33.7 once in ten thousand. The seeds are fixed. */
        CHECK(statistic < 33.7, "sampler %d: chi-squared %g", k, statistic);
        sampler_close(s);
    }
}

static void test_corners(void **state)
{
    (void)state;
    for (int k = 0; k < N_KINDS; k++) {
        struct sampler_options o = kind_of(k);
        float one[1] = {-3}, single[40], flat[40] = {0};
        struct sample got;
        clm_error err = {0};
        sampler *s;

        for (int i = 0; i < 40; i++)
            single[i] = i == 23 ? 1.0f : -INFINITY;
        s = open_sampler(&o, 40);
        got = next(s, single, NULL, 0);
        CHECK(got.token == 23 && got.logprob == 0, "sampler %d drew the impossible", k);
        CHECK(got.n_top == 5 && got.top[0].token == 23 && got.top[1].logprob == -INFINITY,
              "sampler %d: logprobs", k);
        got = next(s, flat, NULL, 0);
        CHECK(fabs((double)got.logprob + log(40)) < 1e-6, "sampler %d: %g", k, (double)got.logprob);
        for (int i = 0; i < 5; i++)
            CHECK(got.top[i].token == i, "ties are in order of id");
        flat[3] = NAN;
        CHECK(sampler_next(s, flat, NULL, 0, &got, &err) && err.code == CLM_ERR_FORMAT,
              "sampler %d took a NaN", k);
        sampler_close(s);

        o.top_k = 0; /* has to be below the vocabulary's size */
        s = open_sampler(&o, 1);
        got = next(s, one, NULL, 0);
        CHECK(got.token == 0 && got.logprob == 0 && got.n_top == 1, "sampler %d: one token", k);
        sampler_close(s);
    }
}

static void test_top_logprobs(void **state)
{
    enum { V = 5000, N = 100 };
    static float x[V];
    struct sampler_options o = sampler_defaults();
    struct sample got;
    sampler *s;

    (void)state;
    random_floats(x, V);
    for (int i = 0; i < V; i++)
        x[i] = floorf(x[i] * 500); /* with ties */
    o.top_logprobs = N;
    s = open_sampler(&o, V);
    got = next(s, x, NULL, 0);
    CHECK(got.n_top == N && got.top[0].token == got.token && got.top[0].logprob == got.logprob,
          "the first is the greedy one");
    for (int i = 1; i < N; i++) {
        clm_token_logprob a = got.top[i - 1], b = got.top[i];

        CHECK(x[a.token] > x[b.token] || (x[a.token] == x[b.token] && a.token < b.token),
              "%d is out of order", i);
    }
    for (int i = 0, below = 0; i < V; i++) {
        below += x[i] > x[got.top[N - 1].token];
        CHECK(below < N, "a more likely token is missing");
    }
    sampler_close(s);
}

static void test_refused(void **state)
{
    static const struct {
        const char *said;
        size_t offset;
        double value;
    } cases[] = {
#define FIELD(name, value) {#name, offsetof(struct sampler_options, name), value}
        FIELD(typical_p, 1.5),       FIELD(top_n_sigma, (double)NAN),
        FIELD(dynatemp_range, -0.1), FIELD(dynatemp_exponent, (double)INFINITY),
        FIELD(mirostat_tau, -1),     FIELD(mirostat_eta, (double)NAN),
    };
    static const struct {
        const char *said;
        size_t offset;
        double value;
    } beside_mirostat[] = {
        FIELD(top_p, 0.9),     FIELD(min_p, 0.1),        FIELD(typical_p, 0.5),
        FIELD(top_n_sigma, 1), FIELD(dynatemp_range, 1), FIELD(xtc_probability, 0.5),
#undef FIELD
    };
    struct sampler_options o;
    clm_error err = {0};

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        o = sampler_defaults();
        err = (clm_error){0};
        memcpy((char *)&o + cases[i].offset, &cases[i].value, sizeof(double));
        CHECK(sampler_check(&o, 10, &err) && strstr(err.message, cases[i].said), "%s: %s",
              cases[i].said, err.message);
    }
    for (size_t i = 0; i < COUNT(beside_mirostat); i++) {
        o = kind_of(4);
        err = (clm_error){0};
        CHECK(!sampler_check(&o, 10, &err), "%s", err.message);
        memcpy((char *)&o + beside_mirostat[i].offset, &beside_mirostat[i].value, sizeof(double));
        CHECK(sampler_check(&o, 10, &err) && strstr(err.message, beside_mirostat[i].said), "%s: %s",
              beside_mirostat[i].said, err.message);
    }
    for (int i = 0; i < 8; i++) {
        o = kind_of(4);
        err = (clm_error){0};
        o.mirostat = i == 0 ? 1 : 2;
        o.temp = i == 1 ? 0 : 1;
        o.top_k = i == 2 ? 5 : 0;
        o.dry.base = i == 3 ? 0.5 : 2;
        o.dry.multiplier = i == 4 ? -1 : 1;
        o.dry.allowed_length = i == 5 ? -1 : 1;
        o.dry.last_n = i == 6 ? -2 : -1;
        o.top_logprobs = i == 7 ? MAX_TOP_LOGPROBS + 1 : 0;
        CHECK(sampler_check(&o, 10, &err) && err.code == CLM_ERR_ARG, "case %d was accepted", i);
    }
}

static void test_memory(void **state)
{
    static const int32_t history[] = {1, 2, 3, 1, 2, 3, 1, 2};
    struct sampler_options o = kind_of(2);
    struct dry_breaker breaker = {4, 0, 1};

    (void)state;
    o.dry.multiplier = 1;
    o.dry.breakers = (struct dry_breakers){.items = &breaker, .n = 1};
    token_list_add(&o.dry.breakers.tails, 5);
    for (long n = 0;; n++) {
        float x[20] = {0};
        clm_error err = {0};
        struct sample got;
        sampler *s;
        int rc;

        mem_fail_after(n);
        s = sampler_open(&o, 20, &err);
        rc = s ? sampler_next(s, x, history, COUNT(history), &got, &err) : -1;
        if (!mem_fail_after(-1)) {
            CHECK(rc == 0 && n > 12, "%ld allocations: %s", n, err.message);
            sampler_close(s);
            break;
        }
        CHECK(rc && err.code == CLM_ERR_NOMEM, "allocation %ld failed unnoticed", n);
        sampler_close(s);
    }
    token_list_release(&o.dry.breakers.tails);
}

/* What is left out at first would have been left out anyway. */
static void test_cut(void **state)
{
    enum { N = 3000 };
    static float x[N];
    static int32_t left[N];

    (void)state;
    for (int round = 0; round < 3000; round++) {
        struct sampler_options o = sampler_defaults();
        int n = 1 + (int)random_below(N), n_left;
        bool xtc = random_below(4) == 0;
        float spread = (float[]){0.01f, 1, 6, 30}[random_below(4)];
        struct candidates c;
        struct cut cut;

        random_floats(x, (size_t)n);
        for (int i = 0; i < n; i++)
            x[i] = random_below(8) ? spread * x[i] : x[random_below((size_t)n)];
        o.temp = 1;
        o.xtc_probability = xtc;
        o.top_p = random_below(2) ? (double)random_below(1000) / 1000.0 : 0;
        o.min_p = random_below(2) ? (double)random_below(1000) / 1000.0 : 0;
        o.top_k = random_below(2) ? (int)random_below((size_t)n) : 0;
        c = candidates_of(x, n);
        sampler_filter(&o, &c, xtc);
        n_left = c.n;
        memcpy(left, c.ids, (size_t)n_left * sizeof *left);
        if (!sampler_cut(&o, xtc, n, &cut))
            continue;
        candidates_begin(&c, x, n, logits_max(x, n), &cut);
        CHECK(c.n >= n_left, "round %d: %d of %d tokens at first", round, c.n, n_left);
        sampler_filter(&o, &c, xtc);
        CHECK(c.n == n_left && memcmp(left, c.ids, (size_t)n_left * sizeof *left) == 0,
              "round %d: %d tokens left, not %d; of %d, top-p %g, min-p %g, top-k %d", round, c.n,
              n_left, n, o.top_p, o.min_p, o.top_k);
    }
}

static int load(void **state)
{
    clm_error err = {0};

    (void)state;
    data = json_parse_file(CLM_TEST_DATA "/samplers.json", &err);
    CHECK(data, "%s", err.message);
    return 0;
}

static int unload(void **state)
{
    (void)state;
    json_free(data);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_top_n_sigma),
        cmocka_unit_test(test_typical),
        cmocka_unit_test(test_dynamic_temperature),
        cmocka_unit_test(test_mirostat),
        cmocka_unit_test(test_dry),
        cmocka_unit_test(test_dry_foreign_tokens),
        cmocka_unit_test(test_exp),
        cmocka_unit_test(test_large_vocabulary),
        cmocka_unit_test(test_state_is_per_request),
        cmocka_unit_test(test_mirostat_state),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_chi_squared),
        cmocka_unit_test(test_corners),
        cmocka_unit_test(test_top_logprobs),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_memory),
    };

    return cmocka_run_group_tests(tests, load, unload);
}
