/* device/cpu/simd_avx512.h: vectors of sixteen f32 for the kernels in *_simd.h. */
#ifndef DEVICE_CPU_SIMD_AVX512_H
#define DEVICE_CPU_SIMD_AVX512_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

typedef __m512 vf;    /* numbers */
typedef __mmask16 vm; /* a truth per lane */

/* Thirty-two registers hold a tile of 12 x 2 sums and the 2 vectors that meet them. */
enum { VF_LANES = 16, TILE_ROWS = 12, PANEL_VECTORS = 2, SCORE_ROWS = 4 };

static inline vf vf_set(float x)
{
    return _mm512_set1_ps(x);
}

static inline vf vf_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

static inline void vf_store(float *p, vf v)
{
    _mm512_storeu_ps(p, v);
}

/* Past the caches where the processor can, p aligned to vectors; others see it after the end. */
static inline void vf_stream(float *p, vf v)
{
    _mm512_stream_ps(p, v);
}

static inline void vf_end_stream(void)
{
    _mm_sfence();
}

static inline __mmask16 first_lanes(int n)
{
    return (__mmask16)((1u << n) - 1);
}

/* The first n lanes, 0 < n < VF_LANES; the others are zero, and memory there is not touched. */
static inline vf vf_load_n(const float *p, int n)
{
    return _mm512_maskz_loadu_ps(first_lanes(n), p);
}

static inline void vf_store_n(float *p, vf v, int n)
{
    _mm512_mask_storeu_ps(p, first_lanes(n), v);
}

static inline vf vf_add(vf a, vf b)
{
    return _mm512_add_ps(a, b);
}

static inline vf vf_sub(vf a, vf b)
{
    return _mm512_sub_ps(a, b);
}

static inline vf vf_mul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}

static inline vf vf_div(vf a, vf b)
{
    return _mm512_div_ps(a, b);
}

static inline vf vf_sqrt(vf a)
{
    return _mm512_sqrt_ps(a);
}

/* a b + c and c - a b, rounded once. */
static inline vf vf_fma(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}

static inline vf vf_fnma(vf a, vf b, vf c)
{
    return _mm512_fnmadd_ps(a, b, c);
}

/* A NaN where b is one. */
static inline vf vf_max(vf a, vf b)
{
    return _mm512_max_ps(a, b);
}

static inline vf vf_min(vf a, vf b)
{
    return _mm512_min_ps(a, b);
}

static inline vf vf_abs(vf a)
{
    return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), a);
}

/* The magnitude of a, which is not negative, with the sign of b. */
static inline vf vf_with_sign(vf a, vf b)
{
    return _mm512_or_ps(a, _mm512_and_ps(b, _mm512_set1_ps(-0.0f)));
}

static inline vm vf_less(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}

static inline vf vf_select(vm m, vf yes, vf no)
{
    return _mm512_mask_blend_ps(m, no, yes);
}

static inline bool vf_any_equal(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ) != 0;
}

/* p 2^n where the low 9 bits of t are those of the integer n; p and the result are normal numbers.
 */
static inline vf vf_times_power(vf p, vf t)
{
    return _mm512_castsi512_ps(
        _mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(t), 23)));
}

static inline float vf_sum(vf v)
{
    return _mm512_reduce_add_ps(v);
}

static inline float vf_largest(vf v)
{
    return _mm512_reduce_max_ps(v);
}

static inline __m256 sum_of_halves(vf v)
{
    return _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
}

/* p[i] = the sum of v[i], i < 4 */
static inline void vf_store_4_sums(float *p, const vf *v)
{
    __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(sum_of_halves(v[0]), sum_of_halves(v[1])),
                              _mm256_hadd_ps(sum_of_halves(v[2]), sum_of_halves(v[3])));

    _mm_storeu_ps(p, _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1)));
}

static inline vf unpack_low_pairs(vf a, vf b)
{
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}

static inline vf unpack_high_pairs(vf a, vf b)
{
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}

/* Rows to columns: first within squares of 4 x 4, so that quarter k of fours[4 g + j] holds column
 * 4 k + j of rows 4 g to 4 g + 3; then the quarters of a column are gathered. */
