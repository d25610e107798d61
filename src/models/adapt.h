/* models/adapt.h: binding an adapter beside a checkpoint. */
#ifndef MODELS_ADAPT_H
#define MODELS_ADAPT_H

#include "models/adapter.h"
#include "models/pieces.h"

/* Lead the adapter's tensors to their places, b->additions; those that replace tensors of the
 * checkpoint take their parts. */
int adapt_lead(struct binder *b);

/* What the adapter adds to a place whose weights are there. */
int adapt_fill(struct binder *b, const struct nn_slot *s, const struct piece *additions);

#endif
