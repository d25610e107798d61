#include "generate/filter.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "generate/logits.h"
#include "generate/select.h"
#include "generate/vector.h"

#define BLOCK 256
/* More than logits and their logarithms are off by roundings, in nats. */
#define CUT_SLACK 1e-3

/* Move candidates [begin, end) down to place `to`; returns the place after them. */
static int move(struct candidates *c, int to, int begin, int end)
{
    size_t n = (size_t)(end - begin);

    if (to != begin) {
        memmove(c->ids + to, c->ids + begin, n * sizeof *c->ids);
        memmove(c->logprobs + to, c->logprobs + begin, n * sizeof *c->logprobs);
        memmove(c->weights + to, c->weights + begin, n * sizeof *c->weights);
    }
    return to + (int)n;
}

/* Move one. */
static inline void put(struct candidates *c, int to, int from)
{
    c->ids[to] = c->ids[from];
    c->logprobs[to] = c->logprobs[from];
    c->weights[to] = c->weights[from];
}

/* Keep those whose key is not below the threshold. keys may be one of c's arrays. */
static void keep_from(struct candidates *c, const float *keys, float threshold)
{
    int n = 0;

    for (int begin = 0; begin < c->n; begin += BLOCK) {
        int end = c->n - begin < BLOCK ? c->n : begin + BLOCK;

        if (logits_max(keys + begin, end - begin) < threshold)
            continue;
        for (int i = begin; i < end; i++) {
            bool kept = keys[i] >= threshold;

            put(c, n, i);
            n += kept;
        }
    }
    c->n = n;
}

/* to = 0, 1, ..., y = x - shift; whether all y are finite. */
VECTOR_CLONES static bool shift_all(int32_t *restrict to, float *restrict y, const float *x, int n,
                                    float shift)
{
    int all = 1;

    for (int i = 0; i < n; i++) {
        to[i] = i;
        y[i] = x[i] - shift;
        all &= y[i] >= -FLT_MAX;
    }
    return all;
}

/* All of x [n] that are not below bound. */
static void gather(struct candidates *c, const float *x, int n, float bound, float log_sum)
{
    int kept = 0;

    for (int begin = 0; begin < n; begin += BLOCK) {
        int end = n - begin < BLOCK ? n : begin + BLOCK;

        if (logits_max(x + begin, end - begin) < bound)
            continue;
        for (int i = begin; i < end; i++) {
            c->ids[kept] = i;
            c->weights[kept] = x[i];
            c->logprobs[kept] = x[i] - log_sum;
            kept += x[i] >= bound;
        }
    }
    c->n = kept;
}

/* What no candidate lies below that one of the cuts would leave, by the roundings of filters. */
static float bound_of(const struct candidates *c, const float *logits, int n, float max,
                      const struct cut *cut, double mass)
{
    float bound = -FLT_MAX;

    if (cut->min_p > 0)
        bound = max + (float)(log(cut->min_p) - CUT_SLACK);
    /* All weights below this make up no more than half of what is to go. */
    if (cut->top_p < 1)
        bound = fmaxf(bound, max + (float)(log((1 - cut->top_p) / 2 * mass / n) - CUT_SLACK));
    if (cut->top_k < n)
        bound = fmaxf(bound, select_bound(logits, n, cut->top_k, c->scratch));
    return bound;
}

float candidates_begin(struct candidates *c, const float *logits, int n, float max,
                       const struct cut *cut)
{
    double mass = logits_exp(cut ? NULL : c->weights, logits, n, max, 1);
    float log_sum = max + (float)log(mass);

    c->n = n;
    c->gone = 0;
    c->top = c->max = max - log_sum;
    if (cut) {
        gather(c, logits, n, bound_of(c, logits, n, max, cut, mass), log_sum);
        c->gone = fmax(0, mass - logits_exp(c->weights, c->weights, c->n, max, 1));
    } else if (!shift_all(c->ids, c->logprobs, logits, n, log_sum)) {
        keep_from(c, c->logprobs, -FLT_MAX);
    }
    return log_sum;
}

void filter_top_n_sigma(struct candidates *c, double n)
{
    double mean = logits_sum(c->logprobs, c->n) / c->n, squares[8] = {0};

    for (int i = 0; i < c->n; i++) {
        double d = (double)c->logprobs[i] - mean;

        squares[i % 8] += d * d;
    }
    for (int i = 1; i < 8; i++)
        squares[0] += squares[i];
    keep_from(c, c->logprobs, c->max - (float)(n * sqrt(squares[0] / c->n)));
}

/* y = w (x - shift) */
VECTOR_CLONES static void weigh_all(float *restrict y, const float *w, const float *x, int n,
                                    float shift)
{
    for (int i = 0; i < n; i++)
        y[i] = w[i] * (x[i] - shift);
}

