/* device/cpu/gemm_avx2.c: integer weights by many rows: each weight is unpacked once into a panel
 * that lies in the cache, and multiplied by all rows from there.
 *
 * A panel holds COLS outputs by a block of the numbers of a row. In it 32 bits of each output lie
 * side by side: four numbers of 8 bits, or two of 16; in a strip of ROWS rows of x, 32 bits of each
 * row. So one operation multiplies the 32 bits of one row with those of 8 outputs and adds up what
 * belongs together.
 *
 * 8 bits: products of bytes are added in 16 bits for a unit of numbers, which their range must
 * allow: 32 numbers, in each lane 8 times 2 products of at most 15 * 127, for codes of up to 4
 * bits; 16 numbers, 4 times 2 products of at most 31 * 127, for codes of 5 bits and for e2m1,
 * doubled and made positive: 0 to 24.
 *
 * 16 bits: products are added in 32 bits, for a group: 128 times 255 * 32767 at most.
 *
 *     y = sum_units scale step sum q xq + sum_groups bias step sum xq
 */
#define ROWS 6
#define COLS 16
#define X_UNIT 32 /* numbers of 8 bits that share a step at most */
#include "device/cpu/panels_avx2.h"

#define BLOCK_I8 1024 /* numbers in a panel: 16 KB of codes, half of the smallest L1 */
#define BLOCK_I16 512

struct panel {
    uint8_t codes[BLOCK_I8 * COLS];
    float scales[BLOCK_I8 / 16 * COLS]; /* [n / group, COLS] */
    float biases[BLOCK_I8 / 16 * COLS]; /* [n / group, COLS] */
    float tile[ROWS * COLS];            /* what it and a strip sum up to */
};

_Static_assert(sizeof(struct panel) <= CPU_PRODUCT_SCRATCH, "a panel fits in the scratch");

/* --- x
 * ------------------------------------------------------------------------------------------------
 */

/* A part of a strip: ROWS rows, from some place in them on. */
struct part {
    const int32_t *x;   /* [n * bytes / 4, ROWS] */
    const float *steps; /* [n / unit of x, ROWS] */
    const float *sums;  /* [n / group, ROWS]: step times sum of the integers */
};

/* Numbers of x that share a step. */
static inline int x_unit(int group_size, int bytes)
{
    return bytes == 2 || group_size < X_UNIT ? group_size : X_UNIT;
}

static inline size_t strip_size(int n_in, int group_size, int bytes)
{
    size_t n = (size_t)n_in;
    size_t size =
        ROWS * (n * (size_t)bytes +
                sizeof(float) * (n / (size_t)x_unit(group_size, bytes) + n / (size_t)group_size));

    return (size + 63) & ~(size_t)63;
}

static inline struct part strip_part(const uint8_t *strip, int n_in, int group_size, int bytes,
                                     int k)
{
    const float *steps =
        (const float *)(const void *)(strip + (size_t)ROWS * (size_t)n_in * (size_t)bytes);
    const float *sums = steps + ROWS * (n_in / x_unit(group_size, bytes));

    return (struct part){
        .x = (const int32_t *)(const void *)strip + ROWS * (k * bytes / 4),
        .steps = steps + ROWS * (k / x_unit(group_size, bytes)),
        .sums = sums + ROWS * (k / group_size),
    };
}

/* Row r of a strip from its n_in numbers x. */
INLINE void prepare_row(void *strip, int r, const float *x, int n_in, int group_size,
                        const int bytes)
{
    struct part whole = strip_part(strip, n_in, group_size, bytes, 0);
    int32_t *to = (int32_t *)whole.x + r;
    float *steps = (float *)whole.steps + r, *sums = (float *)whole.sums + r;
    int unit = x_unit(group_size, bytes);
    int32_t q[64]; /* a unit: 128 numbers of 16 bits at most */

    for (int g = 0; g < n_in / group_size; g++)
        sums[g * ROWS] = 0;
    for (int i = 0; i < n_in; i += unit) {
        float *step = steps + i / unit * ROWS, *sum = sums + i / group_size * ROWS;

        if (bytes == 1)
            *sum += avx2_quantise_i8((int8_t *)q, x + i, unit, step);
        else
            *sum += avx2_quantise_i16((int16_t *)q, x + i, unit, step);
        if (bytes == 1)
            avx2_order_bytes((int8_t *)q, unit);
        for (int j = 0; j < unit * bytes / 4; j++, to += ROWS)
            *to = q[j];
    }
}

