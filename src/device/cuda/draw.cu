/* device/cuda/draw.cu: who comes first in the race for a row's token, by the rules of
 * device/cpu/draw.c.
 *
 * Some blocks share each row, as far as a warp can put together what they find; the last of them
 * does. Where anything is filtered a histogram of the row says first from which logit on tokens may
 * take part, and at the end all tokens are counted that lie above those who arrive. */
#include "device/draw.h"

#include "device/cuda/rows.cuh"

enum {
    THREADS = 512,
    COLUMNS = 8 * THREADS, /* of a block, of rows that are not too long for it */
    MAX_BLOCKS = WARP,
    MAX_ROWS = 256, /* of one launch */
    PER_LANE = DRAW_STEPS / WARP
};

typedef unsigned long long mass_sum;

/* One in the race. */
struct racer {
    float arrival; /* in the logarithm */
    int id;
};

/* What a block has found: its first two, and how many are in the race. */
struct found {
    struct racer first, second;
    int n;
};

struct draw_args {
    struct rows x;
    const int32_t *best;
    const struct draw_rule *rules;
    struct drawn *out;
    mass_sum *masses; /* [rows, DRAW_STEPS], with counts, edges only where anything is filtered */
    unsigned *counts;
    float *edges; /* [rows] */
    struct found *parts;
    unsigned *tickets;
    bool filtered;
};

/* Is this the last of the blocks of a row? What the others wrote can then be read. */
static __device__ bool is_last(const struct draw_args &a)
{
    __shared__ bool last;

    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        last = atomicAdd(a.tickets + blockIdx.y, 1u) == gridDim.x - 1;
        if (last)
            a.tickets[blockIdx.y] = 0;
    }
    __syncthreads();
    __threadfence();
    return last;
}

static __device__ __forceinline__ mass_sum mass_of(float logit, float max)
{
    return (mass_sum)(expf(logit - max) * DRAW_MASS);
}

/* --- Who may take part --- */

static __global__ void __launch_bounds__(THREADS) clear_kernel(struct draw_args a)
{
    int64_t n = (int64_t)a.x.n * DRAW_STEPS;

    cuda_begin();
    for (int64_t i = blockIdx.x * THREADS + threadIdx.x; i < n; i += gridDim.x * THREADS) {
        a.masses[i] = 0;
        a.counts[i] = 0;
    }
}

template <typename T> static __device__ __forceinline__ T scan_warp(T x)
{
    for (int step = 1; step < WARP; step *= 2) {
        T other = __shfl_up_sync(0xFFFFFFFF, x, step);

        x += threadIdx.x % WARP >= step ? other : 0;
    }
    return x;
}

/* By one warp: the last step that a filter may leave anything of; *total is the mass of all. */
static __device__ int last_step(const mass_sum *masses, const unsigned *counts,
                                const struct draw_rule &r, mass_sum *total)
{
    int first = threadIdx.x * PER_LANE, step = DRAW_STEPS - 1;
    mass_sum mass = 0, above;
    unsigned n = 0, n_above;
    double target;

    for (int i = first; i < first + PER_LANE; i++) {
        mass += masses[i];
        n += counts[i];
    }
    above = scan_warp(mass);
    n_above = scan_warp(n);
    *total = __shfl_sync(0xFFFFFFFF, above, WARP - 1);
    target = draw_target(&r, *total);
    above -= mass;
    n_above -= n;
    for (int i = first; i < first + PER_LANE; i++) {
        above += masses[i];
        n_above += counts[i];
        if ((double)above >= target || n_above >= (unsigned)r.top_k) {
            step = i;
            break;
        }
    }
    return __reduce_min_sync(0xFFFFFFFF, step);
}

static __global__ void __launch_bounds__(THREADS) edge_kernel(struct draw_args a)
{
    __shared__ mass_sum masses[DRAW_STEPS];
    __shared__ unsigned counts[DRAW_STEPS];
    int row = blockIdx.y;

    cuda_begin();
    if (a.best[row] < 0)
        return;
    const float *x = row_at(a.x, row);
    float max = x[a.best[row]];
    mass_sum *all_masses = a.masses + (int64_t)row * DRAW_STEPS;
    unsigned *all_counts = a.counts + (int64_t)row * DRAW_STEPS;

    for (int i = threadIdx.x; i < DRAW_STEPS; i += THREADS) {
        masses[i] = 0;
        counts[i] = 0;
    }
    __syncthreads();
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < a.x.cols; i += gridDim.x * THREADS) {
        float v = x[i];
        int step = draw_step(max, v);

        if (v >= -FLT_MAX) {
            atomicAdd(&masses[step], mass_of(v, max));
            atomicAdd(&counts[step], 1u);
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < DRAW_STEPS; i += THREADS)
        if (counts[i]) {
            atomicAdd(&all_masses[i], masses[i]);
            atomicAdd(&all_counts[i], counts[i]);
        }
    if (!is_last(a))
        return;
    for (int i = threadIdx.x; i < DRAW_STEPS; i += THREADS) {
        masses[i] = __ldcg(&all_masses[i]);
        counts[i] = __ldcg(&all_counts[i]);
    }
    __syncthreads();
    if (threadIdx.x < WARP) {
        const struct draw_rule &r = a.rules[row];
        mass_sum total;
        int step = last_step(masses, counts, r, &total);

        if (threadIdx.x == 0) {
            a.edges[row] = fmaxf(draw_edge(max, step), max + r.floor - DRAW_SLACK);
            a.out[row].mass = total;
        }
    }
}

