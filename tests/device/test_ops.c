/* The CPU device: opening, memory, errors; and the row operations on tensors of every form:
 * strided, in place, of one row and of many, on one thread and on two. What the kernels compute is
 * tested in test_vector.c; here, that every number of a tensor goes through them once. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/number.h"
#include "device/cpu/cpu.h"

#include "device/gaps.h"
#include "testing.h"

static device *open_cpu(int n_threads)
{
    clm_error err = {0};
    device *d = device_cpu_open(n_threads, &err);

    CHECK(d, "%s", err.message);
    return d;
}

/* --- Tensors with gaps between their rows, which must stay as they are. --- */

static tensor copy_of(const tensor *x)
{
    tensor t = new_tensor(x->rows, x->cols);

    memcpy(t.data, x->data, (size_t)x->rows * (size_t)x->stride * sizeof(float));
    return t;
}

static void free_tensor(tensor *t)
{
    mem_free_aligned(t->data);
}

static float *row_of(const tensor *t, int row)
{
    return (float *)t->data + row * t->stride;
}

static void check_same(const tensor *got, const tensor *want, const char *what)
{
    for (int r = 0; r < got->rows; r++)
        for (int i = 0; i < got->cols + GAP; i++) {
            float expected = i < got->cols ? row_of(want, r)[i] : CANARY;

            CHECK(f32_bits(row_of(got, r)[i]) == f32_bits(expected),
                  "%s: %d x %d, row %d, %d: %g and %g", what, got->rows, got->cols, r, i,
                  (double)row_of(got, r)[i], (double)expected);
        }
}

static const int shapes[][2] = {{0, 8},   {1, 1},     {1, 40},   {3, 4100},
                                {70, 96}, {2, 20000}, {40, 4096}};

#define FOR_SHAPES(rows, cols)                                                                     \
    for (size_t s_ = 0; s_ < COUNT(shapes); s_++)                                                  \
        for (int rows = shapes[s_][0], cols = shapes[s_][1], once_ = 1; once_; once_ = 0)

static void check_elementwise(device *d)
{
    const struct cpu_vector_kernels *k = &cpu_device_of(d)->vector;

    FOR_SHAPES(rows, cols)
    {
        tensor x = new_tensor(rows, cols), up = new_tensor(rows, cols), y = new_tensor(rows, cols);
        tensor want = copy_of(&y);

        for (int r = 0; r < rows; r++)
            k->add(row_of(&want, r), row_of(&x, r), cols, 0.3f);
        d->ops->add(d, &y, &x, 0.3f);
        check_same(&y, &want, "add");
        for (int r = 0; r < rows; r++)
            k->scale(row_of(&want, r), cols, 1.7f);
        d->ops->scale(d, &y, 1.7f);
        check_same(&y, &want, "scale");
        for (int r = 0; r < rows; r++)
            k->softcap(row_of(&want, r), cols, 3);
        d->ops->softcap(d, &y, 3);
        check_same(&y, &want, "softcap");
        for (int r = 0; r < rows; r++)
            k->activate(row_of(&want, r), row_of(&x, r), cols, ACT_GELU);
        d->ops->activate(d, &y, &x, ACT_GELU);
        check_same(&y, &want, "activate");
        for (int r = 0; r < rows; r++)
            k->glu(row_of(&want, r), row_of(&x, r), row_of(&up, r), cols, ACT_SILU);
        d->ops->glu(d, &y, &x, &up, ACT_SILU);
        check_same(&y, &want, "glu");
        d->ops->glu(d, &x, &x, &up, ACT_SILU);
        check_same(&x, &want, "glu in place");
        free_tensor(&x);
        free_tensor(&up);
        free_tensor(&y);
        free_tensor(&want);
    }
}

