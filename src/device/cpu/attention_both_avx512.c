/* device/cpu/attention_both_avx512.c: scores, softmax and what weights make of values at once.
 *
 * Of STEP keys at a time scores become weights, and these meet the values of the step before, so
 * that neither waits for what the other has only begun, and keys and values are two streams from
 * memory that never stop. The largest score counts as it was when a step began, unless one is
 * HEADROOM above it: then all that there is shrinks.
 */
#include <math.h>

#include "device/cpu/attention_both.h"

enum {
    FAR_BYTES = 12288, /* of keys, and of values, that are called for ahead of what is read, */
    NEAR_BYTES = 6144  /* and once more */
};

#define HEADROOM 8.0f

/* Sums of values in quarters, as weigh_pair leaves them. */
struct four {
    struct found found;
    _Alignas(64) uint16_t weights[2][FOUR][STEP];
    int which, at, n; /* weights[which] are of keys [at, at + n), whose values are yet to come */
};

/* s[r]: of n keys from key j on, STEP at most; what is past them is -INFINITY. */
INLINE void score_keys(float s[FOUR][STEP], const struct job *job, int j, int n, enum dtype type,
                       const int rows, __m512i *strange)
{
#pragma GCC unroll 1
    for (int i = 0; i < n; i += EIGHT) {
        struct calls at =
            calls_from(job->keys, j + i, job->k_dim, job->ahead, FAR_BYTES, NEAR_BYTES);
        vf two[FOUR / 2];

        sum_eight(two, job->q, at, n == STEP || n - i > EIGHT ? EIGHT : n - i, job->k_dim, type,
                  rows, strange);
#pragma GCC unroll 2
        for (int r = 0; r < rows; r += 2) {
            _mm256_store_ps(s[r] + i, _mm512_castps512_ps256(two[r / 2]));
            _mm256_store_ps(s[r + 1] + i, _mm512_extractf32x8_ps(two[r / 2], 1));
        }
    }
    for (int r = 0; n < STEP && r < rows; r++)
        for (int i = n; i < STEP; i++)
            s[r][i] = -INFINITY;
}

/* Column strips of the values that wait. */
INLINE void weigh_columns(struct four *f, const struct job *job, enum dtype type, int column,
                          const int strips, const int rows, __m512i *strange)
{
    const uint16_t *p = f->weights[f->which][0];
    int64_t dim = job->v_dim;
    struct calls at = calls_from(job->values, f->at, job->v_dim, job->ahead, FAR_BYTES, NEAR_BYTES);
    vf sums[FOUR][4];

    at.rows += column;
    at.ahead += column;
    at.soon += column;
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < 2 * strips; v++)
            sums[r][v] = vf_load(f->found.acc[r] + column + v * VF_LANES);
    for (int i = 0; i < f->n; i += 2) {
        weigh_pair(sums, p + i, STEP, at, i + 1 < f->n ? dim : 0, job->v_dim, type, strips, STRIP,
                   rows, strange);
        at.rows += 2 * dim;
        at.ahead += 2 * dim;
        at.soon += 2 * dim;
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < 2 * strips; v++)
            vf_store(f->found.acc[r] + column + v * VF_LANES, sums[r][v]);
}

INLINE void weigh_waiting(struct four *f, const struct job *job, enum dtype type, const int rows,
                          __m512i *strange)
{
    int i = 0;

    if (f->n == 0)
        return;
    for (; i + 2 * STRIP <= job->v_dim; i += 2 * STRIP)
        weigh_columns(f, job, type, i, 2, rows, strange);
    if (i < job->v_dim)
        weigh_columns(f, job, type, i, 1, rows, strange);
    f->n = 0;
}

