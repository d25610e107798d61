/* device/cuda/waiting.h: operations that wait to see what comes next, and then go along with it in
 * one launch.
 *
 * One operation waits at a time, in struct cuda_device. The rule that makes this safe: nothing
 * reaches the stream but through cuda_queue_add and cuda_flush, and both begin with cuda_settle,
 * which launches what waits. So whatever is queued comes after it, and an operation that knows
 * nothing of this file need not. One that takes along what waits does so by cuda_take, before its
 * own launch, and has asked first whether the memory that both touch allows it: a kernel of two
 * operations reads for the second while it writes for the first.
 *
 * What waits keeps tensors and weights by value: their structs may be gone when it is launched.
 * Everything that an operation has in memory when it is done is there too if it went along: nobody
 * can tell but by the clock. Exact mode takes nothing along that would change a bit.
 */
#ifndef DEVICE_CUDA_WAITING_H
#define DEVICE_CUDA_WAITING_H

extern "C" {
#include "device/device.h"
}

struct cuda_device;

enum cuda_kind {
    CUDA_NOTHING,
    CUDA_ADDITION,
    CUDA_HEADS,
    CUDA_NORM,
    CUDA_PRODUCT,
    CUDA_ROUTING,
    CUDA_COMBINATION,
    CUDA_SUM
};

/* y += scale x: a norm of the sum takes it along. */
struct cuda_addition {
    tensor y, x;
    float scale;
};

/* Heads of queries, keys, values: their norm, then their rotation, then that they are stored, of
 * each part what was asked for; no part touches another. */
enum { CUDA_HEAD_PARTS = 3, CUDA_HEAD_NUMBERS = 512 /* of a head that is normed so */ };

struct cuda_heads_part {
    tensor x, table; /* table.cols 0: not turned */
    const float *w;
    float eps;
    int head_dim;
    bool normed, interleaved, stored, values;
};

struct cuda_heads {
    struct cuda_heads_part parts[CUDA_HEAD_PARTS];
    int n;
    /* Where keys and values are stored already: nothing else joins, but attention to them may take
     * all of it along. On the device; NULL: nothing is. */
    const struct kv_sequence *sequences;
    const int32_t *of_row;
    struct kv_layer layer; /* by itself, without what it points to */
};

/* y = the norm of whole rows of x: a product of few rows of y computes it by itself. */
struct cuda_norm {
    tensor y, x;
    const float *w;
    float eps;
};

/* Which matrix each row of a product has. Row p of y is of the expert ids[p / per_row][p % per_row]
 * and of row p / x_share of x. */
struct cuda_experts {
    const int32_t *ids; /* NULL: all have the one that there is */
    int64_t ids_stride;
    int per_row, x_share;
    int n_experts;
};

/* ids and weights of the experts of each row, by its logits: the product with them that comes next
 * finds them by itself. */
struct cuda_routing {
    tensor ids, weights, logits;
    struct router_params p;
};

/* What comes after a product, of the results while they are at hand: y += scale p of one job's, y =
 * act(gate) up of two jobs' of as many outputs, or y = what one job's experts answered, by weights,
 * and to += scale y if there is a to. */
enum cuda_tail_kind { CUDA_NO_TAIL, CUDA_TAIL_ADD, CUDA_TAIL_GLU, CUDA_TAIL_COMBINE };

struct cuda_tail {
    enum cuda_tail_kind kind;
    tensor y, weights, to; /* to.data NULL: there is none */
    float scale;
    enum activation act;
};

/* Bytes from an expert's matrix to the next, where they are all as far apart. */
struct cuda_steps {
    uint64_t data;
    uint32_t scales, biases;
};

enum { CUDA_STREAM_JOBS = 8 };

/* Products of the same x of few rows, of weights alike: what product_stream.cu, or in_tiles
 * product_tiles_sm90.cu, computes in one launch. */
struct cuda_product {
    int n_jobs;
    bool in_tiles;
    tensor y[CUDA_STREAM_JOBS];
    struct weight w[CUDA_STREAM_JOBS]; /* of experts the first */
    const float *bias[CUDA_STREAM_JOBS];
    const struct weight
        *chosen_from[CUDA_STREAM_JOBS]; /* all experts, in device memory; or NULL: */
    struct cuda_steps steps[CUDA_STREAM_JOBS];
    struct cuda_experts experts;
    bool routed; /* the experts are those that the routing finds, which the product computes */
    struct cuda_routing routing;
    tensor x;
    bool normed; /* x is the y of the norm, which the product computes */
    struct cuda_norm norm;
    struct cuda_tail tail;
};

/* y = what the experts of each row answered, by their weights: an addition of it goes along. */
struct cuda_combination {
    tensor y, x, weights;
};

/* x becomes the sum over the group: an addition of it goes along. */
struct cuda_sum {
    tensor x;
    const struct cuda_sums *sums;
};

struct cuda_waiting {
    enum cuda_kind kind;
    struct cuda_addition addition;
    struct cuda_heads heads;
    struct cuda_norm norm;
    struct cuda_product product;
    struct cuda_routing routing;
    struct cuda_combination combination;
    struct cuda_sum sum;
};

/* Launches what waits. */
void cuda_settle(struct cuda_device *c);

/* Nothing waits any more: what did is the caller's to do. */
void cuda_take(struct cuda_device *c);

/* Is it the same numbers, laid out alike? */
static inline bool cuda_same(const tensor *a, const tensor *b)
{
    return a->data == b->data && a->rows == b->rows && a->cols == b->cols &&
           (a->stride == b->stride || a->rows <= 1);
}

/* Do two tensors of f32 lie, from their first number to their last, over one another? */
static inline bool cuda_overlap(const tensor *a, const tensor *b)
{
    const float *x = (const float *)a->data, *y = (const float *)b->data;

    return a->rows > 0 && b->rows > 0 && x < y + (b->rows - 1) * b->stride + b->cols &&
           y < x + (a->rows - 1) * a->stride + a->cols;
}

/* What the operations of each kind do when they need wait no more, by file. */
void cuda_launch_addition(struct cuda_device *c, const struct cuda_addition *a); /* vector.cu */
void cuda_launch_heads(struct cuda_device *c, const struct cuda_heads *h);       /* heads.cu */
void cuda_launch_norm(struct cuda_device *c, const struct cuda_norm *n);         /* norm.cu */
void cuda_launch_product(struct cuda_device *c,
                         const struct cuda_product *p); /* product_stream.cu */

void cuda_launch_routing(struct cuda_device *c, const struct cuda_routing *r); /* router.cu */
void cuda_launch_combination(struct cuda_device *c,
                             const struct cuda_combination *m);        /* router.cu */
void cuda_launch_sum(struct cuda_device *c, const struct cuda_sum *s); /* sums.cu */

/* The norm of each n numbers of x, in place, to go with what follows of them; false where they are
 * too many. heads.cu */
bool cuda_norm_heads(struct cuda_device *c, const tensor *x, const float *w, int n, float eps);

bool cuda_combination_add(struct cuda_device *c, const struct cuda_addition *a); /* router.cu */
bool cuda_sum_add(struct cuda_device *c, const struct cuda_addition *a);         /* sums.cu */

/* Has the product that waits room for what comes next? It is launched with it then. matmul.cu */
bool cuda_product_add(struct cuda_device *c, const struct cuda_addition *a);
bool cuda_product_glu(struct cuda_device *c, const tensor *y, const tensor *gate, const tensor *up,
                      enum activation act);

/* The same; the product goes on waiting, for an addition of what the experts answered. */
bool cuda_product_combine(struct cuda_device *c, const struct cuda_combination *m);

#endif
