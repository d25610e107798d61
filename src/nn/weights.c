/* nn/weights.c: the places of a model's weights, and the model without them. */
#include "nn/weights.h"

#include <string.h>

#include "nn/rope.h"

static const char *const role_names[ROLE_COUNT] = {
    [ROLE_EMBED_TOKENS] = "embed_tokens",
    [ROLE_POSITIONS] = "table of positions",
    [ROLE_EMBED_NORM] = "norm of embeddings",
    [ROLE_SINKS] = "attention sinks",
    [ROLE_O_NORM] = "norm of what the heads find",
    [ROLE_INNER_NORM] = "norm before down_proj",
    [ROLE_LM_HEAD] = "lm_head",
    [ROLE_FINAL_NORM] = "final norm",
    [ROLE_PRE_NORM] = "norm before",
    [ROLE_POST_NORM] = "norm after",
    [ROLE_Q_PROJ] = "q_proj",
    [ROLE_K_PROJ] = "k_proj",
    [ROLE_V_PROJ] = "v_proj",
    [ROLE_O_PROJ] = "o_proj",
    [ROLE_Q_NORM] = "q_norm",
    [ROLE_K_NORM] = "k_norm",
    [ROLE_ATTENTION_GATE] = "gate of attention",
    [ROLE_HEAD_GAIN] = "gain of each head",
    [ROLE_OLD_GATE] = "weights of the old state",
    [ROLE_NEW_GATE] = "weights of what is new",
    [ROLE_RAW_GATE] = "gate of the residual",
    [ROLE_LATENT_NORM] = "norm before the experts",
    [ROLE_EACH_NORM] = "norm after each expert",
    [ROLE_K_STEP] = "quant_key_scale",
    [ROLE_V_STEP] = "quant_value_scale",
    [ROLE_MIX_GATE] = "gate of the loop",
    [ROLE_GAIN] = "gain",
    [ROLE_LAYER_TABLE] = "embed_tokens_per_layer",
    [ROLE_LAYER_PROJ] = "per_layer_model_projection",
    [ROLE_LAYER_NORM] = "per_layer_projection_norm",
    [ROLE_LAYER_GATE] = "per_layer_input_gate",
    [ROLE_LAYER_OUT] = "per_layer_projection",
    [ROLE_NGRAM_TABLES] = "embedders",
    [ROLE_NGRAM_PROJS] = "post_projs",
    [ROLE_ALTUP_IN] = "altup_projections",
    [ROLE_ALTUP_OUT] = "altup_unembed_projections",
    [ROLE_ALTUP_NORM] = "router_norm of altup",
    [ROLE_ALTUP_ROUTER] = "modality_router",
    [ROLE_ALTUP_PREDICT] = "prediction_coefs",
    [ROLE_ALTUP_CORRECT] = "correction_coefs",
    [ROLE_ALTUP_SCALE] = "correct_output_scale",
    [ROLE_LOW_RANK_DOWN] = "linear_left",
    [ROLE_LOW_RANK_UP] = "linear_right",
    [ROLE_ROUTER_NORM] = "norm before the router",
    [ROLE_EXPERT_NORM] = "norm before the experts",
    [ROLE_EXPERT_POST_NORM] = "norm after the experts",
    [ROLE_SHARED_POST_NORM] = "norm after the shared expert",
    [ROLE_EXPERT_SCALES] = "scale of each expert",
    [ROLE_LOGIT_GAIN] = "gain of the logits",
    [ROLE_LINEAR] = "linear",
    [ROLE_XIELU_ALPHA_P] = "alpha_p",
    [ROLE_XIELU_ALPHA_N] = "alpha_n",
    [ROLE_XIELU_BETA] = "beta",
    [ROLE_XIELU_EPS] = "eps",
    [ROLE_SHARED_MIX] = "coefficient",
    [ROLE_MLA_Q_A] = "q_a_proj",
    [ROLE_MLA_Q] = "q_b_proj or q_proj",
    [ROLE_MLA_KV_A] = "kv_a_proj_with_mqa",
    [ROLE_MLA_O] = "o_proj",
    [ROLE_MLA_Q_NORM] = "q_a_layernorm",
    [ROLE_MLA_KV_NORM] = "kv_a_layernorm",
    [ROLE_MLA_EMBED_Q] = "keys of kv_b_proj",
    [ROLE_MLA_UNEMBED] = "values of kv_b_proj",
    [ROLE_INDEX_Q] = "indexer's wq_b",
    [ROLE_INDEX_K] = "indexer's wk",
    [ROLE_INDEX_WEIGHTS] = "indexer's weights_proj",
    [ROLE_INDEX_K_NORM] = "indexer's k_norm",
    [ROLE_INDEX_Q_NORM] = "indexer's q_norm",
    [ROLE_CONV] = "convolution",
    [ROLE_K_CONV] = "convolution of keys",
    [ROLE_V_CONV] = "convolution of values",
    [ROLE_SHORT_CONV_IN] = "in_proj",
    [ROLE_SHORT_CONV_OUT] = "out_proj",
    [ROLE_MLSTM_Q] = "q of mlstm_layer",
    [ROLE_MLSTM_K] = "k of mlstm_layer",
    [ROLE_MLSTM_V] = "v of mlstm_layer",
    [ROLE_MLSTM_OUT_GATE] = "ogate_preact",
    [ROLE_MLSTM_IN_GATE] = "igate_preact",
    [ROLE_MLSTM_FORGET_GATE] = "fgate_preact",
    [ROLE_MLSTM_NORM] = "multihead_norm",
    [ROLE_MLSTM_OUT] = "out_proj",
    [ROLE_SSM_Z] = "gate of in_proj",
    [ROLE_SSM_X] = "x, B and C of in_proj",
    [ROLE_SSM_DT] = "dt_proj or the time step of in_proj",
    [ROLE_SSM_BCDT] = "projection to B, C and the time step",
    [ROLE_SSM_A] = "A_log",
    [ROLE_SSM_D] = "D",
    [ROLE_SSM_DT_BIAS] = "dt_bias",
    [ROLE_SSM_B_NORM] = "norm of B",
    [ROLE_SSM_C_NORM] = "norm of C",
    [ROLE_SSM_DT_NORM] = "norm of the time step",
    [ROLE_SSM_NORM] = "norm of the state space",
    [ROLE_SSM_OUT] = "out_proj",
    [ROLE_DELTA_Q] = "q_proj of the delta rule",
    [ROLE_DELTA_K] = "k_proj of the delta rule",
    [ROLE_DELTA_V] = "v_proj of the delta rule",
    [ROLE_DELTA_GATE] = "gate of the delta rule",
    [ROLE_DELTA_BETA] = "b_proj of the delta rule",
    [ROLE_DELTA_DECAY] = "a_proj of the delta rule",
    [ROLE_DELTA_O] = "out_proj of the delta rule",
    [ROLE_DELTA_GATE_DOWN] = "g_a_proj of the delta rule",
    [ROLE_DELTA_DECAY_DOWN] = "f_a_proj of the delta rule",
    [ROLE_DELTA_CONV_Q] = "convolution of queries",
    [ROLE_DELTA_CONV_K] = "convolution of keys",
    [ROLE_DELTA_CONV_V] = "convolution of values",
    [ROLE_DELTA_A] = "A_log of the delta rule",
    [ROLE_DELTA_DT_BIAS] = "dt_bias of the delta rule",
    [ROLE_DELTA_NORM] = "norm of the delta rule",
    [ROLE_LIGHTNING_NORM] = "norm of linear attention",
    [ROLE_RG_LRU_Y] = "linear_y",
    [ROLE_RG_LRU_X] = "linear_x",
    [ROLE_RG_LRU_OUT] = "linear_out",
    [ROLE_RG_LRU_INPUT_GATE] = "input_gate_weight",
    [ROLE_RG_LRU_DECAY_GATE] = "recurrent_gate_weight",
    [ROLE_RG_LRU_DECAY] = "recurrent_param",
    [ROLE_RWKV_MIX_R] = "x_r",
    [ROLE_RWKV_MIX_W] = "x_w",
    [ROLE_RWKV_MIX_K] = "x_k",
    [ROLE_RWKV_MIX_V] = "x_v",
    [ROLE_RWKV_MIX_A] = "x_a",
    [ROLE_RWKV_MIX_G] = "x_g",
    [ROLE_RWKV_R] = "r_proj",
    [ROLE_RWKV_K] = "k_proj",
    [ROLE_RWKV_V] = "v_proj",
    [ROLE_RWKV_O] = "o_proj",
    [ROLE_RWKV_DECAY_DOWN] = "first matrix of w_lora",
    [ROLE_RWKV_RATE_DOWN] = "first matrix of a_lora",
    [ROLE_RWKV_VALUE_DOWN] = "first matrix of v_lora",
    [ROLE_RWKV_GATE_DOWN] = "first matrix of g_lora",
    [ROLE_RWKV_DECAY] = "second matrix of w_lora",
    [ROLE_RWKV_RATE] = "second matrix of a_lora",
    [ROLE_RWKV_VALUE] = "second matrix of v_lora",
    [ROLE_RWKV_GATE] = "second matrix of g_lora",
    [ROLE_RWKV_KEY_SCALE] = "k_k",
    [ROLE_RWKV_KEY_RATE] = "k_a",
    [ROLE_RWKV_BONUS] = "r_k",
    [ROLE_RWKV_NORM] = "g_norm",
    [ROLE_RESIDUAL_PROJ] = "res_proj",
    [ROLE_RESIDUAL_NORM] = "res_norm",
    [ROLE_LATENT_POST_NORM] = "routed_expert_norm",
    [ROLE_MLP_MIX] = "x_k of the feed-forward",
    [ROLE_GATE_PROJ] = "gate_proj",
    [ROLE_UP_PROJ] = "up_proj",
    [ROLE_DOWN_PROJ] = "down_proj",
    [ROLE_ROUTER] = "router",
    [ROLE_EXPERT_GATE] = "experts' gate_proj",
    [ROLE_EXPERT_UP] = "experts' up_proj",
    [ROLE_EXPERT_DOWN] = "experts' down_proj",
    [ROLE_ROUTER_BIAS] = "bias of the router's choice",
    [ROLE_LATENT_IN] = "fc1_latent_proj",
    [ROLE_LATENT_OUT] = "fc2_latent_proj",
    [ROLE_SHARED_GATE] = "shared expert's gate_proj",
    [ROLE_SHARED_UP] = "shared expert's up_proj",
    [ROLE_SHARED_DOWN] = "shared expert's down_proj",
    [ROLE_SHARED_EXPERT_GATE] = "gate of the shared expert",
};

