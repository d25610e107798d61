/* device/cpu/gemv_avx2.c: weights of 2, 3, 5, 6 and 8 bits by a few rows: x in 16 bits. */
#include "device/cpu/gemv_avx2.h"

static size_t strip_bytes_i16(int n_in, int group_size)
{
    return strip_size(n_in, group_size, 2);
}

static void prepare_i16(void *strip, const struct cpu_task *t, int first, int n)
{
    (void)n;
    prepare(strip, cpu_task_x(t, first), t->w->n_in, t->w->group_size, 2);
}

/* Of code j of 8 that lie end to end from byte `start` on: the bytes that it is in, what brings it
 * to the top of 16 bits. */
#define FIRST(j, bits) (j) * (bits) / 8
#define OFFSET(j, bits) (j) * (bits) % 8
#define IN(start, j, bits)                                                                         \
    (char)((start) + FIRST(j, bits)),                                                              \
        (char)(OFFSET(j, bits) + (bits) > 8 ? (start) + FIRST(j, bits) + 1 : -1)
#define BYTES(start, bits)                                                                         \
    IN(start, 0, bits), IN(start, 1, bits), IN(start, 2, bits), IN(start, 3, bits),                \
        IN(start, 4, bits), IN(start, 5, bits), IN(start, 6, bits), IN(start, 7, bits)
#define UP(j, bits) (short)(1 << (16 - (bits)-OFFSET(j, bits)))

/* 16 codes that begin with byte `start` of `bytes`, the same 16 in both halves. */
INLINE __m256i codes16(__m256i bytes, const int start, const int bits)
{
    const __m256i at = _mm256_setr_epi8(BYTES(start, bits), BYTES(start + bits, bits));
    const __m256i up = _mm256_broadcastsi128_si256(
        _mm_setr_epi16(UP(0, bits), UP(1, bits), UP(2, bits), UP(3, bits), UP(4, bits), UP(5, bits),
                       UP(6, bits), UP(7, bits)));

    return _mm256_srli_epi16(_mm256_mullo_epi16(_mm256_shuffle_epi8(bytes, at), up), 16 - bits);
}

/* What meets a unit: 32 codes. Those of the second half are read from a few bytes before them, so
 * that none beyond the last is touched. */
INLINE struct codes load_codes(const uint8_t *p, const int kind)
{
    const int before = kind == 6 ? 4 : kind == 5 ? 6 : kind == 3 ? 2 : 0;
    const uint8_t *second = p + 2 * kind - before;

    if (kind == 8)
        return (struct codes){_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)p)),
                              _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(p + 16)))};
    if (kind == 2) {
        __m256i all = _mm256_broadcastq_epi64(_mm_loadl_epi64((const __m128i *)p));

        return (struct codes){codes16(all, 0, 2), codes16(all, 4, 2)};
    }
    if (kind == 3)
        return (struct codes){
            codes16(_mm256_broadcastq_epi64(_mm_loadl_epi64((const __m128i *)p)), 0, 3),
            codes16(_mm256_broadcastq_epi64(_mm_loadl_epi64((const __m128i *)second)), before, 3)};
    return (struct codes){
        codes16(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)p)), 0, kind),
        codes16(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)second)), before,
                kind)};
}

/* Sums of the products with a unit, of 4 neighbours each. */
INLINE __m256i multiply_unit(struct codes c, const uint8_t *unit)
{
    __m256i a = _mm256_load_si256((const __m256i *)unit);
    __m256i b = _mm256_load_si256((const __m256i *)(unit + 32));

    return _mm256_add_epi32(_mm256_madd_epi16(c.first, a), _mm256_madd_epi16(c.second, b));
}

/* Adds the products with the n groups of a batch that begins with group first. */
INLINE void add_groups(__m256 *acc, float factors[MAX_SUMS][BATCH], const struct tile *t, int first,
                       int n, const int kind, const int rows, const int outputs)
{
    const int units = t->group_size / 32;

    for (int g = 0; g < n; g++) {
#pragma GCC unroll 4
        for (int o = 0; o < outputs; o++) {
            size_t at = (size_t)(first + g) * (size_t)units;
            const uint8_t *p = t->data[o] + at * (size_t)(kind * 4);
            __m256i sums[MAX_ROWS];

#pragma GCC unroll 4
            for (int r = 0; r < rows; r++)
                sums[r] = _mm256_setzero_si256();
            for (int u = 0; u < units; u++, at++, p += kind * 4) {
                struct codes c = load_codes(p, kind);

                if (u % 2 == 0)
                    _mm_prefetch((const char *)p + t->ahead, _MM_HINT_T0);
#pragma GCC unroll 4
                for (int r = 0; r < rows; r++) {
                    __m256i products = multiply_unit(c, t->x[r].units + at * UNIT_BYTES);

                    sums[r] = _mm256_add_epi32(sums[r], products);
                }
            }
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++)
                add_scaled(&acc[o * rows + r], sums[r],
                           _mm256_broadcast_ss(&factors[o * rows + r][g]));
        }
    }
}

INLINE void multiply_tile(__m256 *acc, const struct tile *t, const int kind, const int rows,
                          const int outputs)
{
    float factors[MAX_SUMS][BATCH];
    int whole = t->n_groups / BATCH * BATCH, left = t->n_groups - whole;

#pragma GCC unroll 8
    for (int i = 0; i < MAX_SUMS; i++)
        acc[i] = _mm256_setzero_ps();
    for (int g = 0; g < whole; g += BATCH) {
        expand_batch(acc, factors, t, g, BATCH, kind, rows, outputs);
        add_groups(acc, factors, t, g, BATCH, kind, rows, outputs);
    }
    if (left) {
        expand_batch(acc, factors, t, whole, left, kind, rows, outputs);
        add_groups(acc, factors, t, whole, left, kind, rows, outputs);
    }
}

MULTIPLY(multiply_2, 2, t->w->group_size)
MULTIPLY(multiply_3, 3, t->w->group_size)
MULTIPLY(multiply_5, 5, t->w->group_size)
MULTIPLY(multiply_6, 6, t->w->group_size)
MULTIPLY(multiply_8_32, 8, 32)
MULTIPLY(multiply_8_64, 8, 64)
MULTIPLY(multiply_8_128, 8, 128)

static void multiply(const struct cpu_task *t, int begin, int end, void *scratch)
{
    (void)scratch;
    switch (t->w->bits) {
    case 2:
        multiply_2(t, begin, end);
        break;
    case 3:
        multiply_3(t, begin, end);
        break;
    case 5:
        multiply_5(t, begin, end);
        break;
    case 6:
        multiply_6(t, begin, end);
        break;
    default:
        if (t->w->group_size == 32)
            multiply_8_32(t, begin, end);
        else if (t->w->group_size == 64)
            multiply_8_64(t, begin, end);
        else
            multiply_8_128(t, begin, end);
        break;
    }
}

const struct cpu_product avx2_gemv = {
    .name = "i16 rows",
    .panel_cols = MAX_OUTPUTS,
    .strip_rows = 1,
    .strip_bytes = strip_bytes_i16,
    .prepare = prepare_i16,
    .multiply = multiply,
};
