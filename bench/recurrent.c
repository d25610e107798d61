/* bench/recurrent.c: speed of recurrent mixers on the CPU, at the shapes of published models.
 *
 *     bench_recurrent [-t threads] [-r rows] [-b sequences] [-i]
 *
 * One line per operation: the best time of a call for a layer, per row, and the speed at which it
 * reads and writes states beside that of copying the same states on the same threads, turn by turn.
 * There are as many layers as make the states far larger than the caches. With -i states are
 * written where they are read, as in most steps of a text.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "device/cpu/cpu.h"

#define TOTAL_BYTES ((size_t)200 << 20) /* of states, old and new */
#define SECONDS 2.0                     /* per line */

enum op { ADD, DELTA, RWKV7, SELECTIVE, CONV };

static const struct shape {
    const char *name;
    enum op op;
    int heads, key_heads, key_dim, value_dim; /* channels, -, size or width, 1 */
} shapes[] = {
    {"mamba2-1.3b", ADD, 64, 1, 128, 64},           {"falcon-h1-1.5b", ADD, 48, 1, 256, 64},
    {"qwen3-next", DELTA, 32, 16, 128, 128},        {"rwkv7-1.5b", RWKV7, 32, 32, 64, 64},
    {"mamba-2.8b scan", SELECTIVE, 5120, 0, 16, 1}, {"mamba2-1.3b conv", CONV, 4352, 0, 4, 1},
};

struct world {
    device *d;
    const struct shape *s;
    int rows, n_sequences, n_layers;
    bool in_place;
    size_t state; /* bytes, of a sequence and layer */
    char *states[2];
    float *numbers;
    struct state_sequence *sequences;
};

/* Any small positive numbers serve, as long as they are normal. */
static tensor view(const struct world *w, int cols)
{
    return (tensor){w->numbers, DTYPE_F32, w->rows * w->n_sequences, cols, cols};
}

static void call(const struct world *w, tensor *y, const struct state_batch *batch)
{
    const struct shape *s = w->s;
    const struct device_ops *ops = w->d->ops;
    tensor key = view(w, s->key_heads * s->key_dim), value = view(w, s->heads * s->value_dim);
    tensor head = view(w, s->heads), all = view(w, s->heads * s->key_dim),
           size = view(w, s->key_dim);
    struct recurrence_params p = {
        .rule = s->op == ADD     ? RECUR_ADD
                : s->op == DELTA ? RECUR_DELTA
                                 : RECUR_RWKV7,
        .n_heads = s->heads,
        .n_key_heads = s->key_heads,
        .key_dim = s->key_dim,
        .value_dim = s->value_dim,
        .q = &key,
        .k = &key,
        .v = &value,
        .decay = s->op == RWKV7 ? &all : &head,
        .beta = &head,
        .a = s->op == RWKV7 ? &all : NULL,
        .b = s->op == RWKV7 ? &all : NULL,
    };

    if (s->op == SELECTIVE)
        ops->selective_scan(w->d, y, &value, &value, &size, &size, w->numbers, NULL, batch, 0);
    else if (s->op == CONV)
        ops->causal_conv(w->d, y, &value, w->numbers, NULL, s->key_dim, ACT_SILU, batch, 0);
    else
        ops->recurrence(w->d, y, &p, batch, 0);
}

/* Seconds of a call for one layer. */
static double time_layer(const struct world *w, tensor *y, int layer, int turn)
{
    struct state_batch batch = {w->sequences, w->n_sequences, w->rows * w->n_sequences};
    double begin;

    for (int i = 0; i < w->n_sequences; i++) {
        size_t at = ((size_t)layer * (size_t)w->n_sequences + (size_t)i) * w->state;

        w->sequences[i] =
            (struct state_sequence){i * w->rows, w->rows, w->states[turn % 2] + at,
                                    w->states[w->in_place ? turn % 2 : 1 - turn % 2] + at};
    }
    begin = clock_seconds();
    call(w, y, &batch);
    return clock_seconds() - begin;
}

struct copy_call {
    char *to;
    const char *from;
    size_t size;
};

static void copy_part(void *ctx, int thread, int n_threads)
{
    const struct copy_call *c = ctx;
    size_t begin = c->size / (size_t)n_threads * (size_t)thread;
    size_t end =
        thread + 1 < n_threads ? c->size / (size_t)n_threads * (size_t)(thread + 1) : c->size;

    memcpy(c->to + begin, c->from + begin, end - begin);
}