/* One rounding, or none. */
static void check_scales(device *d)
{
    FOR_SHAPES(rows, cols)
    {
        tensor x = new_tensor(rows, cols), want = copy_of(&x), w = new_tensor(1, cols);
        tensor factors = new_tensor(rows, 1);

        for (int r = 0; r < rows; r++)
            for (int i = 0; i < cols; i++)
                row_of(&want, r)[i] *= row_of(&w, 0)[i];
        d->ops->scale_columns(d, &x, w.data);
        check_same(&x, &want, "scale_columns");
        for (int r = 0; r < rows; r++)
            for (int i = 0; i < cols; i++)
                row_of(&want, r)[i] *= row_of(&factors, r)[0];
        d->ops->scale_rows(d, &x, &factors);
        check_same(&x, &want, "scale_rows");
        for (int r = 0; r < rows; r++)
            for (int i = 0; i < cols; i++)
                row_of(&want, r)[i] = fmaxf(-0.1f, fminf(row_of(&want, r)[i], 0.05f));
        d->ops->clamp(d, &x, -0.1f, 0.05f);
        check_same(&x, &want, "clamp");
        free_tensor(&x);
        free_tensor(&want);
        free_tensor(&w);
        free_tensor(&factors);
    }
}

static void check_copies(device *d)
{
    FOR_SHAPES(rows, cols)
    {
        tensor x = new_tensor(rows, cols), y = new_tensor(rows, cols),
               zeros = new_tensor(rows, cols);

        for (int r = 0; r < rows; r++)
            memset(row_of(&zeros, r), 0, (size_t)cols * sizeof(float));
        d->ops->copy_rows(d, &y, &x);
        check_same(&y, &x, "copy_rows");
        d->ops->clear(d, &y);
        check_same(&y, &zeros, "clear");
        free_tensor(&x);
        free_tensor(&y);
        free_tensor(&zeros);
    }
}

static void check_groups(device *d)
{
    FOR_SHAPES(rows, cols)
    for (int n = cols > 1 ? cols / 2 : 1; n <= cols; n += n) {
        tensor x = new_tensor(rows, cols), want = copy_of(&x), w = new_tensor(1, 2);

        for (int r = 0; r < rows; r++)
            for (int i = 0; i < cols / n * n; i++)
                row_of(&want, r)[i] *= row_of(&w, 0)[i / n];
        d->ops->scale_groups(d, &x, w.data, n);
        check_same(&x, &want, "scale_groups");
        for (int r = 0; r < rows; r++)
            for (int i = 0; i < cols; i++)
                row_of(&want, r)[i] = 0.7f;
        d->ops->fill(d, &x, 0.7f);
        check_same(&x, &want, "fill");
        free_tensor(&x);
        free_tensor(&want);
        free_tensor(&w);
    }
}

/* exp within an epsilon of its argument, which is rounded, cols additions, a quotient. */
static void check_softmax(device *d)
{
    FOR_SHAPES(rows, cols)
    {
        tensor x = new_tensor(rows, cols), before = copy_of(&x);

        d->ops->softmax(d, &x);
        for (int r = 0; r < rows; r++) {
            double sum = 0;

            for (int i = 0; i < cols; i++)
                sum += exp((double)row_of(&before, r)[i]);
            for (int i = 0; i < cols; i++) {
                double want = exp((double)row_of(&before, r)[i]) / sum;

                CHECK(fabs((double)row_of(&x, r)[i] - want) <=
                          ((double)cols / 2 + 8) * (double)FLT_EPSILON * want,
                      "softmax: row %d, %d: %g, expected %g", r, i, (double)row_of(&x, r)[i], want);
            }
            CHECK(row_of(&x, r)[cols] == CANARY, "softmax: wrote past row %d", r);
        }
        free_tensor(&x);
        free_tensor(&before);
    }
}

/* arXiv:2411.13010, equation 7, with eps where the reference has it. expm1(x) - x cancels below 0:
 * an epsilon of each term counts. */
static void check_xielu(device *d)
{
    static const float w[4] = {0.4f, -0.9f, 0.5f, -1e-6f};
    const float *const parts[4] = {&w[0], &w[1], &w[2], &w[3]};
    tensor x = new_tensor(9, 200), before;
    double a = log1p(exp((double)w[0])), b = (double)w[2] + log1p(exp((double)w[1]));

    for (int r = 0; r < x.rows; r++)
        for (int i = 0; i < x.cols; i++)
            row_of(&x, r)[i] *= i % 3 ? 8 : 0.01f;
    before = copy_of(&x);
    d->ops->xielu(d, &x, parts);
    for (int r = 0; r < x.rows; r++)
        for (int i = 0; i < x.cols; i++) {
            double v = (double)row_of(&before, r)[i], e = fmin(v, (double)w[3]);
            double want = v > 0 ? a * v * v + 0.5 * v : (expm1(e) - v) * b + 0.5 * v;

            CHECK(fabs((double)row_of(&x, r)[i] - want) <=
                      8 * (double)FLT_EPSILON * (fabs(v) * (1 + b) + fabs(want)),
                  "xielu: %g gives %g, expected %g", v, (double)row_of(&x, r)[i], want);
        }
    free_tensor(&x);
    free_tensor(&before);
}

