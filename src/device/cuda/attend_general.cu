/* device/cuda/attend_general.cu: attention in f32 to whatever a cache can hold, row by row.
 *
 * A block takes one head of one row. The keys are cut into ranges by their positions alone: 512
 * keys, or as many times two of that as make no more than MAX_RANGES of them. What a range gives
 * and how the ranges are put together depends on the row and its sequence, never on the batch: a
 * row's result has the same bits whatever else is computed, and whether one block visits its ranges
 * one after another or a block each at the same time, as long as few rows would leave the device
 * idle.
 */
#include "device/cuda/attend.cuh"

enum {
    THREADS = 128,
    TILE = 64,   /* keys at a time */
    LANES = 8,   /* that share a key */
    RANGE = 512, /* keys at least */
    MAX_RANGES = 64,
    PARTIAL_BYTES = 64 << 20 /* more is not worth it */
};

/* Where a token's keys and values lie; block NULL: it is not seen. */
struct token {
    const char *block;
    const struct cuda_pool *pool;
    int row;
};

/* The softmax of a row and head so far: of one range, and of those before. */
struct softmax {
    float max, sum;
};

/* Where a block is: one row and head. */
struct place {
    const kv_sequence *s;
    int64_t row;
    int position, head, kv_head;
    struct cuda_sight sight;
};

struct rooms {
    float *q, *acc, *total; /* [k_dim], [v_dim], [v_dim] */
    float *scores;          /* [TILE] */
    struct token *tokens;
};

/* s_j of the keys of a tile, 0 where there is none. */
static __device__ void score_tile(const attend_args &a, const struct place &at,
                                  const struct rooms &room, int base)
{
    int key = base + threadIdx.x;

    if (threadIdx.x < TILE) {
        struct token token = {};

        if (attend_sees(a, at.sight, at.row, at.position, at.head, key))
            token = {block_at(a.kv, *at.s, key), &pool_at(a.kv, key),
                     at.kv_head * a.kv.block_tokens + key % a.kv.block_tokens};
        room.tokens[threadIdx.x] = token;
    }
    __syncthreads();
    for (int j = threadIdx.x / LANES; j < TILE; j += THREADS / LANES) {
        const struct token k = room.tokens[j];
        float sum = 0;

        for (int i = threadIdx.x % LANES; k.block && i < a.kv.k_dim; i += LANES)
            sum = fmaf(room.q[i], kv_number(*k.pool, k.pool->keys, k.block, k.row, i), sum);
        for (int lane = LANES / 2; lane; lane /= 2)
            sum += __shfl_xor_sync(0xffffffffu, sum, lane);
        if (a.softcap > 0)
            sum = a.softcap * LOG2_E * tanhf(sum);
        if (a.slopes)
            sum = fmaf(a.slopes[at.head] * LOG2_E, (float)(base + j - at.position), sum);
        if (threadIdx.x % LANES == 0)
            room.scores[j] = k.block ? sum : -INFINITY;
    }
    __syncthreads();
}

/* Takes a tile into the softmax and the sums. */
static __device__ void take_tile(const attend_args &a, const struct rooms &room,
                                 struct softmax *soft)
{
    float most = soft->max, sum = 0;

    for (int j = 0; j < TILE; j++)
        most = fmaxf(most, room.scores[j]);
    if (most == -INFINITY)
        return;
    float factor = exp2f(soft->max - most);
    __syncthreads();
    if (threadIdx.x < TILE)
        room.scores[threadIdx.x] = exp2f(room.scores[threadIdx.x] - most);
    __syncthreads();
    for (int j = 0; j < TILE; j++)
        sum += room.scores[j];
    for (int i = threadIdx.x; i < a.kv.v_dim; i += THREADS) {
        float acc = room.acc[i] * factor;

#pragma unroll 4
        for (int j = 0; j < TILE; j++) {
            const struct token v = room.tokens[j];

            if (v.block)
                acc = fmaf(room.scores[j], kv_number(*v.pool, v.pool->values, v.block, v.row, i),
                           acc);
        }
        room.acc[i] = acc;
    }
    soft->max = most;
    soft->sum = fmaf(soft->sum, factor, sum);
}

static __device__ int range_keys(int position)
{
    int n = RANGE;

    while (position / n >= MAX_RANGES)
        n *= 2;
    return n;
}

static __device__ struct softmax visit(const attend_args &a, const struct place &at,
                                       const struct rooms &room, int begin, int end)
{
    struct softmax soft = {-INFINITY, 0};

    for (int i = threadIdx.x; i < a.kv.v_dim; i += THREADS)
        room.acc[i] = 0;
    for (int base = max(begin, at.sight.first / TILE * TILE); base < end; base += TILE) {
        if (base >= at.sight.hole && base + TILE <= at.sight.hole_end)
            continue;
        score_tile(a, at, room, base);
        take_tile(a, room, &soft);
        __syncthreads();
    }
    return soft;
}

