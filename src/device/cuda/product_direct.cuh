/* device/cuda/product_direct.cuh: kernels for products of up to eight rows, whose weights go from
 * memory straight to the registers of the matrix unit.
 *
 * The order of the numbers along a row does not matter to a sum of products, if x has the same: so
 * each of the four lanes that share a row of the matrix instruction takes 16 bytes of it, as they
 * lie, and what these hold is its numbers of so many instructions. The four pieces are a block, two
 * blocks a chunk, and a warp has some chunks on their way, across tiles.
 *
 * Codes become halves where they lie: as the lowest bits of one they are 2^-24 of their value, and
 * higher up a power of two more, which the halves of x there lack. Each group of x has its own
 * power of two; it and the scale are applied to the sum of the group.
 *
 * Groups are told apart by the columns of the instruction. Of one row of x, which needs two, the
 * eight hold four groups: a lane whose numbers are not of its column's group has zeros for x. Of
 * more rows each group has an instruction.
 */
#ifndef DEVICE_CUDA_PRODUCT_DIRECT_CUH
#define DEVICE_CUDA_PRODUCT_DIRECT_CUH

#include "device/cuda/direct.cuh"

/* --- Sums --- */

/* Where a lane finds x and what belongs to its groups. */
struct direct_lane {
    uint32_t x, zeros; /* of unit 0, in the lane's column */
    const uint8_t *factors;
};

static __device__ __forceinline__ uint4 read_shared16(uint32_t at)
{
    uint4 v;

    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(at));
    return v;
}

/* Scale i of the lane's row, or for several rows of x that of group i, which another lane has. */
template <int PAIRS>
static __device__ __forceinline__ uint32_t scale_bits(const uint32_t *scales, int i)
{
    if (PAIRS == 1)
        return scales[i];
    return __shfl_sync(~0u, scales[i / 4], (threadIdx.x % 32 & ~3u) + i % 4);
}

/* acc += sum i of a chunk with its scales and biases. */
template <int C, int SHIFT, int PAIRS>
static __device__ __forceinline__ void
add_group(float acc[4], const float d[4], int i, const bunch<C, SHIFT, PAIRS> &v,
          const struct direct_lane &lane, const struct stream &s, int chunk)
{
    typedef direct<C, SHIFT, PAIRS> D;
    int group = PAIRS == 1 ? 4 * i + threadIdx.x % 4 : i;
    float scales[2], biases[2] = {0, 0};

#pragma unroll
    for (int row = 0; row < 2; row++) {
        scales[row] = scale_of<C>(D::SCALED ? scale_bits<PAIRS>(v.scales[row], i) : 0, s.kind);
        if (is_int(C))
            biases[row] = scale_of<C>(scale_bits<PAIRS>(v.biases[row], i), s.kind);
    }
    if (PAIRS == 1) {
        bool there = D::GROUPS % 4 == 0 || group < D::GROUPS;
        float2 f = {0, 0};

        if (there)
            f = ((const float2 *)lane.factors)[chunk * D::GROUPS + group];
#pragma unroll
        for (int row = 0; row < 2; row++) {
            if (is_int(C))
                acc[row] += biases[row] * f.y;
            acc[row] += scales[row] * f.x * (d[2 * row] + d[2 * row + 1]);
        }
    } else {
        const float4 f = ((const float4 *)lane.factors)[chunk * D::GROUPS + group];

#pragma unroll
        for (int row = 0; row < 2; row++) {
            if (is_int(C)) {
                acc[2 * row] += biases[row] * f.z;
                acc[2 * row + 1] += biases[row] * f.w;
            }
            acc[2 * row] += scales[row] * f.x * d[2 * row];
            acc[2 * row + 1] += scales[row] * f.y * d[2 * row + 1];
        }
    }
}

/* Whether the lane's column has the group of its numbers, for sum i. */
template <int C, int SHIFT, int PAIRS>
static __device__ __forceinline__ bool is_of_column(int i, int b)
{
    typedef direct<C, SHIFT, PAIRS> D;
    int t = threadIdx.x % 4, column = threadIdx.x % 32 / 8;
    int group = (b * D::BLOCK + t * D::PIECE) / D::GROUP;

    return !D::GROUPED || group == (PAIRS == 1 ? 4 * i + column : i);
}

