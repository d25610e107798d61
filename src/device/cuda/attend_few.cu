/* device/cuda/attend_few.cu: attention of single rows to few keys, together with what is done to
 * their heads before it: norms, rotations and the store to the cache, in one launch.
 *
 * What counts is how little lies between the wait for the product ahead and the end. A warp has one
 * tile of 16 keys, or a few where there are more than 1024, and all heads that share its kv head,
 * with products as attend_decode.cu has them. Keys and values come to registers before the wait.
 * After it each warp turns the queries by itself into the matrix unit's fragments; the newest key
 * and value are made by the warp whose tile they are in, which also stores them: nobody else in the
 * launch reads them. Then there is one barrier between what warps find and what a block makes of
 * it, and one more where blocks, of a cluster, share the keys: each puts together a part of the
 * numbers.
 *
 * That keys can be read so early rests on who writes them. Rows of a batch are stored at their
 * positions, and read here are those before. The store of these was queued ahead of a launch behind
 * which nothing begins early, if none but the batch's own were stored since it
 * (cuda_device.stored): then it has ended when any block of this launch begins. Else keys are read
 * after the wait. */
#include "device/cuda/attend.cuh"
#include "device/cuda/cluster.cuh"
#include "device/cuda/mma.cuh"

enum { WARPS = 8, THREADS = 32 * WARPS, TILE = 16, GROUP = 8, KEYS = WARPS * TILE };

/* of a warp: what registers hold */
#define MOST_TILES(dim) ((dim) == 64 ? 4 : 2)

struct few_args {
    const struct kv_sequence *sequences;
    const unsigned long long *slabs;
    size_t block_bytes, keys, values; /* where these begin in a block */
    float *q, *k, *v, *y;
    const float *table, *q_norm, *k_norm;
    unsigned q_stride, k_stride, v_stride, y_stride, table_stride;
    float scale, q_eps, k_eps;
    int slab_shift, block_shift, group, head_step; /* between the heads of a group */
    int ahead;                                     /* keys may be read before the wait */
};

/* What a block has found: of pair m of a warp the four sums of 16 numbers, as its lane has them, of
 * queries 2 t and 2 t + 1 the max and the sum. */
template <int DIM> struct few_room {
    float4 acc[WARPS][DIM / 16][32];
    float4 soft[WARPS][4];
    /* from the blocks of the cluster, by their rank and then by the warps that have sent it */
    float handed[WARPS][DIM];
    float4 handed_soft[WARPS][4];
};

static __device__ __forceinline__ void take(float (&x)[8], const float *from)
{
    float4 a = ((const float4 *)from)[0], b = ((const float4 *)from)[1];

    x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w;
    x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
}

static __device__ __forceinline__ void give(float *to, const float (&x)[8])
{
    ((float4 *)to)[0] = make_float4(x[0], x[1], x[2], x[3]);
    ((float4 *)to)[1] = make_float4(x[4], x[5], x[6], x[7]);
}

/* As the cache has them. */
template <typename T> static __device__ __forceinline__ uint4 rounded(const float (&x)[8])
{
    uint32_t w[4];

#pragma unroll
    for (int i = 0; i < 4; i++) {
#if __CUDA_ARCH__ >= 900
        if (std::is_same<T, __half>::value)
            asm("cvt.rn.satfinite.f16x2.f32 %0, %1, %2;"
                : "=r"(w[i])
                : "f"(x[2 * i + 1]), "f"(x[2 * i]));
        else
#endif
            w[i] = mma_pack<T>(x[2 * i], x[2 * i + 1]);
    }
    return make_uint4(w[0], w[1], w[2], w[3]);
}

/* N of them at a multiple of as many. */
template <int N> static __device__ __forceinline__ void get(float (&x)[N], const float *from)
{
    if constexpr (N == 4) {
        float4 y = *(const float4 *)from;

        x[0] = y.x, x[1] = y.y, x[2] = y.z, x[3] = y.w;
    } else {
        float2 y = *(const float2 *)from;

        x[0] = y.x, x[1] = y.y;
    }
}

static __device__ __forceinline__ uint32_t word(const uint4 &x, int i)
{
    return i == 0 ? x.x : i == 1 ? x.y : i == 2 ? x.z : x.w;
}