/* The range's result, acc, joins those of the ranges before. */
static __device__ void join(const attend_args &a, float *total, struct softmax *so_far,
                            const float *acc, struct softmax range)
{
    float most = fmaxf(so_far->max, range.max);

    if (range.sum == 0)
        return;
    float old = exp2f(so_far->max - most), now = exp2f(range.max - most);
    for (int i = threadIdx.x; i < a.kv.v_dim; i += THREADS)
        total[i] = fmaf(acc[i], now, total[i] * old);
    so_far->max = most;
    so_far->sum = fmaf(range.sum, now, so_far->sum * old);
}

static __device__ void put(const attend_args &a, const struct place &at, const float *total,
                           struct softmax soft)
{
    float *y = row_at(a.y, at.row) + (int64_t)at.head * a.kv.v_dim;
    float log_sum, factor = attend_finish(a, at.head, soft.max, soft.sum, &log_sum);

    for (int i = threadIdx.x; i < a.kv.v_dim; i += THREADS)
        y[i] = total[i] * factor;
    if (a.log_sums && threadIdx.x == 0)
        a.log_sums[at.row * a.log_stride + at.head] = log_sum;
}

static __host__ __device__ size_t partial_floats(int v_dim)
{
    return (size_t)v_dim + 2;
}

/* This block's range is done; the last block of a row and head puts all of them together. */
static __device__ void hand_in(const attend_args &a, const struct place &at,
                               const struct rooms &room, struct softmax range, int n_ranges)
{
    __shared__ bool last;
    int64_t which = at.row * a.n_heads + at.head;
    size_t size = partial_floats(a.kv.v_dim);
    float *partials = a.partials + which * MAX_RANGES * size, *mine = partials + blockIdx.z * size;
    struct softmax soft = {-INFINITY, 0};

    for (int i = threadIdx.x; i < a.kv.v_dim; i += THREADS)
        mine[2 + i] = room.acc[i];
    if (threadIdx.x == 0) {
        mine[0] = range.max;
        mine[1] = range.sum;
    }
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0)
        last = atomicAdd(a.tickets + which, 1u) == (unsigned)n_ranges - 1;
    __syncthreads();
    if (!last)
        return;
    __threadfence();
    for (int r = 0; r < n_ranges; r++) {
        const float *p = partials + r * size;

        join(a, room.total, &soft, p + 2, {p[0], p[1]});
    }
    put(a, at, room.total, soft);
    if (threadIdx.x == 0)
        a.tickets[which] = 0;
}

static __global__ void __launch_bounds__(THREADS)
    general_kernel(const __grid_constant__ attend_args a)
{
    extern __shared__ float shared[];
    __shared__ float scores[TILE];
    __shared__ struct token tokens[TILE];
    struct rooms room = {shared, shared + a.kv.k_dim, shared + a.kv.k_dim + a.kv.v_dim, scores,
                         tokens};

    cuda_begin();
    const kv_sequence s = a.batch.sequences[a.batch.of_row[blockIdx.x]];
    struct place at = {};
    at.s = &s;
    at.row = blockIdx.x;
    at.position = s.position + (int)blockIdx.x - s.row;
    at.head = blockIdx.y;
    at.kv_head = a.tiled ? at.head % a.kv.n_kv_heads : at.head / a.group;
    at.sight = attend_sight(a, attend_held(a, s.n_kept, s.n_gone), at.position);
    int n = range_keys(at.position), n_ranges = at.position / n + 1;

    if (a.partials && (int)blockIdx.z >= n_ranges)
        return;
    float scale = a.softcap > 0 ? a.scale / a.softcap : a.scale * LOG2_E;
    const float *q = row_at(a.q, at.row) + (int64_t)at.head * a.kv.k_dim;
    for (int i = threadIdx.x; i < a.kv.k_dim; i += THREADS)
        room.q[i] = q[i] * scale;
    for (int i = threadIdx.x; i < a.kv.v_dim; i += THREADS)
        room.total[i] = 0;
    __syncthreads();
    if (a.partials) {
        int begin = blockIdx.z * n;

        hand_in(a, at, room, visit(a, at, room, begin, min(begin + n, at.position + 1)), n_ranges);
        return;
    }
    struct softmax soft = {-INFINITY, 0};
    for (int r = at.sight.first / n; r < n_ranges; r++) {
        struct softmax range = visit(a, at, room, r * n, min(r * n + n, at.position + 1));

        join(a, room.total, &soft, room.acc, range);
    }
    put(a, at, room.total, soft);
}

void attend_general(struct cuda_device *c, const struct attend_args *args)
{
    struct attend_args a = *args;
    int64_t n = (int64_t)a.q.n * a.n_heads;
    size_t bytes = (size_t)n * MAX_RANGES * partial_floats(a.kv.v_dim) * sizeof(float);
    struct cuda_shape shape = {dim3(a.q.n, a.n_heads), dim3(THREADS),
                               (unsigned)((a.kv.k_dim + 2 * a.kv.v_dim) * sizeof(float)), true};

    a.partials = NULL;
    if (n <= CUDA_TICKETS && n < 4 * c->n_processors && bytes <= PARTIAL_BYTES) {
        a.partials = (float *)cuda_scratch(c, bytes);
        shape.grid.z = MAX_RANGES;
        if (!a.partials)
            return;
    }
    cuda_launch(c, general_kernel, shape, a);
}
