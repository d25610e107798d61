/* device/cpu/few_avx512.c: weights of 4 bits, affine or mxfp4, by some rows, with VNNI.
 *
 * To scale a sum takes operations of the pipes that VNNI goes through, so as many products as can
 * be should be in it: here the 16 lanes of a sum are 16 units, runs of numbers of one group, and
 * the sums of an output by a row are scaled when all of these units are done, a block. Codes get
 * there by transposing the units of a block, 32 bits at a time, in registers. To store 512 bits
 * costs (Zen 4) as much as to multiply them. So codes are not stored when they are transposed but
 * transposed anew for every four rows, and sums as f32 stay in registers too for a piece of a row,
 * which four rows and two outputs leave enough of.
 *
 * A unit has 64 numbers, or 32 where groups have no more, or where that is enough for the end of a
 * row. A piece is blocks of the same unit, up to PIECE numbers. Prepared, x is strips of up to ROWS
 * rows. A strip is pieces, each of them blocks
 *
 *     int8 q [unit / 8][2][ROWS][16][4]
 *     float steps [ROWS][16]
 *
 * and behind them, for its groups,
 *
 *     float sums [ROWS][piece_groups]
 *     bf16 halves [2][ROWS][piece_groups]
 *
 * where q has of every 8 numbers of a unit those at even places, then those at odd ones, as nibbles
 * come out of 32 bits; x = step q, and a sum is that of a group's x as rounded. Biases of bf16 meet
 * halves, which have a sum as bf16 and what that leaves of it.
 *
 * Which unit a lane has is what transposing leaves least to do for: unit_order.
 */
#include "device/cpu/matmul_avx512.h"

#include "base/number.h"

#define ROWS 8
#define MIN_ROWS 4
#define OUTPUTS 8 /* whose weights are in the first cache for all strips, a tile */
#define PAIRS (OUTPUTS / 2)
#define PIECE 2048
#define MAX_STRIPS 2
#define PREPARED 4 /* rows of x at a time */
#define LINE 64
#define FAR 2 /* tiles */

_Static_assert(MAX_STRIPS *ROWS == AVX512_FEW_ROWS, "there are accumulators for all rows");

/* What a thread works with. */
struct work {
    float sums[MAX_STRIPS][PAIRS][2][ROWS][16]; /* of the pieces before */
    uint8_t codes[2][PIECE / 2];                /* where a row ends within a block */
};

_Static_assert(sizeof(struct work) <= CPU_PRODUCT_SCRATCH, "it fits in the scratch");

/* The unit that a lane has. */
static const int32_t order_64[16] = {0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15};
static const int32_t order_32[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};

INLINE const int32_t *unit_order(int unit)
{
    return unit == 64 ? order_64 : order_32;
}

/* Of the block that begins at a number of a row. */
INLINE int unit_at(int k, int n_in, int group_size)
{
    return group_size < 64 || n_in - k <= 512 ? 32 : 64;
}

struct piece {
    int begin, end; /* numbers of a row */
    int unit, n_blocks;
};

static struct piece piece_at(int k, int n_in, int group_size)
{
    struct piece p = {.begin = k, .end = k, .unit = unit_at(k, n_in, group_size)};

    do {
        p.n_blocks++;
        p.end += 16 * p.unit;
    } while (p.end < n_in && p.end - k < PIECE && unit_at(p.end, n_in, group_size) == p.unit);
    p.end = p.end < n_in ? p.end : n_in;
    return p;
}

/* --- x
 * ------------------------------------------------------------------------------------------------
 */

INLINE size_t block_bytes(const int unit)
{
    return ROWS * 16 * ((size_t)unit + sizeof(float));
}

/* There is room for so many, a multiple of 32. */
INLINE int piece_groups(int group_size)
{
    return group_size < 64 ? PIECE / 32 : PIECE / 64;
}

INLINE size_t piece_bytes(const struct piece *p, int group_size)
{
    return (size_t)p->n_blocks * block_bytes(p->unit) +
           ROWS * (size_t)piece_groups(group_size) * (sizeof(float) + 2 * sizeof(uint16_t));
}

