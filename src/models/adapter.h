/* models/adapter.h: a folder of adapters: what it adds to a checkpoint, in either form.
 *
 * mlx-lm   adapter_config.json: fine_tune_type (lora, dora, full), num_layers, lora_parameters
 *          {rank, scale, keys}; adapters.safetensors: MODULE .lora_a [n_in, rank], .lora_b [rank,
 *          n_out], .m [n_out]; of experts [E, rank, n_in] and [E, n_out, rank]; of an embedding
 *          [vocabulary, rank] and [rank, hidden_size]; or whole tensors (full)
 * PEFT     adapter_config.json: peft_type LORA, r, lora_alpha, rank_pattern, alpha_pattern,
 *          use_rslora, use_dora, lora_bias, target_parameters; adapter_model.safetensors:
 *          base_model.model.MODULE .lora_A.weight [rank, n_in], .lora_B.weight [n_out, rank],
 *          .lora_B.bias [n_out], .lora_magnitude_vector [n_out]; of an embedding .lora_embedding_A
 *          [rank, vocabulary], .lora_embedding_B [hidden_size, rank], .lora_magnitude_vector
 *          [hidden_size]; of parameters that are stacks of experts .lora_A.weight [E rank, n_in],
 *          .lora_B.weight [n_out, rank E], a .base_layer in the name for each parameter of the
 *          module but one; or whole tensors (modules_to_save; MODULE.base_layer.weight, where
 *          MODULE is adapted too)
 */
#ifndef MODELS_ADAPTER_H
#define MODELS_ADAPTER_H

#include "models/model.h"
#include "models/names.h"

enum adapter_kind { ADAPTER_LORA, ADAPTER_DORA, ADAPTER_FULL };

struct adapter {
    const char *path;
    config *config;
    checkpoint *weights;
    bool peft;
    enum adapter_kind kind;
    int rank;                /* of mlx-lm's; of PEFT's tensors have their own */
    double scale;            /* of mlx-lm's */
    int n_layers;            /* of mlx-lm's: the last so many */
    const char *const *keys; /* of mlx-lm's: the modules; NULL: all */
    int n_keys;
    bool lora_bias;                /* of PEFT's */
    const char *const *parameters; /* of PEFT's: those targeted by name */
    int n_parameters;
    bool unties; /* the head gets what a tied embedding does not, or the other way round */
};

/* Reads a folder; what contradicts itself, or adapts otherwise than clm can, is an error that names
 * the file and the key. */
int adapter_open(struct adapter *a, const char *path, arena *memory, clm_error *err);
void adapter_close(struct adapter *a); /* a zeroed one is fine; weights are the model's */

/* What a tensor of it is for, by the rules of the family; module: room for the name of what it
 * adapts. */
struct tensor_place adapter_place(const struct family *f, const struct spec *s, const char *name,
                                  char *module, size_t size);

/* Whether it makes a head differ from the embedding that it is tied to: PEFT takes them for two
 * modules, mlx-lm for one. */
bool adapter_unties(const struct adapter *a, const struct family *f);

/* Does PEFT's target fit the parameter of a module? */
bool adapter_is_target(const char *target, const char *module, const char *parameter);

/* -1 unless mlx-lm's config says that this module is adapted. */
int adapter_check_module(const struct adapter *a, const char *module, int layer, int n_layers,
                         clm_error *err);

/* What b a x is multiplied by, in a module whose tensors have the given rank; -1 with *err where
 * the config says another. */
int adapter_scale(const struct adapter *a, const char *module, int rank, double *scale,
                  clm_error *err);

const char *adapter_kind_name(enum adapter_kind kind);

#endif
