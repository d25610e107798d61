/* generate/statistics.h: the mean of numbers as they come, and how sure it is. */
#ifndef GENERATE_STATISTICS_H
#define GENERATE_STATISTICS_H

#include <math.h>

/* Mean and sum of squared deviations, updated number by number (Welford 1962). Start from {0}. */
struct statistics {
    long long n;
    double mean, squares;
};

static inline void statistics_add(struct statistics *s, double x)
{
    double before = x - s->mean;

    s->n++;
    s->mean += before / (double)s->n;
    s->squares += before * (x - s->mean);
}

/* Of the mean; 0 for a single number. */
static inline double statistics_error(const struct statistics *s)
{
    return s->n > 1 ? sqrt(s->squares / (double)(s->n - 1) / (double)s->n) : 0;
}

#endif
