#include "generate/perplexity.h"

#include <math.h>

#include "generate/logits.h"

/* Logits are kept for a step at a time: not more than this many bytes of them. */
#define MAX_LOGITS ((size_t)64 << 20)

/* Mean and sum of squared deviations, updated number by number (Welford 1962). */
struct statistics {
    long long n;
    double mean, squares;
};

static void statistics_add(struct statistics *s, double x)
{
    double before = x - s->mean;

    s->n++;
    s->mean += before / (double)s->n;
    s->squares += before * (x - s->mean);
}

static int add_row(struct statistics *s, const float *logits, int vocab_size, int32_t token,
                   clm_error *err)
{
    int32_t best = logits_argmax(logits, vocab_size);

    if (best < 0)
        return fail(err, CLM_ERR_FORMAT,
                    "the model's logits are not finite; its weights may be "
                    "damaged or of a type it cannot run in");
    statistics_add(s, logits_log_sum_exp(logits, vocab_size, logits[best]) - (double)logits[token]);
    return 0;
}

/* Rows of one step: what the engine takes and what the bound on logits allows. */
static int step_rows(engine *e)
{
    size_t row = (size_t)engine_model(e)->spec->vocab_size * sizeof(float);
    size_t rows = MAX_LOGITS / row > 0 ? MAX_LOGITS / row : 1;

    return rows < (size_t)engine_max_rows(e) ? (int)rows : engine_max_rows(e);
}

/* n predictions: tokens[0..n) are read, tokens[1..n] foretold. */
static int measure_window(struct statistics *s, engine *e, const int32_t *tokens, int n,
                          clm_error *err)
{
    int vocab_size = engine_model(e)->spec->vocab_size;
    int rows = step_rows(e), rc = 0;
    kv_seq *seq = kv_seq_open(engine_cache(e), err);

    if (!seq)
        return -1;
    for (int i = 0; rc == 0 && i < n; i += rows) {
        int count = n - i < rows ? n - i : rows;
        struct engine_input input = {seq, tokens + i, count, count};
        const float *logits;

        rc = engine_step(e, &input, 1, &logits, err);
        for (int k = 0; rc == 0 && k < count; k++)
            rc = add_row(s, logits + (size_t)k * (size_t)vocab_size, vocab_size, tokens[i + k + 1],
                         err);
    }
    kv_seq_close(seq);
    return rc;
}

static int check_request(engine *e, const int32_t *tokens, size_t n, int window, clm_error *err)
{
    int length = engine_model(e)->spec->context_length;
    int vocab_size = engine_model(e)->spec->vocab_size;

    if (n < 2 || n > INT32_MAX)
        return fail(err, CLM_ERR_ARG, "a text of %zu tokens; perplexity needs from 2 to %d", n,
                    INT32_MAX);
    if (window < 1 || (length > 0 && window > length))
        return fail(err, CLM_ERR_ARG, "a window of %d tokens; this model takes from 1 to %d",
                    window, length > 0 ? length : INT32_MAX);
    for (size_t i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= vocab_size)
            return fail(err, CLM_ERR_ARG, "token %d is outside the model's vocabulary of %d",
                        (int)tokens[i], vocab_size);
    return 0;
}

int perplexity_measure(struct perplexity *p, engine *e, const int32_t *tokens, size_t n, int window,
                       bool (*progress)(void *ctx, int done, int total), void *ctx, clm_error *err)
{
    struct statistics s = {0};
    int total = (int)n - 1;

    if (check_request(e, tokens, n, window, err))
        return -1;
    for (int done = 0; done < total;) {
        int count = total - done < window ? total - done : window;

        if (measure_window(&s, e, tokens + done, count, err))
            return -1;
        done += count;
        if (progress && !progress(ctx, done, total))
            return fail(err, CLM_ERR_CANCELLED, "stopped after %d of %d tokens", done, total);
    }
    p->predictions = s.n;
    p->nll = s.mean;
    p->perplexity = exp(s.mean);
    p->standard_error =
        s.n > 1 ? p->perplexity * sqrt(s.squares / (double)(s.n - 1) / (double)s.n) : 0;
    return 0;
}
