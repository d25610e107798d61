/* device/cpu/few_avx512.c: weights of 4 bits, affine or mxfp4, by up to eight rows, with VNNI.
 *
 * A vector of x holds eight numbers of each of eight rows: four of a unit and four of the unit
 * behind it. It meets the eight codes of one output at the same places, broadcast; so codes only
 * have to become bytes, and stay in the order of the file. Two units of 32 or 64 numbers are a
 * pair. Prepared, x is its pairs:
 *
 *     int8  [unit / 4, ROWS, 2, 4]    of every 8 numbers of a unit those at even places come first,
 *                                     then those at odd ones: as nibbles come out of 32 bits
 *     float steps [ROWS, 2], sums [ROWS, 2]    of each unit: the step, and that times the sum of
 *                                              the integers
 */
#include "device/cpu/matmul_avx512.h"

#define ROWS 8
#define OUTPUTS 8 /* side by side, far apart from each other: see gemv_avx2.h */
#define BATCH 8   /* pairs whose scales are expanded at a time */
#define AHEAD 512

/* --- x
 * ------------------------------------------------------------------------------------------------
 */

INLINE int unit_size(int group_size)
{
    return group_size < 64 ? 32 : 64;
}

INLINE size_t pair_bytes(const int unit)
{
    return 2 * ROWS * ((size_t)unit + 2 * sizeof(float));
}

static size_t strip_bytes(int n_in, int group_size)
{
    int unit = unit_size(group_size);

    return (size_t)((n_in + 2 * unit - 1) / (2 * unit)) * pair_bytes(unit);
}

static void prepare(void *strip, const struct cpu_task *t, int first, int n)
{
    int n_in = t->w->n_in, unit = unit_size(t->w->group_size);

    memset(strip, 0, strip_bytes(n_in, t->w->group_size));
    for (int i = 0; i < n_in; i += unit) {
        uint8_t *pair = (uint8_t *)strip + (size_t)(i / (2 * unit)) * pair_bytes(unit);
        int32_t *to = (int32_t *)(void *)pair + i / unit % 2;
        float *steps = (float *)(void *)(pair + 2 * ROWS * unit) + i / unit % 2;

        for (int r = 0; r < n; r++) {
            int32_t q[16];

            steps[2 * (ROWS + r)] =
                avx2_quantise_i8((int8_t *)q, cpu_task_x(t, first + r) + i, unit, steps + 2 * r);
            avx2_order_bytes((int8_t *)q, unit);
            for (int j = 0; j < unit / 4; j++)
                to[2 * (ROWS * j + r)] = q[j];
        }
    }
}

/* --- weights */

/* What is multiplied: outputs whose weights are read side by side. */
struct tile {
    const uint8_t *data[OUTPUTS];
    const uint8_t *scales[OUTPUTS], *biases[OUTPUTS];
    enum dtype scale_type;
    int n_in;
    const uint8_t *x;
};

/* Scales and biases of the two units of each pair of a batch. */
struct factors {
    _Alignas(64) float scales[OUTPUTS][2 * BATCH], biases[OUTPUTS][2 * BATCH];
};

/* Of n groups from first on of each output; zeros for a unit that is not there. */
INLINE void expand_type(struct factors *f, const struct tile *t, size_t first, int n,
                        const enum dtype type)
{
    size_t at = first * (type == DTYPE_F32 ? 4 : type == DTYPE_F8_E8M0 ? 1 : 2);

    for (int o = 0; o < OUTPUTS; o++) {
        __m512 scales = avx512_scales(t->scales[o] + at, n, type), biases;

        if (type == DTYPE_F8_E8M0) {
            scales = _mm512_mul_ps(scales, _mm512_set1_ps(0.5f));
            biases = _mm512_mul_ps(scales, _mm512_set1_ps(-E2M1_ZERO));
        } else {
            biases = avx512_scales(t->biases[o] + at, n, type);
        }
        _mm512_store_ps(f->scales[o], scales);
        _mm512_store_ps(f->biases[o], biases);
    }
}

INLINE void expand_factors(struct factors *f, const struct tile *t, size_t first, int n, bool e2m1)
{
    if (e2m1)
        expand_type(f, t, first, n, DTYPE_F8_E8M0);
    else if (t->scale_type == DTYPE_BF16)
        expand_type(f, t, first, n, DTYPE_BF16);
    else if (t->scale_type == DTYPE_F16)
        expand_type(f, t, first, n, DTYPE_F16);
    else
        expand_type(f, t, first, n, DTYPE_F32);
}

