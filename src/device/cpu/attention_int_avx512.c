/* device/cpu/attention_int_avx512.c: attention in whole numbers for AVX-512 with VNNI.
 *
 * One instruction does 64 products of bytes: a vector of key codes holds four numbers of each of 16
 * keys, one of value codes four keys of each of 16 numbers. They meet the same four of a query, or
 * of its weights, in tiles of six queries by 64 keys or numbers.
 *
 * A weight is 255 times 256 steps. Its high byte alone does where a chunk has little part in what
 * the query has seen so far: it is rounded up or down by what of 64 thresholds its key has, so that
 * many small weights keep their sum. Where the chunk's greatest weight is more than SHARE of all,
 * the low bytes are multiplied too.
 */
#include <math.h>
#include <string.h>

#include "device/cpu/simd_avx512.h"

#include "device/cpu/attention_int.h"
#include "device/cpu/inline.h"
#include "device/cpu/vector_math.h"

enum {
    CHUNK = CPU_INT_CHUNK,
    STRIP = 64, /* numbers of a row that make a vector of bytes */
    KEY_ZERO = 128,
    VALUE_MAX = 127,
    WEIGHT_UNIT = 255 * 256,
};
#define LOG2_SHARE -4.0f /* of SHARE, 1/16 */
#define LOG2_255 0x1.ffa37cp+2f

_Static_assert(INT_ROWS == 6 && INT_COLS == 16 && CHUNK % STRIP == 0,
               "tiles of six rows by 4 vectors");
_Static_assert((int64_t)WEIGHT_UNIT *VALUE_MAX *CHUNK < INT32_MAX, "sums of values");

/* Has v computed here, in its register: else gcc copies sums about in loops, and spills them. */
INLINE __m512i now(__m512i v)
{
    __asm__("" : "+v"(v));
    return v;
}

INLINE __m512i load(const void *p)
{
    return _mm512_loadu_si512(p);
}

INLINE __m512i broadcast(const void *p)
{
    int32_t four;

    memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
}

/* The i-th vectors of a row of n numbers, zeros past its end. */
INLINE void load_strip(vf v[4], const float *row, int i, int n)
{
    for (int j = 0; j < 4; j++, i += VF_LANES)
        v[j] = i < n ? part_load(row, i, n) : vf_set(0);
}

/* Four vectors of doublewords in packs of four, as they are after packing within quarters. */
INLINE __m512i in_order(__m512i v)
{
    return _mm512_permutexvar_epi32(
        _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), v);
}

INLINE __m512i round_to_bytes(const vf v[4])
{
    __m512i low = _mm512_packs_epi32(_mm512_cvtps_epi32(v[0]), _mm512_cvtps_epi32(v[1]));
    __m512i high = _mm512_packs_epi32(_mm512_cvtps_epi32(v[2]), _mm512_cvtps_epi32(v[3]));

    return in_order(_mm512_packs_epi16(low, high));
}

/* --- Queries --- */

static float query_inverse(const float *q, int dim, float *step)
{
    vf largest = vf_set(0), poison = vf_set(0);

    for (int i = 0; i < dim; i += VF_LANES) {
        vf v = part_load(q, i, dim);

        largest = vf_max(largest, vf_abs(v));
        poison = vf_fma(v, vf_set(0), poison);
    }
    return int_inverse(INT_QUERY_MAX, vf_largest(largest), vf_sum(poison), step);
}

static void int_queries(int8_t *to, int32_t *starts, float *steps, const float *q, int ldq, int n,
                        int dim)
{
    int blocks = int_blocks(dim), row = blocks * INT_BLOCK;
    vf v[4];

    for (int r = 0; r < n; r++, q += ldq, to += row, starts += blocks) {
        vf inverse = vf_set(query_inverse(q, dim, &steps[r]));
        __m512i sum = _mm512_setzero_si512();

        for (int i = 0; i < row; i += STRIP) {
            load_strip(v, q, i, dim);
            for (int j = 0; j < 4; j++)
                v[j] = vf_mul(v[j], inverse);
            __m512i codes = round_to_bytes(v);

            sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(1), codes);
            _mm512_mask_storeu_epi8(to + i, row - i < STRIP ? 0xFFFFFFFF : ~0ull, codes);
        }
        starts[0] = -KEY_ZERO * _mm512_reduce_add_epi32(sum);
    }
}

