/* A layer, from the output of attention to the next layer's queries, keys and values, which the
 * CUDA device makes one launch of, held against the scalar CPU: by itself, and some of them with
 * attention between. */
#include "cuda_weights.h"

enum { ATTENDED = 4096, MOST_EXPERTS = 40, STEPS = 3 };

enum number { X, ATTENTION, OUT, NORMED, LOGITS, WEIGHTS, GATE, UP, DOWN, SUM, NEXT, Q, K, V, N };

struct shape {
    int hidden, wide, n_experts, k; /* no experts: a layer without */
    enum router_score score;
    enum number glu; /* where the activation goes */
    bool over;       /* what is not needed any more is written over */
};

/* What one device has. */
struct layer {
    device *d;
    const struct device_ops *o;
    tensor t[N], ids;
    const float *norm;
    struct weight out, router, next[3], experts[3][MOST_EXPERTS];
};

static void matmul(const struct layer *l, enum number to, const struct weight *w, enum number from,
                   bool careful)
{
    tensor y = l->t[to];
    struct matmul_job job = {.y = &y, .w = w, .careful = careful};

    l->o->matmul(l->d, &job, 1, &l->t[from]);
}

static void norm(const struct layer *l, enum number to, bool weighted)
{
    tensor y = l->t[to];

    l->o->rms_norm(l->d, &y, &l->t[X], weighted ? l->norm : NULL, y.cols, 1e-5f);
}

static void feed_forward(struct layer *l, const struct shape *s)
{
    struct matmul_job up[] = {{.y = &l->t[GATE], .w = l->experts[0]},
                              {.y = &l->t[UP], .w = l->experts[1]}};

    l->o->matmul(l->d, up, 2, &l->t[NORMED]);
    l->o->glu(l->d, &l->t[s->glu], &l->t[GATE], &l->t[UP], ACT_SILU);
    matmul(l, DOWN, l->experts[2], s->glu, false);
    l->o->add(l->d, &l->t[X], &l->t[DOWN], 0.25f);
}

static void choose_experts(struct layer *l, const struct shape *s)
{
    struct router_params r = {.score = s->score,
                              .n_experts = s->n_experts,
                              .n_experts_per_token = s->k,
                              .normalize = s->score == ROUTER_SOFTMAX_ALL,
                              .normalize_floor = 1e-9f,
                              .scale = 1.5f};
    struct matmul_job up[] = {{.y = &l->t[GATE], .w = l->experts[0]},
                              {.y = &l->t[UP], .w = l->experts[1]}};
    struct matmul_job down = {.y = &l->t[DOWN], .w = l->experts[2]};

    matmul(l, LOGITS, &l->router, NORMED, true);
    l->o->route(l->d, &l->ids, &l->t[WEIGHTS], &l->t[LOGITS], &r);
    l->o->matmul_experts(l->d, up, 2, s->n_experts, &l->t[NORMED], &l->ids);
    l->o->glu(l->d, &l->t[s->glu], &l->t[GATE], &l->t[UP], ACT_SILU);
    l->o->matmul_experts(l->d, &down, 1, s->n_experts, &l->t[s->glu], &l->ids);
    l->o->combine_experts(l->d, &l->t[SUM], &l->t[DOWN], &l->t[WEIGHTS]);
    l->o->add(l->d, &l->t[X], &l->t[SUM], 0.25f);
}

static void project(struct layer *l)
{
    struct matmul_job qkv[3];

    norm(l, NEXT, false);
    for (int i = 0; i < 3; i++)
        qkv[i] = (struct matmul_job){.y = &l->t[Q + i], .w = &l->next[i]};
    l->o->matmul(l->d, qkv, 3, &l->t[NEXT]);
}

static void run(struct layer *l, const struct shape *s, bool next)
{
    matmul(l, OUT, &l->out, ATTENTION, false);
    l->o->add(l->d, &l->t[X], &l->t[OUT], 0.5f);
    norm(l, NORMED, true);
    (s->n_experts ? choose_experts : feed_forward)(l, s);
    if (next)
        project(l);
}

static int experts_of(const struct shape *s)
{
    return s->n_experts ? s->n_experts : 1;
}

/* All weights, of one device without a base. */
static size_t make_all(struct layer *l, const struct shape *s, enum dtype scales, uint8_t *bytes)
{
    const struct weight like = {
        .format = WEIGHT_AFFINE, .bits = 4, .group_size = 64, .scale_type = scales};
    const struct weight careful = {
        .format = WEIGHT_AFFINE, .bits = 8, .group_size = 64, .scale_type = scales};
    size_t at = 0;

    l->out = make_weight(like, s->hidden, l->t[ATTENTION].cols, bytes, &at);
    l->router = make_weight(careful, experts_of(s), s->hidden, bytes, &at);
    for (int i = 0; i < 3; i++)
        l->next[i] = make_weight(like, l->t[Q + i].cols, s->hidden, bytes, &at);
    for (int i = 0; i < 3; i++)
        for (int e = 0; e < experts_of(s); e++)
            l->experts[i][e] = make_weight(like, i < 2 ? s->wide : s->hidden,
                                           i < 2 ? s->hidden : s->wide, bytes, &at);
    return at;
}

