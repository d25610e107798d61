/* format/generation_config.h: generation_config.json, a model's own wishes for generation. */
#ifndef FORMAT_GENERATION_CONFIG_H
#define FORMAT_GENERATION_CONFIG_H

#include <stdbool.h>

#include "format/config.h"

/* What the file does not say is negative, and false. */
struct generation_config {
    const int *eos_token_ids;
    int n_eos_token_ids; /* 0 when the file names none */
    int bos_token_id;
    bool do_sample;
    double temperature; /* >= 0 */
    double top_p;       /* in [0, 1] */
    double min_p;       /* in [0, 1] */
    int top_k;
    double repetition_penalty; /* in [0.001, 1000] */
    config *memory;
};

/**
 * Read generation_config.json of a folder. Without the file nothing is said, which is no error.
 * Returns 0, or -1 with *err filled and nothing to close.
 */
int generation_config_open(struct generation_config *g, const char *folder, clm_error *err);

/* The same from memory; name stands for the path in messages. */
int generation_config_parse(struct generation_config *g, const char *text, size_t size,
                            const char *name, clm_error *err);

void generation_config_close(struct generation_config *g); /* a zeroed one is fine */

#endif
