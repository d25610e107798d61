/* nn/index.c: which keys a row attends to, by heads made for it. arXiv:2512.02556 */
#include "nn/nn.h"

int nn_key_words(const struct kv_batch *rows)
{
    int longest = 0;

    for (int i = 0; i < rows->n_sequences; i++) {
        const struct kv_sequence *s = &rows->sequences[i];

        if (s->n_rows > 0 && s->position + s->n_rows > longest)
            longest = s->position + s->n_rows;
    }
    return longest / 32 + 1;
}

void nn_store_index(pass *p, const struct nn_index *index, const tensor *x)
{
    const struct index_spec *s = index->spec;
    tensor *nothing = pass_tensor(p, DTYPE_F32, x->rows, 1), *k;

    if (!p->failed)
        p->ops->clear(p->dev, nothing);
    k = nn_linear(p, &index->k, x);
    nn_norm_inplace(p, &index->k_norm, k, s->dim);
    if (p->failed)
        return;
    if (index->rope >= 0)
        p->ops->rope(p->dev, k, s->dim, p->rope_tables[index->rope], s->rope.interleaved);
    p->ops->kv_store(p->dev, pass_kv_layer(p, index->cache_layer),
                     &p->rows.kv[kv_cache_group_of(p->cache, index->cache_layer)], k, nothing);
}

const tensor *nn_choose_keys(pass *p, const struct nn_index *index, const tensor *x,
                             const tensor *latent)
{
    const struct index_spec *s = index->spec;
    const struct kv_batch *rows = &p->rows.kv[kv_cache_group_of(p->cache, index->cache_layer)];
    const struct kv_layer *kv = pass_kv_layer(p, index->cache_layer);
    int n_sets = s->block_size ? s->n_heads : 1;
    tensor *q = nn_linear(p, &index->q, latent);
    tensor *weights = s->block_size ? NULL : nn_linear(p, &index->weights, x);
    tensor *kept =
        p->chosen ? p->chosen : pass_tensor(p, DTYPE_U32, x->rows, n_sets * nn_key_words(rows));

    nn_norm_inplace(p, &index->q_norm, q, s->dim);
    if (p->failed)
        return NULL;
    if (index->rope >= 0)
        p->ops->rope(p->dev, q, s->dim, p->rope_tables[index->rope], s->rope.interleaved);
    if (s->block_size)
        p->ops->select_blocks(p->dev, kept, q, kv, rows, s->topk, s->block_size, s->local_blocks);
    else
        p->ops->select_keys(p->dev, kept, q, weights, kv, rows, s->topk);
    return kept;
}
