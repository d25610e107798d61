/* Attention in whole numbers with the kernels of every instruction set this processor has: what it
 * makes of queries, keys and values, and what comes of their codes, against double precision. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "device/cpu/cpu.h"

#include "device/vector.h"
#include "testing.h"

enum {
    INT_TILE = CPU_INT_ROWS,
    INT_MAX = MAX_DIM + CPU_INT_BLOCK,
    MAX_CHUNK = CPU_INT_CHUNK, /* of those of all sets */
};

/* What a tile of queries and a chunk of keys and values become. */
struct integers {
    int8_t q[INT_TILE * INT_MAX];
    int32_t starts[INT_TILE * INT_MAX];
    float steps[INT_TILE], offsets[INT_TILE], balance[MAX_DIM], middle[MAX_DIM], key_step,
        value_steps[INT_MAX];
    uint8_t keys[MAX_CHUNK * INT_MAX];
    int16_t values[MAX_CHUNK * INT_MAX], p[INT_TILE * MAX_CHUNK]; /* or bytes */
    int parts;
    float s[INT_TILE * MAX_CHUNK], y[INT_TILE * INT_MAX], max[INT_TILE], sum[INT_TILE];
    float keep[INT_TILE], weights[INT_TILE];
};

static int key_code(const struct cpu_int_attention *k, const struct integers *n, int key, int i,
                    int row)
{
    return n->keys[key / CPU_INT_COLS * row * CPU_INT_COLS + i / 4 * 4 * CPU_INT_COLS +
                   key % CPU_INT_COLS * 4 + i % 4] -
           k->key_zero;
}

static int value_code(const struct cpu_int_attention *k, const struct integers *n, int key, int i)
{
    int m = k->value_keys;
    int at = i / CPU_INT_COLS * CPU_INT_COLS * k->chunk + key / m * m * CPU_INT_COLS +
             i % CPU_INT_COLS * m + key % m;

    return m == 2 ? n->values[at] : ((const int8_t *)n->values)[at];
}

static int weight_code(const struct cpu_int_attention *k, const struct integers *n, int r, int key)
{
    const uint8_t *bytes = (const uint8_t *)n->p;
    int at = r * k->chunk + key;

    if (k->value_keys == 2)
        return n->p[at];
    return 256 * bytes[at] + (n->parts > 1 ? bytes[INT_TILE * k->chunk + at] : 0);
}

/* Codes times steps are within half a step of the numbers, and 4095 roundings of f32. */
static void check_codes(const struct cpu_int_attention *k, const struct integers *n, const float *q,
                        const float *keys, const float *values, int begin, int end, int dim,
                        int row)
{
    for (int i = 0; i < row; i++) {
        for (int r = 0; r < INT_TILE; r++)
            check_close(n->steps[r] * (float)n->q[r * row + i],
                        i < dim ? (double)q[r * (dim + 8) + i] : 0, 0.5001 * (double)n->steps[r],
                        "query codes", dim, i);
        for (int j = begin; j < end && i < dim; j++)
            check_close(n->middle[i] + n->key_step * (float)key_code(k, n, j, i, row),
                        (double)keys[j * dim + i] * (double)n->balance[i],
                        0.5001 * (double)n->key_step, "key codes", dim, i);
        for (int j = 0; j < k->chunk && i < dim; j++)
            check_close(n->value_steps[i] * (float)value_code(k, n, j, i),
                        (double)values[j * dim + i], 0.501 * (double)n->value_steps[i],
                        "value codes", dim, i);
    }
}

static void check_int_scores(const struct cpu_int_attention *k, const struct integers *n,
                             const float *q, int begin, int end, int dim, int row)
{
    for (int r = 0; r < INT_TILE; r++)
        for (int j = begin; j < end; j++) {
            double want = 0, size = 0;

            for (int i = 0; i < dim; i++) {
                double offset = (double)q[r * (dim + 8) + i] * (double)n->middle[i];
                double part = (double)n->steps[r] * (double)n->key_step * n->q[r * row + i] *
                              key_code(k, n, j, i, row);

                want += offset + part;
                size += fabs(offset) + fabs(part);
            }
            check_close(n->s[r * k->chunk + j], want, (dim + 4) * EPSILON * size, "int scores", dim,
                        j);
        }
}

