/* Many requests in one loop: what each is told, how each can end, and who waits for whom. */
#include "testing.h"

#include <string.h>

#include "base/memory.h"
#include "generate/bundled.h"
#include "generate/scheduler.h"

static struct bundled b;

/* One request and what became of it. */
struct seen {
    request *request;
    sampler *sampler;
    struct strbuf text;
    struct token_list tokens;
    int calls, steps_told, last_done; /* steps_told: of progress */
    bool done, last;
    struct generate_result result;
    clm_error err;
    int forbidden; /* token that the processor forbids; -1: it fails; 0: none */
    int cancel_at; /* tokens */
};

static bool on_token(void *ctx, const struct generated *g)
{
    struct seen *s = ctx;

    CHECK(!s->last && !s->done, "a token after the last");
    strbuf_add(&s->text, g->text, g->size);
    token_list_add(&s->tokens, g->token);
    s->last = g->last;
    if (++s->calls == s->cancel_at)
        request_cancel(s->request);
    return true;
}

static void on_progress(void *ctx, int done, int total)
{
    struct seen *s = ctx;

    CHECK(done > s->last_done && done <= total && s->calls == 0, "%d of %d", done, total);
    s->last_done = done;
    s->steps_told++;
}

static int process(void *ctx, float *logits, int vocab_size, const int32_t *history, size_t n,
                   clm_error *err)
{
    struct seen *s = ctx;

    CHECK(vocab_size == b.model->spec->vocab_size && n >= s->tokens.count, "%zu tokens", n);
    for (size_t i = 0; i < s->tokens.count; i++)
        CHECK(history[n - s->tokens.count + i] == s->tokens.ids[i], "history %zu", i);
    if (s->forbidden < 0)
        return s->calls == 2 ? fail(err, CLM_ERR_UNSUPPORTED, "no more of this") : 0;
    logits[s->forbidden] = -1e9f;
    return 0;
}

static void on_done(void *ctx, const struct generate_result *r, const clm_error *err)
{
    struct seen *s = ctx;

    CHECK(!s->done && (r->finish == FINISH_ERROR) == (err != NULL), "done twice, or no error");
    s->done = true;
    s->result = *r;
    if (err)
        s->err = *err;
}

static scheduler *open_scheduler(engine *e, int max_running, int step_tokens, int prompt_share)
{
    struct scheduler_options o = {
        .max_running = max_running, .step_tokens = step_tokens, .prompt_share = prompt_share};
    clm_error err = {0};
    scheduler *s = scheduler_open(e, &o, &err);

    CHECK(s, "%s", err.message);
    return s;
}

static struct request_options options_for(struct seen *s, const struct token_list *prompt,
                                          int max_tokens)
{
    struct sampler_options greedy = sampler_defaults();
    clm_error err = {0};

    s->sampler = sampler_open(&greedy, b.model->spec->vocab_size, &err);
    CHECK(s->sampler, "%s", err.message);
    return (struct request_options){
        .prompt = prompt->ids,
        .n_prompt = prompt->count,
        .sampler = s->sampler,
        .tokenizer = b.tokenizer,
        .generate = {.max_tokens = max_tokens,
                     .ctx = s,
                     .token = on_token,
                     .progress = on_progress,
                     .process = s->forbidden ? process : NULL},
        .ctx = s,
        .done = on_done,
    };
}

static void submit(scheduler *s, struct seen *seen, const struct request_options *o)
{
    clm_error err = {0};

    seen->request = scheduler_submit(s, o, &err);
    CHECK(seen->request, "%s", err.message);
}

static void seen_release(struct seen *s)
{
    strbuf_release(&s->text);
    token_list_release(&s->tokens);
    sampler_close(s->sampler);
    *s = (struct seen){0};
}

static struct token_list prompt_of(const char *text)
{
    struct token_list ids = {0};
    clm_error err = {0};

    CHECK(!tokenizer_encode(b.tokenizer, text, strlen(text), true, &ids, &err), "%s", err.message);
    return ids;
}