static void move_all(struct layer *l, const struct shape *s, uint8_t *base)
{
    move_weight(&l->out, base);
    move_weight(&l->router, base);
    for (int i = 0; i < 3; i++) {
        move_weight(&l->next[i], base);
        for (int e = 0; e < experts_of(s); e++)
            move_weight(&l->experts[i][e], base);
    }
}

static void check(struct pair *p, const struct shape *s, enum dtype scales, bool next)
{
    const int sizes[N][2] = {
        [X] = {1, s->hidden},          [ATTENTION] = {1, s->n_experts ? ATTENDED : s->hidden},
        [OUT] = {1, s->hidden},        [NORMED] = {1, s->hidden},
        [LOGITS] = {1, experts_of(s)}, [WEIGHTS] = {1, s->k},
        [GATE] = {s->k, s->wide},      [UP] = {s->k, s->wide},
        [DOWN] = {s->k, s->hidden},    [SUM] = {1, s->hidden},
        [NEXT] = {1, s->hidden},       [Q] = {1, s->n_experts ? 2 * s->hidden : s->hidden},
        [K] = {1, s->hidden / 2},      [V] = {1, 256}};
    struct layer l[PAIR_DEVICES];
    struct pair_operand *ids, *weight;
    uint8_t *bytes;
    size_t size;
    char what[100];

    if (!next_case())
        return;
    ids = pair_ids(p, (size_t)s->k, experts_of(s));
    weight = pair_numbers(p, (size_t)s->hidden);
    for (int i = 0; i < N; i++) {
        tensor t[PAIR_DEVICES];

        pair_tensor(p, t, sizes[i][0], sizes[i][1]);
        for (int d = 0; d < PAIR_DEVICES; d++)
            l[d].t[i] = t[d];
    }
    for (int d = 0; d < PAIR_DEVICES && s->over; d++) {
        /* As temporaries of one branch lie where those of another did. */
        l[d].t[NEXT] = l[d].t[NORMED];
        l[d].t[OUT] = l[d].t[s->n_experts ? SUM : DOWN];
    }
    size = make_all(&l[0], s, scales, NULL);
    bytes = mem_zeroed(size, 1);
    assert_non_null(bytes);
    make_all(&l[0], s, scales, bytes);
    make_all(&l[1], s, scales, NULL);
    for (int d = 0; d < PAIR_DEVICES; d++) {
        uint8_t *base;

        l[d].d = p->dev[d];
        l[d].o = p->dev[d]->ops;
        base = l[d].o->alloc(l[d].d, size, NULL);
        assert_non_null(base);
        l[d].o->upload(l[d].d, base, bytes, size);
        move_all(&l[d], s, base);
        l[d].norm = weight->at[d];
        l[d].ids = (tensor){ids->at[d], DTYPE_I32, 1, s->k, s->k};
        l[d].o->set_exact(l[d].d, d == PAIR_CPU);
        for (int i = 0; i < STEPS; i++)
            run(&l[d], s, next);
        l[d].o->free(l[d].d, base);
    }
    mem_free(bytes);
    snprintf(what, sizeof what, "%d of %d experts, of %d and %d, next %d, over %d", s->k,
             s->n_experts, s->hidden, s->wide, next, s->over);
    pair_check(p, 1e-3, what);
    pair_clear(p);
}

static void check_all(const struct shape *shapes, size_t n)
{
    struct pair p;

    pair_open(&p);
    for (size_t i = 0; i < n; i++)
        for (int next = 0; next < 2; next++)
            check(&p, &shapes[i], i % 2 ? DTYPE_F16 : DTYPE_BF16, next);
    pair_close(&p);
}

static void test_experts(void **state)
{
    static const struct shape shapes[] = {
        /* Less than 48 KiB of shared memory but for what the kernel has of its own. */
        {1536, 512, 17, 16, ROUTER_SOFTMAX_SELECTED, GATE, true},
        {1024, 256, 16, 4, ROUTER_SOFTMAX_ALL, GATE, false},
        {2048, 768, 20, 8, ROUTER_SOFTMAX_ALL, GATE, false},
        {2048, 768, 20, 8, ROUTER_SOFTMAX_ALL, GATE, true},
        {512, 512, 40, 2, ROUTER_SOFTMAX_SELECTED, UP, false},
        {256, 256, 33, 1, ROUTER_SOFTMAX_ALL, GATE, false},
        {768, 1024, 20, 8, ROUTER_SOFTMAX_ALL, GATE, false},
        {2304, 256, 20, 4, ROUTER_SOFTMAX_ALL, GATE, false}, /* more tiles than processors */
    };

    (void)state;
    check_all(shapes, COUNT(shapes));
}