INLINE void soften(struct four *f, uint16_t p[FOUR][STEP], float s[FOUR][STEP], enum dtype type,
                   const int rows)
{
    vf scale = vf_set(type == DTYPE_F16 ? VALUE_SCALE : 1);

#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        vf a = vf_exp2_negative(vf_sub(vf_load(s[r]), f->found.max[r]));
        vf b = vf_exp2_negative(vf_sub(vf_load(s[r] + VF_LANES), f->found.max[r]));

        f->found.sum[r] = vf_add(f->found.sum[r], vf_add(a, b));
        _mm512_store_si512(p[r], (__m512i)_mm512_cvtne2ps_pbh(vf_mul(b, scale), vf_mul(a, scale)));
    }
}

INLINE void attend_step(struct four *f, const struct job *job, int j, int n, enum dtype type,
                        const int rows, __m512i *strange)
{
    _Alignas(64) float s[FOUR][STEP];

    score_keys(s, job, j, n, type, rows, strange);
    if (__builtin_expect(is_above(&f->found, s, HEADROOM, rows), 0)) {
        weigh_waiting(f, job, type, rows, strange);
        raise_max(&f->found, s, job->v_dim, rows);
    }
    soften(f, f->weights[!f->which], s, type, rows);
    weigh_waiting(f, job, type, rows, strange);
    f->which = !f->which;
    f->at = j;
    f->n = n;
}

INLINE void begin_four(struct four *f, const float *acc, int64_t ld, const float *max,
                       const float *sum, int v_dim, const int rows)
{
    f->which = f->n = 0;
    for (int r = 0; r < rows; r++) {
        f->found.max[r] = vf_set(max[r]);
        f->found.sum[r] = _mm512_maskz_mov_ps(1, vf_set(sum[r]));
        for (int i = 0; i < v_dim; i += STRIP) {
            vf two[2];

            part_quarters(two, vf_load(acc + r * ld + i), vf_load(acc + r * ld + i + VF_LANES));
            vf_store(f->found.acc[r] + i, two[0]);
            vf_store(f->found.acc[r] + i + VF_LANES, two[1]);
        }
    }
}

INLINE void end_four(const struct four *f, float *acc, int64_t ld, float *max, float *sum,
                     int v_dim, const int rows)
{
    for (int r = 0; r < rows; r++) {
        max[r] = _mm512_cvtss_f32(f->found.max[r]);
        sum[r] = vf_sum(f->found.sum[r]);
        for (int i = 0; i < v_dim; i += STRIP)
            join_quarters(acc + r * ld + i, vf_load(f->found.acc[r] + i),
                          vf_load(f->found.acc[r] + i + VF_LANES));
    }
}

INLINE bool attend_four(float *acc, int64_t ld, float *max, float *sum, struct job job,
                        int n_stretches, enum dtype type, const int rows)
{
    __m512i strange = _mm512_setzero_si512();
    struct four f;

    begin_four(&f, acc, ld, max, sum, job.v_dim, rows);
    for (int i = 0; i < n_stretches; i++, job.keys++, job.values++) {
        int j = 0, n = job.keys->n;

        for (; j + STEP <= n; j += STEP)
            attend_step(&f, &job, j, STEP, type, rows, &strange);
        if (j < n)
            attend_step(&f, &job, j, n - j, type, rows, &strange);
        weigh_waiting(&f, &job, type, rows, &strange);
    }
    if (any_strange(strange))
        return false;
    end_four(&f, acc, ld, max, sum, job.v_dim, rows);
    return true;
}

#define ATTEND(suffix, type)                                                                       \
    bool cpu_attend_##suffix##_avx512(                                                             \
        float *acc, int ld, float *max, float *sum, const struct cpu_paired_queries *q,            \
        const struct cpu_stretch *keys, const struct cpu_stretch *values, int n_stretches,         \
        int k_dim, int v_dim)                                                                      \
    {                                                                                              \
        return attend_all(acc, ld, max, sum, q, keys, values, n_stretches, k_dim, v_dim, type);    \
    }

ATTEND(f16, DTYPE_F16)
ATTEND(bf16, DTYPE_BF16)
