/* device/cpu/gemv_avx2.c: integer weights by a few rows: each weight is read once, at memory's
 * speed.
 *
 *     sum_i x_i (q_i scale + bias) = sum_groups scale step sum_i q_i xq_i + bias step sum_i xq_i
 *
 * x is rounded to xq with a step per group of the weights: to 8 bits for weights of 4, whose
 * products can be added in 16 bits, and to 16 bits for all others. 64 bytes of xq are a unit: 32
 * numbers of 16 bits, or 64 of 8, those at even places first: as nibbles come out of 32 bytes.
 * Prepared, a row of x is its units, then the steps and the sums, f32 [n_groups rounded up to 8]
 * each.
 *
 * Outputs far apart from each other are treated side by side: memory gives more when several pages
 * are read at a time than one after another (36 GB/s and not 23, to two threads of Zen 3).
 */
#include "device/cpu/matmul_avx2.h"

#define UNIT_BYTES 64
#define BATCH 8 /* groups whose scales are expanded at a time */
#define MAX_ROWS 4
#define MAX_OUTPUTS 4
#define MAX_SUMS 8   /* of outputs by rows, in registers */
#define E2M1_ZERO 12 /* the code of 0, when e2m1 values are doubled and made positive */

/* What integers a format holds; 2 to 8: affine of so many bits. */
enum { MXFP4 = 16, NVFP4 };

INLINE bool are_nibbles(const int kind)
{
    return kind == 4 || kind >= MXFP4;
}

/* Numbers in a unit. */
INLINE int unit_of(const int kind)
{
    return are_nibbles(kind) ? UNIT_BYTES : UNIT_BYTES / 2;
}

/* --- x
 * ------------------------------------------------------------------------------------------------
 */

/* A prepared row. */
struct prepared {
    uint8_t *units;
    float *steps, *sums;
};

static size_t units_size(int n_in, size_t number_size)
{
    return ((size_t)n_in * number_size + UNIT_BYTES - 1) / UNIT_BYTES * UNIT_BYTES;
}

static size_t padded_groups(int n_in, int group_size)
{
    return (size_t)(n_in / group_size + BATCH - 1) / BATCH * BATCH;
}

static size_t strip_size(int n_in, int group_size, size_t number_size)
{
    size_t size =
        units_size(n_in, number_size) + 2 * sizeof(float) * padded_groups(n_in, group_size);

    return (size + 63) & ~(size_t)63;
}

INLINE struct prepared prepared_row(const void *strips, int row, int n_in, int group_size,
                                    const size_t number_size)
{
    uint8_t *units =
        (uint8_t *)(uintptr_t)strips + (size_t)row * strip_size(n_in, group_size, number_size);
    float *steps = (float *)(void *)(units + units_size(n_in, number_size));

    return (struct prepared){units, steps, steps + padded_groups(n_in, group_size)};
}

static size_t strip_bytes_i8(int n_in, int group_size)
{
    return strip_size(n_in, group_size, 1);
}

static size_t strip_bytes_i16(int n_in, int group_size)
{
    return strip_size(n_in, group_size, 2);
}

INLINE void prepare(void *strip, const float *x, int n_in, int group_size, const size_t number_size)
{
    struct prepared p = prepared_row(strip, 0, n_in, group_size, number_size);
    size_t used = (size_t)n_in * number_size, n_groups = (size_t)(n_in / group_size);

    for (size_t g = 0; g < n_groups; g++, x += group_size) {
        uint8_t *to = p.units + g * (size_t)group_size * number_size;

        p.sums[g] = number_size == 1
                        ? avx2_quantise_i8((int8_t *)to, x, group_size, p.steps + g)
                        : avx2_quantise_i16((int16_t *)(void *)to, x, group_size, p.steps + g);
    }
    memset(p.units + used, 0, units_size(n_in, number_size) - used);
    for (size_t g = n_groups; g < padded_groups(n_in, group_size); g++)
        p.steps[g] = p.sums[g] = 0;
}

