/* device/cuda/attend_sm90.cuh: attention of many queries with Hopper's products of warpgroups: a
 * block, of which one warpgroup brings keys and values to shared memory while the two others
 * multiply. While a warpgroup's products with values are under way, and those of the other with
 * either, it makes weights of the next scores: arXiv:2407.08608. */
#ifndef DEVICE_CUDA_ATTEND_SM90_CUH
#define DEVICE_CUDA_ATTEND_SM90_CUH

#include "device/cuda/attend_rows.cuh"
#include "device/cuda/wgmma.cuh"

enum {
    GROUP = 128, /* threads of a warpgroup */
    THREADS = 3 * GROUP,
    BRINGING_REGISTERS = 40,
    MULTIPLYING_REGISTERS = 232
};

/* Heads of K and V numbers. The two warpgroups have 64 queries each, or share 64 and have half of
 * the values' numbers each. */
template <int K, int V, bool SHARED> struct tile_shape {
    /* No functions are called while products are under way: they might save their registers. */
    static const bool blocks = false;
    static const int k_dim = K, dim = SHARED ? V / 2 : V;
    static const int sixteens = 1, keys = K <= 128 ? 128 : 64, stages = K <= 256 ? 2 : 1;
    static const int warp_queries = 16, queries = SHARED ? 64 : 128;
    static const int k_parts = K / 64, v_parts = V / 64, part_bytes = keys * 128; /* of a tile */
    static const int key_bytes = k_parts * part_bytes, value_bytes = v_parts * part_bytes;
    static const int query_bytes = queries * 2 * K, tile_bytes = key_bytes + value_bytes;
    /* What products take, in multiples of 1024 bytes from one on, and barriers. */
    static const int shared = query_bytes + stages * tile_bytes + 1024 + 4 * stages * 8;

    /* Where piece c of a row of queries lies: each 64 are a matrix of their own. */
    static __device__ __forceinline__ uint32_t piece_at(int r, int c)
    {
        return (uint32_t)(r / 64 * 64 * 2 * K + c / 8 * 64 * 128 + r % 64 * 128 +
                          ((c ^ r) & 7) * 16);
    }
};

/* Shared memory: addresses. */
struct room {
    uint32_t queries, tiles, barriers;
};

template <class S> static __device__ __forceinline__ struct room room_at(const char *memory)
{
    uint32_t base = ((uint32_t)__cvta_generic_to_shared(memory) + 1023) & ~1023u;

    return {base, base + S::query_bytes, base + S::query_bytes + S::stages * S::tile_bytes};
}

/* Which of the four barriers of a stage: copies have arrived, or may begin. */
enum { KEYS_THERE, VALUES_THERE, KEYS_USED, VALUES_USED };

template <class S>
static __device__ __forceinline__ uint32_t barrier_at(const struct room &r, int which, uint32_t n)
{
    return r.barriers + ((uint32_t)which * S::stages + n % S::stages) * 8;
}

/* By one thread, before any other comes to them. */
template <class S> static __device__ __forceinline__ void open_barriers(const struct room &room)
{
    for (uint32_t i = 0; i < S::stages; i++) {
        barrier_open(barrier_at<S>(room, KEYS_THERE, i), GROUP);
        barrier_open(barrier_at<S>(room, VALUES_THERE, i), GROUP);
        barrier_open(barrier_at<S>(room, KEYS_USED, i), 2 * GROUP / 32);
        barrier_open(barrier_at<S>(room, VALUES_USED, i), 2 * GROUP / 32);
    }
}

/* Where keys or values of the tile with this number lie. */
template <class S>
static __device__ __forceinline__ uint32_t tile_at(const struct room &r, uint32_t n, bool values)
{
    return r.tiles + n % S::stages * S::tile_bytes + (values ? S::key_bytes : 0);
}

/* --- Bringing --- */

static __device__ __forceinline__ bool is_seen(const struct work &w, int key)
{
    return key >= w.begin && key < w.end && (key < w.hole || key >= w.hole_end);
}

/* The block that the lane's sixteenth of a tile is in, if any of it is seen, else negative. */
static __device__ __forceinline__ int find_block(const attend_args &a, const struct work &w,
                                                 int tile, int sixteenths)
{
    int lane = threadIdx.x % 32, key = tile + 16 * lane, first = max(key, w.begin);
    int b = key >> a.block_shift;

    if (first >= w.hole && first < w.hole_end)
        first = w.hole_end;
    if (lane >= sixteenths || first >= key + 16 || first >= w.end)
        return -1;
    return __ldg(w.blocks + (b < w.n_kept ? b : b - w.n_gone));
}

