#include "cache/kv_cache.h"

#include <assert.h>
#include <limits.h>
#include <string.h>

#include "base/arena.h"
#include "cache/kv_states.h"
#include "device/kv_layout.h"

/* A slab is one allocation of the device: large enough that a long context needs few. */
#define SLAB_BYTES ((size_t)2 << 20)

/* Parts of a block begin at multiples of this, as vector loads like it. */
#define PART_ALIGNMENT 64

struct pool {
    struct block_pool blocks;
    int need; /* blocks that the reserve at work will take */
};

/* Layers that look equally far back and are stored alike. */
struct group {
    int window; /* as the model has it */
    bool plain;
    int reach;   /* a token sees so many at most, itself included, 0: all, */
    int n_first; /* and these first ones */
    int n_kept;  /* blocks of the first ones */
    struct pool *pool;
    struct pool *earlier; /* of tokens before the cache's split; NULL: there is none */
};

struct kv_cache {
    arena *memory;
    struct kv_cache_options options;
    size_t max_bytes; /* SIZE_MAX: no bound */
    int split;        /* of groups that have two pools */
    int n_layers, n_groups;
    int n_pools;             /* one for each group, then one for states, then earlier ones */
    struct kv_layer *layers; /* [n_layers] */
    struct kv_layer *earlier;
    int *group_of;        /* [n_layers] */
    struct group *groups; /* [n_groups] */
    struct pool *pools;   /* [n_pools] */
    struct pool *states;  /* NULL: there are none */
};

/* What a sequence holds of a group. The table moves up in its memory as a window lets go of blocks,
 * and back to the start when the memory is used up. Its first n_kept entries, of the group, are the
 * first blocks of the sequence; between these and the others n_gone have been let go of. */
