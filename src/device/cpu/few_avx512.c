/* device/cpu/few_avx512.c: weights of 4 bits, affine or mxfp4, by some rows, with VNNI.
 *
 * To scale a sum takes operations of the pipes that VNNI goes through, so as many products as can
 * be should be in it: here the 16 lanes of a sum are 16 outputs, whose codes are transposed, 32
 * bits at a time, in registers, for to store 512 bits costs (Zen 4) as much as to multiply them.
 * Exchanges take VNNI's pipes too unless products are among them, so codes of what comes next are
 * transposed beside products. A product has 4 numbers of a row of x from memory, for all lanes:
 * of so few bytes two can be loaded in a cycle, of 64 but one.
 *
 * x as it is prepared: few_avx512.h.
 */
#include "device/cpu/few_avx512.h"

#define MIN_ROWS 4
#define MAX_ROWS (2 * ROWS) /* of x, that codes meet at a time */
#define OUTPUTS 16          /* a tile */
#define PIECE 16            /* bytes of a row that are transposed at a time */
#define FAR 2               /* tiles */

/* Some tiles and one or two strips. */
struct meeting {
    const uint8_t *data, *scales, *biases;
    size_t row_bytes, scale_row_bytes;
    size_t chunk_bytes;  /* of scales */
    size_t factor_calls; /* bytes of scales to call for in a chunk */
    enum dtype type;     /* of scales */
    const struct few_x *f;
    const uint8_t *x;     /* the first strip */
    int begin, end, last; /* outputs: of the first tile, behind the last, of the last */
    float *y[MAX_ROWS];
    const float *bias;
    bool calls; /* for what comes next */
};

/* Where 16 rows or halves of rows lie, which the lanes have in this order: so far from one to the
 * next, to the one after it, and to the fourth. */
struct lanes {
    size_t one, two, four;
};

INLINE struct lanes lanes_of(size_t row, const int places)
{
    return places == 2 ? (struct lanes){row / 2, row, 2 * row}
                       : (struct lanes){row, 2 * row, 4 * row};
}

/* --- 16 lanes */

/* 16 bytes from p on, and of every fourth behind it. */
INLINE __m512i every_fourth(const uint8_t *p, size_t four)
{
    const __m128i *at[4] = {(const __m128i *)p, (const __m128i *)(p + four),
                            (const __m128i *)(p + 2 * four), (const __m128i *)(p + 3 * four)};
    __m512i v = _mm512_castsi128_si512(_mm_loadu_si128(at[0]));

    v = _mm512_inserti32x4(v, _mm_loadu_si128(at[1]), 1);
    v = _mm512_inserti32x4(v, _mm_loadu_si128(at[2]), 2);
    return _mm512_inserti32x4(v, _mm_loadu_si128(at[3]), 3);
}

/* A piece of each of 16 that is transposed step by step: v[i] is their i-th 32 bits. */
struct turn {
    __m512i v[4], a[2], t[4];
};

#define TURN_STEPS 8

INLINE void turn(struct turn *t, const uint8_t *p, const struct lanes *l, const int step)
{
    switch (step) {
    case 0:
        t->a[0] = every_fourth(p, l->four);
        break;
    case 1:
        t->a[1] = every_fourth(p + l->one, l->four);
        break;
    case 2:
        t->t[0] = _mm512_unpacklo_epi32(t->a[0], t->a[1]);
        t->t[1] = _mm512_unpackhi_epi32(t->a[0], t->a[1]);
        break;
    case 3:
        t->a[0] = every_fourth(p + l->two, l->four);
        break;
    case 4:
        t->a[1] = every_fourth(p + l->two + l->one, l->four);
        break;
    case 5:
        t->t[2] = _mm512_unpacklo_epi32(t->a[0], t->a[1]);
        t->t[3] = _mm512_unpackhi_epi32(t->a[0], t->a[1]);
        break;
    case 6:
        t->v[0] = _mm512_unpacklo_epi64(t->t[0], t->t[2]);
        t->v[1] = _mm512_unpackhi_epi64(t->t[0], t->t[2]);
        break;
    default:
        t->v[2] = _mm512_unpacklo_epi64(t->t[1], t->t[3]);
        t->v[3] = _mm512_unpackhi_epi64(t->t[1], t->t[3]);
    }
}

INLINE void turn_at_once(__m512i v[4], const uint8_t *p, const struct lanes *l)
{
    struct turn t;

#pragma GCC unroll 8
    for (int s = 0; s < TURN_STEPS; s++)
        turn(&t, p, l, s);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        v[i] = t.v[i];
}

/* --- scales and biases */

