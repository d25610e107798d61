/* device/cpu/kv_store.c: keys and values into the blocks of the paged cache. */
#include "device/cpu/cpu.h"
#include "device/cpu/kv_rows.h"
#include "device/cpu/ops.h"

enum {
    STORE_NUMBERS = 16384, /* numbers to store that are worth a thread */
    QUANTISE_COST = 4      /* of a number to quantise, in others */
};

struct store_call {
    struct cpu_device *d;
    const struct kv_layer *kv;
    const struct kv_sequence *sequences;
    const tensor *k, *v;
};

/* x [p->dim], a head's row of a token. room: 2 p->n_groups numbers. */
static void store_head(const struct cpu_vector_kernels *k, const struct kv_layer *at,
                       const struct kv_part *p, char *block, int row, const float *x, float *room)
{
    char *to = block + p->rows + (size_t)row * p->row_bytes;
    size_t group = (size_t)row * p->group_bytes;

    if (!at->bits) {
        k->store[at->type](to, x, p->dim);
        return;
    }
    k->quantise(to, room, room + p->n_groups, x, p->dim, at->group_size, at->bits);
    k->store[at->type](block + p->scales + group, room, p->n_groups);
    k->store[at->type](block + p->biases + group, room + p->n_groups, p->n_groups);
}

static void store_row(const struct store_call *call, const struct kv_sequence *s, int i,
                      float *room)
{
    const struct kv_layer *at = kv_at(call->kv, s->position + i);
    const float *k = (const float *)call->k->data + (s->row + i) * call->k->stride;
    const float *v = (const float *)call->v->data + (s->row + i) * call->v->stride;
    struct kv_part keys = kv_keys(at), values = kv_values(at);
    int place;
    char *block = kv_block_of(call->kv, s, s->position + i, &place);

    for (int h = 0; h < at->n_kv_heads; h++) {
        int row = h * kv_row_tokens(at) + place;

        store_head(&call->d->vector, at, &keys, block, row, k + (int64_t)h * at->k_dim, room);
        store_head(&call->d->vector, at, &values, block, row, v + (int64_t)h * at->v_dim, room);
    }
}

static float *store_room(const struct store_call *call, int thread)
{
    return cpu_scratch(call->d, thread, (kv_rows_room(call->kv, 1) + 1) * sizeof(float));
}

static void store_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct store_call *call = ctx;
    float *room = store_room(call, thread);

    for (int64_t i = begin; room && i < end; i++)
        store_row(call, call->sequences, (int)i, room);
}

static void store_sequences(void *ctx, int64_t begin, int64_t end, int thread)
{
    const struct store_call *call = ctx;
    float *room = store_room(call, thread);

    for (int64_t i = begin; room && i < end; i++)
        for (int row = 0; row < call->sequences[i].n_rows; row++)
            store_row(call, &call->sequences[i], row, room);
}

void cpu_kv_store(device *d, const struct kv_layer *kv, const struct kv_batch *batch,
                  const tensor *k, const tensor *v)
{
    struct cpu_device *c = cpu_device_of(d);
    struct store_call call = {c, kv, batch->sequences, k, v};
    int64_t row =
        (int64_t)kv->n_kv_heads * (kv->k_dim + kv->v_dim) * (kv->bits ? QUANTISE_COST : 1);
    int64_t grain = row < STORE_NUMBERS ? STORE_NUMBERS / (row ? row : 1) : 1;

    /* Long prompts row by row, then what is left, single tokens mostly, by sequences. */
    if (batch->n_sequences > 0 && batch->n_rows / batch->n_sequences < 4) {
        thread_pool_for(c->pool, batch->n_sequences, grain, store_sequences, &call);
        return;
    }
    for (int i = 0; i < batch->n_sequences; i++) {
        call.sequences = &batch->sequences[i];
        thread_pool_for(c->pool, call.sequences->n_rows, grain, store_rows, &call);
    }
}