const char *weight_role_name(enum weight_role role)
{
    return role_names[role];
}

/* A walk over the places: where it is, and whom it tells. */
struct walk {
    nn_slot_fn fn;
    void *ctx;
    int layer, branch;
    int hidden_size, layer_input;
    const struct altup_spec *altup;
};

/* Its rows are looked up, not multiplied. */
static bool is_table(enum weight_role role)
{
    return role == ROLE_EMBED_TOKENS || role == ROLE_POSITIONS || role == ROLE_LAYER_TABLE;
}

static int visit_matrix(struct walk *w, enum weight_role role, struct nn_linear *l, int n_out,
                        int n_in, bool bias)
{
    return w->fn(w->ctx, &(struct nn_slot){
                             .layer = w->layer,
                             .branch = w->branch,
                             .role = role,
                             .n_out = n_out,
                             .n_in = n_in,
                             .weight = &l->w,
                             .order = is_table(role) ? NULL : &l->order,
                             .rotation = &l->rotation,
                             .lora = is_table(role) && role != ROLE_EMBED_TOKENS ? NULL : &l->lora,
                             .bias = bias ? &l->bias : NULL,
                         });
}

static int visit_experts(struct walk *w, enum weight_role role, struct nn_experts *e, int n_experts,
                         int n_out, int n_in, bool bias)
{
    bool routed = role == ROLE_EXPERT_GATE || role == ROLE_EXPERT_UP || role == ROLE_EXPERT_DOWN;

    return w->fn(w->ctx, &(struct nn_slot){
                             .layer = w->layer,
                             .branch = w->branch,
                             .role = role,
                             .n_out = n_out,
                             .n_in = n_in,
                             .n_experts = n_experts,
                             .weight = e->w,
                             .lora = routed ? &e->lora : NULL,
                             .bias = bias ? &e->bias : NULL,
                         });
}

/* A vector of its own: neither bias nor part of a norm. */
static int visit_vector_as(struct walk *w, enum weight_role role, const float **v, int size,
                           enum vector_form form)
{
    return w->fn(w->ctx, &(struct nn_slot){
                             .layer = w->layer,
                             .branch = w->branch,
                             .role = role,
                             .n_out = size,
                             .vector = v,
                             .form = form,
                         });
}

static int visit_vector(struct walk *w, enum weight_role role, const float **v, int size)
{
    return visit_vector_as(w, role, v, size, VECTOR_AS_STORED);
}

static int visit_optional(struct walk *w, enum weight_role role, const float **v, int size)
{
    return w->fn(w->ctx, &(struct nn_slot){
                             .layer = w->layer,
                             .branch = w->branch,
                             .role = role,
                             .n_out = size,
                             .vector = v,
                             .optional = true,
                         });
}

/* n_parts > 0: weights of their own for each of so many heads. */
static int visit_norms(struct walk *w, enum weight_role role, struct nn_norm *n, int size,
                       int n_parts)
{
    if (n->spec->kind == NORM_NONE || n->spec->weightless)
        return 0;
    return w->fn(w->ctx, &(struct nn_slot){
                             .layer = w->layer,
                             .branch = w->branch,
                             .role = role,
                             .n_out = size,
                             .n_experts = n_parts,
                             .vector = &n->w,
                             .bias = n->spec->bias ? &n->b : NULL,
                             .offset = n->spec->offset,
                         });
}

static int visit_norm(struct walk *w, enum weight_role role, struct nn_norm *n, int size)
{
    return visit_norms(w, role, n, size, 0);
}

/* A filter for each channel, which a head's channels share where they are in heads. */
static int visit_head_conv(struct walk *w, enum weight_role role, struct nn_conv *c, int channels,
                           int width, bool bias, int head_dim)
{
    return w->fn(w->ctx, &(struct nn_slot){
                             .layer = w->layer,
                             .branch = w->branch,
                             .role = role,
                             .n_out = channels / head_dim * width,
                             .vector = &c->w,
                             .run = width,
                             .copies = head_dim,
                             .bias = bias ? &c->bias : NULL,
                             .n_bias = channels,
                         });
}

/* A filter of its own for each channel. */
static int visit_conv(struct walk *w, enum weight_role role, struct nn_conv *c, int channels,
                      int width, bool bias)
{
    return visit_head_conv(w, role, c, channels, width, bias, 1);
}

/* Of n_heads queries or keys. */
static int visit_head_norm(struct walk *w, enum weight_role role, struct nn_norm *n,
                           const struct attention_spec *s, int n_heads)
{
    switch (s->qk_norm_span) {
    case QK_NORM_EACH:
        return visit_norms(w, role, n, s->head_dim, n_heads);
    case QK_NORM_ALL:
        return visit_norm(w, role, n, n_heads * s->head_dim);
    case QK_NORM_HEAD:
        break;
    }
    return visit_norm(w, role, n, s->head_dim);
}

