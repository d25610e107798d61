/* device/cpu/vector_simd.h: the row kernels on vectors, written once for all instruction sets.
 *
 * A file vector_<isa>.c includes its simd_<isa>.h and then this. What is left of a row after whole
 * vectors goes through the same operations in a vector of which only a part is stored.
 */
#ifndef DEVICE_CPU_VECTOR_SIMD_H
#define DEVICE_CPU_VECTOR_SIMD_H

#include <float.h>
#include <math.h>

#include "device/cpu/vector_kernels.h"
#include "device/cpu/vector_math.h"

#define F16_MAX 65504.0f

/* sum (x[i] - mean)^2, in four sums so that additions need not wait for one another. */
static float sum_of_squares(const float *x, int n, float mean)
{
    vf sums[4] = {vf_set(0), vf_set(0), vf_set(0), vf_set(0)}, m = vf_set(mean);
    int i = 0;

    for (; i + 4 * VF_LANES <= n; i += 4 * VF_LANES)
        for (int j = 0; j < 4; j++) {
            vf v = vf_sub(vf_load(x + i + j * VF_LANES), m);

            sums[j] = vf_fma(v, v, sums[j]);
        }
    for (; i + VF_LANES <= n; i += VF_LANES) {
        vf v = vf_sub(vf_load(x + i), m);

        sums[0] = vf_fma(v, v, sums[0]);
    }
    float sum = vf_sum(vf_add(vf_add(sums[0], sums[1]), vf_add(sums[2], sums[3])));
    for (; i < n; i++)
        sum += (x[i] - mean) * (x[i] - mean);
    return sum;
}

static float sum_of(const float *x, int n)
{
    vf sums[4] = {vf_set(0), vf_set(0), vf_set(0), vf_set(0)};
    int i = 0;

    for (; i + 4 * VF_LANES <= n; i += 4 * VF_LANES)
        for (int j = 0; j < 4; j++)
            sums[j] = vf_add(sums[j], vf_load(x + i + j * VF_LANES));
    for (; i < n; i += VF_LANES)
        sums[0] = vf_add(sums[0], part_load(x, i, n));
    return vf_sum(vf_add(vf_add(sums[0], sums[1]), vf_add(sums[2], sums[3])));
}

static void simd_rms_norm(float *y, const float *x, const float *w, int n, float eps)
{
    vf factor = vf_set(1.0f / sqrtf(sum_of_squares(x, n, 0) / (float)n + eps));

    for (int i = 0; i < n; i += VF_LANES) {
        vf v = vf_mul(part_load(x, i, n), factor);

        part_store(y, w ? vf_mul(v, part_load(w, i, n)) : v, i, n);
    }
}

static void simd_layer_norm(float *y, const float *x, const float *w, const float *b, int n,
                            float eps)
{
    float mean = sum_of(x, n) / (float)n;
    vf factor = vf_set(1.0f / sqrtf(sum_of_squares(x, n, mean) / (float)n + eps));
    vf m = vf_set(mean);

    for (int i = 0; i < n; i += VF_LANES) {
        vf v = vf_mul(vf_sub(part_load(x, i, n), m), factor);

        if (w)
            v = vf_mul(v, part_load(w, i, n));
        part_store(y, b ? vf_add(v, part_load(b, i, n)) : v, i, n);
    }
}

static void simd_add(float *y, const float *x, int n, float scale)
{
    vf s = vf_set(scale);

    for (int i = 0; i < n; i += VF_LANES)
        part_store(y, vf_fma(part_load(x, i, n), s, part_load(y, i, n)), i, n);
}

static void simd_scale(float *x, int n, float scale)
{
    vf s = vf_set(scale);

    for (int i = 0; i < n; i += VF_LANES)
        part_store(x, vf_mul(part_load(x, i, n), s), i, n);
}

