/* device/cpu/gemv_avx2.c: integer weights by a few rows: each weight is read once, at memory's
 * speed.
 *
 * x is rounded to 16 bits with a step per group of the weights, so that nothing worth mentioning is
 * lost:
 *
 *     sum_i x_i (q_i scale + bias) = sum_groups scale step sum_i q_i xq_i + bias step sum_i xq_i
 *
 * Prepared, a row is: i16 [n_in], then the steps and the sums, f32 [n_groups rounded up to 8] each.
 */
#include "device/cpu/matmul_avx2.h"

#define CHUNK 2048 /* numbers whose scales are expanded at a time */
#define MAX_GROUPS (CHUNK / 16)
#define MAX_ROWS 4
#define AHEAD 1024 /* bytes that weights are asked for ahead of their use */

/* What integers a format holds; 2 to 8: affine of so many bits. */
enum { MXFP4 = 16, NVFP4 };

static int padded_groups(int n_in, int group_size)
{
    return (n_in / group_size + 7) & ~7;
}

static size_t strip_bytes(int n_in, int group_size)
{
    size_t size = 2 * (size_t)n_in + 2 * sizeof(float) * (size_t)padded_groups(n_in, group_size);

    return (size + 63) & ~(size_t)63;
}

/* Of every 32 numbers those at even places, then those at odd ones: as the nibbles of 16 bytes come
 * out. */
static void order_as_nibbles(int16_t *q, int n)
{
    const __m256i even_first =
        _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0, 1, 4, 5, 8, 9, 12,
                         13, 2, 3, 6, 7, 10, 11, 14, 15);

    for (int i = 0; i < n; i += 32) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(q + i));
        __m256i b = _mm256_loadu_si256((const __m256i *)(q + i + 16));

        a = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(a, even_first), _MM_SHUFFLE(3, 1, 2, 0));
        b = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(b, even_first), _MM_SHUFFLE(3, 1, 2, 0));
        _mm256_storeu_si256((__m256i *)(q + i), _mm256_permute2x128_si256(a, b, 0x20));
        _mm256_storeu_si256((__m256i *)(q + i + 16), _mm256_permute2x128_si256(a, b, 0x31));
    }
}

static void prepare_row(void *strip, const float *x, int n_in, int group_size)
{
    int n_groups = n_in / group_size, padded = padded_groups(n_in, group_size);
    int16_t *q = strip;
    float *steps = (float *)(void *)(q + n_in), *sums = steps + padded;

    for (int g = 0; g < n_groups; g++)
        sums[g] = avx2_quantise_i16(q + g * group_size, x + g * group_size, group_size, steps + g);
    for (int g = n_groups; g < padded; g++)
        steps[g] = sums[g] = 0;
}

static void prepare(void *strip, const struct cpu_task *t, int first, int n)
{
    (void)n;
    prepare_row(strip, cpu_task_x(t, first), t->w->n_in, t->w->group_size);
}

static void prepare_nibbles(void *strip, const struct cpu_task *t, int first, int n)
{
    prepare(strip, t, first, n);
    order_as_nibbles(strip, t->w->n_in);
}

struct codes {
    __m256i low, high;
};

/* 32 values as i16. */
INLINE struct codes load_codes(const uint8_t *p, const int kind)
{
    const __m256i nibble = _mm256_set1_epi16(0x0F);

    if (kind == 4) {
        __m256i v = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)p));

        return (struct codes){_mm256_and_si256(v, nibble), _mm256_srli_epi16(v, 4)};
    }
    if (kind == 8)
        return (struct codes){_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)p)),
                              _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(p + 16)))};
    if (kind == MXFP4) {
        __m128i v = _mm_loadu_si128((const __m128i *)p);
        __m256i both =
            _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(v, 4), v), _mm256_set1_epi8(0x0F));

        both = e2m1_doubled(both);
        return (struct codes){_mm256_cvtepi8_epi16(_mm256_castsi256_si128(both)),
                              _mm256_cvtepi8_epi16(_mm256_extracti128_si256(both, 1))};
    }
    __m256i v = codes32(p, kind);

    return (struct codes){_mm256_cvtepu8_epi16(_mm256_castsi256_si128(v)),
                          _mm256_cvtepu8_epi16(_mm256_extracti128_si256(v, 1))};
}

