/* nn/mla.c: attention to latent vectors, in the absorbed form: what a head looks for is taken to
 * the latents (embed_q), so that one latent per token serves as key and value of all heads, and
 * what it finds is taken to its values afterwards (unembed).
 *
 *     q_h = [rope(q_pe_h) | embed_q_h q_nope_h],  k = [rope(k_pe) | c],  v = c = norm(kv_a x)
 *     y = o_proj [unembed_h softmax(scale q_h k^T) v]_h              arXiv:2405.04434, section 2.1
 */
#include "nn/nn.h"

/* The latent of queries, [T, q_rank], or x itself. */
static const tensor *query_latent(pass *p, const struct nn_mla *m, const tensor *x)
{
    tensor *q_a;

    if (!m->spec->q_rank)
        return x;
    q_a = nn_linear(p, &m->q_a_proj, x);
    nn_norm_inplace(p, &m->q_norm, q_a, m->spec->q_rank);
    return q_a;
}

/* [T, H (rope_dim + kv_rank)] */
static tensor *queries(pass *p, const struct nn_mla *m, const tensor *x)
{
    const struct mla_spec *s = m->spec;
    tensor *q, *y;
    tensor from, to;

    q = nn_linear(p, &m->q_proj, x); /* [T, H (nope_dim + rope_dim)] */
    y = pass_tensor(p, DTYPE_F32, x->rows, s->n_heads * (s->rope_dim + s->kv_rank));
    if (p->failed)
        return y;
    if (s->q_scale != 1)
        p->ops->scale(p->dev, q, s->q_scale);
    nn_temperature(p, &s->temperature, q);
    from = nn_part_rows(q, s->n_heads, s->nope_dim, s->rope_dim);
    to = nn_part_rows(y, s->n_heads, 0, s->rope_dim);
    p->ops->copy_rows(p->dev, &to, &from);
    from = nn_part_rows(q, s->n_heads, 0, s->nope_dim);
    to = nn_part_rows(y, s->n_heads, s->rope_dim, s->kv_rank);
    nn_per_part(p, &m->embed_q, s->n_heads, &to, &from);
    return y;
}

/* [T, rope_dim + kv_rank] */
static tensor *keys(pass *p, const struct nn_mla *m, const tensor *x)
{
    const struct mla_spec *s = m->spec;
    tensor *kv = nn_linear(p, &m->kv_a_proj, x);
    tensor *k = pass_tensor(p, DTYPE_F32, x->rows, kv->cols);
    tensor from = nn_part_rows(kv, 1, s->kv_rank, s->rope_dim),
           to = nn_part_rows(k, 1, 0, s->rope_dim);
    tensor latent = nn_part_rows(k, 1, s->rope_dim, s->kv_rank);

    if (p->failed)
        return k;
    p->ops->copy_rows(p->dev, &to, &from);
    from = nn_part_rows(kv, 1, 0, s->kv_rank);
    p->ops->copy_rows(p->dev, &latent, &from);
    nn_norm_inplace(p, &m->kv_norm, &latent, s->kv_rank);
    if (s->kv_scale != 1)
        p->ops->scale(p->dev, &latent, s->kv_scale);
    return k;
}

tensor *nn_mla(pass *p, const struct nn_mla *m, const tensor *x)
{
    const struct mla_spec *s = m->spec;
    const struct kv_batch *rows = &p->rows.kv[kv_cache_group_of(p->cache, m->cache_layer)];
    const struct kv_layer *kv = pass_kv_layer(p, m->cache_layer);
    struct attend_params params = {.n_heads = s->n_heads, .scale = s->scale};
    int head_dim = s->rope_dim + s->kv_rank;
    const tensor *latent = query_latent(p, m, x);
    tensor *q = queries(p, m, latent), *k = keys(p, m, x);
    tensor *found = pass_tensor(p, DTYPE_F32, x->rows, s->n_heads * s->kv_rank);
    tensor *y = pass_tensor(p, DTYPE_F32, x->rows, s->n_heads * s->v_dim);
    tensor v, from, to;

    if (s->index.topk)
        params.kept = nn_choose_keys(p, &m->index, x, latent);
    if (p->failed)
        return y;
    if (m->rope >= 0) {
        p->ops->rope(p->dev, q, head_dim, p->rope_tables[m->rope], s->rope.interleaved);
        p->ops->rope(p->dev, k, head_dim, p->rope_tables[m->rope], s->rope.interleaved);
    }
    v = nn_part_rows(k, 1, s->rope_dim, s->kv_rank);
    p->ops->kv_store(p->dev, kv, rows, k, &v);
    p->ops->attend(p->dev, found, q, kv, rows, &params);
    from = nn_part_rows(found, s->n_heads, 0, s->kv_rank);
    to = nn_part_rows(y, s->n_heads, 0, s->v_dim);
    nn_per_part(p, &m->unembed, s->n_heads, &to, &from);
    nn_gate(p, &m->gate, s->gate, ACT_SIGMOID, s->n_heads, y, x);
    y = nn_linear(p, &m->o_proj, y);
    if (m->is_share)
        pass_sum(p, y);
    return y;
}
