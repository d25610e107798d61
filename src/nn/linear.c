/* nn/linear.c: products with weights, and norms. */
#include "nn/nn.h"

#define MAX_JOBS 12

/* DoRA scales a product without its bias, which then comes with what is added. */
static const float *bias_of(const struct nn_linear *l)
{
    return l->lora && l->lora->gain ? NULL : l->bias;
}

/* The product with inputs that are turned. */
static void rotated(pass *p, const struct nn_linear *l, const tensor *x, tensor *y)
{
    tensor *inputs = pass_tensor(p, DTYPE_F32, x->rows, x->cols);
    struct matmul_job job = {.y = y, .w = &l->w, .bias = bias_of(l)};

    if (p->failed)
        return;
    p->ops->copy_rows(p->dev, inputs, x);
    p->ops->scale_columns(p->dev, inputs, l->rotation.signs);
    p->ops->hadamard(p->dev, inputs, l->rotation.block);
    p->ops->matmul(p->dev, &job, 1, inputs);
}

/* The product with inputs in the order of the weight. */
static void ordered(pass *p, const struct nn_linear *l, const tensor *x, tensor *y)
{
    tensor *inputs = pass_tensor(p, DTYPE_F32, x->rows, x->cols);
    struct matmul_job job = {.y = y, .w = &l->w, .bias = bias_of(l)};

    if (p->failed)
        return;
    p->ops->gather_columns(p->dev, inputs, x, l->order);
    p->ops->matmul(p->dev, &job, 1, inputs);
}

/* y = gain y + b (a x) + the bias that comes with it. */
static void adapt(pass *p, const struct nn_linear *l, const tensor *x, tensor *y)
{
    const struct nn_lora *lora = l->lora;
    tensor *low = pass_tensor(p, DTYPE_F32, x->rows, lora->a->n_out);
    tensor *more = pass_tensor(p, DTYPE_F32, x->rows, y->cols);
    struct matmul_job down = {.y = low, .w = lora->a};
    struct matmul_job up = {.y = more, .w = lora->b, .bias = lora->gain ? l->bias : lora->bias};

    if (p->failed)
        return;
    p->ops->matmul(p->dev, &down, 1, x);
    p->ops->matmul(p->dev, &up, 1, low);
    if (lora->gain)
        p->ops->scale_columns(p->dev, y, lora->gain);
    p->ops->add(p->dev, y, more, 1);
}

void nn_products(pass *p, struct nn_product *all, int n)
{
    struct matmul_job jobs[MAX_JOBS];
    int n_jobs = 0;

    for (int i = 0; i < n; i++) {
        const struct nn_linear *l = all[i].l;
        const tensor *x = all[i].x;

        all[i].y = pass_tensor(p, DTYPE_F32, x->rows, l->w.n_out);
        if (l->order)
            ordered(p, l, x, all[i].y);
        else if (l->rotation.signs)
            rotated(p, l, x, all[i].y);
        else
            jobs[n_jobs++] = (struct matmul_job){.y = all[i].y,
                                                 .w = &l->w,
                                                 .bias = bias_of(l),
                                                 .careful = all[i].careful,
                                                 .x = x == all[0].x ? NULL : x};
    }
    if (!p->failed && n_jobs > 0)
        p->ops->matmul(p->dev, jobs, n_jobs, all[0].x);
    for (int i = 0; i < n; i++)
        if (all[i].l->lora)
            adapt(p, all[i].l, all[i].x, all[i].y);
}

void nn_linears_careful(pass *p, const struct nn_linear *const *l, int n, int n_careful,
                        const tensor *x, tensor **y)
{
    struct nn_product all[MAX_JOBS];

    for (int i = 0; i < n; i++)
        all[i] = (struct nn_product){.l = l[i], .x = x, .careful = i < n_careful};
    nn_products(p, all, n);
    for (int i = 0; i < n; i++)
        y[i] = all[i].y;
}

void nn_linears(pass *p, const struct nn_linear *const *l, int n, const tensor *x, tensor **y)
{
    nn_linears_careful(p, l, n, 0, x, y);
}

void nn_embed(pass *p, const struct nn_linear *table, const int32_t *ids, float scale, tensor *x)
{
    const struct nn_lora *lora = table->lora;
    tensor *low = lora ? pass_tensor(p, DTYPE_F32, x->rows, lora->a->n_in) : NULL;
    tensor *more = lora ? pass_tensor(p, DTYPE_F32, x->rows, x->cols) : NULL;
    tensor *gain = lora && lora->gain ? pass_tensor(p, DTYPE_F32, x->rows, 1) : NULL;
    struct matmul_job up = {.y = more};

    if (p->failed)
        return;
    p->ops->embed(p->dev, x, &table->w, ids, scale);
    if (table->rotation.signs) {
        p->ops->round_floats(p->dev, x, DTYPE_F16); /* as Prism's embeddings are made */
        p->ops->hadamard(p->dev, x, table->rotation.block);
        p->ops->scale_columns(p->dev, x, table->rotation.signs);
        p->ops->round_floats(p->dev, x, DTYPE_F16);
    }
    if (!lora)
        return;
    up.w = lora->b;
    p->ops->embed(p->dev, low, lora->a, ids, scale);
    p->ops->matmul(p->dev, &up, 1, low);
    p->ops->add(p->dev, x, more, 1);
    if (lora->in_gain)
        p->ops->scale_columns(p->dev, x, lora->in_gain);
    if (gain) {
        struct weight column = {
            .format = WEIGHT_F32, .n_out = table->w.n_out, .n_in = 1, .data = lora->gain};

        p->ops->embed(p->dev, gain, &column, ids, 1);
        p->ops->scale_rows(p->dev, x, gain);
    }
}

