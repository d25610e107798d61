/* nn/moe.c: a router sends each token to k of E experts and mixes their answers. arXiv:1701.06538
 */
#include "nn/nn.h"

tensor *nn_moe(pass *p, const struct nn_moe *m, const tensor *x)
{
    const struct mlp_spec *s = &m->spec->expert;
    int n_experts = m->spec->router.n_experts, k = m->spec->router.n_experts_per_token;
    tensor *logits = nn_linear(p, &m->router, x); /* [T, E] */
    tensor *ids = pass_tensor(p, DTYPE_I32, x->rows, k);
    tensor *weights = pass_tensor(p, DTYPE_F32, x->rows, k);
    tensor *y = pass_tensor(p, DTYPE_F32, x->rows, x->cols);
    tensor *up = pass_tensor(p, DTYPE_F32, x->rows * k, s->intermediate_size); /* [T k, I] */
    tensor *gate = s->gated ? pass_tensor(p, DTYPE_F32, x->rows * k, s->intermediate_size) : up;
    tensor *down = pass_tensor(p, DTYPE_F32, x->rows * k, x->cols); /* [T k, hidden_size] */
    struct matmul_job in[2] = {
        {.y = up, .w = m->up_proj.w, .bias = m->up_proj.bias},
        {.y = gate, .w = m->gate_proj.w, .bias = m->gate_proj.bias},
    };
    struct matmul_job out = {.y = down, .w = m->down_proj.w, .bias = m->down_proj.bias};

    if (p->failed)
        return y;
    p->ops->route(p->dev, ids, weights, logits, &m->spec->router);
    p->ops->matmul_experts(p->dev, in, s->gated ? 2 : 1, n_experts, x, ids);
    if (s->gated)
        p->ops->glu(p->dev, gate, gate, up, s->activation);
    else
        p->ops->activate(p->dev, gate, gate, s->activation);
    p->ops->matmul_experts(p->dev, &out, 1, n_experts, gate, ids);
    p->ops->combine_experts(p->dev, y, down, weights);
    return y;
}
