/* device/cuda/product_one_experts.cu: products of one row with the experts that it chose, of as few
 * instructions as those of product_one.cu.
 *
 * Which experts these are is known late: what is on the way from there to the last sum is all that
 * takes time. So x is ready before, if it is the norm that the launch ahead writes down: of numbers
 * that are there since that launch let go, not when it has ended. Every block finds the experts by
 * itself, each thread how many come before one of them; the last block writes them down.
 *
 * A chunk is a span of 256 numbers of 16 outputs of one expert. Of gate and up a group of warps
 * shares a tile, a span each; where answers are put together a block has a tile of all experts.
 * Each chunk's sums have a place of their own, in which they are added up in one order.
 */
#include "device/cuda/chosen.cuh"
#include "device/cuda/math.cuh"
#include "device/cuda/product_one.cuh"
#include "device/cuda/rows.cuh"

enum {
    GROUPED_WARPS = 16,
    TOGETHER_WARPS = 24,
    MOST_CHOSEN = WARP, /* experts: a lane knows each */
    SUMMING = 8,        /* lanes for an output of several experts */
    SQUARES = 16        /* places for sums of warps */
};

/* Of gate and up with their activation; of answers that are put together; the same where each warp
 * has one chunk. */
enum experts_mode { GATED, TOGETHER, ONCE };

struct experts_part {
    const uint8_t *data, *scales; /* of the first expert */
    float *y;
    int64_t y_stride;
    const float *bias;
};

struct one_experts {
    const float *x, *w; /* w: the norm's weights, or NULL */
    int64_t x_stride;
    const int32_t *ids;
    const float *logits; /* what experts are chosen by; NULL: ids are there */
    int n_chosen, n_tiles, tiles_each, n_spans, n_chunks;
    int n_sharing, n_groups, n_rounds;       /* warps of a tile; groups of them; tiles of each */
    int pitch;                               /* of sums, in floats */
    uint32_t by_spans, by_sharing, by_tiles; /* what quotient_of() takes */
    bool known;                              /* ids can be read before the wait */
    uint32_t row_bytes, scale_row_bytes, tile_bytes, tile_scale_bytes;
    uint32_t step, scale_step;              /* from expert to expert */
    int64_t jump, jump_scales, jump_biases; /* from a lane's row to its other one */
    int64_t to_biases;                      /* from scales */
    struct experts_part parts[2];
    float eps, per_number;
    enum activation act;
    float *to;
    int64_t to_stride;
    const float *weights; /* TOGETHER: what answers are multiplied by */
    float *sum, scale;    /* += scale times all of them; or NULL */
    int32_t *found;       /* where the choice is written down */
    float *found_weights;
    struct router_params router;
};

/* No loads that the compiler may move to where their numbers are used. */
static __device__ __forceinline__ int read_id(const int32_t *p)
{
    int id;

    asm volatile("ld.global.cg.s32 %0, [%1];" : "=r"(id) : "l"(p) : "memory");
    return id;
}

static __device__ __forceinline__ float4 read_x(const float4 *p)
{
    float4 v;

    asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "l"(p)
                 : "memory");
    return v;
}

/* --- The choice --- */

/* By one warp, with room for what its answers are multiplied by. */
static __device__ __forceinline__ void put_choice(float *room, int id, const struct one_experts &s)
{
    int lane = threadIdx.x % WARP, n = s.router.n_experts;
    float x = __ldcg(s.logits + id);

    if (s.router.score == ROUTER_SOFTMAX_ALL) {
        float most = __shfl_sync(~0u, x, 0), sum = 0; /* the first choice is the greatest */

#pragma unroll 1
        for (int i = lane; i < n; i += WARP)
            sum += expf(__ldcg(s.logits + i) - most);
        x = or_least(expf(x - most) / over_warp(sum, sum_of()));
    }
    if (lane < s.n_chosen) {
        room[lane] = x;
        s.found[lane] = id;
    }
    __syncwarp();
    finish_weights(s.found_weights, room, s.router);
    __threadfence();
    __syncwarp();
}

