/* device/cpu/gemm_amx.c: weights of bf16 and quantised ones by many rows, in the tiles of AMX.
 *
 * Weights become bf16, whatever they were, and so does x; sums are f32. A tile of x is 16 rows by
 * 32 numbers as they follow one another, one of weights 32 numbers by 16 outputs, in pairs; 16 rows
 * by 32 outputs are computed at a time.
 *
 * As few tiles as that takes are in use, and those of x and weights are emptied at once: what is
 * loaded or multiplied needs a place of its own until it is done, and a core that runs two threads
 * has hardly more of them than each has tiles. With all eight in use one instruction then waits for
 * the one before it: 32 rows by 32 outputs by 32 numbers take 124 ns in place of 26; like this,
 * with half as many loads again, 55 and 28.
 *
 * Tiles multiply faster than memory and the second cache bring what they multiply. A panel of
 * weights and a strip of x, of BLOCK numbers each, share the first cache; what the second holds, x
 * of BLOCK numbers and the sums of MOST_ROWS rows by PANELS panels, goes through the first one by
 * one; y is written once, when its sums are whole.
 */
#include "device/cpu/matmul_amx.h"
#include "device/cpu/matmul_avx512.h"
#include "device/cpu/tiles_amx.h"

#define COLS 32
#include "device/cpu/panels_avx2.h"

#define BLOCK 512 /* numbers in a panel, 32 KB */

/* Tiles; the others stay empty. */
#define SUMS_A 0
#define SUMS_B 1
#define X 2
#define W 3

enum { ROWS = 16, STEP = 32 }; /* rows of a strip, numbers of a tile */
enum { MOST_ROWS = 512, PANELS = 8 };
enum { ROWS_AHEAD = 8 }; /* rows of y, called for before they are written */

/* Of the rows of a strip by the first 16 outputs of a panel, and by the others. */
struct sums {
    float tiles[2][TILE_ROWS * 16];
};

struct panel {
    struct sums sums[PANELS][MOST_ROWS / ROWS];
    uint32_t w[BLOCK / 2 * COLS];      /* pairs of numbers, of all outputs side by side */
    float scales[PANEL_GROUPS * COLS]; /* [n / group, COLS] */
    float biases[PANEL_GROUPS * COLS]; /* [n / group, COLS] */
    uint16_t rows[16][BLOCK];          /* of weights, on their way to pairs */
    float numbers[BLOCK];              /* and to those */
};

_Static_assert(sizeof(struct panel) <= CPU_PRODUCT_SCRATCH, "a panel fits in the scratch");
_Static_assert(BLOCK / 16 <= PANEL_GROUPS, "the groups of a panel fit");

/* --- x: for every BLOCK numbers all strips, which a panel meets one after another; a strip is
 * [n / STEP, ROWS, STEP] */

INLINE int whole_steps(int n)
{
    return (n + STEP - 1) / STEP * STEP;
}

static size_t strip_bytes(int n_in, int group_size)
{
    (void)group_size;
    return sizeof(uint16_t) * ROWS * (size_t)whole_steps(n_in);
}

/* What the strip that begins at row `first` has from number k on, a multiple of BLOCK. */
INLINE uint16_t *strip_part(const struct cpu_task *t, int first, int k)
{
    size_t n_rows = (size_t)(t->n_rows + ROWS - 1) / ROWS * ROWS;
    int n = t->w->n_in - k < BLOCK ? t->w->n_in - k : BLOCK;

    return (uint16_t *)t->prepared + n_rows * (size_t)k + (size_t)first * (size_t)whole_steps(n);
}

/* Rows that are not there are zeros. */
static void prepare(void *strip, const struct cpu_task *t, int first, int n_rows)
{
    (void)strip;
    for (int k = 0; k < t->w->n_in; k += BLOCK) {
        int n = t->w->n_in - k < BLOCK ? t->w->n_in - k : BLOCK;
        uint16_t *to = strip_part(t, first, k);

        if (n_rows < ROWS)
            memset(to, 0, sizeof *to * ROWS * (size_t)whole_steps(n));
        for (int r = 0; r < n_rows; r++)
            for (int i = 0; i < n; i += STEP)
                _mm512_store_si512(to + ROWS * i + STEP * r,
                                   avx512_bf16_of(cpu_task_x(t, first + r) + k + i, n - i));
    }
}

