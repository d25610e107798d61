/* engine/rows.h: the rows of a step: what the host says of them, and each device is given. */
#ifndef ENGINE_ROWS_H
#define ENGINE_ROWS_H

#include "engine/engine.h"
#include "nn/pass.h"

/* A host array that grows and is kept. */
struct buffer {
    void *data;
    size_t size;
};

/* At least count items of size bytes; NULL with *err. */
void *buffer_need(struct buffer *b, size_t count, size_t size, clm_error *err);
void buffer_release(struct buffer *b);

/* What a step is made of, counted and checked. */
struct step {
    const struct engine_input *inputs;
    int n_inputs, n_rows, n_logits;
    int n_best, n_drawn; /* of the rows of logits */
    /* In device memory: the inputs have a token each, and no host knows it yet; NULL: they have
     * their tokens. */
    const int32_t *chosen;
};

/* The host arrays of a step. Those that name device memory are there for each share. */
struct rows {
    int n_shares; /* devices that compute the model together; 1: there is but one model */
    int n_past;   /* tokens before each that the model asks for */
    int32_t *tokens, *past, *positions, *logit_rows;
    int32_t *asked_positions;            /* of logit_rows */
    struct kv_batch *batches, *asked;    /* [shares, groups] of all rows, and of logit_rows */
    struct kv_sequence *sequences;       /* [shares, groups, n_inputs] */
    struct kv_sequence *asked_sequences; /* the same */
    struct state_sequence *states;       /* [shares or parts, n_inputs] */
    struct buffer memory[10];            /* that these lie in, kept from step to step */
};

/* The rows of a step of sequences of a cache. n_shares and n_past are set; else r is zeroed or that
 * of the step before. -1 with *err. */
int rows_lay_out(struct rows *r, const struct step *s, const kv_cache *c, clm_error *err);

/* What the part of the model that the pass is in has of the step, on its device: the part's rows,
 * p->rows among them, and those asked for. */
void rows_upload(const struct rows *r, const struct step *s, pass *p);

void rows_release(struct rows *r);

#endif
