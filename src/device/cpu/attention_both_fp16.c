/* device/cpu/attention_both_fp16.c: keys and values of f16 at once for AVX512-FP16, which
 * multiplies them as they are.
 *
 * Factors are off by 2^-12 at most then, and so is each sum. These stay short: a lane adds up four
 * products of a score for each 32 numbers of a key, and TURN of what weights make of values. Of so
 * many keys in turn scores are made, and values of as many before are added up, so that both are
 * read as one goes along. Then scores become weights, in f16 too, for meanwhile nothing is read. A
 * sum that is too large for f16 is not finite, and others do it all again.
 *
 * Each line is called for twice, first to the second cache, for processors that have these
 * instructions follow no reads beyond a page by themselves.
 */
#include <math.h>

#include "device/cpu/attention_both.h"

enum { TURN = 16, EIGHTS = TURN / EIGHT }; /* keys at a time */

#define HEADROOM 0x4400   /* 4, see attention_both_avx512.c; all these are bits of f16 */
#define NO_SCORE 0xFC00   /* -INFINITY, of what is no key */
#define WEIGHT_SCALE 4.0f /* of weights: f16 ends at 2^-24 */

typedef __m512h halves;

/* A vector of scores has of key j of EIGHT and query h + 2 i lane 2 j + 16 h + i. */
struct four {
    struct found found;
    vf sums[2];       /* of weights, halves of such vectors, besides found.sum */
    halves max, most; /* of each lane's query, and HEADROOM more */
    halves strange;   /* has NaN where a score was not finite */
    _Alignas(64) uint32_t weights[2][TURN][FOUR]; /* each twice, as f16 */
    int which, at, n; /* weights[which] are of keys [at, at + n), whose values are yet to come */
};

INLINE halves load_halves(const uint16_t *p)
{
    return (halves)_mm512_loadu_si512(p);
}

INLINE halves set_bits(uint16_t bits)
{
    return (halves)_mm512_set1_epi16((short)bits);
}

INLINE __m256i low_half(halves v)
{
    return _mm512_castsi512_si256((__m512i)v);
}

INLINE __m256i high_half(halves v)
{
    return _mm512_extracti64x4_epi64((__m512i)v, 1);
}

INLINE void call_twice(const struct calls *at, int64_t i)
{
    __builtin_prefetch(at->ahead + i, 0, 2);
    __builtin_prefetch(at->soon + i, 0, 3);
}

/* What is called for between the products that these came of, and others, stays there: a compiler
 * would bring all calls together, where many in a row wait for each other. */
INLINE void keep_place(halves *a, halves *b)
{
    __asm__ volatile("" : "+v"(*a), "+v"(*b) : : "memory");
}

/* What comes four turns later is called for, and what comes two later to the first cache. */
INLINE struct calls calls_of_turns(const struct cpu_stretch *part, int j, int dim, bool ahead)
{
    int bytes = TURN * 2 * (dim < 64 ? 64 : dim);

    return calls_from(part, j, dim, ahead, 4 * bytes, 2 * bytes);
}

/* --- Scores: as in attention_pairs_avx512.h --- */

/* Quarters 0 and 1 of a and b, and 2 and 3, added up; then 0 and 2, and 1 and 3. */
INLINE halves add_last_quarters(halves a, halves b)
{
    vf x = (vf)a, y = (vf)b;

    return _mm512_add_ph((halves)_mm512_shuffle_f32x4(x, y, _MM_SHUFFLE(1, 0, 1, 0)),
                         (halves)_mm512_shuffle_f32x4(x, y, _MM_SHUFFLE(3, 2, 3, 2)));
}

INLINE halves add_odd_quarters(halves a, halves b)
{
    vf x = (vf)a, y = (vf)b;

    return _mm512_add_ph((halves)_mm512_shuffle_f32x4(x, y, _MM_SHUFFLE(2, 0, 2, 0)),
                         (halves)_mm512_shuffle_f32x4(x, y, _MM_SHUFFLE(3, 1, 3, 1)));
}

/* Of each two of a, and of b, in turn. */
INLINE halves add_pairs(halves a, halves b)
{
    const __mmask32 odd = 0xAAAAAAAA;
    __m512i x = (__m512i)a, y = (__m512i)b;

    return _mm512_add_ph((halves)_mm512_mask_mov_epi16(x, odd, _mm512_slli_epi32(y, 16)),
                         (halves)_mm512_mask_mov_epi16(_mm512_srli_epi32(x, 16), odd, y));
}

