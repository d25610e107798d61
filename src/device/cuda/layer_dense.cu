/* device/cuda/layer_dense.cu: what lies between attention and attention in a layer without experts,
 * of one row and up to 2048 numbers, as one launch: the output of attention with what it is added
 * to; the norm, gate and up with their activation; down with what it is added to; and the next
 * layer's norm, queries, keys and values.
 *
 * As in layer_experts.cu these are launches of their own until the last of them comes, which takes
 * back those that are written down and not yet given to the stream. A block on nearly each
 * processor then goes through all stages. Each warp has weights on their way to a ring of its own
 * in shared memory, across stages, so that they are there when what they are multiplied with is.
 *
 * Blocks are in eight groups, each of which has an eighth of gate, up and down's columns: a block
 * waits for what its group made of gate and up, not for all. What a group makes of down is a part
 * of each sum; the parts are added up in memory, as whole numbers, so that it does not matter who
 * comes first.
 *
 * Results are in memory as if each operation had been launched, but for those that a later one of
 * the launch writes over: whoever laid these out needs the earlier no more.
 */
#include "device/cuda/layer_dense.cuh"

#include <stddef.h>

extern "C" {
#include "base/memory.h"
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

/* --- The kernel --- */

template <bool NEXT, bool HALF>
static __global__ void __launch_bounds__(DENSE_THREADS, 1)
    dense_kernel(const __grid_constant__ struct dense s)
{
    extern __shared__ __align__(16) uint8_t shared[];
    struct dense_room &room = *(struct dense_room *)shared;

    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, t = lane % 4, g = lane / 4;
    uint32_t ring = shared_address(room.ring[warp]);
    struct dense_warp w;
    struct dense_ahead ahead;
    struct one_lane at = {};
    float v[8], kept[8] = {};

    cuda_let_go();
    w.group = quotient_of(blockIdx.x, s.by_ranks);
    w.rank = blockIdx.x - w.group * s.n_ranks;
    w.sharing = quotient_of(warp, s.by_spans);
    w.span = warp - w.sharing * s.n_spans;
    w.down_part = quotient_of(warp, s.by_down_tiles);
    w.down_tile = warp - w.down_part * s.down_tiles;
    bool sharing = w.sharing < s.n_sharing, works = w.group < DENSE_GROUPS;
    w.n_out = w.n_gated = w.n_next = w.n_down = 0;
    if (sharing) {
        w.n_out = how_many(blockIdx.x + w.sharing * gridDim.x, s.n_sharing * gridDim.x, s.n_tiles);
        if (works)
            w.n_gated =
                how_many(w.rank + w.sharing * s.n_ranks, s.n_sharing * s.n_ranks, s.group_tiles);
        if (NEXT)
            w.n_next = how_many(blockIdx.x + w.sharing * gridDim.x, s.n_sharing * gridDim.x,
                                s.firsts[DENSE_PARTS]);
    }
    if (works && w.down_part < s.down_parts && w.rank + w.down_tile * s.n_ranks < s.n_tiles)
        w.n_down = s.between_spans / s.down_parts;
    struct dense_aim out = {};
    put_aims(&out, room, w, s);
    __syncwarp();
    ahead.slot = 0;
    ahead.stage = STAGE_OUT;
    ahead.left = w.n_out;
    if (ahead.left)
        aim(&ahead, out, s);
    else
        aim_next(&ahead, room, w, s);
#pragma unroll 1
    for (int i = 0; i < DENSE_EARLY; i++)
        ask_next(&ahead, ring, room, w, s);

    at.asked = g / 4 == t / 2;
    at.up = t % 2 ? 0 : 256;
    at.weight = (t % 2 ? 0x1p15f : 1) * 0x1p-4f;
    uint32_t of_lane = min(g % 4, 2) * one_of<INT4>::PITCH + t * 16;
    int own = threadIdx.x / 4, out_row = warp % 2 * 4 + g % 4 + g / 4 * 8;
    int out_tile = (int)blockIdx.x + own / TILE * (int)gridDim.x;
    bool has_out = own / TILE < DENSE_OUT && out_tile < s.n_tiles;
    bool leads = warp < s.n_spans; /* has x of its span */
    float before = 0;

    cuda_wait();
    if (leads)
        read8(v, s.out_x + warp * SPAN + lane * 8);
    if (has_out)
        before = s.x[out_tile * TILE + out_row];
    uint32_t turn = s.memory->turn[blockIdx.x];
    struct dense_handover *hand = s.memory->turns + turn;
    int slot = 0;
#pragma unroll 1
    for (int i = DENSE_EARLY; i < DENSE_DEPTH; i++)
        ask_next(&ahead, ring, room, w, s);

#pragma unroll 1
    for (int stage = STAGE_OUT; stage <= (NEXT ? STAGE_NEXT : STAGE_DOWN); stage++) {
        const uint8_t *x = room.x[w.span];
        int n = stage == STAGE_OUT     ? w.n_out
                : stage == STAGE_GATED ? w.n_gated
                : stage == STAGE_DOWN  ? w.n_down
                                       : w.n_next;
        float *sums = (stage == STAGE_OUT ? room.out : room.sums) +
                      (w.sharing * TILE + g + t * 8) * SUM_PITCH + w.span;
        int64_t x_step = 0;

        if (stage == STAGE_OUT) {
            if (leads)
                put_span<INT4>(room.x[warp], v);
        } else if (stage == STAGE_DOWN) {
            if (warp < s.between_spans && works) {
                take_over8<1, DENSE_FIRST, DENSE_AGAIN>(
                    &v, hand->between + (w.group * s.between_spans + warp) * SPAN + lane * 8);
                put_span<INT4>(room.between[warp], v);
            }
            x = room.between[w.down_part * w.n_down];
            x_step = DENSE_AREA;
        } else if (leads) {
            float by[8] = {1, 1, 1, 1, 1, 1, 1, 1};
            const float *weights = stage == STAGE_GATED ? s.norm : s.next_norm;

            if (weights)
                read8(by, weights + warp * SPAN + lane * 8);
            if (stage == STAGE_GATED) {
                take_over8<1, DENSE_FIRST, DENSE_AGAIN>(&kept, hand->x + warp * SPAN + lane * 8);
            } else {
                take_sums8(v, hand->sums + warp * SPAN + lane * 8, DENSE_GROUPS * s.down_parts);
#pragma unroll
                for (int i = 0; i < 8; i++)
                    kept[i] += s.scale * v[i];
            }
            norm_span(room, kept, by);
            if (stage == STAGE_NEXT) {
                put_unit(s.down_y, v, warp * WARP + lane, s.n_spans * WARP);
                put_unit(s.x, kept, warp * WARP + lane, s.n_spans * WARP);
            }
#pragma unroll
            for (int i = 0; i < 8; i++)
                v[i] = by[i];
        }
        if (stage == STAGE_DOWN || s.n_sharing > 1)
            __syncthreads();
        else
            __syncwarp();

        float acc[8] = {};
#pragma unroll 1
        for (int i = 0; i < n; i++) {
            struct dense_chunk c;
            const float *of = (const float *)(x + one_of<INT4>::SUMS);
            uint32_t x_at = shared_address(x) + of_lane;

            take_dense(&c, room.ring[warp][slot]);
            slot = slot == DENSE_DEPTH - 1 ? 0 : slot + 1;
            ask_next(&ahead, ring, room, w, s);
            float factor = of[4] * at.weight;
#pragma unroll
            for (int b = 0; b < 2; b++)
                use_block<INT4, HALF>(acc, c.blocks[b], b, &at, x_at, c.scales, factor);
#pragma unroll
            for (int j = 0; j < 2; j++)
                acc[j] += scale_in<HALF>(c.scales.biases[j], false) * of[t];
            x += x_step;
            if (stage == STAGE_DOWN && i < n - 1)
                continue;
            float mine = t % 2 ? acc[1] : acc[0], other = t % 2 ? acc[0] : acc[1];

            mine += __shfl_xor_sync(~0u, other, 1);
            mine += __shfl_xor_sync(~0u, mine, 2);
            if (t < 2) {
                if (stage == STAGE_DOWN)
                    add_sum(hand->sums + (w.rank + w.down_tile * s.n_ranks) * TILE + g + t * 8,
                            mine);
                else
                    *sums = mine;
            }
            sums += s.n_sharing * TILE * SUM_PITCH;
            acc[0] = acc[1] = 0;
        }
        if (stage == STAGE_DOWN)
            continue;
        __syncthreads();
        if (stage == STAGE_OUT) {
            if (own < DENSE_OUT * TILE) {
                float sum =
                    sum_slots(room.out + (own / TILE * TILE + out_row) * SUM_PITCH, s.n_spans);

                if (t == 0 && has_out) {
                    int o = out_tile * TILE + out_row;

                    hand_over(hand->x + o, before + s.out_scale * sum);
                    if (s.out_y)
                        s.out_y[o] = sum;
                }
            }
            if (warp == DENSE_WARPS - 1) {
                struct dense_handover *other = s.memory->turns + (turn ^ 1);
                uint4 *numbers = (uint4 *)other;

#pragma unroll 1
                for (int i = lane * gridDim.x + blockIdx.x;
                     i < (int)(sizeof *other - sizeof other->sums) / 16; i += WARP * gridDim.x)
                    numbers[i] = make_uint4(EMPTY, EMPTY, EMPTY, EMPTY);
                numbers = (uint4 *)other->sums;
#pragma unroll 1
                for (int i = lane * gridDim.x + blockIdx.x; i < (int)sizeof other->sums / 16;
                     i += WARP * gridDim.x)
                    numbers[i] = make_uint4(0, 0, 0, 0);
                if (lane == 0)
                    s.memory->turn[blockIdx.x] = turn ^ 1;
            }
        } else if (stage == STAGE_GATED) {
            if (works)
                put_dense_gated(hand, room, w, s);
            if (leads && s.normed) {
                float by = rsqrtf(sum_slots(room.squares, s.n_spans) * s.per_number + s.eps);

#pragma unroll
                for (int i = 0; i < 8; i++)
                    v[i] *= by;
                put_unit(s.normed, v, warp * WARP + lane, s.n_spans * WARP);
            }
        } else {
            put_dense_next(room, s);
            if (leads && s.next_normed) {
                float by = rsqrtf(sum_slots(room.squares, s.n_spans) * s.per_number + s.next_eps);

#pragma unroll
                for (int i = 0; i < 8; i++)
                    v[i] *= by;
                put_unit(s.next_normed, v, warp * WARP + lane, s.n_spans * WARP);
            }
        }
    }
    if (!NEXT && leads) {
        take_sums8(v, hand->sums + warp * SPAN + lane * 8, DENSE_GROUPS * s.down_parts);
        put_unit(s.down_y, v, warp * WARP + lane, s.n_spans * WARP);
#pragma unroll
        for (int i = 0; i < 8; i++)
            kept[i] += s.scale * v[i];
        put_unit(s.x, kept, warp * WARP + lane, s.n_spans * WARP);
    }
}

#else

template <bool NEXT, bool HALF>
static __global__ void dense_kernel(const __grid_constant__ struct dense s)
{
}

#endif

/* --- Operations on their way to one launch --- */

/* How far they have come. */
enum dense_noted { NOTHING, OUTPUT, GATED, JOINED };

struct cuda_dense {
    enum dense_noted noted;
    uint64_t given;           /* c->n_given then */
    struct cuda_written from; /* the first launch */
    struct cuda_product out, gated;
    /* JOINED. */
    struct dense args;
    tensor x, down_y;
    bool half;
    struct dense_memory *memory;
};

void cuda_dense_close(struct cuda_device *c)
{
    if (c->dense && c->dense->memory)
        cudaFree(c->dense->memory);
    mem_free(c->dense);
    c->dense = NULL;
}

/* Blocks of a group: a few processors are left for attention, whose keys are on their way there
 * meanwhile. */
static int ranks_of(const struct cuda_device *c)
{
    return (c->n_processors - DENSE_FOR_ATTENTION) / DENSE_GROUPS;
}

static void note(struct cuda_device *c, struct cuda_dense *l, enum dense_noted noted)
{
    l->noted = noted;
    l->given = c->n_given;
}

/* Codes of 4 bits whose rows and scales can be read as the kernel does, without biases of outputs.
 */
static bool suits(const struct cuda_product *p)
{
    for (int i = 0; i < p->n_jobs; i++) {
        const struct weight *w = &p->w[i];
        uintptr_t scales = (uintptr_t)w->scales | (uintptr_t)w->biases;

        if (w->format != WEIGHT_AFFINE || w->bits != 4 || w->group_size != 64 ||
            w->scale_type == DTYPE_F32 || w->scale_type != p->w[0].scale_type || w->n_in % SPAN ||
            w->n_out % TILE || (uintptr_t)w->data % 16 || scales % 8 || p->bias[i] ||
            (uint64_t)w->n_out * weight_row_bytes(w) > UINT32_MAX)
            return false;
    }
    return !p->experts.ids && p->x.rows == 1;
}

/* What a layer begins with. */
static bool note_output(struct cuda_device *c, struct cuda_dense *l, const struct cuda_product *p)
{
    const struct weight *w = &p->w[0];

    if (p->n_jobs != 1 || p->normed || w->n_in != w->n_out || w->n_in > MOST_X ||
        w->n_out > +TILE * DENSE_OUT * DENSE_GROUPS * ranks_of(c) || !suits(p))
        return false;
    l->out = *p;
    l->from = cuda_queue_last(c);
    note(c, l, OUTPUT);
    return true;
}

static bool note_gated(struct cuda_device *c, struct cuda_dense *l, const struct cuda_product *p)
{
    const struct weight *w = &p->w[0];

    if (l->noted != OUTPUT || c->n_given != l->given + 1 || !p->normed || p->tail.act != ACT_SILU ||
        !cuda_same(&p->norm.x, &l->out.tail.y) || w->n_in != l->out.w[0].n_in ||
        w->scale_type != l->out.w[0].scale_type || w->n_out % (DENSE_GROUPS * +SPAN) ||
        w->n_out > DENSE_GROUPS * DENSE_BETWEEN * +SPAN ||
        w->n_out / (TILE / 2) > DENSE_GROUPS * DENSE_GATED * ranks_of(c) || !suits(p))
        return false;
    l->gated = *p;
    note(c, l, GATED);
    return true;
}

void cuda_dense_note(struct cuda_device *c, const struct cuda_product *p)
{
    struct cuda_dense *l = c->dense;

    if (c->arch < 90 || c->n_processors < DENSE_FOR_ATTENTION + DENSE_GROUPS)
        return;
    if (!l)
        l = c->dense = (struct cuda_dense *)mem_zeroed(1, sizeof *l);
    if (!l)
        return;
    if (p->tail.kind == CUDA_TAIL_ADD ? !note_output(c, l, p)
                                      : p->tail.kind != CUDA_TAIL_GLU || !note_gated(c, l, p))
        l->noted = NOTHING;
}

static struct dense_matrix matrix_of(const struct weight *w)
{
    struct dense_matrix m = {};

    m.data = (const uint8_t *)w->data;
    m.scales = (const uint8_t *)w->scales;
    m.to_biases = (const uint8_t *)w->biases - m.scales;
    m.row_bytes = (uint32_t)weight_row_bytes(w);
    m.scale_row_bytes = (uint32_t)weight_scale_row_bytes(w);
    return m;
}

static bool has_memory(struct cuda_device *c, struct cuda_dense *l)
{
    if (l->memory)
        return true;
    if (c->n_processors > (int)COUNT(l->memory->turn))
        return false;
    cuda_use(c);
    if (cudaMalloc((void **)&l->memory, sizeof *l->memory) != cudaSuccess) {
        (void)cudaGetLastError();
        l->memory = NULL;
        return false;
    }
    cuda_check(c, cudaMemsetAsync(l->memory, 0, sizeof *l->memory, c->stream), "clearing memory");
    for (int i = 0; i < 2; i++)
        cuda_check(c,
                   cudaMemsetAsync(&l->memory->turns[i], 0xFF,
                                   offsetof(struct dense_handover, sums), c->stream),
                   "clearing memory");
    return true;
}

static void launch(struct cuda_device *c, const struct dense &s, bool next, bool half)
{
    struct cuda_shape shape = {};

    shape.grid = dim3((unsigned)(DENSE_GROUPS * s.n_ranks));
    shape.block = dim3(DENSE_THREADS);
    shape.shared = (unsigned)sizeof(struct dense_room);
    shape.early = true;
    shape.joins = !next;
    if (half)
        cuda_launch(c, next ? dense_kernel<true, true> : dense_kernel<false, true>, shape, s);
    else
        cuda_launch(c, next ? dense_kernel<true, false> : dense_kernel<false, false>, shape, s);
}

/* How a warp goes through a matrix: bytes from the first eight rows of a tile to the others, and to
 * its next tile, which is so many rows on. */
static void step_by(struct dense *s, int stage, const struct dense_matrix *m, int rows)
{
    s->jumps[stage] = TILE / 2 * (int64_t)m->row_bytes;
    s->steps[stage] = (uint32_t)rows * m->row_bytes;
    s->scale_steps[stage] = (uint32_t)rows * m->scale_row_bytes;
}

/* Everything up to down. */
static bool join(struct cuda_device *c, struct cuda_dense *l, const struct cuda_product *p)
{
    const struct cuda_product *out = &l->out, *gated = &l->gated;
    const struct weight *w = gated->w;
    struct dense s = {};

    s.memory = l->memory;
    s.n_spans = w->n_in / SPAN;
    s.n_tiles = w->n_in / TILE;
    s.n_sharing = DENSE_WARPS / s.n_spans;
    s.by_spans = inverse_of(s.n_spans);
    s.n_ranks = ranks_of(c);
    s.by_ranks = inverse_of(s.n_ranks);
    s.out = matrix_of(&out->w[0]);
    s.out_x = (const float *)out->x.data;
    s.out_y = (float *)out->y[0].data;
    s.x = (float *)out->tail.y.data;
    s.out_scale = out->tail.scale;
    s.norm = gated->norm.w;
    s.eps = gated->norm.eps;
    s.per_number = 1.0f / (float)w->n_in;
    s.normed = (float *)gated->norm.y.data;
    s.gate = matrix_of(&w[0]);
    s.to_up = (const uint8_t *)w[1].data - s.gate.data;
    s.to_up_scales = (const uint8_t *)w[1].scales - s.gate.scales;
    s.to_up_biases = (const uint8_t *)w[1].biases - (const uint8_t *)w->biases;
    s.group_tiles = w->n_out / (TILE / 2) / DENSE_GROUPS;
    s.n_gated = (s.group_tiles + s.n_ranks - 1) / s.n_ranks;
    s.gate_y = (float *)gated->y[0].data;
    s.up_y = (float *)gated->y[1].data;
    s.to = (float *)gated->tail.y.data;
    s.down = matrix_of(&p->w[0]);
    s.between_spans = w->n_out / SPAN / DENSE_GROUPS;
    s.down_tiles = (s.n_tiles + s.n_ranks - 1) / s.n_ranks;
    s.down_parts = s.down_tiles <= DENSE_WARPS / 2 && s.between_spans % 2 == 0 ? 2 : 1;
    s.by_down_tiles = inverse_of(s.down_tiles);
    s.down_y = (float *)p->y[0].data;
    s.scale = p->tail.scale;
    if (s.down_tiles > DENSE_WARPS)
        return false;
    step_by(&s, STAGE_OUT, &s.out, 0);
    step_by(&s, STAGE_GATED, &s.gate, s.n_sharing * s.n_ranks * (TILE / 2));
    s.jumps[STAGE_GATED] = s.to_up;
    step_by(&s, STAGE_DOWN, &s.down, 0);
    s.steps[STAGE_DOWN] = SPAN / 2;
    s.scale_steps[STAGE_DOWN] = SPAN / 64 * 2;
    if (cuda_same(&gated->tail.y, &gated->y[0]))
        s.gate_y = NULL;

    tensor gate = gated->y[0];
    if (!s.gate_y)
        gate.rows = 0;
    struct cuda_result results[] = {
        {&out->y[0], 0, (void **)&s.out_y},
        {&gated->norm.y, 1, (void **)&s.normed},
        {&gate, 1, (void **)&s.gate_y},
        {&gated->y[1], 1, (void **)&s.up_y},
        {&gated->tail.y, 1, (void **)&s.to},
        {&p->y[0], 2, (void **)&s.down_y},
        {&p->tail.y, 2, NULL},
    };
    if (!cuda_leave_out(results, (int)COUNT(results)))
        return false;
    l->args = s;
    return true;
}

bool cuda_dense_down(struct cuda_device *c, const struct cuda_product *p)
{
    struct cuda_dense *l = c->dense;

    if (!l || l->noted != GATED || p->tail.kind != CUDA_TAIL_ADD || p->normed || p->n_jobs != 1)
        return false;
    cuda_settle(c);
    if (c->n_given != l->given || !suits(p) || p->w[0].scale_type != l->out.w[0].scale_type ||
        p->w[0].n_out != l->out.w[0].n_out || p->w[0].n_in != l->gated.w[0].n_out ||
        !cuda_same(&p->x, &l->gated.tail.y) || !cuda_same(&p->tail.y, &l->out.tail.y) ||
        !rows_are_wide(&p->y[0]) || !rows_are_wide(&l->gated.norm.y) ||
        sizeof(struct dense_room) > c->shared_memory || !cuda_is_alone(c) || !has_memory(c, l) ||
        !join(c, l, p) || !cuda_queue_take_back(c, l->from, 2))
        return false;
    l->half = p->w[0].scale_type == DTYPE_F16;
    l->x = p->tail.y;
    l->down_y = p->y[0];
    launch(c, l->args, false, l->half);
    l->from = cuda_queue_last(c);
    note(c, l, JOINED);
    return true;
}

bool cuda_dense_next(struct cuda_device *c, const struct cuda_product *p)
{
    struct cuda_dense *l = c->dense;
    int n = 0;

    if (!l || l->noted != JOINED || p->n_jobs != DENSE_PARTS || !p->normed ||
        p->tail.kind != CUDA_NO_TAIL)
        return false;
    cuda_settle(c);
    if (c->n_given != l->given || !cuda_same(&p->norm.x, &l->x) || !rows_are_wide(&p->norm.y) ||
        !suits(p) || p->w[0].scale_type != l->out.w[0].scale_type)
        return false;

    struct dense s = l->args;
    for (int i = 0; i < DENSE_PARTS; i++) {
        if (p->w[i].n_in != s.n_spans * SPAN)
            return false;
        s.next[i] = matrix_of(&p->w[i]);
        s.next_y[i] = (float *)p->y[i].data;
        s.firsts[i] = n;
        n += p->w[i].n_out / TILE;
    }
    s.firsts[DENSE_PARTS] = n;
    if (n > DENSE_NEXT * s.n_sharing * DENSE_GROUPS * s.n_ranks)
        return false;
    for (int i = STAGE_NEXT; i < DENSE_STAGES; i++)
        step_by(&s, i, &s.next[0], 0);
    s.next_norm = p->norm.w;
    s.next_eps = p->norm.eps;
    s.next_normed = (float *)p->norm.y.data;

    const struct cuda_product *out = &l->out, *gated = &l->gated;
    const struct cuda_result written[] = {
        {&out->y[0], 0, (void **)&s.out_y},
        {&gated->norm.y, 0, (void **)&s.normed},
        {&gated->y[0], 0, (void **)&s.gate_y},
        {&gated->y[1], 0, (void **)&s.up_y},
        {&gated->tail.y, 0, (void **)&s.to},
        {&l->down_y, 0, (void **)&s.down_y},
        {&l->x, 0, NULL},
    };
    for (int j = 0; j <= DENSE_PARTS; j++)
        if (!cuda_leave_out_under(written, (int)COUNT(written),
                                  j < DENSE_PARTS ? &p->y[j] : &p->norm.y))
            return false;
    if (!cuda_queue_take_back(c, l->from, 1))
        return false;
    launch(c, s, true, l->half);
    l->noted = NOTHING;
    return true;
}
