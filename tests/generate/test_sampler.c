/* The sampler against mlx_lm.sample_utils: see goldens/sampling/README.md for what each file holds.
 */
#include "testing.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/memory.h"
#include "format/json.h"
#include "generate/filter.h"
#include "generate/logits.h"
#include "generate/rng.h"
#include "generate/sampler.h"

#define MAX_VECTOR 1000

struct vector {
    float x[MAX_VECTOR];
    int n;
};

static json *load(const char *name)
{
    char path[256];
    clm_error err = {0};
    const char *found;
    json *j;

    snprintf(path, sizeof path, "goldens/sampling/%s.json", name);
    found = shared_path(path);
    if (!found) {
        print_message("no %s: set CLM_SHARED to the folder of the shared goldens\n", path);
        skip();
    }
    j = json_parse_file(found, &err);
    CHECK(j, "%s", err.message);
    return j;
}

static float number(const json *v)
{
    const char *s = json_string(v, NULL);

    if (s)
        return strcmp(s, "-inf") == 0 ? -INFINITY : strcmp(s, "inf") == 0 ? INFINITY : NAN;
    return (float)json_real(v, (double)NAN);
}

static double real(const json *object, const char *key)
{
    return json_real(json_get(object, key), (double)NAN);
}

static struct vector vector_of(const json *array)
{
    struct vector v = {.n = (int)json_size(array)};

    CHECK(v.n >= 1 && v.n <= MAX_VECTOR, "%d numbers", v.n);
    for (int i = 0; i < v.n; i++)
        v.x[i] = number(json_at(array, (size_t)i));
    return v;
}

static const char *text(const json *object, const char *key)
{
    const char *s = json_string(json_get(object, key), NULL);

    CHECK(s, "no text under %s", key);
    return s;
}

/* The candidates of a vector; what they hold is valid until the next call. */
static struct candidates candidates_of(const struct vector *v)
{
    static float logprobs[MAX_VECTOR], weights[MAX_VECTOR], keys[MAX_VECTOR];
    static struct weighted scratch[MAX_VECTOR];
    static int32_t ids[MAX_VECTOR];
    struct candidates c = {ids, logprobs, weights, .scratch = scratch, .keys = keys};

    c.top = c.max = logits_max(v->x, v->n);
    for (int i = 0; i < v->n; i++) {
        if (!(v->x[i] > -INFINITY))
            continue;
        ids[c.n] = i;
        logprobs[c.n] = v->x[i];
        weights[c.n++] = expf(v->x[i] - c.top);
    }
    return c;
}

/* The candidates as the vector they stand for, -inf where a token is gone. */
static struct vector masked(const struct candidates *c, int n)
{
    struct vector v = {.n = n};

    for (int i = 0; i < n; i++)
        v.x[i] = -INFINITY;
    for (int i = 0; i < c->n; i++)
        v.x[c->ids[i]] = c->logprobs[i];
    return v;
}

static int compare_down(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return (x < y) - (x > y);
}

/* Equal bit for bit; where ties are cut arbitrarily, as many of each value. */
static void check_same(struct vector got, struct vector want, bool any_order, const char *what,
                       const char *name, double argument)
{
    if (any_order) {
        qsort(got.x, (size_t)got.n, sizeof(float), compare_down);
        qsort(want.x, (size_t)want.n, sizeof(float), compare_down);
    }
    for (int i = 0; i < want.n; i++)
        CHECK(got.x[i] == want.x[i], "%s(%s, %g): [%d] is %.9g, not %.9g", what, name, argument, i,
              (double)got.x[i], (double)want.x[i]);
}

static void test_top_p(void **state)
{
    json *vectors = load("vectors"), *records = load("top_p");
    int compared = 0;

    (void)state;
    for (size_t i = 0; i < json_size(records); i++) {
        const json *r = json_at(records, i);
        const char *name = text(r, "vector");
        struct vector v = vector_of(json_get(vectors, name));
        struct candidates c = candidates_of(&v);
        double top_p = real(r, "top_p");

        if (json_real(json_get(r, "boundary"), 1) < 1e-6)
            continue; /* hangs on the order of a float32 sum */
        filter_top_p(&c, top_p);
        check_same(masked(&c, v.n), vector_of(json_get(r, "out")), false, "top_p", name, top_p);
        compared++;
    }
    CHECK(compared > 150, "only %d compared", compared);
    json_free(records);
    json_free(vectors);
}

