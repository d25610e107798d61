/* device/cpu/gemm_avx2.c: integer weights by many rows: each weight is unpacked once into a panel
 * that lies in the cache, and multiplied by all rows from there.
 *
 * A panel holds COLS outputs by a block of the numbers of a row. In it 32 bits of each output lie
 * side by side: four numbers of 8 bits, or two of 16; in a strip of ROWS rows of x, 32 bits of each
 * row. So one operation multiplies the 32 bits of one row with those of 8 outputs and adds up what
 * belongs together.
 *
 *     8 bits:  products of bytes are added in 16 bits for a unit of numbers, which their range must
 * allow: 32 numbers, in each lane 8 times 2 products of at most 15 * 127, for codes of up to 4
 * bits; 16 numbers, 4 times 2 products of at most 31 * 127, for codes of 5 bits and for e2m1,
 * doubled and made positive: 0 to 24. 16 bits: products are added in 32 bits, for a group: 128
 * times 255 * 32767 at most.
 *
 *     y = sum_units scale step sum q xq + sum_groups bias step sum xq
 */
#include "device/cpu/matmul_avx2.h"

#define ROWS 6
#define COLS 16
#define BLOCK_I8 1024 /* numbers in a panel: 16 KB of codes, half of the smallest L1 */
#define BLOCK_I16 512
#define E2M1_ZERO 12 /* the code of 0 */

/* What a panel is unpacked from; 2 to 8: affine of so many bits. */
enum { E2M1 = 16 };

struct panel {
    uint8_t codes[BLOCK_I8 * COLS];
    float scales[BLOCK_I8 / 16 * COLS]; /* [n / group, COLS] */
    float biases[BLOCK_I8 / 16 * COLS]; /* [n / group, COLS] */
    float tile[ROWS * COLS];            /* what it and a strip sum up to */
};

_Static_assert(sizeof(struct panel) <= CPU_PRODUCT_SCRATCH, "a panel fits in the scratch");

/* A part of a strip: ROWS rows, from some place in them on. */
struct part {
    const int32_t *x;   /* [n * bytes / 4, ROWS] */
    const float *steps; /* [n / unit of x, ROWS] */
    const float *sums;  /* [n / group, ROWS]: step times sum of the integers */
};

/* --- x
 * ------------------------------------------------------------------------------------------------
 */

/* Numbers of x that share a step. */
static int x_unit(int group_size, int bytes)
{
    return bytes == 2 || group_size < 32 ? group_size : 32;
}

static size_t strip_size(int n_in, int group_size, int bytes)
{
    size_t n = (size_t)n_in;
    size_t size =
        ROWS * (n * (size_t)bytes +
                sizeof(float) * (n / (size_t)x_unit(group_size, bytes) + n / (size_t)group_size));

    return (size + 63) & ~(size_t)63;
}

static size_t strip_bytes_i8(int n_in, int group_size)
{
    return strip_size(n_in, group_size, 1);
}

static size_t strip_bytes_i16(int n_in, int group_size)
{
    return strip_size(n_in, group_size, 2);
}

static struct part strip_part(const uint8_t *strip, int n_in, int group_size, int bytes, int k)
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

/* Of every 8 bytes those at even places, then those at odd ones: as the nibbles of 32 bits come
 * out. */
INLINE __m256i even_first(__m256i v)
{
    const __m256i order = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));

    return _mm256_shuffle_epi8(v, order);
}

INLINE void order_bytes(int8_t *q, int n)
{
    for (int i = 0; i < n; i += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(q + i));

        _mm_storeu_si128((__m128i *)(q + i),
                         _mm256_castsi256_si128(even_first(_mm256_castsi128_si256(v))));
    }
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
            order_bytes((int8_t *)q, unit);
        for (int j = 0; j < unit * bytes / 4; j++, to += ROWS)
            *to = q[j];
    }
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

/* --- weights
 * -------------------------------------------------------------------------------------------- */

/* 32 numbers of 8 outputs into their places in a panel, of which to is the first. */
INLINE void unpack_square(uint8_t *to, const uint8_t *const rows[8], int at, const int bits,
                          const int bytes)
{
    const __m256i low = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1));
    const __m256i high = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(2, -1, 3, -1, 6, -1, 7, -1, 10, -1, 11, -1, 14, -1, 15, -1));
    __m256i v[8];

#pragma GCC unroll 8
    for (int c = 0; c < 8; c++) {
        v[c] = codes32(rows[c] + at / 8 * bits, bits);
        if (bytes == 1)
            v[c] = even_first(v[c]);
    }
    transpose8(v);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        if (bytes == 1) {
            _mm256_store_si256((__m256i *)(to + i * 4 * COLS), v[i]);
            continue;
        }
        _mm256_store_si256((__m256i *)(to + (2 * i) * 4 * COLS), _mm256_shuffle_epi8(v[i], low));
        _mm256_store_si256((__m256i *)(to + (2 * i + 1) * 4 * COLS),
                           _mm256_shuffle_epi8(v[i], high));
    }
}

INLINE __m256i nibbles(__m256i v, const int kind)
{
    const __m256i table = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));

    v = _mm256_and_si256(v, _mm256_set1_epi8(0x0F));
    return kind == E2M1 ? _mm256_shuffle_epi8(table, v) : v;
}

