/* device/cpu/simd_neon.h: vectors of four f32 for the kernels in *_simd.h. */
#ifndef DEVICE_CPU_SIMD_NEON_H
#define DEVICE_CPU_SIMD_NEON_H

#include <arm_neon.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef float32x4_t vf; /* numbers */
typedef uint32x4_t vm;  /* a truth per lane */

/* Thirty-two registers hold a tile of 6 x 4 sums, the 4 vectors that meet them, and a number of
 * each row. */
enum { VF_LANES = 4, TILE_ROWS = 6, PANEL_VECTORS = 4, SCORE_ROWS = 4 };

static inline vf vf_set(float x)
{
    return vdupq_n_f32(x);
}

static inline vf vf_load(const float *p)
{
    return vld1q_f32(p);
}

static inline void vf_store(float *p, vf v)
{
    vst1q_f32(p, v);
}

/* Past the caches where the processor can, p aligned to vectors; others see it after the end. */
static inline void vf_stream(float *p, vf v)
{
    vst1q_f32(p, v);
}

static inline void vf_end_stream(void)
{
}

/* The first n lanes, 0 < n < VF_LANES; the others are zero, and memory there is not touched. */
static inline vf vf_load_n(const float *p, int n)
{
    float part[VF_LANES] = {0};

    memcpy(part, p, (size_t)n * sizeof *p);
    return vf_load(part);
}

static inline void vf_store_n(float *p, vf v, int n)
{
    float part[VF_LANES];

    vf_store(part, v);
    memcpy(p, part, (size_t)n * sizeof *p);
}

static inline vf vf_add(vf a, vf b)
{
    return vaddq_f32(a, b);
}

static inline vf vf_sub(vf a, vf b)
{
    return vsubq_f32(a, b);
}

static inline vf vf_mul(vf a, vf b)
{
    return vmulq_f32(a, b);
}

static inline vf vf_div(vf a, vf b)
{
    return vdivq_f32(a, b);
}

static inline vf vf_sqrt(vf a)
{
    return vsqrtq_f32(a);
}

/* a b + c and c - a b, rounded once. */
static inline vf vf_fma(vf a, vf b, vf c)
{
    return vfmaq_f32(c, a, b);
}

static inline vf vf_fnma(vf a, vf b, vf c)
{
    return vfmsq_f32(c, a, b);
}

/* A NaN where b is one. */
static inline vf vf_max(vf a, vf b)
{
    return vmaxq_f32(a, b);
}

static inline vf vf_min(vf a, vf b)
{
    return vminq_f32(a, b);
}

static inline vf vf_abs(vf a)
{
    return vabsq_f32(a);
}

/* The magnitude of a, which is not negative, with the sign of b. */
static inline vf vf_with_sign(vf a, vf b)
{
    return vbslq_f32(vdupq_n_u32(0x80000000u), b, a);
}

static inline vm vf_less(vf a, vf b)
{
    return vcltq_f32(a, b);
}

static inline vf vf_select(vm m, vf yes, vf no)
{
    return vbslq_f32(m, yes, no);
}

static inline bool vf_any_equal(vf a, vf b)
{
    return vmaxvq_u32(vceqq_f32(a, b)) != 0;
}

/* p 2^n where the low 9 bits of t are those of the integer n; p and the result are normal numbers.
 */
static inline vf vf_times_power(vf p, vf t)
{
    return vreinterpretq_f32_u32(
        vaddq_u32(vreinterpretq_u32_f32(p), vshlq_n_u32(vreinterpretq_u32_f32(t), 23)));
}

static inline float vf_sum(vf v)
{
    return vaddvq_f32(v);
}

static inline float vf_largest(vf v)
{
    return vmaxvq_f32(v);
}

/* p[i] = the sum of v[i], i < 4 */
static inline void vf_store_4_sums(float *p, const vf *v)
{
    vf_store(p, vpaddq_f32(vpaddq_f32(v[0], v[1]), vpaddq_f32(v[2], v[3])));
}

static inline float64x2_t as_pairs(vf v)
{
    return vreinterpretq_f64_f32(v);
}

/* Rows to columns. */
static inline void vf_transpose(vf *v)
{
    vf even01 = vtrn1q_f32(v[0], v[1]), odd01 = vtrn2q_f32(v[0], v[1]);
    vf even23 = vtrn1q_f32(v[2], v[3]), odd23 = vtrn2q_f32(v[2], v[3]);

    v[0] = vreinterpretq_f32_f64(vtrn1q_f64(as_pairs(even01), as_pairs(even23)));
    v[1] = vreinterpretq_f32_f64(vtrn1q_f64(as_pairs(odd01), as_pairs(odd23)));
    v[2] = vreinterpretq_f32_f64(vtrn2q_f64(as_pairs(even01), as_pairs(even23)));
    v[3] = vreinterpretq_f32_f64(vtrn2q_f64(as_pairs(odd01), as_pairs(odd23)));
}

/* VF_LANES / 2 numbers, each twice; and neighbours exchanged. */
static inline vf vf_load_twice(const float *p)
{
    float32x2_t v = vld1_f32(p);

    return vcombine_f32(vdup_lane_f32(v, 0), vdup_lane_f32(v, 1));
}

static inline vf vf_swap_neighbours(vf v)
{
    return vrev64q_f32(v);
}

/* --- 16-bit numbers --- */

static inline vf vf_load_f16(const uint16_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}

static inline vf vf_load_bf16(const uint16_t *p)
{
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}

static inline void vf_store_f16(uint16_t *p, vf v)
{
    vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(v)));
}

/* To nearest, ties to even: adding 0x7FFF and the last bit kept carries exactly when it should. */
static inline void vf_store_bf16(uint16_t *p, vf v)
{
    uint32x4_t bits = vreinterpretq_u32_f32(v), high = vshrq_n_u32(bits, 16);
    uint32x4_t odd = vandq_u32(high, vdupq_n_u32(1));
    uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7FFF)));
    uint32x4_t quiet = vorrq_u32(high, vdupq_n_u32(0x40));

    vst1_u16(p, vmovn_u32(vbslq_u32(vceqq_f32(v, v), vshrq_n_u32(rounded, 16), quiet)));
}

static inline vf vf_load_f16_n(const uint16_t *p, int n)
{
    uint16_t part[VF_LANES] = {0};

    memcpy(part, p, (size_t)n * sizeof *p);
    return vf_load_f16(part);
}

static inline vf vf_load_bf16_n(const uint16_t *p, int n)
{
    uint16_t part[VF_LANES] = {0};

    memcpy(part, p, (size_t)n * sizeof *p);
    return vf_load_bf16(part);
}

static inline void vf_store_f16_n(uint16_t *p, vf v, int n)
{
    uint16_t part[VF_LANES];

    vf_store_f16(part, v);
    memcpy(p, part, (size_t)n * sizeof *p);
}

static inline void vf_store_bf16_n(uint16_t *p, vf v, int n)
{
    uint16_t part[VF_LANES];

    vf_store_bf16(part, v);
    memcpy(p, part, (size_t)n * sizeof *p);
}

#endif
