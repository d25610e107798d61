/* nn/residual.c: mixtures of x and of what it was before earlier blocks of layers.
 *
 *     h = sum_k p_k x_k,  p = softmax(proj norm(x_k)) over what was kept and x itself
 *
 * Attention residuals of Kimi K3.
 */
#include "nn/nn.h"

/* What was kept as number i, or after all of it x. */
static tensor part(const pass *p, const tensor *x, int i)
{
    return i < p->n_kept ? row_range(p->kept, i * x->rows, x->rows) : *x;
}

void nn_residual_keep(pass *p, const tensor *x)
{
    tensor to = row_range(p->kept, p->n_kept * x->rows, x->rows);

    if (!p->failed)
        p->ops->copy_rows(p->dev, &to, x);
    p->n_kept++;
}

/* [T, n_kept + 1] */
static tensor *weigh(pass *p, const struct nn_residual *r, const tensor *x)
{
    tensor *weights = pass_tensor(p, DTYPE_F32, x->rows, p->n_kept + 1);

    for (int i = 0; i <= p->n_kept && !p->failed; i++) {
        struct pass_mark mark = pass_mark(p);
        tensor column = nn_part_rows(weights, 1, i, 1), from = part(p, x, i);
        tensor *logits = nn_linear(p, &r->proj, nn_norm(p, &r->norm, &from, x->cols));

        if (!p->failed)
            p->ops->copy_rows(p->dev, &column, logits);
        pass_rewind(p, mark);
    }
    if (!p->failed)
        p->ops->softmax(p->dev, weights);
    return weights;
}

const tensor *nn_residual_mix(pass *p, const struct nn_residual *r, const tensor *x)
{
    tensor *y, *scaled, *weights;

    if (p->n_kept == 0)
        return x;
    y = pass_tensor(p, DTYPE_F32, x->rows, x->cols);
    scaled = pass_tensor(p, DTYPE_F32, x->rows, x->cols);
    weights = weigh(p, r, x);
    if (p->failed)
        return y;
    p->ops->clear(p->dev, y);
    for (int i = 0; i <= p->n_kept; i++) {
        tensor weight = nn_part_rows(weights, 1, i, 1), from = part(p, x, i);

        p->ops->copy_rows(p->dev, scaled, &from);
        p->ops->scale_rows(p->dev, scaled, &weight);
        p->ops->add(p->dev, y, scaled, 1);
    }
    return y;
}
