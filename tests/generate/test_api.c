/* The public interface, used as a stranger would: nothing but clm.h is included. */
#include "testing.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "clm/clm.h"

#define BUNDLED_MODEL CLM_SOURCE_DIR "/models/storyteller-4bit"
#define STEPS 12

static clm_model *model;
static clm_engine *engine;

static const char *const prompts[] = {"Once upon a time", "The fox",
                                      "Tell me a story about a boat."};

#define N_PROMPTS 3

static int tokenize(const char *text, int32_t *tokens, int capacity)
{
    clm_error err = {0};
    int n = clm_model_tokenize(model, text, strlen(text), true, tokens, capacity, &err);

    CHECK(n >= 0, "%s", err.message);
    return n;
}

static int32_t largest(const float *logits)
{
    int32_t best = 0;

    for (int32_t i = 1; i < clm_model_vocab_size(model); i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

/* Greedy tokens after a prompt, one sequence on its own. */
static void continue_alone(const char *text, int32_t out[STEPS])
{
    clm_error err = {0};
    clm_sequence *s = clm_sequence_open(engine, &err);
    int32_t tokens[64];
    int n = tokenize(text, tokens, 64);
    const float *logits;

    CHECK(s, "%s", err.message);
    for (int i = 0; i < STEPS; i++, n = 1) {
        CHECK(!clm_sequence_eval(s, tokens, n, &logits, &err), "%s", err.message);
        out[i] = tokens[0] = largest(logits);
    }
    clm_sequence_close(s);
}

static void test_model(void **state)
{
    clm_error err = {0};
    int32_t tokens[4];
    int n = tokenize("Once upon a time", NULL, 0);

    (void)state;
    CHECK(strspn(clm_version(), "0123456789.") == strlen(clm_version()), "%s", clm_version());
    CHECK(clm_model_vocab_size(model) > 1000 && clm_model_context_length(model) > 100, "sizes");
    CHECK(clm_model_is_end(model, 3) && !clm_model_is_end(model, 100), "end tokens");
    CHECK(n == 5 && tokenize("Once upon a time", tokens, 4) == 5 && tokens[0] == 0, "%d tokens", n);
    CHECK(clm_model_tokenize(model, "x", 1, false, tokens, 4, &err) == 1, "%s", err.message);
    CHECK(!clm_model_open(NULL, NULL, &err) && err.code == CLM_ERR_ARG && *err.message, "NULL");
    err = (clm_error){0};
    CHECK(!clm_model_open("no/such/folder", NULL, &err) && err.code == CLM_ERR_IO && *err.message,
          "a folder that is not there was opened");
}

static void keep_warning(void *said, const char *message)
{
    snprintf(said, 200, "%s", message);
}

/* Without a GPU layers cannot be on one; none can, and of all it is said that they are not. */
static void test_gpu_layers(void **state)
{
    char said[200] = "";
    clm_model_options bad = {.device = "cpu", .gpu_layers = 2}, none = {.gpu_layers = -1};
    clm_model_options all = {
        .device = "cpu", .gpu_layers = INT_MAX, .warn = keep_warning, .warn_ctx = said};
    clm_error err = {0};
    clm_model *m;

    (void)state;
    CHECK(!clm_model_open(BUNDLED_MODEL, &bad, &err) && err.code == CLM_ERR_ARG, "%s", err.message);
    bad.gpu_layers = -2;
    CHECK(!clm_model_open(BUNDLED_MODEL, &bad, &err) && err.code == CLM_ERR_ARG, "%s", err.message);
    m = clm_model_open(BUNDLED_MODEL, &none, &err);
    CHECK(m, "%s", err.message);
    clm_model_close(m);
    m = clm_model_open(BUNDLED_MODEL, &all, &err);
    CHECK(m && strstr(said, "gpu_layers"), "%s%s", err.message, said);
    clm_model_close(m);
}

/* On two groups of threads; and what does not go with that. */
static void test_tensor_parallel(void **state)
{
    clm_model_options two = {.device = "cpu", .tensor_parallel = 2};
    clm_model_options bad[] = {{.tensor_parallel = -1},
                               {.tensor_parallel = 1000},
                               {.tensor_parallel = 2, .gpu_layers = -1}};
    clm_error err = {0};
    clm_model *m = clm_model_open(BUNDLED_MODEL, &two, &err);

    (void)state;
    CHECK(m, "%s", err.message);
    clm_model_close(m);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        bad[i].device = "cpu";
        CHECK(!clm_model_open(BUNDLED_MODEL, &bad[i], &err) && err.code == CLM_ERR_ARG, "%s",
              err.message);
        err = (clm_error){0};
    }
}

/* Several sequences in one step give what each gives alone. */
static void test_step(void **state)
{
    int32_t alone[N_PROMPTS][STEPS], tokens[N_PROMPTS][64];
    clm_sequence *sequences[N_PROMPTS];
    clm_input inputs[N_PROMPTS];
    const float *logits;
    clm_error err = {0};

    (void)state;
    for (int i = 0; i < N_PROMPTS; i++) {
        continue_alone(prompts[i], alone[i]);
        sequences[i] = clm_sequence_open(engine, &err);
        CHECK(sequences[i], "%s", err.message);
        inputs[i] = (clm_input){sequences[i], tokens[i], tokenize(prompts[i], tokens[i], 64),
                                i == 1 ? 2 : 1};
    }
    for (int step = 0; step < STEPS; step++) {
        CHECK(!clm_engine_step(engine, inputs, N_PROMPTS, &logits, &err), "%s", err.message);
        for (int i = 0; i < N_PROMPTS; i++) {
            logits += (inputs[i].n_logits - 1) * clm_model_vocab_size(model);
            tokens[i][0] = largest(logits);
            logits += clm_model_vocab_size(model);
            CHECK(tokens[i][0] == alone[i][step], "sequence %d, step %d", i, step);
            inputs[i].n_tokens = inputs[i].n_logits = 1;
        }
    }
    CHECK(clm_sequence_length(sequences[0]) == 5 + STEPS - 1, "length %d",
          clm_sequence_length(sequences[0]));
    for (int i = 0; i < N_PROMPTS; i++)
        clm_sequence_close(sequences[i]);
}

static void test_fork_and_trim(void **state)
{
    clm_error err = {0};
    clm_sequence *s = clm_sequence_open(engine, &err), *fork;
    int32_t tokens[64], other = 500;
    int n = tokenize("Once upon a time, there was a cat", tokens, 64);
    float *first = calloc((size_t)clm_model_vocab_size(model), sizeof *first);
    size_t size = (size_t)clm_model_vocab_size(model) * sizeof *first;
    const float *logits;

    (void)state;
    CHECK(s && first && !clm_sequence_eval(s, tokens, n, &logits, &err), "%s", err.message);
    memcpy(first, logits, size);
    fork = clm_sequence_fork(s, &err);
    CHECK(fork, "%s", err.message);
    CHECK(!clm_sequence_eval(fork, &other, 1, &logits, &err), "%s", err.message);
    CHECK(clm_sequence_length(fork) == n + 1 && clm_sequence_length(s) == n, "lengths");
    CHECK(!clm_sequence_trim(fork, n - 1, &err), "%s", err.message);
    CHECK(!clm_sequence_eval(fork, tokens + n - 1, 1, &logits, &err), "%s", err.message);
    CHECK(!memcmp(first, logits, size), "a trimmed fork says something else");
    CHECK(clm_sequence_trim(fork, n + 1, &err) && err.code == CLM_ERR_ARG, "trimmed to more");
    free(first);
    clm_sequence_close(fork);
    clm_sequence_close(s);
}

static void test_sampler(void **state)
{
    clm_sampler_options options = clm_sampler_defaults();
    int32_t tokens[64], greedy, drawn[2][8];
    clm_logit_bias forced = {77, 1e4f};
    const clm_token_logprob *top;
    clm_error err = {0};
    clm_sequence *s = clm_sequence_open(engine, &err);
    clm_sampler *sampler = clm_sampler_open(model, NULL, &err);
    const float *logits;
    float logprob = 1;

    (void)state;
    CHECK(s && sampler, "%s", err.message);
    CHECK(!clm_sequence_eval(s, tokens, tokenize(prompts[0], tokens, 64), &logits, &err), "%s",
          err.message);
    greedy = clm_sampler_next(sampler, logits, NULL, 0, &logprob, &err);
    CHECK(greedy == largest(logits) && logprob <= 0, "greedy %d, %g", greedy, (double)logprob);
    clm_sampler_close(sampler);

    options.temp = 1.5;
    for (int round = 0; round < 2; round++) {
        sampler = clm_sampler_open(model, &options, &err);
        CHECK(sampler, "%s", err.message);
        for (int i = 0; i < 8; i++)
            drawn[round][i] = clm_sampler_next(sampler, logits, NULL, 0, NULL, &err);
        clm_sampler_close(sampler);
    }
    CHECK(!memcmp(drawn[0], drawn[1], sizeof drawn[0]), "the same seed, other tokens");

    /* A penalty that forbids the greedy token. */
    options = clm_sampler_defaults();
    options.presence_penalty = 100;
    sampler = clm_sampler_open(model, &options, &err);
    CHECK(sampler && clm_sampler_next(sampler, logits, &greedy, 1, NULL, &err) != greedy, "%s",
          err.message);
    clm_sampler_close(sampler);

    /* A bias that forces another, and the most likely tokens. */
    options = clm_sampler_defaults();
    options.logit_bias = &forced;
    options.n_logit_bias = 1;
    options.top_logprobs = 3;
    sampler = clm_sampler_open(model, &options, &err);
    CHECK(sampler && clm_sampler_top(sampler, &top) == 0, "%s", err.message);
    CHECK(clm_sampler_next(sampler, logits, NULL, 0, NULL, &err) == 77, "%s", err.message);
    CHECK(clm_sampler_top(sampler, &top) == 3 && top[0].token == 77 && top[1].token == greedy &&
              top[1].logprob >= top[2].logprob,
          "top tokens");
    clm_sampler_close(sampler);

    /* "a b a b a": DRY against another b, unless there is a breaker in it. */
    for (int round = 0; round < 2; round++) {
        static const char *const breakers[] = {" little"};
        int n = tokenize(" little red little red little", tokens, 64);

        forced.token = tokens[n - 2];
        options = clm_sampler_defaults();
        options.logit_bias = &forced;
        options.n_logit_bias = 1;
        options.dry_multiplier = 1e6;
        options.dry_sequence_breakers = round ? breakers : NULL;
        options.n_dry_sequence_breakers = 1;
        sampler = clm_sampler_open(model, &options, &err);
        CHECK(sampler, "%s", err.message);
        CHECK((clm_sampler_next(sampler, logits, tokens, (size_t)n, NULL, &err) == forced.token) ==
                  (round == 1),
              "DRY, round %d", round);
        clm_sampler_close(sampler);
    }

    options = clm_sampler_defaults();
    options.top_p = 2;
    CHECK(!clm_sampler_open(model, &options, &err) && err.code == CLM_ERR_ARG, "top_p 2 was taken");
    options = (clm_sampler_options){0};
    err = (clm_error){0};
    CHECK(!clm_sampler_open(model, &options, &err) && err.code == CLM_ERR_ARG &&
              strstr(err.message, "clm_sampler_defaults"),
          "options that are all zero: %s", err.message);
    for (int n = -1; n <= 1; n += 2) {
        options = clm_sampler_defaults();
        options.n_logit_bias = n;
        err = (clm_error){0};
        CHECK(!clm_sampler_open(model, &options, &err) && err.code == CLM_ERR_ARG,
              "%d biases at NULL", n);
    }
    sampler = clm_sampler_open(model, NULL, &err);
    err = (clm_error){0};
    CHECK(clm_sampler_next(sampler, NULL, NULL, 0, NULL, &err) == -1 && err.code == CLM_ERR_ARG,
          "NULL logits");
    clm_sampler_close(sampler);
    clm_sequence_close(s);
}

static void check_bad_requests(clm_scheduler *s)
{
    static const int32_t token = 300;
    clm_request_options good = clm_request_defaults(), bad[6];
    clm_error err = {0};

    good.prompt = &token;
    good.n_prompt = 1;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        bad[i] = good;
    bad[0].n_prompt = 0;
    bad[1].prompt = NULL;
    bad[2].max_tokens = -1;
    bad[3].timeout = -1;
    bad[4].timeout = (double)NAN;
    bad[5].n_stops = 1;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        err = (clm_error){0};
        CHECK(!clm_scheduler_submit(s, &bad[i], &err) && err.code == CLM_ERR_ARG, "request %zu", i);
    }
    err = (clm_error){0};
    CHECK(!clm_scheduler_submit(s, NULL, &err) && err.code == CLM_ERR_ARG, "no options");
}

