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

static void turn(pass *p, const struct nn_mla *m, tensor *x)
{
    const struct mla_spec *s = m->spec;

    if (m->rope >= 0 && !p->failed)
        p->ops->rope(p->dev, x, s->rope_dim + s->kv_rank, p->rope_tables[m->rope],
                     s->rope.interleaved);
}

/* Keys, and those of the index, made of x. */
static void store(pass *p, const struct nn_mla *m, const tensor *x, tensor *k)
{
    tensor v = nn_part_rows(k, 1, m->spec->rope_dim, m->spec->kv_rank);

    if (m->spec->index.topk && !m->spec->index_of)
        nn_store_index(p, &m->index, x);
    turn(p, m, k);
    if (!p->failed)
        p->ops->kv_store(p->dev, pass_kv_layer(p, m->cache_layer),
                         &p->rows.kv[kv_cache_group_of(p->cache, m->cache_layer)], k, &v);
}

/* Those that rows see, where they do not see all. */
static const tensor *chosen(pass *p, const struct nn_mla *m, const tensor *x, const tensor *latent)
{
    if (m->spec->index_of)
        return p->chosen;
    return m->spec->index.topk ? nn_choose_keys(p, &m->index, x, latent) : NULL;
}

tensor *nn_mla(pass *p, const struct nn_mla *m, const tensor *all)
{
    const struct mla_spec *s = m->spec;
    struct attend_params params = {.n_heads = s->n_heads, .scale = s->scale};
    const struct nn_linear *reads_x[] = {s->q_rank ? &m->q_a_proj : &m->q_proj, &m->kv_a_proj};
    bool narrows = p->narrows;
    tensor rows = *all, *x = &rows; /* all, then those of the queries */
    tensor *latent = x;             /* of queries, [T, q_rank], or x itself */
    tensor *first[COUNT(reads_x)], *q, *k = NULL, *found, *y;
    tensor from, to;

    nn_linears(p, reads_x + narrows, 2 - narrows, x, first + narrows);
    if (narrows) {
        k = keys(p, m, first[1]);
        store(p, m, x, k);
        if (!pass_narrow(p, x))
            return pass_row_range(p, x, 0, 0);
        if (p->chosen)
            pass_narrow(p, p->chosen);
        first[0] = nn_linear(p, reads_x[0], x);
    }
    found = pass_tensor(p, DTYPE_F32, x->rows, s->n_heads * s->kv_rank);
    y = pass_tensor(p, DTYPE_F32, x->rows, s->n_heads * s->v_dim);
    q = first[0];
    if (s->q_rank) {
        nn_norm_inplace(p, &m->q_norm, q, s->q_rank);
        latent = q;
        q = nn_linear(p, &m->q_proj, latent);
    }
    q = queries(p, m, q);
    if (!narrows)
        k = keys(p, m, first[1]);
    turn(p, m, q);
    if (!narrows)
        store(p, m, x, k);
    params.kept = chosen(p, m, x, latent);
    if (p->failed)
        return y;
    p->ops->attend(p->dev, found, q, pass_kv_layer(p, m->cache_layer),
                   &p->rows.kv[kv_cache_group_of(p->cache, m->cache_layer)], &params);
    from = nn_part_rows(found, s->n_heads, 0, s->kv_rank);
    to = nn_part_rows(y, s->n_heads, 0, s->v_dim);
    nn_per_part(p, &m->unembed, s->n_heads, &to, &from);
    nn_gate(p, &m->gate, s->gate, ACT_SIGMOID, s->n_heads, y, x);
    y = nn_linear(p, &m->o_proj, y);
    if (m->is_share)
        pass_sum(p, y);
    return y;
}