/* --- Weights --- */

/* The chunk that a warp asks for next. */
struct experts_place {
    const uint8_t *data, *scales;   /* for the lane */
    uint32_t in_tile, scales_there; /* of the lane in an expert's first tile */
    int tile, local, row, chunk;    /* the tile among those of its choice */
};

template <int C, int MODE>
static __device__ __forceinline__ void find_weights(struct experts_place *p, int ids,
                                                    const struct one_experts &s)
{
    uint32_t local = (uint32_t)p->local, chunk = (uint32_t)p->chunk;

    if (MODE != GATED) {
        p->row = quotient_of(p->chunk, s.by_spans);
        chunk -= (uint32_t)(p->row * s.n_spans);
    }
    uint32_t id = (uint32_t)__shfl_sync(~0u, ids, p->row);

    p->data = s.parts[0].data + (uint64_t)id * s.step +
              (p->in_tile + local * s.tile_bytes + chunk * one_of<C>::BLOCKS * 64);
    p->scales = s.parts[0].scales + (uint64_t)id * s.scale_step +
                (p->scales_there + local * s.tile_scale_bytes + chunk * 8);
}

/* To the next chunk; false where there is none. */
template <int C, int MODE>
static __device__ __forceinline__ bool go_on(struct experts_place *p, int ids,
                                             const struct one_experts &s, int first, int end)
{
    p->chunk += s.n_sharing;
    if (p->chunk >= s.n_chunks) {
        p->chunk = first;
        p->tile += s.n_groups;
        p->local += s.n_groups;
        if (p->tile >= end)
            return false;
        if (MODE == GATED)
#pragma unroll 1
            for (; p->local >= s.tiles_each; p->local -= s.tiles_each)
                p->row++;
    }
    find_weights<C, MODE>(p, ids, s);
    return true;
}

/* --- x --- */

/* A lane's numbers of a chunk. */
template <int MODE>
static __device__ __forceinline__ const float4 *find_x(int chunk, const struct one_experts &s)
{
    int row = MODE != GATED ? quotient_of(chunk, s.by_spans) : 0;
    int k = (chunk - row * s.n_spans) * SPAN + threadIdx.x % WARP * 8;

    return (const float4 *)(s.x + row * s.x_stride + k);
}

/* All of it, by all warps, of which each has its first chunk's; with a norm the squares of the
 * lane's numbers. */
template <int C, int MODE, bool AHEAD>
static __device__ __forceinline__ float put_x(uint8_t *shared, const struct one_experts &s,
                                              float4 a, float4 b)
{
    int lane = threadIdx.x % WARP;
    float squares = 0;

#pragma unroll 1
    for (int chunk = threadIdx.x / WARP; MODE == ONCE || chunk < s.n_chunks;) {
        float v[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}, w[8];

        if (AHEAD) {
#pragma unroll
            for (int i = 0; i < 8; i++)
                squares += v[i] * v[i];
            if (s.w) {
                read8(w, s.w + chunk * SPAN + lane * 8);
#pragma unroll
                for (int i = 0; i < 8; i++)
                    v[i] *= w[i];
            }
        }
        put_span<C>(shared + chunk * one_of<C>::BYTES, v);
        if (MODE == ONCE)
            break;
        chunk += (int)blockDim.x / WARP;
        if (chunk < s.n_chunks) {
            const float4 *x = find_x<MODE>(chunk, s);

            a = __ldcg(x), b = __ldcg(x + 1);
        }
    }
    return squares;
}

/* --- Outputs --- */

