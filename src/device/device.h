/* device/device.h: memory and kernels behind one table of functions; the contract of every
 * operation.
 *
 * Activations are tensors of rows: one row per token of the batch. Weights are matrices as they lie
 * in the checkpoint, quantised or not. Operations are queued in order; they return nothing, and the
 * first failure stays with the device until sync reports it, so that a pass is written without a
 * check per line. The CPU runs each operation at once over its thread pool.
 *
 * Unless a contract says otherwise: sizes are >= 0 and 0 rows is no work; outputs do not overlap
 * inputs, except that y may be exactly x where marked "in place"; all arithmetic accumulates in f32
 * or better.
 */
#ifndef DEVICE_DEVICE_H
#define DEVICE_DEVICE_H

#include "base/dtype.h"
#include "base/error.h"

typedef struct device device;
struct draw_rule; /* device/draw.h */
struct drawn;

/* rows x cols numbers; a row is contiguous and row r starts at data + r * stride numbers, stride >=
 * cols. Where a row holds heads, [T, H, D] means cols = H * D, head after head. */
typedef struct tensor {
    void *data; /* device memory */
    enum dtype type;
    int rows, cols;
    int64_t stride;
} tensor;

/* How a matrix is stored; see device/weight.h for the layout of each. */
enum weight_format {
    WEIGHT_F32,
    WEIGHT_F16,
    WEIGHT_BF16,
    WEIGHT_AFFINE, /* MLX affine: q * scale + bias per group; bits 2 3 4 5 6 8, groups of 32 64 128
                    */
    WEIGHT_MXFP4,  /* e2m1 values, groups of 32 with an e8m0 scale */
    WEIGHT_NVFP4,  /* e2m1 values, groups of 16 with an e4m3 scale */
    WEIGHT_MXFP8,  /* e4m3 values, groups of 32 with an e8m0 scale */
    WEIGHT_FP8,    /* e4m3 values, blocks of any size with an f32 scale */
    WEIGHT_FORMATS
};

/* A matrix [n_out, n_in], row-major; any alignment. Pointers are device memory, mapped files
 * included. */
struct weight {
    enum weight_format format;
    int n_out, n_in;
    int bits, group_size;  /* of quantised formats; n_in is a multiple of group_size, but for
                            * WEIGHT_FP8, whose last group may be shorter */
    enum dtype scale_type; /* WEIGHT_AFFINE: F32, F16 or BF16, of scales and biases alike */
    const void *data;
    const void *scales; /* [n_out, n_in / group_size]; of WEIGHT_FP8 see below */
    const void *biases; /* the same shape; WEIGHT_AFFINE only */
    /* WEIGHT_FP8: row o has the row (scale_row + o) / scale_rows of scales; scale_row is below
     * scale_rows. */
    int scale_rows, scale_row;
};

/* One product of a matmul call: y[t, o] = sum_i x[t, i] w[o, i] (+ bias[o]). */
struct matmul_job {
    tensor *y; /* [T, n_out] f32 */
    const struct weight *w;
    const float *bias; /* [n_out] or NULL */
    bool careful;    /* in f32, whatever the device approximates else: what chooses among others */
    const tensor *x; /* NULL: that of the call; another of as many rows only where the device has
                      * inputs_by_job, and not of experts */
};

enum activation {
    ACT_SILU,      /* x sigmoid(x) */
    ACT_GELU,      /* x Phi(x), by erf */
    ACT_GELU_TANH, /* 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) */
    ACT_RELU,
    ACT_RELU2,    /* relu(x)^2 */
    ACT_SIGMOID,  /* 1 / (1 + exp(-x)) */
    ACT_NONE,     /* x */
    ACT_SOFTPLUS, /* log(1 + exp(x)) */
    ACT_EXP,      /* exp(x), held within the normal numbers */
    ACT_TANH,
    /* of glu alone: (up + 1) g sigmoid(1.702 g), g = min(gate, 7), up held within [-7, 7] */
    ACT_SWIGLU_CLAMPED,
    ACT_COUNT
};

