/* Sequences of operations of which the CUDA device makes one launch where it may, and of such that
 * look alike and of which it may not, held against the scalar CPU, which does one after another. */
#include "cuda_weights.h"

/* x, n, y, z and more [T, H]; gate and up [T, F] */
enum place { X, N, Y, Z, M, GATE, UP, TENSORS };

enum matrix { SQUARE, OTHER, TO_GATE, TO_UP, DOWN, MATRICES };

/* What a sequence has of one device. */
struct call {
    device *d;
    const struct device_ops *o;
    tensor t[TENSORS];
    struct weight w[MATRICES];
    const float *norm, *bias;
};

static void matmul(const struct call *c, enum place to, enum matrix m, enum place from)
{
    tensor y = c->t[to];
    struct matmul_job job = {.y = &y, .w = &c->w[m], .bias = c->bias};

    c->o->matmul(c->d, &job, 1, &c->t[from]);
}

static void careful(const struct call *c, enum place to, enum matrix m, enum place from)
{
    tensor y = c->t[to];
    struct matmul_job job = {.y = &y, .w = &c->w[m], .bias = c->bias, .careful = true};

    c->o->matmul(c->d, &job, 1, &c->t[from]);
}

/* Two at once, the second without a bias. */
static void matmul2(const struct call *c, enum place a, enum matrix wa, enum place b,
                    enum matrix wb, enum place from)
{
    tensor y[2] = {c->t[a], c->t[b]};
    struct matmul_job jobs[] = {{.y = &y[0], .w = &c->w[wa], .bias = c->bias},
                                {.y = &y[1], .w = &c->w[wb]}};

    c->o->matmul(c->d, jobs, 2, &c->t[from]);
}

/* Three, of which the last has other outputs. */
static void matmul3(const struct call *c, enum place from)
{
    tensor y[3] = {c->t[Y], c->t[Z], c->t[GATE]};
    struct matmul_job jobs[] = {{.y = &y[0], .w = &c->w[SQUARE], .bias = c->bias},
                                {.y = &y[1], .w = &c->w[OTHER]},
                                {.y = &y[2], .w = &c->w[TO_GATE], .bias = c->bias}};

    c->o->matmul(c->d, jobs, 3, &c->t[from]);
}

static void norm(const struct call *c, enum place to, enum place from)
{
    tensor y = c->t[to];

    c->o->rms_norm(c->d, &y, &c->t[from], c->norm, c->t[from].cols, 1e-5f);
}

static void add(const struct call *c, enum place to, enum place from, float scale)
{
    tensor y = c->t[to];

    c->o->add(c->d, &y, &c->t[from], scale);
}

static void glu(const struct call *c, enum place to, enum place gate, enum place up,
                enum activation act)
{
    tensor y = c->t[to];

    c->o->glu(c->d, &y, &c->t[gate], &c->t[up], act);
}

static void scale(const struct call *c, enum place at, float by)
{
    tensor x = c->t[at];

    c->o->scale(c->d, &x, by);
}

#define RUN(name, body)                                                                            \
    static void run_##name(const struct call *c)                                                   \
    {                                                                                              \
        body;                                                                                      \
    }

