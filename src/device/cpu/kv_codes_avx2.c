/* device/cpu/kv_codes_avx2.c: keys and values as codes of 4 or 8 bits, for AVX2 with FMA. */
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

/* --- Attention straight from codes --- */

/* The sums of each group of n_rows queries: sums[r * n_groups + g]. */
static void sum_groups(float *sums, const float *q, int64_t ldq, int n_rows, int n_groups,
                       int group)
{
    for (int r = 0; r < n_rows; r++)
        for (int g = 0; g < n_groups; g++) {
            vf sum = vf_set(0);

            for (int i = 0; i < group; i += VF_LANES)
                sum = vf_add(sum, vf_load(q + r * ldq + g * group + i));
            sums[r * n_groups + g] = vf_sum(sum);
        }
}

/* One key, rows queries: s[r] = sum_g scale_g q_r c + bias_g sum q_r. */
INLINE void score_key(float *s, int64_t lds, const float *q, int64_t ldq, const float *sums,
                      const uint8_t *key, const float *scales, const float *biases, int n_groups,
                      int group, int bits, int rows)
{
    vf total[4] = {vf_set(0), vf_set(0), vf_set(0), vf_set(0)};
    float result[4];

    for (int g = 0; g < n_groups; g++) {
        vf sum[4] = {vf_set(0), vf_set(0), vf_set(0), vf_set(0)};

        for (int i = g * group; i < (g + 1) * group; i += VF_LANES) {
            vf codes = codes_at(key, i, bits);

            for (int r = 0; r < rows; r++)
                sum[r] = vf_fma(codes, vf_load(q + r * ldq + i), sum[r]);
        }
        for (int r = 0; r < rows; r++)
            total[r] = vf_fma(vf_set(scales[g]), sum[r], total[r]);
    }
    if (rows == 4)
        vf_store_4_sums(result, total);
    for (int r = 0; r < rows; r++) {
        float score = rows == 4 ? result[r] : vf_sum(total[r]);

        for (int g = 0; g < n_groups; g++)
            score = fmaf(biases[g], sums[r * n_groups + g], score);
        s[r * lds] = score;
    }
}

INLINE void score_rows(float *s, int64_t lds, const float *q, int64_t ldq, int n_rows,
                       const struct cpu_codes *keys, int n_keys, int bits)
{
    int n_groups = keys->dim / keys->group;
    size_t row_bytes = (size_t)keys->dim * (size_t)bits / 8;
    float sums[4 * CPU_CODE_GROUPS];

    for (int r = 0, rows; r < n_rows; r += rows, q += rows * ldq, s += rows * lds) {
        rows = n_rows - r >= 4 ? 4 : n_rows - r >= 2 ? 2 : 1;
        sum_groups(sums, q, ldq, rows, n_groups, keys->group);
        for (int j = 0; j < n_keys; j++) {
            const uint8_t *key = (const uint8_t *)keys->codes + (size_t)j * row_bytes;
            const float *scales = keys->scales + j * n_groups,
                        *biases = keys->biases + j * n_groups;

            if (rows == 4)
                score_key(s + j, lds, q, ldq, sums, key, scales, biases, n_groups, keys->group,
                          bits, 4);
            else if (rows == 2)
                score_key(s + j, lds, q, ldq, sums, key, scales, biases, n_groups, keys->group,
                          bits, 2);
            else
                score_key(s + j, lds, q, ldq, sums, key, scales, biases, n_groups, keys->group,
                          bits, 1);
        }
    }
}

static void score_codes(float *s, int lds, const float *q, int ldq, int n_rows,
                        const struct cpu_codes *keys, int n_keys)
{
    if (keys->bits == 4)
        score_rows(s, lds, q, ldq, n_rows, keys, n_keys, 4);
    else
        score_rows(s, lds, q, ldq, n_rows, keys, n_keys, 8);
}

/* Numbers [i, i + 16) of rows results, which lie in group g; w[r][j] = s[r, j] scale[j, g], b[r]
 * the sum of s[r, j] bias[j, g]. */
INLINE void weigh_lanes(float *y, int64_t ldy, const uint8_t *values, size_t row_bytes, int i,
                        float (*w)[CPU_ATTEND_CHUNK], const float *b, int n_keys, int bits,
                        int rows)
{
    vf sum[4][2];

    for (int r = 0; r < rows; r++)
        for (int v = 0; v < 2; v++)
            sum[r][v] = vf_add(vf_load(y + r * ldy + v * VF_LANES), vf_set(b[r]));
    for (int j = 0; j < n_keys; j++, values += row_bytes) {
        vf first = codes_at(values, i, bits), second = codes_at(values, i + VF_LANES, bits);

        for (int r = 0; r < rows; r++) {
            vf weight = vf_set(w[r][j]);

            sum[r][0] = vf_fma(weight, first, sum[r][0]);
            sum[r][1] = vf_fma(weight, second, sum[r][1]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < 2; v++)
            vf_store(y + r * ldy + v * VF_LANES, sum[r][v]);
}

INLINE void weigh_group(float *y, int64_t ldy, const float *s, int64_t lds,
                        const struct cpu_codes *values, int g, int n_keys, int bits, int rows)
{
    int n_groups = values->dim / values->group;
    size_t row_bytes = (size_t)values->dim * (size_t)bits / 8;
    float w[4][CPU_ATTEND_CHUNK], b[4];

    for (int r = 0; r < rows; r++) {
        b[r] = 0;
        for (int j = 0; j < n_keys; j++) {
            w[r][j] = s[r * lds + j] * values->scales[j * n_groups + g];
            b[r] = fmaf(s[r * lds + j], values->biases[j * n_groups + g], b[r]);
        }
    }
    for (int i = g * values->group; i < (g + 1) * values->group; i += 2 * VF_LANES)
        weigh_lanes(y + i, ldy, values->codes, row_bytes, i, w, b, n_keys, bits, rows);
}

INLINE void weigh_rows(float *y, int64_t ldy, const float *s, int64_t lds, int n_rows,
                       const struct cpu_codes *values, int n_keys, int bits)
{
    for (int r = 0, rows; r < n_rows; r += rows, y += rows * ldy, s += rows * lds) {
        rows = n_rows - r >= 4 ? 4 : n_rows - r >= 2 ? 2 : 1;
        for (int g = 0; g < values->dim / values->group; g++)
            if (rows == 4)
                weigh_group(y, ldy, s, lds, values, g, n_keys, bits, 4);
            else if (rows == 2)
                weigh_group(y, ldy, s, lds, values, g, n_keys, bits, 2);
            else
                weigh_group(y, ldy, s, lds, values, g, n_keys, bits, 1);
    }
}

static void weigh_codes(float *y, int ldy, const float *s, int lds, int n_rows,
                        const struct cpu_codes *values, int n_keys)
{
    if (values->bits == 4)
        weigh_rows(y, ldy, s, lds, n_rows, values, n_keys, 4);
    else
        weigh_rows(y, ldy, s, lds, n_rows, values, n_keys, 8);
}

void cpu_kv_codes_kernels_avx2(struct cpu_vector_kernels *k)
{
    k->dequantise = dequantise;
    k->score_codes = score_codes;
    k->weigh_codes = weigh_codes;
}
