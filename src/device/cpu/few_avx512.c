/* device/cpu/few_avx512.c: weights of 4 bits, affine or mxfp4, by some rows, with VNNI.
 *
 * To scale a sum takes three operations of the pipes that VNNI goes through, so as many products as
 * can be should be in it: here the 16 lanes of a sum are 16 units, runs of numbers of one group,
 * and the sums of an output by a row are scaled when all of these units are done, a block. Codes
 * get there by transposing the units of a block, 32 bits at a time. That goes on beside the
 * products of the outputs before, as does adding up the lanes of those that are done.
 *
 * A unit has 64 numbers, or 32 where groups have no more, or where that is enough for the end of a
 * row. Prepared, x is strips of up to ROWS rows. A strip is blocks:
 *
 *     int8 q [unit / 8][2][ROWS][16][4]
 *     float steps [ROWS][16]
 *     float sums [ROWS][16]
 *
 * where q has of every 8 numbers of a unit those at even places, then those at odd ones, as nibbles
 * come out of 32 bits; x = step q, and a sum is that of a unit's x as rounded.
 *
 * Which unit a lane has is what transposing leaves least to do for: unit_order.
 */
#include "device/cpu/matmul_avx512.h"

#define ROWS 8
#define MIN_ROWS 4
#define OUTPUTS 4 /* side by side; with 8 of them the first cache is too small */
#define PAIRS (OUTPUTS / 2)
#define CODES 512  /* bytes of codes in a block, at most */
#define AHEAD 1024 /* bytes of a row */
#define MAX_STRIPS 2

_Static_assert(MAX_STRIPS *ROWS == AVX512_FEW_ROWS, "there are accumulators for all rows");

