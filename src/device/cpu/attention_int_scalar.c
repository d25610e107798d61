/* device/cpu/attention_int_scalar.c: attention in whole numbers, in plain C. */
#include "device/cpu/attention_int.h"

enum { CHUNK = CPU_ATTEND_CHUNK };

/* To the nearest integer, ties to even. */
static int rounded(float x)
{
    return (int)lrintf(x);
}

/* Lane 0 has the first two of every four numbers, lane 1 the others. */
static int lane_of(int i)
{
    return i / 2 % 2;
}

static float query_inverse(const float *q, int dim, float *step)
{
    float largest = 0, poison = 0, lane = 0;

    for (int i = 0; i < dim; i += INT_BLOCK) {
        float lanes[2] = {0, 0};

        for (int j = i; j < dim && j < i + INT_BLOCK; j++) {
            lanes[lane_of(j)] += fabsf(q[j]);
            largest = fmaxf(largest, fabsf(q[j]));
            poison += q[j] * 0;
        }
        lane = fmaxf(lane, fmaxf(lanes[0], lanes[1]));
    }
    return int_query_inverse(largest, lane, poison, step);
}

static void int_queries(int8_t *to, int32_t *starts, float *steps, const float *q, int ldq, int n,
                        int dim)
{
    for (int r = 0; r < n; r++, q += ldq) {
        float inverse = query_inverse(q, dim, &steps[r]);

        for (int b = 0; b < int_blocks(dim); b++, to += INT_BLOCK) {
            int lanes[2] = {0, 0};

            for (int j = 0; j < INT_BLOCK; j++) {
                int i = b * INT_BLOCK + j;

                to[j] = (int8_t)(inverse > 0 && i < dim ? rounded(q[i] * inverse) : 0);
                lanes[lane_of(j)] -= INT_ZERO * to[j];
            }
            *starts++ = (int32_t)((uint32_t)lanes[1] << 16 | (lanes[0] & 0xFFFF));
        }
    }
}

static float int_keys(uint8_t *to, float *middle, const float *keys, const float *balance,
                      int begin, int end, int dim)
{
    int size = int_blocks(dim) * INT_BLOCK * INT_COLS;
    float largest = 0, poison = 0, step;

    for (int i = 0; i < dim; i++) {
        float low = keys[begin * dim + i] * balance[i], high = low;

        for (int j = begin; j < end; j++) {
            float key = keys[j * dim + i] * balance[i];

            low = fminf(low, key);
            high = fmaxf(high, key);
            poison += key * 0;
        }
        middle[i] = (low + high) * 0.5f;
        largest = fmaxf(largest, (high - low) * 0.5f);
    }
    float inverse = int_inverse(INT_ZERO - 1, largest, poison, &step);
    for (int j = 0; j < CHUNK; j++)
        for (int i = 0; i < int_blocks(dim) * INT_BLOCK; i++) {
            bool is_key = begin <= j && j < end && i < dim && inverse > 0;

            to[j / INT_COLS * size + i / 4 * 4 * INT_COLS + j % INT_COLS * 4 + i % 4] =
                (uint8_t)(INT_ZERO +
                          (is_key ? rounded((keys[j * dim + i] * balance[i] - middle[i]) * inverse)
                                  : 0));
        }
    return step;
}

static void int_values(void *to, float *steps, const float *values, int dim)
{
    for (int i = 0; i < (dim + INT_COLS - 1) / INT_COLS * INT_COLS; i++) {
        int16_t *column = (int16_t *)to + i / INT_COLS * INT_COLS * CHUNK + i % INT_COLS * 2;
        float largest = 0, poison = 0;

        for (int j = 0; j < CHUNK && i < dim; j++) {
            largest = fmaxf(largest, fabsf(values[j * dim + i]));
            poison += values[j * dim + i] * 0;
        }
        float inverse = int_inverse(INT_VALUE_MAX, largest, poison, &steps[i]);
        for (int j = 0; j < CHUNK; j++)
            column[j / 2 * 2 * INT_COLS + j % 2] =
                (int16_t)(inverse > 0 && i < dim ? rounded(values[j * dim + i] * inverse) : 0);
    }
}

static void int_offsets(float *to, const float *q, int ldq, int n, const float *middle, int dim)
{
    for (int r = 0; r < n; r++) {
        to[r] = 0;
        for (int i = 0; i < dim; i++)
            to[r] += q[r * (int64_t)ldq + i] * middle[i];
    }
}

static void int_scores(float *s, const int8_t *codes, const int32_t *starts, const float *steps,
                       const float *offsets, const uint8_t *keys, float step, int dim)
{
    int n = int_blocks(dim) * INT_BLOCK;

    (void)starts;
    for (int r = 0; r < INT_ROWS; r++, codes += n)
        for (int j = 0; j < CHUNK; j++) {
            const uint8_t *key = keys + j / INT_COLS * n * INT_COLS + j % INT_COLS * 4;
            int32_t sum = 0;

            for (int i = 0; i < n; i++)
                sum += codes[i] * (key[i / 4 * 4 * INT_COLS + i % 4] - INT_ZERO);
            s[r * CHUNK + j] = fmaf((float)sum, steps[r] * step, offsets[r]);
        }
}

static int int_softmax(void *to, const float *s, float *max, float *sum, float *keep,
                       float *weights)
{
    int16_t *p = to;

    for (int r = 0; r < INT_ROWS; r++, p += CHUNK, s += CHUNK) {
        float peak = -INFINITY, both;
        int32_t total = 0;

        for (int j = 0; j < CHUNK; j++)
            peak = isnan(s[j]) ? s[j] : fmaxf(peak, s[j]);
        both = isnan(peak) || peak > max[r] ? peak : max[r];
        for (int j = 0; j < CHUNK; j++) {
            p[j] = (int16_t)(peak > -INFINITY ? rounded(exp2f(s[j] - peak + INT_WEIGHT_BITS)) : 0);
            total += p[j];
        }
        keep[r] = both == max[r] ? 1 : exp2f(max[r] - both);
        weights[r] = peak == -INFINITY ? 0 : exp2f(peak - both) * INT_WEIGHT_UNIT;
        sum[r] = fmaf(sum[r], keep[r], (float)total * weights[r]);
        max[r] = both;
    }
    return 1;
}

static void int_weigh(float *y, int ldy, const void *rows, int parts, const float *keep,
                      const float *weights, const void *values, const float *steps, int n_panels)
{
    const int16_t *p = rows;

    (void)parts;
    for (int r = 0; r < INT_ROWS; r++)
        for (int i = 0; i < n_panels * INT_COLS; i++) {
            const int16_t *column =
                (const int16_t *)values + i / INT_COLS * INT_COLS * CHUNK + i % INT_COLS * 2;
            int32_t sum = 0;

            for (int j = 0; j < CHUNK; j++)
                sum += p[r * CHUNK + j] * column[j / 2 * 2 * INT_COLS + j % 2];
            y[r * (int64_t)ldy + i] =
                fmaf(y[r * (int64_t)ldy + i], keep[r], (float)sum * weights[r] * steps[i]);
        }
}

const struct cpu_int_attention cpu_int_attention_scalar = {
    .most_queries = 256,
    .chunk = CPU_ATTEND_CHUNK,
    .key_zero = INT_ZERO,
    .value_max = INT_VALUE_MAX,
    .value_keys = 2,
    .weight_unit = 1 << INT_WEIGHT_BITS,
    .queries = int_queries,
    .keys = int_keys,
    .values = int_values,
    .offsets = int_offsets,
    .scores = int_scores,
    .softmax = int_softmax,
    .weigh = int_weigh,
};
