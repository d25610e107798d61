/* cache/kv_seq.c: the sequences of cache/kv_cache.h. */
#include <assert.h>
#include <limits.h>
#include <string.h>

#include "cache/kv_map.h"
#include "cache/kv_pools.h"
#include "cache/kv_states.h"

/* What a sequence holds of a group. The table moves up in its memory as a window lets go of blocks,
 * and back to the start when the memory is used up. Its first n_kept entries, of the group, are the
 * first blocks of the sequence; between these and the others n_gone have been let go of. Where the
 * sequence has a map, these are the ones of the n_mapped tokens in it: whole blocks, unless a trim
 * has left a part of one, of which the next reserve makes a block. */
struct holding {
    int32_t *memory;
    int capacity;
    int head, n_blocks; /* the table is memory[head .. head + n_blocks) */
    int n_gone;
    int n_mapped;
};

struct kv_sequence_cache {
    kv_cache *cache;
    kv_map *map; /* NULL: there is none */
    int length;
    int begun;       /* it began with so many tokens, of which windows have but the last */
    int32_t *tokens; /* [token_capacity] */
    int token_capacity;
    bool keeps_steps;
    struct kv_states states;
    struct holding groups[]; /* [n_groups] */
};

/* Tables */

static int32_t *table(const struct holding *h)
{
    return h->memory + h->head;
}

/* The pool of block number b of a sequence. */
static struct pool *pool_of(const kv_cache *c, int g, int b)
{
    const struct group *group = &c->groups[g];

    return group->earlier && b < c->split / KV_BLOCK_TOKENS ? group->earlier : group->pool;
}

/* The number in the sequence of the block at place i of a table. */
static int number_of(const kv_seq *s, int g, int i)
{
    return i < s->cache->groups[g].n_kept ? i : i + s->groups[g].n_gone;
}

static int place_of(const kv_seq *s, int g, int b)
{
    return kv_block_index(b, s->cache->groups[g].n_kept, s->groups[g].n_gone);
}

static struct block_pool *pool_at(const kv_seq *s, int g, int i)
{
    return &pool_of(s->cache, g, number_of(s, g, i))->blocks;
}

/* Room for n_more entries at the end of a table. */
static int grow_table(struct holding *h, int n_more, clm_error *err)
{
    int capacity;
    int32_t *grown;

    if (h->capacity - h->head - h->n_blocks >= n_more)
        return 0;
    /* Moved only when as many entries were let go of as remain: a constant cost per entry. */
    if (h->head >= h->n_blocks && h->capacity - h->n_blocks >= n_more) {
        memmove(h->memory, table(h), (size_t)h->n_blocks * sizeof *h->memory);
        h->head = 0;
        return 0;
    }
    capacity = h->head + h->n_blocks + n_more;
    capacity += capacity / 2 + 8;
    grown = mem_resize(h->memory, (size_t)capacity * sizeof *grown);
    if (!grown)
        return fail(err, CLM_ERR_NOMEM, "no memory for a table of %d cache blocks", capacity);
    h->memory = grown;
    h->capacity = capacity;
    return 0;
}

/* Of the blocks behind those that are kept the first n. */
static void drop_first(kv_seq *s, int g, int n)
{
    struct holding *h = &s->groups[g];
    int n_kept = s->cache->groups[g].n_kept;

    for (int i = n_kept; i < n_kept + n; i++)
        block_pool_unref(pool_at(s, g, i), table(h)[i]);
    memmove(table(h) + n, table(h), (size_t)n_kept * sizeof *h->memory);
    h->head += n;
    h->n_blocks -= n;
    h->n_gone += n;
}

static void drop_last(kv_seq *s, int g, int n)
{
    struct holding *h = &s->groups[g];

    for (; n > 0; n--) {
        h->n_blocks--;
        block_pool_unref(pool_at(s, g, h->n_blocks), table(h)[h->n_blocks]);
    }
}

/* The block that the next token of s goes to, when it is there: it holds earlier tokens too. NULL:
 * a new one will be taken, or it was reserved. */