/* What a request was told. */
struct told {
    clm_scheduler *scheduler;
    clm_request *request;
    char text[512];
    int32_t tokens[64];
    int n_tokens, n_done, progress, stop_after, foreseen;
    int32_t forbidden;
    struct told *follower; /* submitted when this one is done */
    clm_result result;
    clm_error err;
};

static bool take_token(void *ctx, const clm_token *t)
{
    struct told *told = ctx;

    CHECK(t->logprob <= 0 && t->n_top == 2 && t->top[0].logprob >= t->logprob, "logprobs");
    strncat(told->text, t->text, t->size);
    told->tokens[told->n_tokens++] = t->token;
    told->foreseen += t->from_draft;
    return told->n_tokens != told->stop_after;
}

static void take_progress(void *ctx, int done, int total)
{
    struct told *told = ctx;

    CHECK(done > told->progress && done <= total, "%d of %d", done, total);
    told->progress = done;
}

static void submit(struct told *told, const char *prompt, clm_request_options o);

static void take_done(void *ctx, const clm_result *result, const clm_error *err)
{
    struct told *told = ctx;

    told->n_done++;
    told->result = *result;
    if (err)
        told->err = *err;
    if (told->follower)
        submit(told->follower, prompts[1], clm_request_defaults());
}

static void submit(struct told *told, const char *prompt, clm_request_options o)
{
    int32_t tokens[64];
    clm_error err = {0};

    o.prompt = tokens;
    o.n_prompt = (size_t)tokenize(prompt, tokens, 64);
    o.max_tokens = o.max_tokens ? o.max_tokens : STEPS;
    o.sampler.top_logprobs = 2;
    o.ctx = told;
    o.progress = take_progress;
    o.token = take_token;
    o.done = take_done;
    told->request = clm_scheduler_submit(told->scheduler, &o, &err);
    CHECK(told->request, "%s", err.message);
}