/* Where a device has seen a router, layers without experts are launches of their own. */
static void test_dense(void **state)
{
    static const struct shape shapes[] = {
        {2048, 8192, 0, 1, ROUTER_SOFTMAX_ALL, GATE, true},
        {2048, 8192, 0, 1, ROUTER_SOFTMAX_ALL, UP, false},
        {256, 2048, 0, 1, ROUTER_SOFTMAX_ALL, GATE, false},
        {1280, 4096, 0, 1, ROUTER_SOFTMAX_ALL, GATE, true},
        {1536, 6144, 0, 1, ROUTER_SOFTMAX_ALL, GATE, false},
        {512, 2048, 0, 1, ROUTER_SOFTMAX_ALL, UP, true},
        {2304, 4096, 0, 1, ROUTER_SOFTMAX_ALL, GATE, false}, /* launches of their own */
    };

    (void)state;
    check_all(shapes, COUNT(shapes));
}

/* --- Layers with attention between them --- */

enum { LAYERS = 3, TEXT_STEPS = 4, TOKENS = 16, BLOCKS = 20, HEAD = 128 };

struct chain {
    struct shape shape;
    int n_heads, n_kv_heads;
    enum dtype cache, scales;
    bool normed; /* heads */
    int position;
};

/* What the layers of one device have besides. */
struct chain_call {
    struct layer l;
    struct kv_layer kv[LAYERS];
    struct kv_batch batch;
    tensor table;
    const float *norms; /* of queries, then of keys: the first numbers of the layers' norm */
};

static void attend(struct chain_call *c, const struct chain *of, int layer)
{
    struct layer *l = &c->l;
    struct attend_params params = {.n_heads = of->n_heads, .scale = 0.2f};

    for (int i = 0; i < 2; i++) {
        tensor x = l->t[Q + i];

        if (of->normed)
            l->o->rms_norm(l->d, &x, &x, c->norms + i * HEAD, HEAD, 1e-6f);
        l->o->rope(l->d, &x, HEAD, &c->table, false);
    }
    l->o->kv_store(l->d, &c->kv[layer], &c->batch, &l->t[K], &l->t[V]);
    l->o->attend(l->d, &l->t[ATTENTION], &l->t[Q], &c->kv[layer], &c->batch, &params);
}

