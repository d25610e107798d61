/* What drafters say, by themselves. */
#include "testing.h"

#include <string.h>

#include "base/memory.h"
#include "generate/bundled.h"
#include "generate/drafter.h"

#define MAX_IDS 3000

static int32_t ids[MAX_IDS];

/* The longest part of at least 2 tokens that ends somewhere before the text's end as that does. */
static int longest_agreement(int n)
{
    int best = 0;

    for (int end = 1; end < n - 1; end++) {
        int length = 0;

        while (length <= end && ids[end - length] == ids[n - 1 - length])
            length++;
        best = length > best ? length : best;
    }
    return best >= 2 ? best : 0;
}

/* Whether the drafts are what comes after some earlier place with the same so many tokens. */
static bool continues(const struct draft_job *job, int length, int n)
{
    for (int end = 1; end < n - 1; end++) {
        bool same = end + 1 >= length;

        for (int k = 0; same && k < length; k++)
            same = ids[end - k] == ids[n - 1 - k];
        for (int i = 0; same && i < job->possible; i++) {
            int at = end + 1 + i;

            same = job->drafts[i] == (at < n ? ids[at] : job->drafts[at - n]);
        }
        if (same)
            return true;
    }
    return false;
}

/* Texts of few and many words, copies in them, growing by several tokens at a time. */
static void test_lookup(void **state)
{
    clm_error err = {0};
    drafter *d = drafter_open_lookup(&err);
    int found = 0, longest = 0;

    (void)state;
    CHECK(d, "%s", err.message);
    for (int round = 0; round < 40; round++) {
        draft_text *t = drafter_open_text(d, NULL, &err);
        size_t words = round % 2 ? 1000 : 2 + random_below(30);
        int n = 0, most = 50 + (int)random_below(MAX_IDS / 4);

        CHECK(t, "%s", err.message);
        while (n < most) {
            struct draft_job job = {.text = t, .ids = ids};
            int more = 1 + (int)random_below(20), from = (int)random_below((size_t)n + 1), want,
                least;
            bool copy = random_below(2);

            for (int i = 0; i < more && n < most; i++, n++)
                ids[n] = copy && from + i < n ? ids[from + i] : (int32_t)random_below(words);
            job.n_ids = n;
            drafter_look(d, &job);
            want = longest_agreement(n);
            CHECK((job.possible > 0) == (want > 0) || words < 1000, "%d possible, %d tokens agree",
                  job.possible, want);
            if (job.possible == 0)
                continue;
            /* With many words there are few places, so that one that agrees in 5 is found. */
            least = words < 1000 || want < 5 ? 2 : 5;
            CHECK(continues(&job, least, n), "drafts that continue nothing; %d agree", want);
            found++;
            longest = want > longest ? want : longest;
        }
        drafter_close_text(d, t);
    }
    CHECK(found > 100 && longest > 10, "%d found, the longest %d", found, longest);
    drafter_close(d);
}

/* Unknown tokens, as a cache from a file may leave them, are neither matched nor proposed. */
static void test_unknown(void **state)
{
    static const int32_t text[] = {-1, -1, 5, 6, -1, 7, 5, 6};
    clm_error err = {0};
    drafter *d = drafter_open_lookup(&err);
    draft_text *t = d ? drafter_open_text(d, NULL, &err) : NULL;
    struct draft_job job = {.text = t, .ids = text};

    (void)state;
    CHECK(t, "%s", err.message);
    for (job.n_ids = 1; job.n_ids <= (int)COUNT(text); job.n_ids++) {
        drafter_look(d, &job);
        CHECK(job.possible == 0, "%d of %d possible", job.possible, job.n_ids);
    }
    drafter_close_text(d, t);
    drafter_close(d);
}

