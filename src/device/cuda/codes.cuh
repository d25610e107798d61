/* device/cuda/codes.cuh: weights of 4 and 8 bits eight at a time, where they lie so that loads need
 * no look at each byte: the same numbers as weight_numbers8 gives, in two steps, so that several
 * loads of a thread are on their way at a time. */
#ifndef DEVICE_CUDA_CODES_CUH
#define DEVICE_CUDA_CODES_CUH

#include "device/cuda/weights.cuh"

/* Codes as they lie: f32 of 2^23 and the code less 2^23. */
template <int BITS> struct code_words;
template <> struct code_words<8> {
    uint2 words;
    __device__ float code(int i) const
    {
        return __uint_as_float(__byte_perm(i < 4 ? words.x : words.y, 0x4b000000, 0x7440 | i % 4)) -
               8388608.0f;
    }
};
template <> struct code_words<4> {
    uint32_t word;
    __device__ float code(int i) const
    {
        return __uint_as_float((word >> 4 * i & 15) | 0x4b000000) - 8388608.0f;
    }
};

/* Eight codes of a WEIGHT_AFFINE, with their scale and bias. */
template <int BITS> struct eight {
    struct code_words<BITS> codes;
    uint16_t scale, bias;

    /* The eight with the number i, counted through all rows; group_shift: code_group_shift(). */
    __device__ __forceinline__ void load(const struct weight &w, int64_t i, int group_shift)
    {
        int64_t group = i >> (group_shift - 3);

        codes = ((const struct code_words<BITS> *)w.data)[i];
        scale = __ldg((const uint16_t *)w.scales + group);
        bias = __ldg((const uint16_t *)w.biases + group);
    }

    __device__ __forceinline__ void numbers(float v[8], const struct weight &w) const
    {
        bool f16 = w.scale_type == DTYPE_F16;
        float s = f16 ? f16_number(scale) : bf16_number(scale);
        float b = f16 ? f16_number(bias) : bf16_number(bias);

#pragma unroll
        for (int i = 0; i < 8; i++)
            v[i] = __fadd_rn(__fmul_rn(codes.code(i), s), b);
    }
};

/* The logarithm of the group's size where eights of the weight can be loaded so, else 0. */
static inline int code_group_shift(const struct weight *w)
{
    int shift = 0;

    if (w->format != WEIGHT_AFFINE || (w->bits != 4 && w->bits != 8) ||
        w->scale_type == DTYPE_F32 || w->group_size < 8 || w->n_in % w->group_size ||
        (uintptr_t)w->data % w->bits || (uintptr_t)w->scales % 2 || (uintptr_t)w->biases % 2)
        return 0;
    while (1 << shift < w->group_size)
        shift++;
    return 1 << shift == w->group_size ? shift : 0;
}

#endif
