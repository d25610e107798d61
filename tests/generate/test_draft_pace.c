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
    int reads;      /* of 4 steps that have rows of prompts, which cost as much as others */
};

#define PROMPT_ROWS 64

static double unit(void)
{
    return (double)(random_u64() >> 11) * 0x1p-53;
}

static double step_time(const struct world *w, int rows)
{
    return (w->first_row + w->row * (rows - 1)) * (1 + w->noise * unit());
}

/* Rows of prompts in a step: many, or the last few of one. */
static int read_prompts(const struct world *w)
{
    if ((int)random_below(4) >= w->reads)
        return 0;
    return random_below(4) ? PROMPT_ROWS : 1 + (int)random_below(PROMPT_ROWS);
}

/* Seconds that prompts take and that answers do, without drafts and but for noise. */
static double prompt_time(const struct world *w, int tokens)
{
    return tokens * w->row * w->reads / 4 * (PROMPT_ROWS * 3 / 4. + (1 + PROMPT_ROWS) / 8.);
}

static double answer_time(const struct world *w, int tokens)
{
    return tokens * (w->first_row + w->row * (w->n_texts - 1));
}

/* How many of n drafts are right. */
static int check_drafts(const struct world *w, int n)
{
    int right = 0;

    while (right < n && unit() < w->right)
        right++;
    return right;
}

/* Seconds until every text has so many tokens, and prompts are read that come with as many steps:
 * what is left of them when answers are ready, or too much, counts as what it costs by itself. */
static double run(const struct world *w, struct draft_pace *p, int n_tokens)
{
    static struct draft_odds odds[PACE_ROWS];
    int again[PACE_ROWS] = {0}, done = 0, read = 0;
    double time = 0;

    for (int i = 0; i < w->n_texts; i++)
        odds[i] = (struct draft_odds){0};
    while (done < n_tokens * w->n_texts) {
        struct paced_text texts[PACE_ROWS];
        struct paced_step s = {.n_texts = w->n_texts, .prompt_rows = read_prompts(w)};

        for (int i = 0; i < w->n_texts; i++)
            texts[i] = (struct paced_text){.odds = &odds[i],
                                           .rows = 1 + again[i],
                                           .possible = w->possible,
                                           .left = n_tokens - done / w->n_texts};
        draft_pace_plan(p, texts, w->n_texts, s.prompt_rows, 512);
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
        s.step_seconds = step_time(w, s.rows + s.prompt_rows);
        draft_pace_learn(p, &s);
        read += s.prompt_rows;
        time += s.guess_seconds + s.step_seconds;
        done += s.n_tokens;
    }
    return time + (prompt_time(w, n_tokens) - read * w->row) * (1 + w->noise / 2);
}

static const struct world worlds[] = {
    /* useless: 3 % is what may be lost */
    {"never right", 1, 0.1, 0, 0, 1, 16, false, 0, 1.03, 0},
    {"never right, dear rows", 1, 0.9, 0, 0, 1, 16, false, 0, 1.03, 0},
    {"never right, dear guesses", 1, 0.1, 0.5, 0, 1, 16, false, 0, 1.03, 0},
    {"never right, noise", 1, 0.3, 0.1, 0, 1, 16, false, 0.2, 1.03, 0},
    {"rarely right", 1, 0.5, 0.1, 0.3, 1, 16, false, 0.1, 1.03, 0},
    {"rarely right, goes back", 1, 0.3, 0.1, 0.3, 1, 16, true, 0.1, 1.03, 0},
    {"right, but guesses cost as much", 1, 0.2, 1, 0.9, 1, 16, false, 0.1, 1.03, 0},
    {"right, but rows cost as much", 1, 1, 0.1, 0.9, 1, 16, false, 0.1, 1.03, 0},
    {"never right, 8 texts", 1, 0.1, 0, 0, 8, 16, false, 0.1, 1.03, 0},
    {"never right, beside prompts", 1, 0.1, 0, 0, 1, 16, false, 0.1, 1.03, 4},
    {"never right, 8 texts, often beside prompts", 1, 0.1, 0.1, 0, 8, 16, false, 0.1, 1.03, 3},
    {"never right, dear rows, beside prompts", 1, 0.9, 0, 0, 1, 16, false, 0.2, 1.03, 2},
    {"rarely right, goes back, beside prompts", 1, 0.2, 0.1, 0.3, 1, 16, true, 0.1, 1.03, 2},
    {"right, but guesses cost as much, beside prompts", 1, 0.2, 1, 0.9, 1, 16, false, 0.1, 1.03, 2},
    /* useful */
    {"always right, cheap", 1, 0.05, 0, 1, 1, 16, false, 0, 0.2, 0},
    {"mostly right", 1, 0.2, 0.1, 0.8, 1, 8, false, 0.1, 0.75, 0},
    {"mostly right, goes back", 1, 0.1, 0.02, 0.8, 1, 8, true, 0.1, 0.7, 0},
    {"mostly right, 4 texts", 1, 0.05, 0.1, 0.8, 4, 8, false, 0.1, 0.72, 0},
    {"always right, cheap, beside prompts", 1, 0.005, 0, 1, 1, 16, false, 0.1, 0.4, 4},
    {"mostly right, sometimes beside prompts", 1, 0.01, 0.1, 0.8, 1, 8, false, 0.1, 0.75, 1},
    {"mostly right, 4 texts, often beside prompts", 1, 0.01, 0.05, 0.8, 4, 8, false, 0.1, 0.7, 3},
};

