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

    for (int i = 0; i < n; i++)
        sum += x[i] = expf(x[i] - most);
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
    for (int j = 0; j < p.n_experts_per_token; j++)
        sum += weights[j];
    sum = fmaxf(sum + p.normalize_eps, p.normalize_floor);
    for (int j = lane; j < p.n_experts_per_token; j += WARP)
        out[j] = p.normalize ? weights[j] / sum * p.scale : weights[j] * p.scale;
}

#endif
