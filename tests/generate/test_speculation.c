/* Text with drafts is the text without them: whatever the model and its cache, whoever guesses, and
 * wherever it ends. */
#include "testing.h"

#include <dirent.h>
#include <math.h>
#include <string.h>

#include "engine/golden.h"
#include "engine/rig.h"
#include "generate/generate.h"
#include "generate/oracle.h"

#define MAX_TOKENS 100
#define BUNDLED CLM_SOURCE_DIR "/models/storyteller-4bit"

/* A text in the making, and what it became. */
struct run {
    struct rig *rig;
    const int32_t *prompt;
    int n_prompt;
    struct sampler_options sampling;
    struct generate_options generate;
    const tokenizer *tokenizer;
    struct generate_result result;
    int32_t tokens[MAX_TOKENS];
    int from_draft;
    struct strbuf text;
    int32_t next; /* what a greedy sampler then says of the sequence that is left */
};

static bool take_token(void *ctx, const struct generated *g)
{
    struct run *r = ctx;

    if (r->result.generated_tokens == 0)
        r->from_draft = 0;
    r->tokens[r->result.generated_tokens++] = g->token;
    r->from_draft += g->from_draft;
    strbuf_add(&r->text, g->text, g->size);
    return true;
}

/* The sequence must hold all but the last token: what it says next shows it. */
static int32_t ask_next(struct rig *rig, kv_seq *seq, int32_t last)
{
    struct engine_input in = {.seq = seq, .tokens = &last, .n_tokens = 1, .n_logits = 1};
    const float *logits;
    clm_error err = {0};
    int32_t best = 0;

    CHECK(!engine_step(rig->engine, &in, 1, &logits, &err), "%s", err.message);
    for (int i = 1; i < rig->vocab_size; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

static void run(struct run *r, speculation *drafts)
{
    kv_seq *seq = rig_sequence(r->rig);
    struct generate_options o = r->generate;
    struct generate_result result;
    clm_error err = {0};
    sampler *s = sampler_open(&r->sampling, r->rig->vocab_size, &err);

    CHECK(s, "%s", err.message);
    o.speculation = drafts;
    o.ctx = r;
    o.token = take_token;
    r->result = (struct generate_result){0};
    strbuf_clear(&r->text);
    CHECK(!generate(r->rig->engine, seq, s, r->tokenizer, r->prompt, (size_t)r->n_prompt, &o,
                    &result, &err),
          "%s", err.message);
    CHECK(result.generated_tokens == r->result.generated_tokens, "%d tokens are told, %d came",
          result.generated_tokens, r->result.generated_tokens);
    CHECK(result.draft_tokens == r->from_draft && result.draft_tokens <= result.drafted_tokens,
          "%d of %d drafts, %d came", result.draft_tokens, result.drafted_tokens, r->from_draft);
    r->result = result;
    CHECK(kv_seq_length(seq) == r->n_prompt + result.generated_tokens - 1,
          "the sequence has %d tokens after %d and %d", kv_seq_length(seq), r->n_prompt,
          result.generated_tokens);
    r->next = ask_next(r->rig, seq, r->tokens[result.generated_tokens - 1]);
    sampler_close(s);
    kv_seq_close(seq);
}

/* With drafts of an owned drafter, always as many as it has; the same text must come. Returns how
 * many drafts were right. */
static int check_same(const struct run *plain, drafter *d, int max_drafts, const char *what)
{
    struct speculation_options o = {.max_drafts = max_drafts, .always = true};
    struct run r = *plain;
    clm_error err = {0};
    speculation *s = speculation_open(d, &o, &err);
    int n = plain->result.generated_tokens;

    CHECK(s, "%s", err.message);
    r.text = (struct strbuf){0};
    run(&r, s);
    CHECK(r.result.generated_tokens == n && r.result.finish == plain->result.finish,
          "%s: %d tokens, then %s; without drafts %d, then %s", what, r.result.generated_tokens,
          finish_reason_name(r.result.finish), n, finish_reason_name(plain->result.finish));
    for (int i = 0; i < n; i++)
        CHECK(r.tokens[i] == plain->tokens[i], "%s: token %d is %d, not %d", what, i, r.tokens[i],
              plain->tokens[i]);
    CHECK(r.text.size == plain->text.size && !memcmp(r.text.data, plain->text.data, r.text.size),
          "%s: another text", what);
    CHECK(r.next == plain->next, "%s: the sequence goes on with %d, not %d", what, r.next,
          plain->next);
    strbuf_release(&r.text);
    speculation_close(s);
    return r.result.draft_tokens;
}

static drafter *lookup(void)
{
    clm_error err = {0};
    drafter *d = drafter_open_lookup(&err);

    CHECK(d, "%s", err.message);
    return d;
}

static struct oracle oracle;

/* Runs of guesses of which a quarter is wrong. */
static int check_oracle(const struct run *plain, const char *what)
{
    oracle_init(&oracle, plain->rig->vocab_size, 6);
    oracle_add(&oracle, plain->prompt, plain->n_prompt, plain->tokens,
               plain->result.generated_tokens);
    return check_same(plain, &oracle.drafter, 6, what);
}

static void sample(struct sampler_options *o)
{
    o->temp = 0.9;
    o->top_p = 0.9;
    o->seed = 11;
    o->repetition = (struct penalty){1.1, 8};
}

/* Greedy and sampled text of a fixture, from its prompt, with a kind of cache. */
static int check_fixture(const char *name, const char *path, const struct engine_options *options)
{
    char file[4200];
    struct golden golden;
    struct rig rig;
    struct run r = {.rig = &rig, .sampling = sampler_defaults(), .generate.max_tokens = 24};
    clm_error err = {0};
    int right = 0, context;

    snprintf(file, sizeof file, "%s/golden.safetensors", path);
    if (access(file, R_OK) || rig_open_with(&rig, path, NULL, 1, options, &err))
        return 0; /* tests/engine/test_goldens.c says which are refused */
    golden_open(&golden, file);
    r.prompt = golden.prompt;
    context = rig.model->spec->context_length;
    r.n_prompt = context > 0 && context < golden.n_prompt ? context / 2 : golden.n_prompt;
    for (int sampled = 0; sampled < 2; sampled++) {
        if (sampled)
            sample(&r.sampling);
        run(&r, NULL);
        right += check_oracle(&r, name);
        check_same(&r, lookup(), 4, name);
        CHECK(kv_cache_bytes_used(engine_cache(rig.engine)) == 0, "%s: blocks left", name);
    }
    strbuf_release(&r.text);
    golden_close(&golden);
    rig_close(&rig);
    return right;
}

/* Of every so many fixtures one, with the next of n kinds of caches; how many have been right. */
static int check_fixtures(const struct engine_options *kinds, int n_kinds, int every)
{
    const char *root = shared_path("goldens/models");
    struct dirent **entries;
    int n = scandir(root, &entries, NULL, alphasort), checked = 0, right = 0;

    CHECK(n >= 0, "%s cannot be read", root);
    for (int i = 0; i < n; i++) {
        char path[4096];
        int length = snprintf(path, sizeof path, "%s/%s", root, entries[i]->d_name);

        if (entries[i]->d_name[0] != '.' && length < (int)sizeof path && i % every == 0) {
            int of_one = check_fixture(entries[i]->d_name, path, &kinds[i / every % n_kinds]);

            checked += of_one > 0;
            right += of_one;
        }
        free(entries[i]);
    }
    free(entries);
    print_message("%d models, %d drafts were right\n", checked, right);
    return checked;
}

static void test_fixtures(void **state)
{
    const struct engine_options exact = {.exact = true};
    int checked;

    (void)state;
    SKIP_IF_NO_SHARED();
    checked = check_fixtures(&exact, 1, TEST_IS_SLOW ? 8 : 1);
    CHECK(checked >= (TEST_IS_SLOW ? 20 : 150), "only %d models", checked);
}

/* Drafts that were wrong are taken back from quantised caches too, and from those that keep but
 * some tokens. */
static void test_kinds_of_caches(void **state)
{
    static const struct engine_options kinds[] = {
        {.exact = true, .kv_bits = 8, .kv_group_size = 32},
        {.exact = true, .kv_bits = 4, .quantized_kv_start = 20},
        {.exact = true, .kv_bits = 8, .max_kv_size = 9},
        {.exact = true, .max_kv_size = 40},
    };
    int checked;

    (void)state;
    SKIP_IF_NO_SHARED();
    checked = check_fixtures(kinds, COUNT(kinds), TEST_IS_SLOW ? 16 : 3);
    CHECK(checked >= (TEST_IS_SLOW ? 10 : 50), "only %d models", checked);
}

static void encode(const tokenizer *t, const char *text, struct token_list *out)
{
    clm_error err = {0};

    token_list_clear(out);
    CHECK(!tokenizer_encode(t, text, strlen(text), true, out, &err) && out->count > 0, "%s",
          err.message);
}

/* Whatever ends a text may come inside of drafts: the number of tokens, an end token, a stop. */
static void check_ends(struct run *r, const struct run *whole)
{
    struct token_list end = {0};
    struct stop_set stops = {0};

    for (int n = 1; n <= 20; n += 3) {
        r->generate.max_tokens = n;
        run(r, NULL);
        check_oracle(r, "max_tokens");
    }
    r->generate.max_tokens = whole->generate.max_tokens;
    r->generate.end_tokens = &end;
    for (int n = 1; n <= 20; n += 3) {
        token_list_clear(&end);
        token_list_add(&end, whole->tokens[n]);
        run(r, NULL);
        CHECK(r->result.finish == FINISH_STOP, "%s", finish_reason_name(r->result.finish));
        check_oracle(r, "an end token");
    }
    r->generate.end_tokens = NULL;
    CHECK(whole->text.size > 60 && !stop_set_add_text(&stops, whole->text.data + 50, 5) &&
              !stop_set_build(&stops),
          "no stops");
    r->generate.stops = &stops;
    run(r, NULL);
    CHECK(r->result.finish == FINISH_STOP && r->text.size <= 50, "%s",
          finish_reason_name(r->result.finish));
    for (int n = 0; n < 4; n++)
        check_oracle(r, "a stop");
    r->generate.stops = NULL;
    stop_set_release(&stops);
    token_list_release(&end);
}

static void test_ends(void **state)
{
    struct rig rig;
    clm_error err = {0};
    tokenizer *t = tokenizer_open(BUNDLED, NULL, &err);
    struct token_list prompt = {0};
    struct run whole = {
        .rig = &rig, .tokenizer = t, .sampling = sampler_defaults(), .generate.max_tokens = 60};

    (void)state;
    CHECK(t && !rig_open(&rig, BUNDLED, 1, true, &err), "%s", err.message);
    encode(t, "Once upon a time", &prompt);
    whole.prompt = prompt.ids;
    whole.n_prompt = (int)prompt.count;
    for (int sampled = 0; sampled < 2; sampled++) {
        struct run r;

        if (sampled)
            sample(&whole.sampling);
        run(&whole, NULL);
        r = whole;
        r.text = (struct strbuf){0};
        check_ends(&r, &whole);
        strbuf_release(&r.text);
    }
    strbuf_release(&whole.text);
    token_list_release(&prompt);
    tokenizer_close(t);
    rig_close(&rig);
}

/* The ways to choose a token: greedy, filters of each kind, penalties, mirostat. */
static void choose_sampling(struct sampler_options *o, int i)
{
    *o = sampler_defaults();
    o->temp = i == 0 ? 0 : 0.8;
    o->seed = (uint64_t)i;
    o->top_p = i == 2 ? 0.9 : 0;
    o->min_p = i == 3 ? 0.05 : 0;
    o->top_k = i == 4 ? 20 : 0;
    o->xtc_probability = i == 5 ? 0.5 : 0;
    o->mirostat = i == 6 ? 2 : 0;
    o->repetition.value = i == 7 ? 1.2 : 0;
    o->dry.multiplier = i == 8 ? 0.8 : 0;
}

#define N_SAMPLINGS 9

/* The storyteller with its small sister: the same tokens, and a good part of them foreseen. */
static void check_draft_model(const struct engine_options *options)
{
    const char *path = shared_path("models/storyteller"), *small_path;
    struct token_list prompt = {0};
    struct rig rig, small;
    clm_error err = {0};
    struct run r = {.rig = &rig, .generate.max_tokens = 50};
    tokenizer *t;
    int right = 0, chosen = 0;

    small_path = shared_path("models/storyteller-draft");
    if (!path || !small_path) {
        print_message("no shared models: set CLM_SHARED to their folder\n");
        skip();
    }
    t = tokenizer_open(path, NULL, &err);
    CHECK(t && !rig_open_with(&rig, path, NULL, 1, options, &err) &&
              !rig_open_with(&small, small_path, NULL, 1, options, &err),
          "%s", err.message);
    encode(t, "Once upon a time, there was a little girl named Lily. She", &prompt);
    r.prompt = prompt.ids;
    r.n_prompt = (int)prompt.count;
    r.tokenizer = t;
    for (int i = 0; i < N_SAMPLINGS; i++) {
        drafter *d = drafter_open_model(small.engine, rig.vocab_size, &err);
        int of_it;

        CHECK(d, "%s", err.message);
        choose_sampling(&r.sampling, i);
        run(&r, NULL);
        of_it = check_same(&r, d, 4, "a draft model");
        CHECK(of_it > r.result.generated_tokens / 5, "sampling %d: %d of %d tokens foreseen", i,
              of_it, r.result.generated_tokens);
        right += of_it;
        chosen += r.result.generated_tokens;
        CHECK(kv_cache_bytes_used(engine_cache(small.engine)) == 0, "blocks of drafts left");
    }
    print_message("%d of %d tokens were foreseen\n", right, chosen);
    strbuf_release(&r.text);
    token_list_release(&prompt);
    tokenizer_close(t);
    rig_close(&rig);
    rig_close(&small);
}

static void test_draft_model(void **state)
{
    const struct engine_options exact = {.exact = true};

    (void)state;
    check_draft_model(&exact);
}

/* Both with quantised caches. */
static void test_quantised_draft_model(void **state)
{
    const struct engine_options quantised = {
        .exact = true, .kv_bits = 8, .kv_group_size = 32, .quantized_kv_start = 20};

    (void)state;
    check_draft_model(&quantised);
}

/* Rows of logits, one after each token, that hang on the token before; and those of a worse model.
 */
static void make_rows(float *logits, float *worse, int n)
{
    random_floats(logits, (size_t)n);
    random_floats(worse, (size_t)n);
    for (int i = 0; i < n; i++) {
        logits[i] *= 4;
        worse[i] = logits[i] + 2 * worse[i];
    }
}

#define N_WORDS 12

/* Two tokens drawn with a draft each, as often as all pairs should come; no engine, so that there
 * can be many. */
static void test_distribution(void **state)
{
    static float logits[N_WORDS + 1][N_WORDS], worse[N_WORDS + 1][N_WORDS];
    static int counts[N_WORDS][N_WORDS];
    double p[N_WORDS + 1][N_WORDS], statistic = 0, deviations, rare = 0, rare_expected = 0;
    int n = 100000, right = 0, tried = 0, degrees = -1;
    struct sampler_options o = sampler_defaults();
    clm_error err = {0};
    sampler *s, *small;

    (void)state;
    for (int k = 0; k <= N_WORDS; k++) {
        double sum = 0;

        make_rows(logits[k], worse[k], N_WORDS);
        for (int i = 0; i < N_WORDS; i++)
            sum += p[k][i] = exp((double)logits[k][i] / 0.7);
        for (int i = 0; i < N_WORDS; i++)
            p[k][i] /= sum;
    }
    o.temp = 0.7;
    o.seed = 3;
    s = sampler_open(&o, N_WORDS, &err);
    small = sampler_open_like(s, N_WORDS, &err);
    CHECK(s && small, "%s", err.message);
    for (int i = 0; i < n; i++) {
        int32_t before = N_WORDS, draft = before, pair[2]; /* first after no token */

        sampler_follow(small, s);
        for (int k = 0; k < 2; k++) {
            struct sample drafted, chosen;

            CHECK(!sampler_next(small, worse[draft], NULL, 0, &drafted, &err) &&
                      !sampler_next(s, logits[before], NULL, 0, &chosen, &err),
                  "%s", err.message);
            right += draft == before && drafted.token == chosen.token;
            tried += draft == before;
            draft = drafted.token;
            before = pair[k] = chosen.token;
        }
        counts[pair[0]][pair[1]]++;
    }
    for (int i = 0; i < N_WORDS * N_WORDS; i++) {
        double expected = p[N_WORDS][i / N_WORDS] * p[i / N_WORDS][i % N_WORDS] * n;
        double off = counts[i / N_WORDS][i % N_WORDS] - expected;

        if (expected < 5) { /* too rare for the square; all together */
            rare += off;
            rare_expected += expected;
            continue;
        }
        statistic += off * off / expected;
        degrees++;
    }
    CHECK(fabs(rare) <= 5 * sqrt(rare_expected) + 1, "rare pairs: %g off %g", rare, rare_expected);
    /* Beyond four deviations once in thirty thousand; the seed is fixed. */
    deviations = (statistic - degrees) / sqrt(2.0 * degrees);
    CHECK(fabs(deviations) < 4, "chi-squared %g at %d degrees", statistic, degrees);
    CHECK(right > tried / 4 && right < tried * 0.95, "%d of %d drafts were right", right, tried);
    sampler_close(s);
    sampler_close(small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fixtures),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_kinds_of_caches),
        cmocka_unit_test(test_draft_model),
        cmocka_unit_test(test_quantised_draft_model),
        cmocka_unit_test(test_distribution),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