/* A number of each lane for each group of a chunk. */
struct factors {
    __m512 of[CHUNK];
};

/* n < PIECE bytes of each lane, zeros behind them: what comes then may not be there. */
static void copy_piece(uint8_t to[16][PIECE], const uint8_t *p, const struct lanes *l, int n)
{
    __mmask16 there = first_16(n);

    for (int i = 0; i < 16; i++) {
        size_t at = i % 2 * l->one + i / 2 % 2 * l->two + (size_t)(i / 4) * l->four;

        _mm_store_si128((__m128i *)to[i], _mm_maskz_loadu_epi8(there, p + at));
    }
}

INLINE void turn_factors(__m512i v[4], const uint8_t *p, const struct lanes *l, int n)
{
    uint8_t piece[16][PIECE] __attribute__((aligned(64)));

    if (n < PIECE) {
        copy_piece(piece, p, l, n);
        turn_at_once(v, piece[0], &(struct lanes){PIECE, 2 * PIECE, 4 * PIECE});
        return;
    }
    turn_at_once(v, p, l);
}

INLINE void factors_16_bits(struct factors *f, const uint8_t *p, const struct lanes *l, int n,
                            const enum dtype type)
{
    __m512i v[4];

    turn_factors(v, p, l, 2 * n);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        if (type == DTYPE_BF16) {
            f->of[2 * i] = _mm512_castsi512_ps(_mm512_slli_epi32(v[i], 16));
            f->of[2 * i + 1] =
                _mm512_castsi512_ps(_mm512_and_si512(v[i], _mm512_set1_epi32((int32_t)0xFFFF0000)));
        } else {
            f->of[2 * i] = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v[i]));
            f->of[2 * i + 1] = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(v[i], 16)));
        }
    }
}

static void factors_f32(struct factors *f, const uint8_t *p, const struct lanes *l, int n)
{
    for (int g = 0; g < CHUNK; g += 4) {
        __m512i v[4];

        turn_factors(v, p + 4 * g, l, n > g ? 4 * (n - g) : 0);
        for (int i = 0; i < 4; i++)
            f->of[g + i] = _mm512_castsi512_ps(v[i]);
    }
}

static void factors_e8m0(struct factors *f, const uint8_t *p, const struct lanes *l, int n)
{
    uint8_t bytes[16];
    __m512i v[4];

    turn_factors(v, p, l, n < CHUNK ? n : CHUNK);
    for (int g = 0; g < CHUNK; g++) {
        _mm_storeu_si128((__m128i *)bytes,
                         _mm512_cvtepi32_epi8(_mm512_srli_epi32(v[g / 4], 8 * (g % 4))));
        f->of[g] = avx512_scales(bytes, 16, DTYPE_F8_E8M0);
    }
}

/* Of n groups from p on, zeros behind them. */
static void factors_any(struct factors *f, const uint8_t *p, const struct lanes *l, int n,
                        const enum dtype type)
{
    if (type == DTYPE_F32)
        factors_f32(f, p, l, n);
    else if (type == DTYPE_F16)
        factors_16_bits(f, p, l, n, DTYPE_F16);
    else
        factors_16_bits(f, p, l, n, DTYPE_BF16);
}

/* Where scales and biases of the groups from g on are, of each place. */
struct chunk {
    const uint8_t *scales, *biases;
    struct lanes lanes;
    int g, n;
};

INLINE struct chunk chunk_at(const struct meeting *m, int tile, int g, const int places)
{
    size_t at = (size_t)tile * m->scale_row_bytes + (size_t)(g / CHUNK) * m->chunk_bytes;
    int left = m->f->n_groups - g;

    return (struct chunk){
        .scales = m->scales + at,
        .biases = m->biases + at,
        .lanes = lanes_of(m->scale_row_bytes, places),
        .g = g,
        .n = left < CHUNK ? left : CHUNK,
    };
}

/* For the scales and biases of the tiles that come next, a part of them for each chunk. */
INLINE void call_factors(const struct meeting *m, const struct chunk *c, int outputs)
{
    for (int tile = 1; tile <= FAR; tile++) {
        size_t begin = (size_t)(tile * outputs) * m->scale_row_bytes +
                       (size_t)(c->g / CHUNK) * m->factor_calls;

        begin -= (size_t)(c->g / CHUNK) * m->chunk_bytes; /* where the chunk begins in its row */
        for (size_t i = begin; i < begin + m->factor_calls; i += LINE) {
            _mm_prefetch((const char *)c->scales + i, _MM_HINT_T1);
            _mm_prefetch((const char *)c->biases + i, _MM_HINT_T1);
        }
    }
}

