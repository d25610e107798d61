/* device/cuda/attend_ring.cuh: tiles of decode's keys and values that bulk copies bring to shared
 * memory, where each warp has room for two of keys and one of values, and asks for the next as soon
 * as it has read one. What a warp waits for then costs it no registers, and a processor has room
 * for four blocks. From sm_90 on. */
#ifndef DEVICE_CUDA_ATTEND_RING_CUH
#define DEVICE_CUDA_ATTEND_RING_CUH

#include "device/cuda/attend_tile.cuh"
#include "device/cuda/wgmma.cuh"

enum {
    RING_KEYS = 2,   /* tiles of keys that a warp has room for */
    RING_BLOCKS = 4, /* of a processor */
    RING_ITEMS = 128 /* of fewer sequences and heads the loop in registers is faster */
};

template <int DIM> struct ring {
    static const int tiles = RING_KEYS + 1, tile_bytes = TILE * DIM * 2;
    static const int warp_bytes = tiles * tile_bytes;
    static const int shared = THREADS / 32 * tiles * (tile_bytes + 8); /* barriers behind */
    char *memory;
    uint32_t at, barriers;

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    __device__ __forceinline__ ring(int warp)
    {
        extern __shared__ __align__(128) char ring_memory[];

        memory = ring_memory + warp * warp_bytes;
        at = (uint32_t)__cvta_generic_to_shared(memory);
        barriers =
            (uint32_t)__cvta_generic_to_shared(ring_memory) + WARPS * warp_bytes + warp * tiles * 8;
    }

    __device__ __forceinline__ void open(void) const
    {
        if (threadIdx.x % 32 == 0) {
            for (int i = 0; i < tiles; i++)
                barrier_open(barriers + 8 * i, 1);
            barrier_show();
        }
        __syncwarp();
    }

    __device__ __forceinline__ void ask(int place, const kv_part &part, const char *block,
                                        int row) const
    {
        uint32_t barrier = barriers + 8 * place;
        int size = TILE * (int)part.row_bytes;

        if (threadIdx.x % 32)
            return;
        barrier_expect(barrier, size);
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], "
                     "[%1], %2, [%3];" ::"r"(at + place * tile_bytes),
                     "l"(codes_at(block, part, row)), "r"(size), "r"(barrier)
                     : "memory");
    }

    /* Keys of tile number n of the warp's, and values of the next that there is no room for yet. */
    __device__ __forceinline__ void ask_keys(const kv_part &part, const char *block, int row,
                                             int n) const
    {
        ask(n % RING_KEYS, part, block, row);
    }

    __device__ __forceinline__ void ask_values(const kv_part &part, const char *block,
                                               int row) const
    {
        ask(RING_KEYS, part, block, row);
    }

    /* Waits for them; of values those of a key that some query sees in place of others. */
    __device__ __forceinline__ void keys(raw_keys<0, DIM> &k, const kv_part &part, int n) const
    {
        int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, place = n % RING_KEYS;
        const char *from = memory + place * tile_bytes + g * (int)part.row_bytes + 16 * t;

        barrier_wait(barriers + 8 * place, n / RING_KEYS);
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int s = 0; s < DIM / 32; s++)
                if (32 * s + 8 * t < part.dim)
                    k.numbers[s][half] =
                        *(const uint4 *)(from + 8 * half * (int)part.row_bytes + 64 * s);
    }

    __device__ __forceinline__ void values(raw_values<0, DIM> &v, const kv_part &part,
                                           const struct work &w, int key, int n) const
    {
        int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, place = RING_KEYS;
        const char *from = memory + place * tile_bytes + 16 * g;

        barrier_wait(barriers + 8 * place, n);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int row = some_key(w, key, key + 2 * t + j % 2 + j / 2 * 8) - key;

#pragma unroll
            for (int c = 0; c < DIM / 64; c++)
                if (64 * c + 8 * g < part.dim)
                    v.numbers[c][j] = *(const uint4 *)(from + row * (int)part.row_bytes + 128 * c);
        }
    }
#endif
};

#endif
