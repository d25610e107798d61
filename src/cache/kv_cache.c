#include "cache/kv_cache.h"

#include <assert.h>
#include <limits.h>
#include <string.h>

#include "base/arena.h"
#include "cache/kv_states.h"

/* A slab is one allocation of the device: large enough that a long context needs few. */
#define SLAB_BYTES ((size_t)2 << 20)

/* Parts of a block begin at multiples of this, as vector loads like it. */
#define PART_ALIGNMENT 64

struct group {
    int window;
    struct block_pool pool;
    int need; /* blocks that the reserve at work will take */
};

struct kv_cache {
    arena *memory;
    size_t max_bytes; /* SIZE_MAX: no bound */
    int n_layers, n_groups;
    int n_pools; /* n_groups, and one more for states where there are any */
    struct kv_layer *layers;
    int *group_of;        /* [n_layers] */
    struct group *groups; /* [n_pools] */
};

/* What a sequence holds of a group. The table moves up in its memory as a window lets go of blocks,
 * and back to the start when the memory is used up. */
struct holding {
    int32_t *memory;
    int capacity;
    int head, n_blocks; /* the table is memory[head .. head + n_blocks) */
    int first_block;
};

struct kv_sequence_cache {
    kv_cache *cache;
    int length;
    int begun;       /* it began with so many tokens, of which windows have but the last */
    int32_t *tokens; /* [token_capacity] */
    int token_capacity;
    struct kv_states states;
    struct holding groups[]; /* [n_groups] */
};

/* Opening */

static int check_layer(const struct kv_layer_spec *l, int i, clm_error *err)
{
    if (l->n_kv_heads < 1 || l->k_dim < 1 || l->v_dim < 1 || l->window < 0)
        return fail(err, CLM_ERR_ARG,
                    "cache layer %d: %d kv heads of %d and %d numbers, window %d: sizes must be "
                    "positive, a window 0 or more",
                    i, l->n_kv_heads, l->k_dim, l->v_dim, l->window);
    return 0;
}

/* Adds room for rows [n_kv_heads, KV_BLOCK_TOKENS, dim] at the end of a block: *offset in it. */
static bool add_part(size_t *block_bytes, size_t *offset, int n_kv_heads, int dim, size_t item)
{
    size_t bytes;

    *offset = *block_bytes;
    if (!size_mul((size_t)n_kv_heads * KV_BLOCK_TOKENS, (size_t)dim, &bytes) ||
        !size_mul(bytes, item, &bytes) || !size_add(bytes, PART_ALIGNMENT - 1, &bytes))
        return false;
    return size_add(*block_bytes, bytes & ~(size_t)(PART_ALIGNMENT - 1), block_bytes);
}

/* The group of layers that see window far, made if there is none. */
static int group_for(kv_cache *c, int window)
{
    int g = 0;

    while (g < c->n_groups && c->groups[g].window != window)
        g++;
    if (g == c->n_groups)
        c->groups[c->n_groups++].window = window;
    return g;
}

/* The layers of group g one after another in its blocks, and an empty pool of these. */
static int lay_out_group(kv_cache *c, int g, device *d, size_t max_slab_bytes, clm_error *err)
{
    size_t block_bytes = 0;

    for (int i = 0; i < c->n_layers; i++) {
        struct kv_layer *l = &c->layers[i];
        size_t item = dtype_size(l->type);

        if (c->group_of[i] != g)
            continue;
        if (!add_part(&block_bytes, &l->k_offset, l->n_kv_heads, l->k_dim, item) ||
            !add_part(&block_bytes, &l->v_offset, l->n_kv_heads, l->v_dim, item))
            return fail(err, CLM_ERR_ARG, "cache layer %d: a block does not fit in memory", i);
    }
    block_pool_init(&c->groups[g].pool, d, block_bytes, max_slab_bytes);
    for (int i = 0; i < c->n_layers; i++)
        if (c->group_of[i] == g) {
            c->layers[i].block_bytes = block_bytes;
            c->layers[i].slab_shift = c->groups[g].pool.slab_shift;
        }
    return 0;
}