static int32_t *partial_block(const kv_seq *s, int g)
{
    const struct holding *h = &s->groups[g];
    int i = place_of(s, g, s->length / KV_BLOCK_TOKENS);

    return s->length % KV_BLOCK_TOKENS && i < h->n_blocks ? table(h) + i : NULL;
}

static bool must_copy(const kv_seq *s, int g)
{
    const int32_t *block = partial_block(s, g);

    return block &&
           block_pool_shared(&pool_of(s->cache, g, s->length / KV_BLOCK_TOKENS)->blocks, *block);
}

static int missing_blocks(const kv_seq *s, int g, int n)
{
    const struct holding *h = &s->groups[g];
    int missing = kv_blocks_for((int64_t)s->length + n) - h->n_gone - h->n_blocks;

    return missing > 0 ? missing : 0;
}

/* Adds what n more tokens need of a group to the needs of its pools; false: nothing. */
static bool add_needs(const kv_seq *s, int g, int n)
{
    const kv_cache *c = s->cache;
    int missing = missing_blocks(s, g, n), first = s->groups[g].n_blocks;
    bool copies = must_copy(s, g);

    for (int i = first; i < first + missing; i++)
        pool_of(c, g, number_of(s, g, i))->need++;
    if (copies)
        pool_of(c, g, s->length / KV_BLOCK_TOKENS)->need++;
    return missing || copies;
}

/* Sequences */

kv_seq *kv_seq_open(kv_cache *c, clm_error *err)
{
    kv_seq *s = mem_zeroed(1, sizeof *s + (size_t)c->n_groups * sizeof s->groups[0]);

    if (!s)
        return fail_null(err, CLM_ERR_NOMEM, "no memory for a sequence of the cache");
    s->cache = c;
    kv_states_init(&s->states);
    return s;
}

static bool has_states(const kv_seq *s)
{
    return s->cache->states;
}

/* There is a block for the next states beside that for those of now. */
static bool has_next(const kv_seq *s)
{
    return s->states.next >= 0 && s->states.next != s->states.now;
}

/* The pool of states; not used where there are none. */
static struct block_pool *state_pool(const kv_seq *s)
{
    return has_states(s) ? &s->cache->states->blocks : NULL;
}

void kv_seq_close(kv_seq *s)
{
    if (!s)
        return;
    for (int g = 0; g < s->cache->n_groups; g++) {
        drop_last(s, g, s->groups[g].n_blocks);
        mem_free(s->groups[g].memory);
    }
    kv_states_release(&s->states, state_pool(s));
    kv_map_close(s->map);
    mem_free(s->tokens);
    mem_free(s);
}

int kv_seq_length(const kv_seq *s)
{
    return s->length;
}

const int32_t *kv_seq_tokens(const kv_seq *s)
{
    return s->tokens;
}

/* Room for the numbers of n tokens. */
static int grow_tokens(kv_seq *s, int64_t n, clm_error *err)
{
    int64_t capacity = n + n / 2 + 64;
    int32_t *grown;

    if (n <= s->token_capacity)
        return 0;
    if (capacity > INT_MAX)
        capacity = INT_MAX;
    grown = mem_resize(s->tokens, (size_t)capacity * sizeof *grown);
    if (!grown)
        return fail(err, CLM_ERR_NOMEM, "no memory for the numbers of %lld tokens", (long long)n);
    s->tokens = grown;
    s->token_capacity = (int)capacity;
    return 0;
}

/* Of the blocks of a table those that hold tokens. Reserved ones stay with s alone: it may write
 * them without asking again. */
static int used_blocks(const kv_seq *s, int g)
{
    int n = kv_blocks_for(s->length);

    if (n > s->cache->groups[g].n_kept)
        n -= s->groups[g].n_gone;
    n = n > 0 ? n : 0;
    return min_int(n, s->groups[g].n_blocks);
}

