/* device/cpu/kv_codes_avx2.c: codes of keys and values to numbers, for AVX2 with FMA. */
#include <math.h>

#include "device/cpu/simd_avx2.h"
#include "device/cpu/vector_kernels.h"

#define INLINE static inline __attribute__((always_inline))

/* Eight codes from number i of a row on, i a multiple of 8. */
INLINE vf codes_at(const uint8_t *row, int i, int bits)
{
    __m256i codes;

    if (bits == 4) {
        uint32_t word;

        memcpy(&word, row + i / 2, sizeof word);
        codes = _mm256_srlv_epi32(_mm256_set1_epi32((int)word),
                                  _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
        codes = _mm256_and_si256(codes, _mm256_set1_epi32(15));
    } else {
        codes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(row + i)));
    }
    return _mm256_cvtepi32_ps(codes);
}

INLINE void dequantise_row(float *y, const uint8_t *row, const float *scales, const float *biases,
                           int dim, int group, int bits)
{
    for (int begin = 0; begin < dim; begin += group, scales++, biases++) {
        int end = dim - begin < group ? dim : begin + group, i = begin;
        vf scale = vf_set(*scales), bias = vf_set(*biases);

        for (; i + VF_LANES <= end; i += VF_LANES)
            vf_store(y + i, vf_fma(codes_at(row, i, bits), scale, bias));
        for (; i < end; i++) {
            int code = bits == 4 ? row[i / 2] >> i % 2 * 4 & 15 : row[i];

            y[i] = fmaf((float)code, *scales, *biases);
        }
    }
}

static void dequantise(float *y, const void *codes, const float *scales, const float *biases,
                       int n_rows, int dim, int group, int bits)
{
    const uint8_t *row = codes;
    int n_groups = (dim - 1) / group + 1;

    for (int r = 0; r < n_rows; r++, y += dim, scales += n_groups, biases += n_groups)
        if (bits == 4) {
            dequantise_row(y, row, scales, biases, dim, group, 4);
            row += (dim + 7) / 8 * 4;
        } else {
            dequantise_row(y, row, scales, biases, dim, group, 8);
            row += (dim + 3) / 4 * 4;
        }
}

void cpu_kv_codes_kernels_avx2(struct cpu_vector_kernels *k)
{
    k->dequantise = dequantise;
}
