/* device/cpu/kv_codes_avx2.c: keys and values as codes of 4 or 8 bits, for AVX2 with FMA. */
#include <math.h>

#include "device/cpu/inline.h"
#include "device/cpu/simd_avx2.h"
#include "device/cpu/vector_kernels.h"
#include "device/cpu/vector_math.h"

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

INLINE void prefetch(const char *p, size_t size)
{
    for (size_t i = 0; i < size; i += 64)
        __builtin_prefetch(p + i);
}

/* A query's group in steps of 16 bits, in the order of codes_words; its sum in *sum. */
INLINE float round_query(int16_t *to, const float *q, int group, int bits, float *sum)
{
    vf largest = vf_set(0), total = vf_set(0);

    for (int i = 0; i < group; i += VF_LANES) {
        largest = vf_max(largest, vf_abs(vf_load(q + i)));
        total = vf_add(total, vf_load(q + i));
    }
    float step = vf_largest(largest) / INT16_MAX;
    vf inverse = vf_set(step > 1e-30f ? 1 / step : 0);
    *sum = vf_sum(total);
    for (int i = 0; i < group; i += 4 * VF_LANES, to += 4 * VF_LANES) {
        __m256i words[2];

        for (int j = 0; j < 2; j++) {
            const float *at = q + i + 2 * j * VF_LANES;
            __m256i a = _mm256_cvtps_epi32(vf_mul(vf_load(at), inverse));
            __m256i b = _mm256_cvtps_epi32(vf_mul(vf_load(at + VF_LANES), inverse));

            words[j] = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), _MM_SHUFFLE(3, 1, 2, 0));
        }
        if (bits == 4) { /* those of even places, then those of odd ones */
            __m256i low = _mm256_set1_epi32(0xFFFF);
            __m256i even = _mm256_packus_epi32(_mm256_and_si256(words[0], low),
                                               _mm256_and_si256(words[1], low));
            __m256i odd = _mm256_packus_epi32(_mm256_srli_epi32(words[0], 16),
                                              _mm256_srli_epi32(words[1], 16));

            words[0] = _mm256_permute4x64_epi64(even, _MM_SHUFFLE(3, 1, 2, 0));
            words[1] = _mm256_permute4x64_epi64(odd, _MM_SHUFFLE(3, 1, 2, 0));
        }
        _mm256_storeu_si256((void *)to, words[0]);
        _mm256_storeu_si256((void *)(to + 2 * VF_LANES), words[1]);
    }
    return step;
}

/* 32 codes from number i of a row on as words: in order, or those of even places first. */
INLINE void codes_words(__m256i words[2], const uint8_t *row, int i, int bits)
{
    if (bits == 4) {
        __m256i pairs = _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)(row + i / 2)));

        words[0] = _mm256_and_si256(pairs, _mm256_set1_epi16(15));
        words[1] = _mm256_srli_epi16(pairs, 4);
    } else {
        words[0] = _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)(row + i)));
        words[1] = _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)(row + i + 16)));
    }
}

INLINE __m256i load_words(const int16_t *p)
{
    return _mm256_loadu_si256((const void *)p);
}

static void round_queries(const struct cpu_rounded *to, const float *q, int ldq, int n, int dim,
                          int group, int bits)
{
    int n_groups = dim / group;

    for (int r = 0; r < n; r++)
        for (int g = 0; g < n_groups; g++)
            to->steps[r * n_groups + g] = round_query(to->words + (int64_t)r * dim + g * group,
                                                      q + r * (int64_t)ldq + g * group, group, bits,
                                                      &to->sums[r * n_groups + g]);
}

