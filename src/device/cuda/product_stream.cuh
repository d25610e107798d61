/* device/cuda/product_stream.cuh: kernels for products of few rows, at the speed of memory.
 *
 * A block has so many tiles of 16 outputs, one after another; its warps share the numbers of a row,
 * in chunks. Each warp brings its chunks to shared memory through a ring of its own, asynchronously
 * and several ahead, across tiles; a tile's sums are added up over the warps when all have theirs.
 *
 * The products are matrix instructions, 16 outputs x 16 numbers x 8 columns: a column is a row of
 * x, or with few rows the upper half of its bits or the lower. Order among the numbers does not
 * matter, so that a lane takes eight that lie side by side. Codes become halves by putting their
 * bits behind those of 1024; scales, and biases with the 1024 taken back, are applied to the sums
 * of a group.
 */
#ifndef DEVICE_CUDA_PRODUCT_STREAM_CUH
#define DEVICE_CUDA_PRODUCT_STREAM_CUH

#include "device/cuda/math.cuh"
#include "device/cuda/product_args.cuh"
#include "device/cuda/rows.cuh"
#include "device/cuda/stream.cuh"

/* Shared memory: x as halves [n_columns, the slice's numbers], a column PAD bytes longer; the sums
 * of each STEP of it [steps, n_columns / 2, 4]: two of x, two to begin with; of each row the
 * greatest magnitude, then what takes the scale of its halves back; the choices; the sums of the
 * warps [2, WARPS, 16, columns]; for each warp the scales of a chunk [groups, 16], and its ring. */
struct layout {
    int x_pitch, sums, factors, choices, tiles, rings, ring, stage, size;
};

/* The scales and biases of a chunk as floats, or scales as two halves alike. */
template <int C> static __host__ __device__ int table_bytes(const struct stream &s)
{
    return (RING_CHUNK >> s.group_shift) * TILE * (C == NVFP4 ? 4 : 8);
}

template <int C, int NT> static __host__ __device__ struct layout layout_of(const struct stream &s)
{
    struct layout l = {};
    int n = s.slice_chunks * RING_CHUNK, scales = is_int(C) ? 2 : 1;

    l.x_pitch = 2 * n + PAD;
    l.sums = s.n_columns * l.x_pitch;
    l.factors = l.sums + (is_int(C) ? n / STEP * ((s.n_columns + 1) / 2) * 16 : 0);
    l.choices = l.factors + (s.x_rows * 4 + 15) / 16 * 16;
    l.tiles = l.choices + choices_size(s);
    l.rings = l.tiles + 2 * WARPS * TILE * NT * COLUMNS * 4;
    l.stage = TILE * (pitch_of(C) + scales * s.scale_pitch);
    l.ring = table_bytes<C>(s) + s.n_stages * l.stage;
    l.size = l.rings + WARPS * l.ring;
    return l;
}

/* --- x --- */

/* Over the lanes that have a step. */
static __device__ __forceinline__ float2 sum_over_step(float2 v)
{
#pragma unroll
    for (int lanes = STEP / 16; lanes; lanes /= 2) {
        v.x += __shfl_xor_sync(~0u, v.x, lanes);
        v.y += __shfl_xor_sync(~0u, v.y, lanes);
    }
    return v;
}

/* Numbers [k, k + 8) of row r of x; with a norm, before they are multiplied by what makes their
 * mean square one. */
static __device__ __forceinline__ void x_numbers(float v[8], const struct stream &s, int r, int k)
{
    floats8(v, s.x + r * s.x_stride, k, s.n_in, s.wide);
}

/* What numbers [k, k + 8) of a norm are multiplied by. */
static __device__ __forceinline__ void norm_weights(float w[8], const struct stream &s, int k)
{
    if (s.norm.there && s.norm.w && k < s.n_in) {
        floats8(w, s.norm.w, k, s.n_in, true);
        return;
    }
#pragma unroll
    for (int j = 0; j < 8; j++)
        w[j] = 1;
}

static __device__ __forceinline__ void times_weights(float v[8], const struct stream &s, int k)
{
    float w[8];

    norm_weights(w, s, k);
#pragma unroll
    for (int j = 0; j < 8; j++)
        v[j] *= w[j];
}

/* Of each row the greatest magnitude among [first, first + n), for what follows to scale by; with a
 * norm of the whole row, before it is divided, and the sums of squares of each warp [x_rows,
 * WARPS].
 */
