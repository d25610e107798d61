#include "generate/filter.h"

#include <math.h>
#include <stdbool.h>

static float largest(const struct candidates *c)
{
    float max = c->items[0].logprob;

    for (int i = 1; i < c->n; i++)
        max = c->items[i].logprob > max ? c->items[i].logprob : max;
    return max;
}

/* The median of three values of w [n], taken from places that no order of the input is built for.
 */
static float pivot_of(const struct weighted *w, int n)
{
    unsigned step = (unsigned)n * 2654435761u;
    float a = w[step % (unsigned)n].value;
    float b = w[(step >> 7) % (unsigned)n].value;
    float c = w[n / 2].value;

    if (a > b) {
        float t = a;

        a = b;
        b = t;
    }
    return c < a ? a : c > b ? b : c;
}

/* w [n] in three parts: values above the pivot, [0, *equal); equal to it, [*equal, *below); below
 * it. */
static void partition(struct weighted *w, int n, float pivot, int *equal, int *below)
{
    int i = 0, high = 0, low = n;

    while (i < low) {
        struct weighted item = w[i];

        if (item.value > pivot) {
            w[i++] = w[high];
            w[high++] = item;
        } else if (item.value < pivot) {
            w[i] = w[--low];
            w[low] = item;
        } else {
            i++;
        }
    }
    *equal = high;
    *below = low;
}

static double mass_of(const struct weighted *w, int begin, int end)
{
    double sum = 0;

    for (int i = begin; i < end; i++)
        sum += (double)w[i].mass;
    return sum;
}

/* Going down from the largest value of w [n], the value at which the sum of masses first reaches
 * target; the smallest when it never does. Reorders w. */
static float select_by_mass(struct weighted *w, int n, double target)
{
    float value = w[0].value;

    while (n > 0) {
        float pivot = pivot_of(w, n);
        int equal, below;
        double above_mass, equal_mass;

        partition(w, n, pivot, &equal, &below);
        above_mass = mass_of(w, 0, equal);
        equal_mass = mass_of(w, equal, below);
        value = pivot;
        if (above_mass >= target) {
            n = equal;
            continue;
        }
        if (above_mass + equal_mass >= target)
            return pivot;
        target -= above_mass + equal_mass;
        w += below;
        n -= below;
    }
    return value;
}

/* The k-th largest log-probability, k <= c->n. */
static float kth_largest(struct candidates *c, int k)
{
    for (int i = 0; i < c->n; i++)
        c->scratch[i] = (struct weighted){c->items[i].logprob, 1};
    return select_by_mass(c->scratch, c->n, k);
}

static int count_above(const struct candidates *c, float value)
{
    int n = 0;

    for (int i = 0; i < c->n; i++)
        n += c->items[i].logprob > value;
    return n;
}

static void keep_from(struct candidates *c, float threshold)
{
    int n = 0;

    for (int i = 0; i < c->n; i++)
        if (c->items[i].logprob >= threshold)
            c->items[n++] = c->items[i];
    c->n = n;
}

void filter_top_p(struct candidates *c, double top_p)
{
    float max = largest(c);
    double total = 0;

    for (int i = 0; i < c->n; i++) {
        float mass = expf(c->items[i].logprob - max);

        c->scratch[i] = (struct weighted){c->items[i].logprob, mass};
        total += (double)mass;
    }
    keep_from(c, select_by_mass(c->scratch, c->n, top_p * total));
}

void filter_min_p(struct candidates *c, double min_p, int min_keep)
{
    float threshold = largest(c) + (float)log(min_p);

    if (min_keep >= c->n)
        return;
    if (min_keep > 1) {
        float kept = kth_largest(c, min_keep);

        if (kept < threshold) {
            filter_top_k(c, min_keep);
            return;
        }
    }
    keep_from(c, threshold);
}

static bool is_among(int32_t id, const int32_t *ids, int n)
{
    for (int i = 0; i < n; i++)
        if (ids[i] == id)
            return true;
    return false;
}

void filter_xtc(struct candidates *c, double threshold, const int32_t *special, int n_special)
{
    float max = largest(c), least = INFINITY;
    double sum = 0;
    int n = 0;

    for (int i = 0; i < c->n; i++) {
        c->items[i].weight = expf(c->items[i].logprob - max);
        sum += (double)c->items[i].weight;
    }
    for (int i = 0; i < c->n; i++) {
        float p = c->items[i].weight / (float)sum;

        c->items[i].weight = p;
        if (p > (float)threshold && p < least)
            least = p;
    }
    for (int i = 0; i < c->n; i++)
        if (!(c->items[i].weight > least) || is_among(c->items[i].id, special, n_special))
            c->items[n++] = c->items[i];
    c->n = n;
}

void filter_top_k(struct candidates *c, int k)
{
    float value;
    int n = 0, ties;

    if (k >= c->n)
        return;
    value = kth_largest(c, k);
    ties = k - count_above(c, value);
    for (int i = 0; i < c->n; i++) {
        float logprob = c->items[i].logprob;

        if (logprob > value || (logprob == value && ties-- > 0))
            c->items[n++] = c->items[i];
    }
    c->n = n;
}

double candidates_weigh(struct candidates *c, double temp)
{
    float max = largest(c);
    double sum = 0;

    for (int i = 0; i < c->n; i++) {
        c->items[i].weight = expf((float)((double)(c->items[i].logprob - max) / temp));
        sum += (double)c->items[i].weight;
    }
    return sum;
}
