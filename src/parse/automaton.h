/* parse/automaton.h: several patterns looked for at once (Aho and Corasick, 1975).
 *
 * Symbols are 32-bit numbers: token ids, or the bytes of UTF-8, which find the same places as
 * characters would. A match is known with its last symbol: the pattern that ends first is the one
 * found, and of those that end together the longest. So a pattern that begins another hides it.
 */
#ifndef PARSE_AUTOMATON_H
#define PARSE_AUTOMATON_H

#include <stddef.h>
#include <stdint.h>

#define AUTOMATON_ROOT 0
#define AUTOMATON_NO_MATCH (-1)

struct automaton_node {
    int32_t symbol;
    uint32_t first_child; /* children are siblings in a list; 0: none */
    uint32_t next_sibling;
    uint32_t fail;  /* the longest proper suffix that begins a pattern */
    uint32_t depth; /* symbols from the root */
    int32_t match;  /* index of the longest pattern that ends here, or AUTOMATON_NO_MATCH */
};

/* Start from {0}: finds nothing. Immutable once built, so that any number of threads may use it. */
struct automaton {
    struct automaton_node *nodes; /* nodes[0] is the root */
    size_t n_nodes, capacity;
    uint32_t byte_children[256]; /* of the root, for symbols below 256 */
};

/* A pattern, and the number that a match gives; of equal ones the last counts. Empty ones are
 * ignored. 0, or -1 without memory. */
int automaton_add(struct automaton *a, const int32_t *symbols, size_t n, int32_t match);
int automaton_add_text(struct automaton *a, const char *text, size_t n, int32_t match);

/* After the last pattern. 0, or -1 without memory. */
int automaton_build(struct automaton *a);
void automaton_release(struct automaton *a);

/* The node after one more symbol. Its depth is how many of the last symbols may still become a
 * match; its match is what has just ended. */
uint32_t automaton_next(const struct automaton *a, uint32_t node, int32_t symbol);

static inline int32_t automaton_match(const struct automaton *a, uint32_t node)
{
    return a->n_nodes ? a->nodes[node].match : AUTOMATON_NO_MATCH;
}

static inline size_t automaton_depth(const struct automaton *a, uint32_t node)
{
    return a->n_nodes ? a->nodes[node].depth : 0;
}

#endif
