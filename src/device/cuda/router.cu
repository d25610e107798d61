/* device/cuda/router.cu: which experts a token goes to, a warp for each row; and putting together
 * what they return. By the rules of device/cpu/router.c, which says why. */
#include "device/cuda/router.cuh"

#include <float.h>
#include <string.h>

enum { THREADS = 128 };

/* One of the numbers of a row, and where. */
struct place {
    float x;
    int at;
};

struct better_of {
    __device__ struct place operator()(struct place a, struct place b) const
    {
        return b.x > a.x || (b.x == a.x && b.at < a.at) ? b : a;
    }
};

/* The largest of n numbers, the first on ties, for every lane; NaN is passed over. At is n where
 * there is none. */
static __device__ struct place largest(const float *x, int n)
{
    struct place best = {-INFINITY, n};

    for (int i = threadIdx.x; i < n; i += WARP)
        if (!isnan(x[i]))
            best = better_of()(best, (struct place){x[i], i});
    for (int step = WARP / 2; step; step /= 2) {
        struct place other = {__shfl_xor_sync(0xFFFFFFFF, best.x, step),
                              __shfl_xor_sync(0xFFFFFFFF, best.at, step)};

        best = better_of()(best, other);
    }
    return best;
}

/* The largest, which is then out of the running. */
static __device__ struct place take_largest(float *x, int n)
{
    struct place best = largest(x, n);

    __syncwarp();
    if (threadIdx.x == 0 && best.at < n)
        x[best.at] = NAN;
    __syncwarp();
    return best;
}

static __device__ void score_row(float *scores, const float *logits, const struct router_params &p)
{
    float2 seen = look_at_logits(logits, p);

    for (int i = threadIdx.x; i < p.n_experts; i += WARP)
        scores[i] = score_of(logits[i], seen, p);
    __syncwarp();
}

static __device__ float group_score(const float *x, int n, bool by_max)
{
    float first = -INFINITY, second = -INFINITY;

    for (int i = 0; i < n; i++) {
        if (x[i] > first) {
            second = first;
            first = x[i];
        } else if (x[i] > second) {
            second = x[i];
        }
    }
    return by_max || n < 2 ? first : first + second;
}

/* Scores outside of the best groups become 0, or less than all. */
static __device__ void keep_groups(float *x, float *room, const struct router_params &p)
{
    int size = p.n_experts / p.n_groups;

    for (int g = threadIdx.x; g < p.n_groups; g += WARP)
        room[g] = group_score(x + g * size, size, p.group_by_max);
    __syncwarp();
    for (int dropped = 0; dropped < p.n_groups - p.n_groups_kept; dropped++) {
        int worst = -1;

        for (int g = 0; g < p.n_groups; g++)
            if (!isnan(room[g]) && (worst < 0 || room[g] <= room[worst]))
                worst = g;
        __syncwarp();
        if (worst < 0)
            return;
        if (threadIdx.x == 0)
            room[worst] = NAN;
        for (int i = worst * size + threadIdx.x; i < (worst + 1) * size; i += WARP)
            x[i] = p.groups_alone ? -INFINITY : p.late_zeros ? FLT_MIN * (float)i : 0;
        __syncwarp();
    }
}

static __device__ void sparse_mixer(int32_t *ids, float *weights, float *masked,
                                    const float *logits, const struct router_params &p)
{
    for (int i = threadIdx.x; i < p.n_experts; i += WARP)
        masked[i] = or_least(logits[i]);
    __syncwarp();
    for (int j = 0; j < p.n_experts_per_token; j++) {
        struct place top = largest(masked, p.n_experts);
        float sum = 0;

        for (int i = threadIdx.x; i < p.n_experts; i += WARP)
            if (!((top.x - logits[i]) / fmaxf(fabsf(logits[i]), top.x) > 2 * p.jitter))
                sum += expf(masked[i] - top.x);
        sum = over_warp(sum, sum_of());
        if (threadIdx.x == 0) {
            ids[j] = top.at;
            weights[j] = 1 / sum;
            masked[top.at] = -INFINITY;
        }
        __syncwarp();
    }
}

