/* nn/linear.c: products with weights, and norms. */
#include "nn/nn.h"

#define MAX_JOBS 6

/* The product with inputs in the order of the weight. */
static void ordered(pass *p, const struct nn_linear *l, const tensor *x, tensor *y)
{
    tensor *inputs = pass_tensor(p, DTYPE_F32, x->rows, x->cols);
    struct matmul_job job = {.y = y, .w = &l->w, .bias = l->bias};

    if (p->failed)
        return;
    p->ops->gather_columns(p->dev, inputs, x, l->order);
    p->ops->matmul(p->dev, &job, 1, inputs);
}

void nn_linears(pass *p, const struct nn_linear *const *l, int n, const tensor *x, tensor **y)
{
    struct matmul_job jobs[MAX_JOBS];
    int n_jobs = 0;

    for (int i = 0; i < n; i++) {
        y[i] = pass_tensor(p, DTYPE_F32, x->rows, l[i]->w.n_out);
        if (l[i]->order)
            ordered(p, l[i], x, y[i]);
        else
            jobs[n_jobs++] = (struct matmul_job){.y = y[i], .w = &l[i]->w, .bias = l[i]->bias};
    }
    if (!p->failed && n_jobs > 0)
        p->ops->matmul(p->dev, jobs, n_jobs, x);
}

tensor *nn_linear(pass *p, const struct nn_linear *l, const tensor *x)
{
    tensor *y;

    nn_linears(p, &l, 1, x, &y);
    return y;
}

void nn_per_part(pass *p, const struct nn_experts *parts, int n_parts, tensor *y, const tensor *x)
{
    int rows = x->rows / n_parts;
    int32_t *numbers = arena_array(p->host, int32_t, (size_t)x->rows + 1);
    struct matmul_job job = {.y = y, .w = parts->w, .bias = parts->bias};
    tensor ids = {.type = DTYPE_I32, .rows = rows, .cols = n_parts, .stride = n_parts};

    if (!numbers) {
        p->failed = true;
        fail(p->err, CLM_ERR_NOMEM, "forward pass: no memory");
        return;
    }
    for (int i = 0; i < x->rows; i++)
        numbers[i] = i % n_parts;
    ids.data = (void *)(uintptr_t)pass_upload(p, numbers, (size_t)x->rows * sizeof *numbers);
    if (!p->failed)
        p->ops->matmul_experts(p->dev, &job, 1, n_parts, x, &ids);
}

void nn_norm_groups(pass *p, const struct nn_norm *norm, tensor *x, int n_groups)
{
    struct nn_norm plain = {.spec = norm->spec};

    if (n_groups <= 1) {
        nn_norm_inplace(p, norm, x, x->cols);
        return;
    }
    nn_norm_inplace(p, &plain, x, x->cols / n_groups);
    if (!p->failed && norm->w)
        p->ops->scale_columns(p->dev, x, norm->w);
    if (!p->failed && norm->b)
        p->ops->add_columns(p->dev, x, norm->b);
}

tensor *nn_low_rank(pass *p, const struct nn_low_rank *l, const tensor *x)
{
    return nn_linear(p, &l->up, nn_linear(p, &l->down, x));
}

static void norm_into(pass *p, const struct nn_norm *norm, tensor *y, const tensor *x, int n)
{
    if (p->failed)
        return;
    if (norm->spec->scale_first) {
        if (y != x)
            p->ops->copy_rows(p->dev, y, x);
        p->ops->scale_columns(p->dev, y, norm->w);
        p->ops->rms_norm(p->dev, y, y, NULL, n, norm->spec->eps);
    } else if (norm->spec->kind == NORM_RMS)
        p->ops->rms_norm(p->dev, y, x, norm->w, n, norm->spec->eps);
    else
        p->ops->layer_norm(p->dev, y, x, norm->w, norm->b, n, norm->spec->eps);
    if (norm->spec->rounded)
        p->ops->round_bf16(p->dev, y);
}

tensor *nn_norm(pass *p, const struct nn_norm *norm, const tensor *x, int n)
{
    tensor *y;

    if (norm->spec->kind == NORM_NONE)
        return pass_row_range(p, x, 0, x->rows);
    y = pass_tensor(p, DTYPE_F32, x->rows, x->cols);
    norm_into(p, norm, y, x, n);
    return y;
}

void nn_norm_inplace(pass *p, const struct nn_norm *norm, tensor *x, int n)
{
    if (norm->spec->kind != NORM_NONE)
        norm_into(p, norm, x, x, n);
}