static void prepare_i16(void *strip, const struct cpu_task *t, int first, int n)
{
    (void)n;
    prepare(strip, cpu_task_x(t, first), t->w->n_in, t->w->group_size, 2);
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

/* --- weights
 * ------------------------------------------------------------------------------------------------
 */

/* What meets the two halves of a unit: bytes, or numbers of 16 bits. */
struct codes {
    __m256i first, second;
};

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

INLINE struct codes load_codes(const uint8_t *p, const int kind)
{
    if (are_nibbles(kind))
        return split_nibbles(_mm256_loadu_si256((const __m256i *)p), kind);
    if (kind == 8)
        return (struct codes){_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)p)),
                              _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(p + 16)))};
    __m256i v = codes32(p, kind);

    return (struct codes){_mm256_cvtepu8_epi16(_mm256_castsi256_si128(v)),
                          _mm256_cvtepu8_epi16(_mm256_extracti128_si256(v, 1))};
}

/* The last n numbers of a row, less than a unit. */
INLINE struct codes load_last_nibbles(const uint8_t *p, int n, const int kind)
{
    uint8_t last[32] = {0};

    memcpy(last, p, (size_t)n / 2);
    return split_nibbles(_mm256_loadu_si256((const __m256i *)last), kind);
}

/* Sums of the products with a unit, in each lane of neighbours: of 8 numbers for nibbles. */
INLINE __m256i multiply_unit(struct codes c, const uint8_t *unit, const int kind)
{
    __m256i a = _mm256_load_si256((const __m256i *)unit);
    __m256i b = _mm256_load_si256((const __m256i *)(unit + 32));

    if (!are_nibbles(kind))
        return _mm256_add_epi32(_mm256_madd_epi16(c.first, a), _mm256_madd_epi16(c.second, b));
    a = _mm256_add_epi16(_mm256_maddubs_epi16(c.first, a), _mm256_maddubs_epi16(c.second, b));
    return _mm256_madd_epi16(a, _mm256_set1_epi16(1));
}

/* Of a batch of factors, one per group, those for the lanes of a unit. */
INLINE __m256 lane_factors(const float *factors, int unit, const int kind, int group_size)
{
    const float *f = factors + (unit * unit_of(kind) >> __builtin_ctz((unsigned)group_size));

    if (group_size >= unit_of(kind))
        return _mm256_broadcast_ss(f);
    if (group_size == 16)
        return _mm256_permutevar_ps(_mm256_broadcast_ps((const __m128 *)(const void *)f),
                                    _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
    return _mm256_permutevar_ps(
        _mm256_castsi256_ps(_mm256_broadcastq_epi64(_mm_loadl_epi64((const __m128i *)f))),
        _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1));
}

/* Known when compiled, as the type is. */
INLINE size_t scale_size(const enum dtype type)
{
    return type == DTYPE_F32 ? 4 : type == DTYPE_F16 || type == DTYPE_BF16 ? 2 : 1;
}

/* n <= BATCH scales, zeros behind them. Those of the row below are read too, if there is one before
 * the end of all. */
INLINE __m256 load_scales(const uint8_t *p, const uint8_t *end, const enum dtype type, int n)
{
    const size_t size = scale_size(type);
    uint8_t last[BATCH * 4] = {0};

    if (n == BATCH)
        return avx2_load8(p, type);
    if ((size_t)(end - p) < BATCH * size) {
        memcpy(last, p, (size_t)n * size);
        p = last;
    }
    return _mm256_and_ps(avx2_load8(p, type), _mm256_castsi256_ps(first_lanes(n)));
}

/* --- products
 * ------------------------------------------------------------------------------------------------
 */

/* What is multiplied: some rows by some outputs, whose weights are read side by side. */
struct tile {
    struct prepared x[MAX_ROWS];
    const uint8_t *data[MAX_OUTPUTS], *scales[MAX_OUTPUTS], *biases[MAX_OUTPUTS];
    const uint8_t *scales_end, *biases_end; /* of the whole matrix */
    enum dtype scale_type;
    int n_in, n_groups, group_size;
};