RUN(block, {
    norm(c, N, X);
    matmul(c, Y, SQUARE, N);
    matmul(c, Z, OTHER, Y);
    add(c, X, Z, 1);
    norm(c, N, X);
    matmul2(c, GATE, TO_GATE, UP, TO_UP, N);
    glu(c, GATE, GATE, UP, ACT_SILU);
    matmul(c, M, DOWN, GATE);
    add(c, X, M, 0.5f);
    norm(c, N, X);
    matmul2(c, Y, SQUARE, Z, OTHER, N);
})
RUN(three, (norm(c, N, X), matmul3(c, N)))
RUN(norm_without_weight, {
    tensor n = c->t[N];

    c->o->rms_norm(c->d, &n, &c->t[X], NULL, n.cols, 1e-5f);
    matmul(c, Y, SQUARE, N);
})
RUN(norm_of_groups, {
    tensor n = c->t[N];

    c->o->rms_norm(c->d, &n, &c->t[X], NULL, n.cols / 2, 1e-5f);
    matmul(c, Y, SQUARE, N);
})
RUN(careful_norm, (norm(c, N, X), careful(c, Y, SQUARE, N), careful(c, Z, OTHER, Y)))
RUN(norm_here, (norm(c, X, X), matmul(c, Y, SQUARE, X)))
RUN(norm_of_output, (norm(c, N, X), matmul(c, X, SQUARE, N)))
RUN(norm_then_change, (norm(c, N, X), scale(c, X, 2), matmul(c, Y, SQUARE, N)))
RUN(norm_then_spoiled, (norm(c, N, X), scale(c, N, 2), matmul(c, Y, SQUARE, N)))
RUN(norm_of_other, (norm(c, N, X), norm(c, Z, Y), matmul(c, M, SQUARE, N)))
RUN(norm_not_read, (norm(c, N, X), matmul(c, Z, SQUARE, Y)))
RUN(norm_twice, (norm(c, N, X), norm(c, Z, N), matmul(c, M, SQUARE, Z)))
RUN(add_norm, (add(c, X, Y, -0.5f), norm(c, N, X), matmul(c, Z, SQUARE, N)))
RUN(add_to_normed, (norm(c, N, X), matmul(c, Y, SQUARE, N), add(c, X, Y, 1)))
RUN(add_to_read, (matmul(c, Y, SQUARE, N), add(c, N, Y, 1), matmul(c, Z, OTHER, N)))
RUN(add_to_output, (matmul(c, Y, SQUARE, N), add(c, Y, X, 1)))
RUN(add_itself, (matmul(c, Y, SQUARE, N), add(c, Y, Y, 0.5f)))
RUN(add_other, (matmul(c, Y, SQUARE, N), add(c, X, Z, 1), add(c, X, Y, 1)))
RUN(add_twice, (matmul(c, Y, SQUARE, N), add(c, X, Y, 1), add(c, X, Y, 1)))
RUN(add_changed, (matmul(c, Y, SQUARE, N), scale(c, Y, 3), add(c, X, Y, 1)))
RUN(add_of_two, (matmul2(c, Y, SQUARE, Z, OTHER, N), add(c, X, Z, 1), add(c, X, Y, 2)))
RUN(add_of_part, {
    tensor to = c->t[Y];
    tensor from = c->t[Z];

    to.data = (float *)to.data + 16;
    to.cols = from.cols = to.cols - 32;
    matmul(c, Z, SQUARE, N);
    c->o->add(c->d, &to, &from, 1);
})
RUN(add_beside, {
    tensor from = c->t[Y];
    tensor to = c->t[Y];

    from.cols = to.cols = to.cols / 2;
    to.data = (float *)to.data + to.cols;
    matmul(c, Y, SQUARE, N);
    c->o->add(c->d, &to, &from, 1);
})
RUN(glu_elsewhere, (matmul2(c, GATE, TO_GATE, UP, TO_UP, N), glu(c, M, GATE, UP, ACT_GELU)))
RUN(glu_into_up, (matmul2(c, GATE, TO_GATE, UP, TO_UP, N), glu(c, UP, GATE, UP, ACT_GELU_TANH)))
RUN(glu_swapped, (matmul2(c, GATE, TO_GATE, UP, TO_UP, N), glu(c, GATE, UP, GATE, ACT_RELU)))
RUN(glu_clamped,
    (matmul2(c, GATE, TO_GATE, UP, TO_UP, N), glu(c, GATE, GATE, UP, ACT_SWIGLU_CLAMPED)))
RUN(glu_changed, {
    matmul2(c, GATE, TO_GATE, UP, TO_UP, N);
    scale(c, GATE, 2);
    glu(c, GATE, GATE, UP, ACT_SIGMOID);
})
RUN(glu_of_itself, (matmul2(c, GATE, TO_GATE, UP, TO_UP, N), glu(c, M, GATE, GATE, ACT_TANH)))
RUN(glu_over_input, (matmul2(c, Y, SQUARE, Z, OTHER, N), glu(c, N, Y, Z, ACT_SILU)))
RUN(glu_normed, {
    norm(c, N, X);
    matmul2(c, Y, SQUARE, Z, OTHER, N);
    glu(c, X, Y, Z, ACT_SILU);
    matmul(c, M, SQUARE, X);
})
RUN(uploaded, {
    float fresh[64];

    for (size_t i = 0; i < COUNT(fresh); i++)
        fresh[i] = (float)i / 64 - 0.5f;
    norm(c, N, X);
    c->o->upload(c->d, c->t[X].data, fresh, 32 * sizeof *fresh);
    matmul(c, Y, SQUARE, N);
    c->o->upload(c->d, c->t[X].data, fresh + 32, 32 * sizeof *fresh);
    add(c, X, Y, 1);
})
RUN(downloaded, {
    float back[32];

    matmul(c, Y, SQUARE, N);
    c->o->download(c->d, back, c->t[Y].data, sizeof back);
    c->o->upload(c->d, c->t[X].data, back, sizeof back);
    add(c, X, Y, 1);
})

