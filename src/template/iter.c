#include "template/render.h"

#include "base/utf8.h"

bool is_iterable(const struct value *v)
{
    switch (v->kind) {
    case V_UNDEFINED:
    case V_STRING:
    case V_BYTES:
    case V_LIST:
    case V_TUPLE:
    case V_DICT:
    case V_RANGE:
    case V_VIEW:
    case V_ITER:
    case V_LOOP:
        return true;
    default:
        return false;
    }
}

int iter_begin(struct render *r, const struct value *v, struct iter *it)
{
    *it = (struct iter){.over = *v};
    switch (v->kind) {
    case V_UNDEFINED:
        it->source = ITER_NONE;
        return 0;
    case V_STRING:
    case V_BYTES:
        it->source = ITER_TEXT;
        it->end = v->size;
        return 0;
    case V_LIST:
    case V_TUPLE:
        it->source = ITER_LIST;
        it->end = v->list->size;
        return 0;
    case V_DICT:
    case V_VIEW:
        it->source = ITER_DICT;
        it->view = v->kind == V_DICT ? VIEW_KEYS : v->flags;
        it->end = v->dict->size;
        return 0;
    case V_RANGE:
        it->source = ITER_RANGE;
        it->end = v->range->size;
        return 0;
    case V_ITER: /* the walk goes on where it is, for all who hold it */
        it->source = ITER_SHARED;
        it->inner = v->iter;
        return 0;
    case V_LOOP:
        it->source = ITER_LOOP;
        return 0;
    default:
        return render_fail(r, "'%s' object is not iterable", type_name(v));
    }
}

static int pair_value(struct render *r, const struct value *a, const struct value *b,
                      struct value *out)
{
    struct list *l = list_new(r, 2);

    if (!l)
        return -1;
    l->items[0] = *a;
    l->items[1] = *b;
    *out = value_tuple(l);
    return 0;
}

static int dict_item(struct render *r, const struct iter *it, int64_t at, struct value *out)
{
    const struct dict_entry *e = &it->over.dict->entries[at];

    if (it->view == VIEW_KEYS) {
        *out = e->key;
        return 1;
    }
    if (it->view == VIEW_ITEMS)
        return pair_value(r, &e->key, &e->value, out) ? -1 : 1;
    *out = e->value;
    return 1;
}

static int text_item(struct iter *it, struct value *out)
{
    const char *s = it->over.s + it->at;

    if (it->over.kind == V_BYTES) {
        *out = value_int((unsigned char)*s);
        it->at++;
        return 1;
    }
    *out = value_string(s, utf8_length((unsigned char)*s));
    out->flags = it->over.flags & STRING_ASCII; /* characters of Markup are plain */
    it->at += out->size;
    return 1;
}

static int filtered_next(struct render *r, struct iter *it, struct value *out)
{
    struct frame *before = r->frame;
    int more;

    while ((more = iter_next(r, it->inner, out)) > 0) {
        struct value test;
        int rc;

        if (render_work(r, 1))
            return -1;
        r->frame = it->frame;
        scope_enter(r, &it->loop->test_loads);
        rc = assign_target(r, it->loop->test_target, out) || eval_node(r, it->loop->test, &test);
        r->frame = before;
        if (rc)
            return -1;
        if (value_truth(&test))
            return 1;
    }
    return more;
}

static int map_next(struct render *r, struct iter *it, struct value *out)
{
    struct value item;
    int more = iter_next(r, it->inner, &item);

    if (more <= 0)
        return more;
    if (it->attribute)
        return get_path(r, &item, &it->path, &it->fallback, out) ? -1 : 1;
    return call_builtin(r, it->builtin, item, &it->args, out) ? -1 : 1;
}

static int select_next(struct render *r, struct iter *it, struct value *out)
{
    int more;

    while ((more = iter_next(r, it->inner, out)) > 0) {
        struct value tested = *out;

        if (render_work(r, 1))
            return -1;
        if (it->attribute && get_path(r, out, &it->path, NULL, &tested))
            return -1;
        if (it->builtin) {
            struct value subject = tested;

            if (call_builtin(r, it->builtin, subject, &it->args, &tested))
                return -1;
        }
        if (value_truth(&tested) != it->reject)
            return 1;
    }
    return more;
}

static int unique_next(struct render *r, struct iter *it, struct value *out)
{
    int more;

    while ((more = iter_next(r, it->inner, out)) > 0) {
        const struct value *unused;
        struct value key;
        int found;

        if (render_work(r, 1) || filter_key(r, out, &it->path, it->case_sensitive, &key))
            return -1;
        found = dict_get(r, it->seen, &key, &unused);
        if (found < 0)
            return -1;
        if (!found)
            return dict_set(r, it->seen, &key, value_none()) ? -1 : 1;
    }
    return more;
}