static __device__ __forceinline__ uint4 load_once(const char *p)
{
    uint4 w;

    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(w.x), "=r"(w.y), "=r"(w.z), "=r"(w.w)
                 : "l"(p));
    return w;
}

/* Numbers of a head over the four lanes that share it. */
static __device__ __forceinline__ float over_four(float x, bool sum)
{
    float y = __shfl_xor_sync(0xffffffffu, x, 1);

    x = sum ? x + y : fmaxf(x, y);
    y = __shfl_xor_sync(0xffffffffu, x, 2);
    return sum ? x + y : fmaxf(x, y);
}

/* A head's norm and rotation. A lane has the numbers [8 t, 8 t + 8) of each 32, so that both of a
 * pair are its own. */
template <int S, bool NORM>
static __device__ __forceinline__ void turn(float (&x)[S][8], const float (&cosine)[S / 2][8],
                                            const float (&sine)[S / 2][8], const float *weights,
                                            float eps)
{
    if constexpr (NORM) {
        float sum = 0;

#pragma unroll
        for (int i = 0; i < 8 * S; i++)
            sum = fmaf(x[i / 8][i % 8], x[i / 8][i % 8], sum);
        float factor = rsqrtf(over_four(sum, true) * (1.0f / (float)(32 * S)) + eps);
#pragma unroll
        for (int i = 0; i < S; i++) {
            float w[8];

            take(w, weights + 32 * i);
#pragma unroll
            for (int j = 0; j < 8; j++)
                x[i][j] *= factor * w[j];
        }
    }
#pragma unroll
    for (int i = 0; i < 4 * S; i++) {
        float a = x[i / 8][i % 8], b = x[i / 8 + S / 2][i % 8];

        x[i / 8][i % 8] = a * cosine[i / 8][i % 8] - b * sine[i / 8][i % 8];
        x[i / 8 + S / 2][i % 8] = a * sine[i / 8][i % 8] + b * cosine[i / 8][i % 8];
    }
}

/* A tile's keys and values as attend_decode.cu has them. */
template <int DIM> struct few_tile {
    uint4 k[DIM / 32][2], v[DIM / 64][4];
};

/* Of tokens before p. */
template <int DIM>
static __device__ __forceinline__ void load(struct few_tile<DIM> &x, const char *keys,
                                            const char *values, int key, int p)
{
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;

#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int s = 0; s < DIM / 32; s++) {
            x.k[s][half] = {};
            if (key + g + 8 * half < p)
                x.k[s][half] = load_once(keys + (g + 8 * half) * (2 * DIM) + 64 * s + 16 * t);
        }
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
        for (int c = 0; c < DIM / 64; c++) {
            int place = 2 * t + j % 2 + j / 2 * 8;

            x.v[c][j] = {};
            if (key + place < p)
                x.v[c][j] = load_once(values + place * (2 * DIM) + 128 * c + 16 * g);
        }
}

/* Scores times factor, as powers of two of themselves less their greatest: that of queries 2 t and
 * 2 t + 1 in most. */
