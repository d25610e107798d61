/* nn/slots.c: the list of all places of a model's weights, block by block. */
#include "nn/weights.h"

#include <string.h>

/* A walk over the places: where it is, and whom it tells. */
struct walk {
    nn_slot_fn fn;
    void *ctx;
    int layer, branch;
    int hidden_size, layer_input;
    const struct altup_spec *altup;
    const struct hyper_spec *hyper;
    int rc; /* the first that is not 0; then no one is told any more */
};

static void visit(struct walk *w, struct nn_slot slot)
{
    slot.layer = w->layer;
    slot.branch = w->branch;
    if (!w->rc)
        w->rc = w->fn(w->ctx, &slot);
}

static void visit_matrix(struct walk *w, enum weight_role role, struct nn_linear *l, int n_out,
                         int n_in, bool bias)
{
    visit(w, (struct nn_slot){
                 .role = role,
                 .n_out = n_out,
                 .n_in = n_in,
                 .weight = &l->w,
                 .order = weight_role_is_table(role) ? NULL : &l->order,
                 .rotation = &l->rotation,
                 .lora = &l->lora,
                 .bias = bias ? &l->bias : NULL,
             });
}

static void visit_experts(struct walk *w, enum weight_role role, struct nn_experts *e,
                          int n_experts, int n_out, int n_in, bool bias)
{
    bool adaptable = role == ROLE_EXPERT_GATE || role == ROLE_EXPERT_UP ||
                     role == ROLE_EXPERT_DOWN || role == ROLE_MLA_EMBED_Q ||
                     role == ROLE_MLA_UNEMBED || role == ROLE_ALTUP_IN || role == ROLE_ALTUP_OUT;

    visit(w, (struct nn_slot){
                 .role = role,
                 .n_out = n_out,
                 .n_in = n_in,
                 .n_experts = n_experts,
                 .weight = e->w,
                 .lora = adaptable ? &e->lora : NULL,
                 .bias = bias ? &e->bias : NULL,
             });
}

/* A vector of its own: neither bias nor part of a norm. */
static void visit_vector_as(struct walk *w, enum weight_role role, const float **v, int size,
                            enum vector_form form)
{
    visit(w, (struct nn_slot){
                 .role = role,
                 .n_out = size,
                 .vector = v,
                 .form = form,
             });
}

static void visit_vector(struct walk *w, enum weight_role role, const float **v, int size)
{
    visit_vector_as(w, role, v, size, VECTOR_AS_STORED);
}

static void visit_optional(struct walk *w, enum weight_role role, const float **v, int size)
{
    visit(w, (struct nn_slot){
                 .role = role,
                 .n_out = size,
                 .vector = v,
                 .optional = true,
             });
}

/* n_parts > 0: weights of their own for each of so many heads. */
static void visit_norms(struct walk *w, enum weight_role role, struct nn_norm *n, int size,
                        int n_parts)
{
    if (n->spec->kind == NORM_NONE || n->spec->weightless)
        return;
    visit(w, (struct nn_slot){
                 .role = role,
                 .n_out = size,
                 .n_experts = n_parts,
                 .vector = &n->w,
                 .bias = n->spec->bias ? &n->b : NULL,
                 .offset = n->spec->offset,
             });
}

static void visit_norm(struct walk *w, enum weight_role role, struct nn_norm *n, int size)
{
    visit_norms(w, role, n, size, 0);
}

