/* device/cpu/recurrent_simd.h: the steps of recurrent mixers on vectors, written once for all sets.
 *
 * A file recurrent_<isa>.c includes its simd_<isa>.h and then this. Every lane goes through the
 * same operations wherever it lies, each rounded as it is written: products that are added are
 * fused here by hand, so that the compiler has no choice left.
 */
#ifndef DEVICE_CPU_RECURRENT_SIMD_H
#define DEVICE_CPU_RECURRENT_SIMD_H

#include <math.h>

#include "device/cpu/inline.h"
#include "device/cpu/vector_kernels.h"
#include "device/cpu/vector_math.h"

/* So many sums at once that none waits for itself. */
enum { LANE_VECTORS = 4, LANES = LANE_VECTORS * VF_LANES };

/* Of a single token, where there are registers for it: lines of memory in their order. */
enum { WIDE_VECTORS = VF_LANES < 16 ? LANE_VECTORS : 8, WIDE = WIDE_VECTORS * VF_LANES };

static void simd_convolve(float *y, const float *const *x, const float *w, const float *bias, int n,
                          int width)
{
    for (int i = 0; i < n; i += VF_LANES) {
        vf sum = bias ? part_load(bias, i, n) : vf_set(0);

        for (int j = 0; j < width; j++)
            sum = vf_fma(part_load(w + (int64_t)j * n, i, n), part_load(x[j], i, n), sum);
        part_store(y, sum, i, n);
    }
}

/* A vector, of which n lanes are there; whether n is VF_LANES and stream are constants where these
 * are used. */
INLINE vf lanes_load(const float *p, int n)
{
    return n == VF_LANES ? vf_load(p) : vf_load_n(p, n);
}

INLINE void lanes_store(float *p, vf v, int n, bool stream)
{
    if (n != VF_LANES)
        vf_store_n(p, v, n);
    else if (stream)
        vf_stream(p, v);
    else
        vf_store(p, v);
}

/* Channels whose weights are turned around at once, and how many of each at most. */
enum { CONV_BLOCK = 64, CONV_WIDTH = 4 };

/* [width, CONV_BLOCK] from [n, width]; a constant width is done with vectors. */
INLINE void turn_weights(float *restrict turned, const float *restrict w, int n, int width)
{
    for (int i = 0; i < n; i++)
        for (int j = 0; j < width; j++)
            turned[j * CONV_BLOCK + i] = w[i * width + j];
}

/* Weights j of n channels, by way of room for a vector: an array of its own is one that gcc 12
 * aligns to 64 bytes and the sanitizer does not. */
INLINE vf gather_weights(float *room, const float *w, int j, int n, int width)
{
    for (int i = 0; i < n; i++)
        room[i] = w[(int64_t)i * width + j];
    return vf_load(room);
}

/* n channels of a vector; their weights are turned as above, or there is room for a vector. */
INLINE void convolve_lanes(float *y, float *to, int64_t to_stride, const float *from,
                           int64_t from_stride, const float *x, const float *w, float *turned,
                           bool is_turned, const float *bias, int n, int width)
{
    vf sum = bias ? lanes_load(bias, n) : vf_set(0), last = lanes_load(x, n);

    for (int j = 0; j < width; j++) {
        vf input = j < width - 1 ? lanes_load(from + j * from_stride, n) : last;
        vf weight =
            is_turned ? vf_load(turned + j * CONV_BLOCK) : gather_weights(turned, w, j, n, width);

        sum = vf_fma(weight, input, sum);
        if (j > 0)
            lanes_store(to + (j - 1) * to_stride, input, n, false);
    }
    lanes_store(y, sum, n, false);
}

/* turn, where width is at most CONV_WIDTH: both are constants then. */
INLINE void convolve_channels(float *y, float *to, int64_t to_stride, const float *from,
                              int64_t from_stride, const float *x, const float *w,
                              const float *bias, int n, int width, bool turn)
{
    float turned[CONV_WIDTH * CONV_BLOCK] = {0};

    for (int i = 0; i < n; i += VF_LANES) {
        const float *own = w + (int64_t)i * width, *own_bias = bias ? bias + i : NULL;
        float *own_turned = turned + (turn ? i % CONV_BLOCK : 0);

        if (turn && i % CONV_BLOCK == 0)
            turn_weights(turned, own, n - i < CONV_BLOCK ? n - i : CONV_BLOCK, width);
        if (n - i >= VF_LANES)
            convolve_lanes(y + i, to + i, to_stride, from + i, from_stride, x + i, own, own_turned,
                           turn, own_bias, VF_LANES, width);
        else
            convolve_lanes(y + i, to + i, to_stride, from + i, from_stride, x + i, own, own_turned,
                           turn, own_bias, n - i, width);
    }
}