static size_t strip_bytes(int n_in, int group_size)
{
    size_t size = 0;

    for (int k = 0; k < n_in;) {
        struct piece p = piece_at(k, n_in, group_size);

        size += piece_bytes(&p, group_size);
        k = p.end;
    }
    return size;
}

/* Rows are shared out among the strips evenly: so many come before strip s. */
INLINE int rows_before(int s, int n_rows)
{
    return s * n_rows / ((n_rows + ROWS - 1) / ROWS);
}

/* x from number k on, of which n there are, as a row of a block; sums [16]: of the units. */
static void prepare_block(uint8_t *block, float *sums, const float *x, int n, int unit)
{
    float *steps = (float *)(void *)(block + 16 * ROWS * unit);

    for (int lane = 0; lane < 16; lane++) {
        int32_t q[16], *to = (int32_t *)(void *)block + lane;
        int i = unit_order(unit)[lane];

        if (i * unit < n) {
            sums[i] = avx2_quantise_i8((int8_t *)q, x + i * unit, unit, steps + lane);
            avx2_order_bytes((int8_t *)q, unit);
        } else {
            memset(q, 0, sizeof q);
            sums[i] = steps[lane] = 0;
        }
        for (int j = 0; j < unit / 4; j++)
            to[j * ROWS * 16] = q[j];
    }
}

/* Row r of a strip. */
static void prepare_row(uint8_t *strip, int r, const float *x, int n_in, int group_size)
{
    int room = piece_groups(group_size);

    for (int k = 0; k < n_in;) {
        struct piece p = piece_at(k, n_in, group_size);
        float units[PIECE / 32];
        uint8_t *end = strip + (size_t)p.n_blocks * block_bytes(p.unit);
        float *sums = (float *)(void *)end + r * room;
        uint16_t *halves = (uint16_t *)((float *)(void *)end + ROWS * room) + r * room;
        int per_group = group_size / p.unit;

        for (int b = 0; b < p.n_blocks; b++, k += 16 * p.unit)
            prepare_block(strip + (size_t)b * block_bytes(p.unit) + 64 * r, units + 16 * b, x + k,
                          n_in - k, p.unit);
        for (int g = 0; g < room; g++) {
            float sum = 0;

            for (int i = g * per_group; i < (g + 1) * per_group && i < 16 * p.n_blocks; i++)
                sum += units[i];
            sums[g] = sum;
            halves[g] = f32_to_bf16(sum);
            halves[ROWS * room + g] = f32_to_bf16(sum - bf16_to_f32(halves[g]));
        }
        strip += piece_bytes(&p, group_size);
        k = p.end;
    }
}

/* x comes PREPARED rows at a time, so that two threads have something to do where there is but one
 * strip: three times this are two strips. */
static size_t prepared_bytes(int n_in, int group_size)
{
    return (strip_bytes(n_in, group_size) / 3 * 2 + 2 * LINE) / LINE * LINE;
}

static void prepare(void *part, const struct cpu_task *t, int first, int n)
{
    int n_in = t->w->n_in, g = t->w->group_size;
    uint8_t *x = (uint8_t *)part - (size_t)(first / PREPARED) * prepared_bytes(n_in, g);

    for (int row = first; row < first + n; row++) {
        int s = row >= rows_before(1, t->n_rows);

        prepare_row(x + (size_t)s * strip_bytes(n_in, g), row - rows_before(s, t->n_rows),
                    cpu_task_x(t, row), n_in, g);
    }
}

/* --- weights */

/* Where a piece of two outputs meets a strip. */
struct meeting {
    const uint8_t *data[2];
    const uint8_t *scales[2], *biases[2]; /* from the first group of the piece on */
    const uint8_t *x;
    int n_blocks, n_groups, room; /* piece_groups */
    int group_shift;              /* 2^so many units are a group */
    enum dtype type;              /* of scales */
    const uint8_t *calls[3]; /* lines that are called for meanwhile: twice as many of the last */
    int step;
    float (*sums)[ROWS][16]; /* [2] */
    bool begin;
    float *const *y; /* of the first output; NULL: there are more pieces */
    int second;      /* so far behind it is the other, 1, or 0: there is but one */
    const float *bias;
};

