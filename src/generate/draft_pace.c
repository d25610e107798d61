#include "generate/draft_pace.h"

#include <math.h>

#define FIRST_STEPS 2     /* plain ones, to have a measure */
#define WIDE_INTERVAL 16  /* drafting steps before one with the most that is better than none */
#define PLAIN_INTERVAL 64 /* drafting steps before a plain one renews the measure */
#define FIRST_ACCOUNT 1.0 /* of a plain step, where FIRST_SPAN steps or more are to come */
#define FIRST_READING 0.8 /* the same, of the account for reading */
#define FIRST_SPAN 100.0
#define MOST_ACCOUNT 8.0      /* of a plain step */
#define ALLOWANCE 0.007       /* of a plain step's time goes to the account */
#define READ_ALLOWANCE 0.003  /* and so much to that for reading */
#define LATER_ALLOWANCE 0.012 /* and after FIRST_SPAN steps */
#define LATER_READ_ALLOWANCE 0.01
#define MOST_DEBT 4.0     /* plain steps of reading that drafts have not paid for */
#define MARGIN 1.02       /* that drafts must promise to be better by */
#define LEAST_CHANCE 0.02 /* of a draft that is worth a thought */
#define DEAR_ROW 0.37     /* of a plain step, that an untried row may cost more than it seems */
#define BEHIND 8          /* tokens, that a drafter reads as it guesses */
#define LASTS 128.0       /* tokens, that having read a text is good for at most */
#define NEW_READ 0.033    /* of a plain step, for a token that is read, before it is known */
#define PROVEN 8.0f       /* first drafts tried, that tell how often they are right */
#define WHOLE_PART 4.0    /* times what reading all of a text costs that drafts must gain */
#define FIRST_INTERVAL 16 /* plain steps before a probe; doubled by each */
#define MOST_INTERVAL 256
#define LATE 8           /* measures that the average time of a guess is made of */
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

/* A plan as it grows draft by draft, the likeliest first. */
struct plan {
    double seconds[PACE_ROWS + 1]; /* of steps by rows of answers */
    int tried_rows;                /* at most */
    double chances[PACE_ROWS];     /* of each text, that all drafts so far are right */
    double tokens;                 /* expected */
    double rejections;             /* expected number of texts with a wrong draft */
    double rows_again;             /* then to be evaluated again, expected */
    int depth;
    double reading;       /* seconds for a token of each text, of drafters that are behind */
    double tried;         /* seconds of reading that are not proven to be worth it */
    double credit;        /* of the least trusted */
    double token_seconds; /* without drafts */
    double read_seconds;  /* of a token */
    double plain;         /* seconds of the step without drafts */
};

/* A token's part of the seconds that reading so many takes. */
static double share(const struct plan *plan, const struct paced_text *t, int reads)
{
    return reads * plan->read_seconds / fmin(fmax(t->left, 1), LASTS);
}

static double read_share(const struct plan *plan, const struct paced_text *t)
{
    return t->n_drafts == 0 ? share(plan, t, t->reads) : 0;
}

static double tried_seconds(const struct plan *plan, const struct paced_text *t)
{
    return t->n_drafts == 0 && !t->proven ? t->reads * plan->read_seconds : 0;
}

/* Seconds of a token that drafts save at best, right as often as one that has this chance. */
static double gain(const struct plan *plan, double c)
{
    return c / (1 + c) * plan->token_seconds;
}

/* How much its drafter has to read of a text: its tail, until drafts have been seen to be worth
 * more. */
static void weigh_reading(const struct draft_pace *p, const struct plan *plan, struct paced_text *t)
{
    double c = chance(&p->odds, t->odds, t->trust, 0);

    t->proven = p->odds.tries[t->trust][0] >= PROVEN;
    t->whole = t->behind <= t->tail ||
               (t->proven && WHOLE_PART * share(plan, t, t->behind) < gain(plan, c));
    t->reads = t->whole ? t->behind : t->tail;
    if (t->reads <= BEHIND)
        t->reads = 0;
}

