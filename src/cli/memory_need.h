/* cli/memory_need.h: will it fit? Asked before anything large is allocated. */
#ifndef CLI_MEMORY_NEED_H
#define CLI_MEMORY_NEED_H

#include "models/model.h"

/**
 * CLM_ERR_NOMEM, with the numbers, when random weights of a config in a format, and the cache of
 * length tokens in f32, exceed what is available. name stands for the config in messages.
 */
int memory_need_check(const char *config_text, const char *name, struct model_format format,
                      const struct model_devices *where, int length, clm_error *err);

#endif