/* The scales of the units of a block, in the order of their lanes, of which n groups have any. */
INLINE __m512 unit_scales(const uint8_t *p, int n, __m512i order, const enum dtype type)
{
    if (type != DTYPE_BF16)
        return _mm512_permutexvar_ps(order, avx512_scales(p, n, type));
    /* Each number goes to its place and to the upper half of it at once. */
    __m512i v = _mm512_castsi256_si512(_mm256_maskz_loadu_epi16(first_16(n), p));

    return _mm512_castsi512_ps(
        _mm512_maskz_permutexvar_epi16(0xAAAAAAAA, _mm512_slli_epi32(order, 16), v));
}

INLINE __m512 block_scales(const struct meeting *m, int j, int group, __m512i order,
                           const bool e2m1)
{
    int n = m->n_groups - group;

    if (e2m1)
        return _mm512_mul_ps(_mm512_set1_ps(0.5f),
                             unit_scales(m->scales[j] + group, n, order, DTYPE_F8_E8M0));
    if (m->type == DTYPE_BF16)
        return unit_scales(m->scales[j] + 2 * group, n, order, DTYPE_BF16);
    if (m->type == DTYPE_F16)
        return unit_scales(m->scales[j] + 2 * group, n, order, DTYPE_F16);
    return unit_scales(m->scales[j] + 4 * group, n, order, DTYPE_F32);
}

/* Of 16 groups in order. */
INLINE __m512 group_biases(const struct meeting *m, int j, int group, const bool e2m1)
{
    int n = m->n_groups - group;

    if (e2m1)
        return _mm512_mul_ps(_mm512_set1_ps(-0.5f * E2M1_ZERO),
                             avx512_scales(m->scales[j] + group, n, DTYPE_F8_E8M0));
    return m->type == DTYPE_F16 ? avx512_scales(m->biases[j] + 2 * group, n, DTYPE_F16)
                                : avx512_scales(m->biases[j] + 4 * group, n, DTYPE_F32);
}

INLINE void add_biases(__m512 sums[2][ROWS], const struct meeting *m, const uint8_t *x_sums,
                       const bool e2m1, const int rows)
{
    if (!e2m1 && m->type == DTYPE_BF16) {
        x_sums += ROWS * sizeof(float) * (size_t)m->room;
        for (int g = 0; g < m->n_groups; g += 32) {
            int n = m->n_groups - g;
            __mmask32 there = n < 32 ? (1u << n) - 1 : 0xFFFFFFFF;

#pragma GCC unroll 2
            for (int j = 0; j < 2; j++) {
                __m512bh b = (__m512bh)_mm512_maskz_loadu_epi16(there, m->biases[j] + 2 * g);

#pragma GCC unroll 8
                for (int r = 0; r < rows; r++) {
                    const uint8_t *high = x_sums + 2 * (r * m->room + g);
                    const uint8_t *low = high + 2 * ROWS * m->room;

                    sums[j][r] = _mm512_dpbf16_ps(sums[j][r], b, (__m512bh)_mm512_load_si512(high));
                    sums[j][r] = _mm512_dpbf16_ps(sums[j][r], b, (__m512bh)_mm512_load_si512(low));
                }
            }
        }
        return;
    }
    for (int g = 0; g < m->n_groups; g += 16)
#pragma GCC unroll 2
        for (int j = 0; j < 2; j++) {
            __m512 b = group_biases(m, j, g, e2m1);

#pragma GCC unroll 8
            for (int r = 0; r < rows; r++)
                sums[j][r] =
                    _mm512_fmadd_ps(b, _mm512_load_ps(x_sums + 4 * (r * m->room + g)), sums[j][r]);
        }
}

/* Of four vectors of codes 32 bits each, in every 128 bits the i-th, for two i from first on. */
INLINE void transpose_four(__m512i v[2], const uint8_t *p, const int first)
{
    __m512i a = _mm512_loadu_si512(p), b = _mm512_loadu_si512(p + 64);
    __m512i c = _mm512_loadu_si512(p + 128), d = _mm512_loadu_si512(p + 192);
    __m512i ab = first ? _mm512_unpackhi_epi32(a, b) : _mm512_unpacklo_epi32(a, b);
    __m512i cd = first ? _mm512_unpackhi_epi32(c, d) : _mm512_unpacklo_epi32(c, d);

    v[0] = _mm512_unpacklo_epi64(ab, cd);
    v[1] = _mm512_unpackhi_epi64(ab, cd);
}

