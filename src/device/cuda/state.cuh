/* device/cuda/state.cuh: the states of recurrent mixers as kernels take them. */
#ifndef DEVICE_CUDA_STATE_CUH
#define DEVICE_CUDA_STATE_CUH

#include "device/cuda/rows.cuh"

/* The sequences of a batch on the device, and for each row the number of its sequence; where a
 * mixer's part of a state lies. */
struct cuda_states {
    const struct state_sequence *sequences;
    const int32_t *of_row;
    size_t offset;
    int n;
};

/* NULL pointers after a failure. */
struct cuda_states cuda_states_of(struct cuda_device *c, const struct state_batch *batch,
                                  size_t offset);

static __device__ __forceinline__ const float *state_from(const struct state_sequence &s,
                                                          size_t offset)
{
    return s.from ? (const float *)((const char *)s.from + offset) : NULL;
}

static __device__ __forceinline__ float *state_to(const struct state_sequence &s, size_t offset)
{
    return (float *)((char *)s.to + offset);
}

#endif
