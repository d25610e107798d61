/* device/cuda/attend_prompt.cu: attention of many queries, on the matrix unit.
 *
 * A block takes queries of a sequence that share a kv head, a row's heads and row after row, and
 * visits the keys that any of them sees in tiles, which come to shared memory while the tile before
 * is at work: as they lie, or as numbers where they are codes. A warp has 16 or 32 of the queries:
 *
 *     S [queries, keys] = q K^T      O [queries, dims] += P V        arXiv:2205.14135
 *
 * with mma.m16n8k16. Queries are rounded to the cache's type, after each was divided by a power of
 * two, so that none is out of f16's range. Rows of shared memory are cut into pieces of 16 bytes,
 * of which piece c of row r lies at c ^ r % 8, so that reads of a column meet no bank twice.
 */
#include "device/cuda/attend_rows.cuh"

enum { THREADS = 128, WARPS = THREADS / 32 };

/* Queries of a warp in sixteens, and keys at a time. */
template <int DIM> struct tile_shape {
    static const bool blocks = true;
    static const int dim = DIM, k_dim = DIM;
    static const int sixteens = DIM <= 128 ? 2 : 1, keys = DIM <= 128 ? 64 : 32;
    static const int warp_queries = 16 * sixteens, queries = WARPS * warp_queries;
    static const int row_bytes = 2 * DIM;
    /* Queries, two tiles of keys and values each, and where the blocks of two tiles lie. */
    static const int shared = (queries + 4 * keys) * row_bytes + 2 * keys * (int)sizeof(char *);

    /* Where piece c of row r lies. */
    static __device__ __forceinline__ uint32_t piece_at(int r, int c)
    {
        return (uint32_t)(r * row_bytes + ((c & ~7) | ((c ^ r) & 7)) * 16);
    }
};

/* --- A tile into shared memory --- */

/* Where the blocks of the keys [key, key + keys) lie, NULL of those that no query sees. */
template <int DIM>
static __device__ __forceinline__ void find_tile(const attend_args &a, const struct work &w,
                                                 int key, const char **blocks)
{
    int k = key + threadIdx.x;

    if (threadIdx.x >= tile_shape<DIM>::keys)
        return;
    const char *block = NULL;
    if (k >= w.begin && k < w.end && (k < w.hole || k >= w.hole_end)) {
        const struct cuda_pool &pool = pool_at(a.kv, k);
        int b = k >> a.block_shift;
        int id = __ldg(w.blocks + (b < w.n_kept ? b : b - w.n_gone));

        block =
            (const char *)__ldg((const unsigned long long *)pool.slabs + (id >> pool.slab_shift)) +
            (size_t)(id & ((1 << pool.slab_shift) - 1)) * pool.block_bytes;
    }
    blocks[threadIdx.x] = block;
}

/* Keys, or values, from the key on to room, those of codes too; 0 where nothing is to be seen. */
template <typename T, int DIM>
static __device__ void load_any(const attend_args &a, const struct work &w, bool values, int key,
                                const char *const *blocks, uint32_t room)
{
    const int pieces = DIM / 8, step = THREADS / pieces;
    int c = threadIdx.x % pieces;

    for (int r = threadIdx.x / pieces; r < tile_shape<DIM>::keys; r += step) {
        const struct cuda_pool &pool = pool_at(a.kv, key + r);
        const struct kv_part &part = values ? pool.values : pool.keys;
        int row = (w.kv_head << a.block_shift) + ((key + r) & (a.kv.block_tokens - 1));
        uint4 x = {};

        if (blocks[r] && 8 * c < part.dim) {
            const char *from = blocks[r] + part.rows + (size_t)row * part.row_bytes;

            x = pool.bits ? piece_of_codes<T>(pool, part, blocks[r], row, 8 * c)
                          : __ldg((const uint4 *)from + c);
        }
        asm volatile(
            "st.shared.v4.b32 [%0], {%1,%2,%3,%4};" ::"r"(room + tile_shape<DIM>::piece_at(r, c)),
            "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w)
            : "memory");
    }
}