/* 16 values of nvfp4 as i16, doubled. */
INLINE __m256i load_nvfp4(const uint8_t *p)
{
    __m128i v = _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)p));

    v = _mm_and_si128(_mm_or_si128(v, _mm_slli_epi16(v, 4)), _mm_set1_epi8(0x0F));
    return _mm256_cvtepi8_epi16(_mm256_castsi256_si128(e2m1_doubled(_mm256_castsi128_si256(v))));
}

INLINE __m256i load_x(const int16_t *x)
{
    return _mm256_loadu_si256((const __m256i *)x);
}

/* What the rows make of a piece of weights: a group, times the scales of that. */
INLINE void add_group(__m256 acc[MAX_ROWS], const uint8_t *p, const int16_t *const x[MAX_ROWS],
                      int at, float *const factors[MAX_ROWS], int g, const int kind, const int rows,
                      int group_size)
{
    __m256i sums[MAX_ROWS];

    for (int i = 0; i < group_size; i += kind == NVFP4 ? 16 : 32) {
        struct codes c;

        if (kind == NVFP4)
            c.low = load_nvfp4(p);
        else
            c = load_codes(p + i / 8 * (kind == MXFP4 ? 4 : kind), kind);
        for (int r = 0; r < rows; r++) {
            __m256i products = _mm256_madd_epi16(c.low, load_x(x[r] + at + i));

            if (kind != NVFP4)
                products = _mm256_add_epi32(products,
                                            _mm256_madd_epi16(c.high, load_x(x[r] + at + i + 16)));
            sums[r] = i == 0 ? products : _mm256_add_epi32(sums[r], products);
        }
    }
    for (int r = 0; r < rows; r++)
        acc[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[r]), _mm256_broadcast_ss(factors[r] + g),
                                 acc[r]);
}

/* factors = scale * step, and acc += bias * sum, for the groups of a chunk. */
INLINE void expand_groups(__m256 acc[MAX_ROWS], float *const factors[MAX_ROWS],
                          const float *const steps[MAX_ROWS], const float *const sums[MAX_ROWS],
                          const struct weight *w, int o, int k, int n_groups, const int kind,
                          const int rows)
{
    float scales[MAX_GROUPS + 8];
    const __m256 unit = _mm256_set1_ps(kind >= MXFP4 ? 0.5f : 1); /* e2m1 values were doubled */
    int first = k / w->group_size;

    avx2_scales(scales, weight_scale(w, w->scales, o, k), avx2_scale_type(w), n_groups);
    for (int g = 0; g < n_groups; g += 8) {
        __m256 s = _mm256_mul_ps(_mm256_loadu_ps(scales + g), unit);

        for (int r = 0; r < rows; r++)
            _mm256_storeu_ps(factors[r] + g,
                             _mm256_mul_ps(s, _mm256_loadu_ps(steps[r] + first + g)));
    }
    if (kind >= MXFP4)
        return;
    avx2_scales(scales, weight_scale(w, w->biases, o, k), w->scale_type, n_groups);
    for (int g = 0; g < n_groups; g += 8)
        for (int r = 0; r < rows; r++)
            acc[r] = _mm256_fmadd_ps(_mm256_loadu_ps(scales + g),
                                     _mm256_loadu_ps(sums[r] + first + g), acc[r]);
}

/* acc[r] = what sums up to output o of row r. */
INLINE void multiply_output(__m256 acc[MAX_ROWS], const struct weight *w, int o,
                            const uint8_t *prepared, const int kind, const int rows,
                            const int group_size)
{
    size_t strip = strip_bytes(w->n_in, group_size);
    const int bits = kind >= MXFP4 ? 4 : kind;
    const uint8_t *p = weight_data(w, o);
    float memory[MAX_ROWS][MAX_GROUPS + 8];
    const int16_t *x[MAX_ROWS];
    const float *steps[MAX_ROWS], *sums[MAX_ROWS];
    float *factors[MAX_ROWS];

    for (int r = 0; r < rows; r++) {
        x[r] = (const int16_t *)(const void *)(prepared + (size_t)r * strip);
        steps[r] = (const float *)(const void *)(x[r] + w->n_in);
        sums[r] = steps[r] + padded_groups(w->n_in, group_size);
        factors[r] = memory[r];
        acc[r] = _mm256_setzero_ps();
    }
    for (int k = 0; k < w->n_in; k += CHUNK) {
        int n_groups = (w->n_in - k < CHUNK ? w->n_in - k : CHUNK) / group_size;

        expand_groups(acc, factors, steps, sums, w, o, k, n_groups, kind, rows);
        for (int g = 0; g < n_groups; g++, p += group_size / 8 * bits) {
            _mm_prefetch((const char *)p + AHEAD, _MM_HINT_T0);
            if (group_size / 8 * bits > 64)
                _mm_prefetch((const char *)p + AHEAD + 64, _MM_HINT_T0);
            add_group(acc, p, x, k + g * group_size, factors, g, kind, rows, group_size);
        }
    }
}