/* What a thread works with. */
struct work {
    uint8_t codes[2][OUTPUTS][CODES];               /* of this block, and of the next */
    float scales[OUTPUTS][16], biases[OUTPUTS][16]; /* of units, in the order of lanes */
    float sums[MAX_STRIPS][PAIRS][ROWS][2][16];
    float quarters[4][16];
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

/* --- x
 * ------------------------------------------------------------------------------------------------
 */

INLINE size_t block_bytes(const int unit)
{
    return ROWS * 16 * ((size_t)unit + 2 * sizeof(float));
}

static size_t strip_bytes(int n_in, int group_size)
{
    size_t size = 0;

    for (int k = 0; k < n_in;) {
        int unit = unit_at(k, n_in, group_size);

        size += block_bytes(unit);
        k += 16 * unit;
    }
    return size;
}

/* Rows are shared out among the strips evenly: so many come before strip s. */
INLINE int rows_before(int s, int n_rows)
{
    return s * n_rows / ((n_rows + ROWS - 1) / ROWS);
}

static void prepare_row(uint8_t *block, const float *x, int n_in, int group_size)
{
    for (int k = 0; k < n_in;) {
        int unit = unit_at(k, n_in, group_size);
        float *steps = (float *)(void *)(block + 16 * ROWS * unit);

        for (int lane = 0; lane < 16; lane++) {
            int32_t q[16], *to = (int32_t *)(void *)block + lane;
            int i = k + unit_order(unit)[lane] * unit;

            if (i < n_in) {
                steps[ROWS * 16 + lane] = avx2_quantise_i8((int8_t *)q, x + i, unit, steps + lane);
                avx2_order_bytes((int8_t *)q, unit);
            } else {
                memset(q, 0, sizeof q);
                steps[ROWS * 16 + lane] = steps[lane] = 0;
            }
            for (int j = 0; j < unit / 4; j++)
                to[j * ROWS * 16] = q[j];
        }
        block += block_bytes(unit);
        k += 16 * unit;
    }
}

static void prepare(void *strip, const struct cpu_task *t, int first, int n)
{
    int n_in = t->w->n_in, g = t->w->group_size, s = first / ROWS;
    int row = rows_before(s, t->n_rows), end = rows_before(s + 1, t->n_rows);

    (void)n;
    for (uint8_t *at = strip; row < end; row++, at += 64)
        prepare_row(at, cpu_task_x(t, row), n_in, g);
}

/* --- weights */

/* Outputs whose weights are read side by side. */
struct tile {
    int at[PAIRS]; /* the first of each pair */
    int second;    /* 1: how far behind it the other is; 0: there is but one output */
    const uint8_t *data[OUTPUTS];
    const uint8_t *scales[OUTPUTS], *biases[OUTPUTS];
};

/* The scales of the units of a block, in the order of their lanes, of which n groups have any. */
INLINE __m512 unit_scales(const uint8_t *p, int n, __m512i order, const enum dtype type)
{
    if (type != DTYPE_BF16)
        return _mm512_permutexvar_ps(order, avx512_scales(p, n, type));
    /* Each number goes to its place and to the upper half of it at once. */
    __m512i v = _mm512_castsi256_si512(n >= 16 ? _mm256_loadu_si256((const __m256i *)p)
                                               : _mm256_maskz_loadu_epi16(first_16(n), p));

    return _mm512_castsi512_ps(
        _mm512_maskz_permutexvar_epi16(0xAAAAAAAA, _mm512_slli_epi32(order, 16), v));
}

/* For a block whose first group is given. */
INLINE void expand_type(struct work *work, const struct tile *t, size_t group, int n, __m512i order,
                        const enum dtype type)
{
    size_t at = group * (type == DTYPE_F32 ? 4 : type == DTYPE_F8_E8M0 ? 1 : 2);

#pragma GCC unroll 8
    for (int o = 0; o < OUTPUTS; o++) {
        __m512 scales = unit_scales(t->scales[o] + at, n, order, type), biases;

        if (type == DTYPE_F8_E8M0) {
            scales = _mm512_mul_ps(scales, _mm512_set1_ps(0.5f));
            biases = _mm512_mul_ps(scales, _mm512_set1_ps(-E2M1_ZERO));
        } else {
            biases = unit_scales(t->biases[o] + at, n, order, type);
        }
        _mm512_store_ps(work->scales[o], scales);
        _mm512_store_ps(work->biases[o], biases);
    }
}

static void expand_factors(struct work *work, const struct tile *t, const struct weight *w, int k,
                           int unit)
{
    int g = w->group_size, left = (w->n_in - k) / g, most = 16 * unit / g;
    int n = left < most ? left : most;
    __m512i order = _mm512_srli_epi32(_mm512_loadu_si512(unit_order(unit)),
                                      (unsigned)__builtin_ctz((unsigned)(g / unit)));
    size_t group = (size_t)(k / g);

    if (w->format == WEIGHT_MXFP4)
        expand_type(work, t, group, n, order, DTYPE_F8_E8M0);
    else if (w->scale_type == DTYPE_BF16)
        expand_type(work, t, group, n, order, DTYPE_BF16);
    else if (w->scale_type == DTYPE_F16)
        expand_type(work, t, group, n, order, DTYPE_F16);
    else
        expand_type(work, t, group, n, order, DTYPE_F32);
}

/* What is done while two outputs are multiplied: a block of their next codes is transposed, and
 * what the tile before left in their sums is added up. */
struct chores {
    const uint8_t *from[2];
    uint8_t *to[2];
    size_t ahead;          /* from there, what is called for */
    int size;              /* bytes of an output that are there; 0: none */
    float (*sums)[2][16];  /* [ROWS], NULL: none */
    float (*quarters)[16]; /* [4]: for every four vectors of sums, in each 128 bits what those of
                              the four sum up to */
};

INLINE __m512i load_codes(const uint8_t *p, int n)
{
    return n >= 64 ? _mm512_loadu_si512(p)
           : n > 0 ? _mm512_maskz_loadu_epi8(~0ull >> (64 - n), p)
                   : _mm512_setzero_si512();
}

/* Vector i of four: 32 bits from each of four vectors of codes, in every 128 bits the i-th. Units
 * of 64 have two such fours, whose halves come together when they are multiplied. */
INLINE void transpose_four(uint8_t *to, const uint8_t *p, int size)
{
    __m512i a = load_codes(p, size), b = load_codes(p + 64, size - 64);
    __m512i c = load_codes(p + 128, size - 128), d = load_codes(p + 192, size - 192);
    __m512i ab0 = _mm512_unpacklo_epi32(a, b), ab2 = _mm512_unpackhi_epi32(a, b);
    __m512i cd0 = _mm512_unpacklo_epi32(c, d), cd2 = _mm512_unpackhi_epi32(c, d);

    _mm512_store_si512(to, _mm512_unpacklo_epi64(ab0, cd0));
    _mm512_store_si512(to + 64, _mm512_unpackhi_epi64(ab0, cd0));
    _mm512_store_si512(to + 128, _mm512_unpacklo_epi64(ab2, cd2));
    _mm512_store_si512(to + 192, _mm512_unpackhi_epi64(ab2, cd2));
}

/* A quarter of what there is to do. */
INLINE void transpose(const struct chores *s, int quarter)
{
    int o = quarter / 2, first = quarter % 2 * 256;

    if (s->size <= first)
        return;
    const uint8_t *p = s->from[o] + first;

    for (int i = 0; i < 256; i += 64)
        _mm_prefetch((const char *)p + s->ahead + i, _MM_HINT_T1);
    if (s->size >= first + 256)
        transpose_four(s->to[o] + first, p, 256);
    else
        transpose_four(s->to[o] + first, p, s->size - first);
}

INLINE __m512 sums4_512(__m512 a, __m512 b, __m512 c, __m512 d)
{
    __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));

    return _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xEE));
}

