/* device/cpu/gemv_avx512.c: weights of 4 and 8 bits by a few rows.
 *
 * Where a batch of groups is more than a row of weights of 4 bits has, a single row meets several
 * outputs at a time, which follow each other in memory as do their scales.
 */
#include "device/cpu/gemv_avx512.h"

static size_t strip_bytes_4(int n_in, int group_size)
{
    return strip_size(n_in, group_size, 4);
}

static size_t strip_bytes_8(int n_in, int group_size)
{
    return strip_size(n_in, group_size, 8);
}

static void prepare_4(void *strip, const struct cpu_task *t, int first, int n)
{
    (void)n;
    prepare(strip, cpu_task_x(t, first), t->w->n_in, t->w->group_size, 4);
}

static void prepare_8(void *strip, const struct cpu_task *t, int first, int n)
{
    (void)n;
    prepare(strip, cpu_task_x(t, first), t->w->n_in, t->w->group_size, 8);
}

/* Whether so many outputs of 4 bits share a batch of groups that this counts for more than where
 * they are read: not of rows of 512 numbers. */
static bool is_short(const struct cpu_task *t)
{
    int n = t->w->n_in;

    return t->w->format == WEIGHT_AFFINE && t->w->group_size == 64 && t->n_rows == 1 &&
           (n == 128 || n == 256);
}

/* A batch's chunks, of n outputs of `chunks` each, whose weights begin at p; acc: what the biases
 * make. */
INLINE void add_short(__m512 acc[UNROLLED], const float *factors, const struct prepared *x,
                      const uint8_t *p, size_t ahead, int n, const int group_size, const int chunks,
                      const bool to_first)
{
#pragma GCC unroll 8
    for (int c = 0; c < UNROLLED; c++) {
        if (c >= n * chunks)
            return;
        if (to_first)
            _mm_prefetch((const char *)p + c * CHUNK + ahead, _MM_HINT_T0);
        else
            _mm_prefetch((const char *)p + c * CHUNK + ahead, _MM_HINT_T1);
        __m512i codes[2];
        unpack(codes, load_bytes(p + c * CHUNK, CHUNK), 4, false);
        __m512i sum = multiply_chunk(codes, x->chunks + 2 * CHUNK * (c % chunks), 4);

        acc[c / chunks] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum),
                                          lane_factors(factors, c, 4, group_size), acc[c / chunks]);
    }
}

/* The same numbers as multiply_row has. */
INLINE void multiply_short(const struct cpu_task *task, const struct cpu_outputs *outputs,
                           const enum dtype type, const int group_size, const int chunks,
                           const bool to_first)
{
    const int each = UNROLLED / chunks, n_groups = BATCH / each; /* outputs; groups of one */
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i again = _mm512_and_si512(lane, _mm512_set1_epi32(n_groups - 1));
    const struct weight *w = task->w;
    const size_t row_bytes = weight_row_bytes(w), scale_bytes = weight_scale_row_bytes(w);
    struct prepared x = prepared_row(task->prepared, 0, w->n_in, group_size, 4);
    __m512 steps = _mm512_permutexvar_ps(again, _mm512_load_ps(x.steps));
    __m512 of_biases = _mm512_permutexvar_ps(again, _mm512_load_ps(x.sums));
    int end =
        outputs->begin + outputs->n < outputs->end ? outputs->begin + outputs->n : outputs->end;
    size_t ahead = (size_t)task->reading->ahead_row;

    for (int i = outputs->begin, n; i < end; i += n) {
        const uint8_t *scales = (const uint8_t *)w->scales + (size_t)i * scale_bytes;
        const uint8_t *biases = (const uint8_t *)w->biases + (size_t)i * scale_bytes;
        _Alignas(64) float factors[BATCH], sums[UNROLLED];
        __m512 acc[UNROLLED];

        n = end - i < each ? end - i : each;
        _mm512_store_ps(factors, _mm512_mul_ps(avx512_scales(scales, n * n_groups, type), steps));
        __m512 bias = _mm512_mul_ps(avx512_scales(biases, n * n_groups, type), of_biases);
#pragma GCC unroll 8
        for (int o = 0; o < UNROLLED; o++)
            acc[o] = _mm512_maskz_permutexvar_ps(
                first_16(n_groups), _mm512_add_epi32(lane, _mm512_set1_epi32(o * n_groups)), bias);
        add_short(acc, factors, &x, (const uint8_t *)w->data + (size_t)i * row_bytes, ahead, n,
                  group_size, chunks, to_first);
#pragma GCC unroll 2
        for (int o = 0; o < each; o += 4)
            _mm_store_ps(sums + o, sums4(halves(acc[o]), halves(acc[o + 1]), halves(acc[o + 2]),
                                         halves(acc[o + 3])));
        for (int o = 0; o < n; o++)
            cpu_task_y(task, 0)[i + o] = sums[o] + (task->bias ? task->bias[i + o] : 0);
    }
}

