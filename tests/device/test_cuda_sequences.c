/* The operations of the CUDA device that work on sequences, held against the scalar CPU: recurrent
 * mixers, the paged cache, attention, choices of keys. */
#include "cuda_cache.h"

/* Rows of a batch by sequence, and tokens that came before. */
static const int n_rows[][N] = {{1, 1, 1, 1}, {5, 0, 1, 9}, {37, 2, 0, 1}};
static const int before[][N] = {{3, 0, 65, 130}, {0, 4, 17, 33}, {0, 90, 2, 1}};

/* --- States --- */

struct state_call {
    struct state_sequence sequences[N];
    struct state_batch batch;
};

/* States of so many numbers, at an offset; the first sequence begins. */
static void make_states(struct pair *p, struct state_call c[PAIR_DEVICES], const int rows[N],
                        size_t numbers, size_t offset)
{
    size_t size = numbers * sizeof(float) + offset;
    struct pair_operand *from = pair_numbers(p, N * size / sizeof(float));
    struct pair_operand *to = pair_numbers(p, N * size / sizeof(float));

    for (int d = 0; d < PAIR_DEVICES; d++) {
        int row = 0;

        for (int i = 0; i < N; row += rows[i], i++)
            c[d].sequences[i] = (struct state_sequence){
                .row = row,
                .n_rows = rows[i],
                .from = i ? (char *)from->at[d] + (size_t)i * size : NULL,
                .to = (char *)to->at[d] + (size_t)i * size,
            };
        c[d].batch = (struct state_batch){c[d].sequences, N, row};
    }
}

static void check_channels(struct pair *p, const int rows[N], int channels, int width)
{
    int t = sum(rows);
    struct state_call s[PAIR_DEVICES];
    tensor x[PAIR_DEVICES], y[PAIR_DEVICES], gate[PAIR_DEVICES];
    struct pair_operand *w, *bias, *positions;

    if (!next_case())
        return;
    make_states(p, s, rows, (size_t)(2 * width * channels), 8);
    pair_tensor(p, x, t, channels);
    pair_tensor(p, y, t, channels);
    pair_tensor(p, gate, t, channels);
    w = pair_numbers(p, (size_t)(channels * width));
    bias = pair_numbers(p, (size_t)channels);
    positions = pair_ids(p, (size_t)t, 1);
    for (int d = 0; d < PAIR_DEVICES; d++) {
        const struct device_ops *o = p->dev[d]->ops;

        o->causal_conv(p->dev[d], &y[d], &x[d], w->at[d], bias->at[d], width, ACT_SILU, &s[d].batch,
                       8);
    }
    pair_check(p, 2e-6, "causal_conv");
    for (int d = 0; d < PAIR_DEVICES; d++)
        p->dev[d]->ops->causal_conv(p->dev[d], &x[d], &x[d], w->at[d], NULL, width, ACT_NONE,
                                    &s[d].batch, 8);
    pair_check(p, 2e-6, "causal_conv in place");
    for (int d = 0; d < PAIR_DEVICES && width > 1; d++)
        p->dev[d]->ops->causal_pool(p->dev[d], &y[d], &x[d], &gate[d], positions->at[d], width,
                                    &s[d].batch, 8);
    pair_check(p, 2e-6, "causal_pool");
    pair_clear(p);
}

static void check_scans(struct pair *p, const int rows[N], int channels, int size)
{
    int t = sum(rows);
    struct state_call s[PAIR_DEVICES];
    tensor x[PAIR_DEVICES], y[PAIR_DEVICES], dt[PAIR_DEVICES], b[PAIR_DEVICES], c[PAIR_DEVICES];
    struct pair_operand *a, *skip;

    if (!next_case())
        return;
    make_states(p, s, rows, (size_t)(channels * size), 4);
    pair_tensor(p, x, t, channels);
    pair_tensor(p, y, t, 3 * channels);
    pair_tensor(p, dt, t, channels);
    pair_tensor(p, b, t, size);
    pair_tensor(p, c, t, size);
    a = pair_numbers(p, (size_t)(channels * size));
    skip = pair_numbers(p, (size_t)channels);
    for (int d = 0; d < PAIR_DEVICES; d++) {
        const struct device_ops *o = p->dev[d]->ops;
        tensor own = y[d];

        o->activate(p->dev[d], &dt[d], &dt[d], ACT_RELU);
        o->scale(p->dev[d], &dt[d], -0.5f);
        o->exponential_gates(p->dev[d], &y[d], &x[d], &dt[d], &s[d].batch, 4);
        own.cols = channels;
        o->selective_scan(p->dev[d], &own, &x[d], &dt[d], &b[d], &c[d], a->at[d], skip->at[d],
                          &s[d].batch, 4);
    }
    pair_check(p, 2e-5, "exponential_gates, selective_scan");
    for (int d = 0; d < PAIR_DEVICES; d++)
        p->dev[d]->ops->gated_scan(p->dev[d], &x[d], &x[d], &dt[d], &s[d].batch, 4);
    pair_check(p, 2e-5, "gated_scan");
    pair_clear(p);
}

