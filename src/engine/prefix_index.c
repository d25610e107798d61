#include "engine/prefix_index.h"

#include <string.h>

#include "base/memory.h"
#include "engine/prefix_entries.h"

/* A stop in the middle of a prompt costs a step; fewer tokens than this cost no more. */
#define MIN_CUT 16

/* To open a file takes as long as some tokens do. */
#define MIN_STORED 32

prefix_index *prefix_index_open(engine *e, const struct prefix_limits *limits, clm_error *err)
{
    prefix_index *x = mem_zeroed(1, sizeof *x);

    if (!x)
        return fail_null(err, CLM_ERR_NOMEM, "no memory for an index of prefixes");
    x->cache = engine_cache(e);
    if (limits)
        x->limits = *limits;
    if (kept_blocks_init(&x->blocks, x->cache, err))
        goto failed;
    if (x->limits.folder) {
        x->folder = cache_folder_open(e, x->limits.folder, x->limits.folder_bytes, err);
        if (!x->folder)
            goto failed;
    }
    return x;

failed:
    prefix_index_close(x);
    return NULL;
}

void prefix_index_close(prefix_index *x)
{
    struct token_node *node;

    if (!x)
        return;
    while (x->newest)
        prefix_drop_sequence(x, x->newest);
    for (node = &x->tree.root; node; node = token_tree_next(node, &x->tree.root, NULL))
        mem_free(node->value);
    token_tree_release(&x->tree);
    kept_blocks_release(&x->blocks);
    cache_folder_close(x->folder);
    mem_free(x);
}

void prefix_index_write(prefix_index *x)
{
    for (struct prefix_entry *e = x->oldest; e; e = e->newer)
        prefix_store(x, e);
}

/* Finding */

struct place {
    struct prefix_entry *entry; /* NULL: none */
    int point;                  /* tokens of it that can be gone on from */
};

struct found {
    struct place kept, stored; /* the best sequence, and the best file */
    int common;                /* tokens that any entry begins with */
};

static void take_better(struct place *best, struct prefix_entry *e, int point)
{
    if (point > best->point)
        *best = (struct place){e, point};
}

/* The best under top for a prompt that has its first tokens in common with all there. */
static void search_under(const prefix_index *x, const struct token_node *top,
                         const struct token_node *skip, int common, struct found *f)
{
    for (const struct token_node *node = top; node && f->kept.point < common;
         node = token_tree_next(node, top, skip)) {
        struct prefix_entry *e = node->value;

        if (e && e->seq)
            take_better(&f->kept, e, kv_seq_trim_point(e->seq, common));
        if (e && e->file)
            take_better(&f->stored, e, kv_cache_past_point(x->cache, node->depth, common));
    }
}

static struct found search(prefix_index *x, const int32_t *tokens, int n)
{
    struct found f = {0};
    const struct token_node *top = token_tree_match(&x->tree, tokens, n, &f.common), *skip = NULL;

    /* Farther up there is less in common. */
    for (int common = f.common; common > f.kept.point; common = top->depth) {
        search_under(x, top, skip, common, &f);
        skip = top;
        top = top->parent;
    }
    return f;
}

/* Do the tokens of a sequence spell the list of a node? */
static bool is_list_of(const struct token_node *node, const kv_seq *s)
{
    const int32_t *tokens = kv_seq_tokens(s);

    if (kv_seq_length(s) != node->depth)
        return false;
    for (; node->parent; node = node->parent)
        if (memcmp(tokens + node->parent->depth, node->tokens,
                   (size_t)node->n_tokens * sizeof *tokens))
            return false;
    return true;
}

/* What an entry's file holds. Idle sequences make room for it. */
static kv_seq *load(prefix_index *x, struct prefix_entry *e, clm_error *err)
{
    kv_seq *s = cache_folder_load(x->folder, e->file, err);

    while (!s && err->code == CLM_ERR_FULL && prefix_let_idle_go(x, 1) && e->file) {
        *err = (clm_error){0};
        s = cache_folder_load(x->folder, e->file, err);
    }
    if (!s || is_list_of(e->node, s))
        return s;
    kv_seq_close(s);
    return fail_null(err, CLM_ERR_FORMAT, "%s: other tokens", e->file->name);
}

/* Bring the file of an entry back to memory. One that is damaged, or not what it was, is forgotten.
 * False: nothing has changed, as there is no room. */
static bool revive(prefix_index *x, struct prefix_entry *e)
{
    clm_error problem = {0};
    kv_seq *s;

    e->pins++; /* whatever happens to its file meanwhile */
    s = load(x, e, &problem);
    e->pins--;
    if (s && x->limits.max_bytes && kept_blocks_size(&x->blocks, s) > x->limits.max_bytes) {
        kv_seq_close(s);
        return false;
    }
    if (s)
        return prefix_set_sequence(x, e, s, &problem) == 0;
    if (e->file && (problem.code == CLM_ERR_FULL || problem.code == CLM_ERR_NOMEM))
        return false;
    if (e->file) {
        cache_folder_shun(e->file);
        prefix_lose_file(x, e);
    } else {
        prefix_tidy(e);
    }
    return true;
}

