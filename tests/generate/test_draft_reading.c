/* What a drafter reads of texts that come and go: with times and chances that are known, all texts
 * take hardly longer than without drafts where these are useless, however long prompts are and
 * however short answers, and much less where they are good. */
#include "testing.h"

#include "generate/draft_pace.h"

#define MAX_AT_ONCE 16
#define TAIL 24
#define DRAFTS 8

struct texts {
    const char *name;
    int n, at_once, prompt, length; /* tokens */
    double row, guess, read;        /* of the first row of a step: another one, a guess of one
                                       text, what the drafter reads of a token */
    double right;                   /* chance of a draft */
    double noise;                   /* steps take up to so much longer, by chance */
    double at_most;                 /* time it may take, as a part of that without drafts */
};

/* A text that goes on; tokens that the drafter has read end at from + length. */
struct text {
    struct draft_odds odds;
    int done, from, length;
};

static double unit(void)
{
    return (double)(random_u64() >> 11) * 0x1p-53;
}

static int unread(const struct texts *w, const struct text *t)
{
    return w->prompt + t->done - t->from - t->length;
}

static struct paced_text look(const struct texts *w, const struct text *t, bool drafts)
{
    int left = w->length - t->done;

    return (struct paced_text){
        .odds = &t->odds,
        .rows = 1,
        .possible = !drafts             ? 0
                    : left - 1 < DRAFTS ? left - 1
                                        : DRAFTS,
        .behind = t->from > 0 ? w->prompt + t->done : unread(w, t),
        .tail = unread(w, t) < TAIL ? unread(w, t) : TAIL,
        .left = left - 1,
    };
}

/* Read what was planned, guess; returns the tokens read. */
static int guess(const struct texts *w, struct text *t, const struct paced_text *paced)
{
    int all = w->prompt + t->done, n;

    if (paced->whole ? t->from > 0 : unread(w, t) > TAIL) {
        t->from = paced->whole ? 0 : all - TAIL;
        t->length = 0;
    }
    n = unread(w, t);
    t->length += n;
    return n;
}

static int check_drafts(const struct texts *w, struct draft_pace *p, struct text *t, int n)
{
    int right = 0;

    while (right < n && unit() < w->right)
        right++;
    draft_odds_learn(&t->odds, 0, n, right);
    draft_odds_learn(&p->odds, 0, n, right);
    return right;
}

/* One step of texts [n], beside so many rows of prompts. */
static double step(const struct texts *w, struct draft_pace *p, struct text *texts, int n,
                   int prompt_rows, bool drafts)
{
    struct paced_text paced[MAX_AT_ONCE];
    struct paced_step s = {.n_texts = n, .prompt_rows = prompt_rows};
    int jobs = 0, read = 0;

    for (int i = 0; i < n; i++)
        paced[i] = look(w, &texts[i], drafts);
    if (n > 0)
        draft_pace_plan(p, paced, n, prompt_rows, 512);
    for (int i = 0; i < n; i++) {
        int k = paced[i].n_drafts, right;

        if (k > 0) {
            read += guess(w, &texts[i], &paced[i]);
            s.read += paced[i].reads;
            jobs++;
        }
        right = check_drafts(w, p, &texts[i], k);
        s.rows += 1 + k;
        s.n_tokens += 1 + right;
        s.depth = k > s.depth ? k : s.depth;
        texts[i].done += 1 + right;
    }
    s.guess_seconds = s.depth * (w->guess + w->read * jobs) + (read - jobs) * w->read;
    s.step_seconds = (1 + w->row * (s.rows + prompt_rows - 1)) * (1 + w->noise * unit());
    if (n > 0)
        draft_pace_learn(p, &s);
    return s.guess_seconds + s.step_seconds;
}

