#include "generate/perplexity.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "generate/logits.h"
#include "generate/logprob_file.h"
#include "generate/score.h"
#include "generate/statistics.h"

enum { WINDOWS_TEXT = 128 };

struct measuring {
    engine *e;
    const struct perplexity_options *o;
    const int32_t *tokens; /* [n] */
    size_t n;
    int32_t *begun; /* tokens [n] with begin tokens, or NULL */
    struct score_text *windows;
    size_t n_windows;
    long long total; /* predictions */
    char how[WINDOWS_TEXT];
    struct statistics nll;
    struct divergences *unlike;
    float *base;         /* a row of the base's, [vocab_size] */
    uint16_t *codes;     /* a row for the file, [vocab_size] */
    file_writer *writer; /* while it is written */
};

static int check_request(const struct measuring *m, clm_error *err)
{
    const struct perplexity_windows *w = &m->o->windows;
    int length = engine_model(m->e)->spec->context_length;

    if (m->n < 2 || m->n > INT32_MAX)
        return fail(err, CLM_ERR_ARG, "a text of %zu tokens; perplexity needs from 2 to %d", m->n,
                    INT32_MAX);
    if (w->window < 1 || w->window == INT32_MAX || (length > 0 && w->window > length))
        return fail(err, CLM_ERR_ARG, "a window of %d tokens; this model takes from 1 to %d",
                    w->window, length > 0 ? length : INT32_MAX - 1);
    if (w->stride < 1 || w->stride > w->window + 1)
        return fail(err, CLM_ERR_ARG, "a stride of %d tokens; windows of %d take from 1 to %d",
                    w->stride, w->window, w->window + 1);
    if (w->skip < 0 || w->skip >= w->window)
        return fail(err, CLM_ERR_ARG, "%d predictions passed over of a window of %d", w->skip,
                    w->window);
    if (w->begin_token >= 0 && w->stride <= w->window)
        return fail(err, CLM_ERR_ARG, "begin tokens in windows that overlap");
    return 0;
}

/* Window after window, until one reaches the end of the text. */
static void cut(struct measuring *m)
{
    const struct perplexity_windows *w = &m->o->windows;
    const int32_t *tokens = m->begun ? m->begun : m->tokens;
    size_t foretold = 0; /* tokens before it */

    m->n_windows = 0;
    m->total = 0;
    for (size_t begin = 0; foretold < m->n; begin += (size_t)w->stride) {
        size_t end = begin + (size_t)w->window + 1, first = begin + 1 + (size_t)w->skip;

        if (end > m->n && w->whole_only)
            break;
        end = end < m->n ? end : m->n;
        first = first > foretold ? first : foretold;
        first = first < end ? first : end;
        if (begin + 1 < end) {
            m->windows[m->n_windows++] =
                (struct score_text){tokens + begin, (int)(end - begin), (int)(first - begin)};
            m->total += (long long)(end - first);
        }
        foretold = end;
    }
}

static int prepare(struct measuring *m, clm_error *err)
{
    const struct perplexity_windows *w = &m->o->windows;
    size_t vocab_size = (size_t)engine_model(m->e)->spec->vocab_size;

    m->windows = mem_zeroed(m->n / (size_t)w->stride + 1, sizeof *m->windows);
    m->base = mem_zeroed(vocab_size, sizeof *m->base);
    m->codes = mem_zeroed(vocab_size, sizeof *m->codes);
    if (w->begin_token >= 0)
        m->begun = mem_zeroed(m->n, sizeof *m->begun);
    if (!m->windows || !m->base || !m->codes || (w->begin_token >= 0 && !m->begun))
        return fail(err, CLM_ERR_NOMEM, "no memory for the windows of %zu tokens", m->n);
    if (m->begun)
        memcpy(m->begun, m->tokens, m->n * sizeof *m->begun);
    for (size_t i = 0; m->begun && i < m->n; i += (size_t)w->stride)
        m->begun[i] = w->begin_token;
    cut(m);
    if (m->total < 1)
        return fail(err, CLM_ERR_ARG,
                    "nothing of a text of %zu tokens is foretold in windows of %d; choose smaller "
                    "ones",
                    m->n, w->window);
    snprintf(m->how, sizeof m->how, "window %d, stride %d, skip %d, begin token %d%s", w->window,
             w->stride, w->skip, (int)w->begin_token, w->whole_only ? ", whole" : "");
    return 0;
}

static int add_row(void *ctx, size_t text, int i, const float *logits, int32_t best, clm_error *err)
{
    struct measuring *m = ctx;
    int vocab_size = engine_model(m->e)->spec->vocab_size;
    double log_sum = logits_log_sum_exp(logits, vocab_size, logits[best]);
    int32_t token = m->windows[text].tokens[i];

    if (m->unlike) {
        logprob_file_row(m->o->base, (size_t)m->nll.n, m->base);
        divergences_add(m->unlike, m->base, logits, best, log_sum, token);
    }
    statistics_add(&m->nll, log_sum - (double)logits[token]);
    if (!m->writer)
        return 0;
    logprob_encode(m->codes, logits, vocab_size, log_sum);
    return file_writer_write(m->writer, m->codes, (size_t)vocab_size * sizeof *m->codes, err);
}

static bool go_on(void *ctx)
{
    const struct measuring *m = ctx;

    return !m->o->progress || m->o->progress(m->o->ctx, (int)m->nll.n, (int)m->total);
}

static int measure(struct measuring *m, clm_error *err)
{
    struct score_sink sink = {m, add_row, go_on};

    return score_texts(m->e, m->windows, m->n_windows, &sink, err);
}

static int measure_into(void *ctx, const struct checkpoint_tensor *t, file_writer *w,
                        clm_error *err)
{
    struct measuring *m = ctx;

    (void)t;
    m->writer = w;
    return measure(m, err);
}

/* After prepare. */
static int run(struct measuring *m, clm_error *err)
{
    const struct perplexity_options *o = m->o;
    int vocab_size = engine_model(m->e)->spec->vocab_size;
    size_t rows = (size_t)m->total;

    if (o->base && logprob_file_check(o->base, m->tokens, m->n, vocab_size, m->how, rows, err))
        return -1;
    if (o->base && !(m->unlike = divergences_open(m->total, vocab_size, err)))
        return -1;
    return o->save ? logprob_file_write(o->save, m->tokens, m->n, vocab_size, m->how, rows,
                                        measure_into, m, err)
                   : measure(m, err);
}

int perplexity_measure(struct perplexity *p, engine *e, const int32_t *tokens, size_t n,
                       const struct perplexity_options *o, clm_error *err)
{
    struct measuring m = {.e = e, .o = o, .tokens = tokens, .n = n};
    int rc = check_request(&m, err) || prepare(&m, err) || run(&m, err) ? -1 : 0;

    if (rc == 0) {
        *p = (struct perplexity){.predictions = m.nll.n,
                                 .nll = m.nll.mean,
                                 .perplexity = exp(m.nll.mean),
                                 .standard_error = exp(m.nll.mean) * statistics_error(&m.nll)};
        if (m.unlike)
            divergences_result(m.unlike, &p->unlike);
    }
    divergences_close(m.unlike);
    mem_free(m.windows);
    mem_free(m.begun);
    mem_free(m.base);
    mem_free(m.codes);
    return rc;
}
