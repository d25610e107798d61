/* device/cuda/product_tiles_sm90.cu: products of 9 to 128 rows, on Hopper: weights are read once,
 * at nearly the speed of memory.
 *
 * A block has 256 outputs of all rows: weights and x come to shared memory, by copies of tensors,
 * 64 numbers of each row at a time, several such steps ahead of the warpgroups that multiply them,
 * of which each has 64 outputs. Weights do not wait for what was launched before. Where outputs are
 * few, a cluster of blocks has the same ones, each a part of the numbers that are summed over, and
 * puts the sums together in order. What comes after the product is done with them while they are at
 * hand.
 */
#include <cuda.h>

#include "device/cuda/cluster.cuh"
#include "device/cuda/halves.h"
#include "device/cuda/math.cuh"
#include "device/cuda/products.h"
#include "device/cuda/rows.cuh"
#include "device/cuda/wgmma.cuh"

enum {
    GROUP = 128, /* threads of a warpgroup */
    GROUPS = 4,
    MULTIPLYING = GROUPS * GROUP,
    THREADS = MULTIPLYING + WARP, /* a warp has weights and x brought */
    OUTPUTS = 64 * GROUPS,
    STEP = 64,
    STEP_BYTES = STEP * 2,
    PITCH = OUTPUTS + 4, /* floats of a row of sums, such that stores meet no bank twice */
    MOST_ROWS = 128
};

/* Shared memory: stages of weights and x, later the sums; barriers. */
template <int N> struct tile_shape {
    static const int stages = N == 64 ? 5 : 4;
    static const int weight_bytes = OUTPUTS * STEP_BYTES,
                     stage_bytes = weight_bytes + N * STEP_BYTES;
    static const int shared = 1024 + stages * stage_bytes + 2 * stages * 8;
    static_assert(stages * stage_bytes >= N * PITCH * 4, "room for the sums");
};

struct part {
    const float *bias;
    struct rows y;
    int n_out, first_tile;
    bool wide; /* four outputs of y can be stored at a time */
};

struct tiles {
    CUtensorMap x, weights[CUDA_STREAM_JOBS];
    struct part parts[CUDA_STREAM_JOBS];
    int n_parts, n_steps, steps_each;
    int n_rows;
    enum cuda_tail_kind kind;
    enum activation act;
    struct rows to; /* of the tail */
    float scale;
    bool wide, over_gate;      /* to is the first part's y */
    struct cuda_halves halves; /* of to */
};

/* What a block has. */
struct tile {
    int part, first; /* output */
    int begin, end;  /* steps */
};

[[maybe_unused]] static __device__ __forceinline__ struct tile tile_of(const struct tiles &p)
{
    int part = p.n_parts - 1;

    while (part > 0 && (int)blockIdx.x < p.parts[part].first_tile)
        part--;
    int begin = blockIdx.z * p.steps_each;
    int each = p.kind == CUDA_TAIL_GLU ? OUTPUTS / 2 : OUTPUTS;
    return {part, ((int)blockIdx.x - p.parts[part].first_tile) * each, begin,
            min(begin + p.steps_each, p.n_steps)};
}

struct room {
    uint32_t stages, barriers;
};

template <int N> static __device__ __forceinline__ uint32_t there(const struct room &r, int n)
{
    return r.barriers + n % tile_shape<N>::stages * 8;
}

template <int N> static __device__ __forceinline__ uint32_t used(const struct room &r, int n)
{
    return r.barriers + (tile_shape<N>::stages + n % tile_shape<N>::stages) * 8;
}

template <int N> static __device__ __forceinline__ uint32_t stage_at(const struct room &r, int n)
{
    return r.stages + n % tile_shape<N>::stages * tile_shape<N>::stage_bytes;
}

/* --- Bringing --- */

/* Of a gate and up the first half of the outputs are the gate's. */
template <int N>
static __device__ __forceinline__ void bring_weights(const struct tiles &p, const struct tile &tile,
                                                     const struct room &room, int n)
{
    bool paired = p.kind == CUDA_TAIL_GLU;
    const CUtensorMap *a = &p.weights[tile.part], *b = &p.weights[paired ? 1 : tile.part];
    uint32_t to = stage_at<N>(room, n), barrier = there<N>(room, n);
    int k = (tile.begin + n) * STEP;

    barrier_expect(barrier, tile_shape<N>::stage_bytes);
    barrier_copy(barrier, to, a, k, tile.first);
    barrier_copy(barrier, to + OUTPUTS / 2 * STEP_BYTES, b, k,
                 tile.first + (paired ? 0 : OUTPUTS / 2));
}

