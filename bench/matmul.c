/* bench/matmul.c: speed of the CPU's matrix products, per format and number of rows, beside what
 * the machine reads and computes at its best.
 *
 *     bench_matmul [-t threads] [-n n_out] [-k n_in] [-r rows,rows,...] [-x] [-c] [-s] [-1]
 *                  [format ...]
 *
 * A format is f32, f16, bf16, mxfp4, nvfp4, mxfp8 or BITS/GROUP, as 4/64; -x forbids
 * approximations. One line per format and number of rows: the median and the best of repeated calls
 * on matrices that together are far larger than the caches; with -1 on one matrix, which stays in
 * a cache that it fits in.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/number.h"
#include "device/cpu/cpu.h"
#include "device/weight.h"

#define TOTAL_BYTES ((size_t)320 << 20) /* of all matrices of a format */
#define SECONDS 0.7                     /* per line */
#define MAX_CALLS 4000

struct options {
    int n_threads, n_out, n_in;
    int rows[16], n_rows;
    bool exact, shape, one;
};

struct matrices {
    struct weight *w;
    int n;
    uint8_t *memory;
};

static clockid_t clock_used = CLOCK_MONOTONIC;

static double now(void)
{
    struct timespec t;

    clock_gettime(clock_used, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static uint64_t random_u64(void)
{
    static uint64_t state = 1;
    uint64_t z = state += 0x9E3779B97F4A7C15u;

    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* Operations per second of this thread, by the clock that is used. */
static double burst_speed(double (*burst)(void))
{
    double done = 0, begin = now();

    while (burst && now() - begin < 0.3)
        done += burst();
    return done / (now() - begin);
}

static bool parse_format(const char *text, struct weight *w)
{
    *w = (struct weight){0};
    for (int f = 0; f < WEIGHT_FORMATS; f++)
        if (f != WEIGHT_AFFINE && strcmp(text, weight_format_name((enum weight_format)f)) == 0) {
            w->format = (enum weight_format)f;
            w->bits = f == WEIGHT_MXFP8 || f == WEIGHT_FP8 ? 8 : 4;
            w->group_size = f == WEIGHT_NVFP4 ? 16 : f == WEIGHT_FP8 ? 128 : 32;
            w->scale_rows = 128;
            return true;
        }
    w->format = WEIGHT_AFFINE;
    w->scale_type = DTYPE_BF16;
    return sscanf(text, "%d/%d", &w->bits, &w->group_size) == 2;
}

/* Random bytes that are small numbers as f32, bf16 and f16, or codes. */
static void fill(uint8_t *data, size_t size, enum weight_format format)
{
    for (size_t i = 0; i + 8 <= size; i += 8) {
        uint64_t v = random_u64();

        if (format == WEIGHT_F32)
            v = (v & 0x807FFFFF807FFFFFu) | 0x3C0000003C000000u;
        else if (format <= WEIGHT_BF16)
            v = (v & 0x807F807F807F807Fu) | 0x3C003C003C003C00u;
        memcpy(data + i, &v, 8);
    }
}

static void fill_scales(uint8_t *p, size_t size, enum weight_format format)
{
    static const uint8_t small[] = {0, 0, 0x80, 0x3C}; /* as f32; its last two bytes as bf16 */

    for (size_t i = 0; i < size; i++)
        p[i] = format == WEIGHT_FP8      ? small[i % 4]
               : format == WEIGHT_AFFINE ? (uint8_t[]){0x80, 0x3C}[i % 2]
                                         : (uint8_t)(format == WEIGHT_NVFP4 ? 0x28 : 120);
}

/* As many as there must be for a total of bytes. */
static int open_matrices(struct matrices *m, struct weight format, const struct options *o,
                         size_t total)
{
    clm_error err = {0};
    size_t size, data, scales;

    format.n_out = o->n_out;
    format.n_in = o->n_in;
    format.data = format.scales = format.biases = m; /* something, for the check */
    if (weight_check(&format, "format", &err)) {
        fprintf(stderr, "%s\n", err.message);
        return -1;
    }
    size = weight_bytes(&format);
    m->n = (int)((total + size - 1) / size);
    m->w = mem_zeroed((size_t)m->n, sizeof *m->w);
    m->memory = mem_alloc_aligned((size_t)m->n * size + 64);
    if (!m->w || !m->memory) {
        fprintf(stderr, "no memory for %d matrices of %zu bytes\n", m->n, size);
        return -1;
    }
    data = (size_t)o->n_out * weight_row_bytes(&format);
    scales = (size_t)o->n_out * weight_scale_row_bytes(&format);
    for (int i = 0; i < m->n; i++) {
        uint8_t *p = m->memory + (size_t)i * size;

        fill(p, data, format.format);
        fill_scales(p + data, size - data, format.format);
        m->w[i] = format;
        m->w[i].data = p;
        m->w[i].scales = p + data;
        m->w[i].biases = p + data + scales;
    }
    return 0;
}

static int by_value(const void *a, const void *b)
{
    double d = *(const double *)a - *(const double *)b;

    return (d > 0) - (d < 0);
}

static void time_rows(device *d, const struct matrices *m, const char *name, int rows,
                      const struct device_limits *limits)
{
    static double seconds[MAX_CALLS];
    const struct weight *w = m->w;
    tensor x = {NULL, DTYPE_F32, rows, w->n_in, w->n_in};
    tensor y = {NULL, DTYPE_F32, rows, w->n_out, w->n_out};
    double work = 2.0 * rows * w->n_in * w->n_out, bytes = (double)weight_bytes(w), begin;
    int n = 0;

    x.data = mem_alloc_aligned((size_t)rows * (size_t)w->n_in * sizeof(float));
    y.data = mem_alloc_aligned((size_t)rows * (size_t)w->n_out * sizeof(float));
    if (!x.data || !y.data)
        goto cleanup;
    for (int64_t i = 0; i < (int64_t)rows * w->n_in; i++)
        ((float *)x.data)[i] = (float)(int32_t)random_u64() * 0x1p-31f;
    for (int i = 0; i < 3; i++)
        d->ops->matmul(d, &(struct matmul_job){.y = &y, .w = &w[i % m->n]}, 1, &x);
    for (begin = now(); n < MAX_CALLS && (n < 3 || now() - begin < SECONDS); n++) {
        double start = now();

        d->ops->matmul(d, &(struct matmul_job){.y = &y, .w = &w[n % m->n]}, 1, &x);
        seconds[n] = now() - start;
    }
    qsort(seconds, (size_t)n, sizeof *seconds, by_value);
    double median = seconds[n / 2], best = seconds[0];

    printf(
        "%-8s %5d  %9.1f us  %7.2f GB/s %5.2f  %8.1f GFLOP/s %5.2f   best %9.1f us  %7.2f  %8.1f\n",
        name, rows, 1e6 * median, 1e-9 * bytes / median,
        bytes / median / limits->read_bytes_per_second, 1e-9 * work / median,
        work / median / limits->f32_flops_per_second, 1e6 * best, 1e-9 * bytes / best,
        1e-9 * work / best);
    fflush(stdout);

cleanup:
    mem_free_aligned(x.data);
    mem_free_aligned(y.data);
}

/* --- a model's shape
 * ---------------------------------------------------------------------------------- */

enum { HIDDEN = 2048, INTERMEDIATE = 8192, KV = 512, VOCAB = 32000, LAYERS = 4 };

/* The matrices of a layer, by the x they share. */
static const struct {
    int n_in, n_out[3]; /* 0: no more */
} stages[] = {
    {HIDDEN, {HIDDEN, KV, KV}},
    {HIDDEN, {HIDDEN}},
    {HIDDEN, {INTERMEDIATE, INTERMEDIATE}},
    {INTERMEDIATE, {HIDDEN}},
};

#define MAX_STAGES (LAYERS * 4 + 1)

struct model {
    struct matrices w[MAX_STAGES][3];
    int n_in[MAX_STAGES];
    int n_stages;
    double bytes, products; /* of a row, without the last stage's */
};

static int open_model(struct model *m, struct weight format)
{
    for (int s = 0; s < MAX_STAGES; s++) {
        bool last = s == MAX_STAGES - 1;

        m->n_in[s] = last ? HIDDEN : stages[s % 4].n_in;
        for (int j = 0; j < (last ? 1 : 3); j++) {
            struct options o = {.n_in = m->n_in[s], .n_out = last ? VOCAB : stages[s % 4].n_out[j]};

            if (o.n_out && open_matrices(&m->w[s][j], format, &o, 1))
                return -1;
            if (o.n_out)
                m->bytes += (double)weight_bytes(m->w[s][j].w);
            if (!last)
                m->products += (double)o.n_in * o.n_out;
        }
        m->n_stages++;
    }
    return 0;
}

static double time_pass(device *d, const struct model *m, tensor *x, tensor *y, int rows)
{
    double start = now();

    for (int s = 0; s < m->n_stages; s++) {
        struct matmul_job jobs[3];
        tensor xs = *x, ys[3];
        int n = 0;

        xs.rows = s == m->n_stages - 1 ? 1 : rows;
        xs.cols = m->n_in[s];
        for (; n < 3 && m->w[s][n].w; n++) {
            ys[n] = y[n];
            ys[n].rows = xs.rows;
            ys[n].cols = m->w[s][n].w->n_out;
            jobs[n] = (struct matmul_job){.y = &ys[n], .w = m->w[s][n].w};
        }
        d->ops->matmul(d, jobs, n, &xs);
    }
    return now() - start;
}

static void time_model_rows(device *d, const struct model *m, const char *name, int rows,
                            const struct device_limits *limits)
{
    static double seconds[MAX_CALLS];
    size_t size = (size_t)rows * INTERMEDIATE + VOCAB;
    float *memory = mem_alloc_aligned(4 * size * sizeof *memory);
    tensor x = {memory, DTYPE_F32, rows, INTERMEDIATE, INTERMEDIATE}, y[3];
    int n = 0;

    if (!memory)
        return;
    for (size_t i = 0; i < size; i++)
        memory[i] = (float)(int32_t)random_u64() * 0x1p-31f;
    for (int j = 0; j < 3; j++)
        y[j] =
            (tensor){memory + (size_t)(j + 1) * size, DTYPE_F32, rows, INTERMEDIATE, INTERMEDIATE};
    time_pass(d, m, &x, y, rows);
    for (double begin = now(); n < MAX_CALLS && (n < 3 || now() - begin < 3 * SECONDS); n++)
        seconds[n] = time_pass(d, m, &x, y, rows);
    qsort(seconds, (size_t)n, sizeof *seconds, by_value);

    double median = seconds[n / 2], work = 2 * rows * m->products;

    printf("%-8s %5d rows: %8.2f ms, best %8.2f   %6.2f GB/s %5.2f  %7.1f GFLOP/s %5.2f of f32, "
           "%5.2f of int8\n",
           name, rows, 1e3 * median, 1e3 * seconds[0], 1e-9 * m->bytes / median,
           m->bytes / median / limits->read_bytes_per_second, 1e-9 * work / median,
           work / median / limits->f32_flops_per_second,
           work / median / limits->int8_ops_per_second);
    fflush(stdout);
    mem_free_aligned(memory);
}

static void time_model(device *d, struct weight format, const char *name, const struct options *o,
                       const struct device_limits *limits)
{
    static struct model m;

    m = (struct model){0};
    if (open_model(&m, format) == 0)
        for (int r = 0; r < o->n_rows; r++)
            time_model_rows(d, &m, name, o->rows[r], limits);
    for (int s = 0; s < MAX_STAGES; s++)
        for (int j = 0; j < 3; j++) {
            mem_free(m.w[s][j].w);
            mem_free_aligned(m.w[s][j].memory);
        }
}

static void time_format(device *d, const char *name, const struct options *o,
                        const struct device_limits *limits)
{
    struct matrices m = {0};
    struct weight format;

    if (!parse_format(name, &format)) {
        fprintf(stderr, "%s: not a format; f32, bf16, 4/64, mxfp4, ... are\n", name);
        return;
    }
    if (o->shape) {
        time_model(d, format, name, o, limits);
        return;
    }
    if (open_matrices(&m, format, o, o->one ? 1 : TOTAL_BYTES) == 0)
        for (int r = 0; r < o->n_rows; r++)
            time_rows(d, &m, name, o->rows[r], limits);
    mem_free(m.w);
    mem_free_aligned(m.memory);
}

static void parse_rows(struct options *o, char *text)
{
    o->n_rows = 0;
    for (char *s = strtok(text, ","); s && o->n_rows < 16; s = strtok(NULL, ","))
        o->rows[o->n_rows++] = atoi(s) > 0 ? atoi(s) : 1;
}

static struct options parse_options(int argc, char **argv)
{
    struct options o = {.n_out = 2048, .n_in = 2048, .rows = {1, 2, 4, 8, 32, 512}, .n_rows = 6};

    for (int c; (c = getopt(argc, argv, "t:n:k:r:xcs1")) != -1;)
        switch (c) {
        case 't':
            o.n_threads = atoi(optarg);
            break;
        case 'n':
            o.n_out = atoi(optarg);
            break;
        case 'k':
            o.n_in = atoi(optarg);
            break;
        case 'r':
            parse_rows(&o, optarg);
            break;
        case 'x':
            o.exact = true;
            break;
        case 's':
            o.shape = true;
            break;
        case '1':
            o.one = true;
            break;
        case 'c':
            clock_used = CLOCK_PROCESS_CPUTIME_ID;
            break;
        default:
            fprintf(stderr,
                    "usage: %s [-t threads] [-n n_out] [-k n_in] [-r rows,...] [-x] [-c] [-s] [-1] "
                    "[format ...]\n",
                    argv[0]);
            exit(2);
        }
    return o;
}

int main(int argc, char **argv)
{
    static const char *const all[] = {"f32",  "f16",  "bf16", "8/64",  "6/64",  "5/64", "4/64",
                                      "4/32", "3/64", "2/64", "mxfp4", "nvfp4", "mxfp8"};
    struct options o = parse_options(argc, argv);
    struct device_limits limits;
    clm_error err = {0};
    device *d = device_cpu_open(o.n_threads, &err);

    if (!d) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    d->ops->measure(d, &limits, NULL, NULL);
    if (clock_used != CLOCK_MONOTONIC) {
        limits.f32_flops_per_second = burst_speed(((struct cpu_device *)d)->matmul.f32_burst);
        limits.int8_ops_per_second = burst_speed(((struct cpu_device *)d)->matmul.int8_burst);
    }
    d->ops->set_exact(d, o.exact);
    printf(
        "%s, %d threads: reads %.1f GB/s, f32 %.1f GFLOP/s, int8 %.1f GOP/s; matrices [%d, %d]\n",
        device_cpu_isa(d), device_cpu_threads(d), 1e-9 * limits.read_bytes_per_second,
        1e-9 * limits.f32_flops_per_second, 1e-9 * limits.int8_ops_per_second, o.n_out, o.n_in);
    for (int i = optind; i < argc; i++)
        time_format(d, argv[i], &o, &limits);
    for (size_t i = 0; optind == argc && i < COUNT(all); i++)
        time_format(d, all[i], &o, &limits);
    d->ops->close(d);
    return 0;
}