/* Over four lanes; n numbers, and up to a multiple of four others. */
static __device__ __forceinline__ float sum_chunks(const float *from, int n)
{
    float sum = 0;

#pragma unroll 1
    for (int i = threadIdx.x % 4 * 4; i < n; i += 16) {
        float4 v = *(const float4 *)(from + i);

        sum += (v.x + (i + 1 < n ? v.y : 0)) + ((i + 2 < n ? v.z : 0) + (i + 3 < n ? v.w : 0));
    }
    sum += __shfl_xor_sync(~0u, sum, 1);
    return sum + __shfl_xor_sync(~0u, sum, 2);
}

/* Which output number i of the block's is, of the four lanes' row of a tile: 32 times its number
 * among those of its part, and the choice; below 0: there is none. */
static __device__ __forceinline__ int find_output(int i, const struct one_experts &s)
{
    int n = s.n_rounds * s.n_groups, nth = i / TILE, tile = (int)blockIdx.x * n + nth;
    int row = quotient_of(tile, s.by_tiles);

    if (nth >= n || tile >= s.n_tiles)
        return -1;
    return ((tile - row * s.tiles_each) * (TILE / 2) + i / 8 % 2 * 4 + threadIdx.x / 4 % 4) *
               MOST_CHOSEN +
           row;
}

/* Four lanes for an output; of gate and up a warp has four each, side by side. first: which the
 * first of them is. */
static __device__ __forceinline__ void put_gated(const float *sums, const int *ids, float factor,
                                                 int first, const struct one_experts &s)
{
    int lane = threadIdx.x % WARP, quad = lane / 4 % 4 + lane / 16 * 8;
    const struct experts_part &part = s.parts[lane / 16];
    int n = s.n_rounds * s.n_groups * TILE;

#pragma unroll 1
    for (int i = threadIdx.x / 4;;) {
        int row = first % MOST_CHOSEN, o = first / MOST_CHOSEN;
        int in_tile = i / 8 % 2 * 4 + quad;

        if (first >= 0) {
            float sum =
                sum_chunks(sums + (i / TILE * TILE + in_tile) * s.pitch, s.n_chunks) * factor;

            if (part.bias)
                sum += part.bias[(int64_t)ids[row] * s.tiles_each * (TILE / 2) + o];

            float up = __shfl_down_sync(~0u, sum, 16);
            if (lane % 4 == 0)
                part.y[row * part.y_stride + o] = sum;
            __syncwarp(); /* both may go to one place */
            if (lane < 16 && lane % 4 == 0)
                s.to[row * s.to_stride + o] = s.act == ACT_SILU
                                                  ? up * __fdividef(sum, 1 + __expf(-sum))
                                                  : glu_of(sum, up, s.act);
        }
        i += blockDim.x / 4;
        if (i - threadIdx.x % WARP / 4 >= n)
            break;
        first = find_output(i, s);
    }
}

/* SUMMING lanes for an output, which have some of the experts each. */
static __device__ __forceinline__ void put_together(const float *sums, const int *ids,
                                                    const struct one_experts &s, float weight,
                                                    float before)
{
    const struct experts_part &part = s.parts[0];
    int e0 = threadIdx.x % SUMMING;

#pragma unroll 1
    for (int i = threadIdx.x / SUMMING; i < s.n_rounds * TILE; i += blockDim.x / SUMMING) {
        int o = (int)blockIdx.x * s.n_rounds * TILE + i, tile = o / TILE;
        float all = 0;

        if (tile >= s.n_tiles)
            continue;
#pragma unroll 1
        for (int e = e0; e < s.n_chosen; e += SUMMING) {
            const float *from = sums + i * s.pitch + e * s.n_spans;
            float sum = 0;

#pragma unroll 1
            for (int j = 0; j < s.n_spans; j++)
                sum += from[j];
            if (part.bias)
                sum += part.bias[(int64_t)ids[e] * s.n_tiles * TILE + o];
            part.y[e * part.y_stride + o] = sum;
            all += (e == e0 ? weight : s.weights[e]) * sum;
        }
#pragma unroll
        for (int lanes = 1; lanes < SUMMING; lanes *= 2)
            all += __shfl_xor_sync(~0u, all, lanes);
        if (e0 > 0)
            continue;
        s.to[o] = all;
        if (s.sum)
            s.sum[o] = (i < TILE ? before : s.sum[o]) + s.scale * all;
    }
}

