/* The race draws with the probabilities of the weights, and alike from distributions alike. */
#include "testing.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "generate/race.h"
#include "generate/rng.h"
#include "generate/sampler.h"

#define MAX_IDS 20000
#define DRAWS 100000

static int32_t ids[MAX_IDS];
static float weights[MAX_IDS];

/* Ids with gaps, as filters leave them. */
static void fill_ids(int n, int gap)
{
    for (int i = 0; i < n; i++)
        ids[i] = i * gap + 3;
}

/* chi-squared is normal enough here: its mean is the degrees of freedom, its variance twice that.
 * Four deviations are passed once in thirty thousand; keys are fixed. */
static void check_chi_squared(double statistic, int degrees, const char *what)
{
    double deviations = (statistic - degrees) / sqrt(2.0 * degrees);

    CHECK(fabs(deviations) < 4, "%s: chi-squared %g at %d degrees", what, statistic, degrees);
}

/* Draws against the weights; ids whose expected count is below 5 count together. */
static void check_distribution(int n, const char *what, uint64_t first_key)
{
    static int counts[MAX_IDS];
    double sum = 0, statistic = 0, rest_expected = 0;
    int degrees = -1, rest = 0;

    memset(counts, 0, sizeof counts);
    for (int i = 0; i < n; i++)
        sum += (double)weights[i];
    for (uint64_t key = first_key; key < first_key + DRAWS; key++)
        counts[race(ids, weights, n, scramble(key))]++;
    for (int i = 0; i < n; i++) {
        double expected = (double)weights[i] / sum * DRAWS, off = counts[i] - expected;

        if (expected < 5) {
            rest_expected += expected;
            rest += counts[i];
            continue;
        }
        statistic += off * off / expected;
        degrees++;
    }
    if (rest_expected >= 5) {
        statistic += (rest - rest_expected) * (rest - rest_expected) / rest_expected;
        degrees++;
    }
    check_chi_squared(statistic, degrees, what);
}

static void test_distribution(void **state)
{
    (void)state;
    fill_ids(1000, 1);
    for (int i = 0; i < 1000; i++)
        weights[i] = 1;
    check_distribution(1000, "flat", 1);
    fill_ids(1000, 129);
    check_distribution(1000, "flat with gaps", 1000000);
    for (int i = 0; i < 1000; i++)
        weights[i] = powf(0.97f, (float)i);
    check_distribution(1000, "falling", 2);
    for (int i = 0; i < 1000; i++)
        weights[i] = powf(0.97f, (float)(999 - i));
    check_distribution(1000, "rising", 3);
    for (int i = 0; i < 2; i++)
        weights[i] = i ? 1 : 0.25f;
    check_distribution(2, "of two", 4);
}

/* Light ones, which must be fine grained to win as often as they should, against a heavy one. */
static void test_tail(void **state)
{
    int n = MAX_IDS, draws = 20000, tail = 0, upper_half = 0;
    double p;

    (void)state;
    fill_ids(n, 1);
    for (int i = 0; i < n; i++)
        weights[i] = i == 7000 ? 1 : 1e-5f;
    p = 0.19999 / 1.19999;
    for (int k = 0; k < draws; k++) {
        int place = race(ids, weights, n, scramble((uint64_t)k));

        tail += place != 7000;
        upper_half += place >= n / 2;
    }
    CHECK(fabs(tail - p * draws) < 4 * sqrt(draws * p * (1 - p)), "%d of the tail, not %g", tail,
          p * draws);
    CHECK(fabs(upper_half - 0.5 * tail) < 4 * sqrt(0.25 * tail), "%d of %d of the upper half",
          upper_half, tail);
}

/* Draws of neighbouring places in a text are independent: pairs of them fill a square evenly. */
static void test_neighbours(void **state)
{
    enum { SIDE = 16 };
    struct rng r;
    int counts[SIDE][SIDE] = {{0}}, before;
    double statistic = 0;

    (void)state;
    rng_seed(&r, 5);
    fill_ids(SIDE, 1);
    for (int i = 0; i < SIDE; i++)
        weights[i] = 1;
    before = race(ids, weights, SIDE, rng_at(&r, 0));
    for (uint64_t i = 1; i <= DRAWS; i++) {
        int now = race(ids, weights, SIDE, rng_at(&r, i));

        counts[before][now]++;
        before = now;
    }
    for (int i = 0; i < SIDE * SIDE; i++) {
        double expected = (double)DRAWS / (SIDE * SIDE);
        double off = counts[i / SIDE][i % SIDE] - expected;

        statistic += off * off / expected;
    }
    check_chi_squared(statistic, SIDE * SIDE - 1, "pairs");
}