/* Of two rows. */
INLINE void add_up(const struct chores *s, int quarter)
{
    float(*v)[16] = s->sums[2 * quarter];

    _mm512_store_ps(s->quarters[quarter], sums4_512(_mm512_load_ps(v[0]), _mm512_load_ps(v[1]),
                                                    _mm512_load_ps(v[2]), _mm512_load_ps(v[3])));
}

/* --- products */

INLINE __m512i to_bytes(__m512i v, const bool e2m1)
{
    v = _mm512_and_si512(v, _mm512_set1_epi8(0x0F));
    return e2m1 ? avx512_e2m1(v) : v;
}

/* acc += the products of 8 numbers of each unit of two outputs, whose codes are in v. */
INLINE void multiply_codes(__m512i acc[2][ROWS], const __m512i v[2], const uint8_t *x,
                           const bool e2m1, const int rows)
{
#pragma GCC unroll 2
    for (int odd = 0; odd < 2; odd++, x += 64 * ROWS) {
        __m512i w0 = to_bytes(odd ? _mm512_srli_epi16(v[0], 4) : v[0], e2m1);
        __m512i w1 = to_bytes(odd ? _mm512_srli_epi16(v[1], 4) : v[1], e2m1);

#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            __m512i xr = avx512_now(_mm512_load_si512(x + 64 * r));

            acc[0][r] = avx512_now(_mm512_dpbusd_epi32(acc[0][r], w0, xr));
            acc[1][r] = avx512_now(_mm512_dpbusd_epi32(acc[1][r], w1, xr));
        }
    }
}

/* sums += the products of a block of outputs o and o + 1; meanwhile chores are done. */
INLINE void multiply_pair(float sums[ROWS][2][16], const struct work *work, int now, int o,
                          const uint8_t *x, const struct chores *chores, bool begin, const int unit,
                          const bool e2m1, const int rows)
{
    const uint8_t *codes0 = work->codes[now][o], *codes1 = work->codes[now][o + 1];
    const __mmask16 before = begin ? 0 : 0xFFFF;
    __m512i acc[2][ROWS];

#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
        acc[0][r] = acc[1][r] = _mm512_setzero_si512();
    for (int i = 0; i < 4; i++, codes0 += 64, codes1 += 64, x += 128 * ROWS) {
        __m512i v[2] = {_mm512_load_si512(codes0), _mm512_load_si512(codes1)};

        transpose(chores, i);
        if (chores->sums && 2 * i < rows)
            add_up(chores, i);
        if (unit == 32) {
            multiply_codes(acc, v, x, e2m1, rows);
        } else {
            __m512i w0 = _mm512_load_si512(codes0 + 256), w1 = _mm512_load_si512(codes1 + 256);
            __m512i even[2] = {_mm512_shuffle_i64x2(v[0], w0, 0x88),
                               _mm512_shuffle_i64x2(v[1], w1, 0x88)};
            __m512i odd[2] = {_mm512_shuffle_i64x2(v[0], w0, 0xDD),
                              _mm512_shuffle_i64x2(v[1], w1, 0xDD)};

            multiply_codes(acc, even, x, e2m1, rows);
            multiply_codes(acc, odd, x + 512 * ROWS, e2m1, rows);
        }
    }
    x += 16 * (unit - 32) * ROWS; /* steps and sums */
#pragma GCC unroll 2
    for (int j = 0; j < 2; j++) {
        __m512 scale = _mm512_load_ps(work->scales[o + j]);
        __m512 bias = _mm512_load_ps(work->biases[o + j]);

#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            __m512 sum = _mm512_maskz_load_ps(before, sums[r][j]);
            __m512 products =
                _mm512_mul_ps(_mm512_cvtepi32_ps(acc[j][r]), _mm512_load_ps(x + 64 * r));

            sum = _mm512_fmadd_ps(bias, _mm512_load_ps(x + 64 * (ROWS + r)), sum);
            _mm512_store_ps(sums[r][j], _mm512_fmadd_ps(products, scale, sum));
        }
    }
}

