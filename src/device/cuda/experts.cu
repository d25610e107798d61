/* device/cuda/experts.cu: products with the experts that each row chose. */
#include "device/cuda/products.h"

enum {
    ROWS = 4,    /* of ids in a launch: of eight, two of four took 15 % less time on an H200 */
    FEW_ROWS = 8 /* of which each choice reads its expert by itself */
};

/* So many rows of ids at a time, for whose x there is room in shared memory. False where there is
 * not, and nothing is done. */
static bool in_streams(struct cuda_device *c, const struct matmul_job *jobs, int n_jobs,
                       const tensor *x, const struct cuda_experts *e,
                       const struct cuda_stack *stacks, int n_rows)
{
    int x_per_row = e->per_row / e->x_share;

    for (int first = 0, n; first < n_rows; first += n) {
        struct matmul_job parts[CUDA_STREAM_JOBS];
        struct cuda_experts some = *e;
        struct cuda_product product;
        tensor y[CUDA_STREAM_JOBS], some_x;

        n = n_rows - first < ROWS ? n_rows - first : ROWS;
        some.ids += first * e->ids_stride;
        some_x = cuda_some_rows(x, first * x_per_row, n * x_per_row);
        for (int i = 0; i < n_jobs; i++) {
            y[i] = cuda_some_rows(jobs[i].y, first * e->per_row, n * e->per_row);
            parts[i] = (struct matmul_job){&y[i], jobs[i].w, jobs[i].bias};
        }
        if (!cuda_product_of_experts(c, &product, parts, n_jobs, &some_x, &some, stacks))
            return false;
        cuda_product_start(c, &product);
    }
    return true;
}

/* How many of the jobs can go together, rows grouped by expert; 0: not the first of them. */
static int count_grouped(const struct cuda_device *c, const struct matmul_job *jobs, int n_jobs,
                         int n_experts, const tensor *ids)
{
    int n = 0, n_choices = ids->rows * ids->cols;

    while (!c->exact && ids->rows > FEW_ROWS && n < n_jobs && n < CUDA_STREAM_JOBS &&
           cuda_experts_suit_sm90(c, &jobs[n], n_experts, n_choices) &&
           jobs[n].w->n_out == jobs[0].w->n_out && jobs[n].w->n_in == jobs[0].w->n_in)
        n++;
    return n;
}

void cuda_matmul_experts(device *d, const struct matmul_job *jobs, int n_jobs, int n_experts,
                         const tensor *x, const tensor *ids)
{
    struct cuda_device *c = cuda_device_of(d);
    struct cuda_experts e = {};

    if (!ids->rows)
        return;
    e.ids = (const int32_t *)ids->data;
    e.ids_stride = ids->stride;
    e.per_row = ids->cols;
    e.x_share = x->rows == ids->rows ? ids->cols : 1;
    e.n_experts = n_experts;
    for (int i = 0, n; i < n_jobs; i += n) {
        struct cuda_stack stacks[CUDA_STREAM_JOBS];
        bool stream;

        n = count_grouped(c, jobs + i, n_jobs - i, n_experts, ids);
        if (n) {
            cuda_experts_sm90(c, jobs + i, n, x, &e, ids->rows * ids->cols);
            continue;
        }
        n = 1;
        stream = !c->exact && cuda_stream_experts(c, jobs[i].w, n_experts, stacks);
        while (stream && i + n < n_jobs && n < CUDA_STREAM_JOBS &&
               cuda_stream_alike(jobs[i].w, jobs[i + n].w) &&
               cuda_stream_experts(c, jobs[i + n].w, n_experts, &stacks[n]))
            n++;
        if (stream && in_streams(c, jobs + i, n, x, &e, stacks, ids->rows))
            continue;
        for (int j = i; j < i + n; j++)
            cuda_product_f32(c, &jobs[j], x, &e);
    }
}
