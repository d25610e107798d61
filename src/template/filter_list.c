#include "template/filters.h"

#define UNUSED ((void)p, (void)args)

FILTER(length)
{
    int64_t n;

    UNUSED;
    if (value_length(r, &self, &n))
        return -1;
    *out = value_int(n);
    return 0;
}

FILTER(default)
{
    (void)r;
    (void)args;
    *out = self;
    if (self.kind == V_UNDEFINED || (value_truth(&p[1]) && !value_truth(&self)))
        *out = p[0].kind == V_MISSING ? value_string("", 0) : p[0];
    return 0;
}

FILTER(attr)
{
    const struct builtin *methods;
    struct value name;

    (void)args;
    if (arg_text(r, &p[0], "attr: name", &name))
        return -1;
    if (self.kind == V_UNDEFINED)
        return undefined_error(r, &self);
    methods = methods_named(name.s, name.size);
    if (self.kind == V_DICT && !(methods && method_for(methods, V_DICT))) { /* items do not count */
        *out = value_undefined(UNDEFINED_ATTR, name.s, name.size, self.kind);
        return 0;
    }
    return get_attribute(r, &self, &name, hash_bytes(name.s, name.size), methods, out);
}

static struct value no_item(const char *hint)
{
    return value_undefined(UNDEFINED_HINT, hint, strlen(hint), 0);
}

FILTER(first)
{
    struct iter it;
    int more;

    UNUSED;
    if (iter_begin(r, &self, &it))
        return -1;
    more = iter_next(r, &it, out);
    if (!more)
        *out = no_item("No first item, sequence was empty.");
    return more < 0 ? -1 : 0;
}

FILTER(last)
{
    struct value back;
    bool can;

    UNUSED;
    if (self.kind == V_STRING) {
        static const struct value minus_one = {.kind = V_INT, .i = -1};

        if (self.size)
            return get_item(r, &self, &minus_one, out);
        *out = no_item("No last item, sequence was empty.");
        return 0;
    }
    if (self.kind == V_UNDEFINED) {
        *out = no_item("No last item, sequence was empty.");
        return 0;
    }
    if (iter_reversed(r, &self, &back, &can))
        return -1;
    if (!can)
        return render_fail(r, "'%s' object is not reversible", type_name(&self));
    if (!iter_next(r, back.iter, out))
        *out = no_item("No last item, sequence was empty.");
    return 0;
}

FILTER(list)
{
    UNUSED;
    return to_list(r, &self, out);
}

FILTER(reverse)
{
    static const struct value none = {.kind = V_NONE};
    static const struct value minus_one = {.kind = V_INT, .i = -1};
    struct value list;
    bool can;

    UNUSED;
    if (self.kind == V_STRING)
        return get_slice(r, &self, &none, &none, &minus_one, out);
    if (iter_reversed(r, &self, out, &can))
        return -1;
    if (can)
        return 0;
    if (!is_iterable(&self))
        return render_fail(r, "argument must be iterable");
    return to_list(r, &self, &list) || get_slice(r, &list, &none, &none, &minus_one, out) ? -1 : 0;
}

static FILTER(items_now)
{
    UNUSED;
    if (self.kind != V_DICT && self.kind != V_UNDEFINED)
        return render_fail(r, "Can only get item pairs from a mapping.");
    *out = self;
    if (self.kind == V_DICT)
        *out = (struct value){.kind = V_VIEW, .flags = VIEW_ITEMS, .dict = self.dict};
    return 0;
}

FILTER(items)
{
    static const struct builtin now = {.name = "items", .fn = filter_items_now, .params = ""};

    (void)p;
    return iter_deferred(r, &now, &self, args, out);
}

FILTER(join)
{
    struct value separator = value_string("", 0), items = self;

    (void)args;
    if (p[0].kind != V_MISSING && to_string(r, &p[0], &separator))
        return -1;
    separator.flags &= (uint8_t)~STRING_MARKUP;
    if (p[1].kind != V_MISSING && p[1].kind != V_NONE) {
        struct iter *inner = render_alloc(r, 1, sizeof *inner);
        struct iter it = {.source = ITER_MAP, .attribute = true, .path = p[1]};

        if (!inner || iter_begin(r, &self, inner))
            return -1;
        it.inner = inner;
        if (iter_value(r, &it, &items))
            return -1;
    }
    return string_join(r, &separator, &items, true, out);
}

/* ---- order ---- */