/* A division, a product; with values on and near the middle between two steps. */
static void check_round(device *d)
{
    tensor x = new_tensor(9, 100), before;
    float step = 0.25f;

    for (int r = 0; r < x.rows; r++)
        for (int i = 0; i < x.cols; i++)
            row_of(&x, r)[i] = i % 2 ? (float)(i - 50) * 0.125f : row_of(&x, r)[i] * 60;
    before = copy_of(&x);
    d->ops->round_to(d, &x, &step, -20, 19);
    for (int r = 0; r < x.rows; r++)
        for (int i = 0; i < x.cols; i++) {
            double v = (double)row_of(&before, r)[i];
            double want = 0.25 * fmin(fmax(nearbyint(v * 4), -20), 19);

            CHECK((double)row_of(&x, r)[i] == want, "round_to: %g gives %g, expected %g", v,
                  (double)row_of(&x, r)[i], want);
        }
    CHECK(row_of(&x, 8)[100] == CANARY, "round_to: wrote past the row");
    x.rows = 1;
    for (int f16 = 0; f16 < 2; f16++) {
        random_floats(x.data, 100);
        memcpy(before.data, x.data, 100 * sizeof(float));
        d->ops->round_floats(d, &x, f16 ? DTYPE_F16 : DTYPE_BF16);
        for (int i = 0; i < x.cols; i++) {
            float v = row_of(&before, 0)[i];
            float want = f16 ? f16_to_f32(f32_to_f16(v)) : bf16_to_f32(f32_to_bf16(v));

            CHECK(row_of(&x, 0)[i] == want, "round_floats: %g gives %g", (double)v,
                  (double)row_of(&x, 0)[i]);
        }
    }
    free_tensor(&x);
    free_tensor(&before);
}

/* The exponential is within an epsilon or so of itself; its argument has half an epsilon of 12. */
static void check_glu_alpha(device *d)
{
    tensor gate = new_tensor(5, 300), up = new_tensor(5, 300), y = new_tensor(5, 300);

    for (int r = 0; r < gate.rows; r++)
        for (int i = 0; i < gate.cols; i++) {
            row_of(&gate, r)[i] *= 9;
            row_of(&up, r)[i] *= 9;
        }
    d->ops->glu_alpha(d, &y, &gate, &up, 1.3f, 5);
    for (int r = 0; r < y.rows; r++)
        for (int i = 0; i < y.cols; i++) {
            double g = fmin((double)row_of(&gate, r)[i], 5);
            double u = fmin(fmax((double)row_of(&up, r)[i], -5), 5);
            double want = (u + 1) * g / (1 + exp(-(double)1.3f * g));

            CHECK(fabs((double)row_of(&y, r)[i] - want) <= 20 * (double)FLT_EPSILON * fabs(want),
                  "glu_alpha: %g, %g give %g, expected %g", g, u, (double)row_of(&y, r)[i], want);
        }
    free_tensor(&gate);
    free_tensor(&up);
    free_tensor(&y);
}

/* Each of n streams is a sum of n products. */
static void check_mix(device *d, int n, int rows, int cols)
{
    tensor x = new_tensor(n * rows, cols), y = new_tensor(n * rows, cols);
    tensor coefs = new_tensor(rows, n * n);

    d->ops->mix_streams(d, &y, &x, &coefs, n);
    for (int j = 0; j < n * rows; j++)
        for (int c = 0; c < cols; c++) {
            double want = 0, size = 0;

            for (int i = 0; i < n; i++) {
                double term = (double)row_of(&coefs, j % rows)[j / rows * n + i] *
                              (double)row_of(&x, i * rows + j % rows)[c];

                want += term;
                size += fabs(term);
            }
            CHECK(fabs((double)row_of(&y, j)[c] - want) <= (n + 1) * (double)FLT_EPSILON * size,
                  "mix_streams: %d streams, row %d, %d: %g, expected %g", n, j, c,
                  (double)row_of(&y, j)[c], want);
        }
    CHECK(row_of(&y, n * rows - 1)[cols] == CANARY, "mix_streams: wrote past the last row");
    free_tensor(&x);
    free_tensor(&y);
    free_tensor(&coefs);
}

