/* Perplexity in windows of every kind, and files of log-probabilities, against their definitions in
 * plain loops. */
#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/temporary.h"
#include "generate/bundled.h"
#include "generate/logprob_file.h"
#include "generate/perplexity.h"
#include "generate/score.h"

enum { N = 150 };

static struct bundled b;
static int32_t tokens[N];

/* The logits [n, vocab_size] after each of n tokens from number begin on, with first in place of
 * the first of them. Valid until the next call. */
static const float *window_of(int begin, int n, int32_t first)
{
    int32_t read[N];
    struct engine_input input = {.tokens = read, .n_tokens = n, .n_logits = n};
    clm_error err = {0};
    const float *logits = NULL;

    memcpy(read, tokens + begin, (size_t)n * sizeof *read);
    read[0] = first;
    input.seq = kv_seq_open(engine_cache(b.engine), &err);
    CHECK(input.seq && !engine_step(b.engine, &input, 1, &logits, &err), "%s", err.message);
    kv_seq_close(input.seq);
    return logits;
}

static const float *row_of(const float *logits, int i)
{
    return logits + (size_t)i * (size_t)b.model->spec->vocab_size;
}

static double logprob_of(const float *logits, int32_t token)
{
    double sum = 0;

    for (int k = 0; k < b.model->spec->vocab_size; k++)
        sum += exp((double)logits[k]);
    return (double)logits[token] - log(sum);
}

/* As transformers' guide has it: windows of max_length tokens; of each the labels count that no
 * window before has had, and the first label of a window has no prediction. */
static double guide(int n, int max_length, int stride, int *count)
{
    double sum = 0;
    int before = 0;

    *count = 0;
    for (int begin = 0; begin < n; begin += stride) {
        int end = begin + max_length < n ? begin + max_length : n;
        const float *logits = window_of(begin, end - begin, tokens[begin]);

        for (int i = before > begin + 1 ? before : begin + 1; i < end; i++, ++*count)
            sum -= logprob_of(row_of(logits, i - 1 - begin), tokens[i]);
        before = end;
        if (end == n)
            break;
    }
    return sum / *count;
}

/* As llama.cpp has it: whole chunks, the first token replaced, what follows its middle counts. */
static double second_halves(int n, int chunk, int32_t begin_token, int *count)
{
    double sum = 0;

    *count = 0;
    for (int begin = 0; begin + chunk <= n; begin += chunk) {
        const float *logits = window_of(begin, chunk, begin_token);

        for (int j = chunk / 2; j < chunk - 1; j++, ++*count)
            sum -= logprob_of(row_of(logits, j), tokens[begin + j + 1]);
    }
    return sum / *count;
}

static void measure(struct perplexity *p, int n, const struct perplexity_options *o)
{
    clm_error err = {0};

    CHECK(!perplexity_measure(p, b.engine, tokens, (size_t)n, o, &err), "%s", err.message);
}

static void test_windows(void **state)
{
    static const struct {
        int max_length, stride;
    } cases[] = {{20, 20}, {20, 19}, {20, 7}, {2, 1}, {2, 2}, {33, 1}, {200, 50}, {149, 149}};

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        int n = i == 5 ? 50 : N - (int)i, length = cases[i].max_length, stride = cases[i].stride;
        struct perplexity_options o = {.windows = {length - 1, stride, 0, -1, false}};
        struct perplexity p;
        int count;
        double want = guide(n, length, stride, &count);

        measure(&p, n, &o);
        CHECK(p.predictions == count && fabs(p.nll - want) < 1e-5,
              "windows of %d, stride %d: %g nats of %lld, not %g of %d", length, stride, p.nll,
              p.predictions, want, count);
    }
}

static void test_chunks(void **state)
{
    (void)state;
    for (int chunk = 4; chunk < 80; chunk += 25) {
        struct perplexity_options o = {.windows = {chunk - 1, chunk, chunk / 2, 5, true}};
        struct perplexity p;
        int count;
        double want = second_halves(N, chunk, 5, &count);

        measure(&p, N, &o);
        CHECK(p.predictions == count && fabs(p.nll - want) < 1e-5,
              "chunks of %d: %g nats of %lld, not %g of %d", chunk, p.nll, p.predictions, want,
              count);
    }
}

/* What the sink of many texts at once is told, by text and token. */
struct told {
    float *logits; /* [N, vocab_size], by token */
    int n;
    size_t last;
};

static int on_row(void *ctx, size_t text, int i, const float *logits, int32_t best, clm_error *err)
{
    struct told *t = ctx;
    size_t vocab_size = (size_t)b.model->spec->vocab_size;

    (void)i;
    (void)err;
    CHECK(best >= 0 && text >= t->last, "text %zu after %zu", text, t->last);
    t->last = text;
    memcpy(t->logits + (size_t)t->n++ * vocab_size, logits, vocab_size * sizeof *logits);
    return 0;
}

/* A ragged batch gives each of its texts the bits that it has alone, also in a cache with room for
 * a few blocks only. */
