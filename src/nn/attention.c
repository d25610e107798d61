/* nn/attention.c: softmax(scale q k^T) v over the cache; a group of heads shares its keys and
 * values. Attention, arXiv:1706.03762; grouped queries, 2305.13245. */
#include "nn/nn.h"

/* Each head by itself, or all of them together. */
static void qk_norm(pass *p, const struct nn_norm *norm, tensor *x, const struct attention_spec *s)
{
    struct nn_norm plain = {.spec = norm->spec};

    if (norm->spec->kind == NORM_NONE)
        return;
    if (s->qk_norm_span != QK_NORM_EACH) {
        nn_norm_inplace(p, norm, x, s->qk_norm_span == QK_NORM_ALL ? x->cols : s->head_dim);
        return;
    }
    nn_norm_inplace(p, &plain, x, s->head_dim);
    if (!p->failed && norm->w)
        p->ops->scale_columns(p->dev, x, norm->w);
}

static void turn(pass *p, const struct nn_attention *a, tensor *x)
{
    const struct attention_spec *s = a->spec;

    if (a->rope >= 0 && !p->failed)
        p->ops->rope(p->dev, x, s->head_dim, p->rope_tables[a->rope], s->rope.interleaved);
}

void nn_temperature(pass *p, const struct temperature_spec *t, tensor *q)
{
    if (t->beta != 0 && !p->failed)
        p->ops->temperature(p->dev, q, p->rows.positions, t->beta, t->length, t->offset);
}

bool nn_branch_cache(const struct branch_spec *b, struct kv_layer_spec *layer)
{
    switch (b->op) {
    case OP_ATTENTION:
        *layer = (struct kv_layer_spec){.n_kv_heads = b->attention.n_kv_heads,
                                        .k_dim = b->attention.head_dim,
                                        .v_dim = b->attention.head_dim,
                                        .window = b->attention.window};
        return true;
    case OP_MLA:
        *layer = (struct kv_layer_spec){
            .n_kv_heads = 1, .k_dim = b->mla.rope_dim + b->mla.kv_rank, .v_dim = b->mla.kv_rank};
        return true;
    default:
        return false;
    }
}

/* Clipped, normed and turned, in the order that the spec says. */
static void prepare(pass *p, const struct nn_attention *a, tensor *q, tensor *k, tensor *v)
{
    const struct attention_spec *s = a->spec;
    tensor *all[] = {q, k, v};

    for (int i = 0; i < 3 && s->clip_qkv > 0 && !p->failed; i++)
        p->ops->clamp(p->dev, all[i], -s->clip_qkv, s->clip_qkv);
    if (s->qk_norm_after_rope) {
        turn(p, a, q);
        turn(p, a, k);
    }
    qk_norm(p, &a->q_norm, q, s);
    qk_norm(p, &a->k_norm, k, s);
    if (!s->qk_norm_after_rope) {
        turn(p, a, q);
        turn(p, a, k);
    }
}

tensor *nn_attention(pass *p, const struct nn_attention *a, const tensor *x)
{
    const struct attention_spec *s = a->spec;
    const struct kv_batch *rows = &p->rows.kv[kv_cache_group_of(p->cache, a->cache_layer)];
    const struct kv_layer *kv = kv_cache_layer(p->cache, a->cache_layer);
    const struct attend_params params = {
        .n_heads = s->n_heads,
        .scale = s->scale,
        .softcap = s->softcap,
        .window = s->window,
        .sinks = a->sinks,
    };
    tensor *qkv[3], *q, *k, *v, *y;

    nn_linears(p, (const struct nn_linear *[]){&a->q_proj, &a->k_proj, &a->v_proj}, 3, x, qkv);
    q = qkv[0]; /* [T, H, D] */
    k = qkv[1]; /* [T, K, D] */
    v = qkv[2]; /* [T, K, D] */
    prepare(p, a, q, k, v);
    nn_temperature(p, &s->temperature, q);
    y = pass_tensor(p, DTYPE_F32, x->rows, q->cols);
    if (p->failed)
        return y;
    p->ops->kv_store(p->dev, kv, rows, k, v);
    p->ops->attend(p->dev, y, q, kv, rows, &params);
    return nn_linear(p, &a->o_proj, y);
}