/* The mean of the squares of a row, or of the distances to the mean. */
static double spread_of(const tensor *x, int row, double *mean)
{
    double sum = 0, from = 0;

    for (int i = 0; mean && i < x->cols; i++)
        from += (double)row_of(x, row)[i] / x->cols;
    for (int i = 0; i < x->cols; i++)
        sum += pow((double)row_of(x, row)[i] - from, 2);
    if (mean)
        *mean = from;
    return sum / x->cols;
}

/* By the definition; sums of n, each within n / 2 epsilon of the numbers' sum. */
static void check_hadamard(device *d, int rows, int cols, int n)
{
    tensor x = new_tensor(rows, cols), before = copy_of(&x);

    d->ops->hadamard(d, &x, n);
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < cols; i++) {
            const float *group = row_of(&before, r) + i / n * n;
            double want = 0, size = 0;

            for (int j = 0; j < n; j++) {
                want +=
                    __builtin_parity((unsigned)(i % n & j)) ? -(double)group[j] : (double)group[j];
                size += fabs((double)group[j]);
            }
            CHECK(fabs((double)row_of(&x, r)[i] - want / sqrt(n)) <=
                      (log2(n) + 2) * (double)FLT_EPSILON * size / sqrt(n),
                  "hadamard: row %d, %d: %g, expected %g", r, i, (double)row_of(&x, r)[i],
                  want / sqrt(n));
        }
    free_tensor(&x);
    free_tensor(&before);
}

static void check_spread(device *d, int rows, int cols)
{
    tensor x = new_tensor(rows, cols), like = new_tensor(rows, cols), before;

    memset(row_of(&x, 0), 0, (size_t)cols * sizeof(float)); /* the floor holds */
    before = copy_of(&x);
    d->ops->match_size(d, &x, &like, 1e-5f);
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < cols; i++) {
            double want =
                (double)row_of(&before, r)[i] *
                sqrt(spread_of(&like, r, NULL) / fmax(spread_of(&before, r, NULL), (double)1e-5f));

            CHECK(fabs((double)row_of(&x, r)[i] - want) <= 2 * (double)FLT_EPSILON * fabs(want),
                  "match_size: row %d, %d: %g, expected %g", r, i, (double)row_of(&x, r)[i], want);
        }
    memcpy(x.data, before.data, (size_t)rows * (size_t)x.stride * sizeof(float));
    d->ops->cut_below_spread(d, &x, 0.7f);
    for (int r = 0; r < rows; r++) {
        double mean, deviation = sqrt(spread_of(&before, r, &mean));
        double cut = mean + (double)0.7f * deviation;

        for (int i = 0; i < cols; i++) {
            double v = (double)row_of(&before, r)[i], want = fmax(0, v - cut);

            CHECK(fabs((double)row_of(&x, r)[i] - want) <=
                      2 * (double)FLT_EPSILON * (fabs(v) + fabs(cut)),
                  "cut_below_spread: row %d, %d: %g, expected %g", r, i, (double)row_of(&x, r)[i],
                  want);
        }
        CHECK(row_of(&x, r)[cols] == CANARY, "cut_below_spread: wrote past row %d", r);
    }
    free_tensor(&x);
    free_tensor(&like);
    free_tensor(&before);
}

/* The logarithm is within two epsilons of itself, then a product, a sum and a product. */
static void check_temperature(device *d)
{
    tensor x = new_tensor(40, 100), before = copy_of(&x);
    int32_t positions[40];

    for (int t = 0; t < x.rows; t++)
        positions[t] = t < 20 ? t : (int32_t)random_below(1000000);
    d->ops->temperature(d, &x, positions, 0.3f, 8, 1);
    for (int t = 0; t < x.rows; t++) {
        double factor = 1 + (double)0.3f * log(1 + floor((positions[t] + 1) / 8.0));

        for (int i = 0; i < x.cols; i++) {
            double want = (double)row_of(&before, t)[i] * factor;

            CHECK(fabs((double)row_of(&x, t)[i] - want) <= 4 * (double)FLT_EPSILON * fabs(want),
                  "temperature: position %d: %g, expected %g", positions[t],
                  (double)row_of(&x, t)[i], want);
        }
        CHECK(row_of(&x, t)[x.cols] == CANARY, "temperature: wrote past row %d", t);
    }
    free_tensor(&x);
    free_tensor(&before);
}

