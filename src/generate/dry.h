/* generate/dry.h: DRY, a penalty on what would go on repeating the text, as llama.cpp defines it.
 *
 * A token that would make the text's end, of n >= allowed_length tokens, the repetition of an
 * earlier part of it loses multiplier * base^(n - allowed_length). Nothing is counted as a
 * repetition across a sequence breaker.
 */
#ifndef GENERATE_DRY_H
#define GENERATE_DRY_H

#include <stddef.h>
#include <stdint.h>

#include "tokenizer/tokenizer.h"

/* Tokens that are, or begin, a sequence breaker. */
struct dry_breaker {
    int32_t head;
    int tail, n_tail; /* the tokens after it, in dry_breakers.tails */
};

/* Start from {0}. */
struct dry_breakers {
    struct dry_breaker *items; /* [n] by head, no two the same */
    int n;
    struct token_list tails;
};

/**
 * All ways in which a text occurs in tokens: every token that holds it, every token whose end it
 * begins with followed by the tokens of the rest, and its own tokens.
 *
 * texts  [n] of which the first 40 bytes count, and of these 20 tokens; an empty one counts for
 *        none.
 */
int dry_breakers_build(struct dry_breakers *b, const tokenizer *t, const char *const *texts, int n,
                       clm_error *err);
void dry_breakers_release(struct dry_breakers *b);

/* llama.cpp's own: "\n", ":", "\"" and "*". */
#define DRY_DEFAULT_BREAKERS 4
extern const char *const dry_default_breakers[DRY_DEFAULT_BREAKERS];

struct dry_options {
    double multiplier; /* 0: off */
    double base;       /* >= 1 */
    int allowed_length;
    int last_n; /* how many tokens it looks back; -1: all, 0: off */
    struct dry_breakers breakers;
};

/* Room to work in and a copy of the breakers. */
struct dry {
    struct dry_options o; /* its breakers are owned */
    int vocab_size;
    int *first;   /* [vocab_size] the first breaker of a head, and one; 0: none */
    int *longest; /* [vocab_size] zero between calls */
    int *repeats; /* [capacity] */
    size_t capacity;
};

/* Whatever comes of it, d is to be released. */
int dry_init(struct dry *d, const struct dry_options *o, int vocab_size, clm_error *err);
void dry_release(struct dry *d); /* a zeroed one is fine */

/* Lower the logits [vocab_size]. CLM_ERR_NOMEM. */
int dry_apply(struct dry *d, float *logits, const int32_t *history, size_t n, clm_error *err);

#endif