/* acc += the products of a chunk: of outputs g and g + 8 and the lane's two columns; for one row of
 * x the lane's groups of the outputs, acc[0] and acc[1]. */
template <int C, int SHIFT, int PAIRS>
static __device__ __forceinline__ void use_pieces(float acc[4], const bunch<C, SHIFT, PAIRS> &v,
                                                  const struct direct_lane &lane,
                                                  const struct stream &s, int chunk)
{
    typedef direct<C, SHIFT, PAIRS> D;
    uint32_t x = lane.x + chunk * D::X_CHUNK;
    float d[D::SUMS][4], e[D::SUMS][4]; /* e: every second product's, where there is room */

#pragma unroll
    for (int b = 0; b < 2; b++) {
        const int first = D::sum_of(b, 0), last = D::sum_of(b, 3);
        const int begun = b ? D::sum_of(0, 3) : -1, ended = b ? D::SUMS : D::sum_of(1, 0);

#pragma unroll
        for (int i = first; D::GROUPED && i <= last; i++)
            if (i > begun)
                d[i][0] = d[i][1] = d[i][2] = d[i][3] = e[i][0] = e[i][1] = e[i][2] = e[i][3] = 0;
#pragma unroll
        for (int u = 0; u < D::UNITS; u++) {
            const int unit = b * D::UNITS + u;
            uint32_t low[4], high[4];

            unpack_piece<C>(low, v.low[b], u);
            unpack_piece<C>(high, v.high[b], u);
#pragma unroll
            for (int i = first; i <= last; i++) {
                uint32_t from = is_of_column<C, SHIFT, PAIRS>(i, b) ? x : lane.zeros;
                uint4 w = read_shared16((from ^ unit_swap<C>(unit)) + unit * UNIT_BYTES);
                float *sum = D::GROUPED ? d[i] : acc,
                      *other = PAIRS == 1 && D::GROUPED ? e[i] : sum;

                multiply<C == BF16>(sum, low[0], high[0], low[1], high[1], w.x, w.y);
                multiply<C == BF16>(other, low[2], high[2], low[3], high[3], w.z, w.w);
            }
        }
#pragma unroll
        for (int i = first; D::GROUPED && i < ended; i++) {
#pragma unroll
            for (int j = 0; PAIRS == 1 && j < 4; j++)
                d[i][j] += e[i][j];
            add_group<C, SHIFT, PAIRS>(acc, d[i], i, v, lane, s, chunk);
        }
    }
}

/* What output o of the tile of the one row and part is added to, if to anything. */
static __device__ __forceinline__ float read_before(const struct stream &s, const float *to,
                                                    int tile, int in_tile)
{
    int o = tile * TILE + in_tile;

    return to && tile < s.n_tiles && o < s.parts[0].n_out ? to[o] : 0;
}

/* Adds up the sums of the warps that share tiles, [KEEP, warps, 16, COLS], and writes the outputs
 * of kept tiles, the first of them first and the others a stride on; by the threads of these warps.
 */
template <int C, int SHIFT, int PAIRS, int MODE>
static __device__ __forceinline__ void
put_tiles(const float *tiles, const float *squares, const struct choices &choices,
          const struct stream &s, struct spot first, int kept, int stride, int thread, bool known,
          float before)
{
    typedef direct<C, SHIFT, PAIRS> D;

    /* Two rows to a warp, which goes on as one. */
    for (int i = thread; i - i % 32 < kept * s.n_rows * TILE; i += 32 * s.warps_k) {
        int in_tile = i % TILE, tile = PAIRS == 1 ? i / TILE : 0, r = PAIRS == 1 ? 0 : i / TILE;
        bool there = tile < kept && r < s.n_rows;
        const float *from = tiles + ((there ? tile : 0) * DIRECT_WARPS * TILE + in_tile) * D::COLS +
                            (PAIRS == 1 ? 0
                             : s.halved ? 2 * r
                                        : r);
        struct spot p = first;
        float sum = 0;

        if (there)
            walk<MODE != PLAIN>(&p, s, tile * stride);
        for (int w = 0; there && w < s.warps_k; w++, from += TILE * D::COLS)
            sum += PAIRS > 1 && s.halved ? from[0] + from[1] : from[0];
        if (MODE == PLAIN && s.norm.there && there)
            sum *= norm_factor(squares + r * DIRECT_WARPS, DIRECT_WARPS, s);
        put_sum<MODE != PLAIN>(s, choices, p, in_tile, r, there, sum,
                               MODE == PLAIN && PAIRS == 1 && known && i == thread, before);
    }
}