static inline __attribute__((always_inline)) vf vf_activation(vf x, enum activation act)
{
    vf positive;

    switch (act) {
    case ACT_SILU:
        return vf_silu(x);
    case ACT_GELU:
        return vf_gelu(x);
    case ACT_GELU_TANH:
        return vf_gelu_tanh(x);
    case ACT_RELU:
        return vf_max(x, vf_set(0.0f));
    case ACT_RELU2:
        positive = vf_max(x, vf_set(0.0f));
        return vf_mul(positive, positive);
    case ACT_SIGMOID:
        return vf_sigmoid(x);
    case ACT_NONE:
        return x;
    case ACT_EXP:
        return vf_exp(x);
    case ACT_TANH:
        return vf_tanh(x);
    case ACT_SOFTPLUS:
        return vf_softplus(x);
    case ACT_SWIGLU_CLAMPED: /* takes two */
    case ACT_COUNT:
        break;
    }
    return x;
}

static void swiglu_clamped_row(float *y, const float *gate, const float *up, int n)
{
    vf bound = vf_set(7.0f), low = vf_set(-7.0f), one = vf_set(1.0f);

    for (int i = 0; i < n; i += VF_LANES) {
        vf g = vf_min(bound, part_load(gate, i, n));
        vf u = vf_max(low, vf_min(bound, part_load(up, i, n)));

        g = vf_mul(g, vf_sigmoid(vf_mul(vf_set(1.702f), g)));
        part_store(y, vf_mul(vf_add(u, one), g), i, n);
    }
}

/* y = act(x) up, or act(x) where up is NULL; act is a constant here. */
static inline __attribute__((always_inline)) void
activate_row(float *y, const float *x, const float *up, int n, enum activation act)
{
    for (int i = 0; i < n; i += VF_LANES) {
        vf v = vf_activation(part_load(x, i, n), act);

        part_store(y, up ? vf_mul(v, part_load(up, i, n)) : v, i, n);
    }
}

static void simd_glu(float *y, const float *gate, const float *up, int n, enum activation act)
{
    switch (act) {
    case ACT_SILU:
        activate_row(y, gate, up, n, ACT_SILU);
        break;
    case ACT_GELU:
        activate_row(y, gate, up, n, ACT_GELU);
        break;
    case ACT_GELU_TANH:
        activate_row(y, gate, up, n, ACT_GELU_TANH);
        break;
    case ACT_RELU:
        activate_row(y, gate, up, n, ACT_RELU);
        break;
    case ACT_RELU2:
        activate_row(y, gate, up, n, ACT_RELU2);
        break;
    case ACT_SIGMOID:
        activate_row(y, gate, up, n, ACT_SIGMOID);
        break;
    case ACT_NONE:
        activate_row(y, gate, up, n, ACT_NONE);
        break;
    case ACT_SOFTPLUS:
        activate_row(y, gate, up, n, ACT_SOFTPLUS);
        break;
    case ACT_EXP:
        activate_row(y, gate, up, n, ACT_EXP);
        break;
    case ACT_TANH:
        activate_row(y, gate, up, n, ACT_TANH);
        break;
    case ACT_SWIGLU_CLAMPED:
        swiglu_clamped_row(y, gate, up, n);
        break;
    case ACT_COUNT:
        break;
    }
}

static void simd_activate(float *y, const float *x, int n, enum activation act)
{
    simd_glu(y, x, NULL, n, act);
}

static void simd_softcap(float *x, int n, float cap)
{
    vf c = vf_set(cap);

    for (int i = 0; i < n; i += VF_LANES)
        part_store(x, vf_mul(c, vf_tanh(vf_div(part_load(x, i, n), c))), i, n);
}

static void simd_rope_halves(float *x, const float *cos, const float *sin, int n)
{
    for (int i = 0; i < n; i += VF_LANES) {
        vf a = part_load(x, i, n), b = part_load(x + n, i, n);
        vf c = part_load(cos, i, n), s = part_load(sin, i, n);

        part_store(x, vf_fnma(b, s, vf_mul(a, c)), i, n);
        part_store(x + n, vf_fma(a, s, vf_mul(b, c)), i, n);
    }
}