/* Its queries are made of n_in numbers. */
static int visit_index(struct walk *w, struct nn_index *x, int n_in)
{
    const struct index_spec *s = x->spec;
    int rc;

    if (!s->topk)
        return 0;
    rc = visit_matrix(w, ROLE_INDEX_Q, &x->q, s->n_heads * s->dim, n_in, false);
    rc = rc ? rc : visit_matrix(w, ROLE_INDEX_K, &x->k, s->dim, w->hidden_size, false);
    if (!rc && !s->block_size)
        rc = visit_matrix(w, ROLE_INDEX_WEIGHTS, &x->weights, s->n_heads, w->hidden_size, false);
    rc = rc ? rc : visit_norm(w, ROLE_INDEX_K_NORM, &x->k_norm, s->dim);
    return rc ? rc : visit_norm(w, ROLE_INDEX_Q_NORM, &x->q_norm, s->dim);
}

static int visit_attention(struct walk *w, struct nn_attention *a)
{
    const struct attention_spec *s = a->spec;
    int q = s->n_heads * s->head_dim, k = s->n_kv_heads * s->head_dim;
    int v_dim = s->v_dim ? s->v_dim : s->head_dim, o = s->n_heads * v_dim, rc = 0;
    bool own = s->kv_source != KV_TAKEN && !s->cache_of;

    rc = visit_matrix(w, ROLE_Q_PROJ, &a->q_proj, q, w->hidden_size, s->qkv_bias);
    if (!rc && own)
        rc = visit_matrix(w, ROLE_K_PROJ, &a->k_proj, k, w->hidden_size, s->qkv_bias);
    if (!rc && own && !s->values_are_keys)
        rc = visit_matrix(w, ROLE_V_PROJ, &a->v_proj, s->n_kv_heads * v_dim, w->hidden_size,
                          s->qkv_bias);
    rc = rc ? rc : visit_matrix(w, ROLE_O_PROJ, &a->o_proj, w->hidden_size, o, s->o_bias);
    rc = rc ? rc : visit_head_norm(w, ROLE_Q_NORM, &a->q_norm, s, s->n_heads);
    if (!rc && !s->cache_of)
        rc = visit_head_norm(w, ROLE_K_NORM, &a->k_norm, s, s->n_kv_heads);
    rc = rc ? rc : visit_norm(w, ROLE_O_NORM, &a->o_norm, o);
    if (!rc && s->gate != GATE_NONE)
        rc = visit_matrix(w, ROLE_ATTENTION_GATE, &a->gate, s->gate == GATE_HEADS ? s->n_heads : o,
                          w->hidden_size, s->gate_bias);
    if (!rc && s->head_gain)
        rc = visit_vector(w, ROLE_HEAD_GAIN, &a->head_gain, s->n_heads);
    if (!rc && s->kv_conv) {
        rc = visit_head_conv(w, ROLE_K_CONV, &a->k_conv, k, s->kv_conv, false, s->head_dim);
        rc = rc ? rc
                : visit_head_conv(w, ROLE_V_CONV, &a->v_conv, k, s->kv_conv, false, s->head_dim);
    }
    if (!rc && s->sinks)
        rc = visit_vector(w, ROLE_SINKS, &a->sinks, s->n_heads);
    if (!rc && s->rounded_kv && own) {
        rc = visit_vector(w, ROLE_K_STEP, &a->k_step, 1);
        rc = rc ? rc : visit_vector(w, ROLE_V_STEP, &a->v_step, 1);
    }
    if (!rc && s->mix_gate)
        rc = visit_experts(w, ROLE_MIX_GATE, &a->mix_gate, s->n_heads, 1, s->head_dim, true);
    return rc ? rc : visit_index(w, &a->index, w->hidden_size);
}

static int visit_mla(struct walk *w, struct nn_mla *m)
{
    const struct mla_spec *s = m->spec;
    int q = s->n_heads * (s->nope_dim + s->rope_dim), rc = 0;

    if (s->q_rank) {
        rc = visit_matrix(w, ROLE_MLA_Q_A, &m->q_a_proj, s->q_rank, w->hidden_size, s->a_bias);
        rc = rc ? rc : visit_norm(w, ROLE_MLA_Q_NORM, &m->q_norm, s->q_rank);
    }
    rc = rc ? rc
            : visit_matrix(w, ROLE_MLA_Q, &m->q_proj, q, s->q_rank ? s->q_rank : w->hidden_size,
                           s->q_bias);
    rc = rc ? rc
            : visit_matrix(w, ROLE_MLA_KV_A, &m->kv_a_proj, s->kv_rank + s->rope_dim,
                           w->hidden_size, s->a_bias);
    rc = rc ? rc : visit_norm(w, ROLE_MLA_KV_NORM, &m->kv_norm, s->kv_rank);
    rc = rc ? rc
            : visit_experts(w, ROLE_MLA_EMBED_Q, &m->embed_q, s->n_heads, s->kv_rank, s->nope_dim,
                            false);
    rc = rc ? rc
            : visit_experts(w, ROLE_MLA_UNEMBED, &m->unembed, s->n_heads, s->v_dim, s->kv_rank,
                            false);
    rc = rc ? rc : visit_index(w, &m->index, s->q_rank);
    if (!rc && s->gate != GATE_NONE)
        rc = visit_matrix(w, ROLE_ATTENTION_GATE, &m->gate,
                          s->gate == GATE_HEADS ? s->n_heads : s->n_heads * s->v_dim,
                          w->hidden_size, false);
    return rc ? rc
              : visit_matrix(w, ROLE_MLA_O, &m->o_proj, w->hidden_size, s->n_heads * s->v_dim,
                             s->o_bias);
}

static int visit_short_conv(struct walk *w, struct nn_short_conv *c)
{
    const struct short_conv_spec *s = c->spec;
    int n = s->channels, rc;

    rc = visit_matrix(w, ROLE_SHORT_CONV_IN, &c->in_proj, 3 * n, w->hidden_size, s->bias);
    rc = rc ? rc : visit_conv(w, ROLE_CONV, &c->conv, n, s->width, s->bias);
    return rc ? rc : visit_matrix(w, ROLE_SHORT_CONV_OUT, &c->out_proj, w->hidden_size, n, s->bias);
}

static int visit_conv_mixer(struct walk *w, struct nn_conv_mixer *m)
{
    const struct conv_mixer_spec *s = m->spec;
    int n = w->hidden_size, q = s->n_heads * s->head_dim, k = s->n_kv_heads * s->head_dim, rc;

    rc = visit_matrix(w, ROLE_Q_PROJ, &m->q_proj, q, n, s->bias);
    rc = rc ? rc : visit_matrix(w, ROLE_K_PROJ, &m->k_proj, k, n, s->bias);
    rc = rc ? rc : visit_matrix(w, ROLE_V_PROJ, &m->v_proj, k, n, s->bias);
    rc = rc ? rc : visit_matrix(w, ROLE_O_PROJ, &m->o_proj, n, q, s->bias);
    rc = rc ? rc : visit_norm(w, ROLE_Q_NORM, &m->q_norm, s->head_dim);
    rc = rc ? rc : visit_norm(w, ROLE_K_NORM, &m->k_norm, s->head_dim);
    rc = rc ? rc : visit_conv(w, ROLE_K_CONV, &m->k_conv, k, s->width, s->bias);
    return rc ? rc : visit_conv(w, ROLE_V_CONV, &m->v_conv, k, s->width, s->bias);
}

