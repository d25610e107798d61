/* engine/cache_source.h: a prompt cache's file: its caches in order, and the arrays and numbers of
 * each, checked against what is there. */
#ifndef ENGINE_CACHE_SOURCE_H
#define ENGINE_CACHE_SOURCE_H

#include "base/arena.h"
#include "format/safetensors.h"

/* A cache of the file. Names of its arrays begin with prefix. */
struct source_leaf {
    char prefix[32], class[32];
    int entry;
};

struct cache_source {
    struct safetensors file;
    const char *name; /* of the file, in messages */
    arena *memory;
    const struct checkpoint_tensor **tensors; /* [file.n_tensors] in order of name */
    const char **metadata;                    /* [2 file.n_metadata] in order of key */
    struct source_leaf *leaves; /* those that hold something; lists are laid out flat */
    int n_leaves, n_entries;
};

/* Of a file that has been opened, which stays the caller's; at most max_leaves caches. */
int cache_source_open(struct cache_source *s, int max_leaves, clm_error *err);

/* NULL: there is none. */
const struct checkpoint_tensor *cache_source_tensor(const struct cache_source *s, const char *name);
const char *cache_source_metadata(const struct cache_source *s, const char *key);

/* The array at place, or place.i with i >= 0, of a leaf's state. An empty vector, which is how
 * nothing is written, counts as NULL. */
const struct checkpoint_tensor *cache_source_array(const struct cache_source *s,
                                                   const struct source_leaf *l, int place, int i);

/* The number at place, 0 to INT_MAX. */
int cache_source_number(const struct cache_source *s, const struct source_leaf *l, int place,
                        int *out, clm_error *err);

#endif