/* --- The kernel --- */

/* Registers: of gate and up as many as leave room for a block of the router's product, so that x is
 * ready when that ends. */
static constexpr int GATED_REGISTERS = 104, TOGETHER_REGISTERS = 80;

/* AHEAD: x is of a norm, and there before the launch ahead has ended. */
template <int C, int MODE, bool AHEAD, bool HALF>
static __global__ void __maxnreg__(MODE == GATED ? GATED_REGISTERS : TOGETHER_REGISTERS)
    experts_kernel(const __grid_constant__ struct one_experts s)
{
    typedef one_of<C> O;

    extern __shared__ __align__(16) uint8_t shared[];

    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, t = lane % 4, g = lane / 4;
    int group = MODE == GATED ? quotient_of(warp, s.by_sharing) : 0,
        mine = warp - group * s.n_sharing;
    int n_mine = s.n_rounds * s.n_groups, end = min(((int)blockIdx.x + 1) * n_mine, s.n_tiles);
    float *squares = (float *)(shared + s.n_chunks * O::BYTES), *sums = squares + SQUARES;
    int *ids = (int *)(sums + s.n_rounds * s.n_groups * TILE * s.pitch);
    bool finds = MODE == GATED && s.logits, writes = finds && blockIdx.x + 1 == gridDim.x;
    struct experts_place ahead = {};
    uint4 blocks[O::BLOCKS][2];
    struct one_scales scales;
    float square = 0, weight = 0, before = 0;
    int id = 0; /* lane j has that of choice j */

    if (MODE != GATED && s.known && lane < s.n_chosen)
        id = read_id(s.ids + lane);
    if (!writes)
        cuda_let_go();
    ahead.tile = ahead.local = (int)blockIdx.x * n_mine + group;
    ahead.chunk = mine;
    ahead.in_tile = (uint32_t)g * s.row_bytes + (uint32_t)t * 16;
    ahead.scales_there = (uint32_t)g * s.scale_row_bytes;
    if (MODE == GATED)
#pragma unroll 1
        for (; ahead.local >= s.tiles_each && ahead.tile < end; ahead.local -= s.tiles_each)
            ahead.row++;
    bool more = MODE == ONCE || ahead.tile < end;
    int64_t to_biases = s.to_biases + t * 2;

    const float4 *x = find_x<MODE>(MODE == ONCE || warp < s.n_chunks ? warp : 0, s);
    float4 a, b;
    int first = MODE == GATED ? find_output(threadIdx.x / 4, s) : 0;
    if (AHEAD) {
        a = read_x(x), b = read_x(x + 1);
        square = over_warp(put_x<C, MODE, AHEAD>(shared, s, a, b), sum_of());
        if (lane == 0)
            squares[warp] = square;
        __syncthreads();
    }
    if (finds || !s.known)
        cuda_wait();
    if (finds) {
        unsigned n_experts = (unsigned)s.router.n_experts;

        choose_experts(ids, (unsigned *)sums,
                       threadIdx.x < n_experts ? __ldcg(s.logits + threadIdx.x) : 0, n_experts,
                       s.n_chosen, [] {});
        id = lane < s.n_chosen ? ids[lane] : 0;
    } else if ((MODE == GATED || !s.known) && lane < s.n_chosen) {
        id = read_id(s.ids + lane);
    }

    if (more) {
        find_weights<C, MODE>(&ahead, id, s);
#pragma unroll
        for (int b = 0; b < O::BLOCKS; b++)
            read_block(blocks[b], ahead.data + b * 64, s.jump);
        read_groups(&scales, ahead.scales, s.jump_scales, ahead.scales + to_biases, s.jump_biases);
    }
    if (!AHEAD) {
        cuda_wait();
        a = read_x(x), b = read_x(x + 1);
        if (MODE != GATED) {
            int e = threadIdx.x % SUMMING,
                o = blockIdx.x * s.n_rounds * TILE + threadIdx.x / SUMMING;

            weight = e < s.n_chosen ? s.weights[e] : 0;
            if (s.sum && threadIdx.x < SUMMING * TILE)
                before = s.sum[o];
        }
        put_x<C, MODE, AHEAD>(shared, s, a, b);
        if (MODE != GATED)
            __syncwarp(); /* a warp's chunks are its own */
        else
            __syncthreads();
    }
    if (writes && warp == 0) {
        put_choice((float *)ids + MOST_CHOSEN, id, s);
        cuda_let_go();
    }
    if (!finds && warp == 0)
        ids[lane] = id;

    struct one_lane at = {};
    int chunk = mine, nth = group;

    at.x = shared_address(shared) + min(g % 4, 2) * O::PITCH + t * 16 + (C == INT4 ? 0 : g / 4 * 8);
    at.asked = g / 4 == t / 2;
    at.up = t % 2 ? 0 : 256;
    at.weight = (t % 2 ? 0x1p15f : 1) * (C == INT4 ? 0x1p-4f : 1);
    while (more) {
        const float *of = (const float *)(shared + chunk * O::BYTES + O::SUMS);
        uint32_t x_at = at.x + chunk * O::BYTES;
        float factor = of[4] * at.weight, acc[8] = {};

        more = MODE != ONCE && go_on<C, MODE>(&ahead, id, s, mine, end);
#pragma unroll
        for (int b = 0; b < O::BLOCKS; b++) {
            use_block<C, HALF>(acc, blocks[b], b, &at, x_at, scales, factor);
            if (more)
                read_block(blocks[b], ahead.data + b * 64, s.jump);
        }
#pragma unroll
        for (int i = 0; i < 2; i++)
            acc[i] += scale_in<HALF>(scales.biases[i], false) * of[t];
        if (more)
            read_groups(&scales, ahead.scales, s.jump_scales, ahead.scales + to_biases,
                        s.jump_biases);

        float *to = sums + (nth * TILE + g) * s.pitch + chunk;
        float own = t % 2 ? acc[1] : acc[0], other = t % 2 ? acc[0] : acc[1];

        own += __shfl_xor_sync(~0u, other, 1);
        own += __shfl_xor_sync(~0u, own, 2);
        if (t < 2)
            to[t * 8 * s.pitch] = own;
        chunk += s.n_sharing;
        if (chunk >= s.n_chunks) {
            chunk = mine;
            nth += s.n_groups;
        }
    }
    __syncthreads();
    if (MODE != GATED) {
        put_together(sums, ids, s, weight, before);
        return;
    }

    float factor = 1;
    if (AHEAD)
        factor =
            rsqrtf(sum_slots(squares, min((int)blockDim.x / WARP, SQUARES)) * s.per_number + s.eps);
    put_gated(sums, ids, factor, first, s);
}

