/* Attention on the GPU's matrix unit, as it is without --exact, held against the scalar CPU on
 * random shapes. */
#include "cuda_cache.h"

static int pick(const int *from, size_t n)
{
    return from[random_below(n)];
}

/* Caches of halves or codes, heads of most sizes, of latents where rows are few. n_heads: of keys;
 * 0: few, by chance. */
static struct kv_layer random_layer(bool few, int n_heads)
{
    static const int dims[] = {8, 16, 40, 64, 64, 72, 80, 96, 128, 128, 128, 192, 256};
    static const int heads[] = {1, 2, 3}, tokens[] = {16, 32, 64}, groups[] = {32, 64};
    struct kv_layer kv = {
        .type = random_below(2) ? DTYPE_BF16 : DTYPE_F16,
        .n_kv_heads = n_heads ? n_heads : pick(heads, COUNT(heads)),
        .k_dim = pick(dims, COUNT(dims)),
        .block_tokens = pick(tokens, COUNT(tokens)),
    };

    kv.v_dim = random_below(4) ? kv.k_dim : pick(dims, COUNT(dims));
    if (few && !n_heads && random_below(4) == 0) {
        kv.n_kv_heads = 1;
        kv.k_dim = random_below(2) ? 576 : 264 + 8 * (int)random_below(39);
        kv.v_dim = random_below(2) ? 512 : 8 + 8 * (int)random_below(64);
        return kv;
    }
    if (random_below(4) == 0) {
        kv.bits = random_below(2) ? 4 : 8;
        kv.group_size = pick(groups, COUNT(groups));
        kv.k_dim = (kv.k_dim + 15) / 16 * 16;
        kv.v_dim = (kv.v_dim + 15) / 16 * 16;
    } else if (random_below(6) == 0) {
        kv.n_first = 4;
        kv.n_last = 70;
    }
    return kv;
}

/* What a row sees, and what becomes of scores; some of it at a time. */
static struct attend_params random_params(const struct kv_layer *kv)
{
    static const int groups[] = {1, 2, 4, 7, 16, 40};
    struct attend_params a = {
        .n_heads = kv->n_kv_heads * pick(groups, COUNT(groups) - (kv->k_dim <= 256)),
        .tiled = random_below(3) == 0,
        .scale = 1 / sqrtf((float)kv->k_dim),
    };

    if (random_below(3) == 0)
        a.window = 1 + (int)random_below(200);
    if (random_below(5) == 0)
        a.chunk = 100;
    if (random_below(5) == 0)
        a.softcap = 2;
    if (random_below(8) == 0 && kv->n_last == 0) {
        a.block_size = 8;
        a.local_blocks = 2;
        a.block_stride = 3;
        a.block_step = 1;
    }
    return a;
}

/* Queries are rounded to the cache's type where there are many, which moves a score by no more than
 * the type's epsilon of scale |q| |k|, here some 2 at most; weights are, of numbers below 1. What
 * is made of codes is rounded to the type twice, of numbers up to 2. */
static void check(struct pair *p, const int rows[N], const int past[N], int n_heads)
{
    struct kv_layer kv = random_layer(sum(rows) < 100, n_heads);
    struct attend_params params = random_params(&kv);
    struct cache_call c[PAIR_DEVICES];
    tensor q[PAIR_DEVICES], y[PAIR_DEVICES], logs[PAIR_DEVICES];
    struct pair_operand *heads, *kept;
    enum { WORDS = 48 };
    bool slopes = !(params.softcap > 0) && random_below(4) == 0, sinks = random_below(3) == 0;
    bool chosen = random_below(6) == 0;
    char what[256];

    cache_make(p, c, &kv, rows, past);
    cache_store(p, c, rows, past);
    pair_tensor(p, q, sum(rows), params.n_heads * kv.k_dim);
    pair_tensor(p, y, sum(rows), params.n_heads * kv.v_dim);
    pair_tensor(p, logs, sum(rows), params.n_heads);
    heads = pair_numbers(p, (size_t)params.n_heads);
    kept = pair_numbers(p, (size_t)sum(rows) * WORDS);
    for (int d = 0; d < PAIR_DEVICES; d++) {
        tensor choice = {kept->at[d], DTYPE_U32, sum(rows), WORDS, WORDS};

        params.slopes = slopes ? heads->at[d] : NULL;
        params.sinks = sinks ? heads->at[d] : NULL;
        params.kept = chosen ? &choice : NULL;
        params.log_sums = &logs[d];
        p->dev[d]->ops->attend(p->dev[d], &y[d], &q[d], &c[d].kv, &c[d].batch, &params);
    }
    snprintf(what, sizeof what,
             "attend %s %d/%d bits %d heads %d/%d tiled %d window %d chunk %d softcap %g blocks %d "
             "last %d slopes %d sinks %d kept %d rows %d %d %d %d behind %d %d %d %d",
             kv.type == DTYPE_F16 ? "f16" : "bf16", kv.k_dim, kv.v_dim, kv.bits, params.n_heads,
             kv.n_kv_heads, params.tiled, params.window, params.chunk, (double)params.softcap,
             params.block_size, kv.n_last, slopes, sinks, chosen, rows[0], rows[1], rows[2],
             rows[3], past[0], past[1], past[2], past[3]);
    pair_check(p, (kv.type == DTYPE_F16 ? 2e-3 : 1.5e-2) * (kv.bits ? 2 : 1), what);
    cache_drop(p, c);
}

static void test_attend(void **state)
{
    const int n_tries = test_is_slow() ? 30 : 120;
    struct pair p;

    (void)state;
    pair_open(&p);
    p.dev[PAIR_GPU]->ops->set_exact(p.dev[PAIR_GPU], false);
    for (int i = 0; i < n_tries; i++) {
        int most = i % 3 == 0 ? 2 : i % 3 == 1 ? 30 : 200, rows[N], past[N];

        if (!next_case())
            continue;
        for (int j = 0; j < N; j++) {
            rows[j] = (int)random_below((size_t)most + 1);
            past[j] = random_below(2) ? (int)random_below(250) : 0;
        }
        rows[0]++;
        if (most == 2)
            past[0] += (int)random_below(650); /* of keys for more blocks than a cluster has */
        check(&p, rows, past, 0);
    }
    pair_close(&p);
}

/* Of so many heads of keys that tiles of halves come by way of rings; sequences end in other tiles.
 */
static void test_many_heads(void **state)
{
    const int n_tries = test_is_slow() ? 6 : 24;
    struct pair p;

    (void)state;
    pair_open(&p);
    p.dev[PAIR_GPU]->ops->set_exact(p.dev[PAIR_GPU], false);
    for (int i = 0; i < n_tries; i++) {
        int rows[N], past[N];

        if (!next_case())
            continue;
        for (int j = 0; j < N; j++) {
            rows[j] = 1 + (i % 8 == 7 ? (int)random_below(3) : 0);
            past[j] = 1 + (int)random_below(i % 2 ? 300 : 30);
        }
        past[i % N] += 130 + (int)random_below(400);
        check(&p, rows, past, 34 + (int)random_below(60));
    }
    pair_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_attend),
                                       cmocka_unit_test(test_many_heads)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
