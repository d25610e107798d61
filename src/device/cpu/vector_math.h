/* device/cpu/vector_math.h: exponentials and what is made of them, on vectors of a simd_*.h; and
 * the parts of vectors that rows end in.
 *
 * Polynomials are minimax fits (Lawson's iteration on a fine grid) of
 *   (2^f - 1) / f              |f| <= 1/2       relative error of 2^f       9.2e-8
 *   (tanh(x) - x) / x^3        |x| <= 5/8       relative error of tanh      4.4e-9
 *   (atanh(s) - s) / s^3       0 <= s <= 1/3   relative error of atanh     5.4e-9
 *   0.5 exp(a^2/2) erfc(a/sqrt2) / t in t = 1 / (1 + a/4), 0 <= a <= 13.3   5.0e-8
 * and are evaluated by Horner's rule with fused multiply-adds.
 */
#ifndef DEVICE_CPU_VECTOR_MATH_H
#define DEVICE_CPU_VECTOR_MATH_H

#define LOG2_E_HIGH 0x1.715476p+0f /* log2(e) to 24 bits, and what is missing */
#define LOG2_E_LOW 0x1.4ae0cp-26f
#define ROUNDER 0x1.8p+23f /* x + ROUNDER rounds x to an integer, which its low bits then hold */
#define POWER_MIN -125.0f  /* of exponents: results stay normal */
#define POWER_MAX 127.99999f

/* The vector at i of n numbers, zeros past the end; and the same for storing. */
static inline vf part_load(const float *x, int i, int n)
{
    return n - i >= VF_LANES ? vf_load(x + i) : vf_load_n(x + i, n - i);
}

static inline void part_store(float *x, vf v, int i, int n)
{
    if (n - i >= VF_LANES)
        vf_store(x + i, v);
    else
        vf_store_n(x + i, v, n - i);
}

/* (2^f - 1) / f for |f| <= 1/2 */
static inline vf vf_power_slope(vf f)
{
    vf p = vf_set(0x1.5bba14p-10f);

    p = vf_fma(p, f, vf_set(0x1.3cea88p-7f));
    p = vf_fma(p, f, vf_set(0x1.c6b752p-5f));
    p = vf_fma(p, f, vf_set(0x1.ebf9bcp-3f));
    return vf_fma(p, f, vf_set(0x1.62e42ap-1f));
}

/* 2^f for |f| <= 1/2 */
static inline vf vf_power_fraction(vf f)
{
    return vf_fma(vf_power_slope(f), f, vf_set(1.0f));
}

/* 2^x for x <= 0, to 2 epsilons; 0 below -125. */
static inline vf vf_exp2_negative(vf x)
{
    vf bounded = vf_max(vf_set(POWER_MIN), x);
    vf t = vf_add(bounded, vf_set(ROUNDER));
    vf f = vf_sub(bounded, vf_sub(t, vf_set(ROUNDER)));
    vf power = vf_times_power(vf_power_fraction(f), t);

    return vf_select(vf_less(x, vf_set(POWER_MIN)), vf_set(0.0f), power);
}

/* e^x = 2^(f + n), |f| <= 1/2, for x held to where that lies within [2^-125, 2^128); the low bits
 * of t are those of n. */
static inline vf vf_split_power(vf x, vf *t)
{
    vf bounded =
        vf_max(vf_set(POWER_MIN / LOG2_E_HIGH), vf_min(vf_set(POWER_MAX / LOG2_E_HIGH), x));

    *t = vf_fma(bounded, vf_set(LOG2_E_HIGH), vf_set(ROUNDER));
    vf f = vf_fma(bounded, vf_set(LOG2_E_HIGH), vf_sub(vf_set(ROUNDER), *t));

    return vf_fma(bounded, vf_set(LOG2_E_LOW), f);
}

/* e^x to 2 epsilons, x held as above. */
static inline vf vf_exp(vf x)
{
    vf t, f = vf_split_power(x, &t);

    return vf_times_power(vf_power_fraction(f), t);
}

/* e^x - 1 for x <= 0, to 4 epsilons: 2^n (2^f - 1) + 2^n - 1, of which nothing cancels. */
static inline vf vf_expm1_negative(vf x)
{
    vf t, f = vf_split_power(x, &t), power = vf_times_power(vf_set(1.0f), t);

    return vf_fma(power, vf_mul(f, vf_power_slope(f)), vf_sub(power, vf_set(1.0f)));
}