/* --- Which it suits --- */

template <int C, int MODE, bool AHEAD>
static bool launch_kind(struct cuda_device *c, const struct one_experts &s, bool half)
{
    struct cuda_shape shape = {};
    int n_blocks = (s.n_tiles + s.n_groups * s.n_rounds - 1) / (s.n_groups * s.n_rounds);
    size_t size =
        (size_t)s.n_chunks * one_of<C>::BYTES +
        (SQUARES + 2 * MOST_CHOSEN + (size_t)s.n_rounds * s.n_groups * TILE * (size_t)s.pitch) * 4;

    if (size > c->shared_memory)
        return false;
    /* One more that has no tiles, where there is room, writes down what was chosen. */
    shape.grid = dim3((unsigned)(s.logits && n_blocks < c->n_processors ? n_blocks + 1 : n_blocks));
    shape.block = dim3(32 * (unsigned)(s.n_sharing * s.n_groups));
    shape.shared = (unsigned)size;
    shape.early = true;
    shape.joins = MODE == GATED && s.logits;
    if (half)
        cuda_launch(c, experts_kernel<C, MODE, AHEAD, true>, shape, s);
    else
        cuda_launch(c, experts_kernel<C, MODE, AHEAD, false>, shape, s);
    return true;
}

/* Whole spans and tiles of all experts, at places that can be read at once. */
static bool suits(const struct weight *w, const struct cuda_steps *steps, int rows)
{
    uint64_t scales = (uintptr_t)w->scales | (uintptr_t)w->biases | steps->scales | steps->biases;

    return w->format == WEIGHT_AFFINE && (w->bits == 4 || w->bits == 8) && w->group_size == 64 &&
           w->scale_type != DTYPE_F32 && steps->data <= UINT32_MAX &&
           steps->scales == steps->biases &&
           (uint64_t)w->n_out * weight_row_bytes(w) <= UINT32_MAX && w->n_in % SPAN == 0 &&
           w->n_out % rows == 0 && ((uintptr_t)w->data | steps->data) % 16 == 0 && scales % 8 == 0;
}