/* --- The race --- */

static __device__ __forceinline__ struct racer nobody(void)
{
    return (struct racer){INFINITY, INT32_MAX};
}

static __device__ __forceinline__ bool is_before(struct racer a, struct racer b)
{
    return a.arrival < b.arrival || (a.arrival == b.arrival && a.id < b.id);
}

static __device__ struct racer warp_first(struct racer x)
{
    for (int step = WARP / 2; step; step /= 2) {
        struct racer other = {__shfl_xor_sync(0xFFFFFFFF, x.arrival, step),
                              __shfl_xor_sync(0xFFFFFFFF, x.id, step)};

        x = is_before(other, x) ? other : x;
    }
    return x;
}

/* Of all threads of the block, in every thread. */
static __device__ struct racer block_first(struct racer x, struct racer *room)
{
    int lane = threadIdx.x % WARP;

    x = warp_first(x);
    if (lane == 0)
        room[threadIdx.x / WARP] = x;
    __syncthreads();
    x = warp_first(lane < THREADS / WARP ? room[lane] : nobody());
    __syncthreads();
    return x;
}

/* The logarithm of -log(1 - c) / w: whether c is near 0 or near 1, to f32. */
static __device__ float arrival_of(int id, float logit, float max, const struct draw_rule &r)
{
    uint32_t upper = draw_upper(id, r.key);
    uint64_t c = (uint64_t)upper << 32 | draw_lower(id, r.key) >> 21; /* in units of 2^-64 */
    float wait =
        upper >> 31 ? -logf(((float)~c + 0.5f) * 0x1p-64f) : -log1pf(((float)c + 0.5f) * -0x1p-64f);

    return logf(wait) - (logit - max) * r.per_temp;
}

/* The row's first, by one warp, of the first two of each block: as far as the third of none could
 * be among them. */
static __device__ void put_together(const struct draw_args &a, int row, const float *x, float max)
{
    struct drawn *out = a.out + row;
    struct found mine = {nobody(), nobody(), 0};
    int taken = 0, n = 0, total;
    bool spent = false;

    if (threadIdx.x < gridDim.x) {
        const struct found *p = a.parts + row * gridDim.x + threadIdx.x;

        mine = (struct found){{__ldcg(&p->first.arrival), __ldcg(&p->first.id)},
                              {__ldcg(&p->second.arrival), __ldcg(&p->second.id)},
                              __ldcg(&p->n)};
    }
    total = over_warp(mine.n, sum_of());
    while (n < DRAW_FIRST && n < total && !__any_sync(0xFFFFFFFF, spent)) {
        struct racer next = warp_first(mine.first);

        if (threadIdx.x == 0)
            out->first[n] = (struct drawn_token){next.id, x[next.id], {0, 0}, {0, 0}};
        n++;
        if (mine.first.id == next.id) {
            mine.first = mine.second;
            mine.second = nobody();
            spent = ++taken == 2 && mine.n > 2;
        }
    }
    if (threadIdx.x)
        return;
    for (int i = n; i < DRAW_FIRST; i++)
        out->first[i] = (struct drawn_token){0, 0, {0, 0}, {0, 0}};
    out->max = max;
    out->n = n;
    out->all = n == total;
    out->spare = 0;
    if (!a.filtered)
        out->mass = 0;
}