/* A function for each format of block and number of rows: see gemv_avx2.h. */
typedef void multiply_block(float sums[ROWS][2][16], const struct work *work, int now, int o,
                            const uint8_t *x, const struct chores *chores, bool begin);

#define MULTIPLY_ROWS(name, unit, e2m1, rows)                                                      \
    static __attribute__((noinline)) void name##_##rows(                                           \
        float sums[ROWS][2][16], const struct work *work, int now, int o, const uint8_t *x,        \
        const struct chores *chores, bool begin)                                                   \
    {                                                                                              \
        multiply_pair(sums, work, now, o, x, chores, begin, unit, e2m1, rows);                     \
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

static multiply_block *block_function(const struct weight *w, int unit, int rows)
{
    static multiply_block *const functions[][ROWS - MIN_ROWS + 1] = {
        NUMBERS_OF_ROWS(multiply_mxfp4),
        NUMBERS_OF_ROWS(multiply_32),
        NUMBERS_OF_ROWS(multiply_64),
    };

    return functions[w->format == WEIGHT_MXFP4 ? 0 : unit / 32][rows - MIN_ROWS];
}

/* The block of a pair of outputs from number k on, to where it will be multiplied from. */
INLINE void add_block(struct chores *c, struct work *work, int now, const struct tile *t, int p,
                      const struct weight *w, int k)
{
    int whole = 8 * unit_at(k, w->n_in, w->group_size), left = (w->n_in - k) / 2;

    /* What comes so far behind, in this row or in the one of the next tile. */
    c->ahead = AHEAD + (k / 2 + AHEAD < w->n_in / 2 ? 0 : (OUTPUTS - 1) * (size_t)w->n_in / 2);
    for (int i = 0; i < 2; i++) {
        c->from[i] = t->data[2 * p + i] + k / 2;
        c->to[i] = work->codes[now][2 * p + i];
    }
    c->size = left < whole ? left : whole;
}

/* The rows of a strip. */
struct strip {
    const uint8_t *x;
    float *y[ROWS];
    int rows;
};

/* y of a pair of outputs, of a tile whose sums have been added up to quarters. */
INLINE void store_pair(const struct strip *s, const struct tile *t, int p, float quarters[4][16],
                       const float *bias)
{
    __m512 a = _mm512_load_ps(quarters[0]), b = _mm512_load_ps(quarters[1]);
    __m512 c = _mm512_load_ps(quarters[2]), d = _mm512_load_ps(quarters[3]);
    float y[ROWS][2];

    a = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xDD));
    c = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x88), _mm512_shuffle_f32x4(c, d, 0xDD));
    a = _mm512_add_ps(_mm512_shuffle_f32x4(a, c, 0x88), _mm512_shuffle_f32x4(a, c, 0xDD));
    if (bias) {
        __m512 b0 = _mm512_set1_ps(bias[t->at[p]]);
        __m512 b1 = _mm512_set1_ps(bias[t->at[p] + t->second]);

        a = _mm512_add_ps(a, _mm512_mask_mov_ps(b0, 0xAAAA, b1));
    }
    _mm512_storeu_ps(y[0], a);
    __asm__ volatile("" : : "r"(y) : "memory"); /* one by one from there, not out of the register */
    if (t->second)
        for (int r = 0; r < s->rows; r++)
            memcpy(s->y[r] + t->at[p], y[r], sizeof y[r]);
    else
        for (int r = 0; r < s->rows; r++)
            s->y[r][t->at[p]] = y[r][0];
}