static int forbid(void *ctx, float *logits, int vocab_size, const int32_t *history, size_t n,
                  clm_error *err)
{
    struct told *told = ctx;

    (void)err;
    CHECK(vocab_size == clm_model_vocab_size(model) && n >= 1 && history[0] == 0, "%zu tokens", n);
    logits[told->forbidden] = -1e9f;
    return told->n_tokens == 3 ? -1 : 0;
}

static void test_scheduler(void **state)
{
    clm_error err = {0};
    clm_scheduler_options bad = {.max_running = -1};
    clm_scheduler *s = clm_scheduler_open(engine, NULL, &err);
    clm_request_options o = clm_request_defaults();
    struct told all[N_PROMPTS] = {0}, follower = {.scheduler = s}, cancelled = {.scheduler = s},
                other = {.scheduler = s}, stopped = {.scheduler = s};
    const char *stops[] = {"never said", NULL};
    int32_t alone[STEPS];

    (void)state;
    CHECK(s, "%s", err.message);
    CHECK(!clm_scheduler_open(engine, &bad, &err) && err.code == CLM_ERR_ARG, "-1 running");
    for (int i = 0; i < N_PROMPTS; i++) {
        all[i].scheduler = s;
        submit(&all[i], prompts[i], o);
    }
    all[0].follower = &follower;
    submit(&cancelled, prompts[0], o);
    clm_request_cancel(cancelled.request);
    while (clm_scheduler_step(s))
        ;
    for (int i = 0; i < N_PROMPTS; i++) {
        continue_alone(prompts[i], alone);
        CHECK(all[i].n_done == 1 && all[i].result.finish == CLM_FINISH_LENGTH, "request %d", i);
        CHECK(!memcmp(alone, all[i].tokens, sizeof alone), "request %d: other tokens", i);
        CHECK(all[i].progress == all[i].result.prompt_tokens, "progress %d", all[i].progress);
    }
    CHECK(follower.n_tokens == STEPS && !strcmp(follower.text, all[1].text), "the follower");
    CHECK(cancelled.result.finish == CLM_FINISH_CANCELLED && !cancelled.n_tokens, "cancelled");

    stops[1] = strchr(all[0].text + 1, ' ');
    o.stops = stops;
    o.n_stops = 2;
    submit(&stopped, prompts[0], o);
    o = clm_request_defaults();
    other.forbidden = all[0].tokens[0];
    o.process = forbid;
    submit(&other, prompts[0], o);
    all[1].stop_after = 2;
    all[1].n_tokens = all[1].progress = 0;
    submit(&all[1], prompts[1], clm_request_defaults());
    while (clm_scheduler_step(s))
        ;
    CHECK(stopped.result.finish == CLM_FINISH_STOP && stopped.text[0] &&
              strstr(all[0].text, stopped.text) == all[0].text &&
              strlen(stopped.text) == (size_t)(stops[1] - all[0].text),
          "\"%s\"", stopped.text);
    CHECK(other.result.finish == CLM_FINISH_ERROR && other.n_tokens == 3 && other.err.code &&
              other.tokens[0] != all[0].tokens[0],
          "%d tokens: %s", other.n_tokens, other.err.message);
    CHECK(all[1].result.finish == CLM_FINISH_CANCELLED && all[1].n_tokens == 2, "%d tokens",
          all[1].n_tokens);

    check_bad_requests(s);
    follower = (struct told){.scheduler = s};
    submit(&follower, prompts[0], o); /* and dropped */
    clm_scheduler_close(s);
    CHECK(follower.n_done == 0, "done was told of a request that was dropped");
    clm_scheduler_close(NULL);
}

