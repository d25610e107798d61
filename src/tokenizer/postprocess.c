/* tokenizer/postprocess.c: every kind of post-processor as one list of ids with a gap for the text.
 */
#include "tokenizer/postprocess.h"

#include <string.h>

#include "base/memory.h"

#define MAX_ITEMS 4096
#define MAX_DEPTH 32

struct list {
    int32_t items[MAX_ITEMS];
    size_t count;
};

static int list_add(struct list *list, int32_t id, struct reader *r)
{
    if (list->count == MAX_ITEMS)
        return fail(r->err, CLM_ERR_UNSUPPORTED, "%s: post_processor: more than %d tokens", r->name,
                    MAX_ITEMS);
    list->items[list->count++] = id;
    return 0;
}

static int list_add_id(struct list *list, const json *v, struct reader *r)
{
    int64_t id = json_int(v, -1);

    if (id < 0 || id > INT32_MAX)
        return fail(r->err, CLM_ERR_FORMAT, "%s: post_processor: a token without id", r->name);
    return list_add(list, (int32_t)id, r);
}

/* What stands for the text so far goes where the new list has its text. */
static int list_add_inner(struct list *list, const struct list *inner, struct reader *r)
{
    for (size_t i = 0; i < inner->count; i++) {
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
    for (size_t i = 0; i < json_size(ids); i++) {
        if (list_add_id(list, json_at(ids, i), r))
            return -1;
    }
    return 0;
}

static int open_template(struct list *list, const struct list *inner, const json *v,
                         struct reader *r)
{
    const json *single;

    if (read_array(r, v, "single", &single))
        return -1;
    for (size_t i = 0; i < json_size(single); i++) {
        const json *piece = json_at(single, i), *sequence = json_get(piece, "Sequence");
        const char *id = json_string(json_get(sequence, "id"), NULL);
        int rc;

        if (sequence && (!id || strcmp(id, "A")))
            return fail(r->err, CLM_ERR_FORMAT,
                        "%s: post_processor: a sequence \"%s\" in the template for one", r->name,
                        id ? id : "?");
        rc = sequence ? list_add_inner(list, inner, r)
                      : add_special(list, json_get(v, "special_tokens"),
                                    json_get(piece, "SpecialToken"), r);
        if (rc)
            return -1;
    }
    return 0;
}

/* [CLS] text [SEP], each given as [token, id]. */
static int open_bert(struct list *list, const struct list *inner, const json *v, struct reader *r)
{
    if (list_add_id(list, json_at(json_get(v, "cls"), 1), r) || list_add_inner(list, inner, r))
        return -1;
    return list_add_id(list, json_at(json_get(v, "sep"), 1), r);
}

static int open_processor(struct list *list, const json *v, int depth, struct reader *r);

static int open_sequence(struct list *list, const json *v, int depth, struct reader *r)
{
    const json *processors;

    if (depth == MAX_DEPTH)
        return fail(r->err, CLM_ERR_UNSUPPORTED, "%s: post_processor: nested too deep", r->name);
    if (read_array(r, v, "processors", &processors))
        return -1;
    for (size_t i = 0; i < json_size(processors); i++) {
        if (open_processor(list, json_at(processors, i), depth + 1, r))
            return -1;
    }
    return 0;
}

static int open_processor(struct list *list, const json *v, int depth, struct reader *r)
{
    const char *type = read_type(r, v);
    struct list *inner;
    int rc;

    if (!type)
        return -1;
    if (!strcmp(type, "ByteLevel")) /* changes offsets only */
        return 0;
    if (!strcmp(type, "Sequence"))
        return open_sequence(list, v, depth, r);
    if (strcmp(type, "TemplateProcessing") && strcmp(type, "BertProcessing") &&
        strcmp(type, "RobertaProcessing"))
        return unknown_type(r, type);
    inner = mem_alloc(sizeof *inner);
    if (!inner)
        return no_memory(r);
    *inner = *list;
    list->count = 0;
    rc = strcmp(type, "TemplateProcessing") ? open_bert(list, inner, v, r)
                                            : open_template(list, inner, v, r);
    mem_free(inner);
    return rc;
}

int postprocessor_open(struct postprocessor *p, const json *v, struct reader *r)
{
    struct list *list = mem_alloc(sizeof *list);
    int rc = -1;

    *p = (struct postprocessor){0};
    r->part = "post_processor";
    if (!list)
        return no_memory(r);
    list->items[0] = POST_TEXT;
    list->count = 1;
    if (!json_is_null(v) && open_processor(list, v, 0, r))
        goto cleanup;
    p->items = mem_alloc(list->count * sizeof *p->items + 1);
    if (!p->items) {
        no_memory(r);
        goto cleanup;
    }
    memcpy(p->items, list->items, list->count * sizeof *p->items);
    p->count = list->count;
    rc = 0;

cleanup:
    mem_free(list);
    return rc;
}

void postprocessor_close(struct postprocessor *p)
{
    mem_free(p->items);
    *p = (struct postprocessor){0};
}