/* The keys and values of one layer: where its part of every block of the pool lies.
 *
 * Block b of the pool starts at slabs[b >> slab_shift] + (b & (2^slab_shift - 1)) * block_bytes. In
 * it, at k_offset, lie this layer's keys [n_kv_heads, block_tokens, k_dim], and at v_offset its
 * values [n_kv_heads, block_tokens, v_dim], in numbers of the given type.
 *
 * Side by side lie 2^side_shift <= 2^slab_shift blocks, the first of which is a multiple: as one
 * block of so many times block_tokens and block_bytes, in which the second has the tokens from
 * block_tokens on, so that more of a head's rows follow one another.
 *
 * With bits they are quantised as MLX does it (affine): a row of dim numbers is cut into groups of
 * group_size, the last of which may be shorter, and number i of it is codes[i] * scale + bias of
 * its group. At the offset then lie the codes [n_kv_heads, block_tokens, bytes], the first in the
 * lowest bits and each row filled up to 4 bytes, then the scales [n_kv_heads, block_tokens, groups]
 * and the biases likewise, in numbers of the type; see device/kv_layout.h. */
struct kv_layer {
    enum dtype type; /* F32, F16 or BF16; storing rounds to nearest even, to F16 it saturates */
    int n_kv_heads, k_dim, v_dim;
    int block_tokens;
    int slab_shift, side_shift;
    void *const *slabs;
    size_t block_bytes, k_offset, v_offset;
    int bits, group_size; /* 4 or 8 bits; 0: not quantised */
    /* Tokens before split, a multiple of block_tokens, lie in blocks of another pool, of the same
     * shape, which earlier describes; 0: all lie as this says. */
    int split;
    const struct kv_layer *earlier;
    /* n_last > 0: of the keys that it may see a row at p sees those at [0, n_first) and at (p -
     * n_last, p] alone, for others are let go of. n_first is 0 without. */
    int n_first, n_last;
    int index; /* number of the layer in the cache */
    /* Where keys and values lie, [2], where that is not as above; NULL: it is. */
    const struct kv_part *parts;
};

/* The sequences of a ragged batch as attention sees them: rows [row, row + n_rows) are the tokens
 * at positions [position, position + n_rows) of a sequence. Block number b of it, which is of its
 * tokens [b block_tokens, (b + 1) block_tokens), is blocks[b] of the pool where b < n_kept, else
 * blocks[b - n_gone]: those between have been let go of, or are mapped.
 *
 * The tokens before n_mapped lie in memory that is read only, all together as if in one block that
 * has block_tokens of them: that of layer number i at mapped[i].slabs[0], as the layer's parts say.
 */
struct kv_sequence {
    int row, n_rows;
    int position;
    int n_gone;
    const int32_t *blocks; /* device memory */
    int n_kept;
    int n_mapped;                  /* 0 unless the device reads host memory */
    const struct kv_layer *mapped; /* by index */
};

struct kv_batch {
    const struct kv_sequence *sequences; /* host memory; sequences of 0 rows are allowed */
    int n_sequences;
    int n_rows; /* all together; every row belongs to exactly one sequence */
};

/* The sequences of a ragged batch as recurrent mixers see them: rows [row, row + n_rows) are the
 * next tokens of a sequence whose state is read at from and written at to. These are the same
 * memory only where the device lets states stay and n_rows is 1; else a step that fails leaves the
 * old state as it was. A mixer's part, f32, lies at an offset in both, in bytes, a multiple of 4.
 *
 * What a row gives follows from the tokens of its sequence up to it and nothing else, bit for bit:
 * neither from how these were cut into steps, nor from other sequences, nor from the number of
 * threads. */
struct state_sequence {
    int row, n_rows;  /* 0 rows: nothing is written */
    const void *from; /* device memory; NULL: the sequence begins, all zero */
    void *to;         /* device memory */
};

struct state_batch {
    const struct state_sequence *sequences; /* host memory */
    int n_sequences;
    int n_rows; /* all together; every row belongs to exactly one sequence */
};