/* 8 numbers of each unit, four times (units of 64) or twice. */
INLINE void transpose(__m512i v[4], const uint8_t *p, const int first, const int unit)
{
    __m512i low[2], high[2];

    if (unit == 32) {
        transpose_four(v, p, first);
        return;
    }
    transpose_four(low, p, first);
    transpose_four(high, p + 256, first);
    v[0] = _mm512_shuffle_i64x2(low[0], high[0], 0x88);
    v[1] = _mm512_shuffle_i64x2(low[1], high[1], 0x88);
    v[2] = _mm512_shuffle_i64x2(low[0], high[0], 0xDD);
    v[3] = _mm512_shuffle_i64x2(low[1], high[1], 0xDD);
}

/* --- products */

INLINE __m512i to_bytes(__m512i v, const bool e2m1)
{
    v = _mm512_and_si512(v, _mm512_set1_epi8(0x0F));
    return e2m1 ? avx512_e2m1(v) : v;
}

/* Calls for a line each, where the products before are. */
INLINE void call(__m512i acc[2][ROWS], const uint8_t *a, const uint8_t *b)
{
    __asm__("prefetcht1 %1\n\tprefetcht1 %2" : "+v"(acc[0][0]) : "m"(*a), "m"(*b));
}

/* acc += the products of 8 numbers of each unit of two outputs, whose codes are v0 and v1. */
INLINE void multiply_codes(__m512i acc[2][ROWS], __m512i v0, __m512i v1, const uint8_t *x,
                           const uint8_t *next, const uint8_t *far, int step, const bool e2m1,
                           const int rows)
{
#pragma GCC unroll 2
    for (int odd = 0; odd < 2; odd++, x += 64 * ROWS) {
        __m512i w0 = to_bytes(odd ? _mm512_srli_epi16(v0, 4) : v0, e2m1);
        __m512i w1 = to_bytes(odd ? _mm512_srli_epi16(v1, 4) : v1, e2m1);

        call(acc, next + odd * step, far + odd * step);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            __m512i xr = avx512_now(_mm512_load_si512(x + 64 * r));

            acc[0][r] = avx512_now(_mm512_dpbusd_epi32(acc[0][r], w0, xr));
            acc[1][r] = avx512_now(_mm512_dpbusd_epi32(acc[1][r], w1, xr));
        }
    }
}

INLINE void multiply_block(__m512i acc[2][ROWS], const uint8_t *const data[2], const uint8_t *x,
                           const uint8_t *const calls[3], int step, const int unit, const bool e2m1,
                           const int rows)
{
    const int n = unit / 16, stride = 128 * ROWS;

#pragma GCC unroll 2
    for (int first = 0; first < 4; first += 2) {
        __m512i v[2][4];

        transpose(v[0], data[0], first, unit);
        transpose(v[1], data[1], first, unit);
#pragma GCC unroll 8
        for (int i = 0; i < n; i++) {
            multiply_codes(acc, v[0][i], v[1][i], x + (first + i % 2 + i / 2 * 4) * stride,
                           calls[first / 2] + 2 * i * step, calls[2] + (first * n + 2 * i) * step,
                           step, e2m1, rows);
        }
    }
}

INLINE __m512 sums4_512(__m512 a, __m512 b, __m512 c, __m512 d)
{
    __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));

    return _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xEE));
}

/* Up to eight vectors, of two outputs by four rows each: in every 128 bits a part of four sums. */
INLINE __m512 sums_of_four(__m512 sums[2][ROWS], const int first, const int rows)
{
    const __m512 none = _mm512_setzero_ps();
    __m512 a, b;

    if (rows <= first)
        return none;
    a = sums4_512(sums[0][first], sums[1][first], rows > first + 1 ? sums[0][first + 1] : none,
                  rows > first + 1 ? sums[1][first + 1] : none);
    if (rows <= first + 2)
        b = none;
    else
        b = sums4_512(sums[0][first + 2], sums[1][first + 2],
                      rows > first + 3 ? sums[0][first + 3] : none,
                      rows > first + 3 ? sums[1][first + 3] : none);
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xDD));
}

