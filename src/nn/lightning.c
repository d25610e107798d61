/* nn/lightning.c: linear attention whose heads forget by fixed factors.
 *
 *     S = decay_h S + k (x) v;  y = S^T scale q;  out = o_proj(norm(y) sigmoid(gate x))
 *
 * Lightning attention, arXiv:2405.17381
 */
#include "nn/nn.h"

tensor *nn_lightning(pass *p, const struct nn_lightning *l, const tensor *x, size_t state)
{
    const struct lightning_spec *s = l->spec;
    tensor *y[4]; /* q, k, v, gate: [T, H, D] */
    struct recurrence_params params = {
        .rule = RECUR_ADD,
        .n_heads = s->n_heads,
        .n_key_heads = s->n_heads,
        .key_dim = s->head_dim,
        .value_dim = s->head_dim,
        .head_decay = pass_upload(p, s->decays, (size_t)s->n_heads * sizeof(float)),
    };

    nn_linears(p, (const struct nn_linear *[]){&l->q_proj, &l->k_proj, &l->v_proj, &l->gate}, 4, x,
               y);
    for (int i = 0; i < 3 && s->activated && !p->failed; i++)
        p->ops->activate(p->dev, y[i], y[i], s->activation);
    nn_norm_inplace(p, &l->q_norm, y[0], s->head_dim);
    nn_norm_inplace(p, &l->k_norm, y[1], s->head_dim);
    for (int i = 0; i < 2 && l->rope >= 0 && !p->failed; i++)
        p->ops->rope(p->dev, y[i], s->head_dim, p->rope_tables[l->rope], s->rope.interleaved);
    if (p->failed)
        return y[2];
    p->ops->scale(p->dev, y[0], s->scale);
    params.q = y[0];
    params.k = y[1];
    params.v = y[2];
    p->ops->recurrence(p->dev, y[2], &params, &p->rows.states, state);
    if (!pass_narrow(p, y[2]) || !pass_narrow(p, y[3]))
        return y[2];
    nn_norm_groups(p, &l->norm, y[2], s->norm_groups);
    p->ops->glu(p->dev, y[2], y[3], y[2], ACT_SIGMOID);
    return nn_linear(p, &l->o_proj, y[2]);
}
