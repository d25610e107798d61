/* device/cuda/direct.cuh: what product_direct.cuh is made of: what a block shares, weights on their
 * way to registers, x as halves. */
#ifndef DEVICE_CUDA_DIRECT_CUH
#define DEVICE_CUDA_DIRECT_CUH

#include "device/cuda/product_stream.cuh"
#include "device/cuda/router.cuh"

enum {
    UNIT_BYTES = 128 /* of x in shared memory: eight numbers for each of four lanes, high and low */
};

/* Numbers of 16 bytes. */
static __host__ __device__ constexpr int piece_of(int codes)
{
    return 128 / bits_of(codes);
}

/* Which kernel: of one matrix for each job; of experts, which it may choose by itself; of experts
 * whose answers it puts together. Apart, as an instruction that is merely there costs time. */
enum direct_mode { PLAIN, CHOSEN, COMBINED };

/* Codes C in groups of 2^SHIFT numbers, each of which may be a part of a group of the format; PAIRS
 * of columns. */
template <int C, int SHIFT, int PAIRS> struct direct {
    static constexpr int PIECE = piece_of(C), UNITS = PIECE / 8;
    static constexpr int BLOCK = 4 * PIECE, CHUNK = 2 * BLOCK;
    static constexpr int GROUP = 1 << SHIFT, GROUPS = CHUNK / GROUP; /* of a chunk */
    static constexpr bool GROUPED = C != BF16, SCALED = C > F16;
    static constexpr int SCALES = (GROUPS + 3) / 4; /* of a chunk, each lane's */
    static constexpr int SUMS = !GROUPED ? 1 : PAIRS == 1 ? SCALES : GROUPS;
    static constexpr int DEPTH = SCALED ? 2 : 3; /* chunks on their way */
    static constexpr int X_CHUNK = 2 * UNITS * UNIT_BYTES;
    static constexpr int COLS = PAIRS == 1 ? 1 : COLUMNS; /* of a tile's sums */
    static constexpr int KEEP = PAIRS == 1 ? 8 : 1;       /* tiles that are finished together */

    static_assert(GROUP >= PIECE && GROUP <= CHUNK,
                  "a piece is of one group, a group of one chunk");

    /* The sum that the numbers of lanes t in block b add to. */
    static constexpr __device__ int sum_of(int b, int t)
    {
        int group = (b * BLOCK + t * PIECE) / GROUP;

        return !GROUPED ? 0 : PAIRS > 1 ? group : group / 4;
    }
};

template <int C, int SHIFT, int PAIRS>
static __host__ __device__ struct direct_layout direct_layout_of(const struct stream &s)
{
    typedef direct<C, SHIFT, PAIRS> D;
    struct direct_layout l = {};
    int n_pairs = s.halved ? s.x_rows : (s.x_rows + 1) / 2;

    l.x = D::X_CHUNK;
    l.x_pitch = s.slice_chunks * D::X_CHUNK;
    l.factors = l.x + n_pairs * l.x_pitch;
    l.factors_pitch = D::GROUPED ? s.slice_chunks * D::GROUPS * (PAIRS == 1 ? 8 : 16) : 0;
    l.squares = l.factors + (n_pairs * l.factors_pitch + 15) / 16 * 16;
    l.choices = l.squares + (s.norm.there ? s.x_rows * DIRECT_WARPS * 4 : 0);
    l.weights = l.choices + choices_size(s);
    l.tiles = l.weights + s.n_choices * 4;
    l.size = l.tiles + 2 * D::KEEP * DIRECT_WARPS * TILE * D::COLS * 4;
    return l;
}

/* --- Weights --- */

static __device__ __forceinline__ uint4 read16(const uint8_t *p)
{
    uint4 v;

    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}

/* A scale or bias as it lies, of 1, 2 or 4 bytes. */
template <typename T> static __device__ __forceinline__ uint32_t read_scale(const uint8_t *p)
{
    return __ldg((const T *)p);
}

/* Without a branch: both 16-bit types cost less than one. */
template <int C> static __device__ __forceinline__ float scale_of(uint32_t v, int kind)
{
    if (C == F16)
        return 1;
    if (C == E2M1)
        return e8m0_number((uint8_t)v);
    if (C == E4M3)
        return kind == SCALE_E8M0 ? e8m0_number((uint8_t)v) : __uint_as_float(v);

    float bf = bf16_number((uint16_t)v), f = f16_number((uint16_t)v);
    return kind == AFFINE_BF16 ? bf : kind == AFFINE_F16 ? f : __uint_as_float(v);
}