/* y = x, each row times the gains [cols] of its expert; y may be x. */
static void times_gains(pass *p, tensor *y, const tensor *x, const float *gains, int n_experts,
                        const tensor *ids)
{
    tensor *of_rows = pass_tensor(p, DTYPE_F32, x->rows, x->cols);
    struct weight table = {
        .format = WEIGHT_F32, .n_out = n_experts, .n_in = x->cols, .data = gains};

    if (p->failed)
        return;
    p->ops->embed(p->dev, of_rows, &table, ids->data, 1);
    p->ops->glu(p->dev, y, x, of_rows, ACT_NONE);
}

/* y = gain y + b (a x) + the bias that comes with it, by the experts ids of x. */
static void adapt_experts(pass *p, const struct nn_experts *e, int n_experts, const tensor *x,
                          const tensor *ids, tensor *y)
{
    const struct nn_lora *lora = e->lora;
    tensor *low = pass_tensor(p, DTYPE_F32, y->rows, lora->a->n_out);
    tensor *more = pass_tensor(p, DTYPE_F32, y->rows, y->cols);
    struct matmul_job down = {.y = low, .w = lora->a};
    struct matmul_job up = {.y = more, .w = lora->b, .bias = lora->gain ? e->bias : lora->bias};

    if (p->failed)
        return;
    p->ops->matmul_experts(p->dev, &down, 1, n_experts, x, ids);
    p->ops->matmul_experts(p->dev, &up, 1, n_experts, low, ids);
    if (lora->gain)
        times_gains(p, y, y, lora->gain, n_experts, ids);
    if (!p->failed)
        p->ops->add(p->dev, y, more, 1);
}

void nn_experts(pass *p, const struct nn_experts *const *e, int n, int n_experts, const tensor *x,
                const tensor *ids, tensor *const *y)
{
    struct matmul_job jobs[MAX_JOBS] = {{0}};

    for (int i = 0; i < n; i++)
        jobs[i] = (struct matmul_job){
            .y = y[i], .w = e[i]->w, .bias = e[i]->lora && e[i]->lora->gain ? NULL : e[i]->bias};
    if (!p->failed)
        p->ops->matmul_experts(p->dev, jobs, n, n_experts, x, ids);
    for (int i = 0; i < n && !p->failed; i++)
        if (e[i]->lora)
            adapt_experts(p, e[i], n_experts, x, ids, y[i]);
}

tensor *nn_linear(pass *p, const struct nn_linear *l, const tensor *x)
{
    tensor *y;

    nn_linears(p, &l, 1, x, &y);
    return y;
}

tensor *nn_expert(pass *p, const struct nn_experts *e, int expert, const tensor *x)
{
    struct nn_linear l = {.w = e->w[expert]};
    struct nn_lora lora;

    if (e->bias)
        l.bias = e->bias + (size_t)expert * (size_t)l.w.n_out;
    if (e->lora) {
        size_t row = (size_t)expert * (size_t)l.w.n_out;

        lora = (struct nn_lora){.a = &e->lora->a[expert],
                                .b = &e->lora->b[expert],
                                .gain = e->lora->gain ? e->lora->gain + row : NULL,
                                .bias = e->lora->bias ? e->lora->bias + row : NULL};
        l.lora = &lora;
    }
    return nn_linear(p, &l, x);
}

void nn_per_part(pass *p, const struct nn_experts *parts, int n_parts, tensor *y, const tensor *x)
{
    int rows = x->rows / n_parts;
    int32_t *numbers = arena_array(p->host, int32_t, (size_t)x->rows + 1);
    tensor ids = {.type = DTYPE_I32, .rows = rows, .cols = n_parts, .stride = n_parts};

    if (!numbers) {
        p->failed = true;
        fail(p->err, CLM_ERR_NOMEM, "forward pass: no memory");
        return;
    }
    for (int i = 0; i < x->rows; i++)
        numbers[i] = i % n_parts;
    ids.data = (void *)(uintptr_t)pass_upload(p, numbers, (size_t)x->rows * sizeof *numbers);
    if (parts->lora && parts->lora->in_gain) {
        tensor *inputs = pass_tensor(p, DTYPE_F32, x->rows, x->cols);

        times_gains(p, inputs, x, parts->lora->in_gain, n_parts, &ids);
        x = inputs;
    }
    nn_experts(p, &parts, 1, n_parts, x, &ids, &y);
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
    } else if (norm->spec->kind == NORM_RMS) {
        p->ops->rms_norm(p->dev, y, x, norm->w, n, norm->spec->eps);
        if (norm->b)
            p->ops->add_columns(p->dev, y, norm->b);
    } else {
        p->ops->layer_norm(p->dev, y, x, norm->w, norm->b, n, norm->spec->eps);
    }
    if (norm->spec->rounded)
        p->ops->round_floats(p->dev, y, DTYPE_BF16);
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
