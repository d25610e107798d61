/* device/cuda/product_dense.cu: products of many rows, by cuBLASLt: x in bf16, weights too, made so
 * in scratch memory where they are not, a part of the outputs at a time; sums in f32. Weights of
 * f32 are multiplied as they are, without tf32. */
#include "device/cuda/blas.h"
#include "device/cuda/codes.cuh"
#include "device/cuda/halves.h"
#include "device/cuda/products.h"
#include "device/cuda/rows.cuh"

enum {
    THREADS = 256,
    EIGHTS = 4,               /* of codes, to a thread */
    WEIGHT_BYTES = 128 << 20, /* of weights in scratch memory at a time */
    ALIGNMENT = 256
};

/* A matrix as cuBLASLt is given it. */
struct dense {
    void *data;
    cudaDataType_t type;
    int64_t stride;
};

static __global__ void __launch_bounds__(THREADS)
    halve_weights(uint16_t *to, int64_t stride, const struct weight w, int first, int n_rows)
{
    int64_t per_row = stride / 8;

    cuda_begin();
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < n_rows * per_row;
         i += (int64_t)gridDim.x * THREADS) {
        int r = (int)(i / per_row), k = (int)(i % per_row) * 8;
        float v[8] = {};

        if (k < w.n_in)
            weight_numbers8(v, w, first + r, k);
        store_bf16s(to + r * stride + k, v);
    }
}

static __global__ void __launch_bounds__(THREADS) widen_weights(float *to, const struct weight w)
{
    int per_row = (w.n_in + 7) / 8;

    cuda_begin();
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < (int64_t)w.n_out * per_row;
         i += (int64_t)gridDim.x * THREADS) {
        int r = (int)(i / per_row), k = (int)(i % per_row) * 8;
        float v[8];

        weight_numbers8(v, w, r, k);
        for (int j = 0; j < 8 && k + j < w.n_in; j++)
            to[(int64_t)r * w.n_in + k + j] = v[j];
    }
}

/* n eights of codes of a WEIGHT_AFFINE from the one with the number first on, counted through all
 * rows, which are whole groups. The same numbers as weight_numbers8 gives; several loads of a
 * thread are on their way at a time. */
template <int BITS>
static __global__ void __launch_bounds__(THREADS)
    halve_codes(uint16_t *to, const struct weight w, int64_t first, int64_t n, int group_shift)
{
    int64_t begin = (int64_t)blockIdx.x * (EIGHTS * THREADS) + threadIdx.x;
    struct eight<BITS> codes[EIGHTS];

    cuda_begin();
#pragma unroll
    for (int j = 0; j < EIGHTS; j++) {
        codes[j].load(w, first + min(begin + j * THREADS, n - 1), group_shift);
    }
#pragma unroll
    for (int j = 0; j < EIGHTS; j++) {
        float v[8];

        codes[j].numbers(v, w);
        if (begin + j * THREADS < n)
            store_bf16s(to + (begin + j * THREADS) * 8, v);
    }
}

/* Rows [first, first + n) in bf16. */
static void halve(struct cuda_device *c, uint16_t *to, int64_t stride, const struct weight *w,
                  int first, int n)
{
    int64_t per_row = stride / 8, pieces = n * per_row;
    int64_t blocks = (pieces + THREADS - 1) / THREADS, most = 32 * (int64_t)c->n_processors;
    int shift = code_group_shift(w);

    if (shift)
        cuda_launch(c, w->bits == 8 ? halve_codes<8> : halve_codes<4>,
                    shape_of(dim3(blocks_for(pieces, EIGHTS * THREADS)), dim3(THREADS), 0), to, *w,
                    first * per_row, pieces, shift);
    else
        cuda_launch(c, halve_weights,
                    shape_of(dim3((unsigned)(blocks < most ? blocks : most)), dim3(THREADS), 0), to,
                    stride, *w, first, n);
}

/* --- cuBLASLt --- */

static uint32_t alignment_of(const void *p, int64_t stride_bytes)
{
    uint64_t all = (uint64_t)(uintptr_t)p | (uint64_t)stride_bytes | ALIGNMENT;

    return (uint32_t)(all & (~all + 1));
}

