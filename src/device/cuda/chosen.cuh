/* device/cuda/chosen.cuh: which experts a row has, by all threads of a block: each counts how many
 * come before one of them. */
#ifndef DEVICE_CUDA_CHOSEN_CUH
#define DEVICE_CUDA_CHOSEN_CUH

#include "device/cuda/product_args.cuh"
#include "device/cuda/router.cuh"

/* n / d, n d < 2^31: the instructions of a division are many where they are all that there is to
 * do. */
static inline uint32_t inverse_of(int d)
{
    return 0x80000000u / (uint32_t)d + 1;
}

static __device__ __forceinline__ int quotient_of(int n, uint32_t inverse)
{
    return (int)__umulhi(2 * (uint32_t)n, inverse);
}

/* Where the key of expert e lies: a quarter of them in a row, each in banks of its own. */
static __device__ __forceinline__ unsigned place_of(unsigned e)
{
    return e + e / (ROUTED_EXPERTS / 4) * 4;
}

/* n += a > b, in two instructions. */
static __device__ __forceinline__ void count_greater(int *n, unsigned a, unsigned b)
{
    asm("{.reg .pred p; setp.gt.u32 p, %1, %2; @p add.s32 %0, %0, 1;}" : "+r"(*n) : "r"(a), "r"(b));
}

/* The experts to their places, by how many come before them: the greater ones, and TIES: of equal
 * ones the first; without it these share a place, which the first of them has. Four lanes for each,
 * a quarter of the keys for a lane. */
template <bool TIES>
static __device__ __forceinline__ void rank_experts(int *ids, const unsigned *keys,
                                                    unsigned n_experts, int n_chosen)
{
    unsigned quarter = threadIdx.x % 4, first = quarter * (ROUTED_EXPERTS / 4);
    unsigned in_warp = threadIdx.x % WARP / 4;
    const unsigned *its = keys + place_of(first);

#pragma unroll 1
    for (unsigned e = threadIdx.x / 4; e - in_warp < n_experts; e += blockDim.x / 4) {
        unsigned own = keys[place_of(e)];
        int n = 0, others[3] = {};

        if (TIES) {
#pragma unroll 1
            for (unsigned j = 0; j < ROUTED_EXPERTS / 4; j++)
                n += its[j] > own || (its[j] == own && first + j < e);
        } else {
#pragma unroll
            for (int j = 0; j < ROUTED_EXPERTS / 4; j += 4) {
                const uint4 k = *(const uint4 *)(its + j);

                count_greater(&n, k.x, own);
                count_greater(&others[0], k.y, own);
                count_greater(&others[1], k.z, own);
                count_greater(&others[2], k.w, own);
            }
        }
        n += others[0] + (others[1] + others[2]);
        n += __shfl_xor_sync(~0u, n, 1);
        n += __shfl_xor_sync(~0u, n, 2);
        if (quarter == 0 && own && n < n_chosen)
            atomicMin(ids + n, (int)e);
    }
}

/* The experts in order, by all threads, of which there are more than experts and choices; logit: of
 * the expert that has the thread's number; keys: room for ROUTED_EXPERTS and twelve. meanwhile:
 * what is to be asked for when all have their logits. */
template <typename F>
static __device__ __forceinline__ void choose_experts(int *ids, unsigned *keys, float logit,
                                                      unsigned n_experts, int n_chosen, F meanwhile)
{
    unsigned e = threadIdx.x, lane = e % WARP;

    if (e < ROUTED_EXPERTS)
        keys[place_of(e)] = e < n_experts ? key_of(or_least(logit)) : 0;
    else if (e - ROUTED_EXPERTS < (unsigned)n_chosen)
        ids[e - ROUTED_EXPERTS] = ROUTED_EXPERTS;
    __syncthreads();
    meanwhile();
    rank_experts<false>(ids, keys, n_experts, n_chosen);
    __syncthreads();
    if (__any_sync(~0u, lane < (unsigned)n_chosen && ids[lane] == ROUTED_EXPERTS)) {
        __syncthreads();
        rank_experts<true>(ids, keys, n_experts, n_chosen);
        __syncthreads();
    }
}

#endif