/* y of two outputs. */
INLINE void store(const struct meeting *m, __m512 sums[2][ROWS], const int rows)
{
    __m512 a = sums_of_four(sums, 0, rows), b = sums_of_four(sums, 4, rows);
    float y[ROWS][2];

    a = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xDD));
    if (m->bias)
        a = _mm512_add_ps(a, _mm512_mask_mov_ps(_mm512_set1_ps(m->bias[0]), 0xAAAA,
                                                _mm512_set1_ps(m->bias[m->second])));
    _mm512_storeu_ps(y[0], a);
    __asm__ volatile("" : : "r"(y) : "memory"); /* one by one from there, not out of the register */
    if (m->second)
        for (int r = 0; r < rows; r++)
            memcpy(m->y[r], y[r], sizeof y[r]);
    else
        for (int r = 0; r < rows; r++)
            m->y[r][0] = y[r][0];
}

INLINE void multiply_pair(const struct meeting *m, const int unit, const bool e2m1, const int rows)
{
    const __m512i order =
        _mm512_srl_epi32(_mm512_loadu_si512(unit_order(unit)), _mm_cvtsi32_si128(m->group_shift));
    const uint8_t *data[2] = {m->data[0], m->data[1]};
    const uint8_t *calls[3] = {m->calls[0], m->calls[1], m->calls[2]}, *x = m->x;
    int group = 0;

    for (int left = m->n_blocks; left-- > 0;) {
        const bool begin = m->begin && x == m->x;
        __m512i acc[2][ROWS];
        __m512 sums[2][ROWS];

#pragma GCC unroll 8
        for (int r = 0; r < rows; r++)
            acc[0][r] = acc[1][r] = _mm512_setzero_si512();
        multiply_block(acc, data, x, calls, m->step, unit, e2m1, rows);
        x += 16 * unit * ROWS;

        __m512 scales[2] = {block_scales(m, 0, group, order, e2m1),
                            block_scales(m, 1, group, order, e2m1)};

        group += 16 >> m->group_shift;
        for (int j = 0; j < 2; j++) {
            data[j] += 8 * unit;
            calls[j] += unit / 8 * m->step;
        }
        calls[2] += unit / 4 * m->step;
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            __m512 step = _mm512_load_ps(x + 64 * r);

#pragma GCC unroll 2
            for (int j = 0; j < 2; j++) {
                __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(acc[j][r]), step);

                sums[j][r] = begin ? _mm512_mul_ps(v, scales[j])
                                   : _mm512_fmadd_ps(v, scales[j], _mm512_load_ps(m->sums[j][r]));
            }
        }
        x += ROWS * 16 * sizeof(float);
        if (left == 0)
            add_biases(sums, m, x, e2m1, rows);
        if (left == 0 && m->y) {
            store(m, sums, rows);
            return;
        }
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            _mm512_store_ps(m->sums[0][r], sums[0][r]);
            _mm512_store_ps(m->sums[1][r], sums[1][r]);
        }
    }
}

/* A function for each format of block and number of rows: see gemv_avx2.h. */
typedef void multiply_meeting(const struct meeting *m);

#define MULTIPLY_ROWS(name, unit, e2m1, rows)                                                      \
    static __attribute__((noinline)) void name##_##rows(const struct meeting *m)                   \
    {                                                                                              \
        multiply_pair(m, unit, e2m1, rows);                                                        \
    }
#define MULTIPLY(name, unit, e2m1)                                                                 \
    MULTIPLY_ROWS(name, unit, e2m1, 4)                                                             \
    MULTIPLY_ROWS(name, unit, e2m1, 5)                                                             \
    MULTIPLY_ROWS(name, unit, e2m1, 6)                                                             \
    MULTIPLY_ROWS(name, unit, e2m1, 7)                                                             \
    MULTIPLY_ROWS(name, unit, e2m1, 8)

MULTIPLY(multiply_mxfp4, 32, true)
MULTIPLY(multiply_32, 32, false)
MULTIPLY(multiply_64, 64, false)

