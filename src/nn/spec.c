/* nn/spec.c: building and checking specs. */
#include "nn/spec.h"

#include <math.h>

#define MAX_SIZE                                                                                   \
    (1 << 24) /* of a hidden size, vocabulary, ...: products of two fit 64 bits with room */
#define MAX_LAYERS 4096
#define MAX_HEADS 4096
#define MAX_HEAD_DIM 4096
#define MAX_EXPERTS 65536
#define MAX_CONV 256

struct branch_spec *layer_add(struct layer_spec *l, struct branch_spec b)
{
    struct branch_spec *place =
        &l->branches[l->n_branches < LAYER_MAX_BRANCHES ? l->n_branches++ : LAYER_MAX_BRANCHES - 1];

    *place = b;
    return place;
}

struct branch_spec branch_attention(struct norm_spec pre_norm, struct attention_spec attention)
{
    return (struct branch_spec){
        .pre_norm = pre_norm, .op = OP_ATTENTION, .scale = 1, .attention = attention};
}

struct branch_spec branch_mla(struct norm_spec pre_norm, struct mla_spec mla)
{
    return (struct branch_spec){.pre_norm = pre_norm, .op = OP_MLA, .scale = 1, .mla = mla};
}

struct branch_spec branch_pooled(struct norm_spec pre_norm, struct pooled_spec pooled)
{
    return (struct branch_spec){
        .pre_norm = pre_norm, .op = OP_POOLED, .scale = 1, .pooled = pooled};
}

struct branch_spec branch_short_conv(struct norm_spec pre_norm, struct short_conv_spec short_conv)
{
    return (struct branch_spec){
        .pre_norm = pre_norm, .op = OP_SHORT_CONV, .scale = 1, .short_conv = short_conv};
}

struct branch_spec branch_conv_mixer(struct norm_spec pre_norm, struct conv_mixer_spec conv_mixer)
{
    return (struct branch_spec){
        .pre_norm = pre_norm, .op = OP_CONV_MIXER, .scale = 1, .conv_mixer = conv_mixer};
}

struct branch_spec branch_mlstm(struct norm_spec pre_norm, struct mlstm_spec mlstm)
{
    return (struct branch_spec){.pre_norm = pre_norm, .op = OP_MLSTM, .scale = 1, .mlstm = mlstm};
}

struct branch_spec branch_mamba(struct norm_spec pre_norm, struct mamba_spec mamba)
{
    return (struct branch_spec){.pre_norm = pre_norm, .op = OP_MAMBA, .scale = 1, .mamba = mamba};
}

struct branch_spec branch_mamba2(struct norm_spec pre_norm, struct mamba2_spec mamba2)
{
    return (struct branch_spec){
        .pre_norm = pre_norm, .op = OP_MAMBA2, .scale = 1, .mamba2 = mamba2};
}

struct branch_spec branch_delta(struct norm_spec pre_norm, struct delta_spec delta)
{
    return (struct branch_spec){.pre_norm = pre_norm, .op = OP_DELTA, .scale = 1, .delta = delta};
}

struct branch_spec branch_lightning(struct norm_spec pre_norm, struct lightning_spec lightning)
{
    return (struct branch_spec){
        .pre_norm = pre_norm, .op = OP_LIGHTNING, .scale = 1, .lightning = lightning};
}

struct branch_spec branch_rg_lru(struct norm_spec pre_norm, struct rg_lru_spec rg_lru)
{
    return (struct branch_spec){
        .pre_norm = pre_norm, .op = OP_RG_LRU, .scale = 1, .rg_lru = rg_lru};
}

struct branch_spec branch_rwkv7(struct norm_spec pre_norm, struct rwkv7_spec rwkv7)
{
    return (struct branch_spec){.pre_norm = pre_norm, .op = OP_RWKV7, .scale = 1, .rwkv7 = rwkv7};
}

struct branch_spec branch_mlp(struct norm_spec pre_norm, struct mlp_spec mlp)
{
    return (struct branch_spec){.pre_norm = pre_norm, .op = OP_MLP, .scale = 1, .mlp = mlp};
}

struct branch_spec branch_of(enum op_kind op, struct norm_spec pre_norm)
{
    return (struct branch_spec){.pre_norm = pre_norm, .op = op, .scale = 1};
}

struct branch_spec branch_moe(struct norm_spec pre_norm, struct moe_spec moe)
{
    return (struct branch_spec){.pre_norm = pre_norm, .op = OP_MOE, .scale = 1, .moe = moe};
}

