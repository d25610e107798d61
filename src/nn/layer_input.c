/* nn/layer_input.c: inputs of each layer's own, made of the tokens and gated by the state there.
 * Gemma 3n, Google 2025.
 *
 *     p = (sqrt(size) table[token] + norm(proj(embedding) / sqrt(hidden_size))) / sqrt(2), per
 * layer x += norm(out(gelu(gate(x)) * p_layer))
 */
#include <math.h>

#include "nn/nn.h"

tensor *nn_layer_inputs(pass *p, const tensor *x)
{
    const struct nn_model *m = p->model;
    const struct spec *s = m->spec;
    tensor *inputs = pass_tensor(p, DTYPE_F32, x->rows, s->n_layers * s->layer_input_size);
    tensor *made = nn_linear(p, &m->layer_proj, x);
    int32_t *ids = pass_bytes(p, (size_t)x->rows * sizeof *ids);

    if (p->failed)
        return inputs;
    p->ops->bound_ids(p->dev, ids, p->rows.tokens, x->rows, s->layer_input_vocab);
    nn_embed(p, &m->layer_table, ids, sqrtf((float)s->layer_input_size), inputs);
    if (p->failed)
        return inputs;
    p->ops->scale(p->dev, made, 1 / sqrtf((float)s->hidden_size));
    nn_norm_inplace(p, &m->layer_norm, made, s->layer_input_size);
    p->ops->add(p->dev, inputs, made, 1);
    p->ops->scale(p->dev, inputs, 0.70710678f);
    return inputs;
}

tensor *nn_layer_input(pass *p, const struct nn_layer_input *l, const tensor *x)
{
    const struct spec *s = p->model->spec;
    int size = s->layer_input_size;
    tensor *gate = nn_linear(p, &l->gate, x);
    tensor input = nn_part_rows(p->layer_inputs, 1, l->layer * size, size);

    if (!p->failed)
        p->ops->glu(p->dev, gate, gate, &input, s->layer_input_activation);
    return nn_linear(p, &l->out, gate);
}
