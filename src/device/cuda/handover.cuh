/* device/cuda/handover.cuh: numbers that blocks of one launch hand to each other through memory,
 * each by itself: what is not there yet is EMPTY, so that neither fences nor counters are needed.
 *
 * No block ends before it has what it waits for: all blocks of such a launch must be on the GPU at
 * a time, and no other launch of that kind may hold processors meanwhile.
 */
#ifndef DEVICE_CUDA_HANDOVER_CUH
#define DEVICE_CUDA_HANDOVER_CUH

#include <stdint.h>

/* A NaN that no number handed over is; and how often a warp looks, which takes seconds, before it
 * gives up: an error is better than a GPU that hangs. */
enum { HANDOVER_TURNS = 1 << 22 };

/* Nanoseconds before a warp looks for many numbers, and until it looks again: what all processors
 * ask for in vain is in the way of what they wait for. */
enum { HANDOVER_FIRST = 500, HANDOVER_AGAIN = 40 };
static constexpr uint32_t EMPTY = 0xFFFFFFFF;

static __device__ __forceinline__ uint32_t hand_over_bits(float x)
{
    uint32_t bits = __float_as_uint(x);

    return bits == EMPTY ? EMPTY >> 1 : bits;
}

static __device__ __forceinline__ void hand_over(float *to, float x)
{
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(to), "r"(hand_over_bits(x))
                 : "memory");
}

/* Eight numbers of a lane, as they are now. */
static __device__ __forceinline__ void look_at8(uint32_t bits[8], const float *from)
{
#pragma unroll
    for (int j = 0; j < 8; j += 4)
        asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(bits[j]), "=r"(bits[j + 1]), "=r"(bits[j + 2]), "=r"(bits[j + 3])
                     : "l"(from + j)
                     : "memory");
}

/* Are they not all there, for all of the warp? */
template <int N> static __device__ __forceinline__ bool are_missing(const uint32_t (*bits)[8])
{
    bool missing = false;

#pragma unroll
    for (int i = 0; i < 8 * N; i++)
        missing |= bits[i / 8][i % 8] == EMPTY;
    return __any_sync(~0u, missing);
}

template <int N>
static __device__ __forceinline__ void as_numbers(float (*v)[8], const uint32_t (*bits)[8])
{
#pragma unroll
    for (int i = 0; i < 8 * N; i++)
        v[i / 8][i % 8] = __uint_as_float(bits[i / 8][i % 8]);
}

/* Eight numbers of each lane, when all of the warp's are there; N times, some numbers apart, of
 * which the first n are there to be waited for. */
template <int N, int FIRST = HANDOVER_FIRST, int AGAIN = HANDOVER_AGAIN>
static __device__ __forceinline__ void take_over8(float (*v)[8], const float *from, int apart = 0,
                                                  int n = N)
{
    uint32_t bits[N][8] = {};

    __nanosleep(FIRST);

#pragma unroll 1
    for (int turn = 0;; turn++) {
#pragma unroll
        for (int i = 0; i < N; i++)
            if (i < n)
                look_at8(bits[i], from + i * apart);
        if (!are_missing<N>(bits))
            break;
        __nanosleep(AGAIN);
        if (turn == HANDOVER_TURNS)
            __trap();
    }
    as_numbers<N>(v, bits);
}

/* Those of one lane that has looked already. */
static __device__ __forceinline__ void take_seen8(float v[8], uint32_t bits[1][8],
                                                  const float *from)
{
#pragma unroll 1
    for (int turn = 0; are_missing<1>(bits); turn++) {
        look_at8(bits[0], from);
        if (turn == HANDOVER_TURNS)
            __trap();
    }
    as_numbers<1>((float(*)[8])v, bits);
}

/* One of each lane; there: whether the lane waits for any. */
static __device__ __forceinline__ float take_over(const float *from, bool there)
{
    uint32_t n = 0;

#pragma unroll 1
    for (int turn = 0;; turn++) {
        if (there)
            asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(n) : "l"(from) : "memory");
        if (!__any_sync(~0u, n == EMPTY))
            break;
        if (turn == HANDOVER_TURNS)
            __trap();
    }
    return __uint_as_float(n);
}

#endif
