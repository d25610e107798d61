/* nn/rwkv7.c: time mixing of RWKV-7. What each projection reads is mixed with the token before.
 *
 *     w = exp(-0.606531 sigmoid(decay(x_w))),  a = sigmoid(rate(x_a))
 *     v += sigmoid(value(x_v)) (first layer's v - v),  n = k k_k of length 1,  k = k (1 + (a - 1)
 * k_a) S = diag(w) S - (n a) (x) S^T n + k (x) v;  y = norm(S^T r) + (r . k r_k) v out =
 * o_proj(gate(x_g) y)
 *
 * arXiv:2503.14456
 */
#include <math.h>

#include "nn/nn.h"

/* exp(-1/2), what a state keeps at least of a number */
static const float slowest = -0.606531f;
static const float least_length = 1e-7f;

struct parts {
    tensor *r, *decay, *k, *v, *rate, *gate; /* [T, hidden_size] each */
};

static tensor *through(pass *p, const struct nn_low_rank *l, enum activation act, const tensor *x)
{
    tensor *low = nn_linear(p, &l->down, x);

    if (!p->failed && act != ACT_NONE)
        p->ops->activate(p->dev, low, low, act);
    return nn_linear(p, &l->up, low);
}

/* v of this layer, mixed with that of the first one, which is kept. */
static void mix_values(pass *p, const struct nn_rwkv7 *r, tensor *v, const tensor *x)
{
    tensor *share, *news;

    if (!r->spec->value_rank) {
        if (!p->failed)
            p->ops->copy_rows(p->dev, p->first_values, v);
        return;
    }
    share = through(p, &r->value, ACT_NONE, x);
    news = pass_tensor(p, DTYPE_F32, v->rows, v->cols);
    if (p->failed)
        return;
    p->ops->copy_rows(p->dev, news, p->first_values);
    p->ops->add(p->dev, news, v, -1);
    p->ops->glu(p->dev, news, share, news, ACT_SIGMOID);
    p->ops->add(p->dev, v, news, 1);
}

static struct parts project(pass *p, const struct nn_rwkv7 *r, const tensor *x, size_t state)
{
    const tensor *shift = nn_shift(p, x, state);
    tensor *in[6];
    struct parts y;

    for (int i = 0; i < 6; i++)
        in[i] = nn_mix(p, x, shift, r->mix[i]);
    y.r = nn_linear(p, &r->r_proj, in[0]);
    y.decay = through(p, &r->decay, ACT_TANH, in[1]);
    y.k = nn_linear(p, &r->k_proj, in[2]);
    y.v = nn_linear(p, &r->v_proj, in[3]);
    y.rate = through(p, &r->rate, ACT_NONE, in[4]);
    y.gate = through(p, &r->gate, ACT_SIGMOID, in[5]);
    mix_values(p, r, y.v, in[3]);
    return y;
}

/* -n and n a, n the keys as removed; and keys as added in place of k. */
static void make_keys(pass *p, const struct nn_rwkv7 *r, const struct parts *y, tensor *a,
                      tensor *b)
{
    int n = r->spec->head_dim;

    p->ops->copy_rows(p->dev, a, y->k);
    p->ops->scale_columns(p->dev, a, r->key_scale);
    p->ops->rms_norm(p->dev, a, a, NULL, n, least_length * least_length / (float)n);
    p->ops->scale(p->dev, a, 1 / sqrtf((float)n));
    p->ops->glu(p->dev, b, y->rate, a, ACT_NONE);
    p->ops->scale(p->dev, a, -1);
    /* k += k k_a rate - k k_a */
    tensor *part = pass_tensor(p, DTYPE_F32, a->rows, a->cols);
    tensor *rated = pass_tensor(p, DTYPE_F32, a->rows, a->cols);

    if (p->failed)
        return;
    p->ops->copy_rows(p->dev, part, y->k);
    p->ops->scale_columns(p->dev, part, r->key_rate);
    p->ops->glu(p->dev, rated, y->rate, part, ACT_NONE);
    p->ops->add(p->dev, y->k, rated, 1);
    p->ops->add(p->dev, y->k, part, -1);
}

/* found += (r . k r_k) v, head by head; v is used up. */
static void add_bonus(pass *p, const struct nn_rwkv7 *r, const struct parts *y, tensor *found)
{
    int n_heads = r->spec->n_heads, n = r->spec->head_dim;
    tensor *factors = pass_tensor(p, DTYPE_F32, found->rows, n_heads);
    tensor heads, of_heads;

    if (p->failed)
        return;
    p->ops->scale_columns(p->dev, y->r, r->bonus);
    p->ops->dot_groups(p->dev, factors, y->r, y->k, n);
    heads = nn_part_rows(y->v, n_heads, 0, n);
    of_heads = nn_part_rows(factors, n_heads, 0, 1);
    p->ops->scale_rows(p->dev, &heads, &of_heads);
    p->ops->add(p->dev, found, y->v, 1);
}

tensor *nn_rwkv7(pass *p, const struct nn_rwkv7 *r, const tensor *x, size_t state)
{
    const struct rwkv7_spec *s = r->spec;
    struct parts y = project(p, r, x, state);
    tensor *a = pass_tensor(p, DTYPE_F32, x->rows, x->cols);
    tensor *b = pass_tensor(p, DTYPE_F32, x->rows, x->cols);
    tensor *found = pass_tensor(p, DTYPE_F32, x->rows, x->cols);
    struct recurrence_params params = {
        .rule = RECUR_RWKV7,
        .n_heads = s->n_heads,
        .n_key_heads = s->n_heads,
        .key_dim = s->head_dim,
        .value_dim = s->head_dim,
        .q = y.r,
        .k = y.k,
        .v = y.v,
        .decay = y.decay,
        .a = a,
        .b = b,
    };

    if (p->failed)
        return found;
    p->ops->activate(p->dev, y.decay, y.decay, ACT_SIGMOID);
    p->ops->scale(p->dev, y.decay, slowest);
    p->ops->activate(p->dev, y.decay, y.decay, ACT_EXP);
    p->ops->activate(p->dev, y.rate, y.rate, ACT_SIGMOID);
    make_keys(p, r, &y, a, b);
    if (p->failed)
        return found;
    p->ops->recurrence(p->dev, found, &params, &p->rows.states,
                       state + (size_t)x->cols * sizeof(float));
    if (!pass_narrow(p, found))
        return found;
    pass_narrow(p, y.r);
    pass_narrow(p, y.k);
    pass_narrow(p, y.v);
    pass_narrow(p, y.gate);
    nn_norm_groups(p, &r->norm, found, s->n_heads);
    add_bonus(p, r, &y, found);
    if (!p->failed)
        p->ops->glu(p->dev, found, y.gate, found, ACT_NONE);
    return nn_linear(p, &r->o_proj, found);
}
