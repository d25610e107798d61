/* device/cpu/vector_kernels.h: the inner loops of the CPU device besides matrix products.
 *
 * Scalar fills every slot and is the definition; an instruction set then replaces what it does
 * better. Buffers may have any alignment of their element type and any size n >= 0; nothing is read
 * or written past n. Elementwise kernels give each number the same result wherever it lies in the
 * buffer, so that work may be cut anywhere.
 */
#ifndef DEVICE_CPU_VECTOR_KERNELS_H
#define DEVICE_CPU_VECTOR_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "device/device.h"

/* Types a cache may hold: F32, F16, BF16, the first of enum dtype. */
#define CPU_KV_TYPES 3
_Static_assert(DTYPE_F32 == 0 && DTYPE_F16 == 1 && DTYPE_BF16 == 2,
               "cache types index kernel slots");

/* Keys that attention treats at once: those at positions [64 c, 64 c + 64) of a sequence. */
#define CPU_ATTEND_CHUNK 64

/* The most lanes that a step of a recurrence is given at once. */
#define CPU_RECURRENCE_LANES 256

/* One token of one head for some lanes, columns of the matrix S [key_dim, value_dim]. */
struct cpu_recurrence_step {
    const float *q, *k, *a, *b; /* [key_dim] */
    const float *decay;         /* of key i: decay[i * decay_step], decay_step 0 or 1 */
    int decay_step;
    int key_dim;
    float beta, skip;
    bool last;      /* S is not read again soon */
    bool ahead;     /* it comes from memory, and what lies behind it is called for */
    const float *v; /* of these lanes */
};

/* Rows of whole groups as device/affine.h has them, scales and biases [dim / group, n_rows]; ahead:
 * as many rows of codes that will be read next, to be prefetched, or NULL. */
struct cpu_codes {
    const void *codes;
    const float *scales, *biases;
    int dim, group, bits;
    const void *ahead;
};

/* Numbers of a group of codes that kernels take at most. */
#define CPU_CODE_GROUP 128

/* Queries [n, dim] rounded to 16 bits, with a step and the sum of each group [n, dim / group]. */
struct cpu_rounded {
    int16_t *words;
    float *steps, *sums;
};

/* Of attention in whole numbers: a tile of queries, columns of a panel, and the numbers of a query
 * whose products are added in 16 bits. */
enum { CPU_INT_ROWS = 6, CPU_INT_COLS = 16, CPU_INT_BLOCK = 32, CPU_INT_CHUNK = 128 };

/* Attention over a chunk of keys in whole numbers, six queries at a time; see attention_int.c. A
 * row of dim numbers is filled up to whole blocks. Where numbers are not finite results are NaN. */
struct cpu_int_attention {
    int most_queries; /* that should meet keys once these are packed, at most */
    int chunk;        /* keys that are treated at once: CPU_ATTEND_CHUNK or CPU_INT_CHUNK */
    int key_zero;     /* the code of a key's number in the middle; others are key_zero - 1 off */
    int value_max;    /* the largest code of a value, */
    int value_keys;   /* of 32 / value_keys bits, so many keys of which follow one another */
    int weight_unit;  /* what a weight of 1 is rounded to */

    /* q [n, dim] in steps of their own: to [n, blocks * CPU_INT_BLOCK], steps [n], and starts [n,
     * blocks], which only scores reads. */
    void (*queries)(int8_t *to, int32_t *starts, float *steps, const float *q, int ldq, int n,
                    int dim);

    /* Panels of a chunk's keys [chunk, dim], those out of [begin, end) anything, begin <
     * end: keys[j, i] balance[i] = middle[i] + step (code - key_zero), within half a step; returns
     * step. Panel j / CPU_INT_COLS is [blocks * CPU_INT_BLOCK / 4, CPU_INT_COLS, 4] codes. */
    float (*keys)(uint8_t *to, float *middle, const float *keys, const float *balance, int begin,
                  int end, int dim);

    /* values [chunk, dim] likewise: steps[i] times to, for i up to whole panels. A panel
     * is [chunk / value_keys, CPU_INT_COLS, value_keys]. */
    void (*values)(void *to, float *steps, const float *values, int dim);

    /* to[r] = sum_i q[r, i] middle[i] of n rows, a multiple of CPU_INT_ROWS; q of dim numbers,
     * followed by zeros as vectors need. */
    void (*offsets)(float *to, const float *q, int ldq, int n, const float *middle, int dim);

