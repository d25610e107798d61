/* device/cpu/quantise_avx2.c: rows of activations as integers, for the products of integers.
 *
 * x = step q for each run of numbers, |q| at most 127 or 32767: the largest of the run is met
 * exactly. A run that holds something that is not a finite number gets a step that is not a number
 * either.
 */
#include "device/cpu/matmul_avx2.h"

/* The largest magnitude of n numbers, a multiple of 8. As integers NaN > infinity > all numbers. */
INLINE float largest(const float *x, int n)
{
    const __m256i magnitude = _mm256_set1_epi32(0x7FFFFFFF);
    __m256i most = _mm256_setzero_si256();
    __m128i m;

    for (int i = 0; i < n; i += 8)
        most = _mm256_max_epi32(
            most, _mm256_and_si256(magnitude, _mm256_castps_si256(_mm256_loadu_ps(x + i))));
    m = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, _MM_SHUFFLE(1, 0, 3, 2)));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, _MM_SHUFFLE(2, 3, 0, 1)));
    return _mm_cvtss_f32(_mm_castsi128_ps(m));
}

INLINE __m256i rounded8(const float *x, __m256 inverse)
{
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), inverse));
}

/* 16 numbers as i16, in order. */
INLINE __m256i rounded16(const float *x, __m256 inverse)
{
    __m256i v = _mm256_packs_epi32(rounded8(x, inverse), rounded8(x + 8, inverse));

    return _mm256_permute4x64_epi64(v, _MM_SHUFFLE(3, 1, 2, 0));
}

INLINE int32_t sum_i32(__m256i v)
{
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));

    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, _MM_SHUFFLE(1, 0, 3, 2)));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, _MM_SHUFFLE(2, 3, 0, 1)));
    return _mm_cvtsi128_si32(s);
}

float avx2_quantise_i16(int16_t *q, const float *x, int n, float *step)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sum = _mm256_setzero_si256();
    float inverse;

    *step = avx2_step(largest(x, n), 32767, &inverse);
    for (int i = 0; i < n; i += 16) {
        __m256i v = rounded16(x + i, _mm256_set1_ps(inverse));

        _mm256_storeu_si256((__m256i *)(q + i), v);
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(v, ones));
    }
    return *step * (float)sum_i32(sum);
}

float avx2_quantise_i8(int8_t *q, const float *x, int n, float *step)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sum = _mm256_setzero_si256();
    float inverse;

    *step = avx2_step(largest(x, n), 127, &inverse);
    for (int i = 0; i < n; i += 16) {
        __m256i v = rounded16(x + i, _mm256_set1_ps(inverse));

        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(v, ones));
        _mm_storeu_si128((__m128i *)(q + i), _mm_packs_epi16(_mm256_castsi256_si128(v),
                                                             _mm256_extracti128_si256(v, 1)));
    }
    return *step * (float)sum_i32(sum);
}