/* Shared memory: scores, scores by which is chosen, groups, and the weights of the chosen. */
static __global__ void route_kernel(int32_t *all_ids, int64_t ids_stride, struct rows all_weights,
                                    struct rows all_logits, struct router_params p)
{
    extern __shared__ float scores[];
    int n = p.n_experts, k = p.n_experts_per_token;
    float *choice = scores + n, *room = choice + n, *weights = room + n;

    cuda_begin();
    int32_t *ids = all_ids + blockIdx.x * ids_stride;
    const float *logits = row_at(all_logits, blockIdx.x);
    if (p.score == ROUTER_SPARSE_MIXER) {
        sparse_mixer(ids, weights, scores, logits, p);
        finish_weights(row_at(all_weights, blockIdx.x), weights, p);
        return;
    }
    score_row(scores, logits, p);
    for (int i = threadIdx.x; i < n; i += WARP)
        choice[i] = or_least(p.bias ? scores[i] + p.bias[i] : scores[i]);
    __syncwarp();
    if (p.n_groups > 1)
        keep_groups(choice, room, p);
    for (int j = 0; j < k; j++) {
        int id = take_largest(choice, n).at;

        if (threadIdx.x == 0) {
            ids[j] = id;
            weights[j] = p.score == ROUTER_SIGMOID_SELECTED ? sigmoid(scores[id]) : scores[id];
        }
    }
    __syncwarp();
    finish_weights(row_at(all_weights, blockIdx.x), weights, p);
}

void cuda_launch_routing(struct cuda_device *c, const struct cuda_routing *r)
{
    const struct router_params *p = &r->p;
    size_t room = (3 * (size_t)p->n_experts + (size_t)p->n_experts_per_token) * sizeof(float);

    if (room > c->shared_memory) {
        cuda_fail(c, CLM_ERR_UNSUPPORTED, "cuda: a router of %d experts; %zu are the most",
                  p->n_experts, c->shared_memory / (4 * sizeof(float)));
        return;
    }
    cuda_launch(c, route_kernel, shape_of(dim3((unsigned)r->logits.rows), dim3(WARP), room),
                (int32_t *)r->ids.data, r->ids.stride, rows_of(&r->weights), rows_of(&r->logits),
                *p);
}

void cuda_route(device *d, tensor *ids, tensor *weights, const tensor *logits,
                const struct router_params *p)
{
    struct cuda_device *c = cuda_device_of(d);

    cuda_settle(c);
    memset(&c->waiting.routing, 0, sizeof c->waiting.routing);
    c->waiting.routing.ids = *ids;
    c->waiting.routing.weights = *weights;
    c->waiting.routing.logits = *logits;
    c->waiting.routing.p = *p;
    c->waiting.kind = CUDA_ROUTING;
}

/* In the order of j; to has scale times it added, if there is a to. */
static __global__ void __launch_bounds__(THREADS)
    combine_kernel(struct rows y, struct rows x, struct rows weights, struct rows to, float scale)
{
    int i = blockIdx.x * THREADS + threadIdx.x, k = weights.cols;

    cuda_begin();
    for (int t = blockIdx.y; i < y.cols && t < y.n; t += gridDim.y) {
        float sum = 0;

        for (int j = 0; j < k; j++)
            sum += row_at(weights, t)[j] * row_at(x, (int64_t)t * k + j)[i];
        row_at(y, t)[i] = sum;
        if (to.data)
            row_at(to, t)[i] += scale * sum;
    }
}

static void combine(struct cuda_device *c, const struct cuda_combination *m, struct rows to,
                    float scale)
{
    dim3 grid(blocks_for(m->y.cols, THREADS), grid_rows(m->y.rows));

    cuda_launch(c, combine_kernel, shape_of(grid, dim3(THREADS), 0), rows_of(&m->y), rows_of(&m->x),
                rows_of(&m->weights), to, scale);
}

void cuda_launch_combination(struct cuda_device *c, const struct cuda_combination *m)
{
    combine(c, m, (struct rows){}, 0);
}

void cuda_combine_experts(device *d, tensor *y, const tensor *x, const tensor *weights)
{
    struct cuda_device *c = cuda_device_of(d);
    struct cuda_combination m = {*y, *x, *weights};

    if (cuda_product_combine(c, &m))
        return;
    cuda_settle(c);
    c->waiting.combination = m;
    c->waiting.kind = CUDA_COMBINATION;
}

