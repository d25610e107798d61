/* route and combine_experts against what they say, in double precision. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "device/cpu/cpu.h"

#include "testing.h"

enum { MAX_EXPERTS = 160, MAX_K = 12, MAX_ROWS = 70 };

static device *open_cpu(int n_threads)
{
    clm_error err = {0};
    device *d = device_cpu_open(n_threads, &err);

    CHECK(d, "%s", err.message);
    return d;
}

/* Score of every expert, from all of a row's logits. */
static void scores_of(double *scores, const float *logits, const struct router_params *p)
{
    double sum = 0;

    for (int i = 0; i < p->n_experts; i++)
        sum += exp((double)logits[i]);
    for (int i = 0; i < p->n_experts; i++) {
        double x = (double)logits[i];

        scores[i] = p->score == ROUTER_SIGMOID         ? 1 / (1 + exp(-x))
                    : p->score == ROUTER_SQRT_SOFTPLUS ? sqrt(log1p(exp(x)))
                    : p->score == ROUTER_SOFTMAX_ALL   ? exp(x) / sum
                                                       : x;
    }
}

/* Logits are whole numbers below 4 in magnitude, or eighths: equal ones are exactly equal, and
 * scores of different ones differ by far more than rounding. */
static void check_row(const int32_t *ids, const float *weights, const float *logits,
                      const struct router_params *p)
{
    double scores[MAX_EXPERTS], want[MAX_K], sum = 0;
    bool taken[MAX_EXPERTS] = {false};
    int k = p->n_experts_per_token;

    scores_of(scores, logits, p);
    for (int j = 0; j < k; j++) {
        int best = -1;

        for (int i = 0; i < p->n_experts; i++)
            if (!taken[i] && (best < 0 || logits[i] > logits[best]))
                best = i;
        taken[best] = true;
        CHECK(ids[j] == best, "expert %d of %d: %d, expected %d", j, k, ids[j], best);
        want[j] = p->score == ROUTER_SOFTMAX_SELECTED   ? exp(scores[best])
                  : p->score == ROUTER_SIGMOID_SELECTED ? 1 / (1 + exp(-scores[best]))
                                                        : scores[best];
        sum += want[j];
    }
    for (int j = 0; j < k; j++) {
        /* exp within an epsilon, sums of up to n_experts terms, two quotients and a product. */
        double tolerance = ((double)p->n_experts / 2 + 6) * (double)FLT_EPSILON;
        bool divided = p->normalize || p->score == ROUTER_SOFTMAX_SELECTED;
        double w = (divided ? want[j] / sum : want[j]) * (double)p->scale;

        CHECK(fabs((double)weights[j] - w) <= tolerance * w, "weight %d: %g, expected %g", j,
              (double)weights[j], w);
    }
}

static void check_route(device *d, const struct router_params *p, int n_rows)
{
    static float logits[MAX_ROWS * (MAX_EXPERTS + 3)], weights[MAX_ROWS * (MAX_K + 1)];
    static int32_t ids[MAX_ROWS * (MAX_K + 2)];
    int k = p->n_experts_per_token;
    tensor tl = {logits, DTYPE_F32, n_rows, p->n_experts, p->n_experts + 3};
    tensor ti = {ids, DTYPE_I32, n_rows, k, k + 2}, tw = {weights, DTYPE_F32, n_rows, k, k + 1};

    for (size_t i = 0; i < COUNT(logits); i++)
        logits[i] = ((float)random_below(64) - 32) * 0.125f;
    memset(ids, 0x7F, sizeof ids);
    for (size_t i = 0; i < COUNT(weights); i++)
        weights[i] = -7;
    d->ops->route(d, &ti, &tw, &tl, p);
    assert_int_equal(d->ops->sync(d, NULL), 0);
    for (int t = 0; t < n_rows; t++) {
        check_row(ids + t * ti.stride, weights + t * tw.stride, logits + t * tl.stride, p);
        CHECK(ids[t * ti.stride + k] == 0x7F7F7F7F && weights[t * tw.stride + k] == -7,
              "row %d: wrote past the end", t);
    }
}