static const struct {
    const char *name;
    void (*run)(const struct call *c);
} sequences[] = {
    {"a block", run_block},
    {"three products", run_three},
    {"a norm without weight", run_norm_without_weight},
    {"a norm of groups", run_norm_of_groups},
    {"careful products, of a norm and of another", run_careful_norm},
    {"a norm in place", run_norm_here},
    {"a product over what was normed", run_norm_of_output},
    {"a norm, its x changed", run_norm_then_change},
    {"a norm, changed", run_norm_then_spoiled},
    {"two norms, the product of the first", run_norm_of_other},
    {"a norm, the product of something else", run_norm_not_read},
    {"a norm of a norm", run_norm_twice},
    {"add, norm, product", run_add_norm},
    {"a product added to what was normed", run_add_to_normed},
    {"a product added to what it is of", run_add_to_read},
    {"something added to a product", run_add_to_output},
    {"a product added to itself", run_add_itself},
    {"a product, something else added", run_add_other},
    {"a product added twice", run_add_twice},
    {"a product, changed, added", run_add_changed},
    {"two products, each added", run_add_of_two},
    {"a part of a product, added", run_add_of_part},
    {"a half of a product added to the other", run_add_beside},
    {"glu elsewhere", run_glu_elsewhere},
    {"glu into up", run_glu_into_up},
    {"glu, gate and up swapped", run_glu_swapped},
    {"glu, clamped", run_glu_clamped},
    {"glu of a changed gate", run_glu_changed},
    {"glu of a gate and itself", run_glu_of_itself},
    {"glu over what it is of", run_glu_over_input},
    {"glu over what was normed", run_glu_normed},
    {"uploads between", run_uploaded},
    {"a download between", run_downloaded},
};

/* --- Operands --- */

static const struct weight formats[] = {
    {.format = WEIGHT_BF16},
    {.format = WEIGHT_F16},
    {.format = WEIGHT_F32},
    {.format = WEIGHT_AFFINE, .bits = 4, .group_size = 64, .scale_type = DTYPE_BF16},
    {.format = WEIGHT_AFFINE, .bits = 4, .group_size = 64, .scale_type = DTYPE_F16},
    {.format = WEIGHT_AFFINE, .bits = 8, .group_size = 64, .scale_type = DTYPE_BF16},
    {.format = WEIGHT_AFFINE, .bits = 8, .group_size = 32, .scale_type = DTYPE_F16},
    {.format = WEIGHT_AFFINE, .bits = 3, .group_size = 32, .scale_type = DTYPE_F32},
    {.format = WEIGHT_MXFP4, .bits = 4, .group_size = 32},
};

/* Others, of which a few sequences are enough. */
static const struct weight more_formats[] = {
    {.format = WEIGHT_AFFINE, .bits = 4, .group_size = 128, .scale_type = DTYPE_BF16},
    {.format = WEIGHT_AFFINE, .bits = 8, .group_size = 128, .scale_type = DTYPE_F16},
    {.format = WEIGHT_AFFINE, .bits = 4, .group_size = 32, .scale_type = DTYPE_BF16},
    {.format = WEIGHT_AFFINE, .bits = 8, .group_size = 64, .scale_type = DTYPE_F16},
    {.format = WEIGHT_AFFINE, .bits = 2, .group_size = 64, .scale_type = DTYPE_BF16},
    {.format = WEIGHT_AFFINE, .bits = 5, .group_size = 32, .scale_type = DTYPE_BF16},
    {.format = WEIGHT_AFFINE, .bits = 6, .group_size = 32, .scale_type = DTYPE_F16},
    {.format = WEIGHT_MXFP8, .bits = 8, .group_size = 32},
};