/* Something of x: where the first row of either strip has it. */
struct rows {
    const uint8_t *of[2];
};

INLINE struct rows rows_at(const struct meeting *m, size_t offset)
{
    return (struct rows){{m->x + offset, m->x + m->f->bytes + offset}};
}

/* The i-th of it of row r. */
INLINE const uint8_t *row_at(const struct rows *x, const int i, const int r, const int places)
{
    return x->of[r / ROWS] + 4 * places * (i * ROWS + r % ROWS);
}

/* 32 bits for all outputs, of each place. */
INLINE __m512i x_at(const uint8_t *p, const int places)
{
    int64_t two;
    int32_t one;

    if (places == 2) {
        memcpy(&two, p, sizeof two);
        return _mm512_set1_epi64(two);
    }
    memcpy(&one, p, sizeof one);
    return _mm512_set1_epi32(one);
}

/* Adds biases that are bf16. */
INLINE void add_halves(__m512 sums[MAX_ROWS], const struct meeting *m, const struct chunk *c,
                       const int places, const int rows)
{
    struct rows x = rows_at(m, m->f->halves_offset + (size_t)(c->g / 2 * ROWS * places) * 4);
    __m512i v[4];

    turn_factors(v, c->biases, &c->lanes, 2 * c->n);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++)
            sums[r] = _mm512_dpbf16_ps(sums[r], (__m512bh)v[i],
                                       (__m512bh)x_at(row_at(&x, i, r, places), places));
}

INLINE void add_factors(__m512 sums[MAX_ROWS], const struct factors *biases,
                        const struct meeting *m, const struct chunk *c, const int places,
                        const int rows)
{
    struct rows x = rows_at(m, m->f->sums_offset + (size_t)(c->g * ROWS * places) * 4);

#pragma GCC unroll 8
    for (int g = 0; g < CHUNK; g++)
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++)
            sums[r] = _mm512_fmadd_ps(biases->of[g],
                                      _mm512_castsi512_ps(x_at(row_at(&x, g, r, places), places)),
                                      sums[r]);
}

/* Reads the scales of a chunk, and adds its biases. */
INLINE void begin_chunk(struct factors *scales, __m512 sums[MAX_ROWS], const struct meeting *m,
                        const struct chunk *c, const bool halves, const bool e2m1, const int places,
                        const int rows)
{
    struct factors biases;

    if (halves) {
        factors_16_bits(scales, c->scales, &c->lanes, c->n, DTYPE_BF16);
        add_halves(sums, m, c, places, rows);
        return;
    }
    if (e2m1) {
        factors_e8m0(scales, c->scales, &c->lanes, c->n);
        for (int g = 0; g < CHUNK; g++) {
            scales->of[g] = _mm512_mul_ps(scales->of[g], _mm512_set1_ps(0.5f));
            biases.of[g] = _mm512_mul_ps(scales->of[g], _mm512_set1_ps(-E2M1_ZERO));
        }
    } else {
        factors_any(scales, c->scales, &c->lanes, c->n, m->type);
        factors_any(&biases, c->biases, &c->lanes, c->n, m->type);
    }
    add_factors(sums, &biases, m, c, places, rows);
}

/* --- products */

INLINE __m512i to_bytes(__m512i v, const bool e2m1)
{
    v = _mm512_and_si512(v, _mm512_set1_epi8(0x0F));
    return e2m1 ? avx512_e2m1(v) : v;
}

/* acc += the products of w with 4 numbers of each place. */
INLINE __m512i add_products(__m512i acc, __m512i w, const uint8_t *x, const int places)
{
    if (places == 2)
        return avx512_now(_mm512_dpbusd_epi32(acc, w, avx512_now(x_at(x, 2))));
    __asm__("vpdpbusd %2%{1to16%}, %1, %0"
            : "+v"(acc)
            : "v"(w), "m"(*(const int32_t *)(const void *)x));
    return acc;
}

/* Calls for a line, where the products before are. */
INLINE void call(__m512i *acc, const uint8_t *p)
{
    __asm__("prefetcht1 %1" : "+v"(*acc) : "m"(*p));
}

/* What is beside the products of a piece: codes that come next are turned, lines called for. */
struct beside {
    const uint8_t *data;
    struct lanes lanes;
    const uint8_t *near, *far;
};

/* acc += the products of a piece, 32 numbers of each output, with x. */
INLINE void multiply_piece(__m512i acc[MAX_ROWS], __m512i v[4], const struct rows *x, int first,
                           struct beside *b, const bool e2m1, const int places, const int rows)
{
    struct turn next;

#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        __m512i w = to_bytes(i % 2 ? _mm512_srli_epi16(v[i / 2], 4) : v[i / 2], e2m1);