/* The same where there are no codes. */
template <typename T, int DIM>
static __device__ __forceinline__ void load_numbers(const attend_args &a, const struct work &w,
                                                    bool values, int key, const char *const *blocks,
                                                    uint32_t room)
{
    const int pieces = DIM / 8, step = THREADS / pieces;
    int c = threadIdx.x % pieces, r = threadIdx.x / pieces;
    const struct kv_part &part = values ? a.kv.now.values : a.kv.now.keys;
    const char *nothing = (const char *)a.batch.sequences;
    size_t offset = part.rows + 16 * c;
    bool there = 8 * c < part.dim;

#pragma unroll
    for (int i = 0; i < tile_shape<DIM>::keys / step; i++, r += step) {
        const char *block = blocks[r];
        unsigned row =
            (unsigned)((w.kv_head << a.block_shift) + ((key + r) & (a.kv.block_tokens - 1)));

        mma_copy(room + tile_shape<DIM>::piece_at(r, c),
                 block && there ? block + offset + row * (unsigned)part.row_bytes : nothing,
                 block && there);
    }
}

/* Keys and values of a tile. */
template <typename T, int DIM>
static __device__ __forceinline__ void load_tile(const attend_args &a, const struct work &w,
                                                 int key, const char *const *blocks, uint32_t room)
{
    const uint32_t bytes = tile_shape<DIM>::keys * tile_shape<DIM>::row_bytes;

    if (a.kv.now.bits || a.kv.split) {
        load_any<T, DIM>(a, w, false, key, blocks, room);
        load_any<T, DIM>(a, w, true, key, blocks, room + bytes);
        return;
    }
    load_numbers<T, DIM>(a, w, false, key, blocks, room);
    load_numbers<T, DIM>(a, w, true, key, blocks, room + bytes);
    mma_close_copies();
}

/* --- Products --- */

template <typename T, int DIM>
static __device__ __forceinline__ void multiply_keys(struct scores<tile_shape<DIM>> &x,
                                                     uint32_t queries, int first_row, uint32_t keys)
{
    typedef tile_shape<DIM> shape;
    int lane = threadIdx.x % 32;

#pragma unroll
    for (int m = 0; m < shape::sixteens; m++)
#pragma unroll
        for (int n = 0; n < shape::keys / 8; n++)
            x.s[m][n][0] = x.s[m][n][1] = x.s[m][n][2] = x.s[m][n][3] = 0;
#pragma unroll
    for (int d = 0; d < DIM / 16; d++) {
        uint32_t q[shape::sixteens][4];

#pragma unroll
        for (int m = 0; m < shape::sixteens; m++)
            mma_load(q[m], queries + tile_shape<DIM>::piece_at(first_row + 16 * m + lane % 16,
                                                               2 * d + lane / 16));
#pragma unroll
        for (int n = 0; n < shape::keys / 16; n++) {
            uint32_t k[4];

            mma_load(k, keys + tile_shape<DIM>::piece_at(16 * n + lane / 16 * 8 + lane % 8,
                                                         2 * d + lane / 8 % 2));
#pragma unroll
            for (int m = 0; m < shape::sixteens; m++) {
                mma_16816<T>(x.s[m][2 * n], q[m][0], q[m][1], q[m][2], q[m][3], k[0], k[1]);
                mma_16816<T>(x.s[m][2 * n + 1], q[m][0], q[m][1], q[m][2], q[m][3], k[2], k[3]);
            }
        }
    }
}

template <typename T, int DIM>
static __device__ __forceinline__ void add_values(struct found<tile_shape<DIM>> &f,
                                                  const struct scores<tile_shape<DIM>> &x,
                                                  uint32_t values)
{
    typedef tile_shape<DIM> shape;
    int lane = threadIdx.x % 32;

#pragma unroll
    for (int n = 0; n < shape::keys / 16; n++) {
        uint32_t p[shape::sixteens][4];

#pragma unroll
        for (int m = 0; m < shape::sixteens; m++)
            pack_weights<T>(p[m], x, m, n);
#pragma unroll
        for (int d = 0; d < DIM / 16; d++) {
            uint32_t v[4];

            mma_load_transposed(
                v, values + tile_shape<DIM>::piece_at(16 * n + lane % 16, 2 * d + lane / 16));
#pragma unroll
            for (int m = 0; m < shape::sixteens; m++) {
                mma_16816<T>(f.acc[m][2 * d], p[m][0], p[m][1], p[m][2], p[m][3], v[0], v[1]);
                mma_16816<T>(f.acc[m][2 * d + 1], p[m][0], p[m][1], p[m][2], p[m][3], v[2], v[3]);
            }
        }
    }
}

