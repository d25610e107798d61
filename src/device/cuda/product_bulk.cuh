/* device/cuda/product_bulk.cuh: kernels for products with experts of one row, whose weights come
 * to shared memory by bulk copies.
 *
 * Which weights these are is not known before the kernel has waited for the one ahead. So they
 * should be asked for by few instructions then: warps of their own do it, as soon as one knows the
 * experts, for all that there is room for, in stages of so many chunks of a row for each group of
 * warps. The others bring x, find a stage in shared memory, and multiply as product_direct.cuh
 * does.
 */
#ifndef DEVICE_CUDA_PRODUCT_BULK_CUH
#define DEVICE_CUDA_PRODUCT_BULK_CUH

#include "device/cuda/product_direct.cuh"
#include "device/cuda/wgmma.cuh"

enum {
    BULK_THREADS = 32 * (DIRECT_WARPS + ASKING_WARPS),
    /* Barriers besides those of the groups. */
    ALL_KNOWN = 13,
    ALL_SUMS = 14,
    ALL_THERE = 15
};

template <int C, int SHIFT> static void plan_bulk_of(struct stream *s)
{
    struct bulk_plan *p = &s->plan;
    int turns = (s->n_chunks + s->warps_k - 1) / s->warps_k;

    p->direct = direct_layout_of<C, SHIFT, 1>(*s);
    p->n_groups = DIRECT_WARPS / s->warps_k;
    p->parts = (turns + p->turns - 1) / p->turns;
    p->part_bytes = p->turns * s->warps_k * CHUNK_BYTES;
    if (p->part_bytes > (int)s->row_bytes)
        p->part_bytes = (int)s->row_bytes;
    p->rows = p->parts > 1 ? 1 : TILE / 2;
    p->pitch = p->part_bytes + (p->rows == 1 ? 64 : 0);
    p->group = TILE * p->pitch;
    p->n_slots = (s->n_stages + p->parts - 2) / p->parts + 1;
    p->slot = TILE * (int)s->scale_row_bytes;
    p->n_data = p->n_groups * (TILE / p->rows);
    p->n_items = p->n_data + 4 * p->n_groups;
    p->full = (p->direct.size + 15) / 16 * 16;
    p->empty = p->full + s->n_stages * 8;
    p->scales = (p->empty + s->n_stages * 8 + 127) / 128 * 128;
    p->stages = (p->scales + p->n_slots * 2 * p->n_groups * p->slot + 127) / 128 * 128;
    p->size = p->stages + s->n_stages * p->n_groups * p->group;
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

/* A tile by its number, of the group's choice or of any. */
template <int MODE>
static __device__ __forceinline__ struct spot spot_of(const struct stream &s, int tile, int group)
{
    struct spot p = {tile, tile, group, 0};

    if (MODE == CHOSEN) {
        p.row = tile / s.tiles_each;
        p.local = tile - p.row * s.tiles_each;
    }
    walk<false>(&p, s, 0);
    return p;
}

/* --- The warp that asks --- */

/* What a lane copies of each stage: rows of codes, or scales or biases of half a tile. Where they
 * come from is found before it is known which expert's they are: then little is left to do. */
struct item {
    struct spot at;
    int in_tile, what;
    uint32_t to;
    const uint8_t *from; /* of the first expert */
    uint64_t step;
};

static __device__ __forceinline__ void find_item(struct item *item, const struct stream &s)
{
    int part = part_of(item->at, s, item->in_tile), o = output_of(item->at, s, item->in_tile);
    const struct part &of = s.parts[part];

    if (item->what == 0) {
        item->from = of.data + (size_t)o * s.row_bytes;
        item->step = of.steps.data;
    } else {
        item->from = (item->what == 1 ? of.scales : of.biases) + (size_t)o * s.scale_row_bytes;
        item->step = item->what == 1 ? of.steps.scales : of.steps.biases;
    }
}

template <int MODE>
static __device__ __forceinline__ struct item item_of(const struct stream &s, int i, int first)
{
    const struct bulk_plan &p = s.plan;
    struct item item;
    int group;

    if (i < p.n_data) {
        group = p.rows == 1 ? i / TILE : i / 2;
        item.in_tile = p.rows == 1 ? i % TILE : i % 2 * (TILE / 2);
        item.what = 0;
        item.to = group * p.group + item.in_tile * p.pitch;
    } else {
        i -= p.n_data;
        group = i / 4;
        item.in_tile = i / 2 % 2 * (TILE / 2);
        item.what = 1 + i % 2;
        item.to = (i % 2 * p.n_groups + group) * p.slot + (i / 2 % 2) * (p.slot / 2);
    }
    item.at = spot_of<MODE>(s, first + (MODE == COMBINED ? 0 : group), group);
    find_item(&item, s);
    return item;
}

/* An item of the first tile and of those that follow, by a lane. */
template <int C, int MODE>
static __device__ __forceinline__ void ask_for_all(uint8_t *shared, const struct stream &s,
                                                   const struct choices &choices, struct item item,
                                                   int first, int stride)
{
    const struct bulk_plan &p = s.plan;
    const uint32_t base = shared_address(shared);
    int stage = 0, slot = 0, turn = 0, n_stage = p.n_groups * p.group;

#pragma unroll 1
    for (int tile = first; tile < s.n_tiles; tile += stride) {
        bool there = item.at.tile < s.n_tiles;
        const uint8_t *from = item.from;

        if (there)
            from += (unsigned)choices.ids[item.at.row] * item.step;
#pragma unroll 1
        for (int part = 0; part < p.parts; part++) {
            uint32_t barrier = base + p.full + 8 * stage, data = base + p.stages + stage * n_stage;
            uint32_t scales = base + p.scales + slot * 2 * p.n_groups * p.slot;
            int n = min(p.part_bytes, (int)s.row_bytes - part * p.part_bytes) * p.rows, bytes = 0;

            if (turn)
                barrier_wait(base + p.empty + 8 * stage, turn - 1);
            if (there && (item.what == 0 || part == 0)) {
                bytes = item.what ? p.slot / 2 : n;
                copy_bulk((item.what ? scales : data) + item.to, from + part * p.part_bytes, bytes,
                          barrier);
            }
            barrier_expect(barrier, bytes);
            if (++stage == s.n_stages) {
                stage = 0;
                turn++;
            }
        }
        slot = slot + 1 == p.n_slots ? 0 : slot + 1;
        if (tile + stride >= s.n_tiles)
            break;
        walk<MODE == CHOSEN>(&item.at, s, stride);
        find_item(&item, s);
    }
}

/* The experts of every choice, found or read, by a warp; scores: what they were chosen by. */
template <int MODE>
static __device__ __forceinline__ void find_choices(const struct choices &to, float *scores,
                                                    const struct stream &s)
{
    if (MODE == CHOSEN && s.routed)
        choose_experts(to.ids, scores, s.routing);
    else
        for (int row = threadIdx.x % WARP; row < s.n_choices; row += WARP)
            to.ids[row] =
                __ldcg(row < s.per_row ? s.ids + row
                                       : s.ids + row / s.per_row * s.ids_stride + row % s.per_row);
    __syncwarp();
}

/* Writes down what was found, by one block: before it lets go, so that the next launch need not
 * wait to read it. */
static __device__ __forceinline__ void put_choices(const struct choices &choices, float *scores,
                                                   const struct stream &s)
{
    const struct routing_ahead &r = s.routing;

    for (int j = threadIdx.x % WARP; j < r.p.n_experts_per_token; j += WARP)
        r.ids[j] = choices.ids[j];
    finish_weights(r.weights, scores, r.p);
    __threadfence();
    __syncwarp();
}

/* --- The warps that multiply --- */

/* A chunk of a stage: the lane's pieces, and its scales. */
template <int C, int SHIFT>
static __device__ __forceinline__ void take_chunk(bunch<C, SHIFT, 1> &to, uint32_t data,
                                                  uint32_t eight_rows, const uint8_t *scales,
                                                  const uint8_t *biases, int eight_scale_rows)
{
    typedef direct<C, SHIFT, 1> D;
    int t = threadIdx.x % 4;

#pragma unroll
    for (int b = 0; b < 2; b++) {
        to.low[b] = read_shared16(data + 64 * b);
        to.high[b] = read_shared16(data + eight_rows + 64 * b);
    }
    if constexpr (is_int(C)) {
#pragma unroll
        for (int i = 0; i < D::SCALES; i++) {
            int at = 2 * (D::GROUPS % 4 ? min(4 * i + t, D::GROUPS - 1) : 4 * i + t);

#pragma unroll
            for (int row = 0; row < 2; row++) {
                to.scales[row][i] = *(const uint16_t *)(scales + row * eight_scale_rows + at);
                to.biases[row][i] = *(const uint16_t *)(biases + row * eight_scale_rows + at);
            }
        }
    }
}

template <int C, int SHIFT, int MODE>
static __device__ __forceinline__ void multiply_stages(uint8_t *shared, const struct stream &s,
                                                       const struct choices &choices,
                                                       int first_tile, int stride)
{
    typedef direct<C, SHIFT, 1> D;
    const struct bulk_plan &p = s.plan;
    const struct direct_layout &d = p.direct;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, t = lane % 4, column = lane / 4;
    int group = warp / s.warps_k, mine = warp - group * s.warps_k;
    struct spot first = spot_of<MODE>(s, first_tile + (MODE == COMBINED ? 0 : group), group);
    struct pieces_ahead<MODE> pieces;

    cuda_wait();
    read_ahead(pieces, s, 0, 0, s.slice_chunks * D::CHUNK / 8);
    if (MODE == COMBINED && threadIdx.x < s.n_choices)
        ((float *)(shared + d.weights))[threadIdx.x] = s.tail.weights[threadIdx.x];
    const float *to = MODE == COMBINED ? s.tail.to : NULL;
    bool fresh = threadIdx.x < TILE * D::KEEP;
    float before = 0;
    if (to && fresh)
        before = read_before(s, to, first.tile + threadIdx.x / TILE * stride, threadIdx.x % TILE);

    take_rows_of_x<C, SHIFT, 1, MODE>(shared, s, d, 0, pieces);
    barrier_among(ALL_THERE, DIRECT_THREADS + WARP);

    const uint32_t place = shared_address(shared) + unit_place<C>(0, t, column % 2);
    const uint32_t full = shared_address(shared + p.full), empty = full + s.n_stages * 8;
    const uint32_t data = shared_address(shared + p.stages) + group * p.group + column * p.pitch +
                          16 * t + mine * CHUNK_BYTES;
    const uint8_t *scales = shared + p.scales + group * p.slot + column * s.scale_row_bytes;
    struct spot now = first;
    struct direct_lane from;
    int kept = 0, odd = 0, stage = 0, slot = 0, turn = 0;

    from.zeros = place;
#pragma unroll 1
    for (int tile = first_tile; tile < s.n_tiles; tile += stride) {
        bool there = now.tile < s.n_tiles;
        int row = MODE == COMBINED ? group : s.x_rows == 1 ? 0 : now.row / s.x_share;
        int chunk = mine;
        float acc[4] = {};

        from.x = place + d.x + row * d.x_pitch;
        from.factors = shared + d.factors + row * d.factors_pitch;
#pragma unroll 1
        for (int part = 0; part < p.parts; part++) {
            uint32_t at = data + stage * p.n_groups * p.group;

            barrier_wait(full + 8 * stage, turn);
#pragma unroll 1
            for (int i = 0; i < p.turns; i++) {
                if (there && chunk < s.n_chunks) {
                    const uint8_t *of =
                        scales + slot * 2 * p.n_groups * p.slot + chunk * D::GROUPS * 2;
                    bunch<C, SHIFT, 1> b;

                    take_chunk<C, SHIFT>(b, at, 8 * p.pitch, of, of + p.n_groups * p.slot,
                                         8 * (int)s.scale_row_bytes);
                    use_pieces<C, SHIFT, 1>(acc, b, from, s, chunk);
                }
                at += s.warps_k * CHUNK_BYTES;
                chunk += s.warps_k;
            }
            barrier_arrive(empty + 8 * stage);
            if (++stage == s.n_stages) {
                stage = 0;
                turn++;
            }
        }
        slot = slot + 1 == p.n_slots ? 0 : slot + 1;
        if (!there)
            continue;

        float *tiles =
            (float *)(shared + d.tiles) + (odd * D::KEEP * DIRECT_WARPS + group * s.warps_k) * TILE;
        keep_sums<1>(tiles + (kept * DIRECT_WARPS + mine) * TILE, acc, D::GROUPED);
        kept++;
        walk<MODE == CHOSEN>(&now, s, stride);
        if (kept < D::KEEP && now.tile < s.n_tiles)
            continue;
        if (MODE == COMBINED) {
            int tile_of = first.tile + threadIdx.x / TILE * stride;

            barrier_among(ALL_SUMS, DIRECT_THREADS);
            if (!fresh)
                before = read_before(s, to, tile_of, threadIdx.x % TILE);
            if (threadIdx.x < TILE * kept)
                put_combined((float *)(shared + d.tiles) + odd * D::KEEP * DIRECT_WARPS * TILE,
                             (const float *)(shared + d.weights), choices, s, tile_of, before);
        } else {
            meet(group, s.warps_k);
            put_tiles<C, SHIFT, 1, MODE>(tiles, NULL, choices, s, first, kept, stride,
                                         mine * 32 + lane, false, 0);
        }
        fresh = false;
        first = now;
        kept = 0;
        odd = !odd;
    }
}

#endif

template <int C, int SHIFT, int MODE>
static __global__ void __launch_bounds__(BULK_THREADS, 1)
    bulk_kernel(const __grid_constant__ struct stream s)
{
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
    extern __shared__ __align__(128) uint8_t shared[];
    const struct bulk_plan &p = s.plan;
    const struct choices choices = choices_at(shared + p.direct.choices, s);
    int first = MODE == COMBINED ? blockIdx.x : blockIdx.x * p.n_groups;
    int stride = MODE == COMBINED ? s.n_units : s.n_units * p.n_groups;

    float *scores = (float *)(shared + p.direct.weights);
    bool finds = MODE == CHOSEN && s.routed;

    if (!finds || blockIdx.x > 0)
        cuda_let_go();
    if (threadIdx.x < DIRECT_THREADS) {
        multiply_stages<C, SHIFT, MODE>(shared, s, choices, first, stride);
        return;
    }
    int warp = threadIdx.x / WARP - DIRECT_WARPS, i = threadIdx.x % WARP;

    if (warp == 0 && i < s.n_stages) {
        barrier_open(shared_address(shared + p.full) + 8 * i, p.n_items);
        barrier_open(shared_address(shared + p.empty) + 8 * i, DIRECT_THREADS);
    }
    barrier_show();

    struct item item = {};

    i = i * ASKING_WARPS + warp;
    if (i < p.n_items)
        item = item_of<MODE>(s, i, first);
    if (warp == 0) {
        if (!s.known)
            cuda_wait();
        find_choices<MODE>(choices, scores, s);
    }
    barrier_among(ALL_KNOWN, BULK_THREADS - DIRECT_THREADS);
    if (warp == 0)
        asm volatile("bar.arrive %0, %1;" ::"r"((int)ALL_THERE), "r"(DIRECT_THREADS + WARP)
                     : "memory");
    if (i < p.n_items)
        ask_for_all<C, MODE>(shared, s, choices, item, first, stride);
    if (warp > 0)
        return;
    __syncwarp();
    if (finds && blockIdx.x == 0) {
        put_choices(choices, scores, s);
        cuda_let_go();
    }
#endif
}

/* The kernel for codes in groups of 2^SHIFT. */
template <int C, int SHIFT> static struct variant bulk_variant_of(const struct stream &s)
{
    typedef direct<C, SHIFT, 1> D;

    return {s.combined ? bulk_kernel<C, SHIFT, COMBINED> : bulk_kernel<C, SHIFT, CHOSEN>,
            [](const struct stream &a) { return a.plan.size; }, D::CHUNK, DIRECT_WARPS,
            plan_bulk_of<C, SHIFT>};
}

#endif
