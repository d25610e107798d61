/* device/cuda/norm.cu: the operations that take a row, or a group of it, as a whole: a block of
 * threads for each, or a warp where groups are short. */
#include "device/cuda/halves.h"
#include "device/cuda/rows.cuh"

enum { MOST_THREADS = 1024, GROUP_WARPS = 4 };

/* Threads of a block for n numbers: whole warps, some numbers for each thread. */
static unsigned threads_for(int n)
{
    int threads = (n / 4 + WARP - 1) / WARP * WARP;

    return (unsigned)(threads < WARP ? WARP : threads > MOST_THREADS ? MOST_THREADS : threads);
}

/* Blocks for all groups of n numbers of x; a grid's first dimension is large enough. */
static struct cuda_shape group_shape(const tensor *x, int n)
{
    int64_t groups = n > 0 ? (int64_t)x->rows * (x->cols / n) : 0;

    return shape_of(dim3((unsigned)groups), dim3(threads_for(n)), 0);
}

/* The group that a block has. */
static __device__ __forceinline__ float *group_at(const struct rows &x, int n)
{
    int n_groups = x.cols / n;

    return row_at(x, blockIdx.x / n_groups) + (int64_t)(blockIdx.x % n_groups) * n;
}

/* The sum of what f gives for the numbers of a group. */
template <typename F> static __device__ float sum_over(const float *x, int n, float *room, F f)
{
    float sum = 0;

    for (int i = threadIdx.x; i < n; i += blockDim.x)
        sum += f(x[i]);
    return over_block(sum, room, sum_of());
}

struct plain {
    __device__ float operator()(float x) const
    {
        return x;
    }
};

struct square_from {
    float mean;
    __device__ float operator()(float x) const
    {
        return (x - mean) * (x - mean);
    }
};

/* Numbers that a thread keeps; groups of more are read again. */
enum { KEPT = 8 };

/* A group's norm, of x += scale a where there is an a, by threads that keep their numbers. */
static __device__ void kept_norm(float *y, float *x, const float *a, float scale, const float *w,
                                 int n, float eps, float *room)
{
    float kept[KEPT], weights[KEPT], sum = 0;

#pragma unroll
    for (int j = 0; j < KEPT; j++) {
        int i = threadIdx.x + j * blockDim.x;

        kept[j] = i < n ? x[i] : 0;
        weights[j] = i < n && w ? w[i] : 1;
        if (i < n && a)
            kept[j] += scale * a[i];
    }
#pragma unroll
    for (int j = 0; j < KEPT; j++)
        sum += kept[j] * kept[j];
    float factor = 1.0f / sqrtf(over_block(sum, room, sum_of()) / (float)n + eps);

#pragma unroll
    for (int j = 0; j < KEPT; j++) {
        int i = threadIdx.x + j * blockDim.x;

        if (i < n && a)
            x[i] = kept[j];
        if (i < n)
            y[i] = kept[j] * factor * weights[j];
    }
}

/* a without data: of x as it is. */
static __global__ void rms_norm_kernel(struct rows y, struct rows x, struct rows a, float scale,
                                       const float *w, int n, float eps)
{
    __shared__ float room[WARP];
    float sum = 0;

    cuda_begin();
    float *at = group_at(x, n), *to = group_at(y, n);
    const float *more = a.data ? group_at(a, n) : NULL;
    if (n <= KEPT * (int)blockDim.x) {
        kept_norm(to, at, more, scale, w, n, eps, room);
        return;
    }
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        float number = more ? at[i] + scale * more[i] : at[i];

        if (more)
            at[i] = number;
        sum += number * number;
    }
    float factor = 1.0f / sqrtf(over_block(sum, room, sum_of()) / (float)n + eps);
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        to[i] = at[i] * factor * (w ? w[i] : 1.0f);
}

/* Can the addition that waits, to x, go with its norm to y? A block reads its row before it writes;
 * other rows must not lie there. */
static bool goes_along(const struct cuda_addition *a, const tensor *y, const tensor *x, int n)
{
    return cuda_same(&a->y, x) && n == x->cols && x->rows > 0 && !cuda_overlap(x, y) &&
           !cuda_overlap(x, &a->x) && (x->rows == 1 || !cuda_overlap(&a->x, y));
}

void cuda_launch_norm(struct cuda_device *c, const struct cuda_norm *n)
{
    cuda_launch(c, rms_norm_kernel, group_shape(&n->x, n->x.cols), rows_of(&n->y), rows_of(&n->x),
                (struct rows){}, 0, n->w, n->x.cols, n->eps);
}