/* --- Keys --- */

INLINE void find_middle(float *middle, const float *keys, const float *balance, int begin, int end,
                        int dim, int i, vf *largest, vf *poison)
{
    vf by = part_load(balance, i, dim);
    vf low = vf_mul(part_load(keys + (int64_t)begin * dim, i, dim), by), high = low;

    for (int j = begin; j < end; j++) {
        vf key = vf_mul(part_load(keys + (int64_t)j * dim, i, dim), by);

        low = vf_min(low, key);
        high = vf_max(high, key);
        *poison = vf_fma(key, vf_set(0), *poison);
    }
    part_store(middle, vf_mul(vf_add(low, high), vf_set(0.5f)), i, dim);
    *largest = vf_max(*largest, vf_mul(vf_sub(high, low), vf_set(0.5f)));
}

/* Numbers [i, i + STRIP) of 16 keys, of which row have room, to their panel. */
INLINE void pack_strip(uint8_t *to, const float *keys, const float *balance, const float *middle,
                       int dim, int i, int row, vf inverse)
{
    vf v[4], by[4], mid[4], rows[VF_LANES];

    load_strip(by, balance, i, dim);
    load_strip(mid, middle, i, dim);
    for (int j = 0; j < VF_LANES; j++) {
        load_strip(v, keys + (int64_t)j * dim, i, dim);
        for (int l = 0; l < 4; l++)
            v[l] = vf_mul(_mm512_fmsub_ps(v[l], by[l], mid[l]), inverse);
        rows[j] = _mm512_castsi512_ps(
            _mm512_xor_si512(round_to_bytes(v), _mm512_set1_epi8((char)KEY_ZERO)));
    }
    vf_transpose(rows);
    for (int j = 0; j < VF_LANES && i + 4 * j < row; j++)
        _mm512_storeu_ps(to + (i + 4 * j) * INT_COLS, rows[j]);
}

static float int_keys(uint8_t *to, float *middle, const float *keys, const float *balance,
                      int begin, int end, int dim)
{
    int row = int_blocks(dim) * INT_BLOCK;
    vf largest = vf_set(0), poison = vf_set(0);
    float step, inverse;

    for (int i = 0; i < dim; i += VF_LANES)
        find_middle(middle, keys, balance, begin, end, dim, i, &largest, &poison);
    inverse = int_inverse(KEY_ZERO - 1, vf_largest(largest), vf_sum(poison), &step);
    for (int j = 0; j < CHUNK; j += INT_COLS, to += row * INT_COLS)
        for (int i = 0; i < row; i += STRIP)
            pack_strip(to, keys + (int64_t)j * dim, balance, middle, dim, i, row, vf_set(inverse));
    return step;
}

/* --- Values --- */

/* 1 / the step of VF_LANES numbers. */
INLINE vf value_inverse(float *steps, const float *values, int dim, int i)
{
    vf largest = vf_set(0), poison = vf_set(0);
    float peaks[VF_LANES], poisons[VF_LANES];

    for (int j = 0; j < CHUNK && i < dim; j++) {
        vf v = part_load(values + (int64_t)j * dim, i, dim);

        largest = vf_max(largest, vf_abs(v));
        poison = vf_fma(v, vf_set(0), poison);
    }
    vf_store(peaks, largest);
    vf_store(poisons, poison);
    for (int l = 0; l < VF_LANES; l++)
        peaks[l] = int_inverse(VALUE_MAX, peaks[l], poisons[l], &steps[l]);
    return vf_load(peaks);
}