static void test_route(void **state)
{
    static const int experts[][2] = {{1, 1}, {2, 1}, {8, 2}, {8, 8}, {64, 6}, {128, 8}, {160, 12}};
    device *d = open_cpu(2);

    (void)state;
    for (size_t e = 0; e < COUNT(experts); e++)
        for (enum router_score score = ROUTER_SOFTMAX_ALL; score <= ROUTER_SIGMOID_SELECTED;
             score++)
            for (int normalize = 0; normalize < 2; normalize++)
                for (int n_rows = 1; n_rows <= MAX_ROWS; n_rows += 23) {
                    struct router_params p = {
                        .score = score,
                        .n_experts = experts[e][0],
                        .n_experts_per_token = experts[e][1],
                        .normalize = normalize,
                        .scale = normalize ? 2.5f : 1.0f,
                    };

                    check_route(d, &p, n_rows);
                }
    d->ops->close(d);
}

/* Whatever the logits, the experts are there and all different. */
static void test_route_any_input(void **state)
{
    static const float odd[] = {0, -INFINITY, INFINITY, NAN, 1e30f, -1e30f, 100, -100};
    device *d = open_cpu(1);

    (void)state;
    for (int round = 0; round < 3000; round++) {
        float logits[9], weights[4];
        int32_t ids[4];
        tensor tl = {logits, DTYPE_F32, 1, 9, 9}, ti = {ids, DTYPE_I32, 1, 4, 4};
        tensor tw = {weights, DTYPE_F32, 1, 4, 4};
        struct router_params p = {.score = (enum router_score)(round % 3),
                                  .n_experts = 9,
                                  .n_experts_per_token = 4,
                                  .normalize = round % 2,
                                  .scale = 1};

        for (int i = 0; i < 9; i++)
            logits[i] = odd[random_below(COUNT(odd))];
        d->ops->route(d, &ti, &tw, &tl, &p);
        for (int i = 0; i < 4; i++) {
            CHECK(ids[i] >= 0 && ids[i] < 9, "expert %d", ids[i]);
            for (int j = 0; j < i; j++)
                CHECK(ids[i] != ids[j], "expert %d twice", ids[i]);
        }
    }
    d->ops->close(d);
}

/* Groups and biases: the choice by biased scores among the groups kept, where the others count as 0
 * or not at all; the weights by the plain ones. */
static void keep_groups(double *choice, const struct router_params *p)
{
    int size = p->n_experts / p->n_groups;
    double best[MAX_EXPERTS];

    for (int g = 0; g < p->n_groups; g++) {
        double first = -HUGE_VAL, second = -HUGE_VAL;

        for (int i = g * size; i < (g + 1) * size; i++) {
            double x = choice[i];

            second = fmax(second, fmin(first, x));
            first = fmax(first, x);
        }
        best[g] = p->group_by_max ? first : first + second;
    }
    for (int g = 0; g < p->n_groups; g++) {
        int better = 0;

        for (int other = 0; other < p->n_groups; other++)
            better += best[other] > best[g];
        for (int i = g * size; i < (g + 1) * size && better >= p->n_groups_kept; i++)
            choice[i] = p->groups_alone ? -HUGE_VAL : p->late_zeros ? (double)FLT_MIN * i : 0;
    }
}

static void check_biased_row(const int32_t *ids, const float *weights, const float *logits,
                             const struct router_params *p)
{
    double scores[MAX_EXPERTS], choice[MAX_EXPERTS], sum = 0;
    int k = p->n_experts_per_token;

    scores_of(scores, logits, p);
    for (int i = 0; i < p->n_experts; i++)
        choice[i] = scores[i] + (p->bias ? (double)p->bias[i] : 0);
    if (p->n_groups > 1)
        keep_groups(choice, p);
    for (int j = 0; j < k; j++) {
        int best = 0;

        for (int i = 1; i < p->n_experts; i++)
            if (choice[i] > choice[best])
                best = i;
        CHECK(ids[j] == best, "expert %d of %d: %d, expected %d", j, k, ids[j], best);
        choice[best] = -HUGE_VAL;
        if (p->score == ROUTER_SIGMOID_SELECTED)
            scores[best] = 1 / (1 + exp(-scores[best]));
        sum += scores[best];
    }
    sum = fmax(sum + (double)p->normalize_eps, (double)p->normalize_floor);
    for (int j = 0; j < k; j++) {
        double w = scores[ids[j]] * (double)p->scale / (p->normalize ? sum : 1);

        CHECK(fabs((double)weights[j] - w) <=
                  ((double)p->n_experts / 2 + 8) * (double)FLT_EPSILON * w,
              "weight %d: %g, expected %g", j, (double)weights[j], w);
    }
}

