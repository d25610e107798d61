/* models/registry.h: what the registry says beyond models/model.h. */
#ifndef MODELS_REGISTRY_H
#define MODELS_REGISTRY_H

/* A known model_type that looks like this one, or NULL. */
const char *model_type_nearest(const char *model_type);

#endif
