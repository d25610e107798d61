/* The operations of the CUDA device that take rows alone, held against the scalar CPU. */
#include "cuda_pair.h"

/* How an operation is called: tensors and vectors of one device; shapes as below. */
struct call {
    device *d;
    tensor t[4];
    void *v[4];
    int n; /* of a group */
};

/* Columns of tensors and lengths of vectors: of a case of rows, groups and numbers in a group. */
enum extent { NONE, ONE, GROUP, GROUPS, COLS, ROWS, SQUARE };

struct op {
    const char *name;
    void (*run)(const struct call *c);
    enum extent tensors[4], numbers[4], ids; /* ids, below cols, come after the numbers */
    double tolerance;
    bool even, power; /* a group must be even; must be a power of two */
};

#define RUN(name, body)                                                                            \
    static void run_##name(const struct call *c)                                                   \
    {                                                                                              \
        const struct device_ops *o = c->d->ops;                                                    \
        tensor x = c->t[0], y = c->t[1], z = c->t[2];                                              \
        device *d = c->d;                                                                          \
                                                                                                   \
        (void)y;                                                                                   \
        (void)z;                                                                                   \
        body;                                                                                      \
    }

RUN(rms_norm, o->rms_norm(d, &x, &y, c->v[0], c->n, 1e-5f))
RUN(rms_norm_here, o->rms_norm(d, &x, &x, NULL, c->n, 1e-5f))
RUN(add_norm, {
    o->add(d, &x, &z, 0.5f);
    o->rms_norm(d, &y, &x, c->v[0], c->n, 1e-5f);
    o->add(d, &x, &y, 2);
})
RUN(layer_norm, o->layer_norm(d, &x, &y, c->v[0], c->v[1], c->n, 1e-3f))
RUN(softmax, o->softmax(d, &x))
RUN(match_size, o->match_size(d, &x, &y, 1e-6f))
RUN(cut, o->cut_below_spread(d, &x, 0.5f))
RUN(round_fp8, o->round_blocks(d, &x, c->n, ROUND_FP8))
RUN(round_fp4, o->round_blocks(d, &x, c->n, ROUND_FP4))
RUN(round_nvfp4, o->round_blocks(d, &x, c->n, ROUND_NVFP4))
RUN(hadamard, o->hadamard(d, &x, c->n))
RUN(dot, o->dot_groups(d, &x, &y, &z, c->n))
RUN(add, o->add(d, &x, &y, -0.75f))
RUN(scale, o->scale(d, &x, 3))
RUN(scale_columns, o->scale_columns(d, &x, c->v[0]))
RUN(add_columns, o->add_columns(d, &x, c->v[0]))
RUN(scale_groups, o->scale_groups(d, &x, c->v[0], c->n))
RUN(scale_rows, o->scale_rows(d, &x, &y))
RUN(round_to, o->round_to(d, &x, c->v[0], -3, 2))
RUN(round_f16, o->round_floats(d, &x, DTYPE_F16))
RUN(round_bf16, o->round_floats(d, &x, DTYPE_BF16))
RUN(clamp, o->clamp(d, &x, -0.25f, 0.5f))
RUN(clear, o->clear(d, &x))
RUN(fill, o->fill(d, &x, 2.5f))
RUN(xielu, o->xielu(d, &x, (const float *const *)(const void *)c->v))
RUN(copy_rows, o->copy_rows(d, &x, &y))
RUN(temperature, o->temperature(d, &x, c->v[0], 0.1f, 7, 3))
RUN(softcap, o->softcap(d, &x, 0.7f))
RUN(glu_alpha, o->glu_alpha(d, &x, &y, &z, 1.702f, 0.5f))
RUN(glu_here, o->glu(d, &x, &x, &y, ACT_SILU))
RUN(divide, o->divide_groups(d, &x, &y, &z, c->n, 0.1f))
RUN(gather_columns, o->gather_columns(d, &x, &y, c->v[0]))
RUN(rope_table, o->rope_table(d, &x, c->v[1], c->v[0], 1.25f))
RUN(time_step, o->time_step(d, &x, &y, c->v[0], c->v[1], c->n, 0.3f, 1.1f))
RUN(sinkhorn, (o->activate(d, &x, &x, ACT_EXP), o->sinkhorn(d, &x, c->n, 3, 1e-3f)))
RUN(
    all_activations, for (int a = 0; a < ACT_COUNT; a++) {
        if (a != ACT_SWIGLU_CLAMPED)
            o->activate(d, &x, &x, (enum activation)a);
        o->glu(d, &y, &x, &z, (enum activation)a);
        o->add(d, &x, &y, 1);
    })