static int check_range(int layer, const char *what, int64_t value, int64_t low, int64_t high,
                       clm_error *err)
{
    if (value >= low && value <= high)
        return 0;
    if (layer < 0)
        return fail(err, CLM_ERR_FORMAT, "%s is %lld; it must be %lld to %lld", what,
                    (long long)value, (long long)low, (long long)high);
    return fail(err, CLM_ERR_FORMAT, "%s of layer %d is %lld; it must be %lld to %lld", what, layer,
                (long long)value, (long long)low, (long long)high);
}

static int check_norm(int layer, const struct norm_spec *n, clm_error *err)
{
    if (n->kind == NORM_NONE || (n->eps >= 0 && isfinite(n->eps)))
        return 0;
    if (layer < 0)
        return fail(err, CLM_ERR_FORMAT, "a norm has eps %g; it must be finite and not negative",
                    (double)n->eps);
    return fail(err, CLM_ERR_FORMAT,
                "a norm of layer %d has eps %g; it must be finite and not negative", layer,
                (double)n->eps);
}

static int check_rope(int layer, const struct rope_spec *r, int head_dim, clm_error *err)
{
    if (r->kind == ROPE_NONE)
        return 0;
    if (check_range(layer, "the rotary part of a head", r->dims, 2, head_dim, err))
        return -1;
    if (r->dims % 2 || (r->kind == ROPE_PROPORTIONAL && head_dim % 2))
        return fail(err, CLM_ERR_FORMAT,
                    "%d rotary dimensions in layer %d: the number must be even", r->dims, layer);
    if (r->kind == ROPE_LONGROPE && r->n_factors != r->dims / 2)
        return fail(err, CLM_ERR_FORMAT, "%d factors of rope in layer %d; %d pairs of a head turn",
                    r->n_factors, layer, r->dims / 2);
    if (!(r->theta > 0) || !isfinite(r->theta))
        return fail(err, CLM_ERR_FORMAT, "rope_theta of layer %d is %g; it must be positive", layer,
                    r->theta);
    if (!(r->factor > 0) || !isfinite(r->factor))
        return fail(err, CLM_ERR_FORMAT, "the rope factor of layer %d is %g; it must be positive",
                    layer, r->factor);
    return 0;
}

static int check_temperature(int layer, const struct temperature_spec *t, clm_error *err)
{
    if (t->beta == 0 || (isfinite(t->beta) && t->length > 0 && isfinite(t->length)))
        return 0;
    return fail(err, CLM_ERR_FORMAT, "queries of layer %d grow by %g every %g positions", layer,
                (double)t->beta, (double)t->length);
}

static int check_blocks(int layer, const struct block_pattern *b, clm_error *err)
{
    if (b->size == 0)
        return 0;
    return check_range(layer, "the size of its blocks", b->size, 1, MAX_SIZE, err) ||
                   check_range(layer, "the number of local blocks", b->n_local, 1, MAX_SIZE, err) ||
                   check_range(layer, "the stride of its blocks", b->stride, 1, MAX_SIZE, err) ||
                   check_range(layer, "the step of its blocks", b->step, 0, MAX_SIZE, err)
               ? -1
               : 0;
}

static int check_index(int layer, const struct index_spec *i, int n_heads, clm_error *err)
{
    if (i->topk == 0)
        return 0;
    if (check_range(layer, "index_topk", i->topk, 1, MAX_SIZE, err) ||
        check_range(layer, "index_n_heads", i->n_heads, 1, MAX_HEADS, err) ||
        check_range(layer, "index_head_dim", i->dim, 1, MAX_HEAD_DIM, err) ||
        check_range(layer, "index_block_size", i->block_size, 0, MAX_SIZE, err) ||
        check_range(layer, "index_local_blocks", i->local_blocks, 0, MAX_SIZE, err) ||
        check_norm(layer, &i->q_norm, err) || check_norm(layer, &i->k_norm, err))
        return -1;
    if (i->block_size && n_heads % i->n_heads)
        return fail(err, CLM_ERR_FORMAT,
                    "num_attention_heads %d of layer %d is no multiple of index_n_heads %d",
                    n_heads, layer, i->n_heads);
    return check_rope(layer, &i->rope, i->dim, err);
}

/* A layer may look into the cache of an earlier one only where both have heads of one form. */
static int check_source(const struct spec *s, int layer, const struct attention_spec *a, int source,
                        clm_error *err)
{
    const struct layer_spec *l = &s->layers[source - 1];

    for (int b = 0; b < l->n_branches; b++) {
        const struct attention_spec *from = &l->branches[b].attention;

        if (l->branches[b].op != OP_ATTENTION)
            continue;
        if (from->n_kv_heads == a->n_kv_heads && from->head_dim == a->head_dim &&
            (from->v_dim ? from->v_dim : from->head_dim) == (a->v_dim ? a->v_dim : a->head_dim) &&
            !from->cache_of)
            return 0;
        break;
    }
    return fail(err, CLM_ERR_FORMAT,
                "layer %d reads the keys of layer %d, whose heads have another form", layer,
                source - 1);
}