struct attend_params {
    int n_heads; /* a multiple of n_kv_heads: head h reads kv head h / (n_heads / n_kv_heads), */
    bool tiled;  /* or h % n_kv_heads */
    float scale;
    float softcap;       /* c: scores become c tanh(s / c) after scaling; 0: none */
    int window;          /* row at p sees keys at (p - window, p]; 0: all of [0, p] */
    int chunk;           /* row at p sees no keys before p / chunk * chunk; 0: no chunks */
    const float *slopes; /* [n_heads] in device memory, added to the score of a key d positions
                          * behind the row: -d slope, after scaling; not with softcap. NULL: none.
                          * arXiv:2108.12409 */
    /* Blocks of block_size positions: the head h of a row in block r sees those blocks b alone of
     * which r - b < local_blocks or (b + h block_step + 1) % block_stride is 0. 0: all */
    int block_size, local_blocks, block_stride, block_step;
    const tensor *kept; /* U32, by row of the batch: bit s % 32 of word s / 32 is whether the row
                         * sees  the key at position s, one of them at least; NULL: all */
    int kept_sets; /* so many such sets of words lie in a row of it, one for each share of the heads
                    * in order; 0 counts as 1 */
    const float *sinks; /* [n_heads] a logit per head that only joins the denominator; NULL: none */
    tensor *log_sums;   /* [T, n_heads] gets the logarithm of the denominator, scores as they are;
                         * NULL:   not asked. Then kept may have rows that see no key: without sinks y
                         * is 0   there, and the logarithm -infinity */
};

/* How numbers are rounded in blocks, each with a scale of its own. */
enum block_rounding {
    ROUND_FP8,  /* e4m3 values, the scale a power of two */
    ROUND_FP4,  /* e2m1 values, the scale a power of two */
    ROUND_NVFP4 /* e2m1 values, the scale an e4m3 value */
};

/* Which pooled keys a row sees. A pooled key stands for ratio tokens and lies at the position of
 * the last of them: those at positions s with (s + 1) % ratio == 0 are keys, key number s / ratio.
 */
struct pooled_choice {
    int n;     /* keys at most, the earlier on ties */
    int ratio; /* >= 1 */
    /* n_blocks > 0: of the blocks of block_size keys, the n_blocks best by the best key in each,
     * the latest first of all and the earlier on ties, are marked in candidates. Else, where there
     * are candidates, other keys come after all of these. */
    int n_blocks, block_size;
    tensor *candidates; /* [T, words of 32 keys] U32, by number; or NULL */
};

enum router_score {
    ROUTER_SOFTMAX_ALL,      /* softmax over all experts, then the k largest */
    ROUTER_SOFTMAX_SELECTED, /* the k largest logits, then softmax over these */
    ROUTER_SIGMOID,
    ROUTER_SQRT_SOFTPLUS,    /* sqrt(log(1 + exp(logit))) */
    ROUTER_SIGMOID_SELECTED, /* the k largest logits + bias, then the sigmoid of these logits */
    ROUTER_SPARSE_MIXER      /* k times the largest logit, weighted by a softmax over those near it.
                                arXiv:2409.12136 */
};

/* Experts are chosen by score + bias, of the groups kept alone, and weighted by their scores
 * without it. */
struct router_params {
    enum router_score score;
    int n_experts, n_experts_per_token; /* 1 <= k <= n_experts */
    const float *bias;                  /* [n_experts] in device memory, or NULL */
    int n_groups, n_groups_kept; /* equal groups in order of id, the best kept; the others' scores
                                  * count as 0. n_groups 0 or 1: no groups */
    bool groups_alone;           /* no expert of another group is chosen, however low the scores */
    bool late_zeros;             /* of these scores that count as 0, the later id is chosen first */
    bool group_by_max; /* a group is as good as its best expert; else as its best two together */
    bool normalize;    /* divide the k weights by max(their sum + eps, floor) */
    float normalize_eps, normalize_floor;
    float scale; /* and multiply by this */
    float
        jitter; /* ROUTER_SPARSE_MIXER: near is within 2 jitter, relative to the larger magnitude */
};

/* How the matrix S [key_dim, value_dim] of a head takes in one token, and y = S^T q after that. */
enum recurrence_rule {
    RECUR_ADD,   /* S = diag(w) S + k (x) beta v. Mamba-2, arXiv:2405.21060; lightning attention,
                  * 2405.17381 */
    RECUR_DELTA, /* S = diag(w) S, then S += k (x) beta (v - S^T k). Gated delta net,
                  * arXiv:2412.06464; Kimi delta attention, 2510.26692 */
    RECUR_RWKV7, /* S = diag(w) S + b (x) S^T a + k (x) beta v, all of the old S. arXiv:2503.14456
                  */
    RECUR_RULES
};

/* Of one mixer; the state is S [H, key_dim, value_dim]. Tensors are f32; pointers to numbers are
 * device memory. */