static void check_recurrence(struct pair *p, const int rows[N], enum recurrence_rule rule,
                             const int dims[4], int decay_cols)
{
    int t = sum(rows), heads = dims[0], key_heads = dims[1], keys = dims[2], values = dims[3];
    struct state_call s[PAIR_DEVICES];
    tensor q[PAIR_DEVICES], k[PAIR_DEVICES], v[PAIR_DEVICES], w[PAIR_DEVICES], beta[PAIR_DEVICES];
    tensor a[PAIR_DEVICES], b[PAIR_DEVICES];
    struct pair_operand *skip;

    if (!next_case())
        return;
    make_states(p, s, rows, (size_t)(heads * keys * values), 16);
    pair_tensor(p, q, t, key_heads * keys);
    pair_tensor(p, k, t, key_heads * keys);
    pair_tensor(p, v, t, heads * values);
    pair_tensor(p, w, t, decay_cols);
    pair_tensor(p, beta, t, heads);
    pair_tensor(p, a, t, heads * keys);
    pair_tensor(p, b, t, heads * keys);
    skip = pair_numbers(p, (size_t)heads);
    for (int d = 0; d < PAIR_DEVICES; d++) {
        struct recurrence_params r = {
            .rule = rule,
            .n_heads = heads,
            .n_key_heads = key_heads,
            .key_dim = keys,
            .value_dim = values,
            .q = &q[d],
            .k = &k[d],
            .v = &v[d],
            .decay = decay_cols == heads + 1 ? NULL : &w[d],
            .head_decay = decay_cols == heads + 1 ? skip->at[d] : NULL,
            .beta = &beta[d],
            .a = rule == RECUR_RWKV7 ? &a[d] : NULL,
            .b = rule == RECUR_RWKV7 ? &b[d] : NULL,
            .skip = skip->at[d],
        };
        const struct device_ops *o = p->dev[d]->ops;

        /* Small enough that states stay in range. */
        o->scale(p->dev[d], &k[d], 0.2f);
        o->scale(p->dev[d], &a[d], 0.2f);
        o->recurrence(p->dev[d], &v[d], &r, &s[d].batch, 16);
    }
    pair_check(p, 2e-4, "recurrence");
    pair_clear(p);
}

static void test_states(void **state)
{
    static const int dims[][4] = {{2, 2, 3, 5}, {4, 2, 32, 64}, {3, 1, 128, 40}};
    struct pair p;

    (void)state;
    pair_open(&p);
    for (size_t i = 0; i < COUNT(n_rows); i++) {
        check_channels(&p, n_rows[i], 5, 1);
        check_channels(&p, n_rows[i], 300, 4);
        check_scans(&p, n_rows[i], 7, 3);
        check_scans(&p, n_rows[i], 130, 40);
        for (size_t j = 0; j < COUNT(dims) && (j == i || !test_is_slow()); j++)
            for (int rule = 0; rule < RECUR_RULES; rule++) {
                check_recurrence(&p, n_rows[i], (enum recurrence_rule)rule, dims[j], dims[j][0]);
                check_recurrence(&p, n_rows[i], (enum recurrence_rule)rule, dims[j],
                                 dims[j][0] + 1);
                check_recurrence(&p, n_rows[i], (enum recurrence_rule)rule, dims[j],
                                 dims[j][0] * dims[j][2]);
            }
    }
    pair_close(&p);
}

/* --- The cache --- */

/* Keys and values, and how rows look at them. */
struct attend_case {
    struct kv_layer kv;
    int n_heads;
    struct attend_params params;
    bool slopes, sinks;
};