struct holding {
    int32_t *memory;
    int capacity;
    int head, n_blocks; /* the table is memory[head .. head + n_blocks) */
    int n_gone;
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

static int min_int(int a, int b)
{
    return a < b ? a : b;
}

static int blocks_for(int64_t n_tokens)
{
    return (int)((n_tokens + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS);
}

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

static int check_options(const struct kv_cache_options *o, clm_error *err)
{
    if (o->type != DTYPE_F32 && o->type != DTYPE_F16 && o->type != DTYPE_BF16)
        return fail(err, CLM_ERR_ARG, "a cache of type %d: it holds F32, F16 or BF16",
                    (int)o->type);
    if (o->bits != 0 && o->bits != 4 && o->bits != 8)
        return fail(err, CLM_ERR_ARG, "a cache of %d bits: it is quantised to 4 or 8", o->bits);
    if (o->bits && o->group_size != 32 && o->group_size != 64 && o->group_size != 128)
        return fail(err, CLM_ERR_ARG, "a cache in groups of %d: they are of 32, 64 or 128",
                    o->group_size);
    if (o->quantised_from < 0)
        return fail(err, CLM_ERR_ARG, "a cache quantised from token %d on", o->quantised_from);
    if (o->n_first < 0 || o->max_tokens < 0 || (o->max_tokens && o->max_tokens <= o->n_first))
        return fail(err, CLM_ERR_ARG,
                    "a cache of the last of %d tokens that keeps the first %d: it needs room for "
                    "more than these",
                    o->max_tokens, o->n_first);
    return 0;
}

/* The largest size of groups up to size that both rows are made of; size itself where there is
 * none: then the last group of a row is shorter. */
static int fitting_group(const struct kv_layer_spec *l, int size)
{
    for (int n = size; n >= 32; n /= 2)
        if (l->k_dim % n == 0 && l->v_dim % n == 0)
            return n;
    return size;
}

/* Adds room for a part of the layer, keys or values of dim numbers, at the end of a block: *offset
 * in it. */
static bool add_part(size_t *block_bytes, size_t *offset, const struct kv_layer *l, int dim)
{
    size_t most, bytes;

    *offset = *block_bytes;
    /* A row, its scales and biases are never larger than this. */
    if (!size_mul((size_t)l->n_kv_heads * KV_BLOCK_TOKENS, (size_t)dim * 4 + 16, &most) ||
        !size_add(most, PART_ALIGNMENT - 1, &most))
        return false;
    bytes = kv_part_at(l, 0, dim).end + PART_ALIGNMENT - 1;
    return size_add(*block_bytes, bytes & ~(size_t)(PART_ALIGNMENT - 1), block_bytes);
}

/* How far back the layer sees, and what is kept before that, under the bound of tokens. */
static struct group group_like(const kv_cache *c, const struct kv_layer_spec *l)
{
    int last = c->options.max_tokens - c->options.n_first;
    struct group g = {.window = l->window, .plain = l->plain, .reach = l->window};

    if (c->options.max_tokens && (!l->window || l->window > last)) {
        g.reach = last;
        g.n_first = c->options.n_first;
        g.n_kept = blocks_for(g.n_first);
    }
    return g;
}

/* The group that a layer belongs to, made if there is none. */
static int group_for(kv_cache *c, const struct kv_layer_spec *l)
{
    int g = 0;

    while (g < c->n_groups && (c->groups[g].window != l->window || c->groups[g].plain != l->plain))
        g++;
    if (g == c->n_groups)
        c->groups[c->n_groups++] = group_like(c, l);
    return g;
}

/* The layers of group g one after another in the blocks of an empty pool; layers are those of the
 * cache that describe this pool. */
static struct pool *lay_out_pool(kv_cache *c, int g, struct kv_layer *layers, device *d,
                                 size_t max_slab_bytes, clm_error *err)
{
    struct pool *pool = &c->pools[c->n_pools++];
    size_t block_bytes = 0;

    for (int i = 0; i < c->n_layers; i++) {
        struct kv_layer *l = &layers[i];

        if (c->group_of[i] != g)
            continue;
        if (!add_part(&block_bytes, &l->k_offset, l, l->k_dim) ||
            !add_part(&block_bytes, &l->v_offset, l, l->v_dim))
            return fail_null(err, CLM_ERR_ARG, "cache layer %d: a block does not fit in memory", i);
    }
    block_pool_init(&pool->blocks, d, block_bytes, max_slab_bytes);
    for (int i = 0; i < c->n_layers; i++)
        if (c->group_of[i] == g) {
            layers[i].block_bytes = block_bytes;
            layers[i].slab_shift = pool->blocks.slab_shift;
        }
    return pool;
}

/* What is known of layer i before blocks are laid out. */
static void describe_layer(kv_cache *c, int i, const struct kv_layer_spec *l)
{
    const struct group *g = &c->groups[c->group_of[i]];
    struct kv_layer layer = {.type = c->options.type,
                             .n_kv_heads = l->n_kv_heads,
                             .k_dim = l->k_dim,
                             .v_dim = l->v_dim,
                             .block_tokens = KV_BLOCK_TOKENS};

    if (g->reach != g->window) {
        layer.n_first = g->n_first;
        layer.n_last = g->reach;
    }
    c->earlier[i] = layer;
    if (c->options.bits && !l->plain) {
        layer.bits = c->options.bits;
        layer.group_size = fitting_group(l, c->options.group_size);
        layer.split = c->split;
        layer.earlier = &c->earlier[i];
    }
    c->layers[i] = layer;
}

static int lay_out(kv_cache *c, device *d, const struct kv_layer_spec *layers, clm_error *err)
{
    size_t max_slab_bytes = SLAB_BYTES;

    for (int i = 0; i < c->n_layers; i++) {
        if (check_layer(&layers[i], i, err))
            return -1;
        c->group_of[i] = group_for(c, &layers[i]);
        describe_layer(c, i, &layers[i]);
    }
    /* Under a bound smaller slabs, so that little of it lies idle in half used ones. */
    if (max_slab_bytes > c->max_bytes / 64)
        max_slab_bytes = c->max_bytes / 64;
    for (int g = 0; g < c->n_groups; g++) {
        c->groups[g].pool = lay_out_pool(c, g, c->layers, d, max_slab_bytes, err);
        if (!c->groups[g].pool)
            return -1;
    }
    if (c->options.state_bytes) {
        c->states = &c->pools[c->n_pools++];
        block_pool_init(&c->states->blocks, d, c->options.state_bytes, max_slab_bytes);
    }
    for (int g = 0; g < c->n_groups && c->options.bits && c->split; g++) {
        if (c->groups[g].plain)
            continue;
        c->groups[g].earlier = lay_out_pool(c, g, c->earlier, d, max_slab_bytes, err);
        if (!c->groups[g].earlier)
            return -1;
    }
    return 0;
}

kv_cache *kv_cache_open(device *d, const struct kv_layer_spec *layers, int n_layers,
                        const struct kv_cache_options *options, clm_error *err)
{
    arena *memory;
    kv_cache *c;

    if (n_layers < 0)
        return fail_null(err, CLM_ERR_ARG, "a cache of %d layers", n_layers);
    if (check_options(options, err))
        return NULL;
    memory = arena_open(0);
    c = memory ? arena_array(memory, kv_cache, 1) : NULL;
    if (c) {
        c->memory = memory;
        c->options = *options;
        c->max_bytes = options->max_bytes ? options->max_bytes : SIZE_MAX;
        c->split = blocks_for(options->quantised_from) <= INT_MAX / KV_BLOCK_TOKENS
                       ? blocks_for(options->quantised_from) * KV_BLOCK_TOKENS
                       : INT_MAX / KV_BLOCK_TOKENS * KV_BLOCK_TOKENS;
        c->n_layers = n_layers;
        c->layers = arena_array(memory, struct kv_layer, n_layers);
        c->earlier = arena_array(memory, struct kv_layer, n_layers);
        c->group_of = arena_array(memory, int, n_layers);
        c->groups = arena_array(memory, struct group, n_layers);
        c->pools = arena_array(memory, struct pool, 2 * (size_t)n_layers + 1);
    }
    if (!c || !c->layers || !c->earlier || !c->group_of || !c->groups || !c->pools) {
        arena_close(memory);
        return fail_null(err, CLM_ERR_NOMEM, "no memory for a cache of %d layers", n_layers);
    }
    if (lay_out(c, d, layers, err)) {
        kv_cache_close(c);
        return NULL;
    }
    return c;
}

void kv_cache_close(kv_cache *c)
{
    if (!c)
        return;
    for (int i = 0; i < c->n_pools; i++)
        block_pool_release(&c->pools[i].blocks);
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

const struct kv_cache_options *kv_cache_kind(const kv_cache *c)
{
    return &c->options;
}

size_t kv_cache_bytes_used(const kv_cache *c)
{
    size_t bytes = 0;

    for (int i = 0; i < c->n_pools; i++) {
        const struct block_pool *p = &c->pools[i].blocks;

        bytes += (size_t)block_pool_used(p) * p->block_bytes;
    }
    return bytes;
}

size_t kv_cache_bytes_held(const kv_cache *c)
{
    size_t bytes = 0;

    for (int i = 0; i < c->n_pools; i++) {
        const struct block_pool *p = &c->pools[i].blocks;

        bytes += (size_t)p->n_slabs * block_pool_slab_bytes(p);
    }
    return bytes;
}

size_t kv_cache_bytes_per_token(const kv_cache *c)
{
    size_t bytes = 0;

    for (int g = 0; g < c->n_groups; g++)
        bytes += c->groups[g].pool->blocks.block_bytes / KV_BLOCK_TOKENS;
    return bytes;
}

double kv_cache_bytes_of(const kv_cache *c, int length)
{
    double bytes = (double)kv_cache_state_bytes(c);

    for (int g = 0; g < c->n_groups; g++) {
        const struct group *group = &c->groups[g];
        int n = group->reach && group->reach < length - group->n_first
                    ? group->reach + group->n_first
                    : length;
        int early = group->earlier && n == length ? min_int(n, c->split) : 0;

        if (early)
            bytes += (double)early * (double)group->earlier->blocks.block_bytes / KV_BLOCK_TOKENS;
        bytes += (double)(n - early) * (double)group->pool->blocks.block_bytes / KV_BLOCK_TOKENS;
    }
    return bytes;
}

size_t kv_cache_state_bytes(const kv_cache *c)
{
    return c->states ? c->states->blocks.block_bytes : 0;
}

/* Room in the pools */

static int grow_pool(kv_cache *c, struct pool *p, clm_error *err)
{
    int rc = block_pool_grow(&p->blocks, err);

    for (int i = 0; i < c->n_layers; i++) {
        if (c->groups[c->group_of[i]].pool == p)
            c->layers[i].slabs = p->blocks.device_slabs;
        if (c->groups[c->group_of[i]].earlier == p)
            c->earlier[i].slabs = p->blocks.device_slabs;
    }
    return rc;
}

/* Give back what other pools have in excess until bytes more fit under the bound. */
static bool fit_under_bound(kv_cache *c, size_t bytes)
{
    size_t held = kv_cache_bytes_held(c);

    if (bytes > c->max_bytes)
        return false;
    for (int i = 0; i < c->n_pools; i++)
        while (held > c->max_bytes - bytes &&
               block_pool_shrink(&c->pools[i].blocks, c->pools[i].need))
            held -= block_pool_slab_bytes(&c->pools[i].blocks);
    return held <= c->max_bytes - bytes;
}

/* After success every pool has as many free blocks as it needs. */
static int make_room(kv_cache *c, clm_error *err)
{
    size_t bytes = 0;

    for (int i = 0; i < c->n_pools; i++) {
        struct block_pool *p = &c->pools[i].blocks;
        size_t more;

        if (!size_mul((size_t)block_pool_missing(p, c->pools[i].need), block_pool_slab_bytes(p),
                      &more) ||
            !size_add(bytes, more, &bytes))
            return fail(err, CLM_ERR_NOMEM, "the cache would not fit in memory");
    }
    if (bytes && !fit_under_bound(c, bytes))
        return fail(err, CLM_ERR_FULL,
                    "the cache may hold %zu bytes, has %zu and needs %zu more: raise its bound or "
                    "close sequences",
                    c->max_bytes, kv_cache_bytes_held(c), bytes);
    for (int i = 0; i < c->n_pools; i++)
        while (block_pool_missing(&c->pools[i].blocks, c->pools[i].need))
            if (grow_pool(c, &c->pools[i], err))
                return -1;
    return 0;
}

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
    int missing = blocks_for((int64_t)s->length + n) - h->n_gone - h->n_blocks;

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
    int n = blocks_for(s->length);

    if (n > s->cache->groups[g].n_kept)
        n -= s->groups[g].n_gone;
    n = n > 0 ? n : 0;
    return min_int(n, s->groups[g].n_blocks);
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
        int n = used_blocks(s, g);

        to->n_gone = from->n_gone;
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

/* Take what make_room has made sure of. */
static void take_blocks(kv_seq *s, int g, int n)
{
    struct holding *h = &s->groups[g];

    if (must_copy(s, g)) {
        struct block_pool *p = &pool_of(s->cache, g, s->length / KV_BLOCK_TOKENS)->blocks;
        int32_t *block = partial_block(s, g);
        int32_t own = block_pool_take(p);

        block_pool_copy(p, own, *block);
        block_pool_unref(p, *block);
        *block = own;
    }
    for (int missing = missing_blocks(s, g, n); missing > 0; missing--) {
        table(h)[h->n_blocks] = block_pool_take(pool_at(s, g, h->n_blocks));
        h->n_blocks++;
    }
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
    for (int i = 0; i < c->n_pools; i++)
        c->pools[i].need = 0;
    for (int g = 0; g < c->n_groups; g++) {
        int missing = missing_blocks(s, g, n);

        if (add_needs(s, g, n))
            ready = false;
        if (missing && grow_table(&s->groups[g], missing, err))
            return -1;
    }
    if (has_states(s) && s->states.next < 0) {
        c->states->need = 1;
        ready = false;
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
        const struct group *group = &s->cache->groups[g];
        int begin = (int)(window_start(group->reach, n) / KV_BLOCK_TOKENS);

        if (s->groups[g].n_blocks == 0 && begin > group->n_kept)
            s->groups[g].n_gone = begin - group->n_kept;
    }
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
            kv_states_advance(&s->states, state_pool(s), s->length);
        memcpy(s->tokens + s->length, tokens, (size_t)n * sizeof *tokens);
    }
    s->length += n;
    for (int g = 0; g < s->cache->n_groups; g++) {
        const struct group *group = &s->cache->groups[g];
        struct holding *h = &s->groups[g];
        /* What a trim by up to a block of tokens needs again is kept. */
        int64_t start = window_start(group->reach, (int64_t)s->length - KV_BLOCK_TOKENS);
        int behind = (int)(start / KV_BLOCK_TOKENS) - group->n_kept - h->n_gone;

        assert(n == 0 || h->n_gone + h->n_blocks >= blocks_for(s->length));
        drop_unused(s, g);
        if (behind > 0)
            drop_first(s, g, behind);
    }
}

/* Do windows still hold what a continuation from n needs? */
static bool windows_hold(const kv_seq *s, int n)
{
    for (int g = 0; g < s->cache->n_groups; g++) {
        const struct group *group = &s->cache->groups[g];
        int64_t start = window_start(group->reach, n), begun = window_start(group->reach, s->begun);
        int64_t kept = (int64_t)group->n_kept * KV_BLOCK_TOKENS;
        int64_t gone = (int64_t)s->groups[g].n_gone * KV_BLOCK_TOKENS;

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
        if (h->n_blocks == 0 && s->cache->groups[g].n_kept == 0)
            h->n_gone = n / KV_BLOCK_TOKENS;
    }
    return 0;
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
        .n_kept = s->cache->groups[group].n_kept,
        .n_gone = h->n_gone,
    };
}

void *kv_seq_block(const kv_seq *s, int group, int position)
{
    int i = place_of(s, group, position / KV_BLOCK_TOKENS);

    return block_pool_at(pool_at(s, group, i), table(&s->groups[group])[i]);
}

int kv_cache_pools(const kv_cache *c)
{
    return c->n_pools;
}

size_t kv_cache_block_bytes(const kv_cache *c, int pool)
{
    return c->pools[pool].blocks.block_bytes;
}

int kv_cache_block_limit(const kv_cache *c, int pool)
{
    return block_pool_limit(&c->pools[pool].blocks);
}

int kv_cache_block_refs(const kv_cache *c, int pool, int32_t block)
{
    return block_pool_refs(&c->pools[pool].blocks, block);
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
    if (s->states.next >= 0)
        visit(ctx, states, s->states.next);
    for (int i = 0; i < s->states.n_snapshots; i++)
        visit(ctx, states, s->states.snapshots[i].block);
}