/* Whoever wins wins against each other alone, wherever they stand. */
static void test_winner_of_all(void **state)
{
    (void)state;
    for (uint64_t key = 0; key < 200; key++) {
        int n = 1 + (int)random_below(2000), winner;
        int32_t id;

        fill_ids(n, 1 + (int)random_below(50));
        random_floats(weights, (size_t)n);
        for (int i = 0; i < n; i++)
            weights[i] = i % 3 == 1 ? 0 : expf(8 * weights[i] - 8);
        winner = race(ids, weights, n, key);
        CHECK(winner >= 0 && winner < n && weights[winner] > 0, "place %d of %d", winner, n);
        id = ids[winner];
        for (int i = 0; i < n; i++) {
            int32_t two[] = {ids[i], id};
            float both[] = {weights[i], weights[winner]};

            CHECK(i == winner || race(two, both, 2, key) == 1, "%d loses against %d", winner, i);
        }
        for (int i = 0; i < n / 2; i++) {
            int32_t t = ids[i];
            float w = weights[i];

            ids[i] = ids[n - 1 - i];
            weights[i] = weights[n - 1 - i];
            ids[n - 1 - i] = t;
            weights[n - 1 - i] = w;
        }
        CHECK(ids[race(ids, weights, n, key)] == id, "backwards another wins");
    }
}

/* Two distributions at a total variation distance d give the same id with (1 - d) / (1 + d) or
 * more. */
static void test_alike(void **state)
{
    static float other[50];
    double sums[2] = {0}, distance = 0, least;
    int same = 0, n = (int)COUNT(other);

    (void)state;
    fill_ids(n, 1);
    for (int i = 0; i < n; i++) {
        weights[i] = powf(0.9f, (float)i);
        other[i] = weights[i] * (i % 2 ? 0.6f : 1);
        sums[0] += (double)weights[i];
        sums[1] += (double)other[i];
    }
    for (int i = 0; i < n; i++)
        distance += fabs((double)weights[i] / sums[0] - (double)other[i] / sums[1]) / 2;
    least = (1 - distance) / (1 + distance);
    for (uint64_t k = 0; k < DRAWS; k++) {
        uint64_t key = scramble(k);

        same += race(ids, weights, n, key) == race(ids, other, n, key);
    }
    CHECK(same > least * DRAWS - 4 * sqrt(DRAWS / 4.0), "%d alike, not %g", same, least * DRAWS);
    CHECK(same < DRAWS, "different distributions are always alike");
}

/* A sampler that follows another draws from the same row what the other will. */
static void test_follow(void **state)
{
    struct sampler_options o = sampler_defaults();
    float logits[100];
    sampler *leader, *follower;
    clm_error err = {0};

    (void)state;
    o.temp = 1;
    for (o.mirostat = 0; o.mirostat <= 2; o.mirostat += 2) {
        leader = sampler_open(&o, COUNT(logits), &err);
        follower = sampler_open(&o, COUNT(logits), &err);
        CHECK(leader && follower, "%s", err.message);
        for (int i = 0; i < 200; i++) {
            struct sample want, got;

            random_floats(logits, COUNT(logits));
            sampler_follow(follower, leader);
            for (int ahead = i % 4; ahead > 0; ahead--) /* drafts that come to nothing */
                CHECK(!sampler_next(follower, logits, NULL, 0, &got, &err), "%s", err.message);
            sampler_follow(follower, leader);
            CHECK(!sampler_next(follower, logits, NULL, 0, &got, &err), "%s", err.message);
            CHECK(!sampler_next(leader, logits, NULL, 0, &want, &err), "%s", err.message);
            CHECK(got.token == want.token, "draw %d: %d, not %d", i, got.token, want.token);
        }
        sampler_close(leader);
        sampler_close(follower);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distribution), cmocka_unit_test(test_tail),
        cmocka_unit_test(test_neighbours),   cmocka_unit_test(test_winner_of_all),
        cmocka_unit_test(test_alike),        cmocka_unit_test(test_follow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
