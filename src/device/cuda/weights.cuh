/* device/cuda/weights.cuh: numbers of a matrix of any format, eight at a time. Layouts are those of
 * device/weight.h; rounded as weight_row_f32 rounds, bit for bit. */
#ifndef DEVICE_CUDA_WEIGHTS_CUH
#define DEVICE_CUDA_WEIGHTS_CUH

#include "device/cuda/numbers.cuh"

extern "C" {
#include "device/weight.h"
}

/* Scale or bias i of a WEIGHT_AFFINE, any alignment. */
static __device__ __forceinline__ float scale_number(const uint8_t *p, int i, int type)
{
    if (type == DTYPE_F32) {
        p += 4 * i;
        return __uint_as_float(p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24);
    }
    p += 2 * i;
    uint16_t bits = (uint16_t)(p[0] | p[1] << 8);
    return type == DTYPE_F16 ? f16_number(bits) : bf16_number(bits);
}

/* n <= 8 bytes, little-endian. */
static __device__ __forceinline__ uint64_t bytes_at(const uint8_t *p, int n)
{
    uint64_t v = 0;

    if (n == 8 && (uintptr_t)p % 8 == 0)
        return *(const uint64_t *)p;
    if (n == 4 && (uintptr_t)p % 4 == 0)
        return *(const uint32_t *)p;
    for (int i = 0; i < n; i++)
        v |= (uint64_t)p[i] << 8 * i;
    return v;
}

static __device__ __forceinline__ void dense_numbers8(float v[8], const uint8_t *p, int format,
                                                      int n)
{
    bool wide = n == 8 && (uintptr_t)p % 16 == 0;

    if (format == WEIGHT_F32) {
        if (wide) {
            float4 a = ((const float4 *)p)[0], b = ((const float4 *)p)[1];

            v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
            v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
            return;
        }
#pragma unroll
        for (int i = 0; i < 8; i++)
            v[i] = i < n ? __uint_as_float((uint32_t)bytes_at(p + 4 * i, 4)) : 0;
        return;
    }

    uint64_t words[2] = {0, 0};
    if (wide) {
        uint4 a = *(const uint4 *)p;

        words[0] = a.x | (uint64_t)a.y << 32;
        words[1] = a.z | (uint64_t)a.w << 32;
    } else {
        words[0] = bytes_at(p, n < 4 ? 2 * n : 8);
        words[1] = n > 4 ? bytes_at(p + 8, 2 * n - 8) : 0;
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        uint16_t bits = (uint16_t)(words[i / 4] >> 16 * (i % 4));

        v[i] = format == WEIGHT_F16 ? f16_number(bits) : bf16_number(bits);
    }
}

/* Numbers [k, k + 8) of row o, 0 from n_in on; k a multiple of 8. */
static __device__ __forceinline__ void weight_numbers8(float v[8], const struct weight &w, int o,
                                                       int k)
{
    const uint8_t *data = (const uint8_t *)w.data, *scales = (const uint8_t *)w.scales;
    int n = min(w.n_in - k, 8);

    if (w.format <= WEIGHT_BF16) {
        int size = w.format == WEIGHT_F32 ? 4 : 2;

        dense_numbers8(v, data + ((size_t)o * w.n_in + k) * size, w.format, n);
        return;
    }

    int64_t groups = (w.n_in + w.group_size - 1) / w.group_size;
    const uint8_t *at = data + (size_t)o * ((size_t)w.n_in * w.bits / 8) + (size_t)(k / 8) * w.bits;
    uint64_t codes = bytes_at(at, n == 8 ? w.bits : n);
    int64_t group = o * groups + k / w.group_size;
    if (w.format == WEIGHT_AFFINE) {
        int size = w.scale_type == DTYPE_F32 ? 4 : 2;
        float scale = scale_number(scales + group * size, 0, w.scale_type);
        float bias = scale_number((const uint8_t *)w.biases + group * size, 0, w.scale_type);
        unsigned mask = (1u << w.bits) - 1;

#pragma unroll
        for (int i = 0; i < 8; i++)
            v[i] =
                __fadd_rn(__fmul_rn((float)((unsigned)(codes >> i * w.bits) & mask), scale), bias);
        return;
    }
    if (w.format == WEIGHT_FP8) {
        scales += ((int64_t)w.scale_row + o) / w.scale_rows * groups * 4;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            float scale = i < n ? scale_number(scales, (k + i) / w.group_size, DTYPE_F32) : 0;

            v[i] = bf16_number(bf16_bits(e4m3_number((uint8_t)(codes >> 8 * i)) * scale));
        }
        return;
    }

    float scale =
        w.format == WEIGHT_NVFP4 ? e4m3_number(scales[group]) : e8m0_number(scales[group]);
#pragma unroll
    for (int i = 0; i < 8; i++)
        v[i] = scale * (w.format == WEIGHT_MXFP8 ? e4m3_number((uint8_t)(codes >> 8 * i))
                                                 : e2m1_number((unsigned)(codes >> 4 * i)));
}

/* Numbers [k, k + 8) of a row of n, 0 from n on; wide: the row is 16-byte aligned. */
static __device__ __forceinline__ void floats8(float v[8], const float *x, int k, int n, bool wide)
{
    if (wide && k + 8 <= n) {
        float4 a = *(const float4 *)(x + k), b = *(const float4 *)(x + k + 4);

        v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
        v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        v[i] = k + i < n ? x[k + i] : 0;
}

/* Whether every row of a tensor of f32 is 16-byte aligned. */
static inline bool rows_are_wide(const tensor *x)
{
    return (uintptr_t)x->data % 16 == 0 && (x->stride % 4 == 0 || x->rows <= 1);
}

#endif