static void test_min_p(void **state)
{
    json *vectors = load("vectors"), *records = load("min_p");
    int compared = 0;

    (void)state;
    for (size_t i = 0; i < json_size(records); i++) {
        const json *r = json_at(records, i);
        const char *name = text(r, "vector");
        struct vector v = vector_of(json_get(vectors, name));
        struct candidates c = candidates_of(&v);
        struct sampler_options o = sampler_defaults();
        clm_error err = {0};

        o.temp = 1;
        o.min_p = real(r, "min_p");
        o.min_tokens_to_keep = (int)json_int(json_get(r, "min_tokens_to_keep"), -1);
        if (json_get(r, "error")) {
            /* min_p 0 fails in the function and is "off" in make_sampler and here. */
            CHECK(o.min_p == 0 || sampler_check(&o, v.n, &err), "min_p %g, keep %d", o.min_p,
                  o.min_tokens_to_keep);
            continue;
        }
        if (json_real(json_get(r, "boundary"), 1) < 1e-6 && o.min_p < 1)
            continue;
        filter_min_p(&c, o.min_p, o.min_tokens_to_keep);
        check_same(masked(&c, v.n), vector_of(json_get(r, "out")),
                   json_bool(json_get(r, "keep_tie"), false), "min_p", name, o.min_p);
        compared++;
    }
    CHECK(compared > 100, "only %d compared", compared);
    json_free(records);
    json_free(vectors);
}

static void test_top_k(void **state)
{
    json *vectors = load("vectors"), *records = load("top_k");
    int compared = 0;

    (void)state;
    for (size_t i = 0; i < json_size(records); i++) {
        const json *r = json_at(records, i);
        const char *name = text(r, "vector");
        struct vector v = vector_of(json_get(vectors, name));
        struct candidates c = candidates_of(&v);
        struct sampler_options o = sampler_defaults();
        clm_error err = {0};

        o.temp = 1;
        o.top_k = (int)json_int(json_get(r, "top_k"), -1);
        if (json_get(r, "error")) {
            CHECK(o.top_k == 0 || sampler_check(&o, v.n, &err), "%s: top_k %d", name, o.top_k);
            continue;
        }
        filter_top_k(&c, o.top_k);
        check_same(masked(&c, v.n), vector_of(json_get(r, "out")),
                   json_bool(json_get(r, "boundary_tie"), false), "top_k", name, o.top_k);
        compared++;
    }
    CHECK(compared > 80, "only %d compared", compared);
    json_free(records);
    json_free(vectors);
}

static void test_xtc(void **state)
{
    json *vectors = load("vectors"), *records = load("xtc");
    int compared = 0;

    (void)state;
    for (size_t i = 0; i < json_size(records); i++) {
        const json *r = json_at(records, i);
        const char *name = text(r, "vector");
        struct vector v = vector_of(json_get(vectors, name));
        struct candidates c = candidates_of(&v);
        struct sampler_options o = sampler_defaults();
        const json *special = json_get(r, "special");
        int32_t ids[4];
        clm_error err = {0};

        CHECK(json_size(special) <= COUNT(ids), "%zu special ids", json_size(special));
        for (size_t s = 0; s < json_size(special); s++)
            ids[s] = (int32_t)json_int(json_at(special, s), -1);
        o.xtc_probability = real(r, "xtc_probability");
        o.xtc_threshold = real(r, "xtc_threshold");
        if (json_get(r, "error")) {
            CHECK(sampler_check(&o, v.n, &err), "probability %g, threshold %g", o.xtc_probability,
                  o.xtc_threshold);
            continue;
        }
        filter_xtc(&c, o.xtc_threshold, ids, (int)json_size(special));
        check_same(masked(&c, v.n), vector_of(json_get(r, "out")), false, "xtc", name,
                   o.xtc_threshold);
        compared++;
    }
    CHECK(compared > 300, "only %d compared", compared);
    json_free(records);
    json_free(vectors);
}

