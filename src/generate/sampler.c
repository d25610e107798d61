#include "generate/sampler.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "generate/filter.h"
#include "generate/logits.h"
#include "generate/rng.h"

struct sampler {
    struct sampler_options options; /* its arrays are copies, owned */
    int vocab_size;
    struct rng rng;
    float *processed; /* [vocab_size] logits after biases and penalties; NULL without any */
    uint8_t *seen;    /* [vocab_size] zero between calls */
    struct candidate *candidates; /* [vocab_size]; NULL when greedy */
    struct weighted *scratch;     /* [vocab_size] */
};

struct sampler_options sampler_defaults(void)
{
    return (struct sampler_options){
        .min_tokens_to_keep = 1,
        .xtc_threshold = 0.1,
        .repetition.context = 20,
        .presence.context = 20,
        .frequency.context = 20,
    };
}

static int check_range(const char *name, double value, double low, double high, clm_error *err)
{
    if (value >= low && value <= high)
        return 0;
    return fail(err, CLM_ERR_ARG, "%s must be from %g to %g, not %g", name, low, high, value);
}

static int check_penalty(const char *name, struct penalty p, double low, clm_error *err)
{
    if (!(p.value >= low) || !isfinite(p.value))
        return fail(err, CLM_ERR_ARG, "the %s penalty must be a finite number%s, not %g", name,
                    low >= 0 ? " of 0 or more" : "", p.value);
    if (p.context < 0)
        return fail(err, CLM_ERR_ARG, "the context of the %s penalty must be 0 or more, not %d",
                    name, p.context);
    return 0;
}

static int check_tokens(const struct sampler_options *o, int vocab_size, clm_error *err)
{
    for (int i = 0; i < o->n_logit_bias; i++) {
        struct logit_bias b = o->logit_bias[i];

        if (b.token < 0 || b.token >= vocab_size)
            return fail(err, CLM_ERR_ARG, "logit bias for token %d: the vocabulary has %d tokens",
                        (int)b.token, vocab_size);
        if (isnan(b.bias) || b.bias == INFINITY)
            return fail(err, CLM_ERR_ARG, "logit bias for token %d must be a number below infinity",
                        (int)b.token);
    }
    return 0;
}

int sampler_check(const struct sampler_options *o, int vocab_size, clm_error *err)
{
    if (!(o->temp >= 0) || !isfinite(o->temp))
        return fail(err, CLM_ERR_ARG, "temp must be a finite number of 0 or more, not %g", o->temp);
    if (check_range("top_p", o->top_p, 0, 1, err) || check_range("min_p", o->min_p, 0, 1, err) ||
        check_range("xtc_probability", o->xtc_probability, 0, 1, err) ||
        check_range("xtc_threshold", o->xtc_threshold, 0, 0.5, err))
        return -1;
    if (o->min_tokens_to_keep < 1)
        return fail(err, CLM_ERR_ARG, "min_tokens_to_keep must be 1 or more, not %d",
                    o->min_tokens_to_keep);
    if (o->top_k < 0 || (o->temp > 0 && o->top_k >= vocab_size))
        return fail(err, CLM_ERR_ARG, "top_k must be below the vocabulary's %d tokens, not %d",
                    vocab_size, o->top_k);
    if (check_penalty("repetition", o->repetition, 0, err) ||
        check_penalty("presence", o->presence, -DBL_MAX, err) ||
        check_penalty("frequency", o->frequency, -DBL_MAX, err))
        return -1;
    return check_tokens(o, vocab_size, err);
}

static bool processes(const struct sampler_options *o)
{
    return o->n_logit_bias > 0 || o->repetition.value != 0 || o->presence.value != 0 ||
           o->frequency.value != 0;
}

/* A copy of n items of the given size; NULL for none. *ok becomes false without memory. */
static void *copy_array(const void *array, int n, size_t size, bool *ok)
{
    void *copy = n > 0 ? mem_zeroed((size_t)n, size) : NULL;

    if (copy)
        memcpy(copy, array, (size_t)n * size);
    *ok &= copy || n == 0;
    return copy;
}

static bool sampler_allocate(sampler *s, const struct sampler_options *o)
{
    size_t n = (size_t)s->vocab_size;
    bool ok = true;

    s->options.xtc_special = copy_array(o->xtc_special, o->n_xtc_special, sizeof(int32_t), &ok);
    s->options.logit_bias =
        copy_array(o->logit_bias, o->n_logit_bias, sizeof(struct logit_bias), &ok);
    if (processes(o)) {
        s->processed = mem_zeroed(n, sizeof *s->processed);
        s->seen = mem_zeroed(n, sizeof *s->seen);
        ok &= s->processed && s->seen;
    }
    if (o->temp > 0) {
        s->candidates = mem_zeroed(n, sizeof *s->candidates);
        s->scratch = mem_zeroed(n, sizeof *s->scratch);
        ok &= s->candidates && s->scratch;
    }
    return ok;
}

sampler *sampler_open(const struct sampler_options *o, int vocab_size, clm_error *err)
{
    sampler *s;

    if (vocab_size < 1)
        return fail_null(err, CLM_ERR_ARG, "a vocabulary of %d tokens", vocab_size);
    if (sampler_check(o, vocab_size, err))
        return NULL;
    s = mem_zeroed(1, sizeof *s);
    if (!s)
        return fail_null(err, CLM_ERR_NOMEM, "no memory for a sampler");
    s->options = *o;
    s->vocab_size = vocab_size;
    rng_seed(&s->rng, o->seed);
    if (!sampler_allocate(s, o)) {
        sampler_close(s);
        return fail_null(err, CLM_ERR_NOMEM, "no memory to sample from %d tokens", vocab_size);
    }
    return s;
}