/* Of so many keys, EIGHT at most. */
INLINE halves score_eight(const uint16_t *q, struct calls at, int n_keys, int dim, const int rows)
{
    halves sums[FOUR][2];

#pragma GCC unroll 4
    for (int r = 0; r < FOUR; r++)
        sums[r][0] = sums[r][1] = _mm512_setzero_ph();
#pragma GCC unroll 2
    for (int i = 0; i < dim; i += STRIP, q += TURNED) {
        __m512i k[2][FOUR];

#pragma GCC unroll 8
        for (int j = 0; j < EIGHT; j++) {
            int64_t key = j < n_keys ? j : 0;

            k[j / FOUR][j % FOUR] = _mm512_loadu_si512(at.rows + key * dim);
        }
        exchange_pairs(k[0]);
        exchange_pairs(k[1]);
#pragma GCC unroll 4
        for (int t = 0; t < 4; t++)
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                halves query = load_halves(q + (t * FOUR + r) * STRIP);

                sums[r][0] = _mm512_fmadd_ph((halves)k[0][t], query, sums[r][0]);
                sums[r][1] = _mm512_fmadd_ph((halves)k[1][t], query, sums[r][1]);
                if (r % 2 == 0) {
                    call_twice(&at, (2 * t + r / 2) * STRIP);
                    keep_place(&sums[r][0], &sums[r][1]);
                }
            }
        at.rows += STRIP;
        at.ahead += STRIP * EIGHT;
        at.soon += STRIP * EIGHT;
    }
    return add_pairs(add_odd_quarters(add_last_quarters(sums[0][0], sums[0][1]),
                                      add_last_quarters(sums[1][0], sums[1][1])),
                     add_odd_quarters(add_last_quarters(sums[2][0], sums[2][1]),
                                      add_last_quarters(sums[3][0], sums[3][1])));
}

INLINE __mmask32 lanes_of(int n_keys)
{
    uint32_t of_two = n_keys >= EIGHT ? 0xFFFF : n_keys > 0 ? (1u << 2 * n_keys) - 1 : 0;

    return of_two << 16 | of_two;
}

/* Of n keys from key j on, TURN at most. */
INLINE void score_turn(halves s[EIGHTS], const struct job *job, int j, int n, const int rows,
                       halves *strange)
{
    struct calls at = calls_of_turns(job->keys, j, job->k_dim, job->ahead);
    int64_t eight = (int64_t)EIGHT * job->k_dim;

#pragma GCC unroll 1
    for (int i = 0; i < EIGHTS; i++) {
        int n_keys = n == TURN ? EIGHT : n - i * EIGHT;

        s[i] = score_eight(job->q, at, n_keys, job->k_dim, rows);
        *strange = _mm512_fmadd_ph(s[i], _mm512_setzero_ph(), *strange);
        if (n_keys < EIGHT)
            s[i] = _mm512_mask_blend_ph(lanes_of(n_keys), set_bits(NO_SCORE), s[i]);
        at.rows += eight;
        at.ahead += eight;
        at.soon += eight;
    }
}

/* --- Softmax --- */

/* WEIGHT_SCALE 2^x, to 1.1 times what f16 is off by anyway. */
INLINE halves power(halves x)
{
    halves f = _mm512_reduce_ph(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); /* x - floor(x) */
    halves p = set_bits(0x34EC);                                               /* 4 * 0.0769 */

    p = _mm512_fmadd_ph(p, f, set_bits(0x3B47)); /* 4 * 0.2274 */
    p = _mm512_fmadd_ph(p, f, set_bits(0x4190)); /* 4 * 0.6951 */
    return _mm512_scalef_ph(_mm512_fmadd_ph(p, f, set_bits(0x4400)), x);
}

/* The sums apart by their queries. */
static void part_sums(struct four *f, int rows)
{
    for (int r = 0; r < rows; r++)
        f->found.sum[r] =
            vf_add(f->found.sum[r], _mm512_maskz_mov_ps(r < 2 ? 0x5555 : 0xAAAA, f->sums[r % 2]));
    f->sums[0] = f->sums[1] = vf_set(0);
}

/* Of found.max. */
static void set_max(struct four *f, int rows)
{
    const vf *max = f->found.max;
    vf low = max[0], high = max[1];

    low = _mm512_mask_mov_ps(low, 0xAAAA, max[2]);
    high = _mm512_mask_mov_ps(high, 0xAAAA, rows > 3 ? max[3] : vf_set(0));
    f->max = (halves)_mm512_inserti64x4(_mm512_castsi256_si512(vf_to_f16(low)), vf_to_f16(high), 1);
    f->most = _mm512_add_ph(f->max, set_bits(HEADROOM));
}