template <typename T, int DIM, int TILES>
static __device__ __forceinline__ void
score(float (&s)[TILES][4], float (&most)[2], const struct few_tile<DIM> (&x)[TILES],
      const float (&q)[DIM / 32][8], float scale, int seen, int step)
{
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    float sums[TILES][4][4] = {}, factor = scale, power = 1;

    if (std::is_same<T, __half>::value) {
        float largest = 0;

#pragma unroll
        for (int i = 0; i < DIM / 4; i++)
            largest = fmaxf(largest, fabsf(q[i / 8][i % 8]));
        int e = mma_exponent(over_four(largest, false));
        power = mma_power(-e);
        factor *= mma_power(e);
    }
#pragma unroll
    for (int n = 0; n < DIM / 32; n++) {
        uint32_t high[4], low[4];

#pragma unroll
        for (int i = 0; i < 4; i++) {
            typedef typename mma_two<T>::type two;
            float a = q[n][2 * i] * power, b = q[n][2 * i + 1] * power;

            high[i] = mma_pack<T>(a, b);
            two h = mma_unword<two>(high[i]);
            low[i] = mma_pack<T>(a - mma_float(h.x), b - mma_float(h.y));
        }
#pragma unroll
        for (int i = 0; i < TILES; i++) {
            const uint4 &k0 = x[i].k[n][0], &k1 = x[i].k[n][1];

            mma_16816<T>(sums[i][0], k0.x, k1.x, k0.y, k1.y, high[0], high[1]);
            mma_16816<T>(sums[i][1], k0.x, k1.x, k0.y, k1.y, low[0], low[1]);
            mma_16816<T>(sums[i][2], k0.z, k1.z, k0.w, k1.w, high[2], high[3]);
            mma_16816<T>(sums[i][3], k0.z, k1.z, k0.w, k1.w, low[2], low[3]);
        }
    }
    float factors[2] = {scale, scale};
    if (std::is_same<T, __half>::value) {
        factors[0] = __shfl_sync(0xffffffffu, factor, 8 * t);
        factors[1] = __shfl_sync(0xffffffffu, factor, 8 * t + 4);
    }
#pragma unroll
    for (int i = 0; i < 4 * TILES; i++) {
        const float(&of)[4][4] = sums[i / 4];
        int j = i % 4;

        s[i / 4][j] = ((of[0][j] + of[2][j]) + (of[1][j] + of[3][j])) * factors[j % 2];
        if (g + j / 2 * 8 >= seen - i / 4 * step)
            s[i / 4][j] = -INFINITY;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        most[i] = fmaxf(s[0][i], s[0][i + 2]);
#pragma unroll
        for (int j = 1; j < TILES; j++)
            most[i] = fmaxf(most[i], fmaxf(s[j][i], s[j][i + 2]));
        most[i] = fmaxf(most[i], __shfl_xor_sync(0xffffffffu, most[i], 4));
        most[i] = fmaxf(most[i], __shfl_xor_sync(0xffffffffu, most[i], 8));
        most[i] = fmaxf(most[i], __shfl_xor_sync(0xffffffffu, most[i], 16));
    }
#pragma unroll
    for (int i = 0; i < 4 * TILES; i++)
        s[i / 4][i % 4] = mma_exp2(s[i / 4][i % 4] - most[i % 2]);
}

/* Values by their weights to shared memory, and what the weights were made with. */
template <typename T, int DIM, int TILES>
static __device__ __forceinline__ void weigh(struct few_room<DIM> &room,
                                             const struct few_tile<DIM> (&x)[TILES],
                                             const float (&s)[TILES][4], const float (&most)[2])
{
    const uint32_t ones = mma_pack<T>(1, 1);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    uint32_t p[TILES][2];
    float sum[4] = {};

#pragma unroll
    for (int i = 0; i < 2 * TILES; i++)
        p[i / 2][i % 2] =
            mma_transpose(mma_pack<T>(s[i / 2][2 * (i % 2)], s[i / 2][2 * (i % 2) + 1]));

#pragma unroll
    for (int c = 0; c < DIM / 64; c++) {
#pragma unroll
        for (int m = 0; m < 4; m++) {
            float acc[4] = {};

#pragma unroll
            for (int i = 0; i < TILES; i++) {
                const uint4(&v)[4] = x[i].v[c];

                mma_16816<T>(acc, __byte_perm(word(v[0], m), word(v[1], m), 0x5410),
                             __byte_perm(word(v[0], m), word(v[1], m), 0x7632),
                             __byte_perm(word(v[2], m), word(v[3], m), 0x5410),
                             __byte_perm(word(v[2], m), word(v[3], m), 0x7632), p[i][0], p[i][1]);
            }
            room.acc[warp][4 * c + m][lane] = make_float4(acc[0], acc[1], acc[2], acc[3]);
        }
    }
#pragma unroll
    for (int i = 0; i < TILES; i++)
        mma_16816<T>(sum, ones, ones, ones, ones, p[i][0], p[i][1]);
    if (lane < 4)
        room.soft[warp][lane] = make_float4(most[0], sum[0], most[1], sum[1]);
}

/* Of n results, of which soft tells the maxima and the sums, numbers of queries 2 t and 2 t + 1 in
 * turn put together; soft becomes theirs. */