static int lay_out(kv_cache *c, device *d, const struct kv_layer_spec *layers, enum dtype type,
                   size_t state_bytes, clm_error *err)
{
    size_t max_slab_bytes = SLAB_BYTES;

    for (int i = 0; i < c->n_layers; i++) {
        if (check_layer(&layers[i], i, err))
            return -1;
        c->group_of[i] = group_for(c, layers[i].window);
        c->layers[i] = (struct kv_layer){.type = type,
                                         .n_kv_heads = layers[i].n_kv_heads,
                                         .k_dim = layers[i].k_dim,
                                         .v_dim = layers[i].v_dim,
                                         .block_tokens = KV_BLOCK_TOKENS};
    }
    /* Under a bound smaller slabs, so that little of it lies idle in half used ones. */
    if (max_slab_bytes > c->max_bytes / 64)
        max_slab_bytes = c->max_bytes / 64;
    for (int g = 0; g < c->n_groups; g++)
        if (lay_out_group(c, g, d, max_slab_bytes, err))
            return -1;
    c->n_pools = c->n_groups;
    if (state_bytes)
        block_pool_init(&c->groups[c->n_pools++].pool, d, state_bytes, max_slab_bytes);
    return 0;
}

kv_cache *kv_cache_open(device *d, const struct kv_layer_spec *layers, int n_layers,
                        enum dtype type, size_t state_bytes, size_t max_bytes, clm_error *err)
{
    arena *memory;
    kv_cache *c;

    if (n_layers < 0 || (type != DTYPE_F32 && type != DTYPE_F16 && type != DTYPE_BF16))
        return fail_null(err, CLM_ERR_ARG,
                         "a cache of %d layers of type %d: it holds F32, F16 or BF16", n_layers,
                         (int)type);
    memory = arena_open(0);
    c = memory ? arena_array(memory, kv_cache, 1) : NULL;
    if (c) {
        c->memory = memory;
        c->max_bytes = max_bytes ? max_bytes : SIZE_MAX;
        c->n_layers = n_layers;
        c->layers = arena_array(memory, struct kv_layer, n_layers);
        c->group_of = arena_array(memory, int, n_layers);
        c->groups = arena_array(memory, struct group, n_layers + 1);
    }
    if (!c || !c->layers || !c->group_of || !c->groups) {
        arena_close(memory);
        return fail_null(err, CLM_ERR_NOMEM, "no memory for a cache of %d layers", n_layers);
    }
    if (lay_out(c, d, layers, type, state_bytes, err)) {
        kv_cache_close(c);
        return NULL;
    }
    return c;
}

void kv_cache_close(kv_cache *c)
{
    if (!c)
        return;
    for (int g = 0; g < c->n_pools; g++)
        block_pool_release(&c->groups[g].pool);
    arena_close(c->memory);
}

/* Looking at a cache */

int kv_cache_groups(const kv_cache *c)
{
    return c->n_groups;
}

int kv_cache_group_of(const kv_cache *c, int layer)
{
    return c->group_of[layer];
}

const struct kv_layer *kv_cache_layer(const kv_cache *c, int layer)
{
    return &c->layers[layer];
}

size_t kv_cache_bytes_used(const kv_cache *c)
{
    size_t bytes = 0;

    for (int g = 0; g < c->n_pools; g++) {
        const struct block_pool *p = &c->groups[g].pool;

        bytes += (size_t)block_pool_used(p) * p->block_bytes;
    }
    return bytes;
}

size_t kv_cache_bytes_held(const kv_cache *c)
{
    size_t bytes = 0;

    for (int g = 0; g < c->n_pools; g++) {
        const struct block_pool *p = &c->groups[g].pool;

        bytes += (size_t)p->n_slabs * block_pool_slab_bytes(p);
    }
    return bytes;
}

size_t kv_cache_bytes_per_token(const kv_cache *c)
{
    size_t bytes = 0;

    for (int g = 0; g < c->n_groups; g++)
        bytes += c->groups[g].pool.block_bytes / KV_BLOCK_TOKENS;
    return bytes;
}

size_t kv_cache_state_bytes(const kv_cache *c)
{
    return c->n_pools > c->n_groups ? c->groups[c->n_groups].pool.block_bytes : 0;
}

