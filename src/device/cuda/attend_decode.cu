/* device/cuda/attend_decode.cu: attention of few queries to many keys, at the memory's speed.
 *
 * The queries of a sequence that share a kv head, a row's heads and row after row, are taken 8 or
 * 16 at a time; their keys are split among blocks, and what the blocks find is put together in
 * order: of up to eight, which are a cluster, by the first, in shared memory; of more by the block
 * that ends last. How many blocks have work follows from the length of the sequence, which is read
 * on the device.
 *
 * Each warp takes tiles of 16 keys and computes, with mma.m16n8k16,
 *
 *     S^T [16 keys, queries] = K q^T      O^T [dims, queries] += V^T P^T
 *
 * so that keys and values go from the cache into the registers of the matrix unit as they lie, 16
 * bytes per load: numbers along a sum may come in any order as long as both sides agree, and so may
 * the dims of O. Of a key row the lane with (lane % 4) t holds the numbers [8 t, 8 t + 8) of each
 * 32 (codes: [16 t, 16 t + 16) of each 64), of value rows 2 t, 2 t + 1, 2 t + 8 and 2 t + 9 the
 * lane with (lane / 4) g the numbers [8 g, 8 g + 8) of each 64.
 *
 * Queries are two numbers of the cache's type each, high and low, which makes scores as good as
 * f32; each query is first divided by a power of two, so that none is out of f16's range.
 */
#include "device/cuda/attend_join.cuh"
#include "device/cuda/attend_ring.cuh"

/* --- Queries in shared memory --- */

/* Rows apart so that 16-byte reads of a warp meet no bank twice. */
template <int BITS, int DIM> struct query_row {
    static const int size = DIM + (BITS ? 8 : 32);
};

/* Puts the queries [8 NQ, DIM] high and low, in the order in which the keys' numbers come, and the
 * factors [8 NQ] by which scores must be multiplied. */
template <typename T, int BITS, int DIM, int NQ>
static __device__ void put_queries(const attend_args &a, const struct work &w, T *high, T *low,
                                   float *factors)
{
    int lane = threadIdx.x % 32;
    float scale = a.softcap > 0 ? a.scale / a.softcap : a.scale * LOG2_E;

#pragma unroll 2
    for (int i = threadIdx.x / 32; i < 8 * NQ; i += WARPS) {
        float x[DIM / 32], most = 0;
        const float *q = i < w.n_queries ? row_at(a.q, w.row + row_of(a, w, i)) +
                                               (int64_t)head_of(a, w, i) * a.kv.k_dim
                                         : NULL;

#pragma unroll
        for (int j = 0; j < DIM / 32; j++) {
            x[j] = q && lane + 32 * j < a.kv.k_dim ? q[lane + 32 * j] : 0;
            most = fmaxf(most, fabsf(x[j]));
        }
        int e = mma_exponent(mma_warp_max(most));
#pragma unroll
        for (int j = 0; j < DIM / 32; j++) {
            int d = lane + 32 * j;
            int to = BITS == 4 ? d / 8 * 8 + d % 4 * 2 + d % 8 / 4 : d;
            float y = x[j] * mma_power(-e);
            T h = mma_round<T>(y);

            high[i * query_row<BITS, DIM>::size + to] = h;
            low[i * query_row<BITS, DIM>::size + to] = mma_round<T>(y - mma_float(h));
        }
        if (lane == 0)
            factors[i] = scale * mma_power(e);
    }
}

/* --- Tiles --- */

