/* models/low_rank.h: what an adapter adds to one matrix, from its tensors to numbers. */
#ifndef MODELS_LOW_RANK_H
#define MODELS_LOW_RANK_H

#include "models/adapter.h"
#include "models/pieces.h"

/* W + b a of a place's matrix W [n_out, n_in], in host memory. rank 0: nothing. */
struct low_rank {
    int rank, n_out, n_in;
    float *a;         /* [rank, n_in] */
    float *b;         /* [n_out, rank], scale included */
    float *bias;      /* [n_out], scale included, or NULL */
    float *magnitude; /* of rows [n_out], or of columns [n_in]; NULL: no DoRA */
    bool by_column;
};

int low_rank_no_memory(const struct binder *b, const struct nn_slot *s); /* the error; -1 */

/* The error that a tensor of an adapter is for what cannot be adapted so. */
int cannot_adapt(const struct binder *b, const struct checkpoint_tensor *t);

/* Is there anything for this place, or this expert of it? */
bool is_adapted(const struct piece *p);

/**
 * Read what an adapter adds to a place, or to one expert of it.
 *
 * l  released by low_rank_release, also after an error.
 * expert  its number; 0 where the place has none.
 *
 * Errors: CLM_ERR_FORMAT where tensors are missing, have other shapes or another rank than
 * adapter_config.json says; CLM_ERR_UNSUPPORTED; CLM_ERR_NOMEM. Returns 0, or -1 with b->err.
 */
int low_rank_read(const struct binder *b, struct low_rank *l, const struct piece *p,
                  const struct nn_slot *s, int expert);
void low_rank_release(struct low_rank *l);

/* out [cols, rows] = in [rows, cols] (mem_free); NULL: no memory. */
float *transpose_of(const float *in, int rows, int cols);

/* models/dora.c: gain[i] = magnitude[i] / the length of row i of w + b a, or of its column i. order
 * [n_in]: w holds input order[i] at i; NULL: at i. gain is host memory; -1 with *err. */
int dora_gain(device *d, float *gain, const struct weight *w, const struct low_rank *l,
              const int32_t *order, clm_error *err);

#endif
