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
#include "device/cuda/attend.cuh"

#include "device/cuda/mma.cuh"

enum { THREADS = 128, WARPS = THREADS / 32 };

/* Queries of a warp in sixteens, and keys at a time. */
template <int DIM> struct tile_shape {
    static const int sixteens = DIM <= 128 ? 2 : 1, keys = DIM <= 128 ? 64 : 32;
    static const int warp_queries = 16 * sixteens, queries = WARPS * warp_queries;
    static const int row_bytes = 2 * DIM;
    /* Queries, two tiles of keys and values each, and where the blocks of two tiles lie. */
    static const int shared = (queries + 4 * keys) * row_bytes + 2 * keys * (int)sizeof(char *);
};

/* Where piece c of row r lies. */
template <int DIM> static __device__ __forceinline__ uint32_t piece_at(int r, int c)
{
    return (uint32_t)(r * 2 * DIM + ((c & ~7) | ((c ^ r) & 7)) * 16);
}

/* What a block, or a warp of it, does: the queries of a sequence from the first on. */
struct work {
    const int32_t *blocks; /* of the sequence */
    int n_kept, n_gone, position, row;
    int kv_head;
    int first_query, n_queries;
    int begin, end, hole, hole_end; /* keys that any sees: [begin, end) but [hole, hole_end) */
    int plain_from, plain_to, unplain_to; /* that all see: [plain_from, plain_to) but [hole,
                                             unplain_to) */
};

static __device__ __forceinline__ struct work work_of(const attend_args &a, const kv_sequence &s,
                                                      int kv_head, int first_query, int n)
{
    struct work w;

    w.blocks = s.blocks;
    w.n_kept = s.n_kept;
    w.n_gone = s.n_gone;
    w.position = s.position;
    w.row = s.row;
    w.kv_head = kv_head;
    w.first_query = first_query;
    w.n_queries = max(0, min(n, s.n_rows * a.group - first_query));
    int p = s.position + first_query / a.group;
    int last = s.position + (first_query + max(w.n_queries, 1) - 1) / a.group;
    int held = attend_held(a, s.n_kept, s.n_gone);
    struct cuda_sight sight = attend_sight(a, held, p), of_last = attend_sight(a, held, last);
    w.begin = sight.first;
    w.end = w.n_queries ? last + 1 : 0;
    w.hole = sight.hole;
    w.hole_end = sight.hole_end;
    w.plain_from = of_last.first;
    w.plain_to = p + 1;
    w.unplain_to = of_last.hole_end;
    return w;
}

/* --- A tile into shared memory --- */

