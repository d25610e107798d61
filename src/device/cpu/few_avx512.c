/* device/cpu/few_avx512.c: weights of 4 bits, affine or mxfp4, by some rows, with VNNI.
 *
 * To scale a sum takes operations of the pipes that VNNI goes through, so as many products as can
 * be should be in it: here the 16 lanes of a sum are 16 units, runs of numbers of one group, and
 * the sums of two outputs by all rows of a strip are scaled when all of these units are done, a
 * block. Codes get there by transposing the units of a block, 32 bits at a time, in registers, for
 * to store 512 bits costs (Zen 4) as much as to multiply them. Exchanges take VNNI's pipes too
 * unless products are among them, so codes of what comes next are transposed beside products.
 * Sums of two outputs by two rows are exchanged before they are scaled, so that every 128 bits have
 * all four: so f32 sums of a pair of outputs are four vectors, and few operations join them.
 *
 * What blocks and pieces of them are, and x as it is prepared: few_avx512.h.
 */
#include "device/cpu/few_avx512.h"

#define MIN_ROWS 4
#define TWOS (ROWS / 2)
#define OUTPUTS 8 /* whose weights are in the first cache for all strips, a tile */
#define PAIRS (OUTPUTS / 2)
#define FAR 2 /* tiles */

/* What a thread works with. */
struct work {
    float sums[MAX_STRIPS][PAIRS][TWOS][16]; /* of the pieces before */
    uint8_t codes[2][2][PIECE / 2];          /* where a row ends within a block */
};

_Static_assert(sizeof(struct work) <= CPU_PRODUCT_SCRATCH, "it fits in the scratch");

/* --- weights */

/* Where a piece of a tile meets some rows of a strip. */
struct meeting {
    const uint8_t *data, *scales, *biases; /* of the first output */
    size_t row_bytes, scale_row_bytes;
    int n_pairs, last;         /* the output that the last pair begins with */
    int second;                /* so far behind it is the other, 1, or 0: there is but one */
    const uint8_t *x, *x_sums; /* of the first row */
    int n_blocks, n_groups;
    int group_shift; /* 2^so many units are a group */
    enum dtype type; /* of scales */
    size_t there;    /* bytes of a row, where blocks go on behind its end, or 0 */
    struct work *work;
    /* Called for meanwhile: as many bytes as data, of the last as of both. */
    const uint8_t *calls[3], *scale_calls[2];
    size_t call_bytes[2], scale_call_bytes; /* from pair to pair */
    float (*sums)[TWOS][16];
    bool begins, ends;
    float *y[ROWS];
    const float *bias;
};

/* A pair of outputs of it. */
struct pair {
    const uint8_t *data[2], *scales[2], *biases[2];
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

INLINE __m512 block_scales(const struct meeting *m, const struct pair *o, int j, int group,
                           __m512i order, const bool e2m1)
{
    int n = m->n_groups - group;

    if (e2m1)
        return _mm512_mul_ps(_mm512_set1_ps(0.5f),
                             unit_scales(o->scales[j] + group, n, order, DTYPE_F8_E8M0));
    if (m->type == DTYPE_BF16)
        return unit_scales(o->scales[j] + 2 * group, n, order, DTYPE_BF16);
    if (m->type == DTYPE_F16)
        return unit_scales(o->scales[j] + 2 * group, n, order, DTYPE_F16);
    return unit_scales(o->scales[j] + 4 * group, n, order, DTYPE_F32);
}

/* Of 16 groups in order. */
INLINE __m512 group_biases(const struct meeting *m, const struct pair *o, int j, int group,
                           const bool e2m1)
{
    int n = m->n_groups - group;

    if (e2m1)
        return _mm512_mul_ps(_mm512_set1_ps(-0.5f * E2M1_ZERO),
                             avx512_scales(o->scales[j] + group, n, DTYPE_F8_E8M0));
    if (m->type == DTYPE_BF16)
        return avx512_scales(o->biases[j] + 2 * group, n, DTYPE_BF16);
    return m->type == DTYPE_F16 ? avx512_scales(o->biases[j] + 2 * group, n, DTYPE_F16)
                                : avx512_scales(o->biases[j] + 4 * group, n, DTYPE_F32);
}

/* Of four vectors 32 bits each, in every 128 bits those at i, for i < 4. */
INLINE void transpose_32(__m512i v[4], __m512i a, __m512i b, __m512i c, __m512i d)
{
    __m512i low[2] = {_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d)};
    __m512i high[2] = {_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d)};

    v[0] = _mm512_unpacklo_epi64(low[0], low[1]);
    v[1] = _mm512_unpackhi_epi64(low[0], low[1]);
    v[2] = _mm512_unpacklo_epi64(high[0], high[1]);
    v[3] = _mm512_unpackhi_epi64(high[0], high[1]);
}

