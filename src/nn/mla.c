/* nn/mla.c: attention to latent vectors, in the absorbed form: what a head looks for is taken to
 * the latents (embed_q), so that one latent per token serves as key and value of all heads, and
 * what it finds is taken to its values afterwards (unembed).
 *
 *     q_h = [rope(q_pe_h) | embed_q_h q_nope_h],  k = [rope(k_pe) | c],  v = c = norm(kv_a x)
 *     y = o_proj [unembed_h softmax(scale q_h k^T) v]_h              arXiv:2405.04434, section 2.1
 */
#include "nn/nn.h"

/* [T, H (rope_dim + kv_rank)] of q [T, H (nope_dim + rope_dim)] */
static tensor *queries(pass *p, const struct nn_mla *m, tensor *q)
{
    const struct mla_spec *s = m->spec;
    tensor *y = pass_tensor(p, DTYPE_F32, q->rows, s->n_heads * (s->rope_dim + s->kv_rank));
    tensor from, to;

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

/* [T, rope_dim + kv_rank] of kv [T, kv_rank + rope_dim] */
static tensor *keys(pass *p, const struct nn_mla *m, const tensor *kv)
{
    const struct mla_spec *s = m->spec;
    tensor *k = pass_tensor(p, DTYPE_F32, kv->rows, kv->cols);
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
    const struct nn_linear *reads_x[] = {s->q_rank ? &m->q_a_proj : &m->q_proj, &m->kv_a_proj};
    const tensor *latent = x; /* of queries, [T, q_rank], or x itself */
    tensor *first[COUNT(reads_x)], *q, *k;
    tensor *found = pass_tensor(p, DTYPE_F32, x->rows, s->n_heads * s->kv_rank);
    tensor *y = pass_tensor(p, DTYPE_F32, x->rows, s->n_heads * s->v_dim);
    tensor v, from, to;

    nn_linears(p, reads_x, COUNT(reads_x), x, first);
    q = first[0];
    if (s->q_rank) {
        nn_norm_inplace(p, &m->q_norm, q, s->q_rank);
        latent = q;
        q = nn_linear(p, &m->q_proj, latent);
    }
    q = queries(p, m, q);
    k = keys(p, m, first[1]);
    if (s->index_of)
        params.kept = p->chosen;
    else if (s->index.topk)
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