template <int N, typename A, typename B>
static __device__ __forceinline__ void join(float (&r)[N], float4 &soft, int n, const A &soft_of,
                                            const B &numbers_of)
{
    float4 softs[WARPS];
    float a = -INFINITY, b = -INFINITY;

#pragma unroll
    for (int i = 0; i < WARPS; i++) {
        softs[i] = make_float4(-INFINITY, 0, -INFINITY, 0);
        if (i < n)
            softs[i] = soft_of(i);
        a = fmaxf(a, softs[i].x);
        b = fmaxf(b, softs[i].z);
    }
    float first = 0, second = 0;
#pragma unroll
    for (int i = 0; i < N; i++)
        r[i] = 0;
#pragma unroll
    for (int i = 0; i < WARPS; i++)
        if (i < n) {
            float x[N], by_a = mma_exp2(softs[i].x - a), by_b = mma_exp2(softs[i].z - b);

            numbers_of(x, i);
            first = fmaf(softs[i].y, by_a, first);
            second = fmaf(softs[i].w, by_b, second);
#pragma unroll
            for (int k = 0; k < N; k++)
                r[k] = fmaf(x[k], k % 2 ? by_b : by_a, r[k]);
        }
    soft = make_float4(a, first, b, second);
}

template <typename T, int DIM, bool NORM, bool CLUSTER, int TILES>
static __global__ void __launch_bounds__(THREADS)
    few_kernel(const __grid_constant__ struct few_args a)
{
    enum { S = DIM / 32, N = DIM / 32 /* numbers of a thread in what a block puts together */ };
    __shared__ struct few_room<DIM> room;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    int rank = CLUSTER ? blockIdx.z : 0, n_blocks = CLUSTER ? gridDim.z : 1;
    __shared__ __align__(16) float weights[NORM ? 2 : 1][NORM ? DIM : 4];
    struct few_tile<DIM> x[TILES] = {
    };
    float q[S][8] = {};

    cuda_let_go();
    /* Sequences and the tables of their blocks were uploaded. */
    const struct kv_sequence &sequence = a.sequences[blockIdx.x];
    int p = sequence.position, row = sequence.row, tile = warp * n_blocks + rank;
    int n_tiles = p / TILE + 1, step = WARPS * n_blocks;
    /* Of the warp's tiles the one that the newest key is in, if it is in one of them. */
    int last = TILES == 1 ? 0 : (n_tiles - 1) / step;
    char *keys = NULL, *values = NULL;
    if (NORM && threadIdx.x < 2 * DIM)
        weights[threadIdx.x / DIM][threadIdx.x % DIM] =
            __ldg((threadIdx.x < DIM ? a.q_norm : a.k_norm) + threadIdx.x % DIM);
    if (!a.ahead)
        cuda_wait();
#pragma unroll
    for (int i = 0; i < TILES; i++) {
        int key = (tile + i * step) * TILE;

        if (tile + i * step >= n_tiles)
            break;
        int id = __ldg(sequence.blocks + (key >> a.block_shift));
        char *block = (char *)__ldg(a.slabs + (id >> a.slab_shift)) +
                      (size_t)(id & ((1 << a.slab_shift) - 1)) * a.block_bytes;
        unsigned at = ((blockIdx.y << a.block_shift) + (key & ((1 << a.block_shift) - 1))) *
                      (unsigned)(2 * DIM);

        keys = block + a.keys + at;
        values = block + a.values + at;
        load(x[i], keys, values, key, p);
    }
    /* Blocks that are written to are there. */
    if constexpr (CLUSTER)
        meet_cluster();
    else if (NORM)
        __syncthreads();
    float *own_q = a.q + (size_t)row * a.q_stride +
                   (blockIdx.y * (a.head_step == 1 ? a.group : 1) + g * a.head_step) * DIM + 8 * t;
    float *own_k = a.k + (size_t)row * a.k_stride + blockIdx.y * DIM + 8 * t;
    const float *own_v = a.v + (size_t)row * a.v_stride + blockIdx.y * DIM + 8 * g;
    const float *table = a.table + (size_t)row * a.table_stride + 8 * t;
    bool newest = tile == (n_tiles - 1) % step;
    /* Where heads are normed, a last warp without keys goes through all of it once without numbers,
     * while the others wait, so that the code is there. It leaves nothing that is read. */
    bool real = !NORM || tile < n_tiles || warp < WARPS - 1;
#pragma unroll 1
    for (int group = real ? a.group : 0;; real = true, group = a.group) {
        if (real)
            cuda_wait();
        if (tile < n_tiles || !real) {
            float cosine[S / 2][8] = {}, sine[S / 2][8] = {}, k[S][8] = {}, v[DIM / 64][8] = {},
                             s[TILES][4], most[2];

            if (g < group)
#pragma unroll
                for (int i = 0; i < S; i++)
                    take(q[i], own_q + 32 * i);
            if (real)
#pragma unroll
                for (int i = 0; i < S / 2; i++) {
                    take(cosine[i], table + 32 * i);
                    take(sine[i], table + DIM / 2 + 32 * i);
                }
            if (newest) {
#pragma unroll
                for (int i = 0; i < S; i++)
                    take(k[i], own_k + 32 * i);
#pragma unroll
                for (int i = 0; i < DIM / 64; i++)
                    take(v[i], own_v + 64 * i);
            }
            turn<S, NORM>(q, cosine, sine, weights[0] + 8 * t, a.q_eps);
            if (newest || !real) {
                int place = p % TILE;

                turn<S, NORM>(k, cosine, sine, weights[NORM] + 8 * t, a.k_eps);
                __syncwarp();
#pragma unroll
                for (int i = 0; i < S; i++) {
                    uint4 numbers = rounded<T>(k[i]);

#pragma unroll
                    for (int j = 0; j < 2 * TILES; j++)
                        if (place == g + j % 2 * 8 && last == j / 2)
                            x[j / 2].k[i][j % 2] = numbers;
                    if (g == 0 && real) {
                        *(uint4 *)(keys + place * (2 * DIM) + 64 * i + 16 * t) = numbers;
                        give(own_k + 32 * i, k[i]);
                    }
                }
#pragma unroll
                for (int i = 0; i < DIM / 64; i++) {
                    uint4 numbers = rounded<T>(v[i]);

#pragma unroll
                    for (int j = 0; j < 4 * TILES; j++)
                        if (place == 2 * t + j % 2 + j / 2 % 2 * 8 && last == j / 4)
                            x[j / 4].v[i][j % 4] = numbers;
                    if (t == 0 && real)
                        *(uint4 *)(values + place * (2 * DIM) + 128 * i + 16 * g) = numbers;
                }
            }
            score<T, DIM, TILES>(s, most, x, q, a.scale, p + 1 - tile * TILE, step * TILE);
            weigh<T, DIM, TILES>(room, x, s, most);
        }
        if (real)
            __syncthreads();

        /* Of heads of 64 numbers a thread takes half of what a lane of a warp had, of 128 all. */
        int n = real ? min((n_tiles - rank + n_blocks - 1) / n_blocks, +WARPS)
                     : 0; /* warps that have some */
        int m = DIM == 64 ? warp % 4 : warp, half = DIM == 64 ? warp / 4 : 0;
        float r[N];
        float4 soft;
        join(
            r, soft, n, [&](int i) { return room.soft[i][t]; },
            [&](float(&y)[N], int i) {
                get<N>(y, (const float *)&room.acc[i][m][lane] + 2 * half);
            });
        if constexpr (CLUSTER) {
            int each = WARPS / n_blocks, to = warp / each, place = rank * each + warp % each;

            if (real)
                write_other(room.handed[place] + lane * N, r, to);
            if (warp % each == 0 && lane < 4 && real) {
                float of_all[4] = {soft.x, soft.y, soft.z, soft.w};

                write_other(&room.handed_soft[rank][lane], of_all, to);
            }
            if (real)
                meet_cluster();
            int own = warp + rank * each;

            m = DIM == 64 ? own % 4 : own;
            half = DIM == 64 ? own / 4 : 0;
            if (warp < each || !real)
                join(
                    r, soft, real ? n_blocks : 0, [&](int i) { return room.handed_soft[i][t]; },
                    [&](float(&y)[N], int i) {
                        get<N>(y, room.handed[i * each + warp] + lane * N);
                    });
        }
        if (!CLUSTER || warp < WARPS / n_blocks || !real) {
            float *y = a.y + (size_t)row * a.y_stride +
                       blockIdx.y * (a.head_step == 1 ? a.group : 1) * DIM + m / 4 * 64 + 8 * g +
                       m % 4 * 2 + half;
            float by[2] = {__fdividef(1, soft.y), __fdividef(1, soft.w)};

#pragma unroll
            for (int i = 0; i < 2; i++)
                if (2 * t + i < group) {
                    float *to = y + (2 * t + i) * a.head_step * DIM;

                    if constexpr (DIM == 64)
                        *to = r[i] * by[i];
                    else
                        *(float2 *)to = make_float2(r[i] * by[i], r[2 + i] * by[i]);
                }
        }
        if (real)
            break;
    }
    /* All have read them. */
    if (warp == 0 && rank == 0 && g < a.group)
#pragma unroll
        for (int i = 0; i < S; i++)
            give(own_q + 32 * i, q[i]);
}