static int visit_mlstm(struct walk *w, struct nn_mlstm *m)
{
    const struct mlstm_spec *s = m->spec;
    int n = w->hidden_size, keys = s->n_heads * s->key_dim, values = s->n_heads * s->value_dim, rc;

    rc = visit_matrix(w, ROLE_MLSTM_Q, &m->q_proj, keys, n, false);
    rc = rc ? rc : visit_matrix(w, ROLE_MLSTM_K, &m->k_proj, keys, n, false);
    rc = rc ? rc : visit_matrix(w, ROLE_MLSTM_V, &m->v_proj, values, n, false);
    rc = rc ? rc : visit_matrix(w, ROLE_MLSTM_OUT_GATE, &m->out_gate, values, n, false);
    rc = rc ? rc : visit_matrix(w, ROLE_MLSTM_IN_GATE, &m->in_gate, s->n_heads, n, true);
    rc = rc ? rc : visit_matrix(w, ROLE_MLSTM_FORGET_GATE, &m->forget_gate, s->n_heads, n, true);
    rc = rc ? rc : visit_norm(w, ROLE_MLSTM_NORM, &m->norm, values);
    return rc ? rc : visit_matrix(w, ROLE_MLSTM_OUT, &m->o_proj, n, values, false);
}

static int visit_mamba(struct walk *w, struct nn_mamba *m)
{
    const struct mamba_spec *s = m->spec;
    int n = w->hidden_size, c = s->channels, rc;

    rc = visit_matrix(w, ROLE_SSM_Z, &m->z, c, n, s->bias);
    rc = rc ? rc : visit_matrix(w, ROLE_SSM_X, &m->x, c, n, s->bias);
    rc = rc ? rc : visit_conv(w, ROLE_CONV, &m->conv, c, s->conv_width, s->conv_bias);
    rc = rc ? rc
            : visit_matrix(w, ROLE_SSM_BCDT, &m->bcdt, s->dt_rank + 2 * s->state_size, c, false);
    rc = rc ? rc : visit_norm(w, ROLE_SSM_B_NORM, &m->b_norm, s->state_size);
    rc = rc ? rc : visit_norm(w, ROLE_SSM_C_NORM, &m->c_norm, s->state_size);
    rc = rc ? rc : visit_norm(w, ROLE_SSM_DT_NORM, &m->dt_norm, s->dt_rank);
    rc = rc ? rc : visit_matrix(w, ROLE_SSM_DT, &m->dt, c, s->dt_rank, true);
    rc = rc ? rc : visit_vector_as(w, ROLE_SSM_A, &m->a, c * s->state_size, VECTOR_MINUS_EXP);
    rc = rc ? rc : visit_vector(w, ROLE_SSM_D, &m->d, c);
    return rc ? rc : visit_matrix(w, ROLE_SSM_OUT, &m->out_proj, n, c, s->bias);
}

/* B, C and the time step, where they are made of the convolved x. */
static int visit_bcdt(struct walk *w, struct nn_mamba2 *m, int inner)
{
    const struct mamba2_spec *s = m->spec;
    int rc = visit_matrix(w, ROLE_SSM_BCDT, &m->bcdt, 2 * s->state_size + s->dt_rank, inner, false);

    rc = rc ? rc : visit_matrix(w, ROLE_SSM_DT, &m->dt, s->n_heads, s->dt_rank, false);
    rc = rc ? rc : visit_norm(w, ROLE_SSM_B_NORM, &m->b_norm, s->state_size);
    rc = rc ? rc : visit_norm(w, ROLE_SSM_C_NORM, &m->c_norm, s->state_size);
    return rc ? rc : visit_norm(w, ROLE_SSM_DT_NORM, &m->dt_norm, s->dt_rank);
}

static int visit_mamba2(struct walk *w, struct nn_mamba2 *m)
{
    const struct mamba2_spec *s = m->spec;
    int n = w->hidden_size, inner = s->n_heads * s->head_dim, channels = mamba2_channels(s), rc;

    rc = visit_matrix(w, ROLE_SSM_Z, &m->z, inner, n, s->in_bias);
    rc = rc ? rc : visit_matrix(w, ROLE_SSM_X, &m->x, channels, n, s->in_bias);
    if (!rc)
        rc = s->dt_rank ? visit_bcdt(w, m, inner)
                        : visit_matrix(w, ROLE_SSM_DT, &m->dt, s->n_heads, n, s->in_bias);
    rc = rc ? rc : visit_conv(w, ROLE_CONV, &m->conv, channels, s->conv_width, s->conv_bias);
    rc = rc ? rc : visit_vector_as(w, ROLE_SSM_A, &m->a, s->n_heads, VECTOR_MINUS_EXP);
    rc = rc ? rc : visit_vector(w, ROLE_SSM_D, &m->d, s->n_heads);
    rc = rc ? rc : visit_vector(w, ROLE_SSM_DT_BIAS, &m->dt_bias, s->n_heads);
    rc = rc ? rc : visit_norm(w, ROLE_SSM_NORM, &m->norm, inner);
    return rc ? rc : visit_matrix(w, ROLE_SSM_OUT, &m->out_proj, n, inner, s->out_bias);
}

/* From hidden_size numbers, through rank where that is not 0. */
static int visit_through(struct walk *w, enum weight_role down, enum weight_role up,
                         struct nn_low_rank *l, int rank, int n_out)
{
    int rc = rank ? visit_matrix(w, down, &l->down, rank, w->hidden_size, false) : 0;

    return rc ? rc : visit_matrix(w, up, &l->up, n_out, rank ? rank : w->hidden_size, false);
}

static int visit_delta(struct walk *w, struct nn_delta *d)
{
    const struct delta_spec *s = d->spec;
    int keys = s->n_key_heads * s->key_dim, values = s->n_heads * s->value_dim;
    int decays = s->keywise ? s->n_heads * s->key_dim : s->n_heads, rc;

    rc = visit_matrix(w, ROLE_DELTA_Q, &d->q_proj, keys, w->hidden_size, false);
    rc = rc ? rc : visit_matrix(w, ROLE_DELTA_K, &d->k_proj, keys, w->hidden_size, false);
    rc = rc ? rc : visit_matrix(w, ROLE_DELTA_V, &d->v_proj, values, w->hidden_size, false);
    rc = rc ? rc
            : visit_through(w, ROLE_DELTA_GATE_DOWN, ROLE_DELTA_GATE, &d->gate, s->gate_rank,
                            values);
    rc = rc ? rc : visit_matrix(w, ROLE_DELTA_BETA, &d->beta, s->n_heads, w->hidden_size, false);
    rc = rc ? rc
            : visit_through(w, ROLE_DELTA_DECAY_DOWN, ROLE_DELTA_DECAY, &d->decay, s->decay_rank,
                            decays);
    rc = rc ? rc : visit_conv(w, ROLE_DELTA_CONV_Q, &d->conv_q, keys, s->conv_width, false);
    rc = rc ? rc : visit_conv(w, ROLE_DELTA_CONV_K, &d->conv_k, keys, s->conv_width, false);
    rc = rc ? rc : visit_conv(w, ROLE_DELTA_CONV_V, &d->conv_v, values, s->conv_width, false);
    rc = rc ? rc : visit_vector_as(w, ROLE_DELTA_A, &d->a, s->n_heads, VECTOR_MINUS_EXP);
    rc = rc ? rc : visit_vector(w, ROLE_DELTA_DT_BIAS, &d->dt_bias, decays);
    rc = rc ? rc : visit_norm(w, ROLE_DELTA_NORM, &d->norm, s->value_dim);
    return rc ? rc : visit_matrix(w, ROLE_DELTA_O, &d->o_proj, w->hidden_size, values, false);
}