struct recurrence_params {
    enum recurrence_rule rule;
    int n_heads, n_key_heads; /* H a multiple of Hk; head h has q and k number h / (H / Hk) */
    int key_dim, value_dim;
    const tensor *q, *k;     /* [T, Hk, key_dim] */
    const tensor *v;         /* [T, H, value_dim] */
    const tensor *decay;     /* w: [T, H], the same for all keys, or [T, H, key_dim]; or NULL */
    const float *head_decay; /* w where decay is NULL: [H]; or NULL: 1 */
    const tensor *beta;      /* [T, H]; or NULL: 1 */
    const tensor *a, *b;     /* [T, H, key_dim]; RECUR_RWKV7 only */
    const float *skip;       /* [H]: y += skip[h] v; or NULL */
};

/* What the device can do at its best, measured by running it; for benchmarks. */
struct device_limits {
    double read_bytes_per_second; /* sequential reads over all threads, far beyond the caches */
    double f32_flops_per_second;  /* multiply and add count as two */
    double int8_ops_per_second;   /* these 0 where there is no such path */
    double bf16_flops_per_second;
};

struct device_ops {
    const char *name;   /* "cpu", "cuda" */
    bool reads_host;    /* its memory is the host's: kernels read what the host has mapped */
    bool side_by_side;  /* blocks of its caches may lie so, see struct kv_layer */
    bool states_stay;   /* states of single rows may be written where they are read */
    bool inputs_by_job; /* jobs of a matmul may have an x of their own */

    /* Memory. alloc is 64-byte aligned and not zeroed; NULL with *err. copy is device to device. */
    void *(*alloc)(device *d, size_t size, clm_error *err);
    void (*free)(device *d, void *p);
    void (*upload)(device *d, void *to, const void *from, size_t size);
    void (*download)(device *d, void *to, const void *from, size_t size); /* waits */
    void (*copy)(device *d, void *to, const void *from, size_t size);

    /* A device view of read-only bytes of a mapped file, valid while the file stays mapped. */
    const void *(*map)(device *d, const void *data, size_t size, clm_error *err);

    /* Gives back the views of bytes within [data, data + size): what was mapped goes away. */
    void (*unmap)(device *d, const void *data, size_t size);

    /* NULL with the three after it: they cannot. Make n >= 2 devices of this kind a group, until
     * one of it is closed; ds[0] has this table. A device is in one group at most. -1 with *err,
     * and they are as they were. */
    int (*join)(device *const *ds, int n, clm_error *err);

    /* x becomes the sum of all the group's, in the order in which it was joined, bit for bit the
     * same on every device; x f32, one shape on all of them, without gaps between rows. Each is
     * called from a thread of its own, and all make the same calls in the same order: one waits
     * for the others. Outside of a group nothing is done. */
    void (*all_reduce)(device *d, tensor *x);

    /* The device has failed and makes no more calls of all_reduce: those that wait for it fail,
     * and whatever their group is asked for from now on. From any thread. */
    void (*leave)(device *d);

    /* Once nobody is at work on any of them: the group begins anew after a leave; -1 with *err if
     * it cannot. */
    int (*rejoin)(device *d, clm_error *err);

    /* Wait for all that was queued; -1 with the first failure since the last sync. */
    int (*sync)(device *d, clm_error *err);
    void (*close)(device *d);

    /* NULL with the three after it: it has none. Mail brings results to the host, sooner than
     * download, a letter of up to size bytes at a time, of a multiple of 4. send queues one, and
     * all that was queued before is on its way; await waits for the one that was sent last, or the
     * one before that, and what was queued before it, and says where it lies until two more are
     * sent; before those the older one has come, or nobody asks for it. -1 or NULL with *err, as of
     * sync. */
    struct device_mail *(*mail_open)(device *d, size_t size, clm_error *err);
    void (*mail_close)(device *d, struct device_mail *m); /* NULL is fine */
    int (*mail_send)(device *d, struct device_mail *m, const void *from, size_t size,
                     clm_error *err);
    const void *(*mail_await)(device *d, struct device_mail *m, bool before, clm_error *err);

    /* Bytes of memory that are left, of a device that has its own; else 0. */
    size_t (*available)(device *d);

    /* What it is, for people: "avx512, 8 threads"; cut to fit. */
    void (*describe)(const device *d, char *out, size_t size);

    /* Forbid approximations (quantised activations): results then depend neither on the other rows
     * of a call nor on the number of threads, bit for bit. */
    void (*set_exact)(device *d, bool exact);