#define NUMBERS_OF_ROWS(name)                                                                      \
    {                                                                                              \
        name##_4, name##_5, name##_6, name##_7, name##_8                                           \
    }

static multiply_meeting *function_for(const struct weight *w, int unit, int rows)
{
    static multiply_meeting *const functions[][ROWS - MIN_ROWS + 1] = {
        NUMBERS_OF_ROWS(multiply_mxfp4),
        NUMBERS_OF_ROWS(multiply_32),
        NUMBERS_OF_ROWS(multiply_64),
    };

    return functions[w->format == WEIGHT_MXFP4 ? 0 : unit / 32][rows - MIN_ROWS];
}

/* --- tiles */

/* What a call goes through, and where it is: strips as of the piece that begins at k. */
struct walk {
    const struct cpu_task *task;
    struct work *work;
    size_t row_bytes, scale_row_bytes;
    int second; /* as of meetings */
    int last;   /* the first output of the last pair */
    int n_strips, rows[MAX_STRIPS], first_row[MAX_STRIPS];
    const uint8_t *x[MAX_STRIPS];
    size_t codes, scales; /* bytes of a row before the piece, and of its factors */
};

static void open_walk(struct walk *walk, const struct cpu_task *t, int begin, int end,
                      struct work *work)
{
    *walk = (struct walk){
        .task = t,
        .work = work,
        .row_bytes = weight_row_bytes(t->w),
        .scale_row_bytes = weight_scale_row_bytes(t->w),
        .second = end - begin > 1,
        .last = end - begin > 1 ? end - 2 : begin,
        .n_strips = (t->n_rows + ROWS - 1) / ROWS,
    };
    for (int s = 0; s < walk->n_strips; s++) {
        walk->first_row[s] = rows_before(s, t->n_rows);
        walk->rows[s] = rows_before(s + 1, t->n_rows) - walk->first_row[s];
    }
}

/* What lies within a row from p on may end with the memory. */
static void copy_codes(struct meeting *m, struct work *work, const struct piece *p)
{
    size_t there = (size_t)(p->end - p->begin) / 2, size = 8 * (size_t)(p->unit * p->n_blocks);

    for (int j = 0; j < 2; j++) {
        memcpy(work->codes[j], m->data[j], there);
        memset(work->codes[j] + there, 0, size - there);
        m->data[j] = work->codes[j];
    }
}

/* Outputs at and second behind it. */
INLINE void open_meeting(struct meeting *m, const struct walk *walk, int at)
{
    const struct weight *w = walk->task->w;
    const uint8_t *data = (const uint8_t *)w->data + (size_t)at * walk->row_bytes + walk->codes;
    size_t scales = (size_t)at * walk->scale_row_bytes + walk->scales;

    m->data[0] = data;
    m->data[1] = data + (walk->second ? walk->row_bytes : 0);
    m->scales[0] = (const uint8_t *)w->scales + scales;
    m->scales[1] = m->scales[0] + (walk->second ? walk->scale_row_bytes : 0);
    if (w->format == WEIGHT_AFFINE) {
        m->biases[0] = (const uint8_t *)w->biases + scales;
        m->biases[1] = m->biases[0] + (walk->second ? walk->scale_row_bytes : 0);
    }
}

/* What is called for during the meetings of a piece of a tile, for each of its OUTPUTS: codes of
 * the piece that comes next, once more; in the order of memory, what lies FAR tiles behind; and so
 * scales. */
struct calls {
    const uint8_t *next, *far, *scales, *biases;
    size_t row_bytes, far_bytes, scale_bytes;
};

static struct calls open_calls(const struct walk *walk, const struct piece *p, int tile)
{
    const struct weight *w = walk->task->w;
    size_t numbers = (size_t)(p->end - p->begin), far = (size_t)(tile + FAR * OUTPUTS);
    size_t bytes = walk->scale_row_bytes * numbers / (size_t)w->n_in;
    size_t scales = far * walk->scale_row_bytes + OUTPUTS * walk->scales;
    size_t next = p->end < w->n_in ? walk->codes + numbers / 2 : OUTPUTS * walk->row_bytes;