/* --- weights */

/* 1 + q / 2^bits of 16 outputs, where q is the bits of each from bit `at` on. */
INLINE __m512 field(__m512i v, const int at, const int bits)
{
    const __m512i mask = _mm512_set1_epi32((1 << 23) - (1 << (23 - bits)));
    const __m512i one = _mm512_set1_epi32(0x3F800000);
    const int up = 23 - bits - at;

    v = up >= 0 ? _mm512_slli_epi32(v, up > 0 ? (unsigned)up : 0)
                : _mm512_srli_epi32(v, up < 0 ? (unsigned)-up : 0);
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(v, mask, one, 0xEA)); /* v & mask | one */
}

/* Both rounded to bf16, the first in the lower half. */
INLINE __m512i pair_of(__m512 first, __m512 second)
{
    const __m512i half = _mm512_set1_epi32(0x8000);
    __m512i low = _mm512_add_epi32(_mm512_castps_si512(first), half);
    __m512i high = _mm512_add_epi32(_mm512_castps_si512(second), half);

    return _mm512_mask_blend_epi16(0xAAAAAAAA, _mm512_srli_epi32(low, 16), high);
}

/* n_groups scales, or biases, of 16 outputs that lie at these offsets from p, times unit, to
 * [n_groups, COLS]. */
INLINE void gather_scales(float *to, const uint8_t *p, __m512i offsets, int n_groups, float unit,
                          const enum dtype type, const int size)
{
    _Alignas(64) uint8_t bytes[64];

    for (int g = 0; g < n_groups; g += 4 / size) {
        __m512i v = _mm512_i32gather_epi32(offsets, p + g * size, 1);

        for (int i = 0; i < 4 / size; i++) {
            __m512i here = _mm512_srli_epi32(v, (unsigned)(8 * size * i));

            if (size == 4)
                _mm512_store_si512(bytes, here);
            else if (size == 2)
                _mm256_store_si256((__m256i *)bytes, _mm512_cvtepi32_epi16(here));
            else
                _mm_store_si128((__m128i *)bytes, _mm512_cvtepi32_epi8(here));
            _mm512_store_ps(to + (g + i) * COLS,
                            _mm512_mul_ps(avx512_scales(bytes, 16, type), _mm512_set1_ps(unit)));
        }
    }
}

INLINE void gather_type(float *to, const uint8_t *p, __m512i offsets, int n_groups, float unit,
                        enum dtype type)
{
    switch (type) {
    case DTYPE_F32:
        gather_scales(to, p, offsets, n_groups, unit, DTYPE_F32, 4);
        break;
    case DTYPE_F16:
        gather_scales(to, p, offsets, n_groups, unit, DTYPE_F16, 2);
        break;
    case DTYPE_BF16:
        gather_scales(to, p, offsets, n_groups, unit, DTYPE_BF16, 2);
        break;
    case DTYPE_F8_E4M3:
        gather_scales(to, p, offsets, n_groups, unit, DTYPE_F8_E4M3, 1);
        break;
    default:
        gather_scales(to, p, offsets, n_groups, unit, DTYPE_F8_E8M0, 1);
        break;
    }
}

