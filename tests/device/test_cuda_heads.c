/* What is done to queries, keys and values head by head, of which the CUDA device makes one launch
 * where it may: held against the scalar CPU. */
#include "cuda_pair.h"

enum { TOKENS = 16, BLOCKS = 8, ROWS = 5 };

struct heads_call {
    device *d;
    const struct device_ops *o;
    tensor q, k, v, table, other;
    const float *norm;
    struct kv_layer kv;
    struct kv_batch batch;
    int dim;
    bool interleaved;
};

static void norm_heads(struct heads_call *c, tensor *x)
{
    c->o->rms_norm(c->d, x, x, c->norm, c->dim, 1e-6f);
}

static void turn(struct heads_call *c, tensor *x)
{
    c->o->rope(c->d, x, c->dim, &c->table, c->interleaved);
}

static void store(struct heads_call *c)
{
    c->o->kv_store(c->d, &c->kv, &c->batch, &c->k, &c->v);
}

#define HEADS(name, body)                                                                          \
    static void heads_##name(struct heads_call *c)                                                 \
    {                                                                                              \
        body;                                                                                      \
    }

HEADS(turned, (turn(c, &c->q), turn(c, &c->k), store(c)))
HEADS(normed,
      (norm_heads(c, &c->q), norm_heads(c, &c->k), turn(c, &c->q), turn(c, &c->k), store(c)))
HEADS(values, (norm_heads(c, &c->v), norm_heads(c, &c->q), norm_heads(c, &c->k), turn(c, &c->q),
               turn(c, &c->k), store(c)))
HEADS(turned_first,
      (turn(c, &c->q), turn(c, &c->k), norm_heads(c, &c->q), norm_heads(c, &c->k), store(c)))
HEADS(twice, (turn(c, &c->q), turn(c, &c->q), turn(c, &c->k), turn(c, &c->k), store(c)))
HEADS(stored, store(c))
HEADS(changed, {
    turn(c, &c->q);
    c->o->scale(c->d, &c->q, 2);
    turn(c, &c->k);
    c->o->scale(c->d, &c->k, 0.5f);
    store(c);
})
HEADS(others, (turn(c, &c->q), turn(c, &c->other), turn(c, &c->k), store(c)))
HEADS(parts, {
    /* What is turned begins within a head, and counts on past the end of the row. */
    tensor tail = c->q;

    tail.data = (float *)tail.data + (c->dim - c->table.cols);
    turn(c, &tail);
    tail = c->k;
    tail.data = (float *)tail.data + (c->dim - c->table.cols);
    turn(c, &tail);
    store(c);
})
HEADS(shared, {
    /* Values that are keys. */
    turn(c, &c->q);
    turn(c, &c->k);
    c->v = c->k;
    store(c);
})
HEADS(table, {
    turn(c, &c->q);
    c->o->rope(c->d, &c->table, c->table.cols, &c->table, false);
    turn(c, &c->k);
    store(c);
})

static const struct {
    const char *name;
    void (*run)(struct heads_call *c);
} head_sequences[] = {
    {"turned", heads_turned},
    {"normed", heads_normed},
    {"normed values", heads_values},
    {"turned, then normed", heads_turned_first},
    {"turned twice", heads_twice},
    {"stored", heads_stored},
    {"changed between", heads_changed},
    {"others turned, too", heads_others},
    {"turned in part", heads_parts},
    {"values that are keys", heads_shared},
    {"a table that is turned itself", heads_table},
};

/* The same rows may hold queries, keys and values, one behind the other. */
static void cut_rows(tensor *q, tensor *k, tensor *v, int n_heads, int n_kv_heads, int dim)
{
    int columns = q->cols;

    q->cols = n_heads * dim;
    *k = *q;
    k->data = (float *)k->data + n_heads * dim;
    k->cols = n_kv_heads * dim;
    *v = *k;
    v->data = (float *)v->data + n_kv_heads * dim;
    CHECK(columns == (n_heads + 2 * n_kv_heads) * dim, "%d columns", columns);
}

static void check_heads(struct pair *p, size_t sequence, int dim, int turning, bool interleaved,
                        bool one, bool exact)
{
    enum { HEADS = 4, KV_HEADS = 2 };
    tensor q[PAIR_DEVICES], k[PAIR_DEVICES], v[PAIR_DEVICES], table[PAIR_DEVICES];
    tensor other[PAIR_DEVICES];
    static const int32_t places[BLOCKS] = {3, 1, 7, 0, 2, 6, 5, 4};
    size_t block = (size_t)(2 * KV_HEADS * TOKENS * dim);
    struct pair_operand *pool, *blocks, *norm_w;
    char what[100];

    pair_tensor(p, q, ROWS, (HEADS + (one ? 2 * KV_HEADS : 0)) * dim);
    pair_tensor(p, k, ROWS, KV_HEADS * dim);
    pair_tensor(p, v, ROWS, KV_HEADS * dim);
    pair_tensor(p, other, ROWS, 2 * dim);
    pair_tensor(p, table, ROWS, turning);
    norm_w = pair_numbers(p, (size_t)dim);
    pool = pair_numbers(p, BLOCKS * block);
    blocks = pair_bytes(p, places, sizeof places, true);
    for (int d = 0; d < PAIR_DEVICES; d++) {
        struct kv_sequence batch[2] = {
            {.row = 0, .n_rows = 4, .position = 30, .blocks = blocks->at[d], .n_kept = 3},
            {.row = 4,
             .n_rows = 1,
             .position = 17,
             .blocks = (int32_t *)blocks->at[d] + 3,
             .n_kept = 2}};
        struct heads_call c = {.d = p->dev[d],
                               .o = p->dev[d]->ops,
                               .q = q[d],
                               .k = k[d],
                               .v = v[d],
                               .table = table[d],
                               .other = other[d],
                               .norm = norm_w->at[d],
                               .batch = {batch, 2, ROWS},
                               .dim = dim,
                               .interleaved = interleaved};
        void *slabs = c.o->alloc(c.d, sizeof(void *), NULL);

        assert_non_null(slabs);
        c.o->upload(c.d, slabs, &pool->at[d], sizeof(void *));
        c.kv = (struct kv_layer){.type = DTYPE_F32,
                                 .n_kv_heads = KV_HEADS,
                                 .k_dim = dim,
                                 .v_dim = dim,
                                 .block_tokens = TOKENS,
                                 .slab_shift = 3,
                                 .slabs = slabs,
                                 .block_bytes = block * sizeof(float),
                                 .v_offset = block / 2 * sizeof(float)};
        if (one)
            cut_rows(&c.q, &c.k, &c.v, HEADS, KV_HEADS, dim);
        c.o->set_exact(c.d, exact || d == PAIR_CPU);
        head_sequences[sequence].run(&c);
        c.o->free(c.d, slabs);
    }
    snprintf(what, sizeof what, "heads %s, %d of %d numbers%s%s", head_sequences[sequence].name,
             turning, dim, interleaved ? ", interleaved" : "", one ? ", in the same rows" : "");
    pair_check(p, 1e-5, what);
    pair_clear(p);
}

static void test_heads(void **state)
{
    static const int dims[][2] = {{64, 64}, {80, 20}, {128, 128}, {33, 6}, {320, 64}, {600, 600}};
    struct pair p;

    (void)state;
    pair_open(&p);
    for (size_t i = 0; i < COUNT(head_sequences); i++)
        for (size_t j = 0; j < COUNT(dims); j++)
            for (int way = 0; way < 8; way++)
                check_heads(&p, i, dims[j][0], dims[j][1], way & 1, way & 2, way & 4);
    pair_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_heads)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