    /* go_on is asked every few hundredths of a second, NULL: nobody is; once it says no, what was
     * not measured yet is 0. */
    void (*measure)(device *d, struct device_limits *limits, bool (*go_on)(void *ctx), void *ctx);

    /* Bytes per second at which all of data, of the host and far beyond any cache, was read once
     * just now; size a multiple of 1 MB. What measure finds may be others' doing, or of another
     * minute. NULL: that is known well enough. */
    double (*read_speed)(device *d, const void *data, size_t size);

    /* y[t, :] = scale * w[ids[t], :]. ids [T] in device memory, each below w->n_out; one below 0 is
     * taken for 0. y [T, n_in] f32 */
    void (*embed)(device *d, tensor *y, const struct weight *w, const int32_t *ids, float scale);

    /* n_jobs products of x [T, n_in] f32, or of their own, in one go: each weight is read once. */
    void (*matmul)(device *d, const struct matmul_job *jobs, int n_jobs, const tensor *x);

    /* Row t * k + j of each job's y is the product with the matrix w[ids[t, j]] of that job, for
     * the experts ids [T, k] i32 (all different within a row): w points to n_experts weights alike
     * in all but their pointers and scale_row, bias to [n_experts, n_out] or NULL. x has T rows, or
     * T * k: one per expert. */
    void (*matmul_experts)(device *d, const struct matmul_job *jobs, int n_jobs, int n_experts,
                           const tensor *x, const tensor *ids);

    /* y[t, o] = sum_j weights[t, j] x[t * k + j, o]; weights [T, k] f32, in order of j. */
    void (*combine_experts)(device *d, tensor *y, const tensor *x, const tensor *weights);

    /* The k experts of every row, largest weight first (the lower id on ties), from logits [T, E]
     * f32: ids [T, k] i32 and weights [T, k] f32. */
    void (*route)(device *d, tensor *ids, tensor *weights, const tensor *logits,
                  const struct router_params *p);

    /* weights[t, j] *= scales[ids[t, j]]; scales in device memory. */
    void (*scale_chosen)(device *d, tensor *weights, const tensor *ids, const float *scales);

    /* out[i] = ids[i] where it is in [0, limit), else 0; both [n] in device memory. */
    void (*bound_ids)(device *d, int32_t *out, const int32_t *ids, int n, int limit);

    /* out[t] = ids[t] + past[t, 0] base + ... + past[t, n_used - 1] base^n_used, modulo size; past
     * [n, n_past], n_used <= n_past; all in device memory, 0 <= ids < base, size >= 1. */
    void (*ngram_ids)(device *d, int32_t *out, const int32_t *ids, const int32_t *past, int n,
                      int n_past, int n_used, int base, int size);

    /* The experts from n_experts on return their input: rest[t, 0] = the sum of their weights; in
     * ids and weights [T, k] others that are not chosen yet take their places, with weight 0.
     * n_experts >= k. */
    void (*zero_experts)(device *d, tensor *ids, tensor *weights, tensor *rest, int n_experts);

    /* y = x w / sqrt(mean(x^2) + eps) over each group of n numbers of a row (cols a multiple of n),
     * with w [n] f32 or NULL. In place. arXiv:1910.07467 */
    void (*rms_norm)(device *d, tensor *y, const tensor *x, const float *w, int n, float eps);

    /* y = (x - mean) / sqrt(var + eps) w + b, the same way; w, b may be NULL. In place.
     * arXiv:1607.06450 */
    void (*layer_norm)(device *d, tensor *y, const tensor *x, const float *w, const float *b, int n,
                       float eps);

    /* y += scale * x */
    void (*add)(device *d, tensor *y, const tensor *x, float scale);

    /* x *= scale */
    void (*scale)(device *d, tensor *x, float scale);

    /* x[t, i] *= w[i]; w [cols] in device memory. */
    void (*scale_columns)(device *d, tensor *x, const float *w);

    /* x[t, i] += w[i]; w [cols] in device memory. */
    void (*add_columns)(device *d, tensor *x, const float *w);

    /* x[t, :] *= w[t, 0]; w [T, 1] */
    void (*scale_rows)(device *d, tensor *x, const tensor *w);

    /* x = step r, r the whole number nearest to x / step, even where two are, held within [low,
     * high]; step is one number in device memory. */
    void (*round_to)(device *d, tensor *x, const float *step, float low, float high);