static const struct op ops[] = {
    {"rms_norm", run_rms_norm, {COLS, COLS}, {GROUP}, NONE, 2e-6, false, false},
    {"rms_norm in place", run_rms_norm_here, {COLS}, {NONE}, NONE, 2e-6, false, false},
    {"add, rms_norm", run_add_norm, {COLS, COLS, COLS}, {GROUP}, NONE, 4e-6, false, false},
    {"layer_norm", run_layer_norm, {COLS, COLS}, {GROUP, GROUP}, NONE, 2e-5, false, false},
    {"softmax", run_softmax, {COLS}, {NONE}, NONE, 1e-6, false, false},
    {"match_size", run_match_size, {COLS, COLS}, {NONE}, NONE, 4e-6, false, false},
    {"cut_below_spread", run_cut, {COLS}, {NONE}, NONE, 2e-6, false, false},
    {"round_blocks fp8", run_round_fp8, {COLS}, {NONE}, NONE, 0, false, false},
    {"round_blocks fp4", run_round_fp4, {COLS}, {NONE}, NONE, 0, false, false},
    {"round_blocks nvfp4", run_round_nvfp4, {COLS}, {NONE}, NONE, 0, false, false},
    {"hadamard", run_hadamard, {COLS}, {NONE}, NONE, 1e-6, false, true},
    {"dot_groups", run_dot, {GROUPS, COLS, COLS}, {NONE}, NONE, 2e-6, false, false},
    {"add", run_add, {COLS, COLS}, {NONE}, NONE, 1e-7, false, false},
    {"scale", run_scale, {COLS}, {NONE}, NONE, 0, false, false},
    {"scale_columns", run_scale_columns, {COLS}, {COLS}, NONE, 0, false, false},
    {"add_columns", run_add_columns, {COLS}, {COLS}, NONE, 0, false, false},
    {"scale_groups", run_scale_groups, {COLS}, {GROUPS}, NONE, 0, false, false},
    {"scale_rows", run_scale_rows, {COLS, ONE}, {NONE}, NONE, 0, false, false},
    {"round_to", run_round_to, {COLS}, {ONE}, NONE, 1e-7, false, false},
    {"round_floats f16", run_round_f16, {COLS}, {NONE}, NONE, 0, false, false},
    {"round_floats bf16", run_round_bf16, {COLS}, {NONE}, NONE, 0, false, false},
    {"clamp", run_clamp, {COLS}, {NONE}, NONE, 0, false, false},
    {"clear", run_clear, {COLS}, {NONE}, NONE, 0, false, false},
    {"fill", run_fill, {COLS}, {NONE}, NONE, 0, false, false},
    {"xielu", run_xielu, {COLS}, {ONE, ONE, ONE, ONE}, NONE, 1e-6, false, false},
    {"copy_rows", run_copy_rows, {COLS, COLS}, {NONE}, NONE, 0, false, false},
    {"temperature", run_temperature, {COLS}, {NONE}, ROWS, 1e-6, false, false},
    {"softcap", run_softcap, {COLS}, {NONE}, NONE, 1e-6, false, false},
    {"glu_alpha", run_glu_alpha, {COLS, COLS, COLS}, {NONE}, NONE, 1e-6, false, false},
    {"glu in place", run_glu_here, {COLS, COLS}, {NONE}, NONE, 1e-6, false, false},
    {"activations", run_all_activations, {COLS, COLS, COLS}, {NONE}, NONE, 1e-4, false, false},
    {"divide_groups", run_divide, {COLS, GROUPS, GROUPS}, {NONE}, NONE, 1e-6, false, false},
    {"gather_columns", run_gather_columns, {COLS, COLS}, {NONE}, COLS, 0, false, false},
    {"rope_table", run_rope_table, {COLS}, {COLS}, ROWS, 1e-6, true, false},
    {"time_step", run_time_step, {COLS, COLS}, {COLS, GROUPS}, NONE, 1e-6, false, false},
    {"sinkhorn", run_sinkhorn, {SQUARE}, {NONE}, NONE, 1e-5, false, false},
};

