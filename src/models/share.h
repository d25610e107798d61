/* models/share.h: what each of several devices that compute a model together has of a layer: heads
 * of its attention, numbers of its feed-forward blocks; and of the head a range of tokens. What
 * cannot be cut is whole on every device, and computed by each of them.
 *
 * A device multiplies with rows of the matrices that its heads and numbers are made by, and with
 * the columns of those that read them; the products of the latter are summed over the devices.
 * Megatron-LM, arXiv:1909.08053
 */
#ifndef MODELS_SHARE_H
#define MODELS_SHARE_H

#include "nn/weights.h"

/* Things [first, first + n). */
struct range {
    int first, n;
};

/* What a device has of a branch. */
struct branch_share {
    bool heads_cut;               /* attention, or the delta rule, whose heads share keys */
    struct range heads, kv_heads; /* kv heads of attention may be on several devices */
    bool inner_cut;               /* a feed-forward block, or every expert */
    struct range inner;
    bool shared_cut; /* the expert that all tokens go to */
    struct range shared;
};

/* The part of a place: of a matrix rows or columns, of a vector numbers (rows), or of a place with
 * several matrices or vectors some of these. */
struct share_cut {
    enum { CUT_NONE, CUT_ROWS, CUT_COLUMNS, CUT_PARTS } kind;
    struct range range;
};

/* How a model is cut for n devices; its weights must be bound. */
struct share_plan {
    const struct nn_model *model;
    int n;
    bool whole_heads; /* no attention of it is cut */
    int head_group;   /* in wholes of so many numbers */
};

struct share_plan share_plan_of(const struct nn_model *m, int n);

/* What device number rank has of a branch, of the tokens' logits, and of a place of weights. */
struct branch_share share_of_branch(const struct share_plan *p, int layer, int branch, int rank);
struct range share_of_logits(const struct share_plan *p, int rank);
struct share_cut share_cut_of(const struct share_plan *p, const struct nn_slot *slot, int rank);

/* models/shard.c */

struct model;
struct log;

/**
 * Make m->shares of m->nn, one on each of n >= 2 devices of a group. m->nn, whose weights are
 * bound and in host memory, stays. CLM_ERR_UNSUPPORTED where none of its layers can be cut; log
 * hears what is whole on every device.
 */
int model_share_out(struct model *m, device *const *ds, int n, const struct log *log,
                    clm_error *err);

#endif