/* High and low products are summed up apart, so that one need not wait for the other. */
template <typename T, int BITS, int DIM, int NQ>
static __device__ __forceinline__ void
multiply_keys(float (&s)[NQ][4], const raw_keys<BITS, DIM> &k, const T *high, const T *low)
{
    const int steps = span<BITS>::steps;
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    float sums[2][NQ][4] = {};

#pragma unroll
    for (int i = 0; i < DIM / 16 / steps; i++) {
        uint32_t x[2][2 * steps];

        key_numbers<T>(x[0], k, i, 0);
        key_numbers<T>(x[1], k, i, 1);
#pragma unroll
        for (int n = 0; n < NQ; n++)
#pragma unroll
            for (int part = 0; part < 2; part++) {
                const uint4 *q =
                    (const uint4 *)((part ? low : high) + (8 * n + g) * query_row<BITS, DIM>::size +
                                    16 * steps * i + 4 * steps * t);
                uint32_t y[2 * steps];

#pragma unroll
                for (int j = 0; j < steps / 2; j++) {
                    uint4 from = q[j];

                    y[4 * j] = from.x, y[4 * j + 1] = from.y;
                    y[4 * j + 2] = from.z, y[4 * j + 3] = from.w;
                }
#pragma unroll
                for (int j = 0; j < steps; j++)
                    mma_16816<T>(sums[part][n], x[0][2 * j], x[1][2 * j], x[0][2 * j + 1],
                                 x[1][2 * j + 1], y[2 * j], y[2 * j + 1]);
            }
    }
#pragma unroll
    for (int n = 0; n < NQ; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            s[n][i] = sums[0][n][i] + sums[1][n][i];
}

/* Which of the lane's two keys, key + g and key + g + 8, the row sees at p: bits 0 and 1. */
static __device__ __noinline__ unsigned seen_keys(const attend_args &a, int held, int64_t row,
                                                  int p, int head, int key)
{
    struct cuda_sight sight = attend_sight(a, held, p);
    int k = key + threadIdx.x % 32 / 4;
    unsigned seen = attend_sees(a, sight, row, p, head, k);

    return seen | (unsigned)attend_sees(a, sight, row, p, head, k + 8) << 1;
}

/* Hides what a query does not see. */
template <int NQ>
static __device__ __forceinline__ void hide(float (&s)[NQ][4], const attend_args &a,
                                            const struct work &w, int key)
{
    int t = threadIdx.x % 4, held = attend_held(a, w.n_kept, w.n_gone);

#pragma unroll
    for (int n = 0; n < NQ; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int query = min(8 * n + 2 * t + i, w.n_queries - 1), row = row_of(a, w, query);
            unsigned seen =
                seen_keys(a, held, w.row + row, w.position + row, head_of(a, w, query), key);

            s[n][i] = seen & 1 ? s[n][i] : -INFINITY;
            s[n][i + 2] = seen & 2 ? s[n][i + 2] : -INFINITY;
        }
}

/* The same of the row that there is, where that is all: the lane's keys at or behind the end. */
template <int NQ>
static __device__ __forceinline__ void hide_late(float (&s)[NQ][4], int key, int end)
{
#pragma unroll
    for (int n = 0; n < NQ; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            s[n][i] = key + i / 2 * 8 < end ? s[n][i] : -INFINITY;
}

template <int NQ>
static __device__ __forceinline__ void shape_scores(float (&s)[NQ][4], const attend_args &a,
                                                    const struct work &w,
                                                    const float (&factors)[NQ][2], int key)
{
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;

#pragma unroll
    for (int n = 0; n < NQ; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            s[n][i] *= factors[n][i % 2];
    if (a.softcap > 0) {
#pragma unroll
        for (int n = 0; n < NQ; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                s[n][i] = a.softcap * LOG2_E * mma_tanh(s[n][i]);
    }
    if (a.slopes) {
#pragma unroll
        for (int n = 0; n < NQ; n++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                int query = min(8 * n + 2 * t + i, w.n_queries - 1);
                float slope = __ldg(a.slopes + head_of(a, w, query)) * LOG2_E;
                int ahead = key + g - w.position - row_of(a, w, query);

                s[n][i] = fmaf(slope, (float)ahead, s[n][i]);
                s[n][i + 2] = fmaf(slope, (float)(ahead + 8), s[n][i + 2]);
            }
    }
}

/* s becomes 2^(s - max); the sums so far are brought to the new max. */
template <int DIM, int NQ>
static __device__ __forceinline__ void soften(float (&s)[NQ][4], struct found<DIM, NQ> &f)
{
#pragma unroll
    for (int n = 0; n < NQ; n++) {
        float factor[2];

#pragma unroll
        for (int i = 0; i < 2; i++) {
            float most = fmaxf(s[n][i], s[n][i + 2]);

            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 4));
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 8));
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 16));
            most = fmaxf(most, f.max[n][i]);
            float base = most == -INFINITY ? 0 : most;
            factor[i] = mma_exp2(f.max[n][i] - base);
            s[n][i] = mma_exp2(s[n][i] - base);
            s[n][i + 2] = mma_exp2(s[n][i + 2] - base);
            f.sum[n][i] = fmaf(f.sum[n][i], factor[i], s[n][i] + s[n][i + 2]);
            f.max[n][i] = most;
        }
        if (__any_sync(0xffffffffu, factor[0] != 1 || factor[1] != 1)) {
#pragma unroll
            for (int m = 0; m < DIM / 16; m++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    f.acc[m][n][i] *= factor[i % 2];
        }
    }
}

