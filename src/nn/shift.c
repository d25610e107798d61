/* nn/shift.c: what a token has of the one before it. RWKV, arXiv:2305.13048. */
#include "nn/nn.h"

/* One row of numbers at a place of the state. */
static tensor state_row(const void *memory, size_t state, int cols)
{
    return (tensor){.data = (char *)(uintptr_t)memory + state,
                    .type = DTYPE_F32,
                    .rows = 1,
                    .cols = cols,
                    .stride = cols};
}

tensor *nn_shift(pass *p, const tensor *x, size_t state)
{
    const struct state_batch *batch = &p->rows.states;
    tensor *y = pass_tensor(p, DTYPE_F32, x->rows, x->cols);

    for (int i = 0; i < batch->n_sequences && !p->failed; i++) {
        const struct state_sequence *s = &batch->sequences[i];
        int rest = s->n_rows - 1;
        tensor first, later, before, last, from, to;

        if (s->n_rows == 0)
            continue;
        first = row_range(y, s->row, 1);
        later = row_range(y, s->row + 1, rest);
        before = row_range(x, s->row, rest);
        last = row_range(x, s->row + rest, 1);
        to = state_row(s->to, state, x->cols);
        if (s->from) {
            from = state_row(s->from, state, x->cols);
            p->ops->copy_rows(p->dev, &first, &from);
        } else {
            p->ops->clear(p->dev, &first);
        }
        p->ops->copy_rows(p->dev, &later, &before);
        p->ops->copy_rows(p->dev, &to, &last);
    }
    if (!p->failed)
        p->ops->add(p->dev, y, x, -1);
    return y;
}

tensor *nn_mix(pass *p, const tensor *x, const tensor *shift, const float *mix)
{
    tensor *y = pass_tensor(p, DTYPE_F32, x->rows, x->cols);

    if (p->failed)
        return y;
    p->ops->copy_rows(p->dev, y, shift);
    p->ops->scale_columns(p->dev, y, mix);
    p->ops->add(p->dev, y, x, 1);
    return y;
}
