/* device/cpu/attention_avx512.c: attention over a chunk of keys for AVX-512 (F, BW, DQ, VL, BF16).
 *
 * Where a cache has 16 bits a number, three or four queries that go straight to it are multiplied
 * as bf16: half as many instructions as f32 takes, so that memory is what they wait for. Factors
 * are off by 2^-8 then, at most. Bits of f16 are shifted to where bf16 has them; where there is a
 * number that is not finite, whose bits would become those of one, f32 does it all again.
 */
#include <string.h>

#include "device/cpu/attention_pairs_avx512.h"

#define FOR_TILE_ROWS(CASE)                                                                        \
    CASE(1)                                                                                        \
    CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#include "device/cpu/attention_simd.h"

enum {
    PAIRED_DIM = 512, /* numbers of a query at most, where it is turned for one stretch */
    SOON = 16,        /* keys that are called for once more, so many before they are read */
    WEIGHTS = CPU_DIRECT_CHUNK + CPU_STRETCHES + STRIP
};

/* n floats by a scale as bf16, zeros up to a strip. */
INLINE __m512i rounded_strip(const float *from, int n, float scale)
{
    __mmask32 mask = strip_mask(n);
    vf low = _mm512_maskz_loadu_ps((__mmask16)mask, from);
    vf high = _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), from + VF_LANES);

    return (__m512i)_mm512_cvtne2ps_pbh(vf_mul(high, vf_set(scale)), vf_mul(low, vf_set(scale)));
}

/* From row j of a stretch on. */
INLINE struct calls calls_of(const struct cpu_stretch *part, const struct cpu_stretch *end, int j,
                             int dim, bool ahead)
{
    const struct cpu_stretch *at = j + SOON < part->n ? part : part + 1;
    int row = j + SOON < part->n ? j + SOON : j + SOON - part->n;
    const uint16_t *rows = (const uint16_t *)part->rows + (int64_t)j * dim;

    return (struct calls){
        .rows = rows,
        .ahead = ahead && part->ahead ? (const uint16_t *)part->ahead + (int64_t)j * dim : rows,
        .soon = at < end && row < at->n ? (const uint16_t *)at->rows + (int64_t)row * dim : rows};
}

/* --- Scores --- */

/* [fours, strips, t, row] vectors. */
static void turn(uint16_t *to, const float *q, int ldq, int n, int dim, enum dtype type)
{
    float scale = type == DTYPE_F16 ? KEY_SCALE : 1;

    for (int first = 0; first < n; first += FOUR)
        for (int i = 0; i < dim; i += STRIP, to += TURNED)
            for (int r = 0; r < FOUR; r++) {
                __m512i v = _mm512_setzero_si512();

                if (first + r < n)
                    v = rounded_strip(q + (int64_t)(first + r) * ldq + i, dim - i, scale);
                turn_strip(to + r * STRIP, v);
            }
}

/* s[r, 0..n_keys). */
INLINE void score_eight(float *s, int64_t lds, const uint16_t *q, struct calls at, int n_keys,
                        int dim, enum dtype type, const int rows, __m512i *strange)
{
    __mmask8 mask = (__mmask8)((1u << n_keys) - 1);
    vf two[FOUR / 2];

    sum_eight(two, q, at, n_keys, dim, type, rows, strange);
#pragma GCC unroll 2
    for (int r = 0; r < rows; r += 2) {
        _mm256_mask_storeu_ps(s + r * lds, mask, _mm512_castps512_ps256(two[r / 2]));
        if (r + 1 < rows)
            _mm256_mask_storeu_ps(s + (r + 1) * lds, mask, _mm512_extractf32x8_ps(two[r / 2], 1));
    }
}

/* False where some number of the keys is not finite. */
INLINE bool score_four(float *s, int64_t lds, const uint16_t *q, const struct cpu_stretch *part,
                       const struct cpu_stretch *end, int dim, enum dtype type, bool ahead,
                       const int rows)
{
    __m512i strange = _mm512_setzero_si512();
    int j = 0;

    s += part->at;
    for (; j + EIGHT <= part->n; j += EIGHT)
        score_eight(s + j, lds, q, calls_of(part, end, j, dim, ahead), EIGHT, dim, type, rows,
                    &strange);
    if (j < part->n)
        score_eight(s + j, lds, q, calls_of(part, end, j, dim, ahead), part->n - j, dim, type, rows,
                    &strange);
    return !any_strange(strange);
}

/* All queries: fours, or three, and what is left as f32. */
INLINE void score_stretch(float *s, int lds, const struct cpu_paired_queries *q,
                          const struct cpu_stretch *part, const struct cpu_stretch *end, int dim,
                          enum dtype type)
{
    int64_t four = (int64_t)(dim + STRIP - 1) / STRIP * TURNED;
    const uint16_t *turned = q->turned;
    int done = 0;
    bool finite = true;