template <typename T, int BITS, int DIM, int NQ>
static __device__ __forceinline__ void add_values(struct found<DIM, NQ> &f, const float (&s)[NQ][4],
                                                  const raw_values<BITS, DIM> &v)
{
    uint32_t p[NQ][2];

#pragma unroll
    for (int n = 0; n < NQ; n++) {
        p[n][0] = mma_transpose(mma_pack<T>(s[n][0], s[n][1]));
        p[n][1] = mma_transpose(mma_pack<T>(s[n][2], s[n][3]));
    }
#pragma unroll
    for (int c = 0; c < DIM / 64; c++) {
        uint32_t x[8], y[8];

        value_pairs<T>(x, v, c, 0);
        value_pairs<T>(y, v, c, 2);
#pragma unroll
        for (int m = 0; m < 4; m++)
#pragma unroll
            for (int n = 0; n < NQ; n++)
                mma_16816<T>(f.acc[4 * c + m][n], x[2 * m], x[2 * m + 1], y[2 * m], y[2 * m + 1],
                             p[n][0], p[n][1]);
    }
}

/* A block, and in it the row of a tile's first key. */
struct tile_place {
    const char *block;
    int key, row;
};

static __device__ __forceinline__ struct tile_place place_of(const attend_args &a,
                                                             const struct cuda_pool &pool,
                                                             const struct work &w,
                                                             const struct tiles &t, int i)
{
    int key = tile_number(t, i) * TILE, b = key >> a.block_shift;
    int id = __ldg(w.blocks + (b < w.n_kept ? b : b - w.n_gone));
    const char *slab =
        (const char *)__ldg((const unsigned long long *)pool.slabs + (id >> pool.slab_shift));

    return {slab + (size_t)(id & ((1 << pool.slab_shift) - 1)) * pool.block_bytes, key,
            (w.kv_head << a.block_shift) + (key & (a.kv.block_tokens - 1))};
}

template <int DIM, int NQ> static __device__ __forceinline__ void begin(struct found<DIM, NQ> &f)
{
#pragma unroll
    for (int n = 0; n < NQ; n++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            f.max[n][j % 2] = -INFINITY;
            f.sum[n][j % 2] = 0;
#pragma unroll
            for (int m = 0; m < DIM / 16; m++)
                f.acc[m][n][j] = 0;
        }
}

template <int NQ>
static __device__ __forceinline__ void take_factors(float (&factors)[NQ][2], const float *from)
{
    __syncthreads();
#pragma unroll
    for (int n = 0; n < NQ; n++)
#pragma unroll
        for (int j = 0; j < 2; j++)
            factors[n][j] = from[8 * n + threadIdx.x % 4 * 2 + j];
}

/* Scores of a tile that begins at key become weights. */
template <int DIM, int NQ>
static __device__ __forceinline__ void weigh(float (&s)[NQ][4], struct found<DIM, NQ> &f,
                                             const attend_args &a, const struct work &w,
                                             const float (&factors)[NQ][2], int key)
{
    bool late = key + TILE > w.plain_to;

    shape_scores(s, a, w, factors, key);
    if (a.kept || a.block_size || key < w.plain_from || (late && !w.one_row) ||
        (key + TILE > w.hole && key < w.unplain_to))
        hide(s, a, w, key);
    else if (late)
        hide_late(s, key + threadIdx.x % 32 / 4, w.plain_to);
    soften(s, f);
}

