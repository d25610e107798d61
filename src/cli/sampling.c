#include "cli/sampling.h"

#include <limits.h>
#include <string.h>
#include <sys/random.h>

#include "base/available.h"
#include "base/memory.h"
#include "cli/prompt.h"
#include "format/json.h"
#include "generate/end_tokens.h"
#include "generate/logit_bias.h"

#define A struct sampling_args

const struct option options_sampling[] = {
    {REAL_OPTION("temp", 0, A, sampler.temp, 0, 1000,
                 "temperature; 0, the default, takes the most likely token each time")},
    {REAL_OPTION("dynatemp-range", 0, A, sampler.dynatemp_range, 0, 1000,
                 "the temperature follows the entropy of what is left to draw from, from --temp "
                 "less this to --temp and this (default: 0, it is --temp)")},
    {REAL_OPTION("dynatemp-exp", 0, A, sampler.dynatemp_exponent, 0, 1000,
                 "exponent of the entropy for --dynatemp-range (default: 1)"),
     .with = "dynatemp-range batch"},
    {REAL_OPTION("top-nsigma", 0, A, sampler.top_n_sigma, -1, 1000,
                 "draw from tokens whose logits are at most this many standard deviations below "
                 "the largest (default: 0, all)")},
    {REAL_OPTION("typical", 0, A, sampler.typical_p, 0, 1,
                 "draw from the most typical tokens, those whose surprise is nearest to the "
                 "entropy, that together are this probable (default: 1, all)")},
    {REAL_OPTION(
        "top-p", 0, A, sampler.top_p, 0, 1,
        "draw from the most likely tokens that together are this probable (default: 1, all)")},
    {REAL_OPTION("min-p", 0, A, sampler.min_p, 0, 1,
                 "draw from tokens at least this probable, as a part of the most likely one's "
                 "probability (default: 0, all)")},
    {INT_OPTION("min-tokens-to-keep", 0, A, sampler.min_tokens_to_keep, 1, INT_MAX,
                "how many tokens --min-p leaves at least (default: 1)"),
     .with = "min-p batch"},
    {INT_OPTION("top-k", 0, A, sampler.top_k, 0, INT_MAX,
                "draw from this many of the most likely tokens (default: 0, all)")},
    {REAL_OPTION("xtc-probability", 0, A, sampler.xtc_probability, 0, 1,
                 "how often XTC leaves out the top choices (default: 0)")},
    {REAL_OPTION("xtc-threshold", 0, A, sampler.xtc_threshold, 0, 0.5,
                 "how probable XTC's top choices are at least (default: 0.1)"),
     .with = "xtc-probability batch"},
    {REAL_OPTION(
        "repetition-penalty", 0, A, sampler.repetition.value, 0, 1000,
        "makes tokens that occurred lately less likely: logits are divided by it, negative "
        "ones multiplied (default: 0, off)")},
    {INT_OPTION("repetition-context-size", 0, A, sampler.repetition.context, 0, INT_MAX,
                "how many tokens the repetition penalty looks back; 0: all (default: 20)"),
     .with = "repetition-penalty batch"},
    {REAL_OPTION("presence-penalty", 0, A, sampler.presence.value, -1000, 1000,
                 "subtracted from the logits of tokens among the last 20 (default: 0)")},
    {REAL_OPTION("frequency-penalty", 0, A, sampler.frequency.value, -1000, 1000,
                 "the same for every time that they occur (default: 0)")},
    {REAL_OPTION("dry-multiplier", 0, A, sampler.dry.multiplier, 0, 1000,
                 "DRY makes tokens less likely that would go on repeating the text: their logits "
                 "lose this times the base to the power of how much longer the repetition is than "
                 "allowed (default: 0, off)")},
    {REAL_OPTION("dry-base", 0, A, sampler.dry.base, 1, 1000, "DRY's base (default: 1.75)"),
     .with = "dry-multiplier batch"},
    {INT_OPTION("dry-allowed-length", 0, A, sampler.dry.allowed_length, 0, INT_MAX,
                "from how many repeated tokens on DRY acts (default: 2)"),
     .with = "dry-multiplier batch"},
    {INT_OPTION("dry-penalty-last-n", 0, A, sampler.dry.last_n, -1, INT_MAX,
                "how many tokens DRY looks back; -1, the default: all"),
     .with = "dry-multiplier batch"},
    {STRINGS_OPTION("dry-sequence-breaker", 0, A, dry_breakers, "TEXT",
                    "texts across which DRY sees no repetition, in place of the usual line end, "
                    "colon, quotation mark and asterisk; \\n stands for a line end; none: without "
                    "any"),
     .with = "dry-multiplier batch"},
    {INT_OPTION("mirostat", 0, A, sampler.mirostat, 0, 2,
                "2: Mirostat 2.0, which holds the surprise of the text, in place of every filter "
                "(default: 0, off)")},
    {REAL_OPTION("mirostat-ent", 0, A, sampler.mirostat_tau, 0, 1000,
                 "Mirostat's surprise of a token, tau, in bits (default: 5)"),
     .with = "mirostat batch"},
    {REAL_OPTION("mirostat-lr", 0, A, sampler.mirostat_eta, 0, 1000,
                 "how fast Mirostat corrects it, eta (default: 0.1)"),
     .with = "mirostat batch"},
    {STRING_OPTION("logit-bias", 0, A, logit_bias, "JSON",
                   "numbers to add to the logits of tokens: an object of token ids, such as "
                   "{\"42\": -100, \"7\": 2.5}")},
    {SEED_OPTION("seed", 0, A, seed, "of the random numbers (default: another one each time)")},
    {STRINGS_OPTION("extra-eos-token", 0, A, extra_end_tokens, "TOKEN",
                    "tokens, or their ids, that end the text too")},
    {FLAG_OPTION("ignore-eos", 0, A, ignore_end_tokens,
                 "go on behind the tokens with which the model ends a text; those of "
                 "--extra-eos-token still end it")},
    {STRINGS_OPTION("stop", 0, A, stops, "TEXT",
                    "texts that end the text too; they are not part of it; \\n and \\t in them "
                    "stand for line ends and tabs")},
    {0},
};