/* Options from the names that mlx-lm gives them; arrays are valid until the next call. */
static struct sampler_options options_of(const json *params)
{
    static clm_logit_bias biases[8];
    static int32_t special[8];
    struct sampler_options o = sampler_defaults();
    const json *ids = json_get(params, "xtc_special_tokens");

    o.temp = json_real(json_get(params, "temp"), o.temp);
    o.top_p = json_real(json_get(params, "top_p"), o.top_p);
    o.min_p = json_real(json_get(params, "min_p"), o.min_p);
    o.min_tokens_to_keep =
        (int)json_int(json_get(params, "min_tokens_to_keep"), o.min_tokens_to_keep);
    o.top_k = (int)json_int(json_get(params, "top_k"), o.top_k);
    o.xtc_probability = json_real(json_get(params, "xtc_probability"), o.xtc_probability);
    o.xtc_threshold = json_real(json_get(params, "xtc_threshold"), o.xtc_threshold);
    o.repetition.value = json_real(json_get(params, "repetition_penalty"), 0);
    o.repetition.context = (int)json_int(json_get(params, "repetition_context_size"), 20);
    o.presence.value = json_real(json_get(params, "presence_penalty"), 0);
    o.presence.context = (int)json_int(json_get(params, "presence_context_size"), 20);
    o.frequency.value = json_real(json_get(params, "frequency_penalty"), 0);
    o.frequency.context = (int)json_int(json_get(params, "frequency_context_size"), 20);
    for (o.xtc_special = special; o.n_xtc_special < (int)json_size(ids); o.n_xtc_special++)
        special[o.n_xtc_special] = (int32_t)json_int(json_at(ids, (size_t)o.n_xtc_special), -1);
    o.logit_bias = biases;
    for (struct json_iter it = json_first(json_get(params, "logit_bias")); json_next(&it);)
        biases[o.n_logit_bias++] = (clm_logit_bias){atoi(it.key), number(it.value)};
    return o;
}

/* The filters in their order, and the logits after the temperature. */
static void test_chain(void **state)
{
    json *vectors = load("vectors"), *records = load("chain");

    (void)state;
    for (size_t i = 0; i < json_size(records); i++) {
        const json *r = json_at(records, i);
        const char *name = text(r, "vector");
        struct vector v = vector_of(json_get(vectors, name));
        struct candidates c = candidates_of(&v);
        struct sampler_options o = options_of(json_get(r, "params"));
        struct vector scaled;
        float max = -INFINITY;
        bool tied;
        clm_error err = {0};

        if (json_get(r, "error")) {
            CHECK(sampler_check(&o, v.n, &err), "chain %zu was accepted", i);
            continue;
        }
        CHECK(!sampler_check(&o, v.n, &err), "chain %zu: %s", i, err.message);
        if (json_get(r, "greedy")) {
            CHECK(logits_argmax(v.x, v.n) == json_int(json_get(r, "token"), -1), "chain %zu", i);
            continue;
        }
        sampler_filter(&o, &c, o.xtc_probability > 0);
        tied = strcmp(name, "ties12") == 0 || strcmp(name, "probs_5") == 0;
        check_same(masked(&c, v.n), vector_of(json_get(r, "chain_out")), tied, "chain", name,
                   (double)i);
        scaled = vector_of(json_get(r, "scaled"));
        for (int k = 0; k < scaled.n; k++)
            max = fmaxf(max, scaled.x[k]);
        candidates_weigh(&c, o.temp);
        for (int k = 0; k < c.n; k++) {
            float want = expf(scaled.x[c.ids[k]] - max);

            /* The scaled logits were rounded to f32: up to 2^-24 of their size. */
            if (scaled.x[c.ids[k]] > -INFINITY)
                CHECK(fabsf(c.weights[k] - want) <= 4e-6f * want, "chain %zu: weight %d", i, k);
        }
    }
    json_free(records);
    json_free(vectors);
}