/* What a warp has on its way: the pieces of two blocks and their scales, of a lane's two rows. */
template <int C, int SHIFT, int PAIRS> struct bunch {
    uint4 low[2], high[2];
    uint32_t scales[2][direct<C, SHIFT, PAIRS>::SCALES], biases[2][direct<C, SHIFT, PAIRS>::SCALES];
};

/* A lane's place among the chunks: of its two rows the piece of chunk 0, and the scales. */
struct direct_place {
    struct spot at;
    int chunk;
    bool there;
    const uint8_t *data[2], *scales[2], *biases[2];
};

template <int C, int MODE>
static __device__ __forceinline__ void find_rows(struct direct_place *p, const struct stream &s,
                                                 const struct choices &choices)
{
    int lane = threadIdx.x % 32;

    p->there = p->at.tile < s.n_tiles;
    if (!p->there)
        return;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int in_tile = lane / 4 + i * TILE / 2, part = part_of(p->at, s, in_tile);
        const struct choice m = matrix_of<MODE != PLAIN>(p->at, s, choices, part);
        int o = min(output_of(p->at, s, in_tile), s.parts[part].n_out - 1);

        p->data[i] = m.data + (size_t)o * s.row_bytes + lane % 4 * 16;
        if (C > F16) {
            size_t at = scales_at<C>(s, part, m, o);

            p->scales[i] = m.scales + at;
            p->biases[i] = m.biases + at;
        }
    }
}

/* The scales of a chunk; whole: all of its groups are there. */
template <typename T, bool WHOLE, int C, int SHIFT, int PAIRS>
static __device__ __forceinline__ void read_scales(bunch<C, SHIFT, PAIRS> &to,
                                                   const struct direct_place &p,
                                                   const struct stream &s, int chunk)
{
    typedef direct<C, SHIFT, PAIRS> D;
    int t = threadIdx.x % 4;

#pragma unroll
    for (int i = 0; i < D::SCALES; i++) {
        int group = chunk * D::GROUPS + (D::GROUPS % 4 ? min(4 * i + t, D::GROUPS - 1) : 4 * i + t);

        /* Beyond the row's end x is zero, and so is what comes of any scale that is finite. */
        if (!WHOLE)
            group = min(group, (s.n_in - 1) >> SHIFT);
        int at = (C == E4M3 ? group << SHIFT >> s.group_shift : group) * (int)sizeof(T);

#pragma unroll
        for (int row = 0; row < 2; row++) {
            to.scales[row][i] = read_scale<T>(p.scales[row] + at);
            if (is_int(C))
                to.biases[row][i] = read_scale<T>(p.biases[row] + at);
        }
    }
}

template <bool WHOLE, int C, int SHIFT, int PAIRS>
static __device__ __forceinline__ void read_pieces(bunch<C, SHIFT, PAIRS> &to,
                                                   const struct direct_place &p,
                                                   const struct stream &s, int chunk)
{
    size_t at = (size_t)chunk * CHUNK_BYTES;

#pragma unroll
    for (int b = 0; b < 2; b++) {
        bool there = WHOLE || at + 64 * b + threadIdx.x % 4 * 16 < s.row_bytes;

        to.low[b] = there ? read16(p.data[0] + at + 64 * b) : make_uint4(0, 0, 0, 0);
        to.high[b] = there ? read16(p.data[1] + at + 64 * b) : make_uint4(0, 0, 0, 0);
    }
    if constexpr (is_int(C)) {
        if (s.kind == AFFINE_F32)
            read_scales<uint32_t, WHOLE>(to, p, s, chunk);
        else
            read_scales<uint16_t, WHOLE>(to, p, s, chunk);
    } else if constexpr (C == E4M3 && SHIFT == 7) {
        read_scales<uint32_t, WHOLE>(to, p, s, chunk);
    } else if constexpr (C == E4M3 || C == E2M1) {
        read_scales<uint8_t, WHOLE>(to, p, s, chunk);
    }
}

