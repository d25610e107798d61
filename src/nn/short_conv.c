/* nn/short_conv.c: a short convolution over the tokens between two gates.
 *
 *     b, c, x = in_proj x;  out = out_proj(c * conv(b * x))
 *
 * LFM2, arXiv:2511.23404
 */
#include "nn/nn.h"

void nn_conv(pass *p, const struct nn_conv *c, tensor *x, int width, enum activation act,
             size_t state)
{
    if (!p->failed)
        p->ops->causal_conv(p->dev, x, x, c->w, c->bias, width, act, &p->rows.states, state);
}

tensor *nn_short_conv(pass *p, const struct nn_short_conv *c, const tensor *x, size_t state)
{
    int n = c->spec->channels;
    tensor *in = nn_linear(p, &c->in_proj, x); /* [T, 3 n] */
    tensor parts[3];                           /* b, c, x */

    for (int i = 0; i < 3; i++)
        parts[i] = nn_part_rows(in, 1, i * n, n);
    if (!p->failed)
        p->ops->glu(p->dev, &parts[2], &parts[0], &parts[2], ACT_NONE);
    nn_conv(p, &c->conv, &parts[2], c->spec->width, ACT_NONE, state);
    if (!pass_narrow(p, &parts[2]) || !pass_narrow(p, &parts[1]))
        return pass_row_range(p, &parts[2], 0, 0);
    if (!p->failed)
        p->ops->glu(p->dev, &parts[2], &parts[1], &parts[2], ACT_NONE);
    return nn_linear(p, &c->out_proj, &parts[2]);
}
