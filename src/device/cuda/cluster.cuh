/* device/cuda/cluster.cuh: blocks of a cluster, which read one another's shared memory. Nothing of
 * it before sm_90, where no launch has clusters. */
#ifndef DEVICE_CUDA_CLUSTER_CUH
#define DEVICE_CUDA_CLUSTER_CUH

#include <stdint.h>

enum { MAX_CLUSTER = 8 /* blocks, on any GPU that has clusters */ };

/* All threads of the cluster wait for each other; what they wrote is there. */
static __device__ __forceinline__ void meet_cluster(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.release.aligned;\n"
                 "barrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
#endif
}

/* The same place in the shared memory of block number rank of the cluster. */
static __device__ __forceinline__ uint32_t other_address(const void *own, int rank)
{
    uint32_t at = 0;

#if __CUDA_ARCH__ >= 900
    asm("mapa.shared::cluster.u32 %0, %1, %2;"
        : "=r"(at)
        : "r"((uint32_t)__cvta_generic_to_shared(own)), "r"(rank));
#endif
    return at;
}

/* N floats at the same place in the shared memory of block number rank of the cluster. */
template <int N>
static __device__ __forceinline__ void read_other(float (&v)[N], const void *own, int rank)
{
#if __CUDA_ARCH__ >= 900
    uint32_t at = other_address(own, rank);

    if constexpr (N == 4)
        asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
                     : "=f"(v[0]), "=f"(v[1]), "=f"(v[2]), "=f"(v[3])
                     : "r"(at)
                     : "memory");
    else
        asm volatile("ld.shared::cluster.v2.f32 {%0, %1}, [%2];"
                     : "=f"(v[0]), "=f"(v[1])
                     : "r"(at)
                     : "memory");
#endif
}

/* The same written, at a multiple of as many. */
template <int N>
static __device__ __forceinline__ void write_other(void *own, const float (&v)[N], int rank)
{
#if __CUDA_ARCH__ >= 900
    uint32_t at = other_address(own, rank);

    if constexpr (N == 4)
        asm volatile("st.shared::cluster.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(at), "f"(v[0]),
                     "f"(v[1]), "f"(v[2]), "f"(v[3])
                     : "memory");
    else
        asm volatile("st.shared::cluster.v2.f32 [%0], {%1, %2};" ::"r"(at), "f"(v[0]), "f"(v[1])
                     : "memory");
#endif
}

#endif
