/* nn/attention.c: softmax(scale q k^T) v over the cache; a group of heads shares its keys and
 * values. Attention, arXiv:1706.03762; grouped queries, 2305.13245. */
#include "nn/nn.h"

tensor nn_part_rows(const tensor *x, int n_parts, int first, int n)
{
    tensor t = *x;

    t.rows = x->rows * n_parts;
    t.stride = x->cols / n_parts;
    t.data = x->rows ? (float *)x->data + first : x->data;
    t.cols = n;
    return t;
}

/* Each head by itself, or all of them together. */
static void qk_norm(pass *p, const struct nn_norm *norm, tensor *x, const struct attention_spec *s)
{
    struct nn_norm plain = {.spec = norm->spec};

    if (norm->spec->kind == NORM_NONE || !x)
        return;
    if (s->qk_norm_span != QK_NORM_EACH) {
        nn_norm_inplace(p, norm, x, s->qk_norm_span == QK_NORM_ALL ? x->cols : s->head_dim);
        return;
    }
    nn_norm_inplace(p, &plain, x, s->head_dim);
    if (!p->failed && norm->w)
        p->ops->scale_columns(p->dev, x, norm->w);
}

static void turn(pass *p, const struct nn_attention *a, tensor *x)
{
    const struct attention_spec *s = a->spec;

    if (a->rope >= 0 && x && !p->failed)
        p->ops->rope(p->dev, x, s->head_dim, p->rope_tables[a->rope], s->rope.interleaved);
}

void nn_temperature(pass *p, const struct temperature_spec *t, tensor *q)
{
    if (t->beta != 0 && !p->failed)
        p->ops->temperature(p->dev, q, p->rows.positions, t->beta, t->length, t->offset);
}

static struct kv_layer_spec index_cache(const struct index_spec *s)
{
    return (struct kv_layer_spec){.n_kv_heads = 1, .k_dim = s->dim, .v_dim = 1, .plain = true};
}

int nn_branch_caches(const struct branch_spec *b, struct kv_layer_spec layers[NN_MAX_CACHES])
{
    const struct attention_spec *a = &b->attention;

    switch (b->op) {
    case OP_ATTENTION:
        layers[0] = (struct kv_layer_spec){.n_kv_heads = a->n_kv_heads,
                                           .k_dim = a->head_dim,
                                           .v_dim = a->v_dim ? a->v_dim : a->head_dim,
                                           .window = a->chunk ? a->chunk : a->window};
        layers[1] = index_cache(&a->index);
        return (a->cache_of ? 0 : 1) + (a->index.topk ? 1 : 0);
    case OP_MLA:
        layers[0] = (struct kv_layer_spec){
            .n_kv_heads = 1, .k_dim = b->mla.rope_dim + b->mla.kv_rank, .v_dim = b->mla.kv_rank};
        layers[1] = index_cache(&b->mla.index);
        return b->mla.index.topk ? 2 : 1;
    case OP_POOLED:
        /* The model itself rounds these to 4 and 8 bits, each in its own way. */
        layers[1] = (struct kv_layer_spec){.n_kv_heads = 1,
                                           .k_dim = b->pooled.head_dim,
                                           .v_dim = b->pooled.head_dim,
                                           .plain = true};
        layers[0] = layers[1];
        layers[0].window = b->pooled.window;
        layers[2] = (struct kv_layer_spec){
            .n_kv_heads = 1, .k_dim = b->pooled.index_dim, .v_dim = 1, .plain = true};
        return 1 + b->pooled.pools + (b->pooled.pools && b->pooled.chooses);
    default:
        return 0;
    }
}

static void clip(pass *p, const struct attention_spec *s, tensor *q, tensor *k, tensor *v)
{
    tensor *all[] = {q, k, v};

    for (int i = 0; i < 3 && s->clip_qkv > 0 && !p->failed; i++)
        if (all[i])
            p->ops->clamp(p->dev, all[i], -s->clip_qkv, s->clip_qkv);
}

