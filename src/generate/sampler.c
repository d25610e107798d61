#include "generate/sampler.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "generate/filter.h"
#include "generate/logits.h"
#include "generate/race.h"
#include "generate/rng.h"

/* The least temperature at which the roundings of log-probabilities are small beside DRAW_SLACK. */
#define LEAST_TEMP 0.05

struct sampler {
    struct sampler_options options; /* its arrays are copies, owned; but not those of dry */
    int vocab_size;
    struct rng rng;    /* as seeded: numbers are taken by the place of the token */
    uint64_t n_chosen; /* tokens before the next one, which have used their numbers */
    double surprise;   /* mirostat's: what may be drawn */
    float *processed;  /* [vocab_size] logits after biases and penalties; NULL without any */
    uint8_t *seen;     /* [vocab_size] zero between calls */
    struct dry dry;
    struct candidates candidates; /* its arrays are NULL when nothing is drawn */
    clm_token_logprob *top;       /* [n_top] */
    int n_top;
};

struct sampler_options sampler_defaults(void)
{
    return (struct sampler_options){
        .min_tokens_to_keep = 1,
        .xtc_threshold = 0.1,
        .repetition.context = 20,
        .presence.context = 20,
        .frequency.context = 20,
        .dynatemp_exponent = 1,
        .dry = {.base = 1.75, .allowed_length = 2, .last_n = -1},
        .mirostat_tau = 5,
        .mirostat_eta = 0.1,
    };
}

bool sampler_draws(const struct sampler_options *o)
{
    return o->temp > 0 || o->dynatemp_range > 0;
}

static bool has_dry(const struct sampler_options *o)
{
    return o->dry.multiplier > 0 && o->dry.last_n != 0;
}

static bool processes(const struct sampler_options *o)
{
    return o->n_logit_bias > 0 || o->repetition.value != 0 || o->presence.value != 0 ||
           o->frequency.value != 0 || has_dry(o);
}

static bool is_typical(const struct sampler_options *o)
{
    return o->typical_p > 0 && o->typical_p < 1;
}