template <int C, int SHIFT, int PAIRS>
static __device__ __forceinline__ void read_chunk(bunch<C, SHIFT, PAIRS> &to,
                                                  const struct direct_place &p,
                                                  const struct stream &s, int chunk)
{
    if ((size_t)(chunk + 1) * CHUNK_BYTES <= s.row_bytes)
        read_pieces<true>(to, p, s, chunk);
    else
        read_pieces<false>(to, p, s, chunk);
}

/* Unit u of a piece: eight codes as halves, times direct_unit(C) and 1 / direct_part(C, i). */
template <int C>
static __device__ __forceinline__ void unpack_piece(uint32_t r[4], const uint4 &v, int u)
{
    const uint32_t words[4] = {v.x, v.y, v.z, v.w};

    if (C <= F16) {
        r[0] = v.x, r[1] = v.y, r[2] = v.z, r[3] = v.w;
    } else if (C == INT4) {
        uint32_t w = words[u], above = w >> 8;

        r[0] = w & 0x000F000F;
        r[1] = w & 0x00F000F0;
        r[2] = above & 0x000F000F;
        r[3] = above & 0x00F000F0;
    } else if (C == INT8) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            r[i] = __byte_perm(words[2 * u + i / 2], 0, i % 2 ? 0x4342 : 0x4140);
    } else {
        uint8_t codes[8];

        memcpy(codes, bits_of(C) == 4 ? &words[u] : &words[2 * u], bits_of(C));
        unpack<C>(r, codes);
    }
}

/* A code's half over its value. */
static __host__ __device__ constexpr float direct_unit(int codes)
{
    return is_int(codes) ? 0x1p-24f : codes == E2M1 || codes == NVFP4 ? 0x1p-14f : 1;
}

/* And what x is multiplied by beside code i of eight. */
static __host__ __device__ constexpr float direct_part(int codes, int i)
{
    return codes == INT4 && i % 2 ? 0x1p-4f : 1;
}

/* --- x --- */

/* What the place of a piece in its unit of x is changed by, so that lanes that write pieces that
 * follow one another, of several units, write to other banks. */
template <int C> static __device__ __forceinline__ constexpr int unit_swap(int unit)
{
    return (piece_of(C) == 32 ? unit % 4 * 2 : unit % 2 * 4) * 16;
}

/* Where the numbers of lane t are in a unit of x, of high bits or of low ones. */
template <int C> static __device__ __forceinline__ int unit_place(int unit, int t, int low)
{
    return unit * UNIT_BYTES + ((t + 4 * low) * 16 ^ unit_swap<C>(unit));
}

/* Eight numbers as halves in the order of the codes. v becomes what they lack. */
template <int C> static __device__ __forceinline__ uint4 take_halves(float v[8])
{
    uint32_t r[4];

#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int a = is_spread(C) ? i : 2 * i, b = is_spread(C) ? i + 4 : 2 * i + 1;

        if (C == BF16) {
            __nv_bfloat162 h = __floats2bfloat162_rn(v[a], v[b]);
            float2 f = __bfloat1622float2(h);

            memcpy(&r[i], &h, 4);
            v[a] -= f.x, v[b] -= f.y;
        } else {
            __half2 h = __floats2half2_rn(v[a], v[b]);
            float2 f = __half22float2(h);

            memcpy(&r[i], &h, 4);
            v[a] -= f.x, v[b] -= f.y;
        }
    }
    return make_uint4(r[0], r[1], r[2], r[3]);
}

/* Numbers [8 i, 8 i + 8) of a row as halves, with what belongs to their group. All lanes of the
 * warp, with numbers that follow one another. */
