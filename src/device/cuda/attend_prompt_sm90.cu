/* device/cuda/attend_prompt_sm90.cu: attention of many queries on Hopper, of heads of up to 256
 * numbers. Each of a block's two warpgroups that multiply has 64 queries. */
#include "device/cuda/attend_sm90.cuh"

template <typename T, int DIM>
static __global__ void __launch_bounds__(THREADS, 1)
    prompt_kernel(const __grid_constant__ attend_args a)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    typedef tile_shape<DIM, DIM, false> shape;
    extern __shared__ char memory[];
    const struct room room = room_at<shape>(memory);
    int group = threadIdx.x / GROUP, sequence, first_query;

    if (threadIdx.x == 0)
        open_barriers<shape>(room);
    cuda_begin();
    attend_find_item(a, gridDim.y - 1 - blockIdx.y, shape::queries, true, &sequence, &first_query);
    __syncthreads();
    const kv_sequence s = a.batch.sequences[sequence];
    const struct work block = work_of(a, s, blockIdx.x, first_query, shape::queries);
    int key = next_tile(block, (block.begin / shape::keys - 1) * shape::keys, shape::keys);

    if (group == 0) {
        wgmma_give_registers<BRINGING_REGISTERS>();
        bring_all<shape>(a, block, room, key);
    } else {
        wgmma_take_registers<MULTIPLYING_REGISTERS>();
        int first_row = (threadIdx.x - GROUP) / 32 * shape::warp_queries;
        const struct work w =
            work_of(a, s, blockIdx.x, first_query + first_row, shape::warp_queries);
        struct found<shape> f;

        attend_tiles<T>(a, block, w, room, memory, first_row, group, key, f);
        put(a, w, f, 0);
    }
#endif
}

/* --- Launching --- */

template <typename T, int DIM>
static bool launch(struct cuda_device *c, const struct attend_args *a, const struct kv_batch *batch)
{
    typedef tile_shape<DIM, DIM, false> shape;
    int64_t n = 0;

    if (c->shared_memory < shape::shared)
        return false;
    for (int i = 0; i < batch->n_sequences; i++)
        n += attend_items(*a, batch->sequences[i].n_rows, shape::queries, true);
    if (n > MAX_GRID_Y)
        return false;
    struct cuda_shape grid = {dim3(a->kv.n_kv_heads, (unsigned)n), dim3(THREADS), shape::shared,
                              true};
    cuda_launch(c, prompt_kernel<T, DIM>, grid, *a);
    return true;
}

template <typename T>
static bool launch_dim(struct cuda_device *c, const struct attend_args *a,
                       const struct kv_batch *batch)
{
    int dim = a->kv.k_dim > a->kv.v_dim ? a->kv.k_dim : a->kv.v_dim;

    return dim <= 64    ? launch<T, 64>(c, a, batch)
           : dim <= 128 ? launch<T, 128>(c, a, batch)
                        : launch<T, 256>(c, a, batch);
}

bool attend_prompt_sm90(struct cuda_device *c, const struct attend_args *a,
                        const struct kv_batch *batch)
{
    if (!wgmma_built_for(c->arch) || !(a->scale > 0) || a->kv.now.bits || a->kv.split ||
        a->block_size)
        return false;
    return a->kv.now.type == DTYPE_F16 ? launch_dim<__half>(c, a, batch)
                                       : launch_dim<__nv_bfloat16>(c, a, batch);
}