INLINE __m512i quarters(__m512i a, __m512i b, const int which)
{
    return which ? _mm512_shuffle_i32x4(a, b, _MM_SHUFFLE(3, 2, 3, 2))
                 : _mm512_shuffle_i32x4(a, b, _MM_SHUFFLE(1, 0, 1, 0));
}

/* Four rows of bytes to fours[k]: of columns 16 k to 16 k + 15 all four, one after another. */
INLINE void interleave(__m512i fours[4], const __m512i rows[4])
{
    __m512i low01 = _mm512_unpacklo_epi8(rows[0], rows[1]);
    __m512i high01 = _mm512_unpackhi_epi8(rows[0], rows[1]);
    __m512i low23 = _mm512_unpacklo_epi8(rows[2], rows[3]);
    __m512i high23 = _mm512_unpackhi_epi8(rows[2], rows[3]);
    __m512i a = _mm512_unpacklo_epi16(low01, low23), b = _mm512_unpackhi_epi16(low01, low23);
    __m512i c = _mm512_unpacklo_epi16(high01, high23), d = _mm512_unpackhi_epi16(high01, high23);

    for (int half = 0; half < 2; half++) {
        __m512i ab = quarters(a, b, half), cd = quarters(c, d, half);

        fours[2 * half] = _mm512_shuffle_i32x4(ab, cd, _MM_SHUFFLE(2, 0, 2, 0));
        fours[2 * half + 1] = _mm512_shuffle_i32x4(ab, cd, _MM_SHUFFLE(3, 1, 3, 1));
    }
}

/* Numbers [i, i + STRIP) of all values, to panels of which there are n. */
INLINE void pack_values(int8_t *to, float *steps, const float *values, int dim, int i, int n)
{
    vf inverse[4], v[4];
    __m512i rows[4], fours[4];

    for (int l = 0; l < n; l++)
        inverse[l] = value_inverse(steps + l * VF_LANES, values, dim, i + l * VF_LANES);
    for (int l = n; l < 4; l++)
        inverse[l] = vf_set(0);
    for (int j = 0; j < CHUNK; j += 4) {
        for (int r = 0; r < 4; r++) {
            load_strip(v, values + (int64_t)(j + r) * dim, i, dim);
            for (int l = 0; l < 4; l++)
                v[l] = vf_mul(v[l], inverse[l]);
            rows[r] = round_to_bytes(v);
        }
        interleave(fours, rows);
        for (int l = 0; l < n; l++)
            _mm512_storeu_si512(to + (l * CHUNK + j) * INT_COLS, fours[l]);
    }
}

static void int_values(void *to, float *steps, const float *values, int dim)
{
    int8_t *panel = to;

    for (int i = 0; i < dim; i += STRIP, panel += STRIP * CHUNK) {
        int n = (dim - i + INT_COLS - 1) / INT_COLS;

        pack_values(panel, steps + i, values, dim, i, n < 4 ? n : 4);
    }
}

/* --- Products --- */

/* sums[r][c] += products of depth bytes of each row, in fours, and of panels c. One of both is
 * unsigned. */
INLINE void multiply(__m512i sums[INT_ROWS][4], const uint8_t *rows, int ldr, const uint8_t *panels,
                     int panel_size, int depth, const int n_panels, const bool rows_unsigned)
{
    for (int k = 0; k < depth; k += 4, rows += 4, panels += 4 * INT_COLS) {
        __m512i column[4];

#pragma GCC unroll 4
        for (int c = 0; c < n_panels; c++)
            column[c] = load(panels + c * panel_size);
#pragma GCC unroll 6
        for (int r = 0; r < INT_ROWS; r++) {
            __m512i four = broadcast(rows + r * ldr);

#pragma GCC unroll 4
            for (int c = 0; c < n_panels; c++)
                sums[r][c] = now(rows_unsigned ? _mm512_dpbusd_epi32(sums[r][c], four, column[c])
                                               : _mm512_dpbusd_epi32(sums[r][c], column[c], four));
        }
    }
}