template <int N>
static __device__ __forceinline__ void bring_x(const struct tiles &p, const struct tile &tile,
                                               const struct room &room, int n)
{
    barrier_copy(there<N>(room, n), stage_at<N>(room, n) + tile_shape<N>::weight_bytes, &p.x,
                 (tile.begin + n) * STEP, 0);
}

/* By one thread; weights before anything is waited for. */
template <int N>
static __device__ __forceinline__ void bring_all(const struct tiles &p, const struct tile &tile,
                                                 const struct room &room)
{
    const int stages = tile_shape<N>::stages;
    int n_steps = tile.end - tile.begin, n_first = min(n_steps, stages);

    for (int n = 0; n < n_first; n++)
        bring_weights<N>(p, tile, room, n);
    cuda_wait();
    for (int n = 0; n < n_first; n++)
        bring_x<N>(p, tile, room, n);
    for (int n = n_first; n < n_steps; n++) {
        barrier_wait(used<N>(room, n), n / stages + 1);
        bring_weights<N>(p, tile, room, n);
        bring_x<N>(p, tile, room, n);
    }
}

/* --- Multiplying --- */

template <int N>
static __device__ __forceinline__ void multiply(float (&acc)[N / 8][4], const struct tile &tile,
                                                const struct room &room)
{
    int group = threadIdx.x / GROUP, lane = threadIdx.x % WARP;

    wgmma_hold(acc);
    for (int n = 0; n < tile.end - tile.begin; n++) {
        uint32_t w = stage_at<N>(room, n) + group * 64 * STEP_BYTES;
        uint32_t x = stage_at<N>(room, n) + tile_shape<N>::weight_bytes;

        barrier_wait(there<N>(room, n), n / tile_shape<N>::stages);
        wgmma_begin();
#pragma unroll
        for (int k = 0; k < STEP / 16; k++)
            wgmma_rows<__nv_bfloat16, N / 8>(acc, wgmma_matrix(w + 32 * k, 16),
                                             wgmma_matrix(x + 32 * k, 16), true);
        wgmma_close();
        wgmma_wait<1>();
        if (n > 0 && lane == 0)
            barrier_arrive(used<N>(room, n - 1));
    }
    wgmma_wait<0>();
    wgmma_hold(acc);
}