/* The algorithm for a shape, asked for once; cuBLASLt then loads kernels. */
static const cublasLtMatmulAlgo_t *find_algo(struct cuda_device *c, struct cuda_blas *b,
                                             cublasLtMatmulDesc_t product,
                                             const cublasLtMatrixLayout_t m[3],
                                             const struct cuda_blas_shape *shape)
{
    cublasLtMatmulPreference_t wish;
    cublasLtMatmulHeuristicResult_t found = {};
    struct cuda_blas_plan *plan = NULL;
    int n = 0;

    for (int i = 0; i < CUDA_BLAS_PLANS; i++)
        if (!memcmp(&b->plans[i].shape, shape, sizeof *shape))
            return &b->plans[i].algo;
    cuda_flush(c);
    cuda_quiet(c);
    if (b->MatmulPreferenceCreate(&wish) != CUBLAS_STATUS_SUCCESS)
        return NULL;
    b->MatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                    &b->workspace_size, sizeof b->workspace_size);
    b->MatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                                    &shape->alignments[0], 4);
    b->MatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                                    &shape->alignments[1], 4);
    b->MatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                                    &shape->alignments[2], 4);
    b->MatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
                                    &shape->alignments[2], 4);
    if (b->MatmulAlgoGetHeuristic(b->handle, product, m[0], m[1], m[2], m[2], wish, 1, &found,
                                  &n) == CUBLAS_STATUS_SUCCESS &&
        n > 0) {
        plan = &b->plans[b->next_plan];
        b->next_plan = (b->next_plan + 1) % CUDA_BLAS_PLANS;
        plan->shape = *shape;
        plan->algo = found.algo;
    }
    b->MatmulPreferenceDestroy(wish);
    return plan ? &plan->algo : NULL;
}

static bool multiply(struct cuda_device *c, struct cuda_blas *b, cublasLtMatmulDesc_t product,
                     const struct dense d[3], const struct cuda_blas_shape *shape)
{
    const cublasOperation_t turned = CUBLAS_OP_T;
    const float one = 1, zero = 0;
    cublasLtMatrixLayout_t m[3] = {};
    const cublasLtMatmulAlgo_t *algo = NULL;
    bool ok;

    ok = b->MatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSA, &turned, sizeof turned) ==
             CUBLAS_STATUS_SUCCESS &&
         b->MatrixLayoutCreate(&m[0], d[0].type, (uint64_t)shape->n_in, (uint64_t)shape->n_out,
                               d[0].stride) == CUBLAS_STATUS_SUCCESS &&
         b->MatrixLayoutCreate(&m[1], d[1].type, (uint64_t)shape->n_in, (uint64_t)shape->n_rows,
                               d[1].stride) == CUBLAS_STATUS_SUCCESS &&
         b->MatrixLayoutCreate(&m[2], d[2].type, (uint64_t)shape->n_out, (uint64_t)shape->n_rows,
                               d[2].stride) == CUBLAS_STATUS_SUCCESS;
    algo = ok ? find_algo(c, b, product, m, shape) : NULL;
    ok = algo && b->Matmul(b->handle, product, &one, d[0].data, m[0], d[1].data, m[1], &zero,
                           d[2].data, m[2], d[2].data, m[2], algo, b->workspace, b->workspace_size,
                           cuda_flush(c)) == CUBLAS_STATUS_SUCCESS;
    for (int i = 0; i < 3; i++)
        if (m[i])
            b->MatrixLayoutDestroy(m[i]);
    return ok;
}

/* y = x w^T, columns of cuBLASLt being our rows. */
static bool product_of(struct cuda_device *c, struct cuda_blas *b, const struct dense d[3],
                       int n_out, int n_rows, int n_in)
{
    struct cuda_blas_shape shape = {};
    cublasLtMatmulDesc_t product;

    shape.n_out = n_out;
    shape.n_rows = n_rows;
    shape.n_in = n_in;
    for (int i = 0; i < 3; i++) {
        shape.types[i] = d[i].type;
        shape.strides[i] = d[i].stride;
        shape.alignments[i] =
            alignment_of(d[i].data, d[i].stride * (d[i].type == CUDA_R_32F ? 4 : 2));
    }
    if (b->MatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F) != CUBLAS_STATUS_SUCCESS)
        return false;

    bool ok = multiply(c, b, product, d, &shape);
    b->MatmulDescDestroy(product);
    return ok;
}

