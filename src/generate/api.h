/* generate/api.h: what the handles of the public interface are. */
#ifndef GENERATE_API_H
#define GENERATE_API_H

#include "engine/prefix_index.h"
#include "generate/sampler.h"
#include "tokenizer/tokenizer.h"

struct clm_model {
    char *path;
    struct model_devices devices;
    struct model *model;
    tokenizer *tokenizer;
    struct token_list end_tokens;
    void (*warn)(void *ctx, const char *message);
    void *warn_ctx;
    struct log log; /* which tells warn */
};

struct clm_engine {
    clm_model *model;
    engine *engine;
    /* Of one step, kept from call to call. */
    struct engine_input *inputs;
    int capacity;
};

struct clm_sequence {
    clm_engine *owner;
    kv_seq *seq;
};

struct clm_prefix_index {
    clm_engine *owner;
    prefix_index *index;
};

struct clm_sampler {
    sampler *sampler;
    struct sample last;
};

/* The handle of a sequence, which owns it from now on; NULL, with *err, of NULL and where there is
 * no memory for it. */
clm_sequence *clm_sequence_of(clm_engine *e, kv_seq *seq, clm_error *err);

#endif