kv_seq *kv_seq_fork(const kv_seq *s, clm_error *err)
{
    kv_seq *f;

    if (s->states.next >= 0 && !has_next(s))
        return fail_null(err, CLM_ERR_ARG, "a sequence is not forked within a step");
    f = kv_seq_open(s->cache, err);
    if (!f)
        return NULL;
    if (grow_tokens(f, s->length, err)) {
        kv_seq_close(f);
        return NULL;
    }
    if (s->length)
        memcpy(f->tokens, s->tokens, (size_t)s->length * sizeof *s->tokens);
    f->length = s->length;
    f->begun = s->begun;
    f->keeps_steps = s->keeps_steps;
    f->map = s->map;
    if (f->map)
        kv_map_own(f->map);
    kv_states_share(&f->states, &s->states, state_pool(s));
    for (int g = 0; g < s->cache->n_groups; g++) {
        const struct holding *from = &s->groups[g];
        struct holding *to = &f->groups[g];
        int n = used_blocks(s, g);

        to->n_gone = from->n_gone;
        to->n_mapped = from->n_mapped;
        if (n > 0 && grow_table(to, n, err)) {
            kv_seq_close(f);
            return NULL;
        }
        for (; to->n_blocks < n; to->n_blocks++) {
            block_pool_ref(pool_at(s, g, to->n_blocks), table(from)[to->n_blocks]);
            table(to)[to->n_blocks] = table(from)[to->n_blocks];
        }
    }
    return f;
}

/* Where a token that is mapped lies. */
static struct kv_place mapped_place(const kv_seq *s, int layer, int position)
{
    const struct kv_layer *at = kv_at(&kv_map_layers(s->map)[layer], position);

    return (struct kv_place){at, at->slabs[0], position};
}

/* A place in a block of a pool that at describes. */
static struct kv_place place_in(const struct kv_layer *at, const struct block_pool *pool,
                                int32_t block, int place)
{
    int32_t in_slab = block & (int32_t)((1u << pool->slab_shift) - 1);
    char *slab = block_pool_at(pool, block - in_slab);
    size_t offset = kv_block_offset(at, in_slab, &place);

    return (struct kv_place){at, slab + offset, place};
}

/* n rows of a head, of keys or of values, from one place to another. */
static void copy_rows(device *d, struct kv_place to, struct kv_place from, int head, bool value,
                      int n)
{
    struct kv_part a = value ? kv_values(from.at) : kv_keys(from.at);
    struct kv_part b = value ? kv_values(to.at) : kv_keys(to.at);
    size_t row_a = (size_t)head * (size_t)kv_row_tokens(from.at) + (size_t)from.place;
    size_t row_b = (size_t)head * (size_t)kv_row_tokens(to.at) + (size_t)to.place;
    const char *in = from.block;
    char *out = to.block;

    d->ops->copy(d, out + b.rows + row_b * b.row_bytes, in + a.rows + row_a * a.row_bytes,
                 (size_t)n * a.row_bytes);
    if (a.n_groups == 0)
        return;
    d->ops->copy(d, out + b.scales + row_b * b.group_bytes, in + a.scales + row_a * a.group_bytes,
                 (size_t)n * a.group_bytes);
    d->ops->copy(d, out + b.biases + row_b * b.group_bytes, in + a.biases + row_a * a.group_bytes,
                 (size_t)n * a.group_bytes);
}

/* The part of a block that a trim has left in the map goes to the block that is taken for it. */
static void unmap_part(kv_seq *s, int g)
{
    struct holding *h = &s->groups[g];
    int n = h->n_mapped % KV_BLOCK_TOKENS;

    if (n == 0)
        return;
    h->n_mapped -= n;
    for (int i = 0; i < s->cache->n_layers; i++) {
        struct kv_place from, to;

        if (s->cache->group_of[i] != g)
            continue;
        from = mapped_place(s, i, h->n_mapped);
        to = kv_seq_place(s, i, h->n_mapped);
        for (int head = 0; head < to.at->n_kv_heads; head++) {
            copy_rows(s->cache->groups[g].dev, to, from, head, false, n);
            copy_rows(s->cache->groups[g].dev, to, from, head, true, n);
        }
    }
}

