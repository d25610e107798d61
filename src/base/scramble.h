/* base/scramble.h: a mixer of 64 bits, the same in C and on a GPU. */
#ifndef BASE_SCRAMBLE_H
#define BASE_SCRAMBLE_H

#include <stdint.h>

/* Of a function that CUDA kernels call too. */
#ifdef __CUDACC__
#define INLINE_EVERYWHERE static __host__ __device__ __forceinline__
#else
#define INLINE_EVERYWHERE static inline
#endif

/* That of splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014). */
INLINE_EVERYWHERE uint64_t scramble(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

#endif