/* A filter for each channel, which a head's channels share where they are in heads. */
static void visit_head_conv(struct walk *w, enum weight_role role, struct nn_conv *c, int channels,
                            int width, bool bias, int head_dim)
{
    visit(w, (struct nn_slot){
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
static void visit_conv(struct walk *w, enum weight_role role, struct nn_conv *c, int channels,
                       int width, bool bias)
{
    visit_head_conv(w, role, c, channels, width, bias, 1);
}

/* Of n_heads queries or keys. */
static void visit_head_norm(struct walk *w, enum weight_role role, struct nn_norm *n,
                            const struct attention_spec *s, int n_heads)
{
    switch (s->qk_norm_span) {
    case QK_NORM_EACH:
        visit_norms(w, role, n, s->head_dim, n_heads);
        break;
    case QK_NORM_ALL:
        visit_norm(w, role, n, n_heads * s->head_dim);
        break;
    case QK_NORM_HEAD:
        visit_norm(w, role, n, s->head_dim);
        break;
    }
}

/* Its queries are made of n_in numbers. */
static void visit_index(struct walk *w, struct nn_index *x, int n_in)
{
    const struct index_spec *s = x->spec;

    if (!s->topk)
        return;
    visit_matrix(w, ROLE_INDEX_Q, &x->q, s->n_heads * s->dim, n_in, false);
    visit_matrix(w, ROLE_INDEX_K, &x->k, s->dim, w->hidden_size, false);
    if (!s->block_size)
        visit_matrix(w, ROLE_INDEX_WEIGHTS, &x->weights, s->n_heads, w->hidden_size, false);
    visit_norm(w, ROLE_INDEX_K_NORM, &x->k_norm, s->dim);
    visit_norm(w, ROLE_INDEX_Q_NORM, &x->q_norm, s->dim);
}

static void visit_attention(struct walk *w, struct nn_attention *a)
{
    const struct attention_spec *s = a->spec;
    int q = s->n_heads * s->head_dim, k = s->n_kv_heads * s->head_dim;
    int v_dim = s->v_dim ? s->v_dim : s->head_dim, o = s->n_heads * v_dim;
    bool own = s->kv_source != KV_TAKEN && !s->cache_of;

    visit_matrix(w, ROLE_Q_PROJ, &a->q_proj, q, w->hidden_size, s->qkv_bias);
    if (own)
        visit_matrix(w, ROLE_K_PROJ, &a->k_proj, k, w->hidden_size, s->qkv_bias);
    if (own && !s->values_are_keys)
        visit_matrix(w, ROLE_V_PROJ, &a->v_proj, s->n_kv_heads * v_dim, w->hidden_size,
                     s->qkv_bias);
    visit_matrix(w, ROLE_O_PROJ, &a->o_proj, w->hidden_size, o, s->o_bias);
    visit_head_norm(w, ROLE_Q_NORM, &a->q_norm, s, s->n_heads);
    if (!s->cache_of)
        visit_head_norm(w, ROLE_K_NORM, &a->k_norm, s, s->n_kv_heads);
    visit_norm(w, ROLE_O_NORM, &a->o_norm, o);
    if (s->gate != GATE_NONE)
        visit_matrix(w, ROLE_ATTENTION_GATE, &a->gate, s->gate == GATE_HEADS ? s->n_heads : o,
                     w->hidden_size, s->gate_bias);
    if (s->head_gain)
        visit_vector(w, ROLE_HEAD_GAIN, &a->head_gain, s->n_heads);
    if (s->kv_conv) {
        visit_head_conv(w, ROLE_K_CONV, &a->k_conv, k, s->kv_conv, false, s->head_dim);
        visit_head_conv(w, ROLE_V_CONV, &a->v_conv, k, s->kv_conv, false, s->head_dim);
    }
    if (s->sinks)
        visit_vector(w, ROLE_SINKS, &a->sinks, s->n_heads);
    if (s->rounded_kv && own) {
        visit_vector(w, ROLE_K_STEP, &a->k_step, 1);
        visit_vector(w, ROLE_V_STEP, &a->v_step, 1);
    }
    if (s->mix_gate)
        visit_experts(w, ROLE_MIX_GATE, &a->mix_gate, s->n_heads, 1, s->head_dim, true);
    visit_index(w, &a->index, w->hidden_size);
}

static void visit_mla(struct walk *w, struct nn_mla *m)
{
    const struct mla_spec *s = m->spec;
    int q = s->n_heads * (s->nope_dim + s->rope_dim);

    if (s->q_rank) {
        visit_matrix(w, ROLE_MLA_Q_A, &m->q_a_proj, s->q_rank, w->hidden_size, s->a_bias);
        visit_norm(w, ROLE_MLA_Q_NORM, &m->q_norm, s->q_rank);
    }
    visit_matrix(w, ROLE_MLA_Q, &m->q_proj, q, s->q_rank ? s->q_rank : w->hidden_size, s->q_bias);
    visit_matrix(w, ROLE_MLA_KV_A, &m->kv_a_proj, s->kv_rank + s->rope_dim, w->hidden_size,
                 s->a_bias);
    visit_norm(w, ROLE_MLA_KV_NORM, &m->kv_norm, s->kv_rank);
    visit_experts(w, ROLE_MLA_EMBED_Q, &m->embed_q, s->n_heads, s->kv_rank, s->nope_dim, false);
    visit_experts(w, ROLE_MLA_UNEMBED, &m->unembed, s->n_heads, s->v_dim, s->kv_rank, false);
    visit_index(w, &m->index, s->q_rank);
    if (s->gate != GATE_NONE)
        visit_matrix(w, ROLE_ATTENTION_GATE, &m->gate,
                     s->gate == GATE_HEADS ? s->n_heads : s->n_heads * s->v_dim, w->hidden_size,
                     false);
    visit_matrix(w, ROLE_MLA_O, &m->o_proj, w->hidden_size, s->n_heads * s->v_dim, s->o_bias);
}

/* What pooled keys are made of, and what they are chosen by. */
static void visit_pools(struct walk *w, struct nn_pooled *p)
{
    const struct pooled_spec *s = p->spec;
    int n = w->hidden_size;

    if (s->pools)
        visit_matrix(w, ROLE_POOL_KV, &p->pool_kv, s->head_dim, n, false);
    if (s->pools && s->ratio > 1)
        visit_matrix(w, ROLE_POOL_GATE, &p->pool_gate, s->head_dim, n, false);
    if (s->pools)
        visit_norm(w, ROLE_POOL_NORM, &p->pool_norm, s->head_dim);
    if (!s->chooses)
        return;
    visit_matrix(w, ROLE_INDEX_Q, &p->index_q, s->index_heads * s->index_dim, s->q_rank, false);
    visit_matrix(w, ROLE_INDEX_WEIGHTS, &p->index_weights, s->index_heads, n, false);
    if (!s->pools)
        return;
    visit_matrix(w, ROLE_POOL_INDEX_K, &p->index_k, s->index_dim, s->head_dim, false);
    visit_norm(w, ROLE_INDEX_K_NORM, &p->index_norm, s->index_dim);
}

static void visit_pooled(struct walk *w, struct nn_pooled *p)
{
    const struct pooled_spec *s = p->spec;
    int n = w->hidden_size, q = s->n_heads * s->head_dim;

    visit_matrix(w, ROLE_MLA_Q_A, &p->q_a_proj, s->q_rank, n, false);
    visit_matrix(w, ROLE_MLA_Q, &p->q_proj, q, s->q_rank, false);
    visit_matrix(w, ROLE_MLA_KV_A, &p->kv_proj, s->head_dim, n, false);
    visit_matrix(w, ROLE_MLA_O, &p->o_proj, n, s->n_groups * s->o_rank, false);
    visit_norm(w, ROLE_MLA_Q_NORM, &p->q_norm, s->q_rank);
    visit_norm(w, ROLE_MLA_KV_NORM, &p->kv_norm, s->head_dim);
    visit_vector(w, ROLE_SINKS, &p->sinks, s->n_heads);
    visit_experts(w, ROLE_GROUP_PROJ, &p->group_proj, s->n_groups, s->o_rank, q / s->n_groups,
                  false);
    visit_pools(w, p);
}

static void visit_hyper(struct walk *w, struct nn_hyper *h)
{
    int n = w->hyper->n, mix = (2 + n) * n;

    visit_matrix(w, ROLE_HYPER_FN, &h->fn, mix, n * w->hidden_size, false);
    visit_vector(w, ROLE_HYPER_BASE, &h->base, mix);
    visit_vector(w, ROLE_HYPER_SCALE, &h->scale, 3);
}

static void visit_short_conv(struct walk *w, struct nn_short_conv *c)
{
    const struct short_conv_spec *s = c->spec;
    int n = s->channels;

    visit_matrix(w, ROLE_SHORT_CONV_IN, &c->in_proj, 3 * n, w->hidden_size, s->bias);
    visit_conv(w, ROLE_CONV, &c->conv, n, s->width, s->bias);
    visit_matrix(w, ROLE_SHORT_CONV_OUT, &c->out_proj, w->hidden_size, n, s->bias);
}

static void visit_conv_mixer(struct walk *w, struct nn_conv_mixer *m)
{
    const struct conv_mixer_spec *s = m->spec;
    int n = w->hidden_size, q = s->n_heads * s->head_dim, k = s->n_kv_heads * s->head_dim;

    visit_matrix(w, ROLE_Q_PROJ, &m->q_proj, q, n, s->bias);
    visit_matrix(w, ROLE_K_PROJ, &m->k_proj, k, n, s->bias);
    visit_matrix(w, ROLE_V_PROJ, &m->v_proj, k, n, s->bias);
    visit_matrix(w, ROLE_O_PROJ, &m->o_proj, n, q, s->bias);
    visit_norm(w, ROLE_Q_NORM, &m->q_norm, s->head_dim);
    visit_norm(w, ROLE_K_NORM, &m->k_norm, s->head_dim);
    visit_conv(w, ROLE_K_CONV, &m->k_conv, k, s->width, s->bias);
    visit_conv(w, ROLE_V_CONV, &m->v_conv, k, s->width, s->bias);
}

static void visit_mlstm(struct walk *w, struct nn_mlstm *m)
{
    const struct mlstm_spec *s = m->spec;
    int n = w->hidden_size, keys = s->n_heads * s->key_dim, values = s->n_heads * s->value_dim;

    visit_matrix(w, ROLE_MLSTM_Q, &m->q_proj, keys, n, s->bias);
    visit_matrix(w, ROLE_MLSTM_K, &m->k_proj, keys, n, s->bias);
    visit_matrix(w, ROLE_MLSTM_V, &m->v_proj, values, n, s->bias);
    visit_matrix(w, ROLE_MLSTM_OUT_GATE, &m->out_gate, values, n, s->bias);
    visit_matrix(w, ROLE_MLSTM_IN_GATE, &m->in_gate, s->n_heads, n, true);
    visit_matrix(w, ROLE_MLSTM_FORGET_GATE, &m->forget_gate, s->n_heads, n, true);
    visit_norm(w, ROLE_MLSTM_NORM, &m->norm, values);
    visit_matrix(w, ROLE_MLSTM_OUT, &m->o_proj, n, values, s->bias);
}

static void visit_mamba(struct walk *w, struct nn_mamba *m)
{
    const struct mamba_spec *s = m->spec;
    int n = w->hidden_size, c = s->channels;

    visit_matrix(w, ROLE_SSM_Z, &m->z, c, n, s->bias);
    visit_matrix(w, ROLE_SSM_X, &m->x, c, n, s->bias);
    visit_conv(w, ROLE_CONV, &m->conv, c, s->conv_width, s->conv_bias);
    visit_matrix(w, ROLE_SSM_BCDT, &m->bcdt, s->dt_rank + 2 * s->state_size, c, false);
    visit_norm(w, ROLE_SSM_B_NORM, &m->b_norm, s->state_size);
    visit_norm(w, ROLE_SSM_C_NORM, &m->c_norm, s->state_size);
    visit_norm(w, ROLE_SSM_DT_NORM, &m->dt_norm, s->dt_rank);
    visit_matrix(w, ROLE_SSM_DT, &m->dt, c, s->dt_rank, true);
    visit_vector_as(w, ROLE_SSM_A, &m->a, c * s->state_size, VECTOR_MINUS_EXP);
    visit_vector(w, ROLE_SSM_D, &m->d, c);
    visit_matrix(w, ROLE_SSM_OUT, &m->out_proj, n, c, s->bias);
}

/* B, C and the time step, where they are made of the convolved x. */
static void visit_bcdt(struct walk *w, struct nn_mamba2 *m, int inner)
{
    const struct mamba2_spec *s = m->spec;

    visit_matrix(w, ROLE_SSM_BCDT, &m->bcdt, 2 * s->state_size + s->dt_rank, inner, false);
    visit_matrix(w, ROLE_SSM_DT, &m->dt, s->n_heads, s->dt_rank, false);
    visit_norm(w, ROLE_SSM_B_NORM, &m->b_norm, s->state_size);
    visit_norm(w, ROLE_SSM_C_NORM, &m->c_norm, s->state_size);
    visit_norm(w, ROLE_SSM_DT_NORM, &m->dt_norm, s->dt_rank);
}

static void visit_mamba2(struct walk *w, struct nn_mamba2 *m)
{
    const struct mamba2_spec *s = m->spec;
    int n = w->hidden_size, inner = s->n_heads * s->head_dim, channels = mamba2_channels(s);

    visit_matrix(w, ROLE_SSM_Z, &m->z, inner, n, s->in_bias);
    visit_matrix(w, ROLE_SSM_X, &m->x, channels, n, s->in_bias);
    if (s->dt_rank)
        visit_bcdt(w, m, inner);
    else
        visit_matrix(w, ROLE_SSM_DT, &m->dt, s->n_heads, n, s->in_bias);
    visit_conv(w, ROLE_CONV, &m->conv, channels, s->conv_width, s->conv_bias);
    visit_vector_as(w, ROLE_SSM_A, &m->a, s->n_heads, VECTOR_MINUS_EXP);
    visit_vector(w, ROLE_SSM_D, &m->d, s->n_heads);
    visit_vector(w, ROLE_SSM_DT_BIAS, &m->dt_bias, s->n_heads);
    visit_norm(w, ROLE_SSM_NORM, &m->norm, inner);
    visit_matrix(w, ROLE_SSM_OUT, &m->out_proj, n, inner, s->out_bias);
}

/* From hidden_size numbers, through rank where that is not 0. */
static void visit_through(struct walk *w, enum weight_role down, enum weight_role up,
                          struct nn_low_rank *l, int rank, int n_out)
{
    if (rank)
        visit_matrix(w, down, &l->down, rank, w->hidden_size, false);
    visit_matrix(w, up, &l->up, n_out, rank ? rank : w->hidden_size, false);
}

static void visit_delta(struct walk *w, struct nn_delta *d)
{
    const struct delta_spec *s = d->spec;
    int keys = s->n_key_heads * s->key_dim, values = s->n_heads * s->value_dim;
    int decays = s->keywise ? s->n_heads * s->key_dim : s->n_heads;

    visit_matrix(w, ROLE_DELTA_Q, &d->q_proj, keys, w->hidden_size, false);
    visit_matrix(w, ROLE_DELTA_K, &d->k_proj, keys, w->hidden_size, false);
    visit_matrix(w, ROLE_DELTA_V, &d->v_proj, values, w->hidden_size, false);
    visit_through(w, ROLE_DELTA_GATE_DOWN, ROLE_DELTA_GATE, &d->gate, s->gate_rank, values);
    visit_matrix(w, ROLE_DELTA_BETA, &d->beta, s->n_heads, w->hidden_size, false);
    visit_through(w, ROLE_DELTA_DECAY_DOWN, ROLE_DELTA_DECAY, &d->decay, s->decay_rank, decays);
    visit_conv(w, ROLE_DELTA_CONV_Q, &d->conv_q, keys, s->conv_width, false);
    visit_conv(w, ROLE_DELTA_CONV_K, &d->conv_k, keys, s->conv_width, false);
    visit_conv(w, ROLE_DELTA_CONV_V, &d->conv_v, values, s->conv_width, false);
    visit_vector_as(w, ROLE_DELTA_A, &d->a, s->n_heads, VECTOR_MINUS_EXP);
    visit_vector(w, ROLE_DELTA_DT_BIAS, &d->dt_bias, decays);
    visit_norm(w, ROLE_DELTA_NORM, &d->norm, s->value_dim);
    visit_matrix(w, ROLE_DELTA_O, &d->o_proj, w->hidden_size, values, false);
}

static void visit_lightning(struct walk *w, struct nn_lightning *l)
{
    const struct lightning_spec *s = l->spec;
    int n = s->n_heads * s->head_dim;

    visit_matrix(w, ROLE_Q_PROJ, &l->q_proj, n, w->hidden_size, s->qkv_bias);
    visit_matrix(w, ROLE_K_PROJ, &l->k_proj, n, w->hidden_size, s->qkv_bias);
    visit_matrix(w, ROLE_V_PROJ, &l->v_proj, n, w->hidden_size, s->qkv_bias);
    visit_matrix(w, ROLE_O_PROJ, &l->o_proj, w->hidden_size, n, s->o_bias);
    visit_matrix(w, ROLE_ATTENTION_GATE, &l->gate, n, w->hidden_size, false);
    visit_norm(w, ROLE_Q_NORM, &l->q_norm, s->head_dim);
    visit_norm(w, ROLE_K_NORM, &l->k_norm, s->head_dim);
    visit_norm(w, ROLE_LIGHTNING_NORM, &l->norm, n);
}

static void visit_rg_lru(struct walk *w, struct nn_rg_lru *r)
{
    const struct rg_lru_spec *s = r->spec;
    int n = s->channels, size = n / s->n_heads;

    visit_matrix(w, ROLE_RG_LRU_Y, &r->y_proj, n, w->hidden_size, true);
    visit_matrix(w, ROLE_RG_LRU_X, &r->x_proj, n, w->hidden_size, true);
    visit_conv(w, ROLE_CONV, &r->conv, n, s->conv_width, true);
    visit_experts(w, ROLE_RG_LRU_INPUT_GATE, &r->input_gate, s->n_heads, size, size, true);
    visit_experts(w, ROLE_RG_LRU_DECAY_GATE, &r->decay_gate, s->n_heads, size, size, true);
    visit_vector_as(w, ROLE_RG_LRU_DECAY, &r->decay, n, VECTOR_SOFTPLUS);
    visit_matrix(w, ROLE_RG_LRU_OUT, &r->out_proj, w->hidden_size, n, true);
}

/* The two matrices of a projection through rank numbers, the second one with a bias or without. */
static void visit_lora(struct walk *w, enum weight_role down, struct nn_low_rank *l, int rank,
                       bool bias)
{
    enum weight_role up = down - ROLE_RWKV_DECAY_DOWN + ROLE_RWKV_DECAY;
    int n = w->hidden_size;

    visit_matrix(w, down, &l->down, rank, n, false);
    visit_matrix(w, up, &l->up, n, rank, bias);
}

static void visit_rwkv7(struct walk *w, struct nn_rwkv7 *r)
{
    const struct rwkv7_spec *s = r->spec;
    struct nn_linear *l[] = {&r->r_proj, &r->k_proj, &r->v_proj, &r->o_proj};
    int n = w->hidden_size;

    for (int i = 0; i < 6; i++)
        visit_vector(w, ROLE_RWKV_MIX_R + i, &r->mix[i], n);
    for (int i = 0; i < 4; i++)
        visit_matrix(w, ROLE_RWKV_R + i, l[i], n, n, false);
    visit_lora(w, ROLE_RWKV_DECAY_DOWN, &r->decay, s->decay_rank, true);
    visit_lora(w, ROLE_RWKV_RATE_DOWN, &r->rate, s->rate_rank, true);
    if (s->value_rank)
        visit_lora(w, ROLE_RWKV_VALUE_DOWN, &r->value, s->value_rank, true);
    visit_lora(w, ROLE_RWKV_GATE_DOWN, &r->gate, s->gate_rank, false);
    visit_vector(w, ROLE_RWKV_KEY_SCALE, &r->key_scale, n);
    visit_vector(w, ROLE_RWKV_KEY_RATE, &r->key_rate, n);
    visit_vector(w, ROLE_RWKV_BONUS, &r->bonus, n);
    visit_norm(w, ROLE_RWKV_NORM, &r->norm, n);
}

/* Its roles are gate, up and down from first on. */
static void visit_mlp(struct walk *w, enum weight_role first, struct nn_mlp *m)
{
    const struct mlp_spec *s = m->spec;
    int n = s->intermediate_size;

    if (s->gated)
        visit_matrix(w, first, &m->gate_proj, n, w->hidden_size, s->bias);
    visit_matrix(w, first + 1, &m->up_proj, n, w->hidden_size, s->bias);
    visit_matrix(w, first + 2, &m->down_proj, w->hidden_size, n, s->bias);
    if (s->shifted)
        visit_vector(w, ROLE_MLP_MIX, &m->mix, w->hidden_size);
    if (first == ROLE_GATE_PROJ)
        visit_norm(w, ROLE_INNER_NORM, &m->inner_norm, n);
    for (int i = 0; i < 4 && s->xielu; i++)
        visit_vector(w, ROLE_XIELU_ALPHA_P + i, &m->xielu[i], 1);
}

static void visit_moe(struct walk *w, struct nn_moe *m)
{
    const struct mlp_spec *s = &m->spec->expert;
    int n = s->intermediate_size, e = m->spec->router.n_experts;
    int latent = m->spec->latent_size, read = latent ? latent : w->hidden_size;

    visit_matrix(w, ROLE_ROUTER, &m->router, e, w->hidden_size, m->spec->router_logit_bias);
    if (m->spec->router_bias && m->spec->router_bias_optional)
        visit_optional(w, ROLE_ROUTER_BIAS, &m->router_bias, e);
    else if (m->spec->router_bias)
        visit_vector(w, ROLE_ROUTER_BIAS, &m->router_bias, e);
    e -= m->spec->n_zero_experts;
    if (s->gated)
        visit_experts(w, ROLE_EXPERT_GATE, &m->gate_proj, e, n, read, s->bias);
    visit_experts(w, ROLE_EXPERT_UP, &m->up_proj, e, n, read, s->bias);
    visit_experts(w, ROLE_EXPERT_DOWN, &m->down_proj, e, read, n, s->bias);
    if (latent) {
        visit_matrix(w, ROLE_LATENT_IN, &m->latent_in, latent, w->hidden_size,
                     m->spec->latent_bias);
        visit_matrix(w, ROLE_LATENT_OUT, &m->latent_out, w->hidden_size, latent,
                     m->spec->latent_bias);
    }
    if (m->spec->shared.intermediate_size)
        visit_mlp(w, ROLE_SHARED_GATE, &m->shared);
    if (m->spec->shared_gate)
        visit_matrix(w, ROLE_SHARED_EXPERT_GATE, &m->shared_gate, 1, w->hidden_size, false);
    visit_norm(w, ROLE_LATENT_NORM, &m->latent_norm, read);
    visit_norm(w, ROLE_LATENT_POST_NORM, &m->latent_post_norm, read);
    visit_norm(w, ROLE_EACH_NORM, &m->each_norm, read);
    visit_norm(w, ROLE_ROUTER_NORM, &m->router_norm, w->hidden_size);
    visit_norm(w, ROLE_EXPERT_NORM, &m->expert_norm, w->hidden_size);
    visit_norm(w, ROLE_EXPERT_POST_NORM, &m->expert_post_norm, w->hidden_size);
    visit_norm(w, ROLE_SHARED_POST_NORM, &m->shared_post_norm, w->hidden_size);
    if (m->spec->expert_scales)
        visit_vector(w, ROLE_EXPERT_SCALES, &m->expert_scales, e);
    if (m->spec->shared_mix)
        visit_matrix(w, ROLE_SHARED_MIX, &m->shared_mix, 2, w->hidden_size, true);
}

static void visit_low_rank(struct walk *w, struct nn_low_rank *l, int rank)
{
    visit_matrix(w, ROLE_LOW_RANK_DOWN, &l->down, rank, w->hidden_size, false);
    visit_matrix(w, ROLE_LOW_RANK_UP, &l->up, w->hidden_size, rank, false);
}

static void visit_altup_coefs(struct walk *w, enum weight_role role, struct nn_altup *a, int n_out)
{
    visit(w, (struct nn_slot){
                 .role = role,
                 .n_out = n_out * w->altup->n,
                 .vector = &a->coefs,
                 .limit = w->altup->coef_limit,
             });
}

static void visit_altup(struct walk *w, struct nn_altup *a, enum op_kind op)
{
    int n = w->altup->n;

    if (op == OP_ALTUP_CORRECT) {
        visit_altup_coefs(w, ROLE_ALTUP_CORRECT, a, n);
        visit_vector(w, ROLE_ALTUP_SCALE, &a->scale, w->hidden_size);
        return;
    }
    visit_norm(w, ROLE_ALTUP_NORM, &a->norm, w->hidden_size);
    visit_matrix(w, ROLE_ALTUP_ROUTER, &a->router, n, w->hidden_size, false);
    visit_altup_coefs(w, ROLE_ALTUP_PREDICT, a, n * n);
}

static void visit_residual(struct walk *w, struct nn_residual *r)
{
    visit_matrix(w, ROLE_RESIDUAL_PROJ, &r->proj, 1, w->hidden_size, false);
    visit_norm(w, ROLE_RESIDUAL_NORM, &r->norm, w->hidden_size);
}

static void visit_branch(struct walk *w, struct nn_branch *b)
{
    if (b->spec->mixes)
        visit_residual(w, &b->residual);
    if (!b->spec->shared_norm && !b->spec->final_norm)
        visit_norm(w, ROLE_PRE_NORM, &b->pre_norm, w->hidden_size);
    switch (b->spec->op) {
    case OP_NONE:
    case OP_EMBEDDING:
    case OP_ALTUP_ADD:
    case OP_HYPER_WRITE:
        break;
    case OP_HYPER_READ:
        visit_hyper(w, &b->hyper);
        break;
    case OP_LOW_RANK:
        visit_low_rank(w, &b->low_rank, b->spec->rank);
        break;
    case OP_ALTUP_PREDICT:
    case OP_ALTUP_CORRECT:
        visit_altup(w, &b->altup, b->spec->op);
        break;
    case OP_LAYER_INPUT:
        visit_matrix(w, ROLE_LAYER_GATE, &b->layer_input.gate, w->layer_input, w->hidden_size,
                     false);
        visit_matrix(w, ROLE_LAYER_OUT, &b->layer_input.out, w->hidden_size, w->layer_input, false);
        break;
    case OP_LINEAR:
        visit_matrix(w, ROLE_LINEAR, &b->linear, w->hidden_size, w->hidden_size,
                     b->spec->linear_bias);
        break;
    case OP_ATTENTION:
        visit_attention(w, &b->attention);
        break;
    case OP_MLA:
        visit_mla(w, &b->mla);
        break;
    case OP_POOLED:
        visit_pooled(w, &b->pooled);
        break;
    case OP_SHORT_CONV:
        visit_short_conv(w, &b->short_conv);
        break;
    case OP_CONV_MIXER:
        visit_conv_mixer(w, &b->conv_mixer);
        break;
    case OP_MLSTM:
        visit_mlstm(w, &b->mlstm);
        break;
    case OP_MAMBA:
        visit_mamba(w, &b->mamba);
        break;
    case OP_MAMBA2:
        visit_mamba2(w, &b->mamba2);
        break;
    case OP_DELTA:
        visit_delta(w, &b->delta);
        break;
    case OP_LIGHTNING:
        visit_lightning(w, &b->lightning);
        break;
    case OP_RG_LRU:
        visit_rg_lru(w, &b->rg_lru);
        break;
    case OP_RWKV7:
        visit_rwkv7(w, &b->rwkv7);
        break;
    case OP_MLP:
        visit_mlp(w, ROLE_GATE_PROJ, &b->mlp);
        break;
    case OP_MOE:
        visit_moe(w, &b->moe);
        break;
    }
    if (b->spec->gain)
        visit_vector(w, ROLE_GAIN, &b->gain, 1);
    if (b->spec->gate_temperature > 0) {
        visit_optional(w, ROLE_OLD_GATE, &b->old_gate, w->hidden_size);
        visit_optional(w, ROLE_NEW_GATE, &b->new_gate, w->hidden_size);
        visit_optional(w, ROLE_RAW_GATE, &b->raw_gate, w->hidden_size);
    }
    visit_norm(w, ROLE_POST_NORM, &b->post_norm, w->hidden_size);
}

static void visit_ngrams(struct walk *w, struct nn_model *m)
{
    const struct ngram_spec *s = &m->spec->ngram;
    int n = (s->n - 1) * s->k;

    visit(w, (struct nn_slot){.role = ROLE_NGRAM_TABLES,
                              .n_out = s->size + 1,
                              .growth = 2,
                              .n_in = s->dim,
                              .n_experts = n,
                              .weight = m->ngram_tables.w});
    visit_experts(w, ROLE_NGRAM_PROJS, &m->ngram_projs, n, w->hidden_size, s->dim, false);
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
                     .altup = &s->altup,
                     .hyper = &s->hyper};

    int embed_size = s->embed_size ? s->embed_size : s->hidden_size;

    visit_matrix(&w, ROLE_EMBED_TOKENS, &m->embed_tokens, s->vocab_size, embed_size, false);
    if (s->embed_size) {
        visit_matrix(&w, ROLE_EMBED_PROJ, &m->embed_proj, s->hidden_size, embed_size, false);
        visit_matrix(&w, ROLE_HEAD_PROJ, &m->head_proj, embed_size, s->hidden_size, false);
    }
    if (s->n_positions)
        visit_matrix(&w, ROLE_POSITIONS, &m->positions, s->n_positions, s->hidden_size, false);
    visit_norm(&w, ROLE_EMBED_NORM, &m->embed_norm, s->hidden_size);
    if (!s->tie_word_embeddings)
        visit_matrix(&w, ROLE_LM_HEAD, &m->lm_head, s->vocab_size, embed_size, s->lm_head_bias);
    if (s->tie_word_embeddings && s->lm_head_bias)
        visit_vector(&w, ROLE_HEAD_BIAS, &m->head_bias, s->vocab_size);
    visit_norm(&w, ROLE_FINAL_NORM, &m->final_norm, s->hidden_size);
    if (s->layer_input_size) {
        int n = s->n_layers * s->layer_input_size;

        visit_matrix(&w, ROLE_LAYER_TABLE, &m->layer_table, s->layer_input_vocab, n, false);
        visit_matrix(&w, ROLE_LAYER_PROJ, &m->layer_proj, n, s->hidden_size, false);
        visit_norm(&w, ROLE_LAYER_NORM, &m->layer_norm, s->layer_input_size);
    }
    if (s->ngram.n)
        visit_ngrams(&w, m);
    if (s->altup.n > 1) {
        visit_experts(&w, ROLE_ALTUP_IN, &m->altup_in, s->altup.n - 1, s->hidden_size,
                      s->hidden_size, false);
        visit_experts(&w, ROLE_ALTUP_OUT, &m->altup_out, s->altup.n - 1, s->hidden_size,
                      s->hidden_size, false);
    }
    if (s->n_kept)
        visit_residual(&w, &m->residual);
    if (s->logit_gain)
        visit_vector(&w, ROLE_LOGIT_GAIN, &m->logit_gain, 1);
    for (int i = 0; i < s->n_layers; i++) {
        for (int b = 0; b < m->layers[i].n_branches && !s->layers[i].same_as; b++) {
            w.layer = i;
            w.branch = b;
            visit_branch(&w, &m->layers[i].branches[b]);
        }
    }
    return w.rc;
}
