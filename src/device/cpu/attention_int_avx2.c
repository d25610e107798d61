/* device/cpu/attention_int_avx2.c: attention in whole numbers for AVX2 with FMA.
 *
 * A vector of key codes holds four numbers of each of eight keys. maddubs meets them with the same
 * four of a query and adds up pairs, in 16 bits, where the sums of a block stay (the queries' steps
 * see to that); so two instructions do 32 products. Weights and values have 16 bits: two
 * instructions do 16.
 */
#include <math.h>

#include "device/cpu/simd_avx2.h"

#include "device/cpu/attention_int.h"
#include "device/cpu/inline.h"
#include "device/cpu/vector_math.h"

#define EACH_ROW(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5)
_Static_assert(INT_ROWS == 6 && INT_COLS == 16, "the tile of EACH_ROW and struct sums");

/* Of row r a_r of columns 0 to 7 and b_r of 8 to 15. Single variables and no array, so that
 * compilers keep them in registers. */
struct sums {
    __m256i a0, a1, a2, a3, a4, a5, b0, b1, b2, b3, b4, b5;
};

/* Has v computed here: else gcc multiplies all first, which takes more registers than there are. */
INLINE __m256i now(__m256i v)
{
    __asm__ volatile("" : "+x"(v));
    return v;
}

INLINE __m256i load(const void *p)
{
    return _mm256_loadu_si256(p);
}

INLINE __m256i broadcast(const void *p)
{
    int32_t four;

    memcpy(&four, p, sizeof four);
    return _mm256_set1_epi32(four);
}

INLINE __m256i round_to_int(vf v, vf inverse)
{
    return _mm256_cvtps_epi32(vf_mul(v, inverse));
}

/* 32 numbers to bytes, in order. */
INLINE __m256i round_to_bytes(const vf v[4], vf inverse)
{
    __m256i low = _mm256_packs_epi32(round_to_int(v[0], inverse), round_to_int(v[1], inverse));
    __m256i high = _mm256_packs_epi32(round_to_int(v[2], inverse), round_to_int(v[3], inverse));

    return _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high),
                                       _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/* --- Queries --- */

/* The four vectors from i on of a row of n numbers, zeros past its end. */
INLINE void load_block(vf v[4], const float *row, int i, int n)
{
    for (int j = 0; j < 4; j++, i += VF_LANES)
        v[j] = i < n ? part_load(row, i, n) : vf_set(0);
}

/* The greater of the sums of |q| that two lanes of a block have: of every four the first two, and
 * the others. */
INLINE float largest_lane(const vf v[4])
{
    vf sum = vf_add(vf_add(vf_abs(v[0]), vf_abs(v[1])), vf_add(vf_abs(v[2]), vf_abs(v[3])));
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1));

    s = _mm_add_ps(s, _mm_movehdup_ps(s));
    return fmaxf(_mm_cvtss_f32(s), _mm_cvtss_f32(_mm_movehl_ps(s, s)));
}

static float query_inverse(const float *q, int dim, float *step)
{
    vf largest = vf_set(0), poison = vf_set(0), v[4];
    float lane = 0;

    for (int i = 0; i < dim; i += INT_BLOCK) {
        load_block(v, q, i, dim);
        for (int j = 0; j < 4; j++) {
            largest = vf_max(largest, vf_abs(v[j]));
            poison = vf_fma(v[j], vf_set(0), poison);
        }
        lane = fmaxf(lane, largest_lane(v));
    }
    return int_query_inverse(vf_largest(largest), lane, vf_sum(poison), step);
}

