/* nn/mlp.c: the feed-forward block, plain or gated. GLU variants, arXiv:2002.05202. */
#include "nn/nn.h"

tensor *nn_mlp(pass *p, const struct nn_mlp *m, const tensor *x)
{
    const struct mlp_spec *s = m->spec;
    tensor *y[2]; /* gate, up: [T, intermediate_size] */

    if (s->gated) {
        nn_linears(p, (const struct nn_linear *[]){&m->gate_proj, &m->up_proj}, 2, x, y);
        if (!p->failed)
            p->ops->glu(p->dev, y[0], y[0], y[1], s->activation);
    } else {
        y[0] = nn_linear(p, &m->up_proj, x);
        if (!p->failed)
            p->ops->activate(p->dev, y[0], y[0], s->activation);
    }
    return nn_linear(p, &m->down_proj, y[0]);
}
