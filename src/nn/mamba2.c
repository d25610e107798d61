/* nn/mamba2.c: a state space whose matrix S [state_size, head_dim] of each head decays as a whole.
 *
 *     z, xBC, dt = in_proj x;  x, B, C = act(conv(xBC))
 *     dt = softplus(dt + dt_bias), held within its limits
 *     S = exp(dt A) S + B (x) dt x;  y = S^T C + D x
 *     out = out_proj(norm(y silu(z)))
 *
 * Mamba-2, arXiv:2405.21060
 */
#include "nn/nn.h"

/* Of a token: time steps and decays [T, n_heads], x [T, n_heads, head_dim], and B and C of each
 * group of heads [T, n_groups, state_size]. */
struct steps {
    tensor *z, *dt, *decay;
    tensor x, b, c;
};

static void scale_part(pass *p, tensor *x, float scale)
{
    if (scale != 0 && scale != 1 && !p->failed)
        p->ops->scale(p->dev, x, scale);
}

int nn_mamba2_begin(const struct nn_mamba2 *m, const struct nn_linear **l)
{
    int n = 0;

    l[n++] = &m->x;
    l[n++] = &m->z;
    if (!m->spec->dt_rank)
        l[n++] = &m->dt;
    return n;
}

/* B, C and the time step come with x from one product, and B and C pass the convolution too. */
static void steps_from_input(pass *p, const struct nn_mamba2 *m, tensor *const *in, size_t state,
                             struct steps *y)
{
    const struct mamba2_spec *s = m->spec;
    int inner = s->n_heads * s->head_dim, keys = s->n_groups * s->state_size;

    y->x = nn_part_rows(in[0], 1, 0, inner);
    y->b = nn_part_rows(in[0], 1, inner, keys);
    y->c = nn_part_rows(in[0], 1, inner + keys, keys);
    y->z = in[1];
    y->dt = in[2];
    scale_part(p, &y->x, s->x_scale);
    scale_part(p, &y->b, s->b_scale);
    scale_part(p, &y->c, s->c_scale);
    scale_part(p, y->z, s->z_scale);
    scale_part(p, y->dt, s->dt_scale);
    nn_conv(p, &m->conv, in[0], s->conv_width, s->conv_activation, state);
}

/* Only x passes the convolution; the rest is made of it. */
static void steps_from_x(pass *p, const struct nn_mamba2 *m, tensor *const *in, size_t state,
                         struct steps *y)
{
    const struct mamba2_spec *s = m->spec;
    int n = s->state_size;
    tensor *bcdt, dt;

    nn_conv(p, &m->conv, in[0], s->conv_width, s->conv_activation, state);
    bcdt = nn_linear(p, &m->bcdt, in[0]);
    y->x = *in[0];
    y->z = in[1];
    y->b = nn_part_rows(bcdt, 1, 0, n);
    y->c = nn_part_rows(bcdt, 1, n, n);
    dt = nn_part_rows(bcdt, 1, 2 * n, s->dt_rank);
    nn_norm_inplace(p, &m->b_norm, &y->b, n);
    nn_norm_inplace(p, &m->c_norm, &y->c, n);
    nn_norm_inplace(p, &m->dt_norm, &dt, s->dt_rank);
    y->dt = nn_linear(p, &m->dt, &dt);
}

static void gate(pass *p, const struct nn_mamba2 *m, tensor *y, const tensor *z)
{
    if (m->spec->norm_before_gate)
        nn_norm_groups(p, &m->norm, y, m->spec->norm_groups);
    if (!p->failed)
        p->ops->glu(p->dev, y, z, y, ACT_SILU);
    if (!m->spec->norm_before_gate)
        nn_norm_groups(p, &m->norm, y, m->spec->norm_groups);
}

tensor *nn_mamba2_inner(pass *p, const struct nn_mamba2 *m, tensor *const *first, size_t state)
{
    const struct mamba2_spec *s = m->spec;
    size_t conv_bytes = (size_t)mamba2_channels(s) * (size_t)(s->conv_width - 1) * sizeof(float);
    int rows = first[0]->rows;
    tensor *y = pass_tensor(p, DTYPE_F32, rows, s->n_heads * s->head_dim);
    struct steps t;

    if (s->dt_rank)
        steps_from_x(p, m, first, state, &t);
    else
        steps_from_input(p, m, first, state, &t);
    t.decay = pass_tensor(p, DTYPE_F32, rows, s->n_heads);
    if (!p->failed) {
        struct recurrence_params params = {
            .rule = RECUR_ADD,
            .n_heads = s->n_heads,
            .n_key_heads = s->n_groups,
            .key_dim = s->state_size,
            .value_dim = s->head_dim,
            .q = &t.c,
            .k = &t.b,
            .v = &t.x,
            .decay = t.decay,
            .beta = t.dt,
            .skip = m->d,
        };

        p->ops->time_step(p->dev, t.dt, t.decay, m->dt_bias, m->a, 1, s->dt_low, s->dt_high);
        p->ops->recurrence(p->dev, y, &params, &p->rows.states, state + conv_bytes);
    }
    if (pass_narrow(p, y) && pass_narrow(p, t.z))
        gate(p, m, y, t.z);
    return y;
}

tensor *nn_mamba2(pass *p, const struct nn_mamba2 *m, const tensor *x, size_t state)
{
    const struct nn_linear *l[NN_MAX_FIRST];
    tensor *first[NN_MAX_FIRST], *y;

    nn_linears(p, l, nn_mamba2_begin(m, l), x, first);
    y = nn_mamba2_inner(p, m, first, state);
    return y->rows > 0 ? nn_linear(p, &m->out_proj, y) : y;
}
