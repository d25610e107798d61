/* device/cpu/streams.c: rows that are mixed with each other, or measured whole. */
#include <math.h>
#include <string.h>

#include "device/cpu/cpu.h"
#include "device/cpu/ops.h"

enum { NUMBERS = 8192 }; /* that are worth waking a thread for */

struct streams_call {
    const struct cpu_vector_kernels *k;
    const tensor *y, *x, *other;
    int n, n_iterations;
    float factor;
};

static float *row_of(const tensor *x, int64_t row)
{
    return (float *)x->data + row * x->stride;
}

static void run(device *d, struct streams_call *call, int rows, int64_t numbers, range_fn fn)
{
    struct cpu_device *c = cpu_device_of(d);

    call->k = &c->vector;
    if (numbers > 0)
        thread_pool_for(c->pool, rows, numbers >= NUMBERS ? 1 : NUMBERS / numbers, fn, call);
}

static void mix_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct streams_call *call = ctx;
    int64_t rows = call->other->rows;
    int n = call->n, cols = call->x->cols;

    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        for (int j = 0; j < n; j++) {
            float *y = row_of(call->y, j * rows + t);

            memset(y, 0, (size_t)cols * sizeof *y);
            for (int i = 0; i < n; i++)
                call->k->add(y, row_of(call->x, i * rows + t), cols,
                             row_of(call->other, t)[j * n + i]);
        }
    }
}

void cpu_mix_streams(device *d, tensor *y, const tensor *x, const tensor *coefs, int n)
{
    struct streams_call call = {.y = y, .x = x, .other = coefs, .n = n};

    run(d, &call, coefs->rows, (int64_t)x->cols * n * n, mix_range);
}

/* Each of n lists of n numbers, a step apart, divided by its sum and eps. */
static void divide_by_sums(float *m, int n, int list, int step, float eps)
{
    for (int i = 0; i < n; i++) {
        float sum = 0;

        for (int j = 0; j < n; j++)
            sum += m[i * list + j * step];
        for (int j = 0; j < n; j++)
            m[i * list + j * step] /= sum + eps;
    }
}

static void sinkhorn_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct streams_call *call = ctx;

    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        float *m = row_of(call->x, t);

        divide_by_sums(m, call->n, 1, call->n, call->factor);
        for (int i = 1; i < call->n_iterations; i++) {
            divide_by_sums(m, call->n, call->n, 1, call->factor);
            divide_by_sums(m, call->n, 1, call->n, call->factor);
        }
    }
}

void cpu_sinkhorn(device *d, tensor *x, int n, int n_iterations, float eps)
{
    struct streams_call call = {.x = x, .n = n, .n_iterations = n_iterations, .factor = eps};

    run(d, &call, x->rows, (int64_t)x->cols * 2 * n_iterations, sinkhorn_range);
}

/* The mean of the squares of n numbers, or of their distances to a value. */
static double mean_square(const float *x, int n, double from)
{
    double sum = 0;

    for (int i = 0; i < n; i++)
        sum += ((double)x[i] - from) * ((double)x[i] - from);
    return sum / n;
}

static void match_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct streams_call *call = ctx;
    int n = call->x->cols;

    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        float *x = row_of(call->x, t);
        double own = fmax(mean_square(x, n, 0), (double)call->factor);

        call->k->scale(x, n, (float)sqrt(mean_square(row_of(call->other, t), n, 0) / own));
    }
}

void cpu_match_size(device *d, tensor *x, const tensor *like, float floor)
{
    struct streams_call call = {.x = x, .other = like, .factor = floor};

    run(d, &call, x->rows, x->cols, match_range);
}

static void cut_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct streams_call *call = ctx;
    int n = call->x->cols;

    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        float *x = row_of(call->x, t), cut;
        double mean = 0;

        for (int i = 0; i < n; i++)
            mean += (double)x[i];
        mean /= n;
        cut = (float)(mean + (double)call->factor * sqrt(mean_square(x, n, mean)));
        for (int i = 0; i < n; i++)
            x[i] = fmaxf(0, x[i] - cut);
    }
}

void cpu_cut_below_spread(device *d, tensor *x, float factor)
{
    struct streams_call call = {.x = x, .factor = factor};

    run(d, &call, x->rows, x->cols, cut_range);
}

/* The sums and differences of halves, of quarters, ... */
static void hadamard_group(float *x, int n)
{
    float scale = 1 / sqrtf((float)n);

    for (int half = 1; half < n; half *= 2)
        for (int first = 0; first < n; first += 2 * half)
            for (int i = first; i < first + half; i++) {
                float a = x[i], b = x[i + half];

                x[i] = a + b;
                x[i + half] = a - b;
            }
    for (int i = 0; i < n; i++)
        x[i] *= scale;
}

static void hadamard_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct streams_call *call = ctx;

    (void)thread;
    for (int64_t t = begin; t < end; t++)
        for (int i = 0; i < call->x->cols; i += call->n)
            hadamard_group(row_of(call->x, t) + i, call->n);
}

void cpu_hadamard(device *d, tensor *x, int n)
{
    struct streams_call call = {.x = x, .n = n};

    run(d, &call, x->rows, (int64_t)x->cols * 12, hadamard_range);
}