/* Four rows. */
INLINE __m128 offset_rows(const float *q, int64_t ldq, const float *middle, int dim)
{
    vf sums[4];
    float all[4];

#pragma GCC unroll 4
    for (int r = 0; r < 4; r++)
        sums[r] = vf_set(0);
    for (int i = 0; i < dim; i += VF_LANES) {
        vf m = part_load(middle, i, dim);

#pragma GCC unroll 4
        for (int r = 0; r < 4; r++)
            sums[r] = vf_fma(vf_load(q + r * ldq + i), m, sums[r]);
    }
    vf_store_4_sums(all, sums);
    return _mm_loadu_ps(all);
}

static void int_offsets(float *to, const float *q, int ldq, int n, const float *middle, int dim)
{
    for (int r = 0; r < n; r += 4) {
        int first = r + 4 <= n ? r : n - 4; /* some twice */

        _mm_storeu_ps(to + first, offset_rows(q + first * (int64_t)ldq, ldq, middle, dim));
    }
}

/* Of STRIP keys. */
INLINE void score_strip(float *s, const int8_t *codes, int row, const int32_t *starts, int blocks,
                        const float *scales, const float *offsets, const uint8_t *keys)
{
    __m512i sums[INT_ROWS][4];

#pragma GCC unroll 6
    for (int r = 0; r < INT_ROWS; r++)
#pragma GCC unroll 4
        for (int c = 0; c < 4; c++)
            sums[r][c] = _mm512_set1_epi32(starts[r * blocks]);
    multiply(sums, (const uint8_t *)codes, row, keys, row * INT_COLS, row, 4, false);
#pragma GCC unroll 6
    for (int r = 0; r < INT_ROWS; r++) {
        vf scale = vf_set(scales[r]), offset = vf_set(offsets[r]);

#pragma GCC unroll 4
        for (int c = 0; c < 4; c++)
            vf_store(s + r * CHUNK + c * VF_LANES,
                     vf_fma(_mm512_cvtepi32_ps(sums[r][c]), scale, offset));
    }
}

static void int_scores(float *s, const int8_t *codes, const int32_t *starts, const float *steps,
                       const float *offsets, const uint8_t *keys, float step, int dim)
{
    int blocks = int_blocks(dim), row = blocks * INT_BLOCK;
    float scales[INT_ROWS];

    for (int r = 0; r < INT_ROWS; r++)
        scales[r] = steps[r] * step;
    for (int j = 0; j < CHUNK; j += STRIP, keys += row * STRIP)
        score_strip(s + j, codes, row, starts, blocks, scales, offsets, keys);
}

INLINE void weigh_strip(float *y, int ldy, const uint8_t *p, int parts, const float *keep,
                        const float *weights, const uint8_t *values, const float *steps,
                        const int n_panels)
{
    __m512i sums[INT_ROWS][4];

#pragma GCC unroll 6
    for (int r = 0; r < INT_ROWS; r++)
#pragma GCC unroll 4
        for (int c = 0; c < n_panels; c++)
            sums[r][c] = _mm512_setzero_si512();
    multiply(sums, p, CHUNK, values, INT_COLS * CHUNK, CHUNK, n_panels, true);
    if (parts > 1) {
#pragma GCC unroll 6
        for (int r = 0; r < INT_ROWS; r++)
#pragma GCC unroll 4
            for (int c = 0; c < n_panels; c++)
                sums[r][c] = _mm512_slli_epi32(sums[r][c], 8);
        multiply(sums, p + INT_ROWS * CHUNK, CHUNK, values, INT_COLS * CHUNK, CHUNK, n_panels,
                 true);
    }
#pragma GCC unroll 6
    for (int r = 0; r < INT_ROWS; r++) {
        vf weight = vf_set(parts > 1 ? weights[r] : 256 * weights[r]), kept = vf_set(keep[r]);

#pragma GCC unroll 4
        for (int c = 0; c < n_panels; c++) {
            float *to = y + r * (int64_t)ldy + c * VF_LANES;
            vf part = vf_mul(_mm512_cvtepi32_ps(sums[r][c]),
                             vf_mul(weight, vf_load(steps + c * VF_LANES)));

            vf_store(to, vf_fma(vf_load(to), kept, part));
        }
    }
}