static __device__ void look_at_x(int *most, float *squares, const struct stream &s, int first,
                                 int n)
{
    int begin = s.norm.there ? 0 : first, end = s.norm.there ? s.n_in : first + n;

    for (int r = 0; r < s.x_rows; r++) {
        float m = 0, sum = 0;

#pragma unroll 4
        for (int k = begin + 8 * threadIdx.x; k < end; k += 8 * 32 * WARPS) {
            float v[8];

            x_numbers(v, s, r, k);
#pragma unroll
            for (int j = 0; j < 8; j++)
                sum += v[j] * v[j];
            times_weights(v, s, k);
#pragma unroll
            for (int j = 0; j < 8; j++)
                m = fmaxf(m, fabsf(v[j]));
        }
        int best = __reduce_max_sync(~0u, __float_as_int(m));
        sum = s.norm.there ? over_warp(sum, sum_of()) : 0;
        if (threadIdx.x % 32 == 0) {
            atomicMax(&most[r], best);
            squares[r * WARPS + threadIdx.x / 32] = sum;
        }
    }
}

/* What a row is multiplied by for its norm, of the squares that so many warps found. */
static __device__ __forceinline__ float norm_factor(const float *squares, int n_warps,
                                                    const struct stream &s)
{
    float sum = 0;

    if (!s.norm.there)
        return 1;
#pragma unroll 8
    for (int w = 0; w < n_warps; w++)
        sum += squares[w];
    return 1.0f / sqrtf(sum / (float)s.n_in + s.norm.eps);
}

/* Eight numbers to their norm, which is written down if that is the block's to do. */
static __device__ __forceinline__ void finish_norm(float v[8], const struct stream &s, int r, int k,
                                                   float factor, bool writes)
{
#pragma unroll
    for (int j = 0; j < 8; j++)
        v[j] *= factor;
    times_weights(v, s, k);
    if (writes && k < s.n_in) {
        float4 *y = (float4 *)(s.norm.y + r * s.norm.y_stride + k);

        y[0] = make_float4(v[0], v[1], v[2], v[3]);
        y[1] = make_float4(v[4], v[5], v[6], v[7]);
    }
}

/* The slice's numbers of every row, into shared memory. */
template <int C>
static __device__ void take_x(uint8_t *shared, const struct stream &s, const struct layout &l,
                              int first)
{
    int *most = (int *)(shared + l.factors);
    float *squares = (float *)(shared + l.tiles); /* before there are sums of tiles */
    int n = s.slice_chunks * RING_CHUNK, n_pairs = (s.n_columns + 1) / 2;

    for (int r = threadIdx.x; r < s.x_rows; r += 32 * WARPS)
        most[r] = 0;
    __syncthreads();
    look_at_x(most, squares, s, first, n);
    __syncthreads();
    for (int r = 0; r < s.x_rows; r++) {
        int column = s.halved ? 2 * r : r;
        float factor = norm_factor(squares + r * WARPS, WARPS, s);
        float scale = scale_for(__int_as_float(most[r]) * factor);

        /* All lanes of a warp go on or none: a chunk has whole warps of pieces, or no sums. */
        for (int k = 8 * threadIdx.x; k < n; k += 8 * 32 * WARPS) {
            uint8_t *to = shared + column * l.x_pitch + 2 * k;
            float2 sum, rest = make_float2(0, 0);
            float v[8];

            x_numbers(v, s, r, first + k);
            if (s.norm.there)
                finish_norm(v, s, r, first + k, factor, (int)blockIdx.x < s.n_slices);
#pragma unroll
            for (int j = 0; j < 8; j++)
                v[j] *= scale;
            sum = put_halves<C>(to, v);
            if (s.halved)
                rest = put_halves<C>(to + l.x_pitch, v);
            if (is_int(C)) {
                float *at =
                    (float *)(shared + l.sums) + (k / STEP * n_pairs + column / 2) * 4 + column % 2;

                sum = sum_over_step(sum);
                rest = sum_over_step(rest);
                if (k % STEP == 0) {
                    at[0] = sum.x;
                    at[2] = sum.y;
                }
                if (k % STEP == 0 && s.halved) {
                    at[1] = rest.x;
                    at[3] = rest.y;
                }
            }
        }
    }
    __syncthreads();
    for (int r = threadIdx.x; r < s.x_rows; r += 32 * WARPS)
        most[r] = __float_as_int(
            1 / scale_for(__int_as_float(most[r]) * norm_factor(squares + r * WARPS, WARPS, s)));
}

