#include "engine/prefix_index.h"

#include "base/memory.h"
#include "engine/kept_blocks.h"
#include "engine/token_tree.h"

/* A stop in the middle of a prompt costs a step; fewer tokens than this cost no more. */
#define MIN_CUT 16

/* A sequence that is kept. */
struct entry {
    struct token_node *node; /* of its tokens; its value is this entry */
    struct entry *newer, *older;
    kv_seq *seq;
    int pins;
};

struct prefix_index {
    kv_cache *cache;
    struct prefix_limits limits;
    struct token_tree tree;
    struct kept_blocks blocks;
    struct entry *newest, *oldest; /* in the order in which they were used */
    int n_entries;
};

prefix_index *prefix_index_open(engine *e, const struct prefix_limits *limits, clm_error *err)
{
    prefix_index *x = mem_zeroed(1, sizeof *x);

    if (!x)
        return fail_null(err, CLM_ERR_NOMEM, "no memory for an index of prefixes");
    x->cache = engine_cache(e);
    if (limits)
        x->limits = *limits;
    if (kept_blocks_init(&x->blocks, x->cache, err)) {
        prefix_index_close(x);
        return NULL;
    }
    return x;
}

/* The order of use */

static void unlink_entry(prefix_index *x, struct entry *e)
{
    *(e->newer ? &e->newer->older : &x->newest) = e->older;
    *(e->older ? &e->older->newer : &x->oldest) = e->newer;
}

static void link_newest(prefix_index *x, struct entry *e)
{
    e->newer = NULL;
    e->older = x->newest;
    *(x->newest ? &x->newest->newer : &x->oldest) = e;
    x->newest = e;
}

static void touch(prefix_index *x, struct entry *e)
{
    unlink_entry(x, e);
    link_newest(x, e);
}

/* Entries */

static void drop(prefix_index *x, struct entry *e)
{
    unlink_entry(x, e);
    x->n_entries--;
    kept_blocks_remove(&x->blocks, e->seq);
    kv_seq_close(e->seq);
    e->node->value = NULL;
    token_tree_prune(e->node);
    mem_free(e);
}

void prefix_index_close(prefix_index *x)
{
    if (!x)
        return;
    while (x->newest)
        drop(x, x->newest);
    token_tree_release(&x->tree);
    kept_blocks_release(&x->blocks);
    mem_free(x);
}

/* A fork of the first n tokens of a sequence, which can be trimmed to them, as an entry that has
 * no place yet. */
static struct entry *new_entry(prefix_index *x, const kv_seq *s, int n, clm_error *err)
{
    struct entry *e = mem_zeroed(1, sizeof *e);

    if (!e)
        return fail_null(err, CLM_ERR_NOMEM, "no memory to keep %d tokens", n);
    e->seq = kv_seq_fork(s, err);
    if (e->seq && !kv_seq_trim(e->seq, n, err) && !kept_blocks_add(&x->blocks, e->seq, err))
        return e;
    kv_seq_close(e->seq);
    mem_free(e);
    return NULL;
}

/* Keep the first n tokens of a sequence, of which there is no entry. */
static struct entry *add_entry(prefix_index *x, const kv_seq *s, int n, clm_error *err)
{
    struct entry *e = new_entry(x, s, n, err);

    if (!e)
        return NULL;
    e->node = token_tree_add(&x->tree, kv_seq_tokens(e->seq), n, err);
    if (!e->node) {
        kept_blocks_remove(&x->blocks, e->seq);
        kv_seq_close(e->seq);
        mem_free(e);
        return NULL;
    }
    e->node->value = e;
    link_newest(x, e);
    x->n_entries++;
    return e;
}

/* Can an entry of so many tokens, of which the first n are those of another, take its place for
 * good? Not where the other is only one of a few snapshots. */
static bool covers(const prefix_index *x, int length, int n)
{
    return kv_cache_past_point(x->cache, length, n) == n;
}

static bool over_limits(const prefix_index *x)
{
    return (x->limits.max_bytes && x->blocks.bytes > x->limits.max_bytes) ||
           (x->limits.max_entries && x->n_entries > x->limits.max_entries);
}

static void keep_limits(prefix_index *x)
{
    struct entry *next;

    for (struct entry *e = x->oldest; e && over_limits(x); e = next) {
        next = e->newer;
        if (!e->pins)
            drop(x, e);
    }
}

/* Finding */

struct found {
    struct entry *entry; /* NULL: none */
    int point;           /* tokens of it that can be gone on from */
};

/* The best entry under top for a prompt that has its first tokens in common with all of them. */
static void search_under(const struct token_node *top, const struct token_node *skip, int common,
                         struct found *best)
{
    for (const struct token_node *node = top; node && best->point < common;
         node = token_tree_next(node, top, skip)) {
        struct entry *e = node->value;
        int point = e ? kv_seq_trim_point(e->seq, common) : 0;

        if (point > best->point)
            *best = (struct found){e, point};
    }
}

