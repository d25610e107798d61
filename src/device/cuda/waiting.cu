/* device/cuda/waiting.cu: what waits to see what comes next. */
#include "device/cuda/cuda.h"

void cuda_take(struct cuda_device *c)
{
    c->waiting.kind = CUDA_NOTHING;
}

void cuda_settle(struct cuda_device *c)
{
    struct cuda_waiting *w = &c->waiting;
    enum cuda_kind kind = w->kind;

    /* Its launch settles, too. */
    cuda_take(c);
    switch (kind) {
    case CUDA_NOTHING:
        break;
    case CUDA_ADDITION:
        cuda_launch_addition(c, &w->addition);
        break;
    case CUDA_HEADS:
        cuda_launch_heads(c, &w->heads);
        break;
    case CUDA_NORM:
        cuda_launch_norm(c, &w->norm);
        break;
    case CUDA_PRODUCT:
        cuda_launch_product(c, &w->product);
        break;
    case CUDA_ROUTING:
        cuda_launch_routing(c, &w->routing);
        break;
    case CUDA_COMBINATION:
        cuda_launch_combination(c, &w->combination);
        break;
    case CUDA_SUM:
        cuda_launch_sum(c, &w->sum);
        break;
    }
}

bool cuda_leave_out(struct cuda_result *results, int n)
{
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            const struct cuda_result *a = &results[i], *b = &results[j];

            if (i == j || b->stage < a->stage || !cuda_overlap(a->y, b->y))
                continue;
            if (a->stage == b->stage || !a->to)
                return false;
            *a->to = NULL;
        }
    return true;
}

bool cuda_leave_out_under(const struct cuda_result *results, int n, const tensor *y)
{
    for (int i = 0; i < n; i++) {
        if (!cuda_overlap(results[i].y, y))
            continue;
        if (!results[i].to)
            return false;
        *results[i].to = NULL;
    }
    return true;
}