/* Of the group's pool at the end of the sequence. */
static void copy_block(const kv_seq *s, int g, int32_t to, int32_t from)
{
    const kv_cache *c = s->cache;
    struct block_pool *pool = &pool_of(c, g, s->length / KV_BLOCK_TOKENS)->blocks;

    if (!c->groups[g].beside) {
        block_pool_copy(pool, to, from);
        return;
    }
    for (int i = 0; i < c->n_layers; i++) {
        const struct kv_layer *at = kv_at(&c->layers[i], s->length);

        for (int head = 0; c->group_of[i] == g && head < at->n_kv_heads; head++)
            for (int value = 0; value < 2; value++)
                copy_rows(c->groups[g].dev, place_in(at, pool, to, 0), place_in(at, pool, from, 0),
                          head, value, KV_BLOCK_TOKENS);
    }
}

/* Take what kv_make_room has made sure of. */
static void take_blocks(kv_seq *s, int g, int n)
{
    struct holding *h = &s->groups[g];

    if (must_copy(s, g)) {
        struct block_pool *p = &pool_of(s->cache, g, s->length / KV_BLOCK_TOKENS)->blocks;
        int32_t *block = partial_block(s, g);
        int32_t own = block_pool_take(p);

        copy_block(s, g, own, *block);
        block_pool_unref(p, *block);
        *block = own;
    }
    for (int missing = missing_blocks(s, g, n); missing > 0; missing--) {
        table(h)[h->n_blocks] = block_pool_take(pool_at(s, g, h->n_blocks));
        h->n_blocks++;
    }
    unmap_part(s, g);
}

static bool states_stay(const kv_seq *s, int n)
{
    return has_states(s) && n == 1 && !s->keeps_steps && s->cache->states_stay && !has_next(s) &&
           kv_states_may_stay(&s->states, state_pool(s), s->begun);
}

int kv_seq_reserve(kv_seq *s, int n, clm_error *err)
{
    kv_cache *c = s->cache;
    bool ready = true, stays = states_stay(s, n);

    if (n < 0)
        return fail(err, CLM_ERR_ARG, "room for %d tokens was asked of the cache", n);
    if (n > INT_MAX - s->length)
        return fail(err, CLM_ERR_FULL, "a sequence of %d tokens cannot take %d more", s->length, n);
    if (n == 0)
        return 0;
    if (!kv_seq_is_whole(s))
        return fail(err, CLM_ERR_ARG,
                    "the states of a sequence of %d tokens are lost after token %d", s->length,
                    kv_seq_trim_point(s, s->length));
    if (grow_tokens(s, (int64_t)s->length + n, err))
        return -1;
    for (int i = 0; i < c->n_pools; i++)
        c->pools[i].need = 0;
    for (int g = 0; g < c->n_groups; g++) {
        int missing = missing_blocks(s, g, n);

        if (add_needs(s, g, n))
            ready = false;
        if (missing && grow_table(&s->groups[g], missing, err))
            return -1;
    }
    if (has_states(s) && !stays && !has_next(s)) {
        c->states->need = 1;
        ready = false;
    }
    if (!ready && kv_make_room(c, err))
        return -1;
    for (int g = 0; g < c->n_groups && !ready; g++)
        take_blocks(s, g, n);
    if (stays)
        s->states.next = s->states.now;
    else if (has_states(s) && !has_next(s))
        s->states.next = block_pool_take(state_pool(s));
    return 0;
}

/* The first position that a token at position p sees in a window, and those after it. */
static int64_t window_start(int window, int64_t p)
{
    int64_t start = window ? p - window + 1 : 0;

    return start > 0 ? start : 0;
}

/* Groups that map has begin with the whole blocks of n tokens in it. */
static void begin_in_map(kv_seq *s, int n, kv_map *map)
{
    for (int g = 0; g < s->cache->n_groups; g++) {
        struct holding *h = &s->groups[g];

        if (h->n_blocks > 0 || !kv_map_has(map, g))
            continue;
        h->n_gone = n / KV_BLOCK_TOKENS;
        h->n_mapped = h->n_gone * KV_BLOCK_TOKENS;
        if (h->n_mapped > 0)
            s->map = map;
    }
    if (s->map)
        kv_map_own(map);
}