/* Biases differ from one another by 1/256 and more, so that no two choices are near a tie. */
static void check_biased(device *d, struct router_params p, int n_rows)
{
    static float logits[MAX_ROWS * MAX_EXPERTS], weights[MAX_ROWS * MAX_K], bias[MAX_EXPERTS];
    static int32_t ids[MAX_ROWS * MAX_K];
    int n = p.n_experts, k = p.n_experts_per_token;
    tensor tl = {logits, DTYPE_F32, n_rows, n, n}, ti = {ids, DTYPE_I32, n_rows, k, k};
    tensor tw = {weights, DTYPE_F32, n_rows, k, k};

    for (int i = 0; i < n; i++)
        bias[i] = (float)((i * 37) % n) / 256 + (p.groups_alone || p.late_zeros ? -1.5f : 0.5f);
    random_floats(logits, (size_t)(n_rows * n));
    p.bias = bias;
    d->ops->route(d, &ti, &tw, &tl, &p);
    assert_int_equal(d->ops->sync(d, NULL), 0);
    for (int t = 0; t < n_rows; t++)
        check_biased_row(ids + t * k, weights + t * k, logits + t * n, &p);
}

static void test_route_groups(void **state)
{
    static const int sizes[][4] = {{6, 2, 3, 2},   {8, 4, 2, 1},  {64, 6, 8, 3},
                                   {160, 6, 8, 3}, {16, 4, 1, 1}, {12, 3, 0, 0}};
    device *d = open_cpu(2);

    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++)
        for (int options = 0; options < 32; options++) {
            struct router_params p = {
                .score = options & 1 ? ROUTER_SIGMOID : ROUTER_SOFTMAX_ALL,
                .n_experts = sizes[i][0],
                .n_experts_per_token = sizes[i][1],
                .n_groups = sizes[i][2],
                .n_groups_kept = sizes[i][3],
                .group_by_max = options & 2,
                .groups_alone = options & 8,
                .late_zeros = options & 16,
                .normalize = options & 4,
                .normalize_eps = options & 1 ? 1e-3f : 0,
                .normalize_floor = options & 2 ? 1.5f : 0,
                .scale = 2.5f,
            };

            check_biased(d, p, 40);
            p.score = ROUTER_SIGMOID_SELECTED;
            p.n_groups = 0;
            check_biased(d, p, 40);
        }
    d->ops->close(d);
}

/* arXiv:2409.12136, section 2: each of the k experts by a softmax of its own, over the logits
 * within the band. */
static void check_mixed_row(const int32_t *ids, const float *weights, const float *logits, int n,
                            int k, double jitter)
{
    bool taken[MAX_EXPERTS] = {false};

    for (int j = 0; j < k; j++) {
        int best = -1;
        double sum = 0, top;

        for (int i = 0; i < n; i++)
            if (!taken[i] && (best < 0 || logits[i] > logits[best]))
                best = i;
        top = (double)logits[best];
        for (int i = 0; i < n; i++) {
            double x = (double)logits[i];

            if (!taken[i] && !((top - x) / fmax(fabs(x), top) > 2 * jitter))
                sum += exp(x - top);
        }
        taken[best] = true;
        CHECK(ids[j] == best, "expert %d: %d, expected %d", j, ids[j], best);
        CHECK(fabs((double)weights[j] - 1 / sum) <= (n + 4) * (double)FLT_EPSILON / sum,
              "weight %d: %g, expected %g", j, (double)weights[j], 1 / sum);
    }
}

