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
    return at->bits && k->score_codes && dim % at->group_size == 0 &&
           dim / at->group_size <= CPU_CODE_GROUPS;
}

struct cpu_codes kv_key_codes(const struct cpu_vector_kernels *k, const struct kv_layer *at,
                              const char *block, int head, int place, int n, float *room)
{
    struct kv_part p = kv_keys(at);

    return read_codes(k, at, &p, block, head * at->block_tokens + place, n, room);
}

struct cpu_codes kv_value_codes(const struct cpu_vector_kernels *k, const struct kv_layer *at,
                                const char *block, int head, int place, int n, float *room)
{
    struct kv_part p = kv_values(at);

    return read_codes(k, at, &p, block, head * at->block_tokens + place, n, room);
}

struct kv_rows kv_read_keys(const struct cpu_vector_kernels *k, const struct kv_layer *at,
                            const char *block, int head, int place, int n, float *room)
{
    struct kv_part p = kv_keys(at);

    return read_rows(k, at, &p, block, head * at->block_tokens + place, n, room);
}

struct kv_rows kv_read_values(const struct cpu_vector_kernels *k, const struct kv_layer *at,
                              const char *block, int head, int place, int n, float *room)
{
    struct kv_part p = kv_values(at);

    return read_rows(k, at, &p, block, head * at->block_tokens + place, n, room);
}