static void test_batches(void **state)
{
    static const struct score_text texts[] = {{tokens, 9, 3},       {tokens + 1, 1, 1},
                                              {tokens + 2, 40, 40}, {tokens + 3, 60, 59},
                                              {tokens, N, 120},     {tokens + 5, 2, 1}};
    size_t vocab_size = (size_t)b.model->spec->vocab_size;
    struct engine_options small = {.exact = true, .max_rows = 32};
    struct told t = {.logits = malloc(N * vocab_size * sizeof(float))};
    struct score_sink sink = {.ctx = &t, .row = on_row};
    clm_error err = {0};

    (void)state;
    CHECK(t.logits, "no memory");
    for (int round = 0; round < 2; round++) {
        engine *e = b.engine;
        int row = 0;

        if (round == 1) {
            small.cache_bytes = 170 * kv_cache_bytes_per_token(engine_cache(b.engine));
            e = engine_open(b.model, &small, &err);
            CHECK(e, "%s", err.message);
        }
        t.n = 0;
        t.last = 0;
        CHECK(!score_texts(e, texts, COUNT(texts), &sink, &err), "%s", err.message);
        for (size_t i = 0; i < COUNT(texts); i++) {
            int begin = (int)(texts[i].tokens - tokens), n = texts[i].n - texts[i].first;
            const float *want = window_of(begin, texts[i].n, tokens[begin]);

            CHECK(!memcmp(row_of(want, texts[i].first - 1), row_of(t.logits, row),
                          (size_t)n * vocab_size * sizeof *want),
                  "text %zu: other bits", i);
            row += n;
        }
        CHECK(row == t.n, "%d rows, not %d", t.n, row);
        CHECK(kv_cache_bytes_used(engine_cache(e)) == 0, "blocks are left");
        if (e != b.engine)
            engine_close(e);
    }
    free(t.logits);
}

static void test_refusals(void **state)
{
    static const struct perplexity_windows bad[] = {
        {0, 1, 0, -1, false},   {1 << 20, 1, 0, -1, false}, {8, 0, 0, -1, false},
        {8, 10, 0, -1, false},  {8, 8, 8, -1, false},       {8, 8, 0, 5, false},
        {200, 200, 0, -1, true}};

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct perplexity_options o = {.windows = bad[i]};
        struct perplexity p;
        clm_error err = {0};

        CHECK(perplexity_measure(&p, b.engine, tokens, N, &o, &err) && err.code == CLM_ERR_ARG,
              "%zu: error %d", i, err.code);
    }
}

/* sum_i p_i log(p_i / q_i) in doubles. */
static double divergence_of(const float *p, const float *q)
{
    int n = b.model->spec->vocab_size;
    double p_sum = 0, q_sum = 0, sum = 0;

    for (int i = 0; i < n; i++) {
        p_sum += exp((double)p[i]);
        q_sum += exp((double)q[i]);
    }
    for (int i = 0; i < n; i++)
        sum +=
            exp((double)p[i]) / p_sum * ((double)p[i] - log(p_sum) - ((double)q[i] - log(q_sum)));
    return sum;
}

static int by_size(const void *x, const void *y)
{
    return (*(const double *)x > *(const double *)y) - (*(const double *)x < *(const double *)y);
}

/* The draft model is compared with the bundled one, and that with itself. The file's steps move a
 * log p by 1/4096 at most, and a divergence by that of all of them together; a mean by less. */
