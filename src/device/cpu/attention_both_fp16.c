/* device/cpu/attention_both_fp16.c: keys and values of f16 at once for AVX512-FP16, which
 * multiplies them as they are.
 *
 * Factors are off by 2^-12 at most then, and so is each sum. These stay short: a lane adds up four
 * products of a score for each 32 numbers of a key, and TURN of what weights make of values. Of so
 * many keys in turn scores are made, and of as many of the STEP before values are added up, so that
 * both are read as one goes along. A sum that is too large for f16 is not finite, and others do it
 * all again.
 *
 * Each line is called for twice, first to the second cache, for processors that have these
 * instructions follow no reads beyond a page by themselves.
 */
#include "device/cpu/attention_both.h"

enum { TURN = 16 }; /* keys whose values f16 adds up */

#define HEADROOM 4.0f      /* as attention_both_avx512.c has it */
#define WEIGHT_EXPONENT 2  /* weights are so many powers of 2 larger: f16 ends at 2^-24 */
#define NO_SCORE -0x1p100f /* of what is no key; finite */

typedef __m512h halves;

struct four {
    struct found found;
    _Alignas(64) uint32_t weights[2][FOUR][STEP]; /* each twice, as f16 */
    int which, at, n; /* weights[which] are of keys [at, at + n), whose values are yet to come */
};

INLINE halves load_halves(const uint16_t *p)
{
    return (halves)_mm512_loadu_si512(p);
}

INLINE void call_twice(const struct calls *at, int64_t i)
{
    __builtin_prefetch(at->ahead + i, 0, 2);
    __builtin_prefetch(at->soon + i, 0, 3);
}

/* What comes three turns later is called for, and what comes one later to the first cache. */
INLINE struct calls calls_of_turns(const struct cpu_stretch *part, int j, int dim, bool ahead)
{
    int bytes = TURN * 2 * (dim < 64 ? 64 : dim);

    return calls_from(part, j, dim, ahead, 3 * bytes, bytes);
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

/* Of each two. */
INLINE vf add_pairs(halves v)
{
    halves other = (halves)_mm512_srli_epi32((__m512i)v, 16);

    return f16_to_vf(_mm512_cvtepi32_epi16((__m512i)_mm512_add_ph(v, other)));
}

/* s[r][to..to + EIGHT): of so many keys, EIGHT at most. */
INLINE void score_eight(float s[FOUR][STEP], int to, const uint16_t *q, struct calls at, int n_keys,
                        int dim, const int rows)
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
            call_twice(&at, j * STRIP);
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
            }
        at.rows += STRIP;
        at.ahead += STRIP * EIGHT;
        at.soon += STRIP * EIGHT;
    }
#pragma GCC unroll 2
    for (int r = 0; r < rows; r += 2) {
        vf two = add_pairs(add_odd_quarters(add_last_quarters(sums[r][0], sums[r][1]),
                                            add_last_quarters(sums[r + 1][0], sums[r + 1][1])));

        _mm256_storeu_ps(s[r] + to, _mm512_castps512_ps256(two));
        _mm256_storeu_ps(s[r + 1] + to, _mm512_extractf32x8_ps(two, 1));
    }
}

/* Keys [i, i + TURN) of the n from key j on, as far as there are such; f16 that is not finite makes
 * lanes of strange NaN. */
INLINE void score_turn(float s[FOUR][STEP], const struct job *job, int j, int i, int n,
                       const int rows)
{
#pragma GCC unroll 1
    for (int end = i + TURN; i < end && i < n; i += EIGHT) {
        struct calls at = calls_of_turns(job->keys, j + i, job->k_dim, job->ahead);

        score_eight(s, i, job->q, at, n == STEP || n - i > EIGHT ? EIGHT : n - i, job->k_dim, rows);
    }
}

/* --- Softmax --- */

/* 2^x for x <= HEADROOM + WEIGHT_EXPONENT to 7.5e-5, a sixth of what f16 is off by. */
INLINE vf power(vf x)
{
    vf bounded = vf_max(vf_set(POWER_MIN), x);
    vf t = vf_add(bounded, vf_set(ROUNDER));
    vf f = vf_sub(bounded, vf_sub(t, vf_set(ROUNDER)));
    vf p = vf_set(0x1.c3f766p-5f);

    p = vf_fma(p, f, vf_set(0x1.f0de2p-3f));
    p = vf_fma(p, f, vf_set(0x1.62f31ap-1f));
    return vf_times_power(vf_fma(p, f, vf_set(0x1.fff692p-1f)), t);
}

INLINE __m512i each_twice(vf p)
{
    const __m512i twice = _mm512_set_epi16(15, 15, 14, 14, 13, 13, 12, 12, 11, 11, 10, 10, 9, 9, 8,
                                           8, 7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);

    return _mm512_permutexvar_epi16(twice, _mm512_castsi256_si512(vf_to_f16(p)));
}

INLINE void soften(struct four *f, float s[FOUR][STEP], const int rows, vf *strange)
{
    uint32_t(*p)[STEP] = f->weights[f->which];

#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        vf less = vf_sub(f->found.max[r], vf_set(WEIGHT_EXPONENT));
        vf x = vf_load(s[r]), y = vf_load(s[r] + VF_LANES);
        vf a = power(vf_sub(x, less)), b = power(vf_sub(y, less));

        *strange = vf_fma(vf_add(x, y), vf_set(0), *strange);
        f->found.sum[r] = vf_add(f->found.sum[r], vf_add(a, b));
        _mm512_store_si512(p[r], each_twice(a));
        _mm512_store_si512(p[r] + VF_LANES, each_twice(b));
    }
}

