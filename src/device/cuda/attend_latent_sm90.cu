/* device/cuda/attend_latent_sm90.cu: attention of heads of more than 256 numbers on Hopper, as the
 * latent attention of DeepSeek has them: of keys 576, of values 512, and many queries for each.
 *
 * A block has 64 queries, which its two warpgroups share: both make all the weights, and each adds
 * up half the numbers of the values. Where blocks are few the keys are split among more; what these
 * find is put together in order by a second kernel.
 */
#include "device/cuda/attend_sm90.cuh"

enum {
    K_DIM = 576,
    V_DIM = 512,
    MAX_SPLITS = 256,
    SPLIT_TILES = 2,
    JOIN_THREADS = V_DIM / 4,
    /* What a block hands on: sums, and of each query the max and the sum of weights. */
    PARTIAL = 64 * (V_DIM + 2)
};

typedef tile_shape<K_DIM, V_DIM, true> shape;

/* Of how many blocks a block's work is, and from tile to tile how many of each. */
struct share {
    int n_splits, tiles, first;
};

static __device__ __forceinline__ struct share share_of(const struct work &w, int max_splits)
{
    int first = w.begin / shape::keys, n = (w.end + shape::keys - 1) / shape::keys - first;
    int tiles = max((n + max_splits - 1) / max_splits, SPLIT_TILES);

    return {(n + tiles - 1) / tiles, tiles, first};
}

static __device__ __forceinline__ float *partial_at(const attend_args &a, int item, int kv_head,
                                                    int split)
{
    size_t which = ((size_t)item * a.kv.n_kv_heads + kv_head) * a.max_splits + split;

    return a.partials + which * PARTIAL;
}

/* first_row: of the warp's queries, among the block's. */
[[maybe_unused]] static __device__ __forceinline__ void hand_on(float *partial,
                                                                const struct work &w, int first_row,
                                                                int first,
                                                                const struct found<shape> &f)
{
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;

#pragma unroll
    for (int half = 0; half < 2; half++) {
        int i = 8 * half + g;
        float sum = f.sum[0][half], *to = partial + (first_row + i) * V_DIM + first + 2 * t;

        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        if (i >= w.n_queries)
            continue;
#pragma unroll
        for (int d = 0; d < shape::dim / 8; d++)
            *(float2 *)(to + 8 * d) = make_float2(f.acc[0][d][2 * half], f.acc[0][d][2 * half + 1]);
        if (first == 0 && t == 0)
            ((float2 *)(partial + 64 * V_DIM))[first_row + i] = make_float2(f.max[0][half], sum);
    }
}

static __device__ __forceinline__ struct work find_work(const attend_args &a, int item, int kv_head,
                                                        kv_sequence *s, int *first_query)
{
    int sequence;

    attend_find_item(a, item, shape::queries, true, &sequence, first_query);
    *s = a.batch.sequences[sequence];
    return work_of(a, *s, kv_head, *first_query, shape::queries);
}

template <typename T>
static __global__ void __launch_bounds__(THREADS, 1)
    latent_kernel(const __grid_constant__ attend_args a)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ char memory[];
    const struct room room = room_at<shape>(memory);
    int group = threadIdx.x / GROUP, item = gridDim.y - 1 - blockIdx.y, first_query;
    kv_sequence s;

    if (threadIdx.x == 0)
        open_barriers<shape>(room);
    cuda_begin();
    struct work block = find_work(a, item, blockIdx.x, &s, &first_query);
    const struct share share = share_of(block, a.max_splits);
    if ((int)blockIdx.z >= share.n_splits)
        return;
    __syncthreads();
    int first_tile = share.first + blockIdx.z * share.tiles;
    block.begin = max(block.begin, first_tile * shape::keys);
    block.end = min(block.end, (first_tile + share.tiles) * shape::keys);
    int key = next_tile(block, (first_tile - 1) * shape::keys, shape::keys);

    if (group == 0) {
        wgmma_give_registers<BRINGING_REGISTERS>();
        bring_all<shape>(a, block, room, key);
    } else {
        wgmma_take_registers<MULTIPLYING_REGISTERS>();
        int first_row = threadIdx.x % GROUP / 32 * shape::warp_queries;
        int first = (group - 1) * shape::dim;
        const struct work w =
            work_of(a, s, blockIdx.x, first_query + first_row, shape::warp_queries);
        struct found<shape> f;

        attend_tiles<T>(a, block, w, room, memory, first_row, group, key, f);
        if (share.n_splits == 1)
            put(a, w, f, first);
        else
            hand_on(partial_at(a, item, blockIdx.x, blockIdx.z), w, first_row, first, f);
    }