/* The experts of every choice, unless they are there, and their matrices where these follow no
 * rule; of all parts or of none. */
static __device__ __forceinline__ void take_choices(const struct choices &to,
                                                    const struct stream &s, bool found)
{
    for (int row = threadIdx.x; row < s.n_choices; row += blockDim.x) {
        int e = found             ? to.ids[row]
                : row < s.per_row ? s.ids[row]
                                  : s.ids[row / s.per_row * s.ids_stride + row % s.per_row];

        to.ids[row] = e;
        for (int i = 0; s.parts[0].experts && i < s.n_parts; i++) {
            const struct weight &w = s.parts[i].experts[e];

            to.table[row * s.n_parts + i] = {(const uint8_t *)w.data, (const uint8_t *)w.scales,
                                             (const uint8_t *)w.biases, w.scale_row};
        }
    }
}

/* --- The rings --- */

/* A tile: its number, that among those of its choice, and whose it is. */
struct spot {
    int tile, local, row, part;
};

/* n tiles on. CHOSEN: there may be experts, here and below. */
template <bool CHOSEN = true>
static __device__ __forceinline__ void walk(struct spot *p, const struct stream &s, int n)
{
    p->tile += n;
    p->local += n;
    while (CHOSEN && p->local >= s.tiles_each && p->tile < s.n_tiles) {
        p->local -= s.tiles_each;
        p->row++;
        p->part = 0;
    }
    while (p->part + 1 < s.n_parts && s.parts[p->part + 1].first_tile <= p->local)
        p->part++;
}

/* The first of a tile's outputs, of its part; and of the second's, where it is of two. */
static __device__ __forceinline__ int first_output(const struct spot &p, const struct stream &s)
{
    return (p.local - s.parts[p.part].first_tile) * (s.paired ? TILE / 2 : TILE);
}

/* The part that output number i of a tile is of, and which of the part's outputs it is. */
static __device__ __forceinline__ int part_of(const struct spot &p, const struct stream &s, int i)
{
    return s.paired ? i / (TILE / 2) : p.part;
}

static __device__ __forceinline__ int output_of(const struct spot &p, const struct stream &s, int i)
{
    return first_output(p, s) + (s.paired ? i % (TILE / 2) : i);
}

/* The matrix of a tile's outputs that are of a part. */
template <bool CHOSEN = true>
static __device__ __forceinline__ struct choice
matrix_of(const struct spot &p, const struct stream &s, const struct choices &choices, int part)
{
    const struct part &of = s.parts[part];

    if (CHOSEN && s.n_choices) {
        if (of.experts)
            return choices.table[p.row * s.n_parts + part];

        unsigned e = (unsigned)choices.ids[p.row];
        return {of.data + e * of.steps.data, of.scales + (uint64_t)e * of.steps.scales,
                of.biases + (uint64_t)e * of.steps.biases, of.scale_row};
    }
    return {of.data, of.scales, of.biases, of.scale_row};
}

/* What a warp fetches next: a chunk of the slice of a tile, if there is such a tile. */
struct place {
    struct spot at;
    int chunk;
    bool there;
    int n_left; /* outputs from the tile's first on */
    const uint8_t *data;
    int64_t jump; /* bytes more to the second half of the outputs, where it is another matrix's */
    /* The words of the scales and biases that this lane fetches, and bytes up to their end. */
    const uint8_t *scales, *biases;
    int scales_left, biases_left;
};

/* Where the scales of output o of a part begin. */
template <int C>
static __device__ __forceinline__ size_t scales_at(const struct stream &s, int part,
                                                   const struct choice &m, int o)
{
    if (C == E4M3)
        o = (m.scale_row + o) / s.parts[part].scale_rows;
    return (size_t)o * s.scale_row_bytes;
}

/* The lane's first word of what begins at p and has so many bytes left, two lanes a row. */
static __device__ __forceinline__ const uint8_t *word_at(const uint8_t *p, size_t left, int *n)
{
    int in_word = (int)((uintptr_t)p & 3), before = threadIdx.x % 2 * 4 - in_word;

    *n = (int)(left < 1 << 20 ? left : 1 << 20) - before;
    return p + before;
}