static __device__ __forceinline__ const char *place_of(const struct cuda_pool &pool, int block)
{
    if (block < 0)
        return NULL;
    return (const char *)__ldg((const unsigned long long *)pool.slabs +
                               (block >> pool.slab_shift)) +
           (size_t)(block & ((1 << pool.slab_shift) - 1)) * pool.block_bytes;
}

/* PARTS parts of keys, or values, of a tile from its first on, zeros where nothing is to be seen;
 * WHOLE: all of it is. place: of the lane's sixteenth. */
template <class S, int PARTS, bool WHOLE>
static __device__ __forceinline__ void copy_tile(const attend_args &a, const struct work &w,
                                                 const struct kv_part &part, int key,
                                                 const char *place, uint32_t to)
{
    int c = threadIdx.x % 8, r = threadIdx.x % GROUP / 8;
    unsigned row_bytes = (unsigned)part.row_bytes, mask = (unsigned)a.kv.block_tokens - 1;
    size_t offset =
        part.rows + 16 * (size_t)c + (unsigned)((w.kv_head << a.block_shift) + r) * row_bytes;

    to += (uint32_t)(r * 128 + ((c ^ r) & 7) * 16);
#pragma unroll
    for (int i = 0; i < S::keys / 16; i++) {
        uint64_t block = __shfl_sync(0xffffffffu, (unsigned long long)place, i);
        bool seen = WHOLE || is_seen(w, key + 16 * i + r);
        const char *from =
            (const char *)block + offset + ((unsigned)(key + 16 * i) & mask) * row_bytes;

        if (!seen)
            from = (const char *)a.batch.sequences; /* of which nothing is read */
#pragma unroll
        for (int p = 0; p < PARTS; p++)
            mma_copy(to + (uint32_t)(p * S::part_bytes + 16 * i * 128), from + 128 * p,
                     seen && 64 * p + 8 * c < part.dim);
    }
}

template <class S, int PARTS>
static __device__ __forceinline__ void bring(const attend_args &a, const struct work &w,
                                             const struct kv_part &part, int key, const char *place,
                                             uint32_t to, uint32_t there)
{
    const int keys = S::keys;

    if (key >= w.begin && key + keys <= w.end && (key + keys <= w.hole || key >= w.hole_end))
        copy_tile<S, PARTS, true>(a, w, part, key, place, to);
    else
        copy_tile<S, PARTS, false>(a, w, part, key, place, to);
    barrier_arrive_with_copies(there);
}

/* All tiles, each as soon as there is room for it. Where they lie is looked up ahead of that, in
 * two steps. */
template <class S>
static __device__ __forceinline__ void bring_all(const attend_args &a, const struct work &w,
                                                 const struct room &room, int key)
{
    const struct cuda_pool &pool = a.kv.now;
    int next = next_tile(w, key, S::keys);
    const char *place = place_of(pool, find_block(a, w, key, S::keys / 16));
    int block = find_block(a, w, next, S::keys / 16);

    for (uint32_t n = 0; key < w.end; n++) {
        int after = next_tile(w, next, S::keys);
        uint32_t turn = n / S::stages;
        const char *next_place = place_of(pool, block);

        block = find_block(a, w, after, S::keys / 16);
        barrier_wait(barrier_at<S>(room, KEYS_USED, n), turn + 1);
        bring<S, S::k_parts>(a, w, pool.keys, key, place, tile_at<S>(room, n, false),
                             barrier_at<S>(room, KEYS_THERE, n));
        barrier_wait(barrier_at<S>(room, VALUES_USED, n), turn + 1);
        bring<S, S::v_parts>(a, w, pool.values, key, place, tile_at<S>(room, n, true),
                             barrier_at<S>(room, VALUES_THERE, n));
        place = next_place;
        key = next;
        next = after;
    }
}

/* --- Multiplying --- */

/* Begins the scores of 64 queries and a tile's keys. */
template <typename T, class S>
static __device__ __forceinline__ void multiply_keys(struct scores<S> &x, uint32_t queries,
                                                     uint32_t keys)
{
    asm volatile("" : "+r"(queries)); /* or descriptors would be kept for all tiles */
    uint64_t a = wgmma_matrix(queries, 16), b = wgmma_matrix(keys, 16);

#pragma unroll
    for (int d = 0; d < S::k_dim / 16; d++)
        wgmma_rows<T, S::keys / 8>(x.s[0], a + (d / 4 * 64 * 128 + d % 4 * 32) / 16,
                                   b + (d / 4 * S::part_bytes + d % 4 * 32) / 16, d > 0);
}

/* Begins to add what the weights make of a tile's values, from their first part for this warpgroup
 * on. */
