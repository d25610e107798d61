/* device/cuda/matmul.cu: which way a product goes, and rows of an embedding.
 *
 * Exact products all go one way, in f32. Of others few rows go through the kernels that read
 * weights at the speed of memory, many to cuBLASLt. Weights of f32 stay f32 everywhere: routers and
 * the like are, and what they choose should not turn on a rounding.
 */
#include "device/cuda/products.h"
#include "device/cuda/rows.cuh"

enum {
    THREADS = 256,
    FEW = 8 /* rows that no other way is faster for */
};

/* --- Products --- */

/* The norm of more rows is not computed by every block that reads them. */
enum { NORM_ROWS = 4 };

static bool is_aligned(const void *p)
{
    return (uintptr_t)p % 16 == 0;
}

/* May a product write there while its blocks read what they multiply, and write what they must? */
static bool may_write(const struct cuda_product *p, const tensor *y)
{
    const tensor w = {(void *)(uintptr_t)p->norm.w, DTYPE_F32, 1, p->x.cols, p->x.cols};

    return !cuda_overlap(y, &p->x) &&
           (!p->normed || (!cuda_overlap(y, &p->norm.x) && (!p->norm.w || !cuda_overlap(y, &w))));
}

/* Can the product compute the norm that it is of? */
static bool takes_norm(const struct cuda_product *p, const struct cuda_norm *n)
{
    struct cuda_product both = *p;

    both.normed = true;
    both.norm = *n;
    for (int i = 0; i < p->n_jobs; i++)
        if (!may_write(&both, &p->y[i]))
            return false;
    return cuda_same(&n->y, &p->x) && n->x.rows <= NORM_ROWS && rows_are_wide(&n->x) &&
           rows_are_wide(&n->y) && is_aligned(n->w);
}

void cuda_product_start(struct cuda_device *c, struct cuda_product *p)
{
    struct cuda_waiting *w = &c->waiting;

    if (w->kind == CUDA_NORM && !p->experts.ids && takes_norm(p, &w->norm)) {
        cuda_take(c);
        p->normed = true;
        p->norm = w->norm;
    }
    if (p->n_jobs > 2) {
        cuda_launch_product(c, p);
        return;
    }
    cuda_settle(c);
    w->product = *p;
    w->kind = CUDA_PRODUCT;
}

bool cuda_product_add(struct cuda_device *c, const struct cuda_addition *a)
{
    struct cuda_product *p = &c->waiting.product;

    if (c->waiting.kind != CUDA_PRODUCT || p->n_jobs != 1 || p->experts.ids ||
        !cuda_same(&p->y[0], &a->x) || a->y.rows != a->x.rows || a->y.cols != a->x.cols ||
        cuda_overlap(&a->y, &a->x) || !may_write(p, &a->y))
        return false;
    cuda_take(c);
    p->tail = (struct cuda_tail){CUDA_TAIL_ADD, a->y, a->scale, ACT_NONE};
    cuda_launch_product(c, p);
    return true;
}

bool cuda_product_glu(struct cuda_device *c, const tensor *y, const tensor *gate, const tensor *up,
                      enum activation act)
{
    struct cuda_product *p = &c->waiting.product;

    if (c->waiting.kind != CUDA_PRODUCT || p->n_jobs != 2 || !cuda_same(&p->y[0], gate) ||
        !cuda_same(&p->y[1], up) || gate->cols != up->cols || gate->cols % 8 ||
        y->rows != gate->rows || y->cols != gate->cols || cuda_overlap(y, up) ||
        (!cuda_same(y, gate) && cuda_overlap(y, gate)) || !may_write(p, y))
        return false;
    cuda_take(c);
    p->tail = (struct cuda_tail){CUDA_TAIL_GLU, *y, 1, act};
    cuda_launch_product(c, p);
    return true;
}

/* Jobs that are alike, so many rows at a time. */
static void product_in_streams(struct cuda_device *c, const struct matmul_job *jobs, int n_jobs,
                               const tensor *x, int most)
{
    for (int first = 0, n; first < x->rows; first += n) {
        struct matmul_job parts[CUDA_STREAM_JOBS];
        struct cuda_product product;
        tensor y[CUDA_STREAM_JOBS], some;

        n = x->rows - first < most ? x->rows - first : most;
        some = cuda_some_rows(x, first, n);
        for (int i = 0; i < n_jobs; i++) {
            y[i] = cuda_some_rows(jobs[i].y, first, n);
            parts[i] = (struct matmul_job){&y[i], jobs[i].w, jobs[i].bias};
        }
        cuda_product_of(&product, parts, n_jobs, &some);
        cuda_product_start(c, &product);
    }
}