/* factors = scale step, acc += bias step sum, for the n groups of a batch from g on. */
INLINE void expand_scales(__m256 *acc, float factors[MAX_SUMS][BATCH], const struct tile *t, int g,
                          int n, const enum dtype type, const int kind, const int rows,
                          const int outputs)
{
    size_t at = (size_t)g * scale_size(type);

#pragma GCC unroll 4
    for (int o = 0; o < outputs; o++) {
        __m256 scale = load_scales(t->scales[o] + at, t->scales_end, type, n), bias;

        if (kind >= MXFP4) {
            scale = _mm256_mul_ps(scale, _mm256_set1_ps(0.5f));
            bias = _mm256_mul_ps(scale, _mm256_set1_ps(-E2M1_ZERO));
        } else {
            bias = load_scales(t->biases[o] + at, t->biases_end, type, n);
        }
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            __m256 *sum = &acc[o * rows + r];

            _mm256_storeu_ps(factors[o * rows + r],
                             _mm256_mul_ps(scale, _mm256_loadu_ps(t->x[r].steps + g)));
            *sum = _mm256_fmadd_ps(bias, _mm256_loadu_ps(t->x[r].sums + g), *sum);
        }
    }
}

INLINE void expand_batch(__m256 *acc, float factors[MAX_SUMS][BATCH], const struct tile *t, int g,
                         int n, const int kind, const int rows, const int outputs)
{
    if (kind == MXFP4)
        expand_scales(acc, factors, t, g, n, DTYPE_F8_E8M0, kind, rows, outputs);
    else if (kind == NVFP4)
        expand_scales(acc, factors, t, g, n, DTYPE_F8_E4M3, kind, rows, outputs);
    else if (t->scale_type == DTYPE_BF16)
        expand_scales(acc, factors, t, g, n, DTYPE_BF16, kind, rows, outputs);
    else if (t->scale_type == DTYPE_F16)
        expand_scales(acc, factors, t, g, n, DTYPE_F16, kind, rows, outputs);
    else
        expand_scales(acc, factors, t, g, n, DTYPE_F32, kind, rows, outputs);
}

/* Adds the products with unit number unit of the batch that begins with group g; n: the numbers
 * that are left of the row, if that is not a whole unit. */
INLINE void add_unit(__m256 *acc, float factors[MAX_SUMS][BATCH], const struct tile *t, int g,
                     int unit, int n, const int kind, const int rows, const int outputs)
{
    size_t at = (size_t)(g * t->group_size / unit_of(kind) + unit);

#pragma GCC unroll 4
    for (int o = 0; o < outputs; o++) {
        const uint8_t *p = t->data[o] + at * (size_t)(are_nibbles(kind) ? 32 : kind * 4);
        struct codes c = n ? load_last_nibbles(p, n, kind) : load_codes(p, kind);

#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            __m256i products = multiply_unit(c, t->x[r].units + at * UNIT_BYTES, kind);
            __m256 *sum = &acc[o * rows + r];

            *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products),
                                   lane_factors(factors[o * rows + r], unit, kind, t->group_size),
                                   *sum);
        }
    }
}

/* acc[o rows + r] = what sums up to the product of row r and output o. */
INLINE void multiply_tile(__m256 *acc, const struct tile *t, const int kind, const int rows,
                          const int outputs)
{
    const int unit = unit_of(kind);
    float factors[MAX_SUMS][BATCH];
    int last = 0; /* batch */

#pragma GCC unroll 8
    for (int i = 0; i < MAX_SUMS; i++)
        acc[i] = _mm256_setzero_ps();
    for (int g = 0; g < t->n_groups; g += BATCH) {
        int n = t->n_groups - g < BATCH ? t->n_groups - g : BATCH;

        expand_batch(acc, factors, t, g, n, kind, rows, outputs);
        for (int u = 0; u < n * t->group_size / unit; u++)
            add_unit(acc, factors, t, g, u, 0, kind, rows, outputs);
        last = g;
    }
    if (t->n_in % unit)
        add_unit(acc, factors, t, last, t->n_in / unit - last * t->group_size / unit,
                 t->n_in % unit, kind, rows, outputs);
}

/* Rows [first, first + rows) at outputs [begin, end): one after another of a part of them, with
 * those that lie as far behind the begin of the other parts. */