static void test_divergence(void **state)
{
    enum { PLACES = 60 };
    const char *path = shared_path("models/storyteller-draft");
    struct perplexity_options save = {.windows = {PLACES, PLACES, 0, -1, false}}, compare = save;
    size_t vocab_size = (size_t)b.model->spec->vocab_size;
    float *p = malloc(PLACES * vocab_size * sizeof *p);
    const float *q;
    char file[2048];
    struct bundled ours = b, other;
    struct logprob_file base;
    struct perplexity one, two;
    double want[PLACES], mean = 0, base_nll = 0;
    int same_top = 0;
    clm_error err = {0};

    (void)state;
    if (!path) {
        print_message("no models/storyteller-draft\n");
        skip();
    }
    CHECK(p, "no memory");
    snprintf(file, sizeof file, "%s", temporary_path("base"));
    save.save = file;
    measure(&one, PLACES + 1, &save);
    CHECK(!logprob_file_open(&base, file, &err), "%s", err.message);
    compare.base = &base;
    measure(&two, PLACES + 1, &compare);
    CHECK(two.unlike.mean < 1e-7 && two.unlike.max < 1e-6 && two.unlike.same_top == 1 &&
              fabs(two.unlike.log_ratio) < 1e-4 && fabs(two.unlike.base_nll - one.nll) < 1e-4,
          "unlike itself: %g, at most %g", two.unlike.mean, two.unlike.max);
    other = bundled_open(path);
    CHECK(other.model->spec->vocab_size == (int)vocab_size, "another vocabulary");
    memcpy(p, window_of(0, PLACES, tokens[0]), PLACES * vocab_size * sizeof *p);
    b = other;
    q = window_of(0, PLACES, tokens[0]);
    for (int i = 0; i < PLACES; i++) {
        const float *rows[] = {row_of(p, i), row_of(q, i)};
        int32_t best[] = {0, 0};

        base_nll -= logprob_of(rows[0], tokens[i + 1]) / PLACES;
        want[i] = divergence_of(rows[0], rows[1]);
        mean += want[i] / PLACES;
        for (int32_t k = 0; k < (int32_t)vocab_size; k++)
            for (int m = 0; m < 2; m++)
                best[m] = rows[m][k] > rows[m][best[m]] ? k : best[m];
        same_top += best[0] == best[1];
    }
    measure(&two, PLACES + 1, &compare);
    b = ours;
    bundled_close(&other);
    qsort(want, PLACES, sizeof *want, by_size);
    CHECK(fabs(two.unlike.mean - mean) < 1e-4 &&
              fabs(two.unlike.median - want[PLACES / 2 - 1]) < 1e-3 &&
              fabs(two.unlike.p99 - want[PLACES - 1]) < 1e-3 &&
              fabs(two.unlike.max - want[PLACES - 1]) < 1e-3,
          "mean %g, median %g, most %g; not %g, %g, %g", two.unlike.mean, two.unlike.median,
          two.unlike.max, mean, want[PLACES / 2 - 1], want[PLACES - 1]);
    CHECK(fabs(two.unlike.base_nll - base_nll) < 1e-3 &&
              fabs(two.unlike.log_ratio - (two.nll - base_nll)) < 1e-3,
          "base %g nats, not %g", two.unlike.base_nll, base_nll);
    CHECK(fabs(two.unlike.same_top * PLACES - same_top) < 0.5, "same top %g, not %d of %d",
          two.unlike.same_top, same_top, PLACES);
    logprob_file_close(&base);
    free(p);
}

static bool stop(void *ctx, int done, int total)
{
    (void)ctx;
    (void)done;
    (void)total;
    return false;
}

static void check_refused(size_t n, const struct perplexity_options *o, const char *words)
{
    struct perplexity p;
    clm_error err = {0};

    CHECK(perplexity_measure(&p, b.engine, tokens, n, o, &err) && err.code == CLM_ERR_FORMAT &&
              strstr(err.message, words),
          "%s: %s", words, err.message);
}

/* A file of anything else is refused; what is not finished leaves the old file. */
static void test_files(void **state)
{
    struct perplexity_options save = {.windows = {20, 20, 0, -1, false}}, o = save;
    char file[2048];
    struct logprob_file base;
    struct perplexity p;
    clm_error err = {0};
    int32_t kept = tokens[7];
    int n_files;

    (void)state;
    snprintf(file, sizeof file, "%s", temporary_path("file"));
    save.save = file;
    measure(&p, 60, &save);
    n_files = temporary_count();
    save.progress = stop;
    CHECK(perplexity_measure(&p, b.engine, tokens, 90, &save, &err) &&
              err.code == CLM_ERR_CANCELLED && temporary_count() == n_files,
          "%s", err.message);
    CHECK(!logprob_file_open(&base, file, &err), "%s", err.message);
    o.base = &base;
    measure(&p, 60, &o);
    check_refused(61, &o, "of a text of 60 tokens");
    tokens[7] = kept == 5 ? 6 : 5;
    check_refused(60, &o, "another text: token 7");
    tokens[7] = kept;
    o.windows.stride = 19;
    check_refused(60, &o, "other windows");
    base.vocab_size--;
    check_refused(60, &o, "vocabulary");
    logprob_file_close(&base);
}

static void test_failing_allocations(void **state)
{
    char file[2048];
    bool failed = true;

    (void)state;
    snprintf(file, sizeof file, "%s", temporary_path("failing"));
    for (long n = 0; failed; n++) {
        struct perplexity_options o = {.windows = {10, 10, 0, -1, false}, .save = file};
        struct perplexity p;
        long live = mem_live();
        clm_error err = {0};
        int rc;

        mem_fail_after(n);
        rc = perplexity_measure(&p, b.engine, tokens, 40, &o, &err);
        failed = mem_fail_after(-1);
        CHECK(!rc == !err.code && (!rc || err.code == CLM_ERR_NOMEM), "allocation %ld: %s", n,
              err.message);
        CHECK(mem_live() == live, "%ld blocks are left", mem_live() - live);
    }
}

static int set_up(void **state)
{
    b = bundled_open(BUNDLED_MODEL);
    for (int i = 0; i < N; i++)
        tokens[i] = (int32_t)(random_below((size_t)b.model->spec->vocab_size));
    return temporary_setup(state);
}

static int tear_down(void **state)
{
    bundled_close(&b);
    return temporary_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_batches),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_divergence),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_failing_allocations),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