/* Logits are multiples of 1/16 up to 8, the band of 0.2 falls between them. */
static void test_route_sparse_mixer(void **state)
{
    device *d = open_cpu(2);

    (void)state;
    for (int round = 0; round < 300; round++) {
        int n = 4 + (int)random_below(13), k = 1 + (int)random_below(3);
        float logits[16], weights[3];
        int32_t ids[3];
        tensor tl = {logits, DTYPE_F32, 1, n, n}, ti = {ids, DTYPE_I32, 1, k, k};
        tensor tw = {weights, DTYPE_F32, 1, k, k};
        struct router_params p = {.score = ROUTER_SPARSE_MIXER,
                                  .n_experts = n,
                                  .n_experts_per_token = k,
                                  .jitter = 0.1013f,
                                  .scale = 1};

        for (int i = 0; i < n; i++)
            logits[i] = (float)(random_below(256) + 1) / 32 - 2;
        d->ops->route(d, &ti, &tw, &tl, &p);
        assert_int_equal(d->ops->sync(d, NULL), 0);
        check_mixed_row(ids, weights, logits, n, k, (double)p.jitter);
    }
    d->ops->close(d);
}

/* Those that return their input give way to others, which count nothing. */
static void test_zero_experts(void **state)
{
    device *d = open_cpu(1);

    (void)state;
    for (int round = 0; round < 500; round++) {
        int n = 4 + (int)random_below(5), k = 1 + (int)random_below(4), n_zero = 3;
        int32_t ids[4], before[4];
        float weights[4], weights_before[4], rest = -7, want = 0;
        tensor ti = {ids, DTYPE_I32, 1, k, k}, tw = {weights, DTYPE_F32, 1, k, k};
        tensor tr = {&rest, DTYPE_F32, 1, 1, 1};

        for (int j = 0; j < k; j++) {
            bool again = true;

            while (again) {
                ids[j] = (int32_t)random_below((size_t)(n + n_zero));
                again = false;
                for (int i = 0; i < j; i++)
                    again = again || ids[i] == ids[j];
            }
            weights[j] = (float)(1 + random_below(8)) / 8;
            want += ids[j] >= n ? weights[j] : 0;
        }
        memcpy(before, ids, sizeof ids);
        memcpy(weights_before, weights, sizeof weights);
        d->ops->zero_experts(d, &ti, &tw, &tr, n);
        CHECK(rest == want, "%g, expected %g", (double)rest, (double)want);
        for (int j = 0; j < k; j++) {
            bool zero = before[j] >= n;

            CHECK(ids[j] >= 0 && ids[j] < n && (zero || ids[j] == before[j]), "expert %d", ids[j]);
            CHECK(weights[j] == (zero ? 0 : weights_before[j]), "weight %g", (double)weights[j]);
            for (int i = 0; i < j; i++)
                CHECK(ids[i] != ids[j], "expert %d twice", ids[j]);
        }
    }
    d->ops->close(d);
}

static void test_chosen(void **state)
{
    static const float scales[5] = {0.5f, -2, 3, 0.25f, 7};
    static const int32_t tokens[6] = {0, 4, 5, 6, 100, 3};
    static const int32_t past[6] = {999, 998, 1, 0, 500, 123};
    int32_t ids[6] = {4, 0, 2, 1, 3, 4}, bounded[7] = {-1, -1, -1, -1, -1, -1, -1};
    float weights[6] = {1, 2, 3, 4, 5, 6};
    tensor ti = {ids, DTYPE_I32, 3, 2, 2}, tw = {weights, DTYPE_F32, 3, 2, 2};
    device *d = open_cpu(2);

    (void)state;
    d->ops->scale_chosen(d, &tw, &ti, scales);
    for (int i = 0; i < 6; i++)
        CHECK(weights[i] == (float)(i + 1) * scales[ids[i]], "weight %d: %g", i,
              (double)weights[i]);
    d->ops->bound_ids(d, bounded, tokens, 6, 5);
    for (int i = 0; i < 6; i++)
        CHECK(bounded[i] == (tokens[i] < 5 ? tokens[i] : 0), "token %d: %d", tokens[i], bounded[i]);
    d->ops->ngram_ids(d, bounded, tokens, past, 3, 2, 2, 1000, 997);
    for (int t = 0; t < 3; t++) {
        int64_t want = tokens[t] + 1000LL * past[2 * t] + 1000000LL * past[2 * t + 1];

        CHECK(bounded[t] == want % 997, "ngram_ids: %d, expected %d", bounded[t],
              (int)(want % 997));
    }
    d->ops->ngram_ids(d, bounded, tokens, past, 3, 2, 1, 1000, 5000);
    for (int t = 0; t < 3; t++)
        CHECK(bounded[t] == (tokens[t] + 1000 * past[2 * t]) % 5000, "ngram_ids: %d", bounded[t]);
    CHECK(bounded[6] == -1, "bound_ids wrote past the end");
    d->ops->close(d);
}