/* dots[r, first + j] = q_r c_j over a group, for rows queries, dim apart, and n keys. */
INLINE void score_keys(float (*dots)[CPU_ATTEND_CHUNK], int first, const int16_t *q, int dim,
                       const uint8_t *keys, size_t row_bytes, int group, int bits, int rows, int n)
{
    __m256i total[4][2];
    vf sums[4][2];
    float part[4];

    for (int r = 0; r < rows; r++)
        for (int j = 0; j < n; j++)
            total[r][j] = _mm256_setzero_si256();
    for (int i = 0; i < group; i += 32)
        for (int j = 0; j < n; j++) {
            __m256i words[2];

            codes_words(words, keys + (size_t)j * row_bytes, i, bits);
            for (int r = 0; r < rows; r++) {
                __m256i a = _mm256_madd_epi16(words[0], load_words(q + r * dim + i));
                __m256i b = _mm256_madd_epi16(words[1], load_words(q + r * dim + i + 16));

                total[r][j] = _mm256_add_epi32(total[r][j], _mm256_add_epi32(a, b));
            }
        }
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < n; j++)
            sums[r][j] = _mm256_cvtepi32_ps(total[r][j]);
    for (int r = 0; r < rows; r += 2) {
        if (rows > 1 && n == 2) {
            vf_store_4_sums(part, sums[r]);
            memcpy(dots[r] + first, part, 2 * sizeof *part);
            memcpy(dots[r + 1] + first, part + 2, 2 * sizeof *part);
            continue;
        }
        for (int j = 0; j < n; j++) {
            dots[r][first + j] = vf_sum(sums[r][j]);
            if (rows > 1)
                dots[r + 1][first + j] = vf_sum(sums[r + 1][j]);
        }
    }
}

/* s = step scale dots + sum bias, or in addition to what s is. */
INLINE void scale_scores(float *s, const float *dots, const float *scales, const float *biases,
                         float step, float sum, int n, bool add)
{
    for (int j = 0; j < n; j += VF_LANES) {
        vf old = add ? part_load(s, j, n) : vf_set(0);
        vf all = vf_fma(part_load(biases, j, n), vf_set(sum), old);
        vf scale = vf_mul(part_load(scales, j, n), vf_set(step));

        part_store(s, vf_fma(scale, part_load(dots, j, n), all), j, n);
    }
}

INLINE void score_group(float *s, int64_t lds, const struct cpu_rounded *q, int first,
                        const struct cpu_codes *keys, int g, int n_keys, int bits, int rows,
                        int group, const char *ahead)
{
    size_t row_bytes = (size_t)keys->dim * (size_t)bits / 8;
    const uint8_t *key = (const uint8_t *)keys->codes + (size_t)(g * group * bits / 8);
    int n_groups = keys->dim / group;
    const int16_t *words = q->words + (int64_t)first * keys->dim + g * group;
    float dots[4][CPU_ATTEND_CHUNK];
    int j = 0;

    for (; j + 2 <= n_keys; j += 2) {
        if (ahead)
            prefetch(ahead + (size_t)j * row_bytes, 2 * row_bytes);
        score_keys(dots, j, words, keys->dim, key + (size_t)j * row_bytes, row_bytes, group, bits,
                   rows, 2);
    }
    if (j < n_keys)
        score_keys(dots, j, words, keys->dim, key + (size_t)j * row_bytes, row_bytes, group, bits,
                   rows, 1);
    for (int r = 0; r < rows; r++) {
        int64_t at = (int64_t)(first + r) * n_groups + g;

        scale_scores(s + r * lds, dots[r], keys->scales + g * n_keys, keys->biases + g * n_keys,
                     q->steps[at], q->sums[at], n_keys, g > 0);
    }
}

INLINE void score_groups(float *s, int64_t lds, const struct cpu_rounded *q, int first,
                         const struct cpu_codes *keys, int n_keys, int bits, int rows,
                         const char *ahead)
{
    for (int g = 0; g < keys->dim / keys->group; g++, ahead = NULL)
        if (keys->group == 64)
            score_group(s, lds, q, first, keys, g, n_keys, bits, rows, 64, ahead);
        else
            score_group(s, lds, q, first, keys, g, n_keys, bits, rows, keys->group, ahead);
}

