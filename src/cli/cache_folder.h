/* cli/cache_folder.h: where the command keeps what it can make again. */
#ifndef CLI_CACHE_FOLDER_H
#define CLI_CACHE_FOLDER_H

#include <stdbool.h>
#include <stddef.h>

/**
 * The absolute path of a folder for things of a kind, whether it is there or not: in what
 * CLM_CACHE_DIR in the environment names, else in $XDG_CACHE_HOME/clm, else in ~/.cache/clm. False
 * where there is none: CLM_CACHE_DIR is empty or "none", or a home that is not this user's.
 */
bool cache_folder(char *out, size_t size, const char *kind);

#endif