static void check_norms(device *d)
{
    const struct cpu_vector_kernels *k = &cpu_device_of(d)->vector;

    FOR_SHAPES(rows, cols)
    for (int groups = 1; groups <= 4; groups += 3) {
        int n = cols / groups;

        if (n * groups != cols)
            continue;
        tensor x = new_tensor(rows, cols), w = new_tensor(2, n), y = new_tensor(rows, cols);
        tensor want = copy_of(&y);

        for (int r = 0; r < rows; r++)
            for (int g = 0; g < groups; g++)
                k->rms_norm(row_of(&want, r) + g * n, row_of(&x, r) + g * n, w.data, n, 1e-6f);
        d->ops->rms_norm(d, &y, &x, w.data, n, 1e-6f);
        check_same(&y, &want, "rms_norm");
        for (int r = 0; r < rows; r++)
            for (int g = 0; g < groups; g++)
                k->layer_norm(row_of(&want, r) + g * n, row_of(&x, r) + g * n, w.data,
                              row_of(&w, 1), n, 1e-6f);
        d->ops->layer_norm(d, &x, &x, w.data, row_of(&w, 1), n, 1e-6f);
        check_same(&x, &want, "layer_norm in place");
        free_tensor(&x);
        free_tensor(&w);
        free_tensor(&y);
        free_tensor(&want);
    }
}

static void check_choices(device *d)
{
    FOR_SHAPES(rows, cols)
    {
        tensor x = new_tensor(rows, cols), y = new_tensor(rows + 3, cols);
        int32_t chosen[128] = {0}, ids[128], *order = calloc((size_t)cols + 1, sizeof *order);

        assert_non_null(order);

        if (rows == 0)
            y.rows = 0;
        for (int r = 0; r < y.rows; r++)
            chosen[r] = (int32_t)random_below((size_t)rows);
        d->ops->gather_rows(d, &y, &x, chosen);
        for (int r = 0; r < y.rows; r++)
            CHECK(memcmp(row_of(&y, r), row_of(&x, chosen[r]), (size_t)cols * sizeof(float)) == 0 &&
                      row_of(&y, r)[cols] == CANARY,
                  "gather_rows: row %d", r);
        y.rows = rows;
        for (int i = 0; i < cols; i++)
            order[i] = (int32_t)random_below((size_t)cols);
        d->ops->gather_columns(d, &y, &x, order);
        for (int r = 0; r < rows; r++)
            for (int i = 0; i < cols; i++)
                CHECK(row_of(&y, r)[i] == row_of(&x, r)[order[i]], "gather_columns: %d, %d", r, i);
        for (int r = 0; r < rows; r++)
            CHECK(row_of(&y, r)[cols] == CANARY, "gather_columns: wrote behind row %d", r);
        free(order);
        d->ops->argmax(d, ids, &x);
        for (int r = 0; r < rows; r++)
            for (int i = 0; i < cols; i++)
                CHECK(row_of(&x, r)[i] < row_of(&x, r)[ids[r]] + (i >= ids[r] ? 1e-9f : 0) ||
                          row_of(&x, r)[i] == row_of(&x, r)[ids[r]],
                      "argmax: row %d: %d, not %d", r, ids[r], i);
        free_tensor(&x);
        free_tensor(&y);
    }
}

/* A single row so long that threads share it. */
static void check_long_argmax(device *d)
{
    enum { COLS = 100003 };
    tensor x = new_tensor(1, COLS);
    float *row = row_of(&x, 0);
    int32_t id = 0;

    for (int i = 0; i < 20; i++) {
        int first = (int)random_below(COLS), second = (int)random_below(COLS);

        row[first] = row[second] = 2e9f;
        d->ops->argmax(d, &id, &x);
        CHECK(id == (first < second ? first : second), "argmax: %d of %d and %d", id, first,
              second);
        row[first] = row[second] = 0;
    }
    row[COLS - 1] = NAN;
    d->ops->argmax(d, &id, &x);
    CHECK(id == -1, "argmax beside a NaN: %d", id);
    for (int i = 0; i < COLS; i++)
        row[i] = -INFINITY;
    d->ops->argmax(d, &id, &x);
    CHECK(id == -1, "argmax of nothing but -inf: %d", id);
    row[70000] = -3;
    d->ops->argmax(d, &id, &x);
    CHECK(id == 70000, "argmax of one number: %d", id);
    free_tensor(&x);
}