int filter_key(struct render *r, const struct value *item, const struct value *path,
               bool case_sensitive, struct value *out)
{
    struct value v;

    if (get_path(r, item, path, NULL, &v))
        return -1;
    if (!case_sensitive && v.kind == V_STRING)
        return string_case(r, &v, CASE_LOWER, out);
    *out = v;
    return 0;
}

struct sorted {
    struct value item, key;
};

/* A stable merge sort; a reverse one keeps the order of equal items too, as Python's does. */
static int merge_sort(struct render *r, struct sorted *items, struct sorted *spare, size_t n,
                      bool reverse)
{
    size_t half = n / 2, i = 0, j = half, at = 0;

    if (n < 2)
        return 0;
    if (merge_sort(r, items, spare, half, reverse) ||
        merge_sort(r, items + half, spare, n - half, reverse))
        return -1;
    while (i < half && j < n) {
        int less = reverse ? value_less(r, &items[i].key, &items[j].key, OP_LT)
                           : value_less(r, &items[j].key, &items[i].key, OP_LT);

        if (less < 0 || render_work(r, 1))
            return -1;
        spare[at++] = less ? items[j++] : items[i++];
    }
    while (i < half)
        spare[at++] = items[i++];
    memcpy(items, spare, at * sizeof *items);
    return 0;
}

/* The items in order; the keys go along when they are wanted. */
static int sort_items(struct render *r, const struct value *list, const struct value *keys,
                      bool reverse, struct sorted **out)
{
    size_t n = list->list->size;
    struct sorted *items = render_alloc(r, 2 * n + 1, sizeof *items);

    if (!items)
        return -1;
    for (size_t i = 0; i < n; i++)
        items[i] = (struct sorted){list->list->items[i], keys->list->items[i]};
    *out = items;
    return merge_sort(r, items, items + n, n, reverse);
}

static int sorted_list(struct render *r, const struct value *list, const struct value *keys,
                       bool reverse, struct value *out)
{
    struct sorted *items;
    struct list *l = list_new(r, list->list->size);

    if (!l || sort_items(r, list, keys, reverse, &items))
        return -1;
    for (uint32_t i = 0; i < l->size; i++)
        l->items[i] = items[i].item;
    *out = value_list(l);
    return 0;
}

/* "a,b" as a list of paths. */
static int split_paths(struct render *r, const struct value *attribute, struct value *out)
{
    static const struct value comma = {.kind = V_STRING, .size = 1, .s = ","};
    struct list *l;

    if (attribute->kind == V_STRING)
        return string_split(r, attribute, &comma, -1, false, out);
    l = list_new(r, 1);
    if (!l)
        return -1;
    l->items[0] = *attribute;
    *out = value_list(l);
    return 0;
}

/* The keys of all items: lists of as many values as there are paths. */
static int sort_keys(struct render *r, const struct value *list, const struct value *attribute,
                     bool case_sensitive, struct value *out)
{
    struct list *keys = list_new(r, list->list->size);
    struct value paths;

    if (!keys || split_paths(r, attribute, &paths))
        return -1;
    for (uint32_t i = 0; i < keys->size; i++) {
        struct list *key = list_new(r, paths.list->size);

        if (!key || render_work(r, key->size))
            return -1;
        for (uint32_t k = 0; k < key->size; k++)
            if (filter_key(r, &list->list->items[i], &paths.list->items[k], case_sensitive,
                           &key->items[k]))
                return -1;
        keys->items[i] = value_list(key);
    }
    *out = value_list(keys);
    return 0;
}

FILTER(sort)
{
    struct value list, keys;

    (void)args;
    return to_list(r, &self, &list) || sort_keys(r, &list, &p[2], value_truth(&p[1]), &keys) ||
                   sorted_list(r, &list, &keys, value_truth(&p[0]), out)
               ? -1
               : 0;
}

FILTER(dictsort)
{
    struct value view = {.kind = V_VIEW, .flags = VIEW_ITEMS, .dict = self.dict}, list, keys;
    struct list *l;
    int at;

    (void)args;
    if (self.kind == V_UNDEFINED)
        return undefined_error(r, &self);
    if (self.kind != V_DICT)
        return render_fail(r, "'%s' object has no attribute 'items'", type_name(&self));
    if (p[1].kind != V_MISSING && !string_is(&p[1], "key") && !string_is(&p[1], "value"))
        return render_fail(r, "You can only sort by either \"key\" or \"value\"");
    at = string_is(&p[1], "value");
    if (to_list(r, &view, &list))
        return -1;
    l = list_new(r, list.list->size);
    if (!l)
        return -1;
    for (uint32_t i = 0; i < l->size; i++) {
        static const struct value whole;

        if (filter_key(r, &list.list->items[i].list->items[at], &whole, value_truth(&p[0]),
                       &l->items[i]))
            return -1;
    }
    keys = value_list(l);
    return sorted_list(r, &list, &keys, value_truth(&p[2]), out);
}