static void int_queries(int8_t *to, int32_t *starts, float *steps, const float *q, int ldq, int n,
                        int dim)
{
    int blocks = int_blocks(dim);
    __m256i zero = _mm256_set1_epi8(INT_ZERO);
    vf v[4];

    for (int r = 0; r < n; r++, q += ldq) {
        vf inverse = vf_set(query_inverse(q, dim, &steps[r]));

        for (int b = 0; b < blocks; b++, to += INT_BLOCK) {
            load_block(v, q, b * INT_BLOCK, dim);
            __m256i codes = round_to_bytes(v, inverse), sum = _mm256_maddubs_epi16(zero, codes);
            __m128i s =
                _mm_add_epi16(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));

            _mm256_storeu_si256((void *)to, codes);
            s = _mm_add_epi16(s, _mm_shuffle_epi32(s, 0x4E));
            s = _mm_add_epi16(s, _mm_shuffle_epi32(s, 0xB1));
            s = _mm_sub_epi16(_mm_setzero_si128(), s);
            starts[r * blocks + b] = _mm_cvtsi128_si32(s);
        }
    }
}

/* --- Keys --- */

/* middle[i] of VF_LANES numbers of keys [begin, end); half of what they range over in largest. */
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

/* INT_BLOCK numbers of eight keys, to one half of their panel. */
INLINE void pack_block(uint8_t *to, const float *keys, const float *balance, const float *middle,
                       int dim, int i, vf inverse)
{
    vf v[4], by[4], mid[4], rows[VF_LANES];

    load_block(by, balance, i, dim);
    load_block(mid, middle, i, dim);
    for (int j = 0; j < VF_LANES; j++) {
        load_block(v, keys + (int64_t)j * dim, i, dim);
        for (int l = 0; l < 4; l++)
            v[l] = vf_sub(vf_mul(v[l], by[l]), mid[l]);
        rows[j] = _mm256_castsi256_ps(
            _mm256_add_epi8(round_to_bytes(v, inverse), _mm256_set1_epi8(INT_ZERO)));
    }
    vf_transpose(rows);
    for (int j = 0; j < VF_LANES; j++)
        _mm256_storeu_ps((float *)(void *)(to + 4 * INT_COLS * j), rows[j]);
}

static float int_keys(uint8_t *to, float *middle, const float *keys, const float *balance,
                      int begin, int end, int dim)
{
    int size = int_blocks(dim) * INT_BLOCK * INT_COLS;
    vf largest = vf_set(0), poison = vf_set(0);
    float step, inverse;

    for (int i = 0; i < dim; i += VF_LANES)
        find_middle(middle, keys, balance, begin, end, dim, i, &largest, &poison);
    inverse = int_inverse(INT_ZERO - 1, vf_largest(largest), vf_sum(poison), &step);
    for (int j = 0; j < CPU_ATTEND_CHUNK; j += VF_LANES)
        for (int i = 0; i < dim; i += INT_BLOCK)
            pack_block(to + j / INT_COLS * size + j % INT_COLS * 4 + i * INT_COLS,
                       keys + (int64_t)j * dim, balance, middle, dim, i, vf_set(inverse));
    return step;
}

/* --- Values --- */

INLINE void pack_value_lanes(int16_t *to, float *steps, const float *values, int dim, int i)
{
    vf largest = vf_set(0), poison = vf_set(0), inverse;
    float peaks[VF_LANES], poisons[VF_LANES];

    for (int j = 0; j < CPU_ATTEND_CHUNK; j++) {
        vf v = part_load(values + (int64_t)j * dim, i, dim);

        largest = vf_max(largest, vf_abs(v));
        poison = vf_fma(v, vf_set(0), poison);
    }
    vf_store(peaks, largest);
    vf_store(poisons, poison);
    for (int l = 0; l < VF_LANES; l++)
        peaks[l] = int_inverse(INT_VALUE_MAX, peaks[l], poisons[l], &steps[l]);
    inverse = vf_load(peaks);
    for (int j = 0; j < CPU_ATTEND_CHUNK; j += 2, to += 2 * INT_COLS) {
        vf even = part_load(values + (int64_t)j * dim, i, dim);
        vf odd = part_load(values + (int64_t)(j + 1) * dim, i, dim);
        __m256i high = _mm256_slli_epi32(round_to_int(odd, inverse), 16);

        _mm256_storeu_si256((void *)to,
                            _mm256_blend_epi16(round_to_int(even, inverse), high, 0xAA));
    }
}

