/* device/cpu/attention_both.h: what the kernels share that take keys and values at once; see
 * attention_both_avx512.c. A file that includes this defines attend_four. */
#ifndef DEVICE_CPU_ATTENTION_BOTH_H
#define DEVICE_CPU_ATTENTION_BOTH_H

#include "device/cpu/attention_pairs_avx512.h"
#include "device/cpu/vector_math.h"

enum { STEP = 32 }; /* keys at a time */

/* What four queries have so far; the order of acc is the kernel's own. */
struct found {
    vf max[FOUR], sum[FOUR]; /* lanes of sum add up to the sum */
    _Alignas(64) float acc[FOUR][CPU_ATTEND_DIM];
};

/* What is the same for all steps. */
struct job {
    const uint16_t *q;
    const struct cpu_stretch *keys, *values;
    int k_dim, v_dim;
    bool ahead; /* call for what comes */
};

/* Row j of a stretch, or of what follows it. */
INLINE const uint16_t *row_from(const struct cpu_stretch *part, int j, int dim)
{
    const uint16_t *rows = part->rows, *next = part->ahead;

    return j < part->n || !next ? rows + (int64_t)j * dim : next + (int64_t)(j - part->n) * dim;
}

/* Not beyond what follows, which is as long. */
INLINE int lead(const struct cpu_stretch *part, int dim, int bytes)
{
    int rows = bytes / (2 * dim);

    return rows < part->n ? rows : part->n;
}

/* Row j and those that are called for: ahead lies so many bytes further on, and soon. */
INLINE struct calls calls_from(const struct cpu_stretch *part, int j, int dim, bool ahead,
                               int far_bytes, int near_bytes)
{
    const uint16_t *rows = row_from(part, j, dim);

    if (!ahead)
        return (struct calls){rows, rows, rows};
    return (struct calls){.rows = rows,
                          .ahead = row_from(part, j + lead(part, dim, far_bytes), dim),
                          .soon = row_from(part, j + lead(part, dim, near_bytes), dim)};
}

/* The largest score of each query is raised to what s has; what there is shrinks. */
static void raise_max(struct found *f, float s[FOUR][STEP], int v_dim, int rows)
{
    for (int r = 0; r < rows; r++) {
        vf most = vf_max(vf_load(s[r]), vf_load(s[r] + VF_LANES));
        vf max = vf_set(vf_largest(vf_max(f->max[r], most)));
        vf factor = vf_exp2_negative(vf_sub(f->max[r], max));

        f->max[r] = max;
        f->sum[r] = vf_mul(f->sum[r], factor);
        for (int i = 0; i < v_dim; i += VF_LANES)
            vf_store(f->acc[r] + i, vf_mul(vf_load(f->acc[r] + i), factor));
    }
}

/* Is a score so much larger, or not a number? */
INLINE bool is_above(const struct found *f, float s[FOUR][STEP], float headroom, const int rows)
{
    __mmask16 above = 0;

#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
        above |= _mm512_cmp_ps_mask(vf_max(vf_load(s[r]), vf_load(s[r] + VF_LANES)),
                                    vf_add(f->max[r], vf_set(headroom)), _CMP_NLE_UQ);
    return above != 0;
}

/* False, and nothing has changed, where some number is not finite. */
INLINE bool attend_four(float *acc, int64_t ld, float *max, float *sum, struct job job,
                        int n_stretches, enum dtype type, const int rows);

/* What the first four queries find finite the others mostly do too. */
INLINE bool attend_fours(float *acc, int ld, float *max, float *sum,
                         const struct cpu_paired_queries *q, struct job job, int n_stretches,
                         enum dtype type)
{
    int64_t four = (int64_t)(job.k_dim / STRIP) * TURNED;

    for (int done = 0; done < q->n; done += FOUR, job.q += four) {
        float *to = acc + (int64_t)done * ld;

        job.ahead = done == 0;
        if (!(q->n - done == 3
                  ? attend_four(to, ld, max + done, sum + done, job, n_stretches, type, 3)
                  : attend_four(to, ld, max + done, sum + done, job, n_stretches, type, FOUR)))
            return false;
    }
    return true;
}

/* Heads of 64 numbers have loops of their own. */
INLINE bool attend_all(float *acc, int ld, float *max, float *sum,
                       const struct cpu_paired_queries *q, const struct cpu_stretch *keys,
                       const struct cpu_stretch *values, int n_stretches, int k_dim, int v_dim,
                       enum dtype type)
{
    struct job job = {q->turned, keys, values, k_dim, v_dim, false};
    struct job of_64 = {q->turned, keys, values, 64, 64, true};

    if (q->n == FOUR && k_dim == 64 && v_dim == 64)
        return attend_four(acc, ld, max, sum, of_64, n_stretches, type, FOUR);
    return attend_fours(acc, ld, max, sum, q, job, n_stretches, type);
}

#endif
