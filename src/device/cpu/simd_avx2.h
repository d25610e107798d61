/* device/cpu/simd_avx2.h: vectors of eight f32 for the kernels in *_simd.h. */
#ifndef DEVICE_CPU_SIMD_AVX2_H
#define DEVICE_CPU_SIMD_AVX2_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef __m256 vf; /* numbers */
typedef __m256 vm; /* a truth per lane */

/* Sixteen registers hold a tile of 6 x 2 sums, the 2 vectors that meet them, and a number of each
 * row. */
enum { VF_LANES = 8, TILE_ROWS = 6, PANEL_VECTORS = 2, SCORE_ROWS = 2 };

static inline vf vf_set(float x)
{
    return _mm256_set1_ps(x);
}

static inline vf vf_load(const float *p)
{
    return _mm256_loadu_ps(p);
}

static inline void vf_store(float *p, vf v)
{
    _mm256_storeu_ps(p, v);
}

/* Past the caches where the processor can, p aligned to vectors; others see it after the end. */
static inline void vf_stream(float *p, vf v)
{
    _mm256_stream_ps(p, v);
}

static inline void vf_end_stream(void)
{
    _mm_sfence();
}

/* Lanes [0, n) set. */
static inline __m256i first_lanes(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* The first n lanes, 0 < n < VF_LANES; the others are zero, and memory there is not touched. */
static inline vf vf_load_n(const float *p, int n)
{
    return _mm256_maskload_ps(p, first_lanes(n));
}

static inline void vf_store_n(float *p, vf v, int n)
{
    _mm256_maskstore_ps(p, first_lanes(n), v);
}

static inline vf vf_add(vf a, vf b)
{
    return _mm256_add_ps(a, b);
}

static inline vf vf_sub(vf a, vf b)
{
    return _mm256_sub_ps(a, b);
}

static inline vf vf_mul(vf a, vf b)
{
    return _mm256_mul_ps(a, b);
}

static inline vf vf_div(vf a, vf b)
{
    return _mm256_div_ps(a, b);
}

static inline vf vf_sqrt(vf a)
{
    return _mm256_sqrt_ps(a);
}

/* a b + c and c - a b, rounded once. */
static inline vf vf_fma(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}

static inline vf vf_fnma(vf a, vf b, vf c)
{
    return _mm256_fnmadd_ps(a, b, c);
}

/* A NaN where b is one. */
static inline vf vf_max(vf a, vf b)
{
    return _mm256_max_ps(a, b);
}

static inline vf vf_min(vf a, vf b)
{
    return _mm256_min_ps(a, b);
}

static inline vf vf_abs(vf a)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}

/* The magnitude of a, which is not negative, with the sign of b. */
static inline vf vf_with_sign(vf a, vf b)
{
    return _mm256_or_ps(a, _mm256_and_ps(b, _mm256_set1_ps(-0.0f)));
}

static inline vm vf_less(vf a, vf b)
{
    return _mm256_cmp_ps(a, b, _CMP_LT_OQ);
}

static inline vf vf_select(vm m, vf yes, vf no)
{
    return _mm256_blendv_ps(no, yes, m);
}

static inline bool vf_any_equal(vf a, vf b)
{
    return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_EQ_OQ)) != 0;
}

/* p 2^n where the low 9 bits of t are those of the integer n; p and the result are normal numbers.
 */
static inline vf vf_times_power(vf p, vf t)
{
    return _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(t), 23)));
}

static inline float vf_sum(vf v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));

    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

static inline float vf_largest(vf v)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));

    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

/* p[i] = the sum of v[i], i < 4 */
static inline void vf_store_4_sums(float *p, const vf *v)
{
    vf s = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));

    _mm_storeu_ps(p, _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1)));
}

/* Rows to columns. */
static inline void vf_transpose(vf *v)
{
    vf pairs[8], fours[8];

    for (int i = 0; i < 8; i += 2) {
        pairs[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            vf a = pairs[i + j], b = pairs[i + 2 + j];

            fours[i + 2 * j] = _mm256_shuffle_ps(a, b, _MM_SHUFFLE(1, 0, 1, 0));
            fours[i + 2 * j + 1] = _mm256_shuffle_ps(a, b, _MM_SHUFFLE(3, 2, 3, 2));
        }
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x20);
        v[i + 4] = _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x31);
    }
}

/* VF_LANES / 2 numbers, each twice; and neighbours exchanged. */
static inline vf vf_load_twice(const float *p)
{
    __m256 v = _mm256_castps128_ps256(_mm_loadu_ps(p));

    return _mm256_permutevar8x32_ps(v, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
}

static inline vf vf_swap_neighbours(vf v)
{
    return _mm256_permute_ps(v, _MM_SHUFFLE(2, 3, 0, 1));
}

/* --- 16-bit numbers --- */

static inline vf vf_load_f16(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

static inline vf vf_load_bf16(const uint16_t *p)
{
    __m256i v = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));

    return _mm256_castsi256_ps(_mm256_slli_epi32(v, 16));
}

static inline void vf_store_f16(uint16_t *p, vf v)
{
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

/* To nearest, ties to even: adding 0x7FFF and the last bit kept carries exactly when it should. */
static inline void vf_store_bf16(uint16_t *p, vf v)
{
    __m256i bits = _mm256_castps_si256(v), high = _mm256_srli_epi32(bits, 16);
    __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
    __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
    __m256i words = _mm256_blendv_epi8(_mm256_srli_epi32(rounded, 16), quiet, nan);

    words = _mm256_permute4x64_epi64(_mm256_packus_epi32(words, words), _MM_SHUFFLE(3, 1, 2, 0));
    _mm_storeu_si128((__m128i *)p, _mm256_castsi256_si128(words));
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