static void int_values(void *to, float *steps, const float *values, int dim)
{
    int i = 0;

    for (; i < dim; i += VF_LANES)
        pack_value_lanes((int16_t *)to + i / INT_COLS * INT_COLS * CPU_ATTEND_CHUNK +
                             i % INT_COLS * 2,
                         steps + i, values, dim, i);
    if (i % INT_COLS) {
        for (int j = 0; j < CPU_ATTEND_CHUNK / 2; j++)
            _mm256_storeu_si256((void *)((int16_t *)to +
                                         i / INT_COLS * INT_COLS * CPU_ATTEND_CHUNK +
                                         i % INT_COLS * 2 + j * 2 * INT_COLS),
                                _mm256_setzero_si256());
        vf_store(steps + i, vf_set(0));
    }
}

/* --- Products --- */

/* Of a block of INT_BLOCK numbers, 16 bits in each lane. */
INLINE void score_block(struct sums *sums, const int8_t *q, int ldq, const int32_t *starts,
                        int n_blocks, const uint8_t *keys)
{
    struct sums s;

#define START(r) s.a##r = s.b##r = _mm256_set1_epi32(starts[r * n_blocks]);
    EACH_ROW(START)
#pragma GCC unroll 2
    for (int k = 0; k < INT_BLOCK; k += 4, keys += 4 * INT_COLS, q += 4) {
        __m256i k0 = load(keys), k1 = load(keys + 32);

#define ADD(r)                                                                                     \
    __m256i q##r = broadcast(q + r * ldq);                                                         \
    s.a##r = now(_mm256_add_epi16(s.a##r, _mm256_maddubs_epi16(k0, q##r)));                        \
    s.b##r = now(_mm256_add_epi16(s.b##r, _mm256_maddubs_epi16(k1, q##r)));
        EACH_ROW(ADD)
    }
    *sums = s;
#undef START
#undef ADD
}

/* Six numbers; masked stores are slow on many processors. */
INLINE void store_rows(float *to, vf v)
{
    _mm_storeu_ps(to, _mm256_castps256_ps128(v));
    _mm_storel_pi((__m64 *)(void *)(to + 4), _mm256_extractf128_ps(v, 1));
}

INLINE void offset_tile(float *to, const float *q, int ldq, const float *middle, int dim)
{
    vf sums[VF_LANES];
    float all[VF_LANES];

    for (int r = 0; r < VF_LANES; r++)
        sums[r] = vf_set(0);
    for (int i = 0; i < dim; i += VF_LANES) {
        vf m = part_load(middle, i, dim);

        for (int r = 0; r < INT_ROWS; r++)
            sums[r] = vf_fma(vf_load(q + r * (int64_t)ldq + i), m, sums[r]);
    }
    vf_store_4_sums(all, sums);
    vf_store_4_sums(all + 4, sums + 4);
    store_rows(to, vf_load(all));
}

static void int_offsets(float *to, const float *q, int ldq, int n, const float *middle, int dim)
{
    for (int r = 0; r < n; r += INT_ROWS)
        offset_tile(to + r, q + r * (int64_t)ldq, ldq, middle, dim);
}