        call(&acc[0], i % 2 ? b->far + i / 2 * LINE : b->near + i / 2 * LINE);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            acc[r] = add_products(acc[r], w, row_at(x, first + i, r, places), places);
            if (r == rows / 2) {
                __asm__("" : "+v"(acc[r]), "+r"(b->data));
                turn(&next, b->data, &b->lanes, i);
            }
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        v[i] = next.v[i];
}

/* sums += the scaled sums of a unit. */
INLINE void add_unit(__m512 sums[MAX_ROWS], const __m512i acc[MAX_ROWS], __m512 scale,
                     const struct rows *x, const int unit, const int places, const int rows)
{
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        __m512 step = _mm512_castsi512_ps(x_at(row_at(x, unit / 4, r, places), places));

        sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[r]), _mm512_mul_ps(scale, step), sums[r]);
    }
}

/* y of the tile from output at on, of which those from begin on are wanted. */
INLINE void store(const struct meeting *m, int at, int begin, const __m512 sums[MAX_ROWS],
                  const int places, const int rows)
{
    __mmask16 wanted = (__mmask16)((0xFFFF >> (16 - 16 / places)) & (0xFFFF << (begin - at)));
    __m512 bias = m->bias ? _mm512_maskz_loadu_ps(wanted, m->bias + at) : _mm512_setzero_ps();

#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        __m512 v = sums[r];

        if (places == 2)
            v = _mm512_maskz_compress_ps(0x5555, _mm512_add_ps(v, _mm512_permute_ps(v, 0xB1)));
        _mm512_mask_storeu_ps(m->y[r] + at, wanted, _mm512_add_ps(v, bias));
    }
}

/* Where a tile is read, so that all of it is there. */
INLINE int tile_at(const struct meeting *m, int tile)
{
    return tile < m->last ? tile : m->last;
}

INLINE void multiply_tiles(const struct meeting *m, const int unit, const bool halves,
                           const bool e2m1, const int places, const int rows)
{
    const int n_units = m->f->n_units, shift = __builtin_ctz((unsigned)m->f->per_group);
    const int outputs = OUTPUTS / places;
    const size_t tile_bytes = (size_t)outputs * m->row_bytes;
    struct beside beside = {
        .data = m->data + (size_t)tile_at(m, m->begin) * m->row_bytes,
        .lanes = lanes_of(m->row_bytes, places),
    };
    __m512i v[4], acc[MAX_ROWS];
    __m512 sums[MAX_ROWS];
    struct factors scales;

    turn_at_once(v, beside.data, &beside.lanes);
    for (int tile = m->begin; tile < m->end; tile += outputs) {
        int at = tile_at(m, tile), next = tile_at(m, tile + outputs);
        struct rows x = rows_at(m, 0);

        beside.data = m->data + (size_t)at * m->row_bytes;
        beside.near = beside.data + (m->calls ? tile_bytes : 0);
        beside.far = beside.data + (m->calls ? FAR * tile_bytes : 0);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++)
            sums[r] = _mm512_setzero_ps();
        for (int u = 0; u < n_units; u++) {
            int g = u >> shift;

            if (u % (CHUNK << shift) == 0) {
                struct chunk c = chunk_at(m, at, g, places);

                begin_chunk(&scales, sums, m, &c, halves, e2m1, places, rows);
                if (m->calls)
                    call_factors(m, &c, outputs);
            }
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++)
                acc[r] = halves ? x_at(row_at(&x, unit / 4 + 1, r, places), places)
                                : _mm512_setzero_si512();
#pragma GCC unroll 2
            for (int p = 0; p < unit / 32; p++) {
                beside.data += PIECE;
                if (p == unit / 32 - 1 && u == n_units - 1)
                    beside.data = m->data + (size_t)next * m->row_bytes;
                multiply_piece(acc, v, &x, 8 * p, &beside, e2m1, places, rows);
                beside.near += 4 * LINE;
                beside.far += 4 * LINE;
            }
            add_unit(sums, acc, scales.of[g % CHUNK], &x, unit, places, rows);
            x.of[0] += ROWS * places * (unit + 8);
            x.of[1] += ROWS * places * (unit + 8);
        }
        store(m, at, tile, sums, places, rows);
    }
}

/* A function for each format and number of rows: see gemv_avx2.h. */
typedef void multiply_meeting(const struct meeting *m);

#define MULTIPLY_ROWS(name, unit, halves, e2m1, places, rows)                                      \
    static __attribute__((noinline)) void name##_##rows(const struct meeting *m)                   \
    {                                                                                              \
        multiply_tiles(m, unit, halves, e2m1, places, rows);                                       \
    }