/* Where queries lie in shared memory. */
template <typename T> struct rooms {
    T *high, *low;
    float *factors;
};

/* What this warp finds in its share of the tiles [first, end), which lie in one pool. Where tiles
 * lie is known one ahead of what is read, and of the first before anything is waited for. */
template <typename T, int BITS, int DIM, int NQ>
static __device__ __forceinline__ void visit(const attend_args &a, const struct cuda_pool &pool,
                                             const struct work &w, const struct tiles &t, int first,
                                             int end, const struct rooms<T> &room,
                                             struct found<DIM, NQ> &f)
{
    int i = first + threadIdx.x / 32, group_shift = BITS ? 31 - __clz(pool.group_size) : 0;
    raw_keys<BITS, DIM> k = {};
    raw_values<BITS, DIM> v = {};
    struct tile_place next = {};
    float factors[NQ][2];

    if (i < end)
        next = place_of(a, pool, w, t, i);
    cuda_wait();
    if (i < end) {
        load_keys(k, pool.keys, next.block, next.row, group_shift);
        load_values(v, pool.values, next.block, next.row, group_shift, w, next.key);
    }
    if (i + WARPS < end)
        next = place_of(a, pool, w, t, i + WARPS);
    put_queries<T, BITS, DIM, NQ>(a, w, room.high, room.low, room.factors);
    take_factors(factors, room.factors);
    for (; i < end; i += WARPS) {
        struct tile_place at = next;
        float s[NQ][4];

        multiply_keys<T>(s, k, room.high, room.low);
        if (i + WARPS < end)
            load_keys(k, pool.keys, at.block, at.row, group_shift);
        if (i + 2 * WARPS < end)
            next = place_of(a, pool, w, t, i + 2 * WARPS);
        weigh(s, f, a, w, factors, tile_number(t, i) * TILE);
        add_values<T>(f, s, v);
        if (i + WARPS < end)
            load_values(v, pool.values, at.block, at.row, group_shift, w, at.key);
    }
}

/* The same of tiles that come by way of a ring. early: those of keys before the batch's own may be
 * asked for before anything is waited for. */
template <typename T, int DIM, int NQ>
static __device__ __forceinline__ void
visit_ring(const attend_args &a, const struct cuda_pool &pool, const struct work &w,
           const struct tiles &t, int first, int end, const struct rooms<T> &room, bool early,
           struct found<DIM, NQ> &f)
{
#if __CUDA_ARCH__ >= 900
    const struct ring<DIM> r(threadIdx.x / 32);
    int i = first + threadIdx.x / 32;
    struct tile_place asked = {}, next = {}; /* of the tile whose keys alone are on their way, and
                                                of the one behind it */
    float factors[NQ][2];

    r.open();
    for (int n = 0; n < RING_KEYS && i + n * WARPS < end; n++) {
        asked = place_of(a, pool, w, t, i + n * WARPS);
        if (!early || asked.key + TILE > w.position)
            cuda_wait();
        r.ask_keys(pool.keys, asked.block, asked.row, n);
        if (n == 0)
            r.ask_values(pool.values, asked.block, asked.row);
    }
    if (i + RING_KEYS * WARPS < end)
        next = place_of(a, pool, w, t, i + RING_KEYS * WARPS);
    cuda_wait();
    put_queries<T, 0, DIM, NQ>(a, w, room.high, room.low, room.factors);
    take_factors(factors, room.factors);
    for (int n = 0; i < end; i += WARPS, n++) {
        int key = tile_number(t, i) * TILE;
        raw_keys<0, DIM> k = {};
        raw_values<0, DIM> v = {};
        float s[NQ][4];

        r.keys(k, pool.keys, n);
        multiply_keys<T>(s, k, room.high, room.low);
        __syncwarp();
        if (i + RING_KEYS * WARPS < end)
            r.ask_keys(pool.keys, next.block, next.row, n + RING_KEYS);
        weigh(s, f, a, w, factors, key);
        r.values(v, pool.values, w, key, n);
        add_values<T>(f, s, v);
        __syncwarp();
        if (i + WARPS < end)
            r.ask_values(pool.values, asked.block, asked.row);
        asked = next;
        if (i + (RING_KEYS + 1) * WARPS < end)
            next = place_of(a, pool, w, t, i + (RING_KEYS + 1) * WARPS);
    }
#endif
}

