/* generate/filter.h: which tokens may be drawn: top-p, min-p, XTC and top-k, as mlx_lm.sample_utils
 * has them.
 *
 * Candidates are the tokens left, in order of id, with log-probabilities that no filter changes or
 * renormalises. A filter keeps at least one. No filter sorts the vocabulary: thresholds are found
 * by selection, in time proportional to the number of candidates.
 */
#ifndef GENERATE_FILTER_H
#define GENERATE_FILTER_H

#include <stdint.h>

struct candidate {
    int32_t id;
    float logprob; /* finite */
    float weight;  /* set by candidates_weigh */
};

struct candidates {
    struct candidate *items; /* [n], n >= 1 */
    int n;
    struct weighted *scratch; /* room for as many as there were at first */
};

/* A value and what it counts for in a selection. */
struct weighted {
    float value, mass;
};

/* Keep the most likely tokens that together hold top_p of the mass, and those tied with the last.
 */
void filter_top_p(struct candidates *c, double top_p);

/* Keep logprob >= max + log(min_p), and at least the min_keep most likely. min_p > 0, min_keep
 * >= 1. */
void filter_min_p(struct candidates *c, double min_p, int min_keep);

/* Of the tokens whose probability among the candidates exceeds threshold, keep the least likely and
 * those in special [n_special]; what does not exceed it stays too. */
void filter_xtc(struct candidates *c, double threshold, const int32_t *special, int n_special);

/* Keep the k most likely, of tied ones those of lowest id. k >= 1. */
void filter_top_k(struct candidates *c, int k);

/* weight = exp((logprob - the largest) / temp); returns their sum. temp > 0. */
double candidates_weigh(struct candidates *c, double temp);

#endif