/* Room in the pools */

static int grow_group(kv_cache *c, int g, clm_error *err)
{
    struct block_pool *p = &c->groups[g].pool;
    int rc = block_pool_grow(p, err);

    for (int i = 0; i < c->n_layers; i++)
        if (c->group_of[i] == g)
            c->layers[i].slabs = p->device_slabs;
    return rc;
}

/* Give back what other groups have in excess until bytes more fit under the bound. */
static bool fit_under_bound(kv_cache *c, size_t bytes)
{
    size_t held = kv_cache_bytes_held(c);

    if (bytes > c->max_bytes)
        return false;
    for (int g = 0; g < c->n_pools; g++)
        while (held > c->max_bytes - bytes &&
               block_pool_shrink(&c->groups[g].pool, c->groups[g].need))
            held -= block_pool_slab_bytes(&c->groups[g].pool);
    return held <= c->max_bytes - bytes;
}

/* After success every group has as many free blocks as it needs. */
static int make_room(kv_cache *c, clm_error *err)
{
    size_t bytes = 0;

    for (int g = 0; g < c->n_pools; g++) {
        struct block_pool *p = &c->groups[g].pool;
        size_t more;

        if (!size_mul((size_t)block_pool_missing(p, c->groups[g].need), block_pool_slab_bytes(p),
                      &more) ||
            !size_add(bytes, more, &bytes))
            return fail(err, CLM_ERR_NOMEM, "the cache would not fit in memory");
    }
    if (bytes && !fit_under_bound(c, bytes))
        return fail(err, CLM_ERR_FULL,
                    "the cache may hold %zu bytes, has %zu and needs %zu more: raise its bound or "
                    "close sequences",
                    c->max_bytes, kv_cache_bytes_held(c), bytes);
    for (int g = 0; g < c->n_pools; g++)
        while (block_pool_missing(&c->groups[g].pool, c->groups[g].need))
            if (grow_group(c, g, err))
                return -1;
    return 0;
}

/* Tables */