#undef A

void sampling_defaults(struct sampling_args *a)
{
    a->sampler = sampler_defaults();
    a->sampler.top_p = 1;
}

int sampling_read(struct sampling_args *a, clm_error *err)
{
    clm_error problem = {0};
    json *value;
    int rc;

    if (!a->logit_bias)
        return 0;
    value = json_parse(a->logit_bias, strlen(a->logit_bias), "--logit-bias", &problem);
    if (!value)
        return fail(err, problem.code == CLM_ERR_NOMEM ? CLM_ERR_NOMEM : CLM_ERR_ARG, "%s",
                    problem.message);
    rc = logit_bias_read(&a->biases, &a->sampler.n_logit_bias, value, "--logit-bias", err);
    a->sampler.logit_bias = a->biases;
    json_free(value);
    return rc;
}

/* The first filter that is asked for; NULL: none. */
static const char *filter_named(const struct sampler_options *o)
{
    const struct {
        const char *name;
        bool is_there;
    } filters[] = {
        {"top-p", o->top_p > 0 && o->top_p < 1},
        {"top-k", o->top_k > 0},
        {"min-p", o->min_p > 0},
        {"typical", o->typical_p > 0 && o->typical_p < 1},
        {"top-nsigma", o->top_n_sigma > 0},
        {"xtc-probability", o->xtc_probability > 0},
    };

    for (size_t i = 0; i < COUNT(filters); i++)
        if (filters[i].is_there)
            return filters[i].name;
    return NULL;
}

void sampling_warn_unused(const struct sampling_args *a)
{
    const char *name = sampler_draws(&a->sampler) ? NULL : filter_named(&a->sampler);

    if (name)
        log_say(&cli_log, LOG_WARNING,
                "--%s changes nothing while --temp is 0, which takes the most likely token each "
                "time",
                name);
}

void sampling_release(struct sampling_args *a)
{
    mem_free(a->biases);
    a->biases = NULL;
}

uint64_t sampling_seed(const struct sampling_args *a)
{
    uint64_t seed = 0;

    if (a->seed.given)
        return a->seed.value;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != sizeof seed)
        seed = (uint64_t)(uintptr_t)&seed;
    return seed >> 11; /* below 2^53, so that every reader of JSON gets it right */
}

