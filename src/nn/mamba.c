/* nn/mamba.c: a state space of which every channel has a state h [state_size] and decays of its
 * own.
 *
 *     x, z = in_proj x;  x = act(conv(x));  dt, B, C = x_proj x
 *     dt = softplus(dt_proj dt);  h = exp(dt A) h + dt x B;  y = h C + D x
 *     out = out_proj(y silu(z))
 *
 * Mamba, arXiv:2312.00752; norms of dt, B and C, Jamba, 2403.19887
 */
#include "nn/nn.h"

/* B and C [T, state_size] and the time step [T, channels], of the convolved x. */
static tensor *steps(pass *p, const struct nn_mamba *m, const tensor *x, tensor *b, tensor *c)
{
    const struct mamba_spec *s = m->spec;
    tensor *bcdt = nn_linear(p, &m->bcdt, x);
    tensor dt = nn_part_rows(bcdt, 1, 0, s->dt_rank), *all;

    *b = nn_part_rows(bcdt, 1, s->dt_rank, s->state_size);
    *c = nn_part_rows(bcdt, 1, s->dt_rank + s->state_size, s->state_size);
    nn_norm_inplace(p, &m->dt_norm, &dt, s->dt_rank);
    nn_norm_inplace(p, &m->b_norm, b, s->state_size);
    nn_norm_inplace(p, &m->c_norm, c, s->state_size);
    all = nn_linear(p, &m->dt, &dt);
    if (!p->failed)
        p->ops->activate(p->dev, all, all, ACT_SOFTPLUS);
    return all;
}

tensor *nn_mamba(pass *p, const struct nn_mamba *m, const tensor *x, size_t state)
{
    const struct mamba_spec *s = m->spec;
    size_t conv_bytes = (size_t)s->channels * (size_t)(s->conv_width - 1) * sizeof(float);
    tensor *in[2], *dt, b, c; /* x and z: [T, channels] */

    nn_linears(p, (const struct nn_linear *[]){&m->x, &m->z}, 2, x, in);
    nn_conv(p, &m->conv, in[0], s->conv_width, s->conv_activation, state);
    dt = steps(p, m, in[0], &b, &c);
    if (!p->failed)
        p->ops->selective_scan(p->dev, in[0], in[0], dt, &b, &c, m->a, m->d, &p->rows.states,
                               state + conv_bytes);
    if (!pass_narrow(p, in[0]) || !pass_narrow(p, in[1]))
        return in[0];
    if (!p->failed)
        p->ops->glu(p->dev, in[0], in[1], in[0], ACT_SILU);
    return nn_linear(p, &m->out_proj, in[0]);
}