static int extreme(struct render *r, const struct value *self, const struct value *p,
                   enum compare_op op, struct value *out)
{
    struct value item, key, best = {0};
    struct iter it;
    int more;

    if (iter_begin(r, self, &it))
        return -1;
    *out = no_item("No aggregated item, sequence was empty.");
    while ((more = iter_next(r, &it, &item)) > 0) {
        int better;

        if (render_work(r, 1) || filter_key(r, &item, &p[1], value_truth(&p[0]), &key))
            return -1;
        better = best.kind == V_MISSING ? 1 : value_less(r, &key, &best, op);
        if (better < 0)
            return -1;
        if (better) {
            best = key;
            *out = item;
        }
    }
    return more;
}

FILTER(min)
{
    (void)args;
    return extreme(r, &self, p, OP_LT, out);
}

FILTER(max)
{
    (void)args;
    return extreme(r, &self, p, OP_GT, out);
}

FILTER(sum)
{
    struct value item, sum = value_int(0);
    struct iter it;
    int more;

    (void)args;
    if (p[1].kind != V_MISSING)
        sum = p[1];
    if (sum.kind == V_STRING)
        return render_fail(r, "sum() can't sum strings [use ''.join(seq) instead]");
    if (iter_begin(r, &self, &it))
        return -1;
    while ((more = iter_next(r, &it, &item)) > 0)
        if (render_work(r, 1) || get_path(r, &item, &p[0], NULL, &item) ||
            operate(r, N_ADD, &sum, &item, &sum))
            return -1;
    *out = sum;
    return more;
}

FILTER(unique)
{
    struct iter *inner = render_alloc(r, 1, sizeof *inner);
    struct iter it = {.source = ITER_UNIQUE,
                      .waiting = true,
                      .over = self,
                      .inner = inner,
                      .case_sensitive = value_truth(&p[0]),
                      .path = p[1]};

    (void)args;
    it.seen = dict_new(r, 0);
    return !inner || !it.seen || iter_value(r, &it, out) ? -1 : 0;
}

/* ---- groups ---- */

static int group_value(struct render *r, const struct sorted *items, size_t n,
                       const struct value *grouper, struct value *out)
{
    struct list *l = list_new(r, n), *pair = list_new(r, 2);

    if (!l || !pair)
        return -1;
    for (size_t i = 0; i < n; i++)
        l->items[i] = items[i].item;
    pair->items[0] = *grouper;
    pair->items[1] = value_list(l);
    *out = value_tuple(pair);
    out->flags = TUPLE_GROUP;
    return 0;
}

static int group_keys(struct render *r, const struct value *list, const struct value *p,
                      struct value *out)
{
    struct list *keys = list_new(r, list->list->size);

    if (!keys)
        return -1;
    for (uint32_t i = 0; i < keys->size; i++) {
        struct value v;
        static const struct value whole;

        if (render_work(r, 1) || get_path(r, &list->list->items[i], &p[0], &p[1], &v) ||
            filter_key(r, &v, &whole, value_truth(&p[2]), &keys->items[i]))
            return -1;
    }
    *out = value_list(keys);
    return 0;
}

FILTER(groupby)
{
    struct list_builder groups = {0};
    struct value list, keys, group, grouper;
    struct sorted *items;
    size_t n, from = 0;

    (void)args;
    if (to_list(r, &self, &list) || group_keys(r, &list, p, &keys) ||
        sort_items(r, &list, &keys, false, &items))
        return -1;
    n = list.list->size;
    for (size_t i = 1; i <= n; i++) {
        int same = i < n ? value_equal(r, &items[i].key, &items[from].key) : 0;

        if (same < 0 || render_work(r, 1))
            return -1;
        if (same)
            continue;
        if (get_path(r, &items[from].item, &p[0], &p[1], &grouper) ||
            group_value(r, items + from, i - from, &grouper, &group) || list_add(r, &groups, group))
            return -1;
        from = i;
    }
    return list_finish(r, &groups, V_LIST, out);
}

FILTER(batch)
{
    struct iter *inner = render_alloc(r, 1, sizeof *inner);
    struct iter it = {
        .source = ITER_BATCH, .waiting = true, .over = self, .inner = inner, .fallback = p[1]};

    (void)args;
    return !inner || arg_int(r, &p[0], "batch: linecount", &it.end) || iter_value(r, &it, out) ? -1
                                                                                               : 0;
}

