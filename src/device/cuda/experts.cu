/* device/cuda/experts.cu: products with the experts that each row chose. */
#include "device/cuda/products.h"

static bool all_suit(const struct cuda_device *c, const struct matmul_job *job, int n_experts)
{
    for (int e = 0; e < n_experts; e++)
        if (!cuda_stream_rows(c, &job->w[e]))
            return false;
    return true;
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
        bool stream = !c->exact && all_suit(c, &jobs[i], n_experts);

        n = 1;
        while (stream && i + n < n_jobs && n < CUDA_STREAM_JOBS &&
               cuda_stream_alike(jobs[i].w, jobs[i + n].w) && all_suit(c, &jobs[i + n], n_experts))
            n++;
        if (stream && cuda_experts_stream(c, jobs + i, n, x, &e))
            continue;
        for (int j = i; j < i + n; j++)
            cuda_product_f32(c, &jobs[j], x, &e);
    }
}
