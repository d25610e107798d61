/* cli/locate.h: from what stands behind -m to a folder. */
#ifndef CLI_LOCATE_H
#define CLI_LOCATE_H

#include <stddef.h>

#include "base/error.h"

/**
 * The folder of a model.
 *
 * name  a folder, or the name of a model in the local hub cache, or NULL: the model in $CLM_MODEL,
 * else the one that comes with clm.
 */
int locate_model(char *out, size_t size, const char *name, clm_error *err);

#endif