INLINE void multiply_rows(const struct cpu_task *task, int begin, int end, int first,
                          const int kind, const int rows, const int outputs, int group_size)
{
    const struct weight *w = task->w;
    size_t row_bytes = weight_row_bytes(w), scale_bytes = weight_scale_row_bytes(w);
    size_t all_scales = (size_t)w->n_out * scale_bytes;
    int part = (end - begin + outputs - 1) / outputs, row[MAX_ROWS];
    struct tile t = {
        .scales_end = (const uint8_t *)w->scales + all_scales,
        .biases_end = kind < MXFP4 ? (const uint8_t *)w->biases + all_scales : NULL,
        .scale_type = w->scale_type,
        .n_in = w->n_in,
        .n_groups = w->n_in / group_size,
        .group_size = group_size,
    };

    for (int r = 0; r < rows; r++) {
        row[r] = first + r < task->n_rows ? first + r : task->n_rows - 1;
        t.x[r] =
            prepared_row(task->prepared, row[r], w->n_in, group_size, are_nibbles(kind) ? 1 : 2);
    }
    for (int i = begin; i < begin + part; i++) {
        __m256 acc[MAX_SUMS];
        float sums[MAX_SUMS];
        int at[MAX_OUTPUTS];

        for (int o = 0; o < outputs; o++) {
            at[o] = i + o * part < end ? i + o * part : end - 1; /* the last one more than once */
            t.data[o] = (const uint8_t *)w->data + (size_t)at[o] * row_bytes;
            t.scales[o] = (const uint8_t *)w->scales + (size_t)at[o] * scale_bytes;
            if (kind < MXFP4)
                t.biases[o] = (const uint8_t *)w->biases + (size_t)at[o] * scale_bytes;
        }
        multiply_tile(acc, &t, kind, rows, outputs);
        for (int s = 0; s < outputs * rows; s += 4)
            _mm_storeu_ps(sums + s, sums4(acc[s], acc[s + 1], acc[s + 2], acc[s + 3]));
        for (int o = 0; o < outputs; o++)
            for (int r = 0; r < rows; r++)
                cpu_task_y(task, row[r])[at[o]] =
                    sums[o * rows + r] + (task->bias ? task->bias[at[o]] : 0);
    }
}

/* Three rows as four, the last of them twice. */
INLINE void multiply_kind(const struct cpu_task *t, int begin, int end, const int kind,
                          int group_size)
{
    for (int first = 0; first < t->n_rows; first += MAX_ROWS)
        switch (t->n_rows - first) {
        case 1:
            multiply_rows(t, begin, end, first, kind, 1, 4, group_size);
            break;
        case 2:
            multiply_rows(t, begin, end, first, kind, 2, 4, group_size);
            break;
        default:
            multiply_rows(t, begin, end, first, kind, 4, 2, group_size);
            break;
        }
}

/* A function for each format: compilers do not keep sums in registers where there are more copies
 * of the loops in one. */
#define MULTIPLY(name, kind, group_size)                                                           \
    static __attribute__((noinline)) void name(const struct cpu_task *t, int begin, int end)       \
    {                                                                                              \
        multiply_kind(t, begin, end, kind, group_size);                                            \
    }

MULTIPLY(multiply_mxfp4, MXFP4, 32)
MULTIPLY(multiply_nvfp4, NVFP4, 16)
MULTIPLY(multiply_4_32, 4, 32)
MULTIPLY(multiply_4_64, 4, 64)
MULTIPLY(multiply_4_128, 4, 128)
MULTIPLY(multiply_2, 2, t->w->group_size)
MULTIPLY(multiply_3, 3, t->w->group_size)
MULTIPLY(multiply_5, 5, t->w->group_size)
MULTIPLY(multiply_6, 6, t->w->group_size)
MULTIPLY(multiply_8, 8, t->w->group_size)

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
        multiply_8(t, begin, end);
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

const struct cpu_product avx2_gemv_nibbles = {
    .name = "i8 rows, nibbles",
    .panel_cols = MAX_OUTPUTS,
    .strip_rows = 1,
    .strip_bytes = strip_bytes_i8,
    .prepare = prepare_nibbles,
    .multiply = multiply_nibbles,
};