static void simd_rope_pairs(float *x, const float *cos, const float *sin, int n)
{
    float signs[VF_LANES];
    int i = 0;

    for (int j = 0; j < VF_LANES; j++)
        signs[j] = j % 2 ? 1.0f : -1.0f;
    vf sign = vf_load(signs);
    for (; i + VF_LANES / 2 <= n; i += VF_LANES / 2) {
        vf v = vf_load(x + 2 * i), s = vf_mul(vf_load_twice(sin + i), sign);

        vf_store(x + 2 * i, vf_fma(vf_swap_neighbours(v), s, vf_mul(v, vf_load_twice(cos + i))));
    }
    for (; i < n; i++) {
        float a = x[2 * i], b = x[2 * i + 1];

        x[2 * i] = fmaf(-b, sin[i], a * cos[i]);
        x[2 * i + 1] = fmaf(a, sin[i], b * cos[i]);
    }
}

static void simd_load_f16(float *to, const void *from, int n)
{
    const uint16_t *p = from;
    int i = 0;

    for (; i + VF_LANES <= n; i += VF_LANES)
        vf_store(to + i, vf_load_f16(p + i));
    if (i < n)
        vf_store_n(to + i, vf_load_f16_n(p + i, n - i), n - i);
}

static void simd_load_bf16(float *to, const void *from, int n)
{
    const uint16_t *p = from;
    int i = 0;

    for (; i + VF_LANES <= n; i += VF_LANES)
        vf_store(to + i, vf_load_bf16(p + i));
    if (i < n)
        vf_store_n(to + i, vf_load_bf16_n(p + i, n - i), n - i);
}

static void simd_store_f16(void *to, const float *from, int n)
{
    uint16_t *p = to;
    vf low = vf_set(-F16_MAX), high = vf_set(F16_MAX);

    for (int i = 0; i < n; i += VF_LANES) {
        vf v = vf_max(low, vf_min(high, part_load(from, i, n)));

        if (n - i >= VF_LANES)
            vf_store_f16(p + i, v);
        else
            vf_store_f16_n(p + i, v, n - i);
    }
}

static void simd_store_bf16(void *to, const float *from, int n)
{
    uint16_t *p = to;

    for (int i = 0; i < n; i += VF_LANES) {
        vf v = part_load(from, i, n);

        if (n - i >= VF_LANES)
            vf_store_bf16(p + i, v);
        else
            vf_store_bf16_n(p + i, v, n - i);
    }
}

/* The largest number, then the first that equals it. A NaN or +inf, times 0, makes sum NaN. */
static int simd_argmax(const float *x, int n)
{
    const vf least = vf_set(-FLT_MAX), zero = vf_set(0);
    vf largest[2] = {least, least}, sum[2] = {zero, zero};
    float max, bad;
    int i = 0;

    for (; i + 2 * VF_LANES <= n; i += 2 * VF_LANES)
        for (int j = 0; j < 2; j++) {
            vf v = vf_max(least, vf_load(x + i + j * VF_LANES)); /* the latter if it is a NaN */

            largest[j] = vf_max(v, largest[j]);
            sum[j] = vf_fma(v, zero, sum[j]);
        }
    max = vf_largest(vf_max(largest[0], largest[1]));
    bad = vf_sum(vf_add(sum[0], sum[1]));
    for (; i < n; i++) {
        max = x[i] > max ? x[i] : max;
        bad += x[i] <= FLT_MAX ? 0 : NAN;
    }
    if (isnan(bad))
        return -1;

    vf wanted = vf_set(max);
    for (i = 0; i + VF_LANES <= n && !vf_any_equal(vf_load(x + i), wanted);)
        i += VF_LANES;
    for (; i < n; i++)
        if (x[i] == max)
            return i;
    return -1; /* all are -inf */
}

static void simd_vector_kernels(struct cpu_vector_kernels *k)
{
    k->rms_norm = simd_rms_norm;
    k->layer_norm = simd_layer_norm;
    k->add = simd_add;
    k->scale = simd_scale;
    k->activate = simd_activate;
    k->glu = simd_glu;
    k->softcap = simd_softcap;
    k->rope_halves = simd_rope_halves;
    k->rope_pairs = simd_rope_pairs;
    k->load[DTYPE_F16] = simd_load_f16;
    k->load[DTYPE_BF16] = simd_load_bf16;
    k->store[DTYPE_F16] = simd_store_f16;
    k->store[DTYPE_BF16] = simd_store_bf16;
    k->argmax = simd_argmax;
}

#endif