/* Some tokens of one text, one after the other, through all layers. */
static void check_chain(struct pair *p, const struct chain *of)
{
    const struct shape *s = &of->shape;
    int wide = of->n_heads * HEAD, narrow = of->n_kv_heads * HEAD;
    const int sizes[N][2] = {[X] = {1, s->hidden},
                             [ATTENTION] = {1, wide},
                             [OUT] = {1, s->hidden},
                             [NORMED] = {1, s->hidden},
                             [LOGITS] = {1, s->n_experts},
                             [WEIGHTS] = {1, s->k},
                             [GATE] = {s->k, s->wide},
                             [UP] = {s->k, s->wide},
                             [DOWN] = {s->k, s->hidden},
                             [SUM] = {1, s->hidden},
                             [NEXT] = {1, s->hidden},
                             [Q] = {1, wide},
                             [K] = {1, narrow},
                             [V] = {1, narrow}};
    size_t block = (size_t)(2 * of->n_kv_heads * TOKENS * HEAD) * 2;
    struct chain_call calls[PAIR_DEVICES];
    struct pair_operand *ids, *weight, *pool, *blocks;
    tensor table[PAIR_DEVICES], past[PAIR_DEVICES];
    int32_t places[BLOCKS];
    uint8_t *bytes;
    size_t size;
    char what[100];

    if (!next_case())
        return;
    ids = pair_ids(p, (size_t)s->k, s->n_experts);
    weight = pair_numbers(p, (size_t)s->hidden);
    for (int i = 0; i < BLOCKS; i++)
        places[i] = i * 7 % BLOCKS;
    blocks = pair_bytes(p, places, sizeof places, true);
    pool = pair_numbers(p, LAYERS * BLOCKS * block / sizeof(float));
    pair_tensor(p, table, 1, HEAD);
    if (of->position)
        pair_tensor(p, past, of->position, narrow);
    for (int i = 0; i < N; i++) {
        tensor t[PAIR_DEVICES];

        pair_tensor(p, t, sizes[i][0], sizes[i][1]);
        for (int d = 0; d < PAIR_DEVICES; d++)
            calls[d].l.t[i] = t[d];
    }
    for (int d = 0; d < PAIR_DEVICES && s->over; d++) {
        calls[d].l.t[NEXT] = calls[d].l.t[NORMED];
        calls[d].l.t[OUT] = calls[d].l.t[SUM];
    }
    size = make_all(&calls[0].l, s, of->scales, NULL);
    bytes = mem_zeroed(size, 1);
    assert_non_null(bytes);
    make_all(&calls[0].l, s, of->scales, bytes);
    make_all(&calls[1].l, s, of->scales, NULL);
    for (int d = 0; d < PAIR_DEVICES; d++) {
        struct chain_call *c = &calls[d];
        struct layer *l = &c->l;
        struct kv_sequence text = {
            .n_rows = of->position, .blocks = blocks->at[d], .n_kept = BLOCKS};
        void *slabs[LAYERS], *list;
        uint8_t *base;

        l->d = p->dev[d];
        l->o = l->d->ops;
        base = l->o->alloc(l->d, size, NULL);
        list = l->o->alloc(l->d, sizeof slabs, NULL);
        assert_true(base && list);
        l->o->upload(l->d, base, bytes, size);
        for (int i = 0; i < LAYERS; i++)
            slabs[i] = (char *)pool->at[d] + (size_t)i * BLOCKS * block;
        l->o->upload(l->d, list, slabs, sizeof slabs);
        move_all(l, s, base);
        l->norm = weight->at[d];
        l->ids = (tensor){ids->at[d], DTYPE_I32, 1, s->k, s->k};
        c->norms = weight->at[d];
        c->table = table[d];
        c->batch = (struct kv_batch){&text, 1, of->position};
        for (int i = 0; i < LAYERS; i++)
            c->kv[i] = (struct kv_layer){.type = of->cache,
                                         .n_kv_heads = of->n_kv_heads,
                                         .k_dim = HEAD,
                                         .v_dim = HEAD,
                                         .block_tokens = TOKENS,
                                         .slab_shift = 9,
                                         .slabs = (void **)list + i,
                                         .block_bytes = block,
                                         .v_offset = block / 2};
        l->o->set_exact(l->d, d == PAIR_CPU);
        /* What is there before is numbers. */
        for (int i = 0; i < LAYERS && of->position; i++)
            l->o->kv_store(l->d, &c->kv[i], &c->batch, &past[d], &past[d]);
        c->batch.n_rows = text.n_rows = 1;
        for (int step = 0; step < TEXT_STEPS; step++) {
            clm_error err = {0};

            text.position = of->position + step;
            project(l);
            for (int i = 0; i < LAYERS; i++) {
                attend(c, of, i);
                run(l, s, false);
                if (i < LAYERS - 1)
                    project(l);
            }
            CHECK(!l->o->sync(l->d, &err), "%s", err.message);
        }
        l->o->free(l->d, base);
        l->o->free(l->d, list);
    }
    pool->size = 0; /* what is rounded there is seen in x */
    mem_free(bytes);
    snprintf(what, sizeof what, "%d heads of %d, %d of %d experts, of %d and %d, behind %d",
             of->n_heads, of->n_kv_heads, s->k, s->n_experts, s->hidden, s->wide, of->position);
    pair_check(p, of->cache == DTYPE_F16 ? 4e-3 : 3e-2, what);
    pair_clear(p);
}

static void test_chain(void **state)
{
    static const struct chain chains[] = {
        {{2048, 768, 20, 8, ROUTER_SOFTMAX_ALL, GATE, true},
         .n_heads = 32,
         .n_kv_heads = 4,
         .cache = DTYPE_F16,
         .scales = DTYPE_BF16,
         .normed = true,
         .position = 126},
        {{1536, 512, 20, 4, ROUTER_SOFTMAX_SELECTED, UP, true},
         .n_heads = 24,
         .n_kv_heads = 4,
         .cache = DTYPE_BF16,
         .scales = DTYPE_F16,
         .position = 253},
        {{512, 512, 33, 1, ROUTER_SOFTMAX_ALL, GATE, false},
         .n_heads = 8,
         .n_kv_heads = 1,
         .cache = DTYPE_F16,
         .scales = DTYPE_BF16,
         .normed = true},
    };
    struct pair p;

    (void)state;
    pair_open(&p);
    for (size_t i = 0; i < COUNT(chains); i++)
        check_chain(&p, &chains[i]);
    pair_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_dense), cmocka_unit_test(test_experts),
                                       cmocka_unit_test(test_chain)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