/* As unpack_scales, where a whole number of 32 bits is what n numbers of an output have. */
static void gather_groups(struct panel *panel, const struct weight *w, int o, int n_cols, int k,
                          int n)
{
    enum dtype type = avx2_scale_type(w);
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    int n_groups = n / w->group_size;

    if (n_groups * (int)dtype_size(type) % 4) {
        unpack_scales(panel->scales, panel->biases, w, o, n_cols, k, n);
        return;
    }
    for (int half = 0; half < COLS; half += 16) {
        int last = n_cols - 1 - half < 0 ? 0 : n_cols - 1 - half; /* of those to be read */
        int row = o + (half < n_cols ? half : n_cols - 1);
        __m512i offsets = _mm512_mullo_epi32(_mm512_min_epi32(lanes, _mm512_set1_epi32(last)),
                                             _mm512_set1_epi32((int)weight_scale_row_bytes(w)));
        const uint8_t *scales = weight_scale(w, w->scales, row, k);

        if (w->format == WEIGHT_AFFINE) {
            gather_type(panel->scales + half, scales, offsets, n_groups, 1, type);
            gather_type(panel->biases + half, weight_scale(w, w->biases, row, k), offsets, n_groups,
                        1, type);
        } else {
            gather_type(panel->scales + half, scales, offsets, n_groups, 0.5f, type);
            gather_type(panel->biases + half, scales, offsets, n_groups, -0.5f * E2M1_ZERO, type);
        }
    }
}

/* Scales and biases for what field gives. */
static void scale_fields(struct panel *panel, int n_groups, int bits)
{
    const __m512 unit = _mm512_set1_ps((float)(1 << bits));

    for (int i = 0; i < n_groups * COLS; i += 16) {
        __m512 scale = _mm512_mul_ps(_mm512_load_ps(panel->scales + i), unit);

        _mm512_store_ps(panel->scales + i, scale);
        _mm512_store_ps(panel->biases + i, _mm512_sub_ps(_mm512_load_ps(panel->biases + i), scale));
    }
}

/* 32 bytes of 16 outputs, of 4 bits a number or 8, to their pairs. */
INLINE void pairs_of_square(uint32_t *to, const uint8_t *const rows[16], int at,
                            const float *scales, const float *biases, int group_size,
                            const int bits, const bool e2m1)
{
    const __m512i mask = _mm512_set1_epi8(0x0F);
    const int numbers = 32 / bits; /* in 32 bits */
    __m512i v[8];

    avx512_load_transposed(v, rows, at);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++, to += numbers / 2 * COLS) {
        int group = numbers * i / group_size * COLS;
        __m512 scale = _mm512_load_ps(scales + group), bias = _mm512_load_ps(biases + group);
        __m512i even = v[i], odd = v[i];

        if (e2m1) {
            even = avx512_e2m1(_mm512_and_si512(v[i], mask));
            odd = avx512_e2m1(_mm512_and_si512(_mm512_srli_epi16(v[i], 4), mask));
        }
#pragma GCC unroll 4
        for (int j = 0; j < numbers / 2; j++) {
            const int place = 2 * bits * j;
            __m512 first = field(even, place, e2m1 ? 8 : bits);
            __m512 second = field(odd, e2m1 ? place : place + bits, e2m1 ? 8 : bits);

            _mm512_store_si512(to + j * COLS, pair_of(_mm512_fmadd_ps(first, scale, bias),
                                                      _mm512_fmadd_ps(second, scale, bias)));
        }
    }
}

/* n codes, a multiple of 32, of 16 rows to a byte each, in the order of the codes. */
INLINE void codes_to_bytes(struct panel *panel, const uint8_t *rows[16], int n, const int bits)
{
    for (int c = 0; c < 16; c++) {
        uint8_t *to = (uint8_t *)panel->rows[c];

        for (int i = 0; i < n; i += 32)
            _mm256_store_si256((__m256i *)(to + i), codes32(rows[c] + i / 8 * bits, bits));
        rows[c] = to;
    }
}

/* Outputs o to o + COLS (past the last: of that again), numbers k to k + n, a multiple of what 32
 * bytes are, in 4 bits or 8: those in between are taken for 8. */
