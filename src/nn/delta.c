/* nn/delta.c: the delta rule with decay: a state S [key_dim, value_dim] of each head is read by a
 * key, and what it finds is corrected towards the value.
 *
 *     q, k, v = act(conv(q_proj x)), ...;  q, k of length 1, q times 1 / sqrt(key_dim)
 *     S = diag(w) S;  S += k (x) beta (v - S^T k);  y = S^T q
 *     out = o_proj(norm(y) act(gate x)),  beta = sigmoid(b x)
 *     w = exp(-exp(A_log) softplus(a x + dt_bias)), of a head or of each number of its keys
 *
 * Gated delta net, arXiv:2412.06464; Kimi delta attention, 2510.26692
 */
#include <math.h>

#include "nn/nn.h"

/* Added to the square of a length. */
static const float length_eps = 1e-6f;

/* What the projections give. */
struct projected {
    tensor *q, *k, *v, *gate, *beta, *decay;
};

/* All that read x in one go; gate and decay may come through a rank. */
static struct projected project(pass *p, const struct nn_delta *d, const tensor *x)
{
    const struct delta_spec *s = d->spec;
    const struct nn_linear *l[] = {&d->q_proj,
                                   &d->k_proj,
                                   &d->v_proj,
                                   &d->beta,
                                   s->gate_rank ? &d->gate.down : &d->gate.up,
                                   s->decay_rank ? &d->decay.down : &d->decay.up};
    tensor *y[COUNT(l)];

    nn_linears(p, l, COUNT(l), x, y);
    return (struct projected){
        .q = y[0],
        .k = y[1],
        .v = y[2],
        .beta = y[3],
        .gate = s->gate_rank ? nn_linear(p, &d->gate.up, y[4]) : y[4],
        .decay = s->decay_rank ? nn_linear(p, &d->decay.up, y[5]) : y[5],
    };
}

/* The convolutions, whose states lie one after another. Gives where the matrices lie. */
static size_t convolve(pass *p, const struct nn_delta *d, const struct projected *y, size_t state)
{
    tensor *parts[] = {y->q, y->k, y->v};
    const struct nn_conv *convs[] = {&d->conv_q, &d->conv_k, &d->conv_v};
    int width = d->spec->conv_width;

    for (size_t i = 0; i < COUNT(parts); i++) {
        nn_conv(p, convs[i], parts[i], width, d->spec->conv_activation, state);
        state += (size_t)(width - 1) * (size_t)parts[i]->cols * sizeof(float);
    }
    return state;
}

/* Heads of the given length. */
static void set_length(pass *p, tensor *x, int n, float length)
{
    p->ops->rms_norm(p->dev, x, x, NULL, n, length_eps / (float)n);
    p->ops->scale(p->dev, x, length / sqrtf((float)n));
}

/* What remains of the state, in place of what was projected. */
static void decays(pass *p, const struct nn_delta *d, tensor *decay)
{
    const struct delta_spec *s = d->spec;
    int n = s->keywise ? s->key_dim : 1; /* that share a factor */
    tensor *dt;

    if (s->decay_bound == 0) {
        dt = pass_tensor(p, DTYPE_F32, decay->rows, decay->cols);
        if (p->failed)
            return;
        p->ops->copy_rows(p->dev, dt, decay);
        p->ops->time_step(p->dev, dt, decay, d->dt_bias, d->a, n, 0, INFINITY);
        return;
    }
    p->ops->add_columns(p->dev, decay, d->dt_bias);
    p->ops->scale_groups(p->dev, decay, d->a, n);
    p->ops->scale(p->dev, decay, -1); /* a is -exp(A_log) */
    p->ops->activate(p->dev, decay, decay, ACT_SIGMOID);
    p->ops->scale(p->dev, decay, s->decay_bound);
    p->ops->activate(p->dev, decay, decay, ACT_EXP);
}

tensor *nn_delta(pass *p, const struct nn_delta *d, const tensor *x, size_t state)
{
    const struct delta_spec *s = d->spec;
    struct projected y = project(p, d, x);
    struct recurrence_params params = {
        .rule = RECUR_DELTA,
        .n_heads = s->n_heads,
        .n_key_heads = s->n_key_heads,
        .key_dim = s->key_dim,
        .value_dim = s->value_dim,
        .q = y.q,
        .k = y.k,
        .v = y.v,
        .decay = y.decay,
        .beta = y.beta,
    };

    if (p->failed)
        return y.v;
    state = convolve(p, d, &y, state);
    set_length(p, y.q, s->key_dim, 1 / sqrtf((float)s->key_dim));
    set_length(p, y.k, s->key_dim, 1);
    p->ops->activate(p->dev, y.beta, y.beta, ACT_SIGMOID);
    if (s->beta_scale != 1)
        p->ops->scale(p->dev, y.beta, s->beta_scale);
    decays(p, d, y.decay);
    if (p->failed)
        return y.v;
    p->ops->recurrence(p->dev, y.v, &params, &p->rows.states, state);
    if (!pass_narrow(p, y.v) || !pass_narrow(p, y.gate))
        return y.v;
    nn_norm_inplace(p, &d->norm, y.v, s->value_dim);
    p->ops->glu(p->dev, y.v, y.gate, y.v, s->gate_activation);
    y.v = nn_linear(p, &d->o_proj, y.v);
    if (d->is_share)
        pass_sum(p, y.v);
    return y.v;
}