template <int C>
static __device__ __forceinline__ void find_tile(struct place *p, const struct stream &s,
                                                 const struct choices &choices)
{
    p->there = p->at.tile < s.n_tiles;
    if (!p->there)
        return;

    const struct choice m = matrix_of(p->at, s, choices, part_of(p->at, s, 0));
    int row = first_output(p->at, s);
    p->n_left = s.paired ? TILE : s.parts[p->at.part].n_out - row;
    p->data = m.data + (size_t)row * s.row_bytes;
    if (s.paired)
        p->jump = matrix_of(p->at, s, choices, 1).data - m.data - TILE / 2 * (int64_t)s.row_bytes;

    int i = min((int)threadIdx.x % 32 / 2, p->n_left - 1), part = part_of(p->at, s, i);
    const struct choice mine = matrix_of(p->at, s, choices, part);
    size_t at = scales_at<C>(s, part, mine, output_of(p->at, s, i));
    size_t end = scales_at<C>(s, part, mine, s.parts[part].n_out - 1) + s.scale_row_bytes;
    p->scales = word_at(mine.scales + at, end - at, &p->scales_left);
    p->biases = word_at(mine.biases + at, end - at, &p->biases_left);
}

/* Goes to the warp's next chunk. */
template <int C>
static __device__ __forceinline__ void step_on(struct place *p, const struct stream &s,
                                               const struct choices &choices, int n_chunks,
                                               int first, int stride)
{
    p->chunk += s.warps_k;
    if (p->chunk >= n_chunks) {
        p->chunk = first;
        walk(&p->at, s, stride);
        find_tile<C>(p, s, choices);
    }
}

/* The words around the scales of a chunk, at so many bytes; none from beyond their end. */
static __device__ __forceinline__ void fetch_scales(uint32_t to, const uint8_t *words, int left,
                                                    const struct stream &s, int at)
{
    to += threadIdx.x % 32 / 2 * s.scale_pitch + threadIdx.x % 2 * 4;
    words += at;
    left -= at;
#pragma unroll 1
    for (int i = threadIdx.x % 2 * 4; i < s.scale_pitch; i += 8, to += 8, words += 8, left -= 8)
        copy4(to, words, max(min(left, 4), 0));
}

template <int C>
static __device__ __forceinline__ void fetch(uint32_t to, const struct place &p,
                                             const struct stream &s, int first_chunk)
{
    const int n = chunk_bytes(C) / 16; /* pieces of a row */
    int chunk = first_chunk + p.chunk, lane = threadIdx.x % 32;

    if (!p.there)
        return;
    if constexpr (32 % n == 0) {
        int r = lane / n, at = lane % n * 16;
        bool there = (size_t)chunk * chunk_bytes(C) + at < s.row_bytes;
        const uint8_t *from = p.data + r * s.row_bytes + (size_t)chunk * chunk_bytes(C) + at;
        uint32_t to_row = to + r * pitch_of(C) + at;

#pragma unroll
        for (int i = 0; i < TILE * n / 32; i++, r += 32 / n, from += 32 / n * s.row_bytes) {
            if (32 / n * i == TILE / 2)
                from += p.jump;
            copy16(to_row + 32 / n * i * pitch_of(C), from, there && r < p.n_left);
        }
    } else {
#pragma unroll
        for (int i = 0; i < TILE * n / 32; i++) {
            int r = (i * 32 + lane) / n, piece = (i * 32 + lane) % n;
            size_t at = (size_t)chunk * chunk_bytes(C) + 16 * piece;

            copy16(to + r * pitch_of(C) + 16 * piece,
                   p.data + r * s.row_bytes + at + (r < TILE / 2 ? 0 : p.jump),
                   at < s.row_bytes && r < p.n_left);
        }
    }

    int at = (chunk * RING_CHUNK >> s.group_shift) * s.scale_bytes;
    to += TILE * pitch_of(C);
    fetch_scales(to, p.scales, p.scales_left, s, at);
    if (is_int(C))
        fetch_scales(to + TILE * s.scale_pitch, p.biases, p.biases_left, s, at);
}

/* --- Sums --- */

/* Where in its word the scales of the row lane % 16 begin, and the biases. */
struct offsets {
    int scale, bias;
};