static void make_weights(struct pair *p, struct call calls[PAIR_DEVICES], const struct weight *like,
                         int hidden, int wide)
{
    const int shapes[MATRICES][2] = {
        {hidden, hidden}, {hidden, hidden}, {wide, hidden}, {wide, hidden}, {hidden, wide}};
    struct weight w[MATRICES];
    struct pair_operand *o;
    uint8_t *bytes = NULL;
    size_t size = 0;

    for (int pass = 0; pass < 2; pass++) {
        size_t at = 0;

        for (int i = 0; i < MATRICES; i++)
            w[i] = make_weight(*like, shapes[i][0], shapes[i][1], bytes, &at);
        if (!bytes)
            bytes = mem_zeroed(size = at, 1);
        assert_non_null(bytes);
    }
    o = pair_bytes(p, bytes, size, true);
    mem_free(bytes);
    for (int d = 0; d < PAIR_DEVICES; d++)
        for (int i = 0; i < MATRICES; i++) {
            struct weight *own = &calls[d].w[i];

            *own = w[i];
            own->data = (uint8_t *)o->at[d] + (uintptr_t)w[i].data;
            own->scales = (uint8_t *)o->at[d] + (uintptr_t)w[i].scales;
            own->biases = (uint8_t *)o->at[d] + (uintptr_t)w[i].biases;
        }
}

struct shape {
    int rows, hidden, wide;
};

static void check(struct pair *p, size_t sequence, const struct weight *like, const struct shape *s,
                  bool exact)
{
    struct call calls[PAIR_DEVICES];
    struct pair_operand *weight, *bias;
    char what[200];

    if (!next_case())
        return;
    for (int i = 0; i < TENSORS; i++) {
        tensor t[PAIR_DEVICES];

        /* M is as wide as the others, and as what glu makes. */
        pair_tensor(p, t, s->rows, i == GATE || i == UP ? s->wide : s->hidden);
        for (int d = 0; d < PAIR_DEVICES; d++)
            calls[d].t[i] = t[d];
    }
    weight = pair_numbers(p, (size_t)s->hidden);
    bias = pair_numbers(p, (size_t)(s->hidden > s->wide ? s->hidden : s->wide));
    make_weights(p, calls, like, s->hidden, s->wide);
    for (int d = 0; d < PAIR_DEVICES; d++) {
        struct call *c = &calls[d];

        c->d = p->dev[d];
        c->o = c->d->ops;
        c->norm = weight->at[d];
        c->bias = bias->at[d];
        c->o->set_exact(c->d, exact || d == PAIR_CPU);
        if (s->wide == s->hidden)
            c->t[M].cols = s->wide;
        sequences[sequence].run(c);
    }
    snprintf(what, sizeof what, "%s, %s of %d bits, %d rows of %d and %d%s",
             sequences[sequence].name, weight_format_name(like->format), like->bits, s->rows,
             s->hidden, s->wide, exact ? ", exact" : "");
    /* What two and more products in a row make of halves, or of x in bf16 from 5 rows on. */
    pair_check(p,
               exact || sequences[sequence].run == run_careful_norm ? 2e-5
               : s->rows <= 4                                       ? 1e-3
                                                                    : 4e-2,
               what);
    pair_clear(p);
}

static void test_sequences(void **state)
{
    static const struct shape shapes[] = {{1, 256, 256},  {1, 96, 96},   {1, 2048, 2048},
                                          {2, 128, 128},  {4, 512, 512}, {5, 256, 256},
                                          {13, 256, 256}, {1, 64, 64},   {70, 128, 128}};
    struct pair p;

    (void)state;
    pair_open(&p);
    for (size_t i = 0; i < COUNT(sequences); i++)
        for (size_t f = 0; f < COUNT(formats); f++)
            for (size_t j = 0; j < COUNT(shapes); j++) {
                int step = formats[f].format == WEIGHT_AFFINE ? formats[f].group_size : 32;

                /* Each of the large ones is enough with one format. */
                if (shapes[j].hidden % step || (shapes[j].hidden > 512 && f != i % COUNT(formats)))
                    continue;
                if (shapes[j].rows > 13 && sequences[i].run != run_careful_norm)
                    continue;
                if (test_is_slow() &&
                    (shapes[j].hidden > 512 || (i + j) % COUNT(formats) != f || (i + j) % 2))
                    continue;
                check(&p, i, &formats[f], &shapes[j], false);
                if (j < 2)
                    check(&p, i, &formats[f], &shapes[j], true);
            }
    pair_close(&p);
}

