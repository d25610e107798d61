/* tests/device/keyed.h: a sequence of keys and values in a cache, and queries that choose among
 * them. */
#ifndef KEYED_H
#define KEYED_H

#include <math.h>
#include <string.h>

#include "device/cpu/cpu.h"

#include "testing.h"

enum { TOKENS = 150, BLOCK = 16, BLOCKS = 10, DIM = 20, HEADS = 3, WORDS = 6 };

struct world {
    float slab[BLOCKS * BLOCK * (DIM + DIM)];
    void *slabs[1];
    int32_t blocks[BLOCKS];
    struct kv_layer kv;
    float q[TOKENS * HEADS * DIM], k[TOKENS * DIM], v[TOKENS * DIM], w[TOKENS * HEADS];
    uint32_t kept[TOKENS * WORDS], candidates[TOKENS * WORDS];
    uint32_t sets[TOKENS * HEADS * WORDS]; /* of each head */
};

static inline device *open_cpu(int n_threads, bool exact)
{
    clm_error err = {0};
    device *d = device_cpu_open(n_threads, &err);

    CHECK(d, "%s", err.message);
    d->ops->set_exact(d, exact);
    return d;
}

static inline tensor f32(float *data, int rows, int cols)
{
    return (tensor){data, DTYPE_F32, rows, cols, cols};
}

/* Random numbers everywhere, keys and values of TOKENS tokens stored as that type, in which keys
 * are what they are in f32. */
static inline void make_world_of(struct world *w, device *d, enum dtype type)
{
    size_t size = type == DTYPE_F32 ? sizeof(float) : sizeof(uint16_t);
    struct kv_sequence all = {.n_rows = TOKENS, .blocks = w->blocks};
    struct kv_batch batch = {&all, 1, TOKENS};
    tensor k = f32(w->k, TOKENS, DIM), v = f32(w->v, TOKENS, DIM);

    w->slabs[0] = w->slab;
    w->kv = (struct kv_layer){.type = type,
                              .n_kv_heads = 1,
                              .k_dim = DIM,
                              .v_dim = DIM,
                              .block_tokens = BLOCK,
                              .slab_shift = 4,
                              .slabs = w->slabs,
                              .block_bytes = size * BLOCK * (DIM + DIM),
                              .v_offset = size * BLOCK * DIM};
    for (int i = 0; i < BLOCKS; i++)
        w->blocks[i] = BLOCKS - 1 - i;
    random_floats(w->q, COUNT(w->q));
    random_floats(w->k, COUNT(w->k));
    random_floats(w->v, COUNT(w->v));
    random_floats(w->w, COUNT(w->w));
    for (int i = 0; i < TOKENS * DIM && type != DTYPE_F32; i++)
        w->k[i] = roundf(w->k[i] * 128) / 128;
    d->ops->kv_store(d, &w->kv, &batch, &k, &v);
}

static inline void make_world(struct world *w, device *d)
{
    make_world_of(w, d, DTYPE_F32);
}

/* q k of one head */
static inline double head_score(const struct world *w, int row, int head, int key)
{
    double dot = 0;

    for (int i = 0; i < DIM; i++)
        dot += (double)w->q[(row * HEADS + head) * DIM + i] * (double)w->k[key * DIM + i];
    return dot;
}

/* sum_h w max(q_h k, 0) */
static inline double score(const struct world *w, int row, int key)
{
    double sum = 0;

    for (int h = 0; h < HEADS; h++)
        sum += (double)w->w[row * HEADS + h] * fmax(head_score(w, row, h, key), 0);
    return sum;
}

#endif
