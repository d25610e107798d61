#include "cli/prefix_args.h"

#include "cli/session.h"

const struct option options_prefix[] = {
    {INT_OPTION("prompt-cache-size", 0, struct prefix_args, entries, 1, 1000000,
                "of how many texts to keep what the model remembers, for those that begin alike "
                "(default: 10)")},
    {BYTES_OPTION("prompt-cache-bytes", 0, struct prefix_args, bytes,
                  "how much memory that may take, such as 4G; what texts share counts once "
                  "(default: no bound)")},
    {STRING_OPTION("prompt-cache-dir", 0, struct prefix_args, folder, "DIR",
                   "a folder where it is kept beyond that, and for later runs")},
    {BYTES_OPTION("prompt-cache-dir-bytes", 0, struct prefix_args, folder_bytes,
                  "how much the folder may hold; what was used longest ago goes (default: 10G; 0: "
                  "no bound)"),
     .with = "prompt-cache-dir"},
    {0},
};

void prefix_defaults(struct prefix_args *a)
{
    a->entries = 10;
    a->folder_bytes = (size_t)10 << 30;
}

prefix_index *prefix_args_open(const struct prefix_args *a, engine *e, clm_error *err)
{
    struct prefix_limits limits = {
        .max_bytes = a->bytes,
        .max_entries = a->entries,
        .folder = a->folder,
        .folder_bytes = a->folder_bytes,
        .log = &cli_log,
    };

    return prefix_index_open(e, &limits, err);
}
