/* device/cuda/attend_rows.cuh: what the kernels for prompts share: the queries of a warp, a row's
 * heads and row after row, what they see of a tile of keys, and their softmax.
 *
 * They take the shape of their tiles as a struct with: k_dim, of heads as they are filled up, and
 * dim, of the values that a warp has; sixteens, queries of a warp; keys of a tile; blocks, whether
 * calls may choose keys by blocks; piece_at(r, c),
 * where 16 bytes of a row of queries lie in shared memory. Lane 4 g + t of a warp has, of each 16
 * queries and 8 keys or dims, the rows g and g + 8 and the columns 2 t and 2 t + 1, as the matrix
 * unit gives them. */
#ifndef DEVICE_CUDA_ATTEND_ROWS_CUH
#define DEVICE_CUDA_ATTEND_ROWS_CUH

#include "device/cuda/attend.cuh"
#include "device/cuda/mma.cuh"

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

/* The tile after one that begins at key; those within the hole are left out. */
static __device__ __forceinline__ int next_tile(const struct work &w, int key, int keys)
{
    key += keys;
    return key >= w.hole && key + keys <= w.hole_end ? w.hole_end / keys * keys : key;
}

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

/* --- Queries --- */

/* The warp's queries go to shared memory, if this warp is to store them; factors: by what scores
 * are multiplied, of rows g and g + 8 of each sixteen. */
template <typename T, class S>
static __device__ __forceinline__ void put_queries(const attend_args &a, const struct work &w,
                                                   char *room, int first_row, bool store,
                                                   float (&factors)[S::sixteens][2])
{
    /* rows whose loads are on their way together */
    const int batch = S::k_dim <= 128 ? 16 : S::k_dim <= 256 ? 8 : 4;
    int lane = threadIdx.x % 32, g = lane / 4, mine = 0;
    int query = lane < w.n_queries ? w.first_query + lane : 0;
    const float *own = row_at(a.q, w.row + query / a.group) +
                       (int64_t)attend_head(a, w.kv_head, query % a.group) * a.kv.k_dim;

#pragma unroll 1
    for (int base = 0; base < S::warp_queries; base += batch) {
        float x[batch][S::k_dim / 64][2];

#pragma unroll
        for (int i = 0; i < batch; i++) {
            const float *q =
                (const float *)__shfl_sync(0xffffffffu, (unsigned long long)own, base + i);

#pragma unroll
            for (int j = 0; j < S::k_dim / 64; j++)
#pragma unroll
                for (int k = 0; k < 2; k++)
                    x[i][j][k] = q[min(64 * j + 2 * lane + k, a.kv.k_dim - 1)];
        }
#pragma unroll
        for (int i = 0; i < batch; i++) {
            float most = 0;

#pragma unroll
            for (int j = 0; j < S::k_dim / 64; j++)
#pragma unroll
                for (int k = 0; k < 2; k++) {
                    if (base + i >= w.n_queries || 64 * j + 2 * lane + k >= a.kv.k_dim)
                        x[i][j][k] = 0;
                    most = fmaxf(most, fabsf(x[i][j][k]));
                }
            int e = std::is_same<T, __half>::value ? mma_exponent(mma_warp_max(most)) : 0;
#pragma unroll
            for (int j = 0; j < S::k_dim / 64; j++)
                if (store)
                    *(uint32_t *)(room + S::piece_at(first_row + base + i, 8 * j + lane / 4) +
                                  lane % 4 * 4) =
                        mma_pack<T>(x[i][j][0] * mma_power(-e), x[i][j][1] * mma_power(-e));
            if (lane == base + i)
                mine = e;
        }
    }
    float scale = a.softcap > 0 ? a.scale / a.softcap : a.scale * LOG2_E;
#pragma unroll
    for (int m = 0; m < S::sixteens; m++)
#pragma unroll
        for (int half = 0; half < 2; half++)
            factors[m][half] =
                scale * mma_power(__shfl_sync(0xffffffffu, mine, 16 * m + 8 * half + g));
}

/* --- Scores --- */

template <class S> struct scores {
    float s[S::sixteens][S::keys / 8][4];
};

/* Apart, as few calls choose blocks. */
static __device__ __noinline__ bool sees_block(const attend_args &a, int p, int head, int key)
{
    return attend_sees_block(a, p, head, key);
}

/* Hides what queries do not see; key: the tile's first, a multiple of 32. */
template <class S>
static __device__ __forceinline__ void hide(struct scores<S> &x, const attend_args &a,
                                            const struct work &w, int key)
{
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    int held = attend_held(a, w.n_kept, w.n_gone);

#pragma unroll
    for (int m = 0; m < S::sixteens; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int query = w.first_query + max(min(16 * m + 8 * half + g, w.n_queries - 1), 0);
            int row = query / a.group, p = w.position + row;
            int head = attend_head(a, w.kv_head, query % a.group);
            struct cuda_sight sight = attend_sight(a, held, p);
            uint32_t kept = 0xffffffffu;

#pragma unroll
            for (int n = 0; n < S::keys / 8; n++) {
                if (n % 4 == 0 && a.kept)
                    kept = key + 8 * n <= p && w.n_queries > 0
                               ? __ldg(attend_kept(a, w.row + row, head) + (key + 8 * n) / 32)
                               : 0;
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    int k = key + 8 * n + 2 * t + i;
                    bool seen = k >= sight.first && k <= p &&
                                (k < sight.hole || k >= sight.hole_end) &&
                                (kept >> (8 * n % 32 + 2 * t + i) & 1);

                    if constexpr (S::blocks)
                        seen = seen && (!a.block_size || sees_block(a, p, head, k));
                    if (!seen)
                        x.s[m][n][2 * half + i] = -INFINITY;
                }
            }
        }
}