int kv_seq_reserve_past(kv_seq *s, int n, kv_map *map, clm_error *err)
{
    assert(s->length == 0 && !s->map);
    for (int g = 0; g < s->cache->n_groups; g++) {
        const struct group *group = &s->cache->groups[g];
        int begin = (int)(window_start(group->reach, n) / KV_BLOCK_TOKENS);

        if (s->groups[g].n_blocks == 0 && begin > group->n_kept)
            s->groups[g].n_gone = begin - group->n_kept;
    }
    if (map)
        begin_in_map(s, n, map);
    s->begun = n;
    return kv_seq_reserve(s, n, err);
}

/* Blocks behind the last token go back to the pool. */
static void drop_unused(kv_seq *s, int g)
{
    struct holding *h = &s->groups[g];
    int n_kept = s->cache->groups[g].n_kept;

    drop_last(s, g, h->n_blocks - used_blocks(s, g));
    if (n_kept > 0 && h->n_blocks <= n_kept)
        h->n_gone = 0;
}

void kv_seq_commit(kv_seq *s, const int32_t *tokens, int n)
{
    if (n == 0)
        kv_states_cancel(&s->states, state_pool(s));
    else {
        if (has_states(s))
            kv_states_advance(&s->states, state_pool(s), n);
        memcpy(s->tokens + s->length, tokens, (size_t)n * sizeof *tokens);
    }
    s->length += n;
    for (int g = 0; g < s->cache->n_groups; g++) {
        const struct group *group = &s->cache->groups[g];
        struct holding *h = &s->groups[g];
        /* What a trim by up to a block of tokens needs again is kept. */
        int64_t start = window_start(group->reach, (int64_t)s->length - KV_BLOCK_TOKENS);
        int behind = (int)(start / KV_BLOCK_TOKENS) - group->n_kept - h->n_gone;

        assert(n == 0 || h->n_gone + h->n_blocks >= kv_blocks_for(s->length));
        drop_unused(s, g);
        if (behind > 0)
            drop_first(s, g, behind);
    }
}

void kv_seq_fail(kv_seq *s)
{
    if (has_states(s))
        kv_states_fail(&s->states, state_pool(s));
    kv_seq_commit(s, NULL, 0);
}

bool kv_seq_is_whole(const kv_seq *s)
{
    return !has_states(s) || s->states.length == s->length;
}

void kv_seq_keep_steps(kv_seq *s)
{
    s->keeps_steps = true;
}

void kv_seq_swap(kv_seq *a, kv_seq *b)
{
    kv_seq head = *a;

    *a = *b;
    *b = head;
    for (int g = 0; g < a->cache->n_groups; g++) {
        struct holding h = a->groups[g];

        a->groups[g] = b->groups[g];
        b->groups[g] = h;
    }
}

/* Do windows still hold what a continuation from n needs? */
static bool windows_hold(const kv_seq *s, int n)
{
    for (int g = 0; g < s->cache->n_groups; g++) {
        const struct group *group = &s->cache->groups[g];
        int64_t start = window_start(group->reach, n), begun = window_start(group->reach, s->begun);
        int64_t kept = (int64_t)group->n_kept * KV_BLOCK_TOKENS;
        int64_t gone = s->groups[g].n_mapped ? 0 : (int64_t)s->groups[g].n_gone * KV_BLOCK_TOKENS;

        /* That is positions [start, n), which may be none, and what is kept. */
        if (start < n && ((gone > 0 && n > kept && start < kept + gone) ||
                          (n < s->begun && start < begun && begun > group->n_first)))
            return false;
    }
    return true;
}

int kv_seq_trim_point(const kv_seq *s, int n)
{
    if (has_states(s))
        n = kv_states_point(&s->states, n);
    return windows_hold(s, n) ? n : 0;
}

