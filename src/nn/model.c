/* nn/model.c: a model without its weights: layers, caches, states, rotary tables. */
#include "nn/weights.h"

#include <string.h>

#include "nn/rope.h"

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

/* The table for these angles; -1 for no rope. */
static int rope_table_of(struct nn_model *m, const struct rope_spec *s)
{
    if (s->kind == ROPE_NONE)
        return -1;
    for (int i = 0; i < m->n_ropes; i++)
        if (rope_equal(&m->ropes[i].spec, s))
            return i;
    m->ropes[m->n_ropes] = (struct nn_rope){.spec = *s, .mscale = rope_mscale(s)};
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
static void new_index(struct nn_model *m, struct nn_index *n, const struct index_spec *s)
{
    n->spec = s;
    n->q_norm.spec = &s->q_norm;
    n->k_norm.spec = &s->k_norm;
    if (!s->topk)
        return;
    n->cache_layer = m->n_cache_layers++;
    n->rope = rope_table_of(m, &s->rope);
}

static int new_mla(struct nn_model *m, struct nn_mla *n, const struct mla_spec *s, arena *a,
                   clm_error *err)
{
    n->spec = s;
    n->q_norm.spec = &s->q_norm;
    n->kv_norm.spec = &s->kv_norm;
    n->embed_q.w = arena_array(a, struct weight, s->n_heads);
    n->unembed.w = arena_array(a, struct weight, s->n_heads);
    if (!n->embed_q.w || !n->unembed.w)
        return fail(err, CLM_ERR_NOMEM, "%d heads: no memory", s->n_heads);
    n->cache_layer = m->n_cache_layers++;
    n->rope = rope_table_of(m, &s->rope);
    new_index(m, &n->index, &s->index);
    return 0;
}

/* The attention of a layer with pooled keys. */
static const struct nn_pooled *pooled_of(const struct nn_layer *l)
{
    for (int b = 0; b < l->n_branches; b++)
        if (l->branches[b].spec->op == OP_POOLED)
            return &l->branches[b].pooled;
    return NULL;
}

static int new_pooled(struct nn_model *m, struct nn_pooled *n, const struct pooled_spec *s,
                      arena *a, clm_error *err)
{
    n->spec = s;
    n->q_norm.spec = n->kv_norm.spec = n->pool_norm.spec = n->index_norm.spec = &s->norm;
    n->group_proj.w = arena_array(a, struct weight, s->n_groups);
    if (!n->group_proj.w)
        return fail(err, CLM_ERR_NOMEM, "%d groups of heads: no memory", s->n_groups);
    n->cache_layer = m->n_cache_layers;
    m->n_cache_layers += 1 + s->pools + (s->pools && s->chooses);
    if (s->keys_of)
        n->pooled_layer = pooled_of(&m->layers[s->keys_of - 1])->cache_layer + 1;
    if (s->index_of)
        n->index_layer = pooled_of(&m->layers[s->index_of - 1])->cache_layer + 2;
    n->rope = rope_table_of(m, &s->rope);
    n->back = rope_table_of(m, &s->back);
    return 0;
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
                         arena *a, clm_error *err)
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
    n->rope = rope_table_of(m, &s->rope);
    n->mix_gate.w = s->mix_gate ? arena_array(a, struct weight, s->n_heads) : NULL;
    if (s->mix_gate && !n->mix_gate.w)
        return fail(err, CLM_ERR_NOMEM, "%d heads: no memory", s->n_heads);
    new_index(m, &n->index, &s->index);
    return 0;
}

static void new_lightning(struct nn_model *m, struct nn_lightning *n,
                          const struct lightning_spec *s)
{
    n->spec = s;
    n->q_norm.spec = &s->q_norm;
    n->k_norm.spec = &s->k_norm;
    n->norm.spec = &s->norm;
    n->rope = rope_table_of(m, &s->rope);
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
                      const struct branch_spec *s, arena *a, clm_error *err)
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
    case OP_HYPER_WRITE:
        return 0;
    case OP_HYPER_READ:
        b->hyper.norm.spec = &m->spec->hyper.norm;
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
        return new_attention(m, &b->attention, &s->attention, a, err);
    case OP_MLA:
        return new_mla(m, &b->mla, &s->mla, a, err);
    case OP_POOLED:
        return new_pooled(m, &b->pooled, &s->pooled, a, err);
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
        new_lightning(m, &b->lightning, &s->lightning);
        return 0;
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

bool nn_remembers(const struct branch_spec *b)
{
    switch (b->op) {
    case OP_NONE:
    case OP_LINEAR:
    case OP_EMBEDDING:
    case OP_MOE:
    case OP_LAYER_INPUT:
    case OP_LOW_RANK:
    case OP_ALTUP_PREDICT:
    case OP_ALTUP_CORRECT:
    case OP_ALTUP_ADD:
    case OP_HYPER_READ:
    case OP_HYPER_WRITE:
        return false;
    case OP_MLP:
        return b->mlp.shifted;
    case OP_ATTENTION:
        return !b->attention.cache_of || b->attention.index.topk || b->attention.kv_conv;
    default:
        return true;
    }
}

static void find_last(struct nn_model *m)
{
    int first = 0;

    m->last_layer = -1;
    for (int i = 0; i < m->spec->n_layers; i++)
        for (int b = 0; b < m->layers[i].n_branches; b++) {
            const struct branch_spec *s = m->layers[i].branches[b].spec;

            first = b > 0 && s->parallel ? first : b;
            if (nn_remembers(s)) {
                m->last_layer = i;
                m->last_branch = first;
            }
        }
}

bool nn_meets_asked(const struct nn_model *m, const struct nn_slot *s)
{
    const struct branch_spec *b;

    if (s->layer < 0)
        return nn_role_is_last(s->role) ||
               (s->role == ROLE_EMBED_TOKENS && m->spec->tie_word_embeddings);
    if (m->last_layer < 0 || s->layer < m->last_layer ||
        (s->layer == m->last_layer && s->branch < m->last_branch))
        return false;
    b = &m->spec->layers[s->layer].branches[s->branch];
    return !nn_remembers(b) ||
           (b->op == OP_ATTENTION && s->role != ROLE_K_PROJ && s->role != ROLE_V_PROJ &&
            s->role != ROLE_INDEX_K) ||
           (b->op == OP_MLA && s->role != ROLE_MLA_KV_A && s->role != ROLE_INDEX_K) ||
           b->op == OP_MLP;
}

struct nn_model *nn_model_new(const struct spec *spec, arena *a, clm_error *err)
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
        m->layers[i].first_cache = m->n_cache_layers;
        m->layers[i].state = m->state_bytes;
        m->layers[i].n_branches = spec->layers[i].n_branches;
        for (int b = 0; b < m->layers[i].n_branches; b++) {
            const struct branch_spec *s = &spec->layers[i].branches[b];

            if (new_branch(m, i, &m->layers[i].branches[b], s, a, err) ||
                add_state(m, &m->layers[i].branches[b], err))
                return NULL;
        }
    }
    find_last(m);
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
        if (!nn_tied_apart(m))
            m->lm_head = m->embed_tokens;
        m->lm_head.bias = m->head_bias;
        m->lm_head.lora = m->tied_lora;
    }
    for (int i = 0; i < m->spec->n_layers; i++) {
        int same_as = m->spec->layers[i].same_as;

        for (int b = 0; same_as && b < m->layers[i].n_branches; b++)
            share_branch(&m->layers[i].branches[b], &m->layers[same_as - 1].branches[b]);
    }
}