/* Softcaps and slopes: scores as they go into the softmax, for which the factors then are 1. */
template <class S>
static __device__ __forceinline__ void shape_scores(struct scores<S> &x, const attend_args &a,
                                                    const struct work &w,
                                                    const float (&factors)[S::sixteens][2], int key)
{
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;

#pragma unroll
    for (int m = 0; m < S::sixteens; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int query = w.first_query + min(16 * m + 8 * half + g, w.n_queries - 1);
            int ahead = key + 2 * t - w.position - query / a.group;
            float slope = 0;

            if (a.slopes)
                slope = __ldg(a.slopes + attend_head(a, w.kv_head, query % a.group)) * LOG2_E;
#pragma unroll
            for (int n = 0; n < S::keys / 8; n++)
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

template <class S> struct found {
    float acc[S::sixteens][S::dim / 8][4];
    float max[S::sixteens][2], sum[S::sixteens][2];
};

/* Scores times factors become weights; old: by what the sums so far are to be multiplied, which the
 * sums of weights are here, and those of values by rescale(). */
template <class S>
static __device__ __forceinline__ void soften(struct scores<S> &x,
                                              const float (&factors)[S::sixteens][2],
                                              struct found<S> &f, float (&old)[S::sixteens][2])
{
#pragma unroll
    for (int m = 0; m < S::sixteens; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float most = -INFINITY, sum = 0, factor = factors[m][half];

#pragma unroll
            for (int n = 0; n < S::keys / 8; n++)
                most = fmaxf(most, fmaxf(x.s[m][n][2 * half], x.s[m][n][2 * half + 1]));
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
            most = fmaxf(f.max[m][half], most * factor);
            float base = most == -INFINITY ? 0 : most;
            old[m][half] = mma_exp2(f.max[m][half] - base);
            f.max[m][half] = most;
#pragma unroll
            for (int n = 0; n < S::keys / 8; n++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    float p = mma_exp2(fmaf(x.s[m][n][2 * half + i], factor, -base));

                    x.s[m][n][2 * half + i] = p;
                    sum += p;
                }
            f.sum[m][half] = fmaf(f.sum[m][half], old[m][half], sum);
        }
}

template <class S>
static __device__ __forceinline__ void rescale(struct found<S> &f,
                                               const float (&old)[S::sixteens][2])
{
#pragma unroll
    for (int m = 0; m < S::sixteens; m++)
        if (__any_sync(0xffffffffu, old[m][0] != 1 || old[m][1] != 1)) {
#pragma unroll
            for (int d = 0; d < S::dim / 8; d++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    f.acc[m][d][i] *= old[m][i / 2];
        }
}

/* Weights of keys [16 n, 16 n + 16) as the left side of a product. */
template <typename T, class S>
static __device__ __forceinline__ void pack_weights(uint32_t (&p)[4], const struct scores<S> &x,
                                                    int m, int n)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float *s = x.s[m][2 * n + i / 2] + 2 * (i % 2);

        p[i] = mma_pack<T>(s[0], s[1]);
    }
}

template <class S> static __device__ __forceinline__ void begin(struct found<S> &f)
{
#pragma unroll
    for (int m = 0; m < S::sixteens; m++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            f.max[m][i % 2] = -INFINITY;
            f.sum[m][i % 2] = 0;
#pragma unroll
            for (int d = 0; d < S::dim / 8; d++)
                f.acc[m][d][i] = 0;
        }
}

/* Scores of the tile that begins at key become weights. */
template <class S>
static __device__ __forceinline__ void weigh(struct scores<S> &x, const attend_args &a,
                                             const struct work &w,
                                             const float (&factors)[S::sixteens][2], int key,
                                             struct found<S> &f, float (&old)[S::sixteens][2])
{
    float by[S::sixteens][2];
    bool shaped = a.softcap > 0 || a.slopes;

#pragma unroll
    for (int m = 0; m < S::sixteens; m++)
#pragma unroll
        for (int half = 0; half < 2; half++)
            by[m][half] = shaped ? 1 : factors[m][half];
    if (shaped)
        shape_scores(x, a, w, factors, key);
    if (a.kept || (S::blocks && a.block_size) || key < w.plain_from || key + S::keys > w.plain_to ||
        (key + S::keys > w.hole && key < w.unplain_to))
        hide(x, a, w, key);
    soften(x, by, f, old);
}

/* Puts y in its place; first: which of its numbers is the first of the warp's. */
template <class S>
static __device__ __forceinline__ void put(const attend_args &a, const struct work &w,
                                           struct found<S> &f, int first)
{
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;

#pragma unroll
    for (int m = 0; m < S::sixteens; m++)
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
            float *y = row_at(a.y, row) + (int64_t)head * a.kv.v_dim + first;
            uint16_t *copy =
                a.halves.data + row * a.halves.stride + (int64_t)head * a.kv.v_dim + first;

            if (a.log_sums && t == 0 && first == 0)
                a.log_sums[row * a.log_stride + head] = log_sum;
#pragma unroll
            for (int d = 0; d < S::dim / 8; d++)
                if (first + 8 * d < a.kv.v_dim) {
                    float low = f.acc[m][d][2 * half] * factor;
                    float high = f.acc[m][d][2 * half + 1] * factor;
                    uint32_t both = mma_pack<__nv_bfloat16>(low, high);

                    if (a.wide) {
                        *(float2 *)(y + 8 * d + 2 * t) = make_float2(low, high);
                    } else {
                        y[8 * d + 2 * t] = low;
                        y[8 * d + 2 * t + 1] = high;
                    }
                    if (a.halves.data)
                        *(uint32_t *)(copy + 8 * d + 2 * t) = both;
                }
        }
}

#endif