static int blocks_for(int64_t n_tokens)
{
    return (int)((n_tokens + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS);
}

static int32_t *table(const struct holding *h)
{
    return h->memory + h->head;
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

static void drop_first(struct holding *h, struct block_pool *p, int n)
{
    for (int i = 0; i < n; i++)
        block_pool_unref(p, table(h)[i]);
    h->head += n;
    h->n_blocks -= n;
    h->first_block += n;
}

static void drop_last(struct holding *h, struct block_pool *p, int n)
{
    for (int i = 0; i < n; i++)
        block_pool_unref(p, table(h)[--h->n_blocks]);
}

/* The block that the next token of s goes to, when it is there: it holds earlier tokens too. NULL:
 * a new one will be taken, or it was reserved. */
static int32_t *partial_block(const kv_seq *s, int g)
{
    const struct holding *h = &s->groups[g];
    int i = s->length / KV_BLOCK_TOKENS - h->first_block;

    return s->length % KV_BLOCK_TOKENS && i < h->n_blocks ? table(h) + i : NULL;
}

static bool must_copy(const kv_seq *s, int g)
{
    const int32_t *block = partial_block(s, g);

    return block && block_pool_shared(&s->cache->groups[g].pool, *block);
}

static int missing_blocks(const kv_seq *s, int g, int n)
{
    const struct holding *h = &s->groups[g];
    int missing = blocks_for((int64_t)s->length + n) - h->first_block - h->n_blocks;

    return missing > 0 ? missing : 0;
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

/* The pool of states; not used where there are none. */
static struct block_pool *state_pool(const kv_seq *s)
{
    return &s->cache->groups[s->cache->n_groups].pool;
}

static bool has_states(const kv_seq *s)
{
    return s->cache->n_pools > s->cache->n_groups;
}

void kv_seq_close(kv_seq *s)
{
    if (!s)
        return;
    for (int g = 0; g < s->cache->n_groups; g++) {
        drop_last(&s->groups[g], &s->cache->groups[g].pool, s->groups[g].n_blocks);
        mem_free(s->groups[g].memory);
    }
    kv_states_release(&s->states, state_pool(s));
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

kv_seq *kv_seq_fork(const kv_seq *s, clm_error *err)
{
    kv_seq *f = kv_seq_open(s->cache, err);

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
    kv_states_share(&f->states, &s->states, state_pool(s));
    for (int g = 0; g < s->cache->n_groups; g++) {
        const struct holding *from = &s->groups[g];
        struct holding *to = &f->groups[g];
        /* Reserved blocks stay with s alone: it may write them without asking again. */
        int n = blocks_for(s->length) - from->first_block;

        if (n > from->n_blocks)
            n = from->n_blocks;
        to->first_block = from->first_block;
        if (n > 0 && grow_table(to, n, err)) {
            kv_seq_close(f);
            return NULL;
        }
        for (; to->n_blocks < n; to->n_blocks++) {
            block_pool_ref(&s->cache->groups[g].pool, table(from)[to->n_blocks]);
            table(to)[to->n_blocks] = table(from)[to->n_blocks];
        }
    }
    return f;
}

/* Take what make_room has made sure of. */
static void take_blocks(kv_seq *s, int g, int n)
{
    struct block_pool *p = &s->cache->groups[g].pool;
    struct holding *h = &s->groups[g];

    if (must_copy(s, g)) {
        int32_t *block = partial_block(s, g);
        int32_t own = block_pool_take(p);

        block_pool_copy(p, own, *block);
        block_pool_unref(p, *block);
        *block = own;
    }
    for (int missing = missing_blocks(s, g, n); missing > 0; missing--)
        table(h)[h->n_blocks++] = block_pool_take(p);
}

int kv_seq_reserve(kv_seq *s, int n, clm_error *err)
{
    kv_cache *c = s->cache;
    bool ready = true;

    if (n < 0)
        return fail(err, CLM_ERR_ARG, "room for %d tokens was asked of the cache", n);
    if (n > INT_MAX - s->length)
        return fail(err, CLM_ERR_FULL, "a sequence of %d tokens cannot take %d more", s->length, n);
    if (n == 0)
        return 0;
    if (grow_tokens(s, (int64_t)s->length + n, err))
        return -1;
    for (int g = 0; g < c->n_groups; g++) {
        int missing = missing_blocks(s, g, n);

        c->groups[g].need = missing + must_copy(s, g);
        ready = ready && c->groups[g].need == 0;
        if (missing && grow_table(&s->groups[g], missing, err))
            return -1;
    }
    if (has_states(s)) {
        c->groups[c->n_groups].need = s->states.next < 0;
        ready = ready && s->states.next >= 0;
    }
    if (ready)
        return 0;
    if (make_room(c, err))
        return -1;
    for (int g = 0; g < c->n_groups; g++)
        take_blocks(s, g, n);
    if (has_states(s) && s->states.next < 0)
        s->states.next = block_pool_take(state_pool(s));
    return 0;
}

/* The first position that a token at position p sees in a window, and those after it. */
static int64_t window_start(int window, int64_t p)
{
    int64_t start = window ? p - window + 1 : 0;

    return start > 0 ? start : 0;
}

int kv_seq_reserve_past(kv_seq *s, int n, clm_error *err)
{
    assert(s->length == 0);
    for (int g = 0; g < s->cache->n_groups; g++) {
        struct holding *h = &s->groups[g];

        if (h->n_blocks == 0)
            h->first_block = (int)(window_start(s->cache->groups[g].window, n) / KV_BLOCK_TOKENS);
    }
    s->begun = n;
    return kv_seq_reserve(s, n, err);
}

/* Blocks behind the last token go back to the pool. */
static void drop_unused(kv_seq *s, int g)
{
    struct holding *h = &s->groups[g];
    int unused = h->first_block + h->n_blocks - blocks_for(s->length);

    drop_last(h, &s->cache->groups[g].pool, unused < h->n_blocks ? unused : h->n_blocks);
}

void kv_seq_commit(kv_seq *s, const int32_t *tokens, int n)
{
    if (n == 0)
        kv_states_cancel(&s->states, state_pool(s));
    else {
        if (has_states(s))
            kv_states_advance(&s->states, state_pool(s), s->length);
        memcpy(s->tokens + s->length, tokens, (size_t)n * sizeof *tokens);
    }
    s->length += n;
    for (int g = 0; g < s->cache->n_groups; g++) {
        struct holding *h = &s->groups[g];
        /* What a trim by up to a block of tokens needs again is kept. */
        int64_t start =
            window_start(s->cache->groups[g].window, (int64_t)s->length - KV_BLOCK_TOKENS);
        int behind = (int)(start / KV_BLOCK_TOKENS) - h->first_block;

        assert(n == 0 || h->first_block + h->n_blocks >= blocks_for(s->length));
        drop_unused(s, g);
        if (behind > 0)
            drop_first(h, &s->cache->groups[g].pool, behind);
    }
}

/* Do windows still hold what a continuation from n needs? */
static bool windows_hold(const kv_seq *s, int n)
{
    for (int g = 0; g < s->cache->n_groups; g++) {
        int window = s->cache->groups[g].window;
        int64_t start = window_start(window, n);

        /* That is positions [start, n), which may be none. */
        if (start < n && (start < (int64_t)s->groups[g].first_block * KV_BLOCK_TOKENS ||
                          (n < s->begun && start < window_start(window, s->begun))))
            return false;
    }
    return true;
}

int kv_seq_trim_point(const kv_seq *s, int n)
{
    if (has_states(s))
        n = kv_states_point(&s->states, s->length, n);
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
        kv_states_trim(&s->states, state_pool(s), s->length, n);
    s->length = n;
    s->begun = n < s->begun ? n : s->begun;
    for (int g = 0; g < s->cache->n_groups; g++) {
        struct holding *h = &s->groups[g];

        drop_unused(s, g);
        if (h->n_blocks == 0)
            h->first_block = n / KV_BLOCK_TOKENS;
    }
    return 0;
}

int kv_cache_past_point(const kv_cache *c, int length, int n)
{
    if (n >= length)
        return length;
    if (c->n_pools > c->n_groups)
        return 0;
    for (int g = 0; g < c->n_groups; g++)
        if (window_start(c->groups[g].window, length) > 0)
            return 0;
    return n;
}

struct kv_state kv_seq_state(const kv_seq *s)
{
    struct kv_state state = {NULL, NULL};

    if (s->states.now >= 0)
        state.from = block_pool_at(state_pool(s), s->states.now);
    if (s->states.next >= 0)
        state.to = block_pool_at(state_pool(s), s->states.next);
    return state;
}

struct kv_table kv_seq_table(const kv_seq *s, int group)
{
    const struct holding *h = &s->groups[group];

    return (struct kv_table){
        .blocks = h->n_blocks ? table(h) : NULL,
        .n_blocks = h->n_blocks,
        .first_block = h->first_block,
    };
}

void *kv_cache_block(const kv_cache *c, int group, int32_t block)
{
    return block_pool_at(&c->groups[group].pool, block);
}

int kv_cache_pools(const kv_cache *c)
{
    return c->n_pools;
}

size_t kv_cache_block_bytes(const kv_cache *c, int pool)
{
    return c->groups[pool].pool.block_bytes;
}

int kv_cache_block_limit(const kv_cache *c, int pool)
{
    return block_pool_limit(&c->groups[pool].pool);
}

int kv_cache_block_refs(const kv_cache *c, int pool, int32_t block)
{
    return block_pool_refs(&c->groups[pool].pool, block);
}

void kv_seq_visit_blocks(const kv_seq *s, void (*visit)(void *ctx, int pool, int32_t block),
                         void *ctx)
{
    int states = s->cache->n_groups;

    for (int g = 0; g < s->cache->n_groups; g++)
        for (int i = 0; i < s->groups[g].n_blocks; i++)
            visit(ctx, g, table(&s->groups[g])[i]);
    if (s->states.now >= 0)
        visit(ctx, states, s->states.now);
    if (s->states.next >= 0)
        visit(ctx, states, s->states.next);
    for (int i = 0; i < s->states.n_snapshots; i++)
        visit(ctx, states, s->states.snapshots[i].block);
}