static int visit_lightning(struct walk *w, struct nn_lightning *l)
{
    const struct lightning_spec *s = l->spec;
    int n = s->n_heads * s->head_dim, rc;

    rc = visit_matrix(w, ROLE_Q_PROJ, &l->q_proj, n, w->hidden_size, s->qkv_bias);
    rc = rc ? rc : visit_matrix(w, ROLE_K_PROJ, &l->k_proj, n, w->hidden_size, s->qkv_bias);
    rc = rc ? rc : visit_matrix(w, ROLE_V_PROJ, &l->v_proj, n, w->hidden_size, s->qkv_bias);
    rc = rc ? rc : visit_matrix(w, ROLE_O_PROJ, &l->o_proj, w->hidden_size, n, s->o_bias);
    rc = rc ? rc : visit_matrix(w, ROLE_ATTENTION_GATE, &l->gate, n, w->hidden_size, false);
    rc = rc ? rc : visit_norm(w, ROLE_Q_NORM, &l->q_norm, s->head_dim);
    rc = rc ? rc : visit_norm(w, ROLE_K_NORM, &l->k_norm, s->head_dim);
    return rc ? rc : visit_norm(w, ROLE_LIGHTNING_NORM, &l->norm, n);
}

static int visit_rg_lru(struct walk *w, struct nn_rg_lru *r)
{
    const struct rg_lru_spec *s = r->spec;
    int n = s->channels, size = n / s->n_heads, rc;

    rc = visit_matrix(w, ROLE_RG_LRU_Y, &r->y_proj, n, w->hidden_size, true);
    rc = rc ? rc : visit_matrix(w, ROLE_RG_LRU_X, &r->x_proj, n, w->hidden_size, true);
    rc = rc ? rc : visit_conv(w, ROLE_CONV, &r->conv, n, s->conv_width, true);
    rc =
        rc ? rc
           : visit_experts(w, ROLE_RG_LRU_INPUT_GATE, &r->input_gate, s->n_heads, size, size, true);
    rc =
        rc ? rc
           : visit_experts(w, ROLE_RG_LRU_DECAY_GATE, &r->decay_gate, s->n_heads, size, size, true);
    rc = rc ? rc : visit_vector_as(w, ROLE_RG_LRU_DECAY, &r->decay, n, VECTOR_SOFTPLUS);
    return rc ? rc : visit_matrix(w, ROLE_RG_LRU_OUT, &r->out_proj, w->hidden_size, n, true);
}

/* The two matrices of a projection through rank numbers, the second one with a bias or without. */
static int visit_lora(struct walk *w, enum weight_role down, struct nn_low_rank *l, int rank,
                      bool bias)
{
    enum weight_role up = down - ROLE_RWKV_DECAY_DOWN + ROLE_RWKV_DECAY;
    int n = w->hidden_size, rc = visit_matrix(w, down, &l->down, rank, n, false);

    return rc ? rc : visit_matrix(w, up, &l->up, n, rank, bias);
}

static int visit_rwkv7(struct walk *w, struct nn_rwkv7 *r)
{
    const struct rwkv7_spec *s = r->spec;
    struct nn_linear *l[] = {&r->r_proj, &r->k_proj, &r->v_proj, &r->o_proj};
    int n = w->hidden_size, rc = 0;

    for (int i = 0; i < 6; i++)
        rc = rc ? rc : visit_vector(w, ROLE_RWKV_MIX_R + i, &r->mix[i], n);
    for (int i = 0; i < 4; i++)
        rc = rc ? rc : visit_matrix(w, ROLE_RWKV_R + i, l[i], n, n, false);
    rc = rc ? rc : visit_lora(w, ROLE_RWKV_DECAY_DOWN, &r->decay, s->decay_rank, true);
    rc = rc ? rc : visit_lora(w, ROLE_RWKV_RATE_DOWN, &r->rate, s->rate_rank, true);
    if (!rc && s->value_rank)
        rc = visit_lora(w, ROLE_RWKV_VALUE_DOWN, &r->value, s->value_rank, true);
    rc = rc ? rc : visit_lora(w, ROLE_RWKV_GATE_DOWN, &r->gate, s->gate_rank, false);
    rc = rc ? rc : visit_vector(w, ROLE_RWKV_KEY_SCALE, &r->key_scale, n);
    rc = rc ? rc : visit_vector(w, ROLE_RWKV_KEY_RATE, &r->key_rate, n);
    rc = rc ? rc : visit_vector(w, ROLE_RWKV_BONUS, &r->bonus, n);
    return rc ? rc : visit_norm(w, ROLE_RWKV_NORM, &r->norm, n);
}

/* Its roles are gate, up and down from first on. */
static int visit_mlp(struct walk *w, enum weight_role first, struct nn_mlp *m)
{
    const struct mlp_spec *s = m->spec;
    int n = s->intermediate_size, rc = 0;

    if (s->gated)
        rc = visit_matrix(w, first, &m->gate_proj, n, w->hidden_size, s->bias);
    rc = rc ? rc : visit_matrix(w, first + 1, &m->up_proj, n, w->hidden_size, s->bias);
    rc = rc ? rc : visit_matrix(w, first + 2, &m->down_proj, w->hidden_size, n, s->bias);
    if (!rc && s->shifted)
        rc = visit_vector(w, ROLE_MLP_MIX, &m->mix, w->hidden_size);
    if (!rc && first == ROLE_GATE_PROJ)
        rc = visit_norm(w, ROLE_INNER_NORM, &m->inner_norm, n);
    for (int i = 0; i < 4 && s->xielu; i++)
        rc = rc ? rc : visit_vector(w, ROLE_XIELU_ALPHA_P + i, &m->xielu[i], 1);
    return rc;
}

static int visit_moe(struct walk *w, struct nn_moe *m)
{
    const struct mlp_spec *s = &m->spec->expert;
    int n = s->intermediate_size, e = m->spec->router.n_experts, rc;
    int latent = m->spec->latent_size, read = latent ? latent : w->hidden_size;

    rc = visit_matrix(w, ROLE_ROUTER, &m->router, e, w->hidden_size, m->spec->router_logit_bias);
    if (!rc && m->spec->router_bias)
        rc = m->spec->router_bias_optional ? visit_optional(w, ROLE_ROUTER_BIAS, &m->router_bias, e)
                                           : visit_vector(w, ROLE_ROUTER_BIAS, &m->router_bias, e);
    e -= m->spec->n_zero_experts;
    if (!rc && s->gated)
        rc = visit_experts(w, ROLE_EXPERT_GATE, &m->gate_proj, e, n, read, s->bias);
    rc = rc ? rc : visit_experts(w, ROLE_EXPERT_UP, &m->up_proj, e, n, read, s->bias);
    rc = rc ? rc : visit_experts(w, ROLE_EXPERT_DOWN, &m->down_proj, e, read, n, s->bias);
    if (!rc && latent) {
        rc = visit_matrix(w, ROLE_LATENT_IN, &m->latent_in, latent, w->hidden_size,
                          m->spec->latent_bias);
        rc = rc ? rc
                : visit_matrix(w, ROLE_LATENT_OUT, &m->latent_out, w->hidden_size, latent,
                               m->spec->latent_bias);
    }
    if (!rc && m->spec->shared.intermediate_size)
        rc = visit_mlp(w, ROLE_SHARED_GATE, &m->shared);
    if (!rc && m->spec->shared_gate)
        rc = visit_matrix(w, ROLE_SHARED_EXPERT_GATE, &m->shared_gate, 1, w->hidden_size, false);
    rc = rc ? rc : visit_norm(w, ROLE_LATENT_NORM, &m->latent_norm, read);
    rc = rc ? rc : visit_norm(w, ROLE_LATENT_POST_NORM, &m->latent_post_norm, read);
    rc = rc ? rc : visit_norm(w, ROLE_EACH_NORM, &m->each_norm, read);
    rc = rc ? rc : visit_norm(w, ROLE_ROUTER_NORM, &m->router_norm, w->hidden_size);
    rc = rc ? rc : visit_norm(w, ROLE_EXPERT_NORM, &m->expert_norm, w->hidden_size);
    rc = rc ? rc : visit_norm(w, ROLE_EXPERT_POST_NORM, &m->expert_post_norm, w->hidden_size);
    rc = rc ? rc : visit_norm(w, ROLE_SHARED_POST_NORM, &m->shared_post_norm, w->hidden_size);
    if (!rc && m->spec->expert_scales)
        rc = visit_vector(w, ROLE_EXPERT_SCALES, &m->expert_scales, e);
    if (!rc && m->spec->shared_mix)
        rc = visit_matrix(w, ROLE_SHARED_MIX, &m->shared_mix, 2, w->hidden_size, true);
    return rc;
}

