/* device/cuda/mma.cuh: the matrix unit's m16n8k16 for f16 and bf16, and numbers for it. Words hold
 * two numbers, the first in the low half. From sm_80 on. */
#ifndef DEVICE_CUDA_MMA_CUH
#define DEVICE_CUDA_MMA_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>
#include <type_traits>

template <typename T> static __device__ __forceinline__ uint32_t mma_word(T x)
{
    uint32_t w;

    static_assert(sizeof x == sizeof w, "two numbers");
    memcpy(&w, &x, sizeof w);
    return w;
}

template <typename T> static __device__ __forceinline__ T mma_unword(uint32_t w)
{
    T x;

    memcpy(&x, &w, sizeof x);
    return x;
}

template <typename T> struct mma_two;
template <> struct mma_two<__half> {
    typedef __half2 type;
};
template <> struct mma_two<__nv_bfloat16> {
    typedef __nv_bfloat162 type;
};

/* d += a b; a [16, 16] by rows: words (row g, cols 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8)
 * of lane 4 g + t; b [16, 8]: (rows 2t, col g), (2t + 8, g); d [16, 8]: (g, 2t), (g, 2t + 1), (g +
 * 8, 2t), (g + 8, 2t + 1). */
template <typename T>
static __device__ __forceinline__ void mma_16816(float (&d)[4], uint32_t a0, uint32_t a1,
                                                 uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1)
{
    if constexpr (std::is_same<T, __half>::value)
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, "
                     "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    else
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                     "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/* An 8 x 8 matrix of which lane 4 g + t has (g, 2t) and (g, 2t + 1): its transpose, alike. */
static __device__ __forceinline__ uint32_t mma_transpose(uint32_t x)
{
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %0;" : "+r"(x));
    return x;
}

/* Four matrices of 8 x 8 from shared memory, a row's address from each lane: word i of lane 4 g + t
 * is (g, 2t) and (g, 2t + 1) of matrix i, or of its transpose. */
static __device__ __forceinline__ void mma_load(uint32_t (&to)[4], uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
}

static __device__ __forceinline__ void mma_load_transposed(uint32_t (&to)[4], uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
}

/* 16 bytes on their way to shared memory; zeros where there is nothing. */
static __device__ __forceinline__ void mma_copy(uint32_t to, const void *from, bool there = true)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                 "r"(there ? 16 : 0)
                 : "memory");
}

/* All but the last n groups of copies that this thread has closed have arrived. */
static __device__ __forceinline__ void mma_close_copies(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int N> static __device__ __forceinline__ void mma_wait_copies(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

template <typename T> static __device__ __forceinline__ T mma_round(float x)
{
    if constexpr (std::is_same<T, __half>::value)
        return __float2half_rn(x);
    else
        return __float2bfloat16_rn(x);
}

static __device__ __forceinline__ float mma_float(__half x)
{
    return __half2float(x);
}

static __device__ __forceinline__ float mma_float(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}

template <typename T> static __device__ __forceinline__ uint32_t mma_pack(float low, float high)
{
    if constexpr (std::is_same<T, __half>::value)
        return mma_word(__floats2half2_rn(low, high));
    else
        return mma_word(__floats2bfloat162_rn(low, high));
}

/* code * scale + bias for two codes, which are small whole numbers as T has them. */
template <typename T>
static __device__ __forceinline__ uint32_t mma_affine(uint32_t codes, uint16_t scale, uint16_t bias)
{
    typedef typename mma_two<T>::type two;

    return mma_word(__hfma2(mma_unword<two>(codes), mma_unword<two>(scale * 0x10001u),
                            mma_unword<two>(bias * 0x10001u)));
}

/* From the codes in bits [0, 4) and [16, 20) of a word. */
template <typename T>
static __device__ __forceinline__ uint32_t mma_from_nibbles(uint32_t w, uint16_t scale,
                                                            uint16_t bias)
{
    /* 1024 or 128 and the code, whose bits are the mantissa's last */
    const uint32_t above = std::is_same<T, __half>::value ? 0x64006400 : 0x43004300;
    typedef typename mma_two<T>::type two;

    w = (w & 0x000f000f) | above;
    return mma_affine<T>(mma_word(__hsub2(mma_unword<two>(w), mma_unword<two>(above))), scale,
                         bias);
}

/* From bytes 2 i and 2 i + 1 of a word. */
template <typename T>
static __device__ __forceinline__ uint32_t mma_from_bytes(uint32_t w, int i, uint16_t scale,
                                                          uint16_t bias)
{
    if constexpr (std::is_same<T, __half>::value) {
        uint32_t above = __byte_perm(w, 0x64646464, i ? 0x4342 : 0x4140);

        return mma_affine<T>(
            mma_word(__hsub2(mma_unword<__half2>(above), mma_unword<__half2>(0x64006400))), scale,
            bias);
    } else { /* bf16 holds no more than 8 bits: by way of f32, 2^23 and the code */
        float low = __uint_as_float(__byte_perm(w, 0x4b000000, i ? 0x7442 : 0x7440)) - 8388608.0f;
        float high = __uint_as_float(__byte_perm(w, 0x4b000000, i ? 0x7443 : 0x7441)) - 8388608.0f;

        return mma_affine<T>(mma_pack<T>(low, high), scale, bias);
    }
}

static __device__ __forceinline__ float mma_warp_max(float x)
{
    for (int lane = 16; lane; lane /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, lane));
    return x;
}

/* e with |x| 2^-e in [1/2, 1); 0 of what has none. */
static __device__ __forceinline__ int mma_exponent(float x)
{
    int e = (__float_as_int(x) >> 23 & 255) - 126;

    return x > 0 && x < INFINITY ? e : 0;
}

/* 2^e for -126 <= e <= 127; what is beyond is taken as these. */
static __device__ __forceinline__ float mma_power(int e)
{
    return __int_as_float((min(max(e, -126), 127) + 127) << 23);
}

static __device__ __forceinline__ float mma_exp2(float x)
{
    float y;

    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Within some 1e-7. */
static __device__ __forceinline__ float mma_tanh(float x)
{
    return 1 - __fdividef(2, 1 + mma_exp2(x * 2.88539008177792681472f));
}

#endif