/* Of a row whose scores are s: p within 7.5e-5, or 1.73e-3 in bytes, and half a unit, or a unit of
 * its high byte; all of them, in bytes, add up to within that too, for 64 thresholds let as many
 * through as they should.
 */
static void check_int_softmax(const struct cpu_int_attention *k, const struct integers *n,
                              const struct integers *before, int r)
{
    double unit = k->weight_unit, step = k->value_keys == 4 && n->parts == 1 ? 256 : 0.501;
    float top = -INFINITY;
    int64_t sum = 0;

    for (int j = 0; j < k->chunk; j++)
        top = fmaxf(top, before->s[r * k->chunk + j]);
    double peak = (double)top, max = fmax(peak, (double)before->max[r]);
    for (int j = 0; j < k->chunk; j++) {
        double want = unit * exp2((double)before->s[r * k->chunk + j] - peak);
        int p = weight_code(k, n, r, j);

        sum += p;
        if (peak > -HUGE_VAL)
            check_close((float)p, want, step + (k->value_keys == 2 ? 8e-5 : 1.8e-3) * want,
                        "int softmax", r, j);
        else
            CHECK(p == 0 || n->weights[r] == 0, "int softmax: hidden %d", j);
    }
    double keep = max > -HUGE_VAL ? exp2((double)before->max[r] - max) : 1;
    double weight = peak > -HUGE_VAL ? exp2(peak - max) / unit : 0;
    double want = (double)before->sum[r] * keep + weight * (double)sum;
    double tolerance = 4 * EPSILON; /* and as much as the exponents are rounded */

    if (max > -HUGE_VAL && before->max[r] > -INFINITY)
        tolerance += (max - (double)before->max[r]) * EPSILON;
    if (peak > -HUGE_VAL)
        tolerance += (max - peak) * EPSILON;
    CHECK((double)n->max[r] == max, "int softmax: max %g", (double)n->max[r]);
    check_close(n->keep[r], keep, tolerance * keep + 0x1p-124, "int softmax keep", r, 0);
    check_close(n->weights[r], weight, tolerance * weight + 0x1p-124, "int softmax weight", r, 0);
    check_close(n->sum[r], want, 2 * tolerance * want + 0x1p-110, "int softmax sum", r, 0);
}

static void check_int_weigh(const struct cpu_int_attention *k, const struct integers *n,
                            const struct integers *before, int cols, int ldy)
{
    for (int r = 0; r < INT_TILE; r++)
        for (int i = 0; i < cols; i++) {
            double sum = 0, old = (double)before->y[r * ldy + i] * (double)n->keep[r];

            for (int j = 0; j < k->chunk; j++)
                sum += weight_code(k, n, r, j) * (double)value_code(k, n, j, i);
            sum *= (double)n->weights[r] * (double)n->value_steps[i];
            check_close(n->y[r * ldy + i], old + sum, 4 * EPSILON * (fabs(old) + fabs(sum)),
                        "int weigh", cols, i);
        }
}

