#include "generate/race.h"

#include <math.h>
#include <stdbool.h>

#include "generate/rng.h"
#include "generate/vector.h"

#define BLOCK 256

/* The upper 32 bits of a candidate's number: the key in both halves around the two rounds of a
 * 32-bit mixer (multiply and shift, constants of C. Wellons' lowbias32). */
static inline uint32_t upper_bits(int32_t id, uint64_t key)
{
    uint32_t h = (uint32_t)id ^ (uint32_t)key;

    h ^= h >> 16;
    h *= 0x7FEB352Du;
    h ^= (uint32_t)(key >> 32);
    h ^= h >> 15;
    h *= 0x846CA68Bu;
    return h ^ (h >> 16);
}

/* 1 - u in (0, 1], to 53 bits below the upper 32: small ones, which win, are as fine as large ones.
 */
static double complement(int32_t id, uint64_t key)
{
    uint64_t lower = rng_scramble(key + (uint64_t)(uint32_t)id * 0x9E3779B97F4A7C15u) >> 11;

    return (upper_bits(id, key) + ((double)lower + 0.5) * 0x1p-53) * 0x1p-32;
}

/* An arrival before `first` needs -log(u) < first weight, so 1 - u < first weight: rarely so, and
 * all that is asked of most candidates. limit is `first` in units of 2^-31 and a little more, which
 * covers the roundings. */
static inline bool may_win(int32_t id, float weight, uint64_t key, float limit)
{
    return (float)(int32_t)(upper_bits(id, key) >> 1) <= limit * weight;
}

static inline float limit_of(double first)
{
    return (float)(first * 0x1.00001p31);
}

VECTOR_CLONES static int any_may_win(const int32_t *ids, const float *weights, int n, uint64_t key,
                                     float limit)
{
    int any = 0;

    for (int i = 0; i < n; i++)
        any |= may_win(ids[i], weights[i], key, limit);
    return any;
}

int race(const int32_t *ids, const float *weights, int n, uint64_t key)
{
    double first = HUGE_VAL;
    int winner = -1;

    for (int begin = 0; begin < n; begin += BLOCK) {
        int end = n - begin < BLOCK ? n : begin + BLOCK;

        if (!any_may_win(ids + begin, weights + begin, end - begin, key, limit_of(first)))
            continue;
        for (int i = begin; i < end; i++) {
            double arrival;

            if (!may_win(ids[i], weights[i], key, limit_of(first)) || !(weights[i] > 0))
                continue;
            arrival = -log1p(-complement(ids[i], key)) / (double)weights[i];
            if (winner < 0 || arrival < first) {
                first = arrival;
                winner = i;
            }
        }
    }
    return winner;
}