/* A block whose feed-forward is wider, and of outputs that fill no tile. */
static void test_blocks(void **state)
{
    static const struct shape shapes[] = {{1, 256, 1024}, {3, 128, 320},   {1, 1024, 4096},
                                          {1, 768, 2304}, {1, 4608, 5376}, {4, 64, 8192},
                                          {1, 96, 32},    {7, 256, 576}};
    struct pair p;

    (void)state;
    pair_open(&p);
    for (size_t f = 0; f < COUNT(formats); f++)
        for (size_t j = 0; j < COUNT(shapes); j++) {
            int step = formats[f].group_size ? formats[f].group_size : 32;

            if (shapes[j].hidden % step == 0 && shapes[j].wide % step == 0 &&
                (!test_is_slow() || shapes[j].hidden <= 256))
                check(&p, 0, &formats[f], &shapes[j], false);
        }
    pair_close(&p);
}

/* Weights that go by way of shared memory: of many numbers, with one to five rounds of tiles, and
 * warps with one to four spans. */
static void test_rings(void **state)
{
    static const struct shape shapes[] = {{1, 2560, 2816}, {1, 4096, 2304}, {1, 2304, 10240}};
    struct pair p;

    (void)state;
    pair_open(&p);
    for (size_t f = 0; f < COUNT(formats) && !test_is_slow(); f++)
        if (formats[f].group_size == 64)
            for (size_t j = 0; j < COUNT(shapes); j++) {
                check(&p, 0, &formats[f], &shapes[j], false);
                check(&p, 1, &formats[f], &shapes[j], false);
            }
    pair_close(&p);
}

/* Blocks of more rows than a few, of outputs and numbers that fill no tile and no step, and of so
 * many that blocks of a cluster share them. */
static void test_many_rows(void **state)
{
    static const struct shape shapes[] = {{9, 40, 72},     {20, 96, 160},   {33, 320, 1088},
                                          {64, 1032, 520}, {65, 264, 8},    {100, 128, 2048},
                                          {128, 512, 640}, {64, 4096, 512}, {17, 64, 6144}};
    static const struct weight bf16 = {.format = WEIGHT_BF16};
    struct pair p;

    (void)state;
    pair_open(&p);
    for (size_t j = 0; j < COUNT(shapes); j++)
        if (!test_is_slow() || (shapes[j].hidden < 256 && shapes[j].wide <= 2048))
            check(&p, 0, &bf16, &shapes[j], false);
    for (size_t i = 0; i < COUNT(sequences); i += test_is_slow() ? 12 : 1)
        check(&p, i, &bf16, &(struct shape){70, 192, 192}, false);
    pair_close(&p);
}

/* --- Experts --- */

enum { EXPERTS = 6, MAX_CHOSEN = 4 };

/* How experts are chosen: so many of a row, by a router or beforehand; by logits that are there, or
 * by a product of the norm that experts read. */
struct choosing {
    int n;
    bool routed, biased;
    enum router_score score;
    bool headed, tied; /* tied: of equal logits */
};

static void score(const struct call *c, const tensor *raw, tensor *x, const struct weight *router,
                  tensor *logits)
{
    struct matmul_job job = {.y = logits, .w = router, .careful = true};

    c->o->rms_norm(c->d, x, raw, c->bias, x->cols, 1e-5f);
    c->o->matmul(c->d, &job, 1, x);
}

static void choose(const struct call *c, const struct choosing *how, tensor *ids, tensor *weights,
                   const tensor *logits)
{
    struct router_params r = {.score = how->score,
                              .n_experts = EXPERTS,
                              .n_experts_per_token = how->n,
                              .bias = how->biased ? c->bias : NULL,
                              .normalize = how->score == ROUTER_SOFTMAX_ALL,
                              .normalize_floor = 1e-9f,
                              .scale = 1.5f};

    if (how->routed)
        c->o->route(c->d, ids, weights, logits, &r);
}

/* act(gate) up of the experts that each row chose, what others make of it, row by row, and the sum
 * of that by weights, added to something, or something to it. */