static void simd_convolve_one(float *y, float *to, int64_t to_stride, const float *from,
                              int64_t from_stride, const float *x, const float *w,
                              const float *bias, int n, int width)
{
    switch (width) {
    case 3:
        convolve_channels(y, to, to_stride, from, from_stride, x, w, bias, n, 3, true);
        break;
    case 4: /* as in most models */
        convolve_channels(y, to, to_stride, from, from_stride, x, w, bias, n, 4, true);
        break;
    default:
        convolve_channels(y, to, to_stride, from, from_stride, x, w, bias, n, width, false);
    }
}

/* --- Matrices: blocks of n_vectors vectors of lanes, of the last vector n lanes; n_vectors,
 * whether n is VF_LANES, the rule and stream are constants where these are used. --- */

/* A token for some lanes: what S^T k after the decay or S^T a before it gives, what k is then
 * multiplied by, and S^T q. */
struct lanes {
    float known[CPU_RECURRENCE_LANES], change[CPU_RECURRENCE_LANES], sums[CPU_RECURRENCE_LANES];
};

/* Calls for the lines that come later than those of n numbers: to the second cache, and again to
 * the first, as the processor leaves out some of the former. */
INLINE void call_ahead(const float *p, int n)
{
    enum { FAR = 8192, NEAR = 1024, LINE = 64 };

    for (int i = 0; i < n * (int)sizeof *p; i += LINE) {
        __builtin_prefetch((const char *)p + i + FAR, 0, 2);
        __builtin_prefetch((const char *)p + i + NEAR, 0, 3);
    }
}

/* Of the keys [begin, end). */
INLINE void look_up(float *known, const float *from, int64_t stride,
                    const struct cpu_recurrence_step *s, int begin, int end, int n_vectors, int n,
                    enum recurrence_rule rule, bool ahead)
{
    vf sums[WIDE_VECTORS];

    for (int j = 0; j < n_vectors; j++)
        sums[j] = vf_load(known + j * VF_LANES);
    for (int i = begin; i < end; i++) {
        const float *row = from + i * stride;
        vf decay = vf_set(s->decay[i * s->decay_step]);
        vf key = vf_set(rule == RECUR_RWKV7 ? s->a[i] : s->k[i]);

        if (ahead)
            call_ahead(row, n_vectors * VF_LANES);
        for (int j = 0; j < n_vectors; j++) {
            vf state = lanes_load(row + j * VF_LANES, n);

            sums[j] = vf_fma(key, rule == RECUR_RWKV7 ? state : vf_mul(decay, state), sums[j]);
        }
    }
    for (int j = 0; j < n_vectors; j++)
        vf_store(known + j * VF_LANES, sums[j]);
}

INLINE void take_in(struct lanes *l, int lane, float *to, int64_t to_stride, const float *from,
                    int64_t from_stride, const struct cpu_recurrence_step *s, int begin, int end,
                    int n_vectors, int n, enum recurrence_rule rule, bool stream, bool ahead)
{
    vf known[WIDE_VECTORS], change[WIDE_VECTORS], sums[WIDE_VECTORS];

    for (int j = 0; j < n_vectors; j++) {
        known[j] = vf_load(l->known + lane + j * VF_LANES);
        change[j] = vf_load(l->change + lane + j * VF_LANES);
        sums[j] = vf_load(l->sums + lane + j * VF_LANES);
    }
    for (int i = begin; i < end; i++) {
        const float *row = from + i * from_stride + lane;
        float *to_row = to + i * to_stride + lane;
        vf decay = vf_set(s->decay[i * s->decay_step]), k = vf_set(s->k[i]), q = vf_set(s->q[i]);
        vf b = vf_set(rule == RECUR_RWKV7 ? s->b[i] : 0);

        if (ahead && rule == RECUR_ADD) /* others have looked it up */
            call_ahead(row, n_vectors * VF_LANES);
        for (int j = 0; j < n_vectors; j++) {
            vf state = vf_mul(decay, lanes_load(row + j * VF_LANES, n));

            state = vf_fma(k, change[j], state);
            if (rule == RECUR_RWKV7)
                state = vf_fma(b, known[j], state);
            lanes_store(to_row + j * VF_LANES, state, n, stream);
            sums[j] = vf_fma(q, state, sums[j]);
        }
    }
    for (int j = 0; j < n_vectors; j++)
        vf_store(l->sums + lane + j * VF_LANES, sums[j]);
}