/* Factors of two outputs, for sums of two rows. */
INLINE void twice(__m512 v[4], __m512 a, __m512 b)
{
    __m512i to[4];

    transpose_32(to, _mm512_castps_si512(a), _mm512_castps_si512(b), _mm512_castps_si512(a),
                 _mm512_castps_si512(b));
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        v[i] = _mm512_castsi512_ps(to[i]);
}

INLINE __m512 bf16_biases(const struct meeting *m, const struct pair *o, int j)
{
    __mmask32 there = m->n_groups < 32 ? (1u << m->n_groups) - 1 : 0xFFFFFFFF;

    return _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(there, o->biases[j]));
}

/* halves: of groups of 64 at least, which are 32 at most. */
INLINE void add_biases(__m512 sums[TWOS], const struct meeting *m, const struct pair *o,
                       const bool halves, const bool e2m1, const int rows)
{
    const uint8_t *x_sums = m->x_sums;
    __m512 b[4];

    if (halves) {
        twice(b, bf16_biases(m, o, 0), bf16_biases(m, o, 1));
#pragma GCC unroll 4
        for (int r = 0; r < rows; r += 2)
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
                sums[r / 2] =
                    _mm512_dpbf16_ps(sums[r / 2], (__m512bh)b[i],
                                     (__m512bh)_mm512_load_si512(x_sums + 128 * r + 64 * i));
        return;
    }
    for (int g = 0; g < m->n_groups; g += 16, x_sums += 128 * ROWS) {
        twice(b, group_biases(m, o, 0, g, e2m1), group_biases(m, o, 1, g, e2m1));
#pragma GCC unroll 4
        for (int r = 0; r < rows; r += 2)
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
                sums[r / 2] =
                    _mm512_fmadd_ps(b[i], _mm512_load_ps(x_sums + 128 * r + 64 * i), sums[r / 2]);
    }
}

/* Codes that are transposed step by step: v[i] of unit / 16 of them, 8 numbers of each unit. */
struct turn {
    __m512i v[4], ab, low[2], high[2];
};

#define TURN_STEPS 8

INLINE __m512i unpack_32(const uint8_t *p, const int first)
{
    __m512i a = _mm512_loadu_si512(p), b = _mm512_loadu_si512(p + 64);

    return first ? _mm512_unpackhi_epi32(a, b) : _mm512_unpacklo_epi32(a, b);
}

/* Of the codes from p on the i-th 32 bits of every 128, for two i from first on. */
INLINE void turn(struct turn *t, const uint8_t *p, const int first, const int unit, const int step)
{
    if (step == 0) {
        t->ab = unpack_32(p, first);
    } else if (step == 1) {
        __m512i cd = unpack_32(p + 128, first);

        t->low[0] = _mm512_unpacklo_epi64(t->ab, cd);
        t->low[1] = _mm512_unpackhi_epi64(t->ab, cd);
    } else if (unit == 32) {
        t->v[0] = t->low[0];
        t->v[1] = t->low[1];
    } else if (step == 3) {
        t->ab = unpack_32(p + 256, first);
    } else if (step == 4) {
        __m512i cd = unpack_32(p + 384, first);

        t->high[0] = _mm512_unpacklo_epi64(t->ab, cd);
        t->high[1] = _mm512_unpackhi_epi64(t->ab, cd);
    } else if (step == 6) {
        t->v[0] = _mm512_shuffle_i64x2(t->low[0], t->high[0], 0x88);
        t->v[2] = _mm512_shuffle_i64x2(t->low[0], t->high[0], 0xDD);
    } else if (step == 7) {
        t->v[1] = _mm512_shuffle_i64x2(t->low[1], t->high[1], 0x88);
        t->v[3] = _mm512_shuffle_i64x2(t->low[1], t->high[1], 0xDD);
    }
}

/* --- products */

INLINE __m512i to_bytes(__m512i v, const bool e2m1)
{
    v = _mm512_and_si512(v, _mm512_set1_epi8(0x0F));
    return e2m1 ? avx512_e2m1(v) : v;
}