static int visit_low_rank(struct walk *w, struct nn_low_rank *l, int rank)
{
    int rc = visit_matrix(w, ROLE_LOW_RANK_DOWN, &l->down, rank, w->hidden_size, false);

    return rc ? rc : visit_matrix(w, ROLE_LOW_RANK_UP, &l->up, w->hidden_size, rank, false);
}

static int visit_altup_coefs(struct walk *w, enum weight_role role, struct nn_altup *a, int n_out)
{
    return w->fn(w->ctx, &(struct nn_slot){
                             .layer = w->layer,
                             .branch = w->branch,
                             .role = role,
                             .n_out = n_out * w->altup->n,
                             .vector = &a->coefs,
                             .limit = w->altup->coef_limit,
                         });
}

static int visit_altup(struct walk *w, struct nn_altup *a, enum op_kind op)
{
    int n = w->altup->n, rc;

    if (op == OP_ALTUP_CORRECT) {
        rc = visit_altup_coefs(w, ROLE_ALTUP_CORRECT, a, n);
        return rc ? rc : visit_vector(w, ROLE_ALTUP_SCALE, &a->scale, w->hidden_size);
    }
    rc = visit_norm(w, ROLE_ALTUP_NORM, &a->norm, w->hidden_size);
    rc = rc ? rc : visit_matrix(w, ROLE_ALTUP_ROUTER, &a->router, n, w->hidden_size, false);
    return rc ? rc : visit_altup_coefs(w, ROLE_ALTUP_PREDICT, a, n * n);
}

static int visit_residual(struct walk *w, struct nn_residual *r)
{
    int rc = visit_matrix(w, ROLE_RESIDUAL_PROJ, &r->proj, 1, w->hidden_size, false);

    return rc ? rc : visit_norm(w, ROLE_RESIDUAL_NORM, &r->norm, w->hidden_size);
}

static int visit_branch(struct walk *w, struct nn_branch *b)
{
    int rc = b->spec->mixes ? visit_residual(w, &b->residual) : 0;

    if (rc)
        return rc;
    if (!b->spec->shared_norm && !b->spec->final_norm)
        rc = visit_norm(w, ROLE_PRE_NORM, &b->pre_norm, w->hidden_size);
    if (rc)
        return rc;
    switch (b->spec->op) {
    case OP_NONE:
    case OP_EMBEDDING:
    case OP_ALTUP_ADD:
        break;
    case OP_LOW_RANK:
        rc = visit_low_rank(w, &b->low_rank, b->spec->rank);
        break;
    case OP_ALTUP_PREDICT:
    case OP_ALTUP_CORRECT:
        rc = visit_altup(w, &b->altup, b->spec->op);
        break;
    case OP_LAYER_INPUT:
        rc = visit_matrix(w, ROLE_LAYER_GATE, &b->layer_input.gate, w->layer_input, w->hidden_size,
                          false);
        rc = rc ? rc
                : visit_matrix(w, ROLE_LAYER_OUT, &b->layer_input.out, w->hidden_size,
                               w->layer_input, false);
        break;
    case OP_LINEAR:
        rc = visit_matrix(w, ROLE_LINEAR, &b->linear, w->hidden_size, w->hidden_size,
                          b->spec->linear_bias);
        break;
    case OP_ATTENTION:
        rc = visit_attention(w, &b->attention);
        break;
    case OP_MLA:
        rc = visit_mla(w, &b->mla);
        break;
    case OP_SHORT_CONV:
        rc = visit_short_conv(w, &b->short_conv);
        break;
    case OP_CONV_MIXER:
        rc = visit_conv_mixer(w, &b->conv_mixer);
        break;
    case OP_MLSTM:
        rc = visit_mlstm(w, &b->mlstm);
        break;
    case OP_MAMBA:
        rc = visit_mamba(w, &b->mamba);
        break;
    case OP_MAMBA2:
        rc = visit_mamba2(w, &b->mamba2);
        break;
    case OP_DELTA:
        rc = visit_delta(w, &b->delta);
        break;
    case OP_LIGHTNING:
        rc = visit_lightning(w, &b->lightning);
        break;
    case OP_RG_LRU:
        rc = visit_rg_lru(w, &b->rg_lru);
        break;
    case OP_RWKV7:
        rc = visit_rwkv7(w, &b->rwkv7);
        break;
    case OP_MLP:
        rc = visit_mlp(w, ROLE_GATE_PROJ, &b->mlp);
        break;
    case OP_MOE:
        rc = visit_moe(w, &b->moe);
        break;
    }
    if (!rc && b->spec->gain)
        rc = visit_vector(w, ROLE_GAIN, &b->gain, 1);
    if (!rc && b->spec->gate_temperature > 0) {
        rc = visit_optional(w, ROLE_OLD_GATE, &b->old_gate, w->hidden_size);
        rc = rc ? rc : visit_optional(w, ROLE_NEW_GATE, &b->new_gate, w->hidden_size);
        rc = rc ? rc : visit_optional(w, ROLE_RAW_GATE, &b->raw_gate, w->hidden_size);
    }
    return rc ? rc : visit_norm(w, ROLE_POST_NORM, &b->post_norm, w->hidden_size);
}

static int visit_ngrams(struct walk *w, struct nn_model *m)
{
    const struct ngram_spec *s = &m->spec->ngram;
    int n = (s->n - 1) * s->k;
    int rc = w->fn(w->ctx, &(struct nn_slot){.layer = w->layer,
                                             .branch = w->branch,
                                             .role = ROLE_NGRAM_TABLES,
                                             .n_out = s->size + 1,
                                             .growth = 2,
                                             .n_in = s->dim,
                                             .n_experts = n,
                                             .weight = m->ngram_tables.w});

    return rc ? rc
              : visit_experts(w, ROLE_NGRAM_PROJS, &m->ngram_projs, n, w->hidden_size, s->dim,
                              false);
}

