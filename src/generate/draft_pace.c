#include "generate/draft_pace.h"

#include <math.h>

#define FIRST_STEPS 2     /* plain ones, to have a measure */
#define WIDE_INTERVAL 16  /* drafting steps before one with the most that is better than none */
#define PLAIN_INTERVAL 64 /* drafting steps before a plain one renews the measure */
#define FIRST_ACCOUNT 1.0 /* of a plain step */
#define MOST_ACCOUNT 8.0  /* of a plain step */
#define ALLOWANCE 0.007   /* of a plain step's time goes to the account */
#define MARGIN 1.02       /* that drafts must promise to be better by */
#define LEAST_CHANCE 0.02 /* of a draft that is worth a thought */
#define NEW_ROW 0.03      /* of a plain step, for a row of which nothing is known */
#define DEAR_ROW 0.4      /* and what it may cost at worst */
#define FIRST_INTERVAL 16 /* plain steps before a probe; doubled by each */
#define MOST_INTERVAL 256
#define LATE 8           /* measures that an average is made of */
#define OWN_WEIGHT 4.0   /* tries of a text that count as much as those of all */
#define MOST_TRIES 24.0f /* then they count half */

/* By trust: the chance of drafts that were never tried, and how many plain steps they may take from
 * the account beyond what is there. So a few bad guesses do not stand in the way of good ones. */
static const double first_chance[DRAFT_TRUSTS] = {0.5, 0.7, 0.8, 0.9};
static const double credit[DRAFT_TRUSTS] = {0, 0.25, 0.5, 1};

static int depth_class(int depth)
{
    static const int begins[PACE_DEPTHS] = {0, 1, 2, 3, 4, 6, 9, 16};
    int i = PACE_DEPTHS - 1;

    while (begins[i] > depth)
        i--;
    return i;
}

static void odds_add(struct draft_odds *o, int trust, int depth, bool right)
{
    float *hits = &o->hits[trust][depth_class(depth)];
    float *tries = &o->tries[trust][depth_class(depth)];

    *hits += right;
    *tries += 1;
    if (*tries > MOST_TRIES) {
        *hits /= 2;
        *tries /= 2;
    }
}

void draft_odds_learn(struct draft_odds *o, int trust, int n_drafts, int n_right)
{
    for (int i = 0; i < n_right; i++)
        odds_add(o, trust, i, true);
    if (n_right < n_drafts)
        odds_add(o, trust, n_right, false);
}

/* The chance that a draft is right if those before it are: of all texts where the text's own tries
 * are few, and of the depth before where those of all are. */
static double chance(const struct draft_odds *all, const struct draft_odds *own, int trust,
                     int depth)
{
    int class = depth_class(depth);
    double p = first_chance[trust];

    for (int i = 0; i <= class; i++)
        p = ((double)all->hits[trust][i] + p) / ((double)all->tries[trust][i] + 1);
    return ((double)own->hits[trust][class] + OWN_WEIGHT * p) /
           ((double)own->tries[trust][class] + OWN_WEIGHT);
}

/* Seconds of steps by rows: as measured, between measures in proportion, beyond them half as steep.
 * Returns how many rows have been tried; 0: no measure at all, and all is 0. */
static int step_seconds(const struct draft_pace *p, double seconds[PACE_ROWS + 1])
{
    int first = 0, last = 0;
    double slope;

    for (int i = 0; i <= PACE_ROWS; i++)
        seconds[i] = 0;
    for (int i = 1; i <= PACE_ROWS; i++) {
        double now = p->steps[i].seconds, before = last ? seconds[last] : now;

        if (p->steps[i].n == 0)
            continue;
        for (int k = last; k <= i; k++)
            seconds[k] = before + (now - before) * (k - last) / (i - last);
        first = first ? first : i;
        last = i;
    }
    if (last == 0)
        return 0;
    slope = NEW_ROW * seconds[first];
    if (last > first)
        slope = fmax(slope, (seconds[last] - seconds[first]) / (last - first) / 2);
    for (int i = last + 1; i <= PACE_ROWS; i++)
        seconds[i] = seconds[last] + slope * (i - last);
    return last;
}

/* A plan as it grows draft by draft, the likeliest first. */
struct plan {
    double seconds[PACE_ROWS + 1]; /* of steps by rows */
    int tried;                     /* rows, at most */
    double chances[PACE_ROWS];     /* of each text, that all drafts so far are right */
    double tokens;                 /* expected */
    double rejections;             /* expected number of texts with a wrong draft */
    double rows_again;             /* then to be evaluated again, expected */
    int depth;
    double credit; /* of the least trusted */
};

static int likeliest(const struct draft_pace *p, const struct plan *plan,
                     const struct paced_text *texts, int n, double *best)
{
    int found = -1;

    *best = LEAST_CHANCE;
    for (int i = 0; i < n; i++) {
        const struct paced_text *t = &texts[i];
        double c;

        if (t->n_drafts >= t->possible || t->rows > 1)
            continue;
        c = plan->chances[i] * chance(&p->odds, t->odds, t->trust, t->n_drafts);
        if (c > *best) {
            *best = c;
            found = i;
        }
    }
    return found;
}