static void test_processors(void **state)
{
    json *logits = load("logits"), *records = load("logits_processors");

    (void)state;
    for (size_t i = 0; i < json_size(records); i++) {
        const json *r = json_at(records, i), *tokens = json_get(r, "tokens");
        struct vector v = vector_of(json_get(logits, text(r, "logits"))), want;
        struct sampler_options o = options_of(json_get(r, "params"));
        static uint8_t seen[MAX_VECTOR];
        int32_t history[64];
        clm_error err = {0};

        for (size_t t = 0; t < json_size(tokens); t++)
            history[t] = (int32_t)json_int(json_at(tokens, t), -1);
        if (json_get(r, "error")) {
            CHECK(sampler_check(&o, v.n, &err), "processors %zu were accepted", i);
            continue;
        }
        sampler_process(&o, v.x, v.n, history, json_size(tokens), seen);
        want = vector_of(json_get(r, "out"));
        for (int k = 0; k < v.n; k++)
            CHECK(v.x[k] == want.x[k] || fabsf(v.x[k] - want.x[k]) <= 1e-6f * fabsf(want.x[k]),
                  "processors %zu: [%d] is %.9g, not %.9g", i, k, (double)v.x[k],
                  (double)want.x[k]);
        for (int k = 0; k < v.n; k++)
            CHECK(!seen[k], "processors %zu: token %d is still marked", i, k);
    }
    json_free(records);
    json_free(logits);
}

static void test_greedy(void **state)
{
    json *vectors = load("vectors"), *records = load("greedy");
    struct sampler_options o = sampler_defaults();

    (void)state;
    o.logprobs = true;
    for (size_t i = 0; i < json_size(records); i++) {
        const json *r = json_at(records, i);
        struct vector v = vector_of(json_get(vectors, text(r, "vector")));
        clm_error err = {0};
        sampler *s = sampler_open(&o, v.n, &err);
        struct sample got;
        double sum = 0;

        CHECK(s, "%s", err.message);
        CHECK(!sampler_next(s, v.x, NULL, 0, &got, &err), "%s", err.message);
        CHECK(got.token == json_int(json_get(r, "token"), -1), "%s: %d", text(r, "vector"),
              got.token);
        for (int k = 0; k < v.n; k++)
            sum += exp((double)v.x[k]);
        CHECK(fabs((double)got.logprob - ((double)v.x[got.token] - log(sum))) < 1e-6, "%s: %g",
              text(r, "vector"), (double)got.logprob);
        sampler_close(s);
    }
    json_free(records);
    json_free(vectors);
}

/* The chi-squared statistic of draws at temperature temp against the probabilities of v. */
static double chi_squared(const struct vector *v, double temp, int draws, uint64_t seed)
{
    struct sampler_options o = sampler_defaults();
    clm_error err = {0};
    double p[MAX_VECTOR], sum = 0, statistic = 0;
    int counts[MAX_VECTOR] = {0};
    sampler *s;

    o.temp = temp;
    o.seed = seed;
    s = sampler_open(&o, v->n, &err);
    CHECK(s, "%s", err.message);
    for (int i = 0; i < draws; i++) {
        struct sample got;

        CHECK(!sampler_next(s, v->x, NULL, 0, &got, &err), "%s", err.message);
        counts[got.token]++;
    }
    sampler_close(s);
    for (int i = 0; i < v->n; i++)
        sum += p[i] = exp((double)v->x[i] / temp);
    for (int i = 0; i < v->n; i++) {
        double expected = p[i] / sum * draws;

        if (expected > 0)
            statistic += (counts[i] - expected) * (counts[i] - expected) / expected;
        else
            CHECK(counts[i] == 0, "%d draws of an impossible token", counts[i]);
    }
    return statistic;
}

