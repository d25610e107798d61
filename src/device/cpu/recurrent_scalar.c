/* device/cpu/recurrent_scalar.c: the steps of recurrent mixers in plain C, the definition of them.
 */
#include <math.h>
#include <stddef.h>

#include "device/cpu/vector_kernels.h"

static void convolve(float *y, const float *const *x, const float *w, const float *bias, int n,
                     int width)
{
    for (int i = 0; i < n; i++) {
        float sum = bias ? bias[i] : 0.0f;

        for (int j = 0; j < width; j++)
            sum += w[(ptrdiff_t)j * n + i] * x[j][i];
        y[i] = sum;
    }
}

static void convolve_one(float *y, float *to, int64_t to_stride, const float *from,
                         int64_t from_stride, const float *x, const float *w, const float *bias,
                         int n, int width)
{
    for (int i = 0; i < n; i++) {
        float sum = bias ? bias[i] : 0.0f, last = x[i];

        for (int j = 0; j < width - 1; j++) {
            float input = from[j * from_stride + i];

            sum += w[(ptrdiff_t)i * width + j] * input;
            if (j > 0)
                to[(j - 1) * to_stride + i] = input;
        }
        y[i] = sum + w[(ptrdiff_t)i * width + width - 1] * last;
        if (width > 1)
            to[(width - 2) * to_stride + i] = last;
    }
}

static float decayed(const float *from, int64_t stride, const struct cpu_recurrence_step *s, int i)
{
    return s->decay[i * s->decay_step] * from[i * stride];
}

static void add(float *y, float *to, int64_t to_stride, const float *from, int64_t from_stride,
                const struct cpu_recurrence_step *s, int n)
{
    for (int lane = 0; lane < n; lane++) {
        float v = s->beta * s->v[lane], sum = 0;

        for (int i = 0; i < s->key_dim; i++) {
            float state = decayed(from + lane, from_stride, s, i) + s->k[i] * v;

            to[i * to_stride + lane] = state;
            sum += s->q[i] * state;
        }
        y[lane] = sum + s->skip * s->v[lane];
    }
}

static void delta(float *y, float *to, int64_t to_stride, const float *from, int64_t from_stride,
                  const struct cpu_recurrence_step *s, int n)
{
    for (int lane = 0; lane < n; lane++) {
        float known = 0, sum = 0;

        for (int i = 0; i < s->key_dim; i++)
            known += s->k[i] * decayed(from + lane, from_stride, s, i);

        float change = s->beta * (s->v[lane] - known);

        for (int i = 0; i < s->key_dim; i++) {
            float state = decayed(from + lane, from_stride, s, i) + s->k[i] * change;

            to[i * to_stride + lane] = state;
            sum += s->q[i] * state;
        }
        y[lane] = sum + s->skip * s->v[lane];
    }
}

static void rwkv7(float *y, float *to, int64_t to_stride, const float *from, int64_t from_stride,
                  const struct cpu_recurrence_step *s, int n)
{
    for (int lane = 0; lane < n; lane++) {
        float v = s->beta * s->v[lane], removed = 0, sum = 0;

        for (int i = 0; i < s->key_dim; i++)
            removed += s->a[i] * from[i * from_stride + lane];
        for (int i = 0; i < s->key_dim; i++) {
            float state = decayed(from + lane, from_stride, s, i) + s->k[i] * v + s->b[i] * removed;

            to[i * to_stride + lane] = state;
            sum += s->q[i] * state;
        }
        y[lane] = sum + s->skip * s->v[lane];
    }
}

static void selective_step(float *y, float *to, const float *from, const float *x, const float *dt,
                           const float *a, const float *skip, const float *b, const float *c, int n,
                           int size)
{
    for (int i = 0; i < n; i++) {
        ptrdiff_t at = (ptrdiff_t)i * size;
        float sum = 0, input = dt[i] * x[i];

        for (int j = 0; j < size; j++) {
            to[at + j] = expf(dt[i] * a[at + j]) * from[at + j] + input * b[j];
            sum += to[at + j] * c[j];
        }
        y[i] = sum + (skip ? skip[i] * x[i] : 0.0f);
    }
}

static void gated_step(float *to, const float *from, const float *x, const float *log_a, int n)
{
    for (int i = 0; i < n; i++)
        to[i] = expf(log_a[i]) * from[i] + sqrtf(-expm1f(2 * log_a[i])) * x[i];
}

void cpu_recurrent_kernels_scalar(struct cpu_vector_kernels *k)
{
    k->convolve = convolve;
    k->convolve_one = convolve_one;
    k->recurrence[RECUR_ADD] = add;
    k->recurrence[RECUR_DELTA] = delta;
    k->recurrence[RECUR_RWKV7] = rwkv7;
    k->recurrence_lanes = 32;
    k->selective_step = selective_step;
    k->gated_step = gated_step;
}
