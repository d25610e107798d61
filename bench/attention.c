/* bench/attention.c: speed of attention on the CPU behind a long context.
 *
 *     bench_attention [-t threads] [-r rows] [-d depth] [-h heads] [-k kv_heads] [-n dim]
 *                     [-s sequences] [-l layers] [-c type] [-e]
 *
 * For caches of f16, of 8 and of 4 bits: the best time of a call for the rows of each sequence that
 * follow depth tokens, and the median; the speed of its products, two operations for each
 * multiplication, and at which it reads its keys and values, beside what the same run measures of
 * the machine. Of several layers each call takes the next one, so that the caches do not hold what
 * it reads. -c: one type alone, f32, f16, bf16, 8 or 4. -e: exact, and f32 besides.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "device/cpu/cpu.h"
#include "device/kv_layout.h"

#define SECONDS 2.0
enum { BLOCK_TOKENS = 32, SIDE_SHIFT = 3, STORE_ROWS = 256, MAX_LAYERS = 64, MAX_TURNS = 4096 };

struct world {
    device *d;
    struct device_limits limits;
    int rows, depth, heads, kv_heads, dim, n_sequences, n_layers;
    struct kv_layer kv[MAX_LAYERS];
    void *slab;
    int32_t *blocks;
    float *numbers; /* of any rows */
    float *y;
    struct kv_sequence *sequences;
};

static int n_blocks(const struct world *w)
{
    int side = BLOCK_TOKENS << SIDE_SHIFT;

    return (w->depth + w->rows + side - 1) / side << SIDE_SHIFT;
}

static int max_rows(const struct world *w)
{
    return w->rows * w->n_sequences > STORE_ROWS ? w->rows * w->n_sequences : STORE_ROWS;
}

/* Sums of four random numbers, about normal, of variance 1. */
static float random_number(void)
{
    static uint32_t state = 1;
    float sum = -2;

    for (int i = 0; i < 4; i++) {
        state = state * 1664525 + 1013904223;
        sum += (float)(state >> 8) * 0x1p-24f;
    }
    return sum * 1.7320508f;
}

static tensor view(const struct world *w, float *data, int rows, int heads)
{
    return (tensor){data, DTYPE_F32, rows, heads * w->dim, heads * w->dim};
}

static void fill(struct world *w, int sequence)
{
    int n = w->depth + w->rows;

    for (int at = 0; at < n; at += STORE_ROWS) {
        int rows = n - at < STORE_ROWS ? n - at : STORE_ROWS;
        struct kv_sequence s = {
            .n_rows = rows, .position = at, .blocks = w->blocks + sequence * n_blocks(w)};
        struct kv_batch batch = {&s, 1, rows};
        tensor k = view(w, w->numbers, rows, w->kv_heads);

        for (int i = 0; i < w->n_layers; i++)
            w->d->ops->kv_store(w->d, &w->kv[i], &batch, &k, &k);
    }
}