static void run_all(scheduler *s)
{
    for (int i = 0; scheduler_step(s); i++)
        CHECK(i < 10000, "it does not end");
    CHECK(kv_cache_bytes_used(engine_cache(b.engine)) == 0, "bytes are still in use");
}

/* A request alone with these stops. */
static void run_with(struct seen *seen, const char *const *stops, size_t n_stops, int max_tokens)
{
    struct token_list prompt = prompt_of("Once upon a time");
    struct request_options o = options_for(seen, &prompt, max_tokens);
    scheduler *s = open_scheduler(b.engine, 0, 0, 0);
    struct stop_set set = {0};

    for (size_t i = 0; i < n_stops; i++)
        CHECK(!stop_set_add_text(&set, stops[i], strlen(stops[i])), "no memory");
    CHECK(!stop_set_build(&set), "no memory");
    o.generate.stops = &set;
    submit(s, seen, &o);
    run_all(s);
    scheduler_close(s);
    stop_set_release(&set);
    token_list_release(&prompt);
}

/* Stops at every place of the text, of every length, wherever tokens end. */
static void test_stops(void **state)
{
    struct seen whole = {0};

    (void)state;
    run_with(&whole, NULL, 0, 20);
    CHECK(whole.result.finish == FINISH_LENGTH && whole.text.size > 40, "\"%s\"", whole.text.data);
    for (size_t at = 0; at < 24; at += 5) {
        for (size_t n = 1; n < 12; n += 4) {
            char stop[16] = "";
            const char *stops[] = {stop, "never to be seen"};
            struct seen s = {0};
            size_t first;

            memcpy(stop, whole.text.data + at, n);
            first = (size_t)(strstr(whole.text.data, stop) - whole.text.data);
            run_with(&s, stops, 2, 20);
            CHECK(s.result.finish == FINISH_STOP && s.last, "%s",
                  finish_reason_name(s.result.finish));
            CHECK(s.text.size == first &&
                      !memcmp(s.text.size ? s.text.data : "", whole.text.data, first),
                  "\"%s\" before \"%s\"", s.text.data, stop);
            CHECK(s.result.generated_tokens == s.calls && s.calls <= 20, "%d calls", s.calls);
            seen_release(&s);
        }
    }
    seen_release(&whole);
}

/* What might have become a stop comes out in the end. */
static void test_almost_a_stop(void **state)
{
    struct seen whole = {0}, s = {0};
    char stop[64];
    const char *stops[] = {stop};

    (void)state;
    run_with(&whole, NULL, 0, 9);
    snprintf(stop, sizeof stop, "%s!", whole.text.data + whole.text.size - 8);
    run_with(&s, stops, 1, 9);
    CHECK(s.result.finish == FINISH_LENGTH && !strcmp(s.text.data, whole.text.data), "\"%s\"",
          s.text.data);
    seen_release(&s);
    seen_release(&whole);
}

/* A long prompt does not hold up an answer: it gets a token in every step, none of which has more
 * of the prompt than its share; and a short prompt does not wait for the long one. */
static void test_fair(void **state)
{
    struct token_list first = prompt_of("Once upon a time"), third = prompt_of("The fox ran"),
                      second = {0};
    scheduler *s = open_scheduler(b.engine, 0, 0, 20);
    struct seen answer = {0}, reader = {0}, late = {0};
    struct request_options o = options_for(&answer, &first, 60);
    int steps = 0;

    (void)state;
    for (int i = 0; i < 300; i++)
        token_list_add(&second, 300 + i % 1000);
    submit(s, &answer, &o);
    scheduler_step(s);
    CHECK(answer.calls == 1, "%d tokens after a step", answer.calls);
    o = options_for(&reader, &second, 3);
    submit(s, &reader, &o);
    while (reader.calls == 0) {
        int before = answer.calls, done = reader.last_done;

        if (++steps == 3) {
            o = options_for(&late, &third, 3);
            submit(s, &late, &o);
        }
        CHECK(scheduler_step(s), "it ended");
        CHECK(answer.calls == before + 1, "an answer stood still");
        CHECK(reader.last_done > done && reader.last_done - done <= 20, "%d tokens of a prompt",
              reader.last_done - done);
        CHECK(steps < 4 || late.calls > 0, "a short prompt waits for a long one");
    }
    CHECK(steps <= 300 / 20 + 2, "%d steps for a prompt of 300", steps);
    run_all(s);
    CHECK(answer.done && reader.done && late.done, "not done");
    scheduler_close(s);
    seen_release(&answer);
    seen_release(&reader);
    seen_release(&late);
    token_list_release(&first);
    token_list_release(&second);
    token_list_release(&third);
}

