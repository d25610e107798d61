#include "cache/kv_cache.h"

#include <limits.h>

#include "cache/kv_pools.h"
#include "device/kv_layout.h"

/* A slab is one allocation of the device: large enough that a long context needs few. */
#define SLAB_BYTES ((size_t)2 << 20)

/* Where blocks lie side by side: room for more of them. */
#define SIDE_BYTES ((size_t)16 << 20)

/* Parts of a block begin at multiples of this, as vector loads like it. */
#define PART_ALIGNMENT 64

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
    if (o->n_shares < 0 || o->n_shares >= DEVICE_MAX_GROUP || (o->n_shares && o->rest.dev))
        return fail(err, CLM_ERR_ARG, "a cache on %d devices%s", 1 + o->n_shares,
                    o->rest.dev ? ", and some layers on another" : "");
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
    size_t alignment = (size_t)PART_ALIGNMENT << l->side_shift, most, bytes;

    *offset = *block_bytes;
    /* A row, its scales and biases are never larger than this. */
    if (!size_mul((size_t)l->n_kv_heads * (size_t)kv_row_tokens(l), (size_t)dim * 4 + 16, &most) ||
        !size_add(most, alignment - 1, &most))
        return false;
    bytes = kv_part_at(l, 0, dim).end + alignment - 1;
    return size_add(*block_bytes, bytes & ~(alignment - 1), block_bytes);
}

/* How far back the layer sees, and what is kept before that, under the bound of tokens. */
static struct group group_like(const kv_cache *c, const struct kv_layer_spec *l, device *d)
{
    int last = c->options.max_tokens - c->options.n_first;
    struct group g = {.dev = d,
                      .window = l->window,
                      .plain = l->plain,
                      .reach = l->window,
                      .beside = d->ops->side_by_side && c->options.n_shares == 0};

    if (c->options.max_tokens && (!l->window || l->window > last)) {
        g.reach = last;
        g.n_first = c->options.n_first;
        g.n_kept = kv_blocks_for(g.n_first);
    }
    return g;
}

/* The group that a layer on d belongs to, made if there is none. */
static int group_for(kv_cache *c, const struct kv_layer_spec *l, device *d)
{
    int g = 0;

    while (g < c->n_groups && (c->groups[g].window != l->window || c->groups[g].plain != l->plain ||
                               c->groups[g].dev != d))
        g++;
    if (g == c->n_groups)
        c->groups[c->n_groups++] = group_like(c, l, d);
    return g;
}

/* The layers of a cache that has them for each of its devices, those of one of them. */
static struct kv_layer *share_of(const kv_cache *c, struct kv_layer *layers, int share)
{
    return layers + (size_t)share * (size_t)c->n_layers;
}

/* The layers of group g one after another in a block, or in 2^side_shift side by side; the bytes of
 * one. */
static int lay_out_block(const kv_cache *c, int g, struct kv_layer *layers, int side_shift,
                         size_t *bytes, clm_error *err)
{
    *bytes = 0;
    for (int i = 0; i < c->n_layers; i++) {
        struct kv_layer *l = &layers[i];

        if (c->group_of[i] != g)
            continue;
        l->side_shift = side_shift;
        if (!add_part(bytes, &l->k_offset, l, l->k_dim) ||
            !add_part(bytes, &l->v_offset, l, l->v_dim))
            return fail(err, CLM_ERR_ARG, "cache layer %d: a block does not fit in memory", i);
    }
    *bytes >>= side_shift;
    return 0;
}

/* Under a bound smaller slabs, so that little of it lies idle in half used ones. */
static size_t most_in_slab(const kv_cache *c, size_t bytes)
{
    return bytes < c->max_bytes / 64 ? bytes : c->max_bytes / 64;
}

/* An empty pool for the blocks of group g on all its devices; layers are those of the cache that
 * describe this pool. */
static struct pool *lay_out_pool(kv_cache *c, int g, struct kv_layer *layers, clm_error *err)
{
    struct pool *pool = &c->pools[c->n_pools++];
    struct block_part parts[DEVICE_MAX_GROUP] = {{.dev = c->groups[g].dev}};

    for (int s = 0; s <= c->options.n_shares; s++) {
        if (s > 0)
            parts[s].dev = c->options.shares[s - 1].dev;
        if (lay_out_block(c, g, share_of(c, layers, s), 0, &parts[s].bytes, err))
            return NULL;
    }
    block_pool_init(&pool->blocks, parts, 1 + c->options.n_shares,
                    most_in_slab(c, c->groups[g].beside ? SIDE_BYTES : SLAB_BYTES));
    if (c->groups[g].beside &&
        lay_out_block(c, g, layers, pool->blocks.slab_shift, &parts[0].bytes, err))
        return NULL;
    for (int s = 0; s <= c->options.n_shares; s++)
        for (int i = 0; i < c->n_layers; i++)
            if (c->group_of[i] == g) {
                share_of(c, layers, s)[i].block_bytes = parts[s].bytes;
                share_of(c, layers, s)[i].slab_shift = pool->blocks.slab_shift;
            }
    return pool;
}

