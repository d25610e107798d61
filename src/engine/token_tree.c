#include "engine/token_tree.h"

#include <string.h>

#include "base/memory.h"

static void free_node(struct token_node *node)
{
    mem_free(node->children);
    mem_free(node->tokens);
    mem_free(node);
}

void token_tree_release(struct token_tree *t)
{
    struct token_node *node = &t->root;

    /* Down to a leaf, which goes, and up again: as deep as there are lists within each other. */
    for (;;) {
        struct token_node *parent = node->parent;

        if (node->n_children) {
            node = node->children[--node->n_children];
        } else if (parent) {
            free_node(node);
            node = parent;
        } else {
            break;
        }
    }
    mem_free(t->root.children);
    *t = (struct token_tree){0};
}

/* Where a child that begins with the token is, or would be. */
static int find_child(const struct token_node *node, int32_t token)
{
    int low = 0, high = node->n_children;

    while (low < high) {
        int middle = low + (high - low) / 2;

        if (node->children[middle]->tokens[0] < token)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct token_node *child_for(const struct token_node *node, int32_t token)
{
    int i = find_child(node, token);

    return i < node->n_children && node->children[i]->tokens[0] == token ? node->children[i] : NULL;
}

/* How many of the node's tokens those in [n] begin with. */
static int match_edge(const struct token_node *node, const int32_t *tokens, int n)
{
    int limit = n < node->n_tokens ? n : node->n_tokens, i = 0;

    while (i < limit && node->tokens[i] == tokens[i])
        i++;
    return i;
}

/* A node of its own, which is nowhere yet, with room for one child. */
static struct token_node *new_node(const int32_t *tokens, int n)
{
    struct token_node *node = mem_zeroed(1, sizeof *node);

    if (!node)
        return NULL;
    node->tokens = mem_alloc((size_t)n * sizeof *tokens);
    node->children = mem_alloc(sizeof *node->children);
    if (!node->tokens || !node->children) {
        free_node(node);
        return NULL;
    }
    memcpy(node->tokens, tokens, (size_t)n * sizeof *tokens);
    node->n_tokens = n;
    node->capacity = 1;
    return node;
}

static bool make_room(struct token_node *node)
{
    int capacity = 2 * node->capacity + 2;
    struct token_node **grown;

    if (node->n_children < node->capacity)
        return true;
    grown = mem_resize(node->children, (size_t)capacity * sizeof(struct token_node *));
    if (!grown)
        return false;
    node->children = grown;
    node->capacity = capacity;
    return true;
}

/* There is room. */
static void attach(struct token_node *parent, struct token_node *child)
{
    int i = find_child(parent, child->tokens[0]);

    memmove(parent->children + i + 1, parent->children + i,
            (size_t)(parent->n_children - i) * sizeof(struct token_node *));
    parent->children[i] = child;
    parent->n_children++;
    child->parent = parent;
    child->depth = parent->depth + child->n_tokens;
}

static void detach(struct token_node *child)
{
    struct token_node *parent = child->parent;
    int i = find_child(parent, child->tokens[0]);

    parent->n_children--;
    memmove(parent->children + i, parent->children + i + 1,
            (size_t)(parent->n_children - i) * sizeof(struct token_node *));
}

/* A node between this one and its parent takes the first n of its tokens; NULL: no memory. */
static struct token_node *split(struct token_node *node, int n)
{
    struct token_node *upper = new_node(node->tokens, n), *parent = node->parent;

    if (!upper)
        return NULL;
    detach(node);
    node->n_tokens -= n;
    memmove(node->tokens, node->tokens + n, (size_t)node->n_tokens * sizeof *node->tokens);
    attach(parent, upper);
    attach(upper, node);
    return upper;
}

struct token_node *token_tree_match(struct token_tree *t, const int32_t *tokens, int n, int *common)
{
    struct token_node *node = &t->root, *child;

    *common = 0;
    while (*common < n && (child = child_for(node, tokens[*common]))) {
        *common += match_edge(child, tokens + *common, n - *common);
        node = child;
        if (*common < node->depth)
            break;
    }
    return node;
}

struct token_node *token_tree_add(struct token_tree *t, const int32_t *tokens, int n,
                                  clm_error *err)
{
    int common;
    struct token_node *node = token_tree_match(t, tokens, n, &common), *leaf = NULL;

    if (common == n && common == node->depth)
        return node;
    if (common < n) {
        leaf = new_node(tokens + common, n - common);
        if (!leaf)
            goto failed;
    }
    if (common < node->depth) {
        node = split(node, node->n_tokens - (node->depth - common));
        if (!node)
            goto failed;
    }
    if (!leaf)
        return node;
    if (!make_room(node)) {
        token_tree_prune(node);
        goto failed;
    }
    attach(node, leaf);
    return leaf;

failed:
    if (leaf)
        free_node(leaf);
    return fail_null(err, CLM_ERR_NOMEM, "no memory for a list of %d tokens", n);
}

/* A node between its parent and its only child goes. Without memory for the tokens of both it
 * stays, which is no harm. */
static void join(struct token_node *node)
{
    struct token_node *child = node->children[0], *parent = node->parent;
    size_t above = (size_t)node->n_tokens, below = (size_t)child->n_tokens;
    int32_t *tokens = mem_alloc((above + below) * sizeof *tokens);

    if (!tokens)
        return;
    memcpy(tokens, node->tokens, above * sizeof *tokens);
    memcpy(tokens + above, child->tokens, below * sizeof *tokens);
    detach(node);
    mem_free(child->tokens);
    child->tokens = tokens;
    child->n_tokens += node->n_tokens;
    attach(parent, child);
    free_node(node);
}

void token_tree_prune(struct token_node *node)
{
    while (node->parent && !node->value && node->n_children == 0) {
        struct token_node *parent = node->parent;

        detach(node);
        free_node(node);
        node = parent;
    }
    if (node->parent && !node->value && node->n_children == 1)
        join(node);
}

struct token_node *token_tree_next(const struct token_node *node, const struct token_node *top,
                                   const struct token_node *skip)
{
    bool down = node != skip;

    for (;;) {
        int i = 0;

        if (!down) {
            if (node == top)
                return NULL;
            i = find_child(node->parent, node->tokens[0]) + 1;
            node = node->parent;
        }
        if (i < node->n_children && node->children[i] != skip)
            return node->children[i];
        down = false;
        if (i < node->n_children)
            node = node->children[i];
    }
}