static void plan_add(struct plan *plan, struct paced_text *t, int i, double c)
{
    plan->tokens += c;
    plan->rejections += plan->chances[i] - c;
    plan->rows_again += (plan->chances[i] - c) * (t->n_drafts + 1);
    plan->chances[i] = c;
    t->n_drafts++;
    plan->credit = fmin(plan->credit, credit[t->trust]);
    if (t->n_drafts > plan->depth)
        plan->depth = t->n_drafts;
}

/* Tokens a second; *loss is the time lost if all drafts are wrong. */
static double plan_speed(const struct draft_pace *p, const struct plan *plan, int n, int rows,
                         int drafts, double *loss)
{
    double plain = plan->seconds[rows], seconds = plan->seconds[rows + drafts];
    double tokens = plan->tokens, row = (seconds - plain) / drafts;

    seconds += plan->depth * p->guess_seconds;
    *loss = seconds - plain;
    if (rows + drafts > plan->tried)
        *loss += (DEAR_ROW - NEW_ROW) * plain * (rows + drafts - plan->tried);
    if (p->goes_back) { /* a plain step must follow for that text */
        tokens += plan->rejections;
        seconds += plan->rejections * plain / n + plan->rows_again * fmax(row, 0);
    }
    return tokens / seconds;
}

/* One draft for one text now and then, where none seems worth it: things may have changed. */
static void probe(struct draft_pace *p, const struct plan *plan, struct paced_text *texts, int n,
                  int rows)
{
    double loss = plan->seconds[rows + 1] - plan->seconds[rows] + p->guess_seconds;
    int i = p->since_probe % n;

    if (p->probe_interval == 0)
        p->probe_interval = FIRST_INTERVAL;
    if (++p->since_probe < p->probe_interval || loss > p->account || texts[i].possible == 0 ||
        texts[i].rows > 1)
        return;
    texts[i].n_drafts = 1;
    p->since_probe = 0;
    p->probe_interval = p->probe_interval < MOST_INTERVAL ? 2 * p->probe_interval : MOST_INTERVAL;
}

void draft_pace_plan(struct draft_pace *p, struct paced_text *texts, int n, int most_rows)
{
    struct plan plan = {.tokens = n, .credit = 1};
    int rows = 0, counts[PACE_ROWS] = {0};
    double best, c, loss;
    bool worth = false, wide = p->since_plain % WIDE_INTERVAL == WIDE_INTERVAL - 1;

    for (int i = 0; i < n; i++) {
        texts[i].n_drafts = 0;
        rows += texts[i].rows;
    }
    if (most_rows > PACE_ROWS)
        most_rows = PACE_ROWS;
    if (rows >= most_rows || !p->opened || p->since_plain >= PLAIN_INTERVAL)
        return;
    for (int i = 0; i < n; i++)
        plan.chances[i] = 1;
    plan.tried = step_seconds(p, plan.seconds);
    best = n / plan.seconds[rows] * MARGIN;
    /* What was never tried is taken in small steps. */
    if (most_rows > 2 * plan.tried + 2)
        most_rows = 2 * plan.tried + 2;
    for (int drafts = 1; rows + drafts <= most_rows; drafts++) {
        int i = likeliest(p, &plan, texts, n, &c);
        double speed;

        if (i < 0)
            break;
        plan_add(&plan, &texts[i], i, c);
        speed = plan_speed(p, &plan, n, rows, drafts, &loss);
        if (speed <= best || loss > p->account + plan.credit * plan.seconds[rows])
            continue;
        best = wide ? best : speed;
        worth = true;
        for (int k = 0; k < n; k++)
            counts[k] = texts[k].n_drafts;
    }
    for (int i = 0; i < n; i++)
        texts[i].n_drafts = counts[i];
    if (worth)
        p->since_probe = p->probe_interval = 0;
    else
        probe(p, &plan, texts, n, rows);
}

static void average(double *value, int *n, double x)
{
    *n += *n < LATE;
    *value += (x - *value) / *n;
}

/* Without the odd step in which the machine was busy with something else. */
static double measured(const struct draft_pace *p, const struct paced_step *s)
{
    if (p->steps[s->rows].n < 3)
        return s->step_seconds;
    return fmin(s->step_seconds, 2 * p->steps[s->rows].seconds);
}

void draft_pace_learn(struct draft_pace *p, const struct paced_step *s)
{
    bool drafted = s->depth > 0;
    double seconds, plain, by_rows[PACE_ROWS + 1];

    if (s->rows > PACE_ROWS || s->rows < 1)
        return;
    p->since_plain = drafted ? p->since_plain + 1 : 0;
    seconds = measured(p, s);
    average(&p->steps[s->rows].seconds, &p->steps[s->rows].n, seconds);
    if (drafted && !s->first_guesses) {
        average(&p->guess_seconds, &p->n_guesses, s->guess_seconds / s->depth);
        seconds += s->guess_seconds;
    }
    step_seconds(p, by_rows);
    plain = by_rows[s->n_texts];
    if (!p->opened && p->steps[s->rows].n >= FIRST_STEPS) {
        p->opened = true;
        p->account = FIRST_ACCOUNT * plain;
    }
    if (drafted || s->rows != s->n_texts)
        p->account += s->n_tokens * plain / s->n_texts - seconds;
    else
        p->account += ALLOWANCE * plain;
    p->account = fmin(fmax(p->account, -MOST_ACCOUNT * plain), MOST_ACCOUNT * plain);
}
