/* device/cuda/attend_tile.cuh: the work of a block of decode's, and its tiles of 16 keys: where
 * they lie, and from there to the matrix unit's numbers. attend_decode.cu says which lane holds
 * what. */
#ifndef DEVICE_CUDA_ATTEND_TILE_CUH
#define DEVICE_CUDA_ATTEND_TILE_CUH

#include "device/cuda/attend.cuh"
#include "device/cuda/mma.cuh"

enum { THREADS = 128, WARPS = THREADS / 32, TILE = 16, MAX_SPLITS = 128, SPLIT_TILES = WARPS };

/* What one block does. */
struct work {
    const int32_t *blocks; /* of the sequence */
    int n_kept, n_gone, position, row;
    bool one_row;
    int kv_head;
    int first_query, n_queries; /* of the sequence's: row * group + head in the group */
    int begin, end;             /* keys, all but */
    int hole, hole_end;
    int plain_from, plain_to, unplain_to; /* keys that all queries see: [plain_from, plain_to) but
                                             [hole, unplain_to) */
};

static __device__ __forceinline__ int row_of(const attend_args &a, const struct work &w, int query)
{
    return w.one_row ? 0 : (w.first_query + query) / a.group;
}

static __device__ __forceinline__ int head_of(const attend_args &a, const struct work &w, int query)
{
    int i = w.first_query + query;

    return attend_head(a, w.kv_head, w.one_row ? i : i % a.group);
}

/* Tiles in the order in which they are visited, those within the hole left out. */
struct tiles {
    int first, before_hole, after_hole, n; /* numbers of tiles, and how many */
};

static __device__ __forceinline__ struct tiles tiles_of(const struct work &w)
{
    int first = w.begin / TILE, end = (w.end + TILE - 1) / TILE;

    if (w.hole >= w.hole_end)
        return {first, end - first, 0, end - first};
    int before = (w.hole + TILE - 1) / TILE - first;
    int after = max(w.hole_end / TILE, first + before);
    return {first, before, after, before + max(end - after, 0)};
}

static __device__ __forceinline__ int tile_number(const struct tiles &t, int i)
{
    return i < t.before_hole ? t.first + i : t.after_hole + i - t.before_hole;
}

/* --- A tile as it lies --- */

template <int BITS, int DIM> struct raw_keys;
template <int BITS, int DIM> struct raw_values;

template <int DIM> struct raw_keys<0, DIM> {
    uint4 numbers[DIM / 32][2];
};

template <int DIM> struct raw_values<0, DIM> {
    uint4 numbers[DIM / 64][4];
};

template <int DIM> struct raw_keys<8, DIM> {
    typedef uint4 word;
    word codes[DIM / 64][2];
    uint16_t scales[DIM / 64][2], biases[DIM / 64][2];
};

template <int DIM> struct raw_values<8, DIM> {
    typedef uint2 word;
    word codes[DIM / 64][4];
    uint16_t scales[DIM / 64][4], biases[DIM / 64][4];
};

template <int DIM> struct raw_keys<4, DIM> {
    typedef uint2 word;
    word codes[DIM / 64][2];
    uint16_t scales[DIM / 64][2], biases[DIM / 64][2];
};

template <int DIM> struct raw_values<4, DIM> {
    typedef uint32_t word;
    word codes[DIM / 64][4];
    uint16_t scales[DIM / 64][4], biases[DIM / 64][4];
};

/* Past the caches that blocks share: what is read here is read once. */
template <typename W> static __device__ __forceinline__ W load_once(const void *p)
{
    W w;

    if constexpr (sizeof(W) == 16)
        asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                     : "=r"(w.x), "=r"(w.y), "=r"(w.z), "=r"(w.w)
                     : "l"(p));
    else
        w = __ldg((const W *)p);
    return w;
}

/* Where a row's codes and the scales of their groups lie. */
static __device__ __forceinline__ const char *codes_at(const char *block, const kv_part &part,
                                                       int row)
{
    return block + part.rows + (unsigned)row * (unsigned)part.row_bytes;
}

static __device__ __forceinline__ const char *scales_at(const char *block, const kv_part &part,
                                                        int row)
{
    return block + part.scales + (unsigned)row * (unsigned)part.group_bytes;
}

/* The numbers that there are; others stay as they were, which is 0. row: that of the tile's first
 * key; group_shift: the logarithm of the pool's group_size. */
template <int BITS, int DIM>
static __device__ __forceinline__ void load_keys(raw_keys<BITS, DIM> &k, const kv_part &part,
                                                 const char *block, int row, int group_shift)
{
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;

#pragma unroll
    for (int half = 0; half < 2; half++) {
        const char *from = codes_at(block, part, row + g + 8 * half);

        if constexpr (BITS == 0) {
#pragma unroll
            for (int s = 0; s < DIM / 32; s++)
                if (32 * s + 8 * t < part.dim)
                    k.numbers[s][half] = load_once<uint4>(from + 64 * s + 16 * t);
        } else {
            const char *scales = scales_at(block, part, row + g + 8 * half);
            size_t ahead = part.biases - part.scales;

#pragma unroll
            for (int s = 0; s < DIM / 64; s++)
                if (64 * s + 16 * t < part.dim) {
                    const char *scale = scales + ((64 * s + 16 * t) >> group_shift) * 2;

                    k.codes[s][half] = load_once<typename raw_keys<BITS, DIM>::word>(
                        from + (64 * s + 16 * t) * BITS / 8);
                    k.scales[s][half] = load_once<uint16_t>(scale);
                    k.biases[s][half] = load_once<uint16_t>(scale + ahead);
                }
        }
    }
}

