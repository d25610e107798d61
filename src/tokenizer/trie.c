/* tokenizer/trie.c: building and searching a trie. */
#include "tokenizer/trie.h"

#include "base/memory.h"

static int add_node(struct trie *t, clm_error *err)
{
    if (t->n_nodes == t->capacity) {
        int32_t *ends = NULL;

        if (t->n_nodes < UINT32_MAX / 4)
            ends = mem_grow(t->ends, &t->capacity, t->n_nodes + 1, sizeof *ends);
        if (!ends)
            return fail(err, CLM_ERR_NOMEM, "a search tree of %zu nodes", t->n_nodes);
        t->ends = ends;
    }
    t->ends[t->n_nodes++] = -1;
    return 0;
}

int trie_add(struct trie *t, const char *s, size_t n, int32_t value, clm_error *err)
{
    uint32_t node = 0;

    if (!n)
        return 0;
    if (!t->n_nodes && add_node(t, err))
        return -1;
    for (size_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)s[i];

        if (trie_step(t, &node, byte))
            continue;
        if (add_node(t, err) ||
            pair_map_set(&t->edges, node, byte, (uint32_t)(t->n_nodes - 1), 0, err))
            return -1;
        node = (uint32_t)(t->n_nodes - 1);
    }
    if (t->ends[node] < 0)
        t->ends[node] = value;
    if (!t->first[(unsigned char)s[0]]) {
        t->first[(unsigned char)s[0]] = true;
        t->a_first = s[0];
        t->n_first++;
    }
    return 0;
}

void trie_close(struct trie *t)
{
    pair_map_release(&t->edges);
    mem_free(t->ends);
    *t = (struct trie){0};
}

size_t trie_longest(const struct trie *t, const char *s, size_t n, int32_t *value)
{
    uint32_t node = 0;
    size_t length = 0;

    for (size_t i = 0; i < n && trie_step(t, &node, (unsigned char)s[i]); i++) {
        if (t->ends[node] >= 0) {
            *value = t->ends[node];
            length = i + 1;
        }
    }
    return length;
}