template <typename T, class S>
static __device__ __forceinline__ void
add_values(struct found<S> &f, const uint32_t (&p)[S::keys / 16][4], uint32_t values)
{
    const int at_a_time = S::dim < 128 ? S::dim : 128;

    uint64_t b = wgmma_matrix(values, S::part_bytes);

#pragma unroll
    for (int n = 0; n < S::keys / 16; n++)
#pragma unroll
        for (int d = 0; d < S::dim; d += at_a_time)
            wgmma_columns<T, at_a_time / 8>(f.acc[0] + d / 8, p[n],
                                            b + (d / 64 * S::part_bytes + n * 16 * 128) / 16);
}

/* This warp needs the tile no more. */
static __device__ __forceinline__ void let_go(uint32_t barrier)
{
    __syncwarp();
    if (threadIdx.x % 32 == 0)
        barrier_arrive(barrier);
}

/* The tile with this number is there: keys, or values. */
template <class S>
static __device__ __forceinline__ void wait_for(const struct room &room, int which, uint32_t n)
{
    barrier_wait(barrier_at<S>(room, which, n), n / S::stages);
    wgmma_see();
}

/* What the warp has found in all tiles of the block, one at least; w: the warp's work; first_value:
 * where in a tile the warpgroup's numbers of values are. */
template <typename T, class S>
static __device__ __forceinline__ void
multiply_all(const attend_args &a, const struct work &block, const struct work &w,
             const struct room &room, uint32_t queries, uint32_t first_value, int key,
             const float (&factors)[1][2], struct found<S> &f)
{
    uint32_t p[S::keys / 16][4], n = 0;
    struct scores<S> x;
    float old[1][2];

    wait_for<S>(room, KEYS_THERE, 0);
    wgmma_begin();
    multiply_keys<T>(x, queries, tile_at<S>(room, 0, false));
    wgmma_close();
    wgmma_wait<0>();
    wgmma_hold(x.s[0]);
    let_go(barrier_at<S>(room, KEYS_USED, 0));
    weigh(x, a, w, factors, key, f, old);
#pragma unroll
    for (int i = 0; i < S::keys / 16; i++)
        pack_weights<T>(p[i], x, 0, i);
    for (key = next_tile(block, key, S::keys); key < block.end;
         key = next_tile(block, key, S::keys)) {
        uint32_t values = tile_at<S>(room, n, true) + first_value;

        n++;
        wait_for<S>(room, KEYS_THERE, n);
        wgmma_begin();
        multiply_keys<T>(x, queries, tile_at<S>(room, n, false));
        wgmma_close();
        wait_for<S>(room, VALUES_THERE, n - 1);
        wgmma_begin();
        add_values<T>(f, p, values);
        wgmma_close();
        wgmma_wait<1>();
        wgmma_hold(x.s[0]);
        let_go(barrier_at<S>(room, KEYS_USED, n));
        weigh(x, a, w, factors, key, f, old);
        wgmma_wait<0>();
        wgmma_hold(f.acc[0]);
        let_go(barrier_at<S>(room, VALUES_USED, n - 1));
        rescale(f, old);
#pragma unroll
        for (int i = 0; i < S::keys / 16; i++)
            pack_weights<T>(p[i], x, 0, i);
    }
    wait_for<S>(room, VALUES_THERE, n);
    wgmma_begin();
    add_values<T>(f, p, tile_at<S>(room, n, true) + first_value);
    wgmma_close();
    wgmma_wait<0>();
    wgmma_hold(f.acc[0]);
}

/* The warp's queries go to shared memory, and when those of the warpgroup have, multiplies. */
template <typename T, class S>
static __device__ __forceinline__ void attend_tiles(const attend_args &a, const struct work &block,
                                                    const struct work &w, const struct room &room,
                                                    char *memory, int first_row, int group, int key,
                                                    struct found<S> &f)
{
    char *queries = memory + (room.queries - (uint32_t)__cvta_generic_to_shared(memory));
    const bool shared = S::queries == 64; /* stored by the first warpgroup for both */
    float factors[1][2];

    put_queries<T, S>(a, w, queries, first_row, !shared || group == 1, factors);
    wgmma_see();
    if (shared)
        barrier_among(1, 2 * GROUP);
    else
        barrier_among(group, GROUP);
    begin(f);
    if (key < block.end)
        multiply_all<T>(a, block, w, room,
                        room.queries + (shared ? 0 : (uint32_t)(group - 1) * 64 * 2 * S::k_dim),
                        shared ? (uint32_t)((group - 1) * S::dim / 64 * S::part_bytes) : 0, key,
                        factors, f);
}

#endif