static void lay_out(struct world *w, enum dtype type, int bits)
{
    size_t bytes = 0;

    for (int i = 0; i < w->n_layers; i++) {
        struct kv_layer *l = &w->kv[i];

        *l = (struct kv_layer){.type = type,
                               .n_kv_heads = w->kv_heads,
                               .k_dim = w->dim,
                               .v_dim = w->dim,
                               .block_tokens = BLOCK_TOKENS,
                               .slab_shift = 20,
                               .side_shift = SIDE_SHIFT,
                               .slabs = &w->slab,
                               .bits = bits,
                               .group_size = 64,
                               .k_offset = bytes};
        l->v_offset = (kv_keys(l).end + 63) / 64 * 64;
        bytes = (kv_values(l).end + 63) / 64 * 64;
    }
    for (int i = 0; i < w->n_layers; i++)
        w->kv[i].block_bytes = bytes >> SIDE_SHIFT;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void time_type(struct world *w, const char *name, enum dtype type, int bits)
{
    struct attend_params p = {.n_heads = w->heads, .scale = 0.125f};
    struct kv_batch batch = {w->sequences, w->n_sequences, w->rows * w->n_sequences};
    tensor q = view(w, w->numbers, batch.n_rows, w->heads);
    tensor y = view(w, w->y, batch.n_rows, w->heads);
    double times[MAX_TURNS], begin = clock_seconds(), best, median;
    int n = 0;

    lay_out(w, type, bits);
    for (int i = 0; i < w->n_sequences; i++)
        fill(w, i);
    for (; n < 3 || (n < MAX_TURNS && clock_seconds() - begin < SECONDS); n++) {
        double start = clock_seconds();

        w->d->ops->attend(w->d, &y, &q, &w->kv[n % w->n_layers], &batch, &p);
        times[n] = clock_seconds() - start;
    }
    qsort(times, (size_t)n, sizeof *times, compare);
    best = times[0];
    median = times[n / 2];
    double keys = (w->depth + 0.5 * (w->rows + 1)) * batch.n_rows;
    double ops = 4.0 * keys * w->heads * w->dim;
    double bytes = (double)w->kv[0].block_bytes / BLOCK_TOKENS / w->n_layers *
                   (w->depth + w->rows) * w->n_sequences;

    printf("%-4s %9.3f ms, median %9.3f, %6.1f Gop/s, %4.2f of f32, %6.1f GB/s, %4.2f of reading\n",
           name, 1e3 * best, 1e3 * median, 1e-9 * ops / best,
           ops / best / w->limits.f32_flops_per_second, 1e-9 * bytes / median,
           bytes / median / w->limits.read_bytes_per_second);
    fflush(stdout);
}

static const struct {
    const char *name;
    enum dtype type;
    int bits;
    bool always;
} caches[] = {
    {"f32", DTYPE_F32, 0, false}, {"f16", DTYPE_F16, 0, true}, {"bf16", DTYPE_BF16, 0, false},
    {"8", DTYPE_F16, 8, true},    {"4", DTYPE_F16, 4, true},
};

static int time_all(struct world *w, bool exact, const char *only)
{
    size_t n = (size_t)max_rows(w) * (size_t)(w->heads * w->dim);
    int blocks = n_blocks(w) * w->n_sequences;

    w->numbers = mem_alloc_aligned(n * sizeof(float));
    w->y = mem_alloc_aligned(n * sizeof(float));
    w->blocks = mem_zeroed((size_t)blocks, sizeof *w->blocks);
    w->sequences = mem_zeroed((size_t)w->n_sequences, sizeof *w->sequences);
    lay_out(w, DTYPE_F32, 0);
    w->slab = mem_alloc_aligned((size_t)blocks * w->kv[0].block_bytes);
    if (!w->numbers || !w->y || !w->blocks || !w->sequences || !w->slab) {
        fprintf(stderr, "no memory\n");
        return -1;
    }
    for (size_t i = 0; i < n; i++)
        w->numbers[i] = random_number();
    for (int i = 0; i < blocks; i++)
        w->blocks[i] = i;
    for (int i = 0; i < w->n_sequences; i++)
        w->sequences[i] = (struct kv_sequence){.row = i * w->rows,
                                               .n_rows = w->rows,
                                               .position = w->depth,
                                               .blocks = w->blocks + i * n_blocks(w)};
    w->d->ops->set_exact(w->d, exact);
    for (size_t i = 0; i < COUNT(caches); i++)
        if (only ? !strcmp(only, caches[i].name) : caches[i].always || (exact && i == 0))
            time_type(w, caches[i].name, caches[i].type, caches[i].bits);
    return 0;
}

int main(int argc, char **argv)
{
    struct world w = {.rows = 1,
                      .depth = 16384,
                      .heads = 32,
                      .kv_heads = 8,
                      .dim = 64,
                      .n_sequences = 1,
                      .n_layers = 1};
    const char *only = NULL;
    clm_error err = {0};
    int option, n_threads = 0, rc;
    bool exact = false;

    while ((option = getopt(argc, argv, "t:r:d:h:k:n:s:l:c:e")) != -1) {
        int n = optarg ? atoi(optarg) : 1;
        int *to = option == 't'   ? &n_threads
                  : option == 'r' ? &w.rows
                  : option == 'd' ? &w.depth
                  : option == 'h' ? &w.heads
                  : option == 'k' ? &w.kv_heads
                  : option == 'n' ? &w.dim
                  : option == 'l' ? &w.n_layers
                                  : &w.n_sequences;

        if (option == 'e' || option == 'c') {
            exact = exact || option == 'e';
            only = option == 'c' ? optarg : only;
            continue;
        }
        if (option == '?' || n < 1 || (option == 'l' && n > MAX_LAYERS)) {
            fprintf(stderr, "usage: bench_attention [-t threads] [-r rows] [-d depth] [-h heads] "
                            "[-k kv_heads] [-n dim] [-s sequences] [-l layers] [-c type] [-e]\n");
            return 2;
        }
        *to = n;
    }
    w.d = device_cpu_open(n_threads, &err);
    if (!w.d) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    w.d->ops->measure(w.d, &w.limits, NULL, NULL);
    printf("%s, %d threads, %d rows of %d sequences behind %d, %d heads of %d over %d\n",
           device_cpu_isa(w.d), device_cpu_threads(w.d), w.rows, w.n_sequences, w.depth, w.heads,
           w.dim, w.kv_heads);
    rc = time_all(&w, exact, only);
    mem_free_aligned(w.numbers);
    mem_free_aligned(w.y);
    mem_free_aligned(w.slab);
    mem_free(w.blocks);
    mem_free(w.sequences);
    w.d->ops->close(w.d);
    return rc != 0;
}
