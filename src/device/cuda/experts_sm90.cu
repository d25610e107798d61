/* device/cuda/experts_sm90.cu: products of many rows with the experts that they chose, on Hopper.
 *
 * Choices are grouped by expert, so that a block has up to 128 rows of one expert; it multiplies
 * them, as bf16, with 128 of the expert's outputs, 64 numbers at a time. Weights become bf16 in
 * shared memory while the products of the numbers before are under way.
 */
#include "device/cuda/codes.cuh"
#include "device/cuda/halves.h"
#include "device/cuda/products.h"
#include "device/cuda/rows.cuh"
#include "device/cuda/wgmma.cuh"

enum {
    THREADS = 256,
    GROUP_THREADS = 1024,
    MAX_EXPERTS = 2048,
    COLS = 128,              /* outputs of a block */
    STEP = 64,               /* numbers of a row at a time */
    MATRIX = 128 * STEP * 2, /* bytes of 128 rows of them */
    X_STAGES = 3,
    W_STAGES = 2,
    SHARED = (X_STAGES + W_STAGES) * MATRIX + 1024,
    FEW = 24 /* choices of an expert, on average, for which blocks have 64 rows */
};

/* Choices [begin, end) of the order are of one expert. */
struct tile {
    int expert, begin, end;
};

struct grouped {
    int32_t *order; /* of choices, those of an expert together */
    struct tile *tiles;
    int *n_tiles;
};

/* By one block. Which of an expert's choices comes first is left to chance: what a row gives does
 * not depend on the others of its tile. */
static __global__ void __launch_bounds__(GROUP_THREADS)
    group_kernel(struct grouped to, struct cuda_experts e, int n_choices, int tile_rows)
{
    __shared__ int counts[MAX_EXPERTS], begins[MAX_EXPERTS], tiles[MAX_EXPERTS];
    __shared__ int n_tiles;

    cuda_begin();
    for (int i = threadIdx.x; i < e.n_experts; i += GROUP_THREADS)
        counts[i] = 0;
    __syncthreads();
    for (int p = threadIdx.x; p < n_choices; p += GROUP_THREADS)
        atomicAdd(&counts[e.ids[p / e.per_row * e.ids_stride + p % e.per_row]], 1);
    __syncthreads();
    if (threadIdx.x < WARP) {
        int lane = threadIdx.x, before = 0, tiles_before = 0;

        for (int base = 0; base < e.n_experts; base += WARP) {
            int n = base + lane < e.n_experts ? counts[base + lane] : 0, until = n;
            int n_own = (n + tile_rows - 1) / tile_rows, tiles_until = n_own;

            for (int step = 1; step < WARP; step *= 2) {
                int a = __shfl_up_sync(0xffffffffu, until, step);
                int b = __shfl_up_sync(0xffffffffu, tiles_until, step);

                until += lane >= step ? a : 0;
                tiles_until += lane >= step ? b : 0;
            }
            if (base + lane < e.n_experts) {
                begins[base + lane] = before + until - n;
                tiles[base + lane] = tiles_before + tiles_until - n_own;
            }
            before += __shfl_sync(0xffffffffu, until, WARP - 1);
            tiles_before += __shfl_sync(0xffffffffu, tiles_until, WARP - 1);
        }
        n_tiles = tiles_before;
    }
    __syncthreads();
    if (threadIdx.x == 0)
        *to.n_tiles = n_tiles;
    for (int i = threadIdx.x; i < e.n_experts; i += GROUP_THREADS)
        for (int n = 0; n < counts[i]; n += tile_rows)
            to.tiles[tiles[i] + n / tile_rows] = {i, begins[i] + n,
                                                  begins[i] + min(n + tile_rows, counts[i])};
    __syncthreads();
    for (int p = threadIdx.x; p < n_choices; p += GROUP_THREADS)
        to.order[atomicAdd(&begins[e.ids[p / e.per_row * e.ids_stride + p % e.per_row]], 1)] = p;
}

/* --- Products --- */

struct part {
    const struct weight *ws; /* of all experts, in device memory */
    struct rows y;
    const float *bias;
};

struct product {
    struct grouped grouped;
    struct part parts[CUDA_STREAM_JOBS];
    struct cuda_halves x;
    int x_share, n_in, n_out;
    int group_shift; /* of codes.cuh */
};

/* Where 16 bytes of a row lie in a matrix of rows of 128 bytes. */
static __device__ __forceinline__ uint32_t piece_at(int r, int c)
{
    return (uint32_t)(r * 128 + ((c ^ r) & 7) * 16);
}