INLINE __m512i to_bytes(__m512i v, bool e2m1)
{
    v = _mm512_and_si512(v, _mm512_set1_epi8(0x0F));
    return e2m1 ? avx512_e2m1(v) : v;
}

/* The codes of a pair, or of its first unit: first those of the low nibbles, then of the high ones;
 * four of one unit, four of the other and so on. */
INLINE void unpack_pair(uint8_t *to, const uint8_t *p, bool whole, bool e2m1, const int unit)
{
    const __m512i order64 = _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
    const __m512i order32 = _mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __mmask64 there = ~0ull >> (64 - (whole ? unit : unit / 2));
    __m512i v = _mm512_maskz_loadu_epi8(there, p);

    if (unit == 64) {
        v = _mm512_permutexvar_epi32(order64, v);
        _mm512_store_si512(to, to_bytes(v, e2m1));
        _mm512_store_si512(to + 64, to_bytes(_mm512_srli_epi16(v, 4), e2m1));
    } else {
        v = _mm512_permutexvar_epi32(order32, v);
        _mm256_store_si256((__m256i *)to, _mm512_castsi512_si256(to_bytes(v, e2m1)));
        _mm256_store_si256((__m256i *)(to + 32),
                           _mm512_castsi512_si256(to_bytes(_mm512_srli_epi16(v, 4), e2m1)));
    }
}

INLINE __m512i broadcast8(const uint8_t *p)
{
    int64_t eight;

    memcpy(&eight, p, sizeof eight);
    return _mm512_set1_epi64(eight);
}

/* The numbers for the units of a pair, to the lanes of each row. */
INLINE __m512 broadcast2(const float *p, bool same)
{
    double both;

    if (same)
        return _mm512_set1_ps(*p);
    memcpy(&both, p, sizeof both);
    return _mm512_castpd_ps(_mm512_set1_pd(both));
}

/* The codes of a pair of every output. Later they are broadcast from memory for nothing; from
 * registers, where compilers know them to be, they would be shuffled. */
INLINE void unpack_outputs(uint8_t codes[OUTPUTS][128], const struct tile *t, int pair, bool e2m1,
                           const int unit)
{
    bool whole = t->n_in - 2 * unit * pair > unit;

#pragma GCC unroll 8
    for (int o = 0; o < OUTPUTS; o++) {
        const uint8_t *p = t->data[o] + pair * unit;

        _mm_prefetch((const char *)p + AHEAD, _MM_HINT_T1);
        unpack_pair(codes[o], p, whole, e2m1, unit);
    }
    __asm__ volatile("" : : "r"(codes) : "memory");
}

/* acc[o] += the products of a pair, i-th of its batch. */
INLINE void multiply_pair(__m512 acc[OUTPUTS], uint8_t codes[OUTPUTS][128], const uint8_t *x,
                          const struct factors *f, int i, const int unit, const int group_size)
{
    const bool same = group_size > unit;
    const uint8_t *end = x + 2 * ROWS * unit;
    const int at = same ? i : 2 * i;
    __m512i even[OUTPUTS], odd[OUTPUTS]; /* apart, so that sums need not wait for each other */

#pragma GCC unroll 8
    for (int o = 0; o < OUTPUTS; o++)
        even[o] = odd[o] = _mm512_setzero_si512();
    for (int c = 0; x < end; c += 8, x += 128) {
        __m512i x0 = _mm512_load_si512(x), x1 = _mm512_load_si512(x + 64);

#pragma GCC unroll 8
        for (int o = 0; o < OUTPUTS; o++) {
            __m512i low = broadcast8(codes[o] + c), high = broadcast8(codes[o] + unit + c);

            even[o] = avx512_now(_mm512_dpbusd_epi32(even[o], low, x0));
            odd[o] = avx512_now(_mm512_dpbusd_epi32(odd[o], high, x1));
        }
    }
    __m512 steps = _mm512_load_ps(end), sums = _mm512_load_ps(end + 64);

#pragma GCC unroll 8
    for (int o = 0; o < OUTPUTS; o++) {
        __m512 scale = _mm512_mul_ps(broadcast2(f->scales[o] + at, same), steps);
        __m512 products = _mm512_cvtepi32_ps(_mm512_add_epi32(even[o], odd[o]));

        acc[o] = _mm512_fmadd_ps(products, scale, acc[o]);
        acc[o] = _mm512_fmadd_ps(broadcast2(f->biases[o] + at, same), sums, acc[o]);
    }
}

