/* device/cpu/exact_row_avx512.c: affine weights of 4 and 8 bits by a row, exactly: what routers
 * are read with, and all of --exact for a single text.
 *
 * The numbers that avx2_product_f32 gives, bit for bit, as its order of summation is kept; but
 * weights become f32 in registers, those of 4 bits looked up in what the 16 codes of a group stand
 * for.
 */
#include "device/cpu/matmul_avx512.h"

#define BLOCK AVX2_SUM_BLOCK
#define COLS 8        /* outputs at a time: as many sums as hide each other's latency */
#define MAX_GROUPS 64 /* whose scales are expanded at a time */

/* Some outputs: their weights from a block on, the scales of its groups and of some behind it. */
struct outputs {
    const float *x;
    const uint8_t *data[COLS];
    const float *scales, *biases; /* [COLS, MAX_GROUPS] */
    int n, group_size;
};

/* What four outputs have, by name: an array of it sanitizers keep in memory, and check each access.
 */
struct four {
    __m256 a, b, c, d;
};

struct four_rows {
    const uint8_t *a, *b, *c, *d;
};

struct sums {
    struct four left, right; /* COLS */
};

/* Scales or biases of a group, everywhere. */
INLINE struct four spread(const float *numbers)
{
    return (struct four){
        _mm256_set1_ps(numbers[0]),
        _mm256_set1_ps(numbers[MAX_GROUPS]),
        _mm256_set1_ps(numbers[2 * MAX_GROUPS]),
        _mm256_set1_ps(numbers[3 * MAX_GROUPS]),
    };
}

INLINE struct four_rows rows_at(const uint8_t *const data[4], int at)
{
    return (struct four_rows){data[0] + at, data[1] + at, data[2] + at, data[3] + at};
}

/* q s + b, rounded twice, as weight_row_f32 has it. */
INLINE __m256 stands_for(__m256 q, __m256 s, __m256 b)
{
    __m256 product = _mm256_mul_ps(q, s);

    __asm__("" : "+v"(product));
    return _mm256_add_ps(product, b);
}

INLINE struct four stand_for(__m256 q, struct four s, struct four b)
{
    return (struct four){
        stands_for(q, s.a, b.a),
        stands_for(q, s.b, b.b),
        stands_for(q, s.c, b.c),
        stands_for(q, s.d, b.d),
    };
}

/* sum + 8 products, by the weights that the codes of a word stand for. */
INLINE __m256 add_4(__m256 sum, __m256 x, const uint8_t *p, __m256 low, __m256 high)
{
    const __m256i shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    uint32_t word;

    memcpy(&word, p, sizeof word);
    __m256i codes = _mm256_srlv_epi32(_mm256_set1_epi32((int)word), shifts);

    return _mm256_fmadd_ps(x, _mm256_permutex2var_ps(low, codes, high), sum);
}

INLINE struct four add_four_4(struct four sums, __m256 x, struct four_rows w, int i,
                              struct four low, struct four high)
{
    return (struct four){
        add_4(sums.a, x, w.a + i / 2, low.a, high.a),
        add_4(sums.b, x, w.b + i / 2, low.b, high.b),
        add_4(sums.c, x, w.c + i / 2, low.c, high.c),
        add_4(sums.d, x, w.d + i / 2, low.d, high.d),
    };
}

INLINE struct sums add_group_4(struct sums acc, const struct outputs *b, int g)
{
    const __m256 first = _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256 last = _mm256_setr_ps(8, 9, 10, 11, 12, 13, 14, 15);
    const struct four scale0 = spread(b->scales + g), bias0 = spread(b->biases + g);
    const struct four scale1 = spread(b->scales + 4 * MAX_GROUPS + g);
    const struct four bias1 = spread(b->biases + 4 * MAX_GROUPS + g);
    const struct four low0 = stand_for(first, scale0, bias0),
                      high0 = stand_for(last, scale0, bias0);
    const struct four low1 = stand_for(first, scale1, bias1),
                      high1 = stand_for(last, scale1, bias1);
    const int n = b->group_size, begin = g * n;
    const struct four_rows w0 = rows_at(b->data, begin / 2), w1 = rows_at(b->data + 4, begin / 2);
    const float *x = b->x + begin;

    for (int i = 0; i < n; i += 8) {
        __m256 v = _mm256_loadu_ps(x + i);

        acc.left = add_four_4(acc.left, v, w0, i, low0, high0);
        acc.right = add_four_4(acc.right, v, w1, i, low1, high1);
    }
    return acc;
}

INLINE __m256 add_8(__m256 sum, __m256 x, const uint8_t *p, __m256 scale, __m256 bias)
{
    __m256i codes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));

    return _mm256_fmadd_ps(x, stands_for(_mm256_cvtepi32_ps(codes), scale, bias), sum);
}

