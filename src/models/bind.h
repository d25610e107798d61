/* models/bind.h: putting the tensors of a checkpoint into their places. */
#ifndef MODELS_BIND_H
#define MODELS_BIND_H

#include "models/model.h"

struct adapter;

/* Memory of a device that the model owns from now on; NULL with *err. */
void *model_alloc(struct model *m, device *d, size_t size, clm_error *err);

/* Does the checkpoint hold an output head of its own? */
bool checkpoint_has_head(const struct family *f, const checkpoint *c);

/**
 * Bind every place of m->nn to m->weights by the rules of m->family. A tensor that no rule knows, a
 * place without a tensor, a shape or type that does not fit: CLM_ERR_FORMAT or CLM_ERR_UNSUPPORTED
 * naming it. adapter, or NULL, adds to the checkpoint. path stands for the checkpoint in messages;
 * log hears how far loading and repacking are.
 */
int model_bind(struct model *m, const char *path, struct adapter *adapter, const struct log *log,
               clm_error *err);

/* Fill every place with random numbers stored in the given format (vectors: ones). go_on (NULL: not
 * asked) is asked all along; where it says no: CLM_ERR_CANCELLED. */
int model_bind_random(struct model *m, struct model_format format, bool (*go_on)(void *ctx),
                      void *ctx, clm_error *err);

#endif
