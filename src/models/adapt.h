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

/* What b a x is multiplied by, b and a having the given rank, t being one of them; -1 with b->err.
 */
int adapt_scale(const struct binder *b, const struct checkpoint_tensor *t, int rank, double *scale);

#endif