/* In the place of stages, which all have read. */
template <int N>
static __device__ __forceinline__ void keep_sums(float *sums, const float (&acc)[N / 8][4])
{
    int lane = threadIdx.x % WARP, o = threadIdx.x / WARP * 16 + lane / 4, t = lane % 4;

#pragma unroll
    for (int i = 0; i < N / 8; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            sums[(8 * i + 2 * t + j % 2) * PITCH + o + j / 2 * 8] = acc[i][j];
}

/* --- What comes after --- */

static __device__ __forceinline__ void add_bias(float (&v)[4], const struct part &part, int o)
{
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (part.bias && o + i < part.n_out)
            v[i] += __ldg(part.bias + o + i);
}

/* n of four numbers from o on. */
static __device__ __forceinline__ void put(float *to, const float (&v)[4], int n, bool wide)
{
    if (wide && n >= 4) {
        *(float4 *)to = make_float4(v[0], v[1], v[2], v[3]);
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (i < n)
            to[i] = v[i];
}

/* What sums are added to, of which a thread reads the first few while the product is under way. */
enum { EARLY = 2 };

struct addends {
    float4 v[EARLY];
};

static __device__ __forceinline__ float4 addend(const float *at, int n, bool wide)
{
    if (wide && n >= 4)
        return *(const float4 *)at;
    return make_float4(n > 0 ? at[0] : 0, n > 1 ? at[1] : 0, n > 2 ? at[2] : 0, n > 3 ? at[3] : 0);
}

/* Number i of the block's fours of sums: its row, and its first output. */
static __device__ __forceinline__ int row_of(const struct tiles &p, int i)
{
    int shift = p.kind == CUDA_TAIL_GLU ? 5 : 6;

    static_assert(OUTPUTS / 4 == 64, "as many fours as the shift says");
    return blockIdx.z + gridDim.z * (i >> shift);
}

static __device__ __forceinline__ int output_of(const struct tiles &p, int i)
{
    return i % (p.kind == CUDA_TAIL_GLU ? OUTPUTS / 8 : OUTPUTS / 4) * 4;
}

[[maybe_unused]] static __device__ __forceinline__ void
ask_addends(struct addends &a, const struct tiles &p, const struct tile &tile)
{
#pragma unroll
    for (int j = 0; j < EARLY; j++) {
        int i = threadIdx.x + j * THREADS, row = row_of(p, i), o = tile.first + output_of(p, i);

        a.v[j] = {};
        if (p.kind == CUDA_TAIL_ADD && row < p.n_rows)
            a.v[j] = addend(row_at(p.to, row) + o, p.parts[tile.part].n_out - o, p.wide);
    }
}

static __device__ __forceinline__ void add_to(float *to, const float4 &a, const float (&v)[4],
                                              float scale, int n, bool wide)
{
    float sum[4] = {a.x + scale * v[0], a.y + scale * v[1], a.z + scale * v[2], a.w + scale * v[3]};

    put(to, sum, n, wide);
}

/* Four sums from q on of a row, of all blocks of the cluster, in order. */
static __device__ __forceinline__ void sum_up(float (&v)[4], const float *sums, int row, int q,
                                              int n_splits)
{
    const float *at = sums + row * PITCH + q;
    float x[MAX_CLUSTER][4];

    if (n_splits == 1) {
        float4 own = *(const float4 *)at;

        v[0] = own.x, v[1] = own.y, v[2] = own.z, v[3] = own.w;
        return;
    }
#pragma unroll
    for (int b = 0; b < MAX_CLUSTER; b++)
        if (b < n_splits)
            read_other<4>(x[b], at, b);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        v[i] = x[0][i];
#pragma unroll
        for (int b = 1; b < MAX_CLUSTER; b++)
            if (b < n_splits)
                v[i] += x[b][i];
    }
}

static __device__ __forceinline__ void finish_pair(const struct tiles &p, int row, int o,
                                                   float (&gate)[4], float (&up)[4])
{
    int n = p.parts[0].n_out - o;
    float v[4];

    if (n <= 0)
        return;
    add_bias(gate, p.parts[0], o);
    add_bias(up, p.parts[1], o);
    if (!p.over_gate)
        put(row_at(p.parts[0].y, row) + o, gate, n, p.parts[0].wide);
    put(row_at(p.parts[1].y, row) + o, up, n, p.parts[1].wide);
#pragma unroll
    for (int i = 0; i < 4; i++)
        v[i] = glu_of(gate[i], up[i], p.act);
    put(row_at(p.to, row) + o, v, n, p.wide);
    if (p.halves.data)
        *(uint2 *)(p.halves.data + row * p.halves.stride + o) =
            make_uint2(mma_pack<__nv_bfloat16>(v[0], v[1]), mma_pack<__nv_bfloat16>(v[2], v[3]));
}

/* This block's share of the rows. */
[[maybe_unused]] static __device__ __forceinline__ void finish(const struct tiles &p,
                                                               const struct tile &tile,
                                                               const float *sums,
                                                               const struct addends &addends)
{
    bool paired = p.kind == CUDA_TAIL_GLU;
    int n_splits = gridDim.z, turn = 0;

    for (int i = threadIdx.x;; i += THREADS, turn++) {
        int row = row_of(p, i), q = output_of(p, i), o = tile.first + q;
        const struct part &part = p.parts[tile.part];
        float v[4];

        if (row >= p.n_rows)
            return;
        sum_up(v, sums, row, q, n_splits);
        if (paired) {
            float up[4];

            sum_up(up, sums, row, q + OUTPUTS / 2, n_splits);
            finish_pair(p, row, o, v, up);
            continue;
        }
        int n = part.n_out - o;
        if (n <= 0)
            continue;
        add_bias(v, part, o);
        put(row_at(part.y, row) + o, v, n, part.wide);
        if (p.kind == CUDA_TAIL_ADD) {
            float *to = row_at(p.to, row) + o;
            float4 a = turn == 0 ? addends.v[0] : turn == 1 ? addends.v[1] : addend(to, n, p.wide);

            add_to(to, a, v, p.scale, n, p.wide);
        }
    }
}

/* --- The kernel --- */

/* N: rows that there is room for. */
template <int N>
static __global__ void __launch_bounds__(THREADS, 1)
    tiles_kernel(const __grid_constant__ struct tiles p)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    typedef tile_shape<N> S;
    extern __shared__ char memory[];
    uint32_t start = (uint32_t)__cvta_generic_to_shared(memory), base = (start + 1023) & ~1023u;
    const struct room room = {base, base + S::stages * S::stage_bytes};
    const struct tile tile = tile_of(p);
    float *sums = (float *)(memory + (base - start));

    cuda_let_go();
    if (threadIdx.x == 0) {
        for (int i = 0; i < S::stages; i++) {
            barrier_open(there<N>(room, i), 1);
            barrier_open(used<N>(room, i), MULTIPLYING / WARP);
        }
        barrier_show();
    }
    __syncthreads();
    struct addends addends;
    if (threadIdx.x == MULTIPLYING)
        bring_all<N>(p, tile, room);
    __syncwarp();
    cuda_wait();
    ask_addends(addends, p, tile);
    float acc[N / 8][4] = {};
    if (threadIdx.x < MULTIPLYING)
        multiply<N>(acc, tile, room);
    __syncthreads();
    if (threadIdx.x < MULTIPLYING)
        keep_sums<N>(sums, acc);
    __syncthreads();
    if (gridDim.z > 1)
        meet_cluster();
    finish(p, tile, sums, addends);
    if (gridDim.z > 1)
        meet_cluster(); /* others may read this block's sums */
#endif
}