static const struct attend_case attend_cases[] = {
    {{.type = DTYPE_F32, .n_kv_heads = 2, .k_dim = 16, .v_dim = 16}, 4, {0}, false, false},
    {{.type = DTYPE_F16, .n_kv_heads = 1, .k_dim = 64, .v_dim = 40},
     3,
     {.window = 20},
     false,
     true},
    {{.type = DTYPE_BF16, .n_kv_heads = 4, .k_dim = 80, .v_dim = 80},
     8,
     {.softcap = 3},
     false,
     false},
    {{.type = DTYPE_F16, .n_kv_heads = 2, .k_dim = 33, .v_dim = 7},
     8,
     {.tiled = true, .chunk = 24},
     true,
     false},
    {{.type = DTYPE_F32, .n_kv_heads = 2, .k_dim = 64, .v_dim = 64, .bits = 4, .group_size = 32},
     4,
     {0},
     false,
     false},
    {{.type = DTYPE_F16, .n_kv_heads = 1, .k_dim = 80, .v_dim = 48, .bits = 8, .group_size = 64},
     2,
     {0},
     false,
     true},
    {{.type = DTYPE_F32, .n_kv_heads = 2, .k_dim = 8, .v_dim = 8},
     4,
     {.block_size = 8, .local_blocks = 2, .block_stride = 3, .block_step = 1},
     false,
     false},
    {{.type = DTYPE_F32, .n_kv_heads = 1, .k_dim = 8, .v_dim = 8, .n_first = 4, .n_last = 30},
     2,
     {0},
     false,
     false},
};

static void check_attend(struct pair *p, const struct attend_case *a, const int rows[N],
                         const int past[N])
{
    struct cache_call c[PAIR_DEVICES];
    tensor q[PAIR_DEVICES], y[PAIR_DEVICES], logs[PAIR_DEVICES];
    struct pair_operand *heads;

    if (!next_case())
        return;
    cache_make(p, c, &a->kv, rows, past);
    cache_store(p, c, rows, past);
    pair_tensor(p, q, sum(rows), a->n_heads * a->kv.k_dim);
    pair_tensor(p, y, sum(rows), a->n_heads * a->kv.v_dim);
    pair_tensor(p, logs, sum(rows), a->n_heads);
    heads = pair_numbers(p, (size_t)a->n_heads);
    for (int d = 0; d < PAIR_DEVICES; d++) {
        struct attend_params params = a->params;

        params.n_heads = a->n_heads;
        params.scale = 0.3f;
        params.slopes = a->slopes ? heads->at[d] : NULL;
        params.sinks = a->sinks ? heads->at[d] : NULL;
        params.log_sums = &logs[d];
        p->dev[d]->ops->attend(p->dev[d], &y[d], &q[d], &c[d].kv, &c[d].batch, &params);
    }
    pair_check(p, 2e-5, "attend");
    cache_drop(p, c);
}

static void test_attend(void **state)
{
    struct pair p;

    (void)state;
    pair_open(&p);
    for (size_t i = 0; i < COUNT(attend_cases); i++)
        for (size_t j = 0; j < COUNT(n_rows); j++)
            check_attend(&p, &attend_cases[i], n_rows[j], before[j]);
    pair_close(&p);
}

/* Of so many keys at most; all three ways. */
static void check_select(struct pair *p, const int rows[N], const int past[N], int n)
{
    enum { HEADS = 3, DIM = 20, WORDS = 8 };
    const struct kv_layer like = {.type = DTYPE_F32, .n_kv_heads = 1, .k_dim = DIM, .v_dim = 4};
    struct cache_call c[PAIR_DEVICES];
    tensor q[PAIR_DEVICES], w[PAIR_DEVICES];
    struct pair_operand *kept, *candidates;

    if (!next_case())
        return;
    kept = pair_ids(p, (size_t)(sum(rows) * WORDS * HEADS), 2);
    candidates = pair_ids(p, (size_t)(sum(rows) * WORDS), 2);
    cache_make(p, c, &like, rows, past);
    cache_store(p, c, rows, past);
    pair_tensor(p, q, sum(rows), HEADS * DIM);
    pair_tensor(p, w, sum(rows), HEADS);
    for (int way = 0; way < 4; way++) {
        for (int d = 0; d < PAIR_DEVICES; d++) {
            const struct device_ops *o = p->dev[d]->ops;
            tensor one = {kept->at[d], DTYPE_U32, sum(rows), WORDS, WORDS};
            tensor sets = {kept->at[d], DTYPE_U32, sum(rows), WORDS * HEADS, WORDS * HEADS};
            tensor some = {candidates->at[d], DTYPE_U32, sum(rows), WORDS, WORDS};
            struct pooled_choice choice = {n, 3, way == 2 ? 2 : 0, 4, &some};

            if (way == 0)
                o->select_keys(p->dev[d], &one, &q[d], &w[d], &c[d].kv, &c[d].batch, n);
            else if (way == 1)
                o->select_blocks(p->dev[d], &sets, &q[d], &c[d].kv, &c[d].batch, n, 5, 2);
            else
                o->select_pooled(p->dev[d], &one, &q[d], &w[d], &c[d].kv, &c[d].batch, &choice);
        }
        pair_check(p, 0, "select");
    }
    cache_drop(p, c);
}