/* max(x, 0) + log(1 + e), e = exp(-|x|), and log(1 + e) = 2 atanh(s), s = e / (2 + e). */
static inline vf vf_softplus(vf x)
{
    vf e = vf_exp(vf_sub(vf_set(0.0f), vf_abs(x)));
    vf s = vf_div(e, vf_add(e, vf_set(2.0f))), z = vf_mul(s, s), twice = vf_add(s, s);
    vf r = vf_set(0x1.1ed7a6p-3f);

    r = vf_fma(r, z, vf_set(0x1.1ebd12p-3f));
    r = vf_fma(r, z, vf_set(0x1.99d208p-3f));
    r = vf_fma(r, z, vf_set(0x1.555502p-2f));
    return vf_add(vf_max(vf_set(0.0f), x), vf_fma(vf_mul(twice, z), r, twice));
}

static inline vf vf_tanh(vf x)
{
    vf a = vf_abs(x), z = vf_mul(x, x);
    vf q = vf_set(-0x1.75e1b6p-8f);

    q = vf_fma(q, z, vf_set(0x1.522696p-6f));
    q = vf_fma(q, z, vf_set(-0x1.b83c5ap-5f));
    q = vf_fma(q, z, vf_set(0x1.110726p-3f));
    q = vf_fma(q, z, vf_set(-0x1.555532p-2f));
    vf small = vf_fma(vf_mul(q, z), x, x);
    vf denominator = vf_add(vf_exp(vf_add(a, a)), vf_set(1.0f));
    vf large = vf_sub(vf_set(1.0f), vf_div(vf_set(2.0f), denominator));

    return vf_select(vf_less(a, vf_set(0.625f)), small, vf_with_sign(large, x));
}

static inline vf vf_sigmoid(vf x)
{
    return vf_div(vf_set(1.0f), vf_add(vf_set(1.0f), vf_exp(vf_sub(vf_set(0.0f), x))));
}

static inline vf vf_silu(vf x)
{
    return vf_div(x, vf_add(vf_set(1.0f), vf_exp(vf_sub(vf_set(0.0f), x))));
}

/* Phi(-a) = erfc(a / sqrt(2)) / 2 for 0 <= a <= 14. The square is taken in two parts, since the
 * exponential makes an error of it a^2 / 2 times as large. */
static inline vf vf_normal_tail(vf a)
{
    vf square = vf_mul(a, a), half = vf_set(0.5f);
    vf rest = vf_fma(a, a, vf_sub(vf_set(0.0f), square));
    vf e = vf_exp(vf_mul(square, vf_set(-0.5f)));
    vf t = vf_div(vf_set(1.0f), vf_fma(a, vf_set(0.25f), vf_set(1.0f)));
    vf r = vf_set(0x1.b2af54p-6f);

    e = vf_fnma(vf_mul(rest, half), e, e);
    r = vf_fma(r, t, vf_set(-0x1.4122f8p-3f));
    r = vf_fma(r, t, vf_set(0x1.37db2ap-2f));
    r = vf_fma(r, t, vf_set(-0x1.b9a76ep-3f));
    r = vf_fma(r, t, vf_set(0x1.ab8d74p-3f));
    r = vf_fma(r, t, vf_set(0x1.e8fa1cp-6f));
    r = vf_fma(r, t, vf_set(0x1.ac4d42p-4f));
    r = vf_fma(r, t, vf_set(0x1.930894p-4f));
    r = vf_fma(r, t, vf_set(0x1.98cd04p-4f));
    return vf_mul(e, vf_mul(r, t));
}

static inline vf vf_gelu(vf x)
{
    vf tail = vf_normal_tail(vf_min(vf_set(14.0f), vf_abs(x)));
    vf phi = vf_select(vf_less(x, vf_set(0.0f)), tail, vf_sub(vf_set(1.0f), tail));

    return vf_mul(x, phi);
}

/* (1 + tanh(u)) / 2 = 1 / (1 + exp(-2u)) */
static inline vf vf_gelu_tanh(vf x)
{
    const float root = 0.797884560802865355880f; /* sqrt(2 / pi) */
    vf cube = vf_mul(vf_mul(vf_mul(x, x), vf_set(0.044715f)), x);
    vf u = vf_mul(vf_add(x, cube), vf_set(-2.0f * root));

    return vf_div(x, vf_add(vf_set(1.0f), vf_exp(u)));
}

#endif
