/* nn/hyper.c: a state of several streams s_i, that layers read and write by mixtures of them.
 *
 *     r', w, c = scale * (fn norm(s)) + base      of all streams of a row at once
 *     x = sum_i r_i s_i,  r = sigmoid(r') + eps of the time before
 *     s_j = 2 sigmoid(w_j) y + sum_i C_ij s_i,  C = softmax(c) + eps, made doubly stochastic
 *
 * What is read by is made one step ahead; the first layer reads the first stream.
 *
 * Hyper-connections, arXiv:2409.19606; held to the manifold, 2512.24880
 */
#include "nn/nn.h"

static tensor stream(const pass *p, int i)
{
    int rows = p->rows.n_rows;

    return row_range(p->streams, i * rows, rows);
}

void nn_hyper_begin(pass *p, const tensor *x)
{
    int n = p->model->spec->hyper.n;
    tensor first;

    p->streams = pass_tensor(p, DTYPE_F32, n * x->rows, x->cols);
    p->hyper.read = pass_tensor(p, DTYPE_F32, x->rows, n);
    p->hyper.write = pass_tensor(p, DTYPE_F32, x->rows, n);
    p->hyper.mix = pass_tensor(p, DTYPE_F32, x->rows, n * n);
    if (p->failed)
        return;
    for (int i = 0; i < n; i++) {
        tensor to = stream(p, i);

        p->ops->copy_rows(p->dev, &to, x);
    }
    p->ops->clear(p->dev, p->hyper.read);
    first = nn_part_rows(p->hyper.read, 1, 0, 1);
    p->ops->fill(p->dev, &first, 1);
}

/* x = sum_i r_i s_i */
static void read_streams(pass *p, tensor *x)
{
    struct pass_mark mark = pass_mark(p);
    tensor *part = pass_tensor(p, DTYPE_F32, x->rows, x->cols);

    if (!p->failed)
        p->ops->clear(p->dev, x);
    for (int i = 0; i < p->model->spec->hyper.n && !p->failed; i++) {
        tensor weight = nn_part_rows(p->hyper.read, 1, i, 1), from = stream(p, i);

        p->ops->copy_rows(p->dev, part, &from);
        p->ops->scale_rows(p->dev, part, &weight);
        p->ops->add(p->dev, x, part, 1);
    }
    pass_rewind(p, mark);
}

/* All streams of a row side by side. */
static tensor *side_by_side(pass *p)
{
    int n = p->model->spec->hyper.n, cols = p->streams->cols;
    tensor *all = pass_tensor(p, DTYPE_F32, p->rows.n_rows, n * cols);

    for (int i = 0; i < n && !p->failed; i++) {
        tensor part = nn_part_rows(all, 1, i * cols, cols), from = stream(p, i);

        p->ops->copy_rows(p->dev, &part, &from);
    }
    return all;
}

static void add_number(pass *p, tensor *x, float number)
{
    tensor *numbers = pass_tensor(p, DTYPE_F32, x->rows, x->cols);

    if (p->failed)
        return;
    p->ops->fill(p->dev, numbers, number);
    p->ops->add(p->dev, x, numbers, 1);
}

/* n numbers of each row from column first on, scaled by number part of the scales. */
static void take_part(pass *p, const struct nn_hyper *h, tensor *y, const tensor *mix, int first,
                      int part)
{
    tensor from = nn_part_rows(mix, 1, first, y->cols);

    if (p->failed)
        return;
    p->ops->copy_rows(p->dev, y, &from);
    p->ops->scale_groups(p->dev, y, h->scale + part, y->cols);
    p->ops->add_columns(p->dev, y, h->base + first);
}

/* C of each row, turned, as mix_streams takes it. */
static void make_mixtures(pass *p, tensor *c)
{
    const struct hyper_spec *s = &p->model->spec->hyper;
    int n = s->n;
    int32_t *order = arena_array(p->host, int32_t, n * n);
    const int32_t *turned;
    tensor rows = nn_part_rows(c, n, 0, n);

    if (!order) {
        p->failed = true;
        fail(p->err, CLM_ERR_NOMEM, "forward pass: no memory");
        return;
    }
    for (int i = 0; i < n * n; i++)
        order[i] = i % n * n + i / n;
    turned = pass_upload(p, order, (size_t)n * (size_t)n * sizeof *order);
    if (!p->failed)
        p->ops->softmax(p->dev, &rows);
    add_number(p, c, s->eps);
    if (p->failed)
        return;
    p->ops->sinkhorn(p->dev, c, n, s->n_iterations, s->eps);
    p->ops->gather_columns(p->dev, p->hyper.mix, c, turned);
}

tensor *nn_hyper_read(pass *p, const struct nn_hyper *h)
{
    const struct hyper_spec *s = &p->model->spec->hyper;
    tensor *x = pass_tensor(p, DTYPE_F32, p->rows.n_rows, p->model->spec->hidden_size);
    tensor *all = side_by_side(p), *mix, *c;

    read_streams(p, x);
    nn_norm_inplace(p, &h->norm, all, all->cols);
    mix = nn_linear(p, &h->fn, all);
    c = pass_tensor(p, DTYPE_F32, x->rows, s->n * s->n);
    take_part(p, h, p->hyper.read, mix, 0, 0);
    take_part(p, h, p->hyper.write, mix, s->n, 1);
    take_part(p, h, c, mix, 2 * s->n, 2);
    if (p->failed)
        return x;
    p->ops->activate(p->dev, p->hyper.read, p->hyper.read, ACT_SIGMOID);
    add_number(p, p->hyper.read, s->eps);
    p->ops->activate(p->dev, p->hyper.write, p->hyper.write, ACT_SIGMOID);
    p->ops->scale(p->dev, p->hyper.write, 2);
    make_mixtures(p, c);
    return x;
}

void nn_hyper_write(pass *p, const tensor *x)
{
    int n = p->model->spec->hyper.n;
    tensor *mixed = pass_tensor(p, DTYPE_F32, p->streams->rows, p->streams->cols);
    tensor *part = pass_tensor(p, DTYPE_F32, x->rows, x->cols);

    if (p->failed)
        return;
    p->ops->mix_streams(p->dev, mixed, p->streams, p->hyper.mix, n);
    p->ops->copy_rows(p->dev, p->streams, mixed);
    for (int i = 0; i < n; i++) {
        tensor weight = nn_part_rows(p->hyper.write, 1, i, 1), to = stream(p, i);

        p->ops->copy_rows(p->dev, part, x);
        p->ops->scale_rows(p->dev, part, &weight);
        p->ops->add(p->dev, &to, part, 1);
    }
}

void nn_hyper_end(pass *p, tensor *x)
{
    read_streams(p, x);
}