/* Is there enough for what is not proven; have drafts paid for what was? */
static bool may_read(const struct draft_pace *p, const struct plan *plan,
                     const struct paced_text *t)
{
    if (t->reads == 0 || t->n_drafts > 0)
        return true;
    if (t->proven)
        return p->reading > -MOST_DEBT * plan->plain;
    return plan->tried + tried_seconds(plan, t) <= fmax(p->reading, 0);
}

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
        if (!may_read(p, plan, t))
            continue;
        if (c > *best && read_share(plan, t) < gain(plan, c)) {
            *best = c;
            found = i;
        }
    }
    return found;
}

static void plan_add(struct plan *plan, struct paced_text *t, int i, double c)
{
    plan->reading += read_share(plan, t);
    plan->tried += tried_seconds(plan, t);
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

    seconds += plan->depth * p->guess_seconds + plan->reading * tokens / n;
    *loss = seconds - plain;
    if (rows + drafts > plan->tried_rows)
        *loss += DEAR_ROW * plain * (rows + drafts - plan->tried_rows);
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

    if (read_share(plan, &texts[i]) > plan->token_seconds / 2)
        return;
    if (p->probe_interval == 0)
        p->probe_interval = FIRST_INTERVAL;
    if (++p->since_probe < p->probe_interval || loss > p->account || texts[i].possible == 0 ||
        texts[i].rows > 1 || texts[i].reads * plan->read_seconds > fmax(p->reading, 0))
        return;
    texts[i].n_drafts = 1;
    p->since_probe = 0;
    p->probe_interval = p->probe_interval < MOST_INTERVAL ? 2 * p->probe_interval : MOST_INTERVAL;
}

/* Seconds of steps by rows of answers, of which there are some without drafts; returns how many
 * have been tried, 0: nothing is known. Beside prompts tokens are worth what they would take by
 * themselves: answers that end sooner do not spare the prompts' rows. */
static int step_seconds(const struct draft_pace *p, int rows, int prompt_rows,
                        double seconds[PACE_ROWS + 1])
{
    int tried = step_time_alone(&p->times, seconds);
    double row = step_time_row(&p->times), plain = seconds[rows];

    if (prompt_rows == 0 || p->times.mixed.n == 0)
        return prompt_rows == 0 ? tried : 0;
    if (tried == 0)
        plain = step_time_mixed(&p->times, rows, 0);
    for (int i = 0; i <= PACE_ROWS; i++)
        seconds[i] = fmax(plain + row * (i - rows), 0);
    return PACE_ROWS;
}

/* The part of what is there first that so many steps are worth. */
static double span_part(const struct draft_pace *p)
{
    return fmin((p->steps + p->left) / FIRST_SPAN, 1);
}