/* Is any token left out, or the temperature made of what is left? */
static bool filters(const struct sampler_options *o)
{
    return o->top_n_sigma > 0 || is_typical(o) || (o->top_p > 0 && o->top_p < 1) || o->min_p > 0 ||
           o->xtc_probability > 0 || o->top_k > 0 || o->mirostat || o->dynatemp_range > 0;
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

static bool allocate_candidates(struct candidates *c, size_t n, bool keys)
{
    c->ids = mem_zeroed(n, sizeof *c->ids);
    c->logprobs = mem_zeroed(n, sizeof *c->logprobs);
    c->weights = mem_zeroed(n, sizeof *c->weights);
    c->scratch = mem_zeroed(n, sizeof *c->scratch);
    c->keys = keys ? mem_zeroed(n, sizeof *c->keys) : NULL;
    return c->ids && c->logprobs && c->weights && c->scratch && (c->keys || !keys);
}

static bool sampler_allocate(sampler *s, const struct sampler_options *o)
{
    size_t n = (size_t)s->vocab_size;
    bool ok = true;

    s->options.xtc_special = copy_array(o->xtc_special, o->n_xtc_special, sizeof(int32_t), &ok);
    s->options.logit_bias = copy_array(o->logit_bias, o->n_logit_bias, sizeof(clm_logit_bias), &ok);
    if (processes(o)) {
        s->processed = mem_zeroed(n, sizeof *s->processed);
        s->seen = mem_zeroed(n, sizeof *s->seen);
        ok &= s->processed && s->seen;
    }
    if (has_dry(o))
        ok &= dry_init(&s->dry, &o->dry, s->vocab_size, NULL) == 0;
    if (sampler_draws(o))
        ok &= allocate_candidates(&s->candidates, n, is_typical(o));
    if (s->n_top > 0) {
        s->top = mem_zeroed((size_t)s->n_top, sizeof *s->top);
        ok &= s->top != NULL;
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
    s->surprise = 2 * o->mirostat_tau;
    s->n_top = o->top_logprobs < vocab_size ? o->top_logprobs : vocab_size;
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
    dry_release(&s->dry);
    mem_free(s->candidates.ids);
    mem_free(s->candidates.logprobs);
    mem_free(s->candidates.weights);
    mem_free(s->candidates.scratch);
    mem_free(s->candidates.keys);
    mem_free(s->top);
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
    if (o->top_n_sigma > 0)
        filter_top_n_sigma(c, o->top_n_sigma);
    if (is_typical(o))
        filter_typical(c, o->typical_p);
    if (o->top_p > 0 && o->top_p < 1)
        filter_top_p(c, o->top_p);
    if (o->min_p > 0)
        filter_min_p(c, o->min_p, o->min_tokens_to_keep);
    if (xtc)
        filter_xtc(c, o->xtc_threshold, o->xtc_special, o->n_xtc_special);
    if (o->top_k > 0)
        filter_top_k(c, o->top_k);
}

bool sampler_cut(const struct sampler_options *o, bool xtc, int vocab_size, struct cut *cut)
{
    *cut = (struct cut){
        .min_p = o->min_tokens_to_keep > 1 ? 0 : o->min_p,
        .top_p = o->top_p > 0 ? o->top_p : 1,
        .top_k = o->top_k > 0 && !xtc ? o->top_k : INT32_MAX,
    };
    return o->top_n_sigma <= 0 && !is_typical(o) &&
           (cut->min_p > 0 || cut->top_p < 1 || cut->top_k < vocab_size);
}

double sampler_temperature(const struct sampler_options *o, const struct candidates *c)
{
    if (o->dynatemp_range <= 0)
        return o->temp;
    return candidates_temperature(c, fmax(0, o->temp - o->dynatemp_range),
                                  o->temp + o->dynatemp_range, o->dynatemp_exponent);
}

/* The random numbers of a token's place in the text: of the next one, or one that many ahead. */
enum { RNG_RACE, RNG_XTC, N_RNG };

static uint64_t random_number(const sampler *s, int ahead, int use)
{
    return rng_at(&s->rng, (s->n_chosen + (uint64_t)ahead) * N_RNG + (uint64_t)use);
}

/* Draws one of the weighed candidates; with mirostat from those that do not surprise too much, and
 * is more or less strict the next time. */
static int draw(sampler *s, struct candidates *c)
{
    const struct sampler_options *o = &s->options;
    int drawn;

    if (o->mirostat)
        filter_surprise(c, s->surprise);
    drawn = race(c->ids, c->weights, c->n, random_number(s, 0, RNG_RACE));
    if (o->mirostat)
        s->surprise -= o->mirostat_eta * (candidates_surprise(c, drawn) - o->mirostat_tau);
    return drawn;
}

/* From all tokens, as likely as the temperature makes them. Returns the log of the sum of all
 * exp(logits), NAN where nobody asks for log-probabilities. */
static float sample_from_all(sampler *s, const float *logits, float max, struct sample *out)
{
    const struct sampler_options *o = &s->options;
    float *weights = s->candidates.weights, log_sum = NAN;

    logits_exp(weights, logits, s->vocab_size, max, o->temp);
    out->token = race(NULL, weights, s->vocab_size, random_number(s, 0, RNG_RACE));
    if (o->logprobs || s->n_top > 0)
        log_sum = (float)logits_log_sum_exp(logits, s->vocab_size, max);
    out->logprob = logits[out->token] - log_sum;
    return log_sum;
}

/* Of the candidates that filters leave, likewise. */
static float sample_filtered(sampler *s, const float *logits, float max, struct sample *out)
{
    const struct sampler_options *o = &s->options;
    struct candidates *c = &s->candidates;
    bool xtc =
        o->xtc_probability > 0 && !(rng_as_unit(random_number(s, 0, RNG_XTC)) > o->xtc_probability);
    struct cut cut;
    bool cuts = sampler_cut(o, xtc, s->vocab_size, &cut);
    float log_sum = candidates_begin(c, logits, s->vocab_size, max, cuts ? &cut : NULL);
    int drawn;

    sampler_filter(o, c, xtc);
    candidates_weigh(c, sampler_temperature(o, c));
    drawn = draw(s, c);
    out->token = c->ids[drawn];
    out->logprob = c->logprobs[drawn];
    return log_sum;
}

/* The logits after biases and penalties; NULL with an error. */
static const float *process(sampler *s, const float *logits, const int32_t *history, size_t n,
                            clm_error *err)
{
    if (!s->processed)
        return logits;
    memcpy(s->processed, logits, (size_t)s->vocab_size * sizeof *logits);
    sampler_process(&s->options, s->processed, s->vocab_size, history, n, s->seen);
    if (has_dry(&s->options) && dry_apply(&s->dry, s->processed, history, n, err))
        return NULL;
    return s->processed;
}

/* Does it ask of logits as they are for a token and nothing else? */
static bool wants_token_alone(const sampler *s)
{
    return !s->processed && !s->options.logprobs && s->n_top == 0;
}

bool sampler_wants_best(const sampler *s)
{
    return !sampler_draws(&s->options) && wants_token_alone(s);
}

/* Filters besides those that a rule has, or temperatures that settle() does not reckon with. */
static bool is_beyond_rules(const struct sampler_options *o)
{
    return o->temp < LEAST_TEMP || o->dynatemp_range > 0 || o->top_n_sigma > 0 || is_typical(o) ||
           o->xtc_probability > 0 || o->mirostat || (o->min_p > 0 && o->min_tokens_to_keep > 1);
}

bool sampler_rules(const sampler *s, struct draw_rule *rules, int n)
{
    const struct sampler_options *o = &s->options;

    if (!wants_token_alone(s) || is_beyond_rules(o))
        return false;
    for (int i = 0; i < n; i++)
        rules[i] = (struct draw_rule){
            .key = random_number(s, i, RNG_RACE),
            .per_temp = (float)(1 / o->temp),
            .floor = o->min_p > 0 ? (float)log(o->min_p) : -INFINITY,
            .top_p = o->top_p > 0 && o->top_p < 1 ? (float)o->top_p : 1,
            .top_k = o->top_k > 0 ? o->top_k : INT32_MAX,
        };
    return true;
}

static int check_best(int32_t best, clm_error *err)
{
    return best >= 0 ? 0
                     : fail(err, CLM_ERR_FORMAT,
                            "the model's logits are not finite; its weights may be damaged "
                            "or of a type it cannot run in");
}

int sampler_take(sampler *s, int32_t token, struct sample *out, clm_error *err)
{
    if (check_best(token, err))
        return -1;
    *out = (struct sample){.token = token, .logprob = NAN};
    s->n_chosen++;
    return 0;
}

static int choose(sampler *s, const float *logits, const int32_t *history, size_t n_history,
                  struct sample *out, clm_error *err)
{
    const struct sampler_options *o = &s->options;
    int32_t best;
    float log_sum;

    logits = process(s, logits, history, n_history, err);
    if (!logits)
        return -1;
    best = logits_argmax(logits, s->vocab_size);
    if (check_best(best, err))
        return -1;
    *out = (struct sample){.token = best, .logprob = NAN};
    if (!sampler_draws(o) && !o->logprobs && s->n_top == 0)
        return 0;
    if (sampler_draws(o)) {
        log_sum = (filters(o) ? sample_filtered : sample_from_all)(s, logits, logits[best], out);
    } else {
        log_sum = (float)logits_log_sum_exp(logits, s->vocab_size, logits[best]);
        out->logprob = logits[best] - log_sum;
    }
    logits_top(s->top, s->n_top, logits, s->vocab_size, log_sum);
    out->top = s->top;
    out->n_top = s->n_top;
    return 0;
}

int sampler_next(sampler *s, const float *logits, const int32_t *history, size_t n_history,
                 struct sample *out, clm_error *err)
{
    if (choose(s, logits, history, n_history, out, err))
        return -1;
    s->n_chosen++;
    return 0;
}

sampler *sampler_open_like(const sampler *s, int vocab_size, clm_error *err)
{
    struct sampler_options o = s->options;
    clm_logit_bias *biases = mem_zeroed((size_t)o.n_logit_bias + 1, sizeof *biases);
    sampler *like;

    if (!biases)
        return fail_null(err, CLM_ERR_NOMEM, "no memory for a sampler");
    o.n_logit_bias = 0;
    for (int i = 0; i < s->options.n_logit_bias; i++)
        if (o.logit_bias[i].token < vocab_size)
            biases[o.n_logit_bias++] = o.logit_bias[i];
    o.logit_bias = biases;
    o.dry.breakers = s->dry.o.breakers;
    o.top_k = o.top_k < vocab_size ? o.top_k : 0;
    o.logprobs = false;
    o.top_logprobs = 0;
    like = sampler_open(&o, vocab_size, err);
    mem_free(biases);
    return like;
}

void sampler_follow(sampler *s, const sampler *leader)
{
    s->n_chosen = leader->n_chosen;
    s->surprise = leader->surprise;
}
