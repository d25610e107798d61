/* generate/api.h: what the handles of the public interface are. */
#ifndef GENERATE_API_H
#define GENERATE_API_H

#include "engine/engine.h"
#include "generate/sampler.h"
#include "tokenizer/tokenizer.h"

struct clm_model {
    device *dev;
    struct model *model;
    tokenizer *tokenizer;
    struct token_list end_tokens;
    void (*warn)(void *ctx, const char *message);
    void *warn_ctx;
};

struct clm_engine {
    clm_model *model;
    engine *engine;
    /* Of one step, kept from call to call. */
    struct engine_input *inputs;
    int capacity;
};

struct clm_sampler {
    sampler *sampler;
    struct sample last;
};

#endif