void sampler_close(sampler *s)
{
    if (!s)
        return;
    mem_free((void *)s->options.xtc_special);
    mem_free((void *)s->options.logit_bias);
    mem_free(s->processed);
    mem_free(s->seen);
    mem_free(s->candidates);
    mem_free(s->scratch);
    mem_free(s);
}

/* The part of the history that a penalty looks at. */
static const int32_t *penalty_window(struct penalty p, const int32_t *history, size_t *n)
{
    size_t context = p.context > 0 && (size_t)p.context < *n ? (size_t)p.context : *n;

    history += *n - context;
    *n = context;
    return history;
}

static float repeated(float logit, double penalty)
{
    return logit < 0 ? logit * (float)penalty : logit / (float)penalty;
}

/* Changes the logit of every token in the window, of each once. */
static void penalise_once(float *logits, int vocab_size, struct penalty p, bool repetition,
                          const int32_t *history, size_t n, uint8_t *seen)
{
    if (p.value == 0 || n == 0)
        return;
    history = penalty_window(p, history, &n);
    for (size_t i = 0; i < n; i++) {
        int32_t t = history[i];

        if (t < 0 || t >= vocab_size || seen[t])
            continue;
        seen[t] = 1;
        logits[t] = repetition ? repeated(logits[t], p.value) : logits[t] - (float)p.value;
    }
    for (size_t i = 0; i < n; i++)
        if (history[i] >= 0 && history[i] < vocab_size)
            seen[history[i]] = 0;
}

static void penalise_each(float *logits, int vocab_size, struct penalty p, const int32_t *history,
                          size_t n)
{
    if (p.value == 0 || n == 0)
        return;
    history = penalty_window(p, history, &n);
    for (size_t i = 0; i < n; i++)
        if (history[i] >= 0 && history[i] < vocab_size)
            logits[history[i]] -= (float)p.value;
}

void sampler_process(const struct sampler_options *o, float *logits, int vocab_size,
                     const int32_t *history, size_t n_history, uint8_t *seen)
{
    for (int i = 0; i < o->n_logit_bias; i++)
        logits[o->logit_bias[i].token] += o->logit_bias[i].bias;
    penalise_once(logits, vocab_size, o->repetition, true, history, n_history, seen);
    penalise_once(logits, vocab_size, o->presence, false, history, n_history, seen);
    penalise_each(logits, vocab_size, o->frequency, history, n_history);
}

void sampler_filter(const struct sampler_options *o, struct candidates *c, bool xtc)
{
    if (o->top_p > 0 && o->top_p < 1)
        filter_top_p(c, o->top_p);
    if (o->min_p > 0)
        filter_min_p(c, o->min_p, o->min_tokens_to_keep);
    if (xtc)
        filter_xtc(c, o->xtc_threshold, o->xtc_special, o->n_xtc_special);
    if (o->top_k > 0)
        filter_top_k(c, o->top_k);
}

/* All tokens that are possible at all, with their log-probabilities. */
static struct candidates all_candidates(sampler *s, const float *logits, float log_sum)
{
    struct candidates c = {.items = s->candidates, .scratch = s->scratch};

    for (int i = 0; i < s->vocab_size; i++) {
        float logprob = logits[i] - log_sum;

        if (logprob > -INFINITY)
            c.items[c.n++] = (struct candidate){.id = i, .logprob = logprob};
    }
    return c;
}

/* A candidate with the probability of its weight. */
static const struct candidate *draw(struct rng *rng, const struct candidates *c, double sum)
{
    double target = rng_unit(rng) * sum, below = 0;
    const struct candidate *last = c->items;

    for (int i = 0; i < c->n; i++) {
        if (c->items[i].weight <= 0)
            continue;
        last = &c->items[i];
        below += (double)last->weight;
        if (below > target)
            break;
    }
    return last;
}

static void sample_from(sampler *s, const float *logits, float log_sum, struct sample *out)
{
    const struct sampler_options *o = &s->options;
    struct candidates c = all_candidates(s, logits, log_sum);
    bool xtc = o->xtc_probability > 0 && !(rng_unit(&s->rng) > o->xtc_probability);
    const struct candidate *chosen;

    sampler_filter(o, &c, xtc);
    chosen = draw(&s->rng, &c, candidates_weigh(&c, o->temp));
    *out = (struct sample){chosen->id, chosen->logprob};
}

int sampler_next(sampler *s, const float *logits, const int32_t *history, size_t n_history,
                 struct sample *out, clm_error *err)
{
    int32_t best;
    float log_sum;

    if (s->processed) {
        memcpy(s->processed, logits, (size_t)s->vocab_size * sizeof *logits);
        sampler_process(&s->options, s->processed, s->vocab_size, history, n_history, s->seen);
        logits = s->processed;
    }
    best = logits_argmax(logits, s->vocab_size);
    if (best < 0)
        return fail(err, CLM_ERR_FORMAT,
                    "the model's logits are not finite; its weights may be damaged "
                    "or of a type it cannot run in");
    *out = (struct sample){best, NAN};
    if (s->options.temp <= 0 && !s->options.logprobs)
        return 0;
    log_sum = (float)logits_log_sum_exp(logits, s->vocab_size, logits[best]);
    if (s->options.temp > 0)
        sample_from(s, logits, log_sum, out);
    else
        out->logprob = logits[best] - log_sum;
    return 0;
}
