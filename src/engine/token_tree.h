/* engine/token_tree.h: a radix tree: lists of token ids, and something kept for each of them.
 *
 * The path from the root to a node spells a list. Nodes that nothing is kept for are there only
 * where lists part. A node stays where it is for as long as something is kept for it.
 */
#ifndef ENGINE_TOKEN_TREE_H
#define ENGINE_TOKEN_TREE_H

#include <stdint.h>

#include "base/error.h"

struct token_node {
    struct token_node *parent;    /* NULL: the root */
    struct token_node **children; /* [n_children] in order of their first token */
    int n_children, capacity;
    int32_t *tokens; /* [n_tokens] that it adds to its parent's list */
    int n_tokens;
    int depth;   /* the length of its list */
    void *value; /* NULL: nothing is kept */
};

/* Start from {0}. */
struct token_tree {
    struct token_node root;
};

void token_tree_release(struct token_tree *t); /* values stay the caller's */

/* The node of just this list, n >= 1, which is made where there is none; the caller gives it a
 * value, or takes it back by token_tree_prune. NULL with CLM_ERR_NOMEM, the tree as it was. */
struct token_node *token_tree_add(struct token_tree *t, const int32_t *tokens, int n,
                                  clm_error *err);

/* Take a node without a value out of the tree, unless lists part there. */
void token_tree_prune(struct token_node *node);

/* The node under which are all lists that begin with the same *common tokens as tokens [n], the
 * most that any list has in common with them. */
struct token_node *token_tree_match(struct token_tree *t, const int32_t *tokens, int n,
                                    int *common);

/* The nodes under top, which comes first, one after another; NULL after the last. Those under skip
 * are left out (NULL: none are). */
struct token_node *token_tree_next(const struct token_node *node, const struct token_node *top,
                                   const struct token_node *skip);

#endif