/* Are these in the order of their logits? */
static bool finds_alike(const struct router_params *r)
{
    return (r->score == ROUTER_SOFTMAX_ALL || r->score == ROUTER_SOFTMAX_SELECTED) && !r->bias;
}

/* Is x the norm that the launch ahead writes down, and can its numbers be read while this one
 * writes? */
static bool has_norm(const struct cuda_device *c, const struct cuda_product *p)
{
    const struct cuda_norm *n = &c->normed;

    if (c->normed_at != c->n_given || !cuda_same(&n->y, &p->x) || cuda_overlap(&n->y, &n->x))
        return false;
    for (int i = 0; i < p->n_jobs; i++)
        if (cuda_overlap(&p->y[i], &n->x))
            return false;
    return !cuda_overlap(&p->tail.y, &n->x);
}

static void take_part(struct one_experts *s, const struct cuda_product *p, int i)
{
    s->parts[i] = {(const uint8_t *)p->w[i].data, (const uint8_t *)p->w[i].scales,
                   (float *)p->y[i].data, p->y[i].stride, p->bias[i]};
}

/* How warps share the work. */
static void cut(struct one_experts *s, const struct cuda_device *c, bool gated)
{
    int most = gated ? GROUPED_WARPS : TOGETHER_WARPS, turns;

    s->n_chunks = gated ? s->n_spans : s->n_chosen * s->n_spans;
    turns = (s->n_chunks + most - 1) / most;
    s->n_sharing = (s->n_chunks + turns - 1) / turns;
    s->n_groups = gated ? most / s->n_sharing : 1;
    s->n_rounds =
        (s->n_tiles + c->n_processors * s->n_groups - 1) / (c->n_processors * s->n_groups);
    s->pitch = 4 * ((s->n_chunks + 3) / 4 | 1);
    s->by_spans = inverse_of(s->n_spans);
    s->by_sharing = inverse_of(s->n_sharing);
    s->by_tiles = inverse_of(s->tiles_each);
}

static void take_choice(struct one_experts *s, const struct cuda_device *c,
                        const struct cuda_product *p)
{
    s->ids = p->experts.ids;
    if (p->routed) {
        s->logits = (const float *)p->routing.logits.data;
        s->found = (int32_t *)p->routing.ids.data;
        s->found_weights = (float *)p->routing.weights.data;
        s->router = p->routing.p;
    } else {
        s->known = c->routed == s->ids && c->routed_at == c->n_given;
    }
}