static void test_distribution(void **state)
{
    json *vectors = load("vectors"), *records = load("distribution");

    (void)state;
    for (size_t i = 0; i < json_size(records); i++) {
        const json *r = json_at(records, i);
        struct vector v = vector_of(json_get(vectors, text(r, "vector")));
        double got = chi_squared(&v, json_real(json_get(r, "temp"), 1), 200000, i);

        /* At most 9 degrees of freedom: above 33.7 once in ten thousand. The seeds are fixed. */
        CHECK(got < 33.7, "record %zu: chi-squared %g", i, got);
        CHECK(got > 0.01, "record %zu: chi-squared %g is too good", i, got);
    }
    json_free(records);
    json_free(vectors);
}

/* Selection must find what sorting finds, on sizes, ties and orders of all kinds. */
static void test_selection_equals_sorting(void **state)
{
    static float x[MAX_VECTOR], sorted[MAX_VECTOR];

    (void)state;
    for (int round = 0; round < 300; round++) {
        struct vector v = {.n = 1 + (int)random_below(MAX_VECTOR)};
        int levels = 1 + (int)random_below(50), k = 1 + (int)random_below((size_t)v.n);
        double top_p = (double)(1 + random_below(999)) / 1000, above = 0, total = 0;
        struct candidates c;
        int kept = 0, last = 0;

        random_floats(x, (size_t)v.n);
        for (int i = 0; i < v.n; i++)
            v.x[i] = sorted[i] = floorf(x[i] * (float)levels) * 0.25f + (round % 3 ? 0 : x[i]);
        if (round % 5 == 0)
            qsort(v.x, (size_t)v.n, sizeof(float), compare_down);
        qsort(sorted, (size_t)v.n, sizeof(float), compare_down);

        c = candidates_of(&v);
        filter_top_k(&c, k);
        CHECK(c.n == k, "top %d of %d: %d left", k, v.n, c.n);
        for (int i = 0; i < c.n; i++)
            CHECK(c.logprobs[i] >= sorted[k - 1], "top %d of %d", k, v.n);

        for (int i = 0; i < v.n; i++)
            total += exp((double)(sorted[i] - sorted[0]));
        while (last < v.n - 1 && (above += exp((double)(sorted[last] - sorted[0]))) < top_p * total)
            last++;
        for (int i = 0; i < v.n; i++)
            kept += sorted[i] >= sorted[last];
        if (fabs(above - top_p * total) < 1e-6 * total)
            continue;
        c = candidates_of(&v);
        filter_top_p(&c, top_p);
        CHECK(c.n == kept, "top_p %g of %d: %d left, not %d", top_p, v.n, c.n, kept);
    }
}

static void test_same_seed_same_tokens(void **state)
{
    struct sampler_options o = sampler_defaults();
    float x[64];
    int32_t first[200];
    int different = 0;

    (void)state;
    random_floats(x, COUNT(x));
    o.temp = 1;
    o.xtc_probability = 0.5;
    for (int round = 0; round < 3; round++) {
        clm_error err = {0};
        sampler *s;

        o.seed = round == 2 ? 8 : 7;
        s = sampler_open(&o, COUNT(x), &err);
        CHECK(s, "%s", err.message);
        for (size_t i = 0; i < COUNT(first); i++) {
            struct sample got;

            CHECK(!sampler_next(s, x, NULL, 0, &got, &err), "%s", err.message);
            if (round == 0)
                first[i] = got.token;
            else if (round == 1)
                CHECK(got.token == first[i], "draw %zu", i);
            else
                different += got.token != first[i];
        }
        sampler_close(s);
    }
    CHECK(different > 100, "another seed gave %d other tokens of 200", different);
}

