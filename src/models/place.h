/* models/place.h: on which devices the layers of a model will lie. */
#ifndef MODELS_PLACE_H
#define MODELS_PLACE_H

#include "models/model.h"

/**
 * Decide, before any weight is there, which layers go to which device, and tell m->nn. The sizes of
 * weights are those of the checkpoint, or of a format for random ones (NULL: the checkpoint's).
 */
int model_place(struct model *m, const struct model_devices *where,
                const struct model_format *format, const struct log *log, clm_error *err);

/* Bytes of a place's weights in a format. */
double model_format_bytes(const struct nn_slot *slot, struct model_format format);

/* Bytes of the cache of one sequence of length tokens in a layer, with numbers of the given size:
 * windows let go of what lies behind them. */
double model_layer_cache_bytes(const struct layer_spec *l, size_t number_size, int length);

#endif
