/* nn/pooled_attention.c: attention to the keys of a window and to pooled ones, in one softmax.
 *
 *     q = turn(q_proj norm(q_a x)),  k = v = turn(norm(kv x)), rounded to 8 bits
 *     pooled key of a group = turn(norm(sum_t softmax_t(gate x_t) kv x_t)), rounded to 4 bits
 *     y = o_proj [group_proj_g turn_back(softmax([q k^T | q pooled^T]) [v | pooled])_g]_g
 *
 * A pooled key has the position of its group's first token and is kept at that of the last, by
 * which it is there for all rows that may see it. Of the pooled keys a row sees those that score
 * best by heads made for it, which a layer may leave to an earlier one. DeepSeek-V4.1
 */
#include <math.h>

#include "nn/nn.h"

enum { FP8_BLOCK = 32, INDEX_BLOCK = 32, POOLED_BLOCK = 16 };

/* The last numbers of each head turn. */
static void turn(pass *p, const struct pooled_spec *s, tensor *x, int head_dim, const tensor *table)
{
    tensor tail = *x;

    if (p->failed)
        return;
    tail.data = (float *)x->data + (head_dim - s->rope.dims);
    p->ops->rope(p->dev, &tail, head_dim, table, s->rope.interleaved);
}

/* A cache that holds no more bits; left as they are where blocks do not fit. */
static void round_off(pass *p, tensor *x, int head_dim, int block, enum block_rounding kind)
{
    if (!p->failed && head_dim % block == 0)
        p->ops->round_blocks(p->dev, x, block, kind);
}

static void store(pass *p, int layer, const tensor *k, const tensor *v)
{
    if (!p->failed)
        p->ops->kv_store(p->dev, pass_kv_layer(p, layer),
                         &p->rows.kv[kv_cache_group_of(p->cache, layer)], k, v);
}

/* Angles of the first token of the group that each row's token is the last of. */
static tensor *group_table(pass *p, const struct nn_pooled *a)
{
    const struct nn_rope *r = &p->model->ropes[a->rope];
    const struct kv_batch *batch = &p->rows.kv[0];
    int rows = p->rows.n_rows;
    tensor *table = pass_tensor(p, DTYPE_F32, rows, r->spec.dims);
    int32_t *positions = arena_array(p->host, int32_t, rows);
    const int32_t *on_device;

    if (!positions) {
        p->failed = true;
        fail(p->err, CLM_ERR_NOMEM, "forward pass: no memory");
        return table;
    }
    for (int i = 0; i < batch->n_sequences; i++)
        for (int t = 0; t < batch->sequences[i].n_rows; t++)
            positions[batch->sequences[i].row + t] =
                batch->sequences[i].position + t - (a->spec->ratio - 1);
    on_device = pass_upload(p, positions, (size_t)rows * sizeof *positions);
    if (!p->failed)
        p->ops->rope_table(p->dev, table, on_device, r->inv_freq[p->part], r->mscale);
    return table;
}

/* Pooled keys of the rows that end a group, and keys of the index made of them. */
static void pool(pass *p, const struct nn_pooled *a, const tensor *x, size_t state)
{
    const struct pooled_spec *s = a->spec;
    tensor *y = nn_linear(p, &a->pool_kv, x);
    tensor *table = group_table(p, a);

    if (s->ratio > 1) {
        tensor *kv = y, *gate = nn_linear(p, &a->pool_gate, x);

        y = pass_tensor(p, DTYPE_F32, x->rows, s->head_dim);
        if (!p->failed)
            p->ops->causal_pool(p->dev, y, kv, gate, p->rows.positions, s->ratio, &p->rows.states,
                                state);
    }
    nn_norm_inplace(p, &a->pool_norm, y, s->head_dim);
    if (s->chooses) {
        tensor *k = nn_linear(p, &a->index_k, y), *nothing = pass_tensor(p, DTYPE_F32, x->rows, 1);

        nn_norm_inplace(p, &a->index_norm, k, s->index_dim);
        turn(p, s, k, s->index_dim, table);
        round_off(p, k, s->index_dim, INDEX_BLOCK, ROUND_FP4);
        if (!p->failed)
            p->ops->clear(p->dev, nothing);
        store(p, a->cache_layer + 2, k, nothing);
    }
    turn(p, s, y, s->head_dim, table);
    round_off(p, y, s->head_dim, POOLED_BLOCK, ROUND_NVFP4);
    store(p, a->cache_layer + 1, y, y);
}