static double time_copy(const struct world *w, int layer, int turn)
{
    size_t size = (size_t)w->n_sequences * w->state, at = (size_t)layer * size;
    struct copy_call c = {w->states[1 - turn % 2] + at, w->states[turn % 2] + at, size};
    double begin = clock_seconds();

    thread_pool_run(cpu_device_of(w->d)->pool, copy_part, &c);
    return clock_seconds() - begin;
}

static void run(const struct world *w, tensor *y)
{
    double step = 1e9, copy = 1e9, begin = clock_seconds(),
           bytes = 2.0 * w->n_sequences * (double)w->state;

    for (int turn = 0; turn < 4 || clock_seconds() - begin < SECONDS; turn++) {
        for (int layer = 0; layer < w->n_layers; layer++) {
            double s = time_layer(w, y, layer, turn);

            step = s < step ? s : step;
        }
        for (int layer = 0; layer < w->n_layers; layer++) {
            double c = time_copy(w, layer, turn);

            copy = c < copy ? c : copy;
        }
    }
    printf("%-18s %8.2f us a row, %6.1f GB/s of states, %5.2f of a copy's\n", w->s->name,
           1e6 * step / (w->rows * w->n_sequences), 1e-9 * bytes / step, copy / step);
    fflush(stdout);
}

static int time_shape(struct world *w, const struct shape *s)
{
    size_t state = (size_t)s->heads * (size_t)s->key_dim * (size_t)s->value_dim * sizeof(float);
    size_t cols =
        (size_t)s->heads * (size_t)(s->key_dim > s->value_dim ? s->key_dim : s->value_dim);
    size_t n_rows = (size_t)w->rows * (size_t)w->n_sequences, n = n_rows * cols;
    size_t pair = 2 * state * (size_t)w->n_sequences;
    tensor y;
    int rc = -1;

    w->s = s;
    w->state = (state + 63) / 64 * 64;
    w->n_layers = (int)(TOTAL_BYTES / pair) + 1;
    n = n > state / sizeof(float) ? n : state / sizeof(float);
    w->numbers = mem_alloc_aligned(2 * n * sizeof(float));
    w->sequences = mem_zeroed((size_t)w->n_sequences, sizeof *w->sequences);
    for (int i = 0; i < 2; i++)
        w->states[i] = mem_alloc_aligned((size_t)w->n_layers * (size_t)w->n_sequences * w->state);
    if (!w->numbers || !w->sequences || !w->states[0] || !w->states[1]) {
        fprintf(stderr, "%s: no memory\n", s->name);
        goto cleanup;
    }
    for (size_t i = 0; i < n; i++)
        w->numbers[i] = 0.01f + 0.001f * (float)(i % 7);
    for (int i = 0; i < 2; i++)
        memset(w->states[i], 0, (size_t)w->n_layers * (size_t)w->n_sequences * w->state);
    y = view(w, s->heads * s->value_dim);
    y.data = w->numbers + n;
    run(w, &y);
    rc = 0;

cleanup:
    mem_free_aligned(w->numbers);
    mem_free(w->sequences);
    mem_free_aligned(w->states[0]);
    mem_free_aligned(w->states[1]);
    return rc;
}

int main(int argc, char **argv)
{
    struct world w = {.rows = 1, .n_sequences = 1};
    clm_error err = {0};
    int option, n_threads = 0, rc = 0;

    while ((option = getopt(argc, argv, "t:r:b:i")) != -1) {
        int n = optarg ? atoi(optarg) : 0;

        if (option == 'i') {
            w.in_place = true;
            continue;
        }
        if (n < 1) {
            fprintf(stderr, "usage: bench_recurrent [-t threads] [-r rows] [-b sequences] [-i]\n");
            return 2;
        }
        *(option == 't' ? &n_threads : option == 'r' ? &w.rows : &w.n_sequences) = n;
    }
    w.d = device_cpu_open(n_threads, &err);
    if (!w.d) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    printf("%s, %d threads, %d rows of %d sequences\n", device_cpu_isa(w.d),
           device_cpu_threads(w.d), w.rows, w.n_sequences);
    for (size_t i = 0; i < COUNT(shapes) && !rc; i++)
        rc = time_shape(&w, &shapes[i]);
    w.d->ops->close(w.d);
    return rc != 0;
}
