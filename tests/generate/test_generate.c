/* One prompt to a stream of tokens, end tokens, and perplexity. */
#include "testing.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/temporary.h"
#include "format/json.h"
#include "generate/bundled.h"
#include "generate/end_tokens.h"
#include "generate/generate.h"
#include "generate/perplexity.h"

static struct bundled b;

/* What the callbacks saw, and when they are to say stop. */
struct seen {
    struct strbuf text;
    struct token_list tokens;
    int calls, progress_calls, last_done;
    int stop_after;      /* the token callback returns false after so many; 0: never */
    int interrupt_after; /* interrupted says true at so many questions; 0: never */
    int questions;
};

static void on_progress(void *ctx, int done, int total)
{
    struct seen *s = ctx;

    CHECK(done > s->last_done && done <= total, "progress from %d to %d of %d", s->last_done, done,
          total);
    s->last_done = done;
    s->progress_calls++;
}

static bool on_interrupted(void *ctx)
{
    struct seen *s = ctx;

    return s->interrupt_after && ++s->questions >= s->interrupt_after;
}

static bool on_token(void *ctx, const struct generated *g)
{
    struct seen *s = ctx;

    strbuf_add(&s->text, g->text, g->size);
    token_list_add(&s->tokens, g->token);
    return ++s->calls != s->stop_after;
}

static void seen_release(struct seen *s)
{
    strbuf_release(&s->text);
    token_list_release(&s->tokens);
    *s = (struct seen){0};
}

static struct generate_options options_for(struct seen *s, int max_tokens)
{
    return (struct generate_options){
        .max_tokens = max_tokens,
        .ctx = s,
        .progress = on_progress,
        .interrupted = on_interrupted,
        .token = on_token,
    };
}

static int run(const int32_t *prompt, size_t n, const struct generate_options *o,
               struct generate_result *r, clm_error *err)
{
    struct sampler_options greedy = sampler_defaults();
    sampler *s = sampler_open(&greedy, b.model->spec->vocab_size, err);
    kv_seq *seq = kv_seq_open(engine_cache(b.engine), err);
    int rc;

    CHECK(s && seq, "%s", err->message);
    rc = generate(b.engine, seq, s, b.tokenizer, prompt, n, o, r, err);
    kv_seq_close(seq);
    sampler_close(s);
    return rc;
}

static struct token_list prompt_of(const char *text)
{
    struct token_list ids = {0};
    clm_error err = {0};

    CHECK(!tokenizer_encode(b.tokenizer, text, strlen(text), true, &ids, &err), "%s", err.message);
    return ids;
}

static void test_length(void **state)
{
    struct token_list prompt = prompt_of("Once upon a time");
    struct seen s = {0};
    struct generate_options o = options_for(&s, 20);
    struct generate_result r;
    struct strbuf decoded = {0};
    clm_error err = {0};

    (void)state;
    CHECK(!run(prompt.ids, prompt.count, &o, &r, &err), "%s", err.message);
    CHECK(r.finish == FINISH_LENGTH && r.generated_tokens == 20, "%s after %d",
          finish_reason_name(r.finish), r.generated_tokens);
    CHECK(r.prompt_tokens == (int)prompt.count && s.last_done == r.prompt_tokens, "prompt of %d",
          r.prompt_tokens);
    CHECK(s.calls == 20 && r.prompt_seconds > 0 && r.generation_seconds > 0, "%d calls", s.calls);
    /* The law of streaming: the segments make the text of all the tokens. */
    CHECK(!tokenizer_decode(b.tokenizer, s.tokens.ids, s.tokens.count, false, &decoded, &err), "%s",
          err.message);
    CHECK(decoded.size == s.text.size && !memcmp(decoded.data, s.text.data, s.text.size),
          "segments make \"%s\", not \"%s\"", s.text.data, decoded.data);
    strbuf_release(&decoded);
    token_list_release(&prompt);
    seen_release(&s);
}