INLINE struct four add_four_8(struct four sums, __m256 x, struct four_rows w, int i,
                              struct four scale, struct four bias)
{
    return (struct four){
        add_8(sums.a, x, w.a + i, scale.a, bias.a),
        add_8(sums.b, x, w.b + i, scale.b, bias.b),
        add_8(sums.c, x, w.c + i, scale.c, bias.c),
        add_8(sums.d, x, w.d + i, scale.d, bias.d),
    };
}

INLINE struct sums add_group_8(struct sums acc, const struct outputs *b, int g)
{
    const struct four scale0 = spread(b->scales + g), bias0 = spread(b->biases + g);
    const struct four scale1 = spread(b->scales + 4 * MAX_GROUPS + g);
    const struct four bias1 = spread(b->biases + 4 * MAX_GROUPS + g);
    const int n = b->group_size, begin = g * n;
    const struct four_rows w0 = rows_at(b->data, begin), w1 = rows_at(b->data + 4, begin);
    const float *x = b->x + begin;

    for (int i = 0; i < n; i += 8) {
        __m256 v = _mm256_loadu_ps(x + i);

        acc.left = add_four_8(acc.left, v, w0, i, scale0, bias0);
        acc.right = add_four_8(acc.right, v, w1, i, scale1, bias1);
    }
    return acc;
}

/* sums of COLS outputs over a block. */
INLINE void block_sums(float sums[COLS], const struct outputs *b, const int bits)
{
    const __m256 zero = _mm256_setzero_ps();
    struct sums acc = {{zero, zero, zero, zero}, {zero, zero, zero, zero}};

    for (int g = 0; g * b->group_size < b->n; g++)
        acc = bits == 4 ? add_group_4(acc, b, g) : add_group_8(acc, b, g);
    _mm_storeu_ps(sums, sums4(acc.left.a, acc.left.b, acc.left.c, acc.left.d));
    _mm_storeu_ps(sums + 4, sums4(acc.right.a, acc.right.b, acc.right.c, acc.right.d));
}

/* Of the groups from that of value k on. */
static void expand(float *to, const struct weight *w, const void *scales, const int cols[COLS],
                   int k)
{
    int n = (w->n_in - k) / w->group_size;

    for (int c = 0; c < COLS; c++)
        avx2_scales(to + c * MAX_GROUPS, weight_scale(w, scales, cols[c], k), w->scale_type,
                    n < MAX_GROUPS ? n : MAX_GROUPS);
}

/* n_cols outputs from o on, step apart, so that memory is read in several places. */
INLINE void multiply_cols(const struct cpu_task *t, const float *x, float *y, int o, int step,
                          int n_cols, const int bits)
{
    const struct weight *w = t->w;
    float scales[COLS * MAX_GROUPS], biases[COLS * MAX_GROUPS];
    int cols[COLS], expanded = MAX_GROUPS * w->group_size; /* numbers */
    struct outputs b;

    for (int c = 0; c < COLS; c++)
        cols[c] = o + (c < n_cols ? c : 0) * step;
    for (int k = 0; k < w->n_in; k += BLOCK) {
        float sums[COLS];
        int g = k % expanded / w->group_size;

        if (g == 0) {
            expand(scales, w, w->scales, cols, k);
            expand(biases, w, w->biases, cols, k);
        }
        b.x = x + k;
        b.n = w->n_in - k < BLOCK ? w->n_in - k : BLOCK;
        b.group_size = w->group_size;
        b.scales = scales + g;
        b.biases = biases + g;
        for (int c = 0; c < COLS; c++)
            b.data[c] = weight_data(w, cols[c]) + (size_t)k * bits / 8;
        block_sums(sums, &b, bits);
        for (int c = 0; c < n_cols; c++)
            y[cols[c]] = (k > 0 ? y[cols[c]] : t->bias ? t->bias[cols[c]] : 0) + sums[c];
    }
}

INLINE void multiply_bits(const struct cpu_task *t, int begin, int end, const int bits)
{
    int part = (end - begin + COLS - 1) / COLS;

    for (int r = 0; r < t->n_rows; r++)
        for (int o = begin; o < begin + part; o++)
            multiply_cols(t, cpu_task_x(t, r), cpu_task_y(t, r), o, part,
                          (end - o + part - 1) / part, bits);
}

static void multiply_4(const struct cpu_task *t, int begin, int end)
{
    multiply_bits(t, begin, end, 4);
}

static void multiply_8(const struct cpu_task *t, int begin, int end)
{
    multiply_bits(t, begin, end, 8);
}

static void multiply(const struct cpu_task *t, int begin, int end, void *scratch)
{
    (void)scratch;
    if (t->w->bits == 4)
        multiply_4(t, begin, end);
    else
        multiply_8(t, begin, end);
}

const struct cpu_product avx512_exact_row = {
    .name = "f32 rows",
    .panel_cols = COLS,
    .slowness = 4,
    .multiply = multiply,
};