/* An engine of the same model guesses, or the text itself. */
static void test_drafts(void **state)
{
    clm_error err = {0};
    clm_engine_options eo = {.exact = true};
    clm_engine *other = clm_engine_open(model, &eo, &err);
    clm_scheduler_options o = {.draft_engine = other, .prompt_lookup = true};

    (void)state;
    CHECK(other, "%s", err.message);
    CHECK(!clm_scheduler_open(engine, &o, &err) && err.code == CLM_ERR_ARG, "both were taken");
    for (int lookup = 0; lookup < 2; lookup++) {
        struct told all[N_PROMPTS] = {0};
        clm_scheduler *s;

        o.draft_engine = lookup ? NULL : other;
        o.prompt_lookup = lookup;
        s = clm_scheduler_open(engine, &o, &err);
        CHECK(s, "%s", err.message);
        for (int i = 0; i < N_PROMPTS; i++) {
            all[i].scheduler = s;
            submit(&all[i], prompts[i], clm_request_defaults());
        }
        while (clm_scheduler_step(s))
            ;
        for (int i = 0; i < N_PROMPTS; i++) {
            int32_t alone[STEPS];

            continue_alone(prompts[i], alone);
            CHECK(!memcmp(alone, all[i].tokens, sizeof alone), "request %d: other tokens", i);
            CHECK(all[i].result.draft_tokens == all[i].foreseen &&
                      all[i].foreseen <= all[i].result.drafted_tokens,
                  "%d of %d, %d came", all[i].result.draft_tokens, all[i].result.drafted_tokens,
                  all[i].foreseen);
        }
        clm_scheduler_close(s);
    }
    clm_engine_close(other);
}

