/* device/cuda/kv_store.cuh: the keys, or values, of a head put into a block of the paged cache, by
 * a warp. */
#ifndef DEVICE_CUDA_KV_STORE_CUH
#define DEVICE_CUDA_KV_STORE_CUH

#include "device/cuda/kv.cuh"
#include "device/cuda/rows.cuh"

static __device__ __forceinline__ uint16_t stored_bits(enum dtype type, float x)
{
    uint16_t h;

    store_number(&h, type, 0, x);
    return h;
}

static __device__ void store_numbers(char *to, enum dtype type, const float *x, int n)
{
    int lane = threadIdx.x % 32;
    bool wide = n % 4 == 0 && (uintptr_t)x % 16 == 0 && (uintptr_t)to % 16 == 0;

    for (int i = wide ? 4 * lane : n; i < n; i += 128) {
        float4 y = *(const float4 *)(x + i);

        if (type == DTYPE_F32)
            *(float4 *)((float *)to + i) = y;
        else
            *(ushort4 *)((uint16_t *)to + i) =
                make_ushort4(stored_bits(type, y.x), stored_bits(type, y.y), stored_bits(type, y.z),
                             stored_bits(type, y.w));
    }
    for (int i = wide ? n : lane; i < n; i += 32)
        store_number(to, type, i, x[i]);
}

/* A group's step and bias, as affine.h has them. */
static __device__ void line_through(const float *x, int n, float most, float *step, float *bias)
{
    float lo = INFINITY, hi = -INFINITY;

    for (int i = threadIdx.x % 32; i < n; i += 32) {
        lo = fminf(lo, x[i]);
        hi = fmaxf(hi, x[i]);
    }
    lo = -over_warp(-lo, most_of());
    hi = over_warp(hi, most_of());
    bool low = fabsf(lo) > fabsf(hi);
    float edge = low ? lo : hi, s = fmaxf((hi - lo) / most, 1e-7f);

    s = low ? s : -s;
    float whole = rintf(edge / s);
    *step = whole == 0 ? s : edge / whole;
    *bias = whole == 0 ? 0 : edge;
}

static __device__ __forceinline__ unsigned code_of(float x, float step, float bias, float most)
{
    return (unsigned)fminf(fmaxf(rintf((x - bias) / step), 0), most);
}

static __device__ void store_codes(const struct cuda_pool &pool, const struct kv_part &part,
                                   char *block, int row, const float *x)
{
    uint8_t *codes = (uint8_t *)block + part.rows + (size_t)row * part.row_bytes;
    float most = pool.bits == 4 ? 15 : 255;
    int lane = threadIdx.x % 32, per_byte = 8 / pool.bits;

    for (int g = 0; g < part.n_groups; g++) {
        int begin = g * pool.group_size, n = min(pool.group_size, part.dim - begin);
        const float *y = x + begin;
        float step, bias;

        line_through(y, n, most, &step, &bias);
        for (int i = lane * per_byte; i < n; i += 32 * per_byte) {
            unsigned code = code_of(y[i], step, bias, most);

            if (pool.bits == 4 && i + 1 < n)
                code |= code_of(y[i + 1], step, bias, most) << 4;
            codes[(begin + i) / per_byte] = (uint8_t)code;
        }
        if (lane == 0) {
            size_t at = (size_t)row * part.group_bytes;

            store_number(block + part.scales + at, pool.type, g, step);
            store_number(block + part.biases + at, pool.type, g, bias);
        }
    }
    for (size_t i = (size_t)(part.dim - 1) / per_byte + 1 + lane; i < part.row_bytes; i += 32)
        codes[i] = 0;
}

/* Where numbers go: a row of a part of a block. */
struct kv_place {
    const struct cuda_pool *pool;
    const struct kv_part *part;
    char *block;
    int row;
};

static __device__ __forceinline__ struct kv_place kv_place_of(const struct cuda_kv &kv,
                                                              const struct cuda_batch &batch,
                                                              int64_t t, int head, bool values)
{
    const struct kv_sequence &s = batch.sequences[batch.of_row[t]];
    int position = s.position + (int)t - s.row;
    const struct cuda_pool &pool = pool_at(kv, position);

    return {&pool, values ? &pool.values : &pool.keys, block_at(kv, s, position),
            head * kv.block_tokens + position % kv.block_tokens};
}

static __device__ void kv_put(const struct kv_place &p, const float *x)
{
    if (p.pool->bits)
        store_codes(*p.pool, *p.part, p.block, p.row, x);
    else
        store_numbers(p.block + p.part->rows + (size_t)p.row * p.part->row_bytes, p.pool->type, x,
                      p.part->dim);
}

#endif