/* --- The kernel --- */

static __device__ __forceinline__ struct work work_of(const attend_args &a, const kv_sequence &s,
                                                      int first_query, int take)
{
    struct work w;

    w.blocks = s.blocks;
    w.n_kept = s.n_kept;
    w.n_gone = s.n_gone;
    w.position = s.position;
    w.row = s.row;
    w.one_row = s.n_rows == 1;
    w.kv_head = blockIdx.y;
    w.first_query = first_query;
    w.n_queries = min(take, s.n_rows * a.group - first_query);
    int held = attend_held(a, s.n_kept, s.n_gone);
    int p = s.position + row_of(a, w, 0), last = s.position + row_of(a, w, w.n_queries - 1);
    struct cuda_sight sight = attend_sight(a, held, p), of_last = attend_sight(a, held, last);
    w.begin = sight.first;
    w.end = last + 1;
    w.hole = sight.hole;
    w.hole_end = sight.hole_end;
    w.plain_from = of_last.first;
    w.plain_to = p + 1;
    w.unplain_to = of_last.hole_end;
    return w;
}

/* Tiles [begin, end) in equal shares, of n_splits blocks. */
struct share {
    int begin, end, per_split, n_splits;
};

static __device__ __forceinline__ struct share share_of(int begin, int end, int max_splits)
{
    int n = max(end - begin, 0), per = max((n + max_splits - 1) / max_splits, SPLIT_TILES);

    per = (per + WARPS - 1) / WARPS * WARPS;
    return {begin, end, per, (n + per - 1) / per};
}

/* How many of the tiles come before position split. */
static __device__ __forceinline__ int tiles_before(const struct tiles &t, int split)
{
    int tile = split / TILE, n = tile <= t.first + t.before_hole
                                     ? tile - t.first
                                     : max(t.before_hole, tile - t.after_hole + t.before_hole);

    return max(0, min(n, t.n));
}

/* Of the tiles in the pool of earlier tokens, or of the others; what both find is put together by
 * the block that ends last of all. early: keys before the batch's own are there before what was
 * launched before has ended. */
template <typename T, int BITS, int DIM, int NQ, bool RING>
static __global__ void __launch_bounds__(THREADS, RING ? RING_BLOCKS : 0)
    decode_kernel(const __grid_constant__ attend_args a,
                  const __grid_constant__ struct cuda_pool pool, bool of_earlier, bool early)
{
    const int query_numbers = 8 * NQ * query_row<BITS, DIM>::size;
    __shared__ __align__(16) char queries[2 * query_numbers * sizeof(T)];
    __shared__ float factors[8 * NQ];
    extern __shared__ __align__(128) char ring_memory[];
    __shared__ struct shared_room<DIM, NQ> own_room;
    struct shared_room<DIM, NQ> &room =
        RING ? *(struct shared_room<DIM, NQ> *)ring_memory : own_room;
    struct rooms<T> rooms = {
        (T *)queries, (T *)queries + query_numbers, factors
    };
    struct found<DIM, NQ> f;
    struct result<DIM, NQ> r;
    int sequence, first_query;

    /* Sequences and the tables of their blocks were uploaded. */
    cuda_let_go();
    attend_find_item(a, blockIdx.x, 8 * NQ, false, &sequence, &first_query);
    const struct work w = work_of(a, a.batch.sequences[sequence], first_query, 8 * NQ);
    const struct tiles t = tiles_of(w);
    int n_early = a.kv.split > 0 ? tiles_before(t, a.kv.split) : 0;
    struct share before = share_of(0, n_early, a.max_splits);
    struct share late = share_of(n_early, t.n, a.max_splits);
    const struct share &mine = of_earlier ? before : late;
    int split = blockIdx.z, n_splits = before.n_splits + late.n_splits;

    if (split >= mine.n_splits) {
        cuda_wait();
        return;
    }
    int first = mine.begin + split * mine.per_split, end = min(mine.end, first + mine.per_split);
    begin(f);
    if constexpr (RING) {
        static_assert(ring<DIM>::shared >= (int)sizeof room, "room for what warps have found");
        visit_ring<T>(a, pool, w, t, first, end, rooms, early, f);
        __syncthreads(); /* room is where tiles were */
    } else {
        visit<T, BITS>(a, pool, w, t, first, end, rooms, f);
    }
    gather(room, f, r);
    if (n_splits == 1) {
        put(a, w, r);
        return;
    }
    if (n_splits <= a.cluster) {
        join_cluster(room, split, n_splits, r);
        if (split == 0)
            put(a, w, r);
        return;
    }
    const size_t size = layout<DIM, NQ>::partial;
    size_t which = (size_t)blockIdx.x * gridDim.y + blockIdx.y;
    float *partials = a.partials + which * a.max_splits * (a.kv.split > 0 ? 2 : 1) * size;
    hand_in(w, r, partials + (split + (of_earlier ? 0 : before.n_splits)) * size);
    if (!is_last(a.tickets + which, n_splits))
        return;
    combine(room, w, partials, n_splits, r);
    put(a, w, r);
}

