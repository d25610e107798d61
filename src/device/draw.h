/* device/draw.h: a token drawn by a race of all, and what a device tells of one.
 *
 * In a race token i arrives after -log(1 - c_i) / w_i, with a number c_i in (0, 1] that hangs on
 * the key of the race and on the id alone, and a weight w_i = exp((logit_i - max) / temperature);
 * the first to arrive is drawn, with a probability that is its part of all weights. Filters take
 * part as the least likely tokens staying away, which changes nothing for the others.
 *
 * A device tells of a row who arrives first, and how many tokens and how much mass lie above each
 * of these: enough for the host to prove, nearly always, which token its own arithmetic draws.
 */
#ifndef DEVICE_DRAW_H
#define DEVICE_DRAW_H

#include <float.h>

#include "base/scramble.h"

/* How far logits, arrivals (in their logarithms) and parts of the mass, as the device has them, may
 * be from the host's with a lot to spare. */
#define DRAW_SLACK 0x1p-10f

/* Arrivals that are told at most. */
#define DRAW_FIRST 4

/* A row's mass is counted in whole numbers of 2^-40, and so is the same in any order. */
#define DRAW_MASS 0x1p40f

/* How a token of a row is to be drawn. */
struct draw_rule {
    uint64_t key;
    float per_temp; /* 1 / temperature, above 0 */
    float floor;    /* <= 0: logits below max + floor stay away; -INFINITY: of none */
    float top_p;    /* the most likely that together hold this part of the mass; 1: all */
    int32_t top_k;  /* and of them so many of the most likely; INT32_MAX: all */
};

/* One that takes part, of logit l. */
struct drawn_token {
    int32_t id;
    float logit;
    /* Tokens with logits above l + slack; and those, itself not counted, from l - slack on. */
    int32_t n_above[2];
    /* The sum of exp(logit - max) over logits above l + slack; and over those above l. */
    uint64_t mass_above[2];
};

struct drawn {
    float max; /* the largest logit of the row */
    /* In order of arrival; of a row whose logits are not finite there is none. Without filters
     * nothing is said of what lies above them. */
    int32_t n;
    int32_t all;   /* whether there are no others in the race */
    int32_t spare; /* 0 */
    uint64_t mass; /* the sum of exp(logit - max) over all tokens, where anything is filtered */
    struct drawn_token first[DRAW_FIRST];
};

/* The upper 32 bits of a token's number: the key in both halves around the two rounds of a 32-bit
 * mixer (multiply and shift, constants of C. Wellons' lowbias32). */
INLINE_EVERYWHERE uint32_t draw_upper(int32_t id, uint64_t key)
{
    uint32_t h = (uint32_t)id ^ (uint32_t)key;

    h ^= h >> 16;
    h *= 0x7FEB352Du;
    h ^= (uint32_t)(key >> 32);
    h ^= h >> 15;
    h *= 0x846CA68Bu;
    return h ^ (h >> 16);
}

/* The 53 bits below them. */
INLINE_EVERYWHERE uint64_t draw_lower(int32_t id, uint64_t key)
{
    return scramble(key + (uint64_t)(uint32_t)id * 0x9E3779B97F4A7C15u) >> 11;
}

/* c in (0, 1], to 53 bits below the upper 32: small ones, which win, are as fine as large ones. */
INLINE_EVERYWHERE double draw_number(int32_t id, uint64_t key)
{
    return (draw_upper(id, key) + ((double)draw_lower(id, key) + 0.5) * 0x1p-53) * 0x1p-32;
}

/* Filters look at logits in steps of a 32nd below the largest, the last of which has all the rest.
 */
#define DRAW_STEPS 1024
#define DRAW_PER_UNIT 32

INLINE_EVERYWHERE int draw_step(float max, float logit)
{
    float d = (max - logit) * DRAW_PER_UNIT;

    return d < DRAW_STEPS - 1 ? (int)d : DRAW_STEPS - 1;
}

/* The least logit that may take part, when those of the steps after `last` are known not to. */
INLINE_EVERYWHERE float draw_edge(float max, int last)
{
    return last < DRAW_STEPS - 1 ? max - (float)(last + 1) / DRAW_PER_UNIT - DRAW_SLACK : -FLT_MAX;
}

/* The mass that must lie at a step and above it for top_p to be reached there for certain. */
INLINE_EVERYWHERE double draw_target(const struct draw_rule *r, uint64_t mass)
{
    return (double)r->top_p * (1 + (double)DRAW_SLACK) * (double)mass;
}

#endif
