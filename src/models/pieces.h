/* models/pieces.h: what binding shares: the tensors that have reached each place. */
#ifndef MODELS_PIECES_H
#define MODELS_PIECES_H

#include "base/thread.h"
#include "models/model.h"
#include "models/names.h"

#define N_PARTS 13 /* of enum tensor_part, those that are kept */

/* Whether numbers of BitNet, not packed, are levels, or levels are to be found. */
enum levels { LEVELS_NONE, LEVELS_STORED, LEVELS_FOUND };

/* What quantization_config says that tensors leave open; 0: nothing. */
struct foreign {
    int bits, group_size;
    int likely_bits; /* where rows are so short that words of several fit */
    int zero_add;    /* to stored zero points of GPTQ */
    struct fp8_block {
        int rows, cols;
    } blocks[8]; /* sizes that some of the fp8 matrices have */
    int n_blocks;
    bool scales_divide; /* of ternary weights */
    enum levels levels;
    int general; /* where others of the experts of a slot need it: 1: zero points in the middle
                    count as any, 2: and an order that is none as one, 3: all become numbers */
};

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

/* How PEFT's tensors for stacked experts lie, see stacks.h. */
enum stacks { STACKS_UNKNOWN, STACKS_AS_THEY_ARE, STACKS_TURNED };

struct binder {
    struct model *m;
    device *dev; /* of the place that is being filled */
    const char *path;
    struct nn_slot *slots;
    struct piece **pieces; /* [slots][max(1, n_experts)] */
    int n_slots;
    int *index;  /* [(layer + 1), branch + 1, role] -> slot, -1: none */
    int n_signs; /* tensors of signs */
    arena *memory;
    struct foreign foreign;
    thread_pool *pool;        /* for repacking, opened by the first that needs it */
    int n_packed, n_repacked; /* matrices */
    const struct log *log;
    struct adapter *adapter;  /* NULL: none */
    struct piece **additions; /* as pieces, of the adapter's tensors */
    enum stacks stacks;
    clm_error *err;
};

/* The error that a tensor has no place; 0 for one without numbers, which needs none. */
int binder_unused(const struct binder *b, const struct checkpoint_tensor *t);

bool is_zero(const struct checkpoint_tensor *t);

int binder_pool(struct binder *b); /* opens it; -1 with the error */

/**
 * One expert of a tensor [n_experts,] rows, cols (cols 0: a vector of rows), or the whole of one
 * that is of one expert or of none, after checking that it is so; NULL with the error.
 */
const uint8_t *binder_plane(const struct binder *b, const struct checkpoint_tensor *t,
                            const struct piece *p, const struct nn_slot *s, int expert,
                            int64_t rows, int64_t cols);

/* The place's part of a tensor as device memory: mapped where its rows lie together as they are,
 * else put together in memory of the model. cols counts numbers of the tensor's type in a row. NULL
 * with the error. */
const void *binder_rows(const struct binder *b, const struct checkpoint_tensor *t,
                        const struct piece *p, const struct nn_slot *s, int expert, int64_t cols);

/* The row of the tensor that is row o of the place. */
int64_t binder_source_row(const struct piece *p, int n_out, int o);

/* models/rotate.c: the rotation of a matrix by the signs that have reached it; and whether as many
 * did as config.json lists. -1 with *err. */
int binder_rotate(struct binder *b, struct nn_rotation *r, const struct checkpoint_tensor *signs,
                  int n_in);
int binder_check_rotations(const struct binder *b);

/* Host memory to device memory of the model; NULL with the error. */
const void *binder_place(const struct binder *b, const void *from, size_t size);

/* Host memory to make a weight of size bytes in, NULL with the error: the model's own where the
 * device reads that, so that the threads that make its parts are the first to touch them, which
 * says on which NUMA node they lie. binder_settle tells where the weight lies then, NULL with the
 * error; the other lets go of a room, or of none, that came to nothing. */
uint8_t *binder_room(const struct binder *b, size_t size);
const void *binder_settle(const struct binder *b, uint8_t *room, size_t size);
void binder_drop(const struct binder *b, uint8_t *room);

/* numbers[i] = f, rounded to a dense format; any alignment. */
void store_number(uint8_t *numbers, size_t i, float f, enum weight_format format);

/* One matrix of a slot: quantised as MLX has it; not quantised; the transpose of rows of either. */
int set_quantised(const struct binder *b, struct weight *w, const struct piece *p,
                  const struct nn_slot *s, int expert);
int set_dense(const struct binder *b, struct weight *w, const struct piece *p,
              const struct nn_slot *s, int expert);
int set_turned(struct binder *b, struct weight *w, const struct piece *p, const struct nn_slot *s);

/* One matrix as f32, however it is stored. */
int set_numbers(struct binder *b, struct weight *w, const struct piece *p, const struct nn_slot *s);

/* The format of numbers as a tensor holds them; -1 with the error where it is of another type. */
int read_dense(const struct binder *b, struct weight *w, const struct checkpoint_tensor *t);

/* models/normed.c: the head, not quantised, where its rows or columns are divided by their lengths.
 */
bool is_normed_head(const struct spec *s, const struct nn_slot *slot, const struct piece *p);
int set_normed(struct binder *b, struct weight *w, const struct piece *p, const struct nn_slot *s);

/* models/bind.c: take a tensor of the checkpoint or the adapter to the place that is its. */
int binder_lead(struct binder *b, const struct checkpoint_tensor *t, struct tensor_place place);

/* The first slot that a tensor goes to, and how many rows those that it goes to have together;
 * NULL: none. */
const struct nn_slot *binder_slot(const struct binder *b, const struct tensor_place *place,
                                  int64_t *rows);

/* models/fill.c: make a place from its pieces; -1 with the error of what is missing or does not
 * fit. */
int binder_fill(struct binder *b, const struct nn_slot *s, const struct piece *pieces);

#endif