/* Of all entries the one that can be gone on from farthest; *common: what the tokens have in
 * common with any. */
static struct found search(prefix_index *x, const int32_t *tokens, int n, int *common)
{
    const struct token_node *top = token_tree_match(&x->tree, tokens, n, common), *skip = NULL;
    struct found best = {0};

    /* Farther up there is less in common. */
    for (int shared = *common; shared > best.point; shared = top->depth) {
        search_under(top, skip, shared, &best);
        skip = top;
        top = top->parent;
    }
    return best;
}

kv_seq *prefix_index_lookup(prefix_index *x, const int32_t *prompt, int n, int *cut, clm_error *err)
{
    int common;
    struct found best = search(x, prompt, n - 1, &common);
    kv_seq *seq;

    if (cut)
        *cut = common - best.point >= MIN_CUT ? common : 0;
    if (!best.entry)
        return kv_seq_open(x->cache, err);
    seq = kv_seq_fork(best.entry->seq, err);
    if (seq && kv_seq_trim(seq, best.point, err)) {
        kv_seq_close(seq);
        return NULL;
    }
    if (seq)
        touch(x, best.entry);
    return seq;
}

/* The entry of exactly these tokens; NULL: there is none. */
static struct entry *find_exact(prefix_index *x, const int32_t *tokens, int n)
{
    int common;
    struct token_node *node = token_tree_match(&x->tree, tokens, n, &common);

    return common == n && node->depth == n ? node->value : NULL;
}

/* An entry that begins with the tokens and can give them up to there at any time. */
static struct entry *find_cover(prefix_index *x, const int32_t *tokens, int n)
{
    int common;
    const struct token_node *top = token_tree_match(&x->tree, tokens, n, &common);

    if (common < n)
        return NULL;
    for (const struct token_node *node = top; node; node = token_tree_next(node, top, NULL))
        if (node->value && covers(x, node->depth, n))
            return node->value;
    return NULL;
}

/* Keeping */

static bool tokens_known(const kv_seq *s)
{
    const int32_t *tokens = kv_seq_tokens(s);
    int n = kv_seq_length(s);

    for (int i = 0; i < n; i++)
        if (tokens[i] < 0)
            return false;
    return true;
}

/* Entries that the new one takes the place of. */
static void drop_covered(prefix_index *x, const struct token_node *node)
{
    struct token_node *next;

    for (struct token_node *up = node->parent; up; up = next) {
        struct entry *e = up->value;

        next = up->parent;
        if (e && !e->pins && covers(x, node->depth, up->depth))
            drop(x, e);
    }
}

int prefix_index_insert(prefix_index *x, const kv_seq *s, clm_error *err)
{
    int n = kv_seq_length(s);
    struct entry *e;

    if (n == 0 || !tokens_known(s) ||
        (x->limits.max_bytes && kept_blocks_size(&x->blocks, s) > x->limits.max_bytes))
        return 0;
    e = find_cover(x, kv_seq_tokens(s), n);
    if (e) {
        touch(x, e);
        return 0;
    }
    e = add_entry(x, s, n, err);
    if (!e)
        return -1;
    drop_covered(x, e->node);
    keep_limits(x);
    return 0;
}

size_t prefix_index_evict(prefix_index *x, size_t bytes)
{
    size_t freed = 0;
    struct entry *next;

    for (struct entry *e = x->oldest; e && freed < bytes; e = next) {
        size_t used = kv_cache_bytes_used(x->cache);

        next = e->newer;
        if (e->pins || !kept_blocks_idle(&x->blocks, e->seq))
            continue;
        drop(x, e);
        freed += used - kv_cache_bytes_used(x->cache);
    }
    return freed;
}

int prefix_index_pin(prefix_index *x, const int32_t *tokens, int n, clm_error *err)
{
    struct entry *e = n > 0 ? find_exact(x, tokens, n) : NULL;
    struct found from;
    int common;

    if (!e && n > 0) {
        from = search(x, tokens, n, &common);
        if (from.point == n) {
            e = add_entry(x, from.entry->seq, n, err);
            if (!e)
                return -1;
        }
    }
    if (!e)
        return fail(err, CLM_ERR_ARG,
                    "the index of prefixes does not have these %d tokens: insert them first", n);
    e->pins++;
    return 0;
}

void prefix_index_unpin(prefix_index *x, const int32_t *tokens, int n)
{
    struct entry *e = n > 0 ? find_exact(x, tokens, n) : NULL;

    if (e && e->pins > 0)
        e->pins--;
    keep_limits(x);
}

struct prefix_stats prefix_index_stats(const prefix_index *x)
{
    return (struct prefix_stats){.entries = x->n_entries, .bytes = x->blocks.bytes};
}