#define MULTIPLY(name, unit, halves, e2m1, places)                                                 \
    MULTIPLY_ROWS(name, unit, halves, e2m1, places, 4)                                             \
    MULTIPLY_ROWS(name, unit, halves, e2m1, places, 5)                                             \
    MULTIPLY_ROWS(name, unit, halves, e2m1, places, 6)                                             \
    MULTIPLY_ROWS(name, unit, halves, e2m1, places, 7)                                             \
    MULTIPLY_ROWS(name, unit, halves, e2m1, places, 8)

MULTIPLY(multiply_mxfp4, 32, false, true, 1)
MULTIPLY(multiply_32, 32, false, false, 1)
MULTIPLY(multiply_64, 64, false, false, 1)
MULTIPLY(multiply_64_bf16, 64, true, false, 1)
MULTIPLY(multiply_mxfp4_places, 32, false, true, 2)
MULTIPLY(multiply_32_places, 32, false, false, 2)
MULTIPLY(multiply_64_places, 64, false, false, 2)
MULTIPLY(multiply_64_bf16_places, 64, true, false, 2)

#define FORMATS 4
#define NUMBERS_OF_ROWS(name)                                                                      \
    {                                                                                              \
        name##_4, name##_5, name##_6, name##_7, name##_8                                           \
    }
#define FUNCTIONS(suffix)                                                                          \
    {                                                                                              \
        NUMBERS_OF_ROWS(multiply_mxfp4##suffix), NUMBERS_OF_ROWS(multiply_32##suffix),             \
            NUMBERS_OF_ROWS(multiply_64##suffix), NUMBERS_OF_ROWS(multiply_64_bf16##suffix),       \
    }

static multiply_meeting *function_for(const struct weight *w, int places, int rows)
{
    static multiply_meeting *const functions[2][FORMATS][MAX_ROWS - MIN_ROWS + 1] = {
        FUNCTIONS(), FUNCTIONS(_places)};
    int format = w->format == WEIGHT_MXFP4 ? 0
                 : w->group_size < 64      ? 1
                                           : 2 + (w->scale_type == DTYPE_BF16);

    return functions[places - 1][format][rows - MIN_ROWS];
}

/* Outputs [begin, end) by n rows from the first on, which is that of a strip. */
static void multiply_rows(const struct cpu_task *t, const struct few_x *f, int begin, int end,
                          int first, int n)
{
    const struct weight *w = t->w;
    size_t row = weight_scale_row_bytes(w), n_groups = (size_t)(w->n_in / w->group_size);
    size_t n_chunks = ((size_t)f->n_groups + CHUNK - 1) / CHUNK;
    struct meeting m = {
        .data = w->data,
        .scales = w->scales,
        .biases = w->format == WEIGHT_AFFINE ? w->biases : w->scales,
        .row_bytes = weight_row_bytes(w),
        .scale_row_bytes = row,
        .chunk_bytes = row / n_groups * CHUNK,
        .factor_calls = OUTPUTS / (size_t)f->places * row / n_chunks,
        .type = w->scale_type,
        .f = f,
        .x = (const uint8_t *)t->prepared + (size_t)(first / ROWS) * f->bytes,
        .begin = begin,
        .end = end,
        .last = end - OUTPUTS / f->places,
        .bias = t->bias,
        .calls = first == 0,
    };

    for (int r = 0; r < n; r++)
        m.y[r] = cpu_task_y(t, first + r);
    function_for(t->w, f->places, n)(&m);
}

static void multiply(const struct cpu_task *t, int begin, int end, void *scratch)
{
    struct few_x f = avx512_few_x(t->w->n_in, t->w->group_size);
    int first = t->n_rows > MAX_ROWS + ROWS || t->n_rows <= MAX_ROWS ? MAX_ROWS : ROWS;
    int n = t->n_rows < first ? t->n_rows : first;
    /* The codes of a tile are in the second cache for the other rows. */
    int tile = t->n_rows > n ? OUTPUTS / f.places : end - begin;

    (void)scratch;
    for (; begin < end; begin += tile) {
        int tile_end = begin + tile < end ? begin + tile : end;

        multiply_rows(t, &f, begin, tile_end, 0, n);
        if (t->n_rows > n)
            multiply_rows(t, &f, begin, tile_end, n, t->n_rows - n);
    }
}

const struct cpu_product avx512_few = {
    .name = "i8 rows, VNNI",
    .panel_cols = OUTPUTS,
    .strip_rows = ROWS,
    .strip_bytes = avx512_few_strip_bytes,
    .prepare = avx512_few_prepare,
    .multiply = multiply,
};