INLINE void multiply_tile(__m512 acc[OUTPUTS], const struct tile *t, bool e2m1,
                          const int group_size)
{
    const int unit = unit_size(group_size), batch_groups = 2 * BATCH * unit / group_size;
    const int n_pairs = (t->n_in + 2 * unit - 1) / (2 * unit), n_groups = t->n_in / group_size;
    _Alignas(64) uint8_t codes[2][OUTPUTS][128]; /* of this pair, and of the next */
    const uint8_t *x = t->x;
    struct factors f;

#pragma GCC unroll 8
    for (int o = 0; o < OUTPUTS; o++)
        acc[o] = _mm512_setzero_ps();
    unpack_outputs(codes[0], t, 0, e2m1, unit);
    for (int pair = 0; pair < n_pairs; pair++, x += pair_bytes(unit)) {
        int first = pair / BATCH * batch_groups, left = n_groups - first;

        if (pair % BATCH == 0)
            expand_factors(&f, t, (size_t)first, left < batch_groups ? left : batch_groups, e2m1);
        if (pair + 1 < n_pairs)
            unpack_outputs(codes[(pair + 1) % 2], t, pair + 1, e2m1, unit);
        multiply_pair(acc, codes[pair % 2], x, &f, pair % BATCH, unit, group_size);
    }
}

/* y of the outputs at[]: the sums of what the two units of pairs gave. */
static void store_tile(const struct cpu_task *t, const __m512 acc[OUTPUTS], const int at[OUTPUTS],
                       int first, int rows)
{
    for (int o = 0; o < OUTPUTS; o++) {
        float sums[16], bias = t->bias ? t->bias[at[o]] : 0;

        _mm512_storeu_ps(sums, acc[o]);
        for (int r = 0; r < rows; r++)
            cpu_task_y(t, first + r)[at[o]] = sums[2 * r] + sums[2 * r + 1] + bias;
    }
}

INLINE void multiply_rows(const struct cpu_task *task, int begin, int end, int first, bool e2m1,
                          const int group_size)
{
    const struct weight *w = task->w;
    size_t row_bytes = weight_row_bytes(w), scale_bytes = weight_scale_row_bytes(w);
    int part = (end - begin + OUTPUTS - 1) / OUTPUTS, rows = task->n_rows - first;
    struct tile t = {
        .scale_type = avx2_scale_type(w),
        .n_in = w->n_in,
        .x = (const uint8_t *)task->prepared +
             (size_t)(first / ROWS) * strip_bytes(w->n_in, group_size),
    };

    for (int i = begin; i < begin + part; i++) {
        __m512 acc[OUTPUTS];
        int at[OUTPUTS];

        for (int o = 0; o < OUTPUTS; o++) {
            at[o] = i + o * part < end ? i + o * part : end - 1; /* the last one more than once */
            t.data[o] = (const uint8_t *)w->data + (size_t)at[o] * row_bytes;
            t.scales[o] = (const uint8_t *)w->scales + (size_t)at[o] * scale_bytes;
            if (!e2m1)
                t.biases[o] = (const uint8_t *)w->biases + (size_t)at[o] * scale_bytes;
        }
        multiply_tile(acc, &t, e2m1, group_size);
        store_tile(task, acc, at, first, rows < ROWS ? rows : ROWS);
    }
}

/* A function for each format: see gemv_avx2.h. */
#define MULTIPLY(name, e2m1, group_size)                                                           \
    static __attribute__((noinline)) void name(const struct cpu_task *t, int begin, int end)       \
    {                                                                                              \
        for (int first = 0; first < t->n_rows; first += ROWS)                                      \
            multiply_rows(t, begin, end, first, e2m1, group_size);                                 \
    }

MULTIPLY(multiply_mxfp4, true, 32)
MULTIPLY(multiply_32, false, 32)
MULTIPLY(multiply_64, false, 64)
MULTIPLY(multiply_128, false, 128)

static void multiply(const struct cpu_task *t, int begin, int end, void *scratch)
{
    (void)scratch;
    if (t->w->format == WEIGHT_MXFP4)
        multiply_mxfp4(t, begin, end);
    else if (t->w->group_size == 32)
        multiply_32(t, begin, end);
    else if (t->w->group_size == 64)
        multiply_64(t, begin, end);
    else
        multiply_128(t, begin, end);
}

const struct cpu_product avx512_few = {
    .name = "i8 rows, VNNI",
    .panel_cols = OUTPUTS,
    .strip_rows = ROWS,
    .strip_bytes = strip_bytes,
    .prepare = prepare,
    .multiply = multiply,
};