/* The angle is one f32 product; cosine, sine and scaling are each within an epsilon. */
static void check_rope(device *d, int rows, int n, int head_dim, int n_heads, bool interleaved)
{
    const struct cpu_vector_kernels *k = &cpu_device_of(d)->vector;
    tensor table = new_tensor(rows, 2 * n), x = new_tensor(rows, n_heads * head_dim),
           want = copy_of(&x);
    int32_t positions[64];
    float frequencies[64];

    for (int i = 0; i < n; i++)
        frequencies[i] = powf(10000, -(float)i / (float)n);
    for (int t = 0; t < rows; t++)
        positions[t] = t % 3 ? (int32_t)random_below(100000) : t;
    d->ops->rope_table(d, &table, positions, frequencies, 1.3f);
    for (int t = 0; t < rows; t++) {
        for (int i = 0; i < n; i++) {
            double angle = (double)((float)positions[t] * frequencies[i]);

            CHECK(fabs((double)row_of(&table, t)[i] - (double)1.3f * cos(angle)) < 4e-7 &&
                      fabs((double)row_of(&table, t)[n + i] - (double)1.3f * sin(angle)) < 4e-7,
                  "rope_table: position %d, %d", positions[t], i);
        }
        for (int h = 0; h < n_heads; h++)
            (interleaved ? k->rope_pairs : k->rope_halves)(
                row_of(&want, t) + h * head_dim, row_of(&table, t), row_of(&table, t) + n, n);
    }
    d->ops->rope(d, &x, head_dim, &table, interleaved);
    check_same(&x, &want, "rope");
    free_tensor(&table);
    free_tensor(&x);
    free_tensor(&want);
}

static void check_ropes(device *d)
{
    for (int interleaved = 0; interleaved < 2; interleaved++) {
        check_rope(d, 0, 4, 8, 2, interleaved);
        check_rope(d, 1, 32, 64, 8, interleaved);
        check_rope(d, 64, 32, 64, 32, interleaved);
        check_rope(d, 33, 20, 80, 3, interleaved); /* only a part of each head */
        check_rope(d, 9, 3, 7, 5, interleaved);
    }
}

static void test_rows(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 2; threads++) {
        device *d = open_cpu(threads);

        check_elementwise(d);
        check_scales(d);
        check_copies(d);
        check_temperature(d);
        check_groups(d);
        check_softmax(d);
        check_xielu(d);
        check_round(d);
        check_glu_alpha(d);
        check_mix(d, 1, 3, 7);
        check_mix(d, 4, 9, 300);
        check_hadamard(d, 3, 64, 2);
        check_hadamard(d, 5, 512, 512);
        check_hadamard(d, 1, 4096, 1024);
        check_spread(d, 1, 1);
        check_spread(d, 5, 9000);
        check_norms(d);
        check_choices(d);
        check_long_argmax(d);
        check_ropes(d);
        assert_int_equal(d->ops->sync(d, NULL), 0);
        d->ops->close(d);
    }
}

/* --- The device itself --- */

static void test_memory(void **state)
{
    device *d = open_cpu(1);
    clm_error err = {0};
    char a[100], b[100] = {0};

    (void)state;
    for (size_t size = 0; size < 5000; size += 777) {
        char *p = d->ops->alloc(d, size, &err);

        CHECK(p && (uintptr_t)p % 64 == 0, "%zu bytes", size);
        d->ops->free(d, p);
    }
    d->ops->free(d, NULL);
    CHECK(!d->ops->alloc(d, SIZE_MAX / 2 + 100, &err) && err.code == CLM_ERR_NOMEM,
          "more than half of everything");
    memset(a, 'x', sizeof a);
    char *p = d->ops->alloc(d, 200, NULL), *q = d->ops->alloc(d, 200, NULL);
    assert_true(p && q);
    d->ops->upload(d, p, a, sizeof a);
    d->ops->copy(d, q, p, sizeof a);
    d->ops->download(d, b, q, sizeof a);
    CHECK(memcmp(a, b, sizeof a) == 0, "there and back");
    d->ops->upload(d, NULL, NULL, 0);
    CHECK(d->ops->map(d, a, sizeof a, NULL) == a, "a view of what is there");
    d->ops->free(d, p);
    d->ops->free(d, q);
    d->ops->close(d);
}

