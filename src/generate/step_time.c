#include "generate/step_time.h"

#include <math.h>

#define LATE 8        /* measures that an average of one number of rows is made of */
#define LATE_MIXED 64 /* and one of mixed steps */
#define NEW_ROW 0.03  /* of a step with one row, for a row of which nothing is known */
#define PRIOR 64.0    /* squared rows that must be seen to differ before slopes are believed */
#define DEAREST 4.0   /* a row, in rows at the average price */
#define CHEAPEST 0.5  /* rows of a step, in the same */
#define FEW 3         /* measures that do not tell what is too long */
#define TOO_LONG 2.0

int step_time_alone(const struct step_time *t, double seconds[STEP_ROWS + 1])
{
    int first = 0, last = 0;
    double slope, least[STEP_ROWS + 1], longer = HUGE_VAL;

    for (int i = STEP_ROWS; i >= 0; i--) {
        if (t->alone[i].n > 0)
            longer = fmin(longer, t->alone[i].seconds);
        least[i] = longer;
        seconds[i] = 0;
    }
    for (int i = 1; i <= STEP_ROWS; i++) {
        double now = least[i], before = last ? seconds[last] : now;

        if (t->alone[i].n == 0)
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
    for (int i = last + 1; i <= STEP_ROWS; i++)
        seconds[i] = seconds[last] + slope * (i - last);
    return last;
}

static double average_price(const struct step_time *t)
{
    return t->mixed.n ? t->mixed.seconds / (t->mixed.own + t->mixed.prompt) : 0;
}

/* Seconds of a row of each sort: least squares about the averages, drawn to the average price of a
 * row by as much as PRIOR says. */
static void slopes(const struct step_time *t, double *prompt, double *own)
{
    double price = average_price(t), ridge, a, b, c, x, y, det;

    *prompt = *own = 0;
    if (t->mixed.n == 0)
        return;
    ridge = PRIOR / t->mixed.n;
    a = t->mixed.prompt_prompt + ridge;
    b = t->mixed.prompt_own;
    c = t->mixed.own_own + ridge;
    x = t->mixed.prompt_seconds + ridge * price;
    y = t->mixed.own_seconds + ridge * price;
    det = a * c - b * b; /* > 0: variances and their covariance, and the ridge */
    *prompt = fmin(fmax((c * x - b * y) / det, 0), DEAREST * price);
    *own = fmin(fmax((a * y - b * x) / det, 0), DEAREST * price);
}

double step_time_row(const struct step_time *t)
{
    double prompt, own;

    slopes(t, &prompt, &own);
    return own;
}

double step_time_mixed(const struct step_time *t, int own, int prompt)
{
    double per_prompt, per_own, line;

    slopes(t, &per_prompt, &per_own);
    line =
        t->mixed.seconds + per_own * (own - t->mixed.own) + per_prompt * (prompt - t->mixed.prompt);
    return fmax(line, CHEAPEST * average_price(t) * (own + prompt));
}

static void average(double *value, int n, double x)
{
    *value += (x - *value) / n;
}

/* Of the first few the least counts: others were held up by something. */
static double learn_alone(struct step_time *t, int rows, double seconds)
{
    double *late = &t->alone[rows].seconds;
    int *n = &t->alone[rows].n;

    if (*n >= FEW)
        seconds = fmin(seconds, TOO_LONG * *late);
    *n += *n < LATE;
    if (*n > 1 && *n <= FEW)
        *late = fmin(*late, seconds);
    else
        average(late, *n, seconds);
    return seconds;
}

static double learn_mixed(struct step_time *t, int own, int prompt, double seconds)
{
    double o = own - t->mixed.own, p = prompt - t->mixed.prompt, s;
    double keep;
    int n;

    if (t->mixed.n >= FEW)
        seconds = fmin(seconds, TOO_LONG * step_time_mixed(t, own, prompt));
    s = seconds - t->mixed.seconds;
    t->mixed.n += t->mixed.n < LATE_MIXED;
    n = t->mixed.n;
    keep = 1 - 1.0 / n; /* of the distance to the averages, when they have moved */
    average(&t->mixed.own, n, own);
    average(&t->mixed.prompt, n, prompt);
    average(&t->mixed.seconds, n, seconds);
    average(&t->mixed.own_own, n, o * o * keep);
    average(&t->mixed.prompt_prompt, n, p * p * keep);
    average(&t->mixed.prompt_own, n, p * o * keep);
    average(&t->mixed.own_seconds, n, o * s * keep);
    average(&t->mixed.prompt_seconds, n, p * s * keep);
    return seconds;
}

double step_time_learn(struct step_time *t, int own, int prompt, double seconds)
{
    return prompt > 0 ? learn_mixed(t, own, prompt, seconds) : learn_alone(t, own, seconds);
}