/* The entropy of the candidates, in nats; *log_sum is the logarithm of their whole probability. */
static double entropy_of(const struct candidates *c, double *log_sum)
{
    double sum = logits_sum(c->weights, c->n), parts = 0;
    float products[BLOCK];

    for (int begin = 0; begin < c->n; begin += BLOCK) {
        int size = c->n - begin < BLOCK ? c->n - begin : BLOCK;

        weigh_all(products, c->weights + begin, c->logprobs + begin, size, c->top);
        parts += logits_sum(products, size);
    }
    *log_sum = (double)c->top + log(sum);
    return log(sum) - parts / sum;
}

/* y = -|x - middle| */
VECTOR_CLONES static void nearness(float *restrict y, const float *x, int n, float middle)
{
    for (int i = 0; i < n; i++)
        y[i] = -fabsf(x[i] - middle);
}

void filter_typical(struct candidates *c, double p)
{
    double log_sum, entropy = entropy_of(c, &log_sum);
    float typical = (float)(log_sum - entropy);

    nearness(c->keys, c->logprobs, c->n, typical);
    keep_from(c, c->keys, select_by_weight(c->keys, c->weights, c->n, p, c->scratch));
    c->max = logits_max(c->logprobs, c->n);
}

void filter_top_p(struct candidates *c, double top_p)
{
    double left = logits_sum(c->weights, c->n), part = top_p * (left + c->gone) / left;

    keep_from(c, c->logprobs, select_by_weight(c->logprobs, c->weights, c->n, part, c->scratch));
}

void filter_min_p(struct candidates *c, double min_p, int min_keep)
{
    float threshold = c->max + (float)log(min_p);

    if (min_keep >= c->n)
        return;
    if (min_keep > 1) {
        float kept = select_largest(c->logprobs, c->n, min_keep, c->scratch);

        if (kept < threshold) {
            filter_top_k(c, min_keep);
            return;
        }
    }
    keep_from(c, c->logprobs, threshold);
}

static bool is_among(int32_t id, const int32_t *ids, int n)
{
    for (int i = 0; i < n; i++)
        if (ids[i] == id)
            return true;
    return false;
}

/* The least of w / sum that is above the threshold; infinity without one. */
static float least_above(const float *w, int n, float sum, float threshold)
{
    float least = INFINITY;

    for (int begin = 0; begin < n; begin += BLOCK) {
        int end = n - begin < BLOCK ? n : begin + BLOCK;

        if (!(logits_max(w + begin, end - begin) / sum > threshold))
            continue;
        for (int i = begin; i < end; i++) {
            float p = w[i] / sum;

            least = p > threshold && p < least ? p : least;
        }
    }
    return least;
}

void filter_xtc(struct candidates *c, double threshold, const int32_t *special, int n_special)
{
    float sum = (float)logits_sum(c->weights, c->n);
    float least = least_above(c->weights, c->n, sum, (float)threshold);
    int n = 0, begin = 0;

    for (int block = 0; block < c->n; block += BLOCK) {
        int end = c->n - block < BLOCK ? c->n : block + BLOCK;

        if (!(logits_max(c->weights + block, end - block) / sum > least))
            continue;
        for (int i = block; i < end; i++) {
            if (!(c->weights[i] / sum > least) || is_among(c->ids[i], special, n_special))
                continue;
            n = move(c, n, begin, i);
            begin = i + 1;
        }
    }
    c->n = move(c, n, begin, c->n);
    if (begin > 0)
        c->max = logits_max(c->logprobs, c->n);
}

void filter_top_k(struct candidates *c, int k)
{
    float value;
    int above = 0, n = 0, ties;

    if (k >= c->n)
        return;
    value = select_largest(c->logprobs, c->n, k, c->scratch);
    keep_from(c, c->logprobs, value);
    for (int i = 0; i < c->n; i++)
        above += c->logprobs[i] > value;
    ties = k - above;
    for (int i = 0; i < c->n; i++)
        if (c->logprobs[i] > value || ties-- > 0)
            put(c, n++, i);
    c->n = n;
}

double candidates_temperature(const struct candidates *c, double low, double high, double exponent)
{
    double ignored, part;

    if (c->n < 2)
        return low;
    part = entropy_of(c, &ignored) / log(c->n);
    return low + (high - low) * pow(part > 0 ? part : 0, exponent);
}

void candidates_weigh(struct candidates *c, double temp)
{
    bool found = false;

    if (temp == 1 && c->max == c->top)
        return;
    if (temp > 0) {
        logits_exp(c->weights, c->logprobs, c->n, c->max, temp);
        return;
    }
    for (int i = 0; i < c->n; i++) {
        c->weights[i] = c->logprobs[i] == c->max && !found;
        found |= c->weights[i] > 0;
    }
}

void filter_surprise(struct candidates *c, double surprise)
{
    double least = logits_sum(c->weights, c->n) * exp2(-surprise);

    if (least > 1) /* the most likely has the weight 1 */
        filter_top_k(c, 1);
    else
        keep_from(c, c->weights, (float)least);
}

double candidates_surprise(const struct candidates *c, int place)
{
    return log2(logits_sum(c->weights, c->n) / (double)c->weights[place]);
}
