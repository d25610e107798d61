/* device/cuda/attend.cu: which kernels attend to the cache. */
#include "device/cuda/attend.cuh"

#include <limits.h>

enum {
    DECODE_QUERIES = 64, /* of a sequence and a kv head; more are a prompt's */
    MOST = 256,          /* numbers of a head */
    MOST_LATENT = 576
};

static struct attend_args args_of(struct cuda_device *c, const struct kv_layer *kv,
                                  const struct kv_batch *batch, const struct attend_params *p)
{
    struct attend_args a = {};

    a.kv = cuda_kv_of(kv);
    a.batch = cuda_batch_of(c, batch);
    a.n_sequences = batch->n_sequences;
    a.n_heads = p->n_heads;
    a.group = p->n_heads / kv->n_kv_heads;
    a.tiled = p->tiled;
    a.scale = p->scale;
    a.softcap = p->softcap;
    a.window = p->window;
    a.chunk = p->chunk;
    a.slopes = p->slopes;
    a.sinks = p->sinks;
    a.block_size = p->block_size;
    a.local_blocks = p->local_blocks;
    a.block_stride = p->block_stride;
    a.block_step = p->block_step;
    if (p->kept) {
        int n_sets = p->kept_sets > 1 ? p->kept_sets : 1;

        a.kept = (const uint32_t *)p->kept->data;
        a.kept_stride = p->kept->stride;
        a.kept_words = p->kept->cols / n_sets;
        a.heads_per_set = p->n_heads / n_sets;
    }
    if (p->log_sums) {
        a.log_sums = (float *)p->log_sums->data;
        a.log_stride = p->log_sums->stride;
    }
    a.tickets = c->tickets;
    while (1 << a.block_shift < kv->block_tokens)
        a.block_shift++;
    a.most_queries = DECODE_QUERIES;
    return a;
}

void cuda_attend(device *d, tensor *y, const tensor *q, const struct kv_layer *kv,
                 const struct kv_batch *batch, const struct attend_params *p)
{
    struct cuda_device *c = cuda_device_of(d);
    /* Before anything is staged: room that is made waits for the device. */
    struct cuda_halves halves =
        y->cols == p->n_heads * kv->v_dim ? cuda_halves_for(c, y) : (struct cuda_halves){};
    struct attend_args a = args_of(c, kv, batch, p);

    a.q = rows_of(q);
    a.y = rows_of(y);
    a.wide = (uintptr_t)y->data % 16 == 0 && y->stride % 4 == 0;
    if (!batch->n_rows || !a.batch.sequences)
        return;
    if (c->exact || !attend_halves_fit(&a, MOST)) {
        if (c->exact || !attend_halves_fit(&a, MOST_LATENT) || !attend_latent_sm90(c, &a, batch))
            attend_general(c, &a);
        return;
    }
    if (!halves.data && attend_few(c, &a, batch, q, y))
        return;
    c->attended_blocks = INT_MAX;
    a.halves = halves;
    if (!attend_prompt_sm90(c, &a, batch) && !attend_prompt(c, &a, batch))
        a.most_queries = INT_MAX;
    attend_decode(c, &a, batch);
    if (a.halves.data)
        cuda_halves_made(c, y, &a.halves);
}
