/* device/cpu/measure.c: how fast this machine reads and computes, found out by doing it. */
#include <stdatomic.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "device/cpu/cpu.h"

#define READ_SIZE ((size_t)512 << 20) /* far beyond any cache */
#define WINDOW ((size_t)256 << 20)    /* timed at a time: about what a token reads */
#define PIECE ((size_t)1 << 20)
#define SECONDS 0.3

/* Who may want no more of it. */
struct asked {
    bool (*go_on)(void *ctx);
    void *ctx;
};

struct touching {
    uint8_t *data;
    size_t size;
};

struct reading {
    struct cpu_device *d;
    const uint8_t *data;
    size_t size;
    atomic_llong next;
    atomic_ullong sum;
};

struct bursts {
    double (*burst)(void);
    double seconds;
    double *speeds; /* [threads] operations per second */
};

static bool goes_on(const struct asked *a)
{
    return !a->go_on || a->go_on(a->ctx);
}

/* Every thread brings its own part into memory. */
static void touch(void *ctx, int thread, int n_threads)
{
    struct touching *t = ctx;
    size_t part = t->size / (size_t)n_threads;

    memset(t->data + (size_t)thread * part, thread + 1, part);
}

/* Some at a time, as memory is slow to come where others want it too. */
static void touch_all(struct cpu_device *d, uint8_t *data, const struct asked *a)
{
    enum { PARTS = 16 };
    struct touching t = {data, READ_SIZE / PARTS};

    for (int i = 0; i < PARTS && goes_on(a); i++, t.data += t.size)
        thread_pool_run(d->pool, touch, &t);
}

static void read_pieces(void *ctx, int thread, int n_threads)
{
    struct reading *r = ctx;
    uint64_t sum = 0;

    (void)thread;
    (void)n_threads;
    for (;;) {
        long long piece = atomic_fetch_add_explicit(&r->next, 1, memory_order_relaxed);

        if ((size_t)piece >= r->size / PIECE)
            break;
        sum += r->d->matmul.read(r->data + (size_t)piece * PIECE, PIECE);
    }
    atomic_fetch_add(&r->sum, sum);
}

double cpu_read_speed(device *dev, const void *data, size_t size)
{
    struct reading r = {.d = cpu_device_of(dev), .data = data, .size = size};
    double begin = clock_seconds();

    thread_pool_run(r.d->pool, read_pieces, &r);
    return (double)size / (clock_seconds() - begin);
}

/* Bytes per second of the best window; 0 without memory. The way to read by which that was is that
 * of cpu_read_speed from then on. */
static double measure_read(struct cpu_device *d, const struct asked *a)
{
    struct cpu_matmul_kernels *k = &d->matmul;
    uint64_t (*const ways[])(const void *, size_t) = {k->read, k->read_in_order};
    int n_ways = ways[1] ? 2 : 1, best_way = 0;
    uint8_t *data = mem_alloc_aligned(READ_SIZE);
    double best = 0, begin;

    if (!data)
        return 0;
    touch_all(d, data, a);
    begin = clock_seconds();
    for (int i = 0; goes_on(a); i++) {
        int way = i % n_ways, window = i / n_ways % 2;

        k->read = ways[way];
        double speed = cpu_read_speed(&d->base, data + (size_t)window * WINDOW, WINDOW);
        if (speed > best) {
            best = speed;
            best_way = way;
        }
        if (clock_seconds() - begin > SECONDS && i + 1 >= n_ways) /* each once, at least */
            break;
    }
    k->read = ways[best_way];
    mem_free_aligned(data);
    return best;
}

static void run_bursts(void *ctx, int thread, int n_threads)
{
    struct bursts *b = ctx;
    double done = 0, begin = clock_seconds(), elapsed;

    (void)n_threads;
    do {
        done += b->burst();
        elapsed = clock_seconds() - begin;
    } while (elapsed < b->seconds);
    b->speeds[thread] = done / elapsed;
}

/* Operations per second over all threads, the best of some short runs. */
static double measure_bursts(struct cpu_device *d, double (*burst)(void), const struct asked *a)
{
    enum { RUNS = 6 };
    int n = thread_pool_size(d->pool);
    struct bursts b = {burst, SECONDS / RUNS, cpu_scratch(d, 0, (size_t)n * sizeof(double))};
    double best = 0;

    if (!burst || !b.speeds)
        return 0;
    for (int run = 0; run < RUNS && goes_on(a); run++) {
        double total = 0;

        thread_pool_run(d->pool, run_bursts, &b);
        for (int i = 0; i < n; i++)
            total += b.speeds[i];
        best = total > best ? total : best;
    }
    return best;
}

void cpu_measure(device *dev, struct device_limits *limits, bool (*go_on)(void *ctx), void *ctx)
{
    struct asked a = {go_on, ctx};
    struct cpu_device *d = cpu_device_of(dev);

    *limits = (struct device_limits){
        .read_bytes_per_second = measure_read(d, &a),
        .f32_flops_per_second = measure_bursts(d, d->matmul.f32_burst, &a),
        .int8_ops_per_second = measure_bursts(d, d->matmul.int8_burst, &a),
        .bf16_flops_per_second = measure_bursts(d, d->matmul.bf16_burst, &a),
    };
}