static size_t strip_bytes_i8(int n_in, int group_size)
{
    return strip_size(n_in, group_size, 1);
}

static size_t strip_bytes_i16(int n_in, int group_size)
{
    return strip_size(n_in, group_size, 2);
}

static void prepare_i8(void *strip, const struct cpu_task *t, int first, int n)
{
    for (int r = 0; r < n; r++)
        prepare_row(strip, r, cpu_task_x(t, first + r), t->w->n_in, t->w->group_size, 1);
}

static void prepare_i16(void *strip, const struct cpu_task *t, int first, int n)
{
    for (int r = 0; r < n; r++)
        prepare_row(strip, r, cpu_task_x(t, first + r), t->w->n_in, t->w->group_size, 2);
}

/* --- products
 * --------------------------------------------------------------------------------------------- */

/* Sums of ROWS rows by COLS outputs: of row r, a_r of outputs 0 to 7 and b_r of 8 to 15. Single
 * variables and no array, so that compilers keep them in registers. */
struct sums {
    __m256i a0, a1, a2, a3, a4, a5, b0, b1, b2, b3, b4, b5;
};

struct float_sums {
    __m256 a0, a1, a2, a3, a4, a5, b0, b1, b2, b3, b4, b5;
};

/* Has v computed here. Left to itself gcc multiplies all and adds later, which takes more registers
 * than there are. */
INLINE __m256i now(__m256i v)
{
    __asm__("" : "+x"(v));
    return v;
}