INLINE void pairs_of_codes(struct panel *panel, const struct weight *w, int o, int n_cols, int k,
                           int n, const int bits, const bool e2m1)
{
    const int unpacked = bits == 4 ? 4 : 8, numbers = 256 / unpacked, g = w->group_size;
    size_t next = COLS * weight_row_bytes(w);

    gather_groups(panel, w, o, n_cols, k, n);
    scale_fields(panel, n / g, e2m1 ? 8 : unpacked);
    for (int half = 0; half < COLS; half += 16) {
        const uint8_t *rows[16];

        for (int c = 0; c < 16; c++) {
            rows[c] =
                weight_data(w, o + (half + c < n_cols ? half + c : n_cols - 1)) + k / 8 * bits;
            for (int i = 0; i < n / 8 * bits; i += 64)
                _mm_prefetch((const char *)rows[c] + i + next, _MM_HINT_T1);
        }
        if (bits != unpacked)
            codes_to_bytes(panel, rows, n, bits);
        for (int i = 0; i < n; i += numbers) {
            int at = i / g * COLS + half;

            pairs_of_square(panel->w + (i / 2 * COLS + half), rows, i / 8 * unpacked,
                            panel->scales + at, panel->biases + at, g, unpacked, e2m1);
        }
    }
}

static void pairs_of_bf16(struct panel *panel, const struct weight *w, int o, int n_cols, int k,
                          int n)
{
    size_t next = COLS * weight_row_bytes(w) + 2 * (size_t)k;

    for (int c = 0; c < n_cols; c++)
        for (int i = 0; i < 2 * n; i += 64)
            _mm_prefetch((const char *)weight_data(w, o + c) + next + i, _MM_HINT_T1);
    avx512_bf16_pairs(panel->w, w, o, n_cols, k, n);
}

/* Any format. */
static void pairs_of_any(struct panel *panel, const struct weight *w, int o, int n_cols, int k,
                         int n)
{
    for (int half = 0; half < COLS; half += 16) {
        const uint8_t *rows[16];

        for (int c = 0; c < 16; c++) {
            rows[c] = (const uint8_t *)panel->rows[c];
            avx2_dequantise(panel->numbers, w, o + (half + c < n_cols ? half + c : n_cols - 1), k,
                            n);
            for (int i = 0; i < n; i += STEP)
                _mm512_store_si512(panel->rows[c] + i, avx512_bf16_of(panel->numbers + i, n - i));
        }
        avx512_store_pairs(panel->w + half, COLS, rows, n);
    }
}

/* How a weight is best unpacked: affine of 2 to 8 bits, E2M1, or 0. Codes of 4 bits come by 64. */
static int kind_of(const struct weight *w, int n)
{
    if (w->format == WEIGHT_AFFINE)
        return w->bits == 4 && n % 64 ? 0 : w->bits;
    return (w->format == WEIGHT_MXFP4 || w->format == WEIGHT_NVFP4) && n % 64 == 0 ? E2M1 : 0;
}

static void unpack(struct panel *panel, const struct weight *w, int o, int n_cols, int k, int n)
{
    switch (kind_of(w, n)) {
    case 2:
        pairs_of_codes(panel, w, o, n_cols, k, n, 2, false);
        break;
    case 3:
        pairs_of_codes(panel, w, o, n_cols, k, n, 3, false);
        break;
    case 4:
        pairs_of_codes(panel, w, o, n_cols, k, n, 4, false);
        break;
    case 5:
        pairs_of_codes(panel, w, o, n_cols, k, n, 5, false);
        break;
    case 6:
        pairs_of_codes(panel, w, o, n_cols, k, n, 6, false);
        break;
    case 8:
        pairs_of_codes(panel, w, o, n_cols, k, n, 8, false);
        break;
    case E2M1:
        pairs_of_codes(panel, w, o, n_cols, k, n, 4, true);
        break;
    default:
        if (w->format == WEIGHT_BF16)
            pairs_of_bf16(panel, w, o, n_cols, k, n);
        else
            pairs_of_any(panel, w, o, n_cols, k, n);
        break;
    }
    for (int i = (n + 1) / 2; i < whole_steps(n) / 2; i++) /* of the last tile */
        memset(panel->w + i * COLS, 0, sizeof *panel->w * COLS);
}

/* --- products */

/* Empties the tiles that are of no use: a switch to another thread and back fills all. */
static void empty_others(void)
{
    tile_zero(4);
    tile_zero(5);
    tile_zero(6);
    tile_zero(7);
}

/* Sums, from nothing or on from what they are, of a strip by a panel. Calls for a part of what
 * comes after the panels to the second cache. */