static void raise_to(struct four *f, const halves s[EIGHTS], int v_dim, int rows)
{
    _Alignas(64) float of_queries[FOUR][STEP], score[EIGHTS][2 * VF_LANES];

    for (int i = 0; i < EIGHTS; i++) {
        vf_store(score[i], f16_to_vf(low_half(s[i])));
        vf_store(score[i] + VF_LANES, f16_to_vf(high_half(s[i])));
    }
    for (int r = 0; r < FOUR; r++)
        for (int j = 0; j < STEP; j++)
            of_queries[r][j] =
                j < TURN ? score[j / EIGHT][2 * (j % EIGHT) + 16 * (r % 2) + r / 2] : -INFINITY;
    part_sums(f, rows);
    raise_max(&f->found, of_queries, v_dim, rows);
    set_max(f, rows);
}

/* Those of EIGHT keys. */
INLINE void store_weights(uint32_t to[EIGHT][FOUR], halves w)
{
    const __m512i first = _mm512_set_epi16(23, 23, 7, 7, 22, 22, 6, 6, 21, 21, 5, 5, 20, 20, 4, 4,
                                           19, 19, 3, 3, 18, 18, 2, 2, 17, 17, 1, 1, 16, 16, 0, 0);
    const __m512i second = _mm512_add_epi16(first, _mm512_set1_epi16(EIGHT));

    _mm512_store_si512(to[0], _mm512_permutexvar_epi16(first, (__m512i)w));
    _mm512_store_si512(to[FOUR], _mm512_permutexvar_epi16(second, (__m512i)w));
}

INLINE void soften(struct four *f, const halves s[EIGHTS])
{
    uint32_t(*p)[FOUR] = f->weights[f->which];
    halves a = power(_mm512_sub_ph(s[0], f->max)), b = power(_mm512_sub_ph(s[1], f->max));
    halves sum = _mm512_add_ph(a, b);

    f->sums[0] = vf_add(f->sums[0], f16_to_vf(low_half(sum)));
    f->sums[1] = vf_add(f->sums[1], f16_to_vf(high_half(sum)));
    store_weights(p, a);
    store_weights(p + EIGHT, b);
}

/* --- Values --- */

INLINE void add_halves_to(float *acc, halves v)
{
    vf_store(acc, vf_add(vf_load(acc), f16_to_vf(low_half(v))));
    vf_store(acc + VF_LANES, vf_add(vf_load(acc + VF_LANES), f16_to_vf(high_half(v))));
}

/* Column strips of the values that wait. */
INLINE void weigh_columns(struct four *f, const struct job *job, int column, const int strips,
                          const int rows)
{
    const uint32_t *p = f->weights[f->which][0], *end = p + f->n * FOUR;
    int64_t dim = job->v_dim;
    struct calls at = calls_of_turns(job->values, f->at, job->v_dim, job->ahead);
    halves sums[FOUR][4];

    at.rows += column;
    at.ahead += column;
    at.soon += column;
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < strips; v++)
            sums[r][v] = _mm512_setzero_ph();
#pragma GCC unroll 1
    for (; p < end; p += FOUR) {
        halves value[4];

#pragma GCC unroll 4
        for (int v = 0; v < strips; v++) {
            value[v] = load_halves(at.rows + v * STRIP);
            call_twice(&at, v * STRIP);
        }
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            halves weight = (halves)_mm512_set1_epi32((int)p[r]);

#pragma GCC unroll 4
            for (int v = 0; v < strips; v++)
                sums[r][v] = _mm512_fmadd_ph(value[v], weight, sums[r][v]);
        }
        at.rows += dim;
        at.ahead += dim;
        at.soon += dim;
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < strips; v++)
            add_halves_to(f->found.acc[r] + column + v * STRIP, sums[r][v]);
}

INLINE void weigh_turn(struct four *f, const struct job *job, const int rows)
{
    int i = 0;

    if (f->n == 0)
        return;
    for (; i + 4 * STRIP <= job->v_dim; i += 4 * STRIP)
        weigh_columns(f, job, i, 4, rows);
    if (i + 2 * STRIP <= job->v_dim) {
        weigh_columns(f, job, i, 2, rows);
        i += 2 * STRIP;
    }
    if (i < job->v_dim)
        weigh_columns(f, job, i, 1, rows);
    f->n = 0;
}

/* --- All --- */

/* Of n keys from key j on, TURN at most. */
INLINE void attend_turn(struct four *f, const struct job *job, int j, int n, const int rows)
{
    halves s[EIGHTS];

    score_turn(s, job, j, n, rows, &f->strange);
    weigh_turn(f, job, rows);
    if (__builtin_expect(_mm512_cmp_ph_mask(_mm512_max_ph(s[0], s[1]), f->most, _CMP_NLE_UQ) != 0,
                         0))
        raise_to(f, s, job->v_dim, rows);
    f->which = !f->which;
    f->at = j;
    f->n = n;
    soften(f, s);
}