struct extents {
    int rows, groups, n;
};

static int extent_of(enum extent e, const struct extents *s)
{
    switch (e) {
    case ONE:
        return 1;
    case GROUP:
        return s->n;
    case GROUPS:
        return s->groups;
    case COLS:
        return s->groups * s->n;
    case ROWS:
        return s->rows;
    case SQUARE:
        return s->n * s->n;
    default:
        return 0;
    }
}

static void check_op(struct pair *p, const struct op *op, const struct extents *s)
{
    struct call calls[PAIR_DEVICES] = {0};
    char what[100];
    int n_vectors = 0;

    if (!next_case())
        return;
    for (int i = 0; i < 4 && op->tensors[i]; i++) {
        tensor t[PAIR_DEVICES];

        pair_tensor(p, t, s->rows, extent_of(op->tensors[i], s));
        for (int d = 0; d < PAIR_DEVICES; d++)
            calls[d].t[i] = t[d];
    }
    for (int i = 0; i <= 4; i++) {
        bool ids = i == 4 || !op->numbers[i];
        enum extent e = ids ? op->ids : op->numbers[i];
        size_t n = (size_t)extent_of(e, s);
        struct pair_operand *o;

        if (e)
            o = ids ? pair_ids(p, n, s->groups * s->n) : pair_numbers(p, n);
        for (int d = 0; e && d < PAIR_DEVICES; d++)
            calls[d].v[n_vectors] = o->at[d];
        n_vectors++;
        if (ids)
            break;
    }
    for (int d = 0; d < PAIR_DEVICES; d++) {
        calls[d].d = p->dev[d];
        calls[d].n = s->n;
        op->run(&calls[d]);
    }
    snprintf(what, sizeof what, "%s, %d rows of %d groups of %d", op->name, s->rows, s->groups,
             s->n);
    pair_check(p, op->tolerance, what);
    pair_clear(p);
}

static void test_rows(void **state)
{
    static const struct extents extents[] = {{1, 1, 1},   {3, 2, 7},    {2, 5, 32},   {7, 3, 64},
                                             {5, 2, 129}, {1, 1, 4100}, {2, 1, 1024}, {0, 1, 8}};
    struct pair p;

    (void)state;
    pair_open(&p);
    for (size_t i = 0; i < COUNT(ops); i++)
        for (size_t j = 0; j < COUNT(extents); j++) {
            const struct extents *s = &extents[j];

            if ((ops[i].even && s->n * s->groups % 2) || (ops[i].power && (s->n & (s->n - 1))) ||
                (ops[i].tensors[0] == SQUARE && s->n > 64))
                continue;
            check_op(&p, &ops[i], s);
        }
    pair_close(&p);
}