/* The outputs from i on; past the end: the last pair once more. */
static void open_tile(struct tile *t, const struct weight *w, int i, int end, int second)
{
    size_t row_bytes = weight_row_bytes(w), scale_bytes = weight_scale_row_bytes(w);

    t->second = second;
    for (int p = 0; p < PAIRS; p++) {
        int last = end - 1 - second, at = i + 2 * p < last ? i + 2 * p : last;

        t->at[p] = at;
        for (int o = 2 * p; o < 2 * p + 2; o++, at += second) {
            t->data[o] = (const uint8_t *)w->data + (size_t)at * row_bytes;
            t->scales[o] = (const uint8_t *)w->scales + (size_t)at * scale_bytes;
            if (w->format == WEIGHT_AFFINE)
                t->biases[o] = (const uint8_t *)w->biases + (size_t)at * scale_bytes;
        }
    }
    for (size_t b = 0; b < OUTPUTS * scale_bytes; b += 64) { /* of the tile behind this one */
        _mm_prefetch((const char *)t->scales[0] + OUTPUTS * scale_bytes + b, _MM_HINT_T1);
        if (w->format == WEIGHT_AFFINE)
            _mm_prefetch((const char *)t->biases[0] + OUTPUTS * scale_bytes + b, _MM_HINT_T1);
    }
}

static int open_strips(struct strip *strips, const struct cpu_task *t)
{
    int n = (t->n_rows + ROWS - 1) / ROWS;

    for (int s = 0; s < n; s++) {
        int first = rows_before(s, t->n_rows);

        strips[s].x =
            (const uint8_t *)t->prepared + (size_t)s * strip_bytes(t->w->n_in, t->w->group_size);
        strips[s].rows = rows_before(s + 1, t->n_rows) - first;
        for (int r = 0; r < strips[s].rows; r++)
            strips[s].y[r] = cpu_task_y(t, first + r);
    }
    return n;
}

/* All blocks of a tile by all rows; its first block is there, and in the end that of the next tile.
 * Of the tile before, y is written. */
static void multiply_tile(const struct cpu_task *task, struct work *work, int *now,
                          const struct tile *const tiles[3], const struct strip *strips,
                          int n_strips)
{
    const struct weight *w = task->w;
    const struct tile *before = tiles[0], *t = tiles[1], *next = tiles[2];
    size_t x = 0;

    for (int k = 0, end; k < w->n_in; k = end, *now = !*now) {
        int unit = unit_at(k, w->n_in, w->group_size);

        end = k + 16 * unit;
        expand_factors(work, t, w, k, unit);
        for (int s = 0; s < n_strips; s++) {
            multiply_block *f = block_function(w, unit, strips[s].rows);

            for (int p = 0; p < PAIRS; p++) {
                struct chores chores = {.quarters = work->quarters};

                if (s == 0 && end < w->n_in)
                    add_block(&chores, work, !*now, t, p, w, end);
                else if (s == 0 && next)
                    add_block(&chores, work, !*now, next, p, w, 0);
                if (k == 0 && before)
                    chores.sums = work->sums[s][p];
                f(work->sums[s][p], work, *now, 2 * p, strips[s].x + x, &chores, k == 0);
                if (chores.sums)
                    store_pair(&strips[s], before, p, work->quarters, task->bias);
            }
        }
        x += block_bytes(unit);
    }
}

static void multiply(const struct cpu_task *task, int begin, int end, void *scratch)
{
    const struct weight *w = task->w;
    struct work *work = scratch;
    struct strip strips[MAX_STRIPS];
    struct tile tiles[3];
    const struct tile *order[3] = {NULL, &tiles[0]}; /* the one before, this one, the next one */
    int n_strips = open_strips(strips, task), now = 0, second = end - begin > 1;

    open_tile(&tiles[0], w, begin, end, second);
    for (int p = 0; p < PAIRS; p++) {
        struct chores first = {0};

        add_block(&first, work, now, &tiles[0], p, w, 0);
        for (int i = 0; i < 4; i++)
            transpose(&first, i);
    }
    for (int i = begin + OUTPUTS, n = 1; order[1]; i += OUTPUTS, n++) {
        struct tile *next = i < end ? &tiles[n % 3] : NULL;

        if (next)
            open_tile(next, w, i, end, second);
        order[2] = next;
        multiply_tile(task, work, &now, order, strips, n_strips);
        order[0] = order[1];
        order[1] = next;
    }
    for (int s = 0; s < n_strips; s++)
        for (int p = 0; p < PAIRS; p++) {
            struct chores last = {.quarters = work->quarters, .sums = work->sums[s][p]};

            for (int i = 0; 2 * i < strips[s].rows; i++)
                add_up(&last, i);
            store_pair(&strips[s], order[0], p, work->quarters, task->bias);
        }
}

const struct cpu_product avx512_few = {
    .name = "i8 rows, VNNI",
    .panel_cols = OUTPUTS,
    .strip_rows = ROWS,
    .strip_bytes = strip_bytes,
    .prepare = prepare,
    .multiply = multiply,
};