static void check_experts(struct pair *p, const struct weight *like, int rows, int hidden, int wide,
                          const struct choosing *how, enum place to)
{
    const int CHOSEN = how->n;
    struct weight w[PAIR_DEVICES][3][EXPERTS];
    struct weight router[PAIR_DEVICES];
    tensor t[TENSORS][PAIR_DEVICES], x[PAIR_DEVICES], raw[PAIR_DEVICES], logits[PAIR_DEVICES];
    struct pair_operand *o, *bias;
    int32_t chosen[7 * MAX_CHOSEN];
    float some[7 * EXPERTS];
    uint8_t *bytes = NULL;
    size_t size = 0;
    char what[100];

    if (!next_case())
        return;
    for (int i = 0; i < rows * CHOSEN; i++)
        chosen[i] = i % CHOSEN ? (chosen[i - 1] + 1 + (int32_t)random_below(3)) % EXPERTS
                               : (int32_t)random_below(EXPERTS);
    for (int i = 0; i < rows * EXPERTS; i++)
        some[i] = i % EXPERTS == 3 ? 2 : i % EXPERTS == 0 ? -1 : 0.5f;
    if (how->tied) {
        o = pair_bytes(p, some, (size_t)(rows * EXPERTS) * sizeof *some, true);
        for (int d = 0; d < PAIR_DEVICES; d++)
            logits[d] = (tensor){o->at[d], DTYPE_F32, rows, EXPERTS, EXPERTS};
    } else {
        pair_tensor(p, logits, rows, EXPERTS);
    }
    o = pair_bytes(p, chosen, (size_t)(rows * CHOSEN) * sizeof *chosen, true);
    pair_tensor(p, x, rows, hidden);
    pair_tensor(p, raw, rows, hidden);
    pair_tensor(p, t[GATE], rows * CHOSEN, wide);
    pair_tensor(p, t[UP], rows * CHOSEN, wide);
    pair_tensor(p, t[Y], rows * CHOSEN, wide);
    pair_tensor(p, t[Z], rows * CHOSEN, hidden);
    pair_tensor(p, t[M], rows, CHOSEN);
    pair_tensor(p, t[N], rows, hidden);
    pair_tensor(p, t[X], rows, hidden);
    bias = pair_numbers(p, (size_t)(wide * EXPERTS > hidden ? wide * EXPERTS : hidden));
    for (int pass = 0; pass < 2; pass++) {
        size_t at = 0;

        for (int e = 0; e < EXPERTS; e++)
            for (int i = 0; i < 3; i++)
                w[0][i][e] =
                    make_weight(*like, i < 2 ? wide : hidden, i < 2 ? hidden : wide, bytes, &at);
        router[0] = make_weight(*like, EXPERTS, hidden, bytes, &at);
        if (!bytes)
            bytes = mem_zeroed(size = at, 1);
        assert_non_null(bytes);
    }
    memcpy(w[1], w[0], sizeof w[0]);
    router[1] = router[0];
    for (int d = 0; d < PAIR_DEVICES; d++) {
        const struct device_ops *ops = p->dev[d]->ops;
        uint8_t *base = ops->alloc(p->dev[d], size, NULL);
        tensor ids = {o->at[d], DTYPE_I32, rows, CHOSEN, CHOSEN};
        struct matmul_job up[2] = {{.y = &t[GATE][d], .w = w[d][0], .bias = bias->at[d]},
                                   {.y = &t[UP][d], .w = w[d][1]}};
        struct matmul_job down = {.y = &t[Z][d], .w = w[d][2]};
        struct call call = {.d = p->dev[d], .o = ops, .bias = bias->at[d]};

        assert_non_null(base);
        ops->upload(p->dev[d], base, bytes, size);
        for (int i = 0; i < 3; i++)
            for (int e = 0; e < EXPERTS; e++)
                move_weight(&w[d][i][e], base);
        move_weight(&router[d], base);
        ops->set_exact(p->dev[d], d == PAIR_CPU);
        if (how->headed)
            score(&call, &raw[d], &x[d], &router[d], &logits[d]);
        choose(&call, how, &ids, &t[M][d], &logits[d]);
        ops->matmul_experts(p->dev[d], up, 2, EXPERTS, &x[d], &ids);
        if (rows == 3)
            ops->glu_alpha(p->dev[d], &t[to][d], &t[GATE][d], &t[UP][d], 1.702f, 7);
        else
            ops->glu(p->dev[d], &t[to][d], &t[GATE][d], &t[UP][d], ACT_SILU);
        ops->matmul_experts(p->dev[d], &down, 1, EXPERTS, &t[to][d], &ids);
        ops->combine_experts(p->dev[d], &t[N][d], &t[Z][d], &t[M][d]);
        ops->add(p->dev[d], to == Y ? &t[N][d] : &t[X][d], to == Y ? &t[X][d] : &t[N][d], 0.5f);
        ops->free(p->dev[d], base);
    }
    mem_free(bytes);
    snprintf(what, sizeof what, "%d experts%s, %s of %d bits, %d rows of %d and %d", CHOSEN,
             how->headed   ? " headed"
             : how->routed ? " routed"
                           : "",
             weight_format_name(like->format), like->bits, rows, hidden, wide);
    pair_check(p, 1e-3, what);
    pair_clear(p);
}