/* A drafter without memory has no drafts, and no error. */
static void test_memory(void **state)
{
    int without = 0;

    (void)state;
    for (int i = 0; i < MAX_IDS; i++)
        ids[i] = i % 7;
    for (long n = 0;; n++) {
        clm_error err = {0};
        drafter *d;
        draft_text *t;
        struct draft_job job = {.ids = ids, .n_ids = MAX_IDS};

        mem_fail_after(n);
        d = drafter_open_lookup(&err);
        t = d ? drafter_open_text(d, NULL, &err) : NULL;
        CHECK(t || err.code == CLM_ERR_NOMEM, "%s", err.message);
        job.text = t;
        if (t)
            drafter_look(d, &job);
        without += t && job.possible == 0;
        if (t)
            drafter_close_text(d, t);
        drafter_close(d);
        if (!mem_fail_after(-1))
            break;
    }
    CHECK(without >= 4, "only %d without memory for the text", without);
}

/* The bundled model guesses for itself: what it draws it foresees, through changes of the text and
 * for several texts at once. */
static void test_model(void **state)
{
    enum { TEXTS = 3, DRAFTS = 5 };
    struct bundled b = bundled_open(BUNDLED_MODEL);
    int vocab_size = b.model->spec->vocab_size;
    clm_error err = {0};
    drafter *d = drafter_open_model(b.engine, vocab_size, &err);
    struct sampler_options o = sampler_defaults();
    struct draft_job jobs[TEXTS], *all[TEXTS];
    sampler *samplers[TEXTS];
    int32_t texts[TEXTS][200];

    (void)state;
    CHECK(d, "%s", err.message);
    o.temp = 1;
    for (int i = 0; i < TEXTS; i++) {
        o.seed = (uint64_t)i;
        samplers[i] = sampler_open(&o, vocab_size, &err);
        CHECK(samplers[i], "%s", err.message);
        jobs[i] = (struct draft_job){.text = drafter_open_text(d, samplers[i], &err),
                                     .ids = texts[i],
                                     .n_ids = 1 + 40 * i,
                                     .sampler = samplers[i]};
        CHECK(jobs[i].text, "%s", err.message);
        all[i] = &jobs[i];
        for (int k = 0; k < jobs[i].n_ids; k++)
            texts[i][k] = (int32_t)random_below((size_t)vocab_size);
    }
    for (int round = 0; round < 6; round++) {
        for (int i = 0; i < TEXTS; i++) {
            drafter_look(d, &jobs[i]);
            CHECK(jobs[i].possible >= DRAFTS, "%d possible", jobs[i].possible);
            jobs[i].n_drafts = 1 + (i + round) % DRAFTS;
            jobs[i].whole = true;
        }
        drafter_propose(d, all, TEXTS);
        for (int i = 0; i < TEXTS; i++) {
            struct draft_job *job = &jobs[i];
            kv_seq *seq = kv_seq_open(engine_cache(b.engine), &err);
            int n = 1 + (i + round) % DRAFTS, right = 0;

            CHECK(seq && job->n_drafts == n, "%d drafts, not %d", job->n_drafts, n);
            /* Follow all but the last of them; that place takes another token. */
            for (int k = 0; k < n; k++) {
                const float *logits;
                struct sample got;

                CHECK(!engine_prefill(b.engine, seq, texts[i] + kv_seq_length(seq),
                                      job->n_ids - kv_seq_length(seq), 0, NULL, NULL, &logits,
                                      &err) &&
                          !sampler_next(samplers[i], logits, texts[i], (size_t)job->n_ids, &got,
                                        &err),
                      "%s", err.message);
                right += got.token == job->drafts[k];
                texts[i][job->n_ids++] = k < n - 1 ? got.token : (got.token + 1) % vocab_size;
            }
            CHECK(right == n, "text %d, round %d: %d of %d drafts are what is drawn", i, round,
                  right, n);
            kv_seq_close(seq);
        }
    }
    for (int i = 0; i < TEXTS; i++) {
        drafter_close_text(d, jobs[i].text);
        sampler_close(samplers[i]);
    }
    CHECK(kv_cache_bytes_used(engine_cache(b.engine)) == 0, "blocks left");
    drafter_close(d);
    bundled_close(&b);
}

/* The token that the model says after the tokens at the end of ids [n], so many of them. */
static int32_t after(const struct bundled *b, sampler *s, int n, int tokens)
{
    clm_error err = {0};
    kv_seq *seq = kv_seq_open(engine_cache(b->engine), &err);
    const float *logits;
    struct sample got;

    CHECK(seq &&
              !engine_prefill(b->engine, seq, ids + n - tokens, tokens, 0, NULL, NULL, &logits,
                              &err) &&
              !sampler_next(s, logits, ids, (size_t)n, &got, &err),
          "%s", err.message);
    kv_seq_close(seq);
    return got.token;
}