static void test_detokenizer(void **state)
{
    static const char text[] = "A cat \xF0\x9F\x90\xB1, \xC3\xA9t\xC3\xA9.";
    char joined[128] = "";
    int32_t tokens[64];
    clm_error err = {0};
    clm_detokenizer *d = clm_detokenizer_open(model, true, &err);
    int n = tokenize(text, tokens, 64);
    const char *segment;
    size_t size;

    (void)state;
    CHECK(d, "%s", err.message);
    for (int i = 0; i <= n; i++) {
        CHECK(i < n ? !clm_detokenizer_add(d, tokens[i], &segment, &size, &err)
                    : !clm_detokenizer_finish(d, &segment, &size, &err),
              "%s", err.message);
        CHECK(strlen(joined) + size < sizeof joined, "too much text");
        strncat(joined, segment, size);
    }
    CHECK(!strcmp(joined, text), "\"%s\"", joined);
    clm_detokenizer_close(d);
}

static void test_errors(void **state)
{
    static const int32_t outside = 1 << 30;
    static const int32_t token = 300;
    clm_engine_options bad = {.max_rows = -1}, small = {.cache_bytes = 1 << 16, .max_rows = 4};
    clm_error err = {0};
    clm_sequence *s = clm_sequence_open(engine, &err), *t;
    clm_input input = {s, &outside, 1, 1};
    clm_engine *other;
    const float *logits;
    int rc = 0;

    (void)state;
    CHECK(clm_sequence_eval(s, &outside, 1, &logits, &err) && err.code == CLM_ERR_ARG,
          "token 2^30");
    err = (clm_error){0};
    CHECK(clm_engine_step(engine, &input, 1, &logits, &err) && err.code == CLM_ERR_ARG,
          "token 2^30");
    err = (clm_error){0};
    CHECK(clm_engine_step(engine, &input, 0, &logits, &err) && err.code == CLM_ERR_ARG,
          "no inputs");
    err = (clm_error){0};
    CHECK(clm_sequence_eval(s, &token, 0, &logits, &err) && err.code == CLM_ERR_ARG, "no tokens");
    err = (clm_error){0};
    CHECK(clm_sequence_eval(s, NULL, 1, &logits, &err) && err.code == CLM_ERR_ARG, "NULL tokens");
    err = (clm_error){0};
    CHECK(clm_engine_step(engine, NULL, 1, &logits, &err) && err.code == CLM_ERR_ARG,
          "NULL inputs");
    input = (clm_input){s, NULL, 1, 1};
    err = (clm_error){0};
    CHECK(clm_engine_step(engine, &input, 1, &logits, &err) && err.code == CLM_ERR_ARG,
          "NULL tokens");
    CHECK(clm_sequence_length(s) == 0, "length %d", clm_sequence_length(s));
    err = (clm_error){0};
    CHECK(!clm_engine_open(model, &bad, &err) && err.code == CLM_ERR_ARG, "max_rows -1");
    err = (clm_error){0};
    bad = (clm_engine_options){.cache_type = (enum clm_cache_type)17};
    CHECK(!clm_engine_open(model, &bad, &err) && err.code == CLM_ERR_ARG, "cache_type 17");

    /* A cache that fills, and sequences of another engine. */
    err = (clm_error){0};
    other = clm_engine_open(model, &small, &err);
    t = other ? clm_sequence_open(other, &err) : NULL;
    CHECK(t, "%s", err.message);
    input = (clm_input){s, &token, 1, 1};
    CHECK(clm_engine_step(other, &input, 1, &logits, &err) && err.code == CLM_ERR_ARG,
          "a foreign sequence");
    err = (clm_error){0};
    for (int i = 0; i < 100000 && rc == 0; i++)
        rc = clm_sequence_eval(t, &token, 1, &logits, &err);
    CHECK(rc && err.code == CLM_ERR_FULL, "a full cache: %s", err.message);
    clm_sequence_close(t);
    clm_engine_close(other);
    clm_sequence_close(s);
    clm_sequence_close(NULL);
    clm_engine_close(NULL);
    clm_sampler_close(NULL);
    clm_detokenizer_close(NULL);
    clm_model_close(NULL);
}

