/* tokenizer/trie.h: a set of byte strings, walked byte by byte. */
#ifndef TOKENIZER_TRIE_H
#define TOKENIZER_TRIE_H

#include <string.h>

#include "tokenizer/map.h"

/* Nodes are numbers, the root 0; edges are in a hash table. Start from {0}. */
struct trie {
    struct pair_map edges; /* node, byte -> node */
    int32_t *ends;         /* per node: the value of the string that ends here, -1: none */
    size_t n_nodes, capacity;
    bool first[256]; /* bytes that strings begin with; a_first is one of these n_first */
    unsigned n_first;
    char a_first;
};

/* value >= 0; the first value of a string stays; the empty string is passed over. */
int trie_add(struct trie *t, const char *s, size_t n, int32_t value, clm_error *err);
void trie_close(struct trie *t);

/* From a node along a byte; false where there is no way. */
static inline bool trie_step(const struct trie *t, uint32_t *node, unsigned char byte)
{
    const struct pair_slot *edge = pair_map_find(&t->edges, *node, byte);

    if (edge)
        *node = edge->a;
    return edge;
}

/* The first place of s[0, n), from i on, where a string of the set may begin; n: nowhere. */
static inline size_t trie_next_begin(const struct trie *t, const char *s, size_t i, size_t n)
{
    if (t->n_first < 2) {
        const char *found = t->n_first ? memchr(s + i, t->a_first, n - i) : NULL;

        return found ? (size_t)(found - s) : n;
    }
    while (i < n && !t->first[(unsigned char)s[i]])
        i++;
    return i;
}

/* The length of the longest string of the set that s begins with, or 0. */
size_t trie_longest(const struct trie *t, const char *s, size_t n, int32_t *value);

#endif