void draft_pace_plan(struct draft_pace *p, struct paced_text *texts, int n, int prompt_rows,
                     int most_rows)
{
    struct plan plan = {.tokens = n, .credit = 1};
    int rows = 0, counts[PACE_ROWS] = {0};
    double best, c, loss;
    int mixed = prompt_rows > 0, since_plain = p->since_plain[mixed];
    bool worth = false, wide = since_plain % WIDE_INTERVAL == WIDE_INTERVAL - 1;

    p->left = 0;
    for (int i = 0; i < n; i++) {
        texts[i].n_drafts = 0;
        rows += texts[i].rows;
        p->left = texts[i].left > p->left ? texts[i].left : p->left;
    }
    if (most_rows > PACE_ROWS)
        most_rows = PACE_ROWS;
    if (rows >= most_rows || !p->opened[mixed] || since_plain >= PLAIN_INTERVAL)
        return;
    /* Of so many texts, steps without drafts come first. */
    if (!mixed && p->times.alone[n].n < FIRST_STEPS)
        return;
    plan.tried_rows = step_seconds(p, rows, prompt_rows, plan.seconds);
    plan.plain = plan.seconds[rows];
    plan.token_seconds = plan.plain / n;
    plan.read_seconds = p->n_reads ? p->read_seconds : NEW_READ * plan.plain;
    for (int i = 0; i < n; i++) {
        plan.chances[i] = 1;
        weigh_reading(p, &plan, &texts[i]);
    }
    best = MARGIN / plan.token_seconds;
    /* What was never tried is taken in small steps. */
    if (most_rows > 2 * plan.tried_rows + 2)
        most_rows = 2 * plan.tried_rows + 2;
    for (int drafts = 1; rows + drafts <= most_rows; drafts++) {
        int i = likeliest(p, &plan, texts, n, &c);
        double speed;

        if (i < 0)
            break;
        plan_add(&plan, &texts[i], i, c);
        speed = plan_speed(p, &plan, n, rows, drafts, &loss);
        if (speed <= best || loss > p->account + span_part(p) * plan.credit * plan.seconds[rows])
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

/* What there is to lose comes with the second step of a sort, when there is something to go by: as
 * much as a few percent of all steps that have been made and are to come. */
static void open_accounts(struct draft_pace *p, bool mixed, int times, double plain)
{
    double more = span_part(p) - p->granted;

    p->opened[mixed] |= times >= FIRST_STEPS;
    if (!p->opened[mixed] || more <= 0)
        return;
    p->account += FIRST_ACCOUNT * more * plain;
    p->reading += FIRST_READING * more * plain;
    p->granted += more;
}

static void learn_guesses(struct draft_pace *p, const struct paced_step *s)
{
    double guesses = fmin(s->depth * p->guess_seconds, s->guess_seconds);

    if (s->read == 0) {
        average(&p->guess_seconds, &p->n_guesses, s->guess_seconds / s->depth);
        guesses = s->guess_seconds;
    } else {
        double reading = s->guess_seconds - guesses;

        average(&p->read_seconds, &p->n_reads, reading / s->read);
        p->reading -= reading;
    }
    p->account -= guesses;
}

/* Half of what drafts have saved in a step goes to what was read for them, until that is paid. */
static void pay_reading(struct draft_pace *p, double saved)
{
    double part = fmin(fmax(saved, 0) / 2, fmax(-p->reading, 0));

    p->account -= part;
    p->reading += part;
}

static double within(double x, double most)
{
    return fmin(fmax(x, -most), most);
}

void draft_pace_learn(struct draft_pace *p, const struct paced_step *s)
{
    bool drafted = s->depth > 0, mixed = s->prompt_rows > 0;
    double seconds, plain, by_rows[PACE_ROWS + 1], before;

    if (s->rows > PACE_ROWS || s->rows < 1)
        return;
    p->since_plain[mixed] = drafted ? p->since_plain[mixed] + 1 : 0;
    seconds = step_time_learn(&p->times, s->rows, s->prompt_rows, s->step_seconds);
    step_seconds(p, s->n_texts, s->prompt_rows, by_rows);
    plain = by_rows[s->n_texts];
    p->steps += p->steps < FIRST_SPAN;
    open_accounts(p, mixed, mixed ? p->times.mixed.n : p->times.alone[s->rows].n, plain);
    before = p->account;
    if (drafted || s->rows != s->n_texts) {
        /* The rows of prompts, dearer the more they look back on, would be there anyway. */
        p->account += s->n_tokens * plain / s->n_texts - (mixed ? by_rows[s->rows] : seconds);
    } else {
        p->account += (p->steps < FIRST_SPAN ? ALLOWANCE : LATER_ALLOWANCE) * seconds;
        p->reading += (p->steps < FIRST_SPAN ? READ_ALLOWANCE : LATER_READ_ALLOWANCE) * seconds;
    }
    if (drafted) {
        learn_guesses(p, s);
        pay_reading(p, p->account - before);
    }
    p->account = within(p->account, MOST_ACCOUNT * plain);
    p->reading = within(p->reading, MOST_ACCOUNT * plain);
}
