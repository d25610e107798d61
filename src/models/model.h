/* models/model.h: a checkpoint opened: its spec, and its weights bound to it. */
#ifndef MODELS_MODEL_H
#define MODELS_MODEL_H

#include <limits.h>

#include "base/fingerprint.h"
#include "base/log.h"
#include "format/checkpoint.h"
#include "format/config.h"
#include "nn/weights.h"

/* What a model has taken of a device. */
struct model_owned {
    device *dev;
    void *data;
};

struct model {
    arena *memory;
    config *config;
    checkpoint *weights;                     /* NULL for random weights */
    checkpoint *adapter;                     /* its tensors; NULL: none */
    const char *adapter_path, *adapter_kind; /* "lora", "dora" or "full" */
    int n_adapted;                           /* places to which it adds */
    bool head_divided;                       /* by its lengths, in memory of its own */
    struct spec *spec;
    struct nn_model *nn;
    /* Where several devices compute it together: what each has; nn is in host memory then and
     * only what these were made of. */
    struct nn_model **shares;
    int n_shares; /* 0: nn is computed */
    const struct family *family;
    struct model_owned *owned; /* vectors, random weights */
    size_t n_owned, owned_capacity;
    size_t weight_bytes; /* of all matrices and vectors that were bound */
};

enum { GPU_LAYERS_NONE = -1, GPU_LAYERS_AUTO = 0, GPU_LAYERS_ALL = INT_MAX };

/* Where a model is to be: its last layers and its head on dev, and, where they do not fit or are
 * not to, the others on rest, which reads host memory. They must outlive the model. */
struct model_devices {
    device *dev;
    device *rest;   /* NULL: there is none, all goes to dev */
    int gpu_layers; /* on dev: so many, or one of the above */
    /* n_group > 1: dev and others compute all layers together, see models/share.h; rest, where dev
     * does not read host memory, has what they are given their shares of. */
    device *group[DEVICE_MAX_GROUP];
    int n_group;
    size_t cache_bytes; /* the bound of the cache, for which room is left; 0: there is none */
    /* Asked while weights are read from the disk before they are bound, and while random ones are
     * made: false stops that, and with it opening the model. NULL: weights are read as they are
     * used, and random ones made to the end. */
    bool (*read_ahead)(void *ctx);
    void *read_ahead_ctx;
};

/**
 * Open the device of a name, as device_open does, and the CPU beside it where layers could be on
 * both. GPU_LAYERS_NONE is the CPU alone. CLM_ERR_ARG for a number of layers without a GPU.
 */
int model_devices_open(struct model_devices *where, const char *name, int n_threads, int gpu_layers,
                       clm_error *err);
/* The same for n devices that compute together, as device_open_group opens them. */
int model_devices_open_group(struct model_devices *where, int n, const char *name, int n_threads,
                             clm_error *err);
void model_devices_close(struct model_devices *where); /* a zeroed one is fine */

/**
 * Open the checkpoint of a directory on a device. Errors name the file and the key or tensor:
 * CLM_ERR_IO, CLM_ERR_FORMAT (a config that contradicts itself or the tensors), CLM_ERR_UNSUPPORTED
 * (an architecture, rope type or activation that clm does not have).
 */
struct model *model_open(const char *path, device *d, const struct log *log, clm_error *err);

/**
 * The same with what an adapter adds, or as it is with adapter_path NULL: a folder in mlx-lm's form
 * (adapters.safetensors) or PEFT's (adapter_model.safetensors), applied as the model runs; see
 * models/adapter.h. An adapter of another model, or one that contradicts its config, is an error.
 */
struct model *model_open_adapted(const char *path, const char *adapter_path, device *d,
                                 const struct log *log, clm_error *err);

/**
 * The same over two devices. GPU_LAYERS_AUTO: as many layers as the free memory of dev has room for
 * beside their part of the cache; log hears how many these are. CLM_ERR_ARG where a model cannot be
 * cut there, CLM_ERR_NOMEM where what is asked for does not fit.
 */
struct model *model_open_over(const char *path, const char *adapter_path,
                              const struct model_devices *where, const struct log *log,
                              clm_error *err);

/* How random weights are stored: a dense type, or affine bits in groups. */
struct model_format {
    enum weight_format format;
    int bits, group_size;
};

/**
 * A model of a real shape without a checkpoint: the config is parsed as if it lay in a directory,
 * the weights are random numbers of a size that keeps activations finite. For benchmarks.
 */
struct model *model_random(const char *config_text, const char *name, struct model_format format,
                           device *d, const struct log *log, clm_error *err);
struct model *model_random_over(const char *config_text, const char *name,
                                struct model_format format, const struct model_devices *where,
                                const struct log *log, clm_error *err);

void model_close(struct model *m); /* NULL is fine */

/* Bytes of weights that one token of a single sequence makes the device read: all matrices, of
 * stacked experts only those chosen, of the embedding one row (unless it is the head too). */
size_t model_bytes_per_token(const struct model *m);

/* A fingerprint of config.json and of the names, types, shapes and first bytes of all tensors, and
 * of an adapter's, in out as hexadecimal digits; "" for random weights. */
int model_fingerprint(const struct model *m, char out[FINGERPRINT_SIZE], clm_error *err);

/* Multiplications and additions (2 per weight) of one token, likewise; and of these the ones that
 * only tokens need whose logits are asked for. */
double model_flops_per_token(const struct model *m);
double model_flops_of_asked(const struct model *m);

/* Families: the i-th, NULL past the last; and the one that serves a model_type, or NULL. */
const struct family *model_family(int i);
const struct family *model_family_find(const char *model_type);

#endif