/* Without memory the device reports it, and the experts are still some that exist. */
static void test_route_without_memory(void **state)
{
    float logits[3 * 8] = {0}, weights[3 * 2] = {7, 7, 7, 7, 7, 7};
    int32_t ids[3 * 2] = {99, 99, 99, 99, 99, 99};
    tensor tl = {logits, DTYPE_F32, 3, 8, 8}, ti = {ids, DTYPE_I32, 3, 2, 2};
    tensor tw = {weights, DTYPE_F32, 3, 2, 2};
    struct router_params p = {
        .score = ROUTER_SIGMOID, .n_experts = 8, .n_experts_per_token = 2, .scale = 1};
    device *d = open_cpu(1);
    clm_error err = {0};

    (void)state;
    mem_fail_after(0);
    d->ops->route(d, &ti, &tw, &tl, &p);
    assert_true(mem_fail_after(-1));
    assert_int_equal(d->ops->sync(d, &err), -1);
    CHECK(err.code == CLM_ERR_NOMEM, "%s", err.message);
    for (int i = 0; i < 6; i++)
        CHECK(ids[i] == i % 2 && weights[i] == 0, "%d: expert %d, weight %g", i, ids[i],
              (double)weights[i]);
    d->ops->close(d);
}

static void check_combine(device *d, int n_rows, int k, int n)
{
    size_t size = (size_t)n_rows * (size_t)k * (size_t)(n + 1);
    float *x = mem_alloc_aligned(size * sizeof *x), *weights = mem_alloc_aligned(size * sizeof *x);
    float *y = mem_alloc_aligned((size_t)n_rows * (size_t)(n + 2) * sizeof *y);

    assert_true(x && weights && y);
    random_floats(x, size);
    random_floats(weights, (size_t)(n_rows * k));
    for (int i = 0; i < n_rows * (n + 2); i++)
        y[i] = -7;
    tensor tx = {x, DTYPE_F32, n_rows * k, n, n + 1}, tw = {weights, DTYPE_F32, n_rows, k, k};
    tensor ty = {y, DTYPE_F32, n_rows, n, n + 2};
    d->ops->combine_experts(d, &ty, &tx, &tw);
    assert_int_equal(d->ops->sync(d, NULL), 0);
    for (int t = 0; t < n_rows; t++)
        for (int o = 0; o < n + 2; o++) {
            double want = 0, sum = 0;

            for (int j = 0; o < n && j < k; j++) {
                double term = (double)weights[t * k + j] * (double)x[(t * k + j) * (n + 1) + o];

                want += term;
                sum += fabs(term);
            }
            if (o < n)
                CHECK(fabs((double)y[t * (n + 2) + o] - want) <= k * (double)FLT_EPSILON * sum,
                      "row %d, %d", t, o);
            else
                CHECK(y[t * (n + 2) + o] == -7, "row %d: wrote past the end", t);
        }
    mem_free_aligned(x);
    mem_free_aligned(weights);
    mem_free_aligned(y);
}

static void test_combine(void **state)
{
    device *d = open_cpu(2);

    (void)state;
    check_combine(d, 1, 1, 1);
    check_combine(d, 3, 2, 7);
    check_combine(d, 33, 8, 130);
    check_combine(d, 50, 4, 2048);
    d->ops->close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_route),
        cmocka_unit_test(test_route_any_input),
        cmocka_unit_test(test_route_groups),
        cmocka_unit_test(test_route_sparse_mixer),
        cmocka_unit_test(test_zero_experts),
        cmocka_unit_test(test_chosen),
        cmocka_unit_test(test_route_without_memory),
        cmocka_unit_test(test_combine),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