static void int_scores(float *s, const int8_t *codes, const int32_t *starts, const float *steps,
                       const float *offsets, const uint8_t *keys, float step, int dim)
{
    int blocks = int_blocks(dim), ldc = blocks * INT_BLOCK;
    __m256i one = _mm256_set1_epi16(1);
    float scales[INT_ROWS];

    for (int r = 0; r < INT_ROWS; r++)
        scales[r] = steps[r] * step;
    for (int p = 0; p < CPU_ATTEND_CHUNK / INT_COLS; p++, s += INT_COLS) {
        struct sums sums, more;

        score_block(&more, codes, ldc, starts, blocks, keys);
        keys += INT_BLOCK * INT_COLS;
#define WIDEN(r)                                                                                   \
    sums.a##r = _mm256_madd_epi16(more.a##r, one);                                                 \
    sums.b##r = _mm256_madd_epi16(more.b##r, one);
        EACH_ROW(WIDEN)
        for (int b = 1; b < blocks; b++, keys += INT_BLOCK * INT_COLS) {
            score_block(&more, codes + b * INT_BLOCK, ldc, starts + b, blocks, keys);
#define WIDEN_MORE(r)                                                                              \
    sums.a##r = _mm256_add_epi32(sums.a##r, _mm256_madd_epi16(more.a##r, one));                    \
    sums.b##r = _mm256_add_epi32(sums.b##r, _mm256_madd_epi16(more.b##r, one));
            EACH_ROW(WIDEN_MORE)
        }
#define STORE(r)                                                                                   \
    vf scale##r = vf_set(scales[r]), offset##r = vf_set(offsets[r]);                               \
    vf_store(s + r * CPU_ATTEND_CHUNK,                                                             \
             vf_fma(_mm256_cvtepi32_ps(sums.a##r), scale##r, offset##r));                          \
    vf_store(s + r * CPU_ATTEND_CHUNK + VF_LANES,                                                  \
             vf_fma(_mm256_cvtepi32_ps(sums.b##r), scale##r, offset##r));
        EACH_ROW(STORE)
#undef WIDEN
#undef WIDEN_MORE
#undef STORE
    }
}

INLINE struct sums weigh_panel(const int16_t *p, const int16_t *values)
{
    struct sums s;

#define CLEAR(r) s.a##r = s.b##r = _mm256_setzero_si256();
    EACH_ROW(CLEAR)
#pragma GCC unroll 2
    for (int k = 0; k < CPU_ATTEND_CHUNK; k += 2, values += 2 * INT_COLS, p += 2) {
        __m256i v0 = load(values), v1 = load(values + INT_COLS);

#define ADD(r)                                                                                     \
    __m256i p##r = broadcast(p + r * CPU_ATTEND_CHUNK);                                            \
    s.a##r = now(_mm256_add_epi32(s.a##r, _mm256_madd_epi16(v0, p##r)));                           \
    s.b##r = now(_mm256_add_epi32(s.b##r, _mm256_madd_epi16(v1, p##r)));
        EACH_ROW(ADD)
    }
    return s;
#undef CLEAR
#undef ADD
}

INLINE void fold(float *y, __m256i sum, vf weight, vf step, vf keep)
{
    vf part = vf_mul(vf_mul(_mm256_cvtepi32_ps(sum), weight), step);

    vf_store(y, vf_fma(vf_load(y), keep, part));
}

static void int_weigh(float *y, int ldy, const void *p, int parts, const float *keep,
                      const float *weights, const void *values, const float *steps, int n_panels)
{
    const int16_t *panel = values;

    (void)parts;
    for (int i = 0; i < n_panels;
         i++, panel += INT_COLS * CPU_ATTEND_CHUNK, y += INT_COLS, steps += INT_COLS) {
        struct sums s = weigh_panel(p, panel);
        vf step0 = vf_load(steps), step1 = vf_load(steps + VF_LANES);

#define FOLD(r)                                                                                    \
    fold(y + r * (int64_t)ldy, s.a##r, vf_set(weights[r]), step0, vf_set(keep[r]));                \
    fold(y + r * (int64_t)ldy + VF_LANES, s.b##r, vf_set(weights[r]), step1, vf_set(keep[r]));
        EACH_ROW(FOLD)
#undef FOLD
    }
}

/* --- Softmax --- */

/* 2^(s + shift), rounded to integers, for s + shift <= 13. A minimax polynomial like those of
 * vector_math.h has a relative error of 7.5e-5, as much as rounding to 13 bits. What is below -100
 * counts as that: of negative numbers as unsigned integers the greater ones are farther from zero.
 */
INLINE __m256i rough_power(vf s, vf shift)
{
    __m256i bits = _mm256_castps_si256(vf_add(s, shift));
    vf x = _mm256_castsi256_ps(_mm256_min_epu32(bits, _mm256_castps_si256(vf_set(-100))));
    vf t = vf_add(x, vf_set(ROUNDER)), f = vf_sub(x, vf_sub(t, vf_set(ROUNDER)));
    vf p = vf_fma(vf_set(0x1.c3f76p-5f), f, vf_set(0x1.f0de1ap-3f));

    p = vf_fma(p, f, vf_set(0x1.62f31ap-1f));
    p = vf_fma(p, f, vf_set(0x1.fff692p-1f));
    return _mm256_cvtps_epi32(vf_times_power(p, t));
}

/* 2^x for x <= 0; NaN stays. */
INLINE vf power(vf x)
{
    vf bounded = vf_max(vf_set(POWER_MIN), x);
    vf t = vf_add(bounded, vf_set(ROUNDER));

    return vf_times_power(vf_power_fraction(vf_sub(bounded, vf_sub(t, vf_set(ROUNDER)))), t);
}

INLINE vm equal(vf a, vf b)
{
    return _mm256_cmp_ps(a, b, _CMP_EQ_OQ);
}

INLINE int32_t sum_ints(__m256i v)
{
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));

    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1)));
}

INLINE float row_max(const float *s)
{
    vf a = vf_load(s), b = vf_load(s + VF_LANES);

    for (int j = 2 * VF_LANES; j < CPU_ATTEND_CHUNK; j += 2 * VF_LANES) {
        a = vf_max(a, vf_load(s + j));
        b = vf_max(b, vf_load(s + j + VF_LANES));
    }
    return vf_largest(vf_max(a, b));
}

/* p of a row of scores, 2^(s + shift) rounded; returns their sum. */
INLINE int32_t row_weights(int16_t *p, const float *s, float shift)
{
    __m256i sum = _mm256_setzero_si256();
    vf by = vf_set(shift);

    for (int j = 0; j < CPU_ATTEND_CHUNK; j += 2 * VF_LANES) {
        __m256i words = _mm256_packs_epi32(rough_power(vf_load(s + j), by),
                                           rough_power(vf_load(s + j + VF_LANES), by));

        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(words, _mm256_set1_epi16(1)));
        _mm256_storeu_si256((void *)(p + j),
                            _mm256_permute4x64_epi64(words, _MM_SHUFFLE(3, 1, 2, 0)));
    }
    return sum_ints(sum);
}

static int int_softmax(void *to, const float *s, float *max, float *sum, float *keep,
                       float *weights)
{
    int16_t *p = to;
    float peaks[VF_LANES] = {0}, shifts[VF_LANES], sums[VF_LANES] = {0};
    vf old = vf_load_n(max, INT_ROWS);

    for (int r = 0; r < INT_ROWS; r++)
        peaks[r] = row_max(s + r * CPU_ATTEND_CHUNK);
    vf peak = vf_load(peaks), hidden = equal(peak, vf_set(-INFINITY));
    vf both = vf_max(old, peak);
    vf factor = vf_select(equal(old, both), vf_set(1), power(vf_sub(old, both)));
    vf weight = vf_mul(power(vf_sub(peak, both)), vf_set(INT_WEIGHT_UNIT));

    weight = vf_select(hidden, vf_set(0), weight);
    vf_store(shifts, vf_select(hidden, vf_set(0), vf_sub(vf_set(INT_WEIGHT_BITS), peak)));
    store_rows(keep, factor);
    store_rows(weights, weight);
    store_rows(max, both);
    for (int r = 0; r < INT_ROWS; r++)
        sums[r] = (float)row_weights(p + r * CPU_ATTEND_CHUNK, s + r * CPU_ATTEND_CHUNK, shifts[r]);
    store_rows(sum, vf_fma(vf_load_n(sum, INT_ROWS), factor, vf_mul(vf_load(sums), weight)));
    return 1;
}

const struct cpu_int_attention cpu_int_attention_avx2 = {
    .most_queries = 256,
    .chunk = CPU_ATTEND_CHUNK,
    .key_zero = INT_ZERO,
    .value_max = INT_VALUE_MAX,
    .value_keys = 2,
    .weight_unit = 1 << INT_WEIGHT_BITS,
    .queries = int_queries,
    .keys = int_keys,
    .values = int_values,
    .offsets = int_offsets,
    .scores = int_scores,
    .softmax = int_softmax,
    .weigh = int_weigh,
};