static int check_attention(int layer, const struct attention_spec *a, clm_error *err)
{
    if (check_range(layer, "num_attention_heads", a->n_heads, 1, MAX_HEADS, err) ||
        check_range(layer, "num_key_value_heads", a->n_kv_heads, 1, a->n_heads, err) ||
        check_range(layer, "head_dim", a->head_dim, 1, MAX_HEAD_DIM, err) ||
        check_range(layer, "v_head_dim", a->v_dim, 0, MAX_HEAD_DIM, err) ||
        check_range(layer, "attention_chunk_size", a->chunk, 0, INT32_MAX, err) ||
        check_range(layer, "the layer whose keys it shares", a->cache_of, 0, layer, err) ||
        check_range(layer, "the layer it is mixed with", a->mixed_with, 0, layer, err) ||
        check_blocks(layer, &a->blocks, err) || check_index(layer, &a->index, a->n_heads, err) ||
        check_range(layer, "conv_window", a->kv_conv, 0, MAX_CONV, err) ||
        check_range(layer, "sliding_window", a->window, 0, INT32_MAX, err))
        return -1;
    if (a->n_heads % a->n_kv_heads)
        return fail(err, CLM_ERR_FORMAT,
                    "num_attention_heads %d of layer %d is no multiple of num_key_value_heads %d",
                    a->n_heads, layer, a->n_kv_heads);
    if (!isfinite(a->scale) || !(a->softcap >= 0) || !isfinite(a->softcap))
        return fail(err, CLM_ERR_FORMAT, "attention of layer %d has scale %g and soft-cap %g",
                    layer, (double)a->scale, (double)a->softcap);
    if (check_norm(layer, &a->q_norm, err) || check_norm(layer, &a->k_norm, err) ||
        check_temperature(layer, &a->temperature, err))
        return -1;
    return check_rope(layer, &a->rope, a->head_dim, err);
}

static int check_mla(int layer, const struct mla_spec *m, clm_error *err)
{
    if (check_range(layer, "num_attention_heads", m->n_heads, 1, MAX_HEADS, err) ||
        check_range(layer, "q_lora_rank", m->q_rank, 0, MAX_SIZE, err) ||
        check_range(layer, "kv_lora_rank", m->kv_rank, 1, MAX_HEAD_DIM, err) ||
        check_range(layer, "qk_nope_head_dim", m->nope_dim, 1, MAX_HEAD_DIM, err) ||
        check_range(layer, "qk_rope_head_dim", m->rope_dim, m->rope.kind == ROPE_NONE ? 0 : 2,
                    MAX_HEAD_DIM, err) ||
        check_range(layer, "v_head_dim", m->v_dim, 1, MAX_HEAD_DIM, err))
        return -1;
    if (check_index(layer, &m->index, m->n_heads, err) ||
        (m->index.topk && check_range(layer, "q_lora_rank", m->q_rank, 1, MAX_SIZE, err)))
        return -1;
    if (!isfinite(m->scale) || !isfinite(m->q_scale) || !isfinite(m->kv_scale))
        return fail(err, CLM_ERR_FORMAT, "attention of layer %d has scales %g, %g, %g", layer,
                    (double)m->scale, (double)m->q_scale, (double)m->kv_scale);
    if (check_norm(layer, &m->q_norm, err) || check_norm(layer, &m->kv_norm, err) ||
        check_temperature(layer, &m->temperature, err))
        return -1;
    return check_rope(layer, &m->rope, m->rope_dim, err);
}

/* The layer read, number + 1, has pooled keys of the same number of tokens. */
static int check_pools(const struct spec *s, int layer, int ratio, int read, clm_error *err)
{
    const struct layer_spec *l = read ? &s->layers[read - 1] : NULL;

    for (int b = 0; l && b < l->n_branches; b++)
        if (l->branches[b].op == OP_POOLED && l->branches[b].pooled.pools &&
            l->branches[b].pooled.ratio == ratio)
            return 0;
    return l ? fail(err, CLM_ERR_UNSUPPORTED,
                    "compress_ratios of layer %d is another than that of layer %d, whose "
                    "keys it reads",
                    layer, read - 1)
             : 0;
}