/* Clipped, normed and turned, in the order that the spec says. */
static void prepare(pass *p, const struct nn_attention *a, tensor *q, tensor *k, tensor *v)
{
    const struct attention_spec *s = a->spec;

    if (!s->clip_last)
        clip(p, s, q, k, v);
    if (v && s->v_scale != 0 && !p->failed)
        p->ops->scale(p->dev, v, s->v_scale);
    if (v)
        nn_norm_inplace(p, &a->v_norm, v, s->v_dim ? s->v_dim : s->head_dim);
    if (s->qk_norm_after_rope) {
        turn(p, a, q);
        turn(p, a, k);
    }
    qk_norm(p, &a->q_norm, q, s);
    qk_norm(p, &a->k_norm, k, s);
    if (s->clip_last)
        clip(p, s, q, k, v);
    if (!s->qk_norm_after_rope) {
        turn(p, a, q);
        turn(p, a, k);
    }
    if (s->head_gain && q && !p->failed)
        p->ops->scale_groups(p->dev, q, a->head_gain, s->head_dim);
    if (a->k_step && k && !p->failed) {
        p->ops->round_to(p->dev, k, a->k_step, -128, 127);
        p->ops->round_to(p->dev, v, a->v_step, -128, 127);
    }
}

int nn_attention_begin(const struct nn_attention *a, const struct nn_linear **l)
{
    const struct attention_spec *s = a->spec;

    l[0] = &a->q_proj;
    l[1] = &a->k_proj;
    l[2] = &a->v_proj;
    return s->cache_of || s->kv_source == KV_TAKEN ? 1 : s->values_are_keys ? 2 : 3;
}

/* y: queries, if they are wanted already, keys and values as projected, straight or from the layer
 * that keeps them. */
static void project(pass *p, const struct nn_attention *a, const tensor *x, tensor *const *made,
                    bool no_queries, tensor *y[3])
{
    const struct attention_spec *s = a->spec;
    const struct nn_linear *l[NN_MAX_FIRST];
    int n = nn_attention_begin(a, l), first = no_queries ? 1 : 0;

    for (int i = 0; i < 3; i++)
        y[i] = made && i < n ? made[i] : NULL;
    if (!made)
        nn_linears(p, l + first, n - first, x, y + first);
    for (int i = n; i < 3 && !s->cache_of; i++) {
        const tensor *from = s->kv_source == KV_TAKEN ? p->kept_kv[i - 1] : y[1];

        y[i] = pass_tensor(p, DTYPE_F32, x->rows, from->cols);
        if (!p->failed)
            p->ops->copy_rows(p->dev, y[i], from);
    }
    for (int i = 1; i < 3 && s->kv_source == KV_KEPT && !p->failed; i++)
        p->ops->copy_rows(p->dev, p->kept_kv[i - 1], y[i]);
}

void nn_gate(pass *p, const struct nn_linear *gate, enum attention_gate kind, enum activation act,
             int n_heads, tensor *y, const tensor *x)
{
    tensor *factors;
    tensor heads, of_heads;

    if (kind == GATE_NONE)
        return;
    factors = nn_linear(p, gate, x);
    if (p->failed)
        return;
    if (kind == GATE_ALL) {
        p->ops->glu(p->dev, y, factors, y, act);
        return;
    }
    p->ops->activate(p->dev, factors, factors, act);
    heads = nn_part_rows(y, n_heads, 0, y->cols / n_heads);
    of_heads = nn_part_rows(factors, n_heads, 0, 1);
    p->ops->scale_rows(p->dev, &heads, &of_heads);
}

/* Those of the index, too, made of x. */
static void store(pass *p, const struct nn_attention *a, const tensor *x, const tensor *k,
                  const tensor *v)
{
    if (a->spec->index.topk)
        nn_store_index(p, &a->index, x);
    if (k && !p->failed)
        p->ops->kv_store(p->dev, pass_kv_layer(p, a->cache_layer),
                         &p->rows.kv[kv_cache_group_of(p->cache, a->cache_layer)], k, v);
}

static void look(pass *p, const struct nn_attention *a, const tensor *x, tensor *y, tensor *q)
{
    const struct attention_spec *s = a->spec;
    struct attend_params params = {
        .n_heads = s->n_heads,
        .tiled = s->tiled,
        .scale = s->scale,
        .softcap = s->softcap,
        .window = s->window,
        .chunk = s->chunk,
        .sinks = a->sinks,
        .block_size = s->blocks.size,
        .local_blocks = s->blocks.n_local,
        .block_stride = s->blocks.stride,
        .block_step = s->blocks.step,
    };

    if (s->slopes)
        params.slopes = pass_upload(p, s->slopes, (size_t)s->n_heads * sizeof(float));
    if (s->index.topk) {
        params.kept = nn_choose_keys(p, &a->index, x, x);
        params.kept_sets = s->index.block_size ? s->index.n_heads : 1;
    }
    if (!p->failed)
        p->ops->attend(p->dev, y, q, pass_kv_layer(p, a->cache_layer),
                       &p->rows.kv[kv_cache_group_of(p->cache, a->cache_layer)], &params);
}