    for (; finite && q->n - done >= 3; done += FOUR, turned += four) {
        float *to = s + (int64_t)done * lds;

        finite = q->n - done == 3
                     ? score_four(to, lds, turned, part, end, dim, type, done == 0, 3)
                     : score_four(to, lds, turned, part, end, dim, type, done == 0, FOUR);
    }
    done = finite ? done : 0;
    if (done < q->n)
        scores(s + (int64_t)done * lds + part->at, lds, q->rows + (int64_t)done * q->ld, q->ld,
               q->n - done, part->rows, part->n, dim, type, done ? NULL : part->ahead);
}

/* --- Values --- */

/* For weights p of pairs of keys, those of a stretch after those of the last one; column strips,
 * the last of which has so many numbers. y stays as it is, and the result is false, where some are
 * not finite. */
INLINE bool weigh_strips(float *y, int64_t ldy, const uint16_t *p, const struct cpu_stretch *parts,
                         int n_parts, int column, int dim, enum dtype type, const int strips,
                         const int last, const int rows, bool ahead)
{
    __m512i strange = _mm512_setzero_si512();
    vf sums[FOUR][4];

#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < 2 * strips; v += 2)
            part_quarters(&sums[r][v], vf_load(y + r * ldy + v * VF_LANES),
                          vf_load(y + r * ldy + (v + 1) * VF_LANES));
    for (const struct cpu_stretch *part = parts; part < parts + n_parts; part++)
        for (int from = 0; from < part->n; from += SOON) {
            struct calls at = calls_of(part, parts + n_parts, from, dim, ahead);
            int n = part->n - from < SOON ? part->n - from : SOON;

            at.rows += column;
            at.ahead += column;
            at.soon += column;
            for (int j = 0; j < n; j += 2, p += 2) {
                weigh_pair(sums, p, WEIGHTS, at, j + 1 < n ? dim : 0, dim, type, strips, last, rows,
                           &strange);
                at.rows += 2 * (int64_t)dim;
                at.ahead += 2 * (int64_t)dim;
                at.soon += 2 * (int64_t)dim;
            }
        }
    if (any_strange(strange))
        return false;
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < 2 * strips; v += 2)
            join_quarters(y + r * ldy + v * VF_LANES, sums[r][v], sums[r][v + 1]);
    return true;
}

/* n columns as f32. */
static void weigh_carefully(float *y, int64_t ldy, const float *s, int64_t lds,
                            const struct cpu_stretch *parts, int n_parts, int column, int n,
                            int dim, enum dtype type, int rows)
{
    for (const struct cpu_stretch *part = parts; part < parts + n_parts; part++)
        for (int r = 0; r < rows; r++)
            for (int i = 0; i < n; i += VF_LANES)
                weigh_block(y + r * ldy + i, ldy, s + r * lds + part->at, lds,
                            numbers_at(part->rows, column + i, type), part->n, dim, type, 1, 1,
                            n - i < VF_LANES ? n - i : VF_LANES, NULL);
}

/* p[r, ...]: the weights of each stretch, a 0 after an odd number of them. */
INLINE void round_weights(uint16_t *p, const float *s, int64_t lds, const struct cpu_stretch *parts,
                          int n_parts, float scale, int rows)
{
    for (const struct cpu_stretch *part = parts; part < parts + n_parts; part++) {
        for (int r = 0; r < rows; r++)
            for (int j = 0; j < part->n; j += STRIP)
                _mm512_storeu_si512(p + r * WEIGHTS + j,
                                    rounded_strip(s + r * lds + part->at + j, part->n - j, scale));
        p += (part->n + 1) / 2 * 2;
    }
}

INLINE void weigh_four(float *y, int64_t ldy, const float *s, int64_t lds,
                       const struct cpu_stretch *parts, int n_parts, int dim, enum dtype type,
                       bool ahead, const int rows)
{
    uint16_t p[FOUR * WEIGHTS];

    round_weights(p, s, lds, parts, n_parts, type == DTYPE_F16 ? VALUE_SCALE : 1, rows);
    for (int i = 0; i < dim; i += 2 * STRIP, y += 2 * STRIP) {
        int n = dim - i < 2 * STRIP ? dim - i : 2 * STRIP;
        bool done;

        if (n == 2 * STRIP)
            done = weigh_strips(y, ldy, p, parts, n_parts, i, dim, type, 2, STRIP, rows, ahead);
        else if (n > STRIP)
            done = weigh_strips(y, ldy, p, parts, n_parts, i, dim, type, 2, n - STRIP, rows, ahead);
        else
            done = weigh_strips(y, ldy, p, parts, n_parts, i, dim, type, 1, n, rows, ahead);
        if (!done)
            weigh_carefully(y, ldy, s, lds, parts, n_parts, i, n, dim, type, rows);
    }
}