    /* s[r, j] = steps[r] step sum_i codes[r, i] (keys[j, i] - key_zero) + offsets[r] of
     * CPU_INT_ROWS rows and all keys. */
    void (*scores)(float *s, const int8_t *codes, const int32_t *starts, const float *steps,
                   const float *offsets, const uint8_t *keys, float step, int dim);

    /* The step of the online softmax in base 2 for CPU_INT_ROWS rows of a chunk's scores,
     * -INFINITY where hidden. With m the largest of a row and M = max(*max, m): p[j] = 2^(s[j] - m)
     * weight_unit, rounded; keep = 2^(*max - M), weight = 2^(m - M) / weight_unit, 0 where all are
     * hidden; *sum = *sum keep + weight sum_j p[j]; *max = M. p is of 16 bits, or first all high
     * bytes and then all low ones, of which the latter may be left out: returns how many parts
     * there are. */
    int (*softmax)(void *p, const float *s, float *max, float *sum, float *keep, float *weights);

    /* y[r, i] = y[r, i] keep[r] + weights[r] steps[i] sum_j p[r, j] values[j, i]. */
    void (*weigh)(float *y, int ldy, const void *p, int parts, const float *keep,
                  const float *weights, const void *values, const float *steps, int n_panels);
};

/* Rows of keys or values of a head, [n, dim], for keys [at, at + n) of a chunk; ahead: as many that
 * will be read next, to be prefetched, or NULL. */
struct cpu_stretch {
    const void *rows, *ahead;
    int at, n;
};

/* Queries [n, dim], and the same as a cpu_turn has written them. */
struct cpu_paired_queries {
    const float *rows;
    int ld, n;
    const uint16_t *turned;
};

/* Keys of a chunk that are read straight from the cache, at most, and so stretches of them; numbers
 * of a value that cpu_attention_at_once takes. */
enum { CPU_DIRECT_CHUNK = 256, CPU_STRETCHES = 16, CPU_ATTEND_DIM = 512 };

/* Queries to [n up to whole fours, dim up to whole 32, 4], for a cache of this type. */
typedef void cpu_turn(uint16_t *to, const float *q, int ldq, int n, int dim, enum dtype type);

/* The slots scores and weigh for many stretches at once, of keys and values that are multiplied as
 * bf16, for at least three queries. Slots of F32 are empty. */
struct cpu_paired_attention {
    cpu_turn *turn;
    void (*scores[CPU_KV_TYPES])(float *s, int lds, const struct cpu_paired_queries *q,
                                 const struct cpu_stretch *keys, int n_stretches, int dim);
    void (*weigh[CPU_KV_TYPES])(float *y, int ldy, const float *s, int lds, int n_rows,
                                const struct cpu_stretch *values, int n_stretches, int dim);
};

/* Scores, their part of the softmax in max, sum and acc [n, ld], see attention.c, and values at
 * once, of keys that all queries see; values[i] are those of keys[i]. For fours of queries, of
 * which the last may have three, and whole 32 numbers of keys and values, of these CPU_ATTEND_DIM
 * at most. max may stay behind the largest score by a few. False, and nothing has changed, where
 * some number in the cache is not finite, or one becomes too large. Queries are turned by turn. */
struct cpu_attention_at_once {
    cpu_turn *turn;
    bool (*attend)(float *acc, int ld, float *max, float *sum, const struct cpu_paired_queries *q,
                   const struct cpu_stretch *keys, const struct cpu_stretch *values,
                   int n_stretches, int k_dim, int v_dim);
};

struct cpu_vector_kernels {
    /* y[i] = x[i] w[i] / sqrt(mean(x^2) + eps), n >= 1; w may be NULL (ones), y may be x.
     * arXiv:1910.07467 */
    void (*rms_norm)(float *y, const float *x, const float *w, int n, float eps);

    /* y[i] = (x[i] - mean) / sqrt(var + eps) w[i] + b[i], n >= 1; w, b may be NULL, y may be x.
     * arXiv:1607.06450 */
    void (*layer_norm)(float *y, const float *x, const float *w, const float *b, int n, float eps);

    void (*add)(float *y, const float *x, int n, float scale); /* y[i] += scale x[i] */
    void (*scale)(float *x, int n, float scale);               /* x[i] *= scale */

    /* y[i] = act(x[i]); y may be x. */
    void (*activate)(float *y, const float *x, int n, enum activation act);

