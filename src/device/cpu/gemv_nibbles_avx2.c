/* device/cpu/gemv_nibbles_avx2.c: weights of 4 bits, affine, mxfp4 or nvfp4, by a few rows: x in 8
 * bits.
 *
 * A unit of x has those at even places first: as nibbles come out of 32 bytes. The sums of two or
 * four units are brought together into one vector before they become f32 and are scaled.
 */
#include "device/cpu/gemv_avx2.h"

static size_t strip_bytes_i8(int n_in, int group_size)
{
    return strip_size(n_in, group_size, 1);
}

/* Of every 64 bytes those at even places, then those at odd ones. */
static void order_as_nibbles(uint8_t *units, size_t size)
{
    const __m256i even_first = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));

    for (uint8_t *p = units; p < units + size; p += UNIT_BYTES) {
        __m256i a = _mm256_load_si256((const __m256i *)p);
        __m256i b = _mm256_load_si256((const __m256i *)(p + 32));

        a = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(a, even_first), _MM_SHUFFLE(3, 1, 2, 0));
        b = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(b, even_first), _MM_SHUFFLE(3, 1, 2, 0));
        _mm256_store_si256((__m256i *)p, _mm256_permute2x128_si256(a, b, 0x20));
        _mm256_store_si256((__m256i *)(p + 32), _mm256_permute2x128_si256(a, b, 0x31));
    }
}

static void prepare_nibbles(void *strip, const struct cpu_task *t, int first, int n)
{
    (void)n;
    prepare(strip, cpu_task_x(t, first), t->w->n_in, t->w->group_size, 1);
    order_as_nibbles(strip, units_size(t->w->n_in, 1));
}

INLINE struct codes split_nibbles(__m256i v, const int kind)
{
    const __m256i low = _mm256_set1_epi8(0x0F);
    const __m256i e2m1 = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
    struct codes c = {_mm256_and_si256(v, low), _mm256_and_si256(_mm256_srli_epi16(v, 4), low)};

    if (kind >= MXFP4) {
        c.first = _mm256_shuffle_epi8(e2m1, c.first);
        c.second = _mm256_shuffle_epi8(e2m1, c.second);
    }
    return c;
}

INLINE struct codes load_nibbles(const uint8_t *p, const int kind)
{
    return split_nibbles(_mm256_loadu_si256((const __m256i *)p), kind);
}

/* Sums of the products with a unit, of 4 neighbours each, in 16 bits. */
INLINE __m256i multiply_unit(struct codes c, const uint8_t *unit)
{
    __m256i a = _mm256_load_si256((const __m256i *)unit);
    __m256i b = _mm256_load_si256((const __m256i *)(unit + 32));

    return _mm256_add_epi16(_mm256_maddubs_epi16(c.first, a), _mm256_maddubs_epi16(c.second, b));
}

INLINE __m256i add_pairs(__m256i sums)
{
    return _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
}

/* Of the sums of two units of nibbles: in each half of 128 bits a, b, a, b, of 32 bits each, which
 * hold two sums of 16. */
INLINE __m256i join_units(__m256i a, __m256i b)
{
    return _mm256_add_epi16(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
}

/* Of what join_units has made of two units each: a, b, c, d, as i32. 4 units of 0 to 15 by -127 to
 * 127 fit into 16 bits, of 0 to 24 they do not. */
INLINE __m256i join_twos(__m256i ab, __m256i cd, const int kind)
{
    if (kind == 4)
        return add_pairs(
            _mm256_add_epi16(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd)));
    ab = add_pairs(ab);
    cd = add_pairs(cd);
    return _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
}

/* Two units with four groups each: of each half of 128 bits the groups a0, a1, b0, b1. */
INLINE __m256i join_groups(__m256i a, __m256i b)
{
    __m256 x = _mm256_castsi256_ps(add_pairs(a)), y = _mm256_castsi256_ps(add_pairs(b));

    return _mm256_add_epi32(_mm256_castps_si256(_mm256_shuffle_ps(x, y, 0x88)),
                            _mm256_castps_si256(_mm256_shuffle_ps(x, y, 0xDD)));
}

/* Of a batch of factors, one per group, those for the lanes that came of joining units from number
 * unit of the batch on. */
INLINE __m256 joined_factors(const float *batch, int unit, int group_size)
{
    const float *f = batch + (unit * UNIT_BYTES >> __builtin_ctz((unsigned)group_size));

    if (group_size == 128)
        return _mm256_blend_ps(_mm256_broadcast_ss(f), _mm256_broadcast_ss(f + 1), 0xCC);
    if (group_size == 64)
        return _mm256_broadcast_ps((const __m128 *)(const void *)f);
    if (group_size == 32)
        return _mm256_permutevar8x32_ps(_mm256_loadu_ps(f),
                                        _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
    return _mm256_permutevar8x32_ps(_mm256_loadu_ps(f), _mm256_setr_epi32(0, 1, 4, 5, 2, 3, 6, 7));
}

/* sums[r] = two units of nibbles by those of each row, joined. */
INLINE void multiply_two(__m256i sums[MAX_ROWS], const uint8_t *p, const struct tile *t,
                         size_t unit, const int kind, const int rows)
{
    struct codes a = load_nibbles(p, kind), b = load_nibbles(p + 32, kind);

#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        const uint8_t *x = t->x[r].units + unit * UNIT_BYTES;
        __m256i pa = multiply_unit(a, x), pb = multiply_unit(b, x + UNIT_BYTES);

        sums[r] = kind == NVFP4 ? join_groups(pa, pb) : join_units(pa, pb);
    }
}