static void int_weigh(float *y, int ldy, const void *p, int parts, const float *keep,
                      const float *weights, const void *values, const float *steps, int n_panels)
{
    const uint8_t *panel = values;

    for (; n_panels > 0; n_panels -= 4, panel += STRIP * CHUNK, y += STRIP, steps += STRIP)
        switch (n_panels) {
#define CASE(n)                                                                                    \
    case n:                                                                                        \
        weigh_strip(y, ldy, p, parts, keep, weights, panel, steps, n);                             \
        break;
            CASE(1)
            CASE(2)
            CASE(3)
#undef CASE
        default:
            weigh_strip(y, ldy, p, parts, keep, weights, panel, steps, 4);
        }
}

/* --- Softmax --- */

/* 2^(s + log2(unit) - peak) + more, where from = (127 + log2(unit) - peak) 2^23: the integer next
 * to 2^23 s + from has a float's exponent n + 127 and mantissa m - 1 as its bits, and 2^n 2^(m - 1)
 * is wanted. A minimax polynomial of 2^(m - 1), 1 <= m < 2, has a relative error of 1.7e-3, a
 * fraction of what scores are off by. What is far too small has become negative, or no number, and
 * becomes a negative integer, which packing makes 0. */
INLINE vf rough_power(vf s, vf from, vf more)
{
    __m512i bits = _mm512_cvtps_epi32(vf_fma(s, vf_set(0x1p23f), from));
    vf m = _mm512_castsi512_ps(_mm512_ternarylogic_epi32(bits, _mm512_set1_epi32(0x7FFFFF),
                                                         _mm512_set1_epi32(0x3F800000), 0xEA));
    vf n = _mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32((int)0xFF800000)));
    vf p = vf_fma(vf_fma(vf_set(0x1.5947f6p-2f), m, vf_set(-0x1.124288p-6f)), m,
                  vf_set(0x1.5cd02p-1f));

    return vf_fma(n, p, more);
}

/* 2^x for x <= 0; NaN stays. */
INLINE __m256 power(__m256 x)
{
    vf bounded = vf_max(vf_set(POWER_MIN), _mm512_castps256_ps512(x));
    vf t = vf_add(bounded, vf_set(ROUNDER));
    vf f = vf_sub(bounded, vf_sub(t, vf_set(ROUNDER)));

    return _mm512_castps512_ps256(vf_times_power(vf_power_fraction(f), t));
}

/* The greatest of each row's scores. */
INLINE __m256 row_peaks(const float *s)
{
    __m256 half[8], four[4];

#pragma GCC unroll 6
    for (int r = 0; r < INT_ROWS; r++, s += CHUNK) {
        vf v = vf_load(s);

#pragma GCC unroll 8
        for (int j = VF_LANES; j < CHUNK; j += VF_LANES)
            v = vf_max(v, vf_load(s + j));
        half[r] = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    }
    half[6] = half[7] = half[5];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        four[i] = _mm256_max_ps(_mm256_unpacklo_ps(half[2 * i], half[2 * i + 1]),
                                _mm256_unpackhi_ps(half[2 * i], half[2 * i + 1]));
    __m256 a = _mm256_max_ps(_mm256_shuffle_ps(four[0], four[1], 0x44),
                             _mm256_shuffle_ps(four[0], four[1], 0xEE));
    __m256 b = _mm256_max_ps(_mm256_shuffle_ps(four[2], four[3], 0x44),
                             _mm256_shuffle_ps(four[2], four[3], 0xEE));

    return _mm256_max_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
}