    /* y[i] = act(gate[i]) up[i]; y may be gate or up. arXiv:2002.05202 */
    void (*glu)(float *y, const float *gate, const float *up, int n, enum activation act);

    void (*softcap)(float *x, int n, float cap); /* x[i] = cap tanh(x[i] / cap) */

    /* (a, b) = (a cos[i] - b sin[i], a sin[i] + b cos[i]) for the pairs (x[i], x[i + n]), or
     * (x[2i], x[2i + 1]). arXiv:2104.09864 */
    void (*rope_halves)(float *x, const float *cos, const float *sin, int n);
    void (*rope_pairs)(float *x, const float *cos, const float *sin, int n);

    /* From and to the types of a cache. Storing rounds to nearest even, to F16 it saturates. */
    void (*load[CPU_KV_TYPES])(float *to, const void *from, int n);
    void (*store[CPU_KV_TYPES])(void *to, const float *from, int n);

    int (*argmax)(const float *x, int n); /* n >= 1; as the table has it */

    /* --- Recurrent mixers; see recurrent.c. A lane has its result wherever it lies. --- */

    /* y[i] = bias[i] + sum_{j < width} w[j * n + i] x[j][i], in order of j; bias may be NULL, y may
     * be one of x. */
    void (*convolve)(float *y, const float *const *x, const float *w, const float *bias, int n,
                     int width);

    /* The same for one token, its weights [n, width] and the state as device.h has them: x[j] is
     * row j of from, of which rows are from_stride apart, and x itself the last. Then the row
     * before becomes x[j]: to may be from, with the same stride, and y may be x. */
    void (*convolve_one)(float *y, float *to, int64_t to_stride, const float *from,
                         int64_t from_stride, const float *x, const float *w, const float *bias,
                         int n, int width);

    /* S and y of n lanes as device.h has it; a block that stays for several tokens is best
     * recurrence_lanes wide. Row i of S is read at from + i * from_stride and written at to + i *
     * to_stride; to may be from, with the same stride, and y may be v. */
    void (*recurrence[RECUR_RULES])(float *y, float *to, int64_t to_stride, const float *from,
                                    int64_t from_stride, const struct cpu_recurrence_step *s,
                                    int n);
    int recurrence_lanes;

    /* One token of n channels as device.h has it, h [n, size]; to may be from, y may be x, skip may
     * be NULL. */
    void (*selective_step)(float *y, float *to, const float *from, const float *x, const float *dt,
                           const float *a, const float *skip, const float *b, const float *c, int n,
                           int size);

    /* to[i] = a from[i] + sqrt(1 - a^2) x[i], a = exp(log_a[i]); to may be from or x. */
    void (*gated_step)(float *to, const float *from, const float *x, const float *log_a, int n);

    /* --- Attention over one chunk of keys; see attention.c. ---
     *
     * Many queries at once: keys and values are packed into panels, each query row then meets them
     * in tiles of tile_rows by panel numbers. A panel is [depth, panel] numbers; panel divides
     * CPU_ATTEND_CHUNK and is at most that. */
    int panel, tile_rows;

    /* Panel j / panel gets key j as column j % panel: to[(j / panel * dim + i) * panel + j % panel]
     * = keys[j, i] for keys [n_keys, dim] and j = first + key, first + n_keys <= CPU_ATTEND_CHUNK.
     */
    void (*pack_keys[CPU_KV_TYPES])(float *to, const void *keys, int first, int n_keys, int dim);

    /* The panels lie across the dimensions: to[(i / panel * CPU_ATTEND_CHUNK + j) * panel + i %
     * panel] = values[j, i], zeros for i in [dim, dim rounded up to a panel). */
    void (*pack_values[CPU_KV_TYPES])(float *to, const void *values, int first, int n_keys,
                                      int dim);

    /* For p in [0, n_panels): c[r, p * panel + j] (+)= sum_k a[r, k] b[p * b_stride + k * panel +
     * j], in order of k; rows of c are ldc numbers apart, of a lda. n_rows in [1, tile_rows]. */
    void (*product)(float *c, int ldc, const float *a, int lda, const float *b, int b_stride,
                    int n_rows, int n_panels, int depth, bool accumulate);

    /* NULL where a set is no faster with it. */
    const struct cpu_int_attention *integers;

    /* To and from codes, as device/affine.h has it. */
    void (*quantise)(void *codes, float *scales, float *biases, const float *x, int n, int group,
                     int bits);
    void (*dequantise)(float *y, const void *codes, const float *scales, const float *biases,
                       int n_rows, int dim, int group, int bits);

