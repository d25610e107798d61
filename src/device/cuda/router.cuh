/* device/cuda/router.cuh: what choosing experts is made of: a score of one number, and the weights
 * of those that were chosen, by a warp. By the rules of device/cpu/router.c, which says why. */
#ifndef DEVICE_CUDA_ROUTER_CUH
#define DEVICE_CUDA_ROUTER_CUH

#include "device/cuda/math.cuh"
#include "device/cuda/rows.cuh"

static __device__ __forceinline__ float or_least(float x)
{
    return isnan(x) ? -INFINITY : x;
}

/* A number that is the greater the greater x is, never 0; NaN is none. */
static __device__ __forceinline__ unsigned key_of(float x)
{
    unsigned bits = __float_as_uint(x + 0.0f); /* -0 is 0 */

    return bits ^ (bits >> 31 ? ~0u : 1u << 31);
}

static __device__ __forceinline__ float number_of_key(unsigned key)
{
    return __uint_as_float(key ^ (key >> 31 ? 1u << 31 : ~0u));
}

/* The greatest of the logits, and for a softmax of all the sum of their powers; to all lanes of the
 * warp. */
static __device__ __forceinline__ float2 look_at_logits(const float *logits,
                                                        const struct router_params &p)
{
    int lane = threadIdx.x % WARP;
    float most = -INFINITY, sum = 0;

    for (int i = lane; i < p.n_experts; i += WARP)
        most = fmaxf(most, logits[i]);
    most = over_warp(most, most_of());
    for (int i = lane; i < p.n_experts && p.score == ROUTER_SOFTMAX_ALL; i += WARP)
        sum += expf(logits[i] - most);
    return make_float2(most, over_warp(sum, sum_of()));
}

/* A logit to its score, by what was seen of all. */
static __device__ __forceinline__ float score_of(float x, float2 seen,
                                                 const struct router_params &p)
{
    if (p.score == ROUTER_SOFTMAX_ALL)
        x = expf(x - seen.x) / seen.y;
    else if (p.score == ROUTER_SIGMOID)
        x = sigmoid(x);
    else if (p.score == ROUTER_SQRT_SOFTPLUS)
        x = sqrtf(softplus(x));
    return or_least(x);
}

/* Logits in descending order to their softmax, by one lane. */
static __device__ __forceinline__ void softmax_descending(float *x, int n)
{
    float most = x[0], sum = 0;

#pragma unroll 1
    for (int i = 0; i < n; i++)
        sum += x[i] = expf(x[i] - most);
#pragma unroll 1
    for (int i = 0; i < n; i++)
        x[i] /= sum;
}

/* The scores of k experts, in shared memory, to what their answers are multiplied by. */
static __device__ __forceinline__ void finish_weights(float *out, float *weights,
                                                      const struct router_params &p)
{
    int lane = threadIdx.x % WARP;
    float sum = 0;

    if (lane == 0 && p.score == ROUTER_SOFTMAX_SELECTED)
        softmax_descending(weights, p.n_experts_per_token);
    __syncwarp();
#pragma unroll 1
    for (int j = 0; j < p.n_experts_per_token; j++)
        sum += weights[j];
    sum = fmaxf(sum + p.normalize_eps, p.normalize_floor);
#pragma unroll 1
    for (int j = lane; j < p.n_experts_per_token; j += WARP)
        out[j] = p.normalize ? weights[j] / sum * p.scale : weights[j] * p.scale;
}

#endif
