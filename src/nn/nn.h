/* nn/nn.h: the building blocks, each written once, run on any device. Shapes outermost first: T
 * rows (tokens), H heads, K kv heads, D head_dim. Results are temporaries of the pass. */
#ifndef NN_NN_H
#define NN_NN_H

#include "nn/pass.h"

/* nn/linear.c */
tensor *nn_linear(pass *p, const struct nn_linear *l, const tensor *x); /* [T, n_out] */
/* n products of one x, each weight read once; y[i] [T, n_out of l[i]]. n <= 12 */
void nn_linears(pass *p, const struct nn_linear *const *l, int n, const tensor *x, tensor **y);
/* The same, the first n_careful of them in f32 even where others are approximated: what chooses
 * should not turn on a rounding. */
void nn_linears_careful(pass *p, const struct nn_linear *const *l, int n, int n_careful,
                        const tensor *x, tensor **y);
/* The same of x [T, n_in] of their own, where the device has inputs_by_job. */
struct nn_product {
    const struct nn_linear *l;
    const tensor *x;
    tensor *y; /* which it gives */
    bool careful;
};
void nn_products(pass *p, struct nn_product *all, int n);
/* The product with the matrix of one expert, [T, n_out]. */
tensor *nn_expert(pass *p, const struct nn_experts *e, int expert, const tensor *x);
/* Each part's product with a matrix of its own: y, x [T n_parts, ...]. */
void nn_per_part(pass *p, const struct nn_experts *parts, int n_parts, tensor *y, const tensor *x);
/* x [T, n_in of the table] = scale * the rows of the ids, adapted. */
void nn_embed(pass *p, const struct nn_linear *table, const int32_t *ids, float scale, tensor *x);
/* Row t * k + j of y[i] [T k, n_out of e[i]]: of the expert ids[t, j]; x has T rows or T k. n <= 4
 */
void nn_experts(pass *p, const struct nn_experts *const *e, int n, int n_experts, const tensor *x,
                const tensor *ids, tensor *const *y);
/* Over each group of n numbers of a row; x itself when the norm is NORM_NONE. */
tensor *nn_norm(pass *p, const struct nn_norm *norm, const tensor *x, int n);
void nn_norm_inplace(pass *p, const struct nn_norm *norm, tensor *x, int n);
/* Each of n_groups equal parts of a row by itself, with weights for all of its numbers. */
void nn_norm_groups(pass *p, const struct nn_norm *norm, tensor *x, int n_groups);

/* Columns [first, first + n) of each of so many equal parts of the rows, as rows of their own. */
tensor nn_part_rows(const tensor *x, int n_parts, int first, int n);

/* Queries of later positions are larger. */
void nn_temperature(pass *p, const struct temperature_spec *t, tensor *q);

/* y [T, H, ...] times act(gate(x)), a number for each head or for each of its numbers. */
void nn_gate(pass *p, const struct nn_linear *gate, enum attention_gate kind, enum activation act,
             int n_heads, tensor *y, const tensor *x);

/* What a branch keeps of the past: so many layers of the cache, from its cache_layer on. */
#define NN_MAX_CACHES 3
int nn_branch_caches(const struct branch_spec *b, struct kv_layer_spec layers[NN_MAX_CACHES]);

/* nn/attention.c, mla.c, mlp.c, moe.c: x [T, hidden_size] -> [T, hidden_size] */
/* state: where the last keys and values lie, of layers that convolve them. */
tensor *nn_attention(pass *p, const struct nn_attention *a, const tensor *x, size_t state);
/* It begins with up to NN_MAX_FIRST products of x, which these are, and ends with one, of what
 * follows from them; so do those below. NULL: it makes them itself. */
#define NN_MAX_FIRST 3
int nn_attention_begin(const struct nn_attention *a, const struct nn_linear **l);
tensor *nn_attention_inner(pass *p, const struct nn_attention *a, const tensor *x,
                           tensor *const *first, size_t state);
tensor *nn_mla(pass *p, const struct nn_mla *m, const tensor *x);
/* nn/pooled_attention.c: the same; state: where what is not pooled yet lies. */
tensor *nn_pooled_attention(pass *p, const struct nn_pooled *a, const tensor *x, size_t state);
/* nn/short_conv.c, conv_mixer.c, mlstm.c, mamba.c, mamba2.c: the same; state is where its part of
 * the state lies. */