/* Rows of heads that are turned, in both ways; nothing else of them is touched. */
static void test_rope(void **state)
{
    static const int shapes[][3] = {{1, 4, 2}, {3, 8, 8}, {2, 20, 12}, {5, 128, 64}};
    struct pair p;

    (void)state;
    pair_open(&p);
    for (size_t i = 0; i < 2 * COUNT(shapes); i++) {
        const int *s = shapes[i / 2];
        tensor x[PAIR_DEVICES], more[PAIR_DEVICES], table[PAIR_DEVICES];

        if (!next_case())
            continue;
        pair_tensor(&p, x, s[0], 3 * s[1]);
        pair_tensor(&p, more, s[0], s[1]);
        pair_tensor(&p, table, s[0], s[2]);
        for (int d = 0; d < PAIR_DEVICES; d++) {
            p.dev[d]->ops->rope(p.dev[d], &x[d], s[1], &table[d], i % 2);
            p.dev[d]->ops->rope(p.dev[d], &more[d], s[1], &table[d], i % 2);
            p.dev[d]->ops->rope(p.dev[d], &x[d], s[1], &table[d], !(i % 2));
        }
        pair_check(&p, 3e-7, "rope");
        pair_clear(&p);
    }
    pair_close(&p);
}

static void test_gather_rows(void **state)
{
    struct pair p;
    tensor x[PAIR_DEVICES], y[PAIR_DEVICES], halves_x[PAIR_DEVICES], halves_y[PAIR_DEVICES];
    struct pair_operand *rows;

    (void)state;
    if (!next_case())
        return;
    pair_open(&p);
    pair_tensor(&p, x, 9, 33);
    pair_tensor(&p, y, 5, 33);
    rows = pair_ids(&p, 5, 9);
    for (int d = 0; d < PAIR_DEVICES; d++) {
        p.dev[d]->ops->gather_rows(p.dev[d], &y[d], &x[d], rows->at[d]);
        halves_x[d] = (tensor){x[d].data, DTYPE_F16, 9, 31, 35};
        halves_y[d] = (tensor){y[d].data, DTYPE_F16, 4, 31, 37};
    }
    pair_check(&p, 0, "gather_rows");
    for (int d = 0; d < PAIR_DEVICES; d++)
        p.dev[d]->ops->gather_rows(p.dev[d], &halves_y[d], &halves_x[d], rows->at[d]);
    pair_check(&p, 0, "gather_rows of halves");
    pair_close(&p);
}

static void test_mix_streams(void **state)
{
    struct pair p;
    tensor x[PAIR_DEVICES], y[PAIR_DEVICES], coefs[PAIR_DEVICES];

    (void)state;
    if (!next_case())
        return;
    pair_open(&p);
    pair_tensor(&p, x, 4 * 5, 70);
    pair_tensor(&p, y, 4 * 5, 70);
    pair_tensor(&p, coefs, 5, 16);
    for (int d = 0; d < PAIR_DEVICES; d++)
        p.dev[d]->ops->mix_streams(p.dev[d], &y[d], &x[d], &coefs[d], 4);
    pair_check(&p, 5e-7, "mix_streams");
    pair_close(&p);
}

/* Ties, rows that no number is the largest of, and rows of as many numbers as vocabularies have. */
static void test_argmax(void **state)
{
    static const int cols[] = {1, 37, 1024, 8193, 128256, 262149};
    enum { N_ROWS = 6 };
    struct pair p;

    (void)state;
    pair_open(&p);
    for (size_t i = 0; i < COUNT(cols); i++) {
        size_t n = (size_t)cols[i], last = n - 1;
        struct pair_operand *rows, *ids;
        float *x;

        if (!next_case())
            continue;
        x = mem_alloc(N_ROWS * n * sizeof *x);
        assert_non_null(x);
        for (size_t j = 0; j < N_ROWS * n; j++)
            x[j] = (float)random_below(j < n ? 1000000 : n / 2 + 1);
        for (size_t j = 2 * n; j < 4 * n; j++)
            x[j] = -INFINITY;
        x[3 * n + random_below(n)] = -3e38f;
        x[4 * n + last] = NAN;
        x[5 * n + random_below(n)] = INFINITY;
        rows = pair_bytes(&p, x, N_ROWS * n * sizeof *x, true);
        ids = pair_ids(&p, N_ROWS, 7);
        for (int d = 0; d < PAIR_DEVICES; d++) {
            tensor t = {rows->at[d], DTYPE_F32, N_ROWS, cols[i], cols[i]};

            for (int times = 0; times < 3; times++)
                p.dev[d]->ops->argmax(p.dev[d], ids->at[d], &t);
        }
        pair_check_operand(&p, ids, 0, "argmax");
        pair_clear(&p);
        mem_free(x);
    }
    pair_close(&p);
}