/* --- Launching --- */

static bool part_fits(const struct cuda_pool *pool, const struct kv_part *part, int most)
{
    size_t codes = pool->bits == 4 ? 8 : 16;

    if (part->dim > most || part->dim % 8 || part->rows % 16 || part->row_bytes % codes)
        return false;
    return !pool->bits || (part->dim % 16 == 0 && part->scales % 2 == 0);
}

/* Can the kernel read it? Slabs are as aligned as all device memory. */
static bool pool_fits(const struct cuda_pool *pool, int most)
{
    return (pool->type == DTYPE_F16 || pool->type == DTYPE_BF16) && pool->block_bytes % 16 == 0 &&
           (!pool->bits || pool->group_size == 32 || pool->group_size == 64 ||
            pool->group_size == 128) &&
           part_fits(pool, &pool->keys, most) && part_fits(pool, &pool->values, most);
}

/* By way of rings: where items, of a sequence and a kv head, are many, so that memory is what they
 * wait for. */
template <int BITS, int DIM, int NQ>
static bool takes_ring(const struct cuda_device *c, const struct attend_args *a, int64_t n_items)
{
    return BITS == 0 && DIM == 128 && NQ == 1 && wgmma_built_for(c->arch) && a->kv.split == 0 &&
           n_items * a->kv.n_kv_heads >= RING_ITEMS;
}

template <typename T, int BITS, int DIM, int NQ>
static void launch_kernel(struct cuda_device *c, const struct attend_args *a, int n_items,
                          const struct cuda_pool &pool)
{
    struct cuda_shape shape = {dim3(n_items, a->kv.n_kv_heads, a->max_splits), dim3(THREADS), 0,
                               true};

    shape.cluster = a->cluster;
    if constexpr (BITS == 0 && DIM == 128 && NQ == 1)
        if (takes_ring<BITS, DIM, NQ>(c, a, n_items)) {
            shape.shared = ring<DIM>::shared;
            cuda_settle(c); /* what waits may store */
            bool early = !c->stored || c->stored == a->batch.sequences;
            cuda_launch(c, decode_kernel<T, BITS, DIM, NQ, true>, shape, *a, pool, false, early);
            return;
        }
    cuda_launch(c, decode_kernel<T, BITS, DIM, NQ, false>, shape, *a, pool, &pool != &a->kv.now,
                false);
}

/* Into how many parts to split n items, so that blocks, of which so many have room at a time, end
 * soonest: what a block begins and ends with takes it as long as a tenth of an item. */
static int64_t ring_splits(int64_t room, int64_t n)
{
    float least = 0;
    int64_t best = 1;

    for (int64_t splits = 1; splits <= MAX_SPLITS; splits++) {
        float time = (float)((n * splits + room - 1) / room) * (1.0f / (float)splits + 0.1f);

        if (splits == 1 || time < least) {
            least = time;
            best = splits;
        }
    }
    return best;
}

/* One wave of blocks where there are few items, else several, so that the last is short; but few
 * where there are few keys. */