template <int C>
static bool launch_codes(struct cuda_device *c, const struct one_experts &s, bool gated, bool ahead,
                         bool half)
{
    return gated ? (ahead ? launch_kind<C, GATED, true> : launch_kind<C, GATED, false>)(c, s, half)
           : s.n_chunks == s.n_sharing && s.n_rounds == 1
               ? launch_kind<C, ONCE, false>(c, s, half)
               : launch_kind<C, TOGETHER, false>(c, s, half);
}

bool cuda_product_one_experts(struct cuda_device *c, const struct cuda_product *p)
{
    bool gated = p->tail.kind == CUDA_TAIL_GLU, ahead;
    const struct weight *w = p->w;
    int k = p->y[0].rows;
    struct one_experts s = {};

    if (!p->experts.ids || p->experts.per_row != k || k > MOST_CHOSEN || c->arch < 80 ||
        !(gated || p->tail.kind == CUDA_TAIL_COMBINE) || p->x.rows != (gated ? 1 : k) ||
        !rows_are_wide(&p->x) || (p->routed && !finds_alike(&p->routing.p)))
        return false;
    for (int i = 0; i < p->n_jobs; i++)
        if (p->chosen_from[i] || !suits(&w[i], &p->steps[i], gated ? TILE / 2 : TILE) ||
            memcmp(&p->steps[i], &p->steps[0], sizeof p->steps[0]))
            return false;
    if (cuda_layer_down(c, p))
        return true;
    cuda_settle(c);
    for (int i = 0; i < p->n_jobs; i++)
        take_part(&s, p, i);
    s.tiles_each = w->n_out / (gated ? TILE / 2 : TILE);
    s.n_tiles = gated ? s.tiles_each * k : s.tiles_each;
    if ((int64_t)s.n_tiles * s.tiles_each > INT32_MAX) /* quotients */
        return false;
    s.n_chosen = k;
    s.n_spans = w->n_in / SPAN;
    cut(&s, c, gated);
    s.row_bytes = (uint32_t)weight_row_bytes(w);
    s.scale_row_bytes = (uint32_t)weight_scale_row_bytes(w);
    s.tile_bytes = s.row_bytes * (gated ? TILE / 2 : TILE);
    s.tile_scale_bytes = s.scale_row_bytes * (gated ? TILE / 2 : TILE);
    s.step = (uint32_t)p->steps[0].data;
    s.scale_step = p->steps[0].scales;
    s.to_biases = (const uint8_t *)w->biases - s.parts[0].scales;
    s.jump = TILE / 2 * (int64_t)s.row_bytes;
    s.jump_scales = s.jump_biases = TILE / 2 * (int64_t)s.scale_row_bytes;
    if (gated) {
        s.jump = s.parts[1].data - s.parts[0].data;
        s.jump_scales = s.parts[1].scales - s.parts[0].scales;
        s.jump_biases = (const uint8_t *)w[1].biases - (const uint8_t *)w[0].biases;
    }
    take_choice(&s, c, p);
    s.x = (const float *)p->x.data;
    s.x_stride = p->x.stride;
    ahead = gated && has_norm(c, p);
    if (ahead) {
        s.x = (const float *)c->normed.x.data;
        s.w = c->normed.w;
        s.eps = c->normed.eps;
        s.per_number = 1.0f / (float)w->n_in;
    }
    s.act = p->tail.act;
    s.to = (float *)p->tail.y.data;
    s.to_stride = p->tail.y.stride;
    s.weights = (const float *)p->tail.weights.data;
    s.sum = (float *)p->tail.to.data;
    s.scale = p->tail.scale;
    if (!(w->bits == 4 ? launch_codes<INT4> : launch_codes<INT8>)(c, s, gated, ahead,
                                                                  w->scale_type == DTYPE_F16))
        return false;
    if (p->routed) {
        c->routed = s.found;
        c->routed_at = c->n_given;
        cuda_layer_gated(c, p);
    }
    return true;
}
