/* How many drafts: in worlds whose costs and chances are known, text takes hardly longer than
 * without drafts where they are useless, and nearly as little as can be where they are not. */
#include "testing.h"

#include <math.h>

#include "base/memory.h"
#include "generate/draft_pace.h"

struct world {
    const char *name;
    double first_row, row; /* seconds of a step: first_row + row (rows - 1) */
    double guess;          /* of a token for all texts */
    double right;          /* chance of a draft */
    int n_texts, possible;
    bool goes_back;
    double noise;   /* steps take up to so much longer, by chance */
    double at_most; /* time it may take, as a part of that without drafts */
};

static double unit(void)
{
    return (double)(random_u64() >> 11) * 0x1p-53;
}

static double step_time(const struct world *w, int rows)
{
    return (w->first_row + w->row * (rows - 1)) * (1 + w->noise * unit());
}

/* How many of n drafts are right. */
static int check_drafts(const struct world *w, int n)
{
    int right = 0;

    while (right < n && unit() < w->right)
        right++;
    return right;
}

/* Seconds until every text has so many tokens. */
static double run(const struct world *w, struct draft_pace *p, int n_tokens)
{
    static struct draft_odds odds[PACE_ROWS];
    int again[PACE_ROWS] = {0}, done = 0;
    double time = 0;

    for (int i = 0; i < w->n_texts; i++)
        odds[i] = (struct draft_odds){0};
    while (done < n_tokens * w->n_texts) {
        struct paced_text texts[PACE_ROWS];
        struct paced_step s = {.n_texts = w->n_texts};

        for (int i = 0; i < w->n_texts; i++)
            texts[i] = (struct paced_text){
                .odds = &odds[i], .rows = 1 + again[i], .possible = w->possible};
        draft_pace_plan(p, texts, w->n_texts, 512);
        for (int i = 0; i < w->n_texts; i++) {
            int n = texts[i].n_drafts, right = check_drafts(w, n);

            CHECK(n >= 0 && n <= w->possible, "%d drafts", n);
            draft_odds_learn(&odds[i], 0, n, right);
            draft_odds_learn(&p->odds, 0, n, right);
            s.rows += texts[i].rows + n;
            s.n_tokens += 1 + right;
            s.depth = n > s.depth ? n : s.depth;
            again[i] = w->goes_back && right < n ? right + 1 : 0;
            p->goes_back |= again[i] > 0;
        }
        s.guess_seconds = s.depth * w->guess;
        s.step_seconds = step_time(w, s.rows);
        draft_pace_learn(p, &s);
        time += s.guess_seconds + s.step_seconds;
        done += s.n_tokens;
    }
    return time;
}

static const struct world worlds[] = {
    /* useless: 3 % is what may be lost */
    {"never right", 1, 0.1, 0, 0, 1, 16, false, 0, 1.03},
    {"never right, dear rows", 1, 0.9, 0, 0, 1, 16, false, 0, 1.03},
    {"never right, dear guesses", 1, 0.1, 0.5, 0, 1, 16, false, 0, 1.03},
    {"never right, noise", 1, 0.3, 0.1, 0, 1, 16, false, 0.2, 1.03},
    {"rarely right", 1, 0.5, 0.1, 0.3, 1, 16, false, 0.1, 1.03},
    {"rarely right, goes back", 1, 0.3, 0.1, 0.3, 1, 16, true, 0.1, 1.03},
    {"right, but guesses cost as much", 1, 0.2, 1, 0.9, 1, 16, false, 0.1, 1.03},
    {"right, but rows cost as much", 1, 1, 0.1, 0.9, 1, 16, false, 0.1, 1.03},
    {"never right, 8 texts", 1, 0.1, 0, 0, 8, 16, false, 0.1, 1.03},
    /* useful */
    {"always right, cheap", 1, 0.05, 0, 1, 1, 16, false, 0, 0.2},
    {"mostly right", 1, 0.2, 0.1, 0.8, 1, 8, false, 0.1, 0.75},
    {"mostly right, goes back", 1, 0.1, 0.02, 0.8, 1, 8, true, 0.1, 0.7},
    {"mostly right, 4 texts", 1, 0.05, 0.1, 0.8, 4, 8, false, 0.1, 0.72},
};

static void test_worlds(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(worlds); i++) {
        struct world w = worlds[i];

        for (int tokens = 100; tokens <= 1000; tokens *= 10) {
            struct draft_pace p = {0};
            /* Noise is half of its most on average. */
            double plain = tokens * (w.first_row + w.row * (w.n_texts - 1)) * (1 + w.noise / 2);
            double time = run(&w, &p, tokens), part = time / plain;

            CHECK(part <= w.at_most + (tokens < 1000 && w.at_most < 1 ? 0.1 : 0),
                  "%s: %d tokens take %.3f of the time without drafts", w.name, tokens, part);
        }
    }
}

/* Drafts that become useful are found, and those that become useless are given up. */
static void test_change(void **state)
{
    struct world bad = {"bad", 1, 0.1, 0.02, 0, 1, 16, false, 0, 0}, good = bad;
    struct draft_pace p = {0};
    double time;

    (void)state;
    good.right = 0.9;
    time = run(&bad, &p, 1000);
    CHECK(time <= 1030, "useless for 1000 tokens: %g", time);
    time = run(&good, &p, 1000);
    CHECK(time <= 700, "then useful for 1000 tokens: %g", time);
    time = run(&bad, &p, 1000);
    CHECK(time <= 1030, "then useless again: %g", time);
}

/* What was measured with one number of rows says nothing of the others but by proportion. */
static void test_nothing_possible(void **state)
{
    struct world w = {"none", 1, 0.1, 0.1, 1, 3, 0, false, 0, 0};
    struct draft_pace p = {0};
    double time = run(&w, &p, 200);

    (void)state;
    CHECK(fabs(time - 200 * 1.2) < 1e-6, "without guesses: %g", time);
}

/* More texts than rows that have drafts. */
static void test_many_texts(void **state)
{
    static struct paced_text texts[2 * PACE_ROWS];
    static struct draft_odds odds;
    struct draft_pace p = {.opened = true, .account = 1e9, .steps[1] = {1, 3}};

    (void)state;
    for (int n = 1; n <= 2 * PACE_ROWS; n++) {
        int rows = n;

        for (int i = 0; i < n; i++)
            texts[i] = (struct paced_text){.odds = &odds, .rows = 1, .possible = 64};
        p.steps[PACE_ROWS].n = 3;
        p.steps[PACE_ROWS].seconds = 1;
        draft_pace_plan(&p, texts, n, 512);
        for (int i = 0; i < n; i++)
            rows += texts[i].n_drafts;
        CHECK(rows <= (n < PACE_ROWS ? PACE_ROWS : n), "%d texts: %d rows", n, rows);
        CHECK(rows > n || n >= PACE_ROWS * 3 / 4, "%d texts have no drafts at no cost", n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worlds),
        cmocka_unit_test(test_change),
        cmocka_unit_test(test_nothing_possible),
        cmocka_unit_test(test_many_texts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
