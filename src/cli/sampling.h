/* cli/sampling.h: how the next token is chosen and where a text ends, as the user says it. */
#ifndef CLI_SAMPLING_H
#define CLI_SAMPLING_H

#include "cli/session.h"
#include "generate/generate.h"
#include "parse/stop.h"

struct sampling_args {
    struct sampler_options sampler; /* its seed comes from below */
    struct seed seed;
    const char *logit_bias;      /* JSON */
    clm_logit_bias *biases;      /* which sampler has, once it is read */
    struct strings dry_breakers; /* texts; none given: the usual ones */
    bool ignore_end_tokens;      /* those of the model */
    struct strings extra_end_tokens;
    struct strings stops; /* texts */
};

extern const struct option options_sampling[]; /* for a struct sampling_args */

/* mlx_lm's defaults. */
void sampling_defaults(struct sampling_args *a);

/* Read --logit-bias; what was read is to be released, also after an error. */
int sampling_read(struct sampling_args *a, clm_error *err);
void sampling_release(struct sampling_args *a);

/* Say which filter has nothing to filter, as nothing is drawn. */
void sampling_warn_unused(const struct sampling_args *a);

/* The seed given, else another one each time. */
uint64_t sampling_seed(const struct sampling_args *a);

/* What a session samples with. Start from {0}. */
struct sampling {
    sampler *sampler;
    struct token_list end_tokens;
    struct token_list extra_end_tokens; /* of those what the user has named */
    struct stop_set stops;
};

int sampling_open(struct sampling *s, const struct sampling_args *a, const struct session *session,
                  uint64_t seed, bool logprobs, clm_error *err);
void sampling_close(struct sampling *s);

/* A sampler with the options o in the place of those in a; it also samples what XTC must not
 * remove. */
sampler *sampling_open_sampler(const struct sampling_args *a, const struct sampler_options *o,
                               const struct session *s, const struct token_list *end_tokens,
                               clm_error *err);

/* Figures that mlx_lm prints. */
double prompt_speed(const struct generate_result *r);
double generation_speed(const struct generate_result *r);
double peak_gigabytes(void);

#endif
