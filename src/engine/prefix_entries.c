#include "engine/prefix_entries.h"

#include "base/memory.h"

/* The order of use */

static void unlink_entry(prefix_index *x, struct prefix_entry *e)
{
    *(e->newer ? &e->newer->older : &x->newest) = e->older;
    *(e->older ? &e->older->newer : &x->oldest) = e->newer;
}

static void link_newest(prefix_index *x, struct prefix_entry *e)
{
    e->newer = NULL;
    e->older = x->newest;
    *(x->newest ? &x->newest->newer : &x->oldest) = e;
    x->newest = e;
}

void prefix_touch(prefix_index *x, struct prefix_entry *e)
{
    unlink_entry(x, e);
    link_newest(x, e);
}

/* Entries */

/* The entry of a list of tokens, made if there is none; one that holds nothing is to be tidied. */
static struct prefix_entry *entry_of(prefix_index *x, const int32_t *tokens, int n, clm_error *err)
{
    struct token_node *node = token_tree_add(&x->tree, tokens, n, err);
    struct prefix_entry *e;

    if (!node || node->value)
        return node ? node->value : NULL;
    e = mem_zeroed(1, sizeof *e);
    if (!e) {
        token_tree_prune(node);
        return fail_null(err, CLM_ERR_NOMEM, "no memory to keep %d tokens", n);
    }
    e->node = node;
    node->value = e;
    return e;
}

void prefix_tidy(struct prefix_entry *e)
{
    if (e->seq || e->file || e->pins)
        return;
    e->node->value = NULL;
    token_tree_prune(e->node);
    mem_free(e);
}

int prefix_set_sequence(prefix_index *x, struct prefix_entry *e, kv_seq *seq, clm_error *err)
{
    if (kept_blocks_add(&x->blocks, seq, err)) {
        kv_seq_close(seq);
        return -1;
    }
    e->seq = seq;
    link_newest(x, e);
    x->n_entries++;
    return 0;
}

void prefix_drop_sequence(prefix_index *x, struct prefix_entry *e)
{
    unlink_entry(x, e);
    x->n_entries--;
    kept_blocks_remove(&x->blocks, e->seq);
    kv_seq_close(e->seq);
    e->seq = NULL;
    prefix_tidy(e);
}

struct prefix_entry *prefix_keep(prefix_index *x, const kv_seq *s, int n, clm_error *err)
{
    kv_seq *seq = kv_seq_fork(s, err);
    struct prefix_entry *e = NULL;

    if (!seq || kv_seq_trim(seq, n, err) || !(e = entry_of(x, kv_seq_tokens(s), n, err))) {
        kv_seq_close(seq);
        return NULL;
    }
    if (prefix_set_sequence(x, e, seq, err)) {
        prefix_tidy(e);
        return NULL;
    }
    return e;
}

bool prefix_covers(const prefix_index *x, int length, int n)
{
    return kv_cache_past_point(x->cache, length, n) == n;
}

/* Files */

static void *take_file(void *ctx, struct folder_file *file, const int32_t *tokens, int n)
{
    prefix_index *x = ctx;
    struct prefix_entry *e = entry_of(x, tokens, n, NULL);

    if (!e || e->file)
        return NULL;
    e->file = file;
    x->n_files++;
    return e;
}

void prefix_lose_file(prefix_index *x, struct prefix_entry *e)
{
    e->file = NULL;
    x->n_files--;
    prefix_tidy(e);
}

static void file_gone(void *ctx, void *owner)
{
    prefix_lose_file(ctx, owner);
}

static void drop_file(prefix_index *x, struct prefix_entry *e)
{
    cache_folder_remove(x->folder, e->file);
    prefix_lose_file(x, e);
}

void prefix_look(prefix_index *x)
{
    const struct folder_watch watch = {x, take_file, file_gone};

    if (x->folder)
        cache_folder_look(x->folder, &watch);
}

/* Does a longer file have it, or the same? */
static bool is_stored(const prefix_index *x, const struct token_node *top)
{
    for (const struct token_node *node = top; node; node = token_tree_next(node, top, NULL)) {
        const struct prefix_entry *e = node->value;

        if (e && e->file && prefix_covers(x, node->depth, top->depth))
            return true;
    }
    return false;
}

static void complain(prefix_index *x, const clm_error *problem)
{
    if (!x->complained)
        log_say(x->limits.log, LOG_WARNING, "a prompt cache is not kept: %s", problem->message);
    x->complained = true;
}

void prefix_store(prefix_index *x, struct prefix_entry *e)
{
    struct token_node *next;
    clm_error problem = {0};

    prefix_look(x);
    if (!x->folder || is_stored(x, e->node))
        return;
    e->file =
        cache_folder_save(x->folder, e->seq, kept_blocks_size(&x->blocks, e->seq), e, &problem);
    if (!e->file) {
        complain(x, &problem);
        return;
    }
    x->n_files++;
    for (struct token_node *up = e->node->parent; up; up = next) {
        struct prefix_entry *shorter = up->value;

        next = up->parent;
        if (shorter && shorter->file && prefix_covers(x, e->node->depth, up->depth))
            drop_file(x, shorter);
    }
}

/* Limits */

static bool over_limits(const prefix_index *x)
{
    return (x->limits.max_bytes && x->blocks.bytes > x->limits.max_bytes) ||
           (x->limits.max_entries && x->n_entries > x->limits.max_entries);
}

void prefix_let_go(prefix_index *x, struct prefix_entry *e)
{
    prefix_store(x, e);
    prefix_drop_sequence(x, e);
}

void prefix_keep_limits(prefix_index *x)
{
    struct prefix_entry *next;

    for (struct prefix_entry *e = x->oldest; e && over_limits(x); e = next) {
        next = e->newer;
        if (!e->pins)
            prefix_let_go(x, e);
    }
}

bool prefix_let_idle_go(prefix_index *x, size_t bytes)
{
    size_t freed = 0;
    struct prefix_entry *next;
    bool any = false;

    for (struct prefix_entry *e = x->oldest; e && freed < bytes; e = next) {
        size_t used = kv_cache_bytes_used(x->cache);

        next = e->newer;
        if (e->pins || !kept_blocks_idle(&x->blocks, e->seq))
            continue;
        prefix_let_go(x, e);
        freed += used - kv_cache_bytes_used(x->cache);
        any = true;
    }
    return any;
}
