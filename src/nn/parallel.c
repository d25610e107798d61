/* nn/parallel.c: branches that read the same rows, with their products in common calls: each then
 * reads more memory in one go, and threads meet once for all of them. */
#include "nn/nn.h"

/* The products with which a branch begins; 0: it has no such parts. */
static int begin(const struct nn_branch *b, const struct nn_linear **l)
{
    switch (b->spec->op) {
    case OP_ATTENTION:
        return nn_attention_begin(&b->attention, l);
    case OP_MAMBA2:
        return nn_mamba2_begin(&b->mamba2, l);
    case OP_MLP:
        return b->spec->mlp.shifted ? 0 : nn_mlp_begin(&b->mlp, l);
    default:
        return 0;
    }
}

/* What its last product reads, and that product. */
static struct nn_product inner(pass *p, const struct nn_branch *b, const tensor *x,
                               tensor *const *first)
{
    size_t state = b->state - p->state;

    switch (b->spec->op) {
    case OP_ATTENTION:
        return (struct nn_product){.x = nn_attention_inner(p, &b->attention, x, first, state),
                                   .l = &b->attention.o_proj};
    case OP_MAMBA2:
        return (struct nn_product){.x = nn_mamba2_inner(p, &b->mamba2, first, state),
                                   .l = &b->mamba2.out_proj};
    default:
        return (struct nn_product){.x = nn_mlp_inner(p, &b->mlp, first), .l = &b->mlp.down_proj};
    }
}

static bool is_share(const struct nn_branch *b)
{
    return (b->spec->op == OP_ATTENTION && b->attention.is_share) ||
           (b->spec->op == OP_MLP && b->mlp.is_share);
}

bool nn_goes_together(const pass *p, const struct nn_branch *b, int n)
{
    const struct nn_linear *l[NN_MAX_FIRST];

    if (n < 2 || n > NN_MAX_TOGETHER || !p->ops->inputs_by_job || p->narrows)
        return false;
    for (int i = 0; i < n; i++)
        if (begin(&b[i], l) == 0)
            return false;
    return true;
}

void nn_together(pass *p, const struct nn_branch *b, int n, const tensor *const *x, tensor **y)
{
    struct nn_product first[NN_MAX_TOGETHER * NN_MAX_FIRST], last[NN_MAX_TOGETHER];
    int n_first = 0, done = 0;

    for (int i = 0; i < n; i++) {
        const struct nn_linear *l[NN_MAX_FIRST];
        int n_own = begin(&b[i], l);

        for (int j = 0; j < n_own; j++)
            first[n_first++] = (struct nn_product){.l = l[j], .x = x[i]};
    }
    nn_products(p, first, n_first);
    for (int i = 0; i < n; i++) {
        const struct nn_linear *l[NN_MAX_FIRST];
        tensor *made[NN_MAX_FIRST];
        int n_own = begin(&b[i], l);

        for (int j = 0; j < n_own; j++)
            made[j] = first[done++].y;
        last[i] = inner(p, &b[i], x[i], made);
    }
    nn_products(p, last, n);
    for (int i = 0; i < n; i++) {
        y[i] = last[i].y;
        if (is_share(&b[i]))
            pass_sum(p, y[i]);
    }
}
