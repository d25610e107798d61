/* device/cuda/numbers.cuh: numbers of all types as f32, in kernels, by the definitions of
 * base/number.h and device/weight.h. */
#ifndef DEVICE_CUDA_NUMBERS_CUH
#define DEVICE_CUDA_NUMBERS_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "device/cuda/cuda.h"

static __device__ __forceinline__ float bf16_number(uint16_t h)
{
    return __uint_as_float((uint32_t)h << 16);
}

static __device__ __forceinline__ float f16_number(uint16_t h)
{
    return __half2float(__ushort_as_half(h));
}

/* Nearest even. */
static __device__ __forceinline__ uint16_t bf16_bits(float x)
{
    return __bfloat16_as_ushort(__float2bfloat16_rn(x));
}

/* Eight numbers, to a multiple of 16 bytes. */
static __device__ __forceinline__ void store_bf16s(uint16_t *to, const float v[8])
{
    __nv_bfloat162 h[4];
    uint4 words;

#pragma unroll
    for (int i = 0; i < 4; i++)
        h[i] = __floats2bfloat162_rn(v[2 * i], v[2 * i + 1]);
    memcpy(&words, h, 16);
    *(uint4 *)to = words;
}

static __device__ __forceinline__ uint16_t f16_bits(float x)
{
    return __half_as_ushort(__float2half_rn(x));
}

static __device__ __forceinline__ float e4m3_number(uint8_t b)
{
    unsigned magnitude = b & 0x7F;
    float x = magnitude < 8 ? (float)magnitude * 0x1p-9f
                            : __uint_as_float((magnitude << 20) + (120u << 23));

    if (magnitude == 0x7F)
        x = __uint_as_float(0x7FC00000);
    return b & 0x80 ? -x : x;
}

static __device__ __forceinline__ float e8m0_number(uint8_t b)
{
    return __uint_as_float(b == 255 ? 0x7FC00000 : b == 0 ? 0x00400000 : (uint32_t)b << 23);
}

/* 0 0.5 1 1.5 2 3 4 6 in halves, a nibble each, bit 3 the sign. */
static __device__ __forceinline__ float e2m1_number(unsigned q)
{
    float x = (float)(0xC8643210u >> 4 * (q & 7) & 15) * 0.5f;

    return q & 8 ? -x : x;
}

/* Number i of numbers of a type: F32, F16 or BF16. */
static __device__ __forceinline__ float number_at(const void *data, enum dtype type, int64_t i)
{
    switch (type) {
    case DTYPE_F16:
        return f16_number(((const uint16_t *)data)[i]);
    case DTYPE_BF16:
        return bf16_number(((const uint16_t *)data)[i]);
    default:
        return ((const float *)data)[i];
    }
}

/* Halves saturate. */
static __device__ __forceinline__ void store_number(void *data, enum dtype type, int64_t i, float x)
{
    if (type == DTYPE_F16)
        ((uint16_t *)data)[i] = f16_bits(x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x);
    else if (type == DTYPE_BF16)
        ((uint16_t *)data)[i] = bf16_bits(x);
    else
        ((float *)data)[i] = x;
}

/* Value i of a little-endian stream of values of some bits each. */
static __device__ __forceinline__ unsigned stream_value(const uint8_t *stream, int bits, int i)
{
    size_t at = (size_t)i * (size_t)bits;
    unsigned shift = at % 8, v = stream[at / 8] >> shift;

    if (shift + (unsigned)bits > 8)
        v |= (unsigned)stream[at / 8 + 1] << (8 - shift);
    return v & ((1u << bits) - 1);
}

/* Number [o, i] of a weight of any format: the definition, one number at a time. */
static __device__ inline float weight_number(const struct weight &w, int64_t o, int i)
{
    int64_t n = w.n_in, groups = w.group_size ? (n + w.group_size - 1) / w.group_size : 0;
    const uint8_t *data = (const uint8_t *)w.data;
    int64_t group = w.group_size ? o * groups + i / w.group_size : 0;

    switch (w.format) {
    case WEIGHT_F32:
        return ((const float *)data)[o * n + i];
    case WEIGHT_F16:
        return f16_number(((const uint16_t *)data)[o * n + i]);
    case WEIGHT_BF16:
        return bf16_number(((const uint16_t *)data)[o * n + i]);
    case WEIGHT_AFFINE: {
        float q = (float)stream_value(data + o * (n * w.bits / 8), w.bits, i);
        float product = __fmul_rn(q, number_at(w.scales, w.scale_type, group));

        return __fadd_rn(product, number_at(w.biases, w.scale_type, group));
    }
    case WEIGHT_MXFP4:
        return e2m1_number(stream_value(data + o * (n / 2), 4, i)) *
               e8m0_number(((const uint8_t *)w.scales)[group]);
    case WEIGHT_NVFP4:
        return e2m1_number(stream_value(data + o * (n / 2), 4, i)) *
               e4m3_number(((const uint8_t *)w.scales)[group]);
    case WEIGHT_MXFP8:
        return e4m3_number(data[o * n + i]) * e8m0_number(((const uint8_t *)w.scales)[group]);
    case WEIGHT_FP8: {
        int64_t row = (w.scale_row + o) / w.scale_rows;
        float scale = ((const float *)w.scales)[row * groups + i / w.group_size];

        return bf16_number(bf16_bits(e4m3_number(data[o * n + i]) * scale));
    }
    default:
        return 0;
    }
}

#endif
