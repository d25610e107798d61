/* nn/attention.c: softmax(scale q k^T) v over the cache; a group of heads shares its keys and
 * values. Attention, arXiv:1706.03762; grouped queries, 2305.13245. */
#include "nn/nn.h"

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
    };
    tensor *qkv[3], *q, *k, *v, *y;

    nn_linears(p, (const struct nn_linear *[]){&a->q_proj, &a->k_proj, &a->v_proj}, 3, x, qkv);
    q = qkv[0]; /* [T, H, D] */
    k = qkv[1]; /* [T, K, D] */
    v = qkv[2]; /* [T, K, D] */
    nn_norm_inplace(p, &a->q_norm, q, s->head_dim);
    nn_norm_inplace(p, &a->k_norm, k, s->head_dim);
    y = pass_tensor(p, DTYPE_F32, x->rows, q->cols);
    if (p->failed)
        return y;
    if (a->rope >= 0) {
        p->ops->rope(p->dev, q, s->head_dim, p->rope_tables[a->rope], s->rope.interleaved);
        p->ops->rope(p->dev, k, s->head_dim, p->rope_tables[a->rope], s->rope.interleaved);
    }
    p->ops->kv_store(p->dev, kv, rows, k, v);
    p->ops->attend(p->dev, y, q, kv, rows, &params);
    return nn_linear(p, &a->o_proj, y);
}