/* The prompt's chunks do not change what follows. */
static void test_chunks(void **state)
{
    static const int chunks[] = {0, 1, 3, 7};
    struct token_list prompt = prompt_of("Once upon a time, there was a little fox who");
    struct seen all[COUNT(chunks)] = {0};

    (void)state;
    for (size_t i = 0; i < COUNT(chunks); i++) {
        struct generate_options o = options_for(&all[i], 12);
        struct generate_result r;
        clm_error err = {0};
        int steps = chunks[i] ? ((int)prompt.count + chunks[i] - 1) / chunks[i] : 1;

        o.prefill_step_size = chunks[i];
        CHECK(!run(prompt.ids, prompt.count, &o, &r, &err), "%s", err.message);
        CHECK(all[i].progress_calls == steps, "chunks of %d: %d steps", chunks[i],
              all[i].progress_calls);
        CHECK(!memcmp(all[i].tokens.ids, all[0].tokens.ids, 12 * sizeof(int32_t)),
              "chunks of %d give other tokens", chunks[i]);
    }
    for (size_t i = 0; i < COUNT(chunks); i++)
        seen_release(&all[i]);
    token_list_release(&prompt);
}

/* The third token made an end token: it counts, and has no text. */
static void test_end_token(void **state)
{
    struct token_list prompt = prompt_of("Once upon a time"), end = {0};
    struct seen free_run = {0}, s = {0};
    struct generate_options o = options_for(&free_run, 8);
    struct generate_result r;
    clm_error err = {0};
    size_t first = 0;

    (void)state;
    CHECK(!run(prompt.ids, prompt.count, &o, &r, &err), "%s", err.message);
    token_list_add(&end, free_run.tokens.ids[2]);
    while (free_run.tokens.ids[first] != end.ids[0])
        first++;
    o = options_for(&s, 8);
    o.end_tokens = &end;
    CHECK(!run(prompt.ids, prompt.count, &o, &r, &err), "%s", err.message);
    CHECK(r.finish == FINISH_STOP && r.generated_tokens == (int)first + 1, "%s after %d",
          finish_reason_name(r.finish), r.generated_tokens);
    CHECK(s.text.size < free_run.text.size &&
              !memcmp(s.text.data ? s.text.data : "", free_run.text.data, s.text.size),
          "\"%s\" is not the beginning of \"%s\"", s.text.data, free_run.text.data);
    seen_release(&s);
    seen_release(&free_run);
    token_list_release(&end);
    token_list_release(&prompt);
}

static void test_cancelled(void **state)
{
    struct token_list prompt = prompt_of("Once upon a time, there was a little fox who");
    struct seen s = {.stop_after = 3};
    struct generate_options o = options_for(&s, 50);
    struct generate_result r;
    clm_error err = {0};

    (void)state;
    CHECK(!run(prompt.ids, prompt.count, &o, &r, &err), "%s", err.message);
    CHECK(r.finish == FINISH_CANCELLED && s.calls == 3, "%d calls", s.calls);
    seen_release(&s);

    /* Once after the prompt, then once a token. */
    s = (struct seen){.interrupt_after = 5};
    CHECK(!run(prompt.ids, prompt.count, &o, &r, &err), "%s", err.message);
    CHECK(r.finish == FINISH_CANCELLED && s.calls == 4, "%d calls", s.calls);
    seen_release(&s);

    /* In the middle of the prompt: no token at all. */
    s = (struct seen){.interrupt_after = 2};
    o.prefill_step_size = 3;
    CHECK(!run(prompt.ids, prompt.count, &o, &r, &err), "%s", err.message);
    CHECK(r.finish == FINISH_CANCELLED && s.calls == 0 && s.last_done == 6, "%d calls", s.calls);
    seen_release(&s);
    token_list_release(&prompt);
}

static void test_context(void **state)
{
    int length = b.model->spec->context_length;
    int32_t *ids = mem_zeroed((size_t)length + 1, sizeof *ids);
    struct seen s = {0};
    struct generate_options o = options_for(&s, 50);
    struct generate_result r;
    clm_error err = {0};

    (void)state;
    CHECK(ids && length > 16, "context of %d", length);
    for (int i = 0; i <= length; i++)
        ids[i] = 300 + i % 1000;
    CHECK(run(ids, (size_t)length + 1, &o, &r, &err) && err.code == CLM_ERR_FULL,
          "a prompt of %d was taken", length + 1);
    CHECK(s.progress_calls == 0, "a prompt that does not fit was evaluated");

    /* Room for three more: four tokens are chosen, of which the last is not appended. */
    err = (clm_error){0};
    CHECK(!run(ids, (size_t)length - 3, &o, &r, &err), "%s", err.message);
    CHECK(r.finish == FINISH_LENGTH && r.generated_tokens == 4, "%s after %d",
          finish_reason_name(r.finish), r.generated_tokens);
    seen_release(&s);
    mem_free(ids);
}