/* False where the largest score so far is too large. */
INLINE bool begin_four(struct four *f, const float *acc, int64_t ld, const float *max,
                       const float *sum, int v_dim, const int rows)
{
    f->which = f->at = f->n = 0;
    f->sums[0] = f->sums[1] = vf_set(0);
    f->strange = _mm512_setzero_ph();
    for (int r = 0; r < rows; r++) {
        float rounded = _mm512_cvtss_f32(f16_to_vf(vf_to_f16(vf_set(max[r]))));
        float lower = rounded == max[r] ? 1 : rounded > -INFINITY ? exp2f(max[r] - rounded) : 0;
        vf scale = vf_set(lower * WEIGHT_SCALE);

        if (!(rounded < INFINITY))
            return false;
        f->found.max[r] = vf_set(rounded);
        f->found.sum[r] = _mm512_maskz_mul_ps(1, vf_set(sum[r]), scale);
        for (int i = 0; i < v_dim; i += VF_LANES)
            vf_store(f->found.acc[r] + i, vf_mul(vf_load(acc + r * ld + i), scale));
    }
    set_max(f, rows);
    return true;
}

INLINE void end_four(struct four *f, float *acc, int64_t ld, float *max, float *sum, int v_dim,
                     const int rows)
{
    const float scale = 1 / WEIGHT_SCALE;

    part_sums(f, rows);
    for (int r = 0; r < rows; r++) {
        max[r] = _mm512_cvtss_f32(f->found.max[r]);
        sum[r] = vf_sum(f->found.sum[r]) * scale;
        for (int i = 0; i < v_dim; i += VF_LANES)
            vf_store(acc + r * ld + i, vf_mul(vf_load(f->found.acc[r] + i), vf_set(scale)));
    }
}

INLINE bool is_finite(const struct four *f, int v_dim, const int rows)
{
    vf strange = vf_set(0);

    for (int r = 0; r < rows; r++)
        for (int i = 0; i < v_dim; i += VF_LANES)
            strange = vf_fma(vf_load(f->found.acc[r] + i), vf_set(0), strange);
    return _mm512_cmp_ps_mask(strange, strange, _CMP_UNORD_Q) == 0 &&
           _mm512_cmp_ph_mask(f->strange, f->strange, _CMP_UNORD_Q) == 0;
}

INLINE bool attend_four(float *acc, int64_t ld, float *max, float *sum, struct job job,
                        int n_stretches, enum dtype type, const int rows)
{
    struct four f;

    (void)type;
    if (!begin_four(&f, acc, ld, max, sum, job.v_dim, rows))
        return false;
    for (int i = 0; i < n_stretches; i++, job.keys++, job.values++) {
        int j = 0, n = job.keys->n;

        for (; j + TURN <= n; j += TURN)
            attend_turn(&f, &job, j, TURN, rows);
        if (j < n)
            attend_turn(&f, &job, j, n - j, rows);
        weigh_turn(&f, &job, rows);
    }
    if (!is_finite(&f, job.v_dim, rows))
        return false;
    end_four(&f, acc, ld, max, sum, job.v_dim, rows);
    return true;
}

static bool attend(float *acc, int ld, float *max, float *sum, const struct cpu_paired_queries *q,
                   const struct cpu_stretch *keys, const struct cpu_stretch *values,
                   int n_stretches, int k_dim, int v_dim)
{
    return attend_all(acc, ld, max, sum, q, keys, values, n_stretches, k_dim, v_dim, DTYPE_F16);
}

/* As attention_avx512.c has it, in f16. */
static void turn(uint16_t *to, const float *q, int ldq, int n, int dim, enum dtype type)
{
    (void)type;
    for (int first = 0; first < n; first += FOUR)
        for (int i = 0; i < dim; i += STRIP, to += TURNED)
            for (int r = 0; r < FOUR; r++) {
                __m512i v = _mm512_setzero_si512();

                if (first + r < n) {
                    const float *from = q + (int64_t)(first + r) * ldq + i;
                    __m256i low = vf_to_f16(vf_load(from));
                    __m256i high = vf_to_f16(vf_load(from + VF_LANES));

                    v = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
                }
                turn_strip(to + r * STRIP, v);
            }
}

static const struct cpu_attention_at_once at_once = {turn, attend};

void cpu_attention_kernels_fp16(struct cpu_vector_kernels *k)
{
    k->at_once[DTYPE_F16] = &at_once;
}