/* Rows differ in size, keys have something in common; some see nothing, or nothing yet. */
static void check_integer(const struct cpu_int_attention *k, int dim, int begin, int end,
                          bool much_before)
{
    static struct integers n, before;
    static float q[INT_TILE * (MAX_DIM + 8)], keys[MAX_CHUNK * MAX_DIM],
        values[MAX_CHUNK * MAX_DIM];
    int row = (dim + CPU_INT_BLOCK - 1) / CPU_INT_BLOCK * CPU_INT_BLOCK, ldq = dim + 8;
    int panels = (dim + CPU_INT_COLS - 1) / CPU_INT_COLS;

    memset(q, 0, sizeof q);
    for (int r = 0; r < INT_TILE; r++) {
        random_floats(q + r * ldq, (size_t)dim);
        for (int i = 0; i < dim; i++)
            q[r * ldq + i] *= (float)(r * r) * 0.1f; /* the first: zeros */
    }
    random_floats(keys, COUNT(keys));
    random_floats(values, COUNT(values));
    for (int i = 0; i < dim; i++)
        n.balance[i] = i % 3 == 0 ? 1 : i % 3 == 1 ? 0.5f : 4;
    for (int i = 0; i < k->chunk * dim; i++)
        keys[i] = keys[i] * 0.2f + (float)(i % dim % 5 - 2);
    random_floats(n.y, COUNT(n.y));
    k->queries(n.q, n.starts, n.steps, q, ldq, INT_TILE, dim);
    n.key_step = k->keys(n.keys, n.middle, keys, n.balance, begin, end, dim);
    k->values(n.values, n.value_steps, values, dim);
    k->offsets(n.offsets, q, ldq, INT_TILE, n.middle, dim);
    k->scores(n.s, n.q, n.starts, n.steps, n.offsets, n.keys, n.key_step, dim);
    check_codes(k, &n, q, keys, values, begin, end, dim, row);
    check_int_scores(k, &n, q, begin, end, dim, row);
    for (int r = 0; r < INT_TILE; r++) {
        n.max[r] = r % 3 ? 2 - (float)r : -INFINITY;
        n.sum[r] = r % 3 ? 1.5f : 0;
        if (much_before) {
            n.max[r] = 0;
            n.sum[r] = 0x1p40f;
        }
        for (int j = 0; j < k->chunk; j++)
            if (j < begin || j >= end || r == 2 || r == 3)
                n.s[r * k->chunk + j] = -INFINITY;
    }
    before = n;
    n.parts = k->softmax(n.p, n.s, n.max, n.sum, n.keep, n.weights);
    for (int r = 0; r < INT_TILE; r++)
        check_int_softmax(k, &n, &before, r);
    k->weigh(n.y, panels * CPU_INT_COLS, n.p, n.parts, n.keep, n.weights, n.values, n.value_steps,
             panels);
    check_int_weigh(k, &n, &before, panels * CPU_INT_COLS, panels * CPU_INT_COLS);
}

/* A number that is none makes NaN of all that it has a part in. */
static void check_int_nan(const struct cpu_int_attention *k, float bad)
{
    static struct integers n;
    static float q[INT_TILE * 72], keys[MAX_CHUNK * 64];

    random_floats(q, COUNT(q));
    random_floats(keys, COUNT(keys));
    q[72 + 5] = bad;
    for (int r = 0; r < INT_TILE; r++)
        n.max[r] = -INFINITY;
    for (int i = 0; i < 64; i++)
        n.balance[i] = 1;
    k->queries(n.q, n.starts, n.steps, q, 72, INT_TILE, 64);
    n.key_step = k->keys(n.keys, n.middle, keys, n.balance, 0, k->chunk, 64);
    keys[7 * 64 + 9] = bad;
    k->values(n.values, n.value_steps, keys, 64);
    k->offsets(n.offsets, q, 72, INT_TILE, n.middle, 64);
    k->scores(n.s, n.q, n.starts, n.steps, n.offsets, n.keys, n.key_step, 64);
    n.parts = k->softmax(n.p, n.s, n.max, n.sum, n.keep, n.weights);
    k->weigh(n.y, 64, n.p, n.parts, n.keep, n.weights, n.values, n.value_steps, 4);
    for (int r = 0; r < INT_TILE; r++)
        for (int i = 0; i < 64; i++)
            CHECK((bool)isnan(n.y[r * 64 + i]) == (r == 1 || i == 9), "NaN, row %d dim %d", r, i);
    CHECK(isnan(k->keys(n.keys, n.middle, keys, n.balance, 0, k->chunk, 64)), "NaN of a key");
}

static void check_integers(const struct cpu_vector_kernels *k)
{
    for (size_t d = 0; k->integers && d < COUNT(dims); d++) {
        int begin = (int)random_below((size_t)k->integers->chunk);

        check_integer(k->integers, dims[d], 0, k->integers->chunk, d % 2);
        check_integer(k->integers, dims[d], begin,
                      begin + 1 + (int)random_below((size_t)(k->integers->chunk - begin)),
                      !(d % 2));
    }
}

static void check_nan(const struct cpu_vector_kernels *k)
{
    static const float bad[] = {NAN, INFINITY};

    for (size_t i = 0; k->integers && i < COUNT(bad); i++)
        check_int_nan(k->integers, bad[i]);
}

TEST_OF(integers)
TEST_OF(nan)

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_integers), cmocka_unit_test(test_nan)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
