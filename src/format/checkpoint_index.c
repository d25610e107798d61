#include "format/checkpoint_index.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/utf8.h"
#include "format/json_scan.h"

/* As for a header: it says as much, for all shards together. */
#define MAX_INDEX 100000000u

/* An entry as it stands in the file: the shard's name for its number. */
struct pair {
    const char *tensor, *shard;
};

struct parser {
    struct json_scan scan;
    struct checkpoint_index *index;
    struct pair *pairs;
    size_t n, capacity;
};

static int no_memory(struct parser *p)
{
    return fail(p->scan.err, CLM_ERR_NOMEM, "%s: no memory for %zu tensor names", p->scan.name,
                p->n + 1);
}

/* A file of the same folder: what the index says must not lead anywhere else. */
static int check_shard_name(struct parser *p, const char *shard, size_t size)
{
    bool plain = size > 0 && size < 256 && shard[0] != '.';

    for (size_t i = 0; i < size && plain; i++)
        plain = (unsigned char)shard[i] >= ' ' && shard[i] != '/' && shard[i] != '\\' &&
                shard[i] != 0x7F;
    if (plain)
        return 0;
    return fail(p->scan.err, CLM_ERR_FORMAT,
                "%s: \"%.120s\" is no plain file name for a shard; only files beside the index are "
                "read",
                p->scan.name, shard);
}

static int parse_pair(struct parser *p)
{
    struct pair *pair;
    size_t size;

    pair = mem_grow(p->pairs, &p->capacity, p->n + 1, sizeof *pair);
    if (!pair)
        return no_memory(p);
    p->pairs = pair;
    pair += p->n;
    if (json_scan_key(&p->scan, &pair->tensor) || json_scan_string(&p->scan, &pair->shard, &size) ||
        check_shard_name(p, pair->shard, size))
        return -1;
    /* Neighbours often share the shard: one copy of its name does for all. */
    if (p->n && !strcmp(pair->shard, pair[-1].shard)) {
        p->scan.pool = (char *)pair->shard;
        pair->shard = pair[-1].shard;
    }
    p->n++;
    return 0;
}

static int parse_weight_map(struct parser *p)
{
    int more;

    if (json_scan_expect(&p->scan, '{'))
        return -1;
    for (bool first = true; (more = json_scan_more(&p->scan, '}', &first)) > 0;)
        if (parse_pair(p))
            return -1;
    return more;
}

static int parse_top(struct parser *p)
{
    bool seen = false;
    int more;

    if (json_scan_expect(&p->scan, '{'))
        return -1;
    for (bool first = true; (more = json_scan_more(&p->scan, '}', &first)) > 0;) {
        const char *key;
        bool is_map;

        if (json_scan_key(&p->scan, &key))
            return -1;
        is_map = !strcmp(key, "weight_map");
        if (is_map && seen)
            return fail(p->scan.err, CLM_ERR_FORMAT, "%s: two keys \"weight_map\"", p->scan.name);
        seen |= is_map;
        if (is_map ? parse_weight_map(p) : json_scan_skip(&p->scan))
            return -1;
    }
    if (more || json_scan_finish(&p->scan))
        return -1;
    if (!p->n)
        return fail(p->scan.err, CLM_ERR_FORMAT,
                    "%s: no \"weight_map\" that names the shards of the tensors", p->scan.name);
    return 0;
}

static int by_shard(const void *a, const void *b)
{
    return strcmp(((const struct pair *)a)->shard, ((const struct pair *)b)->shard);
}

static int by_tensor(const void *a, const void *b)
{
    return strcmp(((const struct checkpoint_index_entry *)a)->tensor,
                  ((const struct checkpoint_index_entry *)b)->tensor);
}

static bool same_shard(const struct pair *a, const struct pair *b)
{
    return a->shard == b->shard || !strcmp(a->shard, b->shard);
}

/* Numbers the shards and sorts the entries. */
static int fill_index(struct parser *p)
{
    struct checkpoint_index *index = p->index;

    qsort(p->pairs, p->n, sizeof *p->pairs, by_shard);
    index->n_shards = 1;
    for (size_t i = 1; i < p->n; i++)
        index->n_shards += !same_shard(&p->pairs[i - 1], &p->pairs[i]);
    index->shards = mem_zeroed(index->n_shards, sizeof *index->shards);
    index->entries = mem_zeroed(p->n, sizeof *index->entries);
    if (!index->shards || !index->entries)
        return no_memory(p);
    index->n_entries = p->n;
    for (size_t i = 0, shard = 0; i < p->n; i++) {
        shard += i && !same_shard(&p->pairs[i - 1], &p->pairs[i]);
        index->shards[shard] = p->pairs[i].shard;
        index->entries[i] = (struct checkpoint_index_entry){p->pairs[i].tensor, shard};
    }
    qsort(index->entries, index->n_entries, sizeof *index->entries, by_tensor);
    for (size_t i = 1; i < index->n_entries; i++)
        if (!by_tensor(&index->entries[i - 1], &index->entries[i]))
            return fail(p->scan.err, CLM_ERR_FORMAT, "%s: tensor \"%.120s\" is listed twice",
                        p->scan.name, index->entries[i].tensor);
    return 0;
}

int checkpoint_index_parse(struct checkpoint_index *index, const char *text, size_t size,
                           const char *name, clm_error *err)
{
    struct parser p = {.index = index};
    int rc = -1;

    *index = (struct checkpoint_index){0};
    if (size > MAX_INDEX)
        return fail(err, CLM_ERR_FORMAT, "%s: an index of %zu bytes; at most %u are read", name,
                    size, MAX_INDEX);
    if (!size || !utf8_valid(text, size))
        return fail(err, CLM_ERR_FORMAT, "%s: %s", name,
                    size ? "the index is not valid UTF-8" : "the file is empty");
    p.scan =
        (struct json_scan){.at = text, .begin = text, .end = text + size, .name = name, .err = err};
    p.scan.pool = index->memory = mem_alloc(size);
    if (!index->memory)
        fail(err, CLM_ERR_NOMEM, "%s: no memory for %zu bytes", name, size);
    else if (!parse_top(&p))
        rc = fill_index(&p);
    mem_free(p.pairs);
    if (rc)
        checkpoint_index_close(index);
    return rc;
}

void checkpoint_index_close(struct checkpoint_index *index)
{
    mem_free(index->entries);
    mem_free(index->shards);
    mem_free(index->memory);
    *index = (struct checkpoint_index){0};
}