/* A drafter of which not all of a text is wanted reads the last tokens, and goes on from them;
 * what has become much since then it does not read either. All is read when that is wanted. */
static void test_tail(void **state)
{
    static const struct {
        int n_ids;
        bool whole;
        int tail, behind; /* to be read */
        int reads;        /* tokens that the draft follows from */
    } steps[] = {
        {100, false, 24, 100, 24}, {110, false, 10, 110, 34}, {200, false, 24, 200, 24},
        {210, true, 10, 210, 210}, {260, false, 50, 50, 260}, {400, false, 24, 140, 24},
        {401, true, 1, 401, 401},
    };
    struct bundled b = bundled_open(BUNDLED_MODEL);
    int vocab_size = b.model->spec->vocab_size;
    clm_error err = {0};
    drafter *d = drafter_open_model(b.engine, vocab_size, &err);
    struct sampler_options greedy = sampler_defaults();
    sampler *s = sampler_open(&greedy, vocab_size, &err);
    draft_text *t = d && s ? drafter_open_text(d, s, &err) : NULL;
    struct draft_job job = {.text = t, .ids = ids, .sampler = s}, *jobs[] = {&job};

    (void)state;
    CHECK(t, "%s", err.message);
    for (int i = 0; i < MAX_IDS; i++)
        ids[i] = (int32_t)random_below((size_t)vocab_size);
    for (size_t i = 0; i < COUNT(steps); i++) {
        job.n_ids = steps[i].n_ids;
        drafter_look(d, &job);
        CHECK(job.tail == steps[i].tail && job.behind == steps[i].behind,
              "step %zu: %d and %d to read", i, job.tail, job.behind);
        job.n_drafts = 1;
        job.whole = steps[i].whole;
        drafter_propose(d, jobs, 1);
        CHECK(job.n_drafts == 1 && job.drafts[0] == after(&b, s, job.n_ids, steps[i].reads),
              "step %zu: %d drafts, %d", i, job.n_drafts, job.drafts[0]);
    }
    drafter_close_text(d, t);
    sampler_close(s);
    drafter_close(d);
    bundled_close(&b);
}

static tokenizer *parse(const char *vocab)
{
    char text[300];
    clm_error err = {0};
    int n = snprintf(text, sizeof text,
                     "{\"model\": {\"type\": \"WordLevel\", \"unk_token\": \"a\", \"vocab\": %s}}",
                     vocab);
    tokenizer *t = tokenizer_parse(text, (size_t)n, NULL, 0, "test", &err);

    CHECK(t, "%s", err.message);
    return t;
}

static void test_tokenizers(void **state)
{
    static const struct {
        const char *vocab, *says; /* NULL: the same */
    } cases[] = {
        {"{\"a\": 0, \"b\": 1, \"c\": 2}", NULL},
        {"{\"a\": 0, \"c\": 1, \"b\": 2}", "token 1 is \"c\", and \"b\" of the model"},
        {"{\"a\": 0, \"b\": 1}", "token 2 is \"(none)\", and \"c\""},
        {"{\"a\": 0, \"b\": 1, \"c\": 2, \"d\": 3}", "token 3 is \"d\", and \"(none)\""},
    };
    tokenizer *model = parse(cases[0].vocab);

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        tokenizer *draft = parse(cases[i].vocab);
        clm_error err = {0};
        int rc = drafter_check_tokenizers(model, draft, &err);

        CHECK((rc == 0) == !cases[i].says, "case %zu: %d", i, rc);
        CHECK(rc == 0 || (err.code == CLM_ERR_ARG && strstr(err.message, cases[i].says)),
              "case %zu: %s", i, err.message);
        tokenizer_close(draft);
    }
    tokenizer_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lookup), cmocka_unit_test(test_unknown),
        cmocka_unit_test(test_memory), cmocka_unit_test(test_model),
        cmocka_unit_test(test_tail),   cmocka_unit_test(test_tokenizers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