    /* Each block of size numbers of a row is rounded to multiples of its scale, which takes the
     * largest magnitude in it to that of the greatest value, or to the next scale above; cols a
     * multiple of size. */
    void (*round_blocks)(device *d, tensor *x, int size, enum block_rounding kind);

    /* x rounded to the nearest number of a type, F16 or BF16, to even between two. */
    void (*round_floats)(device *d, tensor *x, enum dtype type);

    /* x held within [low, high]. */
    void (*clamp)(device *d, tensor *x, float low, float high);

    /* x = 0; x = value */
    void (*clear)(device *d, tensor *x);
    void (*fill)(device *d, tensor *x, float value);

    /* x[t, g n + i] *= w[g]; cols a multiple of n, w [cols / n] in device memory. */
    void (*scale_groups)(device *d, tensor *x, const float *w, int n);

    /* n streams of T rows, one after another: y_j[t, :] = sum_i c_ji x_i[t, :] with the n x n
     * numbers c of row t of coefs. y, x [n T, cols], coefs [T, n n]. */
    void (*mix_streams)(device *d, tensor *y, const tensor *x, const tensor *coefs, int n);

    /* Each row is a matrix [n, n] of positive numbers: its columns are divided by their sums plus
     * eps, then n_iterations - 1 times its rows, and again its columns. n_iterations >= 1.
     * Sinkhorn and Knopp 1967 */
    void (*sinkhorn)(device *d, tensor *x, int n, int n_iterations, float eps);

    /* Each group of n numbers of a row times the matrix of Walsh and Hadamard over sqrt(n), its
     * inverse too: y[i] = sum_j (-1)^(bits that i and j share) x[j] / sqrt(n); n a power of two.
     * In place. */
    void (*hadamard)(device *d, tensor *x, int n);

    /* x[t, :] *= sqrt(mean(like[t, :]^2) / max(mean(x[t, :]^2), floor)). floor > 0 */
    void (*match_size)(device *d, tensor *x, const tensor *like, float floor);

    /* x[t, i] = max(0, x[t, i] - (mean + factor deviation)) of the row's numbers. */
    void (*cut_below_spread)(device *d, tensor *x, float factor);

    /* Each row to its softmax. */
    void (*softmax)(device *d, tensor *x);

    /* x = a x^2 + beta x where x > 0, else b (exp(min(x, eps)) - 1 - x) + beta x, with a =
     * softplus(alpha_p), b = beta + softplus(alpha_n); w: alpha_p, alpha_n, beta and eps, a number
     * each in device memory. arXiv:2411.13010 */
    void (*xielu)(device *d, tensor *x, const float *const w[4]);

    /* y = x, row by row. */
    void (*copy_rows)(device *d, tensor *y, const tensor *x);

    /* x[t, :] *= 1 + beta log(1 + floor((positions[t] + offset) / length)); positions [T] i32 in
     * device memory, length > 0. arXiv:2501.19399 */
    void (*temperature)(device *d, tensor *x, const int32_t *positions, float beta, float length,
                        int offset);

    /* y = act(x); in place. */
    void (*activate)(device *d, tensor *y, const tensor *x, enum activation act);

    /* y = act(gate) * up; y may be gate or up. arXiv:2002.05202 */
    void (*glu)(device *d, tensor *y, const tensor *gate, const tensor *up, enum activation act);

    /* y = (u + 1) g sigmoid(alpha g), g = min(gate, limit), u = up held within [-limit, limit]; y
     * may be gate or up. */
    void (*glu_alpha)(device *d, tensor *y, const tensor *gate, const tensor *up, float alpha,
                      float limit);

    /* x = cap tanh(x / cap) */
    void (*softcap)(device *d, tensor *x, float cap);

    /* table[t, 0..n) = mscale cos(positions[t] inv_freq[i]), table[t, n..2n) = the sines, n = cols
     * / 2; the angle is one f32 product. positions [T] i32, inv_freq [n] f32, both in device
     * memory. */
    void (*rope_table)(device *d, tensor *table, const int32_t *positions, const float *inv_freq,
                       float mscale);

    /* Rotate pairs of the first 2n of every head's head_dim numbers in place: (x[i], x[i + n]), or
     * (x[2i], x[2i + 1]) when interleaved, by the angles of the table [T, 2n]. Nothing else of a
     * head is touched, so that x may begin inside of a head and count on past the end of a row.
     * arXiv:2104.09864 */
    void (*rope)(device *d, tensor *x, int head_dim, const tensor *table, bool interleaved);