static void test_worlds(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(worlds); i++) {
        struct world w = worlds[i];

        for (int tokens = 100; tokens <= 1000; tokens *= 10) {
            struct draft_pace p = {0};
            /* Noise is half of its most on average. */
            double plain = (answer_time(&w, tokens) + prompt_time(&w, tokens)) * (1 + w.noise / 2);
            double time = run(&w, &p, tokens), part = time / plain;

            CHECK(part <= w.at_most + (tokens < 1000 && w.at_most < 1 ? 0.1 : 0),
                  "%s: %d tokens take %.3f of the time without drafts", w.name, tokens, part);
        }
    }
}

/* Drafts that become useful are found, and those that become useless are given up. */
static void test_change(void **state)
{
    struct world bad = {"bad", 1, 0.1, 0.02, 0, 1, 16, false, 0, 0, 0}, good = bad;
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

/* Texts end one after another, and what the first step of so few takes is of no worth: drafts that
 * are right too rarely must not seem cheap beside it. */
static void test_fewer_texts(void **state)
{
    static const struct world ends[] = {{"4", 1, 0.9, 0, 0.45, 4, 16, false, 0, 0, 0},
                                        {"3", 1, 0.9, 0, 0.45, 3, 16, false, 0, 0, 0},
                                        {"1", 1, 0.9, 0, 0.45, 1, 16, false, 0, 0, 0}};
    struct draft_pace p = {0};

    (void)state;
    for (size_t i = 0; i < COUNT(ends); i++) {
        const struct world *w = &ends[i];
        struct paced_step busy = {
            .n_texts = w->n_texts, .rows = w->n_texts, .n_tokens = w->n_texts, .step_seconds = 8};
        double time;

        draft_pace_learn(&p, &busy);
        time = run(w, &p, 200) / answer_time(w, 200);
        CHECK(time <= 1.03, "%d texts: %.3f of the time without drafts", w->n_texts, time);
    }
}

/* What was measured with one number of rows says nothing of the others but by proportion. */
static void test_nothing_possible(void **state)
{
    struct world w = {"none", 1, 0.1, 0.1, 1, 3, 0, false, 0, 0, 0};
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
    struct draft_pace p = {.opened[0] = true, .account = 1e9, .times.alone[1] = {1, 3}};

    (void)state;
    for (int n = 1; n <= 2 * PACE_ROWS; n++) {
        int rows = n;

        for (int i = 0; i < n; i++)
            texts[i] = (struct paced_text){.odds = &odds, .rows = 1, .possible = 64};
        if (n <= PACE_ROWS) {
            p.times.alone[n].n = 3;
            p.times.alone[n].seconds = 1;
        }
        p.times.alone[PACE_ROWS].n = 3;
        p.times.alone[PACE_ROWS].seconds = 1;
        draft_pace_plan(&p, texts, n, 0, 512);
        for (int i = 0; i < n; i++)
            rows += texts[i].n_drafts;
        CHECK(rows <= (n < PACE_ROWS ? PACE_ROWS : n), "%d texts: %d rows", n, rows);
        CHECK(rows > n || n >= PACE_ROWS * 3 / 4, "%d texts have no drafts at no cost", n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worlds),      cmocka_unit_test(test_change),
        cmocka_unit_test(test_fewer_texts), cmocka_unit_test(test_nothing_possible),
        cmocka_unit_test(test_many_texts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
