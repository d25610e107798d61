/* nn/mlp.c: the feed-forward block, plain or gated. GLU variants, arXiv:2002.05202. */
#include <math.h>

#include "nn/nn.h"

/* gate = beta tanh(gate / beta) sigmoid(gate) up, up held likewise. */
static void situ(pass *p, const struct mlp_spec *s, tensor *gate, tensor *up)
{
    tensor *held = pass_tensor(p, DTYPE_F32, gate->rows, gate->cols);

    if (p->failed)
        return;
    p->ops->copy_rows(p->dev, held, gate);
    p->ops->softcap(p->dev, held, s->situ);
    p->ops->glu(p->dev, gate, gate, held, ACT_SIGMOID);
    if (s->situ_up != 0)
        p->ops->softcap(p->dev, up, s->situ_up);
    p->ops->glu(p->dev, gate, gate, up, ACT_NONE);
}

void nn_glu(pass *p, const struct mlp_spec *s, tensor *gate, tensor *up)
{
    if (p->failed)
        return;
    if (s->situ != 0) {
        situ(p, s, gate, up);
        return;
    }
    if (s->gate_scale != 0)
        p->ops->scale(p->dev, gate, s->gate_scale);
    if (s->thinned)
        p->ops->cut_below_spread(p->dev, gate, s->thinning);
    if (s->alpha != 0) {
        p->ops->glu_alpha(p->dev, gate, gate, up, s->alpha, s->limit);
        return;
    }
    if (s->limit > 0) {
        if (!s->limit_gate)
            p->ops->activate(p->dev, gate, gate, s->activation);
        p->ops->clamp(p->dev, gate, -INFINITY, s->limit);
        p->ops->clamp(p->dev, up, -s->limit, s->limit);
    }
    p->ops->glu(p->dev, gate, gate, up, s->limit > 0 && !s->limit_gate ? ACT_NONE : s->activation);
}

int nn_mlp_begin(const struct nn_mlp *m, const struct nn_linear **l)
{
    int n = 0;

    if (m->spec->gated)
        l[n++] = &m->gate_proj;
    l[n++] = &m->up_proj;
    return n;
}

/* y: gate and up, or up: [T, intermediate_size] */
tensor *nn_mlp_inner(pass *p, const struct nn_mlp *m, tensor *const *y)
{
    const struct mlp_spec *s = m->spec;

    if (s->gated)
        nn_glu(p, s, y[0], y[1]);
    else if (!p->failed && s->xielu)
        p->ops->xielu(p->dev, y[0], m->xielu);
    else if (!p->failed)
        p->ops->activate(p->dev, y[0], y[0], s->activation);
    nn_norm_inplace(p, &m->inner_norm, y[0], s->intermediate_size);
    return y[0];
}

tensor *nn_mlp_end(pass *p, const struct nn_mlp *m, tensor *const *y)
{
    tensor *down = nn_linear(p, &m->down_proj, nn_mlp_inner(p, m, y));

    if (m->is_share)
        pass_sum(p, down);
    return down;
}

tensor *nn_mlp(pass *p, const struct nn_mlp *m, const tensor *x)
{
    const struct nn_linear *l[2];
    tensor *y[2];

    nn_linears(p, l, nn_mlp_begin(m, l), x, y);
    return nn_mlp_end(p, m, y);
}
