/* device/cpu/gemv_avx2.h: integer weights by a few rows: each weight is read once, at memory's
 * speed.
 *
 *     sum_i x_i (q_i scale + bias) = sum_groups scale step sum_i q_i xq_i + bias step sum_i xq_i
 *
 * x is rounded to xq with a step per group of the weights: to 8 bits for weights of 4, whose
 * products can be added in 16 bits (gemv_nibbles_avx2.c), and to 16 bits for all others
 * (gemv_avx2.c). 64 bytes of xq are a unit. Prepared, a row of x is its units, then the steps and
 * the sums, f32 [n_groups rounded up to 8] each.
 *
 * Outputs far apart from each other are treated side by side: memory gives more when several pages
 * are read at a time than one after another (36 GB/s and not 23, to two threads of Zen 3). What
 * comes some bytes later is called for: 5 % more than the processor does by itself.
 */
#ifndef DEVICE_CPU_GEMV_AVX2_H
#define DEVICE_CPU_GEMV_AVX2_H

#include "device/cpu/matmul_avx2.h"

#define UNIT_BYTES 64
#define BATCH 8            /* groups whose scales are expanded at a time */
#define FOUR 4             /* units of nibbles that are scaled at a time */
#define CACHED (128 << 10) /* bytes of weights */
#define MAX_ROWS 4
#define MAX_OUTPUTS 4
#define MAX_SUMS 8 /* of outputs by rows, in registers */

/* What integers a format holds; 2 to 8: affine of so many bits. */
enum { MXFP4 = 16, NVFP4 };

INLINE bool are_nibbles(const int kind)
{
    return kind == 4 || kind >= MXFP4;
}

/* A prepared row. */
struct prepared {
    uint8_t *units;
    float *steps, *sums;
};

/* Zeros up to a multiple of four units. */
INLINE size_t units_size(int n_in, size_t number_size)
{
    const size_t four = FOUR * UNIT_BYTES;

    return ((size_t)n_in * number_size + four - 1) / four * four;
}

INLINE size_t padded_groups(int n_in, int group_size)
{
    return (size_t)(n_in / group_size + BATCH - 1) / BATCH * BATCH;
}

INLINE size_t strip_size(int n_in, int group_size, size_t number_size)
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

/* What meets the two halves of a unit: bytes, or numbers of 16 bits. */
struct codes {
    __m256i first, second;
};

INLINE void add_scaled(__m256 *sum, __m256i products, __m256 factors)
{
    *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products), factors, *sum);
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

/* What is multiplied: some rows by some outputs, whose weights are read side by side. */
struct tile {
    struct prepared x[MAX_ROWS];
    const uint8_t *data[MAX_OUTPUTS], *scales[MAX_OUTPUTS], *biases[MAX_OUTPUTS];
    const uint8_t *data_end, *scales_end, *biases_end; /* of the whole matrix */
    enum dtype scale_type;
    int n_in, n_groups, group_size;
    int ahead; /* bytes to what is called for */
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

/* acc[o rows + r] = what sums up to the product of row r and output o. */
typedef void (*tile_fn)(__m256 *acc, const struct tile *t, int kind, int rows, int outputs);

/* Rows [first, first + rows) at outputs [begin, end): one after another of a part of them, with
 * those that lie as far behind the begin of the other parts. */
INLINE void multiply_rows(const struct cpu_task *task, int begin, int end, int first,
                          const int kind, const int rows, const int outputs, int group_size,
                          tile_fn multiply_tile)
{
    const struct weight *w = task->w;
    size_t row_bytes = weight_row_bytes(w), scale_bytes = weight_scale_row_bytes(w);
    size_t all_scales = (size_t)w->n_out * scale_bytes;
    int part = (end - begin + outputs - 1) / outputs, row[MAX_ROWS];
    struct tile t = {
        .data_end = (const uint8_t *)w->data + (size_t)w->n_out * row_bytes,
        .scales_end = (const uint8_t *)w->scales + all_scales,
        .biases_end = kind < MXFP4 ? (const uint8_t *)w->biases + all_scales : NULL,
        .scale_type = w->scale_type,
        .n_in = w->n_in,
        .n_groups = w->n_in / group_size,
        .group_size = group_size,
        .ahead = task->reading->ahead_avx2,
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
INLINE void multiply_part(const struct cpu_task *t, int begin, int end, const int kind,
                          int group_size, tile_fn multiply_tile)
{
    for (int first = 0; first < t->n_rows; first += MAX_ROWS)
        switch (t->n_rows - first) {
        case 1:
            multiply_rows(t, begin, end, first, kind, 1, 4, group_size, multiply_tile);
            break;
        case 2:
            multiply_rows(t, begin, end, first, kind, 2, 4, group_size, multiply_tile);
            break;
        default:
            multiply_rows(t, begin, end, first, kind, 4, 2, group_size, multiply_tile);
            break;
        }
}

/* More rows than are multiplied at a time find the weights in the second cache. */
INLINE void multiply_kind(const struct cpu_task *t, int begin, int end, const int kind,
                          int group_size, tile_fn multiply_tile)
{
    int64_t step = end - begin, cached = CACHED / (int64_t)weight_row_bytes(t->w);

    if (t->n_rows > MAX_ROWS && step > cached)
        step = cached > MAX_OUTPUTS ? cached : MAX_OUTPUTS;
    for (int64_t i = begin; i < end; i += step)
        multiply_part(t, (int)i, end - i < step ? end : (int)(i + step), kind, group_size,
                      multiply_tile);
}

/* A function for each format, around the file's own multiply_tile: compilers do not keep sums in
 * registers where there are more copies of the loops in one. */
#define MULTIPLY(name, kind, group_size)                                                           \
    static __attribute__((noinline)) void name(const struct cpu_task *t, int begin, int end)       \
    {                                                                                              \
        multiply_kind(t, begin, end, kind, group_size, multiply_tile);                             \
    }

#endif
