/* What attention to pooled keys is made of, against its formulas: pooling, rounding in blocks, the
 * choice among pooled keys, logarithms of denominators; and the mixing of streams beside it. */
#include <float.h>

#include "keyed.h"

enum { COLS = 300 };

/* The value nearest to x, by trying them all; of two as near the one with an even code. */
static double nearest(double x, const double *values, int n)
{
    double best = 0, distance = (double)INFINITY;

    for (int i = 0; i < n; i++) {
        double away = fabs(fabs(x) - values[i]);

        if (away < distance || (away == distance && i % 2 == 0)) {
            distance = away;
            best = values[i];
        }
    }
    return copysign(best, x);
}

static int make_e4m3(double *values)
{
    int n = 0;

    for (int code = 0; code < 127; code++) /* 127 is no number */
        values[n++] = code < 8 ? ldexp(code, -9) : ldexp(8 + code % 8, code / 8 - 10);
    return n;
}

struct values {
    const double *of_block, *of_scale; /* of_scale NULL: powers of two */
    int n, n_of_scale;
    double floor; /* of the largest magnitude */
};

static double scale_of(const float *x, int size, const struct values *v)
{
    double most = v->floor;

    for (int i = 0; i < size; i++)
        if (fabs((double)x[i]) > most)
            most = fabs((double)x[i]);
    most = (double)(float)(most / v->of_block[v->n - 1]);
    return v->of_scale ? nearest(most, v->of_scale, v->n_of_scale)
                       : ldexp(1, (int)ceil(log2(most)));
}

static void check_rounding(device *d, enum block_rounding kind, int size, const struct values *v)
{
    static float x[40 * 64], y[40 * 64];
    tensor t = f32(y, 40, 64);

    random_floats(x, COUNT(x));
    for (int i = 0; i < 40 * 64; i++)
        x[i] *= ldexpf(1, (i / 64 - 20) / 2);
    for (int i = 0; i < size; i++) { /* halves between two values, and a block of zeros */
        x[i] = (float)i / 4;
        x[64 + i] = 0;
    }
    memcpy(y, x, sizeof y);
    d->ops->round_blocks(d, &t, size, kind);
    for (int i = 0; i < 40 * 64; i++) {
        double scale = scale_of(x + i / size * size, size, v);
        double want = nearest((double)(float)((double)x[i] / scale), v->of_block, v->n) * scale;

        CHECK((double)y[i] == want, "kind %d, %g by %g: %g, expected %g", kind, (double)x[i], scale,
              (double)y[i], want);
    }
}

