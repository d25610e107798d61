#include "engine/cache_columns.h"

#include <math.h>
#include <string.h>

#include "base/number.h"
#include "device/affine.h"
#include "device/kv_layout.h"

static struct kv_part part_of(const struct cache_columns *c, const struct kv_layer *at)
{
    return c->of_values ? kv_values(at) : kv_keys(at);
}

/* Where the columns begin in a row of one of the arrays that a block has, and how long they are. */
struct cut {
    size_t offset, size;
};

static struct cut cut_of(const struct cache_columns *c, const struct kv_layer *kv)
{
    size_t item = dtype_size(kv->type), first = (size_t)c->first, n = (size_t)c->n;

    if (c->form == ROW_NUMBERS)
        return (struct cut){first * item, n * item};
    if (c->form == ROW_CODES)
        return (struct cut){first * (size_t)kv->bits / 8, n * (size_t)kv->bits / 8};
    return (struct cut){first / (size_t)kv->group_size * item, n / (size_t)kv->group_size * item};
}

size_t cache_columns_bytes(const struct cache_columns *c, const struct kv_layer *kv)
{
    return cut_of(c, kv).size;
}

/* Room: bytes as they lie, of rows, scales and biases; numbers; scales and biases as numbers. */
size_t cache_columns_room(const struct cache_columns *c, const struct kv_layer *kv)
{
    size_t dim = (size_t)part_of(c, kv).dim;

    return KV_BLOCK_TOKENS * dim * (2 * sizeof(float)) + 8 * (dim + 8) * sizeof(float);
}

/* An array of a block: where it begins and how long its rows are. */
struct array {
    size_t offset, row;
};

static struct array array_of(const struct kv_part *p, enum row_form form)
{
    switch (form) {
    case ROW_SCALES:
        return (struct array){p->scales, p->group_bytes};
    case ROW_BIASES:
        return (struct array){p->biases, p->group_bytes};
    default:
        return (struct array){p->rows, p->row_bytes};
    }
}

/* n rows, from that of a head's token on, of an array of its block. */
static void download(device *dev, void *to, const uint8_t *block, struct array a, size_t row, int n)
{
    dev->ops->download(dev, to, block + a.offset + row * a.row, (size_t)n * a.row);
}

/* As dtype, to nearest; to F16 it saturates, as it does in the cache. */
static void from_f32(void *out, const float *x, enum dtype type, size_t n)
{
    uint16_t *halves = out;

    if (type == DTYPE_F32)
        memcpy(out, x, n * sizeof *x);
    for (size_t i = 0; i < n && type == DTYPE_F16; i++)
        halves[i] = f32_to_f16(fmaxf(fminf(x[i], 65504), -65504));
    for (size_t i = 0; i < n && type == DTYPE_BF16; i++)
        halves[i] = f32_to_bf16(x[i]);
}

/* One row as codes, or a part of these, from numbers. */
static void quantise(const struct cache_columns *c, const struct kv_layer *kv, const float *x,
                     int dim, float *room, uint8_t *out)
{
    int n_groups = (dim - 1) / kv->group_size + 1;
    float *scales = room, *biases = room + n_groups, *codes = biases + n_groups;
    float *numbers = c->form == ROW_SCALES ? scales : biases;
    struct cut cut = cut_of(c, kv);

    affine_quantise(codes, scales, biases, x, dim, kv->group_size, kv->bits);
    if (c->form == ROW_CODES)
        memcpy(out, (uint8_t *)codes + cut.offset, cut.size);
    else
        from_f32(out, numbers + c->first / kv->group_size, kv->type,
                 (size_t)(c->n / kv->group_size));
}

/* One row of numbers from the codes of a block. */
static void dequantise(const struct kv_layer *at, const struct kv_part *p, device *dev,
                       const uint8_t *block, size_t row, float *room, float *x)
{
    float *scales = room, *biases = scales + p->n_groups, *raw = biases + p->n_groups;

    download(dev, raw, block, array_of(p, ROW_SCALES), row, 1);
    dtype_to_f32(scales, raw, at->type, (size_t)p->n_groups);
    download(dev, raw, block, array_of(p, ROW_BIASES), row, 1);
    dtype_to_f32(biases, raw, at->type, (size_t)p->n_groups);
    download(dev, raw, block, array_of(p, ROW_CODES), row, 1);
    affine_dequantise(x, raw, scales, biases, 1, p->dim, at->group_size, at->bits);
}

/* As they lie. */
static void read_alike(const struct cache_columns *c, const struct kv_layer *at,
                       const struct kv_part *p, device *dev, const uint8_t *block, size_t row,
                       int n, uint8_t *room, uint8_t *out)
{
    struct array a = array_of(p, c->form);
    struct cut cut = cut_of(c, at);

    download(dev, room, block, a, row, n);
    for (int r = 0; r < n; r++)
        memcpy(out + (size_t)r * cut.size, room + (size_t)r * a.row + cut.offset, cut.size);
}

void cache_columns_read(const struct cache_columns *c, engine *e, const kv_seq *seq, int head,
                        int from, int to, void *room, uint8_t *out)
{
    kv_cache *cache = engine_cache(e);
    const struct kv_layer *kv = kv_cache_layer(cache, c->layer);
    device *dev = kv_cache_device(cache, c->layer);
    struct kv_place place = kv_seq_place(seq, c->layer, from);
    const struct kv_layer *at = place.at;
    const uint8_t *block = place.block;
    size_t row = (size_t)head * (size_t)kv_row_tokens(at) + (size_t)place.place;
    size_t size = cache_columns_bytes(c, kv);
    struct kv_part p = part_of(c, at);
    float *x = room, *rest = x + p.dim;

    if ((at->bits != 0) == (c->form != ROW_NUMBERS)) {
        read_alike(c, at, &p, dev, block, row, to - from, room, out);
        return;
    }
    for (; from < to; from++, row++, out += size) {
        if (at->bits) {
            dequantise(at, &p, dev, block, row, rest, x);
            from_f32(out, x + c->first, kv->type, (size_t)c->n);
        } else {
            download(dev, rest, block, array_of(&p, ROW_NUMBERS), row, 1);
            dtype_to_f32(x, rest, at->type, (size_t)p.dim);
            quantise(c, kv, x, p.dim, rest, out);
        }
    }
}
