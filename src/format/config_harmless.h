/* format/config_harmless.h: the keys of a config.json that change nothing in what a model computes.
 */
#ifndef FORMAT_CONFIG_HARMLESS_H
#define FORMAT_CONFIG_HARMLESS_H

#include <stdbool.h>

/* key is the last part of a path: "torch_dtype", not "text_config.torch_dtype". */
bool config_key_is_harmless(const char *key);

#endif