#define MULTIPLY_SHORT(name, type)                                                                 \
    static __attribute__((noinline)) void name(const struct cpu_task *t,                           \
                                               const struct cpu_outputs *o)                        \
    {                                                                                              \
        const bool to_first = t->reading->to_first;                                                \
                                                                                                   \
        if (t->w->n_in == 256)                                                                     \
            to_first ? multiply_short(t, o, type, 64, 2, true)                                     \
                     : multiply_short(t, o, type, 64, 2, false);                                   \
        else                                                                                       \
            to_first ? multiply_short(t, o, type, 64, 1, true)                                     \
                     : multiply_short(t, o, type, 64, 1, false);                                   \
    }
#define MULTIPLY_AFFINE(name, bits, group_size)                                                    \
    MULTIPLY(name##_f32, DTYPE_F32, bits, group_size)                                              \
    MULTIPLY(name##_f16, DTYPE_F16, bits, group_size)                                              \
    MULTIPLY(name##_bf16, DTYPE_BF16, bits, group_size)                                            \
    static void name(const struct cpu_task *t, const struct cpu_outputs *o)                        \
    {                                                                                              \
        enum dtype type = t->w->scale_type;                                                        \
                                                                                                   \
        (type == DTYPE_F32 ? name##_f32 : type == DTYPE_F16 ? name##_f16 : name##_bf16)(t, o);     \
    }

MULTIPLY(multiply_mxfp4, DTYPE_F8_E8M0, 4, 32)
MULTIPLY(multiply_nvfp4, DTYPE_F8_E4M3, 4, 16)
MULTIPLY_AFFINE(multiply_4_32, 4, 32)
MULTIPLY_AFFINE(multiply_4_64, 4, 64)
MULTIPLY_AFFINE(multiply_4_128, 4, 128)
MULTIPLY_AFFINE(multiply_8_32, 8, 32)
MULTIPLY_AFFINE(multiply_8_64, 8, 64)
MULTIPLY_AFFINE(multiply_8_128, 8, 128)

MULTIPLY_SHORT(multiply_short_f32, DTYPE_F32)
MULTIPLY_SHORT(multiply_short_f16, DTYPE_F16)
MULTIPLY_SHORT(multiply_short_bf16, DTYPE_BF16)

static void multiply_nibbles(const struct cpu_task *t, const struct cpu_outputs *o)
{
    enum dtype type = t->w->scale_type;

    if (t->w->format == WEIGHT_MXFP4)
        multiply_mxfp4(t, o);
    else if (t->w->format == WEIGHT_NVFP4)
        multiply_nvfp4(t, o);
    else if (is_short(t))
        (type == DTYPE_F32   ? multiply_short_f32
         : type == DTYPE_F16 ? multiply_short_f16
                             : multiply_short_bf16)(t, o);
    else if (t->w->group_size == 32)
        multiply_4_32(t, o);
    else if (t->w->group_size == 64)
        multiply_4_64(t, o);
    else
        multiply_4_128(t, o);
}

static void multiply_bytes(const struct cpu_task *t, const struct cpu_outputs *o)
{
    if (t->w->group_size == 32)
        multiply_8_32(t, o);
    else if (t->w->group_size == 64)
        multiply_8_64(t, o);
    else
        multiply_8_128(t, o);
}

static int places_4(const struct cpu_task *t)
{
    return is_short(t) ? 1 : places_of(t, 4);
}

static int places_8(const struct cpu_task *t)
{
    return places_of(t, 8);
}

const struct cpu_product avx512_gemv_nibbles = {
    .name = "i8 rows, nibbles, VNNI",
    .panel_cols = OUTPUTS,
    .strip_rows = 1,
    .strip_bytes = strip_bytes_4,
    .prepare = prepare_4,
    .places = places_4,
    .multiply_places = multiply_nibbles,
};

const struct cpu_product avx512_gemv_bytes = {
    .name = "i16 rows, bytes, VNNI",
    .panel_cols = OUTPUTS,
    .strip_rows = 1,
    .strip_bytes = strip_bytes_8,
    .prepare = prepare_8,
    .places = places_8,
    .multiply_places = multiply_bytes,
};