static void test_bad_requests(void **state)
{
    static const int32_t outside[] = {1 << 30};
    struct seen s = {0};
    struct generate_options o = options_for(&s, 5);
    struct generate_result r;
    clm_error err = {0};

    (void)state;
    CHECK(run(outside, 0, &o, &r, &err) && err.code == CLM_ERR_ARG, "an empty prompt was taken");
    err = (clm_error){0};
    CHECK(run(outside, 1, &o, &r, &err) && err.code == CLM_ERR_ARG, "token 2^30 was taken");
    err = (clm_error){0};
    o.max_tokens = 0;
    CHECK(run(outside, 1, &o, &r, &err) && err.code == CLM_ERR_ARG, "max_tokens 0 was taken");
}

static void test_end_tokens(void **state)
{
    struct token_list list = {0};
    clm_error err = {0};
    size_t size;
    const char *spelling = tokenizer_token(b.tokenizer, 100, &size);

    (void)state;
    CHECK(!end_tokens_load(&list, BUNDLED_MODEL, b.tokenizer, &err), "%s", err.message);
    CHECK(end_tokens_have(&list, 1) && end_tokens_have(&list, 3) && !end_tokens_have(&list, 100),
          "%zu end tokens", list.count);
    CHECK(!end_tokens_add(&list, b.tokenizer, "17", &err) && end_tokens_have(&list, 17), "%s",
          err.message);
    CHECK(!end_tokens_add(&list, b.tokenizer, spelling, &err) && end_tokens_have(&list, 100), "%s",
          err.message);
    CHECK(end_tokens_add(&list, b.tokenizer, "no such token", &err) && err.code == CLM_ERR_ARG,
          "an unknown token was taken");
    err = (clm_error){0};
    CHECK(end_tokens_add(&list, b.tokenizer, "99999999", &err) && err.code == CLM_ERR_ARG,
          "an unknown id was taken");
    token_list_release(&list);
}

/* The end tokens that a folder with these files names; NULL: no such file. */
static void check_configs(const char *base, const char *generation, const int32_t *want, size_t n)
{
    struct token_list list = {0};
    clm_error err = {0};

    temporary_clear();
    if (base)
        temporary_write("config.json", base);
    if (generation)
        temporary_write("generation_config.json", generation);
    CHECK(!end_tokens_load(&list, temporary_folder, b.tokenizer, &err), "%s", err.message);
    for (int32_t id = 0; id < 50; id++) {
        bool wanted = id == tokenizer_role(b.tokenizer, TOKEN_EOS);

        for (size_t k = 0; k < n; k++)
            wanted |= want[k] == id;
        CHECK(end_tokens_have(&list, id) == wanted, "%s, %s: token %d", base ? base : "-",
              generation ? generation : "-", id);
    }
    token_list_release(&list);
}

static void test_end_tokens_of_configs(void **state)
{
    static const int32_t seven[] = {7}, two[] = {8, 9};
    struct token_list list = {0};
    clm_error err = {0};

    (void)state;
    check_configs("{\"eos_token_id\": 7}", NULL, seven, 1);
    check_configs("{\"eos_token_id\": [8, 9]}", "{}", two, 2);
    check_configs("{\"eos_token_id\": 7}", "{\"eos_token_id\": [8, 9]}", two, 2);
    check_configs("{\"text_config\": {\"eos_token_id\": 7}}", NULL, seven, 1);
    check_configs("{\"eos_token_id\": null}", NULL, NULL, 0);
    check_configs(NULL, "{\"eos_token_id\": 7}", seven, 1);
    temporary_clear();
    temporary_write("config.json", "{\"eos_token_id\": \"seven\"}");
    CHECK(end_tokens_load(&list, temporary_folder, b.tokenizer, &err) &&
              err.code == CLM_ERR_FORMAT && strstr(err.message, "eos_token_id"),
          "an end token that is a word was taken: %s", err.message);
    token_list_release(&list);
}

/* Valid until the next call. */
static const struct perplexity_options *in_windows(int n)
{
    static struct perplexity_options o;

    o.windows = (struct perplexity_windows){.window = n, .stride = n, .begin_token = -1};
    return &o;
}

