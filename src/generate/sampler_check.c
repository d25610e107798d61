#include <float.h>
#include <math.h>
#include <stdio.h>

#include "generate/sampler.h"

static int check_range(const char *name, double value, double low, double high, clm_error *err)
{
    if (value >= low && value <= high)
        return 0;
    return fail(err, CLM_ERR_ARG, "%s must be from %g to %g, not %g", name, low, high, value);
}

static int check_finite(const char *name, double value, double low, clm_error *err)
{
    if (value >= low && isfinite(value))
        return 0;
    return fail(err, CLM_ERR_ARG, "%s must be a finite number%s, not %g", name,
                low == 0   ? " of 0 or more"
                : low == 1 ? " of 1 or more"
                           : "",
                value);
}

static int check_penalty(const char *name, struct penalty p, double low, clm_error *err)
{
    char what[40];

    snprintf(what, sizeof what, "the %s penalty", name);
    if (check_finite(what, p.value, low, err))
        return -1;
    if (p.context < 0)
        return fail(err, CLM_ERR_ARG, "the context of the %s penalty must be 0 or more, not %d",
                    name, p.context);
    return 0;
}

static int check_tokens(const struct sampler_options *o, int vocab_size, clm_error *err)
{
    if (o->n_logit_bias < 0 || (o->n_logit_bias > 0 && !o->logit_bias))
        return fail(err, CLM_ERR_ARG, "logit_bias is said to have %d tokens and has none",
                    o->n_logit_bias);
    for (int i = 0; i < o->n_logit_bias; i++) {
        clm_logit_bias b = o->logit_bias[i];

        if (b.token < 0 || b.token >= vocab_size)
            return fail(err, CLM_ERR_ARG, "logit bias for token %d: the vocabulary has %d tokens",
                        (int)b.token, vocab_size);
        if (isnan(b.bias) || b.bias == INFINITY)
            return fail(err, CLM_ERR_ARG, "logit bias for token %d must be a number below infinity",
                        (int)b.token);
    }
    return 0;
}

static int check_filters(const struct sampler_options *o, int vocab_size, clm_error *err)
{
    if (check_range("top_p", o->top_p, 0, 1, err) || check_range("min_p", o->min_p, 0, 1, err) ||
        check_range("typical_p", o->typical_p, 0, 1, err) ||
        check_finite("top_n_sigma", o->top_n_sigma, -DBL_MAX, err) ||
        check_range("xtc_probability", o->xtc_probability, 0, 1, err) ||
        check_range("xtc_threshold", o->xtc_threshold, 0, 0.5, err))
        return -1;
    if (o->min_tokens_to_keep < 1)
        return fail(err, CLM_ERR_ARG, "min_tokens_to_keep must be 1 or more, not %d",
                    o->min_tokens_to_keep);
    if (o->top_k < 0 || (sampler_draws(o) && o->top_k >= vocab_size))
        return fail(err, CLM_ERR_ARG, "top_k must be below the vocabulary's %d tokens, not %d",
                    vocab_size, o->top_k);
    return 0;
}

static int check_dry(const struct dry_options *d, clm_error *err)
{
    if (check_finite("dry_multiplier", d->multiplier, 0, err) ||
        check_finite("dry_base", d->base, 1, err))
        return -1;
    if (d->allowed_length < 0)
        return fail(err, CLM_ERR_ARG, "dry_allowed_length must be 0 or more, not %d",
                    d->allowed_length);
    if (d->last_n < -1)
        return fail(err, CLM_ERR_ARG,
                    "dry_penalty_last_n must be a number of tokens, or -1 for all, not %d",
                    d->last_n);
    return 0;
}

/* What mirostat takes the place of and yet is asked for; NULL: nothing. */
static const char *beside_mirostat(const struct sampler_options *o)
{
    if (o->top_n_sigma > 0)
        return "top_n_sigma";
    if (o->typical_p > 0 && o->typical_p < 1)
        return "typical_p";
    if (o->top_p > 0 && o->top_p < 1)
        return "top_p";
    if (o->min_p > 0)
        return "min_p";
    if (o->xtc_probability > 0)
        return "xtc_probability";
    if (o->top_k > 0)
        return "top_k";
    return o->dynatemp_range > 0 ? "dynatemp_range" : NULL;
}

static int check_mirostat(const struct sampler_options *o, clm_error *err)
{
    if (o->mirostat != 0 && o->mirostat != 2)
        return fail(err, CLM_ERR_ARG, "mirostat must be 2, or 0 for none, not %d", o->mirostat);
    if (check_range("mirostat_tau", o->mirostat_tau, 0, 1000, err) ||
        check_range("mirostat_eta", o->mirostat_eta, 0, 1000, err))
        return -1;
    if (o->mirostat && beside_mirostat(o))
        return fail(err, CLM_ERR_ARG, "mirostat takes the place of %s; give only one of the two",
                    beside_mirostat(o));
    if (o->mirostat && o->temp == 0)
        return fail(err, CLM_ERR_ARG, "mirostat needs a temp above 0; with 0 nothing is drawn");
    return 0;
}

int sampler_check(const struct sampler_options *o, int vocab_size, clm_error *err)
{
    if (check_finite("temp", o->temp, 0, err) ||
        check_finite("dynatemp_range", o->dynatemp_range, 0, err) ||
        check_finite("dynatemp_exponent", o->dynatemp_exponent, 0, err) ||
        check_filters(o, vocab_size, err) || check_penalty("repetition", o->repetition, 0, err) ||
        check_penalty("presence", o->presence, -DBL_MAX, err) ||
        check_penalty("frequency", o->frequency, -DBL_MAX, err) || check_dry(&o->dry, err) ||
        check_mirostat(o, err))
        return -1;
    if (o->top_logprobs < 0 || o->top_logprobs > MAX_TOP_LOGPROBS)
        return fail(err, CLM_ERR_ARG, "top_logprobs must be from 0 to %d, not %d", MAX_TOP_LOGPROBS,
                    o->top_logprobs);
    return check_tokens(o, vocab_size, err);
}