/* A list of launches that comes again is a graph from the second time on: it does the same, with
 * what lies in memory then. */
static void test_repeated_lists(void **state)
{
    struct pair p;
    tensor x[PAIR_DEVICES], y[PAIR_DEVICES];

    (void)state;
    if (!next_case())
        return;
    pair_open(&p);
    pair_tensor(&p, x, 3, 100);
    pair_tensor(&p, y, 3, 100);
    for (int i = 0; i < 6; i++) {
        float fresh[3 * 108];

        random_floats(fresh, COUNT(fresh));
        for (int d = 0; d < PAIR_DEVICES; d++) {
            p.dev[d]->ops->upload(p.dev[d], y[d].data, fresh, 300 * sizeof *fresh);
            for (int j = 0; j < (test_is_slow() ? 20 : 150); j++) {
                p.dev[d]->ops->add(p.dev[d], &x[d], &y[d], 0.5f);
                p.dev[d]->ops->softcap(p.dev[d], &x[d], 2);
            }
        }
        pair_check(&p, 1e-3, "a list that comes again");
    }
    pair_close(&p);
}

/* More than the ring of arguments holds, and than a pinned buffer. */
static void test_memory(void **state)
{
    struct pair p;
    size_t sizes[] = {0, 1, 70, 65536, 65537, (40 << 20) + 3};
    clm_error err = {0};

    (void)state;
    if (!next_case())
        return;
    pair_open(&p);
    for (size_t i = 0; i < COUNT(sizes); i++) {
        device *d = p.dev[PAIR_GPU];
        size_t size = sizes[i];
        uint8_t *from = mem_alloc(size + 1), *back = mem_zeroed(size + 1, 1);
        void *a = d->ops->alloc(d, size + 1, &err), *b = d->ops->alloc(d, size + 1, &err);
        const void *view;

        CHECK(from && back && a && b, "%s", err.message);
        for (size_t j = 0; j < size; j++)
            from[j] = (uint8_t)(j * 7 + j / 251);
        for (int j = 0; j < 30; j++)
            d->ops->upload(d, (char *)a + 1, from, size);
        d->ops->copy(d, b, (char *)a + 1, size);
        d->ops->download(d, back, b, size);
        CHECK(!memcmp(from, back, size), "%zu bytes came back otherwise", size);
        view = d->ops->map(d, from, size, &err);
        CHECK(view && view == d->ops->map(d, from, size, &err), "%zu bytes mapped", size);
        memset(back, 0, size);
        d->ops->download(d, back, view, size);
        CHECK(!memcmp(from, back, size), "%zu mapped bytes came back otherwise", size);
        d->ops->unmap(d, from, size + 1);
        d->ops->free(d, a);
        d->ops->free(d, b);
        mem_free(from);
        mem_free(back);
    }
    CHECK(!p.dev[PAIR_GPU]->ops->alloc(p.dev[PAIR_GPU], (size_t)1 << 50, &err) &&
              err.code == CLM_ERR_NOMEM,
          "%s", err.message);
    pair_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),        cmocka_unit_test(test_rope),
        cmocka_unit_test(test_gather_rows), cmocka_unit_test(test_mix_streams),
        cmocka_unit_test(test_memory),      cmocka_unit_test(test_repeated_lists),
        cmocka_unit_test(test_argmax),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
