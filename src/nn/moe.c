/* nn/moe.c: a router sends each token to k of E experts and mixes their answers. arXiv:1701.06538
 */
#include "nn/nn.h"

/* y += the expert that every token goes to, gated or not. */
static void add_shared(pass *p, const struct nn_moe *m, tensor *y, const tensor *x)
{
    tensor *shared = nn_mlp(p, &m->shared, x);

    if (m->spec->shared_gate) {
        tensor *gate = nn_linear(p, &m->shared_gate, x); /* [T, 1] */

        if (p->failed)
            return;
        p->ops->activate(p->dev, gate, gate, ACT_SIGMOID);
        p->ops->scale_rows(p->dev, shared, gate);
    }
    if (!p->failed)
        p->ops->add(p->dev, y, shared, 1);
}

tensor *nn_moe(pass *p, const struct nn_moe *m, const tensor *x)
{
    const struct mlp_spec *s = &m->spec->expert;
    struct router_params router = m->spec->router;
    int n_experts = router.n_experts, k = router.n_experts_per_token;
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
    router.bias = m->router_bias;
    p->ops->route(p->dev, ids, weights, logits, &router);
    p->ops->matmul_experts(p->dev, in, s->gated ? 2 : 1, n_experts, x, ids);
    if (s->gated)
        p->ops->glu(p->dev, gate, gate, up, s->activation);
    else
        p->ops->activate(p->dev, gate, gate, s->activation);
    p->ops->matmul_experts(p->dev, &out, 1, n_experts, gate, ids);
    p->ops->combine_experts(p->dev, y, down, weights);
    if (m->spec->shared.intermediate_size)
        add_shared(p, m, y, x);
    return y;
}
