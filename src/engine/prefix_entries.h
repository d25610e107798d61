/* engine/prefix_entries.h: what an index of prefixes is made of: entries in a tree of their tokens,
 * those in memory in the order of their use and within limits, those in files as the folder has
 * them.
 */
#ifndef ENGINE_PREFIX_ENTRIES_H
#define ENGINE_PREFIX_ENTRIES_H

#include "engine/cache_folder.h"
#include "engine/kept_blocks.h"
#include "engine/prefix_index.h"
#include "engine/token_tree.h"

/* What is kept for a list of tokens: a sequence, a file of it, or both. */
struct prefix_entry {
    struct token_node *node;            /* its value is this entry */
    struct prefix_entry *newer, *older; /* while there is a sequence */
    kv_seq *seq;
    struct folder_file *file;
    int pins;
};

struct prefix_index {
    kv_cache *cache;
    struct prefix_limits limits;
    struct token_tree tree;
    struct kept_blocks blocks;
    struct prefix_entry *newest, *oldest; /* in the order in which they were used */
    int n_entries, n_files;
    cache_folder *folder; /* NULL: none */
    bool complained;
};

/* Keep the first n tokens of a sequence, which can be trimmed to them, in memory. */
struct prefix_entry *prefix_keep(prefix_index *x, const kv_seq *s, int n, clm_error *err);

/* It is used now. */
void prefix_touch(prefix_index *x, struct prefix_entry *e);

/* An entry without a sequence gets one, which is its own from then on, even after a failure. */
int prefix_set_sequence(prefix_index *x, struct prefix_entry *e, kv_seq *seq, clm_error *err);

/* An entry without its sequence, or its file; one that has neither any more, and no pins, goes. */
void prefix_drop_sequence(prefix_index *x, struct prefix_entry *e);
void prefix_lose_file(prefix_index *x, struct prefix_entry *e); /* which stays in the folder */
void prefix_tidy(struct prefix_entry *e);

/* Can an entry of so many tokens, of which the first n are those of another, take its place for
 * good? Not where the other is only one of a few snapshots. */
bool prefix_covers(const prefix_index *x, int length, int n);

/* Learn what others have done to the folder. Entries with a sequence or pins stay. */
void prefix_look(prefix_index *x);

/* Write an entry's sequence, unless that is there; files that it has all of go. */
void prefix_store(prefix_index *x, struct prefix_entry *e);

/* The sequence goes, to the folder if there is one; and those used longest ago, until the rest is
 * within the limits. */
void prefix_let_go(prefix_index *x, struct prefix_entry *e);
void prefix_keep_limits(prefix_index *x);

/* Sequences of which no one else holds all blocks go, those used longest ago first, until so many
 * bytes have become free; false: there is none. */
bool prefix_let_idle_go(prefix_index *x, size_t bytes);

#endif
