#include "generate/divergence.h"

#include <stdlib.h>

#include "base/memory.h"
#include "generate/logits.h"
#include "generate/logprob_file.h"
#include "generate/statistics.h"

/* What a model gives no chance at all: log p is held above. */
static const double least_log = -100;

struct divergences {
    struct statistics divergence, same_top, base_nll, log_ratio;
    float *each; /* [n] */
    long long n;
    int vocab_size;
    float *p; /* [vocab_size] */
};

struct divergences *divergences_open(long long n, int vocab_size, clm_error *err)
{
    struct divergences *d = mem_zeroed(1, sizeof *d);

    if (d) {
        d->n = n;
        d->vocab_size = vocab_size;
        d->each = mem_zeroed((size_t)n, sizeof *d->each);
        d->p = mem_zeroed((size_t)vocab_size, sizeof *d->p);
    }
    if (!d || !d->each || !d->p) {
        divergences_close(d);
        return fail_null(err, CLM_ERR_NOMEM, "no memory for %lld predictions", n);
    }
    return d;
}

void divergences_close(struct divergences *d)
{
    if (!d)
        return;
    mem_free(d->each);
    mem_free(d->p);
    mem_free(d);
}

void divergences_add(struct divergences *d, const float *base, const float *logits, int32_t best,
                     double log_sum, int32_t token)
{
    float max = logits_max(base, d->vocab_size);
    double total = logits_exp(d->p, base, d->vocab_size, max, 1), sum = 0;
    double base_sum = (double)max + log(total), nll;

    for (int i = 0; i < d->vocab_size; i++) {
        double q = (double)logits[i] - log_sum;

        if (base[i] > LOGPROB_LEAST)
            sum += (double)d->p[i] / total *
                   ((double)base[i] - base_sum - (q > least_log ? q : least_log));
    }
    sum = sum > 0 ? sum : 0; /* below it by rounding alone */
    if (d->divergence.n < d->n)
        d->each[d->divergence.n] = (float)sum;
    nll = log_sum - (double)logits[token];
    statistics_add(&d->divergence, sum);
    statistics_add(&d->same_top, base[best] == max);
    statistics_add(&d->base_nll, base_sum - (double)base[token]);
    statistics_add(&d->log_ratio, nll - (base_sum - (double)base[token]));
}

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return (x > y) - (x < y);
}

/* The least of sorted numbers that a share of all is not above. */
static double quantile(const struct divergences *d, double part)
{
    double place = ceil(part * (double)d->n) - 1;

    return (double)d->each[place > 0 ? (size_t)place : 0];
}

void divergences_result(struct divergences *d, struct divergence *out)
{
    qsort(d->each, (size_t)d->n, sizeof *d->each, by_size);
    *out = (struct divergence){
        .mean = d->divergence.mean,
        .standard_error = statistics_error(&d->divergence),
        .median = quantile(d, 0.5),
        .p99 = quantile(d, 0.99),
        .max = quantile(d, 1),
        .same_top = d->same_top.mean,
        .same_top_error = statistics_error(&d->same_top),
        .base_nll = d->base_nll.mean,
        .log_ratio = d->log_ratio.mean,
        .log_ratio_error = statistics_error(&d->log_ratio),
    };
}