template <int C>
static __device__ __forceinline__ struct offsets
offsets_of(const struct spot &p, const struct stream &s, const struct choices &choices)
{
    if (s.aligned)
        return {0, 0};

    int i = threadIdx.x % TILE, part = part_of(p, s, i);
    const struct choice m = matrix_of(p, s, choices, part);
    size_t at = scales_at<C>(s, part, m, min(output_of(p, s, i), s.parts[part].n_out - 1));
    return {(int)(((uintptr_t)m.scales + at) & 3), (int)(((uintptr_t)m.biases + at) & 3)};
}

template <int C, int KIND>
static __device__ __forceinline__ void put_scales(float2 *table, const uint8_t *scales,
                                                  const uint8_t *biases, const struct stream &s)
{
    int lane = threadIdx.x % 32;

#pragma unroll 1
    for (int g = lane / TILE; g < RING_CHUNK >> s.group_shift; g += 32 / TILE) {
        float scale = scale_value(scales, g, KIND);
        float bias = is_int(C) ? scale_value(biases, g, KIND) : 0;

        table[g * TILE + lane % TILE] = make_float2(scale, bias);
    }
}

/* The scales and biases of a chunk made ready. */
template <int C>
static __device__ __forceinline__ void take_scales(float2 *table, const uint8_t *stage,
                                                   struct offsets offsets, const struct stream &s)
{
    int lane = threadIdx.x % 32;
    const uint8_t *scales = stage + TILE * pitch_of(C) + lane % TILE * s.scale_pitch;
    const uint8_t *biases = scales + TILE * s.scale_pitch + offsets.bias;

    scales += offsets.scale;
    if (C == NVFP4) {
        for (int g = lane / TILE; g < RING_CHUNK / 16; g += 32 / TILE)
            ((__half2 *)table)[g * TILE + lane % TILE] = __float2half2_rn(e4m3_number(scales[g]));
    } else if (s.kind == AFFINE_BF16) {
        put_scales<C, AFFINE_BF16>(table, scales, biases, s);
    } else if (s.kind == AFFINE_F16) {
        put_scales<C, AFFINE_F16>(table, scales, biases, s);
    } else {
        put_scales<C, AFFINE_F32>(table, scales, biases, s);
    }
    __syncwarp();
}

/* Eight values of NVFP4 with their scale, which is exact. */
static __device__ __forceinline__ void scale_values(uint32_t r[4], __half2 scale)
{
    const __half2 unit = __float2half2_rn(16384);

#pragma unroll
    for (int j = 0; j < 4; j++)
        r[j] = times(times(r[j], unit), scale);
}

/* acc += the products of a chunk, for two outputs of each lane and two columns, NT times. */
template <int C, int NT>
static __device__ __forceinline__ void
use_chunk(float acc[NT][4], const uint8_t *stage, const float2 *table, const uint8_t *const x[NT],
          const float *const sums[NT], int in_slice, const struct stream &s)
{
    const int n_pairs = (s.n_columns + 1) / 2;
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const uint8_t *low = stage + g * pitch_of(C) + t * bits_of(C), *high = low + 8 * pitch_of(C);

#pragma unroll
    for (int step = 0; step < RING_CHUNK / STEP; step++) {
        uint32_t a[4], b[4];
        float4 begin[NT] = {};

        unpack<C>(a, low + step * 4 * bits_of(C));
        unpack<C>(b, high + step * 4 * bits_of(C));
        if (C == NVFP4) {
            const __half2 *at = (const __half2 *)table + (2 * step + t / 2) * TILE + g;

            scale_values(a, at[0]);
            scale_values(b, at[8]);
        }
        const float2 *at = table + ((step * STEP) >> s.group_shift) * TILE + g;
        float2 first = make_float2(1, 0), second = first;
        if (C != NVFP4)
            first = at[0], second = at[8];
#pragma unroll
        for (int j = 0; j < NT; j++) {
            if (j > 0 && j * COLUMNS >= s.n_columns)
                break;
            uint4 v = *(const uint4 *)(x[j] + 2 * (in_slice + step * STEP));

            if constexpr (C == NVFP4) {
                multiply<false>(acc[j], a[0], b[0], a[1], b[1], v.x, v.y);
                multiply<false>(acc[j], a[2], b[2], a[3], b[3], v.z, v.w);
                continue;
            }
            begin[j] = *(const float4 *)(sums[j] + (in_slice / STEP + step) * n_pairs * 4);

            float d[4] = {begin[j].z, begin[j].w, begin[j].z, begin[j].w};
            multiply<false>(d, a[0], b[0], a[1], b[1], v.x, v.y);
            multiply<false>(d, a[2], b[2], a[3], b[3], v.z, v.w);
            acc[j][0] += first.y * begin[j].x;
            acc[j][1] += first.y * begin[j].y;
            acc[j][2] += second.y * begin[j].x;
            acc[j][3] += second.y * begin[j].y;
            acc[j][0] += first.x * d[0];
            acc[j][1] += first.x * d[1];
            acc[j][2] += second.x * d[2];
            acc[j][3] += second.x * d[3];
        }
    }
}

