/* generate/settle.c: what a device says of the first arrivals, against all that roundings can do.
 *
 * The sampler works with log-probabilities in f32, made with a sum of its own; so does the device
 * with arrivals. Both are off from the numbers that the rule defines by far less than DRAW_SLACK,
 * within the bounds below. Whatever would come out otherwise if something moved by so much is not
 * settled here.
 */
#include "generate/settle.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

/* What arithmetic in f32 keeps to a tenth of the slack: logits of this size, and the winner's no
 * farther below the largest, in its own units and in those of the temperature. */
#define MOST_LOGIT 4096
#define MOST_BELOW 64

enum answer { NO, YES, PERHAPS };

static enum answer both(enum answer a, enum answer b)
{
    return a == NO || b == NO ? NO : a == PERHAPS || b == PERHAPS ? PERHAPS : YES;
}

/* Is it above the floor? */
static enum answer passes_floor(const struct drawn *d, const struct drawn_token *t, float floor)
{
    double above = (double)t->logit - (double)d->max - (double)floor;

    return above > (double)DRAW_SLACK ? YES : above < -(double)DRAW_SLACK ? NO : PERHAPS;
}

/* Do those above it hold less than top_p? */
static enum answer passes_top_p(const struct drawn *d, const struct drawn_token *t, float top_p)
{
    double mass = (double)d->mass, limit = (double)top_p * mass;

    if (top_p >= 1)
        return YES;
    return (double)t->mass_above[1] < limit - (double)DRAW_SLACK * mass   ? YES
           : (double)t->mass_above[0] > limit + (double)DRAW_SLACK * mass ? NO
                                                                          : PERHAPS;
}

/* Are there fewer above it than k? */
static enum answer passes_top_k(const struct drawn_token *t, int k)
{
    return t->n_above[1] < k ? YES : t->n_above[0] >= k ? NO : PERHAPS;
}

static enum answer is_kept(const struct drawn *d, const struct draw_rule *r,
                           const struct drawn_token *t)
{
    return both(both(passes_floor(d, t, r->floor), passes_top_p(d, t, r->top_p)),
                passes_top_k(t, r->top_k));
}

/* When it arrives, in the logarithm. */
static double arrival_of(const struct drawn *d, const struct draw_rule *r,
                         const struct drawn_token *t)
{
    return log(-log1p(-draw_number(t->id, r->key))) -
           ((double)t->logit - (double)d->max) * (double)r->per_temp;
}

/* Are its numbers small enough for the slack? */
static bool is_plain(const struct drawn *d, const struct draw_rule *r, const struct drawn_token *t)
{
    double below = (double)d->max - (double)t->logit;

    return fabsf(d->max) <= MOST_LOGIT && below <= MOST_BELOW &&
           below * (double)r->per_temp <= MOST_BELOW;
}

int32_t settle(const struct drawn *d, const struct draw_rule *r)
{
    const struct drawn_token *first = NULL;
    double time = 0;

    /* In order of arrival, but for ties: one that comes before the first that is kept and may be
     * kept, or right behind it, could be the one. */
    for (int i = 0; i < d->n; i++) {
        const struct drawn_token *t = &d->first[i];
        enum answer kept = is_kept(d, r, t);
        double arrival = arrival_of(d, r, t);

        if (first && arrival > time + (double)DRAW_SLACK)
            return is_plain(d, r, first) ? first->id : -1;
        if (kept == NO)
            continue;
        if (first || kept == PERHAPS)
            return -1;
        first = t;
        time = arrival;
    }
    return first && d->all && is_plain(d, r, first) ? first->id : -1;
}
