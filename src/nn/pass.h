/* nn/pass.h: one forward pass: where its temporaries come from, and what its rows are.
 *
 * A pass carries the error: after the first failure tensors have no rows, so that every operation
 * on them is no work, and the one check is pass_done.
 */
#ifndef NN_PASS_H
#define NN_PASS_H

#include "base/arena.h"
#include "cache/kv_cache.h"
#include "nn/weights.h"

typedef struct pass pass;

/* What the rows of the pass are. */
struct pass_rows {
    const int32_t *tokens;     /* [T] device memory */
    const int32_t *positions;  /* [T] device memory */
    const int32_t *past;       /* [T, ngram.n - 1] device memory, where the model asks for them: the
                                * tokens before each, the nearest first, 0 before the first */
    int n_rows;                /* T >= 1 */
    const int32_t *logit_rows; /* [n_logits] device memory: whose logits are asked for, in order */
    int n_logits;
    const struct kv_batch *kv; /* [groups of the cache], at least one */
    struct state_batch states; /* of recurrent mixers */
};

/* Device memory for temporaries, kept from pass to pass. */
struct pass_memory *pass_memory_open(device *d, clm_error *err);
void pass_memory_close(struct pass_memory *m); /* NULL is fine */
size_t
pass_memory_peak(const struct pass_memory *m); /* most bytes of device memory in use at once */

struct pass {
    /* Of the part at work: */
    int part;
    device *dev;
    const struct device_ops *ops;
    struct pass_rows rows; /* all, or those asked for */
    size_t state;          /* where its part of the state begins in that of the model */
    struct pass_memory *memory;
    arena *host; /* small things in host memory, rewound with the rest */
    /* Of all parts: */
    const struct nn_model *model;
    kv_cache *cache;
    /* By part: all rows, and of these the ones whose logits are asked for, as if there were no
     * others; the latter have no tokens, past or states. */
    struct pass_rows part_rows[NN_MAX_PARTS], part_asked[NN_MAX_PARTS];
    bool narrows;                        /* the branches at work are the last to need all rows */
    bool narrow;                         /* rows are those asked for */
    struct pass_memory *const *memories; /* by part */
    tensor **rope_tables;                /* [model->n_ropes] */
    tensor **asked_tables;               /* the same of the rows asked for, once they are needed */
    tensor *layer_inputs; /* [T, layers * layer_input_size], where the model has them */
    tensor *embeddings;   /* [T, hidden_size], where some layer asks for them */
    tensor *streams;      /* [n T, hidden_size], one after another, where the state has several */
    struct {              /* where layers mix them: by what they are read, written and mixed next */
        tensor *read, *write, *mix; /* [T, n], [T, n], [T, n n] */
    } hyper;
    tensor *chosen;     /* [T, words] U32, the keys, pooled or not, that were chosen last, as attend
                         * takes them, where later layers see them too */
    tensor *candidates; /* [T, words] U32, those that may be */
    tensor *kept;       /* [spec->n_kept T, hidden_size] x as it has been kept, one after another */
    int n_kept;         /* so far */
    tensor *first_values; /* [T, hidden_size] of the first layer, where later ones mix them in */
    tensor *kept_kv[2];   /* keys and values as projected, for the layers that take them; or NULL */
    clm_error *err;
    bool failed;
};

/* A pass at the first part of the model. memories has one for each part, on its device. */
void pass_init(pass *p, const struct nn_model *model, kv_cache *cache,
               struct pass_memory *const *memories, clm_error *err);

/* Go to a part; what is taken from now on is on its device. */
void pass_enter(pass *p, int part);

/* A tensor of an earlier part, without gaps between rows, as one of this part; NULL stays NULL. */
tensor *pass_carry(pass *p, const tensor *x);

/* A temporary [rows, cols], contents undefined; with no rows once the pass has failed. */
tensor *pass_tensor(pass *p, enum dtype type, int rows, int cols);

/* Bytes of device memory that are no tensor; NULL once the pass has failed. */
void *pass_bytes(pass *p, size_t size);

/* Host numbers as device memory of the pass. */
const void *pass_upload(pass *p, const void *data, size_t size);

/* Rows [first, first + n) of a tensor, sharing memory; of a failed pass none. */
tensor row_range(const tensor *t, int first, int n);
/* The same as a temporary. */
tensor *pass_row_range(pass *p, const tensor *t, int first, int n);

/* x, in which all rows lie n times, one after another, keeps each time those alone whose logits are
 * asked for, in memory of its own. */
void pass_keep_asked(pass *p, tensor *x, int n);

/* Where the branches at work are the last to need all rows: x keeps those asked for, and they are
 * the rows of the pass from now on. False where there are none, of which nothing is to be computed.
 */
bool pass_narrow(pass *p, tensor *x);

/* Give back all temporaries taken since the mark. */
struct pass_mark {
    size_t host, device;
};
struct pass_mark pass_mark(const pass *p);
void pass_rewind(pass *p, struct pass_mark mark);

/* How a layer's keys and values are found on the device at work. */
const struct kv_layer *pass_kv_layer(const pass *p, int layer);

/* x, of which each of the devices that compute the model together has its share, becomes the sum:
 * the same everywhere. */
void pass_sum(pass *p, tensor *x);

/* Waits for all devices; -1 when anything failed. */
int pass_done(pass *p);

#endif