/* Called rather than unfolded: it is all activations' code, and few threads', once a tile. */
static __device__ __noinline__ float glu_apart(float gate, float up, enum activation act)
{
    return glu_of(gate, up, act);
}

/* Output o of a part, of a row of y: with its bias, and added on where that comes behind, to what
 * is known or read now. */
static __device__ __forceinline__ float put_output(const struct stream &s, const struct part &part,
                                                   const float *bias, int64_t row, int o, float sum,
                                                   bool known, float before)
{
    float *to = s.tail.y + row * s.tail.y_stride + o;

    if (s.tail.kind == CUDA_TAIL_ADD && !known)
        before = *to;

    sum = bias ? sum + bias[o] : sum;
    part.y[row * part.y_stride + o] = sum;
    if (s.tail.kind == CUDA_TAIL_ADD)
        *to = before + s.tail.scale * sum;
    return sum;
}

/* The sum for one of a tile's 16 outputs in row r, if it is there; by all lanes of a warp, the
 * outputs of a row side by side. */
template <bool CHOSEN = true>
static __device__ __forceinline__ void
put_sum(const struct stream &s, const struct choices &choices, const struct spot &p, int in_tile,
        int r, bool there, float sum, bool known = false, float before = 0)
{
    int which = part_of(p, s, in_tile), o = output_of(p, s, in_tile);
    const struct part &part = s.parts[which];
    int row = CHOSEN && s.n_choices ? p.row : r;

    if (s.n_slices > 1) {
        int64_t at = ((int64_t)(blockIdx.x % s.n_slices) * s.n_rows + r) * s.n_tiles + p.tile;

        if (there)
            s.sums[at * TILE + in_tile] = sum;
        return;
    }
    there = there && o < part.n_out;
    if (there) {
        const float *bias = part.bias;

        if (CHOSEN && bias && s.n_choices)
            bias += (size_t)choices.ids[p.row] * part.n_out;
        sum = put_output(s, part, bias, row, o, sum, known, before);
    }
    if (s.paired) {
        float up = __shfl_down_sync(~0u, sum, TILE / 2);

        if (there && which == 0)
            s.tail.y[row * s.tail.y_stride + o] = glu_apart(sum, up, s.tail.act);
    }
}

/* Adds up the sums of the warps that share a tile, [warps_k, 16, columns], and writes the outputs;
 * by the threads of these warps. */
template <int C, int NT>
static __device__ __forceinline__ void
put_tile(const float *tiles, const float *factors, const struct choices &choices,
         const struct stream &s, const struct spot &p, int thread)
{
    const int columns = NT * COLUMNS;
    int in_tile = thread % TILE;

    /* Two rows to a warp, which goes on as one. */
    for (int r = thread / TILE; r - r % 2 < s.n_rows; r += 2 * s.warps_k) {
        const float *from = tiles + in_tile * columns + (s.halved ? 2 * r : r);
        bool there = r < s.n_rows;
        float sum = 0;

        for (int w = 0; there && w < s.warps_k; w++, from += TILE * columns)
            sum += s.halved ? from[0] + from[1] : from[0];
        if (there)
            sum *= factors[s.n_choices ? p.row / s.x_share : r];
        put_sum(s, choices, p, in_tile, r, there, sum);
    }
}

/* --- The kernels --- */