/* What is beside the products: codes that come next are turned. To exchange parts of vectors takes
 * pipes that products go through too, unless some products are there for every exchange. */
struct beside {
    struct turn *to; /* [2] */
    const uint8_t *data[2];
    const uint8_t *next[2], *far; /* lines that are called for */
};

/* acc += the products of row r with w. */
INLINE void multiply_row(__m512i acc[2][ROWS], const __m512i w[2], const uint8_t *x, const int r)
{
    __m512i xr = avx512_now(_mm512_load_si512(x + 64 * r));

    acc[0][r] = avx512_now(_mm512_dpbusd_epi32(acc[0][r], w[0], xr));
    acc[1][r] = avx512_now(_mm512_dpbusd_epi32(acc[1][r], w[1], xr));
}

/* Calls for a line each, where the products before are. */
INLINE void call(__m512i acc[2][ROWS], const uint8_t *a, const uint8_t *b)
{
    __asm__("prefetcht1 %1\n\tprefetcht1 %2" : "+v"(acc[0][0]) : "m"(*a), "m"(*b));
}

INLINE void unpack(__m512i w[2], const struct turn v[2], const int i, const int odd,
                   const bool e2m1)
{
    w[0] = to_bytes(odd ? _mm512_srli_epi16(v[0].v[i], 4) : v[0].v[i], e2m1);
    w[1] = to_bytes(odd ? _mm512_srli_epi16(v[1].v[i], 4) : v[1].v[i], e2m1);
}

/* acc += the products of 8 numbers of each unit of two outputs in each of the steps from begin on;
 * beside the later half of all of them, what comes next is turned. */
INLINE void multiply_codes(__m512i acc[2][ROWS], const struct turn v[2], const uint8_t *x,
                           struct beside *b, const int begin, const int first, const int unit,
                           const bool e2m1, const int rows)
{
    const int n = unit / 16, stride = 64 * ROWS;

#pragma GCC unroll 8
    for (int i = begin; i < 2 * n; i++) {
        const uint8_t *xi = x + ((first + i / 2 % 2 + i / 4 * 4) * 2 + i % 2) * stride;
        const int j = (i - n) * 2 / n, step = unit == 64 ? (i - n) % 2 * 4 : 0;
        __m512i w[2];

        unpack(w, v, i / 2, i % 2, e2m1);
        call(acc, b->next[first / 2] + i * LINE, b->far + (first * n + i) * LINE);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            multiply_row(acc, w, xi, r);
            if (i >= n && r % 2 == 1) {
                __asm__("" : "+v"(acc[1][r]), "+r"(b->data[j]));
                turn(&b->to[j], b->data[j], 2 - first, unit, step + r / 2);
            }
        }
        if (i >= n)
#pragma GCC unroll 4
            for (int s = rows / 2; s < 4; s++)
                turn(&b->to[j], b->data[j], 2 - first, unit, step + s);
    }
}

INLINE __m512 add_quarters(__m512 a, __m512 b)
{
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xDD));
}

/* y of the outputs at and second behind it. */
INLINE void store(const struct meeting *m, int at, const __m512 sums[TWOS], const int rows)
{
    __m512 v =
        add_quarters(add_quarters(sums[0], sums[1]),
                     rows > 4 ? add_quarters(sums[2], rows > 6 ? sums[3] : sums[2]) : sums[0]);
    float y[ROWS][2];

    if (m->bias)
        v = _mm512_add_ps(v, _mm512_mask_mov_ps(_mm512_set1_ps(m->bias[at]), 0xAAAA,
                                                _mm512_set1_ps(m->bias[at + m->second])));
    _mm512_storeu_ps(y[0], v);
    __asm__ volatile("" : : "r"(y) : "memory"); /* one by one from there, not out of the register */
    if (m->second)
        for (int r = 0; r < rows; r++)
            memcpy(m->y[r] + at, y[r], sizeof y[r]);
    else
        for (int r = 0; r < rows; r++)
            m->y[r][at] = y[r][0];
}

/* A block that has been multiplied, whose sums are not yet scaled. */
struct block {
    const uint8_t *steps;
    struct pair o;
    int group;
};