static int collect_end_tokens(struct sampling *out, const struct session *s,
                              const struct sampling_args *a, clm_error *err)
{
    struct token_list *all = &out->end_tokens, *extra = &out->extra_end_tokens;

    if (!a->ignore_end_tokens && end_tokens_load(all, s->dir, s->tokenizer, err))
        return -1;
    for (int i = 0; i < a->extra_end_tokens.n; i++)
        if (end_tokens_add(extra, s->tokenizer, a->extra_end_tokens.items[i], err))
            return -1;
    for (size_t i = 0; i < extra->count; i++)
        token_list_add(all, extra->ids[i]);
    return all->failed ? fail(err, CLM_ERR_NOMEM, "no memory for the end tokens") : 0;
}

/* --dry-sequence-breaker in the model's tokens, or the usual breakers. */
static int find_breakers(struct dry_breakers *b, const struct strings *texts, const tokenizer *t,
                         clm_error *err)
{
    const char **items;
    int rc;

    if (texts->n == 0)
        return dry_breakers_build(b, t, dry_default_breakers, DRY_DEFAULT_BREAKERS, err);
    if (texts->n == 1 && strcmp(texts->items[0], "none") == 0)
        return 0;
    items = mem_zeroed((size_t)texts->n, sizeof *items);
    if (!items)
        return fail(err, CLM_ERR_NOMEM, "no memory for sequence breakers");
    for (int i = 0; i < texts->n; i++)
        items[i] = strcmp(texts->items[i], "\\n") == 0 ? "\n" : texts->items[i];
    rc = dry_breakers_build(b, t, items, texts->n, err);
    mem_free(items);
    return rc;
}

sampler *sampling_open_sampler(const struct sampling_args *a, const struct sampler_options *options,
                               const struct session *s, const struct token_list *end_tokens,
                               clm_error *err)
{
    struct sampler_options o = *options;
    struct token_list special = {0};
    sampler *opened = NULL;

    if (end_tokens_for_xtc(&special, s->tokenizer, end_tokens, err) == 0 &&
        (o.dry.multiplier == 0 ||
         find_breakers(&o.dry.breakers, &a->dry_breakers, s->tokenizer, err) == 0)) {
        o.xtc_special = special.ids;
        o.n_xtc_special = (int)special.count;
        opened = sampler_open(&o, s->model->spec->vocab_size, err);
    }
    dry_breakers_release(&o.dry.breakers);
    token_list_release(&special);
    return opened;
}

static int collect_stops(struct stop_set *out, const struct strings *texts, clm_error *err)
{
    bool failed = false;

    for (int i = 0; i < texts->n; i++) {
        struct strbuf text = {0};

        if (!*texts->items[i])
            return fail(err, CLM_ERR_ARG, "--stop is empty; give a text");
        prompt_unescape(&text, texts->items[i]);
        failed |= text.failed || stop_set_add_text(out, text.data, text.size);
        strbuf_release(&text);
    }
    return failed || stop_set_build(out) ? fail(err, CLM_ERR_NOMEM, "no memory for stops") : 0;
}

int sampling_open(struct sampling *s, const struct sampling_args *a, const struct session *session,
                  uint64_t seed, bool logprobs, clm_error *err)
{
    struct sampler_options o = a->sampler;

    o.seed = seed;
    o.logprobs = logprobs;
    if (collect_end_tokens(s, session, a, err) || collect_stops(&s->stops, &a->stops, err))
        return -1;
    s->sampler = sampling_open_sampler(a, &o, session, &s->end_tokens, err);
    return s->sampler ? 0 : -1;
}

void sampling_close(struct sampling *s)
{
    sampler_close(s->sampler);
    token_list_release(&s->end_tokens);
    token_list_release(&s->extra_end_tokens);
    stop_set_release(&s->stops);
    *s = (struct sampling){0};
}

double peak_gigabytes(void)
{
    return (double)memory_peak() / 1e9;
}

/* The first token belongs to the prompt's time, so it is left out of the speed. */
double generation_speed(const struct generate_result *r)
{
    return r->generation_seconds > 0 ? (r->generated_tokens - 1) / r->generation_seconds : 0;
}

double prompt_speed(const struct generate_result *r)
{
    int evaluated = r->prompt_tokens - r->cached_tokens;

    return r->prompt_seconds > 0 ? evaluated / r->prompt_seconds : 0;
}
