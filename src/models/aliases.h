/* models/aliases.h: keys of a config.json by their other names. */
#ifndef MODELS_ALIASES_H
#define MODELS_ALIASES_H

#include "format/config.h"

/* Other names of keys, as transformers has them for this model, count as the keys. */
void model_aliases(config *c, const char *model_type);

#endif