/* Numbers [k, k + STEP) of the tile's rows of x: thread i has the piece i % 8 of every 32nd row. */
template <int ROWS>
static __device__ __forceinline__ void
bring_x(const struct product &p, const uint16_t *const (&rows)[ROWS / 32], int k, uint32_t to)
{
    int c = threadIdx.x % 8, r = threadIdx.x / 8;

#pragma unroll
    for (int i = 0; i < ROWS / 32; i++) {
        bool there = rows[i] && k + 8 * c < p.x.stride;

        mma_copy(to + piece_at(r + 32 * i, c), there ? rows[i] + k + 8 * c : p.x.data, there);
    }
    mma_close_copies();
}

/* The same numbers of the expert's outputs from the first on, on their way: BITS 0 of any format.
 */
template <int BITS> struct bringing {
    struct eight<BITS> eights[COLS / 32];

    __device__ __forceinline__ void load(const struct weight &w, int first, int k, int group_shift)
    {
        int c = threadIdx.x % 8, r = threadIdx.x / 8;

#pragma unroll
        for (int i = 0; i < COLS / 32; i++) {
            int o = min(first + r + 32 * i, w.n_out - 1), at = min(k + 8 * c, w.n_in - 8);

            eights[i].load(w, o * (w.n_in / 8) + at / 8, group_shift);
        }
    }

    __device__ __forceinline__ void store(const struct weight &w, int, int, char *to) const
    {
        int c = threadIdx.x % 8, r = threadIdx.x / 8;

#pragma unroll
        for (int i = 0; i < COLS / 32; i++) {
            float v[8];

            eights[i].numbers(v, w);
            store_bf16s((uint16_t *)(to + piece_at(r + 32 * i, c)), v);
        }
    }
};

template <> struct bringing<0> {
    __device__ __forceinline__ void load(const struct weight &, int, int, int)
    {
    }

    __device__ __forceinline__ void store(const struct weight &w, int first, int k, char *to) const
    {
        int c = threadIdx.x % 8, r = threadIdx.x / 8;

#pragma unroll
        for (int i = 0; i < COLS / 32; i++) {
            int o = first + r + 32 * i;
            float v[8] = {};

            if (o < w.n_out && k + 8 * c < w.n_in)
                weight_numbers8(v, w, o, k + 8 * c);
            store_bf16s((uint16_t *)(to + piece_at(r + 32 * i, c)), v);
        }
    }
};

/* y of the tile, of the columns from the first on; where lanes have what, wgmma.cuh says. */
template <int N>
static __device__ __forceinline__ void put(const struct product &p, const struct part &part,
                                           const struct tile &tile, int first_row, int first,
                                           const float (&acc)[N][4])
{
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const float *bias = part.bias ? part.bias + (size_t)tile.expert * p.n_out : NULL;

#pragma unroll
    for (int half = 0; half < 2; half++) {
        int i = tile.begin + first_row + threadIdx.x / 32 % 4 * 16 + 8 * half + g;

        if (i >= tile.end)
            continue;
        float *y = row_at(part.y, p.grouped.order[i]);
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int k = 0; k < 2; k++) {
                int o = first + 8 * n + 2 * t + k;

                if (o < p.n_out)
                    y[o] = acc[n][2 * half + k] + (bias ? bias[o] : 0);
            }
    }
}

/* ROWS 128: a warpgroup has 64 rows and all columns; 64: all rows and half the columns. */
template <int ROWS, int BITS>
static __global__ void __launch_bounds__(THREADS, 2)
    experts_kernel(const __grid_constant__ struct product p)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    const int N = ROWS == 128 ? 16 : 8;
    extern __shared__ char memory[];
    uint32_t start = (uint32_t)__cvta_generic_to_shared(memory), base = (start + 1023) & ~1023u;
    int group = threadIdx.x / 128, first = blockIdx.x * COLS;
    int first_row = ROWS == 128 ? 64 * group : 0, first_col = ROWS == 128 ? 0 : 64 * group;
    const uint16_t *rows[ROWS / 32];
    struct bringing<BITS> bring;
    float acc[N][4] = {};

    cuda_begin();
    if ((int)blockIdx.y >= *p.grouped.n_tiles)
        return;
    const struct part &part = p.parts[blockIdx.z];
    const struct tile tile = p.grouped.tiles[blockIdx.y];
    const struct weight w = part.ws[tile.expert];
    char *weights = memory + (base - start) + X_STAGES * MATRIX;