template <int C, int NT>
static __global__ void __launch_bounds__(32 * WARPS, 2)
    stream_kernel(const __grid_constant__ struct stream s)
{
    extern __shared__ __align__(128) uint8_t shared[];
    const struct layout l = layout_of<C, NT>(s);
    const struct choices choices = choices_at(shared + l.choices, s);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    int slice = s.n_slices > 1 ? blockIdx.x % s.n_slices : 0;
    int first_chunk = slice * s.slice_chunks;
    int n_chunks = min(s.slice_chunks, s.n_chunks - first_chunk);
    int group = warp / s.warps_k, mine = warp - group * s.warps_k; /* warps_k a power of two */
    int n_groups = WARPS / s.warps_k, stride = s.n_units * n_groups;
    float2 *table = (float2 *)(shared + l.rings + warp * l.ring);
    uint8_t *ring = (uint8_t *)table + table_bytes<C>(s);
    const uint8_t *columns[NT];
    const float *sums[NT];
    struct place ahead = {};
    struct spot now = {};
    bool idle = mine >= n_chunks; /* fewer chunks than warps */

    walk(&now, s, (int)(s.n_slices > 1 ? blockIdx.x / s.n_slices : blockIdx.x) * n_groups + group);
    ahead.at = now;
    ahead.chunk = mine;
    cuda_let_go();
    if (s.n_choices) {
        cuda_wait();
        take_choices(choices, s, false);
        __syncthreads();
    }
    find_tile<C>(&ahead, s, choices);
    /* Weights come before anything is waited for: what writes them never lets go early. */
    for (int i = 0; i < s.n_stages && !idle; i++) {
        fetch<C>(shared_address(ring + i * l.stage), ahead, s, first_chunk);
        copies_end();
        step_on<C>(&ahead, s, choices, n_chunks, mine, stride);
    }
    cuda_wait();
    take_x<C>(shared, s, l, first_chunk * RING_CHUNK);
    __syncthreads();
#pragma unroll
    for (int j = 0; j < NT; j++) {
        int two = j * COLUMNS + 2 * t;

        columns[j] = shared + min(j * COLUMNS + g, s.n_columns - 1) * l.x_pitch + 16 * t;
        sums[j] = (const float *)(shared + l.sums) + (two < s.n_columns ? 2 * two : 0);
    }

    for (int slot = 0, odd = 0; now.tile < s.n_tiles; walk(&now, s, stride), odd = !odd) {
        float *tiles = (float *)(shared + l.tiles) + odd * WARPS * TILE * NT * COLUMNS;
        const struct offsets offsets = offsets_of<C>(now, s, choices);
        float acc[NT][4] = {};

        if (s.n_choices) {
            int x_row = now.row / s.x_share;

            columns[0] = shared + (2 * x_row + g % 2) * l.x_pitch + 16 * t;
            sums[0] = (const float *)(shared + l.sums) + 4 * x_row;
        }
        for (int chunk = mine; chunk < n_chunks; chunk += s.warps_k) {
            uint8_t *stage = ring + slot * l.stage;

            copies_wait(s.n_stages - 1);
            __syncwarp();
            take_scales<C>(table, stage, offsets, s);
            use_chunk<C, NT>(acc, stage, table, columns, sums, chunk * RING_CHUNK, s);
            __syncwarp();
            fetch<C>(shared_address(stage), ahead, s, first_chunk);
            copies_end();
            step_on<C>(&ahead, s, choices, n_chunks, mine, stride);
            slot = slot + 1 == s.n_stages ? 0 : slot + 1;
        }

        float *at = tiles + (warp * TILE + g) * NT * COLUMNS + 2 * t;
#pragma unroll
        for (int j = 0; j < NT; j++) {
            *(float2 *)(at + j * COLUMNS) = make_float2(acc[j][0], acc[j][1]);
            *(float2 *)(at + (8 * NT + j) * COLUMNS) = make_float2(acc[j][2], acc[j][3]);
        }
        /* The warps that share a tile wait for each other alone. */
        asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "r"(32 * s.warps_k) : "memory");
        put_tile<C, NT>(tiles + group * s.warps_k * TILE * NT * COLUMNS,
                        (const float *)(shared + l.factors), choices, s, now, mine * 32 + lane);
    }
    copies_wait(0);
}

/* What the slices of a row give, together. */
static __global__ void add_slices(const __grid_constant__ struct stream s)
{
    int r = blockIdx.y, at = blockIdx.x * blockDim.x + threadIdx.x, tile = at / TILE;
    float sum = 0;

    cuda_let_go();
    cuda_wait();
    if (tile >= s.n_tiles)
        return;
    for (int i = 0; i < s.n_slices; i++)
        sum += s.sums[((size_t)i * s.n_rows + r) * s.n_tiles * TILE + at];

    struct spot p = {};
    walk(&p, s, tile);
    const struct part &part = s.parts[p.part];
    int o = output_of(p, s, at % TILE);
    if (o < part.n_out)
        put_output(s, part, part.bias, r, o, sum, false, 0);
}

#endif
