/* cli/prefix_args.h: how much of earlier texts is kept, and where. */
#ifndef CLI_PREFIX_ARGS_H
#define CLI_PREFIX_ARGS_H

#include "cli/options.h"
#include "engine/prefix_index.h"

struct prefix_args {
    int entries;
    size_t bytes;       /* 0: no bound */
    const char *folder; /* NULL: none */
    size_t folder_bytes;
};

extern const struct option options_prefix[]; /* for a struct prefix_args */

void prefix_defaults(struct prefix_args *a);

/* As prefix_index_open; complaints go where those of the command do. */
prefix_index *prefix_args_open(const struct prefix_args *a, engine *e, clm_error *err);

#endif