static int check_pooled(const struct spec *s, int layer, const struct pooled_spec *p,
                        clm_error *err)
{
    if (check_range(layer, "num_attention_heads", p->n_heads, 1, MAX_HEADS, err) ||
        check_range(layer, "head_dim", p->head_dim, 1, MAX_HEAD_DIM, err) ||
        check_range(layer, "q_lora_rank", p->q_rank, 1, MAX_SIZE, err) ||
        check_range(layer, "o_groups", p->n_groups, 1, MAX_HEADS, err) ||
        check_range(layer, "o_lora_rank", p->o_rank, 1, MAX_SIZE / p->n_groups, err) ||
        check_range(layer, "sliding_window", p->window, 1, INT32_MAX, err) ||
        check_range(layer, "compress_ratios", p->ratio, 0, 1 << 16, err) ||
        check_range(layer, "the layer whose keys it reads", p->keys_of, 0, layer + 1, err) ||
        check_range(layer, "the layer whose index it reads", p->index_of, 0, layer + 1, err))
        return -1;
    if (p->n_heads * p->head_dim % p->n_groups)
        return fail(err, CLM_ERR_FORMAT,
                    "num_attention_heads %d of layer %d, of head_dim %d, cannot be cut into "
                    "o_groups %d",
                    p->n_heads, layer, p->head_dim, p->n_groups);
    if (check_rope(layer, &p->rope, p->head_dim, err) || check_norm(layer, &p->norm, err) ||
        check_pools(s, layer, p->ratio, p->keys_of, err) ||
        check_pools(s, layer, p->ratio, p->index_of, err))
        return -1;
    if (!p->chooses)
        return 0;
    if (check_range(layer, "index_n_heads", p->index_heads, 1, MAX_HEADS, err) ||
        check_range(layer, "index_head_dim", p->index_dim, 1, MAX_HEAD_DIM, err) ||
        check_range(layer, "index_topk", p->topk, 1, INT32_MAX, err) ||
        check_range(layer, "candidate_topk_blocks", p->n_blocks, 0, INT32_MAX, err) ||
        check_range(layer, "candidate_block_size", p->block_size, p->n_blocks > 0, MAX_SIZE, err))
        return -1;
    return check_rope(layer, &p->rope, p->index_dim, err);
}

static int check_conv(int layer, int channels, int width, clm_error *err)
{
    if (check_range(layer, "the width of the convolution", width, 1, MAX_CONV, err))
        return -1;
    return check_range(layer, "the number of channels", channels, 1, MAX_SIZE, err);
}

static int check_conv_mixer(int layer, const struct conv_mixer_spec *m, clm_error *err)
{
    if (check_range(layer, "num_attention_heads", m->n_heads, 1, MAX_HEADS, err) ||
        check_range(layer, "num_key_value_heads", m->n_kv_heads, 1, m->n_heads, err) ||
        check_range(layer, "head_dim", m->head_dim, 1, MAX_HEAD_DIM, err) ||
        check_conv(layer, m->n_kv_heads * m->head_dim, m->width, err))
        return -1;
    if (m->n_heads % m->n_kv_heads)
        return fail(err, CLM_ERR_FORMAT,
                    "%d heads of layer %d are no multiple of %d key-value heads", m->n_heads, layer,
                    m->n_kv_heads);
    return check_norm(layer, &m->q_norm, err) || check_norm(layer, &m->k_norm, err) ? -1 : 0;
}

static int check_mlstm(int layer, const struct mlstm_spec *m, clm_error *err)
{
    if (check_range(layer, "the number of heads", m->n_heads, 1, MAX_HEADS, err) ||
        check_range(layer, "the size of a key", m->key_dim, 1, MAX_HEAD_DIM, err) ||
        check_range(layer, "the size of a value", m->value_dim, 1, MAX_HEAD_DIM, err))
        return -1;
    if (!(m->gate_softcap >= 0) || !(m->eps >= 0))
        return fail(err, CLM_ERR_FORMAT, "gates of layer %d are capped at %g, eps is %g", layer,
                    (double)m->gate_softcap, (double)m->eps);
    return check_norm(layer, &m->norm, err);
}

static int check_mamba(int layer, const struct mamba_spec *m, clm_error *err)
{
    if (check_range(layer, "the size of the state", m->state_size, 1, MAX_HEAD_DIM, err) ||
        check_range(layer, "the rank of the time step", m->dt_rank, 1, MAX_SIZE, err) ||
        check_conv(layer, m->channels, m->conv_width, err))
        return -1;
    return check_norm(layer, &m->bcdt_norm, err);
}