/* --- Values --- */

INLINE void add_halves_to(float *acc, halves v)
{
    __m256i low = _mm512_castsi512_si256((__m512i)v);
    __m256i high = _mm512_extracti64x4_epi64((__m512i)v, 1);

    vf_store(acc, vf_add(vf_load(acc), f16_to_vf(low)));
    vf_store(acc + VF_LANES, vf_add(vf_load(acc + VF_LANES), f16_to_vf(high)));
}

/* Column strips of the values that wait, [first, end) of them. */
INLINE void weigh_columns(struct four *f, const struct job *job, int first, int end, int column,
                          const int strips, const int rows)
{
    const uint32_t *p = f->weights[f->which][0];
    int64_t dim = job->v_dim;
    struct calls at = calls_of_turns(job->values, f->at + first, job->v_dim, job->ahead);
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
    for (int i = first; i < end; i++) {
        halves value[4];

#pragma GCC unroll 4
        for (int v = 0; v < strips; v++) {
            value[v] = load_halves(at.rows + v * STRIP);
            call_twice(&at, v * STRIP);
        }
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            halves weight = (halves)_mm512_set1_epi32((int)p[r * STEP + i]);

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

/* Those of the keys [first, first + TURN) that wait. */
INLINE void weigh_turn(struct four *f, const struct job *job, int first, const int rows)
{
    int i = 0, end = first + TURN < f->n ? first + TURN : f->n;

    if (first >= end)
        return;
    for (; i + 4 * STRIP <= job->v_dim; i += 4 * STRIP)
        weigh_columns(f, job, first, end, i, 4, rows);
    if (i + 2 * STRIP <= job->v_dim) {
        weigh_columns(f, job, first, end, i, 2, rows);
        i += 2 * STRIP;
    }
    if (i < job->v_dim)
        weigh_columns(f, job, first, end, i, 1, rows);
}

/* --- All --- */

/* Of n keys from key j on, STEP at most; 0: only of the values that wait. */
INLINE void attend_step(struct four *f, const struct job *job, int j, int n, const int rows,
                        vf *strange)
{
    _Alignas(64) float s[FOUR][STEP];

#pragma GCC unroll 1
    for (int i = 0; i < STEP; i += TURN) {
        score_turn(s, job, j, i, n, rows);
        weigh_turn(f, job, i, rows);
    }
    f->which = !f->which;
    f->at = j;
    f->n = n;
    if (n == 0)
        return;
    for (int r = 0; n < STEP && r < rows; r++)
        for (int i = n; i < STEP; i++)
            s[r][i] = NO_SCORE;
    if (__builtin_expect(is_above(&f->found, s, HEADROOM, rows), 0))
        raise_max(&f->found, s, job->v_dim, rows);
    soften(f, s, rows, strange);
}

INLINE void begin_four(struct four *f, const float *acc, int64_t ld, const float *max,
                       const float *sum, int v_dim, const int rows)
{
    vf scale = vf_set(1 << WEIGHT_EXPONENT);

    f->which = f->at = f->n = 0;
    for (int r = 0; r < rows; r++) {
        f->found.max[r] = vf_set(max[r]);
        f->found.sum[r] = _mm512_maskz_mul_ps(1, vf_set(sum[r]), scale);
        for (int i = 0; i < v_dim; i += VF_LANES)
            vf_store(f->found.acc[r] + i, vf_mul(vf_load(acc + r * ld + i), scale));
    }
}

INLINE void end_four(const struct four *f, float *acc, int64_t ld, float *max, float *sum,
                     int v_dim, const int rows)
{
    const float scale = 1.0f / (1 << WEIGHT_EXPONENT);

    for (int r = 0; r < rows; r++) {
        max[r] = _mm512_cvtss_f32(f->found.max[r]);
        sum[r] = vf_sum(f->found.sum[r]) * scale;
        for (int i = 0; i < v_dim; i += VF_LANES)
            vf_store(acc + r * ld + i, vf_mul(vf_load(f->found.acc[r] + i), vf_set(scale)));
    }
}

INLINE bool is_finite(const struct four *f, vf strange, int v_dim, const int rows)
{
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < v_dim; i += VF_LANES)
            strange = vf_fma(vf_load(f->found.acc[r] + i), vf_set(0), strange);
    return _mm512_cmp_ps_mask(strange, strange, _CMP_UNORD_Q) == 0;
}

INLINE bool attend_four(float *acc, int64_t ld, float *max, float *sum, struct job job,
                        int n_stretches, enum dtype type, const int rows)
{
    vf strange = vf_set(0);
    struct four f;

    (void)type;
    begin_four(&f, acc, ld, max, sum, job.v_dim, rows);
    for (int i = 0; i < n_stretches; i++, job.keys++, job.values++) {
        int j = 0, n = job.keys->n;

        for (; j + STEP <= n; j += STEP)
            attend_step(&f, &job, j, STEP, rows, &strange);
        if (j < n)
            attend_step(&f, &job, j, n - j, rows, &strange);
        attend_step(&f, &job, n, 0, rows, &strange);
    }
    if (!is_finite(&f, strange, job.v_dim, rows))
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
