/* cli/other_names.h: what users of other programs look for. */
#ifndef CLI_OTHER_NAMES_H
#define CLI_OTHER_NAMES_H

#include <stddef.h>

/* What to do in place of an option of llama.cpp, mlx-lm and others, by its name [size] without
 * dashes: "it is --temp here"; the i-th of several answers, for commands differ; NULL: there are no
 * more. */
const char *other_option(const char *name, size_t size, int i);

/* The same of a command's name. */
const char *other_command(const char *name);

#endif
