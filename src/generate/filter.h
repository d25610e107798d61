/* generate/filter.h: which tokens may be drawn, and how likely. Top-p, min-p, XTC and top-k are
 * those of mlx_lm.sample_utils; top-n-sigma, typical-p, the dynamic temperature and mirostat 2
 * those of llama.cpp.
 *
 * Candidates are the tokens left, in order of id, with log-probabilities that no filter changes or
 * renormalises. A filter keeps at least one. No filter sorts the vocabulary: thresholds are found
 * by selection, in time proportional to the number of candidates.
 */
#ifndef GENERATE_FILTER_H
#define GENERATE_FILTER_H

#include <stdint.h>

/* A value and what it counts for in a selection. */
struct weighted {
    float value, mass;
};

struct candidates {
    int32_t *ids;
    float *logprobs; /* finite */
    float *weights;  /* exp(logprob - top), until candidates_weigh */
    int n;           /* >= 1 */
    float top;       /* the largest log-probability there was at first */
    float max;       /* and that there is */
    double gone;     /* the weights of all that a cut left out at first */
    /* Each with room for as many as there were at first. */
    struct weighted *scratch;
    float *keys; /* of filter_typical; else may be NULL */
};

/* What the filters that follow will leave out in any case, so that it need not become a candidate:
 * nothing but top-p, min-p and, last, top-k may change what is left. */
struct cut {
    double min_p; /* 0: none */
    double top_p; /* 1: none */
    int top_k;    /* INT32_MAX: none */
};

/**
 * All tokens of a row that are possible at all.
 *
 * c       its arrays hold n each; all else is set here.
 * logits  [n] max is the largest of them and finite; others may be -inf.
 * cut     NULL: nothing is left out.
 *
 * Returns log(sum(exp(logits))).
 */
float candidates_begin(struct candidates *c, const float *logits, int n, float max,
                       const struct cut *cut);

/* Keep logprob >= max - n times their standard deviation. n > 0. arXiv:2411.07641 */
void filter_top_n_sigma(struct candidates *c, double n);

/* Keep those whose surprise is nearest to the entropy, as many as together hold p of the mass, and
 * those as near as the last. arXiv:2202.00666 */
void filter_typical(struct candidates *c, double p);

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

/* From low, where one of n candidates is certain, to high, where all are as likely:
 * low + (high - low) (entropy / log(n))^exponent. Of one candidate: low. */
double candidates_temperature(const struct candidates *c, double low, double high, double exponent);

/* weight = exp((logprob - the largest) / temp). No filter of the above may follow. temp 0: 1 for
 * the first of the most likely, 0 for all others. */
void candidates_weigh(struct candidates *c, double temp);

/* Of weighed candidates keep those with -log2(p) <= surprise, and the most likely in any case.
 * arXiv:2007.14966 */
void filter_surprise(struct candidates *c, double surprise);

/* -log2(p) of the weighed candidate at a place. */
double candidates_surprise(const struct candidates *c, int place);

#endif