INLINE void weigh_stretches(float *y, int ldy, const float *s, int lds, int n_rows,
                            const struct cpu_stretch *parts, int n_parts, int dim, enum dtype type)
{
    int done = 0;

    for (; n_rows - done >= 3; done += FOUR) {
        float *to = y + (int64_t)done * ldy;
        const float *from = s + (int64_t)done * lds;

        if (n_rows - done == 3)
            weigh_four(to, ldy, from, lds, parts, n_parts, dim, type, done == 0, 3);
        else
            weigh_four(to, ldy, from, lds, parts, n_parts, dim, type, done == 0, FOUR);
    }
    for (int i = 0; i < n_parts && done < n_rows; i++)
        weigh(y + (int64_t)done * ldy, ldy, s + (int64_t)done * lds + parts[i].at, lds,
              n_rows - done, parts[i].rows, parts[i].n, dim, type, done ? NULL : parts[i].ahead);
}

/* --- The slots --- */

/* Of a stretch by itself. */
INLINE void score_one(float *s, int lds, const float *q, int ldq, int n_rows, const void *keys,
                      int n_keys, int dim, enum dtype type, const void *ahead)
{
    struct cpu_stretch part = {keys, ahead, 0, n_keys};
    uint16_t turned[PAIRED_DIM / STRIP * TURNED];

    for (int r = 0, n; r < n_rows; r += n, part.ahead = NULL) {
        n = n_rows - r < FOUR ? n_rows - r : FOUR;
        if (n >= 3 && dim <= PAIRED_DIM) {
            struct cpu_paired_queries four = {q + (int64_t)r * ldq, ldq, n, turned};

            turn(turned, four.rows, ldq, n, dim, type);
            score_stretch(s + (int64_t)r * lds, lds, &four, &part, &part + 1, dim, type);
        } else {
            scores(s + (int64_t)r * lds, lds, q + (int64_t)r * ldq, ldq, n, keys, n_keys, dim, type,
                   part.ahead);
        }
    }
}

INLINE void weigh_one(float *y, int ldy, const float *s, int lds, int n_rows, const void *values,
                      int n_keys, int dim, enum dtype type, const void *ahead)
{
    struct cpu_stretch part = {values, ahead, 0, n_keys};

    weigh_stretches(y, ldy, s, lds, n_rows, &part, 1, dim, type);
}

#define PAIRED(suffix, type)                                                                       \
    static void paired_scores_##suffix(float *s, int lds, const struct cpu_paired_queries *q,      \
                                       const struct cpu_stretch *keys, int n_stretches, int dim)   \
    {                                                                                              \
        for (int i = 0; i < n_stretches; i++)                                                      \
            score_stretch(s, lds, q, keys + i, keys + n_stretches, dim, type);                     \
    }                                                                                              \
    static void paired_weigh_##suffix(float *y, int ldy, const float *s, int lds, int n_rows,      \
                                      const struct cpu_stretch *values, int n_stretches, int dim)  \
    {                                                                                              \
        weigh_stretches(y, ldy, s, lds, n_rows, values, n_stretches, dim, type);                   \
    }                                                                                              \
    static void score_one_##suffix(float *s, int lds, const float *q, int ldq, int n_rows,         \
                                   const void *keys, int n_keys, int dim, const void *ahead)       \
    {                                                                                              \
        score_one(s, lds, q, ldq, n_rows, keys, n_keys, dim, type, ahead);                         \
    }                                                                                              \
    static void weigh_one_##suffix(float *y, int ldy, const float *s, int lds, int n_rows,         \
                                   const void *values, int n_keys, int dim, const void *ahead)     \
    {                                                                                              \
        weigh_one(y, ldy, s, lds, n_rows, values, n_keys, dim, type, ahead);                       \
    }

PAIRED(f16, DTYPE_F16)
PAIRED(bf16, DTYPE_BF16)

static const struct cpu_paired_attention paired = {
    .turn = turn,
    .scores = {[DTYPE_F16] = paired_scores_f16, [DTYPE_BF16] = paired_scores_bf16},
    .weigh = {[DTYPE_F16] = paired_weigh_f16, [DTYPE_BF16] = paired_weigh_bf16},
};

static const struct cpu_attention_at_once at_once_f16 = {turn, cpu_attend_f16_avx512};
static const struct cpu_attention_at_once at_once_bf16 = {turn, cpu_attend_bf16_avx512};

void cpu_attention_kernels_avx512(struct cpu_vector_kernels *k)
{
    simd_attention_kernels(k);
    k->integers = &cpu_int_attention_avx512;
    k->paired = &paired;
    k->at_once[DTYPE_F16] = &at_once_f16;
    k->at_once[DTYPE_BF16] = &at_once_bf16;
    k->scores[DTYPE_F16] = score_one_f16;
    k->scores[DTYPE_BF16] = score_one_bf16;
    k->weigh[DTYPE_F16] = weigh_one_f16;
    k->weigh[DTYPE_BF16] = weigh_one_bf16;
}