/* The same for all n lanes. */
INLINE void look_up_all(struct lanes *l, const float *from, int64_t stride,
                        const struct cpu_recurrence_step *s, int begin, int end, int n,
                        enum recurrence_rule rule, bool ahead)
{
    int lane = 0;

    for (; lane + WIDE <= n; lane += WIDE)
        look_up(l->known + lane, from + lane, stride, s, begin, end, WIDE_VECTORS, VF_LANES, rule,
                ahead);
    for (; lane + LANES <= n; lane += LANES)
        look_up(l->known + lane, from + lane, stride, s, begin, end, LANE_VECTORS, VF_LANES, rule,
                ahead);
    for (; lane + VF_LANES <= n; lane += VF_LANES)
        look_up(l->known + lane, from + lane, stride, s, begin, end, 1, VF_LANES, rule, ahead);
    if (lane < n)
        look_up(l->known + lane, from + lane, stride, s, begin, end, 1, n - lane, rule, ahead);
}

INLINE void take_in_all(struct lanes *l, float *to, int64_t to_stride, const float *from,
                        int64_t from_stride, const struct cpu_recurrence_step *s, int begin,
                        int end, int n, enum recurrence_rule rule, bool stream, bool ahead)
{
    int lane = 0;

    for (; lane + WIDE <= n; lane += WIDE)
        take_in(l, lane, to, to_stride, from, from_stride, s, begin, end, WIDE_VECTORS, VF_LANES,
                rule, stream, ahead);
    for (; lane + LANES <= n; lane += LANES)
        take_in(l, lane, to, to_stride, from, from_stride, s, begin, end, LANE_VECTORS, VF_LANES,
                rule, stream, ahead);
    for (; lane + VF_LANES <= n; lane += VF_LANES)
        take_in(l, lane, to, to_stride, from, from_stride, s, begin, end, 1, VF_LANES, rule, false,
                ahead);
    if (lane < n)
        take_in(l, lane, to, to_stride, from, from_stride, s, begin, end, 1, n - lane, rule, false,
                ahead);
}

/* Of more lanes than a block, a few keys at a time: the state is then read and written in order.
 * Writing past the caches saves reading what is overwritten, unless that is what was read. */
INLINE void recur(float *y, float *to, int64_t to_stride, const float *from, int64_t from_stride,
                  const struct cpu_recurrence_step *step, int n, enum recurrence_rule rule,
                  bool ahead)
{
    const struct cpu_recurrence_step copy = *step, *s = &copy; /* that no store may change */
    int keys = n > WIDE ? 16 : s->key_dim;
    uintptr_t spread = (uintptr_t)to | (uintptr_t)to_stride * sizeof *to;
    bool stream = s->last && to != from && spread % (VF_LANES * sizeof *to) == 0;
    struct lanes l;

    for (int i = 0; i < n; i += VF_LANES) {
        vf_store(l.known + i, vf_set(0));
        vf_store(l.sums + i, vf_set(0));
    }
    for (int i = 0; i < s->key_dim && rule != RECUR_ADD; i += keys)
        look_up_all(&l, from, from_stride, s, i, i + keys < s->key_dim ? i + keys : s->key_dim, n,
                    rule, ahead);
    for (int i = 0; i < n; i += VF_LANES) {
        vf v = part_load(s->v, i, n), known = vf_load(l.known + i);

        v = rule == RECUR_DELTA ? vf_sub(v, known) : v;
        vf_store(l.change + i, vf_mul(vf_set(s->beta), v));
    }
    for (int i = 0; i < s->key_dim; i += keys) {
        int end = i + keys < s->key_dim ? i + keys : s->key_dim;

        if (stream)
            take_in_all(&l, to, to_stride, from, from_stride, s, i, end, n, rule, true, ahead);
        else
            take_in_all(&l, to, to_stride, from, from_stride, s, i, end, n, rule, false, ahead);
    }
    for (int i = 0; i < n; i += VF_LANES)
        part_store(y, vf_fma(vf_set(s->skip), part_load(s->v, i, n), vf_load(l.sums + i)), i, n);
    if (stream)
        vf_end_stream();
}

