/* models/pieces.h: what binding shares: the tensors that have reached each place. */
#ifndef MODELS_PIECES_H
#define MODELS_PIECES_H

#include "models/model.h"
#include "models/names.h"

#define N_PARTS 4

/* What has reached one place, or one expert of it. The place's rows are rows of each tensor: [row,
 * row + n_out), or, where stride > 0, the first block of every stride rows from row on. */
struct piece {
    const struct checkpoint_tensor *part[N_PARTS];
    int64_t rows; /* of the whole tensor; 0: those of the place */
    int64_t row, block, stride;
    bool stacked;    /* the tensors hold all experts, outermost */
    bool transposed; /* matrices are stored [n_in, rows] */
    bool turned; /* the place's inputs are the rows [row, row + n_in), its outputs the columns */
};

struct binder {
    struct model *m;
    const char *path;
    struct nn_slot *slots;
    struct piece **pieces; /* [slots][max(1, n_experts)] */
    int n_slots;
    int *index; /* [(layer + 1), branch + 1, role] -> slot, -1: none */
    arena *memory;
    clm_error *err;
};

/* The error that a tensor has no place. */
int binder_unused(const struct binder *b, const struct checkpoint_tensor *t);

/* models/fill.c: make a place from its pieces; -1 with the error of what is missing or does not
 * fit. */
int binder_fill(struct binder *b, const struct nn_slot *s, const struct piece *pieces);

#endif