/* In place of a key of the tile that no query sees the nearest that some do: its weight is 0, and
 * what lies at the other may be no number. */
static __device__ __forceinline__ int some_key(const struct work &w, int tile, int key)
{
    int first = max(tile, w.begin), k = min(max(key, first), w.end - 1);

    if (k >= w.hole && k < w.hole_end)
        k = w.hole > first ? w.hole - 1 : w.hole_end;
    return k;
}

template <int BITS, int DIM>
static __device__ __forceinline__ void load_values(raw_values<BITS, DIM> &v, const kv_part &part,
                                                   const char *block, int row, int group_shift,
                                                   const struct work &w, int key)
{
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;

#pragma unroll
    for (int j = 0; j < 4; j++) {
        int at = row - key + some_key(w, key, key + 2 * t + j % 2 + j / 2 * 8);
        const char *from = codes_at(block, part, at);

        if constexpr (BITS == 0) {
#pragma unroll
            for (int c = 0; c < DIM / 64; c++)
                if (64 * c + 8 * g < part.dim)
                    v.numbers[c][j] = load_once<uint4>(from + 128 * c + 16 * g);
        } else {
            const char *scales = scales_at(block, part, at);
            size_t ahead = part.biases - part.scales;

#pragma unroll
            for (int c = 0; c < DIM / 64; c++)
                if (64 * c + 8 * g < part.dim) {
                    const char *scale = scales + ((64 * c + 8 * g) >> group_shift) * 2;

                    v.codes[c][j] = load_once<typename raw_values<BITS, DIM>::word>(
                        from + (64 * c + 8 * g) * BITS / 8);
                    v.scales[c][j] = load_once<uint16_t>(scale);
                    v.biases[c][j] = load_once<uint16_t>(scale + ahead);
                }
        }
    }
}

/* --- From what lies there to numbers, two in a word --- */

template <typename T, int N>
static __device__ __forceinline__ void numbers_8bit(uint32_t *to, const uint32_t (&codes)[N],
                                                    uint16_t scale, uint16_t bias)
{
#pragma unroll
    for (int i = 0; i < N; i++) {
        to[2 * i] = mma_from_bytes<T>(codes[i], 0, scale, bias);
        to[2 * i + 1] = mma_from_bytes<T>(codes[i], 1, scale, bias);
    }
}

/* Words of 8 codes give numbers 0 and 4, 1 and 5, 2 and 6, 3 and 7. */
template <typename T, int N>
static __device__ __forceinline__ void numbers_4bit(uint32_t *to, const uint32_t (&codes)[N],
                                                    uint16_t scale, uint16_t bias)
{
#pragma unroll
    for (int i = 0; i < 4 * N; i++)
        to[i] = mma_from_nibbles<T>(codes[i / 4] >> i % 4 * 4, scale, bias);
}

/* How many steps of 16 dims of K q^T the lanes hold in one span, and these: [step][2] words. */
template <int BITS> struct span {
    static const int steps = BITS ? 4 : 2;
};

template <typename T, int BITS, int DIM>
static __device__ __forceinline__ void key_numbers(uint32_t *to, const raw_keys<BITS, DIM> &k,
                                                   int s, int half)
{
    if constexpr (BITS == 0) {
        const uint4 &n = k.numbers[s][half];

        to[0] = n.x, to[1] = n.y, to[2] = n.z, to[3] = n.w;
    } else if constexpr (BITS == 8) {
        const uint4 &c = k.codes[s][half];

        numbers_8bit<T>(to, {c.x, c.y, c.z, c.w}, k.scales[s][half], k.biases[s][half]);
    } else {
        const uint2 &c = k.codes[s][half];

        numbers_4bit<T>(to, {c.x, c.y}, k.scales[s][half], k.biases[s][half]);
    }
}

/* to [8]: of 8 dims, the values of two keys in a word. */
template <typename T, int BITS, int DIM>
static __device__ __forceinline__ void value_pairs(uint32_t *to, const raw_values<BITS, DIM> &v,
                                                   int c, int j)
{
    uint32_t x[2][4];

#pragma unroll
    for (int i = 0; i < 2; i++) {
        if constexpr (BITS == 0) {
            const uint4 &n = v.numbers[c][j + i];

            x[i][0] = n.x, x[i][1] = n.y, x[i][2] = n.z, x[i][3] = n.w;
        } else if constexpr (BITS == 8) {
            const uint2 &n = v.codes[c][j + i];

            numbers_8bit<T>(x[i], {n.x, n.y}, v.scales[c][j + i], v.biases[c][j + i]);
        } else {
            numbers_4bit<T>(x[i], {v.codes[c][j + i]}, v.scales[c][j + i], v.biases[c][j + i]);
        }
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        to[BITS == 4 ? i : 2 * i] = __byte_perm(x[0][i], x[1][i], 0x5410);
        to[BITS == 4 ? i + 4 : 2 * i + 1] = __byte_perm(x[0][i], x[1][i], 0x7632);
    }
}

#endif