/* tile = what the biases of n_groups groups contribute. */
INLINE void begin_tile(float *tile, const float *biases, const float *sums, int n_groups,
                       const int rows)
{
    struct float_sums s;

#define CLEAR(r) s.a##r = s.b##r = _mm256_setzero_ps();
    EACH_ROW(rows, CLEAR);
    for (int g = 0; g < n_groups; g++, biases += COLS, sums += ROWS) {
        __m256 b0 = _mm256_load_ps(biases), b1 = _mm256_load_ps(biases + 8);

#define ADD(r)                                                                                     \
    __m256 v##r = _mm256_broadcast_ss(sums + r);                                                   \
    s.a##r = _mm256_fmadd_ps(b0, v##r, s.a##r);                                                    \
    s.b##r = _mm256_fmadd_ps(b1, v##r, s.b##r);
        EACH_ROW(rows, ADD);
    }
#define STORE(r)                                                                                   \
    _mm256_store_ps(tile + r * COLS, s.a##r);                                                      \
    _mm256_store_ps(tile + r * COLS + 8, s.b##r);
    EACH_ROW(rows, STORE);
#undef CLEAR
#undef ADD
#undef STORE
}

/* tile += sums scale step. The tile stays in memory: there are no registers left for a copy of it.
 */
INLINE void add_unit(float *tile, const struct sums *sums, const float *scales, const float *steps,
                     const int rows)
{
    __m256 s0 = _mm256_load_ps(scales), s1 = _mm256_load_ps(scales + 8);

    __asm__ volatile("" : : : "memory");

#define ADD(r)                                                                                     \
    __m256 step##r = _mm256_broadcast_ss(steps + r);                                               \
    __m256 a##r = _mm256_load_ps(tile + r * COLS), b##r = _mm256_load_ps(tile + r * COLS + 8);     \
    a##r = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums->a##r), _mm256_mul_ps(s0, step##r), a##r);      \
    b##r = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums->b##r), _mm256_mul_ps(s1, step##r), b##r);      \
    _mm256_store_ps(tile + r * COLS, a##r);                                                        \
    _mm256_store_ps(tile + r * COLS + 8, b##r);
    EACH_ROW(rows, ADD);
#undef ADD
}

/* A unit of bytes. sums = sum q xq, in 32 bits. */
INLINE void unit_i8(struct sums *sums, const uint8_t *codes, const int32_t *x, const int unit,
                    const int rows)
{
    const uint8_t *end = codes + unit * COLS;
    struct sums s;

#define CLEAR(r) s.a##r = s.b##r = _mm256_setzero_si256();
    EACH_ROW(rows, CLEAR);
#pragma GCC unroll 8
    for (; codes < end; codes += 4 * COLS, x += ROWS) {
        __m256i w0 = _mm256_load_si256((const __m256i *)codes);
        __m256i w1 = _mm256_load_si256((const __m256i *)(codes + 32));

#define ADD(r)                                                                                     \
    __m256i x##r = _mm256_set1_epi32(x[r]);                                                        \
    s.a##r = now(_mm256_add_epi16(s.a##r, _mm256_maddubs_epi16(w0, x##r)));                        \
    s.b##r = now(_mm256_add_epi16(s.b##r, _mm256_maddubs_epi16(w1, x##r)));
        EACH_ROW(rows, ADD);
    }
#define WIDEN(r)                                                                                   \
    s.a##r = _mm256_madd_epi16(s.a##r, _mm256_set1_epi16(1));                                      \
    s.b##r = _mm256_madd_epi16(s.b##r, _mm256_set1_epi16(1));
    EACH_ROW(rows, WIDEN);
    *sums = s;
#undef CLEAR
#undef ADD
#undef WIDEN
}

/* A group of 16 bits. */
INLINE void unit_i16(struct sums *sums, const uint8_t *codes, const int32_t *x, const int unit,
                     const int rows)
{
    const uint8_t *end = codes + 2 * unit * COLS;
    struct sums s;

#define CLEAR(r) s.a##r = s.b##r = _mm256_setzero_si256();
    EACH_ROW(rows, CLEAR);
#pragma GCC unroll 8
    for (; codes < end; codes += 4 * COLS, x += ROWS) {
        __m256i w0 = _mm256_load_si256((const __m256i *)codes);
        __m256i w1 = _mm256_load_si256((const __m256i *)(codes + 32));

#define ADD(r)                                                                                     \
    __m256i x##r = _mm256_set1_epi32(x[r]);                                                        \
    s.a##r = now(_mm256_add_epi32(s.a##r, _mm256_madd_epi16(w0, x##r)));                           \
    s.b##r = now(_mm256_add_epi32(s.b##r, _mm256_madd_epi16(w1, x##r)));
        EACH_ROW(rows, ADD);
    }
    *sums = s;
#undef CLEAR
#undef ADD
}

/* tile [ROWS, COLS] = panel times part, for rows rows. */
INLINE void multiply_part(float *tile, const struct panel *panel, const struct part *part, int n,
                          int group_size, const int bytes, const int unit, const int rows)
{
    int group_shift =
        __builtin_ctz((unsigned)(group_size / unit)); /* 2^group_shift units a group */
    int step_shift = __builtin_ctz((unsigned)(x_unit(group_size, bytes) / unit));

    begin_tile(tile, panel->biases, part->sums, n / group_size, rows);
    for (int u = 0; u < n / unit; u++) {
        const uint8_t *codes = panel->codes + u * unit * bytes * COLS;
        const int32_t *x = part->x + u * unit * bytes / 4 * ROWS;
        struct sums sums;

        if (bytes == 1)
            unit_i8(&sums, codes, x, unit, rows);
        else
            unit_i16(&sums, codes, x, unit, rows);
        add_unit(tile, &sums, panel->scales + (u >> group_shift) * COLS,
                 part->steps + (u >> step_shift) * ROWS, rows);
    }
}

/* Adds n_cols of the COLS outputs of a tile to y, or begins them with the bias. */
static void add_tile(const struct cpu_task *t, const float *tile, int first, int rows, int o,
                     int n_cols, bool begin)
{
    for (int r = 0; r < rows; r++) {
        float *y = cpu_task_y(t, first + r) + o;
        const float *before = !begin ? y : t->bias ? t->bias + o : NULL;

        avx2_add_row(y, _mm256_load_ps(tile + r * COLS), _mm256_load_ps(tile + r * COLS + 8),
                     before, n_cols);
    }
}

/* All rows of the task by a panel. */
INLINE void multiply_panel(const struct cpu_task *t, struct panel *panel, int o, int n_cols, int k,
                           int n, const int bytes, const int unit)
{
    const int g = t->w->group_size, n_in = t->w->n_in;
    const uint8_t *strip = t->prepared;

    for (int first = 0; first < t->n_rows; first += ROWS, strip += strip_size(n_in, g, bytes)) {
        struct part part = strip_part(strip, n_in, g, bytes, k);
        int rows = t->n_rows - first < ROWS ? t->n_rows - first : ROWS;

        for (int r = 0; r < rows; r++)
            _mm_prefetch((const char *)(cpu_task_y(t, first + r) + o), _MM_HINT_T0);
        switch (rows) {
        case 1:
            multiply_part(panel->tile, panel, &part, n, g, bytes, unit, 1);
            break;
        case 2:
            multiply_part(panel->tile, panel, &part, n, g, bytes, unit, 2);
            break;
        case 3:
            multiply_part(panel->tile, panel, &part, n, g, bytes, unit, 3);
            break;
        case 4:
            multiply_part(panel->tile, panel, &part, n, g, bytes, unit, 4);
            break;
        case 5:
            multiply_part(panel->tile, panel, &part, n, g, bytes, unit, 5);
            break;
        default:
            multiply_part(panel->tile, panel, &part, n, g, bytes, unit, 6);
            break;
        }
        add_tile(t, panel->tile, first, rows, o, n_cols, k == 0);
    }
}

static void multiply_panel_16(const struct cpu_task *t, struct panel *panel, int o, int n_cols,
                              int k, int n)
{
    multiply_panel(t, panel, o, n_cols, k, n, 1, 16);
}

static void multiply_panel_32(const struct cpu_task *t, struct panel *panel, int o, int n_cols,
                              int k, int n)
{
    multiply_panel(t, panel, o, n_cols, k, n, 1, 32);
}

static void multiply_panel_i16(const struct cpu_task *t, struct panel *panel, int o, int n_cols,
                               int k, int n)
{
    switch (t->w->group_size) {
    case 32:
        multiply_panel(t, panel, o, n_cols, k, n, 2, 32);
        break;
    case 64:
        multiply_panel(t, panel, o, n_cols, k, n, 2, 64);
        break;
    default:
        multiply_panel(t, panel, o, n_cols, k, n, 2, 128);
        break;
    }
}

static void unpack(struct panel *panel, const struct weight *w, int o, int n_cols, int k, int n,
                   const int bytes)
{
    unpack_scales(panel->scales, panel->biases, w, o, n_cols, k, n);
    unpack_format(panel->codes, w, o, n_cols, k, n, bytes);
}

static void multiply_i8(const struct cpu_task *t, int begin, int end, void *scratch)
{
    bool small = t->w->format == WEIGHT_AFFINE && t->w->bits <= 4;
    struct panel *panel = scratch;

    for (int o = begin; o < end; o += COLS)
        for (int k = 0; k < t->w->n_in; k += BLOCK_I8) {
            int n_cols = end - o < COLS ? end - o : COLS;
            int n = t->w->n_in - k < BLOCK_I8 ? t->w->n_in - k : BLOCK_I8;

            unpack(panel, t->w, o, n_cols, k, n, 1);
            if (small)
                multiply_panel_32(t, panel, o, n_cols, k, n);
            else
                multiply_panel_16(t, panel, o, n_cols, k, n);
        }
}

static void multiply_i16(const struct cpu_task *t, int begin, int end, void *scratch)
{
    struct panel *panel = scratch;

    for (int o = begin; o < end; o += COLS)
        for (int k = 0; k < t->w->n_in; k += BLOCK_I16) {
            int n_cols = end - o < COLS ? end - o : COLS;
            int n = t->w->n_in - k < BLOCK_I16 ? t->w->n_in - k : BLOCK_I16;

            unpack(panel, t->w, o, n_cols, k, n, 2);
            multiply_panel_i16(t, panel, o, n_cols, k, n);
        }
}

const struct cpu_product avx2_gemm_i8 = {
    .name = "i8 panels",
    .panel_cols = COLS,
    .strip_rows = ROWS,
    .strip_bytes = strip_bytes_i8,
    .prepare = prepare_i8,
    .multiply = multiply_i8,
};

const struct cpu_product avx2_gemm_i16 = {
    .name = "i16 panels",
    .panel_cols = COLS,
    .strip_rows = ROWS,
    .strip_bytes = strip_bytes_i16,
    .prepare = prepare_i16,
    .multiply = multiply_i16,
};