/* --- Launching --- */

/* 16 bytes at a time of every row. */
static bool wide(const tensor *x)
{
    return (uintptr_t)x->data % 16 == 0 && x->stride % 4 == 0 && x->stride >= x->cols &&
           x->stride <= 1 << 30;
}

/* Is the part nothing but turned as a whole, and maybe normed? */
static bool part_fits(const struct cuda_heads_part *p, int dim)
{
    return p->head_dim == dim && wide(&p->x) && p->table.cols == dim && !p->interleaved &&
           wide(&p->table) && (!p->normed || (p->w && (uintptr_t)p->w % 16 == 0));
}

/* The parts of queries, keys and values of heads that wait; false: they are others. */
static bool find_parts(const struct cuda_heads *h, const tensor *q, int dim,
                       const struct cuda_heads_part **of)
{
    of[0] = of[1] = of[2] = NULL;
    for (int i = 0; i < h->n; i++) {
        const struct cuda_heads_part *p = &h->parts[i];

        of[!p->stored ? 0 : p->values ? 2 : 1] = p;
    }
    return h->n == 3 && of[0] && of[1] && of[2] && cuda_same(&of[0]->x, q) &&
           part_fits(of[0], dim) && part_fits(of[1], dim) && of[2]->head_dim == dim &&
           wide(&of[2]->x) && !of[2]->normed && !of[2]->table.cols &&
           of[0]->normed == of[1]->normed && cuda_same(&of[0]->table, &of[1]->table);
}

