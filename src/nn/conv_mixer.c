/* nn/conv_mixer.c: a gate whose two sides are convolutions of keys and of values.
 *
 *     out = o_proj(sigmoid(q * conv(k)) * conv(v)),  q = norm(q_proj x), k = norm(k_proj x)
 *
 * Keys and values have fewer heads, each serving several of q's. Gear
 */
#include "nn/nn.h"

/* Head by head: sigmoid(q k) v, in place of q. */
static void mix(pass *p, const struct conv_mixer_spec *s, tensor *q, const tensor *k,
                const tensor *v)
{
    int served = s->n_heads / s->n_kv_heads;
    tensor keys = nn_part_rows(k, s->n_kv_heads, 0, s->head_dim);
    tensor values = nn_part_rows(v, s->n_kv_heads, 0, s->head_dim);

    for (int j = 0; j < served && !p->failed; j++) {
        tensor part = nn_part_rows(q, s->n_kv_heads, j * s->head_dim, s->head_dim);

        p->ops->glu(p->dev, &part, &keys, &part, ACT_NONE);
        p->ops->glu(p->dev, &part, &part, &values, ACT_SIGMOID);
    }
}

tensor *nn_conv_mixer(pass *p, const struct nn_conv_mixer *m, const tensor *x, size_t state)
{
    const struct conv_mixer_spec *s = m->spec;
    size_t kept = (size_t)(s->width - 1) * (size_t)(s->n_kv_heads * s->head_dim) * sizeof(float);
    const struct nn_linear *l[] = {&m->q_proj, &m->k_proj, &m->v_proj};
    tensor *y[3]; /* q, k, v */

    nn_linears(p, l, 3, x, y);
    nn_norm_inplace(p, &m->q_norm, y[0], s->head_dim);
    nn_norm_inplace(p, &m->k_norm, y[1], s->head_dim);
    nn_conv(p, &m->k_conv, y[1], s->width, ACT_NONE, state);
    nn_conv(p, &m->v_conv, y[2], s->width, ACT_NONE, state + kept);
    for (int i = 0; i < 3; i++)
        if (!pass_narrow(p, y[i]))
            return y[i];
    mix(p, s, y[0], y[1], y[2]);
    return nn_linear(p, &m->o_proj, y[0]);
}