void cuda_rms_norm(device *d, tensor *y, const tensor *x, const float *w, int n, float eps)
{
    struct cuda_device *c = cuda_device_of(d);
    struct cuda_waiting *before = &c->waiting;
    struct cuda_norm norm = {*y, *x, w, eps};

    if (before->kind == CUDA_ADDITION && goes_along(&before->addition, y, x, n)) {
        const struct cuda_addition *a = &before->addition;

        cuda_take(c);
        if (!cuda_halves_norm(c, y, x, &a->x, a->scale, w, eps))
            cuda_launch(c, rms_norm_kernel, group_shape(x, n), rows_of(y), rows_of(x),
                        rows_of(&a->x), a->scale, w, n, eps);
    } else if (n == x->cols && cuda_halves_norm(c, y, x, NULL, 0, w, eps)) {
        return;
    } else if (!c->exact && n == x->cols && x->rows > 0 && !cuda_overlap(x, y)) {
        cuda_settle(c);
        before->norm = norm;
        before->kind = CUDA_NORM;
    } else if (!cuda_same(x, y) || !cuda_norm_heads(c, x, w, n, eps)) {
        cuda_launch(c, rms_norm_kernel, group_shape(x, n), rows_of(y), rows_of(x), (struct rows){},
                    0, w, n, eps);
    }
}

static __global__ void layer_norm_kernel(struct rows y, struct rows x, const float *w,
                                         const float *b, int n, float eps)
{
    __shared__ float room[WARP];

    cuda_begin();
    const float *from = group_at(x, n);
    float *to = group_at(y, n), mean = sum_over(from, n, room, plain()) / (float)n;
    float factor = 1.0f / sqrtf(sum_over(from, n, room, square_from{mean}) / (float)n + eps);

    for (int i = threadIdx.x; i < n; i += blockDim.x)
        to[i] = (from[i] - mean) * factor * (w ? w[i] : 1.0f) + (b ? b[i] : 0.0f);
}

void cuda_layer_norm(device *d, tensor *y, const tensor *x, const float *w, const float *b, int n,
                     float eps)
{
    cuda_launch(cuda_device_of(d), layer_norm_kernel, group_shape(x, n), rows_of(y), rows_of(x), w,
                b, n, eps);
}

static __global__ void softmax_kernel(struct rows x)
{
    __shared__ float room[WARP];
    float most = -INFINITY, sum = 0;

    cuda_begin();
    float *row = row_at(x, blockIdx.x);
    for (int i = threadIdx.x; i < x.cols; i += blockDim.x)
        most = fmaxf(most, row[i]);
    most = over_block(most, room, most_of());
    for (int i = threadIdx.x; i < x.cols; i += blockDim.x)
        sum += row[i] = expf(row[i] - most);
    sum = over_block(sum, room, sum_of());
    for (int i = threadIdx.x; i < x.cols; i += blockDim.x)
        row[i] /= sum;
}

void cuda_softmax(device *d, tensor *x)
{
    cuda_launch(cuda_device_of(d), softmax_kernel, group_shape(x, x->cols), rows_of(x));
}

static __global__ void match_kernel(struct rows x, struct rows like, float floor)
{
    __shared__ float room[WARP];

    cuda_begin();
    float *row = row_at(x, blockIdx.x), n = (float)x.cols;
    float own = sum_over(row, x.cols, room, square_from{0}) / n;
    float other = sum_over(row_at(like, blockIdx.x), x.cols, room, square_from{0}) / n;
    float factor = sqrtf(other / fmaxf(own, floor));

    for (int i = threadIdx.x; i < x.cols; i += blockDim.x)
        row[i] *= factor;
}

void cuda_match_size(device *d, tensor *x, const tensor *like, float floor)
{
    cuda_launch(cuda_device_of(d), match_kernel, group_shape(x, x->cols), rows_of(x), rows_of(like),
                floor);
}

static __global__ void cut_kernel(struct rows x, float factor)
{
    __shared__ float room[WARP];

    cuda_begin();
    float *row = row_at(x, blockIdx.x), mean = sum_over(row, x.cols, room, plain()) / (float)x.cols;
    float spread = sqrtf(sum_over(row, x.cols, room, square_from{mean}) / (float)x.cols);

    for (int i = threadIdx.x; i < x.cols; i += blockDim.x)
        row[i] = fmaxf(0, row[i] - (mean + factor * spread));
}

void cuda_cut_below_spread(device *d, tensor *x, float factor)
{
    cuda_launch(cuda_device_of(d), cut_kernel, group_shape(x, x->cols), rows_of(x), factor);
}

/* --- Blocks rounded to few bits: as device/cpu/round_blocks.c has it. --- */

/* To the nearest number of so many bits behind the first, of those with exponents from least on; to
 * even between two. */
static __device__ float round_bits(float x, int bits, int least, float max)
{
    int exponent;

    if (fabsf(x) >= max)
        return copysignf(max, x);
    (void)frexpf(x, &exponent);
    float step = ldexpf(1, (exponent - 1 > least ? exponent - 1 : least) - bits);
    return rintf(x / step) * step;
}