int nn_slots(struct nn_model *m, nn_slot_fn fn, void *ctx)
{
    const struct spec *s = m->spec;
    struct walk w = {.fn = fn,
                     .ctx = ctx,
                     .layer = -1,
                     .branch = -1,
                     .hidden_size = s->hidden_size,
                     .layer_input = s->layer_input_size,
                     .altup = &s->altup};
    int rc;

    rc =
        visit_matrix(&w, ROLE_EMBED_TOKENS, &m->embed_tokens, s->vocab_size, s->hidden_size, false);
    if (!rc && s->n_positions)
        rc = visit_matrix(&w, ROLE_POSITIONS, &m->positions, s->n_positions, s->hidden_size, false);
    rc = rc ? rc : visit_norm(&w, ROLE_EMBED_NORM, &m->embed_norm, s->hidden_size);
    if (!rc && !s->tie_word_embeddings)
        rc = visit_matrix(&w, ROLE_LM_HEAD, &m->lm_head, s->vocab_size, s->hidden_size,
                          s->lm_head_bias);
    rc = rc ? rc : visit_norm(&w, ROLE_FINAL_NORM, &m->final_norm, s->hidden_size);
    if (!rc && s->layer_input_size) {
        int n = s->n_layers * s->layer_input_size;

        rc = visit_matrix(&w, ROLE_LAYER_TABLE, &m->layer_table, s->layer_input_vocab, n, false);
        rc = rc ? rc : visit_matrix(&w, ROLE_LAYER_PROJ, &m->layer_proj, n, s->hidden_size, false);
        rc = rc ? rc : visit_norm(&w, ROLE_LAYER_NORM, &m->layer_norm, s->layer_input_size);
    }
    if (!rc && s->ngram.n)
        rc = visit_ngrams(&w, m);
    if (!rc && s->altup.n > 1) {
        rc = visit_experts(&w, ROLE_ALTUP_IN, &m->altup_in, s->altup.n - 1, s->hidden_size,
                           s->hidden_size, false);
        rc = rc ? rc
                : visit_experts(&w, ROLE_ALTUP_OUT, &m->altup_out, s->altup.n - 1, s->hidden_size,
                                s->hidden_size, false);
    }
    if (!rc && s->n_kept)
        rc = visit_residual(&w, &m->residual);
    if (!rc && s->logit_gain)
        rc = visit_vector(&w, ROLE_LOGIT_GAIN, &m->logit_gain, 1);
    for (int i = 0; i < s->n_layers; i++) {
        for (int b = 0; b < m->layers[i].n_branches && !s->layers[i].same_as; b++) {
            w.layer = i;
            w.branch = b;
            rc = rc ? rc : visit_branch(&w, &m->layers[i].branches[b]);
        }
    }
    return rc;
}

static bool rope_equal(const struct rope_spec *a, const struct rope_spec *b)
{
    return a->kind == b->kind && a->head_dim == b->head_dim && a->dims == b->dims &&
           a->backward == b->backward && a->theta == b->theta && a->factor == b->factor &&
           a->max_positions == b->max_positions &&
           a->original_max_positions == b->original_max_positions &&
           a->low_freq_factor == b->low_freq_factor && a->high_freq_factor == b->high_freq_factor &&
           a->beta_fast == b->beta_fast && a->beta_slow == b->beta_slow && a->mscale == b->mscale &&
           a->mscale_all_dim == b->mscale_all_dim && a->attention_factor == b->attention_factor &&
           a->factors == b->factors && a->no_truncate == b->no_truncate;
}

/* The table for these angles, made when there is none yet; -1 for no rope, -2 with *err. */
static int rope_table_of(struct nn_model *m, const struct rope_spec *s, device *d, arena *a,
                         clm_error *err)
{
    int n = rope_turning(s) / 2;
    struct nn_rope *r = &m->ropes[m->n_ropes];
    float *inv_freq;
    void *on_device;

    if (s->kind == ROPE_NONE)
        return -1;
    for (int i = 0; i < m->n_ropes; i++)
        if (rope_equal(&m->ropes[i].spec, s))
            return i;
    *r = (struct nn_rope){.spec = *s, .mscale = rope_mscale(s)};
    if (s->kind != ROPE_DYNAMIC) {
        inv_freq = arena_array(a, float, n);
        if (!inv_freq)
            return fail(err, CLM_ERR_NOMEM, "rotary angles: no memory for %d numbers", n) - 1;
        rope_inv_freq(inv_freq, s, 0);
        on_device = d->ops->alloc(d, (size_t)n * sizeof(float), err);
        if (!on_device)
            return -2;
        d->ops->upload(d, on_device, inv_freq, (size_t)n * sizeof(float));
        r->inv_freq = on_device;
    }
    return m->n_ropes++;
}

static int new_experts(struct nn_moe *m, arena *a)
{
    int n = m->spec->router.n_experts - m->spec->n_zero_experts;

    m->gate_proj.w = arena_array(a, struct weight, n);
    m->up_proj.w = arena_array(a, struct weight, n);
    m->down_proj.w = arena_array(a, struct weight, n);
    return m->gate_proj.w && m->up_proj.w && m->down_proj.w ? 0 : -1;
}

/* Its cache is the next layer of the model's. */
static int new_index(struct nn_model *m, struct nn_index *n, const struct index_spec *s, device *d,
                     arena *a, clm_error *err)
{
    n->spec = s;
    n->q_norm.spec = &s->q_norm;
    n->k_norm.spec = &s->k_norm;
    if (!s->topk)
        return 0;
    n->cache_layer = m->n_cache_layers++;
    n->rope = rope_table_of(m, &s->rope, d, a, err);
    return n->rope == -2 ? -1 : 0;
}

static int new_mla(struct nn_model *m, struct nn_mla *n, const struct mla_spec *s, device *d,
                   arena *a, clm_error *err)
{
    n->spec = s;
    n->q_norm.spec = &s->q_norm;
    n->kv_norm.spec = &s->kv_norm;
    n->embed_q.w = arena_array(a, struct weight, s->n_heads);
    n->unembed.w = arena_array(a, struct weight, s->n_heads);
    if (!n->embed_q.w || !n->unembed.w)
        return fail(err, CLM_ERR_NOMEM, "%d heads: no memory", s->n_heads);
    n->cache_layer = m->n_cache_layers++;
    n->rope = rope_table_of(m, &s->rope, d, a, err);
    return n->rope == -2 ? -1 : new_index(m, &n->index, &s->index, d, a, err);
}

/* The first attention of a layer. */
static int cache_layer_of(const struct nn_layer *l)
{
    for (int b = 0; b < l->n_branches; b++)
        if (l->branches[b].spec->op == OP_ATTENTION)
            return l->branches[b].attention.cache_layer;
    return 0;
}

static int new_attention(struct nn_model *m, struct nn_attention *n, const struct attention_spec *s,
                         device *d, arena *a, clm_error *err)
{
    n->spec = s;
    n->q_norm.spec = &s->q_norm;
    n->k_norm.spec = &s->k_norm;
    n->v_norm.spec = &s->v_norm;
    n->o_norm.spec = &s->o_norm;
    n->out_norm.spec = &s->out_norm;
    n->cache_layer =
        s->cache_of ? cache_layer_of(&m->layers[s->cache_of - 1]) : m->n_cache_layers++;
    n->mixed_cache_layer = s->mixed_with ? cache_layer_of(&m->layers[s->mixed_with - 1]) : 0;
    n->rope = rope_table_of(m, &s->rope, d, a, err);
    n->mix_gate.w = s->mix_gate ? arena_array(a, struct weight, s->n_heads) : NULL;
    if (s->mix_gate && !n->mix_gate.w)
        return fail(err, CLM_ERR_NOMEM, "%d heads: no memory", s->n_heads);
    return n->rope == -2 ? -1 : new_index(m, &n->index, &s->index, d, a, err);
}

static int new_lightning(struct nn_model *m, struct nn_lightning *n, const struct lightning_spec *s,
                         device *d, arena *a, clm_error *err)
{
    n->spec = s;
    n->q_norm.spec = &s->q_norm;
    n->k_norm.spec = &s->k_norm;
    n->norm.spec = &s->norm;
    n->rope = rope_table_of(m, &s->rope, d, a, err);
    return n->rope == -2 ? -1 : 0;
}

static int new_rg_lru(struct nn_rg_lru *n, const struct rg_lru_spec *s, arena *a, clm_error *err)
{
    n->spec = s;
    n->input_gate.w = arena_array(a, struct weight, s->n_heads);
    n->decay_gate.w = arena_array(a, struct weight, s->n_heads);
    if (!n->input_gate.w || !n->decay_gate.w)
        return fail(err, CLM_ERR_NOMEM, "%d heads: no memory", s->n_heads);
    return 0;
}

