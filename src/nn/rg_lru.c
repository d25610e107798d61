/* nn/rg_lru.c: a gated linear recurrence of each channel by itself.
 *
 *     x' = conv(x_proj x);  i, r = sigmoid(products of x' head by head)
 *     log a = -8 r softplus(decay);  h = a h + sqrt(1 - a^2) i x'
 *     out = out_proj(act(y_proj x) h)
 *
 * RG-LRU of Griffin, arXiv:2402.19427
 */
#include "nn/nn.h"

/* sigmoid(w_h x_h + b_h) of each head's channels. */
static tensor *head_gate(pass *p, const struct nn_experts *w, int n_heads, const tensor *x)
{
    tensor *y = pass_tensor(p, DTYPE_F32, x->rows, x->cols);
    tensor from, to;

    if (p->failed)
        return y;
    from = nn_part_rows(x, n_heads, 0, x->cols / n_heads);
    to = nn_part_rows(y, n_heads, 0, x->cols / n_heads);
    nn_per_part(p, w, n_heads, &to, &from);
    if (!p->failed)
        p->ops->activate(p->dev, y, y, ACT_SIGMOID);
    return y;
}

tensor *nn_rg_lru(pass *p, const struct nn_rg_lru *r, const tensor *x, size_t state)
{
    const struct rg_lru_spec *s = r->spec;
    size_t kept = (size_t)(s->conv_width - 1) * (size_t)s->channels * sizeof(float);
    tensor *in[2], *input, *decay; /* all [T, channels] */

    nn_linears(p, (const struct nn_linear *[]){&r->x_proj, &r->y_proj}, 2, x, in);
    nn_conv(p, &r->conv, in[0], s->conv_width, ACT_NONE, state);
    input = head_gate(p, &r->input_gate, s->n_heads, in[0]);
    decay = head_gate(p, &r->decay_gate, s->n_heads, in[0]);
    if (p->failed)
        return in[0];
    p->ops->scale_columns(p->dev, decay, r->decay);
    p->ops->scale(p->dev, decay, -8);
    p->ops->glu(p->dev, in[0], input, in[0], ACT_NONE);
    p->ops->gated_scan(p->dev, in[0], in[0], decay, &p->rows.states, state + kept);
    if (!pass_narrow(p, in[0]) || !pass_narrow(p, in[1]))
        return in[0];
    p->ops->glu(p->dev, in[0], in[1], in[0], s->activation);
    return nn_linear(p, &r->out_proj, in[0]);
}