/* Perplexity of token ids against the sum over single steps. */
static void test_perplexity(void **state)
{
    struct token_list ids = prompt_of("The fox ran to the river and saw a fish. It was big.");
    struct perplexity whole, cut;
    clm_error err = {0};
    double nll = 0;

    (void)state;
    CHECK(!perplexity_measure(&whole, b.engine, ids.ids, ids.count, in_windows(512), &err), "%s",
          err.message);
    CHECK(whole.predictions == (long long)ids.count - 1, "%lld predictions", whole.predictions);
    for (size_t i = 0; i + 1 < ids.count; i++) {
        kv_seq *seq = kv_seq_open(engine_cache(b.engine), &err);
        const float *logits;
        double sum = 0;

        CHECK(!engine_prefill(b.engine, seq, ids.ids, (int)i + 1, 0, NULL, NULL, &logits, &err),
              "%s", err.message);
        for (int k = 0; k < b.model->spec->vocab_size; k++)
            sum += exp((double)logits[k]);
        nll += log(sum) - (double)logits[ids.ids[i + 1]];
        kv_seq_close(seq);
    }
    nll /= (double)(ids.count - 1);
    CHECK(fabs(nll - whole.nll) < 1e-4 && fabs(exp(nll) - whole.perplexity) < 1e-2,
          "%g nats, not %g", whole.nll, nll);
    CHECK(whole.standard_error > 0, "standard error %g", whole.standard_error);

    /* Windows of one token know nothing but that token. */
    CHECK(!perplexity_measure(&cut, b.engine, ids.ids, ids.count, in_windows(1), &err), "%s",
          err.message);
    CHECK(cut.predictions == whole.predictions && cut.nll > whole.nll, "%g nats in windows of 1",
          cut.nll);
    CHECK(perplexity_measure(&cut, b.engine, ids.ids, 1, in_windows(1), &err) &&
              err.code == CLM_ERR_ARG,
          "one token was taken");
    err = (clm_error){0};
    CHECK(perplexity_measure(&cut, b.engine, ids.ids, ids.count, in_windows(1 << 20), &err) &&
              err.code == CLM_ERR_ARG,
          "a window beyond the context was taken");
    token_list_release(&ids);
}

/* The recorded perplexity of the first 2048 tokens of the held-out text, within a thousandth. */
static void test_recorded_perplexity(void **state)
{
    static const char *const names[] = {"storyteller", "storyteller-4bit", "storyteller-draft"};
    const char *goldens = shared_path("models/goldens.json");
    const char *heldout = shared_path("models/heldout.txt");
    json *file;
    clm_error err = {0};

    (void)state;
    if (!goldens || !heldout) {
        print_message(
            "no models/goldens.json: set CLM_SHARED to the folder of the shared goldens\n");
        skip();
    }
    file = json_parse_file(goldens, &err);
    CHECK(file, "%s", err.message);
    for (size_t i = 0; i < COUNT(names); i++) {
        char path[64];
        const json *entry = json_get(json_get(file, "models"), names[i]);
        const json *want =
            json_get(json_get(entry, "perplexity_float32"), "first_2048_window_512_mlx");
        struct token_list ids = {0};
        struct perplexity got;
        struct bundled m;
        size_t size;
        char *text = file_read(heldout, 1 << 24, &size, &err);

        snprintf(path, sizeof path, "models/%s", names[i]);
        m = bundled_open(shared_path(path));
        CHECK(text && !tokenizer_encode(m.tokenizer, text, size, true, &ids, &err), "%s",
              err.message);
        CHECK(!perplexity_measure(&got, m.engine, ids.ids, 2049, in_windows(512), &err), "%s",
              err.message);
        CHECK(fabs(got.nll - json_real(json_get(want, "nll"), 0)) < 1e-3, "%s: %g nats, not %g",
              names[i], got.nll, json_real(json_get(want, "nll"), 0));
        mem_free(text);
        token_list_release(&ids);
        bundled_close(&m);
    }
    json_free(file);
}

static int open_all(void **state)
{
    b = bundled_open(BUNDLED_MODEL);
    return temporary_setup(state);
}

static int close_all(void **state)
{
    bundled_close(&b);
    return temporary_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_length),     cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_end_token),  cmocka_unit_test(test_cancelled),
        cmocka_unit_test(test_context),    cmocka_unit_test(test_bad_requests),
        cmocka_unit_test(test_end_tokens), cmocka_unit_test(test_end_tokens_of_configs),
        cmocka_unit_test(test_perplexity), cmocka_unit_test(test_recorded_perplexity),
    };

    return cmocka_run_group_tests(tests, open_all, close_all);
}