/* The same where a block has all choices of its tiles: what each expert answers, and these put
 * together in order, a thread for each output. before: what that is added to, of the first of
 * them. */
static __device__ __forceinline__ void put_combined(const float *tiles, const float *weights,
                                                    const struct choices &choices,
                                                    const struct stream &s, int tile, float before)
{
    const struct part &part = s.parts[0];
    int o = tile * TILE + threadIdx.x % TILE, row = 0;
    const float *from = tiles + threadIdx.x / TILE * DIRECT_WARPS * TILE + threadIdx.x % TILE;
    float sums[DIRECT_WARPS], sum = 0, all = 0;

    if (tile >= s.n_tiles || o >= part.n_out)
        return;
#pragma unroll
    for (int w = 0; w < DIRECT_WARPS; w++)
        sums[w] = from[w * TILE];
#pragma unroll
    for (int w = 0; w < DIRECT_WARPS; w++) {
        sum += sums[w];
        if ((w + 1) & (s.warps_k - 1))
            continue;
        if (part.bias)
            sum += part.bias[(size_t)choices.ids[row] * part.n_out + o];
        part.y[row * part.y_stride + o] = sum;
        all += weights[row] * sum;
        sum = 0;
        row++;
    }
    s.tail.y[o] = all;
    if (s.tail.to)
        s.tail.to[o] = before + s.tail.scale * all;
}

/* --- The kernel --- */

/* Goes to the warp's next chunk, the first of a tile's n_chunks being from first on. */
template <int C, int MODE>
static __device__ __forceinline__ void read_on(struct direct_place *p, const struct stream &s,
                                               const struct choices &choices, int n_chunks,
                                               int first, int stride)
{
    p->chunk += s.warps_k;
    if (p->chunk >= n_chunks) {
        p->chunk = first;
        walk<MODE == CHOSEN>(&p->at, s, stride);
        find_rows<C, MODE>(p, s, choices);
    }
}

/* The sums of a tile's chunks that the warp had. */
template <int PAIRS>
static __device__ __forceinline__ void keep_sums(float *tile, float acc[4], bool grouped)
{
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;

    if (PAIRS > 1) {
        *(float2 *)(tile + g * COLUMNS + 2 * t) = make_float2(acc[0], acc[1]);
        *(float2 *)(tile + (g + 8) * COLUMNS + 2 * t) = make_float2(acc[2], acc[3]);
        return;
    }
    float low = grouped ? acc[0] : acc[0] + acc[1], high = grouped ? acc[1] : acc[2] + acc[3];
    for (int lanes = 1; grouped && lanes < 4; lanes *= 2) {
        low += __shfl_xor_sync(~0u, low, lanes);
        high += __shfl_xor_sync(~0u, high, lanes);
    }
    if (t == 0) {
        tile[g] = low;
        tile[g + 8] = high;
    }
}

/* The warps that share a tile wait for each other alone. */
static __device__ __forceinline__ void meet(int group, int n_warps)
{
    if (n_warps == 1)
        __syncwarp();
    else
        asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "r"(32 * n_warps) : "memory");
}

