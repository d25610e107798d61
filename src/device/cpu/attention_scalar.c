/* device/cpu/attention_scalar.c: attention over a chunk of keys, in plain C. */
#include <math.h>
#include <string.h>

#include "base/number.h"
#include "device/cpu/four.h"
#include "device/cpu/vector_kernels.h"

enum { PANEL = 16, TILE_ROWS = 4 };

static float number_at(const void *data, enum dtype type, int64_t i)
{
    switch (type) {
    case DTYPE_F16:
        return f16_to_f32(((const uint16_t *)data)[i]);
    case DTYPE_BF16:
        return bf16_to_f32(((const uint16_t *)data)[i]);
    default:
        return ((const float *)data)[i];
    }
}

static void pack_keys(float *to, const void *keys, enum dtype type, int first, int n_keys, int dim)
{
    for (int key = 0; key < n_keys; key++) {
        int j = first + key;

        for (int i = 0; i < dim; i++)
            to[(j / PANEL * dim + i) * PANEL + j % PANEL] =
                number_at(keys, type, (int64_t)key * dim + i);
    }
}

static void pack_values(float *to, const void *values, enum dtype type, int first, int n_keys,
                        int dim)
{
    int padded = (dim + PANEL - 1) / PANEL * PANEL;

    for (int key = 0; key < n_keys; key++) {
        int j = first + key;

        for (int i = 0; i < padded; i++)
            to[(i / PANEL * CPU_ATTEND_CHUNK + j) * PANEL + i % PANEL] =
                i < dim ? number_at(values, type, (int64_t)key * dim + i) : 0.0f;
    }
}

static void product(float *c, int ldc, const float *a, int lda, const float *b, int b_stride,
                    int n_rows, int n_panels, int depth, bool accumulate)
{
    for (int r = 0; r < n_rows; r++)
        for (int j = 0; j < n_panels * PANEL; j += 4) {
            const float *columns = b + j / PANEL * (int64_t)b_stride + j % PANEL;
            float *to = c + r * (int64_t)ldc + j;
            four sums = {0};

            if (accumulate)
                sums = *four_at(to);
            for (int k = 0; k < depth; k++)
                sums += a[r * (int64_t)lda + k] * *four_at(columns + k * PANEL);
            memcpy(to, &sums, sizeof sums);
        }
}

static void cap_scores(float *s, int n, float cap)
{
    for (int j = 0; j < n; j++)
        s[j] = cap * tanhf(s[j]);
}

static float softmax_step(float *s, int n, int begin, int end, float *max, float *sum)
{
    float new_max = *max, new_sum = 0;

    for (int j = begin; j < end; j++)
        new_max = fmaxf(new_max, s[j]);
    for (int j = 0; j < n; j++) {
        s[j] = begin <= j && j < end ? exp2f(s[j] - new_max) : 0.0f;
        new_sum += s[j];
    }
    float factor = exp2f(*max - new_max);
    *sum = *sum * factor + new_sum;
    *max = new_max;
    return factor;
}

static void scores(float *s, int lds, const float *q, int ldq, int n_rows, const void *keys,
                   enum dtype type, int n_keys, int dim)
{
    for (int r = 0; r < n_rows; r++)
        for (int j = 0; j < n_keys; j++) {
            float sum = 0;

            for (int i = 0; i < dim; i++)
                sum += q[r * (int64_t)ldq + i] * number_at(keys, type, (int64_t)j * dim + i);
            s[r * (int64_t)lds + j] = sum;
        }
}

static void weigh(float *y, int ldy, const float *s, int lds, int n_rows, const void *values,
                  enum dtype type, int n_keys, int dim)
{
    for (int r = 0; r < n_rows; r++)
        for (int j = 0; j < n_keys; j++)
            for (int i = 0; i < dim; i++)
                y[r * (int64_t)ldy + i] +=
                    s[r * (int64_t)lds + j] * number_at(values, type, (int64_t)j * dim + i);
}

/* The four kernels that read the cache, for one of its types. */
#define FOR_TYPE(suffix, type)                                                                     \
    static void pack_keys_##suffix(float *to, const void *keys, int first, int n_keys, int dim)    \
    {                                                                                              \
        pack_keys(to, keys, type, first, n_keys, dim);                                             \
    }                                                                                              \
    static void pack_values_##suffix(float *to, const void *values, int first, int n_keys,         \
                                     int dim)                                                      \
    {                                                                                              \
        pack_values(to, values, type, first, n_keys, dim);                                         \
    }                                                                                              \
    static void scores_##suffix(float *s, int lds, const float *q, int ldq, int n_rows,            \
                                const void *keys, int n_keys, int dim, const void *ahead)          \
    {                                                                                              \
        (void)ahead;                                                                               \
        scores(s, lds, q, ldq, n_rows, keys, type, n_keys, dim);                                   \
    }                                                                                              \
    static void weigh_##suffix(float *y, int ldy, const float *s, int lds, int n_rows,             \
                               const void *values, int n_keys, int dim, const void *ahead)         \
    {                                                                                              \
        (void)ahead;                                                                               \
        weigh(y, ldy, s, lds, n_rows, values, type, n_keys, dim);                                  \
    }

FOR_TYPE(f32, DTYPE_F32)
FOR_TYPE(f16, DTYPE_F16)
FOR_TYPE(bf16, DTYPE_BF16)

#define ALL_TYPES(name)                                                                            \
    {                                                                                              \
        name##_f32, name##_f16, name##_bf16                                                        \
    }

void cpu_attention_kernels_scalar(struct cpu_vector_kernels *k)
{
    static const struct cpu_vector_kernels slots = {
        .pack_keys = ALL_TYPES(pack_keys),
        .pack_values = ALL_TYPES(pack_values),
        .scores = ALL_TYPES(scores),
        .weigh = ALL_TYPES(weigh),
    };

    k->panel = PANEL;
    k->tile_rows = TILE_ROWS;
    k->product = product;
    k->cap_scores = cap_scores;
    k->softmax_step = softmax_step;
    k->integers = &cpu_int_attention_scalar;
    for (int i = 0; i < CPU_KV_TYPES; i++) {
        k->pack_keys[i] = slots.pack_keys[i];
        k->pack_values[i] = slots.pack_values[i];
        k->scores[i] = k->exact_scores[i] = slots.scores[i];
        k->weigh[i] = slots.weigh[i];
    }
}