int kv_seq_trim(kv_seq *s, int n, clm_error *err)
{
    if (n < 0 || n > s->length)
        return fail(err, CLM_ERR_ARG, "a sequence of %d tokens cannot be trimmed to %d", s->length,
                    n);
    if (kv_seq_trim_point(s, n) != n)
        return fail(err, CLM_ERR_ARG,
                    "what comes before token %d of the sequence is no longer there: evaluate it "
                    "again from token %d",
                    n, kv_seq_trim_point(s, n));
    if (has_states(s))
        kv_states_trim(&s->states, state_pool(s), n);
    s->length = n;
    s->begun = n < s->begun ? n : s->begun;
    for (int g = 0; g < s->cache->n_groups; g++) {
        struct holding *h = &s->groups[g];

        drop_unused(s, g);
        h->n_mapped = min_int(h->n_mapped, n);
        if (h->n_blocks == 0 && s->cache->groups[g].n_kept == 0)
            h->n_gone = n / KV_BLOCK_TOKENS;
    }
    return 0;
}

bool kv_seq_thin(kv_seq *s)
{
    return has_states(s) && kv_states_thin(&s->states, state_pool(s));
}

int kv_cache_past_point(const kv_cache *c, int length, int n)
{
    if (n >= length)
        return length;
    if (c->states)
        return 0;
    for (int g = 0; g < c->n_groups; g++)
        if (window_start(c->groups[g].reach, length) > c->groups[g].n_first)
            return 0;
    return n;
}

/* The part of the states on one of the devices. */
static struct kv_state state_part(const kv_seq *s, int part)
{
    struct kv_state state = {NULL, NULL};

    if (s->states.now >= 0)
        state.from = block_pool_part_at(state_pool(s), s->states.now, part);
    if (s->states.next >= 0)
        state.to = block_pool_part_at(state_pool(s), s->states.next, part);
    return state;
}

struct kv_state kv_seq_state(const kv_seq *s)
{
    return state_part(s, 0);
}

struct kv_state kv_seq_rest_state(const kv_seq *s)
{
    return state_part(s, 1);
}

struct kv_state kv_seq_share_state(const kv_seq *s, int share)
{
    return state_part(s, share);
}

struct kv_table kv_seq_table(const kv_seq *s, int group)
{
    const struct holding *h = &s->groups[group];

    return (struct kv_table){
        .blocks = h->n_blocks ? table(h) : NULL,
        .n_blocks = h->n_blocks,
        .n_kept = s->cache->groups[group].n_kept,
        .n_gone = h->n_gone,
        .n_mapped = h->n_mapped,
        .mapped = s->map ? kv_map_layers(s->map) : NULL,
    };
}

struct kv_place kv_seq_place(const kv_seq *s, int layer, int position)
{
    const struct kv_layer *kv = &s->cache->layers[layer];
    int group = s->cache->group_of[layer];
    int i;

    if (position < s->groups[group].n_mapped)
        return mapped_place(s, layer, position);
    i = place_of(s, group, position / KV_BLOCK_TOKENS);
    return place_in(kv_at(kv, position), pool_at(s, group, i), table(&s->groups[group])[i],
                    position % KV_BLOCK_TOKENS);
}

int kv_seq_check(const kv_seq *s, clm_error *err)
{
    return s->map ? kv_map_check(s->map, err) : 0;
}

static int pool_number(const kv_cache *c, const struct pool *p)
{
    return (int)(p - c->pools);
}

void kv_seq_visit_blocks(const kv_seq *s, void (*visit)(void *ctx, int pool, int32_t block),
                         void *ctx)
{
    const kv_cache *c = s->cache;
    int states = c->states ? pool_number(c, c->states) : 0;

    for (int g = 0; g < c->n_groups; g++)
        for (int i = 0; i < s->groups[g].n_blocks; i++)
            visit(ctx, pool_number(c, pool_of(c, g, number_of(s, g, i))), table(&s->groups[g])[i]);
    if (s->states.now >= 0)
        visit(ctx, states, s->states.now);
    if (has_next(s))
        visit(ctx, states, s->states.next);
    for (int i = 0; i < s->states.n_snapshots; i++)
        visit(ctx, states, s->states.snapshots[i].block);
}