template <typename T, int BITS, int DIM, int NQ>
static void launch(struct cuda_device *c, struct attend_args *a, int n_items, int few)
{
    int64_t room = c->n_processors * (DIM == 128 && NQ == 1 ? 3 : 2);
    int64_t n = (int64_t)n_items * a->kv.n_kv_heads;
    int64_t splits = 2 * n <= room ? room / n : (3 * room + n - 1) / n;
    int pools = a->kv.split > 0 ? 2 : 1;

    if (takes_ring<BITS, DIM, NQ>(c, a, n_items))
        splits = ring_splits((int64_t)c->n_processors * RING_BLOCKS, n);
    a->max_splits = splits > MAX_SPLITS ? MAX_SPLITS : (int)splits;
    if (n > CUDA_TICKETS)
        a->max_splits = 1;
    a->cluster = 1;
    if (few <= a->max_splits && few <= MAX_CLUSTER) {
        a->max_splits = few;
        a->cluster = pools == 1 && c->arch >= 90 ? few : 1;
    }
    if (a->max_splits * pools > 1) {
        a->partials = (float *)cuda_scratch(c, (size_t)n * a->max_splits * pools *
                                                   layout<DIM, NQ>::partial * sizeof(float));
        if (!a->partials)
            return;
    }
    if (pools > 1)
        launch_kernel<T, 0, DIM, NQ>(c, a, n_items, a->kv.earlier);
    launch_kernel<T, BITS, DIM, NQ>(c, a, n_items, a->kv.now);
}

template <typename T, int DIM>
static void launch_bits(struct cuda_device *c, struct attend_args *a, int n_items, int few)
{
    if (a->kv.now.bits == 4)
        launch<T, 4, DIM, 1>(c, a, n_items, few);
    else if (a->kv.now.bits == 8)
        launch<T, 8, DIM, 1>(c, a, n_items, few);
    else
        launch<T, 0, DIM, 1>(c, a, n_items, few);
}

/* More than 8 queries are taken 16 at a time where that reads less memory. */
static bool takes_16(const struct attend_args *a, int most)
{
    return most > 8 && !a->kv.now.bits && a->kv.k_dim <= 128 && a->kv.v_dim <= 128;
}

template <typename T>
static void launch_type(struct cuda_device *c, struct attend_args *a, int n_items, int few,
                        bool by_16)
{
    if (by_16)
        launch<T, 0, 128, 2>(c, a, n_items, few);
    else if (a->kv.k_dim <= 128 && a->kv.v_dim <= 128)
        launch_bits<T, 128>(c, a, n_items, few);
    else
        launch_bits<T, 256>(c, a, n_items, few);
}

bool attend_halves_fit(const struct attend_args *a, int most)
{
    const struct cuda_pool *now = &a->kv.now, *before = &a->kv.earlier;

    return a->kv.block_tokens >= TILE && !(a->kv.block_tokens & (a->kv.block_tokens - 1)) &&
           pool_fits(now, most) &&
           (a->kv.split == 0 ||
            (pool_fits(before, most) && !before->bits && before->type == now->type));
}

void attend_decode(struct cuda_device *c, const struct attend_args *args,
                   const struct kv_batch *batch)
{
    struct attend_args a = *args;
    int n_items = 0, most = 0, few = 1;

    for (int i = 0; i < batch->n_sequences; i++) {
        const struct kv_sequence *s = &batch->sequences[i];
        int n = s->n_rows * a.group;

        if (n == 0 || n > a.most_queries)
            continue;
        most = n > most ? n : most;
        /* A power of two: the launch changes seldom as sequences grow. */
        while (few <= MAX_CLUSTER && few * SPLIT_TILES * TILE < s->position + s->n_rows)
            few *= 2;
    }
    bool by_16 = takes_16(&a, most);
    a.one_each = true;
    for (int i = 0; i < batch->n_sequences; i++) {
        int n = attend_items(a, batch->sequences[i].n_rows, by_16 ? 16 : 8, false);

        n_items += n;
        a.one_each = a.one_each && n == 1;
    }
    if (!n_items)
        return;
    if (a.kv.now.type == DTYPE_F16)
        launch_type<__half>(c, &a, n_items, few, by_16);
    else
        launch_type<__nv_bfloat16>(c, &a, n_items, few, by_16);
}