/* Is it a plain cache of halves, and are scores nothing but scaled? */
static bool call_fits(const struct attend_args *a)
{
    const struct cuda_pool *pool = &a->kv.now;

    return !pool->bits && a->kv.split == 0 && a->kv.n_last == 0 && a->group <= GROUP &&
           a->kv.k_dim == a->kv.v_dim && (a->kv.k_dim == 64 || a->kv.k_dim == 128) &&
           !(a->softcap > 0) && !a->slopes && !a->sinks && !a->block_size && !a->kept &&
           !a->log_sums;
}

/* How many blocks share the keys of a sequence; 0: there are too many, or not a row of each. A
 * power of two: the launch changes seldom as sequences grow. */
static int blocks_of(const struct cuda_device *c, const struct attend_args *a,
                     const struct kv_batch *batch, int *tiles)
{
    int n = 1, most = MOST_TILES(a->kv.k_dim);

    for (int i = 0; i < batch->n_sequences; i++) {
        const struct kv_sequence *s = &batch->sequences[i];

        if (s->n_rows != 1 || s->n_gone || (a->window > 0 && s->position >= a->window) ||
            (a->chunk > 0 && s->position >= a->chunk))
            return 0;
        while (n <= MAX_CLUSTER * most && n * KEYS <= s->position)
            n *= 2;
    }
    *tiles = n > MAX_CLUSTER ? n / MAX_CLUSTER : 1;
    n /= *tiles;
    return *tiles <= most &&
                   (int64_t)n * batch->n_sequences * a->kv.n_kv_heads <= 2 * c->n_processors
               ? n
               : 0;
}