INLINE void multiply_strip(struct sums *sums, const uint32_t *w, const uint16_t *x,
                           const uint16_t *next, int n, bool begin)
{
    tile_zero(SUMS_A);
    tile_zero(SUMS_B);
    if (!begin) {
        tile_load(SUMS_A, sums->tiles[0], TILE_BYTES);
        tile_load(SUMS_B, sums->tiles[1], TILE_BYTES);
    }
    for (int i = 0; i < n; i += STEP, w += STEP / 2 * COLS, x += STEP * ROWS) {
        for (int line = 0; line < ROWS / PANELS; line++, next += STEP)
            _mm_prefetch((const char *)next, _MM_HINT_T1);
        tile_load_once(X, x, TILE_BYTES);
        tile_load(W, w, sizeof *w * COLS);
        tile_multiply_bf16(SUMS_A, X, W);
        tile_load(W, w + 16, sizeof *w * COLS);
        tile_multiply_bf16(SUMS_B, X, W);
        tile_zero(X);
        tile_zero(W);
    }
    tile_store(SUMS_A, sums->tiles[0], TILE_BYTES);
    tile_store(SUMS_B, sums->tiles[1], TILE_BYTES);
}

/* Adds what numbers k to k + n of panel p give to the sums of rows `first` to last. */
static void multiply_panel(const struct cpu_task *t, struct panel *panel, int p, int first,
                           int last, int k, int n)
{
    struct sums *sums = panel->sums[p];
    int next = k + n < t->w->n_in ? k + n : 0;

    TILES_MEMORY();
    empty_others();
    for (; first < last; first += ROWS, sums++) {
        const uint16_t *x = strip_part(t, first, k);
        const uint16_t *after = strip_part(t, first, next) + p * (ROWS * BLOCK / PANELS);

        multiply_strip(sums, panel->w, x, after, n, k == 0);
    }
}

static void write_rows(const struct cpu_task *t, const struct panel *panel, int first, int last,
                       int o, int end)
{
    for (int r = first; r < last; r++)
        for (int p = 0; p < PANELS && o + p * COLS < end; p++) {
            const struct sums *s = &panel->sums[p][(r - first) / ROWS];
            int at = (r - first) % ROWS * 16, to = o + p * COLS;
            __m512 sums[2] = {_mm512_load_ps(s->tiles[0] + at), _mm512_load_ps(s->tiles[1] + at)};

            if (r + ROWS_AHEAD < last)
                avx512_prefetch_rows(t, r + ROWS_AHEAD, 1, to);
            avx512_add_row(t, r, sums, to, end - to < COLS ? end - to : COLS, true);
        }
}

/* Rows `first` to last of PANELS panels, or as many as are left. */
static void multiply_panels(const struct cpu_task *t, struct panel *panel, int first, int last,
                            int o, int end)
{
    for (int k = 0; k < t->w->n_in; k += BLOCK) {
        int n = t->w->n_in - k < BLOCK ? t->w->n_in - k : BLOCK;

        for (int p = 0; p < PANELS && o + p * COLS < end; p++) {
            int from = o + p * COLS;

            unpack(panel, t->w, from, end - from < COLS ? end - from : COLS, k, n);
            multiply_panel(t, panel, p, first, last, k, n);
        }
    }
    write_rows(t, panel, first, last, o, end);
}

static void multiply(const struct cpu_task *t, int begin, int end, void *scratch)
{
    tiles_begin();
    for (int first = 0; first < t->n_rows; first += MOST_ROWS) {
        int last = t->n_rows - first < MOST_ROWS ? t->n_rows : first + MOST_ROWS;

        for (int o = begin; o < end; o += PANELS * COLS)
            multiply_panels(t, scratch, first, last, o, end);
    }
    tiles_end();
}

const struct cpu_product amx_gemm_bf16 = {
    .name = "bf16 tiles, AMX",
    .panel_cols = COLS,
    .strip_rows = ROWS,
    .strip_bytes = strip_bytes,
    .prepare = prepare,
    .multiply = multiply,
};
