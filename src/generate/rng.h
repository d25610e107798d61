/* generate/rng.h: the random numbers of one request: the same seed gives the same numbers. */
#ifndef GENERATE_RNG_H
#define GENERATE_RNG_H

#include "base/scramble.h"

/* splitmix64: a counter, scrambled. The seed is scrambled too, so that neighbouring seeds do not
 * share a sequence. */
struct rng {
    uint64_t state;
};

static inline void rng_seed(struct rng *r, uint64_t seed)
{
    r->state = scramble(seed ^ 0xD1B54A32D192ED03u);
}

static inline uint64_t rng_next(struct rng *r)
{
    return scramble(r->state += 0x9E3779B97F4A7C15u);
}

/* What rng_next gives after `index` other calls, without the state they would leave. */
static inline uint64_t rng_at(const struct rng *r, uint64_t index)
{
    return scramble(r->state + (index + 1) * 0x9E3779B97F4A7C15u);
}

/* Of such a number: uniform in [0, 1), a multiple of 2^-53. */
static inline double rng_as_unit(uint64_t number)
{
    return (double)(number >> 11) * 0x1p-53;
}

static inline double rng_unit(struct rng *r)
{
    return rng_as_unit(rng_next(r));
}

#endif