static int check_mamba2(int layer, const struct mamba2_spec *m, clm_error *err)
{
    if (check_range(layer, "the number of state space heads", m->n_heads, 1, MAX_HEADS, err) ||
        check_range(layer, "the size of a state space head", m->head_dim, 1, MAX_HEAD_DIM, err) ||
        check_range(layer, "the size of the state", m->state_size, 1, MAX_HEAD_DIM, err) ||
        check_range(layer, "the number of groups", m->n_groups, 1, m->n_heads, err) ||
        check_range(layer, "the rank of the time step", m->dt_rank, 0, MAX_SIZE, err) ||
        check_conv(layer, m->n_heads * m->head_dim, m->conv_width, err))
        return -1;
    if (m->n_heads % m->n_groups || (m->norm.kind != NORM_NONE && m->n_heads % m->norm_groups))
        return fail(err, CLM_ERR_FORMAT,
                    "%d state space heads of layer %d are no multiple of %d groups", m->n_heads,
                    layer, m->n_groups);
    if (!(m->dt_low <= m->dt_high))
        return fail(err, CLM_ERR_FORMAT, "time steps of layer %d are held within %g and %g", layer,
                    (double)m->dt_low, (double)m->dt_high);
    return check_norm(layer, &m->norm, err);
}

static int check_delta(int layer, const struct delta_spec *d, clm_error *err)
{
    if (check_range(layer, "the number of value heads", d->n_heads, 1, MAX_HEADS, err) ||
        check_range(layer, "the number of key heads", d->n_key_heads, 1, d->n_heads, err) ||
        check_range(layer, "the size of a key head", d->key_dim, 1, MAX_HEAD_DIM, err) ||
        check_range(layer, "the size of a value head", d->value_dim, 1, MAX_HEAD_DIM, err) ||
        check_range(layer, "the width of the convolution", d->conv_width, 1, MAX_CONV, err) ||
        check_range(layer, "the rank of the decay", d->decay_rank, 0, MAX_SIZE, err) ||
        check_range(layer, "the rank of the gate", d->gate_rank, 0, MAX_SIZE, err))
        return -1;
    if (d->n_heads % d->n_key_heads)
        return fail(err, CLM_ERR_FORMAT,
                    "%d value heads of layer %d are no multiple of %d key heads", d->n_heads, layer,
                    d->n_key_heads);
    if (!(d->decay_bound <= 0) || !isfinite(d->decay_bound))
        return fail(err, CLM_ERR_FORMAT,
                    "the decay of layer %d has the lower bound %g; it must be negative", layer,
                    (double)d->decay_bound);
    return check_norm(layer, &d->norm, err);
}

static int check_lightning(int layer, const struct lightning_spec *l, clm_error *err)
{
    if (check_range(layer, "the number of heads", l->n_heads, 1, MAX_HEADS, err) ||
        check_range(layer, "head_dim", l->head_dim, 1, MAX_HEAD_DIM, err) ||
        check_range(layer, "group_norm_size", l->norm_groups, 1, MAX_HEADS, err))
        return -1;
    if (l->n_heads * l->head_dim % l->norm_groups)
        return fail(err, CLM_ERR_FORMAT, "layer %d norms %d numbers in %d groups", layer,
                    l->n_heads * l->head_dim, l->norm_groups);
    if (check_norm(layer, &l->q_norm, err) || check_norm(layer, &l->k_norm, err) ||
        check_norm(layer, &l->norm, err))
        return -1;
    return check_rope(layer, &l->rope, l->head_dim, err);
}

static int check_rg_lru(int layer, const struct rg_lru_spec *r, clm_error *err)
{
    if (check_conv(layer, r->channels, r->conv_width, err) ||
        check_range(layer, "the number of heads", r->n_heads, 1, MAX_HEADS, err))
        return -1;
    if (r->channels % r->n_heads)
        return fail(err, CLM_ERR_FORMAT, "%d channels of layer %d are no multiple of %d heads",
                    r->channels, layer, r->n_heads);
    return 0;
}

static int check_rwkv7(int layer, const struct rwkv7_spec *r, int hidden_size, clm_error *err)
{
    if (check_range(layer, "the number of heads", r->n_heads, 1, MAX_HEADS, err) ||
        check_range(layer, "head_dim", r->head_dim, 1, MAX_HEAD_DIM, err) ||
        check_range(layer, "decay_low_rank_dim", r->decay_rank, 1, MAX_SIZE, err) ||
        check_range(layer, "a_low_rank_dim", r->rate_rank, 1, MAX_SIZE, err) ||
        check_range(layer, "v_low_rank_dim", r->value_rank, 0, MAX_SIZE, err) ||
        check_range(layer, "gate_low_rank_dim", r->gate_rank, 1, MAX_SIZE, err))
        return -1;
    if (r->n_heads * r->head_dim != hidden_size)
        return fail(err, CLM_ERR_FORMAT, "hidden_size %d is no multiple of head_dim %d",
                    hidden_size, r->head_dim);
    return check_norm(layer, &r->norm, err);
}

