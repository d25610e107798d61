/* The trained models against the reference: greedy continuations and perplexity of real text. */
#include <math.h>
#include <string.h>

#include "base/file.h"
#include "engine/rig.h"
#include "format/json.h"
#include "tokenizer/tokenizer.h"

/* Ids are compared up to the first step where the two best logits are nearer than this. Both sides
 * compute in f32; for logits of 10 to 20 that is a rounding of 1e-6 each, some hundred times that
 * for a whole pass. */
#define TINY_MARGIN 5e-4

enum { MAX_PROMPTS = 8, WINDOW = 512 };

static json *goldens;

static const json *golden_of(const char *model)
{
    const json *g = json_get(json_get(goldens, "models"), model);

    CHECK(g, "goldens.json has no %s", model);
    return g;
}

static struct rig open_model(const char *name, bool exact)
{
    char rest[64];
    const char *path;
    struct rig r;
    clm_error err = {0};

    snprintf(rest, sizeof rest, "models/%s", name);
    path = shared_path(rest);
    CHECK(path, "no %s", rest);
    CHECK(rig_open(&r, path, 0, exact, &err) == 0, "%s", err.message);
    return r;
}

/* Greedy text */

struct story {
    const json *golden;
    kv_seq *seq;
    int32_t tokens[128]; /* to be fed next */
    int n_tokens;
    size_t n_made;
    bool done;
};

static void start_story(struct rig *r, struct story *s, const json *golden)
{
    const json *ids = json_get(golden, "prompt_ids");

    *s = (struct story){.golden = golden, .seq = rig_sequence(r)};
    s->n_tokens = (int)json_size(ids);
    CHECK(s->n_tokens > 0 && s->n_tokens <= (int)COUNT(s->tokens), "%d tokens", s->n_tokens);
    for (int i = 0; i < s->n_tokens; i++)
        s->tokens[i] = (int32_t)json_int(json_at(ids, (size_t)i), -1);
}

