/* select_keys against its formula, and attend over the keys that are kept against the same sequence
 * with the others taken out. */
#include <float.h>

#include "keyed.h"

static void select_rows(struct world *w, device *d, int first, int n_rows, int n)
{
    struct kv_sequence part = {.n_rows = n_rows, .position = first, .blocks = w->blocks};
    struct kv_batch batch = {&part, 1, n_rows};
    tensor q = {w->q + (size_t)first * HEADS * DIM, DTYPE_F32, n_rows, HEADS * DIM, HEADS * DIM};
    tensor weights = {w->w + (size_t)first * HEADS, DTYPE_F32, n_rows, HEADS, HEADS};
    tensor kept = {w->kept + (size_t)first * WORDS, DTYPE_U32, n_rows, WORDS, WORDS};

    d->ops->select_keys(d, &kept, &q, &weights, &w->kv, &batch, n);
    assert_int_equal(d->ops->sync(d, NULL), 0);
}

static bool is_kept(const struct world *w, int row, int key)
{
    return w->kept[row * WORDS + key / 32] >> key % 32 & 1;
}

/* As many as there may be; none that is left out is better than one that is kept, beyond rounding.
 */
static void check_row(const struct world *w, int row, int n)
{
    double worst = HUGE_VAL, best_left = -HUGE_VAL;
    int count = 0;

    for (int key = 0; key <= row; key++) {
        double s = score(w, row, key);

        count += is_kept(w, row, key);
        if (is_kept(w, row, key))
            worst = fmin(worst, s);
        else
            best_left = fmax(best_left, s);
    }
    CHECK(count == (n < row + 1 ? n : row + 1), "row %d: %d keys, not %d", row, count, n);
    CHECK(best_left <= worst + HEADS * DIM * (double)FLT_EPSILON, "row %d: %g left, %g kept", row,
          best_left, worst);
}

static void check_select(int threads, enum dtype type)
{
    static const int counts[] = {1, 2, 7, 31, 64, 149, 150, 400};
    static struct world w;
    uint32_t whole[TOKENS * WORDS];
    device *d = open_cpu(threads, true);

    make_world_of(&w, d, type);
    for (size_t i = 0; i < COUNT(counts); i++) {
        select_rows(&w, d, 0, TOKENS, counts[i]);
        for (int row = 0; row < TOKENS; row++)
            check_row(&w, row, counts[i]);
        memcpy(whole, w.kept, sizeof whole);
        for (int row = 0; row < TOKENS; row += 13)
            select_rows(&w, d, row, 1, counts[i]);
        CHECK(memcmp(whole, w.kept, sizeof whole) == 0, "rows alone choose other keys");
    }
    d->ops->close(d);
}

/* Exact, whatever the keys' type. */
static void test_select(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 2; threads++) {
        check_select(threads, DTYPE_F32);
        check_select(threads, DTYPE_F16);
        check_select(threads, DTYPE_BF16);
    }
}

/* Equal scores: the latest keys. */
static void test_ties(void **state)
{
    static struct world w;
    device *d = open_cpu(1, true);

    (void)state;
    make_world(&w, d);
    memset(w.q, 0, sizeof w.q);
    select_rows(&w, d, 0, TOKENS, 5);
    for (int row = 10; row < TOKENS; row++)
        for (int key = 0; key <= row; key++)
            CHECK(is_kept(&w, row, key) == (key > row - 5), "row %d, key %d", row, key);
    d->ops->close(d);
}

/* Blocks of 7 keys: each head's 4, by the best key in each, the row's own and the one before among
 * them. */
static void select_row_blocks(struct world *w, device *d, int first, int n_rows)
{
    struct kv_sequence part = {.n_rows = n_rows, .position = first, .blocks = w->blocks};
    struct kv_batch batch = {&part, 1, n_rows};
    tensor q = {w->q + (size_t)first * HEADS * DIM, DTYPE_F32, n_rows, HEADS * DIM, HEADS * DIM};
    tensor kept = {w->sets + (size_t)first * HEADS * WORDS, DTYPE_U32, n_rows, HEADS * WORDS,
                   HEADS * WORDS};

    d->ops->select_blocks(d, &kept, &q, &w->kv, &batch, 4, 7, 2);
    assert_int_equal(d->ops->sync(d, NULL), 0);
}

static bool sees_set(const struct world *w, int row, int head, int key)
{
    return w->sets[(row * HEADS + head) * WORDS + key / 32] >> key % 32 & 1;
}

/* The best score of the keys of a block that a row sees. */
static double block_score(const struct world *w, int row, int head, int block)
{
    double best = (double)-INFINITY;

    for (int key = 7 * block; key < 7 * block + 7 && key <= row; key++)
        best = fmax(best, head_score(w, row, head, key));
    return best;
}

