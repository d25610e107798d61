#include "parse/automaton.h"

#include <stdbool.h>
#include <string.h>

#include "base/memory.h"

/* A new node, or 0 without memory: no child is the root. */
static uint32_t add_node(struct automaton *a, int32_t symbol, uint32_t depth)
{
    if (a->n_nodes == a->capacity) {
        void *nodes = a->n_nodes < UINT32_MAX
                          ? mem_grow(a->nodes, &a->capacity, a->n_nodes + 1, sizeof *a->nodes)
                          : NULL;

        if (!nodes)
            return 0;
        a->nodes = nodes;
    }
    a->nodes[a->n_nodes] =
        (struct automaton_node){.symbol = symbol, .depth = depth, .match = AUTOMATON_NO_MATCH};
    return (uint32_t)a->n_nodes++;
}

static bool has_root(struct automaton *a)
{
    if (!a->n_nodes)
        add_node(a, -1, 0);
    return a->n_nodes > 0;
}

static uint32_t child_of(const struct automaton *a, uint32_t node, int32_t symbol)
{
    uint32_t child;

    if (node == AUTOMATON_ROOT && symbol >= 0 && symbol < 256 && a->byte_children[symbol])
        return a->byte_children[symbol];
    for (child = a->nodes[node].first_child; child; child = a->nodes[child].next_sibling)
        if (a->nodes[child].symbol == symbol)
            break;
    return child;
}

/* The child, made where it is missing; 0 without memory. */
static uint32_t grow(struct automaton *a, uint32_t node, int32_t symbol)
{
    uint32_t child = child_of(a, node, symbol);

    if (child)
        return child;
    child = add_node(a, symbol, a->nodes[node].depth + 1);
    if (!child)
        return 0;
    a->nodes[child].next_sibling = a->nodes[node].first_child;
    a->nodes[node].first_child = child;
    if (node == AUTOMATON_ROOT && symbol >= 0 && symbol < 256)
        a->byte_children[symbol] = child;
    return child;
}

int automaton_add(struct automaton *a, const int32_t *symbols, size_t n, int32_t match)
{
    uint32_t node = AUTOMATON_ROOT;

    if (n == 0)
        return 0;
    if (!has_root(a))
        return -1;
    for (size_t i = 0; i < n; i++) {
        node = grow(a, node, symbols[i]);
        if (!node)
            return -1;
    }
    a->nodes[node].match = match;
    return 0;
}

int automaton_add_text(struct automaton *a, const char *text, size_t n, int32_t match)
{
    uint32_t node = AUTOMATON_ROOT;

    if (n == 0)
        return 0;
    if (!has_root(a))
        return -1;
    for (size_t i = 0; i < n; i++) {
        node = grow(a, node, (unsigned char)text[i]);
        if (!node)
            return -1;
    }
    a->nodes[node].match = match;
    return 0;
}

/* The failure link of a child, from that of its parent, which is shorter and so already known. */
static void link_child(struct automaton *a, uint32_t parent, uint32_t child)
{
    uint32_t fail = a->nodes[parent].fail, found = 0;
    int32_t symbol = a->nodes[child].symbol;

    if (parent == AUTOMATON_ROOT)
        return;
    while (!(found = child_of(a, fail, symbol)) && fail != AUTOMATON_ROOT)
        fail = a->nodes[fail].fail;
    a->nodes[child].fail = found;
    if (a->nodes[child].match == AUTOMATON_NO_MATCH)
        a->nodes[child].match = a->nodes[found].match;
}

int automaton_build(struct automaton *a)
{
    uint32_t *queue;
    size_t end = 0;

    if (!a->n_nodes)
        return 0;
    queue = mem_zeroed(a->n_nodes, sizeof *queue);
    if (!queue)
        return -1;
    queue[end++] = AUTOMATON_ROOT;
    for (size_t at = 0; at < end; at++)
        for (uint32_t child = a->nodes[queue[at]].first_child; child;
             child = a->nodes[child].next_sibling) {
            link_child(a, queue[at], child);
            queue[end++] = child;
        }
    mem_free(queue);
    return 0;
}

void automaton_release(struct automaton *a)
{
    mem_free(a->nodes);
    *a = (struct automaton){0};
}

uint32_t automaton_next(const struct automaton *a, uint32_t node, int32_t symbol)
{
    uint32_t child;

    if (!a->n_nodes)
        return AUTOMATON_ROOT;
    while (!(child = child_of(a, node, symbol)) && node != AUTOMATON_ROOT)
        node = a->nodes[node].fail;
    return child;
}
