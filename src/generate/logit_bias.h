/* generate/logit_bias.h: biases of logits as JSON has them: {"42": -100, "7": 2.5}. */
#ifndef GENERATE_LOGIT_BIAS_H
#define GENERATE_LOGIT_BIAS_H

#include "clm/clm.h"
#include "format/json.h"

/**
 * Read an object that gives token ids a number each. *out [*n] is to be released by mem_free, also
 * after an error. name stands for the object in messages.
 *
 * Errors: CLM_ERR_ARG (it is no such object, or names a token twice), CLM_ERR_NOMEM.
 */
int logit_bias_read(clm_logit_bias **out, int *n, const json *value, const char *name,
                    clm_error *err);

#endif