/* 64 numbers, or the n left, of 4 bits: 32 bits of them change places before they come apart. */
INLINE void unpack_nibbles(uint8_t *to, const uint8_t *const rows[8], int at, int n, const int kind)
{
    __m256i v[8];

#pragma GCC unroll 8
    for (int c = 0; c < 8; c++) {
        const uint8_t *p = rows[c] + at / 2;

        if (n >= 64)
            v[c] = _mm256_loadu_si256((const __m256i *)p);
        else if (n > 32) /* groups of nvfp4 */
            v[c] = _mm256_set_m128i(_mm_loadl_epi64((const __m128i *)(p + 16)),
                                    _mm_loadu_si128((const __m128i *)p));
        else if (n == 32)
            v[c] = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)p));
        else
            v[c] = _mm256_castsi128_si256(_mm_loadl_epi64((const __m128i *)p));
    }
    transpose8(v);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        if (n < 64 && 8 * i >= n)
            break;
        _mm256_store_si256((__m256i *)(to + (2 * i) * 4 * COLS), nibbles(v[i], kind));
        _mm256_store_si256((__m256i *)(to + (2 * i + 1) * 4 * COLS),
                           nibbles(_mm256_srli_epi16(v[i], 4), kind));
    }
}

/* Codes of outputs o to o + COLS (past the last: of that again), numbers k to k + n. */
INLINE void unpack_codes(struct panel *panel, const struct weight *w, int o, int n_cols, int k,
                         int n, const int kind, const int bytes)
{
    const int bits = kind == E2M1 ? 4 : kind, step = bits == 4 ? 64 : 32;
    size_t next = COLS * weight_row_bytes(w);

    for (int half = 0; half < COLS; half += 8) {
        const uint8_t *rows[8];

        for (int c = 0; c < 8; c++)
            rows[c] =
                weight_data(w, o + (half + c < n_cols ? half + c : n_cols - 1)) + k / 8 * bits;
        for (int i = 0; i < n; i += step) {
            uint8_t *to = panel->codes + (i * bytes / 4 * COLS + half) * 4;

            if (bits != 4)
                unpack_square(to, rows, i, bits, bytes);
            else if (n - i >= 64)
                unpack_nibbles(to, rows, i, 64, kind);
            else
                unpack_nibbles(to, rows, i, n - i, kind);
            if (i * bits % 512 == 0)
                for (int c = 0; c < 8; c++)
                    _mm_prefetch((const char *)rows[c] + i / 8 * bits + next, _MM_HINT_T1);
        }
    }
}

/* Expands numbers of 8 rows of groups and puts them side by side: to [n_groups, COLS], times unit.
 */
static void unpack_floats(float *to, const struct weight *w, const void *scales, const int rows[8],
                          int k, int n_groups, float unit)
{
    float expanded[8][BLOCK_I8 / 16 + 8];

    for (int c = 0; c < 8; c++)
        avx2_scales(expanded[c], weight_scale(w, scales, rows[c], k), avx2_scale_type(w), n_groups);
    for (int g = 0; g < n_groups; g += 8) {
        __m256i v[8];

#pragma GCC unroll 8
        for (int c = 0; c < 8; c++)
            v[c] = _mm256_castps_si256(
                _mm256_mul_ps(_mm256_loadu_ps(expanded[c] + g), _mm256_set1_ps(unit)));
        transpose8(v);
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++)
            if (g + i < n_groups)
                _mm256_store_si256((__m256i *)(to + (g + i) * COLS), v[i]);
    }
}

/* Scales and biases of groups. e2m1 values are doubled, and E2M1_ZERO too large. */
static void unpack_scales(struct panel *panel, const struct weight *w, int o, int n_cols, int k,
                          int n)
{
    int n_groups = n / w->group_size;

    for (int half = 0; half < COLS; half += 8) {
        int rows[8];

        for (int c = 0; c < 8; c++)
            rows[c] = o + (half + c < n_cols ? half + c : n_cols - 1);
        if (w->format == WEIGHT_AFFINE) {
            unpack_floats(panel->scales + half, w, w->scales, rows, k, n_groups, 1);
            unpack_floats(panel->biases + half, w, w->biases, rows, k, n_groups, 1);
        } else {
            unpack_floats(panel->scales + half, w, w->scales, rows, k, n_groups, 0.5f);
            unpack_floats(panel->biases + half, w, w->scales, rows, k, n_groups, -0.5f * E2M1_ZERO);
        }
    }
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

        for (int c = 0; c < n_cols; c++) {
            float before = !begin ? y[c] : t->bias ? t->bias[o + c] : 0;

            y[c] = before + tile[r * COLS + c];
        }
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

static void unpack(struct panel *panel, const struct weight *w, int o, int n_cols, int k, int n)
{
    unpack_scales(panel, w, o, n_cols, k, n);
    if (w->format != WEIGHT_AFFINE) {
        unpack_codes(panel, w, o, n_cols, k, n, E2M1, 1);
        return;
    }
    switch (w->bits) {
    case 2:
        unpack_codes(panel, w, o, n_cols, k, n, 2, 1);
        break;
    case 3:
        unpack_codes(panel, w, o, n_cols, k, n, 3, 1);
        break;
    case 4:
        unpack_codes(panel, w, o, n_cols, k, n, 4, 1);
        break;
    case 5:
        unpack_codes(panel, w, o, n_cols, k, n, 5, 1);
        break;
    case 6:
        unpack_codes(panel, w, o, n_cols, k, n, 6, 2);
        break;
    default:
        unpack_codes(panel, w, o, n_cols, k, n, 8, 2);
        break;
    }
}

static void multiply_i8(const struct cpu_task *t, int begin, int end, void *scratch)
{
    bool small = t->w->format == WEIGHT_AFFINE && t->w->bits <= 4;
    struct panel *panel = scratch;

    for (int o = begin; o < end; o += COLS)
        for (int k = 0; k < t->w->n_in; k += BLOCK_I8) {
            int n_cols = end - o < COLS ? end - o : COLS;
            int n = t->w->n_in - k < BLOCK_I8 ? t->w->n_in - k : BLOCK_I8;

            unpack(panel, t->w, o, n_cols, k, n);
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

            unpack(panel, t->w, o, n_cols, k, n);
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