static inline void vf_transpose(vf *v)
{
    vf fours[16];

    for (int g = 0; g < 16; g += 4) {
        vf low01 = _mm512_unpacklo_ps(v[g], v[g + 1]), high01 = _mm512_unpackhi_ps(v[g], v[g + 1]);
        vf low23 = _mm512_unpacklo_ps(v[g + 2], v[g + 3]);
        vf high23 = _mm512_unpackhi_ps(v[g + 2], v[g + 3]);

        fours[g] = unpack_low_pairs(low01, low23);
        fours[g + 1] = unpack_high_pairs(low01, low23);
        fours[g + 2] = unpack_low_pairs(high01, high23);
        fours[g + 3] = unpack_high_pairs(high01, high23);
    }
    for (int j = 0; j < 4; j++) {
        vf first01 = _mm512_shuffle_f32x4(fours[j], fours[4 + j], _MM_SHUFFLE(1, 0, 1, 0));
        vf last01 = _mm512_shuffle_f32x4(fours[j], fours[4 + j], _MM_SHUFFLE(3, 2, 3, 2));
        vf first23 = _mm512_shuffle_f32x4(fours[8 + j], fours[12 + j], _MM_SHUFFLE(1, 0, 1, 0));
        vf last23 = _mm512_shuffle_f32x4(fours[8 + j], fours[12 + j], _MM_SHUFFLE(3, 2, 3, 2));

        v[j] = _mm512_shuffle_f32x4(first01, first23, _MM_SHUFFLE(2, 0, 2, 0));
        v[4 + j] = _mm512_shuffle_f32x4(first01, first23, _MM_SHUFFLE(3, 1, 3, 1));
        v[8 + j] = _mm512_shuffle_f32x4(last01, last23, _MM_SHUFFLE(2, 0, 2, 0));
        v[12 + j] = _mm512_shuffle_f32x4(last01, last23, _MM_SHUFFLE(3, 1, 3, 1));
    }
}

/* VF_LANES / 2 numbers, each twice; and neighbours exchanged. */
static inline vf vf_load_twice(const float *p)
{
    __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);

    return _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(_mm256_loadu_ps(p)));
}

static inline vf vf_swap_neighbours(vf v)
{
    return _mm512_permute_ps(v, _MM_SHUFFLE(2, 3, 0, 1));
}

/* --- 16-bit numbers --- */

static inline vf f16_to_vf(__m256i h)
{
    return _mm512_cvtph_ps(h);
}

static inline vf bf16_to_vf(__m256i h)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

static inline __m256i vf_to_f16(vf v)
{
    return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT);
}

/* To nearest, ties to even: adding 0x7FFF and the last bit kept carries exactly when it should.
 * (The instruction for this would take denormal numbers for zero.) */
static inline __m256i vf_to_bf16(vf v)
{
    __m512i bits = _mm512_castps_si512(v), high = _mm512_srli_epi32(bits, 16);
    __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
    __m512i quiet = _mm512_or_si512(high, _mm512_set1_epi32(0x40));
    __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);

    return _mm512_cvtepi32_epi16(
        _mm512_mask_blend_epi32(nan, _mm512_srli_epi32(rounded, 16), quiet));
}

static inline vf vf_load_f16(const uint16_t *p)
{
    return f16_to_vf(_mm256_loadu_si256((const __m256i *)p));
}

static inline vf vf_load_f16_n(const uint16_t *p, int n)
{
    return f16_to_vf(_mm256_maskz_loadu_epi16(first_lanes(n), p));
}

static inline void vf_store_f16(uint16_t *p, vf v)
{
    _mm256_storeu_si256((__m256i *)p, vf_to_f16(v));
}

static inline void vf_store_f16_n(uint16_t *p, vf v, int n)
{
    _mm256_mask_storeu_epi16(p, first_lanes(n), vf_to_f16(v));
}

static inline vf vf_load_bf16(const uint16_t *p)
{
    return bf16_to_vf(_mm256_loadu_si256((const __m256i *)p));
}

static inline vf vf_load_bf16_n(const uint16_t *p, int n)
{
    return bf16_to_vf(_mm256_maskz_loadu_epi16(first_lanes(n), p));
}

static inline void vf_store_bf16(uint16_t *p, vf v)
{
    _mm256_storeu_si256((__m256i *)p, vf_to_bf16(v));
}

static inline void vf_store_bf16_n(uint16_t *p, vf v, int n)
{
    _mm256_mask_storeu_epi16(p, first_lanes(n), vf_to_bf16(v));
}

#endif