static __global__ void __launch_bounds__(THREADS) race_kernel(struct draw_args a)
{
    __shared__ struct racer room[THREADS / WARP];
    __shared__ int counts[THREADS / WARP];
    struct racer first = nobody(), second = nobody();
    int row = blockIdx.y, n = 0;

    cuda_begin();
    if (a.best[row] < 0) {
        if (blockIdx.x == 0 && threadIdx.x == 0)
            a.out[row] = (struct drawn){};
        return;
    }
    const float *x = row_at(a.x, row);
    const struct draw_rule r = a.rules[row];
    float max = x[a.best[row]], edge = a.filtered ? a.edges[row] : -FLT_MAX;

    for (int i = blockIdx.x * THREADS + threadIdx.x; i < a.x.cols; i += gridDim.x * THREADS) {
        float v = x[i];

        if (!(v >= edge && v >= -FLT_MAX))
            continue;
        struct racer next = {arrival_of(i, v, max, r), i};

        n++;
        if (is_before(next, first)) {
            second = first;
            first = next;
        } else if (is_before(next, second)) {
            second = next;
        }
    }
    struct found all = {block_first(first, room), nobody(), over_block(n, counts, sum_of())};

    all.second = block_first(first.id == all.first.id ? second : first, room);
    if (threadIdx.x == 0)
        a.parts[row * gridDim.x + blockIdx.x] = all;
    if (is_last(a) && threadIdx.x < WARP)
        put_together(a, row, x, max);
}

/* --- What lies above --- */

static __global__ void __launch_bounds__(THREADS) above_kernel(struct draw_args a)
{
    __shared__ int counts[THREADS / WARP];
    __shared__ mass_sum masses[THREADS / WARP];
    const float *x = row_at(a.x, blockIdx.y);
    struct drawn *out = a.out + blockIdx.y;
    struct drawn_token t[DRAW_FIRST];
    int n_above[DRAW_FIRST][2] = {};
    mass_sum mass_above[DRAW_FIRST][2] = {};

    cuda_begin();
    int n = out->n;

    if (n == 0)
        return;
    for (int j = 0; j < DRAW_FIRST; j++) /* with a place that no token has behind the last */
        t[j] = j < n ? out->first[j] : (struct drawn_token){-1, INFINITY, {0, 0}, {0, 0}};
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < a.x.cols; i += gridDim.x * THREADS) {
        float v = x[i];
        mass_sum mass = mass_of(v, out->max);

#pragma unroll
        for (int j = 0; j < DRAW_FIRST; j++) {
            n_above[j][0] += v > t[j].logit + DRAW_SLACK;
            n_above[j][1] += v >= t[j].logit - DRAW_SLACK && i != t[j].id;
            mass_above[j][0] += v > t[j].logit + DRAW_SLACK ? mass : 0;
            mass_above[j][1] += v > t[j].logit ? mass : 0;
        }
    }
#pragma unroll
    for (int j = 0; j < DRAW_FIRST; j++)
#pragma unroll
        for (int k = 0; k < 2; k++) {
            int count = over_block(n_above[j][k], counts, sum_of());
            mass_sum mass = over_block(mass_above[j][k], masses, sum_of());

            if (threadIdx.x == 0 && j < n && count) {
                atomicAdd(&out->first[j].n_above[k], count);
                atomicAdd((mass_sum *)&out->first[j].mass_above[k], mass);
            }
        }
}

/* --- The table's --- */

static void draw_rows(struct cuda_device *c, struct draw_args *a, unsigned n_blocks)
{
    struct cuda_shape shape = shape_of(dim3(n_blocks, (unsigned)a->x.n), dim3(THREADS), 0);
    size_t n = (size_t)a->x.n, steps = n * DRAW_STEPS;
    size_t found_size = n * n_blocks * sizeof(struct found);
    char *room = (char *)cuda_scratch(c, steps * (sizeof(mass_sum) + sizeof(unsigned)) +
                                             n * sizeof(float) + found_size);

    if (!room)
        return;
    a->masses = (mass_sum *)room;
    a->counts = (unsigned *)(a->masses + steps);
    a->edges = (float *)(a->counts + steps);
    a->parts = (struct found *)(a->edges + n);
    if (a->filtered) {
        cuda_launch(c, clear_kernel,
                    shape_of(dim3(blocks_for((int64_t)steps, THREADS)), dim3(THREADS), 0), *a);
        cuda_launch(c, edge_kernel, shape, *a);
    }
    cuda_launch(c, race_kernel, shape, *a);
    if (a->filtered)
        cuda_launch(c, above_kernel, shape, *a);
}

void cuda_draw(device *d, struct drawn *out, const tensor *x, const int32_t *best,
               const struct draw_rule *rules, bool filtered)
{
    struct cuda_device *c = cuda_device_of(d);
    unsigned n_blocks = blocks_for(x->cols, COLUMNS);

    n_blocks = n_blocks > MAX_BLOCKS ? MAX_BLOCKS : n_blocks;
    for (int first = 0; first < x->rows; first += MAX_ROWS) {
        struct draw_args a = {};

        a.x = rows_of(x);
        a.x.data += first * a.x.stride;
        a.x.n = x->rows - first < MAX_ROWS ? x->rows - first : MAX_ROWS;
        a.best = best + first;
        a.rules = rules + first;
        a.out = out + first;
        a.tickets = c->tickets;
        a.filtered = filtered;
        draw_rows(c, &a, n_blocks);
    }
}