/* y becomes g y' + (1 - g) y, y' what the queries find in another layer's cache. */
static void mix(pass *p, const struct nn_attention *a, tensor *y, tensor *q)
{
    const struct attention_spec *s = a->spec;
    int other = a->mixed_cache_layer;
    struct attend_params params = {.n_heads = s->n_heads, .scale = s->scale};
    tensor *global = pass_tensor(p, DTYPE_F32, y->rows, y->cols);
    tensor *gate = pass_tensor(p, DTYPE_F32, y->rows, s->n_heads);
    tensor heads = nn_part_rows(q, s->n_heads, 0, s->head_dim);
    tensor factors = nn_part_rows(gate, s->n_heads, 0, 1);

    nn_per_part(p, &a->mix_gate, s->n_heads, &factors, &heads);
    if (p->failed)
        return;
    p->ops->activate(p->dev, gate, gate, ACT_SIGMOID);
    p->ops->attend(p->dev, global, q, pass_kv_layer(p, other),
                   &p->rows.kv[kv_cache_group_of(p->cache, other)], &params);
    p->ops->add(p->dev, global, y, -1);
    heads = nn_part_rows(global, s->n_heads, 0, y->cols / s->n_heads);
    p->ops->scale_rows(p->dev, &heads, &factors);
    p->ops->add(p->dev, y, global, 1);
}

/* Keys and values as projected, each mixed with those before it. */
static void convolve(pass *p, const struct nn_attention *a, tensor *k, tensor *v, size_t state)
{
    int width = a->spec->kv_conv;

    if (width == 0 || !k)
        return;
    nn_conv(p, &a->k_conv, k, width, ACT_NONE, state);
    nn_conv(p, &a->v_conv, v, width, ACT_NONE,
            state + (size_t)(width - 1) * (size_t)k->cols * sizeof(float));
}

/* Keys and values of x are stored. Gives queries; where fewer rows go on, of these alone, which x
 * becomes, or NULL, if none do. */
static tensor *queries(pass *p, const struct nn_attention *a, tensor *x, tensor *const *first,
                       size_t state)
{
    bool narrows = p->narrows;
    tensor *made[3], *q; /* [T, H, D], [T, K, D], [T, K, v_dim] */

    project(p, a, x, first, narrows, made);
    q = made[0];
    convolve(p, a, made[1], made[2], state);
    prepare(p, a, q, made[1], made[2]);
    store(p, a, x, made[1], made[2]);
    if (narrows && pass_narrow(p, x)) {
        q = nn_linear(p, &a->q_proj, x);
        prepare(p, a, q, NULL, NULL);
    }
    if (q)
        nn_temperature(p, &a->spec->temperature, q);
    return q;
}

tensor *nn_attention_inner(pass *p, const struct nn_attention *a, const tensor *all,
                           tensor *const *first, size_t state)
{
    const struct attention_spec *s = a->spec;
    int v_dim = s->v_dim ? s->v_dim : s->head_dim;
    tensor rows = *all, *x = &rows, *q = queries(p, a, x, first, state);
    tensor *y = pass_tensor(p, DTYPE_F32, x->rows, s->n_heads * v_dim); /* [T, H, v_dim] */

    if (!q)
        return y;
    look(p, a, x, y, q);
    if (s->mixed_with)
        mix(p, a, y, q);
    nn_norm_inplace(p, &a->out_norm, y, v_dim);
    nn_gate(p, &a->gate, s->gate, s->gate_activation, s->n_heads, y, x);
    nn_norm_inplace(p, &a->o_norm, y, y->cols);
    return y;
}

tensor *nn_attention(pass *p, const struct nn_attention *a, const tensor *x, size_t state)
{
    tensor *y = nn_attention_inner(p, a, x, NULL, state);

    if (y->rows == 0)
        return y;
    y = nn_linear(p, &a->o_proj, y);
    if (a->is_share)
        pass_sum(p, y);
    return y;
}