/* More requests than a step has tokens: all go on. */
static void test_crowd(void **state)
{
    struct token_list prompt = prompt_of("The fox");
    struct seen all[12] = {0};
    scheduler *s = open_scheduler(b.engine, 5, 3, 0);

    (void)state;
    for (size_t i = 0; i < COUNT(all); i++) {
        struct request_options o = options_for(&all[i], &prompt, 4 + (int)i % 3);

        submit(s, &all[i], &o);
    }
    CHECK(scheduler_load(s).waiting == 12, "%d wait", scheduler_load(s).waiting);
    scheduler_step(s);
    CHECK(scheduler_load(s).running == 3, "%d run", scheduler_load(s).running);
    run_all(s);
    for (size_t i = 0; i < COUNT(all); i++) {
        CHECK(all[i].result.finish == FINISH_LENGTH && all[i].calls == 4 + (int)i % 3, "%d calls",
              all[i].calls);
        CHECK(!memcmp(all[i].tokens.ids, all[0].tokens.ids, 4 * sizeof(int32_t)), "request %zu", i);
    }
    for (size_t i = 0; i < COUNT(all); i++)
        seen_release(&all[i]);
    scheduler_close(s);
    token_list_release(&prompt);
}

static void test_ends(void **state)
{
    struct token_list prompt = prompt_of("Once upon a time");
    struct seen cancelled = {.cancel_at = 3}, waiting = {0}, late = {0}, slow = {0}, other = {0};
    scheduler *s = open_scheduler(b.engine, 2, 0, 0);
    struct request_options o = options_for(&cancelled, &prompt, 50);

    (void)state;
    submit(s, &cancelled, &o);
    o = options_for(&slow, &prompt, 500);
    o.generate.timeout = 0.05;
    submit(s, &slow, &o);
    o = options_for(&waiting, &prompt, 50);
    submit(s, &waiting, &o);
    o = options_for(&late, &prompt, 50);
    o.generate.timeout = 1e-9;
    submit(s, &late, &o);
    o = options_for(&other, &prompt, 6);
    submit(s, &other, &o);
    request_cancel(waiting.request);
    run_all(s);
    CHECK(cancelled.result.finish == FINISH_CANCELLED && cancelled.calls == 3, "%d calls",
          cancelled.calls);
    CHECK(waiting.result.finish == FINISH_CANCELLED && waiting.calls == 0, "%d calls",
          waiting.calls);
    CHECK(late.result.finish == FINISH_TIMEOUT && late.calls == 0, "%d calls", late.calls);
    CHECK(slow.result.finish == FINISH_TIMEOUT && slow.calls < 500, "%d calls", slow.calls);
    CHECK(other.result.finish == FINISH_LENGTH && other.calls == 6, "%d calls", other.calls);
    scheduler_close(s);
    seen_release(&cancelled);
    seen_release(&waiting);
    seen_release(&late);
    seen_release(&slow);
    seen_release(&other);
    token_list_release(&prompt);
}

