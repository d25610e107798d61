/* nn/moe.c: a router sends each token to k of E experts and mixes their answers. arXiv:1701.06538
 */
#include "nn/nn.h"

/* The products that wait for no choice. */
struct first_products {
    tensor *logits;     /* of the router, [T, E] */
    tensor *shared[2];  /* what the shared expert begins with; NULL: not yet there */
    tensor *gate, *mix; /* of its result: [T, 1], [T, 2] */
};

/* The router's, of read; where it reads x, as the shared expert does, those of that in one go. */
static struct first_products first_products(pass *p, const struct nn_moe *m, const tensor *read)
{
    const struct moe_spec *s = m->spec;
    bool reads_x = s->router_norm.kind == NORM_NONE && s->expert_norm.kind == NORM_NONE;
    const struct nn_linear *l[5] = {&m->router};
    tensor *y[COUNT(l)];
    struct first_products f = {0};
    int n = 1, n_shared = 0;

    if (s->shared.intermediate_size && reads_x) {
        n_shared = nn_mlp_begin(&m->shared, l + n);
        n += n_shared;
        if (s->shared_gate)
            l[n++] = &m->shared_gate;
        if (s->shared_mix)
            l[n++] = &m->shared_mix;
    }
    nn_linears_careful(p, l, n, 1, read, y);
    f.logits = y[0];
    for (int i = 0; i < n_shared; i++)
        f.shared[i] = y[1 + i];
    if (n_shared && s->shared_mix)
        f.mix = y[--n];
    if (n_shared && s->shared_gate)
        f.gate = y[--n];
    return f;
}

/* The experts' result and that of the expert that every token goes to, weighted by a softmax of
 * two. */
static void mix_shared(pass *p, tensor *y, tensor *shared, tensor *mix)
{
    tensor part;

    if (p->failed)
        return;
    p->ops->softmax(p->dev, mix);
    part = nn_part_rows(mix, 1, 0, 1);
    p->ops->scale_rows(p->dev, y, &part);
    part = nn_part_rows(mix, 1, 1, 1);
    p->ops->scale_rows(p->dev, shared, &part);
}

/* y += the expert that every token goes to, gated or not. */
static void add_shared(pass *p, const struct nn_moe *m, tensor *y, const tensor *x,
                       const struct first_products *f)
{
    tensor *shared = f->shared[0] ? nn_mlp_end(p, &m->shared, f->shared) : nn_mlp(p, &m->shared, x);

    nn_norm_inplace(p, &m->shared_post_norm, shared, shared->cols);

    if (m->spec->shared_gate) {
        tensor *gate = f->gate ? f->gate : nn_linear(p, &m->shared_gate, x);

        if (p->failed)
            return;
        p->ops->activate(p->dev, gate, gate, ACT_SIGMOID);
        p->ops->scale_rows(p->dev, shared, gate);
    }
    if (m->spec->shared_mix)
        mix_shared(p, y, shared, f->mix ? f->mix : nn_linear(p, &m->shared_mix, x));
    if (!p->failed)
        p->ops->add(p->dev, y, shared, 1);
}

/* Who answers, and what counts: ids and weights [T, k]. */
static void choose(pass *p, const struct nn_moe *m, tensor *logits, tensor *ids, tensor *weights)
{
    struct router_params router = m->spec->router;

    if (p->failed)
        return;
    router.bias = m->router_bias;
    if (m->spec->router_scale != 0)
        p->ops->scale(p->dev, logits, m->spec->router_scale);
    if (m->spec->logit_softcap > 0)
        p->ops->softcap(p->dev, logits, m->spec->logit_softcap);
    p->ops->route(p->dev, ids, weights, logits, &router);
    if (m->expert_scales)
        p->ops->scale_chosen(p->dev, weights, ids, m->expert_scales);
}

/* x times the weight of each of its k experts, [T k, hidden_size]; the weights become ones. */
static const tensor *weighted_inputs(pass *p, const tensor *x, tensor *weights)
{
    int k = weights->cols;
    tensor *inputs = pass_tensor(p, DTYPE_F32, x->rows * k, x->cols);
    tensor factors = nn_part_rows(weights, k, 0, 1);

    for (int j = 0; j < k && !p->failed; j++) {
        tensor part = *inputs;

        part.data = (float *)inputs->data + (int64_t)j * inputs->stride;
        part.rows = x->rows;
        part.stride = inputs->stride * k;
        p->ops->copy_rows(p->dev, &part, x);
    }
    if (!p->failed) {
        p->ops->scale_rows(p->dev, inputs, &factors);
        p->ops->fill(p->dev, weights, 1);
    }
    return inputs;
}