/* Pieces of 8 numbers from codes. */
template <typename T>
static __device__ __forceinline__ uint4 piece_of_codes(const struct cuda_pool &pool,
                                                       const struct kv_part &part,
                                                       const char *block, int row, int i)
{
    const char *codes = block + part.rows + (size_t)row * part.row_bytes;
    size_t group = (size_t)row * part.group_bytes + (size_t)(i / pool.group_size) * 2;
    uint16_t scale = __ldg((const uint16_t *)(block + part.scales + group));
    uint16_t bias = __ldg((const uint16_t *)(block + part.biases + group));
    uint32_t x[4];

    if (pool.bits == 8) {
        uint2 c = __ldg((const uint2 *)(codes + i));

        x[0] = mma_from_bytes<T>(c.x, 0, scale, bias);
        x[1] = mma_from_bytes<T>(c.x, 1, scale, bias);
        x[2] = mma_from_bytes<T>(c.y, 0, scale, bias);
        x[3] = mma_from_bytes<T>(c.y, 1, scale, bias);
    } else {
        uint32_t c = __ldg((const uint32_t *)(codes + i / 2)), y[4];

#pragma unroll
        for (int j = 0; j < 4; j++)
            y[j] = mma_from_nibbles<T>(c >> 4 * j, scale, bias);
        x[0] = __byte_perm(y[0], y[1], 0x5410);
        x[1] = __byte_perm(y[2], y[3], 0x5410);
        x[2] = __byte_perm(y[0], y[1], 0x7632);
        x[3] = __byte_perm(y[2], y[3], 0x7632);
    }
    return make_uint4(x[0], x[1], x[2], x[3]);
}

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
        asm volatile("st.shared.v4.b32 [%0], {%1,%2,%3,%4};" ::"r"(room + piece_at<DIM>(r, c)),
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

        mma_copy(room + piece_at<DIM>(r, c),
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

/* --- Queries --- */

/* The warp's queries go to shared memory; factors: by what scores are multiplied, of rows g and g +
 * 8 of each sixteen. */
template <typename T, int DIM>
static __device__ __forceinline__ void put_queries(const attend_args &a, const struct work &w,
                                                   char *room, int first_row,
                                                   float (&factors)[tile_shape<DIM>::sixteens][2])
{
    const int n = tile_shape<DIM>::warp_queries, per_lane = DIM / 32;
    int lane = threadIdx.x % 32, g = lane / 4, mine = 0;

#pragma unroll 4
    for (int i = 0; i < n; i++) {
        int query = w.first_query + i;
        float x[per_lane], most = 0;
        T y[per_lane];
        bool there = i < w.n_queries;
        const float *q =
            row_at(a.q, w.row + (there ? query / a.group : 0)) +
            (int64_t)attend_head(a, w.kv_head, there ? query % a.group : 0) * a.kv.k_dim;

#pragma unroll
        for (int j = 0; j < per_lane; j++) {
            int d = lane * per_lane + j;

            x[j] = there && d < a.kv.k_dim ? q[d] : 0;
            most = fmaxf(most, fabsf(x[j]));
        }
        int e = std::is_same<T, __half>::value ? mma_exponent(mma_warp_max(most)) : 0;
#pragma unroll
        for (int j = 0; j < per_lane; j++)
            y[j] = mma_round<T>(x[j] * mma_power(-e));
        memcpy(room + piece_at<DIM>(first_row + i, lane * per_lane / 8) +
                   lane * per_lane % 8 * sizeof(T),
               y, sizeof y);
        if (lane == i)
            mine = e;
    }
    float scale = a.softcap > 0 ? a.scale / a.softcap : a.scale * LOG2_E;
#pragma unroll
    for (int m = 0; m < tile_shape<DIM>::sixteens; m++)
#pragma unroll
        for (int half = 0; half < 2; half++)
            factors[m][half] =
                scale * mma_power(__shfl_sync(0xffffffffu, mine, 16 * m + 8 * half + g));
}

/* --- Scores --- */

template <int DIM> struct scores {
    float s[tile_shape<DIM>::sixteens][tile_shape<DIM>::keys / 8][4];
};

template <typename T, int DIM>
static __device__ __forceinline__ void multiply_keys(struct scores<DIM> &x, uint32_t queries,
                                                     int first_row, uint32_t keys)
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
            mma_load(q[m],
                     queries + piece_at<DIM>(first_row + 16 * m + lane % 16, 2 * d + lane / 16));
#pragma unroll
        for (int n = 0; n < shape::keys / 16; n++) {
            uint32_t k[4];

            mma_load(k,
                     keys + piece_at<DIM>(16 * n + lane / 16 * 8 + lane % 8, 2 * d + lane / 8 % 2));
#pragma unroll
            for (int m = 0; m < shape::sixteens; m++) {
                mma_16816<T>(x.s[m][2 * n], q[m][0], q[m][1], q[m][2], q[m][3], k[0], k[1]);
                mma_16816<T>(x.s[m][2 * n + 1], q[m][0], q[m][1], q[m][2], q[m][3], k[2], k[3]);
            }
        }
    }
}

/* Does a query see a key? For calls that choose keys one by one. */
static __device__ __noinline__ bool query_sees(const attend_args &a, int held, int64_t row, int p,
                                               int head, int key)
{
    return attend_sees(a, attend_sight(a, held, p), row, p, head, key);
}

