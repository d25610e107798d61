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

/* product.cu: every format, any alignment and number of rows, in f32; a row of y is the same
 * whatever the other rows are. With experts the job's weights are of all of them. */
void cuda_product_f32(struct cuda_device *c, const struct matmul_job *job, const tensor *x,
                      const struct cuda_experts *experts);

/* product_block.cu: few outputs of few rows of any format, in f32; a norm of theirs is computed on
 * the way and written down. */
void cuda_product_block(struct cuda_device *c, const struct matmul_job *job, const tensor *x,
                        const struct cuda_norm *norm);

/* product_dense.cu: many rows in f32. */
void cuda_product_dense_f32(struct cuda_device *c, const struct matmul_job *job, const tensor *x);

/* product_dense.cu: many rows, each weight of a job made bf16 once. False where there is no
 * cuBLASLt, and nothing is done. */
bool cuda_product_dense(struct cuda_device *c, const struct matmul_job *jobs, int n_jobs,
                        const tensor *x);

/* product_stream.cu: few rows, at the speed of memory. The numbers of x are rounded to f16 after a
 * power of two for the row, or to bf16 for weights that are; up to 4 rows in two parts, which keeps
 * 16 bits and more. */

/* Rows that one call may have; 0 where the weight does not suit. */
int cuda_stream_rows(const struct cuda_device *c, const struct weight *w);

/* product_one.cu: the product, if it is of one row of x and suits, launched; else false. */
bool cuda_product_one(struct cuda_device *c, const struct cuda_product *p);

/* product_one_experts.cu: likewise, of experts. */
bool cuda_product_one_experts(struct cuda_device *c, const struct cuda_product *p);

/* Whether one launch can have both. */
bool cuda_stream_alike(const struct weight *a, const struct weight *b);

/* What the jobs, which are alike, are of all rows of x, of a number that cuda_stream_rows allows.
 */
void cuda_product_of(struct cuda_product *p, const struct matmul_job *jobs, int n_jobs,
                     const tensor *x);

/* Matrices of experts: how far they lie apart, if it is as far each time and they are alike. */
struct cuda_stack {
    bool regular;
    struct cuda_steps steps;
};

/* Do all n suit? */
bool cuda_stream_experts(const struct cuda_device *c, const struct weight *w, int n,
                         struct cuda_stack *stack);

/* What the jobs are with experts, one row of y for each choice; all of them suiting, a stack for
 * each job. False where there is no room for their x, or after a failure. */
bool cuda_product_of_experts(struct cuda_device *c, struct cuda_product *p,
                             const struct matmul_job *jobs, int n_jobs, const tensor *x,
                             const struct cuda_experts *e, const struct cuda_stack *stacks);

/* Does the kernel of a product with experts choose them, of one row, by itself; and put together
 * what they answer? */
bool cuda_stream_routes(const struct cuda_product *p, const struct cuda_routing *r);
bool cuda_stream_combines(const struct cuda_product *p);

/* product_tiles_sm90.cu: more rows than a few, weights of bf16 read once; x is rounded to bf16. */

/* Rows that there may be; 0: not on this GPU. */
int cuda_tiles_rows(const struct cuda_device *c);

/* Whether the weight suits. */
bool cuda_tiles_suit(const struct weight *w);

void cuda_product_tiles(struct cuda_device *c, const struct cuda_product *p);

/* matmul.cu: a product that one launch computes: what waits may go along, and it may wait itself.
 */
void cuda_product_start(struct cuda_device *c, struct cuda_product *p);

/* experts_sm90.cu: many choices of experts, each expert's weights read once for up to 128 of them;
 * x and the weights are rounded to bf16. Jobs of one size, each of which suits. */
bool cuda_experts_suit_sm90(const struct cuda_device *c, const struct matmul_job *job,
                            int n_experts, int n_choices);
void cuda_experts_sm90(struct cuda_device *c, const struct matmul_job *jobs, int n_jobs,
                       const tensor *x, const struct cuda_experts *e, int n_choices);

#endif
