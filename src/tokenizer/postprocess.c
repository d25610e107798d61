/* tokenizer/postprocess.c: every kind of post-processor as one list of ids with a gap for the text.
 */
#include "tokenizer/postprocess.h"

#include <string.h>

#include "base/memory.h"

#define MAX_ITEMS 4096

/* The text grows in parts, which a later processor of a sequence sees one by one: a template makes
 * a part of each of its pieces, and [CLS] and [SEP] go around each part. */
struct list {
    int32_t items[MAX_ITEMS];
    size_t count;
    size_t ends[MAX_ITEMS]; /* of the parts, in items */
    size_t n_parts;
    bool special; /* special tokens are added */
};

static int too_many(struct reader *r)
{
    return fail(r->err, CLM_ERR_UNSUPPORTED, "%s: post_processor: more than %d tokens", r->name,
                MAX_ITEMS);
}

static int list_add(struct list *list, int32_t id, struct reader *r)
{
    if (list->count == MAX_ITEMS)
        return too_many(r);
    list->items[list->count++] = id;
    return 0;
}

static int list_end_part(struct list *list, struct reader *r)
{
    if (list->n_parts == MAX_ITEMS)
        return too_many(r);
    list->ends[list->n_parts++] = list->count;
    return 0;
}

static int list_add_id(struct list *list, const json *v, struct reader *r)
{
    int64_t id = json_int(v, -1);

    if (id < 0 || id > INT32_MAX)
        return fail(r->err, CLM_ERR_FORMAT, "%s: post_processor: a token without id", r->name);
    return list_add(list, (int32_t)id, r);
}

static int list_add_part(struct list *list, const struct list *inner, size_t part, struct reader *r)
{
    for (size_t i = part ? inner->ends[part - 1] : 0; i < inner->ends[part]; i++) {
        if (list_add(list, inner->items[i], r))
            return -1;
    }
    return 0;
}

static int add_special(struct list *list, const json *specials, const json *piece, struct reader *r)
{
    const char *name = json_string(json_get(piece, "id"), NULL);
    const json *ids = name ? json_get(json_get(specials, name), "ids") : NULL;

    if (json_kind(ids) != JSON_ARRAY)
        return fail(r->err, CLM_ERR_FORMAT,
                    "%s: post_processor: special token \"%s\" is not in special_tokens", r->name,
                    name ? name : "?");
    for (size_t i = 0; i < json_size(ids) && list->special; i++) {
        if (list_add_id(list, json_at(ids, i), r))
            return -1;
    }
    return list->special ? list_end_part(list, r) : 0;
}

/* A: the first part, B: the second one, where there are two. */
static int add_sequence(struct list *list, const struct list *inner, const json *sequence,
                        struct reader *r)
{
    const char *id = json_string(json_get(sequence, "id"), NULL);
    size_t part = id && !strcmp(id, "B");

    if (!id || (strcmp(id, "A") && strcmp(id, "B")) || part >= inner->n_parts)
        return fail(r->err, CLM_ERR_FORMAT,
                    "%s: post_processor: a sequence \"%s\" in the template for %zu", r->name,
                    id ? id : "?", inner->n_parts);
    return list_add_part(list, inner, part, r) ? -1 : list_end_part(list, r);
}

static int open_template(struct list *list, const struct list *inner, const json *v,
                         struct reader *r)
{
    const json *pieces;

    if (inner->n_parts != 1 && inner->n_parts != 2)
        return fail(r->err, CLM_ERR_UNSUPPORTED, "%s: post_processor: a template for %zu parts",
                    r->name, inner->n_parts);
    if (read_array(r, v, inner->n_parts == 2 ? "pair" : "single", &pieces))
        return -1;
    for (size_t i = 0; i < json_size(pieces); i++) {
        const json *piece = json_at(pieces, i), *sequence = json_get(piece, "Sequence");

        if (sequence ? add_sequence(list, inner, sequence, r)
                     : add_special(list, json_get(v, "special_tokens"),
                                   json_get(piece, "SpecialToken"), r))
            return -1;
    }
    return 0;
}

/* [CLS] part [SEP], each given as [token, id]; in place of a later part's [CLS] there is nothing,
 * or [SEP] with RobertaProcessing. */
static int open_bert(struct list *list, const struct list *inner, const json *v, bool roberta,
                     struct reader *r)
{
    const json *cls = json_at(json_get(v, "cls"), 1), *sep = json_at(json_get(v, "sep"), 1);

    for (size_t i = 0; i < inner->n_parts; i++) {
        const json *before = i == 0 ? cls : roberta ? sep : NULL;

        if ((list->special && before && list_add_id(list, before, r)) ||
            list_add_part(list, inner, i, r) || (list->special && list_add_id(list, sep, r)) ||
            list_end_part(list, r))
            return -1;
    }
    return 0;
}

struct opening {
    struct list *list;
    struct reader *r;
};

static int open_processor(void *ctx, const json *v)
{
    const struct opening *o = ctx;
    struct list *list = o->list, *inner;
    struct reader *r = o->r;
    const char *type = read_type(r, v);
    int rc;

    if (!type)
        return -1;
    if (!strcmp(type, "ByteLevel")) /* changes offsets only */
        return 0;
    if (!strcmp(type, "Sequence"))
        return read_sequence(r, v, "processors", open_processor, ctx);
    if (strcmp(type, "TemplateProcessing") && strcmp(type, "BertProcessing") &&
        strcmp(type, "RobertaProcessing"))
        return unknown_type(r, type);
    inner = mem_alloc(sizeof *inner);
    if (!inner)
        return no_memory(r);
    *inner = *list;
    list->count = list->n_parts = 0;
    rc = strcmp(type, "TemplateProcessing")
             ? open_bert(list, inner, v, !strcmp(type, "RobertaProcessing"), r)
             : open_template(list, inner, v, r);
    mem_free(inner);
    return rc;
}

static int open_items(struct post_items *out, const json *v, bool special, struct list *list,
                      struct reader *r)
{
    struct opening o = {list, r};

    *list = (struct list){.items = {POST_TEXT}, .count = 1, .special = special};
    if (list_end_part(list, r) || (!json_is_null(v) && open_processor(&o, v)))
        return -1;
    out->items = mem_alloc(list->count * sizeof *out->items + 1);
    if (!out->items)
        return no_memory(r);
    memcpy(out->items, list->items, list->count * sizeof *out->items);
    out->count = list->count;
    return 0;
}

int postprocessor_open(struct postprocessor *p, const json *v, struct reader *r)
{
    struct list *list = mem_alloc(sizeof *list);
    int rc;

    *p = (struct postprocessor){0};
    r->part = "post_processor";
    if (!list)
        return no_memory(r);
    rc = open_items(&p->special, v, true, list, r);
    if (!rc)
        rc = open_items(&p->plain, v, false, list, r);
    mem_free(list);
    return rc;
}

int postprocessor_wrap(struct postprocessor *p, int32_t bos, int32_t eos, struct reader *r)
{
    int32_t *items = mem_alloc(3 * sizeof *items);
    size_t n = 0;

    if (!items)
        return no_memory(r);
    if (bos >= 0)
        items[n++] = bos;
    items[n++] = POST_TEXT;
    if (eos >= 0)
        items[n++] = eos;
    mem_free(p->special.items);
    p->special = (struct post_items){items, n};
    return 0;
}

void postprocessor_close(struct postprocessor *p)
{
    mem_free(p->special.items);
    mem_free(p->plain.items);
    *p = (struct postprocessor){0};
}