static int check_mlp(int layer, const struct mlp_spec *m, clm_error *err)
{
    if (!(m->situ >= 0) || !isfinite(m->situ) || !(m->situ_up >= 0) || !isfinite(m->situ_up))
        return fail(err, CLM_ERR_FORMAT, "the activation of layer %d is held at %g and %g", layer,
                    (double)m->situ, (double)m->situ_up);
    if (!isfinite(m->alpha) || (m->alpha != 0 && !(m->limit > 0)))
        return fail(err, CLM_ERR_FORMAT, "the activation of layer %d has alpha %g and limit %g",
                    layer, (double)m->alpha, (double)m->limit);
    if (m->thinned && !isfinite(m->thinning))
        return fail(err, CLM_ERR_FORMAT, "the activation of layer %d is thinned at %g", layer,
                    (double)m->thinning);
    return check_range(layer, "intermediate_size", m->intermediate_size, 1, MAX_SIZE, err);
}

static int check_moe(int layer, const struct moe_spec *m, clm_error *err)
{
    if (check_range(layer, "the number of experts", m->router.n_experts, 1, MAX_EXPERTS, err) ||
        check_range(layer, "num_experts_per_tok", m->router.n_experts_per_token, 1,
                    m->router.n_experts, err) ||
        check_range(layer, "the number of groups of experts", m->router.n_groups, 0,
                    m->router.n_experts, err))
        return -1;
    if (m->router.n_groups > 1 &&
        (m->router.n_experts % m->router.n_groups || m->router.n_groups_kept < 1 ||
         m->router.n_groups_kept > m->router.n_groups))
        return fail(err, CLM_ERR_FORMAT,
                    "%d experts of layer %d in %d groups (n_group), %d of them kept "
                    "(topk_group); that cannot be",
                    m->router.n_experts, layer, m->router.n_groups, m->router.n_groups_kept);
    if (m->router.n_groups > 1 && m->router.groups_alone &&
        m->router.n_experts / m->router.n_groups * m->router.n_groups_kept <
            m->router.n_experts_per_token)
        return fail(err, CLM_ERR_FORMAT,
                    "num_experts_per_tok %d of layer %d; the groups that are kept (topk_group) "
                    "have but %d experts",
                    m->router.n_experts_per_token, layer,
                    m->router.n_experts / m->router.n_groups * m->router.n_groups_kept);
    if (check_range(layer, "the size of the shared expert", m->shared.intermediate_size, 0,
                    MAX_SIZE, err))
        return -1;
    if (check_range(layer, "moe_latent_size", m->latent_size, 0, MAX_SIZE, err) ||
        check_range(layer, "the number of zero experts", m->n_zero_experts, 0,
                    m->router.n_experts - m->router.n_experts_per_token, err))
        return -1;
    return check_mlp(layer, &m->expert, err);
}

static int check_branch(const struct spec *s, int layer, const struct branch_spec *b,
                        clm_error *err)
{
    const struct attention_spec *a = &b->attention;

    if (check_norm(layer, &b->pre_norm, err) || check_norm(layer, &b->post_norm, err))
        return -1;
    if (!(b->gate_temperature >= 0))
        return fail(err, CLM_ERR_FORMAT, "residual_gate_temperature is %g",
                    (double)b->gate_temperature);
    if (!isfinite(b->scale) || !isfinite(b->in_scale))
        return fail(err, CLM_ERR_FORMAT, "a residual of layer %d is scaled by %g", layer,
                    (double)b->scale);
    switch (b->op) {
    case OP_NONE:
    case OP_LINEAR:
    case OP_LAYER_INPUT:
    case OP_EMBEDDING:
    case OP_ALTUP_PREDICT:
    case OP_ALTUP_CORRECT:
    case OP_ALTUP_ADD:
    case OP_HYPER_READ:
    case OP_HYPER_WRITE:
        return 0;
    case OP_LOW_RANK:
        return check_range(layer, "the rank of a layer", b->rank, 1, MAX_SIZE, err);
    case OP_ATTENTION:
        if (check_attention(layer, a, err))
            return -1;
        if (a->cache_of && a->index.topk)
            return fail(err, CLM_ERR_UNSUPPORTED, "layer %d chooses keys in the cache of another",
                        layer);
        if (a->cache_of && check_source(s, layer, a, a->cache_of, err))
            return -1;
        return a->mixed_with ? check_source(s, layer, a, a->mixed_with, err) : 0;
    case OP_MLA:
        return check_mla(layer, &b->mla, err);
    case OP_POOLED:
        return check_pooled(s, layer, &b->pooled, err);
    case OP_SHORT_CONV:
        return check_conv(layer, b->short_conv.channels, b->short_conv.width, err);
    case OP_CONV_MIXER:
        return check_conv_mixer(layer, &b->conv_mixer, err);
    case OP_MLSTM:
        return check_mlstm(layer, &b->mlstm, err);
    case OP_MAMBA:
        return check_mamba(layer, &b->mamba, err);
    case OP_MAMBA2:
        return check_mamba2(layer, &b->mamba2, err);
    case OP_DELTA:
        return check_delta(layer, &b->delta, err);
    case OP_LIGHTNING:
        return check_lightning(layer, &b->lightning, err);
    case OP_RG_LRU:
        return check_rg_lru(layer, &b->rg_lru, err);
    case OP_RWKV7:
        return check_rwkv7(layer, &b->rwkv7, s->hidden_size, err);
    case OP_MLP:
        return check_mlp(layer, &b->mlp, err);
    case OP_MOE:
        return check_moe(layer, &b->moe, err);
    }
    return fail(err, CLM_ERR_FORMAT, "layer %d has an operation of no known kind", layer);
}