/* Quantised and bounded, a small cache takes a text of any length. */
static void test_cache_kinds(void **state)
{
    static const int32_t token = 300;
    clm_engine_options kinds[] = {
        {.kv_bits = 5}, {.kv_bits = 4, .kv_group_size = 48}, {.max_kv_size = 4}};
    clm_engine_options small = {
        .cache_bytes = 1 << 19, .kv_bits = 4, .kv_group_size = 32, .max_kv_size = 64};
    clm_error err = {0};
    clm_engine *other;
    clm_sequence *s;
    const float *logits;

    (void)state;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        err = (clm_error){0};
        CHECK(!clm_engine_open(model, &kinds[i], &err) && err.code == CLM_ERR_ARG, "kind %zu", i);
    }
    err = (clm_error){0};
    other = clm_engine_open(model, &small, &err);
    s = other ? clm_sequence_open(other, &err) : NULL;
    CHECK(s, "%s", err.message);
    for (int i = 0; i < 400; i++)
        CHECK(clm_sequence_eval(s, &token, 1, &logits, &err) == 0, "token %d: %s", i, err.message);
    clm_sequence_close(s);
    clm_engine_close(other);
}

static int open_all(void **state)
{
    clm_model_options model_options = {.n_threads = 2};
    clm_engine_options engine_options = {.exact = true};
    clm_error err = {0};

    (void)state;
    model = clm_model_open(BUNDLED_MODEL, &model_options, &err);
    engine = model ? clm_engine_open(model, &engine_options, &err) : NULL;
    if (!engine)
        print_error("%s\n", err.message);
    return engine ? 0 : -1;
}

static int close_all(void **state)
{
    (void)state;
    clm_engine_close(engine);
    clm_model_close(model);
    return 0;
}