/* What is known of layer i on a device before blocks are laid out. */
static void describe_layer(kv_cache *c, int share, int i, const struct kv_layer_spec *l)
{
    const struct group *g = &c->groups[c->group_of[i]];
    struct kv_layer *earlier = share_of(c, c->earlier, share) + i;
    struct kv_layer layer = {.type = c->options.type,
                             .n_kv_heads = l->n_kv_heads,
                             .k_dim = l->k_dim,
                             .v_dim = l->v_dim,
                             .block_tokens = KV_BLOCK_TOKENS,
                             .index = i};

    if (g->reach != g->window) {
        layer.n_first = g->n_first;
        layer.n_last = g->reach;
    }
    *earlier = layer;
    if (c->options.bits && !l->plain) {
        layer.bits = c->options.bits;
        layer.group_size = fitting_group(l, c->options.group_size);
        layer.split = c->split;
        layer.earlier = earlier;
    }
    share_of(c, c->layers, share)[i] = layer;
}

static int describe_layers(kv_cache *c, device *d, const struct kv_layer_spec *layers,
                           clm_error *err)
{
    const struct kv_rest *rest = &c->options.rest;

    for (int i = 0; i < c->n_layers; i++) {
        if (check_layer(&layers[i], i, err))
            return -1;
        c->group_of[i] = group_for(c, &layers[i], rest->dev && i >= rest->first ? rest->dev : d);
        describe_layer(c, 0, i, &layers[i]);
    }
    for (int s = 1; s <= c->options.n_shares; s++)
        for (int i = 0; i < c->n_layers; i++) {
            if (check_layer(&c->options.shares[s - 1].layers[i], i, err))
                return -1;
            describe_layer(c, s, i, &c->options.shares[s - 1].layers[i]);
        }
    return 0;
}

/* A pool for the states, where there are any. */
static void lay_out_states(kv_cache *c, device *d)
{
    const struct kv_cache_options *o = &c->options;
    struct block_part parts[DEVICE_MAX_GROUP] = {{.dev = d, .bytes = o->state_bytes}};
    size_t bytes = o->state_bytes + o->rest.state_bytes;
    int n = 1;

    c->states_stay = d->ops->states_stay;
    if (o->rest.dev) {
        parts[n++] = (struct block_part){.dev = o->rest.dev, .bytes = o->rest.state_bytes};
        c->states_stay = c->states_stay && o->rest.dev->ops->states_stay;
    }
    for (int i = 0; i < o->n_shares; i++) {
        parts[n++] =
            (struct block_part){.dev = o->shares[i].dev, .bytes = o->shares[i].state_bytes};
        bytes += o->shares[i].state_bytes;
        c->states_stay = c->states_stay && o->shares[i].dev->ops->states_stay;
    }
    if (bytes == 0)
        return;
    c->states = &c->pools[c->n_pools++];
    block_pool_init(&c->states->blocks, parts, n, most_in_slab(c, SLAB_BYTES));
}

static int lay_out(kv_cache *c, device *d, const struct kv_layer_spec *layers, clm_error *err)
{
    if (describe_layers(c, d, layers, err))
        return -1;
    for (int g = 0; g < c->n_groups; g++) {
        c->groups[g].pool = lay_out_pool(c, g, c->layers, err);
        if (!c->groups[g].pool)
            return -1;
    }
    lay_out_states(c, d);
    for (int g = 0; g < c->n_groups && c->options.bits && c->split; g++) {
        if (c->groups[g].plain)
            continue;
        c->groups[g].earlier = lay_out_pool(c, g, c->earlier, err);
        if (!c->groups[g].earlier)
            return -1;
    }
    return 0;
}

kv_cache *kv_cache_open(device *d, const struct kv_layer_spec *layers, int n_layers,
                        const struct kv_cache_options *options, clm_error *err)
{
    size_t n_described = (size_t)n_layers * (1 + (size_t)options->n_shares);
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
        c->split = kv_blocks_for(options->quantised_from) <= INT_MAX / KV_BLOCK_TOKENS
                       ? kv_blocks_for(options->quantised_from) * KV_BLOCK_TOKENS
                       : INT_MAX / KV_BLOCK_TOKENS * KV_BLOCK_TOKENS;
        c->n_layers = n_layers;
        c->layers = arena_array(memory, struct kv_layer, n_described);
        c->earlier = arena_array(memory, struct kv_layer, n_described);
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
    c->options.shares = NULL; /* the caller's */
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

device *kv_cache_group_device(const kv_cache *c, int group)
{
    return c->groups[group].dev;
}

device *kv_cache_device(const kv_cache *c, int layer)
{
    return c->groups[c->group_of[layer]].dev;
}

const struct kv_layer *kv_cache_layer(const kv_cache *c, int layer)
{
    return &c->layers[layer];
}

const struct kv_layer *kv_cache_layer_of(const kv_cache *c, int share, int layer)
{
    return share_of(c, c->layers, share) + layer;
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

    for (int s = 0; s <= c->options.n_shares; s++)
        for (int i = 0; i < c->n_layers; i++) {
            const struct group *g = &c->groups[c->group_of[i]];

            if (g->pool == p)
                share_of(c, c->layers, s)[i].slabs = p->blocks.parts[s].device_slabs;
            if (g->earlier == p)
                share_of(c, c->earlier, s)[i].slabs = p->blocks.parts[s].device_slabs;
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

int kv_make_room(kv_cache *c, clm_error *err)
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

/* Looking at pools */

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