template <typename T, int DIM>
static void launch(struct cuda_device *c, const struct few_args &a, bool norm, int tiles,
                   const struct cuda_shape &shape)
{
    if (tiles == 4)
        cuda_launch(c,
                    norm ? few_kernel<T, DIM, true, true, MOST_TILES(DIM)>
                         : few_kernel<T, DIM, false, true, MOST_TILES(DIM)>,
                    shape, a);
    else if (tiles == 2)
        cuda_launch(c,
                    norm ? few_kernel<T, DIM, true, true, 2> : few_kernel<T, DIM, false, true, 2>,
                    shape, a);
    else if (shape.cluster > 1)
        cuda_launch(c,
                    norm ? few_kernel<T, DIM, true, true, 1> : few_kernel<T, DIM, false, true, 1>,
                    shape, a);
    else
        cuda_launch(c,
                    norm ? few_kernel<T, DIM, true, false, 1> : few_kernel<T, DIM, false, false, 1>,
                    shape, a);
}

bool attend_few(struct cuda_device *c, const struct attend_args *a, const struct kv_batch *batch,
                const tensor *q, const tensor *y)
{
    const struct cuda_heads *h = &c->waiting.heads;
    const struct cuda_heads_part *of[3];
    int dim = a->kv.k_dim, n, tiles;

    if (c->waiting.kind != CUDA_HEADS || h->sequences != a->batch.sequences || !call_fits(a) ||
        !find_parts(h, q, dim, of) || !wide(y) || cuda_overlap(y, q) ||
        cuda_overlap(y, &of[1]->x) || cuda_overlap(y, &of[2]->x) || cuda_overlap(y, &of[0]->table))
        return false;
    if (h->layer.slabs != (void *)a->kv.now.slabs || h->layer.v_offset != a->kv.now.values.rows ||
        h->layer.k_offset != a->kv.now.keys.rows)
        return false;
    n = blocks_of(c, a, batch, &tiles);
    if (!n)
        return false;
    struct few_args f = {};
    struct cuda_shape shape = {dim3(batch->n_sequences, a->kv.n_kv_heads, n), dim3(THREADS), 0,
                               true};
    bool norm = of[0]->normed;
    f.sequences = a->batch.sequences;
    f.slabs = (const unsigned long long *)a->kv.now.slabs;
    f.block_bytes = a->kv.now.block_bytes;
    f.keys = a->kv.now.keys.rows;
    f.values = a->kv.now.values.rows;
    f.q = a->q.data;
    f.k = (float *)of[1]->x.data;
    f.v = (float *)of[2]->x.data;
    f.y = a->y.data;
    f.table = (const float *)of[0]->table.data;
    f.q_norm = of[0]->w;
    f.k_norm = of[1]->w;
    f.q_stride = (unsigned)q->stride;
    f.k_stride = (unsigned)of[1]->x.stride;
    f.v_stride = (unsigned)of[2]->x.stride;
    f.y_stride = (unsigned)y->stride;
    f.table_stride = (unsigned)of[0]->table.stride;
    f.scale = a->scale * LOG2_E;
    f.q_eps = of[0]->eps;
    f.k_eps = of[1]->eps;
    f.slab_shift = a->kv.now.slab_shift;
    f.block_shift = a->block_shift;
    f.group = a->group;
    f.head_step = a->tiled ? a->kv.n_kv_heads : 1;
    f.ahead = !c->stored || c->stored == f.sequences;
    shape.cluster = (unsigned)n;
    cuda_take(c);
    if (a->kv.now.type == DTYPE_F16)
        dim == 64 ? launch<__half, 64>(c, f, norm, tiles, shape)
                  : launch<__half, 128>(c, f, norm, tiles, shape);
    else
        dim == 64 ? launch<__nv_bfloat16, 64>(c, f, norm, tiles, shape)
                  : launch<__nv_bfloat16, 128>(c, f, norm, tiles, shape);
    cuda_stored(c, f.sequences);
    c->attended_at = c->n_given;
    c->attended_blocks = (int)(shape.grid.x * shape.grid.y * shape.grid.z);
    return true;
}