/* A sequence that lies in a file that was changed is forgotten; false: it is as it was. */
static bool drop_changed(prefix_index *x, struct prefix_entry *e)
{
    clm_error changed = {0};

    if (!e || !kv_seq_check(e->seq, &changed))
        return false;
    prefix_drop_sequence(x, e);
    return true;
}

/* The best sequence, after that of a file was brought back where this goes on farther by what is
 * worth reading it. */
static struct found search_all(prefix_index *x, const int32_t *tokens, int n)
{
    struct found f = search(x, tokens, n);

    while (drop_changed(x, f.kept.entry) ||
           (f.stored.point >= f.kept.point + MIN_STORED && revive(x, f.stored.entry)))
        f = search(x, tokens, n);
    return f;
}

kv_seq *prefix_index_lookup(prefix_index *x, const int32_t *prompt, int n, int *cut, clm_error *err)
{
    struct found f;
    kv_seq *seq;

    prefix_look(x);
    f = search_all(x, prompt, n - 1);
    if (cut)
        *cut = f.common - f.kept.point >= MIN_CUT ? f.common : 0;
    if (!f.kept.entry)
        return kv_seq_open(x->cache, err);
    seq = kv_seq_fork(f.kept.entry->seq, err);
    if (seq && kv_seq_trim(seq, f.kept.point, err)) {
        kv_seq_close(seq);
        return NULL;
    }
    if (seq)
        prefix_touch(x, f.kept.entry);
    prefix_keep_limits(x);
    return seq;
}

/* The entry of exactly these tokens that is in memory; NULL: there is none. */
static struct prefix_entry *find_exact(prefix_index *x, const int32_t *tokens, int n)
{
    int common;
    struct token_node *node = token_tree_match(&x->tree, tokens, n, &common);
    struct prefix_entry *e = common == n && node->depth == n ? node->value : NULL;

    return e && e->seq ? e : NULL;
}

/* One in memory that begins with the tokens and can give them up to there at any time. */
static struct prefix_entry *find_cover(prefix_index *x, const int32_t *tokens, int n)
{
    int common;
    const struct token_node *top = token_tree_match(&x->tree, tokens, n, &common);

    if (common < n)
        return NULL;
    for (const struct token_node *node = top; node; node = token_tree_next(node, top, NULL)) {
        struct prefix_entry *e = node->value;

        if (e && e->seq && prefix_covers(x, node->depth, n))
            return e;
    }
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

/* Sequences that the new one takes the place of. */
static void drop_covered(prefix_index *x, const struct token_node *node)
{
    struct token_node *next;

    for (struct token_node *up = node->parent; up; up = next) {
        struct prefix_entry *e = up->value;

        next = up->parent;
        if (e && e->seq && !e->pins && prefix_covers(x, node->depth, up->depth))
            prefix_drop_sequence(x, e);
    }
}

int prefix_index_insert(prefix_index *x, const kv_seq *s, clm_error *err)
{
    int n = kv_seq_length(s);
    struct prefix_entry *e;

    if (n == 0 || !tokens_known(s) ||
        (x->limits.max_bytes && kept_blocks_size(&x->blocks, s) > x->limits.max_bytes))
        return 0;
    e = find_cover(x, kv_seq_tokens(s), n);
    if (e) {
        prefix_touch(x, e);
        return 0;
    }
    e = prefix_keep(x, s, n, err);
    if (!e)
        return -1;
    drop_covered(x, e->node);
    prefix_keep_limits(x);
    return 0;
}

bool prefix_index_evict(prefix_index *x, size_t bytes)
{
    struct prefix_entry *e;

    if (prefix_let_idle_go(x, bytes))
        return true;
    for (e = x->oldest; e && e->pins; e = e->newer)
        continue;
    if (e)
        prefix_let_go(x, e);
    return e;
}

int prefix_index_pin(prefix_index *x, const int32_t *tokens, int n, clm_error *err)
{
    struct prefix_entry *e = n > 0 ? find_exact(x, tokens, n) : NULL;

    if (!e && n > 0) {
        struct found f = search_all(x, tokens, n);

        e = find_exact(x, tokens, n);
        if (!e && f.kept.point == n && !(e = prefix_keep(x, f.kept.entry->seq, n, err)))
            return -1;
    }
    if (!e)
        return fail(err, CLM_ERR_ARG,
                    "the index of prefixes does not have these %d tokens: insert them first", n);
    e->pins++;
    return 0;
}

void prefix_index_unpin(prefix_index *x, const int32_t *tokens, int n)
{
    struct prefix_entry *e = n > 0 ? find_exact(x, tokens, n) : NULL;

    if (e && e->pins > 0)
        e->pins--;
    prefix_keep_limits(x);
}

struct prefix_stats prefix_index_stats(const prefix_index *x)
{
    return (struct prefix_stats){
        .entries = x->n_entries, .bytes = x->blocks.bytes, .files = x->n_files};
}