/* How many of the jobs can go together, the first of them included. */
static int count_alike(const struct cuda_device *c, const struct matmul_job *jobs, int n_jobs)
{
    int n = 1;

    while (n < n_jobs && n < CUDA_STREAM_JOBS && cuda_stream_rows(c, jobs[n].w) &&
           cuda_stream_alike(jobs[0].w, jobs[n].w))
        n++;
    return n;
}

/* Rows up to which a weight is read for so few at a time rather than given to cuBLASLt. */
static int few_rows(const struct cuda_device *c, const struct weight *w)
{
    int most = cuda_stream_rows(c, w);

    return w->format <= WEIGHT_BF16 || most < FEW ? FEW : most;
}

static bool is_few(const struct cuda_device *c, const struct weight *w, int n_rows)
{
    return n_rows <= few_rows(c, w);
}

void cuda_matmul(device *d, const struct matmul_job *jobs, int n_jobs, const tensor *x)
{
    struct cuda_device *c = cuda_device_of(d);

    for (int i = 0, n; i < n_jobs && x->rows > 0; i += n) {
        int most = cuda_stream_rows(c, jobs[i].w);

        n = 1;
        if (c->exact) {
            cuda_product_f32(c, &jobs[i], x, NULL);
            continue;
        }
        if (!is_few(c, jobs[i].w, x->rows)) {
            while (i + n < n_jobs && !is_few(c, jobs[i + n].w, x->rows))
                n++;
            if (cuda_product_dense(c, jobs + i, n, x))
                continue;
            n = 1;
        }
        if (most) {
            n = count_alike(c, jobs + i, n_jobs - i);
            product_in_streams(c, jobs + i, n, x, most);
        } else {
            cuda_product_f32(c, &jobs[i], x, NULL);
        }
    }
}

/* --- Rows --- */

static __global__ void __launch_bounds__(THREADS)
    embed_kernel(struct rows y, const struct weight w, const int32_t *ids, float scale)
{
    int k = (int)(blockIdx.x * THREADS + threadIdx.x) * 8;

    cuda_begin();
    if (k >= w.n_in)
        return;
    for (int r = blockIdx.y; r < y.n; r += gridDim.y) {
        float *to = row_at(y, r) + k, v[8];

        weight_numbers8(v, w, ids[r], k);
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (k + i < w.n_in)
                to[i] = scale * v[i];
    }
}

void cuda_embed(device *d, tensor *y, const struct weight *w, const int32_t *ids, float scale)
{
    dim3 grid(blocks_for(w->n_in, 8 * THREADS), grid_rows(y->rows));

    cuda_launch(cuda_device_of(d), embed_kernel, shape_of(grid, dim3(THREADS), 0), rows_of(y), *w,
                ids, scale);
}

/* --- The largest --- */

/* The better of two, the first on ties. */
static __device__ void better(float &best, int &at, float other, int other_at)
{
    if (other > best || (other == best && other_at < at)) {
        best = other;
        at = other_at;
    }
}

static __global__ void argmax_kernel(int32_t *ids, struct rows x)
{
    __shared__ float values[WARP];
    __shared__ int places[WARP];
    int at = INT32_MAX, lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    float best = -INFINITY;

    cuda_begin();
    const float *row = row_at(x, blockIdx.x);
    for (int i = threadIdx.x; i < x.cols; i += blockDim.x)
        better(best, at, row[i], i);
    for (int step = WARP / 2; step; step /= 2)
        better(best, at, __shfl_xor_sync(0xFFFFFFFF, best, step),
               __shfl_xor_sync(0xFFFFFFFF, at, step));
    if (lane == 0) {
        values[warp] = best;
        places[warp] = at;
    }
    __syncthreads();
    if (threadIdx.x)
        return;
    for (int i = 1; i < (int)blockDim.x / WARP; i++)
        better(best, at, values[i], places[i]);
    ids[blockIdx.x] = at == INT32_MAX ? 0 : at;
}

void cuda_argmax(device *d, int32_t *ids, const tensor *x)
{
    cuda_launch(cuda_device_of(d), argmax_kernel, shape_of(dim3((unsigned)x->rows), dim3(1024), 0),
                ids, rows_of(x));
}