/* A processor changes what is chosen; one that fails ends its request, and no other. */
static void test_processors(void **state)
{
    struct token_list prompt = prompt_of("Once upon a time");
    struct seen plain = {0}, bans = {0}, fails = {.forbidden = -1};
    scheduler *s = open_scheduler(b.engine, 0, 0, 0);
    struct request_options o = options_for(&plain, &prompt, 8);

    (void)state;
    submit(s, &plain, &o);
    run_all(s);
    bans.forbidden = plain.tokens.ids[1];
    o = options_for(&bans, &prompt, 8);
    submit(s, &bans, &o);
    o = options_for(&fails, &prompt, 8);
    submit(s, &fails, &o);
    run_all(s);
    CHECK(bans.tokens.ids[0] == plain.tokens.ids[0] && bans.calls == 8, "%d calls", bans.calls);
    for (size_t i = 0; i < bans.tokens.count; i++)
        CHECK(bans.tokens.ids[i] != bans.forbidden, "a forbidden token at %zu", i);
    CHECK(fails.result.finish == FINISH_ERROR && fails.calls == 2 &&
              fails.err.code == CLM_ERR_UNSUPPORTED && strstr(fails.err.message, "no more of this"),
          "%d calls: %s", fails.calls, fails.err.message);
    scheduler_close(s);
    seen_release(&plain);
    seen_release(&bans);
    seen_release(&fails);
    token_list_release(&prompt);
}

/* A cache for one: the second waits and gives the same; what does not fit alone fails, clearly. */
static void test_small_cache(void **state)
{
    struct token_list prompt = prompt_of("Once upon a time"), huge = {0};
    struct engine_options eo = {.exact = true};
    size_t token = kv_cache_bytes_per_token(engine_cache(b.engine));
    struct seen all[3] = {0}, large = {0};
    clm_error err = {0};
    engine *e;
    scheduler *s;

    (void)state;
    eo.cache_bytes = token * 100;
    e = engine_open(b.model, &eo, &err);
    CHECK(e, "%s", err.message);
    s = open_scheduler(e, 0, 0, 0);
    for (int i = 0; i < 200; i++)
        token_list_add(&huge, 300 + i);
    for (size_t i = 0; i < COUNT(all); i++) {
        struct request_options o = options_for(&all[i], &prompt, 50);

        submit(s, &all[i], &o);
    }
    struct request_options o = options_for(&large, &huge, 5);

    submit(s, &large, &o);
    while (scheduler_step(s))
        ;
    CHECK(scheduler_load(s).preemptions > 0, "the cache was large enough");
    for (size_t i = 0; i < COUNT(all); i++)
        CHECK(all[i].calls == 50 && all[i].result.finish == FINISH_LENGTH &&
                  !strcmp(all[i].text.data, all[0].text.data),
              "%d calls: %s", all[i].calls, all[i].err.message);
    CHECK(large.result.finish == FINISH_ERROR && large.err.code == CLM_ERR_FULL &&
              strstr(large.err.message, "raise its bound"),
          "%s", large.err.message);
    CHECK(kv_cache_bytes_used(engine_cache(e)) == 0, "bytes are still in use");
    scheduler_close(s);
    engine_close(e);
    for (size_t i = 0; i < COUNT(all); i++)
        seen_release(&all[i]);
    seen_release(&large);
    token_list_release(&huge);
    token_list_release(&prompt);
}

static void test_refused(void **state)
{
    struct token_list prompt = prompt_of("Once");
    scheduler *s = open_scheduler(b.engine, 0, 0, 0);
    struct seen seen = {0};
    struct request_options o = options_for(&seen, &prompt, 0);
    clm_error err = {0};

    (void)state;
    CHECK(!scheduler_submit(s, &o, &err) && err.code == CLM_ERR_ARG, "max_tokens 0 was taken");
    o.generate.max_tokens = 1;
    o.n_prompt = 0;
    err = (clm_error){0};
    CHECK(!scheduler_submit(s, &o, &err) && err.code == CLM_ERR_ARG, "an empty prompt was taken");
    CHECK(!scheduler_step(s) && !seen.done, "there is something left");
    scheduler_close(s);
    seen_release(&seen);
    token_list_release(&prompt);
}

