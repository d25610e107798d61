/* device/cpu/exponential.c: what an exponential memory needs besides the recurrence: gates that
 * stay in range, and the division by what the memory holds. Few numbers: one for each head of a
 * row.
 */
#include <math.h>

#include "device/cpu/cpu.h"
#include "device/cpu/ops.h"
#include "device/cpu/rows.h"

struct gates_call {
    const tensor *y, *i, *f;
    const struct state_batch *batch;
    size_t offset;
};

static float log_sigmoid(float x)
{
    return fminf(x, 0) - log1pf(expf(-fabsf(x)));
}

/* Sequences one after another; heads of each are neighbours. */
static void gates_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct gates_call *call = ctx;
    int n = call->i->cols;

    (void)thread;
    for (int64_t item = begin; item < end; item++) {
        const struct state_sequence *s = &call->batch->sequences[item / n];
        int64_t h = item % n;
        float m = s->from ? ((const float *)((const char *)s->from + call->offset))[h] : 0.0f;

        for (int64_t row = s->row; row < (int64_t)s->row + s->n_rows; row++) {
            float i = row_of(call->i, row)[h], kept = log_sigmoid(row_of(call->f, row)[h]) + m;
            float *y = row_of(call->y, row) + h;

            m = fmaxf(kept, i);
            y[0] = expf(kept - m);
            y[n] = expf(i - m);
            y[2 * (int64_t)n] = expf(-m);
        }
        if (s->n_rows > 0)
            ((float *)((char *)s->to + call->offset))[h] = m;
    }
}

void cpu_exponential_gates(device *d, tensor *y, const tensor *i, const tensor *f,
                           const struct state_batch *batch, size_t offset)
{
    struct gates_call call = {y, i, f, batch, offset};
    int64_t n = batch->n_sequences > 0 ? batch->n_sequences : 1;

    thread_pool_for(cpu_device_of(d)->pool, (int64_t)batch->n_sequences * i->cols,
                    grain(HEAVY, (batch->n_rows + n - 1) / n), gates_range, &call);
}

struct divide_call {
    const tensor *y, *by, *least;
    int n;
    float eps;
};

static void divide_range(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct divide_call *call = ctx;

    (void)thread;
    for (int64_t t = begin; t < end; t++)
        for (int g = 0; g < call->by->cols; g++) {
            float *y = row_of(call->y, t) + (int64_t)g * call->n;
            float divisor = fabsf(row_of(call->by, t)[g]);

            divisor = fmaxf(divisor, row_of(call->least, t)[g]) + call->eps;
            for (int i = 0; i < call->n; i++)
                y[i] /= divisor;
        }
}

void cpu_divide_groups(device *d, tensor *y, const tensor *by, const tensor *floor, int n,
                       float eps)
{
    struct divide_call call = {y, by, floor, n, eps};

    thread_pool_for(cpu_device_of(d)->pool, y->rows, grain(LIGHT, y->cols), divide_range, &call);
}
