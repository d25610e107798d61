/* device/cpu/vector_scalar.c: the inner loops in plain C: what every other kernel is held against.
 */
#include "device/cpu/vector_kernels.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/number.h"

#define F16_MAX 65504.0f

static void rms_norm(float *y, const float *x, const float *w, int n, float eps)
{
    double sum = 0;

    for (int i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    float factor = 1.0f / sqrtf((float)(sum / n) + eps);
    for (int i = 0; i < n; i++)
        y[i] = x[i] * factor * (w ? w[i] : 1.0f);
}

static void layer_norm(float *y, const float *x, const float *w, const float *b, int n, float eps)
{
    double sum = 0, squares = 0;

    for (int i = 0; i < n; i++)
        sum += (double)x[i];
    float mean = (float)(sum / n);
    for (int i = 0; i < n; i++)
        squares += (double)(x[i] - mean) * (double)(x[i] - mean);
    float factor = 1.0f / sqrtf((float)(squares / n) + eps);
    for (int i = 0; i < n; i++)
        y[i] = (x[i] - mean) * factor * (w ? w[i] : 1.0f) + (b ? b[i] : 0.0f);
}

static void add(float *y, const float *x, int n, float scale)
{
    for (int i = 0; i < n; i++)
        y[i] += scale * x[i];
}

static void scale_by(float *x, int n, float scale)
{
    for (int i = 0; i < n; i++)
        x[i] *= scale;
}

static float silu(float x)
{
    return x / (1.0f + expf(-x));
}

/* x Phi(x), and Phi(x) = erfc(-x / sqrt(2)) / 2 keeps its relative precision where 1 + erf cancels.
 */
static float gelu(float x)
{
    return (float)(0.5 * (double)x * erfc(-(double)x * M_SQRT1_2));
}

/* (1 + tanh(u)) / 2 = 1 / (1 + exp(-2u)), which does not cancel. */
static float gelu_tanh(float x)
{
    const float root = 0.797884560802865355880f; /* sqrt(2 / pi) */

    return x / (1.0f + expf(-2.0f * root * (x + 0.044715f * x * x * x)));
}

static float relu(float x)
{
    return x > 0 ? x : 0.0f;
}

static float apply(float x, enum activation act)
{
    switch (act) {
    case ACT_SILU:
        return silu(x);
    case ACT_GELU:
        return gelu(x);
    case ACT_GELU_TANH:
        return gelu_tanh(x);
    case ACT_RELU:
        return relu(x);
    case ACT_RELU2:
        return relu(x) * relu(x);
    case ACT_SIGMOID:
        return 1.0f / (1.0f + expf(-x));
    case ACT_NONE:
        return x;
    case ACT_SOFTPLUS:
        return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x)));
    case ACT_EXP:
        return fmaxf(FLT_MIN, fminf(expf(x), FLT_MAX));
    case ACT_TANH:
        return tanhf(x);
    case ACT_SWIGLU_CLAMPED: /* takes two */
    case ACT_COUNT:
        break;
    }
    return x;
}

/* gpt-oss: both factors are bounded, and up is shifted. */
static float swiglu_clamped(float gate, float up)
{
    gate = fminf(gate, 7.0f);
    up = fmaxf(-7.0f, fminf(up, 7.0f));
    return (up + 1.0f) * gate / (1.0f + expf(-1.702f * gate));
}

static void activate(float *y, const float *x, int n, enum activation act)
{
    for (int i = 0; i < n; i++)
        y[i] = apply(x[i], act);
}

static void glu(float *y, const float *gate, const float *up, int n, enum activation act)
{
    for (int i = 0; i < n; i++)
        y[i] = act == ACT_SWIGLU_CLAMPED ? swiglu_clamped(gate[i], up[i])
                                         : apply(gate[i], act) * up[i];
}

static void softcap(float *x, int n, float cap)
{
    for (int i = 0; i < n; i++)
        x[i] = cap * tanhf(x[i] / cap);
}

static void rope_halves(float *x, const float *cos, const float *sin, int n)
{
    for (int i = 0; i < n; i++) {
        float a = x[i], b = x[i + n];

        x[i] = a * cos[i] - b * sin[i];
        x[i + n] = a * sin[i] + b * cos[i];
    }
}

static void rope_pairs(float *x, const float *cos, const float *sin, int n)
{
    for (int i = 0; i < n; i++) {
        float a = x[2 * i], b = x[2 * i + 1];

        x[2 * i] = a * cos[i] - b * sin[i];
        x[2 * i + 1] = a * sin[i] + b * cos[i];
    }
}

static void load_f32(float *to, const void *from, int n)
{
    if (n > 0)
        memcpy(to, from, (size_t)n * sizeof *to);
}

static void load_f16(float *to, const void *from, int n)
{
    for (int i = 0; i < n; i++)
        to[i] = f16_to_f32(((const uint16_t *)from)[i]);
}

static void load_bf16(float *to, const void *from, int n)
{
    for (int i = 0; i < n; i++)
        to[i] = bf16_to_f32(((const uint16_t *)from)[i]);
}

static void store_f32(void *to, const float *from, int n)
{
    if (n > 0)
        memcpy(to, from, (size_t)n * sizeof *from);
}

static void store_f16(void *to, const float *from, int n)
{
    for (int i = 0; i < n; i++) {
        float x = from[i] > F16_MAX ? F16_MAX : from[i] < -F16_MAX ? -F16_MAX : from[i];

        ((uint16_t *)to)[i] = f32_to_f16(x);
    }
}

static void store_bf16(void *to, const float *from, int n)
{
    for (int i = 0; i < n; i++)
        ((uint16_t *)to)[i] = f32_to_bf16(from[i]);
}

static int argmax(const float *x, int n)
{
    int best = -1;

    for (int i = 0; i < n; i++) {
        if (!(x[i] <= FLT_MAX))
            return -1;
        if (x[i] >= -FLT_MAX && (best < 0 || x[i] > x[best]))
            best = i;
    }
    return best;
}

void cpu_vector_kernels_scalar(struct cpu_vector_kernels *k)
{
    *k = (struct cpu_vector_kernels){
        .rms_norm = rms_norm,
        .layer_norm = layer_norm,
        .add = add,
        .scale = scale_by,
        .activate = activate,
        .glu = glu,
        .softcap = softcap,
        .rope_halves = rope_halves,
        .rope_pairs = rope_pairs,
        .load = {load_f32, load_f16, load_bf16},
        .store = {store_f32, store_f16, store_bf16},
        .argmax = argmax,
    };
    cpu_recurrent_kernels_scalar(k);
    cpu_attention_kernels_scalar(k);
    cpu_kv_codes_kernels_scalar(k);
}
