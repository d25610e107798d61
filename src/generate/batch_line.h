/* generate/batch_line.h: a request as one line of JSON, as OpenAI's batch files have them:
 *
 *     {"custom_id": "a", "url": "/v1/chat/completions", "body": {"messages": [...], ...}}
 *     {"custom_id": "b", "body": {"prompt": "Once", "max_tokens": 9, "seed": 1, "stop": ["."]}}
 *
 * The body's names are those of OpenAI and of mlx_lm.server, and of clm's sampler. A name that is
 * not known, or asks for what clm does not do, is an error that says so. docs/generation.md lists
 * them.
 */
#ifndef GENERATE_BATCH_LINE_H
#define GENERATE_BATCH_LINE_H

#include "format/json.h"
#include "generate/sampler.h"
#include "parse/stop.h"
#include "tokenizer/tokenizer.h"

struct batch_line {
    /* What the body does not name keeps what was there before. */
    struct sampler_options sampling; /* its logit_bias is owned by the line once there is one */
    int max_tokens;
    double timeout; /* seconds; 0: none */
    bool logprobs;  /* to be told */
    bool ignore_end_tokens;

    const json *custom_id; /* NULL: none */
    const json *messages;  /* NULL: there is a prompt */
    const json *tools;     /* NULL: none */
    bool no_tools;         /* nor any that others give: tool_choice is none */
    const json *variables; /* of the chat template: an object, or NULL */
    const char *prompt;    /* [prompt_size]; NULL: in messages or prompt_ids */
    size_t prompt_size;
    struct token_list prompt_ids;
    struct stop_set stops; /* built */
    json *root;            /* owns the rest */
    clm_logit_bias *bias;
};

/**
 * Read a line; name stands for it in messages of JSON errors. Start from a line of zeros and
 * defaults.
 *
 * Errors: CLM_ERR_FORMAT (no JSON), CLM_ERR_ARG (the key is named), CLM_ERR_UNSUPPORTED,
 * CLM_ERR_NOMEM; custom_id is there as far as it could be read. Numbers of the sampler are checked
 * by sampler_open. Whatever comes of it, l is to be released.
 */
int batch_line_read(struct batch_line *l, const char *text, size_t size, const char *name,
                    clm_error *err);
void batch_line_release(struct batch_line *l);

#endif
