/* tests/engine/golden.h: the expected logits of a fixture, and how near to them is near enough. */
#ifndef GOLDEN_H
#define GOLDEN_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "format/checkpoint.h"
#include "testing.h"

/* The greatest difference of two logits, over the standard deviation of the fixture's logits.
 *
 * Both sides compute in f32 from the same stored weights and differ in the order of their sums. A
 * fixture answers relative errors of 1e-6 in every weight (8 roundings of f32) by at most 2e-4,
 * most of them by 2e-5 (noise_response of the goldens' README); rounding within a pass is smaller
 * than that. The README's own limit is 1e-3, "a sound one is below 1e-4". A wrong epsilon, angle,
 * or mask is far above: 1e-3 to 1. */
#define EXACT_TOLERANCE 1e-4

struct golden {
    checkpoint *file;
    int n_prompt, n_decode, vocab_size;
    int32_t *prompt;        /* [n_prompt] */
    int32_t *decode_tokens; /* [n_decode] */
    float *prompt_logits;   /* [n_prompt, vocab_size] */
    float *decode_logits;   /* [n_decode, vocab_size]; row 0 is the prompt's last */
    double std;             /* of prompt_logits */
};

/* A copy, for tensors may lie unaligned in their file. */
static inline void *golden_tensor(const struct golden *g, const char *name, enum dtype type,
                                  int64_t *rows, int64_t *cols)
{
    const struct checkpoint_tensor *t = checkpoint_find(g->file, name);
    void *copy;

    CHECK(t && t->type == type && t->n_dims >= 1 && t->n_dims <= 2, "golden tensor %s", name);
    *cols = t->shape[t->n_dims - 1];
    *rows = t->n_dims == 2 ? t->shape[0] : 1;
    copy = malloc(t->size);
    CHECK(copy, "no memory");
    return memcpy(copy, t->data, t->size);
}

static inline double golden_deviation(const float *x, size_t n)
{
    double sum = 0, squares = 0;

    for (size_t i = 0; i < n; i++)
        sum += (double)x[i];
    for (size_t i = 0; i < n; i++)
        squares += ((double)x[i] - sum / (double)n) * ((double)x[i] - sum / (double)n);
    return sqrt(squares / (double)n);
}

/* path: the safetensors file. */
static inline void golden_open(struct golden *g, const char *path)
{
    clm_error err = {0};
    int64_t rows, cols, n_prompt, n_decode;

    *g = (struct golden){.file = checkpoint_open(path, NULL, &err)};
    CHECK(g->file, "%s", err.message);
    g->prompt = golden_tensor(g, "prompt", DTYPE_I32, &rows, &n_prompt);
    g->decode_tokens = golden_tensor(g, "decode_tokens", DTYPE_I32, &rows, &n_decode);
    g->prompt_logits = golden_tensor(g, "prompt_logits", DTYPE_F32, &rows, &cols);
    CHECK(rows == n_prompt, "%s: %d rows", path, (int)rows);
    g->vocab_size = (int)cols;
    g->decode_logits = golden_tensor(g, "decode_logits", DTYPE_F32, &rows, &cols);
    CHECK(rows == n_decode && cols == g->vocab_size, "%s: %d rows", path, (int)rows);
    g->n_prompt = (int)n_prompt;
    g->n_decode = (int)n_decode;
    g->std = golden_deviation(g->prompt_logits, (size_t)(n_prompt * cols));
}

static inline void golden_close(struct golden *g)
{
    checkpoint_close(g->file);
    free(g->prompt);
    free(g->decode_tokens);
    free(g->prompt_logits);
    free(g->decode_logits);
}

/* The greatest difference of n logits over the deviation; infinite where one is not a number. */
static inline double golden_distance(const struct golden *g, const float *got, const float *want,
                                     size_t n)
{
    double most = 0;

    for (size_t i = 0; i < n; i++) {
        double difference = fabs((double)got[i] - (double)want[i]);

        if (!(difference <= most))
            most = isnan(difference) ? HUGE_VAL : difference;
    }
    return most / g->std;
}

#endif
