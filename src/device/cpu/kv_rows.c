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

static struct kv_rows read_rows(const struct cpu_vector_kernels *k, const struct kv_layer *at,
                                const struct kv_part *p, const char *block, int row, int n,
                                float *room)
{
    const char *data = block + p->rows + (size_t)row * p->row_bytes;
    float *scales = room + (size_t)n * (size_t)p->dim, *biases = scales + n * p->n_groups;

    if (!at->bits)
        return (struct kv_rows){data, at->type};
    k->load[at->type](scales, block + p->scales + (size_t)row * p->group_bytes, n * p->n_groups);
    k->load[at->type](biases, block + p->biases + (size_t)row * p->group_bytes, n * p->n_groups);
    k->dequantise(room, data, scales, biases, n, p->dim, at->group_size, at->bits);
    return (struct kv_rows){room, DTYPE_F32};
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