static int new_branch(struct nn_model *m, int layer, struct nn_branch *b,
                      const struct branch_spec *s, device *d, arena *a, clm_error *err)
{
    b->spec = s;
    b->pre_norm.spec = &s->pre_norm;
    b->residual.norm.spec = &m->spec->residual_norm;
    b->post_norm.spec = &s->post_norm;
    switch (s->op) {
    case OP_NONE:
    case OP_LINEAR:
    case OP_EMBEDDING:
    case OP_LOW_RANK:
    case OP_ALTUP_ADD:
        return 0;
    case OP_ALTUP_PREDICT:
    case OP_ALTUP_CORRECT:
        b->altup.norm.spec = &m->spec->altup.router_norm;
        b->altup.predicts = &m->layers[layer].branches[0].altup;
        return 0;
    case OP_LAYER_INPUT:
        b->layer_input.layer = layer;
        return 0;
    case OP_ATTENTION:
        return new_attention(m, &b->attention, &s->attention, d, a, err);
    case OP_MLA:
        return new_mla(m, &b->mla, &s->mla, d, a, err);
    case OP_SHORT_CONV:
        b->short_conv.spec = &s->short_conv;
        return 0;
    case OP_CONV_MIXER:
        b->conv_mixer.spec = &s->conv_mixer;
        b->conv_mixer.q_norm.spec = &s->conv_mixer.q_norm;
        b->conv_mixer.k_norm.spec = &s->conv_mixer.k_norm;
        return 0;
    case OP_MLSTM:
        b->mlstm.spec = &s->mlstm;
        b->mlstm.norm.spec = &s->mlstm.norm;
        return 0;
    case OP_MAMBA:
        b->mamba.spec = &s->mamba;
        b->mamba.b_norm.spec = &s->mamba.bcdt_norm;
        b->mamba.c_norm.spec = &s->mamba.bcdt_norm;
        b->mamba.dt_norm.spec = &s->mamba.bcdt_norm;
        return 0;
    case OP_MAMBA2:
        b->mamba2.spec = &s->mamba2;
        b->mamba2.norm.spec = &s->mamba2.norm;
        b->mamba2.b_norm.spec = &s->mamba2.bcdt_norm;
        b->mamba2.c_norm.spec = &s->mamba2.bcdt_norm;
        b->mamba2.dt_norm.spec = &s->mamba2.bcdt_norm;
        return 0;
    case OP_DELTA:
        b->delta.spec = &s->delta;
        b->delta.norm.spec = &s->delta.norm;
        return 0;
    case OP_LIGHTNING:
        return new_lightning(m, &b->lightning, &s->lightning, d, a, err);
    case OP_RG_LRU:
        return new_rg_lru(&b->rg_lru, &s->rg_lru, a, err);
    case OP_RWKV7:
        b->rwkv7.spec = &s->rwkv7;
        b->rwkv7.norm.spec = &s->rwkv7.norm;
        return 0;
    case OP_MLP:
        b->mlp.spec = &s->mlp;
        b->mlp.inner_norm.spec = &s->mlp.inner_norm;
        return 0;
    case OP_MOE:
        b->moe.spec = &s->moe;
        b->moe.shared.spec = &s->moe.shared;
        b->moe.shared.inner_norm.spec = &s->moe.shared.inner_norm;
        b->moe.latent_norm.spec = &s->moe.latent_norm;
        b->moe.latent_post_norm.spec = &s->moe.latent_post_norm;
        b->moe.each_norm.spec = &s->moe.each_norm;
        b->moe.router_norm.spec = &s->moe.router_norm;
        b->moe.expert_norm.spec = &s->moe.expert_norm;
        b->moe.expert_post_norm.spec = &s->moe.expert_post_norm;
        b->moe.shared_post_norm.spec = &s->moe.shared_post_norm;
        if (new_experts(&b->moe, a))
            return fail(err, CLM_ERR_NOMEM, "%d experts: no memory", s->moe.router.n_experts);
        return 0;
    }
    return 0;
}

/* Parts of the state begin at multiples of this, as vector loads like it. */
#define STATE_ALIGNMENT 64

static int add_state(struct nn_model *m, struct nn_branch *b, clm_error *err)
{
    size_t size = branch_state_bytes(b->spec);

    b->state = m->state_bytes;
    if (size > SIZE_MAX / 2 || !size_add(m->state_bytes, size, &m->state_bytes) ||
        !size_add(m->state_bytes, STATE_ALIGNMENT - 1, &m->state_bytes))
        return fail(err, CLM_ERR_ARG, "the state of a sequence does not fit in memory");
    m->state_bytes &= ~(size_t)(STATE_ALIGNMENT - 1);
    return 0;
}

struct nn_model *nn_model_new(const struct spec *spec, device *d, arena *a, clm_error *err)
{
    struct nn_model *m = arena_array(a, struct nn_model, 1);

    if (m) {
        m->spec = spec;
        m->final_norm.spec = &spec->final_norm;
        m->residual.norm.spec = &spec->residual_norm;
        m->embed_norm.spec = &spec->embed_norm;
        m->layer_norm.spec = &spec->layer_input_norm;
        m->layers = arena_array(a, struct nn_layer, spec->n_layers);
        m->ropes = arena_array(a, struct nn_rope, spec->n_layers * LAYER_MAX_BRANCHES + 1);
        m->ngram_tables.w = arena_array(a, struct weight, spec->ngram.n * spec->ngram.k + 1);
        m->ngram_projs.w = arena_array(a, struct weight, spec->ngram.n * spec->ngram.k + 1);
        m->altup_in.w = arena_array(a, struct weight, spec->altup.n + 1);
        m->altup_out.w = arena_array(a, struct weight, spec->altup.n + 1);
    }
    if (!m || !m->layers || !m->ropes || !m->ngram_tables.w || !m->ngram_projs.w ||
        !m->altup_in.w || !m->altup_out.w)
        return fail_null(err, CLM_ERR_NOMEM, "a model of %d layers: no memory", spec->n_layers);
    for (int i = 0; i < spec->n_layers; i++) {
        m->layers[i].n_branches = spec->layers[i].n_branches;
        for (int b = 0; b < m->layers[i].n_branches; b++) {
            const struct branch_spec *s = &spec->layers[i].branches[b];

            if (new_branch(m, i, &m->layers[i].branches[b], s, d, a, err) ||
                add_state(m, &m->layers[i].branches[b], err)) {
                nn_model_release(m, d);
                return NULL;
            }
        }
    }
    return m;
}

static void share_branch(struct nn_branch *to, const struct nn_branch *from)
{
    struct nn_branch own = *to;

    *to = *from;
    to->spec = own.spec;
    to->state = own.state;
    if (own.spec->op == OP_ATTENTION) {
        to->attention.spec = own.attention.spec;
        to->attention.cache_layer = own.attention.cache_layer;
        to->attention.mixed_cache_layer = own.attention.mixed_cache_layer;
        to->attention.rope = own.attention.rope;
        to->attention.index.cache_layer = own.attention.index.cache_layer;
    }
    if (own.spec->op == OP_MLA) {
        to->mla.cache_layer = own.mla.cache_layer;
        to->mla.rope = own.mla.rope;
        to->mla.index.cache_layer = own.mla.index.cache_layer;
    }
}

void nn_model_share(struct nn_model *m)
{
    if (m->spec->tie_word_embeddings) {
        m->lm_head = m->embed_tokens;
        m->lm_head.lora = m->tied_lora;
    }
    for (int i = 0; i < m->spec->n_layers; i++) {
        int same_as = m->spec->layers[i].same_as;

        for (int b = 0; same_as && b < m->layers[i].n_branches; b++)
            share_branch(&m->layers[i].branches[b], &m->layers[same_as - 1].branches[b]);
    }
}

void nn_model_release(struct nn_model *m, device *d)
{
    if (!m)
        return;
    for (int i = 0; i < m->n_ropes; i++) {
        d->ops->free(d, (void *)(uintptr_t)m->ropes[i].inv_freq);
        m->ropes[i].inv_freq = NULL;
    }
    m->n_ropes = 0;
}