    /* Put the rows of k [T, K, k_dim] and v [T, K, v_dim] into their places in the blocks. */
    void (*kv_store)(device *d, const struct kv_layer *kv, const struct kv_batch *batch,
                     const tensor *k, const tensor *v);

    /* y[t] = softmax(scale q k^T) v per head over the keys that row t may see, its own included; q
     * [T, H, k_dim], y [T, H, v_dim]. Blocks visited in order, softmax online: no matrix of scores.
     */
    void (*attend)(device *d, tensor *y, const tensor *q, const struct kv_layer *kv,
                   const struct kv_batch *batch, const struct attend_params *p);

    /* For each row the n keys that it sees at most: kept [T, words] U32 as attend takes it, with
     * the best by sum_h w[t, h] max(q_h k, 0), the later on ties, as zeros often are; all where
     * there are no more than n. q [T, H, k_dim], w [T, H]; one kv head. */
    void (*select_keys)(device *d, tensor *kept, const tensor *q, const tensor *w,
                        const struct kv_layer *kv, const struct kv_batch *batch, int n);

    /* For each row and head of q the n blocks of so many keys, of those that the row sees, with the
     * best keys by q_h k, the last n_local among them first; kept [T, H words] U32 as attend takes
     * it, a set for each head; all where there are no more than n. q [T, H, k_dim]; one kv head. */
    void (*select_blocks)(device *d, tensor *kept, const tensor *q, const struct kv_layer *kv,
                          const struct kv_batch *batch, int n, int block_size, int n_local);

    /* For each row the pooled keys that it sees, by sum_h w[t, h] max(q_h k, 0); kept [T, words]
     * U32 by position as attend takes it, without any for rows that see none. q [T, H, k_dim], w
     * [T, H]; one kv head. */
    void (*select_pooled)(device *d, tensor *kept, const tensor *q, const tensor *w,
                          const struct kv_layer *kv, const struct kv_batch *batch,
                          const struct pooled_choice *p);

    /* y[t, c] = sum_j softmax_j(gate[t - j, c]) x[t - j, c] over the last width tokens, j < width,
     * of rows at positions p with (p + 1) % width == 0, else 0; positions [T] i32 in device memory,
     * width >= 2, x and gate [T, C]. The state is the last width - 1 of x, then of gate, [2, width
     * - 1, C], oldest first. */
    void (*causal_pool)(device *d, tensor *y, const tensor *x, const tensor *gate,
                        const int32_t *positions, int width, const struct state_batch *batch,
                        size_t offset);

    /* y[t, c] = act(bias[c] + sum_{j < width} w[c, j] x[t - (width - 1) + j, c]) over the tokens of
     * a sequence, width >= 1; w [C, width] and bias [C], or NULL, in device memory. The state is
     * the last width - 1 inputs [width - 1, C], oldest first. In place. */
    void (*causal_conv)(device *d, tensor *y, const tensor *x, const float *w, const float *bias,
                        int width, enum activation act, const struct state_batch *batch,
                        size_t offset);

    /* y [T, H, value_dim] by the rule; y may be exactly v. */
    void (*recurrence)(device *d, tensor *y, const struct recurrence_params *p,
                       const struct state_batch *batch, size_t offset);

    /* h[c, n] = exp(dt[t, c] a[c, n]) h[c, n] + dt[t, c] x[t, c] B[t, n] and y[t, c] = sum_n h[c,
     * n] C[t, n] + skip[c] x[t, c]; a [C, N], which is -exp(A_log), and skip [C], or NULL, in
     * device memory. The state is h [C, N]. y may be exactly x. Mamba, arXiv:2312.00752 */
    void (*selective_scan)(device *d, tensor *y, const tensor *x, const tensor *dt, const tensor *B,
                           const tensor *C, const float *a, const float *skip,
                           const struct state_batch *batch, size_t offset);

    /* h[c] = a h[c] + sqrt(1 - a^2) x[t, c] with a = exp(log_a[t, c]), log_a <= 0, and y[t, c] =
     * h[c]; the first token of a sequence is taken as it is: h[c] = x[0, c]. The state is h [C]. In
     * place. RG-LRU, arXiv:2402.19427 */
    void (*gated_scan)(device *d, tensor *y, const tensor *x, const tensor *log_a,
                       const struct state_batch *batch, size_t offset);