/* The greedy tokens after a prompt go on from what the index has of it, here n tokens. */
static void check_lookup(clm_prefix_index *x, const char *prompt, int n)
{
    clm_error err = {0};
    int32_t tokens[64], alone[STEPS];
    int length = tokenize(prompt, tokens, 64);
    clm_sequence *s = clm_prefix_index_lookup(x, tokens, length, &err);
    const float *logits;

    CHECK(s && clm_sequence_length(s) == n, "%d tokens: %s", s ? clm_sequence_length(s) : -1,
          err.message);
    continue_alone(prompt, alone);
    CHECK(!clm_sequence_eval(s, tokens + n, length - n, &logits, &err), "%s", err.message);
    CHECK(largest(logits) == alone[0], "another token after %d of %d", n, length);
    clm_sequence_close(s);
}

static void test_prefix_index(void **state)
{
    clm_error err = {0};
    clm_prefix_options few = {.max_entries = 1}, bad = {.max_entries = -1};
    clm_prefix_index *x = clm_prefix_index_open(engine, &few, &err);
    clm_scheduler_options o = {.prefixes = x};
    clm_engine *other = clm_engine_open(model, &(clm_engine_options){.exact = true}, &err);
    clm_scheduler *s = clm_scheduler_open(engine, &o, &err);
    clm_sequence *stranger = clm_sequence_open(other, &err), *kept;
    struct told first = {.scheduler = s}, second = {.scheduler = s};
    int32_t tokens[64], alone[STEPS];
    int n = tokenize(prompts[2], tokens, 64);
    const float *logits;

    (void)state;
    CHECK(x && other && s && stranger, "%s", err.message);
    CHECK(!clm_prefix_index_open(engine, &bad, &err) && err.code == CLM_ERR_ARG, "-1 entries");
    err = (clm_error){0};
    CHECK(!clm_scheduler_open(other, &o, &err) && err.code == CLM_ERR_ARG, "another engine");
    err = (clm_error){0};
    CHECK(clm_prefix_index_insert(x, stranger, &err) == -1 && err.code == CLM_ERR_ARG,
          "a stranger's sequence");
    err = (clm_error){0};
    CHECK(!clm_prefix_index_lookup(x, tokens, 0, &err) && err.code == CLM_ERR_ARG, "no prompt");
    err = (clm_error){0};
    CHECK(clm_prefix_index_pin(x, tokens, n, &err) == -1 && err.code == CLM_ERR_ARG,
          "pinned without being there");

    check_lookup(x, prompts[2], 0);
    submit(&first, prompts[2], clm_request_defaults());
    while (clm_scheduler_step(s))
        ;
    submit(&second, prompts[2], clm_request_defaults());
    while (clm_scheduler_step(s))
        ;
    continue_alone(prompts[2], alone);
    CHECK(first.result.cached_tokens == 0 && second.result.cached_tokens == n - 1 &&
              !memcmp(second.tokens, alone, sizeof alone),
          "%d and %d of %d tokens were there", first.result.cached_tokens,
          second.result.cached_tokens, n);
    check_lookup(x, prompts[2], n - 1);

    err = (clm_error){0};
    CHECK(!clm_prefix_index_pin(x, tokens, n, &err), "%s", err.message);
    n = tokenize(prompts[0], tokens, 64);
    kept = clm_sequence_open(engine, &err);
    CHECK(kept && !clm_sequence_eval(kept, tokens, n, &logits, &err) &&
              !clm_prefix_index_insert(x, kept, &err),
          "%s", err.message);
    clm_sequence_close(kept);
    n = tokenize(prompts[2], tokens, 64);
    check_lookup(x, prompts[2], n - 1);
    clm_prefix_index_unpin(x, tokens, n);
    clm_prefix_index_write(x);
    clm_sequence_close(stranger);
    clm_scheduler_close(s);
    clm_prefix_index_close(x);
    clm_prefix_index_close(NULL);
    clm_engine_close(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model),           cmocka_unit_test(test_gpu_layers),
        cmocka_unit_test(test_tensor_parallel), cmocka_unit_test(test_step),
        cmocka_unit_test(test_fork_and_trim),   cmocka_unit_test(test_sampler),
        cmocka_unit_test(test_detokenizer),     cmocka_unit_test(test_errors),
        cmocka_unit_test(test_cache_kinds),     cmocka_unit_test(test_scheduler),
        cmocka_unit_test(test_drafts),          cmocka_unit_test(test_prefix_index),
    };

    return cmocka_run_group_tests(tests, open_all, close_all);
}