static const struct choosing how[] = {
    {.n = 2},
    {.n = 4, .routed = true, .score = ROUTER_SOFTMAX_ALL},
    {.n = 2, .routed = true, .score = ROUTER_SOFTMAX_SELECTED},
    {.n = 3, .routed = true, .score = ROUTER_SIGMOID},
    {1, true, true, ROUTER_SQRT_SOFTPLUS, false, false},
    {4, true, false, ROUTER_SOFTMAX_ALL, true, false},
    {4, .routed = true, .score = ROUTER_SOFTMAX_ALL, .tied = true}};

static void test_experts(void **state)
{
    static const enum place to[] = {GATE, Y, UP};
    struct pair p;

    (void)state;
    pair_open(&p);
    for (size_t f = 0; f < COUNT(formats); f++)
        for (size_t i = 0; i < COUNT(to) * COUNT(how); i++) {
            const struct choosing *h = &how[i / COUNT(to)];
            enum place at = to[i % COUNT(to)];

            /* One place for each way to choose, and of the rest what has kernels of its own. */
            if (test_is_slow() && i % COUNT(to) != f % COUNT(to))
                continue;
            if (!test_is_slow())
                check_experts(&p, &formats[f], 1, 128, 256, h, at);
            if (!test_is_slow() || h == &how[0])
                check_experts(&p, &formats[f], 1, 64, 2112, h, at);
            check_experts(&p, &formats[f], 1, 256, 768, h, at); /* by bulk copies */
            if (!test_is_slow() || h < &how[2])
                check_experts(&p, &formats[f], 3, 256, 64, h, at);
            if (!test_is_slow() || h == &how[6])
                check_experts(&p, &formats[f], 7, 64, 192, h, at); /* more are grouped */
        }
    /* More stages than there is room for. */
    for (size_t f = 0; f < COUNT(formats) && !test_is_slow(); f++)
        if (formats[f].bits == 8)
            check_experts(&p, &formats[f], 1, 4352, 384, &how[1], Y);
    /* More than one round of tiles, more spans than warps. */
    for (size_t f = 0; f < COUNT(formats); f++)
        if (formats[f].group_size == 64) {
            check_experts(&p, &formats[f], 1, 1024, 4608, &how[5], Y);
            if (!test_is_slow())
                check_experts(&p, &formats[f], 1, 4352, 512, &how[5], GATE);
        }
    pair_close(&p);
}

static void test_more_formats(void **state)
{
    struct pair p;

    (void)state;
    pair_open(&p);
    for (size_t f = 0; f < COUNT(more_formats); f++) {
        const struct weight *like = &more_formats[f];

        check(&p, 0, like, &(struct shape){1, 256, 512}, false);
        check(&p, 0, like, &(struct shape){4, 256, 128}, false);
        check(&p, 0, like, &(struct shape){13, 256, 384}, false);
        if (f < 2)
            check(&p, 0, like, &(struct shape){130, 128, 256}, false);
        check_experts(&p, like, 1, 128, 2176, &how[0], GATE);
        check_experts(&p, like, 1, 256, 768, &how[1], Y);
        check_experts(&p, like, 1, 256, 512, &how[5], UP);
        check_experts(&p, like, 3, 256, 128, &how[2], Y);
    }
    pair_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sequences), cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_rings),     cmocka_unit_test(test_many_rows),
        cmocka_unit_test(test_experts),   cmocka_unit_test(test_more_formats),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