/* --- Launching --- */

/* The driver's function that describes tensors; clm is not linked with the driver. */
typedef decltype(&cuTensorMapEncodeTiled) describe_fn;

void cuda_tiles_open(struct cuda_device *c)
{
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    void *describe = NULL;

    if (!wgmma_built_for(c->arch))
        return;
#if CUDART_VERSION >= 12050
    cudaError_t status = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &describe,
                                                          12000, cudaEnableDefault, &found);
#else
    cudaError_t status =
        cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &describe, cudaEnableDefault, &found);
#endif
    if (status == cudaSuccess && found == cudaDriverEntryPointSuccess)
        c->describe_tensor = describe;
    else
        (void)cudaGetLastError();
}

/* Rows of bf16 of which boxes of so many rows, of a step's numbers, are copied: pieces of 16 bytes
 * where wgmma.cuh has them, zeros for what is outside. */
static bool describe(const struct cuda_device *c, CUtensorMap *map, const void *data, int cols,
                     int64_t stride, int rows, int box_rows)
{
    cuuint64_t size[] = {(cuuint64_t)cols, (cuuint64_t)rows}, pitch[] = {(cuuint64_t)stride * 2};
    cuuint32_t box[] = {STEP, (cuuint32_t)box_rows}, steps[] = {1, 1};

    return ((describe_fn)c->describe_tensor)(
               map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, (void *)(uintptr_t)data, size, pitch, box,
               steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
               CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
               CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

int cuda_tiles_rows(const struct cuda_device *c)
{
    return c->describe_tensor && c->shared_memory >= tile_shape<64>::shared &&
                   c->shared_memory >= tile_shape<128>::shared
               ? MOST_ROWS
               : 0;
}

bool cuda_tiles_suit(const struct weight *w)
{
    return w->format == WEIGHT_BF16 && (uintptr_t)w->data % 16 == 0 && w->n_in % 8 == 0;
}

/* How many clusters of n blocks the GPU holds. */
template <int N> static int clusters_of(struct cuda_device *c, int n)
{
    int *known = &c->clusters[N > 64][n];
    cudaLaunchAttribute cluster = {};
    cudaLaunchConfig_t config = {};

    if (*known)
        return *known;
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = cluster.val.clusterDim.y = 1;
    cluster.val.clusterDim.z = (unsigned)n;
    config.gridDim = dim3(1, 1, (unsigned)n);
    config.blockDim = dim3(THREADS);
    config.dynamicSmemBytes = tile_shape<N>::shared;
    config.attrs = &cluster;
    config.numAttrs = 1;
    if (cudaFuncSetAttribute((const void *)tiles_kernel<N>,
                             cudaFuncAttributeMaxDynamicSharedMemorySize,
                             tile_shape<N>::shared) != cudaSuccess ||
        cudaOccupancyMaxActiveClusters(known, tiles_kernel<N>, &config) != cudaSuccess ||
        *known < 1) {
        (void)cudaGetLastError();
        *known = c->n_processors / n > 1 ? c->n_processors / n : 1;
    }
    return *known;
}

/* Into how many parts to split the sums: the sooner the last of all blocks has ended. A step of a
 * block takes some 0.8 us, and 8 ns of each block that there is; a block besides 3. */
template <int N> static int splits_for(struct cuda_device *c, int n_tiles, int n_steps)
{
    float least = 0;
    int best = 1;

    for (int n = 1; n <= MAX_CLUSTER && n <= n_steps; n++) {
        int each = (n_steps + n - 1) / n, room = clusters_of<N>(c, n);
        int turns = (n_tiles + room - 1) / room, at_a_time = n * (n_tiles < room ? n_tiles : room);
        float step = 0.008f * (float)at_a_time, time;

        if ((n - 1) * each >= n_steps)
            continue;
        time = (float)turns * ((float)each * (step > 0.8f ? step : 0.8f) + (n > 1 ? 4 : 3));
        if (n == 1 || time < least) {
            least = time;
            best = n;
        }
    }
    return best;
}

template <int N> static void launch(struct cuda_device *c, struct tiles *p, int n_tiles)
{
    int n_splits = splits_for<N>(c, n_tiles, p->n_steps);
    struct cuda_shape shape = shape_of(dim3((unsigned)n_tiles, 1, (unsigned)n_splits),
                                       dim3(THREADS), tile_shape<N>::shared);

    p->steps_each = (p->n_steps + n_splits - 1) / n_splits;
    shape.cluster = (unsigned)n_splits;
    cuda_launch(c, tiles_kernel<N>, shape, *p);
}

static void take_tail(struct cuda_device *c, struct tiles *p, const struct cuda_tail *t,
                      const struct cuda_halves *x)
{
    p->kind = t->kind;
    if (t->kind == CUDA_NO_TAIL)
        return;
    p->to = rows_of(&t->y);
    p->scale = t->scale;
    p->act = t->act;
    p->wide = rows_are_wide(&t->y);
    if (t->kind == CUDA_TAIL_GLU) {
        p->over_gate = t->y.data == p->parts[0].y.data;
        p->halves = cuda_halves_beside(c, &t->y, x);
    }
}

void cuda_product_tiles(struct cuda_device *c, const struct cuda_product *product)
{
    struct tiles p = {};
    struct cuda_halves x = cuda_halves_of(c, &product->x);
    int n_tiles = 0, n_rows = product->x.rows, n_in = product->w[0].n_in;
    int each = product->tail.kind == CUDA_TAIL_GLU ? OUTPUTS / 2 : OUTPUTS;

    if (!x.data)
        return; /* and the failure is kept */
    bool ok = describe(c, &p.x, x.data, n_in, x.stride, n_rows, n_rows <= 64 ? 64 : 128);
    for (int i = 0; i < product->n_jobs; i++) {
        struct part *part = &p.parts[i];

        ok = ok && describe(c, &p.weights[i], product->w[i].data, n_in, n_in, product->w[i].n_out,
                            OUTPUTS / 2);
        part->bias = product->bias[i];
        part->y = rows_of(&product->y[i]);
        part->wide = rows_are_wide(&product->y[i]);
        part->n_out = product->w[i].n_out;
        part->first_tile = n_tiles;
        n_tiles += (int)blocks_for(part->n_out, each);
    }
    p.n_parts = product->n_jobs;
    if (product->tail.kind == CUDA_TAIL_GLU) { /* the tiles of both are the same */
        p.n_parts = 1;
        n_tiles = (int)blocks_for(p.parts[0].n_out, each);
    }
    if (!ok) {
        cuda_fail(c, CLM_ERR_DEVICE,
                  "cuda: the driver cannot describe a matrix of %d numbers a row", n_in);
        return;
    }
    p.n_rows = n_rows;
    p.n_steps = (n_in + STEP - 1) / STEP;
    take_tail(c, &p, &product->tail, &x);
    if (p.n_rows <= 64)
        launch<64>(c, &p, n_tiles);
    else
        launch<128>(c, &p, n_tiles);
    if (p.halves.data)
        cuda_halves_made(c, &product->tail.y, &p.halves);
    else
        cuda_halves_made(c, &product->x, &x); /* products write elsewhere */
}