/* The norm of each row is written down, by each block its share, while weights are on their way. */
static __device__ __forceinline__ void put_norm(const float *squares, const struct stream &s)
{
    for (int r = 0; r < s.x_rows; r++)
        for (int k = 8 * (int)(blockIdx.x + gridDim.x * threadIdx.x); k < s.n_in;
             k += 8 * (int)gridDim.x * DIRECT_THREADS) {
            float factor = norm_factor(squares + r * DIRECT_WARPS, DIRECT_WARPS, s), v[8];

            floats8(v, s.x + r * s.x_stride, k, s.n_in, s.wide);
            finish_norm(v, s, r, k, factor, true);
        }
}

template <int C, int SHIFT, int PAIRS, int MODE>
static __global__ void __launch_bounds__(32 * DIRECT_WARPS, 1)
    direct_kernel(const __grid_constant__ struct stream s)
{
    typedef direct<C, SHIFT, PAIRS> D;
    extern __shared__ __align__(128) uint8_t shared[];

    const struct direct_layout l = direct_layout_of<C, SHIFT, PAIRS>(s);
    const struct choices choices = choices_at(shared + l.choices, s);
    const float *squares = (const float *)(shared + l.squares);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, t = lane % 4, column = lane / 4;
    int slice = MODE == PLAIN && s.n_slices > 1 ? blockIdx.x % s.n_slices : 0;
    int first_chunk = slice * s.slice_chunks;
    int n_chunks = min(s.slice_chunks, s.n_chunks - first_chunk);
    int group = warp / s.warps_k, mine = warp - group * s.warps_k; /* warps_k a power of two */
    int n_groups = DIRECT_WARPS / s.warps_k, stride = s.n_units * n_groups;
    bunch<C, SHIFT, PAIRS> bunches[D::DEPTH];
    struct direct_place ahead = {};
    struct spot first = {};

    if (MODE == COMBINED) {
        first.row = group;
        stride = s.n_units;
        walk<false>(&first, s, blockIdx.x);
    } else {
        walk<MODE == CHOSEN>(
            &first, s,
            (int)(MODE == PLAIN && s.n_slices > 1 ? blockIdx.x / s.n_slices : blockIdx.x) *
                    n_groups +
                group);
    }
    ahead.at = first;
    ahead.chunk = mine;
    cuda_let_go();
    struct pieces_ahead<MODE> pieces;
    if (MODE != PLAIN) {
        bool routes = MODE == CHOSEN && s.routed;

        cuda_wait();
        read_ahead(pieces, s, 0, 0, s.slice_chunks * D::CHUNK / 8);
        if (routes)
            route_row(choices.ids, (float *)(shared + l.tiles), s.routing);
        if (!routes || s.parts[0].experts)
            take_choices(choices, s, routes);
        if (MODE == COMBINED && threadIdx.x < s.n_choices)
            ((float *)(shared + l.weights))[threadIdx.x] = s.tail.weights[threadIdx.x];
        if (!routes || s.parts[0].experts)
            __syncthreads();
    }
    find_rows<C, MODE>(&ahead, s, choices);
    /* Weights come before anything is waited for: what writes them never lets go early. */
#pragma unroll
    for (int i = 0; i < D::DEPTH; i++) {
        if (ahead.there)
            read_chunk(bunches[i], ahead, s, first_chunk + ahead.chunk);
        read_on<C, MODE>(&ahead, s, choices, n_chunks, mine, stride);
    }
    cuda_wait();
    /* What the tiles that are finished first are added to, asked for before it is wanted. */
    const float *to = MODE == COMBINED                                              ? s.tail.to
                      : MODE == PLAIN && PAIRS == 1 && s.tail.kind == CUDA_TAIL_ADD ? s.tail.y
                                                                                    : NULL;
    int own = MODE == COMBINED ? threadIdx.x : mine * 32 + lane;
    bool fresh = own < TILE * D::KEEP;
    float before = 0;
    if (to && fresh)
        before = read_before(s, to, first.tile + own / TILE * stride, own % TILE);

    take_rows_of_x<C, SHIFT, PAIRS, MODE>(shared, s, l, first_chunk * D::CHUNK, pieces);
    __syncthreads();
    if (MODE == PLAIN && s.norm.there)
        put_norm(squares, s);

    const int n_pairs = s.halved ? s.x_rows : (s.x_rows + 1) / 2;
    const uint32_t place = shared_address(shared) + unit_place<C>(0, t, column % 2);
    struct spot now = first;
    struct direct_lane from;
    float acc[4] = {};
    int chunk = mine, kept = 0, odd = 0;

    /* Where x and what belongs to its groups lie: of the lane's column, and of its sums. */
    auto find_x = [&] {
        int row = MODE == PLAIN ? 0 : MODE == COMBINED ? now.row : now.row / s.x_share;

        from.x = place + l.x + (PAIRS == 1 ? row : min(column / 2, n_pairs - 1)) * l.x_pitch;
        from.factors =
            shared + l.factors + (PAIRS == 1 ? row : min(t, n_pairs - 1)) * l.factors_pitch;
    };
    /* One chunk, and another in its place; true where there is none left. */
    auto turn = [&](bunch<C, SHIFT, PAIRS> &b) {
        use_pieces<C, SHIFT, PAIRS>(acc, b, from, s, chunk);
        if (ahead.there)
            read_chunk(b, ahead, s, first_chunk + ahead.chunk);
        read_on<C, MODE>(&ahead, s, choices, n_chunks, mine, stride);
        chunk += s.warps_k;
        if (chunk < n_chunks)
            return false;

        float *tiles = (float *)(shared + l.tiles) +
                       (odd * D::KEEP * DIRECT_WARPS + group * s.warps_k) * TILE * D::COLS;
        keep_sums<PAIRS>(tiles + (kept * DIRECT_WARPS + mine) * TILE * D::COLS, acc, D::GROUPED);
        kept++;
        walk<MODE == CHOSEN>(&now, s, stride);
        if (kept == D::KEEP || now.tile >= s.n_tiles) {
            if (MODE == COMBINED) {
                int at = first.tile + threadIdx.x / TILE * stride;

                meet(-1, DIRECT_WARPS);
                if (!fresh)
                    before = read_before(s, to, at, threadIdx.x % TILE);
                if (threadIdx.x < TILE * kept)
                    put_combined((float *)(shared + l.tiles) + odd * D::KEEP * DIRECT_WARPS * TILE,
                                 (const float *)(shared + l.weights), choices, s, at, before);
            } else {
                meet(group, s.warps_k);
                put_tiles<C, SHIFT, PAIRS, MODE>(tiles, squares, choices, s, first, kept, stride,
                                                 own, fresh && to, before);
            }
            fresh = false;
            first = now;
            kept = 0;
            odd = !odd;
        }
        if (MODE == CHOSEN)
            find_x();
        acc[0] = acc[1] = acc[2] = acc[3] = 0;
        chunk = mine;
        return now.tile >= s.n_tiles;
    };

    from.zeros = place;
    find_x();
    while (now.tile < s.n_tiles)
        if (turn(bunches[0]) || turn(bunches[1]) || (D::DEPTH > 2 && turn(bunches[D::DEPTH - 1])))
            break;
}

/* The kernel for codes in groups of 2^SHIFT. */
template <int C, int SHIFT> static struct variant direct_variant_of(const struct stream &s)
{
    typedef direct<C, SHIFT, 1> D;

    if (s.n_choices || s.x_rows == 1)
        return {s.combined    ? direct_kernel<C, SHIFT, 1, COMBINED>
                : s.n_choices ? direct_kernel<C, SHIFT, 1, CHOSEN>
                              : direct_kernel<C, SHIFT, 1, PLAIN>,
                [](const struct stream &s) { return direct_layout_of<C, SHIFT, 1>(s).size; },
                D::CHUNK, DIRECT_WARPS, NULL};
    return {direct_kernel<C, SHIFT, COLUMNS / 2, PLAIN>,
            [](const struct stream &s) { return direct_layout_of<C, SHIFT, COLUMNS / 2>(s).size; },
            D::CHUNK, DIRECT_WARPS, NULL};
}

#endif