tensor *nn_short_conv(pass *p, const struct nn_short_conv *c, const tensor *x, size_t state);
tensor *nn_conv_mixer(pass *p, const struct nn_conv_mixer *m, const tensor *x, size_t state);
tensor *nn_mlstm(pass *p, const struct nn_mlstm *m, const tensor *x, size_t state);
tensor *nn_mamba(pass *p, const struct nn_mamba *m, const tensor *x, size_t state);
tensor *nn_mamba2(pass *p, const struct nn_mamba2 *m, const tensor *x, size_t state);
int nn_mamba2_begin(const struct nn_mamba2 *m, const struct nn_linear **l);
tensor *nn_mamba2_inner(pass *p, const struct nn_mamba2 *m, tensor *const *first, size_t state);
/* x = act(conv(x)), of x [T, channels] and what came before. */
void nn_conv(pass *p, const struct nn_conv *c, tensor *x, int width, enum activation act,
             size_t state);
/* nn/delta.c, lightning.c, rg_lru.c, rwkv7.c: the same. */
tensor *nn_delta(pass *p, const struct nn_delta *d, const tensor *x, size_t state);
tensor *nn_lightning(pass *p, const struct nn_lightning *l, const tensor *x, size_t state);
tensor *nn_rg_lru(pass *p, const struct nn_rg_lru *r, const tensor *x, size_t state);
tensor *nn_rwkv7(pass *p, const struct nn_rwkv7 *r, const tensor *x, size_t state);
/* nn/residual.c: x as it is now is kept; a mixture of x and all that has been kept. */
void nn_residual_keep(pass *p, const tensor *x);
const tensor *nn_residual_mix(pass *p, const struct nn_residual *r, const tensor *x);
/* nn/shift.c: x of the token before each, less its own; and x + mix times that, mix [cols]. */
tensor *nn_shift(pass *p, const tensor *x, size_t state);
tensor *nn_mix(pass *p, const tensor *x, const tensor *shift, const float *mix);
tensor *nn_mlp(pass *p, const struct nn_mlp *m, const tensor *x);
/* The same in parts, so that other products of x can go with the first ones: which these are, one
 * or two, and what follows from them, before the last product and with it. */
int nn_mlp_begin(const struct nn_mlp *m, const struct nn_linear **l);
tensor *nn_mlp_inner(pass *p, const struct nn_mlp *m, tensor *const *y);
tensor *nn_mlp_end(pass *p, const struct nn_mlp *m, tensor *const *y);
/* nn/parallel.c: can n branches that read the same rows begin with one call for all their first
 * products, and end with one for their last? Then y[i] of the x[i] of each. */
#define NN_MAX_TOGETHER 4
bool nn_goes_together(const pass *p, const struct nn_branch *b, int n);
void nn_together(pass *p, const struct nn_branch *b, int n, const tensor *const *x, tensor **y);
/* nn/index.c: words of 32 keys that hold the longest sequence of a batch; keys of x [T,
 * hidden_size] to the cache; and of all there the keys seen by each row of x, of whose latents
 * queries are made, as attend takes them. */
int nn_key_words(const struct kv_batch *rows);
void nn_store_index(pass *p, const struct nn_index *index, const tensor *x);
const tensor *nn_choose_keys(pass *p, const struct nn_index *index, const tensor *x,
                             const tensor *latent);
void nn_glu(pass *p, const struct mlp_spec *s, tensor *gate, tensor *up); /* gate = act(gate) up */
/* nn/ngram.c: x, embeddings of tokens, becomes the mean of them and of those of their neighbours.
 */
void nn_add_ngrams(pass *p, tensor *x);
/* nn/layer_input.c: each layer's own input, of all layers, made of tokens and embeddings x; and the
 * op that adds it. */
tensor *nn_layer_inputs(pass *p, const tensor *x);
tensor *nn_layer_input(pass *p, const struct nn_layer_input *l, const tensor *x);

tensor *nn_low_rank(pass *p, const struct nn_low_rank *l, const tensor *x);

/* nn/altup.c: p->streams of x; what layers ask of them; and x, what all of them come to. */
void nn_altup_begin(pass *p, const tensor *x);
tensor *nn_altup_predict(pass *p, const struct nn_altup *a);
tensor *nn_altup_correct(pass *p, const struct nn_altup *a, const tensor *x);
void nn_altup_add(pass *p, const tensor *x);
void nn_altup_end(pass *p, tensor *x);

/* nn/hyper.c: p->streams of x; a mixture of them, and what they are read, written and mixed by
 * next; x written to them. */
void nn_hyper_begin(pass *p, const tensor *x);
tensor *nn_hyper_read(pass *p, const struct nn_hyper *h);
void nn_hyper_write(pass *p, const tensor *x);
void nn_hyper_end(pass *p, tensor *x);

/* raw: x before the norm of the branch. */
tensor *nn_moe(pass *p, const struct nn_moe *m, const tensor *x, const tensor *raw);

/* nn/forward.c: all layers. Gives the logits [n_logits, vocab_size] of the rows that the
 * pass asks for, or NULL when there are none. The pass keeps them until its memory is
 * rewound. */
tensor *nn_forward(pass *p);

#endif