static void check_blocks(const struct world *w, int row, int head)
{
    int n_blocks = row / 7 + 1, n_kept = 0;
    double worst = (double)INFINITY, best_left = (double)-INFINITY;

    for (int b = 0; b < n_blocks; b++) {
        bool kept = sees_set(w, row, head, 7 * b), local = n_blocks - b <= 2;

        n_kept += kept;
        CHECK(kept || !local, "row %d, head %d: block %d is not seen", row, head, b);
        for (int key = 7 * b; key < 7 * b + 7 && key <= row; key++)
            CHECK(sees_set(w, row, head, key) == kept, "row %d, head %d: half of block %d", row,
                  head, b);
        if (kept && !local)
            worst = fmin(worst, block_score(w, row, head, b));
        else if (!kept)
            best_left = fmax(best_left, block_score(w, row, head, b));
    }
    CHECK(n_kept == (n_blocks < 4 ? n_blocks : 4), "row %d, head %d: %d blocks", row, head, n_kept);
    CHECK(best_left <= worst + DIM * (double)FLT_EPSILON, "row %d, head %d: %g left, %g kept", row,
          head, best_left, worst);
}

static void test_blocks(void **state)
{
    static struct world w;
    static uint32_t whole[COUNT(w.sets)];
    device *d = open_cpu(2, true);

    (void)state;
    make_world(&w, d);
    select_row_blocks(&w, d, 0, TOKENS);
    for (int row = 0; row < TOKENS; row++)
        for (int head = 0; head < HEADS; head++)
            check_blocks(&w, row, head);
    memcpy(whole, w.sets, sizeof whole);
    for (int row = 0; row < TOKENS; row += 3)
        select_row_blocks(&w, d, row, 3);
    CHECK(memcmp(whole, w.sets, sizeof whole) == 0, "rows alone choose other blocks");
    d->ops->close(d);
}

/* Which keys a head of a row sees. */
typedef bool (*sees_fn)(const struct world *w, int row, int head, int key);

static bool sees_kept(const struct world *w, int row, int head, int key)
{
    (void)head;
    return is_kept(w, row, key);
}

/* Blocks of 8: the row's own, the one before, and every fifth, two further for each head. */
static bool sees_blocks(const struct world *w, int row, int head, int key)
{
    (void)w;
    return row / 8 - key / 8 < 2 || (key / 8 + 2 * head + 1) % 5 == 0;
}

/* softmax over the keys seen, in double precision. */
static void check_attend(struct world *w, device *d, struct attend_params p, sees_fn sees)
{
    static float y[TOKENS * HEADS * DIM];
    struct kv_sequence all = {.n_rows = TOKENS, .blocks = w->blocks};
    struct kv_batch batch = {&all, 1, TOKENS};
    tensor q = {w->q, DTYPE_F32, TOKENS, HEADS * DIM, HEADS * DIM};
    tensor ty = {y, DTYPE_F32, TOKENS, HEADS * DIM, HEADS * DIM};

    p.n_heads = HEADS;
    p.scale = 0.3f;
    d->ops->attend(d, &ty, &q, &w->kv, &batch, &p);
    assert_int_equal(d->ops->sync(d, NULL), 0);
    for (int row = 0; row < TOKENS * HEADS; row++) {
        double want[DIM] = {0}, sum = 0;

        for (int key = 0; key <= row / HEADS; key++) {
            double dot = 0, weight;

            for (int i = 0; i < DIM; i++)
                dot += (double)w->q[row * DIM + i] * (double)w->k[key * DIM + i];
            weight = sees(w, row / HEADS, row % HEADS, key) ? exp((double)p.scale * dot) : 0;
            sum += weight;
            for (int i = 0; i < DIM; i++)
                want[i] += weight * (double)w->v[key * DIM + i];
        }
        for (int i = 0; i < DIM; i++)
            CHECK(fabs((double)y[row * DIM + i] - want[i] / sum) < 40 * (double)FLT_EPSILON,
                  "row %d, %d: %g, expected %g", row, i, (double)y[row * DIM + i], want[i] / sum);
    }
}

static void test_attend_kept(void **state)
{
    static struct world w;
    tensor kept = {w.kept, DTYPE_U32, TOKENS, WORDS, WORDS};
    tensor sets = {w.sets, DTYPE_U32, TOKENS, HEADS * WORDS, HEADS * WORDS};
    struct attend_params blocks = {
        .block_size = 8, .local_blocks = 2, .block_stride = 5, .block_step = 2};
    device *d = open_cpu(2, true);

    (void)state;
    make_world(&w, d);
    for (int exact = 0; exact < 2; exact++) {
        d->ops->set_exact(d, exact);
        select_rows(&w, d, 0, TOKENS, 4);
        check_attend(&w, d, (struct attend_params){.kept = &kept}, sees_kept);
        check_attend(&w, d, blocks, sees_blocks);
        select_row_blocks(&w, d, 0, TOKENS);
        check_attend(&w, d, (struct attend_params){.kept = &sets, .kept_sets = HEADS}, sees_set);
    }
    d->ops->close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_select),
        cmocka_unit_test(test_ties),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_attend_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