template <int C, int SHIFT, int PAIRS>
static __device__ __forceinline__ void put_piece(uint8_t *shared, const struct stream &s,
                                                 const struct direct_layout &l, float v[8], int i,
                                                 int n, int row)
{
    typedef direct<C, SHIFT, PAIRS> D;
    int pair = s.halved ? row : row / 2, half = s.halved ? 0 : row % 2;
    int t = i / D::UNITS % 4, unit = i / D::UNITS / 4 * D::UNITS + i % D::UNITS;
    uint8_t *x = shared + l.x + pair * l.x_pitch;
    float scale = 1, sum = 0;

    if (D::GROUPED) {
        float most = 0;

#pragma unroll
        for (int j = 0; j < 8; j++) {
            most = fmaxf(most, fabsf(v[j]));
            sum += v[j];
        }
#pragma unroll
        for (int lanes = 1; lanes < D::GROUP / 8; lanes *= 2) {
            most = fmaxf(most, __shfl_xor_sync(~0u, most, lanes));
            sum += __shfl_xor_sync(~0u, sum, lanes);
        }
        scale = scale_for(most);
    }
    if (i >= n)
        return;
#pragma unroll
    for (int j = 0; j < 8; j++)
        v[j] *= scale * direct_part(C, j);
    *(uint4 *)(x + unit_place<C>(unit, t, half)) = take_halves<C>(v);
    if (s.halved)
        *(uint4 *)(x + unit_place<C>(unit, t, 1)) = take_halves<C>(v);

    if (D::GROUPED && i % (D::GROUP / 8) == 0) {
        float *factors = (float *)(shared + l.factors + pair * l.factors_pitch);
        float factor = inverse_of_power(scale) * (1 / direct_unit(C));
        int group = i / (D::GROUP / 8);

        if (PAIRS == 1) {
            ((float2 *)factors)[group] = make_float2(factor, sum);
        } else if (s.halved) {
            ((float4 *)factors)[group] = make_float4(factor, factor, sum, 0);
        } else {
            factors[group * 4 + half] = factor;
            factors[group * 4 + 2 + half] = sum;
        }
    }
}

/* The squares of what the slice has not got of a row, for its norm. */
static __device__ float other_squares(const struct stream &s, int row, int first, int n)
{
    float sum = 0;

    for (int k = 8 * threadIdx.x; s.n_slices > 1 && k < s.n_in; k += 8 * DIRECT_THREADS) {
        float v[8];

        floats8(v, s.x + row * s.x_stride, k, s.n_in, s.wide);
#pragma unroll
        for (int j = 0; j < 8; j++)
            if (k < first || k >= first + n)
                sum += v[j] * v[j];
    }
    return sum;
}

/* Piece i of the slice's numbers, of a row that is one of several only with experts. */
template <int MODE>
static __device__ __forceinline__ void read_piece(float v[8], const struct stream &s, int row,
                                                  int first, int each, int i)
{
    int more = MODE == PLAIN ? 0 : min(i / each, s.x_rows - 1);

    floats8(v, s.x + (row + more) * s.x_stride, first + 8 * (i - more * each), s.n_in, s.wide);
}

/* Pieces that a thread has asked for ahead. */
template <int MODE> struct pieces_ahead {
    static const int n = MODE == PLAIN ? 1 : 2;
    float v[n][8];
};

template <int MODE>
static __device__ __forceinline__ void
read_ahead(struct pieces_ahead<MODE> &p, const struct stream &s, int row, int first, int each)
{
#pragma unroll
    for (int i = 0; i < p.n; i++)
        read_piece<MODE>(p.v[i], s, row, first, each, threadIdx.x + i * DIRECT_THREADS);
}

/* The slice's numbers of every row, into shared memory; with a norm without what divides it. Those
 * of experts come all at once, and were asked for before their weights; others one after another.
 * The code is short on purpose: all of it is fetched anew by every launch. */
template <int C, int SHIFT, int PAIRS, int MODE>
static __device__ __forceinline__ void take_rows_of_x(uint8_t *shared, const struct stream &s,
                                                      const struct direct_layout &l, int first,
                                                      struct pieces_ahead<MODE> &ahead)
{
    typedef direct<C, SHIFT, PAIRS> D;
    const bool normed = MODE == PLAIN && s.norm.there;
    int each = s.slice_chunks * D::CHUNK / 8, lane = threadIdx.x % 32;
    int at_once = MODE == PLAIN ? 1 : s.x_rows, n = at_once * each;