/* Hides what queries do not see; key: the tile's first. */
template <int DIM>
static __device__ __forceinline__ void hide(struct scores<DIM> &x, const attend_args &a,
                                            const struct work &w, int key)
{
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    int held = attend_held(a, w.n_kept, w.n_gone);
    bool choosy = a.kept || a.block_size;

#pragma unroll
    for (int m = 0; m < tile_shape<DIM>::sixteens; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int query = w.first_query + min(16 * m + 8 * half + g, w.n_queries - 1);
            int row = query / a.group, p = w.position + row;
            int head = attend_head(a, w.kv_head, query % a.group);
            struct cuda_sight sight = attend_sight(a, held, p);

#pragma unroll
            for (int n = 0; n < tile_shape<DIM>::keys / 8; n++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    int k = key + 8 * n + 2 * t + i;

                    if (k < sight.first || k > p || (k >= sight.hole && k < sight.hole_end) ||
                        (choosy && !query_sees(a, held, w.row + row, p, head, k)))
                        x.s[m][n][2 * half + i] = -INFINITY;
                }
        }
}

/* Softcaps and slopes: scores as they go into the softmax, for which the factors then are 1. */
template <int DIM>
static __device__ __forceinline__ void
shape_scores(struct scores<DIM> &x, const attend_args &a, const struct work &w,
             const float (&factors)[tile_shape<DIM>::sixteens][2], int key)
{
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;

#pragma unroll
    for (int m = 0; m < tile_shape<DIM>::sixteens; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int query = w.first_query + min(16 * m + 8 * half + g, w.n_queries - 1);
            int ahead = key + 2 * t - w.position - query / a.group;
            float slope = 0;

            if (a.slopes)
                slope = __ldg(a.slopes + attend_head(a, w.kv_head, query % a.group)) * LOG2_E;
#pragma unroll
            for (int n = 0; n < tile_shape<DIM>::keys / 8; n++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    float s = x.s[m][n][2 * half + i] * factors[m][half];

                    if (a.softcap > 0)
                        s = a.softcap * LOG2_E * mma_tanh(s);
                    x.s[m][n][2 * half + i] = fmaf(slope, (float)(ahead + 8 * n + i), s);
                }
        }
}

/* --- What a warp has found --- */

template <int DIM> struct found {
    float acc[tile_shape<DIM>::sixteens][DIM / 8][4];
    float max[tile_shape<DIM>::sixteens][2], sum[tile_shape<DIM>::sixteens][2];
};