/* Of every 64 keys the i-th has the threshold of i's six bits in reverse. */
#define T(n) ((n) / 128.0f)
static const float thresholds[STRIP] __attribute__((aligned(64))) = {
    T(1),   T(65),  T(33), T(97),  T(17),  T(81),  T(49),  T(113), T(9),   T(73),  T(41),
    T(105), T(25),  T(89), T(57),  T(121), T(5),   T(69),  T(37),  T(101), T(21),  T(85),
    T(53),  T(117), T(13), T(77),  T(45),  T(109), T(29),  T(93),  T(61),  T(125), T(3),
    T(67),  T(35),  T(99), T(19),  T(83),  T(51),  T(115), T(11),  T(75),  T(43),  T(107),
    T(27),  T(91),  T(59), T(123), T(7),   T(71),  T(39),  T(103), T(23),  T(87),  T(55),
    T(119), T(15),  T(79), T(47),  T(111), T(31),  T(95),  T(63),  T(127),
};
#undef T

/* p of a row of scores in 255 steps of 1; returns their sum in parts. */
INLINE __m512i high_weights(uint8_t *p, const float *s, float from)
{
    __m512i sum = _mm512_setzero_si512(), words[2];
    vf by = vf_set(from);

#pragma GCC unroll 2
    for (int j = 0; j < CHUNK; j += STRIP, s += STRIP, p += STRIP) {
#pragma GCC unroll 2
        for (int i = 0; i < 2; i++) {
            const float *at = s + 2 * i * VF_LANES, *more = thresholds + 2 * i * VF_LANES;

            words[i] = _mm512_packus_epi32(
                _mm512_cvttps_epi32(rough_power(vf_load(at), by, vf_load(more))),
                _mm512_cvttps_epi32(
                    rough_power(vf_load(at + VF_LANES), by, vf_load(more + VF_LANES))));
        }
        __m512i bytes = in_order(_mm512_packus_epi16(words[0], words[1]));

        sum = _mm512_dpbusd_epi32(sum, bytes, _mm512_set1_epi8(1));
        _mm512_storeu_si512(p, bytes);
    }
    return sum;
}

/* The same in 255 steps of 256, in high and low bytes. */
INLINE __m512i whole_weights(uint8_t *p, const float *s, float from)
{
    __m512i one = _mm512_set1_epi8(1), low_mask = _mm512_set1_epi16(255), words[2];
    __m512i high_sum = _mm512_setzero_si512(), low_sum = high_sum;
    vf by = vf_set(from + 8 * 0x1p23f), zero = vf_set(0);

    for (int j = 0; j < CHUNK; j += STRIP, s += STRIP, p += STRIP) {
        for (int i = 0; i < 2; i++) {
            const float *at = s + 2 * i * VF_LANES;

            words[i] = _mm512_packus_epi32(
                _mm512_cvtps_epi32(rough_power(vf_load(at), by, zero)),
                _mm512_cvtps_epi32(rough_power(vf_load(at + VF_LANES), by, zero)));
        }
        __m512i high = in_order(
            _mm512_packus_epi16(_mm512_srli_epi16(words[0], 8), _mm512_srli_epi16(words[1], 8)));
        __m512i low = in_order(_mm512_packus_epi16(_mm512_and_si512(words[0], low_mask),
                                                   _mm512_and_si512(words[1], low_mask)));

        high_sum = _mm512_dpbusd_epi32(high_sum, high, one);
        low_sum = _mm512_dpbusd_epi32(low_sum, low, one);
        _mm512_storeu_si512(p, high);
        _mm512_storeu_si512(p + INT_ROWS * CHUNK, low);
    }
    return _mm512_add_epi32(_mm512_slli_epi32(high_sum, 8), low_sum);
}