static void test_select(void **state)
{
    struct pair p;

    (void)state;
    pair_open(&p);
    for (size_t j = 0; j < COUNT(n_rows); j++)
        for (int n = 2; n < 40; n += 7)
            check_select(&p, n_rows[j], before[j], n);
    pair_close(&p);
}

/* --- Experts --- */

static void check_route(struct pair *p, struct router_params r, int rows)
{
    tensor logits[PAIR_DEVICES], weights[PAIR_DEVICES], rest[PAIR_DEVICES], x[PAIR_DEVICES];
    tensor y[PAIR_DEVICES];
    struct pair_operand *ids, *bias, *scales;
    int k = r.n_experts_per_token;

    if (!next_case())
        return;
    pair_tensor(p, logits, rows, r.n_experts);
    pair_tensor(p, weights, rows, k);
    pair_tensor(p, rest, rows, 1);
    pair_tensor(p, x, rows * k, 50);
    pair_tensor(p, y, rows, 50);
    ids = pair_ids(p, (size_t)(rows * k), 1);
    bias = pair_numbers(p, (size_t)r.n_experts);
    scales = pair_numbers(p, (size_t)r.n_experts);
    for (int d = 0; d < PAIR_DEVICES; d++) {
        const struct device_ops *o = p->dev[d]->ops;
        tensor chosen = {ids->at[d], DTYPE_I32, rows, k, k};
        struct router_params params = r;

        params.bias = r.n_groups == 1 ? bias->at[d] : NULL;
        o->route(p->dev[d], &chosen, &weights[d], &logits[d], &params);
        o->scale_chosen(p->dev[d], &weights[d], &chosen, scales->at[d]);
        o->combine_experts(p->dev[d], &y[d], &x[d], &weights[d]);
        if (r.n_experts >= 2 * k)
            o->zero_experts(p->dev[d], &chosen, &weights[d], &rest[d], r.n_experts - k);
    }
    pair_check(p, 3e-6, "route");
    pair_clear(p);
}

static void test_route(void **state)
{
    struct pair p;

    (void)state;
    pair_open(&p);
    for (int score = 0; score <= ROUTER_SPARSE_MIXER; score++)
        for (int groups = 0; groups <= 4; groups += groups ? 3 : 1)
            for (int experts = 4; experts <= 256; experts *= 4)
                check_route(&p,
                            (struct router_params){.score = (enum router_score)score,
                                                   .n_experts = experts,
                                                   .n_experts_per_token = experts < 16 ? 2 : 8,
                                                   .n_groups = groups,
                                                   .n_groups_kept = groups == 4 ? 2 : groups,
                                                   .group_by_max = experts < 16,
                                                   .normalize = score % 2,
                                                   .normalize_eps = 1e-20f,
                                                   .scale = 2.5f,
                                                   .jitter = 0.1f},
                            7);
    pair_close(&p);
}

static void test_ids(void **state)
{
    struct pair p;
    struct pair_operand *ids, *past, *bounded, *hashed;

    (void)state;
    if (!next_case())
        return;
    pair_open(&p);
    ids = pair_ids(&p, 300, 1000);
    past = pair_ids(&p, 900, 1000);
    bounded = pair_ids(&p, 300, 1);
    hashed = pair_ids(&p, 300, 1);
    for (int d = 0; d < PAIR_DEVICES; d++) {
        p.dev[d]->ops->bound_ids(p.dev[d], bounded->at[d], ids->at[d], 300, 400);
        p.dev[d]->ops->ngram_ids(p.dev[d], hashed->at[d], ids->at[d], past->at[d], 300, 3, 2, 1000,
                                 99991);
    }
    pair_check(&p, 0, "ids");
    pair_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_states), cmocka_unit_test(test_attend), cmocka_unit_test(test_select),
        cmocka_unit_test(test_route),  cmocka_unit_test(test_ids),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
