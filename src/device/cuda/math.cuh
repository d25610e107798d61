/* device/cuda/math.cuh: functions of single numbers, by the formulas of the scalar CPU. */
#ifndef DEVICE_CUDA_MATH_CUH
#define DEVICE_CUDA_MATH_CUH

#include <float.h>

#include "device/cuda/cuda.h"

static __device__ __forceinline__ float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

static __device__ __forceinline__ float silu(float x)
{
    return x / (1.0f + expf(-x));
}

static __device__ __forceinline__ float softplus(float x)
{
    return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x)));
}

/* x Phi(x), by erfc, which keeps its relative precision where 1 + erf cancels. */
static __device__ __forceinline__ float gelu(float x)
{
    return 0.5f * x * erfcf(-x * 0.707106781186547524f);
}

/* (1 + tanh(u)) / 2 = 1 / (1 + exp(-2u)), which does not cancel. */
static __device__ __forceinline__ float gelu_tanh(float x)
{
    const float root = 0.797884560802865355880f; /* sqrt(2 / pi) */

    return x / (1.0f + expf(-2.0f * root * (x + 0.044715f * x * x * x)));
}

static __device__ __forceinline__ float activation_of(float x, enum activation act)
{
    switch (act) {
    case ACT_SILU:
        return silu(x);
    case ACT_GELU:
        return gelu(x);
    case ACT_GELU_TANH:
        return gelu_tanh(x);
    case ACT_RELU:
        return x > 0 ? x : 0.0f;
    case ACT_RELU2:
        return x > 0 ? x * x : 0.0f;
    case ACT_SIGMOID:
        return sigmoid(x);
    case ACT_SOFTPLUS:
        return softplus(x);
    case ACT_EXP:
        return fmaxf(FLT_MIN, fminf(expf(x), FLT_MAX));
    case ACT_TANH:
        return tanhf(x);
    default: /* ACT_NONE; ACT_SWIGLU_CLAMPED takes two */
        return x;
    }
}

/* (u + 1) g sigmoid(alpha g), g = min(gate, limit), u = up held within [-limit, limit] */
static __device__ __forceinline__ float clamped_glu(float gate, float up, float alpha, float limit)
{
    float g = fminf(gate, limit), u = fminf(fmaxf(up, -limit), limit);

    return (u + 1.0f) * (g / (1.0f + expf(-alpha * g)));
}

static __device__ __forceinline__ float glu_of(float gate, float up, enum activation act)
{
    return act == ACT_SWIGLU_CLAMPED ? clamped_glu(gate, up, 1.702f, 7.0f)
                                     : activation_of(gate, act) * up;
}

#endif