/* XTC happens as often as its probability says. */
static void test_xtc_probability(void **state)
{
    static const float x[] = {0, 0, -30};
    static const double probabilities[] = {0.0, 0.25, 1.0};

    (void)state;
    for (size_t p = 0; p < COUNT(probabilities); p++) {
        struct sampler_options o = sampler_defaults();
        float y[] = {0.1f, 0, -30};
        clm_error err = {0};
        int first = 0;
        sampler *s;

        o.temp = 1e-3; /* without XTC the first token always wins */
        o.xtc_probability = probabilities[p];
        s = sampler_open(&o, COUNT(y), &err);
        CHECK(s, "%s", err.message);
        for (int i = 0; i < 10000; i++) {
            struct sample got;

            CHECK(!sampler_next(s, y, NULL, 0, &got, &err), "%s", err.message);
            first += got.token == 0;
            CHECK(!sampler_next(s, x, NULL, 0, &got, &err), "%s", err.message);
            CHECK(got.token != 2, "drew a token of probability 0");
        }
        sampler_close(s);
        /* Five standard deviations of 10000 draws. */
        CHECK(fabs(first - 10000 * (1 - probabilities[p])) <= 5 * 44, "%g: %d", probabilities[p],
              first);
    }
}

static void test_not_finite(void **state)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY};

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        for (double temp = 0; temp < 2; temp++) {
            float x[] = {bad[i], bad[i], i == 2 ? bad[i] : 1};
            struct sampler_options o = sampler_defaults();
            clm_error err = {0};
            struct sample got;
            sampler *s;

            o.temp = temp;
            s = sampler_open(&o, COUNT(x), &err);
            CHECK(s, "%s", err.message);
            CHECK(sampler_next(s, x, NULL, 0, &got, &err) && err.code == CLM_ERR_FORMAT,
                  "logits of %g were accepted", (double)bad[i]);
            sampler_close(s);
        }
    }
}

static void test_ranges(void **state)
{
    static const clm_logit_bias biases[] = {{10, 1}, {-1, 1}, {1, NAN}};
    static const struct {
        const char *name;
        double temp, top_p, frequency;
        int presence_context;
        const clm_logit_bias *bias;
    } cases[] = {
        {"temp", -1, 0, 0, 0, NULL},
        {"temp", (double)NAN, 0, 0, 0, NULL},
        {"temp", (double)INFINITY, 0, 0, 0, NULL},
        {"top_p", 0, 1.01, 0, 0, NULL},
        {"top_p", 0, (double)NAN, 0, 0, NULL},
        {"frequency", 0, 0, (double)NAN, 0, NULL},
        {"context", 0, 0, 0, -1, NULL},
        {"logit bias", 0, 0, 0, 0, &biases[0]},
        {"logit bias", 0, 0, 0, 0, &biases[1]},
        {"logit bias", 0, 0, 0, 0, &biases[2]},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct sampler_options o = sampler_defaults();
        clm_error err = {0};

        o.temp = cases[i].temp;
        o.top_p = cases[i].top_p;
        o.frequency.value = cases[i].frequency;
        o.presence.context = cases[i].presence_context;
        o.logit_bias = cases[i].bias;
        o.n_logit_bias = cases[i].bias != NULL;
        CHECK(sampler_check(&o, 10, &err) && err.code == CLM_ERR_ARG, "case %zu", i);
        CHECK(strstr(err.message, cases[i].name), "case %zu: %s", i, err.message);
    }
}

static void test_memory(void **state)
{
    static const clm_logit_bias bias = {1, 1};
    static const int32_t special = 1;
    struct sampler_options o = sampler_defaults();

    (void)state;
    o.temp = 1;
    o.logit_bias = &bias;
    o.n_logit_bias = 1;
    o.xtc_special = &special;
    o.n_xtc_special = 1;
    for (long n = 0;; n++) {
        clm_error err = {0};
        sampler *s;

        mem_fail_after(n);
        s = sampler_open(&o, 100, &err);
        if (!mem_fail_after(-1)) {
            CHECK(s && n == 9, "%ld allocations", n);
            sampler_close(s);
            return;
        }
        CHECK(!s && err.code == CLM_ERR_NOMEM, "allocation %ld failed unnoticed", n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_top_p),
        cmocka_unit_test(test_min_p),
        cmocka_unit_test(test_top_k),
        cmocka_unit_test(test_xtc),
        cmocka_unit_test(test_chain),
        cmocka_unit_test(test_processors),
        cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_distribution),
        cmocka_unit_test(test_selection_equals_sorting),
        cmocka_unit_test(test_same_seed_same_tokens),
        cmocka_unit_test(test_xtc_probability),
        cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
