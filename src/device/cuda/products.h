/* device/cuda/products.h: the ways to multiply, between which matmul.cu and experts.cu choose. */
#ifndef DEVICE_CUDA_PRODUCTS_H
#define DEVICE_CUDA_PRODUCTS_H

#include "device/cuda/weights.cuh"

/* Rows [first, first + n) of f32. */
static inline tensor cuda_some_rows(const tensor *t, int first, int n)
{
    tensor part = *t;

    part.data = (float *)t->data + first * t->stride;
    part.rows = n;
    return part;
}

/* Which matrix each row of a product has. Row p of y is of the expert ids[p / per_row][p % per_row]
 * and of row p / x_share of x. */
struct cuda_experts {
    const int32_t *ids; /* NULL: all have the one that there is */
    int64_t ids_stride;
    int per_row, x_share;
    int n_experts;
};

/* product.cu: every format, any alignment and number of rows, in f32; a row of y is the same
 * whatever the other rows are. With experts the job's weights are of all of them. */
void cuda_product_f32(struct cuda_device *c, const struct matmul_job *job, const tensor *x,
                      const struct cuda_experts *experts);

/* product_dense.cu: many rows, each weight of a job made bf16 once. False where there is no
 * cuBLASLt, and nothing is done. */
bool cuda_product_dense(struct cuda_device *c, const struct matmul_job *jobs, int n_jobs,
                        const tensor *x);

/* product_stream.cu: few rows, at the speed of memory. The numbers of x are rounded to f16 after a
 * power of two for the row, or to bf16 for weights that are; up to 4 rows in two parts, which keeps
 * 16 bits and more. */

/* Rows that one call may have; 0 where the weight does not suit. */
int cuda_stream_rows(const struct cuda_device *c, const struct weight *w);

/* Whether one launch can have both. */
bool cuda_stream_alike(const struct weight *a, const struct weight *b);

enum { CUDA_STREAM_JOBS = 8 };

/* Jobs alike, of a number of rows that cuda_stream_rows allows. */
void cuda_product_stream(struct cuda_device *c, const struct matmul_job *jobs, int n_jobs,
                         const tensor *x);

/* One row for each choice of experts, jobs alike and suiting. False where it has not got the room,
 * and nothing is done. */
bool cuda_experts_stream(struct cuda_device *c, const struct matmul_job *jobs, int n_jobs,
                         const tensor *x, const struct cuda_experts *e);

#endif