static void simd_add_rule(float *y, float *to, int64_t to_stride, const float *from,
                          int64_t from_stride, const struct cpu_recurrence_step *s, int n)
{
    if (s->ahead)
        recur(y, to, to_stride, from, from_stride, s, n, RECUR_ADD, true);
    else
        recur(y, to, to_stride, from, from_stride, s, n, RECUR_ADD, false);
}

static void simd_delta_rule(float *y, float *to, int64_t to_stride, const float *from,
                            int64_t from_stride, const struct cpu_recurrence_step *s, int n)
{
    if (s->ahead)
        recur(y, to, to_stride, from, from_stride, s, n, RECUR_DELTA, true);
    else
        recur(y, to, to_stride, from, from_stride, s, n, RECUR_DELTA, false);
}

static void simd_rwkv7_rule(float *y, float *to, int64_t to_stride, const float *from,
                            int64_t from_stride, const struct cpu_recurrence_step *s, int n)
{
    if (s->ahead)
        recur(y, to, to_stride, from, from_stride, s, n, RECUR_RWKV7, true);
    else
        recur(y, to, to_stride, from, from_stride, s, n, RECUR_RWKV7, false);
}

/* --- Scans --- */

/* sums[r], r < 4, for n channels, at most 4; the others' are 0. n is a constant where it is 4. */
INLINE void selective_group(float *sums, float *to, const float *from, const float *x,
                            const float *dt, const float *a, const float *b, const float *c, int n,
                            int size)
{
    vf totals[4] = {vf_set(0), vf_set(0), vf_set(0), vf_set(0)};

    for (int j = 0; j < size; j += VF_LANES) {
        vf b_j = part_load(b, j, size), c_j = part_load(c, j, size);

        for (int r = 0; r < n; r++) {
            int64_t at = (int64_t)r * size;
            vf decay = vf_exp(vf_mul(vf_set(dt[r]), part_load(a + at, j, size)));
            vf state =
                vf_fma(decay, part_load(from + at, j, size), vf_mul(vf_set(dt[r] * x[r]), b_j));

            part_store(to + at, state, j, size);
            totals[r] = vf_fma(state, c_j, totals[r]);
        }
    }
    vf_store_4_sums(sums, totals);
}

static void simd_selective_step(float *y, float *to, const float *from, const float *x,
                                const float *dt, const float *a, const float *skip, const float *b,
                                const float *c, int n, int size)
{
    for (int i = 0; i < n; i += 4) {
        int64_t at = (int64_t)i * size;
        float sums[4];

        if (n - i >= 4)
            selective_group(sums, to + at, from + at, x + i, dt + i, a + at, b, c, 4, size);
        else
            selective_group(sums, to + at, from + at, x + i, dt + i, a + at, b, c, n - i, size);
        for (int r = i; r < n && r < i + 4; r++)
            y[r] = skip ? fmaf(skip[r], x[r], sums[r - i]) : sums[r - i];
    }
}

static void simd_gated_step(float *to, const float *from, const float *x, const float *log_a, int n)
{
    for (int i = 0; i < n; i += VF_LANES) {
        vf log = part_load(log_a, i, n), excess = vf_expm1_negative(vf_add(log, log));
        vf gain = vf_sqrt(vf_sub(vf_set(0.0f), excess));

        part_store(to, vf_fma(vf_exp(log), part_load(from, i, n), vf_mul(gain, part_load(x, i, n))),
                   i, n);
    }
}

static void simd_recurrent_kernels(struct cpu_vector_kernels *k)
{
    k->convolve = simd_convolve;
    k->convolve_one = simd_convolve_one;
    k->recurrence[RECUR_ADD] = simd_add_rule;
    k->recurrence[RECUR_DELTA] = simd_delta_rule;
    k->recurrence[RECUR_RWKV7] = simd_rwkv7_rule;
    k->recurrence_lanes = LANES;
    k->selective_step = simd_selective_step;
    k->gated_step = simd_gated_step;
}

#endif