/* sums += the scaled sums of rows r and r + 1 of a block. */
INLINE void add_rows(__m512 sums[TWOS], const __m512i acc[2][ROWS], const uint8_t *steps,
                     const __m512 scales[4], const int r, const int rows)
{
    const int other = r + 1 < rows ? r + 1 : r;
    __m512i v[4];

    transpose_32(v, acc[0][r], acc[1][r], acc[0][other], acc[1][other]);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        sums[r / 2] = _mm512_fmadd_ps(
            _mm512_mul_ps(_mm512_cvtepi32_ps(v[i]), _mm512_load_ps(steps + 128 * r + 64 * i)),
            scales[i], sums[r / 2]);
}

INLINE void block_factors(__m512 scales[4], const struct meeting *m, const struct block *b,
                          __m512i order, const bool e2m1)
{
    twice(scales, block_scales(m, &b->o, 0, b->group, order, e2m1),
          block_scales(m, &b->o, 1, b->group, order, e2m1));
}

/* What lies within a row from p on may end with the memory. */
static void copy_codes(struct pair *o, const struct meeting *m, int i, int unit)
{
    size_t size = 8 * (size_t)(unit * m->n_blocks);

    for (int j = 0; j < 2; j++) {
        uint8_t *codes = m->work->codes[i % 2][j];

        memcpy(codes, o->data[j], m->there);
        memset(codes + m->there, 0, size - m->there);
        o->data[j] = codes;
    }
}

/* The output that a pair begins with. */
INLINE int pair_begin(const struct meeting *m, int i)
{
    return 2 * i < m->last ? 2 * i : m->last;
}

INLINE struct pair pair_at(const struct meeting *m, int at)
{
    size_t row = (size_t)at * m->row_bytes, scales = (size_t)at * m->scale_row_bytes;
    size_t next = m->second ? m->row_bytes : 0, next_scales = m->second ? m->scale_row_bytes : 0;

    return (struct pair){
        .data = {m->data + row, m->data + row + next},
        .scales = {m->scales + scales, m->scales + scales + next_scales},
        .biases = {m->biases + scales, m->biases + scales + next_scales},
    };
}

/* Of the pair that is done, or a piece of it. */
INLINE void end_pair(const struct meeting *m, const struct pair *o, int i, __m512 sums[TWOS],
                     const bool halves, const bool e2m1, const int rows)
{
    add_biases(sums, m, o, halves, e2m1, rows);
    if (m->ends) {
        store(m, pair_begin(m, i), sums, rows);
        return;
    }
#pragma GCC unroll 4
    for (int r = 0; r < TWOS; r++)
        _mm512_store_ps(m->sums[i][r], sums[r]);
}

INLINE void begin_pair(const struct meeting *m, int i, __m512 sums[TWOS])
{
#pragma GCC unroll 4
    for (int r = 0; r < TWOS; r++)
        sums[r] = m->begins ? _mm512_setzero_ps() : _mm512_load_ps(m->sums[i][r]);
}

/* For the scales and biases of a pair. */
INLINE void call_scales(const struct meeting *m, int i)
{
    size_t begin = (size_t)i * m->scale_call_bytes;

    for (size_t at = begin; at < begin + m->scale_call_bytes; at += LINE) {
        _mm_prefetch((const char *)m->scale_calls[0] + at, _MM_HINT_T1);
        _mm_prefetch((const char *)m->scale_calls[1] + at, _MM_HINT_T1);
    }
}

/* Blocks of all pairs one after another: the sums of a block are scaled beside the first products
 * of the next one. */