/* --- The kernel --- */

template <typename T, int DIM>
static __global__ void __launch_bounds__(THREADS)
    prompt_kernel(const __grid_constant__ attend_args a)
{
    typedef tile_shape<DIM> shape;
    extern __shared__ __align__(128) char room[];
    uint32_t queries = (uint32_t)__cvta_generic_to_shared(room);
    uint32_t tiles = queries + shape::queries * shape::row_bytes;
    const uint32_t tile_bytes = shape::keys * shape::row_bytes;
    int first_row = threadIdx.x / 32 * shape::warp_queries, sequence, first_query;
    float factors[shape::sixteens][2], old[shape::sixteens][2];
    struct found<tile_shape<DIM>> f;

    cuda_begin();
    attend_find_item(a, gridDim.y - 1 - blockIdx.y, shape::queries, true, &sequence, &first_query);
    const kv_sequence s = a.batch.sequences[sequence];
    const struct work block = work_of(a, s, blockIdx.x, first_query, shape::queries);
    const struct work w = work_of(a, s, blockIdx.x, first_query + first_row, shape::warp_queries);
    const char **blocks = (const char **)(room + shape::shared) - 2 * shape::keys;
    int key = next_tile(block, (block.begin / shape::keys - 1) * shape::keys, shape::keys);
    int next = next_tile(block, key, shape::keys), stage = 0;

    find_tile<DIM>(a, block, key, blocks);
    find_tile<DIM>(a, block, next, blocks + shape::keys);
    __syncthreads();
    load_tile<T, DIM>(a, block, key, blocks, tiles);
    put_queries<T, shape>(a, w, room, first_row, true, factors);
    begin(f);
    for (; key < block.end; stage ^= 1) {
        int after = next_tile(block, next, shape::keys);
        uint32_t keys = tiles + 2 * stage * tile_bytes;
        struct scores<tile_shape<DIM>> x;

        mma_wait_copies<0>();
        __syncthreads();
        if (next < block.end) {
            load_tile<T, DIM>(a, block, next, blocks + (stage ^ 1) * shape::keys,
                              tiles + 2 * (stage ^ 1) * tile_bytes);
            find_tile<DIM>(a, block, after, blocks + stage * shape::keys);
        }
        if (key < w.end && key + shape::keys > w.begin) {
            multiply_keys<T>(x, queries, first_row, keys);
            weigh(x, a, w, factors, key, f, old);
            rescale(f, old);
            add_values<T>(f, x, keys + tile_bytes);
        }
        key = next;
        next = after;
    }
    put(a, w, f, 0);
}

/* --- Launching --- */

template <typename T, int DIM>
static bool launch(struct cuda_device *c, const struct attend_args *a, const struct kv_batch *batch)
{
    int64_t n = 0;

    if (c->shared_memory < tile_shape<DIM>::shared)
        return false;
    for (int i = 0; i < batch->n_sequences; i++)
        n += attend_items(*a, batch->sequences[i].n_rows, tile_shape<DIM>::queries, true);
    if (n > MAX_GRID_Y)
        return false;
    struct cuda_shape shape = {dim3(a->kv.n_kv_heads, (unsigned)n), dim3(THREADS),
                               tile_shape<DIM>::shared, true};
    cuda_launch(c, prompt_kernel<T, DIM>, shape, *a);
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

bool attend_prompt(struct cuda_device *c, const struct attend_args *a, const struct kv_batch *batch)
{
    return a->scale > 0 && (a->kv.now.type == DTYPE_F16 ? launch_dim<__half>(c, a, batch)
                                                        : launch_dim<__nv_bfloat16>(c, a, batch));
}
