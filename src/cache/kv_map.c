#include "cache/kv_map.h"

#include "base/memory.h"
#include "cache/kv_pools.h"

/* What the description of a layer points at. */
struct mapped {
    struct kv_part parts[2], early_parts[2];
    struct kv_layer early;
    bool set;
};

struct kv_map {
    const kv_cache *cache;
    int n_owners;
    struct file_map file;
    struct file_identity identity;
    void *base; /* of the file: what layers have for slabs */
    struct kv_layer *layers;
    struct mapped *mapped;
};

kv_map *kv_map_open(const kv_cache *c, struct file_map *file, struct file_identity *identity,
                    clm_error *err)
{
    kv_map *m = mem_zeroed(1, sizeof *m);

    if (m) {
        m->layers = mem_zeroed((size_t)c->n_layers + 1, sizeof *m->layers);
        m->mapped = mem_zeroed((size_t)c->n_layers + 1, sizeof *m->mapped);
    }
    if (!m || !m->layers || !m->mapped) {
        kv_map_close(m);
        return fail_null(err, CLM_ERR_NOMEM, "no memory to map a cache of %d layers", c->n_layers);
    }
    m->cache = c;
    m->n_owners = 1;
    m->file = *file;
    m->identity = *identity;
    m->base = (void *)file->data;
    *file = (struct file_map){0};
    *identity = (struct file_identity){0};
    return m;
}

void kv_map_own(kv_map *m)
{
    m->n_owners++;
}

void kv_map_close(kv_map *m)
{
    if (!m || --m->n_owners > 0)
        return;
    file_unmap(&m->file);
    file_identity_release(&m->identity);
    mem_free(m->layers);
    mem_free(m->mapped);
    mem_free(m);
}

static struct kv_layer describe(const kv_map *m, const struct kv_layer *like,
                                const struct kv_map_rows *rows, struct kv_part *parts)
{
    struct kv_layer layer = *like;

    parts[0] = rows->parts[0];
    parts[1] = rows->parts[1];
    layer.parts = parts;
    layer.block_tokens = rows->n_tokens;
    layer.side_shift = 0;
    layer.slabs = &m->base;
    return layer;
}

void kv_map_set(kv_map *m, int layer, const struct kv_map_rows *rows,
                const struct kv_map_rows *early)
{
    struct mapped *to = &m->mapped[layer];
    const struct kv_layer *kv = kv_cache_layer(m->cache, layer);

    m->layers[layer] = rows ? describe(m, kv, rows, to->parts) : *kv;
    if (early) {
        to->early = describe(m, kv->earlier, early, to->early_parts);
        m->layers[layer].earlier = &to->early;
    }
    to->set = true;
}

bool kv_map_has(const kv_map *m, int group)
{
    if (m->cache->groups[group].reach)
        return false;
    for (int i = 0; i < m->cache->n_layers; i++)
        if (m->cache->group_of[i] == group && !m->mapped[i].set)
            return false;
    return true;
}

const struct kv_layer *kv_map_layers(const kv_map *m)
{
    return m->layers;
}

int kv_map_check(const kv_map *m, clm_error *err)
{
    return file_check(&m->identity, err);
}