/* rows rows of the task from the first on, at outputs [begin, end). */
INLINE void multiply_rows(const struct cpu_task *t, int begin, int end, int first, const int kind,
                          const int rows, const int group_size)
{
    const uint8_t *prepared =
        (const uint8_t *)t->prepared + (size_t)first * strip_bytes(t->w->n_in, group_size);
    __m256 acc[MAX_ROWS];
    float sums[4];

    for (int r = 0; r < MAX_ROWS; r++)
        acc[r] = _mm256_setzero_ps();
    for (int o = begin; o < end; o++) {
        multiply_output(acc, t->w, o, prepared, kind, rows, group_size);
        _mm_storeu_ps(sums, sums4(acc[0], acc[1], acc[2], acc[3]));
        for (int r = 0; r < rows; r++)
            cpu_task_y(t, first + r)[o] = sums[r] + (t->bias ? t->bias[o] : 0);
    }
}

INLINE void multiply_groups(const struct cpu_task *t, int begin, int end, const int kind,
                            const int group_size)
{
    for (int first = 0; first < t->n_rows; first += MAX_ROWS)
        switch (t->n_rows - first) {
        case 1:
            multiply_rows(t, begin, end, first, kind, 1, group_size);
            break;
        case 2:
            multiply_rows(t, begin, end, first, kind, 2, group_size);
            break;
        case 3:
            multiply_rows(t, begin, end, first, kind, 3, group_size);
            break;
        default:
            multiply_rows(t, begin, end, first, kind, 4, group_size);
            break;
        }
}

/* One copy of the code per format and size of group: all loops in it have constant bounds. */
INLINE void multiply_kind(const struct cpu_task *t, int begin, int end, const int kind)
{
    if (t->w->group_size == 32)
        multiply_groups(t, begin, end, kind, 32);
    else if (t->w->group_size == 64)
        multiply_groups(t, begin, end, kind, 64);
    else
        multiply_groups(t, begin, end, kind, 128);
}

static void multiply_nibbles(const struct cpu_task *t, int begin, int end, void *scratch)
{
    (void)scratch;
    if (t->w->format == WEIGHT_MXFP4)
        multiply_groups(t, begin, end, MXFP4, 32);
    else
        multiply_kind(t, begin, end, 4);
}

static void multiply(const struct cpu_task *t, int begin, int end, void *scratch)
{
    (void)scratch;
    if (t->w->format == WEIGHT_NVFP4) {
        multiply_groups(t, begin, end, NVFP4, 16);
        return;
    }
    switch (t->w->bits) {
    case 2:
        multiply_kind(t, begin, end, 2);
        break;
    case 3:
        multiply_kind(t, begin, end, 3);
        break;
    case 5:
        multiply_kind(t, begin, end, 5);
        break;
    case 6:
        multiply_kind(t, begin, end, 6);
        break;
    default:
        multiply_kind(t, begin, end, 8);
        break;
    }
}

const struct cpu_product avx2_gemv = {
    .name = "i16 rows",
    .panel_cols = 1,
    .strip_rows = 1,
    .strip_bytes = strip_bytes,
    .prepare = prepare,
    .multiply = multiply,
};

const struct cpu_product avx2_gemv_nibbles = {
    .name = "i16 rows, nibbles",
    .panel_cols = 1,
    .strip_rows = 1,
    .strip_bytes = strip_bytes,
    .prepare = prepare_nibbles,
    .multiply = multiply_nibbles,
};