static int32_t best_token(const float *logits, int n)
{
    int best = 0;

    for (int i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

static void take_token(const char *model, struct story *s, int32_t id)
{
    const json *ids = json_get(s->golden, "ids");
    double margin = json_real(json_at(json_get(s->golden, "margin"), s->n_made), -1);
    int64_t want = json_int(json_at(ids, s->n_made), -1);

    CHECK(margin >= 0 && want >= 0, "%s: goldens.json is short", model);
    if (margin < TINY_MARGIN) {
        s->done = true;
        return;
    }
    CHECK(id == want, "%s, \"%s\": token %zu is %d, not %d (margin %g)", model,
          json_string(json_get(s->golden, "prompt"), NULL), s->n_made, (int)id, (int)want, margin);
    s->tokens[0] = id;
    s->n_tokens = 1;
    s->done = ++s->n_made == json_size(ids);
}

/* One step for all stories that are not at their end: prompts of several lengths, then single
 * tokens. */
static bool continue_stories(struct rig *r, const char *model, struct story *stories, int n)
{
    struct engine_input inputs[MAX_PROMPTS];
    struct story *moved[MAX_PROMPTS];
    const float *logits;
    clm_error err = {0};
    int n_inputs = 0;

    for (int i = 0; i < n; i++)
        if (!stories[i].done) {
            moved[n_inputs] = &stories[i];
            inputs[n_inputs++] = (struct engine_input){.seq = stories[i].seq,
                                                       .tokens = stories[i].tokens,
                                                       .n_tokens = stories[i].n_tokens,
                                                       .n_logits = 1};
        }
    if (!n_inputs)
        return false;
    CHECK(engine_step(r->engine, inputs, n_inputs, &logits, &err) == 0, "%s", err.message);
    for (int i = 0; i < n_inputs; i++)
        take_token(model, moved[i],
                   best_token(logits + (size_t)i * (size_t)r->vocab_size, r->vocab_size));
    return true;
}

static void check_greedy(const char *model)
{
    const json *greedy = json_get(golden_of(model), "greedy");
    struct rig r = open_model(model, true);
    struct story stories[MAX_PROMPTS];
    int n = (int)json_size(greedy);
    size_t n_made = 0;

    CHECK(n > 0 && n <= MAX_PROMPTS, "%d prompts", n);
    for (int i = 0; i < n; i++)
        start_story(&r, &stories[i], json_at(greedy, (size_t)i));
    while (continue_stories(&r, model, stories, n))
        ;
    for (int i = 0; i < n; i++) {
        n_made += stories[i].n_made;
        kv_seq_close(stories[i].seq);
    }
    print_message("%s: %zu greedy tokens agree\n", model, n_made);
    CHECK(n_made >= 400, "only %zu tokens were compared", n_made);
    rig_close(&r);
}

static void test_greedy(void **state)
{
    (void)state;
    SKIP_IF_NO_SHARED();
    check_greedy("storyteller");
    check_greedy("storyteller-4bit");
    check_greedy("storyteller-draft");
}

/* Perplexity */

static double surprise(const float *logits, int n, int32_t token)
{
    double sum = 0, most = -HUGE_VAL;

    for (int i = 0; i < n; i++)
        most = fmax(most, (double)logits[i]);
    for (int i = 0; i < n; i++)
        sum += exp((double)logits[i] - most);
    return log(sum) + most - (double)logits[token];
}

/* Negative log likelihood, a mean over the first n predictions, in windows that do not overlap. */
static double mean_surprise(struct rig *r, const int32_t *tokens, int n)
{
    double sum = 0;

    for (int begin = 0; begin < n; begin += WINDOW) {
        int n_rows = WINDOW < n - begin ? WINDOW : n - begin;
        struct engine_input input = {.seq = rig_sequence(r),
                                     .tokens = tokens + begin,
                                     .n_tokens = n_rows,
                                     .n_logits = n_rows};
        const float *logits;
        clm_error err = {0};

        CHECK(engine_step(r->engine, &input, 1, &logits, &err) == 0, "%s", err.message);
        for (int i = 0; i < n_rows; i++)
            sum += surprise(logits + (size_t)i * (size_t)r->vocab_size, r->vocab_size,
                            tokens[begin + i + 1]);
        kv_seq_close(input.seq);
    }
    return sum / n;
}

static struct token_list held_out(const char *model)
{
    char rest[64];
    const char *dir;
    struct token_list tokens = {0};
    clm_error err = {0};
    size_t size;
    char *text;
    tokenizer *t;

    snprintf(rest, sizeof rest, "models/%s", model);
    dir = shared_path(rest);
    CHECK(dir, "no %s", rest);
    t = tokenizer_open(dir, NULL, &err);
    CHECK(t, "%s", err.message);
    text = file_read(shared_path("models/heldout.txt"), 1 << 20, &size, &err);
    CHECK(text, "%s", err.message);
    CHECK(tokenizer_encode(t, text, size, true, &tokens, &err) == 0, "%s", err.message);
    mem_free(text);
    tokenizer_close(t);
    return tokens;
}

/* The perplexity of the whole text, or of its first 2048 tokens, is within a part of the recorded
 * one.
 */
static void check_perplexity(const char *model, bool exact, bool whole, double tolerance)
{
    const json *recorded = json_get(golden_of(model), "perplexity_float32");
    const json *all = json_get(recorded, "window_512");
    const json *g = whole ? all : json_get(recorded, "first_2048_window_512_mlx");
    int n = (int)json_int(json_get(g, "tokens"), 0);
    struct token_list tokens = held_out(model);
    struct rig r = open_model(model, exact);
    double want = exp(json_real(json_get(g, "nll"), 0)), got;

    CHECK((int)tokens.count == json_int(json_get(all, "tokens"), 0) + 1, "%zu tokens",
          tokens.count);
    got = exp(mean_surprise(&r, tokens.ids, n));
    print_message("%s%s: perplexity %.4f over %d tokens, recorded %.4f (%+.4f %%)\n", model,
                  exact ? ", exact" : "", got, n, want, 100 * (got / want - 1));
    CHECK(fabs(got / want - 1) <= tolerance, "%s: perplexity %f, not %f", model, got, want);
    token_list_release(&tokens);
    rig_close(&r);
}

/* The whole text where that takes seconds. Without exactness activations may be quantised, which
 * the first windows show as well. */
static void test_perplexity(void **state)
{
    (void)state;
    SKIP_IF_NO_SHARED();
    check_perplexity("storyteller", true, !TEST_IS_SLOW, 1e-3);
    check_perplexity("storyteller-4bit", true, !TEST_IS_SLOW, 1e-3);
    check_perplexity("storyteller", false, false, 2e-3);
    check_perplexity("storyteller-4bit", false, false, 2e-3);
    check_perplexity("storyteller-draft", true, false, 1e-3);
}

static int open_goldens(void **state)
{
    const char *path = shared_path("models/goldens.json");
    clm_error err = {0};

    (void)state;
    if (!path)
        return 0;
    goldens = json_parse_file(path, &err);
    return goldens ? 0 : -1;
}

static int close_goldens(void **state)
{
    (void)state;
    json_free(goldens);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_perplexity),
    };

    return cmocka_run_group_tests(tests, open_goldens, close_goldens);
}
