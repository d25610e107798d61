/* cli/shapes.h: configs of real models, for benchmarks on random weights. */
#ifndef CLI_SHAPES_H
#define CLI_SHAPES_H

#include "base/strbuf.h"

struct shape {
    const char *name;
    int n_layers;
    const char *config; /* a config.json without num_hidden_layers */
};

extern const struct shape shapes[]; /* ends with a NULL name */

const struct shape *shape_find(const char *name); /* NULL: there is none */

/* The config of a shape with the given number of layers, 0: its own. */
void shape_config(struct strbuf *out, const struct shape *s, int n_layers);

#endif