    for (int i = threadIdx.x; i < D::X_CHUNK / 16; i += DIRECT_THREADS)
        ((uint4 *)shared)[i] = make_uint4(0, 0, 0, 0);
    for (int r = 0; r < s.x_rows; r += at_once) {
        float squares = normed ? other_squares(s, r, first, 8 * n) : 0;

        if (MODE == PLAIN)
            read_ahead(ahead, s, r, first, each);
#pragma unroll 1
        for (int i = threadIdx.x; i - lane < n; i += DIRECT_THREADS) {
            int row = MODE == PLAIN ? 0 : i / each, at = i - row * each;
            float v[8], w[8];

            if (MODE == PLAIN)
                norm_weights(w, s, first + 8 * at); /* on their way while x is */
#pragma unroll
            for (int j = 0; j < 8; j++) {
                v[j] = i < n ? ahead.v[0][j] : 0;
                ahead.v[0][j] = ahead.v[ahead.n - 1][j];
            }
            read_piece<MODE>(ahead.v[ahead.n - 1], s, r, first, each, i + ahead.n * DIRECT_THREADS);
            if (normed) {
#pragma unroll
                for (int j = 0; j < 8; j++) {
                    squares += v[j] * v[j];
                    v[j] *= w[j];
                }
            }
            put_piece<C, SHIFT, PAIRS>(shared, s, l, v, at, i < n ? each : 0, r + row);
        }
        if (normed) {
            squares = over_warp(squares, sum_of());
            if (lane == 0)
                ((float *)(shared + l.squares))[r * DIRECT_WARPS + threadIdx.x / 32] = squares;
        }
    }
}

/* --- Experts --- */

/* The experts of the row, by a warp that has all numbers at hand, and what they are chosen by, in
 * weights [k]. */
static __device__ __forceinline__ void choose_experts(int *ids, float *weights,
                                                      const struct routing_ahead &r)
{
    const int each = ROUTED_EXPERTS / WARP;
    int n = r.p.n_experts, lane = threadIdx.x % WARP;
    float x[each], bias[each], sum = 0;
    float2 seen = {-INFINITY, 0};
    unsigned keys[each];

#pragma unroll
    for (int v = 0; v < each; v++) {
        int i = lane + v * WARP;

        x[v] = i < n ? r.logits[i] : -INFINITY;
        bias[v] = i < n && r.p.bias ? r.p.bias[i] : 0;
        seen.x = fmaxf(seen.x, x[v]);
    }
    seen.x = number_of_key(__reduce_max_sync(~0u, key_of(seen.x)));
    if (r.p.score == ROUTER_SOFTMAX_ALL) {
#pragma unroll
        for (int v = 0; v < each; v++) {
            x[v] = expf(x[v] - seen.x);
            sum += lane + v * WARP < n ? x[v] : 0;
        }
        sum = over_warp(sum, sum_of());
#pragma unroll
        for (int v = 0; v < each; v++)
            x[v] = or_least(x[v] / sum);
    } else {
#pragma unroll
        for (int v = 0; v < each; v++)
            x[v] = score_of(x[v], seen, r.p);
    }
#pragma unroll
    for (int v = 0; v < each; v++) {
        keys[v] = lane + v * WARP < n ? key_of(r.p.bias ? or_least(x[v] + bias[v]) : x[v]) : 0;
    }
#pragma unroll 1
    for (int j = 0; j < r.p.n_experts_per_token; j++) {
        unsigned own = 0, at = ~0u;

#pragma unroll
        for (int v = 0; v < each; v++)
            own = max(own, keys[v]);
        unsigned best = __reduce_max_sync(~0u, own);
        unsigned lanes = __ballot_sync(~0u, own == best);
#pragma unroll
        for (int v = each - 1; v >= 0; v--)
            at = keys[v] == best ? lane + v * WARP : at;
        if (lanes & (lanes - 1))
            at = at == __reduce_min_sync(~0u, at) ? at : ~0u;
#pragma unroll
        for (int v = 0; v < each; v++)
            if (at == lane + v * WARP) {
                keys[v] = 0;
                ids[j] = (int)at;
                weights[j] = x[v];
            }
    }
}

/* The same for all threads of a block; the first block writes them down, with what their answers
 * are multiplied by. */
static __device__ __forceinline__ void route_row(int *ids, float *weights,
                                                 const struct routing_ahead &r)
{
    if (threadIdx.x < WARP)
        choose_experts(ids, weights, r);
    __syncthreads();
    if (blockIdx.x == 0 && threadIdx.x / WARP == DIRECT_WARPS - 1) {
        for (int j = threadIdx.x % WARP; j < r.p.n_experts_per_token; j += WARP)
            r.ids[j] = ids[j];
        finish_weights(r.weights, weights, r.p);
    }
}

#endif