/* Seconds of all texts. A prompt is read in one step, which gives the first token. */
static double run(const struct texts *w, struct draft_pace *p, bool drafts)
{
    struct text texts[MAX_AT_ONCE];
    int n = 0, begun = 0;
    double time = 0;

    while (n > 0 || begun < w->n) {
        int fresh = 0;

        while (n + fresh < w->at_once && begun + fresh < w->n)
            fresh++;
        time += step(w, p, texts, n, fresh * w->prompt, drafts);
        begun += fresh;
        for (; fresh > 0; fresh--, n++)
            texts[n] = (struct text){.done = 1 + n * 5 % (w->length / 8 + 1)};
        for (int i = 0; i < n;) {
            if (texts[i].done >= w->length)
                texts[i] = texts[--n];
            else
                i++;
        }
    }
    return time;
}

static const struct texts all[] = {
    /* One text; rows, guesses and reading as of a small model, 14 M and 1.3 M parameters */
    {"small, useless, one of 60", 1, 1, 13, 60, 0.28, 0.18, 0.03, 0, 0.1, 1.03},
    {"small, useless, one of 16", 1, 1, 13, 16, 0.28, 0.18, 0.03, 0, 0.1, 1.03},
    {"small, useless, one of 200", 1, 1, 13, 200, 0.28, 0.18, 0.03, 0, 0.1, 1.03},
    {"small, good, one of 60", 1, 1, 13, 60, 0.28, 0.18, 0.03, 0.65, 0.1, 1.03},
    {"small, good, one of 400", 1, 1, 13, 400, 0.28, 0.18, 0.03, 0.65, 0.1, 1.02},
    {"small, very good, one of 400", 1, 1, 13, 400, 0.28, 0.18, 0.03, 0.9, 0.1, 0.85},
    {"small, useless, one of 128, long prompt", 1, 1, 1000, 128, 0.28, 0.18, 0.03, 0, 0.1, 1.03},
    {"small, useless, 4 texts of 60, 4 at a time", 4, 4, 13, 60, 0.28, 0.18, 0.03, 0, 0.1, 1.03},
    {"small, good, 4 texts of 60, 4 at a time", 4, 4, 13, 60, 0.28, 0.18, 0.03, 0.65, 0.1, 1.03},
    {"small, useless, 24 of 60, 4 at a time", 24, 4, 13, 60, 0.28, 0.18, 0.03, 0, 0.1, 1.03},
    {"small, good, 24 of 60, 4 at a time", 24, 4, 13, 60, 0.28, 0.18, 0.03, 0.65, 0.1, 1.03},
    {"small, good, 24 of 16, 4 at a time", 24, 4, 13, 16, 0.28, 0.18, 0.03, 0.65, 0.1, 1.03},
    {"small, good, 24 of 60, 1 at a time", 24, 1, 13, 60, 0.28, 0.18, 0.03, 0.65, 0.1, 1.01},
    {"small, useless, 24 of 60, 1 at a time", 24, 1, 13, 60, 0.28, 0.18, 0.03, 0, 0.1, 1.03},
    {"small, good, 96 of 60, 16 at a time", 96, 16, 13, 60, 0.28, 0.18, 0.03, 0.65, 0.1, 1.03},
    {"small, useless, 96 of 60, 16 at a time", 96, 16, 13, 60, 0.28, 0.18, 0.03, 0, 0.1, 1.03},
    /* The same at 4 bits, where reading takes longer beside a step */
    {"4 bits, useless, one of 100", 1, 1, 13, 100, 0.15, 0.25, 0.07, 0, 0.1, 1.03},
    {"4 bits, useless, one of 400", 1, 1, 13, 400, 0.15, 0.25, 0.07, 0, 0.1, 1.03},
    {"4 bits, useless, one of 2000", 1, 1, 13, 2000, 0.15, 0.25, 0.07, 0, 0.1, 1.03},
    {"4 bits, good, one of 400", 1, 1, 13, 400, 0.15, 0.25, 0.07, 0.75, 0.1, 1.0},
    {"4 bits, good, one of 2000", 1, 1, 13, 2000, 0.15, 0.25, 0.07, 0.75, 0.1, 0.95},
    {"4 bits, good, 24 of 60, 1 at a time", 24, 1, 13, 60, 0.15, 0.25, 0.07, 0.75, 0.1, 1.03},
    {"4 bits, useless, 24 of 60, 1 at a time", 24, 1, 13, 60, 0.15, 0.25, 0.07, 0, 0.1, 1.03},
    {"4 bits, half good, one of 2000", 1, 1, 13, 2000, 0.15, 0.25, 0.07, 0.4, 0.1, 1.03},
    /* As of a large one, of 8 B and 1 B parameters */
    {"large, useless, one of 60", 1, 1, 13, 60, 0.03, 0.13, 0.005, 0, 0.1, 1.03},
    {"large, useless, one of 128, long prompt", 1, 1, 4000, 128, 0.03, 0.13, 0.005, 0, 0.1, 1.03},
    {"large, good, one of 128", 1, 1, 13, 128, 0.03, 0.13, 0.005, 0.8, 0.1, 0.65},
    {"large, good, one of 400, long prompt", 1, 1, 1000, 400, 0.03, 0.13, 0.005, 0.8, 0.1, 0.65},
    {"large, good, 24 of 60, 4 at a time", 24, 4, 13, 60, 0.03, 0.13, 0.005, 0.8, 0.1, 0.8},
    {"large, useless, 24 of 60, 4 at a time", 24, 4, 13, 60, 0.03, 0.13, 0.005, 0, 0.1, 1.03},
    {"large, good, 24 of 60 behind 500, 4 at a time", 24, 4, 500, 60, 0.03, 0.13, 0.005, 0.8, 0.1,
     0.93},
    {"large, useless, 24 of 60 behind 500", 24, 4, 500, 60, 0.03, 0.13, 0.005, 0, 0.1, 1.03},
    {"large, good, 96 of 60, 16 at a time", 96, 16, 13, 60, 0.03, 0.13, 0.005, 0.8, 0.1, 1},
    {"good, 100 of 8 behind 500", 100, 1, 500, 8, 0.05, 0.05, 0.01, 0.8, 0.1, 1.03},
    {"good, 10 of 100 behind 500", 10, 1, 500, 100, 0.05, 0.05, 0.01, 0.8, 0.1, 0.65},
    /* Nothing to gain or lose but by reading, over and over */
    {"even, 96 of 60, 16 at a time", 96, 16, 13, 60, 0.04, 0.1, 0.02, 0.65, 0.2, 1.03},
    {"about even, 96 of 60, 16 at a time", 96, 16, 13, 60, 0.06, 0.1, 0.01, 0.65, 0.2, 1.03},
    {"about even, 24 of 60, 4 at a time", 24, 4, 100, 60, 0.15, 0.05, 0.02, 0.65, 0.3, 1.03},
    {"even, 200 of 60, 8 at a time", 200, 8, 100, 60, 0.08, 0.08, 0.01, 0.65, 0.3, 1.03},
    /* A drafter that is as large as the model */
    {"same, right, one of 200", 1, 1, 13, 200, 0.03, 1, 0.03, 1, 0.1, 1.03},
    {"same, right, 24 of 60, 4 at a time", 24, 4, 100, 60, 0.03, 1, 0.03, 1, 0.1, 1.03},
};

static void test_texts(void **state)
{
    enum { ROUNDS = 24 };

    (void)state;
    for (size_t i = 0; i < COUNT(all); i++) {
        double with = 0, without = 0;

        for (int round = 0; round < ROUNDS; round++) {
            struct draft_pace p = {0}, none = {0};

            with += run(&all[i], &p, true);
            without += run(&all[i], &none, false);
        }
        CHECK(with <= all[i].at_most * without, "%s: %.3f of the time without drafts", all[i].name,
              with / without);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
