/* generate/settle.h: a token that a device has drawn, proven to be the one that is drawn here. */
#ifndef GENERATE_SETTLE_H
#define GENERATE_SETTLE_H

#include "device/draw.h"

/* The token that sampler_next draws by this rule from the logits that d tells of; -1 where d does
 * not tell it for certain, as one in some thousand does not. */
int32_t settle(const struct drawn *d, const struct draw_rule *r);

#endif