static int check_kept(const struct spec *s, clm_error *err)
{
    int n = 0;

    for (int i = 0; i < s->n_layers; i++)
        for (int b = 0; b < s->layers[i].n_branches; b++)
            n += s->layers[i].branches[b].keeps;
    return check_range(-1, "the number of blocks of layers", n, s->n_kept, s->n_kept, err);
}

static int check_altup(const struct altup_spec *a, clm_error *err)
{
    if (a->n == 0)
        return 0;
    if (check_range(-1, "altup_num_inputs", a->n, 1, 64, err) ||
        check_range(-1, "altup_active_idx", a->active, 0, a->n - 1, err))
        return -1;
    if (!(a->coef_limit >= 0))
        return fail(err, CLM_ERR_FORMAT, "altup_coef_clip is %g; it must be positive",
                    (double)a->coef_limit);
    return check_norm(-1, &a->router_norm, err);
}

static int check_hyper(const struct spec *s, clm_error *err)
{
    const struct hyper_spec *h = &s->hyper;

    if (h->n == 0)
        return 0;
    if (check_range(-1, "hc_mult", h->n, 1, 64, err) ||
        check_range(-1, "hc_mult times hidden_size", (int64_t)h->n * s->hidden_size, 1, MAX_SIZE,
                    err) ||
        check_range(-1, "hc_sinkhorn_iters", h->n_iterations, 1, 1 << 16, err))
        return -1;
    if (!(h->eps >= 0) || !isfinite(h->eps))
        return fail(err, CLM_ERR_FORMAT, "hc_eps is %g; it must be >= 0", (double)h->eps);
    return check_norm(-1, &h->norm, err);
}

static size_t float_bytes(double n)
{
    return n < (double)(SIZE_MAX / 2 / sizeof(float)) ? (size_t)n * sizeof(float) : SIZE_MAX;
}

/* The last inputs of a convolution. */
static size_t conv_state_bytes(int channels, int width)
{
    return float_bytes((double)channels * (width - 1));
}

int mamba2_channels(const struct mamba2_spec *m)
{
    return m->n_heads * m->head_dim + (m->dt_rank ? 0 : 2 * m->n_groups * m->state_size);
}

/* The last inputs of the convolution, then the numbers of each channel. */
static size_t mamba_state_bytes(const struct mamba_spec *m)
{
    return float_bytes((double)m->channels * (m->conv_width - 1 + m->state_size));
}

/* The last inputs of the convolution, then the matrix of each head. */
static size_t mamba2_state_bytes(const struct mamba2_spec *m)
{
    return float_bytes((double)mamba2_channels(m) * (m->conv_width - 1) +
                       (double)m->n_heads * m->head_dim * m->state_size);
}

/* The last inputs of the convolutions of queries, keys and values; the matrix of each head. */
static size_t delta_state_bytes(const struct delta_spec *d)
{
    double keys = (double)d->n_key_heads * d->key_dim, values = (double)d->n_heads * d->value_dim;

    return float_bytes((d->conv_width - 1) * (2 * keys + values) + values * d->key_dim);
}