    /* s[j] = cap tanh(s[j]), of n scores. */
    void (*cap_scores)(float *s, int n, float cap);

    /* The step of the online softmax in base 2. Of n scores s (a multiple of panel) those outside
     * of [begin, end), begin < end, are hidden. With M = max(*max, visible s): s[j] = 2^(s[j] - M),
     * 0 where hidden; *sum = *sum 2^(*max - M) + sum_j s[j]; *max = M. Returns 2^(*max - M) of the
     * old max. arXiv:1805.02867 */
    float (*softmax_step)(float *s, int n, int begin, int end, float *max, float *sum);

    /* Few queries: straight from the cache. s[r, j] = sum_i q[r, i] keys[j, i] for keys [n_keys,
     * dim]; q is padded with zeros to a multiple of panel. ahead: rows that will be read next, as
     * many and as long as these, to be prefetched; or NULL. */
    void (*scores[CPU_KV_TYPES])(float *s, int lds, const float *q, int ldq, int n_rows,
                                 const void *keys, int n_keys, int dim, const void *ahead);

    /* The same in f32, whatever paired says of these. */
    void (*exact_scores[CPU_KV_TYPES])(float *s, int lds, const float *q, int ldq, int n_rows,
                                       const void *keys, int n_keys, int dim, const void *ahead);

    /* y[r, i] += sum_j s[r, j] values[j, i] for values [n_keys, dim]; y is padded to a multiple of
     * panel, and keeps zeros there. ahead as above. */
    void (*weigh[CPU_KV_TYPES])(float *y, int ldy, const float *s, int lds, int n_rows,
                                const void *values, int n_keys, int dim, const void *ahead);

    /* NULL, or what is faster where the cache is F16 or BF16; scores and weigh then round what they
     * multiply to bf16 too. */
    const struct cpu_paired_attention *paired;
    const struct cpu_attention_at_once *at_once[CPU_KV_TYPES]; /* F16 and BF16 with paired */

    /* The same straight from codes in groups of 32, 64 or CPU_CODE_GROUP, n_keys up to
     * CPU_ATTEND_CHUNK, for queries that have been rounded for codes of so many bits. NULL where a
     * set has none: rows are dequantised first. */
    void (*round_queries)(const struct cpu_rounded *to, const float *q, int ldq, int n, int dim,
                          int group, int bits);
    void (*score_codes)(float *s, int lds, const struct cpu_rounded *q, int n_rows,
                        const struct cpu_codes *keys, int n_keys);
    void (*weigh_codes)(float *y, int ldy, const float *s, int lds, int n_rows,
                        const struct cpu_codes *values, int n_keys);
};

/* Scalar, then what the others of a set of enum cpu_isa bits improve; the processor must have them.
 */
void cpu_vector_kernels_init(struct cpu_vector_kernels *k, unsigned isa);

void cpu_vector_kernels_scalar(struct cpu_vector_kernels *k);
void cpu_vector_kernels_avx2(struct cpu_vector_kernels *k);
void cpu_vector_kernels_avx512(struct cpu_vector_kernels *k);
void cpu_vector_kernels_neon(struct cpu_vector_kernels *k);

/* The slots of recurrent mixers, of attention and of quantised caches; called by the functions
 * above. */
void cpu_recurrent_kernels_scalar(struct cpu_vector_kernels *k);
void cpu_recurrent_kernels_avx2(struct cpu_vector_kernels *k);
void cpu_recurrent_kernels_avx512(struct cpu_vector_kernels *k);
void cpu_recurrent_kernels_neon(struct cpu_vector_kernels *k);
void cpu_attention_kernels_scalar(struct cpu_vector_kernels *k);
void cpu_attention_kernels_avx2(struct cpu_vector_kernels *k);
void cpu_attention_kernels_avx512(struct cpu_vector_kernels *k);
void cpu_attention_kernels_fp16(struct cpu_vector_kernels *k);
void cpu_attention_kernels_neon(struct cpu_vector_kernels *k);
extern const struct cpu_int_attention cpu_int_attention_scalar, cpu_int_attention_avx2,
    cpu_int_attention_avx512;
void cpu_kv_codes_kernels_scalar(struct cpu_vector_kernels *k);
void cpu_kv_codes_kernels_avx2(struct cpu_vector_kernels *k);

#endif