static FILTER(slice_now)
{
    struct list_builder b = {0};
    struct value seq, part;
    int64_t slices, size, each, extra, offset = 0;

    (void)args;
    if (arg_int(r, &p[0], "slice: slices", &slices) || to_list(r, &self, &seq))
        return -1;
    if (!slices)
        return render_fail(r, "integer division or modulo by zero");
    size = seq.list->size;
    each = slices > 0 ? size / slices : 0;
    extra = slices > 0 ? size % slices : 0;
    for (int64_t i = 0; i < slices; i++) {
        int64_t start = offset + i * each, end;
        struct list_builder one = {0};

        offset += i < extra;
        end = offset + (i + 1) * each;
        if (render_work(r, 1 + (uint64_t)(end - start)))
            return -1;
        for (int64_t k = start; k < end && k < size; k++)
            if (list_add(r, &one, seq.list->items[k]))
                return -1;
        if (p[1].kind != V_MISSING && p[1].kind != V_NONE && i >= extra && list_add(r, &one, p[1]))
            return -1;
        if (list_finish(r, &one, V_LIST, &part) || list_add(r, &b, part))
            return -1;
    }
    return list_finish(r, &b, V_LIST, out);
}

FILTER(slice)
{
    static const struct builtin now = {
        .name = "slice", .fn = filter_slice_now, .params = "slices fill_with", .required = 1};

    (void)p;
    return iter_deferred(r, &now, &self, args, out);
}

/* ---- every item ---- */

static const struct value *named_arg(const struct args *args, const char *name)
{
    for (uint32_t i = 0; i < args->n_named; i++)
        if (string_is(&args->named[i].name, name))
            return &args->named[i].value;
    return NULL;
}

static struct args rest_of(const struct args *args, uint32_t from)
{
    struct args rest = *args;

    rest.positional += from;
    rest.n_positional -= from;
    return rest;
}

/* The walk, or where there is nothing to walk an empty one. */
static int begin_inner(struct render *r, const struct value *self, struct iter *it,
                       struct value *out)
{
    static const struct value nothing = {.kind = V_UNDEFINED};

    it->inner = render_alloc(r, 1, sizeof *it->inner);
    if (!it->inner)
        return -1;
    it->waiting = true;
    it->over = value_truth(self) ? *self : nothing;
    return iter_value(r, it, out);
}

FILTER(map)
{
    const struct value *attribute = named_arg(args, "attribute"), *fallback;
    struct iter it = {.source = ITER_MAP};

    (void)p;
    if (!value_truth(&self))
        return begin_inner(r, &self, &it, out);
    if (!args->n_positional && attribute) {
        fallback = named_arg(args, "default");
        if (args->n_named > 1u + (fallback != NULL))
            return render_fail(r, "map: unexpected keyword argument");
        it.attribute = true;
        it.path = *attribute;
        if (fallback)
            it.fallback = *fallback;
        return begin_inner(r, &self, &it, out);
    }
    if (!args->n_positional)
        return render_fail(r, "map requires a filter argument");
    if (args->positional[0].kind == V_STRING)
        it.builtin = filter_find(args->positional[0].s, args->positional[0].size);
    if (!it.builtin)
        return render_fail(r, "map: there is no such filter");
    it.args = rest_of(args, 1);
    return begin_inner(r, &self, &it, out);
}

static int select_items(struct render *r, const struct value *self, const struct args *args,
                        bool attribute, bool reject, struct value *out)
{
    struct iter it = {.source = ITER_SELECT, .attribute = attribute, .reject = reject};
    uint32_t at = attribute;

    if (!value_truth(self))
        return begin_inner(r, self, &it, out);
    if (attribute) {
        if (!args->n_positional)
            return render_fail(r, "Missing parameter for attribute name");
        it.path = args->positional[0];
    }
    if (args->n_positional > at) {
        const struct value *name = &args->positional[at];

        if (name->kind == V_STRING)
            it.builtin = test_find(name->s, name->size);
        if (!it.builtin)
            return render_fail(r, "select: there is no such test");
        it.args = rest_of(args, at + 1);
    }
    return begin_inner(r, self, &it, out);
}

FILTER(select)
{
    (void)p;
    return select_items(r, &self, args, false, false, out);
}

FILTER(reject)
{
    (void)p;
    return select_items(r, &self, args, false, true, out);
}

FILTER(selectattr)
{
    (void)p;
    return select_items(r, &self, args, true, false, out);
}

FILTER(rejectattr)
{
    (void)p;
    return select_items(r, &self, args, true, true, out);
}