#pragma unroll
    for (int i = 0; i < ROWS / 32; i++) {
        int at = tile.begin + threadIdx.x / 8 + 32 * i;

        rows[i] = at < tile.end ? p.x.data + p.grouped.order[at] / p.x_share * p.x.stride : NULL;
    }
    bring_x<ROWS>(p, rows, 0, base);
    bring_x<ROWS>(p, rows, STEP, base + MATRIX);
    bring.load(w, first, 0, p.group_shift);
    bring.store(w, first, 0, weights);
    bring.load(w, first, STEP, p.group_shift);
    for (int s = 0; s * STEP < p.n_in; s++) {
        uint32_t x = base + s % X_STAGES * MATRIX + (uint32_t)first_row * 128;
        uint32_t y = base + (X_STAGES + s % W_STAGES) * MATRIX + (uint32_t)first_col * 128;

        mma_wait_copies<1>();
        wgmma_see();
        __syncthreads();
        wgmma_hold(acc);
        wgmma_begin();
#pragma unroll
        for (int k = 0; k < STEP / 16; k++)
            wgmma_rows<__nv_bfloat16, N>(acc, wgmma_matrix(x + 32 * k, 16),
                                         wgmma_matrix(y + 32 * k, 16), true);
        wgmma_close();
        bring_x<ROWS>(p, rows, (s + 2) * STEP, base + (s + 2) % X_STAGES * MATRIX);
        if ((s + 1) * STEP < p.n_in)
            bring.store(w, first, (s + 1) * STEP, weights + (s + 1) % W_STAGES * MATRIX);
        bring.load(w, first, (s + 2) * STEP, p.group_shift);
        wgmma_wait<0>();
        wgmma_hold(acc);
    }
    put(p, part, tile, first_row, first + first_col, acc);
#endif
}

/* --- Launching --- */

static size_t aligned(size_t n)
{
    return (n + 255) / 256 * 256;
}

/* Groups the choices in scratch memory, with so many rows to a tile; the most tiles that there may
 * be, or 0 after a failure. */
static int group(struct cuda_device *c, struct grouped *g, const struct cuda_experts *e,
                 int n_choices, int tile_rows)
{
    int most = n_choices / tile_rows + (n_choices < e->n_experts ? n_choices : e->n_experts);
    size_t order = aligned((size_t)n_choices * sizeof *g->order);
    char *room = (char *)cuda_scratch(c, order + 256 + (size_t)most * sizeof *g->tiles);

    if (!room)
        return 0;
    g->order = (int32_t *)room;
    g->n_tiles = (int *)(room + order);
    g->tiles = (struct tile *)(room + order + 256);
    cuda_launch(c, group_kernel, shape_of(dim3(1), dim3(GROUP_THREADS), 0), *g, *e, n_choices,
                tile_rows);
    return most;
}

/* The bits of codes that codes.cuh can have of all experts, 0: it cannot. */
static int plain_bits(const struct weight *ws, int n_experts)
{
    for (int i = 0; i < n_experts; i++)
        if (ws[i].bits != ws->bits || code_group_shift(&ws[i]) == 0 ||
            code_group_shift(&ws[i]) != code_group_shift(ws))
            return 0;
    return ws->bits;
}

template <int ROWS> static void (*kernel_for(int bits))(struct product)
{
    return bits == 4   ? experts_kernel<ROWS, 4>
           : bits == 8 ? experts_kernel<ROWS, 8>
                       : experts_kernel<ROWS, 0>;
}

bool cuda_experts_suit_sm90(const struct cuda_device *c, const struct matmul_job *job,
                            int n_experts, int n_choices)
{
    return wgmma_built_for(c->arch) && c->shared_memory >= SHARED && n_experts <= MAX_EXPERTS &&
           job->w->format != WEIGHT_F32 && n_choices / MAX_GRID_Y < 16 && 2 * n_choices > n_experts;
}

void cuda_experts_sm90(struct cuda_device *c, const struct matmul_job *jobs, int n_jobs,
                       const tensor *x, const struct cuda_experts *e, int n_choices)
{
    int tile_rows = n_choices / e->n_experts < FEW ? 64 : 128, most, bits = 0;
    struct product p = {};

    p.x = cuda_halves_of(c, x);
    most = p.x.data ? group(c, &p.grouped, e, n_choices, tile_rows) : 0;
    if (!most)
        return; /* and the failure is kept */
    for (int i = 0; i < n_jobs; i++) {
        p.parts[i].ws = (const struct weight *)cuda_keep(c, jobs[i].w,
                                                         (size_t)e->n_experts * sizeof *jobs[i].w);
        p.parts[i].y = rows_of(jobs[i].y);
        p.parts[i].bias = jobs[i].bias;
        if (!p.parts[i].ws)
            return;
        int own = plain_bits(jobs[i].w, e->n_experts), shift = code_group_shift(jobs[i].w);
        bits = i == 0 || (own == bits && shift == p.group_shift) ? own : 0;
        p.group_shift = shift;
    }
    p.x_share = e->x_share;
    p.n_in = jobs[0].w->n_in;
    p.n_out = jobs[0].w->n_out;
    cuda_launch(c, tile_rows == 64 ? kernel_for<64>(bits) : kernel_for<128>(bits),
                shape_of(dim3(blocks_for(p.n_out, COLS), (unsigned)most, (unsigned)n_jobs),
                         dim3(THREADS), SHARED),
                p);
}