static bool in_bf16(const struct weight *w)
{
    return w->format == WEIGHT_BF16 && (uintptr_t)w->data % 16 == 0 && w->n_in % 8 == 0;
}

/* One job; false where cuBLASLt has no way, as for some strides. rows are those of x in bf16, or of
 * x itself for weights of f32. */
static bool one_job(struct cuda_device *c, struct cuda_blas *b, const struct matmul_job *job,
                    const struct dense *rows, int n_rows, uint16_t *weights, int64_t stride)
{
    const struct weight *w = job->w;
    bool as_it_is = w->format == WEIGHT_F32 || in_bf16(w);
    int most = as_it_is ? w->n_out : (int)(WEIGHT_BYTES / 2 / stride);

    for (int first = 0, n; first < w->n_out; first += n) {
        struct dense d[3] = {{weights, CUDA_R_16BF, stride},
                             *rows,
                             {(float *)job->y->data + first, CUDA_R_32F, job->y->stride}};

        n = w->n_out - first < most ? w->n_out - first : most;
        if (as_it_is)
            d[0] = {(void *)w->data, w->format == WEIGHT_F32 ? CUDA_R_32F : CUDA_R_16BF, w->n_in};
        else
            halve(c, weights, stride, w, first, n);
        if (!product_of(c, b, d, n, n_rows, w->n_in))
            return false;
    }
    if (job->bias)
        cuda_add_columns(&c->base, job->y, job->bias);
    return true;
}

bool cuda_product_dense(struct cuda_device *c, const struct matmul_job *jobs, int n_jobs,
                        const tensor *x)
{
    struct cuda_blas *b = cuda_blas_of(c);
    int64_t stride = (x->cols + 7) / 8 * 8;
    size_t weight_bytes = 0;
    bool halves = false;

    if (!b)
        return false;
    for (int i = 0; i < n_jobs; i++) {
        size_t size = (size_t)jobs[i].w->n_out * (size_t)stride * 2;

        if (jobs[i].w->format == WEIGHT_F32)
            continue;
        halves = true;
        if (!in_bf16(jobs[i].w) && size > weight_bytes)
            weight_bytes = size;
    }
    if (weight_bytes > WEIGHT_BYTES)
        weight_bytes = WEIGHT_BYTES;
    if (WEIGHT_BYTES / 2 / stride < 1)
        return false;

    void *scratch = weight_bytes ? cuda_scratch(c, weight_bytes) : NULL;
    struct dense rows = {NULL, CUDA_R_16BF, stride}, floats = {x->data, CUDA_R_32F, x->stride};
    struct cuda_halves of_x = halves ? cuda_halves_of(c, x) : (struct cuda_halves){};
    rows.data = of_x.data;
    if ((weight_bytes && !scratch) || (halves && !rows.data))
        return true; /* and the failure is kept */
    for (int i = 0; i < n_jobs; i++)
        if (!one_job(c, b, &jobs[i], jobs[i].w->format == WEIGHT_F32 ? &floats : &rows, x->rows,
                     (uint16_t *)scratch, stride))
            cuda_product_f32(c, &jobs[i], x, NULL);
    if (halves)
        cuda_halves_made(c, x, &of_x); /* products write elsewhere */
    return true;
}

void cuda_product_dense_f32(struct cuda_device *c, const struct matmul_job *job, const tensor *x)
{
    const struct weight *w = job->w;
    struct cuda_blas *b = cuda_blas_of(c);
    size_t size = (size_t)w->n_out * (size_t)w->n_in * sizeof(float);
    struct dense rows = {x->data, CUDA_R_32F, x->stride};
    struct weight wide = *w;
    struct matmul_job of_wide = *job;

    if (b && w->format != WEIGHT_F32 && size <= WEIGHT_BYTES) {
        wide.format = WEIGHT_F32;
        wide.data = cuda_scratch(c, size);
        if (!wide.data)
            return; /* and the failure is kept */
        cuda_launch(c, widen_weights,
                    shape_of(dim3(blocks_for((int64_t)size / 32, THREADS)), dim3(THREADS), 0),
                    (float *)wide.data, *w);
        of_wide.w = &wide;
    }
    if (!b || of_wide.w->format != WEIGHT_F32 ||
        !one_job(c, b, &of_wide, &rows, x->rows, NULL, w->n_in))
        cuda_product_f32(c, job, x, NULL);
}