bool cuda_combination_add(struct cuda_device *c, const struct cuda_addition *a)
{
    const struct cuda_combination *m = &c->waiting.combination;

    if (c->waiting.kind != CUDA_COMBINATION || !cuda_same(&m->y, &a->x) || a->y.rows != a->x.rows ||
        a->y.cols != a->x.cols || cuda_overlap(&a->y, &m->y) || cuda_overlap(&a->y, &m->x) ||
        cuda_overlap(&a->y, &m->weights))
        return false;
    cuda_take(c);
    combine(c, m, rows_of(&a->y), a->scale);
    return true;
}

/* --- A thread for each row, or number --- */

static struct cuda_shape threads_shape(int64_t n)
{
    return shape_of(dim3(blocks_for(n, THREADS)), dim3(THREADS), 0);
}

static __device__ int64_t own_index(void)
{
    return (int64_t)blockIdx.x * THREADS + threadIdx.x;
}

static __global__ void scale_chosen_kernel(struct rows weights, const int32_t *ids,
                                           int64_t ids_stride, const float *scales)
{
    int64_t t = own_index() / weights.cols, j = own_index() % weights.cols;

    cuda_begin();
    if (t < weights.n)
        row_at(weights, t)[j] *= scales[ids[t * ids_stride + j]];
}

void cuda_scale_chosen(device *d, tensor *weights, const tensor *ids, const float *scales)
{
    cuda_launch(cuda_device_of(d), scale_chosen_kernel,
                threads_shape((int64_t)weights->rows * weights->cols), rows_of(weights),
                (const int32_t *)ids->data, ids->stride, scales);
}

static __global__ void bound_kernel(int32_t *out, const int32_t *ids, int n, int limit)
{
    int64_t i = own_index();

    cuda_begin();
    if (i < n)
        out[i] = ids[i] >= 0 && ids[i] < limit ? ids[i] : 0;
}

void cuda_bound_ids(device *d, int32_t *out, const int32_t *ids, int n, int limit)
{
    cuda_launch(cuda_device_of(d), bound_kernel, threads_shape(n), out, ids, n, limit);
}

static __global__ void ngram_kernel(int32_t *out, const int32_t *ids, const int32_t *past, int n,
                                    int n_past, int n_used, int base, int size)
{
    int64_t t = own_index(), power = 1;

    cuda_begin();
    if (t >= n)
        return;
    int64_t sum = ids[t] % size;
    for (int i = 0; i < n_used; i++) {
        power = power * base % size;
        sum = (sum + past[t * n_past + i] * power) % size;
    }
    out[t] = (int32_t)sum;
}

void cuda_ngram_ids(device *d, int32_t *out, const int32_t *ids, const int32_t *past, int n,
                    int n_past, int n_used, int base, int size)
{
    cuda_launch(cuda_device_of(d), ngram_kernel, threads_shape(n), out, ids, past, n, n_past,
                n_used, base, size);
}

static __device__ bool is_taken(const int32_t *ids, int k, int id)
{
    for (int i = 0; i < k; i++)
        if (ids[i] == id)
            return true;
    return false;
}

static __global__ void zero_kernel(int32_t *all_ids, int64_t ids_stride, struct rows all_weights,
                                   struct rows rest, int n_experts)
{
    int64_t t = own_index();
    int k = all_weights.cols, free_id = 0;
    float sum = 0;

    cuda_begin();
    if (t >= all_weights.n)
        return;
    int32_t *ids = all_ids + t * ids_stride;
    float *weights = row_at(all_weights, t);
    for (int j = 0; j < k; j++) {
        if (ids[j] < n_experts)
            continue;
        sum += weights[j];
        weights[j] = 0;
        while (is_taken(ids, k, free_id))
            free_id++;
        ids[j] = free_id;
    }
    row_at(rest, t)[0] = sum;
}

void cuda_zero_experts(device *d, tensor *ids, tensor *weights, tensor *rest, int n_experts)
{
    cuda_launch(cuda_device_of(d), zero_kernel, threads_shape(ids->rows), (int32_t *)ids->data,
                ids->stride, rows_of(weights), rows_of(rest), n_experts);
}
