/* nn/altup.c: a state of several streams, of which a layer computes one and predicts the others.
 * Alternating updates, arXiv:2301.13310.
 *
 *     m = tanh(router(norm(active) / hidden_size))            of each row, n numbers
 *     predict: s_j += sum_i (P m)_ji s_i
 *     correct: s_j += (1 + (C m)_j) (x - s_active), m of x
 */
#include "nn/nn.h"

static const float least_square = 1e-5f; /* of the mean that streams are scaled by */

static tensor stream(const pass *p, int i)
{
    int rows = p->rows.n_rows;

    return row_range(p->streams, i * rows, rows);
}

/* Streams beyond the first: each its projection of x's stream from, as large as the first. */
static void project(pass *p, const struct nn_experts *l, int n, bool of_first, tensor *to)
{
    tensor first = stream(p, 0);

    for (int i = 1; i < n; i++) {
        struct pass_mark mark = pass_mark(p);
        tensor y = row_range(to, i * first.rows, first.rows), x = of_first ? first : stream(p, i);
        const tensor *projected = nn_expert(p, l, i - 1, &x);

        if (p->failed)
            return;
        p->ops->copy_rows(p->dev, &y, projected);
        p->ops->match_size(p->dev, &y, &first, least_square);
        pass_rewind(p, mark);
    }
}

void nn_altup_begin(pass *p, const tensor *x)
{
    int n = p->model->spec->altup.n;
    tensor first;

    p->streams = pass_tensor(p, DTYPE_F32, n * x->rows, x->cols);
    if (p->failed)
        return;
    first = stream(p, 0);
    p->ops->copy_rows(p->dev, &first, x);
    project(p, &p->model->altup_in, n, true, p->streams);
}

void nn_altup_end(pass *p, tensor *x)
{
    struct pass_mark mark = pass_mark(p);
    int n = p->model->spec->altup.n;
    tensor *y = pass_tensor(p, DTYPE_F32, n * x->rows, x->cols), first = stream(p, 0);

    if (p->failed)
        return;
    project(p, &p->model->altup_out, n, false, y);
    p->ops->copy_rows(p->dev, x, &first);
    for (int i = 1; i < n; i++) {
        tensor more = row_range(y, i * x->rows, x->rows);

        p->ops->add(p->dev, x, &more, 1);
    }
    p->ops->scale(p->dev, x, 1 / (float)n);
    pass_rewind(p, mark);
}

/* [T, n_out]: what the rows' modalities make of n_out coefficients. */
static tensor *coefficients(pass *p, const struct nn_altup *a, const tensor *x, int n_out)
{
    int n = p->model->spec->altup.n;
    struct nn_linear coefs = {
        .w = {.format = WEIGHT_F32, .n_out = n_out, .n_in = n, .data = a->coefs}};
    tensor *read = nn_norm(p, &a->predicts->norm, x, x->cols), *modalities;

    if (!p->failed)
        p->ops->scale(p->dev, read, 1 / (float)x->cols);
    modalities = nn_linear(p, &a->predicts->router, read);
    if (!p->failed)
        p->ops->softcap(p->dev, modalities, 1); /* tanh */
    return nn_linear(p, &coefs, modalities);
}

tensor *nn_altup_predict(pass *p, const struct nn_altup *a)
{
    const struct altup_spec *s = &p->model->spec->altup;
    int rows = p->rows.n_rows;
    tensor *active = pass_row_range(p, p->streams, s->active * rows, rows);
    tensor *coefs = coefficients(p, a, active, s->n * s->n);
    tensor *y = pass_tensor(p, DTYPE_F32, p->streams->rows, p->streams->cols);

    if (p->failed)
        return y;
    p->ops->mix_streams(p->dev, y, p->streams, coefs, s->n);
    p->ops->add(p->dev, p->streams, y, 1);
    return active;
}

tensor *nn_altup_correct(pass *p, const struct nn_altup *a, const tensor *x)
{
    const struct altup_spec *s = &p->model->spec->altup;
    tensor *coefs = coefficients(p, a, x, s->n);
    tensor *news = pass_tensor(p, DTYPE_F32, x->rows, x->cols);
    tensor *part = pass_tensor(p, DTYPE_F32, x->rows, x->cols);
    tensor active = stream(p, s->active);

    if (p->failed)
        return news;
    p->ops->copy_rows(p->dev, news, x);
    p->ops->add(p->dev, news, &active, -1);
    for (int i = 0; i < s->n; i++) {
        tensor factor = nn_part_rows(coefs, 1, i, 1), to = stream(p, i);

        p->ops->copy_rows(p->dev, part, news);
        p->ops->scale_rows(p->dev, part, &factor);
        p->ops->add(p->dev, part, news, 1);
        p->ops->add(p->dev, &to, part, 1);
    }
    p->ops->copy_rows(p->dev, part, &active);
    if (s->correct_scale)
        p->ops->scale_columns(p->dev, part, a->scale);
    return part;
}

void nn_altup_add(pass *p, const tensor *x)
{
    for (int i = 1; i < p->model->spec->altup.n && !p->failed; i++) {
        tensor to = stream(p, i);

        p->ops->add(p->dev, &to, x, 1);
    }
}
