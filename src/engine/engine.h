/* engine/engine.h: evaluates ragged batches: tokens of any number of sequences, laid end to end. */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include "cache/kv_cache.h"
#include "device/draw.h"
#include "models/model.h"

typedef struct engine engine;

/* As of mlx-lm. */
#define ENGINE_FIRST_TOKENS 4
#define ENGINE_KV_GROUP_SIZE 64

/* Zero in every field means the default. */
struct engine_options {
    bool exact;            /* no approximations, cache in f32 */
    enum dtype cache_type; /* with cache_type_set: F32, F16 or BF16; default F16, F32 when exact */
    bool cache_type_set;
    size_t cache_bytes; /* bound of the cache; default: none */
    /* Keys and values quantised to 4 or 8 bits in groups (default 64), from a token on; and the
     * most tokens that one sees, the first few (default 4) and the last. As struct
     * kv_cache_options has them; default: neither. */
    int kv_bits, kv_group_size, quantized_kv_start;
    int max_kv_size, n_first_tokens;
    int max_rows; /* tokens of one step at most; longer inputs are cut into chunks; 0:
                   * 512, 2048 on a GPU */
};

/* The model and its device stay the caller's and must outlive the engine. One thread at a time. */
engine *engine_open(struct model *m, const struct engine_options *options, clm_error *err);
void engine_close(engine *e); /* NULL is fine */

kv_cache *engine_cache(engine *e);
struct model *engine_model(engine *e);
bool engine_is_exact(const engine *e);
/* Tokens that a sequence may have: those of the model's context, or, where the cache keeps but some
 * of them, as many as the model has positions for; INT32_MAX: any number. */
int engine_context(const engine *e);
size_t engine_activation_peak(const engine *e); /* bytes of temporaries at the highest point */

/* A part of a batch: n_tokens >= 1 tokens to append to a sequence, and of how many of its last rows
 * the logits are wanted, or of these rows the most likely tokens alone. A sequence appears at most
 * once in a batch. */
struct engine_input {
    kv_seq *seq;
    const int32_t *tokens;
    int n_tokens;
    int n_logits; /* 0 .. n_tokens */
    bool best;    /* engine_best tells of these rows, and their logits stay on the device */
    /* [n_logits] engine_drawn tells of these rows, and their logits stay on the device as long as
     * engine_fetch may ask for them; else NULL. Only with engine_keeps_logits. */
    const struct draw_rule *rules;
    /* Likely the next step has this input alone again, with the token that its last row chooses: if
     * that is but the most likely one, a device that can begins with it at once. If another step is
     * asked for nobody notices, but until then, or engine_drop, the sequence may change by the
     * engine alone, and not be closed. */
    bool goes_on;
};

/**
 * Evaluate a batch in one step (the caller keeps the sum of n_tokens within max_rows).
 *
 * logits  set to [sum of n_logits, vocab_size] f32 in host memory, input after input, valid until
 * the next step, without meaning in the rows of inputs that ask for the most likely or drawn tokens
 * alone; may be NULL when no logits are asked.
 *
 * Errors: CLM_ERR_ARG (a token outside the vocabulary, ...), CLM_ERR_FULL, CLM_ERR_NOMEM leave
 * every sequence as it was; where states of recurrent mixers were lost, the next step begins with
 * evaluating up to KV_STEPS_IN_PLACE tokens again. After CLM_ERR_DEVICE the sequences of the batch
 * can only be closed, as one can of which a file that it lies in has been changed (CLM_ERR_IO).
 */
int engine_step(engine *e, const struct engine_input *inputs, int n_inputs, const float **logits,
                clm_error *err);

/* Nothing goes on any more. */
void engine_drop(engine *e);

/* [sum of n_logits] the most likely tokens of the rows that the last step was asked for, of those
 * inputs alone that asked for these: the first on ties, -1 where logits are not finite. Valid until
 * the next step. */
const int32_t *engine_best(const engine *e);

/* Whether logits lie in memory of the device's own, so that a draw there is worth it. */
bool engine_keeps_logits(const engine *e);

/* [sum of n_logits] what the device drew for the rows of inputs with rules. Valid until the next
 * step. */
const struct drawn *engine_drawn(const engine *e);

/* The logits [n, vocab_size] of rows [row, row + n) of inputs with rules in the last step, before
 * anything else is asked of the engine or its sequences: CLM_ERR_DEVICE. */
int engine_fetch(engine *e, int row, int n, float *logits, clm_error *err);

/* Tokens per chunk of engine_prefill. */
int engine_max_rows(const engine *e);

/**
 * Append a prompt of any length in chunks of at most max_rows (or chunk, when > 0) and give the
 * logits after its last token. progress, when not NULL, is told the tokens done after each chunk;
 * it returns false to stop: CLM_ERR_CANCELLED, with the sequence holding what was done. logits may
 * be NULL.
 */
int engine_prefill(engine *e, kv_seq *seq, const int32_t *tokens, int n_tokens, int chunk,
                   bool (*progress)(void *ctx, int done, int total), void *ctx,
                   const float **logits, clm_error *err);

/**
 * Forget all but the first n tokens of a sequence, whatever the model: where what comes after them
 * needs more than the cache has kept (a window let go of it, a recurrent state has moved on), the
 * tokens since the last point that it can go back to are evaluated again. An error of that leaves
 * the sequence at a length from that point to n; CLM_ERR_ARG: n is not within the sequence, or
 * these tokens are not known, as the file that it came from did not tell them.
 */
int engine_trim(engine *e, kv_seq *seq, int n, clm_error *err);

/* A fork which has states that the sequence has lost to a step that failed; NULL with *err. */
kv_seq *engine_fork_whole(engine *e, const kv_seq *seq, clm_error *err);

#endif
