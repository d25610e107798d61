#include "generate/race.h"

#include <math.h>
#include <stdbool.h>

#include "device/draw.h"
#include "generate/vector.h"

#define BLOCK 256

/* An arrival before `first` needs -log(u) < first weight, so 1 - u < first weight: rarely so, and
 * all that is asked of most candidates. limit is `first` in units of 2^-31 and a little more, which
 * covers the roundings. */
static inline bool may_win(int32_t id, float weight, uint64_t key, float limit)
{
    return (float)(int32_t)(draw_upper(id, key) >> 1) <= limit * weight;
}

static inline float limit_of(double first)
{
    return (float)(first * 0x1.00001p31);
}

/* The id at place i. */
static inline int32_t id_at(const int32_t *ids, int i)
{
    return ids ? ids[i] : i;
}

/* Of the places from begin to end. */
VECTOR_CLONES static int any_may_win(const int32_t *ids, const float *weights, int begin, int end,
                                     uint64_t key, float limit)
{
    int any = 0;

    for (int i = begin; i < end; i++)
        any |= may_win(id_at(ids, i), weights[i], key, limit);
    return any;
}

int race(const int32_t *ids, const float *weights, int n, uint64_t key)
{
    double first = HUGE_VAL;
    int winner = -1;

    for (int begin = 0; begin < n; begin += BLOCK) {
        int end = n - begin < BLOCK ? n : begin + BLOCK;

        if (!any_may_win(ids, weights, begin, end, key, limit_of(first)))
            continue;
        for (int i = begin; i < end; i++) {
            int32_t id = id_at(ids, i);
            double arrival;

            if (!may_win(id, weights[i], key, limit_of(first)) || !(weights[i] > 0))
                continue;
            arrival = -log1p(-draw_number(id, key)) / (double)weights[i];
            if (winner < 0 || arrival < first) {
                first = arrival;
                winner = i;
            }
        }
    }
    return winner;
}
