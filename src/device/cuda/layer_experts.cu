/* device/cuda/layer_experts.cu: what lies between attention and attention in a layer with experts,
 * of one row, as one launch: the output of attention with what it is added to, the norm, the
 * router's product, the choice, gate and up, down with what it is added to; and the next layer's
 * norm, queries, keys and values.
 *
 * These are launches of their own until the last of them comes, which takes back those that are
 * written down and not yet given to the stream (queue.cu). A block on each processor then goes
 * through all stages; what one hands to the next goes by handover.cuh. Weights that can be known
 * are asked for long before: of the output and the router in registers before the launch ahead has
 * ended, of queries, keys and values in shared memory; those of down behind the last of gate and
 * up. Logits are handed over with x, not made of it (layer_router.cu): weights of experts are on
 * their way when the norm is made.
 *
 * Results are in memory as if each operation had been launched, but for those that a later one of
 * the launch writes over: whoever laid these out needs the earlier no more.
 */
#include "device/cuda/layer_experts.cuh"

extern "C" {
#include "base/memory.h"
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

/* --- The kernel --- */

template <bool NEXT, bool HALF>
static __global__ void __launch_bounds__(LAYER_THREADS, 1)
    layer_kernel(const __grid_constant__ struct layer s)
{
    extern __shared__ __align__(128) uint8_t weights[]; /* of queries, keys and values */
    __shared__ __align__(16) struct layer_room room;

    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, t = lane % 4, g = lane / 4;
    bool has_tile = blockIdx.x < s.n_tiles, has_out = has_tile && warp < s.out_spans;
    bool has_span = warp < s.n_spans;
    struct chunk chunk;
    struct one_lane at = {};
    float v[8], w[8], r[8], m[8];

    cuda_let_go();
    at.x = shared_address(room.x) + min(g % 4, 2) * one_of<INT4>::PITCH + t * 16;
    at.asked = g / 4 == t / 2;
    at.up = t % 2 ? 0 : 256;
    at.weight = (t % 2 ? 0x1p15f : 1) * 0x1p-4f;

    __nanosleep(AFTER_ATTENTION_BEGAN);

    /* Output. */
    uint32_t row = (uint32_t)blockIdx.x * TILE + g;
    if (has_out)
        ask(&chunk, s.out.data + (uint64_t)row * s.out.row_bytes + warp * 128 + t * 16,
            s.out.scales + (uint64_t)row * s.out.scale_row_bytes + warp * 8,
            s.out.to_biases + t * 2,
            {TILE / 2 * (int64_t)s.out.row_bytes, TILE / 2 * (int64_t)s.out.scale_row_bytes,
             TILE / 2 * (int64_t)s.out.scale_row_bytes});
    bool routes = (int)blockIdx.x < s.choice.n_experts;
    if (has_out && routes)
        read8(m, s.of_out + (int)blockIdx.x * s.out_spans * SPAN + warp * SPAN + lane * 8);
    if (has_span) {
        if (routes)
            read_router(r, s, warp * SPAN + lane * 8);
#pragma unroll
        for (int i = 0; i < 8; i++)
            w[i] = 1;
        if (s.norm)
            read8(w, s.norm + warp * SPAN + lane * 8);
    }
    if (NEXT && warp == LAYER_WARPS - 1)
        bring_next(weights, &room.barrier, s);

    int quad = g % 4 + g / 4 * 8, out_row = warp % 2 * 4 + quad;
    float before = 0;
    cuda_wait();
    if (has_out)
        read8(v, s.out_x + warp * SPAN + lane * 8);
    float part = 0;
    if (has_span && routes) {
        float x[8];

        read8(x, s.x + warp * SPAN + lane * 8);
#pragma unroll
        for (int i = 0; i < 8; i++)
            part += x[i] * w[i] * r[i];
    }
    if (has_tile && threadIdx.x < TILE * 4)
        before = s.x[blockIdx.x * TILE + out_row];
    uint32_t turn = s.memory->turn[blockIdx.x];
    if (has_out) {
        if (routes)
#pragma unroll
            for (int i = 0; i < 8; i++)
                part += v[i] * m[i];
        put_span<INT4>(room.x[warp], v);
        __syncwarp();
        multiply_chunk<HALF>(room.out + g * PITCH + warp, PITCH, chunk, &at, room.x[warp],
                             at.x + warp * AREA);
    }
    if (routes) {
        part = over_warp(part, sum_of());
        if (lane == 0)
            room.of_warps[warp] = part;
    }
    struct handover *hand = s.memory->turns + turn;
    float *handed = hand->x + blockIdx.x * TILE + out_row, own_logit = 0;
    __syncthreads();
    if (has_tile && threadIdx.x < TILE * 4) {
        float sum = sum_slots(room.out + out_row * PITCH, s.out_spans);

        if (t == 0) {
            float x = before + s.out_scale * sum;

            hand_over(handed, x);
            room.own[out_row] = x;
            if (s.out_y)
                s.out_y[blockIdx.x * TILE + out_row] = sum;
        }
    } else if (routes && warp == ROUTER_WARP) {
        own_logit = sum_slots(room.of_warps, LAYER_WARPS);
        if (lane == 0)
            hand_over(hand->logits + blockIdx.x, own_logit);
    }
    if (warp == LAYER_WARPS - 1) {
        uint4 *other = (uint4 *)(s.memory->turns + (turn ^ 1));

#pragma unroll 1
        for (int i = lane * gridDim.x + blockIdx.x; i < HANDED; i += WARP * gridDim.x)
            other[i] = make_uint4(EMPTY, EMPTY, EMPTY, EMPTY);
        if (lane == 0)
            s.memory->turn[blockIdx.x] = turn ^ 1;
    }

    /* Where the first of gate and up lies, but for the expert. */
    int group = quotient_of(warp, s.by_sharing), span = warp - group * s.n_spans;
    int tile = (int)blockIdx.x * s.n_mine + group,
        end = min(((int)blockIdx.x + 1) * s.n_mine, s.n_gated);
    int choice = quotient_of(tile, s.by_tiles), local = tile - choice * s.tiles_each;
    bool more = group < s.n_groups && tile < end;
    uint32_t lanes = (uint32_t)g * s.gate.row_bytes + (uint32_t)t * 16 + (uint32_t)span * 128;
    uint32_t lanes_scales = (uint32_t)g * s.gate.scale_row_bytes + (uint32_t)span * 8;
    uint32_t tile_bytes = s.gate.row_bytes * (TILE / 2),
             tile_scales = s.gate.scale_row_bytes * (TILE / 2);
    const struct jumps up = {s.to_up, s.to_up_scales, s.to_up_biases};

    const struct gated_output gated = find_gated(s);

    /* The choice. */
    float logit = 0;
    if (threadIdx.x < ROUTED_EXPERTS) {
        logit = take_over(hand->logits + threadIdx.x, threadIdx.x < s.choice.n_experts);
        room.logits[threadIdx.x] = logit;
    }
    uint32_t seen[1][8];
    const float *x = hand->x + warp * SPAN + lane * 8;
    choose_experts(room.ids, room.keys, logit, (unsigned)s.choice.n_experts, s.n_chosen, [&] {
        if (has_span)
            look_at8(seen[0], x);
    });
    int id = lane < s.n_chosen ? room.ids[lane] : 0;

    /* x, gate and up. */
    if (has_span)
        take_seen8(v, seen, x);
    if (more) {
        uint32_t e = (uint32_t)__shfl_sync(~0u, id, choice);

        ask(&chunk, s.gate.data + (uint64_t)e * s.gate.step + (lanes + local * tile_bytes),
            s.gate.scales + (uint64_t)e * s.gate.scale_step + (lanes_scales + local * tile_scales),
            s.gate.to_biases + t * 2, up);
    }

    /* The norm. */
    if (has_span) {
        float square = 0;

#pragma unroll
        for (int i = 0; i < 8; i++) {
            square += v[i] * v[i];
            v[i] *= w[i];
        }
        square = over_warp(square, sum_of());
        if (lane == 0)
            room.squares[warp] = square;
        put_span<INT4>(room.x[warp], v);
    }
    __syncthreads();
    float factor = rsqrtf(sum_slots(room.squares, s.n_spans) * s.per_number + s.eps);
    if (has_span) {
#pragma unroll
        for (int i = 0; i < 8; i++)
            v[i] *= factor;
        put_share(s.normed, v, warp * WARP + lane, s.n_spans * WARP);
    }
    if (routes && s.logits && warp == ROUTER_WARP && lane == 0)
        s.logits[blockIdx.x] = own_logit * factor;
    if (warp == LAYER_WARPS - 1)
        weigh(room, id, factor, s);
    for (int nth = group; more; nth += s.n_groups) {
        struct chunk now = chunk;

        tile += s.n_groups;
        local += s.n_groups;
        more = tile < end;
        if (more) {
#pragma unroll 1
            for (; local >= s.tiles_each; local -= s.tiles_each)
                choice++;
            uint32_t e = (uint32_t)__shfl_sync(~0u, id, choice);

            ask(&chunk, s.gate.data + (uint64_t)e * s.gate.step + (lanes + local * tile_bytes),
                s.gate.scales + (uint64_t)e * s.gate.scale_step +
                    (lanes_scales + local * tile_scales),
                s.gate.to_biases + t * 2, up);
        }
        multiply_chunk<HALF>(room.gated + (nth * TILE + g) * PITCH + span, PITCH, now, &at,
                             room.x[span], at.x + span * AREA);
    }

    /* Down: its weights are asked for behind those of gate and up. */
    struct chunk downs[DOWN_CHUNKS];
    int n_downs = has_tile ? s.n_chosen * s.down_spans : 0;
#pragma unroll
    for (int i = 0; i < DOWN_CHUNKS; i++) {
        int n = warp + i * LAYER_WARPS;

        if (n < n_downs) {
            int nth = quotient_of(n, s.by_spans), along = n - nth * s.down_spans;
            uint32_t e = (uint32_t)__shfl_sync(~0u, id, nth);

            ask(&downs[i],
                s.down.data + (uint64_t)e * s.down.step + (uint64_t)row * s.down.row_bytes +
                    along * 128 + t * 16,
                s.down.scales + (uint64_t)e * s.down.scale_step +
                    (uint64_t)row * s.down.scale_row_bytes + along * 8,
                s.down.to_biases + t * 2,
                {TILE / 2 * (int64_t)s.down.row_bytes, TILE / 2 * (int64_t)s.down.scale_row_bytes,
                 TILE / 2 * (int64_t)s.down.scale_row_bytes});
        }
    }
    __syncthreads();
    put_gated(hand, room.gated, gated, factor, s);
    if (NEXT && group == 0) {
#pragma unroll
        for (int i = 0; i < 8; i++)
            w[i] = 1;
        if (s.next_norm)
            read8(w, s.next_norm + span * SPAN + lane * 8);
    }
    float betweens[DOWN_CHUNKS][8];
    take_over8<DOWN_CHUNKS>(betweens, hand->between + warp * SPAN + lane * 8, LAYER_WARPS * SPAN,
                            (n_downs - warp + LAYER_WARPS - 1) / LAYER_WARPS);
#pragma unroll
    for (int i = 0; i < DOWN_CHUNKS; i++) {
        int n = warp + i * LAYER_WARPS;

        if (n < n_downs) {
            put_span<INT4>(room.x[n], betweens[i]);
            __syncwarp();
            multiply_chunk<HALF>(room.down + g * DOWN_PITCH + n, DOWN_PITCH, downs[i], &at,
                                 room.x[n], at.x + n * AREA);
        }
    }
    __syncthreads();
    if (has_tile && threadIdx.x < TILE * SUMMING)
        put_together<NEXT>(hand, room, s);
    if (NEXT) {
        prefetch_behind(s);
        multiply_next<HALF>(hand, room, weights, at, w, s);
    }
}

#else

template <bool NEXT, bool HALF>
static __global__ void layer_kernel(const __grid_constant__ struct layer s)
{
}

#endif

/* --- Operations on their way to one launch --- */

/* How far they have come. */
enum layer_stage { NOTHING, OUTPUT, ROUTED, GATED, JOINED };

struct cuda_layer {
    enum layer_stage stage;
    uint64_t given;           /* c->n_given then */
    struct cuda_written from; /* the first launch */
    struct cuda_product out, gated;
    struct weight router;
    tensor logits;
    struct cuda_norm norm;
    /* JOINED. */
    struct layer args;
    int router_of; /* cuda_layer_find_router */
    tensor x, down_y, together;
    bool half;
    struct layer_memory *memory;
    struct cuda_written ahead; /* the last launch up to queries, keys and values */
    bool ahead_half;
};

void cuda_layer_close(struct cuda_device *c)
{
    cuda_layer_forget(c);
    if (c->layer && c->layer->memory)
        cudaFree(c->layer->memory);
    mem_free(c->layer);
    c->layer = NULL;
}

static struct cuda_layer *layer_of(struct cuda_device *c)
{
    if (!c->layer)
        c->layer = (struct cuda_layer *)mem_zeroed(1, sizeof *c->layer);
    return c->layer;
}

/* Blocks for x of so many numbers: where that can be, a few processors are left for attention,
 * whose keys are on their way there meanwhile. */
static int blocks_of(const struct cuda_device *c, int n)
{
    int few = c->n_processors - FOR_ATTENTION;

    return n <= TILE * few ? few : c->n_processors;
}

/* Nothing came between the launch that was noted and the one that was just written down. */
static bool follows(struct cuda_device *c, const struct cuda_layer *l, enum layer_stage stage)
{
    return l && l->stage == stage && c->n_given == l->given + 1;
}

static void note(struct cuda_device *c, struct cuda_layer *l, enum layer_stage stage)
{
    l->stage = stage;
    l->given = c->n_given;
}

/* Codes of 4 bits whose rows and scales can be read as the kernel does, without biases of outputs.
 */
static bool suits(const struct weight *w, const float *bias)
{
    uintptr_t scales = (uintptr_t)w->scales | (uintptr_t)w->biases;

    return w->format == WEIGHT_AFFINE && w->bits == 4 && w->group_size == 64 &&
           w->scale_type != DTYPE_F32 && w->n_in % SPAN == 0 && w->n_out % TILE == 0 &&
           (uintptr_t)w->data % 16 == 0 && scales % 8 == 0 && !bias &&
           (uint64_t)w->n_out * weight_row_bytes(w) <= UINT32_MAX;
}

void cuda_layer_output(struct cuda_device *c, const struct cuda_product *p)
{
    struct cuda_layer *l = layer_of(c);

    if (!l)
        return;
    l->stage = NOTHING;
    if (c->arch < 90 || !suits(&p->w[0], p->bias[0]) || p->w[0].n_in > MOST_HIDDEN ||
        p->w[0].n_out > MOST_HIDDEN || p->w[0].n_out > TILE * c->n_processors || p->normed)
        return;
    l->out = *p;
    l->from = cuda_queue_last(c);
    note(c, l, OUTPUT);
}

void cuda_layer_router(struct cuda_device *c, const struct matmul_job *job,
                       const struct cuda_norm *norm)
{
    struct cuda_layer *l = c->layer;

    if (!follows(c, l, OUTPUT))
        return;
    l->stage = NOTHING;
    if (!cuda_same(&norm->x, &l->out.tail.y) || job->bias || !rows_are_wide(&norm->y) ||
        job->w->n_out > ROUTED_EXPERTS || job->w->n_out > blocks_of(c, job->w->n_in) ||
        job->w->format != WEIGHT_AFFINE || (job->w->bits != 4 && job->w->bits != 8) ||
        job->w->group_size != 64 || job->w->scale_type == DTYPE_F32 ||
        (uintptr_t)job->w->data % 8 || job->w->n_in % SPAN)
        return;
    l->router = *job->w;
    l->logits = *job->y;
    l->norm = *norm;
    note(c, l, ROUTED);
}

void cuda_layer_gated(struct cuda_device *c, const struct cuda_product *p)
{
    struct cuda_layer *l = c->layer;

    if (!follows(c, l, ROUTED))
        return;
    l->stage = NOTHING;
    if (!p->routed || p->tail.act != ACT_SILU || !cuda_same(&p->x, &l->norm.y) ||
        !cuda_same(&p->routing.logits, &l->logits) || p->routing.p.n_experts != l->router.n_out)
        return;
    for (int i = 0; i < 2; i++)
        if (!suits(&p->w[i], p->bias[i]) || p->w[i].scale_type != l->out.w[0].scale_type)
            return;
    l->gated = *p;
    note(c, l, GATED);
}

static struct layer_matrix matrix_of(const struct weight *w, const struct cuda_steps *steps)
{
    struct layer_matrix m = {};

    m.data = (const uint8_t *)w->data;
    m.scales = (const uint8_t *)w->scales;
    m.to_biases = (const uint8_t *)w->biases - m.scales;
    m.row_bytes = (uint32_t)weight_row_bytes(w);
    m.scale_row_bytes = (uint32_t)weight_scale_row_bytes(w);
    if (steps) {
        m.step = (uint32_t)steps->data;
        m.scale_step = steps->scales;
    }
    return m;
}

static bool has_memory(struct cuda_device *c, struct cuda_layer *l)
{
    if (l->memory)
        return true;
    if (c->n_processors > (int)COUNT(l->memory->turn) || !cuda_is_alone(c))
        return false;
    cuda_use(c);
    if (cudaMalloc((void **)&l->memory, sizeof *l->memory) != cudaSuccess) {
        (void)cudaGetLastError();
        l->memory = NULL;
        return false;
    }
    cuda_check(c, cudaMemsetAsync(l->memory->turns, 0xFF, sizeof l->memory->turns, c->stream),
               "clearing memory");
    cuda_check(c, cudaMemsetAsync(l->memory->turn, 0, sizeof l->memory->turn, c->stream),
               "clearing memory");
    return true;
}

static void launch(struct cuda_device *c, const struct layer &s, bool next, bool half)
{
    struct cuda_shape shape = {};

    int n_blocks = blocks_of(c, s.n_spans * SPAN);

    shape.grid = dim3((unsigned)n_blocks);
    shape.block = dim3(LAYER_THREADS);
    shape.early = true;
    shape.joins = !next;
    if (next) {
        int n = (s.firsts[NEXT_PARTS] + n_blocks - 1) / n_blocks;

        shape.shared =
            (unsigned)(n * next_layout_of((int)s.next[0].row_bytes, (int)s.next[0].scale_row_bytes)
                               .size);
    }
    if (half)
        cuda_launch(c, next ? layer_kernel<true, true> : layer_kernel<false, true>, shape, s);
    else
        cuda_launch(c, next ? layer_kernel<true, false> : layer_kernel<false, false>, shape, s);
}

/* Everything up to the sum of what the experts answer. */
static bool join(struct cuda_device *c, struct cuda_layer *l, const struct cuda_product *p)
{
    const struct cuda_product *out = &l->out, *gated = &l->gated;
    const struct weight *w = &gated->w[0];
    struct layer s = {};
    int k = gated->y[0].rows;

    s.n_spans = w->n_in / SPAN;
    s.n_tiles = w->n_in / TILE;
    s.n_chosen = k;
    s.out_spans = out->w[0].n_in / SPAN;
    s.down_spans = p->w[0].n_in / SPAN;
    s.tiles_each = w->n_out / (TILE / 2);
    s.n_gated = s.tiles_each * k;
    s.n_groups = LAYER_WARPS / s.n_spans;
    s.n_mine = (s.n_gated + blocks_of(c, w->n_in) - 1) / blocks_of(c, w->n_in);
    if (s.n_mine > GATED_TILES || k * s.down_spans > DOWN_CHUNKS * LAYER_WARPS || k > MOST_CHOSEN ||
        (int64_t)s.n_gated * s.tiles_each > INT32_MAX || out->w[0].n_out != w->n_in)
        return false;
    s.memory = l->memory;
    s.out = matrix_of(&out->w[0], NULL);
    s.out_x = (const float *)out->x.data;
    s.out_y = (float *)out->y[0].data;
    s.out_scale = out->tail.scale;
    s.x = (float *)out->tail.y.data;
    s.router = matrix_of(&l->router, NULL);
    s.router_shift = l->router.bits == 4;
    s.router_scales = l->router.scale_type;
    s.choice = gated->routing.p;
    s.norm = l->norm.w;
    s.eps = l->norm.eps;
    s.per_number = 1.0f / (float)w->n_in;
    s.normed = (float *)l->norm.y.data;
    s.logits = (float *)l->logits.data;
    s.found = (int32_t *)gated->routing.ids.data;
    s.found_weights = (float *)gated->routing.weights.data;
    s.gate = matrix_of(w, &gated->steps[0]);
    s.to_up = (const uint8_t *)gated->w[1].data - s.gate.data;
    s.to_up_scales = (const uint8_t *)gated->w[1].scales - s.gate.scales;
    s.to_up_biases = (const uint8_t *)gated->w[1].biases - (const uint8_t *)w->biases;
    s.by_sharing = inverse_of(s.n_spans);
    s.by_tiles = inverse_of(s.tiles_each);
    s.gate_y = (float *)gated->y[0].data;
    s.gate_stride = gated->y[0].stride;
    s.up_y = (float *)gated->y[1].data;
    s.up_stride = gated->y[1].stride;
    s.to = (float *)gated->tail.y.data;
    s.to_stride = gated->tail.y.stride;
    s.down = matrix_of(&p->w[0], &p->steps[0]);
    s.by_spans = inverse_of(s.down_spans);
    s.down_y = (float *)p->y[0].data;
    s.down_stride = p->y[0].stride;
    s.together = (float *)p->tail.y.data;
    s.scale = p->tail.scale;
    if (cuda_same(&gated->tail.y, &gated->y[0]))
        s.gate_y = NULL;

    tensor gate = gated->y[0];
    if (!s.gate_y)
        gate.rows = 0;
    struct cuda_result results[] = {
        {&out->y[0], 0, (void **)&s.out_y},
        {&l->norm.y, 1, (void **)&s.normed},
        {&l->logits, 1, (void **)&s.logits},
        {&gated->routing.ids, 2, (void **)&s.found},
        {&gated->routing.weights, 2, (void **)&s.found_weights},
        {&gate, 3, (void **)&s.gate_y},
        {&gated->y[1], 3, (void **)&s.up_y},
        {&gated->tail.y, 3, (void **)&s.to},
        {&p->y[0], 4, (void **)&s.down_y},
        {&p->tail.y, 4, (void **)&s.together},
        {&p->tail.to, 4, NULL},
    };
    if (!cuda_leave_out(results, (int)COUNT(results)))
        return false;
    l->router_of = cuda_layer_find_router(c, &out->w[0], &l->router, s.norm, s.out_scale);
    if (l->router_of < 0)
        return false;
    l->args = s;
    return true;
}

bool cuda_layer_down(struct cuda_device *c, const struct cuda_product *p)
{
    struct cuda_layer *l = c->layer;

    if (!l || l->stage != GATED || p->tail.kind != CUDA_TAIL_COMBINE)
        return false;
    cuda_settle(c);
    if (c->n_given != l->given || !suits(&p->w[0], p->bias[0]) ||
        p->w[0].scale_type != l->out.w[0].scale_type || p->w[0].n_out != l->out.w[0].n_out ||
        p->experts.ids != (const int32_t *)l->gated.routing.ids.data ||
        p->tail.weights.data != l->gated.routing.weights.data ||
        !cuda_same(&p->x, &l->gated.tail.y) || !cuda_same(&p->tail.to, &l->out.tail.y) ||
        !cuda_is_alone(c) || !has_memory(c, l) || !join(c, l, p) ||
        !cuda_queue_take_back(c, l->from, 3))
        return false;
    l->half = p->w[0].scale_type == DTYPE_F16;
    l->x = p->tail.to;
    l->down_y = p->y[0];
    l->together = p->tail.y;
    l->args.of_out = cuda_layer_make_router(c, l->router_of);
    launch(c, l->args, false, l->half);
    l->from = cuda_queue_last(c);
    note(c, l, JOINED);
    return true;
}

bool cuda_layer_next(struct cuda_device *c, const struct cuda_product *p)
{
    struct cuda_layer *l = c->layer;
    int n = 0, row_bytes, scale_bytes;

    if (!l || l->stage != JOINED || p->n_jobs != NEXT_PARTS || !p->normed ||
        p->tail.kind != CUDA_NO_TAIL || p->experts.ids || p->x.rows != 1)
        return false;
    cuda_settle(c);
    if (c->n_given != l->given || !cuda_same(&p->norm.x, &l->x) || !rows_are_wide(&p->norm.y))
        return false;

    struct layer s = l->args;
    row_bytes = (int)weight_row_bytes(&p->w[0]);
    scale_bytes = (int)weight_scale_row_bytes(&p->w[0]);
    for (int i = 0; i < NEXT_PARTS; i++) {
        const struct weight *w = &p->w[i];

        if (!suits(w, p->bias[i]) || w->scale_type != l->out.w[0].scale_type ||
            w->n_in != s.n_spans * SPAN || (uintptr_t)w->scales % 16 || (uintptr_t)w->biases % 16)
            return false;
        s.next[i] = matrix_of(w, NULL);
        s.next_y[i] = (float *)p->y[i].data;
        s.firsts[i] = n;
        n += w->n_out / TILE;
    }
    s.firsts[NEXT_PARTS] = n;
    s.next_each = n / blocks_of(c, s.n_spans * SPAN);
    s.next_more = n % blocks_of(c, s.n_spans * SPAN);
    s.next_norm = p->norm.w;
    s.next_eps = p->norm.eps;
    s.next_normed = (float *)p->norm.y.data;
    int n_blocks = blocks_of(c, s.n_spans * SPAN);
    n = (n + n_blocks - 1) / n_blocks;
    const struct cuda_product *out = &l->out, *gated = &l->gated;
    const struct cuda_result written[] = {
        {&out->y[0], 0, (void **)&s.out_y},
        {&l->norm.y, 0, (void **)&s.normed},
        {&l->logits, 0, (void **)&s.logits},
        {&gated->routing.ids, 0, (void **)&s.found},
        {&gated->routing.weights, 0, (void **)&s.found_weights},
        {&gated->y[0], 0, (void **)&s.gate_y},
        {&gated->y[1], 0, (void **)&s.up_y},
        {&gated->tail.y, 0, (void **)&s.to},
        {&l->down_y, 0, (void **)&s.down_y},
        {&l->together, 0, (void **)&s.together},
        {&l->x, 0, NULL},
    };
    if (n > NEXT_TILES ||
        n * next_layout_of(row_bytes, scale_bytes).size + (int)sizeof(struct layer_room) + 1024 >
            (int)c->shared_memory)
        return false;
    for (int j = 0; j <= NEXT_PARTS; j++)
        if (!cuda_leave_out_under(written, (int)COUNT(written),
                                  j < NEXT_PARTS ? &p->y[j] : &p->norm.y))
            return false;
    if (!cuda_queue_take_back(c, l->from, 1))
        return false;
    struct layer *ahead = (struct layer *)cuda_queue_find(
        c, l->ahead,
        (const void *)(l->ahead_half ? layer_kernel<true, true> : layer_kernel<true, false>));
    if (ahead && ahead->out_spans == s.out_spans && ahead->n_tiles == s.n_tiles) {
        ahead->behind = s.out;
        ahead->behind_of_out = s.of_out;
        ahead->behind_experts = s.choice.n_experts;
    }
    launch(c, s, true, l->half);
    l->ahead = cuda_queue_last(c);
    l->ahead_half = l->half;
    l->stage = NOTHING;
    return true;
}