#endif
}

/* A block has a query, a thread four of its numbers. */
static __global__ void __launch_bounds__(JOIN_THREADS)
    join_kernel(const __grid_constant__ attend_args a)
{
    __shared__ float factors[MAX_SPLITS], room[WARP];
    int item = blockIdx.y, query = blockIdx.z, first_query;
    float most = -INFINITY, sum = 0, log_sum;
    float4 acc = {};
    kv_sequence s;

    cuda_begin();
    const struct work w = find_work(a, item, blockIdx.x, &s, &first_query);
    int n = share_of(w, a.max_splits).n_splits;
    if (query >= w.n_queries || n == 1)
        return;
    const float *partial = partial_at(a, item, blockIdx.x, 0);
    for (int i = threadIdx.x; i < n; i += JOIN_THREADS)
        most = fmaxf(most, ((const float2 *)(partial + i * PARTIAL + 64 * V_DIM))[query].x);
    most = over_block(most, room, most_of());
    for (int i = threadIdx.x; i < n; i += JOIN_THREADS) {
        float2 soft = ((const float2 *)(partial + i * PARTIAL + 64 * V_DIM))[query];

        factors[i] = most == -INFINITY ? 0 : mma_exp2(soft.x - most);
        sum = fmaf(soft.y, factors[i], sum);
    }
    sum = over_block(sum, room, sum_of());
#pragma unroll 8
    for (int i = 0; i < n; i++) {
        float4 x = *((const float4 *)(partial + i * PARTIAL + query * V_DIM) + threadIdx.x);

        acc.x = fmaf(x.x, factors[i], acc.x), acc.y = fmaf(x.y, factors[i], acc.y);
        acc.z = fmaf(x.z, factors[i], acc.z), acc.w = fmaf(x.w, factors[i], acc.w);
    }
    int64_t row = w.row + (first_query + query) / a.group;
    int head = attend_head(a, w.kv_head, (first_query + query) % a.group);
    float factor = attend_finish(a, head, most, sum, &log_sum);
    float *y = row_at(a.y, row) + (int64_t)head * a.kv.v_dim + 4 * threadIdx.x;

    if (a.log_sums && threadIdx.x == 0)
        a.log_sums[row * a.log_stride + head] = log_sum;
    if (4 * (int)threadIdx.x < a.kv.v_dim) {
        y[0] = acc.x * factor, y[1] = acc.y * factor;
        y[2] = acc.z * factor, y[3] = acc.w * factor;
    }
}

/* --- Launching --- */

static void launch(struct cuda_device *c, struct attend_args *a, int n_items)
{
    int most = c->n_processors / (n_items * a->kv.n_kv_heads);
    struct cuda_shape shape_of_all = {dim3(a->kv.n_kv_heads, n_items), dim3(THREADS), shape::shared,
                                      true};

    a->max_splits = most < 1 ? 1 : most > MAX_SPLITS ? MAX_SPLITS : most;
    shape_of_all.grid.z = a->max_splits;
    if (a->max_splits > 1) {
        a->partials = (float *)cuda_scratch(c, (size_t)n_items * a->kv.n_kv_heads * a->max_splits *
                                                   PARTIAL * sizeof(float));
        if (!a->partials)
            return; /* and the failure is kept */
    }
    cuda_launch(c,
                a->kv.now.type == DTYPE_F16 ? latent_kernel<__half> : latent_kernel<__nv_bfloat16>,
                shape_of_all, *a);
    if (a->max_splits > 1)
        cuda_launch(
            c, join_kernel,
            shape_of(dim3(a->kv.n_kv_heads, n_items, shape::queries), dim3(JOIN_THREADS), 0), *a);
}

bool attend_latent_sm90(struct cuda_device *c, const struct attend_args *args,
                        const struct kv_batch *batch)
{
    struct attend_args a = *args;
    int64_t n = 0;

    a.most_queries = 0;
    if (!wgmma_built_for(c->arch) || c->shared_memory < shape::shared || !(a.scale > 0) ||
        a.kv.k_dim > K_DIM || a.kv.v_dim > V_DIM || a.kv.now.bits || a.kv.split || a.block_size)
        return false;
    for (int i = 0; i < batch->n_sequences; i++)
        n += attend_items(a, batch->sequences[i].n_rows, shape::queries, true);
    if (n > MAX_GRID_Y)
        return false;
    if (n > 0)
        launch(c, &a, (int)n);
    return true;
}