INLINE void multiply_pairs(const struct meeting *m, const int unit, const bool halves,
                           const bool e2m1, const int rows)
{
    const __m512i order =
        _mm512_srl_epi32(_mm512_loadu_si512(unit_order(unit)), _mm_cvtsi32_si128(m->group_shift));
    const int stride = 64 * ROWS, n_all = m->n_pairs * m->n_blocks;
    const uint8_t *x = m->x;
    struct block done = {.steps = m->x + 16 * unit * ROWS, .o = pair_at(m, pair_begin(m, 0))};
    struct pair o = done.o;
    struct turn v[2], next[2];
    struct beside beside = {.next = {m->calls[0], m->calls[1]}, .far = m->calls[2]};
    const uint8_t *pair_calls[3] = {m->calls[0], m->calls[1], m->calls[2]};
    __m512i acc[2][ROWS];
    __m512 sums[TWOS], scales[4];

    begin_pair(m, 0, sums);
    if (m->there)
        copy_codes(&o, m, 0, unit);
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
        acc[0][r] = acc[1][r] = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int s = 0; s < TURN_STEPS; s++) {
        turn(&v[0], o.data[0], 0, unit, s);
        turn(&v[1], o.data[1], 0, unit, s);
    }
    beside.data[0] = o.data[0];
    beside.data[1] = o.data[1];
    for (int k = 0, i = 0, b = 0; k < n_all; k++) {
        const uint8_t *steps = x + 16 * unit * ROWS, *begin = steps + 128 * ROWS;
        __m512i w[2][2];

        /* The block before, whose products the first round has none of. */
        block_factors(scales, m, &done, order, e2m1);
        unpack(w[0], v, 0, 0, e2m1);
        unpack(w[1], v, 0, 1, e2m1);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            if (r % 2 == 0)
                add_rows(sums, (const __m512i(*)[ROWS])acc, done.steps, scales, r, rows);
            acc[0][r] = acc[1][r] =
                halves ? _mm512_load_si512(begin + 64 * r) : _mm512_setzero_si512();
            multiply_row(acc, w[0], x, r);
            multiply_row(acc, w[1], x + stride, r);
        }
        call(acc, beside.next[0], beside.far);
        call(acc, beside.next[0] + LINE, beside.far + LINE);
        if (b == 0 && k > 0) {
            end_pair(m, &done.o, i - 1, sums, halves, e2m1, rows);
            begin_pair(m, i, sums);
        }
        beside.to = next;
        multiply_codes(acc, v, x, &beside, 2, 0, unit, e2m1, rows);
        done = (struct block){.steps = steps, .o = o, .group = b * (16 >> m->group_shift)};
        if (++b == m->n_blocks) {
            b = 0;
            call_scales(m, i);
            if (++i < m->n_pairs) {
                o = pair_at(m, pair_begin(m, i));
                if (m->there)
                    copy_codes(&o, m, i, unit);
            }
            beside.data[0] = o.data[0];
            beside.data[1] = o.data[1];
            x = m->x;
        } else {
            beside.data[0] += 8 * unit;
            beside.data[1] += 8 * unit;
            x = begin + 64 * ROWS;
        }
        beside.to = v;
        multiply_codes(acc, next, steps - 16 * unit * ROWS, &beside, 0, 2, unit, e2m1, rows);
        for (int j = 0; j < 2; j++)
            beside.next[j] += 8 * unit;
        beside.far += 16 * unit;
        if (b == 0) {
            beside.next[0] = pair_calls[0] += m->call_bytes[0];
            beside.next[1] = pair_calls[1] += m->call_bytes[0];
            beside.far = pair_calls[2] += m->call_bytes[1];
        }
    }
    block_factors(scales, m, &done, order, e2m1);
#pragma GCC unroll 4
    for (int r = 0; r < rows; r += 2)
        add_rows(sums, (const __m512i(*)[ROWS])acc, done.steps, scales, r, rows);
    end_pair(m, &done.o, m->n_pairs - 1, sums, halves, e2m1, rows);
}

/* A function for each format of block and number of rows: see gemv_avx2.h. */
typedef void multiply_meeting(const struct meeting *m);

#define MULTIPLY_ROWS(name, unit, halves, e2m1, rows)                                              \
    static __attribute__((noinline)) void name##_##rows(const struct meeting *m)                   \
    {                                                                                              \
        multiply_pairs(m, unit, halves, e2m1, rows);                                               \
    }
#define MULTIPLY(name, unit, halves, e2m1)                                                         \
    MULTIPLY_ROWS(name, unit, halves, e2m1, 4)                                                     \
    MULTIPLY_ROWS(name, unit, halves, e2m1, 5)                                                     \
    MULTIPLY_ROWS(name, unit, halves, e2m1, 6)                                                     \
    MULTIPLY_ROWS(name, unit, halves, e2m1, 7)                                                     \
    MULTIPLY_ROWS(name, unit, halves, e2m1, 8)

MULTIPLY(multiply_mxfp4, 32, false, true)
MULTIPLY(multiply_32, 32, false, false)
MULTIPLY(multiply_64, 64, false, false)
MULTIPLY(multiply_64_bf16, 64, true, false)

#define NUMBERS_OF_ROWS(name)                                                                      \
    {                                                                                              \
        name##_4, name##_5, name##_6, name##_7, name##_8                                           \
    }

