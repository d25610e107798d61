/* models/names.h: reading tensor names by the rules of a family. */
#ifndef MODELS_NAMES_H
#define MODELS_NAMES_H

#include "models/family.h"

/* By the last part of a tensor's name, of which other tools than MLX have their own. */
enum tensor_part {
    PART_WEIGHT, /* weight; qweight, weight_packed */
    PART_BIAS,
    PART_SCALES, /* scales; weight_scale, weight_scale_inv */
    PART_BIASES,
    PART_ZEROS,   /* qzeros, weight_zero_point */
    PART_ORDER,   /* g_idx, weight_g_idx */
    PART_SIGNS,   /* signs, of inputs that are turned */
    PART_FACTOR,  /* weight_scale_2, one number that all scales are multiplied by */
    PART_DIVISOR, /* weight_global_scale, one that they are divided by */
    PART_LORA_A,  /* of adapters, in whose names the part is spelled otherwise */
    PART_LORA_B,
    PART_LORA_BIAS,
    PART_MAGNITUDE,
    PART_UNUSED, /* weight_shape, and what would quantise activations or the cache */
    PART_OTHER
};

/* Is the part one that an adapter adds, beside what the checkpoint has? */
static inline bool is_addition(enum tensor_part part)
{
    return part >= PART_LORA_A && part <= PART_MAGNITUDE;
}

/* What a tensor is for. */
struct tensor_place {
    struct weight_target to; /* TARGET_NONE: no rule matches */
    int layer;               /* -1: the pattern has no '*' */
    int expert;              /* -1: the pattern has no '#' */
    int alternative;         /* which of {a,b,c}; 0 without */
    enum tensor_part part;
};

/* s says which layers there are, for rules that are not of all; NULL: they count for any. */
struct tensor_place tensor_place(const struct family *f, const struct spec *s, const char *name);

/* The pattern whose tensors go to this role of this branch, for messages; NULL when there is none.
 */
const char *pattern_of(const struct family *f, int branch, enum weight_role role);

#endif