static __device__ float round_e4m3(float x)
{
    return round_bits(x, 3, -6, 448);
}

static __device__ float round_e2m1(float x)
{
    return round_bits(x, 1, 0, 6);
}

static __device__ float block_scale(float most, enum block_rounding kind)
{
    if (kind == ROUND_NVFP4)
        return round_e4m3(most / 6);
    return ldexpf(1, (int)ceilf(log2f(most / (kind == ROUND_FP8 ? 448.0f : 6.0f))));
}

static __global__ void round_kernel(struct rows x, int n, enum block_rounding kind)
{
    __shared__ float room[WARP];
    float most = kind == ROUND_FP8 ? 1e-4f : kind == ROUND_FP4 ? 0x1.8p-124f : 0x1.8p-7f;

    cuda_begin();
    float *block = group_at(x, n);
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        most = fmaxf(most, fabsf(block[i]));
    most = over_block(most, room, most_of());
    if (!isfinite(most))
        return;
    float scale = block_scale(most, kind);
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        float number = block[i] / scale;

        block[i] = (kind == ROUND_FP8 ? round_e4m3(number) : round_e2m1(number)) * scale;
    }
}

void cuda_round_blocks(device *d, tensor *x, int size, enum block_rounding kind)
{
    cuda_launch(cuda_device_of(d), round_kernel, group_shape(x, size), rows_of(x), size, kind);
}

/* --- Small transforms --- */

/* The sums and differences of halves, of quarters, ...; in shared memory. */
static __global__ void hadamard_kernel(struct rows x, int n)
{
    extern __shared__ float at[];
    float scale = 1 / sqrtf((float)n);

    cuda_begin();
    float *group = group_at(x, n);
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        at[i] = group[i];
    for (int half = 1; half < n; half *= 2) {
        __syncthreads();
        for (int p = threadIdx.x; p < n / 2; p += blockDim.x) {
            int i = p / half * 2 * half + p % half;
            float a = at[i], b = at[i + half];

            at[i] = a + b;
            at[i + half] = a - b;
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        group[i] = at[i] * scale;
}

void cuda_hadamard(device *d, tensor *x, int n)
{
    struct cuda_device *c = cuda_device_of(d);
    struct cuda_shape shape = group_shape(x, n);

    if ((size_t)n * sizeof(float) > c->shared_memory) {
        cuda_fail(c, CLM_ERR_UNSUPPORTED,
                  "cuda: a Hadamard transform of %d numbers; %zu are the most", n,
                  c->shared_memory / sizeof(float));
        return;
    }
    shape.shared = (unsigned)((size_t)n * sizeof(float));
    cuda_launch(c, hadamard_kernel, shape, rows_of(x), n);
}

/* Each of n lists of n numbers, a step apart, divided by its sum and eps; lists are the threads'.
 */
static __device__ void divide_by_sums(float *m, int n, int list, int step, float eps)
{
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        float sum = 0;

        for (int j = 0; j < n; j++)
            sum += m[i * list + j * step];
        for (int j = 0; j < n; j++)
            m[i * list + j * step] /= sum + eps;
    }
    __syncwarp();
}

static __global__ void sinkhorn_kernel(struct rows x, int n, int n_iterations, float eps)
{
    cuda_begin();
    float *m = row_at(x, blockIdx.x);

    divide_by_sums(m, n, 1, n, eps);
    for (int i = 1; i < n_iterations; i++) {
        divide_by_sums(m, n, n, 1, eps);
        divide_by_sums(m, n, 1, n, eps);
    }
}

void cuda_sinkhorn(device *d, tensor *x, int n, int n_iterations, float eps)
{
    cuda_launch(cuda_device_of(d), sinkhorn_kernel,
                shape_of(dim3((unsigned)x->rows), dim3(WARP), 0), rows_of(x), n, n_iterations, eps);
}

/* A warp for each group. */
static __global__ void dot_kernel(struct rows y, struct rows a, struct rows b, int n)
{
    int64_t item = (int64_t)blockIdx.x * GROUP_WARPS + threadIdx.y, t = item / y.cols;
    int64_t g = item % y.cols;
    float sum = 0;

    cuda_begin();
    if (t >= y.n)
        return;
    for (int i = threadIdx.x; i < n; i += WARP)
        sum += row_at(a, t)[g * n + i] * row_at(b, t)[g * n + i];
    sum = over_warp(sum, sum_of());
    if (threadIdx.x == 0)
        row_at(y, t)[g] = sum;
}

void cuda_dot_groups(device *d, tensor *y, const tensor *a, const tensor *b, int n)
{
    dim3 grid(blocks_for((int64_t)y->rows * y->cols, GROUP_WARPS));

    cuda_launch(cuda_device_of(d), dot_kernel, shape_of(grid, dim3(WARP, GROUP_WARPS), 0),
                rows_of(y), rows_of(a), rows_of(b), n);
}