/* Biases of bf16 meet halves. */
static bool meets_halves(const struct weight *w, int unit)
{
    return unit == 64 && w->format == WEIGHT_AFFINE && w->scale_type == DTYPE_BF16;
}

static multiply_meeting *function_for(const struct weight *w, int unit, int rows)
{
    static multiply_meeting *const functions[][ROWS - MIN_ROWS + 1] = {
        NUMBERS_OF_ROWS(multiply_mxfp4),
        NUMBERS_OF_ROWS(multiply_32),
        NUMBERS_OF_ROWS(multiply_64),
        NUMBERS_OF_ROWS(multiply_64_bf16),
    };
    int format = w->format == WEIGHT_MXFP4 ? 0 : meets_halves(w, unit) ? 3 : unit / 32;

    return functions[format][rows - MIN_ROWS];
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

/* A piece of the outputs from tile on. What is called for meanwhile: codes of the piece that comes
 * next, once more; in the order of memory, what lies FAR tiles behind. */
static void multiply_piece(const struct walk *walk, const struct piece *p, int tile, int end)
{
    const struct cpu_task *t = walk->task;
    const struct weight *w = t->w;
    const uint8_t *data = (const uint8_t *)w->data + (size_t)tile * walk->row_bytes;
    size_t scales = (size_t)tile * walk->scale_row_bytes + walk->scales;
    size_t numbers = (size_t)(p->end - p->begin);
    size_t next = p->end < w->n_in ? walk->codes + numbers / 2 : OUTPUTS * walk->row_bytes;
    size_t room = (size_t)piece_groups(w->group_size);
    size_t far_scales =
        (size_t)(tile + FAR * OUTPUTS) * walk->scale_row_bytes + OUTPUTS * walk->scales;
    struct meeting m = {
        .data = data + walk->codes,
        .scales = (const uint8_t *)w->scales + scales,
        .biases = (const uint8_t *)(w->format == WEIGHT_AFFINE ? w->biases : w->scales) + scales,
        .row_bytes = walk->row_bytes,
        .scale_row_bytes = walk->scale_row_bytes,
        .n_pairs = (end - tile + 1) / 2 < PAIRS ? (end - tile + 1) / 2 : PAIRS,
        .last = walk->last - tile,
        .second = walk->second,
        .n_blocks = p->n_blocks,
        .n_groups = (p->end - p->begin) / w->group_size,
        .group_shift = __builtin_ctz((unsigned)(w->group_size / p->unit)),
        .type = w->scale_type,
        .there = p->begin + 16 * p->unit * p->n_blocks > w->n_in ? numbers / 2 : 0,
        .work = walk->work,
        .calls = {data + next, data + next + walk->row_bytes,
                  data + FAR * OUTPUTS * walk->row_bytes + OUTPUTS * walk->codes},
        .call_bytes = {2 * walk->row_bytes, numbers},
        .scale_calls = {(const uint8_t *)w->scales + far_scales,
                        (const uint8_t *)(w->format == WEIGHT_AFFINE ? w->biases : w->scales) +
                            far_scales},
        .scale_call_bytes = 2 * walk->scale_row_bytes * numbers / (size_t)w->n_in,
        .begins = p->begin == 0,
        .ends = p->end == w->n_in,
        .bias = t->bias ? t->bias + tile : NULL,
    };

    for (int s = 0; s < walk->n_strips; s++) {
        m.x = walk->x[s];
        m.x_sums = m.x + (size_t)p->n_blocks * block_bytes(p->unit);
        if (meets_halves(w, p->unit))
            m.x_sums += 2 * ROWS * room * sizeof(float);
        m.sums = walk->work->sums[s];
        for (int r = 0; r < walk->rows[s]; r++)
            m.y[r] = cpu_task_y(t, walk->first_row[s] + r) + tile;
        function_for(w, p->unit, walk->rows[s])(&m);
        /* For the other rows there is nothing to call for. */
        m.calls[0] = m.calls[1] = m.calls[2] = m.data;
        m.call_bytes[0] = m.call_bytes[1] = m.scale_call_bytes = 0;
    }
}

static void multiply(const struct cpu_task *task, int begin, int end, void *scratch)
{
    const struct weight *w = task->w;
    size_t strip = avx512_few_strip_bytes(w->n_in, w->group_size);
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
    .strip_bytes = avx512_few_prepared_bytes,
    .prepare = avx512_few_prepare,
    .multiply = multiply,
};
