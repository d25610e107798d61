/* generate/logprob_file.h: what a model says of a text, kept to compare other runs with.
 *
 * A safetensors file:
 *
 *     text       I32 [tokens]         the text
 *     log_probs  U16 [predictions, vocabulary]    -log p of each token in steps of 1/2048 nat; what
 * is less probable than 65535 of them has 65535 "clm_log_probs", "windows"      metadata: the
 * version, 1; how the text was cut
 *
 * A step is as fine as f16 is at 2 nats; at random it shifts a divergence by some 1e-8.
 */
#ifndef GENERATE_LOGPROB_FILE_H
#define GENERATE_LOGPROB_FILE_H

#include "format/safetensors.h"

#define LOGPROB_STEPS 2048 /* to a nat */
#define LOGPROB_LEAST (-65535.0f / LOGPROB_STEPS)

struct logprob_file {
    struct safetensors file;
    const uint8_t *text, *codes; /* little-endian, at any address */
    size_t n_text, n_rows;
    int vocab_size;
    const char *windows;
};

/* CLM_ERR_FORMAT: it is no such file, or damaged. */
int logprob_file_open(struct logprob_file *f, const char *path, clm_error *err);
/* The same from memory that stays the caller's; name stands for the path in messages. */
int logprob_file_parse(struct logprob_file *f, const void *data, size_t size, const char *name,
                       clm_error *err);
void logprob_file_close(struct logprob_file *f); /* a zeroed one is fine */

/* Whether a file is of these tokens and windows: CLM_ERR_FORMAT says in what it differs. */
int logprob_file_check(const struct logprob_file *f, const int32_t *tokens, size_t n,
                       int vocab_size, const char *windows, size_t n_rows, clm_error *err);

/* log p of the tokens of prediction row, x [vocab_size], not below LOGPROB_LEAST; their
 * probabilities sum up to 1 within half a step. */
void logprob_file_row(const struct logprob_file *f, size_t row, float *x);

/* codes [n] of logits, whose exponentials have the logarithm log_sum of their sum. */
void logprob_encode(uint16_t *codes, const float *logits, int n, double log_sum);

/* Write a file, whole or not at all: fill is called once and writes n_rows rows of codes. */
int logprob_file_write(const char *path, const int32_t *tokens, size_t n, int vocab_size,
                       const char *windows, size_t n_rows, safetensors_fill fill, void *ctx,
                       clm_error *err);

#endif
