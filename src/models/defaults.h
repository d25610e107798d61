/* models/defaults.h: what a key counts as that a config.json leaves out. */
#ifndef MODELS_DEFAULTS_H
#define MODELS_DEFAULTS_H

#include <stdbool.h>

/* Of a model as mlx-lm has it, or transformers, where that is not the default in the code of its
 * family: an object in JSON; NULL: nothing. */
const char *model_defaults(const char *model_type, bool transformers);

/* Sizes of a model whose config is a part of another's: up to version 4, transformers wrote of
 * those just what differs from its defaults. NULL: nothing is known. */
const char *model_part_defaults(const char *model_type);

/* rms_norm_eps where a file that transformers wrote does not say; 0: it has no default. */
double model_norm_eps(const char *model_type);

/* Keys that a model's config.json must have unless transformers wrote it, beside those that its
 * family asks for, with spaces between; NULL: none. */
const char *model_required(const char *model_type);

#endif