/* Scores times factors become weights; the sums so far are brought to the new max. */
template <int DIM>
static __device__ __forceinline__ void soften(struct scores<DIM> &x,
                                              const float (&factors)[tile_shape<DIM>::sixteens][2],
                                              struct found<DIM> &f)
{
#pragma unroll
    for (int m = 0; m < tile_shape<DIM>::sixteens; m++) {
        float old[2];

#pragma unroll
        for (int half = 0; half < 2; half++) {
            float most = -INFINITY, sum = 0, factor = factors[m][half];

#pragma unroll
            for (int n = 0; n < tile_shape<DIM>::keys / 8; n++)
                most = fmaxf(most, fmaxf(x.s[m][n][2 * half], x.s[m][n][2 * half + 1]));
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
            most = fmaxf(f.max[m][half], most * factor);
            float base = most == -INFINITY ? 0 : most;
            old[half] = mma_exp2(f.max[m][half] - base);
            f.max[m][half] = most;
#pragma unroll
            for (int n = 0; n < tile_shape<DIM>::keys / 8; n++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    float p = mma_exp2(fmaf(x.s[m][n][2 * half + i], factor, -base));

                    x.s[m][n][2 * half + i] = p;
                    sum += p;
                }
            f.sum[m][half] = fmaf(f.sum[m][half], old[half], sum);
        }
        if (__any_sync(0xffffffffu, old[0] != 1 || old[1] != 1)) {
#pragma unroll
            for (int d = 0; d < DIM / 8; d++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    f.acc[m][d][i] *= old[i / 2];
        }
    }
}

template <typename T, int DIM>
static __device__ __forceinline__ void add_values(struct found<DIM> &f, const struct scores<DIM> &x,
                                                  uint32_t values)
{
    typedef tile_shape<DIM> shape;
    int lane = threadIdx.x % 32;

#pragma unroll
    for (int n = 0; n < shape::keys / 16; n++) {
        uint32_t p[shape::sixteens][4];

#pragma unroll
        for (int m = 0; m < shape::sixteens; m++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float *s = x.s[m][2 * n + i / 2] + 2 * (i % 2);

                p[m][i] = mma_pack<T>(s[0], s[1]);
            }
#pragma unroll
        for (int d = 0; d < DIM / 16; d++) {
            uint32_t v[4];

            mma_load_transposed(v, values + piece_at<DIM>(16 * n + lane % 16, 2 * d + lane / 16));
#pragma unroll
            for (int m = 0; m < shape::sixteens; m++) {
                mma_16816<T>(f.acc[m][2 * d], p[m][0], p[m][1], p[m][2], p[m][3], v[0], v[1]);
                mma_16816<T>(f.acc[m][2 * d + 1], p[m][0], p[m][1], p[m][2], p[m][3], v[2], v[3]);
            }
        }
    }
}

template <int DIM>
static __device__ __forceinline__ void put(const attend_args &a, const struct work &w,
                                           struct found<DIM> &f)
{
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;

#pragma unroll
    for (int m = 0; m < tile_shape<DIM>::sixteens; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int i = 16 * m + 8 * half + g, query = w.first_query + i;
            float sum = f.sum[m][half], log_sum;

            sum += __shfl_xor_sync(0xffffffffu, sum, 1);
            sum += __shfl_xor_sync(0xffffffffu, sum, 2);
            if (i >= w.n_queries)
                continue;
            int64_t row = w.row + query / a.group;
            int head = attend_head(a, w.kv_head, query % a.group);
            float factor = attend_finish(a, head, f.max[m][half], sum, &log_sum);
            float *y = row_at(a.y, row) + (int64_t)head * a.kv.v_dim;

            if (a.log_sums && t == 0)
                a.log_sums[row * a.log_stride + head] = log_sum;
#pragma unroll
            for (int d = 0; d < DIM / 8; d++)
                if (8 * d < a.kv.v_dim) {
                    y[8 * d + 2 * t] = f.acc[m][d][2 * half] * factor;
                    y[8 * d + 2 * t + 1] = f.acc[m][d][2 * half + 1] * factor;
                }
        }
}

/* --- The kernel --- */

/* The tile after one that begins at key; those within the hole are left out. */
static __device__ __forceinline__ int next_tile(const struct work &w, int key, int keys)
{
    key += keys;
    return key >= w.hole && key + keys <= w.hole_end ? w.hole_end / keys * keys : key;
}

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
    float factors[shape::sixteens][2], ones[shape::sixteens][2];
    struct found<DIM> f;

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
    put_queries<T, DIM>(a, w, room, first_row, factors);
#pragma unroll
    for (int m = 0; m < shape::sixteens; m++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            f.max[m][i % 2] = -INFINITY;
            f.sum[m][i % 2] = 0;
            ones[m][i % 2] = 1;
#pragma unroll
            for (int d = 0; d < DIM / 8; d++)
                f.acc[m][d][i] = 0;
        }
    for (; key < block.end; stage ^= 1) {
        int after = next_tile(block, next, shape::keys);
        uint32_t keys = tiles + 2 * stage * tile_bytes;
        struct scores<DIM> x;

        mma_wait_copies<0>();
        __syncthreads();
        if (next < block.end) {
            load_tile<T, DIM>(a, block, next, blocks + (stage ^ 1) * shape::keys,
                              tiles + 2 * (stage ^ 1) * tile_bytes);
            find_tile<DIM>(a, block, after, blocks + stage * shape::keys);
        }
        if (key < w.end && key + shape::keys > w.begin) {
            multiply_keys<T>(x, queries, first_row, keys);
            bool shaped = a.softcap > 0 || a.slopes;
            if (shaped)
                shape_scores(x, a, w, factors, key);
            if (a.kept || a.block_size || key < w.plain_from || key + shape::keys > w.plain_to ||
                (key + shape::keys > w.hole && key < w.unplain_to))
                hide(x, a, w, key);
            soften(x, shaped ? ones : factors, f);
            add_values<T>(f, x, keys + tile_bytes);
        }
        key = next;
        next = after;
    }
    put(a, w, f);
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