/* Every allocation of a run fails in turn: an error or the usual answer, and nothing is lost. */
static void test_no_memory(void **state)
{
    struct token_list prompt = prompt_of("Once upon a time");
    struct seen usual = {0};
    bool failed = true;

    (void)state;
    run_with(&usual, NULL, 0, 4);
    for (long n = 0; failed; n++) {
        struct seen s = {0};
        struct request_options o = options_for(&s, &prompt, 4);
        clm_error err = {0};
        scheduler *loop;

        mem_fail_after(n);
        loop = scheduler_open(b.engine, NULL, &err);
        if (loop && scheduler_submit(loop, &o, &err))
            while (scheduler_step(loop))
                ;
        scheduler_close(loop);
        failed = mem_fail_after(-1);
        if (s.text.failed || s.tokens.failed)
            CHECK(failed, "no memory for the test");
        else if (s.done && s.result.finish != FINISH_ERROR)
            CHECK(s.calls == 4 && !strcmp(s.text.data, usual.text.data), "%d calls", s.calls);
        else
            CHECK((s.done ? s.err : err).code == CLM_ERR_NOMEM, "%s", err.message);
        CHECK(failed || s.result.finish == FINISH_LENGTH, "it does not end");
        CHECK(kv_cache_bytes_used(engine_cache(b.engine)) == 0, "bytes are still in use");
        seen_release(&s);
    }
    seen_release(&usual);
    token_list_release(&prompt);
}

/* Requests that come at once and begin alike: the first one reads what they share, while the others
 * wait for it, and one that begins otherwise does not. */
static void test_shared(void **state)
{
    static const char *const ends[] = {" the end", " a cat", " they all went home", " no"};
    struct prefix_limits few = {.max_entries = 8};
    clm_error err = {0};
    struct scheduler_options so = {.prefixes = prefix_index_open(b.engine, &few, &err)};
    struct token_list shared =
        prompt_of("Once upon a time there was a king who had three sons, "
                  "and the youngest of them was called Tom. One day the king "
                  "said to his sons that he was old and wanted to sleep");
    scheduler *s;

    (void)state;
    CHECK(so.prefixes && shared.count >= 32, "%s", err.message);
    for (int warm = 0; warm < 2; warm++) {
        struct seen seen[COUNT(ends) + 1] = {{0}};

        so.max_running = warm ? 0 : 2;
        s = scheduler_open(b.engine, &so, &err);
        CHECK(s, "%s", err.message);
        for (size_t i = 0; i <= COUNT(ends); i++) {
            struct token_list prompt = prompt_of(i < COUNT(ends) ? ends[i] : "A dog");
            struct token_list all = {0};

            for (size_t t = 0; t < shared.count && i < COUNT(ends); t++)
                token_list_add(&all, shared.ids[t]);
            for (size_t t = 0; t < prompt.count; t++)
                token_list_add(&all, prompt.ids[t]);
            struct request_options o = options_for(&seen[i], &all, 5);

            submit(s, &seen[i], &o);
            token_list_release(&prompt);
            token_list_release(&all);
        }
        while (scheduler_step(s))
            continue;
        scheduler_close(s);
        for (size_t i = 0; i <= COUNT(ends); i++) {
            const struct generate_result *r = &seen[i].result;
            bool first = i == 0 || i == COUNT(ends);
            int want = warm ? r->prompt_tokens - 1 : first ? 0 : (int)shared.count;

            CHECK(r->finish == FINISH_LENGTH && r->cached_tokens >= want &&
                      (want || r->cached_tokens <= 1),
                  "%zu: %d of %d tokens were there, not %d", i, r->cached_tokens, r->prompt_tokens,
                  want);
            CHECK(seen[i].last_done == r->prompt_tokens - r->cached_tokens, "progress to %d",
                  seen[i].last_done);
            seen_release(&seen[i]);
        }
    }
    prefix_index_close(so.prefixes);
    CHECK(kv_cache_bytes_used(engine_cache(b.engine)) == 0, "bytes are still in use");
    token_list_release(&shared);
}

static int open_all(void **state)
{
    (void)state;
    b = bundled_open(BUNDLED_MODEL);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    bundled_close(&b);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stops),       cmocka_unit_test(test_almost_a_stop),
        cmocka_unit_test(test_fair),        cmocka_unit_test(test_crowd),
        cmocka_unit_test(test_ends),        cmocka_unit_test(test_processors),
        cmocka_unit_test(test_small_cache), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_no_memory),   cmocka_unit_test(test_shared),
    };

    return cmocka_run_group_tests(tests, open_all, close_all);
}