/* p->chosen, and p->candidates. */
static void choose(pass *p, const struct nn_pooled *a, const tensor *x, const tensor *latent)
{
    const struct pooled_spec *s = a->spec;
    struct pooled_choice choice = {
        .n = s->topk, .ratio = s->ratio, .n_blocks = s->n_blocks, .block_size = s->block_size};
    tensor *q = nn_linear(p, &a->index_q, latent), *weights = nn_linear(p, &a->index_weights, x);

    if (s->n_blocks || s->takes_candidates)
        choice.candidates = p->candidates;
    turn(p, s, q, s->index_dim, p->rope_tables[a->rope]);
    round_off(p, q, s->index_dim, INDEX_BLOCK, ROUND_FP4);
    if (p->failed)
        return;
    p->ops->scale(p->dev, weights, (float)(1 / sqrt((double)s->index_heads * s->index_dim)));
    p->ops->select_pooled(p->dev, p->chosen, q, weights, pass_kv_layer(p, a->index_layer),
                          &p->rows.kv[kv_cache_group_of(p->cache, a->index_layer)], &choice);
}

/* What the queries find in one cache, and the logarithms of their denominators, [T, n_heads]. */
static tensor *look(pass *p, const struct nn_pooled *a, int layer, const tensor *q,
                    struct attend_params params)
{
    const struct pooled_spec *s = a->spec;
    tensor *y = pass_tensor(p, DTYPE_F32, q->rows, s->n_heads * s->head_dim);

    params.n_heads = s->n_heads;
    params.scale = s->scale;
    if (!p->failed)
        p->ops->attend(p->dev, y, q, pass_kv_layer(p, layer),
                       &p->rows.kv[kv_cache_group_of(p->cache, layer)], &params);
    return y;
}

/* The two softmaxes as one: y += g (pooled - y), where g is the share of the pooled keys in the sum
 * of both denominators. */
static tensor *find(pass *p, const struct nn_pooled *a, const tensor *q)
{
    const struct pooled_spec *s = a->spec;
    tensor *of_window = pass_tensor(p, DTYPE_F32, q->rows, s->n_heads);
    tensor *of_pooled = pass_tensor(p, DTYPE_F32, q->rows, s->n_heads);
    tensor *y =
        look(p, a, a->cache_layer, q,
             (struct attend_params){.window = s->window, .sinks = a->sinks, .log_sums = of_window});
    tensor *pooled, heads, factors;

    if (!s->keys_of)
        return y;
    pooled = look(p, a, a->pooled_layer, q,
                  (struct attend_params){.kept = p->chosen, .log_sums = of_pooled});
    if (p->failed)
        return y;
    p->ops->add(p->dev, of_pooled, of_window, -1);
    p->ops->activate(p->dev, of_pooled, of_pooled, ACT_SIGMOID);
    p->ops->add(p->dev, pooled, y, -1);
    heads = nn_part_rows(pooled, s->n_heads, 0, s->head_dim);
    factors = nn_part_rows(of_pooled, s->n_heads, 0, 1);
    p->ops->scale_rows(p->dev, &heads, &factors);
    p->ops->add(p->dev, y, pooled, 1);
    return y;
}

/* Keys of x, and pooled ones, to the cache. */
static void store_keys(pass *p, const struct nn_pooled *a, const tensor *x, size_t state)
{
    const struct pooled_spec *s = a->spec;
    tensor *k = nn_linear(p, &a->kv_proj, x);

    nn_norm_inplace(p, &a->kv_norm, k, s->head_dim);
    turn(p, s, k, s->head_dim, p->rope_tables[a->rope]);
    round_off(p, k, s->head_dim, FP8_BLOCK, ROUND_FP8);
    store(p, a->cache_layer, k, k);
    if (s->pools)
        pool(p, a, x, state);
}

tensor *nn_pooled_attention(pass *p, const struct nn_pooled *a, const tensor *all, size_t state)
{
    const struct pooled_spec *s = a->spec;
    tensor rows = *all, *x = &rows; /* all, then those of the queries */
    tensor *latent, *q, *y, *made;
    tensor from, to;

    store_keys(p, a, x, state);
    if (!pass_narrow(p, x))
        return pass_row_range(p, x, 0, 0);
    if (p->chosen)
        pass_narrow(p, p->chosen);
    if (p->candidates)
        pass_narrow(p, p->candidates);
    latent = nn_linear(p, &a->q_a_proj, x);
    nn_norm_inplace(p, &a->q_norm, latent, s->q_rank);
    q = nn_linear(p, &a->q_proj, latent);
    turn(p, s, q, s->head_dim, p->rope_tables[a->rope]);
    if (s->chooses && s->index_of)
        choose(p, a, x, latent);
    y = find(p, a, q);
    turn(p, s, y, s->head_dim, p->rope_tables[a->back]);
    made = pass_tensor(p, DTYPE_F32, x->rows, s->n_groups * s->o_rank);
    if (p->failed)
        return made;
    from = nn_part_rows(y, s->n_groups, 0, y->cols / s->n_groups);
    to = nn_part_rows(made, s->n_groups, 0, s->o_rank);
    nn_per_part(p, &a->group_proj, s->n_groups, &to, &from);
    return nn_linear(p, &a->o_proj, made);
}