size_t branch_state_bytes(const struct branch_spec *b)
{
    switch (b->op) {
    case OP_SHORT_CONV:
        return conv_state_bytes(b->short_conv.channels, b->short_conv.width);
    case OP_ATTENTION:
        return b->attention.kv_conv
                   ? 2 * conv_state_bytes(b->attention.n_kv_heads * b->attention.head_dim,
                                          b->attention.kv_conv)
                   : 0;
    case OP_POOLED: /* what pooled keys are made of, of the group that is not whole yet */
        return b->pooled.pools ? 2 * conv_state_bytes(b->pooled.head_dim, b->pooled.ratio) : 0;
    case OP_CONV_MIXER:
        return 2 * conv_state_bytes(b->conv_mixer.n_kv_heads * b->conv_mixer.head_dim,
                                    b->conv_mixer.width);
    case OP_MLSTM: /* the matrix of each head, what it has of each key, the greatest exponent */
        return float_bytes((double)b->mlstm.n_heads *
                           ((double)b->mlstm.key_dim * (b->mlstm.value_dim + 1) + 1));
    case OP_MAMBA:
        return mamba_state_bytes(&b->mamba);
    case OP_MAMBA2:
        return mamba2_state_bytes(&b->mamba2);
    case OP_DELTA:
        return delta_state_bytes(&b->delta);
    case OP_LIGHTNING:
        return float_bytes((double)b->lightning.n_heads * b->lightning.head_dim *
                           b->lightning.head_dim);
    case OP_RG_LRU:
        return float_bytes((double)b->rg_lru.channels * b->rg_lru.conv_width);
    case OP_RWKV7: /* the last x, then the matrix of each head */
        return float_bytes((double)b->rwkv7.n_heads * b->rwkv7.head_dim *
                           (b->rwkv7.head_dim + 1.0));
    case OP_MLP:
        return float_bytes(b->mlp.shifted); /* the last x */
    default:
        return 0;
    }
}

static int check_ngram(const struct ngram_spec *n, clm_error *err)
{
    if (n->n == 0)
        return 0;
    return check_range(-1, "emb_neighbor_num", n->n, 2, 16, err) ||
                   check_range(-1, "emb_split_num", n->k, 1, 64, err) ||
                   check_range(-1, "the rows of a table of neighbours", n->size, 1, INT32_MAX / 2,
                               err) ||
                   check_range(-1, "the numbers of a neighbour", n->dim, 1, MAX_SIZE, err)
               ? -1
               : 0;
}

static int check_all(const struct spec *s, clm_error *err)
{
    if (check_range(-1, "vocab_size", s->vocab_size, 1, MAX_SIZE, err) ||
        check_range(-1, "hidden_size", s->hidden_size, 1, MAX_SIZE, err) ||
        check_range(-1, "the size of embeddings", s->embed_size, 0, MAX_SIZE, err) ||
        check_range(-1, "num_hidden_layers", s->n_layers, 1, MAX_LAYERS, err) ||
        check_range(-1, "max_position_embeddings", s->context_length, 0, INT32_MAX, err))
        return -1;
    if (s->n_positions &&
        check_range(-1, "the number of positions", s->n_positions - s->position_offset,
                    s->context_length > 0 ? s->context_length : 1, MAX_SIZE, err))
        return -1;
    if (check_range(-1, "hidden_size_per_layer_input", s->layer_input_size, 0, MAX_HEAD_DIM, err) ||
        (s->layer_input_size &&
         check_range(-1, "vocab_size_per_layer_input", s->layer_input_vocab, 1, MAX_SIZE, err)))
        return -1;
    if (check_altup(&s->altup, err) || check_hyper(s, err) || check_ngram(&s->ngram, err) ||
        check_norm(-1, &s->residual_norm, err) || check_kept(s, err))
        return -1;
    if (!isfinite(s->embed_scale) || !isfinite(s->logit_scale) || !(s->logit_softcap >= 0))
        return fail(err, CLM_ERR_FORMAT, "embeddings are scaled by %g, logits by %g, capped at %g",
                    (double)s->embed_scale, (double)s->logit_scale, (double)s->logit_softcap);
    if (check_norm(-1, &s->embed_norm, err) || check_norm(-1, &s->final_norm, err))
        return -1;
    for (int i = 0; i < s->n_layers; i++)
        for (int b = 0; b < s->layers[i].n_branches; b++)
            if (check_branch(s, i, &s->layers[i].branches[b], err))
                return -1;
    return 0;
}

int spec_check(const struct spec *s, const char *config, clm_error *err)
{
    clm_error wrong = {0};

    return check_all(s, &wrong) ? fail(err, wrong.code, "%s: %s", config, wrong.message) : 0;
}