/* The n-th allocation fails, until none is left to fail. Counting processors can do without. */
static void test_open_without_memory(void **state)
{
    bool failed = true;

    (void)state;
    for (long n = 0; failed; n++) {
        clm_error err = {0};

        mem_fail_after(n);
        device *d = device_cpu_open(2, &err);
        failed = mem_fail_after(-1);
        CHECK(d || (failed && err.code == CLM_ERR_NOMEM), "allocation %ld: %s", n, err.message);
        if (d)
            d->ops->close(d);
    }
}

static void test_scratch(void **state)
{
    device *d = open_cpu(1);
    struct cpu_device *c = cpu_device_of(d);
    clm_error err = {0};

    (void)state;
    for (int thread = 0; thread <= 1; thread++) {
        char *p = cpu_scratch(c, thread, 1000), *q = cpu_scratch(c, thread, 10);

        CHECK(p && p == q && (uintptr_t)p % 64 == 0, "thread %d", thread);
        memset(p, 1, 1000);
    }
    CHECK(!cpu_scratch(c, 0, SIZE_MAX / 2 + 100), "more than half of everything");
    assert_int_equal(d->ops->sync(d, &err), -1);
    CHECK(err.code == CLM_ERR_NOMEM, "%s", err.message);
    assert_int_equal(d->ops->sync(d, NULL), 0);
    assert_non_null(cpu_scratch(c, 0, 0));
    d->ops->close(d);
}

/* Another number of threads, or the one there was where memory is short. */
static void test_set_threads(void **state)
{
    device *d = open_cpu(1);
    bool failed = true;

    (void)state;
    for (long n = 0; failed; n++) {
        clm_error err = {0};
        int before = device_cpu_threads(d), wanted = 5 - before; /* 4 or 1 */

        mem_fail_after(n);
        int rc = device_cpu_set_threads(d, wanted, &err);
        failed = mem_fail_after(-1);
        CHECK(rc == 0 || (failed && err.code == CLM_ERR_NOMEM), "allocation %ld: %s", n,
              err.message);
        CHECK(device_cpu_threads(d) == (rc ? before : wanted), "allocation %ld", n);
    }
    assert_int_equal(device_cpu_set_threads(d, 3, NULL), 0);
    for (int thread = 0; thread <= 3; thread++)
        assert_non_null(cpu_scratch(cpu_device_of(d), thread, 100));
    assert_int_equal(device_cpu_set_threads(d, 2, NULL), 0);
    assert_int_equal(device_cpu_threads(d), 2);
    d->ops->close(d);
}

static void test_choice(void **state)
{
    static const char *names[] = {"scalar", "avx2", "avx512", "neon"};
    const char *before = getenv("CLM_CPU");
    char *kept = before ? mem_strdup(before) : NULL;
    clm_error err = {0};

    (void)state;
    for (size_t i = 0; i < COUNT(names); i++) {
        setenv("CLM_CPU", names[i], 1);
        device *d = open_cpu(1);
        CHECK(i != 0 || strcmp(device_cpu_isa(d), "scalar") == 0, "%s", device_cpu_isa(d));
        CHECK(i != 1 || strcmp(device_cpu_isa(d), "avx512") != 0, "%s", device_cpu_isa(d));
        assert_int_equal(device_cpu_threads(d), 1);
        d->ops->close(d);
    }
    setenv("CLM_CPU", "sse9", 1);
    CHECK(!device_cpu_open(1, &err) && err.code == CLM_ERR_ARG && strstr(err.message, "sse9"), "%s",
          err.message);
    if (kept)
        setenv("CLM_CPU", kept, 1);
    else
        unsetenv("CLM_CPU");
    mem_free(kept);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_scratch),     cmocka_unit_test(test_open_without_memory),
        cmocka_unit_test(test_set_threads), cmocka_unit_test(test_choice),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