    return (struct calls){
        .next = (const uint8_t *)w->data + (size_t)tile * walk->row_bytes + next,
        .far = (const uint8_t *)w->data + far * walk->row_bytes + OUTPUTS * walk->codes,
        .scales = (const uint8_t *)w->scales + scales,
        .biases = (const uint8_t *)(w->format == WEIGHT_AFFINE ? w->biases : w->scales) + scales,
        .row_bytes = walk->row_bytes,
        .far_bytes = numbers,
        .scale_bytes = 2 * bytes,
    };
}

INLINE void call_next(struct meeting *m, struct calls *c)
{
    m->calls[0] = c->next;
    m->calls[1] = c->next + c->row_bytes;
    m->calls[2] = c->far;
    for (size_t i = 0; i < c->scale_bytes; i += LINE) {
        _mm_prefetch((const char *)c->scales + i, _MM_HINT_T1);
        _mm_prefetch((const char *)c->biases + i, _MM_HINT_T1);
    }
    c->next += 2 * c->row_bytes;
    c->far += c->far_bytes;
    c->scales += c->scale_bytes;
    c->biases += c->scale_bytes;
}

/* A piece of the outputs from tile on. */
static void multiply_piece(const struct walk *walk, const struct piece *p, int tile, int end)
{
    const struct cpu_task *t = walk->task;
    const struct weight *w = t->w;
    int n_pairs = (end - tile + 1) / 2 < PAIRS ? (end - tile + 1) / 2 : PAIRS;
    bool partial = p->begin + 16 * p->unit * p->n_blocks > w->n_in;
    struct calls calls = open_calls(walk, p, tile);
    float *y[ROWS];
    struct meeting m = {
        .n_blocks = p->n_blocks,
        .n_groups = (p->end - p->begin) / w->group_size,
        .room = piece_groups(w->group_size),
        .group_shift = __builtin_ctz((unsigned)(w->group_size / p->unit)),
        .type = w->scale_type,
        .begin = p->begin == 0,
        .y = p->end == w->n_in ? y : NULL,
        .second = walk->second,
    };

    for (int s = 0; s < walk->n_strips; s++) {
        multiply_meeting *f = function_for(w, p->unit, walk->rows[s]);

        m.x = m.calls[0] = m.calls[1] = m.calls[2] = walk->x[s];
        m.step = s == 0 ? LINE : 0;
        for (int i = 0; i < n_pairs; i++) {
            int at = tile + 2 * i < walk->last ? tile + 2 * i : walk->last;

            open_meeting(&m, walk, at);
            if (partial)
                copy_codes(&m, walk->work, p);
            if (s == 0)
                call_next(&m, &calls);
            m.sums = walk->work->sums[s][i];
            m.bias = t->bias ? t->bias + at : NULL;
            for (int r = 0; r < walk->rows[s]; r++)
                y[r] = cpu_task_y(t, walk->first_row[s] + r) + at;
            f(&m);
        }
    }
}

static void multiply(const struct cpu_task *task, int begin, int end, void *scratch)
{
    const struct weight *w = task->w;
    size_t strip = strip_bytes(w->n_in, w->group_size);
    struct walk walk;

    open_walk(&walk, task, begin, end, scratch);
    for (int tile = begin; tile < end; tile += OUTPUTS) {
        for (int s = 0; s < walk.n_strips; s++)
            walk.x[s] = (const uint8_t *)task->prepared + (size_t)s * strip;
        walk.codes = walk.scales = 0;
        for (int k = 0; k < w->n_in;) {
            struct piece p = piece_at(k, w->n_in, w->group_size);

            multiply_piece(&walk, &p, tile, end);
            for (int s = 0; s < walk.n_strips; s++)
                walk.x[s] += piece_bytes(&p, w->group_size);
            walk.codes += (size_t)(p.end - k) / 2;
            walk.scales += walk.scale_row_bytes * (size_t)(p.end - k) / (size_t)w->n_in;
            k = p.end;
        }
    }
}

const struct cpu_product avx512_few = {
    .name = "i8 rows, VNNI",
    .panel_cols = OUTPUTS,
    .strip_rows = PREPARED,
    .strip_bytes = prepared_bytes,
    .prepare = prepare,
    .multiply = multiply,
};
