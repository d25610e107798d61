/* nn/mlstm.c: a memory C [key_dim, value_dim] of each head with exponential gates, and n [key_dim],
 * what it holds of each key.
 *
 *     C = f C + exp(i) k (x) v;  n = f n + exp(i) k;  f = sigmoid(forget_gate x), i = in_gate x
 *     y = C^T q / max(|n q|, 1);  out = o_proj(norm(y) sigmoid(out_gate x))
 *
 * Both are kept as multiples of exp(-m) with the greatest exponent m so far. arXiv:2405.04517
 */
#include <math.h>

#include "nn/nn.h"

/* What the projections give, in the order of nn_linears. */
enum { Q, K, V, OUT_GATE, IN_GATE, FORGET_GATE, N_PROJECTIONS };

/* y = C^T q, or n q where v is all ones of one number for each head. */
static void remember(pass *p, const struct mlstm_spec *s, tensor *y, tensor *const *x,
                     const tensor *v, const tensor *gates, size_t state)
{
    tensor decay = nn_part_rows(gates, 1, 0, s->n_heads);
    tensor weight = nn_part_rows(gates, 1, s->n_heads, s->n_heads);
    struct recurrence_params params = {
        .rule = RECUR_ADD,
        .n_heads = s->n_heads,
        .n_key_heads = s->n_heads,
        .key_dim = s->key_dim,
        .value_dim = v->cols / s->n_heads,
        .q = x[Q],
        .k = x[K],
        .v = v,
        .decay = &decay,
        .beta = &weight,
    };

    if (!p->failed)
        p->ops->recurrence(p->dev, y, &params, &p->rows.states, state);
}

/* decays, weights and exp(-m), [T, 3 n_heads] */
static tensor *gates_of(pass *p, const struct mlstm_spec *s, tensor *const *x, size_t state)
{
    tensor *gates = pass_tensor(p, DTYPE_F32, x[Q]->rows, 3 * s->n_heads);

    if (p->failed)
        return gates;
    if (s->gate_softcap > 0) {
        p->ops->softcap(p->dev, x[IN_GATE], s->gate_softcap);
        p->ops->softcap(p->dev, x[FORGET_GATE], s->gate_softcap);
    }
    p->ops->exponential_gates(p->dev, gates, x[IN_GATE], x[FORGET_GATE], &p->rows.states, state);
    return gates;
}

tensor *nn_mlstm(pass *p, const struct nn_mlstm *m, const tensor *x, size_t state)
{
    const struct mlstm_spec *s = m->spec;
    const struct nn_linear *l[N_PROJECTIONS] = {&m->q_proj,   &m->k_proj,  &m->v_proj,
                                                &m->out_gate, &m->in_gate, &m->forget_gate};
    size_t keys = (size_t)s->n_heads * (size_t)s->key_dim * sizeof(float);
    size_t held = state + keys * (size_t)s->value_dim; /* n, then m */
    tensor *y[N_PROJECTIONS], *ones, *gates, floor;

    nn_linears(p, l, N_PROJECTIONS, x, y);
    ones = pass_tensor(p, DTYPE_F32, x->rows, s->n_heads);
    gates = gates_of(p, s, y, held + keys);
    floor = nn_part_rows(gates, 1, 2 * s->n_heads, s->n_heads);
    if (!p->failed) {
        p->ops->scale(p->dev, y[Q], 1 / sqrtf((float)s->key_dim));
        p->ops->fill(p->dev, ones, 1);
    }
    remember(p, s, y[V], y, y[V], gates, state);
    remember(p, s, ones, y, ones, gates, held);
    if (!p->failed)
        p->ops->divide_groups(p->dev, y[V], ones, &floor, s->value_dim, s->eps);
    if (!pass_narrow(p, y[V]) || !pass_narrow(p, y[OUT_GATE]))
        return y[V];
    nn_norm_groups(p, &m->norm, y[V], s->n_heads);
    if (!p->failed)
        p->ops->glu(p->dev, y[V], y[OUT_GATE], y[V], ACT_SIGMOID);
    return nn_linear(p, &m->o_proj, y[V]);
}