INLINE int units_joined(const int kind)
{
    return kind == NVFP4 ? 2 : FOUR;
}

/* Adds the products with n units, of the batch that begins with unit first, from data on. n is a
 * multiple of units_joined. */
INLINE void add_nibbles(__m256 *acc, float factors[MAX_SUMS][BATCH], const struct tile *t,
                        const uint8_t *const data[MAX_OUTPUTS], size_t first, int n, const int kind,
                        const int rows, const int outputs)
{
    const int step = units_joined(kind);

    for (int u = 0; u < n; u += step) {
#pragma GCC unroll 4
        for (int o = 0; o < outputs; o++) {
            const uint8_t *p = data[o] + (size_t)u * 32;
            __m256i ab[MAX_ROWS], cd[MAX_ROWS];

            _mm_prefetch((const char *)p + t->ahead, _MM_HINT_T0);
            multiply_two(ab, p, t, first + (size_t)u, kind, rows);
            if (step == FOUR) {
                _mm_prefetch((const char *)p + t->ahead + 64, _MM_HINT_T0);
                multiply_two(cd, p + 64, t, first + (size_t)u + 2, kind, rows);
            }
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++)
                add_scaled(&acc[o * rows + r], step == FOUR ? join_twos(ab[r], cd[r], kind) : ab[r],
                           joined_factors(factors[o * rows + r], u, t->group_size));
        }
    }
}

/* The last n groups of a row, fewer than a batch. What is read behind them meets zeros in x. */
INLINE void add_last_nibbles(__m256 *acc, float factors[MAX_SUMS][BATCH], const struct tile *t,
                             int g, int n, const int kind, const int rows, const int outputs)
{
    uint8_t copies[MAX_OUTPUTS][BATCH * 64];
    const uint8_t *data[MAX_OUTPUTS];
    const size_t step = (size_t)units_joined(kind) * 32;
    size_t size = (size_t)(n * t->group_size) / 2, read = (size + step - 1) / step * step;

    for (int o = 0; o < outputs; o++) {
        data[o] = t->data[o] + (size_t)(g * t->group_size) / 2;
        if ((size_t)(t->data_end - data[o]) < read) {
            memset(copies[o] + size, 0, read - size);
            data[o] = memcpy(copies[o], data[o], size);
        }
    }
    add_nibbles(acc, factors, t, data, (size_t)(g * t->group_size) / UNIT_BYTES, (int)(read / 32),
                kind, rows, outputs);
}

INLINE void multiply_tile(__m256 *acc, const struct tile *t, const int kind, const int rows,
                          const int outputs)
{
    const int units = BATCH * t->group_size / UNIT_BYTES; /* of a batch */
    float factors[MAX_SUMS][BATCH];
    int whole = t->n_groups / BATCH * BATCH, left = t->n_groups - whole;
    const uint8_t *data[MAX_OUTPUTS];

    for (int o = 0; o < outputs; o++)
        data[o] = t->data[o];
#pragma GCC unroll 8
    for (int i = 0; i < MAX_SUMS; i++)
        acc[i] = _mm256_setzero_ps();
    for (int g = 0; g < whole; g += BATCH) {
        expand_batch(acc, factors, t, g, BATCH, kind, rows, outputs);
        add_nibbles(acc, factors, t, data, (size_t)(g / BATCH * units), units, kind, rows, outputs);
        for (int o = 0; o < outputs; o++)
            data[o] += (size_t)units * 32;
    }
    if (left) {
        expand_batch(acc, factors, t, whole, left, kind, rows, outputs);
        add_last_nibbles(acc, factors, t, whole, left, kind, rows, outputs);
    }
}

MULTIPLY(multiply_mxfp4, MXFP4, 32)
MULTIPLY(multiply_nvfp4, NVFP4, 16)
MULTIPLY(multiply_4_32, 4, 32)
MULTIPLY(multiply_4_64, 4, 64)
MULTIPLY(multiply_4_128, 4, 128)
static void multiply_nibbles(const struct cpu_task *t, int begin, int end, void *scratch)
{
    (void)scratch;
    if (t->w->format == WEIGHT_MXFP4)
        multiply_mxfp4(t, begin, end);
    else if (t->w->format == WEIGHT_NVFP4)
        multiply_nvfp4(t, begin, end);
    else if (t->w->group_size == 32)
        multiply_4_32(t, begin, end);
    else if (t->w->group_size == 64)
        multiply_4_64(t, begin, end);
    else
        multiply_4_128(t, begin, end);
}

const struct cpu_product avx2_gemv_nibbles = {
    .name = "i8 rows, nibbles",
    .panel_cols = MAX_OUTPUTS,
    .strip_rows = 1,
    .strip_bytes = strip_bytes_i8,
    .prepare = prepare_nibbles,
    .multiply = multiply_nibbles,
};