static void test_rounding(void **state)
{
    static const double e2m1[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    double e4m3[127];
    int n = make_e4m3(e4m3);
    const struct values fp8 = {e4m3, NULL, n, 0, (double)1e-4f};
    const struct values fp4 = {e2m1, NULL, COUNT(e2m1), 0, ldexp(6, -126)};
    const struct values nvfp4 = {e2m1, e4m3, COUNT(e2m1), n, ldexp(6, -9)};
    device *d = open_cpu(2, true);

    (void)state;
    check_rounding(d, ROUND_FP8, 32, &fp8);
    check_rounding(d, ROUND_FP4, 32, &fp4);
    check_rounding(d, ROUND_FP4, 64, &fp4);
    check_rounding(d, ROUND_NVFP4, 16, &nvfp4);
    d->ops->close(d);
}

/* Each step by the formula; many steps make rows and columns sum to 1. */
static void test_sinkhorn(void **state)
{
    device *d = open_cpu(2, true);

    (void)state;
    for (int n = 1; n <= 4; n++) {
        float x[5 * 16], y[5 * 16];
        tensor t = f32(y, 5, n * n);

        random_floats(x, COUNT(x));
        for (size_t i = 0; i < COUNT(x); i++)
            y[i] = x[i] = 1.1f + x[i];
        d->ops->sinkhorn(d, &t, n, 1, 0.25f);
        for (int i = 0; i < 5 * n * n; i++) {
            double sum = 0.25;

            for (int j = 0; j < n; j++)
                sum += (double)x[i / (n * n) * n * n + j * n + i % n];
            CHECK(fabs((double)y[i] - (double)x[i] / sum) < 4 * (double)FLT_EPSILON, "%d: %g", i,
                  (double)y[i]);
        }
        d->ops->sinkhorn(d, &t, n, 60, 0);
        for (int i = 0; i < 5 * n; i++) {
            double row = 0, column = 0;

            for (int j = 0; j < n; j++) {
                row += (double)y[i * n + j];
                column += (double)y[i / n * n * n + j * n + i % n];
            }
            CHECK(fabs(row - 1) < 1e-5 && fabs(column - 1) < 1e-5, "%g and %g", row, column);
        }
    }
    d->ops->close(d);
}

/* In steps of so many tokens; the state that is read is never the one that is written. */
static void pool_steps(device *d, float *y, float *x, float *gate, int width, int step)
{
    static float states[2][2 * 6 * COLS + 3];
    int32_t positions[TOKENS];

    for (int i = 0; i < TOKENS; i++)
        positions[i] = i;
    for (int done = 0, n; done < TOKENS; done += n) {
        n = step < TOKENS - done ? step : TOKENS - done;
        struct state_sequence s = {0, n, done ? states[done / step % 2] : NULL,
                                   states[(done / step + 1) % 2]};
        struct state_batch batch = {&s, 1, n};
        tensor ty = f32(y + done * COLS, n, COLS), tx = f32(x + done * COLS, n, COLS),
               tg = f32(gate + done * COLS, n, COLS);

        d->ops->causal_pool(d, &ty, &tx, &tg, positions + done, width, &batch, 3 * sizeof(float));
    }
    assert_int_equal(d->ops->sync(d, NULL), 0);
}

static void test_pool(void **state)
{
    static float x[TOKENS * COLS], gate[TOKENS * COLS], y[TOKENS * COLS], z[TOKENS * COLS];
    device *d = open_cpu(2, true);

    (void)state;
    random_floats(x, COUNT(x));
    random_floats(gate, COUNT(gate));
    for (int width = 2; width <= 7; width += width == 2 ? 2 : 3) {
        pool_steps(d, y, x, gate, width, TOKENS);
        for (int i = 0; i < TOKENS * COLS; i++) {
            double sum = 0, want = 0;

            for (int j = 0; j < width && (i / COLS + 1) % width == 0; j++) {
                double weight = exp((double)gate[i - j * COLS]);

                sum += weight;
                want += weight * (double)x[i - j * COLS];
            }
            want = sum > 0 ? want / sum : 0;
            CHECK(fabs((double)y[i] - want) < 10 * (double)FLT_EPSILON, "width %d, %d: %g, not %g",
                  width, i, (double)y[i], want);
        }
        for (int step = 1; step <= 11; step += 5) {
            pool_steps(d, z, x, gate, width, step);
            CHECK(memcmp(y, z, sizeof y) == 0, "width %d: other bits in steps of %d", width, step);
        }
    }
    d->ops->close(d);
}

static void choose(struct world *w, device *d, int first, int n_rows, struct pooled_choice p,
                   bool candidates)
{
    struct kv_sequence part = {.n_rows = n_rows, .position = first, .blocks = w->blocks};
    struct kv_batch batch = {&part, 1, n_rows};
    tensor q = f32(w->q + (size_t)first * HEADS * DIM, n_rows, HEADS * DIM);
    tensor weights = f32(w->w + (size_t)first * HEADS, n_rows, HEADS);
    tensor kept = {w->kept + (size_t)first * WORDS, DTYPE_U32, n_rows, WORDS, WORDS};
    tensor marked = {w->candidates + (size_t)first * WORDS, DTYPE_U32, n_rows, WORDS, WORDS};

    p.candidates = candidates ? &marked : NULL;
    d->ops->select_pooled(d, &kept, &q, &weights, &w->kv, &batch, &p);
    assert_int_equal(d->ops->sync(d, NULL), 0);
}

static bool bit(const uint32_t *bits, int row, int i)
{
    return bits[row * WORDS + i / 32] >> i % 32 & 1;
}

static const double slack = HEADS * DIM * (double)FLT_EPSILON;

/* Whether b comes before a in the order of choice: candidates first, then by score, then the
 * earlier; within rounding no. */
static bool better(const struct world *w, const struct pooled_choice *p, bool candidates, int row,
                   int a, int b)
{
    bool in_a = !candidates || bit(w->candidates, row, a),
         in_b = !candidates || bit(w->candidates, row, b);
    double d =
        score(w, row, b * p->ratio + p->ratio - 1) - score(w, row, a * p->ratio + p->ratio - 1);

    if (in_a != in_b)
        return in_b;
    if (!in_a || fabs(d) <= 0)
        return b < a;
    return d > slack;
}

static void check_choice(const struct world *w, const struct pooled_choice *p, bool candidates,
                         int row)
{
    int n_keys = (row + 1) / p->ratio, count = 0;

    for (int s = 0; s < WORDS * 32; s++)
        count += bit(w->kept, row, s);
    CHECK(count == (n_keys < p->n ? n_keys : p->n), "row %d: %d keys of %d", row, count, n_keys);
    for (int a = 0; a < n_keys; a++) {
        if (!bit(w->kept, row, a * p->ratio + p->ratio - 1))
            continue;
        count--;
        for (int b = 0; b < n_keys; b++)
            CHECK(bit(w->kept, row, b * p->ratio + p->ratio - 1) ||
                      !better(w, p, candidates, row, a, b),
                  "row %d: key %d and not %d", row, a, b);
    }
    CHECK(count == 0, "row %d: %d positions without a key", row, count);
}

static double block_score(const struct world *w, const struct pooled_choice *p, int row, int block)
{
    int n_keys = (row + 1) / p->ratio;
    double best = (double)-INFINITY;

    if (block == (n_keys - 1) / p->block_size)
        return (double)INFINITY;
    for (int k = block * p->block_size; k < (block + 1) * p->block_size; k++)
        best = fmax(best, score(w, row, k * p->ratio + p->ratio - 1));
    return best;
}

static void check_candidates(const struct world *w, const struct pooled_choice *p, int row)
{
    int n_keys = (row + 1) / p->ratio, n_blocks = (n_keys + p->block_size - 1) / p->block_size;
    int count = 0;

    for (int a = 0; a < n_blocks; a++) {
        bool in = bit(w->candidates, row, a * p->block_size);

        count += in;
        for (int k = a * p->block_size; k < (a + 1) * p->block_size; k++)
            CHECK(bit(w->candidates, row, k) == (in && k < n_keys), "row %d: key %d", row, k);
        for (int b = 0; in && b < n_blocks; b++)
            CHECK(bit(w->candidates, row, b * p->block_size) ||
                      block_score(w, p, row, b) <= block_score(w, p, row, a) + slack,
                  "row %d: block %d and not %d", row, a, b);
    }
    CHECK(count == (n_blocks < p->n_blocks ? n_blocks : p->n_blocks), "row %d: %d blocks", row,
          count);
}

static void test_choice(void **state)
{
    static struct world w;
    static uint32_t whole[COUNT(w.kept)];
    device *d = open_cpu(2, true);

    (void)state;
    make_world(&w, d);
    for (int ratio = 1; ratio <= 7; ratio += 3) {
        struct pooled_choice plain = {.n = 6, .ratio = ratio}, marks = plain;

        choose(&w, d, 0, TOKENS, plain, false);
        for (int row = 0; row < TOKENS; row++)
            check_choice(&w, &plain, false, row);
        marks.n_blocks = 2;
        marks.block_size = 3;
        choose(&w, d, 0, TOKENS, marks, true);
        for (int row = 0; row < TOKENS; row++) {
            check_choice(&w, &plain, false, row);
            check_candidates(&w, &marks, row);
        }
        random_floats(w.w, COUNT(w.w));
        for (plain.n = 3; plain.n <= 9; plain.n += 6) { /* fewer than candidates, and more */
            choose(&w, d, 0, TOKENS, plain, true);
            for (int row = 0; row < TOKENS; row++)
                check_choice(&w, &plain, true, row);
        }
        memcpy(whole, w.kept, sizeof whole);
        for (int row = 0; row < TOKENS; row += 3)
            choose(&w, d, row, 3, (struct pooled_choice){.n = 9, .ratio = ratio}, true);
        CHECK(memcmp(whole, w.kept, sizeof whole) == 0, "rows alone choose other keys");
    }
    memset(w.q, 0, sizeof w.q);
    choose(&w, d, 0, TOKENS, (struct pooled_choice){.n = 5, .ratio = 2}, false);
    for (int row = 12; row < TOKENS; row++)
        for (int s = 0; s <= row; s++)
            CHECK(bit(w.kept, row, s) == (s % 2 == 1 && s < 10), "equals: row %d, key %d", row, s);
    d->ops->close(d);
}

/* Rows see the odd keys alone, those before 3 none at all. */
static void check_sums(struct world *w, device *d, int first, int n_rows, const float *sinks)
{
    static float y[TOKENS * HEADS * DIM], sums[TOKENS * HEADS];
    struct kv_sequence part = {.n_rows = n_rows, .position = first, .blocks = w->blocks};
    struct kv_batch batch = {&part, 1, n_rows};
    tensor q = f32(w->q, n_rows, HEADS * DIM), ty = f32(y, n_rows, HEADS * DIM);
    tensor kept = {w->kept, DTYPE_U32, n_rows, WORDS, WORDS}, ts = f32(sums, n_rows, HEADS);
    struct attend_params p = {
        .n_heads = HEADS, .scale = 0.3f, .kept = &kept, .sinks = sinks, .log_sums = &ts};

    for (int i = 0; i < n_rows * WORDS; i++)
        w->kept[i] = first + i / WORDS < 3 ? 0 : 0xAAAAAAAA;
    d->ops->attend(d, &ty, &q, &w->kv, &batch, &p);
    assert_int_equal(d->ops->sync(d, NULL), 0);
    for (int r = 0; r < n_rows * HEADS; r++) {
        double sum = sinks ? exp((double)sinks[r % HEADS]) : 0, want = 0;

        for (int key = 1; key <= first + r / HEADS && first + r / HEADS >= 3; key += 2) {
            double dot = 0;

            for (int i = 0; i < DIM; i++)
                dot += (double)w->q[r * DIM + i] * (double)w->k[key * DIM + i];
            sum += exp((double)p.scale * dot);
            want += exp((double)p.scale * dot) * (double)w->v[key * DIM];
        }
        want = sum > 0 ? want / sum : 0;
        CHECK(sum > 0 ? fabs((double)sums[r] - log(sum)) < 1e-5 : sums[r] == -INFINITY,
              "row %d: %g, expected %g", r, (double)sums[r], log(sum));
        CHECK(fabs((double)y[r * DIM] - want) < 1e-5, "row %d: %g, expected %g", r,
              (double)y[r * DIM], want);
    }
}

static void test_sums(void **state)
{
    static const float sinks[HEADS] = {-1, 0.5f, 2};
    static struct world w;

    (void)state;
    for (int exact = 0; exact < 2; exact++) {
        device *d = open_cpu(2, exact);

        make_world(&w, d);
        check_sums(&w, d, 0, TOKENS, NULL);
        check_sums(&w, d, 0, TOKENS, sinks);
        check_sums(&w, d, 0, 1, NULL);
        check_sums(&w, d, TOKENS - 1, 1, sinks);
        d->ops->close(d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rounding), cmocka_unit_test(test_sinkhorn),
        cmocka_unit_test(test_pool),     cmocka_unit_test(test_choice),
        cmocka_unit_test(test_sums),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
