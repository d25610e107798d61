/* device/cuda/attend.cu: which kernels attend to the cache. */
#include "device/cuda/attend.cuh"

#include <limits.h>
#include <string.h>

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

static bool all_prompts(const struct attend_args *a, const struct kv_batch *batch)
{
    for (int i = 0; i < batch->n_sequences; i++) {
        int n = batch->sequences[i].n_rows;

        if (n > 0 && (int64_t)n * a->group <= a->most_queries)
            return false;
    }
    return true;
}

/* The part of what waits that keys or values are stored from, or what is done to the queries. */
static const struct cuda_heads_part *part_of(const struct cuda_heads *h, bool stored, bool values)
{
    for (int i = 0; i < h->n; i++)
        if (h->parts[i].stored == stored && h->parts[i].values == values)
            return &h->parts[i];
    return NULL;
}

/* Whether what waits is of just these queries, and of the keys and values of the same rows. */
static bool is_of_call(const struct cuda_heads *h, const struct attend_args *a, const tensor *y,
                       const tensor *q)
{
    const struct cuda_heads_part *of_q = part_of(h, false, false);

    for (int i = 0; i < h->n; i++)
        if (cuda_overlap(&h->parts[i].x, y))
            return false;
    return h->stores && h->batch.sequences == a->batch.sequences &&
           !memcmp(&h->kv, &a->kv, sizeof h->kv) && part_of(h, true, false) &&
           part_of(h, true, true) && h->n == 2 + (of_q != NULL) &&
           (!of_q || (cuda_same(&of_q->x, q) && of_q->head_dim == h->kv.k_dim));
}

/* Attention that drops its queries takes along what waits for them. */
static bool take_heads(struct cuda_device *c, struct attend_args *a, const tensor *y,
                       const tensor *q, const struct kv_batch *batch)
{
    const struct cuda_heads *h = &c->waiting.heads;
    const struct cuda_heads_part *of_q = part_of(h, false, false);

    if (c->waiting.kind != CUDA_HEADS || !is_of_call(h, a, y, q) || !attend_takes_heads(a, batch))
        return false;
    a->heads.there = true;
    if (of_q)
        a->heads.q = head_part_of(of_q);
    a->heads.k = head_part_of(part_of(h, true, false));
    a->heads.v = head_part_of(part_of(h, true, true));
    cuda_take(c);
    return true;
}

void cuda_attend(device *d, tensor *y, const tensor *q, const struct kv_layer *kv,
                 const struct kv_batch *batch, const struct attend_params *p)
{
    struct cuda_device *c = cuda_device_of(d);
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
    if (p->drops && !p->log_sums && take_heads(c, &a, y, q, batch)) {
        attend_decode(c, &a, batch);
        return;
    }
    if (all_prompts(&a, batch) && y->cols == p->n_heads * kv->v_dim)
        a.halves = cuda_halves_for(c, y);
    if (!attend_prompt_sm90(c, &a, batch) && !attend_prompt(c, &a, batch)) {
        a.most_queries = INT_MAX;
        a.halves = (struct cuda_halves){};
    }
    attend_decode(c, &a, batch);
    if (a.halves.data)
        cuda_halves_made(c, y);
}
