#include "generate/select.h"

#include <math.h>

#include "generate/logits.h"
#include "generate/vector.h"

/* Keys are counted in this many buckets, each this wide: together 32, which in logarithms is all
 * that matters. What is below goes to the last one. */
#define BUCKETS 1024
#define PER_UNIT 32
#define BLOCK 256

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

/* The buckets of keys [n]. */
VECTOR_CLONES static void find_buckets(int32_t *restrict bucket, const float *keys, int n,
                                       float max)
{
    for (int i = 0; i < n; i++) {
        float d = (max - keys[i]) * PER_UNIT;

        bucket[i] = (int32_t)(d < BUCKETS - 1 ? d : BUCKETS - 1);
    }
}

float select_by_weight(const float *keys, const float *weights, int n, double part,
                       struct weighted *scratch)
{
    float max = logits_max(keys, n);
    double mass[BUCKETS] = {0}, odd[BUCKETS] = {0}, total = 0, above = 0;
    int bucket = 0, last = 0, m = 0;
    int32_t buckets[BLOCK];

    for (int begin = 0; begin < n; begin += BLOCK) {
        int size = n - begin < BLOCK ? n - begin : BLOCK;

        find_buckets(buckets, keys + begin, size, max);
        for (int i = 0; i < size; i++) /* neighbours do not wait for each other */
            (i % 2 ? odd : mass)[buckets[i]] += (double)weights[begin + i];
    }
    for (int b = 0; b < BUCKETS; b++) {
        mass[b] += odd[b];
        total += mass[b];
        last = mass[b] > 0 ? b : last;
    }
    while (bucket < last && above + mass[bucket] < part * total)
        above += mass[bucket++];
    for (int begin = 0; begin < n; begin += BLOCK) {
        int size = n - begin < BLOCK ? n - begin : BLOCK;

        find_buckets(buckets, keys + begin, size, max);
        for (int i = 0; i < size; i++)
            if (buckets[i] == bucket)
                scratch[m++] = (struct weighted){keys[begin + i], weights[begin + i]};
    }
    return select_by_mass(scratch, m, part * total - above);
}

float select_bound(const float *x, int n, int k, struct weighted *scratch)
{
    int size = n / k / 4 < 8 ? 8 : n / k / 4, blocks = 0;

    /* The k-th largest of the blocks' own largest has k values that are not below it. */
    for (int i = 0; i < n; i += size)
        scratch[blocks++] = (struct weighted){logits_max(x + i, n - i < size ? n - i : size), 1};
    return k > blocks ? -INFINITY : select_by_mass(scratch, blocks, k);
}

float select_largest(const float *x, int n, int k, struct weighted *scratch)
{
    float bound = select_bound(x, n, k, scratch);
    int m = 0;

    for (int i = 0; i < n; i++)
        if (x[i] >= bound)
            scratch[m++] = (struct weighted){x[i], 1};
    return select_by_mass(scratch, m, k);
}