/* The sum of each row. */
INLINE __m256 add_rows(const __m512i sums[INT_ROWS])
{
    __m256i half[8];

#pragma GCC unroll 6
    for (int r = 0; r < INT_ROWS; r++)
        half[r] = _mm256_add_epi32(_mm512_castsi512_si256(sums[r]),
                                   _mm512_extracti64x4_epi64(sums[r], 1));
    half[6] = half[7] = _mm256_setzero_si256();
    __m256i a =
        _mm256_hadd_epi32(_mm256_hadd_epi32(half[0], half[1]), _mm256_hadd_epi32(half[2], half[3]));
    __m256i b =
        _mm256_hadd_epi32(_mm256_hadd_epi32(half[4], half[5]), _mm256_hadd_epi32(half[6], half[7]));

    return _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x20),
                                               _mm256_permute2x128_si256(a, b, 0x31)));
}

/* Rows of which the chunk's greatest weight is more than SHARE of all, or may be. */
INLINE __mmask8 large_shares(__m256 peak, __m256 max, __m256 sum)
{
    __m256 least = _mm256_add_ps(max, _mm256_getexp_ps(sum)); /* log2 of what was before */

    return _mm256_cmp_ps_mask(peak, _mm256_add_ps(least, _mm256_set1_ps(LOG2_SHARE)), _CMP_NLE_UQ);
}

static int int_softmax(void *p, const float *s, float *max, float *sum, float *keep, float *weights)
{
    const __mmask8 rows = (1 << INT_ROWS) - 1;
    __m256 old = _mm256_maskz_loadu_ps(rows, max), before = _mm256_maskz_loadu_ps(rows, sum);
    __m256 peak = row_peaks(s);
    __mmask8 hidden = _mm256_cmp_ps_mask(peak, _mm256_set1_ps(-INFINITY), _CMP_EQ_OQ);
    bool large = large_shares(peak, old, before) & rows & ~hidden;
    __m512i sums[INT_ROWS];
    float from[8];

    _mm256_storeu_ps(from, _mm256_maskz_mul_ps((__mmask8)~hidden,
                                               _mm256_sub_ps(_mm256_set1_ps(127 + LOG2_255), peak),
                                               _mm256_set1_ps(0x1p23f)));
#pragma GCC unroll 6
    for (int r = 0; r < INT_ROWS; r++) {
        uint8_t *to = (uint8_t *)p + r * CHUNK;

        sums[r] = large ? whole_weights(to, s + r * CHUNK, from[r])
                        : _mm512_slli_epi32(high_weights(to, s + r * CHUNK, from[r]), 8);
    }
    __m256 both = _mm256_max_ps(old, peak);
    __mmask8 same = _mm256_cmp_ps_mask(old, both, _CMP_EQ_OQ);
    __m256 factor = _mm256_mask_mov_ps(power(_mm256_sub_ps(old, both)), same, _mm256_set1_ps(1));
    __m256 weight = _mm256_maskz_mul_ps((__mmask8)~hidden, power(_mm256_sub_ps(peak, both)),
                                        _mm256_set1_ps(1.0f / WEIGHT_UNIT));

    _mm256_mask_storeu_ps(keep, rows, factor);
    _mm256_mask_storeu_ps(weights, rows, weight);
    _mm256_mask_storeu_ps(max, rows, both);
    _mm256_mask_storeu_ps(sum, rows,
                          _mm256_fmadd_ps(before, factor, _mm256_mul_ps(add_rows(sums), weight)));
    return large ? 2 : 1;
}

const struct cpu_int_attention cpu_int_attention_avx512 = {
    .most_queries = 512,
    .chunk = CHUNK,
    .key_zero = KEY_ZERO,
    .value_max = VALUE_MAX,
    .value_keys = 4,
    .weight_unit = WEIGHT_UNIT,
    .queries = int_queries,
    .keys = int_keys,
    .values = int_values,
    .offsets = int_offsets,
    .scores = int_scores,
    .softmax = int_softmax,
    .weigh = int_weigh,
};