    /* dt = softplus(dt + bias), held within [low, high], and decay[t, i] = exp(dt[t, i] a[i / n]);
     * bias [cols], or NULL, and a [cols / n], which is -exp(A_log), in device memory. */
    void (*time_step)(device *d, tensor *dt, tensor *decay, const float *bias, const float *a,
                      int n, float low, float high);

    /* Gates of an exponential memory, of inputs i and f [T, H], kept in range by the greatest
     * exponent m so far: m' = max(log f + m, i) with log f = log sigmoid(f); y [T, 3 H] gets the
     * decays exp(log f + m - m'), then the weights exp(i - m'), then exp(-m'). The state is m [H].
     * mLSTM, arXiv:2405.04517 */
    void (*exponential_gates)(device *d, tensor *y, const tensor *i, const tensor *f,
                              const struct state_batch *batch, size_t offset);

    /* y[t, g n + i] /= max(|by[t, g]|, floor[t, g]) + eps for the G columns g of by and floor. */
    void (*divide_groups)(device *d, tensor *y, const tensor *by, const tensor *floor, int n,
                          float eps);

    /* y[t, g] = sum_{i < n} a[t, g n + i] b[t, g n + i] for the G columns g of y. */
    void (*dot_groups)(device *d, tensor *y, const tensor *a, const tensor *b, int n);

    /* y[t, i] = x[t, order[i]]; order [cols] i32 in device memory. */
    void (*gather_columns)(device *d, tensor *y, const tensor *x, const int32_t *order);

    /* y[i, :] = x[rows[i], :]; rows [y->rows] i32 in device memory. */
    void (*gather_rows)(device *d, tensor *y, const tensor *x, const int32_t *rows);

    /* ids[t] = the index of the largest of row t, the first on ties; -1 where a NaN or +inf is in
     * it, or nothing but -inf. ids [T] i32 in device memory; cols >= 1 */
    void (*argmax)(device *d, int32_t *ids, const tensor *x);

    /* out[t]: who comes first in the race of row t, by rules[t]; best [T] as argmax gives it. In
     * the race are all tokens that the filters may leave, and others that they nearly leave.
     * filtered: some rule has a floor, top_p or top_k. All in device memory; x finite or -inf where
     * best says so. */
    void (*draw)(device *d, struct drawn *out, const tensor *x, const int32_t *best,
                 const struct draw_rule *rules, bool filtered);
};

struct device {
    const struct device_ops *ops;
};

/* The device of a name, "cpu" or "cuda". NULL: that which the environment variable CLM_DEVICE
 * names, and where it does not, CUDA if device_cuda_open succeeds, else the CPU. n_threads is for
 * the CPU.
 */
device *device_open(const char *name, int n_threads, clm_error *err);

/* The most devices of one group. */
#define DEVICE_MAX_GROUP 8

/**
 * n devices of the kind that device_open gives, joined to a group; one alone with n 1. CPUs share
 * n_threads, one at least for each (0: those of one per physical core); of GPUs the first n that
 * CUDA shows.
 *
 * CLM_ERR_ARG where there are not so many. Returns 0, or -1 with *err and nothing open.
 */
int device_open_group(device **ds, int n, const char *name, int n_threads, clm_error *err);

/* The CPU, with the best kernels this processor has; n_threads 0: one per physical core. The
 * environment variable CLM_CPU (scalar, avx2, avx512, neon) holds the choice down, for tests and
 * comparisons. */
device *device_cpu_open(int n_threads, clm_error *err);

/* The first GPU that CUDA shows. NULL with *err, which says what is missing: CUDA when clm was
 * built, a driver, or a GPU of compute capability 8.0 or more. */
device *device_cuda_open(clm_error *err);

/* GPU number index of those that CUDA shows. */
device *device_cuda_open_at(int index, clm_error *err);

/* Which kernels: "scalar", "avx2", "avx512", "amx", "neon"; and the number of threads. */
const char *device_cpu_isa(const device *d);
int device_cpu_threads(const device *d);

/* Another number of threads for a CPU that nothing computes on just now; 0: one per physical core.
 * It stays as it was where that fails. */
int device_cpu_set_threads(device *d, int n_threads, clm_error *err);

#endif