static int batch_next(struct render *r, struct iter *it, struct value *out)
{
    struct list_builder b = {0};
    int more = 0;

    if (it->pending && list_add(r, &b, it->ahead))
        return -1;
    it->pending = false;
    while ((more = iter_next(r, it->inner, &it->ahead)) > 0) {
        if (render_work(r, 1))
            return -1;
        if ((int64_t)b.size == it->end) { /* as in Jinja, a full batch waits for the next item */
            it->pending = true;
            break;
        }
        if (list_add(r, &b, it->ahead))
            return -1;
    }
    if (more < 0)
        return -1;
    if (!b.size && !it->pending)
        return 0;
    while (!it->pending && it->fallback.kind != V_MISSING && it->fallback.kind != V_NONE &&
           (int64_t)b.size < it->end)
        if (render_work(r, 1) || list_add(r, &b, it->fallback))
            return -1;
    return list_finish(r, &b, V_LIST, out) ? -1 : 1;
}

/* The items of a list, mapping or range from the last to the first. */
static int reversed_next(struct render *r, struct iter *it, struct value *out)
{
    int64_t at;

    if (it->at >= it->end)
        return 0;
    at = it->end - 1 - it->at++;
    switch (it->over.kind) {
    case V_LIST:
    case V_TUPLE:
        *out = it->over.list->items[at];
        return 1;
    case V_RANGE:
        *out = value_int(it->over.range->start + at * it->over.range->step);
        return 1;
    default: {
        struct iter walk = *it;

        walk.view = it->over.kind == V_DICT ? VIEW_KEYS : it->over.flags;
        return dict_item(r, &walk, at, out);
    }
    }
}

/* What Python does when a generator is asked for its first item. */
static int begin_waiting(struct render *r, struct iter *it)
{
    struct value list;

    it->waiting = false;
    if (it->source != ITER_DEFERRED)
        return iter_begin(r, &it->over, it->inner);
    return call_builtin(r, it->builtin, it->over, &it->args, &list) ||
                   iter_begin(r, &list, it->inner)
               ? -1
               : 0;
}

int iter_next(struct render *r, struct iter *it, struct value *out)
{
    int more;

    switch ((enum iter_source)it->source) {
    case ITER_LIST:
        if (it->at >= it->end)
            return 0;
        *out = it->over.list->items[it->at++];
        return 1;
    case ITER_DICT:
        return it->at < it->end ? dict_item(r, it, it->at++, out) : 0;
    case ITER_TEXT:
        return it->at < it->end ? text_item(it, out) : 0;
    case ITER_RANGE:
        if (it->at >= it->end)
            return 0;
        *out = value_int(it->over.range->start + it->at++ * it->over.range->step);
        return 1;
    case ITER_NONE:
        return 0;
    default:
        break;
    }
    if (render_enter(r))
        return -1;
    if (it->waiting && begin_waiting(r, it))
        return -1;
    switch ((enum iter_source)it->source) {
    case ITER_SHARED:
    case ITER_DEFERRED:
        more = iter_next(r, it->inner, out);
        break;
    case ITER_LOOP: {
        struct value loop = it->over, item;

        more = loop_next(r, loop.loop, &item);
        if (more > 0 && pair_value(r, &item, &loop, out))
            more = -1;
        break;
    }
    case ITER_FILTERED:
        more = filtered_next(r, it, out);
        break;
    case ITER_MAP:
        more = map_next(r, it, out);
        break;
    case ITER_SELECT:
        more = select_next(r, it, out);
        break;
    case ITER_UNIQUE:
        more = unique_next(r, it, out);
        break;
    case ITER_BATCH:
        more = batch_next(r, it, out);
        break;
    default:
        more = reversed_next(r, it, out);
        break;
    }
    render_leave(r);
    return more;
}

int to_list(struct render *r, const struct value *v, struct value *out)
{
    struct list_builder b = {0};
    struct value item;
    struct iter it;
    int more;

    if (v->kind == V_LIST || v->kind == V_TUPLE) { /* never changed, so the items can be shared */
        *out = value_list(v->list);
        return 0;
    }
    if (iter_begin(r, v, &it))
        return -1;
    while ((more = iter_next(r, &it, &item)) > 0)
        if (render_work(r, 1) || list_add(r, &b, item))
            return -1;
    return more < 0 ? -1 : list_finish(r, &b, V_LIST, out);
}

int iter_deferred(struct render *r, const struct builtin *b, const struct value *self,
                  const struct args *args, struct value *out)
{
    struct iter it = {.source = ITER_DEFERRED,
                      .waiting = true,
                      .over = *self,
                      .inner = render_alloc(r, 1, sizeof *it.inner),
                      .builtin = b,
                      .args = *args};

    return it.inner ? iter_value(r, &it, out) : -1;
}

int iter_value(struct render *r, const struct iter *it, struct value *out)
{
    struct iter *copy = render_alloc(r, 1, sizeof *copy);

    if (!copy)
        return -1;
    *copy = *it;
    *out = (struct value){.kind = V_ITER, .iter = copy};
    return 0;
}

int iter_reversed(struct render *r, const struct value *v, struct value *out, bool *can)
{
    struct iter it = {.source = ITER_REVERSED, .over = *v};

    *can = true;
    switch (v->kind) {
    case V_LIST:
    case V_TUPLE:
        it.end = v->list->size;
        break;
    case V_RANGE:
        it.end = v->range->size;
        break;
    case V_UNDEFINED: /* has a length, 0 */
        break;
    case V_DICT:
    case V_VIEW:
        it.end = v->dict->size;
        break;
    default:
        *can = false;
        return 0;
    }
    return iter_value(r, &it, out);
}