INLINE void score_rows(float *s, int64_t lds, const struct cpu_rounded *q, int n_rows,
                       const struct cpu_codes *keys, int n_keys, int bits)
{
    const char *ahead = keys->ahead;

    for (int r = 0, rows; r < n_rows; r += rows, s += rows * lds, ahead = NULL) {
        rows = n_rows - r >= 4 ? 4 : n_rows - r >= 2 ? 2 : 1;
        if (rows == 4)
            score_groups(s, lds, q, r, keys, n_keys, bits, 4, ahead);
        else if (rows == 2)
            score_groups(s, lds, q, r, keys, n_keys, bits, 2, ahead);
        else
            score_groups(s, lds, q, r, keys, n_keys, bits, 1, ahead);
    }
}

static void score_codes(float *s, int lds, const struct cpu_rounded *q, int n_rows,
                        const struct cpu_codes *keys, int n_keys)
{
    if (keys->bits == 4)
        score_rows(s, lds, q, n_rows, keys, n_keys, 4);
    else
        score_rows(s, lds, q, n_rows, keys, n_keys, 8);
}

/* Numbers [i, i + 16) of rows results, which lie in one group; w[r][j] = s[r, j] scale[j], b[r] the
 * sum of s[r, j] bias[j]. */
INLINE void weigh_lanes(float *y, int64_t ldy, const uint8_t *values, size_t row_bytes, int i,
                        float (*w)[CPU_ATTEND_CHUNK], const float *b, int n_keys, int bits,
                        int rows, const char *ahead)
{
    vf sum[4][2];

    for (int r = 0; r < rows; r++)
        for (int v = 0; v < 2; v++)
            sum[r][v] = vf_add(vf_load(y + r * ldy + v * VF_LANES), vf_set(b[r]));
    for (int j = 0; j < n_keys; j++, values += row_bytes) {
        vf first = codes_at(values, i, bits), second = codes_at(values, i + VF_LANES, bits);

        if (ahead)
            prefetch(ahead + (size_t)j * row_bytes, row_bytes);
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

/* w[j] = s[j] scales[j]; returns the sum of s[j] biases[j]. */
INLINE float scale_weights(float *w, const float *s, const float *scales, const float *biases,
                           int n)
{
    vf sum = vf_set(0);

    for (int j = 0; j < n; j += VF_LANES) {
        vf weight = part_load(s, j, n);

        part_store(w, vf_mul(weight, part_load(scales, j, n)), j, n);
        sum = vf_fma(weight, part_load(biases, j, n), sum);
    }
    return vf_sum(sum);
}

INLINE void weigh_group(float *y, int64_t ldy, const float *s, int64_t lds,
                        const struct cpu_codes *values, int g, int n_keys, int bits, int rows,
                        const char *ahead)
{
    size_t row_bytes = (size_t)values->dim * (size_t)bits / 8;
    float w[4][CPU_ATTEND_CHUNK], b[4];

    for (int r = 0; r < rows; r++)
        b[r] = scale_weights(w[r], s + r * lds, values->scales + g * n_keys,
                             values->biases + g * n_keys, n_keys);
    for (int i = g * values->group; i < (g + 1) * values->group; i += 2 * VF_LANES, ahead = NULL)
        weigh_lanes(y + i, ldy, values->codes, row_bytes, i, w, b, n_keys, bits, rows, ahead);
}

INLINE void weigh_rows(float *y, int64_t ldy, const float *s, int64_t lds, int n_rows,
                       const struct cpu_codes *values, int n_keys, int bits)
{
    const char *ahead = values->ahead;

    for (int r = 0, rows; r < n_rows; r += rows, y += rows * ldy, s += rows * lds) {
        rows = n_rows - r >= 4 ? 4 : n_rows - r >= 2 ? 2 : 1;
        for (int g = 0; g < values->dim / values->group; g++, ahead = NULL)
            if (rows == 4)
                weigh_group(y, ldy, s, lds, values, g, n_keys, bits, 4, ahead);
            else if (rows == 2)
                weigh_group(y, ldy, s, lds, values, g, n_keys, bits, 2, ahead);
            else
                weigh_group(y, ldy, s, lds, values, g, n_keys, bits, 1, ahead);
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
    k->round_queries = round_queries;
    k->score_codes = score_codes;
    k->weigh_codes = weigh_codes;
}