/* The answers of the experts with the given numbers, of the size of x, [T k, cols]. */
static tensor *answers(pass *p, const struct nn_moe *m, const tensor *x, const tensor *ids)
{
    const struct mlp_spec *s = &m->spec->expert;
    int n_experts = m->spec->router.n_experts - m->spec->n_zero_experts;
    int n = ids->rows * ids->cols;
    tensor *up = pass_tensor(p, DTYPE_F32, n, s->intermediate_size);
    tensor *gate = s->gated ? pass_tensor(p, DTYPE_F32, n, s->intermediate_size) : up;
    tensor *down = pass_tensor(p, DTYPE_F32, n, x->cols);
    const struct nn_experts *in[] = {&m->gate_proj, &m->up_proj}, *out = &m->down_proj;
    int first = s->gated ? 0 : 1;

    nn_experts(p, in + first, 2 - first, n_experts, x, ids, (tensor *[]){gate, up} + first);
    if (p->failed)
        return down;
    if (s->gated)
        nn_glu(p, s, gate, up);
    else
        p->ops->activate(p->dev, gate, gate, s->activation);
    nn_experts(p, &out, 1, n_experts, gate, ids, &down);
    return down;
}

/* y += weight x, what the experts give that return their input. */
static void add_zero(pass *p, tensor *y, const tensor *x, const tensor *weight)
{
    tensor *same = pass_tensor(p, DTYPE_F32, x->rows, x->cols);

    if (p->failed)
        return;
    p->ops->copy_rows(p->dev, same, x);
    p->ops->scale_rows(p->dev, same, weight);
    p->ops->add(p->dev, y, same, 1);
}

tensor *nn_moe(pass *p, const struct nn_moe *m, const tensor *x, const tensor *raw)
{
    const struct moe_spec *s = m->spec;
    int k = s->router.n_experts_per_token;
    tensor *ids = pass_tensor(p, DTYPE_I32, x->rows, k);
    tensor *weights = pass_tensor(p, DTYPE_F32, x->rows, k);
    int width = s->latent_size ? s->latent_size : x->cols;
    tensor *y = pass_tensor(p, DTYPE_F32, x->rows, width), *down;
    tensor *zero = s->n_zero_experts ? pass_tensor(p, DTYPE_F32, x->rows, 1) : NULL;

    const tensor *read = x, *routed = x; /* by the experts, by the router */
    struct first_products first;

    if (s->expert_norm.kind != NORM_NONE) {
        read = nn_norm(p, &m->expert_norm, raw, x->cols);
        routed = raw;
    }
    first = first_products(p, m, nn_norm(p, &m->router_norm, routed, x->cols));
    choose(p, m, first.logits, ids, weights);
    if (zero && !p->failed)
        p->ops->zero_experts(p->dev, ids, weights, zero, s->router.n_experts - s->n_zero_experts);
    if (s->latent_size)
        read = nn_norm(p, &m->latent_norm, nn_linear(p, &m->latent_in, read), width);
    down = answers(p, m, s->scale_input ? weighted_inputs(p, read, weights) : read, ids);
    if (m->is_share && s->each_norm.kind != NORM_NONE)
        pass_sum(p, down);
    nn_norm_inplace(p, &m->each_norm, down, width);
    if (p->failed)
        return y;
    p->ops->combine_experts(p->dev, y, down, weights);
    if (m->is_share && s->each_norm.kind == NORM_NONE)
        pass_sum(p, y);
    nn_norm_inplace(p, &m->latent_post_norm, y, width);
    if (s->latent_size)
        y = nn_linear(p, &m->latent_out, y);
    nn_norm_inplace(p, &m->expert_post_norm, y, y->cols);
    if (zero)
        add_zero(p, y, x, zero);
    if (s->shared.intermediate_size)
        add_shared(p, m, y, x, &first);
    return y;
}
