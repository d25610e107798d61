#include "device/cpu/kv_rows.h"

static size_t part_room(const struct kv_part *p, int n)
{
    return (size_t)n * (size_t)(p->dim + 2 * p->n_groups);
}

/* Of a layer both of whose pools may be asked for. */
size_t kv_rows_room(const struct kv_layer *kv, int n)
{
    struct kv_part keys = kv_keys(kv), values = kv_values(kv);
    size_t k = part_room(&keys, n), v = part_room(&values, n);

    return !kv->bits ? 0 : k > v ? k : v;
}

/* Codes where they lie, scales and biases in room. */
static struct cpu_codes read_codes(const struct cpu_vector_kernels *k, const struct kv_layer *at,
                                   const struct kv_part *p, const char *block, int row, int n,
                                   float *room)
{
    float *biases = room + n * p->n_groups;

    k->load[at->type](room, block + p->scales + (size_t)row * p->group_bytes, n * p->n_groups);
    k->load[at->type](biases, block + p->biases + (size_t)row * p->group_bytes, n * p->n_groups);
    return (struct cpu_codes){.codes = block + p->rows + (size_t)row * p->row_bytes,
                              .scales = room,
                              .biases = biases,
                              .dim = p->dim,
                              .group = at->group_size,
                              .bits = at->bits};
}

static struct kv_rows read_rows(const struct cpu_vector_kernels *k, const struct kv_layer *at,
                                const struct kv_part *p, const char *block, int row, int n,
                                float *room)
{
    struct cpu_codes c;

    if (!at->bits)
        return (struct kv_rows){block + p->rows + (size_t)row * p->row_bytes, at->type};
    c = read_codes(k, at, p, block, row, n, room + (size_t)n * (size_t)p->dim);
    k->dequantise(room, c.codes, c.scales, c.biases, n, c.dim, c.group, c.bits);
    return (struct kv_rows){room, DTYPE_F32};
}

bool kv_reads_codes(const struct cpu_vector_kernels *k, const struct kv_layer *at, int dim)
{
    return at->bits && k->score_codes && dim % at->group_size == 0 && at->group_size % 32 == 0 &&
           at->group_size <= CPU_CODE_GROUP;
}

/* [n, n_groups] to [n_groups, n], which have as much room. */
static float *by_groups(float *to, const float *from, int n, int n_groups)
{
    for (int g = 0; g < n_groups; g++)
        for (int j = 0; j < n; j++)
            to[g * n + j] = from[j * n_groups + g];
    return to;
}

/* What lies at the same place of rows that are read next. */
static void prefetch_groups(const struct kv_part *p, const char *ahead, int n)
{
    for (size_t i = 0; i < (size_t)n * p->group_bytes; i += 64) {
        __builtin_prefetch(ahead + p->scales + i);
        __builtin_prefetch(ahead + p->biases + i);
    }
}

static struct cpu_codes codes_of(const struct cpu_vector_kernels *k, const struct kv_layer *at,
                                 const struct kv_part *p, const char *block, int head, int place,
                                 int n, float *room)
{
    struct cpu_codes c = read_codes(k, at, p, block, head * kv_row_tokens(at) + place, n, room);

    if (p->n_groups > 1) {
        float *more = room + 2 * n * p->n_groups;

        c.scales = by_groups(more, c.scales, n, p->n_groups);
        c.biases = by_groups(more + n * p->n_groups, c.biases, n, p->n_groups);
    }
    return c;
}

const void *kv_rows_ahead(const struct kv_layer *at, const struct kv_part *p, const char *block,
                          int head, int place, int n)
{
    size_t row = (size_t)(head * kv_row_tokens(at) + place);

    if (at->bits)
        prefetch_groups(p, block + row * p->group_bytes, n);
    return block + p->rows + row * p->row_bytes;
}

struct cpu_codes kv_key_codes(const struct cpu_vector_kernels *k, const struct kv_layer *at,
                              const char *block, int head, int place, int n, float *room)
{
    struct kv_part p = kv_keys(at);

    return codes_of(k, at, &p, block, head, place, n, room);
}

struct cpu_codes kv_value_codes(const struct cpu_vector_kernels *k, const struct kv_layer *at,
                                const char *block, int head, int place, int n, float *room)
{
    struct kv_part p = kv_values(at);

    return codes_of(k, at, &p, block, head, place, n, room);
}

struct kv_rows kv_read_keys(const struct cpu_vector_kernels *k, const struct kv_layer *at,
                            const char *block, int head, int place, int n, float *room)
{
    struct kv_part p = kv_keys(at);

    return read_rows(k, at, &p, block, head * kv_row_tokens(at) + place, n, room);
}

struct kv_rows kv_read_values(const struct cpu_vector_kernels *k, const struct kv_layer *at,
                              const char *block, int head, int place, int n, float *room)
{
    struct kv_part p = kv_values(at);

    return read_rows(k, at, &p, block, head * kv_row_tokens(at) + place, n, room);
}
